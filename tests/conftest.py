"""Hypothesis runs the same examples everywhere, and never looks at the clock. Commands run through the entry point."""

import json

import pytest
from hypothesis import settings

from grpo_dynamics.cli import main

settings.register_profile("package", deadline=None, derandomize=True, max_examples=150, print_blob=False)
settings.load_profile("package")


@pytest.fixture
def answer(capsys):
    """Run a command with --json and return the object it printed."""

    def run(*arguments: str):
        assert main([*arguments, "--json"]) == 0
        out, err = capsys.readouterr()
        assert err == ""

        def refuse(constant):
            raise AssertionError(f"{constant} is not JSON")

        return json.loads(out, parse_constant=refuse)

    return run


@pytest.fixture
def printed(capsys):
    """Run a command and return what it printed, every run of blanks one blank."""

    def run(*arguments: str) -> str:
        assert main(list(arguments)) == 0
        out, err = capsys.readouterr()
        assert err == ""
        assert max(map(len, out.splitlines())) <= 80
        return " ".join(out.split())

    return run

"""What README and docs show is run: every command succeeds, and every link to a file leads somewhere."""

import itertools
import re
import shlex
from pathlib import Path

import pytest

from grpo_dynamics.cli import main

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]

GENERATED = ("gallery/", "_generated/")  # written by the build of the docs, which fails where such a link leads nowhere


def commands():
    for page in PAGES:
        for block in re.findall(r"```console\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL):
            for line in re.findall(r"^\$ grpo-dynamics (.*)$", block, flags=re.MULTILINE):
                yield pytest.param(shlex.split(line), id=f"{page.name}: {line}")


@pytest.mark.parametrize("argv", list(commands()))
def test_a_shown_command_succeeds(argv, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    questions = (ROOT / "docs" / "questions.csv").read_bytes()
    (tmp_path / "docs").mkdir()
    for name in ("questions.csv", "docs/questions.csv"):
        (tmp_path / name).write_bytes(questions)
    assert not main(argv)
    assert capsys.readouterr().out
    for option, file in itertools.pairwise(argv):
        if option in ("--out", "--plot"):
            assert (tmp_path / file).exists()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_files_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
        if not target.startswith(GENERATED):
            assert (page.parent / target).exists(), target

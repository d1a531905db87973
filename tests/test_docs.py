"""What README and docs show is run: every command succeeds, and every link to a file leads somewhere.

Commands that need what others have made (a model, a run) are run in order, in one folder.
"""

import itertools
import re
import shlex
from pathlib import Path

import pytest

from grpo_dynamics.cli import main

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]

GENERATED = ("gallery/", "_generated/")  # written by the build of the docs, which fails where such a link leads nowhere


IN_ORDER = ("make-model ", "run ", "validate ")


def blocks():
    for page in PAGES:
        for block in re.findall(r"```console\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL):
            yield page, re.findall(r"^\$ grpo-dynamics (.*)$", block, flags=re.MULTILINE)


def commands():
    for page, lines in blocks():
        for line in lines:
            if not line.startswith(IN_ORDER):
                yield pytest.param(page, shlex.split(line), id=f"{page.name}: {line}")


def offered(page):
    """The files that a reader has: those in docs of a clone for README, else those that the page offers to save."""
    if page.parent == ROOT:
        return ["docs/questions.csv", "docs/my_sweep.toml"]
    return re.findall(r"{download}`([^`]+)`", page.read_text(encoding="utf-8"))


def sequences():
    for page, lines in blocks():
        if found := [shlex.split(line) for line in lines if line.startswith(IN_ORDER)]:
            yield pytest.param(found, id=f"{page.name}: {', '.join(argv[0] for argv in found)}")


@pytest.mark.parametrize(("page", "argv"), list(commands()))
def test_a_shown_command_succeeds(page, argv, tmp_path, monkeypatch, capsys):
    """In a folder with nothing but what the page offers."""
    monkeypatch.chdir(tmp_path)
    for name in offered(page):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes((page.parent / name).read_bytes())
    if argv[0] == "sweep":
        pytest.importorskip("joblib", reason="sweeps need the extra sweep")
    assert not main(argv)
    assert capsys.readouterr().out
    for option, file in itertools.pairwise(argv):
        if option in ("--out", "--plot"):
            assert (tmp_path / file).exists()


@pytest.mark.parametrize("argvs", list(sequences()))
def test_shown_commands_succeed_one_after_the_other(argvs, tmp_path, monkeypatch, capsys):
    pytest.importorskip("transformers", reason="real training needs the extra train")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").mkdir()
    config = (ROOT / "docs" / "my_run.toml").read_text(encoding="utf-8")
    shorter = re.sub("^(iterations|questions) = .*$", r"\1 = 4", config, flags=re.MULTILINE)
    (tmp_path / "docs" / "my_run.toml").write_text(shorter, encoding="utf-8")
    for argv in argvs:
        assert main(argv) in (None, 0), argv
        assert capsys.readouterr().out
    assert (tmp_path / "runs" / "my_run" / "validation" / "report.html").stat().st_size > 10_000


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_files_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
        if not target.startswith(GENERATED):
            assert (page.parent / target).exists(), target

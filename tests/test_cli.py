"""The commands, through the entry point: figures and numbers, help, start-up, exit codes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from grpo_dynamics import __version__
from grpo_dynamics.cli import main

WHITENED = ["--beta", "1", "--p-ref", "0.2"]


def test_figures(tmp_path, printed, answer):
    assert "figure5 v4, Figure 5" in printed("figures", "--list")
    assert "figure5" in [entry["name"] for entry in answer("figures", "--list")["available"]]
    files = answer("figures", "figure4", "--out", str(tmp_path / "new"))["files"]
    assert sorted(Path(file).suffix for file in files) == [".csv", ".parquet", ".pdf", ".png"]
    assert all(Path(file).stat().st_size > 0 for file in files)


def test_reproduce(tmp_path, monkeypatch, capsys, answer):
    from paper_figures import FIGURES, page

    monkeypatch.setattr(page, "FIGURES", {"figure4": FIGURES["figure4"]})  # the others are drawn in their own tests
    assert main(["reproduce", "--out", str(tmp_path), "--no-training"]) == 0
    text = capsys.readouterr().out
    assert all(word in text for word in ("quantity", "paper", "ours", "difference", "verdict", "index.html"))
    assert (tmp_path / "index.html").read_text(encoding="utf-8").lstrip().lower().startswith("<!doctype html")
    found = answer("reproduce", "--out", str(tmp_path), "--no-training")
    assert found["agrees"] is True
    assert {"quantity", "paper", "ours", "difference", "verdict"} <= set(found["goldens"][0])


def test_reproduce_fails_where_a_number_differs(tmp_path, monkeypatch, capsys):
    from paper_figures import goldens, page

    made = page.Reproduction([], tmp_path / "index.html", goldens.table().with_columns(verdict=pl.lit("DIFFERS")), 0.0)
    monkeypatch.setattr(page, "reproduce", lambda out, progress, training: made)
    assert main(["reproduce", "--out", str(tmp_path), "--no-training"]) == 1


@pytest.mark.parametrize("command", [[], ["predict"], ["design"], ["figures"], ["reproduce"]])
def test_help_teaches(command, capsys):
    assert main([*command, "--help"]) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    assert " ".join(["grpo-dynamics", *command]) in text.split("Example", 1)[1]
    for word in {"predict": ["β", "p_ref", "> 0", "Wilson", "null"], "design": ["Ω(p*)", "unstable"]}.get(
        "".join(command), []
    ):
        assert word in text


def test_examples_in_the_help_are_commands(capsys, monkeypatch, tmp_path):
    from grpo_dynamics.cli import atlas, paper, predict, questions, trainers

    names = ("predict_one", "predict_file", "draw_figures", "list_figures", "reproduce_paper", "draw_atlas")
    names += ("predict_trainer", "predict_trainer_file")
    ran: list[str] = []
    for module in (predict, questions, paper, atlas, trainers):
        for name in names:
            if hasattr(module, name):
                monkeypatch.setattr(module, name, lambda *a, name=name, **k: ran.append(name))
    for command in ([], ["predict"], ["design"], ["figures"], ["reproduce"]):
        main([*command, "--help"])
        for line in capsys.readouterr().out.splitlines():
            words = line.split()
            if words[:1] == ["grpo-dynamics"]:
                assert main(words[1:]) == 0, line
                capsys.readouterr()
    assert set(names) <= set(ran)


def test_version_and_bare_call(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"grpo-dynamics {__version__}\n"
    assert main([]) == 0
    assert "Usage: grpo-dynamics" in capsys.readouterr().out


def run(*arguments: str, **options) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "import sys; from grpo_dynamics.cli import main; sys.exit(main())", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


def test_as_a_process():
    done = run("predict", *WHITENED)
    assert (done.returncode, done.stderr) == (0, "")
    assert "amplified from 0.2000 to 0.6813" in done.stdout
    done = run("predict", "--beta", "-1", "--p-ref", ".2")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: beta must be a finite number > 0, got -1.0\n"


def test_a_terminal_with_ascii_only_gets_an_answer():
    done = run("predict", *WHITENED, env={"PYTHONIOENCODING": "ascii", "PATH": ""})
    assert (done.returncode, done.stderr) == (0, "")
    assert "0.6813" in done.stdout


HEAVY = "torch sympy matplotlib polars scipy pandas paper_figures"


@pytest.mark.parametrize("code", ["import grpo_dynamics", "from grpo_dynamics.cli import main; main(['--help'])"])
def test_start_imports_nothing_heavy(code):
    check = f"import sys; heavy = set({HEAVY.split()}) & set(sys.modules); assert not heavy, heavy"
    done = subprocess.run([sys.executable, "-c", f"{code}; {check}"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")

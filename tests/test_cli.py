"""The commands, through the entry point: what they print is what the numeric package says."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import grpo_dynamics as gd
from grpo_dynamics import __version__
from grpo_dynamics.cli import main
from grpo_dynamics.cli.output import probability, to_json

WHITENED = ["--beta", "1", "--p-ref", "0.2"]


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


PREDICTIONS = {
    "grpo": (WHITENED, gd.grpo(1.0, 0.2)),
    "eps": ([*WHITENED, "--eps", "0.01", "--eps-placement", "std"], gd.Recursion(1.0, 0.2, gd.Whitened(0.01, "std"))),
    "group": (
        [*WHITENED, "--group-size", "8", "--ddof", "1", "--silent-groups", "drop"],
        gd.Recursion(1.0, 0.2, gd.FiniteGroup(8, ddof=1, silent_groups="drop")),
    ),
    "dr_grpo": ([*WHITENED, "--variant", "dr_grpo"], gd.dr_grpo(1.0, 0.2)),
    "dr_grpo in groups": (
        [*WHITENED, "--variant", "dr_grpo", "--group-size", "8"],
        gd.Recursion(1.0, 0.2, gd.MeanOnly(8)),
    ),
    "mirror_grpo": ([*WHITENED, "--variant", "mirror_grpo"], gd.mirror_grpo(1.0, 0.2)),
    "mirror_dr_grpo": ([*WHITENED, "--variant", "mirror_dr_grpo"], gd.mirror_dr_grpo(1.0, 0.2)),
    "two_kl": ([*WHITENED, "--variant", "two_kl", "--alpha", "0.5"], gd.two_kl(1.0, 0.2, 0.5)),
    "two_kl_dr_grpo": (
        [*WHITENED, "--variant", "two_kl_dr_grpo", "--alpha", "0.1"],
        gd.two_kl_dr_grpo(1.0, 0.2, 0.1),
    ),
    "cycle": (["--beta", "5", "--p-ref", "0.001"], gd.grpo(5.0, 1e-3)),
    "irregular": (["--beta", "5", "--p-ref", "0.0001"], gd.grpo(5.0, 1e-4)),
    "no fixed point": (["--beta", "0.5", "--p-ref", "0.2", "--eps", "0"], gd.grpo(0.5, 0.2, 0.0)),
}


@pytest.mark.parametrize("name", PREDICTIONS)
def test_predict_is_the_package(name, answer):
    arguments, rec = PREDICTIONS[name]
    found = answer("predict", *arguments, "--p0", "0.1", "--steps", "7")
    fixed, where = gd.fixed_points(rec), gd.limit(rec, 0.1)
    points = found["fixed_points"]
    assert [point["log_odds"] for point in points] == fixed.log_odds[np.isfinite(fixed.log_odds)].tolist()
    assert [point["stable"] for point in points] == fixed.stable[np.isfinite(fixed.log_odds)].tolist()
    assert found["fixed_points_status"] == gd.Status(fixed.status).name.lower()
    assert found["limit"]["kind"] == gd.LimitKind(where.kind).name.lower()
    assert found["limit"]["p_low"] == gd.sigmoid(where.low)
    assert found["limit"]["p_high"] == gd.sigmoid(where.high)
    assert float(found["after_steps"]["log_odds"]) == rec.iterate(7, p0=0.1).log_odds[-1]
    assert found["settings"]["p0"] == 0.1
    lows = [low for low, _ in found["beta_ranges"]["stable"]]
    assert lows == [low for low, _ in gd.stable_betas(rec.p_ref, rec.normalization, rec.alpha)]


def test_predict_json_has_stable_keys(answer):
    kinds = [answer("predict", *arguments) for arguments, _ in PREDICTIONS.values()]
    expected = [
        "command version settings verdict fixed_points fixed_points_status limit amplified multiplier_at_limit",
        "steps_to_1_percent first_step_rises after_steps beta_ranges plot",
    ]
    for found in kinds:
        assert list(found) == " ".join(expected).split()
        assert list(found["limit"]) == ["kind", "period", "p", "one_minus_p", "log_odds", "p_mean", "p_low", "p_high"]
        assert list(found["beta_ranges"]) == [
            "amplifies_above",
            "first_step_rises_below",
            "stable",
            "contraction_above",
        ]
        assert list(found["after_steps"]) == ["steps", "p", "one_minus_p", "log_odds"]
        assert {type(found[key]) for key in ("amplified", "first_step_rises")} == {bool}


def test_infinite_is_a_string_and_no_value_is_null(answer):
    found = answer("predict", *WHITENED)
    assert found["beta_ranges"]["first_step_rises_below"] == "inf"  # the first step from p_ref rises for every β
    assert answer("predict", "--beta", "5", "--p-ref", "0.001")["limit"]["p"] is None
    assert to_json([math.nan, -math.inf, 1]) == [None, "-inf", 1]


@pytest.mark.parametrize(("beta", "p_ref", "p0"), [("1", "0.2", "0.2"), ("5", "0.2", "0.9"), ("0.9", "0.2", "0.01")])
def test_steps_to_1_percent_by_definition(beta, p_ref, p0, answer):
    found = answer("predict", "--beta", beta, "--p-ref", p_ref, "--p0", p0)
    orbit = gd.grpo(float(beta), float(p_ref)).iterate(2000, p0=float(p0)).p
    far = np.abs(orbit - found["limit"]["p"]) > 0.01 * abs(orbit[0] - found["limit"]["p"])
    assert found["steps_to_1_percent"] == np.flatnonzero(far)[-1] + 1


def test_mirror_dr_grpo_takes_the_steps_of_its_closed_form(answer):
    found = answer("predict", "--beta", "1000", "--p-ref", "0.2", "--variant", "mirror_dr_grpo")
    n = found["steps_to_1_percent"]  # L_n = L_ref + n/β: 1 − p_n ≤ 0.01·0.8 from n on
    failure = gd.sigmoid(-(gd.logit(0.2) + np.array([n - 1, n]) / 1000))
    assert failure[1] <= 0.008 < failure[0]


SENTENCES = {
    "amplified from 0.2000 to 0.6813.": WHITENED,
    "falls from 0.9000 to 0.2807, still above the 0.2000": ["--beta", "5", "--p-ref", ".2", "--p0", ".9"],
    "in a cycle of period 2 between 0.0023 and 0.0587": ["--beta", "5", "--p-ref", "0.001"],
    "wanders irregularly between": ["--beta", "5", "--p-ref", "0.0001", "--p0", "0.1"],
    "to 1: nothing pulls back to the reference": [*WHITENED, "--variant", "mirror_grpo"],
    "to 1: β is too small to hold it": ["--beta", ".5", "--p-ref", ".2", "--eps", "0"],
    "to 1: p_0 lies above the unstable": ["--beta", "5", "--p-ref", ".2", "--eps", "0", "--p0", ".9999"],
    "a step from nearby arrives at once": [*WHITENED, "--variant", "dr_grpo"],
    "near the end each step leaves 0.389 of the distance": WHITENED,
    "with β > 5.662 the fixed point would be stable": ["--beta", "5", "--p-ref", "0.001"],
    "every β > 0: p* > p_ref (Theorem 3)": WHITENED,
    "β > 5.662 or 0.2784 < β < 0.3382": ["--beta", "5", "--p-ref", "0.001"],
    "β > 60.86: one fixed point, which every orbit reaches": WHITENED,
    "first step rises β < 0.9301": ["--beta", "5", "--p-ref", ".2", "--p0", ".9"],
    "falls to 1.95e-04": ["--beta", "5", "--p-ref", "0.0001", "--p0", "0.1"],
}


@pytest.mark.parametrize("sentence", SENTENCES)
def test_predict_says(sentence, printed):
    assert sentence in printed("predict", *SENTENCES[sentence])


@pytest.mark.parametrize("log_odds", [-900.0, -30.0, -7.6, -1.0, 0.0, 3.0, 7.6, 40.0, 310.0, 900.0])
def test_a_probability_is_never_shown_as_0_or_1(log_odds):
    text = probability(log_odds)
    assert text not in ("0", "1", "0.0000", "1.0000")
    value = 1 - float(text.split("− ")[1]) if "−" in text else float(text)
    assert value == pytest.approx(float(gd.sigmoid(log_odds)), abs=6e-5)


@pytest.mark.parametrize("ending", ["png", "pdf", "svg"])
def test_plot(ending, tmp_path):
    picture = tmp_path / f"new/orbit.{ending}"
    assert main(["predict", "--beta", "5", "--p-ref", "0.001", "--plot", str(picture)]) == 0
    first = picture.read_bytes()
    assert first.startswith({"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}[ending])
    assert main(["predict", "--beta", "5", "--p-ref", "0.001", "--plot", str(picture)]) == 0
    assert picture.read_bytes() == first
    assert [path.name for path in picture.parent.iterdir()] == [picture.name]


DESIGNS = {
    "β = 1.139 takes p from 0.2 to 0.6.": (["0.6", "0.2"], True, "ok"),
    "No β holds p at 0.9": (["0.9", "0.2"], False, "unstable"),
    "β = 0.6496 takes p from 0.2 to 0.9.": (["0.9", "0.2", "--group-size", "8"], True, "ok"),
    "No β takes p from 0.01 to 0.5": (["0.5", "0.01"], False, "ok"),
    "No β reaches 0.1: every β takes p above p_ref = 0.2": (["0.1", "0.2"], False, "not_above_reference"),
    "No β holds p at 0.5: without a KL term": (["0.5", "0.2", "--variant", "mirror_grpo"], False, "mirror"),
}


@pytest.mark.parametrize("sentence", DESIGNS)
def test_design(sentence, answer, printed):
    (target, p_ref, *options), arrives, status = DESIGNS[sentence]
    arguments = ["design", "--target", target, "--p-ref", p_ref, *options]
    found = answer(*arguments)
    assert (found["arrives"], found["status"]) == (arrives, status)
    assert sentence in found["verdict"]
    assert sentence in printed(*arguments)
    keys = "command version settings verdict target beta multiplier stable status arrives limit"
    assert list(found) == [*keys.split(), "nearest_below", "nearest_above", "arrives_from_p0_above"]
    if arrives:
        normalization = gd.FiniteGroup(8) if options else gd.Whitened()
        rec = gd.Recursion(found["beta"], float(p_ref), normalization)
        assert rec.iterate(2000).p[-1] == pytest.approx(float(target), rel=1e-8)


@pytest.mark.parametrize(("target", "p_ref"), [(0.9, 0.2), (0.5, 0.01), (0.02, 0.0001)])
def test_what_design_offers_instead_is_reached(target, p_ref, answer):
    found = answer("design", "--target", str(target), "--p-ref", str(p_ref))
    for side, sign in (("nearest_below", -1), ("nearest_above", 1)):
        point = found[side]
        assert sign * (point["log_odds"] - gd.logit(target)) > 0
        orbit = gd.grpo(point["beta"], p_ref).iterate(3000).log_odds
        assert orbit[-1] == pytest.approx(point["log_odds"], rel=1e-4)


def test_figures(tmp_path, printed, answer):
    assert "figure5 v4, Figure 5" in printed("figures", "--list")
    assert "figure5" in [entry["name"] for entry in answer("figures", "--list")["available"]]
    files = answer("figures", "figure4", "--out", str(tmp_path / "new"))["files"]
    assert sorted(Path(file).suffix for file in files) == [".csv", ".parquet", ".pdf", ".png"]
    assert all(Path(file).stat().st_size > 0 for file in files)


def test_reproduce(tmp_path, monkeypatch, capsys, answer):
    from paper_figures import FIGURES, page

    monkeypatch.setattr(page, "FIGURES", {"figure4": FIGURES["figure4"]})  # the others are drawn in their own tests
    assert main(["reproduce", "--out", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert all(word in text for word in ("quantity", "paper", "ours", "difference", "verdict", "index.html"))
    assert (tmp_path / "index.html").read_text(encoding="utf-8").lstrip().lower().startswith("<!doctype html")
    found = answer("reproduce", "--out", str(tmp_path))
    assert found["agrees"] is True
    assert {"quantity", "paper", "ours", "difference", "verdict"} <= set(found["goldens"][0])


def test_reproduce_fails_where_a_number_differs(tmp_path, monkeypatch, capsys):
    from paper_figures import goldens, page

    made = page.Reproduction([], tmp_path / "index.html", goldens.table().with_columns(verdict=pl.lit("DIFFERS")), 0.0)
    monkeypatch.setattr(page, "reproduce", lambda out, progress: made)
    assert main(["reproduce", "--out", str(tmp_path)]) == 1


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
    from grpo_dynamics.cli import paper, predict, questions

    ran: list[str] = []
    for module in (predict, questions, paper):
        for name in ("predict_one", "predict_file", "draw_figures", "list_figures", "reproduce_paper"):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, lambda *a, name=name, **k: ran.append(name))
    for command in ([], ["predict"], ["design"], ["figures"], ["reproduce"]):
        main([*command, "--help"])
        for line in capsys.readouterr().out.splitlines():
            words = line.split()
            if words[:1] == ["grpo-dynamics"]:
                assert main(words[1:]) == 0, line
                capsys.readouterr()
    assert {"predict_one", "predict_file", "draw_figures", "list_figures", "reproduce_paper"} <= set(ran)


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

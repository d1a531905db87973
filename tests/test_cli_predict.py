"""`predict` for one question: what it prints is what the numeric package says, in sentences that are true."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

import grpo_dynamics as gd
from grpo_dynamics.cli import main, predict
from grpo_dynamics.cli.output import exactly, factor, probability, to_json
from grpo_dynamics.prediction import predict as predicted

WHITENED = ["--beta", "1", "--p-ref", "0.2"]


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
    "grpo is two_kl": ([*WHITENED, "--alpha", "0.5"], gd.two_kl(1.0, 0.2, 0.5)),
    "dr_grpo is two_kl_dr_grpo": (
        [*WHITENED, "--variant", "dr_grpo", "--alpha", ".5"],
        gd.two_kl_dr_grpo(1.0, 0.2, 0.5),
    ),
    "no KL to the reference": ([*WHITENED, "--variant", "mirror_grpo", "--alpha", "0"], gd.mirror_grpo(1.0, 0.2)),
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
    "to 1: it overshoots the unstable fixed point 1 − 1.20e-04.": ["--beta", "5", "--p-ref", "1e-4", "--eps", "0"],
    "practically unchanged, at 0.2000.": ["--beta", "1e20", "--p-ref", ".2"],
    "first step practically stays at 0.2000": ["--beta", "1e20", "--p-ref", ".2"],
    "speed practically there from the start": ["--beta", "1e20", "--p-ref", ".2"],
    "to 0.2000, practically that of the reference": ["--beta", "1e20", "--p-ref", ".2", "--p0", ".9"],
    "p_ref = 1 − 1.00e-12, grpo": ["--beta", "1", "--p-ref", "0.999999999999"],
    "leaves 0.9999 of the distance": [*WHITENED, "--alpha", "1e-4", "--p0", ".9999"],
    "leaves 1 − 1.0e-06 of the distance": [*WHITENED, "--variant", "dr_grpo", "--alpha", "1e-6"],
    "1 − 1.0e-06 stable": [*WHITENED, "--variant", "dr_grpo", "--alpha", "1e-6"],
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


@pytest.mark.parametrize("value", [0.2, 1e-300, 1e-4, 0.123456789, 0.9999996, 1 - 1e-12, 1 - 2**-53])
def test_a_given_probability_is_never_shown_as_0_or_1(value):
    text = exactly(value)
    shown = 1 - float(text.split("− ")[1]) if "−" in text else float(text)
    assert text not in ("0", "1")
    assert shown == pytest.approx(value, rel=5e-4)


@pytest.mark.parametrize("value", [0.5, -1.7361, 1 - 3e-9, 1 + 3e-9, 3e-9 - 1, -1 - 3e-9])
def test_a_multiplier_is_shown_on_its_side_of_1(value):
    text = factor(value).replace("−", "-").replace(" ", "")
    shown = eval(text, {})  # an expression such as -(1-3.0e-09)
    assert shown == pytest.approx(value, rel=1e-3)
    assert (abs(shown) < 1) == (abs(value) < 1)


def test_at_a_large_beta_the_first_step_rises_though_it_is_lost_to_rounding(answer):
    """β = 1e20: L_1 = L_ref + Ω/β > L_ref = L_0 in exact arithmetic."""
    assert answer("predict", "--beta", "1e20", "--p-ref", ".2")["first_step_rises"] is True
    assert answer("predict", "--beta", "1e20", "--p-ref", ".2", "--p0", ".3")["first_step_rises"] is False


def test_an_undecided_orbit_is_called_undecided():
    found = predicted(gd.grpo(1.0, 0.2))
    where = dataclasses.replace(found.limit, kind=np.int8(gd.LimitKind.UNDECIDED), steps=np.int64(20_000))
    open_end = dataclasses.replace(found, limit=where)
    assert predict.verdict(open_end).startswith("Success has not settled after 20000 steps: it is at 0.6813")
    assert predict.speed(open_end) == "not settled"


def test_a_cycle_beside_a_stable_fixed_point_does_not_ask_for_a_larger_beta():
    found = predicted(gd.grpo(5.0, 1e-3))
    whole = dataclasses.replace(found.betas, stable=[(0.0, math.inf)])
    assert predict.speed(found) == "never arrives; with β > 5.662 the fixed point would be stable"
    assert "from this p_0" in predict.speed(dataclasses.replace(found, betas=whole))


NOTES = {
    "--eps 1e-5 --group-size 8 --variant dr_grpo --alpha .5 --p0 .1 --steps 50": "--eps has no effect: variant dr_grpo",
    "--eps 1e-5 --eps-placement std --variant mirror_dr_grpo": "--eps and --eps-placement have no effect",
    "--ddof 1 --eps 0 --eps-placement std --group-size 8 --variant dr_grpo": "--eps, --eps-placement and --ddof have",
}


@pytest.mark.parametrize("options", NOTES)
def test_an_option_without_effect_is_noted(options, capsys):
    """Mean-only normalisation has no standard deviation to smooth: the answer is the one without these options."""
    assert main(["predict", *WHITENED, *options.split()]) == 0
    out, err = capsys.readouterr()
    assert err.startswith(f"note: {NOTES[options]}")
    assert err.count("\n") == 1
    words = options.split()
    kept = [w for i, w in enumerate(words) if not {"--eps", "--eps-placement", "--ddof"} & {w, words[max(i - 1, 0)]}]
    assert main(["predict", *WHITENED, *kept]) == 0
    assert capsys.readouterr() == (out, "")


@pytest.mark.parametrize("ending", ["png", "pdf", "svg"])
def test_plot(ending, tmp_path):
    picture = tmp_path / f"new/orbit.{ending}"
    assert main(["predict", "--beta", "5", "--p-ref", "0.001", "--plot", str(picture)]) == 0
    first = picture.read_bytes()
    assert first.startswith({"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}[ending])
    assert main(["predict", "--beta", "5", "--p-ref", "0.001", "--plot", str(picture)]) == 0
    assert picture.read_bytes() == first
    assert [path.name for path in picture.parent.iterdir()] == [picture.name]

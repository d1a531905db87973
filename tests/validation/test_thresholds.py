"""Bounds on the numbers of a run: each is kept or not by the numbers of runs of which all is known."""

import numpy as np
import polars as pl
import pytest

import grpo_dynamics as gd
from grpo_dynamics.config import as_table
from grpo_dynamics.update_rule import Training
from grpo_dynamics.validation.compare import compare
from grpo_dynamics.validation.measured import Arm, canonical
from grpo_dynamics.validation.summary import summarize
from grpo_dynamics.validation.thresholds import Thresholds
from tests.validation.made_runs import success

P_REF = np.linspace(0.02, 0.6, 12)
GROUPS = gd.FiniteGroup(8)


def arrived(rule, to, **validation):
    """A run of small steps whose KL term is coded as one estimator, and that has ended where another one leads."""
    training = Training(update="sampled", learning_rate=0.1, beta=0.5, normalization=GROUPS, kl=rule)
    flow = gd.Flow(0.5, P_REF, GROUPS, to)
    end = gd.logit(P_REF)
    for _ in range(3000):
        end = end + 0.2 * (flow.step(end) - end)
    table = canonical(success(np.stack([gd.logit(P_REF), *[end] * 9])))
    return summarize(compare(Arm("arm", {"training": as_table(training), "validation": validation}, table)))


def by_name(numbers):
    return {row["name"]: row for row in numbers["thresholds"]}


def test_the_wrong_estimator_is_worse_where_the_two_lead_elsewhere():
    """The run ends 1e-3 from its own p* or nearer, and 0.1 or more from the other's: by definition of `apart`."""
    own = arrived("k2", "exact", wrong_estimator=3.0, p_infinity=0.04)
    (other,) = (entry for entry in own["other_theories"] if not entry["paper"])
    assert other["apart"]["questions"] >= 3
    assert other["apart"]["other"] > 0.1
    assert other["apart"]["own"] < 1e-3
    assert own["passed"] is True
    wrong = arrived("k2", "k3", wrong_estimator=3.0, p_infinity=0.04)  # it says k2 and goes where k3 goes
    assert by_name(wrong)["wrong_estimator"]["passed"] is False
    assert by_name(wrong)["p_infinity"]["passed"] is False


def settled(off, **validation):
    """Twelve questions that rest where the recursion says, plus a given difference of log-odds."""
    odds = np.array(gd.Recursion(5.0, P_REF).iterate(30).log_odds)
    odds[-1] += off
    config = {"training": as_table(Training(beta=5.0)), "validation": validation}
    return summarize(compare(Arm("arm", config, canonical(success(odds)))))


def test_r_squared_of_where_questions_end():
    exact = settled(0.0, p_infinity_r2=0.999)
    assert exact["p_infinity"]["r2"] == pytest.approx(1.0, abs=1e-6)
    assert exact["passed"] is True
    off = settled(np.tile([1.5, -1.5], 6), p_infinity_r2=0.95)
    assert by_name(off)["p_infinity_r2"]["value"] < 0.95
    assert off["passed"] is False


def test_a_bound_on_a_number_that_is_not_there_is_not_kept():
    """At β = 0.2 every p* is 1: R² has no variance to explain, and a recursion has no estimator to be wrong about."""
    odds = gd.Recursion(0.2, P_REF).iterate(10).log_odds
    promised = {"p_infinity_r2": 0.5, "wrong_estimator": 3.0}
    config = {"training": as_table(Training(beta=0.2)), "validation": promised}
    told = summarize(compare(Arm("arm", config, canonical(success(odds)))))
    assert {name: row["value"] for name, row in by_name(told).items()} == dict.fromkeys(promised)
    assert told["passed"] is False


def test_what_the_inner_loops_left_is_told_in_nats():
    """gap = β·KL(π‖π*): at β = 2 gaps of 0.002 and 0.006 are distances of 0.001 and 0.003."""
    table = canonical(success(gd.Recursion(2.0, np.array([0.3, 0.5])).iterate(1).log_odds))
    table = table.with_columns(pl.Series("gap", [None, None, 0.002, 0.006]))
    told = summarize(compare(Arm("arm", {"training": as_table(Training(beta=2.0))}, table)))["error"]
    assert (told["kl"], told["kl_largest"]) == (pytest.approx(0.002), pytest.approx(0.003))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"p_infinity_r2": 1.5}, r"validation.p_infinity_r2 must be between 0 and 1, got 1.5"),
        ({"wrong_estimator": 0.5}, r"validation.wrong_estimator must be a finite number >= 1, got 0.5"),
        ({"median": -1.0}, r"validation.median must be a finite number >= 0, got -1.0"),
    ],
)
def test_values_out_of_range_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        Thresholds(**options)

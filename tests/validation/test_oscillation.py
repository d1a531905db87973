"""A two-cycle is seen where it is, and only there."""

import numpy as np
import pytest

import grpo_dynamics as gd
from grpo_dynamics.config import as_table
from grpo_dynamics.update_rule import Training
from grpo_dynamics.validation.compare import compare
from grpo_dynamics.validation.measured import Arm, canonical
from grpo_dynamics.validation.oscillation import swings
from grpo_dynamics.validation.summary import summarize
from tests.validation.made_runs import success

P_REF = np.array([0.002, 0.003, 0.2, 0.5])


def summary(training, steps, **validation):
    odds = gd.Recursion(training.beta, P_REF, training.normalization, training.alpha).iterate(steps).log_odds
    return summarize(
        compare(Arm("arm", {"training": as_table(training), "validation": validation}, canonical(success(odds))))
    )


def test_the_hard_questions_swing_and_half_of_the_anchor_stops_them():
    """At β = 2.5 p_ref = 0.002 and 0.003 have two-cycles (multiplier < −1); α = 0.5 makes the same points stable."""
    whole = summary(Training(beta=2.5), 20)
    found = whole["oscillation"]
    assert (found["predicted"], found["seen"], found["others"]) == (2, 2, 0)
    assert found["swing"] == pytest.approx(found["swing_predicted"], rel=1e-12)
    assert found["swing"] > 0.1
    assert "2 of 2 questions that should oscillate do" in whole["verdict"]
    damped = summary(Training(beta=2.5, alpha=0.5), 20)["oscillation"]
    assert (damped["predicted"], damped["seen"], damped["others"]) == (0, 0, 0)
    assert damped["swing"] is None


def test_swings_can_be_asked_for_and_forbidden():
    assert summary(Training(beta=2.5), 20, oscillating=2)["passed"] is True
    assert summary(Training(beta=2.5), 20, oscillating=3)["passed"] is False
    assert summary(Training(beta=2.5), 20, oscillating_at_most=0)["passed"] is False
    assert summary(Training(beta=2.5, alpha=0.5), 20, oscillating_at_most=0)["passed"] is True
    with pytest.raises(ValueError, match=r"validation.oscillating must be an integer >= 0, got -1"):
        summary(Training(), 4, oscillating=-1)


def test_what_counts_as_a_swing():
    up_and_down = np.array([0.1, 0.3, 0.1, 0.3, 0.1, 0.3])
    small, rising = 0.01 * up_and_down, np.linspace(0.1, 0.6, 6)
    with_hole = np.where(np.arange(6) == 4, np.nan, up_and_down)
    p = np.stack([up_and_down, small, rising, with_hole], axis=1)
    assert swings(np.arange(6), p).tolist() == [True, False, False, False]
    assert not swings(np.arange(6) * 2, p).any()  # every second iteration: a two-cycle cannot be seen
    assert not swings(np.arange(3), p[:3]).any()  # too short

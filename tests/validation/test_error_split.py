"""The causes of an error, where each is known."""

import dataclasses

import numpy as np
import pytest

import grpo_dynamics as gd
from grpo_dynamics.config import as_table
from grpo_dynamics.simulation.outcomes import Outcomes
from grpo_dynamics.simulation.tabular import simulate
from grpo_dynamics.update_rule import Training
from grpo_dynamics.validation.compare import compare
from grpo_dynamics.validation.error_split import sampling_deviation, split
from grpo_dynamics.validation.measured import Arm, canonical
from tests.validation.made_runs import success

SAMPLED = Training(
    beta=2.0, update="sampled", learning_rate=0.5, inner_steps=120, groups=4, normalization=gd.FiniteGroup(8)
)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"normalization": gd.FiniteGroup(8, silent_groups="drop")},
        {"normalization": gd.MeanOnly(), "advantage": "rloo", "group_size": 8},
        {"normalization": gd.Whitened(), "group_size": 8},
    ],
    ids=["groups", "mixed groups", "leave one out", "exact statistics"],
)
def test_the_spread_of_sampled_groups_is_that_of_a_table(changes):
    """Two answers, one step minimised to the end, 3000 copies: mean Ω/β and the spread of the formula, to 4 %."""
    training = dataclasses.replace(SAMPLED, **changes)
    p, copies = 0.3, 3000
    made = simulate(Outcomes.uniform(np.full(copies, p)), training, 1)
    moved = np.asarray(made.log_odds)[1] - gd.logit(p)
    deviation = float(sampling_deviation(training, gd.logit(p)))
    assert np.std(moved) == pytest.approx(deviation, rel=0.04)
    assert np.mean(moved) == pytest.approx(
        training.normalization.gap(gd.logit(p)) / 2.0, abs=4 * deviation / copies**0.5
    )


def test_exact_statistics_have_no_spread():
    assert sampling_deviation(Training(), np.array([0.0, 1.0])).tolist() == [0.0, 0.0]
    assert np.isnan(sampling_deviation(SAMPLED, np.array([np.nan]))).all()


def measured(optimum, gap):
    """A run that misses the recursion: by 0.02 in p because its inner loop stopped."""
    recursion = gd.grpo(1.0, [0.2, 0.4])
    exact = recursion.iterate(1).p
    p = np.stack([exact[0], exact[1] - 0.02])
    table = success(gd.logit(p)).with_columns(gap=np.r_[np.nan, np.nan, gap, gap])
    if optimum is not None:
        table = table.with_columns(log_odds_optimum=np.r_[np.nan, np.nan, optimum(exact[1])])
    return compare(Arm("arm", {"training": as_table(Training())}, canonical(table))).split


def test_the_recorded_optimum_tells_the_causes_apart():
    stopped = measured(lambda p: gd.logit(p), 0.01)
    assert stopped.exact.all()
    np.testing.assert_allclose([stopped.total[0], stopped.optimisation[0]], 0.02, atol=1e-12)
    np.testing.assert_allclose([stopped.statistical[0], stopped.approximation[0]], 0.0, atol=1e-12)
    # the same miss, and an optimum that is itself where the network went: the loop is not to blame
    other = measured(lambda p: gd.logit(p - 0.02), 0.01)
    np.testing.assert_allclose([other.optimisation[0], other.approximation[0]], [0.0, 0.02], atol=1e-12)


def test_without_the_optimum_the_gap_bounds_the_inner_loop():
    """gap = 2e-4 allows |p − p*| <= √(gap/2β) = 0.01 by Pinsker; of an error of 0.02 the rest is approximation."""
    found = measured(None, 2e-4)
    assert not found.exact.any()
    assert found.optimisation[0] == pytest.approx(0.01)
    assert found.approximation[0] == pytest.approx(np.sqrt(0.02**2 - 0.01**2))
    wide = measured(None, 1.0)  # a bound beyond the error explains all of it, not more
    assert wide.optimisation[0] == pytest.approx(0.02)
    assert wide.approximation[0] == 0


def test_squares_add_up():
    rng = np.random.default_rng(0)
    residual, deviation, bound = rng.normal(size=(5, 9)), rng.uniform(size=(5, 9)), rng.uniform(size=(5, 9))
    residual[2] = np.nan
    nothing = np.full_like(residual, np.nan)
    found = split(np.arange(5), residual, deviation, bound, nothing, nothing, sampled=False)
    parts = found.statistical**2 + found.optimisation**2 + found.approximation**2
    np.testing.assert_allclose(parts[[0, 1, 3, 4]], found.total[[0, 1, 3, 4]] ** 2)
    assert np.isnan(found.total[2])
    assert found.whole()["total"] == pytest.approx(np.sqrt(np.nanmean(residual**2)))


def test_of_a_sampled_run_the_samples_are_told_from_the_loop():
    """p*_n of the step's own samples is where the loop should go: what it is off the recursion is chance."""
    training = dataclasses.replace(SAMPLED, normalization=gd.FiniteGroup(8))
    recursion = gd.Recursion(2.0, [0.3], gd.FiniteGroup(8))
    expected = recursion.iterate(1).log_odds
    drawn, stopped = expected[1] + 0.5, expected[1] + 0.4
    table = success(np.stack([expected[0], stopped])).with_columns(log_odds_optimum=np.r_[np.nan, drawn])
    config = {"training": as_table(training), "optimization": {"inner_tolerance": 1e-3}}
    found = compare(Arm("arm", config, canonical(table))).split
    p, q, r = (float(gd.sigmoid(x[0])) for x in (expected[1], drawn, stopped))
    np.testing.assert_allclose([found.statistical[0], found.optimisation[0]], [q - p, q - r])
    assert found.approximation[0] == 0

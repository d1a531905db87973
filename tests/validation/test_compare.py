"""Runs of which everything is known, beside the right theory and beside wrong ones."""

import dataclasses

import numpy as np
import polars as pl
import pytest

import grpo_dynamics as gd
from grpo_dynamics.config import as_table
from grpo_dynamics.simulation.outcomes import Outcomes
from grpo_dynamics.simulation.tabular import simulate
from grpo_dynamics.update_rule import Training
from grpo_dynamics.validation.compare import compare, covered
from grpo_dynamics.validation.measured import Arm, canonical
from grpo_dynamics.validation.summary import summarize
from tests.validation.made_runs import success

P_REF = gd.sigmoid(np.linspace(-4.5, 4.5, 32))
GROUPS = gd.FiniteGroup(16)


def arm(training, p_ref=P_REF, steps=10, samples=None, seed=0, **config):
    made = simulate(Outcomes.uniform(p_ref, right=2, wrong=3), training, steps, seed=seed)
    table = canonical(success(np.asarray(made.log_odds), samples, seed))
    return Arm("arm", {"training": as_table(training)} | config, table)


@pytest.mark.parametrize("beta", [0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize(
    "changes",
    [{}, {"alpha": 0.5}, {"alpha": 0.0}, {"normalization": gd.MeanOnly()}, {"normalization": GROUPS}],
    ids=["grpo", "two_kl", "mirror", "dr_grpo", "groups"],
)
def test_exact_training_is_on_the_recursion(beta, changes):
    """The recursion is a theorem about exact minimisation over all policies: only rounding is left."""
    found = compare(arm(Training(beta=beta, **changes)))
    calm = ~found.moving
    np.testing.assert_allclose(found.grid.p[:, calm], found.orbit.p[:, calm], rtol=0, atol=1e-9)
    np.testing.assert_allclose(found.grid.p[1:], found.one_step.p[1:], rtol=0, atol=1e-9)
    told = summarize(found)
    assert told["residual"]["largest"] < 1e-9
    assert told["r2"] > 1 - 1e-9


def test_a_path_that_settles_is_judged_whole_even_where_the_fixed_point_oscillates():
    """At β = 0.5 the first step from p_ref = 0.002 goes by Ω/β ≈ 45 to p ≈ 1, and stays there."""
    found = compare(arm(Training(beta=0.5), p_ref=[2e-3], steps=6))
    assert found.regime.tolist() == ["oscillating"]
    assert found.limits.p[0] > 1 - 1e-9
    assert found.moving.tolist() == [False]


def test_a_question_that_oscillates_is_judged_by_single_steps():
    """At β = 5 p_ref = 0.001 has a two-cycle: orbits of nearly the same p_ref go out of phase, single steps do not."""
    made = arm(Training(beta=5.0), p_ref=[1e-3, 0.3], steps=12)
    nudged = made.success.with_columns(
        pl.when((pl.col("iteration") == 3) & (pl.col("question_id") == "q000")).then(0.02).otherwise("p").alias("p")
    )
    found = compare(made)
    assert found.regime.tolist() == ["oscillating", "bistable"]
    assert found.moving.tolist() == [True, False]
    assert found.end_table["limit"].to_list() == ["cycle", "fixed_point"]
    assert np.isnan(found.end_table["residual"][0])  # no single p* to end at
    assert found.limits.low[0] < 0.003 < 0.05 < found.limits.high[0]
    # a kick at n = 3: single steps see it at 3 and 4 only; the orbit, which the calm ones are judged by, until the end
    kicked = compare(dataclasses.replace(made, success=canonical(nudged.drop("low", "high", "log_odds"))))
    off = np.abs(kicked.residual[1:, 0]) > 1e-9
    assert off.nonzero()[0].tolist() == [2, 3] or off.nonzero()[0].tolist() == [2]


def test_half_of_the_anchor_takes_the_cycle_away():
    found = compare(arm(Training(beta=5.0, alpha=0.5), p_ref=[1e-3], steps=30))
    assert found.end_table["limit"].to_list() == ["fixed_point"]
    assert found.end_table["residual"].abs().max() < 1e-3


def test_the_wrong_estimator_is_seen_as_worse():
    """k3 in the loss ends elsewhere than the exact KL: each run is nearer to its own flow, by far."""
    for kl, other in (("k3", "exact"), ("k2", "k3")):
        training = Training(update="gradient", learning_rate=4.0, kl=kl, normalization=GROUPS)
        p_ref = np.linspace(0.15, 0.7, 12)
        made = arm(training, p_ref, steps=200)
        own = summarize(compare(made))["p_infinity"]["median"]
        wrong = compare(made, dataclasses.replace(compare(made).theory, kl=other))
        assert own < 1e-3
        assert np.median(np.abs(wrong.end_table["residual"])) > 50 * own
        others = summarize(compare(made))["other_theories"]
        assert all(entry["p_infinity_median"] > 0.02 for entry in others)
        assert all(entry["own_nearer_p_infinity"] == 1.0 for entry in others)


def test_groups_of_16_are_nearer_to_their_own_gap_than_to_the_papers():
    """Sampled groups, minimised to the end: the noise is large, and Ω_16 still stands out against ε = 1e-5, G = ∞."""
    training = Training(update="sampled", learning_rate=0.5, inner_steps=150, groups=64, normalization=GROUPS)
    made = simulate(Outcomes.uniform(P_REF), training, 8)
    config = {"training": as_table(training), "optimization": {"inner_tolerance": 1e-4}}
    config["validation"] = {"median": 0.03, "nearer_than_paper": True}
    told = summarize(compare(Arm("arm", config, canonical(success(np.asarray(made.log_odds))))))
    (paper,) = told["other_theories"]
    assert told["residual"]["median"] < 0.5 * paper["residual_median"]
    assert paper["own_nearer"] > 0.7
    assert told["passed"]
    assert [entry["name"] for entry in told["thresholds"]] == ["median", "nearer_than_paper"]
    # what sampled groups should scatter, from the binomial alone, is what they do
    assert told["error"]["statistical"] == pytest.approx(told["error"]["total"], rel=0.25)
    assert told["coverage"]["one_step"] == pytest.approx(0.95, abs=0.04)


@pytest.mark.parametrize("known", [True, False], ids=["p_ref known", "p_ref sampled"])
def test_intervals_hold_the_prediction_in_95_percent(known):
    """Exact training measured with 100 samples: nothing but the binomial is between measured and predicted."""
    p_ref = np.linspace(0.15, 0.85, 200)
    training = Training(beta=2.0, normalization=GROUPS)
    made = arm(training, p_ref, steps=6, samples=100, seed=3)
    if known:
        exact = arm(training, p_ref, steps=0).success
        made = dataclasses.replace(
            made, success=canonical(pl.concat([exact, made.success.filter(pl.col("iteration") > 0)]))
        )
    coverage = summarize(compare(made))["coverage"]
    assert coverage["orbit"] == pytest.approx(0.95, abs=0.025)
    assert coverage["one_step"] == pytest.approx(0.95, abs=0.025)
    # and a theory that is wrong is not covered
    wrong = compare(made, dataclasses.replace(compare(made).theory, beta=4.0))
    assert wrong.table.filter(pl.col("iteration") > 2)["orbit_covered"].mean() < 0.8


def test_agreement_of_two_intervals_is_stricter_than_overlap():
    """0.40 ± 0.08 and 0.53 ± 0.08 overlap; their difference, 0.13, is more than √2·0.08: no agreement."""
    near, far = (0.4, 0.32, 0.48), (0.53, 0.45, 0.61)
    assert covered(near, near)
    assert not covered(near, far)
    assert covered(near, (np.nan, 0.45, 0.61))  # no center, only a range: overlap is all there is


def test_a_question_without_a_success_has_no_known_p_ref():
    """0 of 64 says p_ref < 0.057: no point prediction, a range, and agreement if the measurement is in it."""
    table = success(np.array([[-9.0, 0.0]] * 4), samples=64, seed=1)
    config = {"training": as_table(Training(normalization=GROUPS))}
    found = compare(Arm("arm", config, canonical(table)))
    assert found.regime[0] == "unknown"
    told = summarize(found)
    assert told["questions_without_p_ref"] == 1
    assert told["residual"]["questions"] == 1
    assert np.isnan(found.orbit.p[:, 0]).all()
    assert (found.orbit.low[:, 0] == 0).all()
    assert (found.orbit.high[1:, 0] > 0.057).all()
    rows = found.table.filter(pl.col("question_id") == "q000", pl.col("iteration") > 0)
    assert rows["orbit_covered"].to_list() == [True, True, True]
    assert np.isnan(found.end_table["p_star"][0])
    assert found.end_table["p_star_high"][0] > 0.057


def test_measurements_may_be_rare_or_missing():
    """Measured every third iteration, the prediction takes three steps; a question that was left out is no error."""
    made = arm(Training(beta=2.0), steps=9)
    some = made.success.filter(pl.col("iteration") % 3 == 0)
    holes = some.filter(~((pl.col("question_id") == "q004") & (pl.col("iteration") == 6)))
    found = compare(dataclasses.replace(made, success=holes))
    assert found.grid.iterations.tolist() == [0, 3, 6, 9]
    assert np.nanmax(np.abs(found.residual)) < 1e-9
    assert np.isnan(found.residual[2, 4])
    # from the hole on there is no measurement to go on from, but the orbit goes on
    assert np.isnan(found.one_step.p[3, 4])
    assert found.table.height == holes.height


def test_where_a_noisy_run_ends_is_the_mean_of_its_last_third():
    p = np.tile(np.array([[0.2], [0.5], [0.5], [0.6], [0.7], [0.5], [0.6]]), 2)
    table = canonical(
        pl.DataFrame({"iteration": np.repeat(np.arange(7), 2), "question_id": ["a", "b"] * 7, "p": p.ravel()})
    )
    training = Training(update="sampled", learning_rate=0.1, normalization=GROUPS)
    ends = compare(Arm("arm", {"training": as_table(training)}, table)).ends
    np.testing.assert_allclose(ends.p, 0.55)
    exact = compare(Arm("arm", {"training": as_table(Training())}, table)).ends
    np.testing.assert_allclose(exact.p, 0.6)


def test_a_run_that_has_only_begun_can_be_compared():
    found = compare(arm(Training(), steps=0))
    told = summarize(found)
    assert told["residual"]["points"] == 0
    assert told["residual"]["median"] is None
    assert told["passed"] is None


def test_one_standard_deviation_for_all_questions():
    """BatchRecursion beside the population it is about: every question sees the same Ω."""
    training = Training(
        update="sampled", learning_rate=1.0, normalization=gd.FiniteGroup(8, eps=1e-4), std_over="batch"
    )
    config = {"training": as_table(training), "optimization": {"inner_tolerance": 1e-4}}
    dynamics = gd.BatchRecursion(1.0, P_REF, normalization=gd.BatchStd(group_size=8))
    table = canonical(success(dynamics.iterate(6).log_odds))
    found = compare(Arm("arm", config, table))
    assert np.nanmax(np.abs(found.residual)) < 1e-9
    assert set(found.regime) == {"shared"}


def test_thresholds_are_judged_and_wrong_ones_refused():
    made = arm(Training(beta=2.0), validation={"median": 1e-6, "percentile_95": 1e-6, "iterations": 5})
    told = summarize(compare(made))
    assert told["passed"] is True
    assert told["residual"]["up_to_iteration"] == 5
    wrong = summarize(compare(made, dataclasses.replace(compare(made).theory, beta=3.0)))
    assert wrong["passed"] is False
    with pytest.raises(ValueError, match=r"key of .validation. must be one of median"):
        summarize(compare(dataclasses.replace(made, config=made.config | {"validation": {"medium": 1}})))
    with pytest.raises(ValueError, match=r"validation.coverage must be between 0 and 1"):
        summarize(compare(dataclasses.replace(made, config=made.config | {"validation": {"coverage": 95}})))


def test_coverage_can_be_a_threshold():
    made = arm(Training(beta=2.0), samples=100, validation={"coverage": 0.9})
    assert summarize(compare(made))["passed"] is True

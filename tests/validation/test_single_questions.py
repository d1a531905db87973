"""The interval of a prediction, which knows nothing of what is measured later, and the picture of single questions."""

import dataclasses
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy import stats

import grpo_dynamics as gd
from grpo_dynamics.logodds import logit, sigmoid
from grpo_dynamics.plotting import VERMILION, render
from grpo_dynamics.simulation.outcomes import Outcomes
from grpo_dynamics.simulation.tabular import simulate
from grpo_dynamics.update_rule import Training
from grpo_dynamics.validation.compare import compare
from grpo_dynamics.validation.measured import Arm, canonical
from grpo_dynamics.validation.prediction_intervals import LEVEL, STOPS, Reach, prediction_interval
from grpo_dynamics.validation.run_directory import read_run
from grpo_dynamics.validation.single_questions import COUNT, drawn_at_random, single_questions
from grpo_dynamics.validation.summary import summarize
from grpo_dynamics.validation.theory_of_run import theory_of, training_of
from tests.validation.made_runs import write_run

RESULTS = Path(__file__).parents[2] / "experiments" / "results"
ROUNDING = 1e-9


def arm_of(p, samples=None, beta=1.0, tolerance=None, **training):
    """An arm whose success probabilities, or their counts, are given: shape (iterations, questions)."""
    iterations, questions = np.shape(p)
    columns = {
        "iteration": np.repeat(np.arange(iterations), questions),
        "question_id": [f"q{i}" for i in range(questions)] * iterations,
    }
    p = np.ravel(p)
    if samples is None:
        columns["p"] = p
    else:
        columns |= {"successes": np.rint(p * samples).astype(int), "samples": np.full(p.size, samples)}
    config = {"training": {"beta": beta} | training}
    if tolerance is not None:
        config["optimization"] = {"inner_tolerance": tolerance}
    return Arm("made", config, canonical(pl.DataFrame(columns)))


def interval_of(arm, **options):
    tolerance = arm.config.get("optimization", {}).get("inner_tolerance", 0.0)
    return prediction_interval(training_of(arm.config), theory_of(arm.config), arm.grid(), tolerance, **options)


def whitened_step(p_ref, state, beta, eps=1e-5):
    """The recursion written out: log-odds in, log-odds out."""
    p = sigmoid(state)
    return logit(p_ref) + 1 / np.sqrt(p * (1 - p) + eps) / beta


def bernoulli_kl(p, q):
    return p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))


def test_without_chance_the_interval_is_the_path():
    arm = arm_of(np.full((6, 3), [0.05, 0.3, 0.8]), beta=3.0)
    found = interval_of(arm)
    state = logit(np.array([0.05, 0.3, 0.8]))
    for n in range(1, 6):
        state = whitened_step(np.array([0.05, 0.3, 0.8]), state, 3.0)
        np.testing.assert_allclose(found.low[n], sigmoid(state), rtol=1e-12)
        np.testing.assert_array_equal(found.low[n], found.high[n])
    assert np.isnan(found.low[0]).all()  # p_ref is given, not predicted


def test_the_tolerance_of_the_inner_loop_bounds_the_divergence_from_the_best_policy():
    """Half of the copies stop below p*, at divergences up to t: 2.5 % of all beyond 95 % of t."""
    p_ref, beta, tolerance = np.array([0.02, 0.3, 0.9]), 2.0, 1e-3
    found = interval_of(arm_of(np.tile(p_ref, (2, 1)), beta=beta, tolerance=tolerance), copies=20_000)
    best = sigmoid(whitened_step(p_ref, logit(p_ref), beta))
    for end, side in ((found.low[1], -1), (found.high[1], 1)):
        assert (np.sign(end - best) == side).all()
        np.testing.assert_allclose(bernoulli_kl(end, best), 0.95 * tolerance, rtol=1.01 / STOPS)


@pytest.mark.parametrize("state", [-20.0, -3.0, 0.0, 3.0, 20.0])
def test_how_far_an_inner_loop_may_stop_solves_its_equation(state):
    reach = Reach.of(1e-3)
    up = np.interp(state, reach.log_odds, reach.up[-1])
    largest = 1e-3 * (STOPS - 0.5) / STOPS
    p, q = float(sigmoid(state + up)), float(sigmoid(state))
    if np.log1p(np.exp(-state)) > largest:  # KL(1‖p) = log 1/p: else even p = 1 is allowed
        r, s = float(sigmoid(-state - up)), float(sigmoid(-state))
        assert p * np.log(p / q) + r * np.log(r / s) == pytest.approx(largest, rel=0.01)
    else:
        assert up <= 3.0


def test_a_counted_p_ref_and_a_count_of_the_step_give_the_quantiles_of_their_compound():
    """Copies drawn here: p_ref from Beta(k+½, n−k+½), one step, a count of n. Ends may differ by one count."""
    samples, k = 50, 5
    found = interval_of(arm_of(np.full((2, 1), k / samples), samples=samples, beta=3.0), copies=20_000)
    rng = np.random.default_rng(3)
    p_ref = stats.beta(k + 0.5, samples - k + 0.5).rvs(200_000, random_state=rng)
    counts = rng.binomial(samples, sigmoid(whitened_step(p_ref, logit(p_ref), 3.0))) / samples
    low, high = np.quantile(counts, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    assert abs(found.low[1, 0] - low) <= 1 / samples + ROUNDING
    assert abs(found.high[1, 0] - high) <= 1 / samples + ROUNDING


def test_95_percent_of_sampled_runs_are_inside(tmp_path):
    """Real groups of 8, and counts of 50 answers, by another code: natural gradient steps of rate 1/β on each batch.

    Such a step is the minimisation of what the groups say, so the interval must hold its level: here over 300
    questions and 6 iterations, of which 50 are measured with p_ref = k/50 itself uncertain.
    """
    training = Training(
        beta=1.5, update="sampled", learning_rate=1 / 1.5, natural=True, groups=8, normalization=gd.FiniteGroup(8)
    )
    p_ref = np.repeat([0.05, 0.1, 0.2, 0.4, 0.6, 0.8], 50)
    run = write_run(
        tmp_path / "run", {"sampled": (training, p_ref)}, steps=6, samples=50, optimization={"inner_tolerance": 1e-12}
    )
    found = compare(read_run(run).arms[0])
    inside = found.interval.inside(found.grid.p)[1:]
    assert np.isfinite(inside).all()
    assert 0.93 <= inside.mean() <= 0.985  # counts come in steps of 1/50: a little more than the level
    by_iteration = inside.mean(axis=1)
    assert (by_iteration > 0.9).all()
    # not because it holds everything: without the chance of the groups fewer are inside
    assert np.median((found.interval.high - found.interval.low)[1:]) < 0.5
    calm = prediction_interval(Training(beta=1.5, normalization=gd.FiniteGroup(8)), found.theory, found.grid)
    assert np.nanmean(calm.inside(found.grid.p)) < inside.mean() - 0.03


def test_the_interval_knows_nothing_of_what_is_measured_later():
    p = np.full((5, 4), [0.05, 0.2, 0.5, 0.9])
    other = np.concatenate([p[:1], 1 - p[1:]])
    settings = {"update": "sampled", "group_size": 4, "groups": 3, "normalization": {"kind": "finite_group"}}
    settings["normalization"] |= {"group_size": settings.pop("group_size")}
    for samples in (None, 20):
        first, second = (interval_of(arm_of(x, samples, tolerance=1e-3, **settings)) for x in (p, other))
        np.testing.assert_array_equal(first.low, second.low)
        np.testing.assert_array_equal(first.high, second.high)


def test_small_steps_have_no_path_and_so_no_interval():
    arm = arm_of(np.full((4, 2), 0.3), update="gradient", learning_rate=0.1)
    assert np.isnan(interval_of(arm).low).all()
    told = summarize(compare(arm))["interval"]
    assert told == {"level": LEVEL, "points": 0, "covered": None, "width": None}


def test_a_question_without_a_success_has_an_interval_and_no_line():
    """0 of 20 says p_ref < 0.1, nearly: the copies begin there."""
    found = interval_of(arm_of(np.zeros((2, 1)), samples=20, beta=2.0))
    assert 0 <= found.low[1, 0] < found.high[1, 0] <= 1


def test_the_share_inside_is_in_the_summary_and_in_the_table():
    p = np.array([[0.3, 0.6], [0.5, 0.9], [0.5, 0.9]])
    found = compare(arm_of(p, beta=3.0, tolerance=1e-2))
    told = summarize(found)["interval"]
    judged = found.table["interval_covered"].drop_nulls()
    assert told["points"] == len(judged) == 4
    assert told["covered"] == pytest.approx(judged.mean())


@pytest.mark.parametrize(
    ("arm", "least"), [("beta_1", 0.95), ("beta_2", 0.95), ("beta_5", 0.95), ("groups_of_16", 0.87)]
)
def test_the_committed_runs_are_inside_their_intervals(arm, least):
    """Measurements of a network, 640 or 384. Its wrong answers are several: groups spread them more than two would."""
    found = compare(read_run(RESULTS / "cpu_arithmetic" / arm).arms[0])
    told = summarize(found)["interval"]
    assert told["covered"] >= least
    assert told["width"] < 0.1
    config = {**found.arm.config, "optimization": {"inner_tolerance": 1e-15}}
    without = compare(dataclasses.replace(found.arm, config=config))
    assert summarize(without)["interval"]["covered"] < told["covered"]  # the tolerance is part of the explanation


def test_several_wrong_answers_explain_what_is_outside_of_sampled_groups():
    """No network, the same settings and p_ref: digits leave nine wrong answers. Of both, a tenth is outside."""
    found = compare(read_run(RESULTS / "cpu_arithmetic" / "groups_of_16").arms[0])
    ascent = {"update": "sampled", "learning_rate": 1.0, "natural": True}  # a step of rate 1/β is the minimisation
    training = Training(beta=1.0, groups=64, normalization=gd.FiniteGroup(16), **ascent)
    inside = {
        wrong: [
            np.nanmean(
                found.interval.inside(simulate(Outcomes.uniform(found.grid.p[0], 1, wrong), training, 6, seed).p)
            )
            for seed in range(3)
        ]
        for wrong in (1, 9)
    }
    assert np.mean(inside[1]) > 0.96
    assert np.mean(inside[9]) == pytest.approx(np.nanmean(found.interval.inside(found.grid.p)), abs=0.02)


def test_questions_are_drawn_by_their_number_alone():
    chosen = drawn_at_random(200)
    assert len(set(chosen)) == COUNT
    assert chosen == drawn_at_random(200) != drawn_at_random(200, seed=1)
    often = np.bincount(np.concatenate([drawn_at_random(20, 5, seed) for seed in range(2000)]), minlength=20)
    assert stats.chisquare(often).pvalue > 1e-3  # all equally probable


def test_the_picture_shows_the_measurements_and_marks_those_outside():
    p = np.array([[0.05, 0.3, 0.8]] * 3)
    p[1:] = sigmoid(found_path(p[0], 3.0))
    p[2, 1] = 0.01  # nowhere near
    found = compare(arm_of(p, beta=3.0, tolerance=1e-4))
    figure = single_questions(found)
    panels = [axes for axes in figure.axes if axes.axison]
    assert [axes.get_title("left") for axes in panels] == ["q0", "q1", "q2"]
    outside = [line for axes in panels for line in axes.lines if line.get_marker() == "D"]
    assert len(outside) == 1
    assert outside[0].get_color() == VERMILION
    np.testing.assert_array_equal(outside[0].get_xydata(), [[2, 0.01]])
    assert "Inside: 5 of all 6 measurements" in figure.get_suptitle()
    assert render(figure, "png") == render(single_questions(found), "png")


def found_path(p_ref, beta):
    state, rows = logit(p_ref), []
    for _ in range(2):
        state = whitened_step(p_ref, state, beta)
        rows.append(state)
    return np.array(rows)

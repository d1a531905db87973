"""The errors of a trained policy: they add up, each vanishes when its cause does, and Theorem 10 bounds them."""

import dataclasses

import numpy as np
import pytest

import grpo_dynamics as gd
from grpo_dynamics.simulation.error_bounds import error_bounds
from grpo_dynamics.simulation.errors import DEPARTURES, path, separate, without_groups
from grpo_dynamics.simulation.features import Features
from grpo_dynamics.simulation.outcomes import Outcomes
from grpo_dynamics.simulation.policies import log_odds, normalize, total_variation
from grpo_dynamics.simulation.tabular import simulate
from grpo_dynamics.update_rule import Training

QUESTIONS = Outcomes.random(8, 5, seed=1)
TRAINING = Training(
    normalization=gd.FiniteGroup(8, eps=0.1),
    update="sampled",
    learning_rate=0.5,
    inner_steps=4,
    groups=4,
)


def p_of(log_policy, outcomes=QUESTIONS):
    return gd.sigmoid(log_odds(log_policy, outcomes.correct))


@pytest.mark.parametrize("rank", [None, 3, 12])
@pytest.mark.parametrize("alpha", [1.0, 0.6])
def test_the_errors_add_up(rank, alpha):
    features = None if rank is None else Features.random(QUESTIONS, rank, seed=0)
    training = dataclasses.replace(TRAINING, alpha=alpha)
    errors = separate(QUESTIONS, training, steps=6, features=features, repeats=4)
    whole = errors.measured - errors.predicted
    np.testing.assert_allclose(sum(errors.in_turn.values()), whole, atol=1e-15)
    table = errors.table()
    assert table["what"].to_list() == ["predicted", *DEPARTURES, "interactions", "measured"]
    for column in ("in_turn", "alone"):
        *parts, total = table[column].to_list()
        assert sum(parts) == pytest.approx(total, abs=1e-14)
    expected = gd.Recursion(1.0, QUESTIONS.p_ref, gd.Whitened(0.1, "std"), alpha).iterate(6).p
    np.testing.assert_allclose(errors.predicted, expected, rtol=1e-12)
    first = errors.in_turn["approximation"]
    if rank is None:
        assert np.abs(first).max() < 1e-13
    else:
        assert np.abs(first[-1]).max() > 1e-3


def test_nothing_switched_on_is_the_recursion():
    found = path(QUESTIONS, TRAINING, 8, None, ())
    expected = gd.Recursion(1.0, QUESTIONS.p_ref, gd.Whitened(0.1, "std")).iterate(8).log_odds
    np.testing.assert_allclose(log_odds(found, QUESTIONS.correct), expected, rtol=1e-12, atol=1e-12)


def test_only_approximation_features_that_say_every_policy_err_nothing():
    """8·(5−1) = 32 directions are all there are: 32 generic features are as good as the table; 31 are not."""
    exact = p_of(path(QUESTIONS, TRAINING, 5, None, ()))
    for features in (Features.tabular(QUESTIONS), Features.random(QUESTIONS, 32, seed=3)):
        found = p_of(path(QUESTIONS, TRAINING, 5, features, ("approximation",)))
        np.testing.assert_allclose(found, exact, atol=1e-10)
    fewer = [p_of(path(QUESTIONS, TRAINING, 5, Features.random(QUESTIONS, r, 3), ("approximation",))) for r in (31, 8)]
    sizes = [np.abs(found - exact)[-1].max() for found in fewer]
    assert 1e-8 < sizes[0] < sizes[1]


def test_only_approximation_questions_that_share_a_weight_compromise():
    """One weight that all right answers share: the best one by brute force over a grid, and both questions err.

    The harder question has the larger gap, so it wants a larger shift than the easier one, and gets less.
    """
    p_ref = np.array([0.05, 0.4])
    outcomes = Outcomes.uniform(p_ref, right=2, wrong=1)
    shared = Features(outcomes.correct[:, :, None].astype(float))
    found = path(outcomes, TRAINING, 1, shared, ("approximation",))
    shift = np.linspace(0, 5, 500_001)[:, None]
    p = gd.sigmoid(gd.logit(p_ref) + shift)
    gap = gd.Whitened(0.1, "std").gap(gd.logit(p_ref))
    objective = np.sum(p * gap - (p * shift + np.log((1 - p) / (1 - p_ref))), axis=1)
    best = shift[objective.argmax(), 0]
    np.testing.assert_allclose(log_odds(found[1], outcomes.correct) - gd.logit(p_ref), best, atol=2e-5)
    assert gap[1] + 0.1 < best < gap[0] - 0.1


def test_only_optimisation_more_inner_steps_reach_the_recursion():
    """β = 3 keeps p away from 1, where the softmax has no slope and a thousand steps are not many."""
    exact = p_of(path(QUESTIONS, dataclasses.replace(TRAINING, beta=3.0), 6, None, ()))
    sizes = []
    for inner_steps in (1, 10, 100, 2000):
        training = dataclasses.replace(TRAINING, beta=3.0, inner_steps=inner_steps, learning_rate=0.5)
        sizes.append(np.abs(p_of(path(QUESTIONS, training, 6, None, ("optimisation",))) - exact)[-1].max())
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > 0.02
    assert sizes[-1] < 1e-5


def test_more_inner_steps_on_weights_reach_the_best_weights():
    """Plain gradient steps on shared weights and the shortened natural ones climb the same hill from the same place."""
    features = Features.random(QUESTIONS, 4, seed=0)
    training = dataclasses.replace(TRAINING, beta=3.0, inner_steps=400, learning_rate=0.1)
    best = p_of(path(QUESTIONS, training, 3, features, ("approximation",)))
    climbed = p_of(path(QUESTIONS, training, 3, features, ("approximation", "optimisation")))
    few = dataclasses.replace(training, inner_steps=4)
    early = p_of(path(QUESTIONS, few, 3, features, ("approximation", "optimisation")))
    np.testing.assert_allclose(climbed, best, atol=1e-7)
    assert np.abs(early - best).max() > 1e-3


def test_only_optimisation_one_natural_step_of_rate_1_over_beta_is_the_recursion():
    """θ + (1/β)F⁻¹∇J = θ_ref + A/β: for the table, and for weights that say every policy."""
    training = dataclasses.replace(TRAINING, beta=2.0, learning_rate=0.5, inner_steps=1, natural=True)
    exact = p_of(path(QUESTIONS, training, 4, None, ()))
    np.testing.assert_allclose(p_of(path(QUESTIONS, training, 4, None, ("optimisation",))), exact, rtol=1e-10)
    both = p_of(path(QUESTIONS, training, 4, Features.tabular(QUESTIONS), ("approximation", "optimisation")))
    np.testing.assert_allclose(both, exact, rtol=1e-8)


def test_only_finite_groups_is_their_recursion():
    found = path(QUESTIONS, TRAINING, 6, None, ("finite groups",))
    expected = gd.Recursion(1.0, QUESTIONS.p_ref, gd.FiniteGroup(8, eps=0.1)).iterate(6).log_odds
    np.testing.assert_allclose(log_odds(found, QUESTIONS.correct), expected, rtol=1e-11, atol=1e-11)


def test_only_sampling_falls_with_the_number_of_groups():
    """By about √100 from N = 100 to 10,000; below √100/2 or above 2·√100 would be chance of a broken kind."""
    exact = p_of(path(QUESTIONS, TRAINING, 3, None, ()))
    sizes = []
    for groups in (100, 10_000):
        training = dataclasses.replace(TRAINING, groups=groups, beta=2.0)
        exact = p_of(path(QUESTIONS, training, 3, None, ()))
        runs = [p_of(path(QUESTIONS, training, 3, None, ("sampling",), seed)) for seed in range(4)]
        sizes.append(np.sqrt(np.mean((np.stack(runs) - exact)[:, 1:] ** 2)))
    assert 5 < sizes[0] / sizes[1] < 20
    assert sizes[1] > 1e-9


def test_all_switched_on_is_the_sampled_simulation():
    """Same generator, same batches: the tabular simulation, bit for bit but for rounding."""
    found = path(QUESTIONS, TRAINING, 12, None, DEPARTURES, seed=7)
    np.testing.assert_allclose(p_of(found), simulate(QUESTIONS, TRAINING, 12, seed=7).p, rtol=1e-9)
    tabular = path(QUESTIONS, TRAINING, 12, Features.tabular(QUESTIONS), DEPARTURES, seed=7)
    np.testing.assert_allclose(p_of(tabular), p_of(found), rtol=1e-9)


def test_the_standard_error_is_that_of_the_mean_over_repeats():
    one = separate(QUESTIONS, TRAINING, steps=4, repeats=3, seed=5)
    runs = np.stack([p_of(path(QUESTIONS, TRAINING, 4, None, DEPARTURES, (5, i))) for i in range(3)])
    np.testing.assert_allclose(one.measured, runs.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(one.standard_error, runs.std(axis=0, ddof=1) / np.sqrt(3), rtol=1e-9, atol=1e-16)
    again = separate(QUESTIONS, TRAINING, steps=4, repeats=3, seed=5)
    np.testing.assert_array_equal(one.measured, again.measured)
    assert (separate(QUESTIONS, TRAINING, steps=4, repeats=3, seed=6).measured[-1] != one.measured[-1]).any()


def exact_step(log_policy, training=TRAINING):
    """The exact answer to a policy: π_ref tilted by the gap at its p."""
    gap = without_groups(training.normalization).gap(log_odds(log_policy, QUESTIONS.correct))
    return normalize(QUESTIONS.log_reference + QUESTIONS.correct * (gap / training.beta)[..., None])


@pytest.mark.parametrize("switched", [("approximation",), ("optimisation",), ("sampling",), DEPARTURES])
def test_theorem_10_bounds_what_happens_with_the_constant_1(switched):
    exact = path(QUESTIONS, TRAINING, 20, None, ())
    trained = path(QUESTIONS, TRAINING, 20, Features.random(QUESTIONS, 9, seed=0), switched, seed=2)
    bounds = error_bounds(exact, trained, QUESTIONS.correct, exact_step(trained[:-1]))
    rounding = 1e-13
    assert (bounds.deviation <= bounds.total_variation + rounding).all()
    assert (bounds.total_variation <= bounds.sharp + rounding).all()
    np.testing.assert_allclose(bounds.paper, 2 * bounds.sharp)
    assert (bounds.delta[1:] >= np.diff(bounds.total_variation, axis=0) - rounding).all()
    # errors that are forgotten: with ε = 0.1, β = 1 the steepest |dp_n/dp_{n−1}| on [0, 1] by a grid
    state = np.linspace(-15, 15, 20_001)
    image = np.stack([gd.Recursion(1.0, p, gd.Whitened(0.1, "std")).step(state) for p in QUESTIONS.p_ref])
    slope = gd.Whitened(0.1, "std").gap_slope(state)
    steepest = np.abs(
        slope
        * np.exp(-np.logaddexp(0, image) - np.logaddexp(0, -image) + np.logaddexp(0, state) + np.logaddexp(0, -state))
    )
    assert (bounds.total_variation <= bounds.accumulated(float(steepest.max()) * 1.001) + rounding).all()
    assert np.abs(bounds.own[1:]).max() > 1e-3


def test_the_constant_1_is_attained():
    """All of δ moved from wrong to right, once and for all: |p̃ − p| = δ* = TV, half of the theorem's bound."""
    exact = np.log(np.array([[[0.3, 0.3, 0.4]], [[0.4, 0.4, 0.2]], [[0.4, 0.4, 0.2]]]))
    moved = np.exp(exact) + np.array([0.05, 0.0, -0.05]) * np.array([0, 1, 1])[:, None, None]
    bounds = error_bounds(exact, np.log(moved), np.array([[True, True, False]]))
    np.testing.assert_allclose(bounds.deviation[1:, 0], 0.05)
    np.testing.assert_allclose(bounds.sharp[1:, 0], 0.05)
    np.testing.assert_allclose(bounds.paper[1:, 0], 0.1)
    assert np.isnan(bounds.own).all()
    np.testing.assert_allclose(bounds.total_variation, total_variation(exact, np.log(moved)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kl": "k3"}, "kl must be 'exact' where errors are told apart, got 'k3'"),
        ({"clip_high": 0.2}, "clip_high must be None"),
        ({"false_positive": 0.1}, "false_positive must be 0.0"),
        ({"reference_refresh": 5}, "reference_refresh must be None"),
    ],
)
def test_trainings_without_a_recursion_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        separate(QUESTIONS, dataclasses.replace(TRAINING, **change), steps=2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: separate(QUESTIONS, Training(), 2), "update must be 'sampled'"),
        (lambda: separate(QUESTIONS, TRAINING, 2, repeats=1), "repeats must be an integer >= 2, got 1"),
        (lambda: separate(QUESTIONS, TRAINING, -1), "steps must be an integer >= 0, got -1"),
        (
            lambda: separate(QUESTIONS, TRAINING, 2, Features(np.zeros((8, 4, 2)))),
            r"features must have values for the answers \(8, 5\), got \(8, 4\)",
        ),
        (lambda: path(QUESTIONS, TRAINING, 2, None, ("noise",)), "switched must be among approximation"),
        (lambda: Features.random(QUESTIONS, 0, 1), "rank must be an integer >= 1, got 0"),
        (lambda: Features(np.full((1, 2, 1), np.nan)), "values must be finite numbers"),
        (lambda: Features([1.0]), r"values must have the shape \(questions, answers, rank\)"),
        (
            lambda: error_bounds(np.log([[[0.5, 0.5]]]), np.log([[[0.4, 0.6]]]), np.array([[True, False]])),
            "log_approximate must start where log_exact does, got a distance of 0.1",
        ),
        (
            lambda: error_bounds(np.zeros((1, 1, 1)), np.zeros((2, 1, 1)), np.array([[True]])),
            "log_approximate must have the shape of log_exact",
        ),
    ],
)
def test_wrong_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_exact_steps_follow_the_recursion_beyond_rounding_to_one():
    """Without smoothing L runs away doubly exponentially: 2.8, 7.2, 39, 3e8, ∞. There is no way back to π_ref."""
    questions = Outcomes.random(6, 4, seed=1)
    training = Training(normalization=gd.FiniteGroup(8), update="sampled", learning_rate=0.5)
    found = log_odds(path(questions, training, 8, None, ()), questions.correct)
    wanted = gd.Recursion(1.0, questions.p_ref, gd.Whitened(eps=0.0)).iterate(8).log_odds
    assert np.isinf(wanted).any()
    np.testing.assert_allclose(found, wanted, rtol=1e-9)


@pytest.mark.parametrize(
    ("exact", "approximate", "message"),
    [
        ([[[0.0, np.nan]]], [[[0.0, 0.0]]], "log_exact must be log-probabilities.*nan"),
        ([[[0.0, 0.0]]], [[[0.5, 0.0]]], "log_approximate must be log-probabilities.*0.5"),
        ([[[0.0, 0.0]]], [[[0.0, 0.0]]] * 2, "log_approximate must have the shape"),
    ],
)
def test_bounds_name_what_is_wrong(exact, approximate, message):
    with pytest.raises(ValueError, match=message):
        error_bounds(exact, approximate, [[True, False]])


def test_embeddings_need_whole_numbers():
    with pytest.raises(ValueError, match="rank must be an integer >= 1, got 0"):
        Features.random(QUESTIONS, 0, seed=0)
    with pytest.raises(ValueError, match="seed must be an integer >= 0, got -1"):
        Features.random(QUESTIONS, 2, seed=-1)

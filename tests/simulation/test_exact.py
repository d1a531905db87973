"""Exact minimisation is the recursion, for all six variants; with unequal conditionals it is the recursion plus Δ_R."""

import numpy as np
import pytest
from scipy.optimize import minimize as scipy_minimize

import grpo_dynamics as gd
from grpo_dynamics.simulation.exact import minimize
from grpo_dynamics.simulation.outcomes import Outcomes
from grpo_dynamics.simulation.policies import kl_divergence, log_odds, normalize
from grpo_dynamics.simulation.tabular import simulate
from grpo_dynamics.update_rule import Training

N = 400
RNG = np.random.default_rng(0)
BETA, ALPHA, EPS = 10 ** RNG.uniform(-1, 1, N), RNG.uniform(0.05, 0.95, N), 10 ** RNG.uniform(-6, -0.7, N)
QUESTIONS = Outcomes.random(N, 6, seed=1)
VARIANTS = {
    "GRPO": (gd.Whitened(EPS), 1.0),
    "Dr. GRPO": (gd.MeanOnly(), 1.0),
    "mirror GRPO": (gd.Whitened(EPS), 0.0),
    "mirror Dr. GRPO": (gd.MeanOnly(), 0.0),
    "two-KL GRPO": (gd.Whitened(EPS), ALPHA),
    "two-KL Dr. GRPO": (gd.MeanOnly(), ALPHA),
}


def departures(simulation, recursion):
    """L_n less the recursion's step from L_{n−1}, for every step."""
    return simulation.log_odds[1:] - np.stack([recursion.step(x) for x in simulation.log_odds[:-1]])


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_step_is_the_recursion(variant):
    normalization, alpha = VARIANTS[variant]
    steps = simulate(QUESTIONS, Training(BETA, normalization, alpha), steps=20)
    recursion = gd.Recursion(BETA, QUESTIONS.p_ref, normalization, alpha)
    assert np.abs(departures(steps, recursion)).max() <= 1e-10
    assert np.abs(steps.renyi).max() <= 1e-10
    assert steps.log_odds.shape == (21, N)
    np.testing.assert_allclose(steps.log_odds[0], QUESTIONS.log_odds_ref, rtol=1e-14)


@pytest.mark.parametrize("normalization", [gd.FiniteGroup(8, eps=1e-4, ddof=1), gd.MeanOnly(group_size=4)])
def test_other_normalisations(normalization):
    steps = simulate(QUESTIONS, Training(BETA, normalization, ALPHA), steps=10)
    recursion = gd.Recursion(BETA, QUESTIONS.p_ref, normalization, ALPHA)
    assert np.abs(departures(steps, recursion)).max() <= 1e-10


@pytest.mark.parametrize("variant", VARIANTS)
def test_unequal_conditionals_add_the_renyi_correction(variant):
    """From π_0 ≠ π_ref: L_n − recursion = Δ_R, which is not 0 for two KL terms, and fades as conditionals converge."""
    normalization, alpha = VARIANTS[variant]
    start = RNG.normal(size=(N, 6)) * 2
    steps = simulate(QUESTIONS, Training(BETA, normalization, alpha), steps=8, start=start)
    recursion = gd.Recursion(BETA, QUESTIONS.p_ref, normalization, alpha)
    np.testing.assert_allclose(departures(steps, recursion), steps.renyi, atol=1e-10)
    sizes = np.abs(steps.renyi).max(axis=1)
    if isinstance(alpha, float):
        assert sizes.max() < 1e-10
    else:
        assert sizes[0] > 0.5
        assert np.median(np.abs(steps.renyi[-1])) < 0.05 * np.median(np.abs(steps.renyi[0]))


def test_the_step_is_the_maximum_of_its_objective():
    """A general optimiser over the simplex finds the same policy: nothing of the closed form is used."""
    rng = np.random.default_rng(3)
    for alpha in (0.0, 0.3, 1.0):
        old, reference = normalize(rng.normal(size=(1, 4))), normalize(rng.normal(size=(1, 4)))
        correct = np.array([[True, False, False, True]])
        questions = Outcomes(reference, correct)
        normalization = gd.Whitened(0.01)
        state = log_odds(old, correct)
        advantage = np.where(correct, normalization.positive(state), -normalization.negative(state))

        def loss(logits, old=old, reference=reference, advantage=advantage, alpha=alpha):
            log_policy = normalize(logits[None, :])
            pull = alpha * kl_divergence(log_policy, reference) + (1 - alpha) * kl_divergence(log_policy, old)
            return float((0.8 * pull - (np.exp(log_policy) * advantage).sum(axis=1))[0])

        found = scipy_minimize(loss, np.zeros(4), method="BFGS", options={"gtol": 1e-10}).x
        ours = minimize(old, reference, questions, Training(0.8, normalization, alpha))
        np.testing.assert_allclose(np.exp(ours[0]), np.exp(normalize(found)), rtol=0, atol=2e-6)


def test_noise_of_the_verifier():
    """Of a right answer's advantage over a wrong one's 1 − false positives − false negatives is left."""
    shrink = 1 - 0.1 - 0.25
    noisy = {"false_positive": 0.1, "false_negative": 0.25}
    steps = simulate(QUESTIONS, Training(2.0, gd.MeanOnly(), **noisy), steps=3)
    np.testing.assert_allclose(steps.log_odds[-1], QUESTIONS.log_odds_ref + shrink / 2.0, atol=1e-12)
    whitened = simulate(QUESTIONS, Training(2.0, gd.Whitened(), **noisy), steps=1)
    judged = QUESTIONS.p_ref * 0.75 + (1 - QUESTIONS.p_ref) * 0.1
    gap = (judged * (1 - judged) + 1e-5) ** -0.5
    np.testing.assert_allclose(whitened.log_odds[-1], QUESTIONS.log_odds_ref + shrink * gap / 2.0, rtol=1e-11)


def test_a_reference_that_is_renewed_at_every_step_is_the_mirror():
    renewed = simulate(QUESTIONS, Training(BETA, gd.Whitened(EPS), reference_refresh=1), steps=5)
    mirror = simulate(QUESTIONS, Training(BETA, gd.Whitened(EPS), alpha=0.0), steps=5)
    np.testing.assert_allclose(renewed.log_odds, mirror.log_odds, rtol=1e-12, atol=1e-12)


def test_a_reference_that_is_renewed_every_third_step():
    """Dr. GRPO arrives in one step at L_ref + 1/β, and waits there for the next reference."""
    steps = simulate(QUESTIONS, Training(2.0, gd.MeanOnly(), reference_refresh=3), steps=9)
    rises = [0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    expected = QUESTIONS.log_odds_ref + np.array(rises)[:, None] / 2.0
    np.testing.assert_allclose(steps.log_odds, expected, atol=1e-12)
    np.testing.assert_allclose(log_odds(steps.log_reference, QUESTIONS.correct), expected[9], atol=1e-12)


def test_two_cycles_are_seen():
    """β = 5, p_ref = 1e-3 of theory.md: p alternates between 0.0023380 and 0.0587158."""
    steps = simulate(Outcomes.uniform(1e-3, 2, 5), Training(5.0, gd.Whitened(1e-5)), steps=400)
    np.testing.assert_allclose(np.sort(steps.p[-2:, 0]), [0.0023380, 0.0587158], atol=5e-8)


def test_log_odds_beyond_the_range_of_probabilities():
    """No smoothing: the mirror reaches p = 1 in floating point and beyond; 1 − p goes to 0 and nothing becomes NaN."""
    steps = simulate(Outcomes.uniform([0.2, 0.9], 2, 2), Training(0.5, gd.Whitened(0.0), alpha=0.0), steps=30)
    assert np.all(steps.log_odds[-1] > 1e3)
    assert np.all(np.diff(steps.log_odds[:5], axis=0) > 0)


@pytest.mark.parametrize(("false_positive", "false_negative"), [(1.0, 0.0), (0.0, 1.0), (0.5, 0.5)])
def test_a_verifier_that_says_nothing_moves_nothing(false_positive, false_negative):
    """Also where all answers get the same verdict, and Ω at its rate is infinite: there is no advantage to whiten."""
    questions = Outcomes.uniform([0.2, 0.5])
    training = Training(
        normalization=gd.Whitened(eps=0.0), false_positive=false_positive, false_negative=false_negative
    )
    found = simulate(questions, training, 3).log_odds
    np.testing.assert_allclose(found, np.broadcast_to(found[0], found.shape), atol=1e-15)

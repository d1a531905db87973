"""Distances between policies: the definitions, in 50 digits and in exact fractions, and theory.md's identities."""

import fractions

import numpy as np
import pytest

import grpo_dynamics as gd
from grpo_dynamics.simulation.outcomes import Outcomes
from grpo_dynamics.simulation.policies import kl_divergence, log_odds, normalize, renyi_correction, total_variation
from grpo_dynamics.simulation.tabular import simulate
from grpo_dynamics.update_rule import Training

RNG = np.random.default_rng(0)
P, Q = (normalize(RNG.normal(size=(200, 6)) * 3) for _ in range(2))
CORRECT = Outcomes.random(200, 6, seed=3).correct


def test_kl_and_total_variation_are_their_definitions():
    p, q = np.exp(P), np.exp(Q)
    np.testing.assert_allclose(kl_divergence(P, Q), (p * np.log(p / q)).sum(1), rtol=1e-12)
    np.testing.assert_allclose(total_variation(P, Q), np.maximum(p - q, 0).sum(1), rtol=1e-12)
    assert np.all(kl_divergence(P, P) == 0)


def test_exact_iterates_are_as_far_apart_as_their_success_probabilities():
    """From π_ref every iterate has the conditionals of π_ref: KL and TV are those of two coins, to 1e-12."""
    questions = Outcomes.random(300, 7, seed=1)
    end = simulate(questions, Training(beta=1.5, alpha=0.4), steps=4)
    p, q, p_ref = end.p[-1], end.one_minus_p[-1], questions.p_ref
    q_ref = gd.sigmoid(-questions.log_odds_ref)
    coins = p * np.log(p / p_ref) + q * np.log(q / q_ref)
    np.testing.assert_allclose(kl_divergence(end.log_policy, questions.log_reference), coins, rtol=1e-12, atol=1e-12)
    apart = total_variation(end.log_policy, questions.log_reference)
    np.testing.assert_allclose(apart, np.abs(p - p_ref), rtol=1e-12, atol=1e-12)


def test_unequal_conditionals_are_further_apart_than_their_coins():
    """Data processing: forgetting which answer it was can only bring two laws together."""
    p, q = gd.sigmoid(log_odds(P, CORRECT)), gd.sigmoid(log_odds(Q, CORRECT))
    assert np.all(total_variation(P, Q) >= np.abs(p - q) - 1e-15)
    assert np.any(total_variation(P, Q) > np.abs(p - q) + 0.1)


def test_log_odds_where_p_rounds_to_one():
    assert log_odds(np.array([[0.0, -800.0, -800.0]]), np.array([[True, False, False]])) == pytest.approx(
        800 - np.log(2), abs=1e-12
    )


def test_renyi_correction_is_the_difference_of_two_renyi_divergences():
    """(α−1)·D_α(π_ref(·|r) ‖ π(·|r)) on each side, with D_α written from its definition."""
    alpha, policy, reference = 0.3, np.exp(P), np.exp(Q)

    def renyi(side):
        first, second = reference * side, policy * side
        first, second = first / first.sum(1, keepdims=True), second / second.sum(1, keepdims=True)
        terms = np.where(side, first**alpha * second ** (1 - alpha), 0)
        return np.log(terms.sum(1)) / (alpha - 1)

    expected = (alpha - 1) * (renyi(CORRECT) - renyi(~CORRECT))
    np.testing.assert_allclose(renyi_correction(P, Q, CORRECT, alpha), expected, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_renyi_correction_vanishes_at_the_ends(alpha):
    np.testing.assert_allclose(renyi_correction(P, Q, CORRECT, alpha), 0.0, atol=1e-14)


def test_renyi_correction_vanishes_where_conditionals_agree():
    shifted = normalize(P + 3 * CORRECT)
    np.testing.assert_allclose(renyi_correction(shifted, P, CORRECT, 0.5), 0.0, atol=1e-14)
    assert np.abs(renyi_correction(Q, P, CORRECT, 0.5)).max() > 0.1


def test_an_answer_that_does_not_exist_counts_nothing():
    padded = np.concatenate([P, np.full((200, 1), -np.inf)], axis=1)
    beside = np.concatenate([Q, np.full((200, 1), -np.inf)], axis=1)
    correct = np.concatenate([CORRECT, np.ones((200, 1), bool)], axis=1)
    np.testing.assert_array_equal(kl_divergence(padded, beside), kl_divergence(P, Q))
    np.testing.assert_allclose(renyi_correction(padded, beside, correct, 0.5), renyi_correction(P, Q, CORRECT, 0.5))


def test_log_odds_of_fractions():
    third = fractions.Fraction(1, 3)
    policy = np.log([[float(third), float(third), float(third)]])
    assert log_odds(policy, np.array([[True, False, False]])) == pytest.approx(-np.log(2), abs=1e-15)

"""Δ_R ≡ 0: the recursion is what exact policy optimisation does, shown by doing that on finite outcome spaces."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import grpo_dynamics as gd
from tests import exact

NORMALIZATIONS = {
    "whitened": gd.Whitened(1e-5),
    "std": gd.Whitened(1e-4, "std"),
    "mean only": gd.MeanOnly(),
    "group": gd.FiniteGroup(8, 1e-4, ddof=1),
}


def iterate_policies(reference, rewards, beta, alpha, normalization, steps):
    """π_n ∝ π_ref^α π_{n−1}^{1−α} exp(A_{n−1}/β) over all outcomes, in logarithms; success log-odds of every π_n.

    The maximiser of E_π[A] − β[α·KL(π‖π_ref) + (1−α)·KL(π‖π_{n−1})]. Nothing here knows of p except through the policy.
    """
    log_reference = np.log(reference)
    log_policy, path = log_reference, []
    for _ in range(steps + 1):
        right = np.logaddexp.reduce(log_policy[rewards == 1])
        wrong = np.logaddexp.reduce(log_policy[rewards == 0])
        state = right - wrong
        path.append(state)
        advantages = np.where(rewards == 1, normalization.positive(state), -normalization.negative(state))
        log_policy = alpha * log_reference + (1 - alpha) * log_policy + advantages / beta
        log_policy = log_policy - np.logaddexp.reduce(log_policy)
    return np.array(path), log_policy


def objective(log_policy, log_reference, log_previous, advantages, beta, alpha):
    policy = np.exp(log_policy)
    pull = alpha * (log_policy - log_reference) + (1 - alpha) * (log_policy - log_previous)
    return policy @ (advantages - beta * pull)


@settings(max_examples=100)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(2, 12),
    st.sampled_from([0.0, 0.3, 0.8, 1.0]),
    st.sampled_from(sorted(NORMALIZATIONS)),
    st.floats(-1, 1.5).map(lambda x: 10.0**x),
)
def test_success_log_odds_of_exact_policies_follow_the_recursion(seed, outcomes, alpha, name, beta):
    """All six variants of Table 1: {whitened, mean only} × {α = 1, α = 0, between}; and the other normalisations."""
    rng = np.random.default_rng(seed)
    reference = rng.dirichlet(np.full(outcomes, 0.7)) + 1e-9
    reference /= reference.sum()
    rewards = np.zeros(outcomes)
    rewards[rng.choice(outcomes, rng.integers(1, outcomes), replace=False)] = 1
    p_ref = reference[rewards == 1].sum()
    normalization = NORMALIZATIONS[name]
    recursion = gd.Recursion(beta, p_ref, normalization, alpha)
    path, _ = iterate_policies(reference, rewards, beta, alpha, normalization, 12)
    orbit = recursion.iterate(12).log_odds
    # both add up a few roundings of the largest log-probability each step, and both amplify them by the multiplier
    error = 64 * exact.ROUNDING * (30 + abs(path[0]))
    for n in range(13):
        # ... and a p_ref that was summed, so rounded: u/(p_ref(1−p_ref)) in log-odds
        error += 64 * exact.ROUNDING * (30 + abs(path[n]) + 1 / min(p_ref, 1 - p_ref))
        if error > 1e-6 or abs(path[n]) > 600:
            break
        assert orbit[n] == pytest.approx(path[n], abs=error)
        error *= max(1.0, abs(recursion.multiplier(path[n])))


@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("name", sorted(NORMALIZATIONS))
def test_the_tilted_policy_maximises_the_objective(alpha, name):
    """No other policy on the simplex does better: the objective is strictly concave, so neighbours suffice."""
    rng = np.random.default_rng(3)
    reference, previous = rng.dirichlet(np.ones(6)), rng.dirichlet(np.ones(6))
    rewards, beta, normalization = np.array([1, 0, 0, 1, 0, 0]), 0.7, NORMALIZATIONS[name]
    state = gd.logit(previous[rewards == 1].sum())
    advantages = np.where(rewards == 1, normalization.positive(state), -normalization.negative(state))
    best = alpha * np.log(reference) + (1 - alpha) * np.log(previous) + advantages / beta
    best -= np.logaddexp.reduce(best)
    arguments = (np.log(reference), np.log(previous), advantages, beta, alpha)
    value = objective(best, *arguments)
    for _ in range(200):
        other = best + rng.normal(scale=10.0 ** rng.uniform(-4, 0), size=6)
        assert objective(other - np.logaddexp.reduce(other), *arguments) < value


def test_conditionals_stay_those_of_the_reference():
    """Why Δ_R ≡ 0: every policy is the reference tilted by a function of the reward alone."""
    rng = np.random.default_rng(4)
    reference, rewards = rng.dirichlet(np.ones(9)), np.arange(9) % 3 == 0
    _, log_policy = iterate_policies(reference, rewards, 1.5, 0.6, gd.Whitened(), 5)
    for group in (rewards, ~rewards):
        conditional = np.exp(log_policy[group] - np.logaddexp.reduce(log_policy[group]))
        np.testing.assert_allclose(conditional, reference[group] / reference[group].sum(), rtol=1e-12)

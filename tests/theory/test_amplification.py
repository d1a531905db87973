"""Conditions on β: against exact orbits, exact derivatives and the fixed points themselves."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import grpo_dynamics as gd
from grpo_dynamics.logodds import bernoulli_variance
from tests import exact, strategies
from tests.exact import ROUNDING, mp
from tests.strategies import NORMALIZATIONS


@given(strategies.all_eps, st.floats(-30, 30))
def test_stability_bound_is_B_of_the_paper(eps, log_odds):
    """B_ε(p) = p(1−p)|2p−1| / (2[p(1−p)+ε]^{3/2})  [2503.06639v4, Lemma 1]."""
    variance, difference = exact.variance(log_odds), abs(mp.expm1(mp.mpf(log_odds)) / (mp.exp(mp.mpf(log_odds)) + 1))
    expected = variance * difference / (2 * (variance + mp.mpf(eps)) ** mp.mpf(1.5))
    assert abs(mp.mpf(float(gd.stability_bound(log_odds, gd.Whitened(eps)))) - expected) <= 32 * ROUNDING * expected


@given(strategies.positive_eps, st.floats(0.01, 1))
def test_contraction_bound_is_the_maximum_of_B(eps, alpha):
    """max_p B = 1/(3√(3ε)(1+4ε)), at p(1−p) = 2ε/(1+12ε): a dense grid finds nothing larger."""
    expected = 1 / (3 * np.sqrt(3 * eps) * (1 + 4 * eps))
    assert gd.contraction_bound(gd.Whitened(eps)) == pytest.approx(expected, rel=1e-13)
    assert gd.contraction_bound(gd.Whitened(eps), alpha) == pytest.approx(expected / alpha, rel=1e-13)
    grid = np.linspace(0, 2 * np.log(1 / eps) + 10, 4001)
    bounds = gd.stability_bound(grid, gd.Whitened(eps))
    assert bounds.max() <= expected * (1 + 1e-13)
    at = grid[np.argmax(bounds)]
    assert bernoulli_variance(at) == pytest.approx(2 * eps / (1 + 12 * eps), rel=2 * (grid[1] - grid[0]))
    assert gd.contraction_bound(gd.Whitened(0.0)) == np.inf
    assert gd.contraction_bound(gd.Whitened(eps), 0.0) == np.inf


@pytest.mark.parametrize("row", NORMALIZATIONS, ids=lambda row: row.name)
@pytest.mark.parametrize("alpha", [0.3, 1.0])
def test_two_orbits_approach_each_other_above_the_contraction_bound(row, alpha):
    bound = gd.contraction_bound(row.normalization, alpha)
    if not 1e-9 < bound < np.inf:
        return
    states = np.linspace(-40, 40, 801)
    multipliers = gd.Recursion(1.001 * bound, 0.3, row.normalization, alpha).multiplier(states)
    assert np.abs(multipliers).max() < 1


@given(strategies.betas, st.floats(-30, 30), strategies.positive_eps, st.floats(0, 1))
def test_stability_bound_is_where_the_multiplier_leaves_minus_one_to_one(beta, log_odds, eps, alpha):
    bound = gd.stability_bound(log_odds, gd.Whitened(eps), alpha)
    if bound == 0 or not np.isfinite(bound) or abs(beta / bound - 1) < 1e-9:
        return
    multiplier = gd.two_kl(beta, 0.3, alpha, eps).multiplier(log_odds)
    if abs(abs(multiplier) - 1) > 1e-12:  # 1 − α + Ω'/β may round to 1
        assert (abs(multiplier) < 1) == (beta > bound)


@given(
    strategies.betas, strategies.p_refs, strategies.positive_eps, strategies.alphas | st.just(0.0), st.floats(-25, 25)
)
def test_one_step_rises_exactly_below_the_rising_bound(beta, p_ref, eps, alpha, state):
    """p_n > p_{n−1} ⇔ L_{n−1} ≤ L_ref or αβ < Ω/(L_{n−1} − L_ref): against the step in 50 digits."""
    recursion = gd.two_kl(beta, p_ref, alpha, eps)
    bound = gd.rising_bound(recursion, state)
    if bound < np.inf and abs(beta / bound - 1) < 1e-9:
        return
    states = exact.orbit(exact.whitened(eps), beta, p_ref, alpha, state)
    before, after = next(states), next(states)
    assert (after > before) == (beta < bound)


@given(strategies.p_refs, strategies.p_refs, strategies.positive_eps, strategies.alphas)
def test_design_makes_the_target_a_fixed_point(target, p_ref, eps, alpha):
    """β = Ω(p*)/(α(logit p* − L_ref)): put into the recursion, the target stays where it is."""
    found = gd.design(target, p_ref, gd.Whitened(eps), alpha)
    if target <= p_ref:
        assert np.isnan(found.beta)
        assert found.status == gd.DesignStatus.NOT_ABOVE_REFERENCE
        return
    recursion, state = gd.two_kl(float(found.beta), p_ref, alpha, eps), gd.logit(target)
    size = abs(state) + abs(gd.logit(p_ref))
    assert abs(recursion.step(state) - state) <= 16 * ROUNDING * size
    assert found.multiplier == pytest.approx(recursion.multiplier(state), rel=1e-12, abs=1e-12)
    assert found.stable == (abs(found.multiplier) < 1)
    assert found.status == (gd.DesignStatus.OK if found.stable else gd.DesignStatus.UNSTABLE)
    if 1e-3 < found.beta < 1e3 and abs(1 - (found.multiplier - (1 - alpha)) / alpha) > 1e-3:
        roots = gd.fixed_points(recursion).log_odds
        assert np.nanmin(np.abs(roots - state)) <= 1e-9 * size


def test_design_statuses():
    np.testing.assert_array_equal(
        gd.design([0.4, 0.1, 0.2, 0.9999], 0.2, alpha=[1.0, 1.0, 1.0, 0.0]).status,
        [
            gd.DesignStatus.OK,
            gd.DesignStatus.NOT_ABOVE_REFERENCE,
            gd.DesignStatus.NOT_ABOVE_REFERENCE,
            gd.DesignStatus.MIRROR,
        ],
    )
    assert gd.design(0.999, 0.2).status == gd.DesignStatus.UNSTABLE
    assert np.isnan(gd.design(0.5, 0.2, alpha=0.0).beta)


def test_the_condition_of_the_first_versions_fails_only_above_0_9564():
    """Minimise the left side over β: it can fail only for p_ref > 0.9563 (ε → 0)."""
    p_ref = np.linspace(0.5, 0.99999, 4000)
    beta = np.geomspace(1e-3, 1e3, 4000)[:, None]
    fails = ~gd.amplifies_v1(beta, p_ref, 1e-9)
    assert p_ref[fails.any(axis=0)].min() == pytest.approx(0.9564, abs=2e-4)


@given(strategies.powers_of_ten(-2, 3), st.floats(0.5, 0.999999), strategies.positive_eps)
def test_the_condition_of_the_first_versions_is_the_printed_one(beta, p_ref, eps):
    b, p, e = mp.mpf(beta), mp.mpf(p_ref), mp.mpf(eps)
    left = b * mp.cosh(1 / (2 * b * mp.sqrt(mp.mpf(1) / 4 + e))) ** 2
    right = p * (1 - p) * (2 * p - 1) / (2 * (p * (1 - p) + e) ** mp.mpf(1.5))
    if abs(left - right) > 1e-9 * left:
        assert gd.amplifies_v1(beta, p_ref, eps) == (left >= right)


@pytest.mark.parametrize("p_ref", [1e-9, 1e-5, 1e-3, 0.01, 0.2, 0.5, 0.8, 0.95, 0.999])
@pytest.mark.parametrize("alpha", [0.3, 1.0])
@pytest.mark.parametrize(
    "normalization",
    [gd.Whitened(), gd.Whitened(1e-2), gd.Whitened(1e-4, "std"), gd.Whitened(0.0), gd.FiniteGroup(8), gd.MeanOnly()],
    ids=repr,
)
def test_stable_betas_are_where_the_lowest_fixed_point_is_stable(p_ref, alpha, normalization):
    """On the branch that starts at p_ref for β = ∞: the lowest fixed point, until its fold."""
    intervals = gd.stable_betas(p_ref, normalization, alpha)
    assert intervals[0][1] == np.inf
    ends = [end for interval in intervals for end in interval[::-1]]
    assert ends == sorted(ends, reverse=True)
    beta = np.geomspace(1e-2, 1e3, 3000)
    found = gd.fixed_points(gd.Recursion(beta, p_ref, normalization, alpha))
    inside = np.zeros(beta.size, bool)
    for low, high in intervals:
        inside |= (beta > low) & (beta < high)
    near = np.any([np.abs(beta / end - 1) < 1e-3 for end in ends if 0 < end < np.inf], axis=0)
    last_fold = intervals[-1][0]
    branch = beta > last_fold  # below the fold the lowest fixed point belongs to the branch near p = 1
    clear = branch & ~near & (np.abs(np.abs(found.multiplier[0]) - 1) > 1e-6)
    np.testing.assert_array_equal(found.stable[0][clear], inside[clear])


def test_stable_betas_at_the_ends():
    assert gd.stable_betas(0.2, alpha=0.0) == []
    with pytest.raises(ValueError, match="single numbers"):
        gd.stable_betas(np.array([0.1, 0.2]))

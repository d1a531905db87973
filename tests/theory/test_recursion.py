"""Recursions: each orbit against 60 digits, closed forms, monotonicity, huge log-odds."""

import itertools
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import grpo_dynamics as gd
from grpo_dynamics.logodds import complement
from tests import exact, strategies
from tests.exact import ROUNDING, mp


@given(
    strategies.betas,
    strategies.p_refs,
    strategies.all_eps,
    strategies.placements,
    strategies.alphas | st.just(0.0),
    st.floats(-20, 20),
)
def test_orbits_against_60_digits(beta, p_ref, eps, placement, alpha, start):
    """1e-12 relative in log-odds where the orbit does not amplify its own roundings.

    A step adds u·(α|L_ref| + (1−α)|L| + Ω/β)·4 or so to the error and multiplies what is there by the multiplier: the
    exact orbit knows both, and so the bound. Orbits whose bound is below 1e-12 are the non-chaotic ones.
    """
    recursion = gd.Recursion(beta, p_ref, gd.Whitened(eps, placement), alpha)
    gap = exact.whitened(eps, placement)
    values = recursion.iterate(30, log_odds0=start).log_odds
    anchor, error, state = abs(exact.logit(p_ref)), mp.zero, mp.mpf(start)
    references = exact.orbit(gap, beta, p_ref, alpha, start)
    next(references)
    for value in values[1:]:
        if abs(state) > 1400:  # without smoothing Ω leaves the floats here
            break
        growth = abs((1 - mp.mpf(alpha)) + exact.slope(gap, state) / mp.mpf(beta))
        terms = alpha * anchor + (1 - mp.mpf(alpha)) * abs(state) + gap(state) / mp.mpf(beta)
        error = growth * error + 8 * ROUNDING * terms
        if error > 1e-6:
            break
        state = next(references)
        assert abs(mp.mpf(float(value)) - state) <= 2 * error


@pytest.mark.parametrize("beta", [0.01, 0.2, 0.4, 0.8, 1.0, 5.0])
@pytest.mark.parametrize("p_ref", [1e-4, 0.2, 0.5, 0.8])
def test_orbits_of_figure_5_to_1e_12(beta, p_ref):
    """p_0 = 0.1, ε = 1e-5, 50 steps: every orbit but the chaotic one to 1e-12 in log-odds at every step."""
    recursion = gd.grpo(beta, p_ref)
    values = recursion.iterate(50, p0=0.1).log_odds
    references = exact.orbit(exact.whitened(1e-5), beta, p_ref, 1.0, exact.logit(0.1))
    # the chaotic orbit doubles its error every second step (exponent ≈ 0.35): 1e-12 for 15 steps only
    steps = 15 if (beta, p_ref) == (5.0, 1e-4) else 51
    for value, reference in zip(values[:steps], references, strict=False):
        # relative to the largest term of the sum that makes L: near p = 1/2 log-odds pass through 0
        scale = max(abs(reference), mp.mpf(1))
        assert abs(float(value) - reference) <= 1e-12 * scale


def test_the_chaotic_orbit_of_figure_5():
    """β = 5, p_ref = 1e-4, p_0 = 0.1: p_50 = .0441873669… (60 digits); float64 still has the printed .0442."""
    eps, p_ref, p_0 = (mp.mpf(decimal) for decimal in ("1e-5", "1e-4", "0.1"))  # not their neighbours in float64
    *_, reference = itertools.islice(exact.orbit(exact.whitened(eps), 5, p_ref, 1, exact.logit(p_0)), 51)
    assert mp.nstr(exact.sigmoid(reference), 9) == "0.0441873669"
    value = gd.grpo(5.0, 1e-4).iterate(50, p0=0.1).p[-1]
    assert f"{value:.4f}" == "0.0442"
    assert value == pytest.approx(0.0441873669, abs=1e-7)  # 50 steps amplify 1e-16 by e^(0.35·50) ≈ 4e7


@given(strategies.betas, strategies.p_refs)
def test_dr_grpo_arrives_in_one_step(beta, p_ref):
    """L_n = L_ref + 1/β for n ≥ 1."""
    values = gd.dr_grpo(beta, p_ref).iterate(3, p0=0.1).log_odds
    expected = exact.logit(p_ref) + 1 / mp.mpf(beta)
    size = abs(exact.logit(p_ref)) + 1 / mp.mpf(beta)
    for value in values[1:]:
        assert abs(float(value) - expected) <= 8 * ROUNDING * size


@given(strategies.betas, strategies.p_refs, st.integers(1, 60))
def test_mirror_dr_grpo_walks_at_constant_speed(beta, p_ref, n):
    """L_n = L_ref + n/β from π_0 = π_ref."""
    value = gd.mirror_dr_grpo(beta, p_ref).iterate(n).log_odds[-1]
    expected = exact.logit(p_ref) + n / mp.mpf(beta)
    assert abs(float(value) - expected) <= (4 + n) * ROUNDING * (abs(exact.logit(p_ref)) + n / mp.mpf(beta))


@given(strategies.betas, strategies.p_refs, st.floats(0.01, 1), st.integers(1, 60))
def test_two_kl_dr_grpo_is_a_geometric_sum(beta, p_ref, alpha, n):
    """L_n = L_ref + (1−(1−α)^n)/(αβ)."""
    value = gd.two_kl_dr_grpo(beta, p_ref, alpha).iterate(n).log_odds[-1]
    a, b = mp.mpf(alpha), mp.mpf(beta)
    expected = exact.logit(p_ref) + (1 - (1 - a) ** n) / (a * b)
    assert abs(float(value) - expected) <= (8 + 4 * n) * ROUNDING * (abs(exact.logit(p_ref)) + n / b)


@given(strategies.betas, strategies.p_refs, strategies.all_eps, strategies.placements)
def test_mirror_grpo_increases_strictly(beta, p_ref, eps, placement):
    """L_n − L_{n−1} = Ω/β > 0: never less than Ω(½)/β."""
    recursion = gd.Recursion(beta, p_ref, gd.Whitened(eps, placement), 0.0)
    values = recursion.iterate(40).log_odds
    least = gd.Whitened(eps, placement).gap(0.0) / beta
    for a, b in itertools.pairwise(values):
        if abs(a) > 1300:
            break
        assert b - a >= least * (1 - 1e-12) - 4 * ROUNDING * (abs(a) + abs(b))
        assert b > a


def test_mirror_grpo_approaches_its_flow():
    """ε = 0, β → ∞, t = n/β: arcsin√p grows at rate 1/2 and reaches p = 1 in finite time."""
    p0 = 0.1
    for beta, tolerance in ((1e3, 1e-3), (1e4, 1e-4)):
        orbit = gd.mirror_grpo(beta, p0, eps=0.0).iterate(int(beta))
        time = np.arange(int(beta) + 1) / beta
        np.testing.assert_allclose(np.arcsin(np.sqrt(orbit.p)), np.arcsin(np.sqrt(p0)) + time / 2, atol=tolerance)


@given(strategies.betas, strategies.p_refs, strategies.all_eps, st.floats(-1300, 1300))
def test_every_value_of_h_exceeds_p_ref(beta, p_ref, eps, state):
    """h(p) = σ(L_ref + Ω/β) > p_ref."""
    assert gd.grpo(beta, p_ref, eps).step(state) >= gd.logit(p_ref)
    if gd.Whitened(eps).gap(state) / beta > 1e-14:
        assert gd.grpo(beta, p_ref, eps).step(state) > gd.logit(p_ref)


@given(strategies.betas, strategies.p_refs, strategies.all_eps, st.floats(0, 1200), st.floats(0, 100))
def test_h_falls_below_one_half_and_rises_above(beta, p_ref, eps, a, distance):
    recursion = gd.grpo(beta, p_ref, eps)
    slack = 8 * ROUNDING * (abs(gd.logit(p_ref)) + recursion.normalization.gap(a + distance) / beta)
    assert recursion.step(a + distance) >= recursion.step(a) - slack
    assert recursion.step(-a - distance) >= recursion.step(-a) - slack


@given(strategies.betas, strategies.p_refs, strategies.positive_eps, st.floats(-25, 25))
def test_multiplier_is_the_papers_slope(beta, p_ref, eps, state):
    """sgn(2p−1)·B(p)/β with B = p(1−p)|2p−1|/(2[p(1−p)+ε]^{3/2})."""
    variance, difference = exact.variance(state), mp.expm1(mp.mpf(state)) / (mp.exp(mp.mpf(state)) + 1)  # p(1−p), 2p−1
    expected = variance * difference / (2 * (variance + mp.mpf(eps)) ** mp.mpf(1.5)) / mp.mpf(beta)
    value = gd.grpo(beta, p_ref, eps).multiplier(state)
    assert abs(mp.mpf(float(value)) - expected) <= 32 * ROUNDING * abs(expected)


@pytest.mark.parametrize("state", [-1e6, -1500.0, 1500.0, 1e6])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(
    "normalization",
    [gd.Whitened(), gd.Whitened(1e-5, "std"), gd.MeanOnly(), gd.FiniteGroup(8), gd.FiniteGroup(8, 1e-4, ddof=1)],
)
def test_log_odds_of_a_million_without_overflow_nan_or_warning(normalization, alpha, state):
    with warnings.catch_warnings(), np.errstate(all="raise"):
        warnings.simplefilter("error")
        recursion = gd.Recursion(0.5, 0.3, normalization, alpha)
        orbit = recursion.iterate(20, log_odds0=state)
        probabilities = orbit.p, orbit.one_minus_p
        multipliers = recursion.multiplier(orbit.log_odds)
    assert np.isfinite(orbit.log_odds).all()
    assert np.isfinite(multipliers).all()
    assert all(((p >= 0) & (p <= 1)).all() for p in probabilities)


def test_huge_steps_reach_log_odds_of_a_million_exactly():
    """β = 1e-6 with Dr. GRPO: L_1 = L_ref + 1e6."""
    assert gd.dr_grpo(1e-6, 0.5).iterate(5).log_odds[-1] == 1e6


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("eps", [0.0, 1e-5])
def test_infinite_log_odds_are_p_0_and_p_1(alpha, eps):
    with warnings.catch_warnings(), np.errstate(all="raise"):
        warnings.simplefilter("error")
        values = gd.two_kl(1.0, 0.3, alpha, eps).step(np.array([-np.inf, np.inf]))
    assert not np.isnan(values[1])
    if alpha == 1 and eps > 0:
        # where every reward is the same, the advantage gap is ε^(−1/2)
        np.testing.assert_allclose(values, gd.logit(0.3) + 1e5**0.5, rtol=1e-14)


def test_shapes_of_an_orbit():
    recursion = gd.grpo(np.ones((3, 1)), np.full((1, 4), 0.2))
    orbit = recursion.iterate(7, p0=np.full((2, 1, 1), 0.1))
    assert orbit.log_odds.shape == orbit.p.shape == orbit.one_minus_p.shape == (8, 2, 3, 4)
    np.testing.assert_array_equal(orbit.p[0], np.full((2, 3, 4), gd.sigmoid(gd.logit(0.1))))
    assert recursion.iterate(0).log_odds.shape == (1, 3, 4)
    assert gd.grpo(1.0, 0.2).iterate(7).log_odds.shape == (8,)
    assert gd.grpo(np.empty(0), 0.2).iterate(7).log_odds.shape == (8, 0)
    single = gd.grpo(np.float32(1) * np.ones(2, np.float32), np.full(2, 0.2, np.float32)).iterate(3)
    assert single.log_odds.dtype == np.float32


def test_an_orbit_starts_at_p_ref_unless_told_otherwise():
    assert gd.grpo(1.0, 0.2).iterate(0).log_odds[0] == gd.logit(0.2)
    assert gd.grpo(1.0, 0.2).iterate(0, log_odds0=3.0).log_odds[0] == 3.0
    np.testing.assert_array_equal(
        gd.grpo(1.0, 0.2).iterate(5, p0=0.3).log_odds, gd.grpo(1.0, 0.2).iterate(5, log_odds0=gd.logit(0.3)).log_odds
    )


def test_one_minus_p_does_not_saturate():
    orbit = gd.grpo(0.5, 0.2).iterate(10)
    assert (orbit.p[1:] <= 1).all()
    np.testing.assert_allclose(orbit.one_minus_p, complement(orbit.log_odds))
    assert (orbit.one_minus_p > 0).all()

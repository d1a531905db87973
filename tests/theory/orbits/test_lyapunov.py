"""Lyapunov exponents against closed forms, 60-digit orbits and fixed points."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq

import grpo_dynamics as gd
from grpo_dynamics.theory.orbits.cycles import cycles
from grpo_dynamics.theory.orbits.lyapunov import lyapunov
from tests import exact, strategies

GOLDEN = 0.35335
"""β = 5, p_ref = 1e-4, ε = 1e-5: the mean over 2,000 orbits of 512,000 steps each is 0.353346 ± 0.000013."""


def test_the_exponent_of_beta_5():
    """400 orbits from all over the basin, 20,000 steps each: within four standard errors of the golden number."""
    found = lyapunov(gd.grpo(5.0, 1e-4), p0=np.linspace(0.001, 0.99, 400), steps=64 * 312)
    assert np.all(found.kind == gd.LimitKind.IRREGULAR)
    assert np.all(found.period == 0)
    error = np.sqrt((found.standard_error**2).sum()) / 400
    assert error < 2e-4
    assert abs(found.exponent.mean() - GOLDEN) < 4 * error + 2e-5
    # the standard errors are honest: they predict the scatter between orbits
    assert np.std(found.exponent) == pytest.approx(np.sqrt((found.standard_error**2).mean()), rel=0.15)


def test_an_orbit_of_60_digits_has_the_same_exponent():
    """Rounding changes a chaotic orbit at once, but not its exponent: 3,000 steps carried out with 60 digits."""
    gap = exact.whitened(1e-5)
    orbit = exact.orbit(gap, 5.0, 1e-4, 1.0, exact.logit(0.1))
    states = np.array([float(next(orbit)) for _ in range(3000)])
    logs = np.log(np.abs(gd.grpo(5.0, 1e-4).multiplier(states[200:])))
    error = np.std(logs.reshape(-1, 100).mean(axis=1)) / math.sqrt(28)
    assert error < 0.02
    assert abs(logs.mean() - GOLDEN) < 4 * error


def test_a_cycle_has_that_of_its_multiplier():
    for recursion, period in ((gd.grpo(5.0, 1e-3), 2), (gd.grpo(10.0, 1e-5), 3), (gd.grpo(5.0, 1.8e-4), 4)):
        found = lyapunov(recursion, p0=0.5)
        listed = cycles(recursion, period)
        multiplier = listed.multiplier[listed.stable & (listed.period == period)]
        assert multiplier.shape == (1,)
        assert (found.kind, found.period) == (gd.LimitKind.CYCLE, period)
        assert found.exponent == pytest.approx(math.log(abs(multiplier[0])) / period, abs=1e-9)
        assert found.standard_error == 0


def test_superstable_is_minus_infinity():
    """Dr. GRPO arrives in one step: the multiplier is 0."""
    assert lyapunov(gd.dr_grpo(1.0, 0.2)).exponent == -np.inf
    half = gd.grpo(2.0, gd.sigmoid(-gd.Whitened(1e-5).gap(0.0) / 2.0))  # its fixed point is p = 1/2
    assert lyapunov(half).exponent < -30


def test_orbits_that_go_to_one():
    """1 − p shrinks by exp(−Ω(∞)/β) with each mirror step, faster than any power without smoothing."""
    found = lyapunov(gd.mirror_grpo(2.0, [0.2, 0.9], eps=0.25))
    np.testing.assert_allclose(found.exponent, -1.0)  # Ω(∞) = 2
    orbit = gd.mirror_grpo(2.0, 0.2, eps=0.25).iterate(300)
    assert math.log(orbit.one_minus_p[-1] / orbit.one_minus_p[-101]) / 100 == pytest.approx(-1.0, abs=1e-6)
    assert lyapunov(gd.mirror_dr_grpo(4.0, 0.2)).exponent == -0.25
    for recursion in (gd.grpo(0.5, 0.9, eps=0.0), gd.mirror_grpo(1.0, 0.2, eps=0.0), gd.two_kl(0.1, 0.5, 0.5, 0.0)):
        found = lyapunov(recursion)
        assert (found.kind, found.exponent) == (gd.LimitKind.ONE, -np.inf)


def test_it_is_the_exponent_of_the_attractor_reached():
    """Two attractors at β = 5, p_ref = 1e-4: chaos from 0.1, the fixed point near 1 from p_ref."""
    found = lyapunov(gd.grpo(5.0, 1e-4), p0=[0.1, 1e-4])
    assert found.kind.tolist() == [gd.LimitKind.IRREGULAR, gd.LimitKind.FIXED_POINT]
    upper = gd.fixed_points(gd.grpo(5.0, 1e-4)).multiplier[2]
    assert found.exponent[1] == pytest.approx(math.log(upper))
    assert found.exponent[0] == pytest.approx(GOLDEN, abs=5 * float(found.standard_error[0]))


def test_transient_chaos_is_no_attractor():
    """Just behind the crisis orbits wander for thousands of steps, and then go to the fixed point near 1."""

    def beyond(p_ref: float) -> float:  # h(0), the lowest image, lies beyond −u
        recursion = gd.grpo(5.0, p_ref)
        return float(-gd.fixed_points(recursion).log_odds[1] - recursion.step(0.0))

    recursion = gd.grpo(5.0, brentq(beyond, 5e-5, 1e-4) * (1 - 1e-4))
    starts = np.linspace(0.01, 0.9, 50)
    found = lyapunov(recursion, p0=starts, transient=100, steps=40_000)
    assert np.count_nonzero(gd.limit(recursion, starts, max_steps=100).kind > gd.LimitKind.ONE) > 10
    assert np.all(found.kind == gd.LimitKind.FIXED_POINT)
    assert np.ptp(found.exponent) == 0


@settings(max_examples=40)
@given(
    strategies.powers_of_ten(-1, 1.3),
    strategies.powers_of_ten(-6, -0.01),
    st.just(1.0) | st.floats(0.0, 1.0),
    st.sampled_from(strategies.NORMALIZATIONS),
    st.floats(0.001, 0.999),
)
def test_signs(beta, p_ref, alpha, row, p0):
    """Negative on what attracts; NaN nowhere; nothing regular has an error."""
    recursion = gd.Recursion(beta, p_ref, row.normalization, alpha)
    found = lyapunov(recursion, p0=p0, steps=640, transient=640)
    assert not np.isnan(found.exponent)
    if found.kind in (gd.LimitKind.FIXED_POINT, gd.LimitKind.CYCLE, gd.LimitKind.ONE):
        assert found.exponent <= 1e-6
        assert found.standard_error == 0
    if found.kind == gd.LimitKind.FIXED_POINT:
        points = gd.fixed_points(recursion)
        at = np.nanargmin(np.abs(points.log_odds - gd.limit(recursion, p0, 640).log_odds))
        with np.errstate(divide="ignore"):
            assert found.exponent == pytest.approx(np.log(np.abs(points.multiplier[at])), rel=1e-6, abs=1e-9)


def test_torch_and_numpy_agree():
    torch = pytest.importorskip("torch")
    p_ref = np.geomspace(1e-2, 1e-4, 5)
    found = lyapunov(gd.grpo(5.0, torch.asarray(p_ref)), p0=0.3, steps=640)
    plain = lyapunov(gd.grpo(5.0, p_ref), p0=0.3, steps=640)
    regular = plain.period > 0
    np.testing.assert_allclose(found.exponent.numpy()[regular], plain.exponent[regular], rtol=1e-9)
    np.testing.assert_allclose(found.exponent.numpy(), plain.exponent, atol=0.1)


def test_wrong_arguments():
    recursion = gd.grpo(1.0, 0.2)
    for arguments, words in (
        ({"steps": 63}, "steps must be an integer >= 64"),
        ({"transient": 0}, "transient must be an integer >= 1"),
        ({"p0": 1.0}, "p0 must be"),
        ({"p0": 0.5, "log_odds0": 0.0}, "not both"),
    ):
        with pytest.raises(ValueError, match=words):
            lyapunov(recursion, **arguments)

"""Attractors: known cycles, what is proved of two attractors, and shapes. Against plain iteration: test_regimes."""

import dataclasses

import numpy as np
import pytest
import sympy as sp
from hypothesis import given, settings

import grpo_dynamics as gd
from grpo_dynamics.theory.bifurcation import flip_points
from grpo_dynamics.theory.flow import Flow
from grpo_dynamics.theory.orbits.attractors import Attractors, attractors
from tests import exact, strategies

FIXED, CYCLE, ONE, IRREGULAR = (
    int(kind) for kind in (gd.LimitKind.FIXED_POINT, gd.LimitKind.CYCLE, gd.LimitKind.ONE, gd.LimitKind.IRREGULAR)
)


def test_the_2_cycle_of_beta_5():
    """{0.0023380, 0.0587158} beside the upper fixed point; its exponent is half the log of its multiplier."""
    found = attractors(gd.grpo(5.0, 1e-3))
    assert (list(found.kind), list(found.period), int(found.count)) == ([CYCLE, FIXED], [2, 1], 2)
    np.testing.assert_allclose(gd.sigmoid([found.low[0], found.high[0]]), [0.0023380, 0.0587158], atol=5e-8)
    slopes = [exact.slope(exact.whitened(1e-5), x) / 5 for x in (found.low[0], found.high[0])]
    assert found.lyapunov[0] == pytest.approx(float(np.log(abs(float(slopes[0] * slopes[1]))) / 2), rel=1e-6)


def test_the_3_cycle_of_beta_10():
    found = attractors(gd.grpo(10.0, 1e-5))
    assert (list(found.kind), list(found.period)) == ([CYCLE, FIXED], [3, 1])
    orbit = exact.orbit(exact.whitened(1e-5), 10.0, 1e-5, 1.0, float(found.low[0]))
    states = [float(next(orbit)) for _ in range(4)]
    assert states[3] == pytest.approx(states[0], abs=1e-9)
    assert (min(states), max(states)) == pytest.approx((found.low[0], found.high[0]), abs=1e-9)


def test_chaos_beside_a_stable_state():
    """β = 5, p_ref = 1e-4: exponent ≈ 0.35, though the orbit from p_ref itself goes to the upper fixed point."""
    system = gd.grpo(5.0, 1e-4)
    found = attractors(system)
    assert (list(found.kind), list(found.period)) == ([IRREGULAR, FIXED], [0, 1])
    assert found.lyapunov[0] == pytest.approx(0.35, abs=0.03)
    orbit = system.iterate(30_000, p0=0.1).log_odds[1000:]
    assert found.low[0] == pytest.approx(orbit.min(), abs=0.01)
    assert found.high[0] == pytest.approx(orbit.max(), abs=0.01)


def test_the_ends_of_the_irregular_attractor_are_images_of_one_half():
    """On the core interval [h(½), h(h(½))] the smallest and largest values are those of the critical orbit."""
    found = attractors(gd.grpo(5.0, 1e-4))
    orbit = gd.grpo(5.0, 1e-4).iterate(2, p0=0.5).log_odds
    assert orbit[1] <= found.low[0] <= orbit[1] + 0.01
    assert orbit[2] - 0.01 <= found.high[0] <= orbit[2]


def test_eps_beside_the_std_has_a_negative_schwarzian_derivative():
    """Ω = 1/(½ sech y + ε) is a Möbius function of cosh y, so S(Ω) = S(cosh) = 1 − (3/2)coth² y < 0."""
    y, eps = sp.Symbol("y", positive=True), sp.Symbol("epsilon", nonnegative=True)

    def schwarzian(f):
        first, second, third = (sp.diff(f, y, k) for k in (1, 2, 3))
        return third / first - sp.Rational(3, 2) * (second / first) ** 2

    gap = 1 / (sp.sech(y).rewrite(sp.cosh) / 2 + eps)
    expected = 1 - sp.Rational(3, 2) * sp.cosh(y) ** 2 / sp.sinh(y) ** 2
    difference = sp.simplify((schwarzian(gap) - expected).rewrite(sp.exp))
    assert difference == 0
    shown = gd.Whitened(0.01, "std").gap(2 * 0.7)
    assert float(gap.subs({y: sp.Rational(7, 10), eps: sp.Rational(1, 100)})) == pytest.approx(shown, rel=1e-12)


@pytest.mark.parametrize("placement", ["variance", "std"])
def test_every_critical_orbit_ends_at_an_attractor(placement):
    """Also that of p = 1, which the search never follows: its image is the highest value that orbits come from."""
    rng, size = np.random.default_rng(5), 2000
    beta, p_ref, eps = (
        10 ** rng.uniform(0, 2, size),
        np.exp(rng.uniform(-18, -2, size)),
        10 ** rng.uniform(-12, -2, size),
    )
    system = gd.Recursion(beta, p_ref, gd.Whitened(eps, placement))
    found = attractors(system)
    told = ~np.any((found.kind == gd.LimitKind.UNDECIDED) & ~np.isnan(found.low), axis=0)
    assert told.mean() > 0.99
    for start in (np.zeros(size), system.step(np.inf)):
        late = system.iterate(4000, log_odds0=start).log_odds[-1]
        tail = system.iterate(200, log_odds0=late).log_odds[:, None, :]
        low, high = found.low - 1e-2 * (1 + np.abs(found.low)), found.high + 1e-2 * (1 + np.abs(found.high))
        assert np.all(np.any(np.all((tail >= low) & (tail <= high), axis=0), axis=0)[told])


@settings(max_examples=80)
@given(strategies.betas, strategies.p_refs, strategies.all_eps, strategies.alphas)
def test_stable_fixed_points_are_attractors_and_cycles_are_cycles(beta, p_ref, eps, alpha):
    system = gd.two_kl(beta, p_ref, alpha, eps)
    points, found = gd.fixed_points(system), attractors(system)
    number = int(found.count)
    stable = points.log_odds[points.stable]
    np.testing.assert_array_equal(found.log_odds[:number][found.kind[:number] == FIXED], stable)
    assert (ONE in found.kind) == (eps == 0)
    for i in np.nonzero(found.kind == CYCLE)[0]:
        period = int(found.period[i])
        orbit = system.iterate(period, log_odds0=float(found.low[i])).log_odds
        assert orbit[-1] == pytest.approx(orbit[0], abs=1e-6 * (1 + abs(orbit[0])))
        assert orbit.max() == pytest.approx(found.high[i], abs=1e-6 * (1 + abs(found.high[i])))
        assert all(abs(orbit[k] - orbit[0]) > 1e-9 for k in range(1, period))
        slopes = np.log(np.abs(system.multiplier(orbit[:-1])))
        assert slopes.mean() == pytest.approx(found.lyapunov[i], abs=1e-4)
        assert found.lyapunov[i] < 0


def test_slots_are_ascending_and_padded():
    beta, p_ref = np.array([[0.5], [1.0], [5.0]]), np.array([1e-4, 1e-3, 0.2, 0.9])
    for system in (gd.grpo(beta, p_ref), gd.grpo(beta, p_ref, eps=0.0), gd.two_kl(beta, p_ref, 0.7)):
        found = attractors(system)
        present = np.arange(found.kind.shape[0])[:, None, None] < found.count
        for field in dataclasses.fields(Attractors):
            assert getattr(found, field.name).shape[-2:] == (3, 4)
        np.testing.assert_array_equal(~np.isnan(found.low), present)
        np.testing.assert_array_equal(found.kind > 0, present)
        np.testing.assert_array_equal(found.period[~present], 0)
        low = np.where(present, np.minimum(found.low, 1e300), np.inf)
        assert np.all(low[1:] >= low[:-1])
        assert np.all(np.where(present, found.low <= found.high, True))
    for empty in (gd.grpo(np.empty((0, 2)), 0.2), gd.grpo(1.0, np.empty((0, 2))), Flow(1.0, np.empty((0, 2)))):
        found = attractors(empty)
        assert (found.kind.shape, found.count.shape) == ((2, 0, 2), (0, 2))


def test_an_irregular_attractor_interleaved_with_a_cycle():
    """Two KL terms and a group: neither critical orbit goes to where the other does, though their ranges overlap."""
    group = gd.FiniteGroup(12, 0.01)
    recursion = gd.Recursion(0.08760474158554304, 2.913443322708344e-16, group, 0.8921023936107934)
    found = attractors(recursion)
    assert list(found.kind) == [gd.LimitKind.IRREGULAR, gd.LimitKind.CYCLE]
    assert (list(found.period), int(found.count)) == ([0, 16], 2)
    assert found.high[0] > found.low[1]
    assert gd.regime(recursion).label == gd.Regime.CHAOTIC
    # 30,000 plain steps later the irregular orbit has not come near the highest point of the cycle, which it would meet
    orbit = recursion.iterate(30_000, log_odds0=found.low[0]).log_odds
    assert found.high[1] - orbit.max() > 0.1


def test_p_equal_one():
    """Without smoothing it attracts faster than exponentially; with a mirror anchor at the rate Ω(∞)/β = 1/(β√ε)."""
    found = attractors(gd.grpo(1.0, 0.2, eps=0.0))
    assert (list(found.kind), list(found.period)) == ([FIXED, ONE], [1, 1])
    assert (found.p[1], found.lyapunov[1]) == (1.0, -np.inf)
    mirror = attractors(gd.mirror_grpo(2.0, 0.2, eps=1e-4))
    assert (int(mirror.count), int(mirror.kind[0])) == (1, ONE)
    assert mirror.lyapunov[0] == pytest.approx(-50.0)
    orbit = gd.mirror_grpo(2.0, 0.2, eps=1e-4).iterate(60).log_odds
    assert orbit[60] - orbit[59] == pytest.approx(50.0)


def test_a_flow_has_points_only():
    """Beyond the flip of the map the flow still settles: multiplier < 1 is enough."""
    flow, step = Flow(5.0, 1e-3), gd.grpo(5.0, 1e-3)
    found = attractors(flow)
    low = gd.fixed_points(step).log_odds[0]
    assert (list(found.kind), list(found.period)) == ([FIXED, FIXED], [1, 1])
    assert found.log_odds[0] == pytest.approx(low, rel=1e-12)
    assert found.lyapunov[0] == pytest.approx(step.multiplier(low) - 1, rel=1e-9)
    assert list(attractors(Flow(5.0, 1e-3, kl="k1")).kind) == [ONE, 0]
    assert list(attractors(Flow(1.0, 0.2, gd.Whitened(0.0))).kind) == [FIXED, ONE]
    assert list(attractors(Flow(1.0, 0.2, kl="k3")).kind) == [FIXED, 0]


def test_across_a_flip_the_fixed_point_hands_over_to_a_narrow_cycle():
    """Relative distance 1e-8 on either side: no transient of 1e8 steps is needed to tell."""
    reference = flip_points(5.0).log_odds_ref[0]
    found = attractors(gd.grpo(5.0, gd.sigmoid(reference * np.array([1 - 1e-8, 1 + 1e-8]))))
    np.testing.assert_array_equal(found.period[0], [1, 2])
    # supercritical: the width of the cycle is of the order of the root of the distance
    width = found.high[0, 1] - found.low[0, 1]
    assert 1e-5 < width < 1e-2


def test_only_dynamics():
    with pytest.raises(ValueError, match="dynamics must be a Recursion"):
        attractors(gd.Whitened())

"""Where orbits go, against known cycles and exponents and against plain iteration."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import grpo_dynamics as gd
from tests import exact, strategies


def test_the_2_cycle_of_beta_5():
    """β = 5, p_ref = 1e-3: {0.0023380, 0.0587158}."""
    found = gd.limit(gd.grpo(5.0, 1e-3))
    assert (found.kind, found.period) == (gd.LimitKind.CYCLE, 2)
    np.testing.assert_allclose(gd.sigmoid([found.low, found.high]), [0.0023380, 0.0587158], atol=5e-8)


def test_the_3_cycle_of_beta_10():
    """β = 10, p_ref = 1e-5: period three, so (Li and Yorke) the map is chaotic."""
    found = gd.limit(gd.grpo(10.0, 1e-5))
    assert (found.kind, found.period) == (gd.LimitKind.CYCLE, 3)
    orbit = exact.orbit(exact.whitened(1e-5), 10.0, 1e-5, 1.0, float(found.log_odds))
    states = [float(next(orbit)) for _ in range(4)]
    assert states[3] == pytest.approx(states[0], abs=1e-8)
    assert min(states) == pytest.approx(found.low, abs=1e-8)
    assert max(states) == pytest.approx(found.high, abs=1e-8)


def test_the_chaotic_orbit():
    """β = 5, p_ref = 1e-4 from 0.1: exponent ≈ 0.35, so no cycle of any period."""
    found = gd.limit(gd.grpo(5.0, 1e-4), p0=0.1)
    assert (found.kind, found.period) == (gd.LimitKind.IRREGULAR, 0)
    assert found.steps == 20_000
    orbit = gd.grpo(5.0, 1e-4).iterate(20_000, p0=0.1).log_odds
    assert np.log(np.abs(gd.grpo(5.0, 1e-4).multiplier(orbit))).mean() == pytest.approx(0.35, abs=0.02)
    assert found.low >= orbit.min()
    assert found.high <= orbit.max()


def test_the_panels_of_figure_5():
    beta, p_ref = np.array([[0.01], [0.2], [0.4], [0.8], [1.0], [5.0]]), np.array([1e-4, 0.2, 0.5, 0.8])
    found = gd.limit(gd.grpo(beta, p_ref), p0=0.1)
    assert found.kind.shape == (6, 4)
    kinds = np.full((6, 4), gd.LimitKind.FIXED_POINT)
    kinds[5, 0] = gd.LimitKind.IRREGULAR
    np.testing.assert_array_equal(found.kind, kinds)
    titles = [[1, 1, 1, 1]] * 4 + [[1, 0.6813, 1, 1], [np.nan, 0.2807, 0.6007, 0.8813]]
    known = ~np.isnan(titles)
    np.testing.assert_allclose(found.p[known], np.array(titles)[known], atol=5e-5)


def test_mirror_and_above_the_fold_go_to_one():
    for recursion in (gd.mirror_grpo(1.0, 0.2), gd.mirror_dr_grpo(1.0, 0.2), gd.grpo(0.5, 0.9, eps=0.0)):
        found = gd.limit(recursion)
        assert (found.kind, found.period, found.log_odds, found.p) == (gd.LimitKind.ONE, 1, np.inf, 1.0)


def test_slow_convergence_is_recognised_at_once():
    """An anchor of 1e-4, the two sides of a fold: the orbit needs 1e4 steps or more, the verdict a few."""
    fold = gd.stable_betas(0.2)[0][0]
    for recursion, p_star in (
        (gd.two_kl_dr_grpo(1.0, 0.2, 1e-4), 1.0),
        (gd.two_kl_dr_grpo(1.0, 0.2, 1.0 - 1e-4), gd.sigmoid(gd.logit(0.2) + 1 / (1 - 1e-4))),
        (gd.two_kl(2.0, 0.2, 1e-9), 1.0),
        (gd.grpo(fold * (1 - 1e-8), 0.2), 1.0),
        (gd.grpo(fold * (1 + 1e-8), 0.2), 0.83357),
    ):
        found = gd.limit(recursion)
        assert (found.kind, found.period) == (gd.LimitKind.FIXED_POINT, 1)
        assert found.steps <= 32
        assert found.p == pytest.approx(p_star, abs=1e-4)


def test_an_orbit_that_overflows_is_at_one():
    """Without smoothing the orbit reaches L = inf in twelve steps, past a fixed point that repels."""
    found = gd.limit(gd.two_kl(10.0, 2.0611536181902033e-09, 0.5, eps=0.0), p0=0.5)
    assert (found.kind, found.log_odds) == (gd.LimitKind.ONE, np.inf)


def test_next_to_a_flip():
    """Just stable: a fixed point, though the orbit alternates for thousands of steps. Just unstable: a narrow cycle."""
    flip = gd.stable_betas(0.001)[0][0]
    stable, unstable = gd.limit(gd.grpo(np.array([1.0014, 0.998]) * flip, 0.001)).kind
    assert stable == gd.LimitKind.FIXED_POINT
    assert unstable == gd.LimitKind.CYCLE
    closest = gd.limit(gd.grpo(flip * (1 + 1e-7), 0.001))  # needs 1e7 steps to know
    assert (closest.kind, closest.period) == (gd.LimitKind.UNDECIDED, 0)


@settings(max_examples=100)
@given(
    strategies.powers_of_ten(-2, 2), strategies.p_refs, strategies.all_eps, strategies.alphas, st.floats(0.001, 0.999)
)
def test_the_limit_is_where_plain_iteration_goes(beta, p_ref, eps, alpha, p0):
    recursion = gd.two_kl(beta, p_ref, alpha, eps)
    found = gd.limit(recursion, p0=p0, max_steps=3000)
    orbit = recursion.iterate(3000, p0=p0).log_odds
    tail = orbit[-64:]
    if found.kind == gd.LimitKind.FIXED_POINT:
        # recognised long before the orbit is there: it is there, or comes closer
        distance = np.abs(tail - found.log_odds)
        assert np.all((distance[2:] < distance[:-2]) | (distance[2:] <= 1e-6 * (1 + abs(found.log_odds))))
        points = gd.fixed_points(recursion)
        assert np.nanmin(np.abs(points.log_odds - found.log_odds)) == 0
        assert found.low == found.high == found.log_odds
    elif found.kind == gd.LimitKind.CYCLE:
        period = int(found.period)
        assert period >= 2
        np.testing.assert_allclose(tail[period:], tail[:-period], atol=1e-6 * (1 + np.abs(tail).max()))
        assert tail.max() == pytest.approx(found.high, abs=1e-6 * (1 + abs(found.high)))
        assert tail.min() == pytest.approx(found.low, abs=1e-6 * (1 + abs(found.low)))
        for shorter in range(1, period):  # the shortest period
            assert np.abs(tail[shorter:] - tail[:-shorter]).max() > 1e-8
    elif found.kind == gd.LimitKind.ONE:
        assert np.all((tail[1:] > tail[:-1]) | (tail[1:] == np.inf))
    else:
        assert found.steps == 3000
        assert found.period == 0


@given(strategies.p_refs, strategies.positive_eps, st.floats(1.1, 100), st.floats(0.001, 0.999))
def test_a_contraction_takes_every_orbit_to_its_fixed_point(p_ref, eps, factor, p0):
    recursion = gd.grpo(factor * gd.contraction_bound(gd.Whitened(eps)), p_ref, eps)
    found = gd.limit(recursion, p0=p0)
    assert found.kind == gd.LimitKind.FIXED_POINT
    assert found.log_odds == gd.fixed_points(recursion).log_odds[0]


def test_shapes_and_single_elements():
    beta, p_ref, p0 = np.array([[1.0], [5.0]]), np.array([0.2, 1e-3, 0.5]), np.full((4, 1, 1), 0.1)
    found = gd.limit(gd.grpo(beta, p_ref), p0=p0)
    for field in dataclasses.fields(gd.Limit):
        assert getattr(found, field.name).shape == (4, 2, 3)
    one = gd.limit(gd.grpo(5.0, 1e-3), p0=0.1)
    assert np.ndim(one.kind) == 0
    assert found.kind[0, 1, 1] == one.kind
    assert found.high[0, 1, 1] == pytest.approx(one.high, rel=1e-9)
    assert gd.limit(gd.grpo(np.empty((0, 2)), 0.2)).kind.shape == (0, 2)
    assert len({kind.meaning for kind in gd.LimitKind}) == len(gd.LimitKind)

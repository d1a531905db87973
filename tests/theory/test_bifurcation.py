"""Fold, flip and cusp curves against their closed forms, 50 digits, and the fixed points on both sides of them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import grpo_dynamics as gd
from grpo_dynamics.theory.bifurcation import cusp, flip_curve, flip_points, fold_curve, fold_points
from tests import exact, strategies

ROWS = [row for row in strategies.NORMALIZATIONS if "mean-only" not in row.name]
CONSTANT = [gd.MeanOnly(), gd.MeanOnly(8), gd.FiniteGroup(2), gd.FiniteGroup(3)]
"""Ω_2 = 1 and Ω_3 = √2 for every p: the groups that are not silent all have the same standard deviation."""


@pytest.mark.parametrize("eps", [1e-12, 1e-5, 1e-2, 0.25])
@pytest.mark.parametrize("alpha", [1.0, 0.3])
def test_the_cubic_of_the_folds_and_the_cusp(eps, alpha):
    """w = 1 + 4ε cosh²(L/2) solves 4ε(αβ)²w³ − w + 1 + 4ε = 0, and αβ_c = 1/(3√(3ε)(1+4ε)). [6_bifurcations]"""
    curve = fold_curve(gd.Whitened(eps), alpha, beta_range=(1e-2, 1e9))
    w = 1 + 4 * eps * np.cosh(curve.log_odds / 2) ** 2
    cube = 4 * eps * (alpha * curve.beta) ** 2 * w**3
    # w − 1 − 4ε = 4ε sinh²: as it stands the cubic cancels where w is near 1
    np.testing.assert_allclose(cube, 4 * eps * np.sinh(curve.log_odds / 2) ** 2, rtol=1e-9)
    point = cusp(gd.Whitened(eps), alpha)
    critical = 1 / (3 * np.sqrt(3 * eps) * (1 + 4 * eps) * alpha)
    np.testing.assert_allclose(point.beta, critical, rtol=1e-12)
    np.testing.assert_allclose(np.cosh(point.log_odds / 2) ** 2, 1.5 + 1 / (8 * eps), rtol=1e-9)
    assert curve.beta.max() == pytest.approx(critical, rel=1e-12)  # the cusp is a point of the curve
    np.testing.assert_array_equal(np.unique(curve.branch), [0, 1])


def test_without_smoothing_the_curves_are_explicit():
    """ε = 0: L_ref = ±2 asinh β − 2√(1+β²)/β. [6_bifurcations]"""
    for curve, sign in ((fold_curve(gd.Whitened(0.0)), 1), (flip_curve(gd.Whitened(0.0)), -1)):
        b = curve.beta
        expected = 2 * sign * np.arcsinh(b) - 2 * np.sqrt(1 + b * b) / b
        np.testing.assert_allclose(curve.log_odds_ref, expected, rtol=1e-10, atol=1e-9)
        assert (b.min(), b.max()) == pytest.approx((1e-3, 1e3))
        assert set(curve.branch) == {0}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
@pytest.mark.parametrize("alpha", [1.0, 0.6])
def test_every_point_is_a_fixed_point_with_this_multiplier(row, alpha):
    """αβ(L − L_ref) = Ω(L) and (1−α) + Ω'(L)/β = ±1, in 50 digits where it matters and for every normalisation."""
    for curve, unit in (
        (fold_curve(row.normalization, alpha, points=7), 1),
        (flip_curve(row.normalization, alpha, points=7), -1),
    ):
        if row.name in ("group-2-std-0-ddof0-keep", "group-3-std-0-ddof0-keep"):
            assert curve.beta.size == 0
            assert curve.reason
            continue
        assert np.all(np.diff(curve.log_odds) >= 0)
        assert np.all(unit * curve.log_odds > 0)
        for place, beta, reference in zip(curve.log_odds, curve.beta, curve.log_odds_ref, strict=True):
            if abs(place) > 60:
                continue  # Ω' of a group is below 1e-26 there: 110 digits, and time, for nothing
            slope = exact.slope(row.gap, place)
            assert float(1 - alpha + slope / beta) == pytest.approx(unit, abs=1e-9)
            residual = alpha * beta * (place - reference) / row.gap(place)
            assert float(residual) == pytest.approx(1, abs=1e-12 * (1 + abs(place) + abs(reference)))


def test_flips_of_grpo_are_folds_in_a_mirror():
    for normalization in (gd.Whitened(1e-4), gd.Whitened(1e-3, "std"), gd.FiniteGroup(16)):
        fold, flip = fold_curve(normalization), flip_curve(normalization)
        np.testing.assert_array_equal(flip.log_odds, -fold.log_odds[::-1])
        np.testing.assert_array_equal(flip.beta, fold.beta[::-1])


@settings(max_examples=60)
@given(strategies.powers_of_ten(-10, -1), st.floats(0.3, 1.0), st.floats(0.05, 0.95), st.sampled_from([0, 1]))
def test_fixed_points_on_both_sides(eps, alpha, share, branch):
    """Across a fold of the lower branch the count goes from 3 to 1; across a flip the low point loses its stability."""
    normalization = gd.Whitened(eps)
    beta = share * float(cusp(normalization, alpha).beta[0])
    folds, flips = fold_points(beta, normalization, alpha), flip_points(beta, normalization, alpha)
    sides = folds.log_odds_ref[branch] + np.array([-1e-5, 1e-5]) * (1 + abs(folds.log_odds_ref[branch]))
    if np.all(np.abs(sides) < 30):
        counts = gd.fixed_points(gd.Recursion(beta, gd.sigmoid(sides), normalization, alpha)).count
        np.testing.assert_array_equal(counts, [3, 1] if branch == 0 else [1, 3])
    if flips.reason == "" and flips.log_odds_ref[branch] > -600:
        sides = flips.log_odds_ref[branch] + np.array([-1e-5, 1e-5]) * (1 + abs(flips.log_odds_ref[branch]))
        stable = gd.fixed_points(gd.Recursion(beta, gd.sigmoid(sides), normalization, alpha)).stable[0]
        # branch 0 is the end at which L is near 0: above it the point is stable; branch 1 the other end
        np.testing.assert_array_equal(stable, [False, True] if branch == 0 else [True, False])


@pytest.mark.parametrize("normalization", [gd.Whitened(1e-4), gd.Whitened(1e-3, "std"), gd.FiniteGroup(32)])
def test_the_points_at_given_beta_lie_on_the_curve(normalization):
    for curve, points in ((fold_curve, fold_points), (flip_curve, flip_points)):
        whole = curve(normalization, 0.8, points=21)
        inner = (whole.beta < 0.999 * whole.beta.max()) & (np.abs(whole.log_odds) < 25)
        found = points(whole.beta[inner], normalization, 0.8)
        here = whole.branch[inner], np.arange(np.sum(inner))
        np.testing.assert_allclose(found.log_odds[here], whole.log_odds[inner], rtol=1e-6)
        np.testing.assert_allclose(found.log_odds_ref[here], whole.log_odds_ref[inner], rtol=1e-6)


def test_points_have_the_shape_of_the_batch():
    beta, eps = np.array([[1.0], [5.0], [100.0]]), np.array([1e-5, 1e-3])
    found = fold_points(beta, gd.Whitened(eps))
    assert found.p_ref.shape == (2, 3, 2)
    np.testing.assert_array_equal(np.isnan(found.p_ref).any(axis=0), beta > gd.contraction_bound(gd.Whitened(eps)))
    assert found.reason == ""


def test_two_cusps_for_groups_that_drop_silent_ones():
    """ε = 0.25 beside the std, G = 256: the slope of Ω rises, falls and rises, so folds meet twice."""
    group = gd.FiniteGroup(256, 0.25, silent_groups="drop")
    both = cusp(group)
    assert both.beta.shape == (2,)
    between, below, above = np.mean(both.beta), 0.9 * both.beta[1], 1.1 * both.beta[0]
    present = ~np.isnan(fold_points(np.array([below, between, above]), group).beta)
    np.testing.assert_array_equal(present, [[True, True, False], [False, True, False], [False, True, True]])


@pytest.mark.parametrize("normalization", CONSTANT, ids=repr)
def test_a_constant_gap_has_neither(normalization):
    for curve in (fold_curve(normalization), flip_curve(normalization, 0.5), cusp(normalization)):
        assert curve.beta.shape == curve.p_ref.shape == curve.branch.shape == (0,)
        assert "does not depend on p" in curve.reason


def test_answers_that_do_not_exist_say_why():
    assert "alpha = 0" in fold_curve(gd.Whitened(), 0.0).reason
    assert "alpha = 0" in flip_curve(gd.Whitened(), 0.0).reason
    assert "never meet" in cusp(gd.Whitened(0.0)).reason
    beyond = flip_curve(gd.Whitened(1e-2), beta_range=(2.0, 3.0))
    assert beyond.beta.size == 0
    assert "above 1.85" in beyond.reason
    none = fold_points(np.array([70.0, 80.0]))
    assert none.log_odds.shape == (2, 2)
    assert np.isnan(none.beta).all()
    assert "too large" in none.reason


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fold_curve(alpha=1.5), "alpha must be between 0 and 1, got 1.5"),
        (lambda: fold_curve(gd.Whitened([1e-5, 1e-4])), r"options of shape \(\), got \(2,\)"),
        (lambda: fold_curve(0.1), "normalization must be"),
        (lambda: flip_curve(beta_range=(2.0, 1.0)), "the smaller one first"),
        (lambda: flip_curve(beta_range=(0.0, 1.0)), "beta_range must be two finite numbers > 0, got 0.0"),
        (lambda: flip_curve(beta_range=5.0), "beta_range must be two numbers, the smaller one first, got 5.0"),
        (lambda: fold_curve(alpha=[1.0, 0.5]), r"a curve needs options of shape \(\), got \(2,\)"),
        (lambda: fold_points(1.0, "whitened"), "normalization must be a Normalization such as .*, got 'whitened'"),
        (lambda: flip_curve(points=1), "points must be an integer >= 2, got 1"),
        (lambda: fold_points(float("nan")), "beta must be a finite number > 0, got nan"),
        (lambda: flip_points([1.0, 2.0], alpha=[1.0, 0.5, 0.2]), "shapes must broadcast together"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_the_smallest_smoothing_gives_no_point_that_is_not_one():
    """At ε = 1e-300 the upper fold of a small β lies where p(1−p) underflows: the curve ends before it."""
    for curve in (fold_curve(gd.Whitened(1e-300)), flip_curve(gd.Whitened(1e-300), 0.5)):
        assert curve.beta.size > 1000
        assert np.all((curve.beta > 0) & np.isfinite(curve.log_odds_ref))

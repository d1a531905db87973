"""Every reward normalisation against its definition in 50 digits, and the shape that the fixed points rely on."""

import itertools
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import grpo_dynamics as gd
from grpo_dynamics.logodds import complement
from tests import exact, strategies
from tests.exact import ROUNDING, mp
from tests.strategies import NORMALIZATIONS

EVERY = pytest.mark.parametrize("row", NORMALIZATIONS, ids=lambda row: row.name)
PLACES = [-700.0, -300.0, -60.0, -27.6, -9.0, -3.0, -1.0, -1e-3, -1e-9, 0.0, 1e-6, 0.3, 2.0, 7.0, 15.0, 40.0, 150.0]
GRID = np.linspace(-40, 40, 4001)


def close(value, reference, relative=0.0, absolute=0.0) -> bool:
    return abs(mp.mpf(float(value)) - reference) <= relative * abs(reference) + absolute


def size_of(row) -> int:
    return getattr(row.normalization, "group_size", None) or 1


# ---- the definition -------------------------------------------------------------------------------------------------


@EVERY
def test_gap_is_the_definition(row):
    # sums of G positive terms: each addition and each coefficient costs a rounding or two
    for log_odds in PLACES:
        value = row.normalization.gap(log_odds)
        assert close(value, row.gap(log_odds), relative=(16 + 4 * size_of(row)) * ROUNDING), log_odds


@EVERY
def test_slope_is_the_derivative_of_the_definition(row):
    # Ω' = Σ ± ... cancels near L = 0 (Ω is even): there it is good to a rounding of Ω·p(1−p)·G, elsewhere to 1e-13
    for log_odds in PLACES:
        value, reference = row.normalization.gap_slope(log_odds), exact.slope(row.gap, log_odds)
        scale = 16 * ROUNDING * size_of(row) * float(row.gap(log_odds) * exact.variance(log_odds))
        assert close(value, reference, relative=1e-13, absolute=scale if size_of(row) > 1 else 1e-290), log_odds


@EVERY
def test_gap_and_rate_are_the_gap_and_its_logarithmic_slope(row):
    gap, rate = row.normalization.gap_and_rate(GRID)
    np.testing.assert_allclose(gap, row.normalization.gap(GRID), rtol=1e-15)
    np.testing.assert_allclose(gap * rate, row.normalization.gap_slope(GRID), rtol=1e-15)


@given(strategies.all_eps, strategies.placements, st.just(0.0) | st.floats(1e-12, 1400) | st.floats(-1400, -1e-12))
def test_whitened_over_the_whole_range(eps, placement, log_odds):
    value = gd.Whitened(eps, placement)
    gap = exact.whitened(eps, placement)
    assert close(value.gap(log_odds), gap(log_odds), relative=16 * ROUNDING)
    # beyond |L| = 745 the variance is no float any more: the slope with ε inside the root is 0 there
    assert close(value.gap_slope(log_odds), exact.slope(gap, log_odds), relative=32 * ROUNDING, absolute=1e-288)


@given(strategies.finite_groups, st.floats(-300, 300))
def test_finite_groups_over_the_whole_range(row, log_odds):
    size = size_of(row)
    value, slope = row.normalization.gap(log_odds), row.normalization.gap_slope(log_odds)
    gap = row.gap(log_odds)
    assert close(value, gap, relative=(16 + 4 * size) * ROUNDING)
    scale = 16 * ROUNDING * size * float(gap * exact.variance(log_odds))
    assert close(slope, exact.slope(row.gap, log_odds), relative=1e-13, absolute=scale)


@given(strategies.finite_groups, st.floats(-100, 100))
def test_a_groups_advantages_are_those_of_its_samples(row, log_odds):
    """positive = E[A | r = 1], negative = −E[A | r = 0], each summed over what the other samples can do."""
    group = row.normalization
    expected = exact.group_advantages(group.group_size, group.eps, group.eps_placement, group.ddof, group.silent_groups)
    right, wrong = expected(log_odds)
    tolerance = (24 + 4 * size_of(row)) * ROUNDING
    assert close(group.positive(log_odds), right, relative=tolerance)
    assert close(group.negative(log_odds), wrong, relative=tolerance)


def test_a_groups_advantages_by_drawing_groups():
    """The same two expectations from 400,000 sampled groups, normalised as a trainer does (std of G−1, +1e-4)."""
    rng = np.random.default_rng(0)
    rewards = (rng.random((400_000, 8)) < 0.3).astype(float)
    advantages = rewards - rewards.mean(axis=1, keepdims=True)
    advantages /= rewards.std(axis=1, ddof=1, keepdims=True) + 1e-4
    group = gd.FiniteGroup(8, eps=1e-4, ddof=1)
    log_odds = gd.logit(0.3)
    # the standard error of either mean is below 1/√(0.3 · 3.2e6) ≈ 1e-3
    assert group.positive(log_odds) == pytest.approx(advantages[rewards == 1].mean(), abs=5e-3)
    assert group.negative(log_odds) == pytest.approx(-advantages[rewards == 0].mean(), abs=5e-3)
    mixed = (rewards.mean(axis=1) > 0) & (rewards.mean(axis=1) < 1)
    # dynamic sampling: averaged over the kept groups only, E[A·1{r=1}] = p·w⁺
    dropped = gd.FiniteGroup(8, eps=1e-4, ddof=1, silent_groups="drop")
    kept = (advantages * rewards)[mixed].mean()
    assert 0.3 * dropped.positive(log_odds) == pytest.approx(kept, abs=5e-3)


# ---- the shape: what fixed points, folds and counts rely on ---------------------------------------------------------


@EVERY
def test_even_gap_odd_slope(row):
    np.testing.assert_array_equal(row.normalization.gap(GRID), row.normalization.gap(-GRID))
    np.testing.assert_array_equal(row.normalization.gap_slope(GRID), -row.normalization.gap_slope(-GRID))


@EVERY
def test_advantages_are_centred(row):
    """p·w⁺ = (1−p)·w⁻, because the advantages of a group sum to 0."""
    right = gd.sigmoid(GRID) * row.normalization.positive(GRID)
    wrong = complement(GRID) * row.normalization.negative(GRID)
    np.testing.assert_allclose(right, wrong, rtol=1e-14)
    total = row.normalization.positive(GRID) + row.normalization.negative(GRID)
    np.testing.assert_allclose(total, row.normalization.gap(GRID), rtol=1e-14)


@EVERY
def test_gap_never_falls_for_positive_log_odds(row):
    grid = np.linspace(0, 60, 6001)
    gap, slope = row.normalization.gap(grid), row.normalization.gap_slope(grid)
    noise = 32 * ROUNDING * size_of(row) * gap.max()
    if row.normalization != gd.FiniteGroup(2, silent_groups="drop"):
        assert slope.min() >= -noise
    assert np.diff(gap).min() >= -noise


def dense(normalization, end=80.0):
    turns = [float(t) for t in normalization.turns()]
    knots = [0.0, *(min(t, end) for t in turns), end]
    return turns, knots


@EVERY
def test_slope_is_monotone_between_its_turns(row):
    turns, knots = dense(row.normalization)
    assert turns == sorted(turns)
    assert all(t > 0 for t in turns)
    scale = np.abs(row.normalization.gap_slope(np.linspace(0, 80, 8001))).max()
    for i, (low, high) in enumerate(itertools.pairwise(knots)):
        steps = np.diff(row.normalization.gap_slope(np.linspace(low, high, 20_001))) * (-1) ** i
        noise = 64 * ROUNDING * size_of(row) * (scale + row.normalization.gap(0.0))
        assert steps.min(initial=0.0) >= -noise, (i, low, high)


@given(st.integers(2, 64), strategies.all_eps, strategies.placements, st.sampled_from(["keep", "drop"]))
def test_slope_of_every_group_is_monotone_between_its_turns(size, eps, placement, silent):
    group = gd.FiniteGroup(size, eps, placement, 0, silent)
    turns, knots = dense(group, end=60.0)
    assert turns == sorted(turns)
    scale = np.abs(group.gap_slope(np.linspace(0, 60, 601))).max() + group.gap(0.0)
    for i, (low, high) in enumerate(itertools.pairwise(knots)):
        steps = np.diff(group.gap_slope(np.linspace(low, high, 2001))) * (-1) ** i
        # golden-section search places a turn to the square root of the precision, 1e-8: flat there to its square
        assert steps.min(initial=0.0) >= -64 * ROUNDING * size * scale, (i, low, high)


@given(strategies.positive_eps, strategies.placements)
def test_turn_of_whitened_is_where_the_second_derivative_vanishes(eps, placement):
    """Ω'' changes sign from + to − there, in 50 digits."""
    (turn,) = gd.Whitened(eps, placement).turns()
    gap = exact.whitened(eps, placement)
    assert exact.curvature(gap, turn * (1 - 1e-13)) > 0 > exact.curvature(gap, turn * (1 + 1e-13))


@pytest.mark.parametrize("placement", ["variance", "std"])
def test_without_smoothing_the_slope_never_turns(placement):
    # Ω = 2cosh(L/2), Ω' = sinh(L/2)
    assert gd.Whitened(0.0, placement).turns() == (np.inf,)
    np.testing.assert_allclose(gd.Whitened(0.0, placement).gap(GRID), 2 * np.cosh(GRID / 2), rtol=1e-14)
    np.testing.assert_allclose(gd.Whitened(0.0, placement).gap_slope(GRID), np.sinh(GRID / 2), rtol=1e-14)


@given(strategies.positive_eps, strategies.placements)
def test_steepest_is_the_maximum_of_the_slope(eps, placement):
    where, steepest = gd.Whitened(eps, placement).steepest()
    slopes = gd.Whitened(eps, placement).gap_slope(where + np.linspace(-3, 3, 2001))
    assert slopes.max() <= steepest * (1 + 4 * ROUNDING * 4)
    if placement == "variance":
        # max B = 1/(3√(3ε)(1+4ε)), at p(1−p) = 2ε/(1+12ε)
        assert steepest == pytest.approx(1 / (3 * np.sqrt(3 * eps) * (1 + 4 * eps)), rel=1e-13)
        assert gd.logodds.bernoulli_variance(where) == pytest.approx(2 * eps / (1 + 12 * eps), rel=1e-12)


# ---- folds: where the slope equals β --------------------------------------------------------------------------------


@given(strategies.positive_eps, strategies.placements, st.floats(1e-6, 1 - 1e-6))
def test_folds_solve_slope_equals_beta(eps, placement, share):
    normalization = gd.Whitened(eps, placement)
    turn, steepest = normalization.steepest()
    low, high = normalization.folds(share * steepest)
    assert 0 < low <= turn <= high
    for fold in (low, high):
        gap = exact.whitened(eps, placement)
        first, second = exact.slope(gap, fold), exact.curvature(gap, fold)
        # as exact as the slope's own rounding and the fold's allow; bisection from the turn ends at turn·2^−64
        slack = 64 * ROUNDING * (share * steepest + abs(fold * second)) + abs(turn * second) * 2.0**-63
        assert abs(first - mp.mpf(share * steepest)) <= slack


@given(strategies.powers_of_ten(-3, 3), strategies.placements)
def test_folds_without_smoothing(beta, placement):
    low, high = gd.Whitened(0.0, placement).folds(beta)
    assert low == pytest.approx(2 * np.arcsinh(beta), rel=1e-13)  # sinh(L/2) = β
    assert high > 1300 or high == np.inf


@given(strategies.positive_eps, strategies.placements, st.floats(1.0001, 1e6))
def test_a_beta_above_the_cusp_gives_one_point_twice(eps, placement, factor):
    turn, steepest = gd.Whitened(eps, placement).steepest()
    low, high = gd.Whitened(eps, placement).folds(factor * steepest)
    assert low == pytest.approx(turn, rel=1e-12)
    assert high == pytest.approx(turn, rel=1e-12)


@settings(max_examples=40)
@given(strategies.finite_groups, st.floats(0.01, 0.99))
def test_folds_of_groups_solve_slope_equals_beta(row, share):
    group = row.normalization
    turns = [float(t) for t in group.turns() if np.isfinite(t)]
    beta = share * group.gap_slope(turns[0] if turns else 20.0)
    if not beta > 1e-10:  # groups of 2 and 3 (kept): the gap is constant
        return
    folds = [float(fold) for fold in group.folds(beta)]
    assert group.gap_slope(folds[0]) == pytest.approx(beta, rel=1e-9)
    assert folds == sorted(folds)
    for fold in folds[1:]:  # or the end of a piece that β misses: a turn, or the end of the floats
        assert (
            group.gap_slope(fold) == pytest.approx(beta, rel=1e-9) or fold > 1000 or fold in map(pytest.approx, turns)
        )


# ---- end values and limits of the finite group ----------------------------------------------------------------------


@pytest.mark.parametrize("size", range(2, 65))
@pytest.mark.parametrize("log_odds", [-np.inf, -800.0, 800.0, np.inf])
def test_end_values_of_a_group_are_sqrt_of_size_minus_1(size, log_odds):
    """At p → 0 a success is alone in its group: (1 − 1/G)/√((1/G)(1−1/G)) = √(G−1); the mirror image at p → 1."""
    assert gd.FiniteGroup(size).gap(log_odds) == pytest.approx(np.sqrt(size - 1), rel=1e-14)
    # ddof = 1 shrinks every advantage by √((G−1)/G)
    assert gd.FiniteGroup(size, ddof=1).gap(log_odds) == pytest.approx((size - 1) / np.sqrt(size), rel=1e-14)


def test_groups_of_2_and_3_see_no_difficulty():
    """Ω_2 ≡ 1: the one mixed group has advantages ±1, with chance ½ as seen from either; Ω_3 ≡ √2."""
    np.testing.assert_allclose(gd.FiniteGroup(2).gap(GRID), 1.0, rtol=1e-15)
    np.testing.assert_allclose(gd.FiniteGroup(3).gap(GRID), np.sqrt(2), rtol=1e-15)


def test_groups_of_8_as_printed():
    """The values of Ω_G that have a name."""
    assert gd.FiniteGroup(8).gap(gd.logit(0.05)) == pytest.approx(2.47306, abs=5e-6)
    assert gd.FiniteGroup(8).gap(0.0) == pytest.approx(1.85566, abs=5e-6)


def test_large_groups_approach_whitening():
    """Ω_G → (p(1−p))^(−1/2), with an error of order 1/(G·p(1−p))."""
    for p in (0.05, 0.3, 0.5, 0.9):
        limit = 1 / np.sqrt(p * (1 - p))
        errors = [abs(gd.FiniteGroup(size).gap(gd.logit(p)) / limit - 1) for size in (256, 512, 1024)]
        assert errors[-1] < 1 / (1024 * p * (1 - p))
        assert errors[0] / errors[1] == pytest.approx(2, rel=0.25)
        assert errors[1] / errors[2] == pytest.approx(2, rel=0.25)


def test_mean_only_of_a_group():
    """A mean that includes the sample itself: E[r − k/G | r] shrinks by (G−1)/G; leave-one-out does not shrink."""
    for size in (2, 3, 8, 64):
        assert gd.MeanOnly(size).gap(1.0) == (size - 1) / size
    assert gd.MeanOnly().gap(1.0) == 1.0


def test_huge_eps_turns_whitening_into_mean_only():
    """ε ≫ 1: Ω·√ε → 1 inside the root, Ω·ε → 1 added to the std."""
    np.testing.assert_allclose(gd.Whitened(1e20).gap(GRID) * 1e10, 1.0, rtol=1e-14)
    np.testing.assert_allclose(gd.Whitened(1e20, "std").gap(GRID) * 1e20, 1.0, rtol=1e-14)


# ---- arrays, ends, warnings -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("silent", ["keep", "drop"])
@pytest.mark.parametrize("placement", ["variance", "std"])
def test_arrays_of_options_agree_with_single_numbers(silent, placement):
    sizes, eps = np.array([[2], [3], [8], [17]]), np.array([0.0, 1e-6, 1e-2])
    log_odds = np.linspace(-20, 20, 7)[:, None, None]
    group = gd.FiniteGroup(sizes, eps, placement, 1, silent)
    gap, slope = group.gap(log_odds), group.gap_slope(log_odds)
    assert gap.shape == slope.shape == (7, 4, 3)
    for i, size in enumerate(sizes[:, 0]):
        for j, e in enumerate(eps):
            one = gd.FiniteGroup(int(size), float(e), placement, 1, silent)
            np.testing.assert_allclose(gap[:, i, j], one.gap(log_odds[:, 0, 0]), rtol=1e-14)
            np.testing.assert_allclose(slope[:, i, j], one.gap_slope(log_odds[:, 0, 0]), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(gd.MeanOnly(sizes).gap(eps), np.broadcast_to((sizes - 1) / sizes, (4, 3)))
    whitened = gd.Whitened(eps, placement)
    for j, e in enumerate(eps):
        np.testing.assert_array_equal(whitened.gap(log_odds)[:, 0, j], gd.Whitened(e, placement).gap(log_odds[:, 0, 0]))


@pytest.mark.parametrize("silent", ["keep", "drop"])
def test_turns_of_arrays_agree_with_single_numbers(silent):
    sizes = np.array([2, 5, 8, 17, 64])
    together = gd.FiniteGroup(sizes, silent_groups=silent).turns()
    for i, size in enumerate(sizes):
        alone = gd.FiniteGroup(int(size), silent_groups=silent).turns()
        for several, one in zip(together, alone, strict=True):
            if size > 3:  # where the slope is not constant
                assert several[i] == pytest.approx(one, rel=1e-6)


@EVERY
@pytest.mark.parametrize("log_odds", [-np.inf, -1e6, -1500.0, -800.0, 0.0, 800.0, 1500.0, 1e6, np.inf])
def test_no_warning_and_no_nan_up_to_log_odds_of_a_million(row, log_odds):
    with warnings.catch_warnings(), np.errstate(all="raise"):
        warnings.simplefilter("error")
        values = (row.normalization.gap(log_odds), row.normalization.gap_slope(log_odds))
    assert not np.isnan(values).any()


@EVERY
def test_shapes_and_dtypes(row):
    assert np.ndim(row.normalization.gap(0.5)) == 0
    assert row.normalization.gap([0.5, 1.0]).shape == (2,)
    assert row.normalization.gap(np.zeros((0, 3))).shape == (0, 3)
    single = row.normalization.gap(np.float32(0.5) * np.ones(3, np.float32))
    assert single.dtype == np.float32

"""Fixed points and multipliers against 50 digits, statuses, shapes and the theorems about them.

How accurate can a fixed point be? It solves b·(L − L_ref) = Ω(L) with b = αβ. A float program sees b, L_ref, Ω and the
result L each with a relative error of a few u = 2^−53. Rounding b, L_ref, Ω and the argument of Ω moves
F = L − L_ref − Ω/b by η = C·u·(|L_ref| + d + |L|), d = L − L_ref, and F = η moves the root by η/|F'|, F' = 1 − Ω'/b:

    |δL| ≤ C·u·|L| + 2u·d + 1.25·η/|F'|         away from folds, F'² ≥ 4·|F''|·η                           (*)
    |δL| ≤ C·u·|L| + 2u·d + 4.5·√(η/|F''|)      next to one, where the root is that of a parabola

The solver finds and rounds d, not L: that is 2u·d, which counts where |F'| is much larger than 1.

So a small L* next to a large L_ref cannot be known to u·|L*|, nor a root on a fold to better than √u. With C = 16 we
assert this for every root, and the plain relative error 1e-13 for every root whose bound is not larger, which is where
the condition number (|L_ref| + d + |L|)/(|L|·|F'|) is below 40.
"""

import itertools
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import grpo_dynamics as gd
from grpo_dynamics.logodds import complement
from tests import brute_force, exact, strategies
from tests.exact import ROUNDING, mp

C = 16


def errors(normalization, gap, beta, p_ref, alpha=1.0):
    """For each root: (relative error, its bound (*), multiplier error, its bound), all against 50 digits."""
    found = gd.fixed_points(gd.Recursion(beta, p_ref, normalization, alpha))
    assert found.status in (gd.Status.OK, gd.Status.DEGENERATE, gd.Status.ABOVE_FOLD)
    if found.status == gd.Status.DEGENERATE:
        return
    beta, alpha = mp.mpf(float(beta)), mp.mpf(float(alpha))
    anchor, pull = exact.logit(float(p_ref)), alpha * beta
    roots = []
    for i in range(int(found.count)):
        value = float(found.log_odds[i])
        root = exact.polish(gap, pull, anchor, value)
        first, second = exact.slope(gap, root), exact.curvature(gap, root)
        eta = C * ROUNDING * (abs(anchor) + (root - anchor) + abs(root))
        rate, bend = abs(1 - first / pull), abs(second / pull)
        bound = C * ROUNDING * abs(root) + 2 * ROUNDING * (root - anchor)
        bound += 1.25 * eta / rate if rate**2 >= 4 * bend * eta else 4.5 * mp.sqrt(eta / bend)
        multiplier = (1 - alpha) + first / beta
        # its own roundings, e^−|L| with an L that is off by u·|L|, and what the root's error makes of it
        slack = C * ROUNDING * ((1 - alpha) + abs(first / beta) * (1 + abs(root))) + abs(second / beta) * bound
        # Ω' of a group is a difference of terms of the size of Ω·p(1−p)·G
        if isinstance(normalization, gd.FiniteGroup):
            slack += C * ROUNDING * normalization.group_size * gap(root) * exact.variance(root) / beta
        yield (
            float(abs(value - root) / abs(root)),
            float(bound / abs(root)),
            float(abs(mp.mpf(float(found.multiplier[i])) - multiplier)),
            float(slack) + 1e-300,
        )
        roots.append(root)
    assert all(a < b for a, b in itertools.pairwise(roots)), "the same root twice"


@pytest.mark.parametrize(
    ("beta", "p_ref", "eps", "alpha", "expected"),
    [
        (1.5252355285372947, 0.6613730930876258, 0.043305404392575804, 1.0, 2.7396334262003044),
        (0.0922735818139544, 1.245049569600754e-12, 0.0, 0.9439320820344694, -1.0719383099187467),
    ],
)
def test_systems_that_an_earlier_solver_missed(beta, p_ref, eps, alpha, expected):
    """Their roots to 50 digits, as reported beside what that solver gave."""
    found = gd.fixed_points(gd.Recursion(beta, p_ref, gd.Whitened(eps), alpha))
    gap, pull, anchor = exact.whitened(eps, "variance"), mp.mpf(alpha) * mp.mpf(beta), exact.logit(p_ref)
    root = exact.polish(gap, pull, anchor, expected)
    assert float(root) == pytest.approx(expected, rel=1e-15)
    assert float(found.log_odds[0]) == pytest.approx(expected, rel=1e-13)
    assert found.status == gd.Status.OK
    check(errors(gd.Whitened(eps), gap, beta, p_ref, alpha))


def check(rows):
    for relative, bound, multiplier, slack in rows:
        assert relative <= bound
        assert multiplier <= slack


@given(
    strategies.betas, strategies.p_refs, strategies.all_eps, strategies.placements, st.just(1.0) | st.floats(1e-3, 1.0)
)
def test_whitened_against_50_digits(beta, p_ref, eps, placement, alpha):
    check(errors(gd.Whitened(eps, placement), exact.whitened(eps, placement), beta, p_ref, alpha))


@given(strategies.betas, strategies.p_refs, strategies.finite_groups, st.just(1.0) | st.floats(1e-3, 1.0))
def test_finite_groups_against_50_digits(beta, p_ref, row, alpha):
    check(errors(row.normalization, row.gap, beta, p_ref, alpha))


def test_relative_error_of_1500_random_systems():
    """The number to reach: ≤ 1e-13 in log-odds where the condition number allows it; -s prints the largest."""
    rng = np.random.default_rng(1)
    n = 1500
    beta = 10 ** rng.uniform(-3, 3, n)
    p_ref = np.clip(gd.sigmoid(rng.uniform(-strategies.EDGE, strategies.EDGE, n)), 1e-12, 1 - 1e-12)
    eps = np.where(rng.random(n) < 0.1, 0.0, 10 ** rng.uniform(-12, np.log10(0.25), n))
    alpha = np.where(rng.random(n) < 0.5, 1.0, rng.uniform(0.001, 1, n))
    found, ill = [], []
    for i in range(n):
        placement = "std" if i % 3 == 0 else "variance"
        normalization, gap = gd.Whitened(float(eps[i]), placement), exact.whitened(float(eps[i]), placement)
        for row in errors(normalization, gap, beta[i], p_ref[i], alpha[i]):
            (found if row[1] <= 1e-13 else ill).append(row)
            assert row[0] <= row[1]
            assert row[2] <= row[3]
    worst = max(row[0] for row in found)
    print(
        f"{len(found)} roots: largest relative error {worst:.1e}; {len(ill)} ill-conditioned: (error, bound, ...) {ill}"
    )
    assert len(found) > 1000
    assert worst <= 1e-13


@pytest.mark.parametrize("placement", ["variance", "std"])
@pytest.mark.parametrize("distance", [1e-3, 1e-6, 1e-9])
def test_next_to_a_fold(placement, distance):
    """Condition-aware: three roots, two of them √distance apart, each to (*)."""
    rng = np.random.default_rng(2)
    n = 60
    p_ref = np.clip(gd.sigmoid(rng.uniform(-10, 20, n)), 1e-12, 1 - 1e-12)
    eps = 10 ** rng.uniform(-10, -2, n)
    problem = brute_force.whitened(np.ones(n), np.ones(n), p_ref, eps, placement)
    beta = brute_force.on_a_fold(problem, rng) * (1 + distance * rng.choice([-1, 1], n))
    for i in np.flatnonzero(beta > 0):
        check(
            errors(gd.Whitened(float(eps[i]), placement), exact.whitened(float(eps[i]), placement), beta[i], p_ref[i])
        )


@given(strategies.betas, strategies.p_refs, st.none() | st.integers(2, 64), st.floats(1e-3, 1.0))
def test_mean_only_is_a_closed_form(beta, p_ref, group_size, alpha):
    """Ω constant: L* = L_ref + Ω/(αβ), and the map contracts by 1 − α."""
    found = gd.fixed_points(gd.Recursion(beta, p_ref, gd.MeanOnly(group_size), alpha))
    expected = exact.logit(p_ref) + exact.mean_only(group_size)(0) / (mp.mpf(alpha) * mp.mpf(beta))
    size = abs(exact.logit(p_ref)) + abs(expected)
    assert found.count == 1
    assert found.status == gd.Status.OK
    assert abs(float(found.log_odds[0]) - expected) <= C * ROUNDING * size
    assert found.multiplier[0] == pytest.approx(1 - alpha, abs=1e-15)
    assert np.isnan(found.log_odds[1:]).all()


@pytest.mark.parametrize(("beta", "anchor", "eps"), [(0.00317, -681.4, 0.0), (0.0036, -598.7, 1e-265)])
def test_where_the_map_is_steepest(beta, anchor, eps):
    """d is hundreds and d log Ω/dL nearly −½: multipliers of −200. A step of 1e-6·d must not pass for the last."""
    p_ref = float(gd.sigmoid(anchor))
    value = float(gd.fixed_points(gd.grpo(beta, p_ref, eps)).log_odds[0])
    root = exact.polish(exact.whitened(eps, "variance"), mp.mpf(beta), exact.logit(p_ref), value)
    assert abs(value - root) <= 2 * ROUNDING * abs(anchor)  # d, as large as L_ref, is what is found and rounded


# ---- theorems -------------------------------------------------------------------------------------------------------


@given(strategies.betas, strategies.p_refs, strategies.all_eps, strategies.placements, strategies.alphas)
def test_theorem_3_and_the_parity_of_the_count(beta, p_ref, eps, placement, alpha):
    """Every fixed point exceeds p_ref; smoothed, F runs from −∞ to ∞: an odd number, at most three; else even, ≤ 2."""
    found = gd.fixed_points(gd.Recursion(beta, p_ref, gd.Whitened(eps, placement), alpha))
    roots = found.log_odds[: found.count]
    assert (roots > gd.logit(p_ref)).all()
    assert (np.diff(roots) > 0).all()
    assert np.isnan(found.log_odds[found.count :]).all()
    assert not found.stable[found.count :].any()
    if found.status != gd.Status.DEGENERATE:
        assert found.count in ((1, 3) if eps > 0 else (0, 2))
        # F alternates: the middle one is where the map is steeper than the diagonal
        kappa = (found.multiplier[: found.count] - (1 - alpha)) / alpha
        assert (kappa[0::2] < 1 + 1e-6).all()
        assert (kappa[1::2] > 1 - 1e-6).all()
    assert (roots < 0).sum() <= 1
    lowest, highest = gd.Whitened(eps, placement).gap(0.0), gd.Whitened(eps, placement).gap(np.inf)
    distance = roots - gd.logit(p_ref)
    slack = 8 * ROUNDING * (abs(gd.logit(p_ref)) + np.abs(roots))
    assert (distance >= lowest / (alpha * beta) * (1 - 1e-15) - slack).all()
    assert (distance <= highest / (alpha * beta) * (1 + 1e-15) + slack).all()


@given(strategies.betas, strategies.p_refs, strategies.all_eps, strategies.placements, strategies.alphas)
def test_fixed_points_are_fixed_by_the_step(beta, p_ref, eps, placement, alpha):
    recursion = gd.Recursion(beta, p_ref, gd.Whitened(eps, placement), alpha)
    found = gd.fixed_points(recursion)
    if found.status == gd.Status.DEGENERATE:
        return
    for root, multiplier in zip(found.log_odds[: found.count], found.multiplier[: found.count], strict=True):
        size = abs(root) + abs(gd.logit(p_ref))
        # the step multiplies the root's rounding error, u·size/|1 − Ω'/b|, by 1 − multiplier = α(1 − Ω'/b)
        assert abs(recursion.step(root) - root) <= 4 * C * ROUNDING * size * (1 + abs(multiplier))
        assert recursion.multiplier(root) == pytest.approx(multiplier, rel=1e-6, abs=1e-9)
    assert (found.stable[: found.count] == (np.abs(found.multiplier[: found.count]) < 1)).all()


@given(strategies.betas, strategies.p_refs, strategies.positive_eps)
def test_stable_means_beta_above_B(beta, p_ref, eps):
    """|h'(p*)| < 1 ⇔ β > B(p*) = p*(1−p*)|2p*−1| / (2[p*(1−p*)+ε]^{3/2})  [2503.06639v4, Lemma 1]."""
    found = gd.fixed_points(gd.Recursion(beta, p_ref, gd.Whitened(eps)))
    for root, stable, multiplier in zip(found.log_odds, found.stable, found.multiplier, strict=True):
        if np.isnan(root) or abs(abs(multiplier) - 1) < 1e-6:
            continue
        v = exact.variance(root)
        bound = v * abs(exact.mp.tanh(mp.mpf(float(root)) / 2)) / (2 * (v + mp.mpf(eps)) ** mp.mpf(1.5))
        assert bool(stable) == (beta > bound)


@given(strategies.betas, strategies.p_refs, strategies.positive_eps, st.floats(0.05, 1.0))
def test_two_kl_fixed_points_are_those_of_grpo_with_alpha_beta(beta, p_ref, eps, alpha):
    two = gd.fixed_points(gd.two_kl(beta, p_ref, alpha, eps))
    one = gd.fixed_points(gd.grpo(alpha * beta, p_ref, eps))
    if gd.Status.DEGENERATE in (two.status, one.status):
        return
    np.testing.assert_allclose(two.log_odds, one.log_odds, rtol=1e-15)
    # a relaxed iteration of the same map: its multiplier is (1−α) + α·(that of GRPO)
    np.testing.assert_allclose(two.multiplier, 1 - alpha + alpha * one.multiplier, rtol=1e-12, atol=1e-15)


@given(strategies.betas, strategies.p_refs, strategies.positive_eps, st.floats(0.05, 1.0), st.floats(-30, 30))
def test_two_kl_is_a_relaxed_iteration(beta, p_ref, eps, alpha, state):
    """One step goes the fraction α of the way that GRPO with αβ goes."""
    full = gd.grpo(alpha * beta, p_ref, eps).step(state)
    relaxed = gd.two_kl(beta, p_ref, alpha, eps).step(state)
    size = abs(state) + abs(gd.logit(p_ref)) + abs(full)
    assert abs(relaxed - (state + alpha * (full - state))) <= 8 * ROUNDING * size


@given(strategies.p_refs, strategies.positive_eps, st.floats(1.000001, 100.0), st.floats(0.05, 1))
def test_above_the_maximum_of_B_there_is_one_stable_fixed_point(p_ref, eps, factor, alpha):
    bound = 1 / (3 * np.sqrt(3 * eps) * (1 + 4 * eps)) / alpha
    found = gd.fixed_points(gd.two_kl(factor * bound, p_ref, alpha, eps))
    assert found.count == 1
    assert found.stable[0]


@given(strategies.powers_of_ten(-2, 2), st.floats(-25, 25))
def test_eps_to_zero(beta, anchor):
    """Where ε ≪ p*(1−p*) the fixed points move continuously into those without smoothing; one more goes to p = 1."""
    p_ref = gd.sigmoid(anchor)
    limit, smooth = gd.fixed_points(gd.grpo(beta, p_ref, 0.0)), gd.fixed_points(gd.grpo(beta, p_ref, 1e-40))
    if gd.Status.DEGENERATE in (limit.status, smooth.status):
        return
    assert smooth.count == limit.count + 1
    if limit.count:
        inner = limit.log_odds[:2] < 60  # e^60·1e-40 ≪ 1
        near = np.abs(np.abs(limit.multiplier[:2]) - 1) > 1e-4
        np.testing.assert_allclose(smooth.log_odds[:2][inner & near], limit.log_odds[:2][inner & near], rtol=1e-9)
    last = smooth.log_odds[smooth.count - 1]
    if last > 110:  # Ω = ε^(−1/2) there
        assert last == pytest.approx(anchor + 1e20 / beta, rel=1e-9)


# ---- folds and flips ------------------------------------------------------------------------------------------------


@given(st.floats(0.001, 0.999), strategies.positive_eps)
def test_folds_of_p_ref_are_where_the_count_changes(share, eps):
    """At the fold L_f of β: y_ref = y_f − g(y_f)/β. The count is 3 on one side of that p_ref and 1 on the other."""
    normalization = gd.Whitened(eps)
    beta = share * normalization.steepest()[1]
    for fold, side in zip(normalization.folds(beta), (-1, 1), strict=True):
        anchor = fold - normalization.gap(fold) / beta
        offset = 1e-7 * (1 + abs(anchor)) * (1 - share) ** 1.5
        if abs(anchor) > 30 or offset < 8 * ROUNDING / complement(anchor):  # p_ref as a float cannot say it
            continue
        inside, outside = (gd.fixed_points(gd.grpo(beta, gd.sigmoid(anchor + s * offset), eps)) for s in (side, -side))
        assert {int(inside.count), int(outside.count)} == {1, 3} or gd.Status.DEGENERATE in (
            inside.status,
            outside.status,
        )


@given(st.floats(0.001, 0.999), strategies.positive_eps)
def test_flips_are_the_mirror_image_of_folds(share, eps):
    """y_PD = −y_SN: Ω' is odd, so the multiplier is −1 at −L_f for the same β; there p_ref is that of the flip."""
    normalization = gd.Whitened(eps)
    beta = share * normalization.steepest()[1]
    for fold in normalization.folds(beta):
        anchor = -fold - normalization.gap(fold) / beta
        if anchor < -600:
            continue
        recursion = gd.grpo(beta, gd.sigmoid(anchor), eps)
        assert recursion.multiplier(-fold) == pytest.approx(-1, rel=1e-7)
        found = gd.fixed_points(recursion)
        assert found.log_odds[0] == pytest.approx(-fold, rel=1e-6, abs=1e-9 * abs(anchor))
        # and stability changes there as p_ref grows: the fixed point moves towards p = 1/2, where the slope is 0
        assert found.multiplier[0] == pytest.approx(-1, abs=1e-4 + 1e-9 * abs(anchor))


@given(strategies.powers_of_ten(-2, 2))
def test_fold_and_flip_without_smoothing(beta):
    """ε = 0: fold at y_ref = asinh β − √(1+β²)/β, flip at y_ref = −asinh β − √(1+β²)/β."""
    root = np.sqrt(1 + beta**2) / beta
    for side, expected in ((-1, 2), (1, 0)):
        anchor = 2 * (np.arcsinh(beta) - root) + side * 1e-6
        found = gd.fixed_points(gd.grpo(beta, gd.sigmoid(anchor), 0.0))
        assert found.count == expected
        assert found.status == (gd.Status.ABOVE_FOLD if expected == 0 else gd.Status.OK)
    for side in (-1, 1):
        anchor = 2 * (-np.arcsinh(beta) - root) + side * 1e-6
        assert gd.fixed_points(gd.grpo(beta, gd.sigmoid(anchor), 0.0)).stable[0] == (side > 0)


def test_fixed_points_of_the_paper():
    """At β = 5, p_ref = 1e-4 p = .0032787 (slope −1.73), .9998910 (8.39) and L = 54.04."""
    found = gd.fixed_points(gd.grpo(5.0, 1e-4))
    np.testing.assert_allclose(found.p[:2], [0.0032787, 0.9998910], atol=5e-8)
    np.testing.assert_allclose(found.multiplier[:2], [-1.73, 8.39], atol=5e-3)
    assert found.log_odds[2] == pytest.approx(54.04, abs=5e-3)
    np.testing.assert_array_equal(found.stable, [False, False, True])


# ---- statuses, shapes, kinds ----------------------------------------------------------------------------------------


def test_no_interior_fixed_point_is_a_status():
    above = gd.fixed_points(gd.grpo(0.5, 0.9, eps=0.0))
    assert (above.count, above.status) == (0, gd.Status.ABOVE_FOLD)
    mirror = gd.fixed_points(gd.Recursion(1.0, [0.1, 0.5], gd.Whitened(), [0.0, 1.0]))
    np.testing.assert_array_equal(mirror.status, [gd.Status.MIRROR, gd.Status.OK])
    np.testing.assert_array_equal(mirror.count, [0, mirror.count[1]])
    assert np.isnan(mirror.log_odds[:, 0]).all()
    for normalization in (gd.Whitened(0.0), gd.MeanOnly(), gd.FiniteGroup(8), gd.FiniteGroup(8, silent_groups="drop")):
        assert gd.fixed_points(gd.Recursion(1.0, 0.3, normalization, 0.0)).status == gd.Status.MIRROR
    assert len({status.meaning for status in gd.Status}) == len(gd.Status)


@pytest.mark.parametrize("beta", [1e-300, 1e-100, 1e-30, 1e-6, 1e6, 1e30, 1e300])
@pytest.mark.parametrize("p_ref", [1e-300, 1e-12, 0.2, 0.5, 0.9, 1 - 1e-12, 1 - 2**-53])
@pytest.mark.parametrize("eps", [1e-300, 1e-5, 1.0, 1e10])
@pytest.mark.parametrize("placement", ["variance", "std"])
def test_far_beyond_the_promised_range(beta, p_ref, eps, placement):
    """Whatever the floats: a count, ordered roots above p_ref, and no warning, unless the answer overflows."""
    with warnings.catch_warnings(), np.errstate(all="raise"):
        warnings.simplefilter("error")
        found = gd.fixed_points(gd.Recursion(beta, p_ref, gd.Whitened(eps, placement)))
    roots = found.log_odds[: found.count]
    highest = exact.logit(p_ref) + exact.whitened(eps, placement)(1e5) / mp.mpf(beta)
    if highest < 1e300:
        assert found.status in (gd.Status.OK, gd.Status.DEGENERATE)
        assert found.count in (1, 3) or found.status == gd.Status.DEGENERATE
        assert np.isfinite(roots).all()
    assert (roots >= gd.logit(p_ref)).all()
    assert (np.diff(roots) > 0).all()


@pytest.mark.parametrize("alpha", [1e-300, 1e-12, 1e-6])
def test_tiny_alpha_is_grpo_with_tiny_beta(alpha):
    found = gd.fixed_points(gd.two_kl(1.0, 0.2, alpha))
    assert found.status == gd.Status.OK
    assert found.log_odds[found.count - 1] == pytest.approx(1e5**0.5 / alpha, rel=1e-6)  # L_ref + ε^(−1/2)/(αβ)


def test_broadcasting_and_blocks():
    rng = np.random.default_rng(0)
    beta, p_ref, eps = (
        10 ** rng.uniform(-1, 1, (3, 1)),
        rng.uniform(0.01, 0.99, (1, 4)),
        np.array([1e-6, 1e-2, 0.1, 0.0]),
    )
    found = gd.fixed_points(gd.Recursion(beta, p_ref, gd.Whitened(eps)))
    assert found.log_odds.shape == found.multiplier.shape == found.stable.shape == found.p.shape == (3, 3, 4)
    assert found.count.shape == found.status.shape == (3, 4)
    for i in range(3):
        for j in range(4):
            one = gd.fixed_points(gd.grpo(float(beta[i, 0]), float(p_ref[0, j]), float(eps[j])))
            np.testing.assert_allclose(found.log_odds[:, i, j], one.log_odds, rtol=1e-14)
            assert found.count[i, j] == one.count
    assert one.log_odds.shape == (3,)
    assert np.ndim(one.count) == 0


@pytest.mark.parametrize(
    "shape", [(40_000,), (16_384,), (16_385,), (3, 16_385), (16_385, 3), (2, 3, 9_000), (20_000, 1)]
)
def test_block_boundaries(shape):
    """Blocks of 16,384 are an inner matter: every element is what it is alone."""
    beta = np.broadcast_to(np.geomspace(0.1, 10, shape[0]).reshape(-1, *[1] * (len(shape) - 1)), shape)
    eps = np.geomspace(1e-6, 1e-2, shape[-1])
    found = gd.fixed_points(gd.grpo(beta, 0.3, eps))
    assert found.count.shape == shape
    flat = gd.fixed_points(gd.grpo(beta.ravel()[::997], 0.3, np.broadcast_to(eps, shape).ravel()[::997]))
    np.testing.assert_allclose(found.log_odds.reshape(3, -1)[:, ::997], flat.log_odds, rtol=1e-14)
    assert np.isin(found.status, (gd.Status.OK, gd.Status.DEGENERATE)).all()


def test_empty_batches_lists_and_integers():
    empty = gd.fixed_points(gd.grpo(np.empty((0, 2)), 0.3))
    assert empty.log_odds.shape == (3, 0, 2)
    assert empty.count.shape == (0, 2)
    np.testing.assert_array_equal(
        gd.fixed_points(gd.grpo([1, 2], [0.2, 0.3])).log_odds,
        gd.fixed_points(gd.grpo(np.array([1.0, 2.0]), np.array([0.2, 0.3]))).log_odds,
    )


def test_float32_stays_float32():
    beta, p_ref = np.geomspace(0.3, 3, 20, dtype=np.float32), np.linspace(0.1, 0.6, 20, dtype=np.float32)
    single = gd.fixed_points(gd.grpo(beta, p_ref, 1e-2))
    double = gd.fixed_points(gd.grpo(beta.astype(float), p_ref.astype(float), 1e-2))
    assert single.log_odds.dtype == single.multiplier.dtype == single.p.dtype == np.float32
    np.testing.assert_array_equal(single.count, double.count)
    np.testing.assert_allclose(single.log_odds, double.log_odds, rtol=1e-4)


def test_groups_that_drop_silent_groups_can_have_four():
    """Room for four: its Ω' turns twice, and Ω is unbounded. Arrays of group sizes agree with single ones."""
    sizes = np.array([2, 4, 8, 16])
    found = gd.fixed_points(gd.Recursion(2.0, 0.01, gd.FiniteGroup(sizes, silent_groups="drop")))
    assert found.log_odds.shape == (4, 4)
    for i, size in enumerate(sizes):
        one = gd.fixed_points(gd.Recursion(2.0, 0.01, gd.FiniteGroup(int(size), silent_groups="drop")))
        np.testing.assert_allclose(found.log_odds[:, i], one.log_odds, rtol=1e-12)


def test_four_fixed_points():
    """The example of docs/paper.md: each solves L = L_ref + Ω/β, and stability alternates."""
    group = gd.FiniteGroup(1024, eps=1.0, eps_placement="variance", ddof=1, silent_groups="drop")
    found = gd.fixed_points(gd.Recursion(0.0217, gd.sigmoid(-41.5), group))
    assert (found.count, found.status) == (4, gd.Status.OK)
    np.testing.assert_allclose(found.log_odds, [-0.256, 1.579, 4.179, 5.628], atol=6e-4)
    np.testing.assert_array_equal(found.stable, [True, False, True, False])
    np.testing.assert_allclose(found.log_odds, -41.5 + group.gap(found.log_odds) / 0.0217, rtol=1e-12)


def test_the_ends_of_the_floats():
    """ε that almost vanishes still bounds Ω; β so small that the fixed point overflows still has it."""
    assert gd.fixed_points(gd.grpo(1.0, 0.2, np.array([1e-200, 1e-300, 5e-324]))).count.tolist() == [3, 3, 3]
    found = gd.fixed_points(gd.grpo(1e-307, 0.2))
    assert (found.count, found.status, found.log_odds[0], found.stable[0]) == (1, gd.Status.OK, np.inf, True)


def test_options_are_not_changed():
    beta, p_ref, eps = np.geomspace(0.1, 10, 50), np.linspace(0.1, 0.9, 50), np.geomspace(1e-6, 0.1, 50)
    before = [a.copy() for a in (beta, p_ref, eps)]
    gd.fixed_points(gd.grpo(beta, p_ref, eps))
    for a, b in zip((beta, p_ref, eps), before, strict=True):
        np.testing.assert_array_equal(a, b)

"""Flows: fixed points against 50 digits, what each estimator pulls with, trajectories, and where they end.

How accurate can the fixed point of k3 be? It solves log(β(1−p_ref)(1 − e^−d)(1 + e^L)/Ω) = 0 with a slope g' in L. β,
p_ref, L_ref and Ω are known to a few u each, the argument of Ω to u·(|L| + |L_ref|), so with η = C·u·(1 + |Ω'/Ω|·|L|)
    |δL| ≤ C·u·(|L_ref| + d + |L|) + η/g'.
"""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import grpo_dynamics as gd
from grpo_dynamics.arrays import to_numpy
from grpo_dynamics.logodds import bernoulli_variance, complement
from grpo_dynamics.theory.flow import DIVERGENCES, Flow
from grpo_dynamics.theory.solvers.flow_fixed_points import forward_fixed_point
from tests import exact, strategies
from tests.exact import ROUNDING, mp

C = 16
REVERSE = [kl for kl, divergence in DIVERGENCES.items() if divergence == "reverse"]


def exact_pull(kl, p_ref, log_odds):
    """R with 50 digits, from its definition and no rearrangement."""
    p, p_ref = exact.sigmoid(log_odds), mp.mpf(float(p_ref))
    if DIVERGENCES[kl] == "reverse":
        return p * (1 - p) * (mp.mpf(log_odds) - mp.log(p_ref / (1 - p_ref)))
    return p - p_ref if DIVERGENCES[kl] == "forward" else mp.zero


@given(
    st.sampled_from(list(DIVERGENCES)),
    strategies.betas,
    strategies.p_refs,
    st.sampled_from(strategies.NORMALIZATIONS),
    st.floats(-40, 40),
)
def test_rate_step_and_multiplier_are_their_definitions(kl, beta, p_ref, row, x):
    """dL/dt = p(1−p)Ω − βR, the step L + (Ω/β − R/(p(1−p))), and its derivative by differences, all with 50 digits."""
    flow = Flow(beta, p_ref, row.normalization, kl)
    b, v = mp.mpf(float(beta)), exact.variance(x)
    drive, pull = v * row.gap(x), b * exact_pull(kl, p_ref, x)
    noise = 64 * ROUNDING * (1 + abs(x) + abs(exact.logit(float(p_ref)))) * (drive + abs(pull))
    assert abs(float(flow.rate(x)) - (drive - pull)) <= noise

    def step(y):
        return y + row.gap(y) / b - exact_pull(kl, p_ref, y) / exact.variance(y)

    slack = 64 * ROUNDING * (1 + abs(x) + abs(exact.logit(float(p_ref))))
    size = abs(mp.mpf(x)) + row.gap(x) / b + abs(pull) / b / v
    assert abs(float(flow.step(x)) - step(mp.mpf(x))) <= slack * size
    h = mp.mpf(10) ** -15
    with mp.workdps(100):
        slope = (step(mp.mpf(x) + h) - step(mp.mpf(x) - h)) / (2 * h)
        terms = 1 + row.gap(x) / b + abs(exact_pull(kl, p_ref, x)) / v + abs(1 - slope)
    order = 64 if isinstance(row.normalization, gd.FiniteGroup) else 1
    assert abs(float(flow.multiplier(x)) - slope) <= order * slack * terms


@given(st.sampled_from(REVERSE), strategies.betas, strategies.p_refs, st.sampled_from(strategies.NORMALIZATIONS))
def test_what_pulls_with_the_exact_divergence_has_the_points_of_grpo(kl, beta, p_ref, row):
    """L* = L_ref + Ω/β for the flow and for the recursion; the step is GRPO's; only flips make no difference."""
    flow, rec = Flow(beta, p_ref, row.normalization, kl), gd.Recursion(beta, p_ref, row.normalization)
    ours, theirs = gd.fixed_points(flow), gd.fixed_points(rec)
    np.testing.assert_array_equal(ours.log_odds, theirs.log_odds)
    np.testing.assert_array_equal(ours.multiplier, theirs.multiplier)
    assert ours.count == theirs.count
    assert ours.status == theirs.status
    np.testing.assert_array_equal(ours.stable, theirs.multiplier < 1)
    assert flow.step(0.3) == pytest.approx(rec.step(0.3), rel=1e-13)


def k3_root(gap, beta, p_ref, start):
    """The fixed point under k3 next to ``start`` to 45 digits, by Newton's method on the logarithm of the two sides."""
    beta, p_ref = mp.mpf(float(beta)), mp.mpf(float(p_ref))
    with mp.workdps(90):

        def excess(x):
            return mp.log(beta * (exact.sigmoid(x) - p_ref) / (exact.variance(x) * gap(x)))

        x, h = mp.mpf(start), mp.mpf(10) ** -30
        for _ in range(80):
            slope = (excess(x + h) - excess(x - h)) / (2 * h)
            move = excess(x) / slope
            x -= move
            if abs(move) < mp.mpf(10) ** -45 * abs(x):
                return x, slope
    raise AssertionError(f"no convergence near {start}")


def k3_errors(row, beta, p_ref):
    """(relative error, its bound) of the fixed point under k3, or None where there is none."""
    flow = Flow(beta, p_ref, row.normalization, "k3")
    found = gd.fixed_points(flow)
    if found.status == gd.Status.WEAK_PULL:
        assert found.count == 0
        return None
    assert found.status == gd.Status.OK
    assert found.count == 1
    assert np.isnan(found.log_odds[1:]).all()
    value, anchor = float(found.log_odds[0]), exact.logit(float(p_ref))
    root, slope = k3_root(row.gap, beta, p_ref, value)
    rate = abs(exact.slope(row.gap, root) / row.gap(root))
    group = getattr(row.normalization, "group_size", None) or 1
    eta = C * ROUNDING * (1 + rate * (abs(root) + abs(anchor)) + group / 8)
    bound = C * ROUNDING * (abs(anchor) + (root - anchor) + abs(root)) + eta / slope
    return float(abs(value - root) / abs(root)), float(bound / abs(root))


@given(strategies.betas, strategies.p_refs, st.sampled_from(strategies.NORMALIZATIONS))
def test_k3_against_50_digits(beta, p_ref, row):
    errors = k3_errors(row, beta, p_ref)
    if errors is not None:
        assert errors[0] <= errors[1]


def test_relative_error_of_600_random_flows():
    """≤ 1e-13 in log-odds where the condition number allows it; -s prints the largest."""
    rng = np.random.default_rng(3)
    rows = [row for row in strategies.NORMALIZATIONS if "drop" not in row.name]
    found = []
    for i in range(600):
        p_ref = float(np.clip(gd.sigmoid(rng.uniform(-strategies.EDGE, strategies.EDGE)), 1e-12, 1 - 1e-12))
        found.append(k3_errors(rows[i % len(rows)], float(10 ** rng.uniform(-3, 3)), p_ref))
    assert all(error <= bound for error, bound in found)
    well = [error for error, bound in found if bound <= 1e-13]
    print(f"{len(well)} of {len(found)} well-conditioned: largest relative error {max(well):.1e}")
    assert len(well) > 300
    assert max(well) <= 1e-13


@given(strategies.betas, strategies.p_refs)
def test_k3_without_smoothing_is_a_quadratic(beta, p_ref):
    """β²(p − p_ref)² = p(1−p): the closed form of notebook 8, in 50 digits."""
    found = gd.fixed_points(Flow(beta, p_ref, gd.Whitened(0.0), "k3"))
    b, r = mp.mpf(float(beta)) ** 2, mp.mpf(float(p_ref))
    p = (1 + 2 * b * r + mp.sqrt(1 + 4 * b * r * (1 - r))) / (2 * (1 + b))
    q = (b * (1 - r) ** 2) / ((1 + b) * p - b * r) - b * (1 - r) ** 2 / ((1 + b) * p - b * r) + 1 - p
    root = mp.log(p / q)
    size = abs(root) + abs(exact.logit(float(p_ref)))
    assert abs(float(found.log_odds[0]) - root) <= 64 * ROUNDING * (1 + size)


def test_the_numbers_of_notebook_8():
    """p_ref = 0.1, β = 1, groups of 8: what a sampled tabular policy was seen to do."""
    eight = gd.FiniteGroup(8)
    assert gd.fixed_points(Flow(1.0, 0.1, eight)).p[0] == pytest.approx(0.41953, abs=5e-6)
    assert gd.fixed_points(Flow(1.0, 0.1, eight, "k3")).p[0] == pytest.approx(0.55959, abs=5e-6)
    small = gd.fixed_points(Flow(0.04, 0.1, eight, "k3")).one_minus_p[0]
    assert small == pytest.approx(0.04 * 0.9 / np.sqrt(7), rel=0.05)


@pytest.mark.parametrize("row", strategies.NORMALIZATIONS, ids=lambda row: row.name)
def test_the_number_of_points_under_k3(row):
    """p(1−p)Ω − β(p−p_ref) on a dense grid: one sign change, or none where dropped groups leave k3 too weak at p = 1.

    With Ω of dropped groups p(1−p)Ω tends to c = Ω_kept(1)/G at p = 1. The flow in Bernstein form has coefficients
    that change sign at most once, and do where the last, c − β(1−p_ref), is negative.
    """
    x = np.linspace(-45, 45, 6001)
    drive = bernoulli_variance(x) * row.normalization.gap(x)
    for beta, p_ref in itertools.product((0.01, 0.2, 0.34, 1.1, 1.3, 30.0), (1e-9, 0.05, 0.5, 0.99)):
        flow = Flow(beta, p_ref, row.normalization, "k3")
        found = gd.fixed_points(flow)
        signs = np.sign(flow.rate(x))
        changes = np.count_nonzero(signs[1:] * signs[:-1] < 0) + np.count_nonzero(signs == 0)
        assert changes == found.count
        at_one = drive[-1] if "drop" in row.name else 0.0
        assert (found.status == gd.Status.WEAK_PULL) == (beta * (1 - p_ref) <= at_one)
        assert found.stable[0] == (found.count == 1)


@pytest.mark.parametrize("row", strategies.NORMALIZATIONS, ids=lambda row: row.name)
def test_the_push_up_never_rises_and_the_push_down_never_falls(row):
    """d log w⁺/dL = r − p ≤ 0 and d log w⁻/dL = r + 1 − p ≥ 0, r = d log Ω/dL: why k3 has one fixed point at most.

    It is also what its solver needs: the slope of the equation in log(e^d − 1) is e^−d + (1 − e^−d)(p − r).
    """
    x = np.concatenate([np.linspace(-45, 45, 4001), [-300.0, 300.0]])
    _, rate = row.normalization.gap_and_rate(x)
    slack = 1e-12
    assert (rate <= gd.sigmoid(x) + slack).all()
    assert (rate >= -complement(x) - slack).all()


@given(strategies.finite_groups, st.floats(-30, 30))
def test_the_same_for_any_group(row, log_odds):
    _, rate = row.normalization.gap_and_rate(log_odds)
    slack = 1e-14 * (1 + row.normalization.group_size)
    assert -complement(log_odds) - slack <= rate <= gd.sigmoid(log_odds) + slack


def test_dropped_groups_need_the_argument_of_the_pushes():
    """p(1−p)·Ω is not concave for dropped groups of 6 or more: a second difference above 0 in the middle."""
    p = np.linspace(0.01, 0.99, 197)
    for size, concave in ((5, True), (6, False), (16, False)):
        drive = p * (1 - p) * gd.FiniteGroup(size, silent_groups="drop").gap(gd.logit(p))
        assert (np.diff(drive, 2) < 1e-12).all() == concave


def test_dropped_groups_leave_k3_too_weak_at_one():
    """c = √(G−1)/G for ε = 0: at β(1−p_ref) just below there is no fixed point, just above there is one."""
    c = np.sqrt(7) / 8
    beta = np.array([c / 0.9 * (1 - 1e-9), c / 0.9 * (1 + 1e-9)])
    found = gd.fixed_points(Flow(beta, 0.1, gd.FiniteGroup(8, silent_groups="drop"), "k3"))
    assert found.status.tolist() == [gd.Status.WEAK_PULL, gd.Status.OK]
    assert found.one_minus_p[0, 1] < 1e-8
    where = gd.limit(Flow(beta, 0.1, gd.FiniteGroup(8, silent_groups="drop"), "k3"))
    assert where.kind.tolist() == [gd.LimitKind.ONE, gd.LimitKind.FIXED_POINT]


def test_extreme_references_do_not_saturate():
    """p_ref = 1e-12 and 1 − 1e-12, β from 1e-3 to 1e3: the rate vanishes at the point, and changes sign around it."""
    beta, p_ref = np.geomspace(1e-3, 1e3, 13)[:, None], np.array([1e-12, 1 - 1e-12])
    for normalization in (gd.Whitened(), gd.Whitened(0.0), gd.MeanOnly(), gd.FiniteGroup(8)):
        flow = Flow(beta, p_ref, normalization, "k3")
        root = gd.fixed_points(flow).log_odds[0]
        assert np.all(root > gd.logit(p_ref))
        assert np.all(flow.rate(root + 1e-3) < 0)
        assert np.all(flow.rate(root - np.minimum(1e-3, (root - gd.logit(p_ref)) / 2)) > 0)


@pytest.mark.parametrize("kl", ["k1", "none"])
def test_without_a_pull_there_is_no_point(kl):
    flow = Flow([0.1, 2.0], 0.3, gd.FiniteGroup(4), kl)
    found = gd.fixed_points(flow)
    assert (found.status == gd.Status.NO_PULL).all()
    assert (found.count == 0).all()
    assert (gd.limit(flow, 0.9).kind == gd.LimitKind.ONE).all()
    assert "p goes to 1" in gd.Status.NO_PULL.meaning
    np.testing.assert_array_equal(flow.rate(0.4), flow.rate(0.4)[::-1])


# ---- where it goes -------------------------------------------------------------------------------------------------


@given(
    st.sampled_from(["exact", "k3"]), strategies.betas, strategies.p_refs, strategies.positive_eps, st.floats(-30, 30)
)
def test_limit_is_the_next_point_in_the_direction_of_the_rate(kl, beta, p_ref, eps, x):
    flow = Flow(beta, p_ref, gd.Whitened(eps), kl)
    found, where = gd.fixed_points(flow), gd.limit(flow, float(gd.sigmoid(x)))
    start = float(gd.logit(gd.sigmoid(x)))
    roots = found.log_odds[: found.count]
    if found.status != gd.Status.OK or np.min(np.abs(roots - start)) < 1e-9:
        return
    assert where.kind == gd.LimitKind.FIXED_POINT
    goal = float(where.log_odds)
    assert goal in roots
    assert found.stable[np.flatnonzero(roots == goal)[0]]
    between = (roots > min(start, goal)) & (roots < max(start, goal))
    assert not between.any()


def test_limit_at_points_and_above_the_last():
    """GRPO at β = 1, p_ref = 0.2 has points .6813, .9347 (unstable), ≈ 1; at ε = 0 above the last one p goes to 1."""
    flow = Flow(1.0, 0.2)
    points = gd.fixed_points(flow)
    where = gd.limit(flow, [0.01, 0.68, 0.93, 0.94, 0.99, float(points.p[1])])
    np.testing.assert_array_equal(where.log_odds, points.log_odds[[0, 0, 0, 2, 2, 1]])
    assert gd.limit(Flow(1.0, 0.2, gd.Whitened(0.0)), 0.99).kind == gd.LimitKind.ONE
    assert gd.limit(Flow([0.5, 1.0], 0.2, kl="k3"), [[0.1], [0.9], [0.99]]).p.shape == (3, 2)


# ---- trajectories --------------------------------------------------------------------------------------------------


@given(
    st.sampled_from(["exact", "k3", "none"]), st.floats(0.02, 20), st.floats(0.01, 0.99), st.floats(0.01, 0.99),
    st.floats(0.05, 0.9),
)  # fmt: skip
def test_time_is_the_integral_of_one_over_the_rate(kl, beta, p_ref, p0, share):
    """From L_0 to L takes ∫ dL/rate: the inverse of integrate, by quadrature of another kind."""
    from scipy.integrate import quad

    flow = Flow(beta, p_ref, gd.FiniteGroup(8), kl)
    start, goal = float(gd.logit(p0)), float(gd.limit(flow, p0).log_odds)
    end = start + share * (min(max(goal, -8.0), 8.0) - start)
    if abs(end - start) < 1e-3:
        return
    time, _ = quad(lambda x: 1 / float(flow.rate(x)), start, end, epsabs=0, epsrel=1e-12, limit=200)
    reached = float(flow.integrate(time, p0).log_odds)
    # what is off at the slowest place of the path has grown by the ratio of the rates when it arrives
    rates = np.abs(flow.rate(np.linspace(start, end, 500)))
    growth = 1 + float((rates[-1] / rates).max())
    assert reached == pytest.approx(end, abs=1e-11 * growth * (1 + rates[-1] * time))


def test_mean_only_without_a_pull_is_solved():
    """dL/dt = p(1−p) has the solution L + 2 sinh L = L_0 + 2 sinh L_0 + t, and whitening dL/dt = 1/(2 cosh(L/2))."""
    t = np.array([0.0, 0.3, 5.0, 400.0, 1e9])
    path = Flow(0.0, 0.5, gd.MeanOnly(), "none").integrate(t, log_odds0=-2.0).log_odds
    np.testing.assert_allclose(2 * path + 2 * np.sinh(path), -4 + 2 * np.sinh(-2.0) + t, rtol=1e-11)
    path = Flow(0.0, 0.5, gd.Whitened(0.0), "none").integrate(t, log_odds0=-2.0).log_odds
    np.testing.assert_allclose(4 * np.sinh(path / 2), 4 * np.sinh(-1.0) + t, rtol=1e-11)


@pytest.mark.parametrize("kl", ["exact", "k3"])
def test_all_paths_end_at_the_limit(kl):
    """Long after 1/β every path is at the point that limit names, wherever it starts; and stays there."""
    flow = Flow(np.array([0.3, 1.0, 5.0, 300.0])[:, None], np.array([1e-6, 0.2, 0.9]), gd.FiniteGroup(8), kl)
    for p0 in (1e-4, 0.5, 1 - 1e-6):
        path = flow.integrate([1e12, 1e13], p0).log_odds
        np.testing.assert_allclose(path[0], gd.limit(flow, p0).log_odds, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(path[1], path[0], rtol=1e-12, atol=1e-12)


def test_shapes_and_starts():
    flow = Flow([0.5, 1.0, 2.0], [[0.1], [0.2]], kl="k3")
    assert flow.integrate(3.0).p.shape == (2, 3)
    path = flow.integrate([0.0, 1.0, 1.0, 2.0], p0=0.4)
    assert path.p.shape == (4, 2, 3)
    np.testing.assert_allclose(path.p[0], 0.4, rtol=1e-15)
    np.testing.assert_array_equal(path.p[1], path.p[2])
    one = Flow(1.0, 0.2, kl="k3").integrate([0.0, 1.0, 2.0], p0=0.4)
    np.testing.assert_allclose(one.p, path.p[[0, 1, 3], 1, 1], rtol=1e-12)
    np.testing.assert_allclose(one.p + one.one_minus_p, 1.0, rtol=1e-15)
    with pytest.raises(ValueError, match="t must be ascending"):
        flow.integrate([1.0, 0.5])
    with pytest.raises(ValueError, match="t must be finite times >= 0"):
        flow.integrate(-1.0)
    with pytest.raises(ValueError, match="give p0 or log_odds0, not both"):
        flow.integrate(1.0, p0=0.1, log_odds0=0.0)
    with pytest.raises(ValueError, match="log_odds0 must be a finite number"):
        flow.integrate(1.0, log_odds0=np.inf)


# ---- options -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beta": 0.0, "p_ref": 0.2}, 'beta must be a finite number > 0 .*kl="none".*got 0.0'),
        ({"beta": [1.0, float("nan")], "p_ref": 0.2}, "beta must be .* got nan at index"),
        ({"beta": -1.0, "p_ref": 0.2, "kl": "none"}, "beta must be a finite number >= 0, got -1.0"),
        ({"beta": 1.0, "p_ref": 1.0}, "p_ref must be a probability strictly between 0 and 1, got 1.0"),
        ({"beta": 1.0, "p_ref": 0.2, "kl": "k4"}, "kl must be one of 'exact', 'k1', .* got 'k4'"),
        ({"beta": 1.0, "p_ref": 0.2, "normalization": "whitened"}, "normalization must be a Normalization"),
        ({"beta": [1.0, 2.0], "p_ref": [0.1, 0.2, 0.3]}, "shapes must broadcast together"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        Flow(**options)


def test_nan_does_not_pass():
    with pytest.raises(ValueError, match="log_odds must be a number, not NaN"):
        Flow(1.0, 0.2).rate(np.nan)
    with pytest.raises(ValueError, match=r"dynamics must be a Recursion .* or a Flow"):
        gd.fixed_points("flow")


def test_the_ends():
    """At L = ±∞ the rate is that of p = 1 and p = 0: −β(1 − p_ref) and β·p_ref for k3."""
    flow = Flow(2.0, 0.25, gd.FiniteGroup(8), "k3")
    assert flow.rate(np.inf) == -1.5
    assert flow.rate(-np.inf) == 0.5
    assert Flow(2.0, 0.25, gd.Whitened(0.0)).rate(np.inf) == 0.0


@pytest.mark.parametrize("kl", ["exact", "k3", "none"])
def test_torch(kl):
    """Tensors in, tensors out, the same numbers."""
    torch = pytest.importorskip("torch")
    beta, p_ref = np.geomspace(0.05, 20, 12)[:, None], np.array([1e-6, 0.2, 0.9])
    ours = Flow(torch.tensor(beta), torch.tensor(p_ref), gd.FiniteGroup(8, 1e-4, "std", 1), kl)
    numpy = Flow(beta, p_ref, gd.FiniteGroup(8, 1e-4, "std", 1), kl)
    found, expected = gd.fixed_points(ours), gd.fixed_points(numpy)
    assert isinstance(found.log_odds, torch.Tensor)
    np.testing.assert_allclose(to_numpy(found.log_odds), expected.log_odds, rtol=1e-11)
    np.testing.assert_array_equal(to_numpy(found.stable), expected.stable)
    np.testing.assert_allclose(to_numpy(gd.limit(ours).log_odds), gd.limit(numpy).log_odds, rtol=1e-11)
    path = ours.integrate([0.5, 4.0])
    np.testing.assert_allclose(to_numpy(path.log_odds), numpy.integrate([0.5, 4.0]).log_odds, rtol=1e-10, atol=1e-12)


def test_many_at_once_are_the_same_as_one():
    """Blocks, stragglers and padding: 1,000 random flows, each against itself alone."""
    rng = np.random.default_rng(5)
    beta, p_ref = 10 ** rng.uniform(-3, 3, 1000), gd.sigmoid(rng.uniform(-27, 27, 1000))
    all_of_them = gd.fixed_points(Flow(beta, p_ref, gd.FiniteGroup(16), "k3"))
    for i in range(0, 1000, 40):
        alone = gd.fixed_points(Flow(float(beta[i]), float(p_ref[i]), gd.FiniteGroup(16), "k3"))
        assert all_of_them.log_odds[0, i] == pytest.approx(float(alone.log_odds[0]), rel=1e-14, abs=1e-14)
    root, _, present, converged = forward_fixed_point(gd.FiniteGroup(16), beta, p_ref, 1000)
    assert present.all()
    assert converged.all()
    assert np.all(complement(root) > 0)

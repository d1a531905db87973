"""All cycles up to a period, against 50 digits, symbolic dynamics and plain sign changes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import grpo_dynamics as gd
from grpo_dynamics.theory.orbits.cycles import CyclesStatus, cycles
from tests import exact, strategies
from tests.exact import mp


def counts(found: object, period: int) -> list[int]:
    return np.bincount(found.period[found.period > 0], minlength=period + 1)[1:].tolist()


def exact_cycle(gap: exact.Gap, beta: float, p_ref: float, start: list[float]) -> tuple[list, object]:
    """The cycle next to these points to 45 digits, by Newton's method on L_0 alone, and its multiplier."""
    beta, anchor = mp.mpf(beta), exact.logit(p_ref)

    def turn(x: object) -> tuple[object, object, list]:
        slope, points = mp.one, []
        for _ in start:
            points.append(x)
            slope *= exact.slope(gap, x) / beta
            x = anchor + gap(x) / beta
        return x, slope, points

    x = mp.mpf(start[0])
    for _ in range(60):
        end, slope, points = turn(x)
        step = (end - x) / (slope - 1)
        x -= step
        if abs(step) < mp.mpf(10) ** -44:
            return points, slope
    raise AssertionError("no convergence")


def test_the_3_cycle_of_beta_10_to_50_digits():
    """β = 10, p_ref = 1e-5: it attracts, and beside it is the one it was born with, which does not."""
    found = cycles(gd.grpo(10.0, 1e-5), 3)
    assert counts(found, 3) == [3, 1, 2]
    assert found.stable[found.period == 3].tolist() == [True, False]
    for i in np.flatnonzero(found.period == 3):
        points, multiplier = exact_cycle(exact.whitened(1e-5), 10.0, 1e-5, found.log_odds[i].tolist())
        np.testing.assert_allclose(found.p[i], [float(exact.sigmoid(x)) for x in points], rtol=1e-13)
        np.testing.assert_allclose(found.log_odds[i], [float(x) for x in points], atol=2e-14)
        assert found.multiplier[i] == pytest.approx(float(multiplier), rel=1e-12)
    stable = np.flatnonzero(found.period == 3)[0]
    golden = [1.2239867605956323e-05, 0.99993822452343030, 0.57222371885718032]  # of 50 digits, in order
    np.testing.assert_allclose(found.p[stable], golden, rtol=1e-13)
    assert found.multiplier[stable] == pytest.approx(-0.43258848428658703, abs=1e-12)


def test_the_2_cycle_of_beta_5():
    """β = 5, p_ref = 1e-3: {0.0023380, 0.0587158}."""
    found = cycles(gd.grpo(5.0, 1e-3), 12)
    assert counts(found, 12) == [3, 1] + [0] * 10
    np.testing.assert_allclose(found.p[3, :2], [0.0023380, 0.0587158], atol=5e-8)
    points, multiplier = exact_cycle(exact.whitened(1e-5), 5.0, 1e-3, found.log_odds[3, :2].tolist())
    np.testing.assert_allclose(found.log_odds[3, :2], [float(x) for x in points], rtol=3e-15)
    assert found.multiplier[3] == pytest.approx(float(multiplier), rel=1e-12)


def test_in_the_window_of_period_3_cycles_are_those_of_the_golden_mean_shift():
    """In the 3-window all other cycles of the unimodal part form the shift in which one symbol may not follow itself.

    It has (Lucas) tr([[1, 1], [1, 0]]^n) points of period n, so Σ μ(n/d) L_d / n cycles: 1, 1, 1, 1, 2, 2, 4, 5, …
    Beside it: two more fixed points, and the stable 3-cycle. Of its cycles the fixed point is counted already.
    """
    lucas = [round(((1 + 5**0.5) / 2) ** n + ((1 - 5**0.5) / 2) ** n) for n in range(1, 13)]
    prime: list[int] = []
    for n in range(1, 13):
        prime.append((lucas[n - 1] - sum(d * prime[d - 1] for d in range(1, n) if n % d == 0)) // n)
    assert prime[:8] == [1, 1, 1, 1, 2, 2, 4, 5]
    want = [prime[0] + 2, prime[1], prime[2] + 1, *prime[3:]]
    found = cycles(gd.grpo(10.0, 1e-5), 12)
    assert counts(found, 12) == want
    assert found.status == CyclesStatus.COMPLETE


@pytest.mark.parametrize("eps", [0.0, 1e-5])
def test_beyond_the_crisis_cycles_are_those_of_the_full_shift(eps):
    """Where h(0) < −u, below the mirror image of the upper unstable fixed point u, h takes [−u, a] and [b, u], two
    pieces, each onto [−u, u]: 2^k points of period k, and nothing else but the fixed point beyond u."""
    beta, p_ref = 2.0, 1e-5
    points = gd.fixed_points(gd.grpo(beta, p_ref, eps)).log_odds
    assert gd.grpo(beta, p_ref, eps).step(0.0) < -points[1]
    found = cycles(gd.grpo(beta, p_ref, eps), 10)
    necklaces = [2, 1, 2, 3, 6, 9, 18, 30, 56, 99]  # binary Lyndon words
    assert counts(found, 10) == [necklaces[0] + (eps > 0), *necklaces[1:]]
    assert not found.stable[found.period > 1].any()
    assert np.abs(found.multiplier[found.period == 10]).max() > 1e6


def test_unstable_cycles_are_exact():
    """Multipliers beyond 1e6: each point is right to rounding, though h^10 from the first one is not."""
    recursion = gd.grpo(2.0, 1e-5)
    found = cycles(recursion, 8)
    for i in np.flatnonzero(found.period == 8)[::7]:
        points, multiplier = exact_cycle(exact.whitened(1e-5), 2.0, 1e-5, found.log_odds[i].tolist())
        np.testing.assert_allclose(found.log_odds[i], [float(x) for x in points], rtol=1e-14, atol=1e-14)
        assert found.multiplier[i] == pytest.approx(float(multiplier), rel=1e-11)


def test_a_forced_period_forces_those_behind_it():
    """Sharkovskii: a cycle of period 3 brings all, of 5 all but 3, …: k ▷ … in 3, 5, 7, …, 6, 10, …, 8, 4, 2, 1."""
    order = [3, 5, 7, 6, 8, 4, 2, 1]
    p_ref = np.geomspace(1e-2, 2e-5, 60)
    for recursion in (gd.grpo(5.0, p_ref), gd.two_kl(5.0, p_ref / 3, 0.9)):
        found = cycles(recursion, 8)
        for system in np.flatnonzero(found.status == CyclesStatus.COMPLETE):
            present = [k in found.period[:, system] for k in order]
            assert present == sorted(present)


def brute(recursion: gd.Recursion, top: float, period: int) -> list[int]:
    """Sign changes of h^k(L) − L from the lowest possible cycle to ``top``."""
    low = gd.logit(recursion.p_ref) + recursion.normalization.gap(0.0) / (recursion.alpha * recursion.beta) - 1e-4
    x = np.linspace(low, top, 50_003)
    y, changes = x, []
    for _ in range(period):
        y = np.minimum(recursion.step(y), 1e6)
        changes.append(int(np.count_nonzero(np.diff(y >= x))))
    return changes


@settings(max_examples=40)
@given(
    strategies.powers_of_ten(-0.5, 1.2),
    strategies.powers_of_ten(-6, -0.5),
    st.just(1.0) | st.floats(0.2, 1.0),
    st.sampled_from([row for row in strategies.NORMALIZATIONS if "64" not in row.name]),
)
def test_none_is_missed(beta, p_ref, alpha, row):
    """Every sign change on a fine grid is a root of h^k(L) − L, which is a point of a cycle of a period dividing k.

    The grid sees roots as long as they are farther apart than it is fine: not those of large multipliers.
    """
    recursion = gd.Recursion(beta, p_ref, row.normalization, alpha)
    found = cycles(recursion, 5)
    points = gd.fixed_points(recursion)
    np.testing.assert_array_equal(found.log_odds[found.period == 1, 0], points.log_odds[: int(points.count)])
    if points.count == 0:
        assert found.count == 0
        return
    fixed = points.log_odds[: int(points.count)]
    # beyond an unstable fixed point above 0 orbits only rise: what is there are fixed points
    repels = fixed[(points.multiplier[: int(points.count)] > 1) & (fixed > 0)]
    top = (repels[0] if repels.size else fixed[-1]) + 1e-3
    if top > 60 or found.status != CyclesStatus.COMPLETE:
        return
    beyond = np.count_nonzero(fixed > top)
    for k, changes in enumerate(brute(recursion, float(top), 5), start=1):
        divides = (found.period > 0) & (k % np.maximum(found.period, 1) == 0)
        roots = int(found.period[divides].sum()) - beyond
        if found.log_odds[divides].size and np.nanmax(np.nan_to_num(found.log_odds[divides])) > top:
            roots = int(sum((found.log_odds[i, : found.period[i]] <= top).sum() for i in np.flatnonzero(divides)))
        assert changes <= roots
        if np.abs(found.multiplier[divides]).max(initial=0.0) < 500:
            assert changes == roots


@settings(max_examples=60)
@given(
    strategies.powers_of_ten(-1, 1.3),
    strategies.p_refs,
    st.just(1.0) | st.floats(0.2, 1.0),
    st.sampled_from(strategies.NORMALIZATIONS),
)
def test_each_is_a_cycle_of_its_period(beta, p_ref, alpha, row):
    recursion = gd.Recursion(beta, p_ref, row.normalization, alpha)
    found = cycles(recursion, 4)
    assert found.count == np.count_nonzero(found.period)
    assert np.all(np.diff(found.period) >= 0)
    for i, period in enumerate(found.period):
        orbit = found.log_odds[i, :period]
        np.testing.assert_allclose(recursion.step(orbit), np.roll(orbit, -1), rtol=1e-12, atol=1e-12)
        assert np.isnan(found.log_odds[i, period:]).all()
        if period > 1:
            assert np.argmin(orbit) == 0
            assert np.abs(np.subtract.outer(orbit, orbit))[~np.eye(period, dtype=bool)].min() > 0
            assert found.multiplier[i] == pytest.approx(np.prod(recursion.multiplier(orbit)), rel=1e-9)
        assert found.stable[i] == (abs(found.multiplier[i]) < 1)


def test_period_doubling_step_by_step():
    """β = 5, ε = 1e-5: the fixed point flips at p_ref = .001267, the 2-cycle at .000211, the 4-cycle at .000163."""
    found = cycles(gd.grpo(5.0, np.array([2e-3, 5e-4, 1.8e-4, 1.57e-4])), 8)
    for k, system in ((1, 0), (2, 1), (4, 2), (8, 3)):
        column = found.period[:, system]
        lower = (column > 0) & (found.log_odds[:, 0, system] < 0)
        assert sorted(column[lower & (column <= k)].tolist()) == [2**i for i in range(k.bit_length())]
        assert column[found.stable[:, system] & (found.log_odds[:, 0, system] < 0)].tolist() == [k]


def test_at_a_flip_it_is_undecided():
    """On the flip, where the 2-cycle is the fixed point, and on the fold, where two fixed points are one."""
    flip = gd.stable_betas(1e-3)[0][0]
    found = cycles(gd.grpo(flip, 1e-3), 3)
    assert (found.status, found.complete) == (CyclesStatus.DEGENERATE, 1)
    beside = cycles(gd.grpo(flip * np.array([1 - 1e-6, 1 + 1e-6]), 1e-3), 2)
    assert beside.status.tolist() == [0, 0]
    assert beside.count.tolist() == [4, 3]
    fold = gd.Whitened(1e-5).folds(2.0)[0]  # where the multiplier is 1; the p_ref that makes it a fixed point:
    double = gd.grpo(2.0, gd.sigmoid(fold - gd.Whitened(1e-5).gap(fold) / 2.0))
    assert gd.fixed_points(double).status == gd.Status.DEGENERATE
    assert (cycles(double, 2).status, cycles(double, 2).complete) == (CyclesStatus.DEGENERATE, 0)


def test_where_there_is_nothing():
    for recursion in (gd.mirror_grpo(1.0, 0.2), gd.grpo(0.5, 0.9, eps=0.0)):
        found = cycles(recursion, 5)
        assert (found.count, found.status, found.log_odds.shape) == (0, CyclesStatus.COMPLETE, (0, 5))
    assert cycles(gd.dr_grpo(1.0, [0.2, 0.3]), 3).period.tolist() == [[1, 1]]
    empty = cycles(gd.grpo(1.0, np.zeros((0, 2)) + 0.5), 3)
    assert (empty.count.shape, empty.log_odds.shape) == ((0, 2), (0, 3, 0, 2))


def test_a_batch_is_its_elements():
    beta, p_ref = np.array([[5.0], [10.0]]), np.array([1e-2, 1e-3, 1e-5])
    found = cycles(gd.two_kl(beta, p_ref, 0.95), 5)
    assert found.log_odds.shape[1:] == (5, 2, 3)
    for i, j in np.ndindex(2, 3):
        single = cycles(gd.two_kl(float(beta[i, 0]), float(p_ref[j]), 0.95), 5)
        n = int(single.count)
        assert found.count[i, j] == n
        np.testing.assert_array_equal(found.period[:n, i, j], single.period)
        np.testing.assert_allclose(found.log_odds[:n, :, i, j], single.log_odds, rtol=1e-12)


def test_torch_tensors_come_back_as_tensors():
    torch = pytest.importorskip("torch")
    p_ref = torch.tensor([1e-3, 1e-4], dtype=torch.float64)
    found = cycles(gd.grpo(5.0, p_ref), 2)
    assert isinstance(found.log_odds, torch.Tensor)
    np.testing.assert_array_equal(found.log_odds.numpy(), cycles(gd.grpo(5.0, p_ref.numpy()), 2).log_odds)


@pytest.mark.parametrize("period", [0, 25, 2.0, True, "2"])
def test_a_wrong_period_is_refused(period):
    with pytest.raises(ValueError, match="period must be an integer from 1 to 24"):
        cycles(gd.grpo(1.0, 0.2), period)

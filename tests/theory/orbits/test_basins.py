"""Basins of attraction against plain iteration."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import grpo_dynamics as gd
from grpo_dynamics.theory.orbits.basins import MIXED, Basins, BasinsStatus, Border, basins
from tests import strategies

KINDS = gd.LimitKind


def by_iteration(recursion: gd.Recursion, found: Basins, log_odds: np.ndarray, steps: int = 3000) -> np.ndarray:
    """The attractor that contains the range of the last of many steps, −1 if that is none."""
    state = log_odds
    for _ in range(steps):
        state = recursion.step(np.minimum(state, 1e300))
    tail = []
    for _ in range(70):
        state = recursion.step(np.minimum(state, 1e300))
        tail.append(state)
    low, high = np.min(tail, axis=0), np.max(tail, axis=0)
    where = np.full(state.shape, -1)
    for i in range(found.kind.size):
        chaos = found.kind[i] in (KINDS.IRREGULAR, KINDS.UNDECIDED)
        slack = 1e-3 + 0.3 * chaos
        inside = (low >= found.attractor_low[i] - slack) & (high <= found.attractor_high[i] + slack)
        where[inside | ((found.kind[i] == KINDS.ONE) & (low > 600))] = i
    return where


@pytest.mark.parametrize(
    ("recursion", "kinds", "pieces"),
    [
        (gd.grpo(5.0, 0.2, eps=1e-2), [KINDS.FIXED_POINT], 1),
        (gd.grpo(1.0, 0.2), [KINDS.FIXED_POINT, KINDS.FIXED_POINT], 3),
        (gd.grpo(5.0, 1e-3), [KINDS.CYCLE, KINDS.FIXED_POINT], 3),
        (gd.grpo(10.0, 1e-5), [KINDS.CYCLE, KINDS.FIXED_POINT], 3),
        (gd.grpo(5.0, 1e-4), [KINDS.IRREGULAR, KINDS.FIXED_POINT], 3),
        (gd.grpo(5.0, 1e-5), [KINDS.FIXED_POINT], 1),
        (gd.grpo(2.0, 0.2, eps=0.0), [KINDS.FIXED_POINT, KINDS.ONE], 3),
        (gd.grpo(0.5, 0.9, eps=0.0), [KINDS.ONE], 1),
        (gd.mirror_grpo(1.0, 0.2), [KINDS.ONE], 1),
        (gd.dr_grpo(1.0, 0.2), [KINDS.FIXED_POINT], 1),
        (gd.two_kl_dr_grpo(1.0, 0.2, 0.3), [KINDS.FIXED_POINT], 1),
        (gd.Recursion(5.0, 1e-2, gd.FiniteGroup(64)), [KINDS.FIXED_POINT], 1),
        (gd.Recursion(2.0, 0.2, gd.FiniteGroup(8, silent_groups="drop")), [KINDS.FIXED_POINT, KINDS.ONE], 3),
        (gd.Recursion(2.0, 0.2, gd.Whitened(1e-4, "std")), [KINDS.FIXED_POINT, KINDS.FIXED_POINT], 3),
    ],
    ids=str,
)
def test_every_kind_of_system(recursion, kinds, pieces):
    """GRPO's step is even in L, so the basin of the upper attractor is |L| > u, if the lower one survives: then 3
    pieces; and the 2,000 starts go where they are said to go."""
    found = basins(recursion)
    assert found.kind.tolist() == kinds
    assert found.low.size == pieces
    assert found.status == BasinsStatus.COMPLETE
    if pieces == 3:
        u = gd.fixed_points(recursion).log_odds[1]
        np.testing.assert_allclose(found.high[:-1], [-u, u], rtol=1e-14)
        assert found.border.tolist() == [Border.PREIMAGE_OF_FIXED_POINT, Border.UNSTABLE_FIXED_POINT]
        assert found.attractor.tolist() == [1, 0, 1]
        assert found.steps.tolist() == [1, 0]
        p = gd.sigmoid(u)  # p0 between 1 − p and p
        np.testing.assert_allclose(found.share, [2 * p - 1, 2 - 2 * p], rtol=1e-9)
    starts = np.random.default_rng(0).uniform(-30, 30, 2000)
    np.testing.assert_array_equal(found.of(starts), by_iteration(recursion, found, starts))


def test_with_two_kl_the_basins_come_back_towards_zero():
    """The step falls left of its turning point, but ever less steeply: each stretch near p = 1 has a mirror image near
    p = 0, that image one further out, and so on."""
    recursion = gd.two_kl(5.0, 1e-4, 0.9)
    found = basins(recursion)
    assert found.kind.tolist() == [KINDS.CYCLE, KINDS.FIXED_POINT]
    assert found.low.size > 3
    assert np.all(found.attractor[1:] != found.attractor[:-1])
    u = gd.fixed_points(recursion).log_odds[1]
    assert found.high[-2] == pytest.approx(u, rel=1e-14)
    for border, steps, kind in zip(found.high[:-1], found.steps, found.border, strict=True):
        state = border
        for _ in range(steps):
            state = recursion.step(state)
        assert state == pytest.approx(u, rel=1e-6)
        assert kind == (Border.PREIMAGE_OF_FIXED_POINT if steps else Border.UNSTABLE_FIXED_POINT)
    starts = np.random.default_rng(1).uniform(-3000, 30, 4000)
    np.testing.assert_array_equal(found.of(starts), by_iteration(recursion, found, starts))


def test_a_2_cycle_is_not_taken_for_a_4_cycle():
    """Its multiplier is −0.69: an orbit is nearer to where it was four steps ago than to where it was two ago."""
    found = basins(gd.two_kl(0.7553948052607666, 1.5175940944496191e-05, 0.6, eps=1e-2))
    assert found.kind.tolist() == [KINDS.CYCLE, KINDS.FIXED_POINT]
    assert found.attractor_period.tolist() == [2, 1]


def test_what_is_too_narrow_is_said_to_be_missing():
    """With a coarse resolution the innermost images are left out, and the status says so."""
    recursion = gd.two_kl(5.0, 1e-4, 0.9)
    fine, coarse = basins(recursion), basins(recursion, resolution=20.0)
    assert (fine.status, coarse.status) == (BasinsStatus.COMPLETE, BasinsStatus.TO_RESOLUTION)
    assert coarse.low.size < fine.low.size
    wide = np.flatnonzero(coarse.attractor != MIXED)
    middle = 0.5 * (np.maximum(coarse.low, -100) + np.minimum(coarse.high, 100))[wide]
    near = np.abs(middle) < 99
    np.testing.assert_array_equal(fine.of(middle[near]), coarse.attractor[wide][near])


@settings(max_examples=25)
@given(
    strategies.powers_of_ten(-1, 1.3),
    strategies.powers_of_ten(-7, -0.3),
    st.just(1.0) | st.floats(0.2, 1.0),
    st.sampled_from([row for row in strategies.NORMALIZATIONS if "64" not in row.name]),
)
def test_starts_go_where_they_are_said_to_go(beta, p_ref, alpha, row):
    recursion = gd.Recursion(beta, p_ref, row.normalization, alpha)
    found = basins(recursion)
    assert (found.low[0], found.high[-1]) == (-np.inf, np.inf)
    np.testing.assert_array_equal(found.low[1:], found.high[:-1])
    mixed = found.attractor == MIXED
    assert math.fsum(found.share) == pytest.approx(1.0, abs=1e-9 if not mixed.any() else 0.01)
    if np.any(np.isin(found.kind, [KINDS.IRREGULAR, KINDS.UNDECIDED])):
        return  # ranges of long transients cannot be told from plain iteration: the chaotic golden is above
    starts = np.random.default_rng(2).uniform(-40, 40, 500)
    claimed = found.of(starts)
    known = claimed != MIXED
    reached = by_iteration(recursion, found, starts[known], 1000)
    slow = reached < 0  # beside a neutral point nothing arrives
    np.testing.assert_array_equal(claimed[known][~slow], reached[~slow])


def test_the_share_that_theory_md_asks_about():
    """β = 5, p_ref = 1e-4: from p0 = 0.1 chaos, from p0 = p_ref to 1."""
    found = basins(gd.grpo(5.0, 1e-4))
    assert found.of(gd.logit(0.1)) == 0
    assert found.of(gd.logit(1e-4)) == 1
    assert found.share[0] == pytest.approx(0.99978198, abs=1e-8)


def test_wrong_arguments():
    with pytest.raises(ValueError, match="one system"):
        basins(gd.grpo(1.0, [0.2, 0.3]))
    with pytest.raises(ValueError, match="resolution must be"):
        basins(gd.grpo(1.0, 0.2), resolution=0.0)
    with pytest.raises(ValueError, match="log_odds must be"):
        basins(gd.grpo(1.0, 0.2)).of(math.nan)

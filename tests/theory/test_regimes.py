"""Regime labels against plain iteration from 64 starts, on bifurcations, and the smallest group of each behaviour.

The comparison ran once at full scale: 20,000 GRPO systems, 5,000 with ε beside the std, 12,500 with two KL terms and
about 8,000 with groups of 4 to 256. No label and no number of attractors was wrong in the end; long transients of two
KL terms, which were called chaos at first, are a test below.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import grpo_dynamics as gd
from grpo_dynamics.theory.bifurcation import flip_points, fold_points
from grpo_dynamics.theory.flow import Flow
from grpo_dynamics.theory.orbits.attractors import attractors
from grpo_dynamics.theory.regimes import Regime, regime
from grpo_dynamics.theory.smallest_group import smallest_group
from tests import strategies
from tests.theory import long_runs


def _draw(rng, size, hard):
    """Systems over the whole range, or where oscillation, chaos and choice live; some without smoothing."""
    if hard:
        beta, anchor = 10 ** rng.uniform(0, np.log10(50), size), rng.uniform(np.log(1e-8), np.log(1e-2), size)
        eps = 10 ** rng.uniform(-12, -3, size)
    else:
        beta, anchor = 10 ** rng.uniform(-3, 3, size), rng.uniform(-27.6, 27.6, size)
        eps = 10 ** rng.uniform(-12, np.log10(0.25), size)
    return beta, gd.sigmoid(anchor), np.where(rng.random(size) < 0.15, 0.0, eps)


def _by_iteration(ends, i):
    different = long_runs.attractors(ends, i)
    kinds = [kind for kind, *_ in different]
    if long_runs.IRREGULAR in kinds:
        return Regime.CHAOTIC, len(different)
    if long_runs.CYCLE in kinds:
        return Regime.OSCILLATING, len(different)
    if len(different) > 1:
        return Regime.BISTABLE, len(different)
    return (Regime.SATURATING if different[0][3] == np.inf else Regime.ONE_STABLE), 1


@pytest.mark.parametrize(
    ("size", "hard", "least_alpha", "options"),
    [
        (300, False, 1.0, {}),
        (300, True, 1.0, {}),
        (100, True, 1.0, {"std": True}),
        (100, True, 0.5, {}),
        (100, False, 0.05, {}),
        (60, True, 1.0, {"group": 32, "std": True, "ddof": 1}),
        (60, False, 1.0, {"group": 12}),
        (40, False, 1.0, {"group": 10, "std": True, "drop": True}),
        (40, True, 0.6, {"group": 24}),
    ],
)
def test_labels_and_numbers_of_attractors_against_64_starts_each(size, hard, least_alpha, options):
    rng = np.random.default_rng(size + sum(map(ord, repr((hard, least_alpha, options)))))
    beta, p_ref, eps = _draw(rng, size, hard)
    alpha = rng.uniform(least_alpha, 1.0, size)
    placement = "std" if options.get("std") else "variance"
    normalization = gd.Whitened(eps, placement)
    if "group" in options:
        silent = "drop" if options.get("drop") else "keep"
        normalization = gd.FiniteGroup(options["group"], eps, placement, options.get("ddof", 0), silent)
    system = gd.Recursion(beta, p_ref, normalization, alpha)
    found, listed = regime(system), attractors(system)
    ends = long_runs.ends(long_runs.System(beta, gd.logit(p_ref), eps, alpha, **options), seed=1)
    assert not np.any(found.label == Regime.DEGENERATE)
    np.testing.assert_array_equal(found.count, listed.count)
    for i in range(size):
        assert (found.label[i], found.count[i]) == _by_iteration(ends, i), (
            f"beta={beta[i]} p_ref={p_ref[i]} eps={eps[i]}"
        )


def test_labels_in_words():
    system = gd.grpo(np.array([5.0, 10.0, 5.0, 1.0, 0.5, 1e3]), np.array([1e-3, 1e-5, 1e-4, 0.2, 0.9, 0.2]))
    found = regime(system)
    assert list(found.label) == [2, 2, 3, 1, 0, 0]
    assert list(found.count) == [2, 2, 2, 2, 1, 1]
    assert found.reason(0).startswith("a cycle of period 2 between 0.002338 and 0.05872, beside the stable state 1 - ")
    assert found.reason(1).startswith("a cycle of period 3 between")
    assert found.reason(2).startswith("an irregular orbit between")
    assert found.reason(3) == "two stable states, p = 0.6813 and 1 - 1.8e-137; the boundary between them is 0.9347"
    assert found.reason(5) == "one stable state, p = 0.2004"
    assert regime(gd.grpo(1.0, 0.2, eps=0.0)).reason() == (
        "two stable states, p = 0.6813 and 1; the boundary between them is 0.9347"
    )
    assert len({label.meaning for label in Regime}) == len(Regime)
    for index in (6, (0, 0), "a", 0.5):
        with pytest.raises(ValueError, match="index must have one integer per axis"):
            found.reason(index)


def test_a_long_transient_is_not_chaos():
    """Two KL terms: orbits that wander for hundreds of steps before they walk up, as 64 starts each show."""
    beta, p_ref = np.array([1.85719686423425, 6.804825641155156]), np.array([2.303403182372757e-09, 1.6021977582e-07])
    eps, alpha = np.array([0.0, 1.5998400426359186e-07]), np.array([0.37025634134732227, 0.6144693446282037])
    found = regime(gd.two_kl(beta, p_ref, alpha, eps))
    np.testing.assert_array_equal(found.label, [Regime.SATURATING, Regime.ONE_STABLE])
    ends = long_runs.ends(long_runs.System(beta, gd.logit(p_ref), eps, alpha), seed=2)
    assert [_by_iteration(ends, i)[0] for i in range(2)] == list(found.label)


@given(strategies.betas, strategies.p_refs, strategies.all_eps)
def test_mirror_saturates(beta, p_ref, eps):
    for system in (gd.mirror_grpo(beta, p_ref, eps), gd.mirror_dr_grpo(beta, p_ref)):
        found = regime(system)
        assert (found.label, found.count) == (Regime.SATURATING, 1)
        assert found.reason() == "almost every start goes to p = 1"


@given(strategies.p_refs, strategies.positive_eps, st.floats(1.001, 100), strategies.alphas, strategies.placements)
def test_a_contraction_has_one_stable_state(p_ref, eps, factor, alpha, placement):
    normalization = gd.Whitened(eps, placement)
    beta = factor * float(gd.contraction_bound(normalization, alpha))
    assert regime(gd.Recursion(beta, p_ref, normalization, alpha)).label == Regime.ONE_STABLE


@given(strategies.betas, strategies.p_refs, strategies.alphas)
def test_dr_grpo_has_one_stable_state(beta, p_ref, alpha):
    assert regime(gd.two_kl_dr_grpo(beta, p_ref, alpha)).label == Regime.ONE_STABLE


@given(strategies.powers_of_ten(-2, 1.4), st.floats(1e-6, 1e-2))
def test_without_smoothing_the_fold_and_the_flip_divide(beta, distance):
    """ε = 0, L_ref = ±2 asinh β − 2√(1+β²)/β: above the fold p → 1, from there to the flip two states attract."""
    curve = 2 * np.array([1, -1]) * np.arcsinh(beta) - 2 * np.sqrt(1 + beta**2) / beta
    if curve[1] < -600:
        return
    above, below, before = curve[0] + distance, curve[0] - distance, curve[1] + distance
    labels = regime(gd.grpo(beta, gd.sigmoid(np.array([above, below, before])), eps=0.0)).label
    inside = [Regime.BISTABLE, Regime.BISTABLE] if curve[0] - distance > curve[1] + distance else labels[1:]
    np.testing.assert_array_equal(labels, [Regime.SATURATING, *inside])
    beyond = regime(gd.grpo(beta, gd.sigmoid(curve[1] - distance), eps=0.0)).label
    assert beyond in (Regime.OSCILLATING, Regime.CHAOTIC, Regime.SATURATING)


def test_labels_next_to_bifurcations():
    """Folds and flips are told apart from their sides at a relative distance of 1e-8, period doublings at 1e-6."""
    near = np.array([-1e-8, 1e-8])
    flip, fold = flip_points(5.0).log_odds_ref[0], fold_points(1.0).log_odds_ref[0]
    sides = regime(gd.grpo(5.0, gd.sigmoid(flip * (1 + near))))
    np.testing.assert_array_equal(sides.label, [Regime.BISTABLE, Regime.OSCILLATING])
    sides = regime(gd.grpo(1.0, gd.sigmoid(fold + near)))
    np.testing.assert_array_equal(sides.label, [Regime.BISTABLE, Regime.ONE_STABLE])
    doubling = -8.46255  # β = 5: period 2 above, 4 below
    found = attractors(gd.grpo(5.0, gd.sigmoid(doubling * (1 + np.array([-2e-6, 4e-6])))))
    np.testing.assert_array_equal(found.period[0], [2, 4])


def test_on_a_bifurcation():
    """β = 1, ε = 0: the references of the fold and of the flip are ±2 asinh 1 − 2√2, rounded."""
    curve = 2 * np.array([1, -1]) * np.arcsinh(1.0) - 2 * np.sqrt(2.0)
    found = regime(gd.grpo(1.0, gd.sigmoid(curve), eps=0.0))
    np.testing.assert_array_equal(found.label, Regime.DEGENERATE)
    assert "fold" in found.reason(0)
    assert found.reason(1).startswith("on a flip: the multiplier of p = 0.1464 is -1")


def test_blocks_and_single_elements_agree():
    beta, p_ref = np.geomspace(0.1, 60, 230), gd.sigmoid(np.linspace(-18, 4, 210))[:, None]
    whole = regime(gd.grpo(beta, p_ref))
    assert whole.label.shape == whole.count.shape == (210, 230)
    assert set(np.unique(whole.label)) >= {Regime.ONE_STABLE, Regime.BISTABLE, Regime.OSCILLATING, Regime.CHAOTIC}
    for i, j in np.random.default_rng(0).integers((0, 0), (210, 230), (25, 2)):
        single = regime(gd.grpo(beta[j], p_ref[i, 0]))
        assert (single.label, single.count) == (whole.label[i, j], whole.count[i, j])
    assert regime(gd.grpo(np.empty((0, 2)), 0.2)).label.shape == (0, 2)


def test_a_flow_neither_oscillates_nor_flips():
    beta, p_ref = np.geomspace(0.1, 60, 40), gd.sigmoid(np.linspace(-18, 4, 40))[:, None]
    flow, step = regime(Flow(beta, p_ref)), gd.fixed_points(gd.grpo(beta, p_ref))
    np.testing.assert_array_equal(flow.count, (step.count + 1) // 2)
    np.testing.assert_array_equal(flow.label, np.where(step.count == 1, Regime.ONE_STABLE, Regime.BISTABLE))
    assert np.all(regime(Flow(beta, p_ref, kl="k1")).label == Regime.SATURATING)
    assert np.all(regime(Flow(beta, p_ref, kl="k3")).label == Regime.ONE_STABLE)
    assert regime(Flow(1.0, 0.2)).reason() == regime(gd.grpo(1.0, 0.2)).reason()


def test_torch_gives_the_same_labels():
    torch = pytest.importorskip("torch")
    beta, p_ref = np.geomspace(0.1, 60, 30), gd.sigmoid(np.linspace(-18, 4, 30))[:, None]
    expected = regime(gd.grpo(beta, p_ref))
    found = regime(gd.grpo(torch.asarray(beta), torch.asarray(p_ref)))
    assert isinstance(found.label, torch.Tensor)
    # chaos is decided by an orbit, which rounding may change; the label it gets is the same
    np.testing.assert_array_equal(found.label.numpy(), expected.label)
    assert found.reason((0, 0)) == expected.reason((0, 0))


def test_the_smallest_group_is_not_monotone():
    """β = 0.125, p_ref = 2e-7: cycles for G = 6 and 7 only, two attractors for G = 7 … 18 only."""
    beta, p_ref = 0.12488708441585172, 2e-7
    sizes = np.arange(2, 31)
    found = regime(gd.Recursion(beta, p_ref, gd.FiniteGroup(sizes)))
    np.testing.assert_array_equal(sizes[found.label == Regime.OSCILLATING], [6, 7])
    np.testing.assert_array_equal(sizes[found.count > 1], np.arange(7, 19))
    assert smallest_group(beta, p_ref, "oscillation").group_size == 6
    answer = smallest_group(beta, p_ref)
    assert answer.group_size == 7
    assert answer.reason().startswith("with G = 7: a cycle of period 2")


def test_the_smallest_group_of_a_batch():
    beta, p_ref = np.array([[1.0], [0.3]]), np.array([1e-6, 1e-4, 0.3])
    options = {"eps": 1e-4, "ddof": 1}
    for what in ("bistability", "oscillation"):
        answer = smallest_group(beta, p_ref, what, largest=24, **options)
        assert answer.group_size.shape == (2, 3)
        for i, j in np.ndindex(2, 3):
            sizes = np.arange(2, 25)
            found = regime(gd.Recursion(beta[i, 0], p_ref[j], gd.FiniteGroup(sizes, **options)))
            shows = (
                found.count > 1 if what == "bistability" else np.isin(found.label, (Regime.OSCILLATING, Regime.CHAOTIC))
            )
            assert answer.group_size[i, j] == (sizes[shows][0] if shows.any() else 0)
            assert answer.reason((i, j))
    none = smallest_group(5.0, 1e-3, "oscillation", largest=4)
    assert none.group_size == 0
    assert none.reason().startswith("no oscillation up to G = 4; there is with exact statistics: a cycle of period 2")
    assert (
        smallest_group(1e3, 0.5, eps=0.1, largest=3)
        .reason()
        .startswith("no bistability up to G = 3; neither is there with")
    )


def test_bad_input():
    with pytest.raises(ValueError, match="dynamics must be a Recursion"):
        regime(0.1)
    with pytest.raises(ValueError, match="what must be one of 'bistability', 'oscillation', got 'chaos'"):
        smallest_group(1.0, 0.2, "chaos")
    with pytest.raises(ValueError, match="largest must be an integer >= 2, got 1"):
        smallest_group(1.0, 0.2, largest=1)
    with pytest.raises(ValueError, match="p_ref must be"):
        smallest_group(1.0, 1.2)
    for answer in (smallest_group([0.2, 0.3], 1e-6, largest=2), regime(gd.grpo([0.2, 0.3], 1e-6))):
        for index in ((), 2, 0.5, slice(0, 1), True, (0, 0)):
            with pytest.raises(ValueError, match=r"index must have one integer per axis of the batch of shape \(2,\)"):
                answer.reason(index)
        assert answer.reason(np.int64(1)) == answer.reason((-1,))

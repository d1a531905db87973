"""One standard deviation for a whole batch: fixed points of a population against brute force and sampled batches."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import grpo_dynamics as gd
from grpo_dynamics.theory import batch_fixed_points as solver
from grpo_dynamics.theory.batch import BatchRecursion, BatchStd
from grpo_dynamics.theory.batch_fixed_points import batch_fixed_points, batch_folds
from tests.strategies import powers_of_ten

STATISTICS = ("rewards", "centred")
normalizations = st.builds(
    BatchStd,
    st.sampled_from(STATISTICS),
    st.just(0.0) | powers_of_ten(-6, -0.7),
    st.sampled_from(["std", "variance"]),
    st.sampled_from([None, 2, 8]),
)


def clusters(seed, most=4, spread=0.3):
    """A population of a few kinds of questions, far apart: what has many fixed points."""
    rng = np.random.default_rng(seed)
    kinds = rng.integers(1, most + 1)
    anchor = rng.uniform(-12, 2, kinds)[rng.integers(0, kinds, 40)] + spread * rng.normal(size=40)
    return gd.sigmoid(anchor), rng.uniform(0, 1, 40) ** 3 + 1e-6


def own_gap(normalization, p_ref, weights, shift, kl="exact"):
    """Ω of the population at shifts of shape (k,), written out once more."""
    w = weights / weights.sum()
    if kl == "exact":
        odds = (1 - p_ref) / p_ref * np.exp(-np.minimum(shift, 600))[:, None]
        p, q = 1 / (1 + odds), odds / (1 + odds)
    else:
        d = shift[:, None]
        p = ((d - 1) + np.sqrt((d - 1) ** 2 + 4 * d * p_ref)) / (2 * d)
        q = 1 - p
    c = 1.0 if normalization.group_size is None else 1 - 1 / normalization.group_size
    variance = (p @ w) * (q @ w) if normalization.statistic == "rewards" else c * ((p * q) @ w)
    if normalization.eps_placement == "variance":
        return c / np.sqrt(variance + normalization.eps)
    return c / (np.sqrt(variance) + normalization.eps)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), normalizations)
def test_every_fixed_point_is_found(seed, normalization):
    """A scan of Ω/Δ at 60,000 shifts crosses each of 40 values of β where the solver says, and only there."""
    p_ref, weights = clusters(seed)
    betas = np.geomspace(0.05, 300, 40)
    dynamics = BatchRecursion(betas, p_ref, weights, normalization)
    found, (folds, _) = batch_fixed_points(dynamics), batch_folds(dynamics)
    bound = 0.0 if normalization.eps == 0 else 30 / normalization.eps  # Ω/β is below that
    parts = [np.geomspace(1e-4, 1, 5000), np.linspace(1, 120, 50_000)[1:], np.geomspace(120, 120 + bound, 5000)[1:]]
    shift = np.concatenate(parts if bound else parts[:2])
    level = own_gap(normalization, p_ref, weights, shift) / shift
    for i, beta in enumerate(betas):
        if folds.size and np.abs(np.log(folds / beta)).min() < 1e-4:
            continue  # two roots within a cell of the scan
        below = level > beta
        changes = np.nonzero(below[1:] != below[:-1])[0]
        inside = found.shift[: changes.size, i]
        assert changes.size == found.count[i]
        assert np.all((inside >= shift[changes] * (1 - 1e-9)) & (inside <= shift[changes + 1] * (1 + 1e-9)))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), normalizations, powers_of_ten(-1.3, 2), st.sampled_from(["exact", "k3"]))
def test_fixed_points_satisfy_the_definition(seed, normalization, beta, kl):
    """β·Δ = Ω at the shift; the multiplier is the slope of Ω/β in Δ; one step of the recursion stays there."""
    p_ref, weights = clusters(seed)
    found = batch_fixed_points(BatchRecursion(beta, p_ref, weights, normalization, kl))
    here = ~np.isnan(found.shift)
    shift, multiplier = found.shift[here], found.multiplier[here]
    np.testing.assert_allclose(own_gap(normalization, p_ref, weights, shift, kl), beta * shift, rtol=1e-9)
    h = 1e-6 * shift
    ends = [own_gap(normalization, p_ref, weights, shift + sign * h, kl) for sign in (1, -1)]
    np.testing.assert_allclose((ends[0] - ends[1]) / (2 * h * beta), multiplier, rtol=1e-4, atol=1e-6)
    state = found.log_odds[here]
    np.testing.assert_allclose(found.dynamics.step(state), state, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(found.p[here] @ weights / weights.sum(), found.mean_p[here], rtol=1e-9)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), normalizations)
def test_k3_has_one_fixed_point_that_attracts(seed, normalization):
    """The elasticity of Ω in Δ stays below ½ (notebook 10_batch_std), so Ω/Δ falls and meets each β once."""
    p_ref, weights = clusters(seed)
    found = batch_fixed_points(BatchRecursion(np.geomspace(0.02, 50, 30), p_ref, weights, normalization, "k3"))
    assert np.all(found.count == 1)
    assert np.all(found.multiplier < 0.5)
    shift = np.geomspace(1e-4, 1e4, 4000)
    gap = own_gap(normalization, p_ref, weights, shift, "k3")
    assert np.all(np.diff(np.log(gap)) < 0.5 * np.diff(np.log(shift)) + 1e-9)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(STATISTICS),
    st.just(0.0) | powers_of_ten(-8, -0.7),
    st.sampled_from(["std", "variance"]),
    st.floats(-12, 6).map(lambda x: float(gd.sigmoid(x))),
    st.integers(0, 2**32 - 1),
)
def test_questions_that_are_all_alike_are_one_question(statistic, eps, placement, p_ref, seed):
    """p̄(1−p̄) and E[p(1−p)] are then both p(1−p): the fixed points of Whitened, for 30 values of β."""
    betas = 10 ** np.random.default_rng(seed).uniform(-1, 2, 30)
    found = batch_fixed_points(BatchRecursion(betas, [p_ref] * 3, normalization=BatchStd(statistic, eps, placement)))
    single = gd.fixed_points(gd.Recursion(betas, p_ref, gd.Whitened(eps, placement)))
    clear = (found.status != gd.Status.DEGENERATE) & (single.status != gd.Status.DEGENERATE)
    slots = min(found.shift.shape[0], single.log_odds.shape[0])
    np.testing.assert_array_equal(found.count[clear], single.count[clear])
    np.testing.assert_array_equal(found.status[clear], single.status[clear])
    ours, theirs = found.log_odds[:slots, :, 0][:, clear], single.log_odds[:slots][:, clear]
    np.testing.assert_allclose(ours, theirs, rtol=1e-8, atol=1e-8)
    np.testing.assert_array_equal(found.stable[:slots][:, clear], single.stable[:slots][:, clear])


def test_k3_of_alike_questions_is_the_closed_form():
    """ε = 0: p* = (1 + 2β²p_ref + √(1 + 4β²p_ref(1−p_ref)))/(2(1+β²)), of notebook 8_kl_estimators."""
    beta, p_ref = np.geomspace(0.01, 100, 50), 0.1
    found = batch_fixed_points(BatchRecursion(beta, [p_ref, p_ref], normalization=BatchStd(eps=0.0), kl="k3"))
    closed = (1 + 2 * beta**2 * p_ref + np.sqrt(1 + 4 * beta**2 * p_ref * (1 - p_ref))) / (2 * (1 + beta**2))
    np.testing.assert_allclose(found.p[0, :, 0], closed, rtol=1e-11)


def test_wide_populations_are_solved():
    """p_ref from 1e-12 to 1 − 1e-12, ε from 0 to .2, β from .001 to 1000: all found, each to rounding."""
    rng, counts = np.random.default_rng(1), set()
    for i in range(120):
        p_ref, beta = gd.sigmoid(rng.uniform(-27, 27, rng.integers(1, 30))), 10 ** rng.uniform(-3, 3, 20)
        normalization = BatchStd(STATISTICS[i % 2], 0.0 if i % 4 == 0 else 10 ** rng.uniform(-12, -0.7))
        kl = "k3" if i % 5 == 0 else "k3_times_ratio"
        found = batch_fixed_points(BatchRecursion(beta, p_ref, rng.random(p_ref.size) + 1e-9, normalization, kl))
        assert np.all((found.status == gd.Status.OK) | (found.status == gd.Status.ABOVE_FOLD))
        here = ~np.isnan(found.shift)
        ratio = normalization.gap(found.log_odds, found.dynamics.weights) / (beta * found.shift)
        assert np.all(np.abs(ratio - 1)[here] <= 2e-14 * (1 + np.abs(found.multiplier[here])))
        counts |= set(found.count.tolist())
    assert counts >= {0, 1, 2, 3, 5}


def test_bounds_behind_the_search_for_folds():
    """|t| ≤ 1, |t''| ≤ 0.8 or 1.8, where t = −d log V/dΔ; and the derivative that the search uses is t'."""
    for seed in range(60):
        p_ref, weights = clusters(seed, spread=3.0 if seed % 2 else 0.1)
        for statistic, bound in (("rewards", 0.8), ("centred", 1.8)):
            population = solver._Population(BatchRecursion(1.0, p_ref, weights, BatchStd(statistic)))
            shift, h = np.linspace(0.1, 25, 400), 1e-4
            low, middle, high = (population.at(shift + d) for d in (-h, 0, h))
            assert np.all(np.abs(middle.tilt) <= 1 + 1e-12)
            np.testing.assert_allclose((high.tilt - low.tilt) / (2 * h), middle.bend, atol=1e-6)
            assert np.abs((high.bend - low.bend) / (2 * h)).max() <= bound
            slope = (high.log_variance - low.log_variance) / (2 * h)
            np.testing.assert_allclose(-slope, middle.tilt, atol=1e-6)


def test_two_kinds_of_questions_have_up_to_five_fixed_points():
    """Centred rewards: σ rises again when the hard half gets going. A staircase with three attracting steps."""
    p_ref = gd.sigmoid(np.array([-1.0, -13.0]))
    dynamics = BatchRecursion(0.55, p_ref, normalization=BatchStd("centred", 1e-4))
    folds, _ = batch_folds(dynamics)
    assert folds.size == 4
    counts = batch_fixed_points(
        BatchRecursion(np.geomspace(0.05, 500, 2000), p_ref, None, dynamics.normalization)
    ).count
    assert counts.max() == 5
    beta = np.geomspace(0.05, 500, 2000)[counts == 5][0]
    found = batch_fixed_points(BatchRecursion(beta, p_ref, normalization=dynamics.normalization))
    np.testing.assert_array_equal(found.attracts, [True, False, True, False, True])
    easy, hard = found.p[found.attracts].T
    assert np.all(easy[1:] > 0.99)
    assert hard[0] < 0.01
    assert hard[2] > 0.99


def test_without_smoothing_a_small_beta_solves_everything():
    dynamics = BatchRecursion(0.04, [0.02, 0.1, 0.4], normalization=BatchStd(eps=0.0))
    found = batch_fixed_points(dynamics)
    assert (found.count, found.status) == (0, gd.Status.ABOVE_FOLD)
    assert dynamics.iterate(20).p[-1].min() == 1.0


def test_orbit_settles_where_the_fixed_point_is_stable_and_swings_where_it_is_not():
    gentle = BatchRecursion(2.0, [0.02, 0.1, 0.4])
    found = batch_fixed_points(gentle)
    assert found.stable[0]
    np.testing.assert_allclose(gentle.iterate(200).log_odds[-1], found.log_odds[0], rtol=1e-9)
    hard = BatchRecursion(5.0, gd.sigmoid(np.array([-7.5, -7.0, -6.5])))
    found = batch_fixed_points(hard)
    assert found.multiplier[0] < -1
    assert found.attracts[0]
    assert not found.stable[0]
    orbit = hard.iterate(2000).log_odds
    assert np.abs(orbit[-1] - orbit[-3]).max() < 1e-9 < 0.5 < np.abs(orbit[-1] - orbit[-2]).max()


@pytest.mark.parametrize("statistic", STATISTICS)
@pytest.mark.parametrize("kl", ["exact", "k3"])
def test_attracts_is_the_spectrum_of_the_flow(statistic, kl):
    """dL_i/dt = Ω − β·R_i/(p_i(1−p_i)): the largest real part of the Jacobian is negative where ``attracts`` says so.

    For the rewards the plain flow, in which each question moves at its own speed, is a gradient flow: same answer.
    """
    seen = set()
    for seed in range(40):
        p_ref, _ = clusters(seed, spread=0.5)
        p_ref = p_ref[:8]
        anchor, normalization = gd.logit(p_ref), BatchStd(statistic, 1e-3)
        speeds = np.random.default_rng(seed).uniform(0.05, 1, 8)

        def speed(state, beta, anchor=anchor, p_ref=p_ref, normalization=normalization):
            p, q = gd.sigmoid(state), gd.sigmoid(-state)
            pull = state - anchor if kl == "exact" else (p - p_ref) / (p * q)
            return normalization.gap(state) - beta * pull

        for beta in (0.5, 1.0, 2.0):
            found = batch_fixed_points(BatchRecursion(beta, p_ref, normalization=normalization, kl=kl))
            for slot in range(int(found.count)):
                state, h = found.log_odds[slot], 1e-5
                if np.abs(state).max() > 12:
                    continue
                steps = h * np.eye(8)
                jacobian = np.stack(
                    [(speed(state + e, beta) - speed(state - e, beta)) / (2 * h) for e in steps], axis=1
                )
                assert (np.linalg.eigvals(jacobian).real.max() < 0) == found.attracts[slot]
                if statistic == "rewards" or kl == "k3":
                    assert (np.linalg.eigvals(speeds[:, None] * jacobian).real.max() < 0) == found.attracts[slot]
                seen.add(bool(found.attracts[slot]))
    assert seen == ({True, False} if kl == "exact" else {True})


def test_the_std_of_rewards_maximises_an_arcsine_of_the_mean():
    """Ω(p̄) is a derivative: at ε = 0 the flow climbs 2·arcsin√p̄ − β·mean KL, so its gradient vanishes at rest."""
    p_ref, beta = np.array([0.05, 0.2, 0.4]), 1.3
    found = batch_fixed_points(BatchRecursion(beta, p_ref, normalization=BatchStd(eps=0.0)))

    def height(state):
        p, q = gd.sigmoid(state), gd.sigmoid(-state)
        divergence = p * np.log(p / p_ref) + q * np.log(q / (1 - p_ref))
        return 2 * np.arcsin(np.sqrt(p.mean())) - beta * divergence.mean()

    for state in found.log_odds[: int(found.count)]:
        gradient = [(height(state + 1e-5 * e) - height(state - 1e-5 * e)) / 2e-5 for e in np.eye(3)]
        assert np.abs(gradient).max() < 1e-9


@pytest.mark.parametrize("statistic", STATISTICS)
@pytest.mark.parametrize("kl", ["exact", "k3"])
def test_sampled_batches_settle_there(statistic, kl):
    """A trainer: 1,000 questions, groups of 4, rewards drawn, mean by group, one std of the batch, small steps.

    A finite step shifts the average by O(step), so two step sizes are extrapolated to 0; what is left must be within 4
    standard errors of 8 runs, plus 0.0005 for the batch being finite.
    """
    kinds, size, eps, beta = np.array([-3.0, -1.0, 0.5]), 4, 1e-4, 1.0
    anchor = np.repeat(kinds, [500, 300, 200])
    p_ref = gd.sigmoid(anchor)
    found = batch_fixed_points(BatchRecursion(beta, p_ref, None, BatchStd(statistic, eps, group_size=size), kl))

    def averages(rate, steps):
        rng, record = np.random.default_rng(7), []
        state = np.tile(found.log_odds[0], (8, 1))
        for step in range(steps):
            p = gd.sigmoid(state)
            rewards = (rng.random((8, anchor.size, size), dtype=np.float32) < p[..., None]).astype(float)
            centred = rewards - rewards.mean(axis=2, keepdims=True)
            spread = (rewards if statistic == "rewards" else centred).std(axis=(1, 2), keepdims=True)
            score = rewards - p[..., None]  # d log π/dL of each answer
            pull = p * (1 - p) * (state - anchor) if kl == "exact" else p - p_ref
            state = state + rate * ((centred / (spread + eps) * score).mean(axis=2) - beta * pull)
            if step >= steps // 4:
                record.append([p[:, anchor == kind].mean(axis=1) for kind in kinds])
        return np.mean(record, axis=0)  # kinds × runs

    means = 2 * averages(0.1, 800) - averages(0.2, 400)
    error = means.std(axis=1, ddof=1) / np.sqrt(8)
    expected = [found.p[0, anchor == kind][0] for kind in kinds]
    assert np.all(np.abs(means.mean(axis=1) - expected) < 4 * error + 0.0005)
    assert np.all(error < 0.001)


def test_weights_are_repetitions_and_chunks_do_not_matter(monkeypatch):
    p_ref, beta = np.array([0.02, 0.3, 0.6]), np.array([0.3, 1.0, 4.0])
    for statistic in STATISTICS:
        weighted = BatchRecursion(beta, p_ref, [3, 1, 2], BatchStd(statistic))
        repeated = BatchRecursion(beta, np.repeat(p_ref, [3, 1, 2]), None, BatchStd(statistic))
        unused = BatchRecursion(beta, [*p_ref, 1e-9], [3, 1, 2, 0], BatchStd(statistic))
        shifts = [batch_fixed_points(x).shift for x in (weighted, repeated, unused)]
        np.testing.assert_allclose(shifts[0], shifts[1], rtol=1e-11)
        np.testing.assert_allclose(shifts[0], shifts[2], rtol=1e-11)
        with monkeypatch.context() as patch:
            patch.setattr(solver, "CHUNK", 1)
            np.testing.assert_allclose(batch_fixed_points(repeated).shift, shifts[1], rtol=1e-11)


def test_on_a_fold_two_become_one():
    p_ref = np.array([0.05, 0.2, 0.4])
    folds, places = batch_folds(BatchRecursion(1.0, p_ref))
    found = batch_fixed_points(BatchRecursion(folds, p_ref))
    assert np.all(found.status == gd.Status.DEGENERATE)
    np.testing.assert_array_equal(found.count, [2, 2])
    for i in range(2):
        assert np.nanmin(np.abs(found.shift[:, i] / places[i] - 1)) < 1e-9


def test_next_to_a_fold_there_are_one_or_three():
    """At every relative distance: exact counts, or DEGENERATE; the noise of a step at a double root is no reason."""
    p_ref, distance = np.array([0.05, 0.2, 0.4]), np.geomspace(1e-16, 1e-5, 120)
    for i, fold in enumerate(batch_folds(BatchRecursion(1.0, p_ref))[0]):
        for side in (-1, 1):
            found = batch_fixed_points(BatchRecursion(fold * (1 + side * distance), p_ref))
            told = found.status == gd.Status.OK
            assert np.all(told | (found.status == gd.Status.DEGENERATE))
            assert np.all(told[distance > 1e-10])
            assert np.all(found.count[told] == (3 if (side > 0) == (i == 0) else 1))


@pytest.mark.parametrize("kl", ["exact", "k3"])
def test_the_ends_of_the_floats(kl):
    """With ε = 1e-4 and a tiny β all p are near 1 and Δ = 1e4/β; with a huge one Δ = Ω(p_ref)/β: no overflow."""
    beta, p_ref = np.array([1e-300, 1e-160, 1e300]), [0.2, 1e-300]
    found = batch_fixed_points(BatchRecursion(beta, p_ref, kl=kl))
    assert np.all(found.status == gd.Status.OK)
    lowest = found.shift[0, 2]
    assert lowest == pytest.approx(1 / (np.sqrt(0.1 * 0.9) + 1e-4) / 1e300, rel=1e-12)
    if kl == "k3":  # the exact KL has others below: p_ref = 1e-300 stays unsolved up to Δ = 700
        np.testing.assert_allclose(found.shift[0, :2] * beta[:2], 1e4, rtol=1e-12)
    batch_fixed_points(BatchRecursion(5e-324, p_ref, kl=kl))  # Δ is no number here; the search ends all the same


def test_shapes_and_torch():
    dynamics = BatchRecursion(np.full((2, 5), 1.0), [0.1, 0.2, 0.3])
    found = batch_fixed_points(dynamics)
    assert found.shift.shape == (3, 2, 5)
    assert found.log_odds.shape == (3, 2, 5, 3)
    assert found.count.shape == (2, 5)
    assert dynamics.iterate(4, p0=0.5).p.shape == (5, 2, 5, 3)
    torch = pytest.importorskip("torch")
    p_ref = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)
    same = batch_fixed_points(BatchRecursion(1.0, p_ref))
    assert isinstance(same.shift, torch.Tensor)
    np.testing.assert_allclose(same.shift.numpy(), found.shift[:, 0, 0], rtol=1e-12)
    np.testing.assert_allclose(same.p.numpy(), found.p[:, 0, 0], rtol=1e-12)
    orbit = BatchRecursion(1.0, p_ref).iterate(3)
    np.testing.assert_allclose(orbit.p.numpy(), BatchRecursion(1.0, [0.1, 0.2, 0.3]).iterate(3).p, rtol=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: BatchStd("reward"), "statistic must be one of 'rewards', 'centred', got 'reward'"),
        (lambda: BatchStd(eps=-1.0), "eps must be 0 or a finite number >= 1e-150, got -1.0"),
        (lambda: BatchStd(eps=1e-300), "eps must be 0 or a finite number >= 1e-150, got 1e-300"),
        (lambda: BatchStd(eps=[0.1, 0.2]), "eps must be 0 or a finite number"),
        (lambda: BatchStd(eps_placement="root"), "eps_placement must be one of"),
        (lambda: BatchStd(group_size=1), "group_size must be an integer >= 2, got 1"),
        (lambda: BatchRecursion(0.0, [0.1]), "beta must be a finite number > 0, got 0.0"),
        (lambda: BatchRecursion(1.0, [0.1, 1.0]), "p_ref must be a probability strictly between 0 and 1, got 1.0 at"),
        (lambda: BatchRecursion(1.0, [0.1, np.nan]), "p_ref must be a probability"),
        (lambda: BatchRecursion(1.0, 0.1), "p_ref must have the shape"),
        (lambda: BatchRecursion(1.0, np.full((2, 2), 0.1)), "p_ref must have the shape"),
        (lambda: BatchRecursion(1.0, [0.1, 0.2], [1.0]), "weights must have the shape of p_ref"),
        (lambda: BatchRecursion(1.0, [0.1, 0.2], [0, 0]), "weights must have a finite sum > 0, got"),
        (lambda: BatchRecursion(1.0, [0.1, 0.2], [1e308, 1e308]), "weights must have a finite sum > 0, got"),
        (lambda: BatchRecursion(1.0, [0.1, 0.2], [1, -1]), "weights must be finite and not negative, got -1.0"),
        (lambda: BatchRecursion(1.0, [0.1], normalization=gd.Whitened()), "normalization must be a BatchStd"),
        (lambda: BatchRecursion(1.0, [0.1], kl="k1"), "kl must be one of 'exact', 'k2', 'k3', .*, got 'k1'"),
        (lambda: BatchRecursion(1.0, [0.1]).iterate(-1), "n must be an integer >= 0, got -1"),
        (lambda: BatchRecursion(1.0, [0.1]).iterate(1, p0=1.5), "p0 must be a probability strictly between"),
        (lambda: BatchRecursion(1.0, [0.1]).step(np.nan), "log_odds must be a number, not NaN"),
        (lambda: batch_fixed_points(gd.grpo(1.0, 0.1)), "dynamics must be a BatchRecursion"),
        (lambda: batch_folds(gd.grpo(1.0, 0.1)), "dynamics must be a BatchRecursion"),
    ],
)
def test_wrong_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()

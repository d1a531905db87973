"""The kernel for huge batches: the same fixed points as the general solver, and right by a residual in long double.

How accurate can a root be? A float program sees L_ref, d = L − L_ref, L and Ω(L) each with a relative error of a few
u = 2^−53, so the residual of the equation, d − Ω(L)/b, is a few u of |L_ref| + d + |L| at best. Evaluated with eleven
more bits, it must not be more than C = 8 of that: for every root, on folds as well, with no other solver to trust.
"""

import shutil
import types

import numpy as np
import pytest

import grpo_dynamics as gd
from grpo_dynamics.theory.solvers import branch_free, compiled
from tests.exact import ROUNDING
from tests.strategies import EDGE

torch = pytest.importorskip("torch")
pytest.importorskip("array_api_compat")

from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: E402

C = 8
SYSTEMS = 60_000
PLACEMENTS = pytest.mark.parametrize("placement", ["variance", "std"])


def random_systems(placement, seed, folds=False, n=SYSTEMS):
    """β, p_ref, α, ε over the whole promised range; with ``folds`` within 1e-14 … 10 in log-odds of one, or on it."""
    rng = np.random.default_rng(seed)
    beta = 10 ** rng.uniform(-3, 3, n)
    eps = np.where(rng.random(n) < 0.15, 0.0, 10 ** rng.uniform(-12, np.log10(0.25), n))
    anchor = rng.uniform(-EDGE, EDGE, n)
    alpha = np.where(rng.random(n) < 0.5, 1.0, rng.random(n))
    if folds:
        normalization = gd.Whitened(eps, placement)
        fold = np.where(rng.random(n) < 0.5, *normalization.folds(beta))
        off = rng.choice([-1, 1], n) * 10 ** rng.uniform(-14, 1, n) * (rng.random(n) < 0.95)
        anchor, alpha = fold - normalization.gap(fold) / beta + off, np.ones(n)
    p_ref = gd.sigmoid(anchor)
    keep = (np.abs(anchor) < EDGE) & (p_ref < 1)
    return beta[keep], p_ref[keep], alpha[keep], eps[keep]


def recursion(convert, placement, beta, p_ref, alpha, eps):
    return gd.Recursion(convert(beta), convert(p_ref), gd.Whitened(convert(eps), placement), convert(alpha))


@pytest.fixture
def uncompiled(monkeypatch):
    """The whole path but the compiler: the same kernel, one operation at a time."""
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    compiled._kernel.cache_clear()
    yield
    compiled._kernel.cache_clear()


@PLACEMENTS
def test_the_same_as_the_general_solver(placement, uncompiled):
    """Two algorithms; each root is known to 16 u of (|L_ref| + d + |L|)/|F'|, so they differ by twice that at most."""
    systems = random_systems(placement, 1)
    ours = compiled.fixed_points(recursion(torch.tensor, placement, *systems))
    reference = gd.fixed_points(recursion(np.asarray, placement, *systems))
    np.testing.assert_array_equal(ours.count, reference.count)
    np.testing.assert_array_equal(ours.status, reference.status)
    assert set(np.unique(reference.status)) <= {gd.Status.OK, gd.Status.ABOVE_FOLD}
    beta, p_ref, alpha, _ = systems
    anchor, root = gd.logit(p_ref), reference.log_odds
    slope = np.abs(1 - (reference.multiplier - (1 - alpha)) / alpha)
    size = np.abs(anchor) + np.abs(root - anchor) + np.abs(root)
    error = np.abs(ours.log_odds.numpy() - root)
    np.testing.assert_array_equal(np.isnan(error), np.isnan(root))
    known = ~np.isnan(root)
    away = known & (slope**2 > 1e-3)
    assert (error <= 32 * ROUNDING * (np.abs(root) + 1.25 * size / slope))[away].all()
    easy = away & (size / (np.abs(root) * slope) < 40)
    assert easy.sum() > 0.4 * len(beta)
    assert (error / np.abs(root))[easy].max() <= 1e-13
    np.testing.assert_allclose(ours.multiplier.numpy()[easy], reference.multiplier[easy], rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(ours.stable, np.abs(ours.multiplier.numpy()) < 1)


@PLACEMENTS
def test_next_to_folds(placement, uncompiled):
    """On a fold to rounding two programs may see different signs; elsewhere counts and statuses are the same."""
    systems = random_systems(placement, 2, folds=True)
    ours = compiled.fixed_points(recursion(torch.tensor, placement, *systems))
    reference = gd.fixed_points(recursion(np.asarray, placement, *systems))
    status = ours.status.numpy()
    either = (status == gd.Status.DEGENERATE) | (reference.status == gd.Status.DEGENERATE)
    assert either.mean() > 0.02
    different = (status != reference.status) | (ours.count.numpy() != reference.count)
    assert not (different & ~either).any()
    assert different.mean() < 1e-3
    assert not (status == gd.Status.NOT_CONVERGED).any()


@pytest.mark.skipif(np.finfo(np.longdouble).eps > 1e-18, reason="long double is double here")
@PLACEMENTS
@pytest.mark.parametrize("folds", [False, True])
def test_residual_in_long_double(placement, folds):
    beta, p_ref, alpha, eps = random_systems(placement, 3, folds)
    with np.errstate(all="ignore"):
        found = branch_free.solve(np, placement == "std", beta, p_ref, alpha, eps)
    long = np.longdouble
    p, pull = p_ref.astype(long), alpha.astype(long) * beta.astype(long)
    anchor = np.where(np.abs(p - 0.5) < 0.25, 2 * np.arctanh(2 * p - 1), np.log(p) - np.log1p(-p))
    enough = np.isin(found[7], (gd.Status.OK, gd.Status.ABOVE_FOLD))
    lacking = np.mean(found[7] == gd.Status.NOT_CONVERGED)
    assert lacking <= (1e-4 if folds else 0.0), "six steps are enough but beside cusps"
    for log_odds, multiplier in zip(found[:3], found[3:6], strict=True):
        known = ~np.isnan(log_odds) & enough
        at = log_odds[known].astype(long)
        half = np.exp(-np.abs(at) / 2)
        std = half / (1 + half**2)
        power = 2 if placement == "variance" else 1
        total = std**power + eps[known]
        gap = total ** (-1 / long(power))
        distance = at - anchor[known]
        slope = gap * np.tanh(at / 2) / 2 * std**power / total
        size = np.abs(anchor[known]) + distance + np.abs(at)
        tangent = np.abs(1 - slope / pull[known])
        allowed = C * ROUNDING * (size + tangent * np.abs(at))
        assert (np.abs(distance - gap / pull[known]) <= allowed).all()
        exact = (1 - alpha[known].astype(long)) + slope / beta[known]
        # Ω = b·d: the error of d relative to it, and that of e^−|L|
        relative = C * ROUNDING * (1 + np.abs(at) + size / distance)
        rounding = ROUNDING * (1 - alpha[known]) + np.abs(slope / beta[known]) * relative
        assert (np.abs(multiplier[known] - exact) <= rounding + 1e-300).all()


def test_no_smoothing_no_pull_and_the_fold_itself(uncompiled):
    """ε = 0: two fixed points, one double one or none. α = 0: none. Statuses say which."""
    beta = 0.7
    fold, _ = gd.Whitened(0.0).folds(beta)
    on = fold - gd.Whitened(0.0).gap(fold) / beta
    p_ref = torch.tensor(gd.sigmoid(on + np.array([-1.0, 0.0, 1.0, 0.0])))
    found = compiled.fixed_points(gd.two_kl(beta, p_ref, torch.tensor([1.0, 1.0, 1.0, 0.0], dtype=p_ref.dtype), 0.0))
    statuses = [gd.Status.OK, gd.Status.DEGENERATE, gd.Status.ABOVE_FOLD, gd.Status.MIRROR]
    assert found.status.tolist() == statuses
    assert found.count.tolist() == [2, 1, 0, 0]
    assert float(found.log_odds[0, 1]) == pytest.approx(float(fold), rel=1e-7)
    assert torch.isnan(found.log_odds[:, 2:]).all()


def test_shapes_chunks_and_what_needs_more_steps(uncompiled, monkeypatch):
    """Chunks of any cut give the same, and so does the general solver for what the kernel leaves: here everything."""
    beta, p_ref = torch.logspace(-2, 1, 30, dtype=torch.float64), torch.linspace(0.01, 0.99, 50, dtype=torch.float64)
    grid = gd.Recursion(beta[:, None], p_ref, gd.Whitened(1e-3))
    whole = compiled.fixed_points(grid)
    assert whole.log_odds.shape == (3, 30, 50)
    assert whole.count.dtype == gd.fixed_points(grid).count.dtype
    monkeypatch.setattr(compiled, "CHUNK", 70)
    cut = compiled.fixed_points(grid)
    monkeypatch.setattr(branch_free, "ROOT_STEPS", 1)
    monkeypatch.setattr(compiled, "WORTHWHILE", 301)
    left = compiled.fixed_points(grid)
    for name in ("log_odds", "multiplier", "stable", "count", "status"):
        first, second, third = (getattr(found, name).double() for found in (whole, cut, left))
        torch.testing.assert_close(second, first, rtol=0, atol=0, equal_nan=True)
        torch.testing.assert_close(third, first, rtol=1e-10, atol=1e-11, equal_nan=True)
    single = compiled.fixed_points(gd.grpo(torch.tensor(1.0, dtype=torch.float64), 0.2))
    assert single.log_odds.shape == (3,)
    assert compiled.fixed_points(gd.grpo(torch.empty(0), 0.2)).log_odds.shape == (3, 0)


def test_float32(uncompiled):
    """The table of docs/gpu.md, with some room: a few float32 roundings (6e-8), more where folds are near."""
    rng = np.random.default_rng(4)
    n = 200_000
    beta, eps = 10 ** rng.uniform(-3, 3, n), 10 ** rng.uniform(-12, np.log10(0.25), n)
    options = [x.astype(np.float32) for x in (beta, gd.sigmoid(rng.uniform(-27.6, 14, n)), np.ones(n), eps)]
    for placement in ("variance", "std"):
        single = compiled.fixed_points(recursion(torch.tensor, placement, *options))
        double = compiled.fixed_points(recursion(lambda x: torch.tensor(x, dtype=torch.float64), placement, *options))
        assert single.log_odds.dtype == single.multiplier.dtype == torch.float32
        same = single.count == double.count
        assert (~same).double().mean() <= 2e-5
        known = same & (single.status == 0) & ~torch.isnan(double.log_odds)
        for ours, exact, median, largest in (
            (single.log_odds, double.log_odds, 6e-8, 1e-4),
            (single.multiplier, double.multiplier, 1e-8, 2e-4),
        ):
            error = ((ours - exact).abs() / (1 + exact.abs()))[known]
            assert error.median() <= median
            assert error.max() <= largest
        assert (single.p - double.p).abs()[known].max() <= 2e-5


@PLACEMENTS
def test_nothing_leaves_the_device(placement):
    """On tensors without data every read of a value fails, and so does every mixture with a CPU tensor."""
    from array_api_compat import torch as xp

    with FakeTensorMode():
        options = [torch.empty(8, dtype=torch.float64, device="meta") for _ in range(4)]
        found = branch_free.solve(xp, placement == "std", *options)
    assert {(value.device.type, tuple(value.shape)) for value in found} == {("meta", (8,))}
    assert [value.dtype for value in found] == 6 * [torch.float64] + 2 * [torch.int8]


@pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++"))), reason="torch.compile needs a C++ compiler")
@pytest.mark.skipif(" " in torch.__file__, reason="torch.compile calls the C++ compiler without quoting its own path")
@pytest.mark.filterwarnings("default")
def test_the_compiler_makes_one_kernel_of_it(monkeypatch):
    """With one step per root, which compiles fast and has every kind of operation: the same to rounding as eager."""
    from torch._inductor import metrics

    monkeypatch.setattr(branch_free, "ROOT_STEPS", 1)
    options = [torch.tensor(x) for x in random_systems("variance", 5, n=3000)]
    xp = compiled.as_arrays(options[0])[0]
    compiled._kernel.cache_clear()
    metrics.reset()
    found = compiled._kernel(xp, "variance")(*options)
    assert metrics.generated_kernel_count == 1
    monkeypatch.setattr(compiled, "CHUNK", 1001)
    beta, p_ref = options[:2]
    for systems in (gd.grpo(beta, p_ref), gd.grpo(beta[::2], 0.3), gd.grpo(beta[:60, None], p_ref[:30])):
        whole = compiled.fixed_points(systems)
        assert metrics.generated_kernel_count == 1, "another length or layout is no reason to compile again"
        torch.testing.assert_close(
            whole.log_odds, gd.fixed_points(systems).log_odds, rtol=1e-9, atol=1e-9, equal_nan=True
        )
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    compiled._kernel.cache_clear()
    eager = compiled._kernel(xp, "variance")(*options)
    compiled._kernel.cache_clear()
    for one, other in zip(found, eager, strict=True):
        if one.dtype == torch.float64:
            torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-9, equal_nan=True)
        else:
            assert (one != other).double().mean() <= 1e-3


def test_a_compiler_that_fails_is_a_warning(monkeypatch):
    def broken(*_):
        raise torch._dynamo.exc.TorchDynamoException("no compiler")

    monkeypatch.setattr(torch, "compile", lambda function, **_: broken)
    compiled._kernel.cache_clear()
    systems = gd.grpo(torch.tensor([0.5, 1.0], dtype=torch.float64), 0.2)
    with pytest.warns(RuntimeWarning, match="torch.compile failed"):
        found = compiled.fixed_points(systems)
    again = compiled.fixed_points(systems)  # said once
    compiled._kernel.cache_clear()
    torch.testing.assert_close(found.log_odds, gd.fixed_points(systems).log_odds, equal_nan=True)
    torch.testing.assert_close(again.log_odds, found.log_odds, equal_nan=True)


def on_a_gpu(dynamics, shape):
    """The dynamics with β replaced by what has the shape and the device of a CUDA tensor."""
    beta = types.SimpleNamespace(shape=shape, device=types.SimpleNamespace(type="cuda"))
    object.__setattr__(dynamics, "beta", beta)
    return dynamics


def test_when_it_applies(monkeypatch):
    many, few = (compiled.WORTHWHILE,), (compiled.WORTHWHILE - 1,)
    monkeypatch.setattr(compiled.importlib.util, "find_spec", lambda _: object())
    assert compiled.applies(on_a_gpu(gd.grpo(1.0, 0.2), many))
    assert not compiled.applies(on_a_gpu(gd.grpo(1.0, 0.2), few))
    assert not compiled.applies(on_a_gpu(gd.dr_grpo(1.0, 0.2), many))
    assert not compiled.applies(gd.grpo(torch.ones(many), 0.2))
    assert not compiled.applies(gd.grpo(np.ones(many), 0.2))
    monkeypatch.setattr(compiled.importlib.util, "find_spec", lambda _: None)
    assert not compiled.applies(on_a_gpu(gd.grpo(1.0, 0.2), many))


def test_other_dynamics_are_refused():
    with pytest.raises(ValueError, match="Whitened"):
        compiled.fixed_points(gd.dr_grpo(torch.ones(2), 0.2))
    with pytest.raises(ValueError, match="torch tensor"):
        compiled.fixed_points(gd.grpo(np.ones(2), 0.2))

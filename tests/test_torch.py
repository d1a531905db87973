"""Torch tensors in, torch tensors out: the same numbers, on the same device, in the same dtype."""

import dataclasses

import numpy as np
import pytest

import grpo_dynamics as gd
from grpo_dynamics.arrays import to_numpy
from grpo_dynamics.logodds import bernoulli_variance, complement
from tests.strategies import NORMALIZATIONS

torch = pytest.importorskip("torch")

RTOL = 1e-12
BETA = np.geomspace(0.05, 20, 30).reshape(30, 1)
P_REF = np.array([1e-6, 0.01, 0.2, 0.5, 0.9, 1 - 1e-9])


def tensor(array, dtype=torch.float64):
    return torch.tensor(array, dtype=dtype)


def same(ours, numpy, rtol=RTOL, atol=0.0):
    assert isinstance(ours, torch.Tensor)
    assert ours.device.type == "cpu"
    if np.asarray(numpy).dtype == np.float64:
        assert ours.dtype == torch.float64
    assert tuple(ours.shape) == np.shape(numpy)
    np.testing.assert_allclose(ours.numpy(), numpy, rtol=rtol, atol=atol)


@pytest.mark.parametrize("function", [gd.sigmoid, complement, bernoulli_variance])
def test_log_odds_functions(function):
    values = np.array([-np.inf, -1e6, -746, -40, -1, 0, 1e-9, 2, 37, 800, 1e6, np.inf])
    same(function(tensor(values)), function(values), atol=1e-320)


def test_logit():
    p = np.array([0.0, 1e-300, 1e-12, 0.3, 0.5, 0.5 + 1e-15, 0.75, 1 - 1e-16, 1.0])
    same(gd.logit(tensor(p)), gd.logit(p))


@pytest.mark.parametrize("row", NORMALIZATIONS, ids=lambda row: row.name)
def test_normalizations(row):
    grid = np.concatenate([np.linspace(-40, 40, 101), [-1e6, -800.0, 800.0, 1e6]])
    for name in ("gap", "gap_slope", "positive", "negative"):
        function = getattr(row.normalization, name)
        same(function(tensor(grid)), function(grid), atol=1e-15 if name == "gap_slope" else 1e-300)


@pytest.mark.parametrize("placement", ["variance", "std"])
@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("where", ["all", "beta", "eps", "alpha", "p_ref"])
def test_recursions_and_fixed_points(placement, alpha, where):
    """One tensor among the options is enough."""

    options = {
        "beta": BETA,
        "p_ref": P_REF,
        "eps": np.array([1e-8, 1e-5, 1e-3, 1e-2, 0.1, 0.0]),
        "alpha": np.full(6, alpha),
    }
    if where != "all":
        options = {name: value if name == where else 0.3 for name, value in options.items()}

    def build(convert):
        beta, p_ref, eps, share = (v if isinstance(v, float) else convert(v) for v in options.values())
        return gd.Recursion(beta, p_ref, gd.Whitened(eps, placement), share)

    ours, numpy = build(tensor), build(np.asarray)
    same(ours.iterate(5).log_odds, numpy.iterate(5).log_odds)
    same(ours.iterate(5).p, numpy.iterate(5).p)
    same(ours.multiplier(tensor(0.7)), numpy.multiplier(0.7))
    found, reference = gd.fixed_points(ours), gd.fixed_points(numpy)
    same(found.count, reference.count)
    same(found.status, reference.status)
    same(found.log_odds, reference.log_odds)
    same(found.multiplier, reference.multiplier, rtol=1e-9, atol=1e-15)
    same(found.stable, reference.stable)
    same(found.p, reference.p)


@pytest.mark.parametrize("silent", ["keep", "drop"])
def test_fixed_points_of_groups(silent):
    group = gd.FiniteGroup(8, 1e-4, "std", 1, silent)
    reference = gd.fixed_points(gd.Recursion(BETA, P_REF, group))
    found = gd.fixed_points(gd.Recursion(tensor(BETA), tensor(P_REF), group))
    same(found.log_odds, reference.log_odds, rtol=1e-11)
    same(found.count, reference.count)


def test_amplification():
    grid = np.linspace(-20, 20, 41)
    same(gd.stability_bound(tensor(grid)), gd.stability_bound(grid))
    same(gd.stability_bound(tensor(grid), alpha=0.5), gd.stability_bound(grid, alpha=0.5))
    eps = np.geomspace(1e-8, 0.2, 5)
    same(gd.contraction_bound(gd.Whitened(tensor(eps))), gd.contraction_bound(gd.Whitened(eps)))
    same(
        gd.rising_bound(gd.grpo(1.0, tensor(P_REF)), 1.0),
        gd.rising_bound(gd.grpo(1.0, P_REF), 1.0),
    )
    same(gd.amplifies_v1(tensor(BETA), tensor(P_REF)), gd.amplifies_v1(BETA, P_REF))
    ours, numpy = gd.design(tensor(P_REF), 0.1), gd.design(P_REF, 0.1)
    for field in dataclasses.fields(gd.Design):
        same(getattr(ours, field.name), getattr(numpy, field.name))


def test_limits_of_orbits():
    # settled ones: chaotic orbits differ as soon as exp differs in its last bit
    beta, p_ref = np.array([1.0, 5.0, 0.5, 8.0, 1.0]), np.array([0.2, 1e-3, 0.9, 0.3, 0.5])
    alpha = np.array([1.0, 1.0, 0.5, 1.0, 0.0])
    ours = gd.limit(gd.two_kl(tensor(beta), tensor(p_ref), tensor(alpha)))
    numpy = gd.limit(gd.two_kl(beta, p_ref, alpha))
    for field in dataclasses.fields(gd.Limit):
        same(getattr(ours, field.name), getattr(numpy, field.name), rtol=1e-8)


def test_scalars_and_empty_batches():
    found = gd.fixed_points(gd.grpo(tensor(1.0), 0.2))
    assert found.log_odds.shape == (3,)
    assert found.count.shape == ()
    same(found.log_odds, gd.fixed_points(gd.grpo(1.0, 0.2)).log_odds)
    assert gd.fixed_points(gd.grpo(torch.empty(0, dtype=torch.float64), 0.2)).log_odds.shape == (3, 0)


def test_float32_stays_float32_with_its_error():
    """Roots well away from folds: a few hundred float32 roundings, 6e-8 each."""
    beta, p_ref = np.geomspace(0.3, 3, 20), np.linspace(0.1, 0.6, 20)
    single = gd.fixed_points(gd.grpo(tensor(beta, torch.float32), tensor(p_ref, torch.float32), 1e-2))
    double = gd.fixed_points(gd.grpo(beta, p_ref, 1e-2))
    assert single.log_odds.dtype == torch.float32
    assert single.p.dtype == torch.float32
    np.testing.assert_array_equal(single.count.numpy(), double.count)
    np.testing.assert_allclose(single.log_odds.numpy(), double.log_odds, rtol=1e-4)
    orbit = gd.grpo(tensor(beta, torch.float32), tensor(p_ref, torch.float32), 1e-2).iterate(3)
    assert orbit.log_odds.dtype == torch.float32


def test_tensors_are_not_changed():
    beta, p_ref = tensor(BETA), tensor(P_REF)
    before = beta.clone(), p_ref.clone()
    gd.fixed_points(gd.grpo(beta, p_ref))
    gd.grpo(beta, p_ref).iterate(3)
    assert torch.equal(beta, before[0])
    assert torch.equal(p_ref, before[1])


@pytest.mark.parametrize(
    "make",
    [
        lambda: gd.grpo(tensor([1.0, -1.0]), 0.2),
        lambda: gd.grpo(1.0, tensor([0.2, float("nan")])),
        lambda: gd.Whitened(tensor([1e-5, -1e-5])),
        lambda: gd.grpo(tensor([1.0, 2.0]), tensor([0.1, 0.2, 0.3])),
    ],
)
def test_bad_tensors_are_refused(make):
    with pytest.raises(ValueError, match=r"must be|must broadcast"):
        make()


def test_to_numpy():
    np.testing.assert_array_equal(to_numpy(tensor([1.0, 2.0])), [1.0, 2.0])

"""Advantages: expected gradients against an enumeration of every group, and GAE against its definition.

The enumeration knows nothing of gaps: it lists all K^G groups of answers of a softmax policy, takes each group's
advantages, and adds up Σ A_i ∇ log π(o_i) / G with the probability of the group.
"""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import grpo_dynamics as gd
from grpo_dynamics import advantages as adv

POLICY = np.array([0.1, 0.2, 0.3, 0.4])
REWARD = np.array([1.0, 0.0, 1.0, 0.0])  # unequal conditionals on both sides
P = float(POLICY @ REWARD)
SLOPE = POLICY * (REWARD - P)  # ∂p/∂θ of a softmax, by hand

unit = st.floats(0.0, 1.0)
token_table = hnp.arrays(float, (2, 5), elements=st.floats(-3.0, 3.0))


def expected_gradient(advantage, size):
    """Σ over all groups of P(group)·(1/G)·Σ_i A_i·(e_(o_i) − π)."""
    total = np.zeros(4)
    for group in itertools.product(range(4), repeat=size):
        group = list(group)
        weights = advantage(REWARD[group]) / size
        total += POLICY[group].prod() * (np.eye(4)[group] - POLICY).T @ weights
    return total


@pytest.mark.parametrize("size", [2, 3, 5])
@pytest.mark.parametrize("ddof", [0, 1])
@pytest.mark.parametrize("placement", ["std", "variance"])
def test_whitened_groups_have_the_gap_of_finite_groups(size, ddof, placement):
    gap = gd.FiniteGroup(size, eps=0.01, eps_placement=placement, ddof=ddof).gap(gd.logit(P))
    found = expected_gradient(lambda r: adv.whitened(r, 0.01, placement, ddof), size)
    np.testing.assert_allclose(found, gap * SLOPE, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("size", [2, 3, 5])
def test_centred_groups_lose_one_part_in_g(size):
    gap = gd.MeanOnly(group_size=size).gap(0.0)
    np.testing.assert_allclose(expected_gradient(adv.centred, size), gap * SLOPE, rtol=1e-12)
    assert gap == (size - 1) / size


@pytest.mark.parametrize("size", [2, 3, 5])
def test_leave_one_out_and_plain_rewards_give_the_gradient_of_p(size):
    for advantage in (adv.leave_one_out, lambda r: r, lambda r: r - 0.37):  # REINFORCE, without and with a baseline
        np.testing.assert_allclose(expected_gradient(advantage, size), SLOPE, rtol=1e-12, atol=1e-16)


def test_leave_one_out_is_the_reward_less_the_mean_of_the_others():
    rewards = np.random.default_rng(0).random((3, 7))
    others = np.array([[np.delete(row, i).mean() for i in range(7)] for row in rewards])
    np.testing.assert_allclose(adv.leave_one_out(rewards), rewards - others, rtol=1e-12, atol=1e-15)


@given(hnp.arrays(float, (4, 6), elements=st.floats(-10, 10)), st.sampled_from([0, 1]))
def test_whitened_groups_have_mean_zero_and_variance_one(rewards, ddof):
    result = adv.whitened(rewards, ddof=ddof)
    np.testing.assert_allclose(result.mean(axis=-1), 0.0, atol=1e-6)
    spread = np.ptp(rewards, axis=-1) > 1e-6
    np.testing.assert_allclose(result[spread].std(axis=-1, ddof=ddof), 1.0, rtol=1e-6)
    assert not result[np.ptp(rewards, axis=-1) == 0].any()


def test_a_silent_group_stays_silent_although_its_mean_is_rounded():
    # the mean of three 0.1 is not 0.1 in floating point: divided by its own spread, what is left would be of size 1
    assert not adv.whitened(np.full(3, 0.1)).any()
    assert np.full(3, 0.1).mean() != 0.1


@given(token_table, token_table, unit, unit)
def test_gae_is_the_weighted_mean_of_all_l_step_advantages(rewards, values, gae_lambda, gamma):
    found = adv.gae(rewards, values, gae_lambda, gamma)
    np.testing.assert_allclose(found, adv.gae_by_definition(rewards, values, gae_lambda, gamma), rtol=1e-9, atol=1e-9)


@given(token_table, token_table, unit)
def test_the_two_ends_of_lambda(rewards, values, gamma):
    ahead = adv.returns(rewards, gamma) - values
    np.testing.assert_allclose(adv.gae(rewards, values, 1.0, gamma), ahead, atol=1e-12)  # telescopes
    np.testing.assert_array_equal(adv.gae(rewards, values, 0.0, gamma), adv.td_residuals(rewards, values, gamma))


@given(token_table, unit)
def test_returns_are_the_discounted_sums(rewards, gamma):
    powers = np.array([[gamma ** (s - t) if s >= t else 0.0 for t in range(5)] for s in range(5)])
    np.testing.assert_allclose(adv.returns(rewards, gamma), rewards @ powers, atol=1e-12)


def test_an_untrained_critic_discounts_a_final_reward_by_the_distance_to_the_end():
    rewards = np.zeros(6)
    rewards[-1] = 1.0
    expected = (0.9 * 0.8) ** np.arange(5, -1, -1)
    np.testing.assert_allclose(adv.gae(rewards, np.zeros(6), 0.8, 0.9), expected, rtol=1e-14)


def test_padding_after_the_end_changes_nothing():
    rewards, values = np.array([0.0, 0.3, 1.0]), np.array([0.2, 0.5, 0.9])
    padded = adv.gae(np.append(rewards, [0, 0]), np.append(values, [0, 0]), 0.7, 0.9)
    np.testing.assert_array_equal(padded, [*adv.gae(rewards, values, 0.7, 0.9), 0.0, 0.0])


def test_dual_clipping_stops_what_fell_too_far():
    """[1912.09729]: max(min(ρA, clip(ρ)A), cA) for A < 0; at 4 it is constant, and for A > 0 it is nothing new."""
    ratio, advantage = np.array([2.0, 2.9, 4.0, 4.0]), np.array([-1.0, -1.0, -1.0, 1.0])
    np.testing.assert_allclose(adv.clipped(ratio, advantage, dual_clip=3.0), [-2.0, -2.9, -3.0, 1.2])
    assert adv.passes(ratio, advantage, dual_clip=3.0).tolist() == [True, True, False, False]
    assert adv.passes(ratio, advantage).tolist() == [True, True, True, False]


@given(st.floats(0.01, 3.0), st.floats(-2.0, 2.0))
def test_clipping_has_a_gradient_exactly_where_it_passes(ratio, advantage):
    step = 1e-7
    if min(abs(ratio - 0.8), abs(ratio - 1.3)) < 2 * step or abs(advantage) < 1e-3:
        return  # at a corner there is no derivative to compare with
    up, down = (adv.clipped(ratio + s, advantage, 0.2, 0.3) for s in (step, -step))
    slope = advantage * adv.passes(ratio, advantage, 0.2, 0.3)
    assert abs((up - down) / (2 * step) - slope) < 1e-6


def test_deepseekmath_worked_example():
    example = adv.worked_example()
    # Σ(r − ½)² = 8/4 = 2, over 7: std = √(2/7), advantage ½/√(2/7) = √(7/8)
    assert example.mean == 0.5
    assert example.std == pytest.approx((2 / 7) ** 0.5, rel=1e-15)
    assert round(example.std, 2) == 0.53
    right = np.array([1, 0, 0, 1, 1, 0, 1, 0], dtype=bool)
    np.testing.assert_allclose(example.advantages, np.where(right, 1, -1) * (7 / 8) ** 0.5, rtol=1e-14)
    assert round(float(example.advantages[0]), 2) == 0.94
    assert example.clipped_ratio == 1.2
    assert example.objective == pytest.approx(1.2 * (7 / 8) ** 0.5, rel=1e-14)


def test_torch_tensors_give_torch_tensors():
    torch = pytest.importorskip("torch")
    rewards = np.random.default_rng(1).random((3, 4))
    values = np.random.default_rng(2).random((3, 4))
    calls = [
        lambda r, v: adv.whitened(r, 0.1, ddof=1),
        lambda r, v: adv.leave_one_out(r),
        lambda r, v: adv.gae(r, v, 0.9, 0.8),
        lambda r, v: adv.clipped(r, v),
    ]
    for call in calls:
        found = call(torch.tensor(rewards), torch.tensor(values))
        assert isinstance(found, torch.Tensor)
        np.testing.assert_allclose(found.numpy(), call(rewards, values), rtol=1e-14)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: adv.whitened([1.0]), "rewards .*shape \\(1,\\)"),
        (lambda: adv.whitened([1.0, np.nan]), "rewards .*nan"),
        (lambda: adv.whitened([1.0, 0.0], eps=-1.0), "eps .*-1.0"),
        (lambda: adv.whitened([1.0, 0.0], ddof=2), "ddof .*2"),
        (lambda: adv.gae([1.0], [0.0], gae_lambda=1.5), "gae_lambda .*1.5"),
        (lambda: adv.gae([1.0], [0.0], gamma=-0.1), "gamma .*-0.1"),
        (lambda: adv.gae([1.0, 0.0], [0.0]), "values must have the tokens of rewards, 2, got 1"),
        (lambda: adv.gae([1.0, float("nan")], [0.0, 0.0]), "rewards .*nan"),
        (lambda: adv.returns(1.0), r"rewards must have the shape \(\.\.\., T\), got a number"),
        (lambda: adv.worked_example([[1.0, 0.0]]), "rewards must be those of one group"),
        (lambda: adv.clipped(-1.0, 1.0), "ratio .*-1.0"),
        (lambda: adv.clipped(1.0, 1.0, clip_low=2.0), "clip_low .*2.0"),
        (lambda: adv.clipped(1.0, 1.0, dual_clip=0.9), "dual_clip must be above 1, got 0.9"),
        (lambda: adv.worked_example([1.0, 1.0]), "rewards .*all be equal"),
    ],
)
def test_wrong_arguments_are_named(call, named):
    with pytest.raises(ValueError, match=named):
        call()

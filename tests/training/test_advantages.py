"""Advantages: the expected gradient of the sampled loss, over every group that can be drawn, against Ω·∇p.

Each group is one row with its probability as weight: no sampling, no tolerance for noise.
"""

import math

import numpy as np
import pytest
import torch

import grpo_dynamics as gd
from grpo_dynamics.advantages import gae_by_definition
from grpo_dynamics.training.advantages import (
    gae_advantages,
    group_advantages,
    k1_in_reward,
    silent,
    step_advantages,
    whitened_over_tokens,
)
from grpo_dynamics.training.losses import policy_loss
from grpo_dynamics.update_rule import Training
from tests.training import enumeration as small
from tests.training.enumeration import close

SAMPLED = {"update": "sampled", "learning_rate": 0.1, "beta": 0.0, "kl": "none"}
TABLE = small.logits(0, gradient=True)
CHANCES = small.of_answers(TABLE).detach()
P = float(CHANCES @ small.RIGHT)
SLOPE = small.gradient(small.of_answers(TABLE) @ small.RIGHT, TABLE)  # ∇p


def sampled(normalization, **options):
    return Training(normalization=normalization, **{**SAMPLED, **options})


def expected_gradient(training, size, keep=None, **beside):
    """Minus the gradient of the mean loss over all 13^G groups, as one batch of groups with weights."""
    members = small.groups(size, len(small.ANSWERS))
    rewards = small.RIGHT[members][:, None, :]  # each group as a question with one group
    beside = {name: value.expand(len(members)) for name, value in beside.items()}
    advantages = group_advantages(rewards, training, **beside).flatten()
    chance = CHANCES[members].prod(-1)
    if keep is not None:
        chance = torch.where(keep(rewards, training)[:, 0], chance, 0.0)
    rows, weights = members.flatten(), chance.repeat_interleave(size)
    log_p = small.log_probs(TABLE)[rows]
    loss = policy_loss(log_p, log_p.detach(), advantages, small.MASK[rows], training, weights=weights)
    return -small.gradient(loss.value, TABLE)


@pytest.mark.parametrize("ratio_level", ["token", "sequence"])
@pytest.mark.parametrize(
    "normalization",
    [
        gd.FiniteGroup(2),
        gd.FiniteGroup(3, eps=1e-4, ddof=1),
        gd.FiniteGroup(3, eps=0.1, eps_placement="variance"),
        gd.MeanOnly(group_size=3),
    ],
)
def test_groups_have_the_gap_of_the_theory(normalization, ratio_level):
    """The ratio of answers with the mean over answers, or the ratios of tokens added up: on-policy the same."""
    by_token = {"ratio_level": "token", "aggregation": "constant", "max_tokens": 1}
    training = sampled(normalization, **(by_token if ratio_level == "token" else {}))
    found = expected_gradient(training, normalization.group_size)
    close(found, float(normalization.gap(gd.logit(P))) * SLOPE)


def test_groups_without_silent_ones():
    """Drawn again until mixed, a group has the chance of mixed groups, and Ω is divided by 1 − p^G − (1−p)^G."""
    dropped = gd.FiniteGroup(3, silent_groups="drop")
    found = expected_gradient(sampled(dropped), 3, keep=lambda rewards, training: ~silent(rewards, training))
    close(found, float(dropped.gap(gd.logit(P))) * SLOPE)
    kept = expected_gradient(sampled(gd.FiniteGroup(3)), 3)
    close(found * (1 - P**3 - (1 - P) ** 3), kept)


def test_leave_one_out_reinforce_and_critic_give_the_gradient_of_p():
    for advantage, more, beside in (
        ("rloo", {}, {}),
        ("reinforce", {}, {}),
        ("critic", {"critic_rate": 0.1}, {"values": torch.tensor([0.37], dtype=torch.float64)}),
    ):
        training = sampled(gd.MeanOnly(), advantage=advantage, group_size=2, **more)
        close(expected_gradient(training, 2, **beside), SLOPE)


@pytest.mark.parametrize("normalization", [gd.Whitened(), gd.Whitened(0.01, "std"), gd.MeanOnly()])
def test_exact_statistics(normalization):
    """(r − p)·Ω(p) with the policy's own p: each sample alone has the expectation, groups or not."""
    training = sampled(normalization, group_size=2)
    log_odds = torch.tensor([gd.logit(P)], dtype=torch.float64)
    close(expected_gradient(training, 2, log_odds=log_odds), float(normalization.gap(gd.logit(P))) * SLOPE)
    right = group_advantages(torch.ones(1, 2, dtype=torch.float64), training, log_odds=log_odds)
    assert float(right[0, 0]) == pytest.approx((1 - P) * float(normalization.gap(gd.logit(P))), rel=1e-14)


@pytest.mark.parametrize(("std_over", "statistic"), [("batch", "rewards"), ("batch_centred", "centred")])
@pytest.mark.parametrize("placement", ["std", "variance"])
def test_one_std_of_the_batch(std_over, statistic, placement):
    """Four answers of chance ¼, one of them right: the 64 groups of three, once each, are the whole population.

    Its standard deviation is the exact one, and the gap that of the theory of batches.
    """
    members = small.groups(3, 4)
    rewards = (members == 0).to(torch.float64)[:, None, :]
    training = sampled(gd.FiniteGroup(3, eps=0.01, eps_placement=placement), std_over=std_over)
    advantages = group_advantages(rewards, training).flatten()
    logits = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    log_p = logits.log_softmax(-1)[members.flatten()][:, None]
    loss = policy_loss(log_p, log_p.detach(), advantages, torch.ones_like(log_p, dtype=torch.bool), training)
    gap = float(gd.BatchStd(statistic, 0.01, placement, group_size=3).gap([gd.logit(0.25)]))
    close(-small.gradient(loss.value, logits), gap * small.gradient(logits.softmax(-1)[0], logits))


def test_k1_in_the_reward_pulls_with_the_exact_divergence():
    """Subtracted from the advantages, whole or to go: the gradient of β·α·KL(π‖π_ref) of answers, tokens and all."""
    reference = small.logits(100)
    log_p, log_ref = small.log_probs(TABLE), small.log_probs(reference)
    exact = small.gradient(small.reverse_kl(TABLE, reference), TABLE)
    for level, how in (
        ("sequence", {}),
        ("token", {"ratio_level": "token", "aggregation": "constant", "max_tokens": 1}),
    ):
        training = sampled(gd.MeanOnly(), group_size=2, beta=0.3, alpha=0.5, kl="k1_in_reward", **how)
        penalty = k1_in_reward(log_p, log_ref, small.MASK, training, level)
        assert not penalty.requires_grad
        loss = policy_loss(log_p, log_p.detach(), -penalty, small.MASK, training, weights=CHANCES)
        close(small.gradient(loss.value, TABLE), 0.3 * 0.5 * exact)


def test_k1_before_the_normalisation_is_divided_by_the_std_too():
    """verl's order: (r − β·k1 − mean)/(std of the same + ε) by hand; and OpenRLHF's clamp of each token's k1."""
    rng = np.random.default_rng(0)
    log_old, log_ref = (torch.tensor(-rng.exponential(size=(6, 2))) for _ in range(2))
    mask = torch.tensor([[True, True], [True, False]] * 3)
    training = sampled(gd.FiniteGroup(3, eps=1e-6, ddof=1), beta=0.5, kl="k1_in_reward")
    rewards = torch.tensor([1.0, 0.0, 0.0, 1.0, 1.0, 0.0], dtype=torch.float64)
    total = rewards - k1_in_reward(log_old, log_ref, mask, training)[:, 0]
    ours = group_advantages(total.reshape(2, 3), training)
    k1 = (np.asarray(log_old - log_ref) * np.asarray(mask)).sum(-1)
    penalised = (rewards.numpy() - 0.5 * k1).reshape(2, 3)
    by_hand = (penalised - penalised.mean(1, keepdims=True)) / (penalised.std(1, ddof=1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(ours, by_hand, rtol=1e-12)
    far = k1_in_reward(torch.zeros(1, 2), torch.tensor([[-30.0, -1.0]]), mask[:1], training, clamp=10.0)
    assert float(far) == 0.5 * (10 + 1)


TRAINERS = {  # (r − mean)/(std + ε) as each trainer divides; read in their source
    "TRL, simple_GRPO": (gd.FiniteGroup(8, 1e-4, ddof=1), 1e-4, 1),
    "verl": (gd.FiniteGroup(8, 1e-6, ddof=1), 1e-6, 1),
    "OpenRLHF": (gd.FiniteGroup(8, 1e-9, ddof=1), 1e-9, 1),
    "oat": (gd.FiniteGroup(8, 1e-8, ddof=1), 1e-8, 1),
    "open-instruct": (gd.FiniteGroup(8, 1e-8), 1e-8, 0),
    "nano-aha-moment": (gd.FiniteGroup(8, 1e-4), 1e-4, 0),
}


@pytest.mark.parametrize("name", TRAINERS)
def test_formulas_of_trainers(name):
    normalization, eps, ddof = TRAINERS[name]
    rewards = np.random.default_rng(1).random((5, 16))  # five questions, two groups each, side by side
    groups = rewards.reshape(5, 2, 8)
    by_hand = (groups - groups.mean(-1, keepdims=True)) / (groups.std(-1, ddof=ddof, keepdims=True) + eps)
    ours = group_advantages(torch.tensor(rewards), sampled(normalization, groups=2))
    assert ours.shape == (5, 16)
    np.testing.assert_allclose(ours, by_hand.reshape(5, 16), rtol=1e-12)
    single = group_advantages(torch.tensor(rewards, dtype=torch.float32), sampled(normalization, groups=2))
    assert single.dtype == torch.float32
    np.testing.assert_allclose(single, ours, rtol=0, atol=2e-6)


def test_eps_of_each_question():
    normalization = gd.FiniteGroup(2, eps=np.array([0.0, 0.5]))
    ours = group_advantages(torch.tensor([[1.0, 0.0], [1.0, 0.0]], dtype=torch.float64), sampled(normalization))
    np.testing.assert_allclose(ours, [[1.0, -1.0], [0.5, -0.5]], rtol=1e-15)


def test_process_supervision_step_by_step():
    """DeepSeekMath, Sec. 4.1.3, with loops: the step rewards of the group are whitened, then summed."""
    rng, size, tokens = np.random.default_rng(2), 4, 7
    rewards = np.where(rng.random((3, size, tokens)) < 0.4, rng.random((3, size, tokens)), np.nan)
    rewards[:, :, 0] = rng.random((3, size))
    for normalization in (gd.FiniteGroup(size, eps=1e-3, ddof=1), gd.MeanOnly(group_size=size)):
        ours = step_advantages(torch.tensor(rewards), sampled(normalization))
        for group, found in zip(rewards, ours, strict=True):
            steps = [r for answer in group for r in answer if not math.isnan(r)]
            mean = sum(steps) / len(steps)
            std = math.sqrt(sum((r - mean) ** 2 for r in steps) / (len(steps) - 1)) + 1e-3
            std = std if isinstance(normalization, gd.FiniteGroup) else 1.0
            for answer, advantages in zip(group, found, strict=True):
                for t in range(tokens):
                    later = sum((r - mean) / std for r in answer[t:] if not math.isnan(r))
                    assert float(advantages[t]) == pytest.approx(later, rel=1e-12, abs=1e-14)


def test_one_step_per_answer_is_outcome_supervision():
    training = sampled(gd.FiniteGroup(3, eps=1e-4))
    rewards = torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64)
    ends = torch.full((1, 3, 4), torch.nan, dtype=torch.float64)
    for answer, last in enumerate((3, 0, 2)):
        ends[0, answer, last] = rewards[0, answer]
    outcome = group_advantages(rewards, training)
    for answer, last in enumerate((3, 0, 2)):
        ours = step_advantages(ends, training)[0, answer]
        np.testing.assert_allclose(ours[: last + 1], float(outcome[0, answer]), rtol=1e-14)
        assert ours[last + 1 :].tolist() == [0.0] * (3 - last)


@pytest.mark.parametrize(("gae_lambda", "gamma"), [(1.0, 1.0), (0.95, 1.0), (0.7, 0.9), (0.0, 1.0)])
def test_gae_of_answers_of_different_length(gae_lambda, gamma):
    """Each answer cut to its length, by the definition of GAE as the mean of l-step advantages."""
    rng = np.random.default_rng(3)
    lengths, values, rewards = [5, 1, 3], rng.normal(size=(3, 5)), rng.normal(size=3)
    mask = torch.tensor(np.arange(5) < np.array(lengths)[:, None])
    dirty = torch.where(mask, torch.tensor(values), torch.inf)
    ours = gae_advantages(torch.tensor(rewards), dirty, mask, gae_lambda, gamma)
    for row, length in enumerate(lengths):
        earned = np.zeros(length)
        earned[-1] = rewards[row]
        exact = gae_by_definition(earned, values[row, :length], gae_lambda, gamma)
        np.testing.assert_allclose(ours[row, :length], exact, rtol=1e-12, atol=1e-14)
        assert ours[row, length:].tolist() == [0.0] * (5 - length)


def test_a_value_per_prefix_changes_no_expected_gradient_at_lambda_one():
    """Open-Reasoner-Zero's PPO: r − V(prefix) with any V has the gradient of p; λ < 1 with a bad V does not."""
    value = torch.randn(5, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    values = torch.stack([value[:1].expand(13), value[1 + small.ANSWERS[:, 0]]], dim=1)
    training = sampled(
        gd.MeanOnly(), group_size=2, advantage="reinforce", ratio_level="token", aggregation="constant", max_tokens=1
    )
    log_p = small.log_probs(TABLE)

    def expected(gae_lambda):
        advantages = gae_advantages(small.RIGHT, values, small.MASK, gae_lambda)
        loss = policy_loss(log_p, log_p.detach(), advantages, small.MASK, training, weights=CHANCES)
        return -small.gradient(loss.value, TABLE)

    close(expected(1.0), SLOPE)
    assert float((expected(0.5) - SLOPE).norm() / SLOPE.norm()) > 0.1


def test_whitening_over_tokens():
    """verl's masked_whiten, (A − mean)·rsqrt(var·n/(n−1) + 1e-8), and with ddof 0; copies count as copies."""
    rng = np.random.default_rng(5)
    advantages, mask = torch.tensor(rng.normal(size=(3, 4))), torch.tensor(rng.random((3, 4)) < 0.7)
    times = torch.tensor([2, 1, 3])
    ours = whitened_over_tokens(advantages, mask, times)
    copies = torch.cat([a[m].repeat(n) for a, m, n in zip(advantages, mask, times.tolist(), strict=True)]).numpy()
    by_hand = (advantages.numpy() - copies.mean()) / np.sqrt(copies.var(ddof=1) + 1e-8)
    np.testing.assert_allclose(ours, np.where(mask, by_hand, 0), rtol=1e-12, atol=1e-14)
    ours = whitened_over_tokens(advantages, mask, ddof=0, eps=0.0)
    inside = advantages[mask].numpy()
    np.testing.assert_allclose(ours[mask], (inside - inside.mean()) / inside.std(), rtol=1e-12, atol=1e-14)


def test_silent_groups():
    training = sampled(gd.FiniteGroup(2), groups=3)
    rewards = torch.tensor([[1.0, 1.0, 0.0, 0.0, 1.0, 0.0]])
    assert silent(rewards, training).tolist() == [[True, True, False]]
    assert group_advantages(rewards, training).tolist() == [[0.0, 0.0, 0.0, 0.0, 1.0, -1.0]]
    # the mean of three times .1 is not .1 in floating point: what is left is not divided by its own size
    tenths = torch.full((1, 3), 0.1)
    assert group_advantages(tenths, sampled(gd.FiniteGroup(3))).tolist() == [[0.0, 0.0, 0.0]]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda t: group_advantages(torch.zeros(2, 3), t),
            r"rewards must have the shape \(questions, groups, 2\) or \(questions, 2\), got \(2, 3\)",
        ),
        (lambda t: group_advantages(torch.zeros(2), t), r"got \(2,\)"),
        (lambda t: group_advantages(torch.zeros(2, 2, 4), t), r"got \(2, 2, 4\)"),
        (
            lambda t: group_advantages(torch.tensor([[1, 0]]), t),
            "rewards must be floating-point numbers, got torch.int64",
        ),
        (lambda t: group_advantages(torch.tensor([[1.0, torch.nan]]), t), "rewards must be finite"),
        (
            lambda t: group_advantages(torch.zeros(1, 2), sampled(gd.Whitened(), group_size=2)),
            r"log_odds is missing: Whitened.* or take FiniteGroup\(2\)",
        ),
        (
            lambda t: group_advantages(
                torch.zeros(1, 2), sampled(gd.MeanOnly(), group_size=2, advantage="critic", critic_rate=0.5)
            ),
            "values is missing",
        ),
        (lambda t: step_advantages(torch.zeros(1, 3, 4), t), r"step_rewards must have shape \(..., 2, T\)"),
        (lambda t: step_advantages(torch.zeros(1, 2, 4), sampled(gd.Whitened(), group_size=2)), "process supervision"),
        (lambda t: step_advantages(torch.full((2, 4), torch.nan), t), "steps in a group must be at least 1"),
        (lambda t: sampled(gd.MeanOnly(), group_size=2, std_over="batch"), 'std_over="batch" means nothing'),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call(sampled(gd.FiniteGroup(2)))

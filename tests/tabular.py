"""A sampled tabular policy, trained as the trainers do, and nothing of the package in it.

Ten answers, some of them right; a softmax policy. Every step draws groups of G answers from the present policy, gives
them rewards, makes advantages of them by the trainer's formula, and moves the logits along the gradient of the
trainer's loss at these samples. A loss is written as the trainer writes it, as a function of log π of a sampled answer;
its derivative is taken by the complex step, so no gradient is worked out by hand anywhere.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

ANSWERS = 10
Array = np.ndarray


@dataclasses.dataclass(frozen=True)
class Loss:
    """How one trainer, with one set of options, makes a loss of its samples.

    Attributes:
        advantage: of rewards and log-ratios log π/π_ref, shape (runs, groups, G), and the exact success probability,
            shape (runs, 1, 1), to the advantages.
        kl: of (log π, log π of the reference, log π of the sampler) to the KL term in the loss. Only the first is to be
            differentiated: what a trainer detaches it takes from the third, which has the same value.
        beta: the coefficient of that term.
        reward: what a right and a wrong answer earn.
        drops_silent: whether groups of one reward are left out of the loss.
    """

    advantage: Callable[[Array, Array, Array], Array]
    kl: Callable[[Any, Any, Any], Any] | None
    beta: float
    group_size: int
    reward: tuple[float, float] = (1.0, 0.0)
    drops_silent: bool = False


def train(
    loss: Loss,
    reference: Array,
    correct: int,
    steps: int,
    rate: float,
    seed: int,
    groups: int = 64,
    runs: int = 16,
    start: Array | None = None,
) -> Array:
    """Return the success probability of every run before every step, shape (steps, runs).

    The first ``correct`` answers are the right ones; training starts at the reference, or at ``start``.
    """
    random = np.random.default_rng(seed)
    theta = np.tile(np.log(reference if start is None else start), (runs, 1))
    path = np.empty((steps, runs))
    shape = (runs, groups, loss.group_size)
    row = np.arange(runs)[:, None, None]
    for n in range(steps):
        policy = np.exp(theta - theta.max(axis=1, keepdims=True))
        policy /= policy.sum(axis=1, keepdims=True)
        path[n] = policy[:, :correct].sum(axis=1)
        draws, ladder = random.random(shape), policy.cumsum(axis=1)
        answers = np.zeros(shape, dtype=np.int64)
        for k in range(ANSWERS - 1):
            answers += draws > ladder[:, k, None, None]
        rewards = np.where(answers < correct, *loss.reward)
        ratios = np.log(policy / reference)
        advantages = loss.advantage(rewards, ratios[row, answers], path[n][:, None, None])
        push = advantages - loss.beta * derivative(loss, policy, reference)[row, answers]
        if loss.drops_silent:
            push = np.where(np.ptp(rewards, axis=2, keepdims=True) > 0, push, 0.0)
        sums = np.bincount((answers + ANSWERS * row).ravel(), push.ravel(), runs * ANSWERS).reshape(runs, ANSWERS)
        sums /= groups * loss.group_size
        theta += rate * (sums - policy * sums.sum(axis=1, keepdims=True))  # Σ push·∂ log π/∂θ
    return path


def derivative(loss: Loss, policy: Array, reference: Array) -> Array:
    """Return d(KL term)/d log π for every answer, shape (runs, ANSWERS)."""
    if loss.kl is None:
        return np.zeros_like(policy)
    logp = np.log(policy)
    return np.imag(loss.kl(logp + 1e-30j, np.log(reference), logp)) / 1e-30 + np.zeros_like(policy)


def settled(path: Array, burn: int) -> tuple[float, float]:
    """Return the mean over time and runs after ``burn`` steps, and its standard error from the runs."""
    means = path[burn:].mean(axis=0)
    return float(means.mean()), float(means.std(ddof=1) / np.sqrt(means.size))


# ---- advantages, as the trainers compute them from the rewards of a group ------------------------------------------


def over_std(eps: float, ddof: int) -> Callable[[Array, Array, Array], Array]:
    def advantage(rewards: Array, ratios: Array, p: Array) -> Array:
        std = rewards.std(axis=2, ddof=ddof, keepdims=True)
        return (rewards - rewards.mean(axis=2, keepdims=True)) / (std + eps)

    return advantage


def centred(rewards: Array, ratios: Array, p: Array) -> Array:
    return rewards - rewards.mean(axis=2, keepdims=True)


def leave_one_out(rewards: Array, ratios: Array, p: Array) -> Array:
    size = rewards.shape[2]
    return rewards - (rewards.sum(axis=2, keepdims=True) - rewards) / (size - 1)


def exact_critic(rewards: Array, ratios: Array, p: Array) -> Array:
    return rewards - p


def with_kl_in_reward(
    advantage: Callable[[Array, Array, Array], Array], beta: float, before: bool
) -> Callable[[Array, Array, Array], Array]:
    """The KL as a negative reward, before the advantage is made of it, or subtracted from the finished advantage."""
    if before:
        return lambda rewards, ratios, p: advantage(rewards - beta * ratios, ratios, p)
    return lambda rewards, ratios, p: advantage(rewards, ratios, p) - beta * ratios


# ---- KL terms, as the trainers write them ----------------------------------------------------------------------------


def k1(logp: Any, ref: Any, old: Any) -> Any:
    return logp - ref


def k2(logp: Any, ref: Any, old: Any) -> Any:
    return 0.5 * (logp - ref) ** 2


def k3(logp: Any, ref: Any, old: Any) -> Any:
    return np.exp(ref - logp) - (ref - logp) - 1


def k1_times_ratio(logp: Any, ref: Any, old: Any) -> Any:
    return np.exp(logp - old) * (logp - ref)


def k3_times_ratio(logp: Any, ref: Any, old: Any) -> Any:
    return (np.exp(ref - logp) - (ref - logp) - 1) * np.exp(logp - old)


def k3_straight_through(logp: Any, ref: Any, old: Any) -> Any:
    """The value of k3 and the gradient of k2: backward − backward.detach() + forward.detach()."""
    return 0.5 * (logp - ref) ** 2 - 0.5 * (old - ref) ** 2 + (np.exp(ref - old) - (ref - old) - 1)

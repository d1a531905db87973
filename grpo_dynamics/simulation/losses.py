"""The loss of a step as trainers code it: ratios, clipping, KL estimators, aggregation; and its gradient on the logits.

With ρ = π/π_old and ℓ = log π/π_ref, each sampled answer o adds s·[min(ρA, clip(ρ)A) − β·k(ℓ)] to the objective. A
function f(log π(o)) has the gradient f'·∂log π(o), and a softmax the scores ∂_j log π_o = 1{j=o} − π_j: all that
matters of each answer is its coefficient f'.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from grpo_dynamics.arrays import Array, as_arrays, namespace, quiet
from grpo_dynamics.simulation.outcomes import Outcomes
from grpo_dynamics.simulation.policies import difference, kl_divergence, normalize, total
from grpo_dynamics.update_rule import Training


@dataclasses.dataclass(frozen=True, eq=False)
class Batch:
    """What the samples of a step say, as means over the samples of a question; each of shape (questions, K).

    Args:
        share: how much of the samples are answer o.
        push: mean of max(A, 0) over the samples, where they are answer o.
        pull: mean of min(A, 0), where they are answer o; ≤ 0.
    """

    share: Any
    push: Any
    pull: Any


def column(value: Any, like: Array) -> Any:
    """Return a number as it is, and an array of one value per question as a column beside the answers."""
    if not getattr(value, "ndim", 0):
        return value
    return namespace(like).asarray(value, dtype=like.dtype, device=like.device)[:, None]


def coefficient(kl: str, log_ratio: Array, ratio: Array) -> Array:
    """Return what multiplies ∂log π in the gradient of a KL estimator at sampled answers.

    Args:
        kl: "k1", "k2", "k3", "k1_times_ratio" or "k3_times_ratio".
        log_ratio: ℓ = log π/π_ref.
        ratio: ρ = π/π_old.

    Source: derived in docs/notebooks/8_kl_estimators.

    >>> import numpy as np
    >>> print(coefficient("k2", np.array([0.5]), np.array([1.0])))
    [0.5]
    """
    xp = namespace(log_ratio)
    if kl == "k1":
        return 1.0 + 0.0 * log_ratio
    if kl == "k2":
        return log_ratio
    if kl == "k3":
        return -xp.expm1(-log_ratio)
    if kl == "k1_times_ratio":
        return ratio * (log_ratio + 1)
    return ratio * log_ratio  # k3: (k3 + 1 − e^−ℓ)·ρ


def _value(kl: str, log_ratio: Array) -> Array:
    """k1, k2 or k3 itself."""
    if kl == "k2":
        return log_ratio * log_ratio / 2
    return log_ratio if kl == "k1" else namespace(log_ratio).expm1(-log_ratio) + log_ratio


@quiet
def gradient(
    log_policy: Array, log_old: Array, log_reference: Array, batch: Batch, outcomes: Outcomes, training: Training
) -> Array:
    """Return the gradient of the objective on the logits, shape (questions, K).

    Args:
        log_policy: log-probabilities of π.
        log_old: those of π_old, from which the batch came.
        log_reference: those of π_ref.
        batch: the samples, or their expectation.
        outcomes: the questions.
        training: ratio, clipping, KL term and aggregation.
    """
    xp = namespace(log_policy)
    beta, anchors = column(training.beta, log_policy), _anchors(log_reference, log_old, training)
    from_old = difference(log_policy, log_old)
    lengths = outcomes.lengths
    tokens = _tokens_counted(batch, lengths, training)

    slope = _policy_term(from_old, batch, training, lengths) * tokens
    if training.kl not in ("exact", "none", "k1_in_reward"):
        by_token = training.kl_level == "token"
        ratio = xp.exp(from_old / lengths if by_token else from_old)
        pull_back = 0.0 * slope
        for weight, anchor in anchors:
            log_ratio = difference(log_policy, anchor)
            log_ratio = log_ratio / lengths if by_token else log_ratio
            coded = coefficient(training.kl, log_ratio, ratio)
            if training.kl_clamp is not None:
                coded = xp.where(xp.abs(_value(training.kl, log_ratio)) <= training.kl_clamp, coded, 0.0)
            pull_back = pull_back + weight * coded
        pull_back = pull_back / lengths if by_token else pull_back
        slope = slope - beta * batch.share * pull_back * tokens

    policy = xp.exp(log_policy)
    result = slope - policy * total(slope)[:, None]
    if training.kl == "exact":
        for weight, anchor in anchors:
            centred = difference(log_policy, anchor) - kl_divergence(log_policy, anchor)[:, None]
            result = result - beta * weight * xp.where(policy > 0, policy * centred, 0.0)
    return result


@quiet
def ascend(
    log_policy: Array, log_old: Array, log_reference: Array, batch: Batch, outcomes: Outcomes, training: Training
) -> Array:
    """Return the policy after one inner step: plain or natural gradient ascent on the logits.

    For a softmax the inverse of the Fisher matrix divides by π, up to a constant that moves nothing.
    """
    xp = namespace(log_policy)
    step = gradient(log_policy, log_old, log_reference, batch, outcomes, training)
    if training.natural:
        policy = xp.exp(log_policy)
        step = xp.where(policy > 0, step / policy, 0.0)
    return normalize(log_policy + column(training.learning_rate, log_policy) * step)


def _anchors(log_reference: Array, log_old: Array, training: Training) -> list[tuple[Any, Array]]:
    """What the KL term is taken to, and its weight; without what has none."""
    alpha = column(training.alpha, log_reference)
    both = [(alpha, log_reference), (1 - alpha, log_old)]
    return [(weight, anchor) for weight, anchor in both if not (isinstance(weight, int | float) and weight == 0)]


def _policy_term(from_old: Array, batch: Batch, training: Training, lengths: Array) -> Array:
    """The coefficients of the clipped surrogate."""
    xp = namespace(from_old)
    by_token = training.ratio_level != "sequence"  # tokens of an answer are equally probable: all have the mean ratio
    ratio = xp.exp(from_old / lengths if by_token else from_old)
    push, pull = batch.push, batch.pull
    if training.clip_high is not None:
        push = xp.where(ratio <= 1 + training.clip_high, push, 0.0)
    if training.clip_low is not None:
        pull = xp.where(ratio >= 1 - training.clip_low, pull, 0.0)
    if training.dual_clip is not None:
        pull = xp.where(ratio <= training.dual_clip, pull, 0.0)
    slope = xp.where(push + pull == 0, 0.0, ratio * (push + pull))  # the ratio of what never came may overflow
    return slope / lengths if by_token else slope


def _tokens_counted(batch: Batch, lengths: Array, training: Training) -> Array:
    """How much a whole answer's number weighs, standing on each of its tokens: |o| over the aggregation's divisor."""
    if training.aggregation == "sequence_mean":
        return 1.0
    xp, lengths = as_arrays(lengths)
    if training.aggregation == "token_mean":
        return lengths * (xp.sum(batch.share) / xp.sum(batch.share * lengths))
    return lengths / (xp.max(lengths) if training.max_tokens is None else training.max_tokens)

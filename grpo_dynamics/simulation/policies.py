"""Policies as log-probabilities of the listed answers, the last axis: distances between them, and their log-odds.

An answer that does not exist, since another question has more of them, has log-probability −inf.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from grpo_dynamics.arrays import Array, as_arrays, namespace, quiet

FEW = 32
"""Up to so many answers NumPy is faster column by column than along rows: a maximum of four by a factor of 20."""


def total(values: Array) -> Array:
    """Return the sum over the answers."""
    xp = namespace(values)
    return _by_column(xp.add, values) if _is_narrow(values) else xp.sum(values, axis=-1)


def largest(values: Array) -> Array:
    """Return the maximum over the answers."""
    xp = namespace(values)
    return _by_column(xp.maximum, values) if _is_narrow(values) else xp.max(values, axis=-1)


def _is_narrow(values: Array) -> bool:
    return isinstance(values, np.ndarray) and 0 < values.shape[-1] <= FEW


def _by_column(combine: Callable[[Array, Array], Array], values: Array) -> Array:
    return functools.reduce(combine, (values[..., column] for column in range(values.shape[-1])))


def log_sum(values: Array) -> Array:
    """Return log Σ exp(values) over the last axis; −inf for nothing at all."""
    xp = namespace(values)
    top = largest(values)
    top = xp.where(xp.isinf(top), 0.0, top)
    return xp.log(total(xp.exp(values - top[..., None]))) + top


def difference(log_p: Array, log_q: Array) -> Array:
    """Return log p/q, 0 where both are 0."""
    xp = namespace(log_p, log_q)
    return xp.where(log_p == log_q, 0.0, log_p - log_q)


@quiet
def normalize(logits: Array) -> Array:
    """Return the log-probabilities of a softmax.

    >>> print(normalize([[0.0, 0.0]]).round(6))
    [[-0.693147 -0.693147]]
    """
    _, logits = as_arrays(logits)
    return logits - log_sum(logits)[..., None]


@quiet
def log_odds(log_policy: Array, correct: Array) -> Array:
    """Return the log-odds of a right answer, also where p rounds to 1.

    Args:
        log_policy: log-probabilities, shape (..., answers).
        correct: whether an answer is right, same shape or one that broadcasts.

    >>> print(log_odds([[0.0, -50.0]], [[True, False]]))
    [50.]
    """
    xp, log_policy = as_arrays(log_policy)
    correct = xp.asarray(correct)
    return log_sum(xp.where(correct, log_policy, -xp.inf)) - log_sum(xp.where(correct, -xp.inf, log_policy))


@quiet
def kl_divergence(log_p: Array, log_q: Array) -> Array:
    """Return KL(p‖q) in nats, over the last axis.

    Between policies of equal conditionals it is that of their success probabilities,
    p·log(p/q) + (1−p)·log((1−p)/(1−q)).

    >>> print(kl_divergence([[0.0, -float("inf")]], normalize([[0.0, 0.0]])).round(6))
    [0.693147]
    """
    xp, log_p, log_q = as_arrays(log_p, log_q)
    p = xp.exp(log_p)
    return total(xp.where(p > 0, p * difference(log_p, log_q), 0.0))


def total_variation(log_p: Array, log_q: Array) -> Array:
    """Return ½·Σ|p − q| over the last axis: of policies of equal conditionals the distance of their p.

    >>> print(total_variation(normalize([[0.0, 0.0]]), [[0.0, -float("inf")]]))
    [0.5]
    """
    xp, log_p, log_q = as_arrays(log_p, log_q)
    return 0.5 * total(xp.abs(xp.exp(log_p) - xp.exp(log_q)))


@quiet
def renyi_correction(log_policy: Array, log_reference: Array, correct: Array, alpha: Array) -> Array:
    """Return Δ_R of the two-KL step: by how much unequal conditionals move the next log-odds.

    Δ_R = log Σ_{r=1} π_ref(o|1)^α π(o|1)^(1−α) − log Σ_{r=0} π_ref(o|0)^α π(o|0)^(1−α); each of the two is
    (α−1) times a Rényi divergence of order α, and 0 where the conditionals agree, or at α = 0 and 1.

    Args:
        log_policy: log-probabilities of π_{n−1}, shape (..., answers).
        log_reference: those of π_ref, same shape.
        correct: whether an answer is right, same shape.
        alpha: KL anchor α in [0, 1], shape (...,) or a number.

    Source: [2503.06639v4, Thm 9].

    >>> policy, reference = normalize([[0.0, 0.0, 0.0]]), normalize([[0.0, 2.0, 0.0]])
    >>> print(renyi_correction(policy, reference, [[True, True, False]], 0.5).round(6))
    [-0.096776]
    """
    xp, log_policy, log_reference, alpha = as_arrays(log_policy, log_reference, alpha)
    correct, anchor = xp.asarray(correct), alpha[..., None]
    sides = []
    for side in (correct, ~correct):
        first, second = (xp.where(side, x, -xp.inf) for x in (log_reference, log_policy))
        first, second = (x - log_sum(x)[..., None] for x in (first, second))
        sides.append(log_sum(xp.where(xp.isinf(first) | xp.isinf(second), -xp.inf, mix(anchor, first, second))))
    return sides[0] - sides[1]


def mix(anchor: Array, first: Array, second: Array) -> Array:
    """Return anchor·first + (1−anchor)·second, where a share of 0 also takes nothing from −inf."""
    xp, anchor, first, second = as_arrays(anchor, first, second)
    return xp.where(anchor == 0, 0.0, anchor * first) + xp.where(anchor == 1, 0.0, (1 - anchor) * second)

"""Process supervision: rewards for the steps of an answer, and the advantages that a group makes of them.

DeepSeekMath whitens all step rewards of a group together; a token's advantage is the sum of the normalised rewards of
the steps that end at it or after it. Outcome supervision is the case of one step per answer, which is GRPO.
"""

from __future__ import annotations

from typing import Any

from grpo_dynamics.advantages import returns
from grpo_dynamics.arrays import Array, as_arrays, quiet, require, require_choice
from grpo_dynamics.normalization import PLACEMENTS, EpsPlacement
from grpo_dynamics.simulation.answer_tree import AnswerTree


@quiet
def process_advantages(
    step_rewards: Array, eps: Array = 0.0, eps_placement: EpsPlacement = "std", ddof: int = 0, divide: bool = True
) -> Array:
    """Return the advantage of every token of a group of answers whose steps are rewarded.

    Args:
        step_rewards: shape (..., G, T): what the step that ends with a token earns, NaN where no step ends. A group
            needs at least one step more than ddof.
        eps: smoothing ≥ 0 of the standard deviation over all steps of the group.
        eps_placement: "std" adds ε to the standard deviation, "variance" puts it inside the root.
        ddof: 0 divides the sum of squares by the number of steps, 1 by one less.
        divide: whether to divide by the standard deviation; without it this is Dr. GRPO's, of steps.

    Returns:
        advantages, shape (..., G, T); 0 in groups whose steps are all rewarded alike, and after the last step of an
        answer.

    Raises:
        ValueError: for a wrong shape, rewards that are infinite, too few steps, or options out of range.

    Source: [2402.03300, Sec. 4.1.3].

    >>> nan = float("nan")
    >>> print(process_advantages([[nan, 1.0, 1.0], [0.0, nan, 0.0]]))
    [[ 2.  2.  1.]
     [-2. -1. -1.]]
    """
    require_choice("eps_placement", eps_placement, PLACEMENTS)
    require_choice("ddof", ddof, (0, 1))
    require("eps", eps, "a finite number >= 0", lambda x: (x >= 0) & (x < float("inf")))
    xp, rewards, eps = as_arrays(step_rewards, eps)
    if rewards.ndim < 2:
        raise ValueError(f"step_rewards must have shape (..., group, tokens), got {tuple(rewards.shape)}")
    ends = ~xp.isnan(rewards)
    rewards = xp.where(ends, rewards, 0.0)
    require("step_rewards", rewards, "finite, or NaN where no step ends", lambda x: abs(x) < float("inf"))
    steps = xp.sum(xp.astype(ends, rewards.dtype), axis=(-2, -1), keepdims=True)
    require("steps in a group", steps, f"at least {1 + ddof}", lambda x: x >= 1 + ddof)
    mean = xp.sum(rewards, axis=(-2, -1), keepdims=True) / steps
    distance = xp.where(ends, rewards - mean, 0.0)
    if divide:
        variance = xp.sum(distance * distance, axis=(-2, -1), keepdims=True) / (steps - ddof)
        distance = distance * _inverse_std(variance, mean, eps, eps_placement)
    return returns(distance)


def push_of_groups(
    tree: AnswerTree,
    counts: Array,
    divide: bool = True,
    eps: Array = 0.0,
    eps_placement: EpsPlacement = "std",
    ddof: int = 0,
) -> Array:
    """Return the mean over all samples of the advantages of the tokens, from how often each answer came in each group.

    The same as :func:`process_advantages` of the groups written out, for the price of the answers: an advantage is
    (Σ r − mean · number of steps)/std with the steps that are still to end.

    Args:
        tree: the answers, with their step rewards.
        counts: shape (questions, groups, answers). Probabilities in place of counts, in one group, give the exact
            expectation for G → ∞ (with ddof=0).
        divide: whether to divide by the standard deviation.
        eps: its smoothing.
        eps_placement: where ε goes.
        ddof: what its divisor lacks.

    Returns:
        shape (questions, answers, T): the sum over the samples of an answer of its advantages over all samples.

    >>> tree = AnswerTree.chains([[0.5, 0.5]], [[True, False]], [1, 2])
    >>> print(push_of_groups(tree, tree.reference[:, None, :]).round(3))
    [[[ 0.5  0. ]
      [-0.5 -0.5]]]
    """
    xp, counts = as_arrays(counts)
    ends = tree.beside(tree.step_ends)
    steps, first, second = (
        xp.sum(x, axis=-1)[:, None, :] for x in (ends[None, ...], tree.rewards, tree.rewards * tree.rewards)
    )
    number = xp.sum(counts * steps, axis=-1, keepdims=True)
    mean = xp.sum(counts * first, axis=-1, keepdims=True) / number
    scale = 1.0 + 0.0 * mean
    if divide:
        squares = xp.sum(counts * (second - 2 * mean * first + mean * mean * steps), axis=-1, keepdims=True)
        scale = _inverse_std(squares / (number - ddof), mean, eps, eps_placement)
    samples = xp.sum(counts, axis=(1, 2))[:, None, None]
    of_rewards, of_steps = xp.sum(counts * scale, axis=1), xp.sum(counts * scale * mean, axis=1)
    total = of_rewards[:, :, None] * returns(tree.rewards) - of_steps[:, :, None] * returns(ends)[None, ...]
    return xp.where(tree.beside(tree.inside) > 0, total / samples, 0.0)


@quiet
def _inverse_std(variance: Array, mean: Array, eps: Any, eps_placement: EpsPlacement) -> Array:
    """1/std, and 0 where the variance is nothing but the rounding of the mean: equal rewards teach nothing."""
    xp, variance, mean, eps = as_arrays(variance, mean, eps)
    silent = variance <= 64 * float(xp.finfo(variance.dtype).eps) * mean * mean
    std = xp.sqrt(variance + eps) if eps_placement == "variance" else xp.sqrt(variance) + eps
    return xp.where(silent, 0.0, 1 / xp.where(silent, 1.0, std))

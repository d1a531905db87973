"""From rewards to advantages: within a group of samples, along the tokens of an answer, and DeepSeekMath's example.

Groups lie along the last axis of ``rewards``, or the tokens of one answer do. What comes after the end of an answer is
written as reward 0 and value 0: it then adds nothing to any residual.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from grpo_dynamics.arrays import Array, as_arrays, quiet, require, require_choice
from grpo_dynamics.normalization import PLACEMENTS, EpsPlacement

# ---- groups ----------------------------------------------------------------------------------------------------------


@quiet
def whitened(rewards: Array, eps: Array = 0.0, eps_placement: EpsPlacement = "std", ddof: int = 0) -> Array:
    """Return GRPO's advantages (r − mean)/(std + ε) of each group; 0 where all rewards of a group are equal.

    Args:
        rewards: finite numbers, shape (..., G) with G ≥ 2.
        eps: smoothing ≥ 0.
        eps_placement: "std" adds ε to the standard deviation, "variance" puts it inside the root.
        ddof: 0 divides the sum of squares by G, 1 by G−1.

    Raises:
        ValueError: for rewards that are not finite, groups of one, ε < 0, an unknown placement, or ddof not 0 or 1.

    Source: [2402.03300, Sec. 4.1.2].

    >>> print(whitened([1.0, 0.0, 0.0, 0.0]).round(4))
    [ 1.7321 -0.5774 -0.5774 -0.5774]
    """
    require_choice("eps_placement", eps_placement, PLACEMENTS)
    require_choice("ddof", ddof, (0, 1))
    require("eps", eps, "a finite number >= 0", lambda x: (x >= 0) & (x < float("inf")))
    xp, rewards, eps = _groups(rewards, eps)
    size = rewards.shape[-1]
    mean = xp.mean(rewards, axis=-1, keepdims=True)
    distance = rewards - mean
    # the mean of equal numbers is rounded: what is left of them must not be divided by its own size
    silent = xp.max(rewards, axis=-1, keepdims=True) == xp.min(rewards, axis=-1, keepdims=True)
    unit = xp.where(silent, 1.0, xp.max(xp.abs(distance), axis=-1, keepdims=True))  # squares of it may underflow
    spread = xp.sqrt(xp.sum((distance / unit) ** 2, axis=-1, keepdims=True) / (size - ddof))
    std = unit * xp.sqrt(spread**2 + eps / unit**2) if eps_placement == "variance" else unit * spread + eps
    return xp.where(silent, 0.0, distance / xp.where(silent, 1.0, std))


def centred(rewards: Array) -> Array:
    """Return Dr. GRPO's advantages r − mean of each group, the sample itself in the mean: on average Ω = (G−1)/G.

    Source: [2503.20783].

    >>> print(centred([1.0, 0.0, 0.0, 0.0]))
    [ 0.75 -0.25 -0.25 -0.25]
    """
    xp, rewards = _groups(rewards)
    return rewards - xp.mean(rewards, axis=-1, keepdims=True)


def leave_one_out(rewards: Array) -> Array:
    """Return RLOO's advantages: the reward less the mean of the other rewards of its group, so Ω = 1.

    Source: [2402.14740].

    >>> print(leave_one_out([1.0, 0.0, 0.0, 0.0]).round(4))
    [ 1.     -0.3333 -0.3333 -0.3333]
    """
    size = _groups(rewards)[1].shape[-1]
    return centred(rewards) * (size / (size - 1))


def _groups(rewards: Array, *more: Array) -> tuple[Any, ...]:
    require("rewards", rewards, "finite numbers", lambda x: (x > -float("inf")) & (x < float("inf")))
    xp, rewards, *more_arrays = as_arrays(rewards, *more)
    if rewards.ndim == 0 or rewards.shape[-1] < 2:
        raise ValueError(f"rewards must hold groups of at least 2 along the last axis, got shape {rewards.shape}")
    return xp, rewards, *more_arrays


# ---- tokens ----------------------------------------------------------------------------------------------------------


def returns(rewards: Array, gamma: float = 1.0) -> Array:
    """Return Σ_l γ^l r_(t+l), what is still to come at each token.

    Args:
        rewards: shape (..., T).
        gamma: discount γ in [0, 1].

    Raises:
        ValueError: for γ out of range.

    >>> print(returns([0.0, 0.0, 1.0], gamma=0.5))
    [0.25 0.5  1.  ]
    """
    _require_discount("gamma", gamma)
    xp, rewards = _tokens(rewards)
    return _backward_sums(xp, rewards, gamma)


def td_residuals(rewards: Array, values: Array, gamma: float = 1.0) -> Array:
    """Return δ_t = r_t + γ·V(s_(t+1)) − V(s_t), where V is 0 after the last token.

    Args:
        rewards: shape (..., T), the reward that token t earns.
        values: shape (..., T), the critic's value of the prefix before token t.
        gamma: discount γ in [0, 1].

    Raises:
        ValueError: for γ out of range.

    Source: [1506.02438, eq. 10].

    >>> print(td_residuals([0.0, 0.0, 1.0], [0.5, 0.75, 0.25]))
    [ 0.25 -0.5   0.75]
    """
    _require_discount("gamma", gamma)
    xp, rewards, values = _tokens(rewards, values)
    after = xp.concat([values[..., 1:], 0.0 * values[..., :1]], axis=-1)
    return rewards + gamma * after - values


def gae(rewards: Array, values: Array, gae_lambda: float = 1.0, gamma: float = 1.0) -> Array:
    """Return the generalised advantage estimates A_t = Σ_l (γλ)^l δ_(t+l), by the recursion A_t = δ_t + γλ·A_(t+1).

    λ = 1 gives return − V(s_t), λ = 0 the residual δ_t.

    Args:
        rewards: shape (..., T), the reward that token t earns.
        values: shape (..., T), the critic's value of the prefix before token t.
        gae_lambda: λ in [0, 1].
        gamma: discount γ in [0, 1].

    Raises:
        ValueError: for λ or γ out of range.

    Source: [1506.02438, eq. 16].

    >>> print(gae([0.0, 0.0, 1.0], [0.5, 0.75, 0.25], gae_lambda=0.5))
    [ 0.1875 -0.125   0.75  ]
    """
    _require_discount("gae_lambda", gae_lambda)
    residuals = td_residuals(rewards, values, gamma)
    return _backward_sums(as_arrays(residuals)[0], residuals, gamma * gae_lambda)


def gae_by_definition(rewards: Array, values: Array, gae_lambda: float = 1.0, gamma: float = 1.0) -> Array:
    """Return what :func:`gae` returns, as the mean of the l-step advantages with weights (1−λ)λ^(l−1).

    The l-step advantage is r_t + … + γ^(l−1)·r_(t+l−1) + γ^l·V(s_(t+l)) − V(s_t). Those that reach the last token are
    the whole return, so they share the weight λ^(T−t−1). Costs O(T³); for checks and for reading.

    Source: [1506.02438, eq. 11–16].

    >>> print(gae_by_definition([0.0, 0.0, 1.0], [0.5, 0.75, 0.25], gae_lambda=0.5))
    [ 0.1875 -0.125   0.75  ]
    """
    _require_discount("gae_lambda", gae_lambda)
    _require_discount("gamma", gamma)
    xp, rewards, values = _tokens(rewards, values)
    tokens = rewards.shape[-1]

    def after(t: int, steps: int) -> Array:
        earned = sum(gamma**i * rewards[..., t + i] for i in range(steps))
        ahead = gamma**steps * values[..., t + steps] if t + steps < tokens else 0.0
        return earned + ahead - values[..., t]

    def mean(t: int) -> Array:
        last = tokens - t
        inner = sum((1 - gae_lambda) * gae_lambda ** (steps - 1) * after(t, steps) for steps in range(1, last))
        return inner + gae_lambda ** (last - 1) * after(t, last)

    return xp.stack([mean(t) for t in range(tokens)], axis=-1)


def _tokens(rewards: Array, *values: Array) -> tuple[Any, ...]:
    """Arrays with the tokens along the last axis; ValueError where a number is not finite or the tokens differ."""
    for name, value in zip(("rewards", "values"), (rewards, *values), strict=False):
        require(name, value, "finite numbers", lambda x: (x > -float("inf")) & (x < float("inf")))
    xp, *arrays = as_arrays(rewards, *values)
    if any(array.ndim == 0 for array in arrays):
        raise ValueError("rewards must have the shape (..., T), got a number")
    if len({array.shape[-1] for array in arrays}) > 1:
        raise ValueError(f"values must have the tokens of rewards, {arrays[0].shape[-1]}, got {arrays[1].shape[-1]}")
    return xp, *arrays


def _backward_sums(xp: Any, terms: Array, factor: float) -> Array:
    """Σ_l factor^l·terms[t+l] along the last axis."""
    sums: list[Array] = []
    for t in reversed(range(terms.shape[-1])):
        sums.append(terms[..., t] + factor * sums[-1] if sums else terms[..., t])
    return xp.stack(sums[::-1], axis=-1) if sums else terms


def _require_discount(name: str, value: Any) -> None:
    require(name, value, "between 0 and 1", lambda x: (x >= 0) & (x <= 1))


# ---- clipping --------------------------------------------------------------------------------------------------------


def clipped(
    ratio: Array, advantage: Array, clip_low: float = 0.2, clip_high: float = 0.2, dual_clip: float = float("inf")
) -> Array:
    """Return PPO's objective min(ρA, clip(ρ, 1−low, 1+high)·A) for each sample, and at least c·A where A < 0.

    Args:
        ratio: ρ = π/π_old ≥ 0, broadcasts with ``advantage``.
        advantage: A.
        clip_low: how far ρ may fall below 1, in [0, 1].
        clip_high: how far ρ may rise above 1, ≥ 0.
        dual_clip: c > 1, from where on a ratio no longer counts if A < 0; infinite: it always does.

    Raises:
        ValueError: for a negative ratio or a clip range out of range.

    Source: [1707.06347, eq. 7]; the dual clip [1912.09729, eq. 3].

    >>> print(clipped([1.4, 1.4, 0.5, 0.5], [1.0, -1.0, 1.0, -1.0]))
    [ 1.2 -1.4  0.5 -0.8]
    """
    require("ratio", ratio, "a finite number >= 0", lambda x: (x >= 0) & (x < float("inf")))
    require("clip_low", clip_low, "between 0 and 1", lambda x: (x >= 0) & (x <= 1))
    require("clip_high", clip_high, "a number >= 0", lambda x: x >= 0)
    require("dual_clip", dual_clip, "above 1", lambda x: x > 1)
    xp, ratio, advantage = as_arrays(ratio, advantage)
    within = xp.clip(ratio, 1 - clip_low, 1 + clip_high)
    objective = xp.minimum(ratio * advantage, within * advantage)
    if dual_clip == float("inf"):
        return objective
    return xp.where(advantage < 0, xp.maximum(objective, dual_clip * advantage), objective)


def passes(
    ratio: Array, advantage: Array, clip_low: float = 0.2, clip_high: float = 0.2, dual_clip: float = float("inf")
) -> Array:
    """Return where :func:`clipped` still has a gradient: ρ ≤ 1 + high for A > 0, 1 − low ≤ ρ ≤ c for A < 0.

    >>> print(passes([1.4, 1.4, 0.5, 0.5], [1.0, -1.0, 1.0, -1.0]))
    [False  True  True False]
    """
    xp, ratio, advantage = as_arrays(ratio, advantage)
    return xp.where(advantage > 0, ratio <= 1 + clip_high, (ratio >= 1 - clip_low) & (ratio <= dual_clip))


# ---- an example to hold in the hand ----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class WorkedExample:
    """One group and one token of it, from rewards to objective: see :func:`worked_example`."""

    rewards: Any
    mean: float
    std: float
    advantages: Any
    ratio: float
    clipped_ratio: float
    objective: float


def worked_example(
    rewards: Array = (1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0, 0.0), ratio: float = 1.4, clip_range: float = 0.2
) -> WorkedExample:
    """Return DeepSeekMath's GRPO worked through by hand: eight answers, one token of the first of them.

    The default numbers are those often shown: mean .5, std .53 (divided by G−1), advantages ±.94, and a ratio of 1.4
    that is clipped to 1.2, so that the token counts 1.2·.94 = 1.12.

    Args:
        rewards: of the group, finite, at least 2 and not all equal.
        ratio: π/π_old of a token of the first answer, ≥ 0.
        clip_range: how far the ratio may move from 1, in [0, 1].

    Raises:
        ValueError: for rewards that are all equal or not finite, or numbers out of range.

    Source: [2402.03300, Sec. 4.1].

    >>> example = worked_example()
    >>> print(example.mean, round(example.std, 2), example.advantages.round(2), example.clipped_ratio)
    0.5 0.53 [ 0.94 -0.94 -0.94  0.94  0.94 -0.94  0.94 -0.94] 1.2
    """
    advantages = whitened(rewards, ddof=1)
    xp, group = as_arrays(rewards)
    if group.ndim != 1:
        raise ValueError(f"rewards must be those of one group, got shape {tuple(group.shape)}")
    if float(xp.max(group)) == float(xp.min(group)):
        raise ValueError(f"rewards must not all be equal: such a group teaches nothing, got {rewards!r}")
    mean = float(xp.mean(group))
    std = float(xp.sqrt(xp.sum((group - mean) ** 2) / (group.shape[-1] - 1)))
    return WorkedExample(
        rewards=group,
        mean=mean,
        std=std,
        advantages=advantages,
        ratio=ratio,
        clipped_ratio=min(max(ratio, 1 - clip_range), 1 + clip_range),
        objective=float(clipped(ratio, advantages[0], clip_range, clip_range)),
    )

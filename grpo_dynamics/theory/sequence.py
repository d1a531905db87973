"""Where small-step GRPO rests on answers of several tokens, with KL estimators per token or per answer.

Given w = Ω/β the expected gradient vanishes everywhere for one policy, found by induction from the last token to the
first; and w solves β·w = Ω(L(w)). A stationary policy of any size is the root of one equation (notebook 11_sequences).
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable
from typing import Any

import numpy as np

from grpo_dynamics.arrays import batch_shape, require
from grpo_dynamics.logodds import logit, sigmoid
from grpo_dynamics.normalization import Normalization, Whitened
from grpo_dynamics.theory.batch import k3_shares
from grpo_dynamics.theory.fixed_points import fixed_points
from grpo_dynamics.theory.flow import KL
from grpo_dynamics.theory.recursion import Recursion
from grpo_dynamics.theory.token_tree import (
    Level,
    Rule,
    Table,
    TokenTree,
    kl_advantage,
    log_chances,
    root_chances,
    rule,
    success_advantage,
)


class SequenceStatus(enum.IntEnum):
    """What is known of the policies in a :class:`Stationary`."""

    COMPLETE = 0
    SCANNED = 1
    NONE = 2

    @property
    def meaning(self) -> str:
        """One line in plain words."""
        return {
            SequenceStatus.COMPLETE: "every stationary policy of full support is listed",
            SequenceStatus.SCANNED: "the stationary policies that a fine scan of Ω/β shows",
            SequenceStatus.NONE: "none: nothing stops the policy, p goes to 1",
        }[self]


@dataclasses.dataclass(frozen=True, eq=False)
class Stationary:
    """The policies at which the expected gradient vanishes, in ascending order of the success probability.

    Attributes:
        log_odds: of success, shape (k,).
        ratio: w = Ω/β there, shape (k,).
        policies: k tables of the log-probability of each token after its prefix.
        residual: how far advantages and KL coefficients of tokens are from cancelling, over Ω; shape (k,).
        status: a :class:`SequenceStatus`.
    """

    log_odds: Any
    ratio: Any
    policies: tuple[Table, ...]
    residual: Any
    status: SequenceStatus

    @property
    def p(self) -> Any:
        """Success probabilities, shape (k,)."""
        return sigmoid(self.log_odds)


def stationary(
    tree: TokenTree,
    beta: float,
    normalization: Normalization | None = None,
    kl: KL = "k3",
    level: Level = "token",
) -> Stationary:
    """Return the stationary policies of small-step GRPO on a tree of answers.

    The status is COMPLETE for the exact KL of sequences (as :func:`~grpo_dynamics.fixed_points` is) and for k3, which
    has exactly one; SCANNED for the other per-token estimators, of which nothing is proved.

    Args:
        tree: the answers.
        beta: KL strength > 0, a number.
        normalization: how rewards become advantages; ``Whitened()`` if not given. Its options must be numbers.
        kl: as in :func:`~grpo_dynamics.theory.token_tree.rule`.
        level: likewise.

    Raises:
        ValueError: for β ≤ 0, an unknown estimator or level, or a wrong type.

    Source: derived in docs/notebooks/11_sequences.

    >>> tree = TokenTree([[0.1, 0.2], [0.3, 0.4]], [[True, False], [False, False]])
    >>> print(*(stationary(tree, beta=1.0, kl="k3", level=x).p.round(4) for x in ("token", "sequence")))
    [0.4651] [0.5915]
    """
    normalization = Whitened() if normalization is None else normalization
    if not isinstance(tree, TokenTree):
        raise ValueError(f"tree must be a TokenTree, got {tree!r}")
    if not isinstance(normalization, Normalization):
        raise ValueError(f"normalization must be a Normalization such as Whitened(), got {normalization!r}")
    if batch_shape(normalization):
        raise ValueError(f"normalization must have numbers for options, got shape {batch_shape(normalization)}")
    require("beta", beta, "a finite number > 0", lambda x: (x.ndim == 0) & (x > 0) & (x < float("inf")))
    which = rule(kl, level)
    if which is Rule.NOTHING:
        return Stationary(np.empty(0), np.empty(0), (), np.empty(0), SequenceStatus.NONE)
    with np.errstate(all="ignore"):
        if which is Rule.SEQUENCE:
            state = fixed_points(Recursion(beta, float(tree.p_ref), normalization)).log_odds
            ratios = (state - logit(tree.p_ref))[~np.isnan(state)]
        else:
            ratios = _ratios(tree, beta, normalization, which)
        policies = [tuple(x[0] for x in _policy(tree, np.array([w]), which)) for w in ratios]
        chances = [[np.logaddexp.reduce(x) for x in root_chances(policy, tree.correct)] for policy in policies]
        residual = [_residual(tree, policy, beta, normalization, kl, level) for policy in policies]
    log_odds = np.array([right - wrong for right, wrong in chances])
    order = np.argsort(log_odds)
    status = SequenceStatus.SCANNED if which is Rule.TOKEN else SequenceStatus.COMPLETE
    status = SequenceStatus.NONE if not len(policies) else status
    tables = tuple(policies[i] for i in order)
    return Stationary(log_odds[order], np.asarray(ratios)[order], tables, np.array(residual)[order], status)


def policy_at(tree: TokenTree, ratio: Any, kl: KL = "k3", level: Level = "token") -> Table:
    """Return the policy at rest when Ω/β is held at a number, as where Ω does not depend on p.

    Args:
        tree: the answers.
        ratio: w = Ω/β > 0, shape (k,).
        kl: as in :func:`~grpo_dynamics.theory.token_tree.rule`, not "k1" or "none".
        level: likewise.

    Returns:
        A table of log-probabilities with k as the first axis.

    Raises:
        ValueError: for w ≤ 0, "k1" or "none", or an unknown estimator or level.

    >>> tree = TokenTree([0.25, 0.75], [True, False])
    >>> print(np.exp(policy_at(tree, [1.0])[0]).round(4))
    [[0.5 0.5]]
    """
    ratio, which = np.asarray(ratio, float), rule(kl, level)
    require("ratio", ratio, "numbers > 0, shape (k,)", lambda x: (x.ndim == 1) & (x > 0) & (x < float("inf")))
    if which is Rule.NOTHING:
        raise ValueError(f"kl must be an estimator that regularises, got {kl!r}")
    with np.errstate(all="ignore"):
        return _policy(tree, ratio, which)


def _policy(tree: TokenTree, ratio: Any, which: Rule) -> Table:
    reference = tree.log_reference
    if which in (Rule.SEQUENCE, Rule.REVERSE_SEQUENCE):
        shift = ratio
        if which is Rule.REVERSE_SEQUENCE:
            p, q, _ = k3_shares(np, ratio, tree.p_ref, tree.reference[~tree.correct].sum())
            shift = np.log(p) - np.log(q) - logit(tree.p_ref)
        return tuple(
            _normalized(old + np.logaddexp(right + _column(shift, old), wrong))
            for old, (right, wrong) in zip(reference, log_chances(reference, tree.correct), strict=True)
        )
    right, wrong = np.log(tree.correct)[None], np.log(~tree.correct)[None]
    result: list[Any] = []
    for old in reversed(reference):
        behind = _column(ratio, old) * _behind(old, np.exp(right), np.exp(wrong))
        new = _normalized(old - behind) if which is Rule.TOKEN else old - np.log(_level(old, behind) + behind)
        right, wrong = (np.logaddexp.reduce(new + x, axis=-1) for x in (right, wrong))
        result.append(new)
    return tuple(result[::-1])


def _column(ratio: Any, level: Any) -> Any:
    return ratio.reshape(-1, *(1 for _ in level.shape))


def _normalized(level: Any) -> Any:
    return level - np.logaddexp.reduce(level, axis=-1)[..., None]


def _behind(old: Any, right: Any, wrong: Any) -> Any:
    """How far the chance of success of each token is behind that of the best possible one, without cancellation."""
    possible = old > -np.inf
    best = np.max(np.where(possible, right, 0.0), axis=-1, keepdims=True)
    least = np.min(np.where(possible, wrong, 1.0), axis=-1, keepdims=True)
    return np.where(possible, np.where(best < 0.5, best - right, wrong - least), 0.0)


def _level(old: Any, behind: Any) -> Any:
    """The ν > 0 with Σ π_ref/(ν + w·behind) = 1: Newton on 1/Σ, which is concave, climbs to it from the left."""
    share = np.exp(old)
    level = np.sum(np.where(behind == 0, share, 0.0), axis=-1, keepdims=True)
    for _ in range(200):
        terms = share / (level + behind)
        total = np.sum(terms, axis=-1, keepdims=True)
        step = (total - 1) * total / np.sum(terms / (level + behind), axis=-1, keepdims=True)
        level = level + step
        if not (np.abs(step) > 1e-15 * level).any():
            break
    return level


def _ratios(tree: TokenTree, beta: float, normalization: Normalization, which: Rule) -> Any:
    """Every w with β·w = Ω(L(w)): by sections where there is one, else between the points of a fine grid."""

    def excess(log_ratio: Any) -> Any:
        right, wrong = root_chances(_policy(tree, np.exp(log_ratio), which), tree.correct)
        log_odds = np.logaddexp.reduce(right, axis=-1) - np.logaddexp.reduce(wrong, axis=-1)
        return np.log(beta) + log_ratio - np.log(normalization.gap(log_odds))

    least, most = (float(np.log(normalization.gap(end)) - np.log(beta)) for end in (0.0, float("inf")))
    low = least - 1e-9
    if which is not Rule.TOKEN:
        high = most + 1e-9 if most < np.inf else low + 1
        while most == np.inf and excess(np.array([high]))[0] < 0:
            high += high - low
        return np.array([np.exp(_section(excess, low, high))])
    top = max(min(most, 7.2), low + 1e-9)  # beyond w = 1300 a gap is at its bound, or infinite
    grid = np.append(np.linspace(low, top, 4001), most + 1e-9 if most < np.inf else top)
    values = np.concatenate([excess(part) for part in np.array_split(grid, 64)])
    brackets = np.nonzero((values[1:] > 0) != (values[:-1] > 0))[0]
    return np.exp([_section(excess, grid[i], grid[i + 1]) for i in brackets])


def _section(function: Callable[[Any], Any], low: float, high: float) -> float:
    """The place where a function changes its sign on a bracket, by ever finer grids."""
    rising = bool(function(np.array([high]))[0] > 0)
    for _ in range(12):
        grid = np.linspace(low, high, 34)
        before = np.nonzero((function(grid[1:-1]) > 0) == rising)[0]
        first = int(before[0]) if before.size else 32
        low, high = float(grid[first]), float(grid[first + 1])
    return (low + high) / 2


def _residual(tree: TokenTree, policy: Table, beta: float, normalization: Normalization, kl: KL, level: Level) -> float:
    right, wrong = (np.logaddexp.reduce(x) for x in root_chances(policy, tree.correct))
    ratio = float(normalization.gap(right - wrong)) / beta
    pairs = zip(success_advantage(tree, policy), kl_advantage(tree, policy, kl, level), policy, strict=True)
    net = [np.where(new > -np.inf, up - back / ratio, 0.0) for up, back, new in pairs]
    return max(float(np.abs(x).max()) for x in net)

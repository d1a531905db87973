"""All fixed points of a recursion, with multiplier, stability and a status per element."""

from __future__ import annotations

import dataclasses
import enum
import math

import numpy as np

from grpo_dynamics.arrays import (
    Array,
    as_arrays,
    batch_shape,
    block_size,
    blocks,
    flat,
    map_options,
    take,
)
from grpo_dynamics.logodds import complement, logit, sigmoid
from grpo_dynamics.theory.flow import Flow, require_dynamics
from grpo_dynamics.theory.recursion import Recursion
from grpo_dynamics.theory.solvers.flow_fixed_points import forward_fixed_point
from grpo_dynamics.theory.solvers.recursion_fixed_points import roots


class Status(enum.IntEnum):
    """What is known of one element of a :class:`FixedPoints`."""

    OK = 0
    DEGENERATE = 1
    ABOVE_FOLD = 2
    MIRROR = 3
    NOT_CONVERGED = 4
    NO_PULL = 5
    WEAK_PULL = 6

    @property
    def meaning(self) -> str:
        """One line in plain words."""
        return _MEANING[self]


_MEANING = {
    Status.OK: "every interior fixed point is listed",
    Status.DEGENERATE: "on a fold to working precision: two fixed points have merged and are listed once",
    Status.ABOVE_FOLD: "no interior fixed point: without smoothing and above the fold, p goes to 1",
    Status.MIRROR: "no interior fixed point: without a pull to the reference, p goes to 1",
    Status.NOT_CONVERGED: "a fixed point was bracketed but not found to working precision",
    Status.NO_PULL: "no interior fixed point: the KL term is no pull on average, p goes to 1",
    Status.WEAK_PULL: "no interior fixed point: the pull to the reference is too weak at p = 1, p goes to 1",
}


@dataclasses.dataclass(frozen=True)
class FixedPoints:
    """Fixed points in ascending order along the first axis, NaN-padded.

    Attributes:
        log_odds: shape (3, *batch); (4, *batch) for ``FiniteGroup(silent_groups="drop")``, whose gap can fold twice.
        multiplier: dL_n/dL_{n−1} there, same shape.
        stable: |multiplier| < 1, same shape; False where padded.
        count: number of fixed points, shape (*batch).
        status: a :class:`Status` as int8, shape (*batch).
    """

    log_odds: Array
    multiplier: Array
    stable: Array
    count: Array
    status: Array

    @property
    def p(self) -> Array:
        """Success probabilities at the fixed points."""
        return sigmoid(self.log_odds)

    @property
    def one_minus_p(self) -> Array:
        """Failure probabilities, exact where p rounds to 1."""
        return complement(self.log_odds)


def fixed_points(dynamics: Recursion | Flow) -> FixedPoints:
    """Return all interior fixed points of a recursion or a flow, for every element of its batch.

    Counts are exact wherever the status is not DEGENERATE. The boundary points p = 0 and p = 1, which no orbit from
    the interior reaches in finite time, are not listed; the statuses ABOVE_FOLD, MIRROR, NO_PULL and WEAK_PULL say
    when p tends to 1.

    Args:
        dynamics: a :class:`~grpo_dynamics.Recursion` or a :class:`~grpo_dynamics.Flow`, of any shape. Work is done in
            blocks: memory beyond the options and the result does not grow with the batch. A fixed point of a flow is
            stable where its multiplier is below 1: small steps do not flip.

    Source: [2503.06639v4, Prop. 1, Thm 3, Lemma 1]; folds and count derived in docs/notebooks/6_bifurcations, flows
    in docs/notebooks/8_kl_estimators.

    >>> fp = fixed_points(Recursion(beta=1.0, p_ref=0.2))
    >>> print(fp.count, fp.p.round(4), fp.stable)
    3 [0.6813 0.9347 1.    ] [ True False  True]
    """
    require_dynamics(dynamics)
    if isinstance(dynamics, Flow) and dynamics.divergence == "reverse":
        found = fixed_points(dynamics.recursion)
        return dataclasses.replace(found, stable=found.multiplier < 1)
    shape = batch_shape(dynamics)
    xp, beta = as_arrays(dynamics.beta, beside=dynamics)
    if xp is not np:
        from grpo_dynamics.theory.solvers import compiled  # it imports this module

        if compiled.applies(dynamics):
            return compiled.fixed_points(dynamics)
    first = take(dynamics.normalization, shape, (slice(0, 1),) * len(shape))
    slots = (max(3, 2 + len(first.turns())), *shape)
    log_odds = xp.empty(slots, dtype=beta.dtype, device=beta.device)
    multiplier = xp.empty(slots, dtype=beta.dtype, device=beta.device)
    stable = xp.empty(slots, dtype=xp.bool, device=beta.device)
    count = xp.empty(shape, dtype=xp.int8, device=beta.device)
    status = xp.empty(shape, dtype=xp.int8, device=beta.device)
    with np.errstate(all="ignore"):
        for index in blocks(shape, max(block_size(xp), 1 << 16)):  # the last steps, for few roots, cost only calls
            inside = count[index].shape
            found = _solve_block(map_options(take(dynamics, shape, index), flat), math.prod(inside))
            held = found[1] < 1 if isinstance(dynamics, Flow) else xp.abs(found[1]) < 1
            for result, part in zip((log_odds, multiplier, stable), (*found[:2], held), strict=True):
                result[(slice(None), *index)] = xp.reshape(part, (-1, *inside))
            count[index], status[index] = (xp.reshape(part, inside) for part in found[2:])
    return FixedPoints(log_odds, multiplier, stable, count[()], status[()])


def _solve_block(dynamics: Recursion | Flow, size: int) -> tuple[Array, Array, Array, Array]:
    """log-odds and multiplier (slots, size), count and status (size,) of one block with one-dimensional options."""
    if isinstance(dynamics, Flow):
        return _solve_forward(dynamics, size)
    return _solve_recursion(dynamics, size)


def _solve_forward(flow: Flow, size: int) -> tuple[Array, Array, Array, Array]:
    """The same of a flow that the KL(π_ref‖π) pulls, or nothing."""
    xp, beta = as_arrays(flow.beta, beside=flow)
    turns = take(flow.normalization, (size,), slice(0, 1)).turns()
    blank = xp.full((max(3, 2 + len(turns)), size), xp.nan, dtype=beta.dtype, device=beta.device)
    log_odds, multiplier = blank + 0.0, blank + 0.0
    if flow.divergence == "none":
        none = xp.zeros((size,), dtype=xp.int64, device=beta.device)
        return log_odds, multiplier, none, none + int(Status.NO_PULL)
    log_odds[0, :], multiplier[0, :], present, converged = forward_fixed_point(
        flow.normalization, flow.beta, flow.p_ref, size
    )
    status = xp.where(present, int(Status.OK), int(Status.WEAK_PULL))
    return log_odds, multiplier, present, xp.where(converged, status, int(Status.NOT_CONVERGED))


def _solve_recursion(dynamics: Recursion, size: int) -> tuple[Array, Array, Array, Array]:
    """log-odds and multiplier (slots, size), count and status (size,) of one block with one-dimensional options."""
    xp, beta, p_ref, alpha = as_arrays(dynamics.beta, dynamics.p_ref, dynamics.alpha, beside=dynamics)
    zero = xp.zeros((size,), dtype=beta.dtype, device=beta.device)
    pull, anchor = alpha * beta + zero, logit(p_ref) + zero
    anchored = pull > 0
    found = roots(dynamics.normalization, xp.where(anchored, pull, 1.0), anchor, anchored)

    log_odds = xp.full((found.most * size,), xp.nan, dtype=beta.dtype, device=beta.device)
    multiplier = xp.full((found.most * size,), xp.nan, dtype=beta.dtype, device=beta.device)
    place, share = found.slot * size + found.element, alpha[found.element] if alpha.ndim else alpha
    log_odds[place] = found.log_odds
    multiplier[place] = 1 - share + share * found.elasticity  # Ω/(αβ) = L − L_ref
    status = xp.where(found.degenerate, int(Status.DEGENERATE), int(Status.OK))
    if not xp.all(found.found):
        status[found.element[~found.found]] = int(Status.NOT_CONVERGED)
    if not xp.all(found.count > 0):
        none = xp.where(anchored, int(Status.ABOVE_FOLD), int(Status.MIRROR))
        status = xp.where(found.count == 0, none, status)
    shape = (found.most, size)
    return xp.reshape(log_odds, shape), xp.reshape(multiplier, shape), found.count, status

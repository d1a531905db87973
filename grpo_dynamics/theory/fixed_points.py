"""All fixed points of a recursion, with multiplier, stability and a status per element.

With b = αβ a fixed point solves b·(L − L_ref) = Ω(L). The places where dΩ/dL = b, the folds, cut the line into
intervals on which L − L_ref − Ω(L)/b is monotone: its signs at the folds give the number of fixed points and a bracket
for each, before any root is searched. Each is then found by Newton's method in d = L − L_ref, first
plain, then kept inside its bracket and on log(b·d) − log Ω, which is nearly linear where the equation is exponential.
"""

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
    namespace,
    take,
)
from grpo_dynamics.logodds import complement, logit, sigmoid
from grpo_dynamics.normalization import Normalization, log_odds_limit
from grpo_dynamics.theory.recursion import Recursion, require_recursion


class Status(enum.IntEnum):
    """What is known of one element of a :class:`FixedPoints`."""

    OK = 0
    DEGENERATE = 1
    ABOVE_FOLD = 2
    MIRROR = 3
    NOT_CONVERGED = 4

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


def fixed_points(dynamics: Recursion) -> FixedPoints:
    """Return all interior fixed points of a recursion, for every element of its batch.

    Counts are exact wherever the status is not DEGENERATE. The boundary points p = 0 and p = 1, which no orbit from
    the interior reaches in finite time, are not listed; the statuses ABOVE_FOLD and MIRROR say when p tends to 1.

    Args:
        dynamics: a :class:`~grpo_dynamics.Recursion`, of any shape. Work is done in blocks: memory beyond the options
            and the result does not grow with the batch.

    Source: [2503.06639v4, Prop. 1, Thm 3, Lemma 1]; folds and count derived in docs/notebooks/6_bifurcations.

    >>> fp = fixed_points(Recursion(beta=1.0, p_ref=0.2))
    >>> print(fp.count, fp.p.round(4), fp.stable)
    3 [0.6813 0.9347 1.    ] [ True False  True]
    """
    require_recursion(dynamics)
    shape = batch_shape(dynamics)
    xp, beta = as_arrays(dynamics.beta, beside=dynamics)
    slots = (max(3, 2 + len(dynamics.normalization.turns())), *shape)
    log_odds = xp.full(slots, xp.nan, dtype=beta.dtype, device=beta.device)
    multiplier = xp.full(slots, xp.nan, dtype=beta.dtype, device=beta.device)
    count = xp.zeros(shape, dtype=xp.int8, device=beta.device)
    status = xp.zeros(shape, dtype=xp.int8, device=beta.device)
    with np.errstate(all="ignore"):
        for index in blocks(shape, block_size(xp)):
            inside = count[index].shape
            found = _solve_block(map_options(take(dynamics, shape, index), flat), math.prod(inside))
            for result, part in zip((log_odds, multiplier), found[:2], strict=True):
                result[(slice(None), *index)] = xp.reshape(part, (-1, *inside))
            count[index], status[index] = (xp.reshape(part, inside) for part in found[2:])
    return FixedPoints(log_odds, multiplier, xp.abs(multiplier) < 1, count[()], status[()])


def _solve_block(dynamics: Recursion, size: int) -> tuple[Array, Array, Array, Array]:
    """log-odds and multiplier (slots, size), count and status (size,) of one block with one-dimensional options."""
    xp, beta, p_ref, alpha = as_arrays(dynamics.beta, dynamics.p_ref, dynamics.alpha, beside=dynamics)
    zero = xp.zeros((size,), dtype=beta.dtype, device=beta.device)
    anchored = alpha * beta > 0
    pull, anchor = xp.where(anchored, alpha * beta, 1.0) + zero, logit(p_ref) + zero
    intervals, degenerate = _intervals(dynamics.normalization, pull, anchor)

    log_odds = xp.full((len(intervals) * size,), xp.nan, dtype=beta.dtype, device=beta.device)
    multiplier = xp.full((len(intervals) * size,), xp.nan, dtype=beta.dtype, device=beta.device)
    status = xp.where(degenerate, int(Status.DEGENERATE), int(Status.OK))
    count = xp.zeros((size,), dtype=xp.int64, device=beta.device)
    for i, (low, high, present) in enumerate(intervals):
        present = present & anchored
        at = xp.nonzero(present)[0]
        if at.shape[0] == 0:
            continue
        part = take(dynamics.normalization, (size,), at)
        d, converged = _newton(part, pull[at], anchor[at], low[at], high[at], i)
        beyond = xp.isinf(high[at]) & (i == 2)  # a fixed point that exists, and overflows
        d, converged = xp.where(beyond, xp.inf, d), converged | beyond
        root, share = anchor[at] + d, alpha[at] if alpha.ndim else alpha
        target = count[at] * size + at
        log_odds[target] = root
        rate = part.gap_and_rate(root)[1]
        multiplier[target] = 1 - share + xp.where(beyond, 0.0, share * d * rate)  # Ω/(αβ) = d
        if not xp.all(converged):
            status[at[~converged]] = int(Status.NOT_CONVERGED)
        count = count + present
    none = xp.where(anchored, int(Status.ABOVE_FOLD), int(Status.MIRROR))
    status = xp.where(count == 0, none, status)
    slots = (len(intervals), size)
    return xp.reshape(log_odds, slots), xp.reshape(multiplier, slots), count, status


def _intervals(
    normalization: Normalization, pull: Array, anchor: Array
) -> tuple[list[tuple[Array, Array, Array]], Array]:
    """Cut d = L − L_ref > 0 at the folds into intervals on which b·d − Ω is monotone, rising and falling in turn.

    Returns:
        (low, high, present) per interval: the bracket in d and whether it holds a root; and whether the element is
        degenerate: on a fold as far as this precision can tell. A double root is listed in a bracket of no width, in
        the rising interval beside its fold.
    """
    ends = normalization.gap(0.0), normalization.gap(float("inf"))
    xp, pull, anchor, smallest, largest, *folds = as_arrays(pull, anchor, *ends, *normalization.folds(pull))
    tiny = xp.finfo(pull.dtype).eps
    for i in range(1, len(folds)):  # two equal folds do not exist: b misses the piece of the slope between them
        folds[i] = xp.where(folds[i] - folds[i - 1] > 30 * tiny**0.5 * folds[i], folds[i], folds[i - 1])
    least, most, bounded = smallest / pull, largest / pull, (largest < xp.inf) & (pull > 0)
    limit = log_odds_limit(xp, pull.dtype)
    negative, degenerate = pull < 0, pull < 0
    knots, signs, doubles = [least], [negative], [negative]
    for i, fold in enumerate(folds):
        distance = fold - anchor
        ratio = pull * distance / normalization.gap(fold)  # b·d > Ω where this exceeds 1
        noise = 16 * tiny * (1 + (fold + xp.abs(anchor)) / xp.abs(distance))
        double = xp.abs(ratio - 1) <= noise
        for j in (i - 1, i + 1):
            double = double & (fold != folds[j]) if 0 <= j < len(folds) else double
        # beside a double root b·d − Ω is negative at a maximum, positive at a minimum
        signs.append(xp.where(double, i % 2 == 1, ratio > 1))
        knots.append(distance)
        doubles.append(double & ~doubles[-1])  # both at once is the cusp: one triple root
        degenerate = degenerate | double
    knots.append(xp.where(bounded, most, limit - anchor))
    signs.append(bounded)
    doubles.append(negative)
    intervals: list[tuple[Array, Array, Array]] = []
    for i in range(len(knots) - 1):
        rising = i % 2 == 0
        low, high = xp.maximum(knots[i], least), knots[i + 1]
        present = ~signs[i] & signs[i + 1] if rising else signs[i] & ~signs[i + 1]
        if i == 0:  # where b·d > Ω at L = 0 the first root has L < 0
            high = xp.where(least < -anchor, -anchor, high)
        double = doubles[i] | doubles[i + 1]
        if rising and xp.any(double):
            place = xp.where(doubles[i], knots[i], knots[i + 1])
            low, high, present = xp.where(double, place, low), xp.where(double, place, high), present | double
        intervals.append((low, high, present))
    return intervals, degenerate


def _newton(
    normalization: Normalization, pull: Array, anchor: Array, low: Array, high: Array, interval: int
) -> tuple[Array, Array]:
    """Return the root d of log(b·d/Ω(L_ref + d)) in each bracket, and whether it was found.

    Plain Newton steps first; where they have not settled in the bracket, at most 64 more, in which a bisection of
    log d replaces every step that would leave the bracket.
    """
    xp = namespace(low)
    d = _start(normalization, pull, anchor, low, high, interval)
    settled = d < 0
    for _ in range(2 if interval == 2 else 4):
        d, settled, _ = _newton_step(normalization, pull, anchor, d, logarithmic=interval == 1)
    slack = 8 * xp.finfo(d.dtype).eps  # bracket ends are attained in rounding
    converged = settled & (d >= low * (1 - slack)) & (d <= high * (1 + slack))
    at = xp.nonzero(~converged)[0]
    here, bottom, top = d[at], low[at], high[at]
    here = xp.where((here > bottom) & (here < top), here, xp.sqrt(bottom) * xp.sqrt(top))
    for steps in (3, 5, 12, 44):
        if at.shape[0] == 0:
            break
        part, b, origin = take(normalization, low.shape, at), pull[at], anchor[at]
        for _ in range(steps):
            new, settled, below = _newton_step(part, b, origin, here, logarithmic=True)
            right = below == (interval % 2 == 0)
            bottom, top = xp.where(right, here, bottom), xp.where(right, top, here)
            here = xp.where((new >= bottom) & (new <= top), new, xp.sqrt(bottom) * xp.sqrt(top))
        settled = settled | (top - bottom <= slack * top)
        d[at], converged[at] = here, settled
        late = xp.nonzero(~settled)[0]
        at, here, bottom, top = at[late], here[late], bottom[late], top[late]
    return d, converged


def _start(normalization: Normalization, pull: Array, anchor: Array, low: Array, high: Array, interval: int) -> Array:
    """Where to start: from how Ω grows away from L = 0, or at an end from which Newton's method is monotone."""
    xp = namespace(low)
    if interval == 0:  # below 0 Ω falls like e^(−L/2) from its bound at −∞: d = 2W(e^(−L_ref/2)/2b)
        log = xp.log1p(0.5 * xp.exp(-0.5 * anchor) / pull)
        lambert = log * (1 - xp.log1p(log) / (2 + log))  # W to two digits
        bound = normalization.gap(xp.where(anchor < 0, -xp.inf, anchor)) / pull
        start = xp.where(anchor < 0, xp.minimum(2 * lambert, bound), bound)
    elif interval == 1:  # beyond the fold Ω grows like e^(L/2)
        ratio = pull * low / normalization.gap(anchor + low)
        start = low + 2 * xp.log(ratio * (1 + 2 * xp.log(ratio * (1 + 2 * xp.log(ratio) / low)) / low))
    else:
        start = high if interval % 2 == 0 else low
    return xp.minimum(xp.maximum(start, low), high)


def _newton_step(
    normalization: Normalization, pull: Array, anchor: Array, d: Array, logarithmic: bool
) -> tuple[Array, Array, Array]:
    """Return the next d, whether it is exact to rounding, and whether b·d < Ω at the present one.

    A step on log(b·d) − log Ω, or on b·d − Ω: the first is safe, the second cheaper and better where d hardly matters.
    """
    xp = namespace(d)
    tiny = xp.finfo(d.dtype).eps
    gap, rate = normalization.gap_and_rate(anchor + d)
    ratio, elasticity = gap / (pull * d), d * rate
    tangent = 1 - elasticity
    move = xp.log(ratio) / tangent if logarithmic else (ratio - 1) / (1 - elasticity * ratio)
    # the error that a step leaves is of the order of move²/tangent, or rounding over tangent
    slope = xp.abs(tangent)
    settled = xp.abs(move) <= xp.maximum(0.25 * tiny**0.5 * slope, 32 * tiny / slope)
    return d + d * move, settled, ratio > 1

"""The fixed points of a recursion, b·(L − L_ref) = Ω(L) with b = αβ: first how many and where, then each to all digits.

The places where dΩ/dL = b, the folds, cut the line into pieces on which b·d − Ω, d = L − L_ref, is monotone: its signs
at the folds give the number of fixed points and a bracket for each, before any root is searched. Half of all systems
need no folds: one bound tells that there is one fixed point. All are then found together by Halley's method on
log(b·d) − log Ω, which is nearly linear where the equation is exponential; bisection keeps it in its bracket where it
would leave.
"""

from __future__ import annotations

import dataclasses
import math

from grpo_dynamics.arrays import Array, as_arrays, namespace, take
from grpo_dynamics.normalization import Normalization, log_odds_limit


@dataclasses.dataclass(frozen=True)
class Roots:
    """All d with b·d = Ω(L_ref + d) of a batch of shape (n,), in no order.

    Attributes:
        element: index of the element that it belongs to.
        slot: how many of that element's are smaller.
        log_odds: L_ref + d.
        elasticity: d log Ω / d log d there.
        found: whether to working precision.
        count: their number, shape (n,).
        most: the largest number there can be.
        degenerate: whether an element is on a fold as far as this precision can tell, shape (n,). Such a double root is
            listed once.
    """

    element: Array
    slot: Array
    log_odds: Array
    elasticity: Array
    found: Array
    count: Array
    most: int
    degenerate: Array


def roots(normalization: Normalization, pull: Array, anchor: Array, wanted: Array) -> Roots:
    """Find the roots of all elements that are wanted; ``pull`` is b > 0, ``anchor`` is L_ref, all of shape (n,)."""
    turns, ends = normalization.turns(), (normalization.gap(0.0), normalization.gap(float("inf")))
    xp, pull, anchor, smallest, largest, turn = as_arrays(pull, anchor, *ends, turns[0])
    least, most, bounded = smallest / pull, largest / pull, largest < pull + xp.inf
    if not xp.all(bounded):
        most = xp.where(bounded, most, log_odds_limit(xp, pull.dtype) - anchor)
    count, degenerate = xp.astype(wanted, xp.int8), pull < 0

    # beyond its only turn Ω is concave: b·d − Ω, below 0 at the least d, has one root if that lies there
    beyond = (anchor + least >= turn) & bounded & (len(turns) == 1)
    at, rest = xp.nonzero(beyond & wanted)[0], xp.nonzero(~beyond & wanted)[0]
    ceiling = most[at]
    brackets = [(at, xp.zeros_like(at), least[at], ceiling, ceiling)]
    if rest.shape[0] > 0:
        part = take(normalization, pull.shape, rest)
        known = (a[rest] for a in (pull, anchor, least, most, bounded))
        inside, count[rest], degenerate[rest] = _brackets(part, *known)
        brackets += [(rest[at], *others) for at, *others in inside]
    element, slot, low, high, start = (xp.concat(column) for column in zip(*brackets, strict=True))
    part, origin = take(normalization, pull.shape, element), anchor[element]
    d, elasticity, found = _search(part, pull[element], origin, low, high, start)
    return Roots(element, slot, origin + d, elasticity, found, count, 2 + len(turns), degenerate)


def _brackets(
    normalization: Normalization, pull: Array, anchor: Array, least: Array, most: Array, bounded: Array
) -> tuple[list[tuple[Array, ...]], Array, Array]:
    """Cut d > 0 at the folds into pieces on which b·d − Ω is monotone, rising and falling in turn.

    Returns:
        for each piece the elements that have a root in it, its slot, its bracket and where to start; the number of
        roots of each element; and whether one is a double root.
    """
    xp, pull, anchor, *folds = as_arrays(pull, anchor, *normalization.folds(pull))
    tiny = xp.finfo(pull.dtype).eps
    for i in range(1, len(folds)):  # two equal folds do not exist: b misses the piece of the slope between them
        folds[i] = xp.where(folds[i] - folds[i - 1] > 30 * tiny**0.5 * folds[i], folds[i], folds[i - 1])
    none, size = pull < 0, xp.abs(anchor)
    knots, ratios, above, doubles, degenerate = [least], [pull], [none], [none], none
    for i, fold in enumerate(folds):
        distance = fold - anchor
        ratio = pull * distance / normalization.gap(fold)  # b·d > Ω where this exceeds 1
        double = xp.abs((ratio - 1) * distance) <= 16 * tiny * (xp.abs(distance) + fold + size)
        for j in (i - 1, i + 1):
            double = double & (fold != folds[j]) if 0 <= j < len(folds) else double
        knots.append(distance)
        ratios.append(ratio)
        # beside a double root b·d − Ω is negative at a maximum, positive at a minimum
        above.append((ratio > 1) & ~double if i % 2 == 0 else (ratio > 1) | double)
        doubles.append(double & ~doubles[-1])  # both at once is the cusp: one triple root
        degenerate = degenerate | double
    knots, above, doubles = [*knots, most], [*above, bounded], [*doubles, none]

    brackets: list[tuple[Array, ...]] = []
    count = xp.zeros(pull.shape, dtype=xp.int8, device=pull.device)
    for i in range(len(knots) - 1):
        rising, either = i % 2 == 0, doubles[i] | doubles[i + 1]
        present = (~above[i] & above[i + 1]) | either if rising else above[i] & ~above[i + 1]
        at = xp.nonzero(present)[0]
        low, high = xp.maximum(knots[i][at], least[at]), knots[i + 1][at]
        if i == 0:
            high = xp.where(low < -anchor[at], -anchor[at], high)  # where b·d > Ω at L = 0 the root has L < 0
            start = xp.minimum(_start_below(pull[at], anchor[at]), most[at])
        elif i == 1:  # beyond the fold Ω grows like e^(L/2): d − 2 log d = low − 2 log low + 2 log ratio
            start = low + 2 * xp.log(ratios[1][at])
            start = start + 2 * xp.log(start / low) / xp.clip(1 - 2 / start, 0.3, None)
        else:
            start = high if rising else low
        if rising and xp.any(either):  # a double root is listed once, in a bracket of no width beside its fold
            place, merged = xp.where(doubles[i], knots[i], knots[i + 1])[at], either[at]
            low, high = xp.where(merged, place, low), xp.where(merged, place, high)
        start = xp.minimum(xp.maximum(start, low), high)
        brackets.append((at, xp.astype(count[at], at.dtype), low, high, start))
        count = count + xp.astype(present, xp.int8)
    return brackets, count, degenerate


def _start_below(pull: Array, anchor: Array) -> Array:
    """Where to start in the first piece. Below L = 0 Ω falls like e^(−L/2), which gives d = 2W(e^(−L_ref/2)/2b)."""
    xp = namespace(pull)
    x = 0.5 * xp.exp(-0.5 * anchor) / pull
    log = xp.log1p(x)
    lambert = log * (1 - xp.log1p(log) / (2 + log))  # W(x) to two digits, next to four by Newton's method
    return 2 * lambert * (1 + xp.log(x / lambert)) / (1 + lambert)


def _search(
    normalization: Normalization, pull: Array, anchor: Array, low: Array, high: Array, start: Array
) -> tuple[Array, Array, Array]:
    """Return the root d of log(b·d/Ω(L_ref + d)) in each bracket, d·(d log Ω/dL) there, and whether it was found."""
    xp = namespace(low)
    # above every fold, where e^(−L/2) is no number, Ω is at its bound, which made the high end: that is the root
    far = anchor + high > -2.2 * math.log(xp.finfo(low.dtype).smallest_normal)
    d, elasticity, slack = start + 0.0, xp.zeros_like(start), 8 * xp.finfo(low.dtype).eps
    at = xp.nonzero(~far)[0]
    here = start[at]
    for _ in range(8):
        if at.shape[0] == 0:
            break
        here, there, settled, _ = _halley_step(take(normalization, low.shape, at), pull[at], anchor[at], here)
        done, late = xp.nonzero(settled)[0], xp.nonzero(~settled)[0]
        place = at[done]
        d[place], elasticity[place] = here[done], there[done]
        at, here = at[late], here[late]
    found = (d >= low * (1 - slack)) & (d <= high * (1 + slack))  # the ends are attained in rounding
    d[at], found[at] = here, False
    at = xp.nonzero(~found)[0]
    if at.shape[0] > 0:
        part = take(normalization, low.shape, at)
        d[at], elasticity[at], found[at] = _guarded(part, *(a[at] for a in (pull, anchor, low, high, d)))
    return d, elasticity, found


def _guarded(
    normalization: Normalization, pull: Array, anchor: Array, low: Array, high: Array, d: Array
) -> tuple[Array, Array, Array]:
    """The same inside shrinking brackets, at most 64 steps: where one would leave its bracket, log d is bisected."""
    xp = namespace(low)
    slack = 8 * xp.finfo(d.dtype).eps
    rising = normalization.gap(anchor + low) * (high / low) > normalization.gap(anchor + high)  # b·d − Ω
    here, bottom, top = xp.where((d > low) & (d < high), d, xp.sqrt(low) * xp.sqrt(high)), low, high
    d, found, at = here + 0.0, here < 0, xp.nonzero(here == here)[0]
    for steps in (3, 5, 12, 44):
        if at.shape[0] == 0:
            break
        part, b, origin, settled = take(normalization, low.shape, at), pull[at], anchor[at], here < 0
        for _ in range(steps):
            new, _, settled, below = _halley_step(part, b, origin, here)
            right = below == rising[at]
            bottom, top = xp.where(right, here, bottom), xp.where(right, top, here)
            here = xp.where((new >= bottom) & (new <= top), new, xp.sqrt(bottom) * xp.sqrt(top))
        settled = settled | (top - bottom <= slack * top)
        d[at], found[at] = here, settled
        late = xp.nonzero(~settled)[0]
        at, here, bottom, top = at[late], here[late], bottom[late], top[late]
    return d, d * normalization.gap_and_rate(anchor + d)[1], found


def _halley_step(
    normalization: Normalization, pull: Array, anchor: Array, d: Array
) -> tuple[Array, Array, Array, Array]:
    """Return the next d, d·(d log Ω/dL) there, whether both are exact to rounding, and whether b·d < Ω at the old d.

    Halley's step is Newton's corrected by the curvature, here to at most twice its length.
    """
    xp = namespace(d)
    tiny = float(xp.finfo(d.dtype).eps)
    half = tiny**0.5  # half of the digits
    gap, rate, bend = normalization.gap_rate_and_bend(anchor + d)
    log = xp.log(gap / (pull * d))
    tangent = 1 - d * rate
    square = tangent * tangent
    move = log * tangent / xp.maximum(square - 0.5 * log * (1 + d * (d * bend)), 0.5 * square)
    step = d * move
    new = d + step
    # Newton's step log/tangent is off by its square over the tangent, Halley's by less; the new rate by step²
    size = xp.abs(log)
    settled = (size <= 0.25 * half * square) & (xp.abs(step) <= half) | (size <= 32 * tiny)
    return new, new * (rate + bend * step), settled, log > 0

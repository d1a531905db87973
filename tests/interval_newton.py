"""Every fixed point of a system by generic branch and prune in interval arithmetic, knowing nothing but Ω and Ω'.

No folds, no shape, no guesses, another library than the package's: mpmath's intervals. A box in which F has no zero is
dropped; where F' is not 0 the interval Newton operator shrinks or drops it, or shows that it holds exactly one zero;
else it is halved.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

from mpmath.ctx_iv import MPIntervalContext

iv = MPIntervalContext()  # its own context: nothing global changes
iv.prec = 90

Interval = Any
GapAndSlope = Callable[[Interval], tuple[Interval, Interval]]


def whitened(eps: float, eps_placement: str = "variance") -> tuple[GapAndSlope, Interval]:
    """Ω and Ω' on an interval, from dΩ/dv·dv/dL with v = p(1−p) and dv/dL = v(1−2p); and the largest Ω, at v = 0."""
    smoothing = iv.mpf(eps)

    def gap_and_slope(x: Interval) -> tuple[Interval, Interval]:
        odds = iv.exp(x)
        v = 1 / (2 + odds + 1 / odds)
        turn = 2 / (1 + odds) - 1  # 1 − 2p
        if eps_placement == "variance":
            root = iv.sqrt(v + smoothing)
            return 1 / root, -v * turn / (2 * root * (v + smoothing))
        root = iv.sqrt(v)
        return 1 / (root + smoothing), -root * turn / (2 * (root + smoothing) ** 2)

    return gap_and_slope, 1 / (iv.sqrt(smoothing) if eps_placement == "variance" else smoothing)


def group(size: int, eps: float, eps_placement: str, ddof: int) -> tuple[GapAndSlope, Interval]:
    """Ω_G = Σ_s C(G−1,s) p^s q^(G−1−s) (a_{s+1} + b_s), and the largest coefficient as a bound of it."""
    smoothing = iv.mpf(eps)

    def scale(k: int) -> Interval:
        if k in (0, size):
            return iv.zero
        variance = iv.mpf(k * (size - k)) / (size * (size - ddof))
        return 1 / (iv.sqrt(variance + smoothing) if eps_placement == "variance" else iv.sqrt(variance) + smoothing)

    # a_k = (1 − k/G)·scale, b_k = k/G·scale
    gaps = [(size - s - 1) * scale(s + 1) / size + s * scale(s) / size for s in range(size)]
    binomials = [1]
    for s in range(size - 1):
        binomials.append(binomials[-1] * (size - 1 - s) // (s + 1))

    def gap_and_slope(x: Interval) -> tuple[Interval, Interval]:
        p, q = 1 / (1 + iv.exp(-x)), 1 / (1 + iv.exp(x))
        value, slope = iv.zero, iv.zero
        for s, (binomial, gap) in enumerate(zip(binomials, gaps, strict=True)):
            term = binomial * gap * p**s * q ** (size - 1 - s)
            value += term
            slope += term * (s - (size - 1) * p)
        return value, slope

    return gap_and_slope, iv.mpf(max(gap.b for gap in gaps))


@dataclasses.dataclass(frozen=True)
class Roots:
    """Disjoint intervals, ascending, that hold exactly one zero each, and whether no other is left."""

    intervals: list[Interval]
    complete: bool


def fixed_points(beta: float, p_ref: float, alpha: float, gap: tuple[GapAndSlope, Interval]) -> Roots:
    """All zeros of αβ(L − L_ref) − Ω(L) in [L_ref, L_ref + max Ω/αβ]: as 0 < Ω ≤ max Ω there are no others."""
    gap_and_slope, largest = gap
    pull, chance = iv.mpf(beta) * iv.mpf(alpha), iv.mpf(p_ref)
    anchor = iv.log(chance / (1 - chance))

    def equation(x: Interval) -> tuple[Interval, Interval]:
        value, slope = gap_and_slope(x)
        return pull * (x - anchor) - value, pull - slope

    end = anchor + largest / pull
    boxes = [iv.mpf([(anchor - 1).a, (end + abs(end) / 1000 + 1).b])]
    found: list[Interval] = []
    complete = True
    while boxes:
        box = boxes.pop()
        while True:
            value, slope = equation(box)
            if 0 not in value:
                break
            if 0 in slope:
                if box.delta < 1e-9:
                    complete = False
                else:
                    boxes += _halves(box)
                break
            middle = iv.mpf(box.mid)
            newton = middle - equation(middle)[0] / slope
            low, high = max(newton.a, box.a), min(newton.b, box.b)
            if low > high:
                break
            if newton.a > box.a and newton.b < box.b:
                found.append(newton)
                break
            if box.delta < 1e-15 * (1 + abs(middle)):  # shrunk to rounding before it could be shown: inflate once
                wider = middle + iv.mpf([-1, 1]) * 1e-12 * (1 + abs(middle))
                newton = middle - equation(middle)[0] / equation(wider)[1]
                inside = newton.a > wider.a and newton.b < wider.b
                found += [newton] if inside else []
                complete = complete and bool(inside)
                break
            smaller = iv.mpf([low.a, high.b])
            if smaller.delta > box.delta * 0.75:
                boxes += _halves(box)
                break
            box = smaller
    found = [_refined(equation, interval) for interval in found]
    found.sort(key=lambda interval: float(interval.mid))
    return Roots(found, complete and all(a.b < b.a for a, b in itertools.pairwise(found)))


def _halves(box: Interval) -> list[Interval]:
    # off the middle, so that a zero at a special point such as 0 does not fall on a boundary
    cut = (box.a + (box.b - box.a) * 0.4871).mid
    return [iv.mpf([box.a, cut]), iv.mpf([cut, box.b])]


def _refined(equation: Callable[[Interval], tuple[Interval, Interval]], box: Interval) -> Interval:
    """The zero of a box that holds exactly one, closer."""
    for _ in range(4):
        middle = iv.mpf(box.mid)
        newton = middle - equation(middle)[0] / equation(box)[1]
        box = iv.mpf([max(newton.a, box.a).a, min(newton.b, box.b).b])
    return box

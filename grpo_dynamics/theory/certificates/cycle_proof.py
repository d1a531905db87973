"""The proof that a periodic orbit of exactly some period exists where a numerical one was seen.

Its first point is a zero of f^k(L) − L, f one step of the recursion. Interval Newton as for fixed points: if, with M(X)
the product of f' along the orbit of a ball X around x, x − (f^k(x) − x)/(M(X) − 1) lies inside X, then X holds exactly
one such zero, and so does that ball. The images of the ball hold the other points; where these k balls are disjoint, no
shorter period divides k.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from flint import arb, ctx

from grpo_dynamics.theory.certificates.balls import Ball, NotProved, accurate
from grpo_dynamics.theory.certificates.certainty import Grounds
from grpo_dynamics.theory.certificates.system_proofs import Effort, System, effort, systems, tenth_to_the
from grpo_dynamics.theory.recursion import Recursion

Step = Callable[[Ball], tuple[Ball, Ball]]
"""f and f' on a ball of log-odds."""
REACH = 1e-6
"""How far from the points that were given the orbit may lie, relative to 1 + |L|."""


class CycleProof(NamedTuple):
    """What is proved of one orbit: balls for its points, its multiplier, and the sign of 1 − |multiplier|."""

    reason: Grounds
    points: list[Ball]
    multiplier: Ball | None
    stability: int


def step_of(system: System) -> Step:
    """One step L ← α·L_ref + (1−α)·L + Ω(L)/β and its derivative, in balls of the present precision."""
    share, strength, chance = arb(system.alpha), arb(system.beta), arb(system.p_ref)
    drift, keep = share * (chance / (1 - chance)).log(), 1 - share
    value_and_slope = system.gap().value_and_slope

    def step(log_odds: Ball) -> tuple[Ball, Ball]:
        value, slope = value_and_slope(log_odds)
        return drift + keep * log_odds + value / strength, keep + slope / strength

    return step


def prove_cycle(step: Step, guesses: Sequence[float], bits: int, tolerance: Ball) -> CycleProof:
    """Prove what can be proved of one orbit at the working precision.

    Args:
        step: f and f'.
        guesses: the points of the orbit, in its order.
        bits: wanted relative accuracy of the points.
        tolerance: distance of |multiplier| from 1 below which no stability is claimed.

    Raises:
        NotProved: if the working precision does not suffice.
    """
    first = _first_point(step, arb(guesses[0]), len(guesses), bits)
    points, end, multiplier = _orbit(step, first, len(guesses))
    if not all(accurate(point, bits) for point in points):
        raise NotProved
    if not all(abs(point - guess) < REACH * (1 + abs(guess)) for point, guess in zip(points, guesses, strict=True)):
        raise NotProved
    if not end.overlaps(first) or any(a.overlaps(b) for a, b in itertools.combinations(points, 2)):
        raise NotProved
    size = abs(multiplier)
    if abs(size - 1) > tolerance:
        return CycleProof(Grounds.PROVED, points, multiplier, 1 if size < 1 else -1)
    return CycleProof(Grounds.FLIP if multiplier < 0 else Grounds.FOLD, points, multiplier, 0)


def _first_point(step: Step, x: Ball, period: int, bits: int) -> Ball:
    """A ball that holds exactly one zero of f^k(L) − L, to so many bits."""
    unit, floor = arb(0, 1), arb(0, 2.0 ** (4 - ctx.prec))
    for _ in range(12):
        _, end, multiplier = _orbit(step, x, period)
        move = (x - end) / (multiplier - 1)
        near = x + 4 * move * unit + floor
        zero = x + (x - end) / (_orbit(step, near, period)[2] - 1)
        if near.contains_interior(zero) and accurate(zero, bits):
            return zero
        if not move.is_finite():
            break
        x = (x + move).mid()
    raise NotProved


def _orbit(step: Step, start: Ball, period: int) -> tuple[list[Ball], Ball, Ball]:
    """Balls that hold k points from every start in a ball, the point after them, and the product of f' along them."""
    points: list[Ball] = []
    multiplier = arb(1)
    for _ in range(period):
        points.append(start)
        middle = start.mid()
        slope = step(start)[1]
        start = step(middle)[0] + slope * (start - middle)  # mean value theorem: tighter than f of the ball
        multiplier *= slope
    return points, start, multiplier


def cycle_proofs_of(
    dynamics: Recursion, shape: tuple[int, ...], guesses: list[list[float]], digits: int | None
) -> list[CycleProof]:
    """The proof of every element of a batch of NumPy arrays or numbers."""
    wanted, before = effort(digits), ctx.prec
    try:
        return [_proof(system, orbit, wanted) for system, orbit in zip(systems(dynamics, shape), guesses, strict=True)]
    finally:
        ctx.prec = before


def _proof(system: System, guesses: list[float], wanted: Effort) -> CycleProof:
    """The proof of one orbit, at the first precision that suffices."""
    if all(math.isfinite(guess) for guess in guesses):
        for precision in wanted.precisions:
            ctx.prec = precision
            try:
                return prove_cycle(step_of(system), guesses, wanted.bits, tenth_to_the(wanted.digits, precision))
            except NotProved:
                continue
    return CycleProof(Grounds.NO_ORBIT, [], None, 0)

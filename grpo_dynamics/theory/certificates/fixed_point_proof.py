"""The proof of how many fixed points one system has, where they are, and which are stable.

A fixed point is a zero of F(L) = b·(L − L_ref) − Ω(L), b = αβ. What is used, and why it holds:

1. Ω > 0, so F < 0 for L ≤ L_ref. Ω is even and rises for L > 0, so F' = b − Ω' > 0 for L ≤ 0.
2. For L > 0, Ω' is strictly monotone between its turns
   (:class:`~grpo_dynamics.theory.certificates.balls.EnclosedGap`). So F' has exactly one zero, a fold, between two
   neighbours of the sequence 0, turns, infinity at which its signs differ.
3. So F is strictly monotone between neighbouring folds, and has exactly one zero between two neighbours of the sequence
   L_ref, folds, infinity at which its signs differ. That is their number.
4. As many disjoint balls, each of which holds a zero, hold all of them. One ball X around x holds exactly one zero if
   x − F(x)/F'(X) lies inside it, and that ball holds it as well (interval Newton).

With k3 in the loss, a flow rests where F(L) = β·S(L) − Ω(L) = 0, S = (p − p_ref)/(p(1−p)). S ≤ 0 up to L_ref; beyond,
d log S/dL > p, while d log Ω/dL ≤ p says that w⁺ = (1−p)·Ω does not rise: F changes its sign at most once. It does so
if β(1−p_ref) exceeds the limit of w⁺ at p = 1, and only then.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from flint import arb, ctx

from grpo_dynamics.theory.certificates.balls import Ball, EnclosedGap, NotProved, accurate, bisected, sign
from grpo_dynamics.theory.certificates.certainty import Grounds

Function = Callable[[Ball], tuple[Ball, Ball, Ball, Ball]]


class OnCusp(Exception):
    """F and F' vanish together near a turn of Ω', as far as the tolerance can tell."""


class Equation(NamedTuple):
    """F of one system.

    Attributes:
        at: F, F', Ω and Ω' on a ball of log-odds.
        multiplier: the multiplier from F' and Ω'.
        gap: Ω.
        pull: b, or None with k3 in the loss.
        up: β(1−p_ref).
        anchor: L_ref.
        flips: whether a multiplier below −1 makes unstable.
    """

    at: Function
    multiplier: Callable[[Ball, Ball], Ball]
    gap: EnclosedGap
    pull: Ball | None
    up: Ball
    anchor: Ball
    flips: bool


class Point(NamedTuple):
    """A fixed point: balls for its log-odds and multiplier, and the sign of 1 − |multiplier|, 0 if it is open."""

    log_odds: Ball
    multiplier: Ball
    stability: int


class Fold(NamedTuple):
    """A fold: a ball for its log-odds, and the sign of F there; 0 where that is open."""

    log_odds: Ball
    side: int


class Proof(NamedTuple):
    """What is proved of one system; ``points`` is None while their number is open."""

    reason: Grounds
    points: list[Point] | None
    folds: list[Fold]


def recursion_equation(beta: float, p_ref: float, alpha: float, gap: EnclosedGap, flips: bool = True) -> Equation:
    """F(L) = αβ·(L − L_ref) − Ω(L)."""
    strength, share, chance = arb(beta), arb(alpha), arb(p_ref)
    pull, anchor = strength * share, (chance / (1 - chance)).log()
    keep, up, value_and_slope = 1 - share, strength * (1 - chance), gap.value_and_slope

    def at(log_odds: Ball) -> tuple[Ball, Ball, Ball, Ball]:
        value, slope = value_and_slope(log_odds)
        return pull * (log_odds - anchor) - value, pull - slope, value, slope

    def multiplier(incline: Ball, slope: Ball) -> Ball:
        return keep + slope / strength

    return Equation(at, multiplier, gap, pull, up, anchor, flips)


def forward_equation(beta: float, p_ref: float, gap: EnclosedGap) -> Equation:
    """F(L) = β·(p − p_ref)/(p(1−p)) − Ω(L), as k3 in the loss makes it."""
    strength, chance, one = arb(beta), arb(p_ref), arb(1)
    up, down, value_and_slope = strength * (one - chance), strength * chance, gap.value_and_slope

    def at(log_odds: Ball) -> tuple[Ball, Ball, Ball, Ball]:
        value, slope = value_and_slope(log_odds)
        odds = log_odds.exp()
        ahead, behind = up * odds, down / odds
        return up + ahead - down - behind - value, ahead + behind - slope, value, slope

    anchor = (chance / (one - chance)).log()

    def multiplier(incline: Ball, slope: Ball) -> Ball:
        return one - incline / strength

    return Equation(at, multiplier, gap, None, up, anchor, flips=False)


def prove(
    equation: Equation, fold_guesses: Sequence[float], root_guesses: Sequence[float], bits: int, tolerance: Ball
) -> Proof:
    """Prove what can be proved of one system at the working precision.

    Args:
        equation: the system.
        fold_guesses: where its folds may be, one per monotone piece of Ω'; wrong ones only cost time.
        root_guesses: where its fixed points may be.
        bits: wanted relative accuracy of folds and fixed points.
        tolerance: relative distance in β from a fold, or of a multiplier from −1, below which nothing is claimed.

    Raises:
        NotProved: if the working precision does not suffice.
    """
    try:
        folds = [] if equation.pull is None else _folds(equation, equation.pull, fold_guesses, bits, tolerance)
    except OnCusp:
        return Proof(Grounds.CUSP, None, [])
    if any(fold.side == 0 for fold in folds):
        return Proof(Grounds.FOLD, None, folds)
    last = _side_at_infinity(equation, tolerance)
    if last == 0:
        return Proof(Grounds.AT_ONE, None, folds)
    signs = [-1, *(fold.side for fold in folds), last]
    places = _zeros(equation, [fold.log_odds for fold in folds], signs, root_guesses, bits)
    points = [_point(equation, place, tolerance) for place in places]
    if not points:
        return Proof(Grounds.ABOVE_FOLD, points, folds)
    return Proof(Grounds.PROVED if all(point.stability for point in points) else Grounds.FLIP, points, folds)


def _side_at_infinity(equation: Equation, tolerance: Ball) -> int:
    """The sign of F for large L; 0 if β(1−p_ref) and the limit of w⁺ differ by less than the tolerance."""
    if equation.pull is not None:
        return -1 if equation.gap.unbounded else 1
    beyond = equation.up - equation.gap.success_at_one()
    return sign(beyond) if abs(beyond) > tolerance * equation.up else 0


def _folds(equation: Equation, pull: Ball, guesses: Sequence[float], bits: int, tolerance: Ball) -> list[Fold]:
    """Every zero of F', with the sign of F there."""
    gap = equation.gap
    signs = [1]  # of F', at 0, the turns and infinity
    slopes = gap.turning_slopes()
    for i, steepness in enumerate(slopes):
        beyond = pull - steepness
        if abs(beyond) > tolerance * pull:
            signs.append(sign(beyond))
        else:
            _pass_cusp(equation, gap.turning_places()[i], signs[-1], tolerance)
            signs.append(signs[-1])
    signs.append(-1 if gap.unbounded else 1)
    folds: list[Fold] = []
    for i, (before, after) in enumerate(itertools.pairwise(signs)):
        if before != after:
            guess = guesses[i] if i < len(guesses) else math.inf
            # a change of sign near the guess belongs to this piece: with one turn, its direction says so
            place = _around_guess(equation, before, guess, bits) if len(slopes) < 2 else None
            place = place or _fold_place(equation, i, before, bits)
            folds.append(_fold(equation, place, tolerance))
    return folds


def _pass_cusp(equation: Equation, turn: Ball, side: int, tolerance: Ball) -> None:
    """Prove that F has no zero near a turn where F' all but vanishes, so that it does not matter whether it does.

    F' has the sign ``side`` before and after; within a short interval it may change twice, but there F is not 0.
    """
    middle = turn.mid()
    near = middle + 4 * tolerance.sqrt() * arb(0, 1)
    ends = {sign(equation.at(end)[1]) for end in (near.lower(), near.upper())}
    if not near.contains_interior(turn) or ends != {side}:
        raise NotProved
    if sign(equation.at(middle)[0] + equation.at(near)[1] * (near - middle)) == 0:
        raise OnCusp


def _around_guess(equation: Equation, before: int, guess: float, bits: int) -> Ball | None:
    """A ball around the guess in which F' changes its sign from ``before`` to the other, if there is one."""
    if bits > 60 or not math.isfinite(guess):
        return None
    place = arb(guess, max(1.0, guess) * 2.0**-40)
    low, high = sign(equation.at(place.lower())[1]), sign(equation.at(place.upper())[1])
    return place if low == before == -high else None


def _fold_place(equation: Equation, piece: int, before: int, bits: int) -> Ball:
    """A ball that holds the zero of F' on a monotone piece of Ω', by bisection."""

    def side(log_odds: Ball) -> int:
        return sign(equation.at(log_odds)[1])

    turns = equation.gap.turning_places()
    low = turns[piece - 1].upper() if piece > 0 else arb(0)
    high = turns[piece].lower() if piece < len(turns) else _beyond(side, low, -before)
    if side(low) != before or side(high) != -before:
        raise NotProved
    return bisected(side, low, high, arb(2) ** -bits * (1 + high))


def _beyond(side: Callable[[Ball], int], low: Ball, wanted: int) -> Ball:
    """A number above ``low`` where ``side`` is as wanted."""
    step = 1 + abs(low)
    for _ in range(2000):
        if side((low + step).mid()) == wanted:
            return (low + step).mid()
        step = step * 2
    raise NotProved


def _fold(equation: Equation, place: Ball, tolerance: Ball) -> Fold:
    """The sign of F at a fold; 0 if b·d and Ω differ by less than the tolerance."""
    value, incline, gap, _ = equation.at(place)
    least = tolerance * gap
    if not abs(value) > least:  # too near to tell: the mean value theorem gives more digits
        middle = place.mid()
        value = equation.at(middle)[0] + incline * (place - middle)
    if abs(value) > least:
        return Fold(place, sign(value))
    if abs(value) < 2 * least:
        return Fold(place, 0)
    raise NotProved


def _zeros(equation: Equation, knots: list[Ball], signs: list[int], guesses: Sequence[float], bits: int) -> list[Ball]:
    """A ball around every zero of F, ascending, from the signs of F at its knots."""
    pieces = [i for i, (before, after) in enumerate(itertools.pairwise(signs)) if before != after]
    guessed = len(guesses) == len(pieces)
    zeros: list[Ball] = []

    def side(log_odds: Ball) -> int:
        return sign(equation.at(log_odds)[0])

    for order, i in enumerate(pieces):
        low, high = knots[i - 1] if i > 0 else None, knots[i] if i < len(knots) else None
        zero = _interval_newton(equation.at, arb(guesses[order]), bits) if guessed else None
        if zero is None or not _between(low, zero, high):
            start = equation.anchor.upper() if low is None else low.upper()
            end = _beyond(side, start, signs[i + 1]) if high is None else high.lower()
            if side(start) != signs[i] or side(end) != signs[i + 1]:
                raise NotProved
            near = bisected(side, start, end, arb(2) ** -40 * (1 + abs(end)))
            zero = _interval_newton(equation.at, near.mid(), bits)
        if zero is None or not _between(low, zero, high):
            raise NotProved
        zeros.append(zero)
    return zeros


def _between(low: Ball | None, ball: Ball, high: Ball | None) -> bool:
    return (low is None or low < ball) and (high is None or ball < high)


def _interval_newton(at: Function, x: Ball, bits: int) -> Ball | None:
    """A ball that holds exactly one zero of F, to so many bits; None if it is not reached from x."""
    unit, floor = arb(0, 1), arb(0, 2.0 ** (4 - ctx.prec))
    for _ in range(12):
        value, slope, _, _ = at(x)
        step = value / slope
        near = x + 4 * step * unit + floor
        zero = x - value / at(near)[1]
        if near.contains_interior(zero) and accurate(zero, bits):  # false where the slope's ball holds 0
            return zero
        if not step.is_finite():
            return None
        x = (x - step).mid()
    return None


def _point(equation: Equation, place: Ball, tolerance: Ball) -> Point:
    """Multiplier and stability of a fixed point: m < 1 is F' > 0, as m = 1 − F'/β."""
    _, incline, _, slope = equation.at(place)
    multiplier = equation.multiplier(incline, slope)
    side = sign(incline)
    if side == 0:
        raise NotProved
    if side > 0 and equation.flips:
        above = multiplier + 1
        side = sign(above) if abs(above) > tolerance else 0
    return Point(place, multiplier, side)

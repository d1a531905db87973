"""Ball arithmetic: numbers with rigorous error bounds, and what the certificates need of an advantage gap.

A ball is python-flint's ``arb``: a midpoint and a radius of any precision, every operation rounded outwards.
The precision is ``flint.ctx.prec``, global to the process: functions of balls are used at the one they are made at.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from flint import arb

Ball = Any
"""A ``flint.arb``: a set of real numbers that holds the true one."""


@dataclasses.dataclass(frozen=True)
class EnclosedGap:
    """Ω(L) > 0, even in L, with dΩ/dL ≥ 0 for L > 0.

    Attributes:
        value_and_slope: Ω and dΩ/dL on a ball of log-odds.
        turning_slopes: dΩ/dL at each of its turns, the L > 0 where it turns from rising to falling or back, ascending.
            Between them, from 0 and up to infinity, dΩ/dL is strictly monotone, or zero throughout.
        turning_places: balls that hold these turns.
        unbounded: Ω outgrows every line; otherwise Ω is bounded.
        success_at_one: the limit of w⁺ = (1−p)·Ω at p = 1, once it is proved that w⁺ never rises with p.
    """

    value_and_slope: Callable[[Ball], tuple[Ball, Ball]]
    turning_slopes: Callable[[], list[Ball]]
    turning_places: Callable[[], list[Ball]]
    unbounded: bool
    success_at_one: Callable[[], Ball]


class NotProved(Exception):
    """The working precision does not suffice to prove what is needed."""


def sign(ball: Ball) -> int:
    """Return the sign that all numbers of a ball have, 0 if they do not share one."""
    return 1 if ball > 0 else -1 if ball < 0 else 0


def accurate(ball: Ball, bits: int) -> bool:
    """Whether a ball is known to so many bits: relative ones, or absolute ones if it holds 0."""
    return ball.rel_accuracy_bits() >= bits or (ball.contains(0) and ball.rad() < arb(2) ** -bits)


def bisected(side: Callable[[Ball], int], low: Ball, high: Ball, width: Ball) -> Ball:
    """A ball of about this width around a place where ``side`` changes sign, within a bracket of such a change.

    Wider where the sign is not decided at the working precision.
    """
    before = side(low)
    while high - low > width:
        middle = ((low + high) / 2).mid()
        there = side(middle)
        if there == 0 or not low < middle < high:
            break
        low, high = (middle, high) if there == before else (low, middle)
    return low.union(high)


def no_success_at_one() -> Ball:
    """The limit of w⁺ = (1−p)·Ω at p = 1 where it is 0.

    w⁺ is 1 − p, or falls as 1/w⁺ = √(o + ε(1+o)²) or √o + ε(1+o) rises with o = p/(1−p). For groups whose silent ones
    are kept it is the Bernstein polynomial of (1 − k/G)/s_k, k = 1 … G, a falling sequence for the same reason.
    """
    return arb(0)

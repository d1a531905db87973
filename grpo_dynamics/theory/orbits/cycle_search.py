"""The search behind :func:`~grpo_dynamics.cycles`: every root of h^k(L) − L that is the lowest point of a cycle.

A cycle of period k is a root of h^k(L) − L. The search cuts the interval on which every cycle lies into ever smaller
parts. Of a part J it knows bounds of every image h(J), h²(J), … (h turns only at known points) and of the slope of h^k
(that of h turns only at known points, too). J is thrown away when h^k(J) misses J, or when a later image lies below J:
the search is for the lowest point. It is decided when the slope of h^k − L has one sign on it: the values at the ends
then tell whether there is a root. What is left in the end is as narrow as rounding allows: a cycle is born or splits.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from grpo_dynamics.arrays import quiet, take
from grpo_dynamics.logodds import logit
from grpo_dynamics.theory.fixed_points import fixed_points
from grpo_dynamics.theory.recursion import Recursion

NARROWEST = 2.0**-44
"""Parts narrower than this, relative to 1 + |L|, are not cut again."""
FIRST_PARTS = 30
"""Parts at the start."""
MOST_PARTS = 1 << 15
"""Undecided parts per system at which the search gives up."""
SPLIT = 0.4871
"""Where parts are cut: not in the middle, so that no symmetry of the map puts a root on a cut."""

Floats = np.ndarray[Any, Any]
Step = Callable[[Floats], Floats]


@dataclasses.dataclass(frozen=True)
class CycleTable:
    """Cycles of one period: whose they are (n,), points (period, n) from the lowest on, multipliers (n,).

    ``unresolved`` and ``too_many`` tell of each system whether parts were left undecided, and whether too many were.
    """

    owner: Floats
    points: Floats
    multiplier: Floats
    unresolved: Floats
    too_many: Floats


@dataclasses.dataclass(frozen=True)
class _Parts:
    """Parts of the line: whose, from where to where."""

    owner: Floats
    low: Floats
    high: Floats

    def only(self, which: Floats) -> _Parts:
        return _Parts(self.owner[which], self.low[which], self.high[which])

    def cut(self) -> _Parts:
        middle = self.low + SPLIT * (self.high - self.low)
        return _Parts(
            np.concatenate([self.owner, self.owner]),
            np.concatenate([self.low, middle]),
            np.concatenate([middle, self.high]),
        )


@quiet
def turning_points(dynamics: Recursion) -> list[Floats]:
    """Return the log-odds where the step turns from falling to rising or back, ascending.

    Ω' = −(1−α)β, so these are the folds of (1−α)β, mirrored; L = 0 at α = 1. Two that do not exist come back as one
    point, at which the step does not turn.
    """
    beta, alpha = np.asarray(dynamics.beta), np.asarray(dynamics.alpha)
    kept = (1 - alpha) * beta
    folds = dynamics.normalization.folds(np.where(kept > 0, kept, 1.0))
    mirrored = [np.where(kept > 0, -np.asarray(fold), 0.0) for fold in reversed(folds)]
    return [np.asarray(x, dtype=np.float64) for x in mirrored]


@quiet
def range_of_cycles(dynamics: Recursion, size: int) -> tuple[Floats, Floats]:
    """Return the ends of an interval that holds every cycle; high < low where there are none of period above 1.

    The lowest point of a cycle has αL ≥ αL_ref + Ω(0)/β, the highest αL ≤ αL_ref + Ω(∞)/β. Orbits that pass the highest
    fixed point stay above it and are monotone, if the step rises there.
    """
    anchor, pull = logit(dynamics.p_ref), np.asarray(dynamics.alpha * dynamics.beta, dtype=np.float64)
    nowhere = np.zeros(size)
    low = anchor + dynamics.normalization.gap(0.0) / pull + nowhere
    most = anchor + dynamics.normalization.gap(np.inf) / pull + nowhere
    points = fixed_points(dynamics).log_odds
    points = np.reshape(points, (points.shape[0], size))
    top = np.max(np.where(np.isnan(points), -np.inf, points), axis=0)
    rises = top >= turning_points(dynamics)[-1]
    high = np.where(rises, top, most)
    slack = 1e-9
    low, high = low - slack * (1 + np.abs(low)), high + slack * (1 + np.abs(high))
    least, _ = slopes(dynamics, low, high)
    exists = np.isfinite(low) & np.isfinite(high) & (least < 0)  # a rising map has fixed points and nothing else
    return low, np.where(exists, high, -np.inf)


def stepper(dynamics: Recursion) -> Step:
    """Return the step of the dynamics without its checks, for loops over states that are numbers."""
    return dynamics._stepper(np.zeros(()))  # pyright: ignore[reportPrivateUsage]


def image(step: Step, turning: list[Floats], low: Floats, high: Floats) -> tuple[Floats, Floats]:
    """Return the smallest and largest value on [low, high] of a step with these turning points."""
    values = step(np.stack([low, high, *(np.clip(c, low, high) for c in turning)]))
    return values.min(axis=0), values.max(axis=0)


def slopes(dynamics: Recursion, low: Floats, high: Floats) -> tuple[Floats, Floats]:
    """Return the smallest and largest multiplier on [low, high]."""
    turns = [sign * np.asarray(t) for t in dynamics.normalization.turns() for sign in (-1.0, 1.0)]
    values = dynamics.multiplier(np.stack([low, high, *(np.clip(t, low, high) for t in turns)]))
    return values.min(axis=0), values.max(axis=0)


@quiet
def polish(dynamics: Recursion, points: Floats, rounds: int = 4) -> tuple[Floats, Floats]:
    """Return the cycles next to ``points``, shape (period, n), and multipliers, by Newton's method on all points.

    Each point is corrected by the errors of all steps, carried round the cycle to it: no error is carried twice round,
    so that cycles with large multipliers come out as exact as others.
    """
    period, step = points.shape[0], stepper(dynamics)
    for _ in range(rounds):
        slope = dynamics.multiplier(points)
        errors = step(points) - np.roll(points, -1, axis=0)  # of step i, at point i + 1
        carried = np.zeros_like(points)
        for _ in range(period):  # a_{i+1} ← slope_i·a_i + error_i, from nothing, once round from every point
            carried = np.roll(slope * carried + errors, 1, axis=0)
        move = carried / (1 - np.prod(slope, axis=0))
        good = np.all(np.isfinite(move) & (np.abs(move) < 0.1 * (1 + np.abs(points))), axis=0)
        points = np.where(good, points + move, points)
    return points, np.prod(dynamics.multiplier(points), axis=0)


@quiet
def cycles_of_period(dynamics: Recursion, size: int, period: int) -> CycleTable:
    """Return all cycles of exactly this period > 1 of a batch of ``size`` systems with one-dimensional options."""
    low, high = range_of_cycles(dynamics, size)
    has = np.flatnonzero(high > low)
    grid = low[has] + (high - low)[has] * np.linspace(0, 1, FIRST_PARTS + 1)[:, None]
    live = _Parts(np.tile(has, FIRST_PARTS), grid[:-1].ravel(), grid[1:].ravel())
    unresolved, too_many = np.zeros(size, bool), np.zeros(size, bool)
    isolated = [live.only(np.zeros(0, int))]
    while live.owner.size:
        sure, undecided = _judge(dynamics, size, live, period)
        isolated.append(live.only(sure))
        live = live.only(undecided)
        narrow = live.high - live.low <= NARROWEST * (1 + np.abs(live.low))
        unresolved[live.owner[narrow]] = True
        crowded = np.bincount(live.owner, minlength=size) > MOST_PARTS
        together = _clusters(live, size) < crowded * 0.01 * MOST_PARTS
        unresolved |= crowded & together
        too_many |= crowded & ~together
        live = live.only(~narrow & ~crowded[live.owner]).cut()
    owner, points, multiplier = _solve(dynamics, size, isolated, period)
    owner, points, multiplier, merged = _once(owner, points, multiplier)
    unresolved[merged] = True
    return CycleTable(owner, points, multiplier, unresolved, too_many)


def _clusters(parts: _Parts, size: int) -> Floats:
    """Into how many stretches of neighbours each system's parts fall: few if they crowd round a birth or a flip."""
    order = np.lexsort((parts.low, parts.owner))
    owner, low, high = parts.owner[order], parts.low[order], parts.high[order]
    apart = low[1:] - high[:-1] > 100 * (high - low)[1:]
    begins = np.concatenate([[True], (owner[1:] != owner[:-1]) | apart])
    return np.bincount(owner[begins[: owner.size]], minlength=size)


def _judge(dynamics: Recursion, size: int, parts: _Parts, period: int) -> tuple[Floats, Floats]:
    """Which parts hold exactly one lowest point of a cycle, and which cannot be decided yet."""
    system = take(dynamics, (size,), parts.owner)
    turning, step = turning_points(system), stepper(system)
    ends = np.stack([parts.low, parts.high])
    low, high = parts.low, parts.high
    least, most = np.ones_like(low), np.ones_like(low)
    possible, shorter = np.ones(low.shape, bool), np.zeros(low.shape, bool)
    slack = 1e-6 * (1 + np.abs(parts.low))  # far more than rounding can move an image
    for k in range(1, period + 1):
        steepness = np.stack(slopes(system, low, high))
        products = np.stack([steepness * least, steepness * most])
        least, most = products.min(axis=(0, 1)), products.max(axis=(0, 1))
        low, high = image(step, turning, low, high)
        ends = step(ends)
        if k < period:
            possible &= high >= parts.low - slack
            if period % k == 0:
                shorter |= (ends[0] >= parts.low) != (ends[1] >= parts.high)
    possible &= (high >= parts.low) & (low <= parts.high)
    monotone = (least > 1) | (most < 1)
    root = (ends[0] >= parts.low) != (ends[1] >= parts.high)
    return possible & monotone & root & ~shorter, possible & ~monotone


def _solve(dynamics: Recursion, size: int, isolated: list[_Parts], period: int) -> tuple[Floats, Floats, Floats]:
    """The cycle in each part: bisection, then Newton's method on all its points."""
    owner = np.concatenate([part.owner for part in isolated])
    low = np.concatenate([part.low for part in isolated])
    high = np.concatenate([part.high for part in isolated])
    system = take(dynamics, (size,), owner)
    step = stepper(system)

    def above(x: Floats) -> Floats:
        end = x
        for _ in range(period):
            end = step(end)
        return end >= x

    left = above(low)
    for _ in range(60):
        middle = 0.5 * (low + high)
        same = above(middle) == left
        low, high = np.where(same, middle, low), np.where(same, high, middle)
    points = np.empty((period, owner.size))
    points[0] = 0.5 * (low + high)
    for k in range(1, period):
        points[k] = step(points[k - 1])
    return owner, *polish(system, points)


def _once(owner: Floats, points: Floats, multiplier: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """Every cycle once, from its lowest point, in order; and the owners of cycles that cannot be told apart."""
    period = points.shape[0]
    first = np.argmin(points, axis=0)
    points = np.take_along_axis(points, (np.arange(period)[:, None] + first) % period, axis=0)
    order = np.lexsort((points[0], owner))
    owner, points, multiplier = owner[order], points[:, order], multiplier[order]
    blur = 1e-12 * (1 + np.abs(points[0])) * (1 + 1 / np.abs(1 - multiplier))
    same = (np.diff(owner) == 0) & (np.diff(points[0]) <= blur[1:])
    keep = np.concatenate([[True], ~same])[: owner.size]
    doubtful = same & (np.abs(1 - multiplier[1:]) < 1e-5) if owner.size else same
    return owner[keep], points[:, keep], multiplier[keep], owner[1:][doubtful]

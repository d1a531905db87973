"""The route to chaos: the parameters at which the cycles of period 1, 2, 4, 8, … flip, one after the other."""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from grpo_dynamics.arrays import batch_shape, quiet, require_choice
from grpo_dynamics.logodds import logit, sigmoid
from grpo_dynamics.theory.fixed_points import fixed_points
from grpo_dynamics.theory.orbits.cycle_search import polish, stepper
from grpo_dynamics.theory.recursion import Recursion, require_recursion

PARAMETERS = ("p_ref", "beta")
MOST = 12
"""Longest cascade: beyond it the distances are below rounding."""
WIDTHS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 0.25)
"""Distances from a flip at which the new cycle is looked for, in units of a guess of the distance to the next flip."""
SCAN = 512
"""Places at which the first flip is looked for."""

Floats = np.ndarray[Any, Any]


class CascadeStatus(enum.IntEnum):
    """Why the list of a :class:`PeriodDoublings` ends."""

    OK = 0
    NO_FLIP = 1
    END_OF_SWEEP = 2
    LOST = 3
    CLOSES = 4

    @property
    def meaning(self) -> str:
        """One line in plain words."""
        return {
            CascadeStatus.OK: "as many as were asked for",
            CascadeStatus.NO_FLIP: "the lowest fixed point does not flip in this sweep",
            CascadeStatus.END_OF_SWEEP: "the next cycle does not flip before the end of the sweep",
            CascadeStatus.LOST: "the next cycle could not be followed to working precision",
            CascadeStatus.CLOSES: "the next cycle closes again, onto the one it came from, before it flips",
        }[self]


@dataclasses.dataclass(frozen=True)
class PeriodDoublings:
    """The flips of a period-doubling cascade, in order.

    Attributes:
        value: the parameter at which the cycle flips, shape (n,).
        period: of the cycle that flips there: 1, 2, 4, …, shape (n,).
        log_odds: its lowest point, shape (n,).
        ratio: of each distance between flips to the next distance, in logit p_ref or log β, shape (n−2,): tends to
            Feigenbaum's 4.669201609….
        status: a :class:`CascadeStatus`.
    """

    value: Floats
    period: Floats
    log_odds: Floats
    ratio: Floats
    status: CascadeStatus


@dataclasses.dataclass(frozen=True)
class _Cycle:
    """A cycle at a place t of the sweep."""

    t: float
    points: Floats
    multiplier: float


@quiet
def period_doublings(dynamics: Recursion, stop: float, parameter: str = "p_ref", count: int = 6) -> PeriodDoublings:
    """Return where the cycles of period 1, 2, 4, … born at the lowest fixed point flip as one parameter is swept.

    Each flip is the root of multiplier + 1 along the branch of its cycle, which is followed from its birth by Newton's
    method; the values are exact to rounding.

    Args:
        dynamics: one recursion, where the sweep begins.
        stop: where it ends: a value of the parameter, above or below.
        parameter: "p_ref" or "beta".
        count: how many flips, 1 to 12.

    Raises:
        ValueError: for a batch, or a value out of range.

    Source: derived in docs/notebooks/6_bifurcations; [Feigenbaum, J. Stat. Phys. 19 (1978)].

    >>> found = period_doublings(Recursion(beta=5.0, p_ref=1e-2), stop=1e-5)
    >>> print(found.value[:3].round(8), found.ratio.round(2))
    [0.00126735 0.00021119 0.00016296] [6.92 4.97 4.72 4.68]
    """
    require_recursion(dynamics)
    if batch_shape(dynamics) != ():
        raise ValueError(f"dynamics must be one system for period_doublings, got shape {batch_shape(dynamics)}")
    require_choice("parameter", parameter, PARAMETERS)
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= MOST:
        raise ValueError(f"count must be an integer from 1 to {MOST}, got {count!r}")
    if batch_shape(dataclasses.replace(dynamics, **{parameter: stop})) != ():  # checks the value, too
        raise ValueError(f"stop must be one number, got {stop!r}")
    forward, back = (logit, sigmoid) if parameter == "p_ref" else (np.log, np.exp)

    def system(t: Any) -> Recursion:
        return dataclasses.replace(dynamics, **{parameter: back(t)})

    begin, end = float(forward(getattr(dynamics, parameter))), float(forward(stop))
    first = _first_flip(system, begin, end)
    flips = [first] if first is not None else []
    status = CascadeStatus.OK if flips else CascadeStatus.NO_FLIP
    while flips and len(flips) < count:
        guess = (flips[-1].t - flips[-2].t) / 4.67 if len(flips) > 1 else math.copysign(0.02, end - begin)
        following = _next_flip(system, flips[-1], guess, end)
        if isinstance(following, CascadeStatus):
            status = following
            break
        flips.append(following)
    t = np.array([flip.t for flip in flips])
    distances = np.diff(t)
    return PeriodDoublings(
        np.array([float(back(x)) for x in t]),
        np.array([flip.points.shape[0] for flip in flips], dtype=np.int64),
        np.array([flip.points.min() for flip in flips]),
        distances[:-1] / distances[1:],
        status,
    )


def _first_flip(system: Callable[[Any], Recursion], begin: float, end: float) -> _Cycle | None:
    def lowest(t: float) -> _Cycle:
        found = fixed_points(system(t))
        return _Cycle(t, np.array([float(found.log_odds[0])]), float(found.multiplier[0]))

    grid = np.linspace(begin, end, SCAN + 1)
    values = fixed_points(system(grid)).multiplier[0]
    at = np.flatnonzero((values[:-1] > -1) & (values[1:] <= -1))
    if at.size == 0:
        return None
    return lowest(_root(lambda t: lowest(t).multiplier + 1, float(grid[at[0]]), float(grid[at[0] + 1])))


def _root(function: Callable[[float], float], low: float, high: float) -> float:
    from scipy.optimize import brentq  # a third of a second to import

    return float(brentq(function, low, high, xtol=1e-16, rtol=1e-15))  # pyright: ignore


def _next_flip(system: Callable[[Any], Recursion], last: _Cycle, guess: float, end: float) -> _Cycle | CascadeStatus:
    """Where the cycle born at the last flip flips itself: searched in steps that grow, then by Brent's method."""
    tries = (_born(system, last, last.t + width * guess) for width in WIDTHS)
    here = next((cycle for cycle in tries if cycle is not None), None)
    if here is None:
        return CascadeStatus.LOST
    step = 0.5 * (here.t - last.t)
    while here.multiplier > -1:
        ahead = _followed(system, here, here.t + step)
        if ahead is None:
            step *= 0.5
            if abs(step) < 1e-14 * (1 + abs(here.t)):  # at the end of a bubble of cycles the multiplier is 1
                return CascadeStatus.CLOSES if here.multiplier > 1 - 1e-4 else CascadeStatus.LOST
            continue
        if (ahead.t - end) * step > 0:
            return CascadeStatus.END_OF_SWEEP
        if ahead.multiplier <= -1:
            return _flip(system, here, ahead.t)
        here, step = ahead, 1.3 * step
    return CascadeStatus.LOST


def _flip(system: Callable[[Any], Recursion], here: _Cycle, beyond: float) -> _Cycle | CascadeStatus:
    """Where the multiplier of a cycle is −1, between where it is and a place beyond."""

    def excess(t: float) -> float:
        return float(polish(system(t), here.points, 12)[1]) + 1

    t = _root(excess, here.t, beyond)
    flip = _polished(system(t), t, here.points)
    return flip if flip is not None and abs(flip.multiplier + 1) < 1e-6 else CascadeStatus.LOST


def _born(system: Callable[[Any], Recursion], last: _Cycle, t: float) -> _Cycle | None:
    """The stable cycle of twice the period at t, by plain iteration from beside the old one."""
    dynamics, period = system(t), 2 * last.points.shape[0]
    step = stepper(dynamics)
    state = np.asarray(last.points[0] + 1e-3 * abs(t - last.t) ** 0.5)
    for _ in range(400 * period):
        state = step(state)
    points = np.empty(period)
    for i in range(period):
        points[i], state = state, step(state)
    cycle = _polished(dynamics, t, points)
    return cycle if cycle is not None and cycle.multiplier > -1 else None


def _followed(system: Callable[[Any], Recursion], here: _Cycle, t: float) -> _Cycle | None:
    """The same cycle at another t; none if Newton's method loses it, or its multiplier jumps."""
    ahead = _polished(system(t), t, here.points)
    return ahead if ahead is not None and abs(ahead.multiplier - here.multiplier) < 0.7 else None


def _polished(dynamics: Recursion, t: float, points: Floats) -> _Cycle | None:
    """The cycle next to these points, if Newton's method arrives, at one that is not of half the period."""
    points, multiplier = polish(dynamics, points, 12)
    error = np.abs(stepper(dynamics)(points) - np.roll(points, -1))
    arrived = np.all(error <= 1e-11 * (1 + np.abs(points))) and multiplier < 1
    apart = np.abs(points - np.roll(points, points.shape[0] // 2)).max() > 1e-6
    return _Cycle(t, points, float(multiplier)) if arrived and apart else None

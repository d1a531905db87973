"""The attractors of one system, and traps around them: an orbit that enters a trap is known to go to its attractor.

Two kinds of trap are proved. Where the step rises between two neighbouring fixed points, or beyond the last one, every
orbit walks to the one ahead. And an interval around a point of a stable cycle that h^k maps into itself, and contracts.
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np

from grpo_dynamics.arrays import quiet
from grpo_dynamics.logodds import logit
from grpo_dynamics.theory.fixed_points import fixed_points
from grpo_dynamics.theory.orbits.cycle_search import image, polish, slopes, stepper, turning_points
from grpo_dynamics.theory.orbits.limit import LimitKind, limit
from grpo_dynamics.theory.recursion import Recursion

STARTS = 256
"""Starts, beside the critical points, from which attractors are looked for."""
STEPS = 8192
"""Steps after which an orbit that no attractor has captured is given up."""
PATIENCE = 1024
"""The same where there is a chaotic attractor, which such an orbit is then taken to be on."""

Floats = np.ndarray[Any, Any]


@dataclasses.dataclass(frozen=True)
class Captures:
    """Attractors of one system and their traps.

    Attributes:
        kind, period, log_odds, low, high: the attractors as in :class:`~grpo_dynamics.Limit`, shape (n,).
        traps: (low, high, attractor) per trap.
        wanderer: index of the attractor that has no trap, −1 if there is none.
    """

    kind: Floats
    period: Floats
    log_odds: Floats
    low: Floats
    high: Floats
    traps: tuple[tuple[float, float, int], ...]
    wanderer: int


def span(dynamics: Recursion) -> float:
    """Return log-odds X > 0 so that everything but the way in from outside happens on [−X, X]."""
    points = np.abs(fixed_points(dynamics).log_odds)
    inner = np.max(points[np.isfinite(points)], initial=0.0)
    far = np.max([abs(float(x)) for x in turning_points(dynamics) if np.isfinite(x) and abs(x) < 1e3], initial=0.0)
    return float(max(inner, far, abs(logit(dynamics.p_ref)), 1.0) + 10)


@quiet
def captures(dynamics: Recursion) -> Captures:
    """Return the attractors of one system, found from its critical points and many other starts, and their traps."""
    reach = span(dynamics)
    turning = [float(x) for x in turning_points(dynamics)]
    ends = [float(dynamics.step(x)) for x in (*turning, -1e3, 1e3)]
    starts = [*turning, *ends, *np.linspace(-reach, reach, STARTS)]
    found = limit(dynamics, max_steps=STEPS, log_odds0=np.array([x for x in starts if np.isfinite(x)]))
    order = np.lexsort((found.low, found.kind))
    kept: list[int] = []
    for i in order:
        if not any(_same(found, int(i), j) for j in kept):
            kept.append(int(i))
    kept.sort(key=lambda i: (found.low[i], found.high[i]))
    kind, period, log_odds, low, high = (
        np.asarray(getattr(found, name))[kept] for name in ("kind", "period", "log_odds", "low", "high")
    )
    traps = [*_walks(dynamics, turning, log_odds, kind)]
    for i in range(len(kept)):
        if kind[i] in (LimitKind.FIXED_POINT, LimitKind.CYCLE):
            traps.extend(_contraction(dynamics, float(log_odds[i]), int(period[i]), i))
    loose = [i for i in range(len(kept)) if all(trap[2] != i for trap in traps)]
    return Captures(kind, period, log_odds, low, high, tuple(traps), loose[0] if loose else -1)


def _same(found: Any, i: int, j: int) -> bool:
    """Whether two limits are one attractor: equal fixed points, equal cycles, wandering ranges that overlap."""
    if found.kind[i] in (LimitKind.FIXED_POINT, LimitKind.ONE):
        return found.kind[i] == found.kind[j] and found.log_odds[i] == found.log_odds[j]
    if found.kind[i] == LimitKind.CYCLE and found.kind[j] == LimitKind.CYCLE:
        near = 1e-4 * (1 + abs(found.low[i]) + abs(found.high[i]))
        ends = abs(found.low[i] - found.low[j]), abs(found.high[i] - found.high[j])
        return found.period[i] == found.period[j] and max(ends) < near
    return found.low[i] <= found.high[j] and found.low[j] <= found.high[i] and found.kind[j] != LimitKind.FIXED_POINT


def _walks(dynamics: Recursion, turning: list[float], log_odds: Floats, kind: Floats) -> list[tuple[float, float, int]]:
    """Rising pieces between neighbouring fixed points on which every orbit walks to an attractor."""
    points = fixed_points(dynamics).log_odds
    knots = [-np.inf, *points[np.isfinite(points)], np.inf]
    cuts = sorted({*turning, *(x for x in knots if np.isfinite(x))})
    edges = [-np.inf, *cuts, np.inf]
    traps: list[tuple[float, float, int]] = []
    for low, high in itertools.pairwise(edges):
        inside = low + 1.0 if high == np.inf else high - 1.0 if low == -np.inf else 0.5 * (low + high)
        if not low < inside < high or not np.isfinite(inside):
            continue
        least, _ = slopes(dynamics, np.array(max(low, -1e300)), np.array(min(high, 1e300)))
        up = float(dynamics.step(inside)) > inside
        goal = next(x for x in knots if x >= high) if up else next(x for x in reversed(knots) if x <= low)
        enters = (high if up else low) == goal  # no turning point before the goal
        for i in np.flatnonzero(log_odds == goal):
            if least >= -1e-12 and enters and (np.isfinite(goal) or kind[i] == LimitKind.ONE):
                traps.append((low, high, int(i)))
    return traps


def _contraction(dynamics: Recursion, point: float, period: int, index: int) -> list[tuple[float, float, int]]:
    """The widest interval found around a point of a stable cycle that h^period maps into itself and contracts."""
    orbit, step = [point], stepper(dynamics)
    for _ in range(8 * period):
        orbit.append(float(step(np.asarray(orbit[-1]))))
    cycle = polish(dynamics, np.array(orbit[-period:])[:, None])[0][:, 0] if period > 1 else np.array([point])
    radii = 4.0 * 0.5 ** np.arange(40)
    turning = turning_points(dynamics)
    low = start = cycle[0] - radii
    high = end = cycle[0] + radii
    most = np.ones_like(radii)
    for _ in range(period):
        most = most * np.max(np.abs(slopes(dynamics, low, high)), axis=0)
        low, high = image(step, turning, low, high)
    good = np.flatnonzero((most < 1) & (low >= start) & (high <= end))
    return [(float(start[good[0]]), float(end[good[0]]), index)] if good.size else []


@quiet
def capture(dynamics: Recursion, known: Captures, log_odds: Floats) -> Floats:
    """Return the index of the attractor to which each start goes; that without a trap if it is in none after all."""
    step = stepper(dynamics)
    where = np.full(log_odds.shape, known.wanderer, dtype=np.int64)
    at, state = np.arange(log_odds.size), np.array(log_odds, dtype=np.float64)
    for _ in range(STEPS if known.wanderer < 0 else PATIENCE):
        goal = np.full(state.shape, -1)
        for low, high, index in known.traps:
            goal[(state > low) & ((state < high) | (high == np.inf))] = index
        caught = goal >= 0
        where[at[caught]] = goal[caught]
        at, state = at[~caught], step(state[~caught])
        if at.size == 0:
            break
    return where

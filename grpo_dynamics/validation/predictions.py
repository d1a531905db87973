"""What the theory says of each measurement: along the orbit from p_ref, and one step on from the measurement before.

What a prediction starts from was measured, so it is known to an interval when it was counted from samples. The interval
is sent through the equations on a grid, since a step is not monotone: between two points of the grid it may bulge.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from grpo_dynamics.arrays import Array
from grpo_dynamics.logodds import sigmoid
from grpo_dynamics.questions import fates, limit_range
from grpo_dynamics.theory.batch import BatchRecursion, BatchStd
from grpo_dynamics.theory.orbits.limit import LimitKind, limit
from grpo_dynamics.validation.measured import Grid, log_odds_of
from grpo_dynamics.validation.theory_of_run import Theory, batch_limits

POINTS = 33
"""So many values of an interval are sent through the equations."""

EDGE = 1e-12
"""Intervals that reach 0 or 1 are followed up to here."""


@dataclasses.dataclass(frozen=True, eq=False)
class Predicted:
    """Success probabilities of shape (iterations, questions), NaN where there is no prediction.

    Attributes:
        log_odds: of the prediction.
        low, high: what the prediction may be, given the intervals of what it starts from.
    """

    log_odds: Array
    low: Array
    high: Array

    @property
    def p(self) -> Array:
        """The prediction."""
        return sigmoid(self.log_odds)


@dataclasses.dataclass(frozen=True, eq=False)
class Limits:
    """Where the questions go, each of shape (questions,).

    Attributes:
        p: p*; of a cycle or an irregular orbit its mean; NaN where p_ref is not known.
        low, high: the smallest and largest p that is visited in the end, over the interval of p_ref.
        one_point: whether it is one state, p* or 1, and not a cycle.
    """

    p: Array
    low: Array
    high: Array
    one_point: Array


def orbit(theory: Theory, grid: Grid) -> Predicted:
    """Return the orbits that start at the measured p_ref, at the iterations that were measured."""
    if not theory.has_orbits:
        return _nothing(grid)
    center = _orbit(theory, grid.p[0], grid.iterations)
    ends = [_orbit(theory, p, grid.iterations) for p in _spread(grid.p[0], grid.low[0], grid.high[0])]
    low, high = _enclose(center, ends)
    low = np.where(grid.low[0] <= 0, 0.0, low)  # a question that never succeeds stays where it is
    high = np.where(grid.high[0] >= 1, 1.0, high)
    return Predicted(center, low, high)


def one_step(theory: Theory, grid: Grid, noise: Array | None = None) -> Predicted:
    """Return what follows from the measurement before: one step, or as many as lie between two measurements.

    Args:
        theory: with orbits; all is NaN for another.
        grid: the measurements.
        noise: standard deviation of the log-odds of a step that sampled groups make, of the shape of the grid; it
            widens low and high to 95 %.
    """
    if not theory.has_orbits:
        return _nothing(grid)
    first = np.full_like(grid.p[:1], np.nan)

    def ahead(p_ref: Array, log_odds: Array) -> Array:
        return np.concatenate([first, after(grid.iterations, log_odds[:-1], lambda state: theory.step(p_ref, state))])

    center = ahead(grid.p[0], grid.starts)
    starts = [log_odds_of(p) for p in _spread(grid.p, grid.low, grid.high)]
    references = _spread(grid.p[0], grid.low[0], grid.high[0])
    by_start = _enclose(center, [ahead(grid.p[0], start) for start in starts])
    by_reference = _enclose(center, [ahead(p_ref, grid.starts) for p_ref in references])
    # at the first step both are the same measurement, and move together
    together = _enclose(center[:2], [ahead(p, _with_first(grid.starts, p))[:2] for p in references])
    middle = sigmoid(center)
    low, high = (_combined(middle, a, b) for a, b in zip(by_start, by_reference, strict=True))
    low, high = (np.where(np.isnan(middle), b, x) for x, b in zip((low, high), by_reference, strict=True))
    low[1:2], high[1:2] = together[0][1:], together[1][1:]
    if noise is not None:
        width = 1.96 * noise
        low = _combined(middle, low, sigmoid(center - width))
        high = _combined(middle, high, sigmoid(center + width))
    return Predicted(center, low, high)


def after(iterations: Array, log_odds: Array, step: Callable[[Array], Array]) -> Array:
    """Return the states at the next measurement, so many steps on as lie between.

    Args:
        iterations: of the measurements, shape (n+1,).
        log_odds: states at all but the last, shape (n, questions).
        step: of the dynamics, applied to all of them at once.
    """
    counts, state = np.diff(iterations)[:, None], log_odds
    for k in range(int(counts.max(initial=0))):
        state = np.where(k < counts, step(state), state)
    return state


def limits(theory: Theory, grid: Grid) -> Limits:
    """Return where the orbits from the measured p_ref go."""
    p, known = grid.p[0], (grid.p[0] > 0) & (grid.p[0] < 1)
    if isinstance(theory.normalization, BatchStd):
        return _batch_limits(theory, p, known)
    dynamics = theory.at(0.5)
    found = fates(dynamics, p, 0)
    center, low, high = found.p_limit, found.lowest, found.highest
    wide = grid.high[0] > grid.low[0]
    if wide.any():
        part = dataclasses.replace(found, **{f.name: getattr(found, f.name)[wide] for f in dataclasses.fields(found)})
        low, high = low.copy(), high.copy()
        low[wide], high[wide] = limit_range(dynamics, grid.low[0][wide], grid.high[0][wide], part)
    one_point = (found.outcome == 0) & known
    return Limits(np.where(known, center, np.nan), low, high, one_point)


def kinds(theory: Theory, p_ref: Array) -> Array:
    """Return the :class:`~grpo_dynamics.LimitKind` of each orbit, UNDECIDED where p_ref is not known."""
    known = (p_ref > 0) & (p_ref < 1)
    if isinstance(theory.normalization, BatchStd):
        return np.where(known, int(LimitKind.FIXED_POINT), int(LimitKind.UNDECIDED))
    found = limit(theory.at(np.where(known, p_ref, 0.5)))
    return np.where(known, found.kind, int(LimitKind.UNDECIDED))


def _batch_limits(theory: Theory, p: Array, known: Array) -> Limits:
    dynamics = theory.at(np.clip(p, EDGE, 1 - EDGE))
    assert isinstance(dynamics, BatchRecursion)
    end = np.where(known, sigmoid(batch_limits(dynamics)), np.nan)
    return Limits(end, end, end, known & np.isfinite(end))


def _orbit(theory: Theory, p_ref: Array, iterations: Array) -> Array:
    state = log_odds_of(np.where((p_ref > 0) & (p_ref < 1), p_ref, np.nan))
    path: dict[int, Any] = {0: state}
    for n in range(1, int(iterations[-1]) + 1):
        state = theory.step(p_ref, state)
        path[n] = state
    return np.stack([path[int(n)] for n in iterations])


def _nothing(grid: Grid) -> Predicted:
    empty = np.full(grid.p.shape, np.nan)
    return Predicted(empty, empty, empty)


def _spread(p: Array, low: Array, high: Array) -> list[Array]:
    """Values from the lower to the upper end of intervals, evenly in log-odds; p itself where nothing is uncertain."""
    exact = ~(high > low)
    if exact.all():
        return []
    below, above = (log_odds_of(np.clip(x, EDGE, 1 - EDGE)) for x in (low, high))
    shares = np.linspace(0, 1, POINTS)
    return [np.where(exact, p, sigmoid(below + (above - below) * share)) for share in shares]


def _enclose(center: Array, ends: list[Array]) -> tuple[Array, Array]:
    """The smallest and largest success probability; those of the ends where there is no center."""
    low = high = sigmoid(center)
    for end in ends:
        p = sigmoid(end)
        low, high = np.fmin(low, p), np.fmax(high, p)
    return low.copy(), high.copy()


def _combined(middle: Array, first: Array, second: Array) -> Array:
    """An end of an interval from two independent causes: distances from the middle add in squares."""
    first, second = first - middle, second - middle
    return middle + np.where(first + second < 0, -1.0, 1.0) * np.hypot(first, second)


def _with_first(log_odds: Array, p: Array) -> Array:
    return np.concatenate([log_odds_of(p)[None], log_odds[1:]])

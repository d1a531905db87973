"""The states of a flow after some times as a table over p_ref, for very many questions.

From p_0 = p_ref the way d = L(t) − L_ref is a function of L_ref alone. It is integrated on a grid and read off by
interpolation of degree 5 where a twice coarser grid is right to 5e-8, the grid itself thus to about 1e-9. Elsewhere,
near a separatrix, there is a finer grid, and a finer one in that; what is left, or lies beyond the grid, is integrated.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from grpo_dynamics.logodds import logit, sigmoid
from grpo_dynamics.simulation.question_sources import Vector
from grpo_dynamics.theory.flow import Flow

LOW, HIGH, DISTANCE = -40.0, 16.0, 0.01
"""Above, the log-odds of a p_ref are not known to the tolerance: 1 − p_ref has lost its digits."""

FINER, LEVELS = 8, 4
"""How much finer each grid is than the one around it, and how many there are in one another."""

OFFSETS = (-2, -1, 0, 1, 2, 3)
"""Of the nodes that a question is read off from."""

MARGIN = 5
"""Nodes at either end that have no twice coarser grid around them."""

EDGE = MARGIN + 2
"""Intervals at either end that are never read: to read one, all of its six nodes must have been checked."""

TOLERANCE = 5e-8
"""Of the twice coarser grid, in log-odds."""


@dataclasses.dataclass(frozen=True, eq=False)
class FlowTable:
    """What :func:`tabulate` returns.

    Attributes:
        flow: its p_ref does not enter.
        times: shape (steps,).
        low: log-odds of the first node.
        distance: of neighbouring nodes.
        way: L(t) − L_ref at the nodes, shape (steps, nodes).
        good: whether this table may be read between a node and the next, shape (nodes − 1,).
        finer: tables of parts where it may not.
    """

    flow: Flow
    times: Vector
    low: float
    distance: float
    way: Vector
    good: np.ndarray[Any, np.dtype[np.bool_]]
    finer: tuple[FlowTable, ...]

    def states(self, p_ref: Vector) -> Iterator[Vector]:
        """Yield the log-odds at each time, shape (questions,)."""
        start = logit(p_ref)
        place = np.clip((start - self.low) / self.distance, MARGIN, len(self.good) - 1 - MARGIN)
        node = place.astype(np.int64)
        s = (start - (self.low + self.distance * node)) / self.distance
        lagrange = [math.prod((s - j) / (i - j) for j in OFFSETS if j != i) for i in OFFSETS]
        left = np.flatnonzero(~self.good[node] | (s < 0) | (s > 1))
        parts: list[tuple[Any, Iterator[Vector]]] = []
        for table in self.finer:
            inside = table.covers(start[left])
            if inside.any():
                parts.append((left[inside], table.states(p_ref[left[inside]])))
                left = left[~inside]
        if left.size:
            parts.append((left, iter(dataclasses.replace(self.flow, p_ref=p_ref[left]).integrate(self.times).log_odds)))
        for way in self.way:
            state = start + sum(weight * way[node + i] for i, weight in zip(OFFSETS, lagrange, strict=True))
            for index, rows in parts:
                state[index] = next(rows)
            yield state

    def covers(self, log_odds: Vector) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Return which log-odds of the reference lie within the margins of this table."""
        inner = self.distance * EDGE
        return (log_odds > self.low + inner) & (log_odds < self.low + self.distance * len(self.good) - inner)


def tabulate(
    flow: Flow,
    times: Vector,
    low: float = LOW,
    high: float = HIGH,
    distance: float = DISTANCE,
    levels: int = LEVELS,
) -> FlowTable:
    """Return the table of a flow whose options are numbers.

    Args:
        flow: its p_ref does not enter.
        times: ascending, shape (steps,).
        low: smallest log-odds of the reference.
        high: largest.
        distance: of the nodes.
        levels: number of grids in one another.

    >>> table = tabulate(Flow(beta=1.0, p_ref=0.5), np.array([1.0, 5.0]))
    >>> exact = Flow(beta=1.0, p_ref=np.array([0.1, 0.3])).integrate([1.0, 5.0]).log_odds
    >>> bool(np.allclose(list(table.states(np.array([0.1, 0.3]))), exact, rtol=0, atol=1e-8))
    True
    """
    start = low + distance * np.arange(math.ceil((high - low) / distance) + 1)
    way = dataclasses.replace(flow, p_ref=sigmoid(start)).integrate(times).log_odds - start
    with np.errstate(all="ignore"):
        pairs = (way[:, MARGIN - k : -MARGIN - k] + way[:, MARGIN + k : way.shape[1] - MARGIN + k] for k in (5, 3, 1))
        coarse = sum(factor * pair for factor, pair in zip((3, -25, 150), pairs, strict=True)) / 256
        right = np.all(np.abs(coarse - way[:, MARGIN:-MARGIN]) <= TOLERANCE, axis=0)  # False for infinities
    right = np.pad(right, MARGIN)
    good = np.pad(right[2:-3] & right[3:-2] & right[:-5] & right[1:-4] & right[4:-1] & right[5:], 2)
    finer: list[FlowTable] = []
    if levels > 1:
        inner = ~good
        inner[:EDGE] = inner[-EDGE:] = False
        edges = np.flatnonzero(np.diff(np.pad(inner, 1).astype(np.int8))).reshape(-1, 2)
        for first, last in edges:
            step = distance / FINER
            margin = (EDGE + 1) * step
            begin, end = low + distance * first - margin, low + distance * last + margin
            finer.append(tabulate(flow, times, begin, end, step, levels - 1))
    return FlowTable(flow, times, low, distance, way, good, tuple(finer))

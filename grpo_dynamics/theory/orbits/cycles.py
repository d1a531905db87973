"""All periodic orbits of a recursion up to a period, stable and unstable."""

from __future__ import annotations

import dataclasses
import enum
import math
from typing import Any

import numpy as np

from grpo_dynamics.arrays import Array, as_arrays, batch_shape, blocks, flat, map_options, take, to_numpy
from grpo_dynamics.logodds import complement, sigmoid
from grpo_dynamics.theory.fixed_points import Status, fixed_points
from grpo_dynamics.theory.orbits.cycle_search import CycleTable, cycles_of_period
from grpo_dynamics.theory.recursion import Recursion, require_recursion

LONGEST = 24
"""Longest period that :func:`cycles` searches."""
SYSTEMS = 1 << 10
"""Systems searched at once."""


class CyclesStatus(enum.IntEnum):
    """What is known of one element of a :class:`Cycles`."""

    COMPLETE = 0
    DEGENERATE = 1
    TOO_MANY = 2

    @property
    def meaning(self) -> str:
        """One line in plain words."""
        return {
            CyclesStatus.COMPLETE: "every cycle up to the period is listed",
            CyclesStatus.DEGENERATE: "some cycle is born or splits here, to working precision",
            CyclesStatus.TOO_MANY: "the search gave up: too many undecided parts of the line",
        }[self]


@dataclasses.dataclass(frozen=True)
class Cycles:
    """Periodic orbits, the shorter ones first, then from low to high, along the first axis; NaN-padded.

    Attributes:
        log_odds: the points in the order of the orbit, from the lowest, shape (slots, longest period, *batch).
        period: shape (slots, *batch), 0 where padded.
        multiplier: dL_{n+period}/dL_n on the cycle, the product over its points, shape (slots, *batch).
        stable: |multiplier| < 1, same shape; False where padded.
        count: number of cycles, shape (*batch).
        complete: every cycle up to this period is listed, shape (*batch).
        status: a :class:`CyclesStatus` as int8, shape (*batch).
    """

    log_odds: Array
    period: Array
    multiplier: Array
    stable: Array
    count: Array
    complete: Array
    status: Array

    @property
    def p(self) -> Array:
        """Success probabilities on the cycles."""
        return sigmoid(self.log_odds)

    @property
    def one_minus_p(self) -> Array:
        """Failure probabilities, exact where p rounds to 1."""
        return complement(self.log_odds)


def cycles(dynamics: Recursion, period: int) -> Cycles:
    """Return all cycles of a recursion up to a period, stable and unstable, for every element of its batch.

    Fixed points are cycles of period 1, taken from :func:`~grpo_dynamics.fixed_points`. The list is complete where the
    status says so, up to the rounding of h^k(L) − L at the places where the line is cut. The error of a point is a few
    roundings times its condition 1/|1 − multiplier|. p = 1, where an orbit can only end, is not listed. The search is
    done in NumPy, on the CPU.

    Args:
        dynamics: a recursion, any shape.
        period: the longest period, 1 to 24. The number of cycles can nearly double with each step of it.

    Raises:
        ValueError: for a period that is not an integer in this range.

    Source: derived in docs/notebooks/6_bifurcations.

    >>> found = cycles(Recursion(beta=5.0, p_ref=1e-3), 2)
    >>> print(found.period, found.p[-1].round(7), found.stable)
    [1 1 1 2] [0.002338  0.0587158] [False False  True  True]
    """
    require_recursion(dynamics)
    if isinstance(period, bool) or not isinstance(period, int) or not 1 <= period <= LONGEST:
        raise ValueError(f"period must be an integer from 1 to {LONGEST}, got {period!r}")
    shape = batch_shape(dynamics)
    size = math.prod(shape)
    here = in_numpy(dynamics, shape)
    tables = [_fixed(here, size)]
    for k in range(2, period + 1):
        tables.append(_searched(here, size, k))
    complete = np.full(size, period)
    for k, table in reversed(list(enumerate(tables, start=1))):
        complete = np.where(table.unresolved | table.too_many, k - 1, complete)
    too_many = np.logical_or.reduce([table.too_many for table in tables])
    status = np.where(too_many, CyclesStatus.TOO_MANY, np.where(complete < period, CyclesStatus.DEGENERATE, 0))
    return _padded(dynamics, shape, tables, complete, status)


def in_numpy(dynamics: Recursion, shape: tuple[int, ...]) -> Recursion:
    """Return the recursion in NumPy and float64 with its options as one dimension, for scalar code."""

    def plain(array: Array) -> Array:
        return flat(np.broadcast_to(to_numpy(array).astype(np.float64), shape))

    return map_options(dynamics, plain)


def _fixed(dynamics: Recursion, size: int) -> CycleTable:
    found = fixed_points(dynamics)
    slots = found.log_odds.shape[0]
    points = np.reshape(found.log_odds, (slots, size)).T
    owner, slot = np.nonzero(np.isfinite(points))
    multiplier = np.reshape(found.multiplier, (slots, size)).T
    status = np.reshape(found.status, (size,))
    unsure = (status == Status.DEGENERATE) | (status == Status.NOT_CONVERGED)
    return CycleTable(owner, points[owner, slot][None], multiplier[owner, slot], unsure, np.zeros(size, bool))


def _searched(dynamics: Recursion, size: int, period: int) -> CycleTable:
    tables: list[CycleTable] = []
    for (at,) in blocks((size,), SYSTEMS):
        width = len(range(size)[at])
        table = cycles_of_period(take(dynamics, (size,), at), width, period)
        tables.append(dataclasses.replace(table, owner=table.owner + (at.start or 0)))
    if not tables:
        tables = [cycles_of_period(dynamics, 0, period)]
    return CycleTable(
        *(np.concatenate([getattr(t, f.name) for t in tables], axis=-1) for f in dataclasses.fields(CycleTable))
    )


def _padded(
    dynamics: Recursion, shape: tuple[int, ...], tables: list[CycleTable], complete: Any, status: Any
) -> Cycles:
    """Lay the tables of all periods out as slots, in the caller's array library."""
    xp, beta = as_arrays(dynamics.beta, beside=dynamics)
    size = math.prod(shape)
    count = np.zeros(size, dtype=np.int64)
    total = np.zeros(size, dtype=np.int64)
    for table in tables:
        total += np.bincount(table.owner, minlength=size)
    slots = int(total.max(initial=0))
    log_odds = np.full((slots, len(tables), size), np.nan)
    multiplier = np.full((slots, size), np.nan)
    period = np.zeros((slots, size), dtype=np.int64)
    for k, table in enumerate(tables, start=1):
        new = np.bincount(table.owner, minlength=size)
        before = np.cumsum(new) - new  # the table is sorted by owner
        slot = count[table.owner] + np.arange(table.owner.size) - before[table.owner]
        log_odds[slot, :k, table.owner] = table.points.T
        multiplier[slot, table.owner], period[slot, table.owner] = table.multiplier, k
        count += new

    def give(array: Any, *lead: int, dtype: Any) -> Array:
        return xp.asarray(np.reshape(array, (*lead, *shape)), dtype=dtype, device=beta.device)[()]

    return Cycles(
        give(log_odds, slots, len(tables), dtype=beta.dtype),
        give(period, slots, dtype=xp.int64),
        give(multiplier, slots, dtype=beta.dtype),
        give(np.abs(multiplier) < 1, slots, dtype=xp.bool),
        give(count, dtype=xp.int64),
        give(complete, dtype=xp.int64),
        give(status, dtype=xp.int8),
    )

"""Basins of attraction of one system: which starts go to which attractor, and what the borders between them are.

A border between two basins is an unstable fixed point or cycle, or a start that lands on one: a preimage. Away from
its turning points the step is invertible, so every preimage of a border is a border. From the unstable points that have
different basins at their sides, all borders are found by going backwards until nothing new comes. Where basins are
interwoven at all scales this does not end, and borders closer together than a resolution are left out.
"""

from __future__ import annotations

import dataclasses
import enum
import itertools
from typing import Any

import numpy as np

from grpo_dynamics.arrays import batch_shape, quiet, require
from grpo_dynamics.logodds import complement, sigmoid
from grpo_dynamics.theory.orbits.capture import Captures, capture, captures, span
from grpo_dynamics.theory.orbits.cycle_search import Step, stepper, turning_points
from grpo_dynamics.theory.orbits.cycles import cycles
from grpo_dynamics.theory.recursion import Recursion, require_recursion

LONGEST_BORDER = 8
"""Longest period of the unstable cycles among which borders are looked for."""
FAR = 1e4
"""Largest |log-odds| of a border. With a pull to the previous policy borders can recur for ever towards −∞."""
SAME = 1e-9
"""Borders closer together than this, relative to 1 + |L|, are one."""
MIXED = -1
"""Index given to an interval in which basins alternate below the resolution."""

Floats = np.ndarray[Any, Any]


class BasinsStatus(enum.IntEnum):
    """How much of the picture is listed."""

    COMPLETE = 0
    TO_RESOLUTION = 1

    @property
    def meaning(self) -> str:
        """One line in plain words."""
        return {
            BasinsStatus.COMPLETE: "every interval is listed: the borders have no further preimages",
            BasinsStatus.TO_RESOLUTION: "there are more intervals than listed: borders too close together are left out",
        }[self]


class Border(enum.IntEnum):
    """What a border between two basins is."""

    UNSTABLE_FIXED_POINT = 0
    UNSTABLE_CYCLE = 1
    PREIMAGE_OF_FIXED_POINT = 2
    PREIMAGE_OF_CYCLE = 3
    UNIDENTIFIED = 4

    @property
    def meaning(self) -> str:
        """One line in plain words."""
        return {
            Border.UNSTABLE_FIXED_POINT: "an unstable fixed point",
            Border.UNSTABLE_CYCLE: "a point of an unstable cycle",
            Border.PREIMAGE_OF_FIXED_POINT: "lands on an unstable fixed point",
            Border.PREIMAGE_OF_CYCLE: "lands on an unstable cycle",
            Border.UNIDENTIFIED: "found by bisection; on what it lands is not known",
        }[self]


@dataclasses.dataclass(frozen=True)
class Basins:
    """The partition of the line of log-odds into basins, m intervals from low to high.

    Attributes:
        low, high: the ends of the intervals, shape (m,); the first begins at −inf, the last ends at inf. No border is
            looked for beyond |L| = 10^4, where no p is left.
        attractor: the attractor of each, an index; −1 where basins alternate below the resolution.
        border: a :class:`Border` as int8 for each of the m−1 borders, ``high[:-1]``.
        period: of the unstable cycle on which the border lands, 0 where unidentified, shape (m−1,).
        steps: after how many steps it is there, shape (m−1,).
        kind, attractor_period, attractor_low, attractor_high: the n attractors as in :class:`~grpo_dynamics.Limit`,
            from low to high.
        share: fraction of all p0 in (0, 1) that goes to each attractor, shape (n,).
        status: a :class:`BasinsStatus`.
    """

    low: Floats
    high: Floats
    attractor: Floats
    border: Floats
    period: Floats
    steps: Floats
    kind: Floats
    attractor_period: Floats
    attractor_low: Floats
    attractor_high: Floats
    share: Floats
    status: BasinsStatus

    def of(self, log_odds: Any) -> Floats:
        """Return the index of the attractor to which each start goes."""
        require("log_odds", log_odds, "a number, not NaN", lambda x: x == x)
        return self.attractor[np.searchsorted(self.high[:-1], np.asarray(log_odds, dtype=np.float64), side="right")]


@dataclasses.dataclass(frozen=True)
class _Borders:
    """Borders from low to high: place, period of the unstable orbit, steps to it."""

    place: Floats
    period: Floats
    steps: Floats

    @staticmethod
    def join(*parts: _Borders) -> _Borders:
        place, period, steps = (
            np.concatenate([getattr(part, name) for part in parts]) for name in ("place", "period", "steps")
        )
        order = np.argsort(place, kind="stable")
        return _Borders(place[order], period[order], steps[order])

    def only(self, which: Floats) -> _Borders:
        return _Borders(self.place[which], self.period[which], self.steps[which])


@quiet
def basins(dynamics: Recursion, resolution: float = 1e-3) -> Basins:
    """Return the basins of attraction of one system.

    Intervals that go to the same attractor are one, whatever the phase in which they reach a cycle, and up to the null
    set of starts that land on unstable points in between. A chaotic attractor has what nothing else captures. Where
    the status says COMPLETE, the borders have no preimages but themselves.

    Args:
        dynamics: one recursion: its options numbers, not arrays.
        resolution: borders closer together than this, in log-odds, are left out.

    Raises:
        ValueError: for a batch, or a resolution that is not a positive number.

    Source: derived in docs/notebooks/6_bifurcations.

    >>> found = basins(Recursion(beta=5.0, p_ref=1e-3))
    >>> print(found.low.round(3), found.attractor, found.share.round(6))
    [ -inf -8.789  8.789] [1 0 1] [9.99695e-01 3.05000e-04]
    """
    require_recursion(dynamics)
    if batch_shape(dynamics) != ():
        raise ValueError(f"dynamics must be one system for basins, got shape {batch_shape(dynamics)}")
    require("resolution", resolution, "a finite number > 0", lambda x: (x > 0) & (x < float("inf")))
    known, reach = captures(dynamics), min(span(dynamics), FAR)
    borders = _all_preimages(dynamics, _first_borders(dynamics, known), resolution)
    missed = _missed(dynamics, known, borders, reach, resolution)
    if missed.place.size:
        borders = _all_preimages(dynamics, _Borders.join(borders, missed), resolution)
    labels = _labels(dynamics, known, borders.place, reach)
    change = labels[1:] != labels[:-1]
    borders, labels = borders.only(change), labels[np.concatenate([[True], change])]
    low, high = np.concatenate([[-np.inf], borders.place]), np.concatenate([borders.place, [np.inf]])
    kinds = np.where(borders.period == 0, Border.UNIDENTIFIED, 2 * (borders.steps > 0) + (borders.period > 1))
    width = np.where(low > 0, complement(low) - complement(high), sigmoid(high) - sigmoid(low))
    share = np.array([width[labels == i].sum() for i in range(known.kind.size)])
    before = preimages(dynamics, borders.place)[0]
    closed = np.all(_distance(before, borders.place) <= SAME * (1 + np.abs(before)))
    complete = bool(closed and np.all(labels != MIXED) and np.all(borders.period > 0))
    return Basins(
        low,
        high,
        labels,
        kinds.astype(np.int8),
        borders.period,
        borders.steps,
        known.kind,
        known.period,
        known.low,
        known.high,
        share,
        BasinsStatus.COMPLETE if complete else BasinsStatus.TO_RESOLUTION,
    )


def preimages(dynamics: Recursion, log_odds: Floats) -> tuple[Floats, Floats]:
    """Return all L that step to one of the given log-odds, and the index of that one, by bisection."""
    step = stepper(dynamics)
    knots = [-FAR, *(float(x) for x in turning_points(dynamics) if abs(x) < FAR), FAR]
    found: list[Floats] = []
    source: list[Floats] = []
    for low, high in itertools.pairwise(knots):
        if low >= high:
            continue
        begin, end = float(step(np.array(low))), float(step(np.array(high)))
        inside = (log_odds > min(begin, end)) & (log_odds < max(begin, end))
        value = log_odds[inside]
        found.append(_inverse(step, value, low, high, begin < end))
        source.append(np.flatnonzero(inside))
    return np.concatenate(found), np.concatenate(source)


def _inverse(step: Step, value: Floats, low: float, high: float, rising: bool) -> Floats:
    bottom, top = np.full(value.shape, low), np.full(value.shape, high)
    for _ in range(80):
        middle = 0.5 * (bottom + top)
        before = (step(middle) < value) == rising
        bottom, top = np.where(before, middle, bottom), np.where(before, top, middle)
    return 0.5 * (bottom + top)


def _first_borders(dynamics: Recursion, known: Captures) -> _Borders:
    """The unstable fixed points and cycles with more than one basin beside them."""
    longest = int(min(max(2, 2 * known.period.max(initial=1)), LONGEST_BORDER))
    found = cycles(dynamics, longest if known.kind.size > 1 else 1)
    unstable = np.flatnonzero(np.abs(found.multiplier) > 1 - 1e-6)
    place = np.concatenate([found.log_odds[i, : found.period[i]] for i in unstable] or [np.zeros(0)])
    period = np.repeat(found.period[unstable], found.period[unstable])
    sides = np.concatenate([sign * np.geomspace(1e-7, 1e-2, 11) for sign in (-1.0, 1.0)])
    beside = place[:, None] + sides * (1 + np.abs(place[:, None]))
    labels = capture(dynamics, known, beside.ravel()).reshape(beside.shape)
    differs = np.any(labels != labels[:, :1], axis=1)
    return _Borders.join(_Borders(place, period, np.zeros_like(period)).only(differs))


def _all_preimages(dynamics: Recursion, borders: _Borders, resolution: float) -> _Borders:
    """The borders with their preimages, those of the preimages and so on, as far as they can be resolved."""
    new = borders
    while new.place.size:
        place, source = preimages(dynamics, new.place)
        order = np.argsort(place)
        before = _Borders(place[order], new.period[source[order]], new.steps[source[order]] + 1)
        old = _distance(before.place, borders.place)
        resolved = old > np.maximum(resolution, SAME * (1 + np.abs(before.place)))
        resolved[1:] &= np.diff(before.place) > resolution
        new = before.only(resolved)
        borders = _Borders.join(borders, new)
    return borders


def _distance(place: Floats, others: Floats) -> Floats:
    """Distance to the nearest of the others, which are sorted."""
    if others.size == 0:
        return np.full(place.shape, np.inf)
    right = np.searchsorted(others, place)
    return np.minimum(
        np.abs(place - others[np.minimum(right, others.size - 1)]), np.abs(place - others[np.maximum(right - 1, 0)])
    )


def _missed(dynamics: Recursion, known: Captures, borders: _Borders, reach: float, resolution: float) -> _Borders:
    """Borders that plain sampling finds between the known ones, by bisection."""
    grid = np.sort(np.concatenate([np.linspace(-reach, reach, 2048), *_samples(borders.place, reach).T]))
    labels = capture(dynamics, known, grid)
    at = np.flatnonzero(labels[1:] != labels[:-1])
    gaps = np.searchsorted(borders.place, grid)
    at = at[gaps[at] == gaps[at + 1]]
    low, high, left = grid[at], grid[at + 1], labels[at]
    for _ in range(60 if at.size else 0):
        middle = 0.5 * (low + high)
        same = capture(dynamics, known, middle) == left
        low, high = np.where(same, middle, low), np.where(same, high, middle)
    place = 0.5 * (low + high)
    place = place[_distance(place, borders.place) > resolution]
    nothing = np.zeros(place.shape, dtype=np.int64)
    return _Borders(place, nothing, nothing)


def _samples(borders: Floats, reach: float) -> Floats:
    """Places inside every interval between neighbouring borders, shape (intervals, places)."""
    ends = np.concatenate([[min(-reach, *borders, 0.0) - 10], borders, [max(reach, *borders, 0.0) + 10]])
    inside = (np.arange(16) + 0.5) / 16
    return ends[:-1, None] + inside * np.diff(ends)[:, None]


def _labels(dynamics: Recursion, known: Captures, borders: Floats, reach: float) -> Floats:
    """The attractor of each interval between neighbouring borders: MIXED where samples of it disagree."""
    samples = _samples(borders, reach)
    labels = capture(dynamics, known, samples.ravel()).reshape(samples.shape)
    return np.where(np.all(labels == labels[:, :1], axis=1), labels[:, 0], MIXED)

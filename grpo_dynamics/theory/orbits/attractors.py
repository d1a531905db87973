"""Every attractor of a recursion or a flow: stable fixed points, p = 1, cycles and chaos."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from grpo_dynamics.arrays import Array, as_arrays, batch_shape, block_size, blocks, flat, map_options, take
from grpo_dynamics.logodds import sigmoid
from grpo_dynamics.theory.fixed_points import FixedPoints, fixed_points
from grpo_dynamics.theory.flow import Flow, require_dynamics
from grpo_dynamics.theory.orbits.critical_orbits import Settled, Survey, Verdict, settle, survey, two_cycle
from grpo_dynamics.theory.orbits.limit import LimitKind
from grpo_dynamics.theory.recursion import Recursion

PATIENT = (math.inf, math.inf, math.inf, math.inf, 0.012, 0.004)
"""Thresholds of the Lyapunov exponent: an orbit is called irregular after 4,000 steps, which give its exponent too."""

ENDLESS = (math.inf,) * len(PATIENT)
"""No threshold: an orbit is followed for all 16,000 steps unless it settles."""


@dataclasses.dataclass(frozen=True)
class Attractors:
    """Attractors in ascending order along the first axis: slots, two or as many as are needed.

    Attributes:
        kind: a :class:`~grpo_dynamics.LimitKind` as int8, shape (slots, *batch); 0 where padded.
        period: 1 for a fixed point and p = 1; of a cycle its period; 0 otherwise.
        log_odds: the fixed point, inf at p = 1, or the lowest point that is visited; NaN where padded.
        low, high: the smallest and largest log-odds visited.
        lyapunov: mean of log|multiplier| per step; at p = 1 that of 1 − p, which is −Ω(∞)/β with a mirror
            anchor and −inf where Ω is unbounded. For a flow the rate per natural-gradient time 1/β.
        count: number of attractors, shape (*batch).
    """

    kind: Array
    period: Array
    log_odds: Array
    low: Array
    high: Array
    lyapunov: Array
    count: Array

    @property
    def p(self) -> Array:
        """Success probability at ``log_odds``."""
        return sigmoid(self.log_odds)


def attractors(dynamics: Recursion | Flow) -> Attractors:
    """Return every attractor, for every element of the batch.

    A fixed point attracts if it is stable, p = 1 if Ω is unbounded (ε = 0) or nothing pulls to the reference (α = 0).
    What else attracts is found by following the orbit of the minimum of the map, p = ½ for GRPO: it finds all there is
    (proofs in ``theory/orbits/critical_orbits``; negative Schwarzian derivative). Where that is not proved, two KL
    terms whose fixed point overshoots and finite groups, orbits from both critical points, from both sides of the
    repelling fixed points and from a grid between are followed; cycles that none of them finds are missed. An
    irregular attractor contains a critical point, so only those orbits can show it; beside a cycle one has to stay
    irregular for 16,000 steps more, as it may be on its way there.
    A flow has stable fixed points and p = 1 only.

    Cycles are found up to period 256. An orbit that has not settled after 16,000 steps is IRREGULAR if its Lyapunov
    exponent exceeds 0.004, else UNDECIDED: on a bifurcation, or next to one.

    Args:
        dynamics: a :class:`~grpo_dynamics.Recursion` or :class:`~grpo_dynamics.Flow` of any shape.

    Raises:
        ValueError: for anything else.

    Source: derived in docs/notebooks/6_bifurcations.

    >>> import grpo_dynamics as gd
    >>> found = attractors(gd.grpo(beta=5.0, p_ref=1e-3))
    >>> print([gd.LimitKind(kind).name for kind in found.kind], found.period, gd.sigmoid(found.high).round(4))
    ['CYCLE', 'FIXED_POINT'] [2 1] [0.0587 1.    ]
    """
    require_dynamics(dynamics)
    shape = batch_shape(dynamics)
    xp, beta = as_arrays(dynamics.beta, beside=dynamics)
    parts = [of_block(flattened(dynamics, shape, index), PATIENT) for index in blocks(shape, block_size(xp))]
    if not parts:
        parts = [of_block(Recursion(xp.ones((1,), dtype=beta.dtype, device=beta.device), 0.5), PATIENT)]
    slots = max(2, *(part.kind.shape[0] for part in parts), 2)

    def joined(name: str) -> Array:
        values = [getattr(part, name) for part in parts]
        if name != "count":
            values = [_padded(xp, value, slots) for value in values]
        whole = xp.concat(values, axis=-1) if math.prod(shape) else values[0][..., :0]
        return xp.reshape(whole, (*whole.shape[:-1], *shape))[()]

    return Attractors(**{field.name: joined(field.name) for field in dataclasses.fields(Attractors)})


def flattened(dynamics: Any, shape: tuple[int, ...], index: Any) -> Any:
    """Return the part of the options at the index with one dimension, β of full length."""
    part = map_options(take(dynamics, shape, index), flat)
    xp, beta = as_arrays(dynamics.beta, beside=dynamics)
    beta = xp.broadcast_to(beta, shape)[index]
    return dataclasses.replace(part, beta=xp.reshape(beta, (-1,)))


def _padded(xp: Any, value: Array, slots: int) -> Array:
    empty = xp.nan if xp.isdtype(value.dtype, "real floating") else 0
    more = xp.full((slots - value.shape[0], value.shape[1]), empty, dtype=value.dtype, device=value.device)
    return xp.concat([value, more], axis=0)


@dataclasses.dataclass(frozen=True)
class _Row:
    """One candidate per element; kind 0 and NaN where there is none."""

    kind: Array
    period: Array
    low: Array
    high: Array
    lyapunov: Array


def of_block(dynamics: Any, thresholds: tuple[float, ...]) -> Attractors:
    """The attractors of a recursion or flow of shape (n,); the thresholds are those of ``settle``."""
    xp, beta = as_arrays(dynamics.beta, beside=dynamics)
    with np.errstate(all="ignore"):
        if isinstance(dynamics, Flow):
            points = fixed_points(dynamics)
            rows = _points(
                xp, points, points.multiplier - 1, goes_to_one(xp, points), _speed_at_one(xp, dynamics, beta)
            )
        else:
            seen = survey(dynamics)
            speed = xp.where(dynamics.alpha + 0.0 * beta == 0, _speed_at_one(xp, dynamics, beta), -xp.inf)
            rows = _points(xp, seen.points, xp.log(xp.abs(seen.points.multiplier)), seen.one, speed)
            rows = rows + _others(xp, dynamics, seen, thresholds)
        return _sorted(xp, _distinct(xp, rows))


def goes_to_one(xp: Any, points: FixedPoints) -> Array:
    """Whether p = 1 attracts in a flow: stable and unstable states alternate, and it is the last of them."""
    stable = xp.sum(xp.astype(points.stable, xp.int8), axis=0)
    return 2 * stable <= points.count


def _speed_at_one(xp: Any, dynamics: Any, beta: Array) -> Array:
    return -as_arrays(dynamics.normalization.gap(float("inf")), beside=dynamics)[1] / beta


def _points(xp: Any, points: FixedPoints, rates: Array, one: Array, speed: Array) -> list[_Row]:
    """The stable fixed points and p = 1."""
    rows: list[_Row] = []
    for i in range(points.log_odds.shape[0]):
        stable = points.stable[i, ...]
        place = xp.where(stable, points.log_odds[i, ...], xp.nan)
        kind = xp.where(stable, int(LimitKind.FIXED_POINT), 0)
        rows.append(_Row(kind, xp.where(stable, 1, 0), place, place, xp.where(stable, rates[i, ...], xp.nan)))
    place = xp.where(one, xp.inf, xp.nan + 0.0 * points.log_odds[0, ...])
    kind = xp.where(one, int(LimitKind.ONE), 0)
    return [*rows, _Row(kind, xp.where(one, 1, 0), place, place, xp.where(one, speed, xp.nan))]


def _others(xp: Any, dynamics: Recursion, seen: Survey, thresholds: tuple[float, ...]) -> list[_Row]:
    """The cycles and irregular attractors: a row of 2-cycles that are proved, and one per start of an orbit."""
    size = seen.verdict.shape[0]
    rows: list[_Row] = []
    at = xp.nonzero(seen.verdict == int(Verdict.TWO_CYCLE))[0]
    if at.shape[0] > 0:
        found = two_cycle(take(dynamics, (size,), at), seen.lowest[at], seen.points.log_odds[0, ...][at])
        rows.append(_row(xp, size, at, found, slice(None)))
    many = seen.verdict == int(Verdict.MANY_ORBITS)
    first = many | (seen.verdict == int(Verdict.ONE_ORBIT))
    places = starts(xp, dynamics, seen) if xp.any(many) else [seen.bottom]
    where = [xp.nonzero(first if i == 0 else many & xp.isfinite(start))[0] for i, start in enumerate(places)]
    here = xp.concat(where)
    if here.shape[0] == 0:
        return rows
    state = xp.concat([start[index] for start, index in zip(places, where, strict=True)])
    found = settle(take(dynamics, (size,), here), state, seen.ceiling[here], thresholds)
    _follow_on(xp, dynamics, seen, here, found)
    # what attracts and is no cycle contains a critical point (Mañé): other orbits that wander are on their way
    cycles_only = dataclasses.replace(
        found, kind=xp.where(found.kind == int(LimitKind.CYCLE), found.kind, int(LimitKind.FIXED_POINT))
    )
    one_turn = len(dynamics.normalization.turns()) == 1
    done = 0
    for i, at in enumerate(where):
        part = slice(done, done + at.shape[0])
        rows.append(_row(xp, size, at, cycles_only if one_turn and i > 1 else found, part))
        done = part.stop
    return rows


def _follow_on(xp: Any, dynamics: Recursion, seen: Survey, here: Array, found: Settled) -> None:
    """Follow irregular orbits of elements ``here`` that have a cycle, too, on: some go to it in the end."""
    size = seen.verdict.shape[0]
    cyclic = xp.zeros((size,), dtype=xp.bool, device=here.device)
    cyclic[here[found.kind == int(LimitKind.CYCLE)]] = True
    at = xp.nonzero((found.kind == int(LimitKind.IRREGULAR)) & cyclic[here])[0]
    if at.shape[0] == 0:
        return
    place = here[at]
    later = settle(take(dynamics, (size,), place), found.low[at], seen.ceiling[place], ENDLESS)
    arrived = later.kind != int(LimitKind.UNDECIDED)
    for field in dataclasses.fields(Settled):
        getattr(found, field.name)[at[arrived]] = getattr(later, field.name)[arrived]


def _row(xp: Any, size: int, at: Array, found: Settled, part: slice) -> _Row:
    """What a part of the orbits found, at the places of their elements; fixed points are listed already."""
    new = found.kind[part] != int(LimitKind.FIXED_POINT)

    def placed(value: Array, empty: float, dtype: Any) -> Array:
        row = xp.full((size,), empty, dtype=dtype, device=value.device)
        row[at] = xp.where(new, xp.astype(value[part], dtype), row[at])
        return row

    kind, period = placed(found.kind, 0, xp.int64), placed(found.period, 0, xp.int64)
    return _Row(kind, period, *(placed(x, xp.nan, x.dtype) for x in (found.low, found.high, found.lyapunov)))


def starts(xp: Any, dynamics: Recursion, seen: Survey) -> list[Array]:
    """Where orbits start, the minimum of the map first: it alone where the Schwarzian derivative is negative."""
    first, second = seen.points.log_odds[0, ...], seen.ceiling
    near = 1e-4 * (1 + xp.abs(first))
    highest = xp.minimum(xp.maximum(dynamics.step(seen.lowest), dynamics.step(seen.top)), second)
    highest = xp.where(xp.isfinite(highest), highest, seen.bottom + 8)
    grid = [seen.lowest + (highest - seen.lowest) * k / 8 for k in range(8)]
    return [seen.bottom, seen.top, first - near, first + near, second - 1e-4 * (1 + xp.abs(second)), *grid]


def _distinct(xp: Any, rows: list[_Row]) -> list[_Row]:
    """Empty every row that another one shows: cycles by their range; the rest where it overlaps that of a surer row.

    A cycle and an irregular orbit are two attractors, also where their ranges overlap; an undecided orbit may be on
    its way to either.
    """
    sure = [_sureness(xp, row) for row in rows]
    kept: list[_Row] = []
    for i, row in enumerate(rows):
        fresh = ~xp.isnan(row.low)
        for j, other in enumerate(rows):
            if i == j:
                continue
            equal = (row.period == other.period) & _close(xp, row.low, other.low) & _close(xp, row.high, other.high)
            overlap = (row.low <= other.high) & (row.high >= other.low) & (other.period != 1) & (sure[i] < 2)
            overlap = overlap & ((sure[i] < 1) | (sure[j] < 2))
            before = (sure[j] > sure[i]) | ((sure[j] == sure[i]) & (j < i))
            fresh = fresh & ~((equal | overlap) & before)
        kept.append(
            _Row(
                *(xp.where(fresh, value, 0) for value in (row.kind, row.period)),
                *(xp.where(fresh, value, xp.nan) for value in (row.low, row.high, row.lyapunov)),
            )
        )
    return kept


def _sureness(xp: Any, row: _Row) -> Array:
    return xp.where(row.kind == int(LimitKind.UNDECIDED), 0, xp.where(row.kind == int(LimitKind.IRREGULAR), 1, 2))


def _close(xp: Any, first: Array, second: Array) -> Array:
    return (first == second) | (xp.isfinite(first) & (xp.abs(first - second) <= 1e-6 * (1 + xp.abs(first))))


def _sorted(xp: Any, rows: list[_Row]) -> Attractors:
    """The rows in ascending order, as many as there are attractors."""
    kind, period, low, high, rate = (
        xp.stack([getattr(row, field.name) for row in rows]) for field in dataclasses.fields(_Row)
    )
    present = ~xp.isnan(low)
    count = xp.sum(xp.astype(present, xp.int8), axis=0)
    finite = xp.where(
        present, xp.where(xp.isinf(low), float(xp.finfo(low.dtype).max), low), xp.inf
    )  # p = 1 before empty rows
    order = xp.argsort(finite, axis=0, stable=True)
    slots = max(2, int(xp.max(count)))
    order = order[:slots, ...]
    kind, period, low, high, rate = (
        xp.take_along_axis(value, order, axis=0) for value in (kind, period, low, high, rate)
    )
    return Attractors(xp.astype(kind, xp.int8), period, low, low, high, rate, xp.astype(count, xp.int8))

"""Where an orbit goes: to a fixed point, a cycle, p = 1, or nowhere regular."""

from __future__ import annotations

import dataclasses
import enum
import math
from typing import Any

import numpy as np

from grpo_dynamics.arrays import Array, as_arrays, batch_shape, flat, map_options, option, require, take
from grpo_dynamics.logodds import logit, sigmoid
from grpo_dynamics.theory.fixed_points import fixed_points
from grpo_dynamics.theory.recursion import Recursion

LONGEST_PERIOD = 64
"""Longest cycle that :func:`limit` recognises."""


class LimitKind(enum.IntEnum):
    """Where an orbit goes."""

    UNDECIDED = 0
    FIXED_POINT = 1
    CYCLE = 2
    ONE = 3
    IRREGULAR = 4

    @property
    def meaning(self) -> str:
        """One line in plain words."""
        return {
            LimitKind.UNDECIDED: "still moving slowly after all steps",
            LimitKind.FIXED_POINT: "settles at a fixed point",
            LimitKind.CYCLE: "oscillates in a cycle",
            LimitKind.ONE: "goes to p = 1",
            LimitKind.IRREGULAR: "keeps wandering without a period",
        }[self]


@dataclasses.dataclass(frozen=True)
class Limit:
    """Where orbits go, per element.

    Attributes:
        kind: a :class:`LimitKind` as int8, shape (*batch).
        period: 1 at a fixed point or p = 1, the period of a cycle, 0 otherwise.
        log_odds: the fixed point, or the last state; inf at p = 1.
        low, high: smallest and largest log-odds visited in the end.
        steps: steps taken until the limit was recognised; the number of all steps where it was not.
    """

    kind: Array
    period: Array
    log_odds: Array
    low: Array
    high: Array
    steps: Array

    @property
    def p(self) -> Array:
        """Success probability at the limit (the last state where there is none)."""
        return sigmoid(self.log_odds)


def limit(dynamics: Recursion, p0: Array | None = None, max_steps: int = 20_000) -> Limit:
    """Return where the orbit from p0 goes.

    An orbit counts as settled when it comes within 1e-8 of a stable fixed point, as a cycle when it returns to within
    1e-10 after at most 64 steps and the multipliers along the cycle multiply to less than 1 in size (Brent's method).

    Args:
        dynamics: a recursion, any shape.
        p0: where to start, in (0, 1); p_ref if not given.
        max_steps: when to give up.

    >>> found = limit(Recursion(beta=5.0, p_ref=1e-3))
    >>> LimitKind(found.kind).name, int(found.period)
    ('CYCLE', 2)
    """
    p0 = dynamics.p_ref if p0 is None else option(p0)
    require("p0", p0, "a probability strictly between 0 and 1", lambda x: (x > 0) & (x < 1))
    if isinstance(max_steps, bool) or not isinstance(max_steps, int) or max_steps < 1:
        raise ValueError(f"max_steps must be an integer >= 1, got {max_steps!r}")
    shape = np.broadcast_shapes(batch_shape(dynamics), tuple(getattr(p0, "shape", ())))
    size = math.prod(shape)
    xp, start = as_arrays(logit(p0), beside=dynamics)
    options = map_options(dynamics, lambda array: flat(xp.broadcast_to(array, shape)))
    state = xp.reshape(xp.broadcast_to(start, shape), (-1,)) + 0.0
    points = fixed_points(options)
    targets = xp.where(points.stable, points.log_odds, xp.nan)
    targets = xp.broadcast_to(xp.reshape(targets, (targets.shape[0], -1)), (targets.shape[0], size))
    place: dict[str, Any] = {"device": start.device}
    out = _Records(
        kind=xp.zeros((size,), dtype=xp.int8, **place),
        period=xp.zeros((size,), dtype=xp.int64, **place),
        log_odds=state + 0.0,
        low=state + 0.0,
        high=state + 0.0,
        steps=xp.full((size,), max_steps, dtype=xp.int64, **place),
    )
    with np.errstate(all="ignore"):
        _follow(xp, options, state, targets, out, max_steps)
    return Limit(**{f.name: xp.reshape(getattr(out, f.name), shape)[()] for f in dataclasses.fields(Limit)})


@dataclasses.dataclass
class _Records:
    kind: Array
    period: Array
    log_odds: Array
    low: Array
    high: Array
    steps: Array


def _follow(xp: Any, options: Recursion, state: Array, targets: Array, out: _Records, max_steps: int) -> None:
    """Iterate in chunks; elements that are decided leave."""
    size = state.shape[0]
    at = xp.arange(size, device=state.device)  # which elements still run
    done = 0
    while done < max_steps and at.shape[0] > 0:
        part = take(options, (size,), at) if at.shape[0] < size else options
        steps = min(2 * LONGEST_PERIOD, max_steps - done)
        orbit = part.iterate(steps, log_odds0=state).log_odds
        state = orbit[-1, ...]
        done += steps
        goal = targets[:, at]
        distance = xp.where(xp.isnan(goal), xp.inf, xp.abs(state - goal))
        nearest = xp.max(xp.where(distance == xp.min(distance, axis=0), goal, -xp.inf), axis=0)
        near = xp.abs(state - nearest) <= 1e-8 * (1 + xp.abs(nearest))
        one = xp.isinf(state) & (state > 0) | (part.alpha == 0) & (xp.abs(state) < xp.inf)
        period, low, high = _period(xp, part, orbit)
        cycle = ~near & ~one & (period > 1)
        last = done >= max_steps
        leaves = near | one | cycle | last
        here = at[leaves]
        kind = xp.where(near, int(LimitKind.FIXED_POINT), xp.where(one, int(LimitKind.ONE), int(LimitKind.CYCLE)))
        wanders = xp.where(high - low > 1e-6, int(LimitKind.IRREGULAR), int(LimitKind.UNDECIDED))
        kind = xp.where(near | one | cycle, kind, wanders)
        settled = xp.where(near | one, 1, period)
        final = xp.where(near, nearest, state)
        final = xp.where(one, xp.inf, final)
        out.kind[here] = xp.astype(kind[leaves], xp.int8)
        out.period[here] = xp.astype(settled[leaves], xp.int64)
        out.log_odds[here] = final[leaves]
        out.low[here] = xp.where(near | one, final, low)[leaves]
        out.high[here] = xp.where(near | one, final, high)[leaves]
        out.steps[here] = done
        state, at = state[~leaves], at[~leaves]


def _period(xp: Any, dynamics: Recursion, orbit: Array) -> tuple[Array, Array, Array]:
    """Shortest attracting period at the end of an orbit of shape (steps+1, n), 0 if none, and the range it visits."""
    last = orbit[-1, ...]
    low, high, product = last, last, xp.ones_like(last)
    period = xp.zeros(last.shape, dtype=xp.int64, device=last.device)
    for k in range(1, min(LONGEST_PERIOD, orbit.shape[0] - 1) + 1):
        running = period == 0
        product = product * dynamics.multiplier(orbit[-k, ...])
        low = xp.where(running, xp.minimum(low, orbit[-k, ...]), low)
        high = xp.where(running, xp.maximum(high, orbit[-k, ...]), high)
        back = xp.abs(last - orbit[-1 - k, ...]) <= 1e-10 * (1 + xp.abs(last))
        period = xp.where(running & back & (xp.abs(product) < 1), k, period)
    return period, low, high

"""Where an orbit goes: to a fixed point, a cycle, p = 1, or nowhere regular."""

from __future__ import annotations

import dataclasses
import enum
import functools
import itertools
import math
from typing import Any

import numpy as np

from grpo_dynamics.arrays import Array, as_arrays, batch_shape, flat, map_options, option, quiet, require, take
from grpo_dynamics.logodds import logit, sigmoid
from grpo_dynamics.theory.fixed_points import Status, fixed_points
from grpo_dynamics.theory.flow import Flow, require_dynamics
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
            LimitKind.UNDECIDED: "has not settled after all steps",
            LimitKind.FIXED_POINT: "settles at a fixed point",
            LimitKind.CYCLE: "oscillates in a cycle",
            LimitKind.ONE: "goes to p = 1",
            LimitKind.IRREGULAR: "keeps wandering: neighbouring orbits drift apart",
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


def limit(
    dynamics: Recursion | Flow, p0: Array | None = None, max_steps: int = 20_000, log_odds0: Array | None = None
) -> Limit:
    """Return where the orbit, or the path of the flow, from p0 goes.

    A fixed point is recognised long before the orbit is there, so slow convergence costs nothing: either the map rises
    from the state all the way to the next fixed point ahead (the orbit then walks there), or it contracts on the
    interval around a stable fixed point that reaches to the state (Banach). A cycle is recognised when the orbit has
    returned after at most 64 steps, much closer than the cycle is wide. What is left is irregular if its Lyapunov
    exponent is positive, else undecided. A flow moves to the next fixed point in the direction of its rate, or to
    p = 1: no step is taken.

    Args:
        dynamics: a recursion or a flow, any shape.
        p0: where to start, in (0, 1), broadcasts with the options; p_ref if not given.
        max_steps: when to give up.
        log_odds0: the start in log-odds instead, where p0 would round to 1.

    Raises:
        ValueError: for a start or max_steps out of range, or both starts at once.

    >>> found = limit(Recursion(beta=5.0, p_ref=1e-3))
    >>> print(LimitKind(found.kind).name, found.period)
    CYCLE 2
    """
    require_dynamics(dynamics)
    if p0 is not None and log_odds0 is not None:
        raise ValueError(f"give p0 or log_odds0, not both (got p0={p0!r} and log_odds0={log_odds0!r})")
    if log_odds0 is None:
        p0 = dynamics.p_ref if p0 is None else option(p0)
        require("p0", p0, "a probability strictly between 0 and 1", lambda x: (x > 0) & (x < 1))
        batch_shape(dynamics, p0=p0)
        log_odds0 = logit(p0)
    else:
        log_odds0 = option(log_odds0)
        require("log_odds0", log_odds0, "a finite number", lambda x: abs(x) < float("inf"))
    if isinstance(max_steps, bool) or not isinstance(max_steps, int) or max_steps < 1:
        raise ValueError(f"max_steps must be an integer >= 1, got {max_steps!r}")
    if isinstance(dynamics, Flow):
        return _flow_limit(dynamics, log_odds0)
    shape = batch_shape(dynamics, log_odds0=log_odds0)
    size = math.prod(shape)
    xp, start = as_arrays(log_odds0, beside=dynamics)
    options = map_options(dynamics, lambda array: flat(xp.broadcast_to(array, shape)))
    points = fixed_points(options).log_odds
    points = xp.broadcast_to(xp.reshape(points, (points.shape[0], -1)), (points.shape[0], size))
    place: dict[str, Any] = {"device": start.device}
    state = xp.reshape(xp.broadcast_to(start, shape), (size,)) + 0.0
    out = _Records(
        kind=xp.zeros((size,), dtype=xp.int8, **place),
        period=xp.zeros((size,), dtype=xp.int64, **place),
        log_odds=state + 0.0,
        low=state + 0.0,
        high=state + 0.0,
        steps=xp.full((size,), max_steps, dtype=xp.int64, **place),
    )
    with np.errstate(all="ignore"):
        _follow(xp, options, state, points, out, max_steps)
    return Limit(**{f.name: xp.reshape(getattr(out, f.name), shape)[()] for f in dataclasses.fields(Limit)})


@quiet
def _flow_limit(flow: Flow, log_odds0: Array) -> Limit:
    """The next fixed point in the direction of the rate; where the start is one to rounding, that one."""
    shape = batch_shape(flow, log_odds0=log_odds0)
    xp, start = as_arrays(log_odds0, beside=flow)
    start = xp.broadcast_to(start, shape)
    found = fixed_points(flow)
    points = xp.broadcast_to(
        xp.reshape(found.log_odds, (-1, *(1 for _ in range(len(shape) - found.log_odds.ndim + 1)), *batch_shape(flow))),
        (found.log_odds.shape[0], *shape),
    )
    known, rate = ~xp.isnan(points), flow.rate(start)
    above = xp.min(xp.where(known & (points > start), points, xp.inf), axis=0)
    below = xp.max(xp.where(known & (points < start), points, -xp.inf), axis=0)
    rounding = 16 * xp.finfo(start.dtype).eps * (xp.abs(start) + xp.abs(points - start) + 1)
    near = known & (xp.abs(points - start) <= rounding)
    at = xp.max(xp.where(near, points, -xp.inf), axis=0)
    goal = xp.where(at > -xp.inf, at, xp.where(rate > 0, above, below))
    unknown = found.status == int(Status.NOT_CONVERGED)
    kind = xp.where(goal < xp.inf, int(LimitKind.FIXED_POINT), int(LimitKind.ONE))
    kind = xp.astype(xp.where(unknown, int(LimitKind.UNDECIDED), kind), xp.int8)
    goal = xp.where(unknown, start, goal)
    period = xp.where(unknown, 0, xp.ones(shape, dtype=xp.int64, device=start.device))
    return Limit(kind[()], period[()], goal[()], goal[()], goal[()], xp.zeros_like(period)[()])


@dataclasses.dataclass
class _Records:
    kind: Array
    period: Array
    log_odds: Array
    low: Array
    high: Array
    steps: Array


def _follow(xp: Any, options: Recursion, state: Array, points: Array, out: _Records, max_steps: int) -> None:
    """Iterate in chunks, short ones first; elements that are decided leave."""
    size = state.shape[0]
    at = xp.arange(size, device=state.device)  # which elements still run
    growth = xp.zeros_like(state)  # Σ log|multiplier| since half of the steps
    done, counted = 0, 0
    for chunk in itertools.chain((0, 2, 6, 24, 96), itertools.repeat(4 * LONGEST_PERIOD)):
        steps = min(chunk, max_steps - done)
        part = take(options, (size,), at) if at.shape[0] < size else options
        orbit = part._run(xp, state, steps)  # pyright: ignore[reportPrivateUsage]
        state, done = orbit[-1, ...], done + steps
        goal = _destination(xp, part, state, points[:, at])
        settled = ~xp.isnan(goal)
        period, low, high = _period(xp, part, orbit)
        cycle = ~settled & (period > 1)
        if done > max_steps // 2:
            counted += steps
            growth = growth + xp.sum(xp.log(xp.abs(part.multiplier(orbit[:steps, ...]))), axis=0)
        last = done >= max_steps
        leaves = settled | cycle | last
        here = at[leaves]
        kind = xp.where(xp.isinf(goal), int(LimitKind.ONE), int(LimitKind.FIXED_POINT))
        drifts = growth > 0.005 * counted
        other = xp.where(drifts & last, int(LimitKind.IRREGULAR), int(LimitKind.UNDECIDED))
        kind = xp.where(settled, kind, xp.where(cycle, int(LimitKind.CYCLE), other))
        for record, value in (
            (out.kind, xp.astype(kind, xp.int8)),
            (out.period, xp.where(settled, 1, xp.where(cycle, period, 0))),
            (out.log_odds, xp.where(settled, goal, state)),
            (out.low, xp.where(settled, goal, low)),
            (out.high, xp.where(settled, goal, high)),
        ):
            record[here] = value[leaves]
        out.steps[here] = done
        state, growth, at = state[~leaves], growth[~leaves], at[~leaves]
        if at.shape[0] == 0:
            return


def _destination(xp: Any, dynamics: Recursion, state: Array, points: Array) -> Array:
    """The fixed point, or inf, to which the orbit provably goes from here; NaN where neither argument applies."""
    turns = as_arrays(*dynamics.normalization.turns(), beside=dynamics)[1:]

    def least_and_most(low: Array, high: Array) -> tuple[Array, Array]:
        """Smallest and largest multiplier on [low, high]: at an end, or where dΩ/dL turns."""
        inner = [xp.minimum(xp.maximum(sign * t + 0.0 * low, low), high) for t in turns for sign in (-1.0, 1.0)]
        values = [dynamics.multiplier(x) for x in (low, high, *inner)]
        return functools.reduce(xp.minimum, values), functools.reduce(xp.maximum, values)

    # the map rises from the state to the next fixed point in the direction of the step: a monotone walk
    known = ~xp.isnan(points)
    above = xp.min(xp.where(known & (points > state), points, xp.inf), axis=0)
    below = xp.max(xp.where(known & (points < state), points, -xp.inf), axis=0)
    ahead = xp.where(dynamics.step(state) > state, above, below)
    least, _ = least_and_most(xp.minimum(state, ahead), xp.maximum(state, ahead))
    walks = (least >= 0) & (ahead > -xp.inf)

    # the map contracts around the nearest fixed point as far as the state
    gap = xp.where(known, xp.abs(points - state), xp.inf)
    nearest = xp.max(xp.where((gap == xp.min(gap, axis=0)) & known, points, -xp.inf), axis=0)
    reach = xp.abs(state - nearest)
    least, most = least_and_most(nearest - reach, nearest + reach)
    contracts = xp.isfinite(nearest) & (least > -1) & (most < 1)
    goes = xp.where(contracts, nearest, xp.where(walks, ahead, xp.nan))
    return xp.where(xp.isinf(state), state, goes)  # without smoothing an orbit can be at p = 1 already


def _period(xp: Any, dynamics: Recursion, orbit: Array) -> tuple[Array, Array, Array]:
    """Shortest attracting period at the end of an orbit of shape (steps+1, n), 0 if none, and the range it visits."""
    last = orbit[-1, ...]
    low, high, product = last, last, xp.ones_like(last)
    period = xp.zeros(last.shape, dtype=xp.int64, device=last.device)
    close = 3 * xp.finfo(last.dtype).eps ** (2 / 3)
    nearly = period > 0
    for k in range(1, min(LONGEST_PERIOD, orbit.shape[0] - 1) + 1):
        running = period == 0
        product = product * dynamics.multiplier(orbit[-k, ...])
        low = xp.where(running, xp.minimum(low, orbit[-k, ...]), low)
        high = xp.where(running, xp.maximum(high, orbit[-k, ...]), high)
        back = xp.abs(last - orbit[-1 - k, ...])
        # what is left to go, back/(1 − |product|), is small beside the width: no fixed point approached slowly
        found = (back <= close * (1 + xp.abs(last))) & (back < 0.01 * (1 - xp.abs(product)) * (high - low))
        period = xp.where(running & found & ~nearly, k, period)
        nearly = nearly | (back <= 100 * close * (1 + xp.abs(last)))  # at k, or soon: not of period 2k
    return period, low, high

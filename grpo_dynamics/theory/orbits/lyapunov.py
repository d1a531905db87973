"""Lyapunov exponents: how fast neighbouring orbits come together or drift apart on the attractor that is reached."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from grpo_dynamics.arrays import Array, as_arrays, block_size, blocks, flat, map_options, quiet, take
from grpo_dynamics.theory.orbits.limit import LimitKind, limit
from grpo_dynamics.theory.recursion import Recursion, require_recursion

BATCHES = 64
"""Batches whose scatter gives the standard error."""


@dataclasses.dataclass(frozen=True)
class Lyapunov:
    """Lyapunov exponents per element, each array of shape (*batch).

    Attributes:
        exponent: mean of log|dp_n/dp_{n−1}| over a long orbit, in nats per step: positive where neighbours drift apart.
        standard_error: of the exponent; 0 where the attractor is regular and the exponent exact.
        kind: a :class:`~grpo_dynamics.LimitKind` as int8: the attractor whose exponent it is.
        period: of a regular attractor, 0 otherwise.
    """

    exponent: Array
    standard_error: Array
    kind: Array
    period: Array


@quiet
def lyapunov(
    dynamics: Recursion,
    p0: Array | None = None,
    steps: int = 10_048,
    transient: int = 2_000,
    log_odds0: Array | None = None,
) -> Lyapunov:
    """Return the Lyapunov exponent of the attractor that the orbit from p0 reaches.

    At a fixed point or on a cycle it is log|multiplier|/period, taken from the point itself: −inf where it is
    superstable. Elsewhere it is the mean over the orbit, and the standard error comes from the scatter of the means of
    64 batches. In log-odds and in p the exponent is the same, except for orbits that go to p = 1: there it is that of
    p, −Ω(∞)/β for a mirror step and −inf where Ω is unbounded. No orbit is stored.

    Args:
        dynamics: a recursion, any shape.
        p0: where to start, in (0, 1), broadcasts with the options; p_ref if not given.
        steps: steps averaged over, at least 64; the last steps beyond a multiple of 64 are left out.
        transient: steps before the average, at least 1. An orbit that settles within them, or within as many after the
            average, gets the exact exponent of its limit.
        log_odds0: the start in log-odds instead, where p0 would round to 1.

    Raises:
        ValueError: for a start, steps or transient out of range, or both starts at once.

    Source: derived in docs/notebooks/6_bifurcations.

    >>> found = lyapunov(Recursion(beta=5.0, p_ref=[1e-3, 1e-4]), p0=0.1)
    >>> print(found.exponent.round(2), found.period)
    [-0.13  0.35] [2 0]
    """
    require_recursion(dynamics)
    for name, value, least in (("steps", steps, BATCHES), ("transient", transient, 1)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{name} must be an integer >= {least}, got {value!r}")
    found = limit(dynamics, p0, transient, log_odds0)
    shape, size = found.kind.shape, math.prod(found.kind.shape)
    xp, state = as_arrays(found.log_odds, beside=dynamics)
    options = map_options(dynamics, lambda array: flat(xp.broadcast_to(array, shape)))
    kind, period, state = (xp.reshape(xp.asarray(x), (size,)) + 0 for x in (found.kind, found.period, state))
    exponent, error = xp.zeros_like(state), xp.zeros_like(state)

    wanders = (kind == int(LimitKind.UNDECIDED)) | (kind == int(LimitKind.IRREGULAR))
    at = xp.nonzero(wanders)[0]
    for (part,) in blocks((at.shape[0],), block_size(xp)):
        some = at[part]
        system = take(options, (size,), some)
        exponent[some], error[some], last = _average(xp, system, state[some], steps // BATCHES)
        after = limit(system, max_steps=transient, log_odds0=xp.where(xp.isinf(last), 700.0, last))
        kind[some], period[some] = after.kind, after.period
        state[some] = xp.where(xp.isinf(last), last, after.log_odds)

    regular = (kind != int(LimitKind.UNDECIDED)) & (kind != int(LimitKind.IRREGULAR))
    at = xp.nonzero(regular)[0]
    exponent[at] = _of_limit(xp, take(options, (size,), at), kind[at], period[at], state[at])
    error[at] = 0.0
    return Lyapunov(*(xp.reshape(x, shape)[()] for x in (exponent, error, kind, period)))


def _average(xp: Any, dynamics: Recursion, state: Array, length: int) -> tuple[Array, Array, Array]:
    """Mean of log|multiplier| over batches of this length, its standard error, and the last state."""
    step = dynamics._stepper(state)  # pyright: ignore[reportPrivateUsage]
    mean, squares = xp.zeros_like(state), xp.zeros_like(state)
    for batch in range(BATCHES):
        total = xp.zeros_like(state)
        for _ in range(length):
            total = total + xp.log(xp.abs(dynamics.multiplier(state)))
            state = step(state)
        change = total / length - mean
        mean = mean + change / (batch + 1)
        squares = squares + change * (total / length - mean)
    return mean, xp.sqrt(squares / (BATCHES * (BATCHES - 1))), state


def _of_limit(xp: Any, dynamics: Recursion, kind: Array, period: Array, state: Array) -> Array:
    """log|multiplier|/period of fixed points and cycles; the rate at which 1−p shrinks at p = 1."""
    longest = int(xp.max(period)) if period.shape[0] else 0
    step = dynamics._stepper(state)  # pyright: ignore[reportPrivateUsage]
    at_one = kind == int(LimitKind.ONE)
    state = xp.where(at_one, 0.0, state)
    # a few turns more: the limit recognises a cycle long before the orbit is exactly there
    for _ in range(8 * longest if longest > 1 else 0):
        state = xp.where(period > 1, step(state), state)
    total = xp.zeros_like(state)
    for i in range(longest):
        total = total + xp.where(i < period, xp.log(xp.abs(dynamics.multiplier(state))), 0.0)
        state = step(state)
    _, beta, gap = as_arrays(dynamics.beta, dynamics.normalization.gap(xp.inf), beside=dynamics)
    return xp.where(at_one, -gap / beta, total / xp.where(period > 0, period, 1))

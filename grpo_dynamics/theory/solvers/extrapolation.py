"""Many independent equations dL/dt = rate(L) at once, each with its own step, by extrapolation.

The method of Gragg, Bulirsch and Stoer: the modified midpoint rule with 2, 4, …, 16 substeps, extrapolated to substeps
of length 0, has order 16. Every element has its own step, and leaves when its time is over or it is at rest.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from grpo_dynamics.arrays import Array, as_arrays, batch_shape, flat, map_options, take

SUBSTEPS = (2, 4, 6, 8, 10, 12, 14, 16)

Rate = Callable[[Any, Array], tuple[Array, Array]]
"""Of the options and L: dL/dt, and what counts as none."""


def follow(options: Any, rate_of: Rate, log_odds0: Array, times: list[float]) -> Array:
    """Return the states at ascending times ≥ 0, shape (len(times), *batch), from log_odds0 at time 0."""
    shape = batch_shape(options, log_odds0=log_odds0)
    size = math.prod(shape)
    xp, start = as_arrays(log_odds0, beside=options)
    options = map_options(options, lambda array: flat(xp.broadcast_to(array, shape)))
    state = xp.reshape(xp.broadcast_to(start, shape), (size,)) + 0.0
    step = xp.full((size,), xp.inf, dtype=state.dtype, device=state.device)
    path = xp.empty((len(times), size), dtype=state.dtype, device=state.device)
    now = 0.0
    with np.errstate(all="ignore"):
        for i, time in enumerate(times):
            state, step = _advance(xp, options, rate_of, state, step, time - now)
            path[i, ...], now = state, time
    return xp.reshape(path, (len(times), *shape))


def _advance(xp: Any, options: Any, rate_of: Rate, state: Array, step: Array, time: float) -> tuple[Array, Array]:
    """The states after ``time``, and the step that each would take next."""
    state, step = state + 0.0, step + 0.0
    tiny = float(xp.finfo(state.dtype).eps)
    size = state.shape[0]
    left = xp.full((size,), time, dtype=state.dtype, device=state.device)
    at = xp.nonzero(left > 0)[0]
    while at.shape[0] > 0:
        part, here, remaining = take(options, (size,), at), state[at], left[at]
        rate, none = rate_of(part, here)
        # at rest: there is no rate, or it is too small to move L in all the time that is left
        rest = (xp.abs(rate) <= none) | (xp.abs(rate) * remaining <= 0.25 * tiny * xp.abs(here))
        h = xp.minimum(xp.minimum(step[at], remaining), 2 / xp.abs(rate))
        new, error = _extrapolated(xp, lambda x, part=part: rate_of(part, x)[0], here, rate, h)
        allowed = 500 * tiny * (1 + xp.abs(here))
        good = error <= allowed  # False for NaN
        growth = 0.9 * (allowed / xp.where(error > 0, error, 1e-30)) ** (1 / (2 * len(SUBSTEPS) - 1))
        growth = xp.where(growth > 0.1, xp.where(growth < 4.0, growth, 4.0), 0.1)
        state[at] = xp.where(good & ~rest, new, here)
        left[at] = xp.where(rest, 0.0, xp.where(good, remaining - h, remaining))
        step[at] = xp.where(rest, step[at], h * growth)
        at = at[left[at] > 0]
    return state, step


def _extrapolated(
    xp: Any, rate_of: Callable[[Array], Array], start: Array, rate: Array, h: Array
) -> tuple[Array, Array]:
    """The state after h, and the difference of the two best extrapolations: more than its error."""
    row: list[Array] = []
    for n in SUBSTEPS:
        width = h / n
        before, here = start, start + width * rate
        for _ in range(n - 1):
            before, here = here, before + 2 * width * rate_of(here)
        column = [0.5 * (before + here + width * rate_of(here))]
        for k, old in enumerate(row):  # Neville's scheme in (h/n)²
            ratio = (n / SUBSTEPS[len(row) - 1 - k]) ** 2
            column.append(column[k] + (column[k] - old) / (ratio - 1))
        row = column
    return row[-1], xp.abs(row[-1] - row[-2])

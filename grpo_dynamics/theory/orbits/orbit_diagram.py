"""The orbit diagram of a sweep: branches of fixed points and cycles, the attractors beside them, their exponents."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from grpo_dynamics.arrays import Array, batch_shape, option, quiet, require
from grpo_dynamics.logodds import complement, logit, sigmoid
from grpo_dynamics.theory.orbits.cycle_search import turning_points
from grpo_dynamics.theory.orbits.cycles import cycles, in_numpy
from grpo_dynamics.theory.orbits.limit import LimitKind, limit
from grpo_dynamics.theory.orbits.lyapunov import lyapunov
from grpo_dynamics.theory.recursion import Recursion, require_recursion

if TYPE_CHECKING:
    import polars as pl

HIGHEST_START = 1e3
"""Log-odds from which the orbit of p = 1 is started where its first step is no number, or none that p = 1 bounds."""

Floats = np.ndarray[Any, Any]


@dataclasses.dataclass(frozen=True)
class OrbitDiagram:
    """Three tidy tables, polars DataFrames, for a picture of a sweep. All begin with system, beta, p_ref, alpha.

    Attributes:
        branches: a row per point of a fixed point or cycle: period, cycle (which of the system's), place on it,
            log_odds, p, one_minus_p, multiplier, stable.
        attractors: a row per point of what a start reaches: start, kind, period, place, log_odds, p, one_minus_p. One
            row for a fixed point or p = 1, ``period`` rows for a cycle, ``samples`` consecutive states otherwise.
        exponents: a row per start: start, kind, period, exponent, standard_error.
    """

    branches: pl.DataFrame
    attractors: pl.DataFrame
    exponents: pl.DataFrame


@quiet
def orbit_diagram(
    dynamics: Recursion,
    period: int = 4,
    p0: Array | None = None,
    samples: int = 200,
    steps: int = 4_096,
    transient: int = 2_000,
) -> OrbitDiagram:
    """Return what the picture of a sweep needs, over a one-dimensional batch of systems.

    Args:
        dynamics: a recursion of shape (n,), such as a sweep of β or p_ref.
        period: the longest cycles whose branches are listed, as in :func:`~grpo_dynamics.cycles`.
        p0: starts, each a probability in (0, 1); the critical points of the step, p = 1 among them, if not given: for
            exact GRPO their orbits find every attractor.
        samples: consecutive states listed where a start reaches neither a fixed point nor a cycle, at least 1.
        steps: steps over which Lyapunov exponents are averaged, at least 64.
        transient: steps before anything is listed, at least 1.

    Raises:
        ValueError: for another shape, or a value out of range.

    Source: derived in docs/notebooks/6_bifurcations.

    >>> diagram = orbit_diagram(Recursion(5.0, [1e-2, 1e-3]), period=2)
    >>> diagram.attractors.filter(system=1, kind="CYCLE")["p"].round(6).to_list()
    [0.002338, 0.058716]
    """
    import polars as pl  # a sixth of a second to import

    require_recursion(dynamics)
    shape = batch_shape(dynamics)
    if len(shape) != 1:
        raise ValueError(f"dynamics must be a one-dimensional batch of systems, got shape {shape}")
    if isinstance(samples, bool) or not isinstance(samples, int) or samples < 1:
        raise ValueError(f"samples must be an integer >= 1, got {samples!r}")
    if isinstance(transient, bool) or not isinstance(transient, int) or transient < 1:
        raise ValueError(f"transient must be an integer >= 1, got {transient!r}")
    here = in_numpy(dynamics, shape)
    starts = _critical_starts(here, shape[0]) if p0 is None else _given_starts(option(p0), shape[0])
    options = {
        name: np.broadcast_to(np.asarray(getattr(here, name), dtype=np.float64), shape)
        for name in ("beta", "p_ref", "alpha")
    }

    def table(system: Floats, **columns: Any) -> pl.DataFrame:
        return pl.DataFrame({"system": system, **{k: v[system] for k, v in options.items()}, **columns})

    return OrbitDiagram(
        table(**_branches(here, period)),
        table(**_attractors(here, starts, samples, transient)),
        table(**_exponents(here, starts, steps, transient)),
    )


def _given_starts(p0: Any, size: int) -> Floats:
    require("p0", p0, "a probability strictly between 0 and 1", lambda x: (x > 0) & (x < 1))
    return np.repeat(np.reshape(logit(p0), (-1, 1)), size, axis=1)


def _critical_starts(dynamics: Recursion, size: int) -> Floats:
    """The turning points, and the first step from p = 1, shape (starts, size)."""
    first = np.asarray(dynamics.step(np.inf))
    all_turning = turning_points(dynamics)
    turning = all_turning[:1]
    for point in all_turning[1:]:  # two that do not exist are one point
        if not np.array_equal(point, turning[-1]):
            turning.append(point)
    starts = [*turning, np.where(np.abs(first) < HIGHEST_START, first, HIGHEST_START)]
    return np.stack([np.clip(x, -HIGHEST_START, HIGHEST_START) + np.zeros(size) for x in starts])


def _place(log_odds: Floats) -> dict[str, Floats]:
    return {"log_odds": log_odds, "p": sigmoid(log_odds), "one_minus_p": complement(log_odds)}


def _branches(dynamics: Recursion, period: int) -> dict[str, Any]:
    found = cycles(dynamics, period)
    system, cycle, place = np.nonzero(np.isfinite(np.transpose(found.log_odds, (2, 0, 1))))
    return {
        "system": system,
        "period": found.period[cycle, system],
        "cycle": cycle,
        "place": place,
        **_place(found.log_odds[cycle, place, system]),
        "multiplier": found.multiplier[cycle, system],
        "stable": found.stable[cycle, system],
    }


def _names(kind: Floats) -> list[str]:
    return [LimitKind(int(k)).name for k in kind]


def _attractors(dynamics: Recursion, starts: Floats, samples: int, transient: int) -> dict[str, Any]:
    found = limit(dynamics, max_steps=transient, log_odds0=starts)
    length = np.where(found.period > 0, found.period, samples)
    state = np.where(np.isfinite(found.log_odds), found.log_odds, HIGHEST_START)
    orbit = dynamics.iterate(int(length.max(initial=1)) - 1, log_odds0=state).log_odds
    orbit[0] = found.log_odds  # p = 1 stays where it is
    # from the lowest point of a cycle
    cyclic = found.kind == LimitKind.CYCLE
    inside = np.arange(orbit.shape[0]).reshape(-1, 1, 1) < length
    first = np.where(cyclic, np.argmin(np.where(inside, orbit, np.inf), axis=0), 0)
    system, start, place = np.nonzero(np.transpose(inside, (2, 1, 0)))
    turned = (place + first[start, system]) % length[start, system]
    return {
        "system": system,
        "start": start,
        "kind": _names(found.kind[start, system]),
        "period": found.period[start, system],
        "place": place,
        **_place(orbit[turned, start, system]),
    }


def _exponents(dynamics: Recursion, starts: Floats, steps: int, transient: int) -> dict[str, Any]:
    found = lyapunov(dynamics, steps=steps, transient=transient, log_odds0=starts)
    start, system = (index.ravel() for index in np.indices(starts.shape))
    order = np.lexsort((start, system))
    start, system = start[order], system[order]
    return {
        "system": system,
        "start": start,
        "kind": _names(found.kind[start, system]),
        "period": found.period[start, system],
        "exponent": found.exponent[start, system],
        "standard_error": found.standard_error[start, system],
    }

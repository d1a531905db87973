"""The atlas of a setting: what becomes of a question for every β and p_ref, and along a line through that plane."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl

from grpo_dynamics.arrays import Array
from grpo_dynamics.logodds import logit, sigmoid
from grpo_dynamics.normalization import Normalization
from grpo_dynamics.theory.bifurcation import cusp, flip_curve, fold_curve
from grpo_dynamics.theory.fixed_points import fixed_points
from grpo_dynamics.theory.orbits.limit import LimitKind, limit
from grpo_dynamics.theory.orbits.orbit_diagram import orbit_diagram
from grpo_dynamics.theory.recursion import Recursion
from grpo_dynamics.theory.regimes import Regime, regime

Told = Callable[[int, int, str], None]
"""Called with (done, total, what is next)."""

END_STEPS = 2_000
"""Steps after which an orbit that has neither settled nor come round is called as it is then."""


def plane(
    normalization: Normalization,
    alpha: float,
    beta: Array,
    log_odds_ref: Array,
    ends: bool = True,
    tell: Told = lambda done, total, what: None,
) -> pl.DataFrame:
    """Return what becomes of a question at every crossing of a grid.

    Args:
        normalization: how rewards become advantages.
        alpha: KL anchor in [0, 1].
        beta: KL strengths, shape (m,), ascending.
        log_odds_ref: log-odds of the reference's success probability, shape (n,), ascending.
        ends: whether to follow the orbit from p_ref as well.
        tell: told how many of the m rows are done.

    Returns:
        Columns beta, log_odds_ref, p_ref, regime (the name of a :class:`~grpo_dynamics.theory.regimes.Regime`),
        attractors (how many), highest (log-odds of the highest stable fixed point, inf where p = 1 attracts), and with
        ``ends`` where the orbit from p_0 = p_ref goes: end (the name of a :class:`~grpo_dynamics.LimitKind`), end_low
        and end_high (log-odds). m·n rows, β by β.

    Raises:
        ValueError: for options out of range.

    >>> from grpo_dynamics import Whitened
    >>> table = plane(Whitened(), 1.0, np.array([1.0, 5.0]), np.array([-6.9, -1.4]))
    >>> table["regime"].to_list()
    ['CHAOTIC', 'BISTABLE', 'OSCILLATING', 'BISTABLE']
    """
    rows: list[pl.DataFrame] = []
    p_ref = sigmoid(log_odds_ref)
    band = max(1, 4096 // len(p_ref))  # rows at once: enough for the arrays to be worth it, few enough to report
    for first in range(0, len(beta), band):
        tell(first, len(beta), "regimes")
        part = beta[first : first + band]
        dynamics = Recursion(part[:, None], p_ref, normalization, alpha)
        found, points = regime(dynamics), fixed_points(dynamics)
        highest = np.max(np.where(points.stable, points.log_odds, -np.inf), axis=0)
        one = (found.label == Regime.SATURATING) | (
            (found.label == Regime.BISTABLE) & (found.count > points.stable.sum(axis=0))
        )
        columns: dict[str, Any] = {
            "beta": np.repeat(part, len(p_ref)),
            "log_odds_ref": np.tile(log_odds_ref, len(part)),
            "p_ref": np.tile(p_ref, len(part)),
            "regime": [Regime(label).name for label in found.label.ravel().tolist()],
            "attractors": found.count.ravel(),
            "highest": np.where(one, np.inf, np.where(np.isinf(highest), np.nan, highest)).ravel(),
        }
        if ends:
            end = limit(dynamics, max_steps=END_STEPS)
            columns |= {
                "end": [LimitKind(kind).name for kind in end.kind.ravel().tolist()],
                "end_low": end.low.ravel(),
                "end_high": end.high.ravel(),
            }
        rows.append(pl.DataFrame(columns))
    tell(len(beta), len(beta), "regimes")
    return pl.concat(rows)


def boundaries(normalization: Normalization, alpha: float, low: float, high: float) -> pl.DataFrame:
    """Return the lines where fixed points are born, merge or begin to oscillate, for β from ``low`` to ``high``.

    Returns:
        Columns kind ("fold", "flip" or "cusp"), branch, log_odds (of the fixed point), beta, log_odds_ref, p_ref, in
        the order of the line; empty where there are none.

    >>> from grpo_dynamics import Whitened
    >>> cusp = boundaries(Whitened(), 1.0, 0.1, 100.0).filter(kind="cusp")
    >>> print(cusp["beta"].round(3).item())
    60.856
    """
    curves = {
        "fold": fold_curve(normalization, alpha, (low, high)),
        "flip": flip_curve(normalization, alpha, (low, high)),
        "cusp": cusp(normalization, alpha),
    }
    tables: list[pl.DataFrame] = []
    for kind, curve in curves.items():
        names = ("branch", "log_odds", "beta", "log_odds_ref", "p_ref")
        table = pl.DataFrame({name: getattr(curve, name) for name in names})
        tables.append(table.select(pl.lit(kind).alias("kind"), pl.all()))
    inside = pl.col("beta").is_between(low * (1 - 1e-9), high * (1 + 1e-9))  # ends are attained in rounding
    return pl.concat(tables).filter(inside)


def line(dynamics: Recursion, samples: int = 160) -> pl.DataFrame:
    """Return the orbit diagram along a line of systems: fixed points, cycles of two, what is visited, exponents.

    Args:
        dynamics: a recursion of shape (n,).
        samples: points of an orbit that does not come round.

    Returns:
        Columns kind, beta, log_odds_ref, p_ref, log_odds, p, period, slot, stable, exponent, standard_error.
        "branch" rows are points of fixed points (period 1) and cycles of period 2, ``slot`` numbers those of one period
        from low to high; "visited" rows are the points of the orbit from p = ½ in the long run; "exponent" rows have
        its Lyapunov exponent and period.

    Raises:
        ValueError: for another shape.
    """
    diagram = orbit_diagram(dynamics, period=2, p0=0.5, samples=samples, steps=8_192)
    branch = diagram.branches.sort("system", "period", "log_odds")
    branch = branch.with_columns(slot=pl.int_range(pl.len()).over("system", "period"))
    parts = {"branch": branch, "visited": diagram.attractors, "exponent": diagram.exponents}
    table = pl.concat([part.with_columns(kind=pl.lit(kind)) for kind, part in parts.items()], how="diagonal_relaxed")
    reference = pl.Series("log_odds_ref", logit(table["p_ref"].to_numpy()))
    return table.with_columns(reference).select(
        "kind",
        "beta",
        "log_odds_ref",
        "p_ref",
        "log_odds",
        "p",
        "period",
        "slot",
        "stable",
        "exponent",
        "standard_error",
    )

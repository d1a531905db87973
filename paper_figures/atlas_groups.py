"""How the phase diagram grows out of nothing with the group size; ε = 0, and 1e-5 for exact statistics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from grpo_dynamics import FiniteGroup, LimitKind, Recursion, Whitened, fixed_points, limit, logit, sigmoid
from grpo_dynamics.atlas import boundaries
from grpo_dynamics.atlas_plots import boundary_handles, draw_boundaries, draw_plane, fate_handles
from grpo_dynamics.plotting import new_figure, styled
from grpo_dynamics.theory.regimes import Regime, regime

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from grpo_dynamics import FixedPoints, Normalization

BETA = (0.05, 30.0)
HARDEST, EASIEST = float(logit(1e-7)), float(logit(0.99))
INFINITE = 0
"""Group size that stands for exact statistics in the table."""
SIZES = (2, 4, 8, 16, 64, INFINITE)


def normalization(group_size: int) -> Normalization:
    return Whitened(1e-5) if group_size == INFINITE else FiniteGroup(group_size)


def data(size: int = 81) -> pl.DataFrame:
    """Columns kind, group_size, beta, log_odds_ref, p_ref, regime, highest, and those of ``boundaries``; 0 is G = ∞.

    Rows of kind "grid" have the name of the regime and the log-odds of the highest stable fixed point. Cycles and chaos
    of groups are what the orbit of p = ½, the minimum of the map, goes to.
    """
    beta, reference = np.geomspace(*BETA, size), np.linspace(HARDEST, EASIEST, size)
    columns = {"beta": np.repeat(beta, size), "log_odds_ref": np.tile(reference, size)}
    columns["p_ref"] = sigmoid(columns["log_odds_ref"])
    tables: list[pl.DataFrame] = []
    for group_size in SIZES:
        recursion = Recursion(columns["beta"], columns["p_ref"], normalization(group_size))
        points = fixed_points(recursion)
        highest = np.max(np.where(points.stable, points.log_odds, -np.inf), axis=0)
        grid = pl.DataFrame({**columns, "regime": labels(recursion, points), "highest": highest}).with_columns(
            kind=pl.lit("grid")
        )
        both = pl.concat([grid, boundaries(normalization(group_size), 1.0, 1e-3, 1e3)], how="diagonal")
        tables.append(both.select(pl.col("kind"), pl.lit(group_size).alias("group_size"), pl.exclude("kind")))
    return pl.concat(tables)


def labels(recursion: Recursion, points: FixedPoints) -> Any:
    """Return the name of each regime: of groups by one orbit, quicker than ``regime``, which decides what is left."""
    if isinstance(recursion.normalization, Whitened):
        return [Regime(label).name for label in regime(recursion).label.tolist()]
    kind = limit(recursion, p0=0.5, max_steps=2000).kind
    slow = (kind == LimitKind.UNDECIDED) & ~points.stable[0]  # at a stable point it only takes its time
    choices = [kind == LimitKind.CYCLE, kind == LimitKind.IRREGULAR, points.stable.sum(axis=0) > 1]
    codes = np.select(choices, [Regime.OSCILLATING, Regime.CHAOTIC, Regime.BISTABLE], Regime.ONE_STABLE)
    left = Recursion(recursion.beta[slow], recursion.p_ref[slow], recursion.normalization)
    codes[slow] = regime(left).label
    return [Regime(code).name for code in codes.tolist()]


@styled
def draw(table: pl.DataFrame) -> Figure:
    figure = new_figure(8.0, 5.9)
    panels = figure.subplots(2, 3, sharex=True, sharey=True)
    keys: list[np.ndarray[Any, Any]] = []
    for axes, group_size in zip(panels.ravel(), SIZES, strict=True):
        part = table.filter(group_size=group_size)
        keys.append(draw_plane(axes, part.filter(kind="grid"), most=5))
        draw_boundaries(axes, part.filter(pl.col("kind") != "grid"), 1.0)
        cusp = part.filter(kind="cusp")["beta"].to_list()
        name = f"$G={group_size}$" if group_size else r"$G=\infty$"
        axes.set_title(f"{name}:  one state for " + (rf"$\beta>{cusp[0]:.2g}$" if cusp else r"every $\beta$"))
        axes.set_xlabel(axes.get_xlabel() if group_size == SIZES[4] else "")
        axes.set_ylabel(axes.get_ylabel() if group_size in (SIZES[0], SIZES[3]) else "")
    handles = [*fate_handles(np.stack(keys), 1e-4), *boundary_handles(table.filter(pl.col("kind") != "grid"))]
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    figure.suptitle("Small groups are calm: the phase diagram by group size $G$", fontsize=10)
    return figure

"""Figure 5: p_n for n = 0 … 50 from p_0 = 0.1, at six β and four p_ref; ε = 1e-5."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from grpo_dynamics import fixed_points, grpo
from grpo_dynamics.plotting import BLUE, GREEN, GREY, VERMILION, line_fixed_points, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BETAS = (0.01, 0.2, 0.4, 0.8, 1.0, 5.0)
P_REFS = (0.0001, 0.2, 0.5, 0.8)
STEPS, START = 50, 0.1


def data() -> pl.DataFrame:
    """Columns beta, p_ref, kind, n, p, stable; kind is "orbit" (n = 0 … 50) or "fixed point" (n empty)."""
    beta, p_ref = np.meshgrid(BETAS, P_REFS, indexing="ij")
    recursion = grpo(beta, p_ref)
    orbit, fixed = recursion.iterate(STEPS, p0=START).p, fixed_points(recursion)
    tables = []
    for index in np.ndindex(beta.shape):
        place = {"beta": pl.lit(beta[index]), "p_ref": pl.lit(p_ref[index])}
        steps = pl.DataFrame({"n": np.arange(STEPS + 1), "p": orbit[:, *index]})
        points = pl.DataFrame({"p": fixed.p[:, *index], "stable": fixed.stable[:, *index]})[: fixed.count[index]]
        tables += [
            steps.with_columns(**place, kind=pl.lit("orbit")),
            points.with_columns(**place, kind=pl.lit("fixed point")),
        ]
    return pl.concat(tables, how="diagonal").select("beta", "p_ref", "kind", "n", "p", "stable")


@styled
def draw(table: pl.DataFrame) -> Figure:
    from matplotlib.lines import Line2D

    figure = new_figure(6.9, 8.0)
    grid = figure.subplots(len(BETAS), len(P_REFS), sharex=True, sharey=True)
    for row, beta in enumerate(BETAS):
        for column, p_ref in enumerate(P_REFS):
            axes = grid[row, column]
            part = table.filter(pl.col("beta") == beta, pl.col("p_ref") == p_ref)
            orbit, points = part.filter(kind="orbit"), part.filter(kind="fixed point")
            line_fixed_points(axes, points["p"].to_numpy(), points["stable"].to_numpy())
            axes.axhline(p_ref, color=GREY, lw=0.9, ls=":")
            axes.plot(orbit["n"], orbit["p"], "-o", color=BLUE, lw=0.8, ms=2.2, clip_on=False, zorder=3)
            axes.set_title(f"$p_{{50}}={orbit['p'][-1]:.4f}$", loc="right", fontsize=8, pad=3)
            if row == 0:
                axes.annotate(rf"$p_{{\mathrm{{ref}}}}={p_ref:g}$", (0.5, 1), (0, 18), "axes fraction", "offset points",
                              ha="center", va="bottom", fontsize=9.5)  # fmt: skip
            if column == 0:
                axes.set_ylabel(rf"$\beta={beta:g}$" + "\n$p_n$", fontsize=9.5)
    for axes in grid[-1]:
        axes.set_xlabel("iteration $n$")
    grid[0, 0].set(xlim=(-1, 51), ylim=(-0.04, 1.04), yticks=[0, 0.5, 1])
    handles = [
        Line2D([], [], color=BLUE, marker="o", ms=2.2, lw=0.8, label="orbit from $p_0=0.1$"),
        Line2D([], [], color=GREEN, lw=0.9, label="stable $p^*$"),
        Line2D([], [], color=VERMILION, lw=0.9, ls=(0, (4, 2.5)), label="unstable $p^*$"),
        Line2D([], [], color=GREY, lw=0.9, ls=":", label=r"$p_{\mathrm{ref}}$"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    return figure

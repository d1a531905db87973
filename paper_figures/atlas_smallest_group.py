"""How large a group must be before the map folds or flips, for every β and p_ref; ε = 0."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from grpo_dynamics import FiniteGroup, logit, sigmoid
from grpo_dynamics.atlas_plots import plane_axes
from grpo_dynamics.plotting import new_figure, styled
from grpo_dynamics.theory.bifurcation import fold_points

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BETA = (0.08, 2.5)
HARDEST, EASIEST = float(logit(1e-7)), float(logit(0.9))
LARGEST = 64
STEPS = (4, 6, 8, 12, 16, 24, 32, 48, LARGEST)
"""Ends of the colours."""


def data(size: int = 121) -> pl.DataFrame:
    """Columns beta, log_odds_ref, p_ref, three_points, overshoots: the smallest G up to 64, null where there is none.

    ``three_points``: p_ref lies between the folds, so there are three fixed points. ``overshoots``: it lies between the
    flips, so the lowest of them is unstable. Every G is tried, for neither is monotone in G.
    """
    beta, reference = np.geomspace(*BETA, size), np.linspace(HARDEST, EASIEST, size)
    smallest = {name: np.zeros((size, size), np.int64) for name in ("three_points", "overshoots")}
    for group_size in range(2, LARGEST + 1):
        folds = fold_points(beta, FiniteGroup(group_size))
        references = folds.log_odds_ref
        # flips are the folds mirrored at p = ½, where Ω is the same
        for name, ends in (("three_points", references), ("overshoots", references - 2 * folds.log_odds)):
            low, high = np.min(ends, axis=0)[:, None], np.max(ends, axis=0)[:, None]  # NaN where there is none
            inside = (reference > low) & (reference < high)
            smallest[name] = np.where((smallest[name] == 0) & inside, group_size, smallest[name])
    columns = {"beta": np.repeat(beta, size), "log_odds_ref": np.tile(reference, size)}
    columns["p_ref"] = sigmoid(columns["log_odds_ref"])
    table = pl.DataFrame({**columns, **{name: found.ravel() for name, found in smallest.items()}})
    return table.with_columns(pl.when(pl.col(name) > 0).then(pl.col(name)).alias(name) for name in smallest)


@styled
def draw(table: pl.DataFrame) -> Figure:
    import matplotlib as mpl
    from matplotlib.colors import BoundaryNorm

    figure = new_figure(8.0, 3.9)
    panels = figure.subplots(1, 2, sharey=True)
    cells = table.sort("beta", "log_odds_ref")
    beta, reference = (cells[name].unique().sort().to_numpy() for name in ("beta", "log_odds_ref"))
    colors = mpl.colormaps["viridis_r"].with_extremes(bad="#F0F0F0")
    norm = BoundaryNorm([step + 0.5 for step in STEPS], colors.N)
    mesh: Any = None
    for axes, name, title in zip(
        panels,
        ("three_points", "overshoots"),
        ("Two states to choose from (three fixed points)", "The low state overshoots (it is unstable)"),
        strict=True,
    ):
        found = cells[name].cast(pl.Float64).fill_null(np.nan).to_numpy().reshape(len(beta), len(reference))
        mesh = axes.pcolormesh(reference, beta, np.ma.masked_invalid(found), cmap=colors, norm=norm, rasterized=True)
        plane_axes(axes, beta, reference, most=6)
        axes.set_title(title)
        axes.text(reference[0] + 0.4, 2.1, f"not with any $G$ up to {LARGEST}", va="center")
    panels[1].set_ylabel("")
    bands = list(itertools.pairwise(STEPS))
    bar = figure.colorbar(mesh, ax=panels, pad=0.02, ticks=[(low + high + 1) / 2 for low, high in bands])
    bar.ax.set_yticklabels([f"{low + 1}–{high}" for low, high in bands])
    bar.ax.tick_params(length=0)
    bar.set_label("smallest group size $G$")
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    figure.suptitle("How large must a group be to lose its calm?", fontsize=10)
    return figure

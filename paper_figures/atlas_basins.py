"""Which start goes where: the plane of p_ref and p_0, coloured by the attractor that is reached; ε = 1e-5."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from grpo_dynamics import Whitened, fixed_points, grpo, limit, logit, sigmoid
from grpo_dynamics.atlas_plots import CHAOS, LOWER, OSCILLATION, SOLVED, UNDECIDED, UNSTABLE
from grpo_dynamics.plotting import BLACK, GREY, new_figure, probability_axis, styled
from grpo_dynamics.theory.orbits.limit import LimitKind

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

EPS = 1e-5
BETAS = (1.0, 5.0)
HARDEST, EASIEST = float(logit(1e-5)), float(logit(0.9))
START = float(logit(1e-6))

FATES = {
    "low": (LOWER, "the lower fixed point"),
    "cycle": (OSCILLATION, "a cycle around it"),
    "chaos": (CHAOS, "irregular, for ever"),
    "high": (SOLVED, "the upper fixed point, $p\\approx1$"),
    "undecided": (UNDECIDED, "undecided"),
}


def data(size: int = 241) -> pl.DataFrame:
    """Columns kind, beta, log_odds_ref, p_ref, log_odds_0, fate, log_odds.

    Rows of kind "start" are a grid of starts with their fate: "low", "cycle", "chaos", "high" (beyond the fold at which
    the upper fixed point is born) or "undecided". Rows of kind "low", "middle" and "high" are the fixed points, their
    ``fate`` "stable" or "unstable". Starts above the middle one go up. As Ω(L) = Ω(−L), those below its mirror image
    take the same first step.
    """
    reference, start = np.linspace(HARDEST, EASIEST, size), np.linspace(START, -START, size)
    tables: list[pl.DataFrame] = []
    for beta in BETAS:
        recursion = grpo(beta, sigmoid(reference), EPS)
        end = limit(recursion, log_odds0=start[:, None], max_steps=3000)
        fold = Whitened(EPS).folds(beta)[1]
        settled = end.kind == LimitKind.FIXED_POINT
        fate = np.select(
            [settled & (end.log_odds > fold), settled, end.kind == LimitKind.CYCLE, end.kind == LimitKind.IRREGULAR],
            ["high", "low", "cycle", "chaos"],
            "undecided",
        )
        columns = {
            "log_odds_ref": np.broadcast_to(reference, fate.shape).ravel(),
            "log_odds_0": np.repeat(start, size),
            "fate": fate.ravel(),
        }
        tables.append(pl.DataFrame(columns).with_columns(kind=pl.lit("start"), beta=pl.lit(beta)))
        tables.append(_fixed_points(beta, reference, fold))
    table = pl.concat(tables, how="diagonal")
    p_ref = pl.Series("p_ref", sigmoid(table["log_odds_ref"].to_numpy()))
    return table.with_columns(p_ref).select("kind", "beta", "log_odds_ref", "p_ref", "log_odds_0", "fate", "log_odds")


def _fixed_points(beta: float, reference: Any, fold: Any) -> pl.DataFrame:
    found = fixed_points(grpo(beta, sigmoid(reference), EPS))
    slot = np.arange(3)[:, None]
    kind = np.where(found.log_odds > fold, "high", np.where(slot == 0, "low", "middle"))
    columns = {
        "kind": kind.ravel(),
        "log_odds_ref": np.tile(reference, 3),
        "log_odds": found.log_odds.ravel(),
        "fate": np.where(found.stable, "stable", "unstable").ravel(),
    }
    return pl.DataFrame(columns).with_columns(beta=pl.lit(beta)).filter(pl.col("log_odds").is_not_nan())


def _draw_panel(axes: Axes, table: pl.DataFrame) -> None:
    from matplotlib.colors import ListedColormap

    starts = table.filter(kind="start").sort("log_odds_0", "log_odds_ref")
    reference, start = (starts[name].unique().sort().to_numpy() for name in ("log_odds_ref", "log_odds_0"))
    index = starts["fate"].replace_strict({name: i for i, name in enumerate(FATES)}, return_dtype=pl.Int64)
    cells = index.to_numpy().reshape(len(start), len(reference))
    colors = ListedColormap([color for color, _ in FATES.values()])
    axes.pcolormesh(reference, start, cells, cmap=colors, vmin=-0.5, vmax=len(FATES) - 0.5, rasterized=True)
    for line in table.filter(pl.col("kind").is_in(["low", "middle"])).partition_by("kind", "fate", maintain_order=True):
        stable = line["fate"][0] == "stable"
        axes.plot(line["log_odds_ref"], line["log_odds"], color=BLACK, lw=1.4, ls="-" if stable else UNSTABLE)
    middle = table.filter(kind="middle")
    axes.plot(middle["log_odds_ref"], -middle["log_odds"], color=GREY, lw=1.2, ls=UNSTABLE)
    axes.plot([HARDEST, EASIEST], [HARDEST, EASIEST], color=BLACK, lw=1.2, ls=":")
    axes.grid(False)
    probability_axis(axes, "x", HARDEST, EASIEST, most=5)
    probability_axis(axes, "y", START, -START)


@styled
def draw(table: pl.DataFrame) -> Figure:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    figure = new_figure(7.6, 4.9)
    panels = figure.subplots(1, 2, sharey=True)
    for axes, beta in zip(panels, BETAS, strict=True):
        _draw_panel(axes, table.filter(beta=beta))
        axes.set_title(rf"$\beta={beta:g}$")
        axes.set_xlabel(r"success probability of the reference, $p_{\mathrm{ref}}$")
        axes.text(logit(0.01), 11, "high starts go up to $p\\approx1$", ha="center", va="center")
        axes.text(
            logit(0.02), -11.6, "so do starts too close to 0:\nthe first step overshoots", ha="center", va="center"
        )
    left, right = panels
    arrow = {"arrowstyle": "->", "color": BLACK, "lw": 0.8}
    left.annotate("settles", (logit(0.05), 1.2), ha="center", va="center")
    left.annotate("oscillates", (logit(0.0045), 3.2), xytext=(logit(2e-4), 7), ha="center", arrowprops=arrow)
    left.annotate("irregular", (logit(0.0014), -2.5), xytext=(logit(9e-5), -6.5), ha="center", arrowprops=arrow)
    left.text(logit(8e-5), 0, "wanders,\nthen up\nto $p\\approx1$", ha="center", va="center")
    right.text(logit(0.03), 3.5, "settles just above $p_{\\mathrm{ref}}$", ha="center", va="center")
    right.text(logit(4.2e-4), 0, "oscillates", ha="center", va="center", rotation=90)
    right.text(logit(0.95e-4), 0, "irregular", ha="center", va="center", rotation=90)
    left.set_ylabel("success probability at the start, $p_0$")
    shown = table.filter(kind="start")["fate"].unique()
    handles: list[Any] = [
        Patch(facecolor=color, edgecolor=GREY, lw=0.4, label=name)
        for key, (color, name) in FATES.items()
        if key in shown
    ]
    handles += [
        Line2D([], [], color=BLACK, lw=1.4, label="fixed point, stable"),
        Line2D([], [], color=BLACK, lw=1.4, ls=UNSTABLE, label="fixed point, unstable"),
        Line2D([], [], color=GREY, lw=1.2, ls=UNSTABLE, label="mirror image of the upper one"),
        Line2D([], [], color=BLACK, lw=1.2, ls=":", label=r"the usual start, $p_0=p_{\mathrm{ref}}$"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    figure.suptitle("Where the iteration ends, by where it starts", fontsize=10)
    return figure

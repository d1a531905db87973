"""Where the iteration from p_ref ends, over (p_ref, β): [v1–v3]'s fixed-point figure, with its regions; ε = 1e-5."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from grpo_dynamics import Whitened, fixed_points, grpo, logit, sigmoid
from grpo_dynamics.plotting import BLACK, new_figure, probability_axis, styled
from grpo_dynamics.theory.orbits.limit import LimitKind, limit

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

EPS = 1e-5
FAR = float(logit(1e-5))
BETA = (0.05, 20.0)


def data(size: int = 361, max_steps: int = 2000) -> pl.DataFrame:
    """Columns kind, log_odds_ref, p_ref, beta, p_end, oscillates, fixed_points (how many).

    kind is "grid"; "fold" and "flip" rows are points of the lines where fixed points merge, and where the lowest
    loses its stability, one after another along each line (numbered by ``line``).
    """
    reference, beta = np.meshgrid(np.linspace(FAR, -FAR, size), np.geomspace(*BETA, size))
    recursion = grpo(beta, sigmoid(reference), EPS)
    end = limit(recursion, max_steps=max_steps)
    moving = (end.kind == LimitKind.CYCLE) | (end.kind == LimitKind.IRREGULAR)
    columns = {
        "log_odds_ref": reference,
        "p_ref": sigmoid(reference),
        "beta": beta,
        "p_end": np.where(moving, np.nan, end.p),
        "oscillates": moving,
        "fixed_points": fixed_points(recursion).count,
    }
    grid = pl.DataFrame({name: column.ravel() for name, column in columns.items()})
    return pl.concat([grid.select(pl.lit("grid").alias("kind"), pl.all()), boundaries()], how="diagonal")


def boundaries() -> pl.DataFrame:
    """The folds and, their mirror image in L, the flips: at L with dΩ/dL = ±β, L_ref = L − Ω(L)/β."""
    beta, gap = np.geomspace(*BETA, 1201), Whitened(EPS)
    tables = []
    for line, at in enumerate(gap.folds(beta)):
        for kind, place in (("fold", at), ("flip", -at)):
            reference = place - gap.gap(place) / beta
            points = {"log_odds_ref": reference, "p_ref": sigmoid(reference), "beta": beta}
            tables.append(pl.DataFrame(points).with_columns(kind=pl.lit(kind), line=pl.lit(line)))
    return pl.concat(tables)


def draw_map(axes: Axes, table: pl.DataFrame) -> Any:
    """Draw the map into axes; return what a colour bar needs."""
    cells = table.filter(kind="grid").sort("beta", "log_odds_ref")
    reference, beta = cells["log_odds_ref"].unique().sort().to_numpy(), cells["beta"].unique().sort().to_numpy()

    def grid(name: str) -> np.ndarray[Any, Any]:
        return cells[name].to_numpy().reshape(len(beta), len(reference)).astype(float)

    axes.set_facecolor("#A9A9A9")  # shows where p_end is NaN
    mesh = axes.pcolormesh(reference, beta, grid("p_end"), cmap="viridis", vmin=0, vmax=1, rasterized=True)
    axes.contourf(reference, beta, grid("oscillates"), levels=[0.5, 1.5], colors="none", hatches=["//////"])
    for line in table.filter(kind="fold").partition_by("line"):
        axes.plot(line["log_odds_ref"], line["beta"], color="white", lw=1.3)
    line = table.filter(kind="flip", line=0)
    axes.plot(line["log_odds_ref"], line["beta"], color="white", lw=1.1, ls=(0, (4, 2.5)))
    axes.set(yscale="log", ylim=(beta[0], beta[-1]), ylabel=r"KL strength $\beta$")
    axes.set_yticks([0.1, 1, 10], ["0.1", "1", "10"])
    axes.minorticks_off()
    axes.grid(False)
    probability_axis(axes, "x", reference[0], reference[-1])
    axes.set_xlabel(r"success probability of the reference, $p_{\mathrm{ref}}$")
    return mesh


@styled
def draw(table: pl.DataFrame) -> Figure:
    figure = new_figure(6.2, 4.0)
    axes = figure.subplots()
    mesh = draw_map(axes, table)
    bar = figure.colorbar(mesh, ax=axes, pad=0.02)
    bar.set_label("success probability where the iteration ends")
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    axes.set_title(r"Where GRPO goes from $p_0=p_{\mathrm{ref}}$,  $\varepsilon=10^{-5}$")
    arrow = {"arrowstyle": "->", "color": BLACK, "lw": 0.8}
    axes.annotate("oscillates", (logit(2.2e-3), 2.6), xytext=(logit(6e-5), 1.2), ha="center", arrowprops=arrow)
    axes.text(logit(0.03), 13, "stays at the lowest\nof three fixed points", color="white", va="center")
    axes.text(logit(0.0004), 0.53, "three fixed points, but\njumps past the lower two", ha="center", va="center")
    axes.text(logit(0.8), 0.2, r"one fixed point, $p^*\approx1$", ha="center")
    return figure

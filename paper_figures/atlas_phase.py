"""What exact GRPO does with a question, for every β and p_ref, with the β that trainers use; ε = 1e-5."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from grpo_dynamics import Whitened, logit
from grpo_dynamics.atlas import boundaries, plane
from grpo_dynamics.atlas_plots import boundary_handles, draw_boundaries, draw_plane, fate_handles
from grpo_dynamics.plotting import BLACK, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EPS = 1e-5
BETA = (4e-4, 100.0)
HARDEST, EASIEST = float(logit(1e-7)), float(logit(1 - 1e-4))

SETTINGS: dict[str, tuple[float, float]] = {
    "oat; the paper's own run: 0.1": (0.1, 0.115),
    "DeepSeekMath, simple_GRPO: 0.04": (0.04, 0.042),
    "OpenRLHF: 0.01": (0.01, 0.0125),
    "open-instruct: 0.05, with rewards\nof 10 it acts as 0.005": (0.005, 0.0049),
    "nano-aha-moment; verl\nif its KL term is on: 0.001": (0.001, 0.00125),
    "TRL and others: 0, below": (0.0, 0.00049),
}
"""β in papers and in the defaults of trainers, and where its name is written."""


def data(size: int = 241) -> pl.DataFrame:
    """The columns of :func:`grpo_dynamics.atlas.plane` with kind "grid", and those of ``boundaries``.

    Rows of kind "setting" have a name and its β.
    """
    beta, reference = np.geomspace(*BETA, size), np.linspace(HARDEST, EASIEST, size)
    grid = plane(Whitened(EPS), 1.0, beta, reference, ends=False).select(pl.lit("grid").alias("kind"), pl.all())
    settings = pl.DataFrame({"name": list(SETTINGS), "beta": [beta for beta, _ in SETTINGS.values()]})
    settings = settings.with_columns(kind=pl.lit("setting"))
    return pl.concat([grid, boundaries(Whitened(EPS), 1.0, *BETA), settings], how="diagonal")


@styled
def draw(table: pl.DataFrame) -> Figure:
    figure = new_figure(8.0, 5.8)
    axes = figure.subplots()
    keys = draw_plane(axes, table.filter(kind="grid"))
    lines = table.filter(pl.col("kind").is_in(["fold", "flip", "cusp"]))
    draw_boundaries(axes, lines)
    for p_ref, beta, text in (
        (1e-2, 35, "one stable state, a little above $p_{\\mathrm{ref}}$"),
        (0.06, 5.5, "two stable states:\nthe start decides"),
        (1.5e-6, 28, "oscillates"),
        (3e-6, 1.5, "overshoots, in the end\nup to $p\\approx1$"),
        (0.93, 0.6, "solved: $p\\approx1$"),
    ):
        axes.text(float(logit(p_ref)), beta, text, ha="center", va="center")
    arrow = {"arrowstyle": "->", "color": BLACK, "lw": 0.8}
    axes.annotate(
        "chaos", (float(logit(1.5e-3)), 1.0), xytext=(float(logit(1.5e-4)), 0.6), ha="center", arrowprops=arrow
    )
    axes.text(
        float(logit(1.6e-7)),
        0.0023,
        "The trainers marked here do not solve for the best policy: they take small\n"
        "steps, with groups of answers and an estimated KL term. That flow can have\n"
        "folds, but no flips: it neither oscillates nor is it chaotic.",
        va="center",
        fontsize=7.5,
    )
    for name, beta in table.filter(kind="setting").select("name", "beta").iter_rows():
        if beta > 0:
            axes.axhline(beta, color=BLACK, lw=0.7, ls=":")
        weight = "bold" if name.startswith("DeepSeekMath") else "normal"
        axes.annotate(
            name,
            (1.0, max(beta, BETA[0])),
            xytext=(1.03, SETTINGS[name][1]),
            va="center",
            fontsize=7.5,
            weight=weight,
            xycoords=axes.get_yaxis_transform(),
            textcoords=axes.get_yaxis_transform(),
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": BLACK, "lw": 0.5},
        )
    handles = [*fate_handles(keys, 1e-4), *boundary_handles(lines)]
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    axes.set_title(r"What exact GRPO does with a question  ($\varepsilon=10^{-5}$, $G=\infty$)", fontsize=10)
    return figure

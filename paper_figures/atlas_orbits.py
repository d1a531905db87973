"""The route to chaos: what a question is left doing, against how hard it is, and the Lyapunov exponent; β = 5."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from grpo_dynamics import grpo, logit, sigmoid
from grpo_dynamics.atlas import line
from grpo_dynamics.atlas_plots import draw_line, line_handles
from grpo_dynamics.plotting import BLUE, VERMILION, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EPS, BETA = 1e-5, 5.0
HARDEST, EASIEST = float(logit(4e-5)), float(logit(4e-3))
LOWEST, HIGHEST = float(logit(3e-5)), float(logit(1 - 1e-5))


def data(size: int = 1001) -> pl.DataFrame:
    """The table of :func:`grpo_dynamics.atlas.line`: rows "branch", "visited" and "exponent" for each p_ref."""
    return line(grpo(BETA, sigmoid(np.linspace(HARDEST, EASIEST, size)), EPS))


@styled
def draw(table: pl.DataFrame) -> Figure:
    figure = new_figure(7.2, 5.6)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(2.3, 1))
    draw_line(top, bottom, table, "log_odds_ref", LOWEST, HIGHEST)
    for p_ref, text in (
        (5.3e-5, "overshoots"),
        (1.15e-4, "chaos"),
        (1.83e-4, "4, 8, …"),
        (4.8e-4, "jumps between two values"),
        (2.2e-3, "settles"),
    ):
        top.text(float(logit(p_ref)), float(logit(1 - 3.5e-5)), text, ha="center", va="center", color=BLUE)
    bottom.text(float(logit(2.6e-4)), 0.33, "> 0: neighbours drift apart", color=VERMILION)
    bottom.text(float(logit(1.6e-3)), -1.0, "< 0: neighbours\ncome together", color=BLUE)
    ticks, labels = zip(*((float(logit(p)), f"{p:g}") for p in (1e-4, 2e-4, 5e-4, 1e-3, 2e-3)), strict=True)
    bottom.set_xlim(HARDEST, EASIEST)
    bottom.set_xticks(ticks, labels)
    bottom.set_xlabel(r"success probability of the reference, $p_{\mathrm{ref}}$   (← harder questions)")
    figure.legend(handles=line_handles(table), loc="outside lower center", ncols=3)
    title = rf"From rest to chaos: exact GRPO on hard questions at $\beta={BETA:g}$,  $\varepsilon=10^{{-5}}$"
    figure.suptitle(title, fontsize=10)
    return figure

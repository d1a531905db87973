"""Figure 3: the success rates of seven GSM8K questions in the paper's training run, read off its picture by eye."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

import polars as pl

from grpo_dynamics.plotting import BLUE, GREY, LIGHT, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SAMPLES = 50


def data() -> pl.DataFrame:
    """Columns question, iteration, success_rate, and low, high: the 95 % Wilson interval of a rate from 50 samples."""
    source = files("paper_figures").joinpath("figure3.csv").read_bytes()
    table = pl.read_csv(source, comment_prefix="#")
    z = 1.959963984540054
    rate = pl.col("success_rate")
    centre = (rate + z**2 / (2 * SAMPLES)) / (1 + z**2 / SAMPLES)
    half = z / (1 + z**2 / SAMPLES) * (rate * (1 - rate) / SAMPLES + z**2 / (4 * SAMPLES**2)).sqrt()
    return table.with_columns(low=(centre - half).clip(0, 1), high=(centre + half).clip(0, 1))


@styled
def draw(table: pl.DataFrame) -> Figure:
    figure = new_figure(6.9, 3.6)
    grid = figure.subplots(2, 4, sharex=True, sharey=True)
    panels = [*grid[0, :3], *grid[1]]
    questions = table["question"].unique(maintain_order=True).to_list()
    for axes, question in zip(panels, questions, strict=False):
        for other in questions:
            line = table.filter(question=other)
            axes.plot(line["iteration"], line["success_rate"], color=LIGHT, lw=0.7)
        line = table.filter(question=question)
        axes.fill_between(line["iteration"], line["low"], line["high"], color=BLUE, alpha=0.15, lw=0)
        axes.plot(line["iteration"], line["success_rate"], "-o", color=BLUE, lw=1.2, ms=3, clip_on=False, zorder=4)
        axes.set(
            title=f"question {question}", ylim=(-0.03, 1.03), xlim=(0, 2600), xticks=[0, 1000, 2000], yticks=[0, 0.5, 1]
        )
    for axes in grid[1]:
        axes.set_xlabel("training iteration")
    for axes in grid[:, 0]:
        axes.set_ylabel(r"success rate $\hat p$")
    last = grid[0, 3]
    last.axis("off")
    note = ("Points: read off the\npaper's picture by eye,\n± half a marker (0.01).\n\n"
            "Band: 95 % interval of\na rate from 50 samples.\n\nGrey: the other six.")  # fmt: skip
    last.text(0.02, 0.97, note, transform=last.transAxes, va="top", color=GREY, fontsize=8)
    return figure

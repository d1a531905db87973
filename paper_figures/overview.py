"""The picture of the README: where every question goes, and the paths of three of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from grpo_dynamics import grpo, logit
from grpo_dynamics.plotting import BLACK, BLUE, ORANGE, VERMILION, new_figure, render, styled, write_whole
from paper_figures import fixed_point_map

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STEPS = 20

# name, β, p_ref, start, colour, what becomes of it
PATHS = (
    ("A", 0.5, 0.5, 0.5, BLUE, "goes to 1"),
    ("B", 1.0, 0.2, 0.2, ORANGE, "settles at 0.68,"),
    ("B", 1.0, 0.2, 0.95, ORANGE, "… or goes to 1 from above 0.93"),
    ("C", 1.5, 0.005, 0.005, VERMILION, "oscillates for ever"),
)


def data() -> pl.DataFrame:
    """The rows of ``fixed_point_map``, and rows of kind "path": name, beta, p_ref, start, n, p."""
    tables = [fixed_point_map.data(size=281)]
    for name, beta, p_ref, start, *_ in PATHS:
        orbit = pl.DataFrame({"n": np.arange(STEPS + 1), "p": grpo(beta, p_ref).iterate(STEPS, p0=start).p})
        fixed = {"kind": "path", "name": name, "beta": beta, "p_ref": p_ref, "start": start}
        tables.append(orbit.with_columns(**{key: pl.lit(value) for key, value in fixed.items()}))
    return pl.concat(tables, how="diagonal")


@styled
def draw(table: pl.DataFrame) -> Figure:
    figure = new_figure(8.6, 3.7)
    left, right = figure.subplots(1, 2, width_ratios=(1.25, 1))
    mesh = fixed_point_map.draw_map(left, table)
    bar = figure.colorbar(mesh, ax=left, pad=0.02, ticks=[0, 0.25, 0.5, 0.75, 1])
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    left.set_title("Where each question ends (colour)", fontsize=9.5)
    left.annotate("oscillates", (logit(1.5e-3), 3.2), xytext=(logit(1e-4), 1.3), ha="center", va="center",
                  arrowprops={"arrowstyle": "->", "color": BLACK, "lw": 0.8})  # fmt: skip
    left.text(logit(0.4), 0.15, r"always solved in the end, $p\approx1$", ha="center")
    for name, beta, p_ref, _, color, _ in PATHS:
        left.plot([logit(p_ref)], [beta], "o", ms=13, mfc="white", mec=color, mew=2, zorder=6)
        left.text(
            float(logit(p_ref)), beta * 0.985, name, ha="center", va="center", color=BLACK, weight="bold", zorder=7
        )

    for name, _, p_ref, start, color, fate in PATHS:
        path = table.filter(pl.col("name") == name, pl.col("start") == start, kind="path")
        second = start != p_ref
        style = {"ls": "--", "mfc": "white"} if second else {"ls": "-"}
        right.plot(path["n"], path["p"], marker="o", ms=3.5, lw=1.3, color=color, clip_on=False, zorder=4, **style)
        height = {"A": 1.075, "B": 0.6 if not second else 0.53, "C": 0.44}[name]
        label = f"{name} {fate}" if not second else fate
        right.text(STEPS, height, label, color=color, ha="right", va="center", weight="bold", fontsize=8.5)
    right.set(xlim=(-0.4, STEPS), ylim=(-0.03, 1.13), xlabel="iteration $n$", yticks=[0, 0.25, 0.5, 0.75, 1])
    right.set_ylabel("success probability $p_n$")
    right.set_title("Three questions on their way", fontsize=9.5)
    right.set_xticks(range(0, STEPS + 1, 5))
    return figure


def write(path: Path) -> Path:
    """Write the PNG for the README."""
    return write_whole(path, render(draw(data()), "png"))


if __name__ == "__main__":
    print(write(Path(__file__).resolve().parent.parent / "docs" / "picture.png"))

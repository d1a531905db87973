"""Where the amplification condition of versions 1–3 fails, over (p_ref, β); version 4 needs no condition."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from grpo_dynamics.plotting import BLUE, GREY, VERMILION, new_figure, styled
from grpo_dynamics.theory.amplification import amplifies_v1

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EPS = 1e-5
BETAS = np.geomspace(0.02, 200, 2001)


def _bisect(test: Callable[[Any], Any], false: Any, true: Any) -> Any:
    """Return where a test turns true, between points (on a logarithmic scale) where it is false and true."""
    for _ in range(50):
        middle = np.sqrt(false * true)
        holds = test(middle)
        false, true = np.where(holds, false, middle), np.where(holds, middle, true)
    return true


def onset(eps: float = EPS) -> float:
    """Return the smallest p_ref at which the condition fails for some β."""
    return 1 - float(_bisect(lambda q: not amplifies_v1(BETAS, 1 - q, eps).all(), 0.5, 0.01))


def data() -> pl.DataFrame:
    """Columns p_ref, fails_from, fails_to: the condition fails for β between these two."""
    start = onset()
    p_ref = 1 - np.geomspace(1 - start, 1e-6, 301)
    fails = ~amplifies_v1(BETAS[:, None], p_ref, EPS)
    some = BETAS[fails.argmax(axis=0)]  # a β where it fails, for each p_ref
    low = _bisect(lambda b: ~amplifies_v1(b, p_ref, EPS), np.full(p_ref.shape, 1e-3), some)
    high = _bisect(lambda b: ~amplifies_v1(b, p_ref, EPS), np.full(p_ref.shape, 1e4), some)
    return pl.DataFrame({"p_ref": p_ref, "fails_from": low, "fails_to": high})


@styled
def draw(table: pl.DataFrame) -> Figure:
    figure = new_figure(6.9, 3.1)
    panels = figure.subplots(1, 2, sharey=True)
    for axes, x in zip(panels, (table["p_ref"], 1 - table["p_ref"]), strict=True):
        axes.set_facecolor("#E3EFF8")
        axes.fill_between(x, table["fails_from"], table["fails_to"], color="#F5CDB4", lw=0)
        axes.plot(x, table["fails_from"], color=VERMILION, lw=1.2)
        axes.plot(x, table["fails_to"], color=VERMILION, lw=1.2)
        axes.set(yscale="log", ylim=(0.02, 200), xlabel=r"$p_{\mathrm{ref}}$")
        axes.set_yticks([0.1, 1, 10, 100], ["0.1", "1", "10", "100"])
        axes.minorticks_off()
        axes.grid(False)
    left, right = panels
    left.set(xlim=(0, 1), ylabel=r"KL strength $\beta$", title="All questions")
    left.text(0.45, 14, "condition holds:\nit promises $p^*>p_{\\mathrm{ref}}$", color=BLUE, ha="center", va="center")
    tip = table.row(0, named=True)
    left.annotate(f"can fail only for\n$p_{{\\mathrm{{ref}}}}>{tip['p_ref']:.3f}$", (tip["p_ref"], tip["fails_from"]),
                  xytext=(0.58, 0.42), ha="center", va="center", color=VERMILION,
                  arrowprops={"arrowstyle": "-", "color": GREY, "lw": 0.7, "shrinkA": 2, "shrinkB": 0})  # fmt: skip
    right.set(xscale="log", xlim=(0.06, 1e-6), title="The easiest questions, enlarged")
    right.set_xticks([1e-2, 1e-3, 1e-4, 1e-5, 1e-6], ["0.99", *(f"$1-10^{{-{k}}}$" for k in (3, 4, 5, 6))])
    right.minorticks_off()
    right.tick_params(axis="x", labelsize=7.5)
    right.text(
        4e-5,
        2.4,
        "condition fails,\nyet $p^*>p_{\\mathrm{ref}}$\n(v4, Theorem 3)",
        color=VERMILION,
        ha="center",
        va="center",
    )
    right.text(0.008, 40, "holds", color=BLUE, ha="center", va="center")
    right.text(3e-4, 0.08, "holds", color=BLUE, ha="center", va="center")
    return figure

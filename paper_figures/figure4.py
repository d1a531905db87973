"""Figure 4: B(p*), the smallest β for which p* is stable, at ε = 1e-4 (fits the picture) and 1e-5 (its title)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from grpo_dynamics import Whitened, logit
from grpo_dynamics.plotting import BLACK, BLUE, GREY, VERMILION, new_figure, styled
from grpo_dynamics.theory.amplification import stability_bound
from paper_figures.goldens import paper_values

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EPS = (1e-4, 1e-5)


def data() -> pl.DataFrame:
    """Columns eps, kind, p, bound; kind is "curve" or "read off" (the paper's picture, no ε)."""
    end = np.geomspace(0.01, 0.05, 100, endpoint=False)
    p = np.concatenate([end, np.linspace(0.05, 0.95, 361), 1 - end[::-1]])
    curves = [
        pl.DataFrame({"eps": eps, "kind": "curve", "p": p, "bound": stability_bound(logit(p), Whitened(eps))})
        for eps in EPS
    ]
    read = (
        paper_values()
        .filter(pl.col("id").str.starts_with("fig4-drawn"))
        .select(eps=pl.lit(None, pl.Float64), kind=pl.lit("read off"), p="p", bound="paper")
    )
    return pl.concat([*curves, read])


@styled
def draw(table: pl.DataFrame) -> Figure:
    figure = new_figure(6.9, 3.0)
    left, right = figure.subplots(1, 2, width_ratios=(1.7, 1))
    looks = {1e-4: (BLUE, "-", r"$\varepsilon=10^{-4}$"), 1e-5: (VERMILION, (0, (4, 2)), r"$\varepsilon=10^{-5}$")}
    read = table.filter(kind="read off")
    for axes in (left, right):
        for eps, (color, dash, label) in looks.items():
            curve = table.filter(pl.col("eps") == eps)
            axes.plot(curve["p"], curve["bound"], color=color, ls=dash, label=label)
            end = curve["bound"][0]
            if axes is right:
                axes.plot([0.01], [end], "o", color=color, ms=3.5)
                axes.annotate(
                    f"{end:.3f}", (0.01, end), (-7, 0), textcoords="offset points", color=color, va="center", ha="right"
                )
    right.errorbar(read["p"], read["bound"], yerr=0.02, fmt="x", color=BLACK, ms=5, mew=1.2, capsize=2, lw=1, zorder=4)
    curve = table.filter(pl.col("eps") == EPS[0])
    left.fill_between(curve["p"], curve["bound"], 5.2, color=BLUE, alpha=0.08, lw=0)
    left.text(0.5, 2.9, r"stable: $\beta>\mathcal{B}(p^*)$", ha="center")
    left.text(0.03, 0.2, "unstable", color=GREY)
    left.text(0.97, 0.2, "unstable", color=GREY, ha="right")
    left.set(xlim=(0, 1), ylim=(0, 5.2), xlabel="fixed point $p^*$", ylabel=r"$\mathcal{B}(p^*)$")
    left.set_title(r"Stability needs $\beta$ above the curve")
    left.legend(loc="upper center", bbox_to_anchor=(0.5, 0.95))
    right.set(xlim=(0.0096, 0.0112), ylim=(4.6, 5.0), xlabel="fixed point $p^*$", title="Its left end, enlarged")
    right.set_xticks([0.01, 0.011])
    handles = [right.containers[0]]
    right.legend(handles, ["read off the paper's picture"], loc="upper right", borderaxespad=0.1)
    return figure

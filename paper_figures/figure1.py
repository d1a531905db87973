"""Figure 1: the weights of successes and failures against the success probability of the old policy, ε = 0."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from grpo_dynamics import Whitened, logit
from grpo_dynamics.plotting import BLUE, GREY, VERMILION, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def data() -> pl.DataFrame:
    """Columns p, success_weight = ω⁺(p), failure_weight = ω⁻(p)."""
    p = np.linspace(0.001, 0.999, 999)
    grpo = Whitened(eps=0.0)
    return pl.DataFrame({"p": p, "success_weight": grpo.positive(logit(p)), "failure_weight": grpo.negative(logit(p))})


@styled
def draw(table: pl.DataFrame) -> Figure:
    figure = new_figure(4.6, 2.9)
    axes = figure.subplots()
    p = table["p"]
    axes.plot(p, table["success_weight"], color=BLUE)
    axes.plot(p, table["failure_weight"], color=VERMILION)
    axes.annotate(
        r"success, $\omega^+=\sqrt{\frac{1-p}{p}}$", (0.03, 5.6), xytext=(0.075, 6.4), color=BLUE, fontsize=10
    )
    axes.annotate(
        r"failure, $\omega^-=\sqrt{\frac{p}{1-p}}$", (0.97, 5.6), xytext=(0.925, 6.4), color=VERMILION, fontsize=10,
        ha="right",
    )  # fmt: skip
    axes.plot([0.5], [1], "o", color="black", ms=4, zorder=5)
    axes.annotate(r"equal at $p=\frac{1}{2}$", (0.5, 1.08), xytext=(0.5, 2.3), ha="center", color="black",
                  arrowprops={"arrowstyle": "-", "color": GREY, "lw": 0.7})  # fmt: skip
    axes.set(xlim=(0, 1), ylim=(0, 10), xlabel="success probability of the old policy, $p$", ylabel="weight")
    return figure

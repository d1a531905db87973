"""The picture of an advice: candidates, questions, pass@k."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from grpo_dynamics.logodds import logit
from grpo_dynamics.plotting import BLUE, GREY, LIGHT, PALETTE, VERMILION, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from grpo_dynamics.advice import Advice

SHOWN = 2000
"""So many questions are drawn, evenly picked."""

TICKS = (1e-4, 1e-3, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999, 0.9999)
NEAR_ONE = (0.99999, 0.999999)


@styled
def draw(found: Advice, title: str) -> Figure:
    """Return three panels: what each candidate amplifies; p* of each question over p_ref; pass@k before and after."""
    figure = new_figure(10.4, 3.4)
    left, middle, right = figure.subplots(1, 3, width_ratios=(1.15, 1.0, 0.8))
    _candidates(left, found)
    _questions(middle, found)
    _passes(right, found)
    figure.suptitle(title, x=0.01, ha="left", fontsize=9)
    return figure


def _candidates(axes: Any, found: Advice) -> None:
    for rows, color in zip(found.candidates.partition_by("group_size", maintain_order=True), PALETTE, strict=False):
        size = rows["group_size"][0]
        beta, surprise = rows["beta"].to_numpy(), (rows["bistable"] + rows["oscillating"]).to_numpy()
        label = "exact" if size is None else f"G = {size}"
        axes.plot(beta, rows["amplified_safely"], color=color, label=label)
        axes.plot(beta, surprise, color=color, ls=":", lw=1.1)
    advised = found.candidates.filter(
        found.candidates["group_size"].eq_missing(found.group_size) & (found.candidates["beta"] == found.beta)
    )
    if found.helps:
        style = {"ms": 8, "mfc": "none", "mec": VERMILION, "mew": 1.6, "ls": ""}
        axes.plot([found.beta], advised["amplified_safely"], "o", label="advised", **style)
    axes.plot([], [], color=GREY, ls=":", lw=1.1, label="bistable or oscillating")
    axes.set(xscale="log", ylim=(-0.02, 1.02), xlabel=r"KL strength $\beta$", ylabel="share of the questions")
    axes.set_title("amplified without a surprise")
    axes.legend(loc="best")


def _questions(axes: Any, found: Advice) -> None:
    rows = found.questions
    if rows.height > SHOWN:
        rows = rows.gather_every(-(-rows.height // SHOWN))
    x = logit(rows["p_ref"].to_numpy())
    low, high, top = (float(logit(p)) for p in (TICKS[0], TICKS[-1], NEAR_ONE[-1]))
    ends = [
        np.clip(logit(rows[name].to_numpy()), low - 0.8, top + 0.8) for name in ("p_star_low", "p_star", "p_star_high")
    ]
    axes.plot([low - 1, high + 1], [low - 1, high + 1], color=GREY, lw=0.8, ls="--")
    axes.vlines(x, ends[0], ends[2], color=LIGHT, lw=1.0)
    axes.plot(x, ends[1], "o", ms=3, color=BLUE, alpha=0.7, mew=0)
    axes.set_xticks([float(logit(p)) for p in TICKS], [f"{p:g}" for p in TICKS], rotation=60)
    axes.set_yticks([float(logit(p)) for p in (*TICKS, *NEAR_ONE)], [f"{p:g}" for p in (*TICKS, *NEAR_ONE)])
    axes.set(xlim=(low - 1, high + 1), ylim=(low - 1, top + 1))
    axes.set(xlabel=r"$p_{\mathrm{ref}}$, posterior mean", ylabel=r"$p^*$")
    level = f"{found.aim.confidence:.0%}"
    which = "the advised β" if found.helps else f"β = {found.beta:g}"
    axes.set_title(f"each question at {which}; lines: {level}")


def _passes(axes: Any, found: Advice) -> None:
    rows = found.passes
    k = rows["k"].to_numpy()
    axes.plot(k, rows["after"], "o-", color=BLUE, label="after")
    axes.plot(k, rows["before"], "o-", color=GREY, label="before")
    known = rows.drop_nulls("before_unbiased")
    axes.plot(known["k"], known["before_unbiased"], "x", color="black", ms=5, label="before, unbiased")
    axes.set(xscale="log", ylim=(-0.02, 1.02), xlabel="k", ylabel="pass@k")
    axes.set_xticks(k, [str(int(value)) for value in k])
    axes.minorticks_off()
    axes.set_title("pass@k")
    axes.legend(loc="lower right")

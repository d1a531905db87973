"""Figure 2: the map h of one GRPO iteration, at the caption's ε = 1e-5 and at ε = 1e-2, which the drawn curves fit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from grpo_dynamics import Recursion, Whitened, fixed_points, logit, sigmoid
from grpo_dynamics.plotting import BLACK, BLUE, GREEN, GREY, VERMILION, new_figure, styled
from paper_figures.goldens import paper_values

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EPS = (1e-5, 1e-2)
BETAS = (5.0, 1.0, 0.2, 0.01)
P_REFS = (0.0001, 0.2, 0.8)


def data() -> pl.DataFrame:
    """Columns eps, beta, p_ref, kind, p, h, stable; kind is "curve", "fixed point" or "read off" (from the paper)."""
    end, middle = np.linspace(0, 0.02, 101)[1:], np.linspace(0.02, 0.98, 385)[1:-1]
    p = np.concatenate([end, middle, 1 - end[::-1]])
    rows = []
    for eps in EPS:
        for beta in BETAS:
            for p_ref in P_REFS:
                one = {"eps": eps, "beta": beta, "p_ref": p_ref}
                rec = Recursion(beta, p_ref, Whitened(eps))
                rows.append({**one, "kind": "curve", "p": p, "h": sigmoid(rec.step(logit(p))), "stable": None})
                fp = fixed_points(rec)
                for at, stable in zip(fp.p[: fp.count], fp.stable, strict=False):
                    rows.append({**one, "kind": "fixed point", "p": [at], "h": [at], "stable": bool(stable)})
        read = paper_values().filter(formula="h", kind="drawn").select("beta", "p_ref", p="p", h="paper")
        rows += [
            {**row, "eps": eps, "kind": "read off", "p": [row["p"]], "h": [row["h"]], "stable": None}
            for row in read.iter_rows(named=True)
        ]
    schema = {"eps": pl.Float64, "beta": pl.Float64, "p_ref": pl.Float64, "kind": pl.String}
    schema |= {"p": pl.List(pl.Float64), "h": pl.List(pl.Float64), "stable": pl.Boolean}
    return pl.DataFrame(rows, schema=schema).explode("p", "h")


@styled
def draw(table: pl.DataFrame) -> Figure:
    from matplotlib.lines import Line2D

    figure = new_figure(6.9, 6.4)
    grid = figure.subplots(2, 2, width_ratios=(1.6, 1))
    colors = dict(zip(P_REFS, (BLUE, GREEN, VERMILION), strict=True))
    dashes = dict(zip(BETAS, ("-", (0, (6, 1.6)), (0, (1, 1.2)), (0, (4, 1.5, 1, 1.5))), strict=True))
    titles = (r"$\varepsilon=10^{-5}$, as the caption says", r"$\varepsilon=10^{-2}$, as the curves were drawn")
    verdicts = ("enlarged: misses the paper's curves", "enlarged: meets the paper's curves")
    for row, eps in enumerate(EPS):
        part = table.filter(pl.col("eps") == eps)
        points, read = part.filter(kind="fixed point"), part.filter(kind="read off")
        for axes in grid[row]:
            axes.plot([0, 1], [0, 1], color=GREY, lw=0.8)
            for (beta, p_ref), curve in part.filter(kind="curve").group_by("beta", "p_ref", maintain_order=True):
                axes.plot(curve["p"], curve["h"], color=colors[p_ref], ls=dashes[beta], lw=1.6)
            axes.plot(read["p"], read["h"], "x", color=BLACK, ms=5.5, mew=1.3, zorder=6)
            axes.set(ylim=(-0.015, 1.03), ylabel=r"$h_{\varepsilon,\,p_{\mathrm{ref}}}(p)$")
        wide, close = grid[row]
        for at, stable in points.select("p", "stable").iter_rows():
            face = BLACK if stable else "white"
            wide.plot([at], [at], "o", ms=4.5, mfc=face, mec=BLACK, mew=0.9, zorder=5, clip_on=False)
        wide.set(xlim=(-0.015, 1), title=titles[row])
        close.set(xlim=(0, 0.06), xticks=[0, 0.02, 0.04, 0.06], title=verdicts[row], ylabel="")
    for axes in grid[1]:
        axes.set_xlabel("$p$")
    handles = [Line2D([], [], color=c, label=rf"$p_{{\mathrm{{ref}}}}={p:g}$") for p, c in colors.items()]
    handles += [Line2D([], [], color=GREY, lw=0.8, label="$y=p$")]
    handles += [Line2D([], [], color="#333333", ls=d, label=rf"$\beta={b:g}$") for b, d in dashes.items()]
    handles += [Line2D([], [], color=BLACK, ls="", marker="o", ms=4.5, label="stable $p^*$")]
    handles += [Line2D([], [], color=BLACK, ls="", marker="o", ms=4.5, mfc="white", label="unstable $p^*$")]
    handles += [Line2D([], [], color=BLACK, ls="", marker="x", mew=1.3, label="read off the paper's picture")]
    figure.legend(handles=handles, loc="outside lower center", ncols=6, columnspacing=1.3, handlelength=1.8)
    return figure

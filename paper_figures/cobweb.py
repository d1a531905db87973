"""Cobweb diagrams of the iteration: convergence, two stable fixed points, a 2-cycle, chaos; ε = 1e-5."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from grpo_dynamics import fixed_points, grpo
from grpo_dynamics.plotting import (
    BLUE,
    GREY,
    ORANGE,
    VERMILION,
    draw_cobweb,
    mark_fixed_points,
    new_figure,
    probability_axis,
    styled,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STEPS = 200

# fate: β, p_ref, the starts
FATES: dict[str, tuple[float, float, tuple[float, ...]]] = {
    "converges": (1.0, 0.03, (0.03,)),
    "bistable": (1.0, 0.2, (0.1, 0.96)),
    "2-cycle": (5.0, 1e-3, (0.1,)),
    "chaos": (5.0, 1e-4, (0.1,)),
}


def data() -> pl.DataFrame:
    """Columns fate, beta, p_ref, kind, start, n, log_odds, image, stable; kind is "map", "orbit" or "fixed point"."""
    tables = []
    for fate, (beta, p_ref, starts) in FATES.items():
        recursion = grpo(beta, p_ref)
        state = np.linspace(-14, 14, 701)
        parts = [pl.DataFrame({"kind": "map", "log_odds": state, "image": recursion.step(state)})]
        for start in starts:
            orbit = recursion.iterate(STEPS, p0=start).log_odds
            columns = {"kind": "orbit", "start": start, "n": np.arange(STEPS + 1), "log_odds": orbit}
            parts.append(pl.DataFrame(columns))
        fixed = fixed_points(recursion)
        points = pl.DataFrame({"kind": "fixed point", "log_odds": fixed.log_odds, "stable": fixed.stable})
        parts.append(points[: fixed.count])
        whole = pl.concat(parts, how="diagonal")
        tables.append(whole.with_columns(fate=pl.lit(fate), beta=pl.lit(beta), p_ref=pl.lit(p_ref)))
    return pl.concat(tables, how="diagonal").select(
        "fate", "beta", "p_ref", "kind", "start", "n", "log_odds", "image", "stable"
    )


@styled
def draw(table: pl.DataFrame) -> Figure:
    from matplotlib.lines import Line2D

    figure = new_figure(6.2, 6.4)
    windows = {"converges": (-4, 5), "bistable": (-3.6, 6.4), "2-cycle": (-7.6, 2.4), "chaos": (-10, 11)}
    for axes, (fate, window) in zip(figure.subplots(2, 2).ravel(), windows.items(), strict=True):
        part = table.filter(fate=fate)
        curve, fixed = part.filter(kind="map"), part.filter(kind="fixed point")
        axes.plot(window, window, color=GREY, lw=0.8)
        axes.plot(curve["log_odds"], curve["image"], color=ORANGE, lw=2.0)
        orbits = part.filter(kind="orbit").partition_by("start", maintain_order=True)
        for color, orbit in zip((BLUE, VERMILION), orbits, strict=False):
            states = np.minimum(orbit["log_odds"].to_numpy(), window[1])
            draw_cobweb(axes, states, color, settled=4 if fate == "2-cycle" else 60 if fate == "chaos" else 0)
            axes.plot(states[:1], states[:1], "s", color=color, ms=4.5, zorder=5)
        points, stable = fixed["log_odds"].to_numpy(), fixed["stable"].to_numpy()
        inside = points <= window[1]
        mark_fixed_points(axes, points[inside], stable[inside])
        for which in ("x", "y"):
            probability_axis(axes, which, *window, most=6 if which == "y" else 5)
        axes.set_box_aspect(1)
        axes.set(xlabel="$p_{n-1}$", ylabel="$p_n$")
        axes.set_title(f"{fate}:  $\\beta={part['beta'][0]:g}$, $p_{{\\mathrm{{ref}}}}={part['p_ref'][0]:g}$")
    handles = [
        Line2D([], [], color=ORANGE, lw=2, label="map $h$"),
        Line2D([], [], color=BLUE, lw=0.9, marker="s", ms=4.5, label="orbit from its start"),
        Line2D([], [], color="black", marker="o", ls="", ms=5.5, label="stable $p^*$"),
        Line2D([], [], color="black", marker="o", ls="", ms=5.5, mfc="white", label="unstable $p^*$"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    return figure

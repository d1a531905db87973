"""The pictures of `grpo-dynamics atlas`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from grpo_dynamics.atlas_plots import (
    beta_ticks,
    boundary_handles,
    draw_boundaries,
    draw_ends,
    draw_line,
    draw_plane,
    fate_handles,
    line_handles,
    mark_point,
    name_regions,
)
from grpo_dynamics.logodds import logit
from grpo_dynamics.plotting import BLACK, new_figure, probability_axis, styled

if TYPE_CHECKING:
    import polars as pl
    from matplotlib.figure import Figure

NAMES = {
    "low": "one stable state,\nlow p*",
    "one": "one stable state,\nhigh p*",
    "bistable": "two stable states",
    "oscillating": "oscillates",
    "chaotic": "chaos",
}


@styled
def phase(
    table: pl.DataFrame, boundaries: pl.DataFrame, log_odds_ref: float | None, beta: float | None, title: str
) -> Figure:
    """Return the phase diagram with its regions named and the user's own point."""
    figure = new_figure(7.0, 5.4)
    axes = figure.subplots()
    keys = draw_plane(axes, table)
    draw_boundaries(axes, boundaries)
    mark_point(axes, log_odds_ref, beta)
    regions = np.where((keys == "one") & (_highest(table, keys.shape) < 0), "low", keys)
    name_regions(axes, _without_point(regions, table, log_odds_ref, beta), (6.0, 3.9), NAMES)
    drawn = boundaries.filter(boundaries["log_odds_ref"].is_between(*axes.get_xlim()))
    figure.legend(handles=[*fate_handles(keys), *boundary_handles(drawn)], loc="outside lower center", ncols=2)
    axes.set_title(f"What becomes of a question: {title}", fontsize=9.5)
    return figure


def _highest(table: pl.DataFrame, shape: tuple[int, ...]) -> Any:
    return table.sort("beta", "log_odds_ref")["highest"].to_numpy().reshape(shape)


def _without_point(keys: Any, table: pl.DataFrame, log_odds_ref: float | None, beta: float | None) -> Any:
    """The regions less a box around the user's point, which has a text of its own."""
    if log_odds_ref is None or beta is None:
        return keys
    reference, betas = table["log_odds_ref"].to_numpy(), np.log(table["beta"].to_numpy())
    across = (reference - log_odds_ref) / (reference.max() - reference.min())
    up = (betas - np.log(beta)) / (betas.max() - betas.min())
    near = ((np.abs(across) < 0.22) & (np.abs(up) < 0.08)).reshape(keys.shape)
    return np.where(near, "", keys)


@styled
def ends(table: pl.DataFrame, log_odds_ref: float | None, beta: float | None, title: str) -> Figure:
    """Return the map of where the orbit from p_ref ends."""
    figure = new_figure(6.8, 4.6)
    axes = figure.subplots()
    mesh = draw_ends(axes, table)
    mark_point(axes, log_odds_ref, beta)
    bar = figure.colorbar(mesh, ax=axes, pad=0.02)
    bar.set_label("success probability at the end (hatched: does not settle)")
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    axes.set_title(rf"Where a question goes from $p_0=p_{{\mathrm{{ref}}}}$: {title}", fontsize=9.5)
    return figure


@styled
def orbits(table: pl.DataFrame, along: str, fixed: float, own: float | None, title: str) -> Figure:
    """Return the orbit diagram and the exponent along "p_ref" at a fixed β, or along "beta" at a fixed p_ref.

    ``own`` is the place of the user's own question on that axis: a log-odds of p_ref, or a β.
    """
    figure = new_figure(7.2, 5.6)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(2.3, 1))
    states = table["log_odds"].drop_nulls().to_numpy()
    states = states[np.isfinite(states) & (states < logit(1 - 1e-5))]
    low = max(float(states.min(initial=0.0)), -40.0) - 1
    draw_line(top, bottom, table, "log_odds_ref" if along == "p_ref" else "beta", low, float(logit(1 - 1e-5)))
    if along == "p_ref":
        reference = table["log_odds_ref"]
        probability_axis(bottom, "x", float(reference.to_numpy().min()), float(reference.to_numpy().max()))
        bottom.set_xlabel(r"success probability of the reference, $p_{\mathrm{ref}}$")
        where = rf"$\beta$ = {fixed:g}"
    else:
        values = table["beta"].to_numpy()
        bottom.set(xlim=(values.min(), values.max()), xscale="log", xlabel=r"KL strength $\beta$")
        beta_ticks(bottom, "x", values.min(), values.max())
        where = rf"$p_{{\mathrm{{ref}}}}$ = {fixed:g}"  # 1e-05 as a formula would be a difference
    if own is not None:
        for axes in (top, bottom):
            axes.axvline(own, color=BLACK, lw=1.2, ls=":", zorder=5)
        top.annotate("you are here", (own, low), xytext=(4, 4), textcoords="offset points", weight="bold")
    figure.legend(handles=line_handles(table), loc="outside lower center", ncols=3)
    figure.suptitle(f"In the long run, at {where}: {title}", fontsize=9.5)
    return figure

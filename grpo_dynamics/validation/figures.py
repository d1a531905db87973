"""Pictures of one arm: measured success probabilities as dots, predictions as lines."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from grpo_dynamics.arrays import Array
from grpo_dynamics.logodds import logit
from grpo_dynamics.plotting import (
    BLACK,
    BLUE,
    GREY,
    ORANGE,
    PALETTE,
    VERMILION,
    new_figure,
    probability_axis,
    styled,
)
from grpo_dynamics.theory.orbits.limit import LimitKind
from grpo_dynamics.validation.compare import Comparison
from grpo_dynamics.validation.error_split import PARTS
from grpo_dynamics.validation.measured import log_odds_of
from grpo_dynamics.validation.single_questions import single_questions

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHOWN = 6
"""So many questions are drawn one by one."""

SPREAD = 9.0
"""Largest |log-odds| that is drawn: 0.0001 from 0 and from 1."""


def figures(comparison: Comparison) -> dict[str, Figure]:
    """Return the pictures that say something about an arm, by name."""
    made = {"trajectories": trajectories(comparison)}
    if np.isfinite(comparison.end_table["p_star"].to_numpy()).any():
        made["p_infinity"] = ends(comparison)
    if comparison.theory.has_orbits and len(comparison.grid.iterations) > 1:
        made["single_questions"] = single_questions(comparison)
        made["one_step"] = one_step_map(comparison)
        made["error"] = error_bars(comparison)
    return made


def representatives(comparison: Comparison, count: int = SHOWN) -> list[int]:
    """Return the indices of a few questions over the range of p_ref: the hardest, the easiest, and those between.

    If some oscillate and none of them is among these, the hardest that does takes the place of its neighbour.
    """
    p = comparison.grid.p[0]
    known = np.flatnonzero((p > 0) & (p < 1))
    known = known if known.size else np.flatnonzero(np.isfinite(p))
    order = known[np.argsort(p[known], kind="stable")]
    chosen = _evenly([int(i) for i in order], count)
    moving = [int(i) for i in order if comparison.moving[i]]
    if moving and not set(moving) & set(chosen):
        nearest = min(range(len(chosen)), key=lambda i: abs(logit(p[chosen[i]]) - logit(p[moving[0]])))
        chosen[nearest] = moving[0]
    return chosen


@styled
def trajectories(comparison: Comparison) -> Figure:
    """Return p_n of a few questions on the predicted curves, and the residuals of all of them."""
    with_band = bool(np.isfinite(comparison.residual).any())
    figure = new_figure(6.9, 3.4)
    panels: list[Any] = list(figure.subplots(1, 2, width_ratios=(3, 2))) if with_band else [figure.subplots()]
    left, chosen = panels[0], representatives(comparison)
    draw_paths(left, comparison, chosen)
    left.set(xlabel="iteration $n$", ylabel="success probability $p_n$", title=_title(comparison))
    left.legend(handles=list(_handles(comparison, chosen)), loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=3)
    if with_band:
        _residuals(panels[1], comparison)
    return figure


def draw_paths(axes: Axes, comparison: Comparison, chosen: list[int], fitted: bool = True) -> None:
    """Draw p_n of the chosen questions, dots, on the predicted curves, of a flow beside the predicted ends.

    Args:
        axes: to draw on.
        comparison: an arm beside its theory.
        chosen: indices of questions.
        fitted: whether the fitted line is drawn too, where it is another than the predicted one.
    """
    from matplotlib.ticker import MaxNLocator

    grid, theory = comparison.grid, comparison.theory
    for i, color in zip(chosen, itertools.cycle(PALETTE), strict=False):
        line = comparison.one_step if comparison.moving[i] else comparison.orbit
        if theory.has_orbits:
            axes.plot(grid.iterations, _drawn(line.log_odds[:, i]), color=color, lw=1.3, ls=_dash(comparison, i))
            if fitted and _shows_fit(comparison) and not comparison.moving[i]:
                axes.plot(grid.iterations, _drawn(comparison.fitted.orbit[:, i]), color=color, lw=0.9, ls=":")
            _band(axes, grid.iterations, line.low[:, i], line.high[:, i], color)
        else:
            goal = comparison.limits.p[i]
            if fitted:
                axes.plot(grid.iterations, _drawn(comparison.fitted.orbit[:, i]), color=color, lw=0.9, ls=":")
            axes.plot(
                [grid.iterations[-1]], [_drawn(log_odds_of(goal))], "<", color=color, ms=7, clip_on=False, zorder=5
            )
        _dots(axes, grid.iterations, grid, i, color)
    shown = [_drawn(grid.log_odds[:, chosen]), _drawn(log_odds_of(comparison.limits.p[chosen]))]
    low, high = _range(shown)
    probability_axis(axes, "y", low, high)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))


def _residuals(axes: Axes, comparison: Comparison) -> None:
    from matplotlib.ticker import MaxNLocator

    n, residual = comparison.grid.iterations[1:], comparison.residual[1:]
    kept = np.isfinite(residual).any(axis=1)
    n, residual = n[kept], residual[kept]
    for inside, alpha in ((0.95, 0.22), (0.5, 0.45)):
        low, high = np.nanquantile(residual, [(1 - inside) / 2, (1 + inside) / 2], axis=1)
        axes.fill_between(n, low, high, color=BLUE, alpha=alpha, lw=0, label=f"{inside:.0%} of the questions")
    axes.plot(n, np.nanmedian(residual, axis=1), "-o", color=BLUE, ms=2.5, lw=1.0, label="median")
    axes.axhline(0, color=BLACK, lw=0.8)
    reach = max(float(np.nanquantile(np.abs(residual), 0.99)) * 1.15, 0.011)
    axes.set(xlabel="iteration $n$", ylabel="measured − predicted", ylim=(-reach, reach))
    axes.set_title(f"All {int(np.isfinite(residual).any(axis=0).sum())} questions")
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17))


@styled
def ends(comparison: Comparison) -> Figure:
    """Return where the questions ended over where they should, with the diagonal."""
    table = comparison.end_table
    figure = new_figure(6.9, 3.6)
    axes, beside = figure.subplots(1, 2, width_ratios=(1, 1))
    settled = comparison.limits.one_point & np.isfinite(comparison.ends.p)
    moving = table["still_moving"].to_numpy() | ~table["arrives"].to_numpy()
    star, end = (_drawn(log_odds_of(table[name].to_numpy())) for name in ("p_star", "p_infinity"))
    bars = [_drawn(log_odds_of(table[f"p_infinity_{side}"].to_numpy())) for side in ("low", "high")]
    low, high = _range([star[settled], end[settled]])
    axes.plot([low, high], [low, high], color=GREY, lw=0.9, label="as predicted")
    axes.vlines(star[settled], bars[0][settled], bars[1][settled], color=BLUE, lw=0.7, alpha=0.5)
    for chosen, face, label in (
        (settled & ~moving, BLUE, "a question"),
        (settled & moving, "white", "still on its way at the end"),
    ):
        if chosen.any():
            axes.plot(star[chosen], end[chosen], "o", ms=4, mfc=face, mec=BLUE, mew=0.8, ls="", label=label, alpha=0.8)
    for which in ("x", "y"):
        probability_axis(axes, which, low, high, most=5 if which == "x" else 8)
    axes.set(xlabel="predicted $p^*$", ylabel=r"measured $p_\infty$", title="Where the questions end")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2))
    p_ref = _drawn(log_odds_of(table["p_ref"].to_numpy()))
    beside.plot(p_ref[settled], star[settled], "_", color=ORANGE, ms=9, mew=2.2, label="predicted $p^*$")
    if (cycles := ~settled & np.isfinite(star)).any():
        visited = (_drawn(log_odds_of(table[f"p_star_{side}"].to_numpy()))[cycles] for side in ("low", "high"))
        beside.vlines(p_ref[cycles], *visited, color=ORANGE, lw=3.5, alpha=0.6, label="predicted range of a cycle")
    beside.plot(p_ref, end, "o", ms=3.5, color=BLUE, alpha=0.8, label=r"measured $p_\infty$")
    a, b = _range([p_ref[np.isfinite(p_ref)]])
    beside.plot([a, b], [a, b], color=GREY, lw=0.8, ls=":", label=r"$p_{\mathrm{ref}}$, no change")
    probability_axis(beside, "x", a, b, most=5)
    probability_axis(beside, "y", min(low, a), max(high, b), most=9)
    beside.set(xlabel=r"$p_{\mathrm{ref}}$ before training", ylabel=r"$p^*$,  $p_\infty$", title="Before and after")
    beside.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
    return figure


@styled
def one_step_map(comparison: Comparison) -> Figure:
    """Return p_n over p_(n−1) on the curve of the step, for questions that oscillate, or else for a few others."""
    grid, p = comparison.grid, comparison.grid.p[0]
    usable = (p > 0) & (p < 1)
    moving = [int(i) for i in np.argsort(p) if comparison.moving[i] and usable[i]]
    calm = [i for i in representatives(comparison) if usable[i] and not comparison.moving[i]]
    chosen = (_evenly(moving, 3) + _evenly(calm, 3))[:3]
    figure = new_figure(6.9, 2.7)
    panels: list[Any] = list(np.ravel(figure.subplots(1, max(len(chosen), 1), squeeze=False)))
    for axes, i in zip(panels, chosen, strict=False):
        before, after = _drawn(grid.log_odds[:-1, i]), _drawn(grid.log_odds[1:, i])
        low, high = _range([before, after, _drawn(comparison.one_step.log_odds[1:, i])], least=3.0)
        state = np.linspace(low, high, 400)
        image = comparison.theory.step(np.full(400, p[i]), state) if usable[i] else np.full(400, np.nan)
        axes.plot(state, _drawn(image), color=ORANGE, lw=2.0, label="predicted step $h$")
        axes.plot([low, high], [low, high], color=GREY, lw=0.8, label="$p_n=p_{n-1}$")
        axes.plot(before, after, "-", color=BLUE, lw=0.4, alpha=0.5)
        axes.plot(before, after, "o", color=BLUE, ms=3.5, label="measured")
        for which in ("x", "y"):
            probability_axis(axes, which, low, high, most=5)
        axes.set(
            xlabel="$p_{n-1}$", ylabel="$p_n$", title=rf"$p_{{\mathrm{{ref}}}}={p[i]:.3g}$, {_word(comparison, i)}"
        )
        axes.set_box_aspect(1)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return figure


@styled
def error_bars(comparison: Comparison) -> Figure:
    """Return how large the error of one step is in each iteration, and its causes."""
    split = comparison.split
    figure = new_figure(6.9, 2.6)
    axes = figure.subplots()
    exact = bool(split.exact.all())
    words = {
        "statistical": "statistical: chance" + ("" if exact else " (expected)"),
        "optimisation": "optimisation: the inner loop stopped" + ("" if exact else " (at most)"),
        "approximation": "approximation: what is left" + ("" if exact else " (at least)"),
    }
    colors: dict[str, str] = dict(zip(PARTS, (BLUE, ORANGE, VERMILION), strict=True))
    drawn = [name for name in PARTS if np.nanmax(getattr(split, name), initial=0.0) > 1e-9]
    step = float(np.min(np.diff(split.iterations))) if len(split.iterations) > 1 else 1.0
    width = 0.8 * step / max(len(drawn), 1)
    for k, name in enumerate(drawn):
        place = split.iterations + (k - (len(drawn) - 1) / 2) * width
        axes.bar(place, getattr(split, name), width, color=colors[name], label=words[name])
    for name in PARTS:
        if name not in drawn:
            axes.plot([], [], "s", ms=6, color=colors[name], label=f"{words[name]}: none")
    axes.plot(split.iterations, split.total, "o-", color=BLACK, ms=3, lw=0.9, label="whole error of one step")
    axes.set(xlabel="iteration $n$", ylabel="root mean square, in $p$", title="Error of one step and its causes")
    axes.set_ylim(0, max(float(np.nanmax(split.total, initial=0.0)) * 1.1, 1e-6))
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def _evenly(items: list[int], count: int) -> list[int]:
    """A few of the items, from the first to the last."""
    if not items:
        return []
    return [items[i] for i in np.unique(np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int))]


def _drawn(log_odds: Array) -> Any:
    return np.clip(log_odds, -SPREAD, SPREAD)


def _range(values: list[Array], least: float = 0.0) -> tuple[float, float]:
    """What an axis shows: all values and some room, at least so many log-odds."""
    joined = np.concatenate([np.ravel(x) for x in values])
    joined = joined[np.isfinite(joined)]
    low, high = (float(joined.min()), float(joined.max())) if joined.size else (-4.0, 4.0)
    room = max(0.6, (least - high + low) / 2)
    return max(low - room, -SPREAD - 0.4), min(high + room, SPREAD + 0.4)


def _band(axes: Axes, n: Array, low: Array, high: Array, color: str) -> None:
    if np.any(high > low):
        axes.fill_between(n, _drawn(log_odds_of(low)), _drawn(log_odds_of(high)), color=color, alpha=0.12, lw=0)


def _dots(axes: Axes, n: Array, grid: Any, i: int, color: str) -> None:
    """Dots; with the interval where p was counted."""
    at = _drawn(grid.log_odds[:, i])
    if grid.sampled[:, i].any():
        low, high = (_drawn(log_odds_of(bound[:, i])) for bound in (grid.low, grid.high))
        axes.vlines(n, low, high, color=color, lw=0.7, alpha=0.6)
    axes.plot(n, at, "o", color=color, ms=3.6, clip_on=False)


def _shows_fit(comparison: Comparison) -> bool:
    """Whether the fitted line is another than the predicted one."""
    kappa = comparison.fitted.kappa
    return bool(np.isfinite(kappa)) and not (comparison.theory.has_orbits and abs(kappa - 1) < 0.02)


def _dash(comparison: Comparison, i: int) -> Any:
    return (0, (4, 1.6)) if comparison.moving[i] else "-"


def _word(comparison: Comparison, i: int) -> str:
    """What the path of a question does in the end, by the theory."""
    words = {LimitKind.ONE: "goes to 1", LimitKind.FIXED_POINT: "settles", LimitKind.CYCLE: "oscillates"}
    return words.get(LimitKind(int(comparison.kind[i])), "irregular" if comparison.moving[i] else "not settled")


def _title(comparison: Comparison) -> str:
    return "Measured (dots) and predicted" + (" (lines)" if comparison.theory.has_orbits else r" ends $p^*$ (◂)")


def _handles(comparison: Comparison, chosen: list[int]) -> Any:
    from matplotlib.lines import Line2D

    for i, color in zip(chosen, itertools.cycle(PALETTE), strict=False):
        text = rf"$p_{{\mathrm{{ref}}}}={comparison.grid.p[0, i]:.3g}$"
        yield Line2D([], [], color=color, marker="o", ms=3.6, lw=1.3, ls=_dash(comparison, i), label=text)
    if comparison.moving[chosen].any():
        yield Line2D([], [], color=GREY, ls=(0, (4, 1.6)), label="from the dot before")
    if _shows_fit(comparison):
        yield Line2D([], [], color=GREY, ls=":", label=rf"fitted, $\kappa={comparison.fitted.kappa:.3g}$")

"""A picture of single questions, drawn at random: success against iteration, the prediction and its interval on top.

As Figure 3 of [2503.06639v4], which has the measured rates of seven questions and no prediction beside them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from grpo_dynamics.plotting import BLUE, GREY, ORANGE, VERMILION, new_figure, styled
from grpo_dynamics.validation.compare import Comparison
from grpo_dynamics.validation.prediction_intervals import LEVEL

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COUNT, COLUMNS = 8, 4
"""So many questions, side by side."""

LONGEST = 16
"""So many characters of a prompt stand above its panel."""


def drawn_at_random(questions: int, count: int = COUNT, seed: int = 0) -> list[int]:
    """Return indices of a few of the questions, all equally probable, in their order.

    >>> drawn_at_random(3)
    [0, 1, 2]
    """
    return sorted(int(i) for i in np.random.default_rng(seed).permutation(questions)[:count])


@styled
def single_questions(comparison: Comparison, seed: int = 0) -> Figure:
    """Return measured p_n of questions drawn at random, dots, on the predicted path and its interval.

    Args:
        comparison: an arm of a theory with orbits.
        seed: of the draw: arms with the same questions show the same ones.
    """
    grid, interval = comparison.grid, comparison.interval
    chosen = drawn_at_random(len(grid.questions), seed=seed)
    inside = interval.inside(grid.p)
    columns = min(COLUMNS, len(chosen))
    rows = -(-len(chosen) // columns)
    figure = new_figure(6.9, 0.75 + 1.3 * rows)
    panels: list[Any] = list(figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel())
    for axes, i in zip(panels, chosen, strict=False):
        _panel(axes, comparison, i, inside[:, i])
    for axes in panels[len(chosen) :]:
        axes.set_axis_off()
    for axes in panels[::columns]:
        axes.set_ylabel("success $p_n$")
    for axes in panels[max(len(chosen) - columns, 0) : len(chosen)]:
        axes.set_xlabel("iteration $n$")
        axes.tick_params(labelbottom=True)
    which = f"{len(chosen)} of {len(grid.questions)} questions, drawn at random"
    counted = inside[np.isfinite(inside)]
    figure.suptitle(
        f"{which}. Inside: {int(counted.sum())} of all {counted.size} measurements.",
        fontsize=9,
        x=0.01,
        ha="left",
    )
    figure.legend(handles=list(_handles(bool(grid.sampled.any()))), loc="outside lower center", ncols=4)
    return figure


def _panel(axes: Axes, comparison: Comparison, i: int, inside: Any) -> None:
    from matplotlib.ticker import MaxNLocator

    grid, interval = comparison.grid, comparison.interval
    n, p = grid.iterations, grid.p[:, i]
    low, high = (np.concatenate([p[:1], bound[1:, i]]) for bound in (interval.low, interval.high))
    axes.fill_between(n, low, high, color=ORANGE, alpha=0.35, lw=0)
    axes.plot(n, comparison.orbit.p[:, i], color=ORANGE, lw=1.4)
    if grid.sampled[:, i].any():
        axes.vlines(n, grid.low[:, i], grid.high[:, i], color=BLUE, lw=0.8, alpha=0.7)
    axes.plot(n, p, color=BLUE, lw=0.4, alpha=0.5)
    for chosen, marker, color in ((inside != 0, "o", BLUE), (inside == 0, "D", VERMILION)):
        if chosen.any():  # without a dot there is nothing whose place the layout could ask for
            axes.plot(n[chosen], p[chosen], marker, color=color, ms=3.3, clip_on=False)
    axes.set(ylim=(-0.03, 1.03), yticks=[0, 0.5, 1])
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    known = 0 < p[0] < 1
    reference = rf"$p_{{\mathrm{{ref}}}}={p[0]:.2g}$" if known else r"$p_{\mathrm{ref}}$ unknown"
    axes.set_title(_name(comparison, i), loc="left", fontsize=8, parse_math=False)
    axes.set_title(reference, loc="right", fontsize=7.5, color=GREY)


def _name(comparison: Comparison, i: int) -> str:
    """The prompt of a question on one line, or its id where there is no prompt."""
    id, asked = comparison.grid.questions[i], comparison.arm.questions
    name = id
    if asked is not None and {"question_id", "prompt"} <= set(asked.columns):
        rows = asked.filter(asked["question_id"] == id)
        name = str(rows["prompt"][0]) if rows.height else id
    name = " ".join(name.split())
    return name if len(name) <= LONGEST else name[: LONGEST - 1] + "…"


def _handles(sampled: bool) -> Any:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    yield Line2D([], [], color=ORANGE, lw=1.4, label="predicted")
    yield Patch(color=ORANGE, alpha=0.35, lw=0, label=f"{LEVEL:.0%} of predicted runs")
    yield Line2D([], [], color=BLUE, marker="o", ms=3.2, lw=0.4, label="measured" + ", 95 %" * sampled)
    yield Line2D([], [], color=VERMILION, marker="D", ms=3.4, ls="", label="measured, outside")

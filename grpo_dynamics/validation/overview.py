"""All arms of a run in one picture, for the top of its report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from grpo_dynamics.plotting import new_figure, styled
from grpo_dynamics.validation.compare import Comparison
from grpo_dynamics.validation.figures import draw_paths, representatives

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = 3
"""So many arms stand side by side, at most."""

SHOWN = 5
"""So many questions of each arm are drawn."""


@styled
def overview(compared: Sequence[Comparison]) -> Figure:
    """Return p_n of a few questions of every arm on the predicted curves, a panel for each arm."""
    columns = min(COLUMNS, len(compared))
    rows = -(-len(compared) // columns)
    figure = new_figure(6.9, 2.1 * rows)
    panels: list[Any] = list(figure.subplots(rows, columns, squeeze=False).ravel())
    for axes, found in zip(panels, compared, strict=False):
        draw_paths(axes, found, representatives(found, SHOWN), fitted=False)
        axes.set_title(found.arm.name, parse_math=False)
    for axes in panels[len(compared) :]:
        axes.set_axis_off()
    for axes in panels[::columns]:
        axes.set_ylabel("success $p_n$")
    for k in range(columns):
        under = [axes for axes in panels[k::columns] if axes.axison]
        if under:
            under[-1].set_xlabel("iteration $n$")
    return figure

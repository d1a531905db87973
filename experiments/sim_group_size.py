"""Where training ends depends on the group size: measured beside the flow with Ω of a group of G."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from grpo_dynamics import FiniteGroup, Flow, Whitened, fixed_points
from grpo_dynamics.plotting import BLUE, GREEN, ORANGE, VERMILION, new_figure, styled
from grpo_dynamics.simulation.measurement import ending
from grpo_dynamics.simulation.outcomes import Outcomes
from grpo_dynamics.simulation.runs import Part, independent, own_seed
from grpo_dynamics.simulation.tabular import simulate
from grpo_dynamics.update_rule import Training

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = "Group size: where training ends"
QUICK: dict[str, Any] = {"group_sizes": [2, 8], "steps": 400, "copies": 8}
COLORS = (BLUE, VERMILION, GREEN, ORANGE)


@dataclasses.dataclass(frozen=True)
class Settings:
    """Questions of several difficulties; ``training`` is that of every group size."""

    training: Training
    p_ref: tuple[float, ...] = (0.02, 0.1, 0.2)
    group_sizes: tuple[int, ...] = (2, 4, 8, 16, 32, 64)
    steps: int = 1500
    copies: int = 64


def parts(settings: Settings, seed: int) -> list[Part]:
    return [
        independent(f"groups of {size}", lambda s=size, i=i: rows(settings, s, own_seed(seed, i)))
        for i, size in enumerate(settings.group_sizes)
    ]


def rows(settings: Settings, group_size: int, seed: int) -> pl.DataFrame:
    """Columns p_ref, group_size, p, standard_error, predicted (with G), infinite (with exact statistics)."""
    normalization = dataclasses.replace(settings.training.normalization, group_size=group_size)
    training = dataclasses.replace(settings.training, normalization=normalization)
    p_ref = np.asarray(settings.p_ref)
    made = simulate(Outcomes.uniform(np.repeat(p_ref, settings.copies)), training, settings.steps, seed)
    p, error = ending(made.p, settings.copies)
    assert isinstance(normalization, FiniteGroup)
    infinite = Whitened(normalization.eps, normalization.eps_placement)
    return pl.DataFrame(
        {
            "p_ref": p_ref,
            "group_size": np.full(p_ref.shape, group_size),
            "p": p,
            "standard_error": error,
            "predicted": fixed_points(Flow(training.beta, p_ref, normalization, training.kl)).p[0],
            "infinite": fixed_points(Flow(training.beta, p_ref, infinite, training.kl)).p[0],
        }
    )


def summary(table: pl.DataFrame) -> pl.DataFrame:
    """Return measured and predicted p*, and their difference in standard errors."""
    sigmas = (pl.col("p") - pl.col("predicted")) / pl.col("standard_error")
    return table.drop("infinite").with_columns(difference_in_errors=sigmas).sort("p_ref", "group_size")


@styled
def draw(table: pl.DataFrame) -> Figure:
    figure = new_figure(5.6, 3.5)
    axes = figure.subplots()
    for color, line in zip(COLORS, table.sort("group_size").partition_by("p_ref", maintain_order=True), strict=False):
        p_ref = line["p_ref"][0]
        axes.plot(line["group_size"], line["predicted"], color=color, lw=1.3)
        axes.errorbar(
            line["group_size"],
            line["p"],
            2 * line["standard_error"],
            fmt="o",
            ms=4.5,
            color=color,
            capsize=3,
            label=rf"$p_{{\mathrm{{ref}}}}={p_ref:g}$",
        )
        axes.axhline(line["infinite"][0], color=color, lw=0.9, ls=":")
    axes.plot([], [], color="black", lw=1.3, label=r"predicted with $\Omega_G$")
    axes.plot([], [], color="black", lw=0.9, ls=":", label=r"predicted for $G=\infty$")
    axes.set(xscale="log", xlabel="group size $G$", ylabel="where training ends, $p^*$", ylim=(0, 0.8))
    sizes = table["group_size"].unique().sort().to_list()
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.minorticks_off()
    figure.legend(loc="outside lower center", ncols=3)
    return figure

"""PPO, RLOO, GRPO and Dr. GRPO on the same questions: who is how fast, and where each ends."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from grpo_dynamics import Flow, MeanOnly, Normalization, fixed_points
from grpo_dynamics.plotting import BLUE, GREEN, ORANGE, VERMILION, new_figure, styled
from grpo_dynamics.simulation.measurement import ending, over_copies
from grpo_dynamics.simulation.outcomes import Outcomes
from grpo_dynamics.simulation.runs import Part, independent, own_seed
from grpo_dynamics.simulation.tabular import simulate
from grpo_dynamics.update_rule import Training

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = "PPO, RLOO, GRPO and Dr. GRPO side by side"
QUICK: dict[str, Any] = {"steps": 300, "copies": 8}
NAMES = {"grpo": "GRPO", "dr_grpo": "Dr. GRPO", "rloo": "RLOO", "ppo": "PPO with a critic"}
COLORS = {"grpo": BLUE, "dr_grpo": VERMILION, "rloo": GREEN, "ppo": ORANGE}
MARKS = {"rloo": {"marker": "s", "ms": 7, "mfc": "none"}, "ppo": {"marker": "o", "ms": 2.5}}
"""RLOO and PPO lie on each other: one is drawn as squares around the other."""
SHOWN = 61
"""Records of a run that are kept."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """Questions of several difficulties; ``training`` is GRPO's, and all share its β, group size and learning rate."""

    training: Training
    p_ref: tuple[float, ...] = (0.02, 0.1, 0.3)
    critic_rate: float = 0.1
    steps: int = 1500
    copies: int = 48


def parts(settings: Settings, seed: int) -> list[Part]:
    return [
        independent(NAMES[name], lambda name=name, i=i: rows(settings, name, own_seed(seed, i)))
        for i, name in enumerate(NAMES)
    ]


def method(settings: Settings, name: str) -> tuple[Training, Normalization]:
    """Return how a method trains, and the normalisation whose Ω it has on average."""
    grpo, size = settings.training, settings.training.size
    if name == "grpo":
        return grpo, grpo.normalization
    if name == "dr_grpo":
        return dataclasses.replace(grpo, normalization=MeanOnly(size)), MeanOnly(size)
    more = {"advantage": "rloo"} if name == "rloo" else {"advantage": "critic", "critic_rate": settings.critic_rate}
    return dataclasses.replace(grpo, normalization=MeanOnly(), group_size=size, **more), MeanOnly()


def rows(settings: Settings, name: str, seed: int) -> pl.DataFrame:
    """Columns method, p_ref, t, p, standard_error, flow, end, end_error, predicted_end; t = 2·learning rate·steps."""
    training, normalization = method(settings, name)
    p_ref = np.asarray(settings.p_ref)
    made = simulate(Outcomes.uniform(np.repeat(p_ref, settings.copies)), training, settings.steps, seed)
    end, end_error = ending(made.p, settings.copies, share=1 / 3)
    every = max(1, settings.steps // (SHOWN - 1))
    p, error = over_copies(np.asarray(made.p)[::every], settings.copies)
    t = 2 * training.learning_rate * np.asarray(made.steps, dtype=float)[::every]
    flow = Flow(training.beta, p_ref, normalization, training.kl)
    path, points = flow.integrate(t).p, fixed_points(flow).p[0]
    tables = [
        pl.DataFrame({"t": t, "p": p[:, i], "standard_error": error[:, i], "flow": path[:, i]}).with_columns(
            method=pl.lit(name),
            p_ref=pl.lit(reference),
            end=pl.lit(end[i]),
            end_error=pl.lit(end_error[i]),
            predicted_end=pl.lit(points[i]),
        )
        for i, reference in enumerate(settings.p_ref)
    ]
    return pl.concat(tables)


def summary(table: pl.DataFrame) -> pl.DataFrame:
    """Return where each method ends, beside the flow's fixed point, and the time to half of that."""
    return table.group_by("method", "p_ref", maintain_order=True).agg(
        pl.col("end", "end_error", "predicted_end").first(),
        ((pl.col("end") - pl.col("predicted_end")) / pl.col("end_error")).first().alias("difference_in_errors"),
        pl.col("t").filter(pl.col("p") >= pl.col("predicted_end") / 2).first().alias("time_to_half"),
    )


@styled
def draw(table: pl.DataFrame) -> Figure:
    references = table["p_ref"].unique().sort().to_list()
    figure = new_figure(7.6, 3.2)
    grid = figure.subplots(1, len(references), squeeze=False)[0]
    for axes, reference in zip(grid, references, strict=True):
        for line in table.filter(p_ref=reference).partition_by("method", maintain_order=True):
            name = line["method"][0]
            axes.plot(line["t"], line["flow"], color=COLORS[name], lw=1.2)
            some = line[:: max(1, line.height // 15)]
            look = {"color": COLORS[name], "marker": "o", "ms": 3.5, **MARKS.get(name, {})}
            axes.errorbar(
                some["t"],
                some["p"],
                2 * some["standard_error"],
                ls="none",
                capsize=2,
                elinewidth=0.8,
                label=NAMES[name],
                **look,
            )
        axes.set_title(rf"$p_{{\mathrm{{ref}}}}={reference:g}$")
        axes.set(xlabel=r"time $2\eta\,\times$ steps", ylim=(0, None))
    grid[0].set_ylabel("success probability $p$")
    grid[0].plot([], [], color="black", lw=1.2, label="predicted flow")
    figure.legend(*grid[0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
    return figure

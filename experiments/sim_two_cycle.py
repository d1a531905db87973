"""A sampled policy that swings between two states for ever; small groups and a KL to the last policy end that."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from grpo_dynamics import FiniteGroup, Recursion, fixed_points, logit
from grpo_dynamics.plotting import BLUE, GREEN, GREY, VERMILION, new_figure, probability_axis, styled
from grpo_dynamics.simulation.measurement import over_copies
from grpo_dynamics.simulation.outcomes import Outcomes
from grpo_dynamics.simulation.runs import Part, independent, own_seed
from grpo_dynamics.simulation.tabular import simulate
from grpo_dynamics.update_rule import Training

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = "Two-cycles in a sampled policy"
QUICK: dict[str, Any] = {"steps": 20, "copies": 4, "panels": [[1024, 1.0], [8, 1.0]], "samples": 65536}
SETTLED = 300
"""After so many iterations the recursion is at rest, or on its two-cycle, to rounding."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """One hard question; ``panels`` lists pairs of group size and α.

    The number of groups is such that every panel has ``samples`` answers per step. With α the KL strength is β/α, so
    that all panels have the fixed points of α = 1.
    """

    training: Training
    p_ref: float = 1e-3
    panels: tuple[tuple[int, float], ...] = ((4096, 1.0), (64, 1.0), (8, 1.0), (4096, 0.5))
    samples: int = 1 << 20
    steps: int = 40
    copies: int = 16


def parts(settings: Settings, seed: int) -> list[Part]:
    return [
        independent(
            f"groups of {size}, α = {alpha:g}",
            lambda s=int(size), a=alpha, i=i: rows(settings, s, a, own_seed(seed, i)),
        )
        for i, (size, alpha) in enumerate(settings.panels)
    ]


def rows(settings: Settings, group_size: int, alpha: float, seed: int) -> pl.DataFrame:
    """Columns group_size, alpha, n, p, standard_error, one_copy, predicted, period, low, high, fixed, stable.

    One natural gradient step of rate 1/β on sampled groups is an iteration of the recursion, up to the samples' noise.
    ``predicted`` is the recursion from p_ref; ``low`` and ``high`` are the ends of what it settles to.
    """
    beta = settings.training.beta / alpha
    normalization = FiniteGroup(group_size)
    training = dataclasses.replace(
        settings.training,
        beta=beta,
        alpha=alpha,
        normalization=normalization,
        natural=True,
        learning_rate=1 / beta,
        groups=max(1, settings.samples // group_size),
    )
    made = simulate(Outcomes.uniform(np.full(settings.copies, settings.p_ref)), training, settings.steps, seed)
    p, error = over_copies(made.p, settings.copies)
    recursion = Recursion(beta, settings.p_ref, normalization, alpha)
    points, settled = fixed_points(recursion), recursion.iterate(SETTLED).p[-2:]
    values = {
        "period": 1 if np.ptp(settled) < 1e-9 else 2,
        "low": float(settled.min()),
        "high": float(settled.max()),
        "fixed": float(points.p[0]),
        "stable": bool(points.stable[0]),
    }
    columns = {"n": np.arange(settings.steps + 1), "p": p[:, 0], "standard_error": error[:, 0]}
    columns |= {"one_copy": np.asarray(made.p)[:, 0], "predicted": recursion.iterate(settings.steps).p}
    table = pl.DataFrame(columns).select(pl.lit(group_size).alias("group_size"), pl.lit(alpha).alias("alpha"), pl.all())
    return table.with_columns(**{name: pl.lit(value) for name, value in values.items()})


def summary(table: pl.DataFrame) -> pl.DataFrame:
    """Return how far the sampled policy still swings at the end, beside the predicted cycle."""
    late = table.filter(pl.col("n") >= pl.col("n").max() - 9)
    swings = late.group_by("group_size", "alpha", maintain_order=True).agg(
        pl.col("p").filter(pl.col("n") % 2 == 0).mean().alias("even"),
        pl.col("p").filter(pl.col("n") % 2 == 1).mean().alias("odd"),
        pl.col("standard_error").mean(),
        pl.col("period", "low", "high", "fixed", "stable").first(),
    )
    return swings.select(
        "group_size",
        "alpha",
        pl.min_horizontal("even", "odd").alias("low"),
        pl.max_horizontal("even", "odd").alias("high"),
        pl.col("standard_error").alias("error"),
        pl.col("low").alias("predicted_low"),
        pl.col("high").alias("predicted_high"),
        "period",
    )


@styled
def draw(table: pl.DataFrame) -> Figure:
    panels = table.partition_by("group_size", "alpha", maintain_order=True)
    figure = new_figure(7.4, 1.4 + 2.1 * ((len(panels) + 1) // 2))
    grid = figure.subplots((len(panels) + 1) // 2, 2, sharex=True, sharey=True, squeeze=False)
    low, high = float(logit(table["p"].min())) - 0.7, float(logit(table["p"].max())) + 0.7
    for axes, line in zip(grid.ravel(), panels, strict=False):
        stable = line["stable"][0]
        axes.axhline(
            logit(line["fixed"][0]), color=GREEN if stable else VERMILION, lw=1.0, ls="-" if stable else (0, (4, 2.5))
        )
        axes.plot(line["n"], logit(line["predicted"].to_numpy()), color=GREY, lw=1.0)
        bars = np.stack([logit(np.clip(line["p"] + sign * 2 * line["standard_error"], 1e-9, 1)) for sign in (-1, 1)])
        at = logit(line["p"].to_numpy())
        axes.errorbar(line["n"], at, np.abs(bars - at), fmt="o", color=BLUE, ms=3, capsize=1.5, lw=0.8)
        alpha = line["alpha"][0]
        words = f"period {line['period'][0]}" if line["period"][0] > 1 else "settles"
        axes.set_title(f"$G={line['group_size'][0]}$" + (rf", $\alpha={alpha:g}$" if alpha < 1 else "") + f": {words}")
        probability_axis(axes, "y", low, high)
    for axes in grid[-1]:
        axes.set_xlabel("iteration $n$")
    for axes in grid[:, 0]:
        axes.set_ylabel("$p_n$")
    handles = [
        ("o", BLUE, "sampled policy, mean of the copies ± 2 standard errors"),
        ("-", GREY, "recursion from $p_{\\mathrm{ref}}$"),
        ("-", GREEN, "stable fixed point"),
        ("--", VERMILION, "unstable fixed point"),
    ]
    for style, color, label in handles:
        grid[0, 0].plot([], [], style, color=color, ms=3, lw=1.0, label=label)
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure

"""The clip range decides how fast training is, not where it ends."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from grpo_dynamics import Recursion, fixed_points, logit, sigmoid
from grpo_dynamics.plotting import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, VERMILION, new_figure, styled
from grpo_dynamics.simulation.measurement import over_copies
from grpo_dynamics.simulation.outcomes import Outcomes
from grpo_dynamics.simulation.runs import Part, independent, own_seed
from grpo_dynamics.simulation.tabular import simulate
from grpo_dynamics.update_rule import Training

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = "Clip range: speed"
QUICK: dict[str, Any] = {"clip_ranges": [0.2, 0.0], "steps": 10, "copies": 4}
NO_CLIP = 0.0
COLORS = (BLUE, GREEN, ORANGE, VERMILION, PURPLE)


@dataclasses.dataclass(frozen=True)
class Settings:
    """One question, many inner steps per outer step; a clip range of 0 stands for no clipping."""

    training: Training
    p_ref: float = 0.02
    clip_ranges: tuple[float, ...] = (0.05, 0.1, 0.2, 0.4, NO_CLIP)
    steps: int = 120
    copies: int = 16

    def __post_init__(self) -> None:
        """Refuse clip ranges that mean nothing."""
        for clip in self.clip_ranges:
            if not 0 <= clip <= 1:
                raise ValueError(f"clip_ranges must be numbers from 0 (no clipping) to 1, got {clip!r}")


def parts(settings: Settings, seed: int) -> list[Part]:
    return [
        independent(f"clip range {clip:g}", lambda c=clip, i=i: rows(settings, c, own_seed(seed, i)))
        for i, clip in enumerate(settings.clip_ranges)
    ]


def rows(settings: Settings, clip: float, seed: int) -> pl.DataFrame:
    """Columns clip_range, step, p, standard_error, predicted, fixed.

    ``predicted`` is the recursion with clipping, ``fixed`` the fixed point of the one without: there all ratios are 1
    and no clip range acts.
    """
    low_high = {"clip_low": clip or None, "clip_high": clip or None}
    training = dataclasses.replace(settings.training, **low_high)
    made = simulate(Outcomes.uniform(np.full(settings.copies, settings.p_ref)), training, settings.steps, seed)
    p, error = over_copies(made.p, settings.copies)
    recursion, log_odds = (
        Recursion(training.beta, settings.p_ref, training.normalization),
        [float(logit(settings.p_ref))],
    )
    for _ in range(settings.steps):
        log_odds.append(clipped_step(recursion, log_odds[-1], clip))
    columns = {"step": np.arange(settings.steps + 1), "p": p[:, 0], "standard_error": error[:, 0]}
    columns["predicted"] = sigmoid(np.array(log_odds))
    fixed = float(fixed_points(recursion).p[0])
    table = pl.DataFrame(columns).select(pl.lit(clip).alias("clip_range"), pl.all())
    return table.with_columns(fixed=pl.lit(fixed))


def clipped_step(recursion: Recursion, log_odds: float, clip: float) -> float:
    """Return the minimiser of the step's objective with ratios clipped to 1 ± c.

    As p rises, the right answers stop to count where their ratio is 1 + c, the wrong ones where theirs is 1 − c; in
    between only the other kind pushes. The objective is concave in the log-odds, so the minimiser is where the push
    that is left meets the pull β(L − L_ref).
    """
    free = float(recursion.step(log_odds))
    if not clip:
        return free
    p, q = float(sigmoid(log_odds)), float(sigmoid(-log_odds))
    right_stops = float(logit(min((1 + clip) * p, 1 - 1e-12)))
    wrong_stops = -float(logit((1 - clip) * q)) if clip < 1 else np.inf
    normalization = recursion.normalization
    left = normalization.negative(log_odds) if right_stops < wrong_stops else normalization.positive(log_odds)
    reference = float(logit(recursion.p_ref))
    first, second = sorted([right_stops, wrong_stops])
    between = reference + float(left) / recursion.beta
    if free <= first:
        return free
    return max(first, between) if between <= second else max(second, reference)


def summary(table: pl.DataFrame) -> pl.DataFrame:
    """Return the steps to half of p*, measured and predicted, and p over the last quarter beside p*."""

    def steps(column: str) -> pl.Expr:
        return pl.col("step").filter(pl.col(column) >= pl.col("fixed") / 2).first()

    late = pl.col("step") >= pl.col("step").max() * 3 / 4
    return table.group_by("clip_range", maintain_order=True).agg(
        steps("p").alias("steps_to_half"),
        steps("predicted").alias("predicted_steps"),
        pl.col("p").filter(late).mean().alias("p_at_the_end"),
        pl.col("standard_error").last(),
        pl.col("fixed").last().alias("predicted_end"),
    )


@styled
def draw(table: pl.DataFrame) -> Figure:
    figure = new_figure(7.4, 3.3)
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    lines = table.partition_by("clip_range", maintain_order=True)
    for i, line in enumerate(lines):
        clip = line["clip_range"][0]
        color = COLORS[i % len(COLORS)] if clip else BLACK
        left.plot(line["step"], line["p"], color=color, lw=1.4, label=f"±{clip:g}" if clip else "no clipping")
        spread = 2 * line["standard_error"]
        left.fill_between(line["step"], line["p"] - spread, line["p"] + spread, color=color, alpha=0.25, lw=0)
        left.plot(line["step"], line["predicted"], color=color, lw=1.0, ls=":")
    left.plot([], [], color=GREY, lw=1.0, ls=":", label="predicted")
    left.axhline(table["fixed"][0], color=GREY, lw=0.9, zorder=1, label="predicted $p^*$")
    left.set(xlabel="outer step $n$", ylabel="success probability $p$", ylim=(0, None))
    left.legend(ncols=2, loc="upper right", fontsize=7.5, title="clip range")
    ends = summary(table).filter(pl.col("clip_range") > 0)
    right.plot(ends["clip_range"], ends["predicted_steps"], color=GREY, ls=":", lw=1.2, label="predicted")
    right.plot(ends["clip_range"], ends["steps_to_half"], "o", color=BLUE, label="measured")
    free = summary(table).filter(pl.col("clip_range") == 0)["steps_to_half"]
    if len(free) and free[0] is not None:
        right.axhline(free[0], color=BLACK, lw=1.0, label="no clipping")
    right.set(xscale="log", yscale="log", xlabel="clip range $c$", ylabel="outer steps to half of $p^*$")
    ticks = ends["clip_range"].to_list()
    right.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    right.set_yticks([1, 2, 5, 10, 20, 50], ["1", "2", "5", "10", "20", "50"])
    right.minorticks_off()
    right.legend(fontsize=7.5)
    return figure

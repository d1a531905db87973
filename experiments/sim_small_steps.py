"""Small gradient steps follow the flow: the distance to it falls in proportion to the learning rate."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from grpo_dynamics import Flow, sigmoid
from grpo_dynamics.plotting import BLUE, GREEN, GREY, ORANGE, VERMILION, new_figure, styled
from grpo_dynamics.simulation.measurement import over_copies
from grpo_dynamics.simulation.outcomes import Outcomes
from grpo_dynamics.simulation.runs import Part, independent, own_seed
from grpo_dynamics.simulation.tabular import simulate
from grpo_dynamics.update_rule import Training

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = "Learning rate: from gradient steps to the flow"
QUICK: dict[str, Any] = {"learning_rates": [2.0, 0.5], "time": 20.0, "copies": 8}


@dataclasses.dataclass(frozen=True)
class Settings:
    """One question with one right and one wrong answer, trained for the same time at each learning rate."""

    training: Training
    p_ref: float = 0.1
    learning_rates: tuple[float, ...] = (4.0, 2.0, 1.0, 0.5, 0.25, 0.125)
    time: float = 40.0
    copies: int = 64


def parts(settings: Settings, seed: int) -> list[Part]:
    sweep = [(update, rate) for update in ("gradient", "sampled") for rate in settings.learning_rates]
    return [
        independent(
            f"{update}, learning rate {rate:g}", lambda u=update, r=rate, i=i: rows(settings, u, r, own_seed(seed, i))
        )
        for i, (update, rate) in enumerate(sweep)
    ]


def rows(settings: Settings, update: str, rate: float, seed: int) -> pl.DataFrame:
    """Columns update, learning_rate, t, log_odds, standard_error, flow.

    With one right and one wrong answer a step of rate η moves the flow's time by 2η.
    """
    base, copies = settings.training, settings.copies if update == "sampled" else 1
    sizes = {"group_size": None, "groups": 1} if update == "gradient" else {}
    training = dataclasses.replace(base, update=update, learning_rate=rate, **sizes)
    steps = max(1, round(settings.time / (2 * rate)))
    made = simulate(Outcomes.uniform(np.full(copies, settings.p_ref)), training, steps, seed)
    log_odds, error = over_copies(made.log_odds, copies)
    t = 2 * rate * np.asarray(made.steps, dtype=float)
    flow = Flow(base.beta, settings.p_ref, base.normalization, base.kl).integrate(t).log_odds
    columns = {"t": t, "log_odds": log_odds[:, 0], "standard_error": error[:, 0], "flow": flow}
    return pl.DataFrame(columns).select(pl.lit(update).alias("update"), pl.lit(rate).alias("learning_rate"), pl.all())


def summary(table: pl.DataFrame) -> pl.DataFrame:
    """Return the distance in log-odds to the flow, where that of exact expectations is largest, and its error."""
    distance = (pl.col("log_odds") - pl.col("flow")).abs()
    at = (
        table.filter(update="gradient")
        .group_by("learning_rate", maintain_order=True)
        .agg(pl.col("t").get(distance.arg_max()))
    )
    return table.join(at, on=["learning_rate", "t"], maintain_order="left").select(
        "update",
        "learning_rate",
        distance.alias("distance"),
        pl.col("standard_error").fill_nan(None),
        (distance / pl.col("learning_rate")).alias("distance_per_rate"),
    )


@styled
def draw(table: pl.DataFrame) -> Figure:
    figure = new_figure(7.4, 3.3)
    left, right = figure.subplots(1, 2)
    rates = table["learning_rate"].unique().sort(descending=True).to_list()
    for rate, color in zip(rates[:3], (VERMILION, ORANGE, BLUE), strict=False):
        line = table.filter(update="gradient", learning_rate=rate)
        left.plot(line["t"], sigmoid(line["log_odds"].to_numpy()), "o", ms=4, color=color, label=rf"$\eta={rate:g}$")
    finest = table.filter(update="gradient", learning_rate=rates[-1])
    left.plot(finest["t"], sigmoid(finest["flow"].to_numpy()), color=GREEN, zorder=1, label="predicted flow")
    left.set(xlabel=r"time $t=2\eta\,\times$ steps", ylabel="success probability $p$")
    left.set_title("exact expectations")
    left.legend()
    ends = summary(table)
    exact, sampled = ends.filter(update="gradient"), ends.filter(update="sampled")
    right.plot(exact["learning_rate"], exact["distance"], "o-", color=BLUE, label="exact expectations")
    right.errorbar(
        sampled["learning_rate"],
        sampled["distance"],
        2 * sampled["standard_error"],
        fmt="^",
        ms=4,
        color=ORANGE,
        capsize=2,
        label="sampled groups, mean of the copies",
    )
    at = exact["learning_rate"].to_numpy()
    right.plot(at, exact["distance"][-1] * at / at[-1], color=GREY, lw=1.0, ls=":", label=r"proportional to $\eta$")
    right.set(xscale="log", yscale="log", xlabel=r"learning rate $\eta$")
    right.set_title(r"$|L-L^{\mathrm{flow}}|$ where it is largest")
    right.legend(loc="upper left", fontsize=7.5)
    return figure

"""A verifier that errs moves the fixed point: wrong answers called right, and right answers called wrong."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from grpo_dynamics import Normalization, logit, sigmoid
from grpo_dynamics.plotting import BLACK, BLUE, GREY, VERMILION, new_figure, styled
from grpo_dynamics.simulation.measurement import ending
from grpo_dynamics.simulation.outcomes import Outcomes
from grpo_dynamics.simulation.runs import Part, independent, own_seed
from grpo_dynamics.simulation.tabular import simulate
from grpo_dynamics.update_rule import Training

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = "Verifier noise: where training ends"
QUICK: dict[str, Any] = {"rates": [0.0, 0.2], "steps": 400, "copies": 8}
KINDS = {"false_positive": VERMILION, "false_negative": BLUE, "both": BLACK}
NAMES = {
    "false_positive": "wrong answers called right",
    "false_negative": "right answers called wrong",
    "both": "both at the same rate",
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """One question; each kind of error at each of the rates."""

    training: Training
    p_ref: float = 0.1
    rates: tuple[float, ...] = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4)
    steps: int = 1500
    copies: int = 64


def parts(settings: Settings, seed: int) -> list[Part]:
    sweep = [(kind, rate) for kind in KINDS for rate in settings.rates]
    return [
        independent(f"{NAMES[kind]}, {rate:g}", lambda k=kind, r=rate, i=i: rows(settings, k, r, own_seed(seed, i)))
        for i, (kind, rate) in enumerate(sweep)
    ]


def rows(settings: Settings, kind: str, rate: float, seed: int) -> pl.DataFrame:
    """Columns kind, rate, p, standard_error, predicted."""
    positive = rate if kind != "false_negative" else 0.0
    negative = rate if kind != "false_positive" else 0.0
    training = dataclasses.replace(settings.training, false_positive=positive, false_negative=negative)
    made = simulate(Outcomes.uniform(np.full(settings.copies, settings.p_ref)), training, settings.steps, seed)
    p, error = ending(made.p, settings.copies)
    predicted = rest(training.normalization, training.beta, settings.p_ref, positive, negative)
    values = {"kind": kind, "rate": rate, "p": p[0], "standard_error": error[0], "predicted": predicted}
    return pl.DataFrame(values)


def rest(
    normalization: Normalization, beta: float, p_ref: float, false_positive: float, false_negative: float
) -> float:
    """Return the lowest p above p_ref where the flow with a noisy verifier and an exact KL is at rest.

    An answer is called right with probability q = (1−f₋)p + f₊(1−p). Being right adds 1 − f₊ − f₋ to the chance of
    being called right, and that is worth Ω(q): at rest, (1 − f₊ − f₋)·Ω(q) = β(L − L_ref).
    """

    def surplus(log_odds: Any) -> Any:
        p, failure = sigmoid(log_odds), sigmoid(-np.asarray(log_odds))
        called_right = (1 - false_negative) * p + false_positive * failure
        called_wrong = false_negative * p + (1 - false_positive) * failure
        gap = normalization.gap(np.log(called_right) - np.log(called_wrong))
        return (1 - false_positive - false_negative) * gap - beta * (log_odds - logit(p_ref))

    grid = float(logit(p_ref)) + np.linspace(0, 40, 4001)
    first = int(np.argmax(surplus(grid) <= 0))
    if first == 0:
        return p_ref
    low, high = grid[first - 1], grid[first]
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if surplus(middle) > 0 else (low, middle)
    return float(sigmoid(low))


def summary(table: pl.DataFrame) -> pl.DataFrame:
    """Return measured and predicted p*, and their difference in standard errors."""
    sigmas = (pl.col("p") - pl.col("predicted")) / pl.col("standard_error")
    return table.with_columns(difference_in_errors=sigmas)


@styled
def draw(table: pl.DataFrame) -> Figure:
    figure = new_figure(5.6, 3.5)
    axes = figure.subplots()
    for line in table.partition_by("kind", maintain_order=True):
        kind = line["kind"][0]
        axes.plot(line["rate"], line["predicted"], color=KINDS[kind], lw=1.3)
        axes.errorbar(
            line["rate"],
            line["p"],
            2 * line["standard_error"],
            fmt="o",
            ms=4.5,
            capsize=3,
            color=KINDS[kind],
            label=NAMES[kind],
        )
    axes.plot([], [], color=GREY, lw=1.3, label="predicted")
    axes.set(xlabel="error rate of the verifier", ylabel="where training ends, true $p^*$", ylim=(0, None))
    axes.legend(fontsize=7.5)
    return figure

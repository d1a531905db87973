"""Where training ends depends on how the KL term is coded: the table of the estimators, measured."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from grpo_dynamics import Flow, fixed_points
from grpo_dynamics.plotting import BLACK, BLUE, GREY, VERMILION, new_figure, styled
from grpo_dynamics.simulation.measurement import ending
from grpo_dynamics.simulation.outcomes import Outcomes
from grpo_dynamics.simulation.runs import Part, independent, own_seed
from grpo_dynamics.simulation.tabular import simulate
from grpo_dynamics.theory.flow import DIVERGENCES
from grpo_dynamics.update_rule import Training

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = "KL estimator: where training ends"
QUICK: dict[str, Any] = {"estimators": ["k2", "k3", "k1"], "steps": 400, "copies": 8}
COLORS = {"reverse": BLUE, "forward": VERMILION, "none": BLACK}
NAMES = {
    "exact": "exact KL",
    "k1": "k1 in the loss",
    "k2": "k2 in the loss",
    "k3": "k3 in the loss",
    "k1_in_reward": "k1 in the reward",
    "k1_times_ratio": "k1 × ratio",
    "k3_times_ratio": "k3 × ratio",
    "none": "no KL term",
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """One question with several right and wrong answers; ``training`` is that of every estimator."""

    training: Training
    p_ref: float = 0.1
    right: int = 3
    wrong: int = 7
    estimators: tuple[str, ...] = tuple(NAMES)
    steps: int = 3000
    copies: int = 64


def parts(settings: Settings, seed: int) -> list[Part]:
    return [
        independent(NAMES[kl], lambda kl=kl, i=i: rows(settings, kl, own_seed(seed, i)))
        for i, kl in enumerate(settings.estimators)
    ]


def rows(settings: Settings, kl: str, seed: int) -> pl.DataFrame:
    """Columns kl, divergence, p, standard_error, predicted. The prediction of a trainer without a pull is p = 1."""
    training = dataclasses.replace(settings.training, kl=kl)
    outcomes = Outcomes.uniform(np.full(settings.copies, settings.p_ref), settings.right, settings.wrong)
    made = simulate(outcomes, training, settings.steps, seed)
    p, error = ending(made.p, settings.copies)
    flow = Flow(training.beta, settings.p_ref, training.normalization, training.kl)
    predicted = 1.0 if flow.divergence == "none" else float(fixed_points(flow).p[0])
    return pl.DataFrame(
        {"kl": kl, "divergence": DIVERGENCES[kl], "p": p, "standard_error": error, "predicted": predicted}
    )


def summary(table: pl.DataFrame) -> pl.DataFrame:
    """Return measured and predicted p*; the difference in standard errors where the prediction is below 1."""
    sigmas = (pl.col("p") - pl.col("predicted")) / pl.col("standard_error")
    return table.with_columns(difference_in_errors=pl.when(pl.col("predicted") < 1).then(sigmas))


@styled
def draw(table: pl.DataFrame) -> Figure:
    figure = new_figure(6.2, 3.3)
    axes = figure.subplots()
    order = {"reverse": 0, "forward": 1, "none": 2}
    table = table.sort(pl.col("divergence").replace_strict(order), maintain_order=True)
    for at, (kl, divergence, p, error, predicted) in enumerate(table.rows()):
        axes.plot([predicted] * 2, [at - 0.32, at + 0.32], color=GREY, lw=2.2)
        axes.errorbar([p], [at], xerr=[2 * error], fmt="o", color=COLORS[divergence], ms=5, capsize=3)
        axes.text(p - 0.015, at, f"{p:.4f} ± {error:.4f}", ha="right", va="center", fontsize=7.5)
        assert kl in NAMES
    axes.set_yticks(range(table.height), [NAMES[kl] for kl in table["kl"]])
    axes.invert_yaxis()
    axes.plot([], [], "o", color=BLUE, label=r"pulls with $\mathrm{KL}(\pi\|\pi_{\mathrm{ref}})$")
    axes.plot([], [], "o", color=VERMILION, label=r"with $\mathrm{KL}(\pi_{\mathrm{ref}}\|\pi)$")
    axes.plot([], [], "o", color=BLACK, label=r"not at all: $p\to1$, still rising")
    axes.plot([], [], color=GREY, lw=2.2, label="predicted")
    axes.set(xlim=(0.1, 1.02), xlabel="where training ends, $p^*$ (measured ± its standard error)")
    axes.grid(visible=False, axis="y")
    figure.legend(loc="outside lower center", ncols=2)
    return figure

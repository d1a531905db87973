"""Many gradient steps on one batch come to the exact minimisation that the recursion is made of."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from grpo_dynamics import Recursion
from grpo_dynamics.plotting import BLUE, GREY, ORANGE, VERMILION, new_figure, styled
from grpo_dynamics.simulation.measurement import over_copies
from grpo_dynamics.simulation.outcomes import Outcomes
from grpo_dynamics.simulation.runs import Part, independent, own_seed
from grpo_dynamics.simulation.tabular import simulate
from grpo_dynamics.update_rule import Training

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = "Inner steps: from one gradient step to the recursion"
QUICK: dict[str, Any] = {"inner_steps": [1, 4, 16], "copies": 8}
KINDS = ("natural", "plain", "sampled")


@dataclasses.dataclass(frozen=True)
class Settings:
    """One question; ``inner_steps`` μ per outer step, each of the sizes listed.

    ``training`` gives β, the normalisation, the learning rate and, for the sampled kind, group size and groups.
    """

    training: Training
    p_ref: float = 0.05
    inner_steps: tuple[int, ...] = (1, 2, 5, 10, 20, 50, 100, 200, 500)
    outer_steps: int = 6
    copies: int = 64


def parts(settings: Settings, seed: int) -> list[Part]:
    return [
        independent(
            f"{kind}, {steps} inner steps", lambda k=kind, s=steps, i=i: rows(settings, k, s, own_seed(seed, i))
        )
        for i, (kind, steps) in enumerate((kind, steps) for kind in KINDS for steps in settings.inner_steps)
    ]


def rows(settings: Settings, kind: str, inner_steps: int, seed: int) -> pl.DataFrame:
    """Columns kind, inner_steps, n, log_odds, standard_error, relaxed, recursion.

    ``relaxed`` is exact for natural gradients: μ steps of rate η come a share c = 1 − (1−ηβ)^μ of the way to the
    minimiser, which is the two-KL iteration with α = c and β/c.
    """
    base, copies = settings.training, settings.copies if kind == "sampled" else 1
    if kind == "sampled":
        training = dataclasses.replace(base, inner_steps=inner_steps, update="sampled", natural=True)
    else:
        training = dataclasses.replace(
            base, inner_steps=inner_steps, update="gradient", natural=kind == "natural", group_size=None, groups=1
        )
    outcomes = Outcomes.uniform(np.full(copies, settings.p_ref))
    made = simulate(outcomes, training, settings.outer_steps, seed)
    log_odds, error = over_copies(made.log_odds, copies)
    share = 1 - (1 - base.learning_rate * base.beta) ** inner_steps
    relaxed = Recursion(base.beta / share, settings.p_ref, base.normalization, share).iterate(settings.outer_steps)
    recursion = Recursion(base.beta, settings.p_ref, base.normalization).iterate(settings.outer_steps)
    n = np.arange(settings.outer_steps + 1)
    columns = {"n": n, "log_odds": log_odds[:, 0], "standard_error": error[:, 0]}
    columns |= {"relaxed": relaxed.log_odds, "recursion": recursion.log_odds}
    return pl.DataFrame(columns).select(pl.lit(kind).alias("kind"), pl.lit(inner_steps).alias("inner_steps"), pl.all())


def summary(table: pl.DataFrame) -> pl.DataFrame:
    """Return the largest distance in log-odds to the recursion on the way, measured and as predicted."""
    return table.group_by("kind", "inner_steps", maintain_order=True).agg(
        (pl.col("log_odds") - pl.col("recursion")).abs().max().alias("distance"),
        pl.col("standard_error").max().fill_nan(None),
        (pl.col("relaxed") - pl.col("recursion")).abs().max().alias("predicted"),
    )


@styled
def draw(table: pl.DataFrame) -> Figure:
    figure = new_figure(7.4, 3.3)
    left, right = figure.subplots(1, 2)
    sizes = table["inner_steps"].unique().sort().to_list()
    shown = [sizes[0], sizes[len(sizes) // 3], sizes[-1]]
    exact = table.filter(kind="natural", inner_steps=sizes[-1])
    left.plot(exact["n"], exact["recursion"], color=GREY, lw=4, alpha=0.4, label=r"recursion ($\mu=\infty$)")
    for size, color in zip(shown, (VERMILION, ORANGE, BLUE), strict=True):
        line = table.filter(kind="natural", inner_steps=size)
        dots = table.filter(kind="sampled", inner_steps=size)
        left.plot(line["n"], line["log_odds"], color=color, lw=1.3, label=rf"$\mu={size}$")
        left.errorbar(dots["n"], dots["log_odds"], 2 * dots["standard_error"], fmt="o", color=color, ms=3.5, capsize=2)
    left.set(xlabel="outer step $n$", ylabel="log-odds of a right answer, $L_n$")
    left.set_title("lines: exact expectations; dots: sampled groups")
    left.legend()
    ends = summary(table)
    line = ends.filter(kind="natural")
    seen = line.filter(pl.col("predicted") > 1e-13)
    right.plot(seen["inner_steps"], seen["predicted"], color=BLUE, label=r"predicted, $c=1-(1-\eta\beta)^\mu$")
    seen = line.filter(pl.col("distance") > 1e-13)
    right.plot(seen["inner_steps"], seen["distance"], "o", color=BLUE, label="natural gradient")
    line = ends.filter(kind="plain")
    right.plot(line["inner_steps"], line["distance"], "s-", color=VERMILION, lw=1.0, label="plain gradient")
    line = ends.filter(kind="sampled")
    right.plot(line["inner_steps"], line["distance"], "^:", color=ORANGE, lw=1.0, label="natural, sampled groups")
    right.set(xscale="log", yscale="log", xlabel=r"inner steps $\mu$")
    right.set_title(r"largest $|L_n-L_n^{\mathrm{recursion}}|$ on the way")
    right.legend(loc="lower left", fontsize=7.5)
    return figure

"""PPO's λ and its critic: what is paid for an answer of many tokens, and how far a slow critic stays behind."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from grpo_dynamics import logit, sigmoid
from grpo_dynamics.plotting import BLUE, GREEN, GREY, ORANGE, VERMILION, new_figure, styled
from grpo_dynamics.simulation.answer_tree import AnswerTree
from grpo_dynamics.simulation.critic import View, lag
from grpo_dynamics.simulation.measurement import ending, over_copies
from grpo_dynamics.simulation.runs import Part, independent, own_seed
from grpo_dynamics.simulation.token_simulation import simulate_tokens
from grpo_dynamics.simulation.token_training import TokenTraining

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = "PPO: λ, what the critic sees, and how slowly it learns"
QUICK: dict[str, Any] = {"lambdas": [0.5, 1.0], "steps": 200, "copies": 8, "lag_steps": 100}
CRITICS: dict[str, tuple[View, bool]] = {
    "untrained": ("prefix", False),
    "position": ("position", True),
    "prefix": ("prefix", True),
}
"""What each critic sees, and whether it learns."""
NAMES = {"untrained": "untrained, V = 0", "position": "V(question, position)", "prefix": "V(question, prefix)"}
COLORS = {"untrained": VERMILION, "position": ORANGE, "prefix": BLUE}
MARKS = {"untrained": "s", "position": "x", "prefix": "o"}
LAG_COLORS = (VERMILION, ORANGE, GREEN)
NUMBERS = ("rate", "x", "y", "error", "predicted", "p")
SCHEMA: dict[str, Any] = {"kind": pl.String, "tokens": pl.Int64, **dict.fromkeys(NUMBERS, pl.Float64)}


@dataclasses.dataclass(frozen=True)
class Settings:
    """Two answers, one of them right, of equally many tokens; the first token decides which it is."""

    p_ref: float = 0.2
    beta: float = 0.5
    tokens: tuple[int, ...] = (4, 16)
    lambdas: tuple[float, ...] = (0.5, 0.8, 0.9, 0.95, 1.0)
    critic_rate: float = 0.5
    group_size: int = 8
    groups: int = 8
    learning_rate: float = 0.1
    steps: int = 1500
    copies: int = 24
    lag_rates: tuple[float, ...] = (0.01, 0.05, 0.25)
    lag_steps: int = 400


def parts(settings: Settings, seed: int) -> list[Part]:
    """Return a part per critic and number of tokens, then one per rate of a slow critic."""
    cases = [(kind, tokens) for kind in CRITICS for tokens in settings.tokens]
    ends = [
        independent(f"{kind}, {tokens} tokens", lambda c=(kind, tokens), i=i: ends_of(settings, *c, own_seed(seed, i)))
        for i, (kind, tokens) in enumerate(cases)
    ]
    paths = [
        independent(f"critic of rate {rate:g}", lambda rate=rate, i=i: path_of(settings, rate, own_seed(seed, i)))
        for i, rate in enumerate(settings.lag_rates, start=len(cases))
    ]
    return [*ends, *paths]


def questions(settings: Settings, tokens: int) -> AnswerTree:
    """Return the copies of the question with answers of so many tokens."""
    reference = np.tile([settings.p_ref, 1 - settings.p_ref], (settings.copies, 1))
    return AnswerTree.chains(reference, np.tile([True, False], (settings.copies, 1)), [tokens, tokens])


def ends_of(settings: Settings, kind: str, tokens: int, seed: int) -> pl.DataFrame:
    """Rows of a critic: x = λ, y = p at the end, predicted from L* = L_ref + Ω/β with Ω = λ^(tokens−1), or 1."""
    view, learns = CRITICS[kind]
    found = []
    for gae_lambda in settings.lambdas:
        training = TokenTraining(
            settings.learning_rate, "critic", "outcome", settings.group_size, settings.groups, settings.beta, "exact",
            gae_lambda=gae_lambda, view=view, critic_rate=settings.critic_rate if learns else 0.0,
        )  # fmt: skip
        p = simulate_tokens(questions(settings, tokens), training, settings.steps, seed).p
        mean, error = ending(p, settings.copies)
        gap = 1.0 if kind == "prefix" else gae_lambda ** (tokens - 1)
        expected = float(sigmoid(logit(settings.p_ref) + gap / settings.beta))
        found.append((kind, tokens, None, gae_lambda, float(mean[0]), float(error[0]), expected, None))
    return pl.DataFrame(found, schema=SCHEMA, orient="row")


def path_of(settings: Settings, rate: float, seed: int) -> pl.DataFrame:
    """Rows of kind "value": x = step, y = V, predicted = the V that follows the mean p at this rate, and that p."""
    training = TokenTraining(
        settings.learning_rate, "critic", "outcome", settings.group_size, settings.groups, settings.beta, "exact",
        view="question", critic_rate=rate,
    )  # fmt: skip
    made = simulate_tokens(questions(settings, 1), training, settings.lag_steps, seed)
    value, error = over_copies(made.values, settings.copies)
    p, _ = over_copies(made.p, settings.copies)
    columns = zip(made.steps, value[:, 0], error[:, 0], lag(p[:, 0], rate), p[:, 0], strict=True)
    found = [("value", None, rate, *map(float, row)) for row in columns]
    return pl.DataFrame(found, schema=SCHEMA, orient="row")


def halves(table: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the ends and the paths."""
    return table.filter(pl.col("kind") != "value"), table.filter(kind="value")


def summary(table: pl.DataFrame) -> pl.DataFrame:
    """Return where training ends by λ and critic, and how far V is behind p after a quarter of the other runs."""
    ends, paths = halves(table)
    difference = ((pl.col("y") - pl.col("predicted")) / pl.col("error")).alias("difference_in_errors")
    then = paths.filter(pl.col("x") == paths["x"].max() // 4)
    behind = then.select(
        "rate", "error", -difference, y=pl.col("p") - pl.col("y"), predicted=pl.col("p") - pl.col("predicted")
    )
    shown = ends.select("kind", "tokens", pl.col("x").alias("lambda"), "y", "error", "predicted", difference)
    return pl.concat([shown, behind.with_columns(kind=pl.lit("p − V"))], how="diagonal")


@styled
def draw(table: pl.DataFrame) -> Figure:
    """Draw p at the end against λ, and the values of slow critics against the step."""
    ends, paths = halves(table)
    figure = new_figure(7.4, 3.2)
    left, right = figure.subplots(1, 2)
    for kind in CRITICS:
        for i, line in enumerate(ends.filter(kind=kind).partition_by("tokens", maintain_order=True)):
            label = NAMES[kind] if i == 0 else None
            left.plot(line["x"], line["predicted"], color=COLORS[kind], lw=1.0, ls=("-", "--", ":")[i % 3])
            left.errorbar(line["x"], line["y"], 2 * line["error"], color=COLORS[kind], marker=MARKS[kind], ms=5,
                          mfc="none", ls="none", capsize=2, label=label)  # fmt: skip
    for i, tokens in enumerate(ends["tokens"].unique().sort()):
        left.plot([], [], color=GREY, ls=("-", "--", ":")[i % 3], label=f"predicted, {tokens} tokens")
    left.set(xlabel=r"$\lambda$ of GAE", ylabel="success probability at the end", ylim=(0, 1.02))
    left.set_title(r"Where training ends, by $\lambda$, critic and length")
    left.legend(loc="upper left", fontsize=6.5)
    for line, color in zip(paths.partition_by("rate", maintain_order=True), LAG_COLORS, strict=False):
        right.plot(line["x"], line["predicted"], color=color, lw=1.2)
        some = line[:: max(1, line.height // 14)]
        right.errorbar(some["x"], some["y"], 2 * some["error"], color=color, marker="o", ms=3, ls="none", capsize=2,
                       label=f"$V$, learning rate {line['rate'][0]:g}")  # fmt: skip
    if paths.height:
        first = paths.filter(pl.col("rate") == paths["rate"][0])
        right.plot(first["x"], first["p"], color=GREY, ls="--", lw=1.2, label="$p$, which $V$ follows")
    right.set(xlabel="training step", ylabel=r"$p$, and value $V$ of the critic", ylim=(0, None))
    right.set_title(r"A slow critic, $\lambda=1$: late, but harmless")
    right.legend(loc="lower right", fontsize=6.5)
    return figure

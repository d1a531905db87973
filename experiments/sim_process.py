"""Rewards for steps against rewards for answers: who grows when right answers may be short or long."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from grpo_dynamics.plotting import BLUE, GREEN, ORANGE, VERMILION, new_figure, styled
from grpo_dynamics.simulation.answer_tree import AnswerTree
from grpo_dynamics.simulation.measurement import over_copies
from grpo_dynamics.simulation.process import push_of_groups
from grpo_dynamics.simulation.runs import Part, independent, own_seed
from grpo_dynamics.simulation.token_simulation import simulate_tokens
from grpo_dynamics.simulation.token_training import Supervision, TokenAdvantage, TokenTraining

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = "Process supervision: more steps, more reward"
QUICK: dict[str, Any] = {"steps": 100, "copies": 8}
METHODS: dict[str, tuple[TokenAdvantage, Supervision]] = {
    "GRPO, step rewards": ("grpo", "process"),
    "Dr. GRPO, step rewards": ("dr_grpo", "process"),
    "GRPO, one reward": ("grpo", "outcome"),
    "Dr. GRPO, one reward": ("dr_grpo", "outcome"),
}
"""How advantages are made, and of which rewards."""
COLORS = dict(zip(METHODS, (BLUE, VERMILION, GREEN, ORANGE), strict=True))
SHOWN = 40
"""Records of a run that are kept."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """Answers by their number of steps; every step of a right answer earns 1, of a wrong one 0."""

    reference: tuple[float, ...] = (0.15, 0.15, 0.7)
    right: tuple[bool, ...] = (True, True, False)
    lengths: tuple[int, ...] = (2, 6, 4)
    beta: float = 5.0
    eps: float = 1e-4
    group_size: int = 64
    groups: int = 2
    learning_rate: float = 0.02
    steps: int = 400
    copies: int = 32


def parts(settings: Settings, seed: int) -> list[Part]:
    """Return a part per method."""
    return [
        independent(name, lambda name=name, i=i: rows(settings, name, own_seed(seed, i)))
        for i, name in enumerate(METHODS)
    ]


def questions(settings: Settings, copies: int) -> AnswerTree:
    """Return the copies of the question."""
    tree = AnswerTree.chains([settings.reference] * copies, [settings.right] * copies, settings.lengths)
    rewards = np.where(tree.inside, np.where(tree.correct, 1.0, 0.0)[:, :, None], np.nan)
    return AnswerTree(tree.reference, tree.correct, tree.tokens, rewards)


def rest(settings: Settings, name: str) -> Any:
    """Return where π ∝ π_ref·exp(A/β), A the advantage of the first token in infinite groups, by damped repetition."""
    advantage, supervision = METHODS[name]
    tree = questions(settings, 1)
    if supervision == "outcome":
        tree = dataclasses.replace(tree, step_rewards=None)
    policy = tree.reference
    for _ in range(2000):
        push = push_of_groups(tree, policy[:, None, :], advantage == "grpo", settings.eps if advantage == "grpo" else 0)
        tilted = tree.reference * np.exp(push[:, :, 0] / policy / settings.beta)
        policy = 0.9 * policy + 0.1 * tilted / tilted.sum()
    return policy[0]


def rows(settings: Settings, name: str, seed: int) -> pl.DataFrame:
    """Columns method, x = step, tokens (mean of an answer), p, the errors of both, and where they come to rest."""
    advantage, supervision = METHODS[name]
    smoothing = {"eps": settings.eps} if advantage == "grpo" else {}
    training = TokenTraining(
        settings.learning_rate,
        advantage,
        supervision,
        settings.group_size,
        settings.groups,
        settings.beta,
        "exact",
        **smoothing,
    )
    every = max(1, settings.steps // SHOWN)
    tree = questions(settings, settings.copies)
    made = simulate_tokens(tree, training, settings.steps, seed, record_every=every)
    (tokens, tokens_error), (p, p_error) = (over_copies(x, settings.copies) for x in (made.tokens, made.p))
    policy = rest(settings, name)
    columns = {"x": made.steps.astype(float), "tokens": tokens[:, 0], "tokens_error": tokens_error[:, 0]}
    return pl.DataFrame({**columns, "p": p[:, 0], "p_error": p_error[:, 0]}).with_columns(
        method=pl.lit(name),
        rest_tokens=pl.lit(float(policy @ np.array(settings.lengths))),
        rest_p=pl.lit(float(policy @ np.array(settings.right))),
    )


def summary(table: pl.DataFrame) -> pl.DataFrame:
    """Return the mean length and success at the end, beside where infinite groups come to rest."""
    last = table.group_by("method", maintain_order=True).last()
    return last.select("method", "tokens", "tokens_error", "rest_tokens", "p", "p_error", "rest_p")


@styled
def draw(table: pl.DataFrame) -> Figure:
    """Draw the mean number of steps, and p, against the training step."""
    figure = new_figure(7.4, 3.2)
    panels = zip(
        figure.subplots(1, 2), ("tokens", "p"), ("mean steps of an answer", "success probability $p$"), strict=True
    )
    for axes, column, label in panels:
        for line in table.partition_by("method", maintain_order=True):
            name = line["method"][0]
            axes.axhline(line[f"rest_{column}"][0], color=COLORS[name], lw=0.9, ls="--")
            axes.errorbar(line["x"], line[column], 2 * line[f"{column}_error"], color=COLORS[name], marker="o", ms=2,
                          lw=0.8, label=name)  # fmt: skip
        axes.set(xlabel="training step", ylabel=label)
    axes.plot([], [], color="black", ls="--", lw=0.9, label="at rest, $G\\to\\infty$")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure

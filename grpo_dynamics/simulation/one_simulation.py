"""The simulation of a config that names no experiment: some questions, one way to train, p after each step."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from grpo_dynamics.arrays import require, to_numpy
from grpo_dynamics.logodds import sigmoid
from grpo_dynamics.simulation.outcomes import Outcomes
from grpo_dynamics.simulation.runs import Part
from grpo_dynamics.simulation.tabular import State, simulate
from grpo_dynamics.theory.fixed_points import fixed_points
from grpo_dynamics.theory.flow import Flow
from grpo_dynamics.theory.recursion import Recursion
from grpo_dynamics.update_rule import Training

if TYPE_CHECKING:
    import polars as pl
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLE = "One simulation"
QUICK: dict[str, Any] = {"steps": 20}

SHOWN = 12
"""So many questions are drawn one by one; more of them as bands."""

FEW = 6
"""So many different p_ref have a color each."""


@dataclasses.dataclass(frozen=True)
class Questions:
    """The table [questions] of a config.

    Attributes:
        kind: "uniform": right answers equally probable among themselves, and wrong ones; "random": drawn at random.
        p_ref: success probability of the reference, a number or a list, one for each question; "uniform" only.
        file: a table of questions (CSV, JSONL, parquet) instead of ``p_ref``; those with p_ref of 0 or 1 are left out.
        copies: how often each question occurs: independent runs of a sampled simulation.
        right, wrong: numbers of answers; "uniform" only.
        questions, answers: how many; "random" only.
        lengths: tokens of each answer; 1 if not given.
    """

    kind: Literal["uniform", "random"] = "uniform"
    p_ref: float | tuple[float, ...] | None = None
    file: str | None = None
    copies: int = 1
    right: int = 1
    wrong: int = 1
    questions: int | None = None
    answers: int | None = None
    lengths: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        """Refuse keys that belong to the other kind, and missing ones."""
        own = ("questions", "answers") if self.kind == "random" else ("p_ref", "file")
        other = ("p_ref", "file") if self.kind == "random" else ("questions", "answers")
        for name in other:
            if getattr(self, name) is not None:
                near = f'kind = "{"uniform" if self.kind == "random" else "random"}" takes it'
                raise ValueError(
                    f"questions.{name} must be left out with kind {self.kind!r} ({near}), got {getattr(self, name)!r}"
                )
        given = [name for name in own if getattr(self, name) is not None]
        if len(given) != (2 if self.kind == "random" else 1):
            words = " and ".join(own) if self.kind == "random" else " or ".join(own)
            raise ValueError(
                f"questions must have {words} with kind {self.kind!r}, got {', '.join(given) or 'neither'}"
            )
        for name in ("copies", "right", "wrong", *given[: 2 * (self.kind == "random")]):
            require(f"questions.{name}", getattr(self, name), "an integer >= 1", lambda x: x >= 1)

    def outcomes(self, seed: int) -> Outcomes:
        """Return the questions as they are simulated."""
        if self.kind == "random":
            assert self.questions is not None
            assert self.answers is not None
            return Outcomes.random(self.questions, self.answers, seed, lengths=self.lengths)
        p_ref = np.repeat(np.atleast_1d(np.asarray(self.rates(), dtype=float)), self.copies)
        return Outcomes.uniform(p_ref, self.right, self.wrong, lengths=self.lengths)

    def rates(self) -> Any:
        """Return p_ref of each question."""
        if self.file is None:
            return self.p_ref
        from grpo_dynamics.question_files import read_questions

        rates = to_numpy(read_questions(self.file).p_ref)
        inside = rates[(rates > 0) & (rates < 1)]
        if inside.size == 0:
            raise ValueError(f"questions.file must have a question with 0 < p_ref < 1, got none in {self.file!r}")
        return inside


@dataclasses.dataclass(frozen=True)
class Settings:
    """The keys of a config without an experiment."""

    questions: Questions
    training: Training
    steps: int = 100
    record_every: int = 1
    checkpoint_every: int = 100

    def __post_init__(self) -> None:
        """Refuse numbers that are not counts."""
        for name in ("steps", "record_every", "checkpoint_every"):
            require(name, getattr(self, name), "an integer >= 1", lambda x: x >= 1)
        if self.checkpoint_every % self.record_every:
            allowed = f"a multiple of record_every ({self.record_every})"
            raise ValueError(f"checkpoint_every must be {allowed}, got {self.checkpoint_every}")

    def files(self) -> list[Path]:
        """Return the files that the result depends on, beside the config."""
        return [] if self.questions.file is None else [Path(self.questions.file)]


def parts(settings: Settings, seed: int) -> list[Part]:
    """Return the steps in pieces, each going on from the state the one before left."""
    outcomes = settings.questions.outcomes(seed)
    ends = [*range(0, settings.steps, settings.checkpoint_every), settings.steps]
    return [
        Part(f"step {first}", _piece(outcomes, settings, seed, first, last), State.load)
        for first, last in itertools.pairwise(ends)
    ]


def _piece(outcomes: Outcomes, settings: Settings, seed: int, first: int, last: int) -> Any:
    import polars as pl

    def compute(state: State | None) -> tuple[pl.DataFrame, State]:
        made = simulate(
            outcomes, settings.training, last - first, seed=seed, state=state, record_every=settings.record_every
        )
        log_odds, skip = to_numpy(made.log_odds), int(first > 0)  # the first row is the last of the piece before
        steps, questions = to_numpy(made.steps)[skip:], log_odds.shape[1]
        table = pl.DataFrame(
            {
                "step": np.repeat(steps, questions).astype(np.int64),
                "question": np.tile(np.arange(questions), len(steps)),
                "p_ref": np.tile(to_numpy(outcomes.p_ref), len(steps)),
                "log_odds": log_odds[skip:].ravel(),
                "p": sigmoid(log_odds[skip:]).ravel(),
                "prediction": np.tile(predicted(settings.training, to_numpy(outcomes.p_ref)), len(steps)),
            }
        )
        return table, made.state

    return compute


def dynamics(training: Training, p_ref: Any) -> Recursion | Flow:
    """Return the theory beside a way to train: the recursion of exact minimisation, the flow of gradient steps.

    Departures that have no closed form (clipping, several steps on one batch, noise of the verifier, tokens) are left
    out of it: the difference to the simulation is what they do.
    """
    if training.update == "exact" or training.alpha == 0:
        return Recursion(training.beta, p_ref, training.normalization, training.alpha)
    return Flow(training.beta * training.alpha, p_ref, training.normalization, training.kl)


def predicted(training: Training, p_ref: Any) -> Any:
    """Return the lowest stable fixed point of the theory, NaN where there is none."""
    found = fixed_points(dynamics(training, p_ref))
    lowest = np.min(np.where(found.stable, found.log_odds, np.inf), axis=0)
    return np.broadcast_to(np.where(np.isinf(lowest), np.nan, sigmoid(lowest)), np.shape(p_ref))


def summary(table: pl.DataFrame) -> pl.DataFrame:
    """Return where the questions ended, beside the theory; of many questions by their p_ref."""
    import polars as pl

    last = table.filter(pl.col("step") == pl.col("step").max())
    ends = last.group_by("p_ref", maintain_order=True).agg(
        pl.len().alias("questions"),
        pl.col("p").mean(),
        (pl.col("p").std() / pl.len().sqrt()).alias("standard_error"),
        pl.col("prediction").first(),
    )
    return ends.sort("p_ref")[:: max(1, ends.height // SHOWN)]


def draw(table: pl.DataFrame) -> Figure:
    """Return p against the step: each question, bands over the copies of a few, or over many different ones."""
    from grpo_dynamics.plotting import new_figure, style

    with style():
        figure = new_figure(6.9, 3.4)
        axes = figure.subplots()
        questions = table["question"].n_unique()
        draw_lines = _draw_few if questions <= SHOWN or table["p_ref"].n_unique() <= FEW else _draw_many
        draw_lines(axes, table, questions)
        axes.set(xlabel="training step", ylabel="success probability $p$", ylim=(-0.02, 1.02))
    return figure


def _draw_few(axes: Axes, table: pl.DataFrame, questions: int) -> None:
    """A color for each p_ref: its questions one by one, or their mean and a band; the level is the theory's p*."""
    from grpo_dynamics.plotting import GREY, PALETTE

    several = questions > SHOWN
    for same, color in zip(table.partition_by("p_ref", maintain_order=True), itertools.cycle(PALETTE), strict=False):
        steps = same["step"].unique(maintain_order=True)
        p = same["p"].to_numpy().reshape(len(steps), -1)
        if several:
            axes.fill_between(steps, *np.quantile(p, [0.1, 0.9], axis=1), color=color, alpha=0.25, lw=0)
            axes.plot(steps, p.mean(axis=1), color=color, lw=1.2)
        else:
            axes.plot(steps, p, color=color, lw=1.0, alpha=0.8)
        axes.plot([], [], color=color, lw=1.2, label=rf"$p_{{\mathrm{{ref}}}}={same['p_ref'][0]:.3g}$")
        if np.isfinite(same["prediction"][0]):
            axes.axhline(same["prediction"][0], color=color, lw=0.8, ls="--")
    axes.plot([], [], color=GREY, lw=0.8, ls="--", label="stable $p^*$ of the theory")
    axes.legend(ncols=2, title="mean, and 80 % of the copies" if several else None)


def _draw_many(axes: Axes, table: pl.DataFrame, questions: int) -> None:
    from grpo_dynamics.plotting import BLUE, GREEN, GREY

    steps = table["step"].unique(maintain_order=True)
    p = table["p"].to_numpy().reshape(-1, questions)
    for share in (0.4, 0.25, 0.1):
        axes.fill_between(steps, *np.quantile(p, [share, 1 - share], axis=1), color=BLUE, alpha=0.2, lw=0)
    axes.plot(steps, np.median(p, axis=1), color=BLUE, label="median and 20, 50, 80 % of the questions")
    axes.plot(steps, p.mean(axis=1), color=GREY, lw=1.0, label="mean")
    ends = table["prediction"].head(questions).to_numpy()
    if np.isfinite(ends).all():
        axes.axhline(float(ends.mean()), color=GREEN, lw=1.0, ls="--", label="mean of the theory's $p^*$")
    axes.legend()

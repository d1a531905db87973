"""Dividing the loss by an answer's length makes wrong answers long; a constant divisor does not."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from grpo_dynamics import logit
from grpo_dynamics.plotting import BLUE, GREEN, GREY, VERMILION, new_figure, styled
from grpo_dynamics.simulation.measurement import over_copies
from grpo_dynamics.simulation.outcomes import Outcomes
from grpo_dynamics.simulation.runs import Part, independent, own_seed
from grpo_dynamics.simulation.tabular import simulate
from grpo_dynamics.update_rule import Training

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = "Length bias: short and long wrong answers"
QUICK: dict[str, Any] = {"points": 4, "time": 2.0, "copies": 4}
NAMES = {
    "sequence_mean": "mean of every answer (GRPO)",
    "token_mean": "mean over all tokens (DAPO)",
    "constant": "constant divisor (Dr. GRPO)",
}
TIME = r"time (learning rate $\times$ steps)"
COLORS = {"sequence_mean": VERMILION, "token_mean": BLUE, "constant": GREEN}
OPEN = {"ms": 6.5, "mfc": "none", "marker": "s"}
"""Two aggregations lie on each other: one is drawn as squares around the other."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """A question with one right answer, one short wrong one and one long wrong one, equally probable at first.

    ``time`` is how long each aggregation trains, in units in which a mean over the tokens of an answer of 1 token has
    learning rate 1: the learning rate of each is set so that the right answer learns equally fast at the start.
    """

    training: Training
    p_ref: float = 0.2
    right_tokens: float = 30.0
    short_tokens: float = 10.0
    long_tokens: float = 90.0
    time: float = 10.0
    points: int = 20
    copies: int = 16

    @property
    def lengths(self) -> np.ndarray[Any, Any]:
        """Tokens of the right, the short wrong and the long wrong answer."""
        return np.array([self.right_tokens, self.short_tokens, self.long_tokens])


def parts(settings: Settings, seed: int) -> list[Part]:
    return [
        independent(NAMES[kind], lambda kind=kind, i=i: rows(settings, kind, own_seed(seed, i)))
        for i, kind in enumerate(NAMES)
    ]


def weights(settings: Settings, kind: str, policy: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return how much a token of each answer counts: 1/|o|, 1/mean|o| of the present policy, or 1/max_tokens."""
    divisor = {
        "sequence_mean": settings.lengths,
        "token_mean": policy @ settings.lengths,
        "constant": settings.lengths.max(),
    }[kind]
    return np.ones(3) / divisor


def rows(settings: Settings, kind: str, seed: int) -> pl.DataFrame:
    """Columns aggregation, t, long_share, standard_error, predicted, wrong_tokens, p."""
    start = np.array([settings.p_ref, (1 - settings.p_ref) / 2, (1 - settings.p_ref) / 2])
    rate = settings.training.learning_rate / weights(settings, kind, start)[0]
    training = dataclasses.replace(settings.training, aggregation=kind, ratio_level="token", learning_rate=float(rate))
    outcomes = Outcomes.uniform(np.full(settings.copies, settings.p_ref), 1, 2, lengths=settings.lengths)
    per_point = max(1, round(settings.time / settings.training.learning_rate / settings.points))
    policies, state = [np.exp(np.asarray(outcomes.log_reference))], None
    for _ in range(settings.points):
        state = simulate(outcomes, training, per_point, seed, state=state, record_every=per_point).state
        policies.append(np.exp(np.asarray(state.log_policy)))
    shares = np.stack([policy[:, 2] / (policy[:, 1] + policy[:, 2]) for policy in policies])
    share, error = over_copies(shares, settings.copies)
    p = over_copies(np.stack([policy[:, 0] for policy in policies]), settings.copies)[0]
    predicted = integrate(settings, kind, start, rate, per_point)
    return pl.DataFrame(
        {
            "aggregation": [kind] * len(share),
            "t": np.arange(settings.points + 1) * per_point * settings.training.learning_rate,
            "long_share": share[:, 0],
            "standard_error": error[:, 0],
            "predicted": predicted[:, 2] / (predicted[:, 1] + predicted[:, 2]),
            "wrong_tokens": share[:, 0] * settings.long_tokens + (1 - share[:, 0]) * settings.short_tokens,
            "p": p[:, 0],
            "predicted_p": predicted[:, 0],
        }
    )


def integrate(
    settings: Settings, kind: str, start: np.ndarray[Any, Any], rate: float, per_point: int
) -> np.ndarray[Any, Any]:
    """Return the policies of the flow dθ_o/dt = π_o(A_o w_o − Σ π A w), A = w⁺(p) or −w⁻(p); there is no KL term."""

    def slope(logits: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        policy = np.exp(logits - logits.max())
        policy /= policy.sum()
        state = logit(policy[0])
        normalization = settings.training.normalization
        failure = -float(normalization.negative(state))
        push = np.array([float(normalization.positive(state)), failure, failure]) * weights(settings, kind, policy)
        return policy * (push - policy @ push)

    logits, path, fine = np.log(start), [start], 4
    step = rate * per_point / (fine * per_point)
    for _ in range(settings.points):
        for _ in range(fine * per_point):
            half = logits + step / 2 * slope(logits)
            logits = logits + step * slope(half)
        policy = np.exp(logits - logits.max())
        path.append(policy / policy.sum())
    return np.array(path)


def summary(table: pl.DataFrame) -> pl.DataFrame:
    """Return the share of the long answer among the wrong ones, and their mean length, at the start and at the end."""
    return table.group_by("aggregation", maintain_order=True).agg(
        pl.col("long_share").first().alias("share_start"),
        pl.col("long_share").last().alias("share_end"),
        pl.col("standard_error").last(),
        pl.col("predicted").last(),
        pl.col("wrong_tokens").last(),
        pl.col("p").last(),
    )


@styled
def draw(table: pl.DataFrame) -> Figure:
    figure = new_figure(7.4, 3.3)
    left, right = figure.subplots(1, 2)
    for line in table.partition_by("aggregation", maintain_order=True):
        kind = line["aggregation"][0]
        left.plot(line["t"], line["predicted"], color=COLORS[kind], lw=1.2)
        look = {"marker": "o", "ms": 3, "color": COLORS[kind], **(OPEN if kind == "token_mean" else {})}
        left.errorbar(
            line["t"], line["long_share"], 2 * line["standard_error"], ls="none", capsize=2, label=NAMES[kind], **look
        )
        right.plot(line["t"], line["predicted_p"], color=COLORS[kind], lw=1.2)
        right.plot(line["t"], line["p"], "o", ms=3, color=COLORS[kind])
    left.plot([], [], color=GREY, lw=1.2, label="predicted")
    left.set(xlabel=TIME, ylabel="share of the long answer among wrong ones")
    left.set_title("what the wrong answers become")
    left.legend(fontsize=7.5)
    right.set(xlabel=TIME, ylabel="success probability $p$", ylim=(0, 1))
    right.set_title("all three learn")
    return figure

"""The inner loop of an iteration whose "argmin" is meant: gradient ascent until the optimum is certified to be near.

Where the answers can be enumerated, the maximiser π* of an iteration's objective J over all policies is known, and with
it KL(π‖π*) = (J(π*) − J(π))/β of each question. The loop stops when the largest of these is below a tolerance, which
bounds |p − p*| by Pinsker's inequality; nothing is assumed about the network but that it gets there.

The weights are found by gradient ascent on J itself, with AdamW, in rounds: in each the learning rate rises for ten
steps and falls to a twentieth. Two things can go wrong, and both are the shape of J, not of the network:

- A policy that is sure of an answer that π* has given up is on a plateau: ∂J/∂logits is π times a difference, and π of
  the other answers is 0 to any precision. As the maximiser does not depend on where the ascent starts, it starts from
  π_old or from π_ref, whichever is nearer to π*.
- In the first steps a question whose advantage gap is large may overshoot onto such a plateau, through the weights that
  it shares with the others. Where a round has not reached the tolerance, the next ones add KL(π*‖π), which is 0 at the
  same policy and whose gradient on the logits, π − π*, is never flat. Such rounds are marked in the records as
  "assisted". The certificate stays that of J.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from grpo_dynamics.training.deadline import NEVER, Deadline
from grpo_dynamics.training.steps.ascent import Ascent
from grpo_dynamics.training.steps.expectation import Objective

WARM_UP = 10
"""Steps in which the learning rate of a round rises."""

LAST = 0.05
"""What it has fallen to at the end of a round, as a share of itself."""


@dataclasses.dataclass(frozen=True)
class Inner:
    """How an inner loop ended.

    Attributes:
        rows: what was seen before each step: step, loss, gap, worst_kl, grad_norm, learning_rate, assisted, converged.
        converged: whether the tolerance was reached.
    """

    rows: list[dict[str, Any]]
    converged: bool


def ascend(
    passes: Sequence[Callable[[], Tensor]],
    objective: Objective,
    ascent: Ascent,
    starts: Sequence[Callable[[], None]],
    deadline: Deadline = NEVER,
) -> Inner:
    """Move the weights to the maximiser of an objective.

    Args:
        passes: each returns log π of all answers of some of this process's questions, shape (questions, S), with its
            gradient; one after the other they are all questions, in order.
        objective: of the same questions.
        ascent: the weights, their optimiser, and the processes that share the work.
        starts: each sets the weights to a place to start from; the best is taken. The weights as they are count too.
        deadline: when the command's time is over.

    Returns:
        What was seen on the way; the weights are changed.

    Raises:
        TimeLimit: somewhere on the way, where no time is left.
        FloatingPointError: if a gradient is not finite.
    """
    options = ascent.options
    assert options.inner_tolerance is not None
    parts = _take_best(passes, objective, ascent, starts)
    whole = ascent.total(sum(len(part.optimum) for _, part in parts))
    rows, step = list[dict[str, Any]](), 0
    while True:
        assisted = step >= options.round_steps
        ascent.reset()
        for k in range(options.round_steps):
            deadline.require("steps of the inner loop")
            seen = _Seen()
            losses = [_loss(log_policy, part, assisted, whole, seen) for log_policy, part in parts]
            # on a GPU only the next line waits for the device: the gradient is there before it is known to be needed
            norm = ascent.gradient(losses)
            missing, lost, worst, norm = ascent.together(seen.sums(), torch.stack(seen.worst).amax(), norm)
            gap, loss = missing / whole, lost / whole
            row: dict[str, Any] = {"step": step, "gap": gap, "worst_kl": worst, "assisted": assisted}
            reached = worst <= options.inner_tolerance
            if reached or step >= options.max_inner_steps:
                rows.append(row | {"loss": gap, "learning_rate": 0.0, "converged": reached})
                return Inner(rows, reached)
            rate = options.learning_rate * _schedule(k, options.round_steps)
            ascent.move(norm, rate)
            rows.append(row | {"loss": loss, "learning_rate": rate, "grad_norm": norm})
            step += 1


@dataclasses.dataclass(frozen=True)
class _Seen:
    """What the passes of a step have seen, as scalars on the device: sums of gap and loss, and the largest KL(π‖π*)."""

    gaps: list[Tensor] = dataclasses.field(default_factory=list[Tensor])
    losses: list[Tensor] = dataclasses.field(default_factory=list[Tensor])
    worst: list[Tensor] = dataclasses.field(default_factory=list[Tensor])

    def sums(self) -> tuple[Tensor, Tensor]:
        return torch.stack(self.gaps).sum(), torch.stack(self.losses).sum()


def _loss(
    log_policy: Callable[[], Tensor], objective: Objective, assisted: bool, whole: float, seen: _Seen
) -> Callable[[], Tensor]:
    """One pass's part of the mean over all questions of what they lack."""

    def loss() -> Tensor:
        now = log_policy()
        distance = objective.distance(now)
        lacking = objective.beta * distance
        seen.gaps.append(lacking.detach().sum())
        seen.worst.append(distance.detach().nan_to_num(nan=float("inf")).amax())
        if assisted:
            lacking = lacking + objective.beta * objective.distance_back(now)
        seen.losses.append(lacking.detach().sum())
        return lacking.sum() / whole

    return loss


def _take_best(
    passes: Sequence[Callable[[], Tensor]],
    objective: Objective,
    ascent: Ascent,
    starts: Sequence[Callable[[], None]],
) -> list[tuple[Callable[[], Tensor], Objective]]:
    """Leave the weights at the start that is nearest to the optimum, both ways: flat places are far in one of them.

    Returns:
        Each pass with the objective of its questions.
    """
    own = ascent.weights()
    lengths: list[float] = []
    parts: list[tuple[Callable[[], Tensor], Objective]] = []
    for start in (None, *starts):
        if start is not None:
            start()
        with torch.no_grad():
            found = [log_policy() for log_policy in passes]
        now = torch.cat(found)
        lengths.append(ascent.mean(objective.distance(now) + objective.distance_back(now)))
        if not parts:
            ends = list(itertools.accumulate(map(len, found)))
            pieces = [slice(end - len(one), end) for one, end in zip(found, ends, strict=True)]
            parts = [(log_policy, objective.of(piece)) for log_policy, piece in zip(passes, pieces, strict=True)]
    best = min(range(len(lengths)), key=lambda i: (lengths[i] if math.isfinite(lengths[i]) else math.inf, i))
    if best == 0:
        ascent.set_weights(own)
    else:
        starts[best - 1]()
    return parts


def _schedule(k: int, steps: int) -> float:
    """Return the learning rate of step k of a round, as a share: up, then flat, then down in a straight line.

    >>> [round(_schedule(k, 100), 2) for k in (0, 4, 9, 30, 70, 99)]
    [0.1, 0.5, 1.0, 1.0, 0.53, 0.07]
    """
    part = k / steps
    return min(1.0, (k + 1) / WARM_UP, max(LAST, LAST + (1 - LAST) * (1 - part) / 0.6))

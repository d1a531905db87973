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
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

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
    log_policy: Callable[[], Tensor], objective: Objective, ascent: Ascent, starts: list[Callable[[], None]]
) -> Inner:
    """Move the weights to the maximiser of an objective.

    Args:
        log_policy: returns log π of all answers of this process's questions, shape (Q, S), with its gradient.
        objective: of the same questions.
        ascent: the weights, their optimiser, and the processes that share the work.
        starts: each sets the weights to a place to start from; the best is taken. The weights as they are count too.

    Returns:
        What was seen on the way; the weights are changed.
    """
    options = ascent.options
    assert options.inner_tolerance is not None
    _take_best(log_policy, objective, ascent, starts)
    rows, step = list[dict[str, Any]](), 0
    while True:
        assisted = step >= options.round_steps
        ascent.reset()
        for k in range(options.round_steps):
            now = log_policy()
            distance = objective.distance(now)
            loss = objective.beta * distance
            gap, worst = ascent.mean(loss.detach()), ascent.largest(distance.detach())
            row: dict[str, Any] = {"step": step, "gap": gap, "worst_kl": worst, "assisted": assisted}
            reached = worst <= options.inner_tolerance
            if reached or step >= options.max_inner_steps:
                rows.append(row | {"loss": gap, "learning_rate": 0.0, "converged": reached})
                return Inner(rows, reached)
            if assisted:
                loss = loss + objective.beta * objective.distance_back(now)
            rate = options.learning_rate * _schedule(k, options.round_steps)
            whole = ascent.total(len(distance))
            norm = ascent.step([lambda loss=loss, whole=whole: loss.sum() / whole], rate)
            rows.append(row | {"loss": ascent.mean(loss.detach()), "learning_rate": rate, "grad_norm": norm})
            step += 1


def _take_best(
    log_policy: Callable[[], Tensor], objective: Objective, ascent: Ascent, starts: list[Callable[[], None]]
) -> None:
    """Leave the weights at the start that is nearest to the optimum, both ways: flat places are far in one of them."""
    own = ascent.weights()
    lengths: list[float] = []
    for start in (None, *starts):
        if start is not None:
            start()
        with torch.no_grad():
            now = log_policy()
            lengths.append(ascent.mean(objective.distance(now) + objective.distance_back(now)))
    best = min(range(len(lengths)), key=lambda i: (lengths[i] if math.isfinite(lengths[i]) else math.inf, i))
    if best == 0:
        ascent.set_weights(own)
    else:
        starts[best - 1]()


def _schedule(k: int, steps: int) -> float:
    """Return the learning rate of step k of a round, as a share: up, then flat, then down in a straight line.

    >>> [round(_schedule(k, 100), 2) for k in (0, 4, 9, 30, 70, 99)]
    [0.1, 0.5, 1.0, 1.0, 0.53, 0.07]
    """
    part = k / steps
    return min(1.0, (k + 1) / WARM_UP, max(LAST, LAST + (1 - LAST) * (1 - part) / 0.6))

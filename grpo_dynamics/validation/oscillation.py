"""Do the questions oscillate that should? Steps that alternate up and down, and how far they swing."""

from __future__ import annotations

import dataclasses

import numpy as np

from grpo_dynamics.arrays import Array
from grpo_dynamics.theory.orbits.limit import LimitKind
from grpo_dynamics.validation.measured import Grid

LEAST_SWING = 0.005
"""Steps that change p by less are no swing."""

LEAST_STEPS = 4
"""So many steps at the end of a run have to alternate."""


@dataclasses.dataclass(frozen=True)
class Oscillation:
    """What was predicted and seen.

    Attributes:
        predicted: how many questions have an orbit that goes to a cycle, or stays irregular.
        seen: how many of these swing.
        others: how many of the rest swing.
        swing: median over the questions that should and do of the mean |p_n − p_(n−1)| in the last half of the run.
        swing_predicted: the same of their predicted orbits.
    """

    predicted: int
    seen: int
    others: int
    swing: float
    swing_predicted: float


def oscillation(grid: Grid, orbit: Array, kind: Array) -> Oscillation:
    """Return which questions oscillate.

    Args:
        grid: the measurements; only those one iteration apart say something.
        orbit: predicted success probabilities, shape of the grid.
        kind: :class:`~grpo_dynamics.LimitKind` of each question, shape (questions,).
    """
    should = np.isin(kind, (int(LimitKind.CYCLE), int(LimitKind.IRREGULAR)))
    does = swings(grid.iterations, grid.p)
    both = should & does

    def swing(p: Array) -> float:
        steps = np.abs(_last_steps(p)[:, both])
        return float(np.median(steps.mean(axis=0))) if both.any() else float("nan")

    return Oscillation(int(should.sum()), int(both.sum()), int((does & ~should).sum()), swing(grid.p), swing(orbit))


def swings(iterations: Array, p: Array) -> Array:
    """Return whether every step of the last half of a run goes against the one before, by more than 0.005 each.

    Args:
        iterations: of the measurements, shape (n,).
        p: success probabilities, shape (n, questions).
    """
    steps = _last_steps(p)
    if len(steps) < LEAST_STEPS or (np.diff(iterations)[-len(steps) :] != 1).any():
        return np.zeros(p.shape[1], dtype=bool)
    with np.errstate(invalid="ignore"):
        return (steps[1:] * steps[:-1] < 0).all(axis=0) & (np.abs(steps) > LEAST_SWING).all(axis=0)


def _last_steps(p: Array) -> Array:
    count = max(LEAST_STEPS, (len(p) - 1) // 2)
    return np.diff(p, axis=0)[-count:]

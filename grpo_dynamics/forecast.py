"""What becomes of every p_ref under an update rule, for many β at once, and what that says of a set of questions."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from grpo_dynamics.arrays import Array, batch_shape, require
from grpo_dynamics.logodds import complement, sigmoid
from grpo_dynamics.posterior import Grid
from grpo_dynamics.prediction import SETTLED, long_run
from grpo_dynamics.theory.flow import Flow
from grpo_dynamics.theory.orbits.limit import limit
from grpo_dynamics.theory.recursion import Recursion
from grpo_dynamics.theory.regimes import Regime, regime

if TYPE_CHECKING:
    import polars as pl

GRID = Grid(400)
"""The p_ref at which the theory is computed."""


@dataclasses.dataclass(frozen=True)
class Goal:
    """What counts as success of a training.

    Args:
        gain: a question is amplified where at least this share of its failures is gone: 1 − p* ≤ (1 − gain)(1 − p_ref).
        budget: samples that training spends on each question. One whose groups are all silent by then does not move.
        confidence: of what is said about questions without a success.
        floor: p_ref below which a question is given up as too rare.

    Raises:
        ValueError: for values out of range.
    """

    gain: float = 0.5
    budget: int = 256
    confidence: float = 0.95
    floor: float = 0.01

    def __post_init__(self) -> None:
        for name in ("gain", "confidence", "floor"):
            value = getattr(self, name)
            require(name, value, "a probability strictly between 0 and 1", lambda x: (x > 0) & (x < 1))
        if isinstance(self.budget, bool) or not isinstance(self.budget, int) or self.budget < 1:
            raise ValueError(f"budget must be an integer >= 1, got {self.budget!r}")


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What becomes of every p_ref of the grid, for each β; arrays of shape (b, bins).

    Attributes:
        p_star: where p goes in the end, its mean over a cycle.
        failure: 1 − p*.
        amplified: whether it counts as amplified.
        bistable, oscillating, undecided: its regime; an irregular orbit counts as oscillating.
        moves: probability that not all groups are silent within the budget, shape (bins,).
        divergence: KL(π*‖π_ref) of the question in nats: what the answers that are right gain, and the wrong ones lose.
    """

    p_star: Array
    failure: Array
    amplified: Array
    bistable: Array
    oscillating: Array
    undecided: Array
    moves: Array
    divergence: Array

    @property
    def safely(self) -> Array:
        """Probability to move, and to be amplified, in the only stable state and without a cycle; shape (b, bins)."""
        return (self.amplified & ~(self.bistable | self.oscillating | self.undecided)) * self.moves


def outcome(dynamics: Recursion | Flow, betas: int, group_size: int | None, aim: Goal) -> Outcome:
    """Return what the dynamics of shape (betas, bins), or (bins,) where β has no part in them, do."""
    shape = (betas, GRID.bins)
    where = limit(dynamics, GRID.p)
    label = np.broadcast_to(regime(dynamics).label, shape)
    mean = long_run(dynamics, where)[0]
    settled = np.isin(where.kind, SETTLED)
    failure = np.where(settled, complement(where.log_odds), 1 - mean)
    p_star = np.where(settled, sigmoid(where.log_odds), mean)
    log_failure = np.where(settled, -np.logaddexp(0.0, where.log_odds), np.log(np.maximum(1 - mean, 1e-300)))
    fails = complement(GRID.log_odds)
    with np.errstate(invalid="ignore"):
        gained = p_star * (np.log(p_star) - np.log(GRID.p))
        lost = np.where(failure > 0, failure * (log_failure - np.log(fails)), 0.0)
    silent = 0.0 if group_size is None else GRID.p**group_size + fails**group_size
    visits = 1 if group_size is None else max(1, aim.budget // group_size)
    return Outcome(
        p_star=np.broadcast_to(p_star, shape),
        failure=np.broadcast_to(failure, shape),
        amplified=np.broadcast_to(failure <= (1 - aim.gain) * fails, shape),
        bistable=label == int(Regime.BISTABLE),
        oscillating=(label == int(Regime.OSCILLATING)) | (label == int(Regime.CHAOTIC)),
        undecided=label == int(Regime.DEGENERATE),
        moves=1 - np.broadcast_to(silent, (GRID.bins,)) ** visits,
        divergence=np.broadcast_to(gained + lost, shape),
    )


def whole_steps(dynamics: Recursion | Flow) -> Array:
    """Return which p_ref would go round a cycle if each batch were optimised to its end; shape of the dynamics.

    All False for a recursion, whose steps are whole, and where the KL term of a flow is not KL(π‖π_ref).
    """
    if not isinstance(dynamics, Flow) or dynamics.divergence != "reverse":
        return np.zeros(batch_shape(dynamics), dtype=bool)
    label = regime(dynamics.recursion).label
    return (label == int(Regime.OSCILLATING)) | (label == int(Regime.CHAOTIC))


def passes(
    successes: Array, samples: Array, ks: Sequence[int], mixture: Array, best: Outcome, row: int
) -> pl.DataFrame:
    """Return pass@k before and after: columns k, questions, before_unbiased, before, after.

    Before: the estimator 1 − C(n−c, k)/C(n, k), unbiased, over the ``questions`` with n ≥ k samples; and the mean of
    1 − (1−p)^k over the posterior of all. After: the mean of 1 − (1−p*)^k over the same posterior, where a question
    that does not move keeps its p.

    Source: Chen et al. 2021 [2107.03374], eq. 1.
    """
    import polars as pl
    from scipy.special import gammaln

    rows: list[dict[str, Any]] = []
    for k in ks:
        if isinstance(k, bool) or not isinstance(k, int) or k < 1:
            raise ValueError(f"k must be integers >= 1, got {k!r}")
        known = samples >= k
        n, wrong = samples[known].astype(float), (samples - successes)[known].astype(float)
        some = wrong >= k  # fewer wrong ones than k: every draw of k has a right one
        none_right = np.zeros(n.size)
        a, b = wrong[some], n[some]
        none_right[some] = np.exp(gammaln(a + 1) - gammaln(a - k + 1) - gammaln(b + 1) + gammaln(b - k + 1))
        before = -np.expm1(k * -np.logaddexp(0.0, GRID.log_odds))
        with np.errstate(divide="ignore"):
            after = -np.expm1(k * np.log(best.failure[row]))
        rows.append(
            {
                "k": k,
                "questions": int(known.sum()),
                "before_unbiased": float(np.mean(1 - none_right)) if known.any() else None,
                "before": float(mixture @ before),
                "after": float(mixture @ (best.moves * after + (1 - best.moves) * before)),
            }
        )
    kinds = {"k": pl.Int64, "questions": pl.Int64, "before_unbiased": pl.Float64, "before": pl.Float64}
    return pl.DataFrame(rows, schema={**kinds, "after": pl.Float64})

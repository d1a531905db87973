"""Theorem 10 beside what happens: how far a trained policy is from the exact one, and how far it may be."""

from __future__ import annotations

import dataclasses

import numpy as np

from grpo_dynamics.arrays import require
from grpo_dynamics.logodds import sigmoid
from grpo_dynamics.simulation.features import Matrix
from grpo_dynamics.simulation.policies import log_odds, total_variation


@dataclasses.dataclass(frozen=True, eq=False)
class ErrorBounds:
    """Deviations and their bounds, all of shape (steps+1, questions).

    Attributes:
        deviation: |p̃_n − p_n|.
        total_variation: TV(π̃_n, π_n).
        delta: the smallest δ_n that the theorem's assumption TV_n ≤ TV_{n−1} + δ_n allows.
        sharp: δ_1 + … + δ_n, the bound with the best constant.
        paper: twice that, the bound of the theorem.
        own: η_n = TV(π̃_n, the exact answer to π̃_{n−1}), the error of each step by itself; NaN without ``answers``.
    """

    deviation: Matrix
    total_variation: Matrix
    delta: Matrix
    sharp: Matrix
    paper: Matrix
    own: Matrix

    def accumulated(self, contraction: float) -> Matrix:
        """Return Σ_i q^(n−i)·η_i, which bounds TV where |h'| ≤ q along the way: steps that forget old errors.

        Args:
            contraction: q ≥ 0, the largest |dp_n/dp_{n−1}| between the two orbits.

        Source: derived in docs/notebooks/9_approximate_policies, for policies whose exact answers depend on p alone
        (α = 1).
        """
        require("contraction", contraction, "a number >= 0", lambda x: (x.ndim == 0) & (x >= 0))
        bound = np.zeros_like(self.own)
        for n in range(1, len(bound)):
            bound[n] = self.own[n] + contraction * bound[n - 1]
        return bound


def error_bounds(
    log_exact: Matrix, log_approximate: Matrix, correct: Matrix, log_answers: Matrix | None = None
) -> ErrorBounds:
    """Return how far approximate policies are from the exact ones, and Theorem 10's bounds of it.

    Args:
        log_exact: log-probabilities of π_0 … π_n, shape (steps+1, questions, answers).
        log_approximate: those of π̃_0 … π̃_n, with π̃_0 = π_0.
        correct: which answers are right, shape (questions, answers).
        log_answers: those of the exact step from π̃_{n−1}, for n = 1, 2, …, shape (steps, questions, answers).

    Raises:
        ValueError: if the shapes differ or the policies start apart.

    Source: [2503.06639v4, Thm 10]; the constant 1 is derived in docs/notebooks/9_approximate_policies.

    >>> half, more = np.log([[[0.5, 0.5]]]), np.log([[[0.6, 0.4]]])
    >>> bounds = error_bounds(np.concatenate([half, half]), np.concatenate([half, more]), np.array([[True, False]]))
    >>> print(bounds.deviation[1].round(3), bounds.sharp[1].round(3), bounds.paper[1].round(3))
    [0.1] [0.1] [0.2]
    """
    log_exact, log_approximate = np.asarray(log_exact, dtype=float), np.asarray(log_approximate, dtype=float)
    correct = np.asarray(correct, dtype=bool)
    if log_exact.shape != log_approximate.shape or log_exact.ndim != 3:
        raise ValueError(
            f"log_approximate must have the shape of log_exact, {log_exact.shape}, got {log_approximate.shape}"
        )
    for name, policy in (("log_exact", log_exact), ("log_approximate", log_approximate)):
        require(name, policy, "log-probabilities, at most 0", lambda x: x <= 1e-9)
    if correct.shape != log_exact.shape[1:]:
        raise ValueError(f"correct must have the shape {log_exact.shape[1:]}, got {correct.shape}")
    distance = total_variation(log_exact, log_approximate)
    if float(distance[0].max()) > 1e-12:
        raise ValueError(f"log_approximate must start where log_exact does, got a distance of {distance[0].max():.3g}")
    p, approximate = (sigmoid(log_odds(policy, correct)) for policy in (log_exact, log_approximate))
    delta = np.maximum(np.diff(distance, axis=0, prepend=distance[:1]), 0.0)
    own = np.full_like(distance, np.nan)
    if log_answers is not None:
        own[0], own[1:] = 0.0, total_variation(log_answers, log_approximate[1:])
    sharp = distance[:1] + np.cumsum(delta, axis=0)
    return ErrorBounds(np.abs(approximate - p), distance, delta, sharp, 2 * sharp, own)

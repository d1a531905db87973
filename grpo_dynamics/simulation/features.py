"""Parametric policies: logits that are linear in weights which answers and questions share."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from grpo_dynamics.arrays import require
from grpo_dynamics.simulation.outcomes import Outcomes
from grpo_dynamics.simulation.policies import normalize
from grpo_dynamics.simulation.population_sums import require_whole

Matrix = np.ndarray[Any, np.dtype[np.float64]]


@dataclasses.dataclass(frozen=True, eq=False)
class Features:
    """The policies π(o|q) ∝ π_ref(o|q)·exp(Σ_f values[q, o, f]·weights[f]), with the reference at weights 0.

    Args:
        values: finite, shape (questions, answers, rank). With a rank below questions·(answers−1) not every policy can
            be said; where several questions have values for the same weight, what one learns moves the others.

    Raises:
        ValueError: for values that are not finite or of another shape.

    >>> questions = Outcomes.uniform([0.2, 0.5])
    >>> shared = Features(questions.correct[:, :, None].astype(float))  # one weight: "be right", for both questions
    >>> print(np.exp(shared.policy(questions, np.array([1.0])))[:, 0].round(3))
    [0.405 0.731]
    """

    values: Any

    def __post_init__(self) -> None:
        require("values", self.values, "finite numbers", lambda x: np.isfinite(x))
        values = np.asarray(self.values, dtype=float)
        if values.ndim != 3 or values.shape[2] == 0:
            raise ValueError(f"values must have the shape (questions, answers, rank), got {values.shape}")
        object.__setattr__(self, "values", values)

    @classmethod
    def tabular(cls, outcomes: Outcomes) -> Features:
        """Return one weight per answer of each question: every policy can be said."""
        questions, answers = outcomes.questions, outcomes.answers
        return cls(np.eye(questions * answers).reshape(questions, answers, -1))

    @classmethod
    def random(cls, outcomes: Outcomes, rank: int, seed: int) -> Features:
        """Return independent normal values of variance 1/rank: a linear policy on random embeddings of the answers."""
        require_whole("rank", rank, 1)
        require_whole("seed", seed, 0)
        shape = (outcomes.questions, outcomes.answers, rank)
        return cls(np.random.default_rng(seed).normal(size=shape) / np.sqrt(rank))

    def policy(self, outcomes: Outcomes, weights: Matrix) -> Matrix:
        """Return the log-probabilities, shape (questions, answers)."""
        return normalize(outcomes.log_reference + self.values @ weights)

    def pull_back(self, gradient: Matrix) -> Matrix:
        """Return the gradient on the weights, from that on the logits."""
        return np.einsum("qof,qo->f", self.values, gradient)

    def natural(self, log_policy: Matrix, gradient: Matrix) -> Matrix:
        """Return the natural gradient on the weights: F⁻¹ times the plain one, of least norm where F is singular.

        F = Σ_q Φ_qᵀ(diag π_q − π_q π_qᵀ)Φ_q is the Fisher matrix; it is solved by its square root.
        """
        policy = np.exp(log_policy)
        mean = np.einsum("qo,qof->qf", policy, self.values)
        root = np.sqrt(policy)[:, :, None] * (self.values - mean[:, None, :])
        with np.errstate(all="ignore"):
            wanted = np.where(policy > 0, gradient / np.sqrt(policy), 0.0)
        rank = self.values.shape[2]
        return np.linalg.lstsq(root.reshape(-1, rank), wanted.reshape(-1), rcond=1e-12)[0]

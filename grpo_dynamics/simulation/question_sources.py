"""Where the questions of a population come from: a Beta distribution of success rates, or a table.

A source draws at random, gives the quantiles of its distribution, and gives nodes and weights for averages over it
that are exact (a table) or exact to rounding (a Beta distribution).
"""

from __future__ import annotations

import dataclasses
import math
import os
from typing import Any, Protocol, runtime_checkable

import numpy as np

from grpo_dynamics.arrays import option, require
from grpo_dynamics.logodds import sigmoid
from grpo_dynamics.question_files import Questions, read_questions

Vector = np.ndarray[Any, np.dtype[np.float64]]

LOWEST, HIGHEST = 1e-300, 1 - 2**-53
"""A p_ref drawn outside counts as this: log-odds −690.8 and 36.7. A p_ref of 0 or 1 in a table stays what it is."""


@runtime_checkable
class QuestionSource(Protocol):
    """A distribution of p_ref over questions."""

    def draw(self, generator: np.random.Generator, count: int) -> Vector:
        """Return independent success rates, shape (count,)."""
        ...

    def quantiles(self, first: int, last: int, total: int) -> Vector:
        """Return the quantiles at (i + ½)/total for first ≤ i < last; those of a table in the order of its rows."""
        ...

    def nodes(self) -> tuple[Vector, Vector]:
        """Return success rates and weights of sum 1 with which averages over the distribution are taken."""
        ...


@dataclasses.dataclass(frozen=True)
class BetaQuestions:
    """Success rates of the reference policy that are Beta(a, b) distributed over questions; their mean is a/(a+b).

    Args:
        a: shape > 0, a number; below 1 there are many hopeless questions.
        b: shape > 0, a number; below 1 there are many solved questions.

    Raises:
        ValueError: for shapes that are not finite numbers between 1e-3 and 1e6.

    >>> p_ref, weights = BetaQuestions(0.5, 1.5).nodes()
    >>> print(round(float(p_ref @ weights), 12))
    0.25
    """

    a: float
    b: float

    def __post_init__(self) -> None:
        for name in ("a", "b"):
            object.__setattr__(self, name, option(getattr(self, name)))
            allowed = "a number between 1e-3 and 1e6"
            require(name, getattr(self, name), allowed, lambda x: (x.ndim == 0) & (x >= 1e-3) & (x <= 1e6))

    def draw(self, generator: np.random.Generator, count: int) -> Vector:
        return _inside(sigmoid(_log_gamma(generator, self.a, count) - _log_gamma(generator, self.b, count)))

    def quantiles(self, first: int, last: int, total: int) -> Vector:
        from scipy.special import betaincinv

        return _inside(betaincinv(self.a, self.b, (np.arange(first, last) + 0.5) / total))

    def nodes(self) -> tuple[Vector, Vector]:
        """The trapezoidal rule in log-odds, where the density p^a (1−p)^b is analytic and decays: exact to rounding."""
        a, b = self.a, self.b
        centre, width = math.log(a / b), math.sqrt(1 / a + 1 / b)
        distance = min(0.25, 1 / math.sqrt(a + b))
        reach = 45.0  # to e^-45 of the peak: like a Gaussian, or exponentially where a or b is small
        low, high = centre - reach / a - 10 * width, centre + reach / b + 10 * width
        if min(a, b) > 20:
            low, high = centre - 15 * width, centre + 15 * width
        log_odds = centre + distance * np.arange(math.floor((low - centre) / distance), (high - centre) / distance)
        log_weights = -a * np.logaddexp(0.0, -log_odds) - b * np.logaddexp(0.0, log_odds)
        weights = np.exp(log_weights - log_weights.max())
        kept = weights > 1e-20
        return _inside(sigmoid(log_odds[kept])), weights[kept] / weights[kept].sum()


@dataclasses.dataclass(frozen=True)
class TableQuestions:
    """Success rates of the reference policy as they were measured, question by question.

    A rate of 0 or 1 stays there: no answer is ever right, or wrong. See :meth:`smoothed` where k of few is meant.

    Args:
        p_ref: in [0, 1], shape (questions,).
        weights: how often each question occurs, shape (questions,), not negative; all alike if not given.

    Raises:
        ValueError: for values out of range, or of another shape.

    >>> print(TableQuestions([0.1, 0.4], weights=[3, 1]).quantiles(0, 4, 4))
    [0.1 0.1 0.1 0.4]
    """

    p_ref: Any
    weights: Any = None

    def __post_init__(self) -> None:
        require("p_ref", self.p_ref, "a probability between 0 and 1", lambda x: (x >= 0) & (x <= 1))
        p_ref = np.array(self.p_ref, dtype=float)
        if p_ref.ndim != 1 or p_ref.size == 0:
            raise ValueError(f"p_ref must have the shape (questions,), got {p_ref.shape}")
        object.__setattr__(self, "p_ref", p_ref)
        if self.weights is None:
            object.__setattr__(self, "weights", np.full(p_ref.size, 1 / p_ref.size))
            return
        require("weights", self.weights, "finite and not negative", lambda x: (x >= 0) & (x < float("inf")))
        weights = np.array(self.weights, dtype=float)
        if weights.shape != p_ref.shape or not weights.sum() > 0:
            raise ValueError(f"weights must have the shape of p_ref, {p_ref.shape}, and not be all 0, got {weights!r}")
        object.__setattr__(self, "weights", weights / weights.sum())

    @classmethod
    def read(cls, path: str | os.PathLike[str], smoothed: bool = False) -> TableQuestions:
        """Return the questions of a CSV, JSONL or parquet file.

        Args:
            path: the file, as :func:`~grpo_dynamics.question_files.read_questions` takes it.
            smoothed: as :meth:`smoothed`; the file must then have numbers of samples.

        Raises:
            ValueError: for a file that cannot be read, or values out of range, with the row.
        """
        questions = read_questions(path)
        return cls.smoothed(questions) if smoothed else cls(questions.p_ref)

    @classmethod
    def smoothed(cls, questions: Questions) -> TableQuestions:
        """Return (k + ½)/(n + 1) for k successes of n, the mean of Jeffreys' posterior, so that no rate is 0 or 1.

        Raises:
            ValueError: if numbers of samples are not known.
        """
        if questions.samples is None:
            raise ValueError("questions must have numbers of samples to be smoothed, got rates only")
        successes = questions.p_ref * questions.samples if questions.successes is None else questions.successes
        return cls((successes + 0.5) / (questions.samples + 1))

    def draw(self, generator: np.random.Generator, count: int) -> Vector:
        return self._at(generator.random(count))

    def quantiles(self, first: int, last: int, total: int) -> Vector:
        return self._at((np.arange(first, last) + 0.5) / total)

    def nodes(self) -> tuple[Vector, Vector]:
        return self.p_ref, self.weights

    def _at(self, share: Vector) -> Vector:
        """The rates below which these shares of the weight lie."""
        ends = np.cumsum(self.weights)
        return self.p_ref[np.searchsorted(ends[:-1], share * ends[-1], "right")]


def _log_gamma(generator: np.random.Generator, shape: float, count: int) -> Vector:
    """Logarithms of gamma variates: below shape 1 by U^(1/shape) of one more, as the variates themselves underflow."""
    if shape >= 1:
        return np.log(generator.standard_gamma(shape, count))
    return np.log(generator.standard_gamma(shape + 1, count)) + np.log1p(-generator.random(count)) / shape


def _inside(p_ref: Vector) -> Vector:
    return np.clip(p_ref, LOWEST, HIGHEST)

"""Questions whose answers are few enough to list: how probable the reference finds them, and which are right."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from grpo_dynamics.arrays import Array, as_arrays, option, require
from grpo_dynamics.logodds import logit, sigmoid
from grpo_dynamics.simulation.policies import log_odds, normalize
from grpo_dynamics.simulation.population_sums import require_whole


@dataclasses.dataclass(frozen=True, eq=False)
class Outcomes:
    """Many questions with K answers each.

    Every token of an answer has the same share of the answer's log-probability: the policy decides on whole answers,
    lengths only say how often each answer's score is counted, and how its ratio and its KL split among tokens.

    Args:
        log_reference: log-probability of each answer under π_ref, shape (questions, K), normalised here. −inf is an
            answer that does not exist.
        correct: whether the answer is right, same shape. Every question needs a possible right and wrong answer.
        lengths: tokens per answer, ≥ 1; a number or an array that broadcasts to the shape; 1 if left out.

    Raises:
        ValueError: for a wrong shape, NaN, lengths below 1, or a question that is always or never answered right.

    >>> print(Outcomes(np.log([[0.2, 0.3, 0.5]]), [[True, False, False]]).p_ref.round(6))
    [0.2]
    """

    log_reference: Any
    correct: Any
    lengths: Any = None

    def __post_init__(self) -> None:
        xp, reference = as_arrays(self.log_reference)
        require("log_reference", reference, "a log-probability, below inf", lambda x: x < float("inf"))
        if reference.ndim != 2 or 0 in reference.shape:
            raise ValueError(f"log_reference must have shape (questions, answers), got {tuple(reference.shape)}")
        try:
            correct = xp.asarray(self.correct, device=reference.device)
        except (TypeError, ValueError):
            correct = reference
        if correct.dtype != xp.bool or tuple(correct.shape) != tuple(reference.shape):
            shape = tuple(reference.shape)
            raise ValueError(f"correct must be true or false for each of {shape}, got {self.correct!r}")
        possible = reference > -xp.inf
        for name, side in (("right", correct), ("wrong", ~correct)):
            without = ~xp.any(side & possible, axis=-1)
            if bool(xp.any(without)):
                first = int(xp.argmax(xp.astype(without, xp.int8)))
                raise ValueError(f"every question needs a possible {name} answer, question {first} has none")
        lengths = 1.0 if self.lengths is None else option(self.lengths)
        require("lengths", lengths, "a number of tokens >= 1", lambda x: (x >= 1) & (x < float("inf")))
        _, lengths, _ = as_arrays(lengths, reference)
        try:
            lengths = xp.broadcast_to(lengths, reference.shape)
        except (ValueError, RuntimeError):
            shapes = f"{tuple(reference.shape)}, got {tuple(lengths.shape)}"
            raise ValueError(f"lengths must broadcast to the answers {shapes}") from None
        object.__setattr__(self, "log_reference", normalize(reference))
        object.__setattr__(self, "correct", correct)
        object.__setattr__(self, "lengths", lengths)

    @classmethod
    def uniform(cls, p_ref: Array, right: int = 1, wrong: int = 1, lengths: Array | None = None) -> Outcomes:
        """Return questions whose right answers, which come first, are equally probable, and so are the wrong ones.

        Plain gradient steps then follow :class:`~grpo_dynamics.Flow`; each takes the time
        learning rate · (1/right + 1/wrong).

        Args:
            p_ref: success probability of the reference, strictly between 0 and 1, shape (questions,) or a number.
            right: how many right answers.
            wrong: how many wrong answers.
            lengths: as in :class:`Outcomes`.

        >>> print(Outcomes.uniform(0.3, right=1, wrong=2).p_ref.round(6))
        [0.3]
        """
        p_ref = option(p_ref)
        require("p_ref", p_ref, "a probability strictly between 0 and 1", lambda x: (x > 0) & (x < 1))
        for name, count in (("right", right), ("wrong", wrong)):
            require_whole(name, count, 1)
        xp, p_ref = as_arrays(p_ref)
        if p_ref.ndim > 1 or 0 in p_ref.shape:
            raise ValueError(f"p_ref must be a number or of shape (questions,), got shape {tuple(p_ref.shape)}")
        ahead = xp.reshape(logit(p_ref) + 0.0 * p_ref, (-1, 1)) + np.log(wrong / right)
        columns = xp.arange(right + wrong, device=ahead.device)
        correct = xp.broadcast_to(columns < right, (ahead.shape[0], right + wrong))
        return cls(xp.where(correct, ahead, 0.0), correct, lengths)

    @classmethod
    def random(cls, questions: int, answers: int, seed: int, lengths: Array | None = None) -> Outcomes:
        """Return questions of all kinds: log-odds between −4 and 4, 1 … K−1 right answers, unequal conditionals.

        Args:
            questions: how many.
            answers: K ≥ 2.
            seed: of a NumPy generator, ≥ 0.
            lengths: as in :class:`Outcomes`.

        Raises:
            ValueError: for counts or a seed that are no integers, or too small.

        >>> print(Outcomes.random(1000, 5, seed=0).correct.sum(axis=1).max())
        4
        """
        for name, value, least in (("questions", questions, 1), ("answers", answers, 2), ("seed", seed, 0)):
            require_whole(name, value, least)
        rng = np.random.default_rng(seed)
        number_right = rng.integers(1, answers, size=(questions, 1))
        correct = rng.permuted(np.broadcast_to(np.arange(answers), (questions, answers)), axis=1) < number_right
        logits = rng.normal(size=(questions, answers))
        wanted = rng.uniform(-4, 4, questions)
        shift = (wanted - log_odds(logits, correct))[:, None]
        return cls(np.where(correct, logits + shift, logits), correct, lengths)

    @property
    def questions(self) -> int:
        """How many questions."""
        return self.log_reference.shape[0]

    @property
    def answers(self) -> int:
        """How many answers each question has."""
        return self.log_reference.shape[1]

    @property
    def log_odds_ref(self) -> Array:
        """Log-odds of the reference, shape (questions,)."""
        return log_odds(self.log_reference, self.correct)

    @property
    def p_ref(self) -> Array:
        """Success probability of the reference, shape (questions,)."""
        return sigmoid(self.log_odds_ref)

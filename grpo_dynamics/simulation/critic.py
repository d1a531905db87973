"""A critic that is a table: what it may see of an answer, what it should say, how it learns, and what it is good for.

A baseline that does not look at the token to come changes no expected gradient: with λ = γ = 1 PPO's advantage
return − V(prefix) gives Ω = 1 with any critic, good or bad. The critic decides the noise; and for λ < 1, where the
advantage is taken from V at the later prefixes, it decides the expectation as well.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, Literal

import numpy as np

from grpo_dynamics.advantages import returns
from grpo_dynamics.arrays import Array, as_arrays, namespace, require, require_choice
from grpo_dynamics.simulation.answer_tree import AnswerTree

View = Literal["prefix", "position", "question"]
VIEWS = ("prefix", "position", "question")


@dataclasses.dataclass(frozen=True, eq=False)
class Critic:
    """A table of values V for every question, by what it sees.

    Args:
        tree: the answers.
        view: "prefix": one value per question and prefix; "position": per question and number of tokens so far;
            "question": per question, fitted to the mean over the tokens of an answer.

    Raises:
        ValueError: for an unknown view.

    >>> tree = AnswerTree.chains([[0.25, 0.75]], [[True, False]], [2, 2])
    >>> critic = Critic(tree, "prefix")
    >>> print(critic.exact(tree.reference, tree.rewards))
    [[0.25 1.   0.  ]]
    """

    tree: AnswerTree
    view: View = "prefix"

    def __post_init__(self) -> None:
        require_choice("view", self.view, VIEWS)

    @property
    def untrained(self) -> Array:
        """A table of zeros, shape (questions, entries)."""
        return 0.0 * self.tree.reference[:, :1] * self._marks[:1, :]

    @functools.cached_property
    def _numbers(self) -> Any:
        """The entry that the critic looks up before each token, shape (answers, T)."""
        if self.view == "prefix":
            return self.tree.prefix
        positions = np.broadcast_to(np.arange(self.tree.inside.shape[1]), self.tree.inside.shape)
        return positions if self.view == "position" else 0 * positions

    @functools.cached_property
    def _marks(self) -> Array:
        """How much each token counts for each entry, shape (answers · T, entries)."""
        weight = self.tree.inside / (self.tree.lengths[:, None] if self.view == "question" else 1)
        marks = np.eye(int(self._numbers.max()) + 1)[self._numbers.reshape(-1)] * weight.reshape(-1, 1)
        return self.tree.beside(marks)

    def of_tokens(self, table: Array) -> Array:
        """Return V before each token of each answer, shape (questions, answers, T), 0 after the end."""
        return self.tree.of_tokens(table, self._numbers)

    def exact(self, share: Array, rewards: Array, gamma: float = 1.0) -> Array:
        """Return the table with the least mean squared error against the returns.

        Args:
            share: probability of each answer, shape (questions, answers).
            rewards: of each token of each answer, shape (questions, answers, T).
            gamma: discount γ.
        """
        xp = namespace(share)
        visits = self._sums(self.tree.per_token(share))
        total = self._sums(self.tree.per_token(share) * returns(rewards, gamma))
        return xp.where(visits > 0, total / xp.where(visits > 0, visits, 1.0), 0.0)

    def learn(self, table: Array, share: Array, targets: Array, rate: float) -> Array:
        """Return the table after one gradient step on half the mean squared error, summed over the tokens.

        Args:
            table: shape (questions, entries).
            share: of each answer among the samples, shape (questions, answers).
            targets: what V should be before each token, shape (questions, answers, T).
            rate: learning rate; with 1 the value of a prefix that every answer passes becomes the mean of its targets.
        """
        return table + rate * self._sums(self.tree.per_token(share) * (targets - self.of_tokens(table)))

    def _sums(self, per_token: Array) -> Array:
        return namespace(per_token).reshape(per_token, (per_token.shape[0], -1)) @ self._marks


def gradient_variance(p: Array, value: Array) -> Array:
    """Return the variance of one sample's gradient (r − V)(r − p) on the success logit of a policy of two answers.

    Its mean is p(1−p) for every V. The variance is p(1−p)·[(1−p)(1−V)² + p·V² − p(1−p)]: p(1−p)(1−2p)² with the exact
    critic V = p, p(1−p)³ with none. The least, 0, is at V = 1 − p.

    Args:
        p: success probability in [0, 1].
        value: the critic's V of the question, broadcasts with p.

    Source: derived in tests/simulation/test_critic by listing both answers.

    >>> print(gradient_variance(0.25, [0.0, 0.25, 0.75]).round(6))
    [0.105469 0.046875 0.      ]
    """
    require("p", p, "a probability between 0 and 1", lambda x: (x >= 0) & (x <= 1))
    _, p, value = as_arrays(p, value)
    variance = p * (1 - p)
    # the bracket written as one square, so that nothing cancels
    return variance * (1 - p - value) ** 2


def lag(success: Array, rate: float, start: Array = 0.0) -> Array:
    """Return the values of a critic of the question that learns at ``rate`` while p moves: V ← V + rate·(p − V).

    Where p rises by a constant amount a step, the critic stays behind by that amount over the rate.

    Args:
        success: p at each step, shape (steps, ...).
        rate: in (0, 1].
        start: V before the first step.

    Returns:
        V at each step, before it learns from it, same shape.

    Raises:
        ValueError: for a rate out of range.

    >>> print(lag(np.array([0.5, 0.5, 0.5]), rate=0.5))
    [0.    0.25  0.375]
    """
    require("rate", rate, "above 0 and at most 1", lambda x: (x > 0) & (x <= 1))
    xp, success = as_arrays(success)
    if success.ndim == 0 or success.shape[0] == 0:
        raise ValueError(f"success must have the shape (steps, ...) with a step, got {tuple(success.shape)}")
    value = start + 0.0 * success[0, ...]
    values: list[Array] = []
    for n in range(success.shape[0]):
        values.append(value)
        value = value + rate * (success[n, ...] - value)
    return xp.stack(values, axis=0)

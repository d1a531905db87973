"""Answers of several tokens to many questions at once, as a tree of prefixes: where a policy decides, a critic looks.

All questions share one tree: which tokens the answers have. Each question has its own probabilities and its own right
answers. A policy is a softmax over the next token after every prefix; its state is the log-probability of every edge.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np

from grpo_dynamics.arrays import Array, as_arrays, namespace, option, quiet, require, to_numpy


@dataclasses.dataclass(frozen=True, eq=False)
class AnswerTree:
    """Which tokens every answer has, which answers are right, and how probable the reference finds them.

    Args:
        reference: probability of every answer, shape (questions, answers), > 0, normalised on the way in.
        correct: whether the answer is right, same shape; for every question some are right and some wrong.
        tokens: the tokens of every answer as integers ≥ 0, shape (answers, T); −1 after the end of an answer. No answer
            may be the beginning of another.
        step_rewards: what the end of a step earns, shape (questions, answers, T), NaN where no step ends; None for one
            step per answer that earns 1 if the answer is right and 0 if not.

    Raises:
        ValueError: for wrong shapes, probabilities that are not positive, or answers that are not told apart.

    >>> tree = AnswerTree([[0.1, 0.2, 0.7]], [[True, False, False]], [[0, 0], [0, 1], [1, -1]])
    >>> print(tree.lengths, tree.prefix, tree.edge.tolist())
    [2 2 1] [[0 1]
     [0 1]
     [0 0]] [[0, 2], [0, 3], [1, 0]]
    """

    reference: Any
    correct: Any
    tokens: Any
    step_rewards: Any = None

    def __post_init__(self) -> None:
        require("reference", self.reference, "probabilities > 0", lambda x: (x > 0) & (x < float("inf")))
        xp, reference = as_arrays(option(self.reference))
        if reference.ndim != 2:
            raise ValueError(f"reference must have shape (questions, answers), got {tuple(reference.shape)}")
        correct = np.asarray(self.correct) if xp is np else xp.asarray(self.correct, device=reference.device)
        if correct.dtype != xp.bool or correct.shape != reference.shape:
            raise ValueError(f"correct must be true or false for each of {tuple(reference.shape)}")
        if not bool(xp.all(xp.any(correct, axis=1) & xp.any(~correct, axis=1))):
            raise ValueError("correct must leave every question a right and a wrong answer")
        tokens = np.asarray(self.tokens)
        if tokens.ndim != 2 or tokens.dtype.kind not in "iu" or len(tokens) != reference.shape[1]:
            raise ValueError(f"tokens must be integers of shape ({reference.shape[1]}, T), got shape {tokens.shape}")
        object.__setattr__(self, "reference", reference / xp.sum(reference, axis=1, keepdims=True))
        object.__setattr__(self, "correct", correct)
        object.__setattr__(self, "tokens", tokens)
        self._number(tokens)
        self._reward(xp)

    def _number(self, tokens: Any) -> None:
        """Number prefixes and edges in the order of the answers, level by level."""
        inside = tokens >= 0
        if tokens.shape[1] == 0 or not inside[:, 0].all() or (inside[:, 1:] & ~inside[:, :-1]).any():
            raise ValueError("tokens must hold at least one token per answer and -1 only after its end")
        prefixes: dict[tuple[int, ...], int] = {(): 0}
        edges: dict[tuple[int, ...], int] = {}
        prefix, edge = np.zeros(tokens.shape, int), np.zeros(tokens.shape, int)
        rows = [tuple(int(a) for a in row[live]) for row, live in zip(tokens, inside, strict=True)]
        for t in range(tokens.shape[1]):
            for k, row in enumerate(rows):
                if t < len(row):
                    prefix[k, t] = prefixes.setdefault(row[:t], len(prefixes))
                    edge[k, t] = edges.setdefault(row[: t + 1], len(edges))
        clash = [row for row in rows if row in prefixes]
        if clash or len(set(rows)) < len(rows):
            raise ValueError(f"tokens must tell the answers apart; one is the beginning of another: {clash or rows}")
        source = np.array([prefixes[key[:-1]] for key in edges])
        for name, value in (("inside", inside), ("prefix", prefix), ("edge", edge), ("source", source)):
            object.__setattr__(self, name, value)

    def _reward(self, xp: Any) -> None:
        shape = (*self.reference.shape, self.tokens.shape[1])
        if self.step_rewards is None:
            ends = np.arange(shape[2]) == self.lengths[:, None] - 1
            rewards = xp.astype(self.correct, self.reference.dtype)[:, :, None] + self.beside(np.zeros(shape[1:]))
        else:
            rewards = as_arrays(self.step_rewards, self.reference)[1]
            if tuple(rewards.shape) != shape:
                raise ValueError(f"step_rewards must have shape {shape}, got {tuple(rewards.shape)}")
            known = xp.all(xp.isnan(rewards) == xp.isnan(rewards[:1, ...]))
            ends = ~np.isnan(to_numpy(rewards[0, ...]))
            if not bool(known):
                raise ValueError("step_rewards must be NaN at the same places for every question")
            if (ends & ~self.inside).any() or not ends[np.arange(shape[1]), self.lengths - 1].all():
                raise ValueError("step_rewards must end a step with the last token of every answer, and none after it")
        rewards = xp.where(self.beside(ends) > 0, rewards, 0.0)
        require("step_rewards", rewards, "finite", lambda x: (x > -float("inf")) & (x < float("inf")))
        object.__setattr__(self, "step_ends", ends)
        object.__setattr__(self, "rewards", rewards)

    inside: Any = dataclasses.field(init=False, repr=False)
    """Whether the answer still has a token there, shape (answers, T)."""
    prefix: Any = dataclasses.field(init=False, repr=False)
    """Number of the prefix before token t of an answer, shape (answers, T); the empty one is 0."""
    edge: Any = dataclasses.field(init=False, repr=False)
    """Number of the prefix with token t, shape (answers, T)."""
    source: Any = dataclasses.field(init=False, repr=False)
    """Number of the prefix that an edge leaves, shape (edges,)."""
    step_ends: Any = dataclasses.field(init=False, repr=False)
    """Whether a step ends with the token, shape (answers, T)."""
    rewards: Any = dataclasses.field(init=False, repr=False)
    """The step rewards with 0 where no step ends, shape (questions, answers, T)."""

    @property
    def lengths(self) -> Any:
        """Tokens per answer, shape (answers,)."""
        return self.inside.sum(axis=1)

    @property
    def prefixes(self) -> int:
        """How many prefixes there are."""
        return int(self.source.max()) + 1

    @property
    def p_ref(self) -> Array:
        """Success probability of the reference, shape (questions,)."""
        xp = namespace(self.reference)
        return xp.sum(xp.where(self.correct, self.reference, 0.0), axis=1)

    @property
    def log_reference(self) -> Array:
        """Log-probability of every edge under the reference, shape (questions, edges)."""
        return self.edges_of(self.reference)

    @classmethod
    def chains(cls, reference: Array, correct: Array, lengths: Array) -> AnswerTree:
        """Return answers that their first token decides: the rest of an answer follows with probability 1.

        >>> print(AnswerTree.chains([[0.5, 0.5]], [[True, False]], [1, 3]).tokens.tolist())
        [[0, -1, -1], [1, 0, 0]]
        """
        require("lengths", lengths, "integers >= 1", lambda x: (x >= 1) & (x % 1 == 0))
        lengths = np.asarray(lengths, int)
        tokens = np.where(np.arange(lengths.max()) < lengths[:, None], 0, -1)
        tokens[:, 0] = np.arange(len(lengths))
        return cls(reference, correct, tokens)

    @classmethod
    def full(cls, reference: Array, correct: Array, step_rewards: Array | None = None) -> AnswerTree:
        """Return every answer of T tokens from vocabularies V_1 … V_T; reference: (questions, V_1, …, V_T).

        >>> AnswerTree.full([[[0.1, 0.2], [0.3, 0.4]]], [[[True, False], [False, False]]]).prefixes
        3
        """
        xp, reference = as_arrays(option(reference))
        if reference.ndim < 2:
            raise ValueError(f"reference must have shape (questions, V_1, ...), got {tuple(reference.shape)}")
        correct = np.asarray(correct) if xp is np else xp.asarray(correct, device=reference.device)
        if tuple(correct.shape) != tuple(reference.shape):
            raise ValueError(f"correct must have shape {tuple(reference.shape)}, got {tuple(correct.shape)}")
        tokens = np.stack([x.reshape(-1) for x in np.indices(reference.shape[1:])], axis=1)
        shape = (reference.shape[0], len(tokens))
        return cls(xp.reshape(reference, shape), xp.reshape(correct, shape), tokens, step_rewards)

    # ---- between tokens, edges and prefixes -------------------------------------------------------------------------

    def beside(self, values: Any) -> Array:
        """An array of this machine as one beside the reference, of its type."""
        xp = namespace(self.reference)
        values = np.asarray(values)
        if xp is np:
            return np.asarray(values, self.reference.dtype)
        return xp.asarray(values, dtype=self.reference.dtype, device=self.reference.device)

    def _index(self, numbers: Any) -> Array:
        xp = namespace(self.reference)
        return numbers.reshape(-1) if xp is np else xp.asarray(numbers.reshape(-1), device=self.reference.device)

    @functools.cached_property
    def _mask(self) -> Array:
        return self.beside(self.inside)

    @functools.cached_property
    def _prefix_marks(self) -> Array:
        return self.beside(np.eye(self.prefixes)[self.prefix.reshape(-1)] * self.inside.reshape(-1, 1))

    @functools.cached_property
    def _edge_marks(self) -> Array:
        return self.beside(np.eye(len(self.source))[self.edge.reshape(-1)] * self.inside.reshape(-1, 1))

    @functools.cached_property
    def _children(self) -> Any:
        """The edges that leave each prefix, shape (prefixes, widest), and which of these entries there are."""
        leaving = [np.flatnonzero(self.source == prefix) for prefix in range(self.prefixes)]
        widest = max(map(len, leaving))
        numbers = np.array([np.pad(x, (0, widest - len(x))) for x in leaving])
        return numbers, self.beside([np.arange(widest) < len(x) for x in leaving])

    def at_prefixes(self, per_token: Array) -> Array:
        """Sum what belongs to the tokens, (questions, answers, T), over the answers that share the prefix before."""
        return namespace(per_token).reshape(per_token, (per_token.shape[0], -1)) @ self._prefix_marks

    def at_edges(self, per_token: Array) -> Array:
        """Sum what belongs to the tokens, (questions, answers, T), over the answers that share the edge."""
        return namespace(per_token).reshape(per_token, (per_token.shape[0], -1)) @ self._edge_marks

    def of_tokens(self, values: Array, numbers: Any) -> Array:
        """Return for each token the value of its prefix or edge, by their numbers; 0 after the end of the answer."""
        xp = namespace(values)
        taken = xp.reshape(xp.take(values, self._index(numbers), axis=1), (values.shape[0], *numbers.shape))
        return xp.where(self._mask > 0, taken, 0.0)

    def per_token(self, per_answer: Array) -> Array:
        """Repeat what belongs to an answer, (questions, answers), on each of its tokens."""
        return per_answer[:, :, None] * self._mask

    # ---- policies ---------------------------------------------------------------------------------------------------

    def edges_of(self, probabilities: Array) -> Array:
        """Return the log-probability of every edge from the probabilities > 0 of the answers."""
        xp = namespace(probabilities)
        flow = self.per_token(probabilities)
        return xp.log(self.at_edges(flow)) - xp.log(self._over_edges(self.at_prefixes(flow)))

    def answers_of(self, log_policy: Array) -> Array:
        """Return the log-probability of every answer, shape (questions, answers)."""
        return namespace(log_policy).sum(self.of_tokens(log_policy, self.edge), axis=2)

    @quiet
    def normalize(self, logits: Array) -> Array:
        """Return the log-probabilities of the edges from their logits."""
        xp = namespace(logits)
        numbers, there = self._children
        taken = xp.reshape(xp.take(logits, self._index(numbers), axis=1), (logits.shape[0], *numbers.shape))
        taken = xp.where(there > 0, taken, -xp.inf)
        top = xp.max(taken, axis=2)
        total = top + xp.log(xp.sum(xp.exp(taken - top[:, :, None]), axis=2))
        return logits - self._over_edges(total)

    def gradient(self, log_policy: Array, weights: Array) -> Array:
        """Return Σ weights·∇ log π(token | prefix) on the logits of all edges.

        Args:
            log_policy: shape (questions, edges).
            weights: of every token of every answer, shape (questions, answers, T).
        """
        chosen, decided = self.at_edges(weights), self._over_edges(self.at_prefixes(weights))
        return chosen - namespace(log_policy).exp(log_policy) * decided

    def _over_edges(self, at_prefixes: Array) -> Array:
        """Repeat what belongs to a prefix on the edges that leave it."""
        return namespace(at_prefixes).take(at_prefixes, self._index(self.source), axis=1)

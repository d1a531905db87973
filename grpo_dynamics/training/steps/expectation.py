"""Exact expectations: every possible answer of a policy, and the objective of an iteration over all of them.

A policy with a vocabulary of V tokens that may say T of them has a tree of prefixes and a leaf for every answer: it
ends with the end token, or after T tokens. Where the tree is small, nothing needs to be sampled: log π of all answers
follows from the next-token distributions at all prefixes by the chain rule, p is a sum over the right answers, and the
KL of whole answers is a sum too. With one token the tree is one distribution.

Everything is float64: log-odds are differences of two log-sum-exps, of the right and of the wrong answers, so that p
within 1e-70 of 1 is still told from 1.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from grpo_dynamics.update_rule import Training


@dataclasses.dataclass(frozen=True, eq=False)
class Answers:
    """All answers that are possible, S in all, the same for every question.

    Attributes:
        tokens: token ids (S, T), 0 after the end.
        mask: bool (S, T), True on the tokens of an answer.
        prefixes: the N beginnings after which a token is drawn, the empty one first.
        prefix_of: which of them comes before each token, (S, T); 0 after the end.
    """

    tokens: Tensor
    mask: Tensor
    prefixes: list[list[int]]
    prefix_of: Tensor

    def ids(self) -> list[list[int]]:
        """Return the token ids of each answer, without padding."""
        return [row[there].tolist() for row, there in zip(self.tokens, self.mask, strict=True)]


def count_answers(vocabulary: int, max_tokens: int) -> int:
    """Return the number of possible answers.

    >>> count_answers(15, 1), count_answers(15, 3)  # 1 + 14 + 14²·15
    (15, 2955)
    """
    longest = max_tokens - 1
    return sum((vocabulary - 1) ** t for t in range(longest)) + (vocabulary - 1) ** longest * vocabulary


def every_answer(vocabulary: int, eos_id: int, max_tokens: int, most: int = 5000) -> Answers:
    """Return every answer that ends with the end token, or is cut off at ``max_tokens``.

    Args:
        vocabulary: V, number of tokens that can be said.
        eos_id: the token that ends an answer.
        max_tokens: T ≥ 1, the end token included.
        most: so many answers are enumerated at most.

    Raises:
        ValueError: if there are more.

    >>> answers = every_answer(vocabulary=3, eos_id=2, max_tokens=2)
    >>> answers.ids(), answers.prefixes
    ([[2], [0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]], [[], [0], [1]])
    """
    if count_answers(vocabulary, max_tokens) > most:
        raise ValueError(
            f"answers must be at most {most} to be enumerated (most_answers), got {vocabulary} tokens and up to "
            f'{max_tokens} of them in an answer; take update="sampled"'
        )
    prefixes, found, open_ones = [list[int]()], list[list[int]](), [list[int]()]
    for length in range(1, max_tokens + 1):
        longer = [[*prefix, token] for prefix in open_ones for token in range(vocabulary)]
        ended = [answer for answer in longer if answer[-1] == eos_id or length == max_tokens]
        open_ones = [answer for answer in longer if answer[-1] != eos_id and length < max_tokens]
        found += ended
        prefixes += open_ones
    place = {tuple(prefix): i for i, prefix in enumerate(prefixes)}
    rows = range(max_tokens)
    return Answers(
        tokens=torch.tensor([[answer[t] if t < len(answer) else 0 for t in rows] for answer in found]),
        mask=torch.tensor([[t < len(answer) for t in rows] for answer in found]),
        prefixes=prefixes,
        prefix_of=torch.tensor(
            [[place[tuple(answer[:t])] if t < len(answer) else 0 for t in rows] for answer in found]
        ),
    )


def log_odds(log_policy: Tensor, right: Tensor) -> Tensor:
    """Return log p/(1−p) of each question, shape (Q,): −inf where no answer is right.

    Args:
        log_policy: log π of the answers, shape (Q, S), in whatever way it is normalised.
        right: which answers are right, shape (Q, S).

    >>> log_odds(torch.tensor([[0.0, -100.0]]), torch.tensor([[True, False]]))
    tensor([100.])
    """
    nothing = torch.full_like(log_policy, -torch.inf)
    return torch.where(right, log_policy, nothing).logsumexp(-1) - torch.where(right, nothing, log_policy).logsumexp(-1)


@dataclasses.dataclass(frozen=True, eq=False)
class Objective:
    """What an iteration maximises: J(π) = E_π[A] − β·[α·KL(π‖π_ref) + (1−α)·KL(π‖π_old)], for each question.

    Its maximiser over all policies is known, π* ∝ π_ref^α · π_old^(1−α) · exp(A/β), and what a policy lacks is
    J(π*) − J(π) = β·KL(π‖π*) exactly: the distance from the optimum is computed, not guessed.

    Args:
        advantage: A of every answer, float64 of shape (Q, S).
        log_ref: log π_ref, shape (Q, S).
        log_old: log π_old, shape (Q, S).
        beta: β > 0.
        alpha: α in [0, 1].

    Source: [2503.06639v4, Thms 1 and 9].

    >>> reference = torch.tensor([[0.2, 0.8]], dtype=torch.float64).log()
    >>> objective = Objective(torch.tensor([[1.0, 0.0]]).double(), reference, reference, beta=0.5)
    >>> right = torch.tensor([[True, False]])
    >>> print(log_odds(objective.optimum, right) - log_odds(reference, right))  # A/β
    tensor([2.], dtype=torch.float64)
    >>> lost = objective.value(objective.optimum) - objective.value(reference)
    >>> print(torch.allclose(lost, objective.beta * objective.distance(reference)))
    True
    """

    advantage: Tensor
    log_ref: Tensor
    log_old: Tensor
    beta: float
    alpha: float = 1.0
    optimum: Tensor = dataclasses.field(init=False)
    """log π*, shape (Q, S)."""

    def __post_init__(self) -> None:
        anchor = self.alpha * self.log_ref + (1 - self.alpha) * self.log_old
        object.__setattr__(self, "optimum", (anchor + self.advantage / self.beta).log_softmax(-1))

    def of(self, questions: slice) -> Objective:
        """Return the objective of some of the questions."""
        advantage, log_ref, log_old = (x[questions] for x in (self.advantage, self.log_ref, self.log_old))
        return Objective(advantage, log_ref, log_old, self.beta, self.alpha)

    def value(self, log_policy: Tensor) -> Tensor:
        """Return J(π), shape (Q,)."""
        anchor = self.alpha * self.log_ref + (1 - self.alpha) * self.log_old
        return (log_policy.exp() * (self.advantage - self.beta * (log_policy - anchor))).sum(-1)

    def distance(self, log_policy: Tensor) -> Tensor:
        """Return KL(π‖π*) in nats, shape (Q,): (J(π*) − J(π))/β, without the cancellation of large numbers."""
        return (log_policy.exp() * (log_policy - self.optimum)).sum(-1)

    def distance_back(self, log_policy: Tensor) -> Tensor:
        """Return KL(π*‖π), shape (Q,): 0 at the same place, and steep where π has almost no chance of what π* says."""
        return (self.optimum.exp() * (self.optimum - log_policy)).sum(-1)


def expected_advantages(log_old: Tensor, right: Tensor, training: Training) -> Tensor:
    """Return the expected advantage of every answer under exact statistics, or over groups: shape (Q, S).

    Args:
        log_old: log π_old, shape (Q, S).
        right: which answers are right, shape (Q, S).
        training: the normalisation: +w⁺(p) for right answers, −w⁻(p) for wrong ones.

    >>> from grpo_dynamics import Whitened
    >>> log_old = torch.tensor([[0.2, 0.8]], dtype=torch.float64).log()
    >>> print(expected_advantages(log_old, torch.tensor([[True, False]]), Training(normalization=Whitened(eps=0.0))))
    tensor([[ 2.0000, -0.5000]], dtype=torch.float64)
    """
    state = log_odds(log_old, right)
    positive, negative = training.normalization.positive(state), training.normalization.negative(state)
    return torch.where(right, positive[:, None], -negative[:, None])


def sampled_advantages(log_old: Tensor, answer: Tensor, advantages: Tensor) -> Tensor:
    """Return the advantage of every answer as samples from π_old estimate it, shape (Q, S).

    The objective on samples is the mean of ρ·A with ρ = π/π_old: an answer that makes up a share s of the samples, with
    a mean advantage Ā, counts with s·Ā/π_old, one that never came with 0.

    Args:
        log_old: log π_old, shape (Q, S).
        answer: which answer each sample is, shape (Q, M).
        advantages: of the samples, shape (Q, M).

    >>> log_old = torch.tensor([[0.25, 0.75]], dtype=torch.float64).log()
    >>> print(sampled_advantages(log_old, torch.tensor([[0, 1]]), torch.tensor([[1.0, -1.0]])))  # half of the samples
    tensor([[ 2.0000, -0.6667]], dtype=torch.float64)
    """
    sums = torch.zeros_like(log_old).scatter_add(1, answer, advantages.to(log_old))
    return torch.where(sums == 0, 0.0, sums / answer.shape[1] * torch.exp(-log_old))

"""Answers of several tokens as a tree that is small enough to list: policies, and their expected gradients.

The policy is a softmax over the next token after every prefix. On the logits after a prefix s the expected gradient is
reach(s)·π(a|s)·(C(s,a) − E[C]), where C is Ω times the chance of success after a, minus β times the coefficient of the
KL term (notebook 11_sequences).
"""

from __future__ import annotations

import dataclasses
import enum
from typing import Any, Literal

import numpy as np

from grpo_dynamics.arrays import quiet, require, require_choice
from grpo_dynamics.normalization import Normalization, Whitened
from grpo_dynamics.theory.flow import DIVERGENCES, KL

Level = Literal["token", "sequence"]
Table = tuple[Any, ...]
"""One array per token; the entry at (a_1, …, a_t) belongs to the token a_t after the prefix a_1 … a_(t−1)."""


class Rule(enum.Enum):
    """What an estimator's gradient is the gradient of; the policy at rest follows from it."""

    NOTHING = "0"
    SEQUENCE = "KL(π‖π_ref) of whole answers"
    REVERSE_SEQUENCE = "KL(π_ref‖π) of whole answers"
    TOKEN = "KL(π‖π_ref) at each prefix, as if π did not decide which prefixes occur"
    REVERSE_TOKEN = "KL(π_ref‖π) at each prefix, as if π did not decide which prefixes occur"


def rule(kl: KL, level: Level) -> Rule:
    """Return what a KL term regularises with, on average and on-policy.

    Args:
        kl: "k1", "k2", "k3" in the loss; "k1_times_ratio", "k3_times_ratio" with the gradient of the importance ratio;
            "k1_in_reward" as the sum over the answer or over its rest; "exact"; "none".
        level: "token": of each token's log-ratio, summed or averaged over a fixed number of tokens;
            "sequence": of the sum of the log-ratios. Without effect for "exact", "k1" and "k1_in_reward".

    Raises:
        ValueError: for an unknown estimator or level.

    >>> print(rule("k3", "token").value)
    KL(π_ref‖π) at each prefix, as if π did not decide which prefixes occur
    """
    require_choice("kl", kl, tuple(DIVERGENCES))
    require_choice("level", level, ("token", "sequence"))
    if DIVERGENCES[kl] == "none":
        return Rule.NOTHING
    if DIVERGENCES[kl] == "forward":
        return Rule.REVERSE_TOKEN if level == "token" else Rule.REVERSE_SEQUENCE
    return Rule.TOKEN if level == "token" and kl not in ("exact", "k1_in_reward") else Rule.SEQUENCE


@dataclasses.dataclass(frozen=True, eq=False)
class TokenTree:
    """All answers of T tokens to one question, which of them are right, and how probable the reference finds them.

    Args:
        reference: probability of every answer, shape (V_1, …, V_T), not negative, of sum 1. An answer that ends early
            is one whose remaining tokens have one choice of probability 1.
        correct: whether the answer is right, same shape. Some answer of positive probability must be right, some wrong.

    Raises:
        ValueError: for probabilities that are negative or do not add up to 1, or a wrong shape.

    >>> tree = TokenTree([[0.1, 0.2], [0.3, 0.4]], [[True, False], [False, False]])
    >>> print(round(float(tree.p_ref), 6))
    0.1
    """

    reference: Any
    correct: Any

    def __post_init__(self) -> None:
        reference, correct = np.asarray(self.reference, float), np.asarray(self.correct)
        require("reference", reference, "finite and not negative", lambda x: (x >= 0) & (x < float("inf")))
        if reference.ndim == 0 or abs(float(reference.sum()) - 1) > 1e-9:
            raise ValueError(f"reference must be an array of one axis per token and of sum 1, got {self.reference!r}")
        if correct.dtype != bool or correct.shape != reference.shape:
            raise ValueError(f"correct must be true or false for each of {reference.shape}, got {self.correct!r}")
        for name, side in (("right", correct), ("wrong", ~correct)):
            if not (reference[side] > 0).any():
                raise ValueError(f"correct must leave some possible answer {name}")
        object.__setattr__(self, "reference", reference / reference.sum())
        object.__setattr__(self, "correct", correct)

    @property
    def p_ref(self) -> Any:
        """Success probability of the reference."""
        return self.reference[self.correct].sum()

    @property
    def log_reference(self) -> Table:
        """Log-probability of each token after its prefix, under the reference."""
        return conditionals(self.reference)


@quiet
def conditionals(answers: Any) -> Table:
    """Return the log-probability of each token after its prefix, from the probabilities of all answers.

    A prefix that does not occur gets equal probabilities: nothing depends on them.

    >>> print([x.round(3).tolist() for x in conditionals([[0.25, 0.25], [0.0, 0.5]])])
    [[-0.693, -0.693], [[-0.693, -0.693], [-inf, 0.0]]]
    """
    answers = np.asarray(answers, float)
    sums = [answers.sum(axis=tuple(range(t, answers.ndim))) for t in range(answers.ndim + 1)]
    pairs = zip(sums[1:], sums[:-1], strict=True)
    return tuple(
        np.where(before[..., None] > 0, np.log(x) - np.log(before[..., None]), -np.log(x.shape[-1]))
        for x, before in pairs
    )


def answers(policy: Table) -> Any:
    """Return the probability of every answer from the log-probabilities of the tokens.

    >>> print(answers(conditionals([[0.25, 0.25], [0.0, 0.5]])))
    [[0.25 0.25]
     [0.   0.5 ]]
    """
    total = policy[0]
    for level in policy[1:]:
        total = total[..., None] + level
    return np.exp(total)


@quiet
def success_gradient(tree: TokenTree, policy: Table) -> Table:
    """Return the gradient of the success probability on all logits.

    Args:
        tree: the answers.
        policy: log-probability of each token after its prefix.

    >>> tree = TokenTree([0.25, 0.75], [True, False])
    >>> print(success_gradient(tree, tree.log_reference)[0])
    [ 0.1875 -0.1875]
    """
    parts = zip(reaches(policy), policy, success_advantage(tree, policy), strict=True)
    return tuple(reach[..., None] * np.exp(level) * advantage for reach, level, advantage in parts)


@quiet
def success_advantage(tree: TokenTree, policy: Table) -> Table:
    """Return Q(s,a) − Q(s): what each token adds to the chance of success.

    >>> tree = TokenTree([0.25, 0.75], [True, False])
    >>> print(success_advantage(tree, tree.log_reference)[0])
    [ 0.75 -0.25]
    """
    chances = [np.exp(right) for right, _ in log_chances(policy, tree.correct)]
    return tuple(x - np.sum(np.exp(level) * x, -1, keepdims=True) for level, x in zip(policy, chances, strict=True))


@quiet
def kl_gradient(tree: TokenTree, policy: Table, kl: KL = "exact", level: Level = "token") -> Table:
    """Return the expected on-policy gradient of a KL term on all logits, as coded.

    Args:
        tree: the answers.
        policy: log-probability of each token after its prefix.
        kl: as in :func:`rule`.
        level: as in :func:`rule`.

    Source: derived in docs/notebooks/11_sequences.

    >>> tree = TokenTree([0.25, 0.75], [True, False])
    >>> print(kl_gradient(tree, conditionals([0.5, 0.5]), "k3")[0])
    [ 0.25 -0.25]
    """
    parts = zip(reaches(policy), policy, kl_advantage(tree, policy, kl, level), strict=True)
    return tuple(np.where(new > -np.inf, reach[..., None] * np.exp(new) * x, 0.0) for reach, new, x in parts)


@quiet
def kl_advantage(tree: TokenTree, policy: Table, kl: KL = "exact", level: Level = "token") -> Table:
    """Return the centred coefficient of each token: the gradient of the KL term over reach(s)·π(a|s).

    >>> tree = TokenTree([0.25, 0.75], [True, False])
    >>> print(kl_advantage(tree, conditionals([0.5, 0.5]), "k3")[0])
    [ 0.5 -0.5]
    """
    which, reference = rule(kl, level), tree.log_reference
    if which is Rule.NOTHING:
        return tuple(np.zeros(x.shape) for x in policy)
    if which in (Rule.REVERSE_TOKEN, Rule.REVERSE_SEQUENCE):
        both = zip(reaches(reference), reaches(policy), strict=True)
        scale = [1.0 if which is Rule.REVERSE_TOKEN else (old / new)[..., None] for old, new in both]
        return tuple(x * (1 - np.exp(old - new)) for x, new, old in zip(scale, policy, reference, strict=True))
    result: list[Any] = []
    rest: Any = np.zeros(tree.reference.shape)  # the KL of the tokens that follow
    for new, old in reversed(list(zip(policy, reference, strict=True))):
        p = np.exp(new)
        coefficient = np.where(p > 0, new - old, 0.0) + (rest if which is Rule.SEQUENCE else 0.0)
        rest = np.sum(p * coefficient, axis=-1)
        result.append(coefficient - rest[..., None])
    return tuple(result[::-1])


@quiet
def expected_gradient(
    tree: TokenTree,
    policy: Table,
    beta: float,
    normalization: Normalization | None = None,
    kl: KL = "k3",
    level: Level = "token",
) -> Table:
    """Return the direction that a small on-policy step of GRPO takes on average, on all logits.

    With a loss averaged over the T tokens it is this over T: the points of rest are the same. Here p = ½ is the one of
    k3 with Ω = 1, as ½ − ¼ = ½·½:

    >>> from grpo_dynamics import MeanOnly
    >>> tree = TokenTree([0.25, 0.75], [True, False])
    >>> print(expected_gradient(tree, conditionals([0.5, 0.5]), 1.0, MeanOnly(), "k3")[0])
    [0. 0.]
    """
    right, wrong = (np.logaddexp.reduce(x) for x in root_chances(policy, tree.correct))
    gap = float((Whitened() if normalization is None else normalization).gap(right - wrong))
    pairs = zip(success_gradient(tree, policy), kl_gradient(tree, policy, kl, level), strict=True)
    return tuple(gap * up - beta * back for up, back in pairs)


@quiet
def log_chances(policy: Table, correct: Any) -> list[tuple[Any, Any]]:
    """Return log Q(s,a) and log(1 − Q(s,a)) per token: the chance of success if the policy goes on from there.

    >>> tree = TokenTree([[0.1, 0.4], [0.5, 0.0]], [[True, False], [False, False]])
    >>> print(np.exp(log_chances(tree.log_reference, tree.correct)[0][0]).round(6))
    [0.2 0. ]
    """
    right, wrong = np.log(correct), np.log(~correct)
    result = [(right, wrong)]
    for level in policy[:0:-1]:
        right, wrong = (np.logaddexp.reduce(level + x, axis=-1) for x in (right, wrong))
        result.append((right, wrong))
    return result[::-1]


def root_chances(policy: Table, correct: Any) -> tuple[Any, Any]:
    """Return terms whose logarithmic sums over the last axis are log p and log(1 − p).

    >>> tree = TokenTree([0.25, 0.75], [True, False])
    >>> print(np.exp(root_chances(tree.log_reference, tree.correct)[0]))
    [0.25 0.  ]
    """
    right, wrong = log_chances(policy, correct)[0]
    return policy[0] + right, policy[0] + wrong


def reaches(policy: Table) -> list[Any]:
    """Return the probability of each prefix.

    >>> print(reaches(conditionals([[0.1, 0.4], [0.5, 0.0]]))[1])
    [0.5 0.5]
    """
    total: Any = np.array(0.0)
    result = [np.exp(total)]
    for level in policy[:-1]:
        total = total[..., None] + level
        result.append(np.exp(total))
    return result

"""What length and difficulty do to an answer's weight: GRPO, its token-mean form and Dr. GRPO, and whose answers grow.

A trainer sums advantage times log-probability over tokens and divides: by the tokens of the answer, by the mean number
of tokens, or by a constant. So a token of an answer o weighs A(o)/D(o), and over all of its tokens the log-probability
of o is pushed by w(o) = A(o)/D(o) as well. Dividing by |o| makes long wrong answers cheap: the length bias. Dividing A
by the standard deviation makes easy and hard questions weigh more than those between: the difficulty bias.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from grpo_dynamics.arrays import Array, as_arrays, quiet, require, require_choice
from grpo_dynamics.logodds import complement, logit, sigmoid
from grpo_dynamics.normalization import Normalization
from grpo_dynamics.simulation.gradient import expected_batch
from grpo_dynamics.simulation.losses import ascend
from grpo_dynamics.simulation.outcomes import Outcomes
from grpo_dynamics.simulation.policies import log_odds as log_odds_of
from grpo_dynamics.simulation.policies import log_sum
from grpo_dynamics.simulation.population_sums import require_whole
from grpo_dynamics.update_rule import Aggregation, Training

AGGREGATIONS = ("sequence_mean", "token_mean", "constant")


@dataclasses.dataclass(frozen=True)
class TokenWeights:
    """Weight of each token of a right and of a wrong answer: what multiplies the gradient of its log-probability."""

    right: Array
    wrong: Array


@quiet
def token_weights(
    log_odds: Array,
    length: Array,
    normalization: Normalization,
    aggregation: Aggregation,
    mean_length: Array | None = None,
    max_tokens: Array | None = None,
) -> TokenWeights:
    """Return ω⁺(p)/D and −ω⁻(p)/D: D = length for "sequence_mean", the batch's mean length, or the constant.

    Expected weights over the other samples of a group, exact for a batch of many questions; in a small batch the mean
    length of "token_mean" is itself random.

    Args:
        log_odds: of the question, any shape.
        length: tokens of the answer > 0, broadcasts with log_odds.
        normalization: how rewards become advantages.
        aggregation: "sequence_mean" (GRPO), "token_mean" (DAPO), "constant" (Dr. GRPO).
        mean_length: tokens per answer in the batch, for "token_mean".
        max_tokens: the constant divisor, for "constant".

    Raises:
        ValueError: for lengths ≤ 0, an unknown aggregation, or one without what it divides by.

    Source: [2402.03300, eq. 3], [2503.20783, Sec. 3].

    >>> import grpo_dynamics as gd
    >>> weights = token_weights(gd.logit(0.2), [100.0, 400.0], gd.Whitened(eps=0.0), "sequence_mean")
    >>> print(weights.right, weights.wrong)  # a long wrong answer is a quarter as wrong
    [0.02  0.005] [-0.005   -0.00125]
    """
    require_choice("aggregation", aggregation, AGGREGATIONS)
    divisor = {"sequence_mean": length, "token_mean": mean_length, "constant": max_tokens}[aggregation]
    if divisor is None:
        missing = "mean_length" if aggregation == "token_mean" else "max_tokens"
        raise ValueError(f'{missing} is missing: aggregation="{aggregation}" divides by it')
    for name, value in (("length", length), ("mean_length", mean_length), ("max_tokens", max_tokens)):
        if value is not None:
            require(name, value, "a finite number > 0", lambda x: (x > 0) & (x < float("inf")))
    xp, log_odds, length, divisor = as_arrays(log_odds, length, divisor)
    divisor = divisor + xp.zeros_like(log_odds) + xp.zeros_like(length)
    return TokenWeights(
        (normalization.positive(log_odds) / divisor)[()], (-1 * normalization.negative(log_odds) / divisor)[()]
    )


def difficulty_bias(log_odds: Array, normalization: Normalization) -> Array:
    """Return Ω(L)/Ω(0): how much a question weighs, against one with p = ½ and beside Dr. GRPO, where it is 1.

    All of a question's advantages are p(1−p) times Ω, so Ω is what normalising by the standard deviation adds.

    Args:
        log_odds: any shape.
        normalization: how rewards become advantages.

    Source: [2503.20783, Sec. 3].

    >>> import grpo_dynamics as gd
    >>> print(difficulty_bias(gd.logit([0.01, 0.5]), gd.Whitened(eps=0.0)).round(3))
    [5.025 1.   ]
    """
    xp, log_odds = as_arrays(log_odds)
    return normalization.gap(log_odds) / normalization.gap(xp.zeros_like(log_odds))


def by_tokens(
    aggregation: Aggregation, normalization: Normalization, learning_rate: float = 1.0, max_tokens: float | None = None
) -> Training:
    """Return the training in which nothing but advantages and lengths move the policy: no KL, natural gradient.

    The advantage stands on every token, each with a ratio of its own: the gradient of an answer is a mean over tokens.

    Args:
        aggregation: what the sum over tokens is divided by.
        normalization: how rewards become advantages.
        learning_rate: > 0.
        max_tokens: the divisor of "constant"; the longest answer if not given.

    >>> from grpo_dynamics import Whitened
    >>> by_tokens("constant", Whitened(), max_tokens=1000).ratio_level
    'token'
    """
    return Training(
        beta=0.0,
        normalization=normalization,
        update="gradient",
        learning_rate=learning_rate,
        natural=True,
        ratio_level="token",
        kl="none",
        aggregation=aggregation,
        max_tokens=max_tokens,
    )


@quiet
def growth(log_policy: Array, outcomes: Outcomes, training: Training) -> Array:
    """Return w(o) − Σ_o π(o)·w(o), the rate d log π(o)/dt of the natural gradient without a KL term.

    Between a long and a short wrong answer the rates differ by ω⁻·(1/short − 1/long) under "sequence_mean", and not at
    all under the others. Since p·ω⁺ = (1−p)·ω⁻, the mean there is Σ_o π(o)·w(o) = ω⁻·(1−p)·(E[1/|o| | right] −
    E[1/|o| | wrong]). So a long wrong answer, w = −ω⁻/|long|, even becomes more probable if
    1/|long| < (1−p)·(E[1/|o| | wrong] − E[1/|o| | right]). Under the others the mean is 0: wrong answers only fall.

    Args:
        log_policy: log-probabilities, shape (questions, answers).
        outcomes: the questions, with lengths.
        training: the normalisation and the aggregation.

    Source: derived above; the bias itself is that of [2503.20783, Sec. 3].

    >>> from grpo_dynamics import MeanOnly
    >>> questions = long_or_short(p_ref=0.1, right=200, short=50, long=800)
    >>> for aggregation in AGGREGATIONS:  # right, short wrong, long wrong; in thousandths
    ...     training = by_tokens(aggregation, MeanOnly())
    ...     print((1000 * growth(questions.log_reference, questions, training)[0]).round(2))
    [ 5.01 -1.49  0.38]
    [ 2.24 -0.25 -0.25]
    [ 1.12 -0.12 -0.12]
    """
    xp, log_policy = as_arrays(log_policy)
    policy, state = xp.exp(log_policy), log_odds_of(log_policy, outcomes.correct)
    mean = xp.sum(policy * outcomes.lengths) / outcomes.questions
    longest = xp.max(outcomes.lengths) if training.max_tokens is None else training.max_tokens
    weights = token_weights(
        state[:, None], outcomes.lengths, training.normalization, training.aggregation, mean, longest
    )
    push = xp.where(outcomes.correct, weights.right, weights.wrong)
    return push - xp.sum(policy * push, axis=-1, keepdims=True)


def long_or_short(
    p_ref: Array, right: float = 200, short: float = 50, long: float = 800, long_share: float = 0.5
) -> Outcomes:
    """Return questions with three answers: a right one, a short wrong one and a long wrong one.

    Args:
        p_ref: success probability of the reference in (0, 1), a number or shape (questions,).
        right: tokens of the right answer.
        short: tokens of one wrong answer.
        long: tokens of the other.
        long_share: share of the long one among wrong answers, in (0, 1).

    >>> np.exp(long_or_short(0.2).log_reference).round(3).tolist()
    [[0.2, 0.4, 0.4]]
    """
    require("long_share", long_share, "a share strictly between 0 and 1", lambda x: (x > 0) & (x < 1))
    require("p_ref", p_ref, "a probability strictly between 0 and 1", lambda x: (x > 0) & (x < 1))
    state = np.atleast_1d(np.asarray(logit(p_ref), dtype=float))
    wrong = complement(state)
    shares = np.stack([sigmoid(state), wrong * (1 - long_share), wrong * long_share], axis=-1)
    correct = np.broadcast_to([True, False, False], shares.shape)
    return Outcomes(np.log(shares), correct, np.array([right, short, long], dtype=float))


@dataclasses.dataclass(frozen=True, eq=False)
class LengthPath:
    """Policies step by step, and the lengths of what they say.

    Attributes:
        log_policy: log-probabilities, shape (steps+1, questions, answers).
        outcomes: the questions.
    """

    log_policy: Array
    outcomes: Outcomes

    @property
    def p(self) -> Array:
        """Success probabilities, shape (steps+1, questions)."""
        return sigmoid(log_odds_of(self.log_policy, self.outcomes.correct))

    @property
    def length(self) -> Array:
        """Mean tokens of an answer, shape (steps+1, questions)."""
        return self._mean_length(np.ones_like(self.outcomes.correct))

    @property
    def wrong_length(self) -> Array:
        """Mean tokens of a wrong answer, shape (steps+1, questions)."""
        return self._mean_length(~self.outcomes.correct)

    @quiet
    def _mean_length(self, of: Array) -> Array:
        inside = np.where(of, self.log_policy, -np.inf)
        return np.sum(np.exp(inside - log_sum(inside)[..., None]) * self.outcomes.lengths, axis=-1)


def train_lengths(outcomes: Outcomes, training: Training, steps: int) -> LengthPath:
    """Return the policies of gradient steps with exact expectations.

    Args:
        outcomes: the questions, with lengths.
        training: with update="gradient"; ratio_level="token" for the losses of real trainers, where the gradient of an
            answer is the mean over its tokens and not the sum.
        steps: number of steps ≥ 0.

    Raises:
        ValueError: for another update rule.

    >>> from grpo_dynamics import MeanOnly
    >>> questions = long_or_short(p_ref=0.1)
    >>> for aggregation in AGGREGATIONS:
    ...     training = by_tokens(aggregation, MeanOnly())
    ...     print(train_lengths(questions, training, steps=300).wrong_length[[0, -1], 0].round())
    [425. 629.]
    [425. 425.]
    [425. 425.]
    """
    require_whole("steps", steps, 0)
    if training.update != "gradient":
        raise ValueError(f"update must be 'gradient' here, got {training.update!r}")
    policy = outcomes.log_reference
    states = [policy]
    for _ in range(steps):
        old = policy
        batch = expected_batch(old, outcomes.log_reference, outcomes, training)
        for _ in range(training.inner_steps):
            policy = ascend(policy, old, outcomes.log_reference, batch, outcomes, training)
        states.append(policy)
    return LengthPath(np.stack(states), outcomes)

"""Why a trained policy is not where the theory says: approximation, optimisation and statistics, told apart.

Between the recursion and a trained policy stand four departures, each of which can be switched on by itself:

- approximation: the policy is parametric, it cannot say every distribution;
- optimisation: a step's objective is ascended by a few gradient steps, not maximised;
- finite groups: the advantages use the mean and standard deviation of G samples (in expectation over them);
- sampling: expectations are means over N groups of G samples.

Switched on one after the other their effects add up to measured − predicted, since each is a difference between
neighbours. Switched on alone, they add up to it together with what is left: the interactions.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from grpo_dynamics.finite_group import FiniteGroup
from grpo_dynamics.logodds import sigmoid
from grpo_dynamics.normalization import MeanOnly, Normalization, Whitened
from grpo_dynamics.simulation.exact import minimize
from grpo_dynamics.simulation.features import Features, Matrix
from grpo_dynamics.simulation.gradient import expected_batch
from grpo_dynamics.simulation.losses import Batch, ascend, column, gradient
from grpo_dynamics.simulation.outcomes import Outcomes
from grpo_dynamics.simulation.policies import difference, kl_divergence, log_odds, mix, normalize
from grpo_dynamics.simulation.population_sums import require_whole
from grpo_dynamics.simulation.sampled import sampled_batch
from grpo_dynamics.theory.recursion import Recursion
from grpo_dynamics.update_rule import Training

if TYPE_CHECKING:
    import polars as pl

DEPARTURES = ("approximation", "optimisation", "finite groups", "sampling")
"""In the order in which they are switched on."""


@dataclasses.dataclass(frozen=True, eq=False)
class Errors:
    """Predicted and measured success probabilities, and what lies between; all arrays (steps+1, questions).

    Attributes:
        predicted: by the recursion.
        measured: by the trained policy, its mean over the repeats.
        standard_error: of that mean.
        in_turn: departure → what it adds when switched on after those before it; their sum is measured − predicted.
        alone: departure → what it does when nothing else is switched on.
    """

    predicted: Matrix
    measured: Matrix
    standard_error: Matrix
    in_turn: dict[str, Matrix]
    alone: dict[str, Matrix]

    def table(self, step: int = -1) -> pl.DataFrame:
        """Return the means over the questions at a step: both columns add up to the last row.

        "size" is the root mean square over the questions of ``in_turn``, where errors of either sign do not cancel.
        """
        import polars as pl

        whole = self.measured - self.predicted
        interactions = whole - sum(self.alone.values())
        turns = [self.predicted, *self.in_turn.values(), np.zeros_like(whole), self.measured]
        lone = [self.predicted, *self.alone.values(), interactions, self.measured]
        return pl.DataFrame(
            {
                "what": ["predicted", *self.in_turn, "interactions", "measured"],
                "in_turn": [values[step].mean() for values in turns],
                "alone": [values[step].mean() for values in lone],
                "size": [float(np.sqrt(np.mean(values[step] ** 2))) for values in turns],
            }
        )


def separate(
    outcomes: Outcomes,
    training: Training,
    steps: int,
    features: Features | None = None,
    repeats: int = 16,
    seed: int = 0,
) -> Errors:
    """Return the errors of a trained policy against the recursion, one departure at a time.

    Args:
        outcomes: the questions.
        training: the trained policy's; update="sampled", kl="exact", without clipping, verifier noise or a renewed
            reference: what the recursion is the theory of.
        steps: number of steps ≥ 0.
        features: the parametric policy; tabular, without an approximation error, if not given.
        repeats: how often what is sampled is sampled, ≥ 2.
        seed: integer ≥ 0; repeat i has a generator of its own.

    Raises:
        ValueError: for options that mean nothing here.

    >>> questions = Outcomes.uniform([0.1, 0.4], right=2, wrong=3)
    >>> training = Training(normalization=FiniteGroup(8), update="sampled", learning_rate=0.5, inner_steps=4, groups=4)
    >>> errors = separate(questions, training, steps=10, features=Features.random(questions, rank=4, seed=0))
    >>> bool(np.allclose(sum(errors.in_turn.values()), errors.measured - errors.predicted, atol=1e-15))
    True
    """
    _require_plain(outcomes, training, steps, features, repeats, seed)
    bare = without_groups(training.normalization)
    predicted = sigmoid(Recursion(training.beta, outcomes.p_ref, bare, training.alpha).iterate(steps).log_odds)

    def mean_and_error(switched: tuple[str, ...]) -> tuple[Matrix, Matrix]:
        seeds = range(repeats) if "sampling" in switched else range(1)
        runs = np.stack(
            [
                sigmoid(log_odds(path(outcomes, training, steps, features, switched, (seed, i)), outcomes.correct))
                for i in seeds
            ]
        )
        spread = runs.std(axis=0, ddof=1) if len(runs) > 1 else np.zeros_like(runs[0])
        return runs.mean(axis=0), spread / np.sqrt(len(runs))

    stages = [predicted]
    error = np.zeros_like(predicted)
    for i in range(len(DEPARTURES)):
        mean, error = mean_and_error(DEPARTURES[: i + 1])
        stages.append(mean)
    in_turn = {name: stages[i + 1] - stages[i] for i, name in enumerate(DEPARTURES)}
    alone = {name: mean_and_error((name,))[0] - predicted for name in DEPARTURES}
    return Errors(predicted, stages[-1], error, in_turn, alone)


def path(
    outcomes: Outcomes,
    training: Training,
    steps: int,
    features: Features | None,
    switched: tuple[str, ...],
    seed: int | tuple[int, ...] = 0,
) -> Matrix:
    """Return the log-probabilities of the policy after 0, 1, …, steps steps, shape (steps+1, questions, answers).

    Args:
        outcomes: the questions.
        training: the policy's training with all departures.
        steps: number of steps ≥ 0.
        features: the parametric policy, used where "approximation" is switched on; None: tabular.
        switched: which of ``DEPARTURES`` are on.
        seed: of the samples.
    """
    on = set(switched)
    if not on <= set(DEPARTURES):
        raise ValueError(f"switched must be among {', '.join(DEPARTURES)}, got {switched!r}")
    if "finite groups" not in on:
        training = dataclasses.replace(
            training, normalization=without_groups(training.normalization), group_size=training.size
        )
    parametric = features if "approximation" in on else None
    generator = np.random.default_rng(seed)
    policy = outcomes.log_reference
    weights = np.zeros(0 if parametric is None else parametric.values.shape[2])
    states, no_critic = [policy], np.zeros(outcomes.questions)
    for _ in range(steps):
        if "sampling" in on:
            batch, _ = sampled_batch(generator, policy, outcomes.log_reference, no_critic, outcomes, training)
        else:
            exact = dataclasses.replace(training, update="gradient", group_size=None, groups=1)
            batch = expected_batch(policy, outcomes.log_reference, outcomes, exact)
        worth = _estimated_worth(policy, batch) if "sampling" in on else _expected_worth(policy, outcomes, training)
        if parametric is None and "optimisation" in on:
            policy = _few_steps(policy, batch, outcomes, training)
        elif parametric is None and "sampling" in on:
            policy = _maximum(policy, worth, outcomes, training)
        elif parametric is None:
            policy = minimize(policy, outcomes.log_reference, outcomes, training)
        else:
            if "optimisation" in on:
                weights = _few_steps_on_weights(parametric, weights, policy, batch, outcomes, training)
            else:
                weights = _maximum_on_weights(parametric, weights, policy, worth, outcomes, training)
            policy = parametric.policy(outcomes, weights)
        states.append(policy)
    return np.stack(states)


def without_groups(normalization: Normalization) -> Normalization:
    """Return the normalisation with exact statistics in the place of a group's.

    >>> without_groups(FiniteGroup(8, eps=1e-4))
    Whitened(eps=0.0001, eps_placement='std')
    """
    if isinstance(normalization, FiniteGroup):
        return Whitened(normalization.eps, normalization.eps_placement)
    return MeanOnly() if isinstance(normalization, MeanOnly) else normalization


def _anchor(log_old: Matrix, outcomes: Outcomes, training: Training) -> Matrix:
    """α·log π_ref + (1−α)·log π_old, what both KL terms together pull to."""
    alpha = np.asarray(column(training.alpha, log_old), dtype=float)
    return mix(alpha + 0.0 * log_old[:, :1], outcomes.log_reference, log_old)


def _expected_worth(log_old: Matrix, outcomes: Outcomes, training: Training) -> Matrix:
    """The advantage of each answer, so that the objective is its mean under π; also where p rounds to 0 or 1."""
    state = log_odds(log_old, outcomes.correct)[:, None]
    with np.errstate(all="ignore"):
        positive, negative = training.normalization.positive(state), training.normalization.negative(state)
    return np.where(outcomes.correct, positive, -negative)


def _estimated_worth(log_old: Matrix, batch: Batch) -> Matrix:
    """The same from samples: 0 of what never came."""
    with np.errstate(all="ignore"):
        return np.where(batch.share > 0, (batch.push + batch.pull) / np.exp(log_old), 0.0)


def _maximum(log_old: Matrix, worth: Matrix, outcomes: Outcomes, training: Training) -> Matrix:
    """The best of all policies, by the samples."""
    beta = column(training.beta, log_old)
    return normalize(_anchor(log_old, outcomes, training) + worth / beta)


def _few_steps(log_old: Matrix, batch: Batch, outcomes: Outcomes, training: Training) -> Matrix:
    policy = log_old
    for _ in range(training.inner_steps):
        policy = ascend(policy, log_old, outcomes.log_reference, batch, outcomes, training)
    return policy


def _few_steps_on_weights(
    features: Features, weights: Matrix, log_old: Matrix, batch: Batch, outcomes: Outcomes, training: Training
) -> Matrix:
    for _ in range(training.inner_steps):
        policy = features.policy(outcomes, weights)
        on_logits = gradient(policy, log_old, outcomes.log_reference, batch, outcomes, training)
        move = features.natural(policy, on_logits) if training.natural else features.pull_back(on_logits)
        weights = weights + training.learning_rate * move
    return weights


def _maximum_on_weights(
    features: Features, weights: Matrix, log_old: Matrix, worth: Matrix, outcomes: Outcomes, training: Training
) -> Matrix:
    """The best parametric policy, uphill from the old one: natural gradient, shortened until the objective rises."""
    anchor = _anchor(log_old, outcomes, training)
    beta = np.asarray(training.beta, dtype=float)

    def objective(weights: Matrix) -> float:
        policy = features.policy(outcomes, weights)
        means = np.sum(np.exp(policy) * worth, axis=1) - beta * kl_divergence(policy, normalize(anchor))
        return float(np.sum(means))

    best = objective(weights)
    for _ in range(500):
        policy = features.policy(outcomes, weights)
        slope = worth - beta.reshape(-1, 1) * difference(policy, anchor)
        p = np.exp(policy)
        on_logits = p * (slope - np.sum(p * slope, axis=1, keepdims=True))
        move = features.natural(policy, on_logits) / float(np.mean(beta))
        gain = float(features.pull_back(on_logits) @ move)
        length = 1.0
        while length > 1e-6 and objective(weights + length * move) < best + 1e-4 * length * gain:
            length /= 2
        if gain < 1e-22 or length <= 1e-6:  # at the top, to rounding
            break
        weights = weights + length * move
        best = objective(weights)
    return weights


def _require_plain(outcomes: Outcomes, training: Training, steps: int, features: Any, repeats: int, seed: int) -> None:
    require_whole("steps", steps, 0)
    require_whole("repeats", repeats, 2)
    require_whole("seed", seed, 0)
    wanted = {
        "update": "sampled",
        "kl": "exact",
        "clip_low": None,
        "clip_high": None,
        "dual_clip": None,
        "ratio_level": "sequence",
        "aggregation": "sequence_mean",
        "advantage": "group",
        "std_over": None,
        "reference_refresh": None,
        "false_positive": 0.0,
        "false_negative": 0.0,
    }
    for name, value in wanted.items():
        if getattr(training, name) != value:
            raise ValueError(f"{name} must be {value!r} where errors are told apart, got {getattr(training, name)!r}")
    if features is not None and features.values.shape[:2] != outcomes.log_reference.shape:
        shape = tuple(outcomes.log_reference.shape)
        raise ValueError(f"features must have values for the answers {shape}, got {features.values.shape[:2]}")

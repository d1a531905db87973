"""Groups of sampled answers, as counts: how often each answer came, and how often it was judged right."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np

from grpo_dynamics.arrays import Array, namespace, quiet
from grpo_dynamics.logodds import complement, sigmoid
from grpo_dynamics.simulation.outcomes import Outcomes
from grpo_dynamics.simulation.policies import log_odds, log_sum, total
from grpo_dynamics.simulation.population_sums import require_whole
from grpo_dynamics.update_rule import Training


@dataclasses.dataclass(frozen=True, eq=False)
class Groups:
    """How many of the G answers of each group are answer o and were judged right, or wrong: (questions, groups, K)."""

    right: Any
    wrong: Any

    @property
    def successes(self) -> Array:
        """Answers judged right in each group, shape (questions, groups)."""
        return total(self.right)


def generator(seed: int, like: Array) -> Any:
    """Return the random generator of the array's library, on its device.

    Raises:
        ValueError: for a seed that is no integer ≥ 0.

    >>> print(generator(0, np.zeros(1)).integers(10))
    8
    """
    require_whole("seed", seed, 0)
    if isinstance(like, np.ndarray):
        return np.random.default_rng(seed)
    import torch  # the array is torch's, so it is there

    return torch.Generator(device=like.device).manual_seed(seed)


@quiet
def judged_log_odds(state: Array, training: Training) -> Array:
    """Return the log-odds of being judged right, from those of being right."""
    false_positive, false_negative = training.false_positive, training.false_negative
    if false_positive == 0 and false_negative == 0:
        return state
    p, q = sigmoid(state), complement(state)
    xp = namespace(p)
    return xp.log(p * (1 - false_negative) + q * false_positive) - xp.log(p * false_negative + q * (1 - false_positive))


def verdicts(outcomes: Outcomes, training: Training) -> Array:
    """Return the chance that each answer is judged right."""
    xp = namespace(outcomes.log_reference)
    right, wrong = 1.0 - training.false_negative, 0.0 + training.false_positive
    return xp.where(outcomes.correct, right, wrong + 0.0 * outcomes.lengths)


@quiet
def draw(rng: Any, log_policy: Array, outcomes: Outcomes, training: Training) -> Groups:
    """Draw the groups of one step.

    First the number k of successes of each group is drawn, then which answers they are: the work does not grow with G.

    Args:
        rng: a generator as from :func:`generator`.
        log_policy: log-probabilities, shape (questions, K).
        outcomes: the questions.
        training: the sizes, the verifier's noise, and whether silent groups are drawn again.

    >>> questions = Outcomes.uniform(0.5)
    >>> groups = draw(generator(0, questions.log_reference), questions.log_reference, questions, Training(
    ...     update="sampled", learning_rate=1.0, group_size=8))
    >>> print(groups.right, groups.wrong)
    [[[5. 0.]]] [[[0. 3.]]]
    """
    xp = namespace(log_policy)
    size, shape = training.size, (outcomes.questions, training.groups)
    judged = xp.broadcast_to(judged_log_odds(log_odds(log_policy, outcomes.correct), training)[:, None], shape)
    few = sigmoid(-xp.abs(judged))  # of the rarer verdict: nothing is lost where p rounds to 1
    rare = _mixed(rng, size, few) if training.drops_silent_groups else _binomial(rng, size + 0.0 * few, few)
    successes = xp.where(judged > 0, size - rare, rare)
    if training.false_positive == 0 and training.false_negative == 0:
        right = xp.where(outcomes.correct, log_policy, -xp.inf)
        wrong = xp.where(outcomes.correct, -xp.inf, log_policy)
    else:
        chance = verdicts(outcomes, training)
        right, wrong = log_policy + xp.log(chance), log_policy + xp.log1p(-chance)
    return Groups(_distribute(rng, successes, right), _distribute(rng, size - successes, wrong))


def _distribute(rng: Any, number: Array, log_weights: Array) -> Array:
    """Multinomial counts of the answers: each a binomial share of what the answers before it left."""
    xp = namespace(number)
    weights = xp.exp(log_weights - log_sum(log_weights)[:, None])
    weights = xp.where(weights == weights, weights, 0.0)  # nothing possible: then there is nothing to distribute
    columns = [weights[:, answer] for answer in range(weights.shape[1])]
    tails = list(itertools.accumulate(reversed(columns)))[::-1]
    left, counts = number, []
    for column, tail in zip(columns[:-1], tails[:-1], strict=True):
        share = xp.where(tail > 0, column / tail, 0.0)[:, None]
        taken = _binomial(rng, left, xp.broadcast_to(share, left.shape))
        left = left - taken
        counts.append(taken)
    return xp.stack([*counts, left], axis=-1)


def _binomial(rng: Any, trials: Array, chance: Array) -> Array:
    if isinstance(rng, np.random.Generator):
        return rng.binomial(trials.astype(np.int64), chance).astype(chance.dtype)
    import torch

    return torch.binomial(trials.contiguous(), chance.contiguous(), generator=rng)


def _mixed(rng: Any, size: int, chance: Array) -> Array:
    """Successes of groups that are neither all right nor all wrong, by inversion: it also ends where p is tiny."""
    xp = namespace(chance)
    ratio = chance / (1 - chance)
    term, terms = 1.0 + 0.0 * chance, []  # of k successes over those of 1, so that nothing underflows
    for k in range(1, size):
        terms.append(term)
        term = term * ratio * ((size - k) / (k + 1))
    whole = sum(terms)
    if isinstance(rng, np.random.Generator):
        level = rng.random(chance.shape) * whole
    else:
        import torch

        level = torch.rand(chance.shape, generator=rng, dtype=chance.dtype, device=chance.device) * whole
    below, successes = 0.0 * chance, 1.0 + 0.0 * chance
    for term in terms[:-1]:
        below = below + term
        successes = successes + xp.astype(level >= below, chance.dtype)
    return successes

"""The batch of a step from sampled groups."""

from __future__ import annotations

from typing import Any

from grpo_dynamics.arrays import Array, namespace, quiet
from grpo_dynamics.finite_group import FiniteGroup
from grpo_dynamics.simulation.gradient import judged_batch
from grpo_dynamics.simulation.losses import Batch, column
from grpo_dynamics.simulation.outcomes import Outcomes
from grpo_dynamics.simulation.policies import log_odds
from grpo_dynamics.simulation.sampling import Groups, draw, judged_log_odds
from grpo_dynamics.update_rule import Training


def sampled_batch(
    rng: Any, log_policy: Array, log_reference: Array, values: Array, outcomes: Outcomes, training: Training
) -> tuple[Batch, Array]:
    """Draw the groups of one step; return what they say, and what the critic has learned from them.

    Args:
        rng: a generator as from :func:`~grpo_dynamics.simulation.sampling.generator`.
        log_policy: log-probabilities of the policy that answers, shape (questions, K).
        log_reference: those of π_ref, for k1 in the reward.
        values: of the critic, shape (questions,).
        outcomes: the questions.
        training: groups, their normalisation, and the verifier's noise.
    """
    groups = draw(rng, log_policy, outcomes, training)
    state = log_odds(log_policy, outcomes.correct) if training.has_exact_statistics else None
    positive, negative = advantages(groups, state, values, training)
    if training.critic_rate is not None:
        values = values + training.critic_rate * (
            namespace(values).mean(groups.successes, axis=1) / training.size - values
        )
    return batch_of(groups, positive, negative, log_policy, log_reference, training), values


@quiet
def advantages(groups: Groups, state: Array | None, values: Array, training: Training) -> tuple[Array, Array]:
    """Return the advantage of an answer judged right, and of one judged wrong, each of shape (questions, groups).

    Args:
        groups: the counts.
        state: log-odds of the policy that answered, shape (questions,); only normalisations with exact statistics ask.
        values: of the critic, shape (questions,), if there is one.
        training: the normalisation or other kind of advantage.
    """
    successes, size = groups.successes, training.size
    if training.advantage == "rloo":
        return (size - successes) / (size - 1), -successes / (size - 1)
    if training.advantage in ("reinforce", "critic"):
        baseline = 0.0 * successes + (values[:, None] if training.advantage == "critic" else 0.0)
        return 1 - baseline, -baseline
    mean, normalization = successes / size, training.normalization
    if training.has_exact_statistics:  # the same in every group
        judged = judged_log_odds(state, training)
        right, wrong = normalization.positive(judged)[:, None], -normalization.negative(judged)[:, None]
        return right + 0.0 * mean, wrong + 0.0 * mean
    if not isinstance(normalization, FiniteGroup):
        return 1 - mean, -mean
    xp = namespace(mean)
    eps = column(normalization.eps, mean)
    variance = mean * (1 - mean) * (size / (size - normalization.ddof))
    std = xp.sqrt(variance + eps) if normalization.eps_placement == "variance" else xp.sqrt(variance) + eps
    silent = variance == 0
    std = xp.where(silent, 1.0, std)
    return xp.where(silent, 0.0, (1 - mean) / std), xp.where(silent, 0.0, -mean / std)


@quiet
def batch_of(
    groups: Groups, positive: Array, negative: Array, log_policy: Array, log_reference: Array, training: Training
) -> Batch:
    """Return the batch of groups whose advantages are known.

    Args:
        groups: the counts.
        positive: advantage of an answer judged right, shape (questions, groups).
        negative: of one judged wrong.
        log_policy: log-probabilities of the policy that answered.
        log_reference: those of π_ref, for k1 in the reward.
        training: for k1 in the reward.
    """
    drawn = training.size * training.groups
    parts = [
        (counts / drawn, advantage[:, :, None])
        for counts, advantage in ((groups.right, positive), (groups.wrong, negative))
    ]
    return judged_batch(parts, log_policy, log_reference, training)

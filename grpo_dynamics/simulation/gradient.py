"""The batch of a step with exact expectations: what infinitely many groups would say."""

from __future__ import annotations

from grpo_dynamics.arrays import Array, as_arrays, namespace, quiet
from grpo_dynamics.logodds import complement, sigmoid
from grpo_dynamics.simulation.losses import Batch, column
from grpo_dynamics.simulation.outcomes import Outcomes
from grpo_dynamics.simulation.policies import difference, log_odds
from grpo_dynamics.simulation.sampling import judged_log_odds, verdicts
from grpo_dynamics.update_rule import Training


@quiet
def expected_batch(log_policy: Array, log_reference: Array, outcomes: Outcomes, training: Training) -> Batch:
    """Return the expected batch of the policy.

    Args:
        log_policy: log-probabilities of the policy that answers, shape (questions, K).
        log_reference: those of π_ref, for k1 in the reward.
        outcomes: the questions.
        training: the normalisation, the verifier's noise, and k1 in the reward.

    >>> questions = Outcomes.uniform(0.2)
    >>> batch = expected_batch(questions.log_reference, questions.log_reference, questions, Training(
    ...     update="gradient", learning_rate=1.0))
    >>> print(batch.push.round(4), batch.pull.round(4))  # both sides of an advantage that is 0 on average
    [[0.4 0. ]] [[ 0.  -0.4]]
    """
    xp = namespace(log_policy)
    judged = judged_log_odds(log_odds(log_policy, outcomes.correct), training)
    policy, chance = xp.exp(log_policy), verdicts(outcomes, training)
    more_right, more_wrong = _weights_of_verdicts(judged, training)
    right, wrong = policy * chance * more_right, policy * (1 - chance) * more_wrong
    positive = training.normalization.positive(judged)[:, None] / more_right
    negative = -training.normalization.negative(judged)[:, None] / more_wrong
    parts = [(part[:, None, :], advantage[:, None, :]) for part, advantage in ((right, positive), (wrong, negative))]
    return judged_batch(parts, log_policy, log_reference, training)


def judged_batch(
    parts: list[tuple[Array, Array]], log_policy: Array, log_reference: Array, training: Training
) -> Batch:
    """Return the batch of samples that are given by verdict, as their share of all samples and their advantage.

    A KL term in the reward changes each answer's advantage, and perhaps its sign.

    Args:
        parts: pairs of a share, shape (questions, groups, K), and an advantage, shape (questions, groups, 1).
        log_policy: log-probabilities of the policy that answered.
        log_reference: those of π_ref.
        training: β, α, and whether k1 is in the reward.
    """
    xp = namespace(log_policy)
    penalty: Array = 0.0
    if training.kl == "k1_in_reward":  # of the policy that answers, whose log-ratio to itself is 0
        beta, alpha = column(training.beta, log_policy), column(training.alpha, log_policy)
        penalty = (beta * alpha * difference(log_policy, log_reference))[:, None, :]
    share, push, pull, zero = 0.0, 0.0, 0.0, xp.zeros((), dtype=log_policy.dtype, device=log_policy.device)
    for part, advantage in parts:
        worth = xp.where(part > 0, part * (advantage - penalty), 0.0)
        share = share + _over_groups(part)
        push = push + _over_groups(xp.maximum(worth, zero))
        pull = pull + _over_groups(xp.minimum(worth, zero))
    return Batch(share, push, pull)


def _over_groups(values: Array) -> Array:
    return values[:, 0, :] if values.shape[1] == 1 else namespace(values).sum(values, axis=1)


def _weights_of_verdicts(judged: Array, training: Training) -> tuple[Array, Array]:
    """How much more often a right, and a wrong verdict is seen in the groups that are kept: columns.

    Of G answers, one of which was judged right, the group is mixed with chance 1 − p^(G−1), any group with chance
    1 − p^G − (1−p)^G.
    """
    xp = namespace(judged)
    if not training.drops_silent_groups:
        return (1.0 + 0.0 * judged)[:, None], (1.0 + 0.0 * judged)[:, None]
    _, size, _ = as_arrays(training.size, judged)
    log_p, log_q = xp.log(sigmoid(judged)), xp.log(complement(judged))
    log_p = xp.where(judged > 0, xp.log1p(-complement(judged)), log_p)
    log_q = xp.where(judged < 0, xp.log1p(-sigmoid(judged)), log_q)
    mixed = -xp.expm1(size * log_p) - xp.exp(size * log_q)
    mixed = xp.where(judged > 0, mixed, -xp.expm1(size * log_q) - xp.exp(size * log_p))
    right, wrong = -xp.expm1((size - 1) * log_p), -xp.expm1((size - 1) * log_q)
    return (right / mixed)[:, None], (wrong / mixed)[:, None]

"""Exact minimisation of a step's objective over all policies of a table."""

from __future__ import annotations

from grpo_dynamics.arrays import Array, namespace, quiet
from grpo_dynamics.simulation.losses import column
from grpo_dynamics.simulation.outcomes import Outcomes
from grpo_dynamics.simulation.policies import log_odds, mix, normalize
from grpo_dynamics.simulation.sampling import judged_log_odds
from grpo_dynamics.update_rule import Training


@quiet
def minimize(log_policy: Array, log_reference: Array, outcomes: Outcomes, training: Training) -> Array:
    """Return π_n ∝ π_ref^α · π_{n−1}^(1−α) · exp(A_{n−1}/β), as log-probabilities of shape (questions, K).

    Args:
        log_policy: log-probabilities of π_{n−1}.
        log_reference: those of π_ref.
        outcomes: the questions.
        training: β, α, the normalisation, and the verifier's noise, which shrinks the mean advantage of right over
            wrong answers by 1 − false positives − false negatives.

    Source: [2503.06639v4, Thm 9]; the policy itself is the Gibbs distribution of its proof.

    >>> questions = Outcomes.uniform(0.2)
    >>> start = questions.log_reference
    >>> step = minimize(start, start, questions, Training(beta=1.0))
    >>> print(log_odds(step, questions.correct) - questions.log_odds_ref)  # Ω/β = 1/√(p(1−p) + ε) = 2.5
    [2.49992188]
    """
    xp = namespace(log_policy)
    state = judged_log_odds(log_odds(log_policy, outcomes.correct), training)
    gap, informed = training.normalization.gap(state), 1 - training.false_positive - training.false_negative
    ahead = gap * informed if informed else xp.zeros_like(gap)  # a verifier that says nothing, even where Ω is infinite
    # only differences of A count; taken from the wrong answers, an infinite one leaves the right ones finite
    behind = xp.where(outcomes.correct, 0.0, (ahead / training.beta)[:, None])
    anchored = mix(column(training.alpha, log_policy), log_reference, log_policy)
    return normalize(anchored - behind)

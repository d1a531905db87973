"""Where the questions of a population go in the end: to rest, into cycles, or nowhere regular."""

from __future__ import annotations

import dataclasses

import numpy as np

from grpo_dynamics.simulation.population_sums import Thresholds, require_whole
from grpo_dynamics.simulation.question_sources import QuestionSource, TableQuestions
from grpo_dynamics.theory.flow import Flow
from grpo_dynamics.theory.orbits.limit import LimitKind, limit
from grpo_dynamics.theory.recursion import Recursion


def long_run(
    dynamics: Recursion | Flow, questions: QuestionSource, count: int = 4096, thresholds: Thresholds | None = None
) -> dict[str, float]:
    """Return the shares of questions by where their orbits go in the end, from p_0 = p_ref.

    "solved" and "stuck": come to rest with p above, below the thresholds; "between": come to rest elsewhere;
    "oscillating": a cycle; "irregular": neither; "undecided": still moving after all steps of
    :func:`~grpo_dynamics.limit`.

    Args:
        dynamics: its own p_ref does not enter.
        questions: where p_ref comes from; every row of a table is taken, with its weight.
        count: number of quantiles taken of another source.
        thresholds: what counts as solved and stuck; ``Thresholds()`` if not given.

    >>> import grpo_dynamics as gd
    >>> from grpo_dynamics.simulation.question_sources import BetaQuestions
    >>> shares = long_run(gd.grpo(beta=5.0, p_ref=0.5), BetaQuestions(0.1, 2.0), count=500)
    >>> {name: round(share, 3) for name, share in shares.items() if share > 0}
    {'solved': 0.432, 'stuck': 0.004, 'between': 0.432, 'oscillating': 0.118, 'irregular': 0.014}
    """
    thresholds = thresholds or Thresholds()
    require_whole("count", count, 1)
    if not isinstance(dynamics, Recursion | Flow):
        raise ValueError(f"dynamics must be a Recursion or a Flow, got {dynamics!r}")
    if isinstance(questions, TableQuestions):
        p_ref, weights = questions.nodes()
    else:
        p_ref, weights = questions.quantiles(0, count, count), np.full(count, 1 / count)
    inside = (p_ref > 0) & (p_ref < 1)
    where = limit(dataclasses.replace(dynamics, p_ref=np.where(inside, p_ref, 0.5)))
    rest = np.isin(where.kind, (LimitKind.FIXED_POINT, LimitKind.ONE)) | ~inside
    p = np.where(inside, where.p, p_ref)
    solved, stuck = rest & (p > thresholds.solved), rest & (p < thresholds.stuck)
    kinds = {"oscillating": LimitKind.CYCLE, "irregular": LimitKind.IRREGULAR, "undecided": LimitKind.UNDECIDED}
    masks = {
        "solved": solved,
        "stuck": stuck,
        "between": rest & ~solved & ~stuck,
        **{name: ~rest & (where.kind == kind) for name, kind in kinds.items()},
    }
    return {name: float(weights[mask].sum()) for name, mask in masks.items()}

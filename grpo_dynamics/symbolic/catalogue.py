"""Every theorem by its id, the paper's first, then ours."""

from __future__ import annotations

from grpo_dynamics.symbolic import (
    amplification_v1,
    approximate,
    attractors,
    bifurcation,
    contrastive,
    finite_groups,
    fixed_points,
    geometric_mean,
    global_dynamics,
    group_averages,
    group_gap_shape,
    kl_estimators,
    kl_flows,
    mirror,
    policies,
    table1,
    two_kl,
)
from grpo_dynamics.symbolic.proof import Theorem

PAPER = (contrastive, policies, geometric_mean, fixed_points, mirror, table1, approximate, amplification_v1)
OURS = (
    global_dynamics,
    two_kl,
    bifurcation,
    attractors,
    finite_groups,
    group_averages,
    group_gap_shape,
    kl_estimators,
    kl_flows,
)

THEOREMS: dict[str, Theorem] = {theorem.id: theorem for module in (*PAPER, *OURS) for theorem in module.THEOREMS}

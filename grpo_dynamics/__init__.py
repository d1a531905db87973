"""Where GRPO with verifiable rewards takes the success probability of each question.

A variant of GRPO is a reward normalisation, a KL anchor and a KL estimator; its dynamics live in log-odds.
"""

from typing import Any

from grpo_dynamics.finite_group import FiniteGroup
from grpo_dynamics.logodds import logit, sigmoid
from grpo_dynamics.normalization import MeanOnly, Normalization, Whitened
from grpo_dynamics.theory.amplification import (
    Design,
    DesignStatus,
    amplifies_v1,
    contraction_bound,
    design,
    rising_bound,
    stability_bound,
    stable_betas,
)
from grpo_dynamics.theory.fixed_points import FixedPoints, Status, fixed_points
from grpo_dynamics.theory.orbits import Limit, LimitKind, limit
from grpo_dynamics.theory.recursion import (
    Recursion,
    Trajectory,
    dr_grpo,
    grpo,
    mirror_dr_grpo,
    mirror_grpo,
    two_kl,
    two_kl_dr_grpo,
)

__version__ = "0.1.0"

__all__ = [
    "Design",
    "DesignStatus",
    "FiniteGroup",
    "FixedPoints",
    "Limit",
    "LimitKind",
    "MeanOnly",
    "Normalization",
    "Recursion",
    "Status",
    "Trajectory",
    "Whitened",
    "amplifies_v1",
    "contraction_bound",
    "design",
    "dr_grpo",
    "fixed_points",
    "grpo",
    "limit",
    "logit",
    "mirror_dr_grpo",
    "mirror_grpo",
    "rising_bound",
    "sigmoid",
    "stability_bound",
    "stable_betas",
    "two_kl",
    "two_kl_dr_grpo",
]


def __getattr__(name: str) -> Any:
    if name == "symbolic":  # brings sympy: only when it is asked for
        import importlib

        return importlib.import_module("grpo_dynamics.symbolic")
    raise AttributeError(f"module 'grpo_dynamics' has no attribute {name!r}")

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
from grpo_dynamics.theory.batch import BatchRecursion, BatchStd
from grpo_dynamics.theory.batch_fixed_points import BatchFixedPoints, batch_fixed_points, batch_folds
from grpo_dynamics.theory.bifurcation import Bifurcations, cusp, flip_curve, flip_points, fold_curve, fold_points
from grpo_dynamics.theory.certificates.certainty import Certainty, Grounds
from grpo_dynamics.theory.certificates.certify import Certificates, certify
from grpo_dynamics.theory.certificates.certify_cycle import CycleCertificates, certify_cycle
from grpo_dynamics.theory.fixed_points import FixedPoints, Status, fixed_points
from grpo_dynamics.theory.flow import Flow
from grpo_dynamics.theory.orbits.attractors import Attractors, attractors
from grpo_dynamics.theory.orbits.basins import Basins, BasinsStatus, Border, basins
from grpo_dynamics.theory.orbits.cycles import Cycles, CyclesStatus, cycles
from grpo_dynamics.theory.orbits.limit import Limit, LimitKind, limit
from grpo_dynamics.theory.orbits.lyapunov import Lyapunov, lyapunov
from grpo_dynamics.theory.orbits.orbit_diagram import OrbitDiagram, orbit_diagram
from grpo_dynamics.theory.orbits.period_doubling import CascadeStatus, PeriodDoublings, period_doublings
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
from grpo_dynamics.theory.regimes import Regime, Regimes, regime
from grpo_dynamics.theory.sequence import SequenceStatus, Stationary, stationary
from grpo_dynamics.theory.smallest_group import SmallestGroup, smallest_group
from grpo_dynamics.theory.token_tree import TokenTree
from grpo_dynamics.theory.trainers import Trainer, trainer

__version__ = "0.1.0"

__all__ = [
    "Attractors",
    "Basins",
    "BasinsStatus",
    "BatchFixedPoints",
    "BatchRecursion",
    "BatchStd",
    "Bifurcations",
    "Border",
    "CascadeStatus",
    "Certainty",
    "Certificates",
    "CycleCertificates",
    "Cycles",
    "CyclesStatus",
    "Design",
    "DesignStatus",
    "FiniteGroup",
    "FixedPoints",
    "Flow",
    "Grounds",
    "Limit",
    "LimitKind",
    "Lyapunov",
    "MeanOnly",
    "Normalization",
    "OrbitDiagram",
    "PeriodDoublings",
    "Recursion",
    "Regime",
    "Regimes",
    "SequenceStatus",
    "SmallestGroup",
    "Stationary",
    "Status",
    "TokenTree",
    "Trainer",
    "Trajectory",
    "Whitened",
    "amplifies_v1",
    "attractors",
    "basins",
    "batch_fixed_points",
    "batch_folds",
    "certify",
    "certify_cycle",
    "contraction_bound",
    "cusp",
    "cycles",
    "design",
    "dr_grpo",
    "fixed_points",
    "flip_curve",
    "flip_points",
    "fold_curve",
    "fold_points",
    "grpo",
    "limit",
    "logit",
    "lyapunov",
    "mirror_dr_grpo",
    "mirror_grpo",
    "orbit_diagram",
    "period_doublings",
    "regime",
    "rising_bound",
    "sigmoid",
    "smallest_group",
    "stability_bound",
    "stable_betas",
    "stationary",
    "trainer",
    "two_kl",
    "two_kl_dr_grpo",
]


def __getattr__(name: str) -> Any:
    if name == "symbolic":  # brings sympy: only when it is asked for
        import importlib

        return importlib.import_module("grpo_dynamics.symbolic")
    raise AttributeError(f"module 'grpo_dynamics' has no attribute {name!r}")

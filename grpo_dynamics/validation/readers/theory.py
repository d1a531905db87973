"""The theory of a run that another trainer made: the flow of its own settings."""

from __future__ import annotations

from typing import Any

from grpo_dynamics.config import as_table
from grpo_dynamics.finite_group import FiniteGroup
from grpo_dynamics.normalization import MeanOnly, Whitened
from grpo_dynamics.theory.trainers import MixedGroups, Trainer
from grpo_dynamics.validation.readers.settings import Settings
from grpo_dynamics.validation.theory_of_run import Theory

HELD = {"reverse": "KL(π‖π_ref)", "forward": "KL(π_ref‖π)", "none": "no pull to the reference"}

MOVES_REFERENCE = ("ref_policy_update_freq", "sync_ref_model")
"""Options that renew the reference while it trains."""


def theory_of_trainer(found: Trainer, settings: Settings, notes_of_samples: tuple[str, ...] = ()) -> Theory:
    """Return where the flow of a trainer's settings leads.

    Args:
        found: the trainer.
        settings: all of its settings, of which some are not modelled.
        notes_of_samples: more that is not modelled.
    """
    flow = found.at(0.5)
    size = getattr(found.normalization, "group_size", None)
    gap = "Ω of centred rewards" if isinstance(found.normalization, MeanOnly) else "Ω"
    groups = "" if size is None else f" of groups of {size}" if gap == "Ω" else f" in groups of {size}"
    moving = tuple(
        f"{name} = {settings.others[name]}: the reference moves, and with it p_ref."
        for name in MOVES_REFERENCE
        if settings.others.get(name)
    )
    return Theory(
        kind="flow",
        name=f"flow with {gap}{groups} and {HELD[flow.divergence]}",
        beta=float(found.beta),
        normalization=found.normalization,
        kl=found.kl,
        why=f"{found.title} {found.version} with β = {float(found.beta):g}: {found.advantage}; {found.pull}. Its small "
        "steps rest where p(1−p)·Ω = β·R; how fast they get there is not predicted",
        not_modelled=(
            "One network answers all questions: what it learns on one moves the others.",
            "The optimiser sets the speed, for each question another: only where the flow ends is compared.",
            *found.not_modelled,
            *moving,
            *notes_of_samples,
        ),
    )


def config_of_trainer(found: Trainer, settings: Settings, group_size: int | None) -> dict[str, Any]:
    """Return the settings as an arm has them: what of them has a name here, and all of them under their own."""
    normalization = found.normalization.kept if isinstance(found.normalization, MixedGroups) else found.normalization
    size = getattr(normalization, "group_size", None) or group_size or 2
    if not isinstance(normalization, FiniteGroup | MeanOnly | Whitened):
        normalization = FiniteGroup(size)
    training: dict[str, Any] = {
        "update": "sampled",
        "beta": float(found.beta),
        "kl": found.kl,
        "normalization": as_table(normalization),
    }
    if getattr(normalization, "group_size", None) is None:
        training["group_size"] = int(size)
    whole = {**settings.others, **found.options}
    return {
        "trainer": {"name": found.name, "version": found.version, "settings": settings.where},
        "training": training,
        "options": {name: value for name, value in whole.items() if value is not None},
    }

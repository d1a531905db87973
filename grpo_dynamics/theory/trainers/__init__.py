"""Presets of trainers: the options of a run, by the trainer's own names, become the flow that it follows on average."""

from __future__ import annotations

from typing import Any

from grpo_dynamics.arrays import option, require
from grpo_dynamics.theory.trainers import openrlhf, research_code, trl, verl, without_reference
from grpo_dynamics.theory.trainers.mixed_groups import MixedGroups
from grpo_dynamics.theory.trainers.preset import Preset, Trainer, nearest, numbers

__all__ = ["PRESETS", "MixedGroups", "Preset", "Trainer", "preset", "trainer"]

PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        trl.PRESET,
        verl.PRESET,
        openrlhf.PRESET,
        research_code.OAT,
        research_code.OPEN_INSTRUCT,
        research_code.NANO_AHA_MOMENT,
        research_code.SIMPLE_GRPO,
        without_reference.OPEN_REASONER_ZERO,
        without_reference.PRIME_RL,
    )
}
"""Every preset by its name."""


def preset(name: str) -> Preset:
    """Return the preset of a trainer; case, and "_" for "-", do not matter.

    Raises:
        ValueError: for an unknown trainer, with the list and the nearest.
    """
    plain = {known.lower().replace("_", "-"): found for known, found in PRESETS.items()}
    wanted = str(name).lower().replace("_", "-")
    if wanted not in plain:
        raise ValueError(f"trainer must be one of {', '.join(PRESETS)}, got {name!r}{nearest(wanted, plain)}")
    return plain[wanted]


def trainer(name: str, version: str | None = None, reward_scale: Any = 1.0, **options: Any) -> Trainer:
    """Return what a trainer's own options come to: ``trainer(...).at(p_ref)`` is a :class:`~grpo_dynamics.Flow`.

    Args:
        name: "trl", "verl", "openrlhf", "oat", "open-instruct", "nano-aha-moment", "simple_GRPO",
            "open-reasoner-zero" or "prime-rl".
        version: such as "1.16"; the newest that was read if left out.
        reward_scale: what a right answer earns more than a wrong one. Where advantages are not divided by a standard
            deviation, β acts as β/reward_scale.
        options: the trainer's options, by its own names. Those with dots go through a dictionary,
            ``**{"algorithm.adv_estimator": "grpo"}``, or by their last part, ``adv_estimator="grpo"``.

    Raises:
        ValueError: for an unknown trainer, version or option, with the nearest; a value out of range; options whose
            answer has no closed form, with what to use instead.

    Source: read in the trainers' source, docs/trainers.

    >>> import grpo_dynamics as gd
    >>> old, new = (trainer("trl", version, beta=0.4) for version in ("1.9.2", "1.16"))
    >>> print(old.kl, gd.fixed_points(old.at(0.2)).p[0].round(4))
    k3 0.8519
    >>> print(new.kl, gd.fixed_points(new.at(0.2)).p[0].round(4))
    k3_times_ratio 0.9912
    """
    found = preset(name)
    known = found.version(version)
    reward_scale = option(reward_scale)
    require("reward_scale", reward_scale, "a finite number > 0", lambda x: (x > 0) & (x < float("inf")))
    in_force = found.options(known, options)
    given = frozenset(found.full_name(known, name_given) for name_given in options)
    reading = found.read({**in_force, "reward_scale": reward_scale}, numbers(known), given)
    return Trainer(
        name=found.name,
        title=found.title,
        version=known,
        options=in_force,
        normalization=reading.normalization,
        kl=reading.kl,
        beta=0.0 if reading.kl == "none" else reading.beta,
        advantage=reading.advantage,
        pull=reading.pull,
        not_modelled=reading.not_modelled,
        sources=found.sources,
    )

"""What the trainers' presets come to, as settings of the explorer: read off :mod:`grpo_dynamics.theory.trainers`."""

from __future__ import annotations

from typing import Any

from grpo_dynamics.explorer.state import settings_of
from grpo_dynamics.theory.trainers import PRESETS, trainer
from grpo_dynamics.theory.trainers.preset import Preset, Trainer

GROUP_SIZE = 8
"""The group size of a preset whose trainer has none by default that forms a group."""


def presets() -> list[dict[str, Any]]:
    """Return every trainer, once for each span of versions that read alike: id, title, settings, and the reading."""
    found: list[dict[str, Any]] = []
    for preset in PRESETS.values():
        spans: list[tuple[str, dict[str, Any]]] = []
        for version in preset.versions:
            entry = _entry(preset, version)
            if spans and spans[-1][1]["settings"] == entry["settings"]:
                spans[-1] = (spans[-1][0], entry)
            else:
                spans.append((version, entry))
        for first, entry in spans:
            last = entry.pop("version")
            span = f"{first} to {last}" if first != last else last
            found.append({"id": f"{preset.name}-{last}", "title": f"{preset.title}, {span}", **entry})
    return found


def with_kl(preset: Preset, version: str, beta: float, group_size: int) -> Trainer:
    """Return the trainer with a KL term of this strength, or without one where it cannot have any."""
    try:
        return trainer(preset.name, version, **preset.shorthand(beta, group_size))
    except ValueError:
        return trainer(preset.name, version, **preset.shorthand(None, group_size))


def _entry(preset: Preset, version: str) -> dict[str, Any]:
    default = _default(preset, version)
    size = GROUP_SIZE if default is None else _group_size(default)
    found = with_kl(preset, version, 1.0, size)
    return {
        "version": version,
        "settings": settings_of(found.at(0.5)),
        "default_beta": 0.0 if default is None or found.kl == "none" else float(default.beta),
        "beta_factor": 1.0 if found.kl == "none" else float(found.beta),
        "advantage": f"{found.advantage}.".replace(f"group of {size}", "group of {G}"),
        "pull": f"{found.pull}.",
        "not_modelled": list(found.not_modelled),
    }


def _default(preset: Preset, version: str) -> Trainer | None:
    """The trainer as it is without a single option, or with groups where its default forms none."""
    for size in (None, GROUP_SIZE):
        try:
            found = trainer(preset.name, version, **preset.shorthand(None, size))
        except ValueError:  # its defaults have no closed form
            continue
        if size is not None or _group_size(found) > 1:
            return found
    return None


def _group_size(found: Trainer) -> int:
    """The group size that is in force, by the one option of that meaning."""
    (name,) = (name for name, value in PRESETS[found.name].shorthand(None, 7).items() if value == 7)
    return int(found.options[name])

"""Runs of other trainers: what they dumped, and what they were set to, as a run that can be compared with theory."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from grpo_dynamics.arrays import require_choice
from grpo_dynamics.theory.trainers import preset
from grpo_dynamics.validation.measured import Arm, Measured
from grpo_dynamics.validation.readers import generic, nano_aha, open_instruct, trl, verl
from grpo_dynamics.validation.readers.counting import success_table
from grpo_dynamics.validation.readers.reward_scale import with_reward_scale
from grpo_dynamics.validation.readers.samples import Choices, Dump, Notes
from grpo_dynamics.validation.readers.settings import (
    Settings,
    find_settings,
    read_settings,
    require_numbers,
    trainer_of,
)
from grpo_dynamics.validation.readers.theory import config_of_trainer, theory_of_trainer

__all__ = ["READERS", "Choices", "Converted", "read_dump"]

READERS: dict[str, Callable[[Path, Choices, Mapping[str, Any], Notes], Dump]] = {
    "trl": trl.read,
    "verl": verl.read,
    "open-instruct": open_instruct.read,
    "nano-aha": nano_aha.read,
    "generic": generic.read,
}
"""Every format by its name."""

PRESET = {"trl": "trl", "verl": "verl", "open-instruct": "open-instruct", "nano-aha": "nano-aha-moment"}
"""The trainer that writes a format; of a generic table the user names it."""


@dataclasses.dataclass(frozen=True, eq=False)
class Converted:
    """What was made of a dump.

    Attributes:
        measured: its success probabilities, with the theory of its settings.
        completions: a row for each completion in the canonical columns: iteration, step, question_id, sample_index,
            success, reward, completion_length, finish_reason.
    """

    measured: Measured
    completions: pl.DataFrame


def read_dump(
    kind: str,
    path: str | os.PathLike[str],
    choices: Choices | None = None,
    *,
    config: str | os.PathLike[str] | None = None,
    trainer: str | None = None,
    version: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Converted:
    """Return what another trainer's dump of completions measured, with the theory of that trainer's settings.

    Lines and files that are cut, rows without a step, question or reward, and files of other columns are left out and
    named in the notes of the arm; the rest is read.

    Args:
        kind: "trl", "verl", "open-instruct", "nano-aha" or "generic".
        path: what the trainer wrote, a folder; or for "generic" a file.
        choices: what the dump does not say itself.
        config: the trainer's settings; looked for beside the dump if not given.
        trainer: which one wrote a generic table, as :func:`~grpo_dynamics.trainer` knows it.
        version: of the trainer.
        options: its options, over those of the config.

    Raises:
        ValueError: for a path without a dump of this kind, dumps of several runs, columns or rewards that leave a
            choice, settings that are missing or not known.
    """
    require_choice("from", kind, tuple(READERS))
    path, choices, notes = Path(path), choices or Choices(), Notes()
    if not path.exists():
        raise ValueError(f"path must be one that exists, got {str(path)!r}")
    if kind != "generic" and not path.is_dir():
        raise ValueError(f"path must be a folder, got the file {str(path)!r}")
    if kind == "generic" and trainer is None:
        raise ValueError("trainer must be the one that wrote the table, got nothing: add --trainer")
    name = preset(PRESET.get(kind, trainer or "")).name
    if trainer is not None and preset(trainer).name != name:
        raise ValueError(f"trainer must be {name} or left out with --from {kind}, got {trainer!r}")
    options = dict(options or {})
    settings = _settings(name, config, _beside(kind, path), version)
    known = {**settings.others, **settings.options, **options}
    require_numbers(name, known, options, settings.where)
    dump = READERS[kind](path, choices, known, notes)
    if not dump.samples.height:
        raise ValueError(f"path must have a dump that can be read, got {' '.join(notes.lines()) or 'empty files'}")
    settings = dataclasses.replace(
        settings,
        options={**{key: value for key, value in dump.found.items() if key != "version"}, **settings.options},
        version=dump.found.get("version"),
        where=settings.where or (f"the name of {dump.beside[0]}" if set(dump.found) - {"version"} else None),
    )
    success, samples, size = success_table(dump, choices, notes)
    groups = _with_group_size(name, settings, options, size, version, notes)
    found = trainer_of(name, groups, options, version, notes)
    scaled = with_reward_scale(found, known, options, samples, notes)
    if scaled is not options:
        found = trainer_of(name, groups, scaled, version, Notes())
    if settings.where:
        notes.add("settings", f"Settings of {found.title} {found.version}: {settings.where}")
    arm = Arm(
        name=path.resolve().name if path.is_dir() else path.stem,
        config=config_of_trainer(found, groups, size),
        success=success,
        questions=dump.questions.table(),
        manifest={
            "task": f"{len(dump.questions.ids):,} questions, {samples.height:,} completions of {found.title}",
            "measurement": f"k of n sampled completions ({kind}), Wilson's interval of 95 %",
        },
        notes=notes.lines(),
        theory=theory_of_trainer(found, groups),
    )
    return Converted(Measured(arm.name, (arm,)), _completions(samples, dump))


def _beside(kind: str, path: Path) -> tuple[Path, ...]:
    """Where settings may lie: in the folder that was named, and in that above it, which is the run's."""
    folder = path if path.is_dir() else path.parent
    return (folder, folder.resolve().parent)


def _settings(name: str, config: Any, folders: tuple[Path, ...], version: str | None) -> Settings:
    file = find_settings(folders) if config is None else Path(config)
    return Settings({}) if file is None else read_settings(name, file, version)


def _with_group_size(
    name: str, settings: Settings, given: Mapping[str, Any], size: int | None, version: str | None, notes: Notes
) -> Settings:
    """The settings with G from the dump, where they do not say it."""
    found = preset(name)
    known = found.version(version or settings.version)
    key = next((key for key, value in found.shorthand(None, 2).items() if value == 2), None)
    if key is None or size is None or size < 2:
        return settings
    named = {found.full_name(known, own): value for own, value in given.items() if own != "reward_scale"}
    options = {**settings.options, **named}
    if key not in options:
        text = f"{key} is not in the settings: most questions have {size} completions at a step, so it is taken for"
        notes.add("group", f"{text} {size}")
        return dataclasses.replace(settings, options={**settings.options, key: size})
    if size % int(options[key]):
        text = f"{key} is {options[key]} in the settings, but most questions have {size} completions at a step"
        notes.add("group", f"{text}: are these the settings of this run?")
    return settings


def _completions(samples: pl.DataFrame, dump: Dump) -> pl.DataFrame:
    """The canonical table, a row for each completion."""
    names = pl.DataFrame({"question": range(len(dump.questions.ids)), "question_id": dump.questions.ids})
    return samples.join(
        names.cast({"question": pl.UInt32, "question_id": pl.Categorical}),
        on="question",
        how="left",
        maintain_order="left",
    ).select(
        "iteration",
        "step",
        "question_id",
        pl.int_range(pl.len(), dtype=pl.UInt32).over("step", "question").alias("sample_index"),
        "success",
        "reward",
        "completion_length",
        "finish_reason",
        *(["weight"] if "weight" in samples.columns else []),
    )

"""Read a run directory: its arms, finished or not, as :class:`~grpo_dynamics.validation.measured.Measured`."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from grpo_dynamics.validation.measured import SUCCESS, Arm, Measured, canonical

MANIFEST = "manifest.json"
TABLE = "success.parquet"

COMPLETIONS = ("iteration", "question_id", "success", "completion_length")
"""What is read of the answers that were drawn."""


def read_run(path: str | os.PathLike[str]) -> Measured:
    """Return what a run measured.

    An arm that still runs, or was killed, is read as far as its parts go, and says so in its notes; so is one with a
    torn part. An arm that has measured nothing yet is left out, and named in the notes of the run.

    Args:
        path: the folder of a run, with a folder for each arm, or the folder of one arm.

    Raises:
        ValueError: for a folder that is missing or is no run, a table that cannot be read, or measurements that cannot
            be.
    """
    path = Path(path)
    if not path.is_dir():
        raise ValueError(f"run must be a folder that exists, got {str(path)!r}")
    manifest = _json(path / MANIFEST)
    folders = [path] if _is_arm(path) else sorted(entry for entry in path.iterdir() if _is_arm(entry))
    if not folders:
        raise ValueError(f"run must be a folder with {TABLE}, or with folders of arms that have one, got {str(path)!r}")
    named = [str(name) for name in manifest.get("arms", [])]
    folders.sort(key=lambda folder: named.index(folder.name) if folder.name in named else len(named))
    tables = {folder.name: _success(folder) for folder in folders}
    waiting = [name for name, (table, _) in tables.items() if table is None]
    waiting += [name for name in named if folders != [path] and name not in tables]
    if all(table is None for table, _ in tables.values()):
        raise ValueError(f"run must have measured the policy before training, got no measurement in {str(path)!r}")
    arms = tuple(
        _arm(folder, table, said) for folder in folders for table, said in [tables[folder.name]] if table is not None
    )
    notes = (f"Not here yet, or without a measurement: {', '.join(waiting)}.",) if waiting else ()
    return Measured(str(manifest.get("name") or path.resolve().name), arms, manifest, notes)


def _is_arm(folder: Path) -> bool:
    return folder.is_dir() and ((folder / TABLE).is_file() or (folder / "parts").is_dir())


def _arm(folder: Path, success: pl.DataFrame, notes: tuple[str, ...]) -> Arm:
    manifest = _json(folder / MANIFEST)
    config = manifest.get("config")
    if not isinstance(config, dict):
        raise ValueError(f"{folder / MANIFEST} must have the settings of the arm under 'config', got {config!r}")
    wanted: Any = config.get("iterations")  # pyright: ignore[reportUnknownMemberType]
    last = int(success["iteration"].max())  # pyright: ignore[reportArgumentType]
    finished = manifest.get("status", "finished") == "finished" and not notes_of_tearing(notes)
    if not finished:
        notes = (
            f"The run is not finished: compared are iterations 0 to {last} of {wanted or 'an unknown number'}.",
            *notes,
        )
    foreign = [name for name in success.columns if name not in (*SUCCESS, "log_odds_optimum", "gap")]
    if foreign:
        notes = (*notes, f"Columns of {TABLE} that are not read: {', '.join(foreign)}.")
    refused = [str(note) for note in manifest.get("notes", [])]
    questions, steps = (_optional(folder / f"{name}.parquet") for name in ("questions", "steps"))
    if steps is None:
        steps = _parts(folder, "steps.parquet")[0]
    return Arm(
        name=str(manifest.get("arm") or folder.name),
        config={**config, "task": {**(config.get("task") or {}), **manifest.get("task", {})}},
        success=success,
        questions=questions,
        steps=steps,
        completions=_completions(folder),
        manifest=manifest,
        finished=finished,
        notes=(*notes, *refused),
    )


TORN = "is torn"


def notes_of_tearing(notes: tuple[str, ...]) -> bool:
    """Return whether a note says that a part was lost."""
    return any(TORN in note for note in notes)


def _success(folder: Path) -> tuple[pl.DataFrame | None, tuple[str, ...]]:
    """The measurements of an arm, whole or from its parts, and what has to be said; None where there are none yet."""
    whole = folder / TABLE
    if whole.is_file():
        return canonical(_read(whole), str(whole)), ()
    table, notes = _parts(folder, TABLE)
    return (None if table is None else canonical(table, str(folder / "parts"))), notes


def _parts(folder: Path, name: str) -> tuple[pl.DataFrame | None, tuple[str, ...]]:
    """The parts of a table in order, up to the first that cannot be read."""
    read: list[pl.DataFrame] = []
    for part in sorted((folder / "parts").glob(f"*/{name}")):
        try:
            read.append(_read(part))
        except ValueError:
            return _joined(read), (f"{part.relative_to(folder)} {TORN}: it and what follows is left out.",)
    return _joined(read), ()


def _completions(folder: Path) -> pl.DataFrame | None:
    """What is compared of the answers that were drawn: not their texts, which may be gigabytes."""
    whole = folder / "completions.parquet"
    files = [whole] if whole.is_file() else sorted((folder / "parts").glob("*/completions.parquet"))
    read: list[pl.DataFrame] = []
    for file in files:
        try:
            read.append(_read(file, COMPLETIONS))
        except ValueError:  # torn, as the table of success says, or written by another trainer
            break
    return _joined(read)


def _joined(parts: list[pl.DataFrame]) -> pl.DataFrame | None:
    return pl.concat(parts, how="diagonal_relaxed") if parts else None


def _optional(path: Path) -> pl.DataFrame | None:
    return _read(path) if path.is_file() else None


def _read(path: Path, columns: tuple[str, ...] | None = None) -> pl.DataFrame:
    try:
        return pl.read_parquet(path, columns=None if columns is None else list(columns))
    except (pl.exceptions.PolarsError, OSError) as error:
        raise ValueError(f"{path} must be a parquet table, got a file that cannot be read: {_line(error)}") from None


def _json(path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} must be a JSON file, got one that cannot be read: {_line(error)}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path} must be a JSON object, got {type(found).__name__}")
    return dict[str, Any](found)


def _line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]

"""The folder of a run: whose it is, what is kept of an arm while it is trained, and how far it has come."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from grpo_dynamics.config import as_table
from grpo_dynamics.plotting import write_whole
from grpo_dynamics.provenance import digest, json_bytes, parquet
from grpo_dynamics.training import checkpoints, records
from grpo_dynamics.training.arm import Arm
from grpo_dynamics.training.config import RunConfig
from grpo_dynamics.training.deadline import TimeLimit
from grpo_dynamics.training.state import state_of
from grpo_dynamics.training.tasks import Task

MAY_CHANGE = ("optimization.micro_batch_size", "rollouts.batch_size", "rollouts.memory")
"""Keys of a config that a run may be gone on with under another value: how much is computed at once."""


def manifest_of(folder: Path) -> dict[str, Any] | None:
    """Return the manifest of a run, or of one of its arms; None where there is nothing yet.

    Raises:
        ValueError: where it is not JSON.
    """
    place = folder / "manifest.json"
    try:
        return json.loads(place.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ValueError(f"out must be a folder whose manifest.json is JSON, got {str(place)!r} ({error})") from None


def require_place(folder: Path, config: RunConfig, resume: bool) -> dict[str, Any] | None:
    """Return the manifest of what an arm's folder holds, None where there is nothing.

    A run that is gone on with may need less memory than before: what changes the result by rounding only may differ.

    Raises:
        ValueError: where that is another run, or the same one and it is not to be resumed.
    """
    before = manifest_of(folder)
    if before is None:
        return None
    own, theirs = _flat(json.loads(json_bytes(as_table(config)))), _flat(before.get("config", {}))
    for key in sorted(own.keys() | theirs.keys()):
        if own.get(key) != theirs.get(key) and key not in MAY_CHANGE:
            raise ValueError(
                f"out must be a folder without another run, got {str(folder)!r}, where {key} is {theirs.get(key)!r} "
                f"and not {own.get(key)!r}"
            )
    if not resume:
        raise ValueError(
            f"out must be a folder without this run, got {str(folder)!r}, which is {before['status']}: add --resume, "
            "or remove it"
        )
    return before


def steps_done(befores: Sequence[Mapping[str, Any] | None]) -> int:
    """Return how much of a run is on disk, from the manifests of its arms: iterations, and one for measuring π_ref.

    >>> steps_done([{"iterations_done": 3}, {"iterations_done": -1}, None])
    4
    """
    return sum(before["iterations_done"] + 1 for before in befores if before is not None)


def where_it_stopped(stopped: TimeLimit, at: RunConfig, arms: Sequence[RunConfig], folder: Path, before: int) -> str:
    """Say in one line where a time limit stopped a run, how far that is, and what is to be done.

    Args:
        stopped: what was not done.
        at: the arm of which it was not done.
        arms: of the run.
        folder: of the run.
        before: what :func:`steps_done` said when the command began.
    """
    now = [manifest_of(folder / arm.arm) for arm in arms]
    done = sum(max(arm["iterations_done"], 0) for arm in now if arm is not None)
    total = sum(arm.iterations for arm in arms)
    where = f"the time limit was reached in arm {at.arm}, {stopped}; {done} of {total} iterations of the run are done"
    if stopped.spent is not None and steps_done(now) == before:
        spent = f"which took more than {stopped.spent:.3g} s"
        return f"{where}, none of them by this command: the limit must be longer than this, {spent}"
    return f"{where}: the same command with --resume goes on"


class Keeper:
    """Takes the rows of each iteration, and writes them with a checkpoint every few iterations."""

    def __init__(
        self, arm: Arm, folder: Path, manifest: dict[str, Any], parts: dict[str, Any], done: int, started: float
    ) -> None:
        self.arm, self.folder, self.manifest, self.parts = arm, folder, manifest, parts
        self.done, self.waiting, self.started, self.before = done, records.no_rows(), started, manifest["seconds"]
        self.last = done
        self.order = {question.id: i for i, question in enumerate(arm.task.questions)}

    def keep(self, iteration: int, rows: records.Rows, due: bool) -> None:
        for name in ("success", "completions"):
            found = self.arm.gathered(rows[name])
            self.waiting[name] += records.ordered(found, self.order)
        for name in ("steps", "timings"):  # the same in all processes, but for the seconds
            self.waiting[name] += rows[name]
        self.last = iteration
        ends = iteration == self.arm.config.iterations
        if due or iteration % self.arm.config.checkpoint_every == 0 or ends:
            self._save()

    def _save(self) -> None:
        """Write a checkpoint of the last iteration, and the rows since the one before."""
        iteration, state = self.last, state_of(self.arm)
        if self.arm.is_main:
            self.parts[checkpoints.name_of(iteration)] = records.save_part(self.folder, iteration, self.waiting)
            about = {"iteration": iteration, "parts": self.parts}
            checkpoints.save(self.folder / "checkpoints", iteration, {**state, "state.json": json_bytes(about)})
            checkpoints.keep_last(self.folder / "checkpoints")
        self.waiting, self.done = records.no_rows(), iteration
        self.write_manifest()

    def write_manifest(self) -> None:
        self.manifest["iterations_done"] = self.done
        self.manifest["seconds"] = round(self.before + time.perf_counter() - self.started, 3)
        if self.arm.is_main:
            write_whole(self.folder / "manifest.json", json_bytes(self.manifest))

    def stop(self, within: bool) -> None:
        """Leave things as the next command can go on from; what was done of an iteration that is broken off goes."""
        if not within and self.last > self.done:
            self._save()
        self.manifest["status"] = "stopped"
        self.write_manifest()
        self.arm.accelerator.wait_for_everyone()

    def finish(self) -> None:
        """Join the parts into tables; they go only when the tables and the manifest that names them are there."""
        if self.arm.is_main:
            self.manifest["tables"] = records.write_tables(self.folder)
            steps, success = records.joined(self.folder, "steps"), records.joined(self.folder, "success")
            records.write_tensorboard(self.folder, steps, success)
            self.manifest["status"] = "finished"
            self.write_manifest()
            tidy(self.folder)
        self.arm.accelerator.wait_for_everyone()


def tidy(folder: Path) -> None:
    """Remove what a finished arm no longer needs: its parts, and all checkpoints but the last."""
    checkpoints.keep_last(folder / "checkpoints", 1)
    checkpoints.remove_all(folder / "parts")


def write_questions(folder: Path, task: Task) -> None:
    """Write a row for each question of an arm."""
    import polars as pl

    rows = [(question.id, question.prompt, question.answer) for question in task.questions]
    schema: dict[str, Any] = dict.fromkeys(("question_id", "prompt", "answer"), pl.String)
    write_whole(folder / "questions.parquet", parquet(pl.DataFrame(rows, schema=schema, orient="row")))


def require_parts(folder: Path, parts: Mapping[str, Mapping[str, str]]) -> None:
    """Refuse to go on where rows that were written are no longer what they were."""
    for name, digests in parts.items():
        found = checkpoints.load(folder / "parts" / name)
        if {key: digest(data) for key, data in found.items()} != dict(digests):
            raise ValueError(f"{folder / 'parts' / name} must be what was written, but it has changed: start anew")


def _flat(value: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, item in value.items():
        flat |= _flat(item, f"{before}{key}.") if isinstance(item, Mapping) else {f"{before}{key}": item}
    return flat

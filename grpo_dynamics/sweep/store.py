"""The folder of a sweep: sweep.json says which, tasks/ID.parquet and ID.json are what each task left.

The JSON file of a task is written after its table and holds the digest of it: where it is, the table is whole.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from grpo_dynamics.plotting import write_whole
from grpo_dynamics.provenance import digest, json_bytes, versions
from grpo_dynamics.sweep.plan import Sweep


@dataclasses.dataclass(frozen=True)
class Store:
    """Where the results are, and how to know what is there."""

    folder: Path

    @property
    def about(self) -> Path:
        """What the sweep is, and how far."""
        return self.folder / "sweep.json"

    def table(self, task: str) -> Path:
        """Where the table of a task goes."""
        return self.folder / "tasks" / f"{task}.parquet"

    def manifest(self, task: str) -> Path:
        """Where it is said how the table was made."""
        return self.folder / "tasks" / f"{task}.json"

    def failure(self, task: str) -> Path:
        """Where the reason is written why there is no table."""
        return self.folder / "tasks" / f"{task}.failed"

    def marker(self, task: str) -> Path:
        """What is there while the task runs: whose worker was killed leaves it."""
        return self.folder / "tasks" / f"{task}.running"

    def work(self, task: str) -> Path:
        """The folder in which a task may keep what it needs to go on, and what else it leaves."""
        return self.folder / "runs" / task

    def is_done(self, task: str) -> bool:
        """Whether a task has left its table."""
        return self.manifest(task).exists()

    def is_whole(self, task: str) -> bool:
        """Whether the table of a task is what was written."""
        try:
            return json.loads(self.manifest(task).read_bytes())["sha256"] == digest(self.table(task).read_bytes())
        except (FileNotFoundError, ValueError, KeyError, TypeError):  # TypeError: JSON, but no object
            return False

    def reason(self, task: str) -> str | None:
        """Return why a task failed, None where it did not."""
        try:
            return self.failure(task).read_text()
        except FileNotFoundError:
            return None

    def forget(self, task: str) -> None:
        """Remove what a task left that is no result."""
        for path in (self.failure(task), self.marker(task), self.manifest(task), self.table(task)):
            path.unlink(missing_ok=True)


def claim(store: Store, sweep: Sweep, resume: bool) -> None:
    """Make the folder that of the sweep.

    Raises:
        ValueError: where it is another's, or this one's and it is not to be gone on with.
        OSError: where it cannot be written.
    """
    own = {**sweep.identity(), "versions": versions()}
    before = read_about(store.folder)
    if before is None:
        write_about(store, sweep, {**own, "status": "running"})
        return
    for key in ("kind", "tasks", "versions"):
        if before.get(key) != own[key]:
            what = {"kind": "kinds", "tasks": "lists of tasks", "versions": "versions of packages"}[key]
            raise ValueError(
                f"out must be a folder without another sweep, got {str(store.folder)!r}: the {what} differ"
            )
    if not resume:
        raise ValueError(
            f"out must be a folder without this sweep, got {str(store.folder)!r}, which is {before.get('status')}: add "
            "--resume, or remove it"
        )


def write_about(store: Store, sweep: Sweep, more: Mapping[str, Any]) -> None:
    """Write sweep.json: what the sweep is, its tasks, and how it went."""
    listed = [{"id": task.id, "axes": dict(task.axes)} for task in sweep.tasks]
    head = {
        "name": sweep.name,
        **sweep.identity(),
        "value": sweep.value,
        "axes": {k: list(v) for k, v in sweep.axes.items()},
    }
    write_whole(store.about, json_bytes({**head, **more, "listed": listed}))


def read_about(folder: Path) -> dict[str, Any] | None:
    """Return what sweep.json says, None where there is none."""
    path = folder / "sweep.json"
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ValueError(f"out must be a folder whose sweep.json is JSON, got {str(path)!r} ({error})") from None
    if not isinstance(found, dict) or "listed" not in found:
        raise ValueError(f"out must be a folder whose sweep.json is that of a sweep, got {str(path)!r}")
    return found

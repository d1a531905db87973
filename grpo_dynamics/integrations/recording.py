"""What reward functions see, kept on disk by every process that calls them, and put together afterwards."""

from __future__ import annotations

import json
import logging
import math
import os
import socket
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grpo_dynamics.arrays import require

if TYPE_CHECKING:
    import polars as pl

logger = logging.getLogger("grpo_dynamics")


class Recorder:
    """Appends a line of JSON for each completion to a file of this process; threads may share it.

    Lines: ``time`` in seconds, ``question_id``, ``success``, ``reward``, ``completion_length`` in characters, and
    ``step`` where the trainer tells it.

    Args:
        folder: made if it is not there; one for each start of a training.
        threshold: a completion is right where its reward is at least this.

    Raises:
        ValueError: for a folder that cannot be written, now and not in the middle of a training.
    """

    def __init__(self, folder: str | os.PathLike[str], threshold: float = 0.5) -> None:
        require("threshold", threshold, "a finite number", lambda x: abs(x) < float("inf"))
        self.threshold, self._folder, self._lock = threshold, Path(folder), threading.Lock()
        self._failed = False
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with self._file().open("ab"):
                pass
        except OSError as error:
            raise ValueError(
                f"folder must be one that can be written ({error.strerror or error}), got {str(folder)!r}"
            ) from None

    def _file(self) -> Path:
        """The file of this process: a fork has one of its own."""
        return self._folder / f"{socket.gethostname()}-{os.getpid()}.jsonl"

    def keep(self, question: str, reward: Any, length: int, *, right: bool | None = None, step: Any = None) -> None:
        """Write one completion; a disk that is full is told of once, and training goes on."""
        value = None if reward is None or math.isnan(reward) else float(reward)  # as TRL's None: not judged
        success = value >= self.threshold if right is None and value is not None else right
        row = {"time": time.time(), "question_id": question, "success": success, "reward": value}
        row |= {"completion_length": length} | ({} if step is None else {"step": int(step)})
        line = json.dumps(row, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n"
        try:
            with self._lock, self._file().open("ab", buffering=0) as file:
                file.write(line)
        except OSError as error:
            if not self._failed:
                logger.warning("rewards are no longer recorded in %s: %s", self._folder, error)
            self._failed = True


def collect(folder: str | os.PathLike[str], group_size: int, completions_per_step: int | None = None) -> pl.DataFrame:
    """Return the completions of a folder in the canonical columns, for ``grpo-dynamics validate --from generic``.

    Columns: iteration, from 0, of the policy before training; step; question_id; group_id; sample_index; success;
    reward; completion_length; finish_reason, logp_old and logp_ref, which are null. Rows are in the order of time.
    Where the trainer tells its steps, iterations are those; otherwise a step is ``completions_per_step`` completions
    one after the other, which is right where training waits for all of its samples.

    Args:
        folder: that of one training.
        group_size: G, completions of a question in a step; ≥ 1.
        completions_per_step: of all questions together; needed where the rows have no steps.

    Raises:
        ValueError: for a folder without rows, rows that cannot be read (with file and line), or a missing argument.
    """
    import polars as pl

    for name, value in (("group_size", group_size), ("completions_per_step", completions_per_step)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise ValueError(f"{name} must be an integer >= 1, got {value!r}")
    rows = [row for file in sorted(Path(folder).glob("*.jsonl")) for row in _rows(file)]
    if not rows:
        raise ValueError(f"folder must hold rewards that were recorded, got {str(folder)!r}")
    kinds = {"time": pl.Float64, "question_id": pl.String, "success": pl.Boolean, "reward": pl.Float64}
    table = pl.DataFrame(rows, schema={**kinds, "completion_length": pl.Int64, "step": pl.Int64})
    table = table.sort("time", maintain_order=True)
    told = table["step"].null_count() == 0
    if not told and completions_per_step is None:
        raise ValueError("completions_per_step must be an integer >= 1 for rows that do not tell their step, got None")
    iteration = pl.col("step") - pl.col("step").min() if told else pl.int_range(pl.len()) // completions_per_step
    rank = pl.int_range(pl.len()).over("iteration", "question_id")
    return (
        table.with_columns(iteration.cast(pl.Int64).alias("iteration"))
        .with_columns(rank.alias("rank"))
        .select(
            "iteration",
            pl.coalesce("step", pl.col("iteration") + 1).alias("step"),
            "question_id",
            (pl.col("rank") // group_size).alias("group_id"),
            (pl.col("rank") % group_size).alias("sample_index"),
            "success",
            "reward",
            "completion_length",
            pl.lit(None, pl.String).alias("finish_reason"),
            pl.lit(None, pl.Float64).alias("logp_old"),
            pl.lit(None, pl.Float64).alias("logp_ref"),
        )
    )


def _rows(file: Path) -> list[Mapping[str, Any]]:
    """The rows of a file; of a process that was killed the last line may be cut, and is left out."""
    found: list[Mapping[str, Any]] = []
    lines = file.read_bytes().split(b"\n")
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        try:
            row = json.loads(line)
            found.append({"step": None, **row} if row["time"] and row["question_id"] else {})
        except (ValueError, TypeError, KeyError):
            if number == len(lines):
                continue
            raise ValueError(f"{file}, line {number}: must be a reward that was recorded, got {line[:60]!r}") from None
    return found

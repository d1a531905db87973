"""What a run leaves: every completion, every p, every step, as tables; and the scalars for TensorBoard.

While a run goes on its rows are kept in parts, one folder for each checkpoint, and joined at the end. The joined tables
are a function of the rows alone, however often the run was killed: there is no time of day in them. Wall-clock seconds
have a table of their own.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from grpo_dynamics.plotting import write_whole
from grpo_dynamics.provenance import digest, parquet
from grpo_dynamics.training import checkpoints

SCHEMAS: dict[str, dict[str, Any]] = {
    "success": {
        "iteration": pl.Int64,
        "question_id": pl.String,
        "log_odds": pl.Float64,
        "p": pl.Float64,
        "low": pl.Float64,
        "high": pl.Float64,
        "successes": pl.Int64,
        "samples": pl.Int64,
        "method": pl.String,
        "log_odds_optimum": pl.Float64,
        "gap": pl.Float64,
    },
    "completions": {
        "iteration": pl.Int64,
        "step": pl.Int64,
        "question_id": pl.String,
        "group_id": pl.Int64,
        "sample_index": pl.Int64,
        "success": pl.Boolean,
        "reward": pl.Float64,
        "completion_length": pl.Int64,
        "finish_reason": pl.String,
        "logp_old": pl.Float64,
        "logp_ref": pl.Float64,
        "completion": pl.String,
        "outcome": pl.String,
    },
    "steps": {
        "iteration": pl.Int64,
        "step": pl.Int64,
        "loss": pl.Float64,
        "gap": pl.Float64,
        "worst_kl": pl.Float64,
        "kl": pl.Float64,
        "clip_fraction": pl.Float64,
        "mean_ratio": pl.Float64,
        "grad_norm": pl.Float64,
        "learning_rate": pl.Float64,
        "reward": pl.Float64,
        "silent": pl.Float64,
        "engine_mismatch": pl.Float64,
        "converged": pl.Boolean,
        "assisted": pl.Boolean,
    },
    "timings": {
        "iteration": pl.Int64,
        "sample_seconds": pl.Float64,
        "train_seconds": pl.Float64,
        "measure_seconds": pl.Float64,
        "completion_tokens": pl.Int64,
    },
}
"""Columns of each table. logp_old is the engine's, of the whole completion, as is logp_ref where it was needed."""

Rows = dict[str, list[dict[str, Any]]]
"""Rows of each table, by its name."""


def no_rows() -> Rows:
    """Return empty tables."""
    return {name: [] for name in SCHEMAS}


def frame(name: str, rows: Iterable[Mapping[str, Any]]) -> pl.DataFrame:
    """Return rows as one of the tables of a run; what a row lacks is null.

    >>> print(frame("timings", [{"iteration": 1}]).row(0))
    (1, None, None, None, None)
    """
    schema = SCHEMAS[name]
    return pl.DataFrame({key: [row.get(key) for row in rows] for key in schema} if rows else None, schema=schema)


def save_part(folder: Path, iteration: int, rows: Rows) -> dict[str, str]:
    """Keep the rows since the last checkpoint; return the digests of what was written."""
    files = {f"{name}.parquet": parquet(frame(name, rows[name])) for name in SCHEMAS}
    checkpoints.save(folder / "parts", iteration, files)
    return {name: digest(data) for name, data in files.items()}


def joined(folder: Path, name: str) -> pl.DataFrame:
    """Return a table as far as it has come.

    Raises:
        ValueError: where a part is damaged.
    """
    parts = folder / "parts"
    tables = [
        pl.read_parquet(checkpoints.load(parts / checkpoints.name_of(i))[f"{name}.parquet"])
        for i in checkpoints.iterations(parts)
    ]
    return pl.concat([frame(name, []), *tables]).rechunk()


def write_tables(folder: Path) -> dict[str, dict[str, Any]]:
    """Join the parts into the tables of a run; return what a manifest says about each."""
    described: dict[str, dict[str, Any]] = {}
    for name in SCHEMAS:
        table = joined(folder, name)
        data = parquet(table)
        write_whole(folder / f"{name}.parquet", data)
        described[f"{name}.parquet"] = {"rows": table.height, "columns": table.columns, "sha256": digest(data)}
    return described


def write_tensorboard(folder: Path, steps: pl.DataFrame, success: pl.DataFrame) -> Path:
    """Write the scalars of a run for TensorBoard, anew: nothing is there twice, and the same run gives the same bytes.

    Args:
        folder: of the arm; the file goes into its folder "tensorboard".
        steps: the table of that name: its scalars stand over the number of all steps.
        success: the table of that name: the mean p, and p of every question, stand over the iterations.
    """
    from tensorboard.compat.proto import event_pb2, summary_pb2  # pyright: ignore[reportMissingTypeStubs]
    from tensorboard.summary.writer import record_writer  # pyright: ignore[reportMissingTypeStubs]

    events: Any = event_pb2
    summaries: Any = summary_pb2

    buffer = io.BytesIO()
    writer = record_writer.RecordWriter(buffer)

    def add(step: int, scalars: Mapping[str, float | None]) -> None:
        values = [summaries.Summary.Value(tag=tag, simple_value=x) for tag, x in scalars.items() if x is not None]
        event = events.Event(wall_time=float(step), step=step, summary=summaries.Summary(value=values))
        writer.write(event.SerializeToString())

    writer.write(events.Event(wall_time=0.0, file_version="brain.Event:2").SerializeToString())
    numbers = [key for key, kind in SCHEMAS["steps"].items() if kind == pl.Float64]
    for step, row in enumerate(steps.iter_rows(named=True)):
        add(step, {f"steps/{key}": row[key] for key in numbers})
    for key, table in success.partition_by("iteration", as_dict=True, maintain_order=True).items():
        each = {f"p/{row['question_id']}": row["p"] for row in table.iter_rows(named=True)}
        add(int(key[0]), {"success/mean_p": float(table["p"].to_numpy().mean()), **each})
    return write_whole(folder / "tensorboard" / "events.out.tfevents.0.run", buffer.getvalue())


def ordered(rows: Sequence[dict[str, Any]], order: Mapping[str, int]) -> list[dict[str, Any]]:
    """Return rows of several processes in the order in which one process would have written them.

    Args:
        rows: with a question_id, each process's in its own order.
        order: the place of each question.
    """
    return sorted(rows, key=lambda row: (row["iteration"], row.get("step", 0), order[row["question_id"]]))

"""What a worker does with one task. It never raises for what a task does: the reason is written beside the tables."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import polars as pl

PARENT = "GRPO_DYNAMICS_SWEEP"
"""Variable of the environment with the id of the process without which a worker has no reason to live."""

LOOK = 1.0
"""Seconds between two looks whether it is there."""


def work(folder: str, kind: str, task: str, axes: Mapping[str, Any], types: Mapping[str, str], config: Any) -> None:
    """Compute the table of a task and write it, unless it is there.

    Args:
        folder: of the sweep.
        kind: of the sweep.
        task: id.
        axes: the values that distinguish the task; they become columns.
        types: of these columns, by :func:`~grpo_dynamics.sweep.plan.column_types`.
        config: of the task.
    """
    from grpo_dynamics.plotting import write_whole
    from grpo_dynamics.provenance import digest, json_bytes, parquet
    from grpo_dynamics.sweep.kinds import KINDS
    from grpo_dynamics.sweep.store import Store

    _end_with_parent()
    store = Store(Path(folder))
    if store.is_done(task):  # by a worker that died later on, with others of its batch to do
        return
    store.marker(task).write_text(f"{os.getpid()}\n")
    started, cpu = time.perf_counter(), time.process_time()
    try:
        table = with_axes(KINDS[kind].compute(config, store.work(task)), task, axes, types)
        data = parquet(table)
        manifest: dict[str, Any] = {
            "id": task,
            "kind": kind,
            "axes": dict(axes),
            "config": config,
            "rows": table.height,
            "columns": table.columns,
            "sha256": digest(data),
            "seconds": round(time.perf_counter() - started, 4),
            "cpu_seconds": round(time.process_time() - cpu, 4),
            "host": platform.node(),
            "process": os.getpid(),
        }
        write_whole(store.table(task), data)
        write_whole(store.manifest(task), json_bytes(manifest))  # last: it says that the table is whole
    except Exception as error:
        with contextlib.suppress(OSError):  # a full disk: the driver sees that there is neither
            write_whole(store.failure(task), one_line(error).encode())
    store.marker(task).unlink(missing_ok=True)


def _end_with_parent() -> None:
    """End this process when the sweep that started it is killed: it would compute beside the one that resumes it."""
    parent = os.environ.pop(PARENT, None)  # once in a process
    if parent is None or not hasattr(os, "getppid") or str(os.getppid()) != parent:
        return

    def look() -> None:
        while str(os.getppid()) == parent:
            time.sleep(LOOK)
        os._exit(1)

    threading.Thread(target=look, daemon=True).start()


def one_line(error: BaseException) -> str:
    """Return what went wrong in one line.

    >>> one_line(ValueError("beta must be   > 0"))
    'ValueError: beta must be > 0'
    """
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}{'…' if len(text) > 300 else ''}"


def with_axes(table: pl.DataFrame, task: str, axes: Mapping[str, Any], types: Mapping[str, str]) -> pl.DataFrame:
    """Return a table with the task's id and its axes as first columns.

    A column of the table that has the name of an axis is left out where it says the same, and else is "result.NAME".
    """
    import polars as pl

    same = [name for name in table.columns if name in axes and table[name].unique().to_list() == [axes[name]]]
    table = table.drop(same)
    table = table.rename({name: f"result.{name}" for name in table.columns if name in axes or name == "task"})
    values = {name: json.dumps(v) if types[name] == "JSON" and v is not None else v for name, v in axes.items()}
    kinds = {"JSON": pl.String, "Boolean": pl.Boolean, "Int64": pl.Int64, "Float64": pl.Float64, "String": pl.String}
    columns = [pl.lit(value, dtype=kinds[types[name]]).alias(name) for name, value in values.items()]
    return table.select(pl.lit(task).alias("task"), *columns, pl.all())

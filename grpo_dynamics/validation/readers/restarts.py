"""Logs in which time goes backwards: a run that went on from a checkpoint, or a second run in the folder of a first."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from grpo_dynamics.validation.readers.samples import Notes

SLACK = 2
"""Steps that writers of one run may be out of order."""


def without_abandoned(files: Sequence[tuple[str, pl.DataFrame]], notes: Notes) -> pl.DataFrame:
    """Return a log, whose files follow each other, without the rows that a restart has made again, and without ``row``.

    Where the step falls by more than ``SLACK``, to s, the run went on from a checkpoint before s: the rows above it
    with steps ≥ s belong to a branch that was given up. ``row`` is the line of the file.

    >>> log = pl.DataFrame({"step": [1, 2, 3, 4, 5, 6, 3, 4]}).with_row_index("row", 1)
    >>> without_abandoned([("the log", log)], Notes())["step"].to_list()
    [1, 2, 3, 4]
    """
    samples = pl.concat([rows.drop("row") for _, rows in files])
    steps = samples["step"].to_numpy()
    highest = np.maximum.accumulate(steps) if len(steps) else steps
    if not (steps < highest - SLACK).any():
        return samples
    keep = np.ones(len(steps), dtype=bool)
    top, begun = -1, 0
    for row, step in zip(*_changes(steps), strict=True):
        if step < top - SLACK:
            lost = keep[begun:row] & (steps[begun:row] >= step)
            keep[:row] &= steps[:row] < step
            text = f"{_place(files, row)}: the step goes back from {top} to {step}, as after a restart; of the rows "
            notes.add("backwards", f"{text}before, those from step {step} on are left out", max(1, int(lost.sum())))
            top = step
        top = max(top, int(step))
    return samples.filter(pl.Series(keep))


def without_older_run(files: list[tuple[int, Path]], notes: Notes) -> list[tuple[int, Path]]:
    """Return (step, file) of the newer of two runs that wrote into one folder.

    A run that is started again writes over the files of the one before, step after step; if it is shorter, the last
    files are still those of the older run. They are known by their times: older than all files of the steps before
    them, while within both parts the times grow with the steps. Files copied without their times do not look like that.
    """
    times = np.array([file.stat().st_mtime_ns for _, file in files])
    falls = np.flatnonzero(np.diff(times) < 0)
    if len(falls) != 1 or falls[0] < 1:
        return files
    end = int(falls[0]) + 1
    if times[end:].max() >= times[:end].min():
        return files
    text = (
        f"{files[end][1]} and what follows is older than the steps before: an earlier run in the same folder, left out"
    )
    notes.add("older", text)
    return files[:end]


def _place(files: Sequence[tuple[str, pl.DataFrame]], row: int) -> str:
    """The file and the line of a row of all files together."""
    begin = 0
    for name, rows in files:
        if row < begin + rows.height:
            return f"{name}, line {rows['row'][row - begin]}"
        begin += rows.height
    raise IndexError(row)


def _changes(steps: np.ndarray) -> tuple[list[int], list[int]]:
    """Where the step changes, and to what."""
    rows = np.flatnonzero(np.diff(steps, prepend=steps[0] - 1))
    return rows.tolist(), steps[rows].tolist()

"""What was measured: the success probability of every question, iteration after iteration, whoever trained it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from grpo_dynamics.arrays import Array
from grpo_dynamics.intervals import wilson
from grpo_dynamics.logodds import logit, sigmoid
from grpo_dynamics.validation.theory_of_run import Theory

SUCCESS: dict[str, Any] = {
    "iteration": pl.Int64,
    "question_id": pl.String,
    "log_odds": pl.Float64,
    "p": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "successes": pl.Int64,
    "samples": pl.Int64,
    "method": pl.String,
}
"""The canonical columns: iteration 0 is before training; ``low`` and ``high`` are an interval of 95 %.

The method is "enumerated" or "teacher_forced", where p is known to rounding, or "sampled".
"""

NEEDED = ("iteration", "question_id")
"""What cannot be filled in; beside them p, log_odds, or successes and samples have to be there."""


@dataclasses.dataclass(frozen=True, eq=False)
class Grid:
    """The measurements as arrays of shape (iterations, questions), NaN where nothing was measured.

    Attributes:
        iterations: shape (iterations,), ascending, the first is 0.
        questions: ids, in the order of the table.
        p, low, high: success probabilities and their interval.
        log_odds: of p, infinite where a sample was all right or all wrong.
        samples: how many answers p was counted from; NaN where it was computed.
    """

    iterations: Array
    questions: tuple[str, ...]
    p: Array
    low: Array
    high: Array
    log_odds: Array
    samples: Array

    @property
    def sampled(self) -> Array:
        """Where p has a statistical error of its own."""
        return (self.high > self.low) & np.isfinite(self.p)

    @property
    def starts(self) -> Array:
        """Log-odds to go on from: those of (k+½)/(n+1) where all n samples were wrong, or right, which says p < 1/n."""
        half = log_odds_of((self.p * self.samples + 0.5) / (self.samples + 1))
        return np.where(np.isinf(self.log_odds) & np.isfinite(half), half, self.log_odds)


@dataclasses.dataclass(frozen=True, eq=False)
class Arm:
    """One way to train, and what came of it.

    Attributes:
        name: of the arm.
        config: its settings, every key in force.
        success: the canonical table, see :data:`SUCCESS`; more columns may follow.
        questions: question_id, prompt, answer; None if there is no such table.
        steps: scalars of each optimisation step; None if there is no such table.
        completions: the answers that were drawn for training, at least iteration, question_id, success and
            completion_length; None if there is no such table.
        manifest: how it was made.
        finished: whether all iterations are there.
        notes: what a reader has to know about the files.
        theory: what it is compared with; None: that of its config.
    """

    name: str
    config: Mapping[str, Any]
    success: pl.DataFrame
    questions: pl.DataFrame | None = None
    steps: pl.DataFrame | None = None
    completions: pl.DataFrame | None = None
    manifest: Mapping[str, Any] = dataclasses.field(default_factory=dict[str, Any])
    finished: bool = True
    notes: tuple[str, ...] = ()
    theory: Theory | None = None

    def grid(self) -> Grid:
        """Return the measurements as arrays, and any other number of the table by :func:`matrix`."""
        iterations = self.success["iteration"].unique().sort().to_numpy()
        questions = tuple(self.success["question_id"].unique(maintain_order=True))
        values = {
            name: matrix(self.success, name, iterations, questions)
            for name in ("p", "low", "high", "log_odds", "samples")
        }
        return Grid(iterations, questions, **values)


@dataclasses.dataclass(frozen=True, eq=False)
class Measured:
    """A run: its arms, how it was made, and what a reader has to know about it."""

    name: str
    arms: tuple[Arm, ...]
    manifest: Mapping[str, Any] = dataclasses.field(default_factory=dict[str, Any])
    notes: tuple[str, ...] = ()


def matrix(table: pl.DataFrame, column: str, iterations: Array, questions: tuple[str, ...]) -> Array:
    """Return a column as an array of shape (iterations, questions), NaN where a row is missing."""
    place = {name: i for i, name in enumerate(questions)}
    rows = np.searchsorted(iterations, table["iteration"].to_numpy())
    columns = np.array([place[name] for name in table["question_id"]], dtype=np.int64)
    result = np.full((len(iterations), len(questions)), np.nan)
    result[rows, columns] = table[column].cast(pl.Float64).fill_null(np.nan).to_numpy()
    return result


def log_odds_of(p: Array) -> Array:
    """Return log-odds, NaN where p is NaN: nothing was measured."""
    return np.where(np.isnan(p), np.nan, logit(np.where(np.isnan(p), 0.5, p)))


def canonical(table: pl.DataFrame, where: str = "success") -> pl.DataFrame:
    """Return a table of success with the canonical columns first, filled in where they follow from others.

    Args:
        table: with iteration, question_id, and p, log_odds, or successes and samples.
        where: the name of the table, for messages.

    Raises:
        ValueError: for missing columns, values that cannot be, a question measured twice in one iteration, or no
            measurement before training.

    >>> counted = pl.DataFrame({"iteration": [0], "question_id": ["a"], "successes": [3], "samples": [8]})
    >>> canonical(counted).select("p", "low", "high", "method").row(0)
    (0.375, 0.1368..., 0.6942..., 'sampled')
    """
    columns = set(table.columns)
    for name in NEEDED:
        if name not in columns:
            raise ValueError(f"{where} must have the column {name!r}, got {', '.join(table.columns)}")
    if not columns & {"p", "log_odds"} and not {"successes", "samples"} <= columns:
        raise ValueError(
            f"{where} must have the column 'p', 'log_odds', or 'successes' and 'samples', "
            f"got {', '.join(table.columns)}"
        )
    missing = [pl.lit(None, dtype=kind).alias(name) for name, kind in SUCCESS.items() if name not in columns]
    table = table.with_columns(missing)
    try:
        table = table.with_columns(pl.col(name).cast(kind) for name, kind in SUCCESS.items())
    except pl.exceptions.PolarsError as error:
        raise ValueError(f"{where} must have numbers where they belong, got {str(error).splitlines()[0]}") from None
    if table.is_empty():
        raise ValueError(f"{where} must have a measurement, got an empty table")
    filled = _filled(table)
    _require(filled, where)
    rest = [name for name in filled.columns if name not in SUCCESS]
    order = {name: i for i, name in enumerate(filled["question_id"].unique(maintain_order=True))}
    place = pl.col("question_id").replace_strict(order, return_dtype=pl.Int64)
    return filled.select(*SUCCESS, *rest).sort("iteration", place)


def _filled(table: pl.DataFrame) -> pl.DataFrame:
    """The table with p, its log-odds, interval and method, from each other or from counts."""
    p, log_odds, low, high, successes, samples = (
        table[name].cast(pl.Float64).fill_null(np.nan).to_numpy()
        for name in ("p", "log_odds", "low", "high", "successes", "samples")
    )
    counted = np.isfinite(samples) & (samples > 0)
    with np.errstate(all="ignore"):
        p = np.where(np.isnan(p), np.where(np.isnan(log_odds), successes / samples, sigmoid(log_odds)), p)
        log_odds = np.where(np.isnan(log_odds), log_odds_of(np.clip(p, 0, 1)), log_odds)
        method = table["method"].fill_null("").to_numpy()
        sampled = np.where(method == "", counted, method == "sampled")
        bounds = wilson(np.clip(np.where(np.isnan(p), 0.5, p), 0, 1), np.where(counted, samples, 1.0))
    method = np.where(method == "", np.where(sampled, "sampled", "enumerated"), method)
    low, high = (
        np.where(np.isnan(bound), np.where(sampled & counted, computed, p), bound)
        for bound, computed in zip((low, high), bounds, strict=True)
    )
    columns = {"p": p, "log_odds": log_odds, "low": low, "high": high}
    return table.with_columns(
        *(pl.Series(name, values, dtype=pl.Float64) for name, values in columns.items()),
        pl.Series("method", method.astype(str), dtype=pl.String),
    )


def _require(table: pl.DataFrame, where: str) -> None:
    """Refuse measurements that cannot be."""
    if table["iteration"].null_count() or table["question_id"].null_count():
        raise ValueError(f"{where} must have an iteration and a question_id in every row, got a row without")
    if int(table["iteration"].min()) < 0:  # pyright: ignore[reportArgumentType]
        raise ValueError(f"{where} must have iterations >= 0, got {table['iteration'].min()}")
    inside = pl.all_horizontal(
        pl.col(name).is_finite() & pl.col(name).is_between(0, 1) for name in ("p", "low", "high")
    )
    ordered = (pl.col("low") <= pl.col("p") + 1e-9) & (pl.col("p") <= pl.col("high") + 1e-9)
    bad = table.filter(~(inside & ordered))
    if bad.height:
        row = bad.row(0, named=True)
        raise ValueError(
            f"{where} must have 0 <= low <= p <= high <= 1, got low={row['low']}, p={row['p']}, high={row['high']} "
            f"for question {row['question_id']!r} in iteration {row['iteration']} ({bad.height} such rows)"
        )
    twice = table.filter(pl.struct("iteration", "question_id").is_duplicated())
    if twice.height:
        row = twice.row(0, named=True)
        raise ValueError(
            f"{where} must have a question once in an iteration, got {row['question_id']!r} several times in "
            f"iteration {row['iteration']}"
        )
    if int(table["iteration"].min()) > 0:  # pyright: ignore[reportArgumentType]
        raise ValueError(
            f"{where} must begin with iteration 0, the policy before training, got {table['iteration'].min()}: "
            "without p_ref nothing can be predicted"
        )

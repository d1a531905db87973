"""Measured over predicted: a row for each question in each iteration, and a row for where each question ends."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import polars as pl

from grpo_dynamics.arrays import Array
from grpo_dynamics.intervals import wilson
from grpo_dynamics.logodds import sigmoid
from grpo_dynamics.theory.batch import BatchStd
from grpo_dynamics.theory.orbits.limit import LimitKind
from grpo_dynamics.theory.regimes import Regime, regime
from grpo_dynamics.validation import error_split
from grpo_dynamics.validation.error_split import ErrorSplit
from grpo_dynamics.validation.measured import Arm, Grid, log_odds_of, matrix
from grpo_dynamics.validation.prediction_intervals import Interval, prediction_interval
from grpo_dynamics.validation.predictions import Limits, Predicted, kinds, limits, one_step, orbit
from grpo_dynamics.validation.relaxation import Relaxation, fit
from grpo_dynamics.validation.theory_of_run import Theory, theory_of, training_of

MOVING = (LimitKind.CYCLE, LimitKind.IRREGULAR)
"""Fates of the path from p_ref in which neighbours may drift apart by nature, so that single steps are compared."""

LAST = 1 / 3
"""Share of the iterations whose mean is p_∞, where a run is noisy."""


@dataclasses.dataclass(frozen=True, eq=False)
class Comparison:
    """One arm beside one theory.

    Attributes:
        arm: what was measured.
        theory: what was predicted, from the arm's own settings.
        grid: the measurements as arrays.
        orbit, one_step: the predictions.
        regime: a name per question, for the interior fixed point at its p_ref: the path from p_ref may go elsewhere.
        limits: where the questions should go.
        kind: a :class:`~grpo_dynamics.LimitKind` of each: what the path from p_ref does in the end.
        ends: where they went: p_infinity, low, high, moving; arrays of shape (questions,).
        interval: where 95 % of the measurements should lie, by all that is left to chance.
        fitted: a line with one number taken from the run itself, no prediction.
        split: the causes of the error of single steps.
        table: one row per question and iteration.
        end_table: one row per question; it "arrives" where the predicted path is at p* when the run ends, and only
            there p_∞ is compared with p*.
    """

    arm: Arm
    theory: Theory
    grid: Grid
    orbit: Predicted
    one_step: Predicted
    regime: Array
    limits: Limits
    kind: Array
    ends: Ends
    interval: Interval
    fitted: Relaxation
    split: ErrorSplit
    table: pl.DataFrame
    end_table: pl.DataFrame

    @property
    def residual(self) -> Array:
        """Measured − predicted p, by the orbit where it settles, else from one measurement to the next."""
        chosen = np.where(self.moving, self.one_step.p, self.orbit.p)
        return np.concatenate([np.full_like(self.grid.p[:1], np.nan), (self.grid.p - chosen)[1:]])

    @property
    def moving(self) -> Array:
        """Which questions are judged by single steps, shape (questions,): p_ref and the settings say it."""
        return np.isin(self.kind, [int(kind) for kind in MOVING])


@dataclasses.dataclass(frozen=True, eq=False)
class Ends:
    """Where questions ended, arrays of shape (questions,).

    Attributes:
        p: p_∞, the last measurement of an exact run, the mean of the last third of another.
        low, high: its interval, that of the pooled samples.
        moving: whether the two halves of the last third differ by more than 0.02 and by more than chance: of the
            samples, or of the scatter from one measurement to the next where the training is noisy.
    """

    p: Array
    low: Array
    high: Array
    moving: Array


def compare(arm: Arm, theory: Theory | None = None) -> Comparison:
    """Return an arm beside its theory.

    Args:
        arm: what was measured.
        theory: what to compare with; the arm's own, or that of its settings, if not given.

    Raises:
        ValueError: for settings that are no way to train.
    """
    theory = theory or arm.theory or theory_of(arm.config)
    training, grid = training_of(arm.config), arm.grid()
    chance = _chance(arm, grid)
    by_orbit, by_step = orbit(theory, grid), one_step(theory, grid, chance)
    labels, goals, ends = _regimes(theory, grid), limits(theory, grid), ends_of(grid, training.update == "exact")
    tolerance = (arm.config.get("optimization") or {}).get("inner_tolerance") or 0.0
    interval = prediction_interval(training, theory, grid, float(tolerance))
    fitted = fit(theory, grid)
    split = _split(arm, theory, grid, by_step)
    table = _table(grid, by_orbit, by_step, labels, fitted, chance, interval)
    kind = kinds(theory, grid.p[0])
    end_table = _end_table(grid, labels, goals, ends, _arrived(theory, by_orbit, goals), kind)
    return Comparison(
        *(arm, theory, grid, by_orbit, by_step, labels, goals, kind, ends, interval, fitted, split, table, end_table)
    )


def ends_of(grid: Grid, exact: bool) -> Ends:
    """Return where the questions ended.

    Args:
        grid: the measurements.
        exact: whether the run has no noise: its last iteration then says where it ended.
    """
    count = len(grid.iterations)
    half = max(1, round(count * LAST / 2))
    last, before = grid.p[-half:], grid.p[-2 * half : -half] if count > 2 * half else grid.p[:0]
    pooled = slice(count - 1, None) if exact else slice(max(1, count - 2 * half) if count > 1 else 0, None)
    with np.errstate(all="ignore"):
        p = _mean(grid.p[pooled])
        drawn = np.nansum(np.where(np.isnan(grid.p[pooled]), np.nan, grid.samples[pooled]), axis=0)
        low, high = wilson(np.where(np.isnan(p), 0.5, p), np.where(drawn > 0, drawn, 1.0))
        known = (drawn > 0) & grid.sampled[pooled].any(axis=0)
        drift = np.abs(_mean(last) - _mean(before)) if len(before) else np.zeros_like(p)
        samples = np.nansum(grid.samples[-half:], axis=0)
        chance = np.where(known, 1.96 * np.sqrt(2 * p * (1 - p) / np.maximum(samples, 1)), 0.0)
        if not exact and len(before) > 1:
            chance = np.maximum(chance, 1.96 * np.sqrt(_variance_of_mean(last) + _variance_of_mean(before)))
    return Ends(p, np.where(known, low, p), np.where(known, high, p), drift > np.maximum(0.02, chance))


def covered(measured: tuple[Array, Array, Array], predicted: tuple[Array, Array, Array]) -> Array:
    """Return whether measured and predicted agree within their intervals; each is (p, low, high).

    Newcombe's interval of a difference: distances from each p to the end that faces the other add in squares. So two
    95 % intervals agree in 95 % of all cases, where mere overlap would agree in 99 %. Where a prediction has an
    interval only, because p_ref is not known, it is overlap.

    Source: Newcombe 1998, Statistics in Medicine 17, method 10.
    """
    (p, low, high), (q, q_low, q_high) = measured, predicted
    below = p - q - np.hypot(p - low, q_high - q)
    above = p - q + np.hypot(high - p, q - q_low)
    return np.where(np.isnan(q), (low <= q_high) & (high >= q_low), (below <= 0) & (above >= 0))


def _chance(arm: Arm, grid: Grid) -> Array:
    """Spread of the log-odds after each step by the sampled groups, shape of the grid, NaN in the first row."""
    spread = error_split.sampling_deviation(training_of(arm.config), grid.starts[:-1])
    spread = spread * np.sqrt(np.diff(grid.iterations))[:, None]
    return np.concatenate([np.full_like(grid.p[:1], np.nan), np.nan_to_num(spread)])


def _regimes(theory: Theory, grid: Grid) -> Array:
    p, known = grid.p[0], (grid.p[0] > 0) & (grid.p[0] < 1)
    if isinstance(theory.normalization, BatchStd):
        return np.where(known, "shared", "unknown")
    distinct, place = np.unique(np.where(known, p, 0.5), return_inverse=True)
    labels = regime(theory.at(distinct)).label
    names = np.array([Regime(int(label)).name.lower() for label in np.ravel(labels)])
    return np.where(known, names[place], "unknown")


def _split(arm: Arm, theory: Theory, grid: Grid, by_step: Predicted) -> ErrorSplit:
    """The causes of the error of one step, from the optimum of each step where the run has recorded it."""
    residual = grid.p - by_step.p
    deviation = np.hypot((grid.high - grid.low) / 3.92, (by_step.high - by_step.low) / 3.92)
    extra = {name: np.full_like(residual, np.nan) for name in ("log_odds_optimum", "gap")}
    for name in extra:
        if name in arm.success.columns:
            extra[name] = matrix(arm.success, name, grid.iterations, grid.questions)
    gap, optimum = extra["gap"], sigmoid(extra["log_odds_optimum"])
    bound = np.sqrt(np.maximum(gap, 0) / (2 * theory.beta)) if theory.beta else gap
    # of a p that was counted the loop has missed no more than the gap allows, and the rest is the chance of the count
    missed = np.where(grid.sampled, np.clip(grid.p - optimum, -bound, bound), grid.p - optimum)
    return error_split.split(
        grid.iterations[1:],
        residual[1:],
        deviation[1:],
        bound=bound[1:],
        measured=(optimum + missed)[1:],
        optimum=optimum[1:],
        sampled=training_of(arm.config).update == "sampled" or bool(grid.sampled.any()),
    )


def _table(
    grid: Grid,
    by_orbit: Predicted,
    by_step: Predicted,
    labels: Array,
    fitted: Relaxation,
    chance: Array,
    interval: Interval,
) -> pl.DataFrame:
    shape = grid.p.shape
    sampled = grid.sampled | (by_step.high > by_step.low)
    measured = grid.p, grid.low, grid.high
    columns: dict[str, Any] = {
        "iteration": np.broadcast_to(grid.iterations[:, None], shape),
        "question_id": np.broadcast_to(np.array(grid.questions, dtype=object), shape),
        "p_ref": np.broadcast_to(grid.p[0], shape),
        "regime": np.broadcast_to(labels.astype(object), shape),
        "p": grid.p,
        "low": grid.low,
        "high": grid.high,
        "log_odds": grid.log_odds,
    }
    for name, found in (("orbit", by_orbit), ("one_step", by_step)):
        inside = covered(measured, (found.p, found.low, found.high))
        uncertain = sampled if name == "one_step" else grid.sampled | (found.high > found.low)
        columns |= {
            name: found.p,
            f"{name}_low": found.low,
            f"{name}_high": found.high,
            f"{name}_log_odds": found.log_odds,
            f"{name}_residual": grid.p - found.p,
            f"{name}_log_odds_residual": _difference(grid.log_odds, found.log_odds),
            f"{name}_covered": np.where(uncertain & ~np.isnan(found.high), inside, np.nan),
        }
    columns |= {
        "interval_low": interval.low,
        "interval_high": interval.high,
        "interval_covered": interval.inside(grid.p),
    }
    columns |= {"sampling_log_odds": chance, "fitted_one_step": fitted.p, "fitted_orbit": sigmoid(fitted.orbit)}
    table = pl.DataFrame({name: np.ravel(np.asarray(values)) for name, values in columns.items()})
    table = table.with_columns(pl.col("question_id", "regime").cast(pl.String))
    return table.filter(pl.col("p").is_not_nan()).with_columns(
        pl.col(name).fill_nan(None).cast(pl.Boolean)
        for name in ("orbit_covered", "one_step_covered", "interval_covered")
    )


def _arrived(theory: Theory, by_orbit: Predicted, goals: Limits) -> Array:
    """Whether the predicted path is within 0.01 of p* when the run ends; of a flow the time is not predicted."""
    there = np.abs(by_orbit.p[-1] - goals.p) <= 0.01
    return goals.one_point & (there if theory.has_orbits else True)


def _end_table(grid: Grid, labels: Array, goals: Limits, ends: Ends, arrived: Array, kind: Array) -> pl.DataFrame:
    inside = covered((ends.p, ends.low, ends.high), (goals.p, goals.low, goals.high))
    return pl.DataFrame(
        {
            "question_id": list(grid.questions),
            "p_ref": grid.p[0],
            "p_ref_low": grid.low[0],
            "p_ref_high": grid.high[0],
            "regime": labels.tolist(),
            "p_infinity": ends.p,
            "p_infinity_low": ends.low,
            "p_infinity_high": ends.high,
            "still_moving": ends.moving,
            "p_star": goals.p,
            "p_star_low": goals.low,
            "p_star_high": goals.high,
            "arrives": arrived,
            "limit": [LimitKind(int(x)).name.lower() for x in kind],
            "residual": np.where(arrived, ends.p - goals.p, np.nan),
            "log_odds_residual": np.where(arrived, _difference(log_odds_of(ends.p), log_odds_of(goals.p)), np.nan),
            "covered": inside,
        }
    )


def _difference(first: Array, second: Array) -> Array:
    """Of log-odds, NaN where both or one is infinite."""
    with np.errstate(all="ignore"):
        result = first - second
    return np.where(np.isfinite(result), result, np.nan)


def _variance_of_mean(values: Array) -> Array:
    """Of each column, from its scatter; 0 where fewer than two measurements are there to tell."""
    count = np.isfinite(values).sum(axis=0)
    squares = np.nansum((values - _mean(values)) ** 2, axis=0)
    return np.where(count > 1, squares / np.maximum(count - 1, 1) / np.maximum(count, 1), 0.0)


def _mean(values: Array) -> Array:
    count = np.isfinite(values).sum(axis=0)
    return np.where(count > 0, np.nansum(values, axis=0) / np.maximum(count, 1), np.nan)

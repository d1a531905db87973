"""What a comparison comes to: a few numbers, other theories beside them, and whether the promises were kept."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from grpo_dynamics.arrays import Array
from grpo_dynamics.config import build
from grpo_dynamics.theory.orbits.limit import LimitKind
from grpo_dynamics.validation import lengths
from grpo_dynamics.validation.compare import Comparison
from grpo_dynamics.validation.oscillation import oscillation
from grpo_dynamics.validation.prediction_intervals import LEVEL
from grpo_dynamics.validation.predictions import limits, one_step, orbit
from grpo_dynamics.validation.theory_of_run import Theory, other_theories
from grpo_dynamics.validation.thresholds import APART, Thresholds, judged

Numbers = dict[str, Any]


def thresholds_of(comparison: Comparison) -> Thresholds:
    """Return the table [validation] of an arm.

    Raises:
        ValueError: for a key that is no threshold, or a value out of range.
    """
    return build(Thresholds, comparison.arm.config.get("validation") or {}, "validation")


def summarize(comparison: Comparison) -> Numbers:
    """Return what an arm comes to, in plain values; the keys are those of ``summary.json``.

    Residuals are |measured − predicted| success probabilities: by the orbit from p_ref for questions whose orbit
    settles, from one measurement to the next for those that go to a cycle or stay irregular. ``passed`` is None without
    thresholds.
    """
    promised = thresholds_of(comparison)
    grid, labels, ends = comparison.grid, comparison.regime, comparison.end_table
    goals = comparison.limits
    counted = grid.iterations <= (promised.iterations or math.inf)
    others = [_other(comparison, theory, counted) for theory in other_theories(comparison.theory)]
    told: Numbers = {
        "arm": comparison.arm.name,
        "theory": comparison.theory.name,
        "why": comparison.theory.why,
        "not_modelled": list(comparison.theory.not_modelled),
        "finished": comparison.arm.finished,
        "notes": list(comparison.arm.notes),
        "iterations": int(grid.iterations[-1]),
        "questions": len(grid.questions),
        "questions_without_p_ref": int(np.sum(labels == "unknown")),
        "regimes": {str(name): int(count) for name, count in zip(*np.unique(labels, return_counts=True), strict=True)},
        "residual": _sizes(comparison.residual[counted]) | {"up_to_iteration": int(grid.iterations[counted].max())},
        "orbit": _sizes((grid.p - comparison.orbit.p)[counted][1:]),
        "orbit_settling": _sizes((grid.p - comparison.orbit.p)[counted][1:][:, ~comparison.moving]),
        "one_step": _sizes((grid.p - comparison.one_step.p)[counted][1:]),
        "r2": r_squared(grid.p[1:], (grid.p - comparison.residual)[1:]),
        "coverage": {
            name: _share(comparison.table.filter(iteration_above_zero())[f"{name}_covered"].drop_nulls().to_list())
            for name in ("orbit", "one_step")
        },
        "interval": _interval(comparison),
        "p_infinity": _sizes(ends["residual"].to_numpy())
        | {
            "r2": r_squared(ends["p_infinity"].to_numpy(), (ends["p_infinity"] - ends["residual"]).to_numpy()),
            "still_moving": int(ends["still_moving"].sum()),
            "on_their_way": int((goals.one_point & ~ends["arrives"].to_numpy()).sum()),
        },
        "lengths": lengths.summary(lengths.lengths_of(comparison.arm)),
        "fates": _fates(comparison),
        "oscillation": dataclasses.asdict(oscillation(grid, comparison.orbit.p, comparison.kind)),
        "other_theories": others,
        "fitted": {"kappa": comparison.fitted.kappa, "r2": comparison.fitted.r2}
        | _sizes((grid.p - comparison.fitted.p)[counted][1:]),
        "error": comparison.split.whole()
        | {"exact": bool(comparison.split.exact.all()), "converged": _converged(comparison)}
        | _distance(comparison),
    }
    told["thresholds"] = judged(told, promised)
    told["passed"] = all(entry["passed"] for entry in told["thresholds"]) if told["thresholds"] else None
    told["headline"], told["verdict"] = (" ".join(said) for said in (verdict(told)[:1], verdict(told)))
    return plain(told)


def verdict(told: Numbers) -> list[str]:
    """Return what an arm comes to in a few sentences, the most important first."""
    residual, end = told["residual"], told["p_infinity"]
    said: list[str] = []
    if residual["points"]:
        said.append(
            f"Measured and predicted p_n differ by {short(residual['median'])} in the median and by less than "
            f"{short(residual['percentile_95'])} in 95 % of {residual['points']} measurements "
            f"({residual['questions']} questions, {residual['up_to_iteration']} iterations)."
        )
    if end["points"]:
        said.append(
            f"Where questions end is {short(end['median'])} from the predicted p* in the median, less than "
            f"{short(end['percentile_95'])} in 95 % of {end['points']} questions."
        )
    r2 = told["r2"] if residual["points"] else end["r2"]
    if r2 is not None and math.isfinite(r2):
        said.append(f"The prediction explains {100 * r2:.1f} % of the variance (R² = {r2:.3f}).")
    swing = told["oscillation"]
    if swing["predicted"]:
        said.append(
            f"{swing['seen']} of {swing['predicted']} questions that should oscillate do"
            + (
                f", by {short(swing['swing'])} a step (predicted {short(swing['swing_predicted'])})"
                * bool(swing["seen"])
            )
            + "."
        )
    left_out = _left_out(told)
    if end["points"] and left_out:
        said.append(f"p_∞ is not compared for {left_out}.")
    if end["still_moving"] and not residual["points"]:
        said.append(f"{end['still_moving']} of {told['questions']} questions were still moving when the run ended.")
    if not said:
        said.append("Nothing could be compared: see the notes.")
    return said


def _left_out(told: Numbers) -> str:
    """Name the questions whose p_∞ is compared with no p*, and why: what is told of them follows from p_ref alone."""
    way, without = told["p_infinity"]["on_their_way"], told["questions_without_p_ref"]
    cycling = told["questions"] - told["p_infinity"]["points"] - way - without
    parts = [
        (cycling, "whose predicted path comes to no rest"),
        (way, "whose predicted path has not arrived when the run ends"),
        (without, "without a known p_ref"),
    ]
    said = [f"{count} {words}" for count, words in parts if count]
    count = told["questions"] - told["p_infinity"]["points"]
    return f"{count} question{'s' * (count > 1)}: {', '.join(said)}" if said else ""


def _other(own: Comparison, theory: Theory, counted: Array) -> Numbers:
    """Another theory judged on the same measurements in the same way."""
    chosen = np.full_like(own.grid.p, np.nan)
    if own.theory.has_orbits:  # else only ends are compared, and the paths of another theory are not needed
        chosen = np.where(own.moving, one_step(theory, own.grid).p, orbit(theory, own.grid).p)
    goal = limits(theory, own.grid)
    residual = (own.grid.p - chosen)[counted][1:]
    mine = own.residual[counted][1:]
    both = np.isfinite(residual) & np.isfinite(mine)
    goals = np.abs(np.where(goal.one_point, own.ends.p - goal.p, np.nan))
    ours = own.end_table["residual"].abs().to_numpy()
    known = np.isfinite(goals) & np.isfinite(ours)
    return {
        "name": theory.name,
        "paper": theory.name.startswith("the paper"),
        "residual_median": _median(np.abs(residual)[both]),
        "own_nearer": _share((np.abs(mine) < np.abs(residual))[both]),
        "p_infinity_median": _median(goals[known]),
        "own_nearer_p_infinity": _share((ours < goals)[known]),
        "apart": _apart(ours[known], goals[known], np.abs(own.limits.p - goal.p)[known]),
    }


def _apart(own: Array, other: Array, distance: Array) -> Numbers:
    """The same differences, on the questions alone where the two theories can be told apart."""
    far = distance > APART
    first, second = _median(own[far]), _median(other[far])
    return {"questions": int(far.sum()), "own": first, "other": second, "factor": second / max(first, 1e-12)}


def _distance(comparison: Comparison) -> Numbers:
    """KL(π‖π*) to the optimum of each iteration, in nats, as the inner loops left it: where the run has recorded it."""
    success, beta = comparison.arm.success, comparison.theory.beta
    if "gap" not in success.columns or not beta:
        return {"kl": None, "kl_largest": None}
    found = success["gap"].drop_nulls().drop_nans().to_numpy() / beta
    return {"kl": _mean(found), "kl_largest": float(found.max()) if found.size else math.nan}


def _fates(comparison: Comparison) -> dict[str, int]:
    """How many questions settle, go to p = 1, oscillate …, by the theory; those without a p_ref are left out."""
    known = comparison.regime != "unknown"
    kinds, counts = np.unique(comparison.kind[known], return_counts=True)
    return {LimitKind(int(kind)).name.lower(): int(count) for kind, count in zip(kinds, counts, strict=True)}


def _converged(comparison: Comparison) -> float | None:
    """Share of the inner loops that reached their tolerance, if that was recorded."""
    steps = comparison.arm.steps
    if steps is None or "converged" not in steps.columns:
        return None
    return _share(steps["converged"].drop_nulls().to_list())


def r_squared(measured: Array, predicted: Array) -> float:
    """Return the share of the variance of measured values that predictions explain; NaN where they hardly vary."""
    known = np.isfinite(measured) & np.isfinite(predicted)
    spread = measured[known] - measured[known].mean() if known.sum() > 1 else np.zeros(1)
    total = float(np.sum(spread**2))
    return 1 - float(np.sum((measured - predicted)[known] ** 2)) / total if total > 1e-6 * known.sum() else math.nan


def short(value: float | None) -> str:
    """Return a difference of probabilities, or a number of questions, as a reader wants it.

    >>> short(0.01234), short(0.00002), short(1e-12), short(None), short(8)
    ('0.012', '2e-5', '<1e-9', '–', '8')
    """
    if value is None or math.isnan(value):
        return "–"
    if 0 < value < 1e-9:
        return "<1e-9"
    if isinstance(value, int):
        return str(value)
    return f"{value:.3f}" if value >= 5e-4 else f"{value:.0e}".replace("e-0", "e-") if value else "0"


def iteration_above_zero() -> Any:
    """Return the condition that a row is a prediction, and not its start."""
    import polars as pl

    return pl.col("iteration") > 0


def _sizes(residual: Array) -> Numbers:
    known = np.isfinite(residual)
    size = np.abs(residual[known])
    questions = int(known.any(axis=0).sum()) if residual.ndim == 2 else int(known.sum())
    return {
        "points": int(size.size),
        "questions": questions,
        "median": _median(size),
        "percentile_95": float(np.quantile(size, 0.95)) if size.size else math.nan,
        "largest": float(size.max()) if size.size else math.nan,
    }


def _median(values: Array) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if known.size else math.nan


def _interval(comparison: Comparison) -> Numbers:
    """How many measurements are in the interval of their prediction, and how wide it is in the median."""
    interval = comparison.interval
    inside = interval.inside(comparison.grid.p)
    known = inside[np.isfinite(inside)]
    covered = float(known.mean()) if known.size else None
    return {
        "level": LEVEL,
        "points": int(known.size),
        "covered": covered,
        "width": _median((interval.high - interval.low)[np.isfinite(inside)]),
    }


def _mean(values: Array) -> float:
    return float(np.mean(values)) if values.size else math.nan


def _share(values: Sequence[Any] | Array) -> float | None:
    return float(np.mean(np.asarray(values, dtype=float))) if len(values) else None


def plain(value: Any) -> Any:
    """Return the value with None for NaN, as JSON has it."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

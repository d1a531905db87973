"""What a run promises: the table [validation] of its config, against which the report says pass or fail."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from grpo_dynamics.arrays import require

APART = 0.1
"""Two theories are told apart by the questions whose p* differ by more than this."""


@dataclasses.dataclass(frozen=True)
class Thresholds:
    """Bounds that a comparison must keep; those that are None are not asked for.

    Args:
        median: of |measured − predicted| success probability, over questions and iterations, ≥ 0.
        percentile_95: the 95th percentile of the same, ≥ 0.
        iterations: only iterations up to this one count for the two above, ≥ 1; all if None.
        p_infinity: median over questions of |p_∞ − p*|, ≥ 0.
        p_infinity_r2: least share of the variance of p_∞ over questions that p* explains, in [0, 1]. Not kept where p_∞
            hardly varies: then it is no number.
        wrong_estimator: how many times worse the p* of a flow with the other KL divergence must be than the run's own,
            ≥ 1: medians of |p_∞ − p*| over the questions where the two p* differ by more than 0.1.
        coverage: least share of the intervals that hold the prediction, in [0, 1]; asked for where p was sampled only.
        oscillating: least number of questions that oscillate and should, ≥ 0.
        oscillating_at_most: largest number of questions that oscillate, whether they should or not, ≥ 0.
        nearer_than_paper: whether the prediction must be nearer, in the median, than the paper's ε = 1e-5, G = ∞.

    Raises:
        ValueError: for a value out of range.

    >>> Thresholds(median=0.01, percentile_95=0.05, iterations=10).median
    0.01
    """

    median: float | None = None
    percentile_95: float | None = None
    iterations: int | None = None
    p_infinity: float | None = None
    p_infinity_r2: float | None = None
    wrong_estimator: float | None = None
    coverage: float | None = None
    oscillating: int | None = None
    oscillating_at_most: int | None = None
    nearer_than_paper: bool = False

    def __post_init__(self) -> None:
        for name in ("median", "percentile_95", "p_infinity"):
            if getattr(self, name) is not None:
                require(
                    f"validation.{name}", getattr(self, name), "a finite number >= 0", lambda x: (x >= 0) & (x < 1e9)
                )
        for name in ("coverage", "p_infinity_r2"):
            if getattr(self, name) is not None:
                require(f"validation.{name}", getattr(self, name), "between 0 and 1", lambda x: (x >= 0) & (x <= 1))
        if self.wrong_estimator is not None:
            allowed = "a finite number >= 1"
            require("validation.wrong_estimator", self.wrong_estimator, allowed, lambda x: (x >= 1) & (x < 1e9))
        for name, least in (("iterations", 1), ("oscillating", 0), ("oscillating_at_most", 0)):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
                raise ValueError(f"validation.{name} must be an integer >= {least}, got {value!r}")


def judged(told: Mapping[str, Any], promised: Thresholds) -> list[dict[str, Any]]:
    """Return each threshold that was asked for, the number beside it, and whether it is kept.

    Args:
        told: numbers of an arm, as :func:`~grpo_dynamics.validation.summary.summarize` finds them.
        promised: its table [validation].
    """
    coverage = told["coverage"]["one_step"] if told["coverage"]["one_step"] is not None else told["coverage"]["orbit"]
    swing = told["oscillation"]
    asked: list[tuple[str, str, float | None, float | None, str]] = [
        ("median", "median |measured − predicted|", promised.median, told["residual"]["median"], "at most"),
        ("percentile_95", "95th percentile", promised.percentile_95, told["residual"]["percentile_95"], "at most"),
        ("p_infinity", "median |p_∞ − p*|", promised.p_infinity, told["p_infinity"]["median"], "at most"),
        ("p_infinity_r2", "R² of p_∞ against p*", promised.p_infinity_r2, told["p_infinity"]["r2"], "at least"),
        (
            *(
                "wrong_estimator",
                f"|p_∞ − p*| of the other KL divergence over the run's own, where those differ by > {APART:g}",
            ),
            *(promised.wrong_estimator, _least_factor(told["other_theories"]), "at least"),
        ),
        ("oscillating", "questions that oscillate and should", promised.oscillating, swing["seen"], "at least"),
        (
            *("oscillating_at_most", "questions that oscillate", promised.oscillating_at_most),
            *(swing["seen"] + swing["others"], "at most"),
        ),
        ("coverage", "share of intervals that hold the prediction", promised.coverage, coverage, "at least"),
    ]
    rows = [
        {"name": name, "what": what, "bound": bound, "how": how, "value": value, "passed": _kept(value, bound, how)}
        for name, what, bound, value, how in asked
        if bound is not None
    ]
    paper = next((entry for entry in told["other_theories"] if entry["paper"]), None)
    if promised.nearer_than_paper and paper is not None:  # else the run's own theory is the paper's
        which, words = "p_infinity", "|p_∞ − p*|"
        if told["residual"]["points"]:
            which, words = "residual", "|measured − predicted|"
        bound, value = paper[f"{which}_median"], told[which]["median"]
        rows.append(
            {
                "name": "nearer_than_paper",
                "what": f"median {words}, the paper's ε = 1e-5 and G = ∞ beside it",
                "bound": bound,
                "how": "below",
                "value": value,
                "passed": bool(value < bound),
            }
        )
    return rows


def _least_factor(others: Sequence[Mapping[str, Any]]) -> float | None:
    """How many times worse the flows with another KL divergence are, the least of them; None where there is none."""
    factors = [entry["apart"]["factor"] for entry in others if not entry["paper"]]
    return None if not factors or any(math.isnan(factor) for factor in factors) else min(factors)


def _kept(value: float | None, bound: float, how: str) -> bool:
    if value is None or math.isnan(value):
        return False
    return value <= bound if how == "at most" else value >= bound

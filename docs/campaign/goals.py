"""The numbers to reach, and which of the committed results decide."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable

import polars as pl

from campaign.results import Result, updates


@dataclasses.dataclass(frozen=True)
class Goal:
    """A number to reach, which experiment decides, and the number that its result has."""

    what: str
    name: str
    bound: float
    at_most: bool
    value: Callable[[Result], float | None]


def exact_median(result: Result) -> float | None:
    """Return the largest median error of an arm of exact expectations."""
    return _largest(_along(result, sampled=False))


def sampled_median(result: Result) -> float | None:
    """Return the largest median error of an arm of sampled groups."""
    return _largest(_along(result, sampled=True))


def least_r2(result: Result) -> float | None:
    """Return the least R² of p_∞ against p*, of the arms that promise one: those whose p* vary."""
    return _least(_promised(result, "p_infinity_r2"))


def worst_end(result: Result) -> float | None:
    """Return the largest median distance of p_∞ from p* of an arm."""
    return _largest(arm["p_infinity"]["median"] for arm in result.arms)


def least_factor(result: Result) -> float | None:
    """Return by how much the wrong estimator's prediction is worse, at least."""
    return _least(_promised(result, "wrong_estimator"))


def matmul_share(result: Result) -> float | None:
    """Return the best share of the matmul rate that the update of the largest model reaches."""
    if result.table is None:
        return None
    rows = updates(result.table)
    largest = rows.filter(pl.col("parameters") == pl.col("parameters").max())
    return None if largest.is_empty() else _largest(largest["fraction_of_matmul"].to_list())


GOALS = (
    Goal("median \\|p_n − predicted\\|, exact expectations", "gpu_recursion", 0.02, True, exact_median),
    Goal("median \\|p_n − predicted\\|, sampled groups", "gpu_recursion", 0.04, True, sampled_median),
    Goal("R² of p_∞ against p\\*", "gpu_recursion", 0.95, False, least_r2),
    Goal("median \\|p_∞ − p\\*\\|, estimator and G of the run", "gpu_flow", 0.04, True, worst_end),
    Goal("error of the wrong estimator's prediction over that", "gpu_flow", 3.0, False, least_factor),
    Goal(
        "update of the largest model, share of the measured matmul rate (bf16 on a GPU)",
        "gpu_throughput",
        0.35,
        False,
        matmul_share,
    ),
)


def _promised(result: Result, name: str) -> list[float | None]:
    return [entry["value"] for arm in result.arms for entry in arm["thresholds"] if entry["name"] == name]


def _along(result: Result, sampled: bool) -> list[float]:
    return [
        arm["residual"]["median"]
        for arm in result.arms
        if arm["residual"]["points"] and result.sampled(arm["arm"]) == sampled
    ]


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _largest(values: Iterable[float | None]) -> float | None:
    return max(_known(values), default=None)


def _least(values: Iterable[float | None]) -> float | None:
    return min(_known(values), default=None)

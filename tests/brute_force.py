"""How many fixed points a system has, counted without the package: no closed forms, no turns(), no folds().

F(L) = b(L − L_ref) − Ω(L) is negative at L_ref and monotone between the places where Ω' = b. Those are found by brute
force: Ω' on a dense grid, its extrema by golden section, then bisection of Ω' − b between neighbours. The signs of F
there and at the far end give the count. Where F is closer to zero than float64 can tell, its sign is taken from 50
digits, at the same place: F is flat there, and the place is known to a rounding of Ω', so F to the square of that.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.special import comb

from tests import exact
from tests.exact import ROUNDING, mp

GRID = 320
Function = Callable[[Any, Any], Any]  # of log-odds, and of the indices of the systems they belong to


@dataclasses.dataclass(frozen=True)
class Problem:
    """n systems: Ω, Ω' in float64, Ω in 50 digits, and what F does for large L (+1: rises to ∞, −1: falls)."""

    gap: Function
    slope: Function
    exact_gap: Callable[[int], exact.Gap]
    beta: np.ndarray
    alpha: np.ndarray
    p_ref: np.ndarray
    end: np.ndarray
    flat_beyond: np.ndarray
    doubtful: float  # a bound on the relative rounding error of F

    @functools.cached_property
    def pull(self) -> np.ndarray:
        return self.alpha * self.beta

    @functools.cached_property
    def anchor(self) -> np.ndarray:
        logs = np.log(self.p_ref) - np.log1p(-self.p_ref)  # cancels in the middle
        return np.where(np.abs(self.p_ref - 0.5) < 0.2, 2 * np.arctanh(2 * self.p_ref - 1), logs)


def whitened(
    beta: np.ndarray, alpha: np.ndarray, p_ref: np.ndarray, eps: np.ndarray, placement: str = "variance"
) -> Problem:
    def gap(x: Any, i: Any) -> Any:
        std = 0.5 / np.cosh(x / 2)
        return (std**2 + eps[i]) ** -0.5 if placement == "variance" else 1 / (std + eps[i])

    def slope(x: Any, i: Any) -> Any:
        std = 0.5 / np.cosh(x / 2)
        if placement == "variance":
            return 0.5 * np.tanh(x / 2) * std**2 * (std**2 + eps[i]) ** -1.5
        return 0.5 * np.tanh(x / 2) * std / (std + eps[i]) ** 2

    with np.errstate(divide="ignore"):
        depth = np.where(eps > 0, -np.log(eps), 0.0)
    flat = (1 if placement == "variance" else 2) * (depth + 37)
    return Problem(
        gap,
        slope,
        lambda i: exact.whitened(eps[i], placement),
        beta,
        alpha,
        p_ref,
        end=np.where(eps > 0, 1, -1),
        flat_beyond=np.where(eps > 0, flat, 20.0),  # ε = 0: Ω' = sinh(L/2) > 1e3 ≥ b beyond
        doubtful=24 * ROUNDING,
    )


def group(
    beta: np.ndarray,
    alpha: np.ndarray,
    p_ref: np.ndarray,
    size: int,
    eps: float = 0.0,
    placement: str = "std",
    ddof: int = 0,
    silent: str = "keep",
) -> Problem:
    k = np.arange(1, size)
    variance = k / size * (1 - k / size) * size / (size - ddof)
    std = np.sqrt(variance + eps) if placement == "variance" else np.sqrt(variance) + eps
    right, wrong = (1 - k / size) / std, (k / size) / std
    seen = np.concatenate([right, [0.0]]) + np.concatenate([[0.0], wrong])  # s = 0 … G−1 of the others succeed

    def sums(x: Any, degree: int, first: int, weights: np.ndarray) -> tuple[Any, Any]:
        """Σ C(n,k) p^k q^(n−k) w_k and its derivative in L, which multiplies each term by k − n·p."""
        k = (first + np.arange(weights.size)).reshape(-1, *[1] * np.ndim(x))
        weights = weights.reshape(k.shape)
        log_p, log_q = -np.logaddexp(0, -x), -np.logaddexp(0, x)
        terms = weights * comb(degree, k) * np.exp(k * log_p + (degree - k) * log_q)
        return terms.sum(axis=0), (terms * (k * np.exp(log_q) - (degree - k) * np.exp(log_p))).sum(axis=0)

    def both(x: Any) -> tuple[Any, Any]:
        value, rise = sums(x, size - 1, 0, seen)
        if silent == "drop":
            mixed, growth = sums(x, size, 1, np.ones(size - 1))
            value, rise = value / mixed, (rise - value * growth / mixed) / mixed
        return value, rise

    n = beta.size
    return Problem(
        lambda x, i: both(x)[0],
        lambda x, i: both(x)[1],
        lambda i: exact.finite_group(size, eps, placement, ddof, silent),
        beta,
        alpha,
        p_ref,
        end=np.full(n, -1 if silent == "drop" else 1),
        flat_beyond=np.full(n, 46.0),
        doubtful=(24 + size) * ROUNDING,
    )


def count(problem: Problem) -> tuple[np.ndarray, np.ndarray]:
    """Return the number of fixed points, and how close to a fold: min |F|/(b·(d + |L| + |L_ref|)) where Ω' = b."""
    n = problem.beta.size
    counts, folds = np.empty(n, int), np.empty(n, int)
    for start in range(0, n, 1000):
        rows = np.arange(start, min(start + 1000, n))
        counts[rows], folds[rows] = _count(problem, rows)
    return counts, folds


def _count(problem: Problem, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    anchor, pull = problem.anchor, problem.pull
    # Ω falls for L < 0, so that Ω' = b needs L > 0; and beyond flat_beyond it does not change any more, or rises faster
    low = np.maximum(anchor[rows], 0.0)
    high = np.maximum(problem.flat_beyond[rows], low) + 1
    grid = low + (high - low) * np.linspace(0, 1, GRID)[:, None]
    excess = problem.slope(grid, rows) - pull[rows]

    # extrema of Ω' that could hide two sign changes between neighbours of the grid
    middle = excess[1:-1]
    peaks = (middle >= excess[:-2]) & (middle >= excess[2:]) & (middle <= 0)
    dips = (middle <= excess[:-2]) & (middle <= excess[2:]) & (middle >= 0)
    row, column = np.nonzero(peaks | dips)
    sign = np.where(peaks[row, column], 1.0, -1.0)
    which = rows[column]
    extremum = _golden(
        lambda x: sign * (problem.slope(x, which) - pull[which]), grid[row, column], grid[row + 2, column]
    )

    critical: list[list[float]] = [[] for _ in rows]
    for index, x in zip(column, extremum, strict=True):
        critical[index].append(x)
    row2, column2 = np.nonzero((excess[1:] > 0) != (excess[:-1] > 0))
    ends = [(grid[row2, column2], grid[row2 + 1, column2], column2)]
    split = (problem.slope(extremum, which) - pull[which] > 0) == (sign > 0)
    for a, b in ((grid[row, column], extremum), (extremum, grid[row + 2, column])):
        ends.append((a[split], b[split], column[split]))
    left, right, owner = (np.concatenate(parts) for parts in zip(*ends, strict=True))
    turning = _bisect(lambda x: problem.slope(x, rows[owner]) - pull[rows[owner]], left, right)
    for index, x in zip(owner, turning, strict=True):
        critical[index].append(x)

    width = max(map(len, critical), default=0)
    places = np.full((width, rows.size), np.nan)
    for index, found in enumerate(critical):
        places[: len(found), index] = sorted(found)
    distance = places - anchor[rows]
    value = pull[rows] * distance - problem.gap(np.nan_to_num(places), rows)
    noise = np.abs(value) / (pull[rows] * (distance + np.abs(places) + np.abs(anchor[rows])))
    above = np.where(np.isnan(places), False, value > 0)
    for j, index in np.argwhere(noise < problem.doubtful):
        above[j, index] = _positive(problem, rows[index], places[j, index])
    last = np.zeros(rows.size, bool)
    counts = np.zeros(rows.size, int)
    for i in range(width):
        present = ~np.isnan(places[i])
        counts += present & (above[i] != last)
        last = np.where(present, above[i], last)
    counts += (problem.end[rows] > 0) != last
    return counts, np.sum(noise < 1e-9, axis=0)


def _positive(problem: Problem, i: int, x: float) -> bool:
    pull = mp.mpf(float(problem.alpha[i])) * mp.mpf(float(problem.beta[i]))
    return pull * (mp.mpf(float(x)) - exact.logit(float(problem.p_ref[i]))) > problem.exact_gap(i)(x)


def _golden(function: Any, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    ratio = (np.sqrt(5) - 1) / 2
    for _ in range(40):
        a, b = high - ratio * (high - low), low + ratio * (high - low)
        keep = function(a) > function(b)
        low, high = np.where(keep, low, a), np.where(keep, b, high)
    return (low + high) / 2


def _bisect(function: Any, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    rising = function(high) > 0
    for _ in range(50):
        middle = (low + high) / 2
        right = (function(middle) <= 0) == rising
        low, high = np.where(right, middle, low), np.where(right, high, middle)
    return (low + high) / 2


def on_a_fold(problem: Problem, rng: np.random.Generator) -> np.ndarray:
    """For each L_ref a β that makes it a fold, or NaN: where Ω'·(L − L_ref)/Ω = 1, one of them at random."""
    result = np.full(problem.beta.size, np.nan)
    for start in range(0, problem.beta.size, 1000):
        rows = np.arange(start, min(start + 1000, problem.beta.size))
        anchor = problem.anchor[rows]
        low = np.maximum(anchor, 0.0)
        grid = low + (np.maximum(problem.flat_beyond[rows], low) + 1 - low) * np.linspace(0, 1, GRID)[:, None]

        def excess(x: Any, i: Any) -> Any:
            return problem.slope(x, i) * (x - problem.anchor[i]) / problem.gap(x, i) - 1

        values = excess(grid, rows)
        row, column = np.nonzero((values[1:] > 0) != (values[:-1] > 0))
        order = rng.permutation(row.size)
        row, column = row[order], column[order]
        which = rows[column]
        fold = _bisect(functools.partial(excess, i=which), grid[row, column], grid[row + 1, column])
        result[which] = problem.slope(fold, which) / problem.alpha[which]
    return result

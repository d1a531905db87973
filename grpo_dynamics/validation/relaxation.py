"""A fitted line beside the prediction: how much of the predicted step the trained network takes.

L_n = (1−κ)·L_(n−1) + κ·step(L_(n−1)), one κ for all questions and iterations of an arm, by least squares in p. It is a
description of the run with one number taken from it, and no prediction; κ = 1 is the recursion itself.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from grpo_dynamics.arrays import Array
from grpo_dynamics.logodds import sigmoid
from grpo_dynamics.validation.measured import Grid
from grpo_dynamics.validation.predictions import after
from grpo_dynamics.validation.theory_of_run import Theory

LARGEST = {True: 3.0, False: 1.0}
"""κ is looked for between 0 and this: for theories with orbits, and for flows, whose whole steps are not small."""


@dataclasses.dataclass(frozen=True, eq=False)
class Relaxation:
    """What was fitted.

    Attributes:
        kappa: the share of the step; NaN where nothing could be fitted.
        log_odds: from the measurement before, shape (iterations, questions).
        orbit: from p_ref on, same shape.
        r2: share of the variance of the steps p_n − p_(n−1) that the line explains.
    """

    kappa: float
    log_odds: Array
    orbit: Array
    r2: float

    @property
    def p(self) -> Array:
        """Success probabilities from the measurement before."""
        return sigmoid(self.log_odds)


def fit(theory: Theory, grid: Grid) -> Relaxation:
    """Return the relaxation that fits the measurements best, from each to the next.

    Args:
        theory: whose step is taken in part; of a flow it is the whole natural-gradient step.
        grid: the measurements.
    """
    start, arrived = grid.starts[:-1], grid.p[1:]
    whole = _step(theory, grid, start)
    usable = np.isfinite(start) & np.isfinite(arrived) & np.isfinite(whole)
    empty = np.full(grid.p.shape, np.nan)
    if not usable.any():
        return Relaxation(np.nan, empty, empty, np.nan)
    single = bool((np.diff(grid.iterations) == 1).all())

    def ahead(kappa: float) -> Array:
        if single:
            return _part(start, whole, kappa)
        return after(grid.iterations, start, lambda state: _part(state, _step(theory, grid, state), kappa))

    def misfit(kappa: float) -> float:
        return float(np.sum((sigmoid(ahead(kappa)[usable]) - arrived[usable]) ** 2))

    most = LARGEST[theory.has_orbits]
    coarse = np.concatenate([np.geomspace(1e-4, 0.1, 25), np.linspace(0.12, most, round(25 * most))])
    best = int(np.argmin([misfit(kappa) for kappa in coarse]))
    from scipy.optimize import minimize_scalar  # a third of a second to import

    ends = (float(coarse[max(best - 1, 0)]), float(coarse[min(best + 1, len(coarse) - 1)]))
    found = minimize_scalar(misfit, bounds=ends, method="bounded", options={"xatol": 1e-6})
    kappa = float(found.x)  # pyright: ignore
    moved = (arrived - grid.p[:-1])[usable]
    r2 = 1 - misfit(kappa) / float(np.sum(moved**2)) if np.any(moved) else np.nan
    log_odds = np.concatenate([empty[:1], ahead(kappa)])
    return Relaxation(kappa, np.where(np.isfinite(log_odds), log_odds, np.nan), _orbit(theory, grid, kappa), r2)


def _step(theory: Theory, grid: Grid, state: Array) -> Array:
    with np.errstate(all="ignore"):
        return theory.step(grid.p[0], state)


def _part(state: Array, whole: Array, kappa: float) -> Array:
    with np.errstate(all="ignore"):
        return state + kappa * (whole - state)


def _orbit(theory: Theory, grid: Grid, kappa: float) -> Array:
    rows = [np.where(np.isfinite(grid.log_odds[0]), grid.log_odds[0], np.nan)]
    for count in np.diff(grid.iterations):
        state = rows[-1]
        for _ in range(int(count)):
            state = _part(state, _step(theory, grid, state), kappa)
        rows.append(state)
    return np.stack(rows)

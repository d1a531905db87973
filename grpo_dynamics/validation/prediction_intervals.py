"""What a measurement may come to before the run is made: the prediction, and an interval for chance around it.

Copies of each question go through the run's own iterations, each with chances of its own, and 95 % of them lie in the
interval. Four things are left to chance, none of them fitted:

- p_ref, where it was counted: k of n answers say Beta(k+½, n−k+½), whose middle 95 % are nearly Wilson's interval.
- The groups, where they are sampled: every step draws as many as the run does, of a policy with one right and one wrong
  answer, and minimises what they say. A policy with more wrong answers spreads more.
- Where the inner loop stops: at KL(π‖π*) <= t from the best policy π*, t being its tolerance. Every divergence up to t
  and both sides, p too low and too high, are equally probable, in each step anew.
- The count, where p_n is counted: of as many answers as the run asks for.

What one network for all questions does beside is not in it: the share of measurements inside says how much that is.
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np

from grpo_dynamics.arrays import Array
from grpo_dynamics.logodds import complement, logit, sigmoid
from grpo_dynamics.simulation.outcomes import Outcomes
from grpo_dynamics.simulation.sampled import sampled_batch
from grpo_dynamics.theory.batch import BatchStd
from grpo_dynamics.update_rule import Training
from grpo_dynamics.validation.measured import Grid
from grpo_dynamics.validation.theory_of_run import Theory

LEVEL = 0.95
"""Share of the copies inside."""

COPIES, FEWEST = 1000, 200
"""So many copies of each question; fewer where they would draw more than ``DRAWS`` groups, down to the second."""

DRAWS, BLOCK = 5e6, 2e6
"""So many groups are drawn at most, unless there are many questions, and are in memory at once."""

FARTHEST = 1000.0
"""Log-odds are followed up to ± this."""

STOPS = 20
"""So many different divergences at which an inner loop stops."""

UNHELD = 3.0
"""Where a tolerance allows p = 0, or 1, the inner loop is taken to stop within so many log-odds on that side."""

ROUNDING = 1e-6
"""Single precision gives log-probabilities to about this: a difference in p that is smaller says nothing."""


@dataclasses.dataclass(frozen=True, eq=False)
class Interval:
    """Where a measurement should lie, of shape (iterations, questions); NaN before training and without prediction.

    Attributes:
        low, high: success probabilities.
    """

    low: Array
    high: Array

    def inside(self, p: Array) -> Array:
        """Return 1 where a measured success probability is inside, 0 where not, NaN where there is nothing to say.

        >>> import numpy as np
        >>> Interval(np.array([[0.1, np.nan]]), np.array([[0.2, np.nan]])).inside(np.array([[0.15, 0.3]]))
        array([[ 1., nan]])
        """
        known = np.isfinite(self.low) & np.isfinite(p)
        return np.where(known, (p >= self.low - ROUNDING) & (p <= self.high + ROUNDING), np.nan)


def prediction_interval(
    training: Training, theory: Theory, grid: Grid, tolerance: float = 0.0, seed: int = 0, copies: int | None = None
) -> Interval:
    """Return where each measurement after the first should lie.

    Args:
        training: how the run is trained.
        theory: of the run; one without orbits, or of a batch with one standard deviation, has no interval.
        grid: the measurements, of which only p_ref, the iterations, and the numbers of samples are used.
        tolerance: of the inner loop, largest KL(π‖π*) in nats, >= 0.
        seed: of the copies' chances.
        copies: of each question; by default as :data:`COPIES` says.
    """
    empty = np.full(grid.p.shape, np.nan)
    if not theory.has_orbits or isinstance(theory.normalization, BatchStd):
        return Interval(empty, empty)
    groups = training.groups if training.update == "sampled" else 1
    cells = grid.p.shape[1] * groups
    if copies is None:
        copies = int(np.clip(DRAWS // (cells * max(int(grid.iterations[-1]), 1)), FEWEST, COPIES))
    block = max(1, int(BLOCK // cells))
    seeds = np.random.SeedSequence(seed).spawn(-(-copies // block))
    sizes = [min(block, copies - i * block) for i in range(len(seeds))]
    paths = np.concatenate(
        [
            _paths(np.random.default_rng(child), training, theory, grid, tolerance, size)
            for child, size in zip(seeds, sizes, strict=True)
        ],
        axis=1,
    )
    # whole copies, so that the level is kept also where counts come in few values
    low = np.quantile(paths, (1 - LEVEL) / 2, axis=1, method="lower")
    high = np.quantile(paths, (1 + LEVEL) / 2, axis=1, method="higher")
    return Interval(np.concatenate([empty[:1], low]), np.concatenate([empty[:1], high]))


def _paths(rng: Any, training: Training, theory: Theory, grid: Grid, tolerance: float, copies: int) -> Array:
    """Measured success probabilities of copies, shape (iterations − 1, copies, questions)."""
    reference = references(rng, grid, copies)
    reach = Reach.of(tolerance)
    p_ref, state = sigmoid(reference), reference
    rows: list[Array] = []
    for before, now in itertools.pairwise(grid.iterations.astype(int)):
        for _ in range(now - before):
            best = _minimised(rng, training, theory, p_ref, reference, state)
            state = reach.left(rng, best)
        rows.append(_counted(rng, sigmoid(state), grid, int(np.searchsorted(grid.iterations, now))))
    return np.stack(rows) if rows else np.empty((0, copies, grid.p.shape[1]))


def references(rng: Any, grid: Grid, copies: int) -> Array:
    """Return log-odds of p_ref as they may be, given what was measured before training, shape (copies, questions).

    Args:
        rng: NumPy's generator.
        grid: the measurements; NaN stays for a p_ref that is 0 or 1 to rounding.
        copies: how many.
    """
    p, low, high, samples = grid.p[0], grid.low[0], grid.high[0], grid.samples[0]
    shape = (copies, len(p))
    counted = (samples > 0) & (high > low)
    n, k = np.where(counted, samples, 1.0), np.where(counted, p * samples, 0.0)
    known = np.where(np.isfinite(grid.log_odds[0]), grid.log_odds[0], np.nan)
    drawn = logit(np.clip(rng.beta(k + 0.5, n - k + 0.5, size=shape), 1e-12, 1 - 1e-12))
    # an interval without a count: a normal distribution of the log-odds with these 95 %
    ends = logit(np.clip(np.where(high > low, [low, high], 0.5), 1e-12, 1 - 1e-12))
    spread = ends.mean(axis=0) + rng.standard_normal(shape) * (ends[1] - ends[0]) / 3.92
    return np.where(counted, drawn, np.where(high > low, spread, known))


def _minimised(rng: Any, training: Training, theory: Theory, p_ref: Array, reference: Array, state: Array) -> Array:
    """Log-odds of the best policy for one step: of its expectation, or of groups that are drawn."""
    if training.update != "sampled" or training.advantage == "critic":
        return theory.step(p_ref, state)
    usable = np.isfinite(state) & np.isfinite(reference)
    here, anchor = (np.clip(np.where(usable, x, 0.0), -40, 40).ravel() for x in (state, reference))
    policy, held = (np.stack([-np.logaddexp(0, -x), -np.logaddexp(0, x)], axis=1) for x in (here, anchor))
    outcomes = Outcomes(held, np.tile([True, False], (len(here), 1)))
    batch, _ = sampled_batch(rng, policy, held, np.zeros(len(here)), outcomes, training)
    weight = (batch.push + batch.pull) / np.exp(policy)
    gap = (weight[:, 0] - weight[:, 1]).reshape(state.shape)
    best = theory.alpha * reference + (1 - theory.alpha) * state + gap / theory.beta
    return np.where(usable, best, np.nan)


@dataclasses.dataclass(frozen=True, eq=False)
class Reach:
    """How far an inner loop that stops early is from the best log-odds, for divergences up to its tolerance.

    Attributes:
        log_odds: of the best policy, ascending, shape (states,).
        up: distances, shape (stops, states): one row for each of some divergences between 0 and the tolerance. What is
            up for p is down for 1 − p.
    """

    log_odds: Array
    up: Array

    @classmethod
    def of(cls, divergence: float) -> Reach:
        """Return the distances d at which KL(p(L+d)‖p(L)) is a share of the largest, in nats.

        >>> reach = Reach.of(0.02)  # at p = ½ the largest is nearly 2·√(2·0.02)
        >>> round(float(np.interp(0.0, reach.log_odds, reach.up[-1])), 1)
        0.4
        """
        tail = np.geomspace(40, FARTHEST, 101)[1:]
        grid = np.concatenate([-tail[::-1], np.linspace(-40, 40, 801), tail])
        stops = (np.arange(STOPS if divergence > 0 else 0) + 0.5) / STOPS * divergence
        return cls(grid, _distance(np.tile(grid, (len(stops), 1)), stops[:, None]))

    def left(self, rng: Any, best: Array) -> Array:
        """Return log-odds where an inner loop may stop: all divergences and both sides are equally probable."""
        if not len(self.up):
            return best
        row, side = rng.integers(len(self.up), size=best.shape), rng.choice([-1.0, 1.0], size=best.shape)
        distance = np.empty_like(best)
        for i, up in enumerate(self.up):
            distance[row == i] = np.interp((side * best)[row == i], self.log_odds, up)
        return best + side * distance


def _distance(log_odds: Array, divergence: Array) -> Array:
    """By bisection: KL(p(L+d)‖p(L)) grows with d, to log 1/p(L) at most; beyond that nothing holds the policy back."""
    low, high = np.zeros_like(log_odds), np.full_like(log_odds, 2 * FARTHEST)
    for _ in range(60):
        middle = (low + high) / 2
        below = _divergence(log_odds, middle) < divergence
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return np.where(divergence < np.logaddexp(0, -log_odds), low, np.minimum(low, UNHELD))


def _divergence(log_odds: Array, d: Array) -> Array:
    """KL(p(L+d)‖p(L)), without a difference of large numbers on either side."""
    there = log_odds + d
    small = sigmoid(there) * d - np.logaddexp(0, there) + np.logaddexp(0, log_odds)
    large = -complement(there) * d - np.logaddexp(0, -there) + np.logaddexp(0, -log_odds)
    return np.where(log_odds < 0, small, large)


def _counted(rng: Any, p: Array, grid: Grid, row: int) -> Array:
    """What is measured of p: itself, or a count of as many answers as were asked for."""
    samples = grid.samples[row]
    counted = (samples > 0) & (grid.high[row] > grid.low[row])
    n = np.where(counted, samples, 1.0).astype(np.int64)
    usable = np.where(np.isfinite(p), p, 0.5)
    return np.where(np.isfinite(p), np.where(counted, rng.binomial(n, usable) / n, p), np.nan)

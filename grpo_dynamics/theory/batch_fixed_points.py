"""Every fixed point of a population that shares one standard deviation, and its folds.

A population is at a fixed point where β = Ω(Δ)/Δ. That curve does not contain β: its extrema, the folds, are searched
once for the population, and between two of them there is at most one fixed point for each β.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from grpo_dynamics.arrays import Array, as_arrays, to_numpy
from grpo_dynamics.logodds import complement, logit, sigmoid
from grpo_dynamics.theory.batch import BatchRecursion, k3_shares
from grpo_dynamics.theory.fixed_points import Status

CHUNK = 1 << 16
"""Questions times shifts that are worked on at once."""


@dataclasses.dataclass(frozen=True)
class BatchFixedPoints:
    """Fixed points of a population in ascending order along the first axis, NaN-padded.

    Attributes:
        shift: Δ = Ω/β, shape (slots, *beta.shape); there is one slot more than the population has folds.
        mean_p: success probability averaged over the population, same shape.
        multiplier: of the shift from one step of the recursion to the next; all other directions are forgotten at once.
        stable: |multiplier| < 1: the recursion returns after a small push.
        attracts: multiplier < 1: small natural-gradient steps do.
        count: number of fixed points, shape beta.shape.
        status: a :class:`Status` as int8, shape beta.shape.
        dynamics: what was solved.
    """

    shift: Array
    mean_p: Array
    multiplier: Array
    stable: Array
    attracts: Array
    count: Array
    status: Array
    dynamics: BatchRecursion

    @property
    def log_odds(self) -> Array:
        """Log-odds of every question at every fixed point, shape (slots, *beta.shape, questions)."""
        return self.dynamics.shifted(self.shift)

    @property
    def p(self) -> Array:
        """Success probabilities, shape (slots, *beta.shape, questions)."""
        return sigmoid(self.log_odds)


def batch_fixed_points(dynamics: BatchRecursion) -> BatchFixedPoints:
    """Return every fixed point of a population, for every β.

    Complete except where the status is DEGENERATE: on a fold to working precision. ABOVE_FOLD says that there is none:
    with ε = 0 and a small β all questions go to p = 1. With k3 there is always exactly one (notebook 10_batch_std).
    Costs some hundred passes over the population, in pieces: memory does not grow with it.

    Args:
        dynamics: a :class:`BatchRecursion`.

    Source: derived in docs/notebooks/10_batch_std.

    >>> found = batch_fixed_points(BatchRecursion(beta=[0.5, 1.0], p_ref=[0.05, 0.2, 0.4]))
    >>> print(found.count, found.mean_p[:, 1].round(4))
    [1 3] [0.5934 0.9637 1.    ]
    """
    population = _Population(dynamics)
    beta = to_numpy(as_arrays(dynamics.beta)[1]).astype(float)
    knots, doubtful = _folds(population)
    with np.errstate(all="ignore"):
        shift, status = _solve(population, np.log(beta.reshape(-1)), knots, doubtful)
        flat = np.where(np.isnan(shift), 1.0, shift).reshape(-1)
        here = population.at(flat)
        multiplier = np.where(np.isnan(shift), np.nan, (flat * here.rate).reshape(shift.shape))
        mean_p = np.where(np.isnan(shift), np.nan, here.p.reshape(shift.shape))
    slots = (len(knots) + 1, *beta.shape)
    xp, place, *_ = as_arrays(0.0, dynamics.p_ref)

    def result(array: Any, shape: tuple[int, ...] = slots) -> Array:
        return xp.asarray(array.reshape(shape), device=place.device)[()]

    return BatchFixedPoints(
        shift=result(shift),
        mean_p=result(mean_p),
        multiplier=result(multiplier),
        stable=result(np.abs(multiplier) < 1),
        attracts=result(multiplier < 1),
        count=result(np.sum(~np.isnan(shift), axis=0).astype(np.int8), beta.shape),
        status=result(status.astype(np.int8), beta.shape),
        dynamics=dynamics,
    )


def batch_folds(dynamics: BatchRecursion) -> tuple[Array, Array]:
    """Return the β of every fold of a population and its shift, in ascending order of the shift; β is not used.

    At a fold two fixed points meet. Between two neighbours of these β the number of fixed points is constant.

    >>> beta, shift = batch_folds(BatchRecursion(beta=1.0, p_ref=[0.05, 0.2, 0.4]))
    >>> print(beta.round(4), shift.round(4))
    [  0.7571 362.1316] [ 3.5097 25.4436]
    """
    population = _Population(dynamics)
    shift = _folds(population)[0]
    with np.errstate(all="ignore"):
        return np.exp(-population.at(shift).excess), shift


@dataclasses.dataclass(frozen=True)
class _At:
    """A population at some shifts: p and 1−p averaged, log(Δ/Ω), d log Ω/dΔ, and what the search for folds needs."""

    p: Any
    q: Any
    excess: Any
    rate: Any
    log_variance: Any
    tilt: Any
    bend: Any


class _Population:
    """Sums over the questions at given shifts, as NumPy arrays; the sums run where the questions are."""

    def __init__(self, dynamics: BatchRecursion) -> None:
        if not isinstance(dynamics, BatchRecursion):
            raise ValueError(f"dynamics must be a BatchRecursion, got {dynamics!r}")
        self.normalization, self.divergence = dynamics.normalization, dynamics.divergence
        given = 1.0 if dynamics.weights is None else dynamics.weights
        self.xp, p_ref, weights = as_arrays(dynamics.p_ref, given)
        weights = weights + self.xp.zeros_like(p_ref)
        kept = weights > 0
        self.p_ref, self.weights = p_ref[kept], weights[kept] / self.xp.sum(weights)
        anchor = logit(self.p_ref)
        self.odds, self.q_ref = self.xp.exp(-anchor), complement(anchor)
        self.lowest = float(self.xp.min(anchor))
        self.mean_odds = float(self.xp.sum(self.weights * self.odds))

    def at(self, shift: Any) -> _At:
        """Averages at shifts of shape (k,)."""
        p, q, both, response, skew, spread = self._sums(np.asarray(shift, float))
        eps, centring = self.normalization.eps, self.normalization.centring
        if self.normalization.statistic == "rewards":
            variance = p * q
            tilt = response / q - response / p  # −d log V/dΔ
            bend = skew / q - skew / p + (both / q) ** 2 + (both / p) ** 2  # d tilt/dΔ, for the exact KL
        else:
            variance = centring * both
            tilt = -skew / both
            bend = 0.5 - 1.5 * spread / both + (skew / both) ** 2
        inside = self.normalization.eps_placement == "variance"
        own = variance if inside else np.sqrt(variance)
        total = own + eps
        gap = centring / (np.sqrt(total) if inside else total)
        rate = np.where(own > 0, 0.5 * tilt * own / total, 0.0)
        return _At(p, q, np.log(shift) - np.log(gap), rate, np.log(variance), tilt, bend)

    def _sums(self, shift: Any) -> Any:
        """E of p, q, pq, pq·r, pq(q−p)·r, pq(q−p)²·r where r = dL/dΔ, shape (6, k)."""
        xp = self.xp
        at = xp.asarray(shift, dtype=self.p_ref.dtype, device=self.p_ref.device)[:, None]
        total: Any = np.zeros((6, shift.size))
        step = max(1, CHUNK // max(shift.size, 1))
        for start in range(0, self.p_ref.shape[0], step):
            part = slice(start, start + step)
            if self.divergence == "reverse":
                ratio = self.odds[part] * xp.exp(-at)
                p = 1 / (1 + ratio)
                q, response = ratio * p, 1.0
            else:
                p, q, root = k3_shares(xp, at, self.p_ref[part], self.q_ref[part])
                response = 1 / root
            both = p * q
            moved, difference = both * response, q - p
            skew = moved * difference
            weights = self.weights[part]
            sums = [value @ weights for value in (p, q, both, moved, skew, skew * difference)]
            total = total + to_numpy(xp.stack(sums))
        return total


def _folds(population: _Population) -> tuple[Any, Any]:
    """Return the shifts where Δ·d log Ω/dΔ = 1, ascending, and those where that cannot be told from a near miss.

    With e = Δ·t·s/2 − 1, t = −d log V/dΔ and s the share of the deviation that is not ε: an interval has no fold where
    its enclosure of e does not contain 0, and at most one where that of e' does not. All others are halved. The bounds
    |t| ≤ 1 and |t''| ≤ 0.8 or 1.8 and the range of Δ are derived in notebook 10_batch_std. k3 has no folds.
    """
    none: Any = np.empty(0)
    if population.divergence == "forward":
        return none, none
    bound = 0.8 if population.normalization.statistic == "rewards" else 1.8
    edges = np.linspace(2.0, _last(population), 65)
    low, high = edges[:-1], edges[1:]
    monotone: list[tuple[Any, Any]] = []
    near = none
    with np.errstate(all="ignore"):
        while low.size:
            possible, turns = _enclose(population, low, high, bound)
            narrow = high - low < 1e-7
            settled = possible & (~turns | narrow)
            monotone.append((low[settled], high[settled]))
            near = np.concatenate([near, low[possible & turns & narrow]])
            split = possible & turns & ~narrow
            middle = (low + high)[split] / 2
            low, high = np.concatenate([low[split], middle]), np.concatenate([middle, high[split]])
        low, high = (np.concatenate(ends) for ends in zip(*monotone, strict=True))
        before = _elasticity(population, low) > 1
        crosses = before != (_elasticity(population, high) > 1)
        low, high, before = low[crosses], high[crosses], before[crosses]
        for _ in range(52):
            middle = (low + high) / 2
            left = (_elasticity(population, middle) > 1) == before
            low, high = np.where(left, middle, low), np.where(left, high, middle)
    return np.sort(low), near


def _elasticity(population: _Population, shift: Any) -> Any:
    return shift * population.at(shift).rate


def _last(population: _Population) -> float:
    """A shift beyond which Δ·d log Ω/dΔ stays on one side of 1."""
    eps = population.normalization.eps
    if eps == 0:
        return max(4.1, float(np.log(3)) - population.lowest + 0.1)
    power = 1.0 if population.normalization.eps_placement == "variance" else 0.5
    end = 3.0
    while 0.5 * end * (population.mean_odds * np.exp(-end)) ** power >= eps:
        end += 1.0
    return end


def _enclose(population: _Population, low: Any, high: Any, bound: float) -> tuple[Any, Any]:
    """Whether Δ·t·s/2 can be 1 in each interval, and whether its derivative can be 0."""
    middle, half = (low + high) / 2, (high - low) / 2 * (1 + 1e-12) + 1e-15
    here = population.at(middle)
    reach = np.abs(here.bend) * half + bound * half**2 / 2 + 1e-12
    t = np.maximum(here.tilt - reach, -1), np.minimum(here.tilt + reach, 1)
    bend = here.bend - bound * half - 1e-12, here.bend + bound * half + 1e-12
    inside = population.normalization.eps_placement == "variance"
    power = 1.0 if inside else 0.5
    small, large = (np.exp(power * (here.log_variance + sign * half)) for sign in (-1, 1))
    eps = population.normalization.eps
    share = small / (small + eps), (large / (large + eps) if eps > 0 else 1.0 + 0.0 * large)
    share = np.where(small > 0, share[0], 0.0), share[1]
    elasticity = _times(_times((low / 2, high / 2), t), share)
    square = np.where(t[0] * t[1] > 0, np.minimum(t[0] ** 2, t[1] ** 2), 0.0), np.maximum(t[0] ** 2, t[1] ** 2)
    loss = _times((power * (1 - share[1]), power * (1 - share[0])), square)
    turn = _times((low, high), (bend[0] - loss[1], bend[1] - loss[0]))
    slope = t[0] + turn[0], t[1] + turn[1]
    return (elasticity[0] <= 1) & (elasticity[1] >= 1), (slope[0] <= 0) & (slope[1] >= 0)


def _times(a: tuple[Any, Any], b: tuple[Any, Any]) -> tuple[Any, Any]:
    """The product of two intervals."""
    corners = a[0] * b[0], a[0] * b[1], a[1] * b[0], a[1] * b[1]
    return np.minimum.reduce(corners), np.maximum.reduce(corners)


def _solve(population: _Population, log_beta: Any, knots: Any, doubtful: Any) -> tuple[Any, Any]:
    """The shifts where log β + log(Δ/Ω) = 0, one slot per interval between the knots, and a status per β."""
    eps, centring = population.normalization.eps, population.normalization.centring
    least = centring / (0.5 + eps if population.normalization.eps_placement == "std" else np.sqrt(0.25 + eps))
    level = population.at(knots).excess[:, None] + log_beta  # at folds; the sign says on which side of β a fold is
    close = 1e-13 * (8 + np.abs(population.at(knots).excess[:, None]) + np.abs(log_beta))
    minimum = (np.arange(knots.size) % 2 == 1)[:, None]
    double = np.abs(level) <= close
    positive = np.where(double, minimum, level > 0)
    rises_last = knots.size % 2 == 0
    ends = np.full((1, log_beta.size), False), np.full((1, log_beta.size), rises_last)
    signs = np.concatenate([ends[0], positive, ends[1]])
    slot, column = np.nonzero(signs[1:] != signs[:-1])

    low = np.log(0.5 * least) - log_beta[column]
    low = np.where(slot > 0, np.log(np.append(1.0, knots))[slot], low)
    high = np.where(slot < knots.size, np.log(np.append(knots, 1.0))[np.minimum(slot, knots.size)], low + 1)
    rising = slot % 2 == 0
    open_end = slot == knots.size
    while True:  # log(Δ/Ω) grows without bound, or falls without bound where ε = 0 and there is one fold too few
        there = population.at(np.exp(high)).excess + log_beta[column]
        short = open_end & np.where(rising, there <= 0, there > 0)  # False for NaN, where Δ is no number
        if not short.any():
            break
        high = np.where(short, high + (high - low), high)
    root = (low + high) / 2
    settled, previous = np.full(root.shape, False), np.full(root.shape, np.inf)
    for _ in range(200):
        here = population.at(np.exp(root))
        value = here.excess + log_beta[column]
        left = (value > 0) != rising
        low, high = np.where(left, root, low), np.where(left, high, root)
        new = root - value / (1 - np.exp(root) * here.rate)
        settled = (np.abs(new - root) <= 4e-16 * (1 + np.abs(root))) | (high - low <= 4e-16 * (1 + np.abs(high)))
        good = (new > low) & (new < high) & (np.abs(value) < 0.5 * previous)  # else Newton's method may go in circles
        # next to a fold the step is noise over a small slope: a settled root stays in its bracket
        new = np.where(settled, np.clip(new, low, high), np.where(good, new, (low + high) / 2))
        previous = np.abs(value)
        root = new
        if settled.all():
            break
    shift = np.full((knots.size + 1, log_beta.size), np.nan)
    shift[slot, column] = np.exp(root)
    at, which = np.nonzero(double)
    shift[at, which] = knots[at]
    merged = double.any(axis=0)
    if doubtful.size:
        merged |= (np.abs(population.at(doubtful).excess[:, None] + log_beta) < 1e-9).any(axis=0)
    status = np.where(merged, int(Status.DEGENERATE), int(Status.OK))
    status = np.where(np.isnan(shift).all(axis=0), int(Status.ABOVE_FOLD), status)
    status[column[~settled]] = int(Status.NOT_CONVERGED)
    return np.sort(shift, axis=0), status

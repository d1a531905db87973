"""The normalisation that trainers compute: mean and standard deviation over a group of G sampled completions."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from typing import Any, Literal

from grpo_dynamics.arrays import Array, as_arrays, batch_shape, option, quiet, require, require_choice
from grpo_dynamics.normalization import PLACEMENTS, EpsPlacement, Normalization, require_group_size


@dataclasses.dataclass(frozen=True)
class FiniteGroup(Normalization):
    """Mean and standard deviation over a group of G sampled completions, as every trainer computes them.

    Seen from one sample the other successes are Bin(G−1, p), so the gap is the polynomial of degree G−1 in p
    Ω_G(p) = Σ_s C(G−1,s) p^s (1−p)^(G−1−s) (a_{s+1} + b_s),  a_k = (1−k/G)/s_k,  b_k = (k/G)/s_k,
    with s_k the standard deviation of a group with k successes. At ε = 0, ddof = 0 it runs from Ω_G(0) = √(G−1) down
    to p = ½ and back: it smooths like an ε between 1/(4G) and 1/(G−1).
    Costs O(G) per element.

    Args:
        group_size: G ≥ 2, integer, any shape.
        eps: smoothing ≥ 0, any shape.
        eps_placement: "std" adds ε to the standard deviation (all trainers); "variance" puts it inside the root.
        ddof: 0 divides the sum of squares by G, 1 by G−1 (torch.std's default).
        silent_groups: groups that are all right or all wrong give no advantage. "keep" counts them as 0;
            "drop" leaves them out of the average (dynamic sampling), dividing Ω by 1 − p^G − (1−p)^G.

    Raises:
        ValueError: for G < 2 or not an integer, ε < 0, ddof not 0 or 1, an unknown placement or silent_groups.

    Source: derived in docs/notebooks/7_finite_groups; cf. [2510.13651], [2607.00152].

    >>> print(round(float(FiniteGroup(8).gap(0.0)), 5))
    1.85566
    """

    group_size: Any
    eps: Any = 0.0
    eps_placement: EpsPlacement = "std"
    ddof: int = 0
    silent_groups: Literal["keep", "drop"] = "keep"

    def __post_init__(self) -> None:
        object.__setattr__(self, "group_size", option(self.group_size))
        object.__setattr__(self, "eps", option(self.eps))
        require_group_size(self.group_size)
        require("eps", self.eps, "a finite number >= 0", lambda x: (x >= 0) & (x < float("inf")))
        require_choice("eps_placement", self.eps_placement, PLACEMENTS)
        require_choice("ddof", self.ddof, (0, 1))
        require_choice("silent_groups", self.silent_groups, ("keep", "drop"))
        batch_shape(self)

    def gap(self, log_odds: Array) -> Array:
        return self._evaluate(log_odds, rate=False)[0]

    def gap_and_rate(self, log_odds: Array) -> tuple[Array, Array]:
        return self._evaluate(log_odds, rate=True)

    @quiet
    def _evaluate(self, log_odds: Array, rate: bool) -> tuple[Array, Array]:
        xp, log_odds, size, eps = as_arrays(log_odds, self.group_size, self.eps)
        odds = xp.exp(-xp.abs(log_odds)) + 0.0 * eps  # of the rarer result; Ω is even in L
        gaps = _cached(_sample_gaps, self)
        gap = _bernstein(xp, odds, size - 1, gaps)
        rising = 0.0 * gap  # d log Ω/d|L|
        if rate and len(gaps) > 2:
            steps = [b - a for a, b in itertools.pairwise(gaps)]
            rising = (1 - size) * _bernstein(xp, odds, size - 2, steps) * odds / (1 + odds) ** 2 / gap
        if self.silent_groups == "drop":
            finite = odds > 0
            safe = xp.where(finite, odds, 1.0)
            all_wrong = xp.exp(-size * xp.log1p(safe))  # (1−p)^G, and p^G
            all_right = all_wrong * safe**size
            mixed = -xp.expm1(-size * xp.log1p(safe)) - all_right
            loss = size * (safe * all_wrong - all_right) / (1 + safe)  # −d mixed/d|L|
            gap = xp.where(finite, gap / mixed, xp.inf)
            rising = rising + xp.where(finite, loss / mixed, 1.0)
        return gap[()], (xp.sign(log_odds) * rising)[()]

    def turns(self) -> tuple[Array, ...]:
        """One turn for "keep"; two for "drop", infinite where its slope only rises. Found numerically."""
        return _cached(_group_turns, self)


def _bernstein(xp: Any, odds: Array, degree: Array, coefficients: list[Array]) -> Array:
    """Σ_k C(n,k) p^k (1−p)^(n−k) c_k by the linear-time convex scheme of Woźny and Chudy; odds = p/(1−p) ≤ 1."""
    weight = 1.0 + 0.0 * odds * degree
    value = coefficients[0] * weight
    for k, coefficient in enumerate(coefficients[1:], start=1):
        step = weight * odds * xp.maximum(degree - (k - 1), 0.0 * degree)
        weight = step / (k + step)
        value = value + weight * (coefficient - value)
    return value


def _cached(function: Any, group: FiniteGroup) -> Any:
    """Call a function of a finite group, remembering the answer where its options are plain numbers."""
    numbers = isinstance(group.group_size, int | float) and isinstance(group.eps, int | float)
    return _remember(function, group) if numbers else function(group)


@functools.lru_cache(maxsize=1024)
def _remember(function: Any, group: FiniteGroup) -> Any:
    return function(group)


def _sample_gaps(group: FiniteGroup) -> list[Array]:
    """a_{s+1} + b_s for s = 0 … G−1: the gap that one sample sees when s of the others succeed; 0 beyond s = G−1."""
    xp, size, eps = as_arrays(group.group_size, group.eps)

    def inverse_std(k: int) -> Array:
        mixed = (size > k) & (k > 0)
        variance = xp.where(mixed, k / size * (1 - k / size) * size / (size - group.ddof), 1.0)
        std = xp.sqrt(variance + eps) if group.eps_placement == "variance" else xp.sqrt(variance) + eps
        return xp.where(mixed, 1 / std, 0.0)

    scale = [inverse_std(k) for k in range(int(xp.max(size)) + 1)]
    gaps = [(1 - (s + 1) / size) * scale[s + 1] + s / size * scale[s] for s in range(len(scale) - 1)]
    return [float(g) for g in gaps] if gaps[0].ndim == 0 else gaps


def _group_turns(group: FiniteGroup) -> tuple[Array, ...]:
    xp, size, eps = as_arrays(group.group_size, group.eps)
    zero = 0.0 * size * eps
    end = 4 * xp.log(size) + 12 + zero
    if group.silent_groups == "keep":
        return (_extremum(group, zero, end, +1.0)[()],)
    grid = xp.reshape(xp.arange(257, dtype=zero.dtype, device=zero.device) / 256, (-1, *(1 for _ in zero.shape)))
    slopes = group.gap_slope(end * grid)
    bends = slopes[1:, ...] - slopes[:-1, ...]
    dip = end * ((xp.argmin(bends, axis=0) + 0.5) / 256)
    first, second = _extremum(group, zero, dip, +1.0), _extremum(group, dip, end, -1.0)
    falls = xp.min(bends, axis=0) < 0
    return xp.where(falls, first, xp.inf)[()], xp.where(falls, second, xp.inf)[()]


def _extremum(group: FiniteGroup, low: Array, high: Array, sign: float) -> Array:
    """The place of the largest (sign +1) or smallest slope on a bracket where it is unimodal, by ever finer grids."""
    xp, low, high = as_arrays(low, high)
    parts, rounds = (256, 5) if low.ndim == 0 else (16, 12)
    grid = xp.reshape(xp.arange(parts + 1, dtype=low.dtype, device=low.device), (-1, *(1 for _ in low.shape)))
    for _ in range(rounds):
        width = (high - low) / parts
        best = xp.astype(xp.argmax(sign * group.gap_slope(low + width * grid), axis=0), low.dtype)
        left, right = xp.where(best > 0, best - 1, best), xp.where(best < parts, best + 1, best)
        low, high = low + width * left, low + width * right
    return (low + high) / 2

"""How rewards become advantages: the gap between the advantage of a success and that of a failure.

With success probability p, a reward normalisation gives a success the expected advantage +w⁺(p) and a failure −w⁻(p).
Advantages are centred, p·w⁺ = (1−p)·w⁻, so one function says it all, the advantage gap Ω = w⁺ + w⁻:
w⁺ = (1−p)·Ω and w⁻ = p·Ω. Everything here is a function of the log-odds L.

A new normalisation is one class in this file: its options, ``gap``, ``gap_and_rate`` and ``turns``.
"""

from __future__ import annotations

import abc
import dataclasses
import itertools
import math
from collections.abc import Callable
from typing import Any, Literal

from grpo_dynamics.arrays import Array, as_arrays, option, quiet, require, require_choice
from grpo_dynamics.logodds import complement, sigmoid

EpsPlacement = Literal["variance", "std"]
PLACEMENTS = ("variance", "std")


class Normalization(abc.ABC):
    """A reward normalisation: the advantage gap Ω as a function of the log-odds L, even, not falling for L > 0."""

    @abc.abstractmethod
    def gap(self, log_odds: Array) -> Array:
        """Return Ω(L) = w⁺ + w⁻, same shape as the broadcast of L and the options."""

    @abc.abstractmethod
    def gap_and_rate(self, log_odds: Array) -> tuple[Array, Array]:
        """Return Ω and its logarithmic slope d log Ω/dL together, for the price of one."""

    @abc.abstractmethod
    def turns(self) -> tuple[Array, ...]:
        """Return the log-odds L > 0, ascending, where dΩ/dL turns from rising to falling or back.

        dΩ/dL is 0 at L = 0, odd, and rises up to the first turn. Infinite where a turn does not exist.
        """

    @quiet
    def gap_rate_and_bend(self, log_odds: Array) -> tuple[Array, Array, Array]:
        """Return Ω, d log Ω/dL and d² log Ω/dL². Here the last is a difference quotient, good to half the digits."""
        xp, log_odds = as_arrays(log_odds, beside=self)
        step = float(xp.finfo(log_odds.dtype).eps) ** 0.5 * (1 + xp.abs(log_odds))
        gap, rate = self.gap_and_rate(log_odds)
        return gap, rate, (self.gap_and_rate(log_odds + step)[1] - rate) / step

    @quiet
    def gap_slope(self, log_odds: Array) -> Array:
        """Return dΩ/dL."""
        gap, rate = self.gap_and_rate(log_odds)
        return gap * rate

    def positive(self, log_odds: Array) -> Array:
        """Return w⁺, the expected advantage of a success."""
        return self._weight(log_odds, complement)

    def negative(self, log_odds: Array) -> Array:
        """Return w⁻, minus the expected advantage of a failure."""
        return self._weight(log_odds, sigmoid)

    @quiet
    def _weight(self, log_odds: Array, share: Callable[[Array], Array]) -> Array:
        xp, log_odds = as_arrays(log_odds, beside=self)
        gap = self.gap(log_odds)
        inner = xp.where(xp.abs(log_odds) < 700, log_odds, 700 * xp.sign(log_odds))
        # where Ω overflows, share · Ω is 0 · inf: its value at |L| = 700 is the limit to any precision
        return xp.where(xp.isinf(gap), share(inner) * self.gap(inner), share(log_odds) * gap)[()]

    def steepest(self) -> tuple[Array, Array]:
        """Return where dΩ/dL is largest and that value: above it, β alone makes the map a contraction.

        (inf, inf) where the slope is unbounded.
        """
        peak = self.turns()[0]
        xp, peak = as_arrays(peak)
        slope = self.gap_slope(xp.where(xp.isinf(peak), 0.0, peak))
        return peak[()], xp.where(xp.isinf(peak), xp.inf, slope)[()]

    def folds(self, beta: Array) -> tuple[Array, ...]:
        """Return the log-odds where dΩ/dL = β, one per monotone piece of the slope on L > 0, ascending.

        These are the places where the map with KL strength β can have a multiplier of +1. A piece that β misses gives
        its end: two folds that do not exist come back as one point. Solved by bisection.

        Args:
            beta: KL strength > 0 (α·β with two KL terms), broadcasts with the options.
        """
        xp, beta, *turns = as_arrays(beta, *self.turns())
        beta = beta + 0.0 * sum(xp.where(xp.isinf(turn), 0.0, turn) for turn in turns)
        if len(turns) == 1 and xp.all(beta >= self.steepest()[1]):
            return (turns[0] + 0.0 * beta)[()], (turns[0] + 0.0 * beta)[()]
        limit = log_odds_limit(xp, beta.dtype)
        knots = [0.0 * beta, *(xp.where(turn < limit, turn, limit) + 0.0 * beta for turn in turns), limit + 0.0 * beta]
        pieces = enumerate(itertools.pairwise(knots))
        return tuple(self._crossing(beta, low, high, rising=i % 2 == 0)[()] for i, (low, high) in pieces)

    def _crossing(self, beta: Array, low: Array, high: Array, rising: bool) -> Array:
        """Where the slope crosses β on a monotone piece, by sections: many at once for few elements."""
        xp, beta, low, high = as_arrays(beta, low, high)
        parts, rounds = (256, 8) if math.prod(beta.shape) <= 64 else (2, 64)
        grid = xp.reshape(xp.arange(1, parts, dtype=beta.dtype, device=beta.device), (-1, *(1 for _ in beta.shape)))
        for _ in range(rounds):
            width = (high - low) / parts
            before = (self.gap_slope(low + width * grid) < beta) == rising
            low = low + width * xp.sum(xp.astype(before, beta.dtype), axis=0)
            high = low + width
        return (low + high) / 2


def log_odds_limit(xp: Any, dtype: Any) -> float:
    """Return the log-odds up to which exp(L/2), the gap without smoothing, stays finite in this floating type."""
    return 1.97 * math.log(float(xp.finfo(dtype).max))


@dataclasses.dataclass(frozen=True)
class Whitened(Normalization):
    """Mean and variance normalisation of GRPO with exact statistics, A = (r − p)/√(p(1−p) + ε).

    Args:
        eps: smoothing ε ≥ 0, any shape.
        eps_placement: "variance" puts ε inside the root, as the paper does: Ω = (p(1−p)+ε)^(−1/2);
            "std" adds it to the standard deviation, as trainers do: Ω = 1/(√(p(1−p))+ε).

    Raises:
        ValueError: for ε < 0, not finite, or an unknown placement.

    Source: [2503.06639v4, eq. 5 and Prop. 1]; "std" is read off the trainers' code.

    >>> print(Whitened(eps=0.0).gap(0.0))
    2.0
    """

    eps: Any = 1e-5
    eps_placement: EpsPlacement = "variance"

    def __post_init__(self) -> None:
        object.__setattr__(self, "eps", option(self.eps))
        require("eps", self.eps, "a finite number >= 0", lambda x: (x >= 0) & (x < float("inf")))
        require_choice("eps_placement", self.eps_placement, PLACEMENTS)

    @quiet
    def gap(self, log_odds: Array) -> Array:
        return self._parts(*as_arrays(log_odds, self.eps))[0][()]

    @quiet
    def gap_and_rate(self, log_odds: Array) -> tuple[Array, Array]:
        xp, log_odds, eps = as_arrays(log_odds, self.eps)
        gap, own, total = self._parts(xp, log_odds, eps)
        return gap[()], (xp.tanh(0.5 * log_odds) * (0.5 * (own / total)))[()]

    @quiet
    def gap_rate_and_bend(self, log_odds: Array) -> tuple[Array, Array, Array]:
        """The same; with T = tanh(L/2), dT/dL = 2p(1−p) and d share/dL = −T·share·(1−share), for "std" half of it."""
        xp, log_odds, eps = as_arrays(log_odds, self.eps)
        gap, own, total = self._parts(xp, log_odds, eps)
        tanh, share = xp.tanh(0.5 * log_odds), own / total
        variance, part = (own, 0.5) if self.eps_placement == "variance" else (own * own, 0.25)
        return gap[()], (tanh * (0.5 * share))[()], (share * (variance - part * tanh * tanh * (1 - share)))[()]

    def _parts(self, xp: Any, log_odds: Array, eps: Array) -> tuple[Array, Array, Array]:
        """Ω, what stands beside ε in it, and their sum. With its share of that sum d log Ω/dL = ½ tanh(L/2)·share."""
        size = xp.abs(log_odds)
        if self.eps_placement == "variance":
            t = xp.exp(-size)
            q = 1 + t
            own = t / (q * q)
            total = own + eps
            gap = 1 / xp.sqrt(total)
        else:
            half = xp.exp(-0.5 * size)
            own = half / (1 + half * half)
            total = own + eps
            gap = 1 / total
        smallest = xp.finfo(own.dtype).smallest_normal
        underflow = total < 4 * smallest  # at ε = 0, long before Ω overflows
        if xp.any(underflow):
            bare = underflow & (eps == 0)
            gap, own = xp.where(bare, xp.exp(0.5 * size), gap), xp.where(bare, smallest, own)
            total = own + eps
        return gap, own, total

    @quiet
    def turns(self) -> tuple[Array, ...]:
        """One turn: cosh²(L/2) = 3/2 + 1/(8ε), or for "std" sech(L/2) = 4ε/(1 + √(1+32ε²)); infinite at ε = 0."""
        xp, eps = as_arrays(self.eps)
        if self.eps_placement == "variance":
            return ((2 * xp.asinh(xp.sqrt(0.5 + 1 / (8 * eps))))[()],)
        return ((2 * xp.acosh((1 + xp.sqrt(1 + 32 * eps * eps)) / (4 * eps)))[()],)

    @quiet
    def folds(self, beta: Array) -> tuple[Array, ...]:
        """Closed form: w = 1 + 4ε cosh²(L/2) solves 4εβ²w³ − w + 1 + 4ε = 0 (notebook 6_bifurcations).

        Written with sin(θ/3) where sin θ = β/β_c, nothing cancels, and at ε = 0 the lower root is w = 1.
        """
        if self.eps_placement == "std":
            return super().folds(beta)
        xp, beta, eps = as_arrays(beta, self.eps)
        four = 4 * eps
        cusp = 2 / (3 * (1 + four) * xp.sqrt(3 * four))  # β_c, infinite at ε = 0
        within = xp.minimum(beta, cusp)
        sine = xp.clip(within / cusp, xp.finfo(beta.dtype).smallest_normal, None)
        tan = xp.tan(xp.asin(sine) / 3)
        scale = 3 * (1 + four) / (sine * xp.sqrt(1 + tan * tan))
        roots = scale * tan, scale * (0.5 * math.sqrt(3) - 0.5 * tan)
        low, high = (2 * xp.asinh(within * w * xp.sqrt(w)) for w in roots)  # sinh²(L/2) = β²w³
        high = xp.clip(high, None, log_odds_limit(xp, beta.dtype))
        return low[()], xp.where((beta < cusp) & (high > low), high, low)[()]


@dataclasses.dataclass(frozen=True)
class MeanOnly(Normalization):
    """Mean-only normalisation of Dr. GRPO, A = r − mean: Ω = 1; also PPO with an exact value baseline, and RLOO.

    Args:
        group_size: None for the exact mean or a leave-one-out mean; G ≥ 2 where the mean over the group of G includes
            the sample itself: Ω = (G−1)/G.

    Raises:
        ValueError: for a group size below 2 or not an integer.

    Source: [2503.06639v4, Sec. 5], [2503.20783].

    >>> print(MeanOnly().gap(3.0), MeanOnly(group_size=8).gap(3.0))
    1.0 0.875
    """

    group_size: Any = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "group_size", option(self.group_size))
        if self.group_size is not None:
            require_group_size(self.group_size)

    def gap(self, log_odds: Array) -> Array:
        return self.gap_and_rate(log_odds)[0]

    def gap_and_rate(self, log_odds: Array) -> tuple[Array, Array]:
        if self.group_size is None:
            xp, log_odds = as_arrays(log_odds)
            return xp.ones_like(log_odds)[()], xp.zeros_like(log_odds)[()]
        xp, log_odds, size = as_arrays(log_odds, self.group_size)
        zero = xp.zeros_like(log_odds) + xp.zeros_like(size)
        return ((size - 1) / size + zero)[()], zero[()]

    def gap_rate_and_bend(self, log_odds: Array) -> tuple[Array, Array, Array]:
        gap, zero = self.gap_and_rate(log_odds)
        return gap, zero, zero

    def turns(self) -> tuple[Array, ...]:
        """The slope is 0 everywhere; any point serves."""
        return (1.0,)

    def folds(self, beta: Array) -> tuple[Array, ...]:
        """None: both come back as one point."""
        xp, beta = as_arrays(beta)
        point = xp.ones_like(beta)[()]
        return point, point


def require_group_size(size: Any) -> None:
    """Raise ValueError unless every group size is an integer ≥ 2."""
    if isinstance(size, bool):
        raise ValueError(f"group_size must be an integer >= 2, got {size!r}")
    require("group_size", size, "an integer >= 2", lambda x: (x >= 2) & (x < 1e9) & (x % 1 == 0))

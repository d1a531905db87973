"""Which β amplifies, which is stable, and the β that reaches a target."""

from __future__ import annotations

import dataclasses
import enum
import math
from typing import Any

import numpy as np

from grpo_dynamics.arrays import Array, as_arrays, batch_shape, option, quiet, require
from grpo_dynamics.logodds import bernoulli_variance, logit
from grpo_dynamics.normalization import Normalization, Whitened
from grpo_dynamics.theory.recursion import Recursion, require_recursion


@quiet
def stability_bound(log_odds: Array, normalization: Normalization | None = None, alpha: Array = 1.0) -> Array:
    """Return B, the β above which a fixed point at these log-odds is locally stable.

    For GRPO this is B_ε(p) = p(1−p)|2p−1| / (2[p(1−p)+ε]^{3/2}) = |dΩ/dL|. With two KL terms the multiplier
    (1−α) + Ω'/β has to lie in (−1, 1): B = Ω'/α where Ω' > 0, |Ω'|/(2−α) where Ω' < 0.

    Args:
        log_odds: L at the fixed point, any shape.
        normalization: ``Whitened()`` if not given.
        alpha: KL anchor in [0, 1].

    Source: [2503.06639v4, Lemma 1 and Fig. 4]; two-KL derived in docs/notebooks/5_variants.

    >>> print(round(float(stability_bound(logit(0.01), Whitened(eps=1e-4))), 3))
    4.851
    """
    require("log_odds", log_odds, "a number, not NaN", lambda x: x == x)
    require("alpha", alpha, "between 0 and 1", lambda x: (x >= 0) & (x <= 1))
    normalization = Whitened() if normalization is None else normalization
    xp, slope, alpha = as_arrays(normalization.gap_slope(log_odds), alpha)
    falling = slope <= 0
    return xp.where(falling, -slope / (2 - alpha), slope / xp.where(falling, 1.0, alpha))[()]


@quiet
def contraction_bound(normalization: Normalization | None = None, alpha: Array = 1.0) -> Array:
    """Return the β above which the map contracts everywhere in log-odds: one fixed point, which every orbit reaches.

    For GRPO this is max B = 1/(3√(3ε)(1+4ε)); infinite at ε = 0 and at α = 0. [6_bifurcations]

    >>> print(round(float(contraction_bound(Whitened(eps=1e-2))), 4))
    1.8505
    """
    require("alpha", alpha, "between 0 and 1", lambda x: (x >= 0) & (x <= 1))
    normalization = Whitened() if normalization is None else normalization
    xp, steepest, alpha = as_arrays(normalization.steepest()[1], alpha)
    return xp.where(alpha > 0, steepest / alpha, xp.inf)[()]


@quiet
def rising_bound(dynamics: Recursion, log_odds: Array) -> Array:
    """Return the β below which the next success probability is larger than the present one; inf if for every β.

    p_n > p_{n−1} ⇔ L_{n−1} ≤ L_ref or β < Ω(L_{n−1}) / (α(L_{n−1} − L_ref)). The β of ``dynamics`` does not enter.

    Args:
        dynamics: a recursion.
        log_odds: the present L_{n−1}, broadcasts with the options.
    """
    require_recursion(dynamics)
    require("log_odds", log_odds, "a number, not NaN", lambda x: x == x)
    xp, log_odds, p_ref, alpha = as_arrays(log_odds, dynamics.p_ref, dynamics.alpha, beside=dynamics)
    pull = alpha * (log_odds - logit(p_ref))
    rises = pull <= 0
    return xp.where(rises, xp.inf, dynamics.normalization.gap(log_odds) / xp.where(rises, 1.0, pull))[()]


def amplifies_v1(beta: Array, p_ref: Array, eps: Array = 1e-5) -> Array:
    """Return whether the sufficient condition of the paper's first versions promises p* > p_ref.

    p_ref ≤ 1/2, or β·cosh²(1/(2β√(1/4+ε))) ≥ p_ref(1−p_ref)(2p_ref−1) / (2[p_ref(1−p_ref)+ε]^{3/2}). Version 4 proves
    p* > p_ref without any condition; this one can fail only for p_ref > 0.9563. [2503.06639v1-v3, Thm 3]
    """
    smoothing = Whitened(eps).eps
    options = Recursion(beta, p_ref)  # checks the values
    xp, beta, p_ref, eps = as_arrays(options.beta, options.p_ref, smoothing)
    log_odds = logit(p_ref)
    # in logarithms, because cosh² overflows: log(β cosh²x) with x = 1/(2β√(1/4+ε))
    x = 1 / (2 * beta * xp.sqrt(0.25 + eps))
    left = xp.log(beta) + 2 * (x + xp.log1p(xp.exp(-2 * x)) - math.log(2))
    variance = bernoulli_variance(log_odds)
    right = variance * (2 * p_ref - 1) / (2 * (variance + eps) ** 1.5)
    return ((p_ref <= 0.5) | (left >= xp.log(xp.where(right > 0, right, 1.0))))[()]


class DesignStatus(enum.IntEnum):
    """Whether a β reaches the target."""

    OK = 0
    UNSTABLE = 1
    NOT_ABOVE_REFERENCE = 2
    MIRROR = 3

    @property
    def meaning(self) -> str:
        """One line in plain words."""
        return {
            DesignStatus.OK: "this beta makes the target a stable fixed point",
            DesignStatus.UNSTABLE: "this beta makes the target a fixed point, but no orbit stays there: it is unstable",
            DesignStatus.NOT_ABOVE_REFERENCE: "no beta: every fixed point lies above p_ref",
            DesignStatus.MIRROR: "no beta: without a pull to the reference there is no interior fixed point",
        }[self]


@dataclasses.dataclass(frozen=True)
class Design:
    """The inverse design, shape (*batch): ``beta`` (NaN if none), ``multiplier`` at target, ``stable``, ``status``."""

    beta: Array
    multiplier: Array
    stable: Array
    status: Array


@quiet
def design(target: Array, p_ref: Array, normalization: Normalization | None = None, alpha: Array = 1.0) -> Design:
    """Return the β whose fixed point is the target: β = Ω(p*) / (α(logit p* − L_ref)).

    Args:
        target: the wanted fixed point p* in (0, 1).
        p_ref: success probability of the reference policy in (0, 1).
        normalization: ``Whitened()`` if not given.
        alpha: KL anchor in [0, 1].

    Source: theorem 2 solved for β; derived in docs/notebooks/3_fixed_points.

    >>> found = design(0.4, 0.2)
    >>> print(round(float(found.beta), 3), bool(found.stable))
    2.081 True
    """
    require("target", target, "a probability strictly between 0 and 1", lambda x: (x > 0) & (x < 1))
    options = Recursion(1.0, p_ref, Whitened() if normalization is None else normalization, alpha)
    batch_shape(options, target=option(target))
    xp, target, p_ref, alpha = as_arrays(target, options.p_ref, options.alpha, beside=options)
    log_odds = logit(target)
    distance = log_odds - logit(p_ref)
    possible = (distance > 0) & (alpha > 0)
    gap, rate = options.normalization.gap_and_rate(log_odds)
    beta = xp.where(possible, gap / xp.where(possible, alpha * distance, 1.0), xp.nan)
    multiplier = 1 - alpha + gap * rate / beta
    stable = xp.abs(multiplier) < 1
    status = xp.where(stable, int(DesignStatus.OK), int(DesignStatus.UNSTABLE))
    status = xp.where(distance > 0, status, int(DesignStatus.NOT_ABOVE_REFERENCE))
    status = xp.where(alpha > 0, status, int(DesignStatus.MIRROR))
    return Design(beta[()], multiplier[()], stable[()], xp.astype(status, xp.int8)[()])


def stable_betas(
    p_ref: float, normalization: Normalization | None = None, alpha: float = 1.0
) -> list[tuple[float, float]]:
    """Return the intervals of β on which the fixed point of the branch from p_ref is stable; the first ends at inf.

    Along the curve of fixed points, L > L_ref with αβ = Ω(L)/(L − L_ref), the multiplier is (1−α) + α·κ with
    κ = (L − L_ref)·Ω'/Ω: it depends on L alone. The branch starts at p_ref (β = ∞) and ends at its first fold, κ = 1;
    it is unstable between flips, κ = −(2−α)/α. The branch near p = 1, beyond the second fold, is not listed.

    Args:
        p_ref: one success probability in (0, 1).
        normalization: ``Whitened()`` if not given; its options numbers, not arrays.
        alpha: one KL anchor in [0, 1]; empty at 0, where there is no fixed point.

    >>> [(round(low, 3), round(high, 3)) for low, high in stable_betas(0.001)]
    [(5.662, inf), (0.278, 0.338)]
    """
    from scipy.optimize import brentq  # a third of a second to import

    options = Recursion(1.0, p_ref, Whitened() if normalization is None else normalization, alpha)
    if batch_shape(options) != ():
        raise ValueError(f"p_ref, alpha and normalization must be single numbers, got shape {batch_shape(options)}")
    if alpha == 0:
        return []
    anchor, flip = float(logit(p_ref)), -(2 - alpha) / alpha

    def kappa(log_odds: Any) -> Any:
        return (log_odds - anchor) * options.normalization.gap_and_rate(log_odds)[1]

    def beta(log_odds: float) -> float:
        return float(options.normalization.gap(log_odds)) / (alpha * (log_odds - anchor))

    def root(level: float, i: int) -> float:
        return float(brentq(lambda x: kappa(x) - level, grid[i], grid[i + 1], xtol=1e-13))  # pyright: ignore

    grid = anchor + np.concatenate([np.geomspace(1e-9, 1e-2, 60), np.arange(0.02, 250 + abs(anchor), 0.01)])
    values = kappa(grid)
    beyond = np.flatnonzero(values >= 1)
    last = int(beyond[0]) if beyond.size else grid.size - 1
    flips = np.flatnonzero(np.diff(values[: last + 1] < flip))
    ends = [
        math.inf,
        *(beta(root(flip, int(i))) for i in flips),
        beta(root(1.0, last - 1)) if beyond.size else 0.0,
    ]
    return list(zip(ends[1::2], ends[0::2], strict=True))

"""The fixed point of a flow with k3 in the loss: at most one, found where the equation is nearly linear.

With d = L − L_ref it solves Ω(L) = β(p − p_ref)/(p(1−p)) = β(1−p_ref)(1 − e^−d)(1 + e^L). The logarithm of right over
left, as a function of x = log(e^d − 1), has the slope e^−d + (1 − e^−d)(p − d log Ω/dL). That lies between 0 and 1, as
0 ≤ p − d log Ω/dL ≤ 1: the left part says that w⁺ = (1−p)·Ω never rises with p, the right one that w⁻ = p·Ω never
falls. Both are elementary for exact statistics and for groups whose silent ones are kept; where these are dropped, the
certificates prove the first for each group, the tests check both. So Newton's method in x needs few steps, and a sign
at each end says whether there is a fixed point at all. Only where silent groups are dropped there may be none: if
β(1−p_ref) ≤ lim w⁺ at p = 1, the flow goes to p = 1.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from grpo_dynamics.arrays import Array, as_arrays, namespace, take
from grpo_dynamics.logodds import logit, sigmoid
from grpo_dynamics.normalization import Normalization, log_odds_limit


def forward_fixed_point(
    normalization: Normalization, beta: Array, p_ref: Array, size: int
) -> tuple[Array, Array, Array, Array]:
    """Return log-odds and multiplier of the fixed point, whether it exists and whether it was found, shape (size,)."""
    xp, beta, p_ref = as_arrays(beta, p_ref, beside=normalization)
    zero = xp.zeros((size,), dtype=beta.dtype, device=beta.device)
    anchor, beta, failure = logit(p_ref) + zero, beta + zero, 1 - p_ref + zero
    end = log_odds_limit(xp, beta.dtype)
    inner = 0.49 * end  # where e^−L is still a normal number, as a gap of dropped groups needs it
    with np.errstate(all="ignore"):
        held_inside = _ratio(normalization, beta, failure, anchor, inner - anchor)[0] > 1
        present = held_inside | (_ratio(normalization, beta, failure, anchor, end - anchor)[0] > 1)
        top = xp.where(held_inside, inner, end) - anchor
        d, converged = _root(normalization, beta, failure, anchor, top, present)
        _, slope, restoring = _ratio(normalization, beta, failure, anchor, d)
        root, multiplier = anchor + d, 1 - restoring * slope
    blank = xp.full((size,), xp.nan, dtype=beta.dtype, device=beta.device)
    return xp.where(present, root, blank), xp.where(present, multiplier, blank), present, converged | ~present


def _ratio(
    normalization: Normalization, beta: Array, failure: Array, anchor: Array, d: Array
) -> tuple[Array, Array, Array]:
    """β·S/Ω with S = R/(p(1−p)) = (1−p_ref)(1 − e^−d)(1 + e^L), d log(β·S/Ω)/dL, and S."""
    xp = namespace(d)
    log_odds = anchor + d
    gap, rate = normalization.gap_and_rate(log_odds)
    part = -failure * xp.expm1(-d)
    half = xp.exp(0.5 * xp.where(log_odds > 0, log_odds, 0.0))  # twice, as e^L may overflow where Ω is as large
    rest = 1 + xp.exp(-xp.abs(log_odds))
    ratio = (beta * part * rest * half) * (half / gap)
    return ratio, 1 / xp.expm1(d) + (sigmoid(log_odds) - rate), part * rest * half * half


def _root(
    normalization: Normalization, beta: Array, failure: Array, anchor: Array, top: Array, present: Array
) -> tuple[Array, Array]:
    """D at the fixed point, and whether it was found: Newton's method in x, halving the bracket where it fails."""
    xp = namespace(beta)
    size = beta.shape[0]
    tiny = xp.finfo(beta.dtype).eps
    # the tangent at d = 0: as the slope is at most 1, the root lies beyond
    x = xp.log(normalization.gap(anchor) / (beta * failure)) - xp.log1p(xp.exp(-xp.abs(anchor)))
    x = x - xp.where(anchor > 0, anchor, 0.0)
    low, high = x - 1.0, xp.maximum(_inverse(xp, top), x)
    found = x + 0.0
    converged = xp.zeros((size,), dtype=xp.bool, device=beta.device)
    at = xp.nonzero(present)[0]
    for steps in (6, 4, 10, 60):
        if at.shape[0] == 0:
            break
        part, strength, share, origin = take(normalization, (size,), at), beta[at], failure[at], anchor[at]
        here, bottom, ceiling = found[at], low[at], high[at]
        settled = here < -xp.inf
        for _ in range(steps):
            d = _distance(xp, here)
            ratio, slope, _ = _ratio(part, strength, share, origin, d)
            slope = slope * -xp.expm1(-d)  # dL/dx = 1 − e^−d
            bottom, ceiling = xp.where(ratio <= 1, here, bottom), xp.where(ratio > 1, here, ceiling)
            move = -xp.log(ratio) / slope
            settled = xp.abs(move) <= xp.maximum(0.25 * tiny**0.5 * slope, 32 * tiny / slope)
            new = here + move
            here = xp.where(settled | ((new > bottom) & (new < ceiling)), new, 0.5 * (bottom + ceiling))
        settled = settled | (ceiling - bottom <= 8 * tiny * (1 + xp.abs(here)))
        found[at], low[at], high[at], converged[at] = here, bottom, ceiling, settled
        at = at[~settled]
    return _distance(xp, found), converged


def _distance(xp: Any, x: Array) -> Array:
    """Return d = log(1 + e^x)."""
    return xp.where(x > 0, x, 0.0) + xp.log1p(xp.exp(-xp.abs(x)))


def _inverse(xp: Any, d: Array) -> Array:
    """Return x = log(e^d − 1)."""
    return d + xp.log(-xp.expm1(-d))

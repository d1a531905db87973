"""The state of every dynamics: log-odds, and the probabilities derived from it without saturation.

A success probability p is carried as L = log(p / (1 - p)). In float64, p rounds to 1 at L = 37 while fixed points
can lie at L = L_ref + 316/beta, so p and 1 - p are outputs, never the state.
"""

from __future__ import annotations

from grpo_dynamics.arrays import Array, as_arrays, quiet, require


@quiet
def logit(p: Array) -> Array:
    """Return log(p / (1 - p)), accurate to a few units in the last place for every p, also near 1/2.

    Args:
        p: probability in [0, 1], any shape; 0 and 1 give -inf and inf.

    Raises:
        ValueError: for p outside [0, 1] or NaN.

    >>> print(logit(0.2).round(6))
    -1.386294
    """
    require("p", p, "a probability between 0 and 1", lambda x: (x >= 0) & (x <= 1))
    xp, p = as_arrays(p)
    failure = 1 - p
    # around 1/2 the logarithm of a number near 1 would cancel; 2p − 1 is exact there (Sterbenz)
    return xp.where(xp.abs(p - 0.5) < 0.25, xp.log1p((2 * p - 1) / failure), xp.log(p / failure))[()]


@quiet
def sigmoid(log_odds: Array) -> Array:
    """Return the probability p = 1 / (1 + exp(-L)); :func:`complement` returns 1 - p without cancellation.

    Args:
        log_odds: L in [-inf, inf], any shape.

    >>> print(sigmoid(0.0))
    0.5
    """
    xp, log_odds = as_arrays(log_odds)
    t = xp.exp(-xp.abs(log_odds))
    return (xp.where(log_odds >= 0, 1.0 + 0.0 * t, t) / (1 + t))[()]


def complement(log_odds: Array) -> Array:
    """Return the failure probability 1 - p = 1 / (1 + exp(L)) with full relative accuracy.

    >>> print(complement(40.0))
    4.248354255291589e-18
    """
    return sigmoid(-1 * as_arrays(log_odds)[1])


@quiet
def bernoulli_variance(log_odds: Array) -> Array:
    """Return p(1 - p) from the log-odds.

    >>> print(bernoulli_variance(0.0))
    0.25
    """
    xp, log_odds = as_arrays(log_odds)
    t = xp.exp(-xp.abs(log_odds))
    return (t / (1 + t) ** 2)[()]

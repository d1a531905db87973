"""How sure a measured success rate is, as a distribution: Jeffreys' posterior on a grid of log-odds.

What follows from p_ref, such as p*, is computed once at the nodes of the grid; its mean over the posterior of any
question is then one weighted sum. A plugged-in rate k/n would say that a question with no success cannot move, and that
one with no failure is solved; the posterior says how much is known of that.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from grpo_dynamics.arrays import Array, require
from grpo_dynamics.logodds import sigmoid

LARGEST = 25.0
"""Log-odds beyond which p counts as the outermost node's: 1e-11 from 0 and from 1."""


@dataclasses.dataclass(frozen=True)
class Grid:
    """Nodes in log-odds, each the middle of its bin; the outer bins reach to p = 0 and to p = 1.

    Args:
        bins: how many. The mean of a smooth function of p is right to about 1e-5 with 1,000 bins; where it jumps, as
            p* does at a fold, to the probability of the one bin with the jump in it.

    Raises:
        ValueError: for fewer than 10.

    >>> grid = Grid()
    >>> mean = grid.masses([0, 3], [8, 8]) @ grid.p
    >>> print(mean.round(4), [round((k + 0.5) / 9, 4) for k in (0, 3)])
    [0.0556 0.3889] [0.0556, 0.3889]
    """

    bins: int = 1000

    def __post_init__(self) -> None:
        require("bins", self.bins, "an integer >= 10", lambda x: x >= 10)

    @property
    def edges(self) -> Array:
        """Inner edges of the bins in log-odds, shape (bins − 1,)."""
        return np.linspace(-LARGEST, LARGEST, self.bins + 1)[1:-1]

    @property
    def log_odds(self) -> Array:
        """Nodes in log-odds, ascending, shape (bins,)."""
        edges = np.linspace(-LARGEST, LARGEST, self.bins + 1)
        return (edges[1:] + edges[:-1]) / 2

    @property
    def p(self) -> Array:
        """Nodes as probabilities, shape (bins,)."""
        return sigmoid(self.log_odds)

    def masses(self, successes: Array, samples: Array) -> Any:
        """Return the posterior probability of each bin, Beta(k + ½, n − k + ½): each row sums to 1.

        Args:
            successes: k, integers 0 ≤ k ≤ n, shape (m,).
            samples: n ≥ 0, shape (m,); 0 gives Jeffreys' prior itself.

        Returns:
            shape (m, bins). Its work and memory are m·bins: give each pair (k, n) once.

        Raises:
            ValueError: for counts out of range.

        Source: Jeffreys 1946; Brown, Cai and DasGupta 2001, who recommend its intervals for small n.
        """
        from scipy.special import betainc

        k, n = np.atleast_1d(np.asarray(successes, float)), np.atleast_1d(np.asarray(samples, float))
        require("samples", n, "numbers >= 0", lambda x: (x >= 0) & (x < np.inf))
        require("successes", k, "numbers from 0 to samples", lambda x: (x >= 0) & (x <= n))
        edges = self.edges
        below = betainc(k[:, None] + 0.5, (n - k)[:, None] + 0.5, sigmoid(edges))
        above = betainc((n - k)[:, None] + 0.5, k[:, None] + 0.5, sigmoid(-edges))
        # differences of the smaller tail: near p = 1 the other one is 1 to rounding
        ends = np.zeros((k.size, 1))
        low = np.diff(np.concatenate([ends, below, ends + 1], axis=1), axis=1)
        high = -np.diff(np.concatenate([ends + 1, above, ends], axis=1), axis=1)
        return np.where(np.concatenate([below, ends + 1], axis=1) < 0.5, low, high)


def silent_probability(successes: Array, samples: Array, group_size: Array) -> Any:
    """Return the probability that the next group is silent, all right or all wrong, in closed form.

    The mean of p^G + (1−p)^G over Beta(k + ½, n − k + ½); such a group has no advantage and teaches nothing.

    Args:
        successes: k, integers 0 ≤ k ≤ n, any shape.
        samples: n.
        group_size: G ≥ 1. All broadcast.

    >>> print(silent_probability([0, 4], 8, 8).round(3))
    [0.713 0.045]
    """
    from scipy.special import betaln

    a = np.asarray(successes, float) + 0.5
    b = np.asarray(samples, float) - np.asarray(successes, float) + 0.5
    size, whole = np.asarray(group_size, float), betaln(a, b)
    return np.exp(betaln(a + size, b) - whole) + np.exp(betaln(a, b + size) - whole)


def samples_to_exclude(p: Array, confidence: float = 0.95) -> Any:
    """Return how many samples without a success it takes to say, with confidence, that p_ref is below p.

    The smallest n with (1−p)^n ≤ 1 − confidence: about 3/p at 95 %. The other way round, a question with p_ref ≥ p
    shows a success among so many samples at least as often as the confidence says.

    Args:
        p: probabilities in (0, 1), any shape.
        confidence: in (0, 1).

    Raises:
        ValueError: for values out of range.

    >>> print(samples_to_exclude([0.5, 0.1, 0.01]))
    [  5  29 299]
    """
    require("p", p, "a probability strictly between 0 and 1", lambda x: (x > 0) & (x < 1))
    require("confidence", confidence, "a probability strictly between 0 and 1", lambda x: (x > 0) & (x < 1))
    needed = np.log1p(-confidence) / np.log1p(-np.asarray(p, float))
    return np.ceil(needed - 1e-9).astype(np.int64)  # 1 − 0.95 is not 0.05 to the last digit


def largest_hidden(samples: Array, confidence: float = 0.95) -> Any:
    """Return the p_ref that n samples without a success cannot exclude: 1 − (1 − confidence)^(1/n).

    Args:
        samples: n ≥ 1, any shape.
        confidence: in (0, 1).

    >>> print(largest_hidden(8).round(4))
    0.3123
    """
    require("samples", samples, "numbers >= 1", lambda x: x >= 1)
    require("confidence", confidence, "a probability strictly between 0 and 1", lambda x: (x > 0) & (x < 1))
    return -np.expm1(np.log1p(-confidence) / np.asarray(samples, float))

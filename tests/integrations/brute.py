"""Means over a posterior the plain way: the density itself, on many points."""

from __future__ import annotations

import numpy as np
from scipy import special, stats

from grpo_dynamics import sigmoid


def mean_over_beta(function, successes, samples, points=40_001):
    """E[function(p)] for p from Beta(k + ½, n − k + ½), summed over log-odds from −30 to 30."""
    log_odds = np.linspace(-30, 30, points)
    p, q = sigmoid(log_odds), sigmoid(-log_odds)
    a, b = successes + 0.5, samples - successes + 0.5
    density = np.exp(a * special.log_expit(log_odds) + b * special.log_expit(-log_odds) - special.betaln(a, b))
    near = np.abs(log_odds) < 20  # where 1 − p is still exact
    np.testing.assert_allclose(density[near], (stats.beta(a, b).pdf(p) * p * q)[near], rtol=1e-6, atol=1e-12)
    return float(np.sum(density * function(p)) * (log_odds[1] - log_odds[0]))

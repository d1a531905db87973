"""How sure a measured rate is."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np

from grpo_dynamics.arrays import Array, require


def wilson(p: Array, samples: Array, confidence: float = 0.95) -> tuple[Array, Array]:
    """Return Wilson's score interval of a success probability, of which a rate was measured.

    It has close to its nominal coverage also for few samples and rates near 0 or 1; at 0 and 1 it is one-sided.

    Args:
        p: measured rates in [0, 1], any shape.
        samples: numbers of samples ≥ 1, broadcasts with p.
        confidence: level in (0, 1).

    Source: Wilson 1927; Brown, Cai and DasGupta 2001, who recommend it for small n.

    >>> low, high = wilson(0.0, 8)
    >>> float(low), round(float(high), 4)
    (0.0, 0.3244)
    """
    require("confidence", confidence, "a probability strictly between 0 and 1", lambda x: (x > 0) & (x < 1))
    p, n = np.asarray(p, dtype=float), np.asarray(samples, dtype=float)
    z = -NormalDist().inv_cdf(0.5 - confidence / 2)  # the lower tail: 0.5 + confidence/2 may round to 1
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return np.where(p > 0, np.maximum(centre - half, 0.0), 0.0), np.where(p < 1, np.minimum(centre + half, 1.0), 1.0)

"""Certificates of periodic orbits."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from grpo_dynamics.arrays import Array, batch_shape, option, require, to_numpy
from grpo_dynamics.theory.certificates.certainty import Grounds
from grpo_dynamics.theory.certificates.certify import PRECISION_LOCK, bounds, in_numpy, require_digits
from grpo_dynamics.theory.recursion import Recursion, require_recursion


@dataclasses.dataclass(frozen=True)
class CycleCertificates:
    """Proved enclosures of periodic orbits; every bound is rounded outwards.

    Attributes:
        status: a :class:`~grpo_dynamics.theory.certificates.certainty.Certainty` as int8, shape (*batch).
        reason: a :class:`~grpo_dynamics.theory.certificates.certainty.Grounds` as int8, shape (*batch).
        lower, upper: bounds of the log-odds of each point, shape (period, *batch), NaN where nothing is proved.
        multiplier_lower, multiplier_upper: bounds of the product of the multipliers along the orbit, shape (*batch).
        stable, unstable: proved to be |multiplier| < 1, or > 1, shape (*batch).
        log_odds: the balls themselves (``flint.arb``) as an object array (period, *batch), None where not proved.
        multiplier: the balls of the multipliers, shape (*batch).
    """

    status: Array
    reason: Array
    lower: Array
    upper: Array
    multiplier_lower: Array
    multiplier_upper: Array
    stable: Array
    unstable: Array
    log_odds: Array
    multiplier: Array


def certify_cycle(dynamics: Recursion, log_odds: Array, digits: int | None = None) -> CycleCertificates:
    """Prove that a periodic orbit of exactly this period lies where it was seen, and whether it is stable.

    Args:
        dynamics: a recursion, any shape; its normalisation is Whitened, MeanOnly or FiniteGroup.
        log_odds: the points in the order of the orbit, to six digits or better, shape (period, *batch): the first axis
            is the period. Where one is NaN, nothing is proved.
        digits: correct digits of the balls ``log_odds``, 1 … 1000; by default the floats' own.

    Raises:
        ValueError: for other dynamics, a period of 0, shapes that do not broadcast, or digits out of range.

    Source: the proof is written in docs/certificates and in grpo_dynamics/theory/certificates/cycle_proof.py.

    >>> import grpo_dynamics as gd
    >>> proof = certify_cycle(Recursion(beta=5.0, p_ref=1e-3), [-6.0561007, -2.7745370])
    >>> print(gd.Certainty(proof.status).name, proof.stable, proof.multiplier_upper.round(6))
    CERTIFIED True 0.768515
    """
    require_recursion(dynamics)
    require_digits(digits)
    guesses = to_numpy(option(log_odds))
    require("log_odds", guesses, "numbers", lambda x: np.full(x.shape, True))  # also NaN, where nothing is claimed
    guesses = guesses.astype(np.float64)
    if guesses.ndim == 0 or guesses.shape[0] == 0:
        raise ValueError(f"log_odds must have the points of an orbit along its first axis, got shape {guesses.shape}")
    dynamics = in_numpy(dynamics)
    shape = batch_shape(dynamics, log_odds=guesses[0, ...])
    period, size = guesses.shape[0], math.prod(shape)
    guesses = np.stack([np.broadcast_to(guess, shape).reshape(-1) for guess in guesses])
    from grpo_dynamics.theory.certificates.cycle_proof import cycle_proofs_of  # python-flint takes a while to import

    with PRECISION_LOCK:
        proofs = cycle_proofs_of(dynamics, shape, guesses.T.tolist(), digits)
    points, multiplier = np.full((period, size), None, dtype=object), np.full(size, None, dtype=object)
    for i, proof in enumerate(proofs):
        multiplier[i] = proof.multiplier
        for j, point in enumerate(proof.points):
            points[j, i] = point
    reason = np.array([proof.reason for proof in proofs], np.int8)
    certainty = np.array([member.certainty for member in Grounds], np.int8)
    stability = np.array([proof.stability for proof in proofs], np.int8)
    arrays = (
        *(certainty[reason], reason),
        *bounds(points),
        *bounds(multiplier),
        *(stability > 0, stability < 0, points, multiplier),
    )
    return CycleCertificates(*(np.reshape(array, (*array.shape[:-1], *shape))[()] for array in arrays))

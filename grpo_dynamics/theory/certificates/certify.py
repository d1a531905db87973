"""Certificates: the fixed points of a system with proof, by interval arithmetic on top of the ordinary numbers."""

from __future__ import annotations

import copy
import dataclasses
import math
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from grpo_dynamics.arrays import Array, batch_shape, option, to_numpy
from grpo_dynamics.theory.certificates.certainty import Grounds
from grpo_dynamics.theory.fixed_points import fixed_points
from grpo_dynamics.theory.flow import Flow, require_dynamics
from grpo_dynamics.theory.recursion import Recursion

if TYPE_CHECKING:
    from grpo_dynamics.theory.certificates.fixed_point_proof import Proof

PRECISION_LOCK = threading.Lock()
"""python-flint's working precision is one number for the whole process: one certificate at a time."""


@dataclasses.dataclass(frozen=True)
class Certificates:
    """Proved enclosures of fixed points, ascending along the first axis; every bound is rounded outwards.

    Attributes:
        status: a :class:`~grpo_dynamics.theory.certificates.certainty.Certainty` as int8, shape (*batch).
        reason: a :class:`~grpo_dynamics.theory.certificates.certainty.Grounds` as int8, shape (*batch).
        count: the exact number of interior fixed points, −1 where it is not claimed, shape (*batch).
        lower, upper: bounds of the log-odds of each, shape (slots, *batch), NaN where padded or not claimed.
        multiplier_lower, multiplier_upper: bounds of the multiplier, same shape.
        stable, unstable: proved to be |multiplier| < 1, or > 1 (for a flow: multiplier < 1, or > 1), same shape.
        fold_lower, fold_upper: bounds of the log-odds of each fold, shape (folds, *batch), NaN-padded.
        fold_side: the sign of αβ·(L − L_ref) − Ω(L) at that fold, 0 where it is not claimed or padded.
        log_odds: the balls themselves (``flint.arb``) as an object array (slots, *batch), None where padded.
        multiplier: the balls of the multipliers, likewise.
    """

    status: Array
    reason: Array
    count: Array
    lower: Array
    upper: Array
    multiplier_lower: Array
    multiplier_upper: Array
    stable: Array
    unstable: Array
    fold_lower: Array
    fold_upper: Array
    fold_side: Array
    log_odds: Array
    multiplier: Array


def certify(dynamics: Recursion | Flow, digits: int | None = None) -> Certificates:
    """Prove how many fixed points each system of a batch has, where they are and which are stable.

    The options are taken as the exact numbers that the floats are. What is not claimed is said by the status:
    DEGENERATE where a relative change of β by 1e-13, or by 10^−digits if that is less, might change the number of fixed
    points, or where a multiplier is that close to −1 (then the number and the places are still proved).

    Args:
        dynamics: a recursion or a flow, any shape; its normalisation is Whitened, MeanOnly or FiniteGroup.
        digits: correct digits of the balls ``log_odds``, 1 … 1000; by default the floats' own.

    Raises:
        ValueError: for other dynamics, or digits out of range.

    python-flint keeps its precision in one place for the whole process. It is put back afterwards; threads take turns
    here, but other code that uses python-flint at the same time must not run in another thread.

    Source: the proof is written in docs/certificates and grpo_dynamics/theory/certificates/fixed_point_proof.py.

    >>> import grpo_dynamics as gd
    >>> proof = certify(Recursion(beta=1.0, p_ref=0.2))
    >>> print(gd.Certainty(proof.status).name, proof.count, proof.stable)
    CERTIFIED 3 [ True False  True]
    >>> print(certify(Recursion(beta=1.0, p_ref=0.2), digits=30).log_odds[0].str(30, radius=False))
    0.759676239648412217429263369682
    """
    require_dynamics(dynamics)
    require_digits(digits)
    dynamics = in_numpy(dynamics)
    shape = batch_shape(dynamics)
    found, folds = to_numpy(fixed_points(dynamics).log_odds), _fold_guesses(dynamics, shape)
    roots = found.reshape(found.shape[0], math.prod(shape)).T
    guesses = zip(folds.T.tolist(), ([x for x in row if x == x] for row in roots.tolist()), strict=True)
    from grpo_dynamics.theory.certificates.system_proofs import proofs_of  # python-flint takes a while to import

    with PRECISION_LOCK:
        proofs = proofs_of(dynamics, shape, guesses, digits)
    return _collected(proofs, found.shape[0], folds.shape[0], shape)


def in_numpy(options: Any) -> Any:
    """The options with every array of any library in NumPy, one without dimensions as a plain number."""
    part = copy.copy(options)  # validated before: not through __init__ again
    for name, value in vars(options).items():
        if dataclasses.is_dataclass(value):
            object.__setattr__(part, name, in_numpy(value))
        elif hasattr(value, "ndim"):
            object.__setattr__(part, name, option(to_numpy(value)))
    return part


def require_digits(digits: int | None) -> None:
    """Raise ValueError unless the digits are None or a sensible number."""
    if digits is not None and (isinstance(digits, bool) or not isinstance(digits, int) or not 1 <= digits <= 1000):
        raise ValueError(f"digits must be None or an integer between 1 and 1000, got {digits!r}")


def _fold_guesses(dynamics: Recursion | Flow, shape: tuple[int, ...]) -> Any:
    """Where the folds may be, shape (folds, size)."""
    pull = to_numpy(dynamics.beta * (dynamics.alpha if isinstance(dynamics, Recursion) else 1.0))
    folds = dynamics.normalization.folds(np.where(pull > 0, pull, 1.0))
    return np.stack([np.broadcast_to(to_numpy(fold), shape).reshape(-1) for fold in folds])


def _collected(proofs: list[Proof], slots: int, folds: int, shape: tuple[int, ...]) -> Certificates:
    size = len(proofs)
    log_odds, multiplier = (np.full((slots, size), None, dtype=object) for _ in range(2))
    fold = np.full((folds, size), None, dtype=object)
    side, stability = np.zeros((folds, size), np.int8), np.zeros((slots, size), np.int8)
    for i, proof in enumerate(proofs):
        for j, point in enumerate(proof.points or ()):
            log_odds[j, i], multiplier[j, i], stability[j, i] = point
        for j, (place, sign_of_equation) in enumerate(proof.folds):
            fold[j, i], side[j, i] = place, sign_of_equation
    reason = np.array([proof.reason for proof in proofs], np.int8)
    certainty = np.array([member.certainty for member in Grounds], np.int8)
    count = np.array([-1 if proof.points is None else len(proof.points) for proof in proofs], np.int64)
    arrays = (
        *(certainty[reason], reason, count),
        *bounds(log_odds),
        *bounds(multiplier),
        *(stability > 0, stability < 0),
        *bounds(fold),
        *(side, log_odds, multiplier),
    )
    return Certificates(*(np.reshape(array, (*array.shape[:-1], *shape))[()] for array in arrays))


def bounds(balls: Any) -> tuple[Any, Any]:
    """Lower and upper bounds as floats, rounded outwards: a float conversion is off by at most one neighbour."""
    present = balls != None  # noqa: E711  elementwise
    lower, upper = np.full(balls.shape, np.nan), np.full(balls.shape, np.nan)
    middle = np.array([float(ball) for ball in balls[present]])
    radius = np.nextafter([float(ball.rad()) for ball in balls[present]], np.inf)
    lower[present] = np.nextafter(np.nextafter(middle, -np.inf) - radius, -np.inf)
    upper[present] = np.nextafter(np.nextafter(middle, np.inf) + radius, np.inf)
    return lower, upper

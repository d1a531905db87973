"""Folds, flips and cusps in the plane of β and p_ref, for any reward normalisation and KL anchor.

A fixed point at log-odds L needs αβ(L − L_ref) = Ω(L), so its place and β give L_ref = L − Ω(L)/(αβ). Its multiplier is
(1−α) + Ω'(L)/β: +1, a fold, where αβ = Ω'(L), L > 0; −1, a flip, where (2−α)β = −Ω'(L), L < 0. With L as parameter both
curves are explicit, and every monotone piece of Ω' is a branch of them.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from grpo_dynamics.arrays import Array, as_arrays, batch_shape, option, quiet, require
from grpo_dynamics.logodds import sigmoid
from grpo_dynamics.normalization import Normalization, Whitened


@dataclasses.dataclass(frozen=True)
class Bifurcations:
    """Points in the plane of β and p_ref at which a fixed point is born, dies, or starts to oscillate.

    Attributes:
        log_odds: L of the fixed point.
        beta: KL strength.
        log_odds_ref: L_ref; ``p_ref`` is derived from it.
        branch: number of the monotone piece of Ω' from L = 0 outwards, of the same shape.
        reason: why there is no such point, in plain words; empty if there is one.
    """

    log_odds: Array
    beta: Array
    log_odds_ref: Array
    branch: Array
    reason: str = ""

    @property
    def p(self) -> Array:
        """Success probability of the fixed point."""
        return sigmoid(self.log_odds)

    @property
    def p_ref(self) -> Array:
        """Success probability of the reference."""
        return sigmoid(self.log_odds_ref)


def fold_curve(
    normalization: Normalization | None = None,
    alpha: float = 1.0,
    beta_range: tuple[float, float] = (1e-3, 1e3),
    points: int = 1001,
) -> Bifurcations:
    """Return where a stable and an unstable fixed point meet (multiplier +1), as a curve with L as parameter.

    Branch 0 is where the lower stable state ends, branch 1 where the upper one ends; they meet in the cusp.

    Args:
        normalization: with options of shape (); ``Whitened()`` if not given.
        alpha: KL anchor in [0, 1].
        beta_range: smallest and largest β of the curve.
        points: points per branch, at least 2.

    Returns:
        :class:`Bifurcations` of shape (points · branches,), ascending in L; empty, with a reason, where no fold exists.

    Raises:
        ValueError: for arguments out of range, or options that are arrays.

    Source: derived in docs/notebooks/6_bifurcations.

    >>> curve = fold_curve(Whitened(eps=0.0), beta_range=(1.0, 10.0), points=3)
    >>> print(curve.beta.round(3), curve.p_ref.round(4))
    [ 1.     3.162 10.   ] [0.2562 0.8375 0.9818]
    """
    return _curve(normalization, alpha, beta_range, points, fold=True)


def flip_curve(
    normalization: Normalization | None = None,
    alpha: float = 1.0,
    beta_range: tuple[float, float] = (1e-3, 1e3),
    points: int = 1001,
) -> Bifurcations:
    """Return where a fixed point starts to oscillate (multiplier −1), as a curve with L as parameter.

    Arguments, result and errors as in :func:`fold_curve`. For α = 1 the points L are those of the folds, mirrored at 0.

    Source: derived in docs/notebooks/6_bifurcations.

    >>> from grpo_dynamics import MeanOnly
    >>> print(flip_curve(MeanOnly()).reason)
    the advantage gap does not depend on p, so every multiplier is 1 - alpha: no fixed point folds or flips
    """
    return _curve(normalization, alpha, beta_range, points, fold=False)


def cusp(normalization: Normalization | None = None, alpha: float = 1.0) -> Bifurcations:
    """Return the cusps: where two branches of folds meet. Above the first, α·β alone makes the fixed point unique.

    For GRPO β_c = 1/(3√(3ε)(1+4ε)). Two for groups that drop silent ones, whose slope turns twice.

    Args:
        normalization: with options of shape (); ``Whitened()`` if not given.
        alpha: KL anchor in [0, 1].

    Returns:
        :class:`Bifurcations` of shape (cusps,); empty, with a reason, where none exists.

    Raises:
        ValueError: for arguments out of range, or options that are arrays.

    Source: derived in docs/notebooks/6_bifurcations.

    >>> print(cusp(Whitened(eps=1e-5)).beta.round(3))
    [60.856]
    """
    normalization, reason = _checked(normalization, alpha)
    turns = np.asarray([float(turn) for turn in normalization.turns()])
    turns = turns[np.isfinite(turns)]
    if not reason and turns.size == 0:
        reason = "the slope of the advantage gap only rises with p, so two branches of folds never meet"
    if reason:
        return _nothing(reason)
    return _at(normalization, turns, alpha, np.arange(turns.size), fold=True)


@quiet
def fold_points(beta: Array, normalization: Normalization | None = None, alpha: Array = 1.0) -> Bifurcations:
    """Return the folds at given β: the p_ref between which fixed points come and go.

    Args:
        beta: KL strength > 0, broadcasts with α and the options.
        normalization: ``Whitened()`` if not given.
        alpha: KL anchor in [0, 1].

    Returns:
        :class:`Bifurcations` of shape (branches, *batch), NaN where a fold does not exist; the reason says why if
        none exists at all.

    Raises:
        ValueError: for arguments out of range or that do not broadcast.

    >>> for p_ref in fold_points(5.0, Whitened(eps=1e-5)).p_ref:
    ...     print(f"{p_ref:.5g}")
    0.92998
    2.8614e-21
    """
    return _points(beta, normalization, alpha, fold=True)


@quiet
def flip_points(beta: Array, normalization: Normalization | None = None, alpha: Array = 1.0) -> Bifurcations:
    """Return the flips at given β: the p_ref between which the low fixed point repels by overshooting.

    Arguments, result and errors as in :func:`fold_points`.

    >>> for p_ref in flip_points(5.0, Whitened(eps=1e-5)).p_ref:
    ...     print(f"{p_ref:.5g}")
    0.0012674
    3.156e-34
    """
    return _points(beta, normalization, alpha, fold=False)


@dataclasses.dataclass(frozen=True)
class _Request:
    beta: Any
    alpha: Any
    normalization: Normalization


def _points(beta: Array, normalization: Normalization | None, alpha: Array, fold: bool) -> Bifurcations:
    normalization, beta, alpha = _normalization(normalization), option(beta), option(alpha)
    require("beta", beta, "a finite number > 0", lambda x: (x > 0) & (x < float("inf")))
    require("alpha", alpha, "between 0 and 1", lambda x: (x >= 0) & (x <= 1))
    shape = batch_shape(_Request(beta, alpha, normalization))
    xp, beta, alpha = as_arrays(beta, alpha, beside=normalization)
    slope = (alpha if fold else 2 - alpha) * beta
    anchored = alpha > 0
    slope = xp.broadcast_to(xp.where(anchored, slope, 1.0), shape)
    places = xp.stack(
        [xp.broadcast_to(as_arrays(x, beside=normalization)[1], shape) for x in normalization.folds(slope)]
    )
    exists = anchored & (xp.abs(normalization.gap_slope(places) - slope) <= 1e-6 * slope)
    places = xp.where(exists, places if fold else -places, xp.nan)
    reference = places - normalization.gap(places) / (alpha * beta)
    branch = xp.reshape(xp.arange(places.shape[0], dtype=xp.int8, device=places.device), (-1, *(1 for _ in shape)))
    reason = ""
    if not xp.any(exists):
        reason = "no fixed point has this multiplier at any p_ref: beta is too large, or nothing pulls to the reference"
    return Bifurcations(
        places, xp.where(exists, beta, xp.nan), reference, branch + xp.zeros(places.shape, dtype=xp.int8), reason
    )


@quiet
def _curve(
    normalization: Normalization | None, alpha: float, beta_range: tuple[float, float], points: int, fold: bool
) -> Bifurcations:
    normalization, reason = _checked(normalization, alpha)
    require("beta_range", beta_range, "two finite numbers > 0", lambda x: (x > 0) & (x < float("inf")))
    if np.shape(beta_range) != (2,) or not beta_range[0] < beta_range[1]:
        raise ValueError(f"beta_range must be two numbers, the smaller one first, got {beta_range!r}")
    if isinstance(points, bool) or not isinstance(points, int) or points < 2:
        raise ValueError(f"points must be an integer >= 2, got {points!r}")
    if reason:
        return _nothing(reason)
    factor = alpha if fold else 2 - alpha
    ends = [[float(x) for x in normalization.folds(factor * beta)] for beta in beta_range]
    places, branches = [], []
    for i, pair in enumerate(zip(*ends, strict=True)):
        low, high = sorted(pair)
        if high - low <= 1e-9 * high:  # the range of β misses this piece of the slope
            continue
        # even steps of log sinh(L/2): of log β far from the cusp
        start, end = np.log(np.sinh(np.array([low, high]) / 2))
        place = 2 * np.arcsinh(np.exp(np.linspace(start, end, points)))
        place[[0, -1]] = low, high
        places.append(place)
        branches.append(np.full(points, i))
    if not places:
        most = float(normalization.steepest()[1]) / factor
        return _nothing(f"no fixed point has this multiplier for beta above {most:.6g}")
    curve = _at(normalization, np.concatenate(places), alpha, np.concatenate(branches), fold)
    held = np.flatnonzero(np.isfinite(curve.log_odds_ref))  # not where Ω' underflows (ε < 1e-290), or Ω/β overflows
    order = held if fold else held[::-1]
    return Bifurcations(*(x[order] for x in (curve.log_odds, curve.beta, curve.log_odds_ref, curve.branch)))


def _at(normalization: Normalization, places: Any, alpha: float, branch: Any, fold: bool) -> Bifurcations:
    """The fold at each L > 0, or the flip at −L."""
    beta = normalization.gap_slope(places) / (alpha if fold else 2 - alpha)
    place = places if fold else -places
    return Bifurcations(place, beta, place - normalization.gap(place) / (alpha * beta), np.asarray(branch, np.int8))


def _nothing(reason: str) -> Bifurcations:
    empty = np.empty(0)
    return Bifurcations(empty, empty, empty, np.empty(0, np.int8), reason)


def _normalization(given: Any) -> Normalization:
    if given is not None and not isinstance(given, Normalization):
        raise ValueError(f"normalization must be a Normalization such as Whitened(), got {given!r}")
    return Whitened() if given is None else given


def _checked(normalization: Any, alpha: Any) -> tuple[Normalization, str]:
    """The normalisation, and why it has neither folds nor flips, if so."""
    normalization = _normalization(normalization)
    require("alpha", alpha, "between 0 and 1", lambda x: (x >= 0) & (x <= 1))
    shape = batch_shape(_Request(1.0, option(alpha), normalization))
    if shape:
        raise ValueError(f"a curve needs options of shape (), got {shape}")
    if alpha == 0:
        return normalization, "nothing pulls to the reference (alpha = 0): there is no fixed point, p goes to 1"
    if float(normalization.steepest()[1]) <= 1e-12 * float(normalization.gap(0.0)):
        text = "the advantage gap does not depend on p, so every multiplier is 1 - alpha: no fixed point folds or flips"
        return normalization, text
    return normalization, ""

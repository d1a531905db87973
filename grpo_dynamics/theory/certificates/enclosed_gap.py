"""The advantage gap Ω in ball arithmetic, with what is proved about its shape."""

from __future__ import annotations

from flint import arb

from grpo_dynamics.finite_group import FiniteGroup
from grpo_dynamics.normalization import MeanOnly, Normalization, Whitened
from grpo_dynamics.theory.certificates.balls import Ball, EnclosedGap, no_success_at_one
from grpo_dynamics.theory.certificates.enclosed_group import enclosed_group_gap


def enclosed_gap(normalization: Normalization) -> EnclosedGap:
    """Return Ω of one normalisation whose options are plain numbers, taken as exact.

    Raises:
        ValueError: for a class of normalisation that has no enclosure.
        NotProved: if the shape of a finite group's Ω is not decided at this precision.
    """
    kind = type(normalization)  # nothing is known of a subclass
    if isinstance(normalization, Whitened) and kind is Whitened:
        if normalization.eps == 0:
            return _unsmoothed()
        in_variance = normalization.eps_placement == "variance"
        return _smoothed_variance(normalization.eps) if in_variance else _smoothed_std(normalization.eps)
    if isinstance(normalization, MeanOnly) and kind is MeanOnly:
        return _constant(normalization.group_size)
    if isinstance(normalization, FiniteGroup) and kind is FiniteGroup:
        return enclosed_group_gap(normalization)
    raise ValueError(f"normalization must be Whitened, MeanOnly or FiniteGroup, got {normalization!r}")


def _none() -> list[Ball]:
    return []


def _constant(group_size: int | None) -> EnclosedGap:
    """Ω = 1, or (G−1)/G."""
    zero = arb(0)
    gap = arb(1) if group_size is None else (arb(group_size) - 1) / arb(group_size)
    return EnclosedGap(lambda log_odds: (gap, zero), _none, _none, unbounded=False, success_at_one=no_success_at_one)


def _unsmoothed() -> EnclosedGap:
    """Ω = 2 cosh(L/2), with dΩ/dL = sinh(L/2)."""
    half = arb(0.5)

    def value_and_slope(log_odds: Ball) -> tuple[Ball, Ball]:
        sinh, cosh = (log_odds * half).sinh_cosh()
        return cosh + cosh, sinh

    return EnclosedGap(value_and_slope, _none, _none, unbounded=True, success_at_one=no_success_at_one)


def _smoothed_variance(eps: float) -> EnclosedGap:
    """Ω = (p(1−p) + ε)^(−1/2); one turn, at cosh²(L/2) = 3/2 + 1/(8ε), of slope β_c (notebook 6_bifurcations)."""
    one, half, smoothing = arb(1), arb(0.5), arb(eps)

    def value_and_slope(log_odds: Ball) -> tuple[Ball, Ball]:
        t = (-log_odds).exp()
        width = one + t
        variance = t / (width * width)
        total = variance + smoothing
        gap = total.rsqrt()
        return gap, half * gap * variance * (one - t) / (total * width)

    return EnclosedGap(
        value_and_slope,
        lambda: [one / (3 * (3 * smoothing).sqrt() * (one + 4 * smoothing))],
        lambda: [(2 + one / (4 * smoothing)).acosh()],
        unbounded=False,
        success_at_one=no_success_at_one,
    )


def _smoothed_std(eps: float) -> EnclosedGap:
    """Ω = 1/(√(p(1−p)) + ε) = 2c/(1+2εc), c = cosh(L/2), so that dΩ/dL = √(c²−1)/(1+2εc)².

    The slope rises where 2εc² − c − 4ε < 0: from c = 1 up to the positive root, its one turn.
    """
    one, half, smoothing = arb(1), arb(0.5), arb(eps)

    def value_and_slope(log_odds: Ball) -> tuple[Ball, Ball]:
        t = (-log_odds * half).exp()
        square = t * t
        std = t / (one + square)
        gap = one / (std + smoothing)
        return gap, half * gap * gap * std * (one - square) / (one + square)

    def turn() -> Ball:
        return (one + (one + 32 * smoothing * smoothing).sqrt()) / (4 * smoothing)

    def slope() -> Ball:
        c = turn()
        width = one + 2 * smoothing * c
        return (c * c - one).sqrt() / (width * width)

    return EnclosedGap(
        value_and_slope,
        lambda: [slope()],
        lambda: [2 * turn().acosh()],
        unbounded=False,
        success_at_one=no_success_at_one,
    )

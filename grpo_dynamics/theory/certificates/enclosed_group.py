"""The gap Ω_G of a finite group in ball arithmetic, its shape proved anew for each group size and smoothing."""

from __future__ import annotations

import itertools
import math
from typing import Any

from flint import arb, arb_poly, ctx

from grpo_dynamics.finite_group import FiniteGroup
from grpo_dynamics.theory.certificates.balls import Ball, EnclosedGap, NotProved, bisected, no_success_at_one, sign


def enclosed_group_gap(group: FiniteGroup) -> EnclosedGap:
    """Ω_G as a quotient of polynomials in z = 4 sinh²(L/2) = 1/(p(1−p)) − 4, all with positive coefficients.

    The signs of the coefficients of the numerators of dΩ/dz and d²Ω/dL² bound the number of their zeros z > 0
    (Descartes), so that the shape is proved anew for each G, ε, placement and ddof.
    """
    one, kept = arb(1), group.silent_groups == "keep"
    with ctx.workprec(2 * ctx.prec + 8 * int(group.group_size)):  # the numerators' coefficients cancel
        above, below, first, second = _kept_quotient(group) if kept else _mixed_quotient(group)
    above, first = _rounded(above), _rounded(first)
    if not all(c > 0 for c in first.coeffs()):
        raise NotProved
    power = below.degree()
    below = _rounded(below)

    def value_and_slope(log_odds: Ball) -> tuple[Ball, Ball]:
        t = (-log_odds).exp()
        rest = one - t
        z = rest * rest / t
        if kept:
            bottom = (z + 4) ** power
            square = bottom * (z + 4)
        else:
            bottom = below(z)
            square = bottom * bottom
        return above(z) / bottom, first(z) / square * (rest * (one + t) / t)

    places = _turns(group, second)
    return EnclosedGap(
        value_and_slope,
        lambda: [value_and_slope(place)[1] for place in places],
        lambda: places,
        unbounded=not kept,
        success_at_one=no_success_at_one if kept else lambda: _mixed_success_at_one(group),
    )


def _kept_quotient(group: FiniteGroup) -> tuple[Any, Any, Any, Any]:
    """Ω = N/v^h with v = z+4 = 1/(p(1−p)): N, v^h, and the numerators of dΩ/dz = ·/v^(h+1), d²Ω/dL² = ·/v^(h+1)."""
    z, v = arb_poly([0, 1]), arb_poly([4, 1])
    above = _gap_numerator(group)
    half = int(group.group_size) // 2 - 1
    first = above.derivative() * v - half * above
    first = arb_poly(first.coeffs()[:half])  # the leading terms cancel
    # z'' = z + 2 and z'² = z·v, where ' is d/dL
    second = (first.derivative() * v - (half + 1) * first) * z + first * (z + 2)
    return above, v**half, first, second


def _mixed_quotient(group: FiniteGroup) -> tuple[Any, Any, Any, Any]:
    """Ω = v·N/S, S for the probability of a mixed group: v·N, S, and the numerators of dΩ/dz = ·/S², d²Ω/dL² = ·/S³."""
    z, v = arb_poly([0, 1]), arb_poly([4, 1])
    above, mixed = v * _gap_numerator(group), _mixed(group)
    first = above.derivative() * mixed - above * mixed.derivative()
    second = (first.derivative() * mixed - 2 * first * mixed.derivative()) * z * v + first * mixed * (z + 2)
    return above, mixed, first, second


def _mixed_success_at_one(group: FiniteGroup) -> Ball:
    """The limit of w⁺ = N·(1+o)/(o·S), o = p/(1−p): the numerator of its slope in o has no coefficient ≥ 0."""
    size = int(group.group_size)
    with ctx.workprec(2 * ctx.prec + 8 * size):
        above = arb_poly(_gap_coefficients(group)) * arb_poly([1, 1])
        below = arb_poly([0, *(arb(math.comb(size, k)) for k in range(1, size))])
        falling = above.derivative() * below - above * below.derivative()
        if not all(c < 0 for c in falling.coeffs()[: 2 * size - 3]):  # the leading terms cancel
            raise NotProved
        return above.coeffs()[-1] / below.coeffs()[-1]


def _mixed(group: FiniteGroup) -> Any:
    """S(z) of the probability Σ_k C(G,k) p^k (1−p)^(G−k), k = 1 … G−1, that a group is mixed."""
    size = int(group.group_size)
    return _in_z([arb(math.comb(size, k)) for k in range(1, size)])


def _gap_numerator(group: FiniteGroup) -> Any:
    """N as a polynomial in z."""
    return _in_z(_gap_coefficients(group))


def _gap_coefficients(group: FiniteGroup) -> list[Ball]:
    """(G−1)/G·C(G−2,k−1)/s_k, k = 1 … G−1: Σ_k of these times p^(k−1) (1−p)^(G−1−k) is Ω_G (7_finite_groups)."""
    size, eps = int(group.group_size), arb(group.eps)

    def inverse_std(k: int) -> Ball:
        variance = arb(k * (size - k)) / (size * (size - group.ddof))
        return 1 / ((variance + eps).sqrt() if group.eps_placement == "variance" else variance.sqrt() + eps)

    inverse = [inverse_std(k) for k in range(1, size // 2 + 1)]  # s_k = s_{G−k}
    scale = arb(size - 1) / size
    return [scale * math.comb(size - 2, k - 1) * inverse[min(k, size - k) - 1] for k in range(1, size)]


def _in_z(coefficients: list[Ball]) -> Any:
    """The palindromic Σ_j c_j o^j, j = 0 … n, over o^(n/2), or over (1+o)·o^((n−1)/2) for odd n, as polynomial in z.

    Sums up o^j + o^−j, or (o^(j+½) + o^(−j−½))/(o^½ + o^−½): Chebyshev polynomials of 1 + z/2 = cosh L.
    """
    degree = len(coefficients) - 1
    middle, double = degree // 2, arb_poly([2, 1])
    previous, present = (arb_poly([2]), double) if degree % 2 == 0 else (arb_poly([1]), arb_poly([1, 1]))
    total = coefficients[middle] * (previous if degree % 2 else arb_poly([1]))
    for j in range(1, middle + 1):
        total += coefficients[middle - j] * present
        previous, present = present, double * present - previous
    return total


def _rounded(polynomial: Any) -> Any:
    """The polynomial with its coefficients rounded to the working precision."""
    return arb_poly([c + 0 for c in polynomial.coeffs()])


def _sign_changes(polynomial: Any) -> int:
    """How often the signs of the coefficients change: no fewer than the polynomial has positive zeros (Descartes)."""
    signs = [sign(c) for c in polynomial.coeffs()]
    if 0 in signs:
        raise NotProved
    return sum(a != b for a, b in itertools.pairwise(signs))


def _turns(group: FiniteGroup, second: Any) -> list[Ball]:
    """A ball around each zero L > 0 of d²Ω/dL²: as many sign changes found as the coefficients allow at most."""

    def curvature(log_odds: Ball) -> int:
        return sign(second(4 * (log_odds / 2).sinh() ** 2))

    number = _sign_changes(second)
    guesses = [float(turn) for turn in group.turns() if math.isfinite(turn)] if number else []
    tiny = arb(2) ** -ctx.prec
    with ctx.workprec(2 * ctx.prec + 8 * int(group.group_size)):
        places = [arb(g, max(1.0, g) * 2.0**-16) for g in guesses]
        isolated = all(curvature(place.lower()) * curvature(place.upper()) < 0 for place in places)
        if not isolated or len(places) != number or any(not a < b for a, b in itertools.pairwise(places)):
            raise NotProved
        return [bisected(curvature, place.lower(), place.upper(), tiny) for place in places]

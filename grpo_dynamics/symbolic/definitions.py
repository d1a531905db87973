"""The objects of the theory as sympy expressions: the same definitions as the numeric package, written once more.

Nothing here imports the numeric package; tests tie the two at 50 digits.
"""

from __future__ import annotations

from typing import Any

import sympy as sp  # pyright: ignore[reportMissingTypeStubs]

p: Any = sp.Symbol("p", positive=True)
"""Success probability; 1 − p is positive too, which sympy is told through :data:`odds` where it matters."""
odds: Any = sp.Symbol("o", positive=True)
"""p/(1−p): with p = o/(1+o) every expression in p ∈ (0, 1) becomes one in a positive symbol."""
log_odds: Any = sp.Symbol("L", real=True)
half: Any = sp.Symbol("y", real=True)
"""Half log-odds y = L/2."""
p_ref: Any = sp.Symbol("p_ref", positive=True)
log_odds_ref: Any = sp.Symbol("L_ref", real=True)
beta: Any = sp.Symbol("beta", positive=True)
eps: Any = sp.Symbol("epsilon", positive=True)
"""Smoothing of the variance, and nothing else."""
alpha: Any = sp.Symbol("alpha", positive=True)
"""KL anchor in (0, 1]; expressions in it extend to 0 by continuity."""


def logit(x: Any) -> Any:
    """log(x/(1−x))."""
    return sp.log(x / (1 - x))


def sigmoid(x: Any) -> Any:
    """1/(1+e^(−x))."""
    return 1 / (1 + sp.exp(-x))


def gap(x: Any, smoothing: Any = eps) -> Any:
    """Ω_ε(p) = (p(1−p)+ε)^(−1/2) [2503.06639v4, Prop. 1]."""
    return 1 / sp.sqrt(x * (1 - x) + smoothing)


def weight_positive(x: Any, smoothing: Any = eps) -> Any:
    """ω⁺(p), the advantage of a success [2503.06639v4, eq. 5]."""
    return (1 - x) * gap(x, smoothing)


def weight_negative(x: Any, smoothing: Any = eps) -> Any:
    """ω⁻(p), minus the advantage of a failure [2503.06639v4, eq. 5]."""
    return x * gap(x, smoothing)


def gap_of_half(y: Any, smoothing: Any = eps) -> Any:
    """½Ω at half log-odds y: g(y) = (sech²y + 4ε)^(−1/2), so that the map is y ← y_ref + g(y)/β."""
    return 1 / sp.sqrt(1 / sp.cosh(y) ** 2 + 4 * smoothing)


def step(state: Any, reference: Any, gap_value: Any, strength: Any = beta, anchor: Any = alpha) -> Any:
    """L_n = α·L_ref + (1−α)·L_{n−1} + Ω/β, the recursion of every variant."""
    return anchor * reference + (1 - anchor) * state + gap_value / strength


def success_map(x: Any, reference: Any = p_ref, smoothing: Any = eps) -> Any:
    """The GRPO map h(p) as Theorem 2 prints it [2503.06639v4, Thm 2]."""
    return 1 / (1 + (1 - reference) / reference * sp.exp(-gap(x, smoothing) / beta))


def stability_bound(x: Any, smoothing: Any = eps) -> Any:
    """B_ε(p) without the absolute value: p(1−p)(2p−1)/(2[p(1−p)+ε]^(3/2)) [2503.06639v4, Lemma 1]."""
    return x * (1 - x) * (2 * x - 1) / (2 * (x * (1 - x) + smoothing) ** sp.Rational(3, 2))


def schwarzian(function: Any, x: Any) -> Any:
    """f'''/f' − (3/2)(f''/f')²."""
    first, second, third = (sp.diff(function, x, k) for k in (1, 2, 3))
    return third / first - sp.Rational(3, 2) * (second / first) ** 2


def group_gap(size: int, x: Any, smoothing: Any = 0, ddof: int = 0) -> Any:
    """Ω_G(p) of a group of G samples, ε added to the standard deviation, silent groups giving 0."""

    def scaled(k: int, numerator: Any) -> Any:
        if k in (0, size):
            return sp.Integer(0)
        share = sp.Rational(k, size)
        return numerator / (sp.sqrt(share * (1 - share) * sp.Rational(size, size - ddof)) + smoothing)

    return sum(
        sp.binomial(size - 1, s)
        * x**s
        * (1 - x) ** (size - 1 - s)
        * (scaled(s + 1, 1 - sp.Rational(s + 1, size)) + scaled(s, sp.Rational(s, size)))
        for s in range(size)
    )


def fold_cubic(w: Any, strength: Any = beta, smoothing: Any = eps) -> Any:
    """4εβ²w³ − w + 1 + 4ε, whose roots w = 1 + 4ε cosh²y are the folds."""
    return 4 * smoothing * strength**2 * w**3 - w + 1 + 4 * smoothing


def gap_with_std(x: Any, smoothing: Any = eps) -> Any:
    """1/(√(p(1−p))+ε): ε added to the standard deviation, as trainers do."""
    return 1 / (sp.sqrt(x * (1 - x)) + smoothing)


def group_weights(size: int, x: Any, smoothing: Any = 0, ddof: int = 0, inside: bool = False) -> tuple[Any, Any]:
    """ω⁺ and ω⁻ in a group of G samples: the expected advantage of a sample given its reward.

    ``inside`` puts ε inside the root instead of adding it to the standard deviation.
    """

    def advantage(reward: int, k: int) -> Any:
        if k in (0, size):
            return sp.Integer(0)
        share = sp.Rational(k, size)
        variance = share * (1 - share) * sp.Rational(size, size - ddof)
        return (reward - share) / (sp.sqrt(variance + smoothing) if inside else sp.sqrt(variance) + smoothing)

    others = [sp.binomial(size - 1, s) * x**s * (1 - x) ** (size - 1 - s) for s in range(size)]
    success = sum(chance * advantage(1, s + 1) for s, chance in enumerate(others))
    failure = sum(chance * advantage(0, s) for s, chance in enumerate(others))
    return success, -failure


def mixed_share(size: int, x: Any) -> Any:
    """1 − p^G − (1−p)^G, the share of groups that are neither all right nor all wrong."""
    return 1 - x**size - (1 - x) ** size


def largest_stability_bound(smoothing: Any = eps) -> Any:
    """max_p B_ε(p) = 1/(3√(3ε)(1+4ε))."""
    return 1 / (3 * sp.sqrt(3 * smoothing) * (1 + 4 * smoothing))


def balancing_beta(state: Any, reference: Any, gap_value: Any, anchor: Any = alpha) -> Any:
    """Ω/(α(L − L_ref)): the β at which a step leaves L where it is."""
    return gap_value / (anchor * (state - reference))


def amplification_sides_v1(x: Any = p_ref, strength: Any = beta, smoothing: Any = eps) -> tuple[Any, Any]:
    """Left and right side of the first versions' amplification condition, left ≥ right [2503.06639v1-v3, Thm 3]."""
    left = strength * sp.cosh(1 / (2 * strength * sp.sqrt(sp.Rational(1, 4) + smoothing))) ** 2
    return left, stability_bound(x, smoothing)

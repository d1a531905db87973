"""The GRPO map in half log-odds y ← y_ref + g(y)/β, written with t = e^y: what the bifurcation theorems share."""

from __future__ import annotations

from typing import Any

import sympy as sp  # pyright: ignore[reportMissingTypeStubs]

from grpo_dynamics.symbolic.definitions import eps, gap_of_half, half
from grpo_dynamics.symbolic.proof import Step, identity

t: Any = sp.Symbol("t", positive=True)
cosh: Any = (t + 1 / t) / 2
sinh: Any = (t - 1 / t) / 2
width: Any = 1 + 4 * eps * cosh**2
"""w ≥ 1 + 4ε."""
half_gap: Any = cosh / sp.sqrt(width)
"""g(y); ``slope_steps`` shows that it is the definition's."""
slope: Any = sinh / width ** sp.Rational(3, 2)
"""g'(y)."""


def by_half(expression: Any) -> Any:
    """The derivative with respect to y = log t."""
    return t * sp.diff(expression, t)


def mirrored(expression: Any) -> Any:
    """The expression at −y."""
    return expression.subs(t, 1 / t)


def slope_steps() -> list[Step]:
    """G and its slope in the variables above; what every theorem here starts from."""
    return [
        identity(r"$g^2=\cosh^2y/w$; both are positive", gap_of_half(half) ** 2, (half_gap**2).subs(t, sp.exp(half))),
        identity(r"$g'=\sinh y\,w^{-3/2}$", sp.expand(by_half(half_gap) * width ** sp.Rational(3, 2)), sinh),
    ]

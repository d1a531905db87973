"""Approximate policies: how far the success probability can be from the exact one, and the sharp constant."""

from __future__ import annotations

from typing import Any

import sympy as sp  # pyright: ignore[reportMissingTypeStubs]

from grpo_dynamics.symbolic.proof import Step, Theorem, argument, identity, positive

moved: Any = sp.Symbol("delta", positive=True)
chances: Any = sp.symbols("a b f", positive=True)
"""An exact policy on two successes and one failure; a + b + f = 1."""


def distance(left: tuple[Any, ...], right: tuple[Any, ...]) -> Any:
    """Total variation, half the sum of the absolute differences."""
    return sum(sp.Abs(sp.expand(x - y)) for x, y in zip(left, right, strict=True)) / 2


def _half_bound() -> list[Step]:
    win: Any = sp.Symbol("x", real=True)
    return [
        argument(
            r"$x=\tilde p-p=\sum_S(\tilde\pi-\pi)$ and, both being normalised, $\sum_F(\tilde\pi-\pi)=-x$",
            "probabilities sum to 1",
        ),
        identity(r"$\frac12(|x|+|-x|)=|x|$", (sp.Abs(win) + sp.Abs(-win)) / 2, sp.Abs(win)),
        argument(
            r"$|x|\leq\sum_S|\tilde\pi-\pi|$ and $|-x|\leq\sum_F|\tilde\pi-\pi|$, so $|\tilde p-p|\leq\mathrm{TV}$",
            "triangle inequality",
        ),
    ]


def _summed() -> Step:
    return argument(
        r"$\mathrm{TV}_n\leq\mathrm{TV}_{n-1}+\delta_n$ from $\mathrm{TV}_0=0$ gives "
        r"$\mathrm{TV}_n\leq\sum_{i\leq n}\delta_i\leq\delta^*$",
        "induction on n; partial sums of nonnegative terms",
    )


def _pair() -> tuple[tuple[Any, ...], tuple[Any, ...], tuple[Any, ...]]:
    """π, π with δ moved from the failure to a success, and π with δ moved between the successes."""
    a, b, f = chances
    return (a, b, f), (a + moved, b, f - moved), (a + moved, b - moved, f)


def _theorem_10() -> list[Step]:
    total: Any = sp.Symbol("delta^*", nonnegative=True)
    exact, shifted, swapped = _pair()
    return [
        *_half_bound(),
        _summed(),
        positive(r"$\mathrm{TV}\leq\delta^*\leq2\delta^*$", 2 * total - total, strict=False),
        argument(
            r"$|\tilde p_n-p^*|\leq|\tilde p_n-p_n|+|p_n-p^*|$ and $p_n\to p^*$: $\limsup|\tilde p_n-p^*|\leq\delta^*"
            r"\leq2\delta^*$",
            "triangle inequality and limsup of a sum",
        ),
        identity(
            r"the limit itself need not exist: $\mathrm{TV}=\delta$ with $\delta$ moved from failure to success ...",
            distance(exact, shifted),
            moved,
        ),
        identity(r"... and with $\delta$ moved from success to success", distance(exact, swapped), moved),
        identity(r"there $\tilde p-p=\delta$ ...", shifted[0] + shifted[1] - exact[0] - exact[1], moved),
        identity(r"... and here $\tilde p-p=0$", swapped[0] + swapped[1] - exact[0] - exact[1]),
        argument(
            r"alternating between the two from $n=1$ on meets the assumption with $\delta_1=\delta$, $\delta_n=0$ "
            r"after, and $|\tilde p_n-p_n|$ alternates between $\delta$ and $0$",
            "two subsequences with different limits",
        ),
    ]


def _sharp() -> list[Step]:
    exact, shifted, _ = _pair()
    start, rest, failure = sp.symbols("a b f", positive=True)
    spread = sp.Symbol("t", positive=True)
    return [
        *_half_bound(),
        _summed(),
        positive(
            r"the extremal pair is a pair of distributions: $f-\delta>0$ for $f=\delta+t$",
            (failure - moved).subs(failure, moved + spread),
        ),
        identity(r"its second member sums to 1 if the first does", sum(shifted) - sum(exact)),
        identity(r"$\mathrm{TV}=\delta$", distance(exact, shifted), moved),
        identity(r"and $|\tilde p-p|=\delta$: equality", sp.Abs((shifted[0] + shifted[1]) - (start + rest)), moved),
        argument(
            r"kept for all $n\geq1$, with exact policies that have arrived (Dr. GRPO after one step), it meets the "
            r"assumption with $\delta^*=\delta_1=\delta$, and $|\tilde p_n-p^*|=\delta^*$",
            "a constant sequence",
        ),
        positive(r"so no constant $1-t$ would do: $\delta-(1-t)\delta>0$", sp.expand(moved - (1 - spread) * moved)),
    ]


THEOREMS: list[Theorem] = [
    Theorem(
        "thm10",
        "parametric policies stay near the fixed point",
        r"\limsup_n |\tilde p_n - p^*| \leq 2\delta^*",
        "2503.06639v4, Thm 10",
        (
            r"$\mathrm{TV}(\tilde\pi_n,\pi_n) \leq \mathrm{TV}(\tilde\pi_{n-1},\pi_{n-1}) + \delta_n$",
            r"$\tilde\pi_0=\pi_0$",
            r"$\sum_{i\leq n}\delta_i\to\delta^*$",
            r"$p_n\to p^*$",
        ),
        _theorem_10,
        "The paper writes lim for lim sup; under its assumption the limit need not exist (steps). The factor 2 is not "
        "needed, see tv-sharp; with δ* = 0 the limit exists and is 0. Its proof prints the factor 2 in front of the "
        "sum only and leaves the range of f open, ‖f‖_∞ ≤ 1.",
    ),
    Theorem(
        "tv-sharp",
        "the sharp constant in theorem 10 is 1",
        r"|\tilde p - p| \leq \mathrm{TV}(\tilde\pi,\pi) = \tfrac12\|\tilde\pi-\pi\|_1,\quad "
        r"\limsup_n|\tilde p_n-p^*|\leq\delta^*, \text{ with equality attained}",
        "ours",
        ("as in thm10",),
        _sharp,
    ),
]

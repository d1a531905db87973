"""Dynamics that go to p = 1 or arrive at once: mirror GRPO, and the Dr. GRPO pair in closed form."""

from __future__ import annotations

from typing import Any

import sympy as sp  # pyright: ignore[reportMissingTypeStubs]

from grpo_dynamics.symbolic import definitions as d
from grpo_dynamics.symbolic.proof import Step, Theorem, argument, identity, limit, positive

p, beta, eps, odds, state, reference = d.p, d.beta, d.eps, d.odds, d.log_odds, d.log_odds_ref
n: Any = sp.Symbol("n", integer=True, nonnegative=True)
push: Any = sp.Symbol("Omega", positive=True)
one, zero = sp.Integer(1), sp.Integer(0)


def mirror_map(x: Any, gap_value: Any) -> Any:
    """p·e^(Ω/β)/(p·e^(Ω/β) + 1 − p): σ(logit p + Ω/β), also where logit p is infinite."""
    raised = x * sp.exp(gap_value / beta)
    return raised / (raised + 1 - x)


def _theorem_5() -> list[Step]:
    at_odds = {p: odds / (1 + odds)}
    increment = d.step(state, reference, push, anchor=zero) - state
    least = 1 / (beta * sp.sqrt(sp.Rational(1, 4) + eps))
    first, climb = sp.Symbol("L_0", real=True), sp.Symbol("a", positive=True)
    ends = mirror_map(p, d.gap(p))
    end: Any = 1 / (beta * sp.sqrt(eps))
    return [
        identity(r"$L_n-L_{n-1}=\Omega(p_{n-1})/\beta$", increment, push / beta),
        positive(
            r"which is positive at every $p\in(0,1)$: $p_n>p_{n-1}$", sp.together((d.gap(p) / beta).subs(at_odds))
        ),
        argument(r"no interior fixed point: $L=L+\Omega/\beta$ has no solution", "an increment > 0 is not 0"),
        identity(
            r"$\frac14+\varepsilon-(p(1-p)+\varepsilon)=(p-\frac12)^2\geq0$",
            sp.Rational(1, 4) + eps - d.gap(p) ** -2,
            (p - sp.Rational(1, 2)) ** 2,
        ),
        argument(r"so every increment is at least $a=1/(\beta\sqrt{1/4+\varepsilon})$", "x ↦ x^(−1/2) is decreasing"),
        positive("and $a>0$", least),
        argument(r"$L_n\geq L_0+na$", "induction on n"),
        limit(r"$L_0+na\to\infty$", first + n * climb, n, sp.oo, sp.oo),
        limit(r"and $\sigma(L)\to1$ as $L\to\infty$: $p_n\uparrow1$", d.sigmoid(state), state, sp.oo, 1),
        identity(
            r"in odds the map is $p\,e^{\Omega/\beta}/(p\,e^{\Omega/\beta}+1-p)$",
            sp.simplify(mirror_map(odds / (1 + odds), push)),
            sp.simplify(d.sigmoid(sp.log(odds) + push / beta)),
        ),
        identity(r"$p=0$ is a fixed point: without success nothing changes", ends.subs(p, 0), 0),
        identity(r"$p=1$ is a fixed point", ends.subs(p, 1), 1),
        identity(r"the slope at $p=1$ is $e^{-1/(\beta\sqrt\varepsilon)}$", sp.diff(ends, p).subs(p, 1), sp.exp(-end)),
        identity(r"the slope at $p=0$ is $e^{1/(\beta\sqrt\varepsilon)}$", sp.diff(ends, p).subs(p, 0), sp.exp(end)),
        positive(r"so $p=1$ attracts and $p=0$ repels: the exponent $1/(\beta\sqrt\varepsilon)$ is positive", end),
    ]


def _dr_grpo() -> list[Step]:
    stepped = d.step(state, reference, one, anchor=one)
    target = reference + 1 / beta
    return [
        identity(r"mean-only weights: $\Omega=(1-p)+p=1$", (1 - p) + p, 1),
        identity(r"$L_n=L_{\rm ref}+1/\beta$, whatever $L_{n-1}$", stepped, target),
        identity(r"the multiplier is 0", sp.diff(stepped, state), 0),
        identity(r"it is the fixed point, reached in one step and kept", stepped.subs(state, target), target),
        positive(r"and lies above $L_{\rm ref}$", target - reference),
    ]


def _mirror_dr_grpo() -> list[Step]:
    closed = reference + n / beta
    after = 1 / (1 + sp.exp(-n / beta) / odds)
    return [
        identity(r"$L_0=L_{\rm ref}$", closed.subs(n, 0), reference),
        identity(r"one step more", d.step(closed, reference, one, anchor=zero), closed.subs(n, n + 1)),
        argument(r"so $L_n=L_{\rm ref}+n/\beta$", "induction on n"),
        positive(r"each step raises $L$ by $1/\beta>0$: no interior fixed point", 1 / beta),
        identity(
            r"$p_n=1/(1+\frac{1-p_{\rm ref}}{p_{\rm ref}}e^{-n/\beta})$, with $p_{\rm ref}/(1-p_{\rm ref})=o$",
            sp.simplify(d.sigmoid(sp.log(odds) + n / beta)),
            sp.simplify(after),
        ),
        limit(r"$p_n\to1$", after, n, sp.oo, 1),
    ]


THEOREMS: list[Theorem] = [
    Theorem(
        "thm5",
        "mirror GRPO improves monotonically, to 1",
        r"p_n > p_{n-1} \text{ on } (0,1),\quad \text{the fixed points are } \{0,1\},\quad "
        r"p_{\rm ref}\in(0,1) \implies p_n\uparrow 1,\quad p_{\rm ref}=0 \implies p_n=0",
        "2503.06639v4, Thm 5",
        (r"$\beta>0$", r"$\varepsilon>0$"),
        _theorem_5,
        "The paper's proof says that the limit is 1 because it is the fixed point; that needs continuity at the limit, "
        "or the bound on the increments used here. The proof is headed as that of Thm 4. 'Absorbing' fits p = 0 only "
        "in that p_ref = 0 stays there: p = 0 repels every other start.",
    ),
    Theorem(
        "dr-grpo",
        "Dr. GRPO arrives in one step",
        r"L_n = L_{\rm ref} + 1/\beta \text{ for every } n\geq1",
        "2503.06639v4, Sec. 5",
        (r"$0<p_{\rm ref}<1$", r"$\beta>0$"),
        _dr_grpo,
    ),
    Theorem(
        "mirror-dr-grpo",
        "mirror Dr. GRPO is an arithmetic progression",
        r"L_n = L_{\rm ref} + n/\beta,\quad p_n\uparrow 1",
        "2503.06639v4, Sec. 5",
        (r"$0<p_{\rm ref}<1$", r"$\beta>0$"),
        _mirror_dr_grpo,
    ),
]

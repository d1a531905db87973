"""The amplification condition of the paper's first versions, and where it can fail at all."""

from __future__ import annotations

from typing import Any

import sympy as sp  # pyright: ignore[reportMissingTypeStubs]

from grpo_dynamics.symbolic import definitions as d
from grpo_dynamics.symbolic.proof import Step, Theorem, argument, at_a_point, identity, polynomial_sign, positive

p, beta, eps, odds = d.p, d.beta, d.eps, d.odds
above_half: Any = {p: (1 + odds) / (2 + odds)}
point, other = sp.symbols("x y", positive=True)

BELOW, ABOVE = sp.Rational("0.95634"), sp.Rational("0.95635")
"""Between these two lies the p_ref from which on the condition can fail."""
BARRIER = sp.Rational("2.2333")
"""Rational, between sinh y at ``BELOW`` and the minimum of cosh²u/u."""


def right_side(x: Any, smoothing: Any = eps) -> Any:
    """What β·cosh²(1/(2β√(1/4+ε))) must not be below."""
    return d.amplification_sides_v1(x, smoothing=smoothing)[1]


def _lemmas() -> list[Step]:
    height: Any = sp.Symbol("z", real=True)
    return [
        identity(
            r"$\sigma(z)(1-\sigma(z))=1/(4\cosh^2(z/2))$",
            (d.sigmoid(height) * (1 - d.sigmoid(height))).rewrite(sp.exp),
            (1 / (4 * sp.cosh(height / 2) ** 2)).rewrite(sp.exp),
        ),
        identity(
            r"$\cosh(x+y)-\cosh x\cosh y=\sinh x\sinh y$",
            sp.expand_trig(sp.cosh(point + other)) - sp.cosh(point) * sp.cosh(other),
            sp.sinh(point) * sp.sinh(other),
        ),
        positive(
            r"which is positive for $x,y>0$: $\sigma'(x+y)\leq1/(4\cosh^2\frac x2\cosh^2\frac y2)$",
            sp.sinh(point) * sp.sinh(other),
        ),
        identity(
            r"$\cosh^2(a/2)=1/(4p_{\rm ref}(1-p_{\rm ref}))$ with $a=\mathrm{logit}\,p_{\rm ref}$",
            sp.cosh(sp.log(odds) / 2).rewrite(sp.exp) ** 2,
            1 / (4 * odds / (1 + odds) ** 2),
        ),
    ]


def _amplification() -> list[Step]:
    base = p * (1 - p) + eps
    steep = (2 * p - 1) / base ** sp.Rational(3, 2)
    steeper = 2 / base ** sp.Rational(3, 2) + sp.Rational(3, 2) * (2 * p - 1) ** 2 / base ** sp.Rational(5, 2)
    cosh, needed, surplus = sp.symbols("C R t", positive=True)
    return [
        *_lemmas(),
        identity(
            r"$(2p-1)/[p(1-p)+\varepsilon]^{3/2}$ has the slope $2[\cdot]^{-3/2}+\frac32(2p-1)^2[\cdot]^{-5/2}$",
            sp.diff(steep, p),
            steeper,
        ),
        positive(r"so it rises on $(\frac12,1)$", sp.together(steeper.subs(above_half))),
        positive(
            r"$\Omega$ rises there: $\mathrm{d}\Omega/\mathrm{d}p>0$",
            sp.together(sp.diff(d.gap(p), p).subs(above_half)),
        ),
        positive(r"and $\cosh$ rises on $(0,\infty)$", sp.diff(sp.cosh(point), point)),
        argument(
            r"for $p\in(\frac12,p_{\rm ref}]$ and $f=h-p$: $f'\leq\frac{1}{4}\cdot4p_{\rm ref}(1-p_{\rm ref})\cdot"
            r"\frac{1}{C}\cdot\frac{2p_{\rm ref}-1}{2\beta[p_{\rm ref}(1-p_{\rm ref})+\varepsilon]^{3/2}}-1$ with "
            r"$C=\cosh^2(\Omega(\frac12)/2\beta)$",
            "a product of bounds on positive factors",
        ),
        identity(
            r"the bound is $R/(\beta C)-1$ with $R$ the right side of the condition",
            p * (1 - p) / cosh * (2 * p - 1) / (2 * beta * base ** sp.Rational(3, 2)) - 1,
            right_side(p) / (beta * cosh) - 1,
        ),
        positive(r"which is $\leq0$ if $\beta C=R+t\geq R$", sp.together(1 - needed / (needed + surplus))),
        argument(
            r"$f(p_{\rm ref})>0$ (thm3), so $f>0$ on $[\frac12,p_{\rm ref}]$; on $[0,\frac12]$ $h$ and $f$ fall, "
            r"and $f$ is positive at its right end $\min(\frac12,p_{\rm ref})$: no zero up to $p_{\rm ref}$",
            "monotonicity; prop1",
        ),
    ]


def _reduction() -> list[Step]:
    """From three parameters to one: the condition holds for all β and ε iff sinh y_ref ≤ min cosh²u/u."""
    variance, half = sp.Symbol("v", positive=True), d.half
    away: Any = sp.Symbol("s", real=True)
    scaled = variance * sp.sqrt(1 + 4 * eps) / (variance + eps) ** sp.Rational(3, 2)
    rate = 2 / (1 + 4 * eps) - 3 / (2 * (variance + eps))
    numerator = 4 * variance - 3 - 8 * eps
    at_half = right_side(1 / (1 + sp.exp(-2 * half)), 0)
    scale, grow = 1 / sp.sqrt(1 + 4 * eps), sp.cosh(point) ** 2 / point
    return [
        identity(
            r"$1/(2\sqrt{1/4+\varepsilon})=(1+4\varepsilon)^{-1/2}=:k$",
            1 / (2 * sp.sqrt(sp.Rational(1, 4) + eps)),
            scale,
        ),
        identity(
            r"with $u=k/\beta$: $\beta\cosh^2(k/\beta)=k\cosh^2(u)/u$",
            sp.simplify(d.amplification_sides_v1(strength=scale / point)[0]),
            scale * grow,
        ),
        identity(
            r"$\frac{\mathrm d}{\mathrm d\varepsilon}\log(R/k)=\frac2{1+4\varepsilon}-\frac3{2(v+\varepsilon)}$, "
            r"$v=p_{\rm ref}(1-p_{\rm ref})$",
            sp.simplify(sp.diff(scaled, eps) / scaled),
            rate,
        ),
        identity(
            r"$=(4v-3-8\varepsilon)/(2(1+4\varepsilon)(v+\varepsilon))$",
            rate,
            numerator / (2 * (1 + 4 * eps) * (variance + eps)),
        ),
        positive(
            r"negative, as $v=\frac14-s^2$: $R/k$ is largest at $\varepsilon=0$",
            -sp.expand(numerator.subs(variance, sp.Rational(1, 4) - away**2)),
        ),
        identity(
            r"$R=\sinh y_{\rm ref}$ at $\varepsilon=0$, with $p_{\rm ref}=\sigma(2y_{\rm ref})$: their squares agree",
            sp.simplify((at_half**2).rewrite(sp.exp)),
            sp.simplify((sp.sinh(half) ** 2).rewrite(sp.exp)),
        ),
        argument(
            r"so the condition holds for all $\beta>0$, $\varepsilon\geq0$ iff "
            r"$\sinh y_{\rm ref}\leq m:=\min_u\cosh^2(u)/u$",
            "u runs through (0, ∞) as β does",
        ),
        identity(
            r"$(\cosh^2u/u)'=\cosh u\,(2u\sinh u-\cosh u)/u^2$",
            sp.diff(grow, point),
            sp.cosh(point) * (2 * point * sp.sinh(point) - sp.cosh(point)) / point**2,
        ),
        positive(
            r"$(u\tanh u)'=\tanh u+u/\cosh^2u>0$: one minimum, at $u_0\tanh u_0=\frac12$",
            sp.tanh(point) + point / sp.cosh(point) ** 2,
        ),
        identity(
            r"where $m=\sinh2u_0$: the threshold is $y_{\rm ref}=2u_0$, $p_{\rm ref}=\sigma(4u_0)$",
            (sp.cosh(point) ** 2 / (sp.cosh(point) / (2 * sp.sinh(point)))).rewrite(sp.exp),
            sp.sinh(2 * point).rewrite(sp.exp),
        ),
    ]


def _squared(chance: Any) -> Any:
    """sinh²y at p = σ(2y)."""
    return (2 * chance - 1) ** 2 / (4 * chance * (1 - chance))


def _range() -> list[Step]:
    u: Any = sp.Symbol("u")
    series = sum((2 * u) ** (2 * k) / sp.factorial(2 * k) for k in range(9))
    w = sp.Rational("4.68")  # e^{2u} at the β that breaks the condition: u = ½ log w
    z = (w - 1) / (w + 1)
    log_w = 2 * sum(z ** (2 * k + 1) / (2 * k + 1) for k in range(30))
    cosh_squared = (w + 2 + 1 / w) / 4
    sinh_squared = _squared(p).subs(above_half)
    return [
        *_reduction(),
        argument(
            r"$\cosh^2u=\frac12(1+\cosh2u)\geq\frac12(1+\sum_{k\leq8}(2u)^{2k}/(2k)!)$",
            "the power series of cosh has no negative term",
        ),
        polynomial_sign(
            r"$\frac12(1+\sum_{k\leq8}(2u)^{2k}/(2k)!)-2.2333\,u>0$ for all $u\geq0$: $m>2.2333$",
            (1 + series) / 2 - BARRIER * u,
            u,
            0,
            sp.oo,
        ),
        at_a_point(r"$2.2333^2>\sinh^2y$ at $p_{\rm ref}=0.95634$", BARRIER**2 - _squared(BELOW)),
        positive(
            r"and $\sinh^2y=(2p-1)^2/(4p(1-p))$ rises with $p$ above $\frac12$", sp.factor(sp.diff(sinh_squared, odds))
        ),
        argument(
            r"so the condition holds for every $\beta>0$, $\varepsilon\geq0$ if $p_{\rm ref}\leq0.95634$",
            "monotonicity in p_ref, then in ε",
        ),
        argument(
            r"$\log w=2\,\mathrm{artanh}\frac{w-1}{w+1}$ is at least each partial sum of its series",
            "the series of artanh has no negative term",
        ),
        at_a_point(
            r"at $\varepsilon=0$, $\beta=2/\log w$, $w=4.68$: $u=\frac12\log w$ has "
            r"$\cosh^4u<u^2\sinh^2y$ for $p_{\rm ref}=0.95635$",
            (log_w / 2) ** 2 * _squared(ABOVE) - cosh_squared**2,
        ),
        argument(
            r"so there it fails, and for small $\varepsilon>0$ too: $0.95634<\sigma(4u_0)<0.95635$",
            "both sides are continuous in ε at 0",
        ),
    ]


THEOREMS: list[Theorem] = [
    Theorem(
        "amplification-v1",
        "the amplification condition of the first versions",
        r"p_{\rm ref}\leq\tfrac12 \ \text{ or } \ \beta\cosh^2\!\Big(\frac{1}{2\beta\sqrt{1/4+\varepsilon}}\Big) \geq "
        r"\frac{p_{\rm ref}(1-p_{\rm ref})(2p_{\rm ref}-1)}{2[p_{\rm ref}(1-p_{\rm ref})+\varepsilon]^{3/2}} "
        r"\implies p^*>p_{\rm ref}",
        "2503.06639v1-v3, Thm 3",
        (r"$0<p_{\rm ref}<1$", r"$\beta>0$", r"$\varepsilon>0$"),
        _amplification,
        "Superseded by the unconditional Theorem 3 of v4. The helper lemmas as left in the v4 source have slips: "
        "σ(1−σ) = e^{−z}/(1−e^{−z})² for (1+e^{−z})², and cosh²x = ¼σ(1−σ) for 1/(4σ(1−σ)).",
    ),
    Theorem(
        "amplification-v1-range",
        "where the first versions' condition can fail",
        r"\text{it holds for all } \beta>0,\ \varepsilon\geq0 \iff p_{\rm ref} \leq \sigma(4u_0) = 0.95634\ldots,\quad "
        r"u_0\tanh u_0=\tfrac12",
        "ours",
        (r"$0<p_{\rm ref}<1$", r"$\beta>0$", r"$\varepsilon\geq0$"),
        _range,
        "Rounded to four digits, at ε = 1e-5, the threshold is 0.9564; as ε → 0 the condition can fail for every p_ref "
        "above 0.95635 (at 0.95636, say), so 'only for p_ref > 0.9564' would be false in the last digit.",
    ),
]

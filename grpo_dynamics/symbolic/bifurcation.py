"""The complete bifurcation picture of the GRPO map y ← y_ref + g(y)/β: how many fixed points, and where that changes.

y is half the log-odds, t = e^y, c = cosh²y ≥ 1, w = 1 + 4εc, g = cosh y/√w.
"""

from __future__ import annotations

from typing import Any

import sympy as sp  # pyright: ignore[reportMissingTypeStubs]

from grpo_dynamics.symbolic.definitions import beta, eps, fold_cubic
from grpo_dynamics.symbolic.half_log_odds import by_half, cosh, half_gap, mirrored, sinh, slope, slope_steps, t, width
from grpo_dynamics.symbolic.proof import Step, Theorem, argument, identity, positive

w: Any = sp.Symbol("w", positive=True)
s: Any = sp.Symbol("s", positive=True)
"""sinh²y > 0."""
critical: Any = 1 / (3 * sp.sqrt(3 * eps) * (1 + 4 * eps))
"""β_c."""
middle: Any = 1 / (sp.sqrt(12 * eps) * beta)
"""w_m, where the fold cubic is least among w > 0."""


def _fold_cubic() -> list[Step]:
    folded = (w - 1 - 4 * eps) / (4 * eps)
    return [
        *slope_steps(),
        argument(
            r"a fold is $F'=1-g'/\beta=0$, that is $\sinh y=\beta w^{3/2}$, so $y>0$ and $\sinh^2y=\beta^2w^3$; "
            r"conversely "
            r"$\sinh^2y=\beta^2w^3$ with $y>0$ gives $\sinh y=\beta w^{3/2}$",
            "both sides positive",
        ),
        identity(r"$\sinh^2y=(w-1-4\varepsilon)/(4\varepsilon)$", sinh**2, folded.subs(w, width)),
        identity(
            r"$4\varepsilon(\beta^2w^3-\sinh^2y)$ is the cubic", 4 * eps * (beta**2 * w**3 - folded), fold_cubic(w)
        ),
        identity(
            r"at a root $w-(1+4\varepsilon)=4\varepsilon\beta^2w^3$",
            w - (1 + 4 * eps),
            4 * eps * beta**2 * w**3 - fold_cubic(w),
        ),
        positive(
            r"so every positive root exceeds $1+4\varepsilon$ and belongs to exactly one $y>0$",
            4 * eps * beta**2 * w**3,
        ),
        identity(
            r"at $\varepsilon=0$ the condition is $\sinh y=\beta$ (the cubic says nothing there)",
            (slope - beta).subs(eps, 0),
            sinh - beta,
        ),
    ]


def _fold_roots() -> list[Step]:
    theta: Any = sp.Symbol("theta", real=True)
    third = 2 * sp.pi / 3
    least = sp.Symbol("w_m", positive=True)
    leading = sp.Rational(1, 3) / least**2
    roots = [2 * least * sp.cos(theta + k * third) for k in (0, 1, -1)]
    product = sp.expand(sp.expand_trig(leading * (w - roots[0]) * (w - roots[1]) * (w - roots[2])))
    return [
        identity(
            r"$4\varepsilon\beta^2=1/(3w_m^2)$ with $w_m=1/\sqrt{12\varepsilon\beta^2}$",
            4 * eps * beta**2,
            1 / (3 * middle**2),
        ),
        identity(
            r"$-\frac23w_m\cos3\theta=1+4\varepsilon$ when $\cos3\theta=-\beta/\beta_c$",
            sp.Rational(2, 3) * middle * beta / critical,
            1 + 4 * eps,
        ),
        identity(
            r"$\frac1{3w_m^2}\prod_k(w-2w_m\cos(\theta+2\pi k/3))$ is the cubic "
            r"$\frac{w^3}{3w_m^2}-w-\frac23w_m\cos3\theta$: these are "
            r"all its roots",
            product.subs(sp.sin(theta) ** 2, 1 - sp.cos(theta) ** 2),
            leading * w**3 - w - sp.Rational(2, 3) * least * sp.expand_trig(sp.cos(3 * theta)),
        ),
        identity(r"$\cos\frac\pi6=\frac{\sqrt3}2$", sp.cos(sp.pi / 6), sp.sqrt(3) / 2),
        identity(r"$\cos\frac\pi3=\frac12$", sp.cos(sp.pi / 3), sp.Rational(1, 2)),
        identity(r"$\cos\frac\pi2=0$", sp.cos(sp.pi / 2), 0),
        argument(
            r"for $0<\beta\leq\beta_c$ take $3\theta=\arccos(-\beta/\beta_c)\in(\frac\pi2,\pi]$, so "
            r"$\theta\in(\frac\pi6,\frac\pi3]$: "
            r"$2w_m\cos\theta\in[w_m,\sqrt3w_m)$ is the upper fold $y_2$; "
            r"$\frac{2\pi}3-\theta\in[\frac\pi3,\frac\pi2)$: "
            r"$2w_m\cos(\theta-\frac{2\pi}3)\in(0,w_m]$ is the lower fold $y_1$; "
            r"$\theta+\frac{2\pi}3\in(\frac{5\pi}6,\pi]$ gives a negative "
            r"root, no fold",
            "the cosine decreases on [0, π]",
        ),
        identity(
            r"a positive root exceeds $1+4\varepsilon$, as in fold-cubic",
            w - (1 + 4 * eps),
            4 * eps * beta**2 * w**3 - fold_cubic(w),
        ),
        positive(r"since this is positive", 4 * eps * beta**2 * w**3),
    ]


def _cusp() -> list[Step]:
    square = 4 * eps * beta**2 * (w - middle) ** 2 * (w + 2 * middle)
    at_cusp = sp.Rational(3, 2) * (1 + 4 * eps)
    return [
        *slope_steps(),
        identity(
            r"the cubic is $(1+4\varepsilon)(1-\beta_c/\beta)+4\varepsilon\beta^2(w-w_m)^2(w+2w_m)$",
            fold_cubic(w),
            (1 + 4 * eps) * (1 - critical / beta) + square,
        ),
        positive(r"the factor of the square is positive", 4 * eps * beta**2 * (w + 2 * middle)),
        identity(
            r"for $y>0$ the sign of $F'=1-g'/\beta$ is that of $\beta^2w^3-\sinh^2y$, the cubic over $4\varepsilon$",
            beta**2 * width**3 - sinh**2,
            fold_cubic(width) / (4 * eps),
        ),
        argument(
            r"for $y\leq0$, $g'\leq0$ and $F'\geq1$. So for $\beta\geq\beta_c$, $F'\geq0$ with at most one zero: $F$ "
            r"is strictly "
            r"increasing, from $-\infty$ to $\infty$ as $g$ is bounded: one fixed point for every $p_{\rm ref}$",
            "intermediate value theorem",
        ),
        argument(
            r"for $\beta<\beta_c$ the cubic is negative exactly between its two positive roots, so $F$ rises to $y_1$, "
            r"falls to $y_2$, "
            r"rises again: three zeros iff $F(y_1)>0>F(y_2)$, two iff one of these is 0, else one; $y_{\rm ref}$ only "
            r"shifts $F$, so an "
            r"open interval of $y_{\rm ref}$ has three",
            "intermediate value theorem",
        ),
        identity(
            r"at $\beta=\beta_c$ the double root is $w_m=\frac32(1+4\varepsilon)$", middle.subs(beta, critical), at_cusp
        ),
        identity(
            r"which is $\cosh^2y_c=\frac32+\frac1{8\varepsilon}$",
            (at_cusp - 1) / (4 * eps),
            sp.Rational(3, 2) + 1 / (8 * eps),
        ),
    ]


def _flip_mirror() -> list[Step]:
    root = sp.sqrt(1 + beta**2)
    at_fold = root + beta
    anchor = sp.Symbol("alpha", positive=True)
    second = cosh * width ** sp.Rational(-5, 2) * (1 + 12 * eps - 8 * eps * cosh**2)
    first, bend, rate = sp.symbols("g_1 g_2 v")  # g', g'' and dy/dy_ref
    speed = sp.solve(rate - 1 - first * rate / beta, rate)[0]
    return [
        *slope_steps(),
        identity(
            r"$g'(-y)=-g'(y)$: so $g'/\beta=-1$ at $-y$ iff $g'/\beta=1$ at $y$: $y_{\rm PD}=-y_{\rm SN}$",
            mirrored(slope),
            -slope,
        ),
        identity(
            r"$g(-y)=g(y)$: with $y_{\rm ref}=y-g/\beta$ the fold curve is $y_{\rm SN}-g(y_{\rm SN})/\beta$ and the "
            r"flip curve "
            r"$-y_{\rm SN}-g(y_{\rm SN})/\beta$",
            mirrored(half_gap),
            half_gap,
        ),
        identity(
            r"$\varepsilon=0$: the fold has $\sinh y=\beta$, that is $y=\operatorname{asinh}\beta$",
            sinh.subs(t, at_fold),
            beta,
        ),
        identity(r"there $g=\sqrt{1+\beta^2}$", half_gap.subs(eps, 0).subs(t, at_fold), root),
        identity(
            r"and $\log(\beta+\sqrt{1+\beta^2})=\operatorname{asinh}\beta$, which gives the two $y_{\rm ref}$",
            sp.asinh(beta).rewrite(sp.log),
            sp.log(at_fold),
        ),
        identity(
            r"$g''=\cosh y\,w^{-5/2}(1+12\varepsilon-8\varepsilon\cosh^2y)$",
            sp.powsimp(sp.cancel(by_half(slope) / slope)) * sinh * width,
            sp.cancel(second * width ** sp.Rational(5, 2)),
        ),
        identity(
            r"differentiate $y=y_{\rm ref}+g(y)/\beta$ along $y_{\rm ref}$: "
            r"$\mathrm dy/\mathrm dy_{\rm ref}=1/(1-m)$ with $m=g'/\beta$",
            speed,
            1 / (1 - first / beta),
        ),
        identity(
            r"so $\mathrm dm/\mathrm dy_{\rm ref}=g''/(\beta(1-m))$, at $m=-1$ $g''/(2\beta)$: it is crossed with "
            r"speed unless $g''=0$, that is at the cusp, $\beta=\beta_c$",
            (bend * speed / beta).subs(first, -beta),
            bend / (2 * beta),
        ),
        identity(
            r"where $g''=0$ is $\cosh^2y=\frac32+\frac1{8\varepsilon}$",
            (1 + 12 * eps - 8 * eps * w).subs(w, sp.Rational(3, 2) + 1 / (8 * eps)),
            0,
        ),
        identity(
            r"two-KL: $(1-\alpha)+g'/\beta=-1$ is $g'=-(2-\alpha)\beta$: its flips mirror the folds of strength "
            r"$(2-\alpha)\beta$",
            (1 - anchor) + (-(2 - anchor) * beta) / beta,
            -1,
        ),
    ]


def _at_most_three() -> list[Step]:
    c = sp.Symbol("k", nonnegative=True) + 1  # cosh² = 1 + k
    squared = c / (1 + 4 * eps * c)
    low = (c - 1) / ((1 + 4 * eps) * (1 + 4 * eps * c))
    high = 1 / (4 * eps * (1 + 4 * eps * c))
    below = sp.Symbol("x", positive=True) + 1  # e^{−y} > 1
    return [
        *slope_steps(),
        identity(
            r"$g^2-1/(1+4\varepsilon)=(c-1)/((1+4\varepsilon)w)$, with $c=\cosh^2y$", squared - 1 / (1 + 4 * eps), low
        ),
        positive(r"which is $\geq0$, and 0 at $y=0$ only", low, strict=False),
        identity(r"$1/(4\varepsilon)-g^2=1/(4\varepsilon w)$", 1 / (4 * eps) - squared, high),
        positive(r"which is positive: $y=y_{\rm ref}+g/\beta$ lies in the bracket, and never at its upper end", high),
        argument(
            r"$F\to\mp\infty$ as $y\to\mp\infty$, as $g$ is bounded: at least one zero", "intermediate value theorem"
        ),
        argument(
            r"$F'$ has at most two zeros, as the fold cubic has signs $+,-,+$ and so at most two positive roots; hence "
            r"$F$ has at "
            r"most three. As $F$ goes from $-\infty$ to $\infty$, it has two only if one of them is a zero of $F'$",
            "Descartes' rule of signs; Rolle's theorem",
        ),
        identity(
            r"for $y<0$, with $e^{-y}=1+x$: $\sinh y=-x(x+2)/(2(1+x))$",
            sinh.subs(t, 1 / below),
            -(below - 1) * (below + 1) / (2 * below),
        ),
        positive(
            r"so $-g'>0$ there and $F'>1$: at most one zero with $y<0$",
            -slope.subs(t, 1 / below).subs(sinh.subs(t, 1 / below), -(below - 1) * (below + 1) / (2 * below)),
        ),
        positive(
            r"for $y>0$ the multiplier $g'/\beta$ is positive: no flip there",
            ((below - 1) * (below + 1) / (2 * below)) / beta,
        ),
    ]


def _no_interior() -> list[Step]:
    flat = half_gap.subs(eps, 0)
    return [
        identity(
            r"at $\varepsilon=0$, $g=\cosh y$ and $F''=-\cosh y/\beta$", by_half(by_half(-flat / beta)), -cosh / beta
        ),
        positive(r"so $F$ is strictly concave", cosh / beta),
        identity(
            r"$F'=1-\sinh y/\beta$ is 0 at $y_{\rm SN}=\operatorname{asinh}\beta$ only, so $F\leq F(y_{\rm SN})$",
            (1 - sinh / beta).subs(t, beta + sp.sqrt(1 + beta**2)),
            0,
        ),
        identity(
            r"$F(y_{\rm SN})=\operatorname{asinh}\beta-\sqrt{1+\beta^2}/\beta-y_{\rm ref}$, which is negative iff "
            r"$y_{\rm ref}$ is above the "
            r"fold; write it $-f$, $f>0$",
            flat.subs(t, beta + sp.sqrt(1 + beta**2)) / beta,
            sp.sqrt(1 + beta**2) / beta,
        ),
        argument(
            r"then every step $y_n-y_{n-1}=-F(y_{n-1})\geq f>0$, so $y_n\geq y_0+nf\to\infty$ and $p_n\to1$ from every "
            r"start",
            "Archimedes' axiom",
        ),
        argument(
            r"on the fold there is one fixed point, below it two: $F\to-\infty$ on both sides of a positive maximum",
            "intermediate value theorem; strict concavity",
        ),
    ]


_BRACKET = r"\left[y_{\rm ref}+\frac1{\beta\sqrt{1+4\varepsilon}},\,y_{\rm ref}+\frac1{2\beta\sqrt\varepsilon}\right)"

THEOREMS: list[Theorem] = [
    Theorem(
        "fold-cubic",
        "Folds are the positive roots of a cubic",
        r"g'(y)=\beta\iff y>0,\ w=1+4\varepsilon\cosh^2y,\ 4\varepsilon\beta^2w^3-w+1+4\varepsilon=0",
        "ours",
        (r"$\varepsilon>0$",),
        _fold_cubic,
    ),
    Theorem(
        "fold-roots",
        "The folds by trigonometry",
        r"w_k=2w_m\cos(\theta+2\pi k/3),\ w_m=\frac1{\sqrt{12\varepsilon\beta^2}},\ \cos3\theta=-\beta/\beta_c",
        "ours",
        (r"$\varepsilon>0$", r"$0<\beta\leq\beta_c$", r"$\theta\in(\pi/6,\pi/3]$"),
        _fold_roots,
        r"Folds are $k=0$ (upper) and $k=-1$ (lower); $k=1$ is negative. At $\beta=\beta_c$ the two coincide.",
    ),
    Theorem(
        "cusp",
        "The cusp, and when there are three fixed points",
        r"\beta_c=\frac1{3\sqrt{3\varepsilon}(1+4\varepsilon)},\ \cosh^2y_c=\frac32+\frac1{8\varepsilon};\ "
        r"\text{three fixed points}\iff\beta<\beta_c\text{ and }F(y_1)>0>F(y_2)",
        "ours",
        (r"$\varepsilon>0$",),
        _cusp,
        r"$\beta_c$ is $\max_pB_\varepsilon$ (max-b).",
    ),
    Theorem(
        "flip-mirror",
        "The flip curve is the mirror of the fold curve",
        r"y_{\rm PD}=-y_{\rm SN};\ \varepsilon=0:\ y_{\rm ref}=\pm\operatorname{asinh}\beta-\sqrt{1+\beta^2}/\beta",
        "ours",
        (r"$\varepsilon\geq0$", r"at $\varepsilon>0$: $\beta\leq\beta_c$"),
        _flip_mirror,
        r"As points $y$; the values of $y_{\rm ref}$ are not mirror images. At the cusp, $\beta=\beta_c$, the "
        r"multiplier only touches $-1$.",
    ),
    Theorem(
        "at-most-three",
        "At most three fixed points, and where",
        r"1,2\text{ or }3\text{ fixed points, all in }"
        + _BRACKET
        + r"\text{; at most one has }y<0\text{, and only it can flip}",
        "ours",
        (r"$\varepsilon>0$",),
        _at_most_three,
        r"The upper end of the bracket is never attained. Its lower end is, when the fixed "
        r"point is $y=0$.",
    ),
    Theorem(
        "no-interior",
        "Without smoothing and above the fold, p → 1",
        r"\varepsilon=0,\ y_{\rm ref}>\operatorname{asinh}\beta-\sqrt{1+\beta^2}/\beta\ \Rightarrow\ p_n\to1",
        "ours",
        (r"$\varepsilon=0$",),
        _no_interior,
    ),
]

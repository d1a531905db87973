"""The map h: its shape, its fixed points, that they lie above p_ref, and when orbits converge to them."""

from __future__ import annotations

from typing import Any

import sympy as sp  # pyright: ignore[reportMissingTypeStubs]

from grpo_dynamics.symbolic import definitions as d
from grpo_dynamics.symbolic.proof import Step, Theorem, argument, identity, limit, positive

p, beta, eps, odds = d.p, d.beta, d.eps, d.odds
odds_ref, more, image = sp.symbols("o_ref t h", positive=True)
at_odds: Any = {p: odds / (1 + odds), d.p_ref: odds_ref / (1 + odds_ref)}
above_half: Any = {p: (1 + more) / (2 + more)}


def _slope() -> list[Step]:
    """H' in closed form: through the sigmoid, whose slope is σ(1−σ), and the slope of Ω/β."""
    height: Any = sp.Symbol("z", real=True)
    rise = (2 * p - 1) / (2 * beta * (p * (1 - p) + eps) ** sp.Rational(3, 2))
    return [
        identity(
            r"$\sigma'(z)=\sigma(z)(1-\sigma(z))$",
            sp.diff(d.sigmoid(height), height),
            d.sigmoid(height) * (1 - d.sigmoid(height)),
        ),
        identity(
            r"$\mathrm{d}(\Omega/\beta)/\mathrm{d}p=(2p-1)/(2\beta[p(1-p)+\varepsilon]^{3/2})$",
            sp.diff(d.gap(p) / beta, p),
            rise,
        ),
        identity(
            r"$h'(p)=-h(1-h)(1-2p)/(2\beta[p(1-p)+\varepsilon]^{3/2})$ for $h$ as printed",
            sp.diff(d.success_map(p), p) / (d.success_map(p) * (1 - d.success_map(p))),
            rise,
        ),
    ]


def _inside() -> list[Step]:
    """0 < h < 1 on [0, 1], ends included, and what that gives."""
    variance = sp.Symbol("v", nonnegative=True)
    at_variance = d.success_map(p).subs({p * (1 - p): variance, d.p_ref: odds_ref / (1 + odds_ref)})
    return [
        positive(
            r"$p(1-p)+\varepsilon\geq\varepsilon>0$ on $[0,1]$, so $h$ and $h'$ are continuous there", variance + eps
        ),
        positive(r"$h>0$, with $v=p(1-p)\geq0$ and $p_{\rm ref}=o/(1+o)$", sp.simplify(at_variance)),
        positive(r"$1-h>0$, also at $p=1$: no fixed point is $0$ or $1$", sp.simplify(1 - at_variance)),
    ]


def _shape() -> list[Step]:
    outer = sp.factor((2 * p - 1).subs(above_half))
    root = sp.together((p * (1 - p) + eps).subs(at_odds))
    return [
        *_inside(),
        argument(
            r"so $h(p)-p$ is positive at $0$ and negative at $1$, and a fixed point exists in between",
            "intermediate value theorem",
        ),
        *_slope(),
        positive(r"$h'>0$ above $p=\frac12$: the factor $2p-1$ there", outer),
        positive(r"over $[p(1-p)+\varepsilon]^{3/2}>0$", root),
        identity(r"$h'<0$ below it: $h(1-p)=h(p)$", d.success_map(1 - p), d.success_map(p)),
        identity(r"$h'(\frac12)=0$, the minimum", sp.diff(d.success_map(p), p).subs(p, sp.Rational(1, 2))),
    ]


def _logit_form() -> list[Step]:
    push: Any = sp.Symbol("Omega", positive=True)
    printed = d.success_map(p).subs(d.gap(p), push)
    return [
        identity(
            r"$h=\sigma(\mathrm{logit}\,p_{\rm ref}+\Omega/\beta)$",
            sp.simplify(printed.subs(at_odds)),
            sp.simplify(d.sigmoid(sp.log(odds_ref) + push / beta)),
        ),
        identity(
            r"$\mathrm{logit}\,\sigma(x)=x$: the odds of $\sigma(x)$ are $e^x$",
            sp.simplify(d.sigmoid(d.log_odds) / (1 - d.sigmoid(d.log_odds))),
            sp.exp(d.log_odds),
        ),
    ]


def _proposition_1() -> list[Step]:
    return [*_shape(), *_logit_form()]


def _theorem_3() -> list[Step]:
    push = sp.together((d.gap(p) / beta).subs(at_odds))
    inverse = (1 / (p * (1 - p))).subs(at_odds)
    return [
        *_inside(),
        *_logit_form(),
        positive(r"$\mathrm{logit}\,h(p)-\mathrm{logit}\,p_{\rm ref}=\Omega(p)/\beta>0$ at every $p$", push),
        identity(r"$\mathrm{d}\,\mathrm{logit}(p)/\mathrm{d}p=1/(p(1-p))$", sp.diff(d.logit(p), p), 1 / (p * (1 - p))),
        positive("which is positive, so logit is strictly increasing", sp.together(inverse)),
        argument(
            r"so $h(p)>p_{\rm ref}$ for every $p\in(0,1)$; a fixed point is one of them, and $p^*=h(p^*)>p_{\rm ref}$",
            "monotonicity of logit",
        ),
    ]


def _lemma_1() -> list[Step]:
    rise = sp.diff(d.gap(p) / beta, p)
    bound, surplus = sp.symbols("B t", positive=True)
    in_log_odds = sp.diff(d.gap(d.sigmoid(d.log_odds)) / beta, d.log_odds)
    return [
        *_slope(),
        identity(
            r"at a fixed point $h(p^*)=p^*$: $h'(p^*)=p^*(1-p^*)(2p^*-1)/(2\beta[p^*(1-p^*)+\varepsilon]^{3/2})$",
            (image * (1 - image) * rise).subs(image, p),
            d.stability_bound(p) / beta,
        ),
        identity(
            r"in log-odds, at every $L$: $\mathrm{d}L_n/\mathrm{d}L_{n-1}=\mathrm{sgn}(2p-1)\,\mathcal B(p)/\beta$",
            sp.simplify(in_log_odds),
            sp.simplify(d.stability_bound(d.sigmoid(d.log_odds)) / beta),
        ),
        identity(
            r"$\mathcal B$ without the absolute value is odd under $p\leftrightarrow1-p$",
            d.stability_bound(1 - p),
            -d.stability_bound(p),
        ),
        positive(
            r"so $|h'(p^*)|=\mathcal B/\beta$ with $\mathcal B>0$ off $p^*=\frac12$, where $h'=0$",
            sp.together(d.stability_bound(p).subs(above_half)),
        ),
        positive(r"$\beta=\mathcal B+t>\mathcal B$ gives $|h'(p^*)|<1$", sp.together(1 - bound / (bound + surplus))),
        positive(r"and $\mathcal B=\beta+t$ gives $|h'(p^*)|>1$", sp.together((beta + surplus) / beta - 1)),
    ]


def contraction_factor(slope: Any) -> Any:
    """A rate between |f'(x*)| and 1, the middle of the two."""
    return (1 + slope) / 2


def _contraction() -> list[Step]:
    n: Any = sp.Symbol("n", integer=True, nonnegative=True)
    rate, distance = sp.symbols("r delta", positive=True)
    slope = 1 / (1 + more)
    factor = contraction_factor(slope)
    return [
        positive(r"$k=\frac12(1+|f'(x^*)|)$ exceeds $|f'(x^*)|=1/(1+t)<1$", sp.factor(factor - slope)),
        positive(r"and is below 1", sp.factor(1 - factor)),
        argument(r"there is $r>0$ with $|f'|\leq k$ on $I=[x^*-r,x^*+r]$", "continuity of f'"),
        argument(r"$|f(x)-x^*|=|f(x)-f(x^*)|\leq k|x-x^*|$ for $x\in I$, so $f(I)\subset I$", "mean value theorem"),
        positive(r"the radius shrinks: $r-kr>0$", sp.factor(rate - factor * rate)),
        identity(
            r"$|x_{n+1}-x^*|\leq k\cdot k^n\delta=k^{n+1}\delta$ if $|x_n-x^*|\leq k^n\delta$",
            factor * (factor**n * distance),
            factor ** (n + 1) * distance,
        ),
        argument(r"so $|x_n-x^*|\leq k^n|x_0-x^*|$ for all $n$", "induction on n"),
        limit(r"with $k=e^{-t}$ the right side tends to 0", sp.exp(-more * n) * distance, n, sp.oo, 0),
        argument(r"$x_n\to x^*$, the only fixed point in $I$", "Banach's fixed-point theorem"),
    ]


def _theorem_6() -> list[Step]:
    return [*_shape(), *_contraction()]


THEOREMS: list[Theorem] = [
    Theorem(
        "prop1",
        "the map h: fixed points exist, where it falls and rises, its logit form",
        r"h:[0,1]\to(0,1) \text{ continuous, a fixed point exists};\quad "
        r"h' = -h(1-h)\frac{1-2p}{2\beta[p(1-p)+\varepsilon]^{3/2}};\quad "
        r"h = \sigma(\mathrm{logit}\,p_{\rm ref} + \Omega_\varepsilon(p)/\beta)",
        "2503.06639v4, Prop. 1",
        (r"$0<p_{\rm ref}<1$", r"$\beta>0$", r"$\varepsilon>0$"),
        _proposition_1,
        "The sentence after Prop. 1, that p* = 1 is almost always a fixed point, is false for every ε > 0: h < 1 on "
        "all of [0,1]. True is that for small β√ε there is a fixed point with 1 − p* of the order exp(−1/(β√ε)); "
        "p* = 1 is one only in the limit ε → 0.",
    ),
    Theorem(
        "thm3",
        "GRPO amplifies: every fixed point exceeds p_ref",
        r"p^* = h_{\varepsilon,p_{\rm ref}}(p^*) \implies p^* > p_{\rm ref}, \text{ for every } \beta>0",
        "2503.06639v4, Thm 3",
        (r"$0<p_{\rm ref}<1$", r"$\beta>0$", r"$\varepsilon>0$"),
        _theorem_3,
        "The proof prints exp(−Ω(p_ref)/β) < 1 and uses it at every p; it holds at every p.",
    ),
    Theorem(
        "lemma1",
        "the slope at a fixed point",
        r"h'(p^*) = p^*(1-p^*)\frac{2p^*-1}{2\beta[p^*(1-p^*)+\varepsilon]^{3/2}},\quad "
        r"|h'(p^*)|<1 \iff \beta>\mathcal B(p^*)",
        "2503.06639v4, Lemma 1",
        (r"$p^*=h(p^*)$", r"$0<p_{\rm ref}<1$", r"$\beta>0$", r"$\varepsilon>0$"),
        _lemma_1,
        "The paper says that β > B suffices; it is also necessary.",
    ),
    Theorem(
        "thm6",
        "local convergence to a fixed point",
        r"|h'(p^*)|<1 \implies \exists\,\delta>0:\ p_n\to p^* \text{ for every } p_0\in[p^*-\delta,p^*+\delta]",
        "2503.06639v4, Thm 6",
        (r"$p^*=h(p^*)$", r"$0<p_{\rm ref}<1$", r"$\beta>0$", r"$\varepsilon>0$"),
        _theorem_6,
        "The paper starts at p_0 = p_ref, but p* and δ themselves depend on p_ref: the condition p_ref ∈ [p*−δ, p*+δ] "
        "cannot be met by choosing p_ref freely. True is the statement for every start p_0 near p*. It promises local "
        "convergence only.",
    ),
    Theorem(
        "thm7",
        "local contraction mapping",
        r"f\in C^1,\ f(x^*)=x^*,\ |f'(x^*)|<1 \implies \exists\,r>0:\ f^n(x_0)\to x^* \text{ for } |x_0-x^*|\leq r",
        "2503.06639v4, Thm 7",
        (r"$f$ continuously differentiable on an interval around $x^*$",),
        _contraction,
        "Stated for f on all of ℝ, applied to h on [0,1]; that is enough, because every fixed point of h is interior.",
    ),
]

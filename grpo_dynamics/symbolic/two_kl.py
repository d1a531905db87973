r"""Two KL terms, β[α·KL(π‖π_ref) + (1−α)·KL(π‖π_{n−1})]: where the recursion goes and what the second anchor does."""

from __future__ import annotations

from typing import Any

import sympy as sp  # pyright: ignore[reportMissingTypeStubs]

from grpo_dynamics.symbolic.definitions import alpha, beta, log_odds, log_odds_ref, step
from grpo_dynamics.symbolic.proof import Step, Theorem, argument, at_a_point, identity, positive

n: Any = sp.Symbol("n", integer=True, nonnegative=True)
gap_value: Any = sp.Symbol("Omega", positive=True)
"""Ω(p) at one p, of any normalisation."""
slope: Any = sp.Symbol("kappa", real=True)
"""Multiplier of the GRPO map of strength αβ at the same point."""
start: Any = sp.Symbol("L_0", real=True)
rest: Any = sp.Symbol("r", nonnegative=True)
"""1 − α ≥ 0."""


def _fixed_points() -> list[Step]:
    grpo = step(log_odds, log_odds_ref, gap_value, alpha * beta, 1)
    return [
        identity(
            r"$L_n-L_{n-1}=\alpha\,(L_{\rm ref}+\Omega/(\alpha\beta)-L_{n-1})$: the step is $\alpha$ times the step of "
            r"GRPO with $\alpha\beta$",
            step(log_odds, log_odds_ref, gap_value) - log_odds,
            alpha * (grpo - log_odds),
        ),
        positive(r"for $\alpha>0$ the two steps vanish together", alpha),
        positive(
            r"for $\alpha=0$ the step is $\Omega/\beta>0$: no fixed point",
            step(log_odds, log_odds_ref, gap_value, beta, 0) - log_odds,
        ),
    ]


def _closed_form(index: Any, first: Any) -> Any:
    decay = (1 - alpha) ** index
    return decay * first + (1 - decay) * (log_odds_ref + 1 / (alpha * beta))


def _dr_grpo() -> list[Step]:
    decay = sp.Symbol("q", positive=True)
    terms = sp.Symbol("k", integer=True, nonnegative=True)
    return [
        identity(r"base: the formula at $n=0$ is $L_0$", _closed_form(sp.Integer(0), start), start),
        identity(
            r"induction: one step from the formula at $n$ is the formula at $n+1$",
            step(_closed_form(n, start), log_odds_ref, 1),
            _closed_form(n + 1, start),
        ),
        identity(
            r"from $L_0=L_{\rm ref}$ it is $L_{\rm ref}+(1-(1-\alpha)^n)/(\alpha\beta)$",
            _closed_form(n, log_odds_ref),
            log_odds_ref + (1 - (1 - alpha) ** n) / (alpha * beta),
        ),
        identity(
            r"$(1-q)(1+q+\dots+q^{k})$ telescopes: adding $q^{k+1}$ to $(1-q^{k+1})/(1-q)$ gives $(1-q^{k+2})/(1-q)$, "
            r"so "
            r"that with $q=1-\alpha$ the formula is $L_{\rm ref}+\frac1\beta\sum_{k<n}(1-\alpha)^k$, which is "
            r"$L_{\rm ref}+n/\beta$ at $\alpha=0$",
            (1 - decay ** (terms + 1)) + decay ** (terms + 1) * (1 - decay),
            1 - decay ** (terms + 2),
        ),
        identity(
            r"the distance to the limit $L_{\rm ref}+1/(\alpha\beta)$ is $(1-\alpha)^n/(\alpha\beta)$",
            log_odds_ref + 1 / (alpha * beta) - _closed_form(n, log_odds_ref),
            (1 - alpha) ** n / (alpha * beta),
        ),
        argument(r"base and step give every $n$; $(1-\alpha)^n\to0$ for $0<\alpha\le1$", "induction"),
    ]


def _damping() -> list[Step]:
    gap = sp.Function("Omega")(log_odds)
    grpo = step(log_odds, log_odds_ref, gap, alpha * beta, 1)
    multiplier = (1 - alpha) + alpha * slope
    return [
        identity(
            r"relaxed iteration: $L_n=(1-\alpha)L_{n-1}+\alpha\,G(L_{n-1})$, $G$ the GRPO map with $\alpha\beta$",
            step(log_odds, log_odds_ref, gap),
            (1 - alpha) * log_odds + alpha * grpo,
        ),
        identity(
            r"so its multiplier is $m=(1-\alpha)+\alpha\kappa$ with $\kappa=G'$",
            sp.diff(step(log_odds, log_odds_ref, gap), log_odds),
            (1 - alpha) + alpha * sp.diff(grpo, log_odds),
        ),
        identity(
            r"$1-m=\alpha(1-\kappa)$: $m<1\iff\kappa<1$, and the folds are those of $G$",
            1 - multiplier,
            alpha * (1 - slope),
        ),
        identity(
            r"$1+m=\alpha\,(\kappa+(2-\alpha)/\alpha)$: $m>-1\iff\kappa>-(2-\alpha)/\alpha$",
            1 + multiplier,
            alpha * (slope + (2 - alpha) / alpha),
        ),
        identity(
            r"the bound $-(2-\alpha)/\alpha$ lies $2(1-\alpha)/\alpha$ below $-1$",
            -1 - (-(2 - alpha) / alpha),
            (2 * (1 - alpha)) / alpha,
        ),
        positive(
            r"which is $\ge0$: what is stable for $G$ stays stable, and a flip of $G$ ($\kappa=-1$) is none here if "
            r"$\alpha<1$",
            2 * rest / alpha,
            strict=False,
        ),
    ]


def _same_beta() -> list[Step]:
    smoothing, strength = sp.Rational(1, 100), sp.Integer(1)

    def cosh_squared(t: Any) -> Any:
        return ((t + 1 / t) / 2) ** 2

    def width(t: Any) -> Any:
        return 1 + 4 * smoothing * cosh_squared(t)

    def gap_squared(t: Any) -> Any:
        return cosh_squared(t) / width(t)

    def slope_squared(t: Any) -> Any:
        return (cosh_squared(t) - 1) / width(t) ** 3

    single: Any = sp.Rational(1, 20)
    double: Any = sp.Rational(1, 7)
    x = sp.Symbol("x", positive=True)
    state, reference, push = sp.symbols("y y_ref g")
    anchor = push / (state - reference)
    above = sp.Symbol("m", positive=True)
    return [
        at_a_point(
            r"GRPO with $\beta=1$, $\varepsilon=1/100$ and the $y_{\rm ref}$ that puts a fixed point at $y=-\ln20$: "
            r"there $(g')^2<\beta^2$, so it is stable (slopes as in fold-cubic)",
            strength**2 - slope_squared(single),
        ),
        identity(
            r"two-KL has a fixed point at $y$ if $\alpha=g(y)/(y-y_{\rm ref})$; at $y=-\ln7$, with the same $\beta$ "
            r"and $y_{\rm ref}=-\ln20-g(-\ln20)$, $\alpha=g(-\ln7)/(\ln\frac{20}7+g(-\ln20))$",
            anchor * reference + (1 - anchor) * state + push / strength,
            state,
        ),
        at_a_point(r"$g(-\ln20)<5$", 25 - gap_squared(single)),
        at_a_point(r"$g(-\ln7)>29/10$", gap_squared(double) - sp.Rational(29, 10) ** 2),
        at_a_point(r"$g(-\ln7)^2<g(-\ln20)^2$, so this $\alpha$ is below 1", gap_squared(single) - gap_squared(double)),
        positive(
            r"$x-1-\ln x$ rises for $x=1+m>1$",
            sp.diff(x - 1 - sp.log(x), x).subs(x, 1 + above),
        ),
        argument(
            r"it is 0 at $x=1$, so $\ln\frac{20}7\le\frac{13}7$ and $\alpha>\frac{29}{10}/(\frac{13}7+5)$",
            "monotonicity",
        ),
        at_a_point(
            r"$\frac{29}{10}/(\frac{13}7+5)>2/5$", sp.Rational(29, 10) / (sp.Rational(13, 7) + 5) - sp.Rational(2, 5)
        ),
        at_a_point(r"there $-g'/\beta>9/5$", slope_squared(double) - sp.Rational(9, 5) ** 2),
        at_a_point(r"$9/5>2-2/5$", sp.Rational(9, 5) - (2 - sp.Rational(2, 5))),
        argument(
            r"$-g'/\beta>2-\frac25>2-\alpha$: the multiplier $(1-\alpha)+g'/\beta$ is below $-1$, unstable",
            "the steps before",
        ),
    ]


THEOREMS: list[Theorem] = [
    Theorem(
        "two-kl-fixed-points",
        "Fixed points of two-KL are those of GRPO with αβ",
        r"L=\alpha L_{\rm ref}+(1-\alpha)L+\Omega/\beta\iff L=L_{\rm ref}+\Omega/(\alpha\beta)",
        "ours",
        (r"$0<\alpha\le1$", r"any $\Omega>0$"),
        _fixed_points,
        r"At $\alpha=0$ (mirror) there is none.",
    ),
    Theorem(
        "two-kl-dr-grpo",
        "Closed form of two-KL Dr. GRPO",
        r"L_n=L_{\rm ref}+\frac{1-(1-\alpha)^n}{\alpha\beta}",
        "ours",
        (
            r"$0<\alpha\le1$",
            r"$\Omega=1$",
            r"$L_0=L_{\rm ref}$; any $L_0$: "
            r"$(1-\alpha)^nL_0+(1-(1-\alpha)^n)(L_{\rm ref}+1/(\alpha\beta))$",
        ),
        _dr_grpo,
    ),
    Theorem(
        "two-kl-damping",
        "The second anchor only damps: it removes flips and keeps folds",
        r"m=(1-\alpha)+\alpha\kappa,\quad |m|<1\iff-\frac{2-\alpha}{\alpha}<\kappa<1",
        "ours",
        (r"$0<\alpha\le1$", r"$\kappa$ the multiplier of the GRPO map with $\alpha\beta$ at the same point"),
        _damping,
        r"The comparison is with GRPO at strength $\alpha\beta$. At the same $\beta$ it is false: see "
        r"two-kl-same-beta.",
    ),
    Theorem(
        "two-kl-same-beta",
        "At the same β the second anchor can create a flip",
        r"\varepsilon=\tfrac1{100},\ \beta=1:\ \text{for some } y_{\rm ref} \text{ GRPO is stable at } y=-\ln 20 "
        r"\text{ and, "
        r"for some } \alpha\in(\tfrac25,1), \text{ two-KL has an unstable fixed point with multiplier} < -1",
        "ours",
        (r"$y_{\rm ref}=-\ln20-g(-\ln20)$",),
        _same_beta,
        r"Against GRPO at $\alpha\beta$, $(1-\alpha)$ only damps; at fixed $\beta$ the weaker anchor also moves the "
        r"fixed point, here to where the map is steeper.",
    ),
]

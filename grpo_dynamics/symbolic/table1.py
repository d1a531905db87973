"""Table 1 of the paper: six variants, and of each the weights, the recursion, the fixed point and the stability."""

from __future__ import annotations

from typing import Any

import sympy as sp  # pyright: ignore[reportMissingTypeStubs]

from grpo_dynamics.symbolic import definitions as d
from grpo_dynamics.symbolic.mirror import mirror_map
from grpo_dynamics.symbolic.proof import Step, Theorem, argument, identity, limit, positive

p, beta, eps, alpha, state, reference = d.p, d.beta, d.eps, d.alpha, d.log_odds, d.log_odds_ref
one, zero = sp.Integer(1), sp.Integer(0)
push, plus, minus, target = sp.symbols("Omega omega^+ omega^- Omega^*", positive=True)
renyi: Any = sp.Symbol("Delta_R", real=True)
n: Any = sp.Symbol("n", integer=True, nonnegative=True)


def _weights(name: str, whitened: bool) -> Step:
    """All three at once: the identity holds for every a, b, c."""
    a, b, c = sp.symbols("a b c")
    variance = p * (1 - p) ** 2 + (1 - p) * p**2
    scale = sp.sqrt(variance + eps) if whitened else one
    success, failure = (1 - p) / scale, (0 - p) / scale
    gap = d.gap(p) if whitened else one
    formula = r"(1-p)\,\Omega_\varepsilon,\ p\,\Omega_\varepsilon,\ \Omega_\varepsilon" if whitened else r"1-p,\ p,\ 1"
    source = r"(r-\mu)/\sqrt{\sigma^2+\varepsilon}" if whitened else r"r-\mu"
    return identity(
        rf"{name}, weights: $A={source}$ gives $\omega^+,\omega^-,\Omega={formula}$",
        a * success - b * failure + c * (success - failure),
        a * (1 - p) * gap + b * p * gap + c * gap,
    )


def _recursion(name: str, anchor: Any, whitened: bool) -> Step:
    """L_n is the log-odds of the optimal policy: w_S·e^(ω⁺/β) against w_F·e^(−ω⁻/β), w as in lemma 3."""
    odds, odds_ref, overlap = sp.symbols("o o_ref H", positive=True)  # H = H_S/H_F, log H = Δ_R
    mixed = anchor not in (zero, one)
    ratio = odds_ref**anchor * odds ** (1 - anchor) * (overlap if mixed else 1)
    size = d.gap(p) if whitened else one
    logit = sp.expand_log(sp.log(ratio)) + (1 - p) * size / beta - (-p * size / beta)
    expected = d.step(sp.log(odds), sp.log(odds_ref), size, anchor=anchor) + (sp.log(overlap) if mixed else 0)
    terms = {zero: r"L_{n-1}", one: r"L_{\rm ref}"}.get(anchor, r"\alpha L_{\rm ref}+(1-\alpha)L_{n-1}+\Delta_R")
    gain = r"\Omega_\varepsilon(p_{n-1})" if whitened else "1"
    return identity(rf"{name}, recursion: $L_n={terms}+{gain}/\beta$", logit, expected)


def _reference_rows() -> list[Step]:
    slope = sp.diff(d.gap(p) / beta, p)
    dr = d.step(state, reference, one, anchor=one)
    return [
        _weights("GRPO", True),
        _recursion("GRPO", one, True),
        identity(
            r"GRPO, fixed point: $L^*=L_{\rm ref}+\Omega(p^*)/\beta$, implicit because $\Omega$ is taken at $p^*$",
            d.step(state, reference, target, anchor=one).subs(state, reference + target / beta),
            reference + target / beta,
        ),
        identity(
            r"GRPO, stability: $h'=h(1-h)(2p-1)/(2\beta[p(1-p)+\varepsilon]^{3/2})$",
            sp.diff(d.success_map(p), p),
            d.success_map(p) * (1 - d.success_map(p)) * slope,
        ),
        argument(r"$\sup_p|h'(p)|<1$ makes $h$ a contraction of $[0,1]$: it converges", "Banach's fixed-point theorem"),
        _weights("Dr. GRPO", False),
        _recursion("Dr. GRPO", one, False),
        identity(r"Dr. GRPO, fixed point: $L^*=L_{\rm ref}+1/\beta$, after one step", dr, reference + 1 / beta),
        identity(r"Dr. GRPO, stability: the multiplier is 0", sp.diff(dr, state), 0),
    ]


def _mirror_rows() -> list[Step]:
    odds, first = sp.Symbol("o", positive=True), sp.Symbol("L_0", real=True)
    least = 1 / (beta * sp.sqrt(sp.Rational(1, 4) + eps))
    whitened = (d.gap(p) / beta).subs(p, odds / (1 + odds))
    return [
        _weights("Mirror GRPO", True),
        _recursion("Mirror GRPO", zero, True),
        positive(r"Mirror GRPO, fixed point: none in $(0,1)$, as $L_n-L_{n-1}=\Omega/\beta>0$", sp.together(whitened)),
        identity(
            r"Mirror GRPO, stability: every $\Omega^{-2}$ is at most $\frac14+\varepsilon$, by $(p-\frac12)^2$; so",
            sp.Rational(1, 4) + eps - d.gap(p) ** -2,
            (p - sp.Rational(1, 2)) ** 2,
        ),
        limit(
            r"$L_n\geq L_0+n/(\beta\sqrt{1/4+\varepsilon})\to\infty$: $p_n\uparrow1$",
            first + n * least,
            n,
            sp.oo,
            sp.oo,
        ),
        identity(r"and $p=0$ stays where it is", mirror_map(p, d.gap(p)).subs(p, 0), 0),
        _weights("Mirror Dr. GRPO", False),
        _recursion("Mirror Dr. GRPO", zero, False),
        positive(r"Mirror Dr. GRPO, fixed point: none in $(0,1)$, as $L_n-L_{n-1}=1/\beta>0$", 1 / beta),
        limit(
            r"Mirror Dr. GRPO, stability: $L_n=L_0+n/\beta\to\infty$, $p_n\uparrow1$", first + n / beta, n, sp.oo, sp.oo
        ),
    ]


def _mixed_rows() -> list[Step]:
    excess, steep, radius_part = sp.symbols("t B M", positive=True)
    stepped = d.step(state, reference, push) + renyi
    fixed = reference + (renyi + push / beta) / alpha
    mean_only = d.step(state, reference, one) + renyi
    fixed_mean = reference + (renyi + 1 / beta) / alpha
    multiplier = sp.diff(d.step(state, reference, d.gap(d.sigmoid(state))), state)
    return [
        _weights("Two-KL GRPO", True),
        _recursion("Two-KL GRPO", alpha, True),
        identity(
            r"Two-KL GRPO, fixed point: $L^*=L_{\rm ref}+\Delta_R^*/\alpha+\Omega(p^*)/(\alpha\beta)$",
            stepped.subs(state, fixed),
            fixed,
        ),
        identity(
            r"Two-KL GRPO, stability: with $\Delta_R=0$ the multiplier is "
            r"$(1-\alpha)+\mathrm{sgn}(2p-1)\mathcal B(p)/\beta$, so it is no affine contraction",
            sp.simplify(multiplier - (1 - alpha)),
            sp.simplify(d.stability_bound(d.sigmoid(state)) / beta),
        ),
        positive(
            r"for $p>\frac12$ and $\beta=\mathcal B/(2\alpha)$ it is $1+\alpha>1$: the fixed point there repels",
            sp.expand((1 - alpha + steep / beta).subs(beta, steep / (2 * alpha)) - 1),
        ),
        identity(
            r"true is: with $|\Delta_R|+\Omega/\beta\leq M$ the ball $|L-L_{\rm ref}|\leq M/\alpha$ maps into itself",
            (1 - alpha) * radius_part / alpha + radius_part,
            radius_part / alpha,
        ),
        identity(
            r"no monotonicity: above the fixed point's level, $L_{n-1}=L_{\rm ref}+(\Delta_R+\Omega/\beta)/\alpha+t$, "
            r"$L_n-L_{n-1}=-\alpha t$",
            sp.expand((stepped - state).subs(state, fixed + excess)),
            -alpha * excess,
        ),
        _weights("Two-KL Dr. GRPO", False),
        _recursion("Two-KL Dr. GRPO", alpha, False),
        identity(
            r"Two-KL Dr. GRPO, fixed point: $L^*=L_{\rm ref}+\Delta_R^*/\alpha+1/(\alpha\beta)$, "
            r"the only one of an affine map",
            mean_only.subs(state, fixed_mean),
            fixed_mean,
        ),
        identity(
            r"Two-KL Dr. GRPO, stability: for a constant $\Delta_R$ the multiplier is $1-\alpha$",
            sp.diff(mean_only, state),
            1 - alpha,
        ),
        identity(
            r"and $\alpha(L^*-L_{\rm ref})=\Delta_R^*+1/\beta$: $p^*>p_{\rm ref}$ iff this is positive",
            alpha * (fixed_mean - reference),
            renyi + 1 / beta,
        ),
    ]


def _table() -> list[Step]:
    return [*_reference_rows(), *_mirror_rows(), *_mixed_rows()]


THEOREMS: list[Theorem] = [
    Theorem(
        "table1",
        "the six variants of Table 1",
        r"\text{weights, recursion, fixed point and stability of six variants: } "
        r"L_n = \alpha L_{\rm ref} + (1-\alpha)L_{n-1} + \Delta_R + \Omega(p_{n-1})/\beta",
        "2503.06639v4, Table 1",
        (r"$\beta>0$", r"$\varepsilon>0$", r"$0<p_{\rm ref}<1$", r"$\alpha\in\{0,1\}$ or $0<\alpha<1$"),
        _table,
        "'Affine contraction in log-odds if Δ_R bounded' (two-KL GRPO) is false: the term Ω(p_{n−1})/β depends on "
        "L_{n−1}, and the multiplier can exceed 1. True is that bounded Δ_R keeps orbits bounded, and with Δ_R = 0 the "
        "map contracts if αβ > max B. For two-KL Dr. GRPO the rate 1 − α needs a constant Δ_R, not only a bounded "
        "one; in the exact iteration it is 0.",
    ),
]

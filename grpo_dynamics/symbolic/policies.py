"""The optimal policies and what they do to the probability of success, on a finite outcome space of any size."""

from __future__ import annotations

from typing import Any

import sympy as sp  # pyright: ignore[reportMissingTypeStubs]

from grpo_dynamics.symbolic import definitions as d
from grpo_dynamics.symbolic import outcome_space as space
from grpo_dynamics.symbolic.outcome_space import Policy, gather, normalised, policy, total
from grpo_dynamics.symbolic.proof import Step, Theorem, argument, identity, positive

plus, minus, partition = sp.symbols("omega^+ omega^- Z", positive=True)
"""ω⁺ and ω⁻ of the previous policy, numbers as far as the maximisation is concerned, and the normaliser Z."""
previous_p, any_p = sp.symbols("p_prev p_pi", positive=True)
beta: Any = d.beta


def optimal(anchor: Policy, normaliser: Any = partition) -> Policy:
    """π(o) = anchor(o)·exp(A(o)/β)/Z."""
    return Policy(
        anchor.success * sp.exp(plus / beta) / normaliser,
        anchor.failure * sp.exp(-minus / beta) / normaliser,
    )


def divergence(left: Policy, right: Policy) -> Any:
    """KL(left‖right)."""
    return total(
        left.success * sp.log(left.success / right.success),
        left.failure * sp.log(left.failure / right.failure),
    )


def normaliser(p: Any) -> Any:
    """Z = p·exp(ω⁺/β) + (1−p)·exp(−ω⁻/β) for an anchor with success probability p."""
    return p * sp.exp(plus / beta) + (1 - p) * sp.exp(-minus / beta)


def next_p(p: Any) -> Any:
    """Success probability of the optimal policy for an anchor with success probability p."""
    return p * sp.exp(plus / beta) / normaliser(p)


def optimality(anchor: Policy, name: str) -> list[Step]:
    """Steps: anchor·exp(A/β)/Z is the one maximiser of E_π[A] − β·KL(π‖anchor)."""
    found, pi = optimal(anchor), policy("pi")
    chance, more = sp.symbols("x t", positive=True)
    p = sp.Symbol("p_circ", positive=True)
    known = {**normalised(anchor, p), **normalised(pi, any_p)}
    objective = total(pi.success * plus, -pi.failure * minus) - beta * divergence(pi, anchor)
    slack = chance - 1 - sp.log(chance)
    slope = (chance - 1) / chance
    return [
        *(
            identity(
                rf"for an outcome with $r={reward}$ the Lagrangian of $E_\pi A-\beta\mathrm{{KL}}(\pi\|{name})$ with "
                rf"multiplier $\beta(\log Z-1)$ is stationary at $\pi={name}\,e^{{A/\beta}}/Z$",
                _gradient(chance, advantage, base).subs(chance, best),
            )
            for reward, advantage, base, best in (
                (1, plus, anchor.success, found.success),
                (0, -minus, anchor.failure, found.failure),
            )
        ),
        positive(
            r"the objective is strictly concave: its Hessian is diagonal with entries $-\beta/\pi(o)<0$",
            sp.diff(beta * chance * sp.log(chance), chance, 2),
        ),
        identity(
            rf"$Z=\sum_o{name}\,e^{{A/\beta}}=p\,e^{{\omega^+/\beta}}+(1-p)\,e^{{-\omega^-/\beta}}$ normalises it",
            gather(partition * total(found.success, found.failure), known),
            normaliser(p),
        ),
        identity(
            rf"for every $\pi$: $E_\pi A-\beta\,\mathrm{{KL}}(\pi\|{name})="
            r"\beta\log Z-\beta\,\mathrm{KL}(\pi\|\pi^*)$",
            gather(objective, known),
            gather(beta * sp.log(partition) - beta * divergence(pi, found), known),
        ),
        identity(r"$x-1-\log x$ is $0$ at $x=1$", slack.subs(chance, 1)),
        identity(r"and its slope is $(x-1)/x$", sp.diff(slack, chance), slope),
        positive(r"which is positive for $x=1+t>1$", slope.subs(chance, 1 + more)),
        positive(r"and negative for $x=1/(1+t)<1$", -sp.simplify(slope.subs(chance, 1 / (1 + more)))),
        argument(
            r"hence $\mathrm{KL}(\pi\|\pi^*)\geq0$ with equality only at $\pi=\pi^*$: $\pi^*$ is the one maximiser",
            "Gibbs' inequality, by log x ≤ x − 1 under the sum",
        ),
    ]


def _gradient(chance: Any, advantage: Any, base: Any) -> Any:
    multiplier = beta * (sp.log(partition) - 1)
    lagrangian = chance * advantage - beta * chance * sp.log(chance / base) - multiplier * chance
    return sp.expand_log(sp.diff(lagrangian, chance))


def probability(anchor: Policy, name: str) -> list[Step]:
    """Steps: p_n from the anchor's p, and in log-odds L_n = L_anchor + (ω⁺+ω⁻)/β."""
    p, odds = d.p, d.odds
    found, known, at_odds = optimal(anchor), normalised(anchor, p), {p: odds / (1 + odds)}
    wins, fails = (gather(s, known) for s in (space.over_successes(found.success), space.over_failures(found.failure)))
    return [
        identity(
            rf"summed over the successes of $\pi_n$: $p_n=p_{{{name}}}\,e^{{\omega^+/\beta}}/Z$",
            wins,
            next_p(p) * normaliser(p) / partition,
        ),
        identity(
            r"its odds are those of the anchor times $e^{(\omega^++\omega^-)/\beta}$",
            sp.powsimp(sp.simplify((wins / fails).subs(at_odds))),
            odds * sp.exp((plus + minus) / beta),
        ),
        identity(
            r"so $p_n=\sigma(\mathrm{logit}\,p+(\omega^++\omega^-)/\beta)$, with $p=o/(1+o)$",
            sp.simplify(next_p(p).subs(at_odds)),
            sp.simplify(d.sigmoid(sp.log(odds) + (plus + minus) / beta)),
        ),
    ]


def _weights_of_grpo() -> list[Step]:
    return [
        identity(
            r"GRPO's weights have $\omega^++\omega^-=\Omega_\varepsilon(p_{n-1})$",
            d.weight_positive(previous_p) + d.weight_negative(previous_p),
            d.gap(previous_p),
        ),
        positive(
            r"and $\Omega_\varepsilon>0$ at every $p_{n-1}=o/(1+o)$",
            sp.together(d.gap(d.odds / (1 + d.odds))),
        ),
    ]


def _theorem_1() -> list[Step]:
    return [*optimality(policy("ref"), r"\pi_{\rm ref}"), *_weights_of_grpo()]


def _theorem_2() -> list[Step]:
    push = sp.Symbol("Omega", positive=True)
    rate, printed = push / beta, d.success_map(previous_p).subs(d.gap(previous_p), push)
    return [
        *_weights_of_grpo(),
        *probability(policy("ref"), r"\rm ref"),
        identity(
            r"$\sigma(\mathrm{logit}\,p_{\rm ref}+\Omega/\beta)$ is $h$ as printed",
            sp.simplify(d.sigmoid(d.logit(d.p_ref) + rate)),
            sp.simplify(printed),
        ),
    ]


def _theorem_4() -> list[Step]:
    name = r"\pi_{n-1}"
    return [*_weights_of_grpo(), *optimality(policy("prev"), name), *probability(policy("prev"), "n-1")]


def _theorem_8() -> list[Step]:
    return [*optimality(policy("anchor"), r"\pi_\circ"), *probability(policy("anchor"), r"\circ")]


_RECURSION = r"\mathrm{logit}\,p_n = \mathrm{logit}\,p_{\rm ref} + \Omega_\varepsilon(p_{n-1})/\beta"

THEOREMS: list[Theorem] = [
    Theorem(
        "thm1",
        "GRPO policy dynamics",
        r"\pi_n(o) = \pi_{\rm ref}(o)\,e^{A_{n-1}(o)/\beta}/Z_{n-1},\quad "
        r"Z_{n-1} = p_{\rm ref}e^{\omega^+/\beta} + (1-p_{\rm ref})e^{-\omega^-/\beta}",
        "2503.06639v4, Thm 1",
        (r"$\beta>0$", r"$\varepsilon>0$", r"$\pi_{\rm ref}(o)>0$ on a finite outcome space"),
        _theorem_1,
        "The proof refers to the weights of the mean-only section by a label used twice; those of eq. 5 are meant. "
        "The exponents carry 1/β, as here.",
    ),
    Theorem(
        "thm2",
        "the success probability is a fixed-point iteration",
        r"p_n = h_{\varepsilon,p_{\rm ref}}(p_{n-1}),\quad " + _RECURSION,
        "2503.06639v4, Thm 2",
        (r"$0<p_{\rm ref}<1$", r"$\beta>0$", r"$\varepsilon>0$"),
        _theorem_2,
        "The paper assumes p_ref > 0 only; its formula divides by p_ref and its proof assumes p_ref < 1 as well.",
    ),
    Theorem(
        "thm4",
        "mirror GRPO",
        r"\pi_n \propto \pi_{n-1}e^{A_{n-1}/\beta},\quad "
        r"\mathrm{logit}\,p_n = \mathrm{logit}\,p_{n-1} + \Omega_\varepsilon(p_{n-1})/\beta",
        "2503.06639v4, Thm 4",
        (r"$\beta>0$", r"$\varepsilon>0$", r"$0<p_{n-1}<1$"),
        _theorem_4,
    ),
    Theorem(
        "thm8",
        "any weights and any anchor",
        r"\pi^* = \pi_\circ e^{A_\nu/\beta}/Z,\quad "
        r"\mathrm{logit}\,p_n = \mathrm{logit}\,p^\circ_{n-1} + \Omega(p_{n-1})/\beta",
        "2503.06639v4, Thm 8",
        (r"$\beta>0$", r"$\omega^\pm>0$", r"$\pi_\circ(o)>0$ on a finite outcome space"),
        _theorem_8,
        "As printed, every exponent and Ω lack the factor 1/β, although the objective has β; true is the form here.",
    ),
]

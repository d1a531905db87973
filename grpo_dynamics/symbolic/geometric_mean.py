"""Two KL terms: the geometric mean of two policies, the Rényi correction, and why the exact iteration has none."""

from __future__ import annotations

from typing import Any

import sympy as sp  # pyright: ignore[reportMissingTypeStubs]

from grpo_dynamics.symbolic import definitions as d
from grpo_dynamics.symbolic.outcome_space import (
    Policy,
    gather,
    normalised,
    over_failures,
    over_successes,
    policy,
    total,
)
from grpo_dynamics.symbolic.policies import (
    any_p,
    divergence,
    minus,
    optimal,
    optimality,
    partition,
    plus,
    previous_p,
    probability,
)
from grpo_dynamics.symbolic.proof import Step, Theorem, argument, identity, positive

alpha: Any = d.alpha


def geometric_mean(left: Policy, right: Policy, order: Any = alpha, normaliser: Any = partition) -> Policy:
    """left^α·right^(1−α)/Z."""
    return Policy(
        left.success**order * right.success ** (1 - order) / normaliser,
        left.failure**order * right.failure ** (1 - order) / normaliser,
    )


def _lemma_2() -> list[Step]:
    pi, ref, other = policy("pi"), policy("ref"), policy("prev")
    known = normalised(pi, any_p)
    mixed = alpha * divergence(pi, ref) + (1 - alpha) * divergence(pi, other)
    mean, product = geometric_mean(ref, other), geometric_mean(ref, other, normaliser=sp.Integer(1))
    return [
        identity(
            r"$\alpha\,\mathrm{KL}(\pi\|\pi_{\rm ref})+(1-\alpha)\,\mathrm{KL}(\pi\|\pi^\circ)="
            r"\mathrm{KL}(\pi\|\bar\pi^{(\alpha)})-\log Z$ for every $\pi$",
            gather(mixed, known),
            gather(divergence(pi, mean), known) - sp.log(partition),
        ),
        identity(
            r"$Z=\sum_o\pi_{\rm ref}^\alpha\pi^{\circ(1-\alpha)}$ normalises $\bar\pi^{(\alpha)}$, without $\pi$",
            gather(partition * total(mean.success, mean.failure)),
            gather(total(product.success, product.failure)),
        ),
    ]


affinity_win, affinity_lose = sp.symbols("H_S H_F", positive=True)
"""H_S = Σ p_{ref,S}^α p_{n−1,S}^{1−α} and H_F, so that D_α = log H/(α−1)."""


def affinities(ref: Policy, other: Policy, p_ref: Any, p_other: Any) -> tuple[Any, Any]:
    """H_S and H_F from the conditionals of two policies on success and on failure."""
    win = (ref.success / p_ref) ** alpha * (other.success / p_other) ** (1 - alpha)
    lose = (ref.failure / (1 - p_ref)) ** alpha * (other.failure / (1 - p_other)) ** (1 - alpha)
    return over_successes(win), over_failures(lose)


def renyi(affinity: Any) -> Any:
    """D_α = log(H)/(α−1)."""
    return sp.log(affinity) / (alpha - 1)


def correction() -> Any:
    """Δ_R = (1−α)(D_α on failures − D_α on successes)."""
    return (1 - alpha) * (renyi(affinity_lose) - renyi(affinity_win))


def _lemma_3() -> list[Step]:
    ref, other = policy("ref"), policy("prev")
    q_ref, q_other = sp.symbols("q_ref q_prev", positive=True)  # 1 − p, positive like p
    q = {1 - d.p_ref: q_ref, 1 - previous_p: q_other}
    win, lose = (gather(h.subs(q)) for h in affinities(ref, other, d.p_ref, previous_p))
    mean = geometric_mean(ref, other, normaliser=sp.Integer(1))
    mass_win, mass_lose = over_successes(mean.success), over_failures(mean.failure)
    odds = (d.p_ref**alpha * previous_p ** (1 - alpha) * affinity_win) / (
        q_ref**alpha * q_other ** (1 - alpha) * affinity_lose
    )
    logits = alpha * sp.log(d.p_ref / q_ref) + (1 - alpha) * sp.log(previous_p / q_other)
    return [
        identity(
            r"$w_S=\sum_S\pi_{\rm ref}^\alpha\pi_{n-1}^{1-\alpha}=p_{\rm ref}^\alpha p_{n-1}^{1-\alpha}H_S$",
            gather(mass_win),
            sp.powsimp(d.p_ref**alpha * previous_p ** (1 - alpha) * win),
        ),
        identity(
            r"$w_F=(1-p_{\rm ref})^\alpha(1-p_{n-1})^{1-\alpha}H_F$",
            gather(mass_lose),
            sp.powsimp(q_ref**alpha * q_other ** (1 - alpha) * lose),
        ),
        identity(
            r"$\mathrm{logit}\,\tilde p=\log(w_S/w_F)=\alpha L_{\rm ref}+(1-\alpha)L_{n-1}"
            r"+(\alpha-1)(D_\alpha^S-D_\alpha^F)$ with $D_\alpha=\log H/(\alpha-1)$",
            sp.expand_log(sp.log(odds)),
            sp.expand_log(logits + (alpha - 1) * (renyi(affinity_win) - renyi(affinity_lose))),
        ),
        argument(r"the normaliser of $\tilde\pi$ cancels in $w_S/w_F$, which are its odds", "odds of a distribution"),
    ]


def _theorem_9() -> list[Step]:
    start, kept, extra = sp.symbols("ell k Delta_R", nonnegative=True)
    push = d.gap(d.odds / (1 + d.odds)) / d.beta
    anchor = alpha * d.log_odds_ref + (1 - alpha) * d.log_odds + correction()
    stepped = d.step(d.log_odds_ref + start, d.log_odds_ref, push * d.beta)
    return [
        *_lemma_2(),
        *_lemma_3(),
        *optimality(policy("mean"), r"\tilde\pi^{(\alpha)}_{n-1}"),
        *probability(policy("mean"), r"\tilde\pi"),
        identity(
            r"theorem 8 with the anchor of lemma 3: $L_n=\alpha L_{\rm ref}+(1-\alpha)L_{n-1}+\Delta_R+\Omega/\beta$",
            anchor + push,
            d.step(d.log_odds, d.log_odds_ref, push * d.beta) + correction(),
        ),
        identity(
            r"$\Delta_R=(1-\alpha)(D_\alpha^F-D_\alpha^S)=\log(H_S/H_F)$",
            sp.simplify(correction()),
            sp.log(affinity_win) - sp.log(affinity_lose),
        ),
        identity(
            r"about $L_{\rm ref}$: $L_n-L_{\rm ref}=(1-\alpha)(L_{n-1}-L_{\rm ref})+\Delta_R+\Omega(p_{n-1})/\beta$",
            stepped + extra - d.log_odds_ref,
            (1 - alpha) * start + extra + push,
        ),
        positive(
            r"with $\Delta_R\geq0$, $L_{n-1}-L_{\rm ref}=\ell\geq0$ and $1-\alpha=k\geq0$ the right side is positive",
            kept * start + extra + sp.together(push),
        ),
        argument(r"so $p_n>p_{\rm ref}$ for $n\geq1$ if $D_\alpha^S\leq D_\alpha^F$ at every step", "induction on n"),
    ]


def _renyi_zero() -> list[Step]:
    ref = policy("ref")
    p, q = d.p_ref, sp.Symbol("q_ref", positive=True)
    win, lose = sp.symbols("s f", positive=True)
    tilted = Policy(ref.success * win, ref.failure * lose)
    mean = geometric_mean(ref, tilted)
    following = optimal(mean, normaliser=sp.Integer(1))
    conditional_win, conditional_lose = tilted.success / (p * win), tilted.failure / (q * lose)
    overlap_win = over_successes((ref.success / p) ** alpha * conditional_win ** (1 - alpha))
    overlap_lose = over_failures((ref.failure / q) ** alpha * conditional_lose ** (1 - alpha))
    known = {ref.p: p, over_failures(ref.failure): q}
    scale = win ** (1 - alpha) * sp.exp(plus / d.beta) / partition
    return [
        argument(
            r"claim: $\pi_n=s\,\pi_{\rm ref}$ on successes and $f\,\pi_{\rm ref}$ on failures; $n=0$ has $s=f=1$",
            "induction on n",
        ),
        identity(
            r"if $\pi_{n-1}$ is such a tilt then so is $\pi_n$ on successes: the factor has no outcome in it",
            sp.powsimp(sp.expand_power_base(following.success / ref.success)),
            sp.powsimp(scale),
        ),
        identity(
            "and on failures",
            sp.powsimp(sp.expand_power_base(following.failure / ref.failure)),
            sp.powsimp(lose ** (1 - alpha) * sp.exp(-minus / d.beta) / partition),
        ),
        identity("its mass on successes is $s\\,p_{\\rm ref}$", gather(tilted.p, known), p * win),
        identity("its conditional on success is that of $\\pi_{\\rm ref}$", conditional_win, ref.success / p),
        identity("and its conditional on failure", conditional_lose, ref.failure / q),
        identity("so $H_S=\\sum p_{{\\rm ref},S}=1$", gather(overlap_win, known), 1),
        identity("and $H_F=1$", gather(overlap_lose, known), 1),
        identity(r"hence $\Delta_R=0$", correction().subs({affinity_win: 1, affinity_lose: 1})),
    ]


THEOREMS: list[Theorem] = [
    Theorem(
        "lemma2",
        "two KL terms are one, to the geometric mean",
        r"\alpha\,\mathrm{KL}(\pi\|\pi_{\rm ref}) + (1-\alpha)\,\mathrm{KL}(\pi\|\pi^\circ) = "
        r"\mathrm{KL}(\pi\|\bar\pi^{(\alpha)}) - \log\sum_o\pi_{\rm ref}^\alpha\pi^{\circ(1-\alpha)}",
        "2503.06639v4, Lemma 2",
        (r"$0<\alpha\leq1$", r"all probabilities positive"),
        _lemma_2,
    ),
    Theorem(
        "lemma3",
        "success probability of the geometric mean",
        r"\mathrm{logit}\,\tilde p = \alpha L_{\rm ref} + (1-\alpha)L_{n-1} + (\alpha-1)(D_\alpha^S - D_\alpha^F)",
        "2503.06639v4, Lemma 3",
        (r"$0<\alpha<1$", r"$0<p_{\rm ref},p_{n-1}<1$"),
        _lemma_3,
        "The paper prints 1_{r=0} in the numerator of the success conditional of π_{n−1}; 1_{r=1} is meant. In its "
        "proof exponents stand inside (1 − p^α) for (1 − p)^α, and a log is missing before the success integral.",
    ),
    Theorem(
        "thm9",
        "two KL terms: the recursion with the Rényi correction",
        r"L_n = \alpha L_{\rm ref} + (1-\alpha)L_{n-1} + \Delta_R + \Omega_\varepsilon(p_{n-1})/\beta,\quad "
        r"\Delta_R = (1-\alpha)(D_\alpha^F - D_\alpha^S)",
        "2503.06639v4, Thm 9",
        (r"$0<\alpha<1$", r"$\beta>0$", r"$0<p_{\rm ref},p_{n-1}<1$"),
        _theorem_9,
        "The display after the theorem prints Ω(p_n) without 1/β; it is Ω(p_{n−1})/β.",
    ),
    Theorem(
        "renyi-zero",
        "the Rényi correction vanishes in the exact iteration",
        r"\pi_0 = \pi_{\rm ref} \implies \Delta_R = 0 \text{ at every step}",
        "ours",
        (r"$\pi_0=\pi_{\rm ref}$", r"$\pi_n$ the exact maximiser", r"$0<\alpha\leq1$"),
        _renyi_zero,
        "So the paper's condition for amplification after Thm 9 always holds, with equality, in its own iteration; it "
        "is a condition only for inexact or parametric iterates.",
    ),
]

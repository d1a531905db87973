"""Groups of G samples: the advantage gap Ω_G, its ends, its limit, and what dropping silent groups does."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import sympy as sp  # pyright: ignore[reportMissingTypeStubs]

from grpo_dynamics.symbolic.definitions import group_gap, p
from grpo_dynamics.symbolic.proof import Step, Theorem, argument, identity

Rewards = tuple[int, ...]
"""r_1, …, r_G, each 0 or 1."""
size: Any = sp.Symbol("G", integer=True, positive=True)
count: Any = sp.Symbol("k", integer=True, positive=True)
spread: Any = sp.IndexedBase("s")
"""s_k: any positive function of the number k of successes in the group."""
SIZES = (2, 3, 4, 5)
"""Group sizes at which every reward vector is enumerated."""


def weight_of(rewards: Rewards) -> Any:
    """Probability of the rewards of one group."""
    return p ** sum(rewards) * (1 - p) ** (len(rewards) - sum(rewards))


def advantage(rewards: Rewards) -> Any:
    """Advantage of the group's first sample: (r_1 − mean)/s_k, and 0 in a silent group."""
    total, members = sum(rewards), len(rewards)
    return sp.Integer(0) if total in (0, members) else (rewards[0] - sp.Rational(total, members)) / spread[total]


def expected(members: int, value: Callable[[Rewards], Any]) -> Any:
    """E[value(r_1, …, r_G)] over all 2^G reward vectors."""
    return sum(weight_of(r) * value(r) for r in itertools.product((0, 1), repeat=members))


def binomial_weights(members: int) -> tuple[Any, Any]:
    """ω⁺ and ω⁻ by the formula: the other G − 1 successes are Bin(G−1, p)."""
    plus: Any = sp.Integer(0)
    minus: Any = sp.Integer(0)
    for others in range(members):
        chance = sp.binomial(members - 1, others) * p**others * (1 - p) ** (members - 1 - others)
        if others + 1 < members:
            plus += chance * (1 - sp.Rational(others + 1, members)) / spread[others + 1]
        if others > 0:
            minus += chance * sp.Rational(others, members) / spread[others]
    return plus, minus


def choose(above: Any, below: Any) -> Any:
    """The binomial coefficient, for symbols."""
    return sp.gamma(above + 1) / (sp.gamma(below + 1) * sp.gamma(above - below + 1))


def _omega_g() -> list[Step]:
    steps: list[Step] = []
    for members in SIZES:
        plus, minus = binomial_weights(members)
        steps += [
            identity(
                rf"$G={members}$, every reward vector: $E[A_1;r_1=1]=p\,\omega^+$",
                expected(members, lambda r: advantage(r) * r[0]),
                p * plus,
            ),
            identity(
                rf"$G={members}$: $-E[A_1;r_1=0]=(1-p)\,\omega^-$",
                -expected(members, lambda r: advantage(r) * (1 - r[0])),
                (1 - p) * minus,
            ),
        ]
    share = count / size
    return [
        *steps,
        argument(
            r"given $r_1$ the other $G-1$ rewards are independent, their sum is $\mathrm{Bin}(G-1,p)$ and $A_1$ "
            r"depends on $r_1$ and "
            r"that sum: the formula for every $G$",
            "the law of total expectation",
        ),
        identity(
            r"$\binom{G-1}{k-1}(1-\frac kG)=\binom{G-1}k\frac kG$: term by term $p\,\omega^+=(1-p)\,\omega^-$, so "
            r"$\omega^+=(1-p)\Omega$ and $\omega^-=p\,\Omega$, for every $G$ and every $s_k$",
            sp.gammasimp(choose(size - 1, count - 1) * (1 - share) / (choose(size - 1, count) * share)),
            1,
        ),
        identity(
            r"$\binom{G-1}{k-1}(1-\frac kG)=\binom Gk\frac kG(1-\frac kG)$: so $\Omega_G=E[\frac kG(1-\frac "
            r"kG)/s_k]/(p(1-p))$ with "
            r"$k\sim\mathrm{Bin}(G,p)$, which at $\varepsilon=0$, ddof 0 is $E[s_k]/(p(1-p))$",
            sp.gammasimp(choose(size - 1, count - 1) * (1 - share) / (choose(size, count) * share * (1 - share))),
            1,
        ),
        identity(
            r"$\binom Gk\frac kG(1-\frac kG)/\sqrt{\frac kG(1-\frac kG)}=\binom{G-2}{k-1}(G-1)/\sqrt{k(G-k)}$ "
            r"(squared; all positive): "
            r"$\Omega_G=(G-1)\,E[1/\sqrt{K(G-K)}]$, $K-1\sim\mathrm{Bin}(G-2,p)$",
            sp.gammasimp(
                (choose(size, count) / choose(size - 2, count - 1)) ** 2 * share * (1 - share) * count * (size - count)
            ),
            (size - 1) ** 2,
        ),
        *(
            identity(
                rf"$G={m}$: that is the definition's $\Omega_G$",
                sp.expand(group_gap(m, p)),
                sp.expand(bernstein_gap(m)),
            )
            for m in (4, 5, 6)
        ),
    ]


def bernstein_gap(members: int, x: Any = p) -> Any:
    """Ω_G at ε = 0, ddof 0, as (G−1)·Σ_k Bin(G−2, p)(k−1)/√(k(G−k))."""
    return sum(
        (members - 1)
        * sp.binomial(members - 2, k - 1)
        * x ** (k - 1)
        * (1 - x) ** (members - 1 - k)
        / sp.sqrt(k * (members - k))
        for k in range(1, members)
    )


def _ends() -> list[Step]:
    more: Any = sp.Symbol("m", positive=True)  # G = 1 + m
    freedom: Any = sp.Symbol("delta", nonnegative=True)
    smoothing: Any = sp.Symbol("epsilon", nonnegative=True)
    members = 1 + more

    def end(ddof: Any) -> Any:
        first = sp.sqrt((1 / members) * (1 - 1 / members) * members / (members - ddof))
        return (1 - 1 / members) / (first + smoothing)

    return [
        argument(
            r"at $p=0$ only $s=0$ is left in the sum, $a_1+b_0=a_1$; at $p=1$ only $s=G-1$, $a_G+b_{G-1}=b_{G-1}=a_1$",
            "substitution; s_k = s_{G−k}",
        ),
        identity(
            r"$a_1^2=(1-\frac1G)(G-\delta)/1$ at $\varepsilon=0$, $\delta$ the ddof",
            end(freedom).subs(smoothing, 0) ** 2,
            (1 - 1 / members) * (members - freedom),
        ),
        identity(r"ddof 0: $\Omega_G(0)^2=G-1$", end(0).subs(smoothing, 0) ** 2, more),
        identity(r"ddof 1: $\Omega_G(0)^2=(G-1)^2/G$", end(1).subs(smoothing, 0) ** 2, more**2 / members),
        *(
            identity(rf"$G={m}$, ddof {d}: the definition at $p={x}$", group_gap(m, sp.Integer(x), 0, d), value)
            for m in (2, 5, 8)
            for d, value in ((0, sp.sqrt(m - 1)), (1, (m - 1) / sp.sqrt(m)))
            for x in (0, 1)
        ),
    ]


def _constant() -> list[Step]:
    return [
        identity(r"$\Omega_2=1$", group_gap(2, p), 1),
        identity(r"$\Omega_3=\sqrt2$", group_gap(3, p), sp.sqrt(2)),
        identity(r"ddof 1: $\Omega_2=1/\sqrt2$", group_gap(2, p, 0, 1), 1 / sp.sqrt(2)),
        identity(r"ddof 1: $\Omega_3=2/\sqrt3$", group_gap(3, p, 0, 1), 2 / sp.sqrt(3)),
    ]


_OURS = "ours"
_GROUP = r"rewards independent, $P(r=1)=p$"
_PLAIN = r"$\varepsilon=0$"

THEOREMS: list[Theorem] = [
    Theorem(
        "omega-g",
        "The advantage gap of a finite group",
        r"\Omega_G(p)=\sum_{s=0}^{G-1}\binom{G-1}sp^s(1-p)^{G-1-s}(a_{s+1}+b_s),\ \omega^+=(1-p)\Omega_G,\ "
        r"\omega^-=p\,\Omega_G",
        _OURS,
        (_GROUP, r"$G\geq2$; $s_k=s_{G-k}>0$ any function, silent groups giving 0"),
        _omega_g,
        r"$\omega^\pm$ are means given the reward. Read as $E[\,\cdot\,;r=1]=E[\,\cdot\,1_{r=1}]$, a common table "
        r"would be wrong by the "
        r"factors $p$ and $1-p$. At $\varepsilon=0$, ddof 0: $\Omega_G=E[s_k]/(p(1-p))$.",
    ),
    Theorem(
        "omega-g-ends",
        "Ω_G at p = 0 and p = 1",
        r"\Omega_G(0)=\Omega_G(1)=\sqrt{G-1}\ (\text{ddof }0),\quad(G-1)/\sqrt G\ (\text{ddof }1)",
        _OURS,
        (_PLAIN,),
        _ends,
        r"With $\varepsilon$ added to the standard deviation: $(1-\frac1G)/(s_1+\varepsilon)$.",
    ),
    Theorem(
        "omega-g-constant",
        "Groups of two and three see no difficulty",
        r"\Omega_2\equiv1,\quad\Omega_3\equiv\sqrt2",
        _OURS,
        (_PLAIN, "ddof 0"),
        _constant,
        r"With ddof 1: $\Omega_2\equiv1/\sqrt2$ and $\Omega_3\equiv2/\sqrt3$.",
    ),
]

"""Groups of G samples: the limit of large groups, mean-only advantages, and dropped silent groups."""

from __future__ import annotations

from typing import Any

import sympy as sp  # pyright: ignore[reportMissingTypeStubs]
from sympy.functions.combinatorial.numbers import stirling  # pyright: ignore[reportMissingTypeStubs]

from grpo_dynamics.symbolic.definitions import group_gap, p
from grpo_dynamics.symbolic.finite_groups import (
    SIZES,
    Rewards,
    advantage,
    binomial_weights,
    choose,
    count,
    expected,
    size,
)
from grpo_dynamics.symbolic.proof import Step, Theorem, argument, identity, positive


def _limit() -> list[Step]:
    x: Any = sp.Symbol("x", nonnegative=True)
    v: Any = sp.Symbol("v", positive=True)  # p(1−p)
    order: Any = sp.Symbol("j", integer=True, positive=True)

    def falling(j: int) -> Any:
        return sp.expand(sp.ff(size, j) * p**j)

    powers = [sum(stirling(n, j) * falling(j) for j in range(1, n + 1)) for n in range(1, 5)]
    first, second, third, fourth = (power / size ** (n + 1) for n, power in enumerate(powers))
    moment = (1 - 1 / size) * ((size - 2) * (size - 3) / size**2 * v**2 + (size - 1) / size**2 * v)
    variance = p * (1 - p)
    bound = (3 * (1 - 1 / size) - moment / v**2) / 2
    return [
        identity(
            r"factorial moments: $\binom Gk k(k-1)\cdots(k-j+1)=G(G-1)\cdots(G-j+1)\binom{G-j}{k-j}$, so "
            r"$E[(k)_j]=(G)_j\,p^j$",
            sp.gammasimp(
                choose(size, count)
                * sp.gamma(count + 1)
                / sp.gamma(count - order + 1)
                / (choose(size - order, count - order) * sp.gamma(size + 1) / sp.gamma(size - order + 1))
            ),
            1,
        ),
        identity(
            r"$V=\frac kG(1-\frac kG)$ has $E[V]=(1-\frac1G)v$, $v=p(1-p)$",
            sp.expand(first - second),
            (1 - 1 / size) * variance,
        ),
        identity(
            r"$E[V^2]=(1-\frac1G)\left(\frac{(G-2)(G-3)}{G^2}v^2+\frac{G-1}{G^2}v\right)$",
            sp.expand(second - 2 * third + fourth),
            sp.expand(moment.subs(v, variance)),
        ),
        argument(
            r"$\Omega_G=E[\sqrt V]/v\leq\sqrt{E[V]}/v=\sqrt{1-1/G}\,/\sqrt v$ (omega-g)",
            "Jensen's inequality",
        ),
        identity(
            r"$r-\frac12(3r^2-r^4)=\frac12r(r-1)^2(r+2)$, with $r=\sqrt{V/v}$",
            x - (3 * x**2 - x**4) / 2,
            x * (x - 1) ** 2 * (x + 2) / 2,
        ),
        positive(
            r"which is $\geq0$, so $E\sqrt V\geq\frac{\sqrt v}2(3E[V]/v-E[V^2]/v^2)$",
            x * sp.Symbol("q", real=True) ** 2 * (x + 2),
            False,
        ),
        identity(
            r"the lower bound on $\sqrt v\,\Omega_G$ is "
            r"$(1-\frac1G)\left(1+\frac{5G-6}{2G^2}-\frac{G-1}{2G^2v}\right)$",
            bound,
            (1 - 1 / size) * (1 + (5 * size - 6) / (2 * size**2) - (size - 1) / (2 * size**2 * v)),
        ),
        argument(
            r"both bounds tend to 1 as $G\to\infty$, at rate $1/G$, uniformly where $v$ stays away from 0; not up to "
            r"$p=0$, "
            r"where $\Omega_G=\sqrt{G-1}$ and $1/\sqrt v=\infty$",
            "squeeze",
        ),
    ]


def _mean_only() -> list[Step]:
    mean = (1 + (size - 1) * p) / size
    none = (size - 1) * p / size
    return [
        identity(
            r"$E[k\mid r_1=1]=1+(G-1)p$: $\omega^+=1-E[k]/G=\frac{G-1}G(1-p)$", 1 - mean, (size - 1) / size * (1 - p)
        ),
        identity(r"$E[k\mid r_1=0]=(G-1)p$: $\omega^-=\frac{G-1}Gp$", none, (size - 1) / size * p),
        identity(r"$\Omega=(G-1)/G$", (1 - mean) + none, (size - 1) / size),
        *(
            identity(
                rf"$G={m}$, every reward vector: $E[A_1(r_1-p)]/(p(1-p))$ is $(G-1)/G$",
                sp.expand(expected(m, lambda r, m=m: (r[0] - sp.Rational(sum(r), m)) * (r[0] - p))),
                sp.expand(sp.Rational(m - 1, m) * p * (1 - p)),
            )
            for m in SIZES
        ),
        *(
            identity(
                rf"$G={m}$, leave-one-out mean: 1",
                sp.expand(expected(m, lambda r, m=m: (r[0] - sp.Rational(sum(r[1:]), m - 1)) * (r[0] - p))),
                sp.expand(p * (1 - p)),
            )
            for m in SIZES
        ),
        identity(
            r"for every $G$, leave-one-out: $\omega^+=1-\frac{(G-1)p}{G-1}$, $\omega^-=\frac{(G-1)p}{G-1}$, sum 1",
            (1 - (size - 1) * p / (size - 1)) + (size - 1) * p / (size - 1),
            1,
        ),
        argument(r"$A_1$ is linear in the other rewards, so their mean is enough", "linearity of expectation"),
    ]


def _drop() -> list[Step]:
    def mixed(r: Rewards) -> bool:
        return 0 < sum(r) < len(r)

    steps: list[Step] = []
    for members in SIZES:
        plus, minus = binomial_weights(members)
        kept = expected(members, lambda r: int(mixed(r)))
        steps += [
            identity(
                rf"$G={members}$: a group is kept with probability $1-p^G-(1-p)^G$",
                sp.expand(kept),
                sp.expand(1 - p**members - (1 - p) ** members),
            ),
            identity(
                rf"$G={members}$: $E[A_1(r_1-p);\text{{kept}}]=p(1-p)\,\Omega_G$",
                sp.expand(expected(members, lambda r: int(mixed(r)) * advantage(r) * (r[0] - p))),
                sp.expand(p * (1 - p) * (plus + minus)),
            ),
        ]
    return [
        *steps,
        argument(
            r"a silent group has $A=0$: keeping or dropping it leaves $E[A_1(r_1-p);\text{kept}]$ as it was, and the "
            r"average over kept "
            r"groups divides by their probability, for every $G$",
            "definition of conditional expectation",
        ),
        identity(
            r"near $p=0$: $p\,\Omega_G/(1-p^G-(1-p)^G)\to\sqrt{G-1}/G$ ($G=6$): the drift no longer vanishes at the "
            r"ends",
            sp.limit(p * group_gap(6, p) / (1 - p**6 - (1 - p) ** 6), p, 0),
            sp.sqrt(5) / 6,
        ),
    ]


_OURS = "ours"
_GROUP = r"rewards independent, $P(r=1)=p$"
_PLAIN = r"$\varepsilon=0$"

THEOREMS: list[Theorem] = [
    Theorem(
        "omega-g-limit",
        "Large groups: Ω_G → 1/√(p(1−p)), with bounds",
        r"(1-\tfrac1G)\left(1+\tfrac{5G-6}{2G^2}-\tfrac{G-1}{2G^2p(1-p)}\right)\leq\sqrt{p(1-p)}\,\Omega_G\leq\sqrt{1-\tfrac1G}",
        _OURS,
        (_PLAIN, "ddof 0; ddof 1 multiplies by √(1−1/G)"),
        _limit,
        r"Not uniform in $p$: at the ends $\Omega_G$ is finite and its limit is not.",
    ),
    Theorem(
        "mean-only-group",
        "Mean-only groups: (G−1)/G, leave-one-out 1",
        r"\Omega=\frac{G-1}G;\quad\text{leave-one-out: }\Omega=1",
        _OURS,
        (_GROUP,),
        _mean_only,
    ),
    Theorem(
        "drop",
        "Dropping silent groups",
        r"\Omega_G^{\rm drop}=\frac{\Omega_G}{1-p^G-(1-p)^G}",
        "ours",
        (_GROUP, r"averages are over the kept groups"),
        _drop,
        r"This $\Omega$ is that of the drift, $E[A_1(r_1-p)]/(p(1-p))$; given a kept group $P(r_1=1)$ is no longer "
        r"$p$.",
    ),
]

"""The shape of Ω_G as a function of the log-odds, for every group size: even, rising, its slope turning once."""

from __future__ import annotations

from typing import Any

import sympy as sp  # pyright: ignore[reportMissingTypeStubs]

from grpo_dynamics.symbolic.definitions import odds
from grpo_dynamics.symbolic.finite_groups import bernstein_gap, choose, count, size
from grpo_dynamics.symbolic.proof import Step, Theorem, argument, identity, positive

x: Any = sp.Symbol("x", positive=True)
"""A real place between two values of k."""
m: Any = sp.Symbol("m", integer=True, positive=True)
z: Any = sp.Symbol("z", positive=True)
"""z = G − 1 − 2m."""
beyond: Any = sp.Symbol("a", nonnegative=True)
"""m = 1 + a."""
coefficient: Any = sp.IndexedBase("b")


def _by_log_odds(expression: Any) -> Any:
    return odds * sp.diff(expression, odds)


def _at_odds(members: int) -> Any:
    """Σ_k C(G−2, k−1) b_k o^(k−1)/(1+o)^(G−2): Ω_G/(G−1) with any b_k."""
    return sum(sp.binomial(members - 2, k - 1) * coefficient[k] * odds ** (k - 1) for k in range(1, members)) / (
        1 + odds
    ) ** (members - 2)


def _curvature(members: int) -> Any:
    """Σ_m C(G−2, m−1)(φ_m − φ_{m−1}) o^m/(1+o)^G, with φ_m = m(G−1−m)(b_{m+1} − b_m) and φ_0 = φ_{G−1} = 0."""

    def phi(k: int) -> Any:
        return k * (members - 1 - k) * (coefficient[k + 1] - coefficient[k]) if 0 < k < members - 1 else 0

    return (
        sum(sp.binomial(members - 2, k - 1) * (phi(k) - phi(k - 1)) * odds**k for k in range(1, members))
        / (1 + odds) ** members
    )


def _convexity_steps() -> list[Step]:
    area = x * (size - x)
    bent = sp.Rational(3, 4) * (size - 2 * x) ** 2 * area ** sp.Rational(-5, 2) + area ** sp.Rational(-3, 2)
    space = sp.Symbol("u", positive=True)
    return [
        argument(
            r"$\Omega_G=(G-1)\sum_kb_k\,B_{k-1}(p)$ with the Bernstein polynomials of degree $G-2$, "
            r"$b_k=1/\sqrt{k(G-k)}$",
            "omega-g",
        ),
        argument(
            r"$b_{G-k}=b_k$, so $\Omega_G(1-p)=\Omega_G(p)$: even in $L$", "symmetry of the Bernstein polynomials"
        ),
        identity(
            r"$b(x)=(x(G-x))^{-1/2}$ has $b''=\frac34(G-2x)^2(x(G-x))^{-5/2}+(x(G-x))^{-3/2}$",
            sp.diff(area ** sp.Rational(-1, 2), x, 2) * area ** sp.Rational(5, 2),
            sp.expand(bent * area ** sp.Rational(5, 2)),
        ),
        positive(
            r"which is positive for $0<x<G$",
            sp.Rational(3, 4) * sp.Symbol("d", real=True) ** 2 * space ** sp.Rational(-5, 2)
            + space ** sp.Rational(-3, 2),
        ),
        argument(
            r"so the second differences of $b_k$ are positive, and $\Omega_G$ is strictly convex in $p$ for $G\geq4$; "
            r"being even about "
            r"$p=\frac12$ it rises for $p>\frac12$",
            "the second derivative of a Bernstein polynomial is the Bernstein polynomial of the second differences",
        ),
    ]


def _coefficient_steps() -> list[Step]:
    return [
        *(
            identity(
                rf"$G={g}$, any $b_k$: $\mathrm d^2/\mathrm dL^2$ of $\Omega_G/(G-1)$ is "
                r"$\sum_m\binom{G-2}{m-1}(\varphi_m-\varphi_{m-1})\,o^m/(1+o)^G$, $o=e^L$, "
                r"$\varphi_m=m(G-1-m)(b_{m+1}-b_m)$",
                sp.ratsimp(_by_log_odds(_by_log_odds(_at_odds(g))) - _curvature(g)),
            )
            for g in (4, 5, 6)
        ),
        identity(
            r"for every $G$: $\mathrm d/\mathrm dL$ of $o^m/(1+o)^n$ is $(m-(n-m)o)\,o^m/(1+o)^{n+1}$",
            _by_log_odds(odds**m / (1 + odds) ** size) * (1 + odds) ** (size + 1) / odds**m,
            m - (size - m) * odds,
        ),
        identity(
            r"twice, the coefficient of $o^m$ is $m\,e_m-(G-m)\,e_{m-1}$ with "
            r"$e_m=(G-2)\binom{G-3}{m-1}(b_{m+1}-b_m)$; and "
            r"$m\,(G-2)\binom{G-3}{m-1}=\binom{G-2}{m-1}m(G-1-m)$",
            sp.gammasimp(m * (size - 2) * choose(size - 3, m - 1) / (choose(size - 2, m - 1) * m * (size - 1 - m))),
            1,
        ),
        identity(
            r"$(G-m)(G-2)\binom{G-3}{m-2}=\binom{G-2}{m-1}(m-1)(G-m)$",
            sp.gammasimp((size - 2) * choose(size - 3, m - 2) / (choose(size - 2, m - 1) * (m - 1))),
            1,
        ),
    ]


def _monotone_steps() -> list[Step]:
    size_z = 2 * m + 1 + z  # G
    first, second = m * (size_z - m), (m + 1) * (size_z - m - 1)  # 1/b_m², 1/b_{m+1}²
    inner, outer = (size - 1) ** 2 - x, (size + 1) ** 2 - x  # P and Q, with x = z²
    root = sp.sqrt(inner * outer)
    total = (size**2 - 1 - x) / 2 + root / 2  # S
    low = size * inner * outer - 4 * x * (size**2 - x)
    visible = sp.expand(low.subs({size: 2 * m + 1 + z, x: z**2}).subs(m, 1 + beyond))
    r1, r2 = sp.symbols("r_1 r_2", positive=True)
    return [
        identity(r"with $z=G-1-2m$: $(m+1)(G-m-1)-m(G-m)=z$", second - first, z),
        identity(
            r"so $b_m-b_{m+1}=z/(r_1r_2(r_1+r_2))$, $r_1^2=m(G-m)$, $r_2^2=r_1^2+z$",
            (1 / r1 - 1 / r2) * r1 * r2 * (r1 + r2),
            r2**2 - r1**2,
        ),
        identity(r"$4m(G-1-m)=P=(G-1)^2-z^2$", 4 * m * (size_z - 1 - m), (size_z - 1) ** 2 - z**2),
        identity(
            r"$16\,r_1^2r_2^2=PQ$, $Q=(G+1)^2-z^2$",
            16 * first * second,
            ((size_z - 1) ** 2 - z**2) * ((size_z + 1) ** 2 - z**2),
        ),
        identity(
            r"$r_1^2+r_2^2=(G^2-1-z^2)/2$, so $(r_1+r_2)^2=S=\frac12(G^2-1-z^2)+\frac12\sqrt{PQ}$ and "
            r"$\varphi_m^2=z^2P/(QS)$",
            first + second,
            (size_z**2 - 1 - z**2) / 2,
        ),
        identity(
            r"$-\mathrm dS/\mathrm d(z^2)=\frac12+(P+Q)/(4\sqrt{PQ})$, which is $\geq1$",
            -sp.diff(total, x) * root,
            root / 2 + (inner + outer) / 4,
        ),
        identity(r"as $(P+Q)-2\sqrt{PQ}=(\sqrt P-\sqrt Q)^2$", r1**2 + r2**2 - 2 * r1 * r2, (r1 - r2) ** 2),
        identity(
            r"for the same reason $S\leq\frac12(G^2-1-z^2)+\frac14(P+Q)=G^2-z^2$",
            (size**2 - 1 - x) / 2 + (inner + outer) / 4,
            size**2 - x,
        ),
        identity(
            r"so $\mathrm d\log\varphi_m^2/\mathrm d(z^2)\geq\frac1{z^2}-\frac1P+\frac1Q+\frac1{G^2-z^2}="
            r"G\,[G\,PQ-4z^2(G^2-z^2)]/(z^2(G^2-z^2)PQ)$",
            sp.cancel(1 / x - 1 / inner + 1 / outer + 1 / (size**2 - x)),
            sp.cancel(size * low / (x * (size**2 - x) * inner * outer)),
        ),
        positive(r"with $m=1+a$, $a\geq0$, $G=2m+1+z$ the bracket has no negative coefficient", visible),
        argument(
            r"at fixed $G$, $-\varphi$ is odd in $z$ and strictly increases with $z$ for $|z|\leq G-3$, that is $1\leq "
            r"m\leq G-2$: "
            r"$\varphi_1<0$, $\varphi_m$ strictly increases from $m=1$ to $m=G-2$, $\varphi_{G-2}=-\varphi_1>0$",
            "sign of the derivative",
        ),
    ]


def _shape() -> list[Step]:
    share = count / size
    freedom = sp.Symbol("delta", nonnegative=True)
    return [
        *_convexity_steps(),
        *_coefficient_steps(),
        *_monotone_steps(),
        argument(
            r"the coefficients $\varphi_m-\varphi_{m-1}$, $m=1,\dots,G-1$, have the signs $-,+,\dots,+,-$: two "
            r"changes, so at most two "
            r"roots $o>0$ of $\mathrm d^2\Omega_G/\mathrm dL^2$. It is even in $L$, at $L=0$ it is "
            r"$\frac1{16}\Omega_G''(\frac12)>0$, and "
            r"negative for large $|L|$: exactly one root with $L>0$",
            "Descartes' rule of signs",
        ),
        identity(
            r"$s_k^2$ with ddof $\delta$ is $G/(G-\delta)$ times that with ddof 0: $\Omega_G$ is multiplied by "
            r"$\sqrt{(G-\delta)/G}$",
            (count * (1 - share) ** 2 + (size - count) * share**2) / (size - freedom),
            share * (1 - share) * size / (size - freedom),
        ),
        identity(r"$G=4$: $\Omega_4=\sqrt3\,(1-2v)+3v$ with $v=p(1-p)$, as an example", *_example()),
    ]


def _example() -> tuple[Any, Any]:
    chance = sp.Symbol("p", positive=True)
    v = chance * (1 - chance)
    return sp.expand(bernstein_gap(4, chance)), sp.expand(sp.sqrt(3) * (1 - 2 * v) + 3 * v)


THEOREMS: list[Theorem] = [
    Theorem(
        "omega-g-shape",
        "Ω_G of the log-odds: even, rising, with a slope that turns once",
        r"\Omega_G(-L)=\Omega_G(L);\ \Omega_G'>0\text{ for }L>0;\ \Omega_G''\text{ changes sign once for }L>0,\text{ "
        r"from}+\text{to}-",
        "ours",
        (r"every $G\geq4$ (not only $G\leq64$)", r"$\varepsilon=0$", "any ddof < G"),
        _shape,
        r"$\Omega_2$ and $\Omega_3$ are constant. As $G\to\infty$ the turn moves to $L=\infty$: $1/\sqrt{p(1-p)}$ has "
        r"none.",
    ),
]

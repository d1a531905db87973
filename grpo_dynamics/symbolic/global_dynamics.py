"""What holds for every start: contraction, one step, the β that reaches a target, and the mirror flow."""

from __future__ import annotations

from typing import Any

import sympy as sp  # pyright: ignore[reportMissingTypeStubs]

from grpo_dynamics.symbolic.definitions import (
    alpha,
    beta,
    eps,
    gap,
    log_odds,
    log_odds_ref,
    odds,
    p,
    sigmoid,
    stability_bound,
    step,
)
from grpo_dynamics.symbolic.proof import Step, Theorem, argument, identity, positive

variance: Any = sp.Symbol("v", positive=True)
"""v = p(1−p) ∈ (0, 1/4]."""
gap_value: Any = sp.Symbol("Omega", positive=True)
ahead: Any = sp.Symbol("d", positive=True)
"""A positive distance of log-odds."""
greatest = 1 / (3 * sp.sqrt(3 * eps) * (1 + 4 * eps))
"""max_p B_ε(p)."""
peak = 2 * eps / (1 + 12 * eps)
"""v = p(1−p) where B_ε is greatest."""


def bound_squared(v: Any) -> Any:
    """B_ε² as a function of v = p(1−p)."""
    return v**2 * (1 - 4 * v) / (4 * (v + eps) ** 3)


def _max_b() -> list[Step]:
    square = ((1 + 12 * eps) * variance - 2 * eps) ** 2
    rest = 4 * (1 + 3 * eps) * variance + eps
    below = 108 * eps * (1 + 4 * eps) ** 2 * (variance + eps) ** 3
    return [
        identity(
            r"$B_\varepsilon^2=v^2(1-4v)/(4(v+\varepsilon)^3)$ with $v=p(1-p)$",
            stability_bound(p) ** 2,
            bound_squared(p * (1 - p)),
        ),
        identity(
            r"$\max^2-B_\varepsilon^2$ is a square, $((1+12\varepsilon)v-2\varepsilon)^2$, times "
            r"$(4(1+3\varepsilon)v+\varepsilon)/(108\varepsilon(1+4\varepsilon)^2(v+\varepsilon)^3)$",
            greatest**2 - bound_squared(variance),
            square * rest / below,
        ),
        positive(
            r"the other factor is positive, so equality holds at $v=2\varepsilon/(1+12\varepsilon)$ only", rest / below
        ),
        identity(
            r"that $v$ lies below $1/4$: the distance is $(1+4\varepsilon)/(4(1+12\varepsilon))$",
            sp.Rational(1, 4) - peak,
            (1 + 4 * eps) / (4 * (1 + 12 * eps)),
        ),
        positive(r"which is positive: two $p$, mirror images, attain it", (1 + 4 * eps) / (4 * (1 + 12 * eps))),
    ]


def _contraction() -> list[Step]:
    multiplier = sp.diff(step(log_odds, log_odds_ref, gap(sigmoid(log_odds))), log_odds)
    signed, share, room = (
        sp.Symbol("b", nonnegative=True),
        sp.Symbol("r", nonnegative=True),
        sp.Symbol("u", positive=True),
    )
    anchor = sp.Symbol("a", positive=True)
    return [
        identity(
            r"at every state $\mathrm dL_n/\mathrm dL_{n-1}=(1-\alpha)+\mathrm{sgn}(2p-1)B_\varepsilon(p)/\beta$; here "
            r"with "
            r"$e^L=o$",
            multiplier.subs(log_odds, sp.log(odds)),
            (1 - alpha) + stability_bound(odds / (1 + odds)) / beta,
        ),
        identity(
            r"with $M=\max B_\varepsilon$ and $\alpha\beta=M+u$: $1-[(1-\alpha)+M/\beta]=u/\beta$",
            (1 - ((1 - anchor) + signed / beta)).subs(signed, anchor * beta - room),
            room / beta,
        ),
        positive(r"so the multiplier is below 1 by at least $u/\beta>0$", room / beta),
        identity(
            r"$1+[(1-\alpha)-M/\beta]=2(1-\alpha)+u/\beta$",
            (1 + (1 - anchor) - signed / beta).subs(signed, anchor * beta - room).subs(anchor, 1 - share),
            2 * share + room / beta,
        ),
        positive(r"and above $-1$ by at least as much", 2 * share + room / beta),
        argument(
            r"a map of the line whose slope stays in $[-1+u/\beta,\,1-u/\beta]$ has one fixed point, and every orbit "
            r"converges to "
            r"it at least as fast as $(1-u/\beta)^n$",
            "Banach's fixed-point theorem",
        ),
        argument(
            r"if $\alpha\beta=\max B_\varepsilon$ the slope has modulus 1 at one or two points only (max-b), so "
            r"distances shrink "
            r"strictly, orbits stay bounded as $\Omega$ is: still one fixed point, and every orbit converges, without "
            r"a rate",
            "Edelstein's theorem on contractive maps of compact sets",
        ),
    ]


def _one_step() -> list[Step]:
    def change(distance: Any) -> Any:
        return step(log_odds_ref + distance, log_odds_ref, gap_value) - (log_odds_ref + distance)

    behind = sp.Symbol("u", nonnegative=True)
    return [
        identity(
            r"with $L_{n-1}=L_{\rm ref}-u$: $L_n-L_{n-1}=\alpha u+\Omega/\beta$",
            change(-behind),
            alpha * behind + gap_value / beta,
        ),
        positive(r"which is positive: at or below the reference the step rises", alpha * behind + gap_value / beta),
        identity(
            r"with $L_{n-1}=L_{\rm ref}+d$, $d>0$: $L_n-L_{n-1}=\frac d\beta(\Omega/d-\alpha\beta)$",
            change(ahead),
            ahead / beta * (gap_value / ahead - alpha * beta),
        ),
        positive(r"and $d/\beta>0$, so it rises iff $\alpha\beta<\Omega/d$", ahead / beta),
        argument(r"$L\mapsto p=\sigma(L)$ keeps the order", "the logistic function increases"),
    ]


def _inverse_design() -> list[Step]:
    needed = gap_value / ahead
    target = odds / (1 + odds)
    signed = stability_bound(target) / needed
    return [
        identity(
            r"with $d=\mathrm{logit}\,p^*-L_{\rm ref}>0$ and $\beta=\Omega/d$, one step of GRPO from $p^*$ stays",
            step(log_odds_ref + ahead, log_odds_ref, gap_value, needed, 1),
            log_odds_ref + ahead,
        ),
        positive(r"that $\beta$ is positive", needed),
        identity(
            r"no other $\beta$ does: with $\beta$ the step is $\Omega(1/\beta-d/\Omega)$",
            step(log_odds_ref + ahead, log_odds_ref, gap_value, beta, 1) - log_odds_ref - ahead,
            gap_value * (1 / beta - 1 / needed),
        ),
        positive(
            r"if $d=-u\leq0$ the step is positive for every $\beta$: no $\beta$ reaches a target at or below the "
            r"reference",
            gap_value / beta + sp.Symbol("u", nonnegative=True),
        ),
        identity(
            r"the multiplier at $p^*$ is $d\,p^*(1-p^*)(2p^*-1)/(2(p^*(1-p^*)+\varepsilon))$: stable iff "
            r"$d<2(v+\varepsilon)/(v|2p^*-1|)$ with $v=p^*(1-p^*)$",
            signed.subs(gap_value, gap(target)),
            ahead * target * (1 - target) * (2 * target - 1) / (2 * (target * (1 - target) + eps)),
        ),
    ]


def _mirror() -> list[Step]:
    time, angle = sp.Symbol("t", nonnegative=True), sp.Symbol("theta", positive=True)
    return [
        identity(
            r"$L_n-L_{n-1}=\Omega/\beta$ for $\alpha=0$",
            step(log_odds, log_odds_ref, gap_value, beta, 0) - log_odds,
            gap_value / beta,
        ),
        identity(
            r"$\Omega_\varepsilon^2-1/(\frac14+\varepsilon)=(1-2p)^2/[(1+4\varepsilon)(p(1-p)+\varepsilon)]$, so each "
            r"step is at least "
            r"$2/(\beta\sqrt{1+4\varepsilon})$: strictly rising, without bound in $L$",
            gap(odds / (1 + odds)) ** 2 - 1 / (sp.Rational(1, 4) + eps),
            (1 - odds) ** 2 / ((1 + 4 * eps) * (odds + eps * (1 + odds) ** 2)),
        ),
        positive(
            r"the rest is nonnegative",
            (1 - sp.Symbol("o", real=True)) ** 2 / ((1 + 4 * eps) * (odds + eps * (1 + odds) ** 2)),
            False,
        ),
        identity(
            r"flow $\mathrm dL/\mathrm dt=\Omega$, that is $\dot p=p(1-p)\Omega$; at $\varepsilon=0$: "
            r"$\frac{\mathrm d}{\mathrm dt}\arcsin\sqrt p=\frac12$ (with $p=o/(1+o)$)",
            sp.simplify((sp.diff(sp.asin(sp.sqrt(p)), p) * p * (1 - p) * gap(p, 0)).subs(p, odds / (1 + odds))),
            sp.Rational(1, 2),
        ),
        identity(
            r"so $p(t)=\sin^2(\theta_0+t/2)$: $\dot p=\sin\cos$, and $p(1-p)=\sin^2\cos^2$, as long as "
            r"$\theta_0+t/2\leq\pi/2$",
            sp.diff(sp.sin(angle + time / 2) ** 2, time) ** 2,
            sp.sin(angle + time / 2) ** 2 * (1 - sp.sin(angle + time / 2) ** 2),
        ),
        identity(
            r"$p=1$ at $t=\pi-2\theta_0$, $\theta_0=\arcsin\sqrt{p_0}$", sp.sin(angle + (sp.pi - 2 * angle) / 2) ** 2, 1
        ),
        identity(
            r"for $\varepsilon>0$ the speed is bounded, "
            r"$1/\varepsilon-\Omega^2=p(1-p)/(\varepsilon(p(1-p)+\varepsilon))$, so that no finite "
            r"time reaches $p=1$",
            1 / eps - gap(p) ** 2,
            p * (1 - p) / (eps * (p * (1 - p) + eps)),
        ),
        argument(
            r"the iteration is Euler's method for the flow with time step $1/\beta$, so as $\beta\to\infty$ with "
            r"$n/\beta\to t$ it "
            r"converges to $p(t)$ on every $[0,T]$ before $p=1$, where $\Omega$ is smooth",
            "convergence of Euler's method",
        ),
    ]


THEOREMS: list[Theorem] = [
    Theorem(
        "max-b",
        "The greatest value of B",
        r"\max_pB_\varepsilon(p)=\frac1{3\sqrt{3\varepsilon}\,(1+4\varepsilon)}\ \text{at}\ "
        r"p(1-p)=\frac{2\varepsilon}{1+12\varepsilon}",
        "ours",
        (r"$\varepsilon>0$",),
        _max_b,
        r"At $\varepsilon=0$, $B$ is unbounded.",
    ),
    Theorem(
        "global-contraction",
        "Above max B every orbit converges to one fixed point",
        r"\alpha\beta>\max_pB_\varepsilon\Rightarrow|\mathrm dL_n/\mathrm dL_{n-1}|\leq1-(\alpha\beta-\max "
        r"B_\varepsilon)/\beta",
        "ours",
        (r"$\varepsilon>0$", r"$0<\alpha\leq1$; GRPO is $\alpha=1$"),
        _contraction,
        r"The contraction is in log-odds. $\alpha\beta=\max B_\varepsilon$ is enough for convergence, without a rate.",
    ),
    Theorem(
        "one-step",
        "When one step raises the success probability",
        r"p_n>p_{n-1}\iff p_{n-1}\leq p_{\rm ref}\ \text{or}\ \alpha\beta<\frac{\Omega(p_{n-1})}{L_{n-1}-L_{\rm ref}}",
        "ours",
        (r"any $\Omega>0$", r"$0<\alpha\leq1$; GRPO is $\alpha=1$"),
        _one_step,
    ),
    Theorem(
        "inverse-design",
        "The β that has a given fixed point",
        r"\beta=\frac{\Omega(p^*)}{\mathrm{logit}\,p^*-L_{\rm ref}}",
        "ours",
        (r"$p_{\rm ref}<p^*<1$",),
        _inverse_design,
        r"It makes $p^*$ a fixed point, not the only one and not always a stable one: for $p^*<\frac12$ a flip and for "
        r"$p^*>\frac12$ a fold limits what can be reached; the last step gives the multiplier.",
    ),
    Theorem(
        "mirror-arcsin",
        "The mirror flow: arcsin √p grows at rate 1/2",
        r"\arcsin\sqrt{p(t)}=\arcsin\sqrt{p_0}+t/2,\ t=n/\beta,\quad p=1\ \text{at}\ t=\pi-2\arcsin\sqrt{p_0}",
        "ours",
        (r"$\varepsilon=0$ for the law; $\varepsilon\geq0$ for the rise", r"$\beta\to\infty$ with $n/\beta=t$"),
        _mirror,
        r"Finite time is the flow's at $\varepsilon=0$; the iteration itself has $p_n<1$ for every $n$, and for "
        r"$\varepsilon>0$ so has the flow.",
    ),
]

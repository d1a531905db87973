"""GRPO's objective as a weighted contrastive loss, with and without clipping, from the definitions."""

from __future__ import annotations

from typing import Any

import sympy as sp  # pyright: ignore[reportMissingTypeStubs]

from grpo_dynamics.symbolic import definitions as d
from grpo_dynamics.symbolic.outcome_space import gather, normalised, over_successes, policy, total
from grpo_dynamics.symbolic.proof import Step, Theorem, argument, identity, positive

low, high = sp.symbols("c_low c_high", nonnegative=True)
ratio: Any = sp.Symbol("rho", positive=True)
weight: Any = sp.Symbol("a", positive=True)
plus, minus = sp.symbols("omega^+ omega^-", positive=True)
below, beyond = sp.symbols("u v", nonnegative=True)


def clipped(x: Any, advantage: Any) -> Any:
    """f(ρ, A) = min(ρA, clip(ρ, 1−c_low, 1+c_high)·A), the function of PPO and GRPO."""
    clip = sp.Min(sp.Max(sp.expand(x), 1 - low), 1 + high)
    return sp.Min(sp.expand(x * advantage), sp.expand(clip * advantage))


def _clip_steps() -> list[Step]:
    regions = (
        (r"$\rho=1-c_{\rm low}-u$ below the range", 1 - low - below, {}),
        (r"$\rho=1-c_{\rm low}+u=1+c_{\rm high}-v$ inside", 1 - low + below, {high: below + beyond - low}),
        (r"$\rho=1+c_{\rm high}+v$ above", 1 + high + beyond, {}),
    )
    steps: list[Step] = []
    for name, x, bounds in regions:
        for sign, bound in ((1, sp.Min(x, 1 + high)), (-1, sp.Max(x, 1 - low))):
            minimum = r"a\min(\rho,1+c_{\rm high})" if sign > 0 else r"-a\max(\rho,1-c_{\rm low})"
            left, right = (e.subs(bounds) for e in (clipped(x, sign * weight), sign * weight * bound))
            steps.append(
                identity(
                    rf"$f(\rho,{'' if sign > 0 else '-'}a)={minimum}$ with {name}, $a>0$ and $u,v\geq0$",
                    _decide(left),
                    _decide(right),
                )
            )
    return [*steps, argument("the three regions are all of the line", "trichotomy of the real line")]


def _decide(expression: Any) -> Any:
    """Min and Max again with expanded arguments, where sympy sees their order."""
    for function in (sp.Max, sp.Min):
        expression = expression.replace(function, _expanded(function))
    return sp.expand(expression)


def _expanded(function: Any) -> Any:
    def rebuilt(*arguments: Any) -> Any:
        return function(*(sp.expand(argument) for argument in arguments))

    return rebuilt


def _weight_steps() -> list[Step]:
    p, o, more = d.p, d.odds, sp.Symbol("t", positive=True)
    mean = p * 1 + (1 - p) * 0
    variance = p * (1 - mean) ** 2 + (1 - p) * (0 - mean) ** 2
    scale = sp.sqrt(variance + d.eps)
    root = (p * (1 - p) + d.eps) ** sp.Rational(-3, 2)
    falls, rises = ((1 - p) / 2 + d.eps) * root, (p / 2 + d.eps) * root
    at_odds = {p: o / (1 + o)}
    above = {p: (1 + more) / (2 + more)}  # odds 1 + t > 1
    difference = d.weight_negative(p) - d.weight_positive(p)
    return [
        identity(r"a Bernoulli reward has variance $p(1-p)$", variance, p * (1 - p)),
        identity(r"$A(1)=(1-\mu)/\sqrt{\sigma^2+\varepsilon}=\omega^+(p)$", (1 - mean) / scale, d.weight_positive(p)),
        identity(r"$A(0)=-\mu/\sqrt{\sigma^2+\varepsilon}=-\omega^-(p)$", (0 - mean) / scale, -d.weight_negative(p)),
        identity(
            r"$\omega^+=\sqrt{(1-p)/p}$ at $\varepsilon=0$, with $p=o/(1+o)$",
            sp.simplify(d.weight_positive(o / (1 + o), 0)),
            sp.sqrt(1 / o),
        ),
        identity(
            r"$\omega^-=\sqrt{p/(1-p)}$ at $\varepsilon=0$, with $p=o/(1+o)$",
            sp.simplify(d.weight_negative(o / (1 + o), 0)),
            sp.sqrt(o),
        ),
        identity(
            r"$-\mathrm{d}\omega^+/\mathrm{d}p=(\frac{1-p}{2}+\varepsilon)(p(1-p)+\varepsilon)^{-3/2}$",
            -sp.diff(d.weight_positive(p), p),
            falls,
        ),
        identity(
            r"$\mathrm{d}\omega^-/\mathrm{d}p=(\frac p2+\varepsilon)(p(1-p)+\varepsilon)^{-3/2}$",
            sp.diff(d.weight_negative(p), p),
            rises,
        ),
        positive(r"so $\omega^+$ falls with $p$: rare successes count more", sp.together(falls.subs(at_odds))),
        positive(r"and $\omega^-$ rises with $p$", sp.together(rises.subs(at_odds))),
        identity(r"$\omega^--\omega^+=(2p-1)\,\Omega$", difference, (2 * p - 1) * d.gap(p)),
        positive(r"so above $p=\frac12$ success weighs less than failure", sp.factor((2 * p - 1).subs(above))),
        identity(
            r"and below it more, by the mirror image $p\leftrightarrow1-p$",
            difference.subs(p, 1 - p),
            -difference,
        ),
    ]


def _with_clip() -> list[Step]:
    old, new = policy("old"), policy("new")
    win, lose = new.success / old.success, new.failure / old.failure
    objective = total(old.success * plus * sp.Min(win, 1 + high), -old.failure * minus * sp.Max(lose, 1 - low))
    rewarded = total(old.success * sp.Min(win, 1 + high) * 1, old.failure * sp.Min(lose, 1 + high) * 0)
    punished = total(old.success * sp.Max(win, 1 - low) * 0, old.failure * sp.Max(lose, 1 - low) * 1)
    return [
        *_weight_steps(),
        *_clip_steps(),
        identity(
            r"$E_{\rm old}f(\rho,A)=\omega^+E_{\rm old}[\min(\rho,1+c)\mathbb 1_{r=1}]"
            r"-\omega^-E_{\rm old}[\max(\rho,1-c)\mathbb 1_{r=0}]$, sums over $S$ successes and $F$ failures",
            gather(objective),
            gather(plus * rewarded - minus * punished),
        ),
    ]


def _without_clip() -> list[Step]:
    old, new = policy("old"), policy("new")
    p = d.p
    objective = total(old.success * new.success / old.success * plus, -old.failure * new.failure / old.failure * minus)
    enough = sp.Symbol("v", nonnegative=True)
    return [
        identity(r"$\min(\rho,1+c)=\rho$ as soon as $1+c=\rho+v\geq\rho$", sp.Min(ratio, ratio + enough), ratio),
        identity(r"$\max(\rho,1-c)=\rho$ as soon as $1-c=\rho-v\leq\rho$", sp.Max(ratio, ratio - enough), ratio),
        argument(r"so the clipped form without bound $c\to\infty$ is the unclipped one", "finitely many outcomes"),
        identity(
            r"importance sampling: $E_{\rm old}[\rho\,\mathbb 1_{r=1}]=P_\pi(r=1)$",
            gather(over_successes(old.success * new.success / old.success)),
            new.p,
        ),
        identity(
            r"$E_{\rm old}[\rho A]=\omega^+P_\pi(r=1)-\omega^-P_\pi(r=0)$",
            gather(objective, normalised(new, p)),
            plus * p - minus * (1 - p),
        ),
        identity(
            r"$=\Omega\,P_\pi(r=1)-\omega^-$, and $\omega^-$ is constant in $\pi$",
            plus * p - minus * (1 - p),
            (plus + minus) * p - minus,
        ),
        identity(r"$\omega^++\omega^-=\Omega$", d.weight_positive(p) + d.weight_negative(p), d.gap(p)),
        identity(
            r"the whitened advantage has mean zero under the old policy: $p\,\omega^+=(1-p)\,\omega^-$",
            p * d.weight_positive(p),
            (1 - p) * d.weight_negative(p),
        ),
    ]


THEOREMS: list[Theorem] = [
    Theorem(
        "contrastive-clip",
        "GRPO with clipping is a weighted contrastive loss",
        r"E_{\pi_{\rm old}} f_c(\rho, A) = \omega^+_\varepsilon(p)\,E_{\pi_{\rm old}}[\min(\rho,1+c)\mathbb 1_{r=1}] - "
        r"\omega^-_\varepsilon(p)\,E_{\pi_{\rm old}}[\max(\rho,1-c)\mathbb 1_{r=0}], \quad "
        r"\omega^+ \text{ falls and } \omega^- \text{ rises with } p, \quad \omega^+<\omega^- \iff p>\tfrac12",
        "2503.06639v4, Sec. 2",
        (r"$r\in\{0,1\}$", r"$\pi_{\rm old}(o)>0$", r"$0<p<1$", r"$\varepsilon>0$", r"$c_{\rm low},c_{\rm high}\geq0$"),
        _with_clip,
        "The paper writes f(x,y) = x·min(y,1+ϵ) for x, y > 0: with its own definition f(x,y) = min(xy, clip(x)·y) the "
        "arguments are the other way round, f(x,y) = y·min(x,1+ϵ) for y > 0 and y·max(x,1−ϵ) for y < 0. Its first "
        "display writes the indicator as a condition under E, which would be a conditional expectation; true is the "
        "indicator inside. A popular write-up says that p > 1/2 favours success; it is the other way round. Different "
        "low and high clip ranges change nothing.",
    ),
    Theorem(
        "contrastive-no-clip",
        "GRPO without clipping",
        r"E_{\pi_{\rm old}}[\rho A] = \omega^+_\varepsilon(p_{\rm old})\,P_\pi(r=1) - "
        r"\omega^-_\varepsilon(p_{\rm old})\,P_\pi(r=0) = \Omega_\varepsilon(p_{\rm old})\,P_\pi(r=1) - \omega^-",
        "2503.06639v4, Sec. 2 (GRPO-No-Clip)",
        (r"$\pi_{\rm old}(o)>0$ wherever $\pi(o)>0$",),
        _without_clip,
    ),
]

"""The flow of the log-odds under each KL estimator: its reduction to one equation, and the single root of k3."""

from __future__ import annotations

from typing import Any

import sympy as sp  # pyright: ignore[reportMissingTypeStubs]

from grpo_dynamics.symbolic.definitions import beta
from grpo_dynamics.symbolic.kl_estimators import (
    CENTRED,
    OUTCOMES,
    SETTING,
    advantage,
    exponentials,
    gap_value,
    log_odds_speed,
    logit_derivative,
    p,
    p_ref,
    right,
    score_mean,
    shift,
    spread,
    tilted,
    tilted_anchor,
    wrong,
)
from grpo_dynamics.symbolic.proof import Step, Theorem, argument, identity, positive

tilt: list[Any] = [(1 - p) * shift] * 2 + [-p * shift] * 2
"""ℓ_i − KL on the tilted family."""


def _reduction() -> list[Step]:
    drive = p * (1 - p) * gap_value
    climb = [score_mean(advantage, tilted, j) for j in OUTCOMES]
    back_exact = [score_mean(tilt, tilted, j) for j in OUTCOMES]
    back_k3 = [q - a for q, a in zip(tilted, tilted_anchor, strict=True)]
    natural_k3 = [1 - a / q for q, a in zip(tilted, tilted_anchor, strict=True)]
    flow = [x - beta * y for x, y in zip(climb, back_k3, strict=True)]
    return [
        identity(
            r"$L=\log(\pi_1+\pi_2)-\log(\pi_3+\pi_4)$ has $\partial_1L=\pi_1/(\pi_1+\pi_2)$",
            logit_derivative(sp.log(exponentials[0] + exponentials[1]) - sp.log(exponentials[2] + exponentials[3]), 0),
            exponentials[0] / (exponentials[0] + exponentials[1]),
        ),
        identity(
            r"and $\partial_3L=-\pi_3/(\pi_3+\pi_4)$",
            logit_derivative(sp.log(exponentials[0] + exponentials[1]) - sp.log(exponentials[2] + exponentials[3]), 2),
            -exponentials[2] / (exponentials[2] + exponentials[3]),
        ),
        identity(
            r"reward alone: $\dot L=\kappa\,p(1-p)\Omega$, $\kappa=\sum_ic_i^2$ over both conditionals",
            log_odds_speed(climb),
            spread * drive,
        ),
        identity(
            r"$\ell_i-\mathrm{KL}$ has mean 0 on the family", sum(q * v for q, v in zip(tilted, tilt, strict=True)), 0
        ),
        identity(
            r"and differs by $d=L-L_{\rm ref}$ between success and failure: exact KL gives $\kappa\,p(1-p)\,d$",
            log_odds_speed(back_exact),
            spread * p * (1 - p) * shift,
        ),
        identity(r"k3 in the loss gives $\kappa\,(p-p_{\rm ref})$", log_odds_speed(back_k3), spread * (p - p_ref)),
        positive(r"so $\dot L=\kappa\,[p(1-p)\Omega-\beta R(p)]$ with $\kappa>0$", right**2 + wrong**2),
        identity(
            r"but $\dot\theta_1-\dot\theta_2=(c_1-c_2)[\dots]$: the softmax flow leaves the family at once unless the "
            r"conditionals are "
            r"uniform (or it is at rest)",
            flow[0] - flow[1],
            (right - (1 - right)) * (drive - beta * (p - p_ref)),
        ),
        identity(
            r"natural gradient: $\dot\theta_i=A_i-\beta(1-\pi_{{\rm ref},i}/\pi_i)$ solves $F\dot\theta=$ the above; "
            r"$F=\mathrm{diag}\,\pi-\pi\pi^\top$",
            score_mean(natural_k3, tilted, 0),
            back_k3[0],
        ),
        identity(r"it is constant on success", natural_k3[0], natural_k3[1]),
        identity(r"and on failure, so the family is invariant", natural_k3[2], natural_k3[3]),
        identity(
            r"with $p(1-p)\dot L=p(1-p)\Omega-\beta(p-p_{\rm ref})$",
            p * (1 - p) * (gap_value - beta * log_odds_speed(natural_k3)),
            drive - beta * (p - p_ref),
        ),
        argument(
            r"the same for exact KL, whose natural gradient $\ell_i$ is constant on success and on failure; a policy "
            r"of the single "
            r"parameter $L$ (two logits) has $\kappa$ replaced by 1 and no family to leave",
            "the steps before, with ℓ for 1 − π_ref/π",
        ),
    ]


def _k3_unique() -> list[Step]:
    v, s, x = sp.symbols("v s x", positive=True)
    smoothing: Any = sp.Symbol("epsilon", nonnegative=True)
    drive, added = v / sp.sqrt(v + smoothing), v / (sp.sqrt(v) + smoothing)
    return [
        identity(
            r"$v\,\Omega_\varepsilon=v/\sqrt{v+\varepsilon}$, $v=p(1-p)$, has slope "
            r"$(v/2+\varepsilon)(v+\varepsilon)^{-3/2}$",
            sp.diff(drive, v),
            (v / 2 + smoothing) * (v + smoothing) ** sp.Rational(-3, 2),
        ),
        identity(
            r"and second derivative $-(v/4+\varepsilon)(v+\varepsilon)^{-5/2}$",
            sp.diff(drive, v, 2),
            -(v / 4 + smoothing) * (v + smoothing) ** sp.Rational(-5, 2),
        ),
        positive(r"it rises", (v / 2 + smoothing) * (v + smoothing) ** sp.Rational(-3, 2)),
        positive(r"and is concave", (v / 4 + smoothing) * (v + smoothing) ** sp.Rational(-5, 2)),
        identity(
            r"with $\varepsilon$ added to the standard deviation $s=\sqrt v$: slope "
            r"$(s+2\varepsilon)/(2(s+\varepsilon)^2)$",
            sp.diff(added, v).subs(v, s**2),
            (s + 2 * smoothing) / (2 * (s + smoothing) ** 2),
        ),
        identity(
            r"which falls: its derivative in $s$ is $-(s+3\varepsilon)/(2(s+\varepsilon)^3)$",
            sp.diff((s + 2 * smoothing) / (2 * (s + smoothing) ** 2), s),
            -(s + 3 * smoothing) / (2 * (s + smoothing) ** 3),
        ),
        positive(r"as this is positive", (s + 3 * smoothing) / (2 * (s + smoothing) ** 3)),
        identity(r"$v=p(1-p)$ is concave, $v''=-2$", sp.diff(x * (1 - x), x, 2), -2),
        argument(
            r"a rising concave function of a concave one is concave: $\Phi(p)=p(1-p)\Omega(p)$ is concave. For a group "
            r"of $G$, "
            r"$\Phi=E[v_k/(s_k+\varepsilon)]$ (omega-g), the Bernstein polynomial of a sequence that is concave for "
            r"the same reason",
            "Bernstein polynomials of concave sequences are concave",
        ),
        argument(
            r"$\Phi(p)-\beta(p-p_{\rm ref})$ is concave, positive at $p_{\rm ref}$, negative at 1: exactly one zero on "
            r"$(p_{\rm ref},1)$, from + to −; at $p<p_{\rm ref}$ it is positive",
            "intermediate value theorem",
        ),
    ]


THEOREMS: list[Theorem] = [
    Theorem(
        "kl-flow-reduction",
        "The flow of the log-odds",
        r"\dot L=\kappa\,[p(1-p)\Omega(p)-\beta R(p)],\quad R=p(1-p)(L-L_{\rm ref})\text{ or }p-p_{\rm ref}",
        "ours",
        (SETTING, CENTRED, r"at policies whose conditionals given success and failure are those of $\pi_{\rm ref}$"),
        _reduction,
        r"The flow for L alone is exact for uniform conditionals, a two-logit policy, or the natural gradient "
        r"(which divides by "
        r"$p(1-p)$). The plain softmax flow with unequal conditionals leaves the tilted family, also for k3, and has "
        r"that speed only on "
        r"it; its stationary points are the same.",
    ),
    Theorem(
        "k3-unique",
        "With k3 in the loss there is one fixed point and no fold",
        r"p(1-p)\Omega(p)=\beta(p-p_{\rm ref})\text{ has exactly one root in }(p_{\rm ref},1)\text{, attracting from "
        r"everywhere in }(0,1)",
        "ours",
        (
            r"$\Omega$: mean + variance with $\varepsilon\geq0$ in the root or added to the standard deviation, mean "
            r"only, or a group of G",
            r"the flow of $L$ of kl-flow-reduction",
        ),
        _k3_unique,
        r"The folds of the map are in the flow of the exact KL, not in that of k3.",
    ),
]

"""Which KL a trainer has: the expected on-policy gradient of each estimator, and the flow that it gives.

A softmax over four outcomes, two of them right, written out; each computation is termwise and the same for any number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import sympy as sp  # pyright: ignore[reportMissingTypeStubs]

from grpo_dynamics.symbolic.definitions import beta, odds
from grpo_dynamics.symbolic.proof import Step, Theorem, argument, identity, positive

exponentials: Any = sp.symbols("e_1:5", positive=True)
"""e^θ_i: π_i = e_i/Σe; outcomes 1, 2 succeed and 3, 4 fail."""
references: Any = sp.symbols("r_1:5", positive=True)
"""π_ref,i = r_i/Σr."""
policy: list[Any] = [e / sum(exponentials) for e in exponentials]
anchor: list[Any] = [r / sum(references) for r in references]
log_ratio: list[Any] = [
    sp.log(e) - sp.log(sum(exponentials)) - sp.log(r) + sp.log(sum(references))
    for e, r in zip(exponentials, references, strict=True)
]
"""ℓ_i = log(π_i/π_ref,i)."""
OUTCOMES = range(4)

p: Any = sp.Symbol("p", positive=True)
p_ref: Any = sp.Symbol("p_ref", positive=True)
gap_value: Any = sp.Symbol("Omega", positive=True)
right: Any = sp.Symbol("c", positive=True)
wrong: Any = sp.Symbol("f", positive=True)
shift: Any = sp.Symbol("d", real=True)
"""d = L − L_ref."""
conditionals: list[Any] = [right, 1 - right, wrong, 1 - wrong]
tilted: list[Any] = [p * right, p * (1 - right), (1 - p) * wrong, (1 - p) * (1 - wrong)]
"""The tilted family: conditionals given success and given failure are those of π_ref."""
tilted_anchor: list[Any] = [probability.subs(p, p_ref) for probability in tilted]
spread: Any = right**2 + (1 - right) ** 2 + wrong**2 + (1 - wrong) ** 2
"""κ = Σ c_i², the speed of the vanilla softmax gradient."""
k3: list[Any] = [a / q - 1 + x for a, q, x in zip(anchor, policy, log_ratio, strict=True)]


def logit_derivative(expression: Any, j: int) -> Any:
    """The derivative with respect to θ_j = log e_j."""
    return exponentials[j] * sp.diff(expression, exponentials[j])


def score_mean(values: Sequence[Any], probabilities: Sequence[Any], j: int) -> Any:
    """Σ_i π_i v_i ∂_j log π_i = π_j(v_j − E v)."""
    mean = sum(q * v for q, v in zip(probabilities, values, strict=True))
    return probabilities[j] * (values[j] - mean)


def in_loss(estimator: Sequence[Any], j: int) -> Any:
    """Expected gradient of an estimator that is a term of the loss: E[∂_j k(o)], o sampled from π."""
    return sum(q * logit_derivative(k, j) for q, k in zip(policy, estimator, strict=True))


def in_reward(estimator: Sequence[Any], j: int) -> Any:
    """Expected gradient of an estimator that is a (detached) reward: E[k(o)·∂_j log π(o)]."""
    return sum(q * k * logit_derivative(sp.log(q), j) for q, k in zip(policy, estimator, strict=True))


def with_ratio(estimator: Sequence[Any], j: int) -> Any:
    """Expected gradient of ratio × estimator, both differentiated, at π_old = π: ∂_j Σ_i π_i k_i."""
    return logit_derivative(sum(q * k for q, k in zip(policy, estimator, strict=True)), j)


def exact(j: int) -> Any:
    """∂_j KL(π‖π_ref)."""
    return with_ratio(log_ratio, j)


def log_odds_speed(speeds: Sequence[Any]) -> Any:
    """DL/dt from dθ/dt, L = log(π_1 + π_2) − log(π_3 + π_4), on the tilted family."""
    return sum(c * x for c, x in zip(conditionals[:2], speeds[:2], strict=True)) - sum(
        c * x for c, x in zip(conditionals[2:], speeds[2:], strict=True)
    )


advantage: list[Any] = [(1 - p) * gap_value] * 2 + [-p * gap_value] * 2


def _same(says: str, left: Callable[[int], Any], right_side: Callable[[int], Any]) -> list[Step]:
    """One success and one failure; the others differ by names only."""
    return [identity(says + rf" (outcome {j + 1})", sp.cancel(sp.expand(left(j) - right_side(j)))) for j in (0, 2)]


ANY_NUMBER = argument(
    r"for any number of outcomes: $\partial_j\log\pi_i=\delta_{ij}-\pi_j$, so "
    r"$E[v\,\partial_j\log\pi]=\pi_j(v_j-E[v])$ and "
    r"$E[\partial_j\log\pi]=0$, term by term as here",
    "the score has mean zero",
)


def _k2() -> list[Step]:
    levels: Any = sp.symbols("x_1:3", real=True)
    drive, weight = sp.Function("Omega")(shift), sp.Function("v")(shift)  # v = κ p(1−p)
    return [
        *_same(
            r"$E[\partial_j\frac12\ell^2]=\partial_j\mathrm{KL}(\pi\|\pi_{\rm ref})$",
            lambda j: in_loss([x**2 / 2 for x in log_ratio], j),
            exact,
        ),
        ANY_NUMBER,
        argument(
            r"at rest $(1-p)\Omega=\beta(\ell_i-\mathrm{KL})$ for every success $i$ and "
            r"$-p\,\Omega=\beta(\ell_i-\mathrm{KL})$ for every "
            r"failure: $\ell$ takes two values $x_1,x_2$, so every stationary point is in the tilted family",
            "π_i > 0",
        ),
        identity(
            r"their difference: $\Omega=\beta(x_1-x_2)=\beta(L-L_{\rm ref})$, the fixed point of the paper",
            (1 - p) * gap_value - (-p * gap_value) - beta * (levels[0] - levels[1]),
            gap_value - beta * (levels[0] - levels[1]),
        ),
        identity(
            r"there $\mathrm d\dot L/\mathrm dL=-\kappa\beta\,p(1-p)(1-m)$ with $m=\Omega_L/\beta$ the multiplier of "
            r"the map, since the other term has the factor $\Omega-\beta(L-L_{\rm ref})=0$: stable iff $m<1$. "
            r"The flow has the folds of the map and none of its flips",
            sp.diff(weight * (drive - beta * shift), shift),
            sp.diff(weight, shift) * (drive - beta * shift) - beta * weight * (1 - sp.diff(drive, shift) / beta),
        ),
    ]


def _k3() -> list[Step]:
    own, ref = sp.symbols("pi_i pi_ref_i", positive=True)
    root = sp.sqrt(1 + 4 * beta**2 * p_ref * (1 - p_ref))
    solution = (1 + 2 * beta**2 * p_ref + root) / (2 * (1 + beta**2))
    quadratic = beta**2 * (p - p_ref) ** 2 - p * (1 - p)
    share = odds / (1 + odds)
    return [
        *_same(
            r"$E[\partial_jk_3]=\pi_j-\pi_{{\rm ref},j}$", lambda j: in_loss(k3, j), lambda j: policy[j] - anchor[j]
        ),
        ANY_NUMBER,
        identity(
            r"that is the gradient of the other divergence, $\mathrm{KL}(\pi_{\rm ref}\|\pi)$",
            logit_derivative(-sum(a * x for a, x in zip(anchor, log_ratio, strict=True)), 0),
            policy[0] - anchor[0],
        ),
        identity(
            r"at rest, success $i$: $\pi_i(1-p)\Omega-\beta(\pi_i-\pi_{{\rm ref},i})=0$ makes $\pi_i/\pi_{{\rm "
            r"ref},i}=\beta/(\beta-(1-p)\Omega)$",
            (own * (1 - p) * gap_value - beta * (own - ref)).subs(own, ref * beta / (beta - (1 - p) * gap_value)),
            0,
        ),
        identity(
            r"failure: $\pi_i/\pi_{{\rm ref},i}=\beta/(\beta+p\,\Omega)$: every stationary point is in the tilted "
            r"family",
            (-own * p * gap_value - beta * (own - ref)).subs(own, ref * beta / (beta + p * gap_value)),
            0,
        ),
        identity(
            r"summed over the successes: $p(1-p)\Omega=\beta(p-p_{\rm ref})$",
            p * (1 - p) * gap_value
            - beta * (p - p_ref)
            - sum(tilted[j] * (1 - p) * gap_value - beta * (tilted[j] - tilted_anchor[j]) for j in (0, 1)),
            0,
        ),
        identity(
            r"$\Omega=1/\sqrt{p(1-p)}$, squared: $\beta^2(p-p_{\rm ref})^2=p(1-p)$, solved by "
            r"$p^*=(1+2\beta^2p_{\rm ref}+\sqrt{1+4\beta^2p_{\rm ref}(1-p_{\rm ref})})/(2(1+\beta^2))$",
            sp.expand(quadratic.subs(p, solution)),
            0,
        ),
        identity(
            r"the quadratic is $-p_{\rm ref}(1-p_{\rm ref})$ at $p_{\rm ref}$",
            quadratic.subs(p, p_ref),
            -p_ref * (1 - p_ref),
        ),
        positive(
            r"negative, so one root on either side: only the larger has $p>p_{\rm ref}$", share * (1 / (1 + odds))
        ),
        identity(r"and $\beta^2(1-p_{\rm ref})^2$ at 1: so $p^*<1$", quadratic.subs(p, 1), beta**2 * (1 - p_ref) ** 2),
    ]


def _k1_loss() -> list[Step]:
    speeds = [score_mean(advantage, tilted, j) for j in OUTCOMES]
    a, b = sp.symbols("a b", real=True)
    return [
        *_same(r"$E[\partial_j\ell]=E[\partial_j\log\pi]=0$", lambda j: in_loss(log_ratio, j), lambda j: 0),
        ANY_NUMBER,
        identity(
            r"so only the reward drives: $\dot L=\kappa\,p(1-p)\Omega$",
            log_odds_speed(speeds),
            spread * p * (1 - p) * gap_value,
        ),
        identity(
            r"for any conditionals, $a^2+b^2=\frac12(a+b)^2+\frac12(a-b)^2$",
            a**2 + b**2,
            (a + b) ** 2 / 2 + (a - b) ** 2 / 2,
        ),
        argument(
            r"so $\kappa\geq1/K_++1/K_->0$ ($K_\pm$ right and wrong outcomes): $L$ rises at a positive rate on every "
            r"compact set and "
            r"cannot stop: $p\to1$",
            "Cauchy–Schwarz inequality",
        ),
    ]


def _k1_reward() -> list[Step]:
    constant = sp.Symbol("b", real=True)
    return [
        *_same(
            r"$E[\ell\,\partial_j\log\pi]=\partial_j\mathrm{KL}(\pi\|\pi_{\rm ref})$",
            lambda j: in_reward(log_ratio, j),
            exact,
        ),
        identity(r"a baseline $b$ changes nothing", in_reward([constant] * 4, 0), 0),
        ANY_NUMBER,
    ]


def _ratio() -> list[Step]:
    return [
        *_same(
            r"$\partial_jE_\pi[k_3]=\partial_j\mathrm{KL}(\pi\|\pi_{\rm ref})$: the extra terms, $\sum_i(\pi_{{\rm "
            r"ref},i}-\pi_i)$, are constant",
            lambda j: with_ratio(k3, j),
            exact,
        ),
        *_same(
            r"k1: $\partial_jE_\pi[\ell]$ is that by definition, and equals $E[\ell\,\partial_j\log\pi]$",
            lambda j: with_ratio(log_ratio, j),
            lambda j: in_reward(log_ratio, j),
        ),
        ANY_NUMBER,
    ]


SETTING = r"softmax over outcomes, on-policy samples, expected gradient"
CENTRED = r"$\omega^+=(1-p)\Omega$, $\omega^-=p\,\Omega$ (centred advantages)"

THEOREMS: list[Theorem] = [
    Theorem(
        "k2-flow",
        "k2 in the loss is the exact KL",
        r"E[\partial_j\tfrac12\ell^2]=\partial_j\mathrm{KL}(\pi\|\pi_{\rm ref});\ \text{at rest }L^*=L_{\rm "
        r"ref}+\Omega(p^*)/\beta",
        "ours",
        (SETTING, CENTRED),
        _k2,
    ),
    Theorem(
        "k3-flow",
        "k3 in the loss pulls the probability, not the log-odds",
        r"E[\partial_jk_3]=\pi_j-\pi_{{\rm ref},j};\ \text{at rest }\beta(p^*-p_{\rm ref})=p^*(1-p^*)\Omega(p^*)",
        "ours",
        (SETTING, CENTRED),
        _k3,
        r"Every stationary point has the conditionals of $\pi_{\rm ref}$; the path to it need not (kl-flow-reduction).",
    ),
    Theorem(
        "k1-loss",
        "k1 in the loss does nothing in expectation",
        r"E[\partial_j\ell]=0,\quad p\to1",
        "ours",
        (SETTING, CENTRED),
        _k1_loss,
    ),
    Theorem(
        "k1-reward",
        "k1 in the reward, after whitening, is the exact KL",
        r"E[\ell\,\partial_j\log\pi]=\partial_j\mathrm{KL}(\pi\|\pi_{\rm ref})",
        "ours",
        (SETTING, r"$\ell$ detached and added after the reward was normalised"),
        _k1_reward,
    ),
    Theorem(
        "k3-ratio",
        "k3 or k1 times the ratio, with its gradient, is the exact KL",
        r"\partial_jE_{\pi_{\rm old}}[\rho\,k_3]=\partial_j\mathrm{KL}(\pi\|\pi_{\rm ref})",
        "ours",
        (SETTING, r"$\pi_{\rm old}=\pi$, the ratio differentiated"),
        _ratio,
    ),
]

"""The flow of the success probability: where trainers that take many small steps go, for each way to code the KL.

A trainer does not solve for the best policy at each step, as the recursion does; it takes small noisy gradient steps,
and its KL term is an estimator. In expectation its log-odds then move along dL/dt = p(1−p)·Ω(L) − β·R(L). The estimator
decides R, so it decides the fixed point. The fold condition stays, flips and chaos do not exist.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import numpy as np

from grpo_dynamics.arrays import Array, as_arrays, batch_shape, option, quiet, require, require_choice
from grpo_dynamics.logodds import bernoulli_variance, complement, logit, sigmoid
from grpo_dynamics.normalization import Normalization, Whitened
from grpo_dynamics.theory.recursion import Recursion, Trajectory
from grpo_dynamics.theory.solvers.extrapolation import follow
from grpo_dynamics.update_rule import KL

Divergence = Literal["reverse", "forward", "none"]

DIVERGENCES: dict[str, Divergence] = {
    "exact": "reverse",
    "k1": "none",
    "k2": "reverse",
    "k3": "forward",
    "k1_in_reward": "reverse",
    "k1_times_ratio": "reverse",
    "k3_times_ratio": "reverse",
    "none": "none",
}
"""Whose gradient each KL term is on average: of KL(π‖π_ref), reverse, of KL(π_ref‖π), forward, or of nothing."""


@dataclasses.dataclass(frozen=True)
class Flow:
    """The flow dL/dt = p(1−p)·Ω(L) − β·R(L) that small on-policy gradient steps follow on average.

    With ℓ = log π/π_ref of a sampled answer, the names of the estimators are k1 = ℓ, k2 = ½ℓ², k3 = e^−ℓ − 1 + ℓ:

    ====================================================  ==================  =================================
    kl                                                    R(L)                what it regularises with
    ====================================================  ==================  =================================
    "exact", "k2", "k1_in_reward" (added to whitened      p(1−p)(L − L_ref)   KL(π‖π_ref), the paper's
    advantages), "k1_times_ratio", "k3_times_ratio"
    "k3" in the loss, many trainers' default              p − p_ref           KL(π_ref‖π)
    "k1" in the loss, "none"                              0                   nothing: p → 1
    ====================================================  ==================  =================================

    The equation for L alone is exact where the answers that are right, and those that are wrong, are equally probable
    among themselves (a policy with two logits, for one), and for the natural gradient. Otherwise the speed differs
    on the way, the fixed points do not.

    Args:
        beta: KL strength β > 0; 0 is allowed only with kl="none".
        p_ref: success probability of the reference policy, 0 < p_ref < 1.
        normalization: how rewards become advantages.
        kl: the KL term as it is coded.

    All options but kl broadcast together; the common shape is ``batch_shape(self)``.

    Raises:
        ValueError: for values out of range, NaN, an unknown kl, or shapes that do not broadcast.

    Source: derived in docs/notebooks/8_kl_estimators; cf. [2502.18548].

    >>> import grpo_dynamics as gd
    >>> for kl in ("exact", "k3"):
    ...     print(kl, gd.fixed_points(Flow(beta=1.0, p_ref=0.1, normalization=gd.FiniteGroup(8), kl=kl)).p[0].round(4))
    exact 0.4195
    k3 0.5596
    """

    beta: Any
    p_ref: Any
    normalization: Normalization = dataclasses.field(default_factory=Whitened)
    kl: KL = "exact"

    def __post_init__(self) -> None:
        for name in ("beta", "p_ref"):
            object.__setattr__(self, name, option(getattr(self, name)))
        require_choice("kl", self.kl, tuple(DIVERGENCES))
        if self.kl == "none":
            require("beta", self.beta, "a finite number >= 0", lambda x: (x >= 0) & (x < float("inf")))
        else:
            allowed = 'a finite number > 0 (for a trainer without a KL term say kl="none")'
            require("beta", self.beta, allowed, lambda x: (x > 0) & (x < float("inf")))
        require("p_ref", self.p_ref, "a probability strictly between 0 and 1", lambda x: (x > 0) & (x < 1))
        if not isinstance(self.normalization, Normalization):
            raise ValueError(f"normalization must be a Normalization such as Whitened(), got {self.normalization!r}")
        batch_shape(self)

    @property
    def divergence(self) -> Divergence:
        """Of which divergence the KL term is the gradient on average, "reverse", "forward" or "none"."""
        return DIVERGENCES[self.kl]

    @property
    def recursion(self) -> Recursion:
        """The recursion with the same options, of the same fixed points where the divergence is "reverse"."""
        return Recursion(self.beta, self.p_ref, self.normalization)

    def rate(self, log_odds: Array) -> Array:
        """Return dL/dt = p(1−p)·Ω − β·R.

        Args:
            log_odds: L in [-inf, inf], broadcasts with the options.
        """
        require("log_odds", log_odds, "a number, not NaN", lambda x: x == x)
        return self._rate_and_rounding(log_odds)[0]

    @quiet
    def _rate_and_rounding(self, log_odds: Array) -> tuple[Array, Array]:
        """The rate, and what it may be where L is at rest to 256 roundings of L, of L_ref and of its two sides."""
        xp, log_odds, beta, p_ref = as_arrays(log_odds, self.beta, self.p_ref, beside=self.normalization)
        drive, pull = self._drive_and_pull(log_odds)
        size = 1 + xp.abs(log_odds)
        moved = (xp.abs(drive) + xp.abs(pull)) * size
        if self.divergence != "none":
            moved = moved + beta * bernoulli_variance(log_odds) * (size + xp.abs(logit(p_ref)))
        return (drive - pull)[()], (256 * xp.finfo(log_odds.dtype).eps * moved)[()]

    def _drive_and_pull(self, log_odds: Array) -> tuple[Array, Array]:
        """p(1−p)·Ω and β·R, neither with cancellation."""
        xp, log_odds, beta, p_ref = as_arrays(log_odds, self.beta, self.p_ref, beside=self.normalization)
        inner = xp.where(xp.abs(log_odds) < 700, log_odds, 700 * xp.sign(log_odds))  # beyond, Ω may overflow
        gap = self.normalization.gap(log_odds)
        gap = xp.where(xp.isinf(gap), self.normalization.gap(inner), gap)
        root = xp.exp(-0.5 * xp.abs(log_odds))
        inverse = 1 / (1 + root * root) ** 2
        drive = root * gap * (root * inverse)  # Ω grows like e^(|L|/2) at ε = 0: no underflow in between
        if self.divergence == "none":
            return drive, 0.0 * (drive + beta)
        d = log_odds - logit(p_ref)
        if self.divergence == "reverse":
            return drive, beta * xp.where(xp.isinf(d), 0.0, root * root * inverse * d)
        ahead = -sigmoid(log_odds) * (1 - p_ref) * xp.expm1(-d)
        behind = complement(log_odds) * p_ref * xp.expm1(d)
        return drive, beta * xp.where(d > 0, ahead, behind)

    @quiet
    def step(self, log_odds: Array) -> Array:
        """Return L + (Ω/β − R/(p(1−p))): the whole natural-gradient step of time 1/β, for kl="exact" that of GRPO.

        The flow is made of small parts of this step, so both have the same fixed points. Infinite at β = 0.
        """
        require("log_odds", log_odds, "a number, not NaN", lambda x: x == x)
        _, log_odds, beta, p_ref = as_arrays(log_odds, self.beta, self.p_ref, beside=self.normalization)
        push = self.normalization.gap(log_odds) / beta
        if self.divergence == "reverse":
            return (logit(p_ref) + push)[()]
        return (log_odds + (push - self._restoring(log_odds)[0]))[()]

    @quiet
    def multiplier(self, log_odds: Array) -> Array:
        """Return the derivative of :meth:`step`; a fixed point of the flow is stable if it is below 1, also below −1.

        Source: derived in docs/notebooks/8_kl_estimators.
        """
        _, log_odds, beta = as_arrays(log_odds, self.beta, beside=self)
        slope = self.normalization.gap_slope(log_odds) / beta
        return (1 - self._restoring(log_odds)[1] + slope)[()]

    def _restoring(self, log_odds: Array) -> tuple[Array, Array]:
        """S = R/(p(1−p)) and dS/dL."""
        xp, log_odds, p_ref = as_arrays(log_odds, self.p_ref, beside=self)
        d = log_odds - logit(p_ref)
        if self.divergence == "none":
            return 0.0 * p_ref + xp.zeros_like(log_odds), 0.0 * p_ref + xp.zeros_like(log_odds)
        if self.divergence == "reverse":
            return d, 0.0 * p_ref + xp.ones_like(log_odds)
        up, down = (1 - p_ref) * xp.exp(log_odds), p_ref * xp.exp(-log_odds)
        ahead = -xp.expm1(-d) * ((1 - p_ref) + up)  # (p − p_ref)/(p(1−p)), without cancellation on either side
        behind = xp.expm1(d) * (p_ref + down)
        return xp.where(d > 0, ahead, behind), up + down

    def integrate(self, t: Array, p0: Array | None = None, log_odds0: Array | None = None) -> Trajectory:
        """Return the states at the times t of the flow that starts at time 0, to about 1e-12 in log-odds.

        The unit of time: for plain gradient steps on the logits of a table with m right and n wrong answers, each kind
        equally probable within itself, t = learning rate × number of steps × (1/m + 1/n). With other
        conditionals or in a network there is no such unit; where the flow ends does not depend on it.

        Args:
            t: times, ascending, ≥ 0, one-dimensional or a number.
            p0: success probability at the start, in (0, 1); p_ref if neither start is given.
            log_odds0: the start in log-odds instead, finite.

        Returns:
            a :class:`~grpo_dynamics.Trajectory` whose arrays have shape (*t.shape, *batch).

        Raises:
            ValueError: for times that are negative, not finite or not ascending, a start out of range, or both starts.

        >>> path = Flow(beta=1.0, p_ref=0.1, kl="k3").integrate([0.0, 5.0, 100.0])
        >>> print(path.p.round(4))
        [0.1    0.3231 0.5915]
        """
        times = np.asarray(option(t))
        if times.ndim > 1:
            raise ValueError(f"t must be a number or one-dimensional, got shape {times.shape}")
        require("t", times, "finite times >= 0", lambda x: (x >= 0) & (x < float("inf")))
        if times.ndim and bool(np.any(np.diff(times) < 0)):
            raise ValueError(f"t must be ascending, got {t!r}")
        if p0 is not None and log_odds0 is not None:
            raise ValueError(f"give p0 or log_odds0, not both (got p0={p0!r} and log_odds0={log_odds0!r})")
        if log_odds0 is None:
            p0 = self.p_ref if p0 is None else option(p0)
            require("p0", p0, "a probability strictly between 0 and 1", lambda x: (x > 0) & (x < 1))
            log_odds0 = logit(p0)
        else:
            log_odds0 = option(log_odds0)
            require("log_odds0", log_odds0, "a finite number", lambda x: (x > -float("inf")) & (x < float("inf")))
        path = follow(self, Flow._rate_and_rounding, log_odds0, [float(x) for x in times.reshape(-1)])
        return Trajectory(path if times.ndim else path[0, ...])


def require_dynamics(dynamics: Any) -> None:
    """Raise ValueError unless the argument is a Recursion or a Flow."""
    if not isinstance(dynamics, Recursion | Flow):
        example = "grpo(beta=1.0, p_ref=0.2), or a Flow"
        raise ValueError(f"dynamics must be a Recursion such as {example}, got {dynamics!r}")

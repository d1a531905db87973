"""The recursion of the success probability: one step of GRPO, Dr. GRPO, mirror or two-KL, in log-odds."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from grpo_dynamics.arrays import Array, as_arrays, batch_shape, option, quiet, require
from grpo_dynamics.logodds import complement, logit, sigmoid
from grpo_dynamics.normalization import MeanOnly, Normalization, Whitened


@dataclasses.dataclass(frozen=True)
class Recursion:
    """The exact dynamics L_n = α·L_ref + (1−α)·L_{n−1} + Ω(L_{n−1})/β of a question's log-odds L = logit p.

    Each step maximises E_π[A_{n−1}] − β[α·KL(π‖π_ref) + (1−α)·KL(π‖π_{n−1})] over all policies, from π_0 = π_ref.

    Args:
        beta: KL strength β > 0.
        p_ref: success probability of the reference policy, 0 < p_ref < 1.
        normalization: how rewards become advantages.
        alpha: KL anchor α in [0, 1]; 1 anchors on π_ref (GRPO), 0 on π_{n−1} (mirror).

    All options broadcast together; the common shape is ``batch_shape(self)``.

    Raises:
        ValueError: for values out of range, NaN, or shapes that do not broadcast.

    Source: [2503.06639v4, Thm 2, Thm 4, Thm 9]. The Rényi correction Δ_R of Thm 9 is 0 in the exact iteration.

    >>> rec = Recursion(beta=1.0, p_ref=0.2)
    >>> print(rec.iterate(50, p0=0.1).p[-1].round(4))
    0.6813
    """

    beta: Any
    p_ref: Any
    normalization: Normalization = dataclasses.field(default_factory=Whitened)
    alpha: Any = 1.0

    def __post_init__(self) -> None:
        for name in ("beta", "p_ref", "alpha"):
            object.__setattr__(self, name, option(getattr(self, name)))
        require("beta", self.beta, "a finite number > 0", lambda x: (x > 0) & (x < float("inf")))
        require("p_ref", self.p_ref, "a probability strictly between 0 and 1", lambda x: (x > 0) & (x < 1))
        require("alpha", self.alpha, "between 0 and 1", lambda x: (x >= 0) & (x <= 1))
        if not isinstance(self.normalization, Normalization):
            raise ValueError(f"normalization must be a Normalization such as Whitened(), got {self.normalization!r}")
        batch_shape(self)

    @quiet
    def step(self, log_odds: Array) -> Array:
        """Return the next log-odds L_n from the present L_{n−1}.

        Args:
            log_odds: L_{n−1} in [-inf, inf], broadcasts with the options.
        """
        require("log_odds", log_odds, "a number, not NaN", lambda x: x == x)
        return self._stepper(log_odds)(as_arrays(log_odds, beside=self)[1])[()]

    def _stepper(self, log_odds: Array) -> Callable[[Array], Array]:
        """The step with all that does not change from one step to the next computed once."""
        xp, beta, p_ref, alpha, _ = as_arrays(self.beta, self.p_ref, self.alpha, log_odds, beside=self.normalization)
        drift, gap = alpha * logit(p_ref), self.normalization.gap
        if isinstance(self.alpha, int | float) and self.alpha == 1:
            return lambda state: drift + gap(state) / beta
        keep = 1 - alpha
        # where nothing is kept, 0 · inf would be NaN
        return lambda state: drift + xp.where(keep > 0, keep * state, 0.0) + gap(state) / beta

    @quiet
    def multiplier(self, log_odds: Array) -> Array:
        """Return dL_n/dL_{n−1} = (1−α) + Ω'(L)/β; at a fixed point it equals h'(p*), and |.| < 1 is local stability.

        Source: [2503.06639v4, Lemma 1], in log-odds.
        """
        _, log_odds, beta, alpha = as_arrays(log_odds, self.beta, self.alpha, beside=self)
        return ((1 - alpha) + self.normalization.gap_slope(log_odds) / beta)[()]

    def iterate(self, n: int, p0: Array | None = None, log_odds0: Array | None = None) -> Trajectory:
        """Return the orbit of n steps.

        Args:
            n: number of steps ≥ 0.
            p0: success probability at the start, in (0, 1); p_ref if neither start is given.
            log_odds0: the start in log-odds instead.

        Returns:
            a :class:`Trajectory` whose arrays have shape (n+1, *batch).

        Raises:
            ValueError: for n < 0 or not an integer, a start out of range, or both starts at once.
        """
        if isinstance(n, bool) or not isinstance(n, int) or n < 0:
            raise ValueError(f"n must be an integer >= 0, got {n!r}")
        if p0 is not None and log_odds0 is not None:
            raise ValueError(f"give p0 or log_odds0, not both (got p0={p0!r} and log_odds0={log_odds0!r})")
        if log_odds0 is None:
            p0 = self.p_ref if p0 is None else option(p0)
            require("p0", p0, "a probability strictly between 0 and 1", lambda x: (x > 0) & (x < 1))
            batch_shape(self, p0=p0)
            log_odds0 = logit(p0)
        else:
            log_odds0 = option(log_odds0)
            require("log_odds0", log_odds0, "a number, not NaN", lambda x: x == x)
            batch_shape(self, log_odds0=log_odds0)
        xp, state = as_arrays(log_odds0, beside=self)
        with np.errstate(all="ignore"):
            return Trajectory(self._run(xp, state, n))

    def _run(self, xp: Any, state: Array, n: int) -> Array:
        step = self._stepper(state)
        first = step(state)
        states = xp.empty((n + 1, *first.shape), dtype=first.dtype, device=first.device)
        states[0, ...] = state
        for i in range(n):
            state = step(state)
            states[i + 1, ...] = state
        return states


@dataclasses.dataclass(frozen=True)
class Trajectory:
    """An orbit: ``log_odds``, ``p`` and ``one_minus_p``, each of shape (n+1, *batch)."""

    log_odds: Array

    @property
    def p(self) -> Array:
        """Success probabilities."""
        return sigmoid(self.log_odds)

    @property
    def one_minus_p(self) -> Array:
        """Failure probabilities, exact where p rounds to 1."""
        return complement(self.log_odds)


def require_recursion(dynamics: Any) -> None:
    """Raise ValueError unless the argument is a Recursion."""
    if not isinstance(dynamics, Recursion):
        raise ValueError(f"dynamics must be a Recursion such as grpo(beta=1.0, p_ref=0.2), got {dynamics!r}")


def grpo(beta: Array, p_ref: Array, eps: Array = 1e-5) -> Recursion:
    """GRPO: mean and variance normalisation, KL to the reference. [2503.06639v4, Thm 2]"""
    return Recursion(beta, p_ref, Whitened(eps))


def dr_grpo(beta: Array, p_ref: Array) -> Recursion:
    """Dr. GRPO: mean-only normalisation, KL to the reference; it arrives in one step. [2503.06639v4, Sec. 5]"""
    return Recursion(beta, p_ref, MeanOnly())


def mirror_grpo(beta: Array, p_ref: Array, eps: Array = 1e-5) -> Recursion:
    """Mirror GRPO: mean and variance normalisation, KL to the previous policy. [2503.06639v4, Thm 4, Thm 5]"""
    return Recursion(beta, p_ref, Whitened(eps), alpha=0.0)


def mirror_dr_grpo(beta: Array, p_ref: Array) -> Recursion:
    """Mirror Dr. GRPO: mean-only normalisation, KL to the previous policy: L_n = L_ref + n/β. [2503.06639v4, Sec. 5]"""
    return Recursion(beta, p_ref, MeanOnly(), alpha=0.0)


def two_kl(beta: Array, p_ref: Array, alpha: Array, eps: Array = 1e-5) -> Recursion:
    """Two-KL GRPO: mean and variance normalisation, α of the KL to the reference, 1−α to the previous policy.

    [2503.06639v4, Thm 9]
    """
    return Recursion(beta, p_ref, Whitened(eps), alpha)


def two_kl_dr_grpo(beta: Array, p_ref: Array, alpha: Array) -> Recursion:
    """Two-KL Dr. GRPO: mean-only normalisation; L_n = L_ref + (1−(1−α)^n)/(αβ). [2503.06639v4, Table 1]"""
    return Recursion(beta, p_ref, MeanOnly(), alpha)

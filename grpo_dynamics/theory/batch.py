"""One standard deviation for the whole batch: questions that feel each other, and their fixed points.

Some trainers subtract the mean of each group but divide by a standard deviation over all rewards of the batch. Then all
questions see the same gap Ω, which depends on all of them. In a large batch it is a function of the population,

    Ω = c/(√V + ε),   V = p̄(1−p̄) for the rewards,   V = c·E[p(1−p)] for the centred rewards,   c = (G−1)/G,

and one number says where every question goes: the shift Δ = Ω/β, which is L_i − L_ref,i for the exact KL.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import numpy as np

from grpo_dynamics.arrays import Array, as_arrays, option, quiet, require, require_choice
from grpo_dynamics.logodds import complement, logit, sigmoid
from grpo_dynamics.normalization import PLACEMENTS, EpsPlacement, require_group_size
from grpo_dynamics.theory.flow import DIVERGENCES, KL, Divergence
from grpo_dynamics.theory.recursion import Trajectory

STATISTICS = ("rewards", "centred")


@dataclasses.dataclass(frozen=True)
class BatchStd:
    """Rewards minus the mean of their group, divided by one standard deviation of the whole batch.

    Args:
        statistic: "rewards": the standard deviation of all rewards of the batch, as TRL's ``scale_rewards="batch"``;
            "centred": that of the rewards after the mean of their group was subtracted, as REINFORCE++-baseline.
        eps: smoothing ε, a number: 0 or at least 1e-150.
        eps_placement: "std" adds ε to the standard deviation, "variance" puts it inside the root.
        group_size: None for the exact mean; G ≥ 2 where the mean is over the group of G that includes the sample.

    Raises:
        ValueError: for an unknown statistic or placement, another ε, a group size below 2 or not an integer.

    Source: derived in docs/notebooks/10_batch_std, for a batch of many questions.

    >>> print(BatchStd(eps=0.0).gap([0.0, 0.0]))
    2.0
    """

    statistic: Literal["rewards", "centred"] = "rewards"
    eps: float = 1e-4
    eps_placement: EpsPlacement = "std"
    group_size: int | None = None

    def __post_init__(self) -> None:
        require_choice("statistic", self.statistic, STATISTICS)
        object.__setattr__(self, "eps", option(self.eps))
        # below 1e-150, p(1−p) where ε begins to count is no normal number
        allowed = "0 or a finite number >= 1e-150"
        require("eps", self.eps, allowed, lambda x: (x.ndim == 0) & ((x == 0) | (x >= 1e-150)) & (x < float("inf")))
        require_choice("eps_placement", self.eps_placement, PLACEMENTS)
        if self.group_size is not None:
            require("group_size", self.group_size, "an integer >= 2", lambda x: x.ndim == 0)
            require_group_size(self.group_size)

    @property
    def centring(self) -> float:
        """What subtracting a mean that includes the sample leaves, c = (G−1)/G."""
        return 1.0 if self.group_size is None else (self.group_size - 1) / self.group_size

    @quiet
    def gap(self, log_odds: Array, weights: Array | None = None) -> Array:
        """Return Ω of populations with these log-odds.

        Args:
            log_odds: shape (..., questions).
            weights: how often each question occurs, shape (questions,); all alike if not given.
        """
        xp, log_odds, weights = as_arrays(log_odds, 1.0 if weights is None else weights)
        weights = weights + xp.zeros_like(log_odds)
        weights = weights / xp.sum(weights, axis=-1, keepdims=True)
        right, wrong = sigmoid(log_odds), complement(log_odds)
        p, q, both = (xp.sum(weights * value, axis=-1) for value in (right, wrong, right * wrong))
        variance = p * q if self.statistic == "rewards" else self.centring * both
        root = xp.sqrt(variance + self.eps) if self.eps_placement == "variance" else xp.sqrt(variance) + self.eps
        return (self.centring / root)[()]


@dataclasses.dataclass(frozen=True)
class BatchRecursion:
    """A population of questions whose rewards are divided by one standard deviation of the batch.

    Every step finds the best policy for each question with the gap of the population as it was before.

    Args:
        beta: KL strength β > 0, any shape.
        p_ref: success probability of the reference policy on each question, shape (questions,), in (0, 1).
        weights: how often each question occurs, shape (questions,), not negative; all alike if not given.
        normalization: which standard deviation.
        kl: the KL term as it is coded, as in :class:`~grpo_dynamics.theory.flow.Flow`; not "k1" or "none", with which
            every p goes to 1.

    Raises:
        ValueError: for values out of range or of the wrong shape.

    Source: derived in docs/notebooks/10_batch_std.

    >>> batch = BatchRecursion(beta=1.0, p_ref=[0.1, 0.3])
    >>> print(batch.iterate(20).p[-1].round(3))
    [0.465 0.77 ]
    """

    beta: Any
    p_ref: Any
    weights: Any = None
    normalization: BatchStd = dataclasses.field(default_factory=BatchStd)
    kl: KL = "exact"

    def __post_init__(self) -> None:
        for name in ("beta", "p_ref", "weights"):
            object.__setattr__(self, name, option(getattr(self, name)))
        require("beta", self.beta, "a finite number > 0", lambda x: (x > 0) & (x < float("inf")))
        require("p_ref", self.p_ref, "a probability strictly between 0 and 1", lambda x: (x > 0) & (x < 1))
        shape = tuple(getattr(self.p_ref, "shape", ()))
        if len(shape) != 1 or shape[0] == 0:
            raise ValueError(f"p_ref must have the shape (questions,), got {shape}")
        if self.weights is not None:
            require("weights", self.weights, "finite and not negative", lambda x: (x >= 0) & (x < float("inf")))
            if tuple(getattr(self.weights, "shape", ())) != shape:
                raise ValueError(f"weights must have the shape of p_ref, {shape}, got {self.weights!r}")
            with np.errstate(over="ignore"):
                total = float(self.weights.sum())
            if not 0 < total < float("inf"):
                raise ValueError(f"weights must have a finite sum > 0, got {self.weights!r}")
        if not isinstance(self.normalization, BatchStd):
            raise ValueError(f"normalization must be a BatchStd such as BatchStd(), got {self.normalization!r}")
        held = tuple(kl for kl, divergence in DIVERGENCES.items() if divergence != "none")
        require_choice("kl", self.kl, held)

    @property
    def divergence(self) -> Divergence:
        """Of which divergence the KL term is the gradient on average, "reverse" or "forward"."""
        return DIVERGENCES[self.kl]

    @quiet
    def shifted(self, shift: Array) -> Array:
        """Return the log-odds of every question when all see the shift Δ = Ω/β.

        L_ref + Δ for KL(π‖π_ref), the root of p − p_ref = p(1−p)·Δ for KL(π_ref‖π).

        Args:
            shift: Δ > 0, any shape.

        Returns:
            Shape (*shift.shape, questions).
        """
        xp, shift, p_ref = as_arrays(shift, self.p_ref)
        shift = shift[..., None]
        if self.divergence == "reverse":
            return logit(p_ref) + shift
        right, wrong, _ = k3_shares(xp, shift, p_ref, complement(logit(p_ref)))
        return xp.log(right) - xp.log(wrong)

    def step(self, log_odds: Array) -> Array:
        """Return the next log-odds, shape (*batch, questions), of populations with these, of the same shape."""
        require("log_odds", log_odds, "a number, not NaN", lambda x: x == x)
        _, log_odds, beta, _ = as_arrays(log_odds, self.beta, self.p_ref)
        return self.shifted(self.normalization.gap(log_odds, self.weights) / beta)

    def iterate(self, n: int, p0: Array | None = None) -> Trajectory:
        """Return the orbit of n steps of every question, shape (n+1, *beta.shape, questions).

        Args:
            n: number of steps ≥ 0.
            p0: success probabilities at the start, in (0, 1); p_ref if not given.

        Raises:
            ValueError: for n < 0 or not an integer, or a start out of range.
        """
        if isinstance(n, bool) or not isinstance(n, int) or n < 0:
            raise ValueError(f"n must be an integer >= 0, got {n!r}")
        p0 = self.p_ref if p0 is None else option(p0)
        require("p0", p0, "a probability strictly between 0 and 1", lambda x: (x > 0) & (x < 1))
        xp, start, beta, p_ref = as_arrays(logit(p0), self.beta, self.p_ref)
        shape = (*beta.shape, *p_ref.shape)
        states = [xp.broadcast_to(start, shape)]
        for _ in range(n):
            states.append(self.step(states[-1]))
        return Trajectory(xp.stack(states))


def k3_shares(xp: Any, shift: Array, p_ref: Array, q_ref: Array) -> tuple[Array, Array, Array]:
    """Return p and 1−p with p − p_ref = p(1−p)·Δ, and 1/(dL/dΔ), each without cancellation.

    >>> import numpy as np
    >>> print(*k3_shares(np, 1.0, 0.25, 0.75))
    0.5 0.5 1.0
    """
    root = xp.hypot(1 - shift, 2 * xp.sqrt(shift * p_ref))  # squares would overflow
    right = xp.where(shift < 1, 2 * p_ref / (1 - shift + root), (shift - 1 + root) / (2 * shift))
    return right, 2 * q_ref / (1 + shift + root), root

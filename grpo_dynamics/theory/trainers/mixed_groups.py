"""Groups that are all right or all wrong, dropped together with the KL term of their completions."""

from __future__ import annotations

import dataclasses
from typing import Any

from grpo_dynamics.arrays import Array, as_arrays, batch_shape, option, quiet, require
from grpo_dynamics.logodds import complement, sigmoid
from grpo_dynamics.normalization import Normalization


@dataclasses.dataclass(frozen=True)
class MixedGroups(Normalization):
    """The gap that a flow with k3 in the loss has to be given where silent groups do not reach the loss at all.

    A right answer is in a mixed group with probability 1 − p^(G−1), a wrong one with 1 − q^(G−1), q = 1 − p. So the k3
    of the answers that reach the loss pulls with p(1−p)[c₊(1 − p^(G−1)) − c₋(1 − q^(G−1))], c = 1 − e^−ℓ, which is
    (p − p_ref)·w with w = 1 − p^(G−1)q − p·q^(G−1); the advantages of silent groups are 0 anyway. Dividing the rate
    by w, between ½ and 1, changes the speed only: Ω/w instead of Ω, and k3 as it was. Exact for k3 alone.

    Args:
        kept: the normalization with silent groups counted as 0.
        group_size: G ≥ 3. (Groups of 2 are left out: with them there can be three fixed points.)

    Raises:
        ValueError: for G < 3 or not an integer, or a normalization that is none.

    Source: derived in docs/trainers.

    >>> from grpo_dynamics import MeanOnly
    >>> print(MixedGroups(MeanOnly(4), 4).gap(0.0).round(4))
    0.8571
    """

    kept: Normalization
    group_size: Any

    def __post_init__(self) -> None:
        object.__setattr__(self, "group_size", option(self.group_size))
        if not isinstance(self.kept, Normalization):
            raise ValueError(f"kept must be a Normalization such as MeanOnly(8), got {self.kept!r}")
        require("group_size", self.group_size, "an integer >= 3", lambda x: (x >= 3) & (x < 1e9) & (x % 1 == 0))
        batch_shape(self)

    def gap(self, log_odds: Array) -> Array:
        return self.gap_and_rate(log_odds)[0]

    @quiet
    def gap_and_rate(self, log_odds: Array) -> tuple[Array, Array]:
        gap, rate = self.kept.gap_and_rate(log_odds)
        _, log_odds, size = as_arrays(log_odds, self.group_size, beside=self.kept)
        p, q = sigmoid(log_odds), complement(log_odds)
        last_wrong, last_right = p ** (size - 1) * q, p * q ** (size - 1)
        share = 1 - last_wrong - last_right
        change = last_wrong * (p - (size - 1) * q) + last_right * ((size - 1) * p - q)
        return (gap / share)[()], (rate - change / share)[()]

    def turns(self) -> tuple[Array, ...]:
        """Those of the gap with silent groups kept: a flow with k3 needs none, as it has one fixed point."""
        return self.kept.turns()

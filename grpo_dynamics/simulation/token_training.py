"""How a policy over token trees is trained: where its advantages come from, its KL term, and its steps."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from grpo_dynamics.arrays import require, require_choice
from grpo_dynamics.normalization import PLACEMENTS, EpsPlacement, require_group_size
from grpo_dynamics.simulation.critic import VIEWS, View

TokenAdvantage = Literal["grpo", "dr_grpo", "rloo", "reinforce", "running_mean", "exact_critic", "critic"]
TOKEN_ADVANTAGES = ("grpo", "dr_grpo", "rloo", "reinforce", "running_mean", "exact_critic", "critic")
TokenKL = Literal["none", "exact", "k1_in_reward", "k3"]
Supervision = Literal["outcome", "process"]
OF_A_CRITIC = ("exact_critic", "critic")

BELONGS_TO: dict[str, tuple[str, ...]] = {
    "eps": ("grpo",),
    "eps_placement": ("grpo",),
    "ddof": ("grpo",),
    "gae_lambda": OF_A_CRITIC,
    "gamma": OF_A_CRITIC,
    "view": OF_A_CRITIC,
    "critic_rate": ("critic", "running_mean"),
}
"""The kinds of advantage that an option has a meaning for."""


@dataclasses.dataclass(frozen=True)
class TokenTraining:
    """The update rule of a policy that chooses token by token.

    Open-Reasoner-Zero's PPO is advantage="critic" with clip_low = clip_high = 0.2 and nothing else: λ = γ = 1, no KL.

    Args:
        learning_rate: of the logits after every prefix, > 0.
        advantage: of a token, by
            "grpo": step rewards whitened over the group, summed over the steps that end at the token or after it;
            "dr_grpo": the same, without the standard deviation;
            "rloo": reward of the answer less the mean of the other answers of the group;
            "reinforce": rewards to come;
            "running_mean": these less a running mean of the question's rewards;
            "exact_critic": GAE with the critic that fits the present policy best;
            "critic": GAE with a critic that starts at 0 and learns.
        supervision: "outcome": an answer earns 1 with its last token if it is right; "process": its steps earn what the
            tree says.
        group_size: G ≥ 2 sampled answers per group; None for exact expectations (G → ∞).
        groups: N groups per question and step.
        beta: KL strength β > 0; 0 with kl="none".
        kl: "exact": the exact gradient of KL(π‖π_ref) of whole answers; "k1_in_reward": −β·log π/π_ref of each token
            in its reward (for "grpo" and "dr_grpo" added after the normalisation); "k3": of each token in the loss.
        eps, eps_placement, ddof: smoothing and divisor of the standard deviation, for "grpo".
        gae_lambda, gamma: λ and γ in [0, 1], for critics.
        view: what the critic sees: "prefix", "position" or "question".
        critic_rate: of "critic" and "running_mean", in [0, 1]; with 0 they stay untrained.
        inner_steps: μ ≥ 1 gradient steps on the same samples.
        clip_low, clip_high: clip range of the tokens' ratios; None: not clipped.

    Raises:
        ValueError: for values out of range, or an option that means nothing beside the others, with the nearest that
            does.

    >>> TokenTraining(learning_rate=1.0, advantage="rloo", gae_lambda=0.95)
    Traceback (most recent call last):
        ...
    ValueError: gae_lambda=0.95 means nothing with advantage='rloo'; leave it out, or take advantage='exact_critic'
    """

    learning_rate: float
    advantage: TokenAdvantage = "critic"
    supervision: Supervision = "outcome"
    group_size: int | None = None
    groups: int = 1
    beta: float = 0.0
    kl: TokenKL = "none"
    eps: float = 0.0
    eps_placement: EpsPlacement = "std"
    ddof: int = 0
    gae_lambda: float = 1.0
    gamma: float = 1.0
    view: View = "prefix"
    critic_rate: float | None = None
    inner_steps: int = 1
    clip_low: float | None = None
    clip_high: float | None = None

    def __post_init__(self) -> None:
        choices: dict[str, tuple[Any, ...]] = {
            "advantage": TOKEN_ADVANTAGES,
            "supervision": ("outcome", "process"),
            "kl": ("none", "exact", "k1_in_reward", "k3"),
            "eps_placement": PLACEMENTS,
            "ddof": (0, 1),
            "view": VIEWS,
        }
        for name, allowed in choices.items():
            require_choice(name, getattr(self, name), allowed)
        require("learning_rate", self.learning_rate, "a finite number > 0", lambda x: (x > 0) & (x < float("inf")))
        require("eps", self.eps, "a finite number >= 0", lambda x: (x >= 0) & (x < float("inf")))
        for name in ("gae_lambda", "gamma"):
            require(name, getattr(self, name), "between 0 and 1", lambda x: (x >= 0) & (x <= 1))
        for name in ("groups", "inner_steps"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be an integer >= 1, got {value!r}")
        if self.group_size is not None:
            require_group_size(self.group_size)
        self._check_together()

    def _check_together(self) -> None:
        if self.kl == "none":
            require("beta", self.beta, '0 with kl="none"', lambda x: x == 0)
        else:
            require("beta", self.beta, "a finite number > 0", lambda x: (x > 0) & (x < float("inf")))
        for field in dataclasses.fields(self):
            value, kinds = getattr(self, field.name), BELONGS_TO.get(field.name)
            if kinds and value != field.default and self.advantage not in kinds:
                nearest = f"leave it out, or take advantage={kinds[0]!r}"
                raise ValueError(f"{field.name}={value!r} means nothing with advantage={self.advantage!r}; {nearest}")
        if self.advantage in BELONGS_TO["critic_rate"]:
            if self.critic_rate is None:
                raise ValueError(f"critic_rate is missing: advantage={self.advantage!r} needs one")
            require("critic_rate", self.critic_rate, "between 0 and 1", lambda x: (x >= 0) & (x <= 1))
        if self.group_size is None and (self.groups, self.ddof) != (1, 0):
            name = "groups" if self.groups != 1 else "ddof"
            value = getattr(self, name)
            raise ValueError(f"{name}={value!r} means nothing without groups; leave it out, or give group_size")
        if self.clip_low is not None:
            require("clip_low", self.clip_low, "above 0 and at most 1", lambda x: (x > 0) & (x <= 1))
        if self.clip_high is not None:
            require("clip_high", self.clip_high, "a finite number > 0", lambda x: (x > 0) & (x < float("inf")))

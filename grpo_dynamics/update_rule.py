"""How a policy is trained: every departure of real training from the theory is one option, off by default."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, get_args

from grpo_dynamics.arrays import batch_shape, option, require, require_choice
from grpo_dynamics.finite_group import FiniteGroup
from grpo_dynamics.normalization import MeanOnly, Normalization, Whitened, require_group_size

KL = Literal["exact", "k1", "k2", "k3", "k1_in_reward", "k1_times_ratio", "k3_times_ratio", "none"]
KLS: tuple[str, ...] = get_args(KL)
"""How a KL term can be coded, see :class:`~grpo_dynamics.Flow`."""

Update = Literal["exact", "gradient", "sampled"]
Level = Literal["sequence", "token"]
RatioLevel = Literal["sequence", "token", "geometric_mean"]
StdOver = Literal["batch", "batch_centred"]
Aggregation = Literal["sequence_mean", "token_mean", "constant"]
Advantage = Literal["group", "rloo", "reinforce", "critic"]

SAMPLING = ("group_size", "groups", "advantage", "std_over")
ASCENT = ("learning_rate", "inner_steps", "natural", "clip_low", "clip_high", "dual_clip", "ratio_level")
TERMS = ("kl", "kl_level", "kl_clamp", "aggregation", "max_tokens")
IDLE: dict[str, tuple[str, ...]] = {"exact": (*ASCENT, *TERMS, *SAMPLING), "gradient": SAMPLING, "sampled": ()}
"""Options that mean nothing for an update rule, and so must stay at their defaults."""


@dataclasses.dataclass(frozen=True)
class Training:
    """The update rule of a policy and its departures from the exact recursion.

    Questions share nothing but the token mean's divisor: the gradient of a question is that of its own samples, so a
    learning rate here is one of a batch divided by its number of questions.

    Args:
        beta: KL strength β > 0; 0 is allowed only with kl="none". Like alpha, learning_rate and the options of the
            normalisation a number or of shape (questions,).
        normalization: how rewards become advantages. Whitened() and MeanOnly() use the exact success probability;
            FiniteGroup and MeanOnly(group_size=G) the sampled group, or its expectation where nothing is sampled.
            FiniteGroup(silent_groups="drop") draws again until a group is mixed; a KL estimator in the loss then sees
            the answers of mixed groups only.
        alpha: KL anchor α in [0, 1]: weight of π_ref; 1−α is that of the policy before the step.
        update: "exact" minimises each step's objective over all policies; "gradient" ascends it with exact
            expectations; "sampled" ascends its estimate from groups of sampled answers.
        learning_rate: of the logits, > 0; needed for "gradient" and "sampled".
        inner_steps: μ ≥ 1 gradient steps on the same samples (or expectations) before the old policy is renewed.
        natural: whether the gradient is multiplied by the inverse of the Fisher matrix. One step of rate 1/β with
            exact expectations is then the exact minimisation.
        group_size: G ≥ 2, answers per group; left out if the normalisation says it.
        groups: groups per question and step.
        advantage: "group" as the normalisation says; "rloo": minus the mean of the others; "reinforce": the bare
            reward; "critic": minus a value of the question that is learned from the rewards, 0 at first. The last
            three go with MeanOnly(), their Ω, and "sampled".
        std_over: None: the standard deviation is that of the group; "batch": one of all rewards of a step,
            "batch_centred": one of the rewards less the mean of their group. Goes with FiniteGroup and "sampled"; see
            :class:`~grpo_dynamics.BatchStd`. Not simulated: questions share nothing there.
        clip_low, clip_high: ratios below 1 − clip_low or above 1 + clip_high no longer count; None: no clipping.
        dual_clip: c > 1: where A < 0, ratios above c no longer count either; None: they do.
        ratio_level: "sequence": the ratio of whole answers; "token": of each token; "geometric_mean": of the tokens of
            an answer, as GSPO.
        kl: the KL term as it is coded, one of the names of :class:`~grpo_dynamics.Flow`.
        kl_level: "sequence": the estimator of the answer's log-ratio; "token": of each token's.
        kl_clamp: where "k1", "k2" or "k3" is beyond ± this number it is constant, without a gradient; None: nowhere.
        aggregation: "sequence_mean": mean over the tokens of an answer, then over answers; "token_mean": over all
            tokens of all questions of a step; "constant": sum over max_tokens. A number that belongs to a whole answer
            stands on each of its tokens.
        max_tokens: the constant divisor; the longest answer if left out.
        reference_refresh: every how many steps the policy becomes its own reference; None: never.
        false_positive: chance that the verifier calls a wrong answer right, in [0, 1].
        false_negative: chance that it calls a right answer wrong.
        critic_rate: how far the critic moves to the mean reward of a step's samples, in (0, 1].

    Raises:
        ValueError: for values out of range, or options that mean nothing together, with the nearest that do.

    >>> Training(update="exact", clip_high=0.2)
    Traceback (most recent call last):
        ...
    ValueError: clip_high=0.2 means nothing with update="exact"; leave it out, or take update="gradient"
    """

    beta: Any = 1.0
    normalization: Normalization = dataclasses.field(default_factory=Whitened)
    alpha: Any = 1.0
    update: Update = "exact"
    learning_rate: Any = None
    inner_steps: int = 1
    natural: bool = False
    group_size: int | None = None
    groups: int = 1
    advantage: Advantage = "group"
    std_over: StdOver | None = None
    clip_low: float | None = None
    clip_high: float | None = None
    dual_clip: float | None = None
    ratio_level: RatioLevel = "sequence"
    kl: KL = "exact"
    kl_level: Level = "sequence"
    kl_clamp: float | None = None
    aggregation: Aggregation = "sequence_mean"
    max_tokens: float | None = None
    reference_refresh: int | None = None
    false_positive: float = 0.0
    false_negative: float = 0.0
    critic_rate: float | None = None

    def __post_init__(self) -> None:
        for name in ("beta", "alpha", "learning_rate"):
            object.__setattr__(self, name, option(getattr(self, name)))
        self._check_values()
        self._check_update()
        self._check_groups()
        self._check_kl_and_tokens()
        self._check_advantage()
        batch_shape(self)

    @property
    def size(self) -> int:
        """G, from the group size or from the normalisation."""
        own = getattr(self.normalization, "group_size", None)
        size = own if self.group_size is None else self.group_size
        if size is None:
            raise ValueError("group_size is missing: give it here or in the normalisation")
        return int(size)

    @property
    def has_exact_statistics(self) -> bool:
        """Whether the normalisation takes the policy's own success probability, instead of that of a group."""
        return self.advantage == "group" and getattr(self.normalization, "group_size", None) is None

    @property
    def drops_silent_groups(self) -> bool:
        """Whether groups without a gradient are drawn again."""
        return isinstance(self.normalization, FiniteGroup) and self.normalization.silent_groups == "drop"

    @property
    def clips(self) -> bool:
        """Whether any ratio is clipped."""
        return not (self.clip_low is self.clip_high is self.dual_clip is None)

    def _check_values(self) -> None:
        choices: dict[str, tuple[str, ...]] = {
            "update": ("exact", "gradient", "sampled"),
            "kl": KLS,
            "advantage": ("group", "rloo", "reinforce", "critic"),
            "ratio_level": get_args(RatioLevel),
            "kl_level": ("sequence", "token"),
            "aggregation": ("sequence_mean", "token_mean", "constant"),
        }
        for name, allowed in choices.items():
            require_choice(name, getattr(self, name), allowed)
        require_choice("std_over", self.std_over, (None, *get_args(StdOver)))
        if not isinstance(self.normalization, Normalization):
            raise ValueError(f"normalization must be a Normalization such as Whitened(), got {self.normalization!r}")
        if self.kl == "none":
            require("beta", self.beta, "a finite number >= 0", lambda x: (x >= 0) & (x < float("inf")))
        else:
            allowed = 'a finite number > 0 (without a KL term say kl="none")'
            require("beta", self.beta, allowed, lambda x: (x > 0) & (x < float("inf")))
        for name in ("alpha", "false_positive", "false_negative"):
            require(name, getattr(self, name), "between 0 and 1", lambda x: (x >= 0) & (x <= 1))
        for name in ("learning_rate", "max_tokens", "clip_high", "kl_clamp"):
            if getattr(self, name) is not None:
                require(name, getattr(self, name), "a finite number > 0", lambda x: (x > 0) & (x < float("inf")))
        for name in ("clip_low", "critic_rate"):
            if getattr(self, name) is not None:
                require(name, getattr(self, name), "above 0 and at most 1", lambda x: (x > 0) & (x <= 1))
        if self.dual_clip is not None:
            require("dual_clip", self.dual_clip, "a finite number > 1", lambda x: (x > 1) & (x < float("inf")))
        for name in ("inner_steps", "groups", "reference_refresh"):
            value = getattr(self, name)
            optional = name == "reference_refresh" and value is None
            if not optional and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise ValueError(f"{name} must be an integer >= 1, got {value!r}")
        if self.group_size is not None:
            require_group_size(self.group_size)

    def _check_update(self) -> None:
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        for name in IDLE[self.update]:
            value = getattr(self, name)
            if hasattr(value, "shape") or value != defaults[name]:
                nearest = "sampled" if name in SAMPLING else "gradient"
                self._refuse(name, f'update="{self.update}"', f'leave it out, or take update="{nearest}"')
        if self.update != "exact" and self.learning_rate is None:
            raise ValueError(f'learning_rate is missing: update="{self.update}" needs one')

    def _check_groups(self) -> None:
        own = getattr(self.normalization, "group_size", None)
        if hasattr(own, "shape") and self.update == "sampled":
            raise ValueError(f"group_size must be one integer for all sampled questions, got {own!r}")
        if own is not None and self.group_size is not None and own != self.group_size:
            self._refuse("group_size", f"normalization={self.normalization!r}", "leave it out")
        if self.drops_silent_groups and abs(self.false_positive - self.false_negative) == 1:
            name = "false_positive" if self.false_positive else "false_negative"
            self._refuse(name, 'silent_groups="drop": no group is ever mixed', 'take silent_groups="keep"')
        if self.update == "sampled" and own is None and self.group_size is None:
            raise ValueError('group_size is missing: update="sampled" needs it, here or in the normalisation')

    def _check_kl_and_tokens(self) -> None:
        if self.kl_level == "token" and self.kl in ("exact", "none", "k1_in_reward"):
            self._refuse("kl_level", f'kl="{self.kl}"', 'take kl_level="sequence"')
        if self.kl_clamp is not None and self.kl not in ("k1", "k2", "k3"):
            self._refuse("kl_clamp", f'kl="{self.kl}"', 'take kl="k3"')
        if self.max_tokens is not None and self.aggregation != "constant":
            self._refuse("max_tokens", f'aggregation="{self.aggregation}"', 'take aggregation="constant"')
        if self.kl == "k1_in_reward" and self.clips and self.update == "gradient":
            own = getattr(self.normalization, "group_size", None)
            if own is not None:  # the sign of A − β·k1, which clipping asks for, differs from group to group
                self._refuse("kl", "clipping and the expectation over groups", 'take update="sampled"')

    def _check_advantage(self) -> None:
        plain = isinstance(self.normalization, MeanOnly) and self.normalization.group_size is None
        if self.advantage != "group" and not plain:
            nearest = "normalization=MeanOnly() with group_size"
            self._refuse("advantage", f"normalization={self.normalization!r}", f"take {nearest}")
        if self.std_over is not None and not isinstance(self.normalization, FiniteGroup):
            self._refuse("std_over", f"normalization={self.normalization!r}", "take normalization=FiniteGroup(...)")
        if self.std_over is not None and hasattr(getattr(self.normalization, "eps", None), "shape"):
            self._refuse("std_over", "an eps for each question", "take one eps")
        if self.advantage == "critic" and self.critic_rate is None:
            raise ValueError('critic_rate is missing: advantage="critic" needs one')
        if self.advantage != "critic" and self.critic_rate is not None:
            nearest = 'leave it out, or take advantage="critic"'
            self._refuse("critic_rate", f'advantage="{self.advantage}"', nearest)

    def _refuse(self, name: str, beside: str, nearest: str) -> None:
        value = getattr(self, name)
        shown = f'"{value}"' if isinstance(value, str) else repr(value)
        raise ValueError(f"{name}={shown} means nothing with {beside}; {nearest}")

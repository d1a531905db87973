"""What a preset of a trainer is: its option names and defaults by version, and how they become a flow."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from grpo_dynamics.arrays import option, require
from grpo_dynamics.finite_group import FiniteGroup
from grpo_dynamics.normalization import MeanOnly, Normalization
from grpo_dynamics.theory.flow import KL, Flow
from grpo_dynamics.theory.trainers.mixed_groups import MixedGroups

Version = tuple[int, ...]
Options = Mapping[str, Any]

BATCH = (
    "the standard deviation of a batch couples the questions, so there is no fixed point of one question alone; "
    "grpo_dynamics.batch_fixed_points has that of a population"
)
PER_TOKEN = (
    "An answer is one decision here. The trainer applies the KL term to every token, and the sum over tokens of an "
    "estimator's gradient is not that of the whole answer."
)
OFF_POLICY = (
    "Several updates on one batch: after the first the samples are no longer those of the policy, the ratio is not 1, "
    "and clipping sets in."
)


@dataclasses.dataclass(frozen=True)
class Reading:
    """What the options of a trainer come to, for rewards 0 and 1.

    Attributes:
        normalization: how rewards become advantages.
        kl: the KL term as it is coded.
        beta: its strength beside these advantages.
        advantage, pull: both in words.
        not_modelled: what is set and has no part in the prediction, one sentence each.
    """

    normalization: Normalization
    kl: KL
    beta: Any
    advantage: str
    pull: str
    not_modelled: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Preset:
    """One trainer: what it is called, which versions were read, and how its options are understood.

    Attributes:
        name, title: as it is asked for, and as it is known.
        versions: the releases that the preset speaks for, oldest first; the last is the default.
        defaults: the options that decide where training goes, with their defaults in a version.
        other: options that are known to change nothing in the prediction.
        older_names: names of options in other versions of the trainer.
        shorthand: β and G, each None where it is not given, as options of this trainer.
        read: options in force, version and the names that were given, to what they come to.
        sources: (what, where in the source) of the version that was read.
    """

    name: str
    title: str
    versions: tuple[str, ...]
    defaults: Callable[[Version], dict[str, Any]]
    shorthand: Callable[[Any, Any], dict[str, Any]]
    read: Callable[[Options, Version, frozenset[str]], Reading]
    sources: tuple[tuple[str, str], ...]
    other: tuple[str, ...] = ()
    older_names: Mapping[str, str] = dataclasses.field(default_factory=dict[str, str])

    def version(self, wanted: str | None) -> str:
        """Return the newest known version that the wanted one, such as "1.16", names."""
        if wanted is None:
            return self.versions[-1]
        parts = str(wanted).removeprefix("v").split(".")
        fitting = [known for known in self.versions if known.split(".")[: len(parts)] == parts]
        if fitting:
            return fitting[-1]
        shown = ", ".join(self.versions) if len(self.versions) < 12 else f"{self.versions[0]} to {self.versions[-1]}"
        raise ValueError(
            f"version of {self.name} must be one of {shown}, got {wanted!r}{_nearest_version(wanted, self.versions)}"
        )

    def options(self, version: str, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options in force; names may be shortened to their last parts where that is clear."""
        known = self.defaults(numbers(version))
        in_force = dict(known)
        for name, value in given.items():
            full = self.full_name(version, name)
            if full in given and full != name:
                raise ValueError(f"options of {self.name} must be given once, got {name!r} and {full!r}")
            in_force[full] = option(value)
            if full in known:
                require_kind(full, in_force[full], known[full])
        return in_force

    def full_name(self, version: str, name: str) -> str:
        """Return the name of an option in full."""
        names = (*self.defaults(numbers(version)), *self.other)
        name = self.older_names.get(name, name)
        if name in names:
            return name
        ends = [full for full in names if full.endswith(f".{name}")]
        if len(ends) == 1:
            return ends[0]
        near = nearest(name, (*names, *(full.rpartition(".")[2] for full in names), *self.older_names))
        allowed = (
            f"one of those that decide where {self.name} {version} goes ({', '.join(self.defaults(numbers(version)))})"
        )
        raise ValueError(f"option of {self.name} must be {allowed}, got {name!r}{near}")


def numbers(version: str) -> Version:
    """Return a version as numbers: "1.9.2" as (1, 9, 2)."""
    return tuple(int(part) for part in version.split("."))


def nearest(wanted: Any, known: Any) -> str:
    """Return "; the nearest is ...", or nothing where none is near."""
    near = difflib.get_close_matches(str(wanted), list(known), n=1, cutoff=0.3)
    return f"; the nearest is {near[0]!r}" if near else ""


def _nearest_version(wanted: str, known: tuple[str, ...]) -> str:
    """Return the nearest version: that before or that after, whose numbers differ less, the first ones first."""
    try:
        parts = (*numbers(str(wanted).removeprefix("v")), 0, 0)[:3]
    except ValueError:
        return ""
    before = [text for text in known if numbers(text) <= parts][-1:]
    after = [text for text in known if numbers(text) > parts][:1]
    near = min(before + after, key=lambda text: [abs(a - b) for a, b in zip(parts, numbers(text), strict=True)])
    return f"; the nearest is {near!r}"


def require_kind(name: str, value: Any, default: Any) -> None:
    """Raise ValueError where an option is true or false by default, or a number ≥ 0, and its value is not."""
    if isinstance(default, bool):
        require_one_of(name, value, (True, False))
    elif isinstance(default, int | float):
        require_not_negative(name, value)


def number_or(options: Options, name: str, default: float) -> Any:
    """Return an option that need not be there: a number, or the default where it is left out or None.

    Raises:
        ValueError: where it is something else.
    """
    value = options.get(name)
    if value is not None:
        require(name, value, "a number", lambda x: (x.ndim == 0) & (x == x))
    return default if value is None else value


def require_not_negative(name: str, value: Any) -> None:
    """Raise ValueError unless the value is a finite number ≥ 0."""
    require(name, value, "a finite number >= 0", lambda x: (x >= 0) & (x < float("inf")))


def is_zero(value: Any) -> bool:
    """Whether there is no KL term: the strength is 0 everywhere."""
    return bool(np.all(np.asarray(value) == 0))


def require_one_of(name: str, value: Any, allowed: tuple[Any, ...]) -> None:
    """Raise ValueError unless an option has one of its values."""
    if not any(value is choice or (type(value) is type(choice) and value == choice) for choice in allowed):
        raise ValueError(
            f"{name} must be one of {', '.join(map(repr, allowed))}, got {value!r}{nearest(value, map(str, allowed))}"
        )


def refuse(name: str, allowed: str, value: Any, why: str) -> ValueError:
    """Return the error for options whose answer has no closed form."""
    return ValueError(f"{name} must be {allowed} for a prediction, got {value!r}: {why}")


def grouped(
    group_size: Any,
    beta: Any,
    kl: KL,
    *,
    scale: Any = 1.0,
    eps: float | None = None,
    ddof: int = 1,
    dropped: bool = False,
) -> tuple[Normalization, Any, str, list[str]]:
    """Return normalization, β beside it, the advantage in words, and what is not modelled.

    ``scale`` is the reward of a right answer: dividing by the standard deviation takes it out again, but for ε; without
    that a reward of 10 makes β act as β/10. ``eps`` is added to the standard deviation, None where advantages are
    centred only. ``dropped`` says that silent groups are left out of the loss, with their KL term.
    """
    missing: list[str] = []
    if eps is None:
        normalization: Normalization = MeanOnly(group_size)
        words, beta = f"A = r − mean over the group of {group_size}", beta / scale
        if not is_zero(np.asarray(scale) - 1):
            words += f"; as right answers earn {scale:g}, β acts as β/{scale:g}" if np.ndim(scale) == 0 else ""
    else:
        normalization = FiniteGroup(group_size, eps / scale, "std", ddof)
        words = (
            f"A = (r − mean)/(std + {eps:g}) over the group of {group_size}, std dividing by G{'−1' if ddof else ''}"
        )
    if dropped and kl == "k3":
        if bool(np.any(np.asarray(group_size) == 2)):
            raise ValueError(
                "group_size must be an integer >= 3 where silent groups are dropped with their k3, got 2: "
                "there can be three fixed points then, which are not searched"
            )
        normalization = MixedGroups(normalization, group_size)
        words += "; groups all right or all wrong are dropped, with their KL term"
    elif dropped and kl != "none":
        missing.append(
            "Groups all right or all wrong are dropped, with their KL term. The prediction keeps their KL term: "
            "an error of the order of p^(G−1) + (1−p)^(G−1)."
        )
    return normalization, beta, words, missing


@dataclasses.dataclass(frozen=True)
class Trainer:
    """A trainer with its options: :meth:`at` gives the flow of a question, ``not_modelled`` what that leaves out.

    Attributes:
        name, title, version: which trainer, and the version it was read in.
        options: the options that decide, in force.
        normalization, kl, beta: what they come to, for rewards 0 and 1.
        advantage, pull: both in words.
        not_modelled: plain sentences on what is set and has no part in the prediction.
        sources: (what, where in the trainer's source).
    """

    name: str
    title: str
    version: str
    options: Mapping[str, Any]
    normalization: Normalization
    kl: KL
    beta: Any
    advantage: str
    pull: str
    not_modelled: tuple[str, ...]
    sources: tuple[tuple[str, str], ...]

    def at(self, p_ref: Any) -> Flow:
        """Return the flow of questions that the reference answers with probability p_ref, any shape."""
        return Flow(self.beta, p_ref, self.normalization, self.kl)

"""The dynamics that the options of a command line describe."""

from __future__ import annotations

import dataclasses
from typing import Any

from grpo_dynamics import FiniteGroup, MeanOnly, Normalization, Recursion, Whitened
from grpo_dynamics.cli.errors import bad_input, missing, refuse, required

VARIANTS: dict[str, tuple[bool, float | None]] = {
    "grpo": (True, 1.0),
    "dr_grpo": (False, 1.0),
    "mirror_grpo": (True, 0.0),
    "mirror_dr_grpo": (False, 0.0),
    "two_kl": (True, None),
    "two_kl_dr_grpo": (False, None),
}
"""Name: (divides by the standard deviation, KL anchor α without --alpha; None where --alpha has to be given)."""

LARGEST_GROUP = 16_384
"""The gap of a group of G is a polynomial of degree G−1, so the work grows with G: some seconds at this size."""

BETA = "a finite number > 0"
PROBABILITY = "a probability strictly between 0 and 1"
ALPHA = "a number between 0 and 1"
GROUP_SIZE = f"an integer from 2 to {LARGEST_GROUP}"


@dataclasses.dataclass(frozen=True)
class Settings:
    """The dynamics as given on the command line; None where an option was left out."""

    variant: str
    alpha: float | None
    eps: float | None
    eps_placement: str | None
    group_size: int | None
    ddof: int | None
    silent_groups: str | None

    def __post_init__(self) -> None:
        """Refuse wrong values, and options that contradict each other."""
        whitened, anchor = VARIANTS[self.variant]
        if anchor is None and self.alpha is None:
            missing("alpha", f"{ALPHA} with variant {self.variant}")
        if anchor == 0 and self.alpha not in (None, 0.0):
            refuse("alpha", f"0 or left out with variant {self.variant}: its KL is to the previous policy", self.alpha)
        for name in ("ddof", "silent_groups"):
            if getattr(self, name) is not None and self.group_size is None:
                refuse(name, "left out without --group-size", getattr(self, name))
        if not whitened and self.silent_groups == "drop":  # would change the mean, too: not one of the variants here
            refuse("silent_groups", f"keep or left out with variant {self.variant}", self.silent_groups)
        if self.group_size is not None and not 2 <= self.group_size <= LARGEST_GROUP:
            refuse("group_size", GROUP_SIZE, self.group_size)
        if self.eps is not None:
            with bad_input():
                Whitened(self.eps)  # wrong values are refused also where they would have no effect

    def notes(self) -> list[str]:
        """Return which of the given options have no effect, and why: they are never ignored without a word."""
        if VARIANTS[self.variant][0]:
            return []
        given = [f"--{n.replace('_', '-')}" for n in ("eps", "eps_placement", "ddof") if getattr(self, n) is not None]
        names = " and ".join(", ".join(given).rsplit(", ", 1))
        why = f"variant {self.variant} does not divide by a standard deviation"
        return [f"{names} {'has' if len(given) == 1 else 'have'} no effect: {why}"] if given else []

    def normalization(self) -> Normalization:
        """Return how rewards become advantages."""
        names = ("eps", "eps_placement", "ddof", "silent_groups")
        given: dict[str, Any] = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        with bad_input():
            if not VARIANTS[self.variant][0]:
                return MeanOnly(self.group_size)
            return Whitened(**given) if self.group_size is None else FiniteGroup(self.group_size, **given)

    def anchor(self) -> float:
        """Return α."""
        return float(VARIANTS[self.variant][1] or 0.0) if self.alpha is None else self.alpha

    def recursion(self, beta: float | None, p_ref: Any) -> Recursion:
        """Return the dynamics, every value checked."""
        with bad_input():
            return Recursion(required("beta", BETA, beta), p_ref, self.normalization(), self.anchor())

    def describe(self) -> dict[str, Any]:
        """Return every option in force, None where it has no meaning."""
        normalization = self.normalization()
        names = ("eps", "eps_placement", "group_size", "ddof", "silent_groups")
        return {
            "variant": self.variant,
            "alpha": self.anchor(),
            **{name: getattr(normalization, name, None) for name in names},
        }

    def title(self) -> str:
        """Return the options in force as part of a headline."""
        options = self.describe()
        parts = [self.variant]
        if self.alpha is not None:
            parts.append(f"α = {self.alpha:g}")
        if options["eps"] is not None:
            parts.append(f"ε = {options['eps']:g}" + (f" in the {options['eps_placement']}" if options["eps"] else ""))
        parts.append("exact statistics" if self.group_size is None else f"groups of {self.group_size}")
        return ", ".join(parts)

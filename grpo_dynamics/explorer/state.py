"""The explorer's state as its address holds it, ``#beta=1&p_ref=0.2``, from settings or from dynamics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from grpo_dynamics.finite_group import FiniteGroup
from grpo_dynamics.normalization import MeanOnly, Normalization, Whitened
from grpo_dynamics.theory.flow import Flow, require_dynamics
from grpo_dynamics.theory.recursion import Recursion
from grpo_dynamics.theory.trainers import MixedGroups

KEYS = (
    *("beta", "p_ref", "p0", "update", "kl", "variant", "alpha", "eps", "eps_placement", "group_size", "ddof"),
    *("silent_groups", "trainer"),
)
"""The settings of the page, in the order of its addresses."""

DEFAULTS = {
    "update": "exact",
    "kl": "exact",
    "variant": "grpo",
    "alpha": 0.5,
    "eps": 1e-5,
    "eps_placement": "variance",
    "group_size": None,
    "ddof": 0,
    "silent_groups": "keep",
}
"""What the page takes where its address says nothing."""

LARGEST_GROUP = 1024
"""The largest group that the page takes: it computes while a slider moves."""


def fragment(state: Mapping[str, Any]) -> str:
    """Return the part of an address that opens the explorer in this state.

    Args:
        state: any of beta, p_ref, p0, update, kl, variant, alpha, eps, eps_placement, group_size (None for exact
            statistics), ddof, silent_groups and trainer; what is left out, or has its default, is not written.

    Raises:
        ValueError: for another key.

    >>> fragment({"p_ref": 0.2, "beta": 1.0, "group_size": 8})
    '#beta=1&p_ref=0.2&group_size=8'
    """
    for key in state:
        if key not in KEYS:
            raise ValueError(f"state must have keys among {', '.join(KEYS)}, got {key!r}")
    parts = [f"{key}={quote(_text(key, state[key]), safe='')}" for key in KEYS if _written(key, state)]
    return "#" + "&".join(parts)


def _written(key: str, state: Mapping[str, Any]) -> bool:
    return state.get(key) is not None and state[key] != DEFAULTS.get(key)


def _text(key: str, value: Any) -> str:
    brief = f"{value:.12g}" if isinstance(value, float) else str(value)
    return brief if not isinstance(value, float) or float(brief) == value else repr(value)


def state_of(dynamics: Recursion | Flow, p0: float | None = None) -> dict[str, Any]:
    """Return the state in which the explorer shows a recursion or flow of shape ().

    Raises:
        ValueError: for other dynamics, or a normalisation that the explorer does not have.

    >>> import grpo_dynamics as gd
    >>> state_of(gd.dr_grpo(beta=1.0, p_ref=0.2))
    {'beta': 1.0, 'p_ref': 0.2, 'update': 'exact', 'variant': 'dr_grpo', 'group_size': None, 'silent_groups': 'keep'}
    """
    require_dynamics(dynamics)
    state = {"beta": dynamics.beta, "p_ref": dynamics.p_ref, **settings_of(dynamics)}
    return state if p0 is None else {**state, "p0": p0}


def settings_of(dynamics: Recursion | Flow) -> dict[str, Any]:
    """Return the settings that decide the dynamics beside β and p_ref."""
    kept, dropped = dynamics.normalization, False
    if isinstance(kept, MixedGroups):
        kept, dropped = kept.kept, True
    divides = isinstance(kept, Whitened | FiniteGroup)
    settings: dict[str, Any] = {"update": "exact"}
    if isinstance(dynamics, Flow):
        settings = {"update": "gradient", "kl": dynamics.kl, "variant": "grpo" if divides else "dr_grpo"}
    else:
        kind = "" if dynamics.alpha == 1 else "mirror_" if dynamics.alpha == 0 else "two_kl"
        name = "grpo" if divides else "dr_grpo"
        settings["variant"] = kind + name if kind != "two_kl" else "two_kl" if divides else "two_kl_dr_grpo"
        if kind == "two_kl":
            settings["alpha"] = dynamics.alpha
    return {**settings, **_of_normalization(kept), "silent_groups": _silent(kept, dropped)}


def _of_normalization(kept: Normalization) -> dict[str, Any]:
    if isinstance(kept, MeanOnly):
        return {"group_size": kept.group_size}
    if isinstance(kept, Whitened):
        return {"eps": kept.eps, "eps_placement": kept.eps_placement, "group_size": None}
    if isinstance(kept, FiniteGroup):
        names = ("eps", "eps_placement", "group_size", "ddof")
        return {name: getattr(kept, name) for name in names}
    raise ValueError(f"normalization must be one that the explorer has, got {kept!r}")


def _silent(kept: Normalization, dropped: bool) -> str:
    return "drop_with_kl" if dropped else getattr(kept, "silent_groups", "keep")

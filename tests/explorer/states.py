"""Random states of the explorer over all of its options, and the package's own dynamics for each."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

import grpo_dynamics as gd
from grpo_dynamics.theory.trainers import MixedGroups

KLS = ("exact", "k1", "k2", "k3", "k1_in_reward", "k1_times_ratio", "k3_times_ratio", "none")
EXACT = ("grpo", "dr_grpo", "mirror_grpo", "mirror_dr_grpo", "two_kl", "two_kl_dr_grpo")


def states(count: int, seed: int, update: str = "exact", largest: int = 64, **fixed):
    """Return random states, β over five decades, p_ref from 1e-6 to 0.999, over variants and normalisations."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        variant = str(rng.choice(EXACT if update == "exact" else EXACT[:2]))
        size = float("inf") if rng.random() < 0.5 else int(2 ** rng.uniform(1, math.log2(largest)))
        silent = "keep" if rng.random() < 0.7 or "dr_" in variant else "drop"
        state = {
            "beta": float(10 ** rng.uniform(-3, 2)),
            "p_ref": float(gd.sigmoid(rng.uniform(-13.8, 6.9))),
            "p0": float(gd.sigmoid(rng.uniform(-12, 8))) if rng.random() < 0.5 else None,
            "update": update,
            "kl": str(rng.choice(KLS)),
            "variant": variant,
            "alpha": float(rng.choice([rng.random(), 1e-3, 1.0])),
            "eps": float(rng.choice([0.0, 10 ** rng.uniform(-10, 0)], p=[0.2, 0.8])),
            "eps_placement": str(rng.choice(["variance", "std"])),
            "group_size": size,
            "ddof": int(rng.integers(2)),
            "silent_groups": silent,
            "trainer": None,
        } | fixed
        if update == "gradient" and state["kl"] == "k3" and 3 <= size < math.inf and silent == "drop":
            state["silent_groups"] = "drop_with_kl"
        made.append(state)
    return made


def dynamics(state):
    """Return the package's recursion or flow of a state."""
    finite = state["group_size"] < math.inf
    size = int(state["group_size"]) if finite else None
    if "dr_" in state["variant"]:
        normalization = gd.MeanOnly(size)
    elif not finite:
        normalization = gd.Whitened(state["eps"], state["eps_placement"])
    else:
        silent = "drop" if state["silent_groups"] == "drop" else "keep"
        normalization = gd.FiniteGroup(size, state["eps"], state["eps_placement"], state["ddof"], silent)
    if finite and state["silent_groups"] == "drop_with_kl":
        normalization = MixedGroups(normalization, size)
    if state["update"] == "gradient":
        return gd.Flow(state["beta"], state["p_ref"], normalization, state["kl"])
    alpha = {"mirror": 0.0, "two": state["alpha"]}.get(state["variant"].split("_")[0], 1.0)
    return gd.Recursion(state["beta"], state["p_ref"], normalization, alpha)


def start(state) -> float:
    """Return the log-odds at which a state begins."""
    return float(gd.logit(state["p_ref"] if state["p0"] is None else state["p0"]))


def batches(states):
    """Yield (indices, dynamics of all those states at once): states whose dynamics differ in numbers only."""
    alike: dict[tuple, list[int]] = {}
    singles = [dynamics(state) for state in states]
    for i, one in enumerate(singles):
        kept = getattr(one.normalization, "kept", one.normalization)
        words = ("eps_placement", "ddof", "silent_groups")
        kind = (type(one), type(one.normalization), type(kept), *(getattr(kept, word, None) for word in words))
        alike.setdefault((*kind, getattr(one, "kl", None), getattr(kept, "group_size", 0) is None), []).append(i)
    for indices in alike.values():
        yield np.array(indices), _joined([singles[i] for i in indices])


def _joined(options):
    """One frozen dataclass of options from many: numbers become arrays."""
    first = options[0]
    values = {}
    for field in dataclasses.fields(first):
        column = [getattr(one, field.name) for one in options]
        if dataclasses.is_dataclass(column[0]):
            values[field.name] = _joined(column)
        elif isinstance(column[0], str) or column[0] is None or field.name == "ddof":
            values[field.name] = column[0]
        else:
            values[field.name] = np.array(column, dtype=float)
    return type(first)(**values)

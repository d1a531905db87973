"""The smoke form of a run: the same arms, made so small that a CPU trains them in seconds, for tests and a first look.

A run for a GPU says in a table [smoke] what of itself is to be smaller. It is laid over every arm, after the arm's own
tables, and [smoke.arm.NAME] over the arm of that name, last; ``arms`` chooses some of the arms.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from grpo_dynamics.config import nearest

ENDING = "_smoke"
"""What the name of a run ends with in its smoke form: its folder is another, and the two are never mixed."""

ON_A_CPU = {"model": {"device": "cpu", "threads": 1}}
"""Where a smoke form is computed, unless its table says something else."""


def smoke_tables(table: Mapping[str, Any], names: list[str]) -> dict[str, list[dict[str, Any]]]:
    """Return what is laid over each arm that the smoke form of a run has, in the order in which it is laid.

    Args:
        table: the table [smoke] of the config.
        names: of the run's arms.

    Raises:
        ValueError: for arms that the run, or its smoke form, does not have.

    >>> smoke_tables({"arms": ["b"], "iterations": 2, "arm": {"b": {"seed": 1}}}, ["a", "b"])
    {'b': [{'model': {'device': 'cpu', 'threads': 1}}, {'iterations': 2}, {'seed': 1}]}
    """
    chosen: Any = table.get("arms", names)
    if not isinstance(chosen, list) or not chosen or not all(isinstance(name, str) for name in chosen):
        raise ValueError(f"smoke.arms must be a list of names of arms, got {chosen!r}")
    if len(set(chosen)) < len(chosen):
        raise ValueError(f"smoke.arms must name each arm once, got {', '.join(chosen)}")
    own: Any = table.get("arm", {})
    if not isinstance(own, Mapping) or not all(isinstance(changed, Mapping) for changed in own.values()):
        raise ValueError(f"smoke.arm must be tables, one [smoke.arm.NAME] for each arm, got {own!r}")
    for where, wanted, known in (("smoke.arms", chosen, names), ("smoke.arm", own, chosen)):
        for name in wanted:
            if name not in known:
                raise ValueError(f"{where} must name arms of {', '.join(known)}, got {name!r}{nearest(name, known)}")
    shared = {key: value for key, value in table.items() if key not in ("arms", "arm")}
    for changed in (shared, *own.values()):
        for key in ("name", "arm", "arms", "smoke"):
            if key in changed:
                raise ValueError(f"key must be none of name, arm, arms, smoke in a smoke form, got {key!r}")
    return {name: [ON_A_CPU, shared, *([dict(own[name])] if name in own else [])] for name in names if name in chosen}

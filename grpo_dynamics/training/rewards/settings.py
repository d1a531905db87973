"""A verifier from the settings of a config: a word, a table with its options, or a list of which all have to agree."""

from __future__ import annotations

import typing
from collections.abc import Callable, Mapping
from typing import Any

from grpo_dynamics.config import build, nearest
from grpo_dynamics.training.rewards.constraints import Count, Pattern, ValidJSON, Words
from grpo_dynamics.training.rewards.guard import guarded
from grpo_dynamics.training.rewards.python_tests import ProgramTests
from grpo_dynamics.training.verifiers import AllOf, ExactMatch, MathAnswer, Verifier, Weighted

KINDS: Mapping[str, Callable[..., Verifier]] = {
    "exact": ExactMatch,
    "math": MathAnswer,
    "programs": ProgramTests,
    "pattern": Pattern,
    "count": Count,
    "words": Words,
    "json": ValidJSON,
}
"""The ``kind`` of a table; its other keys are the options of the class. "all" and "weighted" join others."""

WITHIN = 10.0
"""Seconds for one completion where a verifier may hang, unless the table says ``within``."""


def read_verifier(settings: Any, where: str = "verifier") -> Verifier:
    """Return the verifier that a config describes.

    Args:
        settings: ``"exact"``; ``{kind = "pattern", pattern = "...", within = 2.0}``; a list of such, cheap ones
            first, of which all have to say right; or ``{kind = "weighted", verifiers = [...], weights = [...],
            threshold = ...}``. With ``within`` a verifier is guarded: so many seconds for one completion. "math" and
            "pattern", which may hang, are guarded anyway.
        where: the name of the setting, for messages.

    Raises:
        ValueError: for a kind or an option that is not known, with the nearest, and what the verifier itself refuses.

    >>> read_verifier([{"kind": "count", "of": "words", "at_most": 3}, "json"])
    AllOf(verifiers=(Count(of='words', at_least=0, at_most=3), ValidJSON(keys=(), only=False)))
    """
    if isinstance(settings, list | tuple):
        parts = typing.cast(list[Any], settings)
        return AllOf(tuple(read_verifier(part, f"{where}[{i}]") for i, part in enumerate(parts)))
    if not isinstance(settings, str | Mapping):
        raise ValueError(f"{where} must be a kind, a table or a list of those, got {settings!r}")
    given = {"kind": settings} if isinstance(settings, str) else typing.cast(Mapping[str, Any], settings)
    table: dict[str, Any] = dict(given)
    kind = table.pop("kind", None)
    if kind == "weighted":
        return _weighted(table, where)
    if kind not in KINDS:
        known = (*KINDS, "weighted")
        raise ValueError(f"{where}.kind must be one of {', '.join(known)}, got {kind!r}{nearest(kind, known)}")
    within = table.pop("within", WITHIN if kind in ("math", "pattern") else None)
    verifier = build(typing.cast(Any, KINDS[kind]), table, where, beside=("kind", "within"))
    return verifier if within is None else guarded(verifier, within)


def _weighted(table: Mapping[str, Any], where: str) -> Weighted:
    options = {"verifiers", "weights", "threshold", "graded"}
    for key in table:
        if key not in options:
            raise ValueError(f"key of [{where}] must be one of {', '.join(sorted(options))}, got {key!r}")
    for key in sorted(options - {"graded"}):
        if not isinstance(table.get(key), list if key != "threshold" else int | float):
            kind = "a number" if key == "threshold" else "a list"
            raise ValueError(f"{where}.{key} must be {kind}, got {table.get(key)!r}")
    parts = tuple(read_verifier(part, f"{where}.verifiers[{i}]") for i, part in enumerate(table["verifiers"]))
    return Weighted(parts, tuple(table["weights"]), table["threshold"], bool(table.get("graded", False)))

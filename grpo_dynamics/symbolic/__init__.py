"""The theory once more, in sympy: definitions, and one object per theorem that proves itself."""

from __future__ import annotations

import difflib

from grpo_dynamics.symbolic.proof import Outcome, Proof, Step, Strength, Theorem


def theorems() -> dict[str, Theorem]:
    """Return every theorem by its id, the paper's first."""
    from grpo_dynamics.symbolic import catalogue

    return catalogue.THEOREMS


def theorem(id: str) -> Theorem:
    """Return one theorem; ``.prove()`` checks it.

    Raises:
        ValueError: for an unknown id; the message lists the known ones and the nearest.
    """
    known = theorems()
    if id in known:
        return known[id]
    near = difflib.get_close_matches(str(id), known, n=1)
    hint = f", did you mean {near[0]!r}?" if near else ","
    raise ValueError(f"theorem must be one of the known ids, got {id!r}{hint} known are {', '.join(known)}")


__all__ = ["Outcome", "Proof", "Step", "Strength", "Theorem", "theorem", "theorems"]

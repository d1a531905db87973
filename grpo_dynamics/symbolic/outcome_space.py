"""Policies on a finite outcome space: S successes and F failures, both numbers symbolic, every probability a symbol.

Sums stay sums over an index i, so that what is checked holds for every finite outcome space; :func:`gather` takes out
of a sum whatever does not depend on i, and that with π normalised is all the algebra the policy theorems need.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import sympy as sp  # pyright: ignore[reportMissingTypeStubs]

i: Any = sp.Symbol("i", integer=True, positive=True)
successes: Any = sp.Symbol("S", integer=True, positive=True)
failures: Any = sp.Symbol("F", integer=True, positive=True)


@dataclasses.dataclass(frozen=True)
class Policy:
    """π(o): the probability of the i-th success and that of the i-th failure, as expressions in the index i."""

    success: Any
    failure: Any

    @property
    def p(self) -> Any:
        """Probability of success, as a sum."""
        return over_successes(self.success)


def policy(name: str) -> Policy:
    """A policy with a symbol of its own for every outcome, each positive."""
    bases: list[Any] = [sp.IndexedBase(f"{name}_{kind}", positive=True) for kind in "SF"]
    return Policy(*(base[i] for base in bases))


def over_successes(term: Any) -> Any:
    """Σ over the successes."""
    return sp.Sum(term, (i, 1, successes))


def over_failures(term: Any) -> Any:
    """Σ over the failures."""
    return sp.Sum(term, (i, 1, failures))


def total(on_success: Any, on_failure: Any) -> Any:
    """Σ over all outcomes of a term that is written differently on success and on failure."""
    return over_successes(on_success) + over_failures(on_failure)


def normalised(pi: Policy, p: Any) -> dict[Any, Any]:
    """Its probabilities sum to p over the successes and to 1 − p over the failures: for :func:`gather`."""
    return {pi.p: p, over_failures(pi.failure): 1 - p}


def gather(expression: Any, known: Mapping[Any, Any] | None = None) -> Any:
    """Split sums into their terms, take out of each what does not depend on i, and put in the sums that are known."""

    def linear(term: Any, *limits: Any) -> Any:
        flat = sp.expand(sp.expand_power_base(sp.expand_log(sp.expand(term))))
        parts = [part.as_independent(i, as_Add=False) for part in sp.Add.make_args(flat)]
        return sum(
            outer * (sp.Sum(sp.powsimp(inner), *limits) if inner.has(i) else inner * limits[0][2])
            for outer, inner in parts
        )

    found = sp.sympify(expression).replace(sp.Sum, linear)
    return found.subs(known) if known else found

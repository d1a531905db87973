"""Statements that prove themselves: a theorem is a list of steps, and each step knows how strong its check is.

Four kinds of step. An identity and a sign are decided by sympy and count as proved. A bound over a box is decided by
interval arithmetic and counts as certified on that box. A sample only evaluates numbers and counts as tested. An
argument is reasoning in words, from earlier steps and a named classical theorem; it checks nothing and says so.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sympy as sp  # pyright: ignore[reportMissingTypeStubs]


class Strength(enum.IntEnum):
    """How strong a check is, from the weakest to the strongest."""

    FAILED = 0
    TESTED = 1
    CERTIFIED = 2
    PROVED = 3

    @property
    def words(self) -> str:
        """As it is printed."""
        return {0: "failed", 1: "tested", 2: "certified on a box", 3: "proved"}[int(self)]


@dataclasses.dataclass(frozen=True)
class Step:
    """One step of a derivation.

    Attributes:
        says: what the step claims, in words with LaTeX between dollars.
        strength: what its check is worth if it succeeds; None for an argument, which is reasoning and checks nothing.
        check: returns whether it holds.
        method: how it is checked, in a few words; for an argument, the classical theorem it rests on.
    """

    says: str
    strength: Strength | None
    check: Callable[[], bool]
    method: str


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a step: ``strength`` is FAILED if it does not hold, None for an argument."""

    step: Step
    strength: Strength | None


@dataclasses.dataclass(frozen=True)
class Proof:
    """What was checked of a theorem, and how strong the whole is: as strong as its weakest checked step."""

    theorem: Theorem
    outcomes: tuple[Outcome, ...]

    @property
    def strength(self) -> Strength:
        """The weakest of the checked steps."""
        return min(o.strength for o in self.outcomes if o.strength is not None)

    @property
    def holds(self) -> bool:
        """Whether no step failed."""
        return self.strength > Strength.FAILED

    def __str__(self) -> str:
        words = sum(outcome.strength is None for outcome in self.outcomes)
        beside = f", with {words} argument{'s' * (words > 1)} in words" if words else ""
        lines = [f"{self.theorem.id}: {self.theorem.title} [{self.theorem.source}] — {self.strength.words}{beside}"]
        for outcome in self.outcomes:
            word = "argument" if outcome.strength is None else outcome.strength.words
            lines.append(f"  {word:<18}  {outcome.step.says}  ({outcome.step.method})")
        return "\n".join(lines)


@dataclasses.dataclass(frozen=True)
class Theorem:
    """A statement with its source, assumptions and derivation.

    Attributes:
        id: short and stable, such as "thm3" or "fold-cubic".
        title: a few words.
        statement: LaTeX.
        source: "2503.06639v4, Thm 3", or "ours".
        assumptions: one each, words with LaTeX between dollars.
        steps: builds the steps; called by ``prove`` only, so that listing theorems costs nothing.
        remark: what is false in the source, or what is true instead; empty if nothing.
    """

    id: str
    title: str
    statement: str
    source: str
    assumptions: tuple[str, ...]
    steps: Callable[[], Sequence[Step]]
    remark: str = ""

    def prove(self) -> Proof:
        """Check every step and return what was found; a step that fails does not stop the others."""
        outcomes: list[Outcome] = []
        for step in self.steps():
            if step.strength is None:
                outcomes.append(Outcome(step, None))
            else:
                outcomes.append(Outcome(step, step.strength if step.check() else Strength.FAILED))
        return Proof(self, tuple(outcomes))


def identity(says: str, left: Any, right: Any = 0) -> Step:
    """Two expressions are equal: their difference simplifies to zero."""

    def check() -> bool:
        difference = sp.sympify(left) - sp.sympify(right)
        return any(attempt(difference) == 0 for attempt in (sp.expand, sp.ratsimp, sp.simplify, _through_exponentials))

    return Step(says, Strength.PROVED, check, "simplifies to 0")


def _through_exponentials(expression: Any) -> Any:
    return sp.simplify(sp.expand(sp.simplify(expression.rewrite(sp.exp))))


def positive(says: str, expression: Any, strict: bool = True) -> Step:
    """An expression is > 0 (≥ 0 if not strict), as sympy derives from the assumptions on its symbols.

    Bring the expression into a form whose terms are visibly positive first; an ``identity`` step shows that it is the
    same.
    """
    return Step(
        says,
        Strength.PROVED,
        lambda: bool(expression.free_symbols) and bool(expression.is_positive if strict else expression.is_nonnegative),
        "sign from the assumptions on the symbols",
    )


def at_a_point(says: str, number: Any) -> Step:
    """A number without symbols is > 0, in exact arithmetic: a box that is one point, never proved."""
    return Step(
        says,
        Strength.CERTIFIED,
        lambda: not number.free_symbols and bool(number.is_positive),
        "exact arithmetic at the numbers given",
    )


def polynomial_sign(says: str, polynomial: Any, variable: Any, low: Any, high: Any) -> Step:
    """A polynomial with rational coefficients has no root in [low, high] and is positive there (Sturm's theorem)."""

    def check() -> bool:
        poly: Any = sp.Poly(polynomial, variable)
        middle = sp.Rational(low + high) / 2 if sp.oo not in (low, high) else sp.Integer(low) + 1
        return poly.count_roots(low, None if high == sp.oo else high) == 0 and bool(poly.eval(middle) > 0)

    return Step(says, Strength.PROVED, check, "Sturm's theorem: no root on the interval, positive inside")


def on_box(says: str, expression: Any, box: Mapping[Any, tuple[Any, Any]], depth: int = 18) -> Step:
    """An expression is > 0 on a closed box, by interval arithmetic with bisection.

    Args:
        says: the claim; name the box and how the limits outside it are treated.
        expression: sympy, in the symbols of ``box``.
        box: (low, high) per symbol.
        depth: how often a box is halved before the check gives up, which counts as failure.
    """

    def check() -> bool:
        import mpmath  # pyright: ignore[reportMissingTypeStubs]

        iv: Any = mpmath.iv

        symbols = list(box)
        functions = {name: getattr(iv, name) for name in ("exp", "log", "sqrt", "cos", "sin", "mpf")}
        function: Any = sp.lambdify(symbols, expression, modules=[functions, "mpmath"])
        pending: list[tuple[Any, int]] = [(tuple(iv.mpf([str(a), str(b)]) for a, b in box.values()), 0)]
        while pending:
            cell, level = pending.pop()
            value = function(*cell)
            if value.a > 0:
                continue
            if value.b <= 0 or level >= depth * len(symbols):
                return False
            widths = [side.delta for side in cell]
            widest = widths.index(max(widths))
            middle = cell[widest].mid
            for half in ((cell[widest].a, middle.b), (middle.a, cell[widest].b)):
                pending.append(((*cell[:widest], iv.mpf(half), *cell[widest + 1 :]), level + 1))
        return True

    edges = ", ".join(f"{s} in [{a}, {b}]" for s, (a, b) in box.items())
    return Step(says, Strength.CERTIFIED, check, f"interval arithmetic over {edges}")


def limit(says: str, expression: Any, variable: Any, point: Any, value: Any, direction: str = "+") -> Step:
    """An expression tends to a value, as sympy computes limits (Gruntz's algorithm).

    Args:
        says: the claim.
        expression: sympy, in ``variable``.
        variable: what moves.
        point: where to, ±oo included.
        value: the limit.
        direction: "+" from above, "-" from below; of no meaning at ±oo.
    """

    def check() -> bool:
        found = sp.limit(expression, variable, point, direction)
        return found == value or sp.simplify(found - value) == 0

    return Step(says, Strength.PROVED, check, "limit by Gruntz's algorithm")


def sample(says: str, check: Callable[[], bool], method: str) -> Step:
    """A claim that is only evaluated at numbers, with many digits; it never counts as proved."""
    return Step(says, Strength.TESTED, check, method)


def argument(says: str, rests_on: str) -> Step:
    """Reasoning in words, from the steps before it and a named classical theorem."""
    return Step(says, None, lambda: True, rests_on)

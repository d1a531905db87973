"""The steps themselves: each kind accepts what is true and refuses what is not."""

from __future__ import annotations

import pytest
import sympy as sp

from grpo_dynamics.symbolic import Step, Strength, Theorem
from grpo_dynamics.symbolic.proof import argument, identity, limit, on_box, polynomial_sign, positive, sample

x = sp.Symbol("x", positive=True)
n = sp.Symbol("n", integer=True, positive=True)
word = argument("so it follows", "some classical theorem")

TRUE = {
    "identity": (identity("", (x + 1) ** 2, x**2 + 2 * x + 1), Strength.PROVED),
    "positive": (positive("", x + 1), Strength.PROVED),
    "not negative": (positive("", (x - 1) ** 2 + 0, strict=False), Strength.PROVED),
    "polynomial": (polynomial_sign("", x**2 - x + 1, x, 0, sp.oo), Strength.PROVED),
    "limit": (limit("", (1 + x / n) ** n, n, sp.oo, sp.exp(x)), Strength.PROVED),
    "box": (on_box("", sp.exp(x) - 1 - x / 2, {x: (0.5, 2)}), Strength.CERTIFIED),
    "sample": (sample("", lambda: True, "one number"), Strength.TESTED),
}
FALSE = {
    "identity": identity("", (x + 1) ** 2, x**2 + 2 * x),
    "positive": positive("", x - 1),
    "polynomial with a root": polynomial_sign("", x**2 - 3 * x + 1, x, 0, sp.oo),
    "negative polynomial": polynomial_sign("", -(x**2) - 1, x, 0, 1),
    "limit": limit("", 1 / n, n, sp.oo, 1),
    "box": on_box("", 1 - x, {x: (0.5, 2)}),
    "box with a touching zero": on_box("", (x - 1) ** 2, {x: (0.5, 2)}),
    "sample": sample("", lambda: False, "one number"),
}


def theorem(*steps: Step) -> Theorem:
    return Theorem("some", "title", "x", "nowhere", ("x>0",), lambda: steps)


@pytest.mark.parametrize(("step", "strength"), TRUE.values(), ids=TRUE)
def test_true_steps_hold_with_the_strength_of_their_kind(step: Step, strength: Strength) -> None:
    proof = theorem(step, word).prove()
    assert proof.strength == strength
    assert proof.holds


@pytest.mark.parametrize("step", FALSE.values(), ids=FALSE)
def test_false_steps_fail_and_the_whole_with_them(step: Step) -> None:
    proof = theorem(TRUE["identity"][0], step, word).prove()
    assert [outcome.strength for outcome in proof.outcomes] == [Strength.PROVED, Strength.FAILED, None]
    assert not proof.holds


def test_a_proof_is_as_strong_as_its_weakest_checked_step() -> None:
    assert theorem(*(step for step, _ in TRUE.values())).prove().strength == Strength.TESTED


def test_proof_prints_each_step_with_its_strength() -> None:
    printed = str(theorem(TRUE["box"][0], FALSE["box"], word).prove())
    assert "some: title [nowhere] — failed" in printed
    assert "certified on a box" in printed
    assert "argument" in printed

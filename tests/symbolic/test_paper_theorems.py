"""Every theorem of the paper proves itself, as strongly as it says, and a tampered one fails."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Callable
from typing import Any

import pytest
import sympy as sp

from grpo_dynamics import symbolic
from grpo_dynamics.symbolic import (
    Strength,
    amplification_v1,
    approximate,
    catalogue,
    contrastive,
    definitions,
    fixed_points,
    geometric_mean,
    mirror,
    outcome_space,
    policies,
)

STRENGTHS = {
    "contrastive-clip": Strength.PROVED,
    "contrastive-no-clip": Strength.PROVED,
    "thm1": Strength.PROVED,
    "thm2": Strength.PROVED,
    "thm4": Strength.PROVED,
    "thm8": Strength.PROVED,
    "lemma2": Strength.PROVED,
    "lemma3": Strength.PROVED,
    "thm9": Strength.PROVED,
    "renyi-zero": Strength.PROVED,
    "prop1": Strength.PROVED,
    "thm3": Strength.PROVED,
    "lemma1": Strength.PROVED,
    "thm6": Strength.PROVED,
    "thm7": Strength.PROVED,
    "thm5": Strength.PROVED,
    "dr-grpo": Strength.PROVED,
    "mirror-dr-grpo": Strength.PROVED,
    "table1": Strength.PROVED,
    "thm10": Strength.PROVED,
    "tv-sharp": Strength.PROVED,
    "amplification-v1": Strength.PROVED,
    "amplification-v1-range": Strength.CERTIFIED,  # two numbers decide it
}


@functools.cache
def proof(id: str) -> symbolic.Proof:
    return symbolic.theorem(id).prove()


def test_every_theorem_of_these_modules_is_listed_here_and_in_the_catalogue() -> None:
    here = [theorem.id for module in catalogue.PAPER for theorem in module.THEOREMS]
    assert here == list(STRENGTHS)
    assert list(symbolic.theorems())[: len(here)] == here  # the paper's first


def test_no_id_is_used_twice() -> None:
    assert len(catalogue.THEOREMS) == sum(len(module.THEOREMS) for module in (*catalogue.PAPER, *catalogue.OURS))


def test_no_theorem_module_is_left_out_of_the_catalogue() -> None:
    folder = pathlib.Path(symbolic.__file__).parent
    with_theorems = {
        path.stem for path in folder.glob("*.py") if "\nTHEOREMS: list[Theorem]" in path.read_text("utf-8")
    }
    assert with_theorems == {module.__name__.rpartition(".")[2] for module in (*catalogue.PAPER, *catalogue.OURS)}


@pytest.mark.parametrize(("id", "strength"), STRENGTHS.items())
def test_theorem_holds_with_exactly_this_strength(id: str, strength: Strength) -> None:
    found = proof(id)
    assert found.strength == strength, str(found)
    assert found.holds


@pytest.mark.parametrize("id", STRENGTHS)
def test_theorem_says_what_it_rests_on(id: str) -> None:
    theorem = symbolic.theorem(id)
    assert theorem.title
    assert theorem.statement
    assert theorem.assumptions
    assert "2503.06639" in theorem.source or theorem.source.startswith("ours")
    assert all(assumption.count("$") % 2 == 0 for assumption in theorem.assumptions)
    for outcome in proof(id).outcomes:
        says = outcome.step.says
        assert says.count("$") % 2 == 0, says
        assert says.count("{") == says.count("}"), says
        assert outcome.step.method
        assert outcome.strength is not Strength.TESTED


def test_table1_has_its_24_entries() -> None:
    entries = [o.step.says for o in proof("table1").outcomes]
    for variant in ("GRPO", "Dr. GRPO", "Mirror GRPO", "Mirror Dr. GRPO", "Two-KL GRPO", "Two-KL Dr. GRPO"):
        for column in ("weights", "recursion", "fixed point", "stability"):
            assert sum(says.startswith(f"{variant}, {column}: ") for says in entries) == 1, (variant, column)


def test_the_threshold_of_the_first_versions_condition() -> None:
    u = sp.nsolve(sp.Symbol("u") * sp.tanh(sp.Symbol("u")) - sp.Rational(1, 2), 0.77, prec=40)
    threshold = 1 / (1 + sp.exp(-4 * u))
    assert amplification_v1.BELOW < threshold < amplification_v1.ABOVE


def _gap(x: Any, smoothing: Any = definitions.eps) -> Any:
    return 1 / (x * (1 - x) + smoothing)  # the root forgotten


def _heavier(x: Any, smoothing: Any = definitions.eps) -> Any:
    return 2 * (1 - x) * definitions.gap(x, smoothing)


def _stronger_map(x: Any, reference: Any = definitions.p_ref, smoothing: Any = definitions.eps) -> Any:
    odds = (1 - reference) / reference
    return 1 / (1 + odds * sp.exp(-2 * definitions.gap(x, smoothing) / definitions.beta))


def _step(state: Any, reference: Any, gap_value: Any, strength: Any = definitions.beta, anchor: Any = None) -> Any:
    anchor = definitions.alpha if anchor is None else anchor
    return anchor * reference + (1 - anchor / 2) * state + 2 * gap_value / strength


def _bound(x: Any, smoothing: Any = definitions.eps) -> Any:
    return x * (1 - x) * (2 * x - 1) / (x * (1 - x) + smoothing) ** sp.Rational(3, 2)


def _sides(x: Any = None, strength: Any = definitions.beta, smoothing: Any = definitions.eps) -> Any:
    return 2 * strength * sp.cosh(1 / strength), 3 * definitions.stability_bound(x or definitions.p_ref, smoothing)


def _sharper(anchor: outcome_space.Policy, normaliser: Any = policies.partition) -> outcome_space.Policy:
    factor = sp.exp(2 * policies.plus / policies.beta) / normaliser
    return outcome_space.Policy(anchor.success * factor, anchor.failure / normaliser)


def _arithmetic_mean(
    left: Any, right: Any, order: Any = definitions.alpha, normaliser: Any = policies.partition
) -> Any:
    mixed = (order * getattr(left, kind) + (1 - order) * getattr(right, kind) for kind in ("success", "failure"))
    return outcome_space.Policy(*(kind / normaliser for kind in mixed))


TAMPERINGS: list[tuple[str, Any, str, Callable[..., Any] | Any]] = [
    ("contrastive-clip", definitions, "gap", _gap),
    ("contrastive-clip", contrastive, "clipped", lambda x, advantage: sp.Min(x, 1 + contrastive.high) * advantage),
    ("contrastive-no-clip", definitions, "weight_positive", _heavier),
    ("thm1", policies, "optimal", _sharper),
    ("thm1", definitions, "weight_positive", _heavier),
    ("thm2", definitions, "success_map", _stronger_map),
    ("thm4", policies, "optimal", _sharper),
    ("thm8", policies, "optimal", _sharper),
    ("lemma2", geometric_mean, "geometric_mean", _arithmetic_mean),
    ("lemma3", geometric_mean, "renyi", lambda affinity: sp.log(affinity) / definitions.alpha),
    ("thm9", definitions, "step", _step),
    ("renyi-zero", geometric_mean, "geometric_mean", _arithmetic_mean),
    ("prop1", definitions, "gap", _gap),
    ("prop1", definitions, "success_map", _stronger_map),
    ("thm3", definitions, "success_map", _stronger_map),
    ("lemma1", definitions, "stability_bound", _bound),
    ("thm6", definitions, "success_map", _stronger_map),
    ("thm7", fixed_points, "contraction_factor", lambda slope: (2 + slope) / 2),
    ("thm5", mirror, "mirror_map", lambda x, gap: x * sp.exp(gap) / (x * sp.exp(gap) + 2 - x)),
    ("dr-grpo", definitions, "step", _step),
    ("mirror-dr-grpo", definitions, "step", _step),
    ("table1", definitions, "step", _step),
    ("table1", definitions, "stability_bound", _bound),
    ("thm10", approximate, "distance", lambda a, b: sum(abs(x - y) for x, y in zip(a, b, strict=True))),
    ("tv-sharp", approximate, "distance", lambda a, b: sum(abs(x - y) for x, y in zip(a, b, strict=True))),
    ("amplification-v1", definitions, "stability_bound", _bound),
    ("amplification-v1-range", definitions, "amplification_sides_v1", _sides),
    ("amplification-v1-range", amplification_v1, "BARRIER", sp.Rational("2.24")),
    ("amplification-v1-range", amplification_v1, "BELOW", sp.Rational("0.9564")),
]


def test_every_theorem_is_tampered_with() -> None:
    assert {id for id, *_ in TAMPERINGS} == set(STRENGTHS)


@pytest.mark.parametrize(("id", "module", "name", "wrong"), TAMPERINGS, ids=lambda x: x if isinstance(x, str) else "")
def test_a_wrong_definition_fails(id: str, module: Any, name: str, wrong: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, name, wrong)
    found = symbolic.theorem(id).prove()
    assert found.strength == Strength.FAILED, str(found)
    assert not found.holds


@pytest.mark.parametrize(("id", "nearest"), [("thm33", "thm3"), ("lema3", "lemma3"), ("prop-1", "prop1")])
def test_unknown_id_names_the_nearest_and_all_known(id: str, nearest: str) -> None:
    with pytest.raises(ValueError, match=f"got '{id}', did you mean '{nearest}'.*known are contrastive-clip, .*thm10"):
        symbolic.theorem(id)


def test_unknown_id_without_a_neighbour() -> None:
    with pytest.raises(ValueError, match=r"got '§', known are contrastive-clip"):
        symbolic.theorem("§")

"""Our own theorems: every proof holds with exactly the strength claimed, and breaks when a formula is changed."""

import itertools
from types import ModuleType

import pytest
import sympy as sp

from grpo_dynamics.symbolic import (
    Strength,
    Theorem,
    attractors,
    bifurcation,
    finite_groups,
    global_dynamics,
    group_averages,
    group_gap_shape,
    kl_estimators,
    kl_flows,
    two_kl,
)
from grpo_dynamics.symbolic.definitions import beta, eps, group_gap, odds

MODULES = (
    global_dynamics,
    two_kl,
    bifurcation,
    attractors,
    finite_groups,
    group_averages,
    group_gap_shape,
    kl_estimators,
    kl_flows,
)
OURS = {theorem.id: theorem for module in MODULES for theorem in module.THEOREMS}

# A 3-cycle at given numbers is found in an interval; everything else is algebra.
CERTIFIED = {"li-yorke", "two-kl-same-beta"}

EXPECTED = {
    "max-b",
    "global-contraction",
    "one-step",
    "inverse-design",
    "mirror-arcsin",
    "two-kl-fixed-points",
    "two-kl-dr-grpo",
    "two-kl-damping",
    "two-kl-same-beta",
    "fold-cubic",
    "fold-roots",
    "cusp",
    "flip-mirror",
    "at-most-three",
    "no-interior",
    "schwarzian",
    "critical-orbits",
    "li-yorke",
    "omega-g",
    "omega-g-ends",
    "omega-g-constant",
    "omega-g-limit",
    "mean-only-group",
    "drop",
    "omega-g-shape",
    "kl-flow-reduction",
    "k2-flow",
    "k3-flow",
    "k3-unique",
    "k1-loss",
    "k1-reward",
    "k3-ratio",
}


def test_nothing_is_missing_or_twice() -> None:
    assert set(OURS) == EXPECTED
    assert sum(len(module.THEOREMS) for module in MODULES) == len(EXPECTED)


@pytest.mark.parametrize("theorem", OURS.values(), ids=OURS.keys())
def test_proof_holds_with_its_strength(theorem: Theorem) -> None:
    proof = theorem.prove()
    assert proof.strength is (Strength.CERTIFIED if theorem.id in CERTIFIED else Strength.PROVED), str(proof)


@pytest.mark.parametrize("theorem", OURS.values(), ids=OURS.keys())
def test_arguments_name_what_they_rest_on(theorem: Theorem) -> None:
    steps = theorem.steps()
    assert all(step.says and step.method for step in steps)
    assert any(step.strength is not None for step in steps)


def _undamped(state, reference, gap_value, strength=beta, anchor=1):
    """A recursion that forgets to scale the old policy by 1 − α."""
    return anchor * reference + state + gap_value / strength


def _ddof(members: int, x: sp.Expr) -> sp.Expr:
    return group_gap(members, x, 0, 1)


TAMPERED = [
    (global_dynamics, "greatest", 1 / (3 * sp.sqrt(3 * eps) * (1 + 3 * eps)), "max-b"),
    (global_dynamics, "peak", 3 * eps / (1 + 12 * eps), "max-b"),
    (
        global_dynamics,
        "stability_bound",
        lambda x: x * (1 - x) * (2 * x - 1) / (x * (1 - x) + eps) ** 2,
        "inverse-design",
    ),
    (two_kl, "step", _undamped, "two-kl-fixed-points"),
    (two_kl, "step", _undamped, "two-kl-dr-grpo"),
    (two_kl, "step", _undamped, "two-kl-damping"),
    (bifurcation, "critical", 1 / (3 * sp.sqrt(3 * eps) * (1 + 3 * eps)), "cusp"),
    (bifurcation, "critical", 1 / (3 * sp.sqrt(2 * eps) * (1 + 4 * eps)), "fold-roots"),
    (bifurcation, "fold_cubic", lambda w: 4 * eps * beta**2 * w**3 - w + 1, "fold-cubic"),
    (bifurcation, "slope", bifurcation.cosh, "flip-mirror"),
    (bifurcation, "sinh", -bifurcation.sinh, "at-most-three"),
    (bifurcation, "half_gap", 2 * bifurcation.half_gap, "no-interior"),
    (attractors, "width", 1 + 2 * eps * bifurcation.cosh**2, "schwarzian"),
    (attractors, "slope", attractors.cosh, "critical-orbits"),
    (attractors, "_LOW", "0.1455", "li-yorke"),  # J no longer holds the cycle
    (attractors, "_HIGH", "0.5", "li-yorke"),
    (finite_groups, "advantage", lambda r: r[0] - sp.Rational(sum(r), len(r)), "omega-g"),
    (finite_groups, "group_gap", _ddof, "omega-g"),
    (
        finite_groups,
        "group_gap",
        lambda m, x, smoothing=0, ddof=0: group_gap(m + 1, x, smoothing, ddof),
        "omega-g-ends",
    ),
    (
        finite_groups,
        "group_gap",
        lambda m, x, smoothing=0, ddof=0: group_gap(m, x, smoothing, 1 - ddof),
        "omega-g-constant",
    ),
    (group_averages, "stirling", lambda n, j: 1, "omega-g-limit"),
    (group_averages, "expected", lambda m, value: sp.Rational(1, 2), "mean-only-group"),
    (group_averages, "advantage", lambda r: r[0], "drop"),
    (group_gap_shape, "_curvature", lambda g: odds / (1 + odds) ** g, "omega-g-shape"),
    (group_gap_shape, "bernstein_gap", lambda g, x: group_gap(g, x, 0, 1), "omega-g-shape"),
    (kl_estimators, "log_ratio", [2 * x for x in kl_estimators.log_ratio], "k3-ratio"),
    (kl_estimators, "k3", kl_estimators.log_ratio, "k3-flow"),
    (kl_estimators, "in_loss", kl_estimators.in_reward, "k2-flow"),
    (kl_estimators, "in_loss", kl_estimators.in_reward, "k1-loss"),
    (kl_estimators, "in_reward", kl_estimators.in_loss, "k1-reward"),
    (kl_flows, "spread", sp.Integer(1), "kl-flow-reduction"),
    (kl_flows, "tilted_anchor", kl_flows.tilted, "kl-flow-reduction"),
]


@pytest.mark.parametrize(
    ("module", "name", "wrong", "id"), TAMPERED, ids=[f"{t[0].__name__.split('.')[-1]}-{t[1]}-{t[3]}" for t in TAMPERED]
)
def test_a_changed_formula_is_noticed(
    module: ModuleType, name: str, wrong: object, id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, name, wrong)
    proof = OURS[id].prove()
    assert not proof.holds


def test_a_tampered_variant_covers_every_module() -> None:
    assert {t[0] for t in TAMPERED} == set(MODULES)


# Simulated with a sampled tabular policy, on-policy gradient: .4196 and .5596.
@pytest.mark.parametrize(("pull", "simulated"), [("exact", 0.4196), ("k3", 0.5596)])
def test_stationary_points_are_those_of_a_sampled_policy(pull: str, simulated: float) -> None:
    p = sp.Symbol("p")
    anchor = sp.Rational(1, 10)
    distance = sp.log(p / (1 - p)) - sp.log(anchor / (1 - anchor))
    toward = p * (1 - p) * distance if pull == "exact" else p - anchor
    root = sp.nsolve(p * (1 - p) * group_gap(8, p) - toward, p, 0.5)
    assert float(root) == pytest.approx(simulated, abs=2e-4)


@pytest.mark.parametrize("size", [4, 5, 8, 16, 64])
def test_the_slope_of_a_groups_gap_turns_once(size: int) -> None:
    # omega-g-shape argues for every G; here the sign changes of the coefficients, in integers alone, for a few.
    def root(k: int) -> int:
        return sp.integer_nthroot(10**80 // (k * (size - k)), 2)[0]  # 10^40/√(k(G−k)), to one unit

    phi = [0, *(k * (size - 1 - k) * (root(k + 1) - root(k)) for k in range(1, size - 1)), 0]
    jumps = [after - before for before, after in itertools.pairwise(phi)]
    assert min(abs(jump) for jump in jumps) > 4 * size**2  # far above what the roots were rounded by
    assert [jump > 0 for jump in jumps] == [False, *[True] * (size - 3), False]

"""Numeric ↔ symbolic: every numeric function of the package is its sympy twin evaluated with 50 digits.

The parameters are random floats, and the twin gets exactly those floats. The package computes in float64 from the
log-odds, so that the difference is rounding alone; 1e-12 relative leaves room for it and for nothing else.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import pytest
import sympy as sp

import grpo_dynamics as gd
from grpo_dynamics.symbolic import definitions as d

SMOOTHING, ANCHOR, STRENGTH, STATE, CHANCE = d.eps, d.alpha, d.beta, d.log_odds, d.p_ref
PROBABILITY = d.sigmoid(STATE)
REFERENCE = d.logit(CHANCE)


@functools.cache
def compiled(expression: Any, symbols: tuple[Any, ...]) -> Callable[..., Any]:
    return sp.lambdify(symbols, expression, modules="mpmath")


def evaluate(expression: Any, values: dict[Any, float]) -> Any:
    """The expression at exactly these floats, with 50 digits; 1 − p = 1 − 1/(1+e^−L) takes |L|/ln 10 of its own."""
    expression = sp.sympify(expression)
    symbols = tuple(sorted(expression.free_symbols, key=str))
    with mpmath.workdps(50 + int(abs(values.get(STATE, 0)))):
        return compiled(expression, symbols)(*(mpmath.mpf(values[symbol]) for symbol in symbols)) + mpmath.mpf(0)


def assert_close(found: Any, expected: Any, scale: Any = 0, rtol: float = 1e-12) -> None:
    """Relative to the expected value, or to ``scale`` where terms of that size cancel in any arithmetic."""
    with mpmath.workdps(50):
        assert abs(mpmath.mpf(float(found)) - expected) <= rtol * max(abs(expected), abs(scale)), (found, expected)


def draws(count: int, seed: int) -> list[dict[Any, float]]:
    rng = np.random.default_rng(seed)
    return [
        {
            STATE: float(rng.uniform(-35, 35)),
            CHANCE: float(gd.sigmoid(rng.uniform(-12, 12))),
            STRENGTH: float(10 ** rng.uniform(-2, 2)),
            SMOOTHING: float(10 ** rng.uniform(-10, -0.7)),
            ANCHOR: float(rng.uniform(0.01, 1)),
        }
        for _ in range(count)
    ]


@dataclasses.dataclass(frozen=True)
class Twin:
    """A normalisation of the package for an ε, and its ω⁺ and ω⁻ in sympy."""

    numeric: Callable[[float], gd.Normalization]
    positive: Any
    negative: Any

    @property
    def gap(self) -> Any:
        return self.positive + self.negative


def from_gap(numeric: Callable[[float], gd.Normalization], gap: Any) -> Twin:
    return Twin(numeric, (1 - PROBABILITY) * gap, PROBABILITY * gap)


def group(size: int, ddof: int, placement: Any, silent: Any) -> Twin:
    positive, negative = d.group_weights(size, PROBABILITY, SMOOTHING, ddof, placement == "variance")
    share = d.mixed_share(size, PROBABILITY) if silent == "drop" else 1
    return Twin(lambda eps: gd.FiniteGroup(size, eps, placement, ddof, silent), positive / share, negative / share)


TWINS = {
    "whitened": Twin(gd.Whitened, d.weight_positive(PROBABILITY), d.weight_negative(PROBABILITY)),
    "whitened-std": from_gap(lambda eps: gd.Whitened(eps, "std"), d.gap_with_std(PROBABILITY)),
    "mean-only": from_gap(lambda _: gd.MeanOnly(), sp.Integer(1)),
    "mean-only-8": from_gap(lambda _: gd.MeanOnly(8), sp.Rational(7, 8)),
    **{
        f"group-{size}-{ddof}-{placement}-{silent}": group(size, ddof, placement, silent)
        for size, ddof, placement, silent in [
            (2, 0, "std", "keep"),
            (3, 1, "variance", "keep"),
            (4, 0, "std", "drop"),
            (5, 1, "variance", "drop"),
            (8, 1, "std", "keep"),
            (8, 0, "variance", "drop"),
            (16, 0, "std", "keep"),
        ]
    },
}


@pytest.fixture(params=TWINS, scope="module")
def twin(request: pytest.FixtureRequest) -> Twin:
    return TWINS[request.param]


def test_logit_and_sigmoid() -> None:
    for values in draws(40, seed=1):
        assert_close(gd.logit(values[CHANCE]), evaluate(REFERENCE, values))
        assert_close(gd.sigmoid(values[STATE]), evaluate(PROBABILITY, values))


def test_weights_and_gap(twin: Twin) -> None:
    for values in draws(25, seed=2):
        normalization, state = twin.numeric(values[SMOOTHING]), values[STATE]
        assert_close(normalization.gap(state), evaluate(twin.gap, values))
        assert_close(normalization.positive(state), evaluate(twin.positive, values))
        assert_close(normalization.negative(state), evaluate(twin.negative, values))


def test_slope_and_rate_are_derivatives_of_the_gap(twin: Twin) -> None:
    slope = sp.diff(twin.gap, STATE)
    for values in draws(12, seed=3):
        normalization, state = twin.numeric(values[SMOOTHING]), values[STATE]
        gap = evaluate(twin.gap, values)
        # the slope is a sum over s of terms like Ω·min(p, 1−p): where they cancel, rounding is relative to those
        scale = gap * float(gd.sigmoid(-abs(state)))
        found_gap, rate = normalization.gap_and_rate(state)
        assert_close(found_gap, gap)
        assert_close(normalization.gap_slope(state), evaluate(slope, values), scale)
        with mpmath.workdps(50):
            assert_close(rate, evaluate(slope, values) / gap, scale / gap)


def test_recursion_step_and_multiplier(twin: Twin) -> None:
    step = d.step(STATE, REFERENCE, twin.gap)
    multiplier = sp.diff(step, STATE)
    for values in draws(12, seed=4):
        recursion = gd.Recursion(values[STRENGTH], values[CHANCE], twin.numeric(values[SMOOTHING]), values[ANCHOR])
        terms = abs(values[STATE]) + abs(float(gd.logit(values[CHANCE])))
        assert_close(recursion.step(values[STATE]), evaluate(step, values), terms)
        assert_close(recursion.multiplier(values[STATE]), evaluate(multiplier, values), 1)


@pytest.mark.parametrize(("preset", "gap", "anchor"), [
    (lambda v: gd.grpo(v[STRENGTH], v[CHANCE], v[SMOOTHING]), d.gap(PROBABILITY), 1),
    (lambda v: gd.dr_grpo(v[STRENGTH], v[CHANCE]), sp.Integer(1), 1),
    (lambda v: gd.mirror_grpo(v[STRENGTH], v[CHANCE], v[SMOOTHING]), d.gap(PROBABILITY), 0),
    (lambda v: gd.mirror_dr_grpo(v[STRENGTH], v[CHANCE]), sp.Integer(1), 0),
    (lambda v: gd.two_kl(v[STRENGTH], v[CHANCE], v[ANCHOR], v[SMOOTHING]), d.gap(PROBABILITY), ANCHOR),
    (lambda v: gd.two_kl_dr_grpo(v[STRENGTH], v[CHANCE], v[ANCHOR]), sp.Integer(1), ANCHOR),
])  # fmt: skip
def test_presets_are_the_six_variants(preset: Any, gap: Any, anchor: Any) -> None:
    step = d.step(STATE, REFERENCE, gap, anchor=sp.sympify(anchor))
    for values in draws(12, seed=5):
        scale = abs(values[STATE]) + abs(float(gd.logit(values[CHANCE])))
        assert_close(preset(values).step(values[STATE]), evaluate(step, values), scale)


def test_grpo_step_is_the_map_h_of_the_paper() -> None:
    """In probabilities: σ(step(logit p)) = h(p) as Theorem 2 prints it."""
    for values in draws(40, seed=6):
        found = gd.sigmoid(gd.grpo(values[STRENGTH], values[CHANCE], values[SMOOTHING]).step(values[STATE]))
        # h moves by at most dL·h(1−h): rounding of L of size |L| is passed on
        assert_close(found, evaluate(d.success_map(PROBABILITY), values), rtol=1e-11)


def test_stability_bound() -> None:
    bound = sp.Abs(d.stability_bound(PROBABILITY))
    for values in draws(40, seed=7):
        found = gd.stability_bound(values[STATE], gd.Whitened(values[SMOOTHING]))
        assert_close(found, evaluate(bound, values))


def test_stability_bound_with_two_anchors(twin: Twin) -> None:
    """At β equal to the bound the multiplier is +1 on a rising gap and −1 on a falling one."""
    multiplier = sp.diff(d.step(STATE, REFERENCE, twin.gap), STATE)
    for values in draws(6, seed=8):
        bound = float(gd.stability_bound(values[STATE], twin.numeric(values[SMOOTHING]), values[ANCHOR]))
        if bound > 1e-6:
            at_bound = evaluate(multiplier, {**values, STRENGTH: bound})
            assert_close(1 if values[STATE] > 0 else -1, at_bound, rtol=1e-9)


def test_contraction_bound() -> None:
    for values in draws(40, seed=9):
        found = gd.contraction_bound(gd.Whitened(values[SMOOTHING]), values[ANCHOR])
        assert_close(found, evaluate(d.largest_stability_bound() / ANCHOR, values))


def test_rising_bound(twin: Twin) -> None:
    expected = d.balancing_beta(STATE, REFERENCE, twin.gap)
    for values in draws(15, seed=10):
        recursion = gd.Recursion(1.0, values[CHANCE], twin.numeric(values[SMOOTHING]), values[ANCHOR])
        found = float(gd.rising_bound(recursion, values[STATE]))
        if values[STATE] <= float(gd.logit(values[CHANCE])):
            assert found == np.inf
        else:
            assert_close(found, evaluate(expected, values), rtol=1e-10)


def test_design(twin: Twin) -> None:
    expected = d.balancing_beta(STATE, REFERENCE, twin.gap)
    multiplier = sp.diff(d.step(STATE, REFERENCE, twin.gap), STATE).subs(STRENGTH, expected)
    target = sp.Symbol("p^*", positive=True)
    rng = np.random.default_rng(11)
    for values in draws(8, seed=11):
        wanted = float(gd.sigmoid(gd.logit(values[CHANCE]) + rng.uniform(0.5, 6)))
        found = gd.design(wanted, values[CHANCE], twin.numeric(values[SMOOTHING]), values[ANCHOR])
        exactly = {**values, target: wanted}
        for number, formula in ((found.beta, expected), (found.multiplier, multiplier)):
            value = evaluate(formula.subs(STATE, d.logit(target)), exactly)
            assert_close(number, value, 0 if formula is expected else 1, rtol=1e-10)
        assert bool(found.stable) == bool(abs(float(found.multiplier)) < 1)


def test_amplifies_v1() -> None:
    left, right = d.amplification_sides_v1()
    rng = np.random.default_rng(12)
    seen = set()
    for _ in range(200):
        values = {
            CHANCE: float(1 - 10 ** rng.uniform(-4, -0.3)),
            STRENGTH: float(10 ** rng.uniform(-1, 1)),
            SMOOTHING: float(10 ** rng.uniform(-8, -1)),
        }
        expected = values[CHANCE] <= 0.5 or bool(evaluate(left - right, values) >= 0)
        assert bool(gd.amplifies_v1(values[STRENGTH], values[CHANCE], values[SMOOTHING])) == expected
        seen.add(expected)
    assert seen == {True, False}


def test_folds_are_roots_of_the_cubic_and_have_slope_beta() -> None:
    slope = sp.diff(d.gap(PROBABILITY), STATE)
    w = 1 + 4 * SMOOTHING * sp.cosh(STATE / 2) ** 2
    terms = 4 * SMOOTHING * STRENGTH**2 * w**3 + w + 1 + 4 * SMOOTHING
    rng = np.random.default_rng(13)
    for values in draws(30, seed=13):
        values[STRENGTH] = float(evaluate(d.largest_stability_bound(), values)) * float(rng.uniform(0.01, 0.99))
        for fold in gd.Whitened(values[SMOOTHING]).folds(values[STRENGTH]):
            there = {**values, STATE: float(fold)}
            assert_close(0, evaluate(d.fold_cubic(w), there), evaluate(terms, there))
            assert_close(values[STRENGTH], evaluate(slope, there), rtol=1e-11)


def test_steepest_point_of_the_gap_is_where_its_curvature_vanishes() -> None:
    slope, curvature = (sp.diff(d.gap(PROBABILITY), STATE, order) for order in (1, 2))
    for values in draws(15, seed=14):
        peak, steepest = gd.Whitened(values[SMOOTHING]).steepest()
        there = {**values, STATE: float(peak)}
        assert_close(steepest, evaluate(slope, there))
        assert_close(0, evaluate(curvature, there), steepest)


def test_fixed_points_solve_the_fixed_point_equation(twin: Twin) -> None:
    step = d.step(STATE, REFERENCE, twin.gap)
    multiplier = sp.diff(step, STATE)
    for values in draws(6, seed=15):
        recursion = gd.Recursion(values[STRENGTH], values[CHANCE], twin.numeric(values[SMOOTHING]), values[ANCHOR])
        found = gd.fixed_points(recursion)
        for i in range(int(found.count)):
            there = {**values, STATE: float(found.log_odds[i])}
            if abs(there[STATE]) > 300:
                continue
            slope = evaluate(multiplier, there)
            scale = (abs(there[STATE]) + abs(float(gd.logit(values[CHANCE])))) * max(1, abs(slope))
            assert_close(there[STATE], evaluate(step, there), scale)
            assert_close(found.p[i], evaluate(PROBABILITY, there))
            assert_close(found.one_minus_p[i], evaluate(1 - PROBABILITY, there))
            assert_close(found.multiplier[i], slope, 1)


def test_trajectories_of_the_dr_grpo_pair_are_the_closed_forms() -> None:
    n = sp.Symbol("n", integer=True, nonnegative=True)
    closed = {
        gd.dr_grpo: REFERENCE + 1 / STRENGTH,
        gd.mirror_dr_grpo: REFERENCE + n / STRENGTH,
    }
    for values in draws(10, seed=16):
        for preset, formula in closed.items():
            orbit = preset(values[STRENGTH], values[CHANCE]).iterate(7).log_odds
            for i in range(1, 8):
                assert_close(orbit[i], evaluate(formula, {**values, n: i}), float(gd.logit(values[CHANCE])))


def test_ends_of_the_stable_betas_have_multiplier_one() -> None:
    """There the lowest fixed point's multiplier reaches −1 (flip) or +1 (fold)."""
    rng = np.random.default_rng(17)
    multiplier = sp.diff(d.step(STATE, REFERENCE, d.gap(PROBABILITY)), STATE)
    for _ in range(10):
        values = {CHANCE: float(gd.sigmoid(rng.uniform(-8, 4))), SMOOTHING: 1e-5, ANCHOR: float(rng.uniform(0.4, 1))}
        for ends in gd.stable_betas(values[CHANCE], gd.Whitened(1e-5), values[ANCHOR]):
            for end in ends:
                if 0 < end < np.inf:
                    values[STRENGTH] = end
                    found = gd.fixed_points(gd.Recursion(end, values[CHANCE], gd.Whitened(1e-5), values[ANCHOR]))
                    there = {**values, STATE: float(found.log_odds[0])}
                    assert_close(1, abs(evaluate(multiplier, there)), rtol=1e-4)  # a fold is a square root in β

"""Numeric ↔ symbolic at 50 digits, for what is derived from the definitions: orbits, ranges of β, steepest slopes."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
import sympy as sp

import grpo_dynamics as gd
from grpo_dynamics.symbolic import definitions as d
from tests.symbolic.test_definitions import ANCHOR, CHANCE, PROBABILITY, SMOOTHING, STATE, STRENGTH, assert_close, draws

GAP = d.gap(PROBABILITY)
SLOPE = sp.diff(GAP, STATE)


def with_digits(expression, symbols):
    return sp.lambdify(symbols, expression, modules="mpmath")


@pytest.mark.parametrize("values", draws(6, seed=101))
def test_a_grpo_orbit_is_the_step_composed(values):
    """Eight steps, each with 80 digits from the last. Where the map stretches, rounding does too: so does the bound."""
    step = with_digits(d.step(STATE, d.logit(CHANCE), GAP), (STATE, CHANCE, STRENGTH, SMOOTHING, ANCHOR))
    stretch = with_digits(sp.diff(d.step(STATE, d.logit(CHANCE), GAP), STATE), (STATE, STRENGTH, SMOOTHING, ANCHOR))
    p_ref, beta, eps, alpha = values[CHANCE], max(values[STRENGTH], 0.5), max(values[SMOOTHING], 1e-4), 0.5
    orbit = gd.two_kl(beta, p_ref, alpha, eps).iterate(8, log_odds0=values[STATE]).log_odds
    with mpmath.workdps(80 + int(abs(orbit).max())):
        options = [mpmath.mpf(x) for x in (p_ref, beta, eps, alpha)]
        state, error = mpmath.mpf(values[STATE]), mpmath.mpf(0)
        for found in orbit[1:]:
            error = error * abs(stretch(state, *options[1:])) + 1e-14 * (
                abs(state) + 60 + abs(mpmath.mpf(float(found)))
            )
            state = step(state, *options)
            assert abs(mpmath.mpf(float(found)) - state) <= error + 1e-13 * abs(state)


@pytest.mark.parametrize("values", draws(4, seed=102))
def test_two_kl_dr_grpo_is_its_closed_form(values):
    """L_n = L_ref + (1 − (1−α)^n)/(αβ), here as the solution that sympy finds of the recursion."""
    n = sp.Symbol("n", integer=True, nonnegative=True)
    orbit = sp.Function("x")
    solution = sp.rsolve(orbit(n + 1) - d.step(orbit(n), 0, 1), orbit(n), {orbit(0): 0})
    p_ref, beta, alpha = (values[s] for s in (CHANCE, STRENGTH, ANCHOR))
    found = gd.two_kl_dr_grpo(beta, p_ref, alpha).iterate(30).log_odds
    with mpmath.workdps(50):
        reference = mpmath.log(mpmath.mpf(p_ref) / (1 - mpmath.mpf(p_ref)))
        formula = with_digits(solution, (n, STRENGTH, ANCHOR))
        for i in (0, 1, 2, 7, 30):
            exact = reference + formula(i, mpmath.mpf(beta), mpmath.mpf(alpha))
            assert_close(found[i], exact, scale=abs(reference) + 1 / beta)


@pytest.mark.parametrize("alpha", [1.0, 0.7, 0.5])
@pytest.mark.parametrize("p_ref", [1e-4, 1e-3, 0.02, 0.2])
def test_the_ends_of_the_stable_betas(p_ref, alpha):
    """Each is β = Ω/(α(L − L_ref)) at a root of κ = (L − L_ref)·Ω'/Ω = 1 (fold) or −(2−α)/α (flip), to 12 digits."""
    ends = [end for pair in gd.stable_betas(p_ref, gd.Whitened(1e-5), alpha) for end in pair if 0 < end < np.inf]
    assert ends
    rate = with_digits((SLOPE / GAP).subs(SMOOTHING, sp.Float("1e-5", 60)), (STATE,))
    gap = with_digits(GAP.subs(SMOOTHING, sp.Float("1e-5", 60)), (STATE,))
    with mpmath.workdps(50):
        reference = mpmath.log(mpmath.mpf(p_ref) / (1 - mpmath.mpf(p_ref)))
        for end in ends:
            near = gd.fixed_points(gd.Recursion(end * (1 + 1e-7), p_ref, gd.Whitened(1e-5), alpha)).log_odds[0]
            levels = {"fold": mpmath.mpf(1), "flip": -(2 - mpmath.mpf(alpha)) / mpmath.mpf(alpha)}
            candidates = []
            for level in levels.values():
                kappa = lambda x, level=level: (x - reference) * rate(x) - level  # noqa: E731
                try:
                    root = mpmath.findroot(kappa, mpmath.mpf(float(near)))
                except ValueError:
                    continue
                candidates.append(gap(root) / (mpmath.mpf(alpha) * (root - reference)))
            assert min(abs(c / mpmath.mpf(end) - 1) for c in candidates) <= 1e-12


@pytest.mark.parametrize("eps", [1e-6, 1e-3, 0.05])
def test_the_steepest_slope_with_eps_in_the_std(eps):
    """The largest dΩ/dL of 1/(√(p(1−p)) + ε), by Newton on its derivative with 50 digits."""
    expression = 1 / (sp.sqrt(PROBABILITY * (1 - PROBABILITY)) + SMOOTHING)
    bend = with_digits(sp.diff(expression, STATE, 2), (STATE, SMOOTHING))
    slope = with_digits(sp.diff(expression, STATE), (STATE, SMOOTHING))
    normalization = gd.Whitened(eps, eps_placement="std")
    place, steepest = normalization.steepest()
    with mpmath.workdps(50):
        exact = mpmath.findroot(lambda x: bend(x, mpmath.mpf(eps)), mpmath.mpf(float(place)))
        assert_close(place, exact, rtol=1e-10)
        assert_close(steepest, slope(exact, mpmath.mpf(eps)))
        assert_close(gd.contraction_bound(normalization, 0.25), 4 * slope(exact, mpmath.mpf(eps)))


@pytest.mark.parametrize("size", [4, 8, 16])
def test_the_steepest_slope_of_a_group(size):
    """That of the polynomial Ω_G, and its fold at half that slope."""
    expression = d.group_gap(size, PROBABILITY)
    bend = with_digits(sp.diff(expression, STATE, 2), (STATE,))
    slope = with_digits(sp.diff(expression, STATE), (STATE,))
    group = gd.FiniteGroup(size)
    place, steepest = group.steepest()
    with mpmath.workdps(50):
        exact = mpmath.findroot(bend, mpmath.mpf(float(place)))
        assert_close(place, exact, rtol=1e-6)  # a maximum is flat: its place is known to the root of the precision
        assert_close(steepest, slope(exact))
        for fold in group.folds(steepest / 2):
            assert_close(steepest / 2, slope(mpmath.mpf(float(fold))))

"""The period-doubling cascade, against closed forms, 50 digits and Feigenbaum's constant."""

import numpy as np
import pytest

import grpo_dynamics as gd
from grpo_dynamics.theory.orbits.cycles import cycles
from grpo_dynamics.theory.orbits.period_doubling import CascadeStatus, period_doublings
from tests import exact
from tests.exact import mp

FEIGENBAUM = 4.669201609102990


@pytest.fixture(scope="module")
def cascade():
    return period_doublings(gd.grpo(5.0, 1e-2), stop=1e-5, count=8)


def test_the_first_flip_has_a_closed_form(cascade):
    """It is the mirror image of the fold: L = −folds(β)[0], p_ref from L = L_ref + Ω(L)/β. [6_bifurcations]"""
    flip = -gd.Whitened(1e-5).folds(5.0)[0]
    assert cascade.log_odds[0] == pytest.approx(flip, rel=1e-12)
    assert cascade.value[0] == pytest.approx(gd.sigmoid(flip - gd.Whitened(1e-5).gap(flip) / 5.0), rel=1e-12)


def test_each_flip_to_50_digits(cascade):
    """At the value found, the cycle of 50 digits has multiplier −1: what is left, over its slope, is the error."""
    gap = exact.whitened(1e-5)
    for value, period, start in list(zip(cascade.value, cascade.period, cascade.log_odds, strict=True))[:5]:

        def multiplier(p_ref: float, period: int, x: object) -> object:
            anchor = exact.logit(p_ref)
            for _ in range(40):
                end, slope, x0 = x, mp.one, x
                for _ in range(period):
                    slope *= exact.slope(gap, end) / 5
                    end = anchor + gap(end) / 5
                x = x0 - (end - x0) / (slope - 1)
                if abs(x - x0) < mp.mpf(10) ** -40:
                    return slope
            raise AssertionError("no convergence")

        here = multiplier(float(value), int(period), mp.mpf(float(start)))
        beside = multiplier(float(value) * (1 + 1e-9), int(period), mp.mpf(float(start)))
        change = (beside - here) / mp.mpf(1e-9)  # per relative change of p_ref
        assert abs((here + 1) / change) < 1e-13


def test_distances_shrink_by_feigenbaum(cascade):
    """Universal for maps with a quadratic turning point: 4.669…, nearer from step to step."""
    assert cascade.status == CascadeStatus.OK
    assert cascade.period.tolist() == [2**k for k in range(8)]
    away = np.abs(cascade.ratio - FEIGENBAUM)
    assert np.all(np.diff(away) < 0)
    np.testing.assert_allclose(cascade.ratio[2:], FEIGENBAUM, rtol=0.02)
    assert cascade.ratio[-1] == pytest.approx(FEIGENBAUM, rel=1e-4)


@pytest.mark.parametrize(
    ("recursion", "stop", "parameter"),
    [
        (gd.grpo(20.0, 1e-4), 2.0, "beta"),
        (gd.two_kl(5.0, 1e-2, 0.9), 1e-7, "p_ref"),
        (gd.Recursion(5.0, 1e-2, gd.Whitened(0.0, "std")), 1e-7, "p_ref"),
    ],
    ids=str,
)
def test_other_cascades(recursion, stop, parameter):
    """In β, with two KL terms, without smoothing: the same constant; and the cycles are those of the search."""
    found = period_doublings(recursion, stop, parameter, 6)
    assert found.period.tolist() == [1, 2, 4, 8, 16, 32]
    assert found.ratio[-1] == pytest.approx(FEIGENBAUM, rel=5e-3)
    between = (found.value[:3] * found.value[1:4]) ** 0.5
    swept = gd.Recursion(
        between if parameter == "beta" else recursion.beta,
        between if parameter == "p_ref" else recursion.p_ref,
        recursion.normalization,
        recursion.alpha,
    )
    listed = cycles(swept, 8)
    for i, period in enumerate((2, 4, 8)):  # between two flips the cycle born at the first attracts
        lower = listed.stable[:, i] & (listed.log_odds[:, 0, i] < 0)
        assert listed.period[lower, i].tolist() == [period]


def test_why_there_is_none():
    found = period_doublings(gd.Recursion(5.0, 1e-2, gd.FiniteGroup(8)), 1e-5)
    assert (found.status, found.value.shape, found.ratio.shape) == (CascadeStatus.NO_FLIP, (0,), (0,))
    found = period_doublings(gd.grpo(5.0, 1e-2), 5e-4)
    assert (found.status, found.period.tolist()) == (CascadeStatus.END_OF_SWEEP, [1])
    assert period_doublings(gd.mirror_grpo(5.0, 1e-2), 1e-4).status == CascadeStatus.NO_FLIP


def test_a_cycle_that_closes_again():
    """β falls through the tongue of flips at p_ref = 0.01: the 2-cycle opens at its one end, closes at the other."""
    found = period_doublings(gd.grpo(5.0, 1e-2), 0.01, "beta")
    assert found.status == CascadeStatus.CLOSES
    assert found.period.tolist() == [1]
    beta = np.array([1.02, 0.99]) * found.value[0]
    assert gd.limit(gd.grpo(np.append(beta, 0.9), 1e-2), p0=0.5).period.tolist() == [1, 2, 1]


def test_wrong_arguments():
    recursion = gd.grpo(5.0, 1e-2)
    for arguments, words in (
        ({"stop": 0.0}, "p_ref must be"),
        ({"stop": [1e-3]}, r"stop must be one number, got \[0.001\]"),
        ({"stop": 1e-3, "parameter": "alpha"}, "parameter must be one of"),
        ({"stop": 1e-3, "count": 13}, "count must be an integer from 1 to 12"),
    ):
        with pytest.raises(ValueError, match=words):
            period_doublings(recursion, **arguments)
    with pytest.raises(ValueError, match="one system"):
        period_doublings(gd.grpo(5.0, [1e-2]), 1e-3)

"""Certified cycles against 60 digits of the orbit, and candidates that are no cycles."""

from __future__ import annotations

import numpy as np
import pytest
from flint import ctx

import grpo_dynamics as gd
from grpo_dynamics.theory.certificates.certainty import Certainty, Grounds
from grpo_dynamics.theory.certificates.certify_cycle import certify_cycle
from grpo_dynamics.theory.flow import Flow
from grpo_dynamics.theory.orbits.cycles import cycles
from tests import exact
from tests.exact import mp


@pytest.mark.parametrize(
    ("dynamics", "gap", "period"),
    [
        (gd.grpo(5.0, 1e-3), exact.whitened(1e-5), 2),
        (gd.grpo(10.0, 1e-5), exact.whitened(1e-5), 3),
        (gd.grpo(5.0, 1e-4), exact.whitened(1e-5), 6),
        (gd.Recursion(5.0, 1e-5, gd.Whitened(1e-6, "std"), 0.9), exact.whitened(1e-6, "std"), 4),
        (gd.Recursion(3.0, 1e-7, gd.FiniteGroup(64)), exact.finite_group(64), 2),
    ],
)
def test_cycles_are_proved(dynamics, gap, period):
    """Every cycle that the search finds is certified; its points come back after one period, not before."""
    found = cycles(dynamics, period)
    assert int(found.count) > 0
    assert int(np.max(found.period)) > 1 or period == 2
    for slot in range(int(found.count)):
        length = int(found.period[slot])
        proof = certify_cycle(dynamics, found.log_odds[slot, :length], digits=45)
        assert proof.status == Certainty.CERTIFIED
        start = mp.mpf(proof.log_odds[0].str(60, radius=False))
        orbit = exact.orbit(gap, dynamics.beta, dynamics.p_ref, dynamics.alpha, start)
        points = [next(orbit) for _ in range(length + 1)]
        multiplier = mp.one
        for j in range(length):
            assert proof.lower[j] <= points[j] <= proof.upper[j]
            multiplier *= 1 - mp.mpf(dynamics.alpha) + exact.slope(gap, points[j]) / mp.mpf(dynamics.beta)
        assert abs(points[-1] - start) < mp.mpf(10) ** -42 * (1 + abs(start)) * (1 + abs(multiplier))
        assert min((abs(x - start) for x in points[1:-1]), default=1) > 1e-9
        assert abs(proof.multiplier_upper - multiplier) < 1e-13 * abs(multiplier) + 1e-24
        assert (proof.stable, proof.unstable) == (abs(multiplier) < 1, abs(multiplier) > 1)


def test_the_known_cycles():
    """The 2-cycle of β = 5, p_ref = 1e-3 and the 3-cycle of β = 10, p_ref = 1e-5 attract (notebook 6_bifurcations)."""
    two = certify_cycle(gd.grpo(5.0, 1e-3), gd.logit([0.002338038, 0.058715830]))
    three = certify_cycle(gd.grpo(10.0, 1e-5), cycles(gd.grpo(10.0, 1e-5), 3).log_odds[4])
    assert two.stable
    assert three.stable
    assert three.lower.shape == (3,)
    assert gd.sigmoid(two.upper).round(7).tolist() == [0.0023380, 0.0587158]


def test_what_is_no_cycle_is_refused():
    """A point off by 1e-5, a fixed point or a cycle gone through twice, a cycle elsewhere, NaN: nothing is claimed."""
    dynamics = gd.grpo(5.0, 1e-3)
    cycle = cycles(dynamics, 2).log_odds[3]
    rest = float(gd.fixed_points(dynamics).log_odds[0])
    for points in ([*cycle[:1], cycle[1] + 5e-5], [rest, rest], [*cycle, *cycle], cycle + 0.01, [np.nan, cycle[1]]):
        proof = certify_cycle(dynamics, points)
        assert (proof.status, proof.reason) == (Certainty.UNDECIDED, Grounds.NO_ORBIT)
        assert np.isnan(proof.lower).all()
        assert (proof.stable, proof.unstable) == (False, False)
    assert certify_cycle(dynamics, [rest]).status == Certainty.CERTIFIED  # a fixed point is a cycle of period 1
    assert certify_cycle(gd.mirror_grpo(5.0, 1e-3), cycle).reason == Grounds.NO_ORBIT


def test_a_flip_of_a_cycle_is_degenerate():
    """At ε = 0, L_ref = −2 asinh β − 2√(1+β²)/β the fixed point L = −2 asinh β has the multiplier −1."""
    beta = 2.0
    place = -2 * np.arcsinh(beta)
    p_ref = float(gd.sigmoid(place - 2 * np.sqrt(1 + beta**2) / beta))
    proof = certify_cycle(gd.grpo(beta, p_ref, 0.0), [place])
    assert (proof.status, proof.reason) == (Certainty.DEGENERATE, Grounds.FLIP)
    assert (proof.stable, proof.unstable) == (False, False)
    assert proof.lower[0] <= place + 1e-13
    assert proof.upper[0] >= place - 1e-13


def test_batches_and_bad_input():
    """Options and points broadcast; the precision of python-flint is put back."""
    cycle = cycles(gd.grpo(5.0, 1e-3), 2).log_odds[3]
    with ctx.workprec(77):
        proof = certify_cycle(gd.grpo(np.array([5.0, 5.1]), 1e-3), np.stack([cycle, cycle], axis=1))
        assert ctx.prec == 77
    assert proof.status.tolist() == [Certainty.CERTIFIED, Certainty.UNDECIDED]
    assert proof.lower.shape == (2, 2)
    with pytest.raises(ValueError, match="first axis"):
        certify_cycle(gd.grpo(5.0, 1e-3), 0.5)
    with pytest.raises(ValueError, match="log_odds must be numbers"):
        certify_cycle(gd.grpo(5.0, 1e-3), ["a"])
    with pytest.raises(ValueError, match="dynamics must be a Recursion"):
        certify_cycle(Flow(5.0, 1e-3), cycle)
    with pytest.raises(ValueError, match="digits must be"):
        certify_cycle(gd.grpo(5.0, 1e-3), cycle, digits=0)

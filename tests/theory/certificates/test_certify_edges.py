"""Certificates of systems built to be undecidable, without fixed points, or at the ends of the floats."""

from __future__ import annotations

import math

import numpy as np
import pytest

import grpo_dynamics as gd
from grpo_dynamics.theory.certificates.certainty import Certainty, Grounds
from grpo_dynamics.theory.certificates.certify import certify
from grpo_dynamics.theory.flow import Flow
from tests import exact
from tests.exact import mp


def on_the_fold(eps, beta, which):
    """p_ref as the float at which L_ref + Ω/β touches the diagonal at a fold."""
    fold = float(gd.Whitened(eps).folds(beta)[which])
    return float(gd.sigmoid(fold - gd.Whitened(eps).gap(fold) / beta))


@pytest.mark.parametrize(("eps", "beta", "which"), [(1e-2, 0.9, 0), (1e-5, 1.0, 0), (1e-2, 0.9, 1), (1e-3, 3.0, 1)])
def test_a_fold_is_degenerate_until_more_digits_are_asked_for(eps, beta, which):
    """On a fold as far as floats go nothing is claimed of the number; 30 digits tell on which side the floats lie."""
    p_ref = on_the_fold(eps, beta, which)
    proof = certify(gd.Recursion(beta, p_ref, gd.Whitened(eps)))
    assert (proof.status, proof.reason, proof.count) == (Certainty.DEGENERATE, Grounds.FOLD, -1)
    assert np.isnan(proof.lower).all()
    assert proof.fold_side[which] == 0
    assert proof.fold_side[1 - which] != 0
    closer = certify(gd.Recursion(beta, p_ref, gd.Whitened(eps)), digits=30)
    assert closer.status == Certainty.CERTIFIED
    gap, anchor = exact.whitened(eps), exact.logit(p_ref)
    place = mp.findroot(lambda x: exact.slope(gap, x) - mp.mpf(beta), float(closer.fold_lower[which]))
    above = mp.mpf(beta) * (place - anchor) > gap(place)
    assert closer.fold_side[which] == (1 if above else -1)
    assert closer.count == (3 if above == (which == 0) else 1)
    assert closer.fold_lower[which] <= place <= closer.fold_upper[which]


def test_the_cusp_is_degenerate():
    """β_c = 1/(3√(3ε)(1+4ε)), cosh²y_c = 3/2 + 1/(8ε): three fixed points in one. Away from it one is proved."""
    eps = 1e-3
    beta = 1 / (3 * math.sqrt(3 * eps) * (1 + 4 * eps))
    place = 2 * math.acosh(math.sqrt(1.5 + 1 / (8 * eps)))
    p_ref = float(gd.sigmoid(place - gd.Whitened(eps).gap(place) / beta))
    proof = certify(gd.grpo(beta, p_ref, eps))
    assert (proof.status, proof.reason, proof.count) == (Certainty.DEGENERATE, Grounds.CUSP, -1)
    assert certify(gd.grpo(beta, p_ref, eps), digits=40).status == Certainty.CERTIFIED
    elsewhere = certify(gd.grpo(beta, [0.01, p_ref * (1 - 1e-7), p_ref * (1 + 1e-7), 0.99], eps))
    assert (elsewhere.status == Certainty.CERTIFIED).all()
    assert (elsewhere.count == 1).all()
    beside = certify(gd.grpo(beta * (1 + 1e-9), p_ref, eps))
    assert (beside.status, beside.count) == (Certainty.CERTIFIED, 1)
    assert np.isnan(beside.fold_lower).all()


def test_a_flip_leaves_number_and_places_certified():
    """Flips mirror folds (symbolic: flip-mirror). At one the number is claimed and the stability of that point not."""
    eps, beta = 1e-5, 1.0
    place = -float(gd.Whitened(eps).folds(beta)[0])
    p_ref = float(gd.sigmoid(place - gd.Whitened(eps).gap(place) / beta))
    proof = certify(gd.grpo(beta, p_ref, eps))
    assert (proof.status, proof.reason, proof.count) == (Certainty.DEGENERATE, Grounds.FLIP, 3)
    assert (proof.stable.tolist(), proof.unstable.tolist()) == ([False, False, True], [False, True, False])
    assert proof.multiplier_lower[0] <= -1 + 1e-13
    assert proof.multiplier_upper[0] >= -1 - 1e-13
    assert certify(gd.grpo(beta, p_ref, eps), digits=30).status == Certainty.CERTIFIED
    assert certify(Flow(beta, p_ref, gd.Whitened(eps))).stable.tolist() == [True, False, True]  # a flow has no flips


def test_no_fixed_point_is_certified_with_its_reason():
    """α = 0 pulls nothing back: L_n − L_{n−1} = Ω/β > 0. Above the fold at ε = 0, p → 1 as well."""
    for dynamics, reason in (
        (gd.mirror_grpo(1.0, 0.2), Grounds.NO_PULL),
        (gd.mirror_dr_grpo(1.0, 0.2), Grounds.NO_PULL),
        (Flow(0.0, 0.2, kl="none"), Grounds.NO_PULL),
        (Flow(1.0, 0.2, kl="k1"), Grounds.NO_PULL),
        (gd.grpo(1.0, 0.9, 0.0), Grounds.ABOVE_FOLD),
        (Flow(1.0, 0.99, gd.FiniteGroup(8, silent_groups="drop"), kl="k3"), Grounds.ABOVE_FOLD),
    ):
        proof = certify(dynamics)
        assert (proof.status, proof.reason, proof.count) == (Certainty.CERTIFIED, reason, 0)
        assert np.isnan(proof.lower).all()


def test_a_fixed_point_that_leaves_through_one():
    """k3, G = 2, silent groups dropped: w⁺ = ½ at p = 1. It exists for β(1−p_ref) > ½; at ½ nothing is claimed."""
    group = gd.FiniteGroup(2, silent_groups="drop")
    proof = certify(Flow(np.array([1 - 1e-9, 1.0, 1 + 1e-9]), 0.5, group, kl="k3"))
    assert proof.status.tolist() == [Certainty.CERTIFIED, Certainty.DEGENERATE, Certainty.CERTIFIED]
    assert proof.reason.tolist() == [Grounds.ABOVE_FOLD, Grounds.AT_ONE, Grounds.PROVED]
    assert proof.count.tolist() == [0, -1, 1]


def test_extreme_numbers():
    """Certified as well: p_ref at both ends of the floats, fixed points beyond the largest float, tiny α."""
    edge = certify(gd.grpo(1.0, [5e-324, 1e-300, 1 - 2**-53, 1 - 1e-12]))
    assert (edge.status == Certainty.CERTIFIED).all()
    assert (edge.lower[0] > gd.logit(np.array([5e-324, 1e-300, 1 - 2**-53, 1 - 1e-12]))).all()
    far = certify(gd.grpo(1e-308, 0.5))
    assert (far.status, far.count) == (Certainty.CERTIFIED, 1)
    assert far.lower[0] > 1e308
    assert far.upper[0] == math.inf
    slow = certify(gd.two_kl(1.0, 0.2, 1e-300))
    assert (slow.count, slow.stable[0]) == (1, True)  # multiplier 1 − 1e-300: decided by F' > 0, not by its float
    assert certify(gd.grpo(1.0, 0.3, 5e-324)).status == Certainty.CERTIFIED


def test_every_status_and_reason_says_what_it_means():
    for member in (*Certainty, *Grounds):
        assert len(member.meaning) > 20
    assert {reason for reason in Grounds if reason.certainty == Certainty.CERTIFIED} == {
        Grounds.PROVED,
        Grounds.ABOVE_FOLD,
        Grounds.NO_PULL,
    }

"""Certificates against 50 digits, brute force and another library's intervals."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from flint import arb, ctx
from hypothesis import given, settings
from hypothesis import strategies as st

import grpo_dynamics as gd
from grpo_dynamics.theory.certificates.certainty import Certainty, Grounds
from grpo_dynamics.theory.certificates.certify import certify
from grpo_dynamics.theory.certificates.enclosed_gap import enclosed_gap
from grpo_dynamics.theory.certificates.fixed_point_proof import prove, recursion_equation
from grpo_dynamics.theory.flow import Flow
from tests import brute_force, exact, interval_newton, strategies
from tests.exact import mp


def random_systems(n, seed):
    """β, p_ref and ε over the whole promised range."""
    rng = np.random.default_rng(seed)
    beta, eps = 10 ** rng.uniform(-3, 3, n), 10 ** rng.uniform(-12, math.log10(0.25), n)
    return beta, gd.sigmoid(rng.uniform(-27.6, 27.6, n)), eps


def high(ball):
    """The midpoint of a ball as an mpmath number."""
    return mp.mpf(ball.str(60, radius=False))


@pytest.mark.parametrize("row", strategies.NORMALIZATIONS, ids=lambda row: row.name)
def test_balls_of_the_gap_hold_what_the_definition_gives(row):
    """Ω and Ω' at points of a ball lie in their balls, at every precision, and the turns are where Ω'' changes sign."""
    for precision in (60, 200):
        with ctx.workprec(precision):
            gap = enclosed_gap(row.normalization)
            for middle, radius in ((-3.7, 0.0), (-0.01, 0.02), (0.6, 0.1), (4.1, 1e-3), (25.0, 1e-9)):
                values = gap.value_and_slope(arb(middle, radius))
                for x in (middle - 0.99 * radius, middle, middle + 0.99 * radius):
                    for ball, true in zip(values, (row.gap(x), exact.slope(row.gap, x)), strict=True):
                        near = arb(mp.nstr(true, 45)) + arb(0, 1e-24)  # the slope by differences: 50 digits, less h²
                        assert ball.overlaps(near)
                        assert radius or ball.rad() < 2.0 ** (16 - precision) * (1 + abs(ball))
            for place, steepness in zip(gap.turning_places(), gap.turning_slopes(), strict=True):
                before, after = (exact.curvature(row.gap, high(place) * s) for s in (0.999, 1.001))
                assert before * after < 0
                assert abs(high(steepness) / exact.slope(row.gap, high(place)) - 1) < 1e-15


@pytest.mark.parametrize("row", strategies.NORMALIZATIONS, ids=lambda row: row.name)
def test_fifty_digits_are_right(row):
    """Every ball of 50 digits against Newton's method in mpmath from the definitions, and float bounds around it."""
    for beta, p_ref, alpha in ((0.03, 0.3, 1.0), (0.9, 0.02, 1.0), (2.5, 1e-3, 0.4), (40.0, 0.97, 1.0)):
        dynamics = gd.Recursion(beta, p_ref, row.normalization, alpha)
        proof = certify(dynamics, digits=45)
        assert proof.status == Certainty.CERTIFIED
        usual = certify(dynamics)
        assert usual.count == proof.count
        pull, anchor = mp.mpf(alpha) * mp.mpf(beta), exact.logit(p_ref)
        for j in range(proof.count):
            ball = proof.log_odds[j]
            root = exact.polish(row.gap, pull, anchor, float(ball))
            assert abs(high(ball) - root) < mp.mpf(10) ** -43 * (abs(root) + abs(anchor) + 1)
            multiplier = 1 - mp.mpf(alpha) + exact.slope(row.gap, root) / mp.mpf(beta)
            assert usual.lower[j] <= root <= usual.upper[j] <= usual.lower[j] + 1e-15 * abs(usual.lower[j])
            assert abs(usual.multiplier_upper[j] - multiplier) <= 1e-13 * abs(multiplier) + 1e-24
            assert (proof.stable[j], proof.unstable[j]) == (abs(multiplier) < 1, abs(multiplier) > 1)
        assert [ball is None for ball in proof.log_odds] == [j >= proof.count for j in range(len(proof.log_odds))]


@pytest.mark.parametrize("placement", ["variance", "std"])
def test_numbers_agree_with_brute_force(placement):
    """Every random system is certified, with the number that a dense grid finds, and the places of fixed_points."""
    n = 2000
    beta, p_ref, eps = random_systems(n, 1)
    alpha = np.random.default_rng(2).uniform(1e-3, 1, n)
    dynamics = gd.Recursion(beta, p_ref, gd.Whitened(eps, placement), alpha)
    proof, found = certify(dynamics), gd.fixed_points(dynamics)
    assert (proof.status == Certainty.CERTIFIED).all()
    assert (proof.count == brute_force.count(brute_force.whitened(beta, alpha, p_ref, eps, placement))[0]).all()
    assert (np.isnan(proof.lower) == np.isnan(found.log_odds)).all()
    size = 1e-7 * (1 + np.abs(proof.upper))  # fixed_points loses digits near folds
    assert not (found.log_odds < proof.lower - size).any()
    assert not (found.log_odds > proof.upper + size).any()
    assert (proof.stable == found.stable).all()
    assert ((proof.stable | proof.unstable) == ~np.isnan(proof.lower)).all()


@pytest.mark.parametrize("silent", ["keep", "drop"])
@pytest.mark.parametrize(("size", "eps"), [(2, 0.0), (5, 1e-3), (16, 0.0), (64, 0.25), (128, 0.05)])
def test_groups_agree_with_brute_force(size, eps, silent):
    """The same for groups; at G = 64, 128 and large ε the slope of the gap of dropped groups turns twice."""
    n = 60
    beta, p_ref, _ = random_systems(n, size)
    beta = 10 ** np.random.default_rng(size).uniform(-2, 1.2, n)
    for placement in ("std", "variance"):
        group = gd.FiniteGroup(size, eps, placement, 1, silent)
        proof = certify(gd.Recursion(beta, p_ref, group))
        problem = brute_force.group(beta, np.ones(n), p_ref, size, eps, placement, 1, silent)
        assert (proof.status == Certainty.CERTIFIED).all()
        assert (proof.count == brute_force.count(problem)[0]).all()


def test_unsmoothed_systems_have_none_or_two():
    """ε = 0: two fixed points below the fold p_ref, none above, by its closed form (symbolic: no-interior)."""
    beta, p_ref, _ = random_systems(1000, 3)
    proof = certify(gd.Recursion(beta, p_ref, gd.Whitened(0.0)))
    below = gd.logit(p_ref) / 2 < np.arcsinh(beta) - np.sqrt(1 + beta**2) / beta
    assert (proof.count == np.where(below, 2, 0)).all()
    assert (proof.reason == np.where(below, Grounds.PROVED, Grounds.ABOVE_FOLD)).all()
    assert below.sum() > 100


@pytest.mark.parametrize("kind", ["variance", "std", "group"])
def test_an_independent_interval_newton_agrees(kind):
    """Branch and prune in another library, without folds or shapes: the same number, and the intervals meet.

    It was run once on 1,000 systems of each kind.
    """
    n = 60
    beta, p_ref, eps = random_systems(n, 5)
    alpha = np.where(np.arange(n) % 2, 1.0, np.random.default_rng(6).uniform(1e-3, 1, n))
    for i in range(n if kind != "group" else 20):
        if kind == "group":
            normalization = gd.FiniteGroup(2 + i % 9, float(eps[i]), "std", i % 2)
            other = interval_newton.group(2 + i % 9, eps[i], "std", i % 2)
        else:
            normalization, other = gd.Whitened(float(eps[i]), kind), interval_newton.whitened(eps[i], kind)
        proof = certify(gd.Recursion(float(beta[i]), float(p_ref[i]), normalization, float(alpha[i])))
        roots = interval_newton.fixed_points(beta[i], p_ref[i], alpha[i], other)
        assert roots.complete
        assert proof.count == len(roots.intervals)
        for j, interval in enumerate(roots.intervals):
            assert interval.a <= float(proof.upper[j])
            assert interval.b >= float(proof.lower[j])


@pytest.mark.parametrize("distance", [1e-6, 1e-9, 1e-11])
@pytest.mark.parametrize("placement", ["variance", "std"])
def test_near_folds_everything_is_still_certified(placement, distance):
    """β at a relative distance from a fold: certified, with the number that 50 digits at the fold give."""
    n, rng = 150, np.random.default_rng(7)
    _, p_ref, eps = random_systems(n, 8)
    beta = brute_force.on_a_fold(brute_force.whitened(np.ones(n), np.ones(n), p_ref, eps, placement), rng)
    there = np.isfinite(beta) & (beta > 0)
    beta, p_ref, eps = (beta * (1 + distance * rng.choice([-1, 1], n)))[there], p_ref[there], eps[there]
    proof = certify(gd.Recursion(beta, p_ref, gd.Whitened(eps, placement)))
    problem = brute_force.whitened(beta, np.ones(len(beta)), p_ref, eps, placement)
    assert len(beta) > 40
    assert (proof.status == Certainty.CERTIFIED).all()
    assert (proof.count == brute_force.count(problem)[0]).all()


@given(strategies.betas, strategies.p_refs, strategies.positive_eps, st.lists(st.floats(-50, 50), max_size=4))
@settings(max_examples=60)
def test_wrong_guesses_do_not_make_wrong_proofs(beta, p_ref, eps, guesses):
    """What is proved does not depend on the numbers it starts from: nonsense only costs time."""
    usual = certify(gd.Recursion(beta, p_ref, gd.Whitened(eps)))
    with ctx.workprec(160):
        equation = recursion_equation(beta, p_ref, 1.0, enclosed_gap(gd.Whitened(eps)))
        proof = prove(equation, guesses, sorted(guesses), 54, arb(10) ** -13)
        assert proof.reason == usual.reason
        assert len(proof.points) == usual.count
        for j, point in enumerate(proof.points):
            assert point.log_odds < arb(float(usual.upper[j])) + 1e-12 * abs(point.log_odds)
            assert point.log_odds > arb(float(usual.lower[j])) - 1e-12 * abs(point.log_odds)


@given(strategies.betas, strategies.p_refs, st.sampled_from(strategies.NORMALIZATIONS))
@settings(max_examples=100)
def test_a_flow_with_k3_rests_where_its_equation_says(beta, p_ref, row):
    """β(p − p_ref) − p(1−p)Ω in 400 digits changes its sign across the certified bounds; one rest at most."""
    proof = certify(Flow(beta, p_ref, row.normalization, kl="k3"), digits=30)
    if proof.reason == Grounds.AT_ONE:  # β(1−p_ref) is the limit of w⁺, as for β = 1, p_ref = ½, G = 2
        assert row.normalization.silent_groups == "drop"
        assert abs(beta * (1 - p_ref) / (row.gap(60) * exact.sigmoid(-60)) - 1) < 1e-20
        return
    assert proof.status == Certainty.CERTIFIED
    assert proof.count <= 1
    if proof.count == 1 and abs(proof.lower[0]) < 300:

        def balance(x):
            with mp.workdps(400):
                x = mp.mpf(x)
                return mp.mpf(beta) * (exact.sigmoid(x) - mp.mpf(p_ref)) - exact.variance(x) * row.gap(x)

        assert balance(proof.lower[0]) < 0 < balance(proof.upper[0])
        assert proof.stable[0]


@given(strategies.betas, strategies.p_refs, st.integers(0, 2), strategies.placements)
@settings(max_examples=80)
def test_folds_and_the_sign_of_the_equation_there(beta, p_ref, power, placement):
    """Ω' − b changes its sign across each fold's bounds; fold_side is the sign of b(L − L_ref) − Ω there."""
    eps = (1e-9, 1e-4, 1e-2)[power]
    proof = certify(gd.Recursion(beta, p_ref, gd.Whitened(eps, placement)), digits=25)
    gap = exact.whitened(eps, placement)
    for lower, upper, side in zip(proof.fold_lower, proof.fold_upper, proof.fold_side, strict=True):
        if np.isfinite(lower) and lower > 1e-6:
            ends = [exact.slope(gap, mp.mpf(float(x))) - mp.mpf(beta) for x in (lower, upper)]
            assert ends[0] * ends[1] < 0
            middle = mp.mpf(float(lower))
            assert side == mp.sign(mp.mpf(beta) * (middle - exact.logit(p_ref)) - gap(middle))


def test_shapes_and_other_array_types():
    """Options broadcast; float32 numbers are taken as the exact numbers they are."""
    beta, p_ref = np.array([[0.5], [5.0]]), np.array([0.1, 0.4, 0.9])
    proof = certify(gd.grpo(beta, p_ref))
    assert proof.count.shape == (2, 3)
    assert proof.lower.shape == proof.log_odds.shape == (3, 2, 3)
    assert proof.fold_side.shape == (2, 2, 3)
    for i in range(2):
        for j in range(3):
            single = certify(gd.grpo(float(beta[i, 0]), float(p_ref[j])))
            assert np.array_equal(single.lower, proof.lower[:, i, j], equal_nan=True)
            assert single.status == proof.status[i, j]
    single = certify(gd.grpo(np.array([0.1], np.float32), np.float32(0.2).item()))
    assert single.lower[0, 0] == certify(gd.grpo(float(np.float32(0.1)), float(np.float32(0.2)))).lower[0]
    assert certify(gd.grpo(np.ones((0, 2)), 0.3)).lower.shape == (3, 0, 2)
    torch = pytest.importorskip("torch")
    tensors = gd.Recursion(torch.tensor([0.5, 5.0]), 0.4, gd.Whitened(torch.tensor(0.25)))
    assert np.array_equal(certify(tensors).lower, certify(gd.grpo([0.5, 5.0], 0.4, 0.25)).lower, equal_nan=True)


def test_the_working_precision_is_put_back():
    """python-flint's precision is global: it is the caller's again, also after an error."""
    with ctx.workprec(111):
        certify(gd.grpo(1.0, 0.2), digits=40)
        assert ctx.prec == 111
        with pytest.raises(ValueError, match="Bent"):
            certify(gd.Recursion(1.0, 0.2, Bent()))
        assert ctx.prec == 111


@dataclasses.dataclass(frozen=True)
class Bent(gd.Whitened):
    """A normalisation of which nothing is proved, though it looks like one of which everything is."""

    def gap(self, log_odds):
        return super().gap(log_odds) * 2


def test_bad_input():
    for digits in (0, -1, 1001, 2.5, True, "ten"):
        with pytest.raises(ValueError, match="digits must be None or an integer between 1 and 1000"):
            certify(gd.grpo(1.0, 0.2), digits)
    with pytest.raises(ValueError, match="dynamics must be a Recursion"):
        certify(gd.Whitened())

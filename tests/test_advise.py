"""`advise`: what it counts, against closed forms, enumeration and sums on a fine grid; what it advises."""

from __future__ import annotations

import itertools
import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats

import grpo_dynamics as gd
from grpo_dynamics.advice import advise, chosen
from grpo_dynamics.cli.advise import preferred
from grpo_dynamics.forecast import Goal
from grpo_dynamics.posterior import Grid, largest_hidden, samples_to_exclude, silent_probability
from grpo_dynamics.question_files import Questions
from tests.integrations.brute import mean_over_beta


def questions(*pairs):
    k, n = np.array(pairs).T
    return Questions(pl.Series("question_id", [f"q{i}" for i in range(len(pairs))]), k / n, k, n)


def dr_grpo(beta, group_size, p):
    return gd.Recursion(beta, p, gd.MeanOnly(group_size))


def whitened(beta, group_size, p):
    return gd.Recursion(beta, p, gd.Whitened() if group_size is None else gd.FiniteGroup(group_size))


def trl(beta, group_size, p):
    return gd.trainer("trl", "1.16", beta=beta, num_generations=group_size).at(p)


counts = st.integers(1, 200).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@given(counts)
def test_the_posterior_is_jeffreys(pair):
    """Mean (k + ½)/(n + 1) and the distribution function of Beta(k + ½, n − k + ½), at every edge of the grid."""
    k, n = pair
    grid = Grid()
    masses = grid.masses(k, n)[0]
    assert masses.sum() == pytest.approx(1, abs=1e-12)
    assert np.all(masses >= 0)
    assert masses @ grid.p == pytest.approx((k + 0.5) / (n + 1), abs=2e-5)
    wanted = stats.beta(k + 0.5, n - k + 0.5).cdf(gd.sigmoid(grid.edges))
    np.testing.assert_allclose(np.cumsum(masses)[:-1], wanted, atol=1e-12)


@given(counts, st.sampled_from([1, 2, 8, 64]))
def test_a_silent_group_is_all_right_or_all_wrong(pair, size):
    wanted = mean_over_beta(lambda p: p**size + (1 - p) ** size, *pair)
    assert silent_probability(*pair, size) == pytest.approx(wanted, abs=1e-5)


def test_a_silent_group_of_two_by_hand():
    """Jeffreys' prior itself: E[p²] = (½·3/2)/(1·2) = 3/8, and as much for (1 − p)²."""
    assert silent_probability(0, 0, 2) == pytest.approx(0.75)
    assert silent_probability(5, 9, 1) == pytest.approx(1.0)


@given(st.floats(1e-4, 0.999), st.floats(0.01, 0.999))
def test_so_many_samples_exclude_p_and_one_less_does_not(p, confidence):
    n = int(samples_to_exclude(p, confidence))
    assert (1 - p) ** n <= (1 - confidence) * (1 + 1e-6)
    assert n == 1 or (1 - p) ** (n - 1) > (1 - confidence) * (1 - 1e-6)
    assert largest_hidden(n, confidence) <= p * (1 + 1e-6)


def test_pass_at_k_without_bias_is_the_share_of_draws_with_a_success():
    """By enumeration of all k of n; questions with fewer than k samples are left out."""
    pairs = [(0, 5), (1, 5), (3, 6), (5, 5), (2, 3)]
    found = advise(questions(*pairs), trl, [0.4], [8], ks=(1, 2, 4, 7)).passes
    for row in found.iter_rows(named=True):
        k = row["k"]
        shares = [
            np.mean([any(draw) for draw in itertools.combinations([True] * c + [False] * (n - c), k)])
            for c, n in pairs
            if n >= k
        ]
        assert row["questions"] == len(shares)
        assert row["before_unbiased"] == (pytest.approx(np.mean(shares)) if shares else None)
        posterior = np.mean([mean_over_beta(lambda p, k=k: 1 - (1 - p) ** k, *pair) for pair in pairs])
        assert row["before"] == pytest.approx(posterior, abs=2e-4)


@pytest.mark.parametrize("beta", [0.5, 2.0])
def test_dr_grpo_by_its_closed_form(beta):
    """Exact statistics, mean only: L* = L_ref + 1/β [2503.06639v4, Sec. 5]; nothing is silent, nothing bistable."""
    pairs = [(0, 8), (1, 8), (5, 8), (8, 8), (30, 64)]

    def after(p):
        return gd.sigmoid(np.log(p / (1 - p)) + 1 / beta)

    def failures_gone(p):  # (1 − p*)/(1 − p) = 1/(1 + p·(e^{1/β} − 1)): half of them where p·(e^{1/β} − 1) ≥ 1
        return (p * np.expm1(1 / beta) >= 1) * 1.0

    def divergence(p):
        q = after(p)
        return stats.entropy(np.stack([q, 1 - q]), np.stack([p, 1 - p]))

    found = advise(questions(*pairs), dr_grpo, [beta], [None], ks=(4,))
    row = found.candidates.row(0, named=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        means = {
            name: np.mean([mean_over_beta(f, *pair) for pair in pairs])
            for name, f in {"p_star": after, "amplified_safely": failures_gone}.items()
        }
        inside = np.mean([mean_over_beta(lambda p: np.nan_to_num(divergence(p)), *pair) for pair in pairs])
    assert row["p_star"] == pytest.approx(means["p_star"], abs=1e-4)
    assert row["amplified_safely"] == pytest.approx(means["amplified_safely"], abs=0.02)  # the bin with the border
    assert row["kl"] == pytest.approx(inside, abs=2e-3)
    assert row["bistable"] == row["oscillating"] == row["cannot_move"] == 0
    again = np.mean([mean_over_beta(lambda p: 1 - (1 - after(p)) ** 4, *pair) for pair in pairs])
    assert found.passes["after"][0] == pytest.approx(again, abs=2e-4)


def test_one_question_of_a_flow_against_an_integral_over_p():
    """scipy.integrate.quad over p itself, where the density of Beta(3½, 5½) is smooth; p* from the fixed points."""
    found = advise(questions((3, 8)), trl, [1.0], [8], aim=Goal(budget=10**6))
    posterior = stats.beta(3.5, 5.5)
    flow = gd.trainer("trl", "1.16", beta=1.0, num_generations=8)

    def goal(p):
        return float(gd.fixed_points(flow.at(p)).p[0]) * posterior.pdf(p)

    wanted = integrate.quad(goal, 1e-9, 1 - 1e-9, epsabs=1e-8)[0]
    assert found.questions["p_star"][0] == pytest.approx(wanted, abs=1e-4)
    bin_width = 50 / 400  # the ends are those of the posterior to one bin of the grid of p_ref
    for name, level in (("p_star_low", 0.025), ("p_star_high", 0.975)):
        log_odds = float(gd.logit(posterior.ppf(level)))
        low, high = (float(gd.fixed_points(flow.at(gd.sigmoid(log_odds + d))).p[0]) for d in (-bin_width, bin_width))
        assert low <= found.questions[name][0] <= high


def test_more_successes_and_less_pull_lead_higher():
    """p* of a flow rises with p_ref and falls with β; so do their means over posteriors that are ordered."""
    found = advise(questions(*((k, 16) for k in range(17))), trl, [0.05, 0.2, 0.8, 3.2], [4])
    for name in ("p_ref", "p_star"):
        assert found.questions[name].is_sorted()
    rows = found.candidates.sort("beta")
    for name in ("p_star", "amplified", "kl"):
        assert rows[name].is_sorted(descending=True)
    assert (rows["p_star"] > rows["p_ref"]).all()  # every β amplifies (Theorem 3)
    assert (found.passes["after"] > found.passes["before"]).all()


def test_oscillation_is_no_success():
    """At β = 5 and p_ref = 1e-3 the iteration goes round a cycle of two [README]; at β = 0.05 it goes nearly to 1."""
    found = advise(questions((1000, 1_000_000)), whitened, [0.05, 5.0], [None])
    rows = {row["beta"]: row for row in found.candidates.iter_rows(named=True)}
    assert gd.regime(gd.grpo(5.0, 1e-3)).label == gd.Regime.OSCILLATING
    assert rows[5.0]["oscillating"] > 0.99
    assert rows[5.0]["amplified_safely"] < 0.01
    assert found.beta == 0.05
    # the mean over the cycle is what is said of p*
    orbit = gd.grpo(5.0, 1e-3).iterate(2001).p[-2:]
    assert rows[5.0]["p_star"] == pytest.approx(orbit.mean(), abs=0.01)


def test_a_second_stable_state_is_no_success():
    assert gd.regime(gd.grpo(1.0, 0.2)).label == gd.Regime.BISTABLE
    found = advise(questions((20_000, 100_000)), whitened, [1.0], [None], aim=Goal(gain=0.2))
    row = found.candidates.row(0, named=True)
    assert row["bistable"] > 0.99
    assert row["amplified"] > 0.99  # 0.20 to 0.68 is well above a fifth of the failures
    assert row["amplified_safely"] < 0.01


def test_small_steps_settle_where_whole_ones_would_oscillate():
    """TRL at β = 0.4 with G = 16: the flow has one stable state at p_ref = 1e-3, the iteration a cycle of two."""
    flow = gd.trainer("trl", "1.16", beta=0.4, num_generations=16).at(1e-3)
    assert gd.regime(flow).label == gd.Regime.ONE_STABLE
    assert gd.regime(flow.recursion).label == gd.Regime.OSCILLATING
    found = advise(questions((1000, 1_000_000)), trl, [0.4], [16], aim=Goal(gain=0.1))
    assert found.whole_steps > 0.99
    assert found.candidates["oscillating"][0] == 0


def test_the_advised_one_moves_the_least_of_the_nearly_best():
    found = advise(questions((0, 8), (2, 8), (5, 8)), trl, preferred(0.01, 5).tolist(), [4, 16])
    rows = found.candidates
    good = rows.filter(pl.col("amplified_safely") >= 0.99 * rows["amplified_safely"].max())
    best = chosen(rows)
    assert best["kl"] == good["kl"].min()
    assert (found.beta, found.group_size) == (best["beta"], best["group_size"])
    assert found.expected == pytest.approx(3 * best["amplified_safely"])
    assert found.expected == pytest.approx(found.questions["amplified_safely"].sum())
    shares = found.questions["amplified_safely"].to_numpy()
    assert found.spread == pytest.approx(math.sqrt(np.sum(shares * (1 - shares))))


def test_nearly_the_best_is_relative_to_the_best():
    """Hard questions: the best β amplifies 0.8 % of them, and β = 10 none. Less than half a question is no advice."""
    many = advise(questions(*[(0, 1000)] * 200), trl, [0.001, 0.1, 10.0], [4, 8], aim=Goal(budget=16))
    rows = many.candidates
    assert rows.filter(beta=10.0)["amplified_safely"].max() < 1e-6
    assert many.expected == pytest.approx(200 * rows["amplified_safely"].max(), rel=0.01)
    assert many.expected > 1
    assert many.helps
    assert many.beta == 0.1
    one = advise(questions((0, 1000)), trl, [0.001, 0.1, 10.0], [4, 8], aim=Goal(budget=16))
    assert (one.beta, one.expected) == (0.1, pytest.approx(many.expected / 200))
    assert not one.helps


def test_a_question_moves_if_one_group_of_the_budget_is_not_silent():
    """By the binomial: each group is silent with p^G + (1−p)^G, and there are budget/G of them."""
    found = advise(questions((4, 1000)), trl, [0.4], [8], aim=Goal(budget=64))
    wanted = mean_over_beta(lambda p: (p**8 + (1 - p) ** 8) ** 8, 4, 1000)
    assert found.questions["cannot_move"][0] == pytest.approx(wanted, abs=1e-4)
    stays = found.questions.row(0, named=True)
    assert stays["p_ref"] < stays["p_after"] < stays["p_star"]


def test_rates_with_samples_are_counts_and_rates_alone_are_refused():
    ids = pl.Series("id", ["a"])
    as_rate = advise(Questions(ids, np.array([0.25]), None, np.array([8])), trl, [0.4], [8])
    assert as_rate.questions["successes"].to_list() == [2]
    with pytest.raises(ValueError, match=r"numbers of successes and of samples: .* got 1 rates"):
        advise(Questions(ids, np.array([0.25])), trl, [0.4], [8])
    with pytest.raises(ValueError, match=r"got 0\.3 of 8 samples in row 1"):
        advise(Questions(ids, np.array([0.3]), None, np.array([8])), trl, [0.4], [8])

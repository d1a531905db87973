"""What real training measured, against formulas written out here: nothing of the package's own theory is used.

The tables are those of the committed runs; docs/experiments says how they were made. Log-odds in, log-odds out.
"""

import json
import math
import pathlib

import numpy as np
import polars as pl
import pytest

RESULTS = pathlib.Path(__file__).parents[1] / "experiments" / "results"
EPS = 1e-5
EXACT = {"beta_0.5": 0.5, "beta_1": 1.0, "beta_2": 2.0, "beta_5": 5.0}
BETA_OF_THE_CYCLE = 2.5


def measured(run: str, arm: str) -> np.ndarray:
    """Log-odds of success, (iterations + 1, questions)."""
    table = pl.read_parquet(RESULTS / run / arm / "success.parquet").sort("iteration", "question_id")
    return table["log_odds"].to_numpy().reshape(table["iteration"].n_unique(), -1)


def p(log_odds):
    return 1 / (1 + np.exp(-log_odds))


def variance(log_odds):
    return np.exp(-np.abs(log_odds)) / (1 + np.exp(-np.abs(log_odds))) ** 2


def whitened(log_odds):
    """Ω of exact statistics, ε inside the root."""
    return 1 / np.sqrt(variance(log_odds) + EPS)


def group(size: int, eps: float = 0.0, ddof: int = 0):
    """Ω_G: the mean over the other G−1 samples of what success gains plus what failure loses."""

    def omega(log_odds):
        k = np.arange(size + 1)
        std = np.sqrt(k / size * (1 - k / size) * size / (size - ddof)) + eps
        with np.errstate(all="ignore"):
            gain = np.where((k > 0) & (k < size), (1 - k / size) / std, 0.0)
            loss = np.where((k > 0) & (k < size), (k / size) / std, 0.0)
        others = np.arange(size)
        chance = np.array([math.comb(size - 1, s) for s in others])
        s, q = others[:, None], p(np.ravel(log_odds))[None]
        weights = chance[:, None] * q**s * (1 - q) ** (size - 1 - s)
        return ((gain[1:] + loss[:-1])[:, None] * weights).sum(axis=0).reshape(np.shape(log_odds))

    return omega


def steps(before, reference, beta, omega, alpha=1.0):
    return alpha * reference + (1 - alpha) * before + omega(before) / beta


def path(reference, beta, omega, iterations, alpha=1.0):
    found = [reference]
    for _ in range(iterations):
        found.append(steps(found[-1], reference, beta, omega, alpha))
    return np.array(found)


def settles(reference, beta, alpha=1.0):
    """Whether the path from p_ref comes to rest, by following it for 20,000 steps."""
    end = path(reference, beta, whitened, 20000, alpha)
    return np.abs(p(end[-1]) - p(end[-2])) < 1e-9


def error(found, expected):
    return np.abs(p(found) - p(expected))


@pytest.mark.parametrize(("arm", "beta"), EXACT.items())
def test_the_argmin_of_a_language_model_follows_the_recursion(arm, beta):
    log_odds = measured("cpu_arithmetic", arm)
    assert log_odds.shape[0] == 11
    assert log_odds.shape[1] >= 64
    reference = log_odds[0]
    resting = settles(reference, beta)
    along = error(log_odds[1:], path(reference, beta, whitened, 10)[1:])[:, resting]
    one_step = error(log_odds[1:], steps(log_odds[:-1], reference, beta, whitened))[:, ~resting]
    for off in (along, one_step):
        if off.size:
            assert np.median(off) <= 0.01
            assert np.quantile(off, 0.95) <= 0.05
    assert resting.sum() > 40  # the bounds are of most questions, not of a few


def test_a_hard_question_has_a_two_cycle_in_a_language_model_and_half_the_anchor_ends_it():
    swinging = measured("cpu_arithmetic", "two_cycle")
    reference = swinging[0]
    hard = (p(reference) <= 0.01) & ~settles(reference, BETA_OF_THE_CYCLE)
    assert hard.sum() >= 3
    moves = np.diff(p(swinging), axis=0)[4:, hard]
    predicted = np.diff(p(path(reference, BETA_OF_THE_CYCLE, whitened, 10)), axis=0)[4:, hard]
    assert (moves[1:] * moves[:-1] < 0).all()  # up, down, up, down
    assert np.abs(moves).mean() > 0.1
    assert np.median(np.abs(moves - predicted)) < 0.01
    damped = measured("cpu_arithmetic", "two_cycle_damped")
    np.testing.assert_array_equal(damped[0], reference)  # the same model, the same questions
    assert settles(reference, BETA_OF_THE_CYCLE, 0.5)[hard].all()
    last = np.abs(np.diff(p(damped), axis=0))[-1, hard]
    assert (last < 0.1 * np.abs(moves[-1])).all()


def test_sampled_groups_of_16_follow_their_own_gap_and_not_the_papers():
    log_odds = measured("cpu_arithmetic", "groups_of_16")
    iterations = len(log_odds) - 1
    own = error(log_odds[1:], path(log_odds[0], 1.0, group(16), iterations)[1:])
    papers = error(log_odds[1:], path(log_odds[0], 1.0, whitened, iterations)[1:])
    assert np.median(own) <= 0.03
    assert np.median(own) < 0.5 * np.median(papers)
    assert np.mean(own < papers) > 0.8


def centred(log_odds):
    return np.ones_like(log_odds)


KINDS = {
    "beta_0.2": (0.2, whitened, 1.0),
    "beta_0.5": (0.5, whitened, 1.0),
    "beta_1": (1.0, whitened, 1.0),
    "beta_2": (2.0, whitened, 1.0),
    "beta_5": (5.0, whitened, 1.0),
    "dr_grpo_beta_0.5": (0.5, centred, 1.0),
    "dr_grpo_beta_2": (2.0, centred, 1.0),
    "mirror_beta_5": (5.0, whitened, 0.0),
    "two_kl_beta_1": (1.0, whitened, 0.5),
    "two_kl_beta_5": (5.0, whitened, 0.5),
    "groups_of_16": (1.0, group(16), 1.0),
}
"""β, Ω and α of each arm of the run on 512 questions."""


@pytest.mark.parametrize("arm", KINDS)
def test_every_kind_of_grpo_takes_the_steps_of_its_recursion(arm):
    """On 512 questions that share a small network; and not those of the other kinds, where these differ."""
    log_odds = measured("cpu_recursion", arm)
    assert log_odds.shape[1] == 512
    sampled = arm.startswith("groups")

    def one_step(beta, omega, alpha):
        return error(log_odds[1:], steps(log_odds[:-1], log_odds[0], beta, omega, alpha))

    own = one_step(*KINDS[arm])
    assert np.median(own) <= (0.04 if sampled else 0.005)
    assert np.quantile(own, 0.95) <= (0.2 if sampled else 0.02)
    told = []
    for other, kind in KINDS.items():
        if other == arm or (kind[0] < 1 and KINDS[arm][0] < 1):
            continue  # below β = 1 nearly all ends are 1, whatever the kind
        away = error(steps(log_odds[:-1], log_odds[0], *kind), steps(log_odds[:-1], log_odds[0], *KINDS[arm]))
        telling = away > 0.1
        if telling.sum() > 100:
            told.append(other)
            assert np.mean(own[telling] < one_step(*kind)[telling]) > (0.8 if sampled else 0.95)
    assert len(told) >= 5


def test_easy_questions_of_sampled_groups_end_below_their_fixed_point():
    """Wrong answers that are not drawn lose nothing: the numbers of docs/experiments/cpu_recursion.md."""
    log_odds, rule = measured("cpu_recursion", "groups_of_16"), KINDS["groups_of_16"]
    fixed = p(path(log_odds[0], rule[0], rule[1], 200)[-1])
    easy, off = fixed > 0.9, p(log_odds[-1]) - fixed
    assert easy.sum() == 242
    assert (off[easy] < 0).all()
    assert np.median(off[easy]) == pytest.approx(-0.019, abs=5e-4)
    assert np.median(fixed[easy]) == pytest.approx(0.998, abs=5e-4)
    assert np.median(p(log_odds[-1][easy])) == pytest.approx(0.976, abs=5e-4)
    assert np.median(np.abs(off[~easy])) == pytest.approx(0.011, abs=5e-4)
    assert 0.4 < np.mean(off[~easy] < 0) < 0.6


@pytest.mark.parametrize("kl", ["k2", "k3"])
def test_small_steps_end_where_their_kl_estimator_says(kl):
    log_odds = measured("cpu_flow", kl)
    reference, omega = log_odds[0], group(8, eps=1e-4, ddof=1)
    third = len(log_odds) // 3
    end = p(log_odds[-third:]).mean(axis=0)

    def pull(state, which):
        if which == "k2":
            return variance(state) * (state - reference)
        return p(state) - p(reference)

    def rest(which):
        """Where drive and pull balance, by following the flow in time until nothing moves."""
        state = reference.copy()
        for _ in range(20000):
            state = state + 0.5 * (variance(state) * omega(state) - pull(state, which))
        return p(state)

    other = {"k2": "k3", "k3": "k2"}[kl]
    own = np.abs(end - rest(kl))
    assert np.median(own) <= 0.05
    assert np.median(own) < 0.5 * np.median(np.abs(end - rest(other)))


@pytest.mark.parametrize("run", ["cpu_arithmetic", "cpu_recursion", "cpu_flow"])
def test_the_manifests_say_how_it_was_made(run):
    whole = json.loads((RESULTS / run / "manifest.json").read_bytes())
    assert whole["status"] == "finished"
    assert {"torch", "transformers", "grpo-dynamics"} <= set(whole["versions"])
    for arm in whole["arms"]:
        kept = json.loads((RESULTS / run / arm / "manifest.json").read_bytes())
        assert kept["status"] == "finished"
        assert kept["hardware"]
        assert kept["commit"]
        assert not kept["notes"]
    summary = json.loads((RESULTS / run / "summary.json").read_bytes())
    assert all(arm["passed"] for arm in summary["arms"])

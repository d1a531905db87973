"""The length and the difficulty bias: closed forms against sampled groups, and against what gradient steps do."""

from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import grpo_dynamics as gd
from grpo_dynamics.simulation.gradient import expected_batch
from grpo_dynamics.simulation.length import (
    AGGREGATIONS,
    by_tokens,
    difficulty_bias,
    growth,
    long_or_short,
    token_weights,
    train_lengths,
)
from grpo_dynamics.simulation.losses import gradient
from grpo_dynamics.simulation.outcomes import Outcomes
from grpo_dynamics.update_rule import Training

NORMALIZATIONS = [gd.Whitened(1e-4, "std"), gd.MeanOnly(), gd.FiniteGroup(8), gd.FiniteGroup(4, eps=0.1, ddof=1)]


def sampled_token_weights(p, lengths, correct_share, size, aggregation, max_tokens, normalized, groups, seed):
    """Mean advantage over divisor of each answer in sampled groups, written as trainers do, with its error."""
    rng = np.random.default_rng(seed)
    answers = rng.choice(len(lengths), p=correct_share, size=(groups, size))
    rewards = (answers == 0).astype(float)
    tokens = np.asarray(lengths)[answers]
    advantage = rewards - rewards.mean(axis=1, keepdims=True)
    if normalized:
        spread = rewards.std(axis=1, keepdims=True)
        advantage = advantage / np.where(spread > 0, spread, 1)
    divisor = {"sequence_mean": tokens, "token_mean": tokens.mean(), "constant": max_tokens}[aggregation]
    weights = advantage / divisor
    results = []
    for answer in range(len(lengths)):
        per_group = np.where(answers == answer, weights, 0).sum(axis=1)
        often = (answers == answer).mean() * size
        results.append((per_group.mean() / often, per_group.std() / np.sqrt(groups) / often))
    return results


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("normalized", [True, False])
def test_weights_of_sampled_groups_are_the_closed_forms(aggregation, normalized):
    """Of 3 answers; 60,000 groups of 8 as one batch, so that "token_mean" divides by the mean length."""
    p, lengths = 0.2, np.array([100.0, 40.0, 300.0])
    share = np.array([p, 0.5, 0.3])
    normalization = gd.FiniteGroup(8) if normalized else gd.MeanOnly(group_size=8)
    found = sampled_token_weights(p, lengths, share, 8, aggregation, 500, normalized, 60_000, seed=5)
    weights = token_weights(gd.logit(p), lengths, normalization, aggregation, lengths @ share, 500)
    for answer, (mean, error) in enumerate(found):
        wanted = (weights.right if answer == 0 else weights.wrong)[answer]
        assert abs(mean - wanted) < 4 * error
        assert 1e-9 < error / abs(wanted) < 0.05  # sampled, and sharp enough to fail


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("normalization", NORMALIZATIONS, ids=repr)
def test_the_closed_forms_are_the_coefficients_of_the_losses(aggregation, normalization):
    """The gradient on the logits is π(o)(w(o) − Σπw), so dividing by π and comparing answers gives w − w'."""
    outcomes = Outcomes.random(5, 4, seed=2, lengths=np.random.default_rng(0).integers(1, 900, (5, 4)).astype(float))
    training = by_tokens(aggregation, normalization)
    batch = expected_batch(outcomes.log_reference, outcomes.log_reference, outcomes, training)
    start = outcomes.log_reference
    step = gradient(start, start, start, batch, outcomes, training)
    np.testing.assert_allclose(step / np.exp(start), growth(start, outcomes, training), rtol=1e-9, atol=1e-15)


def test_a_sequence_ratio_has_no_length_bias():
    """With one ratio for the whole answer every token carries it, and |o| tokens over |o| leave the paper's loss."""
    outcomes = long_or_short([0.1, 0.4])
    plain = Training(update="gradient", learning_rate=1.0, kl="none", beta=0.0, normalization=gd.MeanOnly())
    start = outcomes.log_reference
    batch = expected_batch(start, start, outcomes, plain)
    step = gradient(start, start, start, batch, outcomes, plain) / np.exp(start)
    np.testing.assert_allclose(step[:, 1], step[:, 2], rtol=1e-12)


@given(st.floats(-12, 12), st.floats(1, 1e4), st.floats(1, 1e4))
def test_how_weights_depend_on_length(log_odds, short, long):
    """Per-sequence means: inversely; the others: not at all; right over wrong is −(1−p)/p for all."""
    for normalization in NORMALIZATIONS:
        for aggregation in AGGREGATIONS:
            one, other = (
                token_weights(log_odds, length, normalization, aggregation, 70.0, 1000.0) for length in (short, long)
            )
            ratio = short / long if aggregation == "sequence_mean" else 1.0
            assert other.wrong == pytest.approx(one.wrong * ratio, rel=1e-12)
            assert one.right == pytest.approx(-one.wrong * np.exp(-log_odds), rel=1e-11)


def test_difficulty_bias_is_the_gap():
    """1/√(4p(1−p)) for exact whitening, 1 for Dr. GRPO; a group of G levels off at √(G−1)/Ω_G(½)."""
    p = np.array([1e-4, 0.01, 0.3, 0.5, 0.9])
    np.testing.assert_allclose(difficulty_bias(gd.logit(p), gd.Whitened(0.0)), 1 / np.sqrt(4 * p * (1 - p)), rtol=1e-12)
    np.testing.assert_array_equal(difficulty_bias(gd.logit(p), gd.MeanOnly(group_size=8)), 1.0)
    stds = [np.sqrt(k / 8 * (1 - k / 8)) or np.inf for k in range(9)]
    gaps = [(1 - (s + 1) / 8) / stds[s + 1] + s / 8 / stds[s] for s in range(8)]
    middle = sum(comb(7, s) * gaps[s] for s in range(8)) / 2**7
    assert difficulty_bias(-60.0, gd.FiniteGroup(8)) == pytest.approx(np.sqrt(7) / middle, rel=1e-12)


@given(st.floats(0.01, 0.99), st.floats(0.02, 0.98), st.floats(1, 2000), st.floats(1, 2000), st.floats(1, 2000))
def test_when_a_long_wrong_answer_becomes_more_probable(p_ref, long_share, right, short, long):
    """growth > 0 ⇔ 1/long < (1−p)(E[1/|o| | wrong] − 1/right) under per-sequence means, never under the others."""
    outcomes = long_or_short(p_ref, right, short, long, long_share)
    inverse = (1 - long_share) / short + long_share / long
    margin = (1 - p_ref) * (inverse - 1 / right) - 1 / long
    for normalization in (gd.Whitened(1e-4), gd.MeanOnly()):
        for aggregation in AGGREGATIONS:
            rate = growth(outcomes.log_reference, outcomes, by_tokens(aggregation, normalization))[0]
            if aggregation != "sequence_mean":
                assert rate[2] < 0 < rate[0]
                assert rate[1] == pytest.approx(rate[2], rel=1e-9)
            elif abs(margin) > 1e-9:
                assert (rate[2] > 0) == (margin > 0)


@pytest.mark.parametrize("normalization", NORMALIZATIONS, ids=repr)
@pytest.mark.parametrize("long_share", [0.1, 0.5, 0.9])
def test_long_wrong_answers_grow_under_per_sequence_means_only(normalization, long_share):
    outcomes = long_or_short([0.05, 0.3], long_share=long_share)
    paths = {
        aggregation: train_lengths(outcomes, by_tokens(aggregation, normalization), steps=150)
        for aggregation in AGGREGATIONS
    }
    start = (1 - long_share) * 50 + long_share * 800
    for aggregation, path in paths.items():
        assert (np.diff(path.p, axis=0) >= 0).all()  # all of them learn
        if aggregation == "sequence_mean":
            assert (np.diff(path.wrong_length, axis=0) > 0).all()
            assert (path.wrong_length[-1] > start + 5).all()
        else:
            np.testing.assert_allclose(path.wrong_length, start, rtol=1e-9)


def test_a_long_wrong_answer_can_become_more_probable_while_accuracy_rises():
    path = train_lengths(long_or_short(0.1), by_tokens("sequence_mean", gd.MeanOnly()), steps=60)
    long_wrong = np.exp(path.log_policy[:, 0, 2])
    assert path.p[-1, 0] > path.p[0, 0] + 0.02
    assert (np.diff(long_wrong[:40]) > 0).all()
    constant = train_lengths(long_or_short(0.1), by_tokens("constant", gd.MeanOnly()), steps=60)
    assert (np.diff(np.exp(constant.log_policy[:, 0, 2])) < 0).all()


def test_plain_gradient_steps_only_even_out_under_a_constant_divisor():
    """Softmax logits move by π(w − w̄): equal wrong answers stay equal, unequal ones approach each other."""
    plain = Training(
        beta=0.0, kl="none", update="gradient", learning_rate=40.0, ratio_level="token", aggregation="constant"
    )
    equal = train_lengths(long_or_short(0.2, long_share=0.5), plain, steps=200)
    np.testing.assert_allclose(equal.wrong_length, 425.0, rtol=1e-9)
    mostly_long = train_lengths(long_or_short(0.2, long_share=0.8), plain, steps=200)
    assert (np.diff(mostly_long.wrong_length, axis=0) < 0).all()
    assert mostly_long.wrong_length[-1, 0] > 425
    biased = Training(
        beta=0.0, kl="none", update="gradient", learning_rate=40.0, ratio_level="token", aggregation="sequence_mean"
    )
    assert train_lengths(long_or_short(0.2, long_share=0.8), biased, steps=200).wrong_length[-1, 0] > 700


def test_where_a_kl_term_stops_the_growth():
    """At rest w(o) − β·log π/π_ref is the same for all o: long/short grew by e^{ω⁻(1/short − 1/long)/β}."""
    beta, lengths = 0.004, (200.0, 50.0, 800.0)
    outcomes = long_or_short(0.3, *lengths, long_share=0.4)
    normalization = gd.FiniteGroup(8)
    training = Training(
        beta=beta,
        normalization=normalization,
        update="gradient",
        learning_rate=50.0,
        natural=True,
        ratio_level="token",
    )
    path = train_lengths(outcomes, training, steps=600)
    log_policy = path.log_policy[-1, 0]
    worth = normalization.negative(gd.logit(path.p[-1, 0])) * (1 / 50 - 1 / 800)
    assert log_policy[2] - log_policy[1] == pytest.approx(np.log(0.4 / 0.6) + worth / beta, rel=1e-9)
    assert worth / beta > 1


def test_lengths_of_a_path_are_means_over_its_answers():
    path = train_lengths(long_or_short(0.25, 10, 20, 60, 0.2), by_tokens("constant", gd.MeanOnly()), steps=0)
    assert path.length[0, 0] == pytest.approx(0.25 * 10 + 0.75 * (0.8 * 20 + 0.2 * 60))
    assert path.wrong_length[0, 0] == pytest.approx(0.8 * 20 + 0.2 * 60)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: token_weights(0.0, 10.0, gd.MeanOnly(), "mean"), "aggregation must be one of"),
        (
            lambda: token_weights(0.0, 0.0, gd.MeanOnly(), "sequence_mean"),
            "length must be a finite number > 0, got 0.0",
        ),
        (lambda: token_weights(0.0, 1.0, gd.MeanOnly(), "token_mean"), "mean_length is missing"),
        (lambda: token_weights(0.0, 1.0, gd.MeanOnly(), "constant"), "max_tokens is missing"),
        (lambda: long_or_short(0.2, long_share=1.0), "long_share must be a share strictly between 0 and 1"),
        (lambda: train_lengths(long_or_short(0.2), Training(), 3), "update must be 'gradient' here, got 'exact'"),
    ],
)
def test_wrong_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_the_difficulty_bias_at_the_ends():
    """Ω(p = 0) = 1/√ε against Ω(½) = 1/√(¼ + ε); without smoothing it is infinite, and never NaN."""
    bias = difficulty_bias(np.array([-np.inf, np.inf]), gd.Whitened(eps=1e-2))
    np.testing.assert_allclose(bias, np.sqrt(0.26 / 0.01), rtol=1e-12)
    assert np.isinf(difficulty_bias(np.array([-np.inf, np.inf]), gd.Whitened(eps=0.0))).all()

"""Questions: what is derived from them, and what is refused."""

import numpy as np
import pytest

import grpo_dynamics as gd
from grpo_dynamics.simulation.outcomes import Outcomes


def test_uniform_has_the_wanted_success_probability_and_equal_conditionals():
    p_ref = np.array([1e-12, 0.2, 0.9])
    questions = Outcomes.uniform(p_ref, right=2, wrong=3)
    np.testing.assert_allclose(questions.p_ref, p_ref, rtol=1e-13)
    np.testing.assert_allclose(questions.log_odds_ref, gd.logit(p_ref), rtol=1e-14)
    assert np.ptp(questions.log_reference[:, :2]) > 0
    assert np.all(np.ptp(questions.log_reference[:, :2], axis=1) == 0)
    assert np.all(np.ptp(questions.log_reference[:, 2:], axis=1) == 0)
    assert (questions.questions, questions.answers) == (3, 5)


def test_random_has_every_number_of_right_answers_and_repeats_itself():
    questions, again = Outcomes.random(500, 4, seed=5), Outcomes.random(500, 4, seed=5)
    assert set(questions.correct.sum(axis=1)) == {1, 2, 3}
    np.testing.assert_array_equal(questions.log_reference, again.log_reference)
    assert np.abs(questions.log_odds_ref).max() <= 4


def test_logits_are_normalised():
    np.testing.assert_allclose(np.exp(Outcomes.uniform(0.3, 2, 4).log_reference).sum(), 1.0, rtol=1e-15)
    np.testing.assert_allclose(np.exp(Outcomes([[5.0, 6.0]], [[True, False]]).log_reference).sum(), 1.0, rtol=1e-15)


def test_lengths_broadcast():
    assert Outcomes.uniform([0.2, 0.3], lengths=[1, 7]).lengths.tolist() == [[1, 7], [1, 7]]
    assert Outcomes.uniform([0.2, 0.3]).lengths.tolist() == [[1, 1], [1, 1]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0.0, 0.0], [True, False]), r"log_reference must have shape \(questions, answers\), got \(2,\)"),
        (([[0.0, float("nan")]], [[True, False]]), "log_reference must be a log-probability"),
        (([[0.0, 0.0]], [[True, True]]), "needs a possible wrong answer, question 0 has none"),
        (([[0.0, 0.0], [-np.inf, 0.0]], [[True, False], [True, False]]), "possible right answer, question 1 has none"),
        (([[0.0, 0.0]], [[1, 0]]), "correct must be true or false"),
        (([[0.0, 0.0]], [[True]]), "correct must be true or false for each of"),
        (([[0.0, 0.0]], [[True, False]], 0), "lengths must be a number of tokens >= 1, got 0"),
        (([[0.0, 0.0]], [[True, False]], [1, 2, 3]), "lengths must broadcast"),
    ],
)
def test_what_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Outcomes(*arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0.0,), "p_ref must be a probability"),
        (([],), "got shape"),
        (([[0.5]],), "got shape"),
        ((0.5, 0), "right must be"),
        ((0.5, 1, True), "wrong must be"),
    ],
)
def test_what_uniform_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        Outcomes.uniform(*arguments)


def test_random_refuses_one_answer():
    with pytest.raises(ValueError, match="answers must be an integer >= 2, got 1"):
        Outcomes.random(3, 1, seed=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 3, 0), "questions must be an integer >= 1, got 0"),
        ((2, 2.5, 0), "answers must be an integer >= 2, got 2.5"),
        ((2, 3, -1), "seed must be an integer >= 0, got -1"),
    ],
)
def test_what_random_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        Outcomes.random(*arguments)

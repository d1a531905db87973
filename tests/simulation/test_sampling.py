"""Counts of sampled answers: their law, against enumeration and against answers drawn one by one."""

import math

import numpy as np
import pytest

import grpo_dynamics as gd
from grpo_dynamics.simulation.outcomes import Outcomes
from grpo_dynamics.simulation.sampling import draw, generator, judged_log_odds
from grpo_dynamics.update_rule import Training

POLICY = np.array([0.1, 0.25, 0.05, 0.6])
CORRECT = np.array([True, False, True, False])
RUNS = 40_000


def counts(size, training, seed=0):
    questions = Outcomes(np.broadcast_to(np.log(POLICY), (RUNS, 4)), np.broadcast_to(CORRECT, (RUNS, 4)))
    groups = draw(generator(seed, questions.log_reference), questions.log_reference, questions, training)
    assert np.all((groups.right + groups.wrong).sum(axis=-1) == size)
    return groups


def training(size, drop=False, **more):
    normalization = gd.FiniteGroup(size, silent_groups="drop" if drop else "keep")
    return Training(update="sampled", learning_rate=1.0, normalization=normalization, **more)


def within_noise(samples, mean, spread=5.0):
    """Whether the mean over the first axis is right to ``spread`` standard errors."""
    error = samples.std(axis=0) / math.sqrt(len(samples)) + 1e-12
    np.testing.assert_array_less(np.abs(samples.mean(axis=0) - mean), spread * error)


def test_moments_are_multinomial():
    size = 6
    groups = counts(size, training(size))
    total = (groups.right + groups.wrong)[:, 0, :]
    within_noise(total, size * POLICY)
    products = total[:, :, None] * total[:, None, :]
    expected = size * (size - 1) * np.outer(POLICY, POLICY) + np.diag(size * POLICY)
    within_noise(products, expected)
    assert np.all(groups.wrong[:, 0, CORRECT] == 0)
    assert np.all(groups.right[:, 0, ~CORRECT] == 0)


def test_law_of_the_whole_group_by_enumeration():
    size = 3
    total = (counts(size, training(size)).right + counts(size, training(size)).wrong)[:, 0, :]
    for first in range(size + 1):
        for second in range(size + 1 - first):
            for third in range(size + 1 - first - second):
                group = [first, second, third, size - first - second - third]
                chance = math.factorial(size) * np.prod(
                    [p**k / math.factorial(k) for p, k in zip(POLICY, group, strict=True)]
                )
                within_noise(np.all(total == group, axis=1)[:, None].astype(float), chance)


def test_verdicts_with_noise():
    """Each right answer is judged wrong with the chance of a false negative, each wrong one right with the other's."""
    size = 4
    groups = counts(size, training(size, false_positive=0.2, false_negative=0.3))
    chance = np.where(CORRECT, 0.7, 0.2)
    within_noise(groups.right[:, 0, :], size * POLICY * chance)
    within_noise(groups.wrong[:, 0, :], size * POLICY * (1 - chance))
    judged = judged_log_odds(gd.logit(0.15), training(size, false_positive=0.2, false_negative=0.3))
    assert gd.sigmoid(judged) == pytest.approx(0.15 * 0.7 + 0.85 * 0.2, rel=1e-14)


def test_groups_drawn_again_have_the_law_of_mixed_groups():
    size, p = 4, 0.15
    groups = counts(size, training(size, drop=True))
    law = np.array([math.comb(size, k) * p**k * (1 - p) ** (size - k) for k in range(size + 1)])
    law[[0, -1]] = 0
    law /= law.sum()
    seen = groups.successes[:, 0]
    within_noise((seen[:, None] == np.arange(size + 1)).astype(float), law)


@pytest.mark.parametrize("p", [1e-300, 1e-9, 1 - 1e-12])
def test_mixed_groups_exist_where_they_are_all_but_impossible(p):
    questions = Outcomes.uniform(np.full(50, p))
    groups = draw(generator(0, questions.log_reference), questions.log_reference, questions, training(8, drop=True))
    assert np.all(groups.successes == (1 if p < 0.5 else 7))


def test_groups_are_independent_and_seeds_count():
    many = draw(
        generator(7, POLICY),
        np.log(POLICY)[None, :],
        Outcomes(np.log(POLICY)[None, :], CORRECT[None, :]),
        training(8, groups=RUNS),
    )
    seen = many.successes[0]
    assert abs(np.corrcoef(seen[1:], seen[:-1])[0, 1]) < 5 / math.sqrt(RUNS)
    assert not np.array_equal(counts(8, training(8), seed=1).right, counts(8, training(8), seed=2).right)
    np.testing.assert_array_equal(counts(8, training(8), seed=1).right, counts(8, training(8), seed=1).right)


@pytest.mark.parametrize("seed", [-1, 1.5, None, True, "a"])
def test_seeds_that_would_not_repeat_are_refused(seed):
    """None in particular: NumPy takes it, and draws something else every time."""
    with pytest.raises(ValueError, match="seed must be an integer >= 0, got"):
        generator(seed, POLICY)

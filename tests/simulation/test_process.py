"""Process supervision against its definition written as loops, and its expected gradients by listing every group."""

import itertools

import numpy as np
import pytest

import grpo_dynamics as gd
from grpo_dynamics.advantages import centred, whitened
from grpo_dynamics.simulation.answer_tree import AnswerTree
from grpo_dynamics.simulation.process import process_advantages, push_of_groups

NAN = np.nan


def by_definition(rewards, eps=0.0, placement="std", ddof=0, divide=True):
    """One group: whiten the list of all step rewards, then for each token add up those that end at it or after it."""
    all_steps = [r for row in rewards for r in row if not np.isnan(r)]
    mean, std = np.mean(all_steps), np.std(all_steps, ddof=ddof)
    scale = np.sqrt(std**2 + eps) if placement == "variance" else std + eps
    result = np.zeros(np.shape(rewards))
    for i, row in enumerate(rewards):
        for t in range(len(row)):
            result[i, t] = sum((r - mean) / (scale if divide else 1) for r in row[t:] if not np.isnan(r))
    return result


def three_kinds():
    """Two questions, three answers of 2, 3 and 1 steps (the second with two tokens in its first step)."""
    tokens = [[0, 0, -1, -1], [0, 1, 0, 0], [1, -1, -1, -1]]
    rewards = [
        [[0.5, 1.0, NAN, NAN], [NAN, 0.25, 0.0, 1.0], [0.125, NAN, NAN, NAN]],
        [[0.0, 0.0, NAN, NAN], [NAN, 1.0, 1.0, 0.5], [1.0, NAN, NAN, NAN]],
    ]
    correct = [[True, False, False], [False, True, True]]
    return AnswerTree([[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]], correct, tokens, rewards), np.array(rewards)


@pytest.mark.parametrize("options", [(0.0, "std", 0, True), (0.1, "std", 1, True), (0.1, "variance", 0, True)])
@pytest.mark.parametrize("divide", [True, False])
def test_advantages_are_those_of_the_definition(options, divide):
    rng = np.random.default_rng(0)
    rewards = np.where(rng.random((5, 4, 6)) < 0.5, rng.normal(size=(5, 4, 6)), NAN)
    rewards[:, :, -1] = rng.normal(size=(5, 4))
    options = (*options[:3], divide)
    expected = [by_definition(group, *options) for group in rewards]
    np.testing.assert_allclose(process_advantages(rewards, *options), expected, rtol=1e-10, atol=1e-12)


def test_one_step_per_answer_is_grpo():
    outcomes = np.random.default_rng(1).random((3, 8))
    steps = np.full((3, 8, 5), NAN)
    steps[:, :, -1] = outcomes
    expected = np.broadcast_to(whitened(outcomes, 0.01, ddof=1)[..., None], steps.shape)
    np.testing.assert_allclose(process_advantages(steps, 0.01, ddof=1), expected, rtol=1e-12, atol=1e-14)
    found = process_advantages(steps, divide=False)
    np.testing.assert_allclose(found, np.broadcast_to(centred(outcomes)[..., None], steps.shape), atol=1e-14)


def test_deepseekmath_example_as_answers_of_one_step():
    rewards = np.array([1, 0, 0, 1, 1, 0, 1, 0], float)[:, None]
    np.testing.assert_allclose(process_advantages(rewards, ddof=1).round(2)[:, 0], np.where(rewards[:, 0], 0.94, -0.94))


def test_a_group_whose_steps_are_all_alike_teaches_nothing():
    assert not process_advantages(np.full((2, 3, 4), 0.1)).any()
    tree, _ = three_kinds()
    alike = AnswerTree(
        tree.reference, tree.correct, tree.tokens, np.where(tree.step_ends, 0.1, NAN) + np.zeros((2, 3, 4))
    )
    assert not push_of_groups(alike, np.ones((2, 1, 3))).any()


@pytest.mark.parametrize(
    "options", [(True, 0.0, "std", 0), (True, 0.1, "std", 1), (True, 0.1, "variance", 0), (False,)]
)
def test_counting_answers_is_writing_the_groups_out(options):
    tree, rewards = three_kinds()
    counts = np.random.default_rng(2).multinomial(5, [0.3, 0.4, 0.3], size=(2, 6))
    expected = np.zeros((2, 3, 4))
    for q, n in itertools.product(range(2), range(6)):
        answers = np.repeat(np.arange(3), counts[q, n])
        rest = dict(zip(("eps", "eps_placement", "ddof"), options[1:], strict=False))
        for answer, row in zip(
            answers, process_advantages(rewards[q, answers], divide=options[0], **rest), strict=True
        ):
            expected[q, answer] += row / 30
    found = push_of_groups(tree, counts, *options)
    np.testing.assert_allclose(found, np.where(tree.inside, expected, 0.0), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("size", [2, 3, 4])
def test_listing_all_groups_gives_the_gap_of_finite_groups_token_by_token(size):
    """With one step per answer the expected gradient is Ω_G(p) times that of p, on the logits after every prefix."""
    tree = AnswerTree([[0.1, 0.2, 0.3, 0.4]], [[True, False, True, False]], [[0, -1], [1, 0], [1, 1], [1, 2]])
    p, total = 0.4, 0.0
    for group in itertools.product(range(4), repeat=size):
        counts = np.bincount(group, minlength=4)[None, None, :]
        chance = tree.reference[0, list(group)].prod()
        total = total + chance * tree.gradient(tree.log_reference, push_of_groups(tree, counts))
    truth = tree.gradient(tree.log_reference, tree.per_token(tree.reference * tree.correct))
    np.testing.assert_allclose(total, gd.FiniteGroup(size).gap(gd.logit(p)) * truth, rtol=1e-11, atol=1e-14)


def test_probabilities_are_infinitely_large_groups():
    tree, _ = three_kinds()
    exact = push_of_groups(tree, tree.reference[:, None, :])
    large = push_of_groups(tree, (1e6 * tree.reference[:, None, :]).round())
    np.testing.assert_allclose(exact, large, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: process_advantages([1.0, 0.0]), "step_rewards must have shape"),
        (lambda: process_advantages([[NAN], [NAN]]), "steps in a group must be at least 1"),
        (lambda: process_advantages([[1.0], [NAN]], ddof=1), "steps in a group must be at least 2"),
        (lambda: process_advantages([[np.inf], [0.0]]), "step_rewards must be finite"),
        (lambda: process_advantages([[1.0], [0.0]], eps=-1), "eps .*-1"),
    ],
)
def test_wrong_arguments_are_named(call, named):
    with pytest.raises(ValueError, match=named):
        call()

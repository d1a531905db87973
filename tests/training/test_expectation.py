"""Exact expectations: the enumeration is complete, and the Gibbs policy is the maximiser of the objective."""

import itertools
import math

import numpy as np
import pytest
import torch

import grpo_dynamics as gd
from grpo_dynamics.training.policies import load_policy, shared_log_probs
from grpo_dynamics.training.steps import expectation as exp
from grpo_dynamics.training.steps.answer_tree import AnswerTree
from grpo_dynamics.training.tasks import make_task
from grpo_dynamics.update_rule import Training
from tests.training.tiny import tiny_model


def random_policy(rows, columns, seed=0, scale=2.0):
    generator = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(rows, columns, generator=generator, dtype=torch.float64)).log_softmax(-1)


@pytest.mark.parametrize(("vocabulary", "length"), [(3, 1), (3, 3), (5, 2), (2, 4)])
def test_every_answer_is_there_once(vocabulary, length):
    answers = exp.every_answer(vocabulary, 1, length)
    expected = {
        word
        for n in range(1, length + 1)
        for word in itertools.product(range(vocabulary), repeat=n)
        if 1 not in word[:-1] and (word[-1] == 1 or n == length)
    }
    assert sorted(expected) == sorted(map(tuple, answers.ids()))
    assert len(answers.ids()) == exp.count_answers(vocabulary, length)


def test_too_many_answers_are_refused_in_one_line():
    with pytest.raises(ValueError, match=r"answers must be at most 5000 to be enumerated .* 100 tokens and up to 8"):
        exp.every_answer(100, 2, 8)


def test_probabilities_of_all_answers_are_a_distribution_and_those_of_teacher_forcing(tmp_path):
    task = make_task("sums", questions=3)
    policy = load_policy(tiny_model(tmp_path, task))
    answers = exp.every_answer(policy.vocabulary, policy.eos_id, 3)
    prompts = policy.encode([question.prompt for question in task.questions])
    log_policy = AnswerTree.of(prompts, answers).log_probs(policy.model)
    assert log_policy.logsumexp(-1).abs().max() < 1e-12  # the chain rule sums to one
    count = len(answers.tokens)
    for q in range(3):
        forced = shared_log_probs(policy.model, [prompts[q]], answers.tokens, answers.mask, [0] * count).sum(-1)
        assert (forced.double() - log_policy[q]).abs().max() < 1e-4


def test_log_odds_do_not_saturate():
    # p = 1 − e^−200 is 1 in float64, its log-odds are not infinite
    state = exp.log_odds(
        torch.tensor([[0.0, -200.0, -201.0]], dtype=torch.float64), torch.tensor([[True, False, False]])
    )
    assert state.item() == pytest.approx(200 - math.log1p(math.exp(-1)), rel=1e-14)
    assert exp.log_odds(torch.zeros(1, 2), torch.zeros(1, 2, dtype=torch.bool)).item() == -math.inf


@pytest.mark.parametrize("alpha", [1.0, 0.5, 0.0])
def test_the_optimum_is_the_maximiser_and_the_distance_what_is_lacking(alpha):
    log_ref, log_old, advantage = random_policy(4, 6, 0), random_policy(4, 6, 1), 3 * random_policy(4, 6, 2).exp()
    objective = exp.Objective(advantage, log_ref, log_old, beta=0.7, alpha=alpha)
    best = objective.value(objective.optimum)
    for seed in range(3, 30):
        policy = random_policy(4, 6, seed)
        assert (objective.value(policy) <= best).all()
        assert torch.allclose(best - objective.value(policy), 0.7 * objective.distance(policy), atol=1e-12)
    # the gradient on the logits vanishes there, and nowhere else
    logits = objective.optimum.clone().requires_grad_()
    objective.value(logits.log_softmax(-1)).sum().backward()
    assert logits.grad.abs().max() < 1e-12


@pytest.mark.parametrize("normalization", [gd.Whitened(), gd.MeanOnly(), gd.FiniteGroup(8, eps=0.0)])
@pytest.mark.parametrize("alpha", [1.0, 0.4])
def test_the_log_odds_of_the_optimum_are_the_recursion(normalization, alpha):
    # all that a step does to the conditionals given right and wrong is nothing if they are those of the reference
    log_ref, right = random_policy(5, 6, 4), torch.rand(5, 6, generator=torch.Generator().manual_seed(0)) < 0.4
    right[:, 0], right[:, 1] = True, False
    log_old = (log_ref + 1.3 * right).log_softmax(-1)
    training = Training(beta=0.9, alpha=alpha, normalization=normalization)
    advantage = exp.expected_advantages(log_old, right, training)
    mean = (log_old.exp() * advantage).sum(-1)
    assert mean.abs().max() < 1e-12  # advantages are centred
    optimum = exp.Objective(advantage, log_ref, log_old, beta=0.9, alpha=alpha).optimum
    p_ref = torch.sigmoid(exp.log_odds(log_ref, right)).numpy()
    recursion = gd.Recursion(beta=0.9, p_ref=p_ref, normalization=normalization, alpha=alpha)
    expected = recursion.step(exp.log_odds(log_old, right).numpy())
    np.testing.assert_allclose(exp.log_odds(optimum, right).numpy(), expected, atol=1e-10)


def test_sampled_advantages_estimate_the_expected_ones():
    # E over groups of the sampled worth of an answer is its mean advantage: +w⁺ for right answers, −w⁻ for wrong ones
    policy = torch.tensor([[0.15, 0.25, 0.6]], dtype=torch.float64).log()
    right, draws, size = torch.tensor([True, False, False]), 40_000, 4
    generator = torch.Generator().manual_seed(3)
    answer = torch.multinomial(policy[0].exp(), draws * size, replacement=True, generator=generator).reshape(
        draws, size
    )
    training = Training(update="sampled", learning_rate=1.0, normalization=gd.FiniteGroup(size, eps=0.0), kl="k2")
    from grpo_dynamics.training.advantages import group_advantages

    advantages = group_advantages(right[answer].double()[None], training).reshape(1, -1)
    found = exp.sampled_advantages(policy, answer.reshape(1, -1), advantages)
    expected = exp.expected_advantages(policy, right[None], Training(normalization=gd.FiniteGroup(size, eps=0.0)))
    assert (found - expected).abs().max() < 0.05  # the standard error is 0.007 for the rarest answer

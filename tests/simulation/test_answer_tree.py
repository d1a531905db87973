"""The tree of prefixes against the theory's tree of one question, and against derivatives by the complex step."""

import numpy as np
import pytest

from grpo_dynamics.simulation.answer_tree import AnswerTree
from grpo_dynamics.theory.token_tree import TokenTree, answers, conditionals, success_advantage, success_gradient

QUESTIONS, SHAPE = 3, (2, 3, 2)


def random_tree(seed=0):
    rng = np.random.default_rng(seed)
    reference = rng.dirichlet(np.ones(np.prod(SHAPE)), QUESTIONS).reshape(QUESTIONS, *SHAPE)
    correct = rng.random((QUESTIONS, *SHAPE)) < 0.4
    correct[:, 0, 0, 0], correct[:, 1, 1, 1] = True, False
    return AnswerTree.full(reference, correct), reference, correct


def uneven_tree():
    """Answers of 1 to 3 tokens: 0, 1-0, 1-1-0, 1-1-2, with the last two behind a common prefix."""
    tokens = [[0, -1, -1], [1, 0, -1], [1, 1, 0], [1, 1, 2]]
    return AnswerTree([[0.1, 0.2, 0.3, 0.4]], [[True, False, True, False]], tokens)


def table(levels):
    return np.concatenate([x.reshape(-1) for x in levels])


def test_edges_are_the_conditionals_of_the_theory():
    tree, reference, _ = random_tree()
    for q in range(QUESTIONS):
        np.testing.assert_allclose(tree.log_reference[q], table(conditionals(reference[q])), rtol=1e-12)
    whole = np.exp(tree.answers_of(tree.log_reference)).reshape(reference.shape)
    np.testing.assert_allclose(whole, [answers(conditionals(x)) for x in reference], rtol=1e-12)


def test_the_gradient_of_the_expected_reward_is_the_theory_s():
    tree, reference, correct = random_tree()
    other = np.random.default_rng(1).dirichlet(np.ones(12), QUESTIONS)
    policy = tree.edges_of(other)
    found = tree.gradient(policy, tree.per_token(np.exp(tree.answers_of(policy)) * tree.correct))
    for q in range(QUESTIONS):
        one = TokenTree(reference[q], correct[q])
        levels = conditionals(other[q].reshape(SHAPE))
        np.testing.assert_allclose(found[q], table(success_gradient(one, levels)), rtol=1e-11, atol=1e-15)
        assert len(success_advantage(one, levels)) == 3


@pytest.mark.parametrize("tree", [random_tree()[0], uneven_tree()])
def test_the_gradient_is_the_derivative_through_the_softmax(tree):
    """Σ weights·log π of the tokens, differentiated by the complex step through a softmax written out here."""
    weights = np.random.default_rng(2).normal(size=(len(tree.reference), *tree.inside.shape)) * tree.inside
    logits = np.random.default_rng(3).normal(size=tree.log_reference.shape)
    found = tree.gradient(tree.normalize(logits), weights)

    def value(theta):
        total = 0
        for k, length in enumerate(tree.lengths):
            for t in range(length):
                siblings = tree.source == tree.prefix[k, t]
                log_probability = theta[:, tree.edge[k, t]] - np.log(np.exp(theta[:, siblings]).sum(axis=1))
                total = total + weights[:, k, t] * log_probability
        return total

    for e in range(logits.shape[1]):
        shifted = logits.astype(complex)
        shifted[:, e] += 1e-30j
        np.testing.assert_allclose(found[:, e], value(shifted).imag / 1e-30, rtol=1e-10, atol=1e-12)


def test_normalizing_survives_logits_far_apart_and_keeps_each_prefix_at_one():
    tree = uneven_tree()
    logits = np.array([[900.0, -900.0, -2000.0, -2001.0, 3000.0, 3000.0]])
    policy = tree.normalize(logits)
    sums = [np.exp(policy[0, tree.source == s]).sum() for s in range(tree.prefixes)]
    np.testing.assert_allclose(sums, 1.0, rtol=1e-12)
    assert np.isfinite(policy).all()


def test_answers_of_uneven_length():
    tree = uneven_tree()
    assert tree.lengths.tolist() == [1, 2, 3, 3]
    assert tree.prefixes == 3
    np.testing.assert_allclose(np.exp(tree.log_reference), [[0.1, 0.9, 2 / 9, 7 / 9, 3 / 7, 4 / 7]], rtol=1e-12)
    np.testing.assert_allclose(np.exp(tree.answers_of(tree.log_reference)), tree.reference, rtol=1e-12)
    np.testing.assert_array_equal(tree.rewards[0], [[1, 0, 0], [0, 0, 0], [0, 0, 1], [0, 0, 0]])


def test_a_chain_is_decided_by_its_first_token():
    tree = AnswerTree.chains([[0.2, 0.3, 0.5]], [[True, False, False]], [1, 3, 2])
    np.testing.assert_allclose(np.exp(tree.log_reference[0]), [0.2, 0.3, 0.5, 1, 1, 1], rtol=1e-12)
    weights = np.ones((1, 3, 3))
    weights[:, :, 0] = 0.0  # what stands on the later tokens moves nothing
    assert not tree.gradient(tree.log_reference, weights).any()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (([[0.5, 0.5]], [[True, True]], [[0], [1]]), "correct must leave"),
        (([[0.5, -0.5]], [[True, False]], [[0], [1]]), "reference .*-0.5"),
        (([[0.5, 0.5]], [[1, 0]], [[0], [1]]), "correct must be true or false"),
        (([[0.5, 0.5]], [[True, False]], [[0, -1], [0, 1]]), "tokens must tell the answers apart"),
        (([[0.5, 0.5]], [[True, False]], [[0], [0]]), "tokens must tell the answers apart"),
        (([[0.5, 0.5]], [[True, False]], [[-1, 0], [1, 1]]), "at least one token"),
        (([[0.5, 0.5]], [[True, False]], np.zeros((2, 0), int)), "at least one token"),
        (([[0.5, 0.5]], [[True, False]], [[0], [1]], [[[1.0], [np.nan]]]), "step_rewards must end a step"),
        (([[0.5, 0.5]], [[True, False]], [[0], [1]], [[1.0, 0.0]]), "step_rewards must have shape"),
    ],
)
def test_wrong_trees_are_named(arguments, named):
    with pytest.raises(ValueError, match=named):
        AnswerTree(*arguments)


def test_torch_tensors_give_the_same():
    torch = pytest.importorskip("torch")
    tree, _, _ = random_tree()
    twin = AnswerTree(torch.tensor(tree.reference), torch.tensor(tree.correct), tree.tokens)
    weights = np.random.default_rng(4).normal(size=(QUESTIONS, *tree.inside.shape))
    np.testing.assert_allclose(twin.log_reference.numpy(), tree.log_reference, rtol=1e-12)
    found = twin.gradient(twin.log_reference, torch.tensor(weights))
    np.testing.assert_allclose(found.numpy(), tree.gradient(tree.log_reference, weights), rtol=1e-12, atol=1e-14)


def test_full_trees_need_a_vocabulary():
    with pytest.raises(ValueError, match="reference must have shape"):
        AnswerTree.full([0.5, 0.5], [True, False])
    with pytest.raises(ValueError, match=r"correct must have shape \(1, 2\), got \(2,\)"):
        AnswerTree.full([[0.5, 0.5]], [True, False])

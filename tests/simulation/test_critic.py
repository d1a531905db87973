"""Critics: what they should say by brute force, and which of them leave the expected gradient alone.

The true gradient of the success probability on the logits of every prefix is the one of the theory's token tree, which
knows nothing of advantages.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grpo_dynamics.advantages import gae, returns
from grpo_dynamics.simulation.answer_tree import AnswerTree
from grpo_dynamics.simulation.critic import VIEWS, Critic, gradient_variance, lag
from grpo_dynamics.theory.token_tree import TokenTree, conditionals, log_chances, success_gradient
from tests.simulation.test_answer_tree import QUESTIONS, SHAPE, random_tree, table, uneven_tree


def policy_and_truth(seed=1):
    tree, reference, correct = random_tree()
    shares = np.random.default_rng(seed).dirichlet(np.ones(12), QUESTIONS)
    truth = [
        table(success_gradient(TokenTree(a, b), conditionals(c.reshape(SHAPE))))
        for a, b, c in zip(reference, correct, shares, strict=True)
    ]
    return tree, shares, np.array(truth)


def expected_gradient(tree, shares, values, gae_lambda, gamma=1.0):
    advantages = gae(tree.rewards, values, gae_lambda, gamma)
    return tree.gradient(tree.edges_of(shares), shares[:, :, None] * advantages * tree.inside)


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_at_lambda_one_any_critic_gives_the_gradient_of_p(view, seed):
    tree, shares, truth = policy_and_truth(seed)
    critic = Critic(tree, view)
    nonsense = np.random.default_rng(seed).normal(scale=3.0, size=critic.untrained.shape)
    found = expected_gradient(tree, shares, critic.of_tokens(nonsense), gae_lambda=1.0)
    np.testing.assert_allclose(found, truth, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("gae_lambda", [0.0, 0.3, 0.95, 1.0])
def test_the_exact_critic_of_prefixes_gives_it_at_every_lambda(gae_lambda):
    tree, shares, truth = policy_and_truth()
    critic = Critic(tree, "prefix")
    values = critic.of_tokens(critic.exact(shares, tree.rewards))
    np.testing.assert_allclose(expected_gradient(tree, shares, values, gae_lambda), truth, rtol=1e-9, atol=1e-12)


def test_below_lambda_one_a_critic_that_does_not_see_the_prefix_does_not():
    tree, shares, truth = policy_and_truth()
    for view in ("position", "question"):
        critic = Critic(tree, view)
        values = critic.of_tokens(critic.exact(shares, tree.rewards))
        assert np.abs(expected_gradient(tree, shares, values, 0.5) - truth).max() > 0.01


def test_the_exact_values_of_prefixes_are_their_chances_of_success():
    tree, shares, _ = policy_and_truth()
    values = Critic(tree, "prefix").exact(shares, tree.rewards)
    for q in range(QUESTIONS):
        levels = conditionals(shares[q].reshape(SHAPE))
        chances = [np.exp(right) for right, _ in log_chances(levels, tree.correct[q].reshape(SHAPE))]
        root = np.sum(np.exp(levels[0]) * chances[0])
        np.testing.assert_allclose(values[q], table([np.array(root), *chances[:-1]]), rtol=1e-11)


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("gamma", [1.0, 0.7])
def test_the_exact_table_has_the_least_squared_error(view, gamma):
    """Against a least-squares solver that gets one row per token."""
    tree = uneven_tree()
    critic = Critic(tree, view)
    found = critic.exact(tree.reference, tree.rewards, gamma)[0]
    inside = tree.inside
    seen = {"prefix": tree.prefix, "position": np.tile(np.arange(3), (4, 1)), "question": np.zeros((4, 3), int)}[view]
    weight = np.broadcast_to(tree.reference[0][:, None], (4, 3))
    weight = weight / tree.lengths[:, None] if view == "question" else weight
    rows = np.eye(len(found))[seen[inside]] * np.sqrt(weight[inside])[:, None]
    target = returns(tree.rewards, gamma)[0][inside] * np.sqrt(weight[inside])
    np.testing.assert_allclose(found, np.linalg.lstsq(rows, target)[0], rtol=1e-11)


@pytest.mark.parametrize("view", VIEWS)
def test_learning_is_a_gradient_step_on_half_the_squared_error(view):
    tree = uneven_tree()
    critic = Critic(tree, view)
    rng = np.random.default_rng(5)
    values, targets = rng.normal(size=critic.untrained.shape), rng.normal(size=(1, 4, 3))
    over = tree.lengths[:, None] if view == "question" else 1

    def loss(x):
        error = (targets - critic.of_tokens(x)) ** 2 * tree.inside * tree.reference[:, :, None] / over
        return 0.5 * error.sum()

    units = np.eye(values.size).reshape(-1, *values.shape)
    slope = [(loss(values + 1e-6 * u) - loss(values - 1e-6 * u)) / 2e-6 for u in units]
    moved = critic.learn(values, tree.reference, targets, 0.25)
    np.testing.assert_allclose((moved - values).reshape(-1), -0.25 * np.array(slope), atol=1e-8)


def test_a_rate_of_one_learns_the_mean_of_the_question_at_once():
    tree = AnswerTree.chains([[0.2, 0.8]], [[True, False]], [1, 3])
    for view in VIEWS:
        critic = Critic(tree, view)
        learned = critic.learn(critic.untrained, tree.reference, returns(tree.rewards), 1.0)
        assert learned[0, 0] == pytest.approx(0.2, rel=1e-12)


@given(st.floats(0.0, 1.0), st.floats(-2.0, 2.0))
def test_the_variance_of_the_gradient_by_listing_both_answers(p, value):
    chances, gradients = np.array([p, 1 - p]), np.array([(1 - value) * (1 - p), (0 - value) * (0 - p)])
    mean = chances @ gradients
    assert mean == pytest.approx(p * (1 - p), abs=1e-12)  # for every value: the critic is no bias
    assert gradient_variance(p, value) == pytest.approx(chances @ (gradients - mean) ** 2, abs=1e-12)


def test_the_variances_of_the_documentation():
    p = np.linspace(0.05, 0.95, 19)
    np.testing.assert_allclose(gradient_variance(p, p), p * (1 - p) * (1 - 2 * p) ** 2, atol=1e-15)
    np.testing.assert_allclose(gradient_variance(p, 0.0), p * (1 - p) ** 3, atol=1e-15)
    assert not gradient_variance(p, 1 - p).any()
    # |1 − 2p| < 1 − p only for p < 2/3: on easier questions the exact critic is noisier than none
    assert (gradient_variance(p, p) < gradient_variance(p, 0.0))[p < 2 / 3 - 1e-9].all()
    assert (gradient_variance(p, p) > gradient_variance(p, 0.0))[p > 2 / 3 + 1e-9].all()


def test_a_critic_stays_behind_a_steady_rise_by_rise_over_rate():
    rise = 1e-4 * np.arange(5000)
    assert (rise - lag(rise, rate=0.05))[-1] == pytest.approx(1e-4 / 0.05, rel=1e-9)
    closed = [sum(0.05 * 0.95 ** (n - 1 - j) * rise[j] for j in range(n)) for n in (1, 10, 100)]
    np.testing.assert_allclose(lag(rise, 0.05)[[1, 10, 100]], closed, rtol=1e-10)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: Critic(uneven_tree(), "token"), "view .*'token'"),
        (lambda: lag(np.ones(3), 0.0), "rate .*0.0"),
        (lambda: lag([], 0.5), r"success must have the shape \(steps, \.\.\.\)"),
        (lambda: gradient_variance(1.5, 0.0), "p .*1.5"),
    ],
)
def test_wrong_arguments_are_named(call, named):
    with pytest.raises(ValueError, match=named):
        call()

"""Sampled groups: their mean is the exact expectation, and long training ends where the flow says."""

import itertools

import numpy as np
import pytest

import grpo_dynamics as gd
from grpo_dynamics.simulation.outcomes import Outcomes
from grpo_dynamics.simulation.policies import normalize
from grpo_dynamics.simulation.sampled import advantages, batch_of
from grpo_dynamics.simulation.sampling import Groups
from grpo_dynamics.simulation.tabular import simulate
from grpo_dynamics.update_rule import Training
from tests.simulation.sampled_study import study

RUNS = 20_000
POLICY = np.log([[0.1, 0.2, 0.3, 0.4]])
QUESTIONS = Outcomes(
    np.broadcast_to(np.log([0.3, 0.2, 0.1, 0.4]), (RUNS, 4)), np.broadcast_to([True, False, False, True], (RUNS, 4))
)

DEPARTURES = {
    "group": {"normalization": gd.FiniteGroup(4, eps=0.1, ddof=1)},
    "mean of the group": {"normalization": gd.MeanOnly(group_size=4)},
    "exact statistics": {"normalization": gd.Whitened(), "group_size": 4},
    "leave one out": {"normalization": gd.MeanOnly(), "group_size": 4, "advantage": "rloo"},
    "bare reward": {"normalization": gd.MeanOnly(), "group_size": 4, "advantage": "reinforce"},
    "critic": {"normalization": gd.MeanOnly(), "group_size": 4, "advantage": "critic", "critic_rate": 0.1},
    "dynamic sampling": {"normalization": gd.FiniteGroup(4, silent_groups="drop"), "kl": "k3"},
    "k1": {"normalization": gd.FiniteGroup(4), "kl": "k1"},
    "k2": {"normalization": gd.FiniteGroup(4), "kl": "k2", "alpha": 0.5},
    "k3": {"normalization": gd.FiniteGroup(4), "kl": "k3"},
    "k1 in the reward": {"normalization": gd.FiniteGroup(4), "kl": "k1_in_reward"},
    "verifier noise": {"normalization": gd.FiniteGroup(4), "false_positive": 0.1, "false_negative": 0.2},
    "more groups": {"normalization": gd.FiniteGroup(4), "groups": 3},
    "natural": {"normalization": gd.FiniteGroup(4), "natural": True},
}


@pytest.mark.parametrize("name", DEPARTURES)
def test_the_mean_step_is_the_step_of_exact_expectations(name):
    """The gradient is linear in the counts, so its mean over runs is exact: within five standard errors of it."""
    options = DEPARTURES[name]
    expectation = {k: v for k, v in options.items() if k not in ("group_size", "groups", "advantage", "critic_rate")}
    start = np.broadcast_to(POLICY, (RUNS, 4))

    def moved(**more):
        change = simulate(QUESTIONS, Training(learning_rate=1e-3, **more), 1, seed=1, start=start).log_policy - POLICY
        return change[:, 1:] - change[:, :1]

    sampled, expected = moved(update="sampled", **options), moved(update="gradient", **expectation)
    error = sampled.std(axis=0) / np.sqrt(RUNS)
    assert np.all(error > 0)
    np.testing.assert_array_less(np.abs(sampled.mean(axis=0) - expected[0]), 5 * error)


def test_advantages_are_those_of_the_listed_rewards():
    rewards = np.array(list(itertools.product([0.0, 1.0], repeat=4)))
    counts = rewards.sum(axis=1)[None, :, None]
    groups = Groups(counts, 4 - counts)
    std = rewards.std(axis=1)
    silent = std == 0
    whitened = (rewards - rewards.mean(axis=1, keepdims=True)) / np.where(silent, 1, std)[:, None]
    others = (rewards.sum(axis=1, keepdims=True) - rewards) / 3
    wanted = {
        ("group", gd.FiniteGroup(4)): whitened,
        ("group", gd.MeanOnly(group_size=4)): rewards - rewards.mean(axis=1, keepdims=True),
        ("rloo", gd.MeanOnly()): rewards - others,
        ("reinforce", gd.MeanOnly()): rewards,
    }
    for (kind, normalization), expected in wanted.items():
        training = Training(
            update="sampled", learning_rate=1.0, normalization=normalization, group_size=4, advantage=kind
        )
        positive, negative = advantages(groups, np.zeros(1), np.zeros(1), training)
        ours = np.where(rewards == 1, positive[0][:, None], negative[0][:, None])
        np.testing.assert_allclose(ours, expected, atol=1e-14)


def test_a_batch_from_counts_is_that_of_the_listed_samples():
    """Duplicates within a group are computed once: against a list of all samples, one by one."""
    rng = np.random.default_rng(0)
    training = Training(
        beta=0.5,
        alpha=0.6,
        update="sampled",
        learning_rate=1.0,
        normalization=gd.FiniteGroup(6),
        groups=5,
        kl="k1_in_reward",
    )
    reference, policy = normalize(rng.normal(size=(1, 4))), normalize(rng.normal(size=(1, 4)))
    drawn, judged = rng.integers(4, size=(5, 6)), rng.random((5, 6)) < 0.5
    marks = np.eye(4)[drawn]
    groups = Groups((marks * judged[..., None]).sum(1)[None], (marks * ~judged[..., None]).sum(1)[None])
    ours = batch_of(groups, *advantages(groups, np.zeros(1), np.zeros(1), training), policy, reference, training)
    push, pull = np.zeros(4), np.zeros(4)
    for answers, rewards in zip(drawn, judged.astype(float), strict=True):
        for answer, reward in zip(answers, rewards, strict=True):
            spread = rewards.std()
            advantage = (reward - rewards.mean()) / spread if spread > 0 else 0.0
            advantage -= 0.5 * 0.6 * (policy - reference)[0, answer]
            push[answer] += max(advantage, 0) / 30
            pull[answer] += min(advantage, 0) / 30
    np.testing.assert_allclose(ours.push[0], push, atol=1e-14)
    np.testing.assert_allclose(ours.pull[0], pull, atol=1e-14)
    np.testing.assert_allclose(ours.share[0], marks.mean(axis=(0, 1)), atol=1e-15)


def test_random_settings_against_the_flow():
    """A small part of the study of 200 settings: scores like those of a standard normal, and never exactly right."""
    deviations, errors = study(10, seed=1, runs=64)
    assert np.all(np.abs(deviations) <= 3.5 * errors)
    assert np.mean(np.abs(deviations) > 1e-9) == 1
    assert np.all(errors < 0.01)


def test_the_study_can_fail():
    """Against the prediction for another KL term the same comparison is tens of standard errors off."""
    from tests.simulation.sampled_study import Setting, compare

    training = Training(
        beta=1.0, update="sampled", learning_rate=0.02, normalization=gd.FiniteGroup(8), groups=8, kl="k3"
    )
    right, wrong = (
        compare(Setting(training, gd.Flow(1.0, 0.1, gd.FiniteGroup(8), kl=kl), 1, 1, 400), seed=0)
        for kl in ("k3", "exact")
    )
    assert abs(right[0]) < 3.5 * right[1]
    assert abs(wrong[0]) > 20 * wrong[1]


@pytest.mark.parametrize(("kl", "predicted"), [("k2", 0.41953), ("k3", 0.55959)])
def test_where_training_ends(kl, predicted):
    """theory.md, section 5: p_ref = 0.1, β = 1, groups of 8. The mean over the last steps of 100 runs, whose bias is
    of the order of the learning rate."""
    questions = Outcomes.uniform(np.full(100, 0.1), 3, 7)
    training = Training(1.0, gd.FiniteGroup(8), update="sampled", learning_rate=0.1, groups=8, kl=kl)
    end = simulate(questions, training, 800)
    runs = end.p[500:].mean(axis=0)
    assert abs(runs.mean() - predicted) < 0.003
    assert gd.fixed_points(gd.Flow(1.0, 0.1, gd.FiniteGroup(8), kl=kl)).p[0] == pytest.approx(predicted, abs=5e-6)


def test_the_critic_learns_the_success_probability():
    """Rate 1/(n+1) would give the mean of all groups; a constant small rate forgets its start at 0 as (1−rate)^n."""
    questions = Outcomes.uniform(np.full(2000, 0.3))
    options = {"normalization": gd.MeanOnly(), "group_size": 8, "advantage": "critic", "critic_rate": 0.1}
    training = Training(update="sampled", learning_rate=1e-9, **options)
    values = simulate(questions, training, 20).state.values
    assert abs(values.mean() - 0.3 * (1 - 0.9**20)) < 5 * values.std() / np.sqrt(2000)
    assert simulate(questions, training, 0).state.values.max() == 0

"""Token-by-token training against the theory: flows step by step, points of rest, closed forms, and noise.

With one right and one wrong answer of one token, plain gradient steps of rate η move the log-odds by 2η times the rate
of the flow: the two logits move by ±η·rate. That is Euler's method on gd.Flow, and must hold to rounding.
"""

import dataclasses

import numpy as np
import pytest

import grpo_dynamics as gd
from grpo_dynamics.simulation.answer_tree import AnswerTree
from grpo_dynamics.simulation.critic import gradient_variance, lag
from grpo_dynamics.simulation.token_simulation import TokenState, simulate_tokens
from grpo_dynamics.simulation.token_training import TokenTraining
from grpo_dynamics.theory.token_tree import TokenTree

P_REF = np.array([0.03, 0.2, 0.5, 0.9])
MEAN_ONLY = ["exact_critic", "critic", "rloo", "reinforce", "running_mean", "dr_grpo"]


def bandit(p_ref=P_REF, lengths=(1, 1)):
    p_ref = np.asarray(p_ref, float)
    reference = np.stack([p_ref, 1 - p_ref], axis=1)
    return AnswerTree.chains(reference, np.broadcast_to([True, False], reference.shape), lengths)


def training(advantage, **options):
    if advantage in ("critic", "running_mean"):
        options.setdefault("critic_rate", 0.1)
    return TokenTraining(**{"learning_rate": 0.05, "advantage": advantage, **options})


def euler(flow, log_odds, rate, steps):
    path = [log_odds]
    for _ in range(steps):
        path.append(path[-1] + 2 * rate * flow.rate(path[-1]))
    return np.array(path)


@pytest.mark.parametrize("advantage", MEAN_ONLY)
@pytest.mark.parametrize("kl", ["exact", "k1_in_reward", "k3", "none"])
def test_every_baseline_gives_the_flow_of_mean_only(advantage, kl):
    beta = 0.0 if kl == "none" else 0.4
    found = simulate_tokens(bandit(), training(advantage, kl=kl, beta=beta), steps=300)
    flow = gd.Flow(beta, P_REF, gd.MeanOnly(), kl=kl)
    np.testing.assert_allclose(found.log_odds, euler(flow, gd.logit(P_REF), 0.05, 300), rtol=0, atol=1e-11)


@pytest.mark.parametrize("placement", ["std", "variance"])
def test_grpo_beside_them_gives_the_flow_of_whitened(placement):
    options = {"eps": 1e-3, "eps_placement": placement, "kl": "k3", "beta": 0.4}
    found = simulate_tokens(bandit(), training("grpo", **options), steps=300)
    flow = gd.Flow(0.4, P_REF, gd.Whitened(1e-3, placement), kl="k3")
    np.testing.assert_allclose(found.log_odds, euler(flow, gd.logit(P_REF), 0.05, 300), rtol=0, atol=1e-11)


@pytest.mark.parametrize("advantage", [*MEAN_ONLY, "grpo"])
def test_inner_steps_without_end_give_the_recursion(advantage):
    """With exact expectations the ratio times the old policy is the policy: μ → ∞ maximises the step's objective."""
    smoothing = {"eps": 0.01, "eps_placement": "variance"} if advantage == "grpo" else {}
    options = training(advantage, kl="exact", beta=2.0, inner_steps=400, learning_rate=1.0, **smoothing)
    p_ref = P_REF[:3]  # from .9 GRPO goes to .999, where plain gradient steps are slow
    found = simulate_tokens(bandit(p_ref), options, steps=4)
    recursion = gd.grpo(2.0, p_ref, eps=0.01) if advantage == "grpo" else gd.dr_grpo(2.0, p_ref)
    np.testing.assert_allclose(found.log_odds, recursion.iterate(4).log_odds, rtol=0, atol=1e-9)


@pytest.mark.parametrize("advantage", [*MEAN_ONLY, "grpo"])
@pytest.mark.parametrize("kl", ["exact", "k1_in_reward", "k3"])
def test_answers_of_several_tokens_rest_where_the_theory_of_sequences_says(advantage, kl):
    reference = np.array([[0.1, 0.2, 0.15], [0.25, 0.2, 0.1]])
    correct = np.array([[1, 0, 0], [0, 1, 0]], bool)
    tree = AnswerTree.full(reference[None], correct[None])
    normalization = gd.Whitened(0.2, "std") if advantage == "grpo" else gd.MeanOnly()
    smoothing = {"eps": 0.2} if advantage == "grpo" else {}
    rest = gd.stationary(TokenTree(reference, correct), 0.7, normalization, kl=kl, level="token")
    found = simulate_tokens(
        tree, training(advantage, kl=kl, beta=0.7, learning_rate=2.0, **smoothing), 500, record_every=500
    )
    np.testing.assert_allclose(found.p[-1], np.atleast_1d(rest.p)[0], rtol=1e-8)
    if kl != "k3":  # the exact KL of whole answers: the paper's L_ref + Ω/β
        log_odds, ahead = found.log_odds[-1], gd.logit(tree.p_ref)
        np.testing.assert_allclose(log_odds, ahead + normalization.gap(log_odds) / 0.7, rtol=1e-8)


def long_and_short():
    """Right answers of 1 and 6 tokens, wrong ones of 2 and 4, decided by the first token."""
    return AnswerTree.chains([[0.15, 0.25, 0.35, 0.25]], [[True, True, False, False]], [1, 6, 2, 4])


DISCOUNTED = {"kl": "exact", "beta": 0.5, "learning_rate": 1.0, "gae_lambda": 0.8, "critic_rate": 0.0}


@pytest.mark.parametrize("gamma", [1.0, 0.9])
def test_an_untrained_critic_pays_right_answers_by_their_length(gamma):
    """V = 0 leaves (γλ)^(|o|−1)·r to the first token: π ∝ π_ref·exp((γλ)^(|o|−1) r/β)."""
    tree = long_and_short()
    worth = np.where(tree.correct, (0.8 * gamma) ** (tree.lengths - 1.0), 0.0)
    expected = tree.reference * np.exp(worth / 0.5)
    found = simulate_tokens(tree, training("critic", gamma=gamma, **DISCOUNTED), 1500, record_every=1500)
    answers = np.exp(tree.answers_of(found.state.log_policy))
    np.testing.assert_allclose(answers, expected / expected.sum(), rtol=1e-9)


def test_a_critic_of_prefixes_that_learns_pays_them_alike():
    tree = long_and_short()
    options = {**DISCOUNTED, "critic_rate": 0.5}
    found = simulate_tokens(tree, training("critic", **options), 1500, record_every=1500)
    assert found.log_odds[-1, 0] == pytest.approx(gd.logit(0.4) + 1 / 0.5, rel=1e-7)
    right = np.exp(tree.answers_of(found.state.log_policy))[0, :2]
    assert right[0] / right[1] == pytest.approx(0.15 / 0.25, rel=1e-7)


def test_a_critic_of_positions_does_not_see_who_is_right_and_leaves_the_discount():
    """Answers of 5 tokens: V = p at each position, all residuals but the last are 0, and A = λ⁴(r − p)."""
    options = {**DISCOUNTED, "view": "position"}
    options.pop("critic_rate")
    found = simulate_tokens(bandit(lengths=(5, 5)), training("exact_critic", **options), 1500, record_every=1500)
    np.testing.assert_allclose(found.log_odds[-1], gd.logit(P_REF) + 0.8**4 / 0.5, rtol=1e-8)
    options["view"] = "prefix"
    found = simulate_tokens(bandit(lengths=(5, 5)), training("exact_critic", **options), 1500, record_every=1500)
    np.testing.assert_allclose(found.log_odds[-1], gd.logit(P_REF) + 1 / 0.5, rtol=1e-8)


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.5])
def test_a_slow_critic_stays_behind_by_as_much_as_predicted(rate):
    found = simulate_tokens(bandit(), training("critic", critic_rate=rate, view="question"), steps=400)
    np.testing.assert_allclose(found.values, lag(found.p, rate), rtol=1e-10, atol=1e-14)
    speed = np.diff(found.p, axis=0)[-1]
    if rate == 0.5:  # fast against the change of p: behind by speed/rate
        np.testing.assert_allclose((found.p - found.values)[-1], speed / rate, rtol=0.05)


def test_what_the_critic_decides_is_the_noise():
    """One step from the reference: the move of the first logit has the variance of one sample over the samples."""
    p, copies, samples = 0.3, 20_000, 8
    tree = bandit(np.full(copies, p))
    table = np.zeros((copies, 1))
    for value in (0.0, p, 1 - p):
        state = TokenState(0, tree.log_reference, table + value, np.random.default_rng(7).bit_generator.state)
        options = training("running_mean", critic_rate=0.0, group_size=samples, learning_rate=1e-3)
        found = simulate_tokens(tree, options, steps=1, state=state)
        moves = (found.log_odds[1] - found.log_odds[0]) / 2e-3
        assert moves.mean() == pytest.approx(p * (1 - p), abs=5 * moves.std() / copies**0.5 + 1e-12)
        expected = float(gradient_variance(p, value)) / samples
        assert moves.var() == pytest.approx(expected, rel=0.08, abs=1e-12)


@pytest.mark.parametrize("advantage", ["rloo", "dr_grpo", "grpo", "critic", "reinforce"])
def test_sampled_groups_rest_where_the_matching_gap_says(advantage):
    """Groups of 4. The mean over copies is the flow's point of rest up to the step size: −7e-5 here (PPO is all but
    without noise near p = ½, and shows it)."""
    gap = {"dr_grpo": gd.MeanOnly(4), "grpo": gd.FiniteGroup(4)}.get(advantage, gd.MeanOnly())
    copies = 300
    tree = bandit(np.full(copies, 0.2))
    options = {"kl": "k3", "beta": 1.0, "group_size": 4, "groups": 8, "learning_rate": 0.05}
    found = simulate_tokens(tree, training(advantage, **options), steps=700, seed=3)
    means = found.p[300:].mean(axis=0)  # of each copy
    expected = gd.fixed_points(gd.Flow(1.0, 0.2, gap, kl="k3")).p[0]
    error = means.std(ddof=1) / copies**0.5
    assert abs(means.mean() - expected) < 4 * error + 1.5e-4
    others = [gd.fixed_points(gd.Flow(1.0, 0.2, other, kl="k3")).p[0] for other in (gd.MeanOnly(4), gd.FiniteGroup(4))]
    for other in others:
        if other != expected:  # the check can fail: the other gaps are far outside
            assert abs(means.mean() - other) > 10 * error + 1.5e-4


def test_process_rewards_make_long_right_answers_grow_and_outcome_rewards_do_not():
    """Each step of a right answer earns 1, of a wrong one 0. For Dr. GRPO the first token of an answer of n steps has
    the advantage n(r − μ), μ the mean over all steps; at rest π/π_ref ∝ exp(n(r − μ)/β)."""
    outcome = long_and_short()
    rewards = np.where(outcome.inside, outcome.correct[:, :, None] * 1.0, np.nan)
    process = AnswerTree(outcome.reference, outcome.correct, outcome.tokens, rewards)
    options = training("dr_grpo", kl="exact", beta=4.0, learning_rate=0.5)
    by_steps = dataclasses.replace(options, supervision="process")
    ends = [simulate_tokens(process, x, 1500, record_every=1500) for x in (by_steps, options)]
    by_process, by_outcome = (np.exp(outcome.answers_of(end.state.log_policy))[0] for end in ends)
    steps, right = outcome.lengths, outcome.correct[0]
    mean = by_process @ (steps * right) / (by_process @ steps)
    expected = outcome.reference[0] * np.exp(steps * (right - mean) / 4.0)
    np.testing.assert_allclose(by_process, expected / expected.sum(), rtol=1e-9)
    assert by_process[1] / by_process[0] > 1.2 * 0.25 / 0.15
    assert by_outcome[1] / by_outcome[0] == pytest.approx(0.25 / 0.15, rel=1e-9)
    assert ends[0].tokens[-1, 0] > ends[1].tokens[-1, 0]
    with pytest.raises(ValueError, match=r'supervision="process" means nothing without steps; .*"outcome"'):
        simulate_tokens(outcome, by_steps, 1)


def test_clipping_stops_the_inner_steps_at_the_range():
    """PPO's range on one batch: without it 500 inner steps run away, with it the ratio stops one step past 1.2."""
    tree = bandit([0.2])
    free = training("exact_critic", inner_steps=500, learning_rate=0.1)
    clipped = dataclasses.replace(free, clip_low=0.2, clip_high=0.2)
    ratios = [simulate_tokens(tree, x, steps=1).p[1, 0] / 0.2 for x in (free, clipped)]
    assert ratios[0] > 4
    # the wrong answer, from .8, may still fall until its own ratio is .8: p = 1 − .64
    assert 0.36 < ratios[1] * 0.2 < 0.37
    only_high = dataclasses.replace(free, clip_high=0.2)
    assert simulate_tokens(tree, only_high, steps=1).p[1, 0] > ratios[1] * 0.2


def test_open_reasoner_zero_is_mean_only_without_a_pull():
    """PPO, λ = γ = 1, clip range .2, no KL: on-policy every ratio is 1 and nothing is clipped, so Ω = 1 and p → 1."""
    options = training("critic", clip_low=0.2, clip_high=0.2)
    found = simulate_tokens(bandit(), options, steps=300)
    flow = gd.Flow(0.0, P_REF, gd.MeanOnly(), kl="none")
    np.testing.assert_allclose(found.log_odds, euler(flow, gd.logit(P_REF), 0.05, 300), rtol=0, atol=1e-11)
    free = simulate_tokens(bandit(), training("critic"), steps=300)
    np.testing.assert_array_equal(found.log_odds, free.log_odds)


@pytest.mark.parametrize("advantage", ["critic", "running_mean", "grpo", "rloo"])
def test_a_simulation_that_was_stopped_goes_on_bit_for_bit(advantage, tmp_path):
    tree, options = long_and_short(), training(advantage, group_size=4, groups=2, kl="k1_in_reward", beta=0.1)
    whole = simulate_tokens(tree, options, steps=20, seed=5)
    half = simulate_tokens(tree, options, steps=9, seed=5)
    half.state.save(tmp_path / "state.npz")
    rest = simulate_tokens(tree, options, steps=11, seed=99, state=TokenState.load(tmp_path / "state.npz"))
    np.testing.assert_array_equal(rest.log_odds[1:], whole.log_odds[10:])
    np.testing.assert_array_equal(rest.state.log_policy, whole.state.log_policy)
    np.testing.assert_array_equal(rest.state.values, whole.state.values)
    assert rest.steps.tolist() == list(range(9, 21))
    assert (simulate_tokens(tree, options, steps=20, seed=6).log_odds != whole.log_odds).any()


def test_records_are_thinned_and_a_start_is_taken():
    tree = bandit()
    every = simulate_tokens(tree, training("dr_grpo"), steps=7)
    some = simulate_tokens(tree, training("dr_grpo"), steps=7, record_every=3)
    assert some.steps.tolist() == [0, 3, 6, 7]
    np.testing.assert_array_equal(some.log_odds, every.log_odds[[0, 3, 6, 7]])
    elsewhere = simulate_tokens(tree, training("dr_grpo"), 0, start=[[0.5, 0.5]] * 4)
    np.testing.assert_allclose(elsewhere.log_odds, 0.0, atol=1e-15)


def test_torch_tensors_give_the_same_path():
    torch = pytest.importorskip("torch")
    tree = long_and_short()
    twin = AnswerTree(torch.tensor(tree.reference), torch.tensor(tree.correct), tree.tokens)
    for advantage in ("grpo", "critic", "rloo"):
        options = training(advantage, kl="k3", beta=0.3)
        found, expected = simulate_tokens(twin, options, 20), simulate_tokens(tree, options, 20)
        np.testing.assert_allclose(found.log_odds.numpy(), expected.log_odds, rtol=1e-11)
    sampled = simulate_tokens(twin, training("grpo", group_size=4), 5)
    assert isinstance(sampled.log_odds, torch.Tensor)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"learning_rate": 0.0}, "learning_rate .*0.0"),
        ({"advantage": "ppo"}, "advantage .*'ppo'"),
        ({"beta": 0.1}, 'beta must be 0 with kl="none"'),
        ({"kl": "k3"}, "beta .*> 0"),
        ({"advantage": "rloo", "gamma": 0.9}, "gamma=0.9 means nothing .*'rloo'.*'exact_critic'"),
        ({"advantage": "rloo", "ddof": 1}, "ddof=1 means nothing .*'grpo'"),
        ({"advantage": "grpo", "view": "position"}, "view='position' means nothing"),
        ({"advantage": "critic"}, "critic_rate is missing"),
        ({"advantage": "critic", "critic_rate": 1.5}, "critic_rate .*1.5"),
        ({"groups": 2}, "groups=2 means nothing without groups"),
        ({"group_size": 1}, "group_size .*1"),
        ({"inner_steps": 0}, "inner_steps .*0"),
        ({"clip_low": 1.5}, "clip_low .*1.5"),
    ],
)
def test_combinations_that_mean_nothing_are_named(options, named):
    with pytest.raises(ValueError, match=named):
        TokenTraining(**{"learning_rate": 0.1, "advantage": "exact_critic", **options})


def test_wrong_runs_are_named():
    tree, options = bandit(), training("dr_grpo")
    with pytest.raises(ValueError, match=r"steps .*-1"):
        simulate_tokens(tree, options, -1)
    with pytest.raises(ValueError, match=r"record_every .*0"):
        simulate_tokens(tree, options, 1, record_every=0)
    with pytest.raises(ValueError, match="state must be of a tree"):
        simulate_tokens(tree, options, 1, state=simulate_tokens(long_and_short(), options, 1).state)
    several = long_and_short()
    critic = simulate_tokens(several, training("critic"), 1).state
    with pytest.raises(ValueError, match="state must be of a tree, questions and a critic"):
        simulate_tokens(several, options, 1, state=critic)
    with pytest.raises(FloatingPointError, match=r"question 0 .*smaller learning_rate"):
        simulate_tokens(tree, training("dr_grpo", learning_rate=1e308, kl="k3", beta=1e3), 5)
    with pytest.raises(ValueError, match="saved state"):
        TokenState.load("nowhere.npz")


def test_a_torn_state_is_refused(tmp_path):
    tree = long_and_short()
    file = tmp_path / "state.npz"
    simulate_tokens(tree, training("dr_grpo"), 1).state.save(file)
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(ValueError, match="path must be a saved state"):
        TokenState.load(file)

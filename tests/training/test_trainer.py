"""Algorithm 1 on a language model: its argmin is the recursion, its steps are gradients, nothing is wasted."""

import json
import math

import numpy as np
import polars as pl
import pytest
import torch

import grpo_dynamics as gd
from grpo_dynamics.logodds import sigmoid
from grpo_dynamics.training.arm import prepare
from grpo_dynamics.training.policies import load_policy, next_log_probs, right_completions
from grpo_dynamics.training.runs import train
from grpo_dynamics.training.steps import expectation
from grpo_dynamics.training.steps.drawing import batch_of, draw
from grpo_dynamics.training.steps.gradient_step import gradient_step, log_probs_of, require_log_old
from grpo_dynamics.training.tasks import make_task
from grpo_dynamics.training.trainer import all_answers
from tests.training.tiny import SAMPLED, tiny_config, tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.set_num_threads(1)
    return tiny_model(tmp_path_factory.mktemp("model"))


def by_iteration(folder):
    table = pl.read_parquet(folder / "success.parquet")
    return np.stack([part["log_odds"].to_numpy() for part in table.partition_by("iteration", maintain_order=True)])


@pytest.mark.parametrize("alpha", [1.0, 0.5])
def test_the_argmin_of_a_language_model_is_the_recursion(model, tmp_path, alpha):
    config = tiny_config(model, training={"beta": 2.0, "alpha": alpha}, iterations=2)
    manifest = train(config, tmp_path / "arm")
    log_odds = by_iteration(tmp_path / "arm")
    predicted = gd.Recursion(beta=2.0, p_ref=sigmoid(log_odds[0]), alpha=alpha).iterate(2).p
    # Pinsker: a tolerance of 1e-4 nats allows √(1e-4/2) = 0.007 in one step
    assert np.abs(sigmoid(log_odds) - predicted).max() < 0.02
    steps = pl.read_parquet(tmp_path / "arm" / "steps.parquet")
    last = steps.group_by("iteration", maintain_order=True).last()
    assert last["converged"].all()
    assert (last["worst_kl"] <= 1e-4).all()
    success = pl.read_parquet(tmp_path / "arm" / "success.parquet").filter(pl.col("iteration") > 0)
    optimum = sigmoid(success["log_odds_optimum"].to_numpy())
    assert (np.abs(success["p"].to_numpy() - optimum) <= np.sqrt(success["gap"].to_numpy() / 2 / 2) + 1e-9).all()
    assert manifest["status"] == "finished"
    assert manifest["tables"]["success.parquet"]["rows"] == 3 * 8


def test_an_inner_loop_that_does_not_get_there_says_so(model, tmp_path):
    optimization = {"learning_rate": 1e-4, "inner_tolerance": 1e-6, "max_inner_steps": 5}
    train(tiny_config(model, optimization=optimization, iterations=1), tmp_path / "arm")
    steps = pl.read_parquet(tmp_path / "arm" / "steps.parquet")
    assert steps["converged"].to_list() == [None] * 5 + [False]
    assert steps["worst_kl"][-1] > 1e-6


def test_the_argmin_of_sampled_groups_follows_the_finite_group(model, tmp_path):
    normalization = {"kind": "finite_group", "group_size": 4, "eps": 0.0}
    training = {"update": "sampled", "beta": 2.0, "groups": 400, "normalization": normalization}
    optimization = {"learning_rate": 0.01, "max_grad_norm": 1.0, "inner_tolerance": 1e-4, "round_steps": 100}
    config = tiny_config(model, training=training, optimization=optimization, iterations=1)
    train(config, tmp_path / "arm")
    start, end = by_iteration(tmp_path / "arm")
    predicted = sigmoid(
        gd.Recursion(beta=2.0, p_ref=sigmoid(start), normalization=gd.FiniteGroup(4, eps=0.0)).step(start)
    )
    # 1600 answers a question: the rate of a right answer at p = 0.05 is known to 11 %, and moves p by a tenth of Ω/β
    assert np.median(np.abs(sigmoid(end) - predicted)) < 0.02


def test_a_step_on_all_answers_is_the_gradient_of_the_exact_objective(model):
    # one step of plain gradient ascent: the loss that trainers code, over all answers weighted with π_old, against
    # autograd through J itself; both divided by the number of questions
    training = {"update": "gradient", "beta": 0.7, "normalization": {"kind": "whitened"}, "kl": "exact"}
    optimization = {"learning_rate": 1e-3, "optimizer": "sgd"}
    arm = prepare(tiny_config(model, training=training, optimization=optimization), model)
    with torch.no_grad():  # away from π_ref, where the KL term has no gradient
        for parameter in arm.ascent.parameters:
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    batch = all_answers(arm)
    log_policy = arm.measure.tree.log_probs(arm.model)
    with arm.at_reference():
        log_ref = arm.measure.tree.log_probs(arm.model)
    log_old = log_policy.detach()
    advantages = expectation.expected_advantages(log_old, arm.measure.right, arm.training)
    objective = expectation.Objective(advantages, log_ref, log_old, 0.7)
    expected = torch.autograd.grad(objective.value(log_policy).mean(), arm.ascent.parameters)
    before = arm.ascent.weights()
    gradient_step(arm, batch, 1e-3)
    for old, new, grad in zip(before, arm.ascent.weights(), expected, strict=True):
        assert torch.allclose((new - old) / 1e-3, grad, atol=2e-4, rtol=2e-3)


@pytest.mark.parametrize(("kl", "alpha"), [("k3", 1.0), ("exact", 0.5), ("k1_in_reward", 1.0)])
def test_micro_batches_add_up_to_the_batch(model, kl, alpha):
    def gradient(size):
        training = SAMPLED["training"] | {"kl": kl, "alpha": alpha, "clip_high": 0.2, "clip_low": 0.2, "inner_steps": 2}
        optimization = {"learning_rate": 0.05, "optimizer": "sgd"} | ({"micro_batch_size": size} if size else {})
        arm = prepare(tiny_config(model, training=training, optimization=optimization), model)
        batch = batch_of(arm, draw(arm, 1, 1, arm.own))
        if kl == "k1_in_reward":
            require_log_old(arm, [batch])
        found = [gradient_step(arm, batch, 0.05) for _ in range(2)]
        return torch.cat([weights.flatten() for weights in arm.ascent.weights()]), found

    whole, metrics = gradient(None)
    for size in (7,):
        parts, seen = gradient(size)
        assert torch.allclose(whole, parts, atol=1e-5)
        for one, other in zip(metrics, seen, strict=True):
            assert one["loss"] == pytest.approx(other["loss"], abs=1e-5)
            assert one["mean_ratio"] == pytest.approx(other["mean_ratio"], abs=1e-5)


def test_on_policy_no_pass_is_made_twice(model, monkeypatch):
    # π_old's log-probabilities are those of the first pass, π_ref's are kept over the μ steps: 1 + μ passes in all
    training = SAMPLED["training"] | {"inner_steps": 3}
    arm = prepare(tiny_config(model, **SAMPLED | {"training": training}), model)
    passes = []
    hook = arm.model.register_forward_hook(lambda *_: passes.append(1))
    drawn = draw(arm, 1, 1, arm.own)
    assert len(passes) == 1  # one-token answers: one pass for all groups of all questions
    batch = batch_of(arm, drawn)
    passes.clear()
    for _ in range(3):
        gradient_step(arm, batch, 0.01)
    hook.remove()
    assert len(passes) == 1 + 3
    assert len(batch.completions) == len(
        {(q, *ids) for q, ids in zip(batch.owner.tolist(), batch.completions.tolist(), strict=True)}
    )
    assert int(batch.weights.sum()) == 8 * 8
    assert len(batch.completions) < 8 * 8


def test_silent_groups_cost_nothing_without_a_kl_term(model):
    training = SAMPLED["training"] | {"kl": "none", "beta": 0.0, "groups": 1}
    arm = prepare(tiny_config(model, **SAMPLED | {"training": training}), model)
    drawn = draw(arm, 1, 1, arm.own)
    batch = batch_of(arm, drawn)
    mixed = [q for q in range(8) if not drawn.quiet[q].any()]
    assert 0 < len(mixed) < 8
    assert len(batch.prompts) == len(mixed)  # the others are not even read
    assert batch.divisor == 8 * 4  # and still count in the mean


def test_the_loss_of_a_batch_does_not_see_how_it_was_joined(model):
    arm = prepare(tiny_config(model, **SAMPLED), model)
    drawn = draw(arm, 1, 1, arm.own)
    batch = batch_of(arm, drawn)
    with torch.no_grad():
        log_p = log_probs_of(arm, batch)
    assert drawn.mismatch(batch).max() == 0  # not known before the first pass
    batch.log_old = log_p
    assert drawn.mismatch(batch).max() < 1e-5  # engine and trainer are one model
    weighted = (batch.weights * batch.advantages).sum()
    assert float(weighted) == pytest.approx(float(drawn.advantages.sum()), abs=1e-4)


def test_answers_of_several_tokens_can_be_enumerated_too(tmp_path):
    task = make_task("sums", questions=2, largest=3)
    path = tiny_model(tmp_path / "m", task, spread=1.0)
    config = tiny_config(
        path,
        task={"kind": "sums", "questions": 2, "largest": 3},
        questions=2,
        iterations=1,
        optimization={"learning_rate": 0.01, "max_grad_norm": 1.0, "inner_tolerance": 0.05, "max_inner_steps": 60},
    )
    manifest = train(config, tmp_path / "arm")
    assert manifest["measurement"] == "enumerated"
    start, end = by_iteration(tmp_path / "arm")
    assert (end > start + 1).all()
    steps = pl.read_parquet(tmp_path / "arm" / "steps.parquet")
    assert steps["gap"][-1] < 0.2 * steps["gap"][0]


def test_old_policy_stays_frozen_over_the_steps_of_an_iteration(model, tmp_path):
    optimization = {"learning_rate": 0.05, "questions_per_step": 3}
    train(tiny_config(model, **SAMPLED | {"optimization": optimization}, iterations=2), tmp_path / "arm")
    rows = pl.read_parquet(tmp_path / "arm" / "completions.parquet")
    assert rows.group_by("iteration", "step").agg(pl.col("question_id").n_unique())["question_id"].sort().to_list() == [
        2, 2, 3, 3, 3, 3,
    ]  # fmt: skip
    assert rows.height == 2 * 8 * 8
    steps = pl.read_parquet(tmp_path / "arm" / "steps.parquet").filter(pl.col("iteration") == 1)
    assert steps["mean_ratio"][0] == 1.0  # the first batch is on-policy
    assert (steps["mean_ratio"][1:] != 1.0).all()  # the others see a policy that has moved from π_old


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"questions": 1000}, "questions must be at most the task's 100, got 1000"),
        ({"measurement": {"most_answers": 9}}, "measurement.most_answers must be at least the 15 answers"),
        (
            {"model": {"path": "MODEL", "device": "cuda"}},
            "model.device must be one that is there, got 'cuda' and no GPU",
        ),
    ],
)
def test_what_cannot_be_trained_is_refused(model, tmp_path, change, message):
    if torch.cuda.is_available() and "model" in change:
        pytest.skip("there is a GPU here")
    change = {k: v | {"path": model} if k == "model" else v for k, v in change.items()}
    with pytest.raises(ValueError, match=message):
        train(tiny_config(model, **change), tmp_path / "arm")


@pytest.mark.parametrize("every", [1, 0])
def test_weights_that_overflow_stop_the_run_in_words(model, tmp_path, every):
    # every=1: the measurement after the step sees it; 0: the groups of the next iteration do
    config = tiny_config(
        model,
        training=SAMPLED["training"] | {"kl": "none", "beta": 0.0},
        optimization={"learning_rate": 1e25, "optimizer": "sgd"},
        measurement={"every": every},
    )
    with pytest.raises(FloatingPointError, match=r"not (a number|numbers) any more"):
        train(config, tmp_path / "arm")
    manifest = json.loads((tmp_path / "arm" / "manifest.json").read_text())
    assert (manifest["status"], manifest["iterations_done"]) == ("running", 1 - every)  # what was done before is kept


def test_the_critic_and_the_refreshed_reference_are_kept(model, tmp_path):
    training = {
        "update": "sampled", "beta": 1.0, "kl": "k2", "group_size": 4, "normalization": {"kind": "mean_only"},
        "advantage": "critic", "critic_rate": 0.5, "reference_refresh": 1,
    }  # fmt: skip
    config = tiny_config(model, **SAMPLED | {"training": training}, iterations=2)
    train(config, tmp_path / "arm")
    rows = pl.read_parquet(tmp_path / "arm" / "completions.parquet").filter(pl.col("iteration") == 2)
    # π_ref is π_1, which is π_old of the second iteration: k2 of each answer is 0
    assert (rows["logp_ref"] - rows["logp_old"]).abs().max() < 1e-5


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # of peft 0.21
@pytest.mark.parametrize(
    "options",
    [
        {"model": {"lora": {"rank": 4}}},
        {"model": {"gradient_checkpointing": True}},
        {"optimization": {"precision": "bf16"}},
        {"model": {"dtype": "float64"}},
    ],
)
def test_options_of_memory_and_speed_move_p_where_the_loss_says(model, tmp_path, options):
    # a short run without a KL term and a strong step: the mean p rises, whatever saves memory
    config = tiny_config(
        model,
        training=SAMPLED["training"] | {"kl": "none", "beta": 0.0, "groups": 8},
        optimization={"learning_rate": 0.02} | options.get("optimization", {}),
        model={"path": model, "device": "cpu"} | options.get("model", {}),
    )
    train(config, tmp_path / "arm")
    p = sigmoid(by_iteration(tmp_path / "arm")).mean(axis=1)
    assert p[-1] > p[0] + 0.02


def hard_policy(path, log_odds):
    """A policy to which all sums are equally hard."""
    policy = load_policy(path, device="cpu")
    task = make_task("one_token_sums").select(8, 1)
    prompts = policy.encode([question.prompt for question in task.questions])
    right = torch.zeros(8, policy.vocabulary, dtype=torch.bool)
    for q, question in enumerate(task.questions):
        right[q, right_completions(policy, question, 1)[0][0]] = True
    optimizer = torch.optim.Adam(policy.model.parameters(), lr=0.01)
    for _ in range(150):
        now = expectation.log_odds(next_log_probs(policy.model, prompts), right)
        optimizer.zero_grad()
        (now - log_odds).square().mean().backward()
        optimizer.step()
    return policy, task


def test_hard_questions_swing_between_two_values_and_half_an_anchor_on_the_last_policy_stops_it(model, tmp_path):
    # p_ref = 0.002 and β = 2.5: the fixed point has a multiplier below −1, and orbits settle on a cycle of period 2
    swings = {}
    for alpha in (1.0, 0.5):
        policy, task = hard_policy(model, math.log(0.002 / 0.998))
        config = tiny_config(model, training={"beta": 2.5, "alpha": alpha}, iterations=8)
        train(config, tmp_path / f"{alpha}", policy=policy, task=task)
        log_odds = by_iteration(tmp_path / f"{alpha}")
        p, recursion = sigmoid(log_odds), gd.Recursion(beta=2.5, p_ref=sigmoid(log_odds[0]), alpha=alpha)
        one_step = np.stack([sigmoid(recursion.step(row)) for row in log_odds[:-1]])
        assert np.median(np.abs(p[1:] - one_step)) < 0.01
        swings[alpha] = np.diff(p[4:], axis=0)
    assert (np.abs(swings[1.0]) > 0.1).all()
    assert (swings[1.0][1:] * swings[1.0][:-1] < 0).all()  # up and down, every time
    assert np.abs(swings[0.5][-1]).max() < 0.02

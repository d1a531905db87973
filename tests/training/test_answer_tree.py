"""All answers in one sequence: the numbers and gradients of a sequence for each prefix, at a part of the work."""

import dataclasses

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from grpo_dynamics import FiniteGroup, MeanOnly
from grpo_dynamics.training.arm import prepare
from grpo_dynamics.training.policies import shared_log_probs
from grpo_dynamics.training.steps import inner_loop
from grpo_dynamics.training.steps.answer_tree import AnswerTree
from grpo_dynamics.training.steps.expectation import Objective, every_answer, expected_advantages, sampled_advantages
from grpo_dynamics.training.trainer import iteration
from grpo_dynamics.update_rule import Training
from tests.training.tiny import tiny_config, tiny_model
from tests.training.tiny_models import llama

UNEQUAL, EQUAL = [[3, 2, 3], [2], [0, 3, 2, 2]], [[3, 2], [2, 2], [0, 3]]


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def gradient(model, log_policy):
    """The gradient of something that weighs every answer differently."""
    weight = torch.linspace(-1, 2, log_policy.numel(), dtype=torch.float64).reshape(log_policy.shape)
    return torch.autograd.grad((weight * log_policy).sum(), list(model.parameters()))


@pytest.mark.parametrize("prompts", [UNEQUAL, EQUAL])
@pytest.mark.parametrize("length", [1, 2, 4])
def test_one_sequence_says_what_a_sequence_for_each_prefix_says(prompts, length):
    model = llama().double()
    tree = AnswerTree.of(prompts, every_answer(4, 1, length))
    assert tree._fits(model)
    found = tree.log_probs(model)
    assert found.shape == (3, len(every_answer(4, 1, length).tokens))
    assert found.logsumexp(-1).abs().max() < 1e-12  # every answer once: the probabilities add up to one
    one_by_one = tree._chained(tree._one_by_one(model).double().log_softmax(-1))
    assert (found - one_by_one).abs().max() < 1e-12  # float64: only the order of sums differs
    for near, far in zip(gradient(model, found), gradient(model, one_by_one), strict=True):
        assert torch.allclose(near, far, rtol=1e-5, atol=1e-4)  # the norm of a Llama is float32 in any case


@pytest.mark.parametrize("prompts", [UNEQUAL, EQUAL])
def test_the_chain_rule_is_that_of_teacher_forcing(prompts):
    model, answers = llama().double(), every_answer(4, 1, 3)
    found = AnswerTree.of(prompts, answers).log_probs(model)
    for q, prompt in enumerate(prompts):
        owner = [0] * len(answers.tokens)
        forced = shared_log_probs(model, [prompt], answers.tokens, answers.mask, owner).sum(-1)
        assert (forced - found[q]).abs().max() < 1e-12


def test_a_tree_costs_its_tokens_and_not_a_prompt_for_each_of_its_prefixes(monkeypatch):
    model, seen = llama(), []
    real = model.forward
    monkeypatch.setattr(model, "forward", lambda **given: seen.append(given["input_ids"].numel()) or real(**given))
    answers = every_answer(4, 1, 3)  # prefixes: the empty one, 3 of one token, 9 of two
    AnswerTree.of(EQUAL, answers).log_probs(model)
    assert seen == [3 * (2 + 3 + 9)]
    seen.clear()
    parts = AnswerTree.of(EQUAL, answers).parts(2 * len(answers.tokens) + 1)  # two questions fit, not three
    whole = torch.cat([part.log_probs(model) for part in parts])
    assert seen == [2 * 14, 14]
    assert torch.allclose(whole, AnswerTree.of(EQUAL, answers).log_probs(model), atol=1e-5)


def test_a_model_whose_attention_is_not_known_takes_the_long_way():
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=4, n_embd=16, n_layer=1, n_head=2, n_positions=16, bos_token_id=1, eos_token_id=1)
    model, answers = GPT2LMHeadModel(config).double().eval(), every_answer(4, 1, 3)
    tree = AnswerTree.of(UNEQUAL, answers)
    assert not tree._fits(model)
    found = tree.log_probs(model)
    for q, prompt in enumerate(UNEQUAL):
        forced = shared_log_probs(model, [prompt], answers.tokens, answers.mask, [0] * len(answers.tokens)).sum(-1)
        assert (forced - found[q]).abs().max() < 1e-12


def test_nothing_stays_on_the_cpu_when_the_model_is_elsewhere():
    # the device "meta" computes nothing, but refuses, as a GPU does, to mix its tensors with those of the CPU
    model, answers = llama().to("meta"), every_answer(4, 1, 3)
    with pytest.raises(RuntimeError):
        torch.ones(3, device="meta") + torch.ones(3)
    here = AnswerTree.of(EQUAL, answers)
    moved = {f.name: getattr(here, f.name) for f in dataclasses.fields(here)}
    moved = {name: value.to("meta") if isinstance(value, torch.Tensor) else value for name, value in moved.items()}
    tree = AnswerTree(**moved)
    log_policy = tree.log_probs(model)
    log_policy.sum().backward()
    assert {parameter.grad.device.type for parameter in model.parameters()} == {"meta"}
    old, right = log_policy.detach(), torch.zeros(log_policy.shape, dtype=torch.bool, device="meta")
    for normalization in (MeanOnly(), FiniteGroup(8), FiniteGroup(64, eps=1e-4, eps_placement="std")):
        exact = expected_advantages(old, right, Training(normalization=normalization))
    drawn = torch.zeros((3, 5), dtype=torch.long, device="meta")
    sampled = sampled_advantages(old, drawn, torch.zeros((3, 5), dtype=torch.float64, device="meta"))
    for advantages in (exact, sampled):
        objective = Objective(advantages, old, old, beta=1.0, alpha=0.5)
        for part in (objective, objective.of(slice(0, 3))):
            assert part.distance(log_policy).device == part.distance_back(log_policy).device == old.device


def test_an_inner_loop_in_passes_is_that_of_one_pass(tmp_path):
    # the gradients of the passes add up to that of the mean over all questions: the same steps up to rounding
    model = tiny_model(tmp_path / "model")
    table = {"learning_rate": 0.01, "max_grad_norm": 1.0, "inner_tolerance": 1e-3, "round_steps": 50}
    seen = []
    for size in (None, 40):  # 15 answers a question: 8 questions at once, or 2
        arm = prepare(tiny_config(model, optimization=table | ({"micro_batch_size": size} if size else {})), model)
        seen.append(iteration(arm, 1, inner_loop.NEVER)["steps"])
        assert seen[-1][-1]["converged"]
    assert [len(part) for part in seen] == [len(seen[0])] * 2
    for one, several in zip(*seen, strict=True):
        for name in ("gap", "worst_kl", "loss"):
            assert one[name] == pytest.approx(several[name], rel=5e-3, abs=1e-6)


def test_a_step_of_the_inner_loop_waits_for_the_device_once(tmp_path, monkeypatch):
    model = tiny_model(tmp_path / "model")
    arm = prepare(tiny_config(model), model)
    tree = arm.measure.tree
    with torch.no_grad():
        log_old = tree.log_probs(arm.model)
    objective = Objective(torch.randn_like(log_old), log_old, log_old, beta=1.0)
    waits = []
    for name in ("item", "tolist", "__float__", "__bool__", "__int__"):
        real = getattr(torch.Tensor, name)
        monkeypatch.setattr(torch.Tensor, name, lambda x, *a, real=real: waits.append(1) or real(x, *a))
    ended = inner_loop.ascend([lambda: tree.log_probs(arm.model)], objective, arm.ascent, [])
    # beside one for each row: four before the first step, that find out where to start
    assert len(ended.rows) < len(waits) <= len(ended.rows) + 4

"""Engines of transformers: exact draws, exact log-probabilities, seeds that depend on nothing else."""

from __future__ import annotations

import copy
import importlib.util
import itertools
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    GenerationConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LogitsProcessor,
    LogitsProcessorList,
    MistralConfig,
    MistralForCausalLM,
)

from grpo_dynamics.training.engines import generate as generate_engine
from grpo_dynamics.training.engines.continuous import ContinuousEngine
from grpo_dynamics.training.engines.generate import GenerateEngine, uniforms
from grpo_dynamics.training.engines.weights import merged_weights, teacher_forced
from grpo_dynamics.training.rollouts import RolloutOptions, engine, mismatch, pack, sampling_parameters, unique
from tests.training.tiny import tiny_model
from tests.training.tiny_models import (
    EOS,
    PAD,
    chi_square,
    counts,
    largest_difference,
    llama,
    outcomes,
    policy,
    probabilities,
)

PROMPTS = [[2, 3, 2], [3], [2, 2, 3, 3, 2], [3, 2]]


@pytest.fixture(scope="module")
def model() -> Any:
    return llama()


def test_samples_come_from_the_policy_exactly(model: Any) -> None:
    # The 40 completions of at most 3 of 4 tokens are all enumerated; their probabilities add up to one.
    completions = outcomes(4, 3)
    samples = GenerateEngine(policy(model)).sample(PROMPTS, 4000, 3, seeds=[1, 2, 3, 4])
    for q, prompt in enumerate(PROMPTS):
        probability = probabilities(model, prompt, completions)
        assert probability.sum() == pytest.approx(1, abs=1e-5)
        assert chi_square(counts(samples, q, completions), probability) > 1e-3


def test_the_test_of_exactness_sees_a_small_bend(model: Any) -> None:
    # The same draws are refused at a temperature of 1.25: the test above has the power that it needs.
    bent = copy.deepcopy(model)
    with torch.no_grad():  # logits are linear in the last norm's weight
        bent.model.norm.weight.div_(1.25)
    samples = GenerateEngine(policy(model)).sample(PROMPTS[:1], 4000, 3, seeds=[1])
    assert chi_square(counts(samples, 0, outcomes(4, 3)), probabilities(bent, PROMPTS[0], outcomes(4, 3))) < 1e-6


def test_log_probabilities_are_those_of_teacher_forcing(model: Any) -> None:
    # Prompts of different lengths are padded on the left; rows branch and end: none of it may show.
    samples = GenerateEngine(policy(model)).sample(PROMPTS, 8, 12, seeds=range(4))
    assert largest_difference(model, samples) < 1e-5
    assert not samples.log_probs[~samples.mask].any()
    assert (samples.completions[~samples.mask] == PAD).all()
    for q in range(4):
        for g in range(8):
            ids = samples.ids(q, g)
            assert (ids[-1] == EOS) == (samples.finish_reason[q][g] == "eos")
            assert EOS not in ids[:-1]
            assert len(ids) == samples.lengths[q, g]
            assert ids[-1] == EOS or len(ids) == 12


@pytest.mark.parametrize("kind", ["absolute positions", "sliding window"])
def test_other_architectures(kind: str) -> None:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"vocab_size": 6, "pad_token_id": PAD, "eos_token_id": EOS, "bos_token_id": None}
    if kind == "absolute positions":
        config = GPT2Config(n_embd=32, n_layer=2, n_head=2, n_positions=64, initializer_range=0.4, **sizes)
        other: Any = GPT2LMHeadModel(config).eval()
    else:
        config = MistralConfig(
            hidden_size=32,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            sliding_window=4,
            initializer_range=0.3,
            **sizes,
        )
        other = MistralForCausalLM(config).eval()
    samples = GenerateEngine(policy(other)).sample([[2, 3, 4, 5, 2, 3], [3], [4, 5]], 6, 8, seeds=range(3))
    assert largest_difference(other, samples) < 1e-5


def test_a_prompt_draws_the_same_in_any_batch(model: Any) -> None:
    seeds = [11, 12, 13, 14]
    together = GenerateEngine(policy(model)).sample(PROMPTS, 6, 10, seeds)
    small = GenerateEngine(policy(model), batch_size=6).sample(PROMPTS, 6, 10, seeds)
    assert torch.equal(small.completions, together.completions)
    back = GenerateEngine(policy(model)).sample(PROMPTS[::-1], 6, 10, seeds[::-1])
    assert torch.equal(back.completions.flip(0), together.completions)
    for q, prompt in enumerate(PROMPTS):
        alone = GenerateEngine(policy(model)).sample([prompt], 6, 10, seeds[q : q + 1])
        assert [alone.ids(0, g) for g in range(6)] == [together.ids(q, g) for g in range(6)]


def test_a_longer_limit_only_continues(model: Any) -> None:
    short = GenerateEngine(policy(model)).sample(PROMPTS, 6, 4, seeds=range(4))
    long = GenerateEngine(policy(model)).sample(PROMPTS, 6, 9, seeds=range(4))
    assert all(short.ids(q, g) == long.ids(q, g)[:4] for q in range(4) for g in range(6))


def test_equal_prompts_with_other_seeds_draw_other_completions(model: Any) -> None:
    samples = GenerateEngine(policy(model)).sample([[2, 3]] * 3, 16, 8, seeds=[5, 6, 5])
    assert torch.equal(samples.completions[0], samples.completions[2])
    assert not torch.equal(samples.completions[0], samples.completions[1])


def test_the_draws_of_neighbouring_seeds_have_nothing_in_common() -> None:
    u = torch.stack([uniforms(seed, 16, 32).flatten() for seed in (0, 1, 2)])
    assert ((u >= 0) & (u < 1)).all()
    # 512 independent pairs: the correlation has a standard deviation of 1/√512 = 0.044
    assert torch.corrcoef(u).fill_diagonal_(0).abs().max() < 0.15
    # vLLM draws sample g by seed + g, so the seeds it gets must lie further apart than a group is large
    spread = [sampling_parameters(16, 8, seed, EOS)["seed"] for seed in range(100)]
    assert np.diff(np.sort(spread)).min() > 10**9
    assert max(spread) + 2**16 < 2**63


class Inverse(LogitsProcessor):
    """The same inversion for ``generate`` as it comes: one row for each completion, greedy on the drawn token."""

    def __init__(self, uniform: torch.Tensor, start: int) -> None:
        self.uniform, self.start = uniform, start

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        total = scores.double().softmax(-1).cumsum(-1)
        u = self.uniform[:, input_ids.shape[1] - self.start, None]
        token = torch.searchsorted(total, u * total[:, -1:], right=True)
        return torch.zeros_like(scores).scatter_(1, token, 1.0)


def test_the_tree_draws_what_generate_draws_row_by_row(model: Any) -> None:
    prompts = [[2, 3, 2], [3, 3, 2]]
    samples = GenerateEngine(policy(model)).sample(prompts, 8, 6, seeds=[7, 8])
    rows = torch.tensor([prompt for prompt in prompts for _ in range(8)])
    sequences = model.generate(
        rows,
        attention_mask=torch.ones_like(rows),
        generation_config=GenerationConfig(max_new_tokens=6, pad_token_id=PAD, eos_token_id=EOS),
        logits_processor=LogitsProcessorList([Inverse(torch.cat([uniforms(s, 8, 6) for s in (7, 8)]), 3)]),
    )
    assert torch.equal(samples.completions.flatten(0, 1), sequences[:, 3:])


def rows_computed(model: Any, prompts: list[list[int]], group_size: int, max_tokens: int) -> list[int]:
    """How many rows each forward pass of a sampling has."""
    rows: list[int] = []
    hook = model.register_forward_pre_hook(
        lambda _module, _args, inputs: rows.append(len(inputs["input_ids"])), with_kwargs=True
    )
    GenerateEngine(policy(model)).sample(prompts, group_size, max_tokens, seeds=range(len(prompts)))
    hook.remove()
    return rows


def test_what_completions_share_is_computed_once(model: Any) -> None:
    # one-token answers: one forward pass with one row for each different prompt
    assert rows_computed(model, [[2, 3], [3], [2, 3]], 300, 1) == [2]
    # at most the 3 tokens that are not EOS can follow a prefix, however many samples there are
    rows = rows_computed(model, [[2, 3]], 500, 4)
    assert rows[0] == 1
    assert all(after <= 3 * before for before, after in itertools.pairwise(rows))
    # a policy that is sure of its answer computes it once
    sure = copy.deepcopy(model)
    with torch.no_grad():
        sure.model.norm.weight.mul_(1000)
    assert rows_computed(sure, [[2, 3]], 16, 6)[1:] == [1] * (len(rows_computed(sure, [[2, 3]], 16, 6)) - 1)


def test_nothing_bends_the_distribution(model: Any) -> None:
    plain = GenerateEngine(policy(model)).sample(PROMPTS, 6, 8, seeds=range(4))
    other = copy.deepcopy(model)
    other.generation_config = GenerationConfig(repetition_penalty=3.0, no_repeat_ngram_size=2, suppress_tokens=[2])
    bent = GenerateEngine(policy(other)).sample(PROMPTS, 6, 8, seeds=range(4))
    assert torch.equal(bent.completions, plain.completions)
    assert torch.equal(bent.log_probs, plain.log_probs)


def test_a_model_in_training_is_sampled_without_dropout_and_stays_in_training(model: Any) -> None:
    torch.manual_seed(0)
    config = GPT2Config(
        n_embd=32, n_layer=1, n_head=2, vocab_size=6, resid_pdrop=0.5, bos_token_id=None, eos_token_id=1
    )
    dropping = GPT2LMHeadModel(config).train()
    samples = GenerateEngine(policy(dropping)).sample([[2, 3]], 4, 5, seeds=[0])
    assert dropping.training
    assert largest_difference(dropping, samples) < 1e-5


def test_half_precision_samples_from_its_own_logits() -> None:
    half = llama(6).to(torch.bfloat16)
    samples = GenerateEngine(policy(half)).sample([[2, 3], [4]], 4, 6, seeds=[0, 1])
    assert samples.log_probs.dtype == torch.float32
    # the cached and the whole forward pass round differently: 8 bits of mantissa on logits of about 2
    assert largest_difference(half, samples) < 0.05


def test_large_vocabularies_are_inverted_in_parts(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = GenerateEngine(policy(model)).sample(PROMPTS, 16, 6, seeds=range(4))
    monkeypatch.setattr(generate_engine, "CHUNK", 12)
    assert torch.equal(
        GenerateEngine(policy(model)).sample(PROMPTS, 16, 6, seeds=range(4)).completions, whole.completions
    )


def test_a_token_of_probability_zero_is_never_drawn() -> None:
    log_probs = torch.tensor([[-torch.inf, np.log(0.5), -torch.inf, np.log(0.5), -torch.inf]])
    u = torch.tensor([0.0, 0.5 - 1e-12, 0.5, 1 - 2**-53], dtype=torch.float64)
    assert generate_engine.invert(log_probs, torch.zeros(4, dtype=torch.long), u).tolist() == [1, 1, 3, 3]


# ---- LoRA, pushes ----


# peft 0.21 asks newer versions of transformers by a name that they call deprecated
ADAPTED = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


def lora(seed: int = 3) -> Any:
    torch.manual_seed(seed)
    adapted = get_peft_model(llama(6), LoraConfig(r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=False))
    return adapted.eval()


@ADAPTED
def test_merged_weights_are_those_of_a_merged_checkpoint() -> None:
    adapted = lora()
    before = {name: tensor.clone() for name, tensor in adapted.state_dict().items()}
    merged = dict(merged_weights(adapted))
    after = adapted.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    expected = dict(adapted.merge_and_unload().named_parameters())
    assert merged.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(merged[name], tensor.detach(), atol=1e-6, rtol=0)


@ADAPTED
def test_an_adapted_model_is_sampled_with_its_adapters() -> None:
    adapted = lora()
    samples = GenerateEngine(policy(adapted)).sample([[2, 3], [4]], 4, 6, seeds=[0, 1])
    assert largest_difference(adapted, samples) < 1e-5
    with adapted.disable_adapter():
        assert largest_difference(adapted, samples) > 0.01


def test_its_own_model_needs_no_push(model: Any) -> None:
    report = GenerateEngine(policy(model)).push(model)
    assert (report.max_difference, report.checked) == (0, 0)


@ADAPTED
def test_another_model_is_copied_and_checked() -> None:
    target, source = llama(6, seed=0), lora()
    report = GenerateEngine(policy(target)).push(source)
    assert report.checked == 4 * 15
    assert report.max_difference < 1e-5
    torch.testing.assert_close(teacher_forced(target, [[2, 3, 4]]), teacher_forced(source, [[2, 3, 4]]))


@pytest.mark.parametrize("wrong", [0.01, float("nan")])
def test_weights_that_do_not_arrive_stop_the_run(monkeypatch: pytest.MonkeyPatch, wrong: float) -> None:
    def copied(source: Any, target: Any) -> None:
        with torch.no_grad():
            for name, tensor in merged_weights(source):
                target.get_parameter(name).copy_(tensor)
            target.model.layers[1].mlp.down_proj.weight.add_(wrong)

    monkeypatch.setattr(generate_engine, "copy_weights", copied)
    with pytest.raises(RuntimeError, match="the weights did not reach the generate engine"):
        GenerateEngine(policy(llama(6))).push(llama(6, seed=1))


def test_a_model_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"weights of the policy, differing in \['lm_head.weight'\]"):
        GenerateEngine(policy(llama(6))).push(llama(6, tied=False))


# ---- continuous batching ----


@pytest.fixture(scope="module")
def continuous(model: Any) -> Any:
    return ContinuousEngine(policy(model)), ContinuousEngine(policy(model)).sample(PROMPTS[:2], 150, 2, seeds=[1, 2])


def test_continuous_batching_samples_from_the_policy(model: Any, continuous: Any) -> None:
    samples = continuous[1]
    completions = outcomes(4, 2)
    for q in range(2):
        assert chi_square(counts(samples, q, completions), probabilities(model, PROMPTS[q], completions)) > 1e-3
    assert largest_difference(model, samples) < 1e-5


def test_continuous_batching_repeats_itself_and_leaves_the_generator_alone(model: Any, continuous: Any) -> None:
    torch.manual_seed(9)
    expected = torch.rand(3)
    torch.manual_seed(9)
    again = continuous[0].sample(PROMPTS[:2], 150, 2, seeds=[1, 2])
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(again.completions, continuous[1].completions)
    with pytest.raises(ValueError, match="must be the policy's own"):
        continuous[0].push(llama())


# ---- samples ----


def test_unique_completions_and_the_way_back(model: Any) -> None:
    samples = GenerateEngine(policy(model)).sample([[2, 3], [2, 3], [3]], 40, 3, seeds=range(3))
    same = unique(samples)
    assert torch.equal(same.completions[same.index], samples.completions)
    assert torch.equal(same.mask[same.index], samples.mask)
    torch.testing.assert_close(same.log_probs[same.index], samples.log_probs)
    assert same.counts.sum() == 120
    assert torch.equal(same.counts, torch.bincount(same.index.flatten()))
    # completions of two prompts are never joined, and all of one prompt differ
    assert torch.equal(same.question[same.index], torch.arange(3)[:, None].expand(3, 40))
    assert same.prompts == [samples.prompts[q] for q in same.question.tolist()]
    rows = [
        (q, tuple(c[m].tolist())) for q, c, m in zip(same.question.tolist(), same.completions, same.mask, strict=True)
    ]
    assert len(set(rows)) == len(rows) < 120


def test_padding_is_not_mistaken_for_a_drawn_pad() -> None:
    # with pad = EOS, as many tokenizers have it; and with a pad token drawn as an ordinary one
    samples = pack(
        [[2]], [[([5, 0, 0], [-1.0] * 3), ([5, 1], [-1.0] * 2), ([5, 0, 1], [-1.0] * 3)]], pad_id=0, eos_id=1
    )
    assert len(unique(samples).counts) == 3


def test_mismatch_is_measured_on_the_tokens_alone() -> None:
    samples = pack([[2]], [[([5, 1], [-1.0, -2.0]), ([1], [-3.0])]], pad_id=0, eos_id=1)
    difference = torch.tensor([[[0.1, -0.2], [0.3, 50.0]]])  # the last one is padding
    found = mismatch(samples, samples.log_probs + difference)
    assert found.max_difference == pytest.approx(0.3, abs=1e-6)
    assert found.mean_difference == pytest.approx(0.2, abs=1e-6)
    d = np.array([0.1, -0.2, 0.3])
    assert found.kl == pytest.approx(np.mean(np.expm1(d) - d), abs=1e-6)


# ---- bad input ----


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], 2, 3, []), "prompts must hold at least one prompt"),
        (([[2], []], 2, 3, [0, 1]), "an empty one at index 1"),
        (([[2]], 0, 3, [0]), "group_size must be a whole number ≥ 1, got 0"),
        (([[2]], 2, 0, [0]), "max_tokens must be a whole number ≥ 1, got 0"),
        (([[2]], 2, 3, [0, 1]), "one per prompt, got 2 for 1 prompts"),
        (([[2]], 2, 3, [-1]), r"in \[0, 2\*\*63\), got -1 at index 0"),
    ],
)
def test_bad_requests(model: Any, arguments: Any, message: str) -> None:
    for tried in (GenerateEngine(policy(model)), ContinuousEngine(policy(model))):
        with pytest.raises(ValueError, match=message):
            tried.sample(*arguments)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "vlm"}, "engine must be one of 'auto', 'generate'"),
        ({"batch_size": 0}, "batch_size"),
        ({"memory": 1.0}, r"memory must be in \(0, 1\)"),
        ({"tolerance": 0.0}, "tolerance must be a number > 0"),
        ({"max_model_len": 1}, "max_model_len"),
        ({"dtype": "float64"}, "dtype must be one of"),
        ({"engine": "vllm_server"}, "url must be given with engine='vllm_server'"),
        ({"url": "http://localhost:8000"}, "url means nothing with engine='auto'"),
    ],
)
def test_bad_options(options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RolloutOptions(**options)


def test_which_engine_starts(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert engine(policy(model), RolloutOptions(engine="continuous")).name == "continuous"
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "vllm" else find(name))
    assert engine(policy(model)).name == "generate"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert engine(policy(model)).name == "generate"  # a GPU, and no vLLM
    with pytest.raises(ValueError, match="engine='vllm' needs vLLM, which is not installed"):
        engine(policy(model), RolloutOptions(engine="vllm"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    assert engine(policy(model)).name == "generate"  # vLLM, and no GPU


@pytest.mark.parametrize("update", ["exact", "gradient"])
def test_a_run_that_draws_nothing_starts_no_engine(update: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """vLLM takes memory and minutes, and its weights would be brought up to date after every iteration."""
    from grpo_dynamics.training import arm
    from grpo_dynamics.training.config import resolve

    asked: list[RolloutOptions] = []
    start = arm.engine
    monkeypatch.setattr(arm, "engine", lambda policy, options: (asked.append(options), start(policy, options))[1])
    table = {"name": "a", "task": {"kind": "one_token_sums"}, "model": {"path": tiny_model(tmp_path), "device": "cpu"}}
    training = {"update": update} | ({"learning_rate": 0.1} if update == "gradient" else {})
    inner = {"optimization": {"inner_tolerance": 1e-2}} if update == "exact" else {}
    for drawn in (False, True):
        method = {"method": "sampled"} if drawn else {}
        arm.prepare(resolve(table | {"training": training, "measurement": method} | inner), tmp_path)
    assert [options.engine for options in asked] == ["generate", "auto"]


def test_a_server_that_is_not_there(model: Any, tmp_path: Any) -> None:
    options = RolloutOptions(engine="vllm_server", url="http://127.0.0.1:9", weights_dir=str(tmp_path))
    with pytest.raises(ValueError, match=r"url must be that of a running vLLM server, got 'http://127\.0\.0\.1:9'"):
        engine(policy(model), options)

"""Operations are counted as PyTorch's own counter counts them; fast paths give the numbers of the slow ones."""

import contextlib
import types

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM

from grpo_dynamics.training.device import compiled as compiled_module
from grpo_dynamics.training.device.attention import NAME, without_masks
from grpo_dynamics.training.device.compiled import calling, compiled_forward
from grpo_dynamics.training.likelihoods import shared_log_probs
from grpo_dynamics.training.speed import throughput
from grpo_dynamics.training.speed.throughput import forward_work, layer_weights, median_seconds, shares_of_time

PROMPTS = [[1, 5, 5, 6, 7], [1, 6, 8, 9, 4]]
OWNER = torch.tensor([0, 0, 1, 1, 1])


@pytest.fixture
def model():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        size = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
        return LlamaForCausalLM(LlamaConfig(vocab_size=20, tie_word_embeddings=True, **size)).eval()


@pytest.fixture
def completions():
    return torch.randint(3, 20, (5, 7), generator=torch.Generator().manual_seed(0))


def log_probs(model, completions, prompts=PROMPTS):
    """Of all tokens; and the gradient of their sum by the first layer's weights."""
    model.zero_grad()
    mask = torch.ones_like(completions).bool()
    log_p = shared_log_probs(model, prompts, completions, mask, OWNER)
    log_p.sum().backward()
    return log_p.detach(), model.model.layers[0].self_attn.q_proj.weight.grad.clone()


def test_operations_are_those_that_pytorch_counts(model, completions):
    """10·h² weights a layer. Matrix products with weights and for logits, counted by PyTorch as they are called.

    It counts one position of logits more for each of the two prompts' five completions' first tokens: they share it.
    """
    assert layer_weights(model) == 2 * 10 * 64**2
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        shared_log_probs(model, PROMPTS, completions, torch.ones_like(completions).bool(), OWNER)
    counts = counter.get_flop_counts()["Global"]
    products = sum(n for name, n in counts.items() if str(name) in ("aten.mm", "aten.addmm", "aten.bmm"))
    work = forward_work(model, [5, 5], [[7] * 2, [7] * 3])
    assert work.tokens == 2 * 5 + 5 * 6
    pairs = 2 * 15 + 5 * (6 * 5 + 21)
    attention = 4 * 64 * 2 * pairs
    logits = 2 * 64 * 20
    said, computed = 5 * 7, 5 * 6 + 2
    rotation = 2 * 16 * (5 + 6)  # the angles of positions, a product of frequencies with them
    assert products == pytest.approx(work.flops - attention - (said - computed) * logits, abs=10 * rotation)
    assert work.update == 3 * work.flops


def test_attention_without_masks_is_the_same(model, completions):
    """Aligned to the last position, causal is what the mask says; with padding the mask is there again."""
    padded = [PROMPTS[0], PROMPTS[1][:3]]
    usual = [log_probs(model, completions, prompts) for prompts in (PROMPTS, padded)]
    assert without_masks(model).config._attn_implementation == NAME
    for prompts, (log_p, gradient) in zip((PROMPTS, padded), usual, strict=True):
        now = log_probs(model, completions, prompts)
        torch.testing.assert_close(now[0], log_p, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(now[1], gradient, rtol=1e-4, atol=1e-5)


def test_attention_without_masks_in_bfloat16(model, completions):
    """Under autocast q, k and v go to bfloat16 as for the usual attention."""
    with torch.autocast("cpu", torch.bfloat16):
        usual = log_probs(model, completions)[0]
        without_masks(model)
        torch.testing.assert_close(log_probs(model, completions)[0], usual, rtol=0.02, atol=0.02)


def test_compiled_passes_are_the_same_and_only_inside(model, completions, monkeypatch):
    """By the compiler's own tracing, with no code generated, which takes minutes on a CPU."""
    traced = []

    def compile_quickly(forward, dynamic):
        traced.append(dynamic)
        return compile_of_torch(forward, dynamic=dynamic, backend="eager")

    compile_of_torch = torch.compile
    monkeypatch.setattr(compiled_module.torch, "compile", compile_quickly)
    without_masks(model)
    usual, forward = log_probs(model, completions), compiled_forward(model)
    with calling(model, forward), calling(model, forward):
        assert vars(model)["forward"] is forward
        found = log_probs(model, completions)
    assert "forward" not in vars(model)
    assert traced == [True]
    for now, before in zip(found, usual, strict=True):
        torch.testing.assert_close(now, before, rtol=1e-4, atol=1e-5)


def test_shares_add_up(model, completions):
    shares = shares_of_time(lambda: log_probs(model, completions), "cpu")
    assert sum(shares.values()) == pytest.approx(1.0, abs=0.05)
    assert shares["matmul"] > 0
    calls = []
    assert median_seconds(lambda: calls.append(1), "cpu", repeats=3, warm_up=2) >= 0
    assert len(calls) == 5


def test_a_range_around_kernels_is_not_counted_beside_them(monkeypatch):
    """As a GPU's profile lists them: the optimiser's kernels, and a range of its name that spans them."""

    def row(name, microseconds, device="DeviceType.CUDA", named=False):
        return types.SimpleNamespace(
            key=name, self_device_time_total=microseconds, device_type=device, is_user_annotation=named
        )

    rows = [
        row("void at::native::multi_tensor_apply_kernel<AdamFunctor>", 300.0),
        row("nvjet_tst_128x256_64x4", 600.0),
        row("Optimizer.step#AdamW.step", 350.0, named=True),
        row("aten::mm", 0.0, device="DeviceType.CPU"),
    ]
    seen = types.SimpleNamespace(key_averages=lambda: rows)
    monkeypatch.setattr(torch.profiler, "profile", lambda activities: contextlib.nullcontext(seen))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    ticks = iter((0.0, 1e-3))  # a millisecond in all
    monkeypatch.setattr(throughput, "time", types.SimpleNamespace(perf_counter=lambda: next(ticks)))
    shares = shares_of_time(lambda: None, "cuda")
    assert shares["optimiser"] == pytest.approx(0.3)
    assert shares["matmul"] == pytest.approx(0.6)
    assert sum(shares.values()) == pytest.approx(1.0)
    assert shares["idle"] == pytest.approx(0.1)

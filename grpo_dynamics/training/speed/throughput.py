"""What a device can do, and what training has to do: the rate of its matrix products, and the operations of a pass.

A product of an (m, k) and a (k, n) matrix is 2·m·k·n operations. A forward pass multiplies every position with every
weight of the layers: 2·N operations a token, N the weights of the layers' matrices, without the embedding, which is
looked up. Attention adds 4·h for every pair of a position and one before it that it sees, h the width: scores and
their sums. The logits are 2·h·V at each position that has some. A backward pass is twice the forward pass.

Counted is what the mathematics asks for, once: a prompt once for all its completions, only tokens that stand there, no
credit for what is computed again to save memory, nor for padding. So a fraction of the matmul rate is one of useful
work, and lower than the share of time that the device is busy.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch


@dataclasses.dataclass(frozen=True)
class Work:
    """The operations of one forward pass over some prompts and their completions.

    Attributes:
        tokens: computed positions: each prompt once, of a completion all but its last token.
        flops: of the forward pass.
    """

    tokens: int
    flops: float

    @property
    def update(self) -> float:
        """Operations of a forward and a backward pass."""
        return 3.0 * self.flops


def layer_weights(model: Any) -> int:
    """Return the weights in the matrices of a model's layers: the embedding, the head and vectors are left out."""
    core = model.get_decoder() if hasattr(model, "get_decoder") else model
    embedding = core.get_input_embeddings().weight
    return sum(weight.numel() for weight in core.parameters() if weight.dim() == 2 and weight is not embedding)


def forward_work(model: Any, prompts: Sequence[int], completions: Sequence[Sequence[int]]) -> Work:
    """Return the work of a forward pass that gives every completion token its log-probability.

    Args:
        model: of transformers, every position attending to all before it.
        prompts: tokens of each prompt.
        completions: tokens of each of its completions, one list for each prompt.
    """
    config = model.config.get_text_config()
    tokens, pairs, said = 0, 0, 0
    for prompt, lengths in zip(prompts, completions, strict=True):
        tokens += prompt
        pairs += prompt * (prompt + 1) // 2
        for length in lengths:
            after = length - 1  # the last token is only predicted
            tokens += after
            pairs += after * prompt + after * (after + 1) // 2
            said += length
    width = config.num_attention_heads * (
        getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    )
    attention = 4.0 * width * config.num_hidden_layers * pairs
    logits = 2.0 * config.hidden_size * config.vocab_size * said
    return Work(tokens, 2.0 * layer_weights(model) * tokens + attention + logits)


def matmul_rate(device: torch.device | str, size: int | None = None, repeats: int = 20) -> float:
    """Return the operations per second of one large matrix product on random numbers: bfloat16 on a GPU, else float32.

    Random numbers matter: a GPU multiplies zeros faster, as they take less power.

    Args:
        device: where.
        size: of the square matrices; None: 8192 on a GPU, 512 elsewhere.
        repeats: of which the median is taken, after a few that are not counted.
    """
    place = torch.device(device)
    on_gpu = place.type == "cuda"
    n = size or (8192 if on_gpu else 512)
    generator = torch.Generator(place).manual_seed(0)
    kind = torch.bfloat16 if on_gpu else torch.float32
    a, b = (torch.randn((n, n), generator=generator, device=place).to(kind) for _ in range(2))
    return 2.0 * n**3 / median_seconds(lambda: a @ b, place, repeats, warm_up=5)


def median_seconds(work: Callable[[], Any], device: torch.device | str, repeats: int, warm_up: int = 1) -> float:
    """Return the median of the seconds that some work takes: by events on a GPU's own clock, else by :func:`clock`.

    Args:
        work: is called ``warm_up`` + ``repeats`` times.
        device: on which it computes.
        repeats: ≥ 1.
        warm_up: calls that are not counted.
    """
    return statistics.median(all_seconds(work, device, repeats, warm_up))


def clock() -> float:
    """Return seconds on a CPU: its own where one thread computes, so that other work on the machine does not count."""
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


def all_seconds(work: Callable[[], Any], device: torch.device | str, repeats: int, warm_up: int = 1) -> list[float]:
    """Return the seconds of every counted call; see :func:`median_seconds`."""
    for _ in range(warm_up):
        work()
    found: list[float] = []
    for _ in range(repeats):
        if torch.device(device).type != "cuda":
            start = clock()
            work()
            found.append(clock() - start)
            continue
        before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize(device)
        before.record()
        work()
        after.record()
        torch.cuda.synchronize(device)
        found.append(before.elapsed_time(after) / 1000)
    return found


KINDS = {
    "optimiser": ("adam", "multi_tensor", "_foreach", "fused_"),
    "attention": ("flash", "fmha", "attention", "sdpa", "efficient_attention"),
    "matmul": (
        "gemm",
        "cutlass",
        "nvjet",
        "xmma",
        "::mm",
        "::addmm",
        "::bmm",
        "::linear",
        "mkldnn",
        "cublas",
        "matmul",
    ),
}
"""Parts of the names of kernels and operators, by what they are for; the first kind that fits is taken."""


def kind_of(name: str) -> str:
    """Return what a kernel or an operator is for: a key of ``KINDS``, "copies", or "elementwise".

    >>> kind_of("nvjet_tst_128x256_64x4"), kind_of("aten::mul"), kind_of("Memcpy HtoD (Pinned -> Device)")
    ('matmul', 'elementwise', 'copies')
    """
    lower = name.lower()
    for kind, parts in KINDS.items():
        if any(part in lower for part in parts):
            return kind
    return "copies" if any(part in lower for part in ("memcpy", "memset", "copy_", "::to")) else "elementwise"


def shares_of_time(work: Callable[[], Any], device: torch.device | str) -> dict[str, float]:
    """Return the share of the time of some work that each kind of kernel takes; "idle" is when none runs.

    Measured once by torch.profiler, which makes the work somewhat slower: on a GPU the kernels against the clock, on a
    CPU the operators, each without what it calls, where what is not an operator counts as idle. Named ranges, such as
    the optimiser's step, span operators and kernels that are listed themselves, and are left out.
    """
    from torch.profiler import ProfilerActivity, profile

    on_gpu = torch.device(device).type == "cuda"
    wanted = [ProfilerActivity.CPU, ProfilerActivity.CUDA] if on_gpu else [ProfilerActivity.CPU]
    work()
    with profile(activities=wanted) as seen:
        start = time.perf_counter()
        work()
        if on_gpu:
            torch.cuda.synchronize(device)
        whole = time.perf_counter() - start
    shares = dict.fromkeys((*KINDS, "elementwise", "copies"), 0.0)
    rows: Any = seen.key_averages()
    for row in rows:
        if row.is_user_annotation or (on_gpu and "cuda" not in str(row.device_type).lower()):
            continue
        spent: float = row.self_device_time_total if on_gpu else row.self_cpu_time_total
        shares[kind_of(row.key)] += spent / 1e6 / whole
    return shares | {"idle": max(0.0, 1.0 - sum(shares.values()))}

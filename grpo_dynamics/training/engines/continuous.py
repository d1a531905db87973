"""Sampling with transformers' continuous batching: paged attention, and a new completion as soon as one has ended.

For a GPU without vLLM; the trainer's own model again. It draws from softmax of the logits at temperature 1 and says the
log-probabilities of the drawn tokens. One thing it cannot do as of transformers 5.17: its draws come from the one
generator of torch in the order in which the requests are scheduled, so a prompt has no seed of its own. A call with the
same prompts and seeds draws the same again; other prompts in the call change what a prompt draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
from transformers import GenerationConfig
from transformers.generation.configuration_utils import ContinuousBatchingConfig

from grpo_dynamics.training.engines.weights import PushReport
from grpo_dynamics.training.rollouts import Samples, pack, require_request

BLOCK = 32
"""Tokens of a block of the paged cache on a CPU, where transformers would else take nearly all memory for it."""


class ContinuousEngine:
    """Draws with the policy's own model: nothing to push, no second copy.

    Args:
        policy: has ``model``, ``pad_id`` and ``eos_id``.
        memory: share of the GPU's memory for the paged cache, in (0, 1).
    """

    name = "continuous"

    def __init__(self, policy: Any, *, memory: float = 0.3) -> None:
        self.policy, self.memory = policy, memory

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Nothing is held but the policy, which is the trainer's."""

    def push(self, model: Any) -> PushReport:
        """Only the policy's own model is drawn from, so there is nothing to push; another one is refused."""
        if model is not self.policy.model:
            raise ValueError("model must be the policy's own with engine='continuous'; engine='generate' copies others")
        return PushReport(0.0, 0.0, 0.0, 0)

    def sample(
        self, prompts: Sequence[Sequence[int]], group_size: int, max_tokens: int, seeds: Sequence[int]
    ) -> Samples:
        """Draw ``group_size`` completions for each prompt; all ``seeds`` together decide all draws."""
        require_request(prompts, group_size, max_tokens, seeds)
        model, eos = self.policy.model, self.policy.eos_id
        model = model.base_model.model if hasattr(model, "peft_config") else model  # its layers have the adapters
        repeated = [list(prompt) for prompt in prompts for _ in range(group_size)]
        training = model.training
        model.eval()
        try:
            with torch.random.fork_rng(devices=[model.device] if model.device.type == "cuda" else []):
                outputs = model.generate_batch(
                    repeated,
                    generation_config=GenerationConfig(
                        max_new_tokens=max_tokens,
                        do_sample=True,
                        temperature=1.0,
                        top_p=1.0,
                        top_k=0,
                        repetition_penalty=1.0,
                        pad_token_id=self.policy.pad_id,
                        eos_token_id=eos,
                    ),
                    continuous_batching_config=self._config(repeated, max_tokens, seeds),
                )
        finally:
            model.train(training)
        answers = list(outputs.values())
        failed = [answer.error for answer in answers if answer.error is not None]
        if failed or len(answers) != len(repeated):
            raise RuntimeError(f"continuous batching lost {len(repeated) - len(answers)} completions {failed[:1]}")
        drawn = [(answer.generated_tokens, answer.logprobs) for answer in answers]
        groups = [drawn[i : i + group_size] for i in range(0, len(drawn), group_size)]
        return pack(prompts, groups, self.policy.pad_id, eos, model.device)

    def _config(self, prompts: list[list[int]], max_tokens: int, seeds: Sequence[int]) -> ContinuousBatchingConfig:
        seed = int(np.random.SeedSequence(list(seeds)).generate_state(1)[0])
        if self.policy.model.device.type == "cuda":
            return ContinuousBatchingConfig(return_logprobs=True, seed=seed, max_memory_percent=self.memory)
        blocks = sum(-(-(len(prompt) + max_tokens) // BLOCK) for prompt in prompts)
        return ContinuousBatchingConfig(
            return_logprobs=True,
            seed=seed,
            block_size=BLOCK,
            num_blocks=min(blocks, 256),  # with no room left, requests wait for others to end
            max_batch_tokens=256,
        )

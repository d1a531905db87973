"""Sampling with transformers' ``generate``: the trainer's own model, in its own process.

``generate`` prepares the inputs and the key-value cache, runs the model, and hands the decoding to
:func:`draw_tree`. It draws the G completions of a prompt as a tree: completions that have a prefix in common share its
row of the batch, so that the prompt is computed once for the group, an answer of one token needs one forward pass for
all G draws, and repeated completions cost as much as one. A row leaves the batch when its completions have ended.

A token is drawn by inverting its distribution function at a uniform number that belongs to (seed, position, sample):
exactly softmax of the raw logits. Temperature, top-p and repetition penalties of a model's ``generation_config`` do not
enter, and how the rows are shared or batched changes no draw, up to rounding in the logits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from transformers import GenerationConfig

from grpo_dynamics.training.engines.weights import TOLERANCE, PushReport, checked_push, merged_weights, probes
from grpo_dynamics.training.rollouts import Samples, require_request

CHUNK = 1 << 24
"""Numbers of the distribution functions that are inverted at once: 128 MiB in float64."""


class GenerateEngine:
    """Draws with the policy's own model, which it shares with the trainer: nothing to push, no second copy.

    Args:
        policy: has ``model``, ``pad_id`` and ``eos_id``.
        batch_size: completions drawn at once (rounded to whole groups).
        tolerance: see :class:`~grpo_dynamics.training.rollouts.RolloutOptions`; used if another model is pushed.
    """

    name = "generate"

    def __init__(self, policy: Any, *, batch_size: int = 1024, tolerance: float | None = None) -> None:
        self.policy, self.batch_size, self.tolerance = policy, batch_size, tolerance

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Nothing is held but the policy, which is the trainer's."""

    def push(self, model: Any) -> PushReport:
        """Copy the weights of another model into the policy's and check them; its own model needs no push."""
        own = self.policy.model
        if model is own:
            return PushReport(0.0, 0.0, 0.0, 0)
        longest = getattr(own.config, "max_position_embeddings", 16)
        tolerance = self.tolerance or TOLERANCE[next(own.parameters()).dtype]
        sequences = probes(own.config.vocab_size, longest)
        return checked_push(self.name, lambda: copy_weights(model, own), self._score, model, sequences, tolerance)

    def sample(
        self, prompts: Sequence[Sequence[int]], group_size: int, max_tokens: int, seeds: Sequence[int]
    ) -> Samples:
        """Draw ``group_size`` completions for each prompt.

        Args:
            prompts: token ids.
            group_size: G ≥ 1.
            max_tokens: length at which a completion is cut off.
            seeds: one per prompt, in [0, 2**63).

        Raises:
            FloatingPointError: where the policy's weights have become such that it says nothing finite.
        """
        require_request(prompts, group_size, max_tokens, seeds)
        prompts = [list(prompt) for prompt in prompts]
        pad, eos = self.policy.pad_id, self.policy.eos_id
        device = next(self.policy.model.parameters()).device
        shape = (len(prompts), group_size, max_tokens)
        tokens = torch.full(shape, pad, dtype=torch.long, device=device)
        log_probs = torch.zeros(shape, dtype=torch.float32, device=device)
        lengths = torch.zeros(shape[:2], dtype=torch.long, device=device)
        for batch in self._batches(prompts, group_size):
            uniform = torch.stack([uniforms(seeds[q], group_size, max_tokens) for q in batch])
            drawn = self._draw([prompts[q] for q in batch], uniform.to(device))
            where = torch.tensor(batch, device=device)
            tokens[where], log_probs[where], lengths[where] = drawn
        longest = int(lengths.max())
        mask = torch.arange(longest, device=device) < lengths[..., None]
        last = tokens.gather(2, lengths[..., None] - 1)[..., 0]
        return Samples(
            prompts=prompts,
            completions=tokens[..., :longest],
            mask=mask,
            log_probs=log_probs[..., :longest],
            finish_reason=[["eos" if end else "length" for end in row] for row in (last == eos).tolist()],
        )

    def _batches(self, prompts: list[list[int]], group_size: int) -> Iterator[list[int]]:
        """Indices of prompts to draw at once: of similar length, for the least padding, equal ones side by side."""
        order = sorted(range(len(prompts)), key=lambda q: (len(prompts[q]), prompts[q]))
        size = max(1, self.batch_size // group_size)
        return (order[i : i + size] for i in range(0, len(order), size))

    def _draw(self, prompts: list[list[int]], uniform: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens and log-probabilities (Q, G, T) and lengths (Q, G) for prompts that fit into one batch."""
        model, pad, eos = self.policy.model, self.policy.pad_id, self.policy.eos_id
        different = {tuple(prompt): row for row, prompt in enumerate(dict.fromkeys(map(tuple, prompts)))}
        longest = max(map(len, different))
        ids = [[pad] * (longest - len(prompt)) + list(prompt) for prompt in different]
        attended = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in different]
        training = model.training
        model.eval()  # no dropout; and gradient checkpointing would switch the cache off
        try:
            return model.generate(
                inputs=torch.tensor(ids, device=uniform.device),
                attention_mask=torch.tensor(attended, device=uniform.device),
                generation_config=GenerationConfig(
                    max_new_tokens=uniform.shape[-1], use_cache=True, pad_token_id=pad, eos_token_id=eos
                ),
                custom_generate=draw_tree,
                uniform=uniform,
                prompt_of=torch.tensor([different[tuple(prompt)] for prompt in prompts], device=uniform.device),
            )
        finally:
            model.train(training)

    def _score(self, sequences: Sequence[Sequence[int]]) -> Tensor:
        from grpo_dynamics.training.engines.weights import teacher_forced

        return teacher_forced(self.policy.model, sequences)


def uniforms(seed: int, group_size: int, max_tokens: int) -> Tensor:
    """Uniform numbers in [0, 1) for one prompt, float64 (G, T): a longer limit only adds to the end of each row."""
    generator = np.random.Generator(np.random.Philox(key=seed))
    return torch.from_numpy(generator.random((max_tokens, group_size)).T.copy())


def draw_tree(
    model: Any,
    input_ids: Tensor,
    logits_processor: Any,
    stopping_criteria: Any,
    generation_config: Any,
    uniform: Tensor,
    prompt_of: Tensor,
    synced_gpus: bool = False,
    **model_kwargs: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    """Decode for ``generate``: every group as a tree of shared prefixes.

    Args:
        model: the causal LM.
        input_ids: prompts, padded on the left.
        logits_processor: as ``generate`` makes it from the model's config; left alone, it would bend π.
        stopping_criteria: likewise left alone.
        generation_config: has the ids of EOS and padding.
        uniform: the numbers that decide, (Q, G, T).
        prompt_of: which row of ``input_ids`` is the prompt of each group, (Q,).
        synced_gpus: left alone: the parameters are whole in each process.
        **model_kwargs: the attention mask and what else ``generate`` prepares.

    Returns:
        tokens (Q, G, T), their log-probabilities (Q, G, T) and the lengths (Q, G).
    """
    groups, size, limit = uniform.shape
    eos, pad = generation_config.eos_token_id, generation_config.pad_token_id
    uniform = uniform.flatten(0, 1)
    tokens = torch.full(uniform.shape, pad, dtype=torch.long, device=uniform.device)
    log_probs = torch.zeros(uniform.shape, dtype=torch.float32, device=uniform.device)
    lengths = torch.full((len(uniform),), limit, device=uniform.device)
    alive = torch.arange(len(uniform), device=uniform.device)  # completions that have not ended ...
    row = prompt_of.repeat_interleave(size)  # ... and the row of the batch that is their prefix

    outputs = model._prefill(input_ids, generation_config, model_kwargs)
    for t in range(limit):
        logs = outputs.logits[:, -1].float().log_softmax(-1)
        if bool(logs[:, 0].isnan().any()):  # one that is not finite makes all of its row NaN
            raise FloatingPointError("the policy's log-probabilities are not numbers any more")
        apart = len(logs) == len(alive)  # no two completions share a row, and never will
        drawn = invert(logs, row, uniform[alive, t])
        tokens[alive, t], log_probs[alive, t] = drawn, logs[row, drawn]
        ended = drawn == eos
        lengths[alive[ended]] = t + 1
        alive, row, drawn = alive[~ended], row[~ended], drawn[~ended]
        if t + 1 == limit or not len(alive):
            break
        model_kwargs = model._update_model_kwargs_for_generation(outputs, model_kwargs)
        parent, drawn, row = (row, drawn, torch.arange(len(row), device=row.device)) if apart else branch(row, drawn)
        input_ids = torch.cat([input_ids[parent], drawn[:, None]], dim=1)
        if len(parent) != len(logs) or bool((parent != torch.arange(len(parent), device=parent.device)).any()):
            model_kwargs = select_rows(model_kwargs, parent, len(logs))
        inputs = model.prepare_inputs_for_generation(input_ids, next_sequence_length=1, **model_kwargs)
        outputs = model(**inputs, return_dict=True)
    return (
        tokens.reshape(groups, size, limit),
        log_probs.reshape(groups, size, limit),
        lengths.reshape(groups, size),
    )


def invert(log_probs: Tensor, row: Tensor, uniform: Tensor) -> Tensor:
    """Draw a token from ``log_probs[row]`` for each uniform number: the first where the sum of p exceeds it."""
    total = log_probs.double().exp().cumsum(-1)
    step = max(1, CHUNK // total.shape[-1])
    chunks: list[Tensor] = []
    for rows, u in zip(row.split(step), uniform.split(step), strict=True):
        sums = total[rows]
        chunks.append(torch.searchsorted(sums, u[:, None] * sums[:, -1:], right=True)[:, 0])
    return torch.cat(chunks)


def branch(row: Tensor, token: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """One row for each different (row, token): the parent's row, the token, and where each completion is now.

    >>> parent, token, row = branch(torch.tensor([0, 0, 0, 1]), torch.tensor([5, 3, 5, 5]))
    >>> parent.tolist(), token.tolist(), row.tolist()
    ([0, 0, 1], [3, 5, 5], [1, 0, 1, 2])
    """
    edges, row = torch.unique(torch.stack([row, token], dim=1), dim=0, return_inverse=True)
    return edges[:, 0], edges[:, 1], row


def select_rows(model_kwargs: dict[str, Any], parent: Tensor, rows: int) -> dict[str, Any]:
    """Go from the old rows of the batch to the new ones, in the cache and in whatever else has a row for each."""
    cache = model_kwargs["past_key_values"]
    cache.reorder_cache(parent)

    def selected(value: Any) -> Any:
        return value[parent] if isinstance(value, Tensor) and value.dim() and len(value) == rows else value

    return {name: selected(value) for name, value in model_kwargs.items()}


def copy_weights(source: Any, target: Any) -> None:
    """Copy every weight of ``source``, adapters merged, into the model ``target``."""
    own = dict(target.named_parameters())
    given = dict(merged_weights(source))
    if own.keys() != given.keys():
        raise ValueError(f"model must have the weights of the policy, differing in {sorted(own.keys() ^ given.keys())}")
    with torch.no_grad():
        for name, tensor in given.items():
            own[name].copy_(tensor)

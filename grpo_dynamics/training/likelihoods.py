"""Teacher-forced log-probabilities: what a language model gives to completions, without wasted work.

Logits are computed at the positions of completions only. Prompts of unequal length are padded on the left, with an
attention mask and position ids, so that a number does not depend on what else is in the batch but for rounding.
Completions are padded on the right: causal attention does not see what follows.

Token ids of prompts are lists, of completions a LongTensor (B, T) with a bool mask of the same shape that is True on
the tokens that count. Results are natural logarithms, float32 or wider, and gradients flow to the model.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

Prompts = Sequence[Sequence[int]]


def log_probs(model: nn.Module, prompts: Prompts, completions: Tensor, mask: Tensor) -> Tensor:
    """Return the log-probability of every completion token, given its prompt and the tokens before it.

    Args:
        model: a causal language model of transformers; it may be wrapped by peft or for data parallelism.
        prompts: B non-empty lists of token ids.
        completions: token ids, shape (B, T).
        mask: bool, shape (B, T).

    Returns:
        Shape (B, T), 0 where the mask is False.
    """
    device, length = _device(model), completions.shape[1]
    completions, mask = completions.to(device), mask.to(device)
    ids, attention = left_padded(prompts, device)
    inputs = torch.cat((ids, completions), dim=1)
    if attention is not None:
        attention = torch.cat((attention, attention.new_ones(completions.shape)), dim=1)
    logits = last_logits(model, inputs, attention, keep=length + 1)[:, :-1]
    return torch.where(mask, _chosen(logits, completions), 0.0)


def shared_log_probs(
    model: nn.Module, prompts: Prompts, completions: Tensor, mask: Tensor, prompt_of: Sequence[int] | Tensor
) -> Tensor:
    """Return the same as :func:`log_probs`, each prompt computed once for all its completions, gradients included.

    Args:
        model: a causal language model.
        prompts: Q non-empty lists of token ids.
        completions: token ids, shape (B, T).
        mask: bool, shape (B, T).
        prompt_of: the number of each completion's prompt, from 0 to Q−1, shape (B,).

    With gradient checkpointing, or where a model keeps more than keys and values, it is ``log_probs``.
    """
    device, length = _device(model), completions.shape[1]
    index = torch.as_tensor(prompt_of, dtype=torch.long, device=device)
    if core_model(model).training and _keeps_no_activations(core_model(model)):
        return log_probs(model, [prompts[i] for i in index.tolist()], completions, mask)
    completions, mask = completions.to(device), mask.to(device)
    ids, attention = left_padded(prompts, device)
    cache = DynamicCache() if length > 1 else None
    first = last_logits(model, ids, attention, keep=1, cache=cache).index_select(0, index)
    if cache is None:
        return torch.where(mask, _chosen(first, completions), 0.0)
    if any(type(layer) is not DynamicLayer for layer in cache.layers):
        return log_probs(model, [prompts[i] for i in index.tolist()], completions, mask)
    for layer in cast(list[Any], cache.layers):
        layer.keys, layer.values = layer.keys.index_select(0, index), layer.values.index_select(0, index)
    if attention is not None:
        after = attention.new_ones((len(index), length - 1))
        attention = torch.cat((attention.index_select(0, index), after), dim=1)
    rest = last_logits(model, completions[:, :-1], attention, keep=length - 1, cache=cache)
    return torch.where(mask, _chosen(torch.cat((first, rest), dim=1), completions), 0.0)


def log_probs_of_groups(model: nn.Module, prompts: Prompts, completions: Tensor, mask: Tensor) -> Tensor:
    """Return the log-probabilities of groups of G completions of each of Q prompts: all of shape (Q, G, T)."""
    groups, size, length = completions.shape
    owner = torch.arange(groups).repeat_interleave(size)
    flat = shared_log_probs(model, prompts, completions.reshape(-1, length), mask.reshape(-1, length), owner)
    return flat.reshape(completions.shape)


def next_log_probs(model: nn.Module, prefixes: Prompts) -> Tensor:
    """Return the log-probabilities of every possible next token after B non-empty lists of token ids, shape (B, V)."""
    ids, attention = left_padded(prefixes, _device(model))
    return last_logits(model, ids, attention, keep=1)[:, -1].log_softmax(-1)


def left_padded(prompts: Prompts, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor | None]:
    """Return token ids and attention mask, both (B, P): 0 where nothing is; no mask where all are of one length.

    >>> left_padded([[5, 6], [7]])
    (tensor([[5, 6], [0, 7]]), tensor([[1, 1], [0, 1]]))
    """
    longest = max(map(len, prompts))
    if any(len(prompt) == 0 for prompt in prompts):
        raise ValueError("prompts must have at least one token each, got one without")
    ids = torch.tensor([[0] * (longest - len(prompt)) + list(prompt) for prompt in prompts], device=device)
    if all(len(prompt) == longest for prompt in prompts):
        return ids, None
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
    there = torch.arange(longest, device=device) >= longest - lengths[:, None]
    return ids, there.long()


def last_logits(
    model: nn.Module,
    ids: Tensor,
    attention: Tensor | None,
    keep: int,
    cache: DynamicCache | None = None,
    positions: Tensor | None = None,
) -> Tensor:
    """Return the logits at the last ``keep`` of the positions in ``ids``, float32 or wider, shape (B, keep, V).

    Args:
        model: a causal language model.
        ids: token ids, (B, T).
        attention: None; or which tokens are there, (B, T); or which token sees which, bool (B, 1, T, T).
        keep: ≥ 1.
        cache: is read and extended.
        positions: of the tokens, (B, T), where ``attention`` does not say them.
    """
    options: dict[str, Any] = {"use_cache": cache is not None}
    if cache is not None:
        options["past_key_values"] = cache
    if attention is not None:
        if positions is None:
            positions = (attention.cumsum(dim=1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        options |= {"attention_mask": attention, "position_ids": positions}
    if _keeps_some(type(core_model(model))):
        options["logits_to_keep"] = keep
    logits = model(input_ids=ids, **options).logits[:, -keep:]
    return logits if logits.dtype == torch.float64 else logits.float()


@functools.cache
def _keeps_some(kind: type) -> bool:
    """Whether models of a class can be told at which positions logits are wanted."""
    return "logits_to_keep" in inspect.signature(kind.forward).parameters


def _chosen(logits: Tensor, tokens: Tensor) -> Tensor:
    """The log-probabilities (B, T) of tokens (B, T) under logits (B, T, V), without the whole log-softmax."""
    return logits.gather(-1, tokens[..., None]).squeeze(-1) - logits.logsumexp(-1)


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def _keeps_no_activations(model: Any) -> bool:
    """Whether gradient checkpointing is on, which transformers calls activation checkpointing since 5.23."""
    new = "is_activation_checkpointing"
    return bool(getattr(model, new if hasattr(type(model), new) else "is_gradient_checkpointing", False))


def core_model(model: nn.Module) -> Any:
    """Return the model of transformers inside what wraps it for data parallelism or adapters."""
    core: Any = getattr(model, "module", model)
    return core.get_base_model() if hasattr(core, "get_base_model") else core

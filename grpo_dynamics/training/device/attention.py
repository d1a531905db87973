"""Attention of completions to the prompt that they share, without a mask: what fused kernels are quick at.

Where prompts are of one length, the last position sees everything and each before it one position less: the causal
mask aligned to the lower right corner. Transformers writes that mask out, one number for every pair of positions, and
with it the fastest kernels are out of reach. Registered here is an attention that says it in words instead.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "sdpa_lower_right"


def lower_right(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """Attend as sdpa of transformers does; no mask means causal, aligned to the last position."""
    asked, seen = query.shape[2], key.shape[2]
    if attention_mask is not None or asked in (1, seen) or query.shape[1] != key.shape[1] or options.get("dropout"):
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    place, scale = query.device.type, options.get("scaling")
    if torch.is_autocast_enabled(place):  # as it would be done for sdpa itself
        kind = torch.get_autocast_dtype(place)
        query, key, value = query.to(kind), key.to(kind), value.to(kind)
    if _has_fused_kernel(query):  # "causal" of this operator is aligned to the last position; that of sdpa to the first
        fused: Any = torch.ops.aten._scaled_dot_product_flash_attention
        output = fused(query, key, value, 0.0, True, False, scale=scale)[0]
    else:
        mask = torch.ones((asked, seen), dtype=torch.bool, device=query.device).tril(seen - asked)
        output = torch.nn.functional.scaled_dot_product_attention(query, key, value, mask, scale=scale)
    return output.transpose(1, 2).contiguous(), None


def _has_fused_kernel(query: Tensor) -> bool:
    """Whether FlashAttention takes it: on a GPU, in half precision, heads of a multiple of 8 up to 256."""
    half = query.dtype in (torch.bfloat16, torch.float16)
    return query.is_cuda and half and query.shape[-1] % 8 == 0 and query.shape[-1] <= 256


def mask_if_padded(*arguments: Any, **options: Any) -> Tensor | None:
    """Return transformers' mask where something is padded or the mask is not the usual one, and none elsewhere."""
    usual = options.get("allow_is_causal_skip", True) and not options.get("use_vmap", False)
    if options.get("attention_mask") is None and usual and not options.get("local_size"):
        return None
    return sdpa_mask(*arguments, **options)


def without_masks(model: Any) -> Any:
    """Let a model of transformers attend by :func:`lower_right`; return it. One that does not use sdpa is left alone.

    >>> from transformers import LlamaConfig, LlamaForCausalLM
    >>> config = LlamaConfig(vocab_size=8, hidden_size=32, intermediate_size=32, num_hidden_layers=1,
    ...                      num_attention_heads=1)
    >>> without_masks(LlamaForCausalLM(config)).config._attn_implementation
    'sdpa_lower_right'
    """
    if model.config._attn_implementation != "sdpa":
        return model
    AttentionInterface.register(NAME, lower_right)
    AttentionMaskInterface.register(NAME, mask_if_padded)
    model.set_attn_implementation(NAME)
    return model

"""How numbers are computed: layers in bfloat16 with whole logits, and sums in a fixed order."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Generator
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

Precision = Literal["float32", "bf16"]


@contextlib.contextmanager
def layers_in(precision: Precision, model: Any) -> Generator[None]:
    """Compute the layers in bfloat16 where that is asked; the logits stay float32, rounding would be 0.03 nats."""
    if precision == "float32":
        yield
        return
    head: Any = model.get_output_embeddings()
    kind: str = next(model.parameters()).device.type

    def whole(module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        with torch.autocast(kind, enabled=False):
            return torch.nn.functional.linear(inputs[0].float(), module.weight)

    hook = head.register_forward_hook(whole)
    try:
        with torch.autocast(kind, torch.bfloat16):
            yield
    finally:
        hook.remove()


@contextlib.contextmanager
def repeatable(on_gpu: bool) -> Generator[None]:
    """Let a GPU add up in a fixed order, so that the same seed gives the same weights; a CPU does anyway."""
    if not on_gpu:
        yield
        return
    before, warns = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    with warnings.catch_warnings(), sdpa_kernel(SDPBackend.MATH):  # the fused backward passes of attention do not
        warnings.filterwarnings("ignore", message=".*deterministic.*")
        torch.use_deterministic_algorithms(True, warn_only=True)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before, warn_only=warns)

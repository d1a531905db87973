"""Weights, gradients and optimiser state spread over processes (FSDP), where one device is too small for them.

Each process keeps its share of the weights, of their gradients and of what the optimiser remembers. For the passes of
an iteration the weights are gathered once after each update, so that sampling, measuring and the loss need no further
messages, and processes may make as many passes as their own questions need; gradients are scattered again by the last
backward pass of a step.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from typing import Any

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard


def shard(model: Any, processes: int, device: torch.device) -> None:
    """Spread the weights of a model of transformers over all processes, layer by layer, in place."""
    core: Any = model.get_base_model() if hasattr(model, "get_base_model") else model
    layers: set[str] = set(getattr(core, "_no_split_modules", None) or ())
    mesh = init_device_mesh(device.type, (processes,))
    for module in list(model.modules()):
        if type(module).__name__ in layers:
            fully_shard(module, mesh=mesh)
    fully_shard(model, mesh=mesh)
    for part in parts(model):
        part.set_reshard_after_forward(False)
        part.set_reshard_after_backward(False)


def parts(model: Any) -> list[FSDPModule]:
    """Return the modules whose weights are spread."""
    return [module for module in model.modules() if isinstance(module, FSDPModule)]


def gather(model: Any) -> None:
    """Give every process all weights as they are now."""
    for part in parts(model):
        part.reshard()
        part.unshard()


@contextlib.contextmanager
def spread(model: Any) -> Generator[None]:
    """Leave each process its share only, while the block reads or writes the weights."""
    for part in parts(model):
        part.reshard()
    try:
        yield
    finally:
        gather(model)


def scatter_gradients(model: Any, wanted: bool) -> None:
    """Say whether the next backward pass exchanges gradients, or only adds them up."""
    for part in parts(model):
        part.set_requires_gradient_sync(wanted)

"""A model's forward pass compiled by torch.compile, for the passes of training only; whatever else calls it is not."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Generator
from typing import Any

import torch

Forward = Callable[..., Any]


def compiled_forward(model: Any) -> Forward:
    """Return the model's forward pass, compiled at its first call, for inputs of any size at once.

    What was compiled before is forgotten. Models of one class share the code of their forward pass, of which
    torch.compile keeps eight variants, four for each size; further ones it would leave uncompiled.
    """
    torch.compiler.reset()
    return torch.compile(model.forward, dynamic=True)


@contextlib.contextmanager
def never_given_up() -> Generator[None]:
    """Fail where torch.compile keeps enough variants of a function and would go on with it uncompiled."""
    limits: Any = torch._dynamo.config  # pyright: ignore[reportPrivateUsage]
    with limits.patch(fail_on_recompile_limit_hit=True):
        yield


@contextlib.contextmanager
def calling(model: Any, forward: Forward | None) -> Generator[None]:
    """Let a model compute by another forward pass while the block runs; None: by its own."""
    if forward is None or "forward" in vars(model):  # or it does already, in a block around this one
        yield
        return
    model.forward = forward
    try:
        with warnings.catch_warnings():  # the tracer looks at the gradient of keys and values, which have none yet
            warnings.filterwarnings("ignore", message="The .grad attribute of a Tensor that is not a leaf")
            yield
    finally:
        del model.forward

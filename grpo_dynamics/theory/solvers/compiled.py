"""Fixed points of huge batches of torch tensors by one compiled kernel, for phase diagrams on a GPU.

Eager tensor code reads and writes all its temporaries at every operation, and the solver of
:mod:`~grpo_dynamics.theory.fixed_points` compacts what has not converged, which makes the GPU wait for the CPU. Here
``torch.compile`` turns :mod:`~grpo_dynamics.theory.solvers.branch_free` into one kernel.
"""

from __future__ import annotations

import functools
import importlib.util
import math
import sys
import warnings
from collections.abc import Callable
from typing import Any, TypeGuard

from grpo_dynamics.arrays import Array, as_arrays, batch_shape, blocks, fields, flat, map_options, take
from grpo_dynamics.normalization import Whitened
from grpo_dynamics.theory import fixed_points as general
from grpo_dynamics.theory.fixed_points import FixedPoints, Status
from grpo_dynamics.theory.recursion import Recursion
from grpo_dynamics.theory.solvers import branch_free

WORTHWHILE = 1 << 20
"""Smaller batches stay with the general solver: they take less time than the compilation, about a minute."""

CHUNK = 1 << 23
"""Systems per launch of the kernel, which needs about 100 bytes each beyond the options and the result."""

FUSE_ALL = {"max_fusion_size": 10_000}
"""By default the compiler cuts the kernel into four, with temporaries between them."""

Kernel = Callable[[Array, Array, Array, Array], tuple[Array, ...]]


def applies(dynamics: Any) -> TypeGuard[Recursion]:
    """Return whether :func:`fixed_points` of this module can be used and is worth it.

    That is for a :class:`~grpo_dynamics.Recursion` with :class:`~grpo_dynamics.Whitened` rewards, options that are
    CUDA tensors, at least 2^20 systems, and a torch that can compile for the GPU.

    >>> applies(Recursion(beta=1.0, p_ref=0.2))
    False
    """
    return (
        isinstance(dynamics, Recursion)
        and type(dynamics.normalization) is Whitened
        and any(getattr(getattr(value, "device", None), "type", "") == "cuda" for _, value in fields(dynamics))
        and math.prod(batch_shape(dynamics)) >= WORTHWHILE
        and importlib.util.find_spec("triton") is not None
    )


def fixed_points(dynamics: Recursion) -> FixedPoints:
    """Return what :func:`grpo_dynamics.fixed_points` returns, computed by one compiled kernel.

    The rare system for which the kernel's fixed number of steps is not enough goes to the general solver. Nothing
    else makes the CPU wait for the GPU.

    Args:
        dynamics: a Recursion with Whitened rewards and at least one torch tensor among its options, on any device,
            float64 or, if all tensors are, float32; any shape.

    Raises:
        ValueError: for other dynamics.

    Source: folds and count derived in docs/notebooks/6_bifurcations.
    """
    normalization = _whitened(dynamics)
    shape = batch_shape(dynamics)
    if not shape:
        return general.fixed_points(dynamics)
    xp, beta = as_arrays(dynamics.beta, beside=dynamics)
    place: dict[str, Any] = {"dtype": beta.dtype, "device": beta.device}
    log_odds, multiplier = xp.empty((3, *shape), **place), xp.empty((3, *shape), **place)
    stable = xp.empty((3, *shape), dtype=xp.bool, device=beta.device)
    count = xp.empty(shape, dtype=xp.int8, device=beta.device)
    status = xp.empty(shape, dtype=xp.int8, device=beta.device)
    kernel = _kernel(xp, normalization.eps_placement)
    for index in blocks(shape, CHUNK):
        inside = tuple(count[index].shape)
        part = map_options(take(dynamics, shape, index), flat)
        options = as_arrays(part.beta, part.p_ref, part.alpha, part.normalization.eps, beside=part)[1:]
        # one layout for all, no views: another would be compiled once more
        found = kernel(*(xp.broadcast_to(option, (math.prod(inside),)).contiguous().detach() for option in options))
        for i in range(3):
            for result, values in zip((log_odds, multiplier, stable), (found[:3], found[3:6], found[6:9]), strict=True):
                result[(i, *index)] = xp.reshape(values[i], inside)
        count[index], status[index] = (xp.reshape(values, inside) for values in found[9:])
    late = xp.nonzero(status == int(Status.NOT_CONVERGED))
    for (part,) in blocks(tuple(late[0].shape), WORTHWHILE - 1):
        at = tuple(axis[part] for axis in late)
        found = general.fixed_points(take(dynamics, shape, at))
        everywhere = (slice(None), *at)
        log_odds[everywhere], multiplier[everywhere] = found.log_odds, found.multiplier
        stable[everywhere] = found.stable
        count[at], status[at] = found.count, found.status
    return FixedPoints(log_odds, multiplier, stable, count, status)


def _whitened(dynamics: Any) -> Whitened:
    """Return the normalisation; raise ValueError for dynamics that the kernel does not cover."""
    if not isinstance(dynamics, Recursion) or type(dynamics.normalization) is not Whitened:
        raise ValueError(f"dynamics must be a Recursion with Whitened rewards, got {dynamics!r}")
    torch = sys.modules.get("torch")
    if torch is None or not any(isinstance(value, torch.Tensor) for _, value in fields(dynamics)):
        raise ValueError("dynamics must have a torch tensor among its options: the compiler is torch's")
    return dynamics.normalization


@functools.cache
def _kernel(xp: Any, eps_placement: str) -> Kernel:
    """The compiled kernel; the same operations one by one, with a warning, where the compiler does not work."""
    torch: Any = sys.modules["torch"]

    def plain(beta: Array, p_ref: Array, alpha: Array, eps: Array) -> tuple[Array, ...]:
        found = branch_free.solve(xp, eps_placement == "std", beta, p_ref, alpha, eps)
        return *found[:6], *(xp.abs(multiplier) < 1 for multiplier in found[3:6]), *found[6:]

    fused = torch.compile(plain, dynamic=True, fullgraph=True, options=FUSE_ALL)
    broken = False

    def run(*options: Array) -> tuple[Array, ...]:
        nonlocal broken
        with torch.no_grad():
            if broken or options[0].shape[0] < 2:  # for one system it would be compiled once more
                return plain(*options)
            try:
                return fused(*options)
            except torch._dynamo.exc.TorchDynamoException as error:
                broken = True
                warnings.warn(
                    f"torch.compile failed, so the fixed points are computed without it, slower: {error}",
                    RuntimeWarning,
                    stacklevel=3,
                )
                return plain(*options)

    return run

"""The seam to the array libraries: one namespace per call, options that broadcast, work in cache-sized blocks.

Every numeric function of the package is written once against the array-API standard. NumPy arrays, Python numbers
and lists are computed with NumPy; a torch tensor (or any other array-API array) brings its own library and device.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

Array = Any
"""A Python number, a NumPy array, or an array of another array-API library, such as a torch tensor."""

BLOCK = 1 << 15
"""Elements per block on a CPU: the temporaries of one block stay in cache, the cost of the calls is spread."""

quiet: Any = np.errstate(all="ignore")
"""Decorates functions in which overflow to infinity is meant, since log-odds live on [-inf, inf], and in which the
branch that ``where`` does not take may be 0/0. NaN cannot come in: arguments are checked by ``require``."""


def _is_foreign(value: Any) -> bool:
    """Whether the value is an array of a library other than NumPy."""
    return hasattr(value, "dtype") and hasattr(value, "shape") and not isinstance(value, np.ndarray | np.generic)


def namespace(*values: Array) -> Any:
    """Return the array-API namespace that the values share: ``numpy`` unless one of them is another library's array.

    Raises:
        ValueError: if arrays of two libraries are mixed.
    """
    foreign = [v for v in values if _is_foreign(v)]
    if not foreign:
        return np
    from array_api_compat import array_namespace  # only needed, and only installed, beside another array library

    own = [v for v in values if isinstance(v, np.ndarray)]
    try:
        return array_namespace(*foreign, *own)
    except TypeError:
        kinds = " and ".join(sorted({f"{type(v).__module__}.{type(v).__name__}" for v in (*foreign, *own)}))
        raise ValueError(f"arguments must be arrays of one library, got {kinds}") from None


def as_arrays(*values: Array, beside: Any = None) -> tuple[Any, ...]:
    """Return ``(xp, *arrays)``: the values as arrays of one namespace, floating dtype and device.

    float32 arrays stay float32 unless a float64 array is among them; everything else becomes float64. Numbers
    have no say, nor have NumPy's scalars beside an array.

    Args:
        values: what to convert.
        beside: a frozen dataclass of options whose arrays have a say in the namespace, dtype and device as well.
    """
    others = [v for _, v in fields(beside) if hasattr(v, "shape")] if beside is not None else []
    typed = [v for v in (*values, *others) if hasattr(v, "dtype")]
    arrays = [v for v in typed if not isinstance(v, np.generic)] or typed
    xp = namespace(*values, *others)
    single = bool(arrays) and all(v.dtype == xp.float32 for v in arrays)
    dtype = xp.float32 if single else xp.float64
    if xp is np:
        return (xp, *(np.asarray(v, dtype=dtype) for v in values))
    device = next(v.device for v in arrays if _is_foreign(v))

    def converted(value: Any) -> Any:
        if _is_foreign(value) and value.device == device:
            return xp.astype(value, dtype, copy=False)  # torch.asarray would warn of gradients, or cut them off
        return xp.asarray(value, dtype=dtype, device=device)

    return (xp, *map(converted, values))


def option(value: Any) -> Any:
    """Normalise an option on its way in: lists and 0-d NumPy values become arrays and Python numbers."""
    if isinstance(value, list | tuple):
        try:
            value = np.asarray(value)
        except ValueError:  # ragged: for ``require`` to refuse
            return value
    if isinstance(value, np.ndarray | np.generic) and value.ndim == 0:
        return value.item()
    return value


def require(name: str, value: Any, allowed: str, test: Callable[[Any], Any]) -> None:
    """Raise ValueError naming the argument, the first offending value and what is allowed; NaN never passes.

    ``test`` gets the value as an array of real numbers and returns where it is right.
    """
    if _is_foreign(value):
        array = value.detach() if hasattr(value, "detach") else value  # of torch; its gradient is not asked for
    else:
        try:
            array = np.asarray(value)
        except ValueError:
            raise ValueError(f"{name} must be {allowed}, got {value!r}") from None
        if array.dtype.kind not in "fiu":
            raise ValueError(f"{name} must be {allowed}, got {value!r}")
    xp = namespace(array)
    with np.errstate(invalid="ignore"):
        good = xp.asarray(test(array))
    if bool(xp.all(good)):
        return
    if array.ndim == 0:
        raise ValueError(f"{name} must be {allowed}, got {value!r}")
    where = int(xp.argmax(xp.reshape(xp.astype(~good, xp.int8), (-1,))))
    first = float(xp.reshape(array, (-1,))[where])
    index = tuple(int(i) for i in np.unravel_index(where, tuple(array.shape)))
    raise ValueError(f"{name} must be {allowed}, got {first!r} at index {index}")


def require_choice(name: str, value: Any, choices: tuple[Any, ...]) -> None:
    """Raise ValueError unless ``value`` is one of ``choices``."""
    if not any(type(value) is type(c) and value == c for c in choices):
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")


def fields(options: Any) -> Iterator[tuple[str, Any]]:
    """Yield the name and value of every leaf option of a frozen dataclass, those of nested dataclasses included."""
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if dataclasses.is_dataclass(value):
            yield from fields(value)
        else:
            yield field.name, value


def batch_shape(options: Any, **more: Any) -> tuple[int, ...]:
    """Return the common shape of all options of a frozen dataclass, and of further named values.

    Raises:
        ValueError: if the shapes do not broadcast; the message names each.
    """
    shapes = {name: tuple(v.shape) for name, v in (*fields(options), *more.items()) if hasattr(v, "shape")}
    try:
        return np.broadcast_shapes(*shapes.values())
    except ValueError:
        listed = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise ValueError(f"shapes must broadcast together, got {listed}") from None


def map_options(options: Any, change: Callable[[Array], Array]) -> Any:
    """Return the options with every array among them, nested dataclasses included, replaced by ``change(array)``."""
    part = copy.copy(options)  # validated before: not through __init__ again
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if dataclasses.is_dataclass(value):
            object.__setattr__(part, field.name, map_options(value, change))
        elif getattr(value, "ndim", 0) > 0:
            object.__setattr__(part, field.name, change(value))
    return part


def take(options: Any, shape: tuple[int, ...], index: Any) -> Any:
    """Return the options with every array, broadcast to ``shape``, replaced by its part at ``index``."""
    return map_options(options, lambda array: namespace(array).broadcast_to(array, shape)[index])


def flat(array: Array) -> Array:
    """Return the array as one dimension; scalars stay scalars."""
    return namespace(array).reshape(array, (-1,)) if getattr(array, "ndim", 0) > 1 else array


def blocks(shape: tuple[int, ...], size: int = BLOCK) -> Iterator[tuple[slice, ...]]:
    """Yield indices that cover an array of ``shape`` in order, each of at most ``size`` elements."""
    inner = math.prod(shape[1:])
    if 0 in shape:
        return
    if math.prod(shape) <= size:
        yield tuple(slice(None) for _ in shape)
    elif inner <= size:
        step = max(1, size // max(inner, 1))
        for i in range(0, shape[0], step):
            yield (slice(i, i + step), *(slice(None) for _ in shape[1:]))
    else:
        for i in range(shape[0]):
            for rest in blocks(shape[1:], size):
                yield (slice(i, i + 1), *rest)


def block_size(xp: Any) -> int:
    """Return the block size: cache-sized for NumPy, large for the others, which may sit on an accelerator."""
    return BLOCK if xp is np else 1 << 22


def to_numpy(array: Array) -> np.ndarray[Any, Any]:
    """Return any array as NumPy on the CPU."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(array, torch.Tensor):
        return array.detach().cpu().numpy()
    return np.asarray(array)

"""The config of a sweep: a TOML file, read strictly into a list of tasks.

kind = "simulate"                      # or "run", "phase_diagram"

[base]                                 # the config that all tasks share; or base = "other.toml"
steps = 50
questions.p_ref = 0.2
training.update = "exact"

[axes]                                 # every combination is a task; or [[tasks]], one table for each
training.beta = [0.5, 1.0, 2.0]
seed = [0, 1]
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from grpo_dynamics.config import build, read_toml
from grpo_dynamics.provenance import digest, json_bytes
from grpo_dynamics.sweep.kinds import KINDS, Kind


@dataclasses.dataclass(frozen=True)
class _File:
    """The keys of the file."""

    kind: Literal["run", "simulate", "phase_diagram"]
    base: Any = None
    axes: Any = None
    tasks: Any = None
    value: str | None = None


@dataclasses.dataclass(frozen=True)
class SweepTask:
    """One piece of a sweep.

    Attributes:
        id: digest of the kind and the config, 16 hexadecimal digits.
        axes: what distinguishes it, by the dotted names of the keys; None where a task of a list does not say.
        config: all that decides its table, as plain values.
    """

    id: str
    axes: Mapping[str, Any]
    config: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Sweep:
    """What is to be computed.

    Attributes:
        name: that of the file.
        kind: name of a :class:`~grpo_dynamics.sweep.kinds.Kind`.
        axes: dotted names of the keys that differ, each with its values in the order of the file.
        tasks: in the order of the file; the last axis runs fastest.
        value: the column that the summary and the picture show; None where there is no usual one.
    """

    name: str
    kind: str
    axes: Mapping[str, tuple[Any, ...]]
    tasks: tuple[SweepTask, ...]
    value: str | None

    def identity(self) -> dict[str, Any]:
        """Return what makes two sweeps the same, as plain values."""
        return {"kind": self.kind, "tasks": digest(json_bytes([task.id for task in self.tasks]))}


def read_sweep(path: str | os.PathLike[str]) -> Sweep:
    """Return the sweep of a TOML file.

    Raises:
        ValueError: for a file that is missing or no TOML, an unknown key, an empty axis, two equal tasks, and a value
            that no task can take; the message names the axis or task.
    """
    path = Path(path)
    return plan(path.stem, read_toml(path), path.parent)


def plan(name: str, table: Mapping[str, Any], folder: Path = Path()) -> Sweep:
    """Return the sweep of keys and values.

    Args:
        name: of the sweep.
        table: as the file has them.
        folder: where ``base`` is looked for if it names a file.

    >>> sweep = plan("two", {"kind": "phase_diagram", "base": {"p_ref": 0.2}, "axes": {"beta": [1.0, 5.0]}})
    >>> [dict(task.axes) for task in sweep.tasks]
    [{'beta': 1.0}, {'beta': 5.0}]
    """
    file = build(_File, table)
    kind = KINDS[file.kind]
    base = kind.base(file.base, folder)
    if (file.axes is None) == (file.tasks is None):
        got = "neither" if file.axes is None else "both"
        raise ValueError(f"axes must be a table of lists, or tasks a list of tables, got {got}")
    changes = list(_grid(file.axes) if file.tasks is None else _listed(file.tasks))
    names = list(dict.fromkeys(key for change in changes for key in change))
    tasks = tuple(_task(file.kind, kind, base, change, names) for change in changes)
    _require_different(tasks)
    axes = {key: tuple(_distinct(task.axes[key] for task in tasks)) for key in names}
    return Sweep(name, file.kind, axes, tasks, kind.value if file.value is None else file.value)


def _grid(axes: Any) -> Iterator[dict[str, Any]]:
    """Yield every combination of the values of the axes."""
    if not isinstance(axes, Mapping) or not axes:
        raise ValueError(f"axes must be a table of lists, got {axes!r}")
    lists = dict(_leaves(axes))
    for key, values in lists.items():
        if not isinstance(values, list) or not values:
            raise ValueError(f"axes.{key} must be a list of at least one value, got {values!r}")
    for values in itertools.product(*lists.values()):
        yield dict(zip(lists, values, strict=True))


def _listed(tasks: Any) -> Iterator[dict[str, Any]]:
    """Yield what each task of a list changes."""
    if not isinstance(tasks, list) or not tasks or not all(isinstance(task, Mapping) for task in tasks):
        raise ValueError(f"tasks must be a list of tables, one [[tasks]] for each, got {tasks!r}")
    for task in tasks:
        yield dict(_leaves(task))


def _leaves(table: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of nested tables with dotted keys."""
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", value


def _task(name: str, kind: Kind, base: Mapping[str, Any], change: Mapping[str, Any], names: Sequence[str]) -> SweepTask:
    """Return the task of a base and what it changes, its config complete and checked."""
    table: dict[str, Any] = copy.deepcopy(dict(base))
    for key, value in change.items():
        _put(table, key, value)
    try:
        config = json.loads(json_bytes(kind.resolve(table)))
    except ValueError as error:
        where = ", ".join(f"{key} = {value!r}" for key, value in change.items())
        raise ValueError(f"{error} (in the task {where})") from None
    own = digest(json_bytes([name, config]))[:16]
    return SweepTask(own, {key: change.get(key) for key in names}, config)


def _put(table: dict[str, Any], key: str, value: Any) -> None:
    """Set the value of a dotted key."""
    *path, last = key.split(".")
    for part in path:
        inner = table.setdefault(part, {})
        if not isinstance(inner, dict):
            raise ValueError(f"axis {key!r} must name a key of a table, but {part} is {inner!r} in the base")
        table = inner
    table[last] = value


def _require_different(tasks: Sequence[SweepTask]) -> None:
    seen: dict[str, SweepTask] = {}
    for task in tasks:
        if task.id in seen:
            both = f"{dict(seen[task.id].axes)!r} and {dict(task.axes)!r}"
            raise ValueError(f"tasks must be different from one another, got the same config for {both}")
        seen[task.id] = task


def _distinct(values: Iterator[Any]) -> Iterator[Any]:
    """Yield each value once; lists are values, too."""
    seen: set[str] = set()
    for value in values:
        if (text := json.dumps(value)) not in seen:
            seen.add(text)
            yield value


def column_types(sweep: Sweep) -> dict[str, str]:
    """Return the type of each axis as a column; "JSON" is text, for lists and for values of several types.

    >>> table = {"kind": "phase_diagram", "base": {"p_ref": 0.2}, "axes": {"beta": [1, 2.5]}}
    >>> column_types(plan("x", table))
    {'beta': 'Float64'}
    """
    orders = ({bool: "Boolean"}, {int: "Int64"}, {int: "Float64", float: "Float64"}, {str: "String"})
    types: dict[str, str] = {}
    for name, values in sweep.axes.items():
        kinds = {type(value) for value in values if value is not None}
        types[name] = next((list(order.values())[-1] for order in orders if kinds <= set(order)), "JSON")
    return types

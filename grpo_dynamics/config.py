"""Configs of simulations and training runs: TOML files, read strictly into frozen dataclasses.

A key that is not known, a value of another type and a missing file are refused by name, with the nearest that is
right. What a value may be beyond its type is for the dataclass itself to check.
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import os
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from grpo_dynamics.finite_group import FiniteGroup
from grpo_dynamics.normalization import MeanOnly, Normalization, Whitened

T = TypeVar("T")

PACKAGE = Path(__file__).parent
EXPERIMENTS = next((f for f in (PACKAGE / "experiments", PACKAGE.parent / "experiments") if f.is_dir()), PACKAGE)
"""Where the experiments are: inside the package where it was installed, beside it in a checkout."""

NORMALIZATIONS: dict[str, type[Normalization]] = {
    "whitened": Whitened,
    "mean_only": MeanOnly,
    "finite_group": FiniteGroup,
}
"""The ``kind`` of a table that describes a normalisation; its other keys are the options of the class."""

WORDS = {bool: "true or false", int: "an integer", float: "a number", str: "a string"}


def nearest(wanted: Any, known: Iterable[str]) -> str:
    """Return "; the nearest is ...", or nothing where none is near.

    >>> nearest("clip_lo", ["clip_low", "beta"]), nearest("x", ["beta"])
    ("; the nearest is 'clip_low'", '')
    """
    near = difflib.get_close_matches(str(wanted), list(known), n=1, cutoff=0.3)
    return f"; the nearest is {near[0]!r}" if near else ""


def read_toml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the keys and values of a TOML file.

    Raises:
        ValueError: for a file that is missing, with the nearest name beside it, or is no TOML.
    """
    path = Path(path)
    try:
        return tomllib.loads(path.read_bytes().decode())
    except FileNotFoundError:
        names = [entry.name for entry in path.parent.glob("*.toml")] if path.parent.is_dir() else []
        raise ValueError(f"config must be a file that exists, got {str(path)!r}{nearest(path.name, names)}") from None
    except OSError as error:
        raise ValueError(f"config must be a file that can be read ({error.strerror}), got {str(path)!r}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"config must be a TOML file, got {str(path)!r}: {error}") from None


def build(kind: type[T], table: Mapping[str, Any], where: str = "", beside: tuple[str, ...] = ()) -> T:
    """Return a dataclass made of a table of a config: its fields are the keys, those with defaults may be left out.

    Args:
        kind: a dataclass whose fields have type hints. Understood are bool, int, float, str, tuples, literals, unions
            of these with None, nested dataclasses and normalisations (tables both), and Any, which takes all.
        table: keys and values.
        where: the name of the table, for messages; empty for the top of the file.
        beside: keys that the caller has read itself, for messages.

    Raises:
        ValueError: for an unknown or missing key or a value of another type, and what the dataclass itself refuses.

    >>> @dataclasses.dataclass(frozen=True)
    ... class Example:
    ...     beta: float
    ...     steps: int = 10
    >>> build(Example, {"beta": 1})
    Example(beta=1.0, steps=10)
    >>> build(Example, {"beta": 1, "step": 5})
    Traceback (most recent call last):
    ValueError: key must be one of beta, steps, got 'step'; the nearest is 'steps'
    """
    hints = typing.get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(typing.cast(Any, kind)) if field.init}
    place = f" of [{where}]" if where else ""
    for key in table:
        if key not in fields:
            known = (*beside, *fields)
            raise ValueError(f"key{place} must be one of {', '.join(known)}, got {key!r}{nearest(key, known)}")
    for name, field in fields.items():
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING and name not in table:
            raise ValueError(f"{name} must be a key{place or ' of the config'}, got nothing")
    inside = f"{where}." if where else ""
    return kind(**{key: _value(hints[key], value, inside + key) for key, value in table.items()})


def _value(hint: Any, value: Any, name: str) -> Any:
    """Return a value as its type hint has it, or raise ValueError."""
    if hint is Any:
        return value
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _one_of(arguments, value, name)
    if origin is Literal:
        if not any(type(value) is type(choice) and value == choice for choice in arguments):
            listed = ", ".join(map(repr, arguments))
            raise ValueError(f"{name} must be one of {listed}, got {value!r}{nearest(value, map(str, arguments))}")
        return value
    if origin is tuple:
        if not isinstance(value, list):
            raise ValueError(f"{name} must be a list, got {value!r}")
        items: list[Any] = value
        kinds = [arguments[0]] * len(items) if arguments[-1] is Ellipsis else list(arguments)
        if len(kinds) != len(items):
            raise ValueError(f"{name} must be a list of {len(kinds)}, got {value!r}")
        return tuple(
            _value(kind, item, f"{name}[{i}]") for i, (kind, item) in enumerate(zip(kinds, items, strict=True))
        )
    if inspect.isclass(hint) and issubclass(hint, Normalization):
        return _normalization(value, name)
    if dataclasses.is_dataclass(hint):
        return build(typing.cast(Any, hint), _table(value, name), name)
    return _plain(hint, value, name)


def _plain(hint: Any, value: Any, name: str) -> Any:
    right = isinstance(value, int | float) if hint is float else isinstance(value, hint)
    if not right or (isinstance(value, bool) and hint is not bool):
        raise ValueError(f"{name} must be {WORDS.get(hint, f'a {hint.__name__}')}, got {value!r}")
    return float(value) if hint is float else value


def _one_of(kinds: tuple[Any, ...], value: Any, name: str) -> Any:
    """Return the value as the first kind that takes it; the refusal is that of the last."""
    kinds = tuple(kind for kind in kinds if kind is not types.NoneType)
    for kind in kinds[:-1]:
        try:
            return _value(kind, value, name)
        except ValueError:
            continue
    return _value(kinds[-1], value, name)


def _table(value: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{name} must be a table, got {value!r}")
    return typing.cast(dict[str, Any], value)


def _normalization(value: Any, name: str) -> Normalization:
    table = dict(_table({"kind": value} if isinstance(value, str) else value, name))
    kind = table.pop("kind", None)
    if kind not in NORMALIZATIONS:
        listed = ", ".join(NORMALIZATIONS)
        raise ValueError(f"{name}.kind must be one of {listed}, got {kind!r}{nearest(kind, NORMALIZATIONS)}")
    return build(NORMALIZATIONS[kind], table, name)


def as_table(settings: Any) -> dict[str, Any]:
    """Return a dataclass of settings as plain values, as a manifest has them; ``build`` takes them back.

    >>> as_table(Whitened(eps=0.0))
    {'kind': 'whitened', 'eps': 0.0, 'eps_placement': 'variance'}
    """
    kinds = {kind: name for name, kind in NORMALIZATIONS.items()}
    head = {"kind": kinds[type(settings)]} if type(settings) in kinds else {}
    values = ((field.name, getattr(settings, field.name)) for field in dataclasses.fields(settings) if field.init)
    return head | {name: _as_plain(value) for name, value in values if value is not None}


def _as_plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return as_table(value)
    if isinstance(value, list | tuple):
        return [_as_plain(item) for item in typing.cast(Iterable[Any], value)]
    return value.tolist() if hasattr(value, "tolist") else value

"""Bad input: one line that names what is wrong, the value, and what is allowed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

T = TypeVar("T")


class BadInput(Exception):
    """Something the user gave is wrong; the message is one line, ``name must be allowed, got value``.

    Not a ValueError: the command-line library would wrap that in words of its own.
    """


def refuse(name: str, allowed: str, value: Any) -> NoReturn:
    """Raise BadInput in the one form that every error has."""
    raise BadInput(f"{name} must be {allowed}, got {value if isinstance(value, float | int) else repr(value)}")


def missing(name: str, allowed: str) -> NoReturn:
    """Raise BadInput for an option that was left out."""
    raise BadInput(f"{name} must be {allowed}, got nothing: add --{name.replace('_', '-')}")


def required(name: str, allowed: str, value: T | None) -> T:
    """Return the value of an option that has to be there."""
    if value is None:
        missing(name, allowed)
    return value


def leave_out(when: str, **values: Any) -> None:
    """Refuse options that have no meaning here."""
    for name, value in values.items():
        if value is not None:
            refuse(name, f"left out {when}", value if isinstance(value, float) else str(value))


@contextlib.contextmanager
def bad_input() -> Generator[None]:
    """Turn the ValueError with which the package refuses an argument into BadInput."""
    try:
        yield
    except ValueError as error:
        raise BadInput(str(error)) from None


@contextlib.contextmanager
def writing(name: str, path: Path) -> Generator[None]:
    """Turn the operating system's refusal into one line that names the path."""
    try:
        yield
    except OSError as error:
        refuse(name, f"a place that can be written ({error.strerror or error})", str(path))


def output_file(name: str, path: Path, endings: Sequence[str]) -> Path:
    """Refuse a file name that could not be written, before any work is done."""
    if path.suffix.lower() not in endings:
        refuse(name, f"a file name that ends in {', '.join(endings)}", str(path))
    with writing(name, path):
        if path.is_dir():
            refuse(name, "a file name, not a folder", str(path))
    return path


def number(name: str, allowed: str, kind: Callable[[Any], Any] = float) -> Callable[[Any], Any]:
    """Return a parser of a number, which names the option where it cannot."""

    def parse(text: Any) -> Any:
        try:
            return kind(text)
        except ValueError:
            refuse(name, allowed, text)

    return parse


def path(name: str, allowed: str) -> Callable[[Any], Path]:
    """Return a parser of a path, which refuses the empty one: an unset variable of a script, not this folder."""

    def parse(text: Any) -> Path:
        if not str(text):
            refuse(name, allowed, text)
        return Path(text)

    return parse


def choice(name: str, choices: Sequence[Any], kind: Callable[[Any], Any] = str) -> Callable[[Any], Any]:
    """Return a parser of one of a few values."""

    def parse(text: Any) -> Any:
        with contextlib.suppress(ValueError):
            if kind(text) in choices:
                return kind(text)
        refuse(name, f"one of {', '.join(map(str, choices))}", text)

    return parse

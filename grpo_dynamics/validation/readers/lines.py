"""Lines of JSON, read in pieces and with only the keys that are needed; a line that is none is named and left out.

Whole pieces go through a fast parser. Only a piece that it refuses is read again line by line.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from grpo_dynamics.validation.readers.samples import Notes

PIECE = 16 * 2**20
"""Bytes that are read at once: memory stays small however large a file is."""

LONGEST = 16 * PIECE
"""A line of more bytes is no completion: the file is of another kind, and no more is read of it."""

KINDS: dict[type, Any] = {bool: pl.Boolean, int: pl.Float64, float: pl.Float64, str: pl.String}
NUMBERS = ("step", "global_step", "iteration")


def read_lines(
    path: Path, needed: Sequence[str], wanted: Sequence[str], notes: Notes, naming: Sequence[str] = ()
) -> Iterator[pl.DataFrame]:
    """Yield a table of each piece of a file of JSON objects, with the number of the line as ``row``.

    Args:
        path: the file.
        needed: keys that every object must have; a file whose first object lacks one is left out, with a note.
        wanted: keys that are read where they are there; null elsewhere.
        notes: told of lines that are no JSON object, and of files left out.
        naming: keys that name a question: an integer stays what it is, as text, however large; others become floats.
    """
    keys = [*needed, *(name for name in wanted if name not in needed)]
    schema: dict[str, Any] | None = None
    line = 1
    for piece in _pieces(path):
        if schema is None:
            objects = ((i, _object(text)) for i, text in enumerate(io.BytesIO(piece), start=line))
            number, found = next(((i, found) for i, found in objects if found is not None), (line, None))
            if found is not None:
                lacking = [name for name in needed if name not in found]
                if lacking:
                    text = f"{path}, line {number}: no {', '.join(map(repr, lacking))}, got"
                    notes.add("foreign", f"{text} {', '.join(found)[:200]}; the file is left out")
                    return
                schema = {name: _kind(name, found.get(name), name in naming) for name in keys}
        lines = piece.count(b"\n") + (not piece.endswith(b"\n"))
        table = _fast(piece, schema) if schema and None not in schema.values() else None
        if table is None or table.height != lines:
            table = _slow(piece, keys, path, line, notes, naming)
        else:
            table = table.with_row_index("row", line)
        if table.height:
            yield table
        line += lines
    if line == 1:
        notes.add("empty", f"{path} has no lines that can be read")


def first_object(path: Path) -> dict[str, Any] | None:
    """Return the first object of a file of lines, past lines that are none; None where there is none."""
    with path.open("rb") as file:
        return next((found for line in file if (found := _object(line)) is not None), None)


def _pieces(path: Path) -> Iterator[bytes]:
    """Whole lines of about PIECE bytes each."""
    with path.open("rb") as file:
        left = b""
        while data := file.read(PIECE):
            left = left + data if left else data
            if len(left) > LONGEST:
                return
            end = left.rfind(b"\n")
            if end >= 0:
                yield left[: end + 1]
                left = left[end + 1 :]
        if left.strip():
            yield left


def _fast(piece: bytes, schema: Mapping[str, Any]) -> pl.DataFrame | None:
    try:
        return pl.read_ndjson(io.BytesIO(piece), schema=schema)  # pyright: ignore[reportArgumentType]
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException):
        return None


def _slow(
    piece: bytes, keys: Sequence[str], path: Path, line: int, notes: Notes, naming: Sequence[str]
) -> pl.DataFrame:
    """The objects of a piece one by one."""
    columns: dict[str, list[Any]] = {name: [] for name in keys}
    rows: list[int] = []
    lines = piece.split(b"\n")
    if not lines[-1].strip():
        lines.pop()
    for number, text in enumerate(lines, start=line):
        found = _object(text)
        if found is None and text.strip():
            begun, ended = text.lstrip()[:1] == b"{", text.rstrip()[-1:] == b"}"
            what = "is cut off" if begun and not ended else "is no JSON object"
            notes.add("broken line", f"{path}, line {number} {what}, so it is left out")
        if found is not None:
            rows.append(number)
            for name, values in columns.items():
                values.append(found.get(name))
    table = {name: column(name, values, name in naming) for name, values in columns.items()}
    return pl.DataFrame({"row": pl.Series(rows, dtype=pl.UInt32), **table})


def column(name: str, values: list[Any], naming: bool = False) -> pl.Series:
    """Return values of JSON as a column: texts, numbers, lists of numbers; all else as JSON.

    Where they name a question, numbers are texts too: a float cannot tell large integers apart.
    """
    there = [value for value in values if value is not None]
    if not naming and all(isinstance(value, bool | int | float) for value in there):
        return pl.Series(name, [None if value is None else float(value) for value in values], dtype=pl.Float64)
    if all(isinstance(value, list) and all(type(item) is int for item in value) for value in there):  # pyright: ignore
        return pl.Series(name, values, dtype=pl.List(pl.Int64))
    as_text: Callable[[Any], str | None] = lambda value: (  # noqa: E731
        value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    )
    texts = [as_text(value) for value in values]
    return pl.Series(name, [None if t is None else t.encode("utf-8", "replace").decode() for t in texts], pl.String)


def _object(text: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None  # pyright: ignore[reportUnknownVariableType]


def _kind(name: str, value: Any, naming: bool) -> Any:
    """The type of a column after its first value; None where only the slow way can tell."""
    if naming and isinstance(value, int) and not isinstance(value, bool):
        return pl.String
    if name in NUMBERS and isinstance(value, int | float):
        return pl.Int64
    if isinstance(value, list):
        items: list[Any] = value
        whole = all(isinstance(item, int) and not isinstance(item, bool) for item in items)
        return pl.List(pl.Int64) if whole else None
    return KINDS.get(type(value), pl.String if value is None else None)

"""Tables in files, with every way in which a file can be broken turned into a note or one line."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from grpo_dynamics.validation.readers.samples import Notes

BROKEN = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError)
"""What reading a file that was cut, or is none, raises."""

PIECE = 50_000
"""Rows that are in memory at once where they are read one by one."""


def read_parquet(path: Path, notes: Notes) -> pl.DataFrame | None:
    """Return a table, None with a note where it cannot be read."""
    try:
        return pl.read_parquet(path, glob=False)
    except BROKEN as error:
        notes.add("broken file", f"{path} cannot be read ({reason(error)}), so it is left out")
        return None


def csv_rows(path: Path, columns: Sequence[str], notes: Notes) -> Iterator[pl.DataFrame]:
    """Yield the rows of a CSV file that polars refuses, as texts with their ``row``; what is no row is left out.

    Args:
        path: the file.
        columns: names in its first line.
        notes: told of rows that are cut, of other lengths than the first line, or not in UTF-8.
    """
    rows: list[list[Any]] = []
    for number, fields in _fields(path, columns, notes):
        rows.append([number, *fields])
        if len(rows) == PIECE:
            yield _texts(rows, columns)
            rows = []
    if rows:
        yield _texts(rows, columns)


def _texts(rows: list[list[Any]], columns: Sequence[str]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema={"row": pl.UInt32, **dict.fromkeys(columns, pl.String)}, orient="row")


def _fields(path: Path, columns: Sequence[str], notes: Notes) -> Iterator[tuple[int, list[str]]]:
    """The number of each row, from 1, and its fields."""
    with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
        reader = csv.reader(file, strict=True)
        head = next(reader)
        places = [head.index(name) for name in columns]
        for number in itertools.count(1):
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                cut = "unexpected end" in str(error)
                text = "is cut off, or a quote in it is not closed" if cut else f"is no row ({error})"
                notes.add("broken row", f"{path}, row {number} {text}, so it is left out")
                continue
            fields = [row[place] for place in places] if len(row) == len(head) else []
            if any("\udc80" <= letter <= "\udcff" for field in fields for letter in field):
                notes.add("broken row", f"{path}, row {number} is not UTF-8, so it is left out")
            elif fields:
                yield number, fields
            elif row:
                text = f"has {len(row)} fields of {len(head)}"
                notes.add("broken row", f"{path}, row {number} {text}, so it is left out")


def reason(error: BaseException) -> str:
    """Return the first line of what went wrong."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__

"""Tables of questions as files: CSV, JSONL and parquet, read with every doubtful value refused by row."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from grpo_dynamics.arrays import Array

if TYPE_CHECKING:
    import polars as pl

ENDINGS = (".csv", ".jsonl", ".parquet")

RATE = "a success rate between 0 and 1"

ID_NAMES = ("question_id", "prompt_id", "id", "question", "prompt")
RATE_NAMES = ("p_ref", "success_rate", "pass_rate", "accuracy", "rate", "p")
SUCCESSES_NAMES = ("successes", "num_correct", "n_correct", "correct", "k")
SAMPLES_NAMES = ("samples", "num_samples", "n_samples", "total", "n")


@dataclasses.dataclass(frozen=True)
class Questions:
    """Questions and what was measured of them.

    Attributes:
        ids: their names, all different, shape (n,); a polars series with the name of its column.
        p_ref: measured success rates in [0, 1], shape (n,).
        successes: numbers of correct samples, shape (n,); None if only rates were given.
        samples: numbers of samples, shape (n,); None if not known.
        notes: what is odd about them, in sentences.
    """

    ids: pl.Series
    p_ref: Array
    successes: Array | None = None
    samples: Array | None = None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Return how many."""
        return len(self.ids)


def read_questions(
    path: str | os.PathLike[str],
    id_column: str | None = None,
    rate_column: str | None = None,
    successes_column: str | None = None,
    samples_column: str | None = None,
) -> Questions:
    """Return the questions of a CSV, JSONL or parquet file, by its ending.

    A row is a question: an id, and integers 0 ≤ successes ≤ samples or a success rate in [0, 1], with or without a
    number of samples. Where a table has both successes and rates, the successes count, and a note says where the rates
    are others. Other columns are not read.

    Args:
        path: the file.
        id_column: name of a column; if not given, the first of ``ID_NAMES`` there is, in upper or lower case.
        rate_column: the same with ``RATE_NAMES``; if given, it counts and not the successes.
        successes_column: the same with ``SUCCESSES_NAMES``.
        samples_column: the same with ``SAMPLES_NAMES``.

    Raises:
        ValueError: for a file that is missing, not readable or of another type, an empty table, missing columns, ids
            that are null or not unique, and values out of range; the message names the value and the row, counted
            from 1 without the header.
    """
    path = Path(path)
    with _readable(path):
        frame = _open_table(path)
        found = frame.collect_schema().names()
    id_name = _column(found, "id_column", id_column, ID_NAMES)
    successes_name = _column(found, "successes_column", successes_column, SUCCESSES_NAMES)
    samples_name = _column(found, "samples_column", samples_column, SAMPLES_NAMES)
    rate_name = _column(found, "rate_column", rate_column, RATE_NAMES)
    counted = rate_column is None and successes_name is not None and samples_name is not None
    if id_name is None:
        raise ValueError(f"columns must include an id ({', '.join(ID_NAMES)}), got {', '.join(found) or 'none'}")
    chosen = successes_name if counted else rate_name
    if chosen is None:
        raise ValueError(
            f"columns must include a success rate ({', '.join(RATE_NAMES)}), or successes "
            f"({', '.join(SUCCESSES_NAMES)}) and samples ({', '.join(SAMPLES_NAMES)}), got {', '.join(found)}"
        )
    with _readable(path):
        wanted = [name for name in (id_name, chosen, samples_name, rate_name) if name is not None]
        table = frame.select(list(dict.fromkeys(wanted))).collect()
    if table.height == 0:
        raise ValueError(f"file must be a table with at least one question, got no rows in {str(path)!r}")
    ids = _ids(table[id_name])
    samples = None if samples_name is None else _counts(table[samples_name], 1)
    if not counted or samples is None:
        p_ref = _numbers(table[chosen], RATE)
        _refuse_where((p_ref < 0) | (p_ref > 1), table[chosen], RATE)
        return Questions(ids, p_ref, None, samples)
    successes = _counts(table[chosen], 0)
    more = np.flatnonzero(successes > samples)
    if more.size:
        row = int(more[0])
        limit = f"{chosen} must be at most {samples_name} ({samples[row]})"
        raise ValueError(f"{limit}, got {successes[row]} in row {row + 1}")
    notes = () if rate_name is None else _other_rates(table[rate_name], successes, samples)
    return Questions(ids, successes / samples, successes, samples, notes)


def table_bytes(table: pl.DataFrame, path: Path) -> bytes:
    """Return a table as the bytes of a CSV, JSONL or parquet file, by the ending of the path."""
    buffer = io.BytesIO()
    writers = {".csv": table.write_csv, ".jsonl": table.write_ndjson, ".parquet": table.write_parquet}
    writers[path.suffix.lower()](buffer)
    return buffer.getvalue()


@contextlib.contextmanager
def _readable(path: Path) -> Generator[None]:
    """Say in one line what is wrong with a file."""
    import polars as pl

    try:
        yield
    except OSError as error:
        raise ValueError(f"file must be one that can be read ({error.strerror or error}), got {str(path)!r}") from None
    except (pl.exceptions.PolarsError, UnicodeDecodeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"file must be a whole {path.suffix[1:]} table ({reason}), got {str(path)!r}") from None


def _open_table(path: Path) -> pl.LazyFrame:
    """CSV and JSONL with the values as they stand there, parquet with its types."""
    import polars as pl

    kind = path.suffix.lower()
    if kind not in ENDINGS:
        raise ValueError(f"file must be a file name that ends in {', '.join(ENDINGS)}, got {str(path)!r}")
    if path.is_dir():
        raise ValueError(f"file must be a table of questions, got the folder {str(path)!r}")
    if not path.exists():
        raise ValueError(f"file must be one that exists, got {str(path)!r}")
    if path.stat().st_size == 0:
        raise ValueError(f"file must be a table with at least one question, got the empty file {str(path)!r}")
    if kind == ".parquet":
        return pl.scan_parquet(path, glob=False)
    if kind == ".jsonl":
        return _read_jsonl(path).lazy()
    table = pl.read_csv(path, infer_schema=False, glob=False)
    return table.filter(~pl.all_horizontal(pl.all().is_null())).lazy()  # without blank lines


def _read_jsonl(path: Path) -> pl.DataFrame:
    import polars as pl

    one = "file must be one JSON object a line"
    columns: dict[str, list[Any]] = {}
    rows = 0
    with path.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:  # also: numbers of thousands of digits, lists in lists in ...
                reason = getattr(error, "msg", None) or str(error).split(";")[0]
                raise ValueError(f"{one}, got {_shown(line.strip())} in line {number} ({reason})") from None
            if not isinstance(row, dict) or not all(map(_is_text, row)):
                raise ValueError(f"{one}, got {_shown(line.strip())} in line {number}")
            for name, value in row.items():
                column = columns.setdefault(name, [])
                column.extend([None] * (rows - len(column)))
                column.append(value)
            rows += 1
    filled = {name: column + [None] * (rows - len(column)) for name, column in columns.items()}
    return pl.DataFrame({name: pl.Series(name, column, dtype=pl.Object) for name, column in filled.items()})


def _column(found: Sequence[str], option: str, wanted: str | None, usual: Sequence[str]) -> str | None:
    """The name of a column: the one asked for, or the first usual one."""
    if wanted is not None:
        if wanted not in found:
            raise ValueError(f"{option} must be one of the columns {', '.join(found) or '(none)'}, got {wanted!r}")
        return wanted
    there = {name.strip().lower(): name for name in reversed(found)}
    return next((there[name] for name in usual if name in there), None)


def _ids(column: pl.Series) -> pl.Series:
    """The ids as strings or integers, all there and all different."""
    import polars as pl

    allowed = "a string or an integer in every row"
    if column.dtype == pl.Object:
        values = column.to_list()
        for row, value in enumerate(values, start=1):
            if not isinstance(value, str | int) or isinstance(value, bool) or not _is_text(value):
                raise ValueError(f"{column.name} must be {allowed}, got {_shown(value)} in row {row}")
        whole = all(isinstance(value, int) and abs(value) < 2**63 for value in values)
        column = pl.Series(column.name, values if whole else [str(value) for value in values])
    elif column.dtype == pl.String:
        numbers = column.cast(pl.Int64, strict=False)
        if (numbers.cast(pl.String) == column).all(ignore_nulls=False):  # "007" stays a string
            column = numbers
    elif not column.dtype.is_integer() and column.dtype != pl.Categorical:
        raise ValueError(f"{column.name} must be {allowed}, got {column.dtype}")
    if column.null_count():
        row = int(column.is_null().arg_true()[0]) + 1
        raise ValueError(f"{column.name} must be {allowed}, got nothing in row {row}")
    if column.is_duplicated().any():
        first = int(column.is_duplicated().arg_true()[0])
        one, two = (column == column[first]).arg_true().to_list()[:2]
        twice = f"{column[first]!r} in rows {one + 1} and {two + 1}"
        raise ValueError(f"{column.name} must be different in every row, got {twice}")
    return column


def _is_text(value: str | int) -> bool:
    """Whether a file can hold it: JSON's escapes can spell halves of characters."""
    return isinstance(value, int) or value.isascii() or not any("\ud800" <= c <= "\udfff" for c in value)


def _numbers(column: pl.Series, allowed: str) -> Array:
    """The column as floating-point numbers without NaN."""
    import polars as pl

    if column.dtype == pl.Object:
        values = np.empty(len(column))
        for i, value in enumerate(column.to_list()):
            try:
                right = isinstance(value, int | float) and not isinstance(value, bool)
                values[i] = float(value) if right else np.nan
            except OverflowError:  # JSON has integers of any size
                values[i] = np.nan
        _refuse_where(np.isnan(values), column, allowed)
        return values
    if column.dtype == pl.String:
        numbers = column.str.strip_chars().cast(pl.Float64, strict=False)
    elif column.dtype.is_numeric():
        numbers = column.cast(pl.Float64)
    else:
        raise ValueError(f"{column.name} must be {allowed}, got a column of type {column.dtype}")
    wrong = numbers.is_null() | numbers.is_nan()
    _refuse_where(wrong.fill_null(True).to_numpy(), column, allowed)
    return numbers.to_numpy()


def _other_rates(column: pl.Series, successes: Array, samples: Array) -> tuple[str, ...]:
    """Say where a column of rates is not successes/samples; what is no column of numbers says nothing."""
    try:
        rows = np.flatnonzero(np.abs(_numbers(column, RATE) - successes / samples) > 1e-6)
    except ValueError:
        return ()
    if rows.size == 0:
        return ()
    first = f"{_shown(column[int(rows[0])])} beside {successes[rows[0]]} of {samples[rows[0]]} in row {rows[0] + 1}"
    which = "that row" if rows.size == 1 else f"{rows.size} rows"
    return (f"{column.name} is {first}: in {which} the counts are taken, not the rate",)


def _counts(column: pl.Series, least: int) -> Array:
    allowed = f"an integer >= {least}"
    values = _numbers(column, allowed)
    _refuse_where((values < least) | (values > 2**53) | (values != np.floor(values)), column, allowed)
    return values.astype(np.int64)


def _refuse_where(wrong: Array, column: pl.Series, allowed: str) -> None:
    rows = np.flatnonzero(wrong)
    if rows.size:
        raise ValueError(f"{column.name} must be {allowed}, got {_shown(column[int(rows[0])])} in row {rows[0] + 1}")


def _shown(value: Any) -> str:
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 60 else f"{text[:56]} ..."

"""Questions from files and data sets: a column of prompts and a column of answers, everything else kept beside them."""

from __future__ import annotations

import importlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from grpo_dynamics.config import nearest

if TYPE_CHECKING:
    from grpo_dynamics.training.tasks import Question

Row = dict[str, Any]


def after_hashes(solution: str) -> str | None:
    r"""Return what follows the last ``####``, as in GSM8K, without the commas of thousands; None if nothing does.

    >>> after_hashes("40 * 30 = 1,200\n#### 1,200")
    '1200'
    """
    _, marker, answer = solution.rpartition("####")
    return re.sub(r"(?<=\d),(?=\d{3})", "", answer.strip()) or None if marker else None


def in_box(solution: str) -> str | None:
    r"""Return what the last ``\boxed{...}`` or ``\fbox{...}`` holds, as in MATH; None if there is none, or it is open.

    >>> in_box(r"$\boxed{1}$, no: $\boxed{\frac{1}{2}}$")
    '\\frac{1}{2}'
    >>> in_box(r"$\boxed 7$")
    '7'
    """
    boxes = list(re.finditer(r"\\(?:boxed|fbox)\s*(\{|[^\s{$])", solution))
    if not boxes:
        return None
    if boxes[-1][1] != "{":
        return boxes[-1][1]
    depth, start = 0, boxes[-1].end()
    for brace in re.finditer(r"\\.|[{}]", solution[start:], re.DOTALL):
        depth += {"{": 1, "}": -1}.get(brace[0], 0)
        if depth < 0:
            return solution[start : start + brace.start()].strip() or None
    return None


def _as_it_is(answer: str) -> str | None:
    return answer


SCHEMAS: dict[str | None, tuple[str, str, Callable[[str], str | None], str]] = {
    None: ("prompt", "answer", _as_it_is, "a text"),
    "gsm8k": ("question", "answer", after_hashes, 'a text that ends in "#### " and the answer'),
    "math": ("problem", "solution", in_box, r"a text with the answer in \boxed{}"),
}
"""Schema → columns of prompt and answer, how an answer is read, and what it must look like."""


def questions_from(
    source: str | os.PathLike[str],
    prompt: str | None = None,
    answer: str | None = None,
    *,
    schema: str | None = None,
    split: str = "train",
    config: str | None = None,
    template: str = "{prompt}",
    required: Sequence[str] = (),
) -> tuple[Question, ...]:
    """Return the questions of a data set; the arguments are those of :func:`grpo_dynamics.training.tasks.dataset`.

    A column "id" names the questions, else they are numbered from 0. All other columns are in ``extra``.

    Args:
        source: file, folder, or name on the hub.
        prompt: the column of prompts.
        answer: the column of answers.
        schema: "gsm8k", "math" or None.
        split: of a data set.
        config: of a data set that has several.
        template: of the whole prompt.
        required: further columns that every row must have.

    Raises:
        ValueError: one line that names the file and, where there is one, the row.
    """
    from grpo_dynamics.training.tasks import Question

    if schema not in SCHEMAS:
        names = [name for name in SCHEMAS if name]
        raise ValueError(f"schema must be one of {', '.join(names)}, got {schema!r}{nearest(schema, names)}")
    if "{prompt}" not in template:
        raise ValueError(f"template must hold {{prompt}}, got {template!r}")
    usual_prompt, usual_answer, read, form = SCHEMAS[schema]
    prompt, answer = prompt or usual_prompt, answer or usual_answer
    found: list[Question] = []
    for number, (where, row) in enumerate(_rows(source, split, config)):
        for column in (prompt, answer, *required):
            if column not in row:
                raise ValueError(f"column {column!r} must be in {where}, got {', '.join(row)}{nearest(column, row)}")
        text, wanted = _text(row[prompt], prompt, where), _text(row[answer], answer, where)
        if (solved := read(wanted)) is None:
            raise ValueError(f"{answer} must be {form} in {where}, got {_short(wanted)}")
        extra = {key: value for key, value in row.items() if key not in ("id", prompt, answer)}
        name = str(row["id"]) if row.get("id") is not None else str(number)
        found.append(Question(name, template.replace("{prompt}", text), solved, None, extra))
    if not found:
        raise ValueError(f"source must hold at least one question, got {os.fspath(source)!r}, which is empty")
    return tuple(found)


def _rows(source: str | os.PathLike[str], split: str, config: str | None) -> Iterator[tuple[str, Row]]:
    """Every row with the words for where it stands."""
    path = Path(source).expanduser()
    if path.is_file() and path.suffix in (".jsonl", ".json"):
        return _lines(path)
    if path.is_file() and path.suffix == ".parquet":
        return _numbered(path.name, _parquet(path))
    if path.is_file():
        raise ValueError(f"source must be a .jsonl or .parquet file, a folder or a name, got {str(source)!r}")
    name = os.fspath(source)
    if not name:
        raise ValueError("source must be a file, a folder or a name, got ''")
    if not path.is_dir() and (path.suffix in (".jsonl", ".json", ".parquet") or path.is_absolute()):
        beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        raise ValueError(f"source must be a file that exists, got {name!r}{nearest(path.name, beside)}")
    return _numbered(f"{name} ({split})", _hugging_face(path if path.is_dir() else None, name, split, config))


def _numbered(name: str, rows: Iterable[Row]) -> Iterator[tuple[str, Row]]:
    return ((f"row {number} of {name}", row) for number, row in enumerate(rows, start=1))


def _lines(path: Path) -> Iterator[tuple[str, Row]]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(_readable(file, path), start=1):
            where = f"row {number} of {path.name}"
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (json.JSONDecodeError, RecursionError) as error:
                raise ValueError(f"{where} must be a JSON object, got {_short(line.strip())}: {error}") from None
            if not isinstance(row, dict):
                raise ValueError(f"{where} must be a JSON object, got {_short(line.strip())}")
            yield where, cast(Row, row)


def _readable(file: Iterable[str], path: Path) -> Iterator[str]:
    try:
        yield from file
    except UnicodeDecodeError:
        raise ValueError(f"source must be text in UTF-8, got {str(path)!r}") from None


def _parquet(path: Path) -> Iterable[Row]:
    import polars as pl

    try:
        return pl.read_parquet(path).iter_rows(named=True)
    except (pl.exceptions.PolarsError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"source must be a parquet file, got {str(path)!r}: {reason}") from None


def _hugging_face(folder: Path | None, name: str, split: str, config: str | None) -> Iterable[Row]:
    """The rows of a data set: saved by ``save_to_disk``, a folder of files, or on the hub."""
    datasets: Any = importlib.import_module("datasets")  # it has no type hints
    try:
        if folder is not None and any((folder / f).exists() for f in ("dataset_info.json", "dataset_dict.json")):
            data = datasets.load_from_disk(str(folder))
            data = data[split] if isinstance(data, datasets.DatasetDict) else data
        else:
            data = datasets.load_dataset(name, config, split=split)
    except (ValueError, OSError, RuntimeError, KeyError, datasets.exceptions.DatasetsError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"source must be a file, folder or data set that can be read, got {name!r}: {reason}"
        ) from None
    return data


def _text(value: Any, column: str, where: str) -> str:
    """The text of a cell; whole numbers are texts too, as answers often are."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value:
        raise ValueError(f"{column} must be a text in {where}, got {value!r}")
    return value


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")

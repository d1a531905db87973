"""How often each question was answered right at its first visit and at its latest, in memory that has a bound."""

from __future__ import annotations

import json
import numbers
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grpo_dynamics.question_files import read_questions
from grpo_dynamics.validation.readers.samples import conversation, prompt_id

if TYPE_CHECKING:
    import polars as pl

FORMAT = 1
"""Of the saved file."""

Pair = tuple[int, int]


class Counts:
    """Successes and samples of each question: those that tell p_ref, and those of its latest visit.

    Args:
        most: questions beyond so many are not told apart from those never seen; ≥ 1. A question takes about 300 bytes.
        reference: counts of the reference policy, measured before.
    """

    def __init__(self, most: int, reference: Mapping[str, Pair] | None = None) -> None:
        if isinstance(most, bool) or not isinstance(most, int) or most < 1:
            raise ValueError(f"most_questions must be an integer >= 1, got {most!r}")
        self._most = most
        self._given: dict[str, Pair] = dict(reference or {})
        self._seen: dict[str, list[int]] = {}

    def __len__(self) -> int:
        """Return how many questions were seen."""
        return len(self._seen)

    def __contains__(self, question: str) -> bool:
        """Return whether a question was seen."""
        return question in self._seen

    def visit(self, question: str, successes: int, samples: int) -> Pair | None:
        """Note a visit; return (successes, samples) of the reference, None for a question beyond the bound."""
        row = self._seen.get(question)
        if row is None:
            if len(self._seen) >= self._most:
                return None
            row = self._seen[question] = [*self._given.get(question, (successes, samples)), 0, 0, 0]
        row[2:] = successes, samples, row[4] + 1
        return row[0], row[1]

    def reference(self, question: str) -> Pair | None:
        """Return (successes, samples) of the reference, None where nothing is known."""
        row = self._seen.get(question)
        return self._given.get(question) if row is None else (row[0], row[1])

    def rows(self) -> Iterator[tuple[str, int, int, int, int, int]]:
        """Yield question, successes and samples of the reference, of the latest visit, and the number of visits."""
        for question, row in self._seen.items():
            yield question, row[0], row[1], row[2], row[3], row[4]

    def save(self, path: Path) -> None:
        """Write all counts as JSON, in one piece."""
        writing = path.with_name(f"{path.name}.writing")
        writing.write_text(json.dumps({"format": FORMAT, "questions": self._seen}), encoding="utf-8")
        os.replace(writing, path)

    def load(self, path: Path) -> None:
        """Take the counts of a file that :meth:`save` wrote in place of those held.

        Raises:
            ValueError: for a file that cannot be read, or is another.
        """
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            rows = {str(question): [int(value) for value in row] for question, row in found["questions"].items()}
            whole = found["format"] == FORMAT and all(map(_is_row, rows.values()))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            whole, rows = False, {}
        if not whole:
            raise ValueError(f"counts must be a file that this callback saved beside a checkpoint, got {str(path)!r}")
        self._seen = rows


def _is_row(row: list[int]) -> bool:
    return len(row) == 5 and 0 <= row[0] <= row[1] and 0 <= row[2] <= row[3] and row[4] >= 1


def reference_counts(given: Any) -> dict[str, Pair]:
    """Return question → (successes, samples) from a mapping, or from a table of questions as a file.

    Args:
        given: a mapping of ids to (successes, samples); a CSV, JSONL or parquet file; or None, for nothing.

    Raises:
        ValueError: for a table without numbers of samples, and counts out of range.
    """
    if given is None:
        return {}
    if not isinstance(given, Mapping | str | os.PathLike):
        allowed = "a mapping of ids to (successes, samples), or a table as a file"
        raise ValueError(f"p_ref must be {allowed}, got {given!r}")
    if not isinstance(given, Mapping):
        questions = read_questions(given)
        if questions.successes is None or questions.samples is None:
            raise ValueError(f"p_ref must be a table with successes and samples of every question, got {str(given)!r}")
        pairs = zip(questions.successes.tolist(), questions.samples.tolist(), strict=True)
        return {str(name): pair for name, pair in zip(questions.ids.to_list(), pairs, strict=True)}
    for question, pair in given.items():
        right = isinstance(pair, tuple | list) and len(pair) == 2 and all(_is_count(value) for value in pair)
        if not right or not 0 <= pair[0] <= pair[1] or pair[1] < 1:
            allowed = "(successes, samples) with 0 <= successes <= samples, samples >= 1, for every question"
            raise ValueError(f"p_ref must be {allowed}, got {pair!r} for {question!r}")
    return {str(question): (int(pair[0]), int(pair[1])) for question, pair in given.items()}


def _is_count(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def question_of(prompt: Any) -> str:
    """Return the id of a question without one: that of its prompt, the same in every run and in ``validate --from``.

    Raises:
        ValueError: for a prompt that is neither a text nor messages of plain values; pictures have no such id.

    >>> question_of("What is 1+1?"), question_of([{"role": "user", "content": "What is 1+1?"}])
    ('q-31adf3e245f99d7b', 'q-9a520a7551f4592b')
    """
    if not isinstance(prompt, str):
        try:
            json.dumps(prompt)
        except (TypeError, ValueError):
            raise ValueError(
                "prompts must be texts, or messages of plain values, to tell questions apart (or name a column of ids "
                f"as question_column), got {type(prompt).__name__}"
            ) from None
    return prompt_id(conversation(prompt))


def table(rows: Iterable[tuple[Any, ...]]) -> pl.DataFrame:
    """Return the counts as a table with one row per question; ``read_questions`` reads it where it is saved."""
    import polars as pl

    names = ("question_id", "successes", "samples", "latest_successes", "latest_samples", "visits")
    kinds = {name: pl.String if name == "question_id" else pl.Int64 for name in names}
    return pl.DataFrame(list(rows), schema=kinds, orient="row")

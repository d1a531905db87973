"""Completions that another trainer has dumped, one row each, and the names of their questions."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import polars as pl

SAMPLES: dict[str, Any] = {
    "step": pl.Int64,
    "question": pl.UInt32,
    "reward": pl.Float64,
    "earned": pl.Float64,
    "completion_length": pl.UInt32,
    "finish_reason": pl.String,
}
"""Columns of the rows that a reader makes: question is a number of :class:`QuestionIds`; reward decides what is right,
earned is what the trainer gave for it, null where that is the reward; lengths may be null."""

SHOWN = 300
"""So many characters of a prompt are kept, for people to see which question it is."""


@dataclasses.dataclass(frozen=True)
class Choices:
    """What a user may say about a dump that it does not say itself; None: as the reader finds it.

    Args:
        success_column: which column says right or wrong.
        question_column: which column names the question, instead of the prompt.
        step_column: which column counts the steps, in a table of any origin.
        threshold: a completion is right where its reward is at least this.
        first_step: the step whose completions are those of the policy before training.
        window: so many of the dumped steps are counted together; 1: none are.
        p_ref: a table of success counts before training, see :func:`~grpo_dynamics.question_files.read_questions`.
        run: which run, where a folder holds several.
    """

    success_column: str | None = None
    question_column: str | None = None
    step_column: str | None = None
    threshold: float | None = None
    first_step: int | None = None
    window: int | None = None
    p_ref: Path | None = None
    run: str | None = None

    def __post_init__(self) -> None:
        if self.threshold is not None and self.threshold != self.threshold:
            raise ValueError(f"threshold must be a number, got {self.threshold}")
        if self.window is not None and self.window < 1:
            raise ValueError(f"window must be an integer >= 1, got {self.window}")


class Notes:
    """What a reader of the report has to know about the files: the first of each kind, and how many there are."""

    def __init__(self) -> None:
        self._first: dict[str, str] = {}
        self._count: dict[str, int] = {}

    def add(self, kind: str, text: str, count: int = 1) -> None:
        """Remember a finding; of a kind that was found before only the number is kept."""
        self._first.setdefault(kind, text)
        self._count[kind] = self._count.get(kind, 0) + count

    def lines(self) -> tuple[str, ...]:
        """Return a sentence for each kind."""
        return tuple(
            f"{text}{'' if text.endswith('?') else '.'}"
            if self._count[kind] == 1
            else f"{text} ({self._count[kind]:,} such)."
            for kind, text in self._first.items()
        )


class QuestionIds:
    """The questions of a dump, numbered as they come: their ids, and the beginnings of their prompts."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.prompts: list[str | None] = []
        self._number: dict[str, int] = {}

    def by_prompt(self, prompts: pl.Series) -> pl.Series:
        """Return the number of each question, whose id is :func:`prompt_id` of its prompt; null for null."""
        distinct = prompts.unique(maintain_order=True).drop_nulls()
        texts = distinct.cast(pl.String).to_list()
        numbers = self._numbers(distinct.cast(pl.String), {text: (prompt_id(text), text[:SHOWN]) for text in texts})
        if prompts.dtype == pl.String:
            values, known = prompts, distinct
        else:  # categories: the texts themselves stay where they are
            values, known = prompts.to_physical(), distinct.to_physical()
        table = pl.DataFrame({"value": known, "number": numbers})
        return pl.DataFrame({"value": values}).join(table, on="value", how="left", maintain_order="left")["number"]

    def by_name(self, names: pl.Series, prompts: pl.Series | None = None) -> pl.Series:
        """Return the number of each question that a column names."""
        names = as_text(names).cast(pl.String)
        table = pl.DataFrame({"name": names, "prompt": [None] * len(names)})
        if prompts is not None:
            table = table.with_columns(prompts.alias("prompt"))
        table = table.drop_nulls("name").unique("name", keep="first", maintain_order=True)
        shown_of = {name: None if prompt is None else str(prompt)[:SHOWN] for name, prompt in table.iter_rows()}
        return self._numbers(names, {name: (name, prompt) for name, prompt in shown_of.items()})

    def _numbers(self, column: pl.Series, named: Mapping[str, tuple[str, str | None]]) -> pl.Series:
        """The number of each value, of which the name and the beginning of the prompt are given."""
        for name, prompt in named.values():
            if name not in self._number:
                self._number[name] = len(self.ids)
                self.ids.append(name)
                self.prompts.append(prompt)
        numbers = [self._number[name] for name, _ in named.values()]
        known = pl.DataFrame(
            {"value": pl.Series(list(named), dtype=pl.String), "number": pl.Series(numbers, dtype=pl.UInt32)}
        )
        return pl.DataFrame({"value": column}).join(known, on="value", how="left", maintain_order="left")["number"]

    def table(self) -> pl.DataFrame:
        """Return question_id and prompt."""
        return pl.DataFrame(
            {"question_id": self.ids, "prompt": self.prompts}, schema={"question_id": pl.String, "prompt": pl.String}
        )


def normalized(prompt: str) -> str:
    r"""Return a prompt without what is different between machines: NFC, line ends as LF, no blanks around it.

    >>> normalized(" What is 1+1?\r\n")
    'What is 1+1?'
    """
    return unicodedata.normalize("NFC", prompt.replace("\r\n", "\n").replace("\r", "\n")).strip()


def prompt_id(prompt: str) -> str:
    r"""Return the id of a question that has no other: "q-" and 16 hexadecimal digits of its prompt's SHA-256.

    >>> prompt_id("What is 1+1?") == prompt_id("What is 1+1?\n"), prompt_id("What is 1+1?")
    (True, 'q-31adf3e245f99d7b')
    """
    return "q-" + hashlib.sha256(normalized(prompt).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def conversation(messages: Any) -> str:
    """Return a conversation as one line: a JSON list of [role, content].

    >>> conversation([{"role": "user", "content": "What is 1+1?"}])
    '[["user", "What is 1+1?"]]'
    """
    if isinstance(messages, str):
        return messages
    if not isinstance(messages, Iterable):
        return json.dumps(messages)
    pairs = [
        [message.get("role"), message.get("content")] if isinstance(message, Mapping) else message
        for message in messages
    ]
    return json.dumps(pairs, ensure_ascii=False, default=str)


def as_text(column: pl.Series) -> pl.Series:
    """Return prompts as text: conversations, and all else that has parts, become JSON; lists of tokens are joined."""
    if column.dtype == pl.String or column.dtype == pl.Categorical:
        return column
    if _is_conversation(column):
        encoded = column.list.eval(pl.element().struct.json_encode()).list.join(",")
        distinct = encoded.unique().drop_nulls()
        texts = [conversation(json.loads(f"[{text}]")) for text in distinct]
        return encoded.replace_strict(distinct, pl.Series(texts, dtype=pl.String), default=None)
    if isinstance(column.dtype, pl.List) and not column.dtype.inner.is_nested():
        return column.cast(pl.List(pl.String)).list.join(" ")
    if column.dtype.is_nested():
        texts = [None if value is None else json.dumps(value, ensure_ascii=False, default=str) for value in column]
        return pl.Series(column.name, texts, dtype=pl.String)
    return column.cast(pl.String, strict=False)


def contents(column: pl.Series) -> pl.Series:
    """Return completions as text, a conversation as the contents of its messages; as JSON where these have parts."""
    if not _is_conversation(column):
        return as_text(column)
    content = pl.element().struct.field("content")
    inner: Any = column.dtype.inner  # pyright: ignore
    if any(field.name == "content" and field.dtype.is_nested() for field in inner.fields):
        content = pl.element().struct.json_encode()
    content = content.cast(pl.String, strict=False).fill_null("")
    return column.list.eval(content).list.join("")


def lengths(column: pl.Series) -> pl.Series:
    """Return how long completions are: characters of texts, of all messages in a conversation; items of lists."""
    if isinstance(column.dtype, pl.List) and not _is_conversation(column):
        return column.list.len()
    return contents(column).str.len_chars()


def _is_conversation(column: pl.Series) -> bool:
    inner = column.dtype.inner if isinstance(column.dtype, pl.List) else None
    return isinstance(inner, pl.Struct) and any(field.name == "content" for field in inner.fields)


@dataclasses.dataclass(frozen=True, eq=False)
class Dump:
    """What a reader found.

    Attributes:
        samples: a row for each completion, see :data:`SAMPLES`, in the order of the files.
        questions: their names.
        first_step: the step of the policy before training.
        threshold: a completion is right where its reward is at least this; None: where it is the larger of two.
        unit: of the lengths, "characters" or "tokens".
        beside: folders in which the trainer's settings may lie, the likeliest first.
        found: settings that the dump itself shows, by the trainer's own names.
    """

    samples: pl.DataFrame
    questions: QuestionIds
    first_step: int
    threshold: float | None
    unit: str
    beside: tuple[Path, ...]
    found: Mapping[str, Any] = dataclasses.field(default_factory=dict[str, Any])


def known_rows(table: pl.DataFrame, where: str, notes: Notes, extra: tuple[str, ...] = ()) -> pl.DataFrame:
    """Return rows with the columns of :data:`SAMPLES`, null where the table has none.

    Rows that do not say step (0 or more), question and reward are left out, and the first of them is noted: by its
    ``row`` in the table, or counted from 1. ``extra`` columns are kept as they are, also ``row``.
    """
    if "row" not in table.columns:
        table = table.with_row_index("row", 1)
    table = table.select(
        *dict.fromkeys(("row", *extra)),
        *(
            (pl.col(name) if _is_plain(table, name) else pl.lit(None)).cast(kind, strict=False).alias(name)
            for name, kind in SAMPLES.items()
        ),
    ).with_columns(pl.when(pl.col("step") >= 0).then("step"))
    needed = ("step", "question", "reward")
    usable = pl.all_horizontal(pl.col(needed).is_not_null()) & pl.col("reward").is_finite()
    bad = table.filter(~usable)
    if bad.height:
        row = bad.row(0, named=True)
        empty = [name for name in needed if row[name] is None] or ["finite reward"]
        text = f"{where}, row {row['row']}: no {' and no '.join(empty)}, so the row is left out"
        notes.add("unknown", text, bad.height)
    return table.filter(usable).drop(() if "row" in extra else "row")


def _is_plain(table: pl.DataFrame, name: str) -> bool:
    """Whether a table has a column of single values, not of lists or objects."""
    return name in table.columns and not table[name].dtype.is_nested()


def shown(names: Iterable[str], most: int = 12) -> str:
    """Return names for a message, the first of many."""
    listed = [str(name) for name in names]
    return ", ".join(listed[:most]) + (f" and {len(listed) - most} more" if len(listed) > most else "")

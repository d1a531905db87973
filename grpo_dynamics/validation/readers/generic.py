"""Tables of any origin: .csv, .jsonl or .parquet, a file or a folder of them, a row for each completion.

Columns, by the first of these names that is there, or as the user says: a step (iteration, step, global_step), a
question (question_id, prompt_id; or prompt, input, query, whose text names it), right or wrong (success, correct,
is_correct, acc, reward, score); and where they are there what that earned (reward, score), a completion_length (or
completion, response, output, whose characters are counted) and a finish_reason. A row may also stand for many
completions: successes and samples instead of success.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from grpo_dynamics.validation.readers.lines import first_object, read_lines
from grpo_dynamics.validation.readers.restarts import without_abandoned
from grpo_dynamics.validation.readers.samples import (
    Choices,
    Dump,
    Notes,
    QuestionIds,
    as_text,
    known_rows,
    lengths,
    shown,
)
from grpo_dynamics.validation.readers.tables import BROKEN, csv_rows, reason

ENDINGS = (".csv", ".jsonl", ".parquet")
STEPS = ("iteration", "step", "global_step")
NAMES, PROMPTS = ("question_id", "prompt_id"), ("prompt", "input", "query", "question")
SUCCESSES = ("success", "correct", "is_correct", "acc", "reward", "score")
EARNED = ("reward", "score")
LENGTHS, TEXTS = ("completion_length",), ("completion", "response", "output")
COUNTS = ("successes", "samples")


def read(path: Path, choices: Choices, settings: Mapping[str, Any], notes: Notes) -> Dump:
    """Return what a table says, or the tables of a folder.

    Args:
        path: a file, or a folder of them.
        choices: names of columns, where they are others than the usual.
        settings: not looked at.
        notes: told what is left out.

    Raises:
        ValueError: for a path without tables, or tables without the columns.
    """
    files = sorted(file for file in path.glob("*") if file.suffix.lower() in ENDINGS) if path.is_dir() else [path]
    files = [file for file in files if file.suffix.lower() in ENDINGS]
    if not files:
        raise ValueError(
            f"path must be a file that ends in {', '.join(ENDINGS)}, or a folder of them, got {str(path)!r}"
        )
    questions, parts = QuestionIds(), list[pl.DataFrame]()
    named_iteration, refused = False, ""
    for file in files:
        names = _names(file, notes)
        if names is None:
            continue
        try:
            chosen = _columns(names, choices, file)
        except ValueError as error:
            refused = refused or str(error)
            notes.add("foreign", f"{error}; the file is left out")
            continue
        named_iteration = named_iteration or chosen["step"] == "iteration"
        read_parts = [
            known_rows(_rows(table, chosen, questions), str(file), notes, extra=("row",))
            if "successes" not in chosen
            else _counted(table, chosen, questions, file, notes)
            for table in _tables(file, list(chosen.values()), chosen, notes)
        ]
        if not read_parts:
            continue
        samples = pl.concat(read_parts)
        log = file.suffix.lower() == ".jsonl"
        parts.append(without_abandoned([(str(file), samples)], notes) if log else samples.drop("row"))
    if refused and not parts:
        raise ValueError(refused)
    if not parts or not sum(part.height for part in parts):
        raise ValueError(f"path must have a table that can be read, got {' '.join(notes.lines()) or 'empty files'}")
    samples = pl.concat(parts, how="diagonal")
    least = int(samples["step"].min())  # pyright: ignore[reportArgumentType]
    first = 0 if named_iteration else min(least, 1)
    if not named_iteration and choices.first_step is None and least <= 1:
        notes.add("first", f"Step {first}, the first of the table, is taken for the policy before training")
    return Dump(samples, questions, first, None, "as the table has it", (path if path.is_dir() else path.parent,))


def _names(file: Path, notes: Notes) -> list[str] | None:
    """The columns of a file, None with a note where it cannot be read."""
    if not file.is_file():
        raise ValueError(f"path must be a file that exists, got {str(file)!r}")
    kind = file.suffix.lower()
    try:
        if kind == ".parquet":
            return list(pl.read_parquet_schema(file))
        if kind == ".csv":
            return pl.read_csv(file, infer_schema=False, n_rows=0).columns
    except BROKEN as error:
        _note_broken(file, error, notes)
        return None
    first = first_object(file)
    if first is None:
        notes.add("broken file", f"{file} has no line that is a JSON object, so the file is left out")
    return None if first is None else list(first)


def _note_broken(file: Path, error: BaseException, notes: Notes) -> None:
    notes.add("broken file", f"{file} cannot be read ({reason(error)}), so the file is left out")


def _columns(names: Sequence[str], choices: Choices, file: Path) -> dict[str, str]:
    """Which column is what."""
    chosen: dict[str, str] = {}
    for what, asked, option, usual in (
        ("step", choices.step_column, "step_column", STEPS),
        ("question", choices.question_column, "question_column", (*NAMES, *PROMPTS)),
        ("reward", choices.success_column, "success_column", SUCCESSES),
    ):
        if asked is not None and asked not in names:
            raise ValueError(f"{option} must be one of the columns {shown(names)} of {file}, got {asked!r}")
        found = asked or next((name for name in usual if name in names), None)
        if found is None and what == "reward" and set(COUNTS) <= set(names):
            chosen |= {name: name for name in COUNTS}
        elif found is None:
            raise ValueError(
                f"{file} must have a column for the {what} ({', '.join(usual)}), or name it with "
                f"--{option.replace('_', '-')}, got {shown(names)}"
            )
        else:
            chosen[what] = found
    more: dict[str, tuple[str, ...]] = {"completion_length": (*LENGTHS, *TEXTS), "finish_reason": ("finish_reason",)}
    if chosen["question"] not in PROMPTS:
        more["prompt"] = PROMPTS
    if "reward" in chosen:
        more["earned"] = EARNED
    for what, usual in more.items():
        found = next((name for name in usual if name in names), None)
        if found is not None:
            chosen[what] = found
    return chosen


def _tables(file: Path, columns: list[str], chosen: Mapping[str, str], notes: Notes) -> Iterator[pl.DataFrame]:
    """The columns of a file; of texts that are long only what is needed of them is ever in memory."""
    kind = file.suffix.lower()
    if kind == ".jsonl":
        needed = [chosen[name] for name in ("step", "question", "reward", *COUNTS) if name in chosen]
        yield from read_lines(file, needed, columns, notes, [chosen["question"], chosen.get("prompt", "")])
        return
    columns = list(dict.fromkeys(columns))
    try:
        scan = pl.scan_parquet(file, glob=False) if kind == ".parquet" else pl.scan_csv(file, infer_schema=False)
        types = scan.collect_schema()
        texts = [name for name in (chosen.get("completion_length"),) if name in TEXTS and types[name] == pl.String]
        scan = scan.select(pl.col(name).str.len_chars() if name in texts else pl.col(name) for name in columns)
        if chosen["question"] in PROMPTS and types[chosen["question"]] == pl.String:
            scan = scan.with_columns(pl.col(chosen["question"]).cast(pl.Categorical))  # every text once
        table = scan.collect(engine="streaming")
    except BROKEN as error:
        if kind == ".csv":
            yield from csv_rows(file, columns, notes)
        else:
            _note_broken(file, error, notes)
        return
    yield table


def _rows(table: pl.DataFrame, chosen: Mapping[str, str], questions: QuestionIds) -> pl.DataFrame:
    columns: list[Any] = ["row"] if "row" in table.columns and "row" not in chosen.values() else []
    for what, name in chosen.items():
        column = table[name]
        if what == "question":
            if name in PROMPTS:
                column = questions.by_prompt(as_text(column))
            else:
                prompts = as_text(table[chosen["prompt"]]) if "prompt" in chosen else None
                column = questions.by_name(column, prompts)
        elif what == "completion_length":
            column = lengths(column) if name in TEXTS and not column.dtype.is_numeric() else column
        elif what == "reward" and column.dtype == pl.String:
            words = {"true": "1", "false": "0"}
            column = column.str.strip_chars().str.to_lowercase().replace(words).cast(pl.Float64, strict=False)
        elif what == "prompt":
            continue
        columns.append(column.alias(what))
    return table.select(columns)


def _counted(
    table: pl.DataFrame, chosen: Mapping[str, str], questions: QuestionIds, file: Path, notes: Notes
) -> pl.DataFrame:
    """A row of k successes in n samples as two: k right ones, and n − k wrong ones."""
    rows = _rows(table, chosen, questions).with_columns(pl.col(COUNTS).cast(pl.Float64, strict=False))
    right, of = pl.col("successes"), pl.col("samples")
    fine = (right >= 0) & (right <= of) & (right == right.floor()) & (of == of.floor())
    rows = rows.with_columns(pl.when(fine).then(right).alias("reward"))
    rows = known_rows(rows, str(file), notes, extra=("row", "samples"))
    both = pl.concat(
        rows.drop("samples").with_columns(pl.lit(value).alias("reward"), weight.cast(pl.Int64).alias("weight"))
        for value, weight in ((1.0, pl.col("reward")), (0.0, rows["samples"] - pl.col("reward")))
    )
    return both.sort("row", maintain_order=True)  # as the file has them: the steps are in its order

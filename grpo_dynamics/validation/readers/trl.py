"""TRL's GRPOTrainer with log_completions=True: completions/completions_{step:05d}.parquet in its output_dir.

Columns: step, prompt, completion, one for each reward function, those of log_extra, advantage; prompt and completion
are texts or conversations. Every log writes the whole last batch, so that steps which share a batch write it again:
with num_iterations > 1, or steps_per_generation > gradient_accumulation_steps. Those files are equal to the last row,
and all but the first are left out.

Source: trl/trainer/grpo_trainer.py, GRPOTrainer.log and _prepare_inputs, version 1.16.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from grpo_dynamics.validation.readers.restarts import without_older_run
from grpo_dynamics.validation.readers.samples import (
    Choices,
    Dump,
    Notes,
    QuestionIds,
    as_text,
    contents,
    known_rows,
    shown,
)
from grpo_dynamics.validation.readers.tables import read_parquet

NAME = re.compile(r"completions_(\d+)\.parquet")
OWN = ("step", "prompt", "completion", "advantage")
QUESTION = "question_id"
"""A column of this name, sent through log_extra, names the questions."""


def read(path: Path, choices: Choices, settings: Mapping[str, Any], notes: Notes) -> Dump:
    """Return what a run of TRL has dumped.

    Args:
        path: its output_dir, or the folder completions in it.
        choices: what the user says about it.
        settings: the trainer's, as far as they are known: how many steps share a batch follows from them.
        notes: told what is left out.

    Raises:
        ValueError: for a folder without dumps, reward columns that leave a choice, or files that change their columns.
    """
    folder = path / "completions" if (path / "completions").is_dir() else path
    files = sorted((int(found[1]), file) for file in folder.glob("*") if (found := NAME.fullmatch(file.name)))
    if not files:
        raise ValueError(
            f"path must be the output_dir of TRL with log_completions=True, with completions_*.parquet in it or in "
            f"completions/, got {str(path)!r}"
        )
    files = without_older_run(files, notes)
    evaluated = _evaluated(folder.parent, settings, [step for step, _ in files])
    most = _steps_of_a_batch(settings)
    questions, parts = QuestionIds(), list[pl.DataFrame]()
    rewards: tuple[str, ...] | None = None
    last, same = b"", 0
    for step, file in files:
        table = read_parquet(file, notes)
        if table is None or not _has_columns(table, file, notes):
            continue
        table = table.with_columns(as_text(table["prompt"]), contents(table["completion"]))
        mark = _fingerprint(table)
        same = same + 1 if mark == last else 0
        last = mark
        if step in evaluated:
            notes.add("evaluation", f"{file.name}: at this step TRL also evaluated, and wrote both together; left out")
            continue
        names = tuple(name for name in table.columns if name not in OWN)
        if rewards is not None and choices.success_column is None and set(names) != set(rewards):
            raise ValueError(
                f"path must be one run, got {file} with the columns {shown(names)} after files with {shown(rewards)}: "
                "name the one to take with --success-column, or read the runs apart"
            )
        rewards = names
        if same and (most is None or same < most):
            notes.add("repeated", f"{file.name} repeats the batch of the file before it, row by row: counted once")
            continue
        same = 0
        table = _prepared(table, file, choices, questions)
        inside = table["step"].drop_nulls().unique().to_list()
        if inside != [step]:
            notes.add("step", f"{file.name} says step {shown(inside)} inside; its name counts")
        name = _success_column(table, file, choices.success_column)
        begun = step if most is None else (step - 1) // most * most + 1
        rows = table.select(
            pl.lit(begun).alias("step"),
            "question",
            pl.col(name).alias("reward"),
            "completion_length",
        )
        parts.append(known_rows(rows, str(file), notes))
    if not parts:
        raise ValueError(f"path must have a dump that can be read, got {' '.join(notes.lines())}")
    return Dump(
        samples=pl.concat(parts),
        questions=questions,
        first_step=1,
        threshold=None,
        unit="characters",
        beside=(folder.parent, folder),
        found=_version(folder.parent),
    )


def _prepared(table: pl.DataFrame, file: Path, choices: Choices, questions: QuestionIds) -> pl.DataFrame:
    """Prompts as numbers of questions, and the lengths of completions."""
    asked = choices.question_column
    if asked is not None and asked not in table.columns:
        raise ValueError(f"question_column must be one of {shown(table.columns)} in {file}, got {asked!r}")
    asked = asked or (QUESTION if QUESTION in table.columns else None)
    prompts, texts = table["prompt"], table["completion"]
    numbers = questions.by_prompt(prompts) if asked is None else questions.by_name(table[asked], prompts)
    return table.drop("prompt").with_columns(
        numbers.alias("question"), texts.str.len_chars().alias("completion_length")
    )


def _has_columns(table: pl.DataFrame, file: Path, notes: Notes) -> bool:
    lacking = [name for name in OWN[:3] if name not in table.columns]
    if lacking:
        text = f"{file}: no column {', '.join(map(repr, lacking))}, got {shown(table.columns)}; the file is left out"
        notes.add("foreign", text)
    return not lacking and table.height > 0


def _success_column(table: pl.DataFrame, file: Path, asked: str | None) -> str:
    """The reward function that says right or wrong: the only column of numbers that TRL does not write itself."""
    numeric = [
        name
        for name in table.columns
        if name not in (*OWN, QUESTION) and (table[name].dtype.is_float() or table[name].dtype == pl.Boolean)
    ]
    if asked is not None:
        if asked not in table.columns:
            raise ValueError(
                f"success_column must be one of {shown(numeric or table.columns)} in {file}, got {asked!r}"
            )
        return asked
    if len(numeric) != 1:
        got = f"{len(numeric)} in {file}: {shown(numeric)}" if numeric else f"none in {file}: {shown(table.columns)}"
        raise ValueError(f"success_column must be given where the dump has not exactly one reward, got {got}")
    return numeric[0]


def _fingerprint(table: pl.DataFrame) -> bytes:
    """Equal for equal rows in equal order; the step is not among them."""
    digest = hashlib.sha256()
    for column in table.drop("step"):
        data = column.map_elements(repr, return_dtype=pl.String) if column.dtype.is_nested() else column
        digest.update(column.name.encode() + data.hash(0).to_numpy().tobytes())
    return digest.digest()


def _steps_of_a_batch(settings: Mapping[str, Any]) -> int | None:
    """How many optimizer steps are made on one batch of completions, None where the settings do not say."""
    if not {"num_iterations", "gradient_accumulation_steps"} & set(settings):
        return None
    accumulation = settings.get("gradient_accumulation_steps") or 1
    several = settings.get("steps_per_generation") or accumulation
    return max(1, -(-int(several) * int(settings.get("num_iterations") or 1) // int(accumulation)))


def _evaluated(folder: Path, settings: Mapping[str, Any], steps: Sequence[int]) -> set[int]:
    """Steps at which TRL evaluated, so that their dump mixes both: by the settings, and the newest trainer_state.json.

    Before its first step TRL only evaluates.
    """
    found = {step for step in steps if step == 0 or _evaluates(step, settings, steps[-1])}
    states = [folder / "trainer_state.json", *folder.glob("checkpoint-*/trainer_state.json")]
    states = sorted((file for file in states if file.is_file()), key=lambda file: file.stat().st_mtime)
    for file in reversed(states):
        try:
            history: Sequence[Mapping[str, Any]] = json.loads(file.read_text(encoding="utf-8"))["log_history"]
            return found | {int(entry["step"]) for entry in history if any(key.startswith("eval_") for key in entry)}
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return found


def _evaluates(step: int, settings: Mapping[str, Any], last: int) -> bool:
    """Whether the settings say that TRL evaluated after this step: after each of so many, and after the last of all."""
    every = settings.get("eval_steps") or settings.get("logging_steps")
    if settings.get("eval_strategy") != "steps" or not isinstance(every, int | float) or every < 1:
        return False
    planned = settings.get("max_steps") or -1
    ended = step == last and (planned <= 0 or step >= planned)
    return (step % int(every) == 0 or ended) and step >= float(settings.get("eval_delay") or 0)


def _version(folder: Path) -> dict[str, Any]:
    """The version, which TRL writes into its model card."""
    card = folder / "README.md"
    cards = [card, *sorted(folder.glob("checkpoint-*/README.md"))]
    for file in cards:
        if file.is_file() and (found := re.search(r"^- TRL: (\d+(?:\.\d+)+)", file.read_text(errors="replace"), re.M)):
            return {"version": found[1]}
    return {}

"""verl: {global_step}.jsonl in trainer.rollout_data_dir or trainer.validation_data_dir.

Keys: input, output, gts, score, step, those of the reward function (often acc), and in newer versions uid. The prompt
is decoded without special tokens and names the question, as uid is new in each step. uid is
{sample}_{rollout}_{output}; of a rollout with several outputs, such as turns, the last counts. Training counts steps
from 1: the rollouts of step 1 are those of the policy before training. A validation at step s, which also has the key
reward, asks the policy after s updates, from 0 on.

Source: verl/trainer/ppo/ray_trainer.py and verl/trainer/ppo/v1/trainer_base.py, _write_generations, _log_rollout_data
and _validate, version 0.10.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from grpo_dynamics.validation.readers.lines import first_object, read_lines
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

NAME = re.compile(r"(\d+)\.jsonl")
NEEDED = ("input", "score")
GREEDY = "actor_rollout_ref.rollout.val_kwargs.do_sample"
"""False by default."""


def read(path: Path, choices: Choices, settings: Mapping[str, Any], notes: Notes) -> Dump:
    """Return what a run of verl has dumped.

    Args:
        path: the folder of rollouts, or that of validations.
        choices: what the user says about it.
        settings: the trainer's, as far as they are known: whether validations sample.
        notes: told what is left out.

    Raises:
        ValueError: for a folder without dumps, or with those of several runs below it.
    """
    folder = _folder(path)
    files = sorted((int(found[1]), file) for file in folder.glob("*") if (found := NAME.fullmatch(file.name)))
    files = without_older_run(files, notes)
    questions, parts = QuestionIds(), list[pl.DataFrame]()
    firsts = ((first_object(file) or {}, file) for _, file in files)
    first, whose = next(((first, file) for first, file in firsts if set(NEEDED) <= set(first)), ({}, folder))
    column = _success_column(first, whose, choices.success_column) if first else "score"
    validation = "reward" in first or (bool(first) and files[0][0] == 0)
    asked = [] if choices.question_column is None else [choices.question_column]
    needed = list(dict.fromkeys((*NEEDED, column, *asked)))
    for step, file in files:
        for table in read_lines(file, needed, ("step", "output", "uid"), notes, asked):
            inside = table["step"].drop_nulls().unique().to_list()
            if inside not in ([], [step]):
                notes.add("step", f"{file} says step {shown(inside)} inside; its name counts")
            parts.append(_rows(table, step, column, choices, questions, file, notes))
    if not parts or not sum(part.height for part in parts):
        raise ValueError(f"path must have a dump that can be read, got {' '.join(notes.lines()) or 'empty files'}")
    if validation:
        if settings.get(GREEDY) is False:
            notes.add("greedy", f"{GREEDY} is False: p is that of the greedy answer, not of what training samples")
        notes.add("validation", "These are answers of validations: that of step s asks the policy after s updates")
    return Dump(
        samples=pl.concat(parts),
        questions=questions,
        first_step=0 if validation else 1,
        threshold=None,
        unit="characters",
        beside=(folder, folder.parent),
    )


def _folder(path: Path) -> Path:
    """The folder with the dumps: the one that was named, or the only one below it."""
    if any(NAME.fullmatch(file.name) for file in path.glob("*.jsonl")):
        return path
    below = sorted({file.parent for file in path.glob("*/*.jsonl") if NAME.fullmatch(file.name)})
    if len(below) > 1:
        raise ValueError(
            f"path must be the folder of one dump, got {str(path)!r} with several: {shown(map(str, below))}"
        )
    if not below:
        raise ValueError(
            "path must be verl's rollout_data_dir or validation_data_dir, with files as 1.jsonl in it, "
            f"got {str(path)!r}"
        )
    return below[0]


def _success_column(first: Mapping[str, Any], file: Path, asked: str | None) -> str:
    """Right or wrong: acc where the reward function says it, else the score."""
    if asked is not None and asked not in first:
        raise ValueError(f"success_column must be one of the keys {shown(first)} in {file}, got {asked!r}")
    return asked or ("acc" if isinstance(first.get("acc"), bool | int | float) else "score")


def _rows(
    table: pl.DataFrame, step: int, column: str, choices: Choices, questions: QuestionIds, file: Path, notes: Notes
) -> pl.DataFrame:
    if table["uid"].dtype == pl.String and table["uid"].null_count() < table.height:
        table = _last_outputs(table, notes)
    prompts = as_text(table["input"])
    asked = choices.question_column
    numbers = questions.by_prompt(prompts) if asked is None else questions.by_name(table[asked], prompts)
    rows = table.select(
        "row",
        pl.lit(step).alias("step"),
        numbers.alias("question"),
        pl.col(column).alias("reward"),
        pl.col("score").alias("earned"),
        contents(table["output"]).str.len_chars().alias("completion_length"),
    )
    return known_rows(rows, str(file), notes)


def _last_outputs(table: pl.DataFrame, notes: Notes) -> pl.DataFrame:
    """Of a rollout with several outputs the last: all have its score."""
    parts = table["uid"].str.extract_groups(r"^(?<rollout>.*_\d+)_(?<output>\d+)$")
    keyed = table.with_columns(
        parts.struct.field("rollout").fill_null(table["uid"]).alias("rollout"),
        parts.struct.field("output").cast(pl.Int64, strict=False).fill_null(0).alias("turn"),
    )
    if keyed["turn"].max() == 0:
        return table
    last = keyed.filter(pl.col("rollout").is_null() | (pl.col("turn") == pl.col("turn").max().over("rollout")))
    if last.height < table.height:
        notes.add("outputs", "Of rollouts with several outputs only the last counts", table.height - last.height)
    return last.drop("rollout", "turn")

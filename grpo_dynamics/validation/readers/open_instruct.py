"""open-instruct with save_traces: {run_name}_rollouts_{shard:06d}.jsonl in rollouts_save_path.

Keys: step, sample_idx, prompt_idx, prompt_tokens, response_tokens, reward, advantage, finish_reason, dataset,
ground_truth, request_info, logprobs. The tokens of the prompt name the question. Steps count from 0; samples may be
up to async_steps updates old. With filter_zero_std_samples, the default, groups that are all right or all wrong are
not in the dump: what is there says less than it seems, see
:func:`~grpo_dynamics.validation.readers.counting.unfiltered`.

Source: open_instruct/rl_utils.py, _save_rollouts; open_instruct/data_loader.py, DataPreparationActor.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from grpo_dynamics.validation.readers.lines import read_lines
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

NAME = re.compile(r"(.+)_rollouts_(\d{6,})\.jsonl")
NEEDED = ("step", "prompt_tokens", "reward")
REWARD = 10.0
"""verification_reward, what a right answer earns by default."""


def read(path: Path, choices: Choices, settings: Mapping[str, Any], notes: Notes) -> Dump:
    """Return what a run of open-instruct has dumped.

    Args:
        path: its rollouts_save_path.
        choices: what the user says about it.
        settings: the trainer's, as far as they are known: verification_reward makes an answer right.
        notes: told what is left out.

    Raises:
        ValueError: for a folder without dumps, or with those of several runs of which none is chosen.
    """
    files = sorted((found[1], found[2], file) for file in path.glob("*") if (found := NAME.fullmatch(file.name)))
    runs = sorted({run for run, _, _ in files})
    if not runs:
        raise ValueError(
            "path must be open-instruct's rollouts_save_path, with files as RUN_rollouts_000000.jsonl in it, "
            f"got {str(path)!r}"
        )
    if choices.run is not None and choices.run not in runs:
        raise ValueError(f"run must be one of {shown(runs)}, got {choices.run!r}")
    if choices.run is None and len(runs) > 1:
        raise ValueError(f"path must have the dump of one run, got {len(runs)}: {shown(runs)}; choose one with --run")
    run = choices.run or runs[0]
    column = choices.success_column or "reward"
    needed = [*NEEDED[:2], column, *([choices.question_column] if choices.question_column else [])]
    questions, parts = QuestionIds(), list[tuple[str, pl.DataFrame]]()
    for name, _, file in files:
        if name != run:
            continue
        for table in read_lines(file, needed, ("reward", "response_tokens", "finish_reason"), notes, needed[3:]):
            prompts = as_text(table["prompt_tokens"])
            asked = choices.question_column
            numbers = questions.by_prompt(prompts) if asked is None else questions.by_name(table[asked], prompts)
            rows = table.select(
                "row",
                "step",
                numbers.alias("question"),
                pl.col(column).alias("reward"),
                pl.col("reward").alias("earned"),
                lengths(table["response_tokens"]).alias("completion_length"),
                "finish_reason",
            )
            parts.append((str(file), known_rows(rows, str(file), notes, extra=("row",))))
    if not parts:
        raise ValueError(f"path must have a dump that can be read, got {' '.join(notes.lines()) or 'empty files'}")
    threshold = settings.get("verification_reward")
    return Dump(
        samples=without_abandoned(parts, notes),
        questions=questions,
        first_step=0,
        threshold=(REWARD if threshold is None else float(threshold)) if column == "reward" else None,
        unit="tokens",
        beside=(path, path.parent),
    )

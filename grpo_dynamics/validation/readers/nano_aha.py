"""nano-aha-moment: episodes/eps_{iteration:06d}.json in the folder of the run, one list of query, response, reward.

Runs on several GPUs have a folder rank_00, rank_01, ... each. The iterations count from 0. The reward is that of the
format (0, ½ or 1) and 1 for a right equation, so an answer is right where it is at least 1.5: a right equation in a
wrong format has 1, as a wrong one in the right format, and counts as wrong. The name of the run's folder says β.

Source: utils.py, dump_episodes; nano_r1_script.py, compute_reward and RUN_NAME.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from grpo_dynamics.validation.readers.lines import column
from grpo_dynamics.validation.readers.samples import Choices, Dump, Notes, QuestionIds, known_rows, shown

NAME = re.compile(r"eps_(\d+)\.json")
FOLDER = re.compile(r".*_temp(?P<temperature>[^_]+)_kl(?P<kl_coeff>[^_]+)_lr[^_]+_al(?P<algorithm>grpo|vineppo)")
NEEDED = ("query", "reward")
RIGHT = 1.5


def read(path: Path, choices: Choices, settings: Mapping[str, Any], notes: Notes) -> Dump:
    """Return what a run of nano-aha-moment has dumped.

    Args:
        path: the folder of the run, or of its episodes.
        choices: what the user says about it.
        settings: not looked at.
        notes: told what is left out.

    Raises:
        ValueError: for a folder without dumps, or with those of several runs below it.
    """
    folder = path / "episodes" if (path / "episodes").is_dir() else path
    files = sorted(
        (int(found[1]), file)
        for pattern in ("*.json", "rank_*/*.json")
        for file in folder.glob(pattern)
        if (found := NAME.fullmatch(file.name))
    )
    if not files:
        runs = sorted({file.relative_to(path).parts[0] for file in path.glob("*/episodes/**/eps_*.json")})
        what = f"{str(path)!r}, with several runs: {shown(runs)}" if runs else repr(str(path))
        raise ValueError(f"path must be the folder of one run, with episodes/eps_000000.json, got {what}")
    column_name = choices.success_column or "reward"
    questions, parts = QuestionIds(), list[pl.DataFrame]()
    for step, file in files:
        rows = [row for row in _objects(file, notes) if isinstance(row, dict)]
        asked = choices.question_column
        needed = (NEEDED[0], column_name, *([asked] if asked else []))
        lacking = [name for name in needed if rows and name not in rows[0]]
        if lacking:
            got = f"no {', '.join(map(repr, lacking))}, got {shown(rows[0])}"
            notes.add("foreign", f"{file}: {got}; the file is left out")
        if lacking or not rows:
            continue
        values = {name: column(name, [row.get(name) for row in rows], name == asked) for name in {*needed, "response"}}
        prompts = values["query"].cast(pl.String)
        numbers = questions.by_prompt(prompts) if asked is None else questions.by_name(values[asked], prompts)
        table = pl.DataFrame(
            {
                "step": [step] * len(rows),
                "question": numbers,
                "reward": values[column_name],
                "completion_length": values["response"].cast(pl.String).str.len_chars(),
            }
        )
        parts.append(known_rows(table, str(file), notes))
    if not parts:
        raise ValueError(f"path must have a dump that can be read, got {' '.join(notes.lines())}")
    home = folder.parent if folder.name == "episodes" else folder
    if column_name == "reward" and choices.threshold is None:
        notes.add("format", "Right is a reward of at least 1.5, format and equation; a right equation alone has 1")
    return Dump(
        samples=pl.concat(parts),
        questions=questions,
        first_step=0,
        threshold=RIGHT if column_name == "reward" else None,
        unit="characters",
        beside=(home,),
        found=_from_name(home),
    )


def _from_name(folder: Path) -> dict[str, Any]:
    """The settings in the name that nano-aha-moment gives the folder of a run."""
    found = FOLDER.fullmatch(folder.resolve().name)
    if not found:
        return {}
    try:
        numbers = {name: float(found[name]) for name in ("temperature", "kl_coeff")}
    except ValueError:
        return {}
    return {**numbers, "algorithm": found["algorithm"]}


def _objects(file: Path, notes: Notes) -> list[Any]:
    """The episodes of a file; of one that was cut those that are whole."""
    text = file.read_text(encoding="utf-8", errors="replace")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        whole = _whole_objects(text)
        notes.add("broken file", f"{file} is cut off or no JSON after row {len(whole)}; what is before it is kept")
        return whole
    if not isinstance(found, list):
        notes.add("foreign", f"{file}: no list of episodes; the file is left out")
        return []
    return found  # pyright: ignore[reportUnknownVariableType]


def _whole_objects(text: str) -> list[Any]:
    decoder, place, whole = json.JSONDecoder(), text.find("[") + 1, list[Any]()
    while place:
        while place < len(text) and text[place] in " \t\r\n,":
            place += 1
        try:
            found, place = decoder.raw_decode(text, place)
        except (ValueError, RecursionError):
            break
        whole.append(found)
    return whole

"""Questions that integers name: they stay what they are, so that a CSV file of p_ref names the same."""

import json

import numpy as np
import polars as pl
import pytest

from grpo_dynamics.validation.readers import Choices, read_dump
from tests.validation.readers.made_dumps import rows_of, write_nano_aha, write_open_instruct, write_verl

IDS = [12, 100, 2**60, 2**60 + 1, 2**64 + 1, 10**40]
ROWS = rows_of(np.tile(np.linspace(0.2, 0.8, 6), (3, 1)), 8)
OPTIONS = {
    "verl": {"adv_estimator": "grpo", "use_kl_loss": True, "kl_loss_coef": 0.5, "rollout.n": 8},
    "open-instruct": {"beta": 0.5, "num_samples_per_prompt_rollout": 8},
    "nano-aha": {"kl_coeff": 0.5, "GENERATIONS_PER_SAMPLE": 8},
    "generic": {"beta": 0.1},
}


def generic(folder, rows):
    folder.mkdir()
    lines = [json.dumps({"step": step, "success": right}) for step, _, right in rows]
    (folder / "t.jsonl").write_text("\n".join(lines))
    return folder


WRITERS = {"verl": write_verl, "open-instruct": write_open_instruct, "nano-aha": write_nano_aha, "generic": generic}


def dump_with_ids(kind, folder, ids, column):
    """Write a dump and add the id of its question to every completion, in its order."""
    WRITERS[kind](folder, ROWS)
    entries = iter([ids[question] for _, question, _ in ROWS])
    for file in sorted(folder.glob("**/*.json*")):
        if kind == "nano-aha":
            file.write_text(json.dumps([{**row, column: next(entries)} for row in json.loads(file.read_text())]))
        elif "metadata" not in file.name:
            rows = [json.loads(line) for line in file.read_text().splitlines()]
            file.write_text("\n".join(json.dumps({**row, column: next(entries)}) for row in rows))
    return folder


def read(kind, folder, column, **choices):
    more = {"trainer": "trl"} if kind == "generic" else {}
    return read_dump(kind, folder, Choices(question_column=column, **choices), options=OPTIONS[kind], **more)


@pytest.mark.parametrize("kind", OPTIONS)
@pytest.mark.parametrize("broken", [False, True])
def test_integers_name_questions_as_they_are(kind, broken, tmp_path):
    """Also beside a line that is none, after which lines are read one by one."""
    folder = dump_with_ids(kind, tmp_path / "dump", IDS, "index")
    if broken and kind != "nano-aha":
        for file in folder.glob("*.jsonl"):
            file.write_text(file.read_text() + '\n{"cut')
    pl.DataFrame({"id": [str(name) for name in IDS], "p_ref": np.linspace(0.1, 0.6, 6)}).write_csv(tmp_path / "p.csv")
    (arm,) = read(kind, folder, "index", p_ref=tmp_path / "p.csv").measured.arms
    assert arm.questions["question_id"].to_list() == [str(name) for name in IDS]
    start = arm.success.filter(iteration=0).sort("p")
    assert start["question_id"].cast(pl.String).to_list() == [str(name) for name in IDS]
    assert start["p"].to_list() == pytest.approx(np.linspace(0.1, 0.6, 6))


@pytest.mark.parametrize("column", ["question_id", "question"])
def test_tables_find_integers_by_the_usual_names(column, tmp_path):
    """An id, and a prompt that is a number: its hash is that of its digits."""
    folder = dump_with_ids("generic", tmp_path / "dump", IDS, column)
    lines = "".join(f"{name},3,8\n" for name in (12, 2**60 + 1))
    (tmp_path / "p.csv").write_text("id,successes,samples\n" + lines)
    (arm,) = read("generic", folder, None, p_ref=tmp_path / "p.csv").measured.arms
    assert arm.questions.height == 6
    assert arm.success.filter(p_ref_from=str(tmp_path / "p.csv")).height == 2


def test_other_values_beside_integers(tmp_path):
    """A first id of 1 says nothing of those after it; the rewards are read as numbers all the same."""
    ids = [1, "a", 1.5, True, 7, 2**70]
    folder = dump_with_ids("verl", tmp_path / "dump", ids, "index")
    converted = read("verl", folder, "index")
    assert converted.measured.arms[0].questions["question_id"].to_list() == ["1", "a", "1.5", "true", "7", str(2**70)]
    assert converted.completions["success"].to_list() == [right for _, _, right in ROWS]

"""A first line that is broken costs itself only; what is said of lines and options names file and place."""

import json
import os

import numpy as np
import pytest

from grpo_dynamics.cli import main
from grpo_dynamics.validation.readers import read_dump
from tests.validation.readers.made_dumps import rows_of, write_open_instruct, write_verl
from tests.validation.readers.test_bad_dumps import ALL, OPEN, ROWS, VERL


def cut(file):
    """Cut the first line of a file in two; its time stays, as a later one would be another run."""
    first, _, rest = file.read_text().partition("\n")
    time = file.stat().st_mtime_ns
    file.write_text(first[: len(first) // 2] + "\n" + rest)
    os.utime(file, ns=(time, time))


@pytest.mark.parametrize("broken", [{"1"}, {"1", "2"}, set("123456")])
def test_verl_has_one_meaning_of_right(broken, tmp_path):
    """acc says what is right in all files, also where the first begins with half a line; score says another thing."""
    folder = write_verl(tmp_path / "dump", ROWS, score=lambda right: 1.0 - right, acc=bool)
    for step in broken:
        cut(folder / f"{step}.jsonl")
    converted = read_dump("verl", folder, options=VERL)
    kept = [right for i, (step, _, right) in enumerate(ROWS) if not (i % 48 == 0 and str(step + 1) in broken)]
    assert converted.completions["success"].to_list() == kept
    (note,) = [note for note in converted.measured.arms[0].notes if "is cut off" in note]
    assert f"{folder / f'{min(broken)}.jsonl'}, line 1 is cut off, so it is left out" in note


def test_verl_takes_the_meaning_from_the_first_file_with_an_object(tmp_path):
    folder = write_verl(tmp_path / "dump", ROWS, score=lambda right: 1.0 - right, acc=bool)
    (folder / "1.jsonl").write_text("no\nlines\n")
    converted = read_dump("verl", folder, options=VERL)
    assert converted.completions["success"].to_list() == [right for step, _, right in ROWS if step]


@pytest.mark.parametrize("first", ['{"step": 0, "question', "[1]", "", "\x00"])
def test_a_table_with_a_broken_first_line_is_read(first, tmp_path):
    rows = [{"step": i // 2, "question_id": "a", "success": i % 2} for i in range(8)]
    (tmp_path / "t.jsonl").write_text("\n".join([first, *map(json.dumps, rows)]))
    converted = read_dump("generic", tmp_path / "t.jsonl", trainer="trl", options={"beta": 0.1})
    assert converted.completions["success"].to_list() == [False, True] * 4
    assert any("t.jsonl, line 1 is" in note for note in converted.measured.arms[0].notes) == bool(first)


def test_a_file_of_other_keys_behind_a_broken_line_is_left_out_whole(tmp_path):
    folder = write_verl(tmp_path / "dump", ROWS)
    (folder / "2.jsonl").write_text('{"a": \n' + '{"a": 1}\n' * 9)
    converted = read_dump("verl", folder, options=VERL)
    assert converted.completions.height == ALL * 5 // 6
    said = f"{folder / '2.jsonl'}, line 2: no 'input', 'score', got a; the file is left out."
    assert said in converted.measured.arms[0].notes


def test_a_table_without_any_object(tmp_path):
    (tmp_path / "t.jsonl").write_text("a\nb\n")
    with pytest.raises(ValueError, match=r"t.jsonl has no line that is a JSON object, so the file is left out"):
        read_dump("generic", tmp_path / "t.jsonl", trainer="trl", options={"beta": 0.1})


@pytest.mark.parametrize("shard", [10**6, 100])
def test_a_step_that_goes_back_is_named_by_its_line(shard, tmp_path):
    """Lines that were left out before it, a cut one and one without a reward, are lines of the file too."""
    again = [row for row in rows_of(np.tile(np.linspace(0.2, 0.8, 6), (6, 1)), 8, seed=1) if row[0] >= 2]
    folder = write_open_instruct(tmp_path / "dump", ROWS + again, shard=shard)
    number, name = (ALL, "rollouts_000000") if shard > ALL else (ALL % shard, f"rollouts_{ALL // shard:06d}")
    (file,) = folder.glob(f"*{name}.jsonl")
    lines = file.read_text().splitlines()
    lines[2], lines[4] = lines[2][:20], lines[4].replace('"reward": ', '"reword": ')
    file.write_text("\n".join(lines))
    notes = read_dump("open-instruct", folder, options=OPEN).measured.arms[0].notes
    (note,) = [note for note in notes if "goes back" in note]
    assert f"{name}.jsonl, line {number + 1}: the step goes back from 5 to 2" in note


def test_counts_in_lines_keep_their_order(tmp_path):
    """A row of counts stands for right and wrong answers of the same step: time does not go back between them."""
    rows = [{"iteration": i, "question_id": "a", "successes": i, "samples": 8} for i in range(7)]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (arm,) = read_dump("generic", tmp_path / "t.jsonl", trainer="trl", options={"beta": 0.1}).measured.arms
    assert arm.success["successes"].to_list() == list(range(7))
    assert arm.success["samples"].unique().to_list() == [8]
    assert not [note for note in arm.notes if "goes back" in note]


@pytest.mark.parametrize(
    ("option", "value"),
    [("num_iterations", "two"), ("num_generations", "eight"), ("max_steps", []), ("eval_delay", "late")],
)
def test_an_option_that_is_no_number_is_one_line(option, value, tmp_path, capsys):
    (tmp_path / "t.csv").write_text("iteration,question_id,success\n0,a,1\n0,a,0\n1,a,0\n1,a,1\n")
    file = tmp_path / "training_args.json"
    file.write_text(json.dumps({"beta": 0.1, "eval_strategy": "steps", option: value}))
    assert main(["validate", str(tmp_path / "t.csv"), "--from", "generic", "--trainer", "trl"]) == 2
    assert capsys.readouterr().err == f"error: {option} must be a number, got {value!r} in {file}\n"


def test_an_option_of_the_user_lies_over_a_file_that_is_wrong(tmp_path):
    """Hydra's file may hold what it has not yet put together; a name that is shortened overrides it too."""
    folder = write_verl(tmp_path / "dump", ROWS)
    whole = {"actor_rollout_ref": {"rollout": {"n": "${n}"}}}
    (tmp_path / "trainer_config.json").write_text(json.dumps(whole))
    assert read_dump("verl", folder, options=VERL).completions.height == ALL
    options = {name: value for name, value in VERL.items() if name != "rollout.n"}
    with pytest.raises(
        ValueError, match=r"^actor_rollout_ref.rollout.n must be a number, got '\${n}' in .*config.json$"
    ):
        read_dump("verl", folder, options=options)
    with pytest.raises(ValueError, match=r"^actor_rollout_ref.rollout.n must be a number, got 'two'$"):
        read_dump("verl", folder, options={**options, "rollout.n": "two"})

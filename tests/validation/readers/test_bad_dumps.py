"""Cut, foreign and mixed files: what can be read is kept, and what is left out is named with its file and row."""

import json
import os

import numpy as np
import polars as pl
import pytest

from grpo_dynamics.validation.readers import Choices, read_dump
from tests.validation.readers.made_dumps import rows_of, write_nano_aha, write_open_instruct, write_verl

P = np.tile(np.linspace(0.2, 0.8, 6), (6, 1))
ROWS = rows_of(P, 8)
VERL = {"adv_estimator": "grpo", "use_kl_loss": True, "kl_loss_coef": 0.5, "rollout.n": 8}
OPEN = {"beta": 0.5, "num_samples_per_prompt_rollout": 8}
NANO = {"kl_coeff": 0.5, "GENERATIONS_PER_SAMPLE": 8}
ALL = len(ROWS)


@pytest.fixture
def dump(tmp_path):
    return write_verl(tmp_path / "dump", ROWS)


def verl(folder, **choices):
    converted = read_dump("verl", folder, Choices(**choices), options=VERL)
    return converted.completions.height, " ".join(converted.measured.arms[0].notes)


def test_a_line_that_is_cut_is_named(dump):
    file = dump / "3.jsonl"
    text = file.read_text()
    lines = text.splitlines()
    file.write_text("\n".join(lines[:20]) + "\n" + lines[20][:30])
    height, notes = verl(dump)
    assert height == ALL - 28
    assert f"{file}, line 21 is cut off" in notes


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("[1, 2]", "line 5 is no JSON object"),
        ("\x00\x01", "line 5 is no JSON object"),
        ('{"foo": 1}', "row 5: no question and no reward"),
        ('{"input": "q", "score": null}', "row 5: no reward"),
        ('{"input": "q", "score": "well"}', "row 5: no reward"),
        ('{"input": "q", "score": NaN}', "row 5: no finite reward"),
        ('{"input": null, "score": 1}', "row 5: no question"),
        ('{"input": "q", "score": [1]}', "row 5: no reward"),
    ],
)
def test_a_line_that_says_nothing_is_named(line, said, dump):
    file = dump / "2.jsonl"
    lines = file.read_text().splitlines()
    lines[4] = line
    file.write_text("\n".join(lines))
    height, notes = verl(dump)
    assert height == ALL - 1
    assert f"{file}, {said}, so " in notes


def test_blank_lines_and_other_types_are_no_mistake(dump):
    """Numbers as true, or as texts, and blank lines: slower, but the same."""
    file = dump / "2.jsonl"
    lines = [line.replace("1.0", "true") if i % 2 else line for i, line in enumerate(file.read_text().splitlines())]
    file.write_text("\n\n".join(lines) + "\n\n")
    plain = read_dump("verl", write_verl(dump.parent / "plain", ROWS), options=VERL)
    again = read_dump("verl", dump, options=VERL)
    assert again.completions.equals(plain.completions)


def test_files_of_other_columns_are_left_out(dump):
    (dump / "2.jsonl").write_text('{"a": 1}\n')
    (dump / "4.jsonl").write_bytes(b"\xff\xfe" * 40)
    (dump / "5.jsonl").write_text("")
    height, notes = verl(dump)
    assert height == ALL // 2
    assert "2.jsonl, line 1: no 'input', 'score', got a; the file is left out" in notes
    assert "4.jsonl, line 1 is no JSON object" in notes
    assert "5.jsonl has no lines" in notes


def test_a_file_with_another_step_inside_is_named(dump):
    file = dump / "2.jsonl"
    file.write_text(file.read_text().replace('"step": 2', '"step": 9'))
    height, notes = verl(dump)
    assert height == ALL
    assert "says step 9 inside; its name counts" in notes


def test_two_runs_in_one_folder_are_refused(tmp_path):
    for name in ("a", "b"):
        write_verl(tmp_path / "runs" / name, ROWS)
    with pytest.raises(ValueError, match=r"path must be the folder of one dump, got .* with several: .*a, .*b$"):
        verl(tmp_path / "runs")
    folder = write_open_instruct(tmp_path / "open", ROWS)
    write_open_instruct(folder, ROWS[:8], run="other__2__1800000000")
    with pytest.raises(ValueError, match=r"got 2: grpo__1__1700000000, other__2__1800000000; choose one with --run"):
        read_dump("open-instruct", folder, options=OPEN)
    with pytest.raises(ValueError, match=r"run must be one of .*, got 'x'"):
        read_dump("open-instruct", folder, Choices(run="x"), options=OPEN)
    one = read_dump("open-instruct", folder, Choices(run="other__2__1800000000"), options=OPEN)
    assert one.completions.height == 8
    for name in ("x", "y"):
        write_nano_aha(tmp_path / "nano" / name, ROWS)
    with pytest.raises(ValueError, match=r"with several runs: x, y"):
        read_dump("nano-aha", tmp_path / "nano", options=NANO)


def aged(folder, times):
    """Give the files of steps 1, 2, ... these times, in seconds."""
    for step, seconds in enumerate(times, start=1):
        os.utime(folder / f"{step}.jsonl", (seconds, seconds))


def test_a_shorter_run_over_a_longer_one(dump):
    """Steps 1 to 4 were written anew, 5 and 6 are left from the run before: what is known to be of one run counts."""
    aged(dump, [1010, 1020, 1030, 1040, 50, 60])
    height, notes = verl(dump)
    assert height == ALL * 4 // 6
    assert f"{dump / '5.jsonl'} and what follows is older than the steps before" in notes


@pytest.mark.parametrize(
    "times", [[10, 20, 30, 40, 50, 60], [10] * 6, [30, 10, 60, 20, 40, 50], [90, 20, 30, 40, 50, 60]]
)
def test_times_that_say_nothing_change_nothing(times, dump):
    """In order, copied at once or in any order, one file edited by hand."""
    aged(dump, times)
    assert verl(dump)[0] == ALL


def test_trl_files_that_change_their_rewards_are_two_runs(tmp_path):
    for step, reward in ((1, "right"), (2, "other")):
        table = {"step": [step] * 2, "prompt": ["q"] * 2, "completion": ["a", "b"], reward: [0.0, 1.0]}
        pl.DataFrame(table).write_parquet(tmp_path / f"completions_{step:05d}.parquet")
    with pytest.raises(
        ValueError, match=r"path must be one run, got .*completions_00002.parquet with the columns other"
    ):
        read_dump("trl", tmp_path, options={"beta": 0.1})


def test_a_parquet_file_that_is_cut_is_left_out(tmp_path):
    for step in (1, 2, 3):
        table = {"step": [step] * 2, "prompt": ["q"] * 2, "completion": [f"a{step}", "b"], "right": [0.0, 1.0]}
        pl.DataFrame(table).write_parquet(tmp_path / f"completions_{step:05d}.parquet")
    file = tmp_path / "completions_00002.parquet"
    whole = file.read_bytes()
    for size in (0, 3, 10, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:size])
        converted = read_dump("trl", tmp_path, options={"beta": 0.1})
        assert converted.completions["step"].to_list() == [1, 1, 3, 3]
        assert any(f"{file} cannot be read" in note for note in converted.measured.arms[0].notes)
    for other in (1, 3):
        (tmp_path / f"completions_0000{other}.parquet").write_bytes(b"")
    with pytest.raises(ValueError, match=r"path must have a dump that can be read, got .*cannot be read"):
        read_dump("trl", tmp_path, options={"beta": 0.1})


def test_a_list_that_is_cut_keeps_what_is_whole(tmp_path):
    write_nano_aha(tmp_path, ROWS)
    file = tmp_path / "episodes" / "eps_000002.json"
    rows = json.loads(file.read_text())
    file.write_text(json.dumps(rows)[: len(json.dumps(rows[:20])) + 5])
    converted = read_dump("nano-aha", tmp_path, options=NANO)
    assert converted.completions.height == ALL - 28
    assert any("eps_000002.json is cut off or no JSON after row 20" in n for n in converted.measured.arms[0].notes)


def test_a_step_that_goes_backwards_is_a_restart(tmp_path):
    """The run was stopped after step 5 and went on from a checkpoint before step 2: its steps 2 to 5 count once."""
    again = [row for row in rows_of(P, 8, seed=1) if row[0] >= 2]
    folder = write_open_instruct(tmp_path / "dump", ROWS + again, shard=10**6)
    converted = read_dump("open-instruct", folder, options=OPEN)
    assert converted.completions.height == ALL
    later = converted.completions.filter(pl.col("step") >= 2)
    assert later["success"].to_list() == [right for _, _, right in again]
    (note,) = [note for note in converted.measured.arms[0].notes if "goes back" in note]
    assert "_rollouts_000000.jsonl, line 289: the step goes back from 5 to 2, as after a restart" in note
    assert "(192 such)" in note


def test_writers_of_one_run_may_be_a_little_out_of_order(tmp_path):
    """Two threads write: neighbouring steps may change places, and nothing is lost."""
    order = [0, 2, 1, 3, 5, 4]
    rows = [row for step in order for row in ROWS if row[0] == step]
    converted = read_dump("open-instruct", write_open_instruct(tmp_path, rows), options=OPEN)
    assert converted.completions.height == ALL


def test_rewards_of_many_values_need_a_threshold(dump):
    file = dump / "2.jsonl"
    file.write_text(file.read_text().replace('"score": 1.0', '"score": 0.5', 2))
    with pytest.raises(ValueError, match=r"threshold must be given where rewards are not 0 and 1, got 0, 0.5, 1: "):
        verl(dump)
    assert verl(dump, threshold=0.5)[0] == ALL


def test_rewards_of_two_values_say_it_themselves(tmp_path):
    folder = write_verl(tmp_path / "dump", ROWS, score=lambda right: 2.0 * right - 1)
    converted = read_dump("verl", folder, options=VERL)
    assert converted.completions["success"].to_list() == [right for _, _, right in ROWS]
    assert "Rewards are -1 and 1: the larger is a success." in converted.measured.arms[0].notes


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        ({"success_column": "accu"}, "success_column must be one of the keys input, output, gts, score, step"),
        ({"question_column": "index"}, "no 'index', got input, output, gts, score, step; the file is left out"),
        ({"first_step": 3}, "first_step must be at most 1"),
        ({"p_ref": "nowhere.csv"}, "p_ref must be one that exists, got 'nowhere.csv'"),
        ({"window": 0}, "window must be an integer >= 1, got 0"),
        ({"threshold": float("nan")}, "threshold must be a number, got nan"),
    ],
)
def test_choices_that_cannot_be(choices, said, dump):
    with pytest.raises(ValueError, match=said):
        verl(dump, **choices)


def test_counts_of_other_questions_are_refused(dump, tmp_path):
    (tmp_path / "p.csv").write_text("question_id,successes,samples\nx,1,2\n")
    with pytest.raises(
        ValueError, match=r"p_ref must have questions of the dump, got .* with 'x' and the dump with 'q-"
    ):
        verl(dump, p_ref=tmp_path / "p.csv")


@pytest.mark.parametrize("kind", ["trl", "verl", "open-instruct", "nano-aha", "generic"])
def test_a_folder_of_something_else(kind, tmp_path):
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(ValueError, match=r"^path must be .*, got '.*test_a_folder_of_something_el"):
        read_dump(kind, tmp_path, trainer="oat" if kind == "generic" else None, options={})
    with pytest.raises(ValueError, match=r"path must be one that exists"):
        read_dump(kind, tmp_path / "missing", trainer="oat" if kind == "generic" else None)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "cannot be read"),
        ("step,question_id\n1,a\n", r"must have a column for the reward \(success, correct, "),
        ("question_id,success\na,1\n", r"must have a column for the step \(iteration, step, "),
        ("step,question_id,success\n1,a,0,7,8\n", "row 1 has 5 fields of 3"),
        ("step,question_id,success\nx,a,1\n", "row 1: no step"),
    ],
)
def test_tables_that_cannot_be_read(text, said, tmp_path):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(ValueError, match=said):
        read_dump("generic", tmp_path / "t.csv", trainer="trl", options={"beta": 0.1})


def test_a_table_that_is_cut_in_its_last_line(tmp_path):
    (tmp_path / "t.csv").write_text("step,question_id,success\n0,a,1\n0,a,0\n1,a,1\n1,a")
    converted = read_dump("generic", tmp_path / "t.csv", trainer="trl", options={"beta": 0.1})
    assert converted.completions.height == 3
    assert any("t.csv, row 4: no reward" in note for note in converted.measured.arms[0].notes)


@pytest.mark.parametrize(
    ("rows", "kept", "said"),
    [
        ('0,a,1,x\n1,a,0,7,8\n1,a,1,"y ""z"" \n y"\n', [0, 1], "row 2 has 5 fields of 4, so it is left out"),
        ('0,a,1,x\n1,a,0,"y\nz"\n1,a,1,"so ""it\n i', [0, 1], "row 3 is cut off, or a quote in it is not closed"),
        ('0,a,1,x\n1,a,0,"y"z\n2,a,1,y\n', [0, 2], "row 2 is no row ("),
        ("0,a,1,x\n1,a,0,\udcff\n2,a,1,y\n", [0, 2], "row 2 is not UTF-8"),
        ("0,a,1,x\n-1,a,0,y\n2,a,1,y\n", [0, 2], "row 2: no step"),
    ],
)
def test_the_rows_of_a_table_around_a_broken_one_are_kept(rows, kept, said, tmp_path):
    text = "step,question_id,success,completion\n" + rows
    (tmp_path / "t.csv").write_bytes(text.encode("utf-8", "surrogateescape"))
    converted = read_dump("generic", tmp_path / "t.csv", trainer="trl", options={"beta": 0.1})
    assert converted.completions["step"].to_list() == kept
    assert any(f"t.csv, {said}" in note for note in converted.measured.arms[0].notes)


@pytest.mark.parametrize("name", ["step", "success", "question_id", "finish_reason", "completion"])
@pytest.mark.parametrize("value", [[1], [], [[1, 2], [3]], {"a": 1}, [{"a": 1}], [None]])
def test_a_column_of_lists_is_left_out_or_read_as_text(name, value, tmp_path):
    """Where a number belongs it is no number; a question is named by any value, and how a text ended is not needed."""
    rows = [{"step": i // 2, "question_id": "a", "success": i % 2, "completion": "x"} for i in range(8)]
    (tmp_path / "t.jsonl").write_text("\n".join(json.dumps({**row, name: value}) for row in rows))
    pl.DataFrame(rows).with_columns(pl.Series(name, [value] * 8)).write_parquet(tmp_path / "t.parquet")
    for file in ("t.jsonl", "t.parquet"):
        if name in ("step", "success"):
            with pytest.raises(ValueError, match=f"no {'step' if name == 'step' else 'reward'}"):
                read_dump("generic", tmp_path / file, trainer="trl", options={"beta": 0.1})
        else:
            assert read_dump("generic", tmp_path / file, trainer="trl", options={"beta": 0.1}).completions.height == 8


def test_counts_that_cannot_be_are_left_out(tmp_path):
    (tmp_path / "t.csv").write_text("iteration,question_id,successes,samples\n0,a,3,8\n1,a,9,8\n2,a,-1,8\n3,a,4,8\n")
    converted = read_dump("generic", tmp_path / "t.csv", trainer="trl", options={"beta": 0.1})
    assert converted.measured.arms[0].success["iteration"].to_list() == [0, 3]
    assert any(
        "t.csv, row 2: no reward, so the row is left out (2 such)" in n for n in converted.measured.arms[0].notes
    )

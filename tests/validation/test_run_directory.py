"""Reading a run: whole, half, torn, or no run at all."""

import json

import numpy as np
import polars as pl
import pytest

from grpo_dynamics.update_rule import Training
from grpo_dynamics.validation.run_directory import read_run
from tests.validation.made_runs import success, write_arm, write_run

ODDS = np.array([[-1.0, 1.0], [-0.5, 1.5], [0.0, 2.0]])


@pytest.fixture
def run(tmp_path):
    return write_run(
        tmp_path / "run", {"second": (Training(), [0.2, 0.4]), "first": (Training(beta=2.0), [0.1, 0.3])}, 3
    )


def running(folder, parts):
    """An arm that still runs: its table in parts of one iteration each."""
    table = success(ODDS)
    write_arm(folder, table, Training(), status="running", iterations=10)
    (folder / "success.parquet").unlink()
    for n in range(parts):
        (folder / "parts" / f"{n:06d}").mkdir(parents=True)
        table.filter(iteration=n).write_parquet(folder / "parts" / f"{n:06d}" / "success.parquet")
    return folder


def test_arms_come_in_the_order_of_the_manifest(run):
    measured = read_run(run)
    assert [arm.name for arm in measured.arms] == ["second", "first"]
    assert measured.name == "made"
    assert all(arm.finished and not arm.notes for arm in measured.arms)
    assert measured.arms[1].grid().p.shape == (4, 2)
    assert measured.arms[0].questions["prompt"].to_list() == ["q000=", "q001="]


def test_one_arms_folder_is_a_run(run):
    assert [arm.name for arm in read_run(run / "first").arms] == ["first"]


def test_an_unfinished_arm_is_read_as_far_as_it_is(tmp_path):
    (arm,) = read_run(running(tmp_path / "arm", parts=2)).arms
    assert not arm.finished
    assert arm.success["iteration"].unique().to_list() == [0, 1]
    assert "iterations 0 to 1 of 10" in arm.notes[0]


def test_a_torn_part_ends_the_reading(tmp_path):
    folder = running(tmp_path / "arm", parts=3)
    torn = folder / "parts" / "000001" / "success.parquet"
    torn.write_bytes(torn.read_bytes()[:100])
    (arm,) = read_run(folder).arms
    assert arm.success["iteration"].unique().to_list() == [0]  # iteration 2 would be a gap
    assert any("000001/success.parquet is torn" in note for note in arm.notes)
    assert not arm.finished


def test_a_killed_arm_beside_one_that_has_not_begun(tmp_path):
    write_run(tmp_path, {"done": (Training(), [0.2])}, 2)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps(manifest | {"arms": ["done", "later"]}))
    measured = read_run(tmp_path)
    assert [arm.name for arm in measured.arms] == ["done"]
    assert "later" in measured.notes[0]


def test_foreign_columns_are_named(run):
    path = run / "first" / "success.parquet"
    pl.read_parquet(path).with_columns(pl.lit(1).alias("mood"), pl.lit(0.1).alias("gap")).write_parquet(path)
    assert any("not read: mood" in note for note in read_run(run).arms[1].notes)


def test_the_manifests_own_notes_are_passed_on(run):
    path = run / "first" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"notes": ["checkpoint 4 was torn"]}))
    assert read_run(run).arms[1].notes == ("checkpoint 4 was torn",)


def test_the_length_of_answers_is_known_to_the_theory(run):
    path = run / "first" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"task": {"max_completion_tokens": 1}}))
    assert read_run(run).arms[1].config["task"]["max_completion_tokens"] == 1


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda run: (run / "first" / "success.parquet").write_bytes(b"PAR1"),
            "success.parquet must be a parquet table",
        ),
        (lambda run: (run / "first" / "manifest.json").write_text("{"), "manifest.json must be a JSON file"),
        (lambda run: (run / "first" / "manifest.json").write_text("[]"), "must be a JSON object, got list"),
        (lambda run: (run / "first" / "manifest.json").unlink(), "settings of the arm under 'config', got None"),
    ],
)
def test_files_that_cannot_be_read_are_named(run, spoil, message):
    spoil(run)
    with pytest.raises(ValueError, match=message):
        read_run(run)


def test_no_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match="run must be a folder that exists, got"):
        read_run(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"run must be a folder with success.parquet"):
        read_run(tmp_path)
    running(tmp_path / "arm", parts=0)
    (tmp_path / "arm" / "parts").mkdir()
    with pytest.raises(ValueError, match="must have measured the policy before training"):
        read_run(tmp_path)

"""`grpo-dynamics validate`: exit codes, the table, the JSON, and one line for what is wrong."""

import json

import pytest

import grpo_dynamics as gd
from grpo_dynamics.cli import main
from grpo_dynamics.update_rule import Training
from tests.validation.made_runs import write_run

P_REF = [0.1, 0.3, 0.6]


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "run", {"beta_2": (Training(beta=2.0), P_REF)}, 4, validation={"median": 1e-6})


def test_a_run_within_its_thresholds(run, capsys):
    assert main(["validate", str(run)]) == 0
    shown = capsys.readouterr().out
    assert "beta_2" in shown
    assert "pass" in shown
    assert str(run.resolve() / "validation" / "report.html") in shown
    assert (run / "validation" / "comparison.parquet").exists()


def test_a_threshold_that_is_not_met(tmp_path, capsys):
    table = {"beta_2": (Training(beta=2.0), P_REF)}
    run = write_run(tmp_path / "run", table, 4, samples=20, validation={"median": 1e-6})
    assert main(["validate", str(run)]) == 1
    shown = capsys.readouterr().out
    assert "FAIL" in shown
    assert "must be at most 1e-6" in " ".join(shown.split())


def test_the_table_fits_80_columns_and_the_theories_stand_below_it(tmp_path, capsys):
    groups = Training(beta=2.0, normalization=gd.FiniteGroup(16))
    arms = {"an_arm_with_a_long_name": (Training(beta=2.0), P_REF), "groups_of_16": (groups, P_REF)}
    assert main(["validate", str(write_run(tmp_path / "run", arms, 4))]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(len(line.rstrip()) for line in lines if not line.startswith("Open ")) <= 80
    row = next(line.split() for line in lines if line.startswith("groups_of_16"))
    assert row[-2:] == ["no", "thresholds"]
    assert any(line.startswith("an_arm_with_a_long_name ") for line in lines)  # in one piece
    assert "Predicted by the recursion with Ω of groups of 16: groups_of_16" in lines
    assert any(line.startswith("paper's: ") for line in lines)


def test_json_has_every_number(run, tmp_path, capsys):
    assert main(["validate", str(run / "beta_2"), "--out", str(tmp_path / "out"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["command"] == "validate"
    assert told["passed"] is True
    assert told["arms"][0]["residual"]["largest"] < 1e-9
    assert told["arms"][0]["thresholds"][0]["bound"] == 1e-6
    assert told["page"] == str(tmp_path / "out" / "report.html")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda run: run / "nowhere", "run must be a folder that exists, got"),
        (lambda run: (run / "beta_2" / "success.parquet").write_bytes(b"x") and run, "must be a parquet table"),
        (lambda run: (run / "beta_2" / "success.parquet").unlink() or run, "run must be a folder with success.parquet"),
    ],
)
def test_one_line_for_a_run_that_is_none(run, spoil, message, capsys):
    assert main(["validate", str(spoil(run))]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1


def test_a_folder_that_cannot_be_written(run, capsys, tmp_path):
    (tmp_path / "file").write_text("")
    assert main(["validate", str(run), "--out", str(tmp_path / "file")]) == 2
    assert "out must be a folder" in capsys.readouterr().err


def test_settings_that_are_no_training(run, capsys):
    path = run / "beta_2" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["config"]["training"]["beta"] = -1.0
    path.write_text(json.dumps(manifest))
    assert main(["validate", str(run)]) == 2
    assert "beta must be" in capsys.readouterr().err


def test_no_folder_is_given(capsys):
    assert main(["validate"]) == 2
    assert capsys.readouterr().err.startswith("error: ")

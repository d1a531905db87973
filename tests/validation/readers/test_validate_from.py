"""`grpo-dynamics validate --from`: a dump in, the same report as for own runs out."""

import json

import numpy as np
import polars as pl
import pytest

from grpo_dynamics.cli import main
from tests.validation.readers.made_dumps import rows_of, write_nano_aha, write_verl

P = np.tile(np.linspace(0.2, 0.8, 4), (6, 1))
SETTINGS = [
    "--set",
    "adv_estimator=grpo",
    "--set",
    "use_kl_loss=true",
    "--set",
    "kl_loss_coef=0.5",
    "--set",
    "rollout.n=8",
]


def test_a_report_and_the_canonical_table(tmp_path, answer):
    folder = write_verl(tmp_path / "rollouts", rows_of(P, 8))
    told = answer("validate", str(folder), "--from", "verl", *SETTINGS)
    assert told["out"] == str(folder / "validation")
    assert told["passed"] is None
    (arm,) = told["arms"]
    assert (arm["questions"], arm["iterations"]) == (4, 5)
    assert arm["theory"] == "flow with Ω of groups of 8 and KL(π_ref‖π)"
    assert arm["p_infinity"]["points"] == 4
    files = {path.rpartition("/")[2] for path in told["files"]}
    assert {"report.html", "summary.json", "completions.parquet", "comparison.parquet"} <= files
    table = pl.read_parquet(folder / "validation" / "completions.parquet")
    columns = "iteration step question_id sample_index success reward completion_length finish_reason"
    assert table.columns == columns.split()
    assert table.height == 6 * 4 * 8
    page = (folder / "validation" / "report.html").read_text(encoding="utf-8")
    assert "The version of verl is not known" in page
    # the report lies in the dump's own folder, and is not taken for a part of it
    assert answer("validate", str(folder), "--from", "verl", *SETTINGS)["arms"] == told["arms"]


@pytest.mark.parametrize("window", [None, 1])
def test_questions_seen_now_and_then_make_a_report(window, tmp_path, capsys):
    """Many steps, few questions in each: nothing warns, and what is not known is said."""
    folder = tmp_path / "run_temp1.0_kl0.1_lr1e-06_algrpo"
    write_nano_aha(folder, rows_of(np.tile(np.linspace(0.1, 0.9, 20), (40, 1)), 4, seen=3))
    options = [] if window is None else ["--window", str(window)]
    assert main(["validate", str(folder), "--from", "nano-aha", "--out", str(tmp_path / "out"), *options]) == 0
    out, err = capsys.readouterr()
    said = " ".join(out.split())
    assert err == ""
    assert "p_ref of 17 of 20 questions is not known" in said
    assert ("are counted together in each point" in said) == (window is None)
    assert "Predicted by the flow with Ω of groups of 4 and KL(π_ref‖π)" in said


def test_a_table_goes_beside_its_file(tmp_path, answer):
    (tmp_path / "log.csv").write_text(
        "iteration,question_id,successes,samples\n" + "".join(f"{i},a,{2 + i},16\n" for i in range(6))
    )
    told = answer("validate", str(tmp_path / "log.csv"), "--from", "generic", "--trainer", "oat", "--set", "beta=0.1")
    assert told["out"] == str(tmp_path / "log.csv.validation")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--from", "vrel"], "from must be one of trl, verl, open-instruct, nano-aha, generic, got 'vrel'"),
        (["--threshold", "0"], "threshold must be left out without --from, got 0.0"),
        (["--set", "beta=1"], "setting must be left out without --from"),
        (["--p-ref", "x.csv"], "p_ref must be left out without --from, got 'x.csv'"),
        (["--from", "verl"], "config must be a file with the settings of verl, got none beside the dump"),
        (["--from", "verl", "--config", "no.yaml"], "config must be a file that exists, got 'no.yaml'"),
        (["--from", "verl", "--set", "beta"], "set must be an option of the trainer and its value"),
        (["--from", "verl", "--set", "kl_loss_koef=1"], "option of verl must be one of those that decide"),
        (["--from", "verl", "--trainer-version", "7"], "version of verl must be one of 0.9.1, 0.10.0, got '7'"),
        (["--from", "verl", "--window", "x"], "window must be an integer >= 1, got 'x'"),
        (["--from", "trl", "--set", "beta=1"], "path must be the output_dir of TRL"),
        (["--from", "generic"], "trainer must be the one that wrote the table, got nothing: add --trainer"),
    ],
)
def test_bad_input_is_one_line(options, said, tmp_path, capsys):
    folder = write_verl(tmp_path / "rollouts", rows_of(P, 8))
    assert main(["validate", str(folder), *options]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"error: {said}")
    assert err.count("\n") == 1
    assert not (folder / "validation").exists()


def test_a_config_with_a_misspelt_option_is_one_line(tmp_path, capsys):
    folder = write_verl(tmp_path / "rollouts", rows_of(P, 8))
    config = tmp_path / "mine.json"
    config.write_text(json.dumps({"algorithm": {"adv_estimatr": "grpo"}}))
    assert main(["validate", str(folder), "--from", "verl", "--config", str(config)]) == 2
    line = "got 'algorithm.adv_estimatr'; the nearest is 'algorithm.adv_estimator' in"
    assert line in capsys.readouterr().err

"""`grpo-dynamics make-model`: what it writes and prints, and one line for everything that is wrong."""

import pytest

from grpo_dynamics.cli import main
from grpo_dynamics.training.policies import load_policy

KINDS = "one_token_sums, sums, countdown, python_functions, dataset"
SMALL = ("--option", "largest=3", "--hidden-size", "32", "--layers", "1", "--steps", "2000")


def test_a_model_is_made_and_found_again(tmp_path, answer):
    out = tmp_path / "models" / "sums"
    found = answer("make-model", "--task", "one_token_sums", "--out", str(out), *SMALL)
    assert found["config"]["questions"] == 16
    assert found["config"]["task"] == "one_token_sums"
    assert sorted(found["files"]) == sorted(str(path) for path in out.iterdir())
    policy = load_policy(out, device="cpu")
    assert policy.model.num_parameters() == found["parameters"]
    policy.check(["3+3=", "6"])
    again = answer("make-model", "--task", "one_token_sums", "--out", str(out), *SMALL)
    assert again == found


def test_people_read_how_p_ref_spreads(tmp_path, printed, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = printed("make-model", "--task", "one_token_sums", "--out", "model", *SMALL)
    assert "A model of one_token_sums" in text
    assert "questions 16: " in text
    assert "in (0.001, 0.01)" in text
    assert "model and tokenizer, corpus.parquet, manifest.json" in text


def test_a_time_limit_says_how_far_it_came_and_the_same_command_goes_on(tmp_path, answer, capsys):
    """0.02 s are over before the first step: nothing is at the place but what the next command goes on from."""
    arguments = ("make-model", "--task", "one_token_sums", "--out", str(tmp_path / "m"), *SMALL)
    assert main([*arguments, "--time-limit", "0.0001"]) == 3
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("stopped by the time limit: pre-training: step 0 of at most 2000")
    assert err.endswith("the same command goes on from there\n")
    assert err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == [".m.pretraining"]
    assert answer(*arguments)["steps"] > 0
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), f"task must be one of {KINDS}, got nothing: add --task"),
        (("--task", "sums"), "out must be a folder, got nothing: add --out"),
        (("--task", "sum", "--out", "m"), f"task must be one of {KINDS}, got 'sum'; the nearest is 'sums'"),
        (("--task", "sums", "--out", "m", "--option", "larger"), "option must be KEY=VALUE, got 'larger'"),
        (("--task", "sums", "--out", "m", "--option", "largest=abc"), "largest must be a whole number ≥ 1, got 'abc'"),
        (
            ("--task", "sums", "--out", "m", "--option", "big=1"),
            "option of sums must be one of largest, questions, seed, got 'big'",
        ),
        (("--task", "sums", "--out", "m", "--hidden-size", "100"), "hidden_size must be a multiple of 32, got 100"),
        (("--task", "sums", "--out", "m", "--head-size", "48"), "head_size must be a multiple of 32, got 48"),
        (
            ("--task", "sums", "--out", "m", "--precision", "fp8"),
            "precision must be one of 'float32', 'bf16', got 'fp8'",
        ),
        (("--task", "sums", "--out", "m", "--device", "tpu9"), "device must be one that is here (cpu), got 'tpu9'"),
        (
            ("--task", "sums", "--out", "m", "--time-limit", "0"),
            "time_limit must be a positive number of minutes, got 0.0",
        ),
        (("--task", "sums", "--out", "file"), "out must be a folder, got 'file'"),
        (
            ("--task", "dataset", "--out", "m", "--option", "source=x.jsonl"),
            "source must be a file that exists, got 'x.jsonl'",
        ),
    ],
)
def test_bad_input_is_one_line(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    assert main(["make-model", *arguments]) == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"error: {message}\n")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]

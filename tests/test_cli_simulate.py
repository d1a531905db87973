"""`grpo-dynamics simulate`: what it writes, what it prints, and one line for everything that is wrong."""

import json
import re
import sys

import numpy as np
import polars as pl
import pytest

import grpo_dynamics as gd
from grpo_dynamics.cli import main
from grpo_dynamics.simulation import experiments

EXACT = """
steps = 6
[questions]
p_ref = [0.05, 0.2]
[training]
beta = 1.0
"""
SAMPLED = """
seed = 3
steps = 60
checkpoint_every = 20
record_every = 10
[questions]
p_ref = 0.2
copies = 3
[training]
beta = 1.0
update = "sampled"
learning_rate = 0.1
groups = 2
normalization = { kind = "finite_group", group_size = 8 }
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "exact.toml").write_text(EXACT)
    (tmp_path / "sampled.toml").write_text(SAMPLED)
    return tmp_path


def test_exact_minimisation_is_the_recursion(folder, answer):
    found = answer("simulate", "--config", "exact.toml", "--out", "new/folder")
    assert [found["name"], found["experiment"], found["parts"]] == ["exact", "simulation", 1]
    written = sorted(str(path.relative_to(folder)) for path in (folder / "new" / "folder").iterdir())
    assert sorted(found["files"]) == written == [f"new/folder/exact.{end}" for end in ("json", "parquet", "pdf", "png")]
    table = pl.read_parquet("new/folder/exact.parquet")
    path = gd.grpo(1.0, np.array([0.05, 0.2])).iterate(6).log_odds
    assert np.abs(table["log_odds"].to_numpy().reshape(7, 2) - path).max() < 1e-10
    points = gd.fixed_points(gd.grpo(1.0, np.array([0.05, 0.2]))).p[0]
    assert table["prediction"][:2].to_list() == pytest.approx(points)
    assert json.loads((folder / "new/folder/exact.json").read_text())["config"] == found["config"]
    assert (folder / "new/folder/exact.png").read_bytes().startswith(b"\x89PNG")


def test_the_same_bytes_again_and_resumed(folder, answer):
    first = answer("simulate", "--config", "sampled.toml", "--out", "a")
    answer("simulate", "--config", "sampled.toml", "--out", "b", "--resume")  # nothing there: it starts
    assert (folder / "a/sampled.parquet").read_bytes() == (folder / "b/sampled.parquet").read_bytes()
    again = answer("simulate", "--config", "sampled.toml", "--out", "a", "--resume")  # finished: it is read
    assert again == first
    table = pl.read_parquet("a/sampled.parquet")
    assert table["step"].unique().to_list() == [0, 10, 20, 30, 40, 50, 60]
    assert table.height == 7 * 3
    (folder / "sampled.toml").write_text(SAMPLED.replace("seed = 3", "seed = 4"))
    answer("simulate", "--config", "sampled.toml", "--out", "c")
    assert not pl.read_parquet("c/sampled.parquet").equals(table)


def test_random_questions_and_those_of_a_file(folder, answer):
    (folder / "random.toml").write_text(
        'steps = 3\nseed = 5\n[questions]\nkind = "random"\nquestions = 20\nanswers = 5\n[training]\nbeta = 2.0\n'
    )
    found = answer("simulate", "--config", "random.toml", "--out", "runs")
    assert pl.read_parquet("runs/random.parquet")["question"].n_unique() == 20
    assert len(found["summary"]) == 20
    (folder / "table.csv").write_text("id,p\na,0.1\nb,0\nc,0.3\n")
    (folder / "file.toml").write_text('steps = 3\n[questions]\nfile = "table.csv"\n[training]\nbeta = 2.0\n')
    found = answer("simulate", "--config", "file.toml", "--out", "runs")
    assert [row["p_ref"] for row in found["summary"]] == pytest.approx([0.1, 0.3])
    assert set(found["config"]["files"]) == {"table.csv"}
    (folder / "table.csv").write_text("id,p\na,0.1\nb,0\nc,0.4\n")  # another input: another run
    assert main(["simulate", "--config", "file.toml", "--out", "runs"]) == 2


def test_a_critic_is_trained_in_pieces_too(folder, answer):
    critic = SAMPLED.replace('{ kind = "finite_group", group_size = 8 }', '"mean_only"')
    critic += 'group_size = 8\nadvantage = "critic"\ncritic_rate = 0.2\n'
    (folder / "critic.toml").write_text(critic)
    (folder / "whole.toml").write_text(critic.replace("checkpoint_every = 20", "checkpoint_every = 60"))
    answer("simulate", "--config", "critic.toml", "--out", "runs")
    answer("simulate", "--config", "whole.toml", "--out", "runs")
    assert pl.read_parquet("runs/critic.parquet").equals(pl.read_parquet("runs/whole.parquet"))


def test_an_experiment_by_its_name(folder, answer, printed):
    found = answer("simulate", "--config", "worked_example", "--out", "runs")
    assert [round(found["summary"][0][key], 2) for key in ("mean", "std", "advantage_right")] == [0.5, 0.53, 0.94]
    assert "DeepSeekMath's worked example" in printed("simulate", "--config", "worked_example", "--out", "r")


def test_the_list(answer, printed):
    available = answer("simulate", "--list")["available"]
    assert {entry["name"] for entry in available} == set(experiments.names()[1:])
    assert "worked_example" in printed("simulate", "--list")


def test_progress_is_for_terminals_only(folder, capsys):
    assert not sys.stderr.isatty()
    assert main(["simulate", "--config", "exact.toml", "--out", "runs"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "prediction" in out
    assert "\x1b" not in out


WRONG = {
    ("steps", "stepps"): "key must be one of experiment, seed, questions, training, .* got 'stepps'; .* 'steps'",
    ("copies", "copis"): r"key of \[questions\] must be one of .* got 'copis'; the nearest is 'copies'",
    ("beta", "bta"): r"key of \[training\] must be one of beta, .* got 'bta'; the nearest is 'beta'",
    ('"sampled"', '"sampeld"'): "training.update must be one of .* got 'sampeld'; the nearest is 'sampled'",
    ("group_size", "size"): r"key of \[training.normalization\] must be .* got 'size'; the nearest is 'group_size'",
    ("beta = 1.0", "beta = nan"): "beta must be a finite number > 0",
    ("p_ref = 0.2", "p_ref = 1.2"): "p_ref must be a probability",
    ("p_ref = 0.2", 'p_ref = "0.2"'): "questions.p_ref must be a list, got '0.2'",
    ("p_ref = 0.2", 'file = "none.csv"'): "file must be one that exists, got 'none.csv'",
    ("p_ref = 0.2", "p_ref = 0.2\nanswers = 5"): "questions.answers must be left out with kind 'uniform'",
    ("p_ref = 0.2", ""): "questions must have p_ref or file with kind 'uniform', got neither",
    ("steps = 60", "steps = 0"): "steps must be an integer >= 1, got 0",
    ("checkpoint_every = 20", "checkpoint_every = 25"): r"checkpoint_every must be a multiple of record_every \(10\)",
    ("seed = 3", 'experiment = "sim_clip"'): "experiment must be one of .* got 'sim_clip'; the nearest is 'clip'",
    ("[questions]", "[questions"): "config must be a TOML file, got 'wrong.toml'",
    # combinations that mean nothing, with the nearest that do
    ('"sampled"', '"exact"'): 'learning_rate=0.1 means nothing with update="exact"; leave it out, or take',
    ("groups = 2", 'groups = 2\nkl_level = "token"'): 'kl_level="token" means nothing with kl="exact"; take kl_level',
    ("groups = 2", "groups = 2\ncritic_rate = 0.5"): 'critic_rate=0.5 means nothing with advantage="group"',
}


@pytest.mark.parametrize("change", WRONG, ids=lambda change: change[1].replace("\n", ", "))
def test_a_config_that_is_wrong(change, folder, capsys, monkeypatch):
    (folder / "wrong.toml").write_text(SAMPLED.replace(*change))
    refused(["--config", "wrong.toml"], WRONG[change], folder, capsys)


def test_a_config_with_clipping_and_exact_minimisation(folder, capsys):
    (folder / "wrong.toml").write_text(EXACT + "clip_low = 0.2\n")
    allowed = 'clip_low=0.2 means nothing with update="exact"; leave it out, or take update="gradient"'
    refused(["--config", "wrong.toml"], allowed, folder, capsys)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "config must be a TOML file or the name of an experiment, got nothing: add --config"),
        (["--config="], "config must be a TOML file or the name of an experiment, got ''"),
        (["--config", "exat.toml"], "config must be a file that exists, got 'exat.toml'; the nearest is 'exact.toml'"),
        (["--config", "clib"], "config must be a file or one of the experiments .*, got 'clib'; the nearest is 'clip'"),
        (["--config", "."], "config must be a file that can be read"),
        (["--config", "exact.toml", "--out", "exact.toml"], "out must be a folder, got 'exact.toml'"),
        (["--config", "exact.toml", "--out", "exact.toml/x"], "out must be a place that can be written"),
        (["--config", "exact.toml", "--out="], "out must be a folder, got ''"),
    ],
)
def test_arguments_that_are_wrong(arguments, message, folder, capsys):
    refused(arguments, message, folder, capsys)


def test_a_policy_that_leaves_the_numbers(folder, capsys):
    (folder / "wrong.toml").write_text(EXACT + 'update = "gradient"\nnatural = true\nlearning_rate = 1e308\n')
    refused(
        ["--config", "wrong.toml"], "learning_rate must be so small that the policy stays finite", folder, capsys, False
    )


def refused(arguments, message, folder, capsys, nothing_left=True):
    """Run a command that has to refuse in one line with exit code 2, and leave nothing behind."""
    before = sorted(folder.rglob("*"))
    assert main(["simulate", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(rf"error: {message}[^\n]*\n", err), err
    assert not nothing_left or sorted(folder.rglob("*")) == before
    return err

"""A run that its time limit stops, at whatever moment, is gone on with, and ends like one that was never stopped."""

import json
import math
import random

import pytest
import torch

from grpo_dynamics.training import runs
from grpo_dynamics.training.config import read_run_config
from grpo_dynamics.training.deadline import Deadline, TimeLimit
from grpo_dynamics.training.runs import run, train
from tests.training.tiny import tiny_model

CONFIG = """
name = "tiny"
seed = 3
iterations = 5
questions = 6
checkpoint_every = 3
task = {{ kind = "one_token_sums" }}
model = {{ path = "{model}", device = "cpu" }}
optimization = {{ learning_rate = 0.02 }}
[training]
update = "sampled"
beta = 1.0
kl = "k3"
inner_steps = 2
normalization = {{ kind = "finite_group", group_size = 4 }}
[[arms]]
name = "k3"
optimization = {{ questions_per_step = 3 }}
[[arms]]
name = "argmin"
checkpoint_every = 1
iterations = 3
training = {{ kl = "exact", inner_steps = 1, groups = 8 }}
optimization = {{ inner_tolerance = 1e-2 }}
"""


class Asked(Deadline):
    """A deadline that is over when it has been asked so many times; with ``at``, between iterations only."""

    def __init__(self, times, between=False):
        super().__init__(1e9)
        self.times, self.between = times, between

    def passed(self, needed=0.0):
        self.times -= not self.between or needed > 0
        return self.times < 0 and (not self.between or needed > 0)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("config")
    path = folder / "tiny.toml"
    path.write_text(CONFIG.format(model=tiny_model(folder / "model")))
    return path


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory):
    """What a run leaves that is never stopped."""
    return contents(run(config, tmp_path_factory.mktemp("whole")))


def contents(folder):
    found = {}
    for arm in ("k3", "argmin"):
        for name in ("success", "completions", "steps"):
            found[arm, name] = (folder / arm / f"{name}.parquet").read_bytes()
        found[arm, "weights"] = next((folder / arm / "checkpoints").glob("*/model.safetensors")).read_bytes()
    return found


def test_a_deadline_counts_down_and_all_processes_go_by_the_same_clock():
    assert not Deadline(None).passed(1e9)
    assert Deadline(None).left() == math.inf
    assert 59 < Deadline(60.0).left() <= 60
    assert Deadline(60.0).passed(needed=61.0)
    assert not Deadline(60.0).passed(needed=1.0)
    # this process has time, but the one that all go by has not, and the other way round
    assert Deadline(60.0, agree=lambda seen: True).passed()
    assert not Deadline(1e-9, agree=lambda seen: False).passed()
    assert Deadline(1e-9, agree=lambda seen: False).alone().passed()
    with pytest.raises(TimeLimit, match="step 3"):
        Deadline(1e-9).require("step 3")


@pytest.mark.parametrize("seconds", [0, -1.0, math.nan, math.inf])
def test_a_limit_is_a_positive_number_of_seconds(seconds):
    with pytest.raises(ValueError, match="time_limit must be a positive number of seconds"):
        Deadline(seconds)


def test_stopped_at_any_moment_the_run_ends_with_the_same_tables(config, whole, tmp_path):
    # every gradient step and draw of k3 asks the deadline, and so does every step of the inner loop of argmin: the
    # limits fall between iterations, between batches and within a step; k3 checkpoints every third iteration only
    order, stops = random.Random(0), []
    for arm in read_run_config(config):
        never = Asked(10**9)
        train(arm, tmp_path / "counted" / arm.arm, deadline=never)
        often = 10**9 - never.times  # so many times is the deadline asked in all
        for _ in range(60):
            try:
                folder = tmp_path / "tiny" / arm.arm
                train(arm, folder, resume=True, deadline=Asked(order.randint(often // 5, often)))
                break
            except TimeLimit as stopped:
                stops.append(str(stopped))
                assert json.loads((folder / "manifest.json").read_text())["status"] == "stopped"
        else:
            pytest.fail("it never came to its end")
    assert sum("within iteration" in stop for stop in stops) >= 2
    assert contents(tmp_path / "tiny") == whole


def test_between_iterations_nothing_is_lost(config, whole, tmp_path):
    # one iteration fits into each command, and is kept, though checkpoint_every asks for every third only
    arm = read_run_config(config)[0]
    folder = tmp_path / "tiny" / "k3"
    for done in (1, 2, 3, 4):
        with pytest.raises(TimeLimit, match=f"before iteration {done + 1} of 5"):
            train(arm, folder, resume=True, deadline=Asked(0, between=True))
        manifest = json.loads((folder / "manifest.json").read_text())
        assert (manifest["status"], manifest["iterations_done"]) == ("stopped", done)
    train(arm, folder, resume=True, deadline=Asked(0, between=True))
    for name in ("success", "completions", "steps"):
        assert (folder / f"{name}.parquet").read_bytes() == whole["k3", name]


def test_what_is_said_names_the_arm_and_how_far_the_run_is(config, tmp_path, monkeypatch):
    def limited(times, **options):
        monkeypatch.setattr(runs, "Deadline", lambda seconds, agree: Asked(times, **options))
        with pytest.raises(TimeLimit) as stopped:
            run(config, tmp_path, resume=True, time_limit=60)
        return str(stopped.value)

    said = "the time limit was reached in arm k3, before iteration 2 of 5; 1 of 8 iterations of the run are done: "
    assert limited(0, between=True) == said + "the same command with --resume goes on"
    whole = json.loads((tmp_path / "tiny" / "manifest.json").read_text())
    assert whole["status"] == "stopped"
    # the next command asks before the arm, before the iteration and before the draw, and is over within the iteration
    said = limited(3)
    assert said.startswith("the time limit was reached in arm k3, within iteration 2 of 5; 1 of 8 iterations ")
    assert "none of them by this command: the limit must be longer than this, which took more than " in said
    with pytest.raises(ValueError, match="which is stopped: add --resume, or remove it"):
        run(config, tmp_path)
    monkeypatch.undo()
    assert json.loads((run(config, tmp_path, resume=True) / "manifest.json").read_text())["status"] == "finished"
    # a run that is finished has nothing left to stop
    run(config, tmp_path, resume=True, time_limit=1e-9)


def test_less_at_once_is_no_other_run(config, tmp_path):
    monkeyed = config.read_text().replace("learning_rate = 0.02", "learning_rate = 0.02, micro_batch_size = 7")
    arm = read_run_config(config)[0]
    with pytest.raises(TimeLimit):
        train(arm, tmp_path / "k3", deadline=Asked(0, between=True))
    smaller = tmp_path / "tiny.toml"
    smaller.write_text(monkeyed)
    arm = read_run_config(smaller)[0]
    assert arm.optimization.micro_batch_size == 7
    assert train(arm, tmp_path / "k3", resume=True)["config"]["optimization"]["micro_batch_size"] == 7

"""Two real processes on a CPU do what one does: questions are shared, gradients added up, weights spread or not."""

import json
import os
import subprocess
import sys

import numpy as np
import polars as pl
import pytest
import torch

from grpo_dynamics.training.runs import run
from tests.training.tiny import tiny_model

CONFIG = """
name = "tiny"
seed = 3
iterations = 3
questions = 7
task = {{ kind = "one_token_sums" }}
model = {{ path = "{model}", device = "cpu" }}
optimization = {{ learning_rate = 0.5, optimizer = "sgd", max_grad_norm = 1.0 }}
[training]
update = "sampled"
beta = 1.0
kl = "k3"
inner_steps = 2
normalization = {{ kind = "finite_group", group_size = 4 }}
[[arms]]
name = "batch_std"
training = {{ std_over = "batch" }}
[[arms]]
name = "some_at_a_time"
optimization = {{ questions_per_step = 4, micro_batch_size = 5 }}
[[arms]]
name = "sharded"
model = {{ sharded = true }}
optimization = {{ micro_batch_size = 5 }}
[[arms]]
name = "argmin"
model = {{ sharded = true }}
iterations = 1
training = {{ kl = "exact", inner_steps = 1, groups = 8 }}
optimization = {{ optimizer = "adamw", learning_rate = 0.01, inner_tolerance = 1e-3 }}
"""


def in_two_processes(*arguments):
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "grpo_dynamics.cli"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, *launch, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("two")
    config = root / "tiny.toml"
    config.write_text(CONFIG.format(model=tiny_model(root / "model")))
    done = in_two_processes("run", "--config", str(config), "--out", str(root / "two"), "--json")
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count('"command": "run"') == 1  # one process speaks
    return run(config, root / "one"), root / "two" / "tiny"


@pytest.mark.parametrize("arm", ["batch_std", "some_at_a_time", "sharded"])
def test_two_processes_draw_and_learn_the_same(folders, arm):
    one, two = (pl.read_parquet(folder / arm / "completions.parquet") for folder in folders)
    same = [name for name in one.columns if not name.startswith("logp")]
    assert one.select(same).equals(two.select(same))  # the same samples in the same order
    np.testing.assert_allclose(one["logp_old"].to_numpy(), two["logp_old"].to_numpy(), atol=1e-4)
    one, two = (pl.read_parquet(folder / arm / "success.parquet") for folder in folders)
    assert one["question_id"].equals(two["question_id"])
    np.testing.assert_allclose(one["log_odds"].to_numpy(), two["log_odds"].to_numpy(), atol=1e-4)
    one, two = (pl.read_parquet(folder / arm / "steps.parquet") for folder in folders)
    for name in ("loss", "kl", "mean_ratio", "grad_norm", "reward", "silent"):
        np.testing.assert_allclose(one[name].to_numpy(), two[name].to_numpy(), atol=1e-4)


def test_weights_are_spread_where_that_is_asked(folders):
    manifests = [json.loads((folder / "sharded" / "manifest.json").read_text()) for folder in folders]
    assert [(manifest["processes"], manifest["sharded"]) for manifest in manifests] == [(1, False), (2, True)]


def test_two_processes_find_the_same_optimum(folders):
    one, two = (pl.read_parquet(folder / "argmin" / "success.parquet") for folder in folders)
    # the maximiser is that of the same samples; both are within the tolerance of it, √(1e-3/2) at most
    optimum = [table["log_odds_optimum"].drop_nulls().to_numpy() for table in (one, two)]
    np.testing.assert_allclose(*optimum, atol=1e-4)
    assert np.abs(one["p"].to_numpy() - two["p"].to_numpy()).max() < 0.045


def test_two_processes_stop_together(folders, tmp_path):
    # one of them has time left when the other has not: without one clock for both, one would wait for ever
    config = tmp_path / "tiny.toml"
    config.write_text((folders[1] / "config.toml").read_text())
    done = in_two_processes("run", "--config", str(config), "--out", str(tmp_path), "--time-limit", "0.02")
    assert "the time limit was reached in arm" in done.stderr
    assert done.stderr.count("the same command with --resume goes on") == 1  # one process speaks
    assert json.loads((tmp_path / "tiny" / "manifest.json").read_text())["status"] == "stopped"

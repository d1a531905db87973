"""Runs: kept part by part, never mixed with another run, and the same bytes however often they were killed."""

import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from grpo_dynamics.provenance import parquet
from grpo_dynamics.simulation import experiments
from grpo_dynamics.simulation.runs import Part, Run, independent, own_seed, perform

CONFIG = """
seed = 7
steps = 4000
checkpoint_every = 40
[questions]
p_ref = [0.05, 0.2, 0.5]
copies = 4
[training]
beta = 1.0
update = "sampled"
learning_rate = 0.1
inner_steps = 2
groups = 4
normalization = { kind = "finite_group", group_size = 8 }
"""


@dataclasses.dataclass(frozen=True)
class Total:
    value: float

    def save(self, path):
        Path(path).write_text(self.value.hex())

    @classmethod
    def load(cls, path):
        return cls(float.fromhex(Path(path).read_text()))


class Killed(Exception):
    pass


def chain(out, computed, stop_at=None, config=None):
    """A run whose every part adds its number to what the one before left."""

    def compute(i):
        def piece(state):
            if i == stop_at:
                raise Killed
            computed.append(i)
            total = Total((state.value if state else 0.1) * 1.7 + i)
            return pl.DataFrame({"part": [i], "total": [total.value]}), total

        return piece

    return Run("chain", config or {"seed": 1}, [Part(f"part {i}", compute(i), Total.load) for i in range(6)], out)


def test_a_stopped_run_goes_on_where_it_was(tmp_path):
    whole, manifest = perform(chain(tmp_path / "whole", []))
    computed = []
    for stop_at in (2, 3):
        with pytest.raises(Killed):
            perform(chain(tmp_path / "cut", computed, stop_at), resume=True)
    assert not (tmp_path / "cut" / "chain.parquet").exists()
    resumed, second = perform(chain(tmp_path / "cut", computed), resume=True)
    assert computed == [0, 1, 2, 3, 4, 5]  # nothing twice
    assert resumed.equals(whole)
    assert (tmp_path / "cut" / "chain.parquet").read_bytes() == (tmp_path / "whole" / "chain.parquet").read_bytes()
    assert [manifest["parts_from_checkpoint"], second["parts_from_checkpoint"]] == [0, 3]
    assert manifest["table"] == second["table"]
    assert sorted(path.name for path in (tmp_path / "cut").iterdir()) == ["chain.json", "chain.parquet"]


def test_without_resume_a_run_starts_anew(tmp_path):
    with pytest.raises(Killed):
        perform(chain(tmp_path, [], 4))
    computed = []
    perform(chain(tmp_path, computed))
    assert computed == [0, 1, 2, 3, 4, 5]


def test_a_finished_run_is_read(tmp_path):
    first, manifest = perform(chain(tmp_path, []))
    computed = []
    again, same = perform(chain(tmp_path, computed), resume=True)
    assert computed == []
    assert again.equals(first)
    assert same == manifest
    (tmp_path / "chain.parquet").write_bytes(b"PAR1 cut short")  # not what the manifest says: computed again
    again, _ = perform(chain(tmp_path, computed), resume=True)
    assert computed == [0, 1, 2, 3, 4, 5]
    assert again.equals(first)


def test_results_of_another_run_stay(tmp_path):
    perform(chain(tmp_path, []))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for resume in (False, True):
        with pytest.raises(ValueError, match=r"out must be a folder without another run .* where seed is 1 and not 2"):
            perform(chain(tmp_path, [], config={"seed": 2}), resume)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_parts_of_another_run_are_not_used(tmp_path, monkeypatch):
    with pytest.raises(Killed):
        perform(chain(tmp_path, [], 3))
    with pytest.raises(ValueError, match=r"where seed is 1 and not 2"):
        perform(chain(tmp_path, [], config={"seed": 2}), resume=True)
    monkeypatch.setattr("grpo_dynamics.provenance._version", lambda name: "9.9")
    with pytest.raises(ValueError, match=r"where versions.grpo-dynamics is '.*' and not '9.9'"):
        perform(chain(tmp_path, []), resume=True)


def test_a_broken_manifest_is_named(tmp_path):
    (tmp_path / "chain.json").write_text("{")
    with pytest.raises(ValueError, match=r"out must be a folder whose chain.json is JSON"):
        perform(chain(tmp_path, []))


def test_what_the_manifest_says(tmp_path):
    said = []
    run = Run("one", {"seed": 3, "x": (1.5, None)}, [independent("a", lambda: pl.DataFrame({"y": [1.0]}))], tmp_path)
    table, manifest = perform(run, tell=lambda *told: said.append(told))
    assert said == [(0, 1, "a"), (1, 1, "done")]
    assert json.loads((tmp_path / "one.json").read_text()) == manifest
    assert manifest["config"] == {"seed": 3, "x": [1.5, None]}
    assert manifest["versions"]["numpy"] == np.__version__
    assert manifest["table"]["columns"] == table.columns == ["y"]
    assert manifest["hardware"]["cores"] == os.cpu_count()
    assert {"commit", "seconds"} <= set(manifest)
    assert parquet(table) == parquet(table)


def test_parts_have_seeds_of_their_own():
    seeds = {own_seed(seed, index) for seed in range(30) for index in range(30)}
    assert len(seeds) == 900


def start(config, out):
    command = [sys.executable, "-m", "grpo_dynamics.cli", "simulate", "--config", str(config), "--out", str(out)]
    return subprocess.Popen([*command, "--resume"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def test_killed_at_random_moments_and_still_the_same_bytes(tmp_path):
    """kill -9, twice, at moments that differ from test to test; what is left is taken up by a third process."""
    config = tmp_path / "random.toml"
    config.write_text(CONFIG)
    whole, _ = perform(experiments.read_config(config).run(tmp_path / "whole"))
    moments, killed = random.Random(), 0
    for _ in range(2):
        process = start(config, tmp_path / "cut")
        checkpoint = tmp_path / "cut" / ".random.checkpoint"
        before = len(list(checkpoint.glob("*.parquet")))
        while len(list(checkpoint.glob("*.parquet"))) <= before and process.poll() is None:
            time.sleep(0.005)
        time.sleep(moments.uniform(0, 0.2))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        killed += process.returncode == -signal.SIGKILL
    assert killed >= 1
    last = start(config, tmp_path / "cut")
    assert last.communicate()[1] == b""
    assert last.returncode == 0
    manifest = json.loads((tmp_path / "cut" / "random.json").read_text())
    assert 0 < manifest["parts_from_checkpoint"] <= manifest["parts"] == 100
    assert (tmp_path / "cut" / "random.parquet").read_bytes() == (tmp_path / "whole" / "random.parquet").read_bytes()
    assert pl.read_parquet(tmp_path / "cut" / "random.parquet").equals(whole)
    assert whole["step"].unique().to_list() == list(range(4001))
    assert not (tmp_path / "cut" / ".random.checkpoint").exists()

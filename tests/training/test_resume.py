"""A run that is killed at any moment, finds a damaged checkpoint or a full disk, ends like one that was not."""

import errno
import json
import os
import random
import shutil

import pytest
import torch

from grpo_dynamics.training import checkpoints
from grpo_dynamics.training.runs import run
from tests.training.killed import run_and_kill
from tests.training.tiny import tiny_model

KILLS = int(os.environ.get("GRPO_DYNAMICS_KILLS", "3"))
"""How many random moments are tried."""

CONFIG = """
name = "tiny"
seed = 3
iterations = 6
questions = 6
checkpoint_every = 2
task = {{ kind = "one_token_sums" }}
model = {{ path = "{model}", device = "cpu" }}
optimization = {{ learning_rate = 0.02 }}
[training]
update = "sampled"
beta = 1.0
kl = "k3"
inner_steps = 2
reference_refresh = 4
normalization = {{ kind = "finite_group", group_size = 4 }}
[[arms]]
name = "k3"
[[arms]]
name = "argmin"
checkpoint_every = 1
iterations = 3
training = {{ kl = "exact", inner_steps = 1, groups = 8, reference_refresh = 2 }}
optimization = {{ inner_tolerance = 1e-2 }}
"""

TABLES = ("success", "completions", "steps")


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("config")
    path = folder / "tiny.toml"
    path.write_text(CONFIG.format(model=tiny_model(folder / "model")))
    return path


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory):
    """What a run leaves that nothing happens to."""
    return contents(run(config, tmp_path_factory.mktemp("whole")))


def contents(folder):
    """The bytes of every table, of the scalars, and of the final weights."""
    found = {}
    for arm in ("k3", "argmin"):
        for name in TABLES:
            found[arm, name] = (folder / arm / f"{name}.parquet").read_bytes()
        found[arm, "scalars"] = next((folder / arm / "tensorboard").iterdir()).read_bytes()
        found[arm, "weights"] = next((folder / arm / "checkpoints").glob("*/model.safetensors")).read_bytes()
    return found


class Stop(Exception):
    """Something happened."""


def stop_before(monkeypatch, calls, error):
    """Let the run fail where it would write its n-th checkpoint or part."""
    save, seen = checkpoints.save, []

    def failing(*arguments):
        seen.append(1)
        if len(seen) == calls:
            raise error
        return save(*arguments)

    monkeypatch.setattr(checkpoints, "save", failing)


def test_killed_at_random_moments_it_ends_bit_for_bit_the_same(config, whole, tmp_path):
    alive, seconds = run_and_kill(config, tmp_path / "timed", 300)
    assert not alive
    assert contents(tmp_path / "timed" / "tiny") == whole  # another process, the same numbers
    moments, killed = random.Random(KILLS), 0
    for kill in range(KILLS):
        out = tmp_path / f"{kill}"
        killed += run_and_kill(config, out, moments.uniform(0.02, seconds))[0]
        if kill % 2:  # and once more, on the way
            killed += run_and_kill(config, out, moments.uniform(0.02, seconds))[0]
        assert contents(run(config, out, resume=True)) == whole
        shutil.rmtree(out)
    assert killed > 0


@pytest.mark.parametrize("calls", [1, 2, 4, 5, 8])
def test_stopped_between_any_two_writes_it_ends_the_same(config, whole, tmp_path, monkeypatch, calls):
    stop_before(monkeypatch, calls, Stop())
    with pytest.raises(Stop):
        run(config, tmp_path)
    monkeypatch.undo()
    assert contents(run(config, tmp_path, resume=True)) == whole


def test_of_a_damaged_checkpoint_the_one_before_is_used_and_said_so(config, whole, tmp_path, monkeypatch):
    stop_before(monkeypatch, 7, Stop())  # two for each of the iterations 0, 2, 4: now 6
    with pytest.raises(Stop):
        run(config, tmp_path)
    monkeypatch.undo()
    kept = tmp_path / "tiny" / "k3" / "checkpoints"
    assert sorted(path.name for path in kept.iterdir()) == ["000002", "000004"]
    weights = kept / "000004" / "model.safetensors"
    data = weights.read_bytes()
    weights.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    folder = run(config, tmp_path, resume=True)
    assert contents(folder) == whole
    manifest = json.loads((folder / "k3" / "manifest.json").read_text())
    assert manifest["resumed"] == 1
    assert "checkpoint 4 is damaged, so the one before it is used" in manifest["notes"][0]
    assert "model.safetensors has changed" in manifest["notes"][0]


def test_without_a_whole_checkpoint_it_does_not_pretend(config, tmp_path, monkeypatch):
    stop_before(monkeypatch, 7, Stop())
    with pytest.raises(Stop):
        run(config, tmp_path)
    monkeypatch.undo()
    for path in (tmp_path / "tiny" / "k3" / "checkpoints").glob("*/state.json"):
        path.unlink()
    with pytest.raises(ValueError, match=r"checkpoints must be whole, but all of .* are damaged"):
        run(config, tmp_path, resume=True)


def test_a_full_disk_loses_nothing(config, whole, tmp_path, monkeypatch):
    real, left = os.fsync, [9]

    def full(handle):
        left[0] -= 1
        if left[0] <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        run(config, tmp_path)
    monkeypatch.undo()
    assert not list(tmp_path.rglob("*.part"))  # nothing half written stays
    assert contents(run(config, tmp_path, resume=True)) == whole


def test_a_folder_of_another_run_is_refused(config, whole, tmp_path):
    out = tmp_path / "out"
    run(config, out)
    with pytest.raises(ValueError, match=r"out must be a folder without this run, .* which is finished: add --resume"):
        run(config, out)
    before = contents(out / "tiny")
    assert contents(run(config, out, resume=True)) == before == whole  # finished: nothing is done
    other = tmp_path / "tiny.toml"
    other.write_text(config.read_text().replace("beta = 1.0", "beta = 2.0"))
    with pytest.raises(ValueError, match=r"another run, .* where training.beta is 1.0 and not 2.0"):
        run(other, out, resume=True)
    assert contents(out / "tiny") == before


def test_another_engine_than_before_is_refused(config, tmp_path):
    """With "auto" vLLM is taken where it is installed: another sampler in the middle of a run."""
    run(config, tmp_path)
    place = tmp_path / "tiny" / "k3" / "manifest.json"
    manifest = json.loads(place.read_bytes())
    place.write_text(json.dumps(manifest | {"status": "stopped", "engine": "vllm"}))
    with pytest.raises(ValueError, match=r"^engine must be 'vllm', with which .* began, got 'generate': what is inst"):
        run(config, tmp_path, resume=True)

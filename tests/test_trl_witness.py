"""TRL's own trainer goes where gd.trainer("trl", ...) says, ours where k2 and k3 say, and these are three places."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import pathlib
import subprocess
import sys
from typing import Any

import numpy as np
import polars as pl
import pytest

import grpo_dynamics as gd
from grpo_dynamics.config import EXPERIMENTS, build, read_toml

PATH = EXPERIMENTS / "trl_witness.py"
RESULT = EXPERIMENTS / "results" / "trl_witness.parquet"
THREE = ("trl", "k2", "k3")


@pytest.fixture(scope="module")
def witness() -> Any:
    spec = importlib.util.spec_from_file_location("grpo_dynamics.experiments.trl_witness", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # before it runs: its dataclass looks up its type hints here
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def trl() -> None:
    """Tests with this need TRL, which only processes of their own import."""
    if importlib.util.find_spec("trl") is None:
        pytest.skip("TRL is not installed; it comes with the extra grpo-dynamics[trl]")


def command(*arguments: str | pathlib.Path) -> subprocess.CompletedProcess[str]:
    """Run the script as a user does; one thread, so that the numbers do not depend on the machine's cores."""
    alone = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    line = [sys.executable, str(PATH), *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, env=os.environ | alone, timeout=500)


def settings(witness: Any, **changes: Any) -> Any:
    table = read_toml(PATH.with_suffix(".toml"))
    table.pop("seed")
    return dataclasses.replace(build(witness.Settings, table), **changes)


def test_the_three_predictions_differ_by_more_than_the_tolerance(witness: Any) -> None:
    """At the config's settings, for the median question of a model with these p_ref; by pure theory."""
    chosen = settings(witness)
    p_ref = gd.sigmoid(np.linspace(*gd.logit(np.array([chosen.lowest, chosen.highest])), chosen.questions))
    apart = witness.separation(chosen, p_ref)
    assert min(apart[a, b] for a, b in apart if {a, b} <= set(THREE)) > 0.08


def test_the_beta_is_nearly_the_one_where_the_nearest_two_are_farthest_apart(witness: Any) -> None:
    chosen = settings(witness)
    p_ref = gd.sigmoid(np.linspace(*gd.logit(np.array([chosen.lowest, chosen.highest])), chosen.questions))

    def nearest(beta: float) -> float:
        apart = witness.separation(dataclasses.replace(chosen, beta=beta), p_ref)
        return min(apart[a, b] for a, b in apart if {a, b} <= set(THREE))

    assert nearest(chosen.beta) > 0.9 * max(nearest(beta) for beta in np.geomspace(0.2, 2.0, 30))


def test_predictions_are_those_of_the_rules(witness: Any) -> None:
    """TRL whitens with ddof 1 and 1e-4 and pulls with KL(π‖π_ref): L* = L_ref + Ω(p*)/β with Ω of that group."""
    chosen = settings(witness)
    p_ref = np.array([0.03, 0.1, 0.2])
    for arm, ddof, eps in (("trl", 1, 1e-4), ("k2", 0, 0.0)):
        state = gd.logit(chosen.prediction(arm, p_ref))
        gap = gd.FiniteGroup(chosen.group_size, eps=eps, ddof=ddof).gap(state)
        np.testing.assert_allclose(state, gd.logit(p_ref) + gap / chosen.beta, rtol=1e-9)
    for arm, ddof, eps in (("trl_k3", 1, 1e-4), ("k3", 0, 0.0)):  # β(p* − p_ref) = p*(1−p*)Ω(p*)
        p = chosen.prediction(arm, p_ref)
        gap = gd.FiniteGroup(chosen.group_size, eps=eps, ddof=ddof).gap(gd.logit(p))
        np.testing.assert_allclose(chosen.beta * (p - p_ref), p * (1 - p) * gap, rtol=1e-9)


def test_the_committed_result_reaches_its_numbers(witness: Any) -> None:
    """≥ 32 questions; p_∞ of every arm within 0.05 of its own prediction, and nearest to that of the three."""
    table = pl.read_parquet(RESULT)
    assert table["question_id"].n_unique() >= 32
    ends = witness.summary(table)
    assert ends["arm"].to_list() == ["trl", "trl_k3", "k2", "k3"]
    for row in ends.iter_rows(named=True):
        assert row["to_own"] < 0.03
        assert all(row[f"to_{other}"] > 0.05 for other in THREE if row["arm"] in THREE and other != row["arm"])


def test_the_committed_result_is_that_of_the_committed_config(witness: Any) -> None:
    manifest = json.loads(RESULT.with_suffix(".json").read_bytes())
    wanted = {"experiment": "trl_witness", **read_toml(PATH.with_suffix(".toml"))}
    assert {key: manifest["config"][key] for key in wanted} == wanted
    assert manifest["config"]["trainers"]["trl"].startswith("1.16")


@pytest.mark.usefixtures("trl")
def test_smoke_run_of_the_script(tmp_path: pathlib.Path, witness: Any) -> None:
    """A short run tells the three apart already; nothing but the table is printed."""
    done = command("--smoke", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    assert "trl" in done.stdout
    ends = witness.summary(pl.read_parquet(tmp_path / "trl_witness.parquet"))
    assert ends["arm"].to_list() == list(THREE)
    for row in ends.iter_rows(named=True):
        assert row["to_own"] < 0.05
        assert all(row["to_own"] < row[f"to_{other}"] for other in THREE if other != row["arm"])
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {f"trl_witness.{suffix}" for suffix in ("parquet", "json", "png", "pdf")}


KILLED = """
import importlib.util, os, sys
spec = importlib.util.spec_from_file_location("trl_witness", sys.argv[1])
witness = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = witness
spec.loader.exec_module(witness)
measure, left = witness.success, [int(sys.argv[2])]

def dying(*arguments):
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), 9)
    return measure(*arguments)

witness.success = dying
assert witness.main(["--config", sys.argv[3], "--out", sys.argv[4], "--resume"]) == 0
# once more in the same process, where nothing kills it: the uninterrupted run to compare with
assert witness.main(["--config", sys.argv[3], "--out", sys.argv[5]]) == 0
"""


@pytest.mark.usefixtures("trl")
def test_a_killed_run_goes_on_to_the_same_numbers(tmp_path: pathlib.Path) -> None:
    """Kill -9 after the fifth step of eight: TRL goes on from its checkpoint of the fourth, to the same bytes."""
    config = tmp_path / "small.toml"
    config.write_text(
        "seed = 3\nquestions = 16\ngroups = 1\nsteps = 8\nrecord_every = 1\ncheckpoint_every = 2\n"
        'hidden_size = 32\nlayers = 1\narms = ["trl"]\n'
    )
    alone = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}

    def run(after: int) -> int:
        line = [sys.executable, "-c", KILLED, PATH, after, config, tmp_path / "killed", tmp_path / "whole"]
        return subprocess.run(list(map(str, line)), capture_output=True, env=alone, timeout=300).returncode

    assert run(after=6) == -9
    folder = tmp_path / "killed" / ".small.checkpoint" / "trl"
    assert {path.name for path in folder.glob("checkpoint-*")} == {"checkpoint-2", "checkpoint-4"}
    assert run(after=1000) == 0
    killed, whole = (pl.read_parquet(tmp_path / name / "small.parquet") for name in ("killed", "whole"))
    assert killed["step"].unique(maintain_order=True).to_list() == list(range(9))
    assert killed.equals(whole)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('arms = ["verl"]', "arms must be some of trl, trl_k3, k2, k3, each once, got verl"),
        ("betta = 1.0", "'beta'"),
        ("seed = -1", "seed must be an integer >= 0, got -1"),
        ("lowest = 0.5", "lowest must be above 0 and below highest < 1, got 0.5 and 0.2"),
        ("group_size = 1", "group_size must be an integer >= 2, got 1"),
        (None, "config must be a file that exists"),
    ],
)
@pytest.mark.usefixtures("trl")
def test_bad_configs_are_refused_in_one_line(
    text: str | None, said: str, tmp_path: pathlib.Path, witness: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config.toml"
    if text is not None:
        config.write_text(text)
    assert witness.main(["--config", str(config), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert said in error
    assert not (tmp_path / "out").exists()

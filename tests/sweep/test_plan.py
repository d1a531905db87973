"""What a sweep's config means, and every way in which it can be wrong, in one line."""

from __future__ import annotations

import pytest

from grpo_dynamics.sweep import read_sweep
from grpo_dynamics.sweep.plan import column_types, plan

BASE = {"p_ref": 0.2}


def test_a_grid_is_every_combination_and_the_last_axis_runs_fastest(config):
    sweep = read_sweep(config())
    assert [tuple(task.axes.values()) for task in sweep.tasks] == [
        (beta, seed) for beta in (0.5, 1.0, 2) for seed in (0, 1)
    ]
    assert column_types(sweep) == {"training.beta": "Float64", "seed": "Int64"}
    assert sweep.tasks[1].config["seed"] == 1
    assert sweep.tasks[4].config["training"]["beta"] == 2.0


def test_the_id_is_of_the_resolved_config():
    """What is said and what is the default give one id; another value gives another; names and order have no say."""
    short = plan("a", {"kind": "phase_diagram", "base": BASE, "axes": {"beta": [1, 5.0]}})
    full = {"kind": "phase_diagram", "base": BASE | {"alpha": 1.0, "normalization": {"kind": "whitened"}}}
    long = plan("b", full | {"tasks": [{"beta": 5}, {"beta": 1.0}]})
    assert [task.id for task in short.tasks] == [task.id for task in reversed(long.tasks)]
    assert short.identity() != long.identity()  # another order of rows
    assert len({task.id for task in short.tasks}) == 2


def test_a_list_of_tasks_may_change_different_keys():
    tasks = [{"beta": 1.0}, {"beta": 1.0, "normalization": {"kind": "finite_group", "group_size": 8}}]
    sweep = plan("a", {"kind": "phase_diagram", "base": BASE, "tasks": tasks})
    assert sweep.tasks[0].axes["normalization.group_size"] is None
    assert sweep.tasks[1].config["normalization"]["group_size"] == 8
    assert column_types(sweep) == {
        "beta": "Float64",
        "normalization.kind": "String",
        "normalization.group_size": "Int64",
    }


def test_a_base_may_be_a_file_or_an_experiment(tmp_path):
    (tmp_path / "base.toml").write_text("p_ref = 0.3\n")
    (tmp_path / "sweep.toml").write_text('kind = "phase_diagram"\nbase = "base.toml"\n[axes]\nbeta = [1.0]\n')
    assert read_sweep(tmp_path / "sweep.toml").tasks[0].config["p_ref"] == 0.3
    named = plan("a", {"kind": "simulate", "base": "worked_example", "axes": {"ratio": [1.0, 1.4]}})
    assert named.tasks[0].config["experiment"] == "worked_example"


GOOD = {"kind": "phase_diagram", "base": BASE, "axes": {"beta": [1.0]}}

BAD = {
    "kind must be one of 'run', 'simulate', 'phase_diagram', got 'simulation'": {"kind": "simulation"},
    "got 'axis'; the nearest is 'axes'": {"axis": {}},
    "axes must be a table of lists, or tasks a list of tables, got both": {"tasks": [{"beta": 1.0}]},
    "axes must be a table of lists, or tasks a list of tables, got neither": {"axes": None},
    "axes must be a table of lists, got {}": {"axes": {}},
    "axes.beta must be a list of at least one value, got []": {"axes": {"beta": []}},
    "axes.beta must be a list of at least one value, got 1.0": {"axes": {"beta": 1.0}},
    "got 'bta'; the nearest is 'beta' (in the task bta = 1.0)": {"axes": {"bta": [1.0]}},
    "beta must be a finite number > 0, got -1.0 (in the task beta = -1.0)": {"axes": {"beta": [-1.0]}},
    "must be different from one another, got the same config": {"axes": {"beta": [1.0, 1]}},
    "axis 'p_ref.low' must name a key of a table, but p_ref is 0.2": {"axes": {"beta": [1.0], "p_ref": {"low": [0.1]}}},
    "tasks must be a list of tables": {"axes": None, "tasks": []},
    "base must be a table or the name of a TOML file, got 3": {"base": 3},
    "config must be a file that exists": {"base": "nowhere.toml"},
}


@pytest.mark.parametrize("message", BAD)
def test_what_is_wrong_is_named(message):
    table = {key: value for key, value in (GOOD | BAD[message]).items() if value is not None}
    with pytest.raises(ValueError, match=r"^[^\n]*$") as refused:
        plan("bad", table)
    assert message in str(refused.value)


def test_a_run_with_arms_is_refused():
    pytest.importorskip("transformers", reason="real runs need transformers")
    table = {"kind": "run", "base": {"arms": [{"name": "a"}]}, "axes": {"training.beta": [1.0]}}
    with pytest.raises(ValueError, match="make what they change an axis"):
        plan("bad", table)

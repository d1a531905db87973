"""Configs of runs: strict, one line for everything that is wrong, and back from a manifest as they were."""

import json

import pytest

from grpo_dynamics.config import as_table
from grpo_dynamics.training.config import arms, read_run_config, resolve
from tests.training.tiny import SAMPLED

BASE = {
    "name": "run",
    "task": {"kind": "one_token_sums"},
    "model": {"make": {}},
    "optimization": {"inner_tolerance": 1e-3},
}


def test_arms_lie_over_the_run_and_come_back_from_json():
    run = BASE | {"iterations": 4, "training": {"beta": 1.0, "normalization": {"kind": "whitened", "eps": 1e-3}}}
    run["arms"] = [
        {"name": "a", "training": {"beta": 2.0}},
        {"name": "b", "training": {"normalization": {"kind": "mean_only"}}, "iterations": 7},
        {"name": "c", **{k: v | {"inner_tolerance": 1e-3} if k == "optimization" else v for k, v in SAMPLED.items()}},
    ]
    run["arms"][2]["training"] = run["arms"][2]["training"] | {"kl": "exact"}
    first, second, third = arms(run)
    assert (first.training.beta, first.training.normalization.eps, first.iterations) == (2.0, 1e-3, 4)
    assert (second.training.beta, second.iterations) == (1.0, 7)  # eps of the other kind is not kept
    assert third.argmin
    assert third.training.learning_rate == third.optimization.learning_rate == 0.01
    for arm in (first, second, third):
        assert resolve(json.loads(json.dumps(as_table(arm)))) == arm


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"training": {"normalization": {"kind": "finite_group", "group_size": 1}}}, "group_size must be .* got 1"),
        ({"training": {"beta": 0.0}}, 'beta must be a finite number > 0 .without a KL term say kl="none".*got 0'),
        ({"optimization": {}}, "inner_tolerance is missing"),
        ({"optimization": {"inner_tolerance": -1.0}}, "inner_tolerance must be a number > 0 and < 1e30, got -1"),
        ({"optimization": {"inner_tolerence": 1.0}}, "nearest is 'inner_tolerance'"),
        ({"model": {}}, "model must have either path or make"),
        ({"model": {"path": "a", "make": {}}}, "model must have either path or make"),
        ({"model": {"make": {"task": "sums"}}}, r"key of .model.make. must be one of hidden_size, .* got 'task'"),
        ({"model": {"make": {"hiden_size": 32}}}, "got 'hiden_size'; the nearest is 'hidden_size'"),
        ({"model": {"make": {"layers": "two"}}}, "model.make.layers must be an integer, got 'two'"),
        ({"model": {"make": {}, "device": "gpu"}}, "model.device must be one of 'cpu', 'cuda', 'mps', got 'gpu'"),
        ({"task": "sums"}, "task must be a table"),
        ({"iterations": 0}, "iterations must be an integer >= 1, got 0"),
        ({"arms": []}, "arms must be a list"),
        ({"arms": [{"name": "a"}, {"name": "a"}]}, "different names"),
        ({"arms": [{"training": {}}]}, "name must be a key of every"),
        ({"arms": [{"name": "../a"}]}, "arm must be letters"),
        ({"training": {"update": "gradient", "learning_rate": 0.1}}, "inner_tolerance=0.001 means nothing"),
        (SAMPLED, "learning_rate"),
        ({"training": {"beta": [1.0, 2.0]}}, "beta must be one number.*an arm for each"),
        ({"rollouts": {"engine": "vlm"}}, "nearest is 'vllm'"),
        ({"measurement": {"confidence": 1.5}}, "confidence must be between 0 and 1"),
        ({"training": {"natural": True}}, "natural"),
    ],
)
def test_bad_configs_are_refused_by_name(change, message):
    run = BASE | change
    if change is SAMPLED:
        run["training"] = run["training"] | {"learning_rate": 0.5}
    with pytest.raises(ValueError, match=message):
        arms(run)


@pytest.mark.parametrize(("key", "value"), [("kl", "k3"), ("clip_high", 0.2), ("inner_steps", 4)])
def test_an_argmin_on_samples_needs_a_closed_form(key, value):
    training = SAMPLED["training"] | {"kl": "exact", key: value}
    table = BASE | {"training": training, "optimization": {"inner_tolerance": 1e-3, "learning_rate": 0.1}}
    with pytest.raises(ValueError, match=f"{key}.* must leave the maximiser in closed form"):
        resolve(table)


def test_a_file_is_named_where_it_is_missing(tmp_path):
    with pytest.raises(ValueError, match="config must be a file that exists"):
        read_run_config(tmp_path / "none.toml")


def test_the_configs_of_the_repository_are_read():
    names = [arm.arm for arm in read_run_config("experiments/cpu_arithmetic.toml")]
    assert names[:4] == ["beta_0.5", "beta_1", "beta_2", "beta_5"]
    assert [arm.training.kl for arm in read_run_config("experiments/cpu_flow.toml")] == ["k3", "k2"]

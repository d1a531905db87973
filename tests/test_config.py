"""Configs are read strictly: what is right comes out as it was written, what is wrong is named with the nearest."""

import dataclasses
from typing import Any, Literal

import pytest

import grpo_dynamics as gd
from grpo_dynamics.config import as_table, build, nearest, read_toml
from grpo_dynamics.simulation import experiments
from grpo_dynamics.update_rule import Training


@dataclasses.dataclass(frozen=True)
class Inner:
    size: int = 3


@dataclasses.dataclass(frozen=True)
class Example:
    rate: float
    steps: int = 1
    on: bool = False
    name: str = "x"
    kind: Literal["a", "b"] = "a"
    rates: tuple[float, ...] = ()
    pair: tuple[int, float] | None = None
    number_or_list: float | tuple[float, ...] | None = None
    inner: Inner = dataclasses.field(default_factory=Inner)
    normalization: gd.Normalization = dataclasses.field(default_factory=gd.Whitened)
    anything: Any = None


def test_every_type_of_value():
    table = {
        "rate": 2,
        "steps": 5,
        "on": True,
        "name": "y",
        "kind": "b",
        "rates": [1, 2.5],
        "pair": [3, 4],
        "number_or_list": [0.5],
        "inner": {"size": 7},
        "normalization": {"kind": "finite_group", "group_size": 8, "eps": 1e-4},
        "anything": [1],
    }
    built = build(Example, table)
    assert built == Example(
        2.0, 5, True, "y", "b", (1.0, 2.5), (3, 4.0), (0.5,), Inner(7), gd.FiniteGroup(8, 1e-4), [1]
    )
    assert isinstance(built.rate, float)
    assert build(Example, {"rate": 1.0}) == Example(1.0)
    assert build(Example, {"rate": 1.0, "number_or_list": 2}).number_or_list == 2.0
    assert build(Example, {"rate": 1.0, "normalization": "mean_only"}).normalization == gd.MeanOnly()


WRONG = {
    "unknown": ({"rate": 1, "step": 2}, "key must be one of rate, steps, .* got 'step'; the nearest is 'steps'"),
    "unknown inside": (
        {"rate": 1, "inner": {"sise": 2}},
        r"key of \[inner\] must be one of size, got 'sise'; .*'size'",
    ),
    "missing": ({}, "rate must be a key of the config, got nothing"),
    "text for a number": ({"rate": "1"}, "rate must be a number, got '1'"),
    "true for a number": ({"rate": True}, "rate must be a number, got True"),
    "true for an integer": ({"rate": 1, "steps": True}, "steps must be an integer, got True"),
    "a fraction for an integer": ({"rate": 1, "steps": 1.5}, "steps must be an integer, got 1.5"),
    "a number for a switch": ({"rate": 1, "on": 1}, "on must be true or false, got 1"),
    "a number for text": ({"rate": 1, "name": 1}, "name must be a string, got 1"),
    "another choice": ({"rate": 1, "kind": "c"}, "kind must be one of 'a', 'b', got 'c'"),
    "a number for a list": ({"rate": 1, "rates": 1}, "rates must be a list, got 1"),
    "text in a list": ({"rate": 1, "rates": [1, "2"]}, r"rates\[1\] must be a number, got '2'"),
    "a short list": ({"rate": 1, "pair": [1]}, "pair must be a list of 2, got"),
    "neither": ({"rate": 1, "number_or_list": "x"}, "number_or_list must be a list, got 'x'"),
    "no table": ({"rate": 1, "inner": 3}, "inner must be a table, got 3"),
    "normalization": (
        {"rate": 1, "normalization": {"kind": "finit_group"}},
        r"normalization.kind must be one of .* got 'finit_group'; the nearest is 'finite_group'",
    ),
    "its option": (
        {"rate": 1, "normalization": {"kind": "finite_group", "size": 8}},
        r"key of \[normalization\] must be one of group_size, eps, .* got 'size'; the nearest is 'group_size'",
    ),
    "its value": ({"rate": 1, "normalization": {"kind": "whitened", "eps": -1}}, "eps must be a finite number >= 0"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_named(case):
    table, message = WRONG[case]
    with pytest.raises(ValueError, match=message):
        build(Example, table)


def test_a_table_and_back():
    for training in (
        Training(),
        Training(update="gradient", learning_rate=0.5, clip_low=0.2, clip_high=0.3, kl="k3", aggregation="constant"),
        Training(update="sampled", learning_rate=1, normalization=gd.FiniteGroup(8, 1e-4, ddof=1), kl="none", beta=0),
    ):
        assert build(Training, as_table(training)) == training


@pytest.mark.parametrize("name", experiments.names()[1:])
def test_committed_configs_and_back(name):
    config = experiments.read_config(name)
    table = as_table(config.settings)
    assert build(type(config.settings), table) == config.settings
    assert set(read_toml(experiments.config_file(name))) <= {"experiment", "seed", *table}


def test_files_that_are_not_there_or_not_toml(tmp_path):
    (tmp_path / "my_run.toml").write_text("seed = 1")
    with pytest.raises(
        ValueError, match=r"must be a file that exists, got '.*my_rn.toml'; the nearest is 'my_run.toml'"
    ):
        read_toml(tmp_path / "my_rn.toml")
    with pytest.raises(ValueError, match=r"must be a file that exists, got '.*nowhere.*'$"):
        read_toml(tmp_path / "nowhere" / "x.toml")
    (tmp_path / "cut.toml").write_text("seed = [1,")
    (tmp_path / "latin.toml").write_bytes(b"name = '\xff'")
    for name in ("cut.toml", "latin.toml"):
        with pytest.raises(ValueError, match=f"must be a TOML file, got '.*{name}'"):
            read_toml(tmp_path / name)
    with pytest.raises(ValueError, match="must be a file that can be read"):
        read_toml(tmp_path)


def test_experiments_and_seeds():
    with pytest.raises(ValueError, match=r"experiment must be one of simulation, .* got 'clpi'; the nearest is 'clip'"):
        experiments.parse("x", {"experiment": "clpi"})
    for seed in (-1, 1.5, True, "1"):
        with pytest.raises(ValueError, match="seed must be an integer >= 0, got"):
            experiments.parse("x", {"experiment": "clip", "seed": seed})
    with pytest.raises(ValueError, match=r"key must be one of experiment, seed, .* got 'sed'; the nearest is 'seed'"):
        experiments.parse("x", {"experiment": "worked_example", "sed": 1})
    with pytest.raises(ValueError, match=r"config must be a file or one of the experiments .* the nearest is 'clip'"):
        experiments.config_file("clib")


def test_nothing_is_near():
    assert nearest("zzz", ["beta"]) == ""

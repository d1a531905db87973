"""The smoke form of a run: its table wins over the arms', is checked in any case, and makes a run of another name."""

import copy

import pytest

from grpo_dynamics.training.config import arms, read_run_config

RUN = {
    "name": "run",
    "iterations": 20,
    "task": {"kind": "one_token_sums"},
    "model": {"make": {"hidden_size": 1024, "layers": 10}, "device": "cuda"},
    "optimization": {"inner_tolerance": 1e-4, "learning_rate": 1e-3},
    "arms": [
        {"name": "a", "training": {"beta": 0.2}, "iterations": 30},
        {"name": "b", "training": {"beta": 5.0}, "validation": {"median": 0.02}},
        {"name": "c", "model": {"make": {"layers": 12}}},
    ],
    "smoke": {
        "iterations": 2,
        "arms": ["c", "a"],
        "model": {"make": {"hidden_size": 64, "layers": 2}},
        "arm": {"a": {"iterations": 3, "training": {"alpha": 0.5}}},
    },
}


def test_the_smoke_table_lies_over_the_arms_and_an_arms_own_over_that():
    first, second = arms(RUN, smoke=True)
    assert (first.name, first.arm, first.iterations, first.training.beta, first.training.alpha) == (
        "run_smoke", "a", 3, 0.2, 0.5,
    )  # fmt: skip
    assert (second.arm, second.iterations, second.model.make) == ("c", 2, {"hidden_size": 64, "layers": 2})
    assert second.optimization == arms(RUN)[2].optimization  # what the table does not name stays
    for arm in (first, second):
        assert (arm.model.device, arm.model.threads) == ("cpu", 1)


def test_without_the_flag_the_table_changes_nothing():
    plain = {key: value for key, value in RUN.items() if key != "smoke"}
    assert arms(RUN) == arms(plain)
    assert [(arm.name, arm.model.device, arm.iterations) for arm in arms(RUN)] == [
        ("run", "cuda", 30), ("run", "cuda", 20), ("run", "cuda", 20),
    ]  # fmt: skip


def test_the_table_may_say_another_device():
    table = copy.deepcopy(RUN)
    table["smoke"]["model"] |= {"device": "cuda", "threads": 2}
    assert {(arm.model.device, arm.model.threads) for arm in arms(table, smoke=True)} == {("cuda", 2)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"arms": ["a", "d"]}, "smoke.arms must name arms of a, b, c, got 'd'"),
        ({"arms": []}, "smoke.arms must be a list of names"),
        ({"arms": ["a", "a"]}, "smoke.arms must name each arm once"),
        ({"arms": ["c"]}, "smoke.arm must name arms of c, got 'a'"),
        ({"arm": {"beta": 3}}, "smoke.arm must be tables"),
        ({"iteration": 3}, r"got 'iteration'; the nearest is 'iterations' \(in the smoke form of the arm 'a'\)"),
        ({"optimization": {"inner_tolerence": 1.0}}, "the nearest is 'inner_tolerance'"),
        ({"arm": {"a": {"iterations": 0}}}, "iterations must be an integer >= 1, got 0 .in the smoke form"),
        ({"name": "other"}, "key must be none of name, arm, arms, smoke in a smoke form, got 'name'"),
        ({"arm": {"a": {"arms": []}}}, "key must be none of name, arm, arms, smoke in a smoke form, got 'arms'"),
    ],
)
@pytest.mark.parametrize("smoke", [True, False])
def test_the_table_is_checked_with_and_without_the_flag(change, message, smoke):
    with pytest.raises(ValueError, match=message):
        arms(RUN | {"smoke": RUN["smoke"] | change}, smoke)


def test_a_config_without_the_table_has_no_smoke_form(tmp_path):
    (tmp_path / "mine.toml").write_text('task = { kind = "one_token_sums" }\nmodel = { make = {} }\n'
                                        "optimization = { inner_tolerance = 1e-3 }\n")  # fmt: skip
    with pytest.raises(ValueError, match=r"config must have a table \[smoke\] for --smoke.* got none"):
        read_run_config(tmp_path / "mine.toml", smoke=True)
    with pytest.raises(ValueError, match="smoke must be a table, got 3"):
        arms(RUN | {"smoke": 3})

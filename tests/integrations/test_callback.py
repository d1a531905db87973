"""What the callback refuses, and how it wraps reward functions, without training anything."""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
import sys
from types import SimpleNamespace

import pytest

pytest.importorskip("transformers", reason="the callback is one of transformers; it comes with grpo-dynamics[train]")

from grpo_dynamics.integrations.trl import GRPODynamicsCallback


class Judge:
    def __call__(self, prompts, completions, scale=1.0, **rest):
        """Right is what is long."""
        return [scale * (len(completion) > 1) for completion in completions]


class Waiting(Judge):
    async def __call__(self, prompts, completions, **rest):
        return super().__call__(prompts, completions)


def plain(prompts, completions, **rest):
    return [1.0] * len(completions)


GIVEN = {"prompts": ["a", "b"], "completions": ["xx", "x"]}
STATE = SimpleNamespace(global_step=0, is_world_process_zero=True, max_steps=9)


@pytest.mark.parametrize(
    ("function", "name", "rewards"),
    [(plain, "plain", [1, 1]), (Judge(), "Judge", [1, 0]), (functools.partial(Judge(), scale=2), "Judge", [2, 0])],
)
def test_a_watched_function_has_its_name_and_does_what_it_did(function, name, rewards):
    """TRL logs rewards under the function's name."""
    watched = GRPODynamicsCallback().watch(function)
    assert watched.__name__ == name
    assert watched(**GIVEN) == rewards


def test_what_has_to_be_waited_for_still_has():
    """TRL looks at the function, or at the class of what is called, to tell."""
    watched = GRPODynamicsCallback().watch(Waiting())
    assert inspect.iscoroutinefunction(watched)
    assert asyncio.run(watched(**GIVEN)) == [1, 0]


def test_rewards_are_counted_once_training_has_begun(monkeypatch):
    """Not before, and not while the model is not in training mode."""
    monkeypatch.setitem(sys.modules, "trl", SimpleNamespace(__version__="1.16.0"))
    callback, model, logged = GRPODynamicsCallback(shown=0), SimpleNamespace(training=False), {}
    watched = callback.watch(Judge())
    given = {**GIVEN, "log_extra": lambda name, values: None, "log_metric": logged.__setitem__}
    watched(**given)
    callback.on_train_begin(SimpleNamespace(num_generations=2, beta=0.4), STATE, None, model=model)
    watched(**given)
    assert len(callback.table()) == 0
    model.training = True
    watched(**{**given, "prompts": ["a", "a"]})
    assert {key: logged[f"dynamics/{key}"] for key in ("p", "silent_groups", "questions")} == {
        "p": 0.5,
        "silent_groups": 0.0,
        "questions": 1.0,
    }
    assert callback.table().select("successes", "samples", "visits").rows() == [(1, 2, 1)]


@pytest.mark.parametrize(
    ("rewards", "options", "weights", "said"),
    [
        ([0, 1, 1, 0], {}, None, []),
        ([-1, 1, 1, -1], {}, None, ["-1 and 1, and reward_scale is 1: give reward_scale=2"]),
        ([-1, 1, 1, -1], {"reward_scale": 2.0}, None, []),
        ([-1, 1, 1, -1], {}, [0.5], []),
        ([0.6, 1, 1, 0.6], {}, None, ["on one side of threshold=0.5"]),
        ([0, 0.5, 1, 0], {}, None, ["have more than two values"]),
    ],
)
def test_rewards_that_the_theory_does_not_have_are_told_of_once(rewards, options, weights, said, monkeypatch, caplog):
    """p* is that of a reward of two values, reward_scale apart; reward weights change the distance."""
    monkeypatch.setitem(sys.modules, "trl", SimpleNamespace(__version__="1.16.0"))
    callback = GRPODynamicsCallback(**options)
    watched = callback.watch(lambda **given: rewards)
    arguments = SimpleNamespace(num_generations=2, beta=0.4, reward_weights=weights)
    callback.on_train_begin(arguments, STATE, None, model=SimpleNamespace(training=True))
    given = {"log_extra": lambda name, values: None, "log_metric": lambda name, value: None}
    with caplog.at_level(logging.WARNING, "grpo_dynamics"):
        for _ in range(2):
            watched(prompts=list("aabb"), completions=list("xxxx"), **given)
    messages = [record.getMessage() for record in caplog.records if "rewards of" in record.getMessage()]
    assert len(messages) == len(said)
    assert all(part in message for part, message in zip(said, messages, strict=True))


def test_a_run_that_goes_on_without_its_counts_says_so(monkeypatch, tmp_path, caplog):
    monkeypatch.setitem(sys.modules, "trl", SimpleNamespace(__version__="1.16.0"))
    callback = GRPODynamicsCallback()
    callback.watch(plain)
    state = SimpleNamespace(global_step=7, is_world_process_zero=True)
    arguments = SimpleNamespace(
        num_generations=2, beta=0.4, output_dir=str(tmp_path), resume_from_checkpoint=str(tmp_path / "elsewhere")
    )
    with caplog.at_level(logging.WARNING, "grpo_dynamics"):
        callback.on_train_begin(arguments, state, None)
    (record,) = caplog.records
    assert "goes on from step 7 without the counts of its first part" in record.getMessage()
    # counts of another folder are taken where they are asked for
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "grpo_dynamics.json").write_text('{"format": 1, "questions": {"a": [1, 2, 2, 2, 3]}}')
    again = GRPODynamicsCallback()
    again.watch(plain)
    again.on_train_begin(arguments, state, None)
    assert again.table()["visits"].to_list() == [3]


def begin(version="1.16.0", **arguments):
    def call(monkeypatch):
        monkeypatch.setitem(sys.modules, "trl", SimpleNamespace(__version__=version))
        callback = GRPODynamicsCallback()
        callback.watch(plain)
        callback.on_train_begin(SimpleNamespace(**arguments), STATE, None)

    return call


def twice(monkeypatch):
    callback = GRPODynamicsCallback()
    callback.watch(plain)
    callback.watch(Judge())


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda m: GRPODynamicsCallback().watch("reward-model"), "reward_func must be a function .* got str"),
        (lambda m: GRPODynamicsCallback().watch(SimpleNamespace(parameters=1)), "got SimpleNamespace"),
        (twice, "got a second: plain is watched already"),
        (lambda m: GRPODynamicsCallback(shown=-1), "shown must be an integer >= 0, got -1"),
        (lambda m: GRPODynamicsCallback(most_questions=0), "most_questions must be an integer >= 1, got 0"),
        (lambda m: GRPODynamicsCallback(threshold=float("nan")), "threshold must be a finite number"),
        (lambda m: GRPODynamicsCallback(reward_scale=0), "reward_scale must be a finite number > 0"),
        (lambda m: GRPODynamicsCallback(p_ref=0.3), "p_ref must be a mapping of ids .* got 0.3"),
        (lambda m: GRPODynamicsCallback(p_ref="nowhere.csv"), "file must be one that exists"),
        (lambda m: GRPODynamicsCallback().load("nowhere"), "counts must be a file that this callback saved"),
        (begin(), "trainer must be TRL's GRPOTrainer, got one with SimpleNamespace"),
        (begin("0.29.1", num_generations=8), r"trl must be 1\.0\.0 or newer for this callback, got 0\.29\.1"),
    ],
)
def test_bad_input_is_one_line(call, said, monkeypatch):
    with pytest.raises(ValueError, match=said) as error:
        call(monkeypatch)
    assert "\n" not in str(error.value)

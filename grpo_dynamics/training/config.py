"""The config of a real training run: one TOML file, read strictly, one frozen :class:`RunConfig` for each of its arms.

An arm is the run with some of its tables changed: a run of four β has four arms, and one folder for each.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, get_type_hints

from grpo_dynamics.arrays import require
from grpo_dynamics.config import build, read_toml
from grpo_dynamics.training.policies import LoraOptions
from grpo_dynamics.training.rollouts import RolloutOptions
from grpo_dynamics.training.smoke import ENDING, smoke_tables
from grpo_dynamics.update_rule import Training
from grpo_dynamics.validation.thresholds import Thresholds

MAIN = "main"
"""The name of the only arm of a run that names none."""


@dataclasses.dataclass(frozen=True)
class ModelOptions:
    """The table [model]: which policy is trained. Its weights before training are π_ref.

    Args:
        path: a hub id or a folder.
        make: instead of ``path``: options of :func:`~grpo_dynamics.training.pretraining.make_model`, which makes a
            small model for the task of the run; an empty table takes its defaults.
        dtype: of the weights.
        device: None: what accelerate finds. Which of several GPUs is for CUDA_VISIBLE_DEVICES to say.
        threads: of PyTorch on a CPU; a small model is fastest, and the same on any number of cores, with 1. None: as
            many as PyTorch takes.
        lora: train low-rank adapters instead of all weights.
        gradient_checkpointing: compute activations again in the backward pass, to save memory.
        compile: compile the passes of training by torch.compile: the first of them takes a minute or more, the others
            less time than before where the model is large.
        attention: "causal" leaves out the masks of batches without padding, so that completions longer than a few
            tokens meet the fastest kernels of a GPU; "sdpa": as transformers has it.
        sharded: spread weights, gradients and the optimiser over the processes (FSDP); so does `accelerate launch` with
            FSDP in its config. One process does not mind.
        chat: whether prompts go through the tokenizer's chat template.
        pad_token, eos_token: the tokens that fill up and end, where the tokenizer names none.
    """

    path: str | None = None
    make: Any = None
    dtype: Literal["float32", "float64", "bfloat16", "float16"] = "float32"
    device: Literal["cpu", "cuda", "mps"] | None = None
    threads: int | None = None
    lora: LoraOptions | None = None
    gradient_checkpointing: bool = False
    compile: bool = False
    attention: Literal["sdpa", "causal"] = "sdpa"
    sharded: bool = False
    chat: bool = False
    pad_token: str | None = None
    eos_token: str | None = None

    def __post_init__(self) -> None:
        if (self.path is None) == (self.make is None):
            raise ValueError(f"model must have either path or make, got path={self.path!r}, make={self.make!r}")
        if self.make is not None and not isinstance(self.make, Mapping):
            raise ValueError(f"model.make must be a table of options, got {self.make!r}")
        if self.make is not None:
            build(model_options(), self.make, "model.make")
        if self.threads is not None and self.threads < 1:
            raise ValueError(f"model.threads must be an integer >= 1, got {self.threads}")


THE_RUNS_OWN = ("tell", "device", "deadline")
"""Arguments of make_model that are not the model's options: the run passes them."""


def model_options() -> type[Any]:
    """Return a dataclass with the options of :func:`~grpo_dynamics.training.pretraining.make_model` as its fields.

    >>> build(model_options(), {"layers": 2}, "model.make").hidden_size
    128
    """
    from grpo_dynamics.training.pretraining import make_model

    hints, known = get_type_hints(make_model), inspect.signature(make_model).parameters.values()
    options = [option for option in known if option.kind is option.KEYWORD_ONLY and option.name not in THE_RUNS_OWN]
    return dataclasses.make_dataclass("ModelOfTask", [(o.name, hints[o.name], o.default) for o in options])


@dataclasses.dataclass(frozen=True)
class Optimization:
    """The table [optimization]: how the weights move.

    Args:
        learning_rate: > 0.
        optimizer: "adamw" or "sgd".
        betas: of AdamW.
        weight_decay: of AdamW, ≥ 0.
        max_grad_norm: longer gradients are scaled down to this length; None: never.
        final_learning_rate: what the learning rate has fallen to at the end, as a share of itself: linearly over the
            iterations, or over each round of an inner loop.
        inner_tolerance: in nats, > 0: an iteration goes on until KL(π‖π*) to the maximiser π* of its objective is below
            it for every question. By Pinsker's inequality p is then within √(inner_tolerance/2) of p*. Needed for
            update="exact"; with "sampled" it asks for the argmin of each iteration's sampled objective.
        max_inner_steps: an inner loop that is not there after so many steps stops, and says so.
        round_steps: steps of one round of an inner loop, see :mod:`~grpo_dynamics.training.steps.inner_loop`.
        precision: "bf16" computes the passes through the network in bfloat16 (weights stay as they are).
        micro_batch_size: completions in one pass; the gradients of the passes are added up. None: all at once.
        questions_per_step: questions of one gradient step on samples; π_old stays frozen over the steps of an
            iteration. None: all questions.
    """

    learning_rate: float = 1e-3
    optimizer: Literal["adamw", "sgd"] = "adamw"
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.0
    max_grad_norm: float | None = None
    final_learning_rate: float = 1.0
    inner_tolerance: float | None = None
    max_inner_steps: int = 1000
    round_steps: int = 200
    precision: Literal["float32", "bf16"] = "float32"
    micro_batch_size: int | None = None
    questions_per_step: int | None = None

    def __post_init__(self) -> None:
        for name in ("learning_rate", "max_grad_norm", "inner_tolerance"):
            _require(
                f"optimization.{name}", getattr(self, name), "a number > 0 and < 1e30", lambda x: (x > 0) & (x < 1e30)
            )
        for name in ("max_inner_steps", "round_steps", "micro_batch_size", "questions_per_step"):
            _require(f"optimization.{name}", getattr(self, name), "an integer >= 1", lambda x: x >= 1)
        _require("optimization.weight_decay", self.weight_decay, "a number >= 0", lambda x: x >= 0)
        _require("optimization.betas", list(self.betas), "two numbers in [0, 1)", lambda x: (x >= 0) & (x < 1))
        _require(
            "optimization.final_learning_rate", self.final_learning_rate, "in [0, 1]", lambda x: (x >= 0) & (x <= 1)
        )


@dataclasses.dataclass(frozen=True)
class Measurement:
    """The table [measurement]: how the success probability p of each question is found.

    Args:
        method: "enumerated": over all possible answers; "teacher_forced": over the right ones, where a task knows them;
            "sampled": from n answers, with a Wilson interval; "auto": the first of these that is possible.
        every: iterations between two measurements; the last iteration is always measured. 0: only that, and π_ref.
        samples: n.
        confidence: of the interval, in (0, 1).
        most_answers: so many possible answers are enumerated at most.
        completions_every: iterations between two whose completions are written, a row for each sample. 0: none.
    """

    method: Literal["auto", "enumerated", "teacher_forced", "sampled"] = "auto"
    every: int = 1
    samples: int = 64
    confidence: float = 0.95
    most_answers: int = 5000
    completions_every: int = 1

    def __post_init__(self) -> None:
        for name in ("every", "completions_every"):
            _require(f"measurement.{name}", getattr(self, name), "an integer >= 0", lambda x: x >= 0)
        for name in ("samples", "most_answers"):
            _require(f"measurement.{name}", getattr(self, name), "an integer >= 1", lambda x: x >= 1)
        _require("measurement.confidence", self.confidence, "between 0 and 1", lambda x: (x > 0) & (x < 1))


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """One arm of a run, with everything that decides its result.

    Args:
        name: of the run.
        task: the table [task]: ``kind`` and the options of :func:`~grpo_dynamics.training.tasks.make_task`.
        model: which policy.
        arm: name of the arm, a folder's name.
        iterations: outer iterations n ≥ 1 of the paper's Algorithm 1: how often π_old is renewed.
        questions: how many of the task's questions, taken at random; None: all.
        seed: of the choice of questions and of every sample.
        checkpoint_every: iterations between two checkpoints.
        training: the update rule; see :class:`~grpo_dynamics.update_rule.Training`. Its learning rate is that of
            [optimization], and may stand in either table.
        optimization, rollouts, measurement, validation: the tables of these names.

    Raises:
        ValueError: for a value out of range, or options that mean nothing together.
    """

    name: str
    task: Any
    model: ModelOptions
    arm: str = MAIN
    iterations: int = 10
    questions: int | None = None
    seed: int = 0
    checkpoint_every: int = 1
    training: Training = dataclasses.field(default_factory=Training)
    optimization: Optimization = dataclasses.field(default_factory=Optimization)
    rollouts: RolloutOptions = dataclasses.field(default_factory=RolloutOptions)
    measurement: Measurement = dataclasses.field(default_factory=Measurement)
    validation: Thresholds = dataclasses.field(default_factory=Thresholds)

    def __post_init__(self) -> None:
        if not isinstance(self.task, Mapping) or not isinstance(self.task.get("kind"), str):
            raise ValueError(f'task must be a table with a kind, such as "one_token_sums", got {self.task!r}')
        for name in ("iterations", "questions", "checkpoint_every"):
            _require(name, getattr(self, name), "an integer >= 1", lambda x: x >= 1)
        _require("seed", self.seed, "an integer >= 0", lambda x: x >= 0)
        for what in ("name", "arm"):
            value = getattr(self, what)
            if not value or value.startswith(".") or not all(c.isalnum() or c in "._-" for c in value):
                raise ValueError(f"{what} must be letters, digits, '_', '-' and '.', got {value!r}")
        self._check_update()

    @property
    def argmin(self) -> bool:
        """Whether each iteration maximises its objective to a tolerance, and does not only step towards it."""
        return self.optimization.inner_tolerance is not None

    def _check_update(self) -> None:
        training, tolerance = self.training, self.optimization.inner_tolerance
        if training.update == "exact" and tolerance is None:
            raise ValueError('inner_tolerance is missing in [optimization]: update="exact" minimises to a tolerance')
        if training.update == "gradient" and tolerance is not None:
            raise ValueError(f'inner_tolerance={tolerance} means nothing with update="gradient"; take update="exact"')
        if training.update == "sampled" and tolerance is not None:
            for name, wrong, nearest in (
                ("kl", training.kl != "exact", 'kl="exact"'),
                ("clip_high", training.clips, "no clipping"),
                ("inner_steps", training.inner_steps != 1, "max_inner_steps of [optimization]"),
                ("questions_per_step", self.optimization.questions_per_step is not None, "all questions at once"),
            ):
                if wrong:
                    raise ValueError(
                        f"{name} must leave the maximiser in closed form beside inner_tolerance: {nearest}"
                    )
        for name in ("natural", "false_positive", "false_negative"):
            if getattr(training, name):
                raise ValueError(f"{name} must be left out of a real run: it is for `grpo-dynamics simulate`")
        if training.drops_silent_groups:
            raise ValueError('silent_groups must be "keep" in a real run, got "drop"; simulate it')
        if training.reference_refresh is not None and self.model.lora is not None:
            raise ValueError(
                "reference_refresh must be left out with LoRA: its reference is the model without adapters"
            )
        if training.reference_refresh is not None and self.model.sharded:
            raise ValueError("reference_refresh must be left out with sharded weights")
        for name in ("beta", "alpha"):
            if hasattr(getattr(training, name), "shape"):
                raise ValueError(f"{name} must be one number, got {getattr(training, name)!r}: write an arm for each")


def read_run_config(path: str | os.PathLike[str], smoke: bool = False) -> tuple[RunConfig, ...]:
    """Return the arms of a config file, each with its tables laid over those of the run.

    Args:
        path: a TOML file.
        smoke: whether its small form is meant, see :mod:`~grpo_dynamics.training.smoke`.

    Raises:
        ValueError: for a file that is missing or no TOML, a key that is not known, a value that is not allowed.
    """
    table = read_toml(path)
    table.setdefault("name", Path(path).stem)
    return arms(table, smoke)


def arms(table: Mapping[str, Any], smoke: bool = False) -> tuple[RunConfig, ...]:
    """Return the arms of a config, or those of its smoke form. Both are checked, whichever is wanted.

    >>> table = {"name": "two", "task": {"kind": "one_token_sums"}, "model": {"make": {}}, "iterations": 3,
    ...          "optimization": {"inner_tolerance": 1e-4}, "training": {"beta": 1.0},
    ...          "arms": [{"name": "one"}, {"name": "five", "training": {"beta": 5.0}}],
    ...          "smoke": {"iterations": 1, "arms": ["five"]}}
    >>> [(arm.arm, arm.training.beta, arm.iterations) for arm in arms(table)]
    [('one', 1.0, 3), ('five', 5.0, 3)]
    >>> [(arm.name, arm.arm, arm.iterations, arm.model.device) for arm in arms(table, smoke=True)]
    [('two_smoke', 'five', 1, 'cpu')]
    """
    shared = {key: value for key, value in table.items() if key not in ("arms", "smoke")}
    if "arm" in shared:
        raise ValueError("key must be none of the names of arms; write [[arms]] tables with a name, got 'arm'")
    listed = table.get("arms", [{"name": MAIN}])
    if not isinstance(listed, list) or not listed or not all(isinstance(arm, dict) for arm in listed):
        raise ValueError(f"arms must be a list of tables, one [[arms]] for each, got {listed!r}")
    merged: dict[str, dict[str, Any]] = {}
    for own in listed:
        if not isinstance(own.get("name"), str):
            raise ValueError(f"name must be a key of every [[arms]], got {own!r}")
        if own["name"] in merged:
            raise ValueError(f"arms must have different names, got {', '.join(arm['name'] for arm in listed)}")
        changed = {key: value for key, value in own.items() if key != "name"}
        merged[own["name"]] = {**laid_over(shared, changed), "arm": own["name"]}
    full = tuple(resolve(one) for one in merged.values())
    small = _smoke_form(table["smoke"], merged) if "smoke" in table else None
    if smoke and small is None:
        raise ValueError("config must have a table [smoke] for --smoke, which says what of the run is small; got none")
    return small if smoke and small is not None else full


def _smoke_form(table: Any, merged: Mapping[str, dict[str, Any]]) -> tuple[RunConfig, ...]:
    if not isinstance(table, Mapping):
        raise ValueError(f"smoke must be a table, got {table!r}")
    found: list[RunConfig] = []
    for name, tables in smoke_tables(table, list(merged)).items():
        one: dict[str, Any] = functools.reduce(laid_over, tables, merged[name])
        try:
            found.append(resolve(one | {"name": f"{one['name']}{ENDING}"}))
        except ValueError as error:
            raise ValueError(f"{error} (in the smoke form of the arm {name!r})") from None
    return tuple(found)


def resolve(table: Mapping[str, Any]) -> RunConfig:
    """Return one arm from plain values, as a config file or a manifest has them.

    >>> from grpo_dynamics.config import as_table
    >>> arm = resolve({"name": "a", "task": {"kind": "sums"}, "model": {"path": "m"}, "optimization": {
    ...     "learning_rate": 0.01}, "training": {"update": "gradient"}})
    >>> print(arm.training.learning_rate, resolve(as_table(arm)) == arm)
    0.01 True
    """
    for name in ("training", "optimization"):
        if not isinstance(table.get(name, {}), Mapping):
            raise ValueError(f"{name} must be a table, got {table[name]!r}")
    training, optimization = dict(table.get("training", {})), dict(table.get("optimization", {}))
    if training.get("update", "exact") != "exact":
        rates = [t["learning_rate"] for t in (training, optimization) if "learning_rate" in t]
        if len(rates) == 2 and rates[0] != rates[1]:
            raise ValueError(f"learning_rate must be the same in [training] and [optimization], got {rates}")
        if rates:
            training["learning_rate"] = optimization["learning_rate"] = rates[0]
    return build(RunConfig, {**table, "training": training, "optimization": optimization})


def laid_over(below: Any, above: Any) -> dict[str, Any]:
    """Return a table with another laid over it, tables inside too; one of another ``kind`` replaces what is below.

    >>> laid_over({"a": 1, "t": {"kind": "x", "k": 1}}, {"t": {"j": 2}})
    {'a': 1, 't': {'kind': 'x', 'k': 1, 'j': 2}}
    >>> laid_over({"t": {"kind": "x", "k": 1}}, {"t": {"kind": "y"}})
    {'t': {'kind': 'y'}}
    """
    result = dict(below)
    for key, value in above.items():
        old: Any = result.get(key)
        joined = isinstance(old, dict) and isinstance(value, dict) and value.get("kind") in (None, old.get("kind"))
        result[key] = laid_over(old, value) if joined else value
    return result


def _require(name: str, value: Any, allowed: str, test: Callable[[Any], Any]) -> None:
    if value is not None:
        require(name, value, allowed, test)

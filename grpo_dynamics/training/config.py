"""The config of a real training run: one TOML file, read strictly, one frozen :class:`RunConfig` for each of its arms.

An arm is the run with some of its tables changed: a run of four β has four arms, and one folder for each.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from grpo_dynamics.config import build, read_toml
from grpo_dynamics.training.rollouts import RolloutOptions
from grpo_dynamics.training.smoke import ENDING, smoke_tables
from grpo_dynamics.training.tables import Measurement, ModelOptions, Optimization, require_if_given
from grpo_dynamics.update_rule import Training
from grpo_dynamics.validation.thresholds import Thresholds

MAIN = "main"
"""The name of the only arm of a run that names none."""


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
            require_if_given(name, getattr(self, name), "an integer >= 1", lambda x: x >= 1)
        require_if_given("seed", self.seed, "an integer >= 0", lambda x: x >= 0)
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

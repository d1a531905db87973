"""Experiments: files ``sim_*.py``, one idea each, found in the wheel and in a checkout, loaded when they are asked for.

An experiment is a module with

- ``TITLE``, one line;
- ``Settings``, a frozen dataclass: the keys of its config, beside ``experiment`` and ``seed``;
- ``QUICK``, values of some of these that make it take seconds;
- ``parts(settings, seed)``, the work as a list of :class:`~grpo_dynamics.simulation.runs.Part`;
- ``summary(table)``, the few numbers that it comes to, again a table;
- ``draw(table)``, its picture.

A ``Settings`` may have a method ``files()``: what else the result depends on. Beside each module lies the config that
its committed results were computed with, ``sim_*.toml``.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from grpo_dynamics.config import EXPERIMENTS, as_table, build, nearest, read_toml
from grpo_dynamics.simulation.runs import Run

GENERIC = "simulation"
"""The experiment of a config that names none: one simulation of its questions under its training."""


def names() -> tuple[str, ...]:
    """Return the names of all experiments, the generic one first.

    >>> names()[0]
    'simulation'
    """
    return (GENERIC, *sorted(path.stem.removeprefix("sim_") for path in EXPERIMENTS.glob("sim_*.py")))


def experiment(name: str) -> Any:
    """Return the module of an experiment.

    Raises:
        ValueError: for a name that is not one of ``names()``.
    """
    if name not in names():
        raise ValueError(f"experiment must be one of {', '.join(names())}, got {name!r}{nearest(name, names())}")
    if name == GENERIC:
        return importlib.import_module("grpo_dynamics.simulation.one_simulation")
    label = f"grpo_dynamics.experiments.sim_{name}"
    if label not in sys.modules:
        spec = importlib.util.spec_from_file_location(label, EXPERIMENTS / f"sim_{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[label] = module  # before it runs: its dataclasses look up their type hints here
        spec.loader.exec_module(module)
    return sys.modules[label]


def config_file(name: str | os.PathLike[str]) -> Path:
    """Return the path of a config: a file, or the committed config of an experiment that is named.

    Raises:
        ValueError: where there is neither.
    """
    path = Path(name)
    if not path.exists() and str(name) in names()[1:]:
        return EXPERIMENTS / f"sim_{name}.toml"
    if not path.exists() and not path.suffix:
        listed = ", ".join(names()[1:])
        raise ValueError(
            f"config must be a file or one of the experiments {listed}, got {str(name)!r}{nearest(name, names()[1:])}"
        )
    return path


@dataclasses.dataclass(frozen=True)
class Config:
    """A config that was read: which experiment, with which settings, from which seed.

    Attributes:
        name: of the results: that of the file.
        experiment: its name.
        seed: where all randomness comes from; the same seed gives the same bytes on one machine.
        settings: an instance of the experiment's ``Settings``.
    """

    name: str
    experiment: str
    seed: int
    settings: Any

    def run(self, out: str | os.PathLike[str]) -> Run:
        """Return the work of the config, with results in a folder."""
        parts = experiment(self.experiment).parts(self.settings, self.seed)
        config = {"experiment": self.experiment, "seed": self.seed, **as_table(self.settings)}
        read = self.settings.files() if hasattr(self.settings, "files") else []
        digests = {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in read}
        return Run(self.name, config | ({"files": digests} if digests else {}), parts, Path(out))


def read_config(name: str | os.PathLike[str]) -> Config:
    """Return a config from a TOML file, or the committed one of an experiment.

    Raises:
        ValueError: for a missing or broken file, unknown keys and experiments, and values that are not allowed.
    """
    path = config_file(name)
    return parse(path.stem, read_toml(path))


def parse(name: str, table: Mapping[str, Any], changes: Mapping[str, Any] | None = None) -> Config:
    """Return a config from its keys and values, some of them changed."""
    table = {**table, **(changes or {})}
    kind, seed = table.pop("experiment", GENERIC), table.pop("seed", 0)
    if not isinstance(kind, str):
        raise ValueError(f"experiment must be a string, got {kind!r}")
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        raise ValueError(f"seed must be an integer >= 0, got {seed!r}")
    module = experiment(kind)
    return Config(name, kind, seed, build(module.Settings, table, beside=("experiment", "seed")))

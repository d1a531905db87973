"""What a task of a sweep can be: a real run, a simulation, a phase diagram."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from grpo_dynamics.arrays import require
from grpo_dynamics.config import as_table, build, read_toml
from grpo_dynamics.normalization import Normalization, Whitened

if TYPE_CHECKING:
    import polars as pl

Config = Mapping[str, Any]
"""The complete config of a task, as plain values."""


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of tasks.

    Attributes:
        resolve: keys and values, to all that decides the table, as plain values. Raises ValueError for what is wrong.
        compute: a config, and a folder of the task's own, to its table.
        value: the column that sums a table up: its mean over the rows of the last step.
        prepare: what is made once before all tasks: of their configs and the folder of the task folders.
        named: whether ``base`` may be the name of an experiment.
    """

    resolve: Callable[[Mapping[str, Any]], dict[str, Any]]
    compute: Callable[[Config, Path], pl.DataFrame]
    value: str | None
    prepare: Callable[[Iterable[Config], Path], None] = lambda configs, folder: None
    named: bool = False

    def base(self, given: Any, folder: Path) -> Mapping[str, Any]:
        """Return the table that the tasks share: as given, or that of a file."""
        if given is None:
            return {}
        if isinstance(given, str):
            path = folder / given
            if self.named and not path.exists():
                from grpo_dynamics.simulation.experiments import config_file

                path = config_file(given)
            return read_toml(path)
        if not isinstance(given, Mapping):
            raise ValueError(f"base must be a table or the name of a TOML file, got {given!r}")
        return given


@dataclasses.dataclass(frozen=True)
class Steps:
    """A range of a phase diagram: from ``low`` to ``high`` in ``steps`` values."""

    low: float
    high: float
    steps: int

    def __post_init__(self) -> None:
        require("steps", self.steps, "an integer >= 1", lambda x: x >= 1)
        require("high", self.high, f"a number >= low ({self.low:g})", lambda x: x >= self.low)


@dataclasses.dataclass(frozen=True)
class PhaseDiagram:
    """The keys of a phase diagram: one crossing of β and p_ref, or a grid of them.

    Attributes:
        beta: KL strength > 0, a number or a range in even steps of its logarithm.
        p_ref: success probability of the reference in (0, 1), a number or a range in even steps of its log-odds.
        normalization: how rewards become advantages.
        alpha: KL anchor in [0, 1].
    """

    beta: float | Steps
    p_ref: float | Steps
    normalization: Normalization = dataclasses.field(default_factory=Whitened)
    alpha: float = 1.0

    def __post_init__(self) -> None:
        require("beta", self._ends(self.beta), "a finite number > 0", lambda x: (x > 0) & np.isfinite(x))
        allowed = "a probability strictly between 0 and 1"
        require("p_ref", self._ends(self.p_ref), allowed, lambda x: (x > 0) & (x < 1))
        require("alpha", self.alpha, "a number between 0 and 1", lambda x: (x >= 0) & (x <= 1))

    @staticmethod
    def _ends(value: float | Steps) -> Any:
        return np.asarray([value.low, value.high]) if isinstance(value, Steps) else value

    def grid(self) -> tuple[Any, Any]:
        """Return β and the log-odds of p_ref along the two sides."""
        from grpo_dynamics.logodds import logit

        b, p = self.beta, self.p_ref
        beta = np.geomspace(b.low, b.high, b.steps) if isinstance(b, Steps) else np.asarray([b])
        if isinstance(p, Steps):
            return beta, np.linspace(float(logit(p.low)), float(logit(p.high)), p.steps)
        return beta, np.atleast_1d(np.asarray(logit(p)))


def _resolve_diagram(table: Mapping[str, Any]) -> dict[str, Any]:
    return as_table(build(PhaseDiagram, table))


def _compute_diagram(config: Config, folder: Path) -> pl.DataFrame:
    """The columns of :func:`grpo_dynamics.atlas.plane`, and p_low and p_high: where the orbit from p_ref ends."""
    import polars as pl

    from grpo_dynamics.atlas import plane
    from grpo_dynamics.logodds import sigmoid

    diagram = build(PhaseDiagram, config)
    table = plane(diagram.normalization, diagram.alpha, *diagram.grid())
    low, high = (sigmoid(table[name].to_numpy()) for name in ("end_low", "end_high"))
    return table.with_columns(
        pl.Series("p_low", low), pl.Series("p_high", high), pl.Series("p_middle", (low + high) / 2)
    )


def _resolve_simulation(table: Mapping[str, Any]) -> dict[str, Any]:
    from grpo_dynamics.provenance import digest
    from grpo_dynamics.simulation.experiments import parse

    read = parse("task", table)
    config = {"experiment": read.experiment, "seed": read.seed, **as_table(read.settings)}
    files = read.settings.files() if hasattr(read.settings, "files") else []
    return config | ({"files": {str(file): digest(Path(file).read_bytes()) for file in files}} if files else {})


def _compute_simulation(config: Config, folder: Path) -> pl.DataFrame:
    """The table that `grpo-dynamics simulate` writes; its parts are kept in memory, for tasks are short."""
    import polars as pl

    from grpo_dynamics.simulation.experiments import experiment, parse

    read = parse("task", {key: value for key, value in config.items() if key != "files"})
    tables: list[pl.DataFrame] = []
    state = None
    for part in experiment(read.experiment).parts(read.settings, read.seed):
        table, state = part.compute(state)
        tables.append(table)
    return pl.concat(tables).rechunk()


def _resolve_run(table: Mapping[str, Any]) -> dict[str, Any]:
    from grpo_dynamics.training.config import resolve

    if "arms" in table:
        raise ValueError("base must be a run without arms, got [[arms]]: make what they change an axis")
    config = as_table(resolve({"name": "task", **table}))
    config["model"].setdefault("threads", 1)  # a worker has one core; and the bytes are those of one thread everywhere
    return config


def _prepare_runs(configs: Iterable[Config], folder: Path) -> None:
    """Make the models that the configs ask for, once, before several tasks would at the same moment."""
    import torch

    from grpo_dynamics.training.arm import accelerate, choose_task
    from grpo_dynamics.training.config import resolve
    from grpo_dynamics.training.runs import model_path

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for config in configs:
            read = resolve(config)
            if read.model.make is not None:
                model_path(read, choose_task(read), folder, accelerate(read))
    finally:
        torch.set_num_threads(before)


def _compute_run(config: Config, folder: Path) -> pl.DataFrame:
    """The measured p of every question at every iteration; all else that a run leaves stays in the task's folder."""
    import polars as pl
    from transformers.utils import logging

    from grpo_dynamics.training.config import resolve
    from grpo_dynamics.training.runs import train

    logging.disable_progress_bar()
    train(resolve(config), folder, resume=True)  # goes on from its checkpoint where a worker was killed
    return pl.read_parquet(folder / "success.parquet")


KINDS: dict[str, Kind] = {
    "run": Kind(_resolve_run, _compute_run, "p", _prepare_runs),
    "simulate": Kind(_resolve_simulation, _compute_simulation, "p", named=True),
    "phase_diagram": Kind(_resolve_diagram, _compute_diagram, "p_middle"),
}
"""What ``kind`` may be."""

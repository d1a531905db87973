"""What is committed of the experiments of the campaign: read.

A folder NAME is the whole experiment, NAME_smoke its small form. What a result was computed on is what its manifest
says; see page.py for the page that is made of it.
"""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import polars as pl

RESULTS = Path(__file__).parents[2] / "experiments" / "results"
SMOKE = "_smoke"


@dataclasses.dataclass(frozen=True)
class Experiment:
    """One experiment: its name, its title, what it asks, and whether it is a script or the config of a run."""

    name: str
    title: str
    asks: str
    script: bool = False

    def command(self, smoke: bool) -> str:
        """Return the command that trains or measures; on a GPU it is given again while its exit code is 3."""
        start = f"python experiments/{self.name}.py"
        if not self.script:
            start = f"grpo-dynamics run --config experiments/{self.name}.toml"
        ending = " --smoke" if smoke else " --time-limit 9 --resume"
        return start + (ending if self.name.startswith("gpu_") else "")

    def commands(self, smoke: bool) -> list[str]:
        """Return every command from nothing to what is committed."""
        run = f"runs/{self.name}{SMOKE if smoke else ''}"
        check = [] if self.script else [f"grpo-dynamics validate {run}"]
        return [self.command(smoke), *check, f"python experiments/keep.py {run}"]


CAMPAIGN = (
    Experiment(
        "gpu_pretraining",
        "Pre-training",
        "Can models of 1, 10 and 100 million parameters be made in minutes whose p_ref spreads over (0.01, 0.99)?",
        script=True,
    ),
    Experiment(
        "gpu_recursion",
        "Recursion",
        "Does p_n of every question follow the recursion, for every β, for Dr. GRPO, mirror and two-KL GRPO, for "
        "answers of one and of several tokens, and with sampled groups?",
    ),
    Experiment(
        "gpu_flow",
        "Flow",
        "Do small on-policy steps end at the fixed point of their own group size and KL estimator, and not at that of "
        "another?",
    ),
    Experiment(
        "gpu_oscillation",
        "Oscillation",
        "Do hard questions swing between two values with large groups, and stop with small ones or with α < 1?",
    ),
    Experiment(
        "gpu_practice",
        "Practice",
        "How far do clipping, several steps on one batch and the average over tokens move p_n from the theory, and how "
        "long do wrong answers get?",
    ),
    Experiment(
        "gpu_scale",
        "Scale",
        "Does the error that a network makes shrink with its size?",
    ),
    Experiment(
        "gpu_throughput",
        "Throughput",
        "How fast are rollouts and update, and at which share of the device's measured matmul rate?",
        script=True,
    ),
)
OTHERS = (
    Experiment("cpu_arithmetic", "Arithmetic on a CPU", "Recursion, two-cycle and groups of 16, with 64 questions."),
    Experiment("cpu_recursion", "Recursion on a CPU", "Every kind of GRPO with a recursion, with 512 questions."),
    Experiment("cpu_flow", "Flow on a CPU", "Where small steps with k2 and with k3 end, with 64 questions."),
    Experiment(
        "trl_witness", "TRL as a witness", "Do TRL's trainer and ours end where their settings say?", script=True
    ),
)


@dataclasses.dataclass(frozen=True)
class Result:
    """What is committed of an experiment.

    Attributes:
        results: the folder of all results.
        folder: with the files of this one.
        manifest: how it was made.
        arms: what each arm came to, of a run; empty for a script.
        table: of a script; None for a run.
    """

    results: Path
    folder: Path
    manifest: dict[str, Any]
    arms: tuple[dict[str, Any], ...] = ()
    table: pl.DataFrame | None = None

    @property
    def smoke(self) -> bool:
        """Whether it is the small form."""
        return bool(self.manifest.get("smoke")) or self.folder.name.endswith(SMOKE)

    @property
    def device(self) -> str:
        """What it was computed on, by its own manifest."""
        hardware = self.manifest.get("hardware") or {}
        name = str(hardware.get("device") or "cpu")
        if not name.lower().startswith("cpu"):
            return name
        cores = hardware.get("cores")
        return "a CPU" + (f" of {cores} cores" if cores else "")

    @property
    def on_gpu(self) -> bool:
        """Whether its numbers are of a GPU."""
        return not self.device.startswith("a CPU")

    @property
    def label(self) -> str:
        """Return what stands beside its numbers."""
        return f"on {self.device}" + (", small form (`--smoke`)" if self.smoke else "")

    @property
    def minutes(self) -> float:
        """How long it took."""
        return float(self.manifest["seconds"]) / 60

    def config(self, arm: str) -> dict[str, Any]:
        """Return the settings of an arm."""
        return (self.manifest.get("config") or {}).get(arm) or {}

    def sampled(self, arm: str) -> bool:
        """Whether an arm's objective was made of samples."""
        return (self.config(arm).get("training") or {}).get("update") == "sampled"


def results_of(experiment: Experiment, results: Path = RESULTS) -> list[Result]:
    """Return what is committed, the GPU's first."""
    found = [read(results, experiment, name) for name in (experiment.name, experiment.name + SMOKE)]
    return [result for result in found if result is not None]


def read(results: Path, experiment: Experiment, name: str) -> Result | None:
    """Return one result, None where there is none."""
    if experiment.script:
        folder = results / name if (results / name).is_dir() else results
        if not (folder / f"{name}.json").is_file():
            return None
        manifest = json.loads((folder / f"{name}.json").read_bytes())
        return Result(results, folder, manifest, table=pl.read_parquet(folder / f"{name}.parquet"))
    folder = results / name
    if not (folder / "summary.json").is_file():
        return None
    told = json.loads((folder / "summary.json").read_bytes())
    return Result(results, folder, json.loads((folder / "manifest.json").read_bytes()), tuple(told["arms"]))


def updates(table: pl.DataFrame) -> pl.DataFrame:
    """Return the rows of the package's own update."""
    return table.filter((pl.col("part") == "update") & pl.col("what").str.starts_with("ours"))


def minutes(value: float) -> str:
    """Return minutes as a reader wants them.

    >>> minutes(0.04), minutes(0.73), minutes(12.2)
    ('0.1', '0.7', '12')
    """
    return f"{value:.0f}" if value >= 9.95 else f"{max(math.ceil(value * 10 - 0.5), 1) / 10:.1f}"

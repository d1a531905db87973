"""What is committed of the experiments of the campaign: read, and put into one line.

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

from grpo_dynamics.validation.summary import short

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
        """Return the command that trains or measures; on a GPU it is given again until it says that it has finished."""
        start = f"python experiments/{self.name}.py"
        if not self.script:
            start = f"grpo-dynamics run --config experiments/{self.name}.toml"
        ending = " --smoke" if smoke else " --time-limit 9 --resume"
        return start + (ending if self.name.startswith("gpu_") else "")

    def commands(self, smoke: bool) -> list[str]:
        """Return every command from nothing to what is committed."""
        run = f"runs/{self.name}{SMOKE if smoke else ''}"
        rest = [] if self.script else [f"grpo-dynamics validate {run}", f"python experiments/keep.py {run}"]
        return [self.command(smoke), *rest]


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


# ---- one line --------------------------------------------------------------------------------------------------------


def one_line(result: Result) -> str:
    """Return what a result comes to."""
    if result.table is not None:
        return script_line(result.table)
    judged = [arm for arm in result.arms if arm["passed"] is not None]
    kept = sum(arm["passed"] for arm in judged)
    along = [arm["residual"]["median"] for arm in result.arms if arm["residual"]["points"]]
    ends = [arm["p_infinity"]["median"] for arm in result.arms if arm["p_infinity"]["points"]]
    swings = sum(arm["oscillation"]["seen"] for arm in result.arms)
    said = [f"{kept} of {len(judged)} arms keep their bounds"] if judged else []
    if along:
        said.append(f"largest median \\|p_n − predicted\\| of an arm {short(max(along))}")
    elif ends:
        said.append(f"largest median \\|p_∞ − p\\*\\| of an arm {short(max(ends))}")
        explained = [arm["p_infinity"]["r2"] for arm in result.arms if arm["p_infinity"]["r2"] is not None]
        said += [f"least R² {min(explained):.2f}".replace("-", "−")] if explained else []
    if swings:
        asked = sum(arm["oscillation"]["predicted"] for arm in result.arms)
        said.append(f"{swings} of {asked} questions oscillate that should")
    return "; ".join(said)


def script_line(table: pl.DataFrame) -> str:
    """Return what a table of pre-training, of throughput or of trainers comes to."""
    if "share_inside" in table.columns:
        share, seconds = table["share_inside"], table["seconds"]
        return (
            f"{table.height} models in {min_of(seconds):.0f} to {max_of(seconds):.0f} s each; p_ref in (0.01, 0.99) "
            f"for {100 * min_of(share):.0f} to {100 * max_of(share):.0f} % of the questions"
        )
    if "fraction_of_matmul" in table.columns:
        best, plain = updates(table), table.filter(part="update", what="transformers")
        if not best.height:
            return "no update measured"
        said = f"update at up to {100 * max_of(best['fraction_of_matmul']):.0f} % of the measured matmul rate"
        if plain.height:
            said += f"; a plain loop with transformers at {100 * max_of(plain['fraction_of_matmul']):.0f} %"
        return said
    return "every arm ends nearest to its own prediction; see its page"


def min_of(column: pl.Series) -> float:
    """Return the least number of a column."""
    return float(column.min())  # pyright: ignore[reportArgumentType]


def max_of(column: pl.Series) -> float:
    """Return the largest number of a column."""
    return float(column.max())  # pyright: ignore[reportArgumentType]


def updates(table: pl.DataFrame) -> pl.DataFrame:
    """Return the rows of the package's own update."""
    return table.filter((pl.col("part") == "update") & pl.col("what").str.starts_with("ours"))


def minutes(value: float) -> str:
    """Return minutes as a reader wants them.

    >>> minutes(0.04), minutes(0.73), minutes(12.2)
    ('0.1', '0.7', '12')
    """
    return f"{value:.0f}" if value >= 9.95 else f"{max(math.ceil(value * 10 - 0.5), 1) / 10:.1f}"

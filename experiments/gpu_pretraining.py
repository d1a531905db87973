"""Models to train on, made on a GPU: of three sizes, on three tasks, until p_ref spreads over (0, 1).

A run starts from a model that knows its task in part. How long does such a model take to make, how near does it come to
the frequencies of its corpus, and over what does p_ref spread? The models stay in the folder ``models`` beside the
table; a run finds one by ``[model] path``, or makes the same one itself by ``[model] make``.

What should be reached on an H100, whose bfloat16 products run at some 700·10¹² operations a second: a step reads the
whole corpus once. 529 sums of one token are 529 prompts of about 6 tokens, 3·10³ positions, 2·10¹² operations at 100
million parameters: 3 ms of products, less than it takes Python to start the several thousand kernels of a step, and
than AdamW to go through 1.7 GB of weights, gradients and moments (0.6 ms). So a step is bound by the host, at some 25
ms, and 600 of them take a quarter of a minute. Answers of several tokens add four lines a prompt: some 10⁴ positions,
7·10¹² operations and 10 ms of products, with attention by plain products, whose sums have a fixed order.

Run it as ``python experiments/gpu_pretraining.py``; where the package is installed without a checkout, as
``python -m grpo_dynamics.experiments.gpu_pretraining``.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import polars as pl

from grpo_dynamics.arrays import require
from grpo_dynamics.cli.measuring import Measurement, command
from grpo_dynamics.plotting import GREY, PALETTE, new_figure, styled
from grpo_dynamics.simulation.runs import Part, independent

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from grpo_dynamics.training.deadline import Deadline

TITLE = "Models made for the campaign"
QUANTILES = ("0", "0.1", "0.25", "0.5", "0.75", "0.9", "1")


@dataclasses.dataclass(frozen=True)
class Settings:
    """Which models.

    Args:
        device: "cuda" or "cpu".
        threads: of PyTorch on a CPU; None: as many as it takes.
        precision: of the layers, "bf16" or "float32".
        steps: most of them.
        seed: of corpora and weights.
        sizes: tables of ``hidden_size``, ``layers`` and ``head_size``, by what they are called.
        tasks: tables with a ``kind`` and the options of the task, by what they are called.
    """

    device: str = "cuda"
    threads: int | None = None
    precision: Literal["float32", "bf16"] = "bf16"
    steps: int = 1500
    seed: int = 0
    sizes: Any = None
    tasks: Any = None

    def __post_init__(self) -> None:
        require("steps", self.steps, "an integer >= 1", lambda x: x >= 1)
        for name in ("sizes", "tasks"):
            found = getattr(self, name)
            if not isinstance(found, Mapping) or not found or not all(isinstance(t, Mapping) for t in found.values()):
                raise ValueError(f"{name} must be tables, one [{name}.NAME] for each, got {found!r}")
        for name, size in self.sizes.items():
            if set(size) != {"hidden_size", "layers", "head_size"}:
                raise ValueError(f"sizes.{name} must have hidden_size, layers and head_size, got {', '.join(size)}")
        for name, task in self.tasks.items():
            if not isinstance(task.get("kind"), str):
                raise ValueError(f"tasks.{name} must have a kind, got {dict(task)!r}")


def parts(settings: Settings, place: Path, deadline: Deadline) -> list[Part]:
    """One part a model, the small ones first."""
    return [
        independent(f"{size} on {task}", functools.partial(made, settings, size, task, place, deadline))
        for size in settings.sizes
        for task in settings.tasks
    ]


def made(settings: Settings, size: str, task: str, place: Path, deadline: Deadline) -> pl.DataFrame:
    """Make one model, or find it; one row with what it knows and how fast it learned."""
    import torch

    from grpo_dynamics.training.policies import load_policy
    from grpo_dynamics.training.pretraining import make_model
    from grpo_dynamics.training.speed.throughput import layer_weights, matmul_rate
    from grpo_dynamics.training.tasks import make_task

    options, shape = dict(settings.tasks[task]), dict(settings.sizes[size])
    questions = make_task(options.pop("kind"), **options)
    on_gpu = settings.device.startswith("cuda")
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    folder = make_model(
        questions,
        place / "models" / f"{size}_{task}",
        **shape,
        seed=settings.seed,
        steps=settings.steps,
        precision=settings.precision,
        device=settings.device,
        deadline=deadline,
    )
    memory = torch.cuda.max_memory_allocated() if on_gpu else None
    known = json.loads((folder / "manifest.json").read_bytes())
    rate = matmul_rate(settings.device)
    tokens = known["tokens_of_a_step"] * (known["steps"] + 1) / known["seconds_of_steps"]
    # attention over a dozen positions is less than a hundredth of this
    flops = 6.0 * layer_weights(load_policy(folder, device="cpu").model) * tokens
    quantiles = {f"p_ref_{round(100 * float(q))}": known["p_ref"]["quantiles"][q] for q in QUANTILES}
    return pl.DataFrame(
        {
            "size": [size],
            "task": [task],
            "questions": [len(questions.questions)],
            "parameters": [known["parameters"]],
            "hidden_size": [shape["hidden_size"]],
            "layers": [shape["layers"]],
            "precision": [settings.precision],
            "steps": [known["steps"]],
            "seconds": [known["seconds_of_steps"]],
            "divergence": [known["divergence"]],
            **{name: [value] for name, value in quantiles.items()},
            "share_inside": [known["p_ref"]["inside"]],
            "tokens_per_second": [tokens],
            "flops_per_second": [flops],
            "matmul_flops_per_second": [rate],
            "fraction_of_matmul": [flops / rate],
            "peak_memory_bytes": [memory],
            "model": [folder.name],
        },
        schema_overrides={"peak_memory_bytes": pl.Int64},
    )


def summary(table: pl.DataFrame) -> pl.DataFrame:
    """What is printed of each model."""
    shown = ("size", "task", "parameters", "steps", "seconds", "divergence", "p_ref_50", "share_inside")
    return table.select(*shown, "tokens_per_second", "fraction_of_matmul").with_columns(pl.selectors.float().round(4))


@styled
def draw(table: pl.DataFrame) -> Figure:
    """Spread of p_ref, and seconds, by size and task."""
    figure = new_figure(7.4, 3.2)
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    sizes, tasks = (table[name].unique(maintain_order=True).to_list() for name in ("size", "task"))
    for i, task in enumerate(tasks):
        rows = table.filter(task=task)
        at = np.array([sizes.index(size) for size in rows["size"]]) + (i - (len(tasks) - 1) / 2) * 0.2
        color = PALETTE[i % len(PALETTE)]
        left.vlines(at, rows["p_ref_10"], rows["p_ref_90"], color=color, lw=1.2)
        left.vlines(at, rows["p_ref_25"], rows["p_ref_75"], color=color, lw=4.5)
        left.plot(at, rows["p_ref_50"], "o", ms=5, mfc="white", mec=color, label=task.replace("_", " "))
        right.bar(at, rows["seconds"], 0.18, color=color)
    left.axhspan(0.01, 0.99, color=GREY, alpha=0.08, lw=0)
    left.set_xticks(range(len(sizes)), sizes)
    left.set(xlabel="size", ylabel=r"$p_{\mathrm{ref}}$ of the questions", ylim=(-0.02, 1.02))
    left.set_title("median, quartiles, and from the 10th to the 90th percentile")
    figure.legend(loc="outside lower center", ncols=len(tasks), fontsize=8)
    right.set_xticks(range(len(sizes)), sizes)
    right.set(xlabel="size", ylabel="seconds of pre-training")
    return figure


MEASUREMENT = Measurement(TITLE, Settings, parts, summary, draw)


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line."""
    return command("gpu_pretraining", MEASUREMENT, Path(__file__).with_suffix(".toml"), arguments)


if __name__ == "__main__":
    sys.exit(main())

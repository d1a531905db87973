"""How fast a step of GRPO is: rollouts, the update, and both, beside what the device can do and beside other loops.

Measured are tokens and samples per second, the fraction of the device's measured rate of matrix products (bfloat16 on a
GPU, float32 on a CPU), memory, and what the update spends its time on. The update is this package's own step, from
advantages to weights: π and π_ref of every completion, the loss, gradient, clipped norm, AdamW. Its operations are
counted as written down in :mod:`grpo_dynamics.training.speed.throughput`: 6·N a token for π and 2·N for π_ref,
prompts once for all their completions, nothing for padding.

Beside it stand the straightforward loop on transformers, every completion with its prompt as a row of its own, and TRL.

The column ``precision`` says what a row was computed in. With "bf16" the update is computed in bfloat16, by all three.
The rollouts are not the same work: this package computes them in float32, as its runs do, the plain loop and TRL in
bfloat16, and so are those in the whole steps. A fraction of the matmul rate, which is bfloat16's on a GPU, is given
only for what was computed in the same precision: not for our rollouts there.

A compiled row was compiled to the end: where torch.compile gives up, the row says so and no number is there, and the
whole step is measured uncompiled.

What should be reached. Per token and layer of width h = 1024 (10·h² weights) the update multiplies 8·10·h² = 84·10⁶
times and adds: 120 ns at the 700·10¹² operations a second that an H100 measures. Element by element, without fusion,
norms, rotations, gates, residuals and casts move some 650·h bytes forward and backward and 190·h for π_ref: 320 ns at
2.7·10¹² bytes a second, so that no more than a quarter of the matmul rate is within reach. Compiled, fused into a few
passes, they move about 210·h bytes: 80 ns. With attention over some 400 positions (30 ns), products that reach 85 % of
the large one's rate (20 ns more), AdamW (28 bytes a weight, 3 GB, 1 ms a step) and a tenth of padding, 120 of some 280
ns are products: about 43 %. Hence 35 % is a goal for the compiled update, and not for the other. At 10 million
parameters (h = 320) products shrink by 10 and traffic by 3: some 20 %. At 1 million the kernels are shorter than the 5
µs that it takes to start one. These are estimates: the table is what was measured.

Run it as ``python experiments/gpu_throughput.py``; where the package is installed without a checkout, as
``python -m grpo_dynamics.experiments.gpu_throughput``.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from grpo_dynamics.cli.measuring import Measurement, command
from grpo_dynamics.plotting import BLUE, GREY, PALETTE, new_figure, styled
from grpo_dynamics.simulation.runs import Part, independent
from grpo_dynamics.training.speed.settings import SCHEMA, Settings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from grpo_dynamics.training.deadline import Deadline

Rows = list[dict[str, Any]]
TITLE = "Rollouts and updates per second"
COMPILER = "torch.compile"


def parts(settings: Settings, place: Path, deadline: Deadline) -> list[Part]:
    """One part a number: what is done is kept, so that a time limit loses one of them at most."""
    from grpo_dynamics.training.speed import measurements, trl_loop

    work: list[tuple[str, Callable[[], Rows]]] = [("matmul", functools.partial(measurements.matmul, settings))]
    for size in settings.sizes:
        for engine in settings.engines:
            if engine != "vllm" or settings.has("vllm"):
                measured = functools.partial(measurements.rollout, settings, size, engine)
                if engine != "generate":
                    measured = functools.partial(or_why_not, measured, "rollout", size, engine)
                work.append((f"{size}: rollout by {engine}", measured))
        work.append((f"{size}: update", functools.partial(measurements.update, settings, size, compiled=False)))
        if settings.compile:
            measured = functools.partial(measurements.update, settings, size, compiled=True)
            measured = functools.partial(or_why_not, measured, "update", size, COMPILER)
            work.append((f"{size}: update, compiled", measured))
        work.append((f"{size}: update by transformers", functools.partial(measurements.plain_update, settings, size)))
        work.append((f"{size}: step", functools.partial(whole_step, settings, size)))
        work.append((f"{size}: step by transformers", functools.partial(measurements.plain_step, settings, size)))
        if settings.trl and settings.has("trl"):
            measured = functools.partial(trl_loop.trl_step, settings, size)
            work.append((f"{size}: step by TRL", functools.partial(or_why_not, measured, "step", size, "trl")))
    return [independent(name, functools.partial(table_of, measured)) for name, measured in work]


def whole_step(settings: Settings, size: str) -> Rows:
    """A step of this package, compiled where that is asked; if the compiler fails, why, and the step without it."""
    from grpo_dynamics.training.speed import measurements

    rows: Rows = []
    if settings.compile:
        compiled = functools.partial(measurements.step, settings, size, compiled=True)
        rows = or_why_not(compiled, "step", size, COMPILER)
    measured = any("seconds" in row for row in rows)
    return rows if measured else rows + measurements.step(settings, size, compiled=False)


def or_why_not(measured: Callable[[], Rows], part: str, size: str, library: str) -> Rows:
    """The rows of a measurement that needs another library, or one that says why not: the other parts do go on."""
    try:
        return measured()
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        reason = " ".join(lines[: 1 + lines[0].endswith(":")])[:120]  # torch.compile says what is wrong in the second
        return [{"part": part, "size": size, "what": f"{library} failed: {type(error).__name__}: {reason}"}]


def table_of(measured: Callable[[], Rows]) -> pl.DataFrame:
    """The rows of a measurement, with every column; memory that it took is free again."""
    import gc

    import torch

    rows = [{name: row.get(name) for name in SCHEMA} for row in measured()]
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return pl.DataFrame(rows, schema=SCHEMA)


def summary(table: pl.DataFrame) -> pl.DataFrame:
    """What is printed of each measurement: seconds and the profile are in the table."""
    shown = ("part", "size", "what", "precision", "tokens_per_second", "samples_per_second", "fraction_of_matmul")
    return table.filter(pl.col("part") != "profile").select(*shown).with_columns(pl.selectors.float().round(4))


@styled
def draw(table: pl.DataFrame) -> Figure:
    """Samples per second of whole steps, fraction of the matmul rate of updates, and where the time goes."""
    figure = new_figure(9.0, 3.2)
    steps, updates, profile = figure.subplots(1, 3)
    sizes = table["size"].drop_nulls().unique(maintain_order=True).to_list()
    for axes, part, value in ((steps, "step", "samples_per_second"), (updates, "update", "fraction_of_matmul")):
        rows = table.filter(pl.col(value).is_not_null(), part=part)
        names = rows["what"].unique(maintain_order=True).to_list()
        for i, what in enumerate(names):
            own = rows.filter(what=what)
            at = np.array([sizes.index(size) for size in own["size"]]) + (i - (len(names) - 1) / 2) * 0.8 / len(names)
            axes.bar(at, own[value], 0.8 / len(names), color=PALETTE[i % len(PALETTE)], label=what)
        axes.set_xticks(range(len(sizes)), sizes)
        if names:
            axes.legend(fontsize=7, loc="upper right")
        axes.margins(y=0.35)
    steps.set(ylabel="samples per second", title="rollout and update")
    updates.axhline(0.35, color=GREY, lw=1.0, ls=":")
    updates.set(ylabel="fraction of the matmul rate", title="update", ylim=(0, 0.6))
    rows, below = table.filter(part="profile"), np.zeros(len(sizes))
    kinds = rows["what"].unique(maintain_order=True).to_list()
    for i, kind in enumerate(kinds):
        height = np.array([rows.filter(what=kind, size=size)["share"].sum() for size in sizes])
        color = GREY if kind == "idle" else (BLUE, *PALETTE[1:])[i % len(PALETTE)]
        profile.bar(range(len(sizes)), height, 0.6, bottom=below, color=color, label=kind)
        below += height
    profile.set_xticks(range(len(sizes)), sizes)
    profile.set(ylabel="share of the update's time", title="what the update does", ylim=(0, 1.55))
    if kinds:  # none where the update was to be compiled and could not be
        profile.legend(fontsize=7, ncols=2, loc="upper right")
    return figure


MEASUREMENT = Measurement(TITLE, Settings, parts, summary, draw)


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line."""
    return command("gpu_throughput", MEASUREMENT, Path(__file__).with_suffix(".toml"), arguments)


if __name__ == "__main__":
    sys.exit(main())

"""How fast a step of GRPO is: rollouts, the update, and both, beside what the device can do and beside other loops.

Measured are tokens and samples per second, the fraction of the device's measured rate of matrix products (bfloat16 on a
GPU, float32 on a CPU), memory, and what the update spends its time on. The update is this package's own step, from
advantages to weights: π and π_ref of every completion, the loss, gradient, clipped norm, AdamW. Its operations are
counted as written down in :mod:`grpo_dynamics.training.speed.throughput`: 6·N a token for π and 2·N for π_ref,
prompts once for all their completions, nothing for padding.

Beside it stand the straightforward loop on transformers, every completion with its prompt as a row of its own, and TRL.

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

import dataclasses
import functools
import importlib.util
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import polars as pl

from grpo_dynamics.arrays import require
from grpo_dynamics.cli.measuring import Measurement, command
from grpo_dynamics.plotting import BLUE, GREY, PALETTE, new_figure, styled
from grpo_dynamics.simulation.runs import Part, independent

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from grpo_dynamics.training.arm import Arm
    from grpo_dynamics.training.deadline import Deadline

TITLE = "Rollouts and updates per second"
TEXTS, COUNTS = ("part", "size", "what"), ("parameters", "group_size", "prompts", "repeats", "peak_memory_bytes")
NUMBERS = (
    "prompt_tokens",
    "completion_tokens",
    "seconds",
    "tokens_per_second",
    "samples_per_second",
    "flops_per_second",
    "fraction_of_matmul",
    "share",
)
SCHEMA: dict[str, Any] = {**dict.fromkeys(TEXTS, pl.String), **dict.fromkeys(COUNTS, pl.Int64)}
SCHEMA |= dict.fromkeys(NUMBERS, pl.Float64)
BETA, LEARNING_RATE = 0.1, 1e-6


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is measured on.

    Args:
        device: "cuda" or "cpu".
        threads: of PyTorch on a CPU; None: as many as it takes.
        precision: of the layers.
        compile: also measure the update compiled, and the whole step with it.
        engines: of rollouts; those that are not installed are left out.
        trl: also measure TRL, where it is installed.
        prompts: in a batch.
        group_size: completions of each.
        prompt_tokens: of each prompt.
        completion_tokens: fewest and most of a completion in the update; a rollout has at most the latter.
        micro_batch_size: completions in one pass.
        letters: of the vocabulary.
        repeats: of which the median is taken.
        sizes: tables of ``hidden_size``, ``layers`` and ``head_size``, by what they are called.
    """

    device: Literal["cuda", "cpu"] = "cuda"
    threads: int | None = None
    precision: Literal["float32", "bf16"] = "bf16"
    compile: bool = True
    engines: tuple[str, ...] = ("generate", "continuous", "vllm")
    trl: bool = True
    prompts: int = 32
    group_size: int = 16
    prompt_tokens: int = 96
    completion_tokens: tuple[int, int] = (128, 512)
    micro_batch_size: int = 64
    letters: int = 509
    repeats: int = 10
    sizes: Any = None

    def __post_init__(self) -> None:
        for name in ("prompts", "micro_batch_size", "repeats"):
            require(name, getattr(self, name), "an integer >= 1", lambda x: x >= 1)
        require("group_size", self.group_size, "an integer >= 2", lambda x: x >= 2)
        require("prompt_tokens", self.prompt_tokens, "an integer >= 2", lambda x: x >= 2)
        require("letters", self.letters, "an integer from 2 to 20000", lambda x: 2 <= x <= 20000)
        if not 2 <= self.completion_tokens[0] <= self.completion_tokens[1]:
            raise ValueError(f"completion_tokens must be two ascending integers >= 2, got {self.completion_tokens}")
        if unknown := set(self.engines) - {"generate", "continuous", "vllm"}:
            raise ValueError(f"engines must be some of generate, continuous, vllm, got {', '.join(sorted(unknown))}")
        if not isinstance(self.sizes, Mapping) or not self.sizes:
            raise ValueError(f"sizes must be tables, one [sizes.NAME] for each, got {self.sizes!r}")
        for name, size in self.sizes.items():
            if not isinstance(size, Mapping) or set(size) != {"hidden_size", "layers", "head_size"}:
                raise ValueError(f"sizes.{name} must be a table of hidden_size, layers and head_size, got {size!r}")

    def has(self, library: str) -> bool:
        """Whether something that can be left out is installed."""
        return importlib.util.find_spec(library) is not None


def parts(settings: Settings, place: Path, deadline: Deadline) -> list[Part]:
    """One part a number: what is done is kept, so that a time limit loses one of them at most."""
    work: list[tuple[str, Callable[[], list[dict[str, Any]]]]] = [("matmul", functools.partial(matmul, settings))]
    for size in settings.sizes:
        for engine in settings.engines:
            if engine != "vllm" or settings.has("vllm"):
                measured = functools.partial(rollout, settings, size, engine)
                if engine != "generate":
                    measured = functools.partial(or_why_not, measured, "rollout", size, engine)
                work.append((f"{size}: rollout by {engine}", measured))
        for compiled in (False, True) if settings.compile else (False,):
            name = "update, compiled" if compiled else "update"
            work.append((f"{size}: {name}", functools.partial(update, settings, size, compiled)))
        work.append((f"{size}: update by transformers", functools.partial(plain_update, settings, size)))
        work.append((f"{size}: step", functools.partial(step, settings, size)))
        work.append((f"{size}: step by transformers", functools.partial(plain_step, settings, size)))
        if settings.trl and settings.has("trl"):
            measured = functools.partial(trl_step, settings, size)
            work.append((f"{size}: step by TRL", functools.partial(or_why_not, measured, "step", size, "trl")))
    return [independent(name, functools.partial(table_of, measured)) for name, measured in work]


def or_why_not(
    measured: Callable[[], list[dict[str, Any]]], part: str, size: str, library: str
) -> list[dict[str, Any]]:
    """The rows of a measurement of another library, or one that says why there are none: the others do go on."""
    try:
        return measured()
    except Exception as error:
        reason = (str(error).strip().splitlines() or [""])[0][:120]
        return [{"part": part, "size": size, "what": f"{library} failed: {type(error).__name__}: {reason}"}]


def table_of(measured: Callable[[], list[dict[str, Any]]]) -> pl.DataFrame:
    """The rows of a measurement, with every column; memory that it took is free again."""
    import gc

    import torch

    rows = [{name: row.get(name) for name in SCHEMA} for row in measured()]
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return pl.DataFrame(rows, schema=SCHEMA)


def matmul(settings: Settings) -> list[dict[str, Any]]:
    """The rate of a large product, of which all others are fractions."""
    from grpo_dynamics.training.speed.throughput import matmul_rate

    kind = "bfloat16" if settings.device == "cuda" else "float32"
    return [{"part": "matmul", "what": kind, "flops_per_second": matmul_rate(settings.device), "fraction_of_matmul": 1}]


def arm_of(settings: Settings, size: str, engine: str = "generate", compiled: bool = False) -> Arm:
    """A model of a size with random weights, ready to train on random prompts."""
    from grpo_dynamics.training.arm import prepare
    from grpo_dynamics.training.config import resolve
    from grpo_dynamics.training.speed.workload import random_policy, random_task

    task = random_task(settings.prompts, settings.prompt_tokens, settings.completion_tokens[1], settings.letters)
    policy = random_policy(task, settings.letters, device=settings.device, **settings.sizes[size])
    attention = "causal" if engine == "generate" else "sdpa"
    table = {
        "name": "gpu_throughput",
        "task": {"kind": "one_token_sums"},  # the one above takes its place
        "model": {"path": size, "device": settings.device, "attention": attention, "compile": compiled},
        "iterations": 1,
        "training": {
            "update": "sampled",
            "beta": BETA,
            "normalization": {"kind": "finite_group", "group_size": settings.group_size, "eps": 1e-4},
            "kl": "k3",
            "ratio_level": "token",
            "clip_low": 0.2,
            "clip_high": 0.2,
            "aggregation": "token_mean",
        },
        "optimization": {
            "learning_rate": LEARNING_RATE,
            "max_grad_norm": 1.0,
            "precision": settings.precision,
            "micro_batch_size": settings.micro_batch_size,
        },
        "rollouts": {"engine": engine},
        "measurement": {"method": "sampled", "samples": 1},
    }
    return prepare(resolve(table), size, task=task, policy=policy)


def row_of(
    settings: Settings, size: str, part: str, what: str, arm: Any, seconds: float, lengths: Any, flops: float | None
) -> dict[str, Any]:
    """A row: ``lengths`` are those of all completions, ``flops`` the operations that the work needs."""
    import torch

    from grpo_dynamics.training.speed.throughput import matmul_rate

    on_gpu = settings.device == "cuda"
    memory = torch.cuda.max_memory_allocated() if on_gpu else None
    row = {"part": part, "size": size, "what": what, "parameters": arm.model.num_parameters(), "seconds": seconds}
    row |= {"prompts": settings.prompts, "group_size": settings.group_size, "repeats": settings.repeats}
    row |= {"prompt_tokens": settings.prompt_tokens, "completion_tokens": float(np.mean(lengths))}
    row |= {"samples_per_second": len(lengths) / seconds, "tokens_per_second": float(np.sum(lengths)) / seconds}
    if flops is not None:
        row |= {
            "flops_per_second": flops / seconds,
            "fraction_of_matmul": flops / seconds / matmul_rate(settings.device),
        }
    return row | {"peak_memory_bytes": memory}


def forget_memory(settings: Settings) -> None:
    """Start a new account of the most memory that was taken."""
    import torch

    if settings.device == "cuda":
        torch.cuda.reset_peak_memory_stats()


def timed(settings: Settings, work: Callable[[], Any]) -> float:
    """Median seconds of some work, after a first time that compiles and allocates."""
    from grpo_dynamics.training.speed.throughput import median_seconds

    forget_memory(settings)
    return median_seconds(work, settings.device, settings.repeats, warm_up=2)


def work_of(arm: Arm, lengths: Any) -> Any:
    """The operations of one forward pass over completions of some lengths, (Q, G)."""
    from grpo_dynamics.training.speed.throughput import forward_work

    return forward_work(arm.model, [len(prompt) for prompt in arm.prompts], np.asarray(lengths).tolist())


def rollout(settings: Settings, size: str, engine: str) -> list[dict[str, Any]]:
    """Groups of completions by one engine: a forward pass for each token."""
    arm, lengths = arm_of(settings, size, engine), []

    def draw_all() -> None:
        seeds = list(range(len(lengths) * 10**6, len(lengths) * 10**6 + len(arm.prompts)))
        samples = arm.engine.sample(arm.prompts, settings.group_size, settings.completion_tokens[1], seeds)
        lengths.append(samples.lengths.cpu().numpy())

    with arm.engine:
        seconds = timed(settings, draw_all)
    counted = lengths[2:]
    flops = float(np.mean([work_of(arm, each).flops for each in counted]))
    row = row_of(settings, size, "rollout", engine, arm, seconds, np.concatenate(counted).ravel(), flops)
    drawn = float(np.mean([each.sum() for each in counted]))
    row |= {"tokens_per_second": drawn / seconds, "samples_per_second": counted[0].size / seconds}
    return [row]


def given_batch(settings: Settings, arm: Arm) -> tuple[Any, Any]:
    """A batch of random completions with random rewards, and their lengths (Q, G)."""
    import torch

    from grpo_dynamics.training.advantages import group_advantages
    from grpo_dynamics.training.rollouts import unique
    from grpo_dynamics.training.speed.workload import random_samples
    from grpo_dynamics.training.steps.batches import sampled_batch

    samples = random_samples(arm.policy, arm.prompts, settings.group_size, settings.completion_tokens)
    rewards = torch.rand(samples.lengths.shape, generator=torch.Generator().manual_seed(1)).round().double()
    advantages = group_advantages(rewards.to(arm.policy.device), arm.training)
    batch = sampled_batch(arm.prompts, unique(samples), advantages, arm.training, by_length=True)
    return batch, samples


def update(settings: Settings, size: str, compiled: bool) -> list[dict[str, Any]]:
    """This package's update of the weights on given completions; and what it spends its time on."""
    from grpo_dynamics.training.speed.throughput import shares_of_time
    from grpo_dynamics.training.steps.gradient_step import gradient_step

    arm = arm_of(settings, size, compiled=compiled)
    batch, samples = given_batch(settings, arm)
    lengths = samples.lengths.cpu().numpy()

    def one() -> None:
        batch.log_ref = batch.log_old = None  # as after new rollouts
        gradient_step(arm, batch, LEARNING_RATE)

    seconds = timed(settings, one)
    work = work_of(arm, lengths)
    name = "ours, compiled" if compiled else "ours"
    rows = [row_of(settings, size, "update", name, arm, seconds, lengths.ravel(), work.update + work.flops)]
    if compiled == settings.compile:
        shares = shares_of_time(one, settings.device)
        rows += [{"part": "profile", "size": size, "what": kind, "share": share} for kind, share in shares.items()]
    return rows


def step(settings: Settings, size: str) -> list[dict[str, Any]]:
    """A whole step of this package: rollouts by ``generate``, rewards, update."""
    from grpo_dynamics.training.deadline import NEVER
    from grpo_dynamics.training.records import no_rows
    from grpo_dynamics.training.steps.drawing import draw
    from grpo_dynamics.training.trainer import step_on

    arm, lengths = arm_of(settings, size, compiled=settings.compile), []

    def one() -> None:
        drawn = draw(arm, len(lengths), 1, arm.own)
        lengths.append(drawn.samples.lengths.cpu().numpy())
        step_on(arm, len(lengths), [drawn], no_rows(), NEVER)

    with arm.engine:
        seconds = timed(settings, one)
    name = "ours, compiled" if settings.compile else "ours"
    return [row_of(settings, size, "step", name, arm, seconds, lengths[-1].ravel(), None)]


def plain_update(settings: Settings, size: str) -> list[dict[str, Any]]:
    """The update of the straightforward loop on the same completions."""
    from grpo_dynamics.training.advantages import group_advantages
    from grpo_dynamics.training.speed.plain_loop import PlainLoop

    arm = arm_of(settings, size)
    _, samples = given_batch(settings, arm)
    plain, lengths = PlainLoop(arm), samples.lengths.cpu().numpy()
    advantages = group_advantages((samples.completions[..., 0] % 2).double(), arm.training).float().flatten()
    completions, mask = samples.completions.flatten(0, 1), samples.mask.flatten(0, 1)
    seconds = timed(settings, lambda: plain.update(completions, mask, advantages))
    work = work_of(arm, lengths)
    return [row_of(settings, size, "update", "transformers", arm, seconds, lengths.ravel(), work.update + work.flops)]


def plain_step(settings: Settings, size: str) -> list[dict[str, Any]]:
    """A whole step of the straightforward loop."""
    from grpo_dynamics.training.advantages import group_advantages
    from grpo_dynamics.training.speed.plain_loop import PlainLoop

    arm = arm_of(settings, size)
    plain, lengths = PlainLoop(arm), []

    def one() -> None:
        completions, mask = plain.rollout()
        lengths.append(mask.sum(-1).cpu().numpy())
        rewards = (completions[:, 0] % 2).double().reshape(-1, settings.group_size)
        plain.update(completions, mask, group_advantages(rewards, arm.training).float().flatten())

    seconds = timed(settings, one)
    return [row_of(settings, size, "step", "transformers", arm, seconds, lengths[-1], None)]


def trl_step(settings: Settings, size: str) -> list[dict[str, Any]]:
    """A whole step of TRL's GRPOTrainer, between one update and the next."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # what transformers tells the authors of TRL
        from datasets import Dataset
        from transformers import TrainerCallback
        from transformers.trainer_callback import PrinterCallback
        from trl import GRPOConfig, GRPOTrainer

        from grpo_dynamics.training.speed.throughput import clock

        arm, ends, lengths = arm_of(settings, size), [], []
        arm.policy.model.set_attn_implementation("sdpa")

        class Tick(TrainerCallback):
            def on_step_end(self, *_: Any, **__: Any) -> None:
                ends.append(time.perf_counter() if settings.device == "cuda" else clock())

        def reward(completion_ids: list[list[int]], **_: Any) -> list[float]:
            lengths.append([len(ids) for ids in completion_ids])
            return [float(ids[0] % 2) for ids in completion_ids]

        rows = settings.prompts * settings.group_size
        passes = max(1, rows // settings.micro_batch_size)
        with tempfile.TemporaryDirectory() as folder:
            options = GRPOConfig(
                output_dir=folder,
                beta=BETA,
                num_generations=settings.group_size,
                max_completion_length=settings.completion_tokens[1],
                per_device_train_batch_size=rows // passes,
                gradient_accumulation_steps=passes,
                learning_rate=LEARNING_RATE,
                lr_scheduler_type="constant",
                max_steps=settings.repeats + 2,
                use_cpu=settings.device == "cpu",
                bf16=settings.precision == "bf16",
                gradient_checkpointing=False,
                report_to=[],
                logging_strategy="no",
                save_strategy="no",
                disable_tqdm=True,
            )
            arm.policy.model.save_pretrained(f"{folder}/model")  # the reference is read from there
            arm.policy.tokenizer.save_pretrained(f"{folder}/model")
            trainer = GRPOTrainer(
                model=f"{folder}/model",
                reward_funcs=reward,
                args=options,
                train_dataset=Dataset.from_dict({"prompt": [question.prompt for question in arm.task.questions]}),
                processing_class=arm.policy.tokenizer,
                callbacks=[Tick()],
            )
            trainer.remove_callback(PrinterCallback)
            forget_memory(settings)
            trainer.train()
    seconds = float(np.median(np.diff(ends[1:])))
    said = np.concatenate(lengths[-passes:])
    row = row_of(settings, size, "step", "trl", arm, seconds, said, None)
    whole = float(np.mean(said)) * rows  # TRL may ask for rewards in one call or in several
    return [row | {"samples_per_second": rows / seconds, "tokens_per_second": whole / seconds}]


def summary(table: pl.DataFrame) -> pl.DataFrame:
    """What is printed of each measurement; the profile is in the table and in the picture."""
    shown = ("part", "size", "what", "seconds", "tokens_per_second", "samples_per_second", "fraction_of_matmul")
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
    profile.legend(fontsize=7, ncols=2, loc="upper right")
    return figure


MEASUREMENT = Measurement(TITLE, Settings, parts, summary, draw)


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line."""
    return command("gpu_throughput", MEASUREMENT, Path(__file__).with_suffix(".toml"), arguments)


if __name__ == "__main__":
    sys.exit(main())

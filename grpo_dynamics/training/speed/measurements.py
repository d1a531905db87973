"""The speed of rollouts, of the update and of whole steps: ours, and those of the straightforward loop, a row each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from grpo_dynamics.training.advantages import group_advantages
from grpo_dynamics.training.arm import Arm, prepare
from grpo_dynamics.training.config import resolve
from grpo_dynamics.training.deadline import NEVER
from grpo_dynamics.training.device.compiled import never_given_up
from grpo_dynamics.training.records import no_rows
from grpo_dynamics.training.rollouts import unique
from grpo_dynamics.training.speed.plain_loop import PlainLoop
from grpo_dynamics.training.speed.settings import Settings
from grpo_dynamics.training.speed.throughput import (
    Work,
    forward_work,
    matmul_rate,
    median_seconds,
    shares_of_time,
)
from grpo_dynamics.training.speed.workload import random_policy, random_samples, random_task
from grpo_dynamics.training.steps.batches import sampled_batch
from grpo_dynamics.training.steps.drawing import draw
from grpo_dynamics.training.steps.gradient_step import gradient_step
from grpo_dynamics.training.trainer import step_on

BETA, LEARNING_RATE = 0.1, 1e-6
WARM_UP = 2
"""Times that are not counted: they compile and allocate."""
ROLLOUTS = "float32"
"""What this package's rollouts are computed in: the type of the weights. Only its update computes in bfloat16."""

Rows = list[dict[str, Any]]
"""What was measured, with some of the columns of ``settings.SCHEMA``."""


def matmul(settings: Settings) -> Rows:
    """The rate of a large product, of which all others are fractions."""
    kind = "bfloat16" if settings.device == "cuda" else "float32"
    row = {"part": "matmul", "what": kind, "precision": matmul_precision(settings)}
    return [row | {"flops_per_second": matmul_rate(settings.device), "fraction_of_matmul": 1}]


def matmul_precision(settings: Settings) -> str:
    """What the large product is computed in, by the name that configs have for it."""
    return "bf16" if settings.device == "cuda" else "float32"


def rollouts_and_update(settings: Settings) -> str:
    """What a whole step of this package is computed in."""
    lower = settings.precision != ROLLOUTS
    return f"{ROLLOUTS} rollouts, {settings.precision} update" if lower else ROLLOUTS


def arm_of(settings: Settings, size: str, engine: str = "generate", compiled: bool = False) -> Arm:
    """A model of a size with random weights, ready to train on random prompts."""
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
    settings: Settings,
    size: str,
    part: str,
    what: str,
    arm: Any,
    seconds: float,
    lengths: Sequence[Any],
    flops: float | None,
    precision: str,
) -> dict[str, Any]:
    """A row.

    Args:
        settings: what is measured on.
        size: of the model.
        part: of the work.
        what: does it.
        arm: whose model it is.
        seconds: of one repeat.
        lengths: of all completions, an array for each repeat that was counted.
        flops: operations that the work of one repeat needs.
        precision: what they are computed in; only where it is that of the large product is there a fraction of its
            rate.
    """
    on_gpu = settings.device == "cuda"
    memory = torch.cuda.max_memory_allocated() if on_gpu else None
    samples, tokens = (float(np.mean([count(each) for each in lengths])) for count in (np.size, np.sum))
    row = {"part": part, "size": size, "what": what, "precision": precision, "parameters": arm.model.num_parameters()}
    row |= {"prompts": settings.prompts, "group_size": settings.group_size, "repeats": settings.repeats}
    row |= {"prompt_tokens": settings.prompt_tokens, "completion_tokens": tokens / samples, "seconds": seconds}
    row |= {"samples_per_second": samples / seconds, "tokens_per_second": tokens / seconds}
    if flops is not None:
        row |= {"flops_per_second": flops / seconds}
        if precision == matmul_precision(settings):
            row |= {"fraction_of_matmul": flops / seconds / matmul_rate(settings.device)}
    return row | {"peak_memory_bytes": memory}


def forget_memory(settings: Settings) -> None:
    """Start a new account of the most memory that was taken."""
    if settings.device == "cuda":
        torch.cuda.reset_peak_memory_stats()


def timed(settings: Settings, work: Callable[[], Any]) -> float:
    """Median seconds of some work, once it is warm."""
    forget_memory(settings)
    return median_seconds(work, settings.device, settings.repeats, WARM_UP)


def work_of(arm: Arm, lengths: Any) -> Work:
    """The operations of one forward pass over completions of some lengths, (Q, G)."""
    return forward_work(arm.model, [len(prompt) for prompt in arm.prompts], np.asarray(lengths).tolist())


def rollout(settings: Settings, size: str, engine: str) -> Rows:
    """Groups of completions by one engine: a forward pass for each token."""
    arm, lengths = arm_of(settings, size, engine), []

    def draw_all() -> None:
        seeds = list(range(len(lengths) * 10**6, len(lengths) * 10**6 + len(arm.prompts)))
        samples = arm.engine.sample(arm.prompts, settings.group_size, settings.completion_tokens[1], seeds)
        lengths.append(samples.lengths.cpu().numpy())

    with arm.engine:
        seconds = timed(settings, draw_all)
    counted = lengths[WARM_UP:]
    flops = float(np.mean([work_of(arm, each).flops for each in counted]))
    return [row_of(settings, size, "rollout", engine, arm, seconds, counted, flops, ROLLOUTS)]


def given_batch(settings: Settings, arm: Arm) -> tuple[Any, Any]:
    """A batch of random completions with random rewards, and their lengths (Q, G)."""
    samples = random_samples(arm.policy, arm.prompts, settings.group_size, settings.completion_tokens)
    rewards = torch.rand(samples.lengths.shape, generator=torch.Generator().manual_seed(1)).round().double()
    advantages = group_advantages(rewards.to(arm.policy.device), arm.training)
    batch = sampled_batch(arm.prompts, unique(samples), advantages, arm.training, by_length=True)
    return batch, samples


def update(settings: Settings, size: str, compiled: bool) -> Rows:
    """This package's update of the weights on given completions; and what it spends its time on."""
    arm = arm_of(settings, size, compiled=compiled)
    batch, samples = given_batch(settings, arm)
    lengths = samples.lengths.cpu().numpy()

    def one() -> None:
        batch.log_ref = batch.log_old = None  # as after new rollouts
        gradient_step(arm, batch, LEARNING_RATE)

    with never_given_up():
        seconds = timed(settings, one)
        shares = shares_of_time(one, settings.device) if compiled == settings.compile else {}
    work = work_of(arm, lengths)
    flops, name = work.update + work.flops, "ours, compiled" if compiled else "ours"
    row = row_of(settings, size, "update", name, arm, seconds, [lengths], flops, settings.precision)
    return [row] + [{"part": "profile", "size": size, "what": kind, "share": share} for kind, share in shares.items()]


def step(settings: Settings, size: str, compiled: bool) -> Rows:
    """A whole step of this package: rollouts by ``generate``, rewards, update."""
    arm, lengths = arm_of(settings, size, compiled=compiled), []

    def one() -> None:
        drawn = draw(arm, len(lengths), 1, arm.own)
        lengths.append(drawn.samples.lengths.cpu().numpy())
        step_on(arm, len(lengths), [drawn], no_rows(), NEVER)

    with arm.engine, never_given_up():
        seconds = timed(settings, one)
    name, precision = "ours, compiled" if compiled else "ours", rollouts_and_update(settings)
    return [row_of(settings, size, "step", name, arm, seconds, lengths[WARM_UP:], None, precision)]


def plain_update(settings: Settings, size: str) -> Rows:
    """The update of the straightforward loop on the same completions."""
    arm = arm_of(settings, size)
    _, samples = given_batch(settings, arm)
    plain, lengths = PlainLoop(arm), samples.lengths.cpu().numpy()
    advantages = group_advantages((samples.completions[..., 0] % 2).double(), arm.training).float().flatten()
    completions, mask = samples.completions.flatten(0, 1), samples.mask.flatten(0, 1)
    seconds = timed(settings, lambda: plain.update(completions, mask, advantages))
    work = work_of(arm, lengths)
    flops = work.update + work.flops
    return [row_of(settings, size, "update", "transformers", arm, seconds, [lengths], flops, settings.precision)]


def plain_step(settings: Settings, size: str) -> Rows:
    """A whole step of the straightforward loop."""
    arm = arm_of(settings, size)
    plain, lengths = PlainLoop(arm), []

    def one() -> None:
        completions, mask = plain.rollout()
        lengths.append(mask.sum(-1).cpu().numpy())
        rewards = (completions[:, 0] % 2).double().reshape(-1, settings.group_size)
        plain.update(completions, mask, group_advantages(rewards, arm.training).float().flatten())

    seconds = timed(settings, one)
    counted = lengths[WARM_UP:]
    return [row_of(settings, size, "step", "transformers", arm, seconds, counted, None, settings.precision)]

"""One arm of a run, ready to train: policy, questions, engine, measurement, and the processes that share the work."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator  # pyright: ignore[reportMissingTypeStubs]
from accelerate.utils import DistributedType, gather_object  # pyright: ignore[reportMissingTypeStubs]
from torch import Tensor

from grpo_dynamics.training.config import RunConfig
from grpo_dynamics.training.device.attention import without_masks
from grpo_dynamics.training.device.compiled import Forward, calling, compiled_forward
from grpo_dynamics.training.likelihoods import core_model
from grpo_dynamics.training.measure import Measure, choose
from grpo_dynamics.training.policies import Policy, load_policy
from grpo_dynamics.training.rollouts import Engine, engine
from grpo_dynamics.training.steps import sharding
from grpo_dynamics.training.steps.ascent import Ascent
from grpo_dynamics.training.steps.expectation import count_answers
from grpo_dynamics.training.tasks import Task, make_task
from grpo_dynamics.update_rule import Training

GROUPS, PROBES = 0, 1
"""What a seed is for: the groups that teach, or the samples that measure."""


def accelerate(config: RunConfig) -> Accelerator:
    """Return what knows the devices and processes: those of `accelerate launch`, or this one.

    Raises:
        ValueError: where a GPU is asked for and none is there, or the processes were launched on another device.
    """
    device = config.model.device
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            f'model.device must be one that is there, got {device!r} and no GPU; take "cpu", or --smoke, which runs a '
            "small form on a CPU where the config has a table [smoke]"
        )
    accelerator = Accelerator(cpu=device == "cpu")
    if device is not None and accelerator.device.type != device:
        raise ValueError(f"model.device must be that of the processes, {accelerator.device.type!r}, got {device!r}")
    return accelerator


def agreed(accelerator: Accelerator, seen: bool) -> bool:
    """Return what the main process has seen, in all processes."""
    if accelerator.num_processes == 1:
        return seen
    said = torch.tensor([float(seen and accelerator.is_main_process)], device=accelerator.device)
    total: Any = accelerator.reduce(said, reduction="sum")
    return bool(total[0] > 0)


def choose_task(config: RunConfig) -> Task:
    """Return the task of a config, with as many questions as it says.

    Raises:
        ValueError: for an unknown kind or option, or more questions than there are.
    """
    options = dict(config.task)
    task = make_task(options.pop("kind"), **options)
    if config.questions is None:
        return task
    if config.questions > len(task.questions):
        raise ValueError(f"questions must be at most the task's {len(task.questions)}, got {config.questions}")
    return task.select(config.questions, config.seed)


def own_seed(seed: int, purpose: int, iteration: int, question: int) -> int:
    """Return the seed of one question in one iteration: the same whatever process draws, and in whatever batch.

    >>> own_seed(0, GROUPS, 1, 2) == own_seed(0, GROUPS, 1, 2), own_seed(0, GROUPS, 1, 2) == own_seed(0, PROBES, 1, 2)
    (True, False)
    """
    return int(np.random.SeedSequence([seed, purpose, iteration, question]).generate_state(1, np.uint64)[0] >> 1)


@dataclasses.dataclass(eq=False)
class Arm:
    """Everything that an iteration needs.

    Attributes:
        config: of the arm.
        training: its update rule, with the task's max_tokens where an aggregation divides by it.
        accelerator: processes and devices.
        task: all questions of the run.
        policy: tokenizer, and the model as transformers has it.
        model: that of the policy.
        ascent: its weights and their optimiser.
        reference: the weights of π_ref.
        engine: draws samples.
        prompts: token ids of all questions.
        own: numbers of this process's questions: every n-th of them, for n processes.
        measure: finds p of each of its own.
        values: of the critic, one for each question.
        compiled: the model's forward pass, where the config asks for it to be compiled.
    """

    config: RunConfig
    training: Training
    accelerator: Accelerator
    task: Task
    policy: Policy
    model: Any
    ascent: Ascent
    reference: list[Tensor]
    engine: Engine
    prompts: list[list[int]]
    own: list[int]
    measure: Measure
    values: Tensor
    compiled: Forward | None = None

    @property
    def is_main(self) -> bool:
        """Whether this process writes."""
        return bool(self.accelerator.is_main_process)

    def seeds(self, purpose: int, iteration: int, questions: Sequence[int]) -> list[int]:
        """Return one seed for each question, by its number in the task."""
        return [own_seed(self.config.seed, purpose, iteration, question) for question in questions]

    def share(self, questions: list[int]) -> list[int]:
        """Return this process's share of some questions."""
        return questions[self.accelerator.process_index :: self.accelerator.num_processes]

    def gathered(self, rows: list[Any]) -> list[Any]:
        """Return the rows of all processes, in the order of the processes."""
        return list(gather_object(rows)) if self.accelerator.num_processes > 1 else rows

    @contextlib.contextmanager
    def at_reference(self) -> Generator[Any]:
        """Give the model the weights of π_ref for a while, without gradients: no second model is kept."""
        with torch.no_grad(), self.ascent.at(self.reference):
            yield self.model

    @contextlib.contextmanager
    def forward(self) -> Generator[None]:
        """Be in a forward pass of training: bfloat16 and compiled where the config asks."""
        lower = self.config.optimization.precision == "bf16"
        with (
            torch.autocast(self.accelerator.device.type, torch.bfloat16, enabled=lower),
            calling(self.model, self.compiled),
        ):
            yield


def prepare(
    config: RunConfig,
    model_path: str | Path,
    *,
    task: Task | None = None,
    policy: Policy | None = None,
    accelerator: Accelerator | None = None,
) -> Arm:
    """Load what an arm needs.

    Args:
        config: of the arm.
        model_path: where its model is.
        task: instead of that of the config.
        policy: instead of the model at ``model_path``; its weights are changed.
        accelerator: that of the run.

    Raises:
        ValueError: for whatever cannot be trained: a tokenizer without a pad token, more processes than questions, ...
    """
    accelerator = accelerator or accelerate(config)
    task = task or choose_task(config)
    options, training = config.model, config.training
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)  # adapters start at random: the same in all processes
        policy = policy or load_policy(
            str(model_path),
            dtype=options.dtype,
            lora=options.lora,
            device=str(accelerator.device),
            gradient_checkpointing=options.gradient_checkpointing,
            pad_token=options.pad_token,
            eos_token=options.eos_token,
            chat=options.chat,
        )
    policy.check(task.texts())
    if options.attention == "causal" and config.rollouts.engine == "continuous":
        raise ValueError('model.attention must be "sdpa" with the engine "continuous", got "causal"')
    if options.attention == "causal":
        without_masks(core_model(policy.model))
    rank, processes = accelerator.process_index, accelerator.num_processes
    own = list(range(rank, len(task.questions), processes))
    _require_shares(config, training, len(task.questions), processes)
    if processes > 1 and (options.sharded or accelerator.distributed_type == DistributedType.FSDP):
        sharding.shard(policy.model, processes, accelerator.device)
    ascent = Ascent(policy.model, config.optimization, accelerator)
    method = choose(config.measurement, task, policy)
    if training.aggregation == "constant" and training.max_tokens is None:
        training = dataclasses.replace(training, max_tokens=float(task.max_completion_tokens))
    _require_statistics(config, method, count_answers(policy.vocabulary, task.max_completion_tokens))
    rollouts = config.rollouts
    if rollouts.engine == "auto" and training.update != "sampled" and method != "sampled":
        rollouts = dataclasses.replace(rollouts, engine="generate")  # nothing is drawn: nothing has to be started
    draws = engine(policy, rollouts)
    seeds = functools.partial(_probe_seeds, config.seed, own)
    return Arm(
        config=config,
        training=training,
        accelerator=accelerator,
        task=task,
        policy=policy,
        model=policy.model,
        ascent=ascent,
        reference=ascent.weights(),
        engine=draws,
        prompts=policy.encode([question.prompt for question in task.questions]),
        own=own,
        measure=Measure(
            method,
            config.measurement,
            task,
            [task.questions[i] for i in own],
            policy,
            draws,
            seeds,
            enumerated=sums_over_answers(config),
        ),
        values=torch.zeros(len(task.questions), dtype=torch.float64),
        compiled=compiled_forward(policy.model) if options.compile else None,
    )


def _probe_seeds(seed: int, own: list[int], iteration: int) -> list[int]:
    return [own_seed(seed, PROBES, iteration, question) for question in own]


def _require_shares(config: RunConfig, training: Training, count: int, processes: int) -> None:
    """Refuse to share work of which some process would have nothing."""
    size = min(config.optimization.questions_per_step or count, count)
    if min(size, count % size or size) < processes:
        raise ValueError(
            f"processes must be at most as many as the questions of every step, got {processes} for {count} questions "
            f"in steps of {size}"
        )
    if training.advantage == "critic" and processes > 1:
        raise ValueError(f'processes must be 1 with advantage="critic", got {processes}')


def sums_over_answers(config: RunConfig) -> bool:
    """Return whether the update needs the probability of every possible answer, however p is measured."""
    return config.training.update != "sampled" or config.argmin


def _require_statistics(config: RunConfig, method: str, answers: int) -> None:
    """Refuse update rules that need more than this task can give."""
    most = config.measurement.most_answers
    if sums_over_answers(config) and answers > most:
        what = f'update="{config.training.update}"' + (" with inner_tolerance" if config.argmin else "")
        raise ValueError(
            f"measurement.most_answers must be at least the {answers} answers that are possible for {what}, which sums "
            f"over all of them, got {most}: raise it, take a task with shorter answers, or sample"
        )
    if config.training.has_exact_statistics and config.training.update == "sampled" and method == "sampled":
        raise ValueError(
            "normalization must be that of a group where p is not known exactly, got "
            f"{config.training.normalization!r}; take FiniteGroup, MeanOnly(group_size=G), or advantage = 'rloo'"
        )

"""The tables of a run's config that say how: [model], [optimization] and [measurement]."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_type_hints

from grpo_dynamics.arrays import require
from grpo_dynamics.config import build
from grpo_dynamics.training.policies import LoraOptions


@dataclasses.dataclass(frozen=True)
class ModelOptions:
    """The table [model]: which policy is trained. Its weights before training are π_ref.

    Args:
        path: a hub id or a folder.
        make: instead of ``path``: options of :func:`~grpo_dynamics.training.pretraining.make_model`, which makes a
            small model for the task of the run; an empty table takes its defaults.
        dtype: of the weights.
        device: None: what accelerate finds. Which of several GPUs is for CUDA_VISIBLE_DEVICES to say.
        threads: of PyTorch on a CPU; a small model is fastest, and the same on any number of cores, with 1. None: as
            many as PyTorch takes.
        lora: train low-rank adapters instead of all weights.
        gradient_checkpointing: compute activations again in the backward pass, to save memory.
        compile: compile the passes of training by torch.compile: the first of them takes a minute or more, the others
            less time than before where the model is large.
        attention: "causal" leaves out the masks of batches without padding, so that completions longer than a few
            tokens meet the fastest kernels of a GPU; "sdpa": as transformers has it.
        sharded: spread weights, gradients and the optimiser over the processes (FSDP); so does `accelerate launch` with
            FSDP in its config. One process does not mind.
        chat: whether prompts go through the tokenizer's chat template.
        pad_token, eos_token: the tokens that fill up and end, where the tokenizer names none.
    """

    path: str | None = None
    make: Any = None
    dtype: Literal["float32", "float64", "bfloat16", "float16"] = "float32"
    device: Literal["cpu", "cuda", "mps"] | None = None
    threads: int | None = None
    lora: LoraOptions | None = None
    gradient_checkpointing: bool = False
    compile: bool = False
    attention: Literal["sdpa", "causal"] = "sdpa"
    sharded: bool = False
    chat: bool = False
    pad_token: str | None = None
    eos_token: str | None = None

    def __post_init__(self) -> None:
        if (self.path is None) == (self.make is None):
            raise ValueError(f"model must have either path or make, got path={self.path!r}, make={self.make!r}")
        if self.make is not None and not isinstance(self.make, Mapping):
            raise ValueError(f"model.make must be a table of options, got {self.make!r}")
        if self.make is not None:
            build(model_options(), self.make, "model.make")
        if self.threads is not None and self.threads < 1:
            raise ValueError(f"model.threads must be an integer >= 1, got {self.threads}")


THE_RUNS_OWN = ("tell", "device", "deadline")
"""Arguments of make_model that are not the model's options: the run passes them."""


def model_options() -> type[Any]:
    """Return a dataclass with the options of :func:`~grpo_dynamics.training.pretraining.make_model` as its fields.

    >>> build(model_options(), {"layers": 2}, "model.make").hidden_size
    128
    """
    from grpo_dynamics.training.pretraining import make_model

    hints, known = get_type_hints(make_model), inspect.signature(make_model).parameters.values()
    options = [option for option in known if option.kind is option.KEYWORD_ONLY and option.name not in THE_RUNS_OWN]
    return dataclasses.make_dataclass("ModelOfTask", [(o.name, hints[o.name], o.default) for o in options])


@dataclasses.dataclass(frozen=True)
class Optimization:
    """The table [optimization]: how the weights move.

    Args:
        learning_rate: > 0.
        optimizer: "adamw" or "sgd".
        betas: of AdamW.
        weight_decay: of AdamW, ≥ 0.
        max_grad_norm: longer gradients are scaled down to this length; None: never.
        final_learning_rate: what the learning rate has fallen to at the end, as a share of itself: linearly over the
            iterations, or over each round of an inner loop.
        inner_tolerance: in nats, > 0: an iteration goes on until KL(π‖π*) to the maximiser π* of its objective is below
            it for every question. By Pinsker's inequality p is then within √(inner_tolerance/2) of p*. Needed for
            update="exact"; with "sampled" it asks for the argmin of each iteration's sampled objective.
        max_inner_steps: an inner loop that is not there after so many steps stops, and says so.
        round_steps: steps of one round of an inner loop, see :mod:`~grpo_dynamics.training.steps.inner_loop`.
        precision: "bf16" computes the passes through the network in bfloat16 (weights stay as they are).
        micro_batch_size: completions in one pass; the gradients of the passes are added up. None: all at once.
        questions_per_step: questions of one gradient step on samples; π_old stays frozen over the steps of an
            iteration. None: all questions.
    """

    learning_rate: float = 1e-3
    optimizer: Literal["adamw", "sgd"] = "adamw"
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.0
    max_grad_norm: float | None = None
    final_learning_rate: float = 1.0
    inner_tolerance: float | None = None
    max_inner_steps: int = 1000
    round_steps: int = 200
    precision: Literal["float32", "bf16"] = "float32"
    micro_batch_size: int | None = None
    questions_per_step: int | None = None

    def __post_init__(self) -> None:
        for name in ("learning_rate", "max_grad_norm", "inner_tolerance"):
            require_if_given(
                f"optimization.{name}", getattr(self, name), "a number > 0 and < 1e30", lambda x: (x > 0) & (x < 1e30)
            )
        for name in ("max_inner_steps", "round_steps", "micro_batch_size", "questions_per_step"):
            require_if_given(f"optimization.{name}", getattr(self, name), "an integer >= 1", lambda x: x >= 1)
        require_if_given("optimization.weight_decay", self.weight_decay, "a number >= 0", lambda x: x >= 0)
        require_if_given("optimization.betas", list(self.betas), "two numbers in [0, 1)", lambda x: (x >= 0) & (x < 1))
        require_if_given(
            "optimization.final_learning_rate", self.final_learning_rate, "in [0, 1]", lambda x: (x >= 0) & (x <= 1)
        )


@dataclasses.dataclass(frozen=True)
class Measurement:
    """The table [measurement]: how the success probability p of each question is found.

    Args:
        method: "enumerated": over all possible answers; "teacher_forced": over the right ones, where a task knows them;
            "sampled": from n answers, with a Wilson interval; "auto": the first of these that is possible.
        every: iterations between two measurements; the last iteration is always measured. 0: only that, and π_ref.
        samples: n.
        confidence: of the interval, in (0, 1).
        most_answers: so many possible answers are enumerated at most.
        completions_every: iterations between two whose completions are written, a row for each sample. 0: none.
    """

    method: Literal["auto", "enumerated", "teacher_forced", "sampled"] = "auto"
    every: int = 1
    samples: int = 64
    confidence: float = 0.95
    most_answers: int = 5000
    completions_every: int = 1

    def __post_init__(self) -> None:
        for name in ("every", "completions_every"):
            require_if_given(f"measurement.{name}", getattr(self, name), "an integer >= 0", lambda x: x >= 0)
        for name in ("samples", "most_answers"):
            require_if_given(f"measurement.{name}", getattr(self, name), "an integer >= 1", lambda x: x >= 1)
        require_if_given("measurement.confidence", self.confidence, "between 0 and 1", lambda x: (x > 0) & (x < 1))


def require_if_given(name: str, value: Any, allowed: str, test: Callable[[Any], Any]) -> None:
    """Check a value as ``arrays.require`` does; None is one that is not given."""
    if value is not None:
        require(name, value, allowed, test)

"""What the speed of training is measured on, and the columns of what was measured."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Mapping
from typing import Any, Literal

import polars as pl

from grpo_dynamics.arrays import require

TEXTS = ("part", "size", "what", "precision")
COUNTS = ("parameters", "group_size", "prompts", "repeats", "peak_memory_bytes")
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
SCHEMA: dict[str, Any] = {
    **dict.fromkeys(TEXTS, pl.String),
    **dict.fromkeys(COUNTS, pl.Int64),
    **dict.fromkeys(NUMBERS, pl.Float64),
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is measured on.

    Args:
        device: "cuda" or "cpu".
        threads: of PyTorch on a CPU; None: as many as it takes.
        precision: of the layers in the update; what a row was computed in is in its column of this name.
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

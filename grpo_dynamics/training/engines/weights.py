"""Weights on their way from the trainer to a sampling engine, and the proof that they arrived."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.05, torch.float16: 0.05}
"""Mean |difference| of log-probabilities that two right computations may have. Seen: 2e-7 and 2.5e-3."""
SINGLE = 10.0
"""A single token may be off by this many times the tolerance of the mean."""


@dataclasses.dataclass(frozen=True)
class PushReport:
    """What a push of weights took and how well it went.

    Attributes:
        max_difference: largest |log-probability of the engine − torch's| over the compared tokens, in nats.
        mean_difference: its mean.
        seconds: of the push and the comparison.
        checked: how many tokens were compared; 0 where engine and trainer share one model.
    """

    max_difference: float
    mean_difference: float
    seconds: float
    checked: int


def merged_weights(model: Any) -> Iterator[tuple[str, Tensor]]:
    """Names and tensors of a causal LM as its checkpoint would have them, LoRA adapters added in.

    Tied weights come once, under the first of their names. The model is not touched: merging in place and undoing it
    would round the weights that are being trained. Sharded tensors are gathered, so every process has to call this.
    """
    adapters: dict[str, Any] = {}
    if hasattr(model, "peft_config"):
        model = model.base_model.model
        adapters = {name: m for name, m in model.named_modules() if hasattr(m, "get_delta_weight")}
    for name, parameter in model.named_parameters():
        if ".lora_" in name or ".original_module." in name or "lora_magnitude_vector" in name:
            continue
        tensor = parameter.detach()
        if hasattr(tensor, "full_tensor"):
            tensor = tensor.full_tensor()
        owner, _, leaf = name.rpartition(".base_layer.")
        if owner in adapters and leaf == "weight" and not adapters[owner].disable_adapters:
            for adapter in adapters[owner].active_adapters:
                tensor = tensor + adapters[owner].get_delta_weight(adapter).detach().to(tensor.dtype)
        name = name.replace(".base_layer.", ".")
        if ".modules_to_save." in name:
            before, _, after = name.partition(".modules_to_save.")
            name = f"{before}.{after.partition('.')[2]}"
        yield name, tensor


def probes(vocabulary: int, longest: int, device: torch.device | str = "cpu") -> list[list[int]]:
    """Return four fixed sequences of random tokens, to compare an engine with before it has drawn anything.

    >>> [len(probe) for probe in probes(100, longest=8)]
    [8, 8, 8, 8]
    """
    generator = torch.Generator().manual_seed(0)
    return torch.randint(vocabulary, (4, min(16, longest)), generator=generator).tolist()


@torch.no_grad()
def teacher_forced(model: Any, sequences: Sequence[Sequence[int]]) -> Tensor:
    """Log-probabilities that the model gives to the tokens of each sequence but its first, one after the other."""
    training = model.training
    model.eval()
    try:
        rows: list[Tensor] = []
        for sequence in sequences:  # one at a time: no padding, so nothing that padding could get wrong
            ids = torch.tensor([list(sequence)], device=next(model.parameters()).device)
            log_probs = model(input_ids=ids, use_cache=False).logits[0, :-1].float().log_softmax(-1)
            rows.append(log_probs.gather(1, ids[0, 1:, None])[:, 0].cpu())
        return torch.cat(rows)
    finally:
        model.train(training)


def checked_push(
    engine: str,
    push: Callable[[], None],
    score: Callable[[Sequence[Sequence[int]]], Tensor],
    model: Any,
    sequences: Sequence[Sequence[int]],
    tolerance: float,
) -> PushReport:
    """Push the weights, then compare the engine's log-probabilities of a few sequences with torch's.

    Args:
        engine: its name, for the error.
        push: brings the weights of ``model`` to the engine.
        score: the engine's log-probabilities of every token but the first of each sequence, one after the other.
        model: the torch model the weights come from.
        sequences: token ids, at least two each.
        tolerance: bound on the mean |difference|; a single token may be off by ten times that.

    Raises:
        RuntimeError: if they do not agree; the run must not go on with samples of another policy.
    """
    start = time.perf_counter()
    push()
    theirs, ours = score(sequences), teacher_forced(model, sequences)
    difference = (theirs - ours).abs()
    largest, mean = float(difference.max()), float(difference.mean())
    if not (mean <= tolerance and largest <= SINGLE * tolerance):  # so that NaN fails, too
        raise RuntimeError(
            f"the weights did not reach the {engine} engine: after the push its log-probabilities differ from torch's "
            f"by {mean:.2g} on average and {largest:.2g} at most, allowed are {tolerance:.2g} and "
            f"{SINGLE * tolerance:.2g}; its samples would not be those of the policy"
        )
    return PushReport(largest, mean, time.perf_counter() - start, len(difference))

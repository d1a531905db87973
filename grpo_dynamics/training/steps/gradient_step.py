"""One gradient step on a batch of completions: forward passes, the loss as trainers code it, the weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from grpo_dynamics.training.advantages import k1_in_reward
from grpo_dynamics.training.arm import Arm
from grpo_dynamics.training.kl import token_kl
from grpo_dynamics.training.losses import policy_loss, pooled
from grpo_dynamics.training.policies import next_log_probs, shared_log_probs
from grpo_dynamics.training.steps.batches import Batch, Part


def gradient_step(arm: Arm, batch: Batch, learning_rate: float) -> dict[str, Any]:
    """Move the weights once; return the loss and what there is to watch, over all processes.

    Nothing is computed twice: π_ref's log-probabilities are kept in the batch for the next of the μ steps, and π_old's
    are those of the first forward pass, which has not moved yet.
    """
    if _needs_reference(arm) and batch.log_ref is None:
        with arm.at_reference():
            batch.log_ref = log_probs_of(arm, batch)
    whole, size = arm.ascent.total(batch.divisor), arm.config.optimization.micro_batch_size
    losses, watched, old = list[float](), list[dict[str, float]](), list[Tensor]()

    def loss_of(part: Part) -> Tensor:
        exact_kl = _exact_kl(arm, batch, part) if arm.training.kl == "exact" else None
        with arm.forward():
            log_p = _log_probs(arm, batch, part)
        old.append(_as_wide_as(batch.mask, log_p.detach()))
        log_old = log_p.detach() if batch.log_old is None else part.of(batch.log_old)
        rows, here = part.rows, batch.row[part.rows] - part.completions.start
        loss = policy_loss(
            log_p[here],
            log_old[here],
            batch.advantages[rows],
            part.of(batch.mask)[here],
            arm.training,
            log_ref=None if batch.log_ref is None else part.of(batch.log_ref)[here],
            weights=batch.weights[rows],
            divisor=whole,
            exact_kl=None if exact_kl is None else exact_kl[here],
        )
        losses.append(float(loss.value.detach()))
        watched.append(loss.metrics)
        return loss.value

    parts = [lambda part=part: loss_of(part) for part in batch.parts(size)]
    norm = arm.ascent.step(parts, learning_rate)
    if batch.log_old is None and old:
        batch.log_old = torch.cat(old)
    metrics = pooled(arm.gathered(watched))
    named = {"kl": "mean_kl", "clip_fraction": "clip_fraction", "mean_ratio": "mean_ratio"}
    found = {name: metrics.get(key) for name, key in named.items()}
    return {"loss": arm.ascent.total(sum(losses)), "grad_norm": norm, "learning_rate": learning_rate, **found}


def require_log_old(arm: Arm, batches: Sequence[Batch]) -> None:
    """Compute π_old's log-probabilities while it is still the policy; k1 in the reward then joins the advantages."""
    for batch in batches:
        with torch.no_grad():
            batch.log_old = log_probs_of(arm, batch)
            if arm.training.kl == "exact" and float(arm.training.alpha) < 1:
                for part in batch.parts(arm.config.optimization.micro_batch_size):
                    batch.next_old[part.completions.start] = _next(arm, _prefixes(batch, part)[0])
        if arm.training.kl == "k1_in_reward":
            with arm.at_reference():
                batch.log_ref = log_probs_of(arm, batch)
            penalty = k1_in_reward(batch.log_old, batch.log_ref, batch.mask, arm.training)[:, 0]
            batch.advantages = batch.advantages - penalty[batch.row]


def log_probs_of(arm: Arm, batch: Batch) -> Tensor:
    """Return the log-probabilities of all completions of a batch under the weights as they are, (U, T)."""
    with arm.forward():
        size = arm.config.optimization.micro_batch_size
        found = [_as_wide_as(batch.mask, _log_probs(arm, batch, part)) for part in batch.parts(size)]
    return torch.cat(found) if found else batch.mask.new_zeros(batch.mask.shape, dtype=torch.float32)


def _log_probs(arm: Arm, batch: Batch, part: Part) -> Tensor:
    return shared_log_probs(arm.model, part.prompts, part.of(batch.completions), part.of(batch.mask), part.owner)


def _as_wide_as(mask: Tensor, values: Tensor) -> Tensor:
    """Values of the tokens of a pass, with zeros up to the width of the batch."""
    return torch.nn.functional.pad(values, (0, mask.shape[-1] - values.shape[-1]))


def _needs_reference(arm: Arm) -> bool:
    return arm.training.kl not in ("exact", "none", "k1_in_reward") and float(arm.training.alpha) > 0


def _exact_kl(arm: Arm, batch: Batch, part: Part) -> Tensor:
    """The exact KL of the next token at every prefix of the completions, (u, T), with the gradient of π."""
    prefixes, index = _prefixes(batch, part)
    alpha, key = float(arm.training.alpha), part.completions.start
    if alpha > 0 and key not in batch.next_ref:
        with arm.at_reference():
            batch.next_ref[key] = _next(arm, prefixes)
    now = _next(arm, prefixes)
    old = batch.next_old.setdefault(key, now.detach()) if alpha < 1 else now
    kl = torch.zeros_like(now[:, 0])
    if alpha > 0:
        kl = kl + alpha * token_kl(now, batch.next_ref[key])
    if alpha < 1:
        kl = kl + (1 - alpha) * token_kl(now, old)
    return kl[torch.tensor(index, device=kl.device)]


def _prefixes(batch: Batch, part: Part) -> tuple[list[list[int]], list[list[int]]]:
    """The different beginnings of the completions of a pass, and which one comes before each of their tokens."""
    owner, rows = part.owner.tolist(), part.of(batch.completions).tolist()
    lengths = part.of(batch.mask).sum(-1).tolist()
    place: dict[tuple[int, ...], int] = {}
    index = [
        [place.setdefault((*part.prompts[q], *ids[:t]), len(place)) if t < length else 0 for t in range(len(ids))]
        for q, ids, length in zip(owner, rows, lengths, strict=True)
    ]
    return [list(prefix) for prefix in place], index


def _next(arm: Arm, prefixes: list[list[int]]) -> Tensor:
    with arm.forward():
        return next_log_probs(arm.model, prefixes)

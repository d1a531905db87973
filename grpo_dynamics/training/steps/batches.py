"""What one gradient step on samples sees: different completions, each once, with advantages and multiplicities.

A batch that is sampled from π_old, and one of all possible answers weighted with π_old, look the same to the loss.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import torch
from torch import Tensor

from grpo_dynamics.training.losses import divisor
from grpo_dynamics.training.rollouts import Unique
from grpo_dynamics.training.steps.expectation import Answers
from grpo_dynamics.update_rule import Training


@dataclasses.dataclass(eq=False)
class Batch:
    """U different completions of P prompts, and R rows of the loss, which stand on completions.

    Equal completions of a question with equal advantages are one row with a weight; with different advantages, as
    those of different groups, they are rows on the same completion.

    Attributes:
        prompts: token ids of P prompts.
        owner: the prompt of each completion, (U,).
        completions: token ids (U, T).
        mask: bool (U, T).
        row: the completion of each row, (R,).
        advantages: of each row, (R,).
        weights: how many samples a row stands for, (R,).
        divisor: of the loss: this process's part of it, with all samples, those left out for having no gradient too.
        log_old: log-probabilities under π_old, (U, T); None until they are known: on-policy, the first forward pass
            of the step itself says them.
        log_ref: under π_ref, (U, T), where the loss asks.
        kept: which of the completions that were drawn these are, (U,); None: all.
        next_old, next_ref: next-token log-probabilities of π_old and π_ref at the prefixes of each pass, by its start,
            where the loss asks.
    """

    prompts: list[list[int]]
    owner: Tensor
    completions: Tensor
    mask: Tensor
    row: Tensor
    advantages: Tensor
    weights: Tensor
    divisor: float
    log_old: Tensor | None = None
    log_ref: Tensor | None = None
    kept: Tensor | None = None
    next_old: dict[int, Tensor] = dataclasses.field(default_factory=dict[int, Tensor])
    next_ref: dict[int, Tensor] = dataclasses.field(default_factory=dict[int, Tensor])

    def parts(self, size: int | None) -> Iterator[Part]:
        """Cut the batch into passes of at most ``size`` completions, each as wide as its longest."""
        total = len(self.completions)
        for start in range(0, total, size or max(total, 1)):
            stop = min(start + (size or total), total)
            rows = (self.row >= start) & (self.row < stop)
            asked, owner = torch.unique(self.owner[start:stop], return_inverse=True)
            width = max(1, int(self.mask[start:stop].sum(-1).max()))
            prompts = [self.prompts[q] for q in asked.tolist()]
            yield Part(slice(start, stop), owner, prompts, rows.nonzero()[:, 0], width)


@dataclasses.dataclass(frozen=True, eq=False)
class Part:
    """One pass of a batch.

    Attributes:
        completions: which of the completions.
        owner: the prompt of each, a number in ``prompts``, (u,).
        prompts: token ids of their prompts.
        rows: the rows that stand on them.
        width: tokens of the longest: what lies beyond is padding.
    """

    completions: slice
    owner: Tensor
    prompts: list[list[int]]
    rows: Tensor
    width: int

    def of(self, values: Tensor) -> Tensor:
        """Return the part of what there is for each token of each completion, (U, T), that the pass needs."""
        return values[self.completions, : self.width]


def sampled_batch(
    prompts: list[list[int]], same: Unique, advantages: Tensor, training: Training, by_length: bool = False
) -> Batch:
    """Return the batch of sampled groups.

    Args:
        prompts: token ids of the questions.
        same: their completions, joined where they are equal.
        advantages: of each sample, (Q, M).
        training: what the loss is divided by, and whether a row without an advantage has a gradient: without a KL term
            in the loss it has none, and costs nothing.
        by_length: put the completions in the order of their lengths, so that those of one pass are about equally long
            and little of it is padding; else they stand by prompt, which is then computed in one pass only.
    """
    pairs = torch.stack((same.index.flatten().double(), advantages.flatten().double()), dim=1)
    rows, counts = torch.unique(pairs, dim=0, return_counts=True)
    row, advantage = rows[:, 0].long(), rows[:, 1]
    whole = divisor(same.mask, training, same.counts)
    if training.kl == "none":
        row, advantage, counts = row[advantage != 0], advantage[advantage != 0], counts[advantage != 0]
    used, row = torch.unique(row, return_inverse=True)
    if by_length:
        order = same.mask[used].sum(-1).argsort(stable=True)
        used, row = used[order], order.argsort()[row]
    owner = same.question[used]
    asked, owner = torch.unique(owner, return_inverse=True)
    return Batch(
        prompts=[prompts[q] for q in asked.tolist()],
        owner=owner,
        completions=same.completions[used],
        mask=same.mask[used],
        row=row,
        advantages=advantage.float(),
        weights=counts,
        divisor=whole,
        kept=used,
    )


def expected_batch(
    prompts: list[list[int]], answers: Answers, log_old: Tensor, advantages: Tensor, training: Training
) -> Batch:
    """Return the batch of all answers, each as often as π_old says it: what infinitely many groups would be.

    Args:
        prompts: token ids of Q questions.
        answers: all S that are possible.
        log_old: log π_old of each, (Q, S).
        advantages: expected advantage of each, (Q, S).
        training: what the loss is divided by.
    """
    questions, count = log_old.shape
    device = log_old.device
    mask = answers.mask.to(device).repeat(questions, 1)
    weights = log_old.exp().flatten()
    return Batch(
        prompts=prompts,
        owner=torch.arange(questions, device=device).repeat_interleave(count),
        completions=answers.tokens.to(device).repeat(questions, 1),
        mask=mask,
        row=torch.arange(questions * count, device=device),
        advantages=advantages.flatten().float(),
        weights=weights,
        divisor=divisor(mask, training, weights),
    )

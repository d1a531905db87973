"""The distinct lines of a corpus as tensors on the model's device, cut into passes that fit into memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from grpo_dynamics.training.likelihoods import shared_log_probs
from grpo_dynamics.training.policies import Policy
from grpo_dynamics.training.sources.corpus import Corpus
from grpo_dynamics.training.tasks import Task

LINES_AT_ONCE = 4096
"""Most lines of one pass, however small the model."""

BYTES_AT_ONCE = 12 * 2**30
"""What a pass may keep for its backward pass."""

KEPT = 45
"""Numbers that a Llama layer keeps per position, in widths of the model: norms, q, k, v, scores, the gated layer."""


@dataclasses.dataclass(frozen=True, eq=False)
class Lines:
    """The distinct lines of a corpus, as the model reads them.

    Attributes:
        prompts: token ids of all questions, Q lists.
        completions: answers with their end token, (B, T), as ``shared_log_probs`` takes them.
        mask: where a token stands, bool (B, T).
        prompt_of: the question of each line, (B,), ascending.
        share: of each line in all lines, float64 (B,).
        right: whether its answer is right, bool (B,).
        cuts: where the passes begin and end: at most so many lines as memory holds.
    """

    prompts: list[list[int]]
    completions: Tensor
    mask: Tensor
    prompt_of: Tensor
    share: Tensor
    right: Tensor
    cuts: tuple[tuple[slice, slice], ...]

    @staticmethod
    def of(policy: Policy, task: Task, corpus: Corpus) -> Lines:
        """Return the lines of a corpus, on the device of a policy."""
        texts = policy.tokenizer(list(corpus.completion), add_special_tokens=False)["input_ids"]
        ids = [(*text, policy.eos_id)[: task.max_completion_tokens] for text in texts]
        width, device = max(map(len, ids)), policy.device
        count = torch.tensor(corpus.count, dtype=torch.float64)
        prompts = policy.encode([question.prompt for question in task.questions])
        size = _lines_at_once(policy.model.config, max(map(len, prompts)) + width)
        cuts: list[tuple[slice, slice]] = []
        for start in range(0, len(ids), size):
            stop = min(start + size, len(ids))
            cuts.append((slice(start, stop), slice(corpus.question[start], corpus.question[stop - 1] + 1)))
        return Lines(
            prompts=prompts,
            completions=torch.tensor([[*line, *[policy.pad_id] * (width - len(line))] for line in ids], device=device),
            mask=(torch.arange(width) < torch.tensor([len(line) for line in ids])[:, None]).to(device),
            prompt_of=torch.tensor(corpus.question, device=device),
            share=(count / count.sum()).to(device),
            right=torch.tensor(corpus.right, device=device),
            cuts=tuple(cuts),
        )

    def log_probs(self, model: Any) -> Tensor:
        """Return the log-probability of every line's answer, without a gradient, float64 (B,)."""
        with torch.no_grad():
            return torch.cat([log_p.double() for _, log_p in self._passes(model)])

    def log_probs_with_gradient(self, model: Any) -> Tensor:
        """Return the same; the gradient of the cross-entropy is added to that of the weights, pass by pass."""
        found: list[Tensor] = []
        for part, log_p in self._passes(model):
            (-(self.share[part].to(log_p.dtype) * log_p).sum()).backward()
            found.append(log_p.detach().double())
        return torch.cat(found)

    def _passes(self, model: Any) -> Iterator[tuple[slice, Tensor]]:
        for part, asked in self.cuts:
            owner = self.prompt_of[part] - asked.start
            log_p = shared_log_probs(model, self.prompts[asked], self.completions[part], self.mask[part], owner)
            yield part, log_p.sum(1)

    def divergence(self, log_p: Tensor) -> float:
        """Return the mean over the questions of KL(corpus‖model), in nats, from the lines' log-probabilities."""
        return -float((self.share * log_p).sum()) - self.entropy

    @property
    def entropy(self) -> float:
        """The conditional entropy of answers given their question: the least that the cross-entropy can be."""
        of_question = self._sums(self.share)
        return -float(torch.xlogy(self.share, self.share / of_question[self.prompt_of]).sum())

    def success(self, log_p: Tensor) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Return the probability of the right answers to every question, shape (Q,)."""
        return self._sums(log_p.exp() * self.right).cpu().numpy()

    def tokens(self) -> int:
        """Return how many tokens a step computes: prompts once in each pass, of a line all but its last token."""
        asked = sum(len(prompt) for _, some in self.cuts for prompt in self.prompts[some])
        return asked + int(self.mask[:, 1:].sum())

    def _sums(self, of_line: Tensor) -> Tensor:
        total = torch.zeros(len(self.prompts), dtype=torch.float64, device=self.share.device)
        return total.index_add_(0, self.prompt_of, of_line)


def _lines_at_once(config: Any, length: int) -> int:
    """Return how many lines of a length a pass may have, at four bytes a number."""
    kept = 4 * KEPT * config.hidden_size * config.num_hidden_layers * length
    return max(1, min(LINES_AT_ONCE, BYTES_AT_ONCE // kept))

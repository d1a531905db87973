"""Questions with the tree of all their answers, as tensors on the model's device: made once, read in every pass.

A pass over every prefix as a sequence of its own would compute each prompt of P tokens N times, as often as there are
prefixes. A Llama with PyTorch's own attention computes the prompt and each node of the tree once, in one sequence of
P + N − 1 tokens: a node sees the prompt, the nodes on the way to it, and itself, and its position is its depth. Other
models, and those of whose attention nothing is known here, take the long way. Where answers have one token, the only
prefix is the empty one, and both are a pass over the prompts.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaForCausalLM

from grpo_dynamics.training.likelihoods import core_model, last_logits, left_padded
from grpo_dynamics.training.steps.expectation import Answers

MASKED = ("sdpa", "sdpa_lower_right")
"""Kinds of attention that take a mask of their caller's as it is: PyTorch's own, and ours, which is that one then."""


@dataclasses.dataclass(frozen=True, eq=False)
class AnswerTree:
    """Q questions and the N prefixes of their S answers, a prompt being P tokens long at most.

    Attributes:
        prompts: token ids, left-padded, (Q, P).
        attention: 1 on the tokens of the prompts, (Q, P); None where all are of one length.
        prefixes: the N beginnings of answers, the empty one first, level by level.
        nodes: the last token of each prefix but the empty one, (N−1,).
        depth: its length, (N−1,).
        ancestry: bool (N, N): whether the second prefix is a beginning of the first, or it.
        branches: how many longer prefixes each prefix has that has any.
        leaf: where the last token of each answer is in a table of (N prefixes, V tokens): both numbers, (2, S).
    """

    prompts: Tensor
    attention: Tensor | None
    prefixes: list[list[int]]
    nodes: Tensor
    depth: Tensor
    ancestry: Tensor
    branches: int
    leaf: Tensor

    @staticmethod
    def of(prompts: Sequence[Sequence[int]], answers: Answers, device: torch.device | str = "cpu") -> AnswerTree:
        """Lay out the prompts, Q non-empty lists of token ids, and their answers."""
        ids, attention = left_padded(prompts, device)
        prefixes, last = answers.prefixes, answers.mask.sum(-1, keepdim=True) - 1
        place = {tuple(prefix): i for i, prefix in enumerate(prefixes)}
        ancestry = torch.zeros(len(prefixes), len(prefixes), dtype=torch.bool)
        for i, prefix in enumerate(prefixes):
            ancestry[i, [place[tuple(prefix[:t])] for t in range(len(prefix) + 1)]] = True
        return AnswerTree(
            prompts=ids,
            attention=attention,
            prefixes=prefixes,
            nodes=torch.tensor([prefix[-1] for prefix in prefixes[1:]], dtype=torch.long, device=device),
            depth=torch.tensor([len(prefix) for prefix in prefixes[1:]], dtype=torch.long, device=device),
            ancestry=ancestry.to(device),
            branches=sum(len(prefix) == 1 for prefix in prefixes),
            leaf=torch.cat((answers.prefix_of.gather(1, last), answers.tokens.gather(1, last)), 1).T.to(device),
        )

    def parts(self, completions: int | None) -> list[AnswerTree]:
        """Cut the questions into passes of so many answers at most, but of one question at least."""
        count = len(self.prompts)
        size = count if completions is None else max(completions // self.leaf.shape[1], 1)
        return [self._some(slice(start, start + size)) for start in range(0, count, size)]

    def _some(self, which: slice) -> AnswerTree:
        attention = None if self.attention is None else self.attention[which]
        return dataclasses.replace(self, prompts=self.prompts[which], attention=attention)

    def log_probs(self, model: Any) -> Tensor:
        """Return log π of every answer to every question, float64 of shape (Q, S); gradients flow to the model."""
        logits = self._in_one_sequence(model) if self._fits(model) else self._one_by_one(model)
        step = logits.double().log_softmax(-1)  # in float32 the probabilities would add up to 1 ± 1e-7 only
        return self._chained(step)

    def _fits(self, model: Any) -> bool:
        core = core_model(model)
        return isinstance(core, LlamaForCausalLM) and getattr(core.config, "_attn_implementation", "") in MASKED

    def _in_one_sequence(self, model: Any) -> Tensor:
        """The logits after each prefix, (Q, N, V)."""
        ids, mask, positions = self._packed
        return last_logits(model, ids, mask, keep=len(self.prefixes), positions=positions)

    @functools.cached_property
    def _packed(self) -> tuple[Tensor, Tensor, Tensor]:
        """Prompts and trees: token ids (Q, T), which token sees which (Q, 1, T, T), and positions (Q, T).

        The mask is written out where transformers could do without: to find that out, it would wait for the device.
        """
        count, longest = self.prompts.shape
        ids = torch.cat((self.prompts, self.nodes.expand(count, -1)), dim=1)
        there = torch.ones_like(self.prompts) if self.attention is None else self.attention
        positions = (there.cumsum(1) - 1).clamp(min=0)
        positions = torch.cat((positions, positions[:, -1:] + self.depth), dim=1)
        # the last token of a prompt is the root of the tree; all that comes before it every node sees
        size = longest - 1 + len(self.prefixes)
        sees = torch.ones((size, size), dtype=torch.bool, device=ids.device).tril()
        sees[longest - 1 :, longest - 1 :] = self.ancestry
        if self.attention is None:
            return ids, sees.expand(count, 1, size, size), positions
        real = torch.cat((there, there.new_ones((count, len(self.nodes)))), dim=1).bool()
        itself = torch.eye(size, dtype=torch.bool, device=ids.device)  # padding, too, must see something
        return ids, ((sees & real[:, None, :]) | itself)[:, None], positions

    def _one_by_one(self, model: Any) -> Tensor:
        """The same from a sequence for each question and prefix."""
        ids, attention = self._sequences
        return last_logits(model, ids, attention, keep=1).reshape(len(self.prompts), len(self.prefixes), -1)

    @functools.cached_property
    def _sequences(self) -> tuple[Tensor, Tensor | None]:
        there = torch.ones_like(self.prompts) if self.attention is None else self.attention
        real = [ids[shown].tolist() for ids, shown in zip(self.prompts, there.bool(), strict=True)]
        return left_padded([[*prompt, *prefix] for prompt in real for prefix in self.prefixes], self.prompts.device)

    def _chained(self, step: Tensor) -> Tensor:
        """The chain rule: log π of the answers, (Q, S), from that of the next token after each prefix, (Q, N, V).

        Every number is taken from its table once, so that gradients need no sums over equal places.
        """
        table, vocabulary = step.flatten(1), step.shape[-1]
        known, above, first = [step.new_zeros((len(step), 1))], 0, 1
        while first < len(self.prefixes):
            parents = known[-1].shape[1]
            level = slice(first - 1, first - 1 + parents * self.branches)
            parent = torch.arange(above, above + parents, device=step.device).repeat_interleave(self.branches)
            said = table.index_select(1, parent * vocabulary + self.nodes[level])
            known.append(known[-1].repeat_interleave(self.branches, dim=1) + said)
            above, first = first, first + parents * self.branches
        whole = (torch.cat(known, dim=1)[:, :, None] + step).flatten(1)
        return whole.index_select(1, self.leaf[0] * vocabulary + self.leaf[1])

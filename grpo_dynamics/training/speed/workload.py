"""Work to measure trainers by: random prompts, a model with random weights that says random completions, any reward.

Neither text nor reward means anything; how long prompts and completions are, and how large the model is, decides the
speed. A model with random weights says every token with about the same probability, so that it ends a completion after
a random number of tokens whose mean is the size of its vocabulary, unless the limit comes first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from grpo_dynamics.training.new_model import new_policy
from grpo_dynamics.training.policies import Policy
from grpo_dynamics.training.rollouts import Samples
from grpo_dynamics.training.sources.corpus import Corpus
from grpo_dynamics.training.tasks import Question, Task
from grpo_dynamics.training.verifiers import Verdict, verdict

FIRST = 0x4E00
"""Code point of the first character: each of the block that begins here is a letter of its own."""


def first_half(questions: Sequence[Any], completions: Sequence[str]) -> list[Verdict]:
    """Judge: right are completions that begin with an even character, about half of them."""
    return [verdict(bool(text) and ord(text[0]) % 2 == 0) for text in completions]


def random_task(prompts: int, prompt_tokens: int, completion_tokens: int, letters: int, seed: int = 0) -> Task:
    """Return prompts of random letters, each so many tokens long with the token that begins a text.

    >>> task = random_task(3, 8, 5, letters=20)
    >>> len(task.questions), {len(question.prompt) for question in task.questions}
    (3, {7})
    """
    drawn = np.random.default_rng(seed).integers(letters, size=(prompts, prompt_tokens - 1))
    texts = ["".join(chr(FIRST + int(i)) for i in row) for row in drawn]
    questions = tuple(Question(str(i), text, chr(FIRST)) for i, text in enumerate(texts))
    return Task("random", questions, first_half, completion_tokens)


def random_policy(
    task: Task, letters: int, hidden_size: int, layers: int, head_size: int, device: Any, seed: int = 0
) -> Policy:
    """Return a model with random weights whose tokens are the letters and three more."""
    alphabet = "".join(chr(FIRST + i) for i in range(letters))
    nothing = Corpus(np.zeros(0), (), (alphabet,), (0,), (False,))
    return new_policy(task, nothing, hidden_size, layers, seed, head_size, device)


def random_samples(
    policy: Policy, prompts: list[list[int]], group_size: int, lengths: tuple[int, int], seed: int = 0
) -> Samples:
    """Return completions of random letters whose lengths are spread evenly between two bounds, each with its end."""
    generator = torch.Generator().manual_seed(seed)
    shape = (len(prompts), group_size)
    long = torch.randint(lengths[0], lengths[1] + 1, shape, generator=generator)
    longest = int(long.max())
    tokens = torch.randint(3, policy.vocabulary, (*shape, longest), generator=generator)  # 0, 1, 2 are special
    mask = torch.arange(longest) < long[..., None]
    tokens = tokens.masked_fill(~mask, policy.pad_id).scatter(2, long[..., None] - 1, policy.eos_id)
    return Samples(
        prompts=prompts,
        completions=tokens.to(policy.device),
        mask=mask.to(policy.device),
        log_probs=torch.zeros(tokens.shape, device=policy.device),
        finish_reason=[["eos"] * group_size for _ in prompts],
    )

"""Models with a handful of tokens, so that every completion can be enumerated and its probability computed."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from scipy import stats
from transformers import LlamaConfig, LlamaForCausalLM

from grpo_dynamics.training.engines.weights import teacher_forced

PAD, EOS = 0, 1


def llama(vocabulary: int = 4, seed: int = 0, positions: int = 64, tied: bool = True) -> Any:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=positions,
        tie_word_embeddings=tied,
        initializer_range=0.15,  # far from uniform
        pad_token_id=PAD,
        eos_token_id=EOS,
        bos_token_id=None,
    )
    return LlamaForCausalLM(config).eval()


def policy(model: Any) -> Any:
    return SimpleNamespace(model=model, pad_id=PAD, eos_id=EOS)


def outcomes(vocabulary: int, max_tokens: int) -> list[tuple[int, ...]]:
    """All completions: those that EOS ends, and those that the limit cuts off."""
    others = [token for token in range(vocabulary) if token != EOS]
    ended = [(*o, EOS) for n in range(max_tokens) for o in itertools.product(others, repeat=n)]
    return ended + list(itertools.product(others, repeat=max_tokens))


def probabilities(model: Any, prompt: list[int], completions: list[tuple[int, ...]]) -> np.ndarray:
    return np.array([float(completion_log_probs(model, prompt, c).double().sum().exp()) for c in completions])


def completion_log_probs(model: Any, prompt: list[int], completion: Any) -> torch.Tensor:
    return teacher_forced(model, [[*prompt, *completion]])[len(prompt) - 1 :]


def largest_difference(model: Any, samples: Any) -> float:
    """Largest |log-probability of the engine − torch's| over all tokens of all samples."""
    return max(
        float(
            (completion_log_probs(model, prompt, samples.ids(q, g)) - samples.log_probs[q, g][samples.mask[q, g]])
            .abs()
            .max()
        )
        for q, prompt in enumerate(samples.prompts)
        for g in range(samples.completions.shape[1])
    )


def counts(samples: Any, question: int, completions: list[tuple[int, ...]]) -> np.ndarray:
    where = {completion: i for i, completion in enumerate(completions)}
    drawn = [where[tuple(samples.ids(question, g))] for g in range(samples.completions.shape[1])]
    return np.bincount(drawn, minlength=len(completions))


def chi_square(observed: np.ndarray, probability: np.ndarray) -> float:
    """p-value of Pearson's test, outcomes that are expected less than five times put together."""
    expected = probability / probability.sum() * observed.sum()  # float32 adds up to one within 1e-7 only
    rare = expected < 5
    o, e = np.append(observed[~rare], observed[rare].sum()), np.append(expected[~rare], expected[rare].sum())
    keep = e > 0
    return float(stats.chisquare(o[keep], e[keep]).pvalue)

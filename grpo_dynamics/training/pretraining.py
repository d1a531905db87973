"""Small language models, made on the spot: a Llama with a character tokenizer, pre-trained on a noisy corpus of a task.

The corpus has right and wrong answers to every question, right ones with a frequency between 0.0007 and 0.995. The
model reads it as any model reads its corpus, by cross-entropy on the answers, until it has learned these frequencies;
what it then says is its own p_ref, which is measured and written down. Lines that repeat are computed once, with their
count.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import math
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from grpo_dynamics import provenance
from grpo_dynamics.training.likelihoods import shared_log_probs
from grpo_dynamics.training.policies import Policy, bars_on_terminals_only
from grpo_dynamics.training.sources.corpus import Corpus, noisy_corpus
from grpo_dynamics.training.sources.tokenizers import BOS, EOS, PAD, character_tokenizer
from grpo_dynamics.training.tasks import Task, require_whole

HEAD = 32
"""Width of an attention head: the smallest that every engine has kernels for."""

BINS = ((0.001, 0.01), (0.01, 0.1), (0.1, 0.9), (0.9, 0.99))
"""In each of these lies p_ref of some question, or the model is not done."""

QUANTILES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
PACKAGES = (*provenance.BASE, "torch", "transformers", "tokenizers")
LINES_AT_ONCE = 4096

Progress = Callable[[int, int, str], None]


def _silent(done: int, total: int, what: str) -> None:
    """Say nothing."""


def make_model(
    task: Task,
    out: str | os.PathLike[str],
    *,
    hidden_size: int = 128,
    layers: int = 3,
    seed: int = 0,
    steps: int = 600,
    lines: int = 10_000,
    wrong: int = 6,
    lowest: float = 0.0007,
    highest: float = 0.995,
    tell: Progress = _silent,
) -> Path:
    """Make a small Llama and its tokenizer, pre-train it on a task, save both, and return the folder.

    Beside the model lie manifest.json (settings, versions, seconds, p_ref of the questions) and corpus.parquet. The
    same seed gives the same model on one machine. A folder that holds the model of the same settings is left as it is.

    Args:
        task: of which the model is to know something.
        out: the folder: a new one, or an empty one.
        hidden_size: a multiple of 32; 128 with 3 layers is 0.5 million parameters, 256 with 6 is 3.9 million.
        layers: ≥ 1.
        seed: of the corpus and of the weights.
        steps: most steps of the pre-training; it ends where the corpus is learned.
        lines: of each question in the corpus.
        wrong: most distinct wrong answers of a question.
        lowest: frequency of right answers to the hardest question.
        highest: and to the easiest.
        tell: is told (done, total, what) while it goes on.

    Raises:
        ValueError: for an option out of its range, a folder that holds something else, or if the steps are too few.
        OSError: if the folder cannot be written; nothing is left behind.
    """
    require_whole("layers", layers, 1)
    require_whole("steps", steps, 1)
    if isinstance(hidden_size, bool) or hidden_size < HEAD or hidden_size % HEAD:
        raise ValueError(f"hidden_size must be a multiple of {HEAD}, got {hidden_size!r}")
    sizes = {"hidden_size": hidden_size, "layers": layers, "seed": seed, "steps": steps}
    spread = {"lines": lines, "wrong": wrong, "lowest": lowest, "highest": highest}
    settings = {"task": task.name, "questions": len(task.questions), "task_digest": digest(task), **sizes, **spread}
    folder = Path(out)
    if _is_made(folder, settings):
        return folder
    start = time.perf_counter()
    corpus = noisy_corpus(task, lines=lines, wrong=wrong, lowest=lowest, highest=highest, seed=seed)
    policy = new_policy(task, corpus, hidden_size, layers, seed)
    policy.check(task.texts())
    learned = pretrain(policy, task, corpus, steps, tell)
    manifest = {
        "config": settings,
        "versions": provenance.versions(PACKAGES),
        "commit": provenance.commit(),
        "hardware": provenance.hardware(),
        "seconds": round(time.perf_counter() - start, 1),
        "parameters": policy.model.num_parameters(),
        "vocabulary": policy.vocabulary,
        "steps": learned.steps,
        "divergence": learned.divergence,
        "p_ref": p_ref_summary(learned.p_ref),
    }
    _save(policy, corpus, task, manifest, folder)
    return folder


def digest(task: Task) -> str:
    """Return the SHA-256 of a task's questions and answers, and of how long these may be."""
    texts = [(q.id, q.prompt, q.answer, list(q.correct or ())) for q in task.questions]
    return provenance.digest(provenance.json_bytes([texts, task.max_completion_tokens]))


def new_policy(task: Task, corpus: Corpus, hidden_size: int, layers: int, seed: int) -> Policy:
    """Return a model with random weights and a tokenizer for every character of the task and the corpus."""
    tokenizer = character_tokenizer((*task.texts(), *corpus.completion))
    longest = 1 + max(len(q.prompt) for q in task.questions) + task.max_completion_tokens
    vocabulary = tokenizer.get_vocab()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        intermediate_size=2 * hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=hidden_size // HEAD,
        num_key_value_heads=hidden_size // HEAD,
        max_position_embeddings=max(64, 2 ** math.ceil(math.log2(longest))),
        tie_word_embeddings=True,
        pad_token_id=vocabulary[PAD],
        bos_token_id=vocabulary[BOS],
        eos_token_id=vocabulary[EOS],
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Policy(LlamaForCausalLM(config).eval(), tokenizer)


@dataclasses.dataclass(frozen=True, eq=False)
class Learned:
    """What the pre-training came to.

    Attributes:
        steps: that were taken.
        divergence: mean over the questions of KL(corpus‖model) of the answers, in nats.
        p_ref: the model's probability of the right answers (those in the corpus), shape (Q,).
    """

    steps: int
    divergence: float
    p_ref: np.ndarray[Any, np.dtype[np.float64]]


def pretrain(
    policy: Policy,
    task: Task,
    corpus: Corpus,
    steps: int,
    tell: Progress = _silent,
    *,
    learning_rate: float = 3e-3,
    tolerance: float = 0.01,
) -> Learned:
    """Teach a model the frequencies of a corpus: AdamW on the cross-entropy of all its answers.

    Args:
        policy: is changed.
        task: of the corpus.
        corpus: the lines and their counts.
        steps: most steps.
        tell: is told (done, total, what).
        learning_rate: at its peak; it falls to a tenth along a cosine.
        tolerance: done where KL(corpus‖model) per question is below this, and p_ref lies in each of ``BINS`` that a
            reliability of the corpus lies in.

    Raises:
        ValueError: if that is not so after so many steps.
    """
    lines = _Lines.of(policy, task, corpus)
    optimizer = torch.optim.AdamW(policy.model.parameters(), lr=learning_rate, betas=(0.9, 0.99), weight_decay=0.0)
    entropy, p_ref, divergence = lines.entropy(), np.zeros(0), math.inf
    for step in range(steps + 1):
        optimizer.zero_grad()
        log_p = lines.log_probs_with_gradient(policy)
        divergence = -float((lines.share * log_p).sum()) - entropy
        p_ref = lines.success(log_p)
        tell(step, steps, f"pre-training: {divergence:.4f} nats from the corpus")
        if divergence <= tolerance and _spreads(p_ref, corpus.reliability):
            return Learned(step, divergence, p_ref)
        for group in optimizer.param_groups:
            decay = 0.55 + 0.45 * math.cos(math.pi * step / steps)
            group["lr"] = learning_rate * min(1.0, (step + 1) / 20) * decay
        optimizer.step()
    raise ValueError(
        f"steps must be enough to learn the corpus to {tolerance:g} nats per question, got {steps}, which leave "
        f"{divergence:.2g}: more steps, a larger model, or fewer questions"
    )


@dataclasses.dataclass(frozen=True, eq=False)
class _Lines:
    """The distinct lines of a corpus, as the model reads them.

    ``share`` is a line's share of all lines, float64, shape (B,); the others are as ``shared_log_probs`` has them.
    """

    prompts: list[list[int]]
    completions: Tensor
    mask: Tensor
    prompt_of: Tensor
    share: Tensor
    right: Tensor

    @staticmethod
    def of(policy: Policy, task: Task, corpus: Corpus) -> _Lines:
        texts = policy.tokenizer(list(corpus.completion), add_special_tokens=False)["input_ids"]
        ids = [(*text, policy.eos_id)[: task.max_completion_tokens] for text in texts]
        width = max(map(len, ids))
        count = torch.tensor(corpus.count, dtype=torch.float64)
        return _Lines(
            policy.encode([question.prompt for question in task.questions]),
            torch.tensor([[*line, *[policy.pad_id] * (width - len(line))] for line in ids]),
            torch.arange(width) < torch.tensor([len(line) for line in ids])[:, None],
            torch.tensor(corpus.question),
            count / count.sum(),
            torch.tensor(corpus.right),
        )

    def log_probs_with_gradient(self, policy: Policy) -> Tensor:
        """The log-probability of every line's answer; the gradient of the cross-entropy is added to the weights'."""
        found: list[Tensor] = []
        for i in range(0, len(self.share), LINES_AT_ONCE):
            part = slice(i, i + LINES_AT_ONCE)
            first, last = int(self.prompt_of[part][0]), int(self.prompt_of[part][-1])
            owner, prompts = self.prompt_of[part] - first, self.prompts[first : last + 1]
            log_p = shared_log_probs(policy.model, prompts, self.completions[part], self.mask[part], owner).sum(1)
            (-(self.share[part].to(log_p.dtype) * log_p).sum()).backward()
            found.append(log_p.detach().double())
        return torch.cat(found)

    def entropy(self) -> float:
        """The conditional entropy of answers given their question: the least that the cross-entropy can be."""
        of_question = torch.zeros(len(self.prompts), dtype=torch.float64).index_add_(0, self.prompt_of, self.share)
        return -float(torch.xlogy(self.share, self.share / of_question[self.prompt_of]).sum())

    def success(self, log_p: Tensor) -> np.ndarray[Any, np.dtype[np.float64]]:
        """The probability of right answers of every question."""
        total = torch.zeros(len(self.prompts), dtype=torch.float64)
        return total.index_add_(0, self.prompt_of, log_p.exp() * self.right).numpy()


def _spreads(p_ref: Any, reliability: Any) -> bool:
    def is_in(p: Any, low: float, high: float) -> bool:
        return bool(np.any((p > low) & (p < high)))

    return all(is_in(p_ref, *limits) for limits in BINS if is_in(reliability, *limits))


def p_ref_summary(p_ref: Any) -> dict[str, Any]:
    """Return quantiles of p_ref over the questions, and how many questions lie in each of ``BINS``.

    >>> p_ref_summary([0.005, 0.05, 0.5, 0.95])["questions"]
    {'0.001-0.01': 1, '0.01-0.1': 1, '0.1-0.9': 1, '0.9-0.99': 1}
    """
    p = np.asarray(p_ref)
    return {
        "quantiles": {f"{q:g}": float(np.quantile(p, q)) for q in QUANTILES},
        "questions": {f"{low:g}-{high:g}": int(np.sum((p > low) & (p < high))) for low, high in BINS},
    }


def _is_made(folder: Path, settings: dict[str, Any]) -> bool:
    """Whether the folder holds the model of these settings; refuses one that holds something else."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"out must be a folder, got the file {str(folder)!r}")
    if not folder.is_dir() or not any(folder.iterdir()):
        return False
    try:
        made = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["config"]
    except (OSError, ValueError, KeyError, TypeError):
        raise ValueError(f"out must be a new or empty folder, got {str(folder)!r}") from None
    if made != settings:
        other = next((k for k in settings if not isinstance(made, dict) or made.get(k) != settings[k]), "config")
        raise ValueError(f"out must be a new or empty folder, got {str(folder)!r}, a model with another {other}")
    return True


def _save(policy: Policy, corpus: Corpus, task: Task, manifest: dict[str, Any], folder: Path) -> None:
    """Write everything beside the folder, then give it its name: there is all of it, or nothing."""
    partial = folder.parent / f".{folder.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        bars_on_terminals_only()
        policy.model.save_pretrained(partial)
        policy.tokenizer.save_pretrained(partial)
        (partial / "corpus.parquet").write_bytes(provenance.parquet(corpus.table(task)))
        files = {file.name: provenance.digest(file.read_bytes()) for file in sorted(partial.iterdir())}
        (partial / "manifest.json").write_bytes(provenance.json_bytes(manifest | {"digests": files}))
        if folder.is_dir():
            folder.rmdir()
        partial.rename(folder)
    except SafetensorError as error:  # how that library says that a disk is full
        raise OSError(errno.EIO, str(error)) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)

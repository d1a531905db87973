"""Small language models, made on the spot: a Llama with a character tokenizer, pre-trained on a noisy corpus of a task.

The corpus has right and wrong answers to every question, right ones with a frequency between 0.0007 and 0.995. The
model reads it as any model reads its corpus, by cross-entropy on the answers, until it has learned these frequencies;
what it then says is its own p_ref, which is measured and written down. Lines that repeat are computed once, with their
count.

On a GPU the same model of 100 million parameters takes minutes. What is not done when a command's time is over is kept
beside the folder, and the next command goes on from there.
"""

from __future__ import annotations

import dataclasses
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from grpo_dynamics import provenance
from grpo_dynamics.arrays import require, require_choice
from grpo_dynamics.training.deadline import Deadline, TimeLimit
from grpo_dynamics.training.device.precision import Precision, layers_in, repeatable
from grpo_dynamics.training.new_model import HEAD, Kept, digest, is_made, new_policy, save
from grpo_dynamics.training.policies import Policy, find_device
from grpo_dynamics.training.sources.corpus import Corpus, noisy_corpus
from grpo_dynamics.training.sources.lines import Lines
from grpo_dynamics.training.tasks import Task, require_whole

BINS = ((0.001, 0.01), (0.01, 0.1), (0.1, 0.9), (0.9, 0.99))
"""In each of these lies p_ref of some question, or the model is not done."""

QUANTILES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
PACKAGES = (*provenance.BASE, "torch", "transformers", "tokenizers")

SECONDS_BETWEEN = 60.0
"""Of computing between two checkpoints."""

Progress = Callable[[int, int, str], None]


def _silent(done: int, total: int, what: str) -> None:
    """Say nothing."""


def make_model(
    task: Task,
    out: str | os.PathLike[str],
    *,
    hidden_size: int = 128,
    layers: int = 3,
    head_size: int = HEAD,
    seed: int = 0,
    steps: int = 600,
    learning_rate: float | None = None,
    precision: Precision = "float32",
    lines: int = 10_000,
    wrong: int = 6,
    lowest: float = 0.0007,
    highest: float = 0.995,
    device: str | None = None,
    deadline: Deadline | None = None,
    tell: Progress = _silent,
) -> Path:
    """Make a small Llama and its tokenizer, pre-train it on a task, save both, and return the folder.

    Beside the model lie manifest.json (settings, versions, seconds, p_ref of the questions) and corpus.parquet. The
    same seed gives the same model on one machine, however often it was stopped by a time limit or killed. A folder that
    holds the model of the same settings is left as it is, whatever device made it.

    Args:
        task: of which the model is to know something.
        out: the folder: a new one, or an empty one.
        hidden_size: a multiple of ``head_size``; a layer has 10·hidden_size² parameters: 128 with 6 layers are 1
            million, 320 with 10 and heads of 64 are 10 million, 1024 with 10 and heads of 64 are 105 million.
        layers: ≥ 1.
        head_size: width of an attention head, a multiple of 32.
        seed: of the corpus and of the weights.
        steps: most steps of the pre-training; it ends where the corpus is learned.
        learning_rate: at its peak; None: :func:`usual_learning_rate` of the width.
        precision: "bf16" computes the layers in bfloat16; weights, optimiser, logits and sums stay float32.
        lines: of each question in the corpus.
        wrong: most distinct wrong answers of a question.
        lowest: frequency of right answers to the hardest question.
        highest: and to the easiest.
        device: "cuda" or a certain GPU; the CPU otherwise.
        deadline: when the command's time is over; None: never.
        tell: is told (done, total, what) while it goes on.

    Raises:
        ValueError: for an option out of its range, a folder that holds something else, or if the steps are too few.
        OSError: if the folder cannot be written; nothing is left behind.
        TimeLimit: if the time was over before; the same call goes on from there.
    """
    require_whole("layers", layers, 1)
    require_whole("steps", steps, 1)
    require_choice("precision", precision, ("float32", "bf16"))
    if isinstance(head_size, bool) or head_size < HEAD or head_size % HEAD:
        raise ValueError(f"head_size must be a multiple of {HEAD}, got {head_size!r}")
    if isinstance(hidden_size, bool) or hidden_size < head_size or hidden_size % head_size:
        raise ValueError(f"hidden_size must be a multiple of {head_size}, got {hidden_size!r}")
    if learning_rate is not None:
        require("learning_rate", learning_rate, "a number > 0 and < 1", lambda x: (x > 0) & (x < 1))
    sizes = {"hidden_size": hidden_size, "layers": layers, "seed": seed, "steps": steps}
    spread = {"lines": lines, "wrong": wrong, "lowest": lowest, "highest": highest}
    settings = {"task": task.name, "questions": len(task.questions), "task_digest": digest(task), **sizes, **spread}
    usual = {"head_size": HEAD, "precision": "float32", "learning_rate": None}  # unwritten: as before there were others
    chosen = {"head_size": head_size, "precision": precision, "learning_rate": learning_rate}
    settings |= {name: value for name, value in chosen.items() if value != usual[name]}
    place, folder = _place(device), Path(out)
    if is_made(folder, settings):
        return folder
    start = time.perf_counter()
    corpus = noisy_corpus(task, lines=lines, wrong=wrong, lowest=lowest, highest=highest, seed=seed)
    policy = new_policy(task, corpus, hidden_size, layers, seed, head_size, place)
    policy.check(task.texts())
    kept = Kept(folder.parent / f".{folder.name}.pretraining", settings | {"device": place.type})
    with kept:
        rate = learning_rate or usual_learning_rate(hidden_size)
        learned = pretrain(
            policy, task, corpus, steps, tell, learning_rate=rate, precision=precision, deadline=deadline, kept=kept
        )
    manifest = {
        "config": settings,
        "versions": provenance.versions(PACKAGES),
        "commit": provenance.commit(),
        "hardware": provenance.hardware() | {"device": device_name(place)},
        "seconds": round(learned.seconds_before + time.perf_counter() - start, 1),
        "parameters": policy.model.num_parameters(),
        "vocabulary": policy.vocabulary,
        "steps": learned.steps,
        "divergence": learned.divergence,
        "seconds_of_steps": round(learned.seconds, 3),
        "tokens_of_a_step": learned.tokens,
        "p_ref": p_ref_summary(learned.p_ref),
    }
    save(policy, corpus, task, manifest, folder)
    return folder


def usual_learning_rate(hidden_size: int) -> float:
    """Return the peak learning rate of AdamW for a width: 0.003 for narrow models, above 256 falling as one over it.

    The rate at which the function of a layer changes is that of its weights times their number.

    >>> usual_learning_rate(128), usual_learning_rate(1024)
    (0.003, 0.00075)
    """
    return 3e-3 * min(1.0, 256 / hidden_size)


def device_name(device: torch.device) -> str:
    """Return what a manifest calls a device: a GPU by its model.

    >>> device_name(torch.device("cpu"))
    'cpu'
    """
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


def _place(device: str | None) -> torch.device:
    """The GPU that was asked for, or the CPU: double precision, which the sums need, only these have."""
    asked = torch.device("cpu") if device is None else find_device(device)
    return asked if asked.type == "cuda" else torch.device("cpu")


@dataclasses.dataclass(frozen=True, eq=False)
class Learned:
    """What the pre-training came to.

    Attributes:
        steps: that were taken.
        divergence: mean over the questions of KL(corpus‖model) of the answers, in nats.
        p_ref: the model's probability of the right answers (those in the corpus), shape (Q,).
        tokens: of a step.
        seconds: of all steps, over all commands that took part.
        seconds_before: of the commands before this one.
    """

    steps: int
    divergence: float
    p_ref: np.ndarray[Any, np.dtype[np.float64]]
    tokens: int
    seconds: float
    seconds_before: float


def pretrain(
    policy: Policy,
    task: Task,
    corpus: Corpus,
    steps: int,
    tell: Progress = _silent,
    *,
    learning_rate: float = 3e-3,
    tolerance: float = 0.01,
    precision: Precision = "float32",
    deadline: Deadline | None = None,
    kept: Kept | None = None,
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
            reliability of the corpus lies in: both in float32, whatever the precision of the steps.
        precision: of the layers.
        deadline: asked before every step.
        kept: where the state is kept when the time is over, and found again.

    Raises:
        ValueError: if that is not so after so many steps.
        TimeLimit: if the time is over.
    """
    lines, model = Lines.of(policy, task, corpus), policy.model
    on_gpu = policy.device.type == "cuda"
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(parameters, learning_rate, betas=(0.9, 0.99), weight_decay=0.0, fused=on_gpu or None)
    begun, before = kept.restore(model, optimizer) if kept else (0, 0.0)
    start, saved, slowest, divergence = time.perf_counter(), time.perf_counter(), 0.0, math.inf

    def seconds() -> float:
        return before + time.perf_counter() - start

    def is_learned(log_p: Tensor) -> bool:
        return lines.divergence(log_p) <= tolerance and _spreads(lines.success(log_p), corpus.reliability)

    with repeatable(on_gpu):
        for step in range(begun, steps + 1):
            begin = time.perf_counter()
            if deadline is not None and deadline.left() <= 1.5 * slowest:  # one process makes a model: its own clock
                if kept:
                    kept.keep(model, optimizer, step, seconds())
                raise TimeLimit(f"pre-training: step {step} of at most {steps}, {divergence:.3g} nats from the corpus")
            optimizer.zero_grad()
            with layers_in(precision, model):
                log_p = lines.log_probs_with_gradient(model)
            divergence = lines.divergence(log_p)
            tell(step, steps, f"pre-training: {divergence:.4f} nats from the corpus")
            if is_learned(log_p):
                log_p = log_p if precision == "float32" else lines.log_probs(model)
                if precision == "float32" or is_learned(log_p):
                    final, p_ref = lines.divergence(log_p), lines.success(log_p)
                    return Learned(step, final, p_ref, lines.tokens(), seconds(), before)
            for group in optimizer.param_groups:
                decay = 0.55 + 0.45 * math.cos(math.pi * step / steps)
                group["lr"] = learning_rate * min(1.0, (step + 1) / 20) * decay
            optimizer.step()
            slowest = max(slowest, time.perf_counter() - begin) if step > begun else 0.0
            if kept and time.perf_counter() - saved > SECONDS_BETWEEN:
                kept.keep(model, optimizer, step + 1, seconds())
                saved = time.perf_counter()
    raise ValueError(
        f"steps must be enough to learn the corpus to {tolerance:g} nats per question, got {steps}, which leave "
        f"{divergence:.2g}: more steps, a larger model, or fewer questions"
    )


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
        "inside": float(np.mean((p > 0.01) & (p < 0.99))),
        "questions": {f"{low:g}-{high:g}": int(np.sum((p > low) & (p < high))) for low, high in BINS},
    }

"""A new small model: a Llama with random weights, the folder it goes into, and its state while it is not finished."""

from __future__ import annotations

import errno
import io
import json
import math
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import LlamaConfig, LlamaForCausalLM

from grpo_dynamics import provenance
from grpo_dynamics.training import checkpoints
from grpo_dynamics.training.policies import Policy, bars_on_terminals_only
from grpo_dynamics.training.sources.corpus import Corpus
from grpo_dynamics.training.sources.tokenizers import BOS, EOS, PAD, character_tokenizer
from grpo_dynamics.training.tasks import Task

HEAD = 32
"""Width of an attention head: the smallest that every engine has kernels for."""


def new_policy(
    task: Task, corpus: Corpus, hidden_size: int, layers: int, seed: int, head_size: int = HEAD, device: Any = "cpu"
) -> Policy:
    """Return a model with random weights and a tokenizer for every character of the task and the corpus.

    The weights are drawn on the CPU: the same seed gives the same ones on every device.
    """
    tokenizer = character_tokenizer((*task.texts(), *corpus.completion))
    longest = 1 + max(len(q.prompt) for q in task.questions) + task.max_completion_tokens
    vocabulary = tokenizer.get_vocab()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        intermediate_size=2 * hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=hidden_size // head_size,
        num_key_value_heads=hidden_size // head_size,
        max_position_embeddings=max(64, 2 ** math.ceil(math.log2(longest))),
        tie_word_embeddings=True,
        pad_token_id=vocabulary[PAD],
        bos_token_id=vocabulary[BOS],
        eos_token_id=vocabulary[EOS],
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: Any = LlamaForCausalLM(config).eval()
    return Policy(model.to(device), tokenizer)


def digest(task: Task) -> str:
    """Return the SHA-256 of a task's questions and answers, and of how long these may be."""
    texts = [(q.id, q.prompt, q.answer, list(q.correct or ())) for q in task.questions]
    return provenance.digest(provenance.json_bytes([texts, task.max_completion_tokens]))


def is_made(folder: Path, settings: dict[str, Any]) -> bool:
    """Return whether the folder holds the model of these settings; refuse one that holds something else."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"out must be a folder, got the file {str(folder)!r}")
    if not folder.is_dir() or not any(folder.iterdir()):
        return False
    try:
        made = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["config"]
    except (OSError, ValueError, KeyError, TypeError):
        raise ValueError(f"out must be a new or empty folder, got {str(folder)!r}") from None
    if made != settings:
        keys = dict.fromkeys([*settings, *made] if isinstance(made, dict) else ["config"])
        other = next(k for k in keys if not isinstance(made, dict) or made.get(k) != settings.get(k))
        raise ValueError(f"out must be a new or empty folder, got {str(folder)!r}, a model with another {other}")
    return True


def save(policy: Policy, corpus: Corpus, task: Task, manifest: dict[str, Any], folder: Path) -> None:
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


class Kept:
    """The state of a pre-training on the disk: weights, optimiser, step; gone when the block ends but by a time limit.

    Args:
        root: folder of the checkpoints.
        settings: of the model: a state of others is not gone on from.
    """

    def __init__(self, root: Path, settings: dict[str, Any]) -> None:
        self.root, self.settings = root, settings

    def __enter__(self) -> Kept:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None or issubclass(kind, ValueError | FloatingPointError):
            checkpoints.remove_all(self.root)

    def keep(self, model: Any, optimizer: torch.optim.Optimizer, step: int, seconds: float) -> None:
        """Write the state before a step, whole or not at all; the one before it stays."""
        state = io.BytesIO()
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, state)
        about = provenance.json_bytes({"settings": self.settings, "step": step, "seconds": seconds})
        checkpoints.save(self.root, step, {"state.pt": state.getvalue(), "about.json": about})
        checkpoints.keep_last(self.root)

    def restore(self, model: Any, optimizer: torch.optim.Optimizer) -> tuple[int, float]:
        """Put the last whole state back; return its step and the seconds that it took. (0, 0.0): there is none."""
        found = checkpoints.newest(self.root, [])
        if found is not None:
            about = json.loads(found[1]["about.json"])
            if about["settings"] == json.loads(provenance.json_bytes(self.settings)):
                state = torch.load(io.BytesIO(found[1]["state.pt"]), map_location="cpu", weights_only=True)
                model.load_state_dict(state["model"])
                optimizer.load_state_dict(state["optimizer"])
                return int(about["step"]), float(about["seconds"])
        checkpoints.remove_all(self.root)
        return 0, 0.0

"""A policy: a causal language model with its tokenizer, from the hub, a folder, or made on the spot."""

from __future__ import annotations

import dataclasses
import functools
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from grpo_dynamics.arrays import require, require_choice
from grpo_dynamics.config import nearest
from grpo_dynamics.training.likelihoods import log_probs, log_probs_of_groups, next_log_probs, shared_log_probs
from grpo_dynamics.training.verifiers import Asked

__all__ = [
    "LoraOptions",
    "Policy",
    "load_policy",
    "log_probs",
    "log_probs_of_groups",
    "next_log_probs",
    "right_completions",
    "shared_log_probs",
]

DTYPES = ("float32", "float64", "bfloat16", "float16")

MOST_SPELLINGS = 10_000
"""Of one question's right answers; beyond, p is measured by sampling."""


@dataclasses.dataclass(frozen=True)
class LoraOptions:
    """Low-rank adapters in the place of the whole model's weights (Hu et al. 2021), as peft has them.

    Attributes:
        rank: of the adapters, ≥ 1.
        alpha: their scale is alpha/rank, > 0.
        dropout: in [0, 1); anything but 0 makes the policy that learns another than the one that was sampled from.
        targets: names of the layers that are adapted, or "all-linear".
    """

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    targets: str | tuple[str, ...] = "all-linear"

    def __post_init__(self) -> None:
        require("rank", self.rank, "an integer ≥ 1", lambda x: (x >= 1) & (x % 1 == 0))
        require("alpha", self.alpha, "positive", lambda x: x > 0)
        require("dropout", self.dropout, "in [0, 1)", lambda x: (x >= 0) & (x < 1))


@dataclasses.dataclass(frozen=True, eq=False)
class Policy:
    """A causal language model with its tokenizer.

    Attributes:
        model: of transformers, possibly with adapters.
        tokenizer: of transformers.
        chat: whether prompts are wrapped by the tokenizer's chat template, as a user's message.
    """

    model: Any
    tokenizer: Any
    chat: bool = False

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    @property
    def pad_id(self) -> int:
        """The token that fills up."""
        return int(self.tokenizer.pad_token_id)

    @property
    def eos_id(self) -> int:
        """The token that ends a completion."""
        return int(self.tokenizer.eos_token_id)

    @property
    def vocabulary(self) -> int:
        """The number of logits: every token that the policy may say."""
        return int(self.model.config.get_text_config().vocab_size)

    def encode(self, prompts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of prompts, with what the tokenizer, or its chat template, puts around them.

        Raises:
            ValueError: for a text that the tokenizer cannot read.
        """
        return [self._tokens(prompt, is_prompt=True) for prompt in prompts]

    def decode(self, completions: Iterable[Sequence[int]]) -> list[str]:
        """Return the texts of completions, each up to its first end token.

        Other special tokens stay visible, and a token that stands for no text becomes U+FFFD: what was not said in full
        is never taken for a right answer.
        """
        known, texts = len(self.tokenizer), list[str]()
        for completion in completions:
            ids = [int(token) for token in completion]
            ids = ids[: ids.index(self.eos_id)] if self.eos_id in ids else ids
            spoken = [token for token in ids if token < known]
            text = self.tokenizer.decode(spoken, skip_special_tokens=False, clean_up_tokenization_spaces=False)
            texts.append(text + "\ufffd" * (len(ids) - len(spoken)))
        return texts

    def check(self, texts: Iterable[str] = ()) -> None:
        """Refuse a policy that cannot be trained on a task.

        Args:
            texts: the task's own prompts and answers, each of which has to come back from the tokenizer as it was.

        Raises:
            ValueError: for a tokenizer without a pad or end token, with more tokens than the model has logits, or that
                changes one of the texts.
        """
        for kind, what in (("pad", "the end token serves as well"), ("eos", "without one no completion ends")):
            if getattr(self.tokenizer, f"{kind}_token_id", None) is None:
                raise ValueError(f"tokenizer must have a {kind} token ({what}), got none: name one as {kind}_token")
        if len(self.tokenizer) > self.vocabulary:
            raise ValueError(
                f"tokenizer must have at most the model's {self.vocabulary} tokens, got {len(self.tokenizer)}"
            )
        for text in texts:
            if (back := self.decode([self._tokens(text)])[0]) != text:
                raise ValueError(
                    f"tokenizer must give back every text as it was, got {_short(back)} for {_short(text)}"
                )

    def _tokens(self, text: str, is_prompt: bool = False) -> list[int]:
        try:
            if is_prompt and self.chat:
                message = [{"role": "user", "content": text}]
                return list(self.tokenizer.apply_chat_template(message, add_generation_prompt=True, return_dict=False))
            return list(self.tokenizer(text, add_special_tokens=is_prompt)["input_ids"])
        except Exception as error:  # the Rust library raises no narrower class
            raise ValueError(f"text must be one that the tokenizer can read, got {_short(text)}: {error}") from None

    @functools.cached_property
    def pieces(self) -> tuple[dict[str, list[int]], dict[str, list[int]]]:
        """The tokens that stand for a text, by that text: at the start of a completion, and after other tokens."""
        every = range(min(len(self.tokenizer), self.vocabulary))
        anchor = [next(token for token in every if self.tokenizer.decode([token]).isalnum())]
        before = self.tokenizer.decode(anchor)
        start, later = dict[str, list[int]](), dict[str, list[int]]()
        for token in every:
            start.setdefault(self.tokenizer.decode([token]), []).append(token)
            later.setdefault(self.tokenizer.decode([*anchor, token])[len(before) :], []).append(token)
        return start, later


def right_completions(policy: Policy, question: Asked, max_completion_tokens: int) -> list[list[int]]:
    """Return every completion, as token ids, whose text is one of a question's right answers.

    A text may be spelled in several ways with tokens of more than one character: all are returned, since p is the sum
    of their probabilities. A completion ends with the end token, unless it is cut off at the largest length.

    Args:
        policy: whose tokens are meant.
        question: one with a finite set ``correct``.
        max_completion_tokens: largest length, the end token included.

    Raises:
        ValueError: if the set is not known, or there are more than 10,000 spellings.
    """
    if question.correct is None:
        raise ValueError(f"correct must be a finite set of answers, got None for the question {question.prompt!r}")
    start, later = policy.pieces
    found: list[list[int]] = []
    for text in question.correct:
        silent = start.get("", ()) if text else ()  # a blank that decoders leave out at the start
        open_ends: list[tuple[int, list[int]]] = [(0, []), *((0, [token]) for token in silent)]
        while open_ends:
            done, ids = open_ends.pop()
            if done == len(text):
                if policy.decode([ids])[0] == text:
                    found.append([*ids, policy.eos_id] if len(ids) < max_completion_tokens else ids)
            elif len(ids) < max_completion_tokens:
                pieces = later if ids else start
                for end in range(done + 1, len(text) + 1):
                    open_ends += [(end, [*ids, token]) for token in pieces.get(text[done:end], ())]
            if len(found) + len(open_ends) > MOST_SPELLINGS:
                raise ValueError(f"correct must have at most {MOST_SPELLINGS} spellings, got more for {text!r}")
    return sorted(found)


def load_policy(
    name_or_path: str | os.PathLike[str],
    *,
    dtype: str = "float32",
    lora: LoraOptions | None = None,
    device: str | None = None,
    gradient_checkpointing: bool = False,
    pad_token: str | None = None,
    eos_token: str | None = None,
    chat: bool = False,
) -> Policy:
    """Load a causal language model and its tokenizer.

    Dropout is set to 0, whatever the model's config says: the policy that learns is the one that was sampled from.

    Args:
        name_or_path: a name on the Hugging Face hub, or a folder.
        dtype: of the weights: "float32", "float64", "bfloat16" or "float16".
        lora: train adapters of this kind only.
        device: such as "cpu", "cuda" or "cuda:1"; the first GPU, if there is one, where it is left out.
        gradient_checkpointing: compute activations again instead of keeping them.
        pad_token: one of the tokenizer's tokens, where it has no pad token of its own.
        eos_token: one of the tokenizer's tokens, where it has no end token of its own.
        chat: wrap prompts by the tokenizer's chat template.

    Raises:
        ValueError: if there is no such model or device, or it has no pad or end token.
    """
    require_choice("dtype", dtype, DTYPES)
    place, name = find_device(device), os.fspath(name_or_path)
    _require_folder(name)
    bars_on_terminals_only()
    try:
        config = AutoConfig.from_pretrained(name)
        for key, value in vars(config).items():
            if ("dropout" in key or key.endswith("_pdrop")) and isinstance(value, float):
                setattr(config, key, 0.0)
        tokenizer: Any = AutoTokenizer.from_pretrained(name)
        model: Any = AutoModelForCausalLM.from_pretrained(name, config=config, dtype=getattr(torch, dtype))
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(
            f"model must be a causal language model on the hub or in a folder, got {name!r}: {reason}"
        ) from None
    for kind, token in (("pad", pad_token), ("eos", eos_token)):
        if token is not None:
            if token not in tokenizer.get_vocab():
                raise ValueError(f"{kind}_token must be one of the tokenizer's tokens, got {token!r}")
            setattr(tokenizer, f"{kind}_token", token)
    if chat and not getattr(tokenizer, "chat_template", None):
        raise ValueError("chat must be False for a tokenizer without a chat template, got True")
    if lora is not None:
        model = _with_adapters(model, lora)
    if gradient_checkpointing:
        name = "activation_checkpointing_enable"  # the new name; transformers before 5.23 knows the old one only
        getattr(model, name if hasattr(model, name) else "gradient_checkpointing_enable")({"use_reentrant": False})
        model.train()  # models keep every activation in eval mode, whatever was enabled
    policy = Policy(model.to(place), tokenizer, chat)
    policy.check()
    return policy


def find_device(device: str | None = None) -> torch.device:
    """Return the device of a name, or the first GPU, or the CPU.

    Raises:
        ValueError: for a name that means nothing, or a device that is not here.

    >>> find_device("cpu")
    device(type='cpu')
    """
    cuda, mps = torch.cuda.device_count(), torch.backends.mps.is_available()
    here = ["cpu", *(f"cuda:{i}" for i in range(cuda)), *(["mps"] if mps else [])]
    if device is None:
        return torch.device("cuda" if cuda else "cpu")
    try:
        found = torch.device(device)
    except RuntimeError:
        found = None
    if found is None or f"{found.type}:{found.index or 0}" not in (f"{d}:0" if ":" not in d else d for d in here):
        raise ValueError(f"device must be one that is here ({', '.join(here)}), got {device!r}")
    return found


def bars_on_terminals_only() -> None:
    """Keep the libraries' progress bars out of files and pipes."""
    if not sys.stderr.isatty():
        logging.disable_progress_bar()


def _require_folder(name: str) -> None:
    """Refuse what can only be a folder, and is none, before the hub is asked."""
    path = Path(name).expanduser()
    if path.is_dir() or (name.count("/") <= 1 and not name.startswith((".", "/", "~")) and not path.is_file()):
        return
    beside = [entry.name for entry in path.parent.iterdir() if entry.is_dir()] if path.parent.is_dir() else []
    raise ValueError(f"model must be a folder that exists, got {name!r}{nearest(path.name, beside)}")


def _with_adapters(model: Any, lora: LoraOptions) -> Any:
    from peft import LoraConfig, get_peft_model

    targets = lora.targets if isinstance(lora.targets, str) else list(lora.targets)
    options = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # pyright: ignore[reportArgumentType]  # any number will do
        lora_dropout=lora.dropout,
        target_modules=targets,
        task_type="CAUSAL_LM",
    )
    try:
        return get_peft_model(model, options)
    except ValueError as error:
        raise ValueError(f"targets must name layers of the model, got {lora.targets!r}: {error}") from None


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")

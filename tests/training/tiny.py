"""A language model of a few thousand weights, made in milliseconds, and a config to train it on sums."""

import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.utils import logging

from grpo_dynamics.training.config import resolve
from grpo_dynamics.training.sources.tokenizers import character_tokenizer
from grpo_dynamics.training.tasks import make_task

logging.disable_progress_bar()


def tiny_model(folder, task=None, seed=0, hidden=32, layers=1, spread=3.0):
    """Save a random Llama that can read the task; ``spread`` makes its answers unequally probable."""
    torch.manual_seed(seed)
    task = task or make_task("one_token_sums")
    tokenizer = character_tokenizer(task.texts())
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=1,
        num_key_value_heads=1,
        max_position_embeddings=32,
        tie_word_embeddings=False,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        model.lm_head.weight.mul_(spread / 0.2 / hidden**0.5)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def tiny_config(path, **tables):
    """A run of a few seconds; tables lie over its own."""
    base = {
        "name": "tiny",
        "seed": 1,
        "iterations": 3,
        "questions": 8,
        "task": {"kind": "one_token_sums"},
        "model": {"path": path, "device": "cpu"},
        "training": {"update": "exact", "beta": 2.0},
        "optimization": {"learning_rate": 0.01, "max_grad_norm": 1.0, "inner_tolerance": 1e-4, "round_steps": 100},
    }
    return resolve(base | tables)


SAMPLED = {
    "training": {
        "update": "sampled",
        "beta": 1.0,
        "kl": "k3",
        "groups": 2,
        "normalization": {"kind": "finite_group", "group_size": 4, "eps": 1e-4, "eps_placement": "std"},
    },
    "optimization": {"learning_rate": 0.01},
}

"""Everything that the next iteration depends on, as the files of a checkpoint, to the last bit."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

from grpo_dynamics.training.arm import Arm
from grpo_dynamics.training.steps import sharding


def state_of(arm: Arm) -> dict[str, bytes]:
    """Return everything that the next iteration depends on, as files."""
    options = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)
    files: dict[str, bytes] = {}
    with sharding.spread(arm.model):
        weights: dict[str, Any] = get_model_state_dict(arm.model, options=options)
        memory = get_optimizer_state_dict(arm.model, arm.ascent.optimizer, options=options)
    if not arm.config.argmin:  # an inner loop starts with a new optimiser
        optimizer = io.BytesIO()
        torch.save(memory, optimizer)
        files["optimizer.pt"] = optimizer.getvalue()
    files["model.safetensors"] = save_tensors({name: value.contiguous().clone() for name, value in weights.items()})
    files["critic.safetensors"] = save_tensors({"values": arm.values})
    if arm.training.reference_refresh is not None:
        reference = {f"{i:06d}": value.detach().cpu().contiguous() for i, value in enumerate(arm.reference)}
        files["reference.safetensors"] = save_tensors(reference)
    return files


def set_state(arm: Arm, files: Mapping[str, bytes]) -> None:
    """Put an arm into the state of a checkpoint."""
    options = StateDictOptions(full_state_dict=True, ignore_frozen_params=True, strict=False)
    weights: dict[str, Any] = dict(load_tensors(files["model.safetensors"]))
    with sharding.spread(arm.model):
        set_model_state_dict(arm.model, weights, options=options)
        if "optimizer.pt" in files:
            state = torch.load(io.BytesIO(files["optimizer.pt"]), weights_only=True)
            set_optimizer_state_dict(arm.model, arm.ascent.optimizer, state, options=options)
    arm.values = load_tensors(files["critic.safetensors"])["values"]
    if "reference.safetensors" in files:
        kept = load_tensors(files["reference.safetensors"])
        arm.reference = [value.to(arm.policy.device) for _, value in sorted(kept.items())]
    arm.engine.push(arm.policy.model)

"""The straightforward GRPO step on transformers, to measure others by: nothing is shared, nothing is cut by length."""

from __future__ import annotations

import copy
from typing import Any

import torch

from grpo_dynamics.training.arm import Arm


class PlainLoop:
    """Every completion a row with its prompt, two models, AdamW as it comes.

    Args:
        arm: whose policy is trained, with its update rule and its sizes; all its prompts are of one length.
    """

    def __init__(self, arm: Arm) -> None:
        self.arm, self.model = arm, arm.policy.model
        self.options, self.training = arm.config.optimization, arm.training
        self.model.set_attn_implementation("sdpa")
        self.reference = copy.deepcopy(self.model)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), self.options.learning_rate, weight_decay=0.0)

    def log_probs(self, model: Any, ids: Any, there: Any, start: int) -> Any:
        """Log-probabilities of the tokens after the prompt."""
        lower = self.options.precision == "bf16"
        with torch.autocast(ids.device.type, torch.bfloat16, enabled=lower):
            logits = model(input_ids=ids, attention_mask=there).logits[:, start - 1 : -1]
        return logits.float().log_softmax(-1).gather(-1, ids[:, start:, None])[..., 0]

    def update(self, completions: Any, mask: Any, advantages: Any) -> None:
        """One step on completions (B, T), those of a prompt side by side; prompts are of one length."""
        prompts = torch.tensor(self.arm.prompts, device=completions.device)
        prompts = prompts.repeat_interleave(self.training.size, dim=0)
        start, tokens = prompts.shape[1], mask.sum()
        self.optimizer.zero_grad()
        size = self.options.micro_batch_size or len(completions)
        for i in range(0, len(completions), size):
            part = slice(i, i + size)
            ids = torch.cat((prompts[part], completions[part]), dim=1)
            there = torch.cat((torch.ones_like(prompts[part]).bool(), mask[part]), dim=1).long()
            with torch.no_grad():
                log_ref = self.log_probs(self.reference, ids, there, start)
            log_p = self.log_probs(self.model, ids, there, start)
            ratio, apart = (log_p - log_p.detach()).exp(), log_ref - log_p
            gain = torch.minimum(ratio * advantages[part, None], ratio.clamp(0.8, 1.2) * advantages[part, None])
            loss = float(self.training.beta) * (apart.exp() - apart - 1) - gain
            (torch.where(mask[part], loss, 0.0).sum() / tokens).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()

    def rollout(self) -> tuple[Any, Any]:
        """Completions by ``generate`` and their mask."""
        policy, device = self.arm.policy, self.arm.policy.device
        ids = torch.tensor(self.arm.prompts, device=device)
        lower = self.options.precision == "bf16"
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=lower):
            said = self.model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                do_sample=True,
                top_k=0,
                num_return_sequences=self.training.size,
                max_new_tokens=self.arm.task.max_completion_tokens,
                pad_token_id=policy.pad_id,
                eos_token_id=policy.eos_id,
            )[:, ids.shape[1] :]
        ended = (said == policy.eos_id).cumsum(1)
        return said, (ended == 0) | ((ended == 1) & (said == policy.eos_id))

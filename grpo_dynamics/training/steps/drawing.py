"""Groups of answers drawn from π_old, judged, with their advantages: the sampling lines of Algorithm 1."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from grpo_dynamics.training.advantages import group_advantages, silent
from grpo_dynamics.training.arm import GROUPS, Arm
from grpo_dynamics.training.rollouts import Samples, Unique, unique
from grpo_dynamics.training.steps.batches import Batch, sampled_batch
from grpo_dynamics.training.steps.expectation import Answers
from grpo_dynamics.training.tasks import Question
from grpo_dynamics.training.verifiers import Verdict


@dataclasses.dataclass(eq=False)
class Drawn:
    """The groups of one step's questions, M = groups·G samples of each.

    Attributes:
        iteration, step: when; the step is the number of the batch within the iteration.
        chosen: the questions, by their number in the task.
        samples: token ids and the engine's log-probabilities, (Q, M, T).
        same: their different completions.
        verdicts: of each different completion.
        texts: of each different completion.
        rewards, advantages: of each sample, float64 (Q, M).
        group_size: G.
        quiet: share of groups whose rewards are all equal.
        log_ref: of each different completion under π_ref, (U,), where the loss needed it.
    """

    iteration: int
    step: int
    chosen: list[int]
    samples: Samples
    same: Unique
    verdicts: list[Verdict]
    texts: list[str]
    rewards: Tensor
    advantages: Tensor
    group_size: int
    quiet: Tensor
    log_ref: Tensor | None = None

    @property
    def tokens(self) -> int:
        """How many tokens were drawn."""
        return int(self.samples.mask.sum())

    def which(self, answers: Answers) -> Tensor:
        """Return the number of each sample among all possible answers, (Q, M)."""
        place = {tuple(ids): i for i, ids in enumerate(answers.ids())}
        rows = zip(self.same.completions.tolist(), self.same.mask.sum(-1).tolist(), strict=True)
        number = torch.tensor([place[tuple(ids[:length])] for ids, length in rows], device=self.same.index.device)
        return number[self.same.index]

    def about(self, arm: Arm) -> dict[str, float]:
        """Return the mean reward and the share of silent groups, over all processes."""
        return {"reward": arm.ascent.mean(self.rewards), "silent": arm.ascent.mean(self.quiet)}

    def see(self, batch: Batch) -> None:
        """Keep what a step has found out about the completions: their log-probability under π_ref."""
        if batch.log_ref is not None and batch.kept is not None:
            nothing = torch.full((len(self.texts),), torch.nan, dtype=torch.float64, device=batch.log_ref.device)
            self.log_ref = nothing.index_copy(0, batch.kept, batch.log_ref.double().sum(-1))

    def mismatch(self, batch: Batch) -> Tensor:
        """Return |log π_engine − log π_trainer| of every token whose trainer's log-probability is known."""
        if batch.log_old is None or batch.kept is None or not batch.mask.any():
            return torch.zeros(1)
        return (self.same.log_probs[batch.kept] - batch.log_old).abs()[batch.mask].detach()

    def rows(self, questions: Sequence[Question]) -> list[dict[str, Any]]:
        """Return one row for each sample, as completions.parquet has them."""
        lengths = self.same.mask.sum(-1).tolist()
        log_old = self.samples.log_probs.double().masked_fill(~self.samples.mask, 0.0).sum(-1).tolist()
        log_ref = None if self.log_ref is None else self.log_ref.tolist()
        rewards, index = self.rewards.tolist(), self.same.index.tolist()
        return [
            {
                "iteration": self.iteration,
                "step": self.step,
                "question_id": questions[place].id,
                "group_id": sample // self.group_size,
                "sample_index": sample % self.group_size,
                "success": self.verdicts[u].success,
                "reward": rewards[q][sample],
                "completion_length": lengths[u],
                "finish_reason": self.samples.finish_reason[q][sample],
                "logp_old": log_old[q][sample],
                "logp_ref": None if log_ref is None else log_ref[u],
                "completion": self.texts[u],
                "outcome": self.verdicts[u].outcome,
            }
            for q, place in enumerate(self.chosen)
            for sample, u in enumerate(index[q])
        ]


def draw(arm: Arm, n: int, step: int, chosen: list[int]) -> Drawn:
    """Draw the groups of some questions from the policy as it is, and judge them.

    Args:
        arm: what is trained.
        n: the iteration.
        step: the number of the batch.
        chosen: the questions, by their number in the task.
    """
    training, size = arm.training, arm.training.size * arm.training.groups
    questions = [arm.task.questions[i] for i in chosen]
    seeds = arm.seeds(GROUPS, n, chosen)
    samples = arm.engine.sample([arm.prompts[i] for i in chosen], size, arm.task.max_completion_tokens, seeds)
    same = unique(samples)
    lengths = same.mask.sum(-1).tolist()  # whole tables: each transfer waits for the device
    ids = [row[:length] for row, length in zip(same.completions.tolist(), lengths, strict=True)]
    texts = arm.policy.decode(ids)
    verdicts = arm.task.verifier([questions[q] for q in same.question.tolist()], texts)
    reward = torch.tensor([verdict.reward for verdict in verdicts], dtype=torch.float64, device=same.index.device)
    rewards = reward[same.index]
    return Drawn(
        iteration=n,
        step=step,
        chosen=chosen,
        samples=samples,
        same=same,
        verdicts=verdicts,
        texts=texts,
        rewards=rewards,
        advantages=_advantages(arm, n, chosen, rewards),
        group_size=training.size,
        quiet=silent(rewards, training).double(),
    )


def batch_of(arm: Arm, drawn: Drawn) -> Batch:
    """Return the batch of a step on samples."""
    prompts = [arm.prompts[i] for i in drawn.chosen]
    in_parts = arm.config.optimization.micro_batch_size is not None
    return sampled_batch(prompts, drawn.same, drawn.advantages, arm.training, by_length=in_parts)


def _advantages(arm: Arm, n: int, chosen: list[int], rewards: Tensor) -> Tensor:
    """The advantages of the groups; the critic, if there is one, then learns from their rewards."""
    training = arm.training
    if training.has_exact_statistics:
        found = [success.log_odds for success in arm.measure(arm.model, n)]
        known = dict(arm.gathered(list(zip(arm.own, found, strict=True))))
        state = torch.tensor([known[i] for i in chosen], dtype=torch.float64, device=rewards.device)
        return group_advantages(rewards, training, log_odds=state)
    if training.critic_rate is not None:
        values = arm.values[chosen].to(rewards.device)
        result = group_advantages(rewards, training, values=values)
        arm.values[chosen] = (values + training.critic_rate * (rewards.mean(-1) - values)).to(arm.values.device)
        return result
    if training.std_over is not None and arm.accelerator.num_processes > 1:  # one standard deviation of all processes
        parts = arm.gathered([rewards.cpu()])
        whole = group_advantages(torch.cat(parts), training)
        start = sum(len(part) for part in parts[: arm.accelerator.process_index])
        return whole[start : start + len(rewards)].to(rewards.device)
    return group_advantages(rewards, training)

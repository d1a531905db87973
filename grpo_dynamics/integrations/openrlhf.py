"""For OpenRLHF: a reward function that records what it sees, as the trainer itself keeps no completions."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from grpo_dynamics.integrations.counts import question_of
from grpo_dynamics.integrations.recording import Recorder


def recorded(
    reward_func: Callable[..., Any],
    folder: str | os.PathLike[str],
    threshold: float = 0.5,
    keep: Callable[[str, Any], bool] | None = None,
) -> Callable[..., Any]:
    """Return ``reward_func(queries, prompts, labels)``, which does what it did and records every completion.

    In the file that ``--reward.remote_url`` names::

        from grpo_dynamics.integrations.openrlhf import recorded

        reward_func = recorded(my_reward, "runs/rewards")

    Every process of the trainer writes a file of its own; :func:`~grpo_dynamics.integrations.recording.collect` puts
    them together. OpenRLHF does not tell a reward function the step, nor evaluations from training.

    Args:
        reward_func: as OpenRLHF calls it; returns a dictionary with "rewards", or "scores" beside them, which then
            count.
        folder: to write to, one for each start of a training.
        threshold: a completion is right where its reward is at least this.
        keep: called with prompt and label; completions for which it is false are not recorded, as those of
            evaluations.

    Raises:
        ValueError: for a folder that cannot be written, or something that is not callable; in the run for an answer
            without a reward for each query.

    Source: read in OpenRLHF 0.11, openrlhf/utils/agent.py, SingleTurnAgentExecutor.
    """
    if not callable(reward_func):
        raise ValueError(f"reward_func must be a function of queries, prompts and labels, got {reward_func!r}")
    recorder = Recorder(folder, threshold)

    @functools.wraps(reward_func)
    def watched(queries: Sequence[str], prompts: Sequence[str], labels: Sequence[Any], **more: Any) -> Any:
        answer = reward_func(queries, prompts, labels, **more)
        rewards = _rewards(answer, len(queries))
        for query, prompt, label, reward in zip(queries, prompts, labels, rewards, strict=True):
            if keep is None or keep(prompt, label):
                length = len(query) - len(prompt) if query.startswith(prompt) else len(query)
                recorder.keep(question_of(prompt), reward, length)
        return answer

    return watched


def _rewards(answer: Any, queries: int) -> list[Any]:
    """Return the rewards in what a reward function returned, one for each query."""
    if not isinstance(answer, Mapping) or "rewards" not in answer:
        raise ValueError(f'reward_func must return a dictionary with "rewards", got {type(answer).__name__}')
    rewards = list(answer["rewards"] if answer.get("scores") is None else answer["scores"])
    if len(rewards) != queries:
        raise ValueError(f"reward_func must return a reward for each of {queries} queries, got {len(rewards)}")
    return rewards

"""For verl: a reward function that records what it sees, question by question."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Mapping
from typing import Any

from grpo_dynamics.integrations.counts import question_of
from grpo_dynamics.integrations.recording import Recorder

IDS = ("question_id", "prompt_id", "index")
"""Where in extra_info the question is named: the first of these that is there, else its prompt, where verl gives it."""


def as_messages(prompt: Any) -> Any:
    """Return a prompt as a text or a list: verl keeps messages in an array."""
    return prompt.tolist() if hasattr(prompt, "tolist") else prompt


def recorded(
    compute_score: Callable[..., Any], folder: str | os.PathLike[str], threshold: float = 0.5
) -> Callable[..., Any]:
    """Return ``compute_score(data_source, solution_str, ground_truth, extra_info)``, which records every completion.

    In the file that ``reward.custom_reward_function.path`` names::

        from verl.utils.reward_score import default_compute_score
        from grpo_dynamics.integrations.verl import recorded

        compute_score = recorded(default_compute_score, "runs/rewards")

    Every process of the trainer writes a file of its own; :func:`~grpo_dynamics.integrations.recording.collect` puts
    them together. The step is the version of the weights that sampled (``max_global_steps``), where verl tells it.
    Completions whose extra_info has another ``split`` than train are not recorded.

    Args:
        compute_score: as verl calls it, synchronous or not; returns a number, or a dictionary with "score", and perhaps
            "acc", which then says whether the answer is right.
        folder: to write to, one for each start of a training.
        threshold: a completion is right where its score is at least this.

    Raises:
        ValueError: for a folder that cannot be written, or something that is not callable; in the run where extra_info
            does not name the question.

    Source: read in verl 0.10, verl/experimental/reward_loop/reward_manager/naive.py, NaiveRewardManager.run_single.
    """
    if not callable(compute_score):
        raise ValueError(f"compute_score must be a function that scores an answer, got {compute_score!r}")
    recorder = Recorder(folder, threshold)

    def record(data_source: Any, solution_str: str, extra_info: Mapping[str, Any] | None, result: Any) -> None:
        info = dict(extra_info or {})
        if info.get("split") not in (None, "train"):
            return
        name = next((info[key] for key in IDS if info.get(key) is not None), None)
        if name is None and info.get("raw_prompt") is not None:
            name = question_of(as_messages(info["raw_prompt"]))
        if name is None:
            raise ValueError(
                f"extra_info must name the question as {', '.join(IDS)}, got {', '.join(info) or 'nothing'}"
            )
        told = result if isinstance(result, Mapping) else {"score": result}
        right = None if told.get("acc") is None else bool(told["acc"])
        step = info.get("max_global_steps")
        recorder.keep(f"{data_source}/{name}", told["score"], len(solution_str), right=right, step=step)

    @functools.wraps(compute_score)
    def called(data_source: Any, solution_str: str, ground_truth: Any, extra_info: Any = None, **more: Any) -> Any:
        result = compute_score(
            data_source=data_source, solution_str=solution_str, ground_truth=ground_truth, extra_info=extra_info, **more
        )
        record(data_source, solution_str, extra_info, result)
        return result

    @functools.wraps(compute_score)
    async def waited_for(
        data_source: Any, solution_str: str, ground_truth: Any, extra_info: Any = None, **more: Any
    ) -> Any:
        result = await compute_score(
            data_source=data_source, solution_str=solution_str, ground_truth=ground_truth, extra_info=extra_info, **more
        )
        record(data_source, solution_str, extra_info, result)
        return result

    return waited_for if inspect.iscoroutinefunction(compute_score) else called

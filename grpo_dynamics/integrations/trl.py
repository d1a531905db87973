"""A callback for TRL's GRPOTrainer: what the theory says of each question, in the run's own logs while it trains."""

from __future__ import annotations

import functools
import inspect
import logging
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from grpo_dynamics.arrays import require
from grpo_dynamics.integrations.counts import Counts, Pair, question_of, reference_counts, table
from grpo_dynamics.integrations.foresight import REGIMES, Foresight, trainer_of
from grpo_dynamics.integrations.observer import Observer, Row

if TYPE_CHECKING:
    import polars as pl

STATE_FILE = "grpo_dynamics.json"
"""The counts, in each of the trainer's checkpoints."""

OLDEST = "1.0.0"
"""The first TRL that gives reward functions ``log_metric``, with which numbers reach the trainer's own logs."""

BESIDE = frozenset(
    ("prompts", "completions", "completion_ids", "trainer_state", "log_extra", "log_metric", "environments")
)
"""What a reward function is given beside the columns of the dataset."""

logger = logging.getLogger("grpo_dynamics")


class GRPODynamicsCallback(TrainerCallback):
    """Put p_n, p_ref, p*, silent groups and regimes of a run of TRL's GRPOTrainer into its logs.

    Three lines in a training script::

        from grpo_dynamics.integrations.trl import GRPODynamicsCallback

        dynamics = GRPODynamicsCallback()
        trainer = GRPOTrainer(..., reward_funcs=dynamics.watch(reward), callbacks=[dynamics])

    p_ref is not known in a run; it is taken from the first visit of a question, or from counts that are given. What a
    few samples leave open is integrated over, with Jeffreys' posterior. The theory is that of the trainer's arguments
    in the installed version, for one reward of two values; samples of evaluations are not counted. With several
    processes, the main one counts and logs the rewards of all.

    Args:
        p_ref: successes and samples of questions, measured with the reference policy: a mapping of ids to pairs, or a
            table as ``grpo-dynamics predict --from`` reads it. Questions that are not in it: first visit.
        question_column: column of the dataset with the ids. If not given, a question is its prompt, and its id is
            :func:`~grpo_dynamics.integrations.counts.question_of` of it.
        threshold: an answer is right where its reward is at least this.
        reward_scale: what a right answer earns more than a wrong one, reward weights included.
        shown: so many questions, the first that are seen, have curves of their own in the logs; ≥ 0.
        most_questions: how many are told apart, about 300 bytes each.

    Raises:
        ValueError: for values out of range.

    Source: read in TRL 1.0.0 and 1.16.0, trl/trainer/grpo_trainer.py, GRPOTrainer._calculate_rewards.
    """

    def __init__(
        self,
        p_ref: Mapping[Any, Pair] | str | os.PathLike[str] | None = None,
        question_column: str | None = None,
        threshold: float = 0.5,
        reward_scale: float = 1.0,
        shown: int = 4,
        most_questions: int = 100_000,
    ) -> None:
        require("threshold", threshold, "a finite number", lambda x: abs(x) < math.inf)
        require("reward_scale", reward_scale, "a finite number > 0", lambda x: (x > 0) & (x < math.inf))
        if isinstance(shown, bool) or not isinstance(shown, int) or shown < 0:
            raise ValueError(f"shown must be an integer >= 0, got {shown!r}")
        self._observer = Observer(Counts(most_questions, reference_counts(p_ref)), shown)
        self._question_column, self._threshold, self._reward_scale = question_column, threshold, reward_scale
        self._watched: str | None = None
        self._model: Any = None
        self._group_size, self._weighted = 1, False
        self._rewards: set[float] = set()
        self._said: set[str] = set()

    def watch(self, reward_func: Callable[..., Any]) -> Callable[..., Any]:
        """Return the reward function, which does what it did and lets the callback see its rewards.

        Args:
            reward_func: the function, synchronous or not, whose reward says whether an answer is right.

        Raises:
            ValueError: for a reward model, or a second function: one callback watches one.
        """
        if not callable(reward_func) or hasattr(reward_func, "parameters"):
            raise ValueError(f"reward_func must be a function that returns rewards, got {type(reward_func).__name__}")
        if self._watched is not None:
            raise ValueError(f"reward_func must be one only, got a second: {self._watched} is watched already")
        inner: Any = reward_func
        while isinstance(inner, functools.partial):
            inner = inner.func
        self._watched = str(getattr(inner, "__name__", type(inner).__name__))

        async def waited_for(*args: Any, **kwargs: Any) -> Any:
            rewards = await reward_func(*args, **kwargs)
            self._see(rewards, kwargs)
            return rewards

        def called(*args: Any, **kwargs: Any) -> Any:
            rewards = reward_func(*args, **kwargs)
            self._see(rewards, kwargs)
            return rewards

        waits = inspect.iscoroutinefunction(inner) or inspect.iscoroutinefunction(type(inner).__call__)
        watched = waited_for if waits else called
        watched.__name__ = watched.__qualname__ = self._watched  # TRL logs the rewards under it
        watched.__doc__ = getattr(inner, "__doc__", None)
        return watched

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **rest: Any) -> None:
        """Read the trainer's arguments, and go on from a checkpoint's counts."""
        if self._watched is None:
            raise ValueError(
                "reward_funcs must be watched, as reward_funcs=callback.watch(reward), "
                "got a GRPODynamicsCallback that watches none"
            )
        if not hasattr(args, "num_generations"):
            raise ValueError(f"trainer must be TRL's GRPOTrainer, got one with {type(args).__name__}")
        import trl

        installed = str(getattr(trl, "__version__"))  # noqa: B009
        if installed.startswith("0."):
            raise ValueError(f"trl must be {OLDEST} or newer for this callback, got {installed}")
        self._model, self._group_size = model, int(args.num_generations)
        self._weighted = getattr(args, "reward_weights", None) is not None  # the distance is then not that of rewards
        foresight = None
        try:
            foresight = Foresight(trainer_of("trl", installed, args, self._reward_scale))
        except ValueError as error:
            logger.warning("no prediction for this run, only what is measured is logged: %s", error)
        if state.global_step > 0 and len(self._observer.counts) == 0 and state.is_world_process_zero:
            self._go_on(args, state)
        self._observer.foresee(foresight)

    def on_save(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Put the counts beside the trainer's checkpoint."""
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if state.is_world_process_zero and folder.is_dir():
            self._observer.counts.save(folder / STATE_FILE)

    def load(self, checkpoint: str | os.PathLike[str]) -> None:
        """Take the counts of a checkpoint; those in the trainer's own ``output_dir`` are found without.

        Raises:
            ValueError: for a folder without them.
        """
        self._observer.counts.load(Path(checkpoint) / STATE_FILE)
        self._observer.foresee(self._observer.foresight)

    def table(self) -> pl.DataFrame:
        """Return every question seen: reference and latest counts, visits, and what the theory says of each.

        Complete in the main process only. Saved as CSV, JSONL or parquet it is a table for ``predict`` and ``advise``.
        """
        import polars as pl

        found, foresight = table(self._observer.counts.rows()), self._observer.foresight
        if foresight is None:
            return found
        seen = [foresight.outlook(*pair) for pair in found.select("successes", "samples").iter_rows()]
        names = ("p_star", "p_star_low", "p_star_high")
        columns = [pl.Series(name, [getattr(one, name) for one in seen], dtype=pl.Float64) for name in names]
        chances = [pl.Series(name, [one.chances[name] for one in seen], dtype=pl.Float64) for name in REGIMES]
        return found.with_columns(*columns, *chances)

    def _go_on(self, args: Any, state: Any) -> None:
        """Load the counts of the checkpoint that the trainer resumed from."""
        here = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        asked = args.resume_from_checkpoint
        for folder in (Path(asked), here) if isinstance(asked, str) else (here,):
            if (folder / STATE_FILE).is_file():
                self._observer.counts.load(folder / STATE_FILE)
                return
        logger.warning(
            "the run goes on from step %d without the counts of its first part (no %s in %s): p_ref is taken from now "
            "on; callback.load(CHECKPOINT) before training takes them from elsewhere",
            state.global_step,
            STATE_FILE,
            here,
        )

    def _see(self, rewards: Any, given: Mapping[str, Any]) -> None:
        """Count the rewards of one call of the reward function, those of all processes together."""
        if self._model is None:
            if getattr(given.get("trainer_state"), "max_steps", 0) > 0:
                self._once("callbacks must hold this callback: it sees no training, and logs nothing")
            return
        if not self._model.training:
            return
        prompts: Sequence[Any] = given["prompts"]
        questions = self._questions(prompts, given)
        values = [math.nan if reward is None else float(reward) for reward in rewards]
        if len(values) != len(prompts):
            return  # TRL refuses them, in words of its own
        self._check(values)
        given["log_extra"]("question_id", questions)  # into TRL's table of completions, for `validate --from trl`
        judged = [None if value != value else value >= self._threshold for value in values]
        main, rows = gathered(list(zip(questions, judged, strict=True)))
        if main:  # TRL logs the mean over the processes that have a number: this one's
            for name, value in self._observer.measured(rows, self._group_size).items():
                given["log_metric"](f"dynamics/{name}", value)

    def _questions(self, prompts: Sequence[Any], given: Mapping[str, Any]) -> list[str]:
        if self._question_column is None:
            return [question_of(prompt) for prompt in prompts]
        if self._question_column not in given:
            there = ", ".join(sorted(given.keys() - BESIDE)) or "it has none"
            raise ValueError(
                f"question_column must be a column of the dataset ({there}), got {self._question_column!r}"
            )
        return [str(value) for value in given[self._question_column]]

    def _check(self, values: Sequence[float]) -> None:
        """Say once where rewards are not what the theory is about."""
        if len(self._rewards) < 3:
            self._rewards |= {value for value in values if value == value}
            if len(self._rewards) > 2:
                some = ", ".join(f"{value:g}" for value in sorted(self._rewards)[:4])
                self._once(
                    f"rewards of {self._watched} have more than two values ({some}): right is what reaches "
                    f"{self._threshold:g}, and the theory is that of two values"
                )
            elif len(self._rewards) == 2:
                self._check_pair(*sorted(self._rewards))

    def _check_pair(self, low: float, high: float) -> None:
        """Say once where two rewards are not a right and a wrong one, or not as far apart as the theory takes them."""
        pair = f"rewards of {self._watched} are {low:g} and {high:g}"
        if not low < self._threshold <= high:
            self._once(f"{pair}, on one side of threshold={self._threshold:g}: right and wrong are not told apart")
        elif not self._weighted and abs(high - low - self._reward_scale) > 1e-6 * self._reward_scale:
            self._once(
                f"{pair}, and reward_scale is {self._reward_scale:g}: give reward_scale={high - low:g} for the right p*"
            )

    def _once(self, message: str) -> None:
        if message not in self._said:
            self._said.add(message)
            logger.warning("%s", message)


def gathered(rows: list[Row]) -> tuple[bool, list[Row]]:
    """Return whether this is the main process, and the rows of all processes in their order."""
    from accelerate import PartialState  # pyright: ignore[reportMissingTypeStubs]
    from accelerate.utils import gather_object  # pyright: ignore[reportMissingTypeStubs]

    state = PartialState()
    return bool(state.is_main_process), gather_object(rows) if state.num_processes > 1 else rows

"""A population of questions, each at its own p_ref, pushed through any dynamics: accuracy, solved, stuck, pass@k.

The questions are drawn, pushed and summed up chunk by chunk, so that their number is limited by time alone. Every
chunk has a random generator of its own and the sums are taken in the order of the chunks: the result does not depend
on the number of workers, nor on a stop in between.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from grpo_dynamics.arrays import batch_shape, require, require_choice
from grpo_dynamics.logodds import logit
from grpo_dynamics.simulation.checkpoints import load_sums, save_sums
from grpo_dynamics.simulation.flow_table import tabulate
from grpo_dynamics.simulation.population_sums import SHARES, Thresholds, require_whole, sums_of_block
from grpo_dynamics.simulation.question_sources import HIGHEST, LOWEST, QuestionSource, TableQuestions, Vector
from grpo_dynamics.theory.batch import BatchRecursion
from grpo_dynamics.theory.flow import Flow
from grpo_dynamics.theory.recursion import Recursion

if TYPE_CHECKING:
    import polars as pl

Dynamics = Recursion | Flow | BatchRecursion
Sampling = Literal["random", "quantiles"]
Progress = Callable[[int, int, str], None]

CHUNK = 1 << 18
"""Questions with one random generator: part of what a seed means."""

BLOCK = 1 << 14
"""Questions pushed at once: their arrays stay in cache."""

MANY = 100_000
"""Questions from which on a flow is tabulated, to about 1e-9 in log-odds, and no longer integrated for each."""

PIECE = 10
"""Steps of a block held at once."""


@dataclasses.dataclass(frozen=True)
class PopulationPath:
    """What becomes of a population, step by step; all arrays have shape (steps+1,).

    Attributes:
        questions: how many were pushed.
        accuracy: mean of p over the questions.
        accuracy_error: standard error of it as that of a random sample of questions; 0 where every row of a table was
            taken, and more than the error where quantiles were.
        spread: standard deviation of p over the questions.
        solved, stuck: shares of the questions with p above, below the thresholds.
        oscillating: share of the questions whose last two moves went in opposite directions, both by more than the
            threshold; 0 before step 2.
        pass_at: k → mean of 1−(1−p)^k, the chance that one of k samples is right.
    """

    questions: int
    accuracy: Vector
    accuracy_error: Vector
    spread: Vector
    solved: Vector
    stuck: Vector
    oscillating: Vector
    pass_at: dict[int, Vector]

    def table(self) -> pl.DataFrame:
        """Return one row per step."""
        import polars as pl

        columns = ("accuracy", "accuracy_error", "spread", "solved", "stuck", "oscillating")
        return pl.DataFrame(
            {
                "step": np.arange(len(self.accuracy)),
                **{name: getattr(self, name) for name in columns},
                **{f"pass_at_{k}": values for k, values in self.pass_at.items()},
            }
        )


def evolve(
    dynamics: Dynamics,
    questions: QuestionSource,
    steps: int,
    count: int | None = None,
    sampling: Sampling = "random",
    seed: int = 0,
    pass_at: tuple[int, ...] = (1, 4, 16, 64),
    thresholds: Thresholds | None = None,
    time_step: float = 1.0,
    workers: int = 1,
    progress: Progress | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
) -> PopulationPath:
    """Return what becomes of a population of questions under a dynamics, each from p_0 = p_ref.

    Args:
        dynamics: a recursion, a flow, or a batch recursion, with options that are numbers; its own p_ref and weights
            do not enter. In a batch recursion all questions feel the standard deviation of the whole distribution:
            the mean field, exact to rounding, not that of the questions drawn.
        questions: where p_ref comes from.
        steps: number of steps ≥ 0; of a flow, step n is its state at time n·time_step, to about 1e-9 in log-odds.
        count: number of questions ≥ 1; if not given, every row of a table once.
        sampling: "random" draws; "quantiles" takes the quantiles at (i + ½)/count of the distribution.
        seed: integer ≥ 0, for "random".
        pass_at: the k of pass@k, integers ≥ 1.
        thresholds: what counts as solved, stuck, oscillating; ``Thresholds()`` if not given.
        time_step: time between the steps of a flow, > 0.
        workers: threads ≥ 1; the result does not depend on it.
        progress: called with (questions done, all, what was done) after every chunk.
        checkpoint: a file in which the sums are kept after every chunk. If it exists, its run is continued, with the
            same result as without a stop.

    Raises:
        ValueError: for options out of range, a dynamics with arrays of options, no count where the source is no table,
            or a checkpoint of another run or where none can be written.

    >>> import grpo_dynamics as gd
    >>> from grpo_dynamics.simulation.question_sources import BetaQuestions
    >>> dynamics, questions = gd.grpo(beta=1.0, p_ref=0.5), BetaQuestions(0.5, 1.5)
    >>> path = evolve(dynamics, questions, steps=50, count=20_000, sampling="quantiles")
    >>> print(path.accuracy[[0, 50]].round(3), path.solved[[0, 50]].round(3))
    [0.25  0.745] [0.    0.532]
    """
    thresholds = Thresholds() if thresholds is None else thresholds
    if not isinstance(thresholds, Thresholds):
        raise ValueError(f"thresholds must be Thresholds(...), got {thresholds!r}")
    dynamics = _require_options(dynamics, steps, count, questions, sampling, seed, pass_at, time_step, workers)
    total = questions.nodes()[0].size if count is None else count
    push = _pushing(dynamics, questions, steps, time_step, many=total >= MANY)
    work = functools.partial(_chunk_sums, push, questions, steps, count, sampling, seed, pass_at, thresholds)
    drawn = (type(questions).__name__, hashlib.sha256(np.concatenate(questions.nodes()).tobytes()).hexdigest())
    run = repr((dynamics, *drawn, steps, count, sampling, seed, pass_at, thresholds, time_step, CHUNK))
    starts = range(0, total, CHUNK)
    done, sums = 0, np.zeros((steps + 1, len(SHARES) + len(pass_at)))
    if checkpoint is not None:
        done, sums = load_sums(checkpoint, run) or (done, sums)
    for chunk_sums in _in_order(work, starts[done:], total, workers):
        done, sums = done + 1, sums + chunk_sums
        if checkpoint is not None:
            save_sums(checkpoint, run, done, sums)
        if progress is not None:
            progress(min(done * CHUNK, total), total, "questions")
    return _path(sums, total, count is None, pass_at)


def _in_order(work: Callable[[int, int], Vector], starts: range, total: int, workers: int) -> Iterator[Vector]:
    """The sums of the chunks, in the order of the chunks whoever is first."""
    ends = [min(start + CHUNK, total) for start in starts]
    if workers == 1:
        yield from map(work, starts, ends)
        return
    with ThreadPoolExecutor(workers) as pool:
        pending = [pool.submit(work, first, last) for first, last in zip(starts, ends, strict=True)]
        try:
            for chunk in pending:
                yield chunk.result()
        finally:  # whoever stops to listen
            for chunk in pending:
                chunk.cancel()


def _chunk_sums(
    push: Callable[[Vector], Iterator[Vector]],
    questions: QuestionSource,
    steps: int,
    count: int | None,
    sampling: Sampling,
    seed: int,
    pass_at: tuple[int, ...],
    thresholds: Thresholds,
    first: int,
    last: int,
) -> Vector:
    """Sums over the questions first ≤ i < last of what PopulationPath averages, shape (steps+1, columns)."""
    weights = None
    if count is None:
        p_ref, weights = (column[first:last] for column in questions.nodes())
    elif sampling == "quantiles":
        p_ref = questions.quantiles(first, last, count)
    else:
        seeds = np.random.SeedSequence(seed, spawn_key=(first // CHUNK,))
        p_ref = questions.draw(np.random.Generator(np.random.PCG64(seeds)), last - first)
    sums = np.zeros((steps + 1, len(SHARES) + len(pass_at)))
    with np.errstate(all="ignore"):
        for i in range(0, last - first, BLOCK):
            part = slice(i, i + BLOCK)
            share = None if weights is None else weights[part]
            sums += sums_of_block(push(np.clip(p_ref[part], LOWEST, HIGHEST)), p_ref[part], share, pass_at, thresholds)
    return sums


def _pushing(
    dynamics: Dynamics, questions: QuestionSource, steps: int, time_step: float, many: bool
) -> Callable[[Vector], Iterator[Vector]]:
    """A function from success rates to the log-odds after 0, 1, …, steps steps."""

    def start_then(later: Callable[[Vector], Iterator[Vector]]) -> Callable[[Vector], Iterator[Vector]]:
        return lambda p_ref: itertools.chain([logit(p_ref)], later(p_ref) if steps else ())

    if isinstance(dynamics, Recursion):
        return start_then(lambda p_ref: _recursion_states(dataclasses.replace(dynamics, p_ref=p_ref), steps))
    if isinstance(dynamics, Flow):
        times = np.asarray(time_step * np.arange(1, steps + 1), dtype=np.float64)
        if many and steps:
            return start_then(tabulate(dynamics, times).states)
        return start_then(lambda p_ref: iter(dataclasses.replace(dynamics, p_ref=p_ref).integrate(times).log_odds))
    shifts = mean_field_shifts(dynamics, questions, steps)
    return start_then(
        lambda p_ref: (dataclasses.replace(dynamics, p_ref=p_ref, weights=None).shifted(s) for s in shifts)
    )


def _recursion_states(dynamics: Recursion, steps: int) -> Iterator[Vector]:
    state = logit(dynamics.p_ref)
    for i in range(0, steps, PIECE):
        states = dynamics.iterate(min(PIECE, steps - i), log_odds0=state).log_odds
        state = states[-1]
        yield from states[1:]


def mean_field_shifts(dynamics: BatchRecursion, questions: QuestionSource, steps: int) -> Vector:
    """Return the shifts Δ_1 … Δ_n = Ω/β that all questions see, from averages over their distribution.

    Args:
        dynamics: its own p_ref and weights do not enter.
        questions: where p_ref comes from.
        steps: n ≥ 0.

    Source: derived in docs/notebooks/10_batch_std.

    >>> import grpo_dynamics as gd
    >>> from grpo_dynamics.simulation.question_sources import TableQuestions
    >>> print(mean_field_shifts(gd.BatchRecursion(beta=1.0, p_ref=[0.1, 0.3]), TableQuestions([0.1, 0.3]), 3).round(4))
    [2.4994 2.1968 2.092 ]
    """
    p_ref, weights = questions.nodes()
    whole = dataclasses.replace(dynamics, p_ref=np.clip(p_ref, LOWEST, HIGHEST), weights=weights)
    state, shifts = logit(whole.p_ref), np.empty(steps)
    for n in range(steps):
        shifts[n] = whole.normalization.gap(state, weights) / whole.beta
        state = whole.shifted(shifts[n])
    return shifts


def _path(sums: Vector, total: int, exact: bool, pass_at: tuple[int, ...]) -> PopulationPath:
    means = sums if exact else sums / total  # the weights of a table sum to 1
    mean, square, solved, stuck, oscillating = means[:, : len(SHARES)].T
    spread = np.sqrt(np.maximum(square - mean * mean, 0.0))
    error = np.zeros_like(spread) if exact else spread / math.sqrt(max(total - 1, 1))
    tries = {k: means[:, len(SHARES) + i] for i, k in enumerate(pass_at)}
    return PopulationPath(total, mean, error, spread, solved, stuck, oscillating, tries)


def _require_options(
    dynamics: Any,
    steps: Any,
    count: Any,
    questions: Any,
    sampling: Any,
    seed: Any,
    pass_at: Any,
    time_step: Any,
    workers: Any,
) -> Dynamics:
    """The dynamics without a p_ref of its own; ValueError for what is out of range."""
    if not isinstance(dynamics, Recursion | Flow | BatchRecursion):
        raise ValueError(f"dynamics must be a Recursion, a Flow or a BatchRecursion, got {dynamics!r}")
    if not isinstance(questions, QuestionSource):
        raise ValueError(f"questions must be a source such as BetaQuestions(0.5, 1.5), got {questions!r}")
    require_whole("steps", steps, 0)
    require_whole("seed", seed, 0)
    require_whole("workers", workers, 1)
    if not isinstance(pass_at, tuple | list):
        raise ValueError(f"pass_at must be several integers >= 1, such as (1, 4), got {pass_at!r}")
    for k in pass_at:
        require_whole("pass_at", k, 1)
    require_choice("sampling", sampling, ("random", "quantiles"))
    require("time_step", time_step, "a finite number > 0", lambda x: (x.ndim == 0) & (x > 0) & (x < float("inf")))
    if count is not None:
        require_whole("count", count, 1)
    elif not isinstance(questions, TableQuestions):
        raise ValueError(f"count must be an integer >= 1 where questions are no table, got None with {questions!r}")
    if isinstance(dynamics, BatchRecursion):
        bare = dataclasses.replace(dynamics, p_ref=[0.5], weights=None)
        shape = tuple(getattr(bare.beta, "shape", ()))
    else:
        bare = dataclasses.replace(dynamics, p_ref=0.5)
        shape = batch_shape(bare)
    if shape:
        raise ValueError(f"dynamics must have options that are numbers, got options of shape {shape}")
    return bare

"""Which β, and which group size, suit a set of questions: what becomes of them for each, before anything is trained.

p_ref of a question is known from a few samples only, so nothing is computed at k/n. What the theory says is computed at
the nodes of a grid of p_ref, and its mean is taken over Jeffreys' posterior of every question
(:mod:`grpo_dynamics.posterior`).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from grpo_dynamics.arrays import Array, require
from grpo_dynamics.forecast import GRID, Goal, Outcome, outcome, passes, whole_steps
from grpo_dynamics.posterior import samples_to_exclude
from grpo_dynamics.question_files import Questions
from grpo_dynamics.theory.flow import Flow
from grpo_dynamics.theory.recursion import Recursion

if TYPE_CHECKING:
    import polars as pl

NEARLY = 0.01
"""Candidates that amplify less than the best by at most this share of what it amplifies count as good as it."""

Dynamics = Callable[[Array, int | None, Array], Recursion | Flow]
"""(β of shape (b, 1), G or None for exact statistics, p_ref of shape (n,)) to the dynamics of shape (b, n)."""

Progress = Callable[[int, int, str], None]


@dataclasses.dataclass(frozen=True, eq=False)
class Advice:
    """What is advised, and what that rests on.

    Attributes:
        beta, group_size: the advised ones; group_size None: exact statistics. Where not ``helps``, only those that the
            rest is computed with.
        expected, spread: mean and standard deviation of the number of questions that are amplified in a single stable
            state, over the posteriors.
        candidates: a row for each (G, β): shares of the questions and means over them.
        questions: a row for each question, with the advised β and G.
        passes: a row for each k: pass@k before, from counts without bias and from the posterior, and after.
        aim: what counted as success.
        whole_steps: share of the questions that would oscillate if each batch were optimised to its end; 0 for a
            recursion, whose steps are whole, and where the KL term is not KL(π‖π_ref).
    """

    beta: float
    group_size: int | None
    expected: float
    spread: float
    candidates: pl.DataFrame
    questions: pl.DataFrame
    passes: pl.DataFrame
    aim: Goal
    whole_steps: float

    @property
    def helps(self) -> bool:
        """Whether a candidate amplifies any question without a surprise, to the nearest whole number of questions."""
        return self.expected >= 0.5


def advise(
    questions: Questions,
    dynamics: Dynamics,
    betas: Sequence[float],
    group_sizes: Sequence[int | None],
    ks: Sequence[int] = (1, 8, 64),
    aim: Goal | None = None,
    progress: Progress | None = None,
) -> Advice:
    """Return the β and G that amplify the most questions without surprises, and what becomes of each question.

    A surprise is a second stable state or an oscillation. Of the candidates that amplify within 1 % as many questions
    as the best, the one that moves the policy least is advised: the smallest mean KL(π*‖π_ref).

    Args:
        questions: successes and samples of each.
        dynamics: the update rule, see :data:`Dynamics`.
        betas: candidates, > 0.
        group_sizes: candidates; None for exact statistics.
        ks: for pass@k, integers ≥ 1.
        aim: what counts as success.
        progress: called with (done, total, what is next).

    Raises:
        ValueError: for questions without counts, and values out of range.

    >>> import polars as pl
    >>> table = Questions(pl.Series("id", ["a", "b"]), np.array([0.25, 0.5]), np.array([2, 4]), np.array([8, 8]))
    >>> def rule(beta, group_size, p):
    ...     import grpo_dynamics as gd
    ...     return gd.trainer("trl", "1.16", beta=beta, num_generations=group_size).at(p)
    >>> found = advise(table, rule, [0.04, 0.4, 4.0], [8])
    >>> found.beta, round(found.expected, 2)
    (0.4, 2.0)
    """
    aim = aim or Goal()
    beta = np.asarray(betas, float)
    require("betas", beta, "finite numbers > 0", lambda x: (x > 0) & (x < math.inf))
    if beta.ndim != 1 or beta.size == 0 or not group_sizes:
        raise ValueError(f"betas and group_sizes must not be empty, got {len(betas)} and {len(group_sizes)}")
    successes, samples = counts(questions)
    pairs, place, number = np.unique(np.stack([successes, samples]), axis=1, return_inverse=True, return_counts=True)
    masses = GRID.masses(pairs[0], pairs[1])
    mixture = number @ masses / len(questions)
    outcomes: dict[int | None, Outcome] = {}
    for i, size in enumerate(group_sizes):
        if progress is not None:
            progress(i, len(group_sizes), f"groups of {size}")
        outcomes[size] = outcome(dynamics(beta[:, None], size, GRID.p), beta.size, size, aim)
    candidates = _candidates(outcomes, beta, mixture)
    best_candidate = chosen(candidates)
    size = best_candidate["group_size"]
    row = int(np.flatnonzero(beta == best_candidate["beta"])[0])
    best = outcomes[size]
    amplified = mean(masses, best.safely[row])
    return Advice(
        beta=float(best_candidate["beta"]),
        group_size=size,
        expected=float(number @ amplified),
        spread=math.sqrt(float(number @ (amplified * (1 - amplified)))),
        candidates=candidates,
        questions=_questions(questions, masses, place.reshape(-1), best, row, aim),
        passes=passes(successes, samples, ks, mixture, best, row),
        aim=aim,
        whole_steps=float(
            np.broadcast_to(whole_steps(dynamics(beta[[row], None], size, GRID.p)), (1, GRID.bins))[0] @ mixture
        ),
    )


def mean(masses: Array, values: Array) -> Array:
    """Return the mean of a probability over each posterior: within its values, as masses add up to 1 to rounding only.

    >>> mean(np.array([[0.5, 0.5 + 4e-16]]), np.array([1.0, 1.0]))
    array([1.])
    """
    return np.clip(masses @ values, values.min(), values.max())


def counts(questions: Questions) -> tuple[Array, Array]:
    """Return successes and samples of every question.

    Raises:
        ValueError: where they are not known: a rate alone does not say how sure it is.
    """
    needed = "questions must have numbers of successes and of samples: a rate alone does not say how sure it is"
    if questions.samples is None:
        raise ValueError(f"{needed}, got {len(questions)} rates")
    if questions.successes is not None:
        return np.asarray(questions.successes), np.asarray(questions.samples)
    successes = np.rint(questions.p_ref * questions.samples)
    wrong = np.flatnonzero(np.abs(successes - questions.p_ref * questions.samples) > 1e-6 * questions.samples + 1e-9)
    if wrong.size:
        at = int(wrong[0])
        raise ValueError(f"{needed}, got {questions.p_ref[at]} of {questions.samples[at]} samples in row {at + 1}")
    return successes.astype(np.int64), np.asarray(questions.samples)


def _candidates(outcomes: dict[int | None, Outcome], beta: Array, mixture: Array) -> pl.DataFrame:
    import polars as pl

    parts = [
        pl.DataFrame(
            {
                "group_size": pl.Series([size] * beta.size, dtype=pl.Int64),
                "beta": beta,
                "amplified_safely": found.safely @ mixture,
                "amplified": found.amplified @ mixture,
                "bistable": found.bistable @ mixture,
                "oscillating": found.oscillating @ mixture,
                "undecided": found.undecided @ mixture,
                "cannot_move": np.full(beta.size, (1 - found.moves) @ mixture),
                "p_ref": np.full(beta.size, GRID.p @ mixture),
                "p_star": found.p_star @ mixture,
                "kl": found.divergence @ mixture,
            }
        )
        for size, found in outcomes.items()
    ]
    return pl.concat(parts)


def chosen(candidates: pl.DataFrame) -> dict[str, Any]:
    """Return the row that is advised: nearly the most amplified, then the least movement."""
    safely = candidates["amplified_safely"]
    good = candidates.filter(safely >= (1 - NEARLY) * safely.max())  # pyright: ignore[reportOperatorIssue]
    return good.sort("kl", "group_size", "beta", descending=[False, False, True]).row(0, named=True)


def _questions(questions: Questions, masses: Array, place: Array, best: Outcome, row: int, aim: Goal) -> pl.DataFrame:
    import polars as pl

    successes, samples = counts(questions)
    after = best.moves * best.p_star[row] + (1 - best.moves) * GRID.p
    order = np.argsort(best.p_star[row], kind="stable")
    rising = np.cumsum(masses[:, order], axis=1)
    tail = (1 - aim.confidence) / 2
    low, high = (
        best.p_star[row][order][np.minimum((rising < level).sum(axis=1), GRID.bins - 1)] for level in (tail, 1 - tail)
    )
    more = np.maximum(samples_to_exclude(aim.floor, aim.confidence) - samples, 0)
    columns = {
        "p_ref": mean(masses, GRID.p),
        "p_star": mean(masses, best.p_star[row]),
        "p_star_low": low,
        "p_star_high": high,
        "p_after": mean(masses, after),
        "amplified_safely": mean(masses, best.safely[row]),
        "bistable": mean(masses, best.bistable[row] * 1.0),
        "oscillating": mean(masses, best.oscillating[row] * 1.0),
        "cannot_move": mean(masses, 1 - best.moves),
    }
    return pl.DataFrame(
        {
            questions.ids.name: questions.ids,
            "successes": successes,
            "samples": samples,
            **{name: values[place] for name, values in columns.items()},
            "more_samples": pl.Series(np.where(successes == 0, more, 0)),
        }
    )

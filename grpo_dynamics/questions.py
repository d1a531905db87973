"""Many questions at once: where each goes, and how sure that is when its success rate was measured.

A rate k/n is known to an interval only. The limit p* as a function of p_ref may jump (at a fold) and oscillate (past a
flip), so its ends say nothing about what lies between: the smallest and the largest limit are taken over the measured
value, both ends, and a grid of p_ref in between, finer where the limit changes. The image of a confidence set is a
confidence set of at least the same level; here up to what the limit does between two points of the grid.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from grpo_dynamics.arrays import Array
from grpo_dynamics.intervals import wilson
from grpo_dynamics.logodds import logit, sigmoid
from grpo_dynamics.prediction import SETTLED, long_run
from grpo_dynamics.question_files import Questions
from grpo_dynamics.theory.fixed_points import fixed_points
from grpo_dynamics.theory.flow import Flow
from grpo_dynamics.theory.orbits.limit import LimitKind, limit
from grpo_dynamics.theory.recursion import Recursion

if TYPE_CHECKING:
    import polars as pl

OUTCOMES = ("amplified", "stuck", "solved", "unstable", "undecided")
"""p rises to p*; no success was seen: p stays 0; no failure was seen: p stays 1; a cycle or irregular; still moving."""

GRID = sigmoid(np.linspace(-30.0, 30.0, 6001))
"""Values of p_ref between which the limit is followed: from 1e-13 to 1 − 1e-13, 0.01 apart in log-odds."""

FINEST = 0.001
"""Distance in log-odds down to which the grid is halved, where the limits of neighbours differ by more in p."""

COLUMNS = (
    *("successes", "samples", "p_ref", "p_ref_low", "p_ref_high", "outcome", "p_limit", "p_limit_low", "p_limit_high"),
    *("log_odds_limit", "orbit_low", "orbit_high", "period", "multiplier", "stable_states", "p_after_steps"),
)
"""What the table of predictions holds beside the ids."""

CHUNK = 20_000

Progress = Callable[[int, int, str], None]


@dataclasses.dataclass(frozen=True)
class Fates:
    """What becomes of success probabilities p_ref, each shape (n,); see :func:`predict_questions` for the columns.

    ``lowest`` and ``highest`` follow irregular orbits for longer than ``low`` and ``high``.
    """

    outcome: Array
    p_limit: Array
    log_odds_limit: Array
    low: Array
    high: Array
    lowest: Array
    highest: Array
    period: Array
    multiplier: Array
    stable_states: Array
    p_after_steps: Array


def fates(dynamics: Recursion | Flow, p_ref: Array, steps: int = 50) -> Fates:
    """Return where the orbits from p_0 = p_ref go, p_ref = 0 and 1 included, where nothing moves.

    Args:
        dynamics: a recursion or a flow; its own p_ref does not enter.
        p_ref: probabilities in [0, 1], shape (n,).
        steps: also tell p after so many steps.
    """
    inside = (p_ref > 0) & (p_ref < 1)
    edge = np.where(inside, np.nan, p_ref)
    outcome = np.where(p_ref > 0, OUTCOMES.index("solved"), OUTCOMES.index("stuck"))
    log_odds = np.where(p_ref > 0, np.inf, -np.inf)
    low, high, lowest, highest, mean, after = (edge.copy() for _ in range(6))
    multiplier, period = np.full(p_ref.shape, np.nan), np.ones(p_ref.shape, dtype=np.int64)
    states = np.zeros(p_ref.shape, dtype=np.int64)
    places = np.flatnonzero(inside)
    for at in (places[i : i + CHUNK] for i in range(0, places.size, CHUNK)):
        part = dataclasses.replace(dynamics, p_ref=p_ref[at])
        where = limit(part)
        settled = np.isin(where.kind, SETTLED)
        outcome[at] = np.select([settled, where.kind == LimitKind.UNDECIDED], [0, 4], 3)
        low[at], high[at] = sigmoid(where.low), sigmoid(where.high)
        (mean[at], lowest[at], highest[at]), period[at] = long_run(part, where), where.period
        log_odds[at] = np.where(settled, where.log_odds, np.nan)
        at_limit = part.multiplier(where.log_odds)
        multiplier[at] = np.where(where.kind == LimitKind.FIXED_POINT, at_limit, np.nan)
        states[at] = np.sum(fixed_points(part).stable, axis=0)
        state = logit(p_ref[at])
        for _ in range(steps):
            state = part.step(state)
        after[at] = sigmoid(state)
    return Fates(outcome, mean, log_odds, low, high, lowest, highest, period, multiplier, states, after)


def limit_range(dynamics: Recursion | Flow, p_low: Array, p_high: Array, found: Fates) -> tuple[Array, Array]:
    """Return the smallest and the largest p that orbits end at, over the p_ref in the intervals.

    An enclosure up to a grid, not a proof: over the measured value, both ends, and points 0.01 apart in log-odds
    between 1e-13 and 1 − 1e-13, halved down to 0.001 where the limits of neighbours differ by more than 0.001 in p.
    Where orbits are irregular, every p_ref has an attractor of its own, of which a thousand steps are seen: a finer
    grid may go a little beyond.

    Args:
        dynamics: a recursion or a flow; its own p_ref does not enter.
        p_low: lower ends of the intervals of p_ref, shape (n,).
        p_high: upper ends, shape (n,).
        found: the fates of the measured values inside, shape (n,).
    """
    covered = np.zeros(GRID.size + 1, dtype=np.int64)
    np.add.at(covered, np.searchsorted(GRID, p_low, "left"), 1)
    np.add.at(covered, np.searchsorted(GRID, p_high, "right"), -1)
    new = np.unique(np.concatenate([GRID[np.cumsum(covered)[:-1] > 0], p_low, p_high]))
    p = lows = highs = np.empty(0)
    while new.size:
        more = fates(dynamics, new, 0)
        p, order = np.unique(np.concatenate([p, new]), return_index=True)
        lows, highs = np.concatenate([lows, more.lowest])[order], np.concatenate([highs, more.highest])[order]
        new = _between(p, lows, highs, p_low, p_high)
    slices = np.stack([np.searchsorted(p, p_low, "left"), np.searchsorted(p, p_high, "right")], axis=-1).ravel()
    # reduceat: over [first, last), and over what follows, in turn
    smallest = np.minimum.reduceat(np.append(lows, np.inf), slices)[::2]
    largest = np.maximum.reduceat(np.append(highs, -np.inf), slices)[::2]
    return np.minimum(smallest, found.lowest), np.maximum(largest, found.highest)


def _between(p: Array, lows: Array, highs: Array, p_low: Array, p_high: Array) -> Array:
    """The middles, in log-odds, of neighbours inside some interval whose limits differ."""
    log_odds = logit(p)
    differ = (np.abs(np.diff(lows)) > FINEST) | (np.abs(np.diff(highs)) > FINEST)
    wide = (p[:-1] > 0) & (p[1:] < 1) & (log_odds[1:] > log_odds[:-1] + 2 * FINEST)
    begun = np.searchsorted(np.sort(p_low), p[:-1], "right")  # the ends are among p: no interval ends inside a gap
    ended = np.searchsorted(np.sort(p_high), p[:-1], "right")
    chosen = np.flatnonzero(differ & wide & (begun > ended))
    return sigmoid((log_odds[chosen] + log_odds[chosen + 1]) / 2)


def predict_questions(
    questions: Questions,
    dynamics: Recursion | Flow,
    steps: int = 50,
    confidence: float = 0.95,
    progress: Progress | None = None,
) -> pl.DataFrame:
    """Return a table with one row per question, in their order.

    Columns: the id; ``successes`` and ``samples`` (null if only rates were given); ``p_ref`` with its interval
    ``p_ref_low``, ``p_ref_high``; ``outcome``, one of ``OUTCOMES``; ``p_limit``, where p goes (its mean over a cycle
    or an irregular orbit), with the interval ``p_limit_low``, ``p_limit_high`` that follows from that of p_ref, and
    ``log_odds_limit`` (null where there is no single limit); ``orbit_low``, ``orbit_high``, between which p moves in
    the end; ``period``; ``multiplier`` at the limit (null where it is no interior fixed point); ``stable_states``, the
    number of stable fixed points; ``p_after_steps``. Intervals are null where no number of samples is known.

    Args:
        questions: what was measured.
        dynamics: a recursion or a flow; its own p_ref does not enter, every question starts at its own.
        steps: for ``p_after_steps``, an integer ≥ 0; 0 with a flow, which has no steps of its own.
        confidence: level of the intervals, in (0, 1).
        progress: called with (done, total, what is next).

    Raises:
        ValueError: for options that are not single numbers, a confidence out of range, or ids named as another column.
    """
    import polars as pl

    if questions.ids.name in COLUMNS:
        raise ValueError(
            f"id_column must be one that is not named as a column of the predictions ({', '.join(COLUMNS)}), "
            f"got {questions.ids.name!r}"
        )
    tell: Progress = progress or _silent
    tell(0, 3, "limits")
    found = _unique(lambda p: fates(dynamics, p, steps), np.asarray(questions.p_ref))
    tell(1, 3, "intervals")
    none = pl.Series([None] * len(questions), dtype=pl.Float64)
    intervals: dict[str, Any] = dict.fromkeys(("p_ref_low", "p_ref_high", "p_limit_low", "p_limit_high"), none)
    if questions.samples is not None:
        low, high = wilson(questions.p_ref, questions.samples, confidence)
        intervals = dict(zip(intervals, (low, high, *limit_range(dynamics, low, high, found)), strict=True))
    tell(2, 3, "table")
    counts = {"successes": questions.successes, "samples": questions.samples}
    empty = none.cast(pl.Int64)
    result = pl.DataFrame(
        {
            questions.ids.name: questions.ids,
            **{name: empty if value is None else value for name, value in counts.items()},
            "p_ref": questions.p_ref,
            "p_ref_low": intervals["p_ref_low"],
            "p_ref_high": intervals["p_ref_high"],
            "outcome": np.array(OUTCOMES)[found.outcome],
            "p_limit": found.p_limit,
            "p_limit_low": intervals["p_limit_low"],
            "p_limit_high": intervals["p_limit_high"],
            "log_odds_limit": pl.Series(found.log_odds_limit).fill_nan(None),
            "orbit_low": found.low,
            "orbit_high": found.high,
            "period": found.period,
            "multiplier": pl.Series(found.multiplier).fill_nan(None),
            "stable_states": found.stable_states,
            "p_after_steps": found.p_after_steps,
        }
    )
    tell(3, 3, "done")
    return result


def summary(table: pl.DataFrame) -> dict[str, Any]:
    """Return how many questions have which outcome, and their means, from the table of :func:`predict_questions`."""
    measured = table["p_limit_low"].null_count() == 0
    stuck = table.filter(table["outcome"] == "stuck")
    width = table["p_limit_high"] - table["p_limit_low"]
    return {
        "questions": table.height,
        "outcomes": {name: int((table["outcome"] == name).sum()) for name in OUTCOMES},
        "several_stable_states": int((table["stable_states"] > 1).sum()),
        "mean_p_before": table["p_ref"].mean(),
        "mean_p_limit": table["p_limit"].mean(),
        "mean_p_after_steps": table["p_after_steps"].mean() if "p_after_steps" in table.columns else None,
        "median_interval_width": width.median() if measured else None,
        "stuck_p_ref_high": stuck["p_ref_high"].max() if measured and stuck.height else None,
        "stuck_p_limit_high": stuck["p_limit_high"].max() if measured and stuck.height else None,
    }


def _silent(done: int, total: int, what: str) -> None:
    pass


def _unique(compute: Callable[[Array], Fates], p_ref: Array) -> Fates:
    """The fates of every p_ref, computed once for each different one: k of n has few values."""
    values, inverse = np.unique(p_ref, return_inverse=True)
    found = compute(values)
    return Fates(**{field.name: getattr(found, field.name)[inverse] for field in dataclasses.fields(Fates)})

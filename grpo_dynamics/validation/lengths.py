"""How long right and wrong answers are while a policy learns: what the normalisation by length does to them.

By the theory a loss that averages over the tokens of each answer punishes a long wrong answer less per token than a
short one, so that wrong answers become longer; the mean over all tokens of a batch, and a constant divisor, do not
(docs: length bias). What is measured is the answers that were drawn for the training. Questions differ in how long
their answers are and in how often these are wrong, so that the mean over all answers moves when easy questions are
learned; the shift of the questions' own means does not, and is what is judged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

from grpo_dynamics.plotting import GREY, PALETTE, new_figure, styled
from grpo_dynamics.validation.measured import Arm

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SPANS = 10
"""Into so many parts a run is cut, each of about as many iterations; the first is what the others are compared with."""

KINDS = ("right", "wrong")

SCHEMA: dict[str, Any] = {
    "span": pl.Int64,
    "iteration": pl.Float64,
    **{
        f"{kind}_{name}": pl.Int64 if name in ("answers", "questions") else pl.Float64
        for kind in KINDS
        for name in ("answers", "tokens", "questions", "shift", "shift_error")
    },
}
"""Columns of :func:`lengths`."""


def lengths(completions: pl.DataFrame, spans: int = SPANS) -> pl.DataFrame:
    """Return how long the answers of a run were, a row for each span of its iterations.

    Args:
        completions: a row for each answer: iteration ≥ 1, question_id, success, completion_length in tokens.
        spans: how many; no more than there are iterations.

    Returns:
        the span, the middle of its iterations, and for right and for wrong answers: how many ``answers``; their mean
        length in ``tokens``; and the ``shift``, in tokens, of a question's own mean length since the first span, in the
        mean over the ``questions`` that have such answers in both, with its standard error over them. With n answers in
        the one and m in the other a question weighs nm/(n + m), the inverse of its variance. Null where there is none.

    >>> drawn = {"iteration": [1, 1, 2, 2], "question_id": ["a"] * 4, "success": [True, False, False, False],
    ...          "completion_length": [2, 3, 4, 6]}
    >>> lengths(pl.DataFrame(drawn)).select("iteration", "right_tokens", "wrong_tokens", "wrong_shift").rows()
    [(1.0, 2.0, 3.0, 0.0), (2.0, None, 5.0, 2.0)]
    """
    if completions.is_empty():
        return pl.DataFrame(schema=SCHEMA)
    iterations = completions["iteration"].unique().sort()
    count = min(spans, len(iterations))
    first = {int(n): i * count // len(iterations) for i, n in enumerate(iterations)}
    place = pl.col("iteration").replace_strict(first, return_dtype=pl.Int64).alias("span")
    table = completions.with_columns(place)
    result = table.group_by("span").agg(iteration=(pl.col("iteration").min() + pl.col("iteration").max()) / 2)
    for kind in KINDS:
        of_kind = table.filter(pl.col("success") if kind == "right" else ~pl.col("success"))
        result = result.join(_of_kind(of_kind, kind), on="span", how="left")
    counts = [f"{kind}_{name}" for kind in KINDS for name in ("answers", "questions")]
    result = result.with_columns(pl.col(counts).fill_null(0))
    return result.select(pl.col(name).cast(kind) for name, kind in SCHEMA.items()).sort("span")


def _of_kind(answers: pl.DataFrame, kind: str) -> pl.DataFrame:
    """The columns of the right answers, or of the wrong ones, for each span that has some."""
    own = answers.group_by("span", "question_id").agg(mean=pl.col("completion_length").mean(), count=pl.len())
    first = own.filter(pl.col("span") == 0).select("question_id", before="mean", n="count")
    shift, weight = pl.col("mean") - pl.col("before"), pl.col("count") * pl.col("n") / (pl.col("count") + pl.col("n"))
    moved = own.join(first, on="question_id").with_columns(shift=shift, weight=weight)
    mean = (pl.col("shift") * pl.col("weight")).sum() / pl.col("weight").sum()
    # of a weighted mean, with the factor n/(n − 1) of a sample
    spread = (pl.col("weight") * (pl.col("shift") - mean)).pow(2).sum().sqrt() / pl.col("weight").sum()
    error = pl.when(pl.len() > 1).then(spread * (pl.len() / (pl.len() - 1)).sqrt())
    shifts = moved.group_by("span").agg(
        pl.len().alias(f"{kind}_questions"),
        mean.alias(f"{kind}_shift"),
        error.alias(f"{kind}_shift_error"),
    )
    sizes = answers.group_by("span").agg(
        pl.len().alias(f"{kind}_answers"), pl.col("completion_length").mean().alias(f"{kind}_tokens")
    )
    return sizes.join(shifts, on="span", how="left")


def lengths_of(arm: Arm) -> pl.DataFrame | None:
    """Return :func:`lengths` of an arm; None where no answers were kept, or all have the same length."""
    drawn = arm.completions
    if drawn is None or drawn.is_empty() or drawn["completion_length"].n_unique() < 2:
        return None
    return lengths(drawn)


def summary(table: pl.DataFrame | None) -> dict[str, Any] | None:
    """Return what a table of lengths comes to: the mean tokens at the start and at the end, and the shift between.

    The end is the last span that has such answers.

    >>> drawn = {"iteration": [1, 1, 2, 2], "question_id": ["a"] * 4, "success": [True, False, False, False],
    ...          "completion_length": [2, 3, 4, 6]}
    >>> summary(lengths(pl.DataFrame(drawn)))["wrong"]
    {'start': 3.0, 'end': 5.0, 'shift': 2.0, 'shift_error': None, 'questions': 1}
    """
    if table is None:
        return None
    told: dict[str, Any] = {}
    for kind in KINDS:
        known = table.filter(pl.col(f"{kind}_answers") > 0)
        both = known.filter(pl.col(f"{kind}_questions") > 0)
        last = both.row(-1, named=True) if both.height else dict.fromkeys(SCHEMA)
        told[kind] = {
            "start": known[f"{kind}_tokens"][0] if known.height else None,
            "end": known[f"{kind}_tokens"][-1] if known.height else None,
            "shift": last[f"{kind}_shift"],
            "shift_error": last[f"{kind}_shift_error"],
            "questions": last[f"{kind}_questions"] or 0,
        }
    return told


@styled
def draw(tables: Mapping[str, pl.DataFrame]) -> Figure:
    """Return the shift of the length of wrong and of right answers, a line for each arm.

    Args:
        tables: of :func:`lengths`, by the name of the arm.
    """
    figure = new_figure(6.9, 3.2)
    panels: Sequence[Any] = figure.subplots(1, 2, sharey=True)
    for axes, kind in zip(panels, ("wrong", "right"), strict=True):
        axes.axhline(0, color=GREY, lw=0.8)
        for i, (name, table) in enumerate(tables.items()):
            known = table.filter(pl.col(f"{kind}_shift").is_not_null())
            error = known[f"{kind}_shift_error"].fill_nan(None).fill_null(0.0)
            axes.errorbar(
                known["iteration"],
                known[f"{kind}_shift"],
                error,
                marker="o",
                ms=3,
                lw=1.1,
                capsize=2,
                color=PALETTE[i % len(PALETTE)],
                label=name,
            )
        axes.set(xlabel="iteration $n$", title=f"{kind} answers")
    panels[0].set_ylabel("longer since the start, in tokens")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(3, max(1, len(labels))))
    return figure

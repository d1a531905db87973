"""From completions to success probabilities: k of n for each question and step, and where p_ref comes from."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from grpo_dynamics.arrays import Array
from grpo_dynamics.intervals import wilson
from grpo_dynamics.question_files import read_questions
from grpo_dynamics.validation.measured import canonical
from grpo_dynamics.validation.readers.samples import Choices, Dump, Notes, prompt_id, shown

EXPECTED_SILENT = 5.0
"""Where so many groups should be all right or all wrong, and none is, the trainer has left them out."""

POINTS = 60
"""Longer runs are counted in windows of several steps: a point for each step is mostly noise, and fits no page."""


def decided(dump: Dump, choices: Choices, notes: Notes) -> pl.DataFrame:
    """Return the samples with ``success``, right or wrong.

    Rewards of 0 and 1 say it themselves; of two other values the larger is right; of more a threshold has to be given.

    Raises:
        ValueError: for rewards of more than two values without a threshold.
    """
    samples, threshold = dump.samples, choices.threshold if choices.threshold is not None else dump.threshold
    if threshold is None:
        values = samples["reward"].unique().sort().head(13).to_list()
        if not set(values) <= {0.0, 1.0}:
            if len(values) != 2:
                raise ValueError(
                    f"threshold must be given where rewards are not 0 and 1, got {shown(f'{x:g}' for x in values)}: a "
                    "completion is right where its reward is at least --threshold"
                )
            notes.add("two values", f"Rewards are {values[0]:g} and {values[1]:g}: the larger is a success")
            threshold = values[1]
        else:
            threshold = 1.0
    return samples.with_columns((pl.col("reward") >= threshold).alias("success"))


def visits(samples: pl.DataFrame, first_step: int) -> pl.DataFrame:
    """Return a row for each question and step it was seen at: iteration, question, successes, samples, lengths.

    ``iteration`` is the number of updates behind the policy that was sampled, 0 before training.

    Raises:
        ValueError: for a step before the first.
    """
    least = int(samples["step"].min())  # pyright: ignore[reportArgumentType]
    if least < first_step:
        raise ValueError(f"first_step must be at most {least}, the smallest step of the dump, got {first_step}")
    weight = pl.col("weight") if "weight" in samples.columns else pl.lit(1, pl.Int64)
    length = pl.col("completion_length").cast(pl.Float64)
    return (
        samples.lazy()
        .group_by((pl.col("step") - first_step).alias("iteration"), "question")
        .agg(
            (weight * pl.col("success")).sum().cast(pl.Int64).alias("successes"),
            (weight.sum() if "weight" in samples.columns else pl.len()).cast(pl.Int64).alias("samples"),
            length.filter("success").mean().alias("length_right"),
            length.filter(~pl.col("success")).mean().alias("length_wrong"),
        )
        .filter(pl.col("samples") > 0)
        .sort("iteration", "question")
        .collect()
    )


def group_size(seen: pl.DataFrame) -> int | None:
    """Return G, where nearly all questions were sampled so often at each step they were seen at; else None."""
    counts = seen["samples"].value_counts(sort=True)
    if not counts.height or counts["count"][0] < 0.5 * seen.height:
        return None
    return int(counts["samples"][0])


def is_filtered(seen: pl.DataFrame) -> bool:
    """Return whether groups that are all right or all wrong were left out: none is there, though many should be."""
    k, n = seen["successes"].to_numpy(), seen["samples"].to_numpy()
    silent = (k == 0) | (k == n)
    several = n > 1
    p = k / n
    return bool(
        several.any() and not silent[several].any() and np.sum((p**n + (1 - p) ** n)[several]) > EXPECTED_SILENT
    )


def unfiltered(share: Array, group_size: int) -> Array:
    """Return the p of which the share of right answers in mixed groups is this: p(1−p^(G−1))/(1−p^G−(1−p)^G).

    The share lies between 1/G, as p → 0, and 1 − 1/G; below and above p is 0 and 1.

    >>> unfiltered(np.array([0.25, 0.5, 0.6]), 4).round(3).tolist()
    [0.0, 0.5, 0.68...]
    """
    low, high = np.zeros_like(share, dtype=float), np.ones_like(share, dtype=float)
    for _ in range(60):
        p = (low + high) / 2
        q = 1 - p
        with np.errstate(all="ignore"):
            here = p * (1 - p ** (group_size - 1)) / (1 - p**group_size - q**group_size)
        above = np.where(np.isfinite(here), here, p) > share
        low, high = np.where(above, low, p), np.where(above, p, high)
    p = (low + high) / 2
    return np.where(share <= 1 / group_size, 0.0, np.where(share >= 1 - 1 / group_size, 1.0, p))


def pooled(seen: pl.DataFrame, window: int | None, notes: Notes) -> pl.DataFrame:
    """Return the visits with neighbouring steps counted together: ``window`` of the dumped steps each.

    Without a window so many that each question is seen about once in each, and that there are at most ``POINTS``. The
    policy before training stays alone.
    """
    later = seen.filter(pl.col("iteration") > 0)
    steps = later["iteration"].unique().sort()
    if window is None and later.height:
        once = round(len(steps) * later["question"].n_unique() / later.height)
        window = max(1, once, -(-len(steps) // POINTS))
        if window > 1:
            why = "questions are seen now and then" if once == window else f"there are {len(steps):,} steps"
            notes.add("window", f"{window} steps are counted together in each point, as {why} (--window)")
    if window in (None, 1):
        return seen
    assert window is not None
    label = {int(step): int(steps[min(i // window * window + window, len(steps)) - 1]) for i, step in enumerate(steps)}
    label[0] = 0
    lengths = [
        ((pl.col(name) * pl.col(weight)).sum() / pl.col(weight).filter(pl.col(name).is_not_null()).sum()).alias(name)
        for name, weight in (("length_right", "successes"), ("length_wrong", "_wrong"))
    ]
    return (
        seen.with_columns(
            pl.col("iteration").replace_strict(label, return_dtype=pl.Int64),
            (pl.col("samples") - pl.col("successes")).alias("_wrong"),
        )
        .group_by("iteration", "question")
        .agg(pl.col("successes", "samples").sum(), *lengths)
        .sort("iteration", "question")
    )


def with_reference(seen: pl.DataFrame, dump: Dump, choices: Choices, notes: Notes) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return (rows of iteration 0, the visits after it).

    p_ref of a question is what the user's table says; else what was counted before training; else its first visit
    stands for it, although the policy had moved by then: it is at most an upper bound, so ``low`` is 0.
    """
    given = _given(dump, choices, notes)
    before = seen.filter(pl.col("iteration") == 0).join(given, on="question", how="anti")
    later = seen.filter(pl.col("iteration") > 0)
    unknown = later.join(pl.concat([given.select("question"), before.select("question")]), on="question", how="anti")
    first = unknown.filter(pl.col("iteration") == pl.col("iteration").min().over("question"))
    later = later.join(first.select("iteration", "question"), on=["iteration", "question"], how="anti")
    if first.height:
        latest = int(first["iteration"].max())  # pyright: ignore[reportArgumentType]
        total = seen["question"].n_unique()
        notes.add(
            "p_ref",
            f"p_ref of {first.height:,} of {total:,} questions is not known: they were first seen after up to "
            f"{latest:,} updates. Their first visit stands for it; p rises in training, so that it is at most an upper "
            "bound, and the interval of p_ref goes down to 0. Counts from before training can be given with --p-ref",
        )
    reference = pl.concat(
        [
            given.with_columns(pl.lit(True).alias("given")),
            before.with_columns(pl.lit("before training").alias("p_ref_from")),
            first.with_columns(
                pl.format("first visit, after {} updates", "iteration").alias("p_ref_from"),
                pl.lit(0, pl.Int64).alias("iteration"),
                pl.lit(0.0).alias("low"),
            ),
        ],
        how="diagonal_relaxed",
    )
    return reference.with_columns(pl.lit(0, pl.Int64).alias("iteration")), later


def _given(dump: Dump, choices: Choices, notes: Notes) -> pl.DataFrame:
    """The user's table of p_ref, by the numbers of the questions: by their ids, or by their prompts."""
    counts = {"successes": pl.Int64, "samples": pl.Int64}
    schema: dict[str, Any] = {"question": pl.UInt32, **counts, "p": pl.Float64, "p_ref_from": pl.String}
    if choices.p_ref is None:
        return pl.DataFrame(schema=schema)
    try:
        table = read_questions(choices.p_ref)
    except ValueError as error:
        raise ValueError(str(error).replace("file must", "p_ref must", 1)) from None
    number = {name: i for i, name in enumerate(dump.questions.ids)}
    places = [number.get(text, number.get(prompt_id(text))) for text in map(str, table.ids)]
    if all(place is None for place in places):
        raise ValueError(
            f"p_ref must have questions of the dump, got {str(choices.p_ref)!r} with {str(table.ids[0])!r} and the "
            f"dump with {dump.questions.ids[0]!r}: the ids are neither the same nor prompts of the dump"
        )
    missing = len(number) - len({place for place in places if place is not None})
    if missing:
        notes.add("given", f"{choices.p_ref} has no p_ref for {missing:,} of {len(number):,} questions")
    if table.samples is None:
        notes.add("exact", f"{choices.p_ref} does not say from how many samples: its p_ref are taken as exact")
    found = pl.DataFrame(
        {
            "question": pl.Series(places, dtype=pl.UInt32),
            "successes": pl.Series(
                [None] * len(places) if table.successes is None else table.successes, dtype=pl.Int64
            ),
            "samples": pl.Series([None] * len(places) if table.samples is None else table.samples, dtype=pl.Int64),
            "p": table.p_ref,
            "p_ref_from": [str(choices.p_ref)] * len(places),
        }
    )
    return found.filter(pl.col("question").is_not_null()).unique("question", keep="first", maintain_order=True)


def success_table(dump: Dump, choices: Choices, notes: Notes) -> tuple[pl.DataFrame, pl.DataFrame, int | None]:
    """Return (the canonical table of success, the samples with success and iteration, G if the dump shows it)."""
    samples = decided(dump, choices, notes)
    first_step = dump.first_step if choices.first_step is None else choices.first_step
    seen = visits(samples, first_step)
    size, filtered = group_size(seen), is_filtered(seen)
    reference, later = with_reference(seen, dump, choices, notes)
    table = pl.concat([reference, pooled(later, choices.window, notes)], how="diagonal_relaxed")
    table = table.with_columns(pl.coalesce(pl.col("successes") / pl.col("samples"), "p").alias("p"))
    if filtered and size is not None:
        table = _of_mixed_groups(table.with_columns(pl.col("given").fill_null(False)), size)
        notes.add(
            "filtered",
            f"No group is all right or all wrong, though many should be: the trainer left them out. p is computed back "
            f"from the share x of right answers in mixed groups, x = p(1−p^{size - 1})/(1−p^{size}−(1−p)^{size}), "
            "which needs many groups: take larger windows (--window), or a run that keeps them",
        )
    names = pl.DataFrame({"question": range(len(dump.questions.ids)), "question_id": dump.questions.ids})
    table = table.join(names.cast({"question": pl.UInt32}), on="question", how="left", maintain_order="left")
    if not later.height:
        notes.add("once", "No question was seen again: there is nothing to compare with the predictions")
    columns = ["iteration", "question_id", "p", "low", "successes", "samples", "length_right", "length_wrong"]
    columns += [*(["high"] if filtered and size is not None else []), "p_ref_from"]
    return (
        canonical(table.select(columns)),
        samples.with_columns((pl.col("step") - first_step).alias("iteration")),
        size,
    )


def _of_mixed_groups(table: pl.DataFrame, size: int) -> pl.DataFrame:
    """Correct p and its interval where the counts are of mixed groups only; the user's own p_ref is left as it is."""
    own = (pl.col("samples") % size == 0) & pl.col("successes").is_not_null() & ~pl.col("given")
    mine = table.select(own.fill_null(False)).to_series().to_numpy()
    share = np.where(mine, table["p"].fill_null(0.5).to_numpy(), 0.5)
    count = np.where(mine, table["samples"].fill_null(1).to_numpy(), 1)
    low, high = (unfiltered(bound, size) for bound in wilson(share, count))
    p = np.where(mine, unfiltered(share, size), table["p"].to_numpy())
    opened = table["low"].fill_null(np.nan).to_numpy()
    low = np.where(mine & np.isnan(opened), np.minimum(low, p), opened)
    return table.with_columns(
        pl.Series("p", p),
        pl.Series("low", low).fill_nan(None),
        pl.Series("high", np.where(mine, np.maximum(high, p), np.nan)).fill_nan(None),
    )

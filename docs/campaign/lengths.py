"""How long right and wrong answers became, and whether each way to average over tokens did what it should."""

from __future__ import annotations

import math
from typing import Any

import polars as pl

from campaign.cells import table
from campaign.results import Result

ERRORS = 3
"""A shift of more standard errors than this is told from none."""

CAVEAT = (
    "The standard error is over the questions of one network. What it learns on one moves the others, so that they are "
    "not independent and the error is too small. Only several seeds would tell by how much, and here is one."
)


def lengths(result: Result) -> list[str]:
    """Return the lengths of runs whose answers have several, each shift beside its own prediction."""
    told = {arm["arm"]: arm["lengths"] for arm in result.arms if arm.get("lengths")}
    if not told:
        return []
    head = ("arm", "wrong: tokens at first, at last", "shift", "right: tokens at first, at last", "shift")
    rows = [[f"`{name}`", *_cells(kinds["wrong"]), *_cells(kinds["right"])] for name, kinds in told.items()]
    words = (
        "Length of the answers, in tokens; *shift* is how much a question's own mean has changed since the first tenth "
        "of the run, with its standard error over the questions."
    )
    verdicts = [f"- `{name}`: {line}" for name in told if (line := _against(result, told, name))]
    asked = (
        "A mean over the tokens of each answer should make wrong answers longer; a mean over all tokens, and a "
        f"constant divisor, should leave them. Beyond {ERRORS} standard errors a shift is taken for one:"
    )
    blocks = [f"{words}\n\n{table(head, rows)}"]
    return [*blocks, asked + "\n\n" + "\n".join([*verdicts, *_order(result, told)]), CAVEAT] if verdicts else blocks


def verdict(result: Result, told: dict[str, Any], name: str) -> str | None:
    """Return "agrees", "contradicts" or "cannot be told" for the wrong answers of an arm.

    "Agrees" with none needs errors small enough to show the shift of an arm that should have one and has.
    """
    wrong, longer = told[name]["wrong"], _longer(result, name)
    if longer is None or wrong["shift"] is None or not wrong["shift_error"]:
        return None
    beyond = abs(wrong["shift"]) > ERRORS * wrong["shift_error"]
    if beyond:
        return "agrees" if longer and wrong["shift"] > 0 else "contradicts"
    shown = [told[other]["wrong"]["shift"] for other in told if _longer(result, other) and _shown(result, told, other)]
    fine = not longer and shown and ERRORS * wrong["shift_error"] < max(shown)
    return "agrees" if fine else "cannot be told"


def _shown(result: Result, told: dict[str, Any], name: str) -> bool:
    """Whether an arm that should make wrong answers longer does."""
    wrong = told[name]["wrong"]
    return bool(wrong["shift_error"]) and wrong["shift"] > ERRORS * wrong["shift_error"]


def _longer(result: Result, name: str) -> bool | None:
    """Whether the aggregation of an arm should make wrong answers longer; None where it says nothing of them."""
    training = result.config(name).get("training") or {}
    aggregation = training.get("aggregation")
    return aggregation == "sequence_mean" if training.get("ratio_level") == "token" else None


def _against(result: Result, told: dict[str, Any], name: str) -> str | None:
    """One arm: its prediction, its shift, the verdict, and the spans before."""
    word, wrong = verdict(result, told, name), told[name]["wrong"]
    if word is None:
        return None
    predicted = "longer" if _longer(result, name) else "as long as before"
    said = f"wrong answers predicted {predicted}, shift {shift(wrong)}: **{word}**."
    spans = _spans(result, name)
    if spans.height > 1:
        before = ", ".join(
            f"{x:+.2f} ± {e:.2f}" for x, e in spans.select("wrong_shift", "wrong_shift_error").rows()[-3:-1]
        )
        beyond = spans.filter(pl.col("wrong_shift").abs() > ERRORS * pl.col("wrong_shift_error")).height
        said += f" In the spans before: {before}; beyond {ERRORS} standard errors in {beyond} of {spans.height} spans."
    return said


def _order(result: Result, told: dict[str, Any]) -> list[str]:
    """Each arm that should make wrong answers longer beside each that should not."""
    known = [name for name in told if verdict(result, told, name)]
    return [
        _beside(one, told[one]["wrong"], other, told[other]["wrong"])
        for one in known
        for other in known
        if _longer(result, one) and not _longer(result, other)
    ]


def _beside(one: str, longer: dict[str, Any], other: str, wrong: dict[str, Any]) -> str:
    """The difference of two shifts, which should be above 0."""
    more, error = longer["shift"] - wrong["shift"], math.hypot(longer["shift_error"], wrong["shift_error"])
    word = "cannot be told"
    if abs(more) > ERRORS * error:
        word = "agrees" if more > 0 else "contradicts"
    side = " (measured is the other way round)" if more < 0 else ""
    return f"- `{one}` beside `{other}`: predicted longer, by {more:+.2f} ± {error:.2f}{side}: **{word}**."


def _spans(result: Result, name: str) -> pl.DataFrame:
    """The spans after the first, of an arm, whose shift is known."""
    path = result.folder / "lengths.parquet"
    if not path.is_file():
        return pl.DataFrame()
    found = pl.read_parquet(path).filter((pl.col("arm") == name) & (pl.col("span") > 0)).sort("span")
    return found.filter(pl.col("wrong_shift").is_not_null() & pl.col("wrong_shift_error").is_not_null())


def lengths_line(result: Result) -> list[str]:
    """Return the shift of wrong answers in every arm whose aggregation says something of them, in one line."""
    told = {arm["arm"]: arm["lengths"] for arm in result.arms if arm.get("lengths")}
    words = {name: word for name in told if (word := verdict(result, told, name))}
    shown = ", ".join(f"`{name}` {shift(told[name]['wrong'])} ({word})" for name, word in words.items())
    return [f"wrong answers longer by, in tokens (beside the prediction): {shown}"] if shown else []


def shift(told: dict[str, Any]) -> str:
    """Return a shift with its standard error."""
    error = "" if told["shift_error"] is None else f" ± {told['shift_error']:.2f}"
    return "–" if told["shift"] is None else f"{told['shift']:+.2f}{error}"


def _cells(told: dict[str, Any]) -> list[str]:
    return ["–", "–"] if told["start"] is None else [f"{told['start']:.2f}, {told['end']:.2f}", shift(told)]

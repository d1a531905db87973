"""Questions of small steps that end far from their p*, which a median does not show: which, and why, as far as told."""

from __future__ import annotations

from typing import Any

import polars as pl

from campaign.cells import decimal
from campaign.results import Result
from grpo_dynamics.validation.compare import compare
from grpo_dynamics.validation.run_directory import read_run
from grpo_dynamics.validation.summary import short

FAR = 0.1
"""Where one question in twenty ends farther from its p* than this, the page says so."""

CAUSES = {
    "silent": "where more than half of their groups are silent",
    "moving": "still moving when the run ended",
    "counted": "within what the count of p_ref leaves open",
    "open": "for a reason that these tables do not tell",
}

SILENT = (
    "A group without a right or without a wrong answer is silent: its reward prefers no answer, so that the question "
    "hardly leaves the place. What took it there the tables do not tell; chance and the other questions, which share "
    "the network, are what the theory does not have."
)


def far(result: Result) -> list[str]:
    """Return the arms of small steps some of whose questions end elsewhere, and the causes that can be told."""
    told = [arm for arm in result.arms if has_far(arm)]
    if not told:
        return []
    words = f"**Some questions end elsewhere**, one in twenty farther than {FAR:g} from p\\*, whatever the median says:"
    lines = "\n".join(f"- {_line(result, arm)}" for arm in told)
    return [f"{words}\n\n{lines}", *([SILENT] if CAUSES["silent"] in lines else [])]


def has_far(arm: dict[str, Any]) -> bool:
    """Whether one question in twenty ends far from its p*, of an arm of which the end only is predicted."""
    return not arm["residual"]["points"] and (arm["p_infinity"]["percentile_95"] or 0.0) > FAR


def _line(result: Result, arm: dict[str, Any]) -> str:
    """One arm: how far, whether that is a pass, and the causes."""
    end = arm["p_infinity"]
    said = [f"`{arm['arm']}`: R² = {decimal(end['r2'])}."]
    if end["r2"] is not None and end["r2"] < 0:
        said.append("Below 0: p\\* tells less about where its questions end than one mean for all of them would.")
    if arm["passed"]:
        said.append("It passes all the same: its bounds are on medians.")
    shared = set[str].intersection(*(set(other["not_modelled"]) for other in result.arms))
    said.append(causes(result, arm))
    said += [words for words in arm["not_modelled"] if words not in shared]
    return " ".join(said)


def causes(result: Result, arm: dict[str, Any]) -> str:
    """Return how many questions end far from their p*, in which states, and the farthest of them."""
    size = _group_size(result, arm["arm"])
    table = ends(result, arm["arm"]).filter(pl.col("residual").abs() > FAR).sort(pl.col("residual").abs())
    if table.is_empty():
        return f"No question ends farther than {FAR:g} from its p\\*."
    found = [cause(row) for row in table.iter_rows(named=True)]
    counts = "; ".join(f"{found.count(name)} {words}" for name, words in CAUSES.items() if name in found)
    worst = table.row(-1, named=True)
    said = (
        f"Of {arm['questions']} questions {table.height} end farther than {FAR:g} from p\\*: {counts}. The farthest, "
        f"`{worst['question_id']}`, has p_ref = {short(worst['p_ref'])}, p\\* = {short(worst['p_star'])}, "
        f"p_∞ = {short(worst['p_infinity'])}"
    )
    return said + (f", where {100 * worst['silent']:.0f} % of groups of {size} are silent." if size else ".")


def cause(row: dict[str, Any]) -> str:
    """Return the first key of :data:`CAUSES` that holds for a row of :func:`ends`."""
    if row["silent"] > 0.5:
        return "silent"
    if row["still_moving"]:
        return "moving"
    return "counted" if row["covered"] and row["p_ref_high"] > row["p_ref_low"] else "open"


def ends(result: Result, arm: str) -> pl.DataFrame:
    """Return where each question of an arm ended beside its p*, and the chance of a ``silent`` group there."""
    [own] = read_run(result.folder / arm).arms
    p, size = pl.col("p_infinity"), _group_size(result, arm)
    silent = p**size + (1 - p) ** size if size else pl.lit(0.0)
    return compare(own).end_table.filter(pl.col("residual").is_not_nan()).with_columns(silent=silent)


def moving(arm: dict[str, Any]) -> str:
    """Return how many questions were still moving when a run ended."""
    return f"{arm['p_infinity']['still_moving']} of {arm['questions']} questions were still moving at the end."


def _group_size(result: Result, arm: str) -> int | None:
    """The size of the sampled groups; None for statistics of infinitely many answers."""
    return (result.config(arm)["training"].get("normalization") or {}).get("group_size")

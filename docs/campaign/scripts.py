"""What the tables of the scripts come to: models, speed, and the trainers side by side."""

from __future__ import annotations

from typing import Any

import polars as pl

from campaign.results import Result, updates
from grpo_dynamics.validation.summary import short

LAST = 2 / 3
"""From this share of the steps on their mean is where a question ends."""


def script_line(table: pl.DataFrame) -> str:
    """Return one line of a table of pre-training, of throughput or of trainers."""
    if "share_inside" in table.columns:
        return _pretraining(table)
    return _throughput(table) if "fraction_of_matmul" in table.columns else _trainers(table)


def _pretraining(table: pl.DataFrame) -> str:
    share, seconds, sizes = table["share_inside"] * 100, table["seconds"], table["parameters"] / 1e6
    small = ", none of a million or more," if _high(sizes) < 1 else ""
    return (
        f"{table.height} models of {_low(sizes):.2g} to {_high(sizes):.3g} million parameters{small} in "
        f"{_low(seconds):.0f} to {_high(seconds):.0f} s each; p_ref in (0.01, 0.99) for {_low(share):.0f} to "
        f"{_high(share):.0f} % of the questions"
    )


def _throughput(table: pl.DataFrame) -> str:
    """Of each size: rollouts, update and the whole step, ours beside the others'."""
    best = updates(table)
    if not best.height:
        return "no update measured"
    said = [f"update at up to {100 * _high(best['fraction_of_matmul']):.0f} % of the measured matmul rate"]
    slower: list[str] = []
    sizes = list(dict.fromkeys(best["size"]))
    for size in sizes:
        parts = [words for part in ("rollout", "update", "step") if (words := _speeds(table, size, part))]
        said += [f"{size}, samples a second: {'; '.join(parts)}"] if parts else []
        rates = _rates(table, size, "step")
        ours = [rate for what, rate in rates.items() if what.startswith("ours")]
        if ours and "transformers" in rates and max(ours) < rates["transformers"]:
            slower.append(size)
    if slower:
        said.append(
            f"Our whole step is slower than the plain loop with transformers at {len(slower)} of {len(sizes)} sizes"
        )
    return ". ".join(said)


def _speeds(table: pl.DataFrame, size: str, part: str) -> str:
    rates = ", ".join(f"{what} {rate:.0f}" for what, rate in _rates(table, size, part).items())
    return f"{part} {rates}" if rates else ""


def _rates(table: pl.DataFrame, size: str, part: str) -> dict[str, float]:
    """Samples a second by what was measured; failed libraries have none."""
    if "samples_per_second" not in table.columns:
        return {}
    found = table.filter(
        (pl.col("size") == size) & (pl.col("part") == part) & pl.col("samples_per_second").is_not_null()
    )
    return dict(found.select("what", "samples_per_second").rows())


def bound_by(result: Result, goal: float) -> list[str]:
    """Return what bounds the update of the largest model, where it misses its share of the matmul rate."""
    assert result.table is not None
    best = updates(result.table)
    largest = best.filter(pl.col("parameters") == pl.col("parameters").max())
    if largest.is_empty() or _high(largest["fraction_of_matmul"]) >= goal:
        return []
    size = str(largest["size"][0])
    found = result.table.filter((pl.col("part") == "profile") & (pl.col("size") == size)).sort("share", descending=True)
    where = ", ".join(
        f"{what} {100 * share:.0f} %" for what, share in found.select("what", "share").head(3).iter_rows()
    )
    said = (
        f"**What failed, and why:** the update of the largest model ({size}) reaches "
        f"{100 * _high(largest['fraction_of_matmul']):.0f} % of the measured matmul rate, and {100 * goal:.0f} % are "
        "asked."
    )
    said += f" Most of its time goes to: {where}." if where else " No profile was measured."
    small = "" if result.on_gpu else " This is a CPU and a small model: what bounds them there says little of a GPU."
    return [said + small]


def _trainers(table: pl.DataFrame) -> str:
    """How far each arm ends from its own rule, and whether it is the nearest."""
    ended = table.filter(pl.col("step") > LAST * pl.col("step").max()).group_by("arm", "question_id")
    ended = ended.agg(p=pl.col("p").mean(), predicted=pl.col("predicted").first())
    rules = ended.select("question_id", rule="arm", goal="predicted")
    far = (
        ended.join(rules, on="question_id").group_by("arm", "rule").agg(d=(pl.col("p") - pl.col("goal")).abs().median())
    )
    own, other = far.filter(pl.col("arm") == pl.col("rule")), far.filter(pl.col("arm") != pl.col("rule"))
    nearest = far.sort("d").group_by("arm").first().filter(pl.col("arm") == pl.col("rule")).height
    return (
        f"{nearest} of {own.height} arms end nearest to their own prediction: {short(_low(own['d']))} to "
        f"{short(_high(own['d']))} from it in the median, {short(_low(other['d']))} to {short(_high(other['d']))} from "
        "those of the others"
    )


def _low(column: pl.Series) -> float:
    return _number(column.min())


def _high(column: pl.Series) -> float:
    return _number(column.max())


def _number(value: Any) -> float:
    return float(value)

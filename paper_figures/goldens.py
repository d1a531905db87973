"""The numbers the paper prints or draws, computed again: quantity, paper, ours, difference, verdict.

``goldens.csv`` holds what the paper says and names the formula to hold against it. Its kinds: "printed"; "drawn"
(measured in the pixels of a picture); "contradiction" (a setting the paper states, but did not use for the number
``same_as``); "ours" (numbers of our own theory); "read_off" and "measured" (data, with nothing to compute); "setting"
(what the paper's training run was made with: nothing to compute either).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from importlib.resources import files
from typing import Any

import numpy as np
import polars as pl
from scipy.optimize import brentq

from grpo_dynamics import Whitened, fixed_points, grpo, logit, sigmoid
from grpo_dynamics.theory.amplification import stability_bound
from grpo_dynamics.theory.orbits.limit import limit

AGREES = "agrees"
INCONSISTENT = "paper's own inconsistency"
READ_OFF = "read off by eye"
MEASURED = "paper's measurement"
SETTING = "paper's setting"
DIFFERS = "DIFFERS"
VERDICTS = (AGREES, INCONSISTENT, READ_OFF, MEASURED, SETTING, DIFFERS)

_DATA = {"read_off": READ_OFF, "measured": MEASURED, "setting": SETTING}

_NUMBERS = ("beta", "p_ref", "eps", "p", "paper", "tolerance")


@functools.cache
def paper_values() -> pl.DataFrame:
    """Return ``goldens.csv``."""
    source = files("paper_figures").joinpath("goldens.csv").read_bytes()
    text = pl.read_csv(source, infer_schema=False)
    return text.with_columns(pl.col(*_NUMBERS).cast(pl.Float64), pl.col("digits").cast(pl.Int64)).with_columns(
        pl.col("tolerance").fill_null(0.5 * 10.0 ** -pl.col("digits"))
    )


def p_50(beta: float, p_ref: float, eps: float, p: float) -> float:
    return float(grpo(beta, p_ref, eps).iterate(50, p0=p).p[-1])


def p_50_60_digits(beta: float, p_ref: float, eps: float, p: float) -> float:
    """The same in p itself and with 60 digits: another formula, another arithmetic."""
    import mpmath  # pyright: ignore[reportMissingTypeStubs]

    with mpmath.workdps(60):
        beta, p_ref, eps, p = (mpmath.mpf(repr(x)) for x in (beta, p_ref, eps, p))
        for _ in range(50):
            odds = (1 - p_ref) / p_ref * mpmath.exp(-1 / (beta * mpmath.sqrt(p * (1 - p) + eps)))
            p = 1 / (1 + odds)
        return float(p)


def h(beta: float, p_ref: float, eps: float, p: float) -> float:
    return float(sigmoid(grpo(beta, p_ref, eps).step(logit(p))))


def bound(eps: float, p: float) -> float:
    return float(stability_bound(logit(p), Whitened(eps)))


def equal_weights_at(eps: float) -> float:
    grpo_weights = Whitened(eps)
    at = brentq(lambda x: grpo_weights.positive(x) - grpo_weights.negative(x), -3.0, 4.0, xtol=1e-14)
    return float(sigmoid(at))


def equal_weight(eps: float) -> float:
    return float(Whitened(eps).positive(logit(equal_weights_at(eps))))


def nearest_fixed_point(beta: float, p_ref: float, eps: float, p: float) -> float:
    fixed = fixed_points(grpo(beta, p_ref, eps)).p
    return float(fixed[np.nanargmin(np.abs(fixed - p))])


def fixed_point(which: int, what: str) -> Callable[..., float]:
    return lambda beta, p_ref, eps: float(getattr(fixed_points(grpo(beta, p_ref, eps)), what)[which - 1])


def cycle(end: str) -> Callable[..., float]:
    return lambda beta, p_ref, eps, p: float(sigmoid(getattr(limit(grpo(beta, p_ref, eps), p0=p), end)))


def v1_onset(eps: float) -> float:
    from paper_figures.amplification_region import onset

    return onset(eps)


FORMULAS: dict[str, Callable[..., float]] = {
    "p_50": p_50,
    "p_50_60_digits": p_50_60_digits,
    "h": h,
    "bound": bound,
    "equal_weights_at": equal_weights_at,
    "equal_weight": equal_weight,
    "nearest_fixed_point": nearest_fixed_point,
    "fixed_point_1": fixed_point(1, "p"),
    "fixed_point_2": fixed_point(2, "p"),
    "log_odds_3": fixed_point(3, "log_odds"),
    "multiplier_1": fixed_point(1, "multiplier"),
    "multiplier_2": fixed_point(2, "multiplier"),
    "cycle_low": cycle("low"),
    "cycle_high": cycle("high"),
    "v1_onset": v1_onset,
}


def compute(row: dict[str, Any]) -> float | None:
    """Return our value for a row of ``goldens.csv``; None where there is nothing to compute."""
    if row["formula"] is None:
        return None
    options = {name: row[name] for name in ("beta", "p_ref", "eps", "p") if row[name] is not None}
    return FORMULAS[row["formula"]](**options)


def judge(row: dict[str, Any], ours: float | None, partner: dict[str, Any] | None) -> str:
    """Return the verdict on a row, given our value and, for a contradiction, the judged row it names."""
    if ours is None:
        return _DATA.get(row["kind"], DIFFERS)
    agrees = abs(ours - row["paper"]) <= row["tolerance"] * (1 + 1e-9)
    if row["kind"] != "contradiction":
        return AGREES if agrees else DIFFERS
    # excused only while the same number of the paper is ours at the settings that it was really made with
    same = partner is not None and partner["verdict"] == AGREES and partner["paper"] == row["paper"]
    return AGREES if agrees else INCONSISTENT if same else DIFFERS


def table(values: pl.DataFrame | None = None) -> pl.DataFrame:
    """Return every golden number, computed now: id, where, quantity, paper, ours, difference, verdict, digits, note.

    Args:
        values: in place of :func:`paper_values`, with its columns.
    """
    rows: list[dict[str, Any]] = (paper_values() if values is None else values).to_dicts()
    judged: dict[str, dict[str, Any]] = {}
    for row in sorted(rows, key=lambda row: row["kind"] == "contradiction"):
        ours = compute(row)
        verdict = judge(row, ours, judged.get(row["same_as"] or ""))
        difference = None if ours is None else ours - row["paper"]
        judged[row["id"]] = {**row, "ours": ours, "difference": difference, "verdict": verdict}
    columns = ["id", "where", "quantity", "paper", "ours", "difference", "verdict", "digits", "note"]
    ordered = [judged[row["id"]] for row in rows]
    return pl.DataFrame(ordered, infer_schema_length=None).select(columns)


def shown(row: dict[str, Any]) -> tuple[str, str, str]:
    """Return paper, ours and difference as they are printed."""
    digits = row["digits"]
    paper = f"{row['paper']:.{digits}f}"
    if row["ours"] is None:
        return paper, "–", "–"
    return paper, f"{row['ours'] + 0.0:.{digits}f}", f"{row['difference']:+.1e}" if row["difference"] else "0"


def counts(judged: pl.DataFrame) -> dict[str, int]:
    """Return how many rows have each verdict, in the order of the legend; DIFFERS is always among them."""
    found = dict(judged.group_by("verdict").len().iter_rows())
    return {verdict: found.get(verdict, 0) for verdict in VERDICTS}


def as_text(judged: pl.DataFrame) -> str:
    """Return the table for a terminal, with the counts of verdicts under it."""
    head = ("where", "quantity", "paper", "ours", "difference", "verdict")
    rows = [(r["where"], r["quantity"], *shown(r), r["verdict"]) for r in judged.to_dicts()]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    sides = "<<>>><"

    def line(cells: tuple[str, ...]) -> str:
        parts = (f"{c:{s}{w}}" for c, s, w in zip(cells, sides, widths, strict=True))
        return "  ".join(parts).rstrip()

    rule = "  ".join("─" * width for width in widths)
    total = ", ".join(f"{number} {verdict}" for verdict, number in counts(judged).items())
    return "\n".join([line(head), rule, *map(line, rows), rule, f"{judged.height} numbers: {total}"])

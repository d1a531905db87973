"""Alternating timing and the printed table."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping


def alternate(competitors: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each competitor over rounds in which all run once, in turn; one unmeasured round first."""
    seconds: dict[str, list[float]] = {name: [] for name in competitors}
    for turn in range(-1, rounds):
        for name, run in competitors.items():
            gc.collect()
            start = time.perf_counter()
            run()
            if turn >= 0:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def table(title: str, rows: list[tuple[str, str, str]]) -> None:
    """Print (what, number, remark) in columns."""
    print(f"\n{title}")
    widths = [max(len(row[i]) for row in rows) for i in range(2)]
    for what, number, remark in rows:
        print(f"  {what:<{widths[0]}}  {number:>{widths[1]}}  {remark}".rstrip())


def verdict(value: float, target: float, at_least: bool) -> str:
    """Return "target ≥ 4: reached" or "...: missed"."""
    good = value >= target if at_least else value <= target
    return f"target {'≥' if at_least else '≤'} {target:g}: {'reached' if good else 'MISSED'}"

"""The tables of a sweep as one, what they come to, and a picture of it."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grpo_dynamics.sweep.store import Store, read_about

if TYPE_CHECKING:
    import polars as pl
    from matplotlib.figure import Figure

STEPS = ("step", "iteration")
"""Columns that count the steps of a task; a task comes to what it is at the last."""

LINES = 7
"""Up to so many values of the second axis are lines of their own; more are the rows of a plane."""

RANDOM = ("seed",)
"""Axes over which is averaged."""


def gather(folder: str | os.PathLike[str]) -> pl.LazyFrame:
    """Return the tables of all tasks that are done as one, in the order of the sweep, read when it is asked for.

    Returns:
        A column "task", one for each axis, and those of the tables.

    Raises:
        ValueError: for a folder without a sweep, or one of which nothing is done.
    """
    import polars as pl

    store = Store(Path(folder))
    about = read_about(store.folder)
    if about is None:
        raise ValueError(f"folder must be that of a sweep, got {str(folder)!r}, where there is no sweep.json")
    done = [store.table(task["id"]) for task in about["listed"] if store.is_done(task["id"])]
    if not done:
        raise ValueError(f"folder must be that of a sweep with a task that is done, got {str(folder)!r}")
    return pl.concat([pl.scan_parquet(path) for path in done], how="diagonal_relaxed")


def summary(table: pl.DataFrame, axes: Sequence[str], value: str | None) -> pl.DataFrame:
    """Return one row for each task: its axes, its rows, and the mean of a column over the rows of its last step."""
    import polars as pl

    step = next((name for name in STEPS if name in table.columns), None)
    last = table if step is None else table.filter(pl.col(step) == pl.col(step).max().over("task"))
    parts = [pl.col(name).first() for name in axes]
    if value in table.columns:
        parts.append(pl.col(value).mean())
    found = last.group_by("task", maintain_order=True).agg(*parts, pl.len().alias("rows"))
    return found.drop("task")


def draw(ends: pl.DataFrame, axes: Sequence[str], value: str, title: str) -> Figure | None:
    """Return the value against one axis, or against two; None where no axis is left to draw.

    Axes that are seeds, and those beyond the second, are averaged over.
    """
    import polars as pl

    shown = [name for name in axes if name not in RANDOM and ends[name].n_unique() > 1][:2]
    if not shown or value not in ends.columns:
        return None
    means = ends.group_by(shown, maintain_order=True).agg(pl.col(value).mean(), pl.len().alias("tasks"))
    if len(shown) == 2 and means[shown[1]].n_unique() > LINES:
        return _plane(means, shown[0], shown[1], value, title)
    return _lines(means, shown, value, title)


def _lines(means: pl.DataFrame, shown: Sequence[str], value: str, title: str) -> Figure:
    from grpo_dynamics.plotting import PALETTE, new_figure, style

    with style():
        figure = new_figure(4.8, 3.2)
        axes = figure.subplots()
        places = _places(means[shown[0]].to_list())
        groups = means.partition_by(shown[1], maintain_order=True) if len(shown) == 2 else [means]
        for group, color in zip(groups, itertools.cycle(PALETTE), strict=False):
            at = [places[x] for x in group[shown[0]]]
            order = sorted(range(len(at)), key=at.__getitem__)
            label = f"{group[shown[1]][0]}" if len(shown) == 2 else None
            axes.plot([at[i] for i in order], [group[value][i] for i in order], "o-", color=color, label=label)
        _scale(axes, places)
        axes.set(xlabel=_short(shown)[0], ylabel=value, title=title)
        if len(shown) == 2:
            axes.legend(title=_short(shown)[1])
    return figure


def _plane(means: pl.DataFrame, across: str, up: str, value: str, title: str) -> Figure:
    import numpy as np

    from grpo_dynamics.plotting import new_figure, style

    with style():
        figure = new_figure(5.2, 3.8)
        axes = figure.subplots()
        xs, ys = (_in_order(means[name].to_list()) for name in (across, up))
        grid = np.full((len(ys), len(xs)), np.nan)
        for x, y, z in means.select(across, up, value).iter_rows():
            grid[ys.index(y), xs.index(x)] = z
        image = axes.pcolormesh(grid, cmap="viridis")
        figure.colorbar(image, ax=axes, label=value)
        for which, values in (("x", xs), ("y", ys)):
            every = max(1, -(-len(values) // 9))
            ticks = range(0, len(values), every)
            axes.set(
                **{f"{which}ticks": [i + 0.5 for i in ticks], f"{which}ticklabels": [_text(values[i]) for i in ticks]}
            )
        axes.grid(visible=False)
        axes.set(**dict(zip(("xlabel", "ylabel"), _short((across, up)), strict=True)), title=title)
    return figure


def _in_order(values: Sequence[Any]) -> list[Any]:
    distinct = list(dict.fromkeys(values))
    return sorted(distinct) if all(isinstance(v, int | float) for v in distinct) else distinct


def _places(values: Sequence[Any]) -> dict[Any, float]:
    """Return where each value stands: numbers where they are, anything else one after the other."""
    distinct = _in_order(values)
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in distinct)
    return {v: float(v) if numbers else float(i) for i, v in enumerate(distinct)}


def _scale(axes: Any, places: dict[Any, float]) -> None:
    """Name the values; on a logarithm where they are numbers that span more than a decade."""
    at, words = list(places.values()), any(isinstance(v, str | bool) or v is None for v in places)
    logarithm = not words and min(at) > 0 and max(at) / min(at) > 10
    if logarithm:
        axes.set(xscale="log")
        axes.minorticks_off()
    if words or logarithm:
        every = max(1, -(-len(at) // 9))
        axes.set(xticks=at[::every], xticklabels=[_text(v) for v in list(places)[::every]])


def _short(names: Sequence[str]) -> list[str]:
    """Return the last parts of dotted names, where these are different.

    >>> _short(["training.beta", "seed"]), _short(["a.x", "b.x"])
    (['beta', 'seed'], ['a.x', 'b.x'])
    """
    last = [name.rsplit(".", 1)[-1] for name in names]
    return last if len(set(last)) == len(names) else list(names)


def _text(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else "–" if value is None else str(value)

"""The report of a run: one HTML file with everything in it, and the tables, numbers and pictures beside it."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

import polars as pl

from grpo_dynamics import __version__
from grpo_dynamics.plotting import render, write_whole
from grpo_dynamics.provenance import json_bytes, parquet
from grpo_dynamics.validation import lengths
from grpo_dynamics.validation.compare import Comparison, compare
from grpo_dynamics.validation.figures import figures
from grpo_dynamics.validation.measured import Measured
from grpo_dynamics.validation.overview import overview
from grpo_dynamics.validation.page import page_of, section_of
from grpo_dynamics.validation.summary import Numbers, summarize

Progress = Callable[[int, int, str], None]


@dataclasses.dataclass(frozen=True)
class Report:
    """What :func:`validate` wrote and found.

    Attributes:
        page: the HTML file.
        paths: every file.
        summaries: of each arm, see :func:`~grpo_dynamics.validation.summary.summarize`.
    """

    page: Path
    paths: list[Path]
    summaries: list[Numbers]

    @property
    def passed(self) -> bool | None:
        """Whether every threshold of every arm is kept; None without thresholds."""
        told = [entry["passed"] for entry in self.summaries if entry["passed"] is not None]
        return all(told) if told else None


def validate(measured: Measured, out: str | os.PathLike[str], tell: Progress | None = None) -> Report:
    """Compare a run with its theory and write what comes of it.

    Written are ``report.html``, ``summary.json``, ``comparison.parquet`` (a row for each question and iteration),
    ``p_infinity.parquet`` (for each question), ``error.parquet`` (for each iteration), where answers of several lengths
    were drawn ``lengths.parquet`` (for each part of the run), and the pictures as PNG and PDF.

    Args:
        measured: a run, as from :func:`~grpo_dynamics.validation.run_directory.read_run`.
        out: a folder, made if it is not there; files in it are replaced.
        tell: told before each arm.

    Raises:
        ValueError: for settings that are no way to train.
    """
    out, tell = Path(out), tell or (lambda done, total, what: None)
    paths: list[Path] = []
    compared: list[Comparison] = []
    summaries: list[Numbers] = []
    sections: list[str] = []
    for done, arm in enumerate(measured.arms):
        tell(done, len(measured.arms), arm.name)
        found = compare(arm)
        told = summarize(found)
        pictures: dict[str, bytes] = {}
        for name, figure in figures(found).items():
            pictures[name] = render(figure, ".png")
            stem = out / "figures" / f"{arm.name}_{name}"
            paths.append(write_whole(f"{stem}.png", pictures[name]))
            paths.append(write_whole(f"{stem}.pdf", render(figure, ".pdf")))
        compared.append(found)
        summaries.append(told)
        sections.append(section_of(found, told, pictures))
    tables = {
        "comparison": pl.concat([_named(found, found.table) for found in compared]),
        "p_infinity": pl.concat([_named(found, found.end_table) for found in compared]),
        "error": pl.concat([_named(found, found.split.table()) for found in compared]),
    }
    long = {found.arm.name: table for found in compared if (table := lengths.lengths_of(found.arm)) is not None}
    if long:
        named = [table.select(pl.lit(name).alias("arm"), pl.all()) for name, table in long.items()]
        tables["lengths"] = pl.concat(named)
    paths += [write_whole(out / f"{name}.parquet", parquet(table)) for name, table in tables.items()]
    whole = {"run": measured.name, "grpo_dynamics": __version__, "arms": summaries}
    paths.append(write_whole(out / "summary.json", json_bytes(whole)))
    of_all: dict[str, bytes] = {}
    for name, draw in (("overview", lambda: overview(compared)), ("lengths", lambda: lengths.draw(long))):
        if len(compared) > 1 if name == "overview" else long:
            figure = draw()
            of_all[name] = render(figure, ".png")
            paths.append(write_whole(out / "figures" / f"{name}.png", of_all[name]))
            paths.append(write_whole(out / "figures" / f"{name}.pdf", render(figure, ".pdf")))
    page = write_whole(out / "report.html", page_of(measured, compared, summaries, sections, of_all).encode())
    tell(len(measured.arms), len(measured.arms), "done")
    return Report(page, [*paths, page], summaries)


def _named(found: Comparison, table: pl.DataFrame) -> pl.DataFrame:
    return table.select(pl.lit(found.arm.name).alias("arm"), pl.all())

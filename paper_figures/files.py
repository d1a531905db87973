"""What a figure leaves in a folder: its pictures, and the table they were drawn from."""

from __future__ import annotations

import io
from pathlib import Path

import polars as pl

from grpo_dynamics.plotting import render, write_whole
from paper_figures import Entry


def parquet(table: pl.DataFrame) -> bytes:
    buffer = io.BytesIO()
    table.write_parquet(buffer)
    return buffer.getvalue()


def contents(entry: Entry) -> dict[str, bytes]:
    """Return every file of a figure or table, suffix -> bytes."""
    module = entry.module
    table: pl.DataFrame = module.data()
    data = {".parquet": parquet(table), ".csv": table.write_csv().encode()}
    if hasattr(module, "draw"):
        figure = module.draw(table)
        return {".png": render(figure, "png"), ".pdf": render(figure, "pdf"), **data}
    return {".md": module.markdown(table).encode(), ".tex": module.latex(table).encode(), **data}


def write_entry(entry: Entry, out: Path) -> list[Path]:
    """Compute everything first, then write it."""
    return [write_whole(out / f"{entry.name}{suffix}", data) for suffix, data in contents(entry).items()]

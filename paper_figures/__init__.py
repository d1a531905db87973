"""The figures and tables of arXiv 2503.06639, one module each: ``data()`` computes a table, ``draw(table)`` a figure.

>>> list(FIGURES)[:2]
['figure1', 'figure2']
"""

from __future__ import annotations

import dataclasses
import importlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

Progress = Callable[[int, int, str], None]
"""Called before each piece of work as (done, total, what is next), and once more at the end."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """One figure or table: where it is in the paper, and a title of one line."""

    name: str
    where: str
    title: str

    @property
    def module(self) -> Any:
        """The module, imported on first use: it brings Matplotlib, polars or sympy."""
        return importlib.import_module(f"paper_figures.{self.name}")


FIGURES: dict[str, Entry] = {
    entry.name: entry
    for entry in (
        Entry("figure1", "v4, Figure 1", "How GRPO weighs successes and failures"),
        Entry("figure2", "v4, Figure 2", "The map h of one GRPO iteration"),
        Entry("figure3", "v4, Figure 3", "Seven GSM8K questions in the paper's training run"),
        Entry("figure4", "v4, Figure 4", "The smallest β for which a fixed point is stable"),
        Entry("figure5", "v4, Figure 5", "Fifty iterations from p₀ = 0.1, 24 settings"),
        Entry("table1", "v4, Table 1", "Six variants of GRPO: weights, recursion, fixed point, stability"),
        Entry("fixed_point_map", "v1–v3", "Where GRPO takes a question, for every β and p_ref"),
        Entry("amplification_region", "v1–v3", "The older versions' condition for amplification"),
        Entry("cobweb", "v1–v3", "Four fates of the iteration, as cobweb diagrams"),
        Entry("overview", "ours", "Where does p go?"),
        Entry("atlas_phase", "ours", "What exact GRPO does with a question: the phase diagram"),
        Entry("atlas_orbits", "ours", "The route to chaos, and the Lyapunov exponent"),
        Entry("atlas_basins", "ours", "Where the iteration ends, by where it starts"),
        Entry("atlas_groups", "ours", "How the phase diagram changes with the group size"),
        Entry("atlas_smallest_group", "ours", "The smallest group with two states, or with overshooting"),
        Entry("atlas_kl", "ours", "Where training ends, by how the KL term is coded"),
    )
}


def make(names: Iterable[str], out: str | os.PathLike[str], progress: Progress | None = None) -> list[Path]:
    """Write figures as PNG and PDF with their tables as parquet and CSV; ``table1`` as Markdown and LaTeX.

    Args:
        names: keys of :data:`FIGURES`; none for all.
        out: a folder, made if it is not there.
        progress: told before each figure.

    Returns:
        The paths written, in order.

    Raises:
        ValueError: for an unknown name, before anything is written.
    """
    from paper_figures.files import write_entry

    wanted = list(dict.fromkeys(names)) or list(FIGURES)
    for name in wanted:
        if name not in FIGURES:
            raise ValueError(f"figure must be one of {', '.join(FIGURES)}, got {name!r}")
    paths: list[Path] = []
    for done, name in enumerate(wanted):
        if progress:
            progress(done, len(wanted), name)
        paths += write_entry(FIGURES[name], Path(out))
    if progress:
        progress(len(wanted), len(wanted), "done")
    return paths

"""`grpo-dynamics figures` and `grpo-dynamics reproduce`: the paper's pictures and numbers."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Sequence
from pathlib import Path

from grpo_dynamics import __version__
from grpo_dynamics.cli.errors import refuse, writing
from grpo_dynamics.cli.output import print_json, progress, screen, table


def list_figures(as_json: bool) -> None:
    """Print the names of all figures and tables."""
    from paper_figures import FIGURES

    if as_json:
        entries = [{"name": e.name, "where": e.where, "title": e.title} for e in FIGURES.values()]
        print_json({"command": "figures", "version": __version__, "available": entries})
        return
    rows = [(entry.name, entry.where, entry.title) for entry in FIGURES.values()]
    screen().print(table("Figures and tables", ("name", "in the paper", "what it shows"), rows, left=(0, 1, 2)))


def draw_figures(names: Sequence[str], out: Path, as_json: bool) -> None:
    """Draw the named figures, or all."""
    import paper_figures

    for name in names:
        if name not in paper_figures.FIGURES:
            refuse("figure", f"one of {', '.join(paper_figures.FIGURES)}", name)
    with folder(out), progress() as tell:
        paths = paper_figures.make(names, out, tell)
    if as_json:
        print_json({"command": "figures", "version": __version__, "out": str(out), "files": [str(p) for p in paths]})
        return
    console = screen()
    for path in paths:
        console.print(str(path), soft_wrap=True)


def reproduce_paper(out: Path, as_json: bool) -> int:
    """Draw everything, hold every printed number against ours, write the page; return the exit code."""
    from paper_figures import goldens, page

    with folder(out), progress() as tell:
        made = page.reproduce(out, tell)
    if as_json:
        print_json(
            {
                "command": "reproduce",
                "version": __version__,
                "out": str(out),
                "page": str(made.page),
                "files": [str(path) for path in made.paths],
                "agrees": made.agrees,
                "verdicts": goldens.counts(made.goldens),
                "goldens": made.goldens.to_dicts(),
                "seconds": made.seconds,
            }
        )
    else:
        print(goldens.as_text(made.goldens))
        print(f"\n{len(made.paths)} files in {out}, {made.seconds:.0f} s. Open {made.page.resolve()}")
    return 0 if made.agrees else 1


@contextlib.contextmanager
def folder(out: Path) -> Generator[None]:
    """Refuse a folder that cannot be written, before the work where that can be seen."""
    with writing("out", out):
        if out.exists() and not out.is_dir():
            refuse("out", "a folder", str(out))
        yield

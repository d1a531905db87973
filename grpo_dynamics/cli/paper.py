"""`grpo-dynamics figures` and `grpo-dynamics reproduce`: the paper's pictures and numbers."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from grpo_dynamics import __version__
from grpo_dynamics.cli.errors import refuse, writing
from grpo_dynamics.cli.output import print_json, progress, screen, table

if TYPE_CHECKING:
    from grpo_dynamics.validation.report import Report


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


TRAINING = "cpu_arithmetic"
"""The training run that ends `reproduce`."""


def reproduce_paper(out: Path, as_json: bool, training: bool) -> int:
    """Draw everything, hold every printed number against ours, train, write the page; return the exit code."""
    from paper_figures import goldens, page

    report = f"training/{TRAINING}/validation/report.html" if training else None
    with folder(out), progress() as tell:
        made = page.reproduce(out, tell, report)
    trained = train_and_compare(out / "training") if training else None
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
                "training": trained and {"page": str(trained.page), "arms": trained.summaries},
            }
        )
    else:
        print(goldens.as_text(made.goldens))
        print(f"\n{len(made.paths)} files in {out}, {made.seconds:.0f} s.")
        if trained:
            from grpo_dynamics.cli.validate import show

            print("\nReal GRPO on a small language model, over the prediction of its own settings:")
            show(trained.summaries, ())
            print(f"\nIts report: {trained.page.resolve()}")
        print(f"Open {made.page.resolve()}")
    return 0 if made.agrees and (trained is None or trained.passed) else 1


def train_and_compare(out: Path) -> Report:
    """Train the run of this package's own, or go on with it, and compare it with its theory."""
    from grpo_dynamics.cli.run import train_config
    from grpo_dynamics.config import EXPERIMENTS
    from grpo_dynamics.validation.report import validate
    from grpo_dynamics.validation.run_directory import read_run

    run, _ = train_config(str(EXPERIMENTS / f"{TRAINING}.toml"), out, resume=True)
    assert run is not None  # there is no time limit
    with folder(out), progress() as tell:
        return validate(read_run(run), run / "validation", tell)


@contextlib.contextmanager
def folder(out: Path) -> Generator[None]:
    """Refuse a folder that cannot be written, before the work where that can be seen."""
    with writing("out", out):
        if out.exists() and not out.is_dir():
            refuse("out", "a folder", str(out))
        yield

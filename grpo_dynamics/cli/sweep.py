"""`grpo-dynamics sweep`: a config of many tasks in; a table for each, all as one, and a picture out."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grpo_dynamics import __version__
from grpo_dynamics.cli.errors import bad_input, missing, refuse
from grpo_dynamics.cli.output import brief, print_json, progress, screen, table
from grpo_dynamics.cli.paper import folder

if TYPE_CHECKING:
    import polars as pl

    from grpo_dynamics.sweep import Sweep
    from grpo_dynamics.sweep.perform import Outcome

ROWS = 24
"""So many tasks are printed at most."""


@dataclasses.dataclass(frozen=True)
class Request:
    """What was asked for."""

    config: str | None
    engine: str
    address: str | None
    workers: int | None
    retries: int
    out: Path
    resume: bool


def sweep(request: Request, as_json: bool) -> int:
    """Perform a sweep, gather its tables, and print what they come to; return 1 if a task failed, 130 for Ctrl-C."""
    if not request.config:
        missing("config", "a TOML file")
    from grpo_dynamics.sweep import Options, gather, perform, read_sweep

    try:
        with bad_input():
            read = read_sweep(request.config)
    except ModuleNotFoundError as error:  # the kind "run" needs PyTorch
        refuse("installation", f"one by pip install 'grpo-dynamics[train]' (there is no {error.name})", "none")
    place = request.out / read.name
    asked: dict[str, Any] = {
        key: getattr(request, key) for key in ("engine", "address", "workers", "retries", "resume")
    }
    try:
        with folder(place), progress() as tell, bad_input():
            outcome = perform(read, place, Options(**asked), tell if sys.stderr.isatty() else None)
            found = gather(place).collect() if outcome.done else None
            files, ends = ([], None) if found is None else write(read, found, place)
    except KeyboardInterrupt:
        print(f"stopped: what is done is in {place}; the same command with --resume goes on", file=sys.stderr)
        return 130
    if as_json:
        answer = {"command": "sweep", "version": __version__, "name": read.name, "kind": read.kind}
        answer |= {"out": str(place), "tasks": len(read.tasks), **dataclasses.asdict(outcome), "files": files}
        print_json({**answer, "summary": [] if ends is None else ends.to_dicts()})
    else:
        show(read, outcome, ends, place, files)
    for task in read.tasks:
        if task.id in outcome.failed:
            what = ", ".join(f"{key} = {value}" for key, value in task.axes.items())
            print(f"failed: {task.id} ({what}): {outcome.failed[task.id]}", file=sys.stderr)
    return 1 if outcome.failed else 0


def write(read: Sweep, found: pl.DataFrame, place: Path) -> tuple[list[str], pl.DataFrame]:
    """Write all tables as one, and the picture; return the files and one row for each task."""
    from grpo_dynamics.plotting import save, write_whole
    from grpo_dynamics.provenance import parquet
    from grpo_dynamics.sweep.kinds import KINDS
    from grpo_dynamics.sweep.results import draw, summary

    axes, value = list(read.axes), read.value or ""
    if value not in found.columns and value != (KINDS[read.kind].value or ""):  # the tasks stay done
        refuse("value", f"one of the columns {', '.join(found.columns)}", value)
    ends = summary(found, axes, value)
    files = [str(write_whole(place / "sweep.parquet", parquet(found)))]
    figure = draw(ends, axes, value, f"{read.name}: {value} at the end, {ends.height} tasks")
    if figure is not None:
        files += map(str, save(figure, place / "sweep"))
    return files, ends


def show(read: Sweep, outcome: Outcome, ends: pl.DataFrame | None, place: Path, files: list[str]) -> None:
    """Print what came out, for people."""
    if ends is not None:
        words = [i for i, kind in enumerate(ends.dtypes) if not kind.is_numeric()]
        rows = [[_text(value) for value in row] for row in ends.head(ROWS).iter_rows()]
        screen().print(table(f"Sweep {read.name}: {read.kind.replace('_', ' ')}", ends.columns, rows, left=words))
        if ends.height > ROWS:
            print(f"and {ends.height - ROWS} more tasks")
    done = f"{len(outcome.done)} of {len(read.tasks)} tasks done, {outcome.skipped} of them before"
    died = f"; workers died {outcome.broken} times, and nothing was lost" if outcome.broken else ""
    print(f"\n{done}, in {outcome.seconds:.1f} s{died}.")
    print(f"In {place}:\n{', '.join(['tasks/', *(Path(file).name for file in files)])}")


def _text(value: Any) -> str:
    if value is None or value != value:
        return "–"
    return brief(value) if isinstance(value, float) else str(value)

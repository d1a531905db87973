"""The command that sweeps. What it needs, it imports itself."""

from pathlib import Path
from typing import Annotated

import typer

from grpo_dynamics.cli import options
from grpo_dynamics.cli.errors import choice, number


def sweep_command(
    config: Annotated[str | None, typer.Option("--config", metavar="FILE", help="A TOML file. Required.")] = None,
    engine: Annotated[
        str,
        typer.Option(
            "--engine",
            metavar="local|ray|dask",
            help="Where the tasks run: on the cores of this machine, on a Ray or on a Dask cluster.",
            parser=choice("engine", ["local", "ray", "dask"]),
        ),
    ] = "local",
    address: Annotated[
        str | None,
        typer.Option(
            "--address",
            metavar="ADDRESS",
            help="Of a cluster: HOST:6379, ray://HOST:10001 or auto; tcp://HOST:8786. Default: one is started here.",
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers",
            metavar="N",
            help="Tasks at a time. Default: as many as cores. A Dask cluster at an --address decides itself.",
            parser=number("workers", "an integer >= 1", int),
        ),
    ] = None,
    retries: Annotated[
        int,
        typer.Option(
            "--retries",
            metavar="N",
            help="How often a task that failed, or whose worker died, is tried again.",
            parser=number("retries", "an integer >= 0", int),
        ),
    ] = 1,
    out: options.Folder = Path("sweeps"),
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on where a killed sweep stopped; start if there is none."),
    ] = False,
    as_json: options.Json = False,
) -> int:
    """Compute many runs, simulations or phase diagrams from one config.

    A config says of what kind the tasks are, which config they share, and
    what differs: lists along axes, of which every combination is a task, or
    the tasks one by one. Under the config's name there is one table for each
    task (parquet) with a manifest (JSON), and at the end all of them as one,
    sweep.parquet, and a picture over the first two axes. Tables depend on
    nothing but their task's config. Tasks that are done are not computed
    again; if any fails for good it is listed, and the exit code is 1.

    Examples:
      grpo-dynamics sweep --config sweep.toml
      grpo-dynamics sweep --config sweep.toml --engine ray --workers 8
      grpo-dynamics sweep --config sweep.toml --engine dask
        --address tcp://10.0.0.1:8786 --out results --resume
    """
    from grpo_dynamics.cli.sweep import Request, sweep

    return sweep(Request(config, engine, address, workers, retries, out, resume), as_json)

"""The commands that simulate. What each needs, it imports itself."""

from pathlib import Path
from typing import Annotated

import typer

from grpo_dynamics.cli import options


def simulate_command(
    config: Annotated[
        str | None,
        typer.Option(
            "--config", metavar="FILE", help="A TOML file, or the name of an experiment (see --list). Required."
        ),
    ] = None,
    out: options.Folder = Path("simulations"),
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Go on where a killed run stopped, with identical results; start if there is none."
        ),
    ] = False,
    list_experiments: Annotated[bool, typer.Option("--list", help="Print the experiments and stop.")] = False,
    as_json: options.Json = False,
) -> None:
    """Simulate policies small enough to be exact, departing from the theory.

    A config says which questions, how they are trained and for how long, or
    names an experiment. Written are a table (parquet), a picture (PNG, PDF)
    and a manifest (JSON: config, versions, commit, hardware, seconds), under
    the name of the config. The same config gives the same bytes on one
    machine. A finished result is never replaced by one of another config.

    Examples:
      grpo-dynamics simulate --list
      grpo-dynamics simulate --config worked_example
      grpo-dynamics simulate --config my_run.toml --out runs --resume
    """
    from grpo_dynamics.cli.simulate import list_all, run_config

    if list_experiments:
        list_all(as_json)
    else:
        run_config(config, out, resume, as_json)

"""The command line of an experiment that measures a machine: parts kept as they are done, a time limit, a small form.

A measurement is a module with ``Settings``, ``parts`` and ``draw``, like an experiment of simulation, and a config
whose table [smoke] is laid over it for a CPU. What is measured depends on the machine, so the device is part of what
must be the same for a command to go on with the parts of another.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grpo_dynamics.cli.errors import BadInput, bad_input, refuse
from grpo_dynamics.cli.output import progress
from grpo_dynamics.cli.paper import folder
from grpo_dynamics.cli.run import STOPPED, is_out_of_memory
from grpo_dynamics.cli.simulate import show
from grpo_dynamics.config import as_table, build, read_toml
from grpo_dynamics.plotting import save
from grpo_dynamics.provenance import versions
from grpo_dynamics.simulation.runs import Part, Run, perform

if TYPE_CHECKING:
    import polars as pl
    from matplotlib.figure import Figure

    from grpo_dynamics.training.deadline import Deadline

LIBRARIES = ("torch", "transformers", "tokenizers", "accelerate", "trl", "vllm")
ENDING = "_smoke"


@dataclasses.dataclass(frozen=True)
class Measurement:
    """What is measured.

    Attributes:
        title: one line.
        settings: a frozen dataclass of the keys of its config, with at least ``device`` and ``threads``.
        parts: the work, from the settings, the folder of the results and the deadline; a part that is not done when
            the time is over raises TimeLimit.
        summary: the few columns of the table that are printed.
        draw: its picture.
    """

    title: str
    settings: type[Any]
    parts: Callable[[Any, Path, Deadline], Sequence[Part]]
    summary: Callable[[pl.DataFrame], pl.DataFrame]
    draw: Callable[[pl.DataFrame], Figure]


def command(name: str, what: Measurement, config: Path, arguments: list[str] | None = None) -> int:
    """Run a measurement from the command line; return the exit code.

    Args:
        name: of the results.
        what: is measured.
        config: its own config, unless another is named.
        arguments: those of the command line, if they are not given.

    Returns:
        0; 2 for bad input, said in one line; 3 where the time limit ended it.
    """
    parser = argparse.ArgumentParser(prog=name, description=what.title)
    parser.add_argument("--config", type=Path, default=config, help="a TOML file")
    parser.add_argument("--out", type=Path, default=Path("runs"), help="the folder of the results goes here")
    parser.add_argument("--resume", action="store_true", help="go on where a stopped or killed command was")
    parser.add_argument("--time-limit", type=float, metavar="MINUTES", help="stop after so long, with exit code 3")
    parser.add_argument("--smoke", action="store_true", help="the small form in the config's [smoke], on a CPU")
    given = parser.parse_args(arguments)
    from grpo_dynamics.training.deadline import TimeLimit

    try:
        table = measure(name, what, given.config, given.out, given.resume, given.time_limit, given.smoke)
    except BadInput as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        return 2
    except TimeLimit as stopped:
        print(f"stopped by the time limit: {stopped}; the same command with --resume goes on", file=sys.stderr)
        return STOPPED
    show(what.title, what.summary(table))
    return 0


def measure(
    name: str, what: Measurement, config: Path, out: Path, resume: bool, minutes: float | None, smoke: bool
) -> pl.DataFrame:
    """Measure what a config says; write table, manifest and picture into a folder of its name; return the table."""
    for library in ("torch", "transformers"):
        if importlib.util.find_spec(library) is None:
            raise BadInput(f"{library} must be installed for this: pip install 'grpo-dynamics[train]'")
    if minutes is not None and not 0 < minutes < math.inf:
        refuse("time_limit", "a positive number of minutes", minutes)
    from grpo_dynamics.training.deadline import Deadline

    deadline = Deadline(None if minutes is None else 60 * minutes)
    with bad_input():
        settings = read_settings(what.settings, config, smoke)
        device = device_of(settings.device)
    import torch
    from transformers.utils import logging

    logging.disable_progress_bar()  # ours is shown instead
    threads = torch.get_num_threads()
    torch.set_num_threads(settings.threads or threads)
    place = out / (name + ENDING if smoke else name)
    told = {"experiment": name, "smoke": smoke, "on": device, **as_table(settings), "libraries": versions(LIBRARIES)}
    try:
        with folder(place), progress() as tell, bad_input():
            began, longest = time.perf_counter(), 0.0

            def between(done: int, total: int, next_part: str) -> None:
                nonlocal began, longest
                now = time.perf_counter()
                began, longest = now, max(longest, now - began)
                tell(done, total, next_part)
                if done < total:
                    deadline.require(f"{done} of {total} parts are done, the next is {next_part}", needed=longest)

            run = Run(place.name, told, what.parts(settings, place, deadline), place, device)
            table, _ = perform(run, resume, between)
            save(what.draw(table), place / run.name)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        said = str(error).strip().partition("\n")[0][:200]
        raise BadInput(
            f"memory must be enough for this measurement, got ({said}): lower the sizes, or what is computed at once"
        ) from None
    finally:
        torch.set_num_threads(threads)
    return table


def read_settings(kind: type[Any], config: Path, smoke: bool) -> Any:
    """Return the settings of a config; its table [smoke] is checked in any case, and laid over them where asked."""
    table = read_toml(config)
    small = table.pop("smoke", {})
    full = build(kind, table)
    reduced = build(kind, {**table, "device": "cpu", "threads": 1, **small})
    return reduced if smoke else full


def device_of(device: str) -> str:
    """Return the name of the device, as manifests have it; refuse one that is not there."""
    import torch

    from grpo_dynamics.training.policies import find_device
    from grpo_dynamics.training.pretraining import device_name

    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(
            f"device must be one that is there, got {device!r} and no GPU: --smoke runs a small form on a CPU"
        )
    return device_name(find_device(device))

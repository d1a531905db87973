"""`grpo-dynamics run`: a config in; a folder with everything that real training did out."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

from grpo_dynamics import __version__
from grpo_dynamics.cli.errors import BadInput, bad_input, missing, refuse
from grpo_dynamics.cli.output import print_json, progress, screen, table

STOPPED = 3
"""The exit code of a run that its time limit ended."""

TOO_LITTLE_MEMORY = (
    "memory must be enough for this run, got ({said}): lower optimization.micro_batch_size or rollouts.batch_size "
    "(the same result), or questions, groups or the model (another run); with the result the same, --resume goes on"
)


def run_training(
    config: str | None,
    out: Path,
    resume: bool,
    as_json: bool,
    unsafe_no_sandbox: bool = False,
    minutes: float | None = None,
    smoke: bool = False,
) -> int:
    """Train what a config says, or go on with it, and print where everything is; return the exit code."""
    if not config:
        missing("config", "a TOML file")
    if minutes is not None and not 0 < minutes < math.inf:
        refuse("time_limit", "a positive number of minutes", minutes)
    limit = None if minutes is None else 60 * minutes
    folder, stopped = train_config(config, out, resume, unsafe_no_sandbox, limit, smoke)
    from accelerate import PartialState  # pyright: ignore[reportMissingTypeStubs]

    state = PartialState()
    if state.is_main_process and folder is not None:
        describe(folder, as_json)
    elif state.is_main_process:
        print(stopped, file=sys.stderr)
    state.wait_for_everyone()
    state.destroy_process_group()  # its threads must end before the process does, which aborts otherwise
    return 0 if folder is not None else STOPPED


def train_config(
    config: str,
    out: Path,
    resume: bool,
    unsafe_no_sandbox: bool = False,
    time_limit: float | None = None,
    smoke: bool = False,
) -> tuple[Path | None, str]:
    """Train what a config says, or go on with it; return the folder of the run, or None and where its time was over."""
    try:
        from grpo_dynamics.training.deadline import TimeLimit
        from grpo_dynamics.training.runs import run
    except ModuleNotFoundError as error:
        refuse("installation", f"one by pip install 'grpo-dynamics[train]' (there is no {error.name})", "none")
    if not sys.stderr.isatty():
        from transformers.utils import logging

        logging.disable_progress_bar()
    with progress() as tell, bad_input():
        try:
            return run(config, out, resume, tell, unsafe_no_sandbox, time_limit=time_limit, smoke=smoke), ""
        except TimeLimit as stopped:
            return None, str(stopped)
        except OSError as error:
            if error.errno is None:  # not the system's refusal, but that of a library that reads models or data
                raise BadInput(str(error)) from None
            refuse("out", f"a place that can be written ({error.strerror}); --resume then goes on", str(out))
        except (RuntimeError, MemoryError) as error:
            if is_out_of_memory(error):
                raise BadInput(TOO_LITTLE_MEMORY.format(said=str(error).strip().partition("\n")[0][:200])) from None
            if not any(known in str(error) for known in ("weights did not reach", "the sandbox did not start")):
                raise
            raise BadInput(str(error)) from None
        except FloatingPointError as error:
            refuse("learning_rate", "so small that the policy stays finite", str(error))


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether this is how Python, PyTorch on a CPU, or PyTorch on a GPU says that the memory is full.

    >>> is_out_of_memory(RuntimeError("CUDA error: out of memory")), is_out_of_memory(RuntimeError("shapes differ"))
    (True, False)
    >>> is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"))
    True
    """
    signs = ("out of memory", "not enough memory", "can't allocate memory", "cannot allocate memory")
    signs += ("_alloc_failed", "busy or unavailable")  # what CUDA's libraries say where another process fills the card
    return isinstance(error, MemoryError) or any(sign in str(error).lower() for sign in signs)


def describe(folder: Path, as_json: bool) -> None:
    """Print what a finished run left."""
    whole = json.loads((folder / "manifest.json").read_bytes())
    arms = [json.loads((folder / name / "manifest.json").read_bytes()) for name in whole["arms"]]
    if as_json:
        kept = ("arm", "status", "iterations_done", "measurement", "engine", "processes", "resumed", "notes", "seconds")
        described: list[dict[str, Any]] = [{key: arm[key] for key in (*kept, "tables")} for arm in arms]
        print_json({"command": "run", "version": __version__, "out": str(folder), "arms": described})
        return
    columns = ("arm", "update", "iterations", "questions", "p measured", "engine", "seconds")
    rows = [
        (
            arm["arm"],
            arm["config"]["training"]["update"],
            str(arm["iterations_done"]),
            str(arm["task"]["questions"]),
            arm["measurement"].replace("_", " "),
            arm["engine"],
            f"{arm['seconds']:.1f}",
        )
        for arm in arms
    ]
    screen().print(table(f"Training run {whole['name']}", columns, rows, left=(0, 1, 4, 5)))
    for arm in arms:
        for note in arm["notes"]:
            print(f"note: {arm['arm']}: {note}", file=sys.stderr)
    print(f"\nIn {folder}; now: grpo-dynamics validate {folder}")

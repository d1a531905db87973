"""`grpo-dynamics run`: a config in; a folder with everything that real training did out."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from grpo_dynamics import __version__
from grpo_dynamics.cli.errors import BadInput, bad_input, missing, refuse
from grpo_dynamics.cli.output import print_json, progress, screen, table


def run_training(config: str | None, out: Path, resume: bool, as_json: bool, unsafe_no_sandbox: bool = False) -> None:
    """Train what a config says, or go on with it, and print where everything is."""
    if not config:
        missing("config", "a TOML file")
    folder = train_config(config, out, resume, unsafe_no_sandbox)
    from accelerate import PartialState  # pyright: ignore[reportMissingTypeStubs]

    state = PartialState()
    if state.is_main_process:
        describe(folder, as_json)
    state.wait_for_everyone()
    state.destroy_process_group()  # its threads must end before the process does, which aborts otherwise


def train_config(config: str, out: Path, resume: bool, unsafe_no_sandbox: bool = False) -> Path:
    """Train what a config says, or go on with it, and return the folder of the run."""
    try:
        from grpo_dynamics.training.runs import run
    except ModuleNotFoundError as error:
        refuse("installation", f"one by pip install 'grpo-dynamics[train]' (there is no {error.name})", "none")
    if not sys.stderr.isatty():
        from transformers.utils import logging

        logging.disable_progress_bar()
    with progress() as tell, bad_input():
        try:
            return run(config, out, resume, tell, unsafe_no_sandbox)
        except OSError as error:
            if error.errno is None:  # not the system's refusal, but that of a library that reads models or data
                raise BadInput(str(error)) from None
            refuse("out", f"a place that can be written ({error.strerror}); --resume then goes on", str(out))
        except RuntimeError as error:
            if not any(known in str(error) for known in ("weights did not reach", "the sandbox did not start")):
                raise
            raise BadInput(str(error)) from None
        except FloatingPointError as error:
            refuse("learning_rate", "so small that the policy stays finite", str(error))


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

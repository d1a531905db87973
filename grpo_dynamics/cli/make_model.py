"""`grpo-dynamics make-model`: a task in; a small pre-trained language model out."""

from __future__ import annotations

import json
import math
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from grpo_dynamics import __version__
from grpo_dynamics.cli.errors import bad_input, refuse, required
from grpo_dynamics.cli.output import exactly, facts, print_json, progress, screen
from grpo_dynamics.cli.paper import folder
from grpo_dynamics.cli.run import STOPPED, is_out_of_memory


def make(
    task: str | None,
    out: Path | None,
    options: Sequence[str],
    as_json: bool,
    *,
    minutes: float | None = None,
    **settings: Any,
) -> int:
    """Make the model, write it and print what it knows; return the exit code."""
    from grpo_dynamics.training.tasks import KINDS, make_task

    kind = required("task", f"one of {', '.join(KINDS)}", task)
    place = required("out", "a folder", out)
    if minutes is not None and not 0 < minutes < math.inf:
        refuse("time_limit", "a positive number of minutes", minutes)
    with bad_input():
        made = make_task(kind, **dict(map(task_option, options)))
    from grpo_dynamics.training.deadline import Deadline, TimeLimit
    from grpo_dynamics.training.pretraining import make_model

    deadline = Deadline(None if minutes is None else 60 * minutes)
    with folder(place), progress() as tell, bad_input():
        try:
            make_model(made, place, deadline=deadline, tell=tell, **settings)
        except TimeLimit as stopped:
            print(f"stopped by the time limit: {stopped}; the same command goes on from there", file=sys.stderr)
            return STOPPED
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            refuse("memory", "enough for this model; lower layers or hidden_size", str(error).strip().split("\n")[0])
    manifest = json.loads((place / "manifest.json").read_text(encoding="utf-8"))
    files = [str(file) for file in sorted(place.iterdir())]
    if as_json:
        print_json({"command": "make-model", "version": __version__, "out": str(place), "files": files} | manifest)
        return 0
    show(made.name, manifest)
    print(f"\nIn {place}: model and tokenizer, corpus.parquet, manifest.json")
    return 0


def task_option(text: str) -> tuple[str, Any]:
    """Return an option of a task, KEY=VALUE: the value as TOML has it, or a text as it is.

    >>> task_option("largest=19"), task_option("source=a/b.jsonl")
    (('largest', 19), ('source', 'a/b.jsonl'))
    """
    key, equals, value = text.partition("=")
    if not key or not equals:
        refuse("option", "KEY=VALUE", text)
    try:
        return key, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key, value


def show(name: str, manifest: dict[str, Any]) -> None:
    """Print the size of the model, and how p_ref spreads over the questions."""
    p_ref, config = manifest["p_ref"], manifest["config"]
    spread = ", ".join(f"{n} in ({limits.replace('-', ', ')})" for limits, n in p_ref["questions"].items())
    low, middle, high = (exactly(float(f"{p_ref['quantiles'][q]:.3g}")) for q in ("0", "0.5", "1"))
    rows = [
        ("parameters", f"{manifest['parameters']:,}"),
        ("pre-training", f"{manifest['steps']} steps, {manifest['seconds']:.1f} s"),
        ("questions", f"{config['questions']}: {spread}"),
        ("p_ref", f"from {low} to {high}, median {middle}"),
    ]
    screen().print(facts(f"A model of {name}", rows))

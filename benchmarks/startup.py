"""How long the import and the command line's help take, in fresh processes."""

from __future__ import annotations

import functools
import pathlib
import subprocess
import sys

from clock import alternate, table, verdict

ROOT = pathlib.Path(__file__).resolve().parent.parent


def measure(quick: bool) -> dict[str, object]:
    rounds = 2 if quick else 11
    run = functools.partial(subprocess.run, check=True, capture_output=True, cwd=ROOT)
    commands = {
        "python": [sys.executable, "-c", "pass"],
        "import numpy": [sys.executable, "-c", "import numpy"],
        "import grpo_dynamics": [sys.executable, "-c", "import grpo_dynamics"],
    }
    if (ROOT / "grpo_dynamics" / "cli").exists():
        script = pathlib.Path(sys.executable).parent / "grpo-dynamics"
        call = (
            [str(script)] if script.exists() else [sys.executable, "-c", "from grpo_dynamics.cli import main; main()"]
        )
        commands["grpo-dynamics --help"] = [*call, "--help"]
    seconds = alternate({name: functools.partial(run, command) for name, command in commands.items()}, rounds)
    targets = {"import grpo_dynamics": 0.4, "grpo-dynamics --help": 0.6}
    table(
        f"Start of a fresh process (medians of {rounds})",
        [
            (name, f"{s:.3f} s", verdict(s, targets[name], at_least=False) if name in targets else "")
            for name, s in seconds.items()
        ],
    )
    return {"seconds": seconds}

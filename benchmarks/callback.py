"""What the callback costs of a step of TRL's GRPOTrainer: its own CPU seconds, and the same run with and without it.

On one pinned thread; runs with and without alternate. What a step costs more is the difference between short steps of
a tiny model, where it can be seen; it does not depend on the model, so its share is taken of steps of a model of 4M
parameters. Beside it are the seconds around everything that the callback itself does in a step (the rest is TRL, which
gathers and logs some twenty numbers more), and those that it takes once before the first step, for p* and regimes of
every p_ref.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import logging
import pathlib
import statistics
import tempfile
import time
from typing import Any

from clock import table, verdict
from training import GROUP, Case, Clock, make, with_trl

SHORT = Case("8 questions, 2 tokens", 8, 8, 2, None, target=1.0)
CASES = (
    Case("8 questions, 16 tokens", 8, 8, 16, None, target=0.01),
    Case("32 questions, 16 tokens", 32, 8, 16, None, target=0.01),
)


@dataclasses.dataclass
class Own:
    """CPU seconds inside the callback: before training, and of each call of the reward function."""

    begin: float = 0.0
    steps: list[float] = dataclasses.field(default_factory=list)


def watched(own: Own) -> Any:
    """A callback that takes its own time."""
    from grpo_dynamics.integrations.trl import GRPODynamicsCallback

    class Timed(GRPODynamicsCallback):
        def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
            start = time.process_time()
            super().on_train_begin(*args, **kwargs)
            own.begin = time.process_time() - start

        def _see(self, *args: Any, **kwargs: Any) -> None:
            start = time.process_time()
            super()._see(*args, **kwargs)
            own.steps.append(time.process_time() - start)

    return Timed()


def train(case: Case, model: pathlib.Path, steps: int, seed: int, work: pathlib.Path, own: Own | None) -> Clock:
    """Train some steps with TRL, every one logged, with the callback or without; return the clock."""
    callback = None if own is None else watched(own)
    clock, _ = with_trl(case, model, steps, seed, work, callback, logged=True)
    return clock


def measure(quick: bool) -> dict[str, object]:
    """The callback's share of a step, and the ratio of steps with it to steps without."""
    missing = [name for name in ("torch", "transformers", "trl") if importlib.util.find_spec(name) is None]
    if missing:
        table("The callback for TRL", [("skipped", "", f"not installed: {', '.join(missing)}")])
        return {"skipped": f"not installed: {', '.join(missing)}"}
    import torch
    import transformers
    import trl

    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    logging.getLogger("accelerate").setLevel(logging.ERROR)
    hidden_size, layers, steps = (64, 1, 1) if quick else (256, 5, 3)
    result: dict[str, object] = {"trl": trl.__version__, "group_size": GROUP}
    rows: list[tuple[str, str, str]] = []
    # what TRL does with some twenty numbers more is a millisecond, lost in the noise of a long step: seen in short ones
    with tempfile.TemporaryDirectory() as folder:
        short = compare(SHORT, 64, 1, 2 if quick else 40, 1 if quick else 5, pathlib.Path(folder))
    extra = max(short["with"] - short["without"], short["own"])
    result["extra_cpu_seconds"] = extra
    result["short_steps"] = short
    for case in CASES[:1] if quick else CASES:
        with tempfile.TemporaryDirectory() as folder:
            make(case, pathlib.Path(folder) / "model", hidden_size, layers, 2)
            step = bare(train(case, pathlib.Path(folder) / "model", steps, 0, pathlib.Path(folder), None))
        share = extra / step
        result[case.name] = {"step_cpu_seconds": step, "share": share}
        rows.append(
            (
                case.name,
                f"{share:.2%}",
                f"{verdict(share, case.target, at_least=False)}; {extra * 1e3:.1f} ms of a step of {step:.2f} s "
                f"({short['own'] * 1e3:.1f} ms in the callback itself); once {short['before']:.2f} s before training",
            )
        )
    table("The callback's share of a step of TRL (CPU seconds)", rows)
    return result


def bare(clock: Clock) -> float:
    """Median CPU seconds of a step."""
    return statistics.median(clock.steps()[1])


def compare(case: Case, hidden_size: int, layers: int, steps: int, rounds: int, work: pathlib.Path) -> dict[str, float]:
    """Median CPU seconds of a step with and without, inside the callback in a step, and once before training."""
    make(case, work / "model", hidden_size, layers, 2)
    cpu: dict[str, list[float]] = {"with": [], "without": []}
    own = [Own() for _ in range(rounds)]
    for turn in range(rounds):
        for name in ("with", "without") if turn % 2 else ("without", "with"):
            clock = train(case, work / "model", steps, turn, work, own[turn] if name == "with" else None)
            cpu[name] += clock.steps()[1]
    return {
        **{name: statistics.median(values) for name, values in cpu.items()},
        "own": statistics.median(seconds for one in own for seconds in one.steps[1:]),
        "before": statistics.median(one.begin for one in own),
    }

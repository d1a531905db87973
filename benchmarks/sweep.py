"""How near 1,000 small tasks come to two cores' ideal: ``python benchmarks/run.py --only sweep``, or this file alone.

The ideal is the time that the tasks themselves take, one after the other in one process, halved. Two numbers are
given: of the wall clock, which needs two cores that nobody else uses, and of the workers' own account, how much of the
time of their processes went into tasks: that one other users of the machine do not touch. Starting the engine and its
workers counts, gathering does not.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

from clock import table, verdict

WANTED = 0.9
WORKERS = 2

CONFIG = """
kind = "simulate"
[base]
steps = {steps}
record_every = {steps}
checkpoint_every = {steps}
questions.p_ref = [0.05, 0.2]
training.update = "sampled"
training.group_size = 8
training.learning_rate = 0.1
[axes]
training.beta = [0.5, 1.0, 2.0, 5.0]
seed = {seeds}
"""

ALONE = """
import sys, time, pathlib
from grpo_dynamics.sweep import read_sweep
from grpo_dynamics.sweep.plan import column_types
from grpo_dynamics.sweep.work import work
sweep, folder, number = read_sweep(sys.argv[1]), pathlib.Path(sys.argv[2]), int(sys.argv[3])
(folder / "tasks").mkdir(parents=True)
types, tasks = column_types(sweep), sweep.tasks[::max(1, len(sweep.tasks) // number)]
def do(task):
    work(str(folder), sweep.kind, task.id, dict(task.axes), types, dict(task.config))
do(tasks[0])
wall, cpu = time.perf_counter(), time.process_time()
for task in tasks[1:]:
    do(task)
n = len(tasks) - 1
print((time.perf_counter() - wall) / n, (time.process_time() - cpu) / n)
"""


def two_cores() -> list[int]:
    """The cores that the sweep and its yardstick run on."""
    return sorted(range(os.cpu_count() or 1))[-WORKERS:]


def in_a_process(code: str, *arguments: str) -> str:
    """Run a program on the two cores; return what it printed last."""
    free = f"import os; hasattr(os, 'sched_setaffinity') and os.sched_setaffinity(0, {set(two_cores())})\n"
    root = pathlib.Path(__file__).resolve().parent.parent
    run = subprocess.run([sys.executable, "-c", free + code, *arguments], capture_output=True, text=True, cwd=root)
    if run.returncode:
        raise RuntimeError(run.stderr[-2000:])
    return run.stdout.strip().splitlines()[-1]


PERFORM = """
import sys
if __name__ == "__main__":
    from grpo_dynamics.sweep import Options, perform, read_sweep
    outcome = perform(read_sweep(sys.argv[1]), sys.argv[2], Options(engine=sys.argv[3], workers=int(sys.argv[4])))
    print(outcome.seconds, len(outcome.done), outcome.broken)
"""


def one(engine: str, tasks: int, steps: int) -> dict[str, float]:
    """Perform a sweep, with the yardstick before and after it."""
    with tempfile.TemporaryDirectory(prefix="sweep-") as name:
        work = pathlib.Path(name)
        config = work / "bench.toml"
        config.write_text(CONFIG.format(steps=steps, seeds=list(range(tasks // 4))))
        number = str(min(tasks, 100))
        first = in_a_process(ALONE, str(config), str(work / "first"), number).split()
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        started = time.perf_counter()
        seconds, done, broken = in_a_process(PERFORM, str(config), str(work / "out"), engine, str(WORKERS)).split()
        whole = time.perf_counter() - started
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        last = in_a_process(ALONE, str(config), str(work / "last"), number).split()
        made = [json.loads(path.read_bytes()) for path in (work / "out" / "tasks").glob("*.json")]
    if int(done) != tasks or int(broken):
        raise RuntimeError(f"{engine}: {done} of {tasks} tasks done, workers died {broken} times")
    wall, cpu = ((float(a) + float(b)) / 2 for a, b in zip(first, last, strict=True))
    all_cpu = after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime
    return {
        "tasks": tasks,
        "task_ms": 1000 * wall,
        "task_cpu_ms": 1000 * cpu,
        "seconds": float(seconds),
        "seconds_with_start_of_python": whole,
        "of_ideal": tasks * wall / WORKERS / float(seconds),
        # Ray's processes are not descendants that are waited for: what they used is not known
        "cpu_of_ideal": tasks * cpu / all_cpu if engine != "ray" else float("nan"),
        "busy": sum(task["seconds"] for task in made) / WORKERS / float(seconds),
    }


def measure(quick: bool, engines: tuple[str, ...] = ("local", "ray", "dask"), steps: int = 100) -> dict[str, object]:
    tasks = 40 if quick else 1000
    found = {engine: one(engine, tasks, 20 if quick else steps) for engine in engines}
    table(
        f"{tasks:,} small tasks on {WORKERS} workers, of the cores' ideal",
        [
            (
                f"{engine}, tasks of {told['task_ms']:.0f} ms",
                f"{told['of_ideal']:.1%} of the ideal, {told['seconds']:.1f} s",
                f"{verdict(told['of_ideal'], WANTED, at_least=True)}; workers busy {told['busy']:.1%}"
                + (f"; {told['cpu_of_ideal']:.1%} of all CPU time is tasks" if engine != "ray" else ""),
            )
            for engine, told in found.items()
        ],
    )
    return {"engines": found}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--engines", nargs="*", default=["local", "ray", "dask"], choices=["local", "ray", "dask"])
    parser.add_argument("--steps", type=int, default=100, help="of each simulation: how long a task is")
    given = parser.parse_args()
    measure(given.quick, tuple(given.engines), given.steps)

"""A hundred million questions through fifty steps: seconds and peak memory, in a process of its own on two threads."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

from clock import table, verdict

ROOT = pathlib.Path(__file__).resolve().parent.parent

_RUN = """
import json, os, resource, sys, time
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, json.loads(sys.argv[4]))
import grpo_dynamics as gd
from grpo_dynamics.simulation.population import evolve
from grpo_dynamics.simulation.question_sources import BetaQuestions
count, steps, workers = map(int, sys.argv[1:4])
dynamics = {
    "GRPO": gd.grpo(1.0, 0.5),
    "groups of 8": gd.Recursion(1.0, 0.5, gd.FiniteGroup(8)),
    "batch-level std": gd.BatchRecursion(1.0, [0.5]),
    "k3 flow of groups of 8": gd.Flow(0.2, 0.5, gd.FiniteGroup(8), kl="k3"),
}[sys.argv[5]]
start, cpu = time.perf_counter(), time.process_time()
path = evolve(dynamics, BetaQuestions(0.5, 1.5), steps, count=count, workers=workers)
seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
print(json.dumps({"seconds": seconds, "cpu_seconds": cpu, "peak_mib": peak, "accuracy": float(path.accuracy[-1]),
                  "accuracy_error": float(path.accuracy_error[-1]), "solved": float(path.solved[-1])}))
"""


def cores() -> list[int]:
    """All cores of the machine: the parent of this section is pinned to one."""
    return list(range(os.cpu_count() or 1))


def measure(quick: bool) -> dict[str, object]:
    steps, workers = 50, 2
    counts = {"GRPO": 10**8, "groups of 8": 10**7, "batch-level std": 10**7, "k3 flow of groups of 8": 10**7}
    found: dict[str, dict[str, float]] = {}
    for name, count in counts.items():
        count = count // 500 if quick else count
        arguments = [str(count), str(steps), str(workers), json.dumps(cores()), name]
        run = subprocess.run(
            [sys.executable, "-c", _RUN, *arguments], check=True, capture_output=True, text=True, cwd=ROOT
        )
        found[name] = {"questions": count} | json.loads(run.stdout)
    whole = found["GRPO"]
    table(
        f"Populations through {steps} steps, {workers} threads",
        [
            (
                f"GRPO, {whole['questions']:,} questions",
                f"{whole['seconds']:.1f} s",
                f"{whole['cpu_seconds']:.1f} s of CPU; {verdict(whole['seconds'], 120, at_least=False)}",
            ),
            ("peak memory of the process", f"{whole['peak_mib']:.0f} MiB", verdict(whole["peak_mib"], 1024, False)),
            *(
                (f"{name}, {int(one['questions']):,}", f"{one['seconds']:.1f} s", f"{one['peak_mib']:.0f} MiB")
                for name, one in found.items()
                if name != "GRPO"
            ),
        ],
    )
    return {"steps": steps, "workers": workers} | found

"""Benchmarks of the theory core, in one process and one pinned thread: ``python benchmarks/run.py [--quick]``.

Competitors alternate over several rounds, so that a slow minute of the machine hits all of them; medians and ratios of
medians are printed, and everything goes to a JSON file under benchmarks/results with versions and hardware.
"""

from __future__ import annotations

import os

for _pool in ("OMP", "OPENBLAS", "MKL", "VECLIB_MAXIMUM", "NUMEXPR", "POLARS_MAX"):  # before NumPy is imported
    os.environ[f"{_pool}_THREADS" if "MAX" in _pool else f"{_pool}_NUM_THREADS"] = "1"
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})

import argparse
import datetime
import json
import pathlib
import platform
import sys
from importlib.metadata import version

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

import atlas
import callback
import certificates
import cuda
import explorer
import population
import readers
import roots
import running
import simulation
import startup
import sweep
import training


def hardware() -> dict[str, object]:
    """What the numbers were measured on."""
    model = platform.processor() or platform.machine()
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    return {"cpu": model, "cores": os.cpu_count(), "system": platform.system(), "threads_used": 1}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes, for a smoke test; writes no result file")
    parser.add_argument(
        "--only", nargs="*", default=list(SECTIONS), choices=list(SECTIONS), help="sections to measure (default: all)"
    )
    parser.add_argument("--out", type=pathlib.Path, help="result file (default: benchmarks/results/DATE.json)")
    options = parser.parse_args()

    now = datetime.datetime.now(datetime.UTC)
    result: dict[str, object] = {
        "date": now.isoformat(timespec="seconds"),
        "quick": options.quick,
        "hardware": hardware(),
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in ("numpy", "scipy", "python-flint")},
    }
    print(f"{hardware()['cpu']}, one thread; {result['versions']}")
    for name in options.only:
        result[name] = SECTIONS[name](options.quick)
    if options.out or not options.quick:
        path = options.out or HERE / "results" / f"{now:%Y-%m-%dT%H%M%S}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(result, indent=1) + "\n")
        print(f"\nwritten: {path}")


SECTIONS = {
    "fixed_points": roots.measure,
    "orbits": running.measure_orbits,
    "memory": running.measure_memory,
    "startup": startup.measure,
    "atlas": atlas.measure,
    "certificates": certificates.measure,
    "cuda": cuda.measure,
    "simulation": simulation.measure,
    "population": population.measure,
    "training": training.measure,
    "explorer": explorer.measure,
    "callback": callback.measure,
    "readers": readers.measure,
    "sweep": sweep.measure,
}

if __name__ == "__main__":
    main()

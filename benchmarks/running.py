"""Orbits in nanoseconds per step, and the peak memory of ten million systems."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys

import numpy as np
from clock import alternate, table, verdict
from roots import random_systems

import grpo_dynamics as gd

ROOT = pathlib.Path(__file__).resolve().parent.parent


def measure_orbits(quick: bool) -> dict[str, object]:
    batch, steps, alone, rounds = (1_000, 20, 200, 1) if quick else (100_000, 100, 10_000, 5)
    beta, p_ref, eps = random_systems(batch)
    many = gd.Recursion(beta, p_ref, gd.Whitened(eps))
    groups = gd.Recursion(beta, p_ref, gd.FiniteGroup(8))
    one = gd.grpo(beta=5.0, p_ref=1e-4)
    exponents = -np.abs(gd.logit(p_ref))
    seconds = alternate(
        {
            "batch": lambda: many.iterate(steps),
            "batch, groups of 8": lambda: groups.iterate(steps),
            "one": lambda: one.iterate(alone, p0=0.1),
            "exp": lambda: np.exp(exponents),
        },
        rounds,
    )
    per_step = {
        "batch": seconds["batch"] / batch / steps * 1e9,
        "batch, groups of 8": seconds["batch, groups of 8"] / batch / steps * 1e9,
        "one": seconds["one"] / alone * 1e9,
    }
    exp = seconds["exp"] / batch * 1e9
    table(
        f"Orbits (medians of {rounds})",
        [
            (
                f"{batch:,} systems together, whitened",
                f"{per_step['batch']:.1f} ns",
                f"per step; {per_step['batch'] / exp:.1f} numpy.exp",
            ),
            (f"{batch:,} systems together, groups of 8", f"{per_step['batch, groups of 8']:.1f} ns", "per step"),
            ("a single orbit", f"{per_step['one']:,.0f} ns", "per step"),
        ],
    )
    return {"ns_per_step": per_step, "batch": batch, "steps": steps}


_PEAK = """
import json, resource, sys, tracemalloc
import numpy as np
import grpo_dynamics as gd
n = int(sys.argv[1])
rng = np.random.default_rng(0)
beta = 10 ** rng.uniform(-3, 3, n)
p_ref = gd.sigmoid(rng.uniform(-27.6, 27.6, n))
eps = 10 ** rng.uniform(-12, -0.603, n)
dynamics = gd.Recursion(beta, p_ref, gd.Whitened(eps))
gd.fixed_points(gd.Recursion(1.0, 0.2))
tracemalloc.start()
found = gd.fixed_points(dynamics)
kept, peak = tracemalloc.get_traced_memory()
output = sum(getattr(found, name).nbytes for name in ("log_odds", "multiplier", "stable", "count", "status"))
print(json.dumps({"output": output, "peak": peak, "kept": kept}))
"""


def measure_memory(quick: bool) -> dict[str, object]:
    """NumPy reports its buffers to tracemalloc, so this counts every temporary; the input is allocated before."""
    n = 100_000 if quick else 10_000_000
    run = subprocess.run([sys.executable, "-c", _PEAK, str(n)], check=True, capture_output=True, text=True, cwd=ROOT)
    numbers = json.loads(run.stdout)
    beyond = (numbers["peak"] - numbers["output"]) / 2**20
    table(
        f"Memory of fixed_points for {n:,} systems",
        [
            ("output", f"{numbers['output'] / 2**20:.0f} MiB", ""),
            ("peak beyond input and output", f"{beyond:.1f} MiB", verdict(beyond, 300, at_least=False)),
        ],
    )
    return {"systems": n, **numbers, "beyond_mib": beyond}

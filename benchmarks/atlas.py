"""What the atlas costs: phase diagrams with regimes, attractors, cycles, exponents, basins, flows and populations."""

from __future__ import annotations

import numpy as np
from clock import alternate, table, verdict
from roots import random_systems

import grpo_dynamics as gd

SIDE = 2_000
GOAL = 6.0  # seconds for a phase diagram of SIDE × SIDE


def plane(side: int, normalization: gd.Normalization) -> gd.Recursion:
    """Every β from 0.05 to 20 and p_ref from 1e-6 to 1 − 1e-6, the plane of the pictures and a little more."""
    far = gd.logit(1e-6)
    return gd.Recursion(np.geomspace(0.05, 20, side)[:, None], gd.sigmoid(np.linspace(far, -far, side)), normalization)


def hard(n: int, seed: int = 0) -> gd.Recursion:
    """Systems from where oscillation and chaos live."""
    rng = np.random.default_rng(seed)
    return gd.grpo(10 ** rng.uniform(0, 1.5, n), 10 ** rng.uniform(-7, -2, n), 10 ** rng.uniform(-6, -3, n))


def measure(quick: bool) -> dict[str, object]:
    side, n, rounds = (100, 500, 1) if quick else (SIDE, 10_000, 3)
    beta, p_ref, eps = random_systems(100 * n)
    questions = gd.sigmoid(np.random.default_rng(1).normal(-1, 2, 10 * n))
    k3, grouped = (gd.Flow(beta, p_ref, gap, "k3") for gap in (gd.Whitened(eps), gd.FiniteGroup(8)))
    jobs = {
        f"regimes of {side} × {side}, ε = 1e-5": (side**2, lambda: gd.regime(plane(side, gd.Whitened(1e-5)))),
        f"regimes of {side} × {side}, ε = 1e-3": (side**2, lambda: gd.regime(plane(side, gd.Whitened(1e-3)))),
        f"regimes of {side} × {side}, ε = 0": (side**2, lambda: gd.regime(plane(side, gd.Whitened(0.0)))),
        "regimes, groups of 8": (n, lambda: gd.regime(plane(int(n**0.5), gd.FiniteGroup(8)))),
        "regimes, two-KL": (n, lambda: gd.regime(gd.two_kl(beta[:n], p_ref[:n], 0.5))),
        "attractors of hard questions": (n, lambda: gd.attractors(hard(n))),
        "cycles to period 4 of hard questions": (n // 10, lambda: gd.cycles(hard(n // 10), 4)),
        "exponents of 12,048 steps": (n // 10, lambda: gd.lyapunov(hard(n // 10))),
        "basins of one bistable question": (1, lambda: gd.basins(gd.grpo(1.0, 0.2))),
        "fixed points under k3, exact statistics": (100 * n, lambda: gd.fixed_points(k3)),
        "fixed points under k3, groups of 8": (100 * n, lambda: gd.fixed_points(grouped)),
        "a population under a batch-level std": (
            10 * n,
            lambda: gd.batch_fixed_points(gd.BatchRecursion(1.0, questions)),
        ),
    }
    seconds = alternate({name: run for name, (_, run) in jobs.items()}, rounds)
    rows: list[tuple[str, str, str]] = []
    for name, (size, _) in jobs.items():
        goal = verdict(seconds[name], GOAL, at_least=False) if size == SIDE**2 else ""
        rows.append((name, f"{seconds[name]:.3g} s", f"{seconds[name] / size * 1e6:.3g} µs each  {goal}".rstrip()))
    table(f"The atlas (medians of {rounds})", rows)
    return {"seconds": seconds, "systems": {name: size for name, (size, _) in jobs.items()}}

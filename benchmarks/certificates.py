"""What a certificate costs: proved fixed points of random systems, groups, 50 digits and cycles."""

from __future__ import annotations

import numpy as np
from clock import alternate, table, verdict
from roots import random_systems

import grpo_dynamics as gd
from grpo_dynamics.theory.certificates.certainty import Certainty
from grpo_dynamics.theory.certificates.certify import certify
from grpo_dynamics.theory.certificates.certify_cycle import certify_cycle


def near_folds(n: int, distance: float, seed: int = 1) -> gd.Recursion:
    """Systems whose β is so far, relatively, from one at which two fixed points merge."""
    rng = np.random.default_rng(seed)
    beta, _, eps = random_systems(n, seed)
    beta = np.minimum(beta, 0.5 * gd.Whitened(eps).steepest()[1])  # below the cusp: both folds exist
    fold = np.where(rng.random(n) < 0.5, *gd.Whitened(eps).folds(beta))
    p_ref = gd.sigmoid(fold - gd.Whitened(eps).gap(fold) / beta)
    inside = (p_ref > 1e-300) & (p_ref < 1 - 1e-9)  # nearer to 1 a float cannot say where the fold is
    beta = beta * (1 + distance * rng.choice([-1, 1], n))
    return gd.Recursion(beta[inside], p_ref[inside], gd.Whitened(eps[inside]))


def measure(quick: bool) -> dict[str, object]:
    n, rounds = (500, 1) if quick else (20_000, 5)
    beta, p_ref, eps = random_systems(n)
    few = slice(0, n // 20)
    cycle = np.repeat(gd.logit([[0.002338037922], [0.058715829879]]), n // 20, axis=1)
    jobs = {
        "random, ε in the variance": (n, lambda: certify(gd.Recursion(beta, p_ref, gd.Whitened(eps)))),
        "random, ε on the std": (n, lambda: certify(gd.Recursion(beta, p_ref, gd.Whitened(eps, "std")))),
        "random, ε = 0": (n, lambda: certify(gd.Recursion(beta, p_ref, gd.Whitened(0.0)))),
        "groups of 8": (n, lambda: certify(gd.Recursion(beta, p_ref, gd.FiniteGroup(8, 1e-4)))),
        "50 digits": (n // 20, lambda: certify(gd.grpo(beta[few], p_ref[few], eps[few]), digits=50)),
        "cycles of period 2": (n // 20, lambda: certify_cycle(gd.grpo(np.full(n // 20, 5.0), 1e-3), cycle)),
    }
    for distance in (1e-6, 1e-9, 1e-12):
        systems = near_folds(n // 4, distance)
        jobs[f"{distance:g} from a fold"] = (len(systems.beta), lambda systems=systems: certify(systems))
    rates = {name: float(np.mean(run().status == Certainty.CERTIFIED)) for name, (_, run) in jobs.items()}
    seconds = alternate({name: run for name, (_, run) in jobs.items()}, rounds)
    micros = {name: seconds[name] / size * 1e6 for name, (size, _) in jobs.items()}
    goals = {"random, ε in the variance": verdict(micros["random, ε in the variance"], 100, at_least=False)}
    table(
        f"Certificates (medians of {rounds})",
        [
            (name, f"{micros[name]:.0f} µs each", f"{rates[name]:.2%} certified  {goals.get(name, '')}".rstrip())
            for name in jobs
        ],
    )
    return {"systems": {name: size for name, (size, _) in jobs.items()}, "microseconds": micros, "certified": rates}

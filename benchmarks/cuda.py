"""Fixed points of 1e8 random systems on a CUDA GPU, against the bounds that the GPU's own throughput sets.

The bound counts the exponentials, logarithms, square roots and divisions that the kernel's formula has per system and
divides by the rates at which this GPU does them, measured in the same run. TORCHINDUCTOR_COORDINATE_DESCENT_TUNING=1
in the environment makes the compiler search for the best launch configuration, which takes minutes.
"""

from __future__ import annotations

import collections
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from clock import table, verdict

import grpo_dynamics as gd

AS_EXP = ("log1p", "tanh", "tan", "acos", "asinh")
"""A few each per system; counted as one exponential, which is not more than they cost."""


def measure(quick: bool) -> dict[str, object]:
    try:
        import torch
    except ImportError:
        torch = None
    if torch is None or not torch.cuda.is_available():
        print("\nFixed points on a GPU: skipped, no CUDA GPU")
        return {"skipped": "no CUDA GPU"}
    return measure_on(torch.device("cuda"), 1 << 22 if quick else 100_000_000, 2 if quick else 5)


def measure_on(device: Any, n: int, rounds: int) -> dict[str, object]:
    """The measurement on any device of torch; on a CPU only to try it out."""
    import torch

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    result: dict[str, object] = {"gpu": name, "torch": torch.__version__, "systems": n}
    print(f"\n{name}, torch {torch.__version__}", flush=True)
    bandwidth = memory_bandwidth(device, n // 4, rounds)
    for dtype, goal in ((torch.float64, True), (torch.float32, False)):
        label = str(dtype).removeprefix("torch.")
        result[label] = measure_dtype(device, dtype, n, rounds, bandwidth, goal)
    result["bandwidth"] = bandwidth
    result["float32_error"] = float32_error(device, min(n, 10_000_000))
    result["agreement"] = agreement(device)
    return result


def random_systems(device: Any, dtype: Any, n: int, seed: int = 0) -> Any:
    """β, p_ref and ε over the range of the accuracy target, p_ref as far as the type can tell it from 1."""
    import torch

    generator = torch.Generator(device).manual_seed(seed)

    def uniform(low: float, high: float) -> Any:
        return torch.rand(n, generator=generator, device=device, dtype=dtype) * (high - low) + low

    top = 27.6 if dtype == torch.float64 else 14.0
    return gd.Recursion(10 ** uniform(-3, 3), gd.sigmoid(uniform(-27.6, top)), gd.Whitened(10 ** uniform(-12, -0.61)))


def seconds(device: Any, run: Callable[[], object], rounds: int) -> float:
    """Median seconds of a run, after one that is not measured."""
    import torch

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    run()
    times: list[float] = []
    for _ in range(rounds):
        wait()
        start = time.perf_counter()
        run()
        wait()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def memory_bandwidth(device: Any, n: int, rounds: int) -> float:
    """Bytes per second, read and written, of a copy."""
    import torch

    source = torch.ones(n, dtype=torch.float64, device=device)
    target = torch.empty_like(source)
    return 16 * n / seconds(device, lambda: target.copy_(source), rounds)


def throughput(device: Any, dtype: Any, step: Callable[[Any], Any], n: int, rounds: int) -> float:
    """Steps per second in a fused chain, from a short and a long one, so that launch and memory drop out."""
    import torch

    from grpo_dynamics.theory.solvers.compiled import FUSE_ALL

    x = torch.linspace(0.5, 1.5, n, dtype=dtype, device=device)

    def chain(length: int) -> float:
        def run(x: Any) -> Any:
            for _ in range(length):
                x = step(x)
            return x

        compiled = torch.compile(run, fullgraph=True, dynamic=True, options=FUSE_ALL)
        return seconds(device, lambda: compiled(x), rounds)

    few, many = 32, 96
    torch._dynamo.reset()
    return (many - few) * n / max(chain(many) - chain(few), 1e-12)


def rates(device: Any, dtype: Any, n: int, rounds: int) -> dict[str, float]:
    """Operations per second: each stays in a range where it takes its usual path."""
    import torch

    steps: dict[str, Callable[[Any], Any]] = {
        "exp": lambda x: torch.exp(-x),
        "log": lambda x: torch.log(x + 2.0),
        "sqrt": lambda x: torch.sqrt(x + 2.0),
        "div": lambda x: 1.5 / (x + 0.25),
        "multiply-add": lambda x: x * 0.9999 + 0.0001,
    }
    return {name: throughput(device, dtype, step, n, rounds) for name, step in steps.items()}


def operations(dtype: Any) -> dict[str, int]:
    """Operations per system in the kernel's formula, with repeated and unused ones removed."""
    import torch
    from array_api_compat import torch as xp
    from torch._functorch.compile_utils import fx_graph_cse
    from torch.fx.experimental.proxy_tensor import make_fx

    from grpo_dynamics.theory.solvers import branch_free

    options = [torch.full((2,), 0.5, dtype=dtype) for _ in range(4)]
    traced = make_fx(lambda *values: branch_free.solve(xp, False, *values))(*options)
    traced.graph.eliminate_dead_code()
    names = [
        node.target.__name__.split(".")[0] for node in fx_graph_cse(traced.graph).nodes if node.op == "call_function"
    ]
    counts = collections.Counter(names)
    rename = {"reciprocal": "div"}
    for old, new in rename.items():
        counts[new] += counts.pop(old, 0)
    return dict(counts)


def measure_dtype(device: Any, dtype: Any, n: int, rounds: int, bandwidth: float, goal: bool) -> dict[str, object]:
    import torch

    from grpo_dynamics.theory.solvers import compiled

    systems = random_systems(device, dtype, n)
    start = time.perf_counter()
    found = compiled.fixed_points(systems)
    roots, degenerate = int(found.count.sum(dtype=torch.int64)), int((found.status != 0).sum())
    first = time.perf_counter() - start
    del found
    each = seconds(device, lambda: compiled.fixed_points(systems), rounds) / n
    few = min(n, compiled.WORTHWHILE - 1)
    small = random_systems(device, dtype, few)
    general = seconds(device, lambda: gd.fixed_points(small), rounds) / few

    counts = operations(dtype)
    speed = rates(device, dtype, min(n, 1 << 24), rounds)
    exps = counts["exp"] + sum(counts.get(name, 0) for name in AS_EXP)
    needed = {"exp": exps, "log": counts["log"], "sqrt": counts["sqrt"], "div": counts["div"]}
    arithmetic = sum(number / speed[name] for name, number in needed.items())
    multiply_add = sum(counts.get(name, 0) for name in ("mul", "add", "sub", "rsub")) / speed["multiply-add"]
    size = dtype.itemsize
    memory = (3 * size + 6 * size + 3 + 2) / bandwidth
    bound, binds = max((arithmetic, "arithmetic"), (memory, "memory"))
    label = str(dtype).removeprefix("torch.")
    table(
        f"Fixed points with stability of {n:,} random systems, {label} (medians of {rounds})",
        [
            (
                "systems per second",
                f"{1 / each:.3g}",
                verdict(1 / each, 2e8, at_least=True) if goal else "",
            ),
            ("fraction of the bound", f"{bound / each:.2f}", verdict(bound / each, 0.5, at_least=True) if goal else ""),
            ("bound by exp, log, sqrt, div", f"{1 / arithmetic:.3g}/s", f"per system {needed}"),
            ("bound by memory", f"{1 / memory:.3g}/s", f"{bandwidth / 1e12:.2f} TB/s"),
            ("which binds", binds, ""),
            ("multiplications, additions would allow", f"{1 / multiply_add:.3g}/s", "not in the bound"),
            *((f"{name} per second", f"{rate:.3g}", "") for name, rate in speed.items()),
            ("first call, with compilation", f"{first:.0f} s", ""),
            ("general solver on this device", f"{1 / general:.3g}/s", "no compilation"),
            ("roots", f"{roots:,}", f"{degenerate:,} systems degenerate"),
        ],
    )
    return {
        "systems_per_second": 1 / each,
        "fraction_of_bound": bound / each,
        "binds": binds,
        "bounds_per_second": {"arithmetic": 1 / arithmetic, "memory": 1 / memory, "multiply_add": 1 / multiply_add},
        "operations_per_system": counts,
        "operations_per_second": speed,
        "seconds_of_first_call": first,
        "general_solver_systems_per_second": 1 / general,
        "roots": roots,
        "degenerate": degenerate,
    }


def float32_error(device: Any, n: int) -> dict[str, object]:
    """The float32 results against the float64 results for exactly the same options."""
    import torch

    from grpo_dynamics.theory.solvers import compiled

    systems = random_systems(device, torch.float32, n, seed=1)
    options = (systems.beta, systems.p_ref, systems.normalization.eps)
    beta, p_ref, eps = (value.double() for value in options)
    single, double = compiled.fixed_points(systems), compiled.fixed_points(gd.grpo(beta, p_ref, eps))
    wrong = single.count != double.count
    both = ~torch.isnan(double.log_odds) & ~wrong & (single.status == 0) & (double.status == 0)
    errors = {
        "log-odds, over 1 + |L|": (single.log_odds - double.log_odds).abs() / (1 + double.log_odds.abs()),
        "p": (single.p - double.p).abs(),
        "multiplier, over 1 + |.|": (single.multiplier - double.multiplier).abs() / (1 + double.multiplier.abs()),
    }
    rows = {name: error[both].cpu().numpy() for name, error in errors.items()}
    table(
        f"float32 against float64, {n:,} systems",
        [
            *((name, f"{np.median(e):.1e}", f"median; largest {e.max():.1e}") for name, e in rows.items()),
            ("systems with another count", f"{float(wrong.double().mean()):.1e}", ""),
        ],
    )
    return {
        "wrong_counts": float(wrong.double().mean()),
        **{name: {"median": float(np.median(error)), "largest": float(error.max())} for name, error in rows.items()},
    }


def agreement(device: Any, n: int = 100_000) -> dict[str, object]:
    """The same systems by NumPy: other counts, and the largest difference in log-odds over 1 + |L| + |L_ref|."""
    import torch

    from grpo_dynamics.theory.solvers import compiled

    systems = random_systems(device, torch.float64, n, seed=2)
    options = (systems.beta, systems.p_ref, systems.normalization.eps)
    beta, p_ref, eps = (value.cpu().numpy() for value in options)
    reference, ours = gd.fixed_points(gd.grpo(beta, p_ref, eps)), compiled.fixed_points(systems)
    same = ours.count.cpu().numpy() == reference.count
    scale = 1 + np.abs(reference.log_odds) + np.abs(gd.logit(p_ref))
    largest = float(np.nanmax((np.abs(ours.log_odds.cpu().numpy() - reference.log_odds) / scale)[:, same]))
    table(
        f"Against NumPy, {n:,} systems",
        [("other counts", f"{int((~same).sum())}", ""), ("largest difference", f"{largest:.1e}", "relative")],
    )
    return {"other_counts": int((~same).sum()), "largest_difference": largest}

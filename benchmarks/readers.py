"""A dump of 1 GB of each format, and how long and in how much memory ``validate --from`` makes a report of it.

Each dump is made first, of random words, and read in a process of its own on two threads. The
time is of the whole command, from its start to the written report; the memory is the process's largest.
``python benchmarks/readers.py [--gigabytes 1] [--only trl verl ...]`` measures this alone.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable

import numpy as np
import polars as pl
from clock import table, verdict

ROOT = pathlib.Path(__file__).resolve().parent.parent
SECONDS, GIBIBYTES = 60.0, 2.0
QUESTIONS, GROUP, PER_STEP = 4000, 8, 256
WORDS = np.array([f"w{i:x}{'aeiou'[i % 5]} " for i in range(40_000)])

READ = """
import resource, sys, time
start = time.perf_counter()
from grpo_dynamics.cli import main
code = main(sys.argv[1:])
used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
cpu = sum(use.ru_utime + use.ru_stime for use in used)
print("MEASURED", code, time.perf_counter() - start, cpu, used[0].ru_maxrss)
"""

Write = Callable[[pathlib.Path, int, list[str], list[str], list[bool]], int]


def text(rng: np.random.Generator, words: int) -> str:
    """So many random words."""
    return "".join(WORDS[rng.integers(0, len(WORDS), words)])


def write_trl(folder: pathlib.Path, step: int, prompts: list[str], answers: list[str], right: list[bool]) -> int:
    file = folder / "completions" / f"completions_{step + 1:05d}.parquet"
    file.parent.mkdir(exist_ok=True)
    (folder / "training_args.json").write_text('{"beta": 0.04, "num_generations": 8, "num_iterations": 1}')
    columns = {"step": [step + 1] * len(prompts), "prompt": prompts, "completion": answers}
    reward = [float(x) for x in right]
    pl.DataFrame({**columns, "right": reward, "advantage": [0.0] * len(right)}).write_parquet(file)
    return file.stat().st_size


def write_verl(folder: pathlib.Path, step: int, prompts: list[str], answers: list[str], right: list[bool]) -> int:
    file = folder / f"{step + 1}.jsonl"
    with file.open("w") as lines:
        for prompt, answer, good in zip(prompts, answers, right, strict=True):
            entry = {"input": prompt, "output": answer, "gts": "42", "score": float(good), "step": step + 1}
            lines.write(json.dumps(entry, ensure_ascii=False) + "\n")
    return file.stat().st_size


def write_open_instruct(
    folder: pathlib.Path, step: int, prompts: list[str], answers: list[str], right: list[bool]
) -> int:
    file = folder / f"run_rollouts_{step // 5:06d}.jsonl"
    before = file.stat().st_size if file.exists() else 0
    with file.open("a") as lines:
        for i, (prompt, answer, good) in enumerate(zip(prompts, answers, right, strict=True)):
            tokens = [hash(word) % 100_000 for word in answer.split()]
            record = {"step": step, "sample_idx": i, "prompt_idx": i // GROUP, "prompt_tokens": [*prompt.encode()[:60]]}
            record |= {"response_tokens": tokens, "reward": 10.0 * good, "advantage": 0.0, "finish_reason": "stop"}
            record |= {"dataset": "d", "ground_truth": None, "logprobs": [-0.6931471805599453] * len(tokens)}
            lines.write(json.dumps(record) + "\n")
    return file.stat().st_size - before


def write_nano_aha(folder: pathlib.Path, step: int, prompts: list[str], answers: list[str], right: list[bool]) -> int:
    file = folder / "episodes" / f"eps_{step:06d}.json"
    file.parent.mkdir(exist_ok=True)
    rows = zip(prompts, answers, right, strict=True)
    file.write_text(json.dumps([{"query": q, "response": a, "reward": 1.0 + good} for q, a, good in rows]))
    return file.stat().st_size


def write_generic(folder: pathlib.Path, step: int, prompts: list[str], answers: list[str], right: list[bool]) -> int:
    """As many row groups of one file; joined at the end of :func:`make`."""
    file = folder / f"{step:06d}.parquet"
    columns = {"iteration": [step] * len(prompts), "prompt": prompts, "completion": answers, "success": right}
    pl.DataFrame(columns).write_parquet(file)
    return file.stat().st_size


KINDS: dict[str, tuple[Write, tuple[str, ...]]] = {
    "trl": (write_trl, ()),
    "verl": (write_verl, ("--set", "use_kl_loss=true", "--set", "adv_estimator=grpo", "--set", "rollout.n=8")),
    "open-instruct": (write_open_instruct, ("--set", "beta=0.05", "--set", "filter_zero_std_samples=false")),
    "nano-aha": (write_nano_aha, ("--set", "kl_coeff=0.001")),
    "generic": (write_generic, ("--trainer", "trl", "--set", "beta=0.04")),
}


def make(kind: str, folder: pathlib.Path, size: float) -> tuple[pathlib.Path, int, int]:
    """Write a dump of about ``size`` bytes; return where it is, its bytes and its completions."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    prompts = [f"Question {i}: {text(rng, 60)}" for i in range(QUESTIONS)]
    pool = [text(rng, int(words)) for words in rng.integers(100, 500, 4000)]
    write, _ = KINDS[kind]
    written, step, rows = 0, 0, 0
    while written < size:
        chosen = np.repeat((step * PER_STEP + np.arange(PER_STEP)) % QUESTIONS, GROUP)
        answers = [f"{pool[i]}{step}" for i in rng.integers(0, len(pool), len(chosen))]
        right = (rng.random(len(chosen)) < 0.2 + 0.6 * chosen / QUESTIONS).tolist()
        written += write(folder, step, [prompts[i] for i in chosen], answers, right)
        step, rows = step + 1, rows + len(chosen)
    if kind != "generic":
        return folder, written, rows
    whole = folder.with_suffix(".parquet")
    pl.scan_parquet(folder / "*.parquet").sink_parquet(whole, row_group_size=50_000)
    return whole, whole.stat().st_size, rows


def read(kind: str, path: pathlib.Path, out: pathlib.Path) -> dict[str, float]:
    """Run the command in a process of its own, on two threads."""
    environment = {**os.environ, "POLARS_MAX_THREADS": "2", "OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2"}
    arguments = ["validate", str(path), "--from", kind, *KINDS[kind][1], "--out", str(out)]
    if hasattr(os, "sched_setaffinity"):
        free = sorted(range(os.cpu_count() or 1))[-2:]
        code = f"import os; os.sched_setaffinity(0, {set(free)})\n{READ}"
    else:
        code = READ
    run = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=ROOT, env=environment
    )
    last = run.stdout.strip().rsplit("\n", 1)[-1].split()
    if run.returncode or last[:2] != ["MEASURED", "0"]:
        raise RuntimeError(f"{kind}: {run.stderr[-2000:]}{run.stdout[-500:]}")
    wall, cpu, peak = map(float, last[2:])
    return {"seconds": wall, "cpu_seconds": cpu, "peak_gib": peak / 2**20}


def measure(quick: bool, gigabytes: float = 1.0, only: tuple[str, ...] = tuple(KINDS)) -> dict[str, object]:
    """Dumps of 1 GB each, one after the other."""
    size = 1e7 if quick else gigabytes * 1e9
    found: dict[str, dict[str, float]] = {}
    for kind in only:
        work = pathlib.Path(tempfile.mkdtemp(prefix="readers-"))
        try:
            path, written, rows = make(kind, work / kind, size)
            found[kind] = {"bytes": written, "completions": rows, **read(kind, path, work / "out")}
        finally:
            shutil.rmtree(work)
    table(
        f"A dump of {size / 1e9:g} GB becomes a report",
        [
            (
                f"{kind}, {told['completions']:,.0f} completions",
                f"{told['seconds']:.1f} s, {told['peak_gib']:.2f} GiB",
                f"{told['cpu_seconds']:.1f} s of CPU; {verdict(told['seconds'], SECONDS, at_least=False)}; "
                f"{verdict(told['peak_gib'], GIBIBYTES, at_least=False)}",
            )
            for kind, told in found.items()
        ],
    )
    return {"kinds": found}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--only", nargs="*", default=list(KINDS), choices=list(KINDS))
    given = parser.parse_args()
    measure(False, given.gigabytes, tuple(given.only))

"""Runs that are killed, in processes of their own that have everything imported already."""

import multiprocessing
import os
import signal
import time


def context():
    ctx = multiprocessing.get_context("forkserver")
    ctx.set_forkserver_preload(["tests.training.killed", "grpo_dynamics.training.runs", "transformers.models.llama"])
    return ctx


def work(config, out, seconds):
    import torch

    from grpo_dynamics.training.runs import run

    torch.set_num_threads(1)
    start = time.perf_counter()
    run(config, out, resume=True)
    seconds.value = time.perf_counter() - start


def run_and_kill(config, out, after):
    """Resume a run, and kill -9 it after so many seconds; return whether that was before its end, and its seconds."""
    ctx = context()
    seconds = ctx.Value("d", 0.0)
    process = ctx.Process(target=work, args=(str(config), str(out), seconds))
    process.start()
    process.join(after)
    was_alive = process.is_alive()
    if was_alive:
        os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert was_alive or process.exitcode == 0
    return was_alive, seconds.value

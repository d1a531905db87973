"""Sweeps give the same bytes on every engine, with any number of workers, and through any death of a worker."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import polars as pl
import pytest

import grpo_dynamics as gd
from grpo_dynamics.provenance import digest
from grpo_dynamics.sweep import Options, gather, perform, read_sweep
from grpo_dynamics.sweep.perform import _rounds
from grpo_dynamics.sweep.plan import plan
from grpo_dynamics.sweep.store import Store
from grpo_dynamics.sweep.work import work

pytest.importorskip("joblib", reason="joblib is not installed: no engine to sweep with")

ENGINES = [
    "local",
    pytest.param("ray", marks=pytest.mark.filterwarnings("ignore")),  # its own: of sockets, and of versions to come
    pytest.param("dask", marks=pytest.mark.filterwarnings("ignore")),
]


def need(engine):
    for module in {"ray": ("ray",), "dask": ("dask", "distributed")}.get(engine, ()):
        pytest.importorskip(module, reason=f"{module} is not installed")


def tables(folder: Path) -> dict[str, str]:
    return {path.name: digest(path.read_bytes()) for path in (folder / "tasks").glob("*.parquet")}


def in_this_process(sweep, folder: Path) -> dict[str, str]:
    """The tables without any engine."""
    from grpo_dynamics.sweep.plan import column_types

    (folder / "tasks").mkdir(parents=True)
    for task in reversed(sweep.tasks):
        work(str(folder), sweep.kind, task.id, dict(task.axes), column_types(sweep), dict(task.config))
    return tables(folder)


def kill_one(folder: Path, killed: list[int]) -> None:
    """Kill the worker of the first task that is seen at work."""
    until = time.monotonic() + 60
    while not killed and time.monotonic() < until:
        for marker in (folder / "tasks").glob("*.running"):
            try:
                pid = int(marker.read_text())
            except (FileNotFoundError, ValueError):  # just gone, or just being written
                continue
            assert pid != os.getpid(), "tasks have to run in other processes"
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)
            return
        time.sleep(0.005)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_killed_worker_loses_nothing(engine, config, tmp_path):
    """One of two workers gets SIGKILL in the middle of a task: in the end all tables are those without any engine."""
    need(engine)
    sweep, out, killed = read_sweep(config(steps=200)), tmp_path / "out", []
    thread = threading.Thread(target=kill_one, args=(out, killed))
    thread.start()
    outcome = perform(sweep, out, Options(engine=engine, workers=2))
    thread.join()
    assert len(killed) == 1
    assert (len(outcome.done), outcome.failed) == (6, {})
    assert tables(out) == in_this_process(sweep, tmp_path / "alone")
    made = [json.loads(path.read_bytes()) for path in (out / "tasks").glob("*.json")]
    assert len(made) == 6
    assert not list((out / "tasks").glob("*.running"))


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="whether a process ended is read from /proc")
def test_workers_end_with_a_sweep_that_is_killed(config, tmp_path):
    """A worker that went on would write into the folder beside the one that resumes the sweep."""
    path, out = config(steps=100_000), tmp_path / "out"
    program = (
        "import sys; from grpo_dynamics.sweep import Options, perform, read_sweep; "
        "perform(read_sweep(sys.argv[1]), sys.argv[2], Options(workers=2))"
    )
    parent = subprocess.Popen([sys.executable, "-c", program, str(path), str(out)])
    until, workers = time.monotonic() + 60, []
    while len(workers) < 2 and time.monotonic() < until:
        workers = [text for m in (out / "tasks").glob("*.running") if (text := m.read_text().strip())]
        time.sleep(0.05)
    parent.kill()
    parent.wait()
    assert len(workers) == 2

    def alive(pid):
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except FileNotFoundError:
            return False

    while any(map(alive, workers)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(map(alive, workers))


def test_done_tasks_are_skipped_and_damaged_ones_made_again(config, tmp_path):
    sweep, out = read_sweep(config()), tmp_path / "out"
    assert perform(sweep, out, Options(workers=1)).skipped == 0
    before, times = tables(out), {p: p.stat().st_mtime_ns for p in (out / "tasks").iterdir()}
    damaged = sorted((out / "tasks").glob("*.parquet"))[:5]
    damaged[0].write_bytes(b"damaged")
    damaged[1].with_suffix(".json").unlink()
    for path, text in zip(damaged[2:], ("null", "[]", '{"sha256"'), strict=True):
        path.with_suffix(".json").write_text(text)
    outcome = perform(sweep, out, Options(workers=2, resume=True))
    assert (outcome.skipped, len(outcome.done)) == (1, 6)
    assert tables(out) == before
    touched = {p.stem for p, t in times.items() if p.stat().st_mtime_ns != t}
    assert touched == {path.stem for path in damaged}


def test_gathered_are_the_axes_and_the_tables(config, tmp_path):
    sweep, out = read_sweep(config()), tmp_path / "out"
    perform(sweep, out, Options(workers=2))
    lazy = gather(out)
    assert isinstance(lazy, pl.LazyFrame)
    table = lazy.collect()
    assert table.columns[:4] == ["task", "training.beta", "seed", "step"]
    assert table.height == 6 * 6 * 2
    assert table["task"].unique(maintain_order=True).to_list() == [task.id for task in sweep.tasks]
    start = table.filter(step=0)  # of every simulation: the reference itself
    assert start["p"].to_list() == pytest.approx([0.05, 0.2] * 6)


def test_a_phase_diagram_of_one_point_is_the_fixed_point(tmp_path):
    """Up to β = 5 from p_ref = 0.2 the orbit ends in a stable fixed point, which fixed_points finds by another way."""
    sweep = plan("x", {"kind": "phase_diagram", "base": {"p_ref": 0.2}, "axes": {"beta": [1.0, 2.0, 5]}})
    perform(sweep, tmp_path, Options(workers=2))
    table = gather(tmp_path).collect()
    assert table["beta"].to_list() == [1.0, 2.0, 5.0]
    for beta, p in table.select("beta", "p_middle").iter_rows():
        points = gd.fixed_points(gd.grpo(beta, 0.2))
        assert p == pytest.approx(float(points.p[points.stable][0]), abs=1e-9)


def test_what_fails_is_tried_again_and_told(tmp_path):
    """At this learning rate k3, an exponential, overflows; the other task is done."""
    base = {"questions": {"p_ref": 0.2}, "training": {"update": "gradient", "kl": "k3"}, "steps": 3}
    table = {"kind": "simulate", "base": base, "axes": {"training.learning_rate": [0.1, 1e100]}}
    outcome = perform(plan("x", table), tmp_path, Options(workers=2, retries=2))
    assert len(outcome.done) == 1
    ((task, reason),) = outcome.failed.items()
    assert reason.startswith("FloatingPointError: ")
    about = json.loads((tmp_path / "sweep.json").read_bytes())
    assert (about["status"], about["failed"]) == ("failed in part", {task: reason})
    again = perform(plan("x", table), tmp_path, Options(workers=2, resume=True, retries=0))
    assert (again.skipped, again.failed) == (1, outcome.failed)


SIX = {"kind": "phase_diagram", "base": {"p_ref": 0.2}, "axes": {"beta": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]}}


def engine_that_breaks(sweep, folder, guilty):
    """An engine of two workers: a guilty task takes the whole pool down, with the task beside it."""
    calls: list[list[str]] = []

    def do(todo, alone):
        calls.append([call[2] for call in todo])
        for i, call in enumerate(todo):
            if call[2] in guilty:
                for other in todo[max(0, i - 1) : i + 1]:
                    Store(folder).marker(other[2]).write_text("1")
                    Store(folder).manifest(other[2]).unlink(missing_ok=True)
                return "TerminatedWorkerError: killed"
            work(*call)
        return None

    return do, calls


def test_the_guilty_task_is_found_and_the_innocent_are_done(tmp_path):
    """One task always kills its worker. Its neighbour, running beside it, dies with it, and yet does not fail."""
    sweep = plan("x", SIX)
    (tmp_path / "tasks").mkdir()
    guilty = sweep.tasks[3].id
    do, calls = engine_that_breaks(sweep, tmp_path, {guilty})
    broken, failed = _rounds(Store(tmp_path), sweep, sweep.tasks, do, 1)
    assert failed == {guilty: "its worker died: TerminatedWorkerError: killed"}
    assert broken == 3  # with the others, then alone, then alone again
    assert sum(call == [guilty] for call in calls) == 2
    assert len(tables(tmp_path)) == 5


def test_an_engine_that_is_gone_ends_the_sweep(tmp_path):
    sweep = plan("x", SIX)
    (tmp_path / "tasks").mkdir()
    broken, failed = _rounds(Store(tmp_path), sweep, sweep.tasks, lambda calls, alone: "OSError: no scheduler", 1)
    assert broken == 2
    assert set(failed.values()) == {"the engine is gone: OSError: no scheduler"}
    assert len(failed) == 6

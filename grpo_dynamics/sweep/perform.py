"""A sweep from its tasks to their tables: rounds of work, until every task is done or has failed too often."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from grpo_dynamics.arrays import require
from grpo_dynamics.provenance import commit, hardware, versions
from grpo_dynamics.sweep.engines import Engine, Round, opened, require_engine
from grpo_dynamics.sweep.kinds import KINDS
from grpo_dynamics.sweep.plan import Sweep, SweepTask, column_types
from grpo_dynamics.sweep.store import Store, claim, write_about

Told = Callable[[int, int, str], None]
"""Called with (done, total, what is next)."""

LOOK = 0.2
"""Seconds between two looks at how many tasks are done, for the progress bar."""


@dataclasses.dataclass(frozen=True)
class Options:
    """How a sweep is performed; nothing of it changes a result.

    Args:
        engine: "local", "ray" or "dask".
        address: of a cluster that is there; without it one is started on this machine.
        workers: so many tasks at a time; as many as cores if not given.
        retries: so many times a task that failed, or whose worker died under it, is tried again.
        resume: go on with the sweep that the folder holds; start if there is none.

    Raises:
        ValueError: for a value out of range.
    """

    engine: Engine = "local"
    address: str | None = None
    workers: int | None = None
    retries: int = 1
    resume: bool = False

    def __post_init__(self) -> None:
        require("retries", self.retries, "an integer >= 0", lambda x: x >= 0)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a sweep.

    Attributes:
        done: ids of the tasks whose tables are there.
        skipped: how many of them were there before.
        failed: reasons by task, in the order of the sweep.
        broken: how often workers died, or the engine.
        seconds: of this call.
    """

    done: tuple[str, ...]
    skipped: int
    failed: dict[str, str]
    broken: int
    seconds: float


def perform(sweep: Sweep, out: str | Path, options: Options | None = None, tell: Told | None = None) -> Outcome:
    """Compute the tables of a sweep that are not there yet.

    Args:
        sweep: what to do.
        out: the folder of the sweep; all workers have to see it under this path.
        options: on which engine, how often again.
        tell: told how many tasks are done.

    Raises:
        ValueError: for an engine that is not there, or a folder that holds another sweep.
        OSError: where the folder cannot be written.
    """
    options, started, store = options or Options(), time.perf_counter(), Store(Path(out).absolute())
    require_engine(options.engine, options.address, options.workers)
    claim(store, sweep, options.resume)
    waiting = [task for task in sweep.tasks if not store.is_whole(task.id)]
    for task in waiting:
        store.forget(task.id)
    store.table("").parent.mkdir(exist_ok=True)
    broken, failed = 0, {}
    if waiting:
        try:
            KINDS[sweep.kind].prepare((task.config for task in waiting), store.folder / "runs")
        except ValueError:
            if len(waiting) == len(sweep.tasks):  # the config has to be changed; the folder is as good as new
                store.about.unlink()
            raise
        with (
            _reported(store, sweep, tell),
            opened(options.engine, options.workers, options.address) as do,
        ):
            broken, failed = _rounds(store, sweep, waiting, do, options.retries)
        for half in store.table("").parent.glob(".*.part"):  # what killed workers were just writing
            half.unlink()
    failed = {task.id: failed[task.id] for task in sweep.tasks if task.id in failed}
    done = tuple(task.id for task in sweep.tasks if task.id not in failed)
    outcome = Outcome(done, len(sweep.tasks) - len(waiting), failed, broken, round(time.perf_counter() - started, 3))
    how = {key: value for key, value in dataclasses.asdict(options).items() if key != "resume"}
    made: dict[str, Any] = {"versions": versions(), "commit": commit(), "hardware": hardware(), "options": how}
    told = {"seconds": outcome.seconds, "done": len(done), "failed": failed, "workers_died": broken}
    write_about(store, sweep, {"status": "failed in part" if failed else "finished", **made, **told})
    return outcome


def _rounds(
    store: Store, sweep: Sweep, waiting: Sequence[SweepTask], do: Round, retries: int
) -> tuple[int, dict[str, str]]:
    """Work through the tasks; return how often the engine broke, and the reasons of what failed for good.

    A round that breaks leaves markers of the tasks that were running. One of them may have killed its worker, the
    others only went down with the pool: from then on each of these runs alone, so that the guilty one is known.
    """
    types = column_types(sweep)
    alone: list[SweepTask] = []
    tries: Counter[str] = Counter()
    failed: dict[str, str] = {}
    broken = idle = 0
    while waiting or alone:
        single = not waiting
        round_, waiting = ([alone.pop(0)], []) if single else (list(waiting), [])
        before = len(round_)
        reason = do(
            [(str(store.folder), sweep.kind, t.id, dict(t.axes), types, dict(t.config)) for t in round_], single
        )
        broken += reason is not None
        for task in round_:
            if store.is_done(task.id):
                store.marker(task.id).unlink(missing_ok=True)
                continue
            said, was_running = store.reason(task.id), store.marker(task.id).exists()
            store.forget(task.id)
            if said is None and reason is not None and not single:
                (alone if was_running else waiting).append(task)  # nobody's fault so far
                continue
            tries[task.id] += 1
            if tries[task.id] > retries:
                failed[task.id] = said or f"its worker died: {reason or 'it left no result'}"
            else:
                (alone if single else waiting).append(task)
        idle = idle + 1 if reason is not None and len(waiting) == before else 0
        if idle > retries:  # nothing began at all: there is no engine any more
            failed |= {task.id: f"the engine is gone: {reason}" for task in (*waiting, *alone)}
            break
    return broken, failed


class _reported:
    """Tells how many tasks are done while the block runs: a thread looks into the folder."""

    def __init__(self, store: Store, sweep: Sweep, tell: Told | None) -> None:
        self.store, self.sweep, self.tell, self.over = store, sweep, tell, threading.Event()
        self.thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> None:
        if self.tell is not None:
            self.thread.start()

    def __exit__(self, *error: object) -> None:
        self.over.set()
        if self.tell is not None:
            self.thread.join()

    def _look(self) -> None:
        assert self.tell is not None
        own = {task.id for task in self.sweep.tasks}
        while not self.over.wait(LOOK):
            done = sum(path.stem in own for path in self.store.table("").parent.glob("*.json"))
            self.tell(done, len(own), "tasks")

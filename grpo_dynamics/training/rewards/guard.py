"""A verifier that raises or hangs costs one completion, not the run: it works in processes that can be killed."""

from __future__ import annotations

import os
import pickle
import queue
import signal
import subprocess
import sys
import weakref
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection, Pipe
from typing import Any, NamedTuple

from grpo_dynamics.arrays import require
from grpo_dynamics.training.verifiers import Asked, Verdict, Verifier, verdict

START_SECONDS = 120.0
"""How long a process may take to start and to import the verifier, which may bring in large libraries."""


def guarded(verifier: Verifier, seconds: float, workers: int = 1) -> Guarded:
    """Return the verifier with a time limit for each completion: a failure where it is passed, and where it raises.

    The verifier works in processes of its own, which are started once and again after a hang. So it has to be
    picklable: an instance of a class, or a function, of a module. Programs with tests need no guard, they have one.

    Args:
        verifier: what judges; it is asked about one completion at a time.
        seconds: most time for one completion; then the outcome is "timeout" and the process is killed, whatever it
            is doing. A verifier that raises, or ends its process, gives "error" ("memory" for a MemoryError).
        workers: processes.

    Raises:
        ValueError: if the seconds or workers are not positive, or the verifier cannot be sent to another process.

    >>> from types import SimpleNamespace
    >>> from grpo_dynamics.training.rewards.constraints import Pattern
    >>> question = SimpleNamespace(prompt="", answer="", correct=None, extra={})
    >>> with guarded(Pattern("(a+)+b"), 0.5) as verifier:
    ...     [v.outcome for v in verifier([question] * 2, ["aab", "a" * 50])]
    ['right', 'timeout']
    """
    require("seconds", seconds, "positive and finite", lambda x: (x > 0) & (x < float("inf")))
    require("workers", workers, "a whole number >= 1", lambda x: (x >= 1) & (x % 1 == 0))
    return Guarded(verifier, seconds, workers)


class Guarded:
    """A verifier behind a time limit, see ``guarded``; ``close``, or the end of a ``with``, ends its processes."""

    def __init__(self, verifier: Verifier, seconds: float, workers: int) -> None:
        self.verifier, self.seconds, self.workers = verifier, seconds, workers
        try:
            self._pickled = pickle.dumps(verifier)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise ValueError(f"verifier must be picklable to be guarded ({error}), got {verifier!r}") from None
        self._idle: queue.SimpleQueue[_Worker | None] = queue.SimpleQueue()  # None: one that is yet to be started
        self._idle.put(_Worker(self._pickled, seconds))  # at once: what cannot work is refused here
        for _ in range(workers - 1):
            self._idle.put(None)
        self.close = weakref.finalize(self, _stop_all, self._idle)

    def __call__(self, questions: Sequence[Asked], completions: Sequence[str]) -> list[Verdict]:
        with ThreadPoolExecutor(self.workers) as pool:
            return [*pool.map(self._one, zip(questions, completions, strict=True))]

    def _one(self, pair: tuple[Asked, str]) -> Verdict:
        question, completion = pair
        worker = self._idle.get() or _Worker(self._pickled, self.seconds)
        said = _Question(question.prompt, question.answer, question.correct, dict(question.extra))
        found = worker.ask(said, completion)
        self._idle.put(worker if worker.usable else None)
        return found

    def __enter__(self) -> Guarded:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Question(NamedTuple):
    """What a verifier sees of a question, in a form that every process can read."""

    prompt: str
    answer: str
    correct: tuple[str, ...] | None
    extra: Mapping[str, Any]


class _Worker:
    """The near end of a process that holds the verifier."""

    def __init__(self, pickled: bytes, seconds: float) -> None:
        self.seconds = seconds
        self.connection, theirs = Pipe()
        code = f"from grpo_dynamics.training.rewards import guard; guard.serve({theirs.fileno()}, {seconds!r})"
        paths = os.pathsep.join(sys.path)  # it finds the verifier's module as this process did
        self.process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            env={**os.environ, "PYTHONPATH": paths},
        )
        theirs.close()
        self.usable = True
        try:
            self.connection.send_bytes(pickled)
            problem = self.connection.recv() if self.connection.poll(START_SECONDS) else "it takes too long"
        except (EOFError, OSError):
            problem = "its process ended"
        if problem:
            self.stop()
            raise ValueError(f"verifier must be one that another process can load: {problem}")

    def ask(self, question: _Question, completion: str) -> Verdict:
        """Return the verdict; the worker is stopped if there is none in time."""
        try:
            self.connection.send((question, completion))
            if self.connection.poll(self.seconds):
                return self.connection.recv()
            late = "timeout"
        except (EOFError, OSError):
            late = "error"  # the verifier ended its process
        self.stop()
        return verdict(False, late)

    def stop(self) -> None:
        """Kill the process."""
        self.usable = False
        self.connection.close()
        self.process.kill()
        self.process.wait()


def _stop_all(idle: queue.SimpleQueue[_Worker | None]) -> None:
    while not idle.empty():
        worker = idle.get()
        if worker is not None:
            worker.stop()


def serve(number: int, seconds: float) -> None:
    """Be the process: load the verifier, and judge what comes until nobody asks."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the asker decides when to end
    connection = Connection(number)
    try:
        verifier = pickle.loads(connection.recv_bytes())
    except Exception as error:
        connection.send(f"{type(error).__name__}: {error}")
        return
    connection.send("")
    while True:
        # Should the asker be killed while this hangs, nobody ends it: then its processor time does (SIGPROF).
        signal.setitimer(signal.ITIMER_PROF, 0)
        try:
            question, completion = connection.recv()
        except EOFError:
            return
        signal.setitimer(signal.ITIMER_PROF, seconds + 5)
        connection.send(_judged(verifier, question, completion))


def _judged(verifier: Verifier, question: Asked, completion: str) -> Verdict:
    try:
        (found,) = verifier([question], [completion])
    except MemoryError:
        return verdict(False, "memory")
    except Exception:
        return verdict(False, "error")
    return found if isinstance(found, Verdict) else verdict(False, "error")

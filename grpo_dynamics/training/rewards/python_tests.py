"""Does a program pass its tests? Programs that a model wrote, run in a sandbox, many at a time."""

from __future__ import annotations

import dataclasses
import functools
import marshal
import math
import os
import re
import secrets
import shutil
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from grpo_dynamics.arrays import require
from grpo_dynamics.training.rewards.sandbox import MIB, Containment, Limits, known_machine, run
from grpo_dynamics.training.verifiers import Asked, Verdict, verdict


@dataclasses.dataclass(frozen=True)
class ProgramTests:
    """A completion is right where the program in it passes the question's tests.

    ``question.extra["tests"]`` is Python source (or a list of pieces of it) that calls the function named in
    ``question.extra["entry_point"]`` (or the functions named in that list) and asserts. Functions ``test_...`` in it
    are called, and so is ``check``, with the function. The program runs in a process of its own and exchanges plain
    data with the tests: None, numbers, text, bytes, and lists, tuples, dicts and sets of those; whatever else it
    returns is an error. The program that the verifier runs is ``extract_program(completion, ...)``.

    Outcomes: right, wrong (an assertion failed), error (an exception, or the program ended before its tests did),
    timeout, memory, output. Equal programs with equal tests run once per call.

    Args:
        limits: what one program may use.
        workers: programs that run at a time; None: one for each core.
        unsafe_no_sandbox: run programs with the rights of this process where they cannot be contained.

    Raises:
        ValueError: if there is no sandbox here and ``unsafe_no_sandbox`` is not set; from the call: if a question
            has no tests or no entry point.
        RuntimeError: from the call, if the sandbox, which worked before, does not start any more.
    """

    limits: Limits = dataclasses.field(default_factory=Limits)
    workers: int | None = None
    unsafe_no_sandbox: bool = False

    def __post_init__(self) -> None:
        if self.workers is not None:
            require("workers", self.workers, "None or a whole number >= 1", lambda x: (x >= 1) & (x % 1 == 0))
        problem = None if self.unsafe_no_sandbox else sandbox_problem()
        if problem:
            raise ValueError(f"unsafe_no_sandbox must be True where programs cannot be contained, got False: {problem}")

    def __call__(self, questions: Sequence[Asked], completions: Sequence[str]) -> list[Verdict]:
        runs = [_what_to_run(*pair) for pair in zip(questions, completions, strict=True)]
        each = list(dict.fromkeys(runs))
        containment = _containment()[0]
        with ThreadPoolExecutor(self.workers or _cores()) as pool:
            found = [pool.submit(outcome, *one, self.limits, containment) for one in each]
        known = {one: future.result() for one, future in zip(each, found, strict=True)}
        return [verdict(known[one] == "right", known[one]) for one in runs]


def outcome(program: str, tests: str, entry_points: tuple[str, ...], limits: Limits, containment: Containment) -> str:
    """Return how one program does: "right", "wrong", "error", "timeout", "memory" or "output".

    The word of the tests counts only behind a secret, which the program's process never sees.

    Raises:
        RuntimeError: if the sandbox does not start, as where the machine is out of processes.
    """
    own = {"root": 2, "user": 3}.get(containment, 0)  # processes of its user in the sandbox before it starts any
    inside = {
        "memory": limits.memory_mib * MIB,
        "cpu": math.ceil(limits.seconds) + 1,  # the clock strikes first, unless a program has several processes
        "files": limits.files_mib * MIB,
        "processes_in_all": limits.processes and (limits.processes + own if own else None),
    }
    job = marshal.dumps({"program": program, "entry_points": entry_points, "limits": inside})
    secret = secrets.token_bytes(16)
    ended = run(_harness(), job, marshal.dumps((secret, tests)), limits, containment)
    started, said = ended.reply[:1], ended.reply[1:]
    if not started and not ended.stopped:  # of no program's doing: none has run
        lines = ended.output.decode(errors="replace").splitlines()
        raise RuntimeError(f"the sandbox did not start: {lines[-1] if lines else 'it says nothing'}")
    word = said.removeprefix(secret).decode() if said.startswith(secret) else ""
    return ended.stopped or word or "error"


def extract_program(completion: str, entry_points: Sequence[str] = (), prompt: str = "") -> str:
    r"""Return the program in a completion.

    What a model thought before ``</think>`` is left out. Of blocks in Markdown fences the last that defines the
    function counts, else the last; a block cut off at the end of the completion is one too. Without fences the whole
    completion is the program. Where it does not define the function and the prompt does, it continues the prompt.

    >>> extract_program("Here it is:\n```python\ndef f(x):\n    return x\n```\nDone.", ["f"])
    'def f(x):\n    return x\n'
    >>> extract_program("    return x", ["f"], prompt="def f(x):\n")
    'def f(x):\n    return x'
    """
    text = completion.rpartition("</think>")[2]

    def defines(source: str) -> bool:
        names = map(re.escape, entry_points)
        return all(re.search(rf"^(def|class) {name}\b|^{name} *=", source, re.MULTILINE) for name in names)

    blocks = re.findall(r"^[ \t]*```[^\n]*\n(.*?)(?:^[ \t]*```|\Z)", text, re.MULTILINE | re.DOTALL)
    program = next((block for block in reversed(blocks) if defines(block)), blocks[-1] if blocks else text)
    return prompt + program if entry_points and not defines(program) and defines(prompt) else program


def sandbox_problem() -> str | None:
    """Return why programs cannot be contained on this machine, in one line; None where they can."""
    return _containment()[1]


@functools.cache
def _containment() -> tuple[Containment, str | None]:
    """Find the way of containment that holds here, by a program that tries to get out; or none, and why."""
    if sys.platform != "linux" or not known_machine():
        return "none", "the sandbox is written for Linux on x86_64 and aarch64"
    if not shutil.which("bwrap"):
        return "none", "bubblewrap is not installed (the program bwrap)"
    problem = ""
    for containment in _WAYS:
        try:
            said = outcome(_ESCAPE, "assert escape() == []", ("escape",), Limits(seconds=20.0), containment)
        except RuntimeError as error:
            problem = str(error)
            continue
        if said == "right":
            return containment, None
        problem = "a program got out of it" if said == "wrong" else f"the outcome of a trial is {said}"
    return "none", f"bubblewrap does not work here ({problem})"


_WAYS: tuple[Containment, ...] = ("root", "user") if os.geteuid() == 0 else ("user",)

_ESCAPE = """
import os, socket

def escape():
    done = []
    for attempt in (fork, lambda: open("/usr/lib/escaped", "w"), socket.socket):
        try:
            attempt()
            done.append(str(attempt))
        except OSError:
            pass
    return done

def fork():
    if os.fork() == 0:
        os._exit(0)
"""


@functools.cache
def _harness() -> bytes:
    """Return the code that runs inside the sandbox, compiled once."""
    path = Path(__file__).with_name("program_harness.py")
    return marshal.dumps(compile(path.read_text(encoding="utf-8"), str(path), "exec"))


def _cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def _what_to_run(question: Asked, completion: str) -> tuple[str, str, tuple[str, ...]]:
    """Return the program, its tests and its entry points."""
    tests = question.extra.get("tests")
    names = question.extra.get("entry_point")
    sources = (tests,) if isinstance(tests, str) else tuple(tests or ())
    entry_points = (names,) if isinstance(names, str) else tuple(names or ())
    for name, value, given in (("tests", sources, tests), ("entry_point", entry_points, names)):
        if not value or not all(isinstance(item, str) and item.strip() for item in value):
            raise ValueError(f"{name} of a question with programs must be text or a list of texts, got {given!r}")
    return extract_program(completion, entry_points, question.prompt), "\n".join(sources), entry_points

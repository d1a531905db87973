"""Runs inside the sandbox: a program in one process, its tests in another; nothing of the package is there.

The program's process is forked off before the tests and the secret are read, and knows neither. It gets calls and
gives back values, as plain data. So it can answer the tests only by computing: to end early, to read the tests, to
return objects that equal everything, or to change what ``assert``, ``len`` or ``==`` mean changes nothing here.
The outcome counts only with the secret in front of it.
"""

from __future__ import annotations

import builtins
import marshal
import os
import resource
import sys

TYPE_CHECKING = False  # as in typing, which takes longer to import than the rest of this takes to run
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, NoReturn

LONGEST = 64 << 20
"""Bytes of the longest message; a longer one ends the run."""


class ProgramEnded(BaseException):
    """The program's process is gone. Not an Exception, so that tests which catch those do not go on."""


def main() -> None:
    """Take the job, run it, and write the secret and the outcome."""
    job_file, secret_file, reply, user = (int(text) for text in sys.argv[2:])
    job = marshal.loads(_all(job_file))
    confine(user, job["limits"])
    os.write(reply, b"+")  # what fails from here on is the program's doing
    calls, answers = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        for number in (secret_file, reply, calls[1], answers[0]):
            os.close(number)
        _play(job["program"], calls[0], answers[1], job["limits"]["processes_in_all"])
    os.close(calls[0])
    os.close(answers[1])
    secret, tests = marshal.loads(_all(secret_file))
    outcome = judge(tests, job["entry_points"], Program(calls[1], answers[0]))
    os.kill(child, 9)  # SIGKILL
    os.write(reply, secret + outcome.encode())
    os._exit(0)


def confine(user: int, limits: Mapping[str, int]) -> None:
    """Become another user, if there is one to become, and give up what the limits do not allow."""
    if user >= 0:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    for what, most in (
        (resource.RLIMIT_AS, limits["memory"]),
        (resource.RLIMIT_CPU, limits["cpu"]),
        (resource.RLIMIT_FSIZE, limits["files"]),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (most, most))


def _play(program: str, calls: int, answers: int, processes: int | None) -> NoReturn:
    """Be the program: define its names, then answer calls until nobody asks."""
    if processes is not None:
        resource.setrlimit(resource.RLIMIT_NPROC, (processes, processes))
    names: dict[str, Any] = {"__name__": "program"}
    try:
        _answer(answers, lambda: exec(compile(program, "program", "exec"), names), [])
        while True:
            name, arguments, named = _receive(calls)
            _answer(answers, lambda call=(name, arguments, named): _called(names, *call), arguments)
    finally:
        os._exit(1)


def _called(names: dict[str, Any], name: str, arguments: list[Any], named: dict[str, Any]) -> Any:
    return names[name](*arguments, **named)


def _answer(answers: int, call: Callable[[], Any], arguments: list[Any]) -> None:
    """Send what a call returns, and its arguments, which it may have changed; or what it raised."""
    try:
        value = call()
        try:
            answer = marshal.dumps(("value", value, arguments))
        except ValueError:
            answer = marshal.dumps(("value", plain(value), plain(arguments)))
    except Exception as error:  # any other, SystemExit among them, ends the program
        kinds = [kind.__name__ for kind in type(error).__mro__ if kind.__module__ == "builtins"]
        answer = marshal.dumps(("raised", kinds[0], str(error)[:1000]))
    _send(answers, answer)


def plain(value: Any) -> Any:
    """Return a value as plain data: named tuples become tuples, counters dicts; TypeError where none fits."""
    if value is None or isinstance(value, bool):
        return value
    given: Any = value  # of types that are subclasses, so far as they are known at all
    if isinstance(value, dict):
        return {plain(key): plain(item) for key, item in given.items()}
    kinds: Any = (int, float, complex, str, bytes)
    for kind in kinds:
        if isinstance(value, kind):
            return kind(given)
    for kind in (tuple, list, set, frozenset):
        if isinstance(value, kind):
            return kind(plain(item) for item in given)
    raise TypeError(f"a program under test returns plain data, got {type(value).__name__}")


class Program:
    """The tests' side of the program.

    Args:
        calls: file descriptor to which calls are written.
        answers: file descriptor from which what they return is read.
    """

    def __init__(self, calls: int, answers: int) -> None:
        self.calls, self.answers = calls, answers
        self.called = False
        self.failed = ""

    def receive(self) -> tuple[Any, Any]:
        """Return the value of a call and its arguments afterwards, or raise what it raised."""
        try:
            kind, value, more = _receive(self.answers)
        except (EOFError, ValueError, TypeError):
            self.failed = "error"
            raise ProgramEnded from None
        if kind == "value":
            return value, more
        if value == "MemoryError":
            self.failed = "memory"
            raise ProgramEnded
        raise _error(value, str(more))

    def function(self, name: str) -> Callable[..., Any]:
        """Return a function that is computed in the program's process."""

        def function(*arguments: Any, **named: Any) -> Any:
            self.called = True
            try:
                _send(self.calls, marshal.dumps((name, list(arguments), named)))
            except BrokenPipeError:
                self.failed = "error"
                raise ProgramEnded from None
            value, after = self.receive()
            for argument, changed in zip(arguments, after, strict=True):
                _change(argument, changed)
            return value

        function.__name__ = name
        return function


def _error(name: Any, message: str) -> Exception:
    """Return the built-in exception of that name, which is the program's word: nothing else may be looked up."""
    kind = getattr(builtins, str(name), RuntimeError)
    if isinstance(kind, type) and issubclass(kind, Exception):
        try:
            return kind(message)
        except TypeError:  # a few take more than a message
            return RuntimeError(message)
    return RuntimeError(message)


def _change(argument: Any, changed: Any) -> None:
    """Let a list, dict or set that was an argument have the content that the program left in it."""
    if type(argument) is list:
        argument[:] = changed
    elif type(argument) in (dict, set):
        argument.clear()
        argument.update(changed)


def judge(tests: str, entry_points: Sequence[str], program: Program) -> str:
    """Run the tests and return the outcome.

    The tests are a module that finds the functions by name; its functions ``test_...`` are called, and ``check``
    with the first function, where there are such.
    """
    functions = {name: program.function(name) for name in entry_points}
    names: dict[str, Any] = {"__name__": "tests", **functions}
    try:
        program.receive()  # its definitions have run
        exec(compile(tests, "tests", "exec"), names)
        for name, value in list(names.items()):
            if name.startswith("test_") and callable(value):
                value()
        if callable(names.get("check")):
            names["check"](functions[entry_points[0]])
    except ProgramEnded:
        return program.failed
    except AssertionError:
        return program.failed or "wrong"
    except MemoryError:
        return "memory"
    except BaseException:
        return program.failed or "error"
    return program.failed or ("right" if program.called else "error")


def _all(number: int) -> bytes:
    with open(number, "rb") as file:
        return file.read()


def _send(number: int, message: bytes) -> None:
    data = memoryview(len(message).to_bytes(8, "big") + message)
    while data:
        data = data[os.write(number, data) :]


def _receive(number: int) -> Any:
    length = int.from_bytes(_exactly(number, 8), "big")
    if length > LONGEST:
        raise EOFError
    return marshal.loads(_exactly(number, length))


def _exactly(number: int, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        more = os.read(number, min(count - len(data), 1 << 20))
        if not more:
            raise EOFError
        data += more
    return bytes(data)


if __name__ == "__main__":
    main()

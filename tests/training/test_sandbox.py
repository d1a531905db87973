"""Programs that attack: each is contained, scored 0, and leaves nothing behind; the run goes on."""

import os
import pathlib
import socket
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from grpo_dynamics.training.rewards import sandbox
from grpo_dynamics.training.rewards.program_harness import _error
from grpo_dynamics.training.rewards.python_tests import ProgramTests, sandbox_problem
from grpo_dynamics.training.rewards.sandbox import Limits

needs_sandbox = pytest.mark.skipif(sandbox_problem() is not None, reason=f"programs: {sandbox_problem()}")
pytestmark = needs_sandbox

GOOD = "def f(x):\n    return x * x"
TESTS = "assert f(3) == 9\nassert f(-2) == 4"
PATIENT = Limits(seconds=60.0)  # a loaded machine must not turn an error into a timeout
QUICK = Limits(seconds=1.0)


def question(tests: str = TESTS, entry_point: str = "f"):
    return SimpleNamespace(prompt="", answer="", correct=None, extra={"tests": tests, "entry_point": entry_point})


def outcome(program: str, tests: str = TESTS, limits: Limits = PATIENT) -> str:
    (found,) = ProgramTests(limits=limits, workers=1)([question(tests)], [program])
    assert found.success == (found.outcome == "right") == (found.reward == 1.0)
    return found.outcome


def call(*lines: str, first: str = "") -> str:
    """A program whose function does something before it answers rightly."""
    return "\n".join([first, "def f(x):", *(f"    {line}" for line in lines), "    return x * x"])


def test_the_function_that_all_attacks_are_wrapped_around_is_right():
    assert outcome(GOOD) == "right"
    assert outcome(call("pass")) == "right"


# An attack that raises inside the program is an error; what matters is that none is right.
ATTACKS = {
    "forks for ever": ("error", call("import os", "while True: os.fork()")),
    "starts a thread": ("error", call("import threading", "threading.Thread(target=print).start()")),
    "starts a program": ("error", call("import subprocess", "subprocess.run(['/bin/true'])")),
    "allocates 10 GiB at once": ("memory", call("y = bytearray(10 << 30)")),
    "allocates 10 GiB bit by bit": ("memory", call("y = []", "while True: y.append(bytearray(1 << 20))")),
    "writes to the system": ("error", call("open('/usr/lib/written', 'w')")),
    "writes to the root": ("error", call("open('/written', 'w')")),
    "makes a folder outside": ("error", call("import os", "os.mkdir('/usr/written')")),
    "reads the users": ("error", call("open('/etc/passwd').read()")),
    "lists processes": ("error", call("import os", "os.listdir('/proc')")),
    "opens a socket": ("error", call("import socket", "socket.socket()")),
    "looks a name up": ("error", call("import socket", "socket.create_connection(('example.org', 80), 5)")),
    "prints 1 GB": ("output", call("for i in range(1000): print('x' * 1_000_000)")),
    "prints 1 GB as errors": ("output", call("import os", "for i in range(1000): os.write(2, b'x' * 1_000_000)")),
    "kills its parent": ("error", call("import os", "os.kill(os.getppid(), 9)")),
    "kills all it can": ("error", call("import os", "os.kill(-1, 9)")),
    "kills itself": ("error", call("import os", "os.kill(os.getpid(), 9)")),
    "exits where it is defined": ("error", f"import sys\nsys.exit(0)\n{GOOD}"),
    "exits at once where it is defined": ("error", f"import os\nos._exit(0)\n{GOOD}"),
    "exits in the first call": ("error", call("import sys", "sys.exit(0)")),
    "exits at once in the first call": ("error", call("import os", "os._exit(0)")),
    "leaves by an exception of its own": ("error", call("raise Away", first="class Away(BaseException): pass")),
    "crashes the interpreter": ("error", call("import ctypes", "ctypes.string_at(0)")),
    "closes every file": ("error", call("import os", "os.closerange(0, 64)")),
    "says right on every file": (
        "error",
        call("import os", "for i in range(64):", "    try: os.write(i, b'right' * 9)", "    except OSError: pass"),
    ),
    "fills one file": ("error", call("y = open('a', 'wb')", "for i in range(64): y.write(bytes(1 << 20))")),
    "fills many files": ("error", call("for i in range(64): open(str(i), 'wb').write(bytes(1 << 20))")),
    "equals everything": (
        "error",
        "class Same:\n    def __eq__(self, other): return True\n    __hash__ = None\ndef f(x): return Same()",
    ),
    "equals everything as a number": (
        "wrong",
        "class Same(int):\n    def __eq__(self, other): return True\n    __hash__ = None\ndef f(x): return Same(0)",
    ),
    "changes what raises": ("wrong", "import builtins\nbuiltins.AssertionError = ValueError\ndef f(x): return 0"),
    "answers with code": ("error", "def f(x): return lambda: 9"),
    "answers before it is asked": (
        "error",
        "import marshal, os\nmessage = marshal.dumps(('raised', 'exec', 'import os; os._exit(0)'))\n"
        "for i in range(3, 64):\n    try: os.write(i, len(message).to_bytes(8, 'big') + message)\n"
        f"    except OSError: pass\n{GOOD}",
    ),
    "answers with what is no message": (
        "error",
        "import os\nfor i in range(3, 64):\n    try: os.write(i, b'\\xff' * 100)\n    except OSError: pass\n" + GOOD,
    ),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_contained_and_scores_nothing(name):
    expected, program = ATTACKS[name]
    assert outcome(program) == expected
    assert not [p for p in ("/usr/lib/written", "/usr/written", "/written") if os.path.exists(p)]


ENDLESS = {
    "computes": call("while True: pass"),
    "sleeps": call("import time", "time.sleep(10**6)"),
    "catches everything": call("while True:", "    try:", "        while True: pass", "    except BaseException: pass"),
    "ignores signals": call("import signal as s", "for n in (1, 2, 15, 24): s.signal(n, s.SIG_IGN)", "s.pause()"),
    "where it is defined": f"while True: pass\n{GOOD}",
    "stops its parent": call("import os, signal", "os.kill(os.getppid(), signal.SIGSTOP)"),
}


@pytest.mark.parametrize("name", ENDLESS)
def test_what_never_ends_is_ended(name):
    assert outcome(ENDLESS[name], limits=QUICK) == "timeout"


def named(mark: str) -> list[pathlib.Path]:
    """The processes of this machine with a name; a program can give itself one, and its children inherit it."""
    return [path for path in pathlib.Path("/proc").glob("[0-9]*/comm") if _text(path).strip() == mark]


def _text(path: pathlib.Path) -> str:
    try:
        return path.read_text()
    except OSError:  # it has ended meanwhile
        return ""


def soon(condition) -> bool:
    deadline = time.monotonic() + 60
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


def bomb(mark: str) -> str:
    name = f"ctypes.CDLL(None).prctl(15, b'{mark}')"
    return call("import ctypes, os", name, "while True:", "    try: os.fork()", "    except OSError: pass")


def test_a_fork_bomb_leaves_no_process_behind():
    """Where some processes are allowed: the namespace dies with the time limit, all of them in it."""
    mark = f"bomb{os.getpid()}"
    assert outcome(bomb(mark), limits=Limits(seconds=2.0, processes=8)) == "timeout"
    assert soon(lambda: named(mark) == [])


def test_programs_die_with_a_run_that_is_killed():
    mark = f"left{os.getpid()}"
    code = (
        "from tests.training.test_sandbox import Limits, bomb, outcome\n"
        f"outcome(bomb({mark!r}), limits=Limits(seconds=600.0, processes=8))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ) as run:
        try:
            assert soon(lambda: len(named(mark)) == 9)  # the program and as many as it may start
        finally:
            run.kill()
    assert soon(lambda: named(mark) == [])


def test_as_many_processes_as_allowed_and_no_more():
    program = "\n".join(
        [
            "import os, time",
            "def f(x):",
            "    for n in range(20):",
            "        try:",
            "            if os.fork() == 0: time.sleep(100)",
            "        except OSError: return n",
        ]
    )
    for allowed in (0, 3):
        limits = Limits(seconds=60.0, processes=allowed)
        assert outcome(program, f"assert f(0) == {allowed}", limits) == "right"


def test_nothing_connects_to_this_machine():
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        port = server.getsockname()[1]
        attack = f"socket.create_connection(('127.0.0.1', {port}), 5)"
        program = call("import socket", "try:", f"    {attack}", "except OSError: return 'refused'")
        assert outcome(program, "assert f(0) == 'refused'") == "right"
        with pytest.raises(BlockingIOError):
            server.accept()


def test_nothing_is_written_to_this_machine(tmp_path):
    for place in (tmp_path, pathlib.Path.cwd(), pathlib.Path.home()):
        assert outcome(call(f"open({str(place / 'written-by-a-program')!r}, 'w')")) == "error"
        assert not (place / "written-by-a-program").exists()


def test_a_program_can_write_in_its_own_folder_which_is_gone_afterwards():
    program = call("import os", "assert not os.path.exists('a')", "open('a', 'w').write('b')", "os.remove('a')")
    assert outcome(program) == "right"
    assert outcome(call("import os", "assert not os.path.exists('b')", "open('b', 'w')"), "assert f(1) == 1") == "right"
    assert outcome(call("import os", "assert not os.path.exists('b')", "open('b', 'w')"), "assert f(1) == 1") == "right"


def test_without_a_limit_on_it_there_is_no_folder(monkeypatch):
    monkeypatch.setattr(sandbox, "sizes_folders", lambda: False)
    assert outcome(GOOD) == "right"
    assert outcome(call("open('a', 'w')")) == "error"


@pytest.mark.parametrize(
    "kernel_call",
    [
        "shmget(0, 1 << 30, 0o1600)",  # memory that is counted to no process
        "memfd_create(b'a', 0)",
        "unshare(0x10000000)",  # a user namespace of its own, in which it could mount memory
        "mount(b'none', b'/work', b'tmpfs', 0, None)",
        "ptrace(16, 1, 0, 0)",
        "msgget(0, 0o1600)",
    ],
)
def test_doors_around_the_limits_are_shut(kernel_call):
    name, arguments = kernel_call.split("(", 1)
    program = f"import ctypes\ndef f(x):\n    c = ctypes.CDLL(None, use_errno=True)\n    return c.{name}({arguments}, "
    program = program.rstrip(", ") + ", ctypes.get_errno()"
    assert outcome(program, "assert f(0) == (-1, 1)") == "right"  # EPERM


def test_the_tests_and_the_secret_are_out_of_reach():
    """The tests hold a number that occurs nowhere else; the program looks for it wherever it can look."""
    program = """
import gc, os, sys

def f(x):
    seen = [repr(sys.argv), repr(dict(os.environ)), repr(list(sys.modules["__main__"].__dict__.items()))]
    frame = sys._getframe()
    while frame:
        seen.append(repr(frame.f_locals) + repr(frame.f_globals))
        frame = frame.f_back
    seen.extend(repr(thing) for thing in gc.get_objects() if type(thing) in (list, tuple, dict, str, bytes))
    for number in range(64):
        for read in (lambda: os.pread(number, 1 << 20, 0), lambda: os.lseek(number, 0, 0)):
            try:
                seen.append(repr(read()))
            except OSError:
                pass
    return any(str(7**20 + x) in text for text in seen)
"""
    number = 7**20 + 1
    assert outcome(program, f"# {number}\nassert f(1) is False") == "right"


def test_only_exceptions_are_looked_up_by_the_names_that_a_program_sends():
    assert type(_error("ValueError", "a")) is ValueError
    for name in ("exec", "eval", "print", "SystemExit", "KeyboardInterrupt", "no such name", None, 3):
        assert type(_error(name, "1/0")) is RuntimeError
    assert type(_error("UnicodeDecodeError", "a")) is RuntimeError  # it takes five arguments


def test_the_run_goes_on_among_attacks():
    """Good programs beside attacks, in one call, many at a time: every verdict is at its place."""
    names = ["forks for ever", "allocates 10 GiB at once", "prints 1 GB", "kills all it can"]
    attacks = [ATTACKS[name] for name in names]
    programs, expected = [], []
    for i, (why, attack) in enumerate(attacks):
        programs += [attack, f"{GOOD}  # {i}", GOOD]
        expected += [why, "right", "right"]
    found = ProgramTests(limits=PATIENT, workers=3)([question()] * len(programs), programs)
    assert [v.outcome for v in found] == expected


def test_printing_within_the_limit_is_no_crime():
    assert outcome(call("print('x' * 1000)")) == "right"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seconds": 0}, "seconds must be positive and finite, got 0"),
        ({"memory_mib": 8}, "memory_mib must be a whole number >= 64, got 8"),
        ({"output_kib": 0.5}, "output_kib must be a whole number >= 1, got 0.5"),
        ({"files_mib": 0}, "files_mib must be a whole number >= 1, got 0"),
        ({"processes": -1}, "processes must be a whole number >= 0, got -1"),
    ],
)
def test_limits_that_cannot_be(options, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        Limits(**options)

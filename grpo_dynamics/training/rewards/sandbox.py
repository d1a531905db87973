"""A sandbox for programs that a model wrote: bubblewrap around the interpreter, limits, and one clock that kills all.

What a program can reach is a read-only system of the interpreter and its libraries, a small folder in memory, and
nothing else: no network, no files of the machine, no other process. The namespace of processes dies with the time
limit, however many there are. Memory that limits on one process do not count (shared segments, file systems made
inside, ...) is refused system call by system call.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import itertools
import os
import platform
import selectors
import shutil
import signal
import struct
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path
from typing import IO, Literal

from grpo_dynamics.arrays import require

Containment = Literal["root", "user", "none"]
"""Who starts the sandbox: root, which gives up its rights inside; a user, through a user namespace; or nobody."""

MIB = 1 << 20


@dataclasses.dataclass(frozen=True)
class Limits:
    """What one program may use.

    Args:
        seconds: wall-clock time of a run, the start of the interpreter (about 0.03 s) included. Processor time of
            each process is limited to little more, in whole seconds.
        memory_mib: address space of each process, MiB.
        output_kib: what it may print, standard output and error together, KiB.
        files_mib: what it may write to its working folder, MiB; the folder lives in memory. There is none
            with bubblewrap before 0.7, which cannot limit it.
        processes: processes and threads it may start beside its own.

    Raises:
        ValueError: for a limit that is not positive, or not whole where it counts something.

    >>> Limits(seconds=1.0).memory_mib
    512
    """

    seconds: float = 5.0
    memory_mib: int = 512
    output_kib: int = 256
    files_mib: int = 16
    processes: int = 0

    def __post_init__(self) -> None:
        require("seconds", self.seconds, "positive and finite", lambda x: (x > 0) & (x < float("inf")))
        require("memory_mib", self.memory_mib, "a whole number >= 64", lambda x: (x >= 64) & (x % 1 == 0))
        for name in ("output_kib", "files_mib"):
            require(name, getattr(self, name), "a whole number >= 1", lambda x: (x >= 1) & (x % 1 == 0))
        require("processes", self.processes, "a whole number >= 0", lambda x: (x >= 0) & (x % 1 == 0))


@dataclasses.dataclass(frozen=True)
class Ended:
    """How a run ended.

    Args:
        output: what it printed, cut at the limit.
        reply: what was written to the file descriptor of the reply.
        stopped: the limit at which it was killed, None if it ended by itself.
    """

    output: bytes
    reply: bytes
    stopped: Literal["timeout", "output"] | None


def run(code: bytes, job: bytes, secret: bytes, limits: Limits, containment: Containment) -> Ended:
    """Run Python code in a new sandbox and wait until every process in it is dead.

    The code finds in ``sys.argv[1:]`` the file descriptors of itself, the job, the secret and the reply, and the
    number of the user that it has to become (-1: stay).

    Args:
        code: a compiled module, as marshal writes it: 1 to 2 ms faster than source.
        job: bytes that it can read.
        secret: bytes that it can read, on a file descriptor of their own, so that they can be kept from a part of it.
        limits: time and output are kept here, the working folder by bubblewrap, memory and processes by the code.
        containment: "none" runs it with the rights of this process.
    """
    with contextlib.ExitStack() as stack:
        ours, theirs = os.pipe()
        reply = stack.enter_context(open(ours, "rb", buffering=0))
        folder = stack.enter_context(tempfile.TemporaryDirectory()) if containment == "none" else "/"
        with contextlib.ExitStack() as sent:  # closed here once the sandbox has them
            sent.callback(os.close, theirs)
            files = [sent.enter_context(_in_memory(data)) for data in (code, job, secret)]
            numbers = [*(file.fileno() for file in files), theirs]
            command = [*_INTERPRETER, *map(str, numbers), str(_user(containment))]
            if containment != "none":
                rules = sent.enter_context(_in_memory(_refused_calls()))
                command = [*_bubblewrap(containment, limits, rules.fileno()), *command]
                numbers.append(rules.fileno())
            process = stack.enter_context(
                subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    pass_fds=numbers,
                    cwd=folder,
                    env=_ENVIRONMENT,
                    start_new_session=True,
                )
            )
        stack.callback(_kill, process)  # runs before the process is waited for; as does the death of this thread
        assert process.stdout is not None
        return _listen(process.stdout, reply, limits)


def _listen(output: IO[bytes], reply: IO[bytes], limits: Limits) -> Ended:
    """Read both ends until nobody holds them any more, or a limit is passed."""
    deadline = time.monotonic() + limits.seconds
    read = {output.fileno(): bytearray(), reply.fileno(): bytearray()}
    most = {output.fileno(): limits.output_kib << 10, reply.fileno(): 1 << 10}

    def ended(stopped: Literal["timeout", "output"] | None) -> Ended:
        end, said = (bytes(read[file.fileno()][: most[file.fileno()]]) for file in (output, reply))
        return Ended(end, said, stopped)

    with selectors.DefaultSelector() as waiting:
        for number in read:
            waiting.register(number, selectors.EVENT_READ)
        while waiting.get_map():
            left = deadline - time.monotonic()
            if left <= 0:
                return ended("timeout")
            for key, _ in waiting.select(left):
                data = os.read(key.fd, 1 << 16)
                read[key.fd] += data
                if not data:
                    waiting.unregister(key.fd)
                if len(read[key.fd]) > most[key.fd]:
                    return ended("output")
    return ended(None)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill the group of the process; inside bubblewrap the namespace of processes dies with its parent."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _in_memory(data: bytes) -> IO[bytes]:
    """Return a file without a name that holds the data, ready to be read by another process."""
    file = open(os.memfd_create("input"), "w+b", buffering=0)  # noqa: SIM115
    while data:
        data = data[file.write(data) :]
    file.seek(0)
    return file


_numbers = itertools.count(os.getpid() * 97)


def _user(containment: Containment) -> int:
    """Return the user a program of root becomes: nobody's, and rarely that of another run, as processes are counted."""
    return 50_000 + next(_numbers) % 8192 if containment == "root" else -1


# The interpreter, without the environment's packages: what a program may import is the standard library.
_PYTHON = os.path.realpath(sys.executable)
_INTERPRETER = (
    *(_PYTHON, "-s", "-S", "-P", "-B"),
    *("-c", "import marshal, sys; exec(marshal.loads(open(int(sys.argv[1]), 'rb').read()))"),
)
_ENVIRONMENT = {"PYTHONHASHSEED": "0", "LANG": "C.UTF-8"}  # sets in one order: the same program, the same verdict


def _bubblewrap(containment: Containment, limits: Limits, rules: int) -> list[str]:
    """Return the command that builds the sandbox."""
    command = [shutil.which("bwrap") or "bwrap", "--die-with-parent", "--new-session", "--seccomp", str(rules)]
    command += [f"--unshare-{what}" for what in ("pid", "net", "ipc", "uts", "cgroup-try")]
    if containment == "root":
        command += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]  # to become nobody
    else:
        command += ["--unshare-user", "--uid", "65534", "--gid", "65534"]
    made: set[Path] = set()
    for path in _readable():
        if path.is_symlink():  # /lib -> usr/lib
            command += ["--symlink", os.readlink(path), str(path)]
            continue
        for parent in reversed(path.parents[:-1]):
            if parent not in made:  # bubblewrap may make them for its own user alone
                command += ["--perms", "0755", "--dir", str(parent)]
                made.add(parent)
        command += ["--ro-bind", str(path), str(path)]
    command += ["--dev-bind", "/dev/null", "/dev/null"]
    if sizes_folders():
        command += ["--perms", "1777", "--size", str(limits.files_mib * MIB), "--tmpfs", "/work", "--chdir", "/work"]
    return [*command, "--remount-ro", "/", "--"]


@functools.cache
def sizes_folders() -> bool:
    """Return whether bubblewrap can limit a folder (from 0.7 on); before, a program has none to write to."""
    return b"--size" in subprocess.run(["bwrap", "--help"], capture_output=True, check=False).stdout


def _readable() -> list[Path]:
    """Return what a program can read: the interpreter, its standard library, and the libraries of the system."""
    system = [Path(name) for name in ("/usr/lib", "/usr/lib64", "/lib", "/lib64", "/etc/ld.so.cache", "/nix/store")]
    names = (sysconfig.get_config_var("LIBDIR"), sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"))
    python = [Path(_PYTHON), *(Path(name) for name in names if name)]
    found = [path for path in system if path.exists()]
    for path in python:
        if path.exists() and not any(path.is_relative_to(other) for other in found):
            found.append(path)
    return found


# System calls that are refused, by their numbers on (x86_64, aarch64): memory that no limit of a process counts,
# namespaces and file systems made inside, other processes' memory, the network, and rare doors of the kernel.
_REFUSED = {
    "shmget": (29, 194),
    "msgget": (68, 186),
    "semget": (64, 190),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "pidfd_getfd": (438, 438),
    "socket": (41, 198),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "perf_event_open": (298, 241),
    "bpf": (321, 280),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
}
_CLONE = (56, 220)
_CLONE3 = 435
_NEW_USER = 0x1000_0000
_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
"""Column of the numbers, and the kernel's name of the machine's system calls."""


def known_machine() -> bool:
    """Return whether the numbers of this machine's system calls are known here."""
    return platform.machine() in _MACHINES


def _refused_calls() -> bytes:
    """Return the filter of system calls as a program of the kernel's packet filter (seccomp(2), BPF)."""
    column, machine = _MACHINES[platform.machine()]
    load, equal, at_least, any_bit, give = 0x20, 0x15, 0x35, 0x45, 0x06
    allow, kill, refuse, unknown = 0x7FFF0000, 0x80000000, 0x50000 | errno.EPERM, 0x50000 | errno.ENOSYS
    number, kind, first_argument = 0, 4, 16  # offsets in the kernel's description of a call

    def when(test: int, value: int, result: int) -> list[tuple[int, int, int, int]]:
        return [(test, 0, 1, value), (give, 0, 0, result)]

    steps = [(load, 0, 0, kind), (equal, 1, 0, machine), (give, 0, 0, kill), (load, 0, 0, number)]
    steps += when(at_least, 0x4000_0000, refuse)  # the second numbering of x86_64
    for numbers in _REFUSED.values():
        steps += when(equal, numbers[column], refuse)
    steps += when(equal, _CLONE3, unknown)  # its flags lie in memory, out of sight: the C library then takes clone
    steps += [(equal, 0, 3, _CLONE[column]), (load, 0, 0, first_argument), *when(any_bit, _NEW_USER, refuse)]
    steps += [(give, 0, 0, allow)]
    return b"".join(struct.pack("=HBBI", *step) for step in steps)

"""Where tasks run: the cores of this machine (loky), a Ray cluster or a Dask cluster, all through joblib.

An engine is opened once and takes rounds of work. Results go through the folder of the sweep, not through the engine:
when a worker dies, a round ends with a reason, and what was done before stays done.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, Literal
from urllib.parse import urlsplit

from grpo_dynamics.arrays import require, require_choice
from grpo_dynamics.sweep.work import PARENT, one_line, work

Engine = Literal["local", "ray", "dask"]
ENGINES: tuple[Engine, ...] = ("local", "ray", "dask")

PACKAGES: Mapping[str, tuple[str, str]] = {
    "local": ("joblib", "sweep"),
    "ray": ("ray", "ray"),
    "dask": ("distributed", "dask"),
}
"""What an engine needs: a module, and the extra that installs it."""

ONE_THREAD = {
    f"{pool}_{what}": "1"
    for what, pools in {"NUM_THREADS": ("OMP", "OPENBLAS", "MKL"), "MAX_THREADS": ("POLARS",)}.items()
    for pool in pools
}
"""The environment of a worker: it has one core, and its libraries take no more."""

PATIENCE = 5.0
"""Seconds within which a scheduler has to take a connection."""

PATIENCE_OF_A_CLIENT = 20.0
"""Seconds within which a client has to be connected, its start included."""

Calls = Sequence[tuple[Any, ...]]
"""Arguments of :func:`~grpo_dynamics.sweep.work.work`."""

Round = Callable[[Calls, bool], str | None]
"""Does the calls, one at a time if the flag says so; returns None, or why not all of them came to an end."""


def require_engine(engine: str, address: str | None, workers: int | None) -> None:
    """Refuse an engine that is not there, before any work.

    Raises:
        ValueError: for an unknown engine, one whose package is not installed, an address that does not belong to it or
            at which nothing answers, and a number of workers below 1.
    """
    require_choice("engine", engine, ENGINES)
    if workers is not None:
        require("workers", workers, "an integer >= 1", lambda x: x >= 1)
    for module, extra in (PACKAGES["local"], PACKAGES[engine]):
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            raise ValueError(
                f"engine must be one that is installed, got {engine!r}: pip install 'grpo-dynamics[{extra}]' "
                f"(there is no {error.name})"
            ) from None
    if address is None:
        return
    if engine == "local":
        raise ValueError(f"address must be left out with the engine local, got {address!r}")
    if not (engine == "ray" and address == "auto"):
        _require_listener(address, engine)
    _require_answer(address, engine)


def _require_listener(address: str, engine: str) -> None:
    """Refuse an address at which nobody listens: the clients of both would try for a long time."""
    example = "HOST:6379, ray://HOST:10001 or auto" if engine == "ray" else "tcp://HOST:8786"
    try:
        parts = urlsplit(address if "://" in address else f"//{address}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if host is None or port is None:
        raise ValueError(f"address must be that of a {engine.title()} scheduler, such as {example}, got {address!r}")
    try:
        socket.create_connection((host, port), PATIENCE).close()
    except OSError as error:
        raise ValueError(
            f"address must be that of a {engine.title()} scheduler that answers, got {address!r} "
            f"({error.strerror or error})"
        ) from None


PROBES = {
    "ray": "import ray, sys; ray.init(sys.argv[1], log_to_driver=False, logging_level=50)",
    "dask": "import distributed, sys; distributed.Client(sys.argv[1], timeout=5).close()",
}
"""Programs that end well if a scheduler answers."""


def _require_answer(address: str, engine: str) -> None:
    """Refuse an address at which something else listens; asked in a process of its own, which can be given up."""
    command = [sys.executable, "-c", PROBES[engine], address]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_OF_A_CLIENT)
    except subprocess.TimeoutExpired:
        why = f"no answer in {PATIENCE_OF_A_CLIENT:.0f} s"
    else:
        if said.returncode == 0:
            return
        why = (said.stderr.strip() or f"exit code {said.returncode}").splitlines()[-1][:200]
    raise ValueError(f"address must be that of a {engine.title()} scheduler that answers, got {address!r} ({why})")


@contextlib.contextmanager
def opened(engine: Engine, workers: int | None, address: str | None) -> Generator[Round]:
    """Open an engine; give it back at the end. A cluster that was there before stays as it is.

    Args:
        engine: which.
        workers: so many tasks at a time; as many as there are cores if not given. A Dask cluster that is there already
            decides itself.
        address: of a cluster; without it one is started on this machine.

    Raises:
        ValueError: where the cluster does not answer as one of its kind.
    """
    number = workers or _cores()
    with _environment(ONE_THREAD), {"local": _loky, "ray": _ray, "dask": _dask}[engine](number, address) as backend:

        def do(calls: Calls, alone: bool) -> str | None:
            joblib: Any = importlib.import_module("joblib")
            try:
                single = alone or number == 1
                # of two workers one gets work: with one, joblib runs tasks in this process, which they may not end
                with joblib.parallel_config(**backend, n_jobs=max(number, 2)), warnings.catch_warnings():
                    warnings.filterwarnings("ignore", message="A worker stopped while some jobs were given")
                    run = joblib.Parallel(pre_dispatch=1 if single else 4 * number)
                    run(joblib.delayed(work)(*call) for call in calls)
            except Exception as error:  # a task never raises: its worker, or the engine itself, is gone
                return one_line(error)
            return None

        yield do


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Generator[None]:
    """Set variables of the environment, which new processes inherit, for the block."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _to_its_end() -> Generator[None]:
    """Let Ctrl-C wait for the end of the block, as half a cluster does not close."""
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or before is not signal.default_int_handler:
        yield
        return
    pressed: list[int] = []
    signal.signal(signal.SIGINT, lambda number, frame: pressed.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if pressed:  # whatever else was raised: a terminal sends it to the workers too
            raise KeyboardInterrupt


Backend = dict[str, Any]
"""Options of ``joblib.parallel_config``."""


@contextlib.contextmanager
def _loky(number: int, address: str | None) -> Generator[Backend]:
    with _environment({PARENT: str(os.getpid())}):  # for the workers, which start with the first tasks
        yield {"backend": "loky", "inner_max_num_threads": 1}
    loky: Any = importlib.import_module("joblib.externals.loky")
    loky.get_reusable_executor().shutdown(wait=True)


@contextlib.contextmanager
def _ray(number: int, address: str | None) -> Generator[Backend]:
    ray: Any = importlib.import_module("ray")
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if address is None:
            ray.init(num_cpus=number, include_dashboard=False, **quiet)
        else:
            ray.init(address, runtime_env={"env_vars": ONE_THREAD}, **quiet)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        raise ValueError(f"address must be that of a Ray cluster, got {address!r} ({one_line(error)})") from None
    importlib.import_module("ray.util.joblib").register_ray()
    try:
        yield {"backend": "ray"}
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _dask(number: int, address: str | None) -> Generator[Backend]:
    dask: Any = importlib.import_module("dask")
    distributed: Any = importlib.import_module("distributed")
    with contextlib.ExitStack() as stack:
        stack.enter_context(dask.config.set({"distributed.comm.timeouts.connect": f"{PATIENCE}s"}))
        if address is None:
            with _to_its_end():
                cluster = distributed.LocalCluster(
                    n_workers=number, threads_per_worker=1, dashboard_address=None, silence_logs=50
                )
                address = str(stack.enter_context(cluster).scheduler_address)
        try:
            client = stack.enter_context(distributed.Client(address, timeout=PATIENCE, set_as_default=False))
        except (OSError, TimeoutError, ValueError) as error:
            raise ValueError(f"address must be that of a Dask scheduler, got {address!r} ({one_line(error)})") from None
        yield {"backend": "dask", "client": client, "wait_for_workers_timeout": 30}

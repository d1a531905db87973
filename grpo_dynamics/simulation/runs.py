"""Runs: work cut into parts, each kept on disk as soon as it is done, so that a killed run goes on where it was.

A part's table depends on nothing but its settings, its seed and the state that the part before it left. The result is
put together from the files of the parts, whether they were computed just now or before the run was killed: both ways
give the same bytes.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from grpo_dynamics.plotting import write_whole
from grpo_dynamics.provenance import commit, digest, hardware, json_bytes, parquet, versions

if TYPE_CHECKING:
    import polars as pl


class State(Protocol):
    """What a part leaves to the next, such as :class:`~grpo_dynamics.simulation.tabular.State`."""

    def save(self, path: Path) -> Any:
        """Write a file from which everything can be had back, bit for bit."""


Told = Callable[[int, int, str], None]
"""Called before each part as (done, total, what is next), and once more at the end."""


@dataclasses.dataclass(frozen=True)
class Part:
    """A piece of work, a second or a few long.

    Attributes:
        name: what is shown while it runs.
        compute: of the state that the part before left, None for the first, to a table of results and the state for
            the next, None where parts do not build on each other.
        load: reads the state that the part before saved; None where it needs none.
    """

    name: str
    compute: Callable[[Any], tuple[pl.DataFrame, State | None]]
    load: Callable[[Path], Any] | None = None


def independent(name: str, compute: Callable[[], pl.DataFrame]) -> Part:
    """Return a part that needs nothing of the others."""
    return Part(name, lambda _: (compute(), None))


def own_seed(seed: int, index: int) -> int:
    """Return the seed of a part: parts do not share their random numbers, and none depends on how many there are.

    >>> own_seed(1, 0) == own_seed(1, 0), own_seed(1, 0) == own_seed(1, 1), own_seed(1, 0) == own_seed(0, 1)
    (True, False, False)
    """
    import numpy as np

    return int(np.random.SeedSequence([seed, index]).generate_state(1, np.uint64)[0])


@dataclasses.dataclass(frozen=True)
class Run:
    """What is to be computed, and where the results go.

    Attributes:
        name: of the files: NAME.parquet, NAME.json.
        config: everything that decides the result, as plain values.
        parts: the work, in order.
        out: the folder; made if it is not there.
        device: on which it is computed, where that is not just the machine's processor.
    """

    name: str
    config: Mapping[str, Any]
    parts: Sequence[Part]
    out: Path
    device: str | None = None

    @property
    def table(self) -> Path:
        """Where the result goes."""
        return self.out / f"{self.name}.parquet"

    @property
    def manifest(self) -> Path:
        """Where the description of the result goes."""
        return self.out / f"{self.name}.json"

    @property
    def checkpoint(self) -> Path:
        """The folder of the parts that are done, there only while the run is not finished."""
        return self.out / f".{self.name}.checkpoint"

    def identity(self) -> dict[str, Any]:
        """Return what must be the same for two runs to give the same bytes on one machine."""
        return {"config": _plain(self.config), "versions": versions()}


def perform(run: Run, resume: bool = False, tell: Told | None = None) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Compute a run and write its table and its manifest; return both.

    Args:
        run: what to do.
        resume: go on from the parts that a killed run left; a finished one is read and nothing is computed. Without
            it the run starts anew.
        tell: told before each part.

    Raises:
        ValueError: where the folder holds another run under the same name: a result is never replaced by another, and
            a run never goes on with parts of another.
        OSError: where the folder cannot be written.
    """
    import polars as pl

    finished = _read_json(run.manifest)
    if finished is not None:
        _require_same(run, finished, run.manifest)
        if resume and run.table.exists() and digest(run.table.read_bytes()) == finished["table"]["sha256"]:
            return pl.read_parquet(run.table), finished
    begun = _read_json(run.checkpoint / "run.json")
    if resume and begun is not None:
        _require_same(run, begun, run.checkpoint)
    else:
        shutil.rmtree(run.checkpoint, ignore_errors=True)
        write_whole(run.checkpoint / "run.json", json_bytes(run.identity()))
    return _compute(run, tell or (lambda done, total, what: None))


def _compute(run: Run, tell: Told) -> tuple[pl.DataFrame, dict[str, Any]]:
    import polars as pl

    started, resumed_after = time.perf_counter(), 0
    state: State | None = None
    for done, part in enumerate(run.parts):
        tell(done, len(run.parts), part.name)
        if (_stem(run, done).with_suffix(".parquet")).exists():
            resumed_after = done + 1
            continue
        if state is None and done and part.load:
            state = part.load(_stem(run, done - 1).with_suffix(".npz"))
        table, state = part.compute(state)
        if state is not None:
            state.save(_stem(run, done).with_suffix(".npz"))
        write_whole(_stem(run, done).with_suffix(".parquet"), parquet(table))  # last: it says that the part is done
    tell(len(run.parts), len(run.parts), "done")
    tables = [pl.read_parquet(_stem(run, i).with_suffix(".parquet")) for i in range(len(run.parts))]
    table = pl.concat(tables, how="vertical").rechunk()
    data = parquet(table)
    manifest: dict[str, Any] = {
        "name": run.name,
        **run.identity(),
        "commit": commit(),
        "hardware": hardware() | ({"device": run.device} if run.device else {}),
        "seconds": round(time.perf_counter() - started, 3),
        "parts": len(run.parts),
        "parts_from_checkpoint": resumed_after,
        "table": {"rows": table.height, "columns": table.columns, "sha256": digest(data)},
    }
    write_whole(run.table, data)
    write_whole(run.manifest, json_bytes(manifest))
    shutil.rmtree(run.checkpoint, ignore_errors=True)
    return table, manifest


def _stem(run: Run, index: int) -> Path:
    return run.checkpoint / f"{index:06d}"


def _require_same(run: Run, other: Mapping[str, Any], place: Path) -> None:
    """Refuse a run whose config or versions are not those of what is there."""
    own = _flat(run.identity())
    theirs = _flat({key: other.get(key) for key in run.identity()})
    for key in dict.fromkeys([*own, *theirs]):
        if own.get(key) != theirs.get(key):
            raise ValueError(
                f"out must be a folder without another run of the name {run.name}, got {str(place)!r}, where "
                f"{key.removeprefix('config.')} is {theirs.get(key)!r} and not {own.get(key)!r}"
            )


def _flat(value: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Return nested tables as one, with dots in the keys."""
    flat: dict[str, Any] = {}
    for key, item in value.items():
        flat |= _flat(item, f"{before}{key}.") if isinstance(item, Mapping) else {f"{before}{key}": item}
    return flat


def _plain(value: Any) -> Any:
    """Return the value as JSON gives it back."""
    return json.loads(json_bytes(value))


def _read_json(path: Path) -> dict[str, Any] | None:
    """Return a JSON file, None where there is none."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ValueError(f"out must be a folder whose {path.name} is JSON, got {str(path)!r} ({error})") from None

"""Folders that are there whole or not at all, with a digest of every file: what a killed run goes on from.

A folder is written under another name, every file of it forced to the disk, and then renamed. Whatever moment a process
dies at, or a disk is full, a folder of the final name is complete. Should a disk have lost or changed bytes all the
same, the digests say so.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Generator, Mapping
from pathlib import Path

from grpo_dynamics.provenance import digest, json_bytes

DIGESTS = "digests.json"
"""The file with the SHA-256 of every other file of a folder."""

KEPT = 2
"""So many checkpoints are kept: the last, and the one before in case the last is damaged."""


def name_of(iteration: int) -> str:
    """Return the name of an iteration's folder.

    >>> name_of(12)
    '000012'
    """
    return f"{iteration:06d}"


def save(root: Path, iteration: int, files: Mapping[str, bytes]) -> Path:
    """Write a folder of files, whole or not at all; one that is there already is replaced.

    Args:
        root: the folder of folders; made if it is not there.
        iteration: which it belongs to.
        files: names and contents.

    Raises:
        OSError: where it cannot be written; nothing is left behind then.

    >>> import tempfile
    >>> root = Path(tempfile.mkdtemp())
    >>> print(load(save(root, 3, {"a": b"some bytes"})))
    {'a': b'some bytes'}
    """
    final, part = root / name_of(iteration), root / f".{name_of(iteration)}.{os.getpid()}.part"
    root.mkdir(parents=True, exist_ok=True)
    try:
        part.mkdir()
        digests = {name: digest(data) for name, data in files.items()}
        for name, data in {**files, DIGESTS: json_bytes(digests)}.items():
            _write_through(part / name, data)
        _sync_folder(part)
        if final.exists():
            shutil.rmtree(final)
        part.rename(final)
        _sync_folder(root)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return final


def load(folder: Path) -> dict[str, bytes]:
    """Return the files of a folder.

    Raises:
        ValueError: where a file is missing or not what was written.
    """
    try:
        digests = json.loads((folder / DIGESTS).read_bytes())
        found = {str(name): (folder / str(name)).read_bytes() for name in digests}
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"{folder} must be a whole folder of a run, but it is damaged ({error})") from None
    wrong = [name for name, data in found.items() if digest(data) != digests[name]]
    if wrong:
        raise ValueError(f"{folder} must be as it was written, but {', '.join(wrong)} has changed")
    return found


def iterations(root: Path) -> list[int]:
    """Return the iterations that have a folder, ascending."""
    if not root.is_dir():
        return []
    return sorted(int(entry.name) for entry in root.iterdir() if entry.name.isdecimal())


def newest(root: Path, notes: list[str]) -> tuple[int, dict[str, bytes]] | None:
    """Return the last checkpoint that is whole, and its iteration; None where there is none.

    Args:
        root: the folder of checkpoints.
        notes: a line is added for each checkpoint that was passed over.
    """
    for iteration in reversed(iterations(root)):
        try:
            return iteration, load(root / name_of(iteration))
        except ValueError as error:
            notes.append(f"checkpoint {iteration} is damaged, so the one before it is used: {error}")
    return None


def keep_last(root: Path, count: int = KEPT) -> None:
    """Remove all but the last few folders."""
    for iteration in iterations(root)[:-count]:
        shutil.rmtree(root / name_of(iteration), ignore_errors=True)


def remove_after(root: Path, iteration: int) -> None:
    """Remove the folders of later iterations, and what a kill left half written."""
    for later in iterations(root):
        if later > iteration:
            shutil.rmtree(root / name_of(later))
    for part in root.glob(".*.part") if root.is_dir() else ():
        shutil.rmtree(part, ignore_errors=True)


def remove_all(root: Path) -> None:
    """Remove all folders, and the folder of them."""
    shutil.rmtree(root, ignore_errors=True)


def _write_through(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    """Force the names in a folder to the disk, where the system can."""
    with _opened(path) as handle, contextlib.suppress(OSError):
        os.fsync(handle)


@contextlib.contextmanager
def _opened(path: Path) -> Generator[int]:
    handle = os.open(path, os.O_RDONLY)
    try:
        yield handle
    finally:
        os.close(handle)

"""Sums of a run on the way: kept in a file, and read back only into the same run."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np


def save_sums(path: str | os.PathLike[str], run: str, done: int, sums: np.ndarray[Any, Any]) -> None:
    """Replace the file by these sums at once: a stop in between leaves the old ones."""
    path = Path(path)
    beside = path.with_name(f"{path.name}.{os.getpid()}.part")
    with beside.open("wb") as file:
        np.savez(file, run=np.array(run), done=np.array(done), sums=sums)
    beside.replace(path)


def load_sums(path: str | os.PathLike[str], run: str) -> tuple[int, np.ndarray[Any, Any]] | None:
    """Return the number of chunks done and their sums, or None where there is no file yet.

    Raises:
        ValueError: for a file that is no checkpoint, or that of another run, or a folder that does not exist.
    """
    path = Path(path)
    if not path.exists() and path.absolute().parent.is_dir():
        return None
    try:
        with np.load(io.BytesIO(path.read_bytes())) as kept:
            found, done, sums = str(kept["run"]), int(kept["done"]), kept["sums"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"checkpoint must be a file that a population wrote, got {str(path)!r} ({error})") from None
    if found != run:
        raise ValueError(f"checkpoint must be of the same run, {run}, got {str(path)!r} of {found}")
    return done, sums

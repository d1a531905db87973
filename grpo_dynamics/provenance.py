"""How a result was made: versions, commit, hardware; and the files that keep it, written whole or not at all."""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import polars as pl

BASE = ("grpo-dynamics", "numpy", "polars")
"""What every table depends on."""


def versions(names: tuple[str, ...] = BASE) -> dict[str, str]:
    """Return the versions of Python and of the named packages; those that are not installed are left out.

    >>> sorted(versions(("numpy", "no-such-package")))
    ['numpy', 'python']
    """
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = _version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _version(name: str) -> str:
    from grpo_dynamics import __version__

    return __version__ if name == "grpo-dynamics" else metadata.version(name)


def commit() -> str | None:
    """Return the commit of the checkout that this package is run from, with "+" where files differ; None elsewhere."""
    folder = Path(__file__).parents[1]
    if not (folder / ".git").exists():
        return None

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--", "grpo_dynamics", "paper_figures")
        return git("rev-parse", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return None


def hardware() -> dict[str, Any]:
    """Return the kind of machine, its system and its number of cores."""
    return {"machine": platform.machine(), "system": platform.system(), "cores": os.cpu_count()}


def parquet(table: pl.DataFrame) -> bytes:
    """Return a table as the bytes of a parquet file, the same for the same table."""
    buffer = io.BytesIO()
    table.write_parquet(buffer)
    return buffer.getvalue()


def json_bytes(value: Any) -> bytes:
    """Return a value as the bytes of a JSON file."""
    return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()


def digest(data: bytes) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()

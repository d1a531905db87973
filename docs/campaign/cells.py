"""Cells and tables in Markdown, as the pages of the campaign have them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from grpo_dynamics.validation.summary import short


def console(commands: Sequence[str]) -> str:
    """Return a block of commands."""
    lines = "\n".join(f"$ {command}" for command in commands)
    return f"```{{code-block}} console\n{lines}\n```"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table whose cells are Markdown."""
    lines = [head, [":---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def names(items: Iterable[str]) -> str:
    """Return names one after the other."""
    return ", ".join(f"`{name}`" for name in items)


def plain(text: str) -> str:
    """Return text with what Markdown would take for emphasis or for the end of a cell escaped."""
    return re.sub(r"([*_|<>\[\]])", r"\\\1", text)


def number(value: float | None) -> str:
    """Return a number as a reader wants it: small ones as differences of probabilities."""
    return f"{value:.3g}" if isinstance(value, float) and abs(value) >= 1 else short(value)


def decimal(value: float | None) -> str:
    """Return a number with three digits after the point."""
    return "–" if value is None else f"{value:.3f}"


def share(value: float | None) -> str:
    """Return a share in per cent; 100 % is all.

    >>> share(0.5), share(0.997), share(1.0)
    ('50 %', '> 99 %', '100 %')
    """
    if value is not None and 0.995 <= value < 1:
        return "> 99 %"
    return "–" if value is None else f"{100 * value:.0f} %"


def tiny(value: float | None) -> str:
    """Return a number with one digit."""
    return "–" if value is None else f"{value:.1g}".replace("e-0", "e-")

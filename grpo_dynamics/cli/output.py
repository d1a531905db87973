"""What the commands print: tables for people, one JSON object for machines, progress on a terminal."""

from __future__ import annotations

import contextlib
import json
import math
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from grpo_dynamics.logodds import complement, logit, sigmoid

if TYPE_CHECKING:
    from rich.console import Console


def screen() -> Console:
    """Return the console for people: 80 columns where it is not a terminal, no markup in what users named."""
    from rich.console import Console

    return Console(markup=False, highlight=False, emoji=False)


def probability(log_odds: float) -> str:
    """Return a probability that a reader can tell from 0 and from 1, however close it is.

    >>> probability(0.0), probability(-9.0), probability(9.0), probability(400.0)
    ('0.5000', '1.23e-04', '1 − 1.23e-04', '1 − 1e-174')
    """
    if math.isinf(log_odds):
        return "1" if log_odds > 0 else "0"
    if log_odds > 300:
        return f"1 − 1e-{round(log_odds / math.log(10))}"
    p, q = float(sigmoid(log_odds)), float(complement(log_odds))
    if q < 0.0005:
        return f"1 − {q:.2e}"
    return f"{p:.2e}" if p < 0.0005 else f"{p:.4f}"


def brief(value: float) -> str:
    """Return a number to four digits.

    >>> brief(2.0), brief(1 / 3), brief(1e-7), brief(float("inf"))
    ('2', '0.3333', '1e-07', '∞')
    """
    return "∞" if value == math.inf else f"{value:.4g}"


def exactly(value: float) -> str:
    """Return a probability that was given, as it was given where that is short.

    >>> exactly(0.8336), exactly(1e-4), exactly(1 - 1e-12), exactly(0.9999999)
    ('0.8336', '0.0001', '1 − 1.00e-12', '1 − 1.00e-07')
    """
    return f"{value:g}" if float(f"{value:g}") == value else probability(float(logit(value)))


def factor(value: float) -> str:
    """Return a multiplier to four digits that a reader can tell from 1 and from −1, however close it is.

    >>> factor(-1.7361), factor(1 - 2e-7), factor(1.0), factor(1e-6 - 1)
    ('-1.736', '1 − 2.0e-07', '1', '−(1 − 1.0e-06)')
    """
    text, rest = brief(abs(value)), abs(value) - 1
    if text != "1" or rest == 0:
        return brief(value)
    text = f"1 {'+' if rest > 0 else '−'} {abs(rest):.1e}"
    return text if value > 0 else f"−({text})"


def print_notes(notes: Sequence[str]) -> None:
    """Print remarks on the options on the standard error: they are no part of the answer."""
    for text in notes:
        print("note:", text, file=sys.stderr)


def to_json(value: Any) -> Any:
    """Return the value as JSON has it: NaN is null, infinities are the strings "inf" and "-inf".

    >>> to_json({"a": [1.5, float("nan"), float("inf")]})
    {'a': [1.5, None, 'inf']}
    """
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value


def print_json(value: Mapping[str, Any]) -> None:
    """Print one JSON object on the standard output."""
    print(json.dumps(to_json(value), indent=2, ensure_ascii=False, allow_nan=False))


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[int] = ()) -> Any:
    """Return a table with a headline; columns are numbers, right-aligned, but for those in ``left``."""
    from rich import box
    from rich.table import Table

    result = Table(
        title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False
    )
    for i, column in enumerate(columns):
        result.add_column(column, justify="left" if i in left else "right", overflow="fold")
    for row in rows:
        result.add_row(*row)
    return result


def facts(title: str, rows: Sequence[tuple[str, str]]) -> Any:
    """Return lines of a name and what there is to say about it."""
    from rich.table import Table

    result = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, show_header=False)
    result.add_column(style="dim", no_wrap=True)
    result.add_column(overflow="fold")
    for row in rows:
        result.add_row(*row)
    return result


@contextlib.contextmanager
def progress() -> Generator[Callable[[int, int, str], None]]:
    """Show a bar on the standard error while the block runs, where that is a terminal.

    Yields:
        A function of (done, total, what is next).
    """
    if not sys.stderr.isatty():
        yield lambda done, total, what: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total, what: bar.update(task, completed=done, total=total, description=what)

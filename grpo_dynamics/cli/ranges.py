"""The options of the atlas: two ranges, the number of steps along each, and the user's own point."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Annotated, Any

import typer

from grpo_dynamics.cli.errors import number, refuse
from grpo_dynamics.cli.settings import BETA, PROBABILITY

SIZES = "an integer from 10 to 2000"


@dataclasses.dataclass(frozen=True)
class Range:
    """From low to high, both included."""

    low: float
    high: float


def range_parser(name: str, allowed: str, inside: Callable[[float], bool]) -> Callable[[Any], Range]:
    """Return a parser of LOW:HIGH."""
    wanted = f"LOW:HIGH with LOW < HIGH, each {allowed}"

    def parse(text: Any) -> Range:
        ends = str(text).split(":")
        if len(ends) != 2:
            refuse(name, wanted, text)
        low, high = (number(name, wanted)(end) for end in ends)
        if not (inside(low) and inside(high) and low < high):
            refuse(name, wanted, text)
        return Range(low, high)

    return parse


def size_parser(text: Any) -> int:
    """Parse a number of grid steps."""
    size = number("size", SIZES, int)(text)
    if not 10 <= size <= 2000:
        refuse("size", SIZES, size)
    return size


def _option(flag: str, metavar: str, help_text: str, panel: str, parser: Any) -> Any:
    return typer.Option(flag, metavar=metavar, help=help_text, rich_help_panel=panel, parser=parser)


_POINT, _PLANE = "Your own question", "The plane"
OwnBeta = Annotated[
    float | None,
    _option("--beta", "β", "Your β: marked, with orbits over all p_ref.", _POINT, number("beta", BETA)),
]
OwnPRef = Annotated[
    float | None,
    _option("--p-ref", "P", "Your p_ref: marked, with orbits over all β.", _POINT, number("p_ref", PROBABILITY)),
]
BetaRange = Annotated[
    Range | None,
    _option(
        "--beta-range",
        "LOW:HIGH",
        "The β that are drawn. Default: 0.01:100, wider where yours is outside.",
        _PLANE,
        range_parser("beta_range", BETA, lambda x: 0 < x < float("inf")),
    ),
]
PRefRange = Annotated[
    Range | None,
    _option(
        "--p-ref-range",
        "LOW:HIGH",
        "The p_ref that are drawn. Default: 1e-6:0.9999, wider where yours is outside.",
        _PLANE,
        range_parser("p_ref_range", PROBABILITY, lambda x: 0 < x < 1),
    ),
]
GridSize = Annotated[
    int,
    _option("--size", "N", f"Steps along each axis, {SIZES}; work grows with its square.", _PLANE, size_parser),
]

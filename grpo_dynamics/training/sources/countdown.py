"""Countdown: make a target number of given digits; many different answers are right, and all of them are known.

An expression is digits joined by ``+``, ``-`` and ``*``, without parentheses, blanks or signs; each digit may be used
as often as it is given, or left out. ``*`` binds more tightly. Such expressions are finitely many.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from grpo_dynamics.training.verifiers import Asked, Verdict, verdict

EXPRESSION = re.compile(r"[0-9](?:[-+*][0-9])*", re.ASCII)
SIGNED_PRODUCT = re.compile(r"([-+]?)([0-9*]+)", re.ASCII)


def value(expression: str) -> int | None:
    """Return what an expression comes to, or None where the text is no expression.

    >>> value("2+3*4"), value("2-3-4"), value("2+"), value("(2+3)*4"), value("12")
    (14, -5, None, None, None)
    """
    return _evaluate(expression) if EXPRESSION.fullmatch(expression) else None


def _evaluate(expression: str) -> int:
    """The value of what is known to be an expression."""
    terms = SIGNED_PRODUCT.findall(expression)
    return sum((-1 if sign == "-" else 1) * math.prod(map(int, product.split("*"))) for sign, product in terms)


def expressions(digits: Sequence[str]) -> dict[int, list[str]]:
    """Return every expression of some of the digits, by what it comes to, in alphabetical order.

    Args:
        digits: one-character strings; a digit may be given several times.

    >>> expressions("23")[6], expressions("23")[5], sum(map(len, expressions("23").values()))
    (['2*3', '3*2'], ['2+3', '3+2'], 8)
    """
    found = {
        "".join(itertools.chain.from_iterable(zip(chosen, (*signs, ""), strict=True)))
        for count in range(1, len(digits) + 1)
        for chosen in itertools.permutations(digits, count)
        for signs in itertools.product("+-*", repeat=count - 1)
    }
    by_value: defaultdict[int, list[str]] = defaultdict(list)
    for expression in sorted(found):
        by_value[_evaluate(expression)].append(expression)
    return dict(by_value)


def puzzles(digits: int, least_right: int) -> list[tuple[str, int, tuple[str, ...]]]:
    """Return all puzzles of so many digits from 1 to 9: the digits, the target from 1 to 99, all right expressions.

    Args:
        digits: number of digits given.
        least_right: fewest right expressions of a puzzle.
    """
    return [
        ("".join(given), target, tuple(right))
        for given in itertools.combinations_with_replacement("123456789", digits)
        for target, right in sorted(expressions(given).items())
        if 1 <= target <= 99 and len(right) >= least_right
    ]


@dataclasses.dataclass(frozen=True)
class Countdown:
    """Right is an expression of the digits in ``extra["digits"]`` that comes to the number in ``extra["target"]``."""

    def __call__(self, questions: Sequence[Asked], completions: Sequence[str]) -> list[Verdict]:
        """Return a verdict for each completion."""
        return [self._one(q.extra, text) for q, text in zip(questions, completions, strict=True)]

    def _one(self, puzzle: Mapping[str, object], completion: str) -> Verdict:
        used, given = Counter(re.findall("[0-9]", completion)), Counter(str(puzzle["digits"]))
        return verdict(value(completion) == puzzle["target"] and used <= given)

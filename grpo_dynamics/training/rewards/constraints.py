"""Verifiers of form: patterns, counts, words, JSON. ``verifiers.AllOf`` and ``Weighted`` combine them."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, NoReturn, cast

from grpo_dynamics.arrays import require, require_choice
from grpo_dynamics.training.verifiers import Asked, Verdict, compiled, verdict


@dataclasses.dataclass(frozen=True)
class Pattern:
    r"""A completion is right where a regular expression is found in it.

    An expression with nested repetitions can take for ever on some texts: ``guard.guarded`` ends it.

    Args:
        pattern: the expression, in Python's syntax; ``(?s)`` in front lets the dot match line ends.
        whole: it has to match the whole completion.
        forbidden: it must not match.

    Raises:
        ValueError: if it is no regular expression.

    >>> [v.success for v in Pattern(r"<answer>\d+</answer>", whole=True)([None] * 2, ["<answer>7</answer>", "7"])]
    [True, False]
    """

    pattern: str
    whole: bool = False
    forbidden: bool = False

    def __post_init__(self) -> None:
        compiled("pattern", self.pattern)

    def __call__(self, questions: Sequence[Asked | None], completions: Sequence[str]) -> list[Verdict]:
        expression = re.compile(self.pattern)
        match = expression.fullmatch if self.whole else expression.search
        return [verdict((match(text) is None) == self.forbidden) for text in completions]


def words(text: str) -> list[str]:
    """Return the words of a text: letters and digits, with apostrophes and hyphens inside.

    >>> words("It's a well-known 3.")
    ["It's", 'a', 'well-known', '3']
    """
    return re.findall(r"\w+(?:['’-]\w+)*", text)


def sentences(text: str) -> list[str]:
    """Return the sentences of a text: what ends in one of . ! ? before a blank, or at the end.

    >>> sentences("One is 3.5. Two! And")
    ['One is 3.5.', 'Two!', 'And']
    """
    return [part for part in re.split(r"(?<=[.!?…])[\"'”’)]*\s+", text.strip()) if words(part)]


def _lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip()]


_COUNTED: dict[str, Callable[[str], Sequence[str]]] = {
    "words": words,
    "sentences": sentences,
    "lines": _lines,
    "characters": lambda text: text,
}


@dataclasses.dataclass(frozen=True)
class Count:
    """A completion is right where it has at least and at most so many of something.

    Args:
        of: "words", "sentences", "lines" (those that are not blank) or "characters".
        at_least: the fewest.
        at_most: the most; None: no bound.

    Raises:
        ValueError: for another thing to count, or bounds that no text can meet.

    >>> [v.success for v in Count("words", at_least=2, at_most=3)([None] * 2, ["two words", "one"])]
    [True, False]
    """

    of: Literal["words", "sentences", "lines", "characters"]
    at_least: int = 0
    at_most: int | None = None

    def __post_init__(self) -> None:
        require_choice("of", self.of, tuple(_COUNTED))
        require("at_least", self.at_least, "a whole number >= 0", lambda x: (x >= 0) & (x % 1 == 0))
        if self.at_most is not None:
            allowed = f"None or a whole number >= at_least ({self.at_least})"
            require("at_most", self.at_most, allowed, lambda x: (x >= self.at_least) & (x % 1 == 0))

    def __call__(self, questions: Sequence[Asked | None], completions: Sequence[str]) -> list[Verdict]:
        most = float("inf") if self.at_most is None else self.at_most
        counts = [len(_COUNTED[self.of](text)) for text in completions]
        return [verdict(self.at_least <= count <= most) for count in counts]


@dataclasses.dataclass(frozen=True)
class Words:
    """A completion is right where it has all of some words or phrases and none of others, as whole words.

    Those of ``question.extra["required_words"]`` and ``["forbidden_words"]`` come on top.

    Args:
        required: words that have to be there.
        forbidden: words that must not be there.
        ignore_case: compare without case.

    Raises:
        ValueError: if a word is empty.

    >>> [v.success for v in Words(("cat",), ("dog",))([None] * 3, ["A cat.", "cats", "cat and dog"])]
    [True, False, False]
    """

    required: tuple[str, ...] = ()
    forbidden: tuple[str, ...] = ()
    ignore_case: bool = True

    def __post_init__(self) -> None:
        for name in ("required", "forbidden"):
            values = getattr(self, name)
            if isinstance(values, str) or not all(isinstance(word, str) and word.strip() for word in values):
                raise ValueError(f"{name} must be a tuple of words, got {values!r}")

    def __call__(self, questions: Sequence[Asked | None], completions: Sequence[str]) -> list[Verdict]:
        return [verdict(self._fits(*pair)) for pair in zip(questions, completions, strict=True)]

    def _fits(self, question: Asked | None, text: str) -> bool:
        extra = question.extra if question is not None else {}
        required = (*self.required, *extra.get("required_words", ()))
        forbidden = (*self.forbidden, *extra.get("forbidden_words", ()))
        return self._there(text, required, all) and not self._there(text, forbidden, any)

    def _there(self, text: str, wanted: Iterable[str], join: Callable[[Iterable[bool]], bool]) -> bool:
        flags = re.IGNORECASE if self.ignore_case else 0
        return join(re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text, flags) is not None for word in wanted)


@dataclasses.dataclass(frozen=True)
class ValidJSON:
    """A completion is right where it is one JSON value, with nothing around it but blanks.

    Args:
        keys: it is an object that has these keys.
        only: it has no others.

    >>> [v.success for v in ValidJSON(("a",))([None] * 3, ['{"a": 1}', '{"b": 1}', "{'a': 1}"])]
    [True, False, False]
    """

    keys: tuple[str, ...] = ()
    only: bool = False

    def __call__(self, questions: Sequence[Asked | None], completions: Sequence[str]) -> list[Verdict]:
        return [verdict(self._fits(text)) for text in completions]

    def _fits(self, text: str) -> bool:
        try:
            value = json.loads(text, parse_constant=_no_constant)
        except (ValueError, RecursionError):
            return False
        if not (self.keys or self.only):
            return True
        there = cast(dict[str, Any], value).keys() if isinstance(value, dict) else None
        return there is not None and there >= set(self.keys) and (not self.only or len(there) == len(set(self.keys)))


def _no_constant(name: str) -> NoReturn:
    """Refuse NaN and Infinity, which Python reads and JSON does not have."""
    raise ValueError(name)

"""Verifiable rewards: is a completion a right answer to its question? Exact matches, mathematics, combinations.

A verifier is any function from questions and their completions to verdicts. Programs with tests are in
``python_tests``, requirements on the form in ``constraints``; ``guard`` runs a verifier that may hang.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import importlib
import itertools
import logging
import re
import signal
import threading
from collections.abc import Generator, Iterable, Mapping, Sequence
from fractions import Fraction
from types import ModuleType
from typing import Any, Protocol

from grpo_dynamics.arrays import require


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What a verifier says of one completion.

    Args:
        success: whether it counts as a success: what p measures.
        reward: what training earns for it; 1 and 0 unless a verifier grades.
        outcome: "right" for a success; else "wrong", "error" (the verifier or a program raised), "timeout",
            "memory" or "output" (a program passed that limit).
    """

    success: bool
    reward: float
    outcome: str


def verdict(success: bool, otherwise: str = "wrong") -> Verdict:
    """Return the verdict with a binary reward; ``otherwise`` is the outcome of a failure.

    >>> verdict(False, "timeout")
    Verdict(success=False, reward=0.0, outcome='timeout')
    """
    return Verdict(success, float(success), "right" if success else otherwise)


def count_outcomes(verdicts: Iterable[Verdict]) -> dict[str, int]:
    """Return how often each outcome occurs, in the order of their names: timeouts are counted here.

    >>> count_outcomes([verdict(True), verdict(False), verdict(True)])
    {'right': 2, 'wrong': 1}
    """
    return dict(sorted(collections.Counter(v.outcome for v in verdicts).items()))


class Asked(Protocol):
    """What a verifier sees of a question."""

    @property
    def prompt(self) -> str:
        """The text that was completed."""
        ...

    @property
    def answer(self) -> str:
        """The reference answer."""
        ...

    @property
    def correct(self) -> tuple[str, ...] | None:
        """Every right completion, where that set is finite and known."""
        ...

    @property
    def extra(self) -> Mapping[str, Any]:
        """Whatever else belongs to the question: tests, required words, ..."""
        ...


class Verifier(Protocol):
    """A function that says of each completion whether it answers its question."""

    def __call__(self, questions: Sequence[Asked], completions: Sequence[str]) -> list[Verdict]:
        """Return one verdict for each pair of a question and a completion."""
        ...


@dataclasses.dataclass(frozen=True)
class ExactMatch:
    r"""A completion is right where its text is the answer, or one of ``correct`` where the question has those.

    Args:
        strip: leave out blanks at both ends.
        ignore_case: compare without case.
        collapse_spaces: any run of blanks and line ends is one blank.
        numbers: texts that are numbers are compared as numbers: "1,000.0" is "1000", "1/2" is "0.5".
        take: regular expression; what its first group (or all of it) matches last is compared. Where it matches
            nothing, a completion is wrong and an answer is compared whole. ``r"####\s*(.+)"`` reads GSM8K.

    Raises:
        ValueError: if ``take`` is no regular expression.

    >>> from types import SimpleNamespace
    >>> question = SimpleNamespace(prompt="6*7=", answer="work\n#### 42", correct=None, extra={})
    >>> ExactMatch(take=r"####\s*(.+)", numbers=True)([question], ["so\n#### 42.0"])[0].outcome
    'right'
    """

    strip: bool = False
    ignore_case: bool = False
    collapse_spaces: bool = False
    numbers: bool = False
    take: str | None = None

    def __post_init__(self) -> None:
        if self.take is not None:
            compiled("take", self.take)

    def __call__(self, questions: Sequence[Asked], completions: Sequence[str]) -> list[Verdict]:
        return [verdict(self._matches(*pair)) for pair in zip(questions, completions, strict=True)]

    def _matches(self, question: Asked, completion: str) -> bool:
        taken = self._taken(completion)
        right = (question.answer,) if question.correct is None else question.correct
        return taken is not None and any(self._normal(taken) == self._normal(self._taken(r) or r) for r in right)

    def _taken(self, text: str) -> str | None:
        if self.take is None:
            return text
        found = list(re.finditer(self.take, text))
        return found[-1][1 if found[-1].re.groups else 0] if found else None

    def _normal(self, text: str) -> str | Fraction:
        if self.strip or self.numbers:
            text = text.strip()
        if self.collapse_spaces:
            text = re.sub(r"\s+", " ", text)
        if self.numbers and re.fullmatch(r"[+-]?[\d,]{1,400}(\.\d{1,400})?(/\d{1,400})?", text):
            with contextlib.suppress(ValueError, ZeroDivisionError):
                top, _, bottom = text.replace(",", "").partition("/")
                return Fraction(top) / Fraction(bottom or 1)
        return text.casefold() if self.ignore_case else text


@dataclasses.dataclass(frozen=True)
class MathAnswer:
    r"""A completion is right where the mathematics in it equals the answer's, by the math-verify library.

    It never raises. In the main thread an expression that takes too long is given up (by SIGALRM, outcome
    "timeout"); in other threads, and inside one long operation of the interpreter, only ``guard.guarded`` ends it.
    A bare answer without ``$`` or ``\boxed`` is read as LaTeX and as a plain expression.

    Args:
        seconds: whole seconds for one expression.

    Raises:
        ValueError: if the seconds are not whole and positive, or math-verify is not installed.

    >>> from types import SimpleNamespace
    >>> question = SimpleNamespace(prompt="", answer=r"\frac{1}{2}", correct=None, extra={})
    >>> [v.outcome for v in MathAnswer()([question] * 2, [r"so $x=0.5$", "so $x=2$"])]
    ['right', 'wrong']
    """

    seconds: int = 5

    def __post_init__(self) -> None:
        require("seconds", self.seconds, "a whole number >= 1", lambda x: (x >= 1) & (x % 1 == 0))
        try:
            _math_verify()
        except ImportError:
            raise ValueError("verifier must be another than MathAnswer where math-verify is not installed") from None

    def __reduce__(self) -> tuple[type[MathAnswer], tuple[int]]:
        return MathAnswer, (self.seconds,)  # in another process the library is loaded on arrival, not on the clock

    def __call__(self, questions: Sequence[Asked], completions: Sequence[str]) -> list[Verdict]:
        return [self._one(*pair) for pair in zip(questions, completions, strict=True)]

    def _one(self, question: Asked, completion: str) -> Verdict:
        library, late = _math_verify()
        answer = question.answer
        marked = () if "$" in answer or "\\boxed" in answer else (f"${answer}$",)
        try:
            with _at_most(self.seconds, late):
                expected = [e for text in (*marked, answer) for e in library.parse(text, parsing_timeout=None)]
            with _at_most(self.seconds, late):
                given = library.parse(completion, parsing_timeout=None, raise_on_error=True)
        except late:
            return verdict(False, "timeout")
        except Exception:
            return verdict(False, "error")
        otherwise = "wrong"
        for pair in itertools.product(expected, given):
            try:
                with _at_most(self.seconds, late):
                    equal = library.verify(*pair, timeout_seconds=None, raise_on_error=True)
                if equal:
                    return verdict(True)
            except late:
                otherwise = "timeout"
            except Exception:  # these two cannot be compared; another pair may be equal
                continue
        return verdict(False, otherwise)


@contextlib.contextmanager
def _at_most(seconds: float, late: type[BaseException]) -> Generator[None]:
    """Raise ``late`` in the block when its time is up; other threads than the main one have no such clock.

    The library's own limit rings once. Python drops what is raised while it collects garbage, so this one rings again.
    """

    def ring(number: int, frame: object) -> None:
        raise late(f"more than {seconds} s")

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGALRM, ring)
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds, 0.2)
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@functools.cache
def _math_verify() -> tuple[ModuleType, type[BaseException]]:
    """Return the library and what it raises when time is up, which is no Exception."""
    logging.getLogger("math_verify").setLevel(logging.CRITICAL)  # what it warns of is in the verdicts
    late = importlib.import_module("math_verify.errors").TimeoutException
    return importlib.import_module("math_verify"), late


@dataclasses.dataclass(frozen=True)
class AllOf:
    """A completion is right where every one of several verifiers says so; later ones see only what earlier ones passed.

    Args:
        verifiers: cheap ones first.

    Raises:
        ValueError: if there is none.
    """

    verifiers: tuple[Verifier, ...]

    def __post_init__(self) -> None:
        if not self.verifiers:
            raise ValueError(f"verifiers must be at least one, got {self.verifiers!r}")

    def __call__(self, questions: Sequence[Asked], completions: Sequence[str]) -> list[Verdict]:
        verdicts = [verdict(True)] * len(completions)
        if len(questions) != len(completions):
            raise ValueError(f"completions must be as many as questions ({len(questions)}), got {len(completions)}")
        for verifier in self.verifiers:
            left = [i for i, v in enumerate(verdicts) if v.success]
            found = verifier([questions[i] for i in left], [completions[i] for i in left])
            for i, v in zip(left, found, strict=True):
                verdicts[i] = verdict(v.success, v.outcome)
        return verdicts


@dataclasses.dataclass(frozen=True)
class Weighted:
    """A completion is right where the weights of the verifiers that say so add up to a threshold.

    Args:
        verifiers: what is looked at.
        weights: one positive number each.
        threshold: the least sum of weights of a success, in (0, sum of the weights].
        graded: the reward is the share of the weights instead of 1 or 0. The theory of p is about the latter.

    Raises:
        ValueError: for weights or a threshold out of range.
    """

    verifiers: tuple[Verifier, ...]
    weights: tuple[float, ...]
    threshold: float
    graded: bool = False

    def __post_init__(self) -> None:
        require("weights", self.weights, "positive and finite", lambda x: (x > 0) & (x < float("inf")))
        if len(self.weights) != len(self.verifiers) or not self.weights:
            raise ValueError(f"weights must be one for each of {len(self.verifiers)} verifiers, got {self.weights!r}")
        total = sum(self.weights)
        require("threshold", self.threshold, f"in (0, {total:g}]", lambda x: (x > 0) & (x <= total * (1 + 1e-12)))

    def __call__(self, questions: Sequence[Asked], completions: Sequence[str]) -> list[Verdict]:
        rows = [verifier(questions, completions) for verifier in self.verifiers]
        return [self._joined(column) for column in zip(*rows, strict=True)]

    def _joined(self, verdicts: Sequence[Verdict]) -> Verdict:
        score = sum(w for w, v in zip(self.weights, verdicts, strict=True) if v.success)
        total = sum(self.weights)
        success = score >= self.threshold * (1 - 1e-12)  # 0.1 + 0.2 reaches 0.3
        failures = [v.outcome for v in verdicts if not v.success]
        failed = next((o for o in failures if o != "wrong"), "wrong")
        joined = verdict(success, failed)
        return dataclasses.replace(joined, reward=score / total) if self.graded else joined


def compiled(name: str, pattern: str) -> re.Pattern[str]:
    """Return a compiled regular expression, or raise a ValueError that names the argument."""
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{name} must be a regular expression ({error}), got {pattern!r}") from None

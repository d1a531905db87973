"""Tasks: questions, what is right, and how long an answer may be.

Arithmetic whose answers are one token, or several; countdown, where many different answers are right; Python functions
with tests; and any data set with a prompt and an answer. ``make_task`` makes one by its kind.
"""

from __future__ import annotations

import dataclasses
import inspect
import itertools
import os
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from grpo_dynamics.arrays import require
from grpo_dynamics.config import nearest
from grpo_dynamics.training.sources.countdown import Countdown, puzzles
from grpo_dynamics.training.verifiers import ExactMatch, Verifier


@dataclasses.dataclass(frozen=True)
class Question:
    """A question.

    Attributes:
        id: unlike that of every other question of the task.
        prompt: what is completed.
        answer: a right answer.
        correct: every completion that the verifier accepts, where those are finitely many and known.
        extra: whatever else the verifier needs.
    """

    id: str
    prompt: str
    answer: str
    correct: tuple[str, ...] | None = None
    extra: Mapping[str, Any] = dataclasses.field(default_factory=dict[str, Any])


@dataclasses.dataclass(frozen=True)
class Task:
    """Questions with one verifier.

    Attributes:
        name: for tables and figures.
        questions: at least one; ids differ, prompts are not empty.
        verifier: says which completions are right.
        max_completion_tokens: longest completion, its end token included, ≥ 1.

    Raises:
        ValueError: if one of these does not hold.
    """

    name: str
    questions: tuple[Question, ...]
    verifier: Verifier
    max_completion_tokens: int

    def __post_init__(self) -> None:
        require_whole("max_completion_tokens", self.max_completion_tokens, 1)
        if not self.questions:
            raise ValueError("questions must be at least one, got none")
        seen = set[str]()
        for question in self.questions:
            if question.id in seen:
                raise ValueError(f"question ids must differ, got {question.id!r} twice")
            if not question.prompt:
                raise ValueError(f"prompt must not be empty, got '' for the question {question.id!r}")
            seen.add(question.id)

    def select(self, n: int, seed: int = 0) -> Task:
        """Return the task with n of its questions, drawn at random, in their order.

        Raises:
            ValueError: if n is not between 1 and the number of questions.
        """
        require_whole("questions", n, 1, len(self.questions))
        chosen = sorted(random.Random(seed).sample(range(len(self.questions)), n))
        return dataclasses.replace(self, questions=tuple(self.questions[i] for i in chosen))

    def texts(self) -> tuple[str, ...]:
        """Return every prompt and right answer: what a tokenizer has to give back as it was."""
        return tuple(text for q in self.questions for text in (q.prompt, *(q.correct or (q.answer,))))


def one_token_sums(largest: int = 9, modulus: int = 10, questions: int | None = None, seed: int = 0) -> Task:
    """Return sums of which the last digit is asked: one token, so that all answers can be enumerated.

    Args:
        largest: operand, ≥ 1; the questions are all pairs of operands from 0 to it.
        modulus: of the sum, from 2 to 10.
        questions: so many of them, drawn at random; all where it is left out.
        seed: of that draw.

    >>> task = one_token_sums()
    >>> len(task.questions), task.questions[78].prompt, task.questions[78].correct, task.max_completion_tokens
    (100, '7+8=', ('5',), 1)
    """
    require_whole("largest", largest, 1)
    require_whole("modulus", modulus, 2, 10)
    pairs = itertools.product(range(largest + 1), repeat=2)
    every = tuple(_sum(a, b, str((a + b) % modulus)) for a, b in pairs)
    task = Task("one_token_sums", every, ExactMatch(), 1)
    return task if questions is None else task.select(questions, seed)


def sums(largest: int = 49, questions: int = 100, seed: int = 0) -> Task:
    """Return sums with answers of one or more digits, each a token, and an end token.

    Args:
        largest: operand, ≥ 1.
        questions: number of different pairs of operands from 0 to ``largest``, drawn at random.
        seed: of that draw.

    >>> task = sums()
    >>> task.questions[0].prompt, task.questions[0].correct, task.max_completion_tokens
    ('0+4=', ('4',), 3)
    """
    require_whole("largest", largest, 1)
    require_whole("questions", questions, 1, (largest + 1) ** 2)
    numbers = sorted(random.Random(seed).sample(range((largest + 1) ** 2), questions))
    pairs = [divmod(number, largest + 1) for number in numbers]
    chosen = tuple(_sum(a, b, str(a + b)) for a, b in pairs)
    return Task("sums", chosen, ExactMatch(), len(str(2 * largest)) + 1)


def _sum(a: int, b: int, answer: str) -> Question:
    return Question(f"{a}+{b}", f"{a}+{b}=", answer, (answer,))


def countdown(digits: int = 3, questions: int = 64, least_right: int = 4, seed: int = 0) -> Task:
    """Return puzzles: make a number of given digits by ``+``, ``-`` and ``*``. Every right answer is known.

    Args:
        digits: given in a puzzle, from 2 to 4; each may be used once, or left out.
        questions: number of puzzles, drawn at random.
        least_right: fewest right answers of a puzzle, ≥ 1.
        seed: of that draw.

    >>> puzzle = countdown().questions[0]
    >>> puzzle.prompt, puzzle.correct
    ('1,1,2:1=', ('1', '1*1', '1*2-1', '2*1-1', '2-1', '2-1*1'))
    """
    require_whole("digits", digits, 2, 4)
    require_whole("least_right", least_right, 1)
    every = puzzles(digits, least_right)
    require_whole("questions", questions, 1, len(every))
    chosen = sorted(random.Random(seed).sample(range(len(every)), questions))
    found: list[Question] = []
    for given, target, right in (every[i] for i in chosen):
        prompt = f"{','.join(given)}:{target}="
        found.append(Question(prompt[:-1], prompt, right[0], right, {"digits": given, "target": target}))
    return Task("countdown", tuple(found), Countdown(), 2 * digits)


def python_functions(
    source: str | os.PathLike[str] | None = None,
    questions: int | None = None,
    seed: int = 0,
    max_completion_tokens: int = 256,
    unsafe_no_sandbox: bool = False,
) -> Task:
    """Return small Python functions to write, each checked by its tests in a sandbox.

    Args:
        source: a JSONL file with prompt, answer (a right program), tests (assertions) and entry_point (the function's
            name); the package's own where it is left out.
        questions: so many of them, drawn at random; all where it is left out.
        seed: of that draw.
        max_completion_tokens: longest program.
        unsafe_no_sandbox: run programs without a sandbox where there is none, with all that this means.

    Raises:
        ValueError: for a file that is missing or lacks one of these, and without a sandbox.
    """
    from grpo_dynamics.training.rewards.python_tests import ProgramTests
    from grpo_dynamics.training.sources.datasets import questions_from

    path = Path(__file__).parent / "sources" / "data" / "python_functions.jsonl" if source is None else source
    found = questions_from(path, required=("tests", "entry_point"))
    verifier = ProgramTests(unsafe_no_sandbox=unsafe_no_sandbox)
    task = Task("python_functions", found, verifier, max_completion_tokens)
    return task if questions is None else task.select(questions, seed)


def dataset(
    source: str | os.PathLike[str],
    prompt: str | None = None,
    answer: str | None = None,
    schema: Literal["gsm8k", "math"] | None = None,
    split: str = "train",
    config: str | None = None,
    template: str = "{prompt}",
    verifier: str | Mapping[str, Any] | Sequence[Any] | None = None,
    questions: int | None = None,
    seed: int = 0,
    max_completion_tokens: int = 256,
) -> Task:
    r"""Return the questions of a JSONL or parquet file, or of a data set on the Hugging Face hub or in a folder.

    Args:
        source: file, folder, or name on the hub.
        prompt: the column of prompts; "prompt" where it is left out and no schema says otherwise.
        answer: the column of answers; "answer" where it is left out and no schema says otherwise.
        schema: "gsm8k" (question, answer; the answer is what follows ####) or "math" (problem, solution; the answer is
            what the last \boxed{} holds).
        split: of a data set.
        config: of a data set that has several.
        template: of the whole prompt; {prompt} is replaced by the column's text.
        verifier: "math" (math-verify; the default with a schema), "exact" (blanks at the ends do not count; the default
            without one), or what :func:`~grpo_dynamics.training.rewards.settings.read_verifier` takes: another kind, a
            table with its options, or a list of which all have to agree.
        questions: so many of them, drawn at random; all where it is left out.
        seed: of that draw.
        max_completion_tokens: longest completion.

    Raises:
        ValueError: if there is no such data set or column, or a row has no answer: file, row and nearest name.
    """
    from grpo_dynamics.training.rewards.settings import read_verifier
    from grpo_dynamics.training.sources.datasets import questions_from

    judge = ("exact" if schema is None else "math") if verifier is None else verifier
    judging = ExactMatch(strip=True) if judge == "exact" else read_verifier(judge)
    found = questions_from(source, prompt, answer, schema=schema, split=split, config=config, template=template)
    task = Task(schema or Path(source).stem, found, judging, max_completion_tokens)
    return task if questions is None else task.select(questions, seed)


KINDS: dict[str, Callable[..., Task]] = {
    "one_token_sums": one_token_sums,
    "sums": sums,
    "countdown": countdown,
    "python_functions": python_functions,
    "dataset": dataset,
}


def make_task(kind: str, **options: Any) -> Task:
    """Return a task by its kind, one of ``KINDS``.

    Raises:
        ValueError: for a kind or option that is not known, with the nearest, or an option that is missing or wrong.

    >>> make_task("sums", largset=9)
    Traceback (most recent call last):
    ValueError: option of sums must be one of largest, questions, seed, got 'largset'; the nearest is 'largest'
    """
    if kind not in KINDS:
        raise ValueError(f"task must be one of {', '.join(KINDS)}, got {kind!r}{nearest(kind, KINDS)}")
    known = inspect.signature(KINDS[kind]).parameters
    for name in options:
        if name not in known:
            raise ValueError(f"option of {kind} must be one of {', '.join(known)}, got {name!r}{nearest(name, known)}")
    for name, parameter in known.items():
        if parameter.default is parameter.empty and name not in options:
            raise ValueError(f"{name} must be an option of {kind}, got nothing")
    return KINDS[kind](**options)


def require_whole(name: str, value: Any, least: int, most: int | None = None) -> None:
    """Raise ValueError unless a value is a whole number between two bounds."""
    allowed = f"a whole number ≥ {least}" if most is None else f"a whole number from {least} to {most}"
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{name} must be {allowed}, got {value!r}")
    require(name, value, allowed, lambda x: (x >= least) & (x <= (value if most is None else most)))

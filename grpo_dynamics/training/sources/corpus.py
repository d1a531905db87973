"""A noisy corpus: questions with right and wrong answers, as a stranger would find them, to pre-train a model on.

Each question has a reliability, the frequency of right answers; reliabilities are spread evenly in log-odds. Right
answers are of unequal frequency, and so are wrong ones. A model that learns the corpus has p_ref near the reliability.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from grpo_dynamics.arrays import require
from grpo_dynamics.logodds import logit, sigmoid
from grpo_dynamics.training.tasks import Question, Task, require_whole

if TYPE_CHECKING:
    import polars as pl

Floats = np.ndarray[Any, np.dtype[np.float64]]
Generator = np.random.Generator


@dataclasses.dataclass(frozen=True, eq=False)
class Corpus:
    """How often each answer stands behind each question.

    Attributes:
        reliability: the frequency of right answers that was asked for, shape (Q,).
        question: number of the question of every distinct line.
        completion: its answer.
        count: how often the line occurs; 0 for a right answer that does not.
        right: whether its answer is right.
    """

    reliability: Floats
    question: tuple[int, ...]
    completion: tuple[str, ...]
    count: tuple[int, ...]
    right: tuple[bool, ...]

    def table(self, task: Task) -> pl.DataFrame:
        """Return the corpus as a table, a row for each distinct line."""
        import polars as pl

        ids = [task.questions[i].id for i in self.question]
        columns = {"question_id": ids, "completion": self.completion, "count": self.count, "right": self.right}
        return pl.DataFrame(columns)


def noisy_corpus(
    task: Task,
    *,
    lines: int = 10_000,
    wrong: int = 6,
    lowest: float = 0.0007,
    highest: float = 0.995,
    seed: int = 0,
) -> Corpus:
    """Return a corpus with the questions of a task.

    Args:
        task: its right answers are ``correct``, or ``answer`` where that is not known.
        lines: number of lines of each question.
        wrong: most distinct wrong answers of a question: right answers of other questions, and right answers with one
            character changed.
        lowest: reliability of the hardest question, in (0, 1).
        highest: of the easiest, in (0, 1), above ``lowest``.
        seed: of everything that is drawn.

    Raises:
        ValueError: for an option out of its range, an answer that is longer than the task allows, or a question
            without a wrong answer.

    >>> from grpo_dynamics.training.tasks import one_token_sums
    >>> corpus = noisy_corpus(one_token_sums(), lines=1000)
    >>> sum(corpus.count), len(corpus.reliability), corpus.table(one_token_sums()).columns
    (100000, 100, ['question_id', 'completion', 'count', 'right'])
    """
    require_whole("lines", lines, 1)
    require_whole("wrong", wrong, 1)
    require_whole("seed", seed, 0)
    require("lowest", lowest, "strictly between 0 and 1", lambda x: (x > 0) & (x < 1))
    require("highest", highest, f"strictly between lowest = {lowest} and 1", lambda x: (x > lowest) & (x < 1))
    for question in task.questions:
        if (longest := max(map(len, _right(question)))) > task.max_completion_tokens:
            allowed = f"at least {longest}, the length of an answer to {question.id!r}"
            raise ValueError(f"max_completion_tokens must be {allowed}, got {task.max_completion_tokens}")
    generator = np.random.default_rng(seed)
    places = (generator.permutation(len(task.questions)) + 0.5) / len(task.questions)
    reliability = sigmoid(logit(lowest) + places * (logit(highest) - logit(lowest)))
    found: list[tuple[int, str, int, bool]] = []
    for i, question in enumerate(task.questions):
        right, mistaken = _right(question), wrong_answers(task, i, wrong, generator)
        if not mistaken:
            raise ValueError(f"task must have a wrong answer to every question, got none to {question.id!r}")
        hits = max(1, int(generator.binomial(lines, reliability[i])))  # nobody learns what never stands there
        for answers, share, is_right in ((right, hits, True), (mistaken, lines - hits, False)):
            counts = generator.multinomial(share, generator.dirichlet(np.ones(len(answers))))
            found += [(i, text, int(n), is_right) for text, n in zip(answers, counts, strict=True) if n or is_right]
    return Corpus(reliability, *zip(*found, strict=True))


def wrong_answers(task: Task, index: int, most: int, generator: Generator) -> list[str]:
    """Return wrong answers to a question: what is right elsewhere, or right but for one character.

    The verifier has said of each that it is wrong, where the set of right answers is not known.

    Args:
        task: of the question.
        index: its number in the task.
        most: of them, at random; fewer where there are no more.
        generator: of the draws.
    """
    question = task.questions[index]
    right = _right(question)
    characters = sorted(set().union(*(text for q in task.questions for text in _right(q))))
    candidates = {q.answer for q in task.questions}
    for _ in range(4 * most):
        text = right[generator.integers(len(right))]
        place, letter = generator.integers(len(text)), characters[generator.integers(len(characters))]
        candidates.add(text[:place] + letter + text[place + 1 :])
    known = sorted(text for text in candidates - set(right) if len(text) <= task.max_completion_tokens)
    drawn = [known[i] for i in generator.permutation(len(known))]
    if question.correct is None:
        drawn = drawn[: 2 * most]
        verdicts = task.verifier([question] * len(drawn), drawn)
        drawn = [text for text, verdict in zip(drawn, verdicts, strict=True) if not verdict.success]
    return sorted(drawn[:most])


def _right(question: Question) -> tuple[str, ...]:
    return question.correct or (question.answer,)

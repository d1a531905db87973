"""The success probability p of each question: exactly where that is possible, else from samples with an interval."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from grpo_dynamics.intervals import wilson
from grpo_dynamics.logodds import logit, sigmoid
from grpo_dynamics.training.policies import Policy, right_completions, shared_log_probs
from grpo_dynamics.training.rollouts import Engine
from grpo_dynamics.training.steps.answer_tree import AnswerTree
from grpo_dynamics.training.steps.expectation import Answers, count_answers, every_answer, log_odds
from grpo_dynamics.training.tables import Measurement
from grpo_dynamics.training.tasks import Question, Task


@dataclasses.dataclass(frozen=True)
class Success:
    """p of one question: the columns of success.parquet.

    Args:
        log_odds: of p; infinite where no sample, or every one, was right.
        p: success probability.
        low, high: interval of p; both p where it is exact.
        method: "enumerated", "teacher_forced" or "sampled".
        successes, samples: counts, where it was sampled.
    """

    log_odds: float
    p: float
    low: float
    high: float
    method: str
    successes: int | None = None
    samples: int | None = None


def exactly(value: float, method: str) -> Success:
    """Return p from its log-odds, found without sampling.

    Raises:
        FloatingPointError: for log-odds that are not a number.

    >>> exactly(0.0, "enumerated")
    Success(log_odds=0.0, p=0.5, low=0.5, high=0.5, method='enumerated', successes=None, samples=None)
    """
    if math.isnan(value):
        raise FloatingPointError("the probability of right answers is not a number any more")
    p = float(sigmoid(value))
    return Success(value, p, p, p, method)


def sampled(successes: int, samples: int, confidence: float = 0.95) -> Success:
    """Return p from a count of samples, with Wilson's interval.

    >>> found = sampled(0, 64)
    >>> print(found.log_odds, found.low, round(found.high, 4))  # z²/(n + z²) with z = 1.96
    -inf 0.0 0.0566
    """
    p = successes / samples
    low, high = wilson(p, samples, confidence)
    return Success(float(logit(p)), p, float(low), float(high), "sampled", successes, samples)


def right_answers(task: Task, questions: Sequence[Question], policy: Policy, answers: Answers) -> torch.Tensor:
    """Return which of the enumerated answers the verifier takes for right, shape (questions, S).

    Where a question knows all its right answers the verifier is not asked again.
    """
    texts = policy.decode(answers.ids())
    different = sorted(set(texts))
    table: list[list[bool]] = []
    for question in questions:
        if question.correct is not None:
            good = set(question.correct)
        else:
            verdicts = task.verifier([question] * len(different), different)
            good = {text for text, verdict in zip(different, verdicts, strict=True) if verdict.success}
        table.append([text in good for text in texts])
    return torch.tensor(table, dtype=torch.bool).reshape(len(questions), len(texts))


def choose(options: Measurement, task: Task, policy: Policy) -> str:
    """Return how p is measured: what the options say, or the first that is possible.

    Raises:
        ValueError: for a method that is not possible for this task.
    """
    count = count_answers(policy.vocabulary, task.max_completion_tokens)
    known = all(question.correct is not None for question in task.questions)
    if options.method == "auto":
        return "enumerated" if count <= options.most_answers else "teacher_forced" if known else "sampled"
    if options.method == "enumerated":
        every_answer(policy.vocabulary, policy.eos_id, task.max_completion_tokens, options.most_answers)
    if options.method == "teacher_forced" and not known:
        unknown = next(question.id for question in task.questions if question.correct is None)
        raise ValueError(
            'measurement.method must be "sampled" where the right answers are not all known, got "teacher_forced", but '
            f"question {unknown!r} does not list them"
        )
    return options.method


ENUMERATED_AT_ONCE = 1 << 20
"""Answers whose probabilities are measured in one pass, without gradients."""


class Measure:
    """Measures p of a process's own questions, always in the same way.

    Args:
        method: from :func:`choose`.
        options: the table [measurement].
        task: whose verifier judges samples.
        questions: the process's own.
        policy: its tokenizer and, while it learns, its model.
        engine: draws samples.
        seeds: of an iteration: one for each question.
        batch: completions in one pass of teacher forcing.
        enumerated: whether all answers are listed, however p is measured: an inner loop sums over them.
    """

    def __init__(
        self,
        method: str,
        options: Measurement,
        task: Task,
        questions: Sequence[Question],
        policy: Policy,
        engine: Engine,
        seeds: Callable[[int], list[int]],
        batch: int = 1024,
        enumerated: bool = False,
    ) -> None:
        self.method, self.options, self.task, self.questions = method, options, task, tuple(questions)
        self.policy, self.engine, self.seeds, self.batch = policy, engine, seeds, batch
        self.prompts = policy.encode([question.prompt for question in self.questions])
        if method == "enumerated" or enumerated:
            size = task.max_completion_tokens
            self.answers = every_answer(policy.vocabulary, policy.eos_id, size, options.most_answers)
            self.right = right_answers(task, self.questions, policy, self.answers).to(policy.device)
            self.tree = AnswerTree.of(self.prompts, self.answers, policy.device)
        if method == "teacher_forced":
            size = task.max_completion_tokens
            self.correct = [right_completions(policy, question, size) for question in self.questions]

    def __call__(self, model: Any, iteration: int) -> list[Success]:
        """Return p of each question under the model as it is now."""
        with torch.no_grad():
            if self.method == "enumerated":
                log_policy = torch.cat([part.log_probs(model) for part in self.tree.parts(ENUMERATED_AT_ONCE)])
                state = log_odds(log_policy, self.right)
                return [exactly(value, self.method) for value in state.tolist()]
            if self.method == "teacher_forced":
                return [exactly(value, self.method) for value in self._teacher_forced(model)]
            return self._sampled(iteration)

    def _teacher_forced(self, model: Any) -> list[float]:
        """Log-odds from the summed probability of the right answers; 1 − p is then good to rounding only."""
        owner = [q for q, found in enumerate(self.correct) for _ in found]
        ids = [answer for found in self.correct for answer in found]
        log_p = [list[float]() for _ in self.questions]
        for start in range(0, len(ids), self.batch):
            part, asked = ids[start : start + self.batch], owner[start : start + self.batch]
            length = max(map(len, part))
            tokens = torch.tensor([answer + [0] * (length - len(answer)) for answer in part])
            mask = torch.arange(length) < torch.tensor([[len(answer)] for answer in part])
            first = asked[0]
            prompts = self.prompts[first : asked[-1] + 1]
            found = shared_log_probs(model, prompts, tokens, mask, [q - first for q in asked])
            for q, value in zip(asked, found.double().sum(-1).tolist(), strict=True):
                log_p[q].append(value)
        return [_log_odds_of_sum(values) for values in log_p]

    def _sampled(self, iteration: int) -> list[Success]:
        n = self.options.samples
        samples = self.engine.sample(self.prompts, n, self.task.max_completion_tokens, self.seeds(iteration))
        tokens, lengths = samples.completions.flatten(0, 1).tolist(), samples.lengths.flatten().tolist()
        rows = [row[:length] for row, length in zip(tokens, lengths, strict=True)]  # two transfers from the device
        said = [(i // n, text) for i, text in enumerate(self.policy.decode(rows))]
        each = list(dict.fromkeys(said))  # equal answers to a question are judged once
        verdicts = self.task.verifier([self.questions[q] for q, _ in each], [text for _, text in each])
        success = {one: verdict.success for one, verdict in zip(each, verdicts, strict=True)}
        counts = [sum(success[one] for one in said[q * n : (q + 1) * n]) for q in range(len(self.questions))]
        return [sampled(k, n, self.options.confidence) for k in counts]


def _log_odds_of_sum(log_p: Sequence[float]) -> float:
    """Return log p/(1−p) of a sum of probabilities whose logarithms are given; a sum of 1 or more is just below 1.

    >>> round(_log_odds_of_sum([math.log(0.25), math.log(0.25)]), 12), _log_odds_of_sum([])
    (0.0, -inf)
    """
    if not log_p:
        return -math.inf
    top = max(log_p)
    whole = min(top + math.log(math.fsum(math.exp(value - top) for value in log_p)), -(2.0**-24))
    return whole - math.log(-math.expm1(whole))

"""Tasks: their questions against arithmetic, and sets of right answers against every text that can be said."""

import itertools

import pytest

from grpo_dynamics.training.rewards.python_tests import sandbox_problem
from grpo_dynamics.training.sources.countdown import Countdown, expressions, value
from grpo_dynamics.training.tasks import KINDS, Question, Task, make_task
from grpo_dynamics.training.verifiers import ExactMatch


def accepted(task: Task, question: Question, alphabet: str) -> set[str]:
    """Every text of the alphabet, as long as a completion may be, that the verifier accepts."""
    texts = [
        "".join(letters)
        for length in range(task.max_completion_tokens + 1)
        for letters in itertools.product(alphabet, repeat=length)
    ]
    verdicts = task.verifier([question] * len(texts), texts)
    return {text for text, verdict in zip(texts, verdicts, strict=True) if verdict.success}


@pytest.mark.parametrize("options", [{}, {"largest": 19, "modulus": 7}, {"largest": 30, "questions": 50, "seed": 1}])
def test_one_token_sums(options):
    task = make_task("one_token_sums", **options)
    everything = (options.get("largest", 9) + 1) ** 2
    assert len(task.questions) == options.get("questions", everything)
    assert task.max_completion_tokens == 1
    for question in task.questions:
        a, b = map(int, question.prompt.removesuffix("=").split("+"))
        assert question.answer == str((a + b) % options.get("modulus", 10))
        assert len(question.answer) == 1
        assert question.correct == (question.answer,)
    assert accepted(task, task.questions[0], "0123456789+= \n") == set(task.questions[0].correct or ())


def test_sums():
    task = make_task("sums")
    assert len(task.questions) == 100
    lengths = set()
    for question in task.questions:
        a, b = map(int, question.prompt.removesuffix("=").split("+"))
        assert max(a, b) <= 49
        assert question.correct == (str(a + b),)
        lengths.add(len(question.answer))
    assert lengths == {1, 2}
    assert task.max_completion_tokens == max(lengths) + 1  # with the end token
    question = task.questions[-1]
    assert accepted(task, question, "0123456789+=") == {question.answer}
    assert len(make_task("sums", largest=500, questions=10).questions) == 10
    assert make_task("sums", largest=500, questions=10).max_completion_tokens == 5


def test_tasks_are_drawn_by_their_seed():
    assert make_task("sums", seed=3) == make_task("sums", seed=3)
    assert make_task("sums", seed=3) != make_task("sums", seed=4)
    task = make_task("one_token_sums")
    few = task.select(12, seed=1)
    assert few == task.select(12, seed=1) != task.select(12, seed=2)
    assert [q for q in task.questions if q in few.questions] == list(few.questions)
    assert few.texts()[:2] == (few.questions[0].prompt, few.questions[0].answer)


def test_countdown_knows_every_right_answer():
    """The set was enumerated from the digits; here every text that can be said is tried instead."""
    task = make_task("countdown", questions=2, least_right=6)
    for question in task.questions:
        assert len(question.correct or ()) >= 6
        alphabet = "".join(sorted(set(question.extra["digits"]))) + "+-*"
        assert accepted(task, question, alphabet) == set(question.correct or ())
        assert max(map(len, question.correct or ())) < task.max_completion_tokens


@pytest.mark.parametrize("expression", ["1", "2+3*4", "2*3-4*5", "9-8-7", "1-2*3*4+5"])
def test_values_are_those_of_python(expression):
    assert value(expression) == eval(expression)


@pytest.mark.parametrize("text", ["", "+1", "12", "1+", "(1+2)", "1 + 2", "1/2", "1**2", "٣", "1\n", "²"])
def test_what_is_no_expression_has_no_value(text):
    assert value(text) is None


def test_expressions_are_counted_by_hand():
    """n different digits: sum over k of n!/(n-k)! orders times 3^(k-1) signs; equal digits give equal texts."""
    assert sum(map(len, expressions("123").values())) == 3 + 6 * 3 + 6 * 9
    assert sum(map(len, expressions("11").values())) == 1 + 3
    given = {"digits": "112", "target": 4}
    question = Question("q", "1,1,2:4=", "", None, given)
    texts = ["1+1+2", "2+2", "2*2", "1+1+1+1", "2+1*1+1", "4"]
    assert [v.success for v in Countdown()([question] * 6, texts)] == [True, False, False, False, False, False]


@pytest.mark.skipif(sandbox_problem() is not None, reason=f"programs are not run: {sandbox_problem()}")
def test_reference_programs_pass_their_tests():
    task = make_task("python_functions", questions=3, seed=1)
    answers = [question.answer for question in task.questions]
    assert [v.outcome for v in task.verifier(task.questions, answers)] == ["right"] * 3
    others = [*answers[1:], answers[0]]
    assert not any(v.success for v in task.verifier(task.questions, others))


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("sum", {}, r"task must be one of one_token_sums, sums, .*, got 'sum'; the nearest is 'sums'"),
        ("sums", {"larges": 9}, "option of sums must be one of .*, got 'larges'; the nearest is 'largest'"),
        ("dataset", {}, "source must be an option of dataset, got nothing"),
        ("sums", {"largest": 0}, "largest must be a whole number ≥ 1, got 0"),
        ("sums", {"largest": True}, "largest must be a whole number ≥ 1, got True"),
        ("sums", {"largest": 2.5}, "largest must be a whole number ≥ 1, got 2.5"),
        ("sums", {"largest": 2, "questions": 10}, "questions must be a whole number from 1 to 9, got 10"),
        ("one_token_sums", {"modulus": 11}, "modulus must be a whole number from 2 to 10, got 11"),
        ("one_token_sums", {"questions": 101}, "questions must be a whole number from 1 to 100, got 101"),
        ("countdown", {"digits": 5}, "digits must be a whole number from 2 to 4, got 5"),
        ("countdown", {"questions": 9999}, "questions must be a whole number from 1 to .*, got 9999"),
        ("python_functions", {"max_completion_tokens": 0}, "max_completion_tokens must be a whole number ≥ 1, got 0"),
    ],
)
def test_bad_options_are_named(kind, options, message):
    with pytest.raises(ValueError, match=message):
        make_task(kind, **options)


def test_bad_questions_are_named():
    one = Question("a", "1=", "1")
    with pytest.raises(ValueError, match="questions must be at least one, got none"):
        Task("t", (), ExactMatch(), 1)
    with pytest.raises(ValueError, match="question ids must differ, got 'a' twice"):
        Task("t", (one, one), ExactMatch(), 1)
    with pytest.raises(ValueError, match="prompt must not be empty, got '' for the question 'b'"):
        Task("t", (one, Question("b", "", "1")), ExactMatch(), 1)
    assert set(KINDS) == {"one_token_sums", "sums", "countdown", "python_functions", "dataset"}

"""Programs and their tests: what counts as right, what a program is, and what is asked of a question."""

import json
import pathlib
from types import SimpleNamespace

import pytest

from grpo_dynamics.training.rewards import python_tests
from grpo_dynamics.training.rewards.python_tests import ProgramTests, extract_program, sandbox_problem
from grpo_dynamics.training.rewards.sandbox import Ended, Limits
from grpo_dynamics.training.verifiers import AllOf, count_outcomes, verdict

DATA = pathlib.Path(python_tests.__file__).parents[1] / "sources" / "data" / "python_functions.jsonl"
needs_sandbox = pytest.mark.skipif(sandbox_problem() is not None, reason=f"programs: {sandbox_problem()}")
PATIENT = Limits(seconds=60.0)


def question(tests, entry_point="f", prompt=""):
    return SimpleNamespace(prompt=prompt, answer="", correct=None, extra={"tests": tests, "entry_point": entry_point})


def outcomes(tests, *programs, entry_point="f", **options):
    found = ProgramTests(limits=PATIENT, **options)([question(tests, entry_point)] * len(programs), programs)
    return [v.outcome for v in found]


def committed():
    return [json.loads(line) for line in DATA.read_text(encoding="utf-8").splitlines()]


def asked(row):
    return SimpleNamespace(prompt=row["prompt"], answer=row["answer"], correct=None, extra=row)


def test_the_committed_tasks_are_complete():
    rows = committed()
    assert 12 <= len(rows) == len({row["id"] for row in rows}) <= 20
    for row in rows:
        assert set(row) == {"id", "prompt", "answer", "tests", "entry_point"}
        assert f" {row['entry_point']}(" in row["prompt"]
        assert row["tests"] not in row["prompt"]


@needs_sandbox
def test_every_reference_solution_is_right_and_no_empty_one_is():
    rows = committed()
    questions = [asked(row) for row in rows]
    verifier = ProgramTests(limits=PATIENT)
    assert count_outcomes(verifier(questions, [row["answer"] for row in rows])) == {"right": len(rows)}
    for body in ("pass", "return 0", "return []", "return True"):
        wrong = [f"def {row['entry_point']}(*arguments):\n    {body}" for row in rows]
        assert not any(v.success for v in verifier(questions, wrong)), body


@needs_sandbox
def test_the_tests_of_the_tasks_notice_small_mistakes():
    """Each mutant differs from the reference in one place, and is wrong mathematically."""
    rows = {row["id"]: row for row in committed()}
    mutants = {
        "digit_sum": ("abs(n)", "n"),
        "run_lengths": ("runs[-1][0] == character", "runs[-1][0] != character"),
        "is_balanced": ("return not waiting", "return True"),
        "second_largest": ("sorted(set(numbers))", "sorted(numbers)"),
        "merge_intervals": ("start <= merged", "start < merged"),
        "caesar": ("% 26", "% 25"),
        "roman": ('(900, "CM"), ', ""),
        "prime_factors": ("divisor * divisor <= n", "divisor * divisor < n"),
        "transpose": ("zip(*matrix)", "matrix"),
        "rotate": ("items[:] =", "items ="),
        "edit_distance": ("(x != y)", "1"),
        "count_words": (".lower()", ""),
        "largest_sum": ("best = ending_here = numbers[0]", "best = ending_here = max(0, numbers[0])"),
        "parse_number": ("return int(text)", "return int(text or 0)"),
        "longest_climb": ("bisect_left(ends", "__import__('bisect').bisect_right(ends"),
        "steps": ("a + b + c, a, b", "a + b, a, b"),
    }
    assert set(mutants) == set(rows)
    for name, (old, _) in mutants.items():
        assert rows[name]["answer"].count(old) >= 1, name
    questions = [asked(rows[name]) for name in mutants]
    programs = [rows[name]["answer"].replace(*change) for name, change in mutants.items()]
    found = ProgramTests(limits=PATIENT)(questions, programs)
    assert [name for name, v in zip(mutants, found, strict=True) if v.success] == []


@needs_sandbox
@pytest.mark.parametrize(
    ("program", "tests"),
    [
        ("def f(x): x.append(1)", "a = [0]\nassert f(a) is None\nassert a == [0, 1]"),  # changes its argument
        ("def f(x): x.clear()", "a, b = {1: 2}, {3}\nf(a)\nf(b)\nassert a == {} and b == set()"),
        ("n = 0\ndef f():\n    global n\n    n += 1\n    return n", "assert [f(), f(), f()] == [1, 2, 3]"),  # its state
        ("from collections import Counter as f", "assert f('aab') == {'a': 2, 'b': 1}"),  # as a plain dict
        ("import math\nf = math.sqrt", "assert f(4.0) == 2.0 and str(f(0.0)) == '0.0'"),
        ("def f(*a, k=1): return a, k", "assert f(1, (2,), k=None) == ((1, (2,)), None)"),
        ("def f(): return {(1, 2j), frozenset({b'a'})}", "assert f() == {(1, 2j), frozenset({b'a'})}"),
        ("def f(): return 10 ** 5000, float('inf')", "assert f() == (10 ** 5000, float('inf'))"),
        ("def f(x): raise KeyError(x)", "try: f(1)\nexcept KeyError: pass\nelse: assert False"),
        ("class Odd(ValueError): pass\ndef f(): raise Odd", "try: f()\nexcept ValueError: pass\nelse: assert False"),
        ("def f(x): return 2 * x", ["assert f(1) == 2", "assert f('a') == 'aa'"]),
        ("def f(x): return 2 * x", "def check(candidate):\n    assert candidate(1) == 2"),
        ("def f(x): return 2 * x", "def test_double():\n    assert f(1) == 2"),
        ("print('hello')\nif __name__ == '__main__': f()\ndef f(): return input", "try: f()\nexcept TypeError: pass"),
    ],
)
def test_programs_that_are_right(program, tests):
    assert outcomes(tests, program) == ["right"]


@needs_sandbox
@pytest.mark.parametrize(
    ("expected", "program", "tests"),
    [
        ("wrong", "def f(x): return x", "def check(candidate):\n    assert candidate(1) == 2"),
        ("wrong", "def f(x): return x", "def test_double():\n    assert f(1) == 2"),
        ("wrong", "def f(x): return x", ["assert f(2) == 2", "assert f(1) == 2"]),
        ("error", "def f(x): return (i for i in x)", "assert list(f([1])) == [1]"),  # no plain data
        ("error", "def g(x): return x", "assert f(1) == 1"),
        ("error", "def f(x) return x", "assert f(1) == 1"),
        ("error", "", "assert f(1) == 1"),
        ("error", "def f(x): return x", "assert True"),  # tests that never ask show nothing
        ("error", "def f(x): return x", "assert g(1) == 1"),
        ("error", "def f(x): return input()", "assert f(1) == ''"),
        ("error", "import os\ndef f(x): os._exit(0)", "try: f(1)\nexcept Exception: pass"),  # caught or not
        ("error", "import os\ndef f(x): os._exit(0)", "try: f(1)\nexcept BaseException: pass"),
        ("memory", "def f(x): return bytes(10**10)", "try: f(1)\nexcept BaseException: pass"),
    ],
)
def test_programs_that_are_not(expected, program, tests):
    assert outcomes(tests, program) == [expected]


@needs_sandbox
def test_several_functions_of_one_program():
    program = "def up(x): return x + 1\ndef down(x): return x - 1"
    assert outcomes("assert up(down(5)) == 5", program, entry_point=["up", "down"]) == ["right"]


@needs_sandbox
def test_equal_programs_run_once(monkeypatch):
    ran = []
    real = python_tests.outcome
    monkeypatch.setattr(python_tests, "outcome", lambda *arguments: ran.append(arguments[0]) or real(*arguments))
    good, bad = "def f(): return 1", "def f(): return 2"
    assert outcomes("assert f() == 1", good, bad, good, f"```\n{good}\n```") == ["right", "wrong", "right", "right"]
    assert sorted(ran) == sorted([good, bad, good + "\n"])


@needs_sandbox
def test_the_order_of_sets_is_the_same_in_every_run():
    """A program whose answer hangs on it gets one verdict, so that a resumed run repeats the run."""
    tests = "assert f() == 'c'"
    program = "def f(): return list({'a', 'b', 'c', 'd', 'e'})[0]"
    found = {o for i in range(6) for o in outcomes(tests, f"{program}  # {i}")}
    assert len(found) == 1


@needs_sandbox
def test_programs_combine_with_other_verifiers():
    def short(questions, completions):
        return [verdict(len(text) < 25) for text in completions]

    both = AllOf((short, ProgramTests(limits=PATIENT)))
    programs = ["def f(): return 1", "def f(): return 2", "def f(): return 1  # and much more to say"]
    assert [v.success for v in both([question("assert f() == 1")] * 3, programs)] == [True, False, False]


def fenced(code, tag="python"):
    return f"```{tag}\n{code}```"


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        ("def f(): pass\n", "def f(): pass\n"),
        (fenced("def f(): pass\n"), "def f(): pass\n"),
        (fenced("def f(): pass\n", tag=""), "def f(): pass\n"),
        ("Text\n" + fenced("def f(): pass\n") + "\nMore `text`.", "def f(): pass\n"),
        (fenced("def f(): 1\n") + "\nbetter:\n" + fenced("def f(): 2\n"), "def f(): 2\n"),  # the last word counts
        (fenced("def f(): 1\n") + "\nuse:\n" + fenced("print(f())\n"), "def f(): 1\n"),  # the one that defines it
        (fenced("x = 1\n") + fenced("y = 1\n"), "x = 1\n"),  # a fence starts a line
        ("```python\ndef f():\n    return", "def f():\n    return"),  # cut off at the length limit
        ("<think>\n" + fenced("def f(): 1\n") + "\n</think>\n" + fenced("def f(): 2\n"), "def f(): 2\n"),
        ("f = len\n", "f = len\n"),
        ("", ""),
    ],
)
def test_the_program_in_a_completion(completion, expected):
    assert extract_program(completion, ["f"]) == expected


def test_a_completion_that_continues_the_prompt():
    prompt = "def g(): return 1\n\ndef f(x):\n"
    assert extract_program("    return x", ["f"], prompt) == prompt + "    return x"
    assert extract_program("def f(x):\n    return x", ["f"], prompt) == "def f(x):\n    return x"
    assert extract_program("    return x", ["f"], "Write f.") == "    return x"


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"entry_point": "f"}, "tests of a question with programs must be text or a list of texts, got None"),
        ({"entry_point": "f", "tests": " "}, "tests of a question .* got ' '"),
        ({"entry_point": "f", "tests": [1]}, r"tests of a question .* got \[1\]"),
        ({"tests": "assert f()"}, "entry_point of a question .* got None"),
    ],
)
def test_questions_without_tests_are_refused(monkeypatch, extra, message):
    monkeypatch.setattr(python_tests, "sandbox_problem", lambda: None)
    asked = SimpleNamespace(prompt="", answer="", correct=None, extra=extra)
    with pytest.raises(ValueError, match=message):
        ProgramTests()([asked], ["def f(): pass"])


def test_workers_are_counted():
    with pytest.raises(ValueError, match=r"^workers must be None or a whole number >= 1, got 0$"):
        ProgramTests(workers=0)


class TestWithoutASandbox:
    @pytest.fixture(autouse=True)
    def nothing_contains(self, monkeypatch):
        monkeypatch.setattr(python_tests, "_containment", lambda: ("none", "bubblewrap is not installed"))

    def test_it_refuses_in_one_line(self):
        with pytest.raises(ValueError, match=r"^unsafe_no_sandbox must be True where programs") as refused:
            ProgramTests()
        assert "bubblewrap is not installed" in str(refused.value)
        assert "\n" not in str(refused.value)

    def test_it_works_where_it_is_told_to(self):
        tests = "assert f(2) == 4"
        programs = [
            "def f(x): return x * x",
            "def f(x): return x",
            "import os\ndef f(x): os._exit(0)",
            "def f(x): print('x' * 10**7)",
            "def f(x): return bytes(10**10)",
        ]
        expected = ["right", "wrong", "error", "output", "memory"]
        assert outcomes(tests, *programs, unsafe_no_sandbox=True) == expected

    def test_time_is_limited_all_the_same(self):
        verifier = ProgramTests(limits=Limits(seconds=1.0), unsafe_no_sandbox=True)
        (found,) = verifier([question("assert f() == 1")], ["def f():\n    while True: pass"])
        assert found == verdict(False, "timeout")


def test_where_bubblewrap_is_missing_the_reason_says_so(monkeypatch):
    monkeypatch.setattr(python_tests.shutil, "which", lambda name: None)
    containment, problem = python_tests._containment.__wrapped__()
    assert containment == "none"
    assert problem == "bubblewrap is not installed (the program bwrap)"


@pytest.fixture
def forbidden(monkeypatch):
    """A machine that forbids user namespaces."""
    ended = Ended(b"bwrap: No permissions to create a new namespace\n", b"", None)
    monkeypatch.setattr(python_tests.shutil, "which", lambda name: "/usr/bin/bwrap")
    monkeypatch.setattr(python_tests, "run", lambda *_: ended)


def test_where_bubblewrap_fails_the_reason_is_its_own(forbidden):
    _, problem = python_tests._containment.__wrapped__()
    assert problem == (
        "bubblewrap does not work here (the sandbox did not start: bwrap: No permissions to create a new namespace)"
    )


def test_a_sandbox_that_fails_later_is_not_the_programs_fault(monkeypatch, forbidden):
    """Scores of 0 that say nothing about the policy would be worse than the end of the run."""
    monkeypatch.setattr(python_tests, "_containment", lambda: ("user", None))
    with pytest.raises(RuntimeError, match=r"^the sandbox did not start: bwrap: No permissions"):
        ProgramTests()([question("assert f() == 1")], ["def f(): return 1"])


@needs_sandbox
@pytest.mark.parametrize(
    "text",
    [
        pytest.param("\x00", id="null"),
        pytest.param("\udc80", id="half a character"),
        pytest.param("def f(): return '\udc80'", id="half a character in a program"),
        pytest.param("\ufeff" + "(" * 10**4, id="deep"),
        pytest.param("```\n" * 999, id="fences"),
    ],
)
def test_any_text_has_a_verdict(text):
    assert outcomes("assert f() == 1", text) in (["error"], ["wrong"])

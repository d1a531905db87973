"""Verifiers: what equals what, which form is required, and that none can stop a run."""

import contextlib
import gc
import threading
import time
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grpo_dynamics.training.rewards.constraints import Count, Pattern, ValidJSON, Words, sentences, words
from grpo_dynamics.training.rewards.guard import guarded
from grpo_dynamics.training.rewards.settings import read_verifier
from grpo_dynamics.training.verifiers import (
    AllOf,
    ExactMatch,
    MathAnswer,
    Verdict,
    Weighted,
    count_outcomes,
    verdict,
)
from tests.training.unruly import HereOnly, unruly


def question(answer="", correct=None, **extra):
    return SimpleNamespace(prompt="?", answer=answer, correct=correct, extra=extra)


def says(verifier, completion, answer="", correct=None, **extra):
    (found,) = verifier([question(answer, correct, **extra)], [completion])
    return found


class TestExactMatch:
    @given(st.text(max_size=5), st.text(max_size=5))
    def test_without_options_it_is_equality(self, answer, completion):
        assert says(ExactMatch(), completion, answer).success == (completion == answer)
        assert says(ExactMatch(), answer, answer) == Verdict(True, 1.0, "right")

    @given(st.sets(st.text("ab", max_size=3)), st.text("ab", max_size=3))
    def test_where_the_right_completions_are_known_it_is_membership(self, correct, completion):
        assert says(ExactMatch(), completion, "a", tuple(correct)).success == (completion in correct)

    @pytest.mark.parametrize(
        ("options", "completion", "answer", "success"),
        [
            ({}, " 7", "7", False),
            ({"strip": True}, " 7\n", "7", True),
            ({"strip": True}, "7 8", "78", False),
            ({"ignore_case": True}, "STRASSE", "straße", True),
            ({"ignore_case": True}, "a b", "A  B", False),
            ({"collapse_spaces": True}, "a\n b", "a  b", True),
            ({"collapse_spaces": True}, " a", "a", False),  # blanks at the ends are for strip
            ({"numbers": True}, "1,000.0", "1000", True),
            ({"numbers": True}, "+0.50", "1/2", True),
            ({"numbers": True}, "-3", "3", False),
            ({"numbers": True}, "0.1", "0.10000000000000001", False),  # as fractions: nothing is rounded
            ({"numbers": True}, "1/0", "1/0", True),  # no number: as text
            ({"numbers": True}, "", "0", False),
            ({"numbers": True}, "9" * 500, "9", False),
            ({"take": r"####\s*(.+)"}, "3+4\n#### 7", "so\n#### 7", True),
            ({"take": r"####\s*(.+)"}, "#### 8\n#### 7", "7", True),  # the last counts; the answer stands alone
            ({"take": r"####\s*(.+)"}, "7", "7", False),  # nothing to take
            ({"take": r"\d+"}, "I say 12, no: 7.", "7", True),  # without a group
        ],
    )
    def test_options(self, options, completion, answer, success):
        assert says(ExactMatch(**options), completion, answer).success is success

    @given(st.fractions(min_value=-1000, max_value=1000), st.integers(0, 3))
    def test_every_spelling_of_a_number_is_that_number(self, number, zeros):
        spelling = f"{number.numerator * 10**zeros}/{number.denominator * 10**zeros}"
        assert says(ExactMatch(numbers=True), spelling, str(number)).success
        assert not says(ExactMatch(numbers=True), spelling, str(number + 1)).success

    def test_a_pattern_that_is_none_is_refused(self):
        with pytest.raises(ValueError, match=r"^take must be a regular expression \(.*\), got '\('$"):
            ExactMatch(take="(")


class TestMathAnswer:
    verifier = MathAnswer(seconds=5)

    @pytest.fixture(autouse=True)
    def _no_garbage_collected(self):
        """What an alarm raises in a collection is dropped with a warning, and here warnings fail a test."""
        gc.disable()
        yield
        gc.enable()

    @pytest.mark.parametrize(
        ("answer", "completion"),
        [
            ("42", "The answer is 42."),
            ("42", r"thus $\boxed{42}$"),
            (r"\frac{1}{2}", "0.5"),
            ("1/2", r"$\frac{2}{4}$"),
            (r"\sqrt{8}", r"$2\sqrt{2}$"),
            ("x^2 + 2x + 1", "$(x+1)^2$"),
            (r"\boxed{7}", "I get $7$"),
            (r"(1, 2)", r"$(1,2)$"),
            (r"\{1, 2\}", r"$\{2, 1\}$"),
        ],
    )
    def test_what_is_equal_mathematically(self, answer, completion):
        assert says(self.verifier, completion, answer) == verdict(True)

    @pytest.mark.parametrize(
        ("answer", "completion"),
        [("42", "41"), ("x+1", "$x-1$"), ("42", ""), ("42", "no number"), (r"\{1,2\}", r"$\{1\}$"), ("", "42")],
    )
    def test_what_is_not(self, answer, completion):
        assert says(self.verifier, completion, answer) == verdict(False)

    @pytest.mark.parametrize("text", [r"\boxed{", "$" * 99, r"$\frac{1}{0}$", "\x00", r"$\left($", "(" * 500, "½²³"])
    def test_it_never_raises(self, text):
        assert not says(MathAnswer(seconds=1), text, "5").success
        assert says(MathAnswer(seconds=1), "5", text).outcome in {"right", "wrong", "error", "timeout"}

    def test_what_takes_too_long_is_given_up(self, monkeypatch):
        """The library compares what a symbolic computation would take years for; here it just sleeps."""
        import math_verify.grader

        monkeypatch.setattr(math_verify.grader, "sympy_expr_eq", lambda *_, **__: time.sleep(600))
        assert says(MathAnswer(seconds=1), "41", "42").outcome == "timeout"

    def test_an_alarm_that_is_lost_rings_again(self, monkeypatch):
        """As in a collection of garbage, where Python drops what a signal's handler raises."""
        import math_verify.grader
        from math_verify.errors import TimeoutException

        def loses_one(*_, **__):
            with contextlib.suppress(TimeoutException):
                time.sleep(600)
            lost.append(True)
            time.sleep(600)

        lost = []
        monkeypatch.setattr(math_verify.grader, "sympy_expr_eq", loses_one)
        assert says(MathAnswer(seconds=1), "41", "42").outcome == "timeout"
        assert lost  # one for each pair of readings
        time.sleep(0.3)  # and is silent afterwards

    def test_in_a_thread_it_answers_too(self):
        found = []

        def work():
            found.extend(says(self.verifier, text, "42") for text in ("42", "41"))

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        assert found == [verdict(True), verdict(False)]

    def test_a_limit_that_cannot_be(self):
        with pytest.raises(ValueError, match=r"^seconds must be a whole number >= 1, got 0.5$"):
            MathAnswer(seconds=0.5)


class TestConstraints:
    def test_patterns(self):
        assert says(Pattern(r"\d"), "a1").success
        assert not says(Pattern(r"\d", whole=True), "a1").success
        assert not says(Pattern(r"\d", forbidden=True), "a1").success
        assert says(Pattern(r"\d", forbidden=True), "a").success
        with pytest.raises(ValueError, match=r"^pattern must be a regular expression"):
            Pattern("[")

    @pytest.mark.parametrize(
        ("of", "text", "count"),
        [
            ("words", "", 0),
            ("words", "It's well-known -- yes, 3.", 4),
            ("words", "日本 ok", 2),
            ("sentences", "", 0),
            ("sentences", "One. Two! Three? And an end", 4),
            ("sentences", 'He said "no." She left.', 2),
            ("sentences", "It is 3.5 km.", 1),
            ("sentences", "...", 0),
            ("lines", "a\n\n  \nb\n", 2),
            ("characters", "a b\n", 4),
        ],
    )
    def test_counts(self, of, text, count):
        """The bounds are met exactly at the count."""
        assert says(Count(of, at_least=count, at_most=count), text).success
        assert not says(Count(of, at_least=count + 1), text).success
        if count:
            assert not says(Count(of, at_most=count - 1), text).success

    @given(st.lists(st.from_regex(r"[a-z]{1,4}", fullmatch=True), max_size=6))
    def test_counts_add_up(self, parts):
        assert words(" ".join(parts)) == parts
        assert len(sentences(" ".join(f"{part}." for part in parts))) == len(parts)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (("letters",), "of must be one of 'words', 'sentences', 'lines', 'characters', got 'letters'"),
            (("words", -1), "at_least must be a whole number >= 0, got -1"),
            (("words", 3, 2), r"at_most must be None or a whole number >= at_least \(3\), got 2"),
        ],
    )
    def test_counts_that_cannot_be(self, options, message):
        with pytest.raises(ValueError, match=f"^{message}$"):
            Count(*options)

    def test_words(self):
        both = Words(required=("big cat", "C++"), forbidden=("dog",))
        assert says(both, "A Big cat writes c++.").success
        assert not says(both, "A big cats writes C++.").success
        assert not says(both, "The dog of a big cat writes C++.").success
        assert says(both, "The dogma of a big cat: C++").success
        assert not says(Words(("A",), ignore_case=False), "a").success
        with pytest.raises(ValueError, match=r"^required must be a tuple of words, got 'cat'$"):
            Words("cat")

    def test_words_of_the_question(self):
        assert says(Words(), "one two", required_words=["one"]).success
        assert not says(Words(), "one two", required_words=["three"]).success
        assert not says(Words(("one",)), "one two", forbidden_words=["two"]).success

    @pytest.mark.parametrize(
        ("verifier", "text", "success"),
        [
            (ValidJSON(), "3", True),
            (ValidJSON(), ' {"a": [1, null]}\n', True),
            (ValidJSON(), "NaN", False),  # Python's own word, not JSON's
            (ValidJSON(), "{'a': 1}", False),
            (ValidJSON(), '{"a": 1} and more', False),
            (ValidJSON(), "", False),
            (ValidJSON(("a",)), '{"a": 1, "b": 2}', True),
            (ValidJSON(("a",), only=True), '{"a": 1, "b": 2}', False),
            (ValidJSON(("a", "b")), '{"a": 1}', False),
            (ValidJSON(("a",)), '["a"]', False),
            (ValidJSON(only=True), "{}", True),
        ],
    )
    def test_json(self, verifier, text, success):
        assert says(verifier, text).success is success

    def test_json_that_is_too_deep_is_none(self):
        assert not says(ValidJSON(), "[" * 10**5).success


class Fixed:
    """A verifier that knows its verdicts by completion, and remembers what it was asked."""

    def __init__(self, **outcomes):
        self.outcomes, self.asked = outcomes, []

    def __call__(self, questions, completions):
        self.asked += completions
        return [verdict(self.outcomes[c] == "right", self.outcomes[c]) for c in completions]


class TestCombinations:
    def test_all_of_is_the_conjunction_and_asks_no_more_than_needed(self):
        first, second = Fixed(a="right", b="wrong", c="right"), Fixed(a="right", c="timeout")
        found = AllOf((first, second))([question()] * 3, ["a", "b", "c"])
        assert [v.outcome for v in found] == ["right", "wrong", "timeout"]
        assert second.asked == ["a", "c"]

    @pytest.mark.parametrize(("threshold", "expected"), [(0.3, [1, 1, 1]), (0.5, [1, 1, 0]), (1.0, [1, 0, 0])])
    def test_weighted_is_the_sum_against_the_threshold(self, threshold, expected):
        heavy, light = Fixed(a="right", b="right", c="error"), Fixed(a="right", b="wrong", c="right")
        verifier = Weighted((heavy, light), (0.7, 0.3), threshold)
        found = verifier([question()] * 3, ["a", "b", "c"])
        assert [v.success for v in found] == [bool(e) for e in expected]
        assert [v.reward for v in found] == expected
        if threshold == 0.5:
            assert found[2].outcome == "error"

    def test_graded_rewards_are_the_share_of_the_weights(self):
        verifier = Weighted((Fixed(a="right"), Fixed(a="wrong")), (3.0, 1.0), 4.0, graded=True)
        assert verifier([question()], ["a"]) == [Verdict(False, 0.75, "wrong")]

    def test_a_threshold_that_is_the_sum_is_reached(self):
        """0.1 + 0.2 + 0.3 is not 0.6 in binary."""
        verifier = Weighted((Fixed(a="right"),) * 3, (0.1, 0.2, 0.3), 0.6)
        assert verifier([question()], ["a"])[0].success

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (((), (), 1.0), "weights must be"),
            (((Fixed(),), (1.0, 2.0), 1.0), "weights must be one for each of 1 verifiers"),
            (((Fixed(),), (-1.0,), 1.0), "weights must be positive and finite"),
            (((Fixed(),), (1.0,), 1.5), r"threshold must be in \(0, 1\], got 1.5"),
            (((Fixed(),), (1.0,), 0.0), r"threshold must be in \(0, 1\], got 0.0"),
        ],
    )
    def test_weights_that_cannot_be(self, options, message):
        with pytest.raises(ValueError, match=f"^{message}"):
            Weighted(*options)

    def test_all_of_nothing_is_refused(self):
        with pytest.raises(ValueError, match=r"^verifiers must be at least one"):
            AllOf(())

    @pytest.mark.parametrize("verifier", [ExactMatch(), Words(), AllOf((ExactMatch(),))])
    def test_as_many_questions_as_completions(self, verifier):
        with pytest.raises(ValueError, match=r"shorter|as many"):
            verifier([question()] * 2, ["a"])


class TestGuard:
    def test_whatever_a_verifier_does_the_run_goes_on(self):
        """Each completion has its own verdict; the process that was lost is replaced."""
        expected = {
            "hang": "timeout",
            "raise": "error",
            "sleep": "timeout",
            "exit": "error",
            "leave": "error",
            "memory": "memory",
            "nonsense": "error",
            "nothing": "error",
        }
        completions = [text for name in expected for text in (name, "a", "b")]
        with guarded(unruly, 0.5) as verifier:
            found = verifier([question("a")] * len(completions), completions)
        assert [v.outcome for v in found] == [o for e in expected.values() for o in (e, "right", "wrong")]
        assert count_outcomes(found) == {"error": 5, "memory": 1, "right": 8, "timeout": 2, "wrong": 8}

    def test_a_regular_expression_that_takes_for_ever(self):
        """2^40 ways to split the letters; the interpreter cannot be interrupted inside one match."""
        with guarded(Pattern("(a+)+b"), 0.5) as verifier:
            found = verifier([question()] * 3, ["ab", "a" * 40, "ba"])
        assert [v.outcome for v in found] == ["right", "timeout", "wrong"]

    def test_mathematics_that_takes_for_ever(self):
        """The library's own alarm goes off in vain while the interpreter multiplies."""
        with guarded(MathAnswer(seconds=1), 3.0) as verifier:
            found = verifier([question("42")] * 3, ["$9^{9^{9^{9}}}$", "42", "41"])
        assert [v.success for v in found] == [False, True, False]

    def test_several_processes_keep_the_order(self):
        answers = [str(i) for i in range(50)]
        with guarded(ExactMatch(), 60.0, workers=3) as verifier:
            found = verifier([question(a) for a in answers], answers[:25] + ["no"] * 25)
            again = verifier([question("a", extra=1)], ["a"])
        assert [v.success for v in found] == [True] * 25 + [False] * 25
        assert again == [verdict(True)]

    def test_it_works_in_a_thread(self):
        found = []
        with guarded(unruly, 0.5) as verifier:
            thread = threading.Thread(target=lambda: found.extend(verifier([question("a")] * 2, ["hang", "a"])))
            thread.start()
            thread.join()
        assert [v.outcome for v in found] == ["timeout", "right"]

    def test_what_a_process_holds_is_given_back(self):
        verifier = guarded(ExactMatch(), 1.0)
        (process,) = [w.process for w in [verifier._idle.get()] if not verifier._idle.put(w)]
        assert process.poll() is None
        del verifier
        assert process.poll() is not None

    def test_questions_may_be_any_length(self):
        with guarded(ExactMatch(), 60.0) as verifier:
            assert verifier([question("a" * 10**6)], ["a" * 10**6]) == [verdict(True)]
            assert verifier([], []) == []

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ((ExactMatch(), 0.0), "seconds must be positive and finite, got 0.0"),
            ((ExactMatch(), 1.0, 0), "workers must be a whole number >= 1, got 0"),
            ((lambda q, c: [], 1.0), "verifier must be picklable to be guarded"),
        ],
    )
    def test_what_cannot_be_guarded(self, options, message):
        with pytest.raises(ValueError, match=f"^{message}"):
            guarded(*options)

    def test_what_cannot_be_loaded_elsewhere(self):
        with pytest.raises(
            ValueError, match=r"^verifier must be one that another process can load: RuntimeError: here only$"
        ):
            guarded(HereOnly(), 1.0)


class TestSettings:
    """Verifiers from a config."""

    @pytest.mark.parametrize(
        ("settings", "verifier"),
        [
            ("exact", ExactMatch()),
            ({"kind": "exact", "strip": True, "take": "#(.*)"}, ExactMatch(strip=True, take="#(.*)")),
            ({"kind": "count", "of": "words", "at_most": 9}, Count("words", at_most=9)),
            ({"kind": "words", "required": ["a"], "forbidden": ["b", "c"]}, Words(("a",), ("b", "c"))),
            (["exact", {"kind": "json", "keys": ["a"]}], AllOf((ExactMatch(), ValidJSON(("a",))))),
            (
                {"kind": "weighted", "verifiers": ["exact", "json"], "weights": [1.0, 2.0], "threshold": 2},
                Weighted((ExactMatch(), ValidJSON()), (1.0, 2.0), 2.0),
            ),
        ],
    )
    def test_a_table_is_the_options_of_a_class(self, settings, verifier):
        assert read_verifier(settings) == verifier

    def test_what_may_hang_is_guarded(self):
        with read_verifier({"kind": "pattern", "pattern": "(a+)+b", "within": 0.5}) as pattern:
            assert says(pattern, "a" * 40).outcome == "timeout"
        with read_verifier("math") as mathematics:
            assert mathematics.verifier == MathAnswer()
            assert mathematics.seconds == 10.0

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ("exakt", "verifier.kind must be one of .*, got 'exakt'; the nearest is 'exact'"),
            ({}, "verifier.kind must be one of .*, got None"),
            (3, "verifier must be a kind, a table or a list of those, got 3"),
            ([], "verifiers must be at least one"),
            (["exact", {"kind": "count"}], r"of must be a key of \[verifier\[1\]\], got nothing"),
            ({"kind": "exact", "stripp": True}, "key of .* got 'stripp'; the nearest is 'strip'"),
            ({"kind": "weighted", "verifiers": ["exact"]}, "verifier.threshold must be a number, got None"),
            ({"kind": "weighted", "wait": 1}, "key of .* got 'wait'"),
        ],
    )
    def test_settings_that_cannot_be(self, settings, message):
        with pytest.raises(ValueError, match=f"^{message}"):
            read_verifier(settings)

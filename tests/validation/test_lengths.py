"""Lengths of right and of wrong answers: made tables whose means can be counted by hand."""

import dataclasses

import numpy as np
import polars as pl
import pytest

from grpo_dynamics.config import as_table
from grpo_dynamics.update_rule import Training
from grpo_dynamics.validation import lengths
from grpo_dynamics.validation.measured import Arm, Measured, canonical
from grpo_dynamics.validation.report import validate


def drawn(rows: list[tuple[int, str, bool, int]]) -> pl.DataFrame:
    schema = ["iteration", "question_id", "success", "completion_length"]
    return pl.DataFrame(rows, schema=schema, orient="row")


def arm(completions: pl.DataFrame | None) -> Arm:
    table = {"iteration": [0, 0, 1, 1], "question_id": ["a", "b"] * 2, "p": [0.2, 0.4, 0.3, 0.5]}
    return Arm("made", {"training": as_table(Training())}, canonical(pl.DataFrame(table)), completions=completions)


def test_a_question_that_is_learned_moves_the_mean_but_is_no_shift():
    """The long question stops to be wrong: the mean over all wrong answers falls from 6 to 4, and no answer changed."""
    before = [(1, "long", False, 8), (1, "short", False, 4)]
    after = [(2, "long", True, 8), (2, "short", False, 4)]
    table = lengths.lengths(drawn(before + after))
    assert table["wrong_tokens"].to_list() == [6.0, 4.0]
    assert table["wrong_shift"].to_list() == [0.0, 0.0]
    assert table["wrong_questions"].to_list() == [2, 1]
    assert table["right_tokens"].to_list() == [None, 8.0]
    assert table["right_shift"].to_list() == [None, None]  # no right answer before: nothing to compare with


def test_questions_weigh_by_the_variance_of_their_shift():
    """Question a has 2 answers, then 2, weight 1, and grows by 1; b has 1 and 1, weight ½, and grows by 4: mean 2."""
    first = [(1, "a", False, 3), (1, "a", False, 5), (1, "b", False, 2)]
    then = [(2, "a", False, 5), (2, "a", False, 5), (2, "b", False, 6)]
    row = lengths.lengths(drawn(first + then)).row(1, named=True)
    assert row["wrong_shift"] == pytest.approx((1 * 1 + 0.5 * 4) / 1.5)
    spread = np.hypot(1 * (1 - 2), 0.5 * (4 - 2)) / 1.5  # of a weighted mean
    assert row["wrong_shift_error"] == pytest.approx(spread * np.sqrt(2))


def test_the_error_is_that_of_the_mean():
    """Over many questions whose shifts are drawn, the mean lies within 1.96 errors of the truth in 95 % of runs."""
    generator, inside = np.random.default_rng(0), 0
    for _ in range(100):
        rows = [
            (n, str(q), False, int(length))
            for q in range(30)
            for n in (1, 2)
            for length in generator.integers(2, 9, size=4 + 4 * (q % 3))
        ]
        last = lengths.lengths(drawn(rows)).row(-1, named=True)
        inside += abs(last["wrong_shift"]) < 1.96 * last["wrong_shift_error"]
    assert 88 <= inside <= 100


@pytest.mark.parametrize("iterations", [1, 3, 10, 37])
def test_every_answer_is_in_one_span(iterations):
    rows = [(n, "a", n % 2 == 0, 3) for n in range(1, iterations + 1)]
    table = lengths.lengths(drawn(rows))
    assert len(table) == min(iterations, lengths.SPANS)
    assert table["right_answers"].sum() + table["wrong_answers"].sum() == iterations
    assert table["iteration"].is_sorted()


def test_nothing_is_said_where_all_answers_are_alike_or_none_were_kept():
    assert lengths.lengths_of(arm(None)) is None
    assert lengths.lengths_of(arm(drawn([(1, "a", True, 1), (1, "a", False, 1)]))) is None
    assert lengths.summary(None) is None
    assert lengths.lengths(drawn([]).cast({"iteration": pl.Int64})).is_empty()


def test_the_end_is_the_last_span_with_such_answers():
    """All answers are right in the last iteration: what wrong ones came to is what they were before."""
    rows = [(1, "a", False, 2), (2, "a", False, 5), (3, "a", True, 4)]
    told = lengths.summary(lengths.lengths(drawn(rows)))
    assert told is not None
    assert told["wrong"] == {"start": 2.0, "end": 5.0, "shift": 3.0, "shift_error": None, "questions": 1}
    assert told["right"]["shift"] is None


def test_a_report_has_the_lengths_of_the_arms_that_have_some(tmp_path):
    rows = [(n, q, n == 2, n + 2 * (q == "b")) for n in (1, 2, 3) for q in "ab"]
    both = dataclasses.replace(arm(drawn(rows)), name="several"), arm(None)
    report = validate(Measured("run", both), tmp_path)
    table = pl.read_parquet(tmp_path / "lengths.parquet")
    assert table["arm"].unique().to_list() == ["several"]
    assert table.drop("arm").equals(lengths.lengths(drawn(rows)))
    assert {"lengths.png", "lengths.pdf"} <= {path.name for path in report.paths}
    told = {entry["arm"]: entry["lengths"] for entry in report.summaries}
    assert told["made"] is None
    assert told["several"]["wrong"]["shift"] == pytest.approx(2.0)
    assert "How long the answers become" in report.page.read_text(encoding="utf-8")


def test_a_report_of_one_token_answers_has_none(tmp_path):
    report = validate(Measured("run", (arm(None),)), tmp_path)
    assert not [path for path in report.paths if "lengths" in path.name]

"""Many questions: each row is what the package says of that question alone, and intervals hold all they should."""

from __future__ import annotations

import json
import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

import grpo_dynamics as gd
from grpo_dynamics.cli import main
from grpo_dynamics.intervals import wilson
from grpo_dynamics.prediction import long_run
from grpo_dynamics.question_files import Questions, read_questions
from grpo_dynamics.questions import COLUMNS, OUTCOMES, predict_questions, summary

DYNAMICS = {
    "grpo": gd.grpo(1.0, 0.5),
    "cycles and chaos": gd.grpo(5.0, 0.5),
    "group": gd.Recursion(0.04, 0.5, gd.FiniteGroup(8)),
    "two KL": gd.two_kl(5.0, 0.5, 0.3),
    "mirror": gd.mirror_dr_grpo(1.0, 0.5),
    "no smoothing": gd.grpo(0.5, 0.5, 0.0),
}


def measured(successes, samples) -> Questions:
    k, n = np.array(successes), np.array(samples)
    return Questions(pl.Series("id", range(k.size)), k / n, k, n)


def at(dynamics: gd.Recursion, p_ref) -> gd.Recursion:
    return gd.Recursion(dynamics.beta, p_ref, dynamics.normalization, dynamics.alpha)


@pytest.mark.parametrize("name", DYNAMICS)
def test_each_row_is_the_prediction_of_that_question(name):
    p_ref = np.array([1e-6, 1e-4, 1e-3, 0.01, 0.2, 0.5, 0.8, 0.99, 0.2])
    table = predict_questions(Questions(pl.Series("id", range(9)), p_ref), DYNAMICS[name], steps=7)
    assert table["id"].to_list() == list(range(9))
    for row in table.iter_rows(named=True):
        rec = at(DYNAMICS[name], row["p_ref"])
        where = gd.limit(rec)
        outcome = {"CYCLE": "unstable", "IRREGULAR": "unstable", "UNDECIDED": "undecided"}
        assert row["outcome"] == outcome.get(gd.LimitKind(where.kind).name, "amplified")
        assert row["orbit_low"] == pytest.approx(float(gd.sigmoid(where.low)), rel=1e-9)
        assert row["orbit_high"] == pytest.approx(float(gd.sigmoid(where.high)), rel=1e-9)
        assert row["period"] == where.period
        assert row["p_after_steps"] == pytest.approx(float(rec.iterate(7).p[-1]), rel=1e-12)
        assert row["stable_states"] == np.sum(gd.fixed_points(rec).stable)
        assert row["orbit_low"] <= row["p_limit"] <= row["orbit_high"]
        assert row["p_ref_low"] is None
        assert row["p_limit_high"] is None


def test_the_mean_over_a_cycle():
    rec = gd.grpo(5.0, np.array([1e-3, 0.2]))
    mean, low, high = long_run(rec, gd.limit(rec))
    assert (low[0], high[0]) == pytest.approx((0.0023380418, 0.058715761), rel=1e-7)
    assert mean[0] == pytest.approx((0.0023380418 + 0.0587157618) / 2, rel=1e-8)
    assert mean[1] == pytest.approx(gd.fixed_points(rec).p[0, 1])


@given(st.integers(1, 10_000), st.floats(0, 1), st.floats(0.01, 0.999))
def test_wilson_solves_its_quadratic(n, share, confidence):
    """Ends of the interval: |p̂ − p| = z·√(p(1−p)/n), what the score test just does not reject."""
    from scipy.stats import norm

    rate = round(share * n) / n
    z = norm.ppf(0.5 + confidence / 2)
    for end in wilson(rate, n, confidence):
        if 0 < end < 1:
            assert abs(rate - end) == pytest.approx(z * math.sqrt(end * (1 - end) / n), rel=1e-6, abs=1e-12)
    low, high = wilson(rate, n, confidence)
    assert 0 <= low <= rate <= high <= 1


@pytest.mark.parametrize("confidence", [1e-300, 1e-9, 1 - 1e-9, 0.9999999999999999])
def test_wilson_at_the_ends_of_the_confidence(confidence):
    """z from the lower tail: 0.5 + confidence/2 would round to 1, where the normal quantile is infinite."""
    low, high = wilson(0.25, 8, confidence)
    assert 0 < low <= 0.25 <= high < 1


def test_wilson_at_none_and_all():
    z2 = 1.959963984540054**2
    assert wilson(0.0, 8) == pytest.approx((0.0, z2 / (8 + z2)))
    assert wilson(1.0, 8) == pytest.approx((8 / (8 + z2), 1.0))


@pytest.mark.parametrize("name", DYNAMICS)
def test_intervals_hold_the_limit_of_every_p_ref_inside(name):
    table = predict_questions(measured([0, 1, 3, 8, 1, 40], [8, 8, 8, 8, 1000, 50]), DYNAMICS[name])
    rng = np.random.default_rng(0)
    for row in table.iter_rows(named=True):
        inside = rng.uniform(row["p_ref_low"], row["p_ref_high"], 300)
        where = gd.limit(at(DYNAMICS[name], inside[(inside > 0) & (inside < 1)]))
        regular = np.isin(where.kind, (gd.LimitKind.FIXED_POINT, gd.LimitKind.ONE))
        width = row["p_limit_high"] - row["p_limit_low"]
        assert np.all(gd.sigmoid(where.log_odds[regular]) >= row["p_limit_low"] - 1e-3 * width)
        assert np.all(gd.sigmoid(where.log_odds[regular]) <= row["p_limit_high"] + 1e-3 * width)
        assert row["p_limit_low"] <= row["p_limit"] <= row["p_limit_high"]


def test_the_ends_of_the_interval_alone_would_not_do():
    """1 of 20 at β = 1: p_ref = 0.009 overshoots to 1 and 0.236 goes to 0.77, but those between go down to 0.17."""
    row = predict_questions(measured([1], [20]), gd.grpo(1.0, 0.5)).row(0, named=True)
    ends = gd.limit(gd.grpo(1.0, np.array([row["p_ref_low"], row["p_ref_high"]]))).p
    assert min(ends) > 0.76
    assert row["p_limit_low"] < 0.171
    assert gd.limit(gd.grpo(1.0, 0.0141)).p < 0.171


@pytest.mark.parametrize(("k", "n", "beta"), [(1, 10_000, 5.0), (3, 10_000, 5.0), (1, 8, 1.0), (5, 8, 0.9)])
def test_a_finer_scan_stays_inside_the_interval(k, n, beta):
    """Chaos, cycles and folds inside the interval of p_ref: 20,001 orbits end where the interval says, up to 1 %."""
    row = predict_questions(measured([k], [n]), gd.grpo(beta, 0.5)).row(0, named=True)
    scan = gd.sigmoid(np.linspace(gd.logit(row["p_ref_low"]), gd.logit(row["p_ref_high"]), 20_001))
    where = gd.limit(gd.grpo(beta, np.clip(scan, row["p_ref_low"], row["p_ref_high"])))
    assert row["p_limit_low"] <= gd.sigmoid(where.low).min() * 1.01
    assert 1 - row["p_limit_high"] <= gd.sigmoid(-where.high).min() * 1.01 + 1e-12


def test_the_columns_are_those_announced():
    assert tuple(predict_questions(measured([1], [2]), gd.grpo(1.0, 0.5)).columns) == ("id", *COLUMNS)


def test_nothing_right_and_everything_right():
    table = predict_questions(measured([0, 8], [8, 8]), gd.dr_grpo(1.0, 0.5))
    stuck, solved = table.iter_rows(named=True)
    assert (stuck["outcome"], stuck["p_limit"], stuck["p_limit_low"]) == ("stuck", 0.0, 0.0)
    assert stuck["p_limit_high"] == pytest.approx(float(gd.sigmoid(gd.logit(stuck["p_ref_high"]) + 1)))
    assert (solved["outcome"], solved["p_limit"], solved["p_limit_high"]) == ("solved", 1.0, 1.0)
    assert solved["p_limit_low"] == pytest.approx(float(gd.sigmoid(gd.logit(solved["p_ref_low"]) + 1)))


def test_more_samples_make_narrower_intervals():
    n = np.array([8, 80, 800, 8000])
    table = predict_questions(measured(n // 4, n), gd.Recursion(0.5, 0.5, gd.FiniteGroup(8)))
    width = (table["p_limit_high"] - table["p_limit_low"]).to_numpy()
    assert np.all(np.diff(width) < 0)


def test_summary_counts():
    table = predict_questions(measured([0, 8, 1, 4, 7, 1], [8, 8, 8, 8, 8, 1000]), gd.grpo(5.0, 0.5))
    found = summary(table)
    assert found["outcomes"] == dict(zip(OUTCOMES, (3, 1, 1, 1, 0), strict=True))
    assert found["mean_p_before"] == pytest.approx(np.mean([0, 1, 1 / 8, 1 / 2, 7 / 8, 1 / 1000]))
    assert found["mean_p_limit"] == pytest.approx(table["p_limit"].to_numpy().mean())
    assert found["stuck_p_ref_high"] == pytest.approx(float(wilson(0.0, 8)[1]))


ROWS = {"question_id": ["a", "b", "c"], "successes": [0, 3, 8], "samples": [8, 8, 8]}


def write(table: pl.DataFrame, path) -> None:
    {".csv": table.write_csv, ".jsonl": table.write_ndjson, ".parquet": table.write_parquet}[path.suffix](path)


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("out", [None, "p.csv", "p.jsonl", "new/p.parquet"])
def test_every_type_of_file_gives_the_same_table(kind, out, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    source = tmp_path / f"questions.{kind}"
    write(pl.DataFrame(ROWS), source)
    arguments = ["predict", "--beta", "0.5", "--group-size", "8", "--from", source.name]
    assert main([*arguments, *(["--out", out] if out else [])]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "3 questions: mean success goes from 0.4583" in text
    assert "amplified 1" in text
    assert "stuck 1 no success was seen: p = 0 stays 0 (p_ref up to 0.324 is possible, p* then up to" in text
    path = tmp_path / (out or "questions.predictions.parquet")
    assert f"Predictions per question: {path.relative_to(tmp_path)}" in text
    readers = {".csv": pl.read_csv, ".jsonl": pl.read_ndjson, ".parquet": pl.read_parquet}
    expected = predict_questions(read_questions(source), gd.Recursion(0.5, 0.5, gd.FiniteGroup(8)))
    found = readers[path.suffix](path)
    assert found.columns == expected.columns
    assert found["question_id"].to_list() == ["a", "b", "c"]
    for name in ("p_ref", "p_limit", "p_limit_low", "p_limit_high", "multiplier"):
        assert found[name].to_list() == pytest.approx(expected[name].to_list(), nan_ok=True)


def test_json_summary(tmp_path, capsys):
    source = tmp_path / "questions.csv"
    write(pl.DataFrame(ROWS), source)
    assert main(["predict", "--beta", "1", "--from", str(source), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    keys = "command version settings from out confidence questions outcomes several_stable_states mean_p_before"
    more = "mean_p_limit mean_p_after_steps median_interval_width stuck_p_ref_high stuck_p_limit_high"
    assert list(found) == f"{keys} {more}".split()
    assert list(found["outcomes"]) == list(OUTCOMES)
    assert pl.read_parquet(found["out"]).height == found["questions"] == 3


NAMES = [
    {"id": [1, 2], "p": [0.5, 0.25]},
    {" Prompt_ID ": [1, 2], "PASS_RATE": [0.5, 0.25], "note": ["x", "y"]},
    {"question": [1, 2], "k": [4, 2], "n": [8, 8]},
    {"question_id": [1, 2], "num_correct": [4, 2], "num_samples": [8, 8], "rate": [0.9, 0.9]},
    {"id": [1, 2], "rate": [0.5, 0.25], "n_samples": [8, 8]},
]


@pytest.mark.parametrize("rows", NAMES, ids=lambda rows: ",".join(rows))
@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_usual_names_of_columns(rows, kind, tmp_path):
    path = tmp_path / f"table.{kind}"
    write(pl.DataFrame(rows), path)
    found = read_questions(path)
    assert found.ids.to_list() == [1, 2]
    assert found.ids.name == next(iter(rows))
    assert found.p_ref.tolist() == [0.5, 0.25]
    assert (found.samples is None) == (not {"n", "num_samples", "n_samples"} & set(rows))


def test_named_columns(tmp_path):
    path = tmp_path / "table.csv"
    write(pl.DataFrame({"id": [1, 1], "Q": [7, 8], "hits": [1, 2], "n": [4, 4], "p": [0.9, 0.8], "of": [5, 5]}), path)
    counted = read_questions(path, id_column="Q", successes_column="hits", samples_column="of")
    assert (counted.ids.to_list(), counted.p_ref.tolist()) == ([7, 8], [0.2, 0.4])
    assert read_questions(path, id_column="Q", successes_column="hits", rate_column="p").p_ref.tolist() == [0.9, 0.8]


def test_what_spreadsheets_write(tmp_path):
    """A byte-order mark, carriage returns, blank lines, blanks around numbers, and ids that only look like numbers."""
    path = tmp_path / "table.csv"
    path.write_bytes(b"\xef\xbb\xbfid,p\r\n007, 0.5 \r\n\r\n8,1e-3\r\n")
    found = read_questions(path)
    assert found.ids.to_list() == ["007", "8"]
    assert found.p_ref.tolist() == [0.5, 0.001]


def test_jsonl_rows_may_differ_in_their_keys(tmp_path):
    path = tmp_path / "table.jsonl"
    path.write_text('{"note": "x", "id": "a", "p": 0}\n\n{"p": 1, "id": 2, "more": [1]}\n')
    found = read_questions(path)
    assert found.ids.to_list() == ["a", "2"]
    assert found.p_ref.tolist() == [0.0, 1.0]


def test_python_gets_a_value_error(tmp_path):
    (tmp_path / "table.csv").write_text("id,p\na,2\n")
    with pytest.raises(ValueError, match=r"^p must be a success rate between 0 and 1, got '2' in row 1$"):
        read_questions(tmp_path / "table.csv")
    with pytest.raises(ValueError, match=r"^confidence must be .*, got 1.5$"):
        predict_questions(measured([1], [2]), gd.grpo(1.0, 0.5), confidence=1.5)


def test_progress_is_told_from_start_to_end():
    told = []
    predict_questions(measured([1], [2]), gd.grpo(1.0, 0.5), progress=lambda *now: told.append(now[:2]))
    assert told[0] == (0, 3)
    assert told[-1] == (3, 3)

"""The canonical table of measurements: filled in where it follows, refused where it cannot be."""

import numpy as np
import polars as pl
import pytest

from grpo_dynamics.questions import wilson
from grpo_dynamics.validation.measured import SUCCESS, Arm, canonical


def counted(**columns):
    return pl.DataFrame(
        {"iteration": [0, 1], "question_id": ["a", "a"], "successes": [3, 8], "samples": [8, 8]} | columns
    )


def test_counts_become_rates_with_wilsons_interval():
    table = canonical(counted())
    assert table.columns == list(SUCCESS)
    assert table["p"].to_list() == [0.375, 1.0]
    low, high = wilson([0.375, 1.0], 8)
    np.testing.assert_array_equal(table["low"], low)
    np.testing.assert_array_equal(table["high"], high)
    assert table["log_odds"].to_list() == [np.log(3 / 5), np.inf]
    assert set(table["method"]) == {"sampled"}


def test_log_odds_alone_are_enough_and_exact():
    """log-odds of 40 round to p = 1, and are kept."""
    table = canonical(pl.DataFrame({"iteration": [0, 0], "question_id": ["b", "a"], "log_odds": [0.0, 40.0]}))
    assert table["question_id"].to_list() == ["b", "a"]  # as they came, not by the alphabet
    assert table["p"].to_list() == [0.5, 1.0]
    assert table["log_odds"].to_list() == [0.0, 40.0]
    assert table["low"].to_list() == table["high"].to_list() == [0.5, 1.0]


def test_other_columns_follow_the_canonical_ones():
    assert canonical(counted(gap=[None, 0.5])).columns == [*SUCCESS, "gap"]


def test_the_grid_has_nan_where_nothing_was_measured():
    table = pl.DataFrame({"iteration": [0, 0, 4], "question_id": ["a", "b", "b"], "p": [0.1, 0.2, 0.3]})
    grid = Arm("x", {}, canonical(table)).grid()
    assert grid.iterations.tolist() == [0, 4]
    assert grid.questions == ("a", "b")
    np.testing.assert_array_equal(grid.p, [[0.1, 0.2], [np.nan, 0.3]])
    assert not grid.sampled.any()


def test_a_step_goes_on_from_half_a_success_where_there_was_none():
    """0 of 8 is no p = 0, from where Ω/β would be huge: Haldane's ½ in 9."""
    grid = Arm("x", {}, canonical(counted(successes=[0, 8]))).grid()
    assert np.isinf(grid.log_odds).all()
    np.testing.assert_allclose(grid.starts[:, 0], [np.log(0.5 / 8.5), np.log(8.5 / 0.5)])
    exact = canonical(pl.DataFrame({"iteration": [0], "question_id": ["a"], "log_odds": [-1.5]}))
    assert Arm("x", {}, exact).grid().starts[0, 0] == -1.5


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (counted().drop("iteration"), "must have the column 'iteration'"),
        (counted().drop("question_id"), "must have the column 'question_id'"),
        (counted().drop("samples"), "'p', 'log_odds', or 'successes' and 'samples'"),
        (counted().clear(), "must have a measurement"),
        (counted(iteration=[1, 2]), "must begin with iteration 0"),
        (counted(iteration=[-1, 0]), "iterations >= 0, got -1"),
        (counted(iteration=[0, 0]), "'a' several times in iteration 0"),
        (counted(iteration=[0, None]), "in every row"),
        (counted(iteration=["0", "x"]), "numbers where they belong"),
        (counted(p=[0.5, 1.5]), "got low=.*p=1.5.*'a' in iteration 1"),
        (counted(p=[0.5, float("nan")], successes=[None, None]), "1 such rows"),
        (counted(p=[0.5, 0.5], low=[0.6, 0.4], high=[0.7, 0.6]), "got low=0.6, p=0.5"),
    ],
)
def test_what_cannot_be_is_refused(table, message):
    with pytest.raises(ValueError, match=message):
        canonical(table)

"""k of n, where p_ref comes from, steps that are counted together, and groups that a trainer leaves out."""

import numpy as np
import polars as pl
import pytest

from grpo_dynamics.validation.readers import Choices, read_dump
from grpo_dynamics.validation.readers.counting import is_filtered, unfiltered, visits
from tests.validation.readers.made_dumps import PROMPTS, rows_of, write_open_instruct, write_verl

VERL = {"adv_estimator": "grpo", "use_kl_loss": True, "kl_loss_coef": 0.5, "rollout.n": 8}
P = np.tile(np.linspace(0.2, 0.8, 6), (9, 1))


@pytest.fixture
def rare(tmp_path):
    """6 questions, 2 in each of 9 steps: each is seen every third step."""
    return write_verl(tmp_path / "dump", rows_of(P, 8, seen=2))


def test_first_visits_stand_for_p_ref_and_say_so(rare):
    (arm,) = read_dump("verl", rare, options=VERL, choices=Choices(window=1)).measured.arms
    start = arm.success.filter(iteration=0)
    assert start["p_ref_from"].value_counts(sort=True)["count"].to_list() == [2, 2, 2]
    before = start.filter(pl.col("p_ref_from") == "before training")
    later = start.filter(pl.col("p_ref_from").str.starts_with("first visit"))
    assert (before["low"] > 0).all()
    assert (later["low"] == 0).all()  # an upper bound only: the policy had been trained by then
    assert (later["high"] < 1).all()
    (note,) = [note for note in arm.notes if note.startswith("p_ref of 4 of 6 questions is not known")]
    assert "up to 2 updates" in note
    # what stands for p_ref is not compared with itself
    assert arm.success.filter(pl.col("iteration") > 0).height == 2 * 2 + 4 * 2


def test_counts_from_before_training_can_be_given(rare, tmp_path):
    (tmp_path / "p.csv").write_text(
        "question,successes,samples\n" + "".join(f'"{PROMPTS[i].strip()}",{10 * i},64\n' for i in range(5))
    )
    (arm,) = read_dump("verl", rare, Choices(p_ref=tmp_path / "p.csv", window=1), options=VERL).measured.arms
    start = arm.success.filter(iteration=0)
    assert sorted(start.filter(samples=64)["successes"].to_list()) == [0, 10, 20, 30, 40]
    assert start.filter(pl.col("samples") != 64).height == 1  # the sixth is not in the file
    assert any("has no p_ref for 1 of 6 questions" in note for note in arm.notes)
    assert arm.success.filter(pl.col("iteration") > 0).height == 5 * 3 + 2 - 2  # what was seen at 0 is in the file


def test_steps_are_counted_together_until_questions_are_seen_about_once(rare):
    """3 of 9 steps have a question: in windows of 3 steps each is seen once."""
    every = read_dump("verl", rare, Choices(window=1), options=VERL).measured.arms[0].success
    own = read_dump("verl", rare, options=VERL).measured.arms[0]
    three = read_dump("verl", rare, Choices(window=3), options=VERL).measured.arms[0].success
    later = pl.col("iteration") > 0
    assert own.success.filter(later)["iteration"].n_unique() < every.filter(later)["iteration"].n_unique()
    assert three.filter(later)["samples"].sum() == every.filter(later)["samples"].sum()
    assert three.filter(later)["successes"].sum() == every.filter(later)["successes"].sum()
    assert any("counted together" in note for note in own.notes)
    assert three["iteration"].max() == every["iteration"].max()


def test_questions_seen_in_every_step_are_not_pooled(tmp_path):
    folder = write_verl(tmp_path / "dump", rows_of(P, 8))
    (arm,) = read_dump("verl", folder, options=VERL).measured.arms
    assert arm.success["iteration"].unique().sort().to_list() == list(range(9))


@pytest.mark.parametrize("size", [2, 4, 8, 64])
def test_share_in_mixed_groups_leads_back_to_p(size):
    """E[k/G | 0 < k < G] summed over the binomial distribution is the share that p is computed back from."""
    from scipy.stats import binom

    p = np.linspace(0.02, 0.98, 25)
    k = np.arange(1, size)[:, None]
    weight = binom.pmf(k, size, p)
    share = (weight * k / size).sum(0) / weight.sum(0)
    if size == 2:  # one right, one wrong, whatever p is
        assert share == pytest.approx(0.5)
        assert set(unfiltered(np.array([0.4, 0.6]), 2).tolist()) == {0.0, 1.0}
        return
    assert unfiltered(share, size) == pytest.approx(p, abs=1e-9)


def test_dropped_groups_are_seen_and_p_is_computed_back(tmp_path):
    """open-instruct leaves silent groups out of its dump: the plain share of right answers would be far too high."""
    rows = rows_of(np.full((600, 1), 0.1), 4)
    groups = [rows[i : i + 4] for i in range(0, len(rows), 4)]
    mixed = [row for group in groups if 0 < sum(right for _, _, right in group) < 4 for row in group]
    folder = write_open_instruct(tmp_path / "dump", mixed)
    options = {"beta": 0.5, "num_samples_per_prompt_rollout": 4}
    (arm,) = read_dump("open-instruct", folder, Choices(window=1000), options=options).measured.arms
    late = arm.success.filter(pl.col("iteration") > 0)
    assert late.height == 1
    plain = late["successes"][0] / late["samples"][0]
    assert plain > 0.25
    assert late["p"][0] == pytest.approx(0.1, abs=0.04)  # some 200 mixed groups
    assert late["low"][0] <= 0.1 <= late["high"][0]
    assert any("left them out" in note for note in arm.notes)
    # with all groups nothing is computed back
    whole = write_open_instruct(tmp_path / "whole", rows)
    (arm,) = read_dump("open-instruct", whole, Choices(window=1000), options=options).measured.arms
    late = arm.success.filter(pl.col("iteration") > 0)
    assert late["p"][0] == late["successes"][0] / late["samples"][0]


def test_large_groups_without_silent_ones_are_no_sign_of_dropping():
    """Of 64 at p = 1/2 none is ever silent: 2^-63."""
    seen = pl.DataFrame({"successes": [32] * 100, "samples": [64] * 100})
    assert not is_filtered(seen)
    assert is_filtered(pl.DataFrame({"successes": [1] * 100, "samples": [4] * 100}))


def test_a_step_before_the_first_is_refused():
    samples = pl.DataFrame({"step": [1], "question": [0], "success": [True], "completion_length": [1]})
    with pytest.raises(ValueError, match="first_step must be at most 1, the smallest step of the dump, got 2"):
        visits(samples, 2)

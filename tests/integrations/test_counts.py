"""What the callback counts and foresees, without a trainer."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import numpy as np
import pytest

import grpo_dynamics as gd
from grpo_dynamics.integrations.counts import Counts, question_of, reference_counts
from grpo_dynamics.integrations.foresight import REGIMES, Foresight, known_version, trainer_of
from grpo_dynamics.integrations.observer import MOST_WARNINGS, Observer
from grpo_dynamics.validation.readers.samples import prompt_id
from tests.integrations.brute import mean_over_beta


def batch(**rates):
    """Groups of four: so many right ones for each question."""
    return [(name, i < right) for name, right in rates.items() for i in range(4)]


def test_the_first_visit_is_the_reference_and_memory_is_bounded():
    counts = Counts(2, {"b": (5, 100)})
    assert counts.visit("a", 1, 4) == (1, 4)
    assert counts.visit("b", 4, 4) == (5, 100)
    assert counts.visit("a", 3, 4) == (1, 4)
    assert counts.visit("c", 2, 4) is None  # no room
    assert len(counts) == 2
    assert list(counts.rows()) == [("a", 1, 4, 3, 4, 2), ("b", 5, 100, 4, 4, 1)]


def test_counts_are_saved_and_loaded(tmp_path):
    counts = Counts(10)
    for i in range(3):
        counts.visit(f"q{i}", i, 4)
    counts.save(tmp_path / "counts.json")
    again = Counts(10)
    again.load(tmp_path / "counts.json")
    assert list(again.rows()) == list(counts.rows())
    for text in ("", "{}", '{"format": 1, "questions": {"a": [1]}}', '{"format": 9, "questions": {}}', "[1"):
        (tmp_path / "other.json").write_text(text)
        with pytest.raises(ValueError, match=r"counts must be a file that this callback saved"):
            again.load(tmp_path / "other.json")
    assert len(again) == 3  # what was there is kept


def test_reference_counts_of_a_table_and_of_a_mapping(tmp_path):
    (tmp_path / "q.csv").write_text("question_id,successes,samples\n7,1,8\n9,0,8\n")
    assert reference_counts(tmp_path / "q.csv") == {"7": (1, 8), "9": (0, 8)}
    assert reference_counts({7: (1, 8)}) == {"7": (1, 8)}
    (tmp_path / "rates.csv").write_text("question_id,p_ref\n7,0.5\n")
    with pytest.raises(ValueError, match="p_ref must be a table with successes and samples"):
        reference_counts(tmp_path / "rates.csv")
    for wrong in ((3, 2), 0.5, (0, 0), (True, 2), (1, 2, 3)):
        with pytest.raises(ValueError, match=r"p_ref must be \(successes, samples\)"):
            reference_counts({"a": wrong})


def test_ids_are_those_of_the_readers():
    """So that p_ref counted here joins with a dump that `validate --from` reads."""
    assert question_of("What is 1+1?\n") == prompt_id("What is 1+1?")
    with pytest.raises(ValueError, match="prompts must be texts"):
        question_of([{"role": "user", "content": object()}])


def test_an_outlook_is_a_mean_over_the_posterior():
    found = gd.trainer("trl", "1.16", beta=0.4, num_generations=16)
    foresight = Foresight(found)
    for successes, samples in ((0, 8), (2, 8), (8, 8), (3, 4000)):
        outlook = foresight.outlook(successes, samples)
        wanted = mean_over_beta(lambda p: gd.limit(found.at(np.clip(p, 1e-13, 1 - 1e-13))).p, successes, samples)
        assert outlook.p_star == pytest.approx(wanted, abs=2e-3)
        assert outlook.p_ref == pytest.approx((successes + 0.5) / (samples + 1), abs=1e-4)
        assert sum(outlook.chances[name] for name in REGIMES if name != "oscillating") == pytest.approx(1)
        labels = {"bistable": gd.Regime.BISTABLE, "one_stable": gd.Regime.ONE_STABLE}
        for name, label in labels.items():
            share = mean_over_beta(
                lambda p, label=label: gd.regime(found.at(np.clip(p, 1e-13, 1 - 1e-13))).label == int(label),
                successes,
                samples,
                points=4001,
            )
            assert outlook.chances[name] == pytest.approx(share, abs=0.02)


def test_arguments_become_the_trainer_of_the_installed_version():
    arguments = SimpleNamespace(beta=0.04, num_generations=4, scale_rewards="group", epsilon_high=None, other="x")
    assert (
        trainer_of("trl", "1.16.0", arguments).normalization
        == gd.trainer("trl", "1.16", beta=0.04, num_generations=4).normalization
    )
    assert trainer_of("trl", "1.9.2", arguments).kl == "k3"
    assert trainer_of("trl", "99.0", arguments).kl == "k3_times_ratio"
    assert trainer_of("trl", "1.16.0", SimpleNamespace(beta=0.0, num_generations=4)).kl == "none"
    assert Foresight(trainer_of("trl", "1.16.0", SimpleNamespace(beta=0.0))).outlook(1, 8).p_star == pytest.approx(1)
    with pytest.raises(ValueError, match=r"version of trl must be at least 0\.14\.0, got '0\.1\.0'"):
        known_version("trl", "0.1.0")


def test_an_observer_without_theory_measures(caplog):
    observer = Observer(Counts(10), shown=1)
    found = observer.measured(batch(a=4, b=1), 4)
    assert found == {"p": 0.625, "silent_groups": 0.5, "questions": 2.0, "question/a/p": 1.0}
    assert caplog.records == []


def test_completions_without_a_verdict_do_not_count():
    """Of four, one has no reward: the other three are all right, so the group is silent."""
    rows = [("a", True), ("a", None), ("a", True), ("a", True), ("b", None), ("b", None), ("b", None), ("b", None)]
    observer = Observer(Counts(10), shown=0)
    assert observer.measured(rows, 4) == {"p": 1.0, "silent_groups": 1.0, "questions": 1.0}
    assert list(observer.counts.rows()) == [("a", 3, 3, 3, 3, 1)]


def test_warnings_are_few_and_regimes_are_shares_of_all_questions(caplog):
    """p_ref = 6.3e-5 at β = 0.18, G = 8: two stable states of the flow itself; p_ref = 1/2: one."""
    found = gd.trainer("trl", "1.16", beta=0.18, num_generations=8)
    assert gd.regime(found.at(6.31e-5)).label == gd.Regime.BISTABLE
    rare = {f"q{i}": (6310, 100_000_000) for i in range(6)}
    observer = Observer(Counts(100, {**rare, "easy": (500_000, 1_000_000)}), shown=0)
    observer.foresee(Foresight(found))
    with caplog.at_level(logging.WARNING, "grpo_dynamics"):
        for _ in range(2):
            numbers = observer.measured(batch(**dict.fromkeys((*rare, "easy"), 1)), 4)
    lines = [record.getMessage() for record in caplog.records if " bistable " in record.getMessage()]
    assert len(lines) == MOST_WARNINGS
    assert "two stable states" in lines[0]
    assert "more of them only count in regime/bistable" in lines[-1]
    assert numbers["regime/bistable"] == pytest.approx(6 / 7, abs=0.01)
    assert numbers["regime/one_stable"] == pytest.approx(1 / 7, abs=0.01)

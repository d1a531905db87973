"""What a right answer earns more than a wrong one: the rewards of a dump show it where they have two values."""

import itertools
import json

import numpy as np
import polars as pl
import pytest

import grpo_dynamics as gd
from grpo_dynamics.validation.readers import Choices, read_dump
from grpo_dynamics.validation.theory_of_run import training_of
from tests.validation.readers.made_dumps import rows_of, write_open_instruct, write_verl

ROWS = rows_of(np.tile(np.linspace(0.2, 0.8, 6), (3, 1)), 8)
CENTRED = {
    "adv_estimator": "grpo",
    "norm_adv_by_std_in_grpo": False,
    "use_kl_loss": True,
    "kl_loss_coef": 0.5,
    "rollout.n": 8,
}
TAKEN = "Wrong answers earn -1, right ones 1: reward_scale is taken as 2."


def sign(right):
    return 2.0 * right - 1


def shaped():
    """Return a score that takes 0.5 from every second answer, right or wrong."""
    turns = itertools.count()
    return lambda right: right - 0.5 * (next(turns) % 2)


def verl(folder, options=CENTRED, choices=None, **rewards):
    (arm,) = read_dump("verl", write_verl(folder, ROWS, **rewards), choices, options=options).measured.arms
    return arm, [note for note in arm.notes if note.startswith("Wrong answers earn")]


@pytest.mark.parametrize(
    "rewards",
    [{"score": sign}, {"score": sign, "acc": bool}, {"score": sign, "acc": float}],
    ids=["score", "acc true", "acc 1.0"],
)
def test_minus_one_and_one_halve_beta(rewards, tmp_path):
    """The prediction is that of the trainer which is told reward_scale=2."""
    arm, notes = verl(tmp_path, **rewards)
    told = gd.trainer("verl", reward_scale=2.0, **CENTRED)
    assert arm.theory.beta == float(told.beta) == 0.25
    assert arm.theory.at(0.2).rate(0.7) == pytest.approx(told.at(0.2).rate(0.7), rel=1e-12)
    assert notes == [TAKEN]


def test_without_two_values_below_the_threshold(tmp_path):
    arm, notes = verl(tmp_path, choices=Choices(threshold=0.5), score=lambda right: 0.25 + 0.5 * right)
    assert arm.theory.beta == 1.0
    assert notes == ["Wrong answers earn 0.25, right ones 0.75: reward_scale is taken as 0.5."]


def test_nought_and_one_say_nothing(tmp_path):
    arm, notes = verl(tmp_path)
    assert (arm.theory.beta, notes) == (0.5, [])


def test_dividing_by_the_standard_deviation_leaves_beta(tmp_path):
    """Only ε is smaller beside larger rewards."""
    arm, notes = verl(tmp_path, {**CENTRED, "norm_adv_by_std_in_grpo": True}, score=sign)
    assert arm.theory.beta == 0.5
    assert arm.theory.normalization.eps == 0.5e-6
    assert training_of(arm.config).size == 8
    assert notes == [TAKEN]


@pytest.mark.parametrize(
    ("given", "beta", "said"),
    [
        (2.0, 0.25, []),
        (1.0, 0.5, ["Wrong answers earn -1, right ones 1: that is a reward_scale of 2, but 1 is given, and counts."]),
    ],
)
def test_what_the_user_says_counts(given, beta, said, tmp_path):
    arm, notes = verl(tmp_path, {**CENTRED, "reward_scale": given}, score=sign)
    assert (arm.theory.beta, notes) == (beta, said)


@pytest.mark.parametrize(
    ("rewards", "said"),
    [
        ({"score": lambda right: 1.0 - 2 * right, "acc": bool}, "earn 1, right ones -1: no reward for what counts"),
        (
            {"score": shaped(), "acc": bool},
            "earn -0.5 to 0, right ones 0.5 to 1: not two values",
        ),
    ],
    ids=["the wrong way round", "shaped"],
)
def test_what_cannot_be_is_said(rewards, said, tmp_path):
    arm, notes = verl(tmp_path, **rewards)
    assert arm.theory.beta == 0.5
    assert len(notes) == 1
    assert said in notes[0]
    assert "What a right answer earns more is taken as 1 (--set reward_scale=...)" in notes[0]


def test_the_scale_of_many_values_does_not_matter_beside_a_standard_deviation(tmp_path):
    assert verl(tmp_path, {**CENTRED, "norm_adv_by_std_in_grpo": True}, score=shaped(), acc=bool)[1] == []


@pytest.mark.parametrize(("reward", "beta"), [(10.0, 0.05), (20.0, 0.025)])
def test_open_instructs_own_reward_is_in_its_settings(reward, beta, tmp_path):
    """verification_reward, 10 by default, is what a right answer earns: only what differs from it is the scale."""
    options = {"beta": 0.5, "num_samples_per_prompt_rollout": 8, "filter_zero_std_samples": False}
    folder = write_open_instruct(tmp_path, ROWS, reward=reward)
    (arm,) = read_dump("open-instruct", folder, options=options).measured.arms
    assert arm.theory.beta == pytest.approx(beta)
    assert any(note.startswith("Wrong answers earn") for note in arm.notes) == (reward != 10)


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_a_table_with_success_and_reward(ending, tmp_path):
    table = pl.DataFrame(
        {
            "iteration": [step for step, _, _ in ROWS],
            "question_id": [f"q{question}" for _, question, _ in ROWS],
            "success": [right for _, _, right in ROWS],
            "reward": [sign(right) for _, _, right in ROWS],
        }
    )
    file = tmp_path / f"t.{ending}"
    {"csv": table.write_csv, "jsonl": table.write_ndjson, "parquet": table.write_parquet}[ending](file)
    options = {"beta": 0.1, "scale_rewards": "none"}
    (arm,) = read_dump("generic", file, trainer="trl", options=options).measured.arms
    assert arm.theory.beta == 0.05
    assert TAKEN in arm.notes


def test_trls_reward_weights_leave_it_open(tmp_path):
    for step in (1, 2):
        texts = [f"{step} {i}" for i in range(4)]
        columns = {"step": [step] * 4, "prompt": ["q"] * 4, "completion": texts, "right": [0.0, 1.0, 1.0, 0.0]}
        pl.DataFrame(columns).write_parquet(tmp_path / f"completions_{step:05d}.parquet")
    settings = {"beta": 0.1, "scale_rewards": "none", "num_generations": 4}
    for weights, said in ((None, False), ([1.0], False), ([2.0], True)):
        (tmp_path / "training_args.json").write_text(json.dumps({**settings, "reward_weights": weights}))
        (arm,) = read_dump("trl", tmp_path).measured.arms
        assert any("before reward_weights = [2.0]. What a right answer earns more" in n for n in arm.notes) == said

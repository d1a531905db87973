"""TRL's own dumps, written by a real GRPOTrainer in these tests."""

import json

import numpy as np
import polars as pl
import pytest

import grpo_dynamics as gd
from grpo_dynamics.validation.readers import Choices, read_dump
from grpo_dynamics.validation.readers.samples import conversation, prompt_id

trl = pytest.importorskip("trl", reason="TRL is not installed: pip install 'grpo-dynamics[trl]'")

from tests.validation.readers.trl_runs import train  # noqa: E402


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Texts, question ids through log_extra, one step on each batch."""
    return train(tmp_path_factory.mktemp("text"))


@pytest.fixture(scope="module")
def talk(tmp_path_factory):
    """Conversations without ids, two steps on each batch: num_iterations = 2."""
    return train(tmp_path_factory.mktemp("talk"), conversational=True, names=False, num_iterations=2, steps=5)


def dumped(folder):
    """What lies in the files, read without the reader."""
    files = sorted((folder / "completions").glob("*.parquet"))
    return pl.concat([pl.read_parquet(file).with_columns(pl.lit(file.name).alias("file")) for file in files])


def test_each_completion_once_with_its_step_and_question(run):
    folder, task = run
    converted = read_dump("trl", folder)
    raw, table = dumped(folder), converted.completions
    assert table["success"].sum() == raw["right"].sum()
    assert table.height == raw.height == 4 * 6 * 4
    assert table["question_id"].cast(pl.String).to_list() == raw["question_id"].to_list()
    assert table["iteration"].to_list() == (raw["step"] - 1).to_list()  # a log at step 1 shows the policy of 0 updates
    assert table["completion_length"].to_list() == raw["completion"].str.len_chars().to_list()
    assert table.filter(iteration=2)["sample_index"].to_list() == list(range(4)) * 6
    (arm,) = converted.measured.arms
    assert set(arm.questions["question_id"]) == {question.id for question in task.questions}
    assert set(arm.questions["prompt"]) == {question.prompt for question in task.questions}


def test_success_is_k_of_n_with_its_interval(run):
    (arm,) = read_dump("trl", run[0]).measured.arms
    expected = dumped(run[0]).group_by("step", "question_id").agg(pl.col("right").sum(), pl.len())
    for row in expected.iter_rows(named=True):
        (found,) = arm.success.filter(iteration=row["step"] - 1, question_id=row["question_id"]).iter_rows(named=True)
        assert (found["successes"], found["samples"]) == (row["right"], row["len"])
        assert found["low"] <= found["p"] <= found["high"]
        assert found["method"] == "sampled"


def test_theory_is_that_of_the_settings_beside_it(run):
    (arm,) = read_dump("trl", run[0]).measured.arms
    own = gd.trainer("trl", "1.16", beta=0.5, num_generations=4)
    assert arm.theory.at(np.array([0.2])).rate(0.3) == pytest.approx(own.at(0.2).rate(0.3), rel=1e-12)
    assert any("training_args.json" in note for note in arm.notes)
    assert arm.config["training"]["beta"] == 0.5
    # over the config lies what the user says
    (arm,) = read_dump("trl", run[0], options={"beta": 1.0, "use_bias_correction_kl": False}).measured.arms
    assert (arm.theory.beta, arm.theory.kl) == (1.0, "k3")


def test_conversations_are_questions_by_their_messages(talk):
    folder, task = talk
    (arm,) = read_dump("trl", folder).measured.arms
    prompts = [[{"role": "user", "content": question.prompt}] for question in task.questions]
    assert set(arm.questions["question_id"]) == {prompt_id(conversation(prompt)) for prompt in prompts}


def test_repeated_batches_count_once(talk):
    """Two steps on a batch: TRL writes it at both, so 5 steps are 3 batches, of the policies of 0, 2 and 4 updates."""
    folder, _ = talk
    assert dumped(folder).height == 5 * 24
    converted = read_dump("trl", folder)
    assert converted.completions.height == 3 * 24
    assert converted.completions["iteration"].unique().sort().to_list() == [0, 2, 4]
    assert any("repeats the batch" in note and "2 such" in note for note in converted.measured.arms[0].notes)


def test_repeated_batches_count_once_without_settings(talk, tmp_path):
    """Nobody says how many steps share a batch: files equal in every row are one batch."""
    completions = tmp_path / "completions"
    completions.mkdir()
    for file in (talk[0] / "completions").glob("*"):
        (completions / file.name).write_bytes(file.read_bytes())
    converted = read_dump("trl", tmp_path, options={"beta": 0.5, "num_generations": 4})
    assert converted.completions.height == 3 * 24


def test_equal_batches_are_not_repeats_where_each_step_samples(run, tmp_path):
    """num_iterations = 1: what looks the same was sampled twice, as when every answer is right; both count."""
    completions = tmp_path / "completions"
    completions.mkdir()
    (tmp_path / "training_args.json").write_text((run[0] / "training_args.json").read_text())
    first = pl.read_parquet(run[0] / "completions" / "completions_00001.parquet")
    for step in (1, 2):
        first.with_columns(pl.lit(step).alias("step")).write_parquet(completions / f"completions_{step:05d}.parquet")
    assert read_dump("trl", tmp_path).completions.height == 2 * first.height
    # with two steps on a batch they are one, and a third is the next batch
    third = first.with_columns(pl.lit(3).alias("step"))
    third.write_parquet(completions / "completions_00003.parquet")
    twice = read_dump("trl", tmp_path, options={"num_iterations": 2})
    assert twice.completions["iteration"].unique().sort().to_list() == [0, 2]
    assert twice.completions.height == 2 * first.height


def test_two_rewards_leave_a_choice(tmp_path):
    folder, _ = train(tmp_path, two_rewards=True, steps=1)
    with pytest.raises(ValueError, match=r"success_column must be given .*, got 2 in .*: right, short$"):
        read_dump("trl", folder)
    assert read_dump("trl", folder, Choices(success_column="right")).completions.height == 24


def test_steps_with_an_evaluation_are_left_out(run, tmp_path):
    """TRL writes an evaluation over the file of the same step; trainer_state.json says at which steps that was."""
    (tmp_path / "completions").symlink_to(run[0] / "completions")
    history = [{"step": 2, "loss": 0.1}, {"step": 2, "eval_loss": 0.1}]
    (tmp_path / "checkpoint-4").mkdir()
    (tmp_path / "checkpoint-4" / "trainer_state.json").write_text(json.dumps({"log_history": history}))
    converted = read_dump("trl", tmp_path, options={"beta": 0.5})
    assert converted.completions["step"].unique().sort().to_list() == [1, 3, 4]
    assert any("evaluated" in note for note in converted.measured.arms[0].notes)


def test_evaluations_that_the_settings_plan_are_left_out(tmp_path):
    """Without a checkpoint too: before training, step 0, after steps 2 and 4, and after the last, 5. Step 3 shares
    a batch with step 2, so that its file still holds the completions of the evaluation."""
    plan = {"eval_on_start": True, "eval_strategy": "steps", "eval_steps": 2, "per_device_eval_batch_size": 24}
    shared = {"per_device_train_batch_size": 8, "steps_per_generation": 3}
    folder, _ = train(tmp_path, steps=5, evaluate=True, **plan, **shared)
    assert len(list((folder / "completions").iterdir())) == 6
    converted = read_dump("trl", folder)
    assert converted.completions["step"].to_list() == [1] * 24
    first = pl.read_parquet(folder / "completions" / "completions_00001.parquet")
    assert converted.completions["reward"].to_list() == first["right"].to_list()


def test_every_option_of_trl_is_known():
    """A config with all options of the installed TRL is read; each is used or known to change nothing."""
    import dataclasses

    from trl import GRPOConfig

    from grpo_dynamics.theory.trainers import preset
    from grpo_dynamics.validation.readers.ignored import IGNORED

    own = preset("trl")
    known = {*own.defaults((1, 16, 0)), *own.other, *IGNORED["trl"]}
    assert {field.name for field in dataclasses.fields(GRPOConfig)} <= known


def test_version_is_that_of_the_model_card(run, tmp_path):
    (tmp_path / "completions").symlink_to(run[0] / "completions")
    (tmp_path / "README.md").write_text("# Model\n\n### Framework versions\n\n- TRL: 1.9.2\n- Transformers: 5.0\n")
    (arm,) = read_dump("trl", tmp_path, options={"beta": 0.5}).measured.arms
    assert arm.config["trainer"]["version"] == "1.9.2"
    assert arm.theory.kl == "k3"  # without the correction that 1.10 has switched on

"""verl, open-instruct, nano-aha-moment, tables: files in the form that their writers have, of runs that are known."""

import json

import numpy as np
import polars as pl
import pytest

import grpo_dynamics as gd
from grpo_dynamics.validation.compare import compare
from grpo_dynamics.validation.readers import Choices, read_dump
from tests.validation.readers.made_dumps import (
    PROMPTS,
    course,
    rows_of,
    write_nano_aha,
    write_open_instruct,
    write_verl,
)

VERL = {"adv_estimator": "grpo", "use_kl_loss": True, "kl_loss_coef": 0.5, "rollout.n": 16}
OPEN = {
    "beta": 0.5,
    "advantage_normalization_type": "standard",
    "num_samples_per_prompt_rollout": 16,
    "filter_zero_std_samples": False,
}
NANO = {"kl_coeff": 0.5, "GENERATIONS_PER_SAMPLE": 16}


TRAINERS = [
    pytest.param("verl", gd.trainer("verl", **VERL), write_verl, VERL, id="verl"),
    pytest.param("open-instruct", gd.trainer("open-instruct", **OPEN), write_open_instruct, OPEN, id="open-instruct"),
    pytest.param("nano-aha", gd.trainer("nano-aha-moment", **NANO), write_nano_aha, NANO, id="nano-aha"),
]


@pytest.mark.parametrize(("kind", "trainer", "write", "options"), TRAINERS)
def test_a_run_that_goes_where_the_flow_goes_is_found_there(kind, trainer, write, options, tmp_path):
    """p moves from p_ref to p* of the trainer's flow; p_ref is given exactly, so p* has to be met within the noise."""
    p_ref, end, p = course(trainer)
    folder = write(tmp_path / "dump", rows_of(p, 16))
    prompts = [f"1 17 {i}" for i in range(12)] if kind == "open-instruct" else PROMPTS[:12]
    prompts = [f"<|im_start|>{prompt}" for prompt in prompts] if kind == "nano-aha" else prompts
    pl.DataFrame({"prompt": prompts, "p_ref": p_ref}).write_parquet(tmp_path / "p_ref.parquet")
    converted = read_dump(kind, folder, Choices(p_ref=tmp_path / "p_ref.parquet"), options=options)
    assert converted.completions.height == 60 * 12 * 16
    found = compare(converted.measured.arms[0])
    assert found.end_table["p_ref"].to_numpy() == pytest.approx(p_ref)
    assert found.end_table["p_star"].to_numpy() == pytest.approx(end, abs=1e-9)
    # the last third: 20 steps of 16 samples, so a standard deviation of at most 0.028, and the way is over to 1e-2
    assert found.end_table["residual"].abs().max() < 0.1
    assert found.end_table["residual"].abs().median() < 0.03


@pytest.mark.parametrize(("kind", "trainer", "write", "options"), TRAINERS)
def test_counts_are_those_of_the_rows(kind, trainer, write, options, tmp_path):
    rows = rows_of(np.tile(np.linspace(0.2, 0.8, 5), (4, 1)), 8)
    (arm,) = read_dump(kind, write(tmp_path / "dump", rows), options=options).measured.arms
    assert arm.success["iteration"].unique().sort().to_list() == [0, 1, 2, 3]  # whatever the first step is called
    expected = np.zeros((4, 5))
    for step, question, right in rows:
        expected[step, question] += right
    assert arm.success["successes"].to_numpy().reshape(4, 5).tolist() == expected.tolist()
    assert arm.success["samples"].unique().to_list() == [8]


def test_verl_validations_ask_the_policy_after_the_step(tmp_path):
    rows = rows_of(np.full((3, 4), 0.5), 8)
    folder = write_verl(tmp_path / "validation", rows, first_step=0, reward=float)
    config = {"actor_rollout_ref": {"rollout": {"val_kwargs": {"do_sample": False}}}}
    (tmp_path / "trainer_config.json").write_text(json.dumps(config))
    converted = read_dump("verl", folder, options=VERL)
    assert converted.completions["iteration"].unique().sort().to_list() == [0, 1, 2]
    notes = " ".join(converted.measured.arms[0].notes)
    assert "validations" in notes
    assert "p is that of the greedy answer" in notes


def test_verl_takes_acc_before_a_shaped_score(tmp_path):
    """Reward managers shape the score, by length for one; acc says whether the answer is right."""
    rows = rows_of(np.full((2, 4), 0.5), 8)
    folder = write_verl(tmp_path / "dump", rows, score=lambda right: 0.7 * right - 0.1, acc=bool)
    converted = read_dump("verl", folder, options=VERL)
    assert converted.completions["success"].to_list() == [right for _, _, right in rows]


def test_verl_counts_a_rollout_of_several_outputs_once(tmp_path):
    (tmp_path / "dump").mkdir()
    entry = {"input": "q", "output": "x", "gts": None, "score": 1.0, "step": 1}
    lines = [json.dumps(entry | {"uid": uid}) for uid in ("s_0_0", "s_0_1", "s_0_2", "s_1_0")]
    (tmp_path / "dump" / "1.jsonl").write_text("\n".join(lines))
    converted = read_dump("verl", tmp_path / "dump", options=VERL)
    assert converted.completions.height == 2


def test_verl_finds_hydras_config(tmp_path):
    folder = write_verl(tmp_path / "rollouts", rows_of(np.full((2, 4), 0.5), 8))
    (tmp_path / ".hydra").mkdir()
    rollout = {"n": 8, "temperature": 1.0}
    config = {
        "actor_rollout_ref": {"actor": {"use_kl_loss": True, "kl_loss_coef": 0.2}, "rollout": rollout},
        "algorithm": {"adv_estimator": "grpo"},
        "trainer": {"rollout_data_dir": "rollouts"},
        "data": {},
    }
    (tmp_path / ".hydra" / "config.yaml").write_text(json.dumps(config))  # JSON is YAML
    pytest.importorskip("yaml", reason="YAML files need pyyaml")
    for path in (tmp_path, folder):
        (arm,) = read_dump("verl", path).measured.arms
        assert (arm.theory.beta, arm.theory.kl) == (0.2, "k3")


def test_open_instruct_has_lengths_in_tokens_and_reasons(tmp_path):
    rows = rows_of(np.full((2, 4), 0.5), 8)
    table = read_dump("open-instruct", write_open_instruct(tmp_path, rows, shard=10), options=OPEN).completions
    assert table["completion_length"].to_list() == [3 + right for _, _, right in rows]
    assert table["finish_reason"].unique().to_list() == ["stop"]


def test_open_instruct_right_is_the_verification_reward(tmp_path):
    """A format reward of 1 comes on top, or stands alone: neither 1 is a right answer."""
    folder = write_open_instruct(tmp_path, [(0, 0, True), (0, 0, False)], reward=11.0)
    file = next(folder.glob("*_rollouts_*"))
    file.write_text(file.read_text().replace('"reward": 0.0', '"reward": 1.0'))
    options = {"beta": 0.5, "num_samples_per_prompt_rollout": 2, "kl_estimator": 2, "filter_zero_std_samples": False}
    assert read_dump("open-instruct", folder, options=options).completions["success"].to_list() == [True, False]


def test_nano_aha_has_its_settings_in_the_name_of_its_folder(tmp_path):
    folder = tmp_path / "Qwen2.5-3B_temp1.0_kl0.02_lr1e-06_algrpo"
    write_nano_aha(folder, rows_of(np.full((3, 6), 0.5), 4), ranks=3)
    for path in (folder, folder / "episodes"):
        converted = read_dump("nano-aha", path)
        (arm,) = converted.measured.arms
        assert arm.theory.beta == 0.02
        assert arm.theory.normalization.group_size == 4  # not in the name: it is that of the dump
        assert converted.completions.height == 3 * 6 * 4  # of all ranks


def test_nano_aha_wants_the_equation_beside_the_format(tmp_path):
    """1 is the right format with a wrong equation, or a right equation in a wrong format: it is no success."""
    (tmp_path / "episodes").mkdir()
    rows = [{"query": "q", "response": "r", "reward": reward} for reward in (0.0, 0.5, 1.0, 1.5, 2.0)]
    (tmp_path / "episodes" / "eps_000000.json").write_text(json.dumps(rows))
    table = read_dump("nano-aha", tmp_path, options=NANO).completions
    assert table["success"].to_list() == [False, False, False, True, True]


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_a_table_of_any_origin(ending, tmp_path):
    rows = rows_of(np.full((4, 3), 0.5), 6)
    table = pl.DataFrame(
        {
            "iteration": [step for step, _, _ in rows],
            "prompt": [PROMPTS[question] for _, question, _ in rows],
            "success": [right for _, _, right in rows],
            "completion": ["x" * (2 + right) for _, _, right in rows],
        }
    )
    file = tmp_path / f"table.{ending}"
    {"csv": table.write_csv, "jsonl": table.write_ndjson, "parquet": table.write_parquet}[ending](file)
    converted = read_dump("generic", file, trainer="oat", options={"beta": 0.1})
    found = converted.completions
    assert found["success"].to_list() == [right for _, _, right in rows]
    assert found["completion_length"].to_list() == [2 + right for _, _, right in rows]
    assert converted.measured.arms[0].success["iteration"].unique().sort().to_list() == [0, 1, 2, 3]
    # a folder of such files is one table
    again = read_dump("generic", tmp_path, trainer="oat", options={"beta": 0.1})
    assert again.completions.equals(found)


def test_a_table_of_counts(tmp_path):
    (tmp_path / "counts.csv").write_text(
        "iteration,question_id,successes,samples\n0,a,3,8\n0,b,0,8\n5,a,6,8\n5,b,8,8\n"
    )
    (arm,) = read_dump("generic", tmp_path / "counts.csv", trainer="trl", options={"beta": 0.1}).measured.arms
    found = arm.success.select("iteration", "question_id", "successes", "samples").rows()
    assert found == [(0, "a", 3, 8), (0, "b", 0, 8), (5, "a", 6, 8), (5, "b", 8, 8)]


def test_columns_by_other_names(tmp_path):
    (tmp_path / "log.csv").write_text("t,who,mark\n3,a,0\n3,a,7\n4,a,9\n4,a,2\n")
    choices = Choices(success_column="mark", question_column="who", step_column="t", threshold=5, first_step=3)
    table = read_dump("generic", tmp_path / "log.csv", choices, trainer="trl", options={"beta": 0.1}).completions
    assert table["success"].to_list() == [False, True, True, False]
    assert table["iteration"].to_list() == [0, 0, 1, 1]

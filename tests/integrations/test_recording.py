"""Reward functions that record: called as OpenRLHF and verl call them, read as any table is read."""

from __future__ import annotations

import asyncio
import inspect
import json
import multiprocessing
import subprocess
import sys

import numpy as np
import polars as pl
import pytest

from grpo_dynamics.cli import main
from grpo_dynamics.integrations import openrlhf, verl
from grpo_dynamics.integrations.counts import question_of
from grpo_dynamics.integrations.recording import Recorder, collect

CANONICAL = [
    *("iteration", "step", "question_id", "group_id", "sample_index", "success", "reward", "completion_length"),
    *("finish_reason", "logp_old", "logp_ref"),
]


def judge(queries, prompts, labels):
    rewards = [float(query.endswith(label)) for query, label in zip(queries, labels, strict=True)]
    return {"rewards": np.array(rewards), "scores": np.array(rewards), "extra_logs": {}}


async def as_openrlhf(reward_func, prompts, answers):
    """openrlhf/utils/agent.py, _fetch_rewards_via_func: one completion a call, positional, each in a thread."""
    calls = [asyncio.to_thread(reward_func, [p + a], [p], ["4"]) for p, a in zip(prompts, answers, strict=True)]
    return await asyncio.gather(*calls)


def test_openrlhf_gets_its_rewards_and_the_folder_every_completion(tmp_path):
    reward_func = openrlhf.recorded(judge, tmp_path / "rewards", keep=lambda prompt, label: prompt != "eval")
    prompts = ["2+2=", "1+3="] * 8
    answers = ["4", "5", "4", "4"] * 4
    told = asyncio.run(as_openrlhf(reward_func, prompts, answers))
    assert [float(one["rewards"][0]) for one in told] == [float(answer == "4") for answer in answers]
    asyncio.run(as_openrlhf(reward_func, ["eval"], ["4"]))
    table = collect(tmp_path / "rewards", group_size=4, completions_per_step=16)
    assert table.columns == CANONICAL
    rates = table.group_by("question_id").agg(pl.col("success").mean(), pl.len()).sort("success")
    assert rates.rows() == [(question_of("1+3="), 0.5, 8), (question_of("2+2="), 1.0, 8)]
    assert table["completion_length"].unique().to_list() == [1]
    assert sorted(table["group_id"].unique()) == [0, 1]


def recording_process(folder, step, names):
    recorder = Recorder(folder)
    for name in names:
        recorder.keep(name, 1.0, 3, step=step)


def test_every_process_has_its_file_and_steps_are_the_trainers(tmp_path):
    """Weights of version 5 and 6: iterations 0 and 1; groups are cut within a step and a question."""
    for step in (5, 6):
        context = multiprocessing.get_context("spawn")
        workers = [context.Process(target=recording_process, args=(tmp_path, step, ["a", "b"] * 2)) for _ in range(2)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(60)
    assert len(list(tmp_path.glob("*.jsonl"))) == 4
    table = collect(tmp_path, group_size=2)
    assert table.group_by("iteration", "step", "question_id", "group_id").len().sort(pl.all()).rows() == [
        (i, 5 + i, name, group, 2) for i in (0, 1) for name in "ab" for group in (0, 1)
    ]


def score(data_source, solution_str, ground_truth, extra_info=None):
    right = solution_str == ground_truth
    return {"score": 1.0 if right else -1.0, "acc": right}


def as_verl(compute_score, answer, extra_info):
    """reward_manager/naive.py, run_single: one answer a call, by keywords."""
    call = {"data_source": "sums", "solution_str": answer, "ground_truth": "4", "extra_info": extra_info}
    if inspect.iscoroutinefunction(compute_score):
        return asyncio.run(compute_score(**call))
    return compute_score(**call)


@pytest.mark.parametrize("waits", [False, True])
def test_verl_gets_its_scores_and_the_folder_every_answer_of_training(tmp_path, waits):
    async def waited_for(**call):
        return score(**call)

    compute_score = verl.recorded(waited_for if waits else score, tmp_path)
    assert inspect.iscoroutinefunction(compute_score) == waits  # verl asks, and awaits it or not
    for version in (0, 1):
        for split, answer in (("train", "4"), ("train", "5"), ("test", "4")):
            info = {"index": 7, "split": split, "max_global_steps": version}
            assert as_verl(compute_score, answer, info)["acc"] == (answer == "4")
    table = collect(tmp_path, group_size=2)
    assert table.select("iteration", "question_id", "success", "reward").rows() == [
        (i, "sums/7", right, reward) for i in (0, 1) for right, reward in ((True, 1.0), (False, -1.0))
    ]


def test_verl_names_questions_by_their_prompt_where_there_is_no_index(tmp_path):
    """verl hands over raw_prompt as an array of messages; a plain number is a score."""
    compute_score = verl.recorded(lambda **call: 1.0, tmp_path)
    prompt = [{"role": "user", "content": "2+2="}]
    as_verl(compute_score, "4", {"raw_prompt": np.array(prompt)})
    assert collect(tmp_path, 1, 1)["question_id"].to_list() == [f"sums/{question_of(prompt)}"]
    with pytest.raises(ValueError, match="extra_info must name the question as question_id, prompt_id, index, got spl"):
        as_verl(compute_score, "4", {"split": "train"})


def test_validate_reads_what_was_collected(tmp_path, capsys):
    """Right by the made rates: at first 2 of 4, then 4 of 4."""
    recorder = Recorder(tmp_path / "rewards")
    for step in range(3):
        for name in "ab":
            for sample in range(4):
                recorder.keep(name, float(step > 0 or sample < 2), 1)
    table = collect(tmp_path / "rewards", 4, 8)
    assert table.group_by("iteration", maintain_order=True).agg(pl.col("success").mean())["success"].to_list() == [
        0.5,
        1.0,
        1.0,
    ]
    table.write_parquet(tmp_path / "rewards.parquet")
    options = ["--trainer", "openrlhf", "--set", "algo.advantage.estimator=group_norm", "--json"]
    place = ["--out", str(tmp_path / "report")]
    code = main(["validate", str(tmp_path / "rewards.parquet"), "--from", "generic", *options, *place])
    text, error = capsys.readouterr()
    assert code == 0, error
    assert json.loads(text)["command"] == "validate"


def test_a_cut_last_line_is_left_out_and_a_foreign_one_refused(tmp_path):
    recorder = Recorder(tmp_path)
    for _ in range(3):
        recorder.keep("a", 1, 1)
    (file,) = tmp_path.glob("*.jsonl")
    whole = file.read_bytes()
    file.write_bytes(whole[:-20])
    assert collect(tmp_path, 1, 1).height == 2
    file.write_bytes(b'{"other": 1}\n' + whole)
    with pytest.raises(ValueError, match=r"jsonl, line 1: must be a reward that was recorded"):
        collect(tmp_path, 1, 1)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda folder: collect(folder, 4), "folder must hold rewards that were recorded"),
        (lambda folder: collect(folder, 0), "group_size must be an integer >= 1, got 0"),
        (lambda folder: openrlhf.recorded(None, folder), "reward_func must be a function"),
        (lambda folder: verl.recorded("f", folder), "compute_score must be a function"),
        (lambda folder: Recorder("/dev/null/x"), "folder must be one that can be written"),
        (lambda folder: Recorder(folder, float("nan")), "threshold must be a finite number"),
    ],
)
def test_bad_input(call, said, tmp_path):
    with pytest.raises(ValueError, match=said):
        call(tmp_path)


@pytest.mark.parametrize(
    ("answer", "said"), [(None, "got NoneType"), ([1.0], "got list"), ({"rewards": [1.0]}, "got 1")]
)
def test_an_answer_of_openrlhf_without_rewards_is_one_line(answer, said, tmp_path):
    reward_func = openrlhf.recorded(lambda queries, prompts, labels: answer, tmp_path)
    with pytest.raises(ValueError, match=f"^reward_func must return .* {said}$"):
        reward_func(["a1", "a2"], ["a", "a"], ["1", "1"])


def test_rewards_that_are_no_numbers_are_not_judged(tmp_path):
    """As in TRL, where None becomes nan and counts in no mean."""
    recorder = Recorder(tmp_path)
    for reward in (None, float("nan"), 1.0):
        recorder.keep("a", reward, 1)
    assert collect(tmp_path, 3, 3).select("success", "reward").rows() == [(None, None), (None, None), (True, 1.0)]


def test_rows_without_steps_need_a_number(tmp_path):
    Recorder(tmp_path).keep("a", 1, 1)
    with pytest.raises(ValueError, match="completions_per_step must be an integer >= 1 for rows that do not tell"):
        collect(tmp_path, 1)


def test_neither_brings_in_torch_or_transformers():
    code = "import sys, grpo_dynamics.integrations.openrlhf, grpo_dynamics.integrations.verl; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert {"torch", "transformers", "trl"}.isdisjoint(loaded)

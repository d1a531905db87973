"""Dumps in the form that trainers document, of a run that is known: p moves from p_ref to p* of the trainer's flow."""

import json

import numpy as np

import grpo_dynamics as gd

PROMPTS = [f"What is {i} + {i + 1}?\n" for i in range(40)]


def course(trainer, questions=12, steps=60, rate=0.15, seed=0):
    """(p_ref, p* and p at each step, shape (steps, questions)) of a run that goes where the trainer's flow goes."""
    p_ref = np.linspace(0.1, 0.6, questions)
    end = gd.fixed_points(trainer.at(p_ref)).log_odds[0]
    start = gd.logit(p_ref)
    share = 1 - np.exp(-rate * np.arange(steps))[:, None]
    return p_ref, gd.sigmoid(end), gd.sigmoid(start + (np.minimum(end, 8.0) - start) * share)


def rows_of(p, group_size, seed=0, seen=None):
    """(step from 0, question, right) of every completion; ``seen``: so many questions in each step, in turn."""
    rng = np.random.default_rng(seed)
    rows = []
    for step, now in enumerate(p):
        chosen = range(len(now)) if seen is None else [(step * seen + i) % len(now) for i in range(seen)]
        for question in chosen:
            rows += [(step, question, bool(right)) for right in rng.random(group_size) < now[question]]
    return rows


def write_verl(folder, rows, first_step=1, score=float, uid=False, **more):
    """{global_step}.jsonl: input, output, gts, score, step, and what the reward function adds."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = {}
    for i, (step, question, right) in enumerate(rows):
        entry = {
            "input": PROMPTS[question],
            "output": "so it is " + "x" * (3 + right),
            "gts": str(2 * question + 1),
            "score": score(right),
            "step": step + first_step,
            **{name: value(right) for name, value in more.items()},
        }
        if uid:
            entry["uid"] = f"{question}_{i}_0"
        lines.setdefault(step + first_step, []).append(json.dumps(entry, ensure_ascii=False))
    for step, entries in lines.items():
        (folder / f"{step}.jsonl").write_text("\n".join(entries) + "\n", encoding="utf-8")
    return folder


def write_open_instruct(folder, rows, run="grpo__1__1700000000", reward=10.0, shard=500):
    """{run}_rollouts_{shard:06d}.jsonl: RolloutRecord as a dictionary, steps from 0; and its metadata."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{run}_metadata.jsonl").write_text(json.dumps({"run_name": run, "git_commit": "0", "model_name": "m"}))
    for i, (step, question, right) in enumerate(rows):
        record = {
            "step": step,
            "sample_idx": i,
            "prompt_idx": question,
            "prompt_tokens": [1, 17, question],
            "response_tokens": [5, 6, 7, 2][: 3 + right],
            "reward": reward * right,
            "advantage": 0.0,
            "finish_reason": "stop",
            "dataset": "sums",
            "ground_truth": [question],
            "request_info": None,
            "logprobs": [-0.1, -0.2, -0.3],
        }
        with (folder / f"{run}_rollouts_{i // shard:06d}.jsonl").open("a") as file:
            file.write(json.dumps(record) + "\n")
    return folder


def write_nano_aha(folder, rows, ranks=0, format_reward=1.0):
    """episodes/eps_{iteration:06d}.json, or episodes/rank_{rank:02d}/...: a list of query, response, reward."""
    files = {}
    for i, (step, question, right) in enumerate(rows):
        rank = f"rank_{question % ranks:02d}/" if ranks else ""
        entry = {"query": f"<|im_start|>{PROMPTS[question]}", "response": "<answer>" + "1" * (i % 5), "reward": 0.0}
        entry["reward"] = format_reward + right
        files.setdefault(folder / "episodes" / f"{rank}eps_{step:06d}.json", []).append(entry)
    for file, entries in files.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(entries))
    return folder

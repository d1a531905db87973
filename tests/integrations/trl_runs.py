"""Real runs of TRL's GRPOTrainer with the callback, in a process of their own; prints what they logged as JSON.

python -m tests.integrations.trl_runs one|two FOLDER, the second under torch.distributed.run.
"""

from __future__ import annotations

import json
import logging
import sys
import warnings
from pathlib import Path

import torch

from grpo_dynamics.integrations.trl import GRPODynamicsCallback
from grpo_dynamics.training.policies import load_policy
from grpo_dynamics.training.tasks import make_task
from tests.training.tiny import tiny_model

QUESTIONS, GROUP_SIZE, BETA = 6, 16, 0.4
RARE = (3, 4000)
"""The reference of the first question: at β = 0.4 and G = 16 whole steps go round a cycle there."""


class Warnings(logging.Handler):
    def __init__(self):
        super().__init__(logging.WARNING)
        self.lines = []
        logging.getLogger("grpo_dynamics").addHandler(self)

    def emit(self, record):
        self.lines.append(record.getMessage())


def setting(folder):
    torch.set_num_threads(1)
    task = make_task("one_token_sums", questions=QUESTIONS)
    path = folder / "model"
    if not path.exists():
        tiny_model(path, task)
    return task, str(path)


def trainer(folder, name, task, path, callback, reward, evaluate=False, **options):
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    rows = {
        "prompt": [question.prompt for question in task.questions],
        "answer": [question.answer for question in task.questions],
        "name": [question.id for question in task.questions],
    }
    given = {
        "per_device_train_batch_size": 3 * GROUP_SIZE,
        "num_generations": GROUP_SIZE,
        "max_steps": 4,
        "logging_steps": 1,
        "save_steps": 2,
        "beta": BETA,
        "learning_rate": 1e-2,
        "report_to": ["tensorboard"],
    }
    dataset = Dataset.from_dict(rows)
    return GRPOTrainer(
        model=path,
        reward_funcs=reward,
        args=GRPOConfig(
            output_dir=str(folder / name),
            max_completion_length=1,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            disable_tqdm=True,
            **(given | options),
        ),
        train_dataset=dataset,
        eval_dataset=dataset if evaluate else None,
        processing_class=load_policy(path, device="cpu").tokenizer,
        callbacks=[] if callback is None else [callback],
    )


def judge(completions, answer):
    return [float(said == wanted) for said, wanted in zip(completions, answer, strict=True)]


def logged(run):
    return [
        {key: value for key, value in row.items() if "dynamics/" in key or key in ("step", "frac_reward_zero_std")}
        for row in run.state.log_history
    ]


def scalars(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (events,) = folder.rglob("events.out.tfevents.*")
    read = EventAccumulator(str(events))
    read.Reload()
    return {tag: [event.value for event in read.Scalars(tag)] for tag in read.Tags()["scalars"] if "dynamics" in tag}


def watched_run(folder, task, path, heard):
    """Four steps and their record; then the same once more from the checkpoint after the second."""
    record = []

    def reward(completions, answer, name, **rest):
        rewards = judge(completions, answer)
        record.append(list(zip(name, rewards, strict=True)))
        return rewards

    callback = GRPODynamicsCallback(p_ref={task.questions[0].id: RARE}, question_column="name", shown=2)
    run = trainer(folder, "whole", task, path, callback, callback.watch(reward), log_completions=True)
    run.train()
    tensorboard = scalars(folder / "whole")
    again = GRPODynamicsCallback(p_ref={task.questions[0].id: RARE}, question_column="name", shown=2)
    resumed = trainer(folder, "whole", task, path, again, again.watch(reward))
    said = list(heard.lines)
    resumed.train(resume_from_checkpoint=str(folder / "whole" / "checkpoint-2"))
    import polars as pl

    dumped = pl.read_parquet(folder / "whole" / "completions" / "completions_00001.parquet")
    return {
        "record": record,
        "logged": logged(run),
        "tensorboard": tensorboard,
        "table": callback.table().to_dicts(),
        "table_resumed": again.table().to_dicts(),
        "warnings": said,
        "dumped_ids": dumped["question_id"].to_list() if "question_id" in dumped.columns else None,
    }


def evaluated_run(folder, task, path):
    """An asynchronous reward, evaluations in between, prompts for ids, and rewards that are missing."""
    calls = []

    async def rewarded(completions, answer, trainer_state, **rest):
        calls.append(trainer_state.global_step)
        found = judge(completions, answer)
        return [None, *found[1:]]

    callback = GRPODynamicsCallback(shown=0)
    options = {"eval_strategy": "steps", "eval_steps": 1, "per_device_eval_batch_size": GROUP_SIZE, "max_steps": 2}
    run = trainer(
        folder, "evaluated", task, path, callback, callback.watch(rewarded), evaluate=True, save_steps=9, **options
    )
    run.train()
    return {"calls": len(calls), "table": callback.table().to_dicts(), "logged": logged(run)}


def mistakes(folder, task, path, heard):
    def reward(completions, answer, **rest):
        return judge(completions, answer)

    def said(callback, watched, **options):
        try:
            options = {"max_steps": 1, "report_to": [], "save_strategy": "no"} | options
            trainer(folder, "mistakes", task, path, callback, watched, **options).train()
        except ValueError as error:
            return str(error)
        return heard.lines[-1]

    forgotten, nameless, alone = (GRPODynamicsCallback(question_column=c) for c in (None, "nam", None))
    coupled, shades = GRPODynamicsCallback(), GRPODynamicsCallback()

    def shaded(completions, **rest):
        return [0.1 * (i % 7) for i in range(len(completions))]

    return {
        "not_watched": said(forgotten, reward),
        "no_such_column": said(nameless, nameless.watch(reward)),
        "not_a_callback": said(None, alone.watch(reward)),
        "no_closed_form": said(coupled, coupled.watch(reward), scale_rewards="batch"),
        "shades": said(shades, shades.watch(shaded)),
    }


def two_processes(folder):
    """Each process has one half of the batch: groups of 16 in batches of 24, so that one group is in both.

    The model must be there: processes that make it together read each other's half-written files.
    """
    from accelerate import PartialState

    state = PartialState()
    task, path = setting(folder)
    record = []

    def reward(completions, answer, name, **rest):
        rewards = judge(completions, answer)
        record.append(list(zip(name, rewards, strict=True)))
        return rewards

    callback = GRPODynamicsCallback(question_column="name", shown=0)
    options = {"per_device_train_batch_size": 24, "max_steps": 2, "save_strategy": "no", "report_to": []}
    run = trainer(folder, "two", task, path, callback, callback.watch(reward), **options)
    run.train()
    answer = {"record": record, "logged": logged(run), "table": callback.table().to_dicts()}
    (folder / f"process{state.process_index}.json").write_text(json.dumps(answer))


def main(what, folder):
    warnings.simplefilter("ignore")  # what TRL and transformers tell each other
    if what == "two":
        return two_processes(folder)
    heard = Warnings()
    task, path = setting(folder)
    answer = {"watched": watched_run(folder, task, path, heard), "evaluated": evaluated_run(folder, task, path)}
    answer["mistakes"] = mistakes(folder, task, path, heard)
    import trl

    (folder / "one.json").write_text(json.dumps({"version": trl.__version__, **answer}))
    return None


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))

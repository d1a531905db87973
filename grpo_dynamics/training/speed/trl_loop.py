"""The speed of a whole step of TRL's GRPOTrainer on the same work."""

from __future__ import annotations

import importlib
import tempfile
import time
import warnings
from typing import Any

import numpy as np

from grpo_dynamics.training.speed.measurements import (
    BETA,
    LEARNING_RATE,
    WARM_UP,
    Rows,
    arm_of,
    forget_memory,
    row_of,
)
from grpo_dynamics.training.speed.settings import Settings
from grpo_dynamics.training.speed.throughput import clock


def trl_step(settings: Settings, size: str) -> Rows:
    """A whole step of TRL's GRPOTrainer, between one update and the next."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # what transformers tells the authors of TRL
        trl, datasets = importlib.import_module("trl"), importlib.import_module("datasets")
        from transformers import TrainerCallback
        from transformers.trainer_callback import PrinterCallback

        arm, ends, lengths = arm_of(settings, size), [], []
        arm.policy.model.set_attn_implementation("sdpa")

        class Tick(TrainerCallback):
            def on_step_end(self, *_: Any, **__: Any) -> None:
                ends.append(time.perf_counter() if settings.device == "cuda" else clock())

        def reward(completion_ids: list[list[int]], **_: Any) -> list[float]:
            lengths.extend(len(ids) for ids in completion_ids)  # of a whole step, or of a part of one
            return [float(ids[0] % 2) for ids in completion_ids]

        rows = settings.prompts * settings.group_size
        passes = max(1, rows // settings.micro_batch_size)
        with tempfile.TemporaryDirectory() as folder:
            options = trl.GRPOConfig(
                output_dir=folder,
                beta=BETA,
                num_generations=settings.group_size,
                max_completion_length=settings.completion_tokens[1],
                per_device_train_batch_size=rows // passes,
                gradient_accumulation_steps=passes,
                learning_rate=LEARNING_RATE,
                lr_scheduler_type="constant",
                max_steps=settings.repeats + WARM_UP,
                use_cpu=settings.device == "cpu",
                bf16=settings.precision == "bf16",
                gradient_checkpointing=False,
                report_to=[],
                logging_strategy="no",
                save_strategy="no",
                disable_tqdm=True,
            )
            arm.policy.model.save_pretrained(f"{folder}/model")  # the reference is read from there
            arm.policy.tokenizer.save_pretrained(f"{folder}/model")
            trainer = trl.GRPOTrainer(
                model=f"{folder}/model",
                reward_funcs=reward,
                args=options,
                train_dataset=datasets.Dataset.from_dict(
                    {"prompt": [question.prompt for question in arm.task.questions]}
                ),
                processing_class=arm.policy.tokenizer,
                callbacks=[Tick()],
            )
            trainer.remove_callback(PrinterCallback)
            forget_memory(settings)
            trainer.train()
    seconds = float(np.median(np.diff(ends[WARM_UP - 1 :])))
    counted = np.split(np.array(lengths), len(ends))[WARM_UP:]
    return [row_of(settings, size, "step", "trl", arm, seconds, counted, None, settings.precision)]

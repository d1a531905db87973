"""The run on docs/callback.md: TRL trains a small model on sums, with the callback; the picture is what it logged.

python docs/callback_run.py makes docs/callback.png, in about a minute on one core.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from transformers import AutoTokenizer
from trl import GRPOConfig, GRPOTrainer

from grpo_dynamics.integrations.trl import GRPODynamicsCallback
from grpo_dynamics.plotting import BLUE, GREEN, GREY, VERMILION, new_figure, save, styled
from grpo_dynamics.training.policies import load_policy, next_log_probs, right_completions
from grpo_dynamics.training.pretraining import make_model
from grpo_dynamics.training.tasks import make_task

BETA, GROUP_SIZE, QUESTIONS, STEPS, SAMPLES = 1.0, 8, 32, 160, 256
QUEST = "dynamics/question/"


def counted(model, task):
    """Successes of 256 answers of the model before training, to every question."""
    policy = load_policy(model, device="cpu")
    log_probs = next_log_probs(policy.model, policy.encode([question.prompt for question in task.questions]))
    right = [right_completions(policy, question, 1)[0][0] for question in task.questions]
    p = log_probs.double().exp()[range(len(right)), right].detach().numpy()
    successes = np.random.default_rng(0).binomial(SAMPLES, p)
    return {question.id: (int(k), SAMPLES) for question, k in zip(task.questions, successes, strict=True)}


def train(folder: Path):
    """Return what the trainer logged, and the table of questions at the end."""
    task = make_task("one_token_sums", questions=QUESTIONS)
    model = str(make_model(task, folder / "model", hidden_size=64, layers=2, lowest=0.02, highest=0.6))

    def reward(completions, answer, **rest):
        return [float(said == wanted) for said, wanted in zip(completions, answer, strict=True)]

    dynamics = GRPODynamicsCallback(p_ref=counted(model, task), question_column="sum", shown=3)
    trainer = GRPOTrainer(
        model=model,
        reward_funcs=dynamics.watch(reward),
        callbacks=[dynamics],
        args=GRPOConfig(
            output_dir=str(folder / "run"),
            beta=BETA,
            num_generations=GROUP_SIZE,
            max_completion_length=1,
            per_device_train_batch_size=QUESTIONS * GROUP_SIZE,
            max_steps=STEPS,
            learning_rate=2e-3,
            lr_scheduler_type="constant",
            logging_steps=1,
            save_strategy="no",
            report_to=[],
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_dict(
            {
                "prompt": [question.prompt for question in task.questions],
                "answer": [question.answer for question in task.questions],
                "sum": [question.id for question in task.questions],
            }
        ),
        processing_class=AutoTokenizer.from_pretrained(model),
    )
    trainer.train()
    return [entry for entry in trainer.state.log_history if "dynamics/p" in entry], dynamics.table()


@styled
def draw(history):
    """Return a figure: means over the questions, three questions, silent groups."""
    figure = new_figure(9.6, 3.1)
    axes = figure.subplots(1, 3)
    steps = [entry["step"] for entry in history]
    for name, color, label in (("p", BLUE, "p"), ("p_star", VERMILION, "p*, predicted"), ("p_ref", GREY, "p_ref")):
        axes[0].plot(steps, [entry[f"dynamics/{name}"] for entry in history], color=color, label=label)
    axes[0].set(title="mean over the questions", ylabel="success probability")
    axes[0].legend()
    shown = sorted({key[len(QUEST) :].rsplit("/", 1)[0] for entry in history for key in entry if key.startswith(QUEST)})
    for name, color in zip(shown, (BLUE, GREEN, VERMILION), strict=False):
        p = [entry[f"{QUEST}{name}/p"] for entry in history]
        smooth = [sum(p[max(0, i - 4) : i + 5]) / len(p[max(0, i - 4) : i + 5]) for i in range(len(p))]
        axes[1].plot(steps, smooth, color=color, label=name)
        axes[1].axhline(history[-1][f"{QUEST}{name}/p_star"], color=color, ls="--", lw=1)
    axes[1].set(title="three of them (mean of 9 steps); dashed: p*", ylim=(-0.02, 1.02))
    axes[1].legend()
    axes[2].plot(steps, [entry["dynamics/silent_groups"] for entry in history], color=GREY)
    axes[2].set(title="silent groups", ylim=(-0.02, 1.02))
    for one in axes:
        one.set_xlabel("step")
    return figure


def main():
    """Train, print first and last numbers, and write the picture."""
    warnings.simplefilter("ignore")
    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        history, table = train(Path(folder))
    first, last = history[0], history[-1]
    for name in sorted(last):
        if name.startswith("dynamics/"):
            print(f"{name:<40}{first.get(name, float('nan')):8.3f}{last[name]:8.3f}")
    print(table.select("question_id", "successes", "samples", "latest_successes", "p_star").head(5))
    for path in save(draw(history), Path(__file__).with_name("callback")):
        if path.suffix == ".pdf":
            path.unlink()


if __name__ == "__main__":
    main()

"""Dumps that TRL itself writes: a real GRPOTrainer on a language model of a few thousand weights."""

import json
import warnings

from grpo_dynamics.training.tasks import make_task
from tests.training.tiny import tiny_model

TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"


def train(
    folder, *, conversational=False, questions=6, steps=4, names=True, two_rewards=False, evaluate=False, **options
):
    """Train a few steps on one-token sums with log_completions=True; return its output_dir and the task.

    ``names``: whether the reward function sends the question's id through log_extra; ``evaluate``: on the same
    questions, when ``options`` say.
    """
    import torch
    from datasets import Dataset
    from transformers.trainer_callback import PrinterCallback
    from trl import GRPOConfig, GRPOTrainer

    from grpo_dynamics.training.policies import load_policy

    task = make_task("one_token_sums", questions=questions)
    model = tiny_model(folder / "model", task)
    policy = load_policy(model, device="cpu")
    policy.tokenizer.chat_template = TEMPLATE

    def prompt(question):
        return [{"role": "user", "content": question.prompt}] if conversational else question.prompt

    def right(completions, answer, name, log_extra, **rest):
        if names:
            log_extra("question_id", name)
        said = [text[0]["content"] if conversational else text for text in completions]
        return [float(text == wanted) for text, wanted in zip(said, answer, strict=True)]

    def short(completions, **rest):
        return [0.5 for _ in completions]

    rows = {
        "prompt": [prompt(question) for question in task.questions],
        "answer": [question.answer for question in task.questions],
        "name": [question.id for question in task.questions],
    }
    settings = {"per_device_train_batch_size": 4 * questions, "num_generations": 4, "beta": 0.5, **options}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        arguments = GRPOConfig(
            output_dir=str(folder / "run"),
            max_completion_length=1,
            max_steps=steps,
            learning_rate=1e-2,
            logging_steps=1,
            log_completions=True,
            num_completions_to_print=0,
            shuffle_dataset=False,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            **settings,
        )
        torch.manual_seed(0)
        trainer = GRPOTrainer(
            model=model,
            reward_funcs=[right, short] if two_rewards else right,
            args=arguments,
            train_dataset=Dataset.from_dict(rows),
            eval_dataset=Dataset.from_dict(rows) if evaluate else None,
            processing_class=policy.tokenizer,
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    (folder / "run" / "training_args.json").write_text(json.dumps(arguments.to_dict(), default=str))
    return folder / "run", task

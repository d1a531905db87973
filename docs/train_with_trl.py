"""Train a small model with TRL on sums, and keep every completion: what docs/other_trainers.md reads.

First ``grpo-dynamics make-model --task one_token_sums --option questions=24 --out models/sums``, then this.
"""

import json
import sys
from pathlib import Path

import torch
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from grpo_dynamics.training.policies import load_policy
from grpo_dynamics.training.tasks import make_task

torch.manual_seed(1)
model, out, steps = "models/sums", Path("trl_run"), int(sys.argv[1]) if len(sys.argv) > 1 else 200
task = make_task("one_token_sums", questions=24)


def right(completions, answer, question, log_extra, **rest):
    """1 for a right answer, else 0."""
    log_extra("question_id", question)  # names the questions in the dump
    return [float(said == wanted) for said, wanted in zip(completions, answer, strict=True)]


settings = GRPOConfig(
    output_dir=str(out),
    beta=0.6,
    num_generations=8,
    max_completion_length=1,
    per_device_train_batch_size=24 * 8,  # all questions in every step
    shuffle_dataset=False,
    max_steps=steps,
    learning_rate=1e-3,
    lr_scheduler_type="constant",
    log_completions=True,
    logging_steps=1,  # the default of 10 keeps each tenth step
    num_completions_to_print=0,
    report_to=[],
    save_strategy="no",
    bf16=False,
    use_cpu=True,
    seed=1,
)
rows = {
    "prompt": [question.prompt for question in task.questions],
    "answer": [question.answer for question in task.questions],
    "question": [question.id for question in task.questions],
}
policy = load_policy(model, device="cpu")
sampling = {"do_sample": True, "max_new_tokens": 1, "num_return_sequences": 256}
with open("p_ref.csv", "w") as file:  # 256 answers of the model before training, for `--p-ref p_ref.csv`
    file.write("question_id,successes,samples\n")
    for question in task.questions:
        prompt = policy.tokenizer(question.prompt, return_tensors="pt")
        tokens = policy.model.generate(input_ids=prompt["input_ids"], **sampling)[:, -1:]
        said = policy.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        file.write(f"{question.id},{said.count(question.answer)},256\n")

trainer = GRPOTrainer(
    model=model,
    reward_funcs=right,
    args=settings,
    train_dataset=Dataset.from_dict(rows),
    processing_class=policy.tokenizer,
)
trainer.train()
(out / "training_args.json").write_text(json.dumps(settings.to_dict(), default=str))  # for `validate --from trl`

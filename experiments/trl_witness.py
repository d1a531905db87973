"""TRL as an independent witness: does the trainer that people use go where its preset says it goes?

The same small model is trained on one-token sums by TRL's GRPOTrainer and by this package's trainer, on-policy, with
small steps and the same β and G. Which rule a trainer follows is in two lines of its code: how it divides by the
standard deviation, and how it codes the KL term. Three predictions, nothing fitted:

- ``trl``: standard deviation of G−1 (ddof 1) plus 1e-4, k3 times the ratio: the pull of KL(π‖π_ref);
- ``k2``: standard deviation of G (ddof 0), k2 in the loss: the same pull, but √(G/(G−1)) times the advantage;
- ``k3``: standard deviation of G, k3 in the loss: the pull of KL(π_ref‖π);

and a fourth, ``trl_k3``, TRL with ``use_bias_correction_kl=False``. G is small because ddof matters only by a factor
√((G−1)/G) of the advantage; p_ref lies below 0.2 because there the two pulls differ most; and β is where the nearest
two of the three predictions are about as far apart as they get (0.09 at G = 4, β = 0.6, p_ref from 0.03 to 0.2).

Run it as ``python experiments/trl_witness.py``; where the package is installed without a checkout, as
``python -m grpo_dynamics.experiments.trl_witness``.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import importlib.util
import sys
import warnings
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

import grpo_dynamics as gd
from grpo_dynamics.arrays import require
from grpo_dynamics.cli.errors import BadInput, bad_input, refuse
from grpo_dynamics.cli.output import progress
from grpo_dynamics.cli.paper import folder
from grpo_dynamics.cli.simulate import show
from grpo_dynamics.config import as_table, build, read_toml
from grpo_dynamics.plotting import BLUE, GREEN, GREY, ORANGE, VERMILION, new_figure, save, styled
from grpo_dynamics.provenance import versions
from grpo_dynamics.simulation.runs import Part, Run, independent, own_seed, perform

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from grpo_dynamics.training.tasks import Task

TITLE = "Where TRL's trainer and ours end"
QUICK: dict[str, Any] = {"questions": 32, "groups": 4, "steps": 80, "arms": ["trl", "k2", "k3"]}
BETA_2 = 0.99
"""Of AdamW: shorter a memory than usual, for runs of some hundred steps."""
ARMS = ("trl", "trl_k3", "k2", "k3")
NAMES = {"trl": "TRL", "trl_k3": "TRL, k3", "k2": "ours, k2", "k3": "ours, k3"}
COLORS = {"trl": BLUE, "trl_k3": ORANGE, "k2": GREEN, "k3": VERMILION}


@dataclasses.dataclass(frozen=True)
class Settings:
    """One model, trained several ways.

    Args:
        beta: KL strength.
        group_size: G, completions per group.
        groups: per question and step.
        questions: sums, each in every batch.
        lowest, highest: success probabilities of the model before training.
        steps: optimizer steps, each on samples of its own.
        learning_rate: of AdamW; small: the theory is that of small steps.
        record_every: steps between two measurements of p.
        hidden_size, layers: of the model.
        checkpoint_every: steps between two checkpoints of TRL.
        arms: which trainers.
    """

    beta: float = 0.6
    group_size: int = 4
    groups: int = 2
    questions: int = 48
    lowest: float = 0.03
    highest: float = 0.2
    steps: int = 200
    learning_rate: float = 1e-3
    record_every: int = 2
    hidden_size: int = 64
    layers: int = 2
    checkpoint_every: int = 50
    arms: tuple[str, ...] = ARMS

    def __post_init__(self) -> None:
        require("beta", self.beta, "a finite number > 0", lambda x: 0 < x < np.inf)
        require("learning_rate", self.learning_rate, "a finite number > 0", lambda x: 0 < x < np.inf)
        require("group_size", self.group_size, "an integer >= 2", lambda x: x >= 2)
        for name in ("groups", "questions", "steps", "record_every", "layers", "checkpoint_every"):
            require(name, getattr(self, name), "an integer >= 1", lambda x: x >= 1)
        require("questions", self.questions, "at most 100", lambda x: x <= 100)
        if not 0 < self.lowest < self.highest < 1:
            raise ValueError(f"lowest must be above 0 and below highest < 1, got {self.lowest} and {self.highest}")
        if not self.arms or not set(self.arms) <= set(ARMS) or len(set(self.arms)) < len(self.arms):
            raise ValueError(f"arms must be some of {', '.join(ARMS)}, each once, got {', '.join(self.arms) or 'none'}")

    def prediction(self, arm: str, p_ref: Any) -> Any:
        """Where an arm's rule takes questions: the fixed point of its flow."""
        if arm.startswith("trl"):
            corrected = {} if arm == "trl" else {"use_bias_correction_kl": False}
            trainer = gd.trainer("trl", "1.16", beta=self.beta, num_generations=self.group_size, **corrected)
            return gd.fixed_points(trainer.at(p_ref)).p[0]
        return gd.fixed_points(gd.Flow(self.beta, p_ref, gd.FiniteGroup(self.group_size), arm)).p[0]


def run_of(name: str, settings: Settings, seed: int, out: Path) -> Run:
    """The work of a config: one part an arm. TRL's own checkpoints lie beside the parts while it runs."""
    config = {"experiment": "trl_witness", "seed": seed, **as_table(settings)}
    config["trainers"] = versions(("torch", "transformers", "trl"))
    arms: list[Part] = []
    run = Run(name, config, arms, out)
    for i, arm in enumerate(settings.arms):
        arms.append(independent(NAMES[arm], functools.partial(measured, settings, arm, own_seed(seed, i) % 2**31, run)))
    return run


def measured(settings: Settings, arm: str, seed: int, run: Run) -> pl.DataFrame:
    """Columns arm, step, question_id, p_ref, p, predicted; p_ref is the p of step 0."""
    train = with_trl if arm.startswith("trl") else with_ours
    task, steps, p = train(settings, arm, seed, run.checkpoint)
    ids, p_ref = [question.id for question in task.questions], p[0]
    return pl.DataFrame(
        {
            "arm": [arm] * len(ids) * len(steps),
            "step": np.repeat(steps, len(ids)),
            "question_id": ids * len(steps),
            "p_ref": np.tile(p_ref, len(steps)),
            "p": np.concatenate(p),
            "predicted": np.tile(settings.prediction(arm, p_ref), len(steps)),
        }
    )


def task_and_model(settings: Settings, work: Path) -> tuple[Task, Path]:
    """The sums and a model whose success probabilities are spread over (lowest, highest); made once, then found."""
    from grpo_dynamics.training.pretraining import make_model
    from grpo_dynamics.training.tasks import make_task

    task = make_task("one_token_sums", questions=settings.questions)
    size = {"hidden_size": settings.hidden_size, "layers": settings.layers}
    spread = {"lowest": settings.lowest, "highest": settings.highest}
    return task, make_model(task, work / "model", **size, **spread)


def success(model: Any, prefixes: list[list[int]], right: Any) -> Any:
    """p of every question, exactly: an answer is one token."""
    import torch

    from grpo_dynamics.training.policies import next_log_probs

    with torch.no_grad():
        chosen = next_log_probs(model, prefixes).double().gather(1, right[:, None])
    return chosen[:, 0].exp().numpy()


@contextlib.contextmanager
def without_deprecations() -> Generator[None]:
    """Leave out what transformers tells the authors of TRL about its next version."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


@without_deprecations()
def with_trl(settings: Settings, arm: str, seed: int, work: Path) -> tuple[Task, list[int], list[Any]]:
    """Train with TRL; p is measured in a callback. Goes on from TRL's last whole checkpoint if there is one."""
    import torch
    from datasets import Dataset
    from transformers import TrainerCallback
    from transformers.trainer_callback import PrinterCallback
    from trl import GRPOConfig, GRPOTrainer

    from grpo_dynamics.training.policies import load_policy, right_completions

    task, model = task_and_model(settings, work)
    policy = load_policy(str(model), device="cpu")
    prompts, answers = zip(*((question.prompt, question.answer) for question in task.questions), strict=True)
    prefixes = policy.encode(prompts)
    right = torch.tensor([right_completions(policy, question, 1)[0][0] for question in task.questions])
    folder = work / arm
    found = sorted(folder.glob("p-*.npz"), key=lambda path: int(path.stem[2:]))
    begun = found[-1] if found else None
    steps: list[int] = np.load(begun)["steps"].tolist() if begun else []
    p: list[Any] = list(np.load(begun)["p"]) if begun else []

    class Measure(TrainerCallback):
        def measure(self, state: Any, model: Any) -> None:
            was_training = model.training
            steps.append(state.global_step)
            p.append(success(model.eval(), prefixes, right))
            model.train(was_training)

        def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **rest: Any) -> None:
            if not steps:
                self.measure(state, model)

        def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **rest: Any) -> None:
            if state.global_step % settings.record_every == 0:
                self.measure(state, model)

        def on_save(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
            np.savez(folder / "writing.npz", steps=steps, p=p)  # TRL's checkpoint is whole by now
            (folder / "writing.npz").rename(folder / f"p-{state.global_step}.npz")

    def reward(completions: list[str], answer: list[str], **rest: Any) -> list[float]:
        return [float(said == wanted) for said, wanted in zip(completions, answer, strict=True)]

    batch = settings.questions * settings.groups * settings.group_size
    options = GRPOConfig(
        output_dir=str(folder),
        # what decides where training goes, beside TRL's defaults
        beta=settings.beta,
        num_generations=settings.group_size,
        use_bias_correction_kl=arm == "trl",
        max_completion_length=1,  # never ended by an end token: mask_truncated_completions must stay False
        # small on-policy steps: every question in every batch, one update on it, nothing decays
        per_device_train_batch_size=batch,
        max_steps=settings.steps,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="constant",
        adam_beta2=BETA_2,
        weight_decay=0.0,
        max_grad_norm=1e9,  # clipping a noisy gradient would bias its mean
        shuffle_dataset=False,
        seed=seed,
        # how it runs
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        save_steps=settings.checkpoint_every,
        save_total_limit=2,
        report_to=[],
        logging_strategy="no",
        disable_tqdm=True,
    )
    rows = {"prompt": list(prompts) * settings.groups, "answer": list(answers) * settings.groups}
    trainer = GRPOTrainer(
        model=str(model),  # by its path: the reference is read from there once more
        reward_funcs=reward,
        args=options,
        train_dataset=Dataset.from_dict(rows),
        processing_class=policy.tokenizer,
        callbacks=[Measure()],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=str(folder / f"checkpoint-{begun.stem[2:]}") if begun else None)
    return task, steps, p


def with_ours(settings: Settings, arm: str, seed: int, work: Path) -> tuple[Task, list[int], list[Any]]:
    """Train with this package's trainer: the same batch, optimizer and learning rate, another KL term and ddof."""
    from grpo_dynamics.training.arm import prepare
    from grpo_dynamics.training.config import resolve
    from grpo_dynamics.training.trainer import iterate

    task, model = task_and_model(settings, work)
    steps: list[int] = []
    p: list[Any] = []

    def keep(step: int, rows: Any, _: bool) -> None:
        found = {row["question_id"]: row["p"] for row in rows["success"]}
        if found:
            steps.append(step)
            p.append(np.array([found[question.id] for question in task.questions]))

    config = {
        "name": "trl_witness",
        "arm": arm,
        "seed": seed,
        "task": {"kind": "one_token_sums"},
        "model": {"path": str(model), "device": "cpu"},
        "iterations": settings.steps,
        "training": {
            "update": "sampled",
            "beta": settings.beta,
            "normalization": {"kind": "finite_group", "group_size": settings.group_size},
            "groups": settings.groups,
            "kl": arm,
        },
        "optimization": {"learning_rate": settings.learning_rate, "betas": [0.9, BETA_2], "max_grad_norm": 1e9},
        "rollouts": {"engine": "generate"},
        "measurement": {"method": "enumerated", "every": settings.record_every},
    }
    ready = prepare(resolve(config), model, task=task)
    with ready.engine:
        iterate(ready, -1, keep, lambda done, total, what: None)
    return task, steps, p


def endings(table: pl.DataFrame) -> pl.DataFrame:
    """Per arm and question: p_ref, p_inf (mean over the last third of the run) and the arm's own prediction."""
    last = table.filter(pl.col("step") > pl.col("step").max().over("arm") * 2 / 3)
    keys = ["arm", "question_id", "p_ref", "predicted"]
    return last.group_by(keys, maintain_order=True).agg(pl.col("p").mean().alias("p_inf"))


def summary(table: pl.DataFrame) -> pl.DataFrame:
    """Per arm: medians over the questions of p_ref, p_inf, and of its distance to every prediction, its own first."""
    ends = endings(table)
    arms = ends["arm"].unique(maintain_order=True).to_list()
    for arm in arms:
        own = ends.filter(arm=arm).select("question_id", (pl.col("predicted")).alias(f"to_{arm}"))
        ends = ends.join(own, on="question_id", maintain_order="left")
    distances = [(pl.col("p_inf") - pl.col(f"to_{arm}")).abs().median().alias(f"to_{arm}") for arm in arms]
    own = (pl.col("p_inf") - pl.col("predicted")).abs().median().alias("to_own")
    medians = pl.col("p_ref", "p_inf").median()
    return ends.group_by("arm", maintain_order=True).agg(medians, own, *distances)


def separation(settings: Settings, p_ref: Any) -> dict[tuple[str, str], float]:
    """How far each two predictions are apart: the median over questions."""
    at = {arm: settings.prediction(arm, p_ref) for arm in ARMS}
    pairs = [(a, b) for i, a in enumerate(ARMS) for b in ARMS[i + 1 :]]
    return {(a, b): float(np.median(np.abs(at[a] - at[b]))) for a, b in pairs}


@styled
def draw(table: pl.DataFrame) -> Figure:
    figure = new_figure(7.4, 3.4)
    left, right = figure.subplots(1, 2)
    ends = endings(table)
    for arm in ends["arm"].unique(maintain_order=True):
        own = ends.filter(arm=arm).sort("p_ref")
        left.plot(own["p_ref"], own["predicted"], color=COLORS[arm], zorder=1)
        left.plot(own["p_ref"], own["p_inf"], "o", ms=3, color=COLORS[arm], alpha=0.7)
        right.plot(own["predicted"], own["p_inf"], "o", ms=3, color=COLORS[arm], alpha=0.7, label=NAMES[arm])
    left.set(xlabel=r"$p_{\mathrm{ref}}$", ylabel=r"$p_\infty$, mean over the last third")
    left.set_title("lines: predicted; points: measured")
    diagonal = np.array([ends["predicted"].min(), ends["predicted"].max()])
    right.plot(diagonal, diagonal, color=GREY, lw=1.0, zorder=0)
    right.fill_between(diagonal, diagonal - 0.05, diagonal + 0.05, color=GREY, alpha=0.15, lw=0, label="± 0.05")
    right.set(xlabel="predicted by the arm's own rule", ylabel=r"$p_\infty$ measured")
    right.legend()
    return figure


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="trl_witness", description=TITLE)
    parser.add_argument("--config", type=Path, default=Path(__file__).with_suffix(".toml"), help="a TOML file")
    parser.add_argument("--out", type=Path, default=Path("trl_witness"), help="folder of the results")
    parser.add_argument("--resume", action="store_true", help="go on where a killed run stopped")
    parser.add_argument("--smoke", action="store_true", help="fewer questions and steps: seconds, rough numbers")
    given = parser.parse_args(arguments)
    try:
        ends = witness(given.config, given.out, given.resume, given.smoke)
    except BadInput as error:
        print("error:", error, file=sys.stderr)
        return 2
    show(f"{TITLE}: medians over the questions", ends.with_columns(pl.selectors.float().round(3)))
    return 0


def witness(config: Path, out: Path, resume: bool, smoke: bool) -> pl.DataFrame:
    """Run a config; write table, manifest and picture; return the summary."""
    for name in ("torch", "transformers", "trl"):
        if importlib.util.find_spec(name) is None:
            raise BadInput(f"{name} must be installed for this: pip install 'grpo-dynamics[trl]'")
    with bad_input():
        table = read_toml(config) | (QUICK if smoke else {})
        seed = table.pop("seed", 0)
        if not isinstance(seed, int) or seed < 0:
            refuse("seed", "an integer >= 0", seed)
        run = run_of(config.stem, build(Settings, table, beside=("seed",)), seed, out)
    from transformers.utils import logging

    logging.disable_progress_bar()  # ours is shown instead
    with folder(out), progress() as tell, bad_input():
        made, _ = perform(run, resume, tell)
        save(draw(made), out / run.name)
    return summary(made)


if __name__ == "__main__":
    sys.exit(main())

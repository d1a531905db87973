"""Steps of GRPO per second against TRL: rollout, reward, loss and update, the same model, problem and objective.

Both trainers run in turn on one pinned thread. Timed is what lies between one update and the next; making the trainers
and their first step are not. Compared are CPU seconds, which other processes on the core do not lengthen: both are one
thread that never waits, so these are the seconds of an idle core. Wall-clock seconds are in the record as well.
Neither measures p or saves checkpoints meanwhile. Our trainer keeps a record of every completion; TRL does not.
"""

from __future__ import annotations

import dataclasses
import gc
import importlib.util
import itertools
import logging
import pathlib
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from typing import Any

from clock import table, verdict

BETA, GROUP, LEARNING_RATE = 0.1, 16, 1e-5
DIGITS = "0123456789"


@dataclasses.dataclass(frozen=True)
class Case:
    """A sampling problem: so many prompts of a length, completions of a length.

    Each question has so many likely answers; None: any digits, so that of 16 tokens no two completions are the same.
    """

    name: str
    prompts: int
    prompt_tokens: int
    completion_tokens: int
    answers: int | None
    target: float

    def questions(self) -> list[str]:
        """Digits and an equals sign; with the token that begins a text they have ``prompt_tokens``."""
        drawn = random.Random(0)
        return ["".join(drawn.choices(DIGITS, k=self.prompt_tokens - 2)) + "=" for _ in range(self.prompts)]

    def texts(self, each: int, seed: int) -> list[str]:
        """Every question some times, with one of its answers."""
        drawn, fixed = random.Random(seed), random.Random(0)

        def digits(source: random.Random) -> str:
            return "".join(source.choices(DIGITS, k=self.completion_tokens))

        likely = {q: [digits(fixed) for _ in range(self.answers or 0)] for q in self.questions()}
        return [
            q + (drawn.choice(known) if known else digits(drawn)) for q, known in likely.items() for _ in range(each)
        ]


CASES = (
    Case("16 tokens, prompts of 8", 8, 8, 16, None, target=1.3),
    Case("16 tokens, prompts of 24", 8, 24, 16, None, target=1.3),
    Case("3 tokens, 4 likely answers", 16, 8, 3, 4, target=2.0),
    Case("1 token", 32, 8, 1, None, target=2.0),
)


def reward(completion: str) -> float:
    """Right about half the time, whatever the case."""
    return float(completion[:1] in tuple("01234"))


def make(case: Case, folder: pathlib.Path, hidden_size: int, layers: int, steps: int) -> int:
    """Save a Llama that says the case's completions and never ends early; return its number of parameters."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from grpo_dynamics.training.sources.tokenizers import character_tokenizer

    torch.manual_seed(0)
    tokenizer = character_tokenizer([DIGITS + "="])
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        intermediate_size=3 * hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=hidden_size // 64,
        num_key_value_heads=hidden_size // 64,
        max_position_embeddings=64,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    model = LlamaForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for step in range(steps):
        ids = torch.tensor(
            [tokenizer(text)["input_ids"] for text in case.texts(each=2 if case.answers else 4, seed=step)]
        )
        labels = ids.clone()
        labels[:, : case.prompt_tokens] = -100
        optimizer.zero_grad()
        model(input_ids=ids, labels=labels).loss.backward()
        optimizer.step()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return sum(parameter.numel() for parameter in model.parameters())


@dataclasses.dataclass
class Clock:
    """Wall and CPU seconds between one update and the next."""

    wall: list[float] = dataclasses.field(default_factory=list)
    cpu: list[float] = dataclasses.field(default_factory=list)

    def tick(self) -> None:
        self.wall.append(time.perf_counter())
        self.cpu.append(time.process_time())

    def steps(self) -> tuple[list[float], list[float]]:
        """Return the seconds of each step, the first left out."""
        wall, cpu = ([b - a for a, b in itertools.pairwise(times[1:])] for times in (self.wall, self.cpu))
        return wall, cpu


def with_trl(
    case: Case,
    model: pathlib.Path,
    steps: int,
    seed: int,
    work: pathlib.Path,
    callback: Any = None,
    logged: bool = False,
) -> tuple[Clock, list[str]]:
    """Train some steps with TRL; return the clock and the completions that were rewarded.

    Args:
        case, model, steps, seed, work: what is trained, and where.
        callback: this package's for TRL, or none.
        logged: whether every step is.
    """
    from datasets import Dataset
    from transformers import AutoTokenizer, TrainerCallback
    from transformers.trainer_callback import PrinterCallback
    from trl import GRPOConfig, GRPOTrainer

    clock, said = Clock(), list[str]()

    class Tick(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            clock.tick()

    def rewarded(completions: list[str], **_: Any) -> list[float]:
        said.extend(completions)
        return [reward(completion) for completion in completions]

    options = GRPOConfig(
        output_dir=str(work / "trl"),
        beta=BETA,
        num_generations=GROUP,
        max_completion_length=case.completion_tokens,
        per_device_train_batch_size=case.prompts * GROUP,
        learning_rate=LEARNING_RATE,
        lr_scheduler_type="constant",
        max_steps=steps + 2,
        seed=seed,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to=[],
        logging_strategy="steps" if logged else "no",
        logging_steps=1,
        save_strategy="no",
        disable_tqdm=True,
    )
    trainer = GRPOTrainer(
        model=str(model),
        reward_funcs=rewarded if callback is None else callback.watch(rewarded),
        args=options,
        train_dataset=Dataset.from_dict({"prompt": case.questions()}),
        processing_class=AutoTokenizer.from_pretrained(model),
        callbacks=[Tick()] if callback is None else [Tick(), callback],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return clock, said


def with_ours(case: Case, model: pathlib.Path, steps: int, seed: int) -> tuple[Clock, list[str], float]:
    """Train some steps with this package; return the clock, the completions, and the share of them that were new."""
    from grpo_dynamics.training.arm import prepare
    from grpo_dynamics.training.config import resolve
    from grpo_dynamics.training.records import Rows
    from grpo_dynamics.training.tasks import Question, Task
    from grpo_dynamics.training.trainer import iterate
    from grpo_dynamics.training.verifiers import Verdict, verdict

    clock, said, different = Clock(), list[str](), set[tuple[Any, ...]]()

    def verifier(questions: Sequence[Any], completions: Sequence[str]) -> list[Verdict]:
        return [verdict(bool(reward(completion))) for completion in completions]

    def keep(n: int, rows: Rows, _: bool) -> None:
        said.extend(row["completion"] for row in rows["completions"])
        different.update((n, row["question_id"], row["completion"]) for row in rows["completions"])

    questions = tuple(Question(str(i), prompt, "") for i, prompt in enumerate(case.questions()))
    table = {
        "name": "speed",
        "task": {"kind": "one_token_sums"},  # the one below takes its place
        "model": {"path": str(model), "device": "cpu"},
        "iterations": steps + 2,
        "seed": seed,
        "training": {
            "update": "sampled",
            "beta": BETA,
            "normalization": {"kind": "finite_group", "group_size": GROUP, "eps": 1e-4, "ddof": 1},
            "kl": "k3_times_ratio",
            "kl_level": "token",
            "ratio_level": "token",
            "clip_low": 0.2,
            "clip_high": 0.2,
            "aggregation": "token_mean",
        },
        "optimization": {"learning_rate": LEARNING_RATE, "betas": [0.9, 0.999], "max_grad_norm": 1.0},
        "rollouts": {"engine": "generate"},
        "measurement": {"method": "sampled", "samples": 1, "every": steps + 2},
    }
    arm = prepare(resolve(table), model, task=Task(case.name, questions, verifier, case.completion_tokens))
    with arm.engine:
        iterate(arm, 0, keep, lambda done, total, what: clock.tick() if done < total else None)
    return clock, said, len(different) / len(said)


def measure(quick: bool) -> dict[str, object]:
    """Steps per second of both, and their ratio."""
    missing = [name for name in ("torch", "transformers", "trl") if importlib.util.find_spec(name) is None]
    if missing:
        table("Training against TRL", [("skipped", "", f"not installed: {', '.join(missing)}")])
        return {"skipped": f"not installed: {', '.join(missing)}"}
    import torch
    import transformers
    import trl

    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    logging.getLogger("accelerate").setLevel(logging.ERROR)
    hidden_size, layers, learned, steps, rounds = (64, 1, 2, 1, 1) if quick else (256, 5, 40, 3, 3)
    result: dict[str, object] = {"torch": torch.__version__, "transformers": transformers.__version__}
    result |= {"trl": trl.__version__, "group_size": GROUP}
    rows: list[tuple[str, str, str]] = []
    parameters = 0
    for case in CASES:
        with tempfile.TemporaryDirectory() as folder:
            work = pathlib.Path(folder)
            parameters = make(case, work / "model", hidden_size, layers, learned * 3 if case.answers else learned)
            found = compare(case, work, steps, rounds)
        result[case.name] = dataclasses.asdict(case) | found
        ratio = found["times_faster"]
        rows.append(
            (
                case.name,
                f"{ratio:.2f} × TRL",
                f"{verdict(ratio, case.target, at_least=True)}; {found['ours']['cpu_seconds']:.3f} s a step against "
                f"{found['trl']['cpu_seconds']:.3f} s; {found['times_faster_by_the_clock']:.2f} × by the clock; "
                f"{found['different']:.0%} of a group's completions differ",
            )
        )
    title = (
        f"A step of GRPO, groups of {GROUP}, {parameters / 1e6:.1f}M parameters (medians of {rounds} × {steps} steps)"
    )
    table(title, rows)
    return result | {"parameters": parameters}


def compare(case: Case, work: pathlib.Path, steps: int, rounds: int) -> dict[str, Any]:
    """Medians over all steps of both, which run in turn; the ratio of each round beside them."""
    wall: dict[str, list[list[float]]] = {"trl": [], "ours": []}
    cpu: dict[str, list[list[float]]] = {"trl": [], "ours": []}
    said: dict[str, list[str]] = {"trl": [], "ours": []}
    different = 1.0
    for turn in range(rounds):
        for name in wall:
            gc.collect()
            model = work / "model"
            if name == "trl":
                clock, texts = with_trl(case, model, steps, turn, work)
            else:
                clock, texts, different = with_ours(case, model, steps, turn)
            seconds, own = clock.steps()
            wall[name].append(seconds)
            cpu[name].append(own)
            said[name] += texts
    found: dict[str, Any] = {}
    for name in wall:
        found[name] = {
            "seconds": statistics.median(itertools.chain(*wall[name])),
            "cpu_seconds": statistics.median(itertools.chain(*cpu[name])),
            "mean_reward": statistics.mean(map(reward, said[name])),
            "mean_digits": statistics.mean(sum(c in DIGITS for c in text) for text in said[name]),
        }
    found["times_faster"] = found["trl"]["cpu_seconds"] / found["ours"]["cpu_seconds"]
    found["times_faster_by_the_clock"] = found["trl"]["seconds"] / found["ours"]["seconds"]
    pairs = zip(cpu["trl"], cpu["ours"], strict=True)
    found["times_faster_by_round"] = [statistics.median(a) / statistics.median(b) for a, b in pairs]
    found["different"] = different
    return found

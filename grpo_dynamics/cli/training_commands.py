"""The commands that train language models and judge the runs. What each needs, it imports itself."""

from pathlib import Path
from typing import Annotated

import typer

from grpo_dynamics.cli import options
from grpo_dynamics.cli.errors import choice, number, path

KINDS = ("trl", "verl", "open-instruct", "nano-aha", "generic")
"""What ``validate --from`` reads."""


def make_model_command(
    task: Annotated[
        str | None,
        typer.Option("--task", metavar="KIND", help="one_token_sums, sums, countdown, ... Required."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="A new folder. Required.", parser=path("out", "a folder")),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", metavar="KEY=VALUE", help="An option of the task, such as largest=19; repeatable."),
    ] = None,
    hidden_size: Annotated[
        int, typer.Option("--hidden-size", metavar="N", help="Width of the model, a multiple of the heads'.")
    ] = 128,
    layers: Annotated[int, typer.Option("--layers", metavar="N", help="Layers of the model.")] = 3,
    head_size: Annotated[
        int, typer.Option("--head-size", metavar="N", help="Width of an attention head, a multiple of 32.")
    ] = 32,
    steps: Annotated[int, typer.Option("--steps", metavar="N", help="Most steps of the pre-training.")] = 600,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Of the corpus and of the weights.")] = 0,
    device: Annotated[
        str, typer.Option("--device", metavar="NAME", help="cpu, or a GPU: cuda, cuda:1. The model is the same kind.")
    ] = "cpu",
    precision: Annotated[
        str,
        typer.Option("--precision", metavar="NAME", help="float32, or bf16: the layers in bfloat16, quick on a GPU."),
    ] = "float32",
    time_limit: Annotated[
        float | None,
        typer.Option(
            "--time-limit",
            metavar="MINUTES",
            help="Stop after so long, with exit code 3: the same command goes on. Default: no limit.",
            parser=number("time_limit", "a positive number of minutes"),
        ),
    ] = None,
    as_json: options.Json = False,
) -> int:
    """Make a small language model that knows a task in part.

    A Llama with a tokenizer of characters reads a noisy corpus of the task:
    each question has right and wrong answers, right ones with a frequency
    between 0.0007 and 0.995. What it has learned is p_ref of the questions,
    spread between 0 and 1. Written are model and tokenizer, as transformers
    has them, the corpus (parquet) and a manifest (JSON: settings, versions,
    seconds, p_ref). The same seed gives the same model on one machine; a
    folder with the model of the same settings is left as it is.

    Examples:
      grpo-dynamics make-model --task one_token_sums --out models/sums
      grpo-dynamics make-model --task sums --option largest=19 --out model
      grpo-dynamics make-model --task one_token_sums --hidden-size 256
        --layers 6 --out models/large
      grpo-dynamics make-model --task sums --out models/100M --device cuda
        --hidden-size 1024 --layers 10 --head-size 64 --precision bf16
    """
    from grpo_dynamics.cli.make_model import make

    return make(
        task,
        out,
        option or [],
        as_json,
        minutes=time_limit,
        hidden_size=hidden_size,
        layers=layers,
        head_size=head_size,
        steps=steps,
        seed=seed,
        device=device,
        precision=precision,
    )


def run_command(
    config: Annotated[str | None, typer.Option("--config", metavar="FILE", help="A TOML file. Required.")] = None,
    out: Annotated[
        Path,
        typer.Option(
            "--out", metavar="DIR", help="The run's folder goes here, under its name.", parser=path("out", "a folder")
        ),
    ] = Path("runs"),
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on where a killed run stopped, on a CPU with identical results; start if there is none.",
        ),
    ] = False,
    time_limit: Annotated[
        float | None,
        typer.Option(
            "--time-limit",
            metavar="MINUTES",
            help="Stop after so long, whole, with exit code 3: --resume goes on. Default: no limit.",
            parser=number("time_limit", "a positive number of minutes"),
        ),
    ] = None,
    smoke: Annotated[
        bool, typer.Option("--smoke", help="Train the small form in the config's table [smoke], on a CPU.")
    ] = False,
    unsafe_no_sandbox: Annotated[
        bool,
        typer.Option(
            "--unsafe-no-sandbox", help="Run the programs of python_functions with your own rights; else it refuses."
        ),
    ] = False,
    as_json: options.Json = False,
) -> int:
    """Train a language model with GRPO and measure p of every question.

    A config says which task, model and update rule, and for how long; each of
    its arms changes some of that. Written are every completion, every
    measured p, every step (parquet), scalars for TensorBoard, and a manifest.
    Whatever moment a run is killed at, --resume goes on from its last
    checkpoint, and ends with the tables of a run that was never stopped. On
    several GPUs or nodes: accelerate launch -m grpo_dynamics.cli run ...

    Examples:
      grpo-dynamics run --config experiments/cpu_arithmetic.toml
      grpo-dynamics run --config my_run.toml --out runs --resume
      grpo-dynamics run --config my_run.toml --time-limit 9 --resume
    """
    from grpo_dynamics.cli.run import run_training

    return run_training(config, out, resume, as_json, unsafe_no_sandbox, time_limit, smoke)


_DUMP = "Runs of other trainers"


def validate_command(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN_DIR",
            help="Folder of a run, or of one of its arms; with --from what the trainer wrote.",
            parser=path("run", "a folder"),
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="DIR",
            help="Folder to write to. Default: validation/ in the run's own.",
            parser=path("out", "a folder"),
        ),
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="KIND",
            help="What wrote the completions: trl, verl, open-instruct, nano-aha, or generic for a table of any origin "
            "(.csv, .jsonl, .parquet, or a folder of them).",
            rich_help_panel=_DUMP,
            parser=choice("from", KINDS),
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            metavar="FILE",
            help="The trainer's settings: .json, .yaml or .toml. Default: looked for beside the dump.",
            rich_help_panel=_DUMP,
            parser=path("config", "a file"),
        ),
    ] = None,
    p_ref: Annotated[
        Path | None,
        typer.Option(
            "--p-ref",
            metavar="FILE",
            help="Success counts before training: question_id, successes, samples (.csv, .jsonl, .parquet). Default: "
            "what was sampled before the first update; else the first visit, as an upper bound.",
            rich_help_panel=_DUMP,
            parser=path("p_ref", "a file"),
        ),
    ] = None,
    trainer: Annotated[
        str | None,
        typer.Option("--trainer", metavar="NAME", help="Which one wrote a generic table.", rich_help_panel=_DUMP),
    ] = None,
    trainer_version: Annotated[
        str | None,
        typer.Option(
            "--trainer-version",
            metavar="V",
            help="Such as 1.16. Default: as the run says, or the newest that was read.",
            rich_help_panel=_DUMP,
        ),
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="An option of the trainer, over its config, such as beta=0.04; repeatable.",
            rich_help_panel=_DUMP,
        ),
    ] = None,
    success_column: Annotated[
        str | None,
        typer.Option(
            "--success-column",
            metavar="NAME",
            help="The column that says right or wrong. Default: the only reward, acc, or score.",
            rich_help_panel=_DUMP,
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            "--threshold",
            metavar="X",
            help="Right is a reward of at least X. Default: rewards of two values say it themselves.",
            rich_help_panel=_DUMP,
            parser=number("threshold", "a number"),
        ),
    ] = None,
    question_column: Annotated[
        str | None,
        typer.Option(
            "--question-column",
            metavar="NAME",
            help="The column that names the question. Default: question_id if there is one, else the prompt.",
            rich_help_panel=_DUMP,
        ),
    ] = None,
    step_column: Annotated[
        str | None,
        typer.Option(
            "--step-column",
            metavar="NAME",
            help="The column of the steps of a generic table. Default: iteration, step or global_step.",
            rich_help_panel=_DUMP,
        ),
    ] = None,
    first_step: Annotated[
        int | None,
        typer.Option(
            "--first-step",
            metavar="N",
            help="The step whose completions are of the policy before training. Default: as the trainer counts.",
            rich_help_panel=_DUMP,
            parser=number("first_step", "an integer", int),
        ),
    ] = None,
    window: Annotated[
        int | None,
        typer.Option(
            "--window",
            metavar="N",
            help="Count N dumped steps together. Default: so many that each question is seen about once in each.",
            rich_help_panel=_DUMP,
            parser=number("window", "an integer >= 1", int),
        ),
    ] = None,
    which: Annotated[
        str | None,
        typer.Option("--run", metavar="NAME", help="Which run of a folder of open-instruct's.", rich_help_panel=_DUMP),
    ] = None,
    as_json: options.Json = False,
) -> int:
    """Lay what a run measured over what the theory predicts of it.

    The settings of the run say which theory applies; it starts from the
    measured p_ref, and nothing in it is fitted. Written are one HTML page,
    the pictures (PNG, PDF), the tables (parquet) and the numbers (JSON). A
    run that is not finished is compared as far as it is. The exit code is 1
    if a threshold in the table "validation" of its config is not met.
    With --from it reads what another trainer has dumped: every completion
    goes into completions.parquet, and p of a question is k of n of them.

    Examples:
      grpo-dynamics validate runs/cpu_arithmetic
      grpo-dynamics validate runs/cpu_arithmetic/beta_1 --out report --json
      grpo-dynamics validate output_dir --from trl --config grpo.yaml
      grpo-dynamics validate rollouts --from verl --p-ref base_model.csv
      grpo-dynamics validate log.csv --from generic --trainer oat
        --set beta=0.1
    """
    from grpo_dynamics.cli.validate import Reading, validate_run

    reading = Reading(
        kind=kind,
        config=config,
        p_ref=p_ref,
        trainer=trainer,
        trainer_version=trainer_version,
        setting=tuple(setting or ()),
        success_column=success_column,
        threshold=threshold,
        question_column=question_column,
        step_column=step_column,
        first_step=first_step,
        window=window,
        run=which,
    )
    return validate_run(run, out, reading, as_json)

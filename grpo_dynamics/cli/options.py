"""What the commands take: options that explain and check themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from grpo_dynamics.cli.errors import choice, number, path, refuse
from grpo_dynamics.cli.settings import ALPHA, BETA, GROUP_SIZE, PROBABILITY, VARIANTS


def steps_parser(text: Any) -> int:
    """Parse a number of iterations."""
    steps = number("steps", "an integer from 0 to 100000", int)(text)
    if not 0 <= steps <= 100_000:
        refuse("steps", "an integer from 0 to 100000", steps)
    return steps


def confidence_parser(text: Any) -> float:
    """Parse a confidence level."""
    level = number("confidence", PROBABILITY)(text)
    if not 0 < level < 1:
        refuse("confidence", PROBABILITY, level)
    return level


def _option(flag: str, metavar: str, help_text: str, panel: str = "Dynamics", parser: Any = None) -> Any:
    return typer.Option(flag, metavar=metavar, help=help_text, rich_help_panel=panel, parser=parser)


Beta = Annotated[
    float | None,
    _option("--beta", "β", "KL strength, any number > 0. Required.", parser=number("beta", BETA)),
]
PRef = Annotated[
    float | None,
    _option(
        "--p-ref",
        "P",
        "Success probability of the reference policy, between 0 and 1 (exclusive).",
        parser=number("p_ref", PROBABILITY),
    ),
]
P0 = Annotated[
    float | None,
    _option(
        "--p0",
        "P",
        "Success probability at the start, between 0 and 1 (exclusive). Default: p_ref.",
        parser=number("p0", PROBABILITY),
    ),
]
Variant = Annotated[
    str,
    _option(
        "--variant",
        "NAME",
        "grpo; dr_grpo (no division by the standard deviation); mirror_grpo, mirror_dr_grpo (KL to the previous "
        "policy only); two_kl, two_kl_dr_grpo (KL to both; the same as grpo and dr_grpo with --alpha).",
        parser=choice("variant", list(VARIANTS)),
    ),
]
Alpha = Annotated[
    float | None,
    _option(
        "--alpha",
        "α",
        "Share of the KL to the reference, from 0 to 1; the rest is to the previous policy. Default: 1 with grpo and "
        "dr_grpo, 0 with the mirror variants, which take no other; required with the two_kl variants.",
        parser=number("alpha", ALPHA),
    ),
]
Eps = Annotated[
    float | None,
    _option(
        "--eps",
        "ε",
        "Smoothing of the standard deviation, >= 0. Default: 1e-5, with --group-size 0. Like --eps-placement and "
        "--ddof without effect in the dr_grpo variants, which have none; a note says so.",
        parser=number("eps", "a finite number >= 0"),
    ),
]
EpsPlacement = Annotated[
    str | None,
    _option(
        "--eps-placement",
        "WHERE",
        "variance: √(p(1−p)+ε), as the paper; std: √(p(1−p))+ε, as most trainers. Default: variance, with "
        "--group-size std.",
        parser=choice("eps_placement", ["variance", "std"]),
    ),
]
GroupSize = Annotated[
    int | None,
    _option(
        "--group-size",
        "G",
        f"Completions per question, {GROUP_SIZE.removeprefix('an ')}: advantages from the mean and standard "
        "deviation of G samples. Default: exact statistics (G = ∞).",
        parser=number("group_size", GROUP_SIZE, int),
    ),
]
Ddof = Annotated[
    int | None,
    _option(
        "--ddof",
        "0|1",
        "Standard deviation of a group divides by G (0) or G−1 (1, torch.std). Default: 0. Needs --group-size.",
        parser=choice("ddof", [0, 1], int),
    ),
]
SilentGroups = Annotated[
    str | None,
    _option(
        "--silent-groups",
        "keep|drop",
        "Groups all right or all wrong: count as zero advantage (keep), or are sampled anew (drop). Default: keep. "
        "Needs --group-size.",
        parser=choice("silent_groups", ["keep", "drop"]),
    ),
]
Target = Annotated[
    float | None,
    _option(
        "--target",
        "P",
        "Wanted success probability, between p_ref and 1 (exclusive). Required.",
        "Target",
        number("target", PROBABILITY),
    ),
]
_TRAINER = "A trainer's own options"
Trainer = Annotated[
    str | None,
    _option(
        "--trainer",
        "NAME",
        "trl, verl, openrlhf, oat, open-instruct, nano-aha-moment, simple_GRPO, open-reasoner-zero or prime-rl. Then "
        "--beta and --group-size are its options of that meaning, and its version's defaults stand for the rest.",
        _TRAINER,
    ),
]
TrainerVersion = Annotated[
    str | None,
    _option("--trainer-version", "V", "Such as 1.16. Default: the newest that was read.", _TRAINER),
]
TrainerSet = Annotated[
    list[str] | None,
    _option(
        "--set",
        "NAME=VALUE",
        "An option of the trainer by its own name, such as scale_rewards=none; repeatable. reward_scale is what a "
        "right answer earns.",
        _TRAINER,
    ),
]
_FILE = "Questions from a file"
From = Annotated[
    Path | None,
    _option(
        "--from",
        "FILE",
        "Table of questions: .csv, .jsonl or .parquet, by its ending. Replaces --p-ref.",
        _FILE,
        path("file", "a file name that ends in .csv, .jsonl, .parquet"),
    ),
]
Out = Annotated[
    Path | None,
    _option(
        "--out",
        "FILE",
        "Predictions per question: .csv, .jsonl or .parquet. Default: beside the table, as NAME.predictions.parquet.",
        _FILE,
        path("out", "a file name that ends in .csv, .jsonl, .parquet"),
    ),
]
IdColumn = Annotated[
    str | None, _option("--id-column", "NAME", "Default: question_id, prompt_id, id, question or prompt.", _FILE)
]
RateColumn = Annotated[
    str | None,
    _option(
        "--rate-column",
        "NAME",
        "Success rates from 0 to 1. Default: p_ref, success_rate, pass_rate, accuracy, rate or p.",
        _FILE,
    ),
]
SuccessesColumn = Annotated[
    str | None,
    _option(
        "--successes-column",
        "NAME",
        "Numbers of correct samples. Default: successes, num_correct, n_correct, correct or k.",
        _FILE,
    ),
]
SamplesColumn = Annotated[
    str | None,
    _option(
        "--samples-column",
        "NAME",
        "Numbers of samples. Default: samples, num_samples, n_samples, total or n.",
        _FILE,
    ),
]
Confidence = Annotated[
    float,
    _option(
        "--confidence",
        "P",
        "Confidence of the intervals (Wilson's score interval for successes of samples).",
        _FILE,
        confidence_parser,
    ),
]
Steps = Annotated[int, _option("--steps", "N", "Iterations to show, an integer from 0 to 100000.", parser=steps_parser)]
Plot = Annotated[
    Path | None,
    _option(
        "--plot",
        "FILE",
        "Cobweb and trajectory as a picture: a file name that ends in .png, .pdf or .svg.",
        "Output",
        path("plot", "a file name that ends in .png, .pdf, .svg"),
    ),
]
Folder = Annotated[
    Path, typer.Option("--out", metavar="DIR", help="Folder to write to.", parser=path("out", "a folder"))
]
Json = Annotated[
    bool,
    typer.Option(
        "--json",
        help="Print one JSON object and nothing else; null: no value, the string inf: infinite.",
        rich_help_panel="Output",
    ),
]

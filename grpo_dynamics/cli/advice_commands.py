"""The command that says which β suits a set of questions. What it needs, it imports itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from grpo_dynamics.cli import options
from grpo_dynamics.cli.errors import missing, number, refuse
from grpo_dynamics.cli.ranges import Range, range_parser
from grpo_dynamics.cli.settings import BETA, LARGEST_GROUP, PROBABILITY

SIZES = f"integers from 2 to {LARGEST_GROUP}, or inf, between commas"
COUNTS = "integers from 1 to 1000000 between commas"


def _several(name: str, allowed: str, smallest: int, largest: int, infinite: bool) -> Callable[[Any], Any]:
    """Return a parser of integers between commas; inf is None, where it is allowed."""

    def parse(text: Any) -> tuple[int | None, ...]:
        found: list[int | None] = []
        for part in str(text).split(","):
            value = None if infinite and part.strip() == "inf" else number(name, allowed, int)(part)
            if value is not None and not smallest <= value <= largest:
                refuse(name, allowed, text)
            found.append(value)
        if len(set(found)) < len(found):
            refuse(name, f"{allowed}, each once", text)
        return tuple(found)

    return parse


def _share(name: str) -> Callable[[Any], float]:
    def parse(text: Any) -> float:
        value = number(name, PROBABILITY)(text)
        if not 0 < value < 1:
            refuse(name, PROBABILITY, value)
        return value

    return parse


def _option(flag: str, metavar: str, help_text: str, panel: str, parser: Any) -> Any:
    return typer.Option(flag, metavar=metavar, help=help_text, rich_help_panel=panel, parser=parser)


_CANDIDATES, _AIM = "Candidates", "What counts"
BetaRange = Annotated[
    Range | None,
    _option(
        "--beta-range",
        "LOW:HIGH",
        "Ten β to a decade. Default: 0.001:10 with --trainer, else 0.01:10.",
        _CANDIDATES,
        range_parser("beta_range", BETA, lambda x: 0 < x < float("inf")),
    ),
]
GroupSizes = Annotated[
    Any,
    _option(
        "--group-sizes",
        "G,G,...",
        "Group sizes; inf: exact statistics, without --trainer. Default: 4,8,16.",
        _CANDIDATES,
        _several("group_sizes", SIZES, 2, LARGEST_GROUP, True),
    ),
]
K = Annotated[
    Any,
    _option("--k", "K,K,...", "Of pass@k. Default: 1,8,64.", _AIM, _several("k", COUNTS, 1, 1_000_000, False)),
]
Gain = Annotated[
    float,
    _option("--gain", "P", "Amplified is a question that loses this share of its failures.", _AIM, _share("gain")),
]
Budget = Annotated[
    int,
    _option(
        "--budget",
        "N",
        "Samples that training spends on each question; whose groups are all silent by then, it cannot move.",
        _AIM,
        number("budget", "an integer >= 1", int),
    ),
]
Floor = Annotated[
    float,
    _option("--floor", "P", "A p_ref below this is too rare to be worth more samples.", _AIM, _share("floor")),
]
Confidence = Annotated[
    float,
    _option("--confidence", "P", "Of the intervals and of what no success says.", _AIM, _share("confidence")),
]


def advise_command(
    source: options.From = None,
    trainer: options.Trainer = None,
    trainer_version: options.TrainerVersion = None,
    trainer_set: options.TrainerSet = None,
    variant: options.Variant = "grpo",
    alpha: options.Alpha = None,
    eps: options.Eps = None,
    eps_placement: options.EpsPlacement = None,
    ddof: options.Ddof = None,
    silent_groups: options.SilentGroups = None,
    beta_range: BetaRange = None,
    group_sizes: GroupSizes = "4,8,16",
    k: K = "1,8,64",
    gain: Gain = 0.5,
    budget: Budget = 256,
    floor: Floor = 0.01,
    confidence: Confidence = 0.95,
    out: options.Folder = Path("advice"),
    id_column: options.IdColumn = None,
    successes_column: options.SuccessesColumn = None,
    samples_column: options.SamplesColumn = None,
    as_json: options.Json = False,
) -> None:
    """Say which β and group size suit a set of questions, before training.

    FILE has how often a base model answered each question right: an id, and
    the numbers of successes and of samples. For every β and G the theory says
    where each question goes; advised is what amplifies the most questions
    without a second stable state or an oscillation, and of what is as good,
    that which moves the policy least. A few samples do not say what p_ref is:
    everything is a mean over Jeffreys' posterior Beta(k+½, n−k+½) of each
    question. Printed are also the questions that cannot move, as all their
    groups are silent, and pass@k before and after. Written are a picture (PNG,
    PDF), and the tables of candidates and of questions (parquet and CSV).

    Examples:
      grpo-dynamics advise --from questions.csv --trainer trl
      grpo-dynamics advise --from questions.csv --beta-range 0.1:2 --k 1,4
      grpo-dynamics advise --from questions.csv --trainer verl --gain 0.2
        --group-sizes 8,32 --budget 1024 --out advice --json

    With --trainer it is the flow that small steps follow, with the trainer's
    own KL term; without, the iteration that solves every step to its end.
    """
    from grpo_dynamics.cli.advise import advise_on, trainer_rule, variant_rule

    if source is None:
        missing("from", "a table of questions: .csv, .jsonl or .parquet")
    columns = {"id_column": id_column, "successes_column": successes_column, "samples_column": samples_column}
    aim = {"gain": gain, "budget": budget, "confidence": confidence, "floor": floor}
    settings = {"alpha": alpha, "eps": eps, "eps_placement": eps_placement, "ddof": ddof}
    settings["silent_groups"] = silent_groups
    if trainer is not None:
        rule = trainer_rule(trainer, trainer_version, trainer_set or [], group_sizes, variant, settings)
    else:
        rule = variant_rule(variant, settings, group_sizes, trainer_version, trainer_set or [])
    advise_on(source, columns, rule, beta_range, k, aim, out, as_json)

"""`grpo-dynamics advise`: the β for a set of questions, in a sentence, tables and a picture."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from grpo_dynamics import __version__
from grpo_dynamics.arrays import Array
from grpo_dynamics.cli.errors import bad_input, leave_out, refuse, writing
from grpo_dynamics.cli.output import brief, facts, print_json, print_notes, progress, screen, table
from grpo_dynamics.cli.paper import folder
from grpo_dynamics.cli.ranges import Range
from grpo_dynamics.cli.settings import Settings
from grpo_dynamics.cli.trainers import chosen_trainer, describe, parse_setting
from grpo_dynamics.theory.flow import Flow
from grpo_dynamics.theory.recursion import Recursion
from grpo_dynamics.theory.trainers import preset

if TYPE_CHECKING:
    from grpo_dynamics.advice import Advice

PREFERRED = (1.0, 1.25, 1.6, 2.0, 2.5, 3.15, 4.0, 5.0, 6.3, 8.0)
"""Ten numbers to a decade that people write down (ISO 3, R10)."""

FILES = ("candidates.parquet", "candidates.csv", "questions.parquet", "questions.csv")
"""The tables that are written."""

WIDEST = 1e12
"""Largest of the β tried over the smallest."""


@dataclasses.dataclass(frozen=True)
class Rule:
    """An update rule for every β and G: its words, its description, its dynamics, and the β and G to try."""

    title: str
    described: dict[str, Any]
    dynamics: Any
    betas: Range
    group_sizes: Sequence[int | None]
    notes: tuple[str, ...] = ()
    not_modelled: tuple[str, ...] = ()


def trainer_rule(
    name: str,
    version: str | None,
    given: list[str],
    group_sizes: Sequence[int | None],
    variant: str,
    settings: dict[str, Any],
) -> Rule:
    """Return the flow of a trainer with its options."""
    leave_out("with --trainer", variant=None if variant == "grpo" else variant, **settings)
    if None in group_sizes:
        refuse("group_sizes", "integers with --trainer, whose groups are finite", "inf")

    def dynamics(beta: Array, group_size: int | None, p_ref: Array) -> Flow:
        return chosen_trainer(name, version, beta, group_size, given).at(p_ref)  # pyright: ignore[reportArgumentType]

    with bad_input():
        known = preset(name)
    try:
        known.shorthand(1.0, None)
    except ValueError:
        refuse("trainer", "one with a KL term to a reference for advice on β", name)
    found = chosen_trainer(name, version, 1.0, group_sizes[0], given)
    notes: list[str] = []
    if found.at(0.5).divergence == "none":
        notes.append("β has no effect with these options: on average nothing pulls to the reference")
    if getattr(found.normalization, "group_size", None) is None:
        group_sizes = (None,)
        notes.append("group_sizes has no effect with these options: a critic, taken as exact, is in place of groups")
    words = {key: value for key, value in describe(found).items() if key not in ("beta", "advantage", "options")}
    options = dict(parse_setting(text) for text in given)
    return Rule(
        f"{found.title} {found.version}",
        {"trainer": {**words, "options": options}},
        dynamics,
        Range(0.001, 10.0),
        group_sizes,
        tuple(notes),
        found.not_modelled,
    )


def variant_rule(
    variant: str,
    settings: dict[str, Any],
    group_sizes: Sequence[int | None],
    version: str | None,
    given: list[str],
) -> Rule:
    """Return the recursion of a variant."""
    leave_out("without --trainer", trainer_version=version, set=" ".join(given) or None)
    finite = {name: settings[name] for name in ("ddof", "silent_groups")}
    if None in group_sizes:
        leave_out("with --group-sizes inf", **finite)
    chosen = {
        size: Settings(variant, settings["alpha"], settings["eps"], settings["eps_placement"], size, **finite)
        for size in group_sizes
    }

    def dynamics(beta: Array, group_size: int | None, p_ref: Array) -> Recursion:
        return Recursion(beta, p_ref, chosen[group_size].normalization(), chosen[group_size].anchor())

    first = chosen[group_sizes[0]]
    described = {key: value for key, value in first.describe().items() if key != "group_size"}
    return Rule(variant, {"settings": described}, dynamics, Range(0.01, 10.0), group_sizes, tuple(first.notes()))


def preferred(low: float, high: float) -> Array:
    """Return the β to try: preferred numbers from low to high, eleven others where there are not two.

    >>> preferred(0.1, 1.0)
    array([0.1  , 0.125, 0.16 , 0.2  , 0.25 , 0.315, 0.4  , 0.5  , 0.63 , 0.8  , 1.   ])
    """
    if high / low > WIDEST:
        refuse("beta_range", f"LOW:HIGH with HIGH at most {WIDEST:g} times LOW", f"{low:g}:{high:g}")
    decades = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
    values = np.array([float(f"{number}e{decade}") for decade in decades for number in PREFERRED])
    inside = values[(values >= low * (1 - 1e-9)) & (values <= high * (1 + 1e-9))]
    return inside if inside.size > 1 else np.geomspace(low, high, 11)


def advise_on(
    source: Path,
    columns: dict[str, str | None],
    rule: Rule,
    beta_range: Range | None,
    ks: Sequence[int],
    aim: dict[str, Any],
    out: Path,
    as_json: bool,
) -> None:
    """Read the questions, write picture and tables, and print the advice."""
    from grpo_dynamics.advice import advise
    from grpo_dynamics.advice_plot import draw
    from grpo_dynamics.forecast import Goal
    from grpo_dynamics.plotting import save, write_whole
    from grpo_dynamics.question_files import read_questions, table_bytes

    chosen = beta_range or rule.betas
    with progress() as tell, bad_input():
        questions = read_questions(source, **columns)
        for name in FILES:
            if (out / name).exists() and (out / name).samefile(source):
                refuse("out", f"a folder where {name} is not the table of questions itself", str(out))
        betas = preferred(chosen.low, chosen.high)
        found = advise(questions, rule.dynamics, betas.tolist(), rule.group_sizes, ks, Goal(**aim), tell)
    notes = (*rule.notes, *questions.notes)
    files: list[Path] = []
    with folder(out), writing("out", out):
        files += save(draw(found, f"{source.name}, {rule.title}"), out / "advice")
        for name in FILES:
            rows = found.candidates if name.startswith("candidates") else found.questions
            files.append(write_whole(out / name, table_bytes(rows, out / name)))
    if as_json:
        print_json(
            {
                "command": "advise",
                "version": __version__,
                **rule.described,
                "from": str(source),
                "aim": dataclasses.asdict(found.aim),
                "verdict": verdict(found),
                **as_dict(found),
                "notes": list(notes),
                "not_modelled": list(rule.not_modelled),
                "files": [str(file) for file in files],
            }
        )
        return
    show(found, source, rule, out, files)
    print_notes(notes)


def as_dict(found: Advice) -> dict[str, Any]:
    """Return the advice in plain Python values."""
    return {
        "beta": found.beta if found.helps else None,
        "group_size": found.group_size if found.helps else None,
        "questions": found.questions.height,
        "amplified_safely": {"expected": found.expected, "spread": found.spread},
        "whole_steps_oscillate": found.whole_steps,
        "advised": _row(found) if found.helps else None,
        "computed_at": {"beta": found.beta, "group_size": found.group_size},
        "best_of_each_group_size": best_of_each(found),
        "cannot_move": stuck(found),
        "pass_at_k": found.passes.to_dicts(),
    }


def verdict(found: Advice) -> str:
    """Return the advice in one plain sentence."""
    number, of = found.expected, found.questions.height
    groups = "exact statistics" if found.group_size is None else f"groups of {found.group_size}"
    which = f"β = {brief(found.beta)} with {groups}"
    if not found.helps:
        return (
            "No candidate amplifies any question without a surprise: try other β, or a smaller gain. "
            f"What follows is for {which}."
        )
    sure = f" ± {found.spread:.0f}" if found.spread >= 0.5 else ""
    return (
        f"{which}: {number:.0f}{sure} of {of} questions lose at least "
        f"{found.aim.gain:.0%} of their failures, without a surprise."
    )


def best_of_each(found: Advice) -> list[dict[str, Any]]:
    """Return the candidate of each group size that amplifies nearly the most, moving the policy least."""
    from grpo_dynamics.advice import chosen

    parts = found.candidates.partition_by("group_size", maintain_order=True)
    return [chosen(part) for part in parts]


def stuck(found: Advice) -> dict[str, Any]:
    """Return what is known of the questions without a success, and of those whose groups stay silent."""
    from grpo_dynamics.posterior import largest_hidden, samples_to_exclude

    rows, aim = found.questions, found.aim
    zero = rows.filter(rows["successes"] == 0)
    hidden = largest_hidden(zero["samples"].to_numpy(), aim.confidence) if zero.height else None
    return {
        "without_success": zero.height,
        "p_ref_up_to": None if hidden is None else float(hidden.max()),
        "more_samples": int(zero["more_samples"].max() or 0) if zero.height else 0,  # pyright: ignore[reportArgumentType]
        "expected_not_to_move": float(rows["cannot_move"].sum()),
        "likely_not_to_move": int((rows["cannot_move"] > 0.5).sum()),
        "samples_to_exclude": {str(p): int(samples_to_exclude(p, aim.confidence)) for p in (0.1, 0.01, 0.001)},
    }


def show(found: Advice, source: Path, rule: Rule, out: Path, files: Sequence[Path]) -> None:
    """Print the advice for people."""
    screen_, aim = screen(), found.aim
    screen_.print(f"{source.name}: {found.questions.height} questions, {rule.title}\n")
    screen_.print(verdict(found), style="bold")
    screen_.print()
    rows = [
        (
            "exact" if row["group_size"] is None else str(row["group_size"]),
            brief(row["beta"]),
            *(f"{row[name]:.3f}" for name in ("amplified_safely", "bistable", "oscillating", "cannot_move", "p_star")),
            f"{row['kl']:.3f}",
            "advised" if found.helps and (row["group_size"], row["beta"]) == (found.group_size, found.beta) else "",
        )
        for row in best_of_each(found)
    ]
    names = ("G", "β", "amplified", "bistable", "cycles", "silent", "mean p*", "KL", "")
    screen_.print(table("The best β of each group size, shares of the questions", names, rows, left=(8,)))
    screen_.print()
    screen_.print(facts("Questions that cannot move", list(stuck_lines(found))))
    screen_.print()
    passed = [
        (
            str(row["k"]),
            "–" if row["before_unbiased"] is None else f"{row['before_unbiased']:.4f}",
            str(row["questions"]),
            f"{row['before']:.4f}",
            f"{row['after']:.4f}",
        )
        for row in found.passes.iter_rows(named=True)
    ]
    names = ("k", "before, unbiased", "of questions", "before", "after")
    screen_.print(table("pass@k", names, passed))
    screen_.print()
    if found.whole_steps > 0.005:
        screen_.print(
            f"Steps have to be small: if each batch were optimised to its end, {found.whole_steps:.1%} of the "
            "questions would oscillate.\n"
        )
    screen_.print(
        f"Before, unbiased: from counts, where there are k samples. All else is a mean over Jeffreys' posterior of "
        f"p_ref; silent: no group tells anything in {aim.budget} samples.",
        style="dim",
    )
    if rule.not_modelled:
        screen_.print()
        screen_.print(facts("Not modelled", [("–", line) for line in rule.not_modelled]))
    screen_.print(f"\nIn {out}:", soft_wrap=True)
    screen_.print(", ".join(file.name for file in files))


def stuck_lines(found: Advice) -> list[tuple[str, str]]:
    """Return what there is to say about questions that do not move."""
    known, aim = stuck(found), found.aim
    silent = known["expected_not_to_move"]
    needed = ", ".join(f"{n} for {p}" for p, n in known["samples_to_exclude"].items())
    lines = [
        ("no success seen", f"{known['without_success']} question{'' if known['without_success'] == 1 else 's'}"),
        (f"below x, {aim.confidence:.0%} sure", f"after so many samples without a success: {needed}"),
    ]
    if found.group_size is not None:
        silence = f"{silent:.1f} questions expected, all right or all wrong in {aim.budget} samples each"
        lines.insert(1, ("all groups silent", silence))
    if known["without_success"]:
        high = f"p_ref up to {known['p_ref_up_to']:.3g} is possible"
        more = f"{known['more_samples']} more samples would tell if p_ref > {aim.floor:g}"
        lines.insert(1, ("", f"{high}; {more}" if known["more_samples"] else high))
    return lines


def _row(found: Advice) -> dict[str, Any]:
    rows = found.candidates.filter(
        found.candidates["group_size"].eq_missing(found.group_size) & (found.candidates["beta"] == found.beta)
    )
    return rows.row(0, named=True)

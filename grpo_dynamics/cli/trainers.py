"""`grpo-dynamics predict --trainer` and `which-kl`: a trainer's own options, and where they lead."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from grpo_dynamics import __version__
from grpo_dynamics.arrays import require
from grpo_dynamics.cli.errors import bad_input, missing, refuse, required
from grpo_dynamics.cli.output import brief, exactly, factor, facts, print_json, probability, screen, table
from grpo_dynamics.cli.settings import PROBABILITY
from grpo_dynamics.logodds import complement, logit, sigmoid
from grpo_dynamics.theory.fixed_points import FixedPoints, Status, fixed_points
from grpo_dynamics.theory.flow import KL, Flow
from grpo_dynamics.theory.orbits.limit import Limit, LimitKind, limit
from grpo_dynamics.theory.trainers import MixedGroups, Trainer, preset, trainer

DIVERGENCE = {
    "reverse": "KL(π‖π_ref), the divergence of the theory",
    "forward": "KL(π_ref‖π), the other way round",
    "none": "nothing",
}
"""What a KL term pulls with."""

COMPARED: dict[KL, str] = {
    "exact": "exact KL, k2, k1 in the reward, ratio·k3",
    "k3": "k3 in the loss",
    "k1": "k1 in the loss, or no KL term",
}
"""The three things that a KL term can be, on average."""


def chosen_trainer(
    name: str | None, version: str | None, beta: float | None, group_size: int | None, settings: list[str]
) -> Trainer:
    """Return the trainer that the options of a command describe."""
    if name is None:
        missing("trainer", "a name such as trl")
    given = dict(parse_setting(text) for text in settings)
    if len(given) < len(settings):
        refuse("set", "given once for each option", " ".join(settings))
    with bad_input():
        found = preset(name)
        known = found.version(version)
        short = found.shorthand(beta, group_size)
        for option in given:
            if option != "reward_scale" and found.full_name(known, option) in (
                found.full_name(known, short_name) for short_name in short
            ):
                refuse(
                    "set", f"left out for {option}, which an option of the command says", f"{option}={given[option]}"
                )
        scale = given.pop("reward_scale", 1.0)
        return trainer(name, version, reward_scale=scale, **short, **given)


def parse_setting(text: str) -> tuple[str, Any]:
    """Return name and value of an option of a trainer.

    >>> parse_setting("beta=0.1"), parse_setting("scale_rewards=none"), parse_setting("use_kl_loss=true")
    (('beta', 0.1), ('scale_rewards', 'none'), ('use_kl_loss', True))
    """
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        refuse("set", "an option of the trainer and its value, such as scale_rewards=none", text)
    words = {"true": True, "false": False, "null": None}
    if value.lower() in words:
        return name, words[value.lower()]
    for kind in (int, float):
        try:
            return name, kind(value)
        except ValueError:
            continue
    return name, value


def predict_trainer(found: Trainer, p_ref: float | None, p0: float | None, as_json: bool) -> None:
    """Predict where a trainer takes one question, and print it."""
    flow, start = flow_of(found, p_ref, p0)
    with bad_input():
        fixed, where = fixed_points(flow), limit(flow, start)
    if as_json:
        points = [
            {
                "p": float(sigmoid(x)),
                "one_minus_p": float(complement(x)),
                "log_odds": float(x),
                "multiplier": float(m),
                "stable": bool(s),
            }
            for x, m, s in zip(fixed.log_odds, fixed.multiplier, fixed.stable, strict=True)
            if math.isfinite(x)
        ]
        print_json(
            {
                "command": "predict",
                "version": __version__,
                "trainer": describe(found),
                "p_ref": flow.p_ref,
                "p0": start,
                "verdict": verdict(flow, start, where),
                "fixed_points": points,
                "fixed_points_status": Status(int(fixed.status)).name.lower(),
                "limit": {"kind": LimitKind(int(where.kind)).name.lower(), **state(float(where.log_odds))},
                "not_modelled": list(found.not_modelled),
            }
        )
        return
    out = screen()
    out.print(f"{title(found)}, p_ref = {exactly(flow.p_ref)}\n")
    out.print(verdict(flow, start, where), style="bold")
    out.print()
    show_fixed_points(out, fixed, where)
    show_trainer(out, found)


def predict_trainer_file(
    found: Trainer,
    source: Path,
    out: Path | None,
    columns: dict[str, str | None],
    confidence: float,
    as_json: bool,
) -> None:
    """Predict where a trainer takes every question of a file."""
    from grpo_dynamics.cli.questions import predict_each

    described = {"trainer": describe(found), "not_modelled": list(found.not_modelled)}
    headline = f"{title(found)}, every question from its own p_ref"
    with bad_input():
        flow = found.at(0.5)
    predict_each(flow, described, headline, None, source, out, columns, confidence, as_json)
    if not as_json:
        people = screen()
        people.print()
        show_trainer(people, found)


def which_kl(found: Trainer, p_ref: float | None, as_json: bool) -> None:
    """Say which divergence a trainer pulls with, and where each way to code the KL leads."""
    flow, _ = flow_of(found, 0.2 if p_ref is None else p_ref, None)
    rows = [] if found.kl == "none" else compare(flow)
    own = [label for label, kl, _ in rows if Flow(1.0, 0.5, kl=kl).divergence == flow.divergence]
    sentence = answer(found)
    if as_json:
        print_json(
            {
                "command": "which-kl",
                "version": __version__,
                "trainer": describe(found),
                "answer": sentence,
                "p_ref": flow.p_ref,
                "compared": [
                    {"kl": label, "divergence": Flow(1.0, 0.5, kl=kl).divergence, "own": label in own, **state(goal)}
                    for label, kl, goal in rows
                ],
                "not_modelled": list(found.not_modelled),
            }
        )
        return
    out = screen()
    out.print(f"{title(found)}\n")
    out.print(sentence, style="bold")
    out.print()
    if rows:
        heading = f"Where each leads, from p_ref = {exactly(flow.p_ref)}"
        shown = [(label, probability(goal), "this trainer" if label in own else "") for label, _, goal in rows]
        out.print(table(heading, ("KL term as coded", "p*", ""), shown, left=(0, 2)))
        out.print()
    show_trainer(out, found)


def compare(flow: Flow) -> list[tuple[str, KL, float]]:
    """Return where each kind of KL term takes the question: (words, name, log-odds)."""
    rows: list[tuple[str, KL, float]] = []
    for kl, label in COMPARED.items():
        normalization = flow.normalization
        if isinstance(normalization, MixedGroups) and kl != "k3":
            normalization = normalization.kept
        goal = limit(Flow(flow.beta, flow.p_ref, normalization, kl), flow.p_ref).log_odds
        rows.append((label, kl, float(goal)))
    return rows


def answer(found: Trainer) -> str:
    """Return which divergence it is, in one plain sentence."""
    divergence = found.at(0.5).divergence
    if divergence == "reverse":
        return f"On average it pulls with the gradient of {DIVERGENCE['reverse']}."
    if divergence == "forward":
        return f"On average it pulls with the gradient of {DIVERGENCE['forward']}."
    return "On average nothing pulls to the reference: p goes to 1."


def flow_of(found: Trainer, p_ref: float | None, p0: float | None) -> tuple[Flow, float]:
    """Return the flow of one question, and where it starts."""
    with bad_input():
        flow = found.at(required("p_ref", PROBABILITY, p_ref))
        start = flow.p_ref if p0 is None else p0
        require("p0", start, PROBABILITY, lambda x: (x > 0) & (x < 1))
    return flow, start


def verdict(flow: Flow, start: float, where: Limit) -> str:
    """Return where training goes, in one plain sentence."""
    first, goal = float(logit(start)), float(where.log_odds)
    before, after, reference = probability(first), probability(goal), probability(float(logit(flow.p_ref)))
    if where.kind == LimitKind.UNDECIDED:
        return "No fixed point was found to working precision, though there is one."
    if where.kind == LimitKind.ONE:
        reasons = {"none": "nothing pulls back to the reference"}
        return f"Success is amplified from {before} to 1: {reasons.get(flow.divergence, 'β is too small to hold it')}."
    if before == after:
        return f"Success is practically unchanged, at {after}."
    if goal > first:
        rest = "" if start == flow.p_ref else f"; the reference has {reference}"
        return f"Success is amplified from {before} to {after}{rest}."
    return f"Success falls from {before} to {after}, still above the {reference} of the reference."


def title(found: Trainer) -> str:
    """Return which trainer it is, as a headline."""
    return f"{found.title} {found.version}, β = {brief(float(found.beta))}"


def show_fixed_points(out: Any, fixed: FixedPoints, where: Limit) -> None:
    """Print the table of fixed points."""
    rows = [
        (
            probability(float(log_odds)),
            f"{float(log_odds):.4f}",
            factor(float(multiplier)),
            "stable" if stable else "unstable",
            "training ends here" if log_odds == where.log_odds else "",
        )
        for log_odds, multiplier, stable in zip(fixed.log_odds, fixed.multiplier, fixed.stable, strict=True)
        if math.isfinite(log_odds)
    ]
    if rows:
        out.print(table("Fixed points", ("p*", "log-odds", "multiplier", "", ""), rows, left=(3, 4)))
    status = Status(int(fixed.status))
    if status != Status.OK:
        out.print(f"Fixed points: {status.meaning}.")
    out.print()


def show_trainer(out: Any, found: Trainer) -> None:
    """Print how the options were read, and what is not modelled."""
    out.print(
        facts(
            "How the options were read",
            [
                ("advantage", found.advantage),
                ("KL term", found.pull),
                ("pulls with", DIVERGENCE[found.at(0.5).divergence]),
            ],
        )
    )
    if found.not_modelled:
        out.print()
        out.print(facts("Not modelled", [("–", line) for line in found.not_modelled]))


def describe(found: Trainer) -> dict[str, Any]:
    """Return the trainer in plain values."""
    return {
        "name": found.name,
        "title": found.title,
        "version": found.version,
        "options": dict(found.options),
        "beta": found.beta,
        "advantage": found.advantage,
        "kl": found.kl,
        "kl_term": found.pull,
        "divergence": found.at(0.5).divergence,
    }


def state(log_odds: float) -> dict[str, float]:
    """Return a state as p, 1 − p and log-odds."""
    return {"p": float(sigmoid(log_odds)), "one_minus_p": float(complement(log_odds)), "log_odds": log_odds}

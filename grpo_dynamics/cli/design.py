"""`grpo-dynamics design`: the β for a target, or in one sentence why none reaches it."""

from __future__ import annotations

from grpo_dynamics import __version__
from grpo_dynamics.cli.errors import bad_input, required
from grpo_dynamics.cli.output import brief, exactly, factor, facts, print_json, probability, screen
from grpo_dynamics.cli.settings import PROBABILITY, Settings
from grpo_dynamics.targets import Aim, Reached, aim, as_dict
from grpo_dynamics.theory.amplification import DesignStatus
from grpo_dynamics.theory.orbits.limit import LimitKind


def design_one(settings: Settings, target: float | None, p_ref: float | None, p0: float | None, as_json: bool) -> None:
    """Find the β and print the answer."""
    target, p_ref = required("target", PROBABILITY, target), required("p_ref", PROBABILITY, p_ref)
    with bad_input():
        found = aim(target, p_ref, settings.normalization(), settings.anchor(), p0)
    if as_json:
        options = {**settings.describe(), "p_ref": p_ref, "p0": found.p0}
        head = {"command": "design", "version": __version__, "settings": options, "verdict": verdict(found)}
        print_json({**head, **as_dict(found)})
    else:
        show(found, settings)


def verdict(found: Aim) -> str:
    """Return the answer in one plain sentence."""
    target, start, beta = exactly(found.target), exactly(found.p0), f"β = {brief(float(found.design.beta))}"
    if found.status == DesignStatus.NOT_ABOVE_REFERENCE:
        return f"No β reaches {target}: every β takes p above p_ref = {exactly(found.p_ref)} (Theorem 3)."
    if found.status == DesignStatus.MIRROR:
        return f"No β holds p at {target}: without a KL term to the reference p goes to 1, whatever β is."
    if found.arrives:
        return f"{beta} takes p from {start} to {target}."
    if found.status == DesignStatus.UNSTABLE:
        fixed = f"{beta} makes it a fixed point, but an unstable one"
        return f"No β holds p at {target}: {fixed}, and the orbit {goes(found)}."
    fixed = f"at {beta} it is a stable fixed point"
    if undecided(found):
        return f"Not decided whether p gets from {start} to {target}: {fixed}, and the orbit {goes(found)}."
    return f"No β takes p from {start} to {target}: {fixed}, but the orbit {goes(found)}."


def undecided(found: Aim) -> bool:
    """Return whether the orbit may still arrive after all the steps that were taken."""
    stable = found.status == DesignStatus.OK
    return stable and found.limit is not None and found.limit.kind == LimitKind.UNDECIDED


def goes(found: Aim) -> str:
    """Return where the orbit goes at the β of the design."""
    if found.limit is None:
        return "does not exist"
    low, high = probability(float(found.limit.low)), probability(float(found.limit.high))
    kind = LimitKind(int(found.limit.kind))
    if kind == LimitKind.CYCLE:
        return f"ends in a cycle of period {int(found.limit.period)} between {low} and {high}"
    if kind == LimitKind.IRREGULAR:
        return f"wanders irregularly between {low} and {high}"
    if kind == LimitKind.UNDECIDED:
        return f"has not settled after {int(found.limit.steps)} steps, between {low} and {high}"
    return f"from {exactly(found.p0)} goes to {probability(float(found.limit.log_odds))}"


def show(found: Aim, settings: Settings) -> None:
    """Print the answer for people."""
    out = screen()
    out.print(f"target p* = {exactly(found.target)}, p_ref = {exactly(found.p_ref)}, {settings.title()}\n")
    out.print(verdict(found), style="bold")
    if found.limit is None:
        return
    multiplier = float(found.design.multiplier)
    stable = "stable" if bool(found.design.stable) else "unstable"
    lines = [
        ("β", brief(float(found.design.beta))),
        ("fixed point", f"{stable}, multiplier {factor(multiplier)}: what a step leaves of a small distance"),
        ("orbit", goes(found)),
    ]
    out.print()
    out.print(facts("At this β", lines))
    if found.arrives:
        return
    instead = [(side, near(point)) for side, point in (("below", found.below), ("above", found.above)) if point]
    if found.escape is not None:
        instead.append(("start", f"from p_0 above {probability(found.escape)} the target may be reached at this β"))
    if instead:
        out.print()
        out.print(facts("What is reached for sure" if undecided(found) else "What is reached instead", instead))


def near(point: Reached) -> str:
    """Return one target that is reached."""
    slow = f", slowly: multiplier {factor(point.multiplier)}" if abs(point.multiplier) > 0.99 else ""
    return f"p* = {probability(point.log_odds)} at β = {brief(point.beta)}{slow}"

"""`grpo-dynamics predict` for one question: the answer in sentences, tables, JSON and a picture."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

from grpo_dynamics import __version__
from grpo_dynamics.cli.errors import bad_input, output_file, required, writing
from grpo_dynamics.cli.output import brief, exactly, factor, facts, print_json, probability, screen, table
from grpo_dynamics.cli.settings import PROBABILITY, Settings
from grpo_dynamics.logodds import logit
from grpo_dynamics.prediction import BetaRanges, Prediction, as_dict, predict
from grpo_dynamics.theory.fixed_points import Status
from grpo_dynamics.theory.orbits.limit import LimitKind

PICTURES = (".png", ".pdf", ".svg")


def predict_one(
    settings: Settings,
    beta: float | None,
    p_ref: float | None,
    p0: float | None,
    steps: int,
    plot: Path | None,
    as_json: bool,
) -> None:
    """Predict one question and print what was found."""
    dynamics = settings.recursion(beta, required("p_ref", PROBABILITY, p_ref))
    if plot is not None:
        output_file("plot", plot, PICTURES)
    with bad_input():
        found = predict(dynamics, p0, steps)
    if plot is not None:
        write_picture(found, plot, settings)
    if as_json:
        options = {**settings.describe(), "beta": dynamics.beta, "p_ref": dynamics.p_ref, "p0": found.p0}
        print_json(
            {
                "command": "predict",
                "version": __version__,
                "settings": options,
                "verdict": verdict(found),
                **as_dict(found),
                "plot": None if plot is None else str(plot),
            }
        )
    else:
        show(found, settings, plot)


def verdict(found: Prediction) -> str:
    """Return where the orbit goes, in one plain sentence."""
    where, reference = found.limit, float(logit(found.dynamics.p_ref))
    start, goal = probability(float(logit(found.p0))), probability(float(where.log_odds))
    low, high = probability(float(where.low)), probability(float(where.high))
    if found.kind == LimitKind.ONE:
        return f"Success is amplified from {start} to 1: {why_one(found)}."
    if found.kind in (LimitKind.CYCLE, LimitKind.IRREGULAR):
        cycle = f"it ends in a cycle of period {where.period}"
        motion = cycle if found.kind == LimitKind.CYCLE else "it wanders irregularly"
        return f"Success never settles: {motion} between {low} and {high}."
    if found.kind == LimitKind.UNDECIDED:
        return f"Success has not settled after {int(where.steps)} steps: it is at {goal}, between {low} and {high}."
    if start == goal:
        return f"Success is practically unchanged, at {goal}."
    if math.isclose(float(logit(found.p0)), reference):
        return f"Success is amplified from {start} to {goal}."
    if where.log_odds >= logit(found.p0):
        return f"Success is amplified from {start} to {goal}; the reference has {probability(reference)}."
    if goal == probability(reference):
        return f"Success falls from {start} to {goal}, practically that of the reference."
    return f"Success falls from {start} to {goal}, still above the {probability(reference)} of the reference."


def why_one(found: Prediction) -> str:
    """Return why p goes to 1."""
    if found.dynamics.alpha == 0:
        return "nothing pulls back to the reference"
    points = [float(x) for x in found.fixed.log_odds if math.isfinite(x)]
    if not points:
        return "β is too small to hold it"
    if logit(found.p0) >= points[-1]:
        return "p_0 lies above the unstable fixed point"
    return f"it overshoots the unstable fixed point {probability(points[-1])}"


def speed(found: Prediction) -> str:
    """Return how fast, in one plain sentence."""
    if found.kind in (LimitKind.CYCLE, LimitKind.IRREGULAR):
        if any(low < found.dynamics.beta < high for low, high in found.betas.stable):
            return "never arrives from this p_0; from others p goes to the stable fixed point"
        return f"never arrives; with β > {brief(found.betas.stable[0][0])} the fixed point would be stable"
    if found.kind == LimitKind.UNDECIDED:
        return "not settled"
    if probability(float(logit(found.p0))) == probability(float(found.limit.log_odds)):
        return "practically there from the start"
    if found.steps_to_1_percent is None:
        return "not within 1 % of the way after 20,000 steps"
    count = f"{found.steps_to_1_percent} step{'' if found.steps_to_1_percent == 1 else 's'}"
    sentence = f"within 1 % of the way after {count}"
    if math.isnan(found.multiplier):
        return sentence
    if abs(found.multiplier) < 1e-12:
        return f"{sentence}; a step from nearby arrives at once"
    sides = ", from alternating sides" if found.multiplier < 0 else ""
    return f"{sentence}; near the end each step leaves {share(abs(found.multiplier))} of the distance{sides}"


def share(multiplier: float) -> str:
    """Return a multiplier below 1 to three digits, never as 1."""
    return f"{multiplier:.3g}" if multiplier < 0.9995 else factor(multiplier)


def first_step(found: Prediction) -> str:
    """Return where the first step goes."""
    first = float(logit(found.p0))
    start, goal = probability(first), probability(float(found.dynamics.step(first)))
    if start == goal:
        return f"practically stays at {goal}"
    return f"{'rises' if found.first_step_rises else 'falls'} to {goal}"


def show(found: Prediction, settings: Settings, plot: Path | None) -> None:
    """Print the prediction for people."""
    out, dynamics = screen(), found.dynamics
    out.print(f"β = {brief(dynamics.beta)}, p_ref = {exactly(dynamics.p_ref)}, {settings.title()}\n")
    out.print(verdict(found), style="bold")
    out.print()
    rows = [
        (
            probability(float(log_odds)),
            f"{float(log_odds):.4f}",
            factor(float(multiplier)),
            "stable" if stable else "unstable",
            "the orbit ends here" if found.kind == LimitKind.FIXED_POINT and log_odds == found.limit.log_odds else "",
        )
        for log_odds, multiplier, stable in zip(
            found.fixed.log_odds, found.fixed.multiplier, found.fixed.stable, strict=True
        )
        if math.isfinite(log_odds)
    ]
    if rows:
        out.print(table("Fixed points", ("p*", "log-odds", "multiplier", "", ""), rows, left=(3, 4)))
    status = Status(int(found.fixed.status))
    if status != Status.OK:
        out.print(f"Fixed points: {status.meaning}.")
    lines = [
        ("from p_0", probability(float(logit(found.p0)))),
        ("first step", first_step(found)),
        (f"after {found.steps} steps", probability(found.end)),
        ("speed", speed(found)),
    ]
    out.print()
    out.print(facts("The orbit", lines))
    out.print()
    out.print(facts("Which β", beta_lines(found.betas, dynamics.alpha == 0)))
    if plot is not None:
        out.print(f"\nPicture: {plot}", soft_wrap=True)


def beta_lines(betas: BetaRanges, mirror: bool) -> list[tuple[str, str]]:
    """Return what each range of β does, in plain words."""
    rising = betas.first_step_rises_below
    lines = [
        ("amplifies", "every step raises p, for every β > 0" if mirror else "every β > 0: p* > p_ref (Theorem 3)"),
        ("first step rises", "every β > 0" if rising == math.inf else f"β < {brief(rising)}"),
    ]
    if mirror:
        return [*lines, ("stable", "no β: there is no fixed point below 1")]
    ends = " or ".join(beta_interval(low, high) for low, high in betas.stable)
    whole = bool(betas.stable) and betas.stable[-1][0] == 0
    bound = betas.contraction_above
    if bound == math.inf:
        contraction = "no β is large enough to be sure for every p_0"
    else:
        contraction = f"{beta_interval(bound, math.inf)}: one fixed point, which every orbit reaches"
    return [
        *lines,
        ("stable", ends if whole else f"{ends} (the fixed point that starts at p_ref for large β)"),
        ("contraction", contraction),
    ]


def beta_interval(low: float, high: float) -> str:
    """Return an interval of β."""
    if high == math.inf:
        return f"β > {brief(low)}" if low > 0 else "every β > 0"
    return f"{brief(low)} < β < {brief(high)}"


def write_picture(found: Prediction, plot: Path, settings: Settings) -> None:
    """Write the cobweb and the trajectory in one piece."""
    from grpo_dynamics.plotting import prediction, write_whole

    dynamics = found.dynamics
    title = rf"$\beta={dynamics.beta:g}$,  $p_{{\mathrm{{ref}}}}=$ {exactly(dynamics.p_ref)},  {settings.title()}"
    figure = prediction(dynamics, dynamics.iterate(max(found.steps, 1), p0=found.p0), found.fixed, title)
    with writing("plot", plot):
        write_whole(plot, picture_bytes(figure, plot.suffix.lower()))


def picture_bytes(figure: Any, suffix: str) -> bytes:
    """Return a figure as PNG, PDF or SVG, the same bytes on every run."""
    from grpo_dynamics.plotting import render, style

    if suffix != ".svg":
        return render(figure, suffix)
    import matplotlib as mpl

    buffer = io.BytesIO()
    with style(), mpl.rc_context({"svg.hashsalt": "grpo_dynamics"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()

"""`grpo-dynamics predict --from FILE`: a table of predictions, and a summary of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from grpo_dynamics import __version__
from grpo_dynamics.cli.errors import bad_input, output_file, refuse, writing
from grpo_dynamics.cli.output import brief, facts, print_json, progress, screen
from grpo_dynamics.cli.settings import Settings
from grpo_dynamics.theory.flow import Flow
from grpo_dynamics.theory.recursion import Recursion


def predict_file(
    settings: Settings,
    beta: float | None,
    steps: int,
    source: Path,
    out: Path | None,
    columns: dict[str, str | None],
    confidence: float,
    as_json: bool,
) -> None:
    """Predict every question of a file, write the table and print the summary."""
    dynamics = settings.recursion(beta, 0.5)
    described = {**settings.describe(), "beta": dynamics.beta, "steps": steps}
    headline = f"β = {brief(dynamics.beta)}, every question from its own p_ref, {settings.title()}"
    predict_each(dynamics, {"settings": described}, headline, steps, source, out, columns, confidence, as_json)


def predict_each(
    dynamics: Recursion | Flow,
    described: dict[str, Any],
    headline: str,
    steps: int | None,
    source: Path,
    out: Path | None,
    columns: dict[str, str | None],
    confidence: float,
    as_json: bool,
) -> None:
    """Predict every question of a file under the dynamics; without steps for a flow, which has none of its own."""
    from grpo_dynamics.plotting import write_whole
    from grpo_dynamics.question_files import ENDINGS, read_questions, table_bytes
    from grpo_dynamics.questions import predict_questions, summary

    if out is not None:
        output_file("out", out, ENDINGS)
    with progress() as tell, bad_input():
        questions = read_questions(source, **columns)
        out = source.with_name(f"{source.stem}.predictions.parquet") if out is None else out
        if out.exists() and out.samefile(source):
            refuse("out", "another file than the one that is read", str(out))
        table = predict_questions(questions, dynamics, steps or 0, confidence, tell)
        table = table.drop("p_after_steps") if steps is None else table
    with writing("out", out):
        write_whole(out, table_bytes(table, out))
        found = summary(table)
    if as_json:
        measured = questions.samples is not None
        print_json(
            {
                "command": "predict",
                "version": __version__,
                **described,
                "from": str(source),
                "out": str(out),
                "confidence": confidence if measured else None,
                **found,
            }
        )
    else:
        show(found, headline, steps, confidence, out)


def show(found: dict[str, Any], headline: str, steps: int | None, confidence: float, out: Path) -> None:
    """Print the summary for people."""
    console, outcomes = screen(), found["outcomes"]
    measured = found["median_interval_width"] is not None
    count = f"{found['questions']} question{'' if found['questions'] == 1 else 's'}"
    before, after = found["mean_p_before"], found["mean_p_limit"]
    console.print(f"{headline}\n")
    console.print(f"{count}: mean success goes from {before:.4f} to {after:.4f}.\n", style="bold")
    stuck = "no success was seen: p = 0 stays 0"
    if found["stuck_p_ref_high"]:
        low, high = found["stuck_p_ref_high"], found["stuck_p_limit_high"]
        stuck += f" (p_ref up to {low:.3g} is possible, p* then up to {high:.4f})"
    meaning = {
        "amplified": "p rises to a fixed point p* > p_ref, or to 1",
        "stuck": stuck,
        "solved": "no failure was seen: p = 1 stays 1",
        "unstable": "p never settles: a cycle, or irregular",
        "undecided": "not settled after 20,000 steps",
    }
    lines = [
        (f"{name:<10}{outcomes[name]:>9}", text)
        for name, text in meaning.items()
        if outcomes[name] or name != "undecided"
    ]
    several = found["several_stable_states"]
    if several:
        lines.append((f"{'bistable':<10}{several:>9}", "of all: another stable fixed point, for other p_0"))
    console.print(facts("Questions", lines))
    console.print()
    ends = [("in the end", f"{after:.4f}")]
    if steps is not None:
        ends.append((f"after {steps} steps", f"{found['mean_p_after_steps']:.4f}"))
    console.print(facts("Mean success", [("reference", f"{before:.4f}"), *ends]))
    console.print()
    if measured:
        width = found["median_interval_width"]
        level = f"{confidence:.0%}" if round(confidence, 2) == confidence else str(confidence)
        console.print(f"Intervals on p* ({level} Wilson on p_ref, carried through): median width {width:.3f}.")
    else:
        console.print("No intervals on p*: they need the numbers of successes and samples.")
    console.print(f"Predictions per question: {out}", soft_wrap=True)

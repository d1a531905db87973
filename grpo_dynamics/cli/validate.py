"""`grpo-dynamics validate`: a run in; a report, tables and pictures out."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grpo_dynamics import __version__
from grpo_dynamics.cli.errors import bad_input, leave_out
from grpo_dynamics.cli.output import print_json, progress, screen, table
from grpo_dynamics.cli.paper import folder

if TYPE_CHECKING:
    from grpo_dynamics.validation.readers import Converted


@dataclasses.dataclass(frozen=True)
class Reading:
    """What is said of another trainer's dump, as :func:`~grpo_dynamics.validation.readers.read_dump` takes it."""

    kind: str | None = None
    config: Path | None = None
    p_ref: Path | None = None
    trainer: str | None = None
    trainer_version: str | None = None
    setting: tuple[str, ...] = ()
    success_column: str | None = None
    threshold: float | None = None
    question_column: str | None = None
    step_column: str | None = None
    first_step: int | None = None
    window: int | None = None
    run: str | None = None


def validate_run(run: Path, out: Path | None, reading: Reading, as_json: bool) -> int:
    """Compare a run with its theory, write and print what comes of it; return the exit code."""
    from grpo_dynamics.validation.report import validate
    from grpo_dynamics.validation.run_directory import read_run

    completions = None
    if reading.kind is None:
        given = {name: None if value == () else value for name, value in dataclasses.asdict(reading).items()}
        leave_out("without --from", **given)
        with bad_input():
            measured = read_run(run)
    else:
        converted = _read(run, reading)
        measured, completions = converted.measured, converted.completions
    if out is None:
        out = run.with_name(f"{run.name}.validation") if run.is_file() else run / "validation"
    with folder(out), progress() as tell, bad_input():
        made = validate(measured, out, tell)
        if completions is not None:
            completions.write_parquet(out / "completions.parquet")
            made.paths.append(out / "completions.parquet")
    code = 1 if made.passed is False else 0
    if as_json:
        answer: dict[str, Any] = {"command": "validate", "version": __version__, "run": str(run), "out": str(out)}
        answer |= {"page": str(made.page), "files": [str(path) for path in made.paths], "passed": made.passed}
        print_json({**answer, "arms": made.summaries})
        return code
    show(made.summaries, measured.notes)
    print(f"\nOpen {made.page.resolve()}")
    return code


def _read(path: Path, reading: Reading) -> Converted:
    """What another trainer has dumped."""
    from grpo_dynamics.cli.trainers import parse_setting
    from grpo_dynamics.validation.readers import Choices, read_dump

    names = {field.name for field in dataclasses.fields(Choices)}
    with bad_input():
        return read_dump(
            str(reading.kind),
            path,
            Choices(**{name: value for name, value in dataclasses.asdict(reading).items() if name in names}),
            config=reading.config,
            trainer=reading.trainer,
            version=reading.trainer_version,
            options=dict(parse_setting(text) for text in reading.setting),
        )


def show(summaries: Sequence[dict[str, Any]], notes: Sequence[str]) -> None:
    """Print a row for each arm, the theories, the thresholds that are not met, and what a reader should know."""
    console = screen()
    heads = ("arm", "median", "95 %", "p_∞ − p*", "paper's", "verdict")
    console.print(table("Measured − predicted", heads, [_row(told) for told in summaries], left=(0, 5)))
    console.print()
    arms_of: dict[str, list[str]] = {}
    for told in summaries:
        arms_of.setdefault(told["theory"], []).append(told["arm"])
    for theory, arms in arms_of.items():
        console.print(f"Predicted by the {theory}" + (f": {', '.join(arms)}" if len(arms_of) > 1 else ""))
    if any(_paper(told) is not None for told in summaries):
        console.print("paper's: the same distance from the recursion of the paper, ε = 1e-5 and G = ∞")
    for told in summaries:
        for entry in told["thresholds"]:
            if not entry["passed"]:
                console.print(
                    f"{told['arm']}: {entry['what']} must be {entry['how']} {_number(entry['bound'])}, "
                    f"got {_number(entry['value'])}"
                )
        for note in told["notes"]:
            console.print(f"{told['arm']}: {note}")
    for note in notes:
        console.print(note)


def _paper(told: dict[str, Any]) -> dict[str, Any] | None:
    """The paper's recursion on the measurements of an arm, None where it is the arm's own theory."""
    return next((entry for entry in told["other_theories"] if entry["paper"]), None)


def _row(told: dict[str, Any]) -> list[str]:
    paper = _paper(told)
    which = "residual" if told["residual"]["points"] else "p_infinity"
    beside = "its own" if paper is None else _number(paper[f"{which}_median"])
    numbers = (told["residual"]["median"], told["residual"]["percentile_95"], told["p_infinity"]["median"])
    word = {None: "no thresholds", True: "pass", False: "FAIL"}[told["passed"]]
    word = word if told["finished"] else f"{word}, not finished"
    return [told["arm"], *(_number(value) for value in numbers), beside, word]


def _number(value: float | None) -> str:
    from grpo_dynamics.validation.summary import short

    return short(value)

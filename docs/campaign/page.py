"""The page of the campaign, and the table in experiments/README.md: ``python docs/generate.py`` writes that anew.

Everything is made from the committed results. Those of a GPU come first; where there are none the page says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from campaign.cells import console, names, number, plain, table
from campaign.goals import GOALS, Goal
from campaign.lines import one_line
from campaign.results import CAMPAIGN, OTHERS, RESULTS, Experiment, Result, minutes, results_of
from campaign.runs import of_a_run
from campaign.scripts import bound_by

README = RESULTS.parent / "README.md"
MARKS = ("<!-- table: python docs/generate.py -->", "<!-- end of the table -->")

PICTURES = {
    "overview": "every arm, a colour for each of some questions: measured (dots), and predicted (solid: the path from "
    "p_ref; dashed: one step from each measurement; triangles: the end)",
    "lengths": "length of right and of wrong answers",
    "single_questions": "questions drawn at random: measured (dots), predicted (line), 95 % of predicted runs (band)",
    "p_infinity": "where the questions end, predicted and measured",
    "trajectories": "a few questions from hard to easy, and all of them",
}
DRAWN = {
    "gpu_pretraining": "the questions' p_ref (grey: from 0.01 to 0.99), and how long the models took",
    "gpu_throughput": "samples a second, the update's share of the matmul rate (dotted: 35 %, the goal for the largest "
    "model on a GPU), and where its time goes",
}
COLUMNS = {
    "gpu_pretraining": (
        *("size", "task", "questions", "parameters", "steps", "seconds", "divergence", "p_ref_10", "p_ref_50"),
        *("p_ref_90", "share_inside", "tokens_per_second", "fraction_of_matmul"),
    ),
    "gpu_throughput": (
        *("part", "size", "what", "precision", "group_size", "completion_tokens", "seconds", "tokens_per_second"),
        *("samples_per_second", "flops_per_second", "fraction_of_matmul", "peak_memory_bytes", "share"),
    ),
}

ALSO = {
    "gpu_recursion": (
        "Run on a CPU, with as many questions as the large form and a small network: "
        "[the recursion on 512 questions](cpu_recursion.md)."
    ),
    "gpu_flow": (
        "A longer run of this kind on a CPU: [small steps, and two ways to code the KL term](cpu_flow.md). The smaller "
        "the groups, the longer a hard question waits for a group that has a right answer: it may not arrive."
    ),
    "gpu_oscillation": "One arm of [real GRPO on a small language model](cpu_arithmetic.md) has a two-cycle, too.",
    "gpu_practice": (
        "What the theory of lengths and clipping is from: [length bias](length_bias.md), [clip](clip.md). A question "
        "of which no right answer is drawn any more, or no wrong one, has silent groups and stays where chance has "
        "left it."
    ),
    "gpu_scale": (
        "Arms `…_to_tolerance` say whether the network can be at the optimum; arms `…_30_steps` how far it comes in a "
        "budget, each size with a learning rate of its own."
    ),
    "gpu_throughput": (
        "What bounds the update is in the rows *profile*: shares of its time. On a CPU *idle* is what is no operator."
    ),
}

NEEDED = {"gpu_recursion": "7 to 12", "gpu_flow": "About 12", "gpu_practice": "About 6"}
"""How many commands of nine minutes an experiment may need on a GPU, where it is not 2 to 6: estimates."""

# ---- the page --------------------------------------------------------------------------------------------------------


def page(results: Path = RESULTS) -> str:
    """Return the page: what was run on what, the goals, then each experiment."""
    found = {experiment.name: results_of(experiment, results) for experiment in CAMPAIGN}
    size = sum(path.stat().st_size for path in results.rglob("*") if path.is_file()) / 1e6
    committed = f"All committed results of all experiments take {size:.1f} MB, of at most 20."
    parts = [where(found), "## The numbers to reach", goals_table(found), committed]
    parts += ["## The experiments", overview_table(found)]
    for experiment in CAMPAIGN:
        parts.append(section(experiment, found[experiment.name]))
    return "\n\n".join(parts)


def where(found: dict[str, list[Result]]) -> str:
    """Return what the results were made on, in plain words."""
    gpus = {name: result for name, kept in found.items() for result in kept if result.on_gpu}
    smokes = [name for name, kept in found.items() if kept and name not in gpus]
    absent = [name for name, kept in found.items() if not kept]
    said: list[str] = []
    if gpus:
        devices = sorted({result.device for result in gpus.values()})
        said.append(f"On a GPU ({', '.join(devices)}) were run: {names(gpus)}.")
    else:
        said.append("**Nothing on this page was measured on a GPU.**")
    if smokes:
        said.append(
            f"Run on a CPU only, in the small form (`--smoke`): {names(smokes)}. Models and numbers of questions are "
            "small there: a bound that is kept says that code and prediction agree at this size, and nothing of a GPU."
        )
    if absent:
        said.append(f"No results are committed of {names(absent)}.")
    body = "\n".join(said)
    return f":::{{{'note' if gpus else 'warning'}}}\n{body}\n:::"


def goals_table(found: dict[str, list[Result]]) -> str:
    """Return each number to reach beside the one that was measured."""
    head = ("goal", "asked", "measured", "on", "verdict", "experiment")
    return table(head, [_goal_row(goal, found[goal.name]) for goal in GOALS])


def _goal_row(goal: Goal, kept: Sequence[Result]) -> list[str]:
    asked = f"{'at most' if goal.at_most else 'at least'} {goal.bound:g}"
    link = f"[{goal.name}](#{goal.name})"
    for result in kept:
        value = goal.value(result)
        if value is None:
            continue
        reached = value <= goal.bound if goal.at_most else value >= goal.bound
        word = ("reached" if reached else "**missed**") + ("" if result.on_gpu else " there; open on a GPU")
        computed = result.device + (", small form" if result.smoke else "")
        return [goal.what, asked, number(value), computed, word, link]
    return [goal.what, asked, "–", "not in the small form" if kept else "not run", "open", link]


def overview_table(found: dict[str, list[Result]]) -> str:
    """Return a row for each experiment."""
    rows: list[list[str]] = []
    for experiment in CAMPAIGN:
        kept = found[experiment.name]
        name = f"[{experiment.title}](#{experiment.name})"
        shown = [[name, experiment.asks, result.label, minutes(result.minutes), one_line(result)] for result in kept]
        rows += shown or [[name, experiment.asks, "not run", "–", "–"]]
    return table(("experiment", "what it asks", "computed", "minutes", "result"), rows)


def section(experiment: Experiment, kept: Sequence[Result]) -> str:
    """Return everything about one experiment: the GPU's result first, else how to get one."""
    blocks = [f"({experiment.name})=\n## {experiment.title}", f"*{experiment.asks}*"]
    if not any(result.on_gpu for result in kept):
        small = "it has been run on a CPU in the small form only" if kept else "it has not been run at all"
        blocks.append(
            f"**Not run on a GPU**: {small}. Give the first command until its exit code is 0; with 3 there is more to "
            f"do, any other is an error. {NEEDED.get(experiment.name, '2 to 6')} commands of nine minutes are to be "
            "expected: an estimate, never measured."
        )
        first, *rest = experiment.commands(smoke=False)
        blocks.append(console([repeated(first), *rest]))
    if experiment.name in ALSO:
        blocks.append(ALSO[experiment.name])
    for result in kept:
        blocks.append(f"### {experiment.title} {result.label}")
        commit = str(result.manifest.get("commit"))
        machine = f"{minutes(result.minutes)} minutes {result.label}, commit `{commit[:7]}`"
        machine += " with changes" * commit.endswith("+")
        blocks.append(f"Made in {machine}, by")
        blocks.append(console(experiment.commands(result.smoke)))
        blocks += of_a_run(result) if result.table is None else _of_a_script(experiment, result)
        blocks += _pictures(result)
    return "\n\n".join(blocks)


def repeated(command: str) -> str:
    """Return the loop that gives a command again while its exit code says that there is more to do."""
    return f"until {command}; do [ $? -eq 3 ] || break; done"


# ---- scripts ---------------------------------------------------------------------------------------------------------


def _of_a_script(experiment: Experiment, result: Result) -> list[str]:
    """The table of a script, whose empty columns are left out, and what bounds it where it misses its goal."""
    found = result.table
    assert found is not None
    wanted = [name for name in COLUMNS.get(experiment.name, found.columns) if name in found.columns]
    shown = [name for name in wanted if found[name].null_count() < found.height]
    rows = [
        ["–" if cell is None else _cell(name, cell) for name, cell in zip(shown, row, strict=True)]
        for row in found.select(shown).rows()
    ]
    missed = [words for goal in GOALS if goal.name == experiment.name for words in bound_by(result, goal.bound)]
    return [table([name.replace("_", " ") for name in shown], rows), *missed]


def _cell(name: str, value: Any) -> str:
    if not isinstance(value, float):
        return f"{value:,}" if isinstance(value, int) and name == "parameters" else plain(str(value))
    if name.startswith(("share", "fraction")):
        return f"{100 * value:.1f} %"
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e8 else f"{value:.3g}"


# ---- pieces ----------------------------------------------------------------------------------------------------------


def _pictures(result: Result) -> list[str]:
    """Every picture that is committed, the whole run's first."""
    if result.table is not None:
        paths = sorted(result.folder.glob(f"{result.manifest['name']}*.png"))
        words = DRAWN.get(result.manifest["name"].removesuffix("_smoke"), "the table, drawn")
        named = [(path, words) for path in paths]
    else:
        folder = result.folder / "figures"
        named = [(folder / f"{name}.png", PICTURES[name]) for name in ("overview", "lengths")]
        for kind in ("single_questions", "p_infinity", "trajectories"):
            named += [(folder / f"{a['arm']}_{kind}.png", f"arm {a['arm']}: {PICTURES[kind]}") for a in result.arms]
    shown = [(path.relative_to(result.results), words) for path, words in named if path.is_file()]
    return [
        f"{plain(words[0].upper() + words[1:])}, {result.label}.\n\n"
        f"```{{image}} ../../experiments/results/{path}\n:alt: {words}\n:class: picture\n```"
        for path, words in shown
    ]


# ---- the table in experiments/README.md ------------------------------------------------------------------------------


def readme_table(results: Path = RESULTS) -> str:
    """Return a row for each result of each experiment, and one for each that has none on a GPU."""
    rows: list[list[str]] = []
    for experiment in (*CAMPAIGN, *OTHERS):
        kept = results_of(experiment, results)
        if experiment in CAMPAIGN and not any(result.on_gpu for result in kept):
            rows.append(_readme_row(experiment, False, "one GPU", "–", "not run"))
        rows += [_readme_row(experiment, r.smoke, r.device, minutes(r.minutes), one_line(r)) for r in kept]
    return table(("experiment", "what it asks", "command", "hardware", "minutes", "result"), rows)


def _readme_row(experiment: Experiment, smoke: bool, hardware: str, took: str, result: str) -> list[str]:
    name = f"`{experiment.name}`" + (", small form" if smoke else "")
    return [name, experiment.asks, f"`{experiment.command(smoke)}`", hardware, took, result]


def readme(text: str, results: Path = RESULTS) -> str:
    """Return the text of the README with its table made anew."""
    before, _, rest = text.partition(MARKS[0])
    _, _, after = rest.partition(MARKS[1])
    return f"{before}{MARKS[0]}\n\n{readme_table(results)}\n\n{MARKS[1]}{after}"

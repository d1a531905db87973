"""What the documentation computes when it is built: figures, tables, claims, proofs, the help of the commands.

As a script it writes the table of experiments/README.md anew: ``python docs/generate.py``.
"""

from __future__ import annotations

import contextlib
import html
import io
import json
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from campaign import page as campaign_page

from grpo_dynamics import explorer
from grpo_dynamics.claims import Claim, Group, claims, counts
from grpo_dynamics.cli import main
from grpo_dynamics.plotting import write_whole
from grpo_dynamics.symbolic import Proof, theorems
from grpo_dynamics.theory.trainers import PRESETS
from grpo_dynamics.theory.trainers.preset import Preset, numbers
from grpo_dynamics.validation.summary import short
from paper_figures import FIGURES, Entry, goldens
from paper_figures.files import contents
from paper_figures.page import CAPTIONS

COMMANDS = (
    *("predict", "which-kl", "design", "atlas", "advise", "explore", "simulate", "make-model", "run"),
    *("validate", "sweep", "figures", "reproduce", "claims"),
)


def everything(docs: Path) -> None:
    """Write the gallery to ``docs/gallery`` and what other pages include to ``docs/_generated``."""
    for entry in FIGURES.values():
        figure(docs / "gallery", entry)
    write(docs / "gallery" / "index.md", gallery())
    write(docs / "_generated" / "goldens.md", golden_table())
    every = claims()
    proofs = {theorem.id: theorem.prove() for theorem in theorems().values()}
    write(docs / "_generated" / "claims.md", claims_page(every, proofs))
    write(docs / "_generated" / "theorems.md", "\n\n".join(theorem_section(proof) for proof in proofs.values()))
    write(docs / "_generated" / "trainers.md", "\n\n".join(preset_section(preset) for preset in PRESETS.values()))
    write(docs / "_generated" / "pages" / "explore.html", explorer.page())
    write(docs / "_generated" / "commands.md", "\n\n".join(help_of(name) for name in COMMANDS))
    write(docs / "_generated" / "campaign.md", campaign_page.page(docs.parent / "experiments" / "results"))
    for run in ("cpu_arithmetic", "cpu_recursion", "cpu_flow"):
        write(docs / "_generated" / f"{run}.md", run_tables(docs.parent / "experiments" / "results" / run))


def write(path: Path, text: str) -> None:
    """Write a page, unless it says the same already: Sphinx then has nothing to do."""
    data = (text.rstrip() + "\n").encode()
    if not path.exists() or path.read_bytes() != data:
        write_whole(path, data)


# ---- gallery ---------------------------------------------------------------------------------------------------------


def figure(folder: Path, entry: Entry) -> None:
    """Write the picture of a figure, its data, and a page that shows it beside its code."""
    made = contents(entry)
    for suffix in (".png", ".pdf", ".parquet", ".md"):
        if suffix in made:
            name = f"{entry.name}{'.table' if suffix == '.md' else ''}{suffix}"
            if not (folder / name).exists() or (folder / name).read_bytes() != made[suffix]:
                write_whole(folder / name, made[suffix])
    shows, notice = CAPTIONS[entry.name]
    if ".png" in made:
        body = f"```{{image}} {entry.name}.png\n:alt: {entry.title}\n:class: picture\n```"
    else:
        body = f"```{{include}} {entry.name}.table.md\n```"
    modules = [entry.name, *(["table1_text"] if entry.name == "table1" else [])]
    code = "\n\n".join(
        f"`paper_figures/{module}.py`\n\n```{{literalinclude}} ../../paper_figures/{module}.py\n:language: python\n```"
        for module in modules
    )
    links = ", ".join(
        f"{{download}}`{suffix[1:].upper()} <{entry.name}{suffix}>`"
        for suffix in (".pdf", ".parquet")
        if suffix in made
    )
    text = f"""# {entry.title}

*{source(entry.where)}.* {plain(shows)}

{body}

**Notice:** {plain(notice)}

Downloads: {links}. The same by `grpo-dynamics figures {entry.name}`.

## Code

{code}
"""
    write(folder / f"{entry.name}.md", text)


def gallery() -> str:
    """Return the page of all figures."""
    cards: list[str] = []
    for entry in FIGURES.values():
        picture = (
            f'<img src="../_images/{entry.name}.png" alt="" loading="lazy">'
            if entry.name != "table1"
            else '<span class="no-picture">six variants,<br>24 entries</span>'
        )
        cards.append(
            f'<a class="card" href="{entry.name}.html">{picture}<b>{html.escape(entry.title)}</b>'
            f"<small>{html.escape(source(entry.where))}</small></a>"
        )
    names = "\n".join(FIGURES)
    return f"""# Gallery

Every figure and table of the paper, and those of the [atlas](../atlas.md), drawn anew when these pages were built, each
beside the code that makes it. A figure is a module of two functions: `data()` computes a table, which is what the
tests look at, and `draw(table)` draws it.

```{{raw}} html
<div class="cards">
{chr(10).join(cards)}
</div>
```

```{{toctree}}
:hidden:

{names}
```
"""


def source(where: str) -> str:
    """Return where a figure is from, for people."""
    return "Ours" if where == "ours" else f"arXiv 2503.06639 {where}"


# ---- tables ----------------------------------------------------------------------------------------------------------


def golden_table() -> str:
    """Return every golden number: where, quantity, paper, ours, difference, verdict."""
    judged = goldens.table()
    rows = [
        [row["where"], plain(row["quantity"]), *goldens.shown(row), row["verdict"], plain(row["note"] or "–")]
        for row in judged.to_dicts()
    ]
    total = ", ".join(f"{number} {verdict}" for verdict, number in goldens.counts(judged).items())
    head = ("where", "quantity", "paper", "ours", "difference", "verdict", "note")
    return f"{judged.height} numbers: {total}.\n\n" + list_table(head, rows, "goldens")


def list_table(head: Sequence[str], rows: Iterable[Sequence[str]], name: str, widths: str = "auto") -> str:
    """Return a MyST list-table; a cell is Markdown of one or more lines."""

    def line(cells: Sequence[str]) -> str:
        parts: list[str] = []
        for i, cell in enumerate(cells):
            indented = cell.replace("\n", "\n    ")
            parts.append(f"{'*' if i == 0 else ' '} - {indented}")
        return "\n".join(parts)

    body = "\n".join(line(row) for row in (head, *rows))
    return f"````{{list-table}}\n:header-rows: 1\n:class: {name}\n:widths: {widths}\n\n{body}\n````"


def plain(text: str) -> str:
    """Return text with what Markdown would take for emphasis escaped, but formulas between dollars left alone."""
    parts = re.split(r"(\$[^$]*\$)", text)
    return "".join(part if i % 2 else re.sub(r"([*_\[\]<>|])", r"\\\1", part) for i, part in enumerate(parts))


# ---- claims and proofs -----------------------------------------------------------------------------------------------


def claims_page(every: Sequence[Claim], proofs: dict[str, Proof]) -> str:
    """Return the registry, a table for each group."""
    shown = [claim for claim in every if not claim.id.startswith(("fig5-", "fig2-", "fig3-"))]
    parts = [f"**{len(every)} claims.** " + summary(every)]
    for group in Group:
        rows = [claim_row(claim, proofs) for claim in shown if claim.group == group]
        title = {"paper": "The paper", "ours": "Ours", "errors": "Errors found, with the evidence"}[group.value]
        more = ""
        if group == Group.PAPER:
            single = len([c for c in every if c.group == group]) - len(rows)
            more = (
                f"\n\nThe {single} single numbers of Figures 2, 3 and 5 are claims too; they stand in the "
                "[table of numbers](numbers.md), with their verdicts."
            )
        parts.append(f"## {title}{more}\n\n{list_table(('claim', 'how', 'checks'), rows, 'claims', '58 12 30')}")
    return "\n\n".join(parts)


def summary(every: Sequence[Claim]) -> str:
    """Return the counts in words."""
    parts: list[str] = []
    for group, tally in counts(every).items():
        kinds = ", ".join(f"{number} {kind}" for kind, number in tally.items())
        parts.append(f"{Group(group).words}: {sum(tally.values())} ({kinds})")
    return ". ".join(parts) + "."


def claim_row(claim: Claim, proofs: dict[str, Proof]) -> list[str]:
    """Return claim, how it is checked and what came of it, and the checks."""
    known = [id for id in claim.named("symbolic") if id in proofs]
    status = claim.status
    if status == "add --prove" and known:
        status = min(proofs[id].strength for id in known).words
    lines = [f"`{claim.id}` {plain(capital(claim.statement))}. [{plain(claim.source)}]{{.source}}"]
    if claim.formula:
        lines.append("\n" + " ".join(f"${part}$" for part in parts_of(claim.formula)))
    if claim.note:
        lines.append(f"\n[{plain(claim.note)}]{{.note}}")
    how = claim.kind.value if claim.kind.value == status else f"{claim.kind.value}: {status}"
    return ["\n".join(lines), plain(how), check_list(claim)]


def check_list(claim: Claim) -> str:
    """Return the checks of a claim, notebooks and proofs as links, a run of golden numbers as one line."""
    lines: list[str] = []
    numbers = claim.named("golden")
    for check in claim.checks:
        name = check.rpartition(":")[2]
        if check.startswith("golden:"):
            continue
        if check.startswith("symbolic:"):
            lines.append(f"[proof {name}](#proof-{name})")
        elif check.startswith("figure:"):
            lines.append(f"[figure](gallery/{name}.md)")
        elif check.startswith("docs/"):
            page = check.removeprefix("docs/")
            lines.append(f"[notebook {page.removeprefix('notebooks/').removesuffix('.md')}]({page})")
        else:
            lines.append(f"[`{name}`]{{.test}}")
    if numbers:
        text = f"number {numbers[0]}" if len(numbers) == 1 else f"{len(numbers)} numbers, {numbers[0]} …"
        lines.append(f"[{plain(text)}](numbers.md)")
    return "\n".join(f"- {line}" for line in lines)


def parts_of(formula: str) -> list[str]:
    """Return the parts of a statement that may stand on lines of their own: what a wide space or a long arrow parts."""
    pieces = re.split(r"\\q?quad|(?=\\implies|\\iff|\\Rightarrow)", formula)
    whole: list[str] = []
    for piece in pieces:  # nothing is parted inside braces or between \left and \right
        open_before = whole and (
            whole[-1].count("{") > whole[-1].count("}") or whole[-1].count(r"\left") > whole[-1].count(r"\right")
        )
        if open_before:
            whole[-1] += r"\quad " + piece
        elif piece.strip():
            whole.append(piece.strip())
    return whole


def displayed(formula: str) -> str:
    """Return a long statement on several lines."""
    if len(formula) < 110:
        return formula
    parts = parts_of(formula)
    for i in range(len(parts) - 1, 0, -1):  # short ones share a line
        if len(parts[i - 1]) + len(parts[i]) < 100:
            parts[i - 1 : i + 1] = [parts[i - 1] + r"\quad " + parts[i]]
    return "\\begin{gathered}\n" + " \\\\\n".join(parts) + "\n\\end{gathered}"


def capital(text: str) -> str:
    """Return a sentence with a capital, unless it begins with a symbol."""
    return text[0].upper() + text[1:] if text[1:2].isalpha() else text


def theorem_section(proof: Proof) -> str:
    """Return a theorem with its assumptions, its steps and what checked them."""
    theorem = proof.theorem
    rows = [
        [str(i), outcome.step.says, "argument" if outcome.strength is None else outcome.strength.words, plain(method)]
        for i, outcome in enumerate(proof.outcomes, 1)
        for method in (outcome.step.method,)
    ]
    assumed = "; ".join(theorem.assumptions)
    remark = f"\n\n:::{{note}}\n{plain(theorem.remark)}\n:::" if theorem.remark else ""
    return f"""(proof-{theorem.id})=
## {plain(capital(theorem.title))}

`{theorem.id}`, {plain(theorem.source)}: **{proof.strength.words}**

$$
{displayed(theorem.statement)}
$$

*Assumed:* {assumed}.{remark}

{list_table(("", "step", "strength", "by"), rows, "steps", "6 54 13 27")}"""


# ---- trainers --------------------------------------------------------------------------------------------------------


def preset_section(preset: Preset) -> str:
    """Return the options of a trainer: those that decide, with their defaults, and those that change nothing."""
    newest = preset.versions[-1]
    read = newest if len(preset.versions) == 1 else f"{preset.versions[0]} to {newest}"
    deciding = [[f"`{name}`", f"`{value!r}`"] for name, value in preset.defaults(numbers(newest)).items()]
    others = ", ".join(f"`{name}`" for name in sorted(preset.other))
    sources = "\n".join(f"- {what}: `{where}`" for what, where in preset.sources)
    return f"""### {preset.title}

`gd.trainer("{preset.name}")`, versions {read}.

{list_table(("option", f"default of {newest}"), deciding, "options")}

Known, and without a part in the prediction: {others}.

Read in

{sources}"""


# ---- real training ---------------------------------------------------------------------------------------------------


def run_tables(results: Path) -> str:
    """Return what `grpo-dynamics validate` found in a run whose results are committed: one row an arm, its pictures."""
    summary = results / "summary.json"
    if not summary.is_file():
        return "The results of this run are not committed: the two commands below make them."
    told = json.loads(summary.read_bytes())
    arms: list[dict[str, Any]] = told["arms"] if isinstance(told, dict) else told
    head = ("arm", "theory", "median", "95 %", "p_∞ − p*", "verdict")
    verdicts = {True: "pass", False: "**fail**", None: "not judged"}
    rows = [
        [
            f"`{arm['arm']}`",
            arm["theory"],
            *(short(arm["residual"][key]) for key in ("median", "percentile_95")),
            short(arm["p_infinity"]["median"]),
            verdicts[arm["passed"]],
        ]
        for arm in arms
    ]
    shown = {
        "trajectories": "measured (dots) and predicted (lines)",
        "single_questions": "questions drawn at random, and the band in which 95 % of the predicted runs lie",
        "p_infinity": "where the questions end",
    }
    pictures = [
        f"`{arm['arm']}`: {words}.\n\n"
        f"```{{image}} ../../experiments/results/{results.name}/figures/{arm['arm']}_{picture}.png\n"
        f":alt: {words}, arm {arm['arm']}\n:class: picture\n```"
        for arm in arms
        for picture, words in shown.items()
        if (arm["residual"]["points"] > 0) == (picture != "p_infinity")
        if (results / "figures" / f"{arm['arm']}_{picture}.png").is_file()
    ]
    return "\n\n".join([list_table(head, rows, "run"), *pictures])


# ---- commands --------------------------------------------------------------------------------------------------------


def help_of(command: str) -> str:
    """Return the help of a command as it is printed on a terminal of 80 columns."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "80"
    try:
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            main([command, "--help"])
    finally:
        del os.environ["COLUMNS"]
        if before is not None:
            os.environ["COLUMNS"] = before
    text = "\n".join(line.rstrip() for line in printed.getvalue().strip("\n").splitlines())
    return f"## {command}\n\n```text\n{text}\n```"


if __name__ == "__main__":
    table = campaign_page.README
    write_whole(table, campaign_page.readme(table.read_text(encoding="utf-8")).encode())

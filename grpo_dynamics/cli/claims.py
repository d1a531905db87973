"""`grpo-dynamics claims`: what is claimed, how it is checked, and what came of it."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Sequence
from typing import Any

from grpo_dynamics import __version__
from grpo_dynamics.claims import PAPER, Claim, Group, Kind, claims, counts, proved
from grpo_dynamics.cli.errors import BadInput, choice
from grpo_dynamics.cli.output import facts, print_json, progress, screen


def print_claims(names: Sequence[str], kinds: Sequence[str], prove: bool, as_json: bool) -> int:
    """Print all claims, or those named, or those of some kinds; return the exit code."""
    parse = choice("kind", [kind.name.lower() for kind in Kind])
    wanted = [Kind[parse(kind).upper()] for kind in kinds]
    known = {claim.id: claim for claim in claims()}
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f" (such as {near[0]})" if near else ""
            raise BadInput(f"claim must be one that `grpo-dynamics claims` lists{hint}, got {name!r}")
    chosen = [claim for claim in known.values() if not wanted or claim.kind in wanted]
    chosen = [claim for claim in chosen if not names or claim.id in names]
    if prove:
        with progress() as tell:
            chosen = list(proved(chosen, tell))
    if as_json:
        print_json(
            {
                "command": "claims",
                "version": __version__,
                "paper": f"arXiv {PAPER}",
                "claims": [dataclasses.asdict(claim) for claim in chosen],
                "counts": counts(chosen),
                "holds": all(claim.holds for claim in chosen),
            }
        )
    elif names:
        for claim in chosen:
            show_one(claim)
    else:
        show(chosen)
    return 0 if all(claim.holds for claim in chosen) else 1


def show(chosen: Sequence[Claim]) -> None:
    """Print the claims as a table for each group, with the counts under it."""
    console = screen()
    for group in Group:
        rows = [claim for claim in chosen if claim.group == group]
        if rows:
            console.print(group_table(group, rows))
            console.print()
    parts: list[str] = []
    for group, tally in counts(chosen).items():
        kinds = ", ".join(f"{number} {kind}" for kind, number in tally.items())
        parts.append(f"{Group(group).words}: {sum(tally.values())} ({kinds})")
    console.print(f"{len(chosen)} claims. " + ". ".join(parts) + ".")


def group_table(group: Group, rows: Sequence[Claim]) -> Any:
    """Return the table of one group."""
    from rich import box
    from rich.table import Table

    result = Table(
        title=group.words,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
    )
    result.add_column("id", no_wrap=True)
    result.add_column("claim", overflow="fold", ratio=1)
    result.add_column("how (checks)", overflow="fold", max_width=11)
    result.add_column("status", overflow="fold", max_width=11)
    for claim in rows:
        text = f"{claim.statement} [{claim.source}]" if group == Group.ERRORS else claim.statement
        result.add_row(claim.id, text, f"{claim.kind.value} ({len(claim.checks)})", claim.status)
    return result


def show_one(claim: Claim) -> None:
    """Print one claim with every check."""
    lines = [("source", claim.source), ("how", claim.kind.value), ("status", claim.status)]
    lines += [("in LaTeX", claim.formula)] if claim.formula else []
    lines += [("note", claim.note)] if claim.note else []
    lines += [("check" if i == 0 else "", check) for i, check in enumerate(claim.checks)]
    console = screen()
    console.print(f"{claim.id}: {claim.statement}", style="bold")
    console.print(facts("", lines))
    console.print()

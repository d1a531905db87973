"""The registry: every theorem, figure and number of the paper and of ours, with the checks that stand behind it.

Statements, sources and strengths are taken from where they are kept: the theorem catalogue, the figures, the golden
numbers. ``claims.toml`` beside this file adds their further checks, the claims that are none of these, and the errors
found in the paper and in popular write-ups. Whether every check exists is tested, not looked up here: tests and
notebooks do not travel in the wheel.
"""

from __future__ import annotations

import collections
import dataclasses
import enum
import fnmatch
import functools
import tomllib
from collections.abc import Callable, Collection, Iterable, Mapping
from importlib.resources import files
from typing import Any

from grpo_dynamics.symbolic.proof import Strength

Progress = Callable[[int, int, str], None]

PAPER = "2503.06639"
NOT_PROVED, NOT_TESTED = "add --prove", "make test"
"""The status of what was not run, since proofs take a minute and tests are not in the wheel."""


class Group(enum.StrEnum):
    """Whose claim it is."""

    PAPER = "paper"
    OURS = "ours"
    ERRORS = "errors"

    @property
    def words(self) -> str:
        """As a headline."""
        return {"paper": "The paper", "ours": "Ours", "errors": "Errors found"}[self.value]


class Kind(enum.StrEnum):
    """How a claim is checked."""

    PROVED = "proved"
    CERTIFIED = "certified on a box"
    TESTED = "tested"
    COMPUTED = "computed"
    READ = "read in the source"
    READ_OFF = "read off"
    MEASURED = "measured by training"
    PAPERS = "the paper's measurement"
    SETTING = "the paper's setting"


@dataclasses.dataclass(frozen=True)
class Claim:
    """A statement and what stands behind it.

    Attributes:
        id: short and stable; that of the theorem, figure or golden number where it is one.
        group: the paper's, ours, or an error found.
        statement: in words.
        source: where it is stated.
        kind: how it is checked.
        checks: "tests/…::test_x", "docs/notebooks/NAME.md", "symbolic:THEOREM", "figure:NAME", "golden:NUMBER".
        status: what came of the checks that can run here: the strength of the proofs, the verdict on the numbers.
        note: what is false in the source or true instead, or a remark; empty if there is nothing to add.
        formula: the statement in LaTeX, where there is one.
    """

    id: str
    group: Group
    statement: str
    source: str
    kind: Kind
    checks: tuple[str, ...]
    status: str
    note: str = ""
    formula: str = ""

    def named(self, what: str) -> tuple[str, ...]:
        """Return the ids of the checks of one sort: ``symbolic``, ``figure`` or ``golden``."""
        return tuple(check.removeprefix(f"{what}:") for check in self.checks if check.startswith(f"{what}:"))

    @property
    def holds(self) -> bool:
        """Whether nothing that was run here failed."""
        return self.status not in (Strength.FAILED.words, _verdicts()["differs"])


def claims(prove: bool = False, progress: Progress | None = None) -> tuple[Claim, ...]:
    """Return every claim: the paper's, then ours, then the errors found.

    Args:
        prove: run the proof of every theorem too, which takes about a minute.
        progress: told before each proof.

    Returns:
        The claims; the golden numbers among them are computed now.

    >>> every = claims()
    >>> [claim.statement for claim in every if claim.id == "thm3"]
    ['GRPO amplifies: every fixed point exceeds p_ref']
    >>> all(claim.checks for claim in every)
    True
    """
    data = tomllib.loads(files("grpo_dynamics").joinpath("claims.toml").read_text(encoding="utf-8"))
    found = [*_theorem_claims(data), *_figure_claims(data), *_golden_claims(), *_written_claims(data)]
    order = list(Group)
    found.sort(key=lambda claim: order.index(claim.group))
    every = tuple(dataclasses.replace(claim, status=_status(claim, {})) for claim in found)
    return proved(every, progress) if prove else every


def proved(chosen: Iterable[Claim], progress: Progress | None = None) -> tuple[Claim, ...]:
    """Return the claims with the status that running the proofs of their theorems, and no others, gives them."""
    every = tuple(chosen)
    strengths = prove_all(progress, {id for claim in every for id in claim.named("symbolic")})
    return tuple(dataclasses.replace(claim, status=_status(claim, strengths)) for claim in every)


def counts(of: Iterable[Claim]) -> dict[str, dict[str, int]]:
    """Return how many claims each group has of each kind, most frequent first."""
    every = tuple(of)
    result: dict[str, dict[str, int]] = {}
    for group in Group:
        tally = collections.Counter(claim.kind.value for claim in every if claim.group == group)
        if tally:
            result[group.value] = dict(tally.most_common())
    return result


def prove_all(progress: Progress | None = None, ids: Collection[str] | None = None) -> dict[str, Strength]:
    """Return the strength of every theorem, or of those named, found by running its proof."""
    from grpo_dynamics.symbolic import theorems

    known = {id: theorem for id, theorem in theorems().items() if ids is None or id in ids}
    found: dict[str, Strength] = {}
    for done, theorem in enumerate(known.values()):
        if progress:
            progress(done, len(known), theorem.id)
        found[theorem.id] = theorem.prove().strength
    if progress:
        progress(len(known), len(known), "done")
    return found


CERTIFIED = frozenset({"li-yorke", "two-kl-same-beta", "amplification-v1-range"})
"""The theorems that are certified on a box; all others are proved, and a test runs every proof to see that they are."""


def _theorem_claims(data: Mapping[str, Any]) -> list[Claim]:
    from grpo_dynamics.symbolic import theorems
    from paper_figures import FIGURES

    result: list[Claim] = []
    for theorem in theorems().values():
        more = tuple(data["theorems"].get(theorem.id, ()))
        if theorem.id in FIGURES:  # Table 1 is a theorem and an entry of the figures
            more = (f"figure:{theorem.id}", *more)
        result.append(
            Claim(
                theorem.id,
                Group.PAPER if theorem.source.startswith(PAPER) else Group.OURS,
                theorem.title,
                theorem.source,
                Kind.CERTIFIED if theorem.id in CERTIFIED else Kind.PROVED,
                (f"symbolic:{theorem.id}", *more),
                "",
                theorem.remark,
                theorem.statement,
            )
        )
    return result


def _figure_claims(data: Mapping[str, Any]) -> list[Claim]:
    from grpo_dynamics.symbolic import theorems
    from paper_figures import FIGURES
    from paper_figures.page import CAPTIONS

    drawn = "tests/paper_figures/test_pictures.py::test_two_runs_give_the_same_bytes"
    return [
        Claim(
            entry.name,
            Group.OURS if entry.where == "ours" else Group.PAPER,
            entry.title,
            _source(entry.where),
            Kind.READ_OFF if entry.name == "figure3" else Kind.COMPUTED,
            (f"figure:{entry.name}", *data["figures"].get(entry.name, ()), drawn),
            "",
            CAPTIONS[entry.name][1],
        )
        for entry in FIGURES.values()
        if entry.name not in theorems()
    ]


def _golden_claims() -> list[Claim]:
    kinds = {"read_off": Kind.READ_OFF, "measured": Kind.PAPERS, "setting": Kind.SETTING}
    same = "tests/paper_figures/test_goldens.py::test_nothing_differs"
    return [
        Claim(
            row["id"],
            Group.OURS if row["kind"] == "ours" else Group.PAPER,
            f"{row['quantity']}: {row['paper']:.{row['digits']}f}",
            _source(row["where"]),
            kinds.get(row["kind"], Kind.COMPUTED),
            (f"golden:{row['id']}", same),
            "",
            row["note"] or "",
        )
        for row in _judged().values()
        if row["kind"] != "contradiction"  # evidence for an error, not a claim
    ]


def _written_claims(data: Mapping[str, Any]) -> list[Claim]:
    return [
        Claim(
            entry["id"],
            Group(entry["group"]),
            entry["statement"],
            entry["source"],
            Kind(entry["kind"]),
            tuple(check for pattern in entry["checks"] for check in _expand(pattern)),
            "",
            entry.get("note", ""),
        )
        for entry in data["claim"]
    ]


def _expand(pattern: str) -> list[str]:
    """Return the checks that a pattern stands for; one that fits no number stays as it is, for the tests to find."""
    if not pattern.startswith("golden:"):
        return [pattern]
    name = pattern.removeprefix("golden:")
    return [f"golden:{id}" for id in _judged() if fnmatch.fnmatchcase(id, name)] or [pattern]


def _source(where: str) -> str:
    """Return a place in the paper with its number: "v4, Figure 1" is in version 4."""
    return f"{PAPER}{where}" if where.startswith("v") else "ours"


@functools.cache
def _judged() -> dict[str, dict[str, Any]]:
    from paper_figures import goldens

    kinds = dict(goldens.paper_values().select("id", "kind").iter_rows())
    return {row["id"]: {**row, "kind": kinds[row["id"]]} for row in goldens.table().to_dicts()}


def _verdicts() -> dict[str, str]:
    from paper_figures import goldens

    return {"differs": goldens.DIFFERS, "inconsistent": goldens.INCONSISTENT}


def _status(claim: Claim, strengths: Mapping[str, Strength]) -> str:
    """Return the strength of the proofs, else the verdict on the numbers, else who runs the checks."""
    theorems = claim.named("symbolic")
    verdicts = [_judged()[id]["verdict"] for id in claim.named("golden") if id in _judged()]
    if _verdicts()["differs"] in verdicts:
        return _verdicts()["differs"]
    if theorems and claim.kind in (Kind.PROVED, Kind.CERTIFIED, Kind.READ):
        return min(strengths[id] for id in theorems if id in strengths).words if strengths else NOT_PROVED
    if _verdicts()["inconsistent"] in verdicts:
        return _verdicts()["inconsistent"]
    return verdicts[0] if verdicts else NOT_TESTED

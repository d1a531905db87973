"""Everything at once: figures, tables, golden numbers, a manifest, and one HTML page that opens from disk."""

from __future__ import annotations

import base64
import dataclasses
import html
import json
import os
import platform
import time
from importlib.resources import files
from pathlib import Path
from typing import Any

import polars as pl

import grpo_dynamics
from grpo_dynamics.plotting import write_whole
from grpo_dynamics.provenance import commit, versions
from paper_figures import FIGURES, Progress, goldens
from paper_figures.files import contents

CAPTIONS: dict[str, tuple[str, str]] = {
    "figure1": (
        "The paper plots the two weights of GRPO's contrastive loss at ε = 0.",
        "A rare success counts much, a rare failure too: below p = ½ success outweighs failure, above it the reverse.",
    ),
    "figure2": (
        "The paper plots h against p for twelve settings; its caption says ε = 1e-5.",
        "Its curves fit ε = 1e-2 to a pixel, and 1e-5 not at all (crosses). Fixed points are where a curve meets "
        "y = p: filled where stable.",
    ),
    "figure3": (
        "The paper shows success rates of seven test questions during its own training run.",
        "These are data read off its picture; nothing is computed but the 95 % band of a rate from 50 samples. "
        "Jumps of 830 and 320 are far wider than that band.",
    ),
    "figure4": (
        "The paper plots the bound B(p*) that β must exceed for p* to be stable; its title says ε = 1e-5.",
        "The ends of its curve, 4.85, are those of ε = 1e-4; at 1e-5 they would be 4.917.",
    ),
    "figure5": (
        "The paper iterates 24 settings from p₀ = 0.1 and prints p* over each panel.",
        "The number is p₅₀, not a fixed point. Bottom left it is the 50th point of a chaotic orbit, and no fixed "
        "point is near 0.0442. At β = 1, p_ref = 0.2 the question stays at 0.68 although ≈ 1 is stable too.",
    ),
    "table1": (
        "The paper summarises six variants.",
        "Every entry is derived here by computer algebra from one recursion, and checked against the numeric "
        "package. At one p* < ½ a two-KL step is stable from β > B/(2−α) on, GRPO from β > B.",
    ),
    "fixed_point_map": (
        "Versions 1–3 plotted the fixed point over β and p_ref.",
        "Colour: where the iteration from p_ref ends. Solid white: folds, between them three fixed points. Dashed "
        "white: left of it the lowest is unstable. Hatched: no rest, p oscillates.",
    ),
    "amplification_region": (
        "Versions 1–3 guaranteed p* > p_ref under a condition on β.",
        "It fails only for questions that are almost always solved already, and version 4 proves the claim without it.",
    ),
    "cobweb": (
        "Versions 1–3 drew the iteration as a cobweb.",
        "Up to the curve, across to the diagonal. Four fates: a fixed point; one of two; a 2-cycle; trapped chaos.",
    ),
    "overview": (
        "Ours: the map of all questions, and three of them on their way.",
        "Which fate a question has depends on its p_ref and on β, and at B also on where it starts.",
    ),
    "atlas_phase": (
        "Ours: what can become of a question, for every β and p_ref, with the β that trainers use.",
        "Everything unusual lies at β > 0.1. A trainer's small steps have folds at most, no flips: the yellow and red "
        "regions are those of exact minimisation.",
    ),
    "atlas_orbits": (
        "Ours: what p does in the long run on harder and harder questions at β = 5, and the Lyapunov exponent.",
        "From right to left: rest, a jump between two values, four, eight, chaos with windows of short cycles, and "
        "then an overshoot to p ≈ 1. The exponent is positive exactly in the chaos.",
    ),
    "atlas_basins": (
        "Ours: which start goes where, at β = 1 and β = 5.",
        "Both borders are the upper unstable fixed point: one itself, the other its mirror image, from where the "
        "first step lands on it. A question below p_ref ≈ 0.01 at β = 1 starts outside.",
    ),
    "atlas_groups": (
        "Ours: the phase diagram from advantages in groups of G.",
        "A group acts like a smoothing. With G = 2 there is nothing to see; with 8 folds and flips need β < 0.29 "
        "and very hard questions. Exact statistics are the exception.",
    ),
    "atlas_smallest_group": (
        "Ours: the smallest group size at which a question has three fixed points, or an unstable low one.",
        "Up to G = 64 neither happens at the β of trainers, 0.1 and less, except for the hardest questions: p_ref "
        "below 1e-7. Neither is monotone in G.",
    ),
    "atlas_kl": (
        "Ours: the fixed points of a trainer's small steps for each way to code the KL term, groups of 8.",
        "k3 in the loss pulls with another divergence: with a small β it holds p much further from 1 than the exact "
        "KL, with hard questions at β = 1 it lifts p far higher. k1 in the loss does not hold at all.",
    ),
}


@dataclasses.dataclass(frozen=True)
class Reproduction:
    """What :func:`reproduce` wrote: ``paths``, ``page`` among them; the judged ``goldens``; the ``seconds`` taken."""

    paths: list[Path]
    page: Path
    goldens: pl.DataFrame
    seconds: float

    @property
    def agrees(self) -> bool:
        """Whether no golden number differs."""
        return goldens.counts(self.goldens)[goldens.DIFFERS] == 0


def reproduce(
    out: str | os.PathLike[str], progress: Progress | None = None, training: str | None = None
) -> Reproduction:
    """Write every figure and table of the paper, the golden table, ``manifest.json`` and ``index.html`` into a folder.

    Args:
        out: the folder, made if it is not there; figures go to ``out/figures``.
        progress: told before each piece of work.
        training: where the report of a training run will lie, from the page; None: there is none.
    """
    start, out = time.perf_counter(), Path(out)
    total = len(FIGURES) + 2
    tell = progress or (lambda done, total, what: None)
    tell(0, total, "golden numbers")
    judged = goldens.table()
    written = [write_whole(out / "goldens.csv", judged.write_csv().encode())]
    blocks: list[str] = []
    seconds: dict[str, float] = {"goldens": time.perf_counter() - start}
    for done, entry in enumerate(FIGURES.values(), start=1):
        tell(done, total, entry.name)
        began = time.perf_counter()
        made = contents(entry)
        written += [write_whole(out / "figures" / f"{entry.name}{suffix}", data) for suffix, data in made.items()]
        blocks.append(_figure(entry.name, made))
        seconds[entry.name] = time.perf_counter() - began
    tell(total - 1, total, "page")
    took = time.perf_counter() - start
    facts = manifest(judged, {**seconds, "total": took})
    written.append(write_whole(out / "manifest.json", (json.dumps(facts, indent=2) + "\n").encode()))
    page = write_whole(out / "index.html", _page(judged, blocks, facts, training).encode())
    tell(total, total, "done")
    return Reproduction([*written, page], page, judged, took)


def manifest(judged: pl.DataFrame, seconds: dict[str, float]) -> dict[str, Any]:
    """Return what made these files: versions, platform, commit, seconds, and the counts of verdicts."""
    names = ("numpy", "scipy", "sympy", "mpmath", "matplotlib", "polars")
    return {
        "grpo_dynamics": grpo_dynamics.__version__,
        "paper": "arXiv 2503.06639v4",
        "commit": commit(),
        "platform": platform.platform(),
        "versions": versions(names),
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
        "verdicts": goldens.counts(judged),
    }


def _figure(name: str, made: dict[str, bytes]) -> str:
    entry, (shows, notice) = FIGURES[name], CAPTIONS[name]
    if ".png" in made:
        picture = base64.b64encode(made[".png"]).decode()
        body = f'<img alt="{html.escape(entry.title)}" src="data:image/png;base64,{picture}">'
    else:
        body = f"<div class=wide>{entry.module.html(entry.module.data())}</div>"
    links = " · ".join(f'<a href="figures/{name}{suffix}">{suffix[1:]}</a>' for suffix in made)
    return (
        f'<section id="{name}"><h2>{html.escape(entry.title)} <small>{entry.where}</small></h2><figure>{body}'
        f"<figcaption>{html.escape(shows)} <b>Notice:</b> {html.escape(notice)} <span class=small>{links}</span>"
        "</figcaption></figure></section>"
    )


_COLOURS = {
    goldens.AGREES: "good",
    goldens.INCONSISTENT: "paper",
    goldens.READ_OFF: "data",
    goldens.MEASURED: "data",
    goldens.SETTING: "data",
    goldens.DIFFERS: "bad",
}


def _golden_table(judged: pl.DataFrame) -> str:
    rows: list[str] = []
    for row in judged.iter_rows(named=True):
        cells = [f"<td>{html.escape(row['where'])}</td><td>{html.escape(row['quantity'])}</td>"]
        cells += [f"<td class=number>{text}</td>" for text in goldens.shown(row)]
        note = f"<br><span class=small>{html.escape(row['note'])}</span>" if row["note"] else ""
        verdict = f'<td><span class="verdict {_COLOURS[row["verdict"]]}">{row["verdict"]}</span>{note}</td>'
        rows.append(f"<tr>{''.join(cells)}{verdict}</tr>")
    head = "".join(f"<th>{name}</th>" for name in ("where", "quantity", "paper", "ours", "difference", "verdict"))
    return f"<div class=wide><table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"


def _training(report: str | None) -> str:
    """The way to the report of the training run."""
    if report is None:
        return ""
    return (
        '<h2 id="training">And does real training do it?</h2>'
        "<p>A small language model was made, trained with GRPO, and its success probabilities measured after every "
        f'iteration: <a href="{html.escape(report)}">the report</a> lays them over the predicted ones.</p>'
    )


def _page(judged: pl.DataFrame, blocks: list[str], facts: dict[str, Any], training: str | None) -> str:
    tally = " ".join(
        f'<span class="verdict {_COLOURS[verdict] if number else "data"}">{number} {verdict}</span>'
        for verdict, number in goldens.counts(judged).items()
    )
    template = files("paper_figures").joinpath("page.html").read_text(encoding="utf-8")
    made = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    parts = {
        "TALLY": tally,
        "COUNT": str(judged.height),
        "GOLDENS": _golden_table(judged),
        "CONTENTS": " · ".join(f'<a href="#{e.name}">{html.escape(e.title)}</a>' for e in FIGURES.values()),
        "FIGURES": "\n".join(blocks),
        "TRAINING": _training(training),
        "MADE": html.escape(
            f"grpo-dynamics {facts['grpo_dynamics']}, commit {facts['commit'] or 'none (installed package)'}, "
            f"{made}; {facts['seconds']['total']:.0f} s."
        ),
    }
    for name, text in parts.items():
        template = template.replace(f"<!--{name}-->", text)
    return template

"""`grpo-dynamics atlas`: what becomes of a question for every β and p_ref, with the user's own settings."""

from __future__ import annotations

import dataclasses
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from grpo_dynamics import __version__
from grpo_dynamics.cli.errors import refuse
from grpo_dynamics.cli.output import brief, exactly, facts, print_json, probability, progress, screen, table
from grpo_dynamics.cli.paper import folder
from grpo_dynamics.cli.ranges import Range
from grpo_dynamics.cli.settings import Settings
from grpo_dynamics.logodds import logit, sigmoid

if TYPE_CHECKING:
    import polars as pl
    from matplotlib.figure import Figure

BETAS = Range(0.01, 100.0)
REFERENCES = Range(1e-6, 0.9999)
"""What is drawn unless told: from trainers' β to where nothing can happen, from the hardest to the easiest question."""

LINE_STEPS = 1001
"""Systems of an orbit diagram."""

Told = Callable[[int, int, str], None]


@dataclasses.dataclass(frozen=True)
class Request:
    """What was asked for: the settings, the user's own point, the ranges and the number of steps along each."""

    settings: Settings
    beta: float | None
    p_ref: float | None
    betas: Range
    references: Range
    size: int

    def grid(self) -> tuple[Any, Any]:
        """Return β, in even steps of its logarithm, and the log-odds of p_ref, in even steps."""
        ends = (float(logit(self.references.low)), float(logit(self.references.high)))
        return np.geomspace(self.betas.low, self.betas.high, self.size), np.linspace(*ends, self.size)

    def describe(self) -> dict[str, Any]:
        """Return all of it as JSON has it."""
        return {
            **self.settings.describe(),
            "beta": self.beta,
            "p_ref": self.p_ref,
            "beta_range": [self.betas.low, self.betas.high],
            "p_ref_range": [self.references.low, self.references.high],
            "size": self.size,
        }


def draw_atlas(
    settings: Settings,
    beta: float | None,
    p_ref: float | None,
    beta_range: Range | None,
    p_ref_range: Range | None,
    size: int,
    out: Path,
    as_json: bool,
) -> None:
    """Compute the atlas, write its pictures and tables, and print what they show."""
    started = time.perf_counter()
    settings.recursion(1.0 if beta is None else beta, 0.5 if p_ref is None else p_ref)  # refused before any work
    betas = chosen("beta", beta, beta_range, BETAS, lambda b: b / 3, lambda b: b * 3)
    references = chosen("p_ref", p_ref, p_ref_range, REFERENCES, lambda p: p / 3, lambda p: 1 - (1 - p) / 3)
    request = Request(settings, beta, p_ref, betas, references, size)
    with folder(out), progress() as tell:
        tables, figures = compute(request, tell)
        answer = {
            "command": "atlas",
            "version": __version__,
            "settings": request.describe(),
            "regimes": shares(tables["phase"]),
            "boundaries": lines(tables["boundaries"], references),
            "point": None if beta is None or p_ref is None else point(request),
            "out": str(out),
        }
        answer |= write(request, tables, figures, answer, out, tell, started)
    if as_json:
        print_json(answer)
    else:
        show(request, answer)


def chosen(
    name: str,
    own: float | None,
    given: Range | None,
    usual: Range,
    below: Callable[[float], float],
    above: Callable[[float], float],
) -> Range:
    """Return the range of an axis: as given, or the usual one, widened where the user's own value needs it."""
    if given is not None:
        if own is not None and not given.low <= own <= given.high:
            refuse(f"{name}_range", f"a range with your own {name} {own:g} in it", f"{given.low:g}:{given.high:g}")
        return given
    if own is None:
        return usual
    low = usual.low if own >= usual.low else below(own) or own
    high = usual.high if own <= usual.high else above(own)
    return Range(low, high if high < (float("inf") if name == "beta" else 1) else own)


def compute(request: Request, tell: Told) -> tuple[dict[str, pl.DataFrame], dict[str, Figure]]:
    """Return every table and every picture by name."""
    from grpo_dynamics import atlas
    from grpo_dynamics.cli import atlas_pictures as pictures

    settings, (beta, reference) = request.settings, request.grid()
    normalization, alpha = settings.normalization(), settings.anchor()
    tables = {
        "phase": atlas.plane(normalization, alpha, beta, reference, tell=tell),
        "boundaries": atlas.boundaries(normalization, alpha, request.betas.low, request.betas.high),
    }
    place = None if request.p_ref is None else float(logit(request.p_ref))
    title = settings.title()
    figures = {
        "phase": pictures.phase(tables["phase"], tables["boundaries"], place, request.beta, title),
        "ends": pictures.ends(tables["phase"], place, request.beta, title),
    }
    if request.beta is not None:
        tell(0, 1, "orbits over p_ref")
        steps = sigmoid(np.linspace(reference[0], reference[-1], LINE_STEPS))
        tables["orbits_over_p_ref"] = atlas.line(settings.recursion(request.beta, steps))
        figures["orbits_over_p_ref"] = pictures.orbits(tables["orbits_over_p_ref"], "p_ref", request.beta, place, title)
    if request.p_ref is not None:
        tell(0, 1, "orbits over beta")
        steps = np.geomspace(beta[0], beta[-1], LINE_STEPS)
        tables["orbits_over_beta"] = atlas.line(settings.recursion(steps, request.p_ref))
        figures["orbits_over_beta"] = pictures.orbits(
            tables["orbits_over_beta"], "beta", request.p_ref, request.beta, title
        )
    return tables, figures


def shares(phase: pl.DataFrame) -> list[dict[str, Any]]:
    """Return every regime with its share of the drawn plane."""
    from grpo_dynamics.theory.regimes import Regime

    counted = dict(phase["regime"].value_counts().iter_rows())
    return [
        {"regime": r.name.lower(), "meaning": r.meaning, "share": counted.get(r.name, 0) / phase.height} for r in Regime
    ]


def lines(boundaries: pl.DataFrame, references: Range) -> dict[str, Any]:
    """Return the β of the cusps, and the ranges of β in which folds and flips cross the drawn p_ref."""
    drawn = boundaries.filter(boundaries["p_ref"].is_between(references.low, references.high))
    found: dict[str, Any] = {"cusp_beta": boundaries.filter(kind="cusp")["beta"].to_list()}
    for kind in ("fold", "flip"):
        beta = drawn.filter(kind=kind)["beta"].to_numpy()
        found[f"{kind}_beta"] = [float(beta.min()), float(beta.max())] if len(beta) else None
    return found


def point(request: Request) -> dict[str, Any]:
    """Return what becomes of the user's own question."""
    from grpo_dynamics import LimitKind, limit
    from grpo_dynamics.theory.regimes import Regime, regime

    dynamics = request.settings.recursion(request.beta, request.p_ref)
    found, end = regime(dynamics), limit(dynamics)
    return {
        "beta": request.beta,
        "p_ref": request.p_ref,
        "regime": Regime(int(found.label)).name.lower(),
        "reason": found.reason(),
        "end": {
            "kind": LimitKind(int(end.kind)).name.lower(),
            "period": int(end.period),
            "log_odds_low": float(end.low),
            "log_odds_high": float(end.high),
        },
    }


def write(
    request: Request,
    tables: dict[str, pl.DataFrame],
    figures: dict[str, Figure],
    answer: dict[str, Any],
    out: Path,
    tell: Told,
    started: float,
) -> dict[str, Any]:
    """Write pictures, tables and how they were made; return the names and the seconds."""
    import io
    import json

    from grpo_dynamics.cli.output import to_json
    from grpo_dynamics.plotting import render, write_whole

    files: dict[str, bytes] = {}
    for done, (name, figure) in enumerate(figures.items()):
        tell(done, len(figures), f"picture {name}")
        files |= {f"{name}.{kind}": render(figure, kind) for kind in ("png", "pdf")}
    for name, made in tables.items():
        buffer = io.BytesIO()
        made.write_parquet(buffer)
        files |= {f"{name}.parquet": buffer.getvalue(), f"{name}.csv": made.write_csv().encode()}
    names = [*files, "atlas.json"]
    rest = {"files": names, "seconds": round(time.perf_counter() - started, 2)}
    versions = {"python": platform.python_version(), "numpy": np.__version__}
    manifest = {
        **answer,
        **rest,
        "versions": versions,
        "columns": {name: made.columns for name, made in tables.items()},
    }
    files["atlas.json"] = (json.dumps(to_json(manifest), indent=2, ensure_ascii=False) + "\n").encode()
    for name, data in files.items():
        write_whole(out / name, data)
    return rest


def show(request: Request, answer: dict[str, Any]) -> None:
    """Print what the atlas shows, for people."""
    out = screen()
    ranges = f"β from {brief(request.betas.low)} to {brief(request.betas.high)}"
    ranges += f", p_ref from {exactly(request.references.low)} to {exactly(request.references.high)}"
    out.print(f"{request.settings.title()}\n{ranges}\n")
    rows = [
        (entry["regime"], f"{100 * entry['share']:.1f} %", entry["meaning"])
        for entry in answer["regimes"]
        if entry["share"] > 0
    ]
    out.print(table("What becomes of questions", ("regime", "share", "what that is"), rows, left=(0, 2)))
    out.print("Share of the plane of log β and logit p_ref.\n", style="dim")
    for line in boundary_sentences(answer["boundaries"]):
        out.print(line)
    if answer["point"] is not None:
        own = answer["point"]
        title = f"\nYour question: β = {brief(own['beta'])}, p_ref = {exactly(own['p_ref'])}"
        out.print(facts(title, [("regime", own["regime"]), ("why", own["reason"]), ("from p_ref", ending(own["end"]))]))
    note = "This is exact minimisation. The small steps of a trainer have its folds at most, and no flips."
    out.print(f"\n{note}", style="dim")
    out.print(f"\n{len(answer['files'])} files in {answer['out']}, {answer['seconds']:.1f} s.", soft_wrap=True)


def boundary_sentences(found: dict[str, Any]) -> list[str]:
    """Return where the lines are, in plain sentences."""
    parts = [
        f"Cusp at β = {brief(beta)}: above it there is one fixed point for every p_ref."
        for beta in found["cusp_beta"][:1]
    ]
    for kind, what in (
        ("fold", "two fixed points are born, or vanish"),
        ("flip", "the low fixed point begins to overshoot"),
    ):
        ends = found[f"{kind}_beta"]
        where = "none here" if ends is None else f"for β from {brief(ends[0])} to {brief(ends[1])}"
        parts.append(f"{kind.capitalize()}s, where {what}: {where}.")
    return parts


def ending(end: dict[str, Any]) -> str:
    """Return where the orbit from p_ref goes."""
    low, high = probability(end["log_odds_low"]), probability(end["log_odds_high"])
    if end["kind"] in ("fixed_point", "one"):
        return f"to {low}"
    if end["kind"] == "cycle":
        return f"into a cycle of period {end['period']} between {low} and {high}"
    return f"{'wanders' if end['kind'] == 'irregular' else 'not settled'}, between {low} and {high}"

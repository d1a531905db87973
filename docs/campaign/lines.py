"""What each experiment comes to in one line, from the contrast that it asks about."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

from campaign.lengths import lengths_line
from campaign.results import SMOKE, Result
from campaign.scripts import script_line
from grpo_dynamics.validation.summary import short

Arms = Sequence[dict[str, Any]]


def one_line(result: Result) -> str:
    """Return what a result comes to."""
    if result.table is not None:
        return script_line(result.table)
    kind = result.folder.name.removesuffix(SMOKE).partition("_")[2]
    line = LINES.get(kind, _of_anything)
    judged = [arm for arm in result.arms if arm["passed"] is not None]
    kept = sum(arm["passed"] for arm in judged)
    said = [f"{kept} of {len(judged)} arms keep their bounds"] if judged else []
    return "; ".join([*line(result), *said])


def _recursion(result: Result) -> list[str]:
    """How near p_n is to its prediction, of exact expectations and of samples, and what was tried."""
    found: list[str] = []
    for words, sampled in (("exact expectations", False), ("sampled groups", True)):
        arms = [arm for arm in result.arms if arm["residual"]["points"] and result.sampled(arm["arm"]) == sampled]
        if arms:
            found.append(f"{_most(arms, 'median')} with {words} (95 % within {_most(arms, 'percentile_95')})")
    said = [f"median \\|p_n − predicted\\| of an arm at most {', '.join(found)}"]
    trained = [result.config(arm["arm"]) for arm in result.arms]
    tried = sorted({float(config["training"]["beta"]) for config in trained if "beta" in config.get("training", {})})
    kinds = sorted({_kind(config["training"]) for config in trained if config.get("training")})
    return [*said, f"tried: β = {', '.join(f'{beta:g}' for beta in tried)}; {', '.join(kinds)}"] if tried else said


def _kind(training: dict[str, Any]) -> str:
    """Which GRPO the settings of an arm are."""
    alpha = training.get("alpha", 1.0)
    if alpha < 1:
        return "two-KL" if alpha else "mirror"
    return "Dr. GRPO" if (training.get("normalization") or {}).get("kind") == "mean_only" else "GRPO"


def _most(arms: Arms, name: str) -> str:
    return short(max(arm["residual"][name] for arm in arms))


def _flow(result: Result) -> list[str]:
    """How far the questions end from their own fixed point, and from that of the other divergence."""
    medians = [arm["p_infinity"]["median"] for arm in result.arms]
    others = [entry for arm in result.arms for entry in arm["other_theories"] if not entry["paper"]]
    factors = [entry["apart"]["factor"] for entry in others if (entry.get("apart") or {}).get("factor") is not None]
    said = [f"median \\|p_∞ − p\\*\\| at most {short(max(medians))} in an arm"]
    if factors:
        said.append(
            f"the other KL divergence is {min(factors):.0f} to {max(factors):.0f} times farther off where the two "
            "differ"
        )
    papers = [e["p_infinity_median"] for arm in result.arms for e in arm["other_theories"] if e["paper"]]
    if papers:
        said.append(f"G = ∞ is {short(min(papers))} to {short(max(papers))} off, other finite G are not compared")
    return [*said, _farthest(result.arms)]


def _farthest(arms: Arms) -> str:
    """What a median does not show: the farthest question, and those that still move."""
    worst = max(arms, key=lambda arm: arm["p_infinity"]["largest"])
    moving = sum(arm["p_infinity"]["still_moving"] for arm in arms)
    return (
        f"the farthest question is {short(worst['p_infinity']['largest'])} off (`{worst['arm']}`), and {moving} of "
        f"{sum(arm['questions'] for arm in arms)} were still moving at the end"
    )


def _oscillation(result: Result) -> list[str]:
    """Which questions swing of those that should, by how much, and what swings where none should."""
    swinging = [arm for arm in result.arms if arm["oscillation"]["predicted"]]
    quiet = [arm for arm in result.arms if not arm["oscillation"]["predicted"]]
    said: list[str] = []
    if swinging:
        seen, predicted = (sum(arm["oscillation"][name] for arm in swinging) for name in ("seen", "predicted"))
        others = sum(arm["oscillation"]["others"] for arm in swinging)
        said.append(f"{seen} of {predicted} questions swing that should, and {others} others on their way to rest")
        sizes = [
            f"`{arm['arm']}` {short(arm['oscillation']['swing'])} ({short(arm['oscillation']['swing_predicted'])})"
            for arm in swinging
            if arm["oscillation"]["seen"]
        ]
        said += [f"by how much in a step (predicted): {', '.join(sizes)}"] if sizes else []
    if quiet:
        counts = ", ".join(f"{_swings(arm)} in `{arm['arm']}`" for arm in quiet)
        said.append(f"where none should, {counts}")
    return said


def _swings(arm: dict[str, Any]) -> int:
    return arm["oscillation"]["seen"] + arm["oscillation"]["others"]


def _practice(result: Result) -> list[str]:
    """How far each departure moves where the questions end, and what it does to the length of wrong answers."""
    ends = ", ".join(
        f"`{arm['arm']}` {short(arm['p_infinity']['median'])} ({short(arm['p_infinity']['percentile_95'])})"
        for arm in result.arms
    )
    return [
        f"median \\|p_∞ − p\\*\\| (and that of 95 %): {ends}",
        _farthest(result.arms),
        *lengths_line(result),
    ]


def _scale(result: Result) -> list[str]:
    """The error of one step by size, a line of sizes for each kind of arm, and whether it shrinks."""
    kinds: dict[str, list[dict[str, Any]]] = {}
    for arm in result.arms:
        kinds.setdefault(arm["arm"].partition("_")[2], []).append(arm)
    said: list[str] = []
    for kind, arms in sorted(kinds.items(), key=lambda found: -max(arm["error"]["total"] for arm in found[1])):
        if len(arms) < 2:
            continue
        sizes = " → ".join(arm["arm"].partition("_")[0] for arm in arms)
        errors, medians = ([float(arm[a][b]) for arm in arms] for a, b in (("error", "total"), ("residual", "median")))
        said.append(
            f"{kind.replace('_', ' ')}, {sizes}: error of one step {_path(errors)}, median \\|p_n − predicted\\| "
            f"{_path(medians)}, R² {' → '.join(_r2(arm['r2']) for arm in arms)}"
        )
    return said


def _path(values: Sequence[float]) -> str:
    """Numbers by size, and whether they fall throughout."""
    falls = all(later < before for before, later in itertools.pairwise(values))
    shown = (f"{x:.3f}" if x >= 0.01 else f"{x:.4f}" if x >= 5e-4 else f"{x:.1e}".replace("e-0", "e-") for x in values)
    return f"{' → '.join(shown)} ({'shrinks' if falls else 'does not shrink throughout'})"


def _r2(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}".replace("-", "−")


def _of_anything(result: Result) -> list[str]:
    """Of a run of several kinds: what it measures."""
    said = _recursion(result) if any(arm["residual"]["points"] for arm in result.arms) else _flow(result)
    return [*said, *(_oscillation(result)[:1] if any(_swings(arm) for arm in result.arms) else [])]


LINES: dict[str, Callable[[Result], list[str]]] = {
    "recursion": _recursion,
    "flow": _flow,
    "oscillation": _oscillation,
    "practice": _practice,
    "scale": _scale,
}

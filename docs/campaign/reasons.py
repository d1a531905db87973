"""Why a promised bound was missed: a reason for each kind of bound, from the numbers of the arm that missed it."""

from __future__ import annotations

import math
from typing import Any

from campaign.cells import number, plain, share, tiny
from campaign.ends import causes, moving
from campaign.results import Result
from grpo_dynamics.validation.summary import short


def failures(result: Result) -> list[str]:
    """Return what missed its bounds, and why."""
    lines: list[str] = []
    for arm in result.arms:
        missed = [entry for entry in arm["thresholds"] if not entry["passed"]]
        if missed:
            what = ", ".join(f"{plain(entry['what'])} ({number(entry['value'])})" for entry in missed)
            why = " ".join(dict.fromkeys(reason(result, arm, entry) for entry in missed))
            lines.append(f"- `{arm['arm']}` misses: {what}. {why}")
    return ["**What failed, and why:**\n\n" + "\n".join(lines)] if lines else []


def reason(result: Result, arm: dict[str, Any], entry: dict[str, Any]) -> str:
    """Return why one bound was missed."""
    name = entry["name"]
    if entry["value"] is None or math.isnan(entry["value"]):
        return "No question could be compared for it."
    if name.startswith("oscillating"):
        return _of_swings(arm, entry)
    if name == "wrong_estimator":
        return f"{_of_other_estimators(arm)} {_of_ends(result, arm)}"
    if arm["error"]["total"] is None:
        return _of_ends(result, arm)
    return _of_steps(result, arm, entry)


def _of_swings(arm: dict[str, Any], entry: dict[str, Any]) -> str:
    """Of a count of questions that swing, or should not."""
    told = arm["oscillation"]
    if entry["name"] == "oscillating_at_most":
        return (
            f"{told['seen'] + told['others']} questions swing; of these {told['seen']} should for ever, and "
            f"{told['others']} should come to rest: they are still on their way, or samples move them."
        )
    if told["predicted"] < entry["bound"]:
        return (
            f"By the theory only {told['predicted']} questions swing from these p_ref, fewer than the bound asks for, "
            f"and {told['seen']} of them do."
        )
    size = "" if told["swing"] is None else f" Those that do change by {short(told['swing'])} in a step, "
    size += f"predicted is {short(told['swing_predicted'])}." * bool(size)
    still = f"{told['predicted'] - told['seen']} of the {told['predicted']} that should swing do not."
    return still + size + _unfinished(arm)


def _unfinished(arm: dict[str, Any]) -> str:
    reached = arm["error"]["converged"]
    if reached is None or reached == 1:
        return ""
    return f" Its loops did not reach their tolerance in {share(1 - reached)}, which damps a swing."


def _of_other_estimators(arm: dict[str, Any]) -> str:
    """How far the two predictions are that a run should tell apart."""
    others = [entry for entry in arm["other_theories"] if not entry["paper"]]
    apart = min((entry["apart"] for entry in others), key=lambda found: found["factor"])
    return (
        f"On the {apart['questions']} questions where the predictions differ, the median distance is "
        f"{short(apart['own'])} from its own and {short(apart['other'])} from the other."
    )


def _of_ends(result: Result, arm: dict[str, Any]) -> str:
    """Of where small steps end."""
    return f"{moving(arm)} {causes(result, arm)}"


def _of_steps(result: Result, arm: dict[str, Any], entry: dict[str, Any]) -> str:
    """Of minimised iterations: chance, what the inner loops left, or the rest, whichever is the largest."""
    error = arm["error"]
    largest = max(("statistical", "optimisation", "approximation"), key=lambda part: error[part] or 0.0)
    size = f"{short(error[largest])} of {short(error['total'])}"
    said = {
        "statistical": f"The largest part of its error of one step is chance: {size}.",
        "optimisation": f"The largest part of its error of one step is what its inner loops have left: {size}.",
        "approximation": "The largest part of its error of one step is neither chance nor the inner loop "
        f"({size}): the network is not the policy of the theory.",
    }[largest]
    way = arm["p_infinity"]["on_their_way"] if entry["name"].startswith("p_infinity") else 0
    said += f" {way} questions have not arrived by the theory either, and are left out." * bool(way)
    return said if largest == "statistical" else f"{said} {_of_loops(result, arm, entry)}"


def _of_loops(result: Result, arm: dict[str, Any], entry: dict[str, Any]) -> str:
    """What the inner loops reached, and what their tolerance allows."""
    error = arm["error"]
    left = ""
    if error.get("kl") is not None:
        left = f"KL left: {tiny(error['kl'])} in the mean, at most {tiny(error['kl_largest'])}."
    if error["converged"] is None:
        return f"Whether its loops reached their tolerance was not recorded. {left}".rstrip()
    if error["converged"] < 1:
        return f"Its loops did not reach their tolerance in {share(1 - error['converged'])}. {left}".rstrip()
    tolerance = (result.config(arm["arm"]).get("optimization") or {}).get("inner_tolerance") or 0.0
    allowed = math.sqrt(tolerance / 2)
    why = "steps add up, or the network cannot represent what the theory says."
    if entry["how"] != "at least":
        tighter = allowed > entry["bound"]
        why = "the bound is tighter than that." if tighter else f"within the bound, so that {why}"
    return f"All its loops reached their tolerance, which allows {short(allowed)} in a step: {why} {left}".rstrip()

"""What a run of the campaign came to: measured beside predicted, bounds, failures, and the causes of the error."""

from __future__ import annotations

from typing import Any

from campaign.cells import decimal, number, plain, share, table, tiny
from campaign.results import Result
from grpo_dynamics.validation.summary import short

PARTS = {
    "statistical": "chance (what the samples of the steps say beside their expectation)",
    "optimisation": "the inner loop (it stopped before the optimum)",
    "approximation": "what is left (the network is not the policy of the theory)",
}


FAR = 0.1
"""Where one question in twenty ends farther from its p* than this, the page says so."""


def of_a_run(result: Result) -> list[str]:
    """Return the tables of a run: measured beside predicted, the bounds, the failures and the causes of the error."""
    return [
        _measured(result),
        _bounds(result),
        *_failures(result),
        *_far(result),
        *_swings(result),
        _causes(result),
        *_lengths(result),
    ]


def _measured(result: Result) -> str:
    head = ("arm", "predicted by", "|p_n − predicted|: median", "95 %", "R²", "in the 95 % interval")
    head = (*head, "|p_∞ − p*|: median, 95 %", "paper's", "verdict")
    words = {True: "pass", False: "**fail**", None: "not judged"}
    rows = [
        [
            f"`{arm['arm']}`",
            plain(arm["theory"]),
            short(arm["residual"]["median"]),
            short(arm["residual"]["percentile_95"]),
            decimal(arm["r2"] if arm["residual"]["points"] else arm["p_infinity"]["r2"]),
            share((arm.get("interval") or {}).get("covered")),
            f"{short(arm['p_infinity']['median'])}, {short(arm['p_infinity']['percentile_95'])}",
            _papers(arm),
            words[arm["passed"]],
        ]
        for arm in result.arms
    ]
    return table([plain(cell) for cell in head], rows)


def _papers(arm: dict[str, Any]) -> str:
    """The same distance from the paper's recursion, which has neither groups nor an estimator."""
    paper = next((entry for entry in arm["other_theories"] if entry["paper"]), None)
    which = "residual_median" if arm["residual"]["points"] else "p_infinity_median"
    return "its own" if paper is None else short(paper[which])


def _bounds(result: Result) -> str:
    rows = [
        [
            f"`{arm['arm']}`",
            plain(entry["what"]),
            f"{entry['how']} {number(entry['bound'])}",
            number(entry["value"]),
            "pass" if entry["passed"] else "**fail**",
        ]
        for arm in result.arms
        for entry in arm["thresholds"]
    ]
    if not rows:
        return "The arms promise no bounds."
    return "Bounds that the arms promise:\n\n" + table(("arm", "what", "promised", "measured", "verdict"), rows)


def _failures(result: Result) -> list[str]:
    """What missed its bounds, and which cause of the error is the largest."""
    failed = [arm for arm in result.arms if arm["passed"] is False]
    if not failed:
        return []
    lines = []
    for arm in failed:
        missed = ", ".join(entry["what"] for entry in arm["thresholds"] if not entry["passed"])
        lines.append(f"- `{arm['arm']}` misses: {plain(missed)}. {_reason(arm)}")
    return ["**What failed, and why:**\n\n" + "\n".join(lines)]


def _far(result: Result) -> list[str]:
    """The arms of small steps some of whose questions end elsewhere, which a median does not show."""
    far = [arm for arm in result.arms if not arm["residual"]["points"] and (_end(arm, "percentile_95") or 0.0) > FAR]
    if not far:
        return []
    shared = set[str].intersection(*(set(arm["not_modelled"]) for arm in result.arms))
    lines: list[str] = []
    for arm in far:
        own = plain(" ".join(words for words in arm["not_modelled"] if words not in shared))
        moving = f"Still moving when the run ended: {_end(arm, 'still_moving')} of {arm['questions']}. "
        size = f"the farthest by {short(_end(arm, 'largest'))}, R² = {decimal(_end(arm, 'r2'))}"
        lines.append(f"- `{arm['arm']}`: {size}. {moving}{own}".rstrip())
    words = f"**Some questions end elsewhere**, one in twenty farther than {FAR:g} from p\\*, whatever the median says:"
    return [f"{words}\n\n" + "\n".join(lines)]


def _end(arm: dict[str, Any], name: str) -> Any:
    return arm["p_infinity"][name]


def _swings(result: Result) -> list[str]:
    """Which questions swing, of runs in which some should."""
    if not any(arm["oscillation"]["predicted"] for arm in result.arms):
        return []
    rows = [
        [
            f"`{arm['arm']}`",
            *(str(arm["oscillation"][name]) for name in ("predicted", "seen", "others")),
            *(short(arm["oscillation"][name]) for name in ("swing", "swing_predicted")),
        ]
        for arm in result.arms
    ]
    words = (
        "Questions that swing: whose last steps all go against the one before. Those that should go on for ever are "
        "told from the others, which swing where they are still on their way to rest. The last two columns are by how "
        "much p changes in a step, of those that should and do."
    )
    return [f"{words}\n\n{table(('arm', 'should', 'of these do', 'others that do', 'measured', 'predicted'), rows)}"]


def _reason(arm: dict[str, Any]) -> str:
    """The largest cause of the error of a step; of a flow, what its settings do that the theory does not have."""
    error = arm["error"]
    if error["total"] is None:
        left = arm["p_infinity"]["still_moving"]
        moving = f"{left} of {arm['questions']} questions were still moving at the end. " if left else ""
        return moving + "Not modelled: " + plain(" ".join(arm["not_modelled"]))
    largest = max(PARTS, key=lambda part: error[part] or 0.0)
    return f"The largest part of its error is {PARTS[largest]}: {short(error[largest])} of {short(error['total'])}."


def _causes(result: Result) -> str:
    """The error of one step and its causes, of arms with orbits."""
    rows = [
        [
            f"`{arm['arm']}`",
            *(short(arm["error"][name]) for name in ("total", *PARTS)),
            tiny(arm["error"].get("kl")),
            share(arm["error"]["converged"]),
        ]
        for arm in result.arms
        if arm["error"]["total"] is not None
    ]
    if not rows:
        said = dict.fromkeys(words for arm in result.arms for words in arm["not_modelled"])
        return (
            "Of small steps only the end is predicted, so the error of one step has no parts. What the settings do "
            f"that the equations do not have: {plain(' '.join(said))}"
        )
    head = ("arm", "error of one step", "chance", "inner loop", "what is left", "KL(π‖π\\*) left", "loops converged")
    words = (
        "Why measured and predicted differ: root mean square error of one step, and its causes. With exact "
        "expectations and one KL term the column *inner loop* has everything, also what the network cannot represent. "
        "*KL left* is a mean, often that of one or two questions."
    )
    return f"{words}\n\n{table(head, rows)}"


def _lengths(result: Result) -> list[str]:
    """How long right and wrong answers became, of runs whose answers have several lengths."""
    rows = [
        [f"`{arm['arm']}`", *(cell for kind in ("wrong", "right") for cell in _length_cells(told[kind]))]
        for arm in result.arms
        if (told := arm.get("lengths"))
    ]
    if not rows:
        return []
    head = ("arm", "wrong: tokens at first, at last", "shift", "right: tokens at first, at last", "shift")
    words = (
        "Length of the answers, in tokens; *shift* is how much a question's own mean has changed, with its standard "
        "error over the questions. A mean over the tokens of each answer should make wrong answers longer, and a "
        "constant divisor should not." + " The small form is too short to tell the two apart." * result.smoke
    )
    return [f"{words}\n\n{table(head, rows)}"]


def _length_cells(told: dict[str, Any]) -> list[str]:
    if told["start"] is None:
        return ["–", "–"]
    error = "" if told["shift_error"] is None else f" ± {told['shift_error']:.2f}"
    shift = "–" if told["shift"] is None else f"{told['shift']:+.2f}{error}"
    return [f"{told['start']:.2f}, {told['end']:.2f}", shift]

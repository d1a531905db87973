"""What a run of the campaign came to: measured beside predicted, bounds, failures, and the causes of the error."""

from __future__ import annotations

from typing import Any

from campaign.cells import decimal, number, plain, share, table, tiny
from campaign.ends import far
from campaign.lengths import lengths
from campaign.reasons import failures
from campaign.results import Result
from grpo_dynamics.validation.summary import short

PARTS = ("statistical", "optimisation", "approximation")


def of_a_run(result: Result) -> list[str]:
    """Return the tables of a run: measured beside predicted, the bounds, the failures and the causes of the error."""
    return [
        _measured(result),
        _bounds(result),
        *failures(result),
        *far(result),
        *_swings(result),
        _causes(result),
        *lengths(result),
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

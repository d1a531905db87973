"""What a run's batches say about its questions: numbers for the logs, and warnings."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

from grpo_dynamics.integrations.counts import Counts, Pair
from grpo_dynamics.integrations.foresight import REGIMES, Foresight, Outlook

WARNED = {
    "bistable": "where training ends depends on where it starts",
    "oscillating": "small steps settle, but where each batch is optimised to its end p oscillates",
}
"""Regimes that a user is warned of, where a question is in one with a probability above one half; what that means."""

MOST_WARNINGS = 3
"""Of each kind; further questions only count in the logs."""

logger = logging.getLogger("grpo_dynamics")

Row = tuple[str, bool | None]
"""A completion: its question, and whether it is right; None where the reward function did not say."""


class Observer:
    """Counts what it is told, and says what the theory makes of it.

    Args:
        counts: of the questions.
        shown: so many questions, the first that are seen, have numbers of their own.
    """

    def __init__(self, counts: Counts, shown: int) -> None:
        self.counts = counts
        self.foresight: Foresight | None = None
        self._shown = shown
        self._curves: set[str] = set()
        self._judged = 0
        self._chances: dict[str, float] = dict.fromkeys(REGIMES, 0.0)
        self._warned: dict[str, int] = dict.fromkeys(WARNED, 0)

    def foresee(self, foresight: Foresight | None) -> None:
        """Take this theory from now on, for all questions seen before, too."""
        self.foresight = foresight
        self._judged, self._chances = 0, dict.fromkeys(REGIMES, 0.0)
        for _, successes, samples, *_ in self.counts.rows():
            self._judge((successes, samples))

    def measured(self, rows: Sequence[Row], group_size: int) -> dict[str, float]:
        """Count a batch of groups, one after the other; return its numbers, and those of all questions seen.

        ``p``, ``p_ref`` and ``p_star`` are means over the questions of the batch, ``silent_groups`` the share of its
        groups that are all right or all wrong, ``regime/...`` shares of all questions seen, of which there are
        ``questions``.
        """
        groups = [rows[i : i + group_size] for i in range(0, len(rows), group_size)]
        told = [{right for _, right in group if right is not None} for group in groups]
        outlooks: list[Outlook] = []
        p: list[float] = []
        numbers: dict[str, float] = {}
        for question, (successes, samples) in visits(rows).items():
            first = question not in self.counts
            reference = self.counts.visit(question, successes, samples)
            outlook = None if self.foresight is None or reference is None else self.foresight.outlook(*reference)
            if first and reference is not None:
                self._judge(reference)
                self._warn(question, reference)
                if len(self._curves) < self._shown:
                    self._curves.add(question)
            p.append(successes / samples)
            outlooks += [] if outlook is None else [outlook]
            if question in self._curves:
                numbers |= _curve(question, successes / samples, outlook)
        means = {
            "p": p,
            "p_ref": [outlook.p_ref for outlook in outlooks],
            "p_star": [outlook.p_star for outlook in outlooks],
            "silent_groups": [float(len(seen) == 1) for seen in told if seen],
        }
        found = {name: sum(values) / len(values) for name, values in means.items() if values}
        if self._judged:
            found |= {f"regime/{name}": chance / self._judged for name, chance in self._chances.items()}
        return {**found, "questions": float(len(self.counts)), **numbers}

    def _judge(self, reference: Pair) -> None:
        if self.foresight is not None:
            self._judged += 1
            for name, chance in self.foresight.outlook(*reference).chances.items():
                self._chances[name] += chance

    def _warn(self, question: str, reference: Pair) -> None:
        """Tell of a question in a regime that may surprise; of many only the first."""
        if self.foresight is None:
            return
        chances = self.foresight.outlook(*reference).chances
        for name in (name for name in WARNED if chances[name] > 0.5):
            self._warned[name] += 1
            if self._warned[name] > MOST_WARNINGS:
                continue
            more = f"; more of them only count in regime/{name}" if self._warned[name] == MOST_WARNINGS else ""
            logger.warning(
                "question %s (%d of %d right) is in the %s regime with probability %.2f: %s; %s%s",
                question,
                *reference,
                name,
                chances[name],
                WARNED[name],
                self.foresight.reason(name, *reference),
                more,
            )


def visits(rows: Iterable[Row]) -> dict[str, list[int]]:
    """Return successes and samples of each question; completions without a verdict are left out.

    >>> visits([("a", True), ("a", False), ("b", None), ("a", True)])
    {'a': [2, 3]}
    """
    found: dict[str, list[int]] = {}
    for question, right in rows:
        if right is not None:
            visit = found.setdefault(question, [0, 0])
            visit[0], visit[1] = visit[0] + right, visit[1] + 1
    return found


def _curve(question: str, p: float, outlook: Outlook | None) -> dict[str, float]:
    name = f"question/{question}"
    theory = {} if outlook is None else {f"{name}/p_ref": outlook.p_ref, f"{name}/p_star": outlook.p_star}
    return {f"{name}/p": p, **theory}

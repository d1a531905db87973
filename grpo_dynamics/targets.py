"""Which target success probabilities training can hold: the β for a target, and whether the orbit arrives and stays."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from grpo_dynamics.arrays import Array, batch_shape, require
from grpo_dynamics.logodds import logit, sigmoid
from grpo_dynamics.normalization import Normalization
from grpo_dynamics.theory.amplification import Design, DesignStatus, design
from grpo_dynamics.theory.fixed_points import fixed_points
from grpo_dynamics.theory.orbits.limit import Limit, LimitKind, limit
from grpo_dynamics.theory.recursion import Recursion


@dataclasses.dataclass(frozen=True)
class Reached:
    """A target that the orbit from p_0 reaches and stays at, as log-odds, its β, and its multiplier there."""

    log_odds: float
    beta: float
    multiplier: float


@dataclasses.dataclass(frozen=True)
class Aim:
    """The answer to "which β takes p to the target".

    Attributes:
        target, p_ref, p0: probabilities.
        design: the β that makes the target a fixed point, and whether it is stable.
        limit: where the orbit from p_0 goes at that β; None if there is no β.
        arrives: it goes to the target. False also where that is not decided after 20,000 steps: see ``limit``.
        below, above: where it does not arrive, the nearest targets on either side that are reached; None if none.
        escape: log-odds of the unstable fixed point below the target, above which p_0 would have to lie; None if none.
    """

    target: float
    p_ref: float
    p0: float
    design: Design
    limit: Limit | None
    arrives: bool
    below: Reached | None
    above: Reached | None
    escape: float | None

    @property
    def status(self) -> DesignStatus:
        """Whether there is a β, and whether the target is stable."""
        return DesignStatus(int(self.design.status))


def aim(target: float, p_ref: float, normalization: Normalization, alpha: float = 1.0, p0: float | None = None) -> Aim:
    """Return the β that reaches a target, or what is reached instead.

    Args:
        target: the wanted success probability in (0, 1).
        p_ref: success probability of the reference policy in (0, 1).
        normalization: how rewards become advantages.
        alpha: KL anchor in [0, 1].
        p0: success probability at the start, in (0, 1); p_ref if not given.

    Raises:
        ValueError: for values out of range, or arrays.

    >>> from grpo_dynamics import Whitened
    >>> found = aim(0.6, 0.2, Whitened())
    >>> found.arrives, round(float(found.design.beta), 4)
    (True, 1.1392)
    """
    start = p_ref if p0 is None else p0
    require("p0", start, "a probability strictly between 0 and 1", lambda x: (x > 0) & (x < 1))
    found = design(target, p_ref, normalization, alpha)
    if batch_shape(found):
        raise ValueError(f"target and options must be single numbers, got shape {batch_shape(found)}")
    if not np.isfinite(found.beta):
        return Aim(target, p_ref, start, found, None, False, None, None, None)
    dynamics = Recursion(float(found.beta), p_ref, normalization, alpha)
    where = limit(dynamics, start)
    wanted = float(logit(target))
    arrives = bool(goes_to(where, np.asarray(wanted)))
    below = above = escape = None
    if not arrives:
        below, above = nearest(wanted, p_ref, normalization, alpha, start)
        lower = np.asarray(fixed_points(dynamics).log_odds)
        lower = lower[lower < wanted - 1e-6 * (1 + abs(wanted))]  # NaN compare as False
        escape = float(lower.max()) if lower.size and bool(found.stable) else None
    return Aim(target, p_ref, start, found, where, arrives, below, above, escape)


def goes_to(where: Limit, log_odds: Array) -> Array:
    """Return whether orbits settle at these log-odds."""
    at = np.abs(where.log_odds - log_odds) <= 1e-6 * (1 + np.abs(log_odds))
    return at & (where.kind == LimitKind.FIXED_POINT)


def nearest(
    wanted: float, p_ref: float, normalization: Normalization, alpha: float, p0: float
) -> tuple[Reached | None, Reached | None]:
    """Return the nearest log-odds below and above that the orbit from p_0 settles at, each with its β.

    Found on a grid of distances to p_ref, made finer twice around the first answer: up to about 1e-5 of the distance.
    Multipliers within 1e-4·α of 1 in size are left out: at the very fold or flip orbits take for ever.
    """
    anchor = float(logit(p_ref))

    def reached(log_odds: Array) -> Any:
        betas = normalization.gap(log_odds) / (alpha * (log_odds - anchor))
        usable = np.isfinite(betas) & (betas > 0)
        dynamics = Recursion(np.where(usable, betas, 1.0), p_ref, normalization, alpha)
        multipliers = dynamics.multiplier(log_odds)
        good = usable & (np.abs(multipliers) < 1 - 1e-4 * alpha)  # the others need not be followed: no orbit stays
        followed = Recursion(betas[good], p_ref, normalization, alpha)
        good[good] = goes_to(limit(followed, p0), log_odds[good])
        return betas, multipliers, good

    grid = anchor + np.concatenate([np.geomspace(1e-3, 60.0, 600), np.geomspace(60.5, 5000.0, 100)])
    answers: list[Reached | None] = []
    for sign in (-1, 1):
        side = np.concatenate([[wanted], np.sort(sign * grid[sign * grid > sign * wanted]) * sign])
        answer = None
        for _ in range(3):
            betas, multipliers, good = reached(side)
            places = np.flatnonzero(good)
            if not places.size:
                break
            i = int(places[0])
            answer = Reached(float(side[i]), float(betas[i]), float(multipliers[i]))
            if i == 0:
                break
            side = np.linspace(side[i - 1], side[i], 41)
        answers.append(answer)
    return answers[0], answers[1]


def as_dict(found: Aim) -> dict[str, Any]:
    """Return the answer in plain Python values; the keys are those of ``grpo-dynamics design --json``."""

    def near(point: Reached | None) -> dict[str, float] | None:
        if point is None:
            return None
        q = float(sigmoid(-point.log_odds))
        return {"p": float(sigmoid(point.log_odds)), "one_minus_p": q, **dataclasses.asdict(point)}

    where = found.limit
    return {
        "target": found.target,
        "beta": float(found.design.beta),
        "multiplier": float(found.design.multiplier),
        "stable": bool(found.design.stable),
        "status": found.status.name.lower(),
        "arrives": found.arrives,
        "limit": None
        if where is None
        else {
            "kind": LimitKind(int(where.kind)).name.lower(),
            "period": int(where.period),
            "p_low": float(sigmoid(where.low)),
            "p_high": float(sigmoid(where.high)),
        },
        "nearest_below": near(found.below),
        "nearest_above": near(found.above),
        "arrives_from_p0_above": None if found.escape is None else float(sigmoid(found.escape)),
    }

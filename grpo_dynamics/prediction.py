"""Everything there is to say about one question: fixed points, where its orbit goes and how fast, which β is safe."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from grpo_dynamics.arrays import Array, batch_shape, to_numpy
from grpo_dynamics.logodds import complement, logit, sigmoid
from grpo_dynamics.theory.amplification import contraction_bound, rising_bound, stable_betas
from grpo_dynamics.theory.fixed_points import FixedPoints, Status, fixed_points
from grpo_dynamics.theory.flow import Flow
from grpo_dynamics.theory.orbits.limit import Limit, LimitKind, limit
from grpo_dynamics.theory.recursion import Recursion

LONGEST = 20_000
"""Steps after which an orbit that has not arrived counts as not arriving."""


SETTLED = (LimitKind.FIXED_POINT, LimitKind.ONE)
"""The limits that are one point."""


@dataclasses.dataclass(frozen=True)
class BetaRanges:
    """Which β do what, the other options as they are.

    Every β > 0 amplifies and the fixed point is stable for every β that is large enough [2503.06639v4, Thm 3, Lemma 1]:
    the smallest amplifying β is 0, the largest stable one infinite. These are the ends that say more.

    Attributes:
        stable: intervals, descending, on which the fixed point that starts at p_ref (β = ∞) is stable.
        first_step_rises_below: p_1 > p_0 for the β below this.
        contraction_above: for the β above this there is one fixed point, and every orbit reaches it.
    """

    stable: list[tuple[float, float]]
    first_step_rises_below: float
    contraction_above: float


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What becomes of one question.

    Attributes:
        dynamics: the recursion.
        p0: where the orbit starts.
        fixed: the fixed points, shape (3,).
        limit: where the orbit goes.
        end: log-odds after ``steps`` steps.
        steps: how many steps were asked for.
        steps_to_1_percent: steps after which the orbit stays within 1 % of |p* − p_0| of where it goes; None if it
            goes to no single point, or not within 20,000 steps.
        multiplier: at the limit: what one step leaves of a small distance, negative if from alternating sides; NaN
            where the limit is no interior fixed point.
        first_step_rises: p_1 > p_0.
        betas: ranges of β.
    """

    dynamics: Recursion
    p0: float
    fixed: FixedPoints
    limit: Limit
    end: float
    steps: int
    steps_to_1_percent: int | None
    multiplier: float
    first_step_rises: bool
    betas: BetaRanges

    @property
    def kind(self) -> LimitKind:
        """Where the orbit goes."""
        return LimitKind(int(self.limit.kind))


def predict(dynamics: Recursion, p0: float | None = None, steps: int = 50) -> Prediction:
    """Return the prediction for one question.

    Args:
        dynamics: a recursion without batch.
        p0: success probability at the start, in (0, 1); p_ref if not given.
        steps: an integer ≥ 0.

    Raises:
        ValueError: for a batch of questions, or p0 or steps out of range.

    >>> found = predict(Recursion(beta=1.0, p_ref=0.2))
    >>> found.kind.name, round(float(found.limit.p), 4), found.steps_to_1_percent
    ('FIXED_POINT', 0.6813, 5)
    """
    if batch_shape(dynamics):
        raise ValueError(f"dynamics must be those of one question, got shape {batch_shape(dynamics)}")
    start = dynamics.p_ref if p0 is None else p0
    where = limit(dynamics, start, max_steps=LONGEST)
    first = float(logit(start))
    end = float(dynamics.iterate(steps, p0=start).log_odds[-1])
    betas = beta_ranges(dynamics, first)
    at_limit = float(dynamics.multiplier(where.log_odds)) if where.kind == LimitKind.FIXED_POINT else math.nan
    return Prediction(
        dynamics=dynamics,
        p0=start,
        fixed=fixed_points(dynamics),
        limit=where,
        end=end,
        steps=steps,
        steps_to_1_percent=steps_within(dynamics, first, where),
        multiplier=at_limit,
        first_step_rises=bool(dynamics.beta < betas.first_step_rises_below),  # the step itself may be lost to rounding
        betas=betas,
    )


def beta_ranges(dynamics: Recursion, log_odds0: float) -> BetaRanges:
    """Return which β are stable, raise the first step from these log-odds, and make the map a contraction."""
    normalization, alpha = dynamics.normalization, dynamics.alpha
    return BetaRanges(
        stable=stable_betas(dynamics.p_ref, normalization, alpha),
        first_step_rises_below=float(rising_bound(dynamics, log_odds0)),
        contraction_above=float(contraction_bound(normalization, alpha)) if alpha > 0 else math.inf,
    )


def steps_within(dynamics: Recursion, log_odds0: float, where: Limit, share: float = 0.01) -> int | None:
    """Return after how many steps the orbit stays within ``share`` of the way, |p_n − p*| ≤ share·|p_0 − p*|."""
    if where.kind not in SETTLED:
        return None
    goal, state, done, last = float(where.log_odds), log_odds0, 0, 0
    known = int(where.steps) if where.kind == LimitKind.FIXED_POINT else LONGEST
    allowed = share * distance(log_odds0, goal) + 1e-15 * min(sigmoid(goal), complement(goal))  # and rounding
    while done < LONGEST:
        orbit = to_numpy(dynamics.iterate(max(128, done), log_odds0=state).log_odds)
        far = np.flatnonzero(distance(orbit, goal) > allowed)
        last = done + int(far[-1]) + 1 if far.size else last
        arrived = far.size == 0 or far[-1] < orbit.size - 1
        done, state = done + orbit.size - 1, orbit[-1]
        # at a fixed point all steps until it was recognised have to be seen; without one p only rises
        if arrived and (done >= known or where.kind == LimitKind.ONE):
            return last
    return None


def distance(log_odds: Array, goal: float) -> Any:
    """Return |p − p*|, from the failure probabilities where those are smaller."""
    measure = complement if goal > 0 else sigmoid
    return np.abs(measure(log_odds) - measure(goal))


def long_run(dynamics: Recursion | Flow, where: Limit) -> tuple[Any, Any, Any]:
    """Return mean, smallest and largest success probability in the end.

    Over the period of a cycle; over 1,024 more steps of an irregular orbit, beside what :class:`Limit` has seen.
    """
    irregular = where.kind == LimitKind.IRREGULAR
    length = np.where(irregular, 1024, np.maximum(where.period, 1))
    log_odds, total = where.log_odds, np.zeros(np.shape(where.log_odds))
    low, high = where.low, where.high
    for n in range(int(np.max(length, initial=1))):
        total = total + np.where(n < length, sigmoid(log_odds), 0.0)
        low, high = (
            np.where(irregular, np.minimum(low, log_odds), low),
            np.where(irregular, np.maximum(high, log_odds), high),
        )
        if n + 1 < np.max(length):
            log_odds = np.where(length > 1, dynamics.step(log_odds), log_odds)
    return total / length, sigmoid(low), sigmoid(high)


def as_dict(found: Prediction) -> dict[str, Any]:
    """Return the prediction in plain Python values; the keys are those of ``grpo-dynamics predict --json``."""
    fixed, where = found.fixed, found.limit
    points = [
        {
            "p": float(p),
            "one_minus_p": float(q),
            "log_odds": float(log_odds),
            "multiplier": float(multiplier),
            "stable": bool(stable),
        }
        for p, q, log_odds, multiplier, stable in zip(
            fixed.p, fixed.one_minus_p, fixed.log_odds, fixed.multiplier, fixed.stable, strict=True
        )
        if np.isfinite(log_odds)
    ]
    return {
        "fixed_points": points,
        "fixed_points_status": Status(int(fixed.status)).name.lower(),
        "limit": {
            "kind": found.kind.name.lower(),
            "period": int(where.period),
            **state(float(where.log_odds) if found.kind in SETTLED else math.nan),
            "p_mean": float(long_run(found.dynamics, where)[0]),
            "p_low": float(sigmoid(where.low)),
            "p_high": float(sigmoid(where.high)),
        },
        "amplified": bool(where.low > logit(found.dynamics.p_ref)),
        "multiplier_at_limit": found.multiplier,
        "steps_to_1_percent": found.steps_to_1_percent,
        "first_step_rises": found.first_step_rises,
        "after_steps": {"steps": found.steps, **state(found.end)},
        "beta_ranges": {
            "amplifies_above": 0.0,
            "first_step_rises_below": found.betas.first_step_rises_below,
            "stable": [list(interval) for interval in found.betas.stable],
            "contraction_above": found.betas.contraction_above,
        },
    }


def state(log_odds: float) -> dict[str, float]:
    """Return a state as p, 1 − p and log-odds."""
    return {"p": float(sigmoid(log_odds)), "one_minus_p": float(complement(log_odds)), "log_odds": log_odds}

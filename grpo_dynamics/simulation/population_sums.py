"""Sums over a block of questions, row by row of its steps, in place: each row stays in cache."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from grpo_dynamics.arrays import Array, as_arrays, quiet, require
from grpo_dynamics.simulation.question_sources import Vector

SHARES = ("p", "p_squared", "solved", "stuck", "oscillating")
"""The first columns of the sums; pass@k follows."""


@dataclasses.dataclass(frozen=True)
class Thresholds:
    """What counts as solved (p above), stuck (p below), and oscillating (two moves, there and back, larger than this).

    Raises:
        ValueError: unless 0 ≤ stuck ≤ solved ≤ 1 and 0 ≤ oscillating ≤ 1.

    >>> Thresholds(solved=0.9).stuck
    0.01
    """

    solved: float = 0.99
    stuck: float = 0.01
    oscillating: float = 0.01

    def __post_init__(self) -> None:
        for name in ("solved", "stuck", "oscillating"):
            allowed = "a number between 0 and 1"
            require(name, getattr(self, name), allowed, lambda x: (x.ndim == 0) & (x >= 0) & (x <= 1))
        if self.stuck > self.solved:
            raise ValueError(f"stuck must be at most solved ({self.solved}), got {self.stuck}")


def require_whole(name: str, value: Any, least: int) -> None:
    """Raise ValueError unless the value is an integer ≥ least."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} must be an integer >= {least}, got {value!r}")


def sums_of_block(
    states: Iterator[Vector],
    p_ref: Vector,
    weights: Vector | None,
    pass_at: tuple[int, ...],
    thresholds: Thresholds,
) -> Vector:
    """Return one row of sums per state; a question with p_ref 0 or 1 stays there, whatever its state says."""
    edge = (p_ref <= 0) | (p_ref >= 1)
    fixed = bool(edge.any())
    spare, other = np.empty_like(p_ref), np.empty_like(p_ref)
    before: Vector | None = None
    up = down = np.zeros(p_ref.shape, dtype=bool)
    rows: list[list[float]] = []
    for log_odds in states:
        p = np.negative(log_odds)  # 1/(1 + e^−L) keeps every digit of a small p
        np.exp(p, out=p)
        p += 1
        np.divide(1, p, out=p)
        if fixed:
            p[edge] = p_ref[edge]
        turned = None
        if before is not None:
            move = np.subtract(p, before, out=spare)
            rose, fell = move > thresholds.oscillating, move < -thresholds.oscillating
            turned = (rose & down) | (fell & up)
            up, down = rose, fell
        before = p
        rows.append(
            [
                _sum(p, weights),
                _sum(np.multiply(p, p, out=other), weights),
                _sum(p > thresholds.solved, weights),
                _sum(p < thresholds.stuck, weights),
                0.0 if turned is None else _sum(turned, weights),
                *_tries(p, weights, pass_at, spare, other),
            ]
        )
    return np.array(rows)


def _tries(p: Vector, weights: Vector | None, pass_at: tuple[int, ...], spare: Vector, other: Vector) -> list[float]:
    """Sums of 1−(1−p)^k by x_{m+n} = x_m + x_n − x_m·x_n, which adds nothing of opposite sign: x_m + x_n·(1−x_m)."""
    powers = {bit for k in pass_at for bit in range(k.bit_length()) if k >> bit & 1}
    sums: dict[int, float] = {}
    chosen: dict[int, Vector] = {k: np.zeros(0) for k in pass_at if k & (k - 1)}
    np.copyto(spare, p)
    for bit in range(max(powers, default=-1) + 1):
        if bit:
            spare *= np.subtract(2, spare, out=other)  # x_2m = x_m·(2 − x_m)
        sums[1 << bit] = _sum(spare, weights) if 1 << bit in pass_at else 0.0
        for k, value in chosen.items():
            if k >> bit & 1:
                chosen[k] = value + spare * (1 - value) if value.size else spare.copy()
    sums |= {k: _sum(value, weights) for k, value in chosen.items()}
    return [sums[k] for k in pass_at]


def _sum(values: Any, weights: Vector | None) -> float:
    if weights is not None:
        return float((values * weights).sum())
    return float(np.count_nonzero(values) if values.dtype == bool else values.sum())


@quiet
def pass_at_k(log_odds: Array, k: Array) -> Array:
    """Return 1−(1−p)^k, the chance that at least one of k samples is right, without cancellation at either end.

    Args:
        log_odds: L in [-inf, inf], any shape.
        k: number of samples ≥ 0, broadcasts with L.

    Raises:
        ValueError: for NaN or k < 0.

    >>> print(f"{pass_at_k(-40.0, 4):.12g}")
    1.69934170212e-17
    """
    require("log_odds", log_odds, "a number, not NaN", lambda x: x == x)
    require("k", k, "a number >= 0", lambda x: x >= 0)
    xp, log_odds, k = as_arrays(log_odds, k)
    softplus = xp.where(log_odds > 0, log_odds, 0.0) + xp.log1p(xp.exp(-xp.abs(log_odds)))  # −log(1−p)
    return -xp.expm1(xp.where(k > 0, -k * softplus, 0.0))[()]

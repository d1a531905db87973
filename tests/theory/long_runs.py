"""What attracts, by plain iteration from 64 starts: written from the equation, sharing nothing with the package.

Ω and its slope are coded once more. Every start runs for thousands of steps; the ends are sorted into points, cycles,
irregular orbits by their exponent, and what cannot be told, and those of one system that agree count once.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

POINT, CYCLE, IRREGULAR, UNTOLD = range(4)
FAR = 600.0
"""A log-odds that counts as p = 1 where there is no smoothing: fixed points lie below 2 asinh β + a little."""


@dataclasses.dataclass(frozen=True)
class System:
    """Arrays of one length. ``group`` is 0 for exact statistics; ``power`` 1 puts ε beside the std, 1/2 inside."""

    beta: np.ndarray
    anchor: np.ndarray
    eps: np.ndarray
    alpha: np.ndarray
    std: bool = False
    group: int = 0
    drop: bool = False
    ddof: int = 0

    def at(self, index: np.ndarray) -> System:
        return dataclasses.replace(
            self, beta=self.beta[index], anchor=self.anchor[index], eps=self.eps[index], alpha=self.alpha[index]
        )

    def gap(self, x: np.ndarray) -> np.ndarray:
        if self.group:
            return self._group_gap(x)
        size = np.abs(x)
        variance = np.exp(-size) / (1 + np.exp(-size)) ** 2
        smooth = 1 / (np.sqrt(variance) + self.eps) if self.std else 1 / np.sqrt(variance + self.eps)
        return np.where((self.eps == 0) & (size > 600), np.exp(np.minimum(size, 1400) / 2), smooth)

    def _group_gap(self, x: np.ndarray) -> np.ndarray:
        size = self.group
        odds = np.exp(-np.minimum(np.abs(x), 700.0))
        total, kept = np.zeros_like(x), np.zeros_like(x)
        for s in range(size - 1, -1, -1):  # Horner in the odds, of Σ C(G−1,s) odds^s (a_{s+1} + b_s) / (1 + odds)^(G−1)
            weight = np.zeros_like(self.eps)
            for successes, share in ((s + 1, 1 - (s + 1) / size), (s, s / size)):
                if 0 < successes < size:
                    variance = successes / size * (1 - successes / size) * size / (size - self.ddof)
                    weight = weight + share / (
                        np.sqrt(variance) + self.eps if self.std else np.sqrt(variance + self.eps)
                    )
            total = total * odds + math.comb(size - 1, s) * weight
        if not self.drop:
            return total / (1 + odds) ** (size - 1)
        for k in range(size - 1, 0, -1):  # Σ C(G,k) odds^k / (1 + odds)^G, without its factor odds
            kept = kept * odds + math.comb(size, k)
        return total * (1 + odds) / kept / odds

    def step(self, x: np.ndarray) -> np.ndarray:
        moved = self.alpha * self.anchor + self.gap(x) / self.beta
        return moved + np.where(self.alpha < 1, (1 - self.alpha) * x, 0.0)

    def log_slope(self, x: np.ndarray) -> np.ndarray:
        """log|f'| by a central difference: enough for the sign of an exponent."""
        h = 1e-5
        return np.log(np.abs(self.step(x + h) - self.step(x - h)) / (2 * h) + 1e-300)

    @property
    def endless(self) -> np.ndarray:
        """Whether Ω is unbounded."""
        return (self.eps == 0) & (self.group == 0) | self.drop

    @property
    def highest(self) -> np.ndarray:
        top = self.anchor + self.gap(np.full_like(self.anchor, 690.0)) / (self.alpha * self.beta)
        return np.where(self.endless, 80.0, top)


@dataclasses.dataclass(frozen=True)
class Ends:
    """One row per start, one column per system."""

    kind: np.ndarray
    period: np.ndarray
    low: np.ndarray
    high: np.ndarray


def ends(system: System, seed: int, starts: int = 64, steps: tuple[int, ...] = (1500, 24_000, 400_000)) -> Ends:
    """Where the orbits of all systems go."""
    rng, size = np.random.default_rng(seed), system.beta.size
    low, high = system.anchor - 5, system.highest
    near = np.minimum(high, np.maximum(-system.anchor, 10.0) + 20)  # where all but the last fixed point lie
    share = rng.random((starts, size))
    state = low + (near - low) * share
    state[0], state[1], state[2] = high + 1, 1e-9, -1e-3
    state[3 : starts // 4] = (low + (high - low) * share)[3 : starts // 4]
    which = np.tile(np.arange(size), starts)
    state = state.ravel()
    out = Ends(*(np.zeros(state.size, dtype) for dtype in (np.int64, np.int64, float, float)))
    left = np.arange(state.size)
    with np.errstate(all="ignore"):
        for i, more in enumerate(steps):
            chunks = np.array_split(left, max(1, left.size // 20_000))
            left = np.concatenate([_end(system.at(which[c]), state, c, more, out, i) for c in chunks])
    return Ends(*(getattr(out, f.name).reshape(starts, size) for f in dataclasses.fields(Ends)))


def _end(system: System, states: np.ndarray, at: np.ndarray, steps: int, out: Ends, look: int) -> np.ndarray:
    if at.size == 0:
        return at
    state, total = states[at], np.zeros(at.size)
    for i in range(steps):
        state = system.step(state)
        if look > 0 and i >= steps // 4:
            total += system.log_slope(state)
    tail = [state]
    for _ in range(160):
        tail.append(system.step(tail[-1]))
    tail = np.array(tail)
    one = system.endless & (tail[-1] > FAR) | (system.alpha == 0)
    tail = np.where(one, 0.0, tail)
    states[at] = tail[-1]
    period = np.zeros(at.size, np.int64)
    close = 1e-8 * (1 + np.abs(tail[-1]))
    for k in range(128, 0, -1):
        back = np.abs(tail[k:] - tail[:-k]).max(axis=0)
        wide = np.ptp(tail[k:], axis=0) > 1e7 * back  # not the alternating approach to a point
        period = np.where((back <= close) & (wide | (k == 1)) | one, k, period)
    exponent = total / max(1, steps - steps // 4)
    kind = np.where(period == 1, POINT, np.where(period > 1, CYCLE, np.where(exponent > 0.003, IRREGULAR, UNTOLD)))
    out.kind[at], out.period[at] = kind, period
    out.low[at], out.high[at] = (np.where(one, np.inf, end) for end in (tail.min(axis=0), tail.max(axis=0)))
    return at[(period == 0) & (kind == UNTOLD)]


def attractors(found: Ends, i: int) -> list[tuple[int, int, float, float]]:
    """The different ends of one system: (kind, period, low, high)."""
    different: list[tuple[int, int, float, float]] = []
    for kind, period, low, high in zip(
        found.kind[:, i], found.period[:, i], found.low[:, i], found.high[:, i], strict=True
    ):
        for other in different:
            scale = 1e-3 * (1 + min(abs(low), abs(other[2])))
            ends_agree = low == other[2] or (abs(low - other[2]) < scale and abs(high - other[3]) < scale)
            if ends_agree or (kind in (IRREGULAR, UNTOLD) and low <= other[3] and other[2] <= high):
                break
        else:
            different.append((int(kind), int(period), float(low), float(high)))
    return different

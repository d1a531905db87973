"""What fixed points alone prove about the attractors of a recursion, and how to follow an orbit where they do not.

The map f(L) = αL_ref + (1−α)L + Ω(L)/β rises right of its last minimum b (b = 0, p = ½, for GRPO), and f(L) > L below
its lowest fixed point L_1. With c = f(b), the lowest value that orbits come to in the end:

1. f(b) ≥ b, or f never falls: [b, ∞) takes every orbit in, and f rises on it. Orbits are monotone in the end.
2. f(a) ≤ a at the only maximum a < b: what is not above L_2 gets below a, where f rises. The same.
3. multiplier > −1 on [c, ∞): L + f(L) rises, so f swaps no two points, and a continuous map of an interval without
   2-cycles takes every orbit to a fixed point (Coppel).
4. Whitened, α = 1: the Schwarzian derivative is negative, so the immediate basin of an attracting cycle holds b, c or
   the end M = f(∞) (Singer). Suppose neither b nor c. Then the part U = (u, M] of the basin holds the highest point x
   of the cycle. If x is no fixed point it is the image of a lower one, y. Not from the right of b: f(y) > y begins a
   monotone walk to a fixed point there. So y lies left of b, in a part (v, w) of the basin without b and c. Its ends
   are not in the basin, nor are f(v) and f(w), which are ends of U: both are u. But f falls on (v, w). So beside stable
   fixed points the orbit of b finds all; and L_1, if stable, draws b or c, as M lies beyond b. For M = ∞ (ε = 0) see
   docs/notebooks/6_bifurcations.
5. f([c, b]) within [c, b], and a negative Schwarzian derivative where f falls (any α: adding 1−α to f' keeps the
   sign): f∘f rises there, so by the minimum principle it fixes L_1 alone or, if that repels, one 2-cycle more, which
   attracts. What does not walk up gets into [c, b].
6. α = 1 as in 4 and f(f(b)) above L_2: the orbit of b walks up, so nothing but the fixed points above attracts.

Negative Schwarzian derivatives: ε in the variance, docs/notebooks/6_bifurcations; ε beside the std: Ω is a Möbius
function of cosh(L/2), so its Schwarzian derivative is that of cosh. For finite groups it is not proved.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable
from typing import Any

import numpy as np

from grpo_dynamics.arrays import Array, as_arrays, block_size, blocks, take
from grpo_dynamics.logodds import logit
from grpo_dynamics.normalization import Whitened
from grpo_dynamics.theory.fixed_points import FixedPoints, Status, fixed_points
from grpo_dynamics.theory.orbits.limit import LimitKind
from grpo_dynamics.theory.recursion import Recursion

RUNS = (32, 64, 192, 768, 3072, 12288)
"""Steps between two looks at an orbit."""
LONGEST_PERIODS = (8, 16, 64, 64, 64, 256)
"""Longest cycle that each look recognises."""
NEARLY = 1e-9
"""How near to −1 a multiplier counts as on the flip, and to ±1 that of a cycle as on a bifurcation."""


class Verdict(enum.IntEnum):
    """What attracts beside the stable fixed points above the falling part of the map, and p = 1."""

    POINTS = 0
    TWO_CYCLE = 1
    NOTHING = 2
    ONE_ORBIT = 3
    MANY_ORBITS = 4


@dataclasses.dataclass(frozen=True)
class Survey:
    """One-dimensional: the fixed points, whether p = 1 attracts, the verdict, and where the map turns.

    ``lowest`` is c = f(bottom), ``ceiling`` the repelling fixed point L_2, infinite where there is none.
    """

    points: FixedPoints
    one: Array
    verdict: Array
    degenerate: Array
    bottom: Array
    top: Array
    lowest: Array
    ceiling: Array


def survey(dynamics: Recursion) -> Survey:
    """Return what is proved of each element of a recursion of shape (n,)."""
    points = fixed_points(dynamics)
    xp, beta, alpha = as_arrays(dynamics.beta, dynamics.alpha, beside=dynamics)
    zero = xp.zeros(points.count.shape, dtype=beta.dtype, device=beta.device)
    with np.errstate(all="ignore"):
        return _survey(xp, dynamics, points, beta + zero, alpha + zero)


def _survey(xp: Any, dynamics: Recursion, points: FixedPoints, beta: Array, alpha: Array) -> Survey:
    ends = dynamics.normalization.gap(float("inf")), *dynamics.normalization.turns()
    largest, *turns = as_arrays(*ends, beside=dynamics)[1:]
    endless, mirror, grpo = xp.isinf(largest + 0.0 * beta), alpha == 0, alpha == 1
    first, second = points.multiplier[0, ...], points.log_odds[1, ...]
    ceiling = xp.where(xp.isnan(second), xp.inf, second)

    bottom, top, rises = _turning_points(xp, dynamics, alpha, beta)
    lowest = dynamics.step(bottom)
    monotone = rises | mirror | (lowest >= bottom) | ((top > -xp.inf) & (dynamics.step(top) <= top) & (len(turns) == 1))
    tame = dynamics.multiplier(lowest) > -1
    for turn in turns:  # the slope of a falling part is least at an end or at a turn
        tame = tame & (dynamics.multiplier(xp.maximum(lowest, -turn + 0.0 * beta)) > -1)

    schwarzian = isinstance(dynamics.normalization, Whitened)
    again = dynamics.step(lowest)
    boxed = schwarzian & (again <= bottom) & (lowest >= top)
    singer = schwarzian & grpo
    verdict = xp.where(singer, int(Verdict.ONE_ORBIT), int(Verdict.MANY_ORBITS))
    verdict = xp.where(singer & (again > ceiling), int(Verdict.NOTHING), verdict)
    verdict = xp.where(boxed, int(Verdict.TWO_CYCLE), verdict)
    settled = (boxed | singer) & (xp.abs(first) < 1)
    verdict = xp.where(monotone | tame | settled | (points.count == 0), int(Verdict.POINTS), verdict)

    degenerate = (points.status == int(Status.DEGENERATE)) | (points.status == int(Status.NOT_CONVERGED))
    degenerate = degenerate | (xp.abs(first + 1) < NEARLY)
    return Survey(points, endless | mirror, verdict, degenerate, bottom, top, lowest, ceiling)


def _turning_points(xp: Any, dynamics: Recursion, alpha: Array, beta: Array) -> tuple[Array, Array, Array]:
    """The last minimum of the map, the maximum left of it (−∞ if none), and whether the map rises everywhere."""
    if xp.all(alpha == 1):
        return xp.zeros_like(beta), xp.full_like(beta, -xp.inf), alpha < 0
    inner = (alpha < 1) & (alpha > 0)
    folds = [
        xp.where(inner, as_arrays(fold, beside=dynamics)[1], 0.0)
        for fold in dynamics.normalization.folds(xp.where(inner, (1 - alpha) * beta, beta))
    ]
    exists = folds[1] - folds[0] > 30 * xp.finfo(beta.dtype).eps ** 0.5 * folds[0]
    last = folds[2] if len(folds) > 2 else xp.inf + 0.0 * beta
    bottom = xp.where(exists, -folds[0], -last)
    top = xp.where(exists, -folds[1], -xp.inf)
    rises = inner & xp.isinf(bottom)
    flat = xp.where(inner & ~rises, bottom, 0.0)
    return flat, xp.where(inner, top, -xp.inf), rises


@dataclasses.dataclass(frozen=True)
class Settled:
    """Where orbits settle, per orbit: kind is a ``LimitKind``, FIXED_POINT also for what walks up, with low = inf."""

    kind: Array
    period: Array
    low: Array
    high: Array
    lyapunov: Array


def settle(dynamics: Recursion, start: Array, ceiling: Array, thresholds: tuple[float, ...]) -> Settled:
    """Follow orbits of a recursion with one-dimensional options until it is clear where they settle.

    After each of a few runs: an orbit above the ceiling walks up. Where it nearly returns after k steps with a product
    of multipliers below 1, Newton's method finds the cycle of period k; if that attracts, the orbit is taken to go
    there. Else it is irregular if its mean log|multiplier| over half of the run exceeds the run's threshold.

    Args:
        dynamics: a recursion, options of shape () or (n,).
        start: log-odds, shape (n,).
        ceiling: log-odds above which the map rises and orbits go up, shape (n,).
        thresholds: of the Lyapunov exponent, one per run; ``inf`` for go on.
    """
    xp, state, ceiling = as_arrays(start, ceiling, beside=dynamics)
    size, place = state.shape[0], {"device": state.device}
    out = Settled(
        xp.full((size,), int(LimitKind.UNDECIDED), dtype=xp.int8, **place),
        xp.zeros((size,), dtype=xp.int64, **place),
        *(xp.full_like(state, xp.nan) for _ in range(3)),
    )
    state, at = state + 0.0, xp.arange(size, **place)  # who still runs: from one run to the next they close ranks
    with np.errstate(all="ignore"):
        for i, threshold in enumerate(thresholds):
            stays = [
                _look(xp, dynamics, at[index], state, ceiling, out, i, threshold)
                for index in blocks(at.shape, block_size(xp))
            ]
            at = xp.concat(stays) if stays else at
    return out


def _look(
    xp: Any, dynamics: Recursion, at: Array, states: Array, ceiling: Array, out: Settled, look: int, threshold: float
) -> Array:
    """Run once, write down what is settled, and return who is not."""
    part = take(dynamics, states.shape, at)
    advance = _advancer(part, states[at])
    state, exponent, least, most = _run(xp, advance, states[at], RUNS[look])
    states[at] = state
    walks = state > ceiling[at]
    period, low, high, rate = _cycle(xp, part, advance, state, ~walks, LONGEST_PERIODS[look])
    cycle, wanders = period > 0, exponent > threshold
    kind = xp.where(wanders, int(LimitKind.IRREGULAR), int(LimitKind.UNDECIDED))
    kind = xp.where(period > 1, int(LimitKind.CYCLE), xp.where(period == 1, int(LimitKind.FIXED_POINT), kind))
    out.kind[at] = xp.astype(xp.where(walks, int(LimitKind.FIXED_POINT), kind), xp.int8)
    out.period[at] = xp.where(walks, 1, period)
    out.low[at] = xp.where(walks, xp.inf, xp.where(cycle, low, least))
    out.high[at] = xp.where(walks, xp.inf, xp.where(cycle, high, most))
    out.lyapunov[at] = xp.where(cycle, rate, exponent)
    return at[~(walks | cycle | wanders)]


def two_cycle(dynamics: Recursion, lowest: Array, point: Array) -> Settled:
    """Return the 2-cycle around a repelling fixed point, where the map falls between the lowest value and there.

    h∘h rises on that interval, lies above the diagonal up to the cycle and below it from there on: bisection, which
    also finds a cycle that orbits approach slowly. Options of shape () or (n,), places of shape (n,).
    """
    xp, low, high = as_arrays(lowest, point, beside=dynamics)
    with np.errstate(all="ignore"):
        for _ in range(64):
            middle = 0.5 * (low + high)
            above = dynamics.step(dynamics.step(middle)) >= middle
            low, high = xp.where(above, middle, low), xp.where(above, high, middle)
        partner = dynamics.step(low)
        rate = 0.5 * xp.log(xp.abs(dynamics.multiplier(low) * dynamics.multiplier(partner)))
    kind = xp.full(low.shape, int(LimitKind.CYCLE), dtype=xp.int8, device=low.device)
    return Settled(kind, xp.full(low.shape, 2, dtype=xp.int64, device=low.device), low, partner, rate)


Advance = Callable[[Array], tuple[Array, Array]]


def _advancer(dynamics: Recursion, state: Array) -> Advance:
    """The step and its multiplier together, with all that does not change computed once."""
    xp, beta, p_ref, alpha, _ = as_arrays(dynamics.beta, dynamics.p_ref, dynamics.alpha, state, beside=dynamics)
    drift, evaluate, weight = alpha * logit(p_ref), dynamics.normalization.gap_and_rate, 1 / beta
    if bool(xp.all(alpha == 1)):

        def whole(state: Array) -> tuple[Array, Array]:
            gap, rate = evaluate(state)
            push = gap * weight
            return drift + push, push * rate

        return whole
    keep = 1 - alpha

    def partial(state: Array) -> tuple[Array, Array]:
        gap, rate = evaluate(state)
        push = gap * weight
        return drift + xp.where(keep > 0, keep * state, 0.0) + push, keep + push * rate

    return partial


def _run(xp: Any, advance: Advance, state: Array, steps: int) -> tuple[Array, Array, Array, Array]:
    """The state after so many steps; over the second half, the mean log|multiplier| and the range."""
    for _ in range(steps // 2):
        state, _ = advance(state)
    total, least, most = xp.zeros_like(state), state, state
    for _ in range(steps // 16):  # logarithms of products of 8: they neither overflow nor underflow
        product = xp.ones_like(state)
        for _ in range(8):
            state, slope = advance(state)
            product = product * slope
            least, most = xp.minimum(least, state), xp.maximum(most, state)
        total = total + xp.log(xp.abs(product))
    return state, total / (8 * (steps // 16)), least, most


def _cycle(
    xp: Any, dynamics: Recursion, advance: Advance, state: Array, wanted: Array, span: int
) -> tuple[Array, Array, Array, Array]:
    """The attracting cycle near the state, of a period up to span: period (0 if none), range, Lyapunov exponent."""
    size = state.shape[0]
    period = xp.zeros((size,), dtype=xp.int64, device=state.device)
    low, high, rate = (xp.full_like(state, xp.nan) for _ in range(3))
    now, product = state, xp.ones_like(state)
    nearly = xp.empty((span, size), dtype=xp.bool, device=state.device)
    for k in range(span):
        now, slope = advance(now)
        product = product * slope
        nearly[k, ...] = (xp.abs(product) < 1) & (xp.abs(now - state) <= 0.02 * xp.abs(1 - product))
    for _ in range(4):  # a near return may be by chance: up to four attempts
        at = xp.nonzero(wanted & (period == 0) & xp.any(nearly, axis=0))[0]
        if at.shape[0] == 0:
            break
        k = xp.argmax(xp.astype(nearly[:, at], xp.int8), axis=0)
        nearly[k, at] = False
        part = take(dynamics, (size,), at)
        period[at], low[at], high[at], rate[at] = _polished(xp, _advancer(part, state[at]), state[at], k + 1)
    return period, low, high, rate


def _polished(xp: Any, advance: Advance, start: Array, period: Array) -> tuple[Array, Array, Array, Array]:
    """Newton's method for a cycle; period 0 where it does not converge nearby or to one that does not attract."""
    state, longest = start, int(xp.max(period))
    tiny = xp.finfo(start.dtype).eps
    move = xp.full_like(start, xp.inf)
    for _ in range(7):
        if bool(xp.all(xp.abs(move) <= 4 * tiny * (1 + xp.abs(state)))):
            break
        now, product = state, xp.ones_like(state)
        for j in range(longest):
            following, slope = advance(now)
            runs = j < period
            now, product = xp.where(runs, following, now), xp.where(runs, product * slope, product)
        move = (now - state) / (1 - product)
        state = state + move
    converged = (xp.abs(move) <= 1e-3 * tiny**0.25 * (1 + xp.abs(state))) & (xp.abs(state - start) < 0.1)
    now, product, low, high = state, xp.ones_like(state), state, state
    shortest = xp.zeros_like(period)
    for j in range(longest):
        following, slope = advance(now)
        runs = (j < period) & (shortest == 0)
        now, product = xp.where(runs, following, now), xp.where(runs, product * slope, product)
        low, high = xp.minimum(low, now), xp.maximum(high, now)
        back = xp.abs(now - state) <= 1e-3 * tiny**0.25 * (1 + xp.abs(state))
        shortest = xp.where(runs & back, j + 1, shortest)
    attracts = converged & (shortest > 0) & (xp.abs(product) < 1 - NEARLY)
    rate = xp.log(xp.abs(product)) / xp.astype(xp.maximum(shortest, xp.ones_like(shortest)), product.dtype)
    return xp.where(attracts, shortest, 0), low, high, rate

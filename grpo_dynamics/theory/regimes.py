"""Which regime a system is in: settles, has a choice, oscillates, is chaotic, or goes to p = 1."""

from __future__ import annotations

import dataclasses
import enum
import math
from typing import Any

import numpy as np

from grpo_dynamics.arrays import Array, as_arrays, batch_shape, block_size, blocks, take, to_numpy
from grpo_dynamics.logodds import complement, sigmoid
from grpo_dynamics.theory.fixed_points import FixedPoints, Status, fixed_points
from grpo_dynamics.theory.flow import Flow
from grpo_dynamics.theory.orbits.attractors import (
    PATIENT,
    Attractors,
    attractors,
    flattened,
    goes_to_one,
    of_block,
    require_dynamics,
)
from grpo_dynamics.theory.orbits.critical_orbits import NEARLY, Verdict, settle, survey
from grpo_dynamics.theory.orbits.limit import LimitKind
from grpo_dynamics.theory.recursion import Recursion

QUICK = (math.inf, math.inf, 0.12, 0.04, 0.012, 0.004)
"""Thresholds of the Lyapunov exponent, one per look at an orbit: the longer the run, the smaller its noise."""


class Regime(enum.IntEnum):
    """What can become of a question in the long run."""

    ONE_STABLE = 0
    BISTABLE = 1
    OSCILLATING = 2
    CHAOTIC = 3
    SATURATING = 4
    DEGENERATE = 5

    @property
    def meaning(self) -> str:
        """One line in plain words."""
        return {
            Regime.ONE_STABLE: "one stable state: almost every start ends there",
            Regime.BISTABLE: "two or more stable states: the start decides",
            Regime.OSCILLATING: "a cycle attracts: success probabilities that repeat for ever",
            Regime.CHAOTIC: "an irregular orbit attracts: neighbouring starts drift apart",
            Regime.SATURATING: "almost every start goes to p = 1",
            Regime.DEGENERATE: "on a bifurcation to working precision, or undecided next to one",
        }[self]


@dataclasses.dataclass(frozen=True)
class Regimes:
    """A regime per element.

    Attributes:
        label: a :class:`Regime` as int8, shape (*batch).
        count: number of attractors, shape (*batch).
        dynamics: what it is about.
    """

    label: Array
    count: Array
    dynamics: Recursion | Flow

    def reason(self, index: Any = ()) -> str:
        """Return why the element at this index has its label, in a sentence with numbers.

        Args:
            index: an integer or a tuple of them, one per axis of the batch; () for a single system.

        Raises:
            ValueError: for an index that is not that of one element.

        >>> import grpo_dynamics as gd
        >>> print(regime(gd.grpo(beta=5.0, p_ref=1e-3)).reason())
        a cycle of period 2 between 0.002338 and 0.05872, beside the stable state 1 - 3.4e-25
        """
        shape = batch_shape(self.dynamics)
        index = one_element(shape, index)
        label = Regime(int(np.reshape(to_numpy(self.label), shape)[index]))
        one = take(self.dynamics, shape, index)
        return _sentence(label, attractors(one), fixed_points(one))


def one_element(shape: tuple[int, ...], index: Any) -> tuple[int, ...]:
    """Return the index of one element of a batch as a tuple of integers; raise ValueError for any other."""
    places = index if isinstance(index, tuple) else (index,)
    inside = len(places) == len(shape) and all(
        isinstance(i, int | np.integer) and not isinstance(i, bool) and -size <= i < size
        for i, size in zip(places, shape, strict=True)
    )
    if not inside:
        raise ValueError(f"index must have one integer per axis of the batch of shape {shape}, got {index!r}")
    return tuple(int(i) for i in places)


def regime(dynamics: Recursion | Flow) -> Regimes:
    """Return the regime of every element of the batch.

    ========================  ===========================================================================
    ONE_STABLE                one fixed point attracts, and nothing else
    BISTABLE                  two or more attractors, all of them points; p = 1 counts where it attracts
    OSCILLATING               some attractor is a cycle, and none is irregular
    CHAOTIC                   some attractor is irregular: a positive Lyapunov exponent
    SATURATING                p = 1 attracts, and nothing else
    DEGENERATE                a double fixed point or a multiplier within 1e-9 of −1; or an orbit that has not settled
                              after 16,000 steps with a Lyapunov exponent below 0.004: within about 1e-6, relative,
                              of where a cycle doubles or is born, or next to where cycles become chaos
    ========================  ===========================================================================

    "Attracts" is meant up to starts of measure zero: repelling points and cycles, and what leads to them. Labels are
    decided by fixed points and multipliers where that is proved to be enough (``theory/orbits/critical_orbits``),
    otherwise by orbits: one that wanders is CHAOTIC as soon as its exponent is clear.

    Args:
        dynamics: a :class:`~grpo_dynamics.Recursion` or :class:`~grpo_dynamics.Flow` of any shape.

    Raises:
        ValueError: for anything else.

    Source: derived in docs/notebooks/6_bifurcations.

    >>> import grpo_dynamics as gd
    >>> found = regime(gd.grpo(beta=[0.5, 1.0, 5.0, 5.0], p_ref=[0.5, 0.2, 1e-3, 1e-4]))
    >>> print([Regime(label).name for label in found.label])
    ['ONE_STABLE', 'BISTABLE', 'OSCILLATING', 'CHAOTIC']
    """
    require_dynamics(dynamics)
    shape = batch_shape(dynamics)
    xp, beta = as_arrays(dynamics.beta, beside=dynamics)
    size = math.prod(shape)
    label = xp.zeros((size,), dtype=xp.int8, device=beta.device)
    count = xp.zeros((size,), dtype=xp.int8, device=beta.device)
    waiting: list[tuple[Array, Array]] = []
    done = 0
    for index in blocks(shape, block_size(xp)):
        part = flattened(dynamics, shape, index)
        here = slice(done, done + part.beta.shape[0])
        done = here.stop
        if isinstance(part, Flow):
            label[here], count[here] = _of_flow(xp, part)
        else:
            label[here], count[here], at, ceiling = _of_recursion(xp, part)
            waiting.append((here.start + at, ceiling))
    if waiting and isinstance(dynamics, Recursion):
        _follow(xp, dynamics, shape, label, count, *(xp.concat(list(x)) for x in zip(*waiting, strict=True)))
    return Regimes(xp.reshape(label, shape)[()], xp.reshape(count, shape)[()], dynamics)


def _follow(
    xp: Any, dynamics: Recursion, shape: tuple[int, ...], label: Array, count: Array, at: Array, ceiling: Array
) -> None:
    """Decide the elements that only the orbit of p = ½ can decide, all together: few run long."""
    place = np.unravel_index(to_numpy(at), shape) if shape else ()
    part = take(dynamics, shape, tuple(xp.asarray(i, device=at.device) for i in place)) if shape else dynamics
    found = settle(part, xp.zeros_like(ceiling), ceiling, QUICK)
    for kind, name in (
        (LimitKind.CYCLE, Regime.OSCILLATING),
        (LimitKind.IRREGULAR, Regime.CHAOTIC),
        (LimitKind.UNDECIDED, Regime.DEGENERATE),
    ):
        label[at[found.kind == int(kind)]] = int(name)
    count[at[found.kind != int(LimitKind.FIXED_POINT)]] += 1


def _of_recursion(xp: Any, dynamics: Recursion) -> tuple[Array, Array, Array, Array]:
    """Labels and counts of a block; the places of those that wait for an orbit, with the ceiling of each."""
    seen = survey(dynamics)
    points = _stable(xp, seen.points) + xp.astype(seen.one, xp.int8)
    label = _of_points(xp, points, seen.one)
    cycle = seen.verdict == int(Verdict.TWO_CYCLE)
    label = xp.where(cycle, int(Regime.OSCILLATING), label)
    count = points + xp.astype(cycle, xp.int8)
    degenerate = seen.degenerate
    many = xp.nonzero((seen.verdict == int(Verdict.MANY_ORBITS)) & ~degenerate)[0]
    if many.shape[0] > 0:
        found = of_block(take(dynamics, label.shape, many), PATIENT)
        label[many], count[many] = _of_attractors(xp, found), found.count
    label = xp.astype(xp.where(degenerate, int(Regime.DEGENERATE), label), xp.int8)
    wait = xp.nonzero((seen.verdict == int(Verdict.ONE_ORBIT)) & ~degenerate)[0]
    return label, count, wait, seen.ceiling[wait]


def _of_flow(xp: Any, flow: Flow) -> tuple[Array, Array]:
    points = fixed_points(flow)
    one = goes_to_one(xp, points)
    count = _stable(xp, points) + xp.astype(one, xp.int8)
    bad = (points.status == int(Status.DEGENERATE)) | (points.status == int(Status.NOT_CONVERGED))
    return xp.astype(xp.where(bad, int(Regime.DEGENERATE), _of_points(xp, count, one)), xp.int8), count


def _stable(xp: Any, points: FixedPoints) -> Array:
    return xp.sum(xp.astype(points.stable, xp.int8), axis=0, dtype=xp.int8)


def _of_points(xp: Any, count: Array, one: Array) -> Array:
    """The label where only points attract."""
    single = xp.where(one, int(Regime.SATURATING), int(Regime.ONE_STABLE))
    return xp.where(count == 1, single, xp.where(count > 1, int(Regime.BISTABLE), int(Regime.DEGENERATE)))


def _of_attractors(xp: Any, found: Attractors) -> Array:
    label = _of_points(xp, found.count, xp.any(found.kind == int(LimitKind.ONE), axis=0))
    undecided = (found.kind == int(LimitKind.UNDECIDED)) & ~xp.isnan(found.low)
    for kind, name in (
        (found.kind == int(LimitKind.CYCLE), Regime.OSCILLATING),
        (found.kind == int(LimitKind.IRREGULAR), Regime.CHAOTIC),
        (undecided, Regime.DEGENERATE),
    ):
        label = xp.where(xp.any(kind, axis=0), int(name), label)
    return label


def _sentence(label: Regime, found: Attractors, points: FixedPoints) -> str:
    number = int(found.count)
    kinds = [LimitKind(int(kind)) for kind in found.kind[:number]]
    ends = list(zip(found.low[:number], found.high[:number], strict=True))
    states = [_probability(low) for kind, (low, _) in zip(kinds, ends, strict=True) if kind in _POINTS]
    if label is Regime.DEGENERATE:
        return _degenerate(points)
    if label is Regime.SATURATING:
        return "almost every start goes to p = 1"
    if label is Regime.ONE_STABLE:
        return f"one stable state, p = {states[0]}"
    if label is Regime.BISTABLE:
        unstable = [
            _probability(x) for x, stable in zip(points.log_odds, points.stable, strict=True) if not stable and x == x
        ]
        between = f"the boundary between them is {' and '.join(unstable)}" if unstable else "orbits decide between them"
        many = {2: "two", 3: "three", 4: "four"}.get(len(states), str(len(states)))
        return f"{many} stable states, p = {_listed(states)}; {between}"
    moving = [
        f"a cycle of period {int(period)} between {_probability(low)} and {_probability(high)}"
        if kind is LimitKind.CYCLE
        else f"an irregular orbit between {_probability(low)} and {_probability(high)} (Lyapunov exponent {rate:.2f})"
        for kind, period, (low, high), rate in zip(kinds, found.period, ends, found.lyapunov, strict=False)
        if kind not in _POINTS
    ]
    if not states:
        return _listed(moving)
    return f"{_listed(moving)}, beside the stable state{'s' if len(states) > 1 else ''} {_listed(states)}"


_POINTS = (LimitKind.FIXED_POINT, LimitKind.ONE)


def _degenerate(points: FixedPoints) -> str:
    status = Status(int(points.status))
    if status in (Status.DEGENERATE, Status.NOT_CONVERGED):
        return status.meaning
    first = points.multiplier[0]
    if abs(first + 1) < NEARLY:
        return f"on a flip: the multiplier of p = {_probability(points.log_odds[0])} is -1 to working precision"
    return "next to a bifurcation of a cycle: its orbit has not settled after 16,000 steps"


def _listed(words: list[str]) -> str:
    return " and ".join(words) if len(words) < 3 else f"{', '.join(words[:-1])} and {words[-1]}"


def _probability(log_odds: Any) -> str:
    """Write p to four digits; near 1, what is missing."""
    if log_odds == math.inf:
        return "1"
    p, rest = float(sigmoid(log_odds)), float(complement(log_odds))
    if rest > 1e-3:
        return f"{p:.4g}"
    return f"1 - {rest:.2g}" if rest > 1e-300 else f"1 - 1e{-log_odds / math.log(10):.0f}"

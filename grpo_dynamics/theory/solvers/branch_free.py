"""Fixed points of GRPO without branches: the same operations for every system, a fixed number of them.

The algorithm of :mod:`~grpo_dynamics.theory.fixed_points` in a form that a compiler can fuse into one kernel, which
reads a system once and writes its fixed points once: no step depends on the data. A root takes six steps of the
square-root iteration, which solves the quadratic model F + F'·δ + ½F''·δ² = 0. On a fold F' is 0, so Newton's method is
slow beside it, while this one is exact there up to the cubic term; F'' costs no further exponential.

Source: folds and count derived in docs/notebooks/6_bifurcations.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from grpo_dynamics.arrays import Array
from grpo_dynamics.normalization import log_odds_limit
from grpo_dynamics.theory.fixed_points import Status

ROOT_STEPS = 6
FOLD_STEPS = 4
"""Enough but for a few in a million systems next to folds, which get the status NOT_CONVERGED."""

NEAR = 0.1
"""Where |log(b·d/Ω)| is less on a fold, the roots beside it are searched from there."""


def solve(xp: Any, in_std: bool, beta: Array, p_ref: Array, alpha: Array, eps: Array) -> tuple[Array, ...]:
    """Return three log-odds in ascending order and their three multipliers, NaN-padded, then count and status.

    Args:
        xp: the namespace of the arrays.
        in_std: whether ε is added to the standard deviation instead of the variance.
        beta: β, here and below arrays of one shape and floating dtype.
        p_ref: the success probability of the reference.
        alpha: α.
        eps: ε.
    """
    anchored = alpha * beta > 0
    pull, anchor = xp.where(anchored, alpha * beta, 1.0), _logit(xp, p_ref)
    equation = Equation(xp, in_std, eps, pull, anchor)
    brackets, degenerate = _brackets(equation)
    roots: list[Array] = []
    multipliers: list[Array] = []
    presents: list[Array] = []
    found = anchored | ~anchored
    for i, (start, low, high, present) in enumerate(brackets):
        d, converged = _root(equation, start, low, high, rising=i % 2 == 0)
        presents.append(present & anchored)
        roots.append(anchor + d)
        multipliers.append(1 - alpha + alpha * d * equation.rate(anchor + d))  # Ω/(αβ) = d
        found = found & (converged | ~presents[i])
    first, second, third = presents
    count = xp.astype(first, xp.int8) + xp.astype(second, xp.int8) + xp.astype(third, xp.int8)
    status = xp.where(degenerate, int(Status.DEGENERATE), int(Status.OK))
    status = xp.where(found, status, int(Status.NOT_CONVERGED))
    none = xp.where(anchored, int(Status.ABOVE_FOLD), int(Status.MIRROR))
    status = xp.where(count == 0, none, status)

    def ascending(values: list[Array]) -> tuple[Array, Array, Array]:
        # the second is present only beside the first
        last = xp.where(third, values[2], xp.nan)
        return (
            xp.where(first, values[0], last),
            xp.where(second, values[1], xp.where(first, last, xp.nan)),
            xp.where(second, last, xp.nan),
        )

    return *ascending(roots), *ascending(multipliers), count, xp.astype(status, xp.int8)


def _logit(xp: Any, p: Array) -> Array:
    """log(p/(1−p)): :func:`grpo_dynamics.logit` without its checks."""
    failure = 1 - p
    return xp.where(xp.abs(p - 0.5) < 0.25, xp.log1p((2 * p - 1) / failure), xp.log(p / failure))


@dataclasses.dataclass(frozen=True)
class Equation:
    """F(d) = log(b·d) − log Ω(L_ref + d) = 0 for arrays of systems with b = pull and L_ref = anchor."""

    xp: Any
    in_std: bool
    eps: Array
    pull: Array
    anchor: Array

    def residual(self, d: Array) -> tuple[Array, Array, Array]:
        """Return F, dF/dδ and d²F/dδ² where d becomes d·(1 + δ)."""
        xp, log_odds = self.xp, self.anchor + d
        t, q, total, smoothing = self.terms(log_odds)
        square = t * t if self.in_std else t
        inverse = 1 / (q * total)  # one division serves both
        over_q, over_total = total * inverse, q * inverse
        share = xp.where(self.eps == 0, 1.0, t * over_total)
        tanh = xp.where(log_odds < 0, square - 1, 1 - square) * over_q
        rate = 0.5 * tanh * share  # d log Ω/dL, and its slope:
        fall = tanh * tanh * (smoothing * over_total) * (0.25 if self.in_std else 0.5)
        bend = share * (square * over_q * over_q - fall)
        x = self.pull * d * over_q
        value = xp.log(x * total) if self.in_std else 0.5 * xp.log(x * x * total)
        value = value - xp.where(self.eps == 0, 0.5 * xp.abs(log_odds), 0.0)
        return value, 1 - d * rate, -1 - d * d * bend

    def rate(self, log_odds: Array) -> Array:
        """Return d log Ω/dL, accurate also where it is small."""
        t, _, total, _ = self.terms(log_odds)
        share = self.xp.where(self.eps == 0, 1.0, t / total)
        return 0.5 * self.xp.tanh(0.5 * log_odds) * share

    def terms(self, log_odds: Array) -> tuple[Array, Array, Array, Array]:
        """Return t and q of the standard deviation t/q or variance t/q²; t + ε·q or t + ε·q²; the smoothing in it.

        Without smoothing the sum is t, and Ω overflows where that underflows: it is 1 then, and Ω lacks e^(|L|/2).
        """
        size = self.xp.abs(log_odds)
        t = self.xp.exp(-0.5 * size if self.in_std else -size)
        q = 1 + (t * t if self.in_std else t)
        smoothing = self.eps * q if self.in_std else self.eps * q * q
        return t, q, self.xp.where(self.eps == 0, 1.0, t + smoothing), smoothing


Bracket = tuple[Array, Array, Array, Array]


def _brackets(equation: Equation) -> tuple[list[Bracket], Array]:
    """Cut d > 0 at the two folds into intervals on which F rises, falls, and rises.

    Returns:
        (start, low, high, present) per interval, and whether the system is on a fold as far as this precision can
        tell. A double root is listed in a bracket of no width, in the rising interval beside its fold.
    """
    xp, eps, pull, anchor = equation.xp, equation.eps, equation.pull, equation.anchor
    tiny, limit = float(xp.finfo(pull.dtype).eps), log_odds_limit(xp, pull.dtype)
    low_fold, high_fold = (_folds_in_std if equation.in_std else _folds_in_variance)(xp, pull, eps)
    high_fold = xp.where(high_fold - low_fold > 30 * tiny**0.5 * high_fold, high_fold, low_fold)
    folds = low_fold, high_fold
    knots = [fold - anchor for fold in folds]
    exist = low_fold != high_fold
    above: list[Array] = []
    double: list[Array] = []
    close: list[Array] = []
    reach: list[Array] = []
    for i, (fold, knot) in enumerate(zip(folds, knots, strict=True)):
        value, _, bend = equation.residual(xp.abs(knot))
        ahead = knot > 0
        noise = 16 * tiny * (1 + (fold + xp.abs(anchor)) / xp.abs(knot))
        double.append(ahead & exist & (xp.abs(value) <= noise))
        # beside a double root F is negative at a maximum, positive at a minimum
        above.append((ahead & (value > 0) | double[i]) if i == 1 else (ahead & (value > 0) & ~double[i]))
        reach.append(xp.sqrt(xp.abs(2 * value / bend)))  # how far the roots are from the fold
        close.append(ahead & (xp.abs(value) < NEAR) & (reach[i] < 0.5))
    quarter = 0.5 + eps if equation.in_std else xp.sqrt(0.25 + eps)
    least = 1 / (pull * quarter)  # Ω at L = 0, and in the limit
    bounded = eps > 0
    most = 1 / (pull * xp.where(bounded, eps if equation.in_std else xp.sqrt(eps), 1.0))
    end = xp.where(bounded, most, limit - anchor)
    falls, last = above[0] & ~above[1], double[1] & ~double[0]
    # where b·d > Ω at L = 0 the first root has L < 0
    first_end = xp.where(~double[0] & (least < -anchor), -anchor, knots[0])
    intervals = [
        (_first_start(equation), xp.where(double[0], knots[0], least), first_end, above[0] | double[0]),
        (_second_start(equation, knots[0]), _larger(xp, knots[0], least), knots[1], falls),
        (end, _larger(xp, knots[1], least), xp.where(last, knots[1], end), (~above[1] & bounded) | last),
    ]
    brackets: list[Bracket] = []
    for i, (start, low, high, present) in enumerate(intervals):
        for j, side in ((i, -1.0), (i - 1, 1.0)):
            if 0 <= j < 2:
                start = xp.where(close[j], knots[j] * (1 + side * reach[j]), start)
        brackets.append((start, low, high, present))
    return brackets, double[0] | double[1]


def _first_start(equation: Equation) -> Array:
    """Below L = 0 Ω falls like e^(−L/2) from its bound: d = 2W(e^(−L_ref/2)/2b); above 0 it rises from Ω(L_ref)."""
    xp, pull, anchor = equation.xp, equation.pull, equation.anchor
    _, q, total, _ = equation.terms(anchor)
    bound = (q / total if equation.in_std else q / xp.sqrt(total)) / pull
    bound = xp.where(equation.eps == 0, bound * xp.exp(0.5 * xp.abs(anchor)), bound)
    log = xp.log1p(0.5 * xp.exp(-0.5 * anchor) / pull)
    lambert = 2 * log * (1 - xp.log1p(log) / (2 + log))  # W to two digits
    return xp.where(anchor < 0, _smaller(xp, lambert, bound), bound)


def _second_start(equation: Equation, knot: Array) -> Array:
    """Beyond the first fold Ω grows like e^(L/2): two rounds of d = d_fold + 2·log(b·d/Ω(fold))."""
    xp = equation.xp
    value, _, _ = equation.residual(xp.abs(knot))
    once = knot + 2 * (value + xp.log1p(2 * xp.abs(value / knot)))
    return knot + 2 * (value + xp.log(once / knot))


def _root(equation: Equation, start: Array, low: Array, high: Array, rising: bool) -> tuple[Array, Array]:
    """Return the root in each bracket, and whether it was found."""
    xp = equation.xp
    tiny = float(xp.finfo(start.dtype).eps)
    d = _smaller(xp, _larger(xp, start, low), high)
    settled = d < 0
    for _ in range(ROOT_STEPS):
        value, slope, bend = equation.residual(d)
        root = xp.sqrt(_larger(xp, slope * slope - 2 * bend * value, 0.0))
        move = -2 * value / (slope + root if rising else slope - root)
        before = (value < 0) == rising
        low, high = xp.where(before, d, low), xp.where(before, high, d)
        # the error that a step leaves is of a higher order than move²/slope, or rounding over slope
        settled = xp.abs(move * slope) <= _larger(xp, 0.25 * tiny**0.5 * slope * slope, 32 * tiny)
        moved = d + d * move
        inside = _smaller(xp, _larger(xp, moved, low), high)
        # ends are attained in rounding; a step that leaves the bracket for other reasons is replaced by a bisection
        d = xp.where(settled | (moved == inside), inside, 0.5 * (low + high))
    return d, settled | (high - low <= 8 * tiny * high)


def _folds_in_variance(xp: Any, beta: Array, eps: Array) -> tuple[Array, Array]:
    """:meth:`Whitened.folds` with ε in the variance: w = 1 + 4ε·cosh²(L/2) solves 4εβ²w³ − w + 1 + 4ε = 0."""
    smooth = eps > 0
    four = xp.where(smooth, 4 * eps, 4.0)
    root = xp.sqrt(3 * four)
    ratio = beta * root * (1.5 * (1 + four))  # β/β_c
    below = ratio < 1
    tan = xp.tan(xp.acos(-xp.where(below, ratio, 1.0)) / 3)
    scaled = xp.where(below | ~smooth, beta, beta / ratio)  # the double root at the cusp
    cos = 1 / (root * scaled * xp.sqrt(1 + tan * tan))
    high = xp.asinh(xp.sqrt(_larger(xp, 2 * cos - 1 - four, 0.0) / four))
    squared = scaled * scaled
    square = _larger(xp, ((math.sqrt(3) * tan - 1) * cos - 1) / four - 1, squared)
    for _ in range(2):  # Newton on s = β²(1 + 4ε(1+s))³: the small root cancels above
        w = 1 + four * (1 + square)
        cube = squared * w * w
        square = square + (cube * w - square) / _larger(xp, 1 - 3 * four * cube, 1e-8)
    square = xp.where(below, square, 0.5 + 1 / (2 * four))
    low = xp.asinh(xp.where(smooth, xp.sqrt(square), beta))
    high = xp.where(below & (high > low), high, low)
    return 2 * low, xp.where(smooth, 2 * high, log_odds_limit(xp, beta.dtype))


def _folds_in_std(xp: Any, beta: Array, eps: Array) -> tuple[Array, Array]:
    """With ε in the standard deviation sinh(L/2) = β(1 + 2ε·cosh(L/2))², for z = 2ε·sinh(L/2): z = k(1+√(4ε²+z²))².

    z minus the right side is concave. The roots of z = k(1+z)² lie outside of its two, and the iteration goes inwards.
    """
    smooth = eps > 0
    two = xp.where(smooth, 2 * eps, 1.0)
    k, square = beta * two, two * two
    curve = 1 + xp.sqrt(1 + 8 * square)
    cosh = curve / (2 * two)  # at the steepest place
    top = xp.sqrt(cosh * cosh - 1)
    exist = beta * (1 + two * cosh) ** 2 < top
    width = 1 - 2 * k + xp.sqrt(_larger(xp, 1 - 4 * k, 0.0))
    low, high = _larger(xp, 2 * k / width, k * (1 + two) * (1 + two)), width / (2 * k)
    for _ in range(FOLD_STEPS):
        low, high = _fold_step(xp, low, k, square, 1.0), _fold_step(xp, high, k, square, -1.0)
    low = 2 * xp.asinh(xp.where(smooth, xp.where(exist, low / two, top), beta))
    high = xp.where(exist, 2 * xp.asinh(high / two), low)
    return low, xp.where(smooth, high, log_odds_limit(xp, beta.dtype))


def _fold_step(xp: Any, z: Array, k: Array, square: Array, side: float) -> Array:
    """One square-root step on z − k(1 + √(4ε² + z²))² = 0."""
    radius = xp.sqrt(square + z * z)
    one, sine = 1 + radius, z / radius
    value, slope = z - k * one * one, 1 - 2 * k * one * sine
    bend = -2 * k * (sine * sine + one * (1 - sine * sine) / radius)
    return z - 2 * value / (slope + side * xp.sqrt(_larger(xp, slope * slope - 2 * value * bend, 0.0)))


def _larger(xp: Any, x: Array, y: Any) -> Array:
    """The maximum, of numbers too."""
    return xp.where(x > y, x, y)


def _smaller(xp: Any, x: Array, y: Any) -> Array:
    """The minimum, of numbers too."""
    return xp.where(x < y, x, y)

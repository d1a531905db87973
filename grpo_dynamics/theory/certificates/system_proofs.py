"""Every system of a batch as plain numbers, and the precision at which its proof succeeds."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from flint import arb, ctx

from grpo_dynamics.arrays import fields, to_numpy
from grpo_dynamics.normalization import Normalization
from grpo_dynamics.theory.certificates.balls import Ball, EnclosedGap, NotProved
from grpo_dynamics.theory.certificates.certainty import Grounds
from grpo_dynamics.theory.certificates.enclosed_gap import enclosed_gap
from grpo_dynamics.theory.certificates.fixed_point_proof import (
    Equation,
    Proof,
    forward_equation,
    prove,
    recursion_equation,
)
from grpo_dynamics.theory.flow import Flow
from grpo_dynamics.theory.recursion import Recursion

Guesses = tuple[list[float], list[float]]
"""Where the folds and the fixed points of a system may be."""
DIGITS = 13
"""A relative distance of 10^−13 is about what the rounding of an option to a float can make."""


class Effort(NamedTuple):
    """Bits that the enclosures are to have, working precisions to try in turn, and the digits of the tolerance."""

    bits: int
    precisions: tuple[int, ...]
    digits: int


def effort(digits: int | None) -> Effort:
    """What to do for so many digits; None stands for the floats' own."""
    if digits is None:
        return Effort(54, (80, 160, 320, 640), DIGITS)
    bits = math.ceil(digits * math.log2(10)) + 2
    return Effort(bits, tuple((bits + 64) << k for k in range(4)), max(digits, DIGITS))


class System(NamedTuple):
    """The options of one element as plain numbers; α is None with k3 in the loss."""

    beta: float
    p_ref: float
    alpha: float | None
    normalization: Normalization
    flips: bool

    def gap(self) -> EnclosedGap:
        """Ω in balls of the present precision."""
        return _gap(self.normalization, ctx.prec)

    def equation(self) -> Equation:
        """F in balls of the present precision."""
        if self.alpha is None:
            return forward_equation(self.beta, self.p_ref, self.gap())
        return recursion_equation(self.beta, self.p_ref, self.alpha, self.gap(), self.flips)


@functools.lru_cache(maxsize=256)
def _gap(normalization: Normalization, precision: int) -> EnclosedGap:
    return enclosed_gap(normalization)  # at the present precision, which tells the entries of the cache apart


def systems(dynamics: Recursion | Flow, shape: tuple[int, ...]) -> Iterator[System]:
    """Every element of a batch of NumPy arrays or numbers."""
    if isinstance(dynamics, Recursion):
        flips, alpha = True, _column(dynamics.alpha, shape)
    else:
        flips, alpha = False, [{"reverse": 1.0, "forward": None, "none": 0.0}[dynamics.divergence]] * math.prod(shape)
    columns = _column(dynamics.beta, shape), _column(dynamics.p_ref, shape), alpha
    return map(System, *columns, _normalizations(dynamics.normalization, shape), itertools.repeat(flips))


def _column(value: Any, shape: tuple[int, ...]) -> list[Any]:
    return np.broadcast_to(to_numpy(value), shape).reshape(-1).tolist()


def _normalizations(normalization: Normalization, shape: tuple[int, ...]) -> Iterator[Normalization]:
    """The normalisation of every element, with plain numbers for options."""
    columns = {name: _column(v, shape) for name, v in fields(normalization) if hasattr(v, "ndim")}
    if not columns:
        yield from itertools.repeat(normalization, math.prod(shape))
    for values in zip(*columns.values(), strict=True):
        part = object.__new__(type(normalization))  # validated before: not through __init__ again
        for name, value in (vars(normalization) | dict(zip(columns, values, strict=True))).items():
            object.__setattr__(part, name, value)
        yield part


def proofs_of(
    dynamics: Recursion | Flow, shape: tuple[int, ...], guesses: Iterable[Guesses], digits: int | None
) -> list[Proof]:
    """The proof of every element of a batch of NumPy arrays or numbers."""
    wanted, before = effort(digits), ctx.prec
    try:
        return [_proof(system, *guess, wanted) for system, guess in zip(systems(dynamics, shape), guesses, strict=True)]
    finally:
        ctx.prec = before


def _proof(system: System, folds: list[float], roots: list[float], wanted: Effort) -> Proof:
    """The proof of one system, at the first precision that suffices."""
    if system.alpha == 0:
        return Proof(Grounds.NO_PULL, [], [])
    for precision in wanted.precisions:
        ctx.prec = precision
        try:
            return prove(system.equation(), folds, roots, wanted.bits, tenth_to_the(wanted.digits, precision))
        except NotProved:
            continue
    return Proof(Grounds.PRECISION, None, [])


@functools.lru_cache(maxsize=64)
def tenth_to_the(digits: int, precision: int) -> Ball:
    """10^−digits at the present precision."""
    return arb(10) ** -digits

"""Why measured and predicted differ: chance, minimisation that stopped early, and what is left.

The difference of one step, p_n − h(p_{n−1}), has three causes. Where the run has recorded p*_n, the success probability
of the best of all policies for the objective that step n was given, it is the sum of three differences:

- statistical: p*_n − h(p_{n−1}) where groups are sampled: what this step's samples say beside their expectation. Where
  p is counted from samples too: with it what of p_n − p*_n is more than the gap of the inner loop allows, √(gap/2β);
- optimisation: p_n − p*_n: what the inner loop has not reached when it stopped, by its tolerance or out of steps;
- approximation: what is left: p*_n − h(p_{n−1}) where nothing is sampled, because the policy is no longer what the
  theory says it is (with two KL terms h depends on more of a policy than p).

Where it has not, only sizes can be told, and their squares are added up as those of independent errors:

- statistical: what chance alone is expected to make. The intervals of p_n and of p_{n−1} and p_ref through h; and where
  groups are sampled, the spread of a step that a table of probabilities would show, Var = Var[m(S)]/(N·(βGp(1−p))²) in
  log-odds, with S ~ Bin(G, p) successes in each of N groups and m(S) the advantages of the right answers in sum.
- optimisation: what an inner loop that stopped early can have left, at most. A policy whose objective is by ``gap``
  below its maximum over all policies is at KL(π‖π*) = gap/β from the maximiser, so |p_n − p*_n| <= √(gap/2β) (Pinsker).
- approximation: what is left, at least: a network that cannot follow, questions that move each other, settings that are
  not modelled.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import polars as pl

from grpo_dynamics.arrays import Array
from grpo_dynamics.logodds import bernoulli_variance, complement, sigmoid
from grpo_dynamics.simulation.sampled import advantages
from grpo_dynamics.simulation.sampling import Groups
from grpo_dynamics.update_rule import Training

PARTS = ("statistical", "optimisation", "approximation")


@dataclasses.dataclass(frozen=True, eq=False)
class ErrorSplit:
    """Root mean squares over questions, each of shape (iterations,).

    Attributes:
        iterations: which.
        total: of measured − predicted after one step.
        statistical, optimisation, approximation: its parts. Where ``exact``, of the three differences whose sum it is;
            elsewhere what is expected from chance, at most from the inner loop, at least from the rest: the squares
            add up to the total's.
        expected: from chance, however large.
        bound: of the optimisation, however large; NaN where no gap was recorded.
        exact: whether every part was measured.
    """

    iterations: Array
    total: Array
    statistical: Array
    optimisation: Array
    approximation: Array
    expected: Array
    bound: Array
    exact: Array

    def table(self) -> pl.DataFrame:
        """Return one row per iteration."""
        return pl.DataFrame({field.name: getattr(self, field.name) for field in dataclasses.fields(self)})

    def whole(self) -> dict[str, float]:
        """Return the root mean square of each part over all iterations."""
        return {name: _root_mean(getattr(self, name) ** 2) for name in ("total", *PARTS)}


def split(
    iterations: Array, residual: Array, deviation: Array, bound: Array, measured: Array, optimum: Array, sampled: bool
) -> ErrorSplit:
    """Return the parts of the error.

    Args:
        iterations: shape (n,), without the start.
        residual: measured − predicted after one step, shape (n, questions), NaN where there is none.
        deviation: its standard deviation by chance, same shape.
        bound: of |residual| by the gap of the inner loop, same shape; NaN where it is not known.
        measured: p_n, same shape.
        optimum: p*_n, same shape; NaN where it is not known.
        sampled: whether the step's objective was made of samples, or p was counted from some.
    """
    known = np.isfinite(residual)
    total, chance, loop = (_mean_square(values, known) for values in (residual, deviation, bound))
    missed, rest = measured - optimum, residual - (measured - optimum)
    exact = known.any(axis=1) & (np.isfinite(missed) | ~known).all(axis=1)
    parts = (rest, missed, 0.0 * rest) if sampled else (0.0 * rest, missed, rest)
    told = [_mean_square(values, known) for values in parts]
    statistical = np.minimum(total, np.nan_to_num(chance))
    optimisation = np.minimum(total - statistical, np.nan_to_num(loop))
    sizes = [statistical, optimisation, np.maximum(total - statistical - optimisation, 0.0)]
    shown = [np.where(exact, first, second) for first, second in zip(told, sizes, strict=True)]
    roots = [np.sqrt(values) for values in (total, *shown, chance, loop)]
    return ErrorSplit(iterations, roots[0], roots[1], roots[2], roots[3], roots[4], roots[5], exact)


def _mean_square(values: Array, known: Array) -> Array:
    values = np.where(known, values, np.nan)
    count = np.isfinite(values).sum(axis=1)
    return np.where(count > 0, np.nansum(values**2, axis=1) / np.maximum(count, 1), np.nan)


def sampling_deviation(training: Training, log_odds: Array) -> Array:
    """Return the standard deviation that sampled groups give to the log-odds after one minimised step.

    Of a table with one right and one wrong answer it is exact; a network that learns from all questions at once may
    spread less, one with many answers that were never sampled more.

    Args:
        training: "sampled"; 0 for the others.
        log_odds: before the step, any shape; NaN stays NaN.

    Source: derived above; the advantages are those of :mod:`grpo_dynamics.simulation.sampled`.

    >>> from grpo_dynamics import FiniteGroup
    >>> training = Training(normalization=FiniteGroup(2), update="sampled", learning_rate=1.0)
    >>> print(sampling_deviation(training, np.array([0.0])))  # mixed or silent by a coin, Ω is 2 or 0
    [1.]
    """
    if training.update != "sampled" or training.advantage == "critic":
        return np.zeros(np.shape(log_odds))
    size = training.size
    state = np.ravel(np.where(np.isfinite(log_odds), log_odds, 0.0))
    counts = np.arange(size + 1.0)
    right, wrong = np.tile(counts, (state.size, 1))[..., None], np.tile(size - counts, (state.size, 1))[..., None]
    up, down = advantages(Groups(right, wrong), state, np.zeros(state.size), training)
    p, q = sigmoid(state)[:, None], complement(state)[:, None]
    with np.errstate(all="ignore"):
        shift = (counts * up / p - (size - counts) * down / q) / size
        chance = _binomial(size, state)
        if training.drops_silent_groups:
            chance[:, [0, -1]] = 0.0
            chance = chance / chance.sum(axis=1, keepdims=True)
        mean = (chance * shift).sum(axis=1, keepdims=True)
        variance = (chance * (shift - mean) ** 2).sum(axis=1)
        deviation = np.sqrt(variance / training.groups) / float(training.beta)
    return np.where(np.isfinite(log_odds), deviation.reshape(np.shape(log_odds)), np.nan)


def _binomial(size: int, state: Array) -> Any:
    """Chances of 0 … G successes, shape (n, G+1)."""
    from math import comb

    p, q = sigmoid(state)[:, None], complement(state)[:, None]
    counts = np.arange(size + 1)
    return np.array([comb(size, int(k)) for k in counts], dtype=float) * p**counts * q ** (size - counts)


def in_probability(log_odds: Array, deviation: Array) -> Array:
    """Return a standard deviation of log-odds as one of the success probability, to first order and at most ½."""
    with np.errstate(all="ignore"):
        return np.minimum(bernoulli_variance(log_odds) * deviation, 0.5)


def _root_mean(values: Array) -> float:
    known = values[np.isfinite(values)]
    return float(np.sqrt(known.mean())) if known.size else float("nan")

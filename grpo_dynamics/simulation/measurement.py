"""What a simulation says with its statistical error: means over independent copies of a question."""

from __future__ import annotations

from typing import Any

import numpy as np

from grpo_dynamics.arrays import Array, to_numpy


def over_copies(values: Array, copies: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return mean and standard error over the copies of each question.

    Args:
        values: shape (..., questions·copies), the copies of a question side by side.
        copies: how many there are, at least 1.

    Returns:
        two arrays of shape (..., questions); the error of a single copy is NaN.

    Raises:
        ValueError: where the copies do not divide the last axis.

    >>> mean, error = over_copies([0.1, 0.3, 0.6, 0.6], copies=2)
    >>> print(mean.round(3), error.round(3))
    [0.2 0.6] [0.1 0. ]
    """
    array = to_numpy(values)
    if copies < 1 or array.shape[-1] % copies:
        raise ValueError(f"copies must be >= 1 and divide the {array.shape[-1]} columns, got {copies}")
    array = array.reshape(*array.shape[:-1], -1, copies)
    mean = array.mean(axis=-1)
    if copies == 1:
        return mean, np.full(mean.shape, np.nan)
    return mean, array.std(axis=-1, ddof=1) / np.sqrt(copies)


def ending(p: Array, copies: int, share: float = 0.5) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return where each question ends: the mean over the last part of a run, then over copies, and its standard error.

    Copies are independent, the steps of one are not: the error is that of the copies' own means.

    Args:
        p: shape (records, questions·copies).
        copies: of each question.
        share: the last part of the records that counts, in (0, 1].
    """
    records = to_numpy(p)
    return over_copies(records[-max(1, round(share * len(records))) :].mean(axis=0), copies)

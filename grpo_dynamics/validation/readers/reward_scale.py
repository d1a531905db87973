"""What a right answer earned more than a wrong one: without a standard deviation to divide by, β acts as β over it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from grpo_dynamics.finite_group import FiniteGroup
from grpo_dynamics.theory.trainers import MixedGroups, Trainer
from grpo_dynamics.validation.readers.samples import Notes

ASK = "(--set reward_scale=...)"


def with_reward_scale(
    found: Trainer, settings: Mapping[str, Any], given: Mapping[str, Any], samples: pl.DataFrame, notes: Notes
) -> Mapping[str, Any]:
    """Return the user's options, with the reward_scale that the rewards show where they have two values.

    Rewards of 0 and 1 leave it as it is: they may only say wrong and right.

    Args:
        found: the trainer with its settings.
        settings: all options that are known, of which some may be none of the preset.
        given: the user's options.
        samples: rows with success, reward and earned.
        notes: told what was taken, or what contradicts it.
    """
    column = "reward" if samples["earned"].null_count() == samples.height else "earned"
    ends = samples.group_by("success").agg(pl.col(column).min().alias("low"), pl.col(column).max().alias("high"))
    by_success = {right: (low, high) for right, low, high in ends.rows()}
    if len(by_success) < 2 or None in (*by_success[True], *by_success[False]):
        return given
    (wrong, wrong_high), (right, right_high) = by_success[False], by_success[True]
    gap = (right - wrong) / _own_scale(found)
    pair = f"Wrong answers earn {wrong:g}, right ones {right:g}"
    weights = settings.get("reward_weights") if found.name == "trl" else None
    asked = given.get("reward_scale")
    if wrong != wrong_high or right != right_high:
        text = f"Wrong answers earn {wrong:g} to {wrong_high:g}, right ones {right:g} to {right_high:g}: not two values"
    elif gap <= 0:
        text = f"{pair}: no reward for what counts as right"
    elif isinstance(weights, list) and any(weight != 1 for weight in weights):
        text = f"{pair}, before reward_weights = {weights}"
    elif (wrong, right) == (0, 1) or abs(gap - (1 if asked is None else asked)) <= 1e-9 * gap:
        return given
    elif asked is not None:
        notes.add("scale", f"{pair}: that is a reward_scale of {gap:g}, but {asked:g} is given, and counts")
        return given
    else:
        notes.add("scale", f"{pair}: reward_scale is taken as {gap:g}")
        return {**given, "reward_scale": gap}
    if asked is None and _matters(found):
        notes.add("scale", f"{text}. What a right answer earns more is taken as {_own_scale(found):g} {ASK}")
    return given


def _own_scale(found: Trainer) -> float:
    """What a right answer earns more than a wrong one where reward_scale is 1."""
    own = {"open-instruct": found.options.get("verification_reward"), "simple_GRPO": 2.0}
    return float(own.get(found.name) or 1.0)


def _matters(found: Trainer) -> bool:
    """Whether the scale is not divided out again."""
    kept = found.normalization.kept if isinstance(found.normalization, MixedGroups) else found.normalization
    return found.kl != "none" and not isinstance(kept, FiniteGroup)

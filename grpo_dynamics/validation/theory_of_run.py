"""Which theory a run's own settings ask for. Nothing in it is fitted: the settings decide, and p_ref is measured.

A step that is minimised to the end (an argmin) follows the recursion; a few small gradient steps follow the flow, whose
fixed points depend on how the KL term is coded. Both take the gap Ω of the rewards as they were normalised: that of
groups of G where groups were sampled.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from grpo_dynamics.arrays import Array
from grpo_dynamics.config import build
from grpo_dynamics.finite_group import FiniteGroup
from grpo_dynamics.logodds import complement, sigmoid
from grpo_dynamics.normalization import MeanOnly, Normalization, Whitened
from grpo_dynamics.theory.batch import BatchRecursion, BatchStd
from grpo_dynamics.theory.flow import DIVERGENCES, Flow
from grpo_dynamics.theory.recursion import Recursion
from grpo_dynamics.update_rule import KL, Training

Kind = Literal["recursion", "flow"]


@dataclasses.dataclass(frozen=True)
class Theory:
    """Equations for the success probability of each question.

    Attributes:
        kind: "recursion": an orbit p_0, p_1, …; "flow": where small steps end, at a speed that is not known for a
            network.
        name: a short name.
        beta, normalization, alpha, kl: the options of a :class:`~grpo_dynamics.Recursion` or
            :class:`~grpo_dynamics.Flow`; of a :class:`~grpo_dynamics.BatchRecursion` where all questions share one
            standard deviation.
        why: one sentence on what in the settings decided.
        not_modelled: what the settings do beside, which is part of the difference to what is measured.
    """

    kind: Kind
    name: str
    beta: float
    normalization: Normalization | BatchStd
    alpha: float = 1.0
    kl: KL = "exact"
    why: str = ""
    not_modelled: tuple[str, ...] = ()

    @property
    def has_orbits(self) -> bool:
        """Whether p_n is predicted for every n, not only where it ends."""
        return self.kind == "recursion"

    def at(self, p_ref: Array) -> Any:
        """Return the dynamics of questions with these p_ref, each in (0, 1)."""
        if isinstance(self.normalization, BatchStd):
            return BatchRecursion(self.beta, np.ravel(p_ref), normalization=self.normalization, kl=self.kl)
        if self.kind == "flow":
            return Flow(self.beta, p_ref, self.normalization, self.kl)
        return Recursion(self.beta, p_ref, self.normalization, self.alpha)

    def step(self, p_ref: Array, log_odds: Array) -> Array:
        """Return log-odds after one step, NaN where the start or p_ref is not known."""
        known = (p_ref > 0) & (p_ref < 1) & ~np.isnan(log_odds)
        here = np.where(known, log_odds, 0.0)
        return np.where(known, self.at(np.where((p_ref > 0) & (p_ref < 1), p_ref, 0.5)).step(here), np.nan)


def theory_of(config: Mapping[str, Any]) -> Theory:
    """Return the theory of an arm.

    Args:
        config: its settings, every key in force: [training] as :class:`~grpo_dynamics.update_rule.Training` has it,
            and of [optimization] ``inner_tolerance``.

    Raises:
        ValueError: for settings that are no way to train.

    >>> found = theory_of({"training": {"beta": 1.0, "normalization": {"kind": "finite_group", "group_size": 16}}})
    >>> print(found.name)
    recursion with Ω of groups of 16
    """
    training = training_of(config)
    optimization: Mapping[str, Any] = config.get("optimization") or {}
    name_of_gap = _gap(training)
    beta, alpha = float(training.beta), float(training.alpha)
    normalization = _normalization(training)
    argmin = training.update == "exact" or optimization.get("inner_tolerance") is not None
    if argmin:
        why = (
            "Every iteration minimises its objective to the end"
            if training.update == "exact"
            else f"The inner loop of every iteration runs to a tolerance of {optimization['inner_tolerance']:g}"
        )
        return Theory(
            kind="recursion",
            name=f"recursion with {name_of_gap}" + ("" if alpha == 1 else f", α = {alpha:g}"),
            beta=beta,
            normalization=normalization,
            alpha=alpha,
            why=f"{why}: L_n = α·L_ref + (1−α)·L_(n−1) + Ω(L_(n−1))/β",
            not_modelled=_left_out(training, config, argmin),
        )
    kl: KL = training.kl if alpha * beta > 0 else "none"
    held = {"reverse": "KL(π‖π_ref)", "forward": "KL(π_ref‖π)", "none": "no pull to the reference"}[DIVERGENCES[kl]]
    return Theory(
        kind="flow",
        name=f"flow with {name_of_gap} and {held}",
        beta=beta * alpha,
        normalization=normalization,
        kl=kl,
        why=f"{training.inner_steps} gradient step{'s' * (training.inner_steps > 1)} of learning rate "
        f"{_rate(training, optimization)} per batch: small steps rest where p(1−p)·Ω = β·R, "
        f'and kl = "{training.kl}" makes R that of {held}',
        not_modelled=_left_out(training, config, argmin),
    )


def training_of(config: Mapping[str, Any]) -> Training:
    """Return the update rule of an arm's settings; "exact" and a learning rate in [optimization] are allowed."""
    table = dict(config.get("training") or {})
    optimization: Mapping[str, Any] = config.get("optimization") or {}
    update = table.get("update", "exact")
    if update != "exact" and table.get("learning_rate") is None:
        table["learning_rate"] = (
            optimization.get("learning_rate") or 1.0
        )  # of the optimizer, which the theory leaves out
    return build(Training, table, "training")


def paper_theory(theory: Theory) -> Theory:
    """Return what one expects who reads the paper alone: exact statistics, ε = 1e-5, exact minimisation."""
    return Theory(
        kind="recursion",
        name="the paper's recursion, ε = 1e-5 and G = ∞",
        beta=theory.beta,
        normalization=Whitened(eps=1e-5),
        alpha=theory.alpha,
        why="the settings of the paper, whatever those of the run",
    )


def other_theories(theory: Theory) -> list[Theory]:
    """Return theories that the settings do not ask for: the paper's, and of a flow the other divergences."""
    paper = paper_theory(theory) if theory.beta > 0 else theory
    same = ("kind", "beta", "normalization", "alpha")
    others = [] if all(getattr(paper, name) == getattr(theory, name) for name in same) else [paper]
    if theory.kind == "flow" and theory.beta > 0:
        names: tuple[tuple[KL, str], ...] = (("exact", "KL(π‖π_ref), as k2"), ("k3", "KL(π_ref‖π), as k3 in the loss"))
        others += [
            dataclasses.replace(theory, kl=kl, name=f"the flow with {words}", why="", not_modelled=())
            for kl, words in names
            if DIVERGENCES[kl] != DIVERGENCES[theory.kl]
        ]
    return others


def _normalization(training: Training) -> Normalization | BatchStd:
    """What divides the rewards: of the batch where the standard deviation is."""
    groups = training.normalization
    if training.std_over is None or not isinstance(groups, FiniteGroup):
        return groups
    return BatchStd(
        statistic="rewards" if training.std_over == "batch" else "centred",
        eps=groups.eps,
        eps_placement=groups.eps_placement,
        group_size=training.size,
    )


def _gap(training: Training) -> str:
    """Name Ω."""
    normalization = training.normalization
    if training.advantage != "group":
        return f"Ω = 1 ({training.advantage})"
    if training.std_over is not None:
        return "one Ω of the whole batch"
    if isinstance(normalization, FiniteGroup):
        return f"Ω of groups of {normalization.group_size}" + (
            ", silent ones dropped" if normalization.silent_groups == "drop" else ""
        )
    if isinstance(normalization, MeanOnly):
        size = normalization.group_size
        return "Ω of centred rewards" + ("" if size is None else f" in groups of {size}")
    if isinstance(normalization, Whitened):
        return f"Ω of exact statistics, ε = {normalization.eps:g}".replace("e-0", "e-")
    return f"Ω of {type(normalization).__name__}"


def _rate(training: Training, optimization: Mapping[str, Any]) -> str:
    rate = optimization.get("learning_rate") or training.learning_rate
    return f"{rate:g} ({optimization['optimizer']})" if optimization.get("optimizer") else f"{rate:g}"


def _left_out(training: Training, config: Mapping[str, Any], argmin: bool) -> tuple[str, ...]:
    """Say what the settings do that the equations do not have."""
    longest = config.get("task", {}).get("max_completion_tokens")
    several = longest is None or longest > 2  # a token and the end of the answer
    said = [
        (True, "One network answers all questions: what it learns on one moves the others."),
        (training.update == "sampled", "Sampling: the equations are for expectations over groups."),
        (
            training.update == "sampled" and argmin,
            "Each answer is weighed by its own samples: a wrong one that was not drawn loses nothing, so that where "
            "wrong answers are rare and many p stays lower.",
        ),
        (
            training.kl_level == "token" and several and not argmin,
            f"{training.kl} per token: of answers of several tokens it is another divergence, with another point of "
            "rest (docs: limits; gd.stationary has it where all answers can be listed).",
        ),
        (
            training.aggregation == "sequence_mean" and several and not argmin,
            "The mean over the tokens of an answer weighs short answers more.",
        ),
        (
            training.inner_steps > 1 and not argmin,
            f"{training.inner_steps} gradient steps on one batch: between the flow and the recursion, off-policy from "
            "the second on.",
        ),
        (training.clips or training.dual_clip is not None, "Clipped ratios bound each update."),
        (training.kl_clamp is not None, "The KL estimator is clamped."),
        (
            training.ratio_level == "geometric_mean" and several and not argmin,
            "The ratio of an answer is its geometric mean over tokens (GSPO): long answers count less.",
        ),
        (
            training.std_over is not None,
            "One standard deviation for the batch: the equations are for a large one, in which it is steady.",
        ),
        (
            training.false_positive > 0 or training.false_negative > 0,
            "A verifier that errs: the gap shrinks by its error rates.",
        ),
        (training.reference_refresh is not None, f"The reference is renewed every {training.reference_refresh} steps."),
        (training.advantage == "critic", "A critic that is learned."),
        (not argmin, "The optimiser sets the speed, for each question another: only where the flow ends is compared."),
        (bool(config.get("model", {}).get("lora")), "LoRA: the policy can change in few directions only."),
        (
            str((config.get("optimization") or {}).get("precision", "float32")) not in ("float32", "float64", "fp32"),
            "Half precision rounds log-probabilities.",
        ),
    ]
    return tuple(text for applies, text in said if applies)


def batch_limits(dynamics: BatchRecursion) -> Array:
    """Return the log-odds at which a population ends that starts at its p_ref, NaN where it does not settle."""
    state = dynamics.iterate(2000).log_odds
    settled = np.abs(sigmoid(state[-1]) - sigmoid(state[-2])) < 1e-9
    return np.where(settled | (complement(state[-1]) < 1e-9), state[-1], np.nan)

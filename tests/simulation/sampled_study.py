"""Sampled training of random settings against the flow that should predict it: how many standard errors apart.

A plain gradient step of rate η on a table of m right and n wrong answers is one Euler step of gd.Flow, of length
η(1/m + 1/n), plus noise of mean 0. So the mean log-odds over many runs must be the Euler path of the flow, up to the
bend of the flow over the width of the noise, which the sizes here keep well below a standard error of the mean.

``python -m tests.simulation.sampled_study`` runs all 200 settings.
"""

from __future__ import annotations

import dataclasses

import numpy as np

import grpo_dynamics as gd
from grpo_dynamics.simulation.outcomes import Outcomes
from grpo_dynamics.simulation.tabular import simulate
from grpo_dynamics.theory.flow import DIVERGENCES
from grpo_dynamics.update_rule import Training

RUNS = 100


@dataclasses.dataclass(frozen=True)
class Setting:
    """One way to train, from π_ref, and the flow that should predict it."""

    training: Training
    flow: gd.Flow
    right: int
    wrong: int
    steps: int

    @property
    def unit(self) -> float:
        """Time of the flow in a step."""
        return self.training.learning_rate * (1 / self.right + 1 / self.wrong)


def random_setting(rng: np.random.Generator) -> Setting:
    """Groups of 2 to 32, any ε, any KL term; dynamic sampling only where the KL term does not see the samples.

    And only with larger groups: of two answers one is right in every mixed group, so that the log-odds have next to no
    noise, and the standard error of their mean falls below the bend of the flow.
    """
    p_ref, beta = gd.sigmoid(rng.uniform(-3, 3)), 10 ** rng.uniform(-0.7, 0.5)
    size, kl = int(rng.choice([2, 3, 4, 8, 16, 32])), str(rng.choice(list(DIVERGENCES)))
    kind = rng.choice(["group", "mean", "leave one out", "exact"])
    more = {}
    if kind == "group":
        drop = size >= 8 and kl in ("exact", "none") and rng.random() < 0.5
        normalization = gd.FiniteGroup(
            size,
            eps=float(rng.choice([0.0, 1e-4, 0.1])),
            eps_placement=str(rng.choice(["std", "variance"])),
            ddof=int(rng.integers(2)),
            silent_groups="drop" if drop else "keep",
        )
    elif kind == "mean":
        normalization = gd.MeanOnly(group_size=size)
    else:
        normalization = gd.MeanOnly() if kind == "leave one out" else gd.Whitened(1e-2)
        more = {"group_size": size, "advantage": "rloo" if kind == "leave one out" else "group"}
    right, wrong = (int(x) for x in rng.integers(1, 4, 2))
    unit = rng.uniform(0.003, 0.02)
    training = Training(
        beta=beta,
        normalization=normalization,
        update="sampled",
        learning_rate=unit / (1 / right + 1 / wrong),
        groups=max(1, 64 // size),
        kl=kl,
        **more,
    )
    return Setting(training, gd.Flow(beta, p_ref, normalization, kl=kl), right, wrong, int(rng.integers(100, 400)))


def compare(setting: Setting, seed: int, runs: int = RUNS) -> tuple[float, float]:
    """Return the deviation of the mean log-odds at the end, and its standard error."""
    questions = Outcomes.uniform(np.full(runs, setting.flow.p_ref), setting.right, setting.wrong)
    ends = simulate(questions, setting.training, setting.steps, seed, record_every=setting.steps).log_odds[-1]
    predicted = gd.logit(setting.flow.p_ref)
    for _ in range(setting.steps):
        predicted = predicted + setting.unit * setting.flow.rate(predicted)
    return float(ends.mean() - predicted), float(ends.std(ddof=1) / np.sqrt(runs))


def study(settings: int, seed: int, runs: int = RUNS) -> tuple[np.ndarray, np.ndarray]:
    """Deviations and standard errors of many random settings."""
    rng = np.random.default_rng(seed)
    pairs = [compare(random_setting(rng), seed=int(rng.integers(2**31)), runs=runs) for _ in range(settings)]
    deviations, errors = np.asarray(pairs).T
    return deviations, errors


if __name__ == "__main__":
    deviations, errors = study(200, seed=0)
    scores = deviations / errors
    print(
        f"within 3 standard errors: {np.mean(np.abs(scores) <= 3):.1%}, "
        f"within 1e-9: {np.mean(np.abs(deviations) < 1e-9):.1%}"
    )
    print(
        f"scores: mean {scores.mean():.3f}, standard deviation {scores.std():.3f}, largest {np.abs(scores).max():.2f}"
    )
    print(f"standard errors: median {np.median(errors):.2g}, largest {errors.max():.2g}")

"""What the theory says of questions whose p_ref is known from samples, for one trainer with its options."""

from __future__ import annotations

import dataclasses
import functools
import re
from typing import Any

import numpy as np

from grpo_dynamics.arrays import Array
from grpo_dynamics.logodds import sigmoid
from grpo_dynamics.posterior import Grid
from grpo_dynamics.theory.flow import Flow
from grpo_dynamics.theory.orbits.limit import limit
from grpo_dynamics.theory.recursion import Recursion
from grpo_dynamics.theory.regimes import Regime, regime
from grpo_dynamics.theory.trainers import Trainer, preset, trainer
from grpo_dynamics.theory.trainers.preset import numbers

REGIMES: tuple[str, ...] = ("one_stable", "bistable", "oscillating", "saturating")
"""What can be said of a question under a trainer, of small steps but for the third, which is of whole steps."""

GRID = Grid(500)


@dataclasses.dataclass(frozen=True)
class Outlook:
    """What k successes of n samples say: p* with its spread, and how probable each regime is.

    Attributes:
        p_ref: posterior mean of p_ref.
        p_star: posterior mean of p*.
        p_star_low, p_star_high: between them p* lies with 95 %.
        chances: probability of each of ``REGIMES``; a question can be in the third and in one of the others.
    """

    p_ref: float
    p_star: float
    p_star_low: float
    p_star_high: float
    chances: dict[str, float]


class Foresight:
    """p* and regimes for every p_ref, computed once; then an outlook for any counts.

    Regimes are those of the trainer's flow, which is what small steps follow. Flows do not oscillate. Where the KL term
    is KL(π‖π_ref), "oscillating" says that the iteration of whole steps would: where each batch is optimised to its
    end, by a large learning rate or many updates on a batch, p goes round a cycle instead of settling.

    Args:
        found: the trainer with its options.

    >>> import grpo_dynamics as gd
    >>> outlook = Foresight(gd.trainer("trl", "1.16", beta=0.4)).outlook(2, 8)
    >>> round(outlook.p_ref, 3), round(outlook.p_star, 3), round(outlook.p_star_low, 3)
    (0.278, 0.988, 0.949)
    """

    def __init__(self, found: Trainer) -> None:
        self.trainer = found
        flow = found.at(GRID.p)
        self._log_odds = limit(flow, GRID.p).log_odds
        labels = regime(flow).label
        self._in: dict[str, Array] = {
            "one_stable": labels == int(Regime.ONE_STABLE),
            "bistable": labels == int(Regime.BISTABLE),
            "oscillating": np.zeros(GRID.bins, dtype=bool),
            "saturating": labels == int(Regime.SATURATING),
        }
        if flow.divergence == "reverse":
            whole = regime(flow.recursion).label
            self._in["oscillating"] = (whole == int(Regime.OSCILLATING)) | (whole == int(Regime.CHAOTIC))
        self.outlook = functools.lru_cache(maxsize=10_000)(self._outlook)

    def _outlook(self, successes: int, samples: int) -> Outlook:
        """What is said of a question with so many successes of so many samples."""
        masses = GRID.masses(successes, samples)[0]
        p = sigmoid(self._log_odds)
        order = np.argsort(p, kind="stable")
        rising = np.cumsum(masses[order])
        low, high = (float(p[order][min(np.searchsorted(rising, q), GRID.bins - 1)]) for q in (0.025, 0.975))
        chances = {name: float(masses[inside].sum()) for name, inside in self._in.items()}
        return Outlook(float(masses @ GRID.p), float(masses @ p), low, high, chances)

    def reason(self, name: str, successes: int, samples: int) -> str:
        """Say what a regime looks like at the p_ref that is the most probable there, in a sentence with numbers."""
        masses = GRID.masses(successes, samples)[0] * self._in[name]
        p_ref = float(GRID.p[int(np.argmax(masses))])
        flow: Flow | Recursion = self.trainer.at(p_ref)
        dynamics = flow.recursion if name == "oscillating" and isinstance(flow, Flow) else flow
        return f"at p_ref = {p_ref:.3g}, {regime(dynamics).reason()}"


def known_version(name: str, installed: str) -> str:
    """Return the newest version that the preset knows and that is not after the installed one.

    Raises:
        ValueError: where the preset knows none that old.

    >>> known_version("trl", "1.16.0"), known_version("trl", "1.9.9"), known_version("trl", "7.0.0.dev0")
    ('1.16.0', '1.9.2', '1.16.0')
    """
    found = re.match(r"\d+(\.\d+)*", installed)
    versions = preset(name).versions
    older = [known for known in versions if found and numbers(known) <= (*numbers(found[0]), 0, 0)[:3]]
    if not older:
        raise ValueError(f"version of {name} must be at least {versions[0]}, got {installed!r}")
    return older[-1]


def trainer_of(name: str, version: str, arguments: Any, reward_scale: float = 1.0) -> Trainer:
    """Return the trainer that an object of arguments describes; attributes that the preset does not know are left.

    Args:
        name: "trl", for example.
        version: the installed version.
        arguments: such as a ``GRPOConfig``.
        reward_scale: what a right answer earns more than a wrong one.

    Raises:
        ValueError: for options without a closed form, with what to use instead.
    """
    found = preset(name)
    known = known_version(name, version)
    wanted = (*found.defaults(numbers(known)), *found.other)
    given = {option: getattr(arguments, option) for option in wanted if getattr(arguments, option, None) is not None}
    return trainer(name, known, reward_scale=reward_scale, **given)

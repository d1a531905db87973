"""The smallest group of completions with which a question has two stable states, or oscillates."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal

import numpy as np

from grpo_dynamics.arrays import batch_shape, option, require_choice, take, to_numpy
from grpo_dynamics.finite_group import FiniteGroup
from grpo_dynamics.normalization import EpsPlacement, Whitened
from grpo_dynamics.theory.recursion import Recursion
from grpo_dynamics.theory.regimes import Regime, one_element, regime

What = Literal["bistability", "oscillation"]
BEHAVIOURS = ("bistability", "oscillation")


@dataclasses.dataclass(frozen=True)
class SmallestGroup:
    """The smallest group size with a behaviour, per element.

    Attributes:
        group_size: G, shape (*batch); 0 where no group up to ``largest`` shows it.
        what: the behaviour.
        largest: the largest group that was tried.
        dynamics: the recursion with exact statistics and the same β, p_ref and ε.
    """

    group_size: Any
    what: What
    largest: int
    dynamics: Recursion
    options: dict[str, Any]

    def reason(self, index: Any = ()) -> str:
        """Return the answer for one element in a sentence.

        Args:
            index: an integer or a tuple of them, one per axis of the batch; () for a single system.

        Raises:
            ValueError: for an index that is not that of one element.
        """
        shape = batch_shape(self.dynamics)
        index = one_element(shape, index)
        size = int(np.reshape(self.group_size, shape)[index])
        one = take(self.dynamics, shape, index)
        if size:
            group = dataclasses.replace(one, normalization=FiniteGroup(size, one.normalization.eps, **self.options))
            return f"with G = {size}: {regime(group).reason()}"
        exact = regime(one)
        there = "there is" if bool(_shows(exact, self.what)) else "neither is there"
        return f"no {self.what} up to G = {self.largest}; {there} with exact statistics: {exact.reason()}"


def smallest_group(
    beta: Any,
    p_ref: Any,
    what: What = "bistability",
    eps: Any = 0.0,
    eps_placement: EpsPlacement = "std",
    ddof: int = 0,
    silent_groups: Literal["keep", "drop"] = "keep",
    largest: int = 64,
) -> SmallestGroup:
    """Return the smallest G at which two states attract, or at which a cycle or an irregular orbit does.

    Every G is tried, since neither behaviour is monotone in G: with β = 0.125 and p_ref = 2e-7 groups of 6 and 7
    oscillate and groups of 7 to 18 have two attractors, smaller and larger groups neither.

    Args:
        beta: KL strength > 0.
        p_ref: success probability of the reference.
        what: "bistability", two or more attractors of any kind, or "oscillation", a cycle or chaos.
        eps: smoothing ≥ 0; broadcasts with β and p_ref.
        eps_placement: see :class:`~grpo_dynamics.FiniteGroup`.
        ddof: see there.
        silent_groups: see there.
        largest: the largest G to try.

    Raises:
        ValueError: for arguments out of range.

    Source: derived in docs/notebooks/7_finite_groups.

    >>> found = smallest_group(beta=5.0, p_ref=1e-3, what="oscillation", largest=8)
    >>> print(found.group_size, found.reason().split(";")[0])
    0 no oscillation up to G = 8
    """
    require_choice("what", what, BEHAVIOURS)
    if isinstance(largest, bool) or not isinstance(largest, int) or largest < 2:
        raise ValueError(f"largest must be an integer >= 2, got {largest!r}")
    beta, p_ref, eps = (option(to_numpy(x)) if hasattr(x, "shape") else option(x) for x in (beta, p_ref, eps))
    exact = Recursion(beta, p_ref, Whitened(eps, eps_placement))
    options: dict[str, Any] = {"eps_placement": eps_placement, "ddof": ddof, "silent_groups": silent_groups}
    shape = batch_shape(exact)
    places = np.unravel_index(np.arange(math.prod(shape)), shape) if shape else ()
    found = np.zeros(math.prod(shape), np.int64)
    left = np.arange(found.size)
    for size in range(2, largest + 1):
        if left.size == 0:
            break
        part = take(exact, shape, tuple(place[left] for place in places)) if shape else exact
        normalization: Any = part.normalization
        group = FiniteGroup(size, normalization.eps, **options)
        shows = np.atleast_1d(_shows(regime(dataclasses.replace(part, normalization=group)), what))
        found[left[shows]] = size
        left = left[~shows]
    return SmallestGroup(found.reshape(shape)[()], what, largest, exact, options)


def _shows(found: Any, what: What) -> Any:
    label, count = to_numpy(found.label), to_numpy(found.count)
    if what == "oscillation":
        return (label == Regime.OSCILLATING) | (label == Regime.CHAOTIC)
    return (count > 1) & (label != Regime.DEGENERATE)

"""The definitions once more in 50-digit arithmetic, straight from the page and independent of the package.

Every function takes the floats that the package gets, exactly, and returns what it would have returned with 50 digits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from mpmath import MPContext

mp = MPContext()  # its own context: nothing global changes
mp.dps = 50

ROUNDING = 2.0**-53
"""u, the unit roundoff of float64: the yardstick of every error bound in these tests."""

Gap = Callable[[Any], Any]


def logit(p: float) -> Any:
    """log(p/(1−p)) of exactly this float; 50 digits of it also where p is 1 − 2^−53."""
    p = mp.mpf(p)
    return mp.log(p / (1 - p))


def sigmoid(log_odds: Any) -> Any:
    return 1 / (1 + mp.exp(-mp.mpf(log_odds)))


def variance(log_odds: Any) -> Any:
    """p(1−p), without cancellation: e^−|L|/(1 + e^−|L|)²."""
    t = mp.exp(-abs(mp.mpf(log_odds)))
    return t / (1 + t) ** 2


def whitened(eps: float, eps_placement: str = "variance") -> Gap:
    """Ω of GRPO: (p(1−p)+ε)^(−1/2), or 1/(√(p(1−p))+ε) with ε added to the standard deviation."""
    eps = mp.mpf(eps)
    if eps_placement == "variance":
        return lambda log_odds: 1 / mp.sqrt(variance(log_odds) + eps)
    return lambda log_odds: 1 / (mp.sqrt(variance(log_odds)) + eps)


def mean_only(group_size: int | None = None) -> Gap:
    """Ω of Dr. GRPO: advantages r − p differ by 1; a mean over G that includes the sample shrinks them by (G−1)/G."""
    return lambda log_odds: mp.one if group_size is None else (mp.mpf(group_size) - 1) / group_size


def group_advantages(
    group_size: int, eps: float = 0.0, eps_placement: str = "std", ddof: int = 0, silent_groups: str = "keep"
) -> Callable[[Any], tuple[Any, Any]]:
    """(E[A | r=1], −E[A | r=0]) by listing what the other G−1 samples can do: C(G−1,s) p^s (1−p)^(G−1−s)."""
    size, eps = group_size, mp.mpf(eps)

    def advantage(reward: int, successes: int) -> Any:
        if successes in (0, size):
            return mp.zero
        mean = mp.mpf(successes) / size
        squares = successes * (1 - mean) ** 2 + (size - successes) * mean**2
        spread = squares / (size - ddof)
        return (reward - mean) / (mp.sqrt(spread + eps) if eps_placement == "variance" else mp.sqrt(spread) + eps)

    right = [mp.binomial(size - 1, s) * advantage(1, s + 1) for s in range(size)]
    wrong = [mp.binomial(size - 1, s) * -advantage(0, s) for s in range(size)]

    def expectations(log_odds: Any) -> tuple[Any, Any]:
        p, q = sigmoid(log_odds), sigmoid(-mp.mpf(log_odds))
        chances = [p**s * q ** (size - 1 - s) for s in range(size)]
        kept = mp.one
        if silent_groups == "drop":  # summed over the mixed groups: 1 − p^G − (1−p)^G would cancel
            kept = mp.fsum(mp.binomial(size, k) * p**k * q ** (size - k) for k in range(1, size))
        return mp.fdot(right, chances) / kept, mp.fdot(wrong, chances) / kept

    return expectations


def finite_group(*args: Any, **kwargs: Any) -> Gap:
    """Ω of a finite group: the sum of the two conditional expectations."""
    expectations = group_advantages(*args, **kwargs)
    return lambda log_odds: mp.fsum(expectations(log_odds))


def slope(gap: Gap, log_odds: Any) -> Any:
    """dΩ/dL by a central difference: with h = 10^−25, 50 digits of it are right."""
    return _differences(gap, log_odds)[0]


def curvature(gap: Gap, log_odds: Any) -> Any:
    """d²Ω/dL²."""
    return _differences(gap, log_odds)[1]


def _differences(gap: Gap, log_odds: Any) -> tuple[Any, Any]:
    with mp.workdps(110 + min(int(abs(log_odds)), 750)):  # Ω flattens like e^−|L|: more digits, until floats end
        x, h = mp.mpf(log_odds), mp.mpf(10) ** -25
        left, middle, right = gap(x - h), gap(x), gap(x + h)
        return (right - left) / (2 * h), (right - 2 * middle + left) / h**2


def polish(gap: Gap, pull: Any, anchor: Any, start: float) -> Any:
    """The root of b·(L − L_ref) − Ω(L) next to ``start``, by Newton's method to 45 digits."""
    x = mp.mpf(start)
    for _ in range(60):
        first = slope(gap, x)
        step = (pull * (x - anchor) - gap(x)) / (pull - first)
        x -= step
        if abs(step) < mp.mpf(10) ** -45 * (abs(x) + abs(anchor) + abs(x - anchor)):
            return x
    raise AssertionError(f"no convergence near {start}")


def orbit(gap: Gap, beta: float, p_ref: float, alpha: float, start: Any) -> Iterator[Any]:
    """L_0, L_1, … of L ← α·L_ref + (1−α)·L + Ω(L)/β, to 60 digits, for as long as the caller asks."""
    with mp.workdps(60):
        anchor, state = logit(p_ref), mp.mpf(start)
    while True:
        yield state
        with mp.workdps(60):
            state = mp.mpf(alpha) * anchor + (1 - mp.mpf(alpha)) * state + gap(state) / mp.mpf(beta)

"""What the page says of other p_ref at the same β, against the package's regimes."""

from __future__ import annotations

import re

import numpy as np
import pytest

import grpo_dynamics as gd

from .conftest import plain

RULES = {
    "paper": (gd.Whitened(1e-5), {}),
    "little smoothing": (gd.Whitened(1e-8), {"eps": 1e-8}),
    "much smoothing": (gd.Whitened(1e-3), {"eps": 1e-3}),
    **{f"G={size}": (gd.FiniteGroup(size, 1e-5, ddof=0), {"group_size": size}) for size in (16, 32, 64)},
}
NUMBER = r"(\d[\d.]*(?: × 10⁻[⁰¹²³⁴⁵⁶⁷⁸⁹]+)?)"


def number(text: str) -> float:
    """Read a number as the page writes it."""
    return float(text.replace(" × 10⁻", "e-").translate(str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹", "0123456789")))


def regimes(beta, p_ref, normalization) -> set[str]:
    found = gd.regime(gd.Recursion(beta, np.array(p_ref), normalization)).label
    return {gd.Regime(int(label)).name for label in np.ravel(found)}


@pytest.mark.parametrize("name", RULES)
def test_where_along_p_ref_the_low_state_oscillates(ask, name):
    """Inside the interval that is named the package's regimes oscillate or wander, beyond either end they do not."""
    normalization, settings = RULES[name]
    betas = [0.5, 1.0, 2.0, 5.0, 20.0]
    seen = 0
    for p_ref in (0.1, 0.9999):  # with a stable low state, and above its fold
        made = [ask("defaults") | settings | {"beta": beta, "p_ref": p_ref} for beta in betas]
        for beta, sentences in zip(betas, ask("along", made), strict=True):
            said = plain(" ".join(sentences))
            found = re.search(f"Between p_ref = {NUMBER} and {NUMBER} the low state oscillates", said)
            if found is None:
                assert "oscillates" not in said
                continue
            low, high = map(number, found.groups())
            inside = np.geomspace(1.1 * low, high / 1.1, 6)
            assert regimes(beta, inside, normalization) <= {"OSCILLATING", "CHAOTIC"}, (beta, said)
            beyond = regimes(beta, [low / 1.1, 1.1 * high], normalization)
            assert beyond <= {"ONE_STABLE", "BISTABLE"}, (beta, said)
            seen += 1
    assert seen >= 2


def test_where_along_p_ref_there_is_a_lower_stable_state(ask):
    """Above the fold: between the numbers named two states are stable, or one that is not near 1; beyond, not."""
    for beta in (0.5, 1.0, 2.0, 5.0):
        rule = gd.Whitened(1e-5)
        said = plain(ask("along", [ask("defaults") | {"beta": beta, "p_ref": 0.999}])[0][0])
        found = re.match(f"Between p_ref = {NUMBER} and {NUMBER} there is a lower stable state", said)
        low, high = map(number, found.groups())
        assert regimes(beta, np.geomspace(1.1 * low, high / 1.1, 6), rule) == {"BISTABLE"}
        assert "BISTABLE" not in regimes(beta, [low / 1.1, min(1.1 * high, 0.99)], rule)

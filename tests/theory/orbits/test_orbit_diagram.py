"""The tables behind the orbit diagram, against cycles, limits and exponents taken one by one."""

import numpy as np
import pytest

import grpo_dynamics as gd
from grpo_dynamics.theory.orbits.cycles import cycles
from grpo_dynamics.theory.orbits.orbit_diagram import orbit_diagram

P_REF = np.geomspace(1e-2, 2e-5, 40)


@pytest.fixture(scope="module")
def diagram():
    return orbit_diagram(gd.grpo(5.0, P_REF), period=4, samples=64)


def test_branches_are_the_cycles(diagram):
    table = diagram.branches
    assert table.columns == [
        *("system", "beta", "p_ref", "alpha", "period", "cycle", "place"),
        *("log_odds", "p", "one_minus_p", "multiplier", "stable"),
    ]
    for system in (0, 17, 39):
        rows = table.filter(system=system)
        found = cycles(gd.grpo(5.0, float(P_REF[system])), 4)
        assert rows.height == found.period.sum()
        np.testing.assert_allclose(rows["log_odds"], found.log_odds[np.isfinite(found.log_odds)], rtol=1e-12)
        np.testing.assert_allclose(rows["multiplier"], np.repeat(found.multiplier, found.period), rtol=1e-9)
        np.testing.assert_array_equal(rows["p_ref"], P_REF[system])


def test_attractors_lie_on_their_branches(diagram):
    """What a critical orbit reaches, where it is no longer than the branches, is a stable branch, point by point."""
    for (system,), rows in diagram.attractors.group_by("system"):
        stable = diagram.branches.filter(system=system, stable=True)["log_odds"].to_numpy()
        for (_start,), points in rows.group_by("start", maintain_order=True):
            period = points["period"][0]
            assert points.height == (period if period > 0 else 64)
            if 0 < period <= 4:
                place = points["log_odds"].to_numpy()
                assert np.abs(np.subtract.outer(place, stable)).min(axis=1).max() < 1e-6
                assert place[0] == place.min()


def test_consecutive_samples_are_steps(diagram):
    irregular = diagram.attractors.filter(kind="IRREGULAR")
    assert irregular.height > 0
    for (system, _start), rows in irregular.group_by("system", "start", maintain_order=True):
        place = rows["log_odds"].to_numpy()
        np.testing.assert_allclose(gd.grpo(5.0, float(P_REF[system])).step(place[:-1]), place[1:], rtol=1e-12)


def test_both_attractors_are_found(diagram):
    """p = 1/2 finds the lower attractor, as long as there is one, and p = 1 the upper fixed point."""
    kinds = diagram.exponents.pivot("start", index="system", values="kind").sort("system")
    assert set(kinds["1"]) == {"FIXED_POINT"}
    assert {"FIXED_POINT", "CYCLE", "IRREGULAR"} <= set(kinds["0"])
    upper = gd.fixed_points(gd.grpo(5.0, P_REF)).log_odds[2]
    np.testing.assert_allclose(diagram.attractors.filter(start=1).sort("system")["log_odds"], upper, rtol=1e-12)


def test_exponents_belong_to_the_kinds(diagram):
    table = diagram.exponents
    regular = table.filter(table["period"] > 0)
    assert regular["exponent"].max() < 0
    assert table.filter(kind="IRREGULAR")["exponent"].min() > 0
    assert regular["standard_error"].max() == 0


def test_given_starts():
    """One row per start and system; p = 1 stays p = 1."""
    table = orbit_diagram(gd.grpo([0.5, 2.0], 0.9, eps=0.0), period=1, p0=[0.2, 0.5, 0.95]).attractors
    assert table.height == 6
    assert table.filter(system=0)["p"].to_list() == [1.0] * 3
    assert table.filter(system=0)["kind"].to_list() == ["ONE"] * 3


def test_other_normalizations_and_anchors():
    for normalization in (
        gd.FiniteGroup(8),
        gd.MeanOnly(),
        gd.Whitened(1e-4, "std"),
        gd.FiniteGroup(4, silent_groups="drop"),
    ):
        for alpha in (0.0, 0.3, 1.0):
            found = orbit_diagram(gd.Recursion(1.0, [0.01, 0.3], normalization, alpha), period=2)
            for table in (found.branches, found.attractors, found.exponents):
                assert not any(table[name].is_nan().any() for name in table.columns if table[name].dtype.is_float())


def test_wrong_arguments():
    for dynamics in (gd.grpo(1.0, 0.2), gd.grpo([[1.0]], 0.2)):
        with pytest.raises(ValueError, match="one-dimensional batch"):
            orbit_diagram(dynamics)
    for arguments, words in (
        ({"period": 0}, "period must be"),
        ({"samples": 0}, "samples must be"),
        ({"p0": [0.0]}, "p0 must be"),
        ({"steps": 3}, "steps must be"),
        ({"transient": 0}, "transient must be an integer >= 1, got 0"),
    ):
        with pytest.raises(ValueError, match=words):
            orbit_diagram(gd.grpo([1.0, 2.0], 0.2), **arguments)

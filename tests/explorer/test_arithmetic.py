"""The arithmetic of the page against the package, in a real browser, on random states over all options.

What is compared is log-odds, by |difference| / (1 + |L|). Both sides compute in float64 by the same formulas, but the
elementary functions of the browser and of NumPy differ in the last place, so that is what may differ: the bound that
is promised, 1e-9, is a million times wider. Where an equation is ill-conditioned the difference grows as it must: near
a fold, where a fixed point moves by δ/(1 − multiplier) for an error δ of the map, and along a chaotic orbit.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

import grpo_dynamics as gd
from grpo_dynamics.theory.fixed_points import Status

from .states import batches, dynamics, start, states

PROMISED = 1e-9
SEEN = 1e-13
"""What well-conditioned numbers keep, far below what is promised: a formula that differs would show."""


def distance(ours, package):
    """|difference| / (1 + |L|), 0 where both are the same infinity."""
    ours, package = np.asarray(ours, float), np.asarray(package, float)
    with np.errstate(invalid="ignore"):
        return np.where(ours == package, 0.0, np.abs(ours - package) / (1 + np.abs(package)))


def numbers(values):
    """None stands for NaN."""
    return np.array([math.nan if value is None else value for value in values], float)


@pytest.mark.parametrize(("update", "count"), [("exact", 7000), ("gradient", 3000)])
def test_steps_and_multipliers_of_ten_thousand_states(ask, update, count):
    made = states(count, seed=1, update=update, largest=24)
    rng = np.random.default_rng(2)
    # where p saturates, too; e^L in the pull of k3 overflows beyond 700
    places = rng.uniform(-40, 40, count) * np.where(rng.random(count) < 0.1, 15, 1)
    steps, multipliers = (numbers(ask(name, made, places.tolist())) for name in ("steps", "multipliers"))
    for indices, together in batches(made):
        assert np.max(distance(steps[indices], together.step(places[indices]))) < SEEN
        assert np.max(distance(multipliers[indices], together.multiplier(places[indices]))) < SEEN


def test_rates_of_flows(ask):
    made = states(3000, seed=3, update="gradient", largest=24)
    places = np.random.default_rng(4).uniform(-40, 40, 3000)
    ours = numbers(ask("rates", made, places.tolist()))
    for indices, together in batches(made):
        exact = together.rate(places[indices])
        assert np.max(np.abs(ours[indices] - exact) / np.maximum(np.abs(exact), 1e-300)) < SEEN


@pytest.mark.parametrize(("update", "count"), [("exact", 8000), ("gradient", 2000)])
def test_fixed_points_of_ten_thousand_states(ask, update, count):
    """Number, place, multiplier, stability and status; the error of a place may grow like 1/(1 − multiplier)."""
    made = states(count, seed=5, update=update, largest=24)
    answers = ask("fixed", made)
    most = 0
    for indices, together in batches(made):
        found = gd.fixed_points(together)
        here = [answers[i] for i in indices]
        assert [len(answer["points"]) for answer in here] == found.count.tolist()
        assert [answer["status"] for answer in here] == [Status(int(status)).name.lower() for status in found.status]
        for slot in range(found.log_odds.shape[0]):
            has = found.count > slot
            ours = {
                key: np.array([answer["points"][slot][key] for answer, known in zip(here, has, strict=True) if known])
                for key in ("L", "multiplier", "stable")
            }
            places, multipliers = found.log_odds[slot][has], found.multiplier[slot][has]
            error = distance(ours["L"], places)
            condition = np.minimum(np.abs(1 - multipliers), 1)
            assert np.all(error <= SEEN / condition), np.max(error * condition)
            assert np.all(error[condition > 1e-4] <= PROMISED)
            assert np.all(distance(ours["multiplier"], multipliers)[condition > 1e-4] <= PROMISED)
            sure = np.abs(np.abs(multipliers) - 1) > 1e-9
            assert np.array_equal(ours["stable"][sure], found.stable[slot][has][sure])
            most = max(most, slot + 1)
    assert most >= 2 + (update == "exact")


def test_large_groups(ask):
    made = states(150, seed=6, largest=1024)
    made = [state for state in made if state["group_size"] > 100 and "dr_" not in state["variant"]]
    assert len(made) > 20
    for answer, state in zip(ask("fixed", made), made, strict=True):
        found = gd.fixed_points(dynamics(state))
        places = found.log_odds[: int(found.count)]
        assert len(answer["points"]) == len(places)
        assert np.all(distance([point["L"] for point in answer["points"]], places) < PROMISED)


@pytest.mark.parametrize("eps", [1e-5, 1e-3])
@pytest.mark.parametrize("off", [0.0, 1e-15, 1e-12, 1e-8, 1e-4])
def test_beside_a_fold(ask, eps, off):
    """Two fixed points that are about to merge lie √off apart: an error of 1e-16 in the map moves them by 1e-8."""
    references, betas = [], []
    for beta in (0.5, 2.0, 5.0):
        fold = gd.fold_points(beta, gd.Whitened(eps))
        for L in fold.log_odds_ref[np.isfinite(fold.log_odds_ref)]:
            for side in (-1, 1):
                reference = float(gd.sigmoid(L + side * off * (1 + abs(L))))
                if 1e-30 < reference < 1:
                    references.append(reference)
                    betas.append(beta)
    made = states(len(references), 7, variant="grpo", eps=eps, eps_placement="variance", group_size=math.inf)
    made = [state | {"beta": b, "p_ref": p} for state, b, p in zip(made, betas, references, strict=True)]
    for state, answer in zip(made, ask("fixed", made), strict=True):
        rec = dynamics(state)
        for point in answer["points"]:  # each solves the equation to rounding, whichever way the fold falls
            assert distance(rec.step(point["L"]), point["L"]) < SEEN
        found = gd.fixed_points(rec)
        if off >= 1e-12:
            assert len(answer["points"]) == int(found.count)
            places = found.log_odds[: int(found.count)]
            condition = np.abs(1 - found.multiplier[: int(found.count)])
            error = distance([point["L"] for point in answer["points"]], places)
            assert np.all(error <= SEEN / condition)
            assert np.all(error <= 1e-6)
        if off >= 1e-4:
            assert np.all(error <= PROMISED)


@pytest.mark.parametrize("strength", [0.01, 1.0, 10.0])
def test_folds(ask, strength):
    """Where Ω' = b: the knots of every search."""
    made = [state for state in states(300, seed=8) if "dr_" not in state["variant"]]
    ours = ask("folds", made, [strength] * len(made))
    for indices, together in batches(made):
        exact = np.stack(together.normalization.folds(np.full(indices.shape, strength)))
        for i, folds in zip(indices, exact.T, strict=True):
            slope = dynamics(made[i]).normalization.gap_slope(np.array(ours[i]))
            for mine, fold, value in zip(ours[i], folds, slope, strict=True):
                if abs(value - strength) < 1e-6 * strength:  # one that exists
                    assert mine == pytest.approx(fold, rel=1e-6)


def test_where_along_p_ref_something_begins(ask):
    """The folds and flips that the sentences name, β = 5 of the paper among them: p_ref = 0.92998 and 0.0012674."""
    made = [state for state in states(300, seed=16, largest=24) if "dr_" not in state["variant"]]
    made = [ask("defaults") | {"beta": 5.0}, *(state for state in made if "mirror" not in state["variant"])]
    compared = 0
    for state, ours in zip(made, ask("thresholds", made), strict=True):
        rec = dynamics(state)
        folds, flips = (
            points(rec.beta, rec.normalization, rec.alpha).log_odds_ref for points in (gd.fold_points, gd.flip_points)
        )
        if np.isfinite(flips[0]):
            assert ours["flips"][0] == pytest.approx(flips[0], rel=1e-6)
        if np.isfinite(folds[0]):
            assert ours["references"][0] == pytest.approx(folds[0], rel=1e-6)
            compared += 1
    assert compared > 40
    first = ask("thresholds", made[:1])[0]
    assert [gd.sigmoid(first["references"][0]), gd.sigmoid(first["flips"][0])] == pytest.approx(
        [0.92998, 0.0012674], rel=1e-4
    )


def test_orbits(ask):
    """Each step of 200 from where the page's own orbit is; and the whole orbit, as long as it has not spread errors."""
    made = states(400, seed=9, largest=32)
    starts = np.array([start(state) for state in made])
    steps = 200
    orbits = np.array([numbers(orbit) for orbit in ask("orbits", made, starts.tolist(), steps)])
    for indices, rec in batches(made):
        ours = orbits[indices].T
        exact = rec.iterate(steps, log_odds0=starts[indices]).log_odds
        assert np.max(distance(ours[1:], rec.step(ours[:-1]))) < SEEN
        slopes = np.abs(rec.multiplier(exact[:-1]))
        spread = np.zeros_like(exact)
        for n in range(steps):  # what an error of one rounding a step has become
            spread[n + 1] = np.minimum(spread[n] * slopes[n] + 1e-15, 1e9)
        tame = (spread < 1e-11) & np.isfinite(exact)
        assert np.all(distance(ours, exact)[tame] < PROMISED)


def test_paths_of_flows(ask):
    made = states(48, seed=10, update="gradient", largest=16)
    starts, times = np.array([start(state) for state in made]), [0.0, 0.1, 1.0, 10.0, 30.0]
    paths = np.array(ask("paths", made, starts.tolist(), times))
    for indices, together in batches(made):
        exact = together.integrate(times, log_odds0=starts[indices]).log_odds
        assert np.max(distance(paths[indices].T, exact)) < PROMISED


def test_where_orbits_go(ask):
    """Kind, period and place. Orbits that need thousands of steps may be called by another name on another machine."""
    made = states(500, seed=11, largest=32) + states(100, seed=12, update="gradient") + oscillating(300, seed=13)
    starts = np.array([start(state) for state in made])
    answers = ask("limits", made)
    kinds = set()
    for indices, together in batches(made):
        found = gd.limit(together, log_odds0=starts[indices])
        for i, kind, period, low, high, steps in zip(
            indices, found.kind, found.period, found.low, found.high, found.steps, strict=True
        ):
            ours, name = answers[i], gd.LimitKind(int(kind)).name.lower()
            kinds.add(name)
            if steps > 5000:
                continue
            assert (ours["kind"], ours["period"]) == (name, int(period)), made[i]
            if name in ("fixed_point", "cycle"):
                assert np.all(distance([ours["low"], ours["high"]], [low, high]) < PROMISED)
    assert {"fixed_point", "one", "cycle"} <= kinds


def oscillating(count: int, seed: int):
    """States of GRPO where most low fixed points overshoot."""
    rng = np.random.default_rng(seed)
    made = states(count, seed, variant="grpo", group_size=math.inf, eps_placement="variance")
    for state in made:
        state |= {"beta": 10 ** rng.uniform(-0.5, 1.6), "p_ref": 10 ** rng.uniform(-6, -2)}
        state["eps"] = float(rng.choice([0.0, 1e-5, 1e-7]))
    return made


def test_regimes(ask):
    """Every attractor, and the regime: the same but where the package, too, calls it undecided."""
    made = states(400, seed=14, largest=24) + oscillating(400, seed=15)
    answers = ask("attractors", made)
    seen = set()
    for indices, together in batches(made):
        labels = gd.regime(together).label
        for i, label in zip(indices, labels, strict=True):
            name = gd.Regime(int(label)).name.lower()
            seen.add(name)
            assert answers[i]["regime"] == name or "degenerate" in (name, answers[i]["regime"]), made[i]
    assert {"one_stable", "bistable", "oscillating", "chaotic", "saturating"} <= seen


PLANES = {
    "paper": {"eps": 1e-5},
    "unsmoothed": {"eps": 0.0},
    "std": {"eps": 1e-4, "eps_placement": "std"},
    "two_kl": {"variant": "two_kl", "alpha": 0.5, "eps": 1e-6},
    "group": {"group_size": 16, "eps": 0.0},
    "dropped": {"group_size": 8, "eps": 0.0, "silent_groups": "drop"},
    "dr_grpo": {"variant": "dr_grpo"},
    "k2": {"update": "gradient", "kl": "k2", "eps": 1e-5},
    "k3": {"update": "gradient", "kl": "k3", "group_size": 8, "eps": 1e-4},
}


@pytest.mark.parametrize("name", PLANES)
def test_the_phase_diagram(ask, name):
    """The colours are the package's regimes: all but those cells that the picture gives up on after 4,000 steps."""
    state = ask("defaults") | PLANES[name]
    width, height = 36, 28
    plane = ask("plane", state, width, height)
    references, betas = np.meshgrid(gd.sigmoid(np.array(plane["anchors"])), np.array(plane["betas"]))
    one = dynamics(state)
    rest = {"kl": one.kl} if isinstance(one, gd.Flow) else {"alpha": one.alpha}
    every = type(one)(betas, references, one.normalization, **rest)
    code = {0: 0, 4: 0, 1: 1, 2: 2, 3: 3, 5: None}
    labels = np.array([code[int(label)] for label in gd.regime(every).label.ravel()], dtype=object)
    ours = np.array(plane["label"])
    known = np.array([label is not None for label in labels])
    assert np.mean(ours[known] != labels[known]) <= 0.002
    single = (ours == 0) & known & (labels == 0)
    found = gd.fixed_points(every)
    held = np.where(found.stable, found.p, -1.0).max(axis=0).ravel()
    highest = np.where(held < 0, 1.0, held)
    endless = np.isin(np.asarray(gd.regime(every).label).ravel(), [4])
    shade = np.where(endless, 1.0, highest)
    # p* is read off a table of 257 places 0.2 apart in log-odds, so it is off by at most 0.2/4
    assert np.max(np.abs(np.array(plane["share"])[single] - shade[single])) < 0.06

"""The tables behind the pictures of the atlas: regimes, borders, exponents and fixed points, held against formulas.

In probabilities everything is elementary: Ω = (p(1−p)+ε)^(−1/2), so dΩ/dL = −½(p(1−p)+ε)^(−3/2)·(1−2p)·p(1−p).
"""

import math
from functools import partial

import numpy as np
import polars as pl
import pytest
from scipy.optimize import brentq

import grpo_dynamics as gd
from grpo_dynamics.atlas import boundaries, line, plane
from grpo_dynamics.theory.orbits.basins import basins
from grpo_dynamics.theory.regimes import Regime, regime
from grpo_dynamics.theory.smallest_group import smallest_group
from grpo_dynamics.theory.trainers import PRESETS, trainer
from paper_figures import atlas_basins, atlas_groups, atlas_kl, atlas_orbits, atlas_phase, atlas_smallest_group

EPS = 1e-5


@pytest.fixture(scope="module")
def phase():
    return atlas_phase.data(size=121)


@pytest.fixture(scope="module")
def orbits():
    return atlas_orbits.data(size=301)


@pytest.fixture(scope="module")
def starts():
    return atlas_basins.data(size=61)


@pytest.fixture(scope="module")
def groups():
    return atlas_groups.data(size=41)


@pytest.fixture(scope="module")
def kl():
    return atlas_kl.data()


def slope(log_odds):
    """dΩ/dL, in probabilities."""
    p = 1 / (1 + np.exp(-log_odds))
    variance = p * (1 - p)
    return -0.5 * (variance + EPS) ** -1.5 * (1 - 2 * p) * variance


def gap(log_odds):
    p = 1 / (1 + np.exp(-log_odds))
    return (p * (1 - p) + EPS) ** -0.5


@pytest.mark.parametrize(("kind", "multiplier"), [("fold", 1.0), ("flip", -1.0), ("cusp", 1.0)])
def test_the_lines_are_fixed_points_with_multiplier_one(phase, kind, multiplier):
    rows = phase.filter(pl.col("log_odds").abs() < 12, kind=kind)  # where 1 − p keeps its digits
    at, beta, reference = (rows[name].to_numpy() for name in ("log_odds", "beta", "log_odds_ref"))
    assert len(at) >= 1
    np.testing.assert_allclose(slope(at) / beta, multiplier, rtol=1e-7)
    np.testing.assert_allclose(reference + gap(at) / beta, at, rtol=1e-9, atol=1e-9)


def test_the_cusp_is_where_its_formula_says(phase):
    """β_c = 1/(3√(3ε)(1+4ε)), cosh²(L_c/2) = 3/2 + 1/8ε."""
    cusp = phase.filter(kind="cusp")
    assert cusp["beta"].item() == pytest.approx(1 / (3 * math.sqrt(3 * EPS) * (1 + 4 * EPS)), rel=1e-12)
    assert math.cosh(cusp["log_odds"].item() / 2) ** 2 == pytest.approx(1.5 + 1 / (8 * EPS), rel=1e-9)


def sides(phase, kind):
    """The L_ref of the line at every β of the grid: (left, right) ends of the region that it encloses."""
    grid = phase.filter(kind="grid")
    betas = grid["beta"].unique().sort().to_numpy()
    found = {}
    for branch in (0, 1):
        curve = phase.filter(kind=kind, branch=branch).sort("beta")
        found[branch] = np.interp(
            np.log(betas), np.log(curve["beta"]), curve["log_odds_ref"], left=np.nan, right=np.nan
        )
    return dict(zip(betas.tolist(), zip(found[1].tolist(), found[0].tolist(), strict=True), strict=True))


def test_the_fold_lines_part_one_attractor_from_two(phase):
    """Between the folds, and right of the flips, the lower and the upper fixed point attract; outside one state."""
    folds, flips = sides(phase, "fold"), sides(phase, "flip")
    margin = 1e-3
    inside, outside = 0, 0
    columns = ("beta", "log_odds_ref", "regime", "attractors")
    for beta, reference, label, count in phase.filter(kind="grid").select(columns).iter_rows():
        (low, high), flip = folds[beta], flips[beta][1]
        if math.isnan(low) or reference < low - margin or reference > high + margin:
            assert label != "BISTABLE"
            assert count == 1 or label == "DEGENERATE"
            outside += 1
        elif low + margin < reference < high - margin and (math.isnan(flip) or reference > flip + margin):
            assert (label, count) == ("BISTABLE", 2)
            inside += 1
    assert inside > 1000
    assert outside > 5000


def test_the_flip_line_parts_rest_from_oscillation(phase):
    """A supercritical flip: right of it the low point rests, just left of it a 2-cycle attracts."""
    ends = sides(phase, "flip")
    grid = phase.filter(kind="grid")
    step = float(np.diff(grid["log_odds_ref"].unique().sort().to_numpy())[0])
    right, left = 0, 0
    for beta, reference, label in grid.select("beta", "log_odds_ref", "regime").iter_rows():
        _, high = ends[beta]
        if math.isnan(high):
            assert label in ("ONE_STABLE", "BISTABLE")
        elif reference > high + 1e-3:
            assert label in ("ONE_STABLE", "BISTABLE")
            right += 1
        elif 0.6 < beta < 40 and high - 1.2 * step < reference < high - 0.05:
            assert label == "OSCILLATING"
            left += 1
    assert right > 5000
    assert left > 30


@pytest.mark.parametrize(
    ("beta", "p_ref", "label"),
    [
        (5.0, 1e-3, "OSCILLATING"),  # the 2-cycle {0.0023380, 0.0587158}
        (5.0, 1e-4, "CHAOTIC"),  # Lyapunov exponent 0.35
        (10.0, 1e-5, "OSCILLATING"),  # the 3-cycle
        (1.0, 0.2, "BISTABLE"),  # 0.6813 and ≈ 1
        (0.5, 0.5, "ONE_STABLE"),
        (0.04, 0.2, "ONE_STABLE"),  # DeepSeekMath's β
        (100.0, 1e-6, "ONE_STABLE"),  # beyond the cusp
    ],
)
def test_known_questions(beta, p_ref, label):
    table = plane(gd.Whitened(EPS), 1.0, np.array([beta]), np.array([gd.logit(p_ref)]))
    assert table["regime"].item() == label
    assert table["p_ref"].item() == pytest.approx(p_ref)


def test_every_marked_beta_is_a_presets_default():
    betas = [beta for beta, _ in atlas_phase.SETTINGS.values()]
    assert trainer("trl").beta == 0 in betas
    assert trainer("simple_GRPO").beta == 0.04 in betas
    assert trainer("oat").beta == 0.1 in betas
    assert trainer("nano-aha-moment").beta == 0.001 in betas
    assert trainer("open-instruct").beta == 0.005 in betas
    verl, openrlhf = (PRESETS[name].options(PRESETS[name].versions[-1], {}) for name in ("verl", "openrlhf"))
    assert verl["actor_rollout_ref.actor.kl_loss_coef"] == 0.001
    assert 0.01 in openrlhf.values()
    assert 0.01 in betas


def test_at_the_trainers_beta_every_question_is_solved(phase):
    """The map moves L by Ω/β ≥ 2/β at least: from L_ref ≥ logit 1e-7 = −16.1 up by 20 at β = 0.1 and more below."""
    small = phase.filter(pl.col("beta") <= 0.1, kind="grid")
    assert set(small["regime"]) == {"ONE_STABLE"}
    assert small["highest"].min() > gd.logit(1e-7) + 2 / 0.1 / math.sqrt(1 + 4 * EPS)


def test_the_plane_names_where_the_orbit_from_p_ref_ends():
    table = plane(gd.Whitened(EPS), 1.0, np.array([1.0, 5.0]), gd.logit(np.array([1e-3, 0.2])))
    rows = {(row["beta"], round(row["p_ref"], 6)): row for row in table.to_dicts()}
    assert rows[1.0, 0.2]["end"] == "FIXED_POINT"
    assert gd.sigmoid(rows[1.0, 0.2]["end_low"]) == pytest.approx(0.6813, abs=5e-5)
    assert rows[5.0, 0.001]["end"] == "CYCLE"
    cycle = [gd.sigmoid(rows[5.0, 0.001][name]) for name in ("end_low", "end_high")]
    assert cycle == pytest.approx([0.0023380, 0.0587158], abs=5e-8)
    told: list[tuple[int, int, str]] = []
    plane(gd.Whitened(EPS), 0.0, np.array([1.0]), np.array([0.0]), tell=lambda *step: told.append(step))
    assert told == [(0, 1, "regimes"), (1, 1, "regimes")]


def test_without_a_pull_everything_goes_to_one_and_there_are_no_lines():
    table = plane(gd.Whitened(EPS), 0.0, np.array([0.1, 10.0]), np.array([-3.0, 0.0, 3.0]))
    assert set(table["regime"]) == {"SATURATING"}
    assert table["highest"].to_list() == [math.inf] * 6
    assert set(table["end"]) == {"ONE"}
    assert boundaries(gd.Whitened(EPS), 0.0, 0.1, 10.0).is_empty()
    assert boundaries(gd.MeanOnly(), 1.0, 0.1, 10.0).is_empty()


def test_the_exponent_is_positive_where_nothing_periodic_attracts_and_only_there(orbits):
    rate = orbits.filter(kind="exponent")
    periodic = rate.filter(pl.col("period") > 0)
    assert periodic["exponent"].max() < 0
    wild = rate.filter(pl.col("period") == 0)
    clear = wild.filter(pl.col("exponent").abs() > 5 * pl.col("standard_error") + 0.01)
    assert clear["exponent"].min() > 0
    assert len(clear) > 0.9 * len(wild) > 20
    assert clear["p_ref"].max() < 2.2e-4  # none before the 2-cycle has doubled
    assert clear["p_ref"].min() > 6e-5  # none after the escape
    counts = orbits.filter(kind="visited").group_by("log_odds_ref").len().rename({"len": "points"})
    same = periodic.join(counts, on="log_odds_ref")
    settled = same.filter(pl.col("points") < 160)  # the rest had not come round yet when the samples were taken
    assert (settled["points"] == settled["period"]).all()
    assert len(settled) > 0.97 * len(same)


def test_the_golden_questions_of_the_route_to_chaos():
    table = line(gd.grpo(5.0, np.array([1e-4, 1e-3]), EPS))
    exponent = table.filter(kind="exponent").sort("p_ref")
    assert exponent["exponent"][0] == pytest.approx(0.35, abs=0.03)
    cycle = table.filter(pl.col("p_ref") > 5e-4, kind="branch", period=2)
    assert cycle["p"].to_list() == pytest.approx([0.0023380, 0.0587158], abs=5e-8)
    assert cycle["stable"].all()
    product = np.prod(slope(cycle["log_odds"].to_numpy()) / 5.0)
    assert exponent["exponent"][1] == pytest.approx(math.log(abs(product)) / 2, rel=1e-6)


def test_stable_branches_end_at_the_flip(orbits):
    """ε → 0: y_ref = −asinh β − √(1+β²)/β, p_ref = 0.00127; ε = 1e-5 moves it by less than a part in a thousand."""
    flip = gd.sigmoid(2 * (-math.asinh(5) - math.sqrt(26) / 5))
    lowest = orbits.filter(kind="branch", period=1, slot=0)
    assert (lowest["stable"] == (lowest["p_ref"] > flip)).all()
    two = orbits.filter(kind="branch", period=2)
    assert two["p_ref"].max() < flip < two["p_ref"].max() * 1.02
    middle, high = (orbits.filter(kind="branch", period=1, slot=slot) for slot in (1, 2))
    assert not middle["stable"].any()
    assert high["stable"].all()


def test_the_borders_of_the_basins_are_the_unstable_point_and_its_mirror_image(starts):
    """Ω is even: L and −L take the same step. Beyond the unstable point the map only rises."""
    for beta in atlas_basins.BETAS:
        part = starts.filter(beta=beta)
        middle = part.filter(kind="middle").select("log_odds_ref", pl.col("log_odds").alias("border"))
        inside = part.filter(kind="start").join(middle, on="log_odds_ref", how="left")
        outside = inside.filter(pl.col("border").is_null() | (pl.col("log_odds_0").abs() > pl.col("border")))
        assert set(outside["fate"]) == {"high"}
        rest = part.filter(kind="low", fate="stable")["log_odds_ref"]
        calm = inside.filter(
            pl.col("log_odds_0").abs() < pl.col("border"), pl.col("log_odds_ref").is_in(rest.to_list())
        )
        assert set(calm["fate"]) == {"low"}
        assert len(calm) > 200


def test_the_fates_are_those_of_the_exact_basins(starts):
    table = starts.filter(beta=5.0)
    references = table["log_odds_ref"].unique().sort().to_list()
    for reference in references[10:60:12]:
        exact = basins(gd.grpo(5.0, gd.sigmoid(reference), EPS))
        part = table.filter(pl.col("log_odds_ref") == reference, kind="start")
        goes = exact.of(part["log_odds_0"].to_numpy())
        up = exact.attractor_low[goes] > 20
        assert np.array_equal(up, (part["fate"] == "high").to_numpy())


def test_small_groups_are_calm(groups):
    """dΩ/dL bounds every multiplier: above the steepest slope there is one fixed point, and every orbit reaches it."""
    cusps = []
    for size in atlas_groups.SIZES:
        part = groups.filter(group_size=size)
        cusp = part.filter(kind="cusp")["beta"].to_list()
        cells = part.filter(kind="grid")
        if size == 2:
            assert cusp == []
            assert set(cells["regime"]) == {"ONE_STABLE"}
            continue
        steepest = atlas_groups.normalization(size).steepest()[1]
        assert cusp == [pytest.approx(steepest, rel=1e-9)]
        assert set(cells.filter(pl.col("beta") > steepest)["regime"]) <= {"ONE_STABLE"}
        cusps.append(steepest)
        if size >= 8 or size == 0:
            assert {"BISTABLE", "OSCILLATING"} <= set(cells["regime"])
    assert cusps == sorted(cusps)
    assert cusps[1] == pytest.approx(0.2885, abs=5e-5)


def test_the_labels_of_groups_are_those_of_regime(groups):
    """The picture follows the orbit of p = ½ only; the package's regimes follow more of them."""
    cells = groups.filter(kind="grid", group_size=8)
    unusual = cells.filter(pl.col("regime") != "ONE_STABLE")
    some = pl.concat([unusual, cells.filter(regime="ONE_STABLE").sample(60, seed=1)])
    found = regime(gd.Recursion(some["beta"].to_numpy(), some["p_ref"].to_numpy(), gd.FiniteGroup(8)))
    names = [Regime(int(label)).name for label in found.label]
    assert len(unusual) > 15
    assert names == some["regime"].to_list()


def test_slow_orbits_of_groups_have_a_regime_too():
    """2,000 steps do not settle them: the multiplier of their cycles is near ±1."""
    recursion = gd.Recursion(
        np.array([0.3407339276841777, 0.5]), np.array([8.38581055398629e-05, 0.2]), gd.FiniteGroup(16)
    )
    assert gd.limit(recursion, p0=0.5, max_steps=2000).kind.tolist() == [
        gd.LimitKind.UNDECIDED,
        gd.LimitKind.FIXED_POINT,
    ]
    assert atlas_groups.labels(recursion, gd.fixed_points(recursion)) == ["OSCILLATING", "ONE_STABLE"]


def test_the_smallest_group_is_the_first_with_the_behaviour():
    """Counted again, group by group, from the fixed points and their multipliers."""
    table = atlas_smallest_group.data(size=31)
    system = {"beta": table["beta"].to_numpy(), "p_ref": table["p_ref"].to_numpy()}
    three, overshoots = np.zeros(table.height, int), np.zeros(table.height, int)
    for size in range(2, atlas_smallest_group.LARGEST + 1):
        points = gd.fixed_points(gd.Recursion(**system, normalization=gd.FiniteGroup(size)))
        three[(three == 0) & (points.count == 3)] = size
        overshoots[(overshoots == 0) & (points.multiplier[0] < -1)] = size
    assert table["three_points"].fill_null(0).to_list() == three.tolist()
    assert table["overshoots"].fill_null(0).to_list() == overshoots.tolist()
    assert (three > 0).sum() > 60
    assert (overshoots > 0).sum() > 100


def test_the_smallest_group_that_overshoots_oscillates():
    """A flip is supercritical: with the smallest such group, near its flip, a cycle attracts."""
    table = atlas_smallest_group.data(size=31).filter(pl.col("overshoots") < 9).sample(6, seed=3)
    found = smallest_group(table["beta"].to_numpy(), table["p_ref"].to_numpy(), "oscillation", largest=10)
    assert found.group_size.tolist() == table["overshoots"].to_list()


def binomial_gap(p, size=8):
    """Ω_8 by its definition: what an advantage gains with one success more among the other seven."""
    total = 0.0
    for s in range(size):
        weight = math.comb(size - 1, s) * p**s * (1 - p) ** (size - 1 - s)
        for k, value in ((s + 1, lambda k: 1 - k / size), (s, lambda k: k / size)):
            if 0 < k < size:
                total += weight * value(k) / math.sqrt(k / size * (1 - k / size))
    return total


def unbalanced(p, beta, reference, pull):
    return beta * pull(p, reference) - binomial_gap(p)


def test_the_kl_curves_solve_their_equations(kl):
    """exact: β(L − L_ref) = Ω_8; k3: β(p − p_ref) = p(1−p)Ω_8."""
    for name, pull in (
        ("exact", lambda p, r: gd.logit(p) - gd.logit(r)),
        ("k3", lambda p, r: (p - r) / (p * (1 - p))),
    ):
        rows = kl.filter(kl=name).filter(pl.col("log_odds") < 9).gather_every(37)
        assert len(rows) > 10
        for beta, reference, found in rows.select("beta", "p_ref", "p").iter_rows():
            balance = partial(unbalanced, beta=beta, reference=reference, pull=pull)
            root = brentq(balance, reference, 1 - 1e-9, xtol=1e-14)
            assert found == pytest.approx(root, rel=1e-7)


def test_the_kl_curves_pass_through_the_simulated_numbers(kl):
    """A sampled tabular policy with groups of 8 at β = 1, p_ref = 0.1 came to rest at 0.4196 and 0.5596."""
    at_one = kl.filter((pl.col("beta") - 1).abs() < 1e-9, against="beta").filter(pl.col("branch") == 0)
    values = dict(at_one.select("kl", "p").iter_rows())
    assert values["exact"] == pytest.approx(0.41953, abs=5e-6)
    assert values["k3"] == pytest.approx(0.55959, abs=5e-6)
    exact = values["exact minimisation"]  # the recursion: L = L_ref + Ω
    assert gd.logit(exact) == pytest.approx(gd.logit(0.1) + (exact * (1 - exact) + EPS) ** -0.5, rel=1e-12)
    assert set(kl.filter(kl="none")["log_odds"]) == {math.inf}


def test_the_legend_of_an_orbit_diagram_names_what_is_there():
    """A mirror step has no fixed point: p = 1 attracts, drawn as a line."""
    from matplotlib.figure import Figure

    from grpo_dynamics.atlas_plots import draw_line, line_handles

    table = line(gd.mirror_grpo(np.geomspace(1.0, 10.0, 5), 0.1))
    assert [handle.get_label() for handle in line_handles(table)] == ["visited in the long run, from $p_0=0.5$"]
    top, bottom = Figure().subplots(2, 1)
    draw_line(top, bottom, table, "beta", -2.0, 10.0)
    heights = [np.asarray(drawn.get_ydata(), dtype=float) for drawn in top.lines if drawn.get_linestyle() == "-"]
    assert any(len(height) == 5 and np.all(height > 10.0) for height in heights)
    labels = [handle.get_label() for handle in line_handles(line(gd.grpo(np.array([3.0, 9.0]), 1e-3)))]
    assert {"fixed point, stable", "fixed point, unstable", "2-cycle, stable"} <= set(labels)
    assert "2-cycle, unstable" not in labels

import mpmath
import numpy as np
import polars as pl
import pytest
import sympy as sp

from grpo_dynamics import fixed_points, grpo, sigmoid
from paper_figures import (
    amplification_region,
    cobweb,
    figure1,
    figure2,
    figure3,
    figure4,
    figure5,
    fixed_point_map,
    goldens,
    overview,
    table1,
)


def test_figure1_is_the_odds_and_their_inverse() -> None:
    table = figure1.data()
    odds = np.sqrt(table["p"] / (1 - table["p"]))
    np.testing.assert_allclose(table["failure_weight"], odds, rtol=1e-13)
    np.testing.assert_allclose(table["success_weight"], 1 / odds, rtol=1e-13)


def test_figure2_against_the_formula_of_theorem_2() -> None:
    curve = figure2.data().filter(kind="curve")
    assert curve.select("eps", "beta", "p_ref").unique().height == 24
    p, p_ref = curve["p"].to_numpy(), curve["p_ref"].to_numpy()
    gap = 1 / np.sqrt(p * (1 - p) + curve["eps"].to_numpy())
    expected = 1 / (1 + (1 - p_ref) / p_ref * np.exp(-gap / curve["beta"].to_numpy()))
    np.testing.assert_allclose(curve["h"], expected, rtol=1e-12, atol=1e-14)


def test_figure3_is_counts_of_50_samples() -> None:
    table = figure3.data()
    assert table.height == 7 * 17
    assert table["iteration"].unique().sort().to_list() == list(range(150, 2551, 150))
    counts = table["success_rate"] * 50
    np.testing.assert_allclose(counts, counts.round(), atol=1e-9)
    assert (table["low"] <= table["success_rate"] + 1e-12).all()
    assert (table["high"] >= table["success_rate"] - 1e-12).all()
    last = dict(table.filter(iteration=2550).select("question", "success_rate").iter_rows())
    rows = goldens.paper_values().filter(kind="read_off")
    assert {int(name.removeprefix("fig3-")): paper for name, paper in rows.select("id", "paper").iter_rows()} == last


def test_figure4_is_a_v_with_the_closed_form() -> None:
    curve = figure4.data().filter(kind="curve")
    p, eps = curve["p"].to_numpy(), curve["eps"].to_numpy()
    expected = p * (1 - p) * abs(2 * p - 1) / (2 * (p * (1 - p) + eps) ** 1.5)
    np.testing.assert_allclose(curve["bound"], expected, rtol=1e-12, atol=1e-14)
    ends = curve.filter(p=0.01).select("eps", "bound").rows()
    assert [(eps, round(bound, 3)) for eps, bound in ends] == [(1e-4, 4.851), (1e-5, 4.917)]


def test_figure5_against_60_digits_in_p_itself() -> None:
    table = figure5.data()
    for beta, p_ref in ((1.0, 0.2), (5.0, 0.0001), (5.0, 0.5)):
        part = table.filter(pl.col("beta") == beta, pl.col("p_ref") == p_ref)
        ours = part.filter(kind="orbit").sort("n")["p"].to_list()
        with mpmath.workdps(60):
            b, r, p = (mpmath.mpf(repr(x)) for x in (beta, p_ref, 0.1))
            for value in ours:
                # the chaotic orbit loses about half a bit a step: after 50 steps about 7 digits are left
                assert abs(value - p) < 1e-6
                p = 1 / (1 + (1 - r) / r * mpmath.exp(-1 / (b * mpmath.sqrt(p * (1 - p) + mpmath.mpf("1e-5")))))
        stable = part.filter(kind="fixed point").select("p", "stable")
        assert stable.height == int(fixed_points(grpo(beta, p_ref)).count)


@pytest.mark.parametrize("variant", table1.VARIANTS, ids=lambda v: v.name)
@pytest.mark.parametrize("alpha", [0.3, 0.5, 1.0])
@pytest.mark.parametrize(("beta", "p_ref"), [(1.0, 0.2), (3.0, 0.03), (0.5, 0.7)])
def test_symbolic_entries_of_table1_equal_the_numeric_package(
    variant: table1.Variant, alpha: float, beta: float, p_ref: float
) -> None:
    options = {"beta": beta, "p_ref": p_ref, "eps": 1e-5, "alpha": alpha}
    recursion = variant.recursion(**options)
    reference = float(np.log(p_ref / (1 - p_ref)))
    numbers = {table1.beta: beta, table1.eps: 1e-5, table1.alpha: alpha, table1.L_ref: reference}

    def number(expression: sp.Expr, p: float = 0.5) -> float:
        gap = variant.gap.subs({**numbers, table1.v: p * (1 - p)})
        log_odds = float(np.log(p / (1 - p)))
        state = {table1.p: p, table1.v: p * (1 - p), table1.L: log_odds, table1.gap: gap, table1.gap_at_star: gap}
        return float(expression.subs({**state, **numbers}))

    for p in (0.001, 0.2, 0.5, 0.9, 0.999):
        log_odds = np.log(p / (1 - p))
        success, failure = variant.advantages
        assert number(success, p) == pytest.approx(float(recursion.normalization.positive(log_odds)), rel=1e-11)
        assert -number(failure, p) == pytest.approx(float(recursion.normalization.negative(log_odds)), rel=1e-11)
        assert number(variant.step, p) == pytest.approx(float(recursion.step(log_odds)), rel=1e-11, abs=1e-13)
        multiplier = float(recursion.multiplier(log_odds))
        assert number(variant.multiplier, p) == pytest.approx(multiplier, rel=1e-10, abs=1e-12)

    fixed = fixed_points(recursion)
    assert (variant.fixed_point is None) == (int(fixed.count) == 0)
    for i in range(int(fixed.count)):
        p, log_odds = float(fixed.p[i]), float(fixed.log_odds[i])
        if abs(log_odds) < 15:  # beyond, p(1−p) has lost its digits and only the log-odds carry on
            assert number(variant.fixed_point, p) == pytest.approx(log_odds, rel=1e-8, abs=1e-9)
            assert number(variant.multiplier, p) == pytest.approx(float(fixed.multiplier[i]), rel=1e-6, abs=1e-9)
            if variant.smallest_stable_beta is not None:
                flip, fold = variant.smallest_stable_beta
                slope = abs(float(recursion.normalization.gap_slope(log_odds)))
                bound = float((fold if log_odds > 0 else flip).subs({table1.rate: slope, table1.alpha: alpha}))
                assert bool(fixed.stable[i]) == (beta > bound)
    if variant.after_n is not None:
        value = float(variant.after_n.subs({**numbers, table1.n: 7}))
        assert value == pytest.approx(float(recursion.iterate(7).log_odds[-1]), rel=1e-12)


def test_table1_in_latex_and_markdown_is_balanced() -> None:
    table = table1.data()
    tex, text = table1.latex(table), table1.markdown(table)
    assert tex.count("{") == tex.count("}")
    assert tex.count("$") % 2 == text.count("$") % 2 == 0
    assert tex.count(r"\left") == tex.count(r"\right")
    body = tex[tex.index(r"\midrule") : tex.index(r"\bottomrule")]
    columns = table.width - 1  # fixed_points stays in the data
    assert all(line.count("&") == columns - 1 for line in body.splitlines() if line.endswith("[4pt]"))
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 8
    assert {line.count("|") for line in rows} == {columns + 1}


def test_map_agrees_with_single_orbits_and_counts_change_at_the_folds() -> None:
    table = fixed_point_map.data(size=41)
    grid = table.filter(kind="grid")
    for row in grid.sample(40, seed=1).iter_rows(named=True):
        orbit = grpo(row["beta"], row["p_ref"]).iterate(4000).log_odds
        rests = abs(orbit[-1] - orbit[-2]) < 1e-6 * (1 + abs(orbit[-1]))
        assert rests != row["oscillates"]
        if rests:
            assert row["p_end"] == pytest.approx(float(sigmoid(orbit[-1])), abs=1e-6)
    for fold in table.filter(kind="fold").sample(40, seed=1).iter_rows(named=True):
        if fold["line"] == 0:  # the lower fold: three fixed points to its left, one to its right
            beside = fold["log_odds_ref"] + np.array([-1e-3, 1e-3])
            left, right = fixed_points(grpo(fold["beta"], sigmoid(beside))).count
            assert (left, right) == (3, 1)


def test_amplification_region_is_where_the_condition_fails() -> None:
    from grpo_dynamics.theory.amplification import amplifies_v1

    table = amplification_region.data()
    assert round(table["p_ref"][0], 4) == 0.9564
    inner = table[5:]
    p, low, high = (inner[name].to_numpy() for name in ("p_ref", "fails_from", "fails_to"))
    assert not amplifies_v1(np.sqrt(low * high), p).any()
    assert amplifies_v1(low * (1 - 1e-6), p).all()
    assert amplifies_v1(high * (1 + 1e-6), p).all()
    assert amplifies_v1(np.geomspace(1e-3, 1e3, 500)[:, None], np.linspace(0.01, 0.956, 200)).all()


def test_the_words_in_the_overview_are_true() -> None:
    fates = {fate: (beta, p_ref, start) for _, beta, p_ref, start, _, fate in overview.PATHS}
    ends = {fate: grpo(beta, p_ref).iterate(300, p0=start).p for fate, (beta, p_ref, start) in fates.items()}
    assert ends["goes to 1"][-1] > 0.9999
    assert round(ends["settles at 0.68,"][-1], 2) == 0.68
    assert ends["… or goes to 1 from above 0.93"][-1] > 0.9999
    assert round(fixed_points(grpo(1.0, 0.2)).p[1], 2) == 0.93  # the unstable fixed point divides the two
    assert np.ptp(ends["oscillates for ever"][-10:]) > 0.3


def test_cobwebs_have_the_fates_they_are_named_after() -> None:
    table = cobweb.data().filter(kind="orbit")

    def end(fate: str, start: float) -> np.ndarray:
        return table.filter(pl.col("fate") == fate, pl.col("start") == start).sort("n")["log_odds"].to_numpy()[-40:]

    assert np.ptp(end("converges", 0.03)) < 1e-9
    assert sigmoid(end("bistable", 0.1)[-1]) == pytest.approx(0.6813, abs=5e-5)
    assert end("bistable", 0.96)[-1] > 30
    cycle = sigmoid(end("2-cycle", 0.1))
    assert sorted(cycle[-2:]) == pytest.approx([0.0023380, 0.0587158], abs=5e-6)
    chaos = end("chaos", 0.1)
    assert np.ptp(chaos) > 5
    assert min(abs(chaos[-1] - chaos[-1 - k]) for k in range(1, 20)) > 1e-4

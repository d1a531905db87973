"""Populations: against orbits question by question, exact averages, and the same result however the work is cut."""

import dataclasses
import json

import mpmath as mp
import numpy as np
import pytest
from scipy import stats

import grpo_dynamics as gd
from grpo_dynamics.simulation import population
from grpo_dynamics.simulation.flow_table import tabulate
from grpo_dynamics.simulation.population import evolve, mean_field_shifts
from grpo_dynamics.simulation.population_fates import long_run
from grpo_dynamics.simulation.population_sums import Thresholds, pass_at_k
from grpo_dynamics.simulation.question_sources import BetaQuestions, TableQuestions

P_REF = np.array([1e-6, 1e-4, 0.003, 0.02, 0.2, 0.55, 0.9, 0.999])
WEIGHTS = np.array([1.0, 4.0, 2.0, 2.0, 3.0, 1.0, 1.0, 2.0])
SHARE = WEIGHTS / WEIGHTS.sum()

DYNAMICS = [
    gd.Recursion(2.0, 0.5, gd.Whitened(1e-4), alpha=0.7),
    gd.dr_grpo(0.8, 0.5),
    gd.Recursion(0.5, 0.5, gd.FiniteGroup(8)),
    gd.Flow(1.0, 0.5, kl="k3"),
    gd.BatchRecursion(1.0, [0.5]),
    gd.BatchRecursion(1.0, [0.5], normalization=gd.BatchStd("centred", group_size=8), kl="k3"),
]


def orbits(dynamics, p_ref, weights, steps):
    """Success probabilities, shape (steps+1, questions), by the theory's own way."""
    if isinstance(dynamics, gd.Flow):
        path = gd.Flow(dynamics.beta, p_ref, dynamics.normalization, dynamics.kl)
        return path.integrate(np.arange(steps + 1.0)).p
    if isinstance(dynamics, gd.BatchRecursion):
        return gd.BatchRecursion(dynamics.beta, p_ref, weights, dynamics.normalization, dynamics.kl).iterate(steps).p
    return gd.Recursion(dynamics.beta, p_ref, dynamics.normalization, dynamics.alpha).iterate(steps).p


@pytest.mark.parametrize("dynamics", DYNAMICS, ids=lambda dynamics: type(dynamics).__name__)
def test_a_table_is_the_weighted_sum_of_its_orbits(dynamics):
    path = evolve(dynamics, TableQuestions(P_REF, WEIGHTS), steps=23, pass_at=(1, 3, 8, 100))
    p = orbits(dynamics, P_REF, WEIGHTS, 23)
    assert path.questions == 8
    np.testing.assert_allclose(path.accuracy, p @ SHARE, rtol=1e-13)
    np.testing.assert_allclose(path.spread, np.sqrt(((p - (p @ SHARE)[:, None]) ** 2) @ SHARE), rtol=1e-10)
    np.testing.assert_allclose(path.solved, (p > 0.99) @ SHARE, rtol=1e-13)
    np.testing.assert_allclose(path.stuck, (p < 0.01) @ SHARE, rtol=1e-13)
    for k, values in path.pass_at.items():
        np.testing.assert_allclose(values, (1 - (1 - p) ** k) @ SHARE, rtol=1e-9)
    moves = np.diff(p, axis=0)
    back = (moves[1:] * moves[:-1] < 0) & (np.minimum(abs(moves[1:]), abs(moves[:-1])) > 0.01)
    np.testing.assert_allclose(path.oscillating[2:], back @ SHARE, rtol=1e-13)
    assert not path.oscillating[:2].any()
    assert not path.accuracy_error.any()


@pytest.mark.parametrize(
    "flow",
    [
        gd.Flow(1.0, 0.5),  # a separatrix ends near L_ref = −1
        gd.Flow(0.2, 0.5, gd.FiniteGroup(8), kl="k3"),
        gd.Flow(0.0, 0.5, kl="none"),
        gd.Flow(0.3, 0.5, gd.Whitened(0.0)),
    ],
    ids=lambda flow: f"{flow.kl}, {flow.beta}",
)
def test_a_tabulated_flow_is_the_flow(flow):
    """Within the grid, in its finer parts, and beyond it; worst where d L(t)/d L_ref is largest."""
    times = np.array([1.0, 10.0, 30.0])
    table = tabulate(flow, times)
    steepest = np.abs(np.diff(table.way[2], n=6)).argmax() * table.distance + table.low
    state = np.concatenate([np.linspace(-60, 30, 800), steepest + np.linspace(-0.3, 0.3, 800)])
    p_ref = gd.sigmoid(state)
    exact = dataclasses.replace(flow, p_ref=p_ref).integrate(times).log_odds
    np.testing.assert_allclose(list(table.states(p_ref)), exact, rtol=1e-10, atol=3e-9)


def test_few_and_many_questions_follow_the_same_flow(monkeypatch):
    flow, source = gd.Flow(0.5, 0.5, gd.FiniteGroup(8), kl="k3"), BetaQuestions(0.5, 1.5)
    few = evolve(flow, source, steps=3, count=3_000, time_step=4.0)
    monkeypatch.setattr(population, "MANY", 1)
    many = evolve(flow, source, steps=3, count=3_000, time_step=4.0)
    np.testing.assert_allclose(many.accuracy, few.accuracy, rtol=1e-9)
    np.testing.assert_array_equal(many.solved, few.solved)
    assert few.accuracy[3] > few.accuracy[0] + 0.2


def test_a_two_cycle_oscillates_for_ever_and_a_mirror_variant_never():
    """theory.md: β = 5, p_ref = 1e-3 at ε = 1e-5 ends in the 2-cycle {0.0023380, 0.0587158}."""
    table = TableQuestions([1e-3])
    assert evolve(gd.grpo(5.0, 0.5), table, steps=400).oscillating[-1] == 1
    assert not evolve(gd.mirror_grpo(5.0, 0.5), table, steps=400).oscillating.any()  # L only rises
    wide = Thresholds(oscillating=0.06)  # the cycle's moves are 0.0564
    assert evolve(gd.grpo(5.0, 0.5), table, steps=400, thresholds=wide).oscillating[-1] == 0
    assert long_run(gd.grpo(5.0, 0.5), table)["oscillating"] == 1


@pytest.mark.parametrize(("a", "b"), [(0.5, 1.5), (3.0, 5.0), (0.02, 0.1), (300.0, 700.0), (2e4, 3.0)])
def test_averages_over_a_beta_distribution_are_exact(a, b):
    """Moments a(a+1)…/(a+b)…, and E[(1−p)^k] = B(a, b+k)/B(a, b)."""
    p, weights = BetaQuestions(a, b).nodes()
    for k in (1, 2, 3, 10):
        assert weights @ p**k == pytest.approx(float(mp.beta(a + k, b) / mp.beta(a, b)), rel=2e-13)
    tries = weights @ pass_at_k(gd.logit(p), 16)
    assert tries == pytest.approx(float(1 - mp.beta(a, b + 16) / mp.beta(a, b)), rel=2e-13)


@pytest.mark.parametrize(("a", "b"), [(0.05, 0.4), (0.5, 1.5), (3.0, 5.0)])
def test_draws_and_quantiles_follow_the_beta_distribution(a, b):
    drawn = BetaQuestions(a, b).draw(np.random.default_rng(1), 40_000)
    assert ((drawn > 0) & (drawn < 1)).all()
    assert stats.kstest(drawn, stats.beta(a, b).cdf).pvalue > 1e-3
    i = np.arange(7, 31)
    np.testing.assert_allclose(
        stats.beta(a, b).cdf(BetaQuestions(a, b).quantiles(7, 31, 50)), (i + 0.5) / 50, rtol=1e-9
    )


def test_small_shapes_keep_the_hopeless_questions_apart():
    """Beta(a, b) with a ≪ 1: P(p < x) ≈ x^a, so log p reaches −100/a without all of it being one number."""
    drawn = BetaQuestions(0.05, 1.0).draw(np.random.default_rng(0), 20_000)
    assert np.mean(np.log(drawn) < -60) == pytest.approx(np.exp(-60 * 0.05), abs=0.006)
    assert len(np.unique(drawn)) > 19_990


def test_dr_grpo_has_closed_forms_over_a_beta_distribution():
    """One step adds 1/β to L: accuracy is ∫ σ(L + 1/β), by mpmath; the random sample is within 4 standard errors."""
    a, b, beta = 0.5, 1.5, 0.7
    odds = mp.e ** (1 / mp.mpf(beta))
    exact = mp.quad(lambda x: odds * x / (1 - x + odds * x) * x ** (a - 1) * (1 - x) ** (b - 1), [0, 0.01, 0.5, 1])
    exact = float(exact / mp.beta(a, b))
    p, weights = BetaQuestions(a, b).nodes()
    assert weights @ gd.sigmoid(gd.logit(p) + 1 / beta) == pytest.approx(exact, abs=1e-12)
    drawn = evolve(gd.dr_grpo(beta, 0.5), BetaQuestions(a, b), steps=3, count=200_000)
    assert abs(drawn.accuracy[1] - exact) < 4 * drawn.accuracy_error[1]
    assert abs(drawn.accuracy[1] - exact) > 1e-9  # it is a sample
    assert drawn.accuracy[3] == drawn.accuracy[1]
    quantiles = evolve(gd.dr_grpo(beta, 0.5), BetaQuestions(a, b), steps=1, count=50_000, sampling="quantiles")
    assert quantiles.accuracy[1] == pytest.approx(exact, abs=1e-6)


def test_the_mean_field_is_that_of_the_distribution():
    """Its shifts are those of a batch of very many quantiles; of a table those of the table as one batch."""
    source = BetaQuestions(0.7, 2.0)
    batch = gd.BatchRecursion(0.8, source.quantiles(0, 100_000, 100_000))
    shifts = mean_field_shifts(batch, source, 12)
    inside = batch.p_ref[::999]
    np.testing.assert_allclose(
        batch.iterate(12).log_odds[1:, ::999], gd.logit(inside) + shifts[:, None], rtol=1e-5, atol=1e-5
    )
    own = gd.BatchRecursion(0.8, P_REF, WEIGHTS)
    shifts = mean_field_shifts(own, TableQuestions(P_REF, WEIGHTS), 12)
    expected = own.iterate(12).log_odds[1:, 4] - gd.logit(P_REF[4])
    np.testing.assert_allclose(shifts, expected, rtol=1e-12)


def test_rates_of_0_and_1_stay_there_and_still_belong_to_the_batch():
    rates = np.array([0.0, 0.3, 1.0, 0.0])
    plain = evolve(gd.grpo(0.5, 0.5), TableQuestions(rates), steps=9)
    inside = gd.grpo(0.5, 0.3).iterate(9).p
    np.testing.assert_allclose(plain.accuracy, (inside + 1) / 4, rtol=1e-14)
    assert (plain.stuck == 0.5).all()
    batch = evolve(gd.BatchRecursion(1.0, [0.5]), TableQuestions(rates), steps=1)
    shift = 1 / (np.sqrt(rates.mean() * (1 - rates.mean())) + 1e-4)  # Ω of the whole batch, TRL's default
    assert batch.accuracy[1] == pytest.approx((1 + gd.sigmoid(gd.logit(0.3) + shift)) / 4, rel=1e-13)
    shares = long_run(gd.grpo(5.0, 0.5, eps=0.25), TableQuestions(rates))
    assert (shares["stuck"], shares["solved"], shares["between"]) == (0.5, 0.25, 0.25)


@pytest.mark.parametrize("sampling", ["random", "quantiles"])
def test_the_result_does_not_depend_on_workers(monkeypatch, sampling):
    monkeypatch.setattr(population, "CHUNK", 3_000)
    options = {"steps": 6, "count": 20_000, "sampling": sampling, "seed": 3}
    one = evolve(gd.grpo(1.0, 0.5), BetaQuestions(0.5, 1.5), **options)
    for workers in (2, 5):
        many = evolve(gd.grpo(1.0, 0.5), BetaQuestions(0.5, 1.5), **options, workers=workers)
        assert one.table().equals(many.table())
    if sampling == "random":
        other = evolve(gd.grpo(1.0, 0.5), BetaQuestions(0.5, 1.5), **(options | {"seed": 4}))
        assert other.accuracy[0] != one.accuracy[0]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_run_goes_on_as_if_nothing_had_been(monkeypatch, tmp_path, workers):
    monkeypatch.setattr(population, "CHUNK", 2_000)
    source = BetaQuestions(0.5, 1.5)

    def run(**more):
        return evolve(gd.grpo(5.0, 0.5), source, steps=12, count=11_000, workers=workers, **more)

    whole = run()
    seen = []

    def stop_at(done, total, what):
        seen.append(done)
        if done == 6_000:
            raise KeyboardInterrupt

    kept = tmp_path / "population.npz"
    with pytest.raises(KeyboardInterrupt):
        run(checkpoint=kept, progress=stop_at)
    assert seen == [2_000, 4_000, 6_000]
    seen.clear()
    again = run(checkpoint=kept, progress=lambda done, total, what: seen.append((done, total)))
    assert seen == [(8_000, 11_000), (10_000, 11_000), (11_000, 11_000)]  # only what was missing
    assert again.table().equals(whole.table())
    assert [path.name for path in tmp_path.iterdir()] == ["population.npz"]
    assert run(checkpoint=kept).table().equals(whole.table())  # all done: read back
    for other in (gd.grpo(5.1, 0.5), gd.dr_grpo(5.0, 0.5)):
        with pytest.raises(ValueError, match="checkpoint must be of the same run"):
            evolve(other, source, steps=12, count=11_000, checkpoint=kept)
    with pytest.raises(ValueError, match="checkpoint must be of the same run"):
        evolve(gd.grpo(5.0, 0.5), BetaQuestions(0.5, 1.6), steps=12, count=11_000, checkpoint=kept)
    kept.write_bytes(b"PK\x03\x04 not really")
    with pytest.raises(ValueError, match="checkpoint must be a file that a population wrote"):
        run(checkpoint=kept)


def test_pass_at_k_against_many_digits():
    with mp.workdps(400):  # 1 − (1−p)^k cancels 304 of them at L = −700
        for log_odds in (-700.0, -40.0, -3.0, 0.0, 2.5, 30.0, 700.0):
            for k in (1, 2, 7, 1000, 10**6):
                q = 1 / (1 + mp.e ** mp.mpf(log_odds))
                assert float(pass_at_k(log_odds, k)) == pytest.approx(float(1 - q**k), rel=1e-14, abs=1e-320)
    assert pass_at_k(-np.inf, 0) == 0
    assert pass_at_k(np.inf, 3) == 1


def test_pass_at_k_of_a_stream_keeps_the_digits_of_hopeless_questions():
    """At p_ref = 1e-17 the naive 1 − (1−p)^k is 0."""
    path = evolve(gd.dr_grpo(1.0, 0.5), TableQuestions([1e-17]), steps=0, pass_at=(1, 5, 64, 1000))
    for k, values in path.pass_at.items():
        assert values[0] == pytest.approx(k * 1e-17, rel=1e-12)


def test_long_run_shares_against_the_limits_of_each_question():
    dynamics, source = gd.grpo(5.0, 0.5), BetaQuestions(0.1, 2.0)
    shares = long_run(dynamics, source, count=400)
    found = gd.limit(gd.grpo(5.0, source.quantiles(0, 400, 400)))
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["oscillating"] == pytest.approx(np.mean(found.kind == gd.LimitKind.CYCLE))
    assert shares["irregular"] == pytest.approx(np.mean(found.kind == gd.LimitKind.IRREGULAR))
    rest = np.isin(found.kind, (gd.LimitKind.FIXED_POINT, gd.LimitKind.ONE))
    assert shares["solved"] == pytest.approx(np.mean(rest & (found.p > 0.99)))
    assert shares["oscillating"] > 0.05
    assert shares["solved"] > 0.2


def test_tables_are_read_from_a_users_file(tmp_path):
    file = tmp_path / "questions.jsonl"
    rows = [{"id": i, "successes": k, "samples": 8} for i, k in enumerate((0, 3, 8))]
    file.write_text("\n".join(map(json.dumps, rows)))
    np.testing.assert_allclose(TableQuestions.read(file).p_ref, [0, 3 / 8, 1])
    np.testing.assert_allclose(TableQuestions.read(file, smoothed=True).p_ref, [0.5 / 9, 3.5 / 9, 8.5 / 9])
    path = evolve(gd.dr_grpo(1.0, 0.5), TableQuestions.read(file), steps=1)
    assert path.accuracy[0] == pytest.approx(11 / 24)
    file.write_text('{"id": 1, "p_ref": 0.5}')
    with pytest.raises(ValueError, match="numbers of samples"):
        TableQuestions.read(file, smoothed=True)
    with pytest.raises(ValueError, match="one that exists"):
        TableQuestions.read(tmp_path / "absent.csv")


def test_random_and_quantile_rows_of_a_table_have_its_weights():
    table = TableQuestions([0.1, 0.7], [1, 3])
    np.testing.assert_array_equal(table.quantiles(0, 8, 8), [0.1, 0.1, 0.7, 0.7, 0.7, 0.7, 0.7, 0.7])
    assert np.mean(table.draw(np.random.default_rng(0), 40_000) == 0.7) == pytest.approx(0.75, abs=0.01)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": -1}, "steps must be an integer >= 0, got -1"),
        ({"count": 0}, "count must be an integer >= 1, got 0"),
        ({"count": None}, "count must be an integer >= 1 where questions are no table"),
        ({"sampling": "sobol"}, "sampling must be one of 'random', 'quantiles', got 'sobol'"),
        ({"seed": 1.5}, "seed must be an integer >= 0, got 1.5"),
        ({"workers": 0}, "workers must be an integer >= 1, got 0"),
        ({"pass_at": (0,)}, "pass_at must be an integer >= 1, got 0"),
        ({"time_step": float("nan")}, "time_step must be a finite number > 0"),
        ({"dynamics": gd.grpo([1.0, 2.0], 0.5)}, r"options that are numbers, got options of shape \(2,\)"),
        ({"questions": [0.1, 0.2]}, "questions must be a source such as BetaQuestions"),
        ({"checkpoint": "/nowhere/at/all.npz"}, "checkpoint must be a file that a population wrote"),
        ({"dynamics": gd.MeanOnly()}, "dynamics must be a Recursion, a Flow or a BatchRecursion"),
    ],
)
def test_wrong_arguments_are_named(change, message):
    options = {"dynamics": gd.grpo(1.0, 0.5), "questions": BetaQuestions(1.0, 1.0), "steps": 1, "count": 10} | change
    with pytest.raises(ValueError, match=message):
        evolve(**options)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BetaQuestions(0.0, 1.0), "a must be a number between 1e-3 and 1e6, got 0.0"),
        (lambda: BetaQuestions(1.0, float("nan")), "b must be"),
        (lambda: TableQuestions([0.1, 1.2]), "p_ref must be a probability between 0 and 1, got 1.2 at index"),
        (lambda: TableQuestions([]), "p_ref must have the shape"),
        (lambda: TableQuestions([0.1, 0.2], [1.0]), "weights must have the shape of p_ref"),
        (lambda: TableQuestions([0.1, 0.2], [0.0, 0.0]), "not be all 0"),
        (lambda: Thresholds(solved=0.2, stuck=0.3), "stuck must be at most solved"),
        (lambda: Thresholds(oscillating=2.0), "oscillating must be a number between 0 and 1, got 2.0"),
    ],
)
def test_wrong_sources_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pass_at": 4}, r"pass_at must be several integers >= 1, such as \(1, 4\), got 4"),
        ({"thresholds": 3}, r"thresholds must be Thresholds\(\.\.\.\), got 3"),
    ],
)
def test_options_of_another_type_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        evolve(gd.grpo(1.0, 0.5), TableQuestions([0.1, 0.2]), steps=1, **options)

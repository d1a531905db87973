"""Gradient ascent with exact expectations: every departure from the recursion, switched on alone."""

import numpy as np
import pytest

import grpo_dynamics as gd
from grpo_dynamics.simulation.losses import Batch, gradient
from grpo_dynamics.simulation.outcomes import Outcomes
from grpo_dynamics.simulation.policies import difference, normalize
from grpo_dynamics.simulation.tabular import simulate
from grpo_dynamics.theory.flow import DIVERGENCES
from grpo_dynamics.update_rule import Training

QUESTIONS = Outcomes.random(200, 5, seed=2)
EVEN = Outcomes.uniform(gd.sigmoid(np.linspace(-4, 4, 41)), right=2, wrong=3)
UNIT = 1 / 2 + 1 / 3
ONE_STEP = {"update": "gradient", "learning_rate": 0.3}


def steps(questions, number=1, **options):
    return simulate(questions, Training(**{**ONE_STEP, **options}), number)


@pytest.mark.parametrize("kl", DIVERGENCES)
@pytest.mark.parametrize("normalization", [gd.Whitened(1e-3), gd.MeanOnly(), gd.FiniteGroup(8, silent_groups="keep")])
def test_a_plain_step_is_an_euler_step_of_the_flow(kl, normalization):
    """Equal conditionals: ΔL = η(1/m + 1/n)·(p(1−p)Ω − βR), exactly, for every KL term of the table in theory.md."""
    path = steps(EVEN, 30, beta=0.7, kl=kl, normalization=normalization).log_odds
    flow = gd.Flow(0.7, EVEN.p_ref, normalization, kl=kl)
    np.testing.assert_allclose(np.diff(path, axis=0), 0.3 * UNIT * flow.rate(path[:-1]), atol=1e-13)


def test_small_steps_converge_to_the_flow():
    """Euler's method is of first order: half the learning rate, half the distance from gd.Flow's own integration."""
    flow, time = gd.Flow(0.7, EVEN.p_ref), 2.0
    wanted = flow.integrate(time).log_odds
    errors = []
    for number in (100, 200, 400):
        end = steps(EVEN, number, beta=0.7, learning_rate=time / UNIT / number).log_odds[-1]
        errors.append(np.abs(end - wanted).max())
    assert errors[-1] < 0.01
    np.testing.assert_allclose([errors[0] / errors[1], errors[1] / errors[2]], 2.0, atol=0.1)


def test_a_natural_step_of_rate_one_over_beta_is_the_recursion():
    for normalization in (gd.Whitened(1e-3), gd.MeanOnly()):
        path = steps(QUESTIONS, 10, beta=2.0, normalization=normalization, natural=True, learning_rate=0.5).log_odds
        recursion = gd.Recursion(2.0, QUESTIONS.p_ref, normalization)
        np.testing.assert_allclose(path[1:], [recursion.step(x) for x in path[:-1]], atol=1e-10)


def test_a_natural_step_moves_the_log_odds_by_the_flow_over_the_variance():
    """ΔL = η·rate/(p(1−p)) for every KL term, whatever the conditionals, to the second order of η where R is not
    linear: here at the first step, from π_ref, where it is exact."""
    for kl in DIVERGENCES:
        path = steps(QUESTIONS, beta=2.0, kl=kl, natural=True, learning_rate=0.1).log_odds
        flow = gd.Flow(2.0, QUESTIONS.p_ref, kl=kl)
        p, q = gd.sigmoid(path[0]), gd.sigmoid(-path[0])
        np.testing.assert_allclose(path[1] - path[0], 0.1 * flow.rate(path[0]) / (p * q), atol=1e-12)


@pytest.mark.parametrize("alpha", [1.0, 0.4])
def test_many_inner_steps_converge_to_exact_minimisation(alpha):
    """μ → ∞: the surrogate without clipping is the step's objective, from any start; so Δ_R comes out as well."""
    start = normalize(np.random.default_rng(0).normal(size=(200, 5)))
    exact = simulate(QUESTIONS, Training(2.0, gd.Whitened(1e-2), alpha), 3, start=start)
    distances = []
    for inner_steps in (1, 10, 100):
        training = Training(
            2.0, gd.Whitened(1e-2), alpha, "gradient", learning_rate=0.25, inner_steps=inner_steps, natural=True
        )
        distances.append(np.abs(simulate(QUESTIONS, training, 3, start=start).log_odds - exact.log_odds).max())
    assert distances[0] > 1
    assert distances[1] < 0.01 * distances[0]
    assert distances[2] < 1e-9
    plain = Training(2.0, gd.Whitened(1e-2), alpha, "gradient", learning_rate=0.5, inner_steps=4000)
    few = Outcomes(QUESTIONS.log_reference[:20], QUESTIONS.correct[:20])
    ours, wanted = simulate(few, plain, 1).log_odds[-1], simulate(few, Training(2.0, gd.Whitened(1e-2), alpha), 1)
    np.testing.assert_allclose(ours, wanted.log_odds[-1], atol=5e-3)


def test_clipping_stops_where_both_sides_have_left_their_range():
    """No KL term: right answers are pushed up until their ratio passes 1.3, wrong ones down until theirs falls below
    0.8. What is left moving moves the other as well, so p ends at max(1.3·p, 1 − 0.8·(1−p)), if that is below 1."""
    middle = Outcomes.uniform(np.linspace(0.2, 0.7, 11), right=2, wrong=3)
    base = {"kl": "none", "beta": 0.0, "learning_rate": 0.02, "inner_steps": 2000, "normalization": gd.MeanOnly()}
    free, clipped = (steps(middle, **base, **clip).p[-1] for clip in ({}, {"clip_low": 0.2, "clip_high": 0.3}))
    expected = np.maximum(1.3 * middle.p_ref, 1 - 0.8 * (1 - middle.p_ref))
    assert np.all((clipped >= expected) & (clipped < expected + 0.01))
    assert np.all(free > expected + 0.03)


@pytest.mark.parametrize(("clip", "held"), [({"clip_high": 0.3}, "right"), ({"clip_low": 0.2}, "wrong")])
def test_each_side_is_clipped_alone(clip, held):
    """Right answers are never pulled down nor wrong ones pushed up: the coefficient of the clipped side is 0."""
    question = Outcomes.uniform(0.5)
    old = np.log([[0.5, 0.5]])
    beyond = normalize(np.log([[0.7, 0.3]]))
    training = Training(**ONE_STEP, kl="none", beta=0.0, normalization=gd.MeanOnly(), **clip)
    batch = Batch(np.full((1, 2), 0.5), np.array([[0.25, 0.0]]), np.array([[0.0, -0.25]]))
    ours = gradient(beyond, old, old, batch, question, training)
    pushes = {"right": np.array([0.0, -0.25 * 0.6]), "wrong": np.array([0.25 * 1.4, 0.0])}[held]
    np.testing.assert_allclose(ours[0], pushes - np.array([0.7, 0.3]) * pushes.sum(), atol=1e-15)


def test_token_ratios_are_clipped_later_than_those_of_answers():
    """An answer of ten tokens may change by 1.3^10 before every token's ratio has reached 1.3."""
    long = Outcomes.uniform(0.5, 1, 1, lengths=10)
    base = {"kl": "none", "beta": 0.0, "learning_rate": 0.05, "clip_high": 0.3, "clip_low": 0.2, "inner_steps": 5000}
    whole = steps(long, 1, ratio_level="sequence", **base).p[-1, 0]
    token = steps(long, 1, ratio_level="token", **base).p[-1, 0]
    assert 0.5 * 1.3 <= whole < 0.68
    assert token > 0.9


def test_aggregation_weighs_answers_by_their_length():
    """One right answer, a short and a long wrong one, equally probable; token ratios, no KL term. What pushes a wrong
    answer down is A·π/|o| under the mean of means, A·π under the other two: relative to the short answer the long one
    sinks slower, or equally fast."""
    questions = Outcomes(np.log([[0.5, 0.25, 0.25]]), [[True, False, False]], [10, 5, 50])
    base = {"kl": "none", "beta": 0.0, "ratio_level": "token", "normalization": gd.MeanOnly(), "learning_rate": 1.0}

    def moved(aggregation, **more):
        end = steps(questions, 1, aggregation=aggregation, **base, **more)
        change = difference(end.log_policy, questions.log_reference)[0]
        return change - change[0]

    def expected(weights):
        total = np.array([0.5, 0.25, 0.25]) * np.array([0.5, -0.5, -0.5]) * weights
        step = total - np.array([0.5, 0.25, 0.25]) * total.sum()
        return step - step[0]

    np.testing.assert_allclose(moved("sequence_mean"), expected(1 / np.array([10, 5, 50])), atol=1e-14)
    np.testing.assert_allclose(moved("token_mean"), expected(np.full(3, 1 / (0.5 * 10 + 0.25 * 55))), atol=1e-14)
    np.testing.assert_allclose(moved("constant"), expected(np.full(3, 1 / 50)), atol=1e-14)
    np.testing.assert_allclose(moved("constant", max_tokens=200), expected(np.full(3, 1 / 200)), atol=1e-14)
    short, long = moved("sequence_mean")[1:]
    assert short < long < 0


def test_level_of_the_kl_term():
    """Per token k2 = ½(ℓ/|o|)²: in a mean over the answer's tokens its pull is 1/|o|² of that of the whole answer."""
    questions = Outcomes.uniform(0.3, lengths=4)
    start = np.log([[0.6, 0.4]])
    free, token, whole = (
        simulate(questions, Training(**ONE_STEP, **kl), 1, start=start).log_odds[1, 0]
        for kl in ({"kl": "none"}, {"kl": "k2", "kl_level": "token"}, {"kl": "k2"})
    )
    assert (free - token) * 16 == pytest.approx(free - whole, rel=1e-12)
    assert free - whole > 0.01


def test_verifier_noise_shrinks_the_drive():
    noise = {"false_positive": 0.1, "false_negative": 0.2}
    path = steps(EVEN, 1, normalization=gd.MeanOnly(), kl="none", **noise).log_odds
    p, q = EVEN.p_ref, 1 - EVEN.p_ref
    np.testing.assert_allclose(path[1] - path[0], 0.3 * UNIT * p * q * 0.7, rtol=1e-11)


def test_dynamic_sampling_divides_by_the_share_of_mixed_groups():
    keep, drop = (
        steps(EVEN, 1, normalization=gd.FiniteGroup(4, silent_groups=kind), kl="none").log_odds
        for kind in ("keep", "drop")
    )
    p = EVEN.p_ref
    mixed = 1 - p**4 - (1 - p) ** 4
    np.testing.assert_allclose((keep[1] - keep[0]) / (drop[1] - drop[0]), mixed, rtol=1e-10)


def test_dynamic_sampling_also_shifts_what_the_kl_term_sees():
    """The KL term is averaged over the answers of mixed groups only, among which right and wrong ones are nearer to
    equally many: so it is not the flow's, whose fixed points hold for an exact KL term. Here against a sum over all
    mixed groups of 3."""
    questions, start = Outcomes.uniform(0.2), np.log([[0.9, 0.1]])
    training = {"normalization": gd.FiniteGroup(3, silent_groups="drop"), "kl": "k2", "beta": 1.0}
    path = simulate(questions, Training(**ONE_STEP, **training), 1, start=start).log_odds[:, 0]
    log_ratio = np.log([0.9 / 0.2, 0.1 / 0.8])
    groups = {1: 3 * 0.9 * 0.1**2, 2: 3 * 0.9**2 * 0.1}
    total = np.zeros(2)
    for k, chance in groups.items():
        std = np.sqrt(k / 3 * (1 - k / 3))
        advantage = np.array([(1 - k / 3) / std, -(k / 3) / std])
        total += chance / sum(groups.values()) * np.array([k / 3, 1 - k / 3]) * (advantage - log_ratio)
    slope = total - np.array([0.9, 0.1]) * total.sum()
    assert path[1] - path[0] == pytest.approx(0.3 * (slope[0] - slope[1]), rel=1e-12)
    flow = gd.Flow(1.0, 0.2, training["normalization"], kl="k2")
    assert abs(path[1] - path[0] - 0.3 * 2 * flow.rate(path[0])) > 0.01

"""Running, repeating, stopping and going on; NumPy and torch alike."""

import dataclasses

import numpy as np
import pytest

import grpo_dynamics as gd
from grpo_dynamics.simulation.outcomes import Outcomes
from grpo_dynamics.simulation.tabular import State, simulate
from grpo_dynamics.update_rule import Training

QUESTIONS = Outcomes.random(30, 5, seed=1, lengths=[1, 2, 3, 4, 5])
SAMPLED = Training(
    update="sampled",
    learning_rate=0.1,
    normalization=gd.MeanOnly(),
    group_size=8,
    advantage="critic",
    critic_rate=0.2,
    groups=2,
    inner_steps=2,
    clip_low=0.2,
    clip_high=0.3,
    kl="k3",
    reference_refresh=4,
    false_positive=0.05,
)
WAYS = {
    "exact": Training(alpha=0.4, reference_refresh=3),
    "token by token": Training(
        update="gradient",
        learning_rate=0.5,
        inner_steps=4,
        clip_low=0.1,
        clip_high=0.1,
        kl="k3",
        kl_level="token",
        ratio_level="token",
        aggregation="token_mean",
        normalization=gd.FiniteGroup(8, silent_groups="drop"),
        false_positive=0.1,
        false_negative=0.2,
    ),
    "natural": Training(
        update="gradient", learning_rate=0.5, kl="k1_in_reward", alpha=0.5, aggregation="constant", natural=True
    ),
    "sampled": SAMPLED,
}


def same(first, second):
    np.testing.assert_array_equal(first.log_odds, second.log_odds)
    np.testing.assert_array_equal(first.log_policy, second.log_policy)
    np.testing.assert_array_equal(first.log_reference, second.log_reference)


def test_seeds_repeat_every_bit():
    first, again, other = (simulate(QUESTIONS, SAMPLED, 12, seed=seed) for seed in (5, 5, 6))
    same(first, again)
    assert np.abs(first.log_odds[1:] - other.log_odds[1:]).max() > 0.01


@pytest.mark.parametrize("way", WAYS)
def test_what_was_stopped_goes_on_as_if_it_had_not_been(way, tmp_path):
    whole = simulate(QUESTIONS, WAYS[way], 13, seed=3)
    half = simulate(QUESTIONS, WAYS[way], 6, seed=3)
    half.state.save(tmp_path / "state.npz")
    rest = simulate(QUESTIONS, WAYS[way], 7, seed=99, state=State.load(tmp_path / "state.npz"))
    np.testing.assert_array_equal(np.concatenate([half.log_odds, rest.log_odds[1:]]), whole.log_odds)
    np.testing.assert_array_equal(rest.log_policy, whole.log_policy)
    np.testing.assert_array_equal(rest.state.values, whole.state.values)
    assert rest.steps.tolist() == [6, 7, 8, 9, 10, 11, 12, 13]
    assert rest.state.random == whole.state.random


def test_records_can_be_thinned():
    whole, thin = simulate(QUESTIONS, SAMPLED, 10), simulate(QUESTIONS, SAMPLED, 10, record_every=4)
    assert thin.steps.tolist() == [0, 4, 8, 10]
    np.testing.assert_array_equal(thin.log_odds, whole.log_odds[[0, 4, 8, 10]])
    np.testing.assert_allclose(whole.p + whole.one_minus_p, 1.0, rtol=1e-15)


def test_no_steps():
    none = simulate(QUESTIONS, Training(), 0)
    assert none.log_odds.shape == (1, 30)
    assert none.renyi.shape == (0, 30)


def test_questions_do_not_disturb_each_other():
    """Exact expectations of half of the questions are those of all, also with options of one value per question."""
    beta = np.linspace(0.5, 3, 30)
    half = Outcomes(QUESTIONS.log_reference[:15], QUESTIONS.correct[:15], QUESTIONS.lengths[:15])
    options = {"update": "gradient", "learning_rate": 0.3, "kl": "k3", "inner_steps": 2}
    all_of_them = simulate(QUESTIONS, Training(beta, gd.Whitened(beta / 100), **options), 5)
    some = simulate(half, Training(beta[:15], gd.Whitened(beta[:15] / 100), **options), 5)
    np.testing.assert_allclose(some.log_odds, all_of_them.log_odds[:, :15], rtol=1e-12, atol=1e-12)


def test_options_per_question_in_sampled_groups():
    eps = np.full(30, 0.1)
    one = Training(update="sampled", learning_rate=0.2, normalization=gd.FiniteGroup(8, eps=0.1))
    each = Training(
        beta=np.ones(30), update="sampled", learning_rate=np.full(30, 0.2), normalization=gd.FiniteGroup(8, eps=eps)
    )
    same(simulate(QUESTIONS, one, 5), simulate(QUESTIONS, each, 5))


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("way", [way for way in WAYS if way != "sampled"])
def test_torch_computes_the_same(way, device):
    torch = pytest.importorskip("torch")
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    tensors = (torch.tensor(x, device=device) for x in (QUESTIONS.log_reference, QUESTIONS.correct))
    same_questions = Outcomes(*tensors, torch.tensor(np.asarray(QUESTIONS.lengths).copy(), device=device))
    ours, numpy = simulate(same_questions, WAYS[way], 8), simulate(QUESTIONS, WAYS[way], 8)
    assert ours.log_odds.device.type == ours.p.device.type == device
    np.testing.assert_allclose(ours.log_odds.cpu().numpy(), numpy.log_odds, atol=1e-10)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_torch_samples_repeats_and_goes_on(tmp_path, device):
    torch = pytest.importorskip("torch")
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    runs = 400
    flow = gd.Flow(1.0, 0.3, gd.FiniteGroup(8, silent_groups="drop"))
    questions = Outcomes.uniform(torch.full((runs,), 0.3, dtype=torch.float64, device=device), 2, 2)
    training = Training(update="sampled", learning_rate=0.02, groups=8, normalization=flow.normalization)
    whole, half = simulate(questions, training, 60, seed=4), simulate(questions, training, 25, seed=4)
    half.state.save(tmp_path / "state.npz")
    rest = simulate(questions, training, 35, state=State.load(tmp_path / "state.npz", like=questions.log_reference))
    assert torch.equal(rest.log_odds, whole.log_odds[25:])
    predicted = gd.logit(0.3)
    for _ in range(60):
        predicted = predicted + 0.02 * flow.rate(predicted)
    ends = whole.log_odds[-1].cpu().numpy()
    assert abs(ends.mean() - predicted) < 4 * ends.std() / np.sqrt(runs)


def test_single_precision_stays_single():
    torch = pytest.importorskip("torch")
    questions = Outcomes.uniform(torch.full((50,), 0.3, dtype=torch.float32), 2, 2)
    for training in (Training(), SAMPLED, Training(update="gradient", learning_rate=0.1, kl="k3")):
        found = simulate(questions, training, 3)
        assert found.log_odds.dtype == torch.float32
        assert bool(torch.all(torch.isfinite(found.log_odds)))


def test_nothing_is_changed_in_place():
    reference, start = QUESTIONS.log_reference.copy(), np.zeros((30, 5))
    simulate(QUESTIONS, SAMPLED, 3, start=start)
    np.testing.assert_array_equal(QUESTIONS.log_reference, reference)
    assert np.all(start == 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": -1}, "steps must be an integer >= 0, got -1"),
        ({"record_every": 0}, "record_every must be an integer >= 1, got 0"),
        (
            {
                "training": dataclasses.replace(
                    SAMPLED,
                    normalization=gd.FiniteGroup(4),
                    group_size=None,
                    advantage="group",
                    critic_rate=None,
                    std_over="batch",
                )
            },
            r"std_over must be None in a simulation, .* got 'batch'",
        ),
        ({"start": np.zeros((2, 2))}, r"start must have shape \(30, 5\), got \(2, 2\)"),
        ({"start": np.full((30, 5), np.nan)}, "start must be log-probabilities"),
        ({"start": np.where(QUESTIONS.correct, -np.inf, 0.0)}, "start must leave some right and some wrong answer"),
        ({"training": Training(beta=np.ones(4))}, r"options must be numbers or of shape \(30,\), got \(4,\)"),
        ({"state": simulate(Outcomes.uniform(0.5), Training(), 1).state}, "state must be of questions of the same"),
        ({"training": SAMPLED, "state": simulate(QUESTIONS, Training(), 1).state}, "state must come from a sampled"),
    ],
)
def test_what_is_refused(options, message):
    arguments = {"training": Training(), "steps": 2, **options}
    with pytest.raises(ValueError, match=message):
        simulate(QUESTIONS, **arguments)


def test_a_learning_rate_that_leaves_the_numbers_is_named():
    training = Training(update="gradient", learning_rate=1e308, kl="k3", beta=10.0)
    with pytest.raises(FloatingPointError, match="left the numbers by step"):
        simulate(QUESTIONS, training, 20)


@pytest.mark.parametrize("content", [None, b"", b"not a state", b"PK\x03\x04 torn"])
def test_a_state_that_is_none(tmp_path, content):
    path = tmp_path / "state.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match="path must be a saved state"):
        State.load(path)


def test_a_table_of_other_numbers_is_no_state(tmp_path):
    np.savez(tmp_path / "other.npz", p=np.zeros(3))
    with pytest.raises(ValueError, match="path must be a saved state"):
        State.load(tmp_path / "other.npz")

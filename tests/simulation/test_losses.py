"""The gradient of the loss, against automatic differentiation of a loss that is written as trainers write it.

There samples are listed one by one, their tokens in padded rows with a mask; nothing is shared with the package.
"""

import dataclasses
import itertools

import numpy as np
import pytest

from grpo_dynamics.simulation.losses import Batch, ascend, coefficient, gradient
from grpo_dynamics.simulation.outcomes import Outcomes
from grpo_dynamics.simulation.policies import normalize
from grpo_dynamics.update_rule import Training

torch = pytest.importorskip("torch")

QUESTIONS, ANSWERS, SAMPLES = 3, 4, 40
LENGTHS = np.array([1, 2, 5, 9])
CORRECT = np.broadcast_to([True, False, True, False], (QUESTIONS, ANSWERS))
RATIO_LEVELS = ("sequence", "token", "geometric_mean")
ESTIMATORS = ("k1", "k2", "k3", "k1_times_ratio", "k3_times_ratio", "none")


def policies(seed):
    rng = np.random.default_rng(seed)
    policy, reference = (normalize(rng.normal(size=(QUESTIONS, ANSWERS))) for _ in range(2))
    return policy, normalize(policy + 0.3 * rng.normal(size=policy.shape)), reference


def samples(seed):
    rng = np.random.default_rng(seed)
    return rng.integers(ANSWERS, size=(QUESTIONS, SAMPLES)), rng.normal(size=(QUESTIONS, SAMPLES))


def batch_of(drawn, advantages):
    marks = np.eye(ANSWERS)[drawn]
    parts = (np.ones_like(advantages), np.maximum(advantages, 0), np.minimum(advantages, 0))
    return Batch(*((marks * part[:, :, None]).mean(axis=1) for part in parts))


def coded_gradient(policy, old, reference, drawn, advantages, training):
    """The gradient of the trainers' objective, times the number of questions."""
    logits = torch.tensor(policy, requires_grad=True)
    current = torch.log_softmax(logits, dim=-1)
    rows = torch.arange(QUESTIONS)[:, None]
    mask = torch.tensor(np.arange(LENGTHS.max()) < LENGTHS[drawn][:, :, None])
    long = torch.tensor(LENGTHS[drawn], dtype=torch.float64)[:, :, None]

    def tokens(log_policy):
        return (torch.as_tensor(log_policy)[rows, torch.tensor(drawn)][:, :, None] / long) * mask

    def at_level(log_ratio, level):
        if level == "token":
            return log_ratio
        whole = (log_ratio * mask).sum(-1, keepdim=True) / (long if level == "geometric_mean" else 1)
        return whole * torch.ones_like(mask)

    current = (current[rows, torch.tensor(drawn)][:, :, None] / long) * mask
    ratio = torch.exp(at_level(current - tokens(old), training.ratio_level))
    low, high = 1 - (training.clip_low or np.inf), 1 + (training.clip_high or np.inf)
    advantage = torch.tensor(advantages)[:, :, None]
    objective = torch.minimum(ratio * advantage, torch.clamp(ratio, low, high) * advantage)
    if training.dual_clip is not None:
        objective = torch.where(advantage < 0, torch.maximum(objective, training.dual_clip * advantage), objective)
    of_kl = torch.exp(at_level(current - tokens(old), training.kl_level))
    for weight, anchor in ((training.alpha, reference), (1 - training.alpha, old)):
        x = at_level(current - tokens(anchor), training.kl_level)
        k3 = torch.exp(-x) - 1 + x
        bound = np.inf if training.kl_clamp is None else training.kl_clamp
        plain = {name: torch.clamp(k, -bound, bound) for name, k in {"k1": x, "k2": x**2 / 2, "k3": k3}.items()}
        terms = {**plain, "k1_times_ratio": of_kl * x, "k3_times_ratio": of_kl * k3}
        if training.kl != "none":
            objective = objective - training.beta * weight * terms[training.kl]
    if training.aggregation == "sequence_mean":
        total = ((objective * mask).sum(-1) / mask.sum(-1)).mean()
    elif training.aggregation == "token_mean":
        total = (objective * mask).sum() / mask.sum()
    else:
        total = (objective * mask).sum() / (mask.shape[0] * mask.shape[1] * (training.max_tokens or LENGTHS.max()))
    (QUESTIONS * total).backward()
    return logits.grad.numpy()


CASES = [
    {"kl": kl, "kl_level": "sequence" if kl == "none" else level, "ratio_level": ratio_level, "aggregation": how}
    for kl, level, ratio_level, how in itertools.product(
        ESTIMATORS, ("sequence", "token"), RATIO_LEVELS, ("sequence_mean", "token_mean", "constant")
    )
    if not (kl == "none" and level == "token")
]


@pytest.mark.parametrize("clip", [{}, {"clip_low": 0.1, "clip_high": 0.3}])
def test_gradient_is_that_of_the_coded_loss(clip):
    for seed, options in enumerate(CASES):
        training = Training(beta=0.7, alpha=0.6, update="gradient", learning_rate=0.1, **clip, **options)
        policy, old, reference = policies(seed)
        drawn, advantages = samples(seed)
        questions = Outcomes(reference, CORRECT, LENGTHS)
        ours = gradient(policy, old, reference, batch_of(drawn, advantages), questions, training)
        coded = coded_gradient(policy, old, reference, drawn, advantages, training)
        np.testing.assert_allclose(ours, coded, rtol=1e-10, atol=1e-13, err_msg=str(options))


def test_dual_clip_and_clamped_estimators():
    """Each option also takes something away: c = 1.1 some answers with A < 0, a bound of .3 some of the KL term."""
    policy, old, reference = policies(1)
    drawn, advantages = samples(1)
    questions, batch = Outcomes(reference, CORRECT, LENGTHS), batch_of(drawn, advantages)
    for kl, more in itertools.product(("k1", "k2", "k3"), ({"dual_clip": 1.1}, {"kl_clamp": 0.3})):
        training = Training(beta=0.7, alpha=0.6, update="gradient", learning_rate=0.1, kl=kl, **more)
        ours = gradient(policy, old, reference, batch, questions, training)
        coded = coded_gradient(policy, old, reference, drawn, advantages, training)
        np.testing.assert_allclose(ours, coded, rtol=1e-10, atol=1e-13, err_msg=f"{kl} {more}")
        free = gradient(policy, old, reference, batch, questions, dataclasses.replace(training, **dict.fromkeys(more)))
        assert np.abs(ours - free).max() > 0.001


def test_clipping_changes_the_gradient():
    policy, old, reference = policies(0)
    questions, batch = Outcomes(reference, CORRECT, LENGTHS), batch_of(*samples(0))
    free, low, high = (
        gradient(policy, old, reference, batch, questions, Training(update="gradient", learning_rate=0.1, **clip))
        for clip in ({}, {"clip_low": 0.1}, {"clip_high": 0.1})
    )
    assert np.abs(free - low).max() > 0.01
    assert np.abs(free - high).max() > 0.01
    assert np.abs(low - high).max() > 0.01


def test_exact_divergence_by_automatic_differentiation():
    policy, old, reference = policies(3)
    training = Training(beta=0.7, alpha=0.6, update="gradient", learning_rate=0.1)
    nothing = Batch(*(np.zeros_like(policy) for _ in range(3)))
    ours = gradient(policy, old, reference, nothing, Outcomes(reference, CORRECT), training)
    logits = torch.tensor(policy, requires_grad=True)
    current = torch.log_softmax(logits, dim=-1)
    for weight, anchor in ((0.6, reference), (0.4, old)):
        (-0.7 * weight * (current.exp() * (current - torch.tensor(anchor))).sum()).backward(retain_graph=True)
    np.testing.assert_allclose(ours, logits.grad.numpy(), rtol=1e-12, atol=1e-15)


def test_natural_gradient_solves_with_the_fisher_matrix():
    policy, old, reference = policies(4)
    batch, questions = batch_of(*samples(4)), Outcomes(reference, CORRECT, LENGTHS)
    plain = Training(update="gradient", learning_rate=0.2)
    natural = Training(update="gradient", learning_rate=0.2, natural=True)
    slope = gradient(policy, old, reference, batch, questions, plain)
    moved = ascend(policy, old, reference, batch, questions, natural)
    for q in range(QUESTIONS):
        p = np.exp(policy[q])
        step = np.linalg.pinv(np.diag(p) - np.outer(p, p)) @ slope[q]
        np.testing.assert_allclose(moved[q], normalize(policy[q] + 0.2 * step), rtol=1e-10)


def test_coefficients_are_the_derivatives_of_the_estimators():
    """With ρ = e^x at π_old = π_ref: central differences of k(x) and of e^x·k(x) in 1e-6 steps, good to 1e-9."""
    x, h = np.linspace(-2, 2, 9), 1e-6
    k1, k2, k3 = (lambda x: x), (lambda x: x**2 / 2), (lambda x: np.exp(-x) - 1 + x)
    coded = {
        "k1": k1,
        "k2": k2,
        "k3": k3,
        "k1_times_ratio": lambda x: np.exp(x) * k1(x),
        "k3_times_ratio": lambda x: np.exp(x) * k3(x),
    }
    for name, k in coded.items():
        slope = (k(x + h) - k(x - h)) / (2 * h)
        np.testing.assert_allclose(coefficient(name, x, np.exp(x)), slope, rtol=1e-8, atol=1e-9)


def test_ratios_of_answers_that_never_came_do_not_overflow():
    policy, old = normalize(np.array([[0.0, 0.0]])), normalize(np.array([[0.0, -2000.0]]))
    batch = Batch(np.array([[1.0, 0.0]]), np.array([[1.0, 0.0]]), np.zeros((1, 2)))
    questions = Outcomes(policy, [[True, False]])
    training = Training(update="gradient", learning_rate=0.1, kl="none", beta=0.0)
    assert np.all(np.isfinite(gradient(policy, old, policy, batch, questions, training)))

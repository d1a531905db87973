"""Which theory the settings of a run ask for."""

import dataclasses

import numpy as np
import pytest

import grpo_dynamics as gd
from grpo_dynamics.config import as_table
from grpo_dynamics.update_rule import Training
from grpo_dynamics.validation.theory_of_run import batch_limits, other_theories, theory_of

SMALL = {"update": "sampled", "learning_rate": 1e-3}
GROUPS = gd.FiniteGroup(16)


def theory(training, **config):
    return theory_of({"training": as_table(training)} | config)


def test_exact_minimisation_is_the_recursion():
    found = theory(Training(beta=2.0, alpha=0.5))
    assert found.at(0.1) == gd.Recursion(2.0, 0.1, gd.Whitened(), 0.5)
    assert (found.beta, found.alpha, found.normalization) == (2.0, 0.5, gd.Whitened())
    assert found.has_orbits


def test_an_inner_loop_to_a_tolerance_is_the_recursion_with_the_gap_of_groups():
    training = Training(normalization=GROUPS, **SMALL)
    found = theory(training, optimization={"inner_tolerance": 1e-4})
    assert found.kind == "recursion"
    assert found.normalization == GROUPS
    assert "groups of 16" in found.name
    assert theory(training).kind == "flow"


@pytest.mark.parametrize(
    ("kl", "divergence"),
    [("k1", "none"), ("k2", "reverse"), ("k3", "forward"), ("k1_in_reward", "reverse"), ("k3_times_ratio", "reverse")],
)
def test_small_steps_are_the_flow_of_their_estimator(kl, divergence):
    found = theory(Training(beta=0.5, normalization=GROUPS, kl=kl, **SMALL))
    assert isinstance(found.at(0.1), gd.Flow)
    assert found.at(0.1).divergence == divergence
    assert not found.has_orbits


def test_small_steps_feel_the_reference_with_alpha_beta_only():
    """At π = π_old the gradient of KL(π‖π_old) is 0."""
    assert theory(Training(beta=2.0, alpha=0.25, normalization=GROUPS, **SMALL)).beta == 0.5
    mirror = theory(Training(beta=2.0, alpha=0.0, normalization=GROUPS, **SMALL))
    assert mirror.at(0.1).divergence == "none"


def test_one_standard_deviation_for_the_batch():
    found = theory(Training(normalization=gd.FiniteGroup(8, eps=1e-4), std_over="batch", kl="k3", **SMALL))
    assert found.normalization == gd.BatchStd("rewards", eps=1e-4, group_size=8)
    dynamics = found.at(np.array([0.1, 0.3, 0.6]))
    assert isinstance(dynamics, gd.BatchRecursion)
    points = gd.batch_fixed_points(dynamics)
    assert points.count == 1  # with k3 always
    np.testing.assert_allclose(batch_limits(dynamics), points.log_odds[0], atol=1e-6)


def test_leave_one_out_has_the_gap_one():
    found = theory(Training(normalization=gd.MeanOnly(), advantage="rloo", group_size=4, **SMALL))
    assert found.normalization == gd.MeanOnly()
    assert "Ω = 1" in found.name


@pytest.mark.parametrize(
    ("changes", "config", "words"),
    [
        ({"clip_high": 0.2}, {}, "Clipped"),
        ({"kl": "k3", "kl_level": "token"}, {"task": {"max_completion_tokens": 8}}, "k3 per token"),
        ({"inner_steps": 4}, {}, "4 gradient steps on one batch"),
        ({"false_positive": 0.1}, {}, "verifier that errs"),
        ({"reference_refresh": 5}, {}, "renewed every 5"),
        ({}, {"model": {"lora": {"rank": 8}}}, "LoRA"),
        ({}, {"optimization": {"precision": "bfloat16"}}, "Half precision"),
    ],
)
def test_what_is_not_modelled_is_said(changes, config, words):
    plain = Training(normalization=GROUPS, **SMALL)
    assert not any(words in text for text in theory(plain).not_modelled)
    said = theory(dataclasses.replace(plain, **changes), **config).not_modelled
    assert any(words in text for text in said)


def test_a_token_is_an_answer_where_answers_have_one():
    training = Training(normalization=GROUPS, kl="k3", kl_level="token", **SMALL)
    said = theory(training, task={"max_completion_tokens": 1}).not_modelled
    assert not any("per token" in text for text in said)


def test_the_learning_rate_of_the_optimiser_is_enough():
    found = theory_of(
        {"training": {"update": "gradient"}, "optimization": {"learning_rate": 3e-4, "optimizer": "adamw"}}
    )
    assert "0.0003 (adamw)" in found.why


def test_the_paper_is_beside_every_other_theory():
    assert other_theories(theory(Training())) == []  # it is the paper's own
    (paper,) = other_theories(theory(Training(normalization=GROUPS)))
    assert paper.at(0.2) == gd.grpo(1.0, 0.2)
    names = [other.name for other in other_theories(theory(Training(normalization=GROUPS, kl="k3", **SMALL)))]
    assert len(names) == 2
    assert "as k2" in names[1]


def test_settings_that_are_no_training_are_refused():
    with pytest.raises(ValueError, match=r"key of \[training\] must be one of"):
        theory_of({"training": {"betta": 1.0}})
    with pytest.raises(ValueError, match="beta must be"):
        theory_of({"training": {"beta": -1.0}})

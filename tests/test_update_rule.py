"""Combinations that mean nothing are refused, by name, with the nearest that means something."""

import numpy as np
import pytest

import grpo_dynamics as gd
from grpo_dynamics.update_rule import Training

GRADIENT = {"update": "gradient", "learning_rate": 0.1}
SAMPLED = {"update": "sampled", "learning_rate": 0.1, "normalization": gd.FiniteGroup(8)}
MEAN_ONLY = {**SAMPLED, "normalization": gd.MeanOnly()}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clip_low": 0.2}, 'clip_low=0.2 means nothing with update="exact"; leave it out, or take update="gradient"'),
        ({"kl": "k3"}, 'kl="k3" means nothing with update="exact"; leave it out, or take update="gradient"'),
        ({"inner_steps": 4}, "inner_steps=4 means nothing"),
        ({"learning_rate": 0.1}, "learning_rate=0.1 means nothing"),
        ({"learning_rate": np.array([0.1, 0.2])}, "learning_rate=array"),
        ({"groups": 2}, 'groups=2 means nothing with update="exact"; leave it out, or take update="sampled"'),
        ({**GRADIENT, "groups": 2}, 'groups=2 means nothing with update="gradient"'),
        ({**GRADIENT, "advantage": "rloo"}, 'advantage="rloo" means nothing with update="gradient"'),
        ({"update": "gradient"}, "learning_rate is missing"),
        ({**SAMPLED, "normalization": gd.Whitened()}, "group_size is missing"),
        ({**SAMPLED, "group_size": 4}, "group_size=4 means nothing with normalization=FiniteGroup"),
        ({**SAMPLED, "normalization": gd.FiniteGroup(np.array([2, 3]))}, "group_size must be one integer"),
        ({**SAMPLED, "kl_level": "token"}, 'kl_level="token" means nothing with kl="exact"; take kl_level="sequence"'),
        ({**SAMPLED, "max_tokens": 9}, 'max_tokens=9 means nothing with aggregation="sequence_mean"'),
        ({**SAMPLED, "advantage": "rloo"}, r'advantage="rloo" means nothing with normalization=Fin.* take normaliz'),
        ({**MEAN_ONLY, "group_size": 8, "advantage": "critic"}, "critic_rate is missing"),
        (
            {**SAMPLED, "normalization": gd.FiniteGroup(8, silent_groups="drop"), "false_positive": 1.0},
            'false_positive=1.0 means nothing with silent_groups="drop".* take silent_groups="keep"',
        ),
        ({**SAMPLED, "kl_clamp": 10.0}, 'kl_clamp=10.0 means nothing with kl="exact"; take kl="k3"'),
        ({**SAMPLED, "kl_clamp": 10.0, "kl": "k3_times_ratio"}, "kl_clamp=10.0 means nothing"),
        (
            {**MEAN_ONLY, "group_size": 8, "std_over": "batch"},
            'std_over="batch" means nothing.* take norm.*FiniteGroup',
        ),
        ({**SAMPLED, "normalization": gd.FiniteGroup(8, eps=np.array([0.1])), "std_over": "batch"}, "take one eps"),
        ({**GRADIENT, "std_over": "batch"}, 'std_over="batch" means nothing with update="gradient"'),
        ({"dual_clip": 3.0}, 'dual_clip=3.0 means nothing with update="exact"'),
        ({**SAMPLED, "critic_rate": 0.1}, 'critic_rate=0.1 means nothing with advantage="group"'),
        (
            {**GRADIENT, "normalization": gd.FiniteGroup(8), "kl": "k1_in_reward", "clip_high": 0.2},
            'kl="k1_in_reward" means nothing with clipping and the expectation over groups; take update="sampled"',
        ),
    ],
)
def test_what_means_nothing(options, message):
    with pytest.raises(ValueError, match=message):
        Training(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beta": 0.0}, 'beta must be a finite number > 0 .*kl="none"'),
        ({"beta": float("nan")}, "beta must be"),
        ({"alpha": 1.5}, "alpha must be between 0 and 1, got 1.5"),
        ({"update": "newton"}, "update must be one of 'exact', 'gradient', 'sampled', got 'newton'"),
        ({"kl": "k4"}, "kl must be one of"),
        ({"normalization": "grpo"}, "normalization must be a Normalization"),
        ({**GRADIENT, "dual_clip": 1.0}, "dual_clip must be a finite number > 1, got 1.0"),
        ({**GRADIENT, "kl": "k3", "kl_clamp": 0.0}, "kl_clamp must be a finite number > 0, got 0.0"),
        ({**SAMPLED, "std_over": "all"}, "std_over must be one of None, 'batch', 'batch_centred', got 'all'"),
        ({**GRADIENT, "ratio_level": "mean"}, "ratio_level must be one of 'sequence', 'token', 'geometric_mean'"),
        ({"false_positive": -0.1}, "false_positive must be between 0 and 1"),
        ({"reference_refresh": 0}, "reference_refresh must be an integer >= 1, got 0"),
        ({**GRADIENT, "inner_steps": 2.0}, "inner_steps must be an integer >= 1, got 2.0"),
        ({**GRADIENT, "clip_low": 1.5}, "clip_low must be above 0 and at most 1"),
        ({**GRADIENT, "clip_high": 0.0}, "clip_high must be a finite number > 0"),
        ({**GRADIENT, "learning_rate": -1.0}, "learning_rate must be a finite number > 0"),
        ({**MEAN_ONLY, "group_size": 1}, "group_size must be an integer >= 2"),
        ({"beta": np.ones(2), "alpha": np.ones(3)}, "shapes must broadcast together"),
    ],
)
def test_values_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        Training(**options)


def test_no_kl_term_needs_no_strength():
    assert Training(**GRADIENT, beta=0.0, kl="none").beta == 0


def test_group_size_from_either_place():
    assert Training(**SAMPLED).size == 8
    assert Training(**MEAN_ONLY, group_size=5).size == 5
    with pytest.raises(ValueError, match="group_size is missing"):
        _ = Training().size

"""Presets of trainers: against a sampled policy trained by their formulas, and what they refuse."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest

import grpo_dynamics as gd
from grpo_dynamics.theory.flow import Flow
from grpo_dynamics.theory.trainers import PRESETS, MixedGroups, preset, trainer
from tests import tabular

ONE_IN_LOSS = {"actor_rollout_ref.actor.use_kl_loss": True}


@dataclasses.dataclass(frozen=True)
class Case:
    """Options of a trainer, and the loss that they mean, written down once more in tests/tabular.py."""

    name: str
    version: str | None
    options: dict[str, Any]
    loss: tabular.Loss


def _trl(beta: float, size: int, version: str, scaling: Any) -> Case:
    corrected = version == "1.16"
    advantage = tabular.over_std(1e-4, 1) if scaling in ("group", True) else tabular.centred
    kl = tabular.k3_times_ratio if corrected else tabular.k3
    options = {"beta": beta, "num_generations": size, "scale_rewards": scaling}
    return Case("trl", version, options, tabular.Loss(advantage, kl, beta, size))


def _verl(beta: float, size: int, kind: str, estimator: str, std: bool) -> Case:
    kl = {"k2": tabular.k2, "low_var_kl": tabular.k3, "k3+": tabular.k3_straight_through}[kind]
    advantage = tabular.leave_one_out if estimator == "rloo" else tabular.over_std(1e-6, 1) if std else tabular.centred
    options = {
        "adv_estimator": estimator, "norm_adv_by_std_in_grpo": std, "actor_rollout_ref.rollout.n": size,
        **ONE_IN_LOSS, "kl_loss_coef": beta, "kl_loss_type": kind,
    }  # fmt: skip
    return Case("verl", None, options, tabular.Loss(advantage, kl, beta, size))


def _verl_in_reward(beta: float, size: int, estimator: str) -> Case:
    plain = tabular.leave_one_out if estimator == "rloo" else tabular.centred
    options = {"adv_estimator": estimator, "norm_adv_by_std_in_grpo": False, "actor_rollout_ref.rollout.n": size,
               "use_kl_in_reward": True, "algorithm.kl_ctrl.kl_coef": beta}  # fmt: skip
    return Case("verl", None, options, tabular.Loss(tabular.with_kl_in_reward(plain, beta, True), None, 0.0, size))


def _openrlhf(beta: float, size: int, estimator: str) -> Case:
    plain = {"group_norm": tabular.over_std(1e-9, 1), "dr_grpo": tabular.centred, "rloo": tabular.leave_one_out}
    advantage = tabular.with_kl_in_reward(plain[estimator], beta, False)
    options = {"init_kl_coef": beta, "advantage_estimator": estimator, "n_samples_per_prompt": size}
    return Case("openrlhf", None, options, tabular.Loss(advantage, None, 0.0, size))


def _openrlhf_in_loss(beta: float, size: int, kind: str, unbiased: bool) -> Case:
    kl = tabular.k3_straight_through if unbiased else {"k2": tabular.k2, "k3": tabular.k3}[kind]
    options = {"algo.kl.init_coef": beta, "algo.kl.use_loss": True, "algo.kl.estimator": kind,
               "unbiased_gradient": unbiased, "advantage_estimator": "group_norm",
               "n_samples_per_prompt": size}  # fmt: skip
    return Case("openrlhf", None, options, tabular.Loss(tabular.over_std(1e-9, 1), kl, beta, size))


def _oat(beta: float, size: int, critic: str) -> Case:
    advantage = {"grpo": tabular.over_std(1e-8, 1), "drgrpo": tabular.centred, "ppo": tabular.exact_critic}[critic]
    options = {"beta": beta, "critic_type": critic, "num_samples": size}
    return Case("oat", None, options, tabular.Loss(advantage, tabular.k3, beta, size))


def _open_instruct(beta: float, size: int, kind: int, normalization: str, drops: bool) -> Case:
    kl = (tabular.k1, tabular.k2, tabular.k3, tabular.k1_times_ratio)[kind]
    standard = normalization == "standard"
    advantage, strength = (tabular.over_std(1e-8, 0), beta) if standard else (tabular.centred, 10 * beta)
    options = {"beta": strength, "kl_estimator": kind, "advantage_normalization_type": normalization,
               "num_samples_per_prompt_rollout": size, "filter_zero_std_samples": drops}  # fmt: skip
    return Case("open-instruct", None, options, tabular.Loss(advantage, kl, strength, size, (10.0, 0.0), drops))


def _nano(beta: float, size: int) -> Case:
    loss = tabular.Loss(tabular.over_std(1e-4, 0), tabular.k3, beta, size)
    return Case("nano-aha-moment", None, {"kl_coeff": beta, "GENERATIONS_PER_SAMPLE": size}, loss)


def _simple(beta: float, size: int) -> Case:
    loss = tabular.Loss(tabular.over_std(1e-4, 1), tabular.k3, beta, size, (1.0, -1.0), True)
    return Case("simple_GRPO", None, {"beta": beta, "num_pre_Q": size}, loss)


def _orz(beta: float, size: int) -> Case:
    options = {"kl_loss_coef": beta, "advantage_normalize": False}
    return Case("open-reasoner-zero", None, options, tabular.Loss(tabular.exact_critic, tabular.k3, beta, size))


FAMILIES = [
    lambda b, g: _trl(b, g, "1.16", "group"),
    lambda b, g: _trl(b, g, "1.16", "none"),
    lambda b, g: _trl(b, g, "1.9.2", "group"),
    lambda b, g: _trl(b, g, "0.16", True),
    lambda b, g: _verl(b, g, "low_var_kl", "grpo", True),
    lambda b, g: _verl(b, g, "k2", "grpo", False),
    lambda b, g: _verl(b, g, "k3+", "grpo", True),
    lambda b, g: _verl(b, g, "low_var_kl", "rloo", True),
    lambda b, g: _verl_in_reward(b, g, "grpo"),
    lambda b, g: _verl_in_reward(b, g, "rloo"),
    lambda b, g: _openrlhf(b, g, "group_norm"),
    lambda b, g: _openrlhf(b, g, "dr_grpo"),
    lambda b, g: _openrlhf(b, g, "rloo"),
    lambda b, g: _openrlhf_in_loss(b, g, "k3", False),
    lambda b, g: _openrlhf_in_loss(b, g, "k3", True),
    lambda b, g: _oat(b, g, "drgrpo"),
    lambda b, g: _oat(b, g, "grpo"),
    lambda b, g: _open_instruct(b, g, 2, "centered", True),
    lambda b, g: _open_instruct(b, g, 2, "standard", True),
    lambda b, g: _open_instruct(b, g, 3, "centered", False),
    lambda b, g: _nano(b, g),
    lambda b, g: _simple(b, g),
    lambda b, g: _orz(b, g),
]


def settings(count: int, seed: int) -> list[tuple[Case, np.ndarray, int, float]]:
    """Random settings with p* well inside: (case, reference policy, right answers, predicted p*)."""
    random = np.random.default_rng(seed)
    found = []
    for family in itertools.islice(itertools.cycle(FAMILIES), 10 * count):
        correct, p_ref = int(random.integers(2, 7)), random.uniform(0.08, 0.6)
        case = family(float(10 ** random.uniform(-0.7, 0.6)), int(random.integers(3, 13)))
        goal = float(gd.limit(trainer(case.name, case.version, **case.options).at(p_ref)).p)
        if not 0.12 < goal < 0.9:
            continue
        right, wrong = random.dirichlet(np.full(correct, 30.0)), random.dirichlet(np.full(10 - correct, 30.0))
        found.append((case, np.concatenate([p_ref * right, (1 - p_ref) * wrong]), correct, goal))
        if len(found) == count:
            return found
    raise AssertionError("too few settings inside")


def measured(case: Case, reference: np.ndarray, correct: int, seed: int, steps: int = 1500) -> tuple[float, float]:
    """Mean success probability of 16 runs after 800 steps, and its standard error.

    The bias of finite steps is of the order of rate/(groups·G), here far below the error. Where advantage and KL term
    cancel sample by sample at rest there is no noise at all: 1e-5 stands for what is left of the way there.
    """
    right, wrong = case.loss.reward
    rate = 0.7 if case.loss.advantage is not tabular.centred else 0.7 / (right - wrong)
    value, error = tabular.settled(tabular.train(case.loss, reference, correct, steps, rate, seed), burn=800)
    return value, max(error, 1e-5)


def test_forty_random_settings_end_where_they_should():
    """The number to reach: |difference| ≤ 3 standard errors at each; -s prints the largest."""
    scores = []
    for i, (case, reference, correct, goal) in enumerate(settings(40, seed=4)):
        value, error = measured(case, reference, correct, seed=i)
        scores.append((value - goal) / error)
        assert abs(value - goal) <= 3 * error, f"{case}: {value} ± {error}, predicted {goal}"
        assert error < 5e-4
    print(f"largest |z| of 40: {np.abs(scores).max():.2f}, root mean square {np.sqrt(np.mean(np.square(scores))):.2f}")


@pytest.mark.parametrize("index", [0, 2, 10, 14])
def test_the_wrong_estimator_is_refused(index):
    """The measurement can fail: the prediction for the other divergence is tens of standard errors away."""
    case, reference, correct, goal = settings(40, seed=4)[index]
    value, error = measured(case, reference, correct, seed=index)
    flow = trainer(case.name, case.version, **case.options).at(float(reference[:correct].sum()))
    other = dataclasses.replace(flow, kl="k3" if flow.divergence == "reverse" else "exact")
    assert abs(value - goal) <= 3 * error
    assert abs(value - float(gd.limit(other).p)) > 20 * error


def test_without_a_pull_success_is_amplified_to_one():
    """k1 in the loss has gradient 0 on average: the sampled policy climbs, as the flow says, without coming to rest."""
    options = {"init_kl_coef": 0.5, "use_kl_loss": True, "advantage_estimator": "group_norm", "n_samples_per_prompt": 8}
    found = trainer("openrlhf", **options)
    assert found.kl == "k1"
    assert gd.limit(found.at(0.3)).kind == gd.LimitKind.ONE
    reference = np.where(np.arange(10) < 3, 0.1, 0.1)
    path = tabular.train(tabular.Loss(tabular.over_std(1e-9, 1), tabular.k1, 0.5, 8), reference, 3, 800, 0.7, seed=1)
    assert path[-1].min() > 0.97


def test_the_path_follows_the_flow_in_its_own_time():
    """t = rate · steps · (1/m + 1/n) for a table with equal answers: the mean over runs is the integrated flow."""
    correct, rate = 4, 0.2
    p_ref = 0.15
    reference = np.concatenate([np.full(correct, p_ref / correct), np.full(10 - correct, (1 - p_ref) / (10 - correct))])
    case = _trl(0.8, 8, "1.9.2", "group")
    path = tabular.train(case.loss, reference, correct, 200, rate, seed=5, groups=256).mean(axis=1)
    steps = np.arange(0, 200, 20)
    flow = trainer("trl", "1.9.2", **case.options).at(p_ref)
    expected = flow.integrate(steps * rate * (1 / correct + 1 / (10 - correct))).p
    np.testing.assert_allclose(path[steps], expected, atol=4e-3)  # Euler's steps are 0.08 long
    assert expected[-1] - expected[0] > 0.3


@pytest.mark.parametrize(("bound", "weight"), [(None, 0.2), (0.5, 0.5), (5.0, 1.0)])
def test_cispo_cuts_the_ratio_of_one(bound, weight):
    """min(ratio, epsilon_high)·A·log π: on-policy the ratio is 1, so a bound below 1, as the default, shrinks A."""
    options = {"beta": 0.6 * weight, "num_generations": 6, "loss_type": "cispo", "epsilon_high": bound}
    whitened = tabular.over_std(1e-4, 1)
    loss = tabular.Loss(
        lambda rewards, ratios, p: min(1.0, 0.2 if bound is None else bound) * whitened(rewards, ratios, p),
        tabular.k3_times_ratio, 0.6 * weight, 6,
    )  # fmt: skip
    found = trainer("trl", **options)
    assert found.beta == pytest.approx(0.6)
    reference = np.concatenate([np.full(3, 0.05), np.full(7, 0.85 / 7)])
    goal = float(gd.limit(found.at(0.15)).p)
    path = tabular.train(loss, reference, 3, 1100, 0.7 / weight, seed=3)
    value, error = tabular.settled(path, burn=700)
    assert abs(value - goal) <= 3 * error
    assert error < 1e-3
    assert (
        abs(float(gd.limit(trainer("trl", **(options | {"loss_type": "dapo"})).at(0.15)).p) - goal) > 0.05
        or weight == 1
    )


# ---- presets -------------------------------------------------------------------------------------------------------

PLAIN = {"openrlhf": {"advantage_estimator": "group_norm", "n_samples_per_prompt": 8}}


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_reads_its_defaults(name):
    """The defaults of the newest version give a flow, β = 0 means no pull, and everything is said in words."""
    for version in PRESETS[name].versions:
        found = trainer(name, version, **PLAIN.get(name, {}))
        flow = found.at([0.1, 0.6])
        assert isinstance(flow, Flow)
        assert found.version == version
        assert found.advantage.startswith("A = ")
        assert "KL" in found.pull or "pulls" in found.pull
        assert all(line.endswith(".") for line in found.not_modelled)
        assert (found.kl == "none") == bool(np.all(np.asarray(found.beta) == 0))
        assert np.all(gd.limit(flow).log_odds > gd.logit([0.1, 0.6]))


@pytest.mark.parametrize(
    ("name", "version", "expected"),
    [
        ("trl", "0.14", {"beta": 0.04, "num_generations": 8}),
        ("trl", "0.18", {"beta": 0.04, "scale_rewards": True, "loss_type": "bnpo"}),
        ("trl", "0.19", {"beta": 0.0, "scale_rewards": True, "loss_type": "bnpo"}),
        ("trl", "0.22", {"beta": 0.0, "scale_rewards": "group", "loss_type": "dapo"}),
        ("trl", "1.9.2", {"beta": 0.0, "use_bias_correction_kl": False}),
        ("trl", "1.10.0", {"beta": 0.0, "use_bias_correction_kl": True}),
        ("verl", None, {"algorithm.adv_estimator": "gae", "actor_rollout_ref.actor.use_kl_loss": False}),
        ("openrlhf", "0.11", {"algo.kl.init_coef": 0.01, "algo.kl.estimator": "k1", "algo.kl.use_loss": False}),
        ("oat", None, {"critic_type": "drgrpo", "beta": 0.1}),
        ("open-instruct", None, {"beta": 0.05, "kl_estimator": 2, "advantage_normalization_type": "centered"}),
        ("nano-aha-moment", None, {"kl_coeff": 0.001, "GENERATIONS_PER_SAMPLE": 4}),
        ("simple_GRPO", None, {"beta": 0.04, "num_pre_Q": 8}),
        ("open-reasoner-zero", None, {"kl_loss_coef": 0.0, "use_kl_loss": True}),
    ],
)
def test_defaults_as_read_in_the_source(name, version, expected):
    """Read in the configuration of each release; docs/trainers.md has the places."""
    found = preset(name)
    assert expected.items() <= found.options(found.version(version), {}).items()


def test_rewards_of_ten():
    """Centred rewards of 0 and 10 move ten times as far, so β acts as β/10; divided by the standard deviation, not."""
    common = {"beta": 0.5, "filter_zero_std_samples": False}
    ten, one = (trainer("open-instruct", **common, verification_reward=reward) for reward in (10.0, 1.0))
    assert ten.beta == 0.05
    assert one.beta == 0.5
    standard = {**common, "advantage_normalization_type": "standard"}
    ten, one = (trainer("open-instruct", **standard, verification_reward=reward) for reward in (10.0, 1.0))
    assert ten.beta == one.beta == 0.5
    np.testing.assert_allclose(ten.normalization.gap([-2.0, 0.0, 3.0]), one.normalization.gap([-2.0, 0.0, 3.0]), 1e-7)


def test_reward_scale_is_a_change_of_unit():
    """TRL's ε of 1e-4 beside rewards of s is ε/s beside rewards of 1."""
    found = trainer("trl", beta=0.1, reward_scale=0.01)
    assert found.normalization == gd.FiniteGroup(8, 1e-2, "std", 1)
    assert trainer("trl", beta=0.1, scale_rewards="none", reward_scale=4.0).beta == 0.025


@pytest.mark.parametrize("group_size", [3, 4, 8, 16])
@pytest.mark.parametrize("kept", ["mean", "std"])
def test_dropped_groups_by_counting(group_size, kept):
    """Ω/w against all groups: the expected pushes of mixed groups alone, summed over how many are right, cancel at p*.

    A group with s right answers of G pushes a right answer by A₊ − β·c₊ and a wrong one by A₋ − β·c₋; on the log-odds
    that is s(1−p)(A₊ − βc₊) − (G−s)p(A₋ − βc₋), up to a factor.
    """
    from scipy.stats import binom

    beta, p_ref, s = 0.7, 0.2, np.arange(1, group_size)
    base = gd.MeanOnly(group_size) if kept == "mean" else gd.FiniteGroup(group_size, 1e-4, "std", 1)
    fixed = gd.fixed_points(Flow(beta, p_ref, MixedGroups(base, group_size), "k3"))
    assert fixed.count == 1
    p = float(fixed.p[0])
    share = s / group_size
    scale = 1.0 if kept == "mean" else np.sqrt(share * (1 - share) * group_size / (group_size - 1)) + 1e-4
    right = (1 - share) / scale - beta * (1 - p_ref / p)
    wrong = -share / scale - beta * (1 - (1 - p_ref) / (1 - p))
    pushes = binom.pmf(s, group_size, p) * (s * (1 - p) * right - (group_size - s) * p * wrong)
    assert abs(pushes.sum()) < 1e-13 * np.abs(pushes).sum()
    x = np.linspace(-20, 20, 401)
    slope = np.gradient(np.log(MixedGroups(base, group_size).gap(x)), x, edge_order=2)
    np.testing.assert_allclose(MixedGroups(base, group_size).gap_and_rate(x)[1], slope, atol=2e-3)


@pytest.mark.parametrize("base", [gd.MeanOnly, lambda size: gd.FiniteGroup(size, 1e-4, "std", 1), gd.FiniteGroup])
def test_dropped_groups_have_one_fixed_point(base):
    """log β·S·w/Ω rises with L for G ≥ 3 (not for 2, which is refused), so the root that is found is the only one."""
    x = np.linspace(-30, 30, 20_001)
    for size in (*range(3, 20), 32, 64, 128):
        normalization = MixedGroups(base(size), size)
        slope = gd.sigmoid(x) - normalization.gap_and_rate(x)[1]
        assert slope.min() >= -1e-14
        assert slope.max() <= 1 + 1e-14
    with pytest.raises(ValueError, match="group_size must be an integer >= 3, got 2"):
        MixedGroups(gd.MeanOnly(2), 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "tlr"}, "trainer must be one of trl, .*got 'tlr'; the nearest is 'trl'"),
        ({"name": "trl", "version": "1.61"}, "version of trl must be .*got '1.61'; the nearest is '1.16.0'"),
        ({"name": "trl", "version": "2.0"}, "got '2.0'; the nearest is '1.16.0'"),
        ({"name": "trl", "version": "0.9"}, "got '0.9'; the nearest is '0.14.0'"),
        ({"name": "trl", "version": "0.30.2"}, "got '0.30.2'; the nearest is '0.29.1'"),
        ({"name": "verl", "version": "3"}, "version of verl must be one of 0.9.1, 0.10.0, got '3'"),
        ({"name": "trl", "num_generation": 8}, "got 'num_generation'; the nearest is 'num_generations'"),
        ({"name": "trl", "version": "1.9", "beta": -0.1}, "beta must be a finite number >= 0, got -0.1"),
        ({"name": "trl", "beta": float("nan")}, "beta must be a finite number >= 0, got nan"),
        (
            {"name": "trl", "beta": 0.1, "scale_rewards": "batch"},
            "scale_rewards must be 'group' or 'none'.*batch_fixed",
        ),
        (
            {"name": "trl", "beta": 0.1, "scale_rewards": "groups"},
            "one of 'group', 'batch', .*; the nearest is 'group'",
        ),
        ({"name": "trl", "version": "0.16", "scale_rewards": "group"}, "scale_rewards must be one of True, False"),
        ({"name": "trl", "version": "0.25", "use_bias_correction_kl": True}, "option of trl must be"),
        ({"name": "verl", "adv_estimator": "grpo", "n": 8, "use_kl_in_reward": True}, "kl_loss_type='k2'"),
        ({"name": "verl", "use_kl_loss": True}, "adv_estimator must be 'grpo' or 'rloo' .*batch_fixed_points"),
        ({"name": "verl", "adv_estimator": "grpo"}, "group_size must be an integer >= 2, got 1"),
        ({"name": "verl", "n": 8, "actor_rollout_ref.rollout.n": 8}, "must be given once"),
        ({"name": "openrlhf", "version": "0.11.0", "unbiased_gradient": True}, "option of openrlhf must be"),
        ({"name": "openrlhf", "advantage_estimator": "rloo", "kl_estimator": "k3"}, "algo.kl.estimator must be 'k1'"),
        ({"name": "oat", "critic_type": "grpo", "beta": 0.0, "kl_penalty_coef": 0.1}, "kl_penalty_coef must be 0"),
        ({"name": "open-instruct", "kl_estimator": 0}, "kl_estimator must be 1, 2 or 3"),
        ({"name": "nano-aha-moment", "algorithm": "vineppo"}, "algorithm must be 'grpo'"),
        ({"name": "open-reasoner-zero", "kl_loss_coef": 0.1}, "advantage_normalize must be False"),
        ({"name": "prime-rl", "algorithm.type": "opd"}, "algorithm.type must be one of 'grpo', 'max_rl'"),
        ({"name": "trl", "beta": 0.1, "reward_scale": 0.0}, "reward_scale must be a finite number > 0, got 0.0"),
        ({"name": "verl", "reward_scale": "abc"}, "reward_scale must be a finite number > 0, got 'abc'"),
        ({"name": "open-reasoner-zero", "reward_scale": 0}, "reward_scale must be a finite number > 0, got 0"),
        ({"name": "open-instruct", "verification_reward": 0.0}, "verification_reward must be a finite number > 0"),
        ({"name": "trl", "num_iterations": "abc"}, "num_iterations must be a finite number >= 0, got 'abc'"),
        ({"name": "trl", "steps_per_generation": "abc"}, "steps_per_generation must be a number, got 'abc'"),
        ({"name": "verl", "ppo_epochs": None}, "ppo_epochs must be a finite number >= 0, got None"),
        ({"name": "open-instruct", "filter_zero_std_samples": "no"}, "filter_zero_std_samples must be one of True, F"),
        ({"name": "oat", "remove_std_bias": "yes"}, "remove_std_bias must be one of True, False, got 'yes'"),
        ({"name": "open-instruct", "load_ref_policy": False}, "beta must be 0 with load_ref_policy=False, got 0.05"),
        ({"name": "open-instruct", "num_samples_per_prompt_rollout": 2}, "group_size must be an integer >= 3 where"),
        ({"name": "openrlhf", "advantage_estimator": "rloo"}, "group_size must be an integer >= 2, got 1"),
        ({"name": "oat", "critic_type": "ppo", "whiten_adv": True}, "whiten_adv must be False beside a KL term"),
        ({"name": "trl", "loss_type": "depo"}, "loss_type must be one of 'grpo', .*got 'depo'; the nearest is 'dapo'"),
        ({"name": "trl", "version": "0.25", "loss_type": "cispo"}, "loss_type must be one of 'grpo', .*got 'cispo'"),
        ({"name": "trl", "version": "0.16", "loss_type": "grpo"}, "option of trl must be .*got 'loss_type'"),
        ({"name": "trl", "loss_type": "cispo", "epsilon_high": 0}, "epsilon_high must be > 0 with loss_type 'cispo'"),
        ({"name": "verl", "kl_loss_type": "low_var_lk"}, "kl_loss_type must be one of .*nearest is 'low_var_kl'"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        trainer(**options)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"name": "trl", "beta": 0.0, "use_bias_correction_kl": True}, "use_bias_correction_kl has no effect"),
        ({"name": "trl", "beta": 0.1, "num_iterations": 4}, "num_iterations = 4. Several updates on one batch"),
        ({"name": "trl", "beta": 0.1, "sync_ref_model": True}, "sync_ref_model moves the reference"),
        ({"name": "trl", "beta": 0.1, "loss_type": "grpo"}, "divides the loss of an answer by its length"),
        ({"name": "trl", "version": "0.15"}, "This version divides the loss of an answer by its length"),
        ({"name": "trl", "version": "0.15"}, "temperature = 0.9: answers are sampled at it, but the loss"),
        ({"name": "trl", "version": "0.16"}, "p is the success probability at the temperature of training"),
        ({"name": "trl", "loss_type": "vespo"}, "the weight is 1 on-policy without use_vllm"),
        ({"name": "verl", "kl_loss_coef": 0.1}, "kl_loss_coef has no effect"),
        ({"name": "verl", "use_kl_loss": True, "adv_estimator": "grpo", "n": 8}, "k3 is clamped at 10"),
        ({"name": "openrlhf", "init_kl_coef": 0.0, "kl_estimator": "k3"}, "algo.kl.estimator has no effect"),
        ({"name": "open-instruct", "beta": 0.0, "kl_estimator": 2}, "kl_estimator has no effect"),
        ({"name": "open-instruct", "kl_estimator": 1}, "The prediction keeps their KL term"),
        ({"name": "open-reasoner-zero", "use_grpo": True}, "divides by the truth of the comparison"),
    ],
)
def test_what_is_not_modelled_depends_on_the_options(options, sentence):
    assert any(sentence in line for line in trainer(**options).not_modelled)
    assert not any(sentence in line for line in trainer("trl", "1.9.2", beta=0.1).not_modelled)


def test_loss_types_by_version():
    """TRL 0.16 had no loss_type and divided by all tokens of the batch; oat divides by lengths unless told not to."""
    assert any(
        line.startswith("This version divides by the number of tokens") for line in trainer("trl", "0.16").not_modelled
    )
    lines = [trainer("oat", critic_type="grpo", remove_len_bias=free).not_modelled for free in (False, True)]
    assert [any("by its length" in line for line in found) for found in lines] == [True, False]


def test_a_loss_that_clamps_k3_stops_pulling_where_it_says():
    """k3 = e^x − 1 − x reaches 10 at e^x = 13.6."""
    x = np.log(13.6)
    assert np.exp(x) - 1 - x == pytest.approx(10, abs=0.02)

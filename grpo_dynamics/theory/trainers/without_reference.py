"""Trainers that as a rule train without a reference: Open-Reasoner-Zero (PPO) and prime-rl."""

from __future__ import annotations

from typing import Any

from grpo_dynamics.normalization import MeanOnly, Normalization
from grpo_dynamics.theory.flow import KL
from grpo_dynamics.theory.trainers.preset import (
    BATCH,
    PER_TOKEN,
    Options,
    Preset,
    Reading,
    Version,
    grouped,
    is_zero,
    refuse,
    require_one_of,
)


def _orz_shorthand(beta: Any, group_size: Any) -> dict[str, Any]:
    kl = {} if beta is None else {"kl_loss_coef": beta, "advantage_normalize": False}
    return kl if group_size is None else {**kl, "n_samples_per_prompt": group_size}


def _orz(options: Options, version: Version, given: frozenset[str]) -> Reading:
    coefficient = options["kl_loss_coef"] if options["use_kl_loss"] else options["init_kl_coef"]
    k3, lines = options["use_kl_estimator_k3"], list[str]()
    kl: KL = "none"
    pull = "no KL term: its coefficient is 0"
    if not is_zero(coefficient):
        if not options["use_kl_loss"] and k3:
            raise refuse(
                "use_kl_estimator_k3",
                "False with use_kl_loss=False",
                True,
                "k3 as a reward pulls with no known divergence",
            )
        if options["advantage_normalize"]:
            raise refuse("advantage_normalize", "False beside a KL term", True, BATCH)
        kl, pull = (
            ("k1_in_reward", "k1 in the reward: KL(π‖π_ref)")
            if not options["use_kl_loss"]
            else (
                ("k3", "k3 in the loss: its gradient is that of KL(π_ref‖π) on average, not of KL(π‖π_ref)")
                if k3
                else ("k1", "k1 in the loss: its gradient is 0 on average, so nothing pulls")
            )
        )
        lines.append(PER_TOKEN)
    elif "use_kl_estimator_k3" in given:
        lines.append("use_kl_estimator_k3 has no effect: the coefficient of the KL term is 0.")
    beta = coefficient / options["reward_scale"]
    normalization: Normalization = MeanOnly()
    advantage = "A = r − V(q) with the critic's V, taken as exact"
    if options["use_grpo"]:
        normalization, beta, advantage, _ = grouped(
            options["n_samples_per_prompt"], coefficient, kl, scale=options["reward_scale"]
        )
        lines.append(
            "use_grpo means to divide by the standard deviation, but `if std := np.std(...) > 0` divides by the "
            "truth of the comparison, so by 1."
        )
    lines.append("The critic learns too; until it is exact, advantages are not centred for each question.")
    lines.append("The loss of an answer is divided by its length: without effect where right and wrong are as long.")
    if options["advantage_normalize"]:
        lines.append("advantage_normalize divides by the standard deviation of the batch: the speed, not the place.")
    return Reading(normalization, kl, beta, advantage, pull, tuple(lines))


OPEN_REASONER_ZERO = Preset(
    name="open-reasoner-zero",
    title="Open-Reasoner-Zero (PPO)",
    versions=("2025.6.3",),
    defaults=lambda version: {
        "kl_loss_coef": 0.0,
        "use_kl_loss": True,
        "use_kl_estimator_k3": True,
        "init_kl_coef": 0.0,
        "advantage_normalize": True,
        "use_grpo": False,
        "n_samples_per_prompt": 64,
    },
    shorthand=_orz_shorthand,
    read=_orz,
    sources=(
        ("advantage", "orz/ppo/utils.py, get_advantages_and_returns and normalize_advantages"),
        ("KL term", "orz/ppo/actors.py, training_step; orz/ppo/utils.py, compute_reward"),
        ("use_grpo", "playground/orz_7b_ppo.py, custom_reward_fn"),
        ("defaults", "playground/orz_7b_ppo.py, PPOExpConfig"),
    ),
    other=("gamma", "lambd", "policy_update_steps", "critic_update_steps", "temperature", "eps_clip"),
)


def _prime_rl_shorthand(beta: Any, group_size: Any) -> dict[str, Any]:
    if beta is not None:
        raise refuse(
            "beta",
            "left out with prime-rl",
            beta,
            "its rl algorithms have no KL to a reference (kl_tau is one to the policy that sampled)",
        )
    return {} if group_size is None else {"group_size": group_size}


def _prime_rl(options: Options, version: Version, given: frozenset[str]) -> Reading:
    kind = options["algorithm.type"]
    require_one_of("algorithm.type", kind, ("grpo", "max_rl"))
    normalization: Normalization = MeanOnly() if options["group_size"] == 1 else MeanOnly(options["group_size"])
    advantage = "A = r − mean over the group" + (", divided by that mean" if kind == "max_rl" else "")
    pull = "no KL to a reference: kl_tau is a squared log-ratio to the policy that sampled, whose pull is 0 on-policy"
    lines = [
        "Samples come from a policy some updates old: the DPPO mask and kl_tau act.",
        "Distillation (opd, opsd) has a reference, but no reward: not a case of this theory.",
    ]
    return Reading(normalization, "none", 0.0, advantage, pull, tuple(lines))


PRIME_RL = Preset(
    name="prime-rl",
    title="prime-rl",
    versions=("0.8.0",),
    defaults=lambda version: {"algorithm.type": "grpo", "group_size": 1, "loss.kl_tau": 0.001},
    shorthand=_prime_rl_shorthand,
    read=_prime_rl,
    sources=(
        ("advantage", "src/prime_rl/orchestrator/algo/grpo.py, GRPOAlgorithm.score_group"),
        ("loss", "src/prime_rl/trainer/rl/loss.py, default_loss_fn"),
        ("defaults", "packages/prime-rl-configs/src/prime_rl/configs/algorithm.py and trainer.py"),
    ),
    other=("loss.adv_tau", "loss.dppo_mask_low", "loss.dppo_mask_high", "loss.type"),
)

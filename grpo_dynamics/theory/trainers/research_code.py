"""Trainers of research groups: oat (Dr. GRPO), open-instruct, nano-aha-moment, simple_GRPO."""

from __future__ import annotations

from typing import Any

from grpo_dynamics.arrays import require
from grpo_dynamics.normalization import MeanOnly
from grpo_dynamics.theory.flow import KL
from grpo_dynamics.theory.trainers.preset import (
    BATCH,
    OFF_POLICY,
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

K3 = "k3 in the loss: its gradient is that of KL(π_ref‖π) on average, not of KL(π‖π_ref)"


def shorthand(beta_name: str, group_name: str) -> Any:
    """Return the function that gives β and G their names in a trainer."""

    def options(beta: Any, group_size: Any) -> dict[str, Any]:
        given = {beta_name: beta, group_name: group_size}
        return {name: value for name, value in given.items() if value is not None}

    return options


def _oat(options: Options, version: Version, given: frozenset[str]) -> Reading:
    critic, scale = options["critic_type"], options["reward_scale"]
    require_one_of("critic_type", critic, ("ppo", "grpo", "drgrpo"))
    in_loss, in_reward = not is_zero(options["beta"]), not is_zero(options["kl_penalty_coef"])
    whitened = critic == "grpo" and not options["remove_std_bias"]
    if in_loss and in_reward:
        raise refuse("kl_penalty_coef", "0 beside beta > 0", options["kl_penalty_coef"], "two KL terms at once")
    if in_reward and whitened:
        why = "the KL is divided by the standard deviation with the reward, so there is no closed form"
        raise refuse("kl_penalty_coef", "0 with critic_type='grpo'", options["kl_penalty_coef"], why)
    kl: KL = "k3" if in_loss else "k1_in_reward" if in_reward else "none"
    beta = options["kl_penalty_coef"] if in_reward else options["beta"]
    lines = [PER_TOKEN] if in_loss else []
    if critic == "ppo":
        normalization, beta, advantage = MeanOnly(), beta / scale, "A = r − V(q) with the critic's V, taken as exact"
        if options["whiten_adv"] and kl != "none":
            raise refuse("whiten_adv", "False beside a KL term", True, BATCH)
    else:
        eps = 1e-8 if whitened else None
        normalization, beta, advantage, _ = grouped(options["num_samples"], beta, kl, scale=scale, eps=eps)
        if in_reward:  # the mean over the group takes (G−1)/G of reward and KL alike
            normalization = MeanOnly()
    if options["num_ppo_epochs"] > 1:
        lines.append(f"num_ppo_epochs = {options['num_ppo_epochs']}. {OFF_POLICY}")
    lines.append("tis_c: truncated weights between sampler and trainer multiply the advantages alone.")
    if critic != "drgrpo" and not options["remove_len_bias"]:
        lines.append(
            f"critic_type {critic!r} divides the loss of an answer by its length: without effect where right "
            "and wrong answers are as long."
        )
    pull = {"k3": K3, "k1_in_reward": "k1 in the reward, before the mean is taken: KL(π‖π_ref)"}
    return Reading(normalization, kl, beta, advantage, pull.get(kl, "no KL term: beta is 0"), tuple(lines))


OAT = Preset(
    name="oat",
    title="oat (Dr. GRPO, understand-r1-zero)",
    versions=("0.2.3",),
    defaults=lambda version: {
        "beta": 0.1,
        "critic_type": "drgrpo",
        "num_samples": 2,
        "kl_penalty_coef": 0.0,
        "remove_std_bias": False,
        "remove_len_bias": False,
        "whiten_adv": False,
        "num_ppo_epochs": 1,
        "cliprange": 0.2,
    },
    shorthand=shorthand("beta", "num_samples"),
    read=_oat,
    sources=(
        ("advantage", "oat/algorithms/ppo.py, compute_monte_carlo_advantages"),
        ("KL term", "oat/algorithms/ppo.py, learning_step"),
        ("defaults", "oat/args.py, OATArgs; oat/algorithms/ppo.py, PPOArgs"),
        ("as the paper runs it", "train_zero_math.py of understand-r1-zero, with beta 0"),
    ),
    other=("tis_c", "reinforce_update", "temperature", "learning_rate", "generate_max_length"),
)

OPEN_INSTRUCT_KL: tuple[tuple[KL, str], ...] = (
    ("k1", "k1 in the loss: its gradient is 0 on average, so nothing pulls"),
    ("k2", "k2 in the loss: the gradient of KL(π‖π_ref)"),
    ("k3", K3),
    ("k1_times_ratio", "k1 times the ratio, in the loss: the gradient of KL(π‖π_ref)"),
)


def _open_instruct(options: Options, version: Version, given: frozenset[str]) -> Reading:
    require_one_of("kl_estimator", options["kl_estimator"], (0, 1, 2, 3))
    require_one_of("advantage_normalization_type", options["advantage_normalization_type"], ("centered", "standard"))
    kl, pull = OPEN_INSTRUCT_KL[options["kl_estimator"]]
    lines = [] if kl == "k1" else [PER_TOKEN]
    if not options["load_ref_policy"] and not is_zero(options["beta"]):  # the trainer refuses it too
        raise ValueError(f"beta must be 0 with load_ref_policy=False, got {options['beta']!r}")
    if is_zero(options["beta"]):
        kl, pull, lines = "none", "no KL term: beta is 0", []
        if "kl_estimator" in given:
            lines.append("kl_estimator has no effect: there is no KL term.")
    dropped, reward = options["filter_zero_std_samples"], options["verification_reward"]
    require("verification_reward", reward, "a finite number > 0", lambda x: x > 0)
    if kl == "k1" and dropped:
        raise refuse("kl_estimator", "1, 2 or 3 with filter_zero_std_samples", 0, "on mixed groups alone k1 does pull")
    normalization, beta, advantage, missing = grouped(
        options["num_samples_per_prompt_rollout"],
        options["beta"],
        kl,
        scale=reward * options["reward_scale"],
        eps=1e-8 if options["advantage_normalization_type"] == "standard" else None,
        ddof=0,
        dropped=dropped,
    )
    lines += [
        *missing,
        f"async_steps = {options['async_steps']}: samples are up to that many updates old, so ratios, "
        "clipping and the weights between sampler and trainer (use_rho_correction) act.",
    ]
    if options["num_mini_batches"] > 1 or options["num_epochs"] > 1:
        lines.append(f"num_mini_batches or num_epochs above 1. {OFF_POLICY}")
    lines.append(
        "loss_denominator 'token' divides by the number of tokens: without effect where right and wrong answers "
        "are as long."
    )
    return Reading(normalization, kl, beta, advantage, pull, tuple(lines))


OPEN_INSTRUCT = Preset(
    name="open-instruct",
    title="open-instruct (grpo_fast)",
    versions=("2026.8.20",),
    defaults=lambda version: {
        "beta": 0.05,
        "kl_estimator": 2,
        "advantage_normalization_type": "centered",
        "num_samples_per_prompt_rollout": 4,
        "filter_zero_std_samples": True,
        "verification_reward": 10.0,
        "load_ref_policy": True,
        "async_steps": 8,
        "num_mini_batches": 1,
        "num_epochs": 1,
    },
    shorthand=shorthand("beta", "num_samples_per_prompt_rollout"),
    read=_open_instruct,
    sources=(
        ("advantage", "open_instruct/data_loader.py, DataPreparationActor"),
        ("silent groups", "open_instruct/data_loader.py, where filter_zero_std_samples returns no group"),
        ("KL term", "open_instruct/model_utils.py, estimate_kl; open_instruct/grpo_utils.py, compute_grpo_loss"),
        ("defaults", "open_instruct/grpo_utils.py, GRPOExperimentConfig; open_instruct/data_loader.py"),
    ),
    other=(
        "active_sampling",
        "clip_lower",
        "clip_higher",
        "loss_fn",
        "loss_denominator",
        "use_rho_correction",
        "mask_truncated_completions",
        "no_resampling_pass_rate",
        "inflight_updates",
        "learning_rate",
        "temperature",
    ),
)


def _nano_aha_moment(options: Options, version: Version, given: frozenset[str]) -> Reading:
    if options["algorithm"] != "grpo":
        raise refuse(
            "algorithm", "'grpo'", options["algorithm"], "VinePPO gives every state of an answer its own advantage"
        )
    kl: KL = "none" if is_zero(options["kl_coeff"]) else "k3"
    normalization, beta, advantage, _ = grouped(
        options["GENERATIONS_PER_SAMPLE"], options["kl_coeff"], kl, scale=options["reward_scale"], eps=1e-4, ddof=0
    )
    lines = [PER_TOKEN] if kl == "k3" else []
    lines.append(
        "Its reward is the sum of a format reward and of correctness, so not binary: p is right only where the "
        "format reward has become the same for all answers."
    )
    lines.append("The loss divides by the number of tokens: without effect where right and wrong answers are as long.")
    if options.get("temperature", 1.0) != 1.0:
        lines.append("p is the success probability at the temperature of training.")
    return Reading(normalization, kl, beta, advantage, K3 if kl == "k3" else "no KL term: kl_coeff is 0", tuple(lines))


NANO_AHA_MOMENT = Preset(
    name="nano-aha-moment",
    title="nano-aha-moment",
    versions=("2025.7.7",),
    defaults=lambda version: {"kl_coeff": 0.001, "GENERATIONS_PER_SAMPLE": 4, "algorithm": "grpo"},
    shorthand=shorthand("kl_coeff", "GENERATIONS_PER_SAMPLE"),
    read=_nano_aha_moment,
    sources=(
        ("advantage", "nano_r1_script.py, create_training_episodes"),
        ("KL term", "nano_r1_script.py, compute_pg_loss"),
        ("defaults", "nano_r1_script.py, the argument parser, and main for GENERATIONS_PER_SAMPLE"),
    ),
    other=("temperature", "learning_rate", "max_response_tokens", "per_device_batch_size"),
)


def _simple_grpo(options: Options, version: Version, given: frozenset[str]) -> Reading:
    kl: KL = "none" if is_zero(options["beta"]) else "k3"
    normalization, beta, advantage, _ = grouped(
        options["num_pre_Q"], options["beta"], kl, scale=2 * options["reward_scale"], eps=1e-4, dropped=True
    )
    lines = [PER_TOKEN] if kl == "k3" else []
    lines.append(
        "Its reward is ±1 for correctness plus 1.25 or −1 for the format, so not binary: p is right only where "
        "the format reward has become the same for all answers."
    )
    lines.append("Samples come from a policy some updates old (gen_update_steps), so ratios and clipping act.")
    lines.append("The loss of an answer is divided by its length: without effect where right and wrong are as long.")
    return Reading(normalization, kl, beta, advantage, K3 if kl == "k3" else "no KL term: beta is 0", tuple(lines))


SIMPLE_GRPO = Preset(
    name="simple_GRPO",
    title="simple_GRPO",
    versions=("2025.8.5",),
    defaults=lambda version: {"beta": 0.04, "num_pre_Q": 8, "clip_param": 0.2},
    shorthand=shorthand("beta", "num_pre_Q"),
    read=_simple_grpo,
    sources=(
        ("advantage", "grpo_vllm_one.py, gen_worker, which skips groups of one reward"),
        ("KL term", "grpo_vllm_one.py, GRPO_step"),
        ("defaults", "grpo_vllm_one.py, at the top"),
    ),
    other=("Q_batch_size", "gen_update_steps", "train_batch_size", "compute_gen_logps", "all_steps"),
)

"""verl, read in verl/trainer/ppo/core_algos.py, verl/workers/utils/losses.py and verl/trainer/config."""

from __future__ import annotations

from typing import Any

from grpo_dynamics.normalization import MeanOnly, Normalization
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

ACTOR, ALGORITHM = "actor_rollout_ref.actor.", "algorithm."
ESTIMATOR, STD, IN_REWARD = (
    ALGORITHM + "adv_estimator",
    ALGORITHM + "norm_adv_by_std_in_grpo",
    ALGORITHM + "use_kl_in_reward",
)
IN_LOSS, LOSS_COEF, LOSS_TYPE = ACTOR + "use_kl_loss", ACTOR + "kl_loss_coef", ACTOR + "kl_loss_type"
REWARD_COEF, REWARD_TYPE = ALGORITHM + "kl_ctrl.kl_coef", ALGORITHM + "kl_penalty"
GROUP_SIZE, FILTER = "actor_rollout_ref.rollout.n", ALGORITHM + "filter_groups.enable"

GROUPED = ("grpo", "grpo_vectorized")
BASELINE = {
    "rloo": "r − mean of the others in the group",
    "rloo_vectorized": "r − mean of the others in the group",
    "remax": "r − reward of the greedy answer",
}
WHITENED = ("gae", "reinforce_plus_plus", "reinforce_plus_plus_baseline")
LOSS_KL: dict[str, KL] = {"kl": "k1", "k1": "k1", "mse": "k2", "k2": "k2", "low_var_kl": "k3", "k3": "k3"}


def _defaults(version: Version) -> dict[str, Any]:
    return {
        ESTIMATOR: "gae",
        STD: True,
        GROUP_SIZE: 1,
        IN_LOSS: False,
        LOSS_COEF: 0.001,
        LOSS_TYPE: "low_var_kl",
        IN_REWARD: False,
        REWARD_COEF: 0.001,
        REWARD_TYPE: "kl",
        FILTER: False,
        ACTOR + "ppo_epochs": 1,
        ACTOR + "loss_agg_mode": "token-mean",
        ACTOR + "clip_ratio": 0.2,
        ACTOR + "entropy_coeff": 0,
    }


def _shorthand(beta: Any, group_size: Any) -> dict[str, Any]:
    kl = {} if beta is None else {IN_LOSS: True, LOSS_COEF: beta}
    return kl if group_size is None else {**kl, ESTIMATOR: "grpo", GROUP_SIZE: group_size}


def _read(options: Options, version: Version, given: frozenset[str]) -> Reading:
    estimator = options[ESTIMATOR]
    require_one_of(ESTIMATOR, estimator, (*GROUPED, *BASELINE, "opo", *WHITENED))
    require_one_of(LOSS_TYPE, options[LOSS_TYPE], (*LOSS_KL, *(f"{name}+" for name in LOSS_KL)))
    in_loss = options[IN_LOSS] and not is_zero(options[LOSS_COEF])
    in_reward = options[IN_REWARD] and not is_zero(options[REWARD_COEF])
    if in_loss and in_reward:
        raise refuse(IN_REWARD, f"False beside {IN_LOSS}=True", True, "two KL terms, one of them inside the advantage")
    kl, beta, pull = _kl(options, in_loss, in_reward)
    if kl != "none" and estimator in WHITENED:
        raise refuse(ESTIMATOR, "'grpo' or 'rloo'", estimator, BATCH)
    whitened = estimator in GROUPED and options[STD]
    if in_reward and whitened:
        why = "the KL is divided by the standard deviation with the reward, so there is no closed form; say "
        why += f"{STD}=False, or take {IN_LOSS}=True with {LOSS_TYPE}='k2', which pulls with the same divergence"
        raise refuse(IN_REWARD, f"False beside {STD}=True", True, why)
    normalization: Normalization = MeanOnly()
    missing: list[str] = []
    if estimator in (*GROUPED, "opo"):
        size, dropped = options[GROUP_SIZE], options[FILTER]
        normalization, beta, advantage, missing = grouped(
            size, beta, kl, scale=options["reward_scale"], eps=1e-6 if whitened else None, dropped=dropped
        )
        if in_reward:  # the mean over the group takes (G−1)/G of reward and KL alike
            normalization = MeanOnly()
    else:
        beta = beta / options["reward_scale"]
        advantage = f"A = {BASELINE.get(estimator, 'r − V(q), whitened over the batch')}"
    return Reading(normalization, kl, beta, advantage, pull, (*missing, *_left_out(options, given, kl)))


def _kl(options: Options, in_loss: bool, in_reward: bool) -> tuple[KL, Any, str]:
    if in_reward:
        require_one_of(REWARD_TYPE, options[REWARD_TYPE], ("kl", "k1"))
        return "k1_in_reward", options[REWARD_COEF], "k1 in the reward, before the baseline: KL(π‖π_ref)"
    if not in_loss:
        return "none", 0.0, f"no KL term: {IN_LOSS} and {IN_REWARD} are off, or the coefficient is 0"
    kind = options[LOSS_TYPE]
    if kind.endswith("+"):
        return (
            "k2",
            options[LOSS_COEF],
            f"{kind}: the value of {kind[:-1]} with the gradient of k2, that of KL(π‖π_ref)",
        )
    words = {
        "k1": "k1 in the loss: its gradient is 0 on average, so nothing pulls",
        "k2": "k2 in the loss: the gradient of KL(π‖π_ref)",
        "k3": "k3 in the loss: its gradient is that of KL(π_ref‖π) on average, not of KL(π‖π_ref)",
    }
    return LOSS_KL[kind], options[LOSS_COEF], words[LOSS_KL[kind]]


def _left_out(options: Options, given: frozenset[str], kl: KL) -> list[str]:
    lines: list[str] = []
    if LOSS_COEF in given and not options[IN_LOSS]:
        lines.append(f"{LOSS_COEF} has no effect: {IN_LOSS} is False.")
    if REWARD_COEF in given and not options[IN_REWARD]:
        lines.append(f"{REWARD_COEF} has no effect: {IN_REWARD} is False.")
    if kl not in ("none", "k1_in_reward"):
        lines.append(PER_TOKEN)
    if kl == "k3":
        lines.append(
            "k3 is clamped at 10: where the reference gives a token 13.6 times the probability, nothing pulls."
        )
    if kl != "none" and options.get(ALGORITHM + "kl_ctrl.type", "fixed") != "fixed":
        lines.append("An adaptive KL coefficient moves β while it trains.")
    if options[ACTOR + "ppo_epochs"] > 1:
        lines.append(f"{ACTOR}ppo_epochs = {options[ACTOR + 'ppo_epochs']}. {OFF_POLICY}")
    lines.append(
        "A batch larger than ppo_mini_batch_size means off-policy samples: ratios, clipping and dual clipping."
    )
    lines.append(
        f"loss_agg_mode {options[ACTOR + 'loss_agg_mode']!r} weights answers by length: without effect where "
        "right and wrong answers are as long."
    )
    if options[ACTOR + "entropy_coeff"]:
        lines.append("The entropy bonus is a third force.")
    return lines


PRESET = Preset(
    name="verl",
    title="verl",
    versions=("0.9.1", "0.10.0"),
    defaults=_defaults,
    shorthand=_shorthand,
    read=_read,
    sources=(
        ("advantage", "verl/trainer/ppo/core_algos.py, compute_grpo_outcome_advantage and its neighbours"),
        ("KL in the loss", "verl/workers/utils/losses.py, ppo_loss; verl/trainer/ppo/core_algos.py, kl_penalty"),
        ("KL in the reward", "verl/trainer/ppo/ray_trainer.py, apply_kl_penalty"),
        ("defaults", "verl/trainer/config/ppo_trainer.yaml, actor/actor.yaml, rollout/rollout.yaml"),
    ),
    other=(
        ACTOR + "clip_ratio_low",
        ACTOR + "clip_ratio_high",
        ACTOR + "clip_ratio_c",
        ACTOR + "ppo_mini_batch_size",
        ACTOR + "optim.lr",
        ALGORITHM + "gamma",
        ALGORITHM + "lam",
        ALGORITHM + "kl_ctrl.type",
        ALGORITHM + "kl_ctrl.horizon",
        ALGORITHM + "kl_ctrl.target_kl",
        "data.train_batch_size",
        "actor_rollout_ref.rollout.temperature",
    ),
)

"""OpenRLHF, read in openrlhf/trainer/ppo_utils/experience_maker.py, openrlhf/models/utils.py and the command line."""

from __future__ import annotations

from typing import Any

from grpo_dynamics.normalization import MeanOnly, Normalization, require_group_size
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

COEF, KIND, IN_LOSS = "algo.kl.init_coef", "algo.kl.estimator", "algo.kl.use_loss"
UNBIASED, TARGET = "algo.kl.unbiased_gradient", "algo.kl.target"
ESTIMATOR, NO_STD = "algo.advantage.estimator", "algo.advantage.no_std_norm"
GROUP_SIZE, FILTER = "rollout.n_samples_per_prompt", "algo.dynamic_filtering_enable"

WHITENED = {
    "gae": "r − V(q) with the critic's V",
    "reinforce": "r",
    "reinforce_baseline": "r − mean over the group",
}


def _defaults(version: Version) -> dict[str, Any]:
    options: dict[str, Any] = {
        COEF: 0.01,
        KIND: "k1",
        IN_LOSS: False,
        ESTIMATOR: "gae",
        NO_STD: False,
        GROUP_SIZE: 1,
        FILTER: False,
        TARGET: None,
        "train.max_epochs": 1,
        "actor.eps_clip": 0.2,
    }
    return options | ({UNBIASED: False} if version >= (0, 11, 2) else {})


def _shorthand(beta: Any, group_size: Any) -> dict[str, Any]:
    kl = {} if beta is None else {COEF: beta}
    return kl if group_size is None else {**kl, ESTIMATOR: "group_norm", GROUP_SIZE: group_size}


def _read(options: Options, version: Version, given: frozenset[str]) -> Reading:
    estimator, scale = options[ESTIMATOR], options["reward_scale"]
    more = ("flash_reinforce",) if version >= (0, 11, 2) else ()
    require_one_of(ESTIMATOR, estimator, ("group_norm", "dr_grpo", "rloo", *WHITENED, *more))
    kl, pull = _kl(options)
    if kl != "none" and estimator in WHITENED and not options[NO_STD]:
        raise refuse(ESTIMATOR, "'group_norm', 'dr_grpo' or 'rloo'", estimator, BATCH)
    normalization: Normalization = MeanOnly()
    beta, missing = options[COEF] / scale, []
    if estimator in ("group_norm", "dr_grpo", "reinforce_baseline"):
        normalization, beta, advantage, missing = grouped(
            options[GROUP_SIZE],
            options[COEF],
            kl,
            scale=scale,
            eps=1e-9 if estimator == "group_norm" else None,
            dropped=options[FILTER],
        )
    elif estimator == "rloo":
        require_group_size(options[GROUP_SIZE])  # there are no others in a group of one
        advantage = "A = r − mean of the others in the group"
    elif estimator == "flash_reinforce":
        advantage = "A = r − mean over the batch"
    else:
        advantage = f"A = {WHITENED[estimator]}" + ("" if options[NO_STD] else ", whitened over the batch")
    return Reading(normalization, kl, beta, advantage, pull, (*missing, *_left_out(options, given, kl)))


def _kl(options: Options) -> tuple[KL, str]:
    kind = options[KIND]
    require_one_of(KIND, kind, ("k1", "k2", "k3"))
    if is_zero(options[COEF]):
        return "none", f"no KL term: {COEF} is 0"
    if not options[IN_LOSS]:
        if kind != "k1":
            raise refuse(
                KIND, f"'k1' beside {IN_LOSS}=False", kind, f"as a reward, {kind} pulls with no known divergence"
            )
        return "k1_in_reward", "k1 in the reward, subtracted from the finished advantage: KL(π‖π_ref)"
    if options.get(UNBIASED, False):
        return "k2", f"the value of {kind} with the gradient of k2 (unbiased_gradient), that of KL(π‖π_ref)"
    words = {
        "k1": "k1 in the loss: its gradient is 0 on average, so nothing pulls",
        "k2": "k2 in the loss: the gradient of KL(π‖π_ref)",
        "k3": "k3 in the loss: its gradient is that of KL(π_ref‖π) on average, not of KL(π‖π_ref)",
    }
    return kind, words[kind]


def _left_out(options: Options, given: frozenset[str], kl: KL) -> list[str]:
    lines: list[str] = []
    if kl == "none" and KIND in given:
        lines.append(f"{KIND} has no effect: {COEF} is 0.")
    if UNBIASED in given and not options[IN_LOSS]:
        lines.append(f"{UNBIASED} has no effect: {IN_LOSS} is False.")
    if kl in ("k2", "k3"):
        lines.append(PER_TOKEN)
    if kl == "k1_in_reward":
        lines.append("k1 summed to the end of an answer pulls as k1 of the whole answer: per token nothing is lost.")
        lines.append("k1 of a token is clamped to ±10.")
    if kl == "k3":
        lines.append(
            "k3 is clamped at 10: where the reference gives a token 13.6 times the probability, nothing pulls."
        )
    if kl != "none" and options[TARGET] is not None:
        lines.append(f"{TARGET} moves β while it trains.")
    if options["train.max_epochs"] > 1:
        lines.append(f"train.max_epochs = {options['train.max_epochs']}. {OFF_POLICY}")
    lines.append("A rollout batch larger than the training batch means off-policy samples, with ratios and clipping.")
    lines.append("The loss is a mean over tokens: without effect where right and wrong answers are as long.")
    if options.get("actor.entropy_coef"):
        lines.append("The entropy bonus is a third force.")
    return lines


PRESET = Preset(
    name="openrlhf",
    title="OpenRLHF",
    versions=("0.11.0", "0.11.2"),
    defaults=_defaults,
    shorthand=_shorthand,
    read=_read,
    sources=(
        ("advantage", "openrlhf/trainer/ppo_utils/experience_maker.py, compute_advantages_and_returns"),
        ("KL in the reward", "openrlhf/models/utils.py, compute_approx_kl and compute_reward"),
        ("KL in the loss", "openrlhf/trainer/ray/ppo_actor.py, training_step"),
        ("defaults", "openrlhf/cli/train_ppo_ray.py"),
    ),
    other=(
        "actor.entropy_coef",
        "actor.eps_clip_low_high",
        "actor.learning_rate",
        "actor.loss_agg_mode",
        "algo.advantage.gamma",
        "algo.advantage.lambd",
        "algo.kl.horizon",
        "algo.dynamic_filtering_range",
        "rollout.batch_size",
        "train.batch_size",
        "rollout.temperature",
    ),
    older_names={
        "init_kl_coef": COEF,
        "kl_estimator": KIND,
        "use_kl_loss": IN_LOSS,
        "kl_target": TARGET,
        "advantage_estimator": ESTIMATOR,
        "no_advantage_std_norm": NO_STD,
        "n_samples_per_prompt": GROUP_SIZE,
        "dynamic_filtering": FILTER,
        "max_epochs": "train.max_epochs",
        "eps_clip": "actor.eps_clip",
    },
)

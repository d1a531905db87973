"""TRL's GRPOTrainer, read in trl/trainer/grpo_trainer.py and grpo_config.py."""

from __future__ import annotations

from typing import Any

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
    number_or,
    refuse,
    require_one_of,
)

EPS = 1e-4

LOSS_TYPES = {
    "grpo": (0, 17),
    "bnpo": (0, 17),
    "dr_grpo": (0, 17),
    "dapo": (0, 22),
    "cispo": (0, 26),
    "sapo": (0, 26),
    "luspo": (0, 28),
    "vespo": (1, 0),
}
"""The loss types, and the versions that have them."""


def _defaults(version: Version) -> dict[str, Any]:
    options: dict[str, Any] = {
        "beta": 0.0 if version >= (0, 19) else 0.04,
        "num_generations": 8,
        "temperature": 1.0 if version >= (0, 18) else 0.9,
    }
    if version >= (0, 16):
        options |= {"scale_rewards": "group" if version >= (0, 22) else True, "num_iterations": 1, "epsilon": 0.2}
    if version >= (0, 17):
        options["loss_type"] = "dapo" if version >= (0, 22) else "bnpo"
    if version >= (0, 26):
        options["use_bias_correction_kl"] = version >= (1, 10)
    if version >= (0, 27):
        options["multi_objective_aggregation"] = "sum_then_normalize"
    return options


def _shorthand(beta: Any, group_size: Any) -> dict[str, Any]:
    given = {"beta": beta, "num_generations": group_size}
    return {name: value for name, value in given.items() if value is not None}


def _read(options: Options, version: Version, given: frozenset[str]) -> Reading:
    beta, size = options["beta"], options["num_generations"]
    scaling = _scaling(options, version)
    corrected = options.get("use_bias_correction_kl", False)
    free = is_zero(beta)
    kl: KL = "none" if free else "k3_times_ratio" if corrected else "k3"
    if not free and scaling == "batch":
        raise refuse("scale_rewards", "'group' or 'none'", "batch", BATCH)
    if not free and options.get("multi_objective_aggregation", "sum_then_normalize") != "sum_then_normalize":
        value = options["multi_objective_aggregation"]
        raise refuse("multi_objective_aggregation", "'sum_then_normalize'", value, BATCH)
    normalization, beta, advantage, missing = grouped(
        size, beta, kl, scale=options["reward_scale"], eps=EPS if scaling == "group" else None
    )
    weight = _weight(options, version)
    if weight < 1:
        advantage += f"; loss_type 'cispo' cuts the ratio at epsilon_high = {weight:g}, so β acts as β/{weight:g}"
    left_out = _left_out(options, version, given, free)
    return Reading(normalization, kl, beta / weight, advantage, _pull(kl), (*missing, *left_out))


def _weight(options: Options, version: Version) -> float:
    """What multiplies the advantages on-policy: the ratio 1, which 'cispo' cuts at epsilon_high, else epsilon."""
    loss = options.get("loss_type", "grpo")
    known = tuple(name for name, since in LOSS_TYPES.items() if version >= since)
    if "loss_type" in options:
        require_one_of("loss_type", loss, known)
    if loss != "cispo":
        return 1.0
    bound = number_or(options, "epsilon_high", options["epsilon"])
    if not bound > 0:
        raise ValueError(
            f"epsilon_high must be > 0 with loss_type 'cispo', whose advantages it multiplies, got {bound!r}"
        )
    return min(float(bound), 1.0)


def _scaling(options: Options, version: Version) -> str:
    """How the advantages are scaled: "group", "batch" or "none"; before 0.16 there was no choice."""
    value = options.get("scale_rewards", "group")
    allowed = (True, False) if version < (0, 22) else ("group", "batch", "none", True, False)
    if "scale_rewards" in options:
        require_one_of("scale_rewards", value, allowed)
    return "group" if value is True else "none" if value is False else str(value)


def _pull(kl: KL) -> str:
    return {
        "none": "no KL term: beta is 0, and the reference model is not even loaded",
        "k3": "k3 in the loss: its gradient is that of KL(π_ref‖π) on average, not of KL(π‖π_ref)",
    }.get(kl, "k3 times the ratio, in the loss (use_bias_correction_kl): the gradient of KL(π‖π_ref) on average")


def _left_out(options: Options, version: Version, given: frozenset[str], free: bool) -> list[str]:
    lines: list[str] = []
    if free and "use_bias_correction_kl" in given:
        lines.append("use_bias_correction_kl has no effect: beta is 0, so there is no KL term to correct.")
    if not free:
        lines.append(PER_TOKEN)
    if number_or(options, "num_iterations", 1) > 1:
        lines.append(f"num_iterations = {options['num_iterations']}. {OFF_POLICY}")
    if number_or(options, "steps_per_generation", 1) > 1:
        lines.append(
            f"steps_per_generation = {options['steps_per_generation']}: more than gradient_accumulation_steps "
            "means off-policy samples, with ratios and clipping."
        )
    weighting = {
        "grpo": "divides the loss of an answer by its length",
        "sapo": "divides the loss of an answer by its length",
        "luspo": "multiplies the loss of an answer by its length",
        "dr_grpo": "divides by a constant, so that long answers count more",
    }
    loss = options.get("loss_type", "grpo" if version < (0, 16) else "bnpo")
    who = f"loss_type {loss!r}" if "loss_type" in options else "This version"
    how = weighting.get(loss, "divides by the number of tokens, so that long answers count more")
    lines.append(f"{who} {how}: without effect where right and wrong answers are as long.")
    if loss == "vespo":
        lines.append(
            "loss_type 'vespo' reweights the advantages, not the KL term; the weight is 1 on-policy without use_vllm."
        )
    if options.get("sync_ref_model"):
        lines.append("sync_ref_model moves the reference: p_ref is not fixed, and neither is where training goes.")
    if options.get("use_vllm"):
        lines.append("use_vllm: the importance weights between sampler and trainer multiply the advantages alone.")
    if number_or(options, "top_entropy_quantile", 1.0) < 1.0:
        lines.append("top_entropy_quantile keeps the advantages of some tokens only, and the KL term of all.")
    if options.get("entropy_coef") or options.get("use_adaptive_entropy"):
        lines.append("The entropy bonus is a third force.")
    if options["temperature"] != 1.0 and version < (0, 16):
        lines.append(
            f"temperature = {options['temperature']}: answers are sampled at it, but the loss of these versions takes "
            "the probabilities at 1, so the samples are not those of the policy."
        )
    elif options["temperature"] != 1.0:
        lines.append("p is the success probability at the temperature of training.")
    return lines


VERSIONS = (
    *(f"0.{minor}.0" for minor in range(14, 30)),
    *("0.14.0", "0.15.1", "0.15.2", "0.16.1", "0.18.1", "0.18.2", "0.19.1", "0.22.1", "0.22.2", "0.23.1", "0.25.1"),
    *("0.26.1", "0.26.2", "0.27.1", "0.27.2", "0.29.1"),
    *(f"1.{minor}.0" for minor in range(17)),
    *("1.5.1", "1.7.1", "1.9.1", "1.9.2", "1.14.1", "1.14.2"),
)

PRESET = Preset(
    name="trl",
    title="TRL GRPOTrainer",
    versions=tuple(sorted(set(VERSIONS), key=lambda text: tuple(map(int, text.split("."))))),
    defaults=_defaults,
    shorthand=_shorthand,
    read=_read,
    sources=(
        ("advantage", "trl/trainer/grpo_trainer.py, GRPOTrainer._generate_and_score_completions"),
        ("KL term and loss", "trl/trainer/grpo_trainer.py, GRPOTrainer._compute_loss"),
        ("defaults", "trl/trainer/grpo_config.py, GRPOConfig"),
    ),
    other=(
        "delta",
        "disable_dropout",
        "entropy_coef",
        "epsilon_high",
        "gradient_accumulation_steps",
        "importance_sampling_level",
        "learning_rate",
        "mask_truncated_completions",
        "max_completion_length",
        "off_policy_mask_threshold",
        "per_device_train_batch_size",
        "ref_model_mixup_alpha",
        "ref_model_sync_steps",
        "steps_per_generation",
        "sync_ref_model",
        "top_entropy_quantile",
        "use_adaptive_entropy",
        "use_vllm",
        "vllm_importance_sampling_correction",
    ),
)

"""TRL's own functions on the same tensors: its loss is run, not written down again, and so are its advantages.

The loss types that are claimed are "grpo", "bnpo", "dr_grpo" and "dapo"; "cispo", "sapo", "luspo" and "vespo" are other
objectives. The method GRPOTrainer._compute_loss runs on a stand-in for the trainer that has nothing but the options it
reads; the last tests build a real trainer around a model of a thousand weights.
"""

import collections
import itertools
import types
import warnings

import numpy as np
import pytest
import torch

import grpo_dynamics as gd
from grpo_dynamics.training.advantages import group_advantages
from grpo_dynamics.training.losses import divisor, policy_loss
from grpo_dynamics.update_rule import Training
from tests.training import enumeration as small
from tests.training.enumeration import close

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what it and its dependencies deprecate is not our business
    pytest.importorskip("trl", reason="TRL is not installed: pip install 'grpo-dynamics[trl]'")
    from trl import GRPOConfig, GRPOTrainer

TOKENS = 5
GROUP, QUESTIONS = 4, 3  # of the real trainer
AGGREGATION = {
    "grpo": {"aggregation": "sequence_mean"},
    "bnpo": {"aggregation": "token_mean"},
    "dapo": {"aggregation": "token_mean"},
    "dr_grpo": {"aggregation": "constant", "max_tokens": 9},
}
LOSSES = list(itertools.product(AGGREGATION, ("token", "sequence"), (0.0, 0.3), (False, True), (None, 1.4)))


def rule(loss_type, level, beta, corrected, delta):
    """The same settings in our words."""
    kl = "none" if beta == 0 else "k3_times_ratio" if corrected else "k3"
    return Training(
        beta=beta,
        update="sampled",
        learning_rate=1.0,
        normalization=gd.FiniteGroup(GROUP, eps=1e-4, ddof=1),
        kl=kl,
        kl_level="sequence" if kl == "none" else "token",
        ratio_level="token" if level == "token" else "geometric_mean",
        clip_low=0.2,
        clip_high=0.28,
        dual_clip=delta,
        **AGGREGATION[loss_type],
    )


def trl_loss(loss_type, level, beta, corrected, delta, case, items, parts=1):
    """What GRPOTrainer._compute_loss makes of these log-probabilities, as one of so many accumulated parts."""
    log_p, log_old, log_ref, advantages, mask = case
    trainer = types.SimpleNamespace(
        args=types.SimpleNamespace(use_bias_correction_kl=corrected, delta=delta, steps_per_generation=parts),
        model=types.SimpleNamespace(training=True),
        accelerator=types.SimpleNamespace(num_processes=1, gather=lambda x: x, reduce=lambda x, reduction: x),
        _get_per_token_logps_and_entropies=lambda *args, **kwargs: (log_p, torch.zeros_like(log_p), None),
        _metrics={"train": collections.defaultdict(list)},
        _entropy_bonus_enabled=False,
        aux_loss_enabled=False,
        beta=beta,
        current_gradient_accumulation_steps=parts,
        epsilon_low=0.2,
        epsilon_high=0.28,
        importance_sampling_level=level,
        loss_type=loss_type,
        max_completion_length=9,
        off_policy_mask_threshold=None,
        top_entropy_quantile=1.0,
        use_vllm=False,
    )
    inputs = {
        "prompt_ids": torch.zeros(len(mask), 1, dtype=torch.long),
        "prompt_mask": torch.ones(len(mask), 1, dtype=torch.long),
        "completion_ids": torch.zeros(mask.shape, dtype=torch.long),
        "completion_mask": mask.long(),
        "advantages": advantages,
        "old_per_token_logps": log_old,
        "ref_per_token_logps": log_ref,
        "num_items_in_batch": torch.tensor(float(items)),
    }
    return GRPOTrainer._compute_loss(trainer, trainer.model, inputs), trainer._metrics["train"]


def tensors(seed, dtype, sequences=8):
    """Off-policy enough that every clip acts somewhere."""
    rng = np.random.default_rng(seed)
    mask = np.arange(TOKENS) < np.concatenate([[TOKENS, 1], rng.integers(1, TOKENS + 1, sequences - 2)])[:, None]
    log_p = -rng.exponential(size=mask.shape)
    log_old, log_ref = (log_p + 0.4 * rng.normal(size=mask.shape) for _ in range(2))
    log_p, log_old, log_ref, advantages = (
        torch.tensor(x, dtype=dtype) for x in (log_p, log_old, log_ref, rng.normal(size=sequences))
    )
    return log_p.requires_grad_(), log_old, log_ref, advantages, torch.tensor(mask)


def our_loss(training, case, count=None):
    log_p, log_old, log_ref, advantages, mask = case
    return policy_loss(log_p, log_old, advantages, mask, training, log_ref=log_ref, divisor=count)


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_losses(dtype, rtol):
    for seed, options in enumerate(LOSSES):
        case, training = tensors(seed, dtype), rule(*options)
        theirs, watched = trl_loss(*options, case, items=case[-1].sum())
        ours = our_loss(training, case)
        close(small.gradient(ours.value, case[0]), small.gradient(theirs, case[0]), rtol)
        close(ours.value, theirs, 10 * rtol)
        if training.kl != "none":
            assert ours.metrics["mean_kl"] == pytest.approx(watched["kl"][0], rel=10 * rtol)
        if training.dual_clip is None and training.ratio_level == "token":  # TRL does not count its delta
            assert ours.metrics["clip_fraction"] == pytest.approx(watched["clip_ratio/region_mean"][0], rel=1e-6)


@pytest.mark.parametrize("loss_type", AGGREGATION)
def test_accumulated_parts(loss_type):
    """TRL's two micro-batches of four add up to our batch of eight; "bnpo" alone takes the tokens of each part."""
    options = (loss_type, "token", 0.3, True, None)
    whole, training = tensors(7, torch.float64), rule(*options)
    parts = [tuple(x[rows] for x in whole) for rows in (slice(0, 4), slice(4, 8))]
    theirs = sum(trl_loss(*options, part, items=whole[-1].sum(), parts=2)[0] for part in parts)
    counts = [2 * divisor(part[-1], training) for part in parts]
    if loss_type != "bnpo":
        assert sum(counts) == 2 * divisor(whole[-1], training)
        counts = [divisor(whole[-1], training)] * 2
    ours = sum(our_loss(training, part, count).value for part, count in zip(parts, counts, strict=True))
    close(small.gradient(ours, whole[0]), small.gradient(theirs, whole[0]))


# ---- a real trainer --------------------------------------------------------------------------------------------------

VOCABULARY = ["<pad>", "<eos>", "<bos>", *"abcdefghi"]


@pytest.fixture(scope="module")
def trainer(tmp_path_factory):
    from datasets import Dataset
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("trl")
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(VOCABULARY)}, unk_token="<pad>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>", bos_token="<bos>")
    torch.manual_seed(0)
    size = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    special = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2}
    config = LlamaConfig(vocab_size=len(VOCABULARY), initializer_range=0.5, **size, **special)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        LlamaForCausalLM(config).save_pretrained(folder / "model")
        tokenizer.save_pretrained(folder / "model")
        made = GRPOTrainer(
            model=str(folder / "model"),
            reward_funcs=lambda completions, **_: made.given.pop(0),
            args=GRPOConfig(
                output_dir=str(folder / "out"),
                per_device_train_batch_size=GROUP * QUESTIONS,
                num_generations=GROUP,
                max_completion_length=6,
                beta=0.2,
                epsilon_high=0.28,
                loss_type="grpo",
                report_to="none",
                use_cpu=True,
                bf16=False,
                gradient_checkpointing=False,
                model_init_kwargs={"dtype": "float32"},
            ),
            train_dataset=Dataset.from_dict({"prompt": ["a b", "c", "d e f"]}),
            processing_class=tokenizer,
        )
    made.current_gradient_accumulation_steps = 1
    made.model.train()
    return made


def sampled(trainer, rewards):
    """TRL samples a group for each prompt, and is told these rewards."""
    trainer.given = [rewards.tolist()]
    prompts = [row["prompt"] for row in trainer.train_dataset for _ in range(GROUP)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return trainer._generate_and_score_completions([{"prompt": prompt} for prompt in prompts])


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
@pytest.mark.parametrize("binary", [True, False])
def test_advantages_of_a_real_trainer(trainer, scale, binary):
    """scale_rewards as TRL computes it, within float32: one silent group among them, or rewards of any size."""
    ours = {
        "group": {"normalization": gd.FiniteGroup(GROUP, eps=1e-4, ddof=1)},
        "batch": {"normalization": gd.FiniteGroup(GROUP, eps=1e-4, ddof=1), "std_over": "batch"},
        "none": {"normalization": gd.MeanOnly(group_size=GROUP)},
    }
    training = Training(update="sampled", learning_rate=1.0, **ours[scale])
    of_any_size = torch.randn(QUESTIONS, GROUP, generator=torch.Generator().manual_seed(5)) * 3
    zero_one = torch.tensor([[1.0, 0, 0, 1], [1, 1, 1, 1], [0, 0, 0, 1]])
    rewards = zero_one if binary else of_any_size
    trainer.scale_rewards = scale
    theirs = sampled(trainer, rewards.flatten())["advantages"]
    close(group_advantages(rewards, training).flatten(), theirs, 1e-6)


@pytest.mark.parametrize("loss_type", AGGREGATION)
@pytest.mark.parametrize("corrected", [False, True])
def test_gradients_of_a_real_trainer(trainer, loss_type, corrected):
    """The gradient on the weights of the model after it has moved: from TRL's compute_loss, and from our functions."""
    trainer.scale_rewards, trainer.loss_type = "group", loss_type
    trainer.args.use_bias_correction_kl, trainer.max_completion_length = corrected, 9
    rewards = torch.tensor([[1.0, 0, 0, 1], [1, 1, 1, 1], [0, 0, 0, 1]])
    torch.manual_seed(3)
    batch = sampled(trainer, rewards.flatten())
    model, mask = trainer.model, batch["completion_mask"].bool()
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
    attended = torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)

    def log_probs():
        width = mask.shape[1]
        logits = model(input_ids=ids, attention_mask=attended).logits[:, -width - 1 : -1]
        return logits.log_softmax(-1).gather(-1, batch["completion_ids"][..., None])[..., 0]

    before = {name: value.detach().clone() for name, value in model.state_dict().items()}
    batch["old_per_token_logps"] = log_probs().detach()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    try:
        training = rule(loss_type, "token", 0.2, corrected, None)
        weights = list(model.parameters())
        theirs = torch.autograd.grad(trainer._compute_loss(model, batch), weights)
        advantages = group_advantages(rewards, training).flatten()
        loss = policy_loss(
            log_probs(),
            batch["old_per_token_logps"],
            advantages,
            mask,
            training,
            log_ref=batch["ref_per_token_logps"],
        )
        ours = torch.autograd.grad(loss.value, weights)
    finally:
        model.load_state_dict(before)
    assert loss.metrics["mean_kl"] > 0.01  # it has moved
    flat = [torch.cat([x.flatten() for x in gradient]) for gradient in (ours, theirs)]
    assert float((flat[0] - flat[1]).norm() / flat[1].norm()) < 1e-6

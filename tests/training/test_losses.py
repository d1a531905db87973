"""The loss of a batch: its gradient against formulas written out token by token, and what must not change it.

verl's, OpenRLHF's and the other trainers' losses are written down here from their source, as those trainers do not
install beside this package's requirements; TRL's own functions are called in test_against_trl.py.
"""

import dataclasses
import itertools

import numpy as np
import pytest
import torch

import grpo_dynamics as gd
from grpo_dynamics.training.advantages import group_advantages, k1_in_reward
from grpo_dynamics.training.kl import token_kl
from grpo_dynamics.training.losses import divisor, policy_loss, pooled
from grpo_dynamics.update_rule import Training
from tests.training import enumeration as small
from tests.training.enumeration import close

AGGREGATIONS = (
    {"aggregation": "sequence_mean"},
    {"aggregation": "token_mean"},
    {"aggregation": "constant", "max_tokens": 9},
)
TERMS = (
    {"kl": "none", "beta": 0.0},
    *({"kl": kl, "kl_level": level} for kl in ("k1", "k2", "k3", "k3_times_ratio") for level in ("token", "sequence")),
    {"kl": "k3", "kl_level": "token", "kl_clamp": 0.3},
    {"kl": "k1_times_ratio", "kl_level": "token"},
)
RATIOS = (
    {"ratio_level": "token"},
    {"ratio_level": "token", "clip_low": 0.2, "clip_high": 0.28, "dual_clip": 1.5},
    {"ratio_level": "sequence", "clip_low": 0.2, "clip_high": 0.2},
    {"ratio_level": "geometric_mean", "clip_high": 0.1},
)
CASES = [{**a, **k, **r} for a, k, r in itertools.product(AGGREGATIONS, TERMS, RATIOS)]


def rule(**options):
    base = {"beta": 0.7, "update": "sampled", "learning_rate": 1.0, "normalization": gd.FiniteGroup(2), "kl": "none"}
    return Training(**{**base, **options})


@dataclasses.dataclass
class Batch:
    log_p: torch.Tensor
    log_old: torch.Tensor
    log_ref: torch.Tensor
    advantages: torch.Tensor
    mask: torch.Tensor

    def rows(self, index, width=None):
        """Some of the answers, padded to another width; log_p leads back to this one's."""
        return Batch(*(x[index] if x.ndim == 1 else x[index][:, :width] for x in vars(self).values()))

    def loss(self, training, **more):
        return policy_loss(self.log_p, self.log_old, self.advantages, self.mask, training, log_ref=self.log_ref, **more)

    def gradient(self, training, wanted=None, **more):
        return small.gradient(self.loss(training, **more).value, self.log_p if wanted is None else wanted)


def batch(seed=0, sequences=6, tokens=5, by_token=False, dtype=torch.float64):
    """Answers of 1 to 5 tokens, a little off-policy; outside the mask stands rubbish."""
    rng = np.random.default_rng(seed)
    lengths = np.concatenate([[tokens, 1], rng.integers(1, tokens + 1, size=sequences - 2)])
    mask = np.arange(tokens) < lengths[:, None]
    log_p = np.where(mask, -rng.exponential(size=mask.shape), 1e3)
    log_old, log_ref = (np.where(mask, log_p + 0.3 * rng.normal(size=mask.shape), -1e3) for _ in range(2))
    advantages = rng.normal(size=mask.shape if by_token else sequences)
    arrays = [torch.tensor(x, dtype=dtype) for x in (log_p, log_old, log_ref, advantages)]
    return Batch(arrays[0].requires_grad_(), *arrays[1:], torch.tensor(mask))


# ---- the definition, token by token ----------------------------------------------------------------------------------


def written_out(batch, training, weights=None):
    """The loss with loops over answers and tokens, each formula as in the paper."""
    weights = [1.0] * len(batch.mask) if weights is None else weights.tolist()
    total, tokens, sequences = 0.0, 0.0, 0.0
    for b, weight in enumerate(weights):
        length = int(batch.mask[b].sum())
        ours, old, reference = (x[b, :length] for x in (batch.log_p, batch.log_old, batch.log_ref))
        ratios = {"token": ours - old, "sequence": (ours - old).sum(), "geometric_mean": (ours - old).mean()}
        ratios = {level: x.exp().expand(length) for level, x in ratios.items()}
        of_answer = 0.0
        for t in range(length):
            ratio = ratios[training.ratio_level][t]
            advantage = batch.advantages[b] if batch.advantages.ndim == 1 else batch.advantages[b, t]
            low = 1 - training.clip_low if training.clip_low else 0.0
            high = 1 + training.clip_high if training.clip_high else float("inf")
            objective = torch.minimum(ratio * advantage, ratio.clamp(low, high) * advantage)
            if training.dual_clip and advantage < 0:
                objective = torch.maximum(objective, training.dual_clip * advantage)
            penalty = 0.0
            for share, anchor in ((training.alpha, reference), (1 - training.alpha, old)):
                x = ours[t] - anchor[t] if training.kl_level == "token" else (ours - anchor).sum()
                k = {"k1": x, "k2": x * x / 2, "k3": (-x).exp() - 1 + x, "no": 0.0 * x}[training.kl[:2]]
                if training.kl_clamp:
                    k = k.clamp(-training.kl_clamp, training.kl_clamp)
                if training.kl.endswith("ratio"):
                    mean = training.ratio_level == "geometric_mean" and training.kl_level == "token"
                    k = k * ratios["geometric_mean" if mean else training.kl_level][t]
                penalty = penalty + share * k
            of_answer = of_answer + training.beta * penalty - objective
        total = total + weight * of_answer / (length if training.aggregation == "sequence_mean" else 1)
        tokens, sequences = tokens + weight * length, sequences + weight
    count = {"sequence_mean": sequences, "token_mean": tokens}
    return total / count.get(training.aggregation, (training.max_tokens or 0) * sequences)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_every_combination_is_its_definition(dtype):
    """1e-12 in float64; float32 within 1e-6 of what float64 makes of the same numbers."""
    for seed, options in enumerate(CASES):
        training = rule(alpha=0.6, **options)
        case = batch(seed, by_token=seed % 2 == 1, dtype=dtype)
        exact = Batch(*(x.detach().to(torch.float64) if x.dtype != torch.bool else x for x in vars(case).values()))
        exact.log_p.requires_grad_()
        slope = small.gradient(written_out(exact, training), exact.log_p)
        ours, rtol = case.gradient(training), 1e-12 if dtype == torch.float64 else 1e-6
        assert ours.dtype == dtype
        close(ours.to(torch.float64), slope, rtol)
        close(case.loss(training).value.to(torch.float64), written_out(exact, training), 10 * rtol)


# ---- what must not change it -----------------------------------------------------------------------------------------


def test_a_weight_is_so_many_copies():
    times = torch.tensor([3, 1, 2, 1, 4, 1])
    for seed, options in enumerate(CASES):
        training, one = rule(**options), batch(seed)
        copies = one.rows(torch.arange(6).repeat_interleave(times))  # log_p of the copies leads back to one.log_p
        close(one.gradient(training, weights=times), copies.gradient(training, one.log_p))
        here, there = one.loss(training, weights=times), copies.loss(training)
        close(here.value, there.value)
        assert here.metrics == pytest.approx(there.metrics, rel=1e-12)


def test_parts_add_up_to_the_batch():
    """Micro-batches of different size and padding, one of them on another process for all the loss can tell."""
    times = torch.tensor([3.0, 1.0, 2.0, 1.0, 4.0, 1.0])
    for seed, options in enumerate(CASES):
        training, whole = rule(**options), batch(seed)
        parts = [([0, 3], 5), ([1], 1), ([2, 4, 5], int(whole.mask[[2, 4, 5]].sum(-1).max()))]
        pieces = [(whole.rows(rows, width), times[rows]) for rows, width in parts]
        count = sum(divisor(piece.mask, training, weights) for piece, weights in pieces)
        assert count == divisor(whole.mask, training, times)
        slopes = [piece.gradient(training, whole.log_p, weights=w, divisor=count) for piece, w in pieces]
        close(sum(slopes), whole.gradient(training, weights=times))
        metrics = pooled([piece.loss(training, weights=w, divisor=count).metrics for piece, w in pieces])
        assert metrics == pytest.approx(whole.loss(training, weights=times).metrics, rel=1e-12)


def test_answers_without_a_gradient_may_be_left_out_if_they_are_counted():
    """A silent group: advantage 0 and no KL term. The others' gradient is the same as long as the divisor has them."""
    whole = batch(1)
    whole.advantages[2:4] = 0.0
    for options in AGGREGATIONS:
        training, loud = rule(beta=0.0, **options), [0, 1, 4, 5]
        slope = whole.rows(loud).gradient(training, whole.log_p, divisor=divisor(whole.mask, training))
        close(slope, whole.gradient(training))


def test_rubbish_outside_the_mask_stays_there():
    dirty = batch(2)
    with torch.no_grad():
        dirty.log_p[~dirty.mask] = torch.inf
    dirty.log_old[~dirty.mask] = torch.nan
    dirty.log_ref[~dirty.mask] = -torch.inf
    for options in CASES:
        slope = dirty.gradient(rule(**options))
        assert slope[~dirty.mask].abs().max() == 0
        close(slope, batch(2).gradient(rule(**options)))


# ---- clipping --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ratio", "advantage", "clip", "slope"),
    [
        (1.1, 1.0, {"clip_low": 0.2, "clip_high": 0.2}, 1.1),  # inside: ρA
        (1.3, 1.0, {"clip_low": 0.2, "clip_high": 0.2}, 0.0),  # went up far enough
        (1.3, -1.0, {"clip_low": 0.2, "clip_high": 0.2}, -1.3),  # on its way back
        (0.7, -1.0, {"clip_low": 0.2, "clip_high": 0.2}, 0.0),
        (0.7, 1.0, {"clip_low": 0.2, "clip_high": 0.2}, 0.7),
        (1.25, 1.0, {"clip_low": 0.2, "clip_high": 0.28}, 1.25),  # clip-higher
        (0.75, -1.0, {"clip_low": 0.2, "clip_high": 0.28}, 0.0),
        (2.9, -1.0, {"clip_low": 0.2, "clip_high": 0.2, "dual_clip": 3.0}, -2.9),
        (3.1, -1.0, {"clip_low": 0.2, "clip_high": 0.2, "dual_clip": 3.0}, 0.0),  # only the dual clip stops it
        (3.1, -1.0, {"clip_low": 0.2, "clip_high": 0.2}, -3.1),
        (3.1, 1.0, {"dual_clip": 3.0}, 3.1),  # the dual clip is for A < 0
        (9.0, 1.0, {}, 9.0),  # no clip
        (0.01, -1.0, {"clip_high": 0.2}, -0.01),  # one side only
    ],
)
def test_where_clipping_stops_the_gradient(ratio, advantage, clip, slope):
    """∂ρA/∂log π = ρA, or 0 where the clipped side is the smaller one."""
    log_p = torch.zeros(1, 1, dtype=torch.float64, requires_grad=True)
    log_old = torch.full((1, 1), -np.log(ratio), dtype=torch.float64)
    advantages = torch.tensor([advantage], dtype=torch.float64)
    for level in ("token", "sequence", "geometric_mean"):
        training = rule(beta=0.0, ratio_level=level, **clip)
        loss = policy_loss(log_p, log_old, advantages, torch.ones(1, 1, dtype=torch.bool), training)
        assert float(-small.gradient(loss.value, log_p)) == pytest.approx(slope, rel=1e-12)
        assert loss.metrics["clip_fraction"] == (slope == 0)
        assert loss.metrics["mean_ratio"] == pytest.approx(ratio)
        assert "mean_kl" not in loss.metrics


def test_gspo_scales_all_tokens_of_an_answer_alike():
    """[2507.18071, eq. 10]: ∇s·A = s·A/|o|·Σ_t ∇log π_t with s the geometric mean of the ratios."""
    case = batch(3)
    slope = case.gradient(rule(beta=0.0, ratio_level="geometric_mean"))
    for b, inside in enumerate(case.mask):
        length = int(inside.sum())
        s = (case.log_p - case.log_old).detach()[b, :length].mean().exp()
        close(slope[b, :length], -(s * case.advantages[b] / length / 6).expand(length))


# ---- expected gradients ----------------------------------------------------------------------------------------------


def expected(training, advantages=None, old=None, table=None, reference=None):
    old = table.detach() if old is None else old
    exact = token_kl(small.next_tokens(table), small.next_tokens(reference)) if training.kl == "exact" else None
    if exact is not None and training.alpha < 1:
        exact = training.alpha * exact + (1 - training.alpha) * token_kl(
            small.next_tokens(table), small.next_tokens(old)
        )
    loss = policy_loss(
        small.log_probs(table),
        small.log_probs(old),
        torch.zeros(13, dtype=torch.float64) if advantages is None else advantages,
        small.MASK,
        training,
        log_ref=small.log_probs(reference),
        weights=small.of_answers(old),
        exact_kl=exact,
    )
    return small.gradient(loss.value, table)


@pytest.mark.parametrize(
    ("kl", "divergence", "off_policy"),
    [
        ("k2", small.reverse_kl, False),
        ("k3", small.forward_kl, False),
        ("k1_times_ratio", small.reverse_kl, True),
        ("k3_times_ratio", small.reverse_kl, True),
        ("exact", small.reverse_kl, True),
    ],
)
def test_kl_terms_of_whole_answers(kl, divergence, off_policy):
    table, reference = small.logits(0, gradient=True), small.logits(100)
    exact = 0.7 * small.gradient(divergence(table, reference), table)
    close(expected(rule(kl=kl), table=table, reference=reference), exact)
    if off_policy:
        old = small.logits(9, near=table, spread=0.4)
        close(expected(rule(kl=kl), old=old, table=table, reference=reference), exact)


@pytest.mark.parametrize("kl", ["k1_times_ratio", "k3_times_ratio", "exact"])
def test_two_anchors(kl):
    """α·KL(π‖π_ref) + (1−α)·KL(π‖π_old): the mirror's own anchor is the policy that sampled."""
    table, reference = small.logits(1, gradient=True), small.logits(101)
    old = small.logits(11, near=table, spread=0.4)
    both = 0.3 * small.reverse_kl(table, reference) + 0.7 * small.reverse_kl(table, old)
    found = expected(rule(kl=kl, alpha=0.3), old=old, table=table, reference=reference)
    close(found, 0.7 * small.gradient(both, table))


def test_the_ratio_of_answers_makes_the_objective_exact_off_policy():
    """E_old[ρA] has the gradient Σ ∇π(o)·A(o), with the A of the old policy: what each outer step of GRPO ascends."""
    table, reference = small.logits(2, gradient=True), small.logits(102)
    old = small.logits(12, near=table, spread=0.4)
    log_odds = gd.logit(float(small.of_answers(old) @ small.RIGHT))
    gap = float(gd.Whitened().gap(log_odds))
    advantages = (small.RIGHT - float(gd.sigmoid(log_odds))) * gap
    slope = small.gradient(small.of_answers(table) @ small.RIGHT, table)
    close(-expected(rule(beta=0.0), advantages, old, table, reference), gap * slope)


# ---- other trainers, read in their source ----------------------------------------------------------------------------


def verl(case, mode, c=3.0, beta=0.001):
    """compute_policy_loss_vanilla, agg_loss and kl_penalty "low_var_kl" of verl/trainer/ppo/core_algos.py."""
    mask, advantages = case.mask.double(), case.advantages[:, None]

    def aggregated(x):
        if mode == "token-mean":
            return (x * mask).sum() / mask.sum()
        of_answers = (x * mask).sum(-1)
        if mode == "seq-mean-token-sum":
            return of_answers.mean()
        if mode == "seq-mean-token-mean":
            return (of_answers / mask.sum(-1)).mean()
        return of_answers.sum() / mask.shape[0] / mask.shape[-1]  # seq-mean-token-sum-norm

    clean = [torch.where(case.mask, x, 0.0) for x in (case.log_p, case.log_old, case.log_ref)]
    ratio = (clean[0] - clean[1]).clamp(-20, 20).exp()
    clip1 = torch.maximum(-advantages * ratio, -advantages * ratio.clamp(0.8, 1.2))
    clip2 = torch.minimum(-advantages * c, clip1)
    x = (clean[2] - clean[0]).clamp(-20, 20)
    kl = (x.exp() - x - 1).clamp(-10, 10)
    return aggregated(torch.where(advantages < 0, clip2, clip1)) + beta * aggregated(kl)


@pytest.mark.parametrize(
    ("mode", "options"),
    [
        ("token-mean", {"aggregation": "token_mean"}),
        ("seq-mean-token-mean", {"aggregation": "sequence_mean"}),
        ("seq-mean-token-sum", {"aggregation": "constant", "max_tokens": 1}),
        ("seq-mean-token-sum-norm", {"aggregation": "constant", "max_tokens": 5}),
    ],
)
def test_verl(mode, options):
    clip = {"clip_low": 0.2, "clip_high": 0.2, "dual_clip": 3.0}
    training = rule(beta=0.001, kl="k3", kl_level="token", kl_clamp=10.0, ratio_level="token", **clip, **options)
    case = batch(4, sequences=40)
    with torch.no_grad():  # some far away, so that the dual clip and the clamp count
        case.log_old[:10] -= 1.5
        case.log_ref[10:20] += 3.0
    exact = small.gradient(verl(case, mode), case.log_p)
    close(case.gradient(training), exact)
    for missing in ({"dual_clip": None}, {"kl_clamp": None}):
        other = case.gradient(dataclasses.replace(training, **missing))
        assert float((other - exact).norm() / exact.norm()) > 1e-5


def test_openrlhf():
    """Group norm with ddof 1 and 1e-9, k1 of each token (clamped at ±10) to go subtracted, .2, global token mean.

    experience_maker.py and models/utils.py, loss.py of OpenRLHF: PolicyLoss with masked_mean over all tokens.
    """
    clip = {"clip_low": 0.2, "clip_high": 0.2}
    training = Training(
        beta=0.01,
        normalization=gd.FiniteGroup(3, eps=1e-9, ddof=1),
        update="sampled",
        learning_rate=1.0,
        kl="k1_in_reward",
        ratio_level="token",
        aggregation="token_mean",
        **clip,
    )
    case, rewards = batch(5), torch.tensor([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0]], dtype=torch.float64)
    penalty = k1_in_reward(case.log_old, case.log_ref, case.mask, training, "token", clamp=10.0)
    case.advantages = group_advantages(rewards, training).reshape(6, 1) - penalty

    k1 = np.where(case.mask, (case.log_old - case.log_ref).clamp(-10, 10), 0.0)
    to_go = np.flip(np.cumsum(np.flip(-0.01 * k1, -1), -1), -1)
    groups = rewards.numpy()
    normed = (groups - groups.mean(1, keepdims=True)) / (groups.std(1, ddof=1, keepdims=True) + 1e-9)
    advantages = torch.tensor(normed.reshape(6, 1) + to_go)
    ratio = torch.where(case.mask, case.log_p - case.log_old, 0.0).exp()
    loss = -torch.minimum(ratio * advantages, ratio.clamp(0.8, 1.2) * advantages)
    close(case.gradient(training), small.gradient((loss * case.mask).sum() / case.mask.sum(), case.log_p))


# ---- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({"mask": torch.ones(6, 5)}, {}, "mask must be boolean, got torch.float32"),
        ({"log_old": torch.zeros(6, 4)}, {}, r"log_old must have the shape of log_p, \(6, 5\), got \(6, 4\)"),
        ({"advantages": torch.zeros(5)}, {}, r"advantages must have shape \(6,\) or \(6, 5\), got \(5,\)"),
        ({"log_p": torch.zeros(6)}, {}, r"log_p must have shape \(sequences, tokens\), got \(6,\)"),
        ({"log_ref": None}, {"kl": "k3"}, 'log_ref is missing: kl="k3" takes the ratio to the reference'),
        ({}, {"kl": "exact"}, "exact_kl is missing"),
        ({}, {"aggregation": "constant"}, "max_tokens is missing"),
        ({}, {"beta": np.array([0.1, 0.2]), "kl": "k2"}, "beta and alpha must be numbers in a loss, got array"),
        ({"log_p": torch.full((6, 5), torch.nan)}, {}, "ratio must be a finite number >= 0, got nan at index"),
    ],
)
def test_bad_arguments(change, options, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(batch(), **change).loss(rule(**options))


def test_weights_of_another_shape():
    with pytest.raises(ValueError, match=r"weights must have shape \(6,\), got \(5,\)"):
        batch().loss(rule(), weights=torch.ones(5))


def test_a_loss_that_leaves_the_numbers_is_not_passed_on():
    """k3 of a token that the reference finds e^2000 times as probable overflows; so does the division by nothing."""
    case = batch()
    case.log_ref[case.mask] += 2000.0
    with pytest.raises(FloatingPointError, match="the loss is inf: a log-probability, an advantage or the KL term"):
        case.loss(rule(kl="k3"))
    with pytest.raises(FloatingPointError, match="or no sequence counts"):
        batch().loss(rule(), weights=torch.zeros(6))


def test_the_gradient_flows_to_the_policy_alone():
    case = batch()
    case.log_old.requires_grad_()
    case.log_ref.requires_grad_()
    case.advantages.requires_grad_()
    case.loss(rule(kl="k3_times_ratio", kl_level="token")).value.backward()
    assert case.log_old.grad is None
    assert case.log_ref.grad is None
    assert case.advantages.grad is None
    assert float(case.log_p.grad.abs().sum()) > 0

"""The loss of a batch as trainers code it: ratio, clipping, KL term, aggregation. Its gradient is what counts.

With ρ = π/π_old, of each token or each answer, a token adds β·KL − min(ρA, clip(ρ)A), and an aggregation says what a
token weighs. A number that belongs to a whole answer stands on each of its tokens.

Everything adds up: with the divisor of the whole batch, the gradients of its parts sum to the gradient of the batch,
however it is cut into micro-batches and processes, and a sequence of weight m is m copies of it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from grpo_dynamics.advantages import clipped, passes
from grpo_dynamics.training.kl import answer_kl, at_level, kl_terms
from grpo_dynamics.update_rule import Training


@dataclasses.dataclass(frozen=True, eq=False)
class Loss:
    """What to minimise, and what to watch.

    Args:
        value: scalar, with its gradient.
        metrics: "tokens": how many, with their multiplicity; and means over them: "mean_ratio", "clip_fraction" of
            those that clipping leaves without a gradient, "mean_kl" of the term in the loss, where there is one.
    """

    value: Tensor
    metrics: dict[str, float]


def policy_loss(
    log_p: Tensor,
    log_old: Tensor,
    advantages: Tensor,
    mask: Tensor,
    training: Training,
    *,
    log_ref: Tensor | None = None,
    weights: Tensor | None = None,
    divisor: float | None = None,
    exact_kl: Tensor | None = None,
) -> Loss:
    """Return the loss of sampled answers.

    Args:
        log_p: log-probabilities of the tokens under π, shape (B, T), with their gradient.
        log_old: those under the policy that sampled, without.
        advantages: of answers, shape (B,) or (B, 1), or of tokens, shape (B, T); a KL term in the reward is in them.
        mask: True where a token of the answer stands, shape (B, T).
        training: β, α, clipping, ratio level, KL term and aggregation; β and α must be numbers.
        log_ref: those under π_ref; for a KL estimator in the loss.
        weights: multiplicity of each sequence, shape (B,): m counts like m copies.
        divisor: that of the whole batch, the sum of :func:`divisor` over its parts; of this part if left out.
            Processes whose gradients are averaged must multiply the value by their number.
        exact_kl: exact KL of the next token at each prefix, shape (B, T), with its gradient, for kl="exact"; with
            α < 1 α times that to π_ref and 1 − α times that to π_old.

    Raises:
        ValueError: for shapes that do not fit, a mask that is not boolean, a ratio that is not finite, β or α that
            are not numbers, or something missing that ``training`` asks for.
        FloatingPointError: for a loss that is not finite.

    Source: [2402.03300, eq. 3]; clip-higher and the token mean [2503.14476]; the constant divisor [2503.20783]; the
    geometric mean [2507.18071]; the dual clip [1912.09729].

    >>> from grpo_dynamics import FiniteGroup
    >>> training = Training(beta=0.1, normalization=FiniteGroup(2), update="sampled", learning_rate=1.0, kl="k2")
    >>> log_p = torch.tensor([[-1.0, -1.0], [-2.0, 0.0]], requires_grad=True)
    >>> mask = torch.tensor([[True, True], [True, False]])
    >>> loss = policy_loss(log_p, log_p.detach(), torch.tensor([1.0, -1.0]), mask, training, log_ref=log_p.detach() - 1)
    >>> loss.value.backward()
    >>> print(log_p.grad)
    tensor([[-0.4000, -0.4000],
            [ 0.5500,  0.0000]])
    """
    _require_shapes(log_p, log_old, advantages, mask, log_ref, weights, exact_kl)
    advantage = advantages.detach().reshape(len(advantages), -1)
    ratio = at_level(log_p - log_old.detach(), mask, training.ratio_level).exp()
    loss = -clipped(ratio, advantage, **_clip_range(training))
    kl = _kl_in_loss(log_p, log_old, log_ref, mask, training, exact_kl)
    if kl is not None:
        loss = loss + float(training.beta) * kl
    whole = divisor if divisor is not None else _divisor(mask, training, weights).to(loss.dtype)
    value = (torch.where(mask, loss, 0.0) * _token_weights(mask, training, weights, loss.dtype)).sum() / whole
    if not bool(torch.isfinite(value)):
        what = "a log-probability, an advantage or the KL term is not finite, or no sequence counts"
        raise FloatingPointError(f"the loss is {float(value.detach())}: {what}")
    watched = {"mean_ratio": ratio, "clip_fraction": _stopped(ratio, advantage, training)}
    return Loss(value, _means(watched if kl is None else watched | {"mean_kl": kl}, mask, weights))


def divisor(mask: Tensor, training: Training, weights: Tensor | None = None) -> float:
    """Return what the loss of these sequences is divided by: add it up over the parts of a batch.

    Sequences that are left out of the loss because their gradient is 0, as those of silent groups, still count.

    Args:
        mask: True where a token of the answer stands, shape (B, T).
        training: the aggregation: "sequence_mean" counts sequences, "token_mean" their tokens, "constant" max_tokens
            for each sequence.
        weights: multiplicity of each sequence, shape (B,).

    Raises:
        ValueError: if max_tokens is missing.

    >>> mask = torch.tensor([[True, True], [True, False]])
    >>> print(divisor(mask, Training(update="gradient", learning_rate=1.0, aggregation="token_mean")))
    3.0
    """
    return float(_divisor(mask, training, weights))


def _divisor(mask: Tensor, training: Training, weights: Tensor | None) -> Tensor:
    counts = _counts(mask, weights, torch.float64)
    if training.aggregation == "token_mean":
        return (counts * mask.sum(dim=-1)).sum()
    if training.aggregation == "sequence_mean":
        return counts.sum()
    if training.max_tokens is None:
        near = 'aggregation="constant" divides by it, and the longest answer differs from batch to batch'
        raise ValueError(f"max_tokens is missing: {near}")
    return training.max_tokens * counts.sum()


def _counts(mask: Tensor, weights: Tensor | None, dtype: torch.dtype) -> Tensor:
    """How often each sequence counts, shape (B,)."""
    return torch.ones(len(mask), dtype=dtype, device=mask.device) if weights is None else weights.to(dtype)


def _token_weights(mask: Tensor, training: Training, weights: Tensor | None, dtype: torch.dtype) -> Tensor:
    """What each token weighs before the division, shape (B, 1)."""
    counts = _counts(mask, weights, dtype)
    lengths = mask.sum(dim=-1).clamp(min=1) if training.aggregation == "sequence_mean" else 1
    return (counts / lengths)[:, None]


def _clip_range(training: Training) -> dict[str, float]:
    """Where no bound is given, the one that no ratio reaches."""
    names = {"clip_low": 1.0, "clip_high": float("inf"), "dual_clip": float("inf")}
    given = {name: getattr(training, name) for name in names}
    return {name: free if given[name] is None else given[name] for name, free in names.items()}


def _kl_in_loss(
    log_p: Tensor,
    log_old: Tensor,
    log_ref: Tensor | None,
    mask: Tensor,
    training: Training,
    exact_kl: Tensor | None,
) -> Tensor | None:
    """The KL term, (B, T) or (B, 1): to π_ref with weight α and to π_old with 1 − α."""
    if hasattr(training.beta, "shape") or hasattr(training.alpha, "shape"):
        raise ValueError(f"beta and alpha must be numbers in a loss, got {training.beta!r} and {training.alpha!r}")
    if training.kl in ("none", "k1_in_reward"):
        return None
    if training.kl == "exact":
        if exact_kl is None:
            raise ValueError('exact_kl is missing: kl="exact" takes the KL of each token, see token_kl')
        return answer_kl(exact_kl, log_p, log_old, mask)
    if log_ref is None and training.alpha > 0:
        raise ValueError(f'log_ref is missing: kl="{training.kl}" takes the ratio to the reference')
    anchors = ((training.alpha, log_ref), (1 - training.alpha, log_old))
    # an answer's KL goes with the ratio of the answer, which alone makes it unbiased
    by_mean = training.kl_level == "token" and training.ratio_level == "geometric_mean"
    terms = [
        weight
        * kl_terms(
            training.kl,
            log_p,
            anchor,
            mask,
            training.kl_level,
            log_old=log_old,
            ratio_level="geometric_mean" if by_mean else None,
            clamp=training.kl_clamp,
        )
        for weight, anchor in anchors
        if weight > 0 and anchor is not None
    ]
    return terms[0] if len(terms) == 1 else terms[0] + terms[1]


def _stopped(ratio: Tensor, advantage: Tensor, training: Training) -> Tensor:
    """Where clipping takes the gradient away, 1 or 0."""
    stopped = ~passes(ratio, advantage, **_clip_range(training)) & (advantage != 0)
    return stopped.to(ratio.dtype)


def _means(watched: dict[str, Tensor], mask: Tensor, weights: Tensor | None) -> dict[str, float]:
    """The number of tokens, and means over them."""
    counts = torch.where(mask, _counts(mask, weights, torch.float64)[:, None], 0.0)
    tokens = counts.sum()
    sums = [(counts * torch.where(mask, x.detach(), 0.0)).sum() for x in watched.values()]
    some = tokens.clamp(min=torch.finfo(tokens.dtype).tiny)
    values = torch.stack([tokens, *(x / some for x in sums)]).tolist()  # one transfer from the device
    return dict(zip(("tokens", *watched), values, strict=True))


def pooled(metrics: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the metrics of a batch from those of its parts.

    >>> print(pooled([{"tokens": 1.0, "mean_kl": 0.4}, {"tokens": 3.0, "mean_kl": 0.0}]))
    {'tokens': 4.0, 'mean_kl': 0.1}
    """
    tokens = sum(part["tokens"] for part in metrics)
    names = [name for name in metrics[0] if name != "tokens"] if metrics else []
    weighted = {name: sum(part["tokens"] * part[name] for part in metrics) for name in names}
    return {"tokens": tokens} | {name: value / tokens if tokens else 0.0 for name, value in weighted.items()}


def _require_shapes(
    log_p: Tensor,
    log_old: Tensor,
    advantages: Tensor,
    mask: Tensor,
    log_ref: Tensor | None,
    weights: Tensor | None,
    exact_kl: Tensor | None,
) -> None:
    if mask.dtype != torch.bool:
        raise ValueError(f"mask must be boolean, got {mask.dtype}")
    shape = tuple(log_p.shape)
    if log_p.ndim != 2:
        raise ValueError(f"log_p must have shape (sequences, tokens), got {shape}")
    for name, value in (("log_old", log_old), ("mask", mask), ("log_ref", log_ref), ("exact_kl", exact_kl)):
        if value is not None and tuple(value.shape) != shape:
            raise ValueError(f"{name} must have the shape of log_p, {shape}, got {tuple(value.shape)}")
    if tuple(advantages.shape) not in ((shape[0],), (shape[0], 1), shape):
        raise ValueError(f"advantages must have shape {shape[:1]} or {shape}, got {tuple(advantages.shape)}")
    if weights is not None and tuple(weights.shape) != shape[:1]:
        raise ValueError(f"weights must have shape {shape[:1]}, got {tuple(weights.shape)}")

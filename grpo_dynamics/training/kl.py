"""The KL term as trainers code it: estimators from sampled tokens, and the exact divergence from full logits.

With ℓ = log π/π_ref the estimators are k1 = ℓ, k2 = ½ℓ², k3 = e^−ℓ − 1 + ℓ. What counts is their gradient, not their
value: on-policy that of k2 is on average the gradient of KL(π‖π_ref), that of k3 the one of KL(π_ref‖π), that of k1
is 0, and times the ratio π/π_old that of k1 and k3 is the one of KL(π‖π_ref) again. Per token of longer answers all of
them forget that the policy also decides which prefixes occur; :func:`answer_kl` does not.

Derived in docs/notebooks/8_kl_estimators and 11_sequences. B sequences, T tokens; what ``mask`` leaves out counts
nothing, whatever stands there.
"""

from __future__ import annotations

import torch
from torch import Tensor

from grpo_dynamics.arrays import require, require_choice

LEVELS = ("token", "sequence", "geometric_mean")
ESTIMATORS = ("k1", "k2", "k3", "k1_times_ratio", "k3_times_ratio")


def at_level(log_ratio: Tensor, mask: Tensor, level: str) -> Tensor:
    """Return the log-ratio of each token, of the answer, or its mean over the tokens of the answer.

    Args:
        log_ratio: of each token, shape (B, T).
        mask: True where a token of the answer stands, shape (B, T).
        level: "token", "sequence" or "geometric_mean".

    Returns:
        Shape (B, T), 0 where no token stands, or (B, 1).

    >>> log_ratio, mask = torch.tensor([[0.5, 1.0, 9.0]]), torch.tensor([[True, True, False]])
    >>> for level in LEVELS:
    ...     print(at_level(log_ratio, mask, level).tolist())
    [[0.5, 1.0, 0.0]]
    [[1.5]]
    [[0.75]]
    """
    require_choice("level", level, LEVELS)
    inside = torch.where(mask, log_ratio, 0.0)  # not a product: what stands outside may be infinite
    if level == "token":
        return inside
    total = inside.sum(dim=-1, keepdim=True)
    return total if level == "sequence" else total / mask.sum(dim=-1, keepdim=True).clamp(min=1)


def kl_terms(
    name: str,
    log_p: Tensor,
    log_ref: Tensor,
    mask: Tensor,
    level: str = "token",
    *,
    log_old: Tensor | None = None,
    ratio_level: str | None = None,
    clamp: float | None = None,
) -> Tensor:
    """Return a KL estimator whose automatic derivative is the one that trainers take.

    Args:
        name: "k1", "k2", "k3", "k1_times_ratio" or "k3_times_ratio".
        log_p: log-probabilities of the tokens under π, shape (B, T), with their gradient.
        log_ref: those under π_ref.
        mask: True where a token of the answer stands.
        level: "token": of each token's log-ratio; "sequence": of the answer's.
        log_old: those under the policy that sampled; only the names with a ratio ask for it.
        ratio_level: what the ratio is taken of, if not of the ``level``: TRL with sequence-level importance sampling
            multiplies each token's k3 with the "geometric_mean".
        clamp: k1, k2, k3 beyond ± this number are replaced by it, and have no gradient (verl and OpenRLHF: 10).

    Returns:
        Shape (B, T), 0 where no token stands, or (B, 1).

    Raises:
        ValueError: for an unknown name or level, a clamp that is not > 0, or a missing log_old.

    >>> log_p = torch.tensor([[-1.0, -2.0]], requires_grad=True)
    >>> log_ref, mask = torch.tensor([[-1.5, -1.0]]), torch.tensor([[True, True]])
    >>> kl_terms("k2", log_p, log_ref, mask).sum().backward()
    >>> print(log_p.grad)
    tensor([[ 0.5000, -1.0000]])
    """
    require_choice("name", name, ESTIMATORS)
    require_choice("level", level, ("token", "sequence"))
    log_ratio = at_level(log_p - log_ref.detach(), mask, level)
    if clamp is not None:
        require("clamp", clamp, "a finite number > 0", lambda x: (x > 0) & (x < float("inf")))
        # beyond ±(clamp + 1) all three are beyond the clamp: this changes nothing, but e^−ℓ cannot overflow
        log_ratio = log_ratio.clamp(-clamp - 1, clamp + 1)
    value = _estimator(name[:2], log_ratio)
    if clamp is not None:
        value = value.clamp(-clamp, clamp)
    if not name.endswith("_times_ratio"):
        return value
    if log_old is None:
        raise ValueError(f"log_old is missing: {name!r} takes the ratio to the policy that sampled")
    return value * at_level(log_p - log_old.detach(), mask, ratio_level or level).exp()


def _estimator(name: str, log_ratio: Tensor) -> Tensor:
    if name == "k1":
        return log_ratio
    if name == "k2":
        return log_ratio * log_ratio / 2
    return torch.expm1(-log_ratio) + log_ratio


def token_kl(logits: Tensor, logits_ref: Tensor) -> Tensor:
    """Return KL(π‖π_ref) of the next token, exactly.

    Args:
        logits: of π, or log-probabilities, shape (..., V), with their gradient. −inf excludes a token.
        logits_ref: those of π_ref.

    Returns:
        Shape (...), ≥ 0; infinite where π_ref excludes a token that π does not.

    >>> print(token_kl(torch.tensor([0.0, 0.0]), torch.tensor([0.25, 0.75]).log()))
    tensor(0.1438)
    """
    log_p, log_ref = logits.log_softmax(dim=-1), logits_ref.detach().log_softmax(dim=-1)
    possible = log_p > -torch.inf
    # both differ from −inf before they are subtracted: otherwise the branch not taken has the gradient NaN
    difference = torch.where(possible, log_p, 0.0) - torch.where(possible, log_ref, 0.0)
    return (log_p.exp() * difference).sum(dim=-1)


def answer_kl(kl: Tensor, log_p: Tensor, log_old: Tensor, mask: Tensor) -> Tensor:
    """Return Σ_t ρ_(<t)·KL_t, whose mean over sampled answers is KL(π‖π_ref) of whole answers, as is its gradient.

    ρ_(<t) = π/π_old of the tokens before t is 1 on-policy, but its gradient says that π decides which prefixes occur.

    Args:
        kl: exact KL of the next token at each prefix, shape (B, T), with its gradient, as from :func:`token_kl`.
        log_p: log-probabilities of the sampled tokens under π, shape (B, T), with their gradient.
        log_old: those under the policy that sampled.
        mask: True where a token of the answer stands.

    Returns:
        Shape (B, 1).

    Source: E over answers of log π/π_ref = Σ_t E over prefixes of KL_t, and importance sampling of the prefixes.

    >>> kl, mask = torch.tensor([[0.1, 0.2]]), torch.tensor([[True, True]])
    >>> print(answer_kl(kl, torch.zeros(1, 2), torch.tensor([[0.0, -1.0]]), mask))
    tensor([[0.3000]])
    """
    log_ratio = at_level(log_p - log_old.detach(), mask, "token")
    before = log_ratio.cumsum(dim=-1) - log_ratio
    return torch.where(mask, before.exp() * torch.where(mask, kl, 0.0), 0.0).sum(dim=-1, keepdim=True)

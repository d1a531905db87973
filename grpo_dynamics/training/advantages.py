"""From the rewards of sampled groups to the advantage of each answer, or of each token of it.

Q questions, N groups of each, G answers in a group; B sequences and T tokens where a loss is near. Nothing here has a
gradient: advantages are numbers to the loss.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from grpo_dynamics import advantages as adv
from grpo_dynamics.arrays import require_choice
from grpo_dynamics.finite_group import FiniteGroup
from grpo_dynamics.simulation.process import process_advantages
from grpo_dynamics.update_rule import Training


def group_advantages(
    rewards: Tensor, training: Training, *, log_odds: Tensor | None = None, values: Tensor | None = None
) -> Tensor:
    """Return the advantage of every answer, by the normalisation and the kind of advantage of ``training``.

    Args:
        rewards: shape (Q, N, G), or (Q, N·G) with the N = training.groups of a question side by side. A KL term before
            the normalisation (verl) has been subtracted: see :func:`k1_in_reward`. With std_over="batch" all questions
            of the step must be here.
        training: its normalization, advantage, std_over and group size.
        log_odds: of the success probability of the policy that answered, shape (Q,); for normalisations with exact
            statistics, whose rewards are 0 or 1.
        values: of the critic, shape (Q,); for advantage="critic".

    Returns:
        The shape of ``rewards``. Where the mean of the group is subtracted, silent groups have 0.

    Raises:
        ValueError: for rewards that are not finite or no whole groups, or missing log_odds or values.

    >>> from grpo_dynamics import FiniteGroup
    >>> training = Training(normalization=FiniteGroup(4), update="sampled", learning_rate=0.1)
    >>> print(group_advantages(torch.tensor([[1.0, 0.0, 0.0, 0.0]]), training))
    tensor([[ 1.7321, -0.5774, -0.5774, -0.5774]])
    """
    groups = _in_groups(rewards, training)
    return _advantages(groups, training, log_odds, values).reshape(rewards.shape)


def _advantages(groups: Tensor, training: Training, log_odds: Tensor | None, values: Tensor | None) -> Tensor:
    normalization = training.normalization
    if training.advantage == "rloo":
        return adv.leave_one_out(groups)
    if training.advantage == "reinforce":
        return groups
    if training.advantage == "critic":
        if values is None:
            raise ValueError('values is missing: advantage="critic" subtracts them')
        return groups - _beside(values, groups)
    if training.has_exact_statistics:
        if log_odds is None:
            near = f"the policy's own success probability; or take FiniteGroup({groups.shape[-1]})"
            raise ValueError(f"log_odds is missing: {normalization!r} takes {near}")
        right, wrong = normalization.positive(log_odds), normalization.negative(log_odds)
        return groups * _beside(right, groups) - (1 - groups) * _beside(wrong, groups)
    if not isinstance(normalization, FiniteGroup):
        return adv.centred(groups)
    smoothing = _beside(normalization.eps, groups), normalization.eps_placement, normalization.ddof
    if training.std_over is None:
        return adv.whitened(groups, *smoothing)
    if training.std_over == "batch":  # the mean of the batch, subtracted first, goes away with that of the group
        return adv.centred(adv.whitened(groups.flatten(), *smoothing).reshape(groups.shape))
    return adv.whitened(adv.centred(groups).flatten(), *smoothing).reshape(groups.shape)


def silent(rewards: Tensor, training: Training) -> Tensor:
    """Return which groups have equal rewards throughout, and so teach nothing; shape (Q, N).

    >>> from grpo_dynamics import FiniteGroup
    >>> training = Training(normalization=FiniteGroup(2), update="sampled", learning_rate=0.1, groups=2)
    >>> print(silent(torch.tensor([[1.0, 0.0, 1.0, 1.0]]), training))
    tensor([[False,  True]])
    """
    groups = _in_groups(rewards, training)
    return groups.amax(dim=-1) == groups.amin(dim=-1)


def _in_groups(rewards: Tensor, training: Training) -> Tensor:
    size, shape = training.size, tuple(rewards.shape)
    if not rewards.is_floating_point():
        raise ValueError(f"rewards must be floating-point numbers, got {rewards.dtype}")
    if not bool(torch.isfinite(rewards).all()):
        raise ValueError("rewards must be finite numbers")
    if rewards.ndim == 3 and shape[-1] == size:
        return rewards
    if rewards.ndim == 2 and shape[-1] == training.groups * size:
        return rewards.reshape(shape[0], training.groups, size)
    allowed = f"(questions, groups, {size}) or (questions, {training.groups * size})"
    raise ValueError(f"rewards must have the shape {allowed}, got {shape}")


def _beside(option: Any, groups: Tensor) -> Any:
    """A number as it is, or one value per question beside its groups."""
    if not hasattr(option, "shape"):
        return option
    return torch.as_tensor(option, dtype=groups.dtype, device=groups.device).reshape(-1, 1, 1)


def k1_in_reward(
    log_old: Tensor,
    log_ref: Tensor,
    mask: Tensor,
    training: Training,
    level: str = "sequence",
    clamp: float | None = None,
) -> Tensor:
    """Return β·α·k1, to be subtracted: from advantages (OpenRLHF), or from rewards before they are normalised (verl).

    Subtracted from advantages its expected gradient is that of β·α·KL(π‖π_ref) of whole answers, exactly, at both
    levels. Inside the rewards, :func:`group_advantages` divides it by the standard deviation as well. With a weight
    1 − α of the policy that answered, that one's own log-ratio is 0.

    Args:
        log_old: log-probabilities of the tokens under the policy that sampled, shape (B, T).
        log_ref: those under π_ref.
        mask: True where a token of the answer stands.
        training: β and α.
        level: "sequence": of the answer, shape (B, 1); "token": of the token and those after it, shape (B, T).
        clamp: bound on ± each token's k1 (OpenRLHF: 10).

    >>> training, mask = Training(beta=0.1), torch.tensor([[True, True]])
    >>> print(k1_in_reward(torch.tensor([[-1.0, -2.0]]), torch.tensor([[-2.0, -4.0]]), mask, training, level="token"))
    tensor([[0.3000, 0.2000]])
    """
    require_choice("level", level, ("sequence", "token"))
    terms = torch.where(mask, log_old - log_ref, 0.0).detach()
    if clamp is not None:
        terms = terms.clamp(-clamp, clamp)
    if level == "sequence":
        return training.beta * training.alpha * terms.sum(dim=-1, keepdim=True)
    return torch.where(mask, training.beta * training.alpha * adv.returns(terms), 0.0)


def step_advantages(step_rewards: Tensor, training: Training) -> Tensor:
    """Return the advantage of each token where the steps of answers are rewarded: DeepSeekMath's process supervision.

    Args:
        step_rewards: shape (..., G, T): what the step earns that ends with the token, NaN where no step ends.
        training: with FiniteGroup, whose mean and standard deviation are taken over all steps of the group, or with
            MeanOnly(group_size=G), without the standard deviation.

    Returns:
        Shape (..., G, T): the sum over the steps that end at the token or after it.

    Raises:
        ValueError: for another normalisation, another group size, or what
            :func:`~grpo_dynamics.simulation.process.process_advantages` refuses.

    >>> from grpo_dynamics import FiniteGroup
    >>> training, nan = Training(normalization=FiniteGroup(2), update="sampled", learning_rate=0.1), float("nan")
    >>> print(step_advantages(torch.tensor([[nan, 1.0, 1.0], [0.0, nan, 0.0]]), training))
    tensor([[ 2.,  2.,  1.],
            [-2., -1., -1.]])
    """
    normalization = training.normalization
    if training.advantage != "group" or training.has_exact_statistics or training.std_over is not None:
        near = "FiniteGroup(G) or MeanOnly(group_size=G), with the mean and std of the group"
        raise ValueError(f"process supervision takes the steps of a group: take {near}, got {training!r}")
    if step_rewards.ndim < 2 or step_rewards.shape[-2] != training.size:
        raise ValueError(f"step_rewards must have shape (..., {training.size}, T), got {tuple(step_rewards.shape)}")
    if not isinstance(normalization, FiniteGroup):
        return process_advantages(step_rewards, divide=False)
    return process_advantages(step_rewards, normalization.eps, normalization.eps_placement, normalization.ddof)


def gae_advantages(
    rewards: Tensor, values: Tensor, mask: Tensor, gae_lambda: float = 1.0, gamma: float = 1.0
) -> Tensor:
    """Return generalised advantage estimates of each token, shape (B, T), 0 where no token stands.

    Args:
        rewards: of each answer, earned with its last token, shape (B,), or of each token, shape (B, T).
        values: the critic's value of the prefix before each token, shape (B, T).
        mask: True where a token of the answer stands; the tokens of an answer lie side by side from the first on.
        gae_lambda: λ in [0, 1].
        gamma: discount γ in [0, 1].

    Raises:
        ValueError: for λ or γ out of range.

    Source: [1506.02438, eq. 16].

    >>> values, mask = torch.tensor([[0.5, 0.75, 9.0]]), torch.tensor([[True, True, False]])
    >>> print(gae_advantages(torch.tensor([1.0]), values, mask, gae_lambda=0.5))
    tensor([[0.3750, 0.2500, 0.0000]])
    """
    if rewards.ndim == 1:
        position = torch.arange(mask.shape[-1], device=mask.device)
        last = position == mask.sum(dim=-1, keepdim=True) - 1
        rewards = torch.where(last, rewards[:, None], 0.0)
    rewards, values = torch.where(mask, rewards, 0.0), torch.where(mask, values, 0.0)
    return adv.gae(rewards.detach(), values.detach(), gae_lambda, gamma)


def whitened_over_tokens(
    advantages: Tensor, mask: Tensor, weights: Tensor | None = None, eps: float = 1e-8, ddof: int = 1
) -> Tensor:
    """Return the advantages of tokens less their mean over all tokens of the batch, over their standard deviation.

    As PPO and REINFORCE++ whiten them; the whole batch must be here.

    Args:
        advantages: shape (B, T).
        mask: True where a token of the answer stands.
        weights: multiplicity of each sequence, shape (B,).
        eps: added to the variance (verl, with ddof 1).
        ddof: 0 divides the sum of squares by the number of tokens, 1 by one less.

    Returns:
        Shape (B, T), 0 where no token stands.

    >>> print(whitened_over_tokens(torch.tensor([[1.0, 3.0, 0.0]]), torch.tensor([[True, True, False]]), ddof=0))
    tensor([[-1.,  1.,  0.]])
    """
    require_choice("ddof", ddof, (0, 1))
    counts = mask if weights is None else weights[:, None] * mask
    tokens = counts.sum()
    distance = torch.where(mask, advantages, 0.0)
    distance = torch.where(mask, distance - (counts * distance).sum() / tokens, 0.0)
    variance = (counts * distance**2).sum() / (tokens - ddof).clamp(min=1)
    return distance / torch.sqrt(variance + eps)

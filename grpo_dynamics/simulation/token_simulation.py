"""Training of policies that choose token by token: PPO with a critic, RLOO, REINFORCE, process supervision."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from grpo_dynamics.advantages import gae, passes, returns
from grpo_dynamics.arrays import Array, as_arrays, namespace, quiet, require, to_numpy
from grpo_dynamics.logodds import sigmoid
from grpo_dynamics.normalization import MeanOnly
from grpo_dynamics.simulation.answer_tree import AnswerTree
from grpo_dynamics.simulation.critic import Critic
from grpo_dynamics.simulation.outcomes import Outcomes
from grpo_dynamics.simulation.policies import log_odds
from grpo_dynamics.simulation.process import push_of_groups
from grpo_dynamics.simulation.random_states import random_state, set_random_state
from grpo_dynamics.simulation.sampling import draw, generator
from grpo_dynamics.simulation.token_training import OF_A_CRITIC, TokenTraining
from grpo_dynamics.update_rule import Training


@dataclasses.dataclass(frozen=True, eq=False)
class TokenState:
    """Where a simulation stands: all that the next step depends on.

    Args:
        step: how many steps are done.
        log_policy: log-probabilities of the edges, shape (questions, edges).
        values: the critic's table, or the running means in a column, shape (questions, entries).
        random: state of the random generator; None where nothing was sampled.
    """

    step: int
    log_policy: Any
    values: Any
    random: Any = None

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the state to a file, whole or not at all."""
        path = Path(path)
        beside = path.with_name(path.name + ".part")
        with beside.open("wb") as file:
            np.savez(
                file,
                step=np.asarray(self.step),
                log_policy=to_numpy(self.log_policy),
                values=to_numpy(self.values),
                random=np.asarray(json.dumps(self.random)),
            )
        beside.replace(path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> TokenState:
        """Read a state.

        Raises:
            ValueError: for a file that is missing or is no saved state.
        """
        try:
            # from memory: of a torn file NumPy would leave the handle open
            with np.load(io.BytesIO(Path(path).read_bytes()), allow_pickle=False) as file:
                return cls(int(file["step"]), file["log_policy"], file["values"], json.loads(str(file["random"])))
        except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"path must be a saved state, got {str(path)!r}: {error}") from None


@dataclasses.dataclass(frozen=True, eq=False)
class TokenSimulation:
    """What happened; the first record is the start.

    Args:
        log_odds: of a right answer, shape (records, questions).
        values: what the critic says of the question before the first token, or the running mean; 0 without one.
        tokens: mean number of tokens of an answer, shape (records, questions).
        steps: after how many steps each record was taken.
        state: where it stands.
    """

    log_odds: Any
    values: Any
    tokens: Any
    steps: Any
    state: TokenState

    @property
    def p(self) -> Array:
        """Success probabilities, shape (records, questions)."""
        return sigmoid(self.log_odds)


def simulate_tokens(
    tree: AnswerTree,
    training: TokenTraining,
    steps: int,
    seed: int = 0,
    start: Array | None = None,
    state: TokenState | None = None,
    record_every: int = 1,
) -> TokenSimulation:
    """Train the policies of all questions from the reference.

    Args:
        tree: the answers. A torch tensor in it is computed on by torch, on its device.
        training: the update rule.
        steps: how many outer steps, ≥ 0.
        seed: of the sampling.
        start: probabilities > 0 of all answers at the start, shape (questions, answers); the reference if left out.
        state: where an earlier simulation of the same tree and training ended; it goes on as if it had never stopped.
        record_every: steps between two records; the end is always recorded.

    Raises:
        ValueError: for counts out of range, a start or state that does not fit, or process supervision without steps.
        FloatingPointError: if a policy leaves the numbers, as with a learning rate that is far too large.

    >>> tree = AnswerTree.chains([[0.2, 0.8]], [[True, False]], [1, 1])
    >>> ppo = TokenTraining(learning_rate=0.5, advantage="exact_critic", beta=1.0, kl="k1_in_reward")
    >>> print(simulate_tokens(tree, ppo, steps=200).log_odds[[0, -1], 0].round(6))  # Dr. GRPO's: L_ref + 1/β
    [-1.386294 -0.386294]
    """
    for name, value, least in (("steps", steps, 0), ("record_every", record_every, 1)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{name} must be an integer >= {least}, got {value!r}")
    if training.supervision == "process" and tree.step_rewards is None:
        nearest = 'give the tree step_rewards, or take supervision="outcome"'
        raise ValueError(f'supervision="process" means nothing without steps; {nearest}')
    if training.supervision == "outcome" and tree.step_rewards is not None:
        tree = dataclasses.replace(tree, step_rewards=None)
    random = generator(seed, tree.reference) if training.group_size is not None else None
    critic, reference = Critic(tree, training.view), tree.log_reference
    untrained = critic.untrained if training.advantage in OF_A_CRITIC else critic.untrained[:, :1]
    if state is None:
        state = TokenState(0, reference if start is None else _started(tree, start), untrained)
    else:
        for own, other in ((reference, state.log_policy), (untrained, state.values)):
            if tuple(other.shape) != tuple(own.shape):
                shapes = f"{tuple(own.shape)}, got {tuple(other.shape)}"
                raise ValueError(f"state must be of a tree, questions and a critic of the same shape {shapes}")
        set_random_state(random, state.random)
    policy, table, first = state.log_policy, state.values, state.step
    records = [_record(tree, policy, table)]
    taken = [first]
    for step in range(first + 1, first + steps + 1):
        share, push, table = _samples(random, policy, table, critic, training)
        old = policy
        for _ in range(training.inner_steps):
            weights = _weights(tree, policy, old, share, push, training)
            policy = tree.normalize(policy + training.learning_rate * tree.gradient(policy, weights))
        if (step - first) % record_every == 0 or step == first + steps:
            records.append(_record(tree, policy, table))
            taken.append(step)
            _check(records[-1][0], step)
    xp = namespace(policy)
    odds, values, tokens = (xp.stack(list(x)) for x in zip(*records, strict=True))
    final = TokenState(first + steps, policy, table, random_state(random))
    return TokenSimulation(odds, values, tokens, np.asarray(taken), final)


def _started(tree: AnswerTree, start: Array) -> Array:
    require("start", start, "probabilities > 0", lambda x: (x > 0) & (x < float("inf")))
    _, first, reference = as_arrays(start, tree.reference)
    if tuple(first.shape) != tuple(reference.shape):
        raise ValueError(f"start must have shape {tuple(reference.shape)}, got {tuple(first.shape)}")
    return tree.edges_of(first)


@quiet
def _samples(
    random: Any, log_policy: Array, table: Array, critic: Critic, training: TokenTraining
) -> tuple[Array, Array, Array]:
    """The share of each answer, the mean advantages of its tokens, and what the critic has learned afterwards."""
    tree = critic.tree
    xp = namespace(log_policy)
    log_answers = tree.answers_of(log_policy)
    if training.group_size is None:
        counts = xp.exp(log_answers)[:, None, :]
    else:
        counts = _drawn(random, log_answers, tree, training)
    share = xp.sum(counts, axis=1) / xp.sum(counts, axis=(1, 2))[:, None]
    penalty = 0.0 * tree.rewards
    if training.kl == "k1_in_reward":
        penalty = -training.beta * tree.of_tokens(log_policy - tree.log_reference, tree.edge)
    rewards = tree.rewards + penalty

    if training.advantage in ("grpo", "dr_grpo"):
        divide = training.advantage == "grpo"
        push = push_of_groups(tree, counts, divide, training.eps, training.eps_placement, training.ddof)
        return share, push + tree.per_token(share) * returns(penalty), table
    if training.advantage == "rloo":
        return share, _left_out(tree, counts, xp.sum(rewards, axis=2), training.group_size), table
    if training.advantage in ("reinforce", "running_mean"):
        push = tree.per_token(share) * (returns(rewards) - table[:, :, None])
        if training.critic_rate is not None:
            mean = xp.sum(share * xp.sum(rewards, axis=2), axis=1, keepdims=True)
            table = table + training.critic_rate * (mean - table)
        return share, push, table
    if training.advantage == "exact_critic":
        table = critic.exact(xp.exp(log_answers), rewards, training.gamma)
    values = critic.of_tokens(table)
    advantages = gae(rewards, values, training.gae_lambda, training.gamma)
    if training.critic_rate is not None:
        table = critic.learn(table, share, advantages + values, training.critic_rate)
    return share, tree.per_token(share) * advantages, table


def _drawn(random: Any, log_answers: Array, tree: AnswerTree, training: TokenTraining) -> Array:
    """How often each answer came in each group, shape (questions, groups, answers)."""
    questions = Outcomes(log_answers, tree.correct)
    size, groups = training.group_size, training.groups
    sizes = Training(update="sampled", learning_rate=1.0, normalization=MeanOnly(), group_size=size, groups=groups)
    drawn = draw(random, log_answers, questions, sizes)
    return drawn.right + drawn.wrong


def _left_out(tree: AnswerTree, counts: Array, rewards: Array, group_size: int | None) -> Array:
    """Mean over the samples of the reward less the mean of the other answers of the group."""
    xp = namespace(counts)
    mean = xp.sum(counts * rewards[:, None, :], axis=2, keepdims=True) / xp.sum(counts, axis=2, keepdims=True)
    others = 1.0 if group_size is None else group_size / (group_size - 1)
    push = xp.sum(counts * (rewards[:, None, :] - mean), axis=1) * others
    return tree.per_token(push / xp.sum(counts, axis=(1, 2))[:, None])


@quiet
def _weights(
    tree: AnswerTree, log_policy: Array, old: Array, share: Array, push: Array, training: TokenTraining
) -> Array:
    """What multiplies ∇ log π of every token: ratio times advantage where it is not clipped, less the KL term's."""
    xp = namespace(log_policy)
    ratio = xp.exp(tree.of_tokens(log_policy - old, tree.edge))
    low = 1.0 if training.clip_low is None else training.clip_low
    high = float("inf") if training.clip_high is None else training.clip_high
    weights = xp.where((push != 0) & passes(ratio, push, low, high), ratio * push, 0.0)
    if training.kl in ("exact", "k3"):
        log_ratio = tree.of_tokens(log_policy - tree.log_reference, tree.edge)
        if training.kl == "exact":
            answers = tree.per_token(xp.exp(tree.answers_of(log_policy)))
            return weights - training.beta * answers * returns(log_ratio)
        return weights + training.beta * tree.per_token(share) * xp.expm1(-log_ratio)
    return weights


def _record(tree: AnswerTree, log_policy: Array, table: Array) -> tuple[Array, Array, Array]:
    xp = namespace(log_policy)
    log_answers = tree.answers_of(log_policy)
    tokens = xp.sum(xp.exp(log_answers) * tree.beside(tree.lengths), axis=1)
    return log_odds(log_answers, tree.correct), table[:, 0], tokens


def _check(state: Array, step: int) -> None:
    xp = namespace(state)
    wrong = state != state
    if bool(xp.any(wrong)):
        question = int(xp.argmax(xp.astype(wrong, xp.int8)))
        raise FloatingPointError(f"question {question} left the numbers by step {step}: take a smaller learning_rate")

"""Training of policies on K answers per question, many questions at once, with each departure from the theory."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from grpo_dynamics.arrays import Array, as_arrays, batch_shape, namespace, require, to_numpy
from grpo_dynamics.logodds import complement, sigmoid
from grpo_dynamics.simulation.exact import minimize
from grpo_dynamics.simulation.gradient import expected_batch
from grpo_dynamics.simulation.losses import ascend
from grpo_dynamics.simulation.outcomes import Outcomes
from grpo_dynamics.simulation.policies import log_odds, normalize, renyi_correction
from grpo_dynamics.simulation.random_states import random_state, set_random_state
from grpo_dynamics.simulation.sampled import sampled_batch
from grpo_dynamics.simulation.sampling import generator
from grpo_dynamics.update_rule import Training


@dataclasses.dataclass(frozen=True, eq=False)
class State:
    """Where a simulation stands: all that the next step depends on.

    Args:
        step: how many steps are done.
        log_policy: log-probabilities, shape (questions, K).
        log_reference: those of π_ref, which reference_refresh moves.
        values: of the critic, shape (questions,); 0 where there is none.
        random: state of the random generator; None where nothing was sampled.
    """

    step: int
    log_policy: Any
    log_reference: Any
    values: Any
    random: Any = None

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the state to a file, whole or not at all."""
        buffer = io.BytesIO()
        np.savez(
            buffer,
            step=np.asarray(self.step),
            log_policy=to_numpy(self.log_policy),
            log_reference=to_numpy(self.log_reference),
            values=to_numpy(self.values),
            random=np.asarray(json.dumps(self.random)),
        )
        path = Path(path)
        beside = path.with_name(path.name + ".part")
        beside.write_bytes(buffer.getvalue())
        os.replace(beside, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str], like: Array | None = None) -> State:
        """Read a state.

        Args:
            path: the file.
            like: an array of the library and on the device that goes on with it; NumPy if left out.

        Raises:
            ValueError: for a file that is missing or is no saved state.
        """
        try:
            # from memory: of a torn file NumPy would leave the handle open
            with np.load(io.BytesIO(Path(path).read_bytes()), allow_pickle=False) as file:
                step, arrays = int(file["step"]), [file[name] for name in ("log_policy", "log_reference", "values")]
                random = json.loads(str(file["random"]))
        except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
            raise ValueError(f"path must be a saved state, got {str(path)!r}: {error}") from None
        if like is not None:
            xp = namespace(like)
            arrays = [xp.asarray(array, device=like.device) for array in arrays]
        policy, reference, values = arrays
        return cls(step, policy, reference, values, random)


@dataclasses.dataclass(frozen=True, eq=False)
class Simulation:
    """What happened.

    Args:
        log_odds: of a right answer, shape (records, questions); the first record is the start.
        steps: after how many steps each record was taken.
        renyi: Δ_R of each step, shape (steps, questions), for the exact update; None for the others.
        state: where it stands.
    """

    log_odds: Any
    steps: Any
    renyi: Any
    state: State

    @property
    def p(self) -> Array:
        """Success probabilities, shape (records, questions)."""
        return sigmoid(self.log_odds)

    @property
    def one_minus_p(self) -> Array:
        """Failure probabilities, exact where p rounds to 1."""
        return complement(self.log_odds)

    @property
    def log_policy(self) -> Array:
        """Log-probabilities of the last policy, shape (questions, K)."""
        return self.state.log_policy

    @property
    def log_reference(self) -> Array:
        """Log-probabilities of the reference, shape (questions, K); another than at first if it was refreshed."""
        return self.state.log_reference


def simulate(
    outcomes: Outcomes,
    training: Training,
    steps: int,
    seed: int = 0,
    start: Array | None = None,
    state: State | None = None,
    record_every: int = 1,
) -> Simulation:
    """Train the policies of all questions.

    Args:
        outcomes: the questions. A torch tensor in it is computed on by torch, on its device.
        training: the update rule.
        steps: how many outer steps, ≥ 0.
        seed: of the sampling. Equal seeds give equal bits on one machine.
        start: log-probabilities of π_0, shape (questions, K); π_ref if left out.
        state: where an earlier simulation of the same questions and training ended; it goes on as if it had never
            stopped, and seed and start have no say. Its steps count on.
        record_every: steps between two records; the end is always recorded.

    Raises:
        ValueError: for counts out of range, options whose shape is not that of the questions, or a start or state
            that does not fit the questions.
        FloatingPointError: if a policy leaves the numbers, as with a learning rate that is far too large.

    >>> import grpo_dynamics as gd
    >>> questions = Outcomes.uniform([0.2, 0.5], right=2, wrong=3)
    >>> exact = simulate(questions, Training(beta=1.0), steps=3)
    >>> print(exact.p[-1].round(6), gd.grpo(1.0, np.array([0.2, 0.5])).iterate(3).p[-1].round(6))
    [0.697339 0.992547] [0.697339 0.992547]
    """
    for name, value, least in (("steps", steps, 0), ("record_every", record_every, 1)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{name} must be an integer >= {least}, got {value!r}")
    if training.std_over is not None:
        allowed = "None in a simulation, whose questions share nothing (BatchRecursion is their theory)"
        raise ValueError(f"std_over must be {allowed}, got {training.std_over!r}")
    if batch_shape(training) not in ((), (1,), (outcomes.questions,)):
        raise ValueError(f"options must be numbers or of shape ({outcomes.questions},), got {batch_shape(training)}")
    rng = generator(seed, outcomes.log_reference) if training.update == "sampled" else None
    if state is None:
        state = State(0, _started(outcomes, start), outcomes.log_reference, 0.0 * outcomes.lengths[:, 0])
    else:
        if tuple(state.log_policy.shape) != tuple(outcomes.log_reference.shape):
            shapes = f"{tuple(outcomes.log_reference.shape)}, got {tuple(state.log_policy.shape)}"
            raise ValueError(f"state must be of questions of the same shape {shapes}")
        set_random_state(rng, state.random)
    xp = namespace(outcomes.log_reference)
    policy, reference, values, first = state.log_policy, state.log_reference, state.values, state.step
    records, taken, corrections = [log_odds(policy, outcomes.correct)], [first], []
    for step in range(first + 1, first + steps + 1):
        if training.update == "exact":
            corrections.append(renyi_correction(policy, reference, outcomes.correct, training.alpha))
        policy, values = _step(rng, policy, reference, values, outcomes, training)
        if training.reference_refresh is not None and step % training.reference_refresh == 0:
            reference = policy
        if (step - first) % record_every == 0 or step == first + steps:
            records.append(_checked(log_odds(policy, outcomes.correct), step))
            taken.append(step)
    none = xp.zeros((0, outcomes.questions), dtype=policy.dtype, device=policy.device)
    return Simulation(
        log_odds=xp.stack(records),
        steps=np.asarray(taken),
        renyi=(xp.stack(corrections) if corrections else none) if training.update == "exact" else None,
        state=State(first + steps, policy, reference, values, random_state(rng)),
    )


def _step(
    rng: Any, log_policy: Array, log_reference: Array, values: Array, outcomes: Outcomes, training: Training
) -> tuple[Array, Array]:
    """One outer step: samples of the old policy, or expectations, and all inner steps on them."""
    if training.update == "exact":
        return minimize(log_policy, log_reference, outcomes, training), values
    if training.update == "gradient":
        batch = expected_batch(log_policy, log_reference, outcomes, training)
    else:
        batch, values = sampled_batch(rng, log_policy, log_reference, values, outcomes, training)
    old = log_policy
    for _ in range(training.inner_steps):
        log_policy = ascend(log_policy, old, log_reference, batch, outcomes, training)
    return log_policy, values


def _started(outcomes: Outcomes, start: Array | None) -> Array:
    if start is None:
        return outcomes.log_reference
    require("start", start, "log-probabilities, below inf", lambda x: x < float("inf"))
    _, first, reference = as_arrays(start, outcomes.log_reference)
    if tuple(first.shape) != tuple(reference.shape):
        raise ValueError(f"start must have shape {tuple(reference.shape)}, got {tuple(first.shape)}")
    if not bool(namespace(first).all(namespace(first).isfinite(log_odds(first, outcomes.correct)))):
        raise ValueError("start must leave some right and some wrong answer of every question possible")
    return normalize(first)


def _checked(state: Array, step: int) -> Array:
    xp = namespace(state)
    wrong = state != state
    if bool(xp.any(wrong)):
        question = int(xp.argmax(xp.astype(wrong, xp.int8)))
        raise FloatingPointError(f"question {question} left the numbers by step {step}: take a smaller learning_rate")
    return state

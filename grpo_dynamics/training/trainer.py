"""The paper's Algorithm 1: iterative GRPO with verifiable rewards, on a language model [2503.06639v4, Alg. 1].

Each iteration n freezes π_old = π_{n−1}, asks it for G answers to every question, turns their rewards into advantages
by the success rate p̂ of their group, moves the weights, and measures p_n of every question. There are two ways to move:

- to the maximiser of the objective ("argmin"), where all answers can be enumerated: :func:`maximise`. The advantages
  are exact expectations (update="exact"), or those of the groups (update="sampled" with an inner_tolerance);
- by μ gradient steps on the loss as trainers code it: :func:`step_on`, with samples (update="sampled") or with all
  answers weighted by π_old (update="gradient").
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from grpo_dynamics.training.arm import GROUPS, Arm
from grpo_dynamics.training.deadline import NEVER, Deadline, TimeLimit
from grpo_dynamics.training.records import Rows, no_rows
from grpo_dynamics.training.steps import expectation, inner_loop
from grpo_dynamics.training.steps.answer_tree import AnswerTree
from grpo_dynamics.training.steps.batches import Batch, expected_batch
from grpo_dynamics.training.steps.drawing import Drawn, batch_of, draw
from grpo_dynamics.training.steps.gradient_step import gradient_step, require_log_old

Told = Callable[[int, int, str], None]
"""Called before each iteration as (done, total, what is next), and once more at the end."""

NEARLY = 3
"""Where there is no time for so many iterations as long as the longest, each is kept as soon as it is done."""


def iterate(
    arm: Arm, done: int, keep: Callable[[int, Rows, bool], None], tell: Told, deadline: Deadline = NEVER
) -> None:
    """Train from iteration ``done`` to the last.

    An iteration begins only where there is time for one as long as the longest so far. What a limit breaks off
    nevertheless, as the first iteration of all may be, is done again from the last checkpoint.

    Args:
        arm: what is trained.
        done: iterations that are done; −1 at first, 0 once π_ref is measured.
        keep: is given each iteration, its rows, of this process's questions, and whether the time is nearly over, so
            that a checkpoint is due; 0 is the policy before training.
        tell: told before each iteration.
        deadline: when the command's time is over.

    Raises:
        TimeLimit: between two iterations; or within one, with the seconds that were spent on it.
    """
    total, longest = arm.config.iterations, 0.0
    if done < 0:
        keep(0, measured(arm, 0, no_rows()), True)
    for n in range(max(done, 0) + 1, total + 1):
        deadline.require(f"before iteration {n} of {total}", needed=longest)
        tell(n - 1, total, f"{arm.config.arm}: iteration {n}")
        start = time.perf_counter()
        try:
            rows = iteration(arm, n, deadline)
        except TimeLimit:
            raise TimeLimit(f"within iteration {n} of {total}", spent=time.perf_counter() - start) from None
        refresh(arm, n)
        longest = max(longest, time.perf_counter() - start)
        keep(n, rows, deadline.passed(needed=NEARLY * longest))
    tell(total, total, f"{arm.config.arm}: done")


def iteration(arm: Arm, n: int, deadline: Deadline) -> Rows:
    """Do iteration n: draw, move the weights, measure. Return its rows."""
    rows, start = no_rows(), time.perf_counter()
    drawn: list[Drawn] = []  # now π is π_old
    for i, asked in enumerate(steps_of(arm, n), start=1):
        deadline.require("drawing")
        drawn.append(draw(arm, n, i, asked))
    sampled = time.perf_counter()
    seen = maximise(arm, n, drawn, rows, deadline) if arm.config.argmin else step_on(arm, n, drawn, rows, deadline)
    trained = time.perf_counter()
    every = arm.config.measurement.completions_every
    for answers in drawn if every and n % every == 0 else ():
        rows["completions"] += answers.rows(arm.task.questions)
    if is_measured(arm, n):
        rows = measured(arm, n, rows, seen)
    tokens = sum(answers.tokens for answers in drawn)
    seconds = [sampled - start, trained - sampled, time.perf_counter() - trained]
    names = ("sample_seconds", "train_seconds", "measure_seconds")
    rows["timings"].append({"iteration": n, "completion_tokens": tokens, **dict(zip(names, seconds, strict=True))})
    return rows


def maximise(arm: Arm, n: int, drawn: list[Drawn], rows: Rows, deadline: Deadline) -> list[dict[str, float]]:
    """Move the policy to the maximiser of iteration n's objective; return how near it came, for each question."""
    training, measure = arm.training, arm.measure
    passes = [functools.partial(_log_policy, arm, part) for part in _parts(arm)]

    def log_policy() -> torch.Tensor:
        return torch.cat([one() for one in passes])

    with torch.no_grad():
        log_old = log_policy()
    with arm.at_reference():
        log_ref = log_policy()
    if training.update == "exact":
        advantages = expectation.expected_advantages(log_old, measure.right, training)
    else:
        advantages = expectation.sampled_advantages(log_old, drawn[0].which(measure.answers), drawn[0].advantages)
    objective = expectation.Objective(advantages, log_ref, log_old, float(training.beta), float(training.alpha))
    starts = [lambda: arm.ascent.set_weights(arm.reference)]
    ended = inner_loop.ascend(passes, objective, arm.ascent, starts, deadline)
    about = drawn[0].about(arm) if drawn else {}
    rows["steps"] += [{"iteration": n, **about, **row} for row in ended.rows]
    pushed(arm, rows)
    with torch.no_grad():
        lacking = objective.beta * objective.distance(log_policy())
    optimum = expectation.log_odds(objective.optimum, measure.right)
    return [{"gap": g, "log_odds_optimum": o} for g, o in zip(lacking.tolist(), optimum.tolist(), strict=True)]


def step_on(arm: Arm, n: int, drawn: list[Drawn], rows: Rows, deadline: Deadline) -> None:
    """Take μ gradient steps on each batch of iteration n."""
    batches = [batch_of(arm, answers) for answers in drawn] or [all_answers(arm)]
    if len(batches) > 1 or arm.training.kl == "k1_in_reward":  # π moves away from π_old before they are seen
        require_log_old(arm, batches)
    step = 0
    for i, batch in enumerate(batches):
        about = drawn[i].about(arm) if drawn else {}
        for _ in range(arm.training.inner_steps):
            deadline.require("gradient steps")
            step += 1
            metrics = gradient_step(arm, batch, learning_rate(arm, n))
            rows["steps"].append({"iteration": n, "step": step, **about, **metrics})
        if drawn:
            drawn[i].see(batch)
            rows["steps"][-1]["engine_mismatch"] = arm.ascent.largest(drawn[i].mismatch(batch))
    pushed(arm, rows)


def all_answers(arm: Arm) -> Batch:
    """Return the batch of every answer, weighted with π_old."""
    measure = arm.measure
    with torch.no_grad():
        log_old = torch.cat([_log_policy(arm, part) for part in _parts(arm)])
    advantages = expectation.expected_advantages(log_old, measure.right, arm.training)
    return expected_batch(measure.prompts, measure.answers, log_old, advantages, arm.training)


def _parts(arm: Arm) -> list[AnswerTree]:
    return arm.measure.tree.parts(arm.config.optimization.micro_batch_size)


def _log_policy(arm: Arm, questions: AnswerTree) -> torch.Tensor:
    """Log π of all answers to some questions."""
    with arm.forward():
        return questions.log_probs(arm.model)


def steps_of(arm: Arm, n: int) -> list[list[int]]:
    """Return the questions of each step on samples of iteration n: this process's share of them.

    All questions are asked once in an iteration; in a new order each time, where a step has only some of them.
    """
    if arm.training.update != "sampled":
        return []
    count, size = len(arm.task.questions), arm.config.optimization.questions_per_step
    if size is None or size >= count:
        return [arm.own]
    order = np.random.default_rng([arm.config.seed, GROUPS, n]).permutation(count).tolist()
    return [sorted(arm.share(order[i : i + size])) for i in range(0, count, size)]


def learning_rate(arm: Arm, n: int) -> float:
    """Return the learning rate of iteration n: in a straight line to its final share."""
    options = arm.config.optimization
    part = (n - 1) / max(arm.config.iterations - 1, 1)
    return options.learning_rate * (1 - part * (1 - options.final_learning_rate))


def is_measured(arm: Arm, n: int) -> bool:
    """Return whether p is measured after iteration n."""
    every = arm.config.measurement.every
    return n == arm.config.iterations or (every > 0 and n % every == 0)


def measured(arm: Arm, n: int, rows: Rows, seen: list[dict[str, float]] | None = None) -> Rows:
    """Add p of each question to the rows, and what was seen of it."""
    found = arm.measure(arm.model, n)
    for i, (question, success) in enumerate(zip(arm.measure.questions, found, strict=True)):
        more = seen[i] if seen else {}
        rows["success"].append({"iteration": n, "question_id": question.id, **dataclasses.asdict(success), **more})
    return rows


def pushed(arm: Arm, rows: Rows) -> None:
    """Bring the new weights to the engine, which checks them; the mismatch that it finds is recorded."""
    report = arm.engine.push(arm.policy.model)
    if report.checked and rows["steps"]:
        last: dict[str, Any] = rows["steps"][-1]
        last["engine_mismatch"] = max(report.max_difference, last.get("engine_mismatch") or 0.0)


def refresh(arm: Arm, n: int) -> None:
    """Make the policy its own reference, where the config says so."""
    every = arm.training.reference_refresh
    if every is not None and n % every == 0:
        arm.reference = arm.ascent.weights()

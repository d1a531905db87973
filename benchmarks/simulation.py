"""Sampled training of thousands of questions, against a loop over the questions; and what a step costs."""

from __future__ import annotations

import functools

import numpy as np
from clock import alternate, table, verdict

import grpo_dynamics as gd
from grpo_dynamics.simulation.outcomes import Outcomes
from grpo_dynamics.simulation.tabular import simulate
from grpo_dynamics.update_rule import Training

GROUP, ANSWERS, BETA, RATE = 16, 4, 0.5, 0.05


def loop_over_questions(log_reference: np.ndarray, correct: np.ndarray, steps: int, seed: int) -> np.ndarray:
    """The same training as one would write it for one question: draw G answers, whiten, sum their scores."""
    rng = np.random.default_rng(seed)
    logits, answers = log_reference.copy(), log_reference.shape[1]
    for _ in range(steps):
        for q in range(len(logits)):
            policy = np.exp(logits[q] - logits[q].max())
            policy /= policy.sum()
            drawn = rng.choice(answers, GROUP, p=policy)
            rewards = correct[q, drawn].astype(float)
            std = rewards.std()
            advantages = (rewards - rewards.mean()) / std if std > 0 else np.zeros(GROUP)
            scores = np.eye(answers)[drawn] - policy
            log_ratio = np.log(policy) - log_reference[q]
            pull = policy * (log_ratio - policy @ log_ratio)
            logits[q] += RATE * (advantages @ scores / GROUP - BETA * pull)
    return logits


def measure(quick: bool) -> dict[str, object]:
    questions, steps, rounds, loop_steps = (256, 20, 1, 1) if quick else (4096, 1000, 3, 2)
    outcomes = Outcomes.random(questions, ANSWERS, seed=0)
    training = Training(BETA, gd.FiniteGroup(GROUP), update="sampled", learning_rate=RATE)
    off_policy = {"inner_steps": 4, "clip_low": 0.2, "clip_high": 0.2, "kl": "k3"}
    ways = {
        "K=2": (Outcomes.random(questions, 2, seed=0), training),
        "K=8": (Outcomes.random(questions, 8, seed=0), training),
        "4 inner steps, clipped, k3": (
            outcomes,
            Training(BETA, gd.FiniteGroup(GROUP), update="sampled", learning_rate=RATE, **off_policy),
        ),
        "exact expectations": (
            outcomes,
            Training(BETA, gd.FiniteGroup(GROUP), update="gradient", learning_rate=RATE),
        ),
        "exact minimisation": (outcomes, Training(BETA, gd.FiniteGroup(GROUP))),
    }

    # both train the same: mean log-odds of questions that start alike, after some steps
    alike = Outcomes.uniform(np.full(64, 0.3), 2, 2)
    ours = simulate(alike, training, 20, record_every=20).log_odds[-1]
    logits = loop_over_questions(alike.log_reference, alike.correct, 20, seed=1)
    theirs = np.logaddexp(logits[:, 0], logits[:, 1]) - np.logaddexp(logits[:, 2], logits[:, 3])
    apart = abs(ours.mean() - theirs.mean()) / np.sqrt((ours.var() + theirs.var()) / 64)

    seconds = alternate(
        {
            "simulate": lambda: simulate(outcomes, training, steps, record_every=steps),
            "loop": lambda: loop_over_questions(outcomes.log_reference, outcomes.correct, loop_steps, seed=1),
        },
        rounds,
    )
    seconds["loop"] *= steps / loop_steps
    few = max(1, steps // 10)
    others = alternate(
        {name: functools.partial(simulate, *way, few, record_every=few) for name, way in ways.items()}, 1
    )
    ratio = seconds["loop"] / seconds["simulate"]
    answered = questions * GROUP * steps
    title = f"Training of {questions:,} questions, groups of {GROUP}, {ANSWERS} answers each, {steps:,} on-policy steps"
    table(
        f"{title} (medians of {rounds})",
        [
            (
                "simulate",
                f"{seconds['simulate']:.2f} s",
                f"{verdict(seconds['simulate'], 20, at_least=False)}; {answered / seconds['simulate']:.2g} answers/s",
            ),
            (
                "loop over the questions",
                f"{seconds['loop']:.0f} s",
                f"from {loop_steps} steps; {apart:.1f} standard errors apart after 20 steps",
            ),
            ("times faster than the loop", f"{ratio:.0f}", verdict(ratio, 30, at_least=True)),
            *((f"a step: {name}", f"{s / few * 1e3:.2f} ms", "") for name, s in others.items()),
        ],
    )
    return {
        "questions": questions,
        "group_size": GROUP,
        "steps": steps,
        "seconds": seconds,
        "times_faster": ratio,
        "standard_errors_apart": float(apart),
        "ms_per_step": {name: s / few * 1e3 for name, s in others.items()},
    }

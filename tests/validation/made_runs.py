"""Run directories made by the tabular simulator: real training without a network, of which everything is known."""

import json
from pathlib import Path

import numpy as np
import polars as pl

from grpo_dynamics.config import as_table
from grpo_dynamics.logodds import sigmoid
from grpo_dynamics.questions import wilson
from grpo_dynamics.simulation.outcomes import Outcomes
from grpo_dynamics.simulation.tabular import simulate


def success(log_odds, samples=None, seed=0):
    """The canonical table of log-odds of shape (iterations, questions), exact or counted from samples."""
    iterations, questions = log_odds.shape
    p = sigmoid(log_odds)
    columns = {
        "iteration": np.repeat(np.arange(iterations), questions),
        "question_id": [f"q{i:03d}" for i in range(questions)] * iterations,
    }
    if samples is None:
        exact = {"log_odds": log_odds.ravel(), "p": p.ravel(), "low": p.ravel(), "high": p.ravel()}
        return pl.DataFrame(columns | exact).with_columns(
            pl.lit(None, dtype=pl.Int64).alias("successes"),
            pl.lit(None, dtype=pl.Int64).alias("samples"),
            pl.lit("enumerated").alias("method"),
        )
    counts = np.random.default_rng(seed).binomial(samples, p).ravel()
    low, high = wilson(counts / samples, samples)
    with np.errstate(divide="ignore"):
        odds = np.log(counts) - np.log(samples - counts)
    counted = {"log_odds": odds, "p": counts / samples, "low": low, "high": high}
    return pl.DataFrame(columns | counted).with_columns(
        pl.Series("successes", counts), pl.lit(samples).alias("samples"), pl.lit("sampled").alias("method")
    )


def write_arm(folder: Path, table, training, status="finished", iterations=None, **config):
    """Write an arm's folder as a run does."""
    folder.mkdir(parents=True, exist_ok=True)
    table.write_parquet(folder / "success.parquet")
    names = table["question_id"].unique(maintain_order=True)
    asked = {"question_id": names, "prompt": [f"{n}=" for n in names], "answer": ["1"] * len(names)}
    pl.DataFrame(asked).write_parquet(folder / "questions.parquet")
    last = int(table["iteration"].max())
    settings = {"iterations": iterations or last, "training": as_table(training), "optimization": {}} | config
    manifest = {"name": "made", "arm": folder.name, "status": status, "iterations_done": last, "config": settings}
    manifest |= {"seed": 0, "versions": {"python": "3"}, "hardware": {"cores": 1}, "commit": None, "seconds": 1.5}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def write_run(folder: Path, arms, steps=10, samples=None, right=1, wrong=1, seed=0, **config):
    """Train tables of probabilities and write them as a run; ``arms`` is name → (training, p_ref)."""
    for name, (training, p_ref) in arms.items():
        made = simulate(Outcomes.uniform(p_ref, right, wrong), training, steps, seed=seed)
        write_arm(folder / name, success(np.asarray(made.log_odds), samples, seed), training, **config)
    (folder / "config.toml").write_text('name = "made"\n')
    manifest = {"name": "made", "arms": list(arms), "status": "finished", "config": {}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder

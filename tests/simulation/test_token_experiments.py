"""The committed experiments on tokens, held against closed forms that are computed here anew."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

import grpo_dynamics as gd

RESULTS = Path(__file__).parents[2] / "experiments" / "results"


def test_lambda_discounts_by_the_length_unless_the_critic_sees_the_prefix():
    table = pl.read_parquet(RESULTS / "sim_critic.parquet").filter(pl.col("kind") != "value")
    discount = table["x"].to_numpy() ** (table["tokens"].to_numpy() - 1.0)
    gap = np.where(table["kind"] == "prefix", 1.0, discount)
    error = table["error"].to_numpy()
    off = np.abs(table["y"].to_numpy() - gd.sigmoid(gd.logit(0.2) + gap / 0.5))
    assert (off < 4 * error + 2e-4).all()  # 2e-4: the bias of learning rate .1
    other = np.abs(table["y"].to_numpy() - gd.sigmoid(gd.logit(0.2) + discount / 0.5))
    assert (other > 10 * error)[(table["kind"] == "prefix").to_numpy() & (discount < 0.9)].all()


def test_slow_critics_end_at_p_and_were_behind_by_the_speed_over_the_rate():
    table = pl.read_parquet(RESULTS / "sim_critic.parquet").filter(kind="value")
    for path in table.partition_by("rate"):
        behind, rate = (path["p"] - path["y"]).to_numpy(), path["rate"][0]
        assert np.abs(path["y"] - path["predicted"]).max() < 5 * path["error"].max() + 1e-3
        # p − V = Σ (1−c)^j Δp plus the start that fades: the recursion once more, from the committed p
        expected = [path["p"][0]]
        for step in np.diff(path["p"].to_numpy()):
            expected.append((1 - rate) * expected[-1] + step)
        assert np.abs(behind - expected).max() < 5 * path["error"].max() + 1e-3


@pytest.mark.parametrize("kind", ["GRPO", "Dr. GRPO"])
def test_step_rewards_lengthen_and_one_reward_does_not(kind):
    table = pl.read_parquet(RESULTS / "sim_process.parquet")
    steps, one = (table.filter(method=f"{kind}, {x}")[-1:].row(0, named=True) for x in ("step rewards", "one reward"))
    assert steps["tokens"] - 4 > 20 * steps["tokens_error"]
    assert abs(one["tokens"] - 4) < 4 * one["tokens_error"]
    gap = gd.FiniteGroup(64, eps=1e-4) if kind == "GRPO" else gd.MeanOnly(64)
    expected = gd.fixed_points(gd.Flow(5.0, 0.3, gap)).p[0]
    assert abs(one["p"] - expected) < 4 * one["p_error"] + 2e-4

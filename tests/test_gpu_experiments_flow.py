"""The small forms of gpu_flow and gpu_practice: real training on a CPU that ends where the theory says, or does not."""

import json
import pathlib

import polars as pl
import pytest

import grpo_dynamics as gd
from grpo_dynamics.cli import main
from grpo_dynamics.training.config import read_run_config

ROOT = pathlib.Path(__file__).parents[1]

pytestmark = pytest.mark.xdist_group("flow")  # each small form is run once, and by one worker


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """Run the small form of an experiment and validate it, once; return its folder and its numbers by arm."""
    made = {}

    def run(name):
        if name not in made:
            out = tmp_path_factory.mktemp(name)
            with pytest.MonkeyPatch.context() as patch:
                patch.chdir(ROOT)  # the questions of gpu_practice are a file of the checkout
                assert main(["run", "--config", f"experiments/{name}.toml", "--smoke", "--out", str(out)]) == 0
            folder = out / f"{name}_smoke"
            assert main(["validate", str(folder)]) == 0  # 1 where a threshold is not kept
            summary = json.loads((folder / "validation" / "summary.json").read_bytes())
            made[name] = folder, {arm["arm"]: arm for arm in summary["arms"]}
        return made[name]

    return run


def test_every_arm_of_the_flow_ends_by_its_own_kl_estimator_and_not_by_the_other(smoke):
    _, arms = smoke("gpu_flow")
    small = {arm.arm: arm.training for arm in read_run_config(ROOT / "experiments" / "gpu_flow.toml", smoke=True)}
    assert set(small) == set(arms)
    assert {training.normalization.group_size for training in small.values()} == {4, 8, 16, 64}
    assert {training.kl for training in small.values()} == {"exact", "k2", "k3", "k1_in_reward"}
    for told in arms.values():
        assert told["p_infinity"]["median"] <= 0.04
        other = next(entry for entry in told["other_theories"] if not entry["paper"])["apart"]
        assert other["questions"] >= 5  # the factor is of several questions, not of one
        assert other["other"] >= 3 * other["own"]


def test_practice_leaves_the_end_where_theory_says_on_policy_and_clipping_moves_it(smoke):
    folder, arms = smoke("gpu_practice")
    assert arms["mu_1"]["p_infinity"]["median"] <= 0.04
    moved = {name: told["p_infinity"]["median"] for name, told in arms.items()}
    assert moved["mu_16_clip"] > 1.5 * moved["mu_1"]
    ends = pl.read_parquet(folder / "validation" / "p_infinity.parquet")
    clipped, free = (ends.filter(pl.col("arm") == name)["residual"] for name in ("mu_16_clip", "mu_16"))
    # the clipped reward stops to push within a batch, the KL term goes on pulling: p stays below p*, as without the
    # clip it does not
    assert (clipped < 0).mean() >= 0.8
    assert clipped.median() < -0.02
    assert abs(free.median()) < 0.5 * abs(clipped.median())
    assert arms["constant"]["p_infinity"]["median"] <= 0.04
    assert arms["mu_1"]["lengths"] is None  # answers of one token
    for name in ("sequence_mean", "constant"):
        assert arms[name]["lengths"]["wrong"]["questions"] >= 10
        assert arms[name]["lengths"]["wrong"]["shift_error"] < 0.5


def test_a_small_form_says_on_what_it_was_made(smoke):
    folder, _ = smoke("gpu_practice")
    manifest = json.loads((folder / "mu_1" / "manifest.json").read_bytes())
    assert manifest["config"]["model"]["device"] == "cpu"
    assert json.loads((folder / "manifest.json").read_bytes())["smoke"] is True


def test_the_predictions_of_gpu_flow_are_far_enough_apart_to_tell_the_estimators():
    """At the β of every arm, over the p_ref that a model has: a fifth or more of the questions tell k2 from k3."""
    spread = gd.sigmoid(pl.linear_space(-7.2, 5.3, 200, eager=True).to_numpy())
    for arm in read_run_config(ROOT / "experiments" / "gpu_flow.toml"):
        same = {"beta": float(arm.training.beta), "p_ref": spread, "normalization": arm.training.normalization}
        ends = {kl: gd.fixed_points(gd.Flow(kl=kl, **same)) for kl in ("k2", "k3")}
        # one state each, but for at most a few at a fold: where the path starts is no matter
        assert all((found.count == 1).mean() >= 0.99 for found in ends.values())
        apart = abs(ends["k2"].p[0] - ends["k3"].p[0]) > 0.1
        assert 0.2 < apart.mean() < 0.8

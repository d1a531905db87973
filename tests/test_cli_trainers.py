"""`predict --trainer` and `which-kl`: what they print is what the package says, and bad input is one line."""

from __future__ import annotations

import subprocess
import sys

import pytest

import grpo_dynamics as gd
from grpo_dynamics.cli import main
from grpo_dynamics.theory.flow import Flow
from grpo_dynamics.theory.trainers import trainer

TRL = ["--trainer", "trl", "--trainer-version", "1.16", "--beta", ".04", "--group-size", "8"]
PREDICTIONS = {
    "trl": ([*TRL, "--p-ref", ".2"], ("trl", "1.16", {"beta": 0.04, "num_generations": 8}), 0.2),
    "before the correction": (
        ["--trainer", "trl", "--trainer-version", "1.9.2", "--beta", "0.4", "--p-ref", ".2"],
        ("trl", "1.9.2", {"beta": 0.4}),
        0.2,
    ),
    "by its own names": (
        ["--trainer", "trl", "--p-ref", ".3", "--set", "beta=0.5", "--set", "scale_rewards=none"],
        ("trl", None, {"beta": 0.5, "scale_rewards": "none"}),
        0.3,
    ),
    "verl": (
        ["--trainer", "verl", "--p-ref", ".3", "--beta", ".2", "--group-size", "5", "--set", "kl_loss_type=k3+"],
        (
            "verl",
            None,
            {
                "use_kl_loss": True,
                "kl_loss_coef": 0.2,
                "adv_estimator": "grpo",
                "actor_rollout_ref.rollout.n": 5,
                "kl_loss_type": "k3+",
            },
        ),
        0.3,
    ),
    "rewards of ten": (
        ["--trainer", "open-instruct", "--p-ref", ".3", "--set", "filter_zero_std_samples=false"],
        ("open-instruct", None, {"filter_zero_std_samples": False}),
        0.3,
    ),
    "no pull": (["--trainer", "open-reasoner-zero", "--p-ref", ".3"], ("open-reasoner-zero", None, {}), 0.3),
}


@pytest.mark.parametrize("name", PREDICTIONS)
def test_predict_is_the_package(name, answer):
    arguments, (which, version, options), p_ref = PREDICTIONS[name]
    found = answer("predict", *arguments, "--p0", "0.15")
    expected = trainer(which, version, **options)
    flow = expected.at(p_ref)
    fixed, where = gd.fixed_points(flow), gd.limit(flow, 0.15)
    assert [point["log_odds"] for point in found["fixed_points"]] == fixed.log_odds[: fixed.count].tolist()
    assert [point["multiplier"] for point in found["fixed_points"]] == fixed.multiplier[: fixed.count].tolist()
    assert found["fixed_points_status"] == gd.Status(fixed.status).name.lower()
    assert found["limit"]["kind"] == gd.LimitKind(where.kind).name.lower()
    assert found["limit"]["p"] == where.p
    assert found["trainer"]["kl"] == expected.kl
    assert found["trainer"]["version"] == expected.version
    assert found["trainer"]["options"] == dict(expected.options)
    assert found["not_modelled"] == list(expected.not_modelled)
    assert found["p0"] == 0.15


def test_predict_in_sentences(printed):
    text = printed("predict", "--trainer", "trl", "--trainer-version", "1.9.2", "--beta", "0.4", "--p-ref", ".2")
    assert "TRL GRPOTrainer 1.9.2, β = 0.4, p_ref = 0.2" in text
    assert "Success is amplified from 0.2000 to 0.8519." in text
    assert "stable training ends here" in text
    assert "KL(π_ref‖π), the other way round" in text
    assert "Not modelled – An answer is one decision here." in text
    falls = printed("predict", "--trainer", "trl", "--beta", "20", "--p-ref", ".2", "--p0", ".9")
    assert "Success falls from 0.9000 to 0.2" in falls


def test_nothing_pulls(printed):
    text = printed("predict", "--trainer", "trl", "--p-ref", ".2", "--set", "use_bias_correction_kl=true")
    assert "Success is amplified from 0.2000 to 1: nothing pulls back to the reference." in text
    assert "no interior fixed point" in text
    assert "use_bias_correction_kl has no effect: beta is 0" in text


def test_which_kl_compares_the_estimators(answer, printed):
    """The same β, group and p_ref under each divergence, by the flow itself."""
    found = answer("which-kl", "--trainer", "trl", "--trainer-version", "1.9.2", "--beta", "0.4", "--p-ref", ".1")
    assert found["trainer"]["divergence"] == "forward"
    group = trainer("trl", "1.9.2", beta=0.4).normalization
    for row, kl in zip(found["compared"], ("exact", "k3", "k1"), strict=True):
        assert row["p"] == gd.limit(Flow(0.4, 0.1, group, kl)).p
        assert row["own"] == (kl == "k3")
    text = printed("which-kl", "--trainer", "trl", "--trainer-version", "1.9.2", "--beta", "0.4")
    assert "On average it pulls with the gradient of KL(π_ref‖π), the other way round." in text
    assert "k3 in the loss 0.8519 this trainer" in text
    assert "exact KL, k2, k1 in the reward, ratio·k3 0.9912" in text
    corrected = answer("which-kl", "--trainer", "trl", "--beta", "0.4")
    assert corrected["trainer"]["divergence"] == "reverse"
    assert [row["own"] for row in corrected["compared"]] == [True, False, False]
    assert answer("which-kl", "--trainer", "prime-rl")["compared"] == []


def test_dropped_groups_are_compared_with_the_groups_kept(answer):
    """Ω/w is only right for k3; the other rows take Ω."""
    found = answer("which-kl", "--trainer", "simple_GRPO", "--beta", "0.4", "--p-ref", ".1")
    kept = gd.FiniteGroup(8, 5e-5, "std", 1)
    assert found["compared"][0]["p"] == gd.limit(Flow(0.4, 0.1, kept)).p
    assert found["compared"][1]["p"] == gd.limit(trainer("simple_GRPO", beta=0.4).at(0.1)).p


def test_a_file_of_questions(tmp_path, monkeypatch, answer, printed):
    """Every row is the limit of the flow from its own p_ref; p_ref = 0 stays 0; there is no "after 50 steps"."""
    import polars as pl

    source, out = tmp_path / "questions.csv", tmp_path / "out.csv"
    source.write_text("id,successes,samples\na,0,8\nb,2,8\nc,4,8\nd,8,8\n")
    arguments = ["--trainer", "trl", "--trainer-version", "1.9.2", "--beta", ".4", "--from", str(source)]
    found = answer("predict", *arguments, "--out", str(out))
    table = pl.read_csv(out)
    assert table["outcome"].to_list() == ["stuck", "amplified", "amplified", "solved"]
    expected = gd.limit(trainer("trl", "1.9.2", beta=0.4).at([0.25, 0.5])).p
    assert table["p_limit"].to_list() == [0.0, *expected.tolist(), 1.0]
    assert "p_after_steps" not in table.columns
    assert found["trainer"]["kl"] == "k3"
    assert found["questions"] == 4
    monkeypatch.chdir(tmp_path)
    assert "Mean success" in printed("predict", *arguments, "--out", "out.csv")


ARGUMENTS = {
    "predict --trainer tlr --p-ref .2": ("trainer must be one of trl, verl", "'tlr'; the nearest is 'trl'"),
    "predict --trainer trl --trainer-version 9 --p-ref .2": (
        "version of trl must be one of 0.14.0",
        "'9'; the nearest",
    ),
    "predict --trainer trl": ("p_ref must be a probability", "nothing: add --p-ref"),
    "predict --trainer trl --p-ref 2": ("p_ref must be a probability", "2.0"),
    "predict --trainer trl --p-ref .2 --p0 0": ("p0 must be a probability", "0.0"),
    "predict --trainer trl --p-ref .2 --beta -1": ("beta must be a finite number >= 0", "-1.0"),
    "predict --trainer trl --p-ref .2 --beta .1 --group-size 1": ("group_size must be an integer >= 2", "1"),
    "predict --trainer trl --p-ref .2 --eps .1": ("eps must be left out with --trainer", "0.1"),
    "predict --trainer trl --p-ref .2 --variant dr_grpo": ("variant must be left out with --trainer", "'dr_grpo'"),
    "predict --trainer trl --p-ref .2 --plot x.png": ("plot must be left out with --trainer", "'x.png'"),
    "predict --trainer trl --p-ref .2 --out x.csv": ("out must be left out without --from", "'x.csv'"),
    "predict --trainer trl --p-ref .2 --from x.csv": ("p_ref must be left out with --from", "0.2"),
    "predict --trainer trl --beta 1 --from x.csv": ("file must be", "'x.csv'"),
    "predict --trainer trl --p-ref .2 --set beta": ("set must be an option of the trainer and its value", "'beta'"),
    "predict --trainer trl --p-ref .2 --set beta=x": ("beta must be a finite number >= 0", "'x'"),
    "predict --trainer trl --p-ref .2 --set beta=1 --set beta=2": ("set must be given once", "'beta=1 beta=2'"),
    "predict --trainer trl --p-ref .2 --beta 1 --set beta=2": ("set must be left out for beta", "'beta=2'"),
    "predict --trainer trl --p-ref .2 --set bta=1": ("option of trl must be one of", "'bta'; the nearest is 'beta'"),
    "predict --trainer trl --p-ref .2 --beta 1 --set scale_rewards=batch": ("scale_rewards must be 'group'", "'batch'"),
    "predict --trainer prime-rl --p-ref .2 --beta 1": ("beta must be left out with prime-rl", "1.0"),
    "predict --trainer openrlhf --p-ref .2": ("algo.advantage.estimator must be 'group_norm'", "'gae'"),
    "predict --p-ref .2 --beta 1 --trainer-version 1.16": (
        "trainer_version must be left out without --trainer",
        "'1.16'",
    ),
    "predict --p-ref .2 --beta 1 --set a=b": ("set must be left out without --trainer", "'a=b'"),
    "which-kl": ("trainer must be a name such as trl", "nothing: add --trainer"),
    "which-kl --trainer trl --p-ref 0": ("p_ref must be a probability", "0.0"),
}


@pytest.mark.parametrize("arguments", ARGUMENTS)
def test_bad_input_is_one_line(arguments, capsys):
    allowed, value = ARGUMENTS[arguments]
    assert main(arguments.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith(f"error: {allowed}")
    assert f"got {value}" in err


def test_start_up_stays_light():
    """The commands of trainers need neither computer algebra nor pictures nor torch."""
    code = (
        "import sys; from grpo_dynamics.cli import main; "
        "main(['which-kl', '--trainer', 'trl', '--beta', '.1']); "
        "print(sorted({'torch', 'sympy', 'matplotlib', 'polars', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"

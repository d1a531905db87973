"""The committed experiments: each runs, its results agree with the theory beside them, and its page says what it shows.

The quick forms run everything from config to picture. What the committed results say is held against predictions that
are computed here anew, not against the column of the table.
"""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import grpo_dynamics as gd
from grpo_dynamics.cli.simulate import _text
from grpo_dynamics.config import read_toml
from grpo_dynamics.plotting import PALETTE, render
from grpo_dynamics.simulation import experiments, one_simulation
from grpo_dynamics.simulation.one_simulation import Questions
from grpo_dynamics.simulation.outcomes import Outcomes
from grpo_dynamics.simulation.runs import perform
from grpo_dynamics.simulation.tabular import simulate
from grpo_dynamics.update_rule import Training

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "experiments" / "results"
NAMES = experiments.names()[1:]
FOUR = 4.0
"""Standard errors: of the hundred or so committed numbers none should be this far off, at one chance in 160 for all."""


def committed(name):
    return pl.read_parquet(RESULTS / f"sim_{name}.parquet")


def ends(name):
    return experiments.experiment(name).summary(committed(name))


@pytest.mark.parametrize("name", NAMES)
def test_the_quick_form_runs_and_repeats(name, tmp_path):
    module = experiments.experiment(name)
    table = read_toml(experiments.config_file(name))
    config = experiments.parse(f"sim_{name}", table, module.QUICK)
    found, _ = perform(config.run(tmp_path / "a"))
    perform(config.run(tmp_path / "b"))
    files = [(tmp_path / folder / f"sim_{name}.parquet").read_bytes() for folder in "ab"]
    assert files[0] == files[1]
    assert found.schema == committed(name).schema
    assert render(module.draw(found), "png").startswith(b"\x89PNG")
    assert module.summary(found).height


def test_experiments_travel_in_the_wheel():
    """The wheel puts them where ``experiments`` looks first; .ci/check-wheel runs one from there."""
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]["targets"]
    assert "experiments" in wheel["wheel"]["packages"]
    assert "experiments" in wheel["sdist"]["only-include"]
    assert wheel["wheel"]["sources"]["experiments"] == "grpo_dynamics/experiments"
    assert experiments.EXPERIMENTS in (ROOT / "experiments", ROOT / "grpo_dynamics" / "experiments")


@pytest.mark.parametrize("name", NAMES)
def test_committed_results_are_those_of_the_committed_config(name):
    config = experiments.read_config(name)
    manifest = json.loads((RESULTS / f"sim_{name}.json").read_text(encoding="utf-8"))
    assert manifest["config"] == json.loads(json.dumps(config.run(ROOT).config))
    assert manifest["seconds"] < 60
    table = committed(name)
    assert manifest["table"]["columns"] == table.columns
    assert manifest["table"]["rows"] == table.height
    assert (RESULTS / f"sim_{name}.png").stat().st_size > 10_000
    assert (RESULTS / f"sim_{name}.parquet").stat().st_size < 200_000


@pytest.mark.parametrize("name", NAMES)
def test_every_experiment_has_a_page_that_says_in_two_sentences_what_one_learns(name):
    page = (ROOT / "docs" / "experiments" / f"{name}.md").read_text(encoding="utf-8")
    assert page.startswith("# ")
    learned = re.search(r"\*\*What one learns\.\*\* (.*?)\n\n", page, flags=re.DOTALL)
    assert learned
    assert len(re.findall(r"(?<!Dr)[.!?](?:\s|$)", learned[1])) == 2
    for target in re.findall(r"(?:\{image\}|\{literalinclude\}|\]\()\s*(\.\./[^\s)]+)", page):
        assert (ROOT / "docs" / "experiments" / target).resolve().exists(), target
    assert f"simulate --config {name}" in page
    assert f"({name}.md)" in (ROOT / "docs" / "experiments" / "index.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", NAMES)
def test_the_numbers_on_a_page_are_the_committed_ones(name):
    page = (ROOT / "docs" / "experiments" / f"{name}.md").read_text(encoding="utf-8")
    for row in ends(name).iter_rows():
        assert f"| {' | '.join(_text(value) for value in row)} |" in page


def test_a_deterministic_result_is_computed_again():
    """Exact expectations: no sampling, so the numbers are the same on every machine, but for rounding."""
    module = experiments.experiment("inner_steps")
    settings = experiments.read_config("inner_steps").settings
    table = committed("inner_steps")
    for kind in ("natural", "plain"):
        for steps in (1, 20):
            again = module.rows(settings, kind, steps, 0)
            assert np.abs(again["log_odds"] - table.filter(kind=kind, inner_steps=steps)["log_odds"]).max() < 1e-9


def test_inner_steps_come_to_the_recursion():
    """μ natural steps are the two-KL iteration with α = 1 − (1−ηβ)^μ; at μ = 1000 that is the recursion itself."""
    table = committed("inner_steps")
    natural = table.filter(kind="natural")
    assert (natural["log_odds"] - natural["relaxed"]).abs().max() < 1e-9
    last = table.filter(inner_steps=table["inner_steps"].max())
    recursion = gd.grpo(1.0, 0.05).iterate(6).log_odds
    for kind, distance in (("natural", 1e-9), ("plain", 1e-9)):
        assert np.abs(last.filter(kind=kind)["log_odds"].to_numpy() - recursion).max() < distance
    distances = ends("inner_steps").filter(kind="plain")["distance"].to_numpy()
    assert (np.diff(distances) < 0).all()
    sampled = table.filter(pl.col("n") > 0, kind="sampled")
    first = sampled.filter(n=1)
    assert ((first["log_odds"] - first["relaxed"]) / first["standard_error"]).abs().max() < FOUR


def test_small_steps_come_to_the_flow_in_proportion():
    """A method of first order: half the learning rate, half the distance."""
    found = ends("small_steps").filter(update="gradient").sort("learning_rate")
    ratio = found["distance"].to_numpy()[1:4] / found["distance"].to_numpy()[:3]
    assert ratio == pytest.approx([2, 2, 2], abs=0.06)
    assert (np.diff(np.abs(ratio - 2)) > 0).all()  # the closer to 2 the smaller the rate
    both = ends("small_steps").pivot(on="update", index="learning_rate", values=["distance", "standard_error"])
    both = both.filter(pl.col("learning_rate") <= 1)
    sigmas = (both["distance_sampled"] - both["distance_gradient"]) / both["standard_error_sampled"]
    assert sigmas.abs().max() < FOUR


def test_too_large_a_learning_rate_swings_around_the_fixed_point():
    """A step of rate η has the multiplier 1 + 2η·(d rate/dL) at the flow's fixed point: it is −1 at η = 3.72."""
    flow = gd.Flow(1.0, 0.1, gd.FiniteGroup(8))
    rest = float(gd.fixed_points(flow).log_odds[0])
    largest = -2e-5 / (flow.rate(rest + 1e-5) - flow.rate(rest - 1e-5))
    assert largest == pytest.approx(3.7245, abs=1e-3)
    for rate, settles in ((0.99 * largest, True), (1.01 * largest, False)):
        training = Training(update="gradient", learning_rate=rate, normalization=gd.FiniteGroup(8))
        late = simulate(Outcomes.uniform(0.1), training, 3000).log_odds[-2:, 0]
        assert (abs(late[1] - late[0]) < 1e-9) == settles
        assert (abs(late - rest).max() < 1e-9) == settles


def test_group_sizes_are_as_predicted_and_not_as_without_groups():
    table = committed("group_size")
    for p_ref, size, p, error, _, infinite in table.rows():
        flow = gd.Flow(1.0, p_ref, gd.FiniteGroup(size))
        assert abs(p - gd.fixed_points(flow).p[0]) < FOUR * error
        assert abs(p - infinite) > 10 * error  # the test can fail
    assert infinite == pytest.approx(gd.fixed_points(gd.grpo(1.0, p_ref, 0.0)).p[0])


def test_the_table_of_estimators():
    """theory: .41953 with the exact KL, .55959 with k3 in the loss, 1 without a pull (groups of 8, p_ref .1, β 1)."""
    table = {row["kl"]: row for row in ends("kl_estimator").to_dicts()}
    assert set(table) == set(gd.theory.flow.DIVERGENCES)
    for kl, row in table.items():
        if row["divergence"] == "none":
            assert row["p"] > 0.99
        else:
            expected = {"reverse": 0.419526, "forward": 0.559595}[row["divergence"]]
            assert abs(row["p"] - expected) < FOUR * row["standard_error"], kl
            assert row["standard_error"] < 5e-4


def test_two_cycles_are_seen_and_disappear():
    found = {(row["group_size"], row["alpha"]): row for row in ends("two_cycle").to_dicts()}
    for (size, alpha), row in found.items():
        swings = row["high"] - row["low"] > 10 * row["error"]
        assert swings == ((size, alpha) == (4096, 1.0))
        point = gd.fixed_points(gd.Recursion(5.0 / alpha, 1e-3, gd.FiniteGroup(size), alpha))
        assert bool(point.stable[0]) == (not swings)
        if not swings:
            middle = (row["low"] + row["high"]) / 2
            assert middle == pytest.approx(float(point.p[0]), rel=0.02)
    orbit = gd.Recursion(5.0, 1e-3, gd.FiniteGroup(4096)).iterate(200).p[-2:]
    cycle = found[4096, 1.0]
    assert [cycle["low"], cycle["high"]] == pytest.approx(sorted(orbit), rel=0.08)


def test_the_clip_range_decides_the_speed_and_not_the_end():
    found = ends("clip")
    assert (found["steps_to_half"] - found["predicted_steps"]).abs().max() <= 1
    fixed = gd.fixed_points(gd.Recursion(1.0, 0.02, gd.FiniteGroup(16))).p[0]
    assert ((found["p_at_the_end"] - fixed) / found["standard_error"]).abs().max() < FOUR
    clipped = found.filter(pl.col("clip_range") > 0).sort("clip_range")["steps_to_half"].to_list()
    assert clipped == sorted(clipped, reverse=True)
    assert clipped[0] > 5 * clipped[-1]


def test_the_clipped_step_is_the_maximum_of_the_clipped_objective():
    """By brute force: the objective on a fine grid of log-odds, for policies with one right and one wrong answer."""
    module = experiments.experiment("clip")
    grid = np.linspace(-12, 12, 480_001)
    p, q = gd.sigmoid(grid), gd.sigmoid(-grid)
    for beta, p_ref, old, clip in [(1, 0.02, -3, 0.2), (1, 0.02, 2, 0.2), (0.2, 0.3, 0.5, 0.1), (5, 0.4, 3, 0.3)]:
        recursion = gd.Recursion(float(beta), p_ref, gd.FiniteGroup(16))
        p_old, q_old = gd.sigmoid(float(old)), gd.sigmoid(-float(old))
        push, pull = recursion.normalization.positive(float(old)), recursion.normalization.negative(float(old))
        kl = p * np.log(p / p_ref) + q * np.log(q / (1 - p_ref))
        right, wrong = np.minimum(p / p_old, 1 + clip), np.maximum(q / q_old, 1 - clip)
        objective = push * p_old * right - pull * q_old * wrong - beta * kl
        best = grid[np.argmax(objective)]
        assert module.clipped_step(recursion, float(old), clip) == pytest.approx(best, abs=1e-4)


def test_a_noisy_verifier_is_as_predicted():
    module = experiments.experiment("verifier_noise")
    normalization = gd.FiniteGroup(8)
    for kind, rate, p, error, _ in committed("verifier_noise").rows():
        positive = rate if kind != "false_negative" else 0.0
        negative = rate if kind != "false_positive" else 0.0
        assert abs(p - module.rest(normalization, 1.0, 0.1, positive, negative)) < FOUR * error
    assert module.rest(normalization, 1.0, 0.1, 0.0, 0.0) == pytest.approx(
        gd.fixed_points(gd.Flow(1.0, 0.1, normalization)).p[0]
    )
    assert module.rest(normalization, 1.0, 0.1, 0.5, 0.5) == pytest.approx(0.1)  # the verdicts say nothing


def test_long_wrong_answers_grow_under_the_mean_of_every_answer_only():
    table = committed("length_bias")
    final = {row["aggregation"]: row for row in ends("length_bias").to_dicts()}
    assert final["sequence_mean"]["share_end"] > 0.8
    for kind in ("token_mean", "constant"):
        assert abs(final[kind]["share_end"] - 0.5) < FOUR * final[kind]["standard_error"]
    assert (table["long_share"] - table["predicted"]).abs().max() < 0.005
    assert (table["p"] - table["predicted_p"]).abs().max() < 0.01


def test_four_methods_are_three():
    """RLOO and PPO with a critic have Ω = 1, Dr. GRPO (G−1)/G, GRPO that of its groups."""
    found = {(row["method"], row["p_ref"]): row for row in ends("side_by_side").to_dicts()}
    gaps = {
        "grpo": gd.FiniteGroup(8, 1e-4, ddof=1),
        "dr_grpo": gd.MeanOnly(8),
        "rloo": gd.MeanOnly(),
        "ppo": gd.MeanOnly(),
    }
    for (method, p_ref), row in found.items():
        predicted = gd.fixed_points(gd.Flow(1.0, p_ref, gaps[method])).p[0]
        assert abs(row["end"] - predicted) < FOUR * row["end_error"], (method, p_ref)
    for p_ref in (0.02, 0.1, 0.3):
        assert found["dr_grpo", p_ref]["end"] < found["rloo", p_ref]["end"] < found["grpo", p_ref]["end"]


def test_the_worked_example():
    """DeepSeekMath's numbers: mean .5, std .53, advantages ±.94, ratio 1.4 clipped to 1.2."""
    (row,) = ends("worked_example").to_dicts()
    rounded = {key: round(value, 2) for key, value in row.items()}
    assert rounded == {
        "mean": 0.5,
        "std": 0.53,
        "advantage_right": 0.94,
        "advantage_wrong": -0.94,
        "ratio": 1.4,
        "objective": 1.12,
        "objective_without_clip": 1.31,
    }
    assert row["objective"] == pytest.approx(1.2 * 0.5 / np.sqrt(2 / 7))


def test_simulations_are_not_imported_before_they_are_asked_for():
    code = "import sys, grpo_dynamics.cli; print([m for m in sys.modules if 'simulation.' in m])"
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert out.strip() == "[]"


@pytest.mark.parametrize(
    ("questions", "legend"),
    [
        (Questions(p_ref=(0.05, 0.5), copies=2), "p_{\\mathrm{ref}}"),
        (Questions(p_ref=(0.05, 0.5), copies=20), "80 % of the copies"),
        (Questions(kind="random", questions=20, answers=3), "median"),
    ],
)
def test_the_picture_of_one_simulation(questions, legend):
    """A few kinds of questions have a color each, with any number of copies: one band over two would mean nothing."""
    settings = one_simulation.Settings(questions, Training(), steps=3)
    table, _ = one_simulation.parts(settings, seed=0)[0].compute(None)
    axes = one_simulation.draw(table).axes[0]
    shown = axes.get_legend()
    assert legend in " ".join([shown.get_title().get_text(), *(text.get_text() for text in shown.get_texts())])
    if questions.kind == "uniform":
        assert {line.get_color() for line in axes.lines} > set(PALETTE[:2])
    solid = [np.asarray(line.get_ydata(), dtype=float) for line in axes.lines if line.get_linestyle() == "-"]
    ends = table.filter(step=3)["p"].to_numpy()
    assert any(np.isclose(y[-1:], [*ends, ends.mean()]).any() for y in solid)

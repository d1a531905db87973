"""The report: one file that needs nothing else, with the numbers in it."""

import json
import re

import numpy as np
import polars as pl
import pytest

import grpo_dynamics as gd
from grpo_dynamics.update_rule import Training
from grpo_dynamics.validation.compare import compare
from grpo_dynamics.validation.figures import representatives
from grpo_dynamics.validation.report import validate
from grpo_dynamics.validation.run_directory import read_run
from grpo_dynamics.validation.summary import short, summarize
from tests.validation.made_runs import write_run

P_REF = [1e-3, 0.05, 0.2, 0.5, 0.8, 0.95]
SMALL = Training(update="gradient", learning_rate=0.3, kl="k3", normalization=gd.FiniteGroup(8))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    arms = {"beta_5": (Training(beta=5.0), P_REF), "small steps": (SMALL, P_REF)}
    run = write_run(folder / "run", arms, steps=8, samples=40, seed=2, validation={"median": 0.2})
    return run, validate(read_run(run), folder / "out")


def test_everything_is_written(made):
    _, report = made
    names = {path.name for path in report.paths}
    assert {"report.html", "summary.json", "comparison.parquet", "p_infinity.parquet", "error.parquet"} <= names
    assert {"beta_5_trajectories.png", "beta_5_one_step.pdf", "small steps_p_infinity.png"} <= names
    assert all(path.stat().st_size > 0 for path in report.paths)
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in report.paths if path.suffix == ".png")


def test_the_page_needs_nothing_else(made):
    """No network, no file beside it: pictures are in the page, and no address but those inside it."""
    page = made[1].page.read_text(encoding="utf-8")
    assert "<!--" not in page
    assert not re.findall(r"(?:src|href)=\"(?!data:image/png;base64,|#)", page)
    assert "http" not in page.replace("base64", "")[: page.index("<img")]
    assert "<script" not in page
    assert page.count("data:image/png;base64,") == sum(path.suffix == ".png" for path in made[1].paths)
    assert "prefers-color-scheme: dark" in page


def test_the_page_says_the_numbers(made):
    run, report = made
    page = report.page.read_text(encoding="utf-8")
    for told in report.summaries:
        own = told["residual"] if told["residual"]["points"] else told["p_infinity"]
        assert f">{short(own['median'])}<" in page
        assert f"{own['points']} " in page
        for entry in told["other_theories"]:
            assert short(entry["p_infinity_median"]) in page
    assert "pass" in page
    assert "fitted" in page
    assert "cannot be known" in page  # 0 of 40 samples for p_ref = 0.001
    assert "One network answers all questions" in page
    assert json.loads((run / "beta_5" / "manifest.json").read_text())["config"]["training"]["beta"] == 5.0
    assert "&quot;beta&quot;: 5.0" in page


def test_the_tables_are_what_the_page_is_made_of(made):
    _, report = made
    out = report.page.parent
    told = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    assert told["arms"] == report.summaries
    table = pl.read_parquet(out / "comparison.parquet").filter(pl.col("arm") == "beta_5")
    assert table.height == 9 * len(P_REF)
    later = table.filter((pl.col("iteration") > 0) & pl.col("orbit").is_not_nan())
    whole, settling = (told["arms"][0][name]["median"] for name in ("orbit", "orbit_settling"))
    assert later["orbit_residual"].abs().median() == pytest.approx(whole)
    cycle = later.filter(pl.col("p_ref") < 0.01)["question_id"].unique()  # p_ref = 0.001 has a two-cycle at β = 5
    rest = later.filter(~pl.col("question_id").is_in(cycle.implode()))
    assert rest["orbit_residual"].abs().median() == pytest.approx(settling)
    ends = pl.read_parquet(out / "p_infinity.parquet")
    assert ends.height == 2 * len(P_REF)


def test_all_arms_stand_in_one_picture_at_the_top(made, tmp_path):
    _, report = made
    page = report.page.read_text(encoding="utf-8")
    assert "overview.png" in {path.name for path in report.paths}
    assert page.index('<figure class="overview">') < page.index("<table") < page.index('<figure class="trajectories">')
    kept = sum(told["passed"] for told in report.summaries)
    assert f"{kept} of 2 arms keep the bounds" in page
    alone = validate(read_run(write_run(tmp_path / "run", {"x": (Training(), [0.2])}, steps=2)), tmp_path / "out")
    assert "overview.png" not in {path.name for path in alone.paths}
    assert 'class="overview"' not in alone.page.read_text(encoding="utf-8")


def test_questions_whose_end_is_not_compared_are_counted_and_named(tmp_path):
    """At β = 5 p_ref = 0.001 has a two-cycle, so there is no p*; the other paths have arrived after 40 steps."""
    (arm,) = read_run(write_run(tmp_path, {"x": (Training(beta=5.0), P_REF)}, steps=40)).arms
    told = summarize(compare(arm))
    assert told["fates"]["cycle"] == 1
    assert sum(told["fates"].values()) == told["p_infinity"]["points"] + 1 == len(P_REF)
    assert "p_∞ is not compared for 1 question: 1 whose predicted path comes to no rest." in told["verdict"]


def test_names_of_users_are_escaped(tmp_path):
    arms = {"a&b <i>": (Training(), [0.2, 0.5])}
    page = validate(read_run(write_run(tmp_path / "run", arms, steps=3)), tmp_path / "out").page.read_text(
        encoding="utf-8"
    )
    assert "a&amp;b &lt;i&gt;" in page
    assert '<i>"' not in page
    assert "a&b <i>" not in page


def test_a_run_of_one_question_that_has_only_begun(tmp_path):
    report = validate(read_run(write_run(tmp_path / "run", {"x": (Training(), [0.2])}, steps=0)), tmp_path / "out")
    assert report.passed is None
    assert report.page.exists()


def test_the_questions_shown_are_spread_and_show_an_oscillating_one(tmp_path):
    p_ref = [*np.linspace(0.02, 0.98, 30), 1e-3]
    (arm,) = read_run(write_run(tmp_path, {"x": (Training(beta=5.0), p_ref)}, steps=2)).arms
    found = compare(arm)
    chosen = representatives(found)
    assert len(chosen) == 6
    assert found.moving[chosen].any()
    assert min(found.grid.p[0, chosen]) == pytest.approx(1e-3)
    assert max(found.grid.p[0, chosen]) == pytest.approx(0.98)

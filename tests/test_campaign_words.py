"""The words of the campaign's page follow from the numbers: reasons of failures, lengths, far ends, result lines."""

import importlib
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from grpo_dynamics import FiniteGroup
from grpo_dynamics.update_rule import Training
from tests.validation.made_runs import success, write_arm

ROOT = Path(__file__).parents[1]
KINDS = ("ends", "lengths", "lines", "page", "reasons", "results", "scripts")


@pytest.fixture(scope="module")
def campaign():
    before = dict(sys.modules)
    sys.path.insert(0, str(ROOT / "docs"))
    yield type("Campaign", (), {name: importlib.import_module(f"campaign.{name}") for name in KINDS})
    sys.path.remove(str(ROOT / "docs"))
    for name in set(sys.modules) - set(before):
        if name.startswith("campaign"):
            del sys.modules[name]


def made(campaign, arms, name="gpu_made_smoke", folder=Path("/nowhere"), **config):
    configs = {arm["arm"]: config.get(arm["arm"], {}) for arm in arms}
    manifest = {"hardware": {"device": "cpu", "cores": 2}, "config": configs, "seconds": 60.0}
    return campaign.results.Result(folder, folder / name, manifest, tuple(arms))


def an_arm(name="arm", missed=(), **parts):
    """An arm of exact expectations, all of whose loops converged; ``missed`` has (name, bound, value, how)."""
    error = {"total": 0.01, "statistical": 0.0, "optimisation": 0.01, "approximation": 0.0}
    error |= {"converged": 1.0, "kl": 2e-4, "kl_largest": 1e-3} | parts.pop("error", {})
    keys = ("name", "bound", "value", "how")
    thresholds = [{"what": f"what {m[0]} is", "passed": False} | dict(zip(keys, m, strict=True)) for m in missed]
    return {
        "arm": name,
        "questions": 32,
        "passed": False if missed else None,
        "residual": {"points": 100, "median": 0.001, "percentile_95": 0.01},
        "p_infinity": {"median": 0.01, "percentile_95": 0.02, "largest": 0.03, "r2": 0.99, "still_moving": 2}
        | {"on_their_way": 0, "points": 32},
        "oscillation": {"predicted": 0, "seen": 0, "others": 0, "swing": None, "swing_predicted": None},
        "other_theories": [],
        "not_modelled": [],
        "lengths": None,
        "r2": 0.99,
        "error": error,
        "thresholds": thresholds,
    } | parts


SWINGS = {"predicted": 9, "seen": 3, "others": 4, "swing": 0.05, "swing_predicted": 0.2}
CHANCE = {"total": 0.1, "statistical": 0.09, "optimisation": 0.001}
OTHER = [{"paper": False, "apart": {"questions": 7, "own": 0.1, "other": 0.2, "factor": 2.0}}]


@pytest.mark.parametrize(
    ("missed", "parts", "said", "unsaid"),
    [
        (("oscillating", 5, 3, "at least"), {"oscillation": SWINGS}, "6 of the 9 that should swing do not", "loop"),
        (
            ("oscillating", 5, 3, "at least"),
            {"oscillation": SWINGS},
            "change by 0.050 in a step, predicted is 0.2",
            "KL",
        ),
        (
            ("oscillating", 5, 3, "at least"),
            {"oscillation": SWINGS, "error": {"converged": 0.5}},
            "did not reach their tolerance in 50 %",
            "largest part",
        ),
        (("oscillating", 12, 3, "at least"), {"oscillation": SWINGS}, "only 9 questions swing from these", "do not."),
        (("oscillating_at_most", 5, 7, "at most"), {"oscillation": SWINGS}, "4 should come to rest", "loop"),
        (("median", 1e-4, 1e-3, "at most"), {}, "allows 0.022 in a step: the bound is tighter", "did not reach"),
        (("median", 0.05, 0.1, "at most"), {}, "or the network cannot represent", "is tighter"),
        (("p_infinity_r2", 0.95, 0.2, "at least"), {}, "or the network cannot represent", "is tighter"),
        (("median", 0.02, 0.1, "at most"), {"error": {"converged": 0.25}}, "tolerance in 75 %. KL left: 0.0002", "All"),
        (("median", 0.02, 0.1, "at most"), {"error": {"converged": None}}, "was not recorded", "All"),
        (("percentile_95", 0.02, 0.1, "at most"), {"error": CHANCE}, "is chance: 0.090 of 0.1", "loops"),
        (("wrong_estimator", 3.0, 2.0, "at least"), {"other_theories": OTHER}, "On the 7 questions where", "loops"),
        (("p_infinity_r2", 0.95, None, "at least"), {}, "No question could be compared", "loops"),
    ],
)
def test_each_kind_of_failure_has_its_own_reason(campaign, monkeypatch, missed, parts, said, unsaid):
    monkeypatch.setattr(campaign.reasons, "causes", lambda result, arm: "CAUSES.")
    arm = an_arm("arm", [missed], **parts)
    result = made(campaign, [arm], arm={"optimization": {"inner_tolerance": 1e-3}})
    [text] = campaign.reasons.failures(result)
    assert said in text
    assert unsaid not in text.partition("). ")[2]


def test_what_is_kept_has_no_reason(campaign):
    assert campaign.reasons.failures(made(campaign, [an_arm()])) == []


# ---- small steps -----------------------------------------------------------------------------------------------------


@pytest.fixture
def flow(campaign, tmp_path):
    """A flow whose questions end at 0 (silent), still move, end 0.3 too low with no reason told, and end at p*."""
    training = Training(beta=1.0, normalization=FiniteGroup(8), update="sampled", learning_rate=1e-3)
    p = np.full((13, 4), 0.3)
    write = {"optimization": {"optimizer": "adamw", "learning_rate": 1e-3}}
    write_arm(tmp_path / "gpu_flow_smoke" / "arm", success(np.log(p / (1 - p))), training, **write)
    arm = an_arm(residual={"points": 0}, error={"total": None, "converged": None}, questions=4)
    result = made(campaign, [arm], "gpu_flow_smoke", tmp_path, arm={"training": {"normalization": {"group_size": 8}}})
    goal = campaign.ends.ends(result, "arm")["p_star"][0]
    p[1:] = [1e-3, goal, goal - 0.3, goal]
    p[-4:, 1], p[-2:, 1] = goal - 0.25, goal - 0.15
    write_arm(tmp_path / "gpu_flow_smoke" / "arm", success(np.log(p / (1 - p))), training, **write)
    return result, arm


def test_far_ends_have_the_causes_that_the_tables_tell(campaign, flow):
    result, arm = flow
    found = {row["question_id"]: row for row in campaign.ends.ends(result, "arm").iter_rows(named=True)}
    assert found["q000"]["silent"] == pytest.approx(0.999**8 + 1e-24)
    assert [campaign.ends.cause(found[f"q00{i}"]) for i in range(3)] == ["silent", "moving", "open"]
    text = campaign.ends.causes(result, arm)
    assert "Of 4 questions 3 end farther than 0.1" in text
    for words in campaign.ends.CAUSES.values():
        assert (f"1 {words}" in text) == ("count of p_ref" not in words)
    assert "The farthest, `q000`, has p_ref = 0.3" in text
    assert "99 % of groups of 8 are silent" in text


def test_a_missed_end_of_a_flow_names_the_questions(campaign, flow):
    result, arm = flow
    arm["thresholds"] = an_arm(missed=[("p_infinity", 0.04, 0.3, "at most")])["thresholds"]
    [text] = campaign.reasons.failures(result)
    assert "2 of 4 questions were still moving at the end. Of 4 questions 3 end farther" in text
    assert "Not modelled" not in text


def test_a_pass_with_far_ends_is_said_to_be_one_on_medians(campaign, flow):
    result, arm = flow
    assert campaign.ends.far(result) == []
    arm["p_infinity"] |= {"percentile_95": 0.5, "r2": -0.09}
    arm["passed"] = True
    listed, silent = campaign.ends.far(result)
    assert "p\\* tells less about where its questions end" in listed
    assert "its bounds are on medians" in listed
    assert "is silent" in silent


# ---- lengths ---------------------------------------------------------------------------------------------------------


def long(name, shift, error):
    wrong = {"start": 4.0, "end": 4.0 + shift, "shift": shift, "shift_error": error, "questions": 20}
    return an_arm(name, lengths={"wrong": wrong, "right": dict(wrong, shift=0.0, shift_error=0.0)})


@pytest.mark.parametrize(
    ("aggregation", "shift", "error", "beside", "word"),
    [
        ("constant", 0.30, 0.09, (0.17, 0.22), "contradicts"),
        ("constant", -0.30, 0.09, (0.9, 0.1), "contradicts"),
        ("constant", 0.17, 0.22, (0.9, 0.1), "agrees"),
        ("constant", 0.17, 0.22, (0.17, 0.22), "cannot be told"),
        ("constant", 0.17, 0.32, (0.9, 0.1), "cannot be told"),
        ("token_mean", 0.30, 0.09, (0.9, 0.1), "contradicts"),
        ("sequence_mean", 0.30, 0.09, (0.9, 0.1), "agrees"),
        ("sequence_mean", 0.17, 0.22, (0.9, 0.1), "cannot be told"),
        ("sequence_mean", -0.30, 0.09, (0.9, 0.1), "contradicts"),
    ],
)
def test_each_length_is_laid_beside_its_own_prediction(campaign, aggregation, shift, error, beside, word):
    def settings(which):
        return {"training": {"aggregation": which, "ratio_level": "token"}}

    arms = [long("one", shift, error), long("other", *beside)]
    result = made(campaign, arms, one=settings(aggregation), other=settings("sequence_mean"))
    text = "\n".join(campaign.lengths.lengths(result))
    [line] = [line for line in text.splitlines() if line.startswith("- `one`:")]
    assert line.endswith(f"shift {shift:+.2f} ± {error:.2f}: **{word}**.")
    assert ("predicted longer" in line) == (aggregation == "sequence_mean")
    assert "not independent and the error is too small" in text
    if aggregation == "constant":
        [order] = [line for line in text.splitlines() if line.startswith("- `other` beside `one`")]
        assert ("other way round" in order) == (shift > beside[0])


def test_a_loss_of_whole_sequences_promises_nothing_of_lengths(campaign):
    arms = [long("one", 0.3, 0.01)]
    result = made(campaign, arms, one={"training": {"aggregation": "sequence_mean", "ratio_level": "sequence"}})
    assert len(campaign.lengths.lengths(result)) == 1
    assert campaign.lengths.lengths_line(result) == []


def test_the_spans_before_are_told(campaign, tmp_path):
    arms = [long("one", 0.3, 0.09)]
    settings = {"training": {"aggregation": "constant", "ratio_level": "token"}}
    result = made(campaign, arms, "gpu_practice_smoke", tmp_path, one=settings)
    result.folder.mkdir()
    spans = {"arm": ["one"] * 4, "span": [0, 1, 2, 3], "wrong_shift": [0.0, 0.1, 0.4, 0.3]}
    spans["wrong_shift_error"] = [0.0, 0.1, 0.05, 0.09]
    pl.DataFrame(spans).write_parquet(result.folder / "lengths.parquet")
    text = "\n".join(campaign.lengths.lengths(result))
    assert "In the spans before: +0.10 ± 0.10, +0.40 ± 0.05; beyond 3 standard errors in 2 of 3 spans." in text


# ---- result lines ----------------------------------------------------------------------------------------------------


def test_scale_says_whether_the_error_shrinks(campaign):
    arms = [
        an_arm(f"{size}_30_steps", error={"total": error}, residual={"points": 9, "median": median}, r2=-0.2)
        for size, error, median in (("small", 0.137, 0.0066), ("medium", 0.095, 0.0045), ("large", 0.088, 0.0071))
    ]
    line = campaign.lines.one_line(made(campaign, arms, "gpu_scale_smoke"))
    assert "small → medium → large: error of one step 0.137 → 0.095 → 0.088 (shrinks)" in line
    assert "0.0066 → 0.0045 → 0.0071 (does not shrink throughout), R² −0.20" in line


def test_oscillation_says_what_swings_where_none_should(campaign):
    arms = [an_arm("exact", oscillation=SWINGS), an_arm("small", oscillation=dict(SWINGS, predicted=0, seen=0))]
    line = campaign.lines.one_line(made(campaign, arms, "gpu_oscillation_smoke"))
    assert line == (
        "3 of 9 questions swing that should, and 4 others on their way to rest; by how much in a step (predicted): "
        "`exact` 0.050 (0.200); where none should, 4 in `small`"
    )


def test_recursion_says_what_was_tried(campaign):
    trained = [{"beta": 5.0}, {"beta": 0.5, "alpha": 0.0}, {"beta": 5.0, "update": "sampled"}]
    configs = {f"arm_{i}": {"training": training} for i, training in enumerate(trained)}
    line = campaign.lines.one_line(made(campaign, [an_arm(name) for name in configs], "cpu_recursion", **configs))
    assert "at most 0.001 with exact expectations (95 % within 0.010), 0.001 with sampled groups" in line
    assert "tried: β = 0.5, 5; GRPO, mirror" in line


@pytest.mark.parametrize("ours", [100.0, 200.0])
def test_throughput_says_where_it_is_slower_and_what_bounds_it(campaign, ours):
    rows = [("update", "1M", "ours", 10**6, 0.26, 90.0, None), ("step", "1M", "ours", 10**6, None, ours, None)]
    rows += [("step", "1M", "transformers", 10**6, None, 150.0, None)]
    rows += [
        ("profile", "1M", name, None, None, None, x) for name, x in (("idle", 0.2), ("copies", 0.1), ("sums", 0.7))
    ]
    names = ["part", "size", "what", "parameters", "fraction_of_matmul", "samples_per_second", "share"]
    table = pl.DataFrame(rows, schema=names, orient="row")
    line = campaign.scripts.script_line(table)
    assert f"step ours {ours:.0f}, transformers 150" in line
    assert ("slower than the plain loop with transformers at 1 of 1 sizes" in line) == (ours < 150)
    manifest = {"hardware": {"device": "cpu"}}
    result = campaign.results.Result(ROOT, ROOT, manifest, table=table)
    [why] = campaign.scripts.bound_by(result, 0.35)
    assert "reaches 26 % of the measured matmul rate, and 35 % are asked" in why
    assert "sums 70 %, idle 20 %, copies 10 %. This is a CPU" in why
    assert campaign.scripts.bound_by(result, 0.2) == []


@pytest.mark.parametrize(("own", "nearest"), [(0.51, 2), (0.79, 1)])
def test_the_trainers_are_nearest_where_they_are(campaign, own, nearest):
    rows = [("a", step, "q", own, 0.5) for step in (0, 9)] + [("b", step, "q", 0.81, 0.8) for step in (0, 9)]
    table = pl.DataFrame(rows, schema=["arm", "step", "question_id", "p", "predicted"], orient="row")
    assert campaign.scripts.script_line(table).startswith(f"{nearest} of 2 arms end nearest to their own prediction")


# ---- commands --------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("bash") is None, reason="a shell")
@pytest.mark.parametrize(("codes", "given"), [("3 3 0", 3), ("3 2 0", 2), ("0", 1)])
def test_the_loop_gives_the_command_until_it_is_done_or_wrong(campaign, tmp_path, codes, given):
    loop = campaign.page.repeated("next_code")
    counted = tmp_path / "given"
    command = f'codes=({codes}); n=0; next_code() {{ n=$((n + 1)); echo x >> "{counted}"; return ${{codes[n-1]}}; }}'
    subprocess.run(["bash", "-c", f"{command}; {loop}"], check=False, timeout=60)
    assert len(counted.read_text().splitlines()) == given


def test_no_caption_capitalises_a_symbol(campaign):
    text = campaign.page.page()
    assert "P_ref" not in text
    assert "P\\_ref" not in text

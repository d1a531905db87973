"""The campaign's page and table say what the committed results say, and on what they were computed: no more."""

import importlib.util
import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from grpo_dynamics.plotting import new_figure, render
from grpo_dynamics.update_rule import Training
from grpo_dynamics.validation.compare import compare
from grpo_dynamics.validation.report import validate
from grpo_dynamics.validation.run_directory import read_run
from grpo_dynamics.validation.summary import short
from tests.validation.made_runs import write_run

ROOT = Path(__file__).parents[1]
EXPERIMENTS = ROOT / "experiments"
RESULTS = EXPERIMENTS / "results"
P_REF = [1e-3, 0.05, 0.2, 0.5, 0.8, 0.95]
GPU = "NVIDIA H100 80GB HBM3"


def module(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    found = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = found  # before it runs: dataclasses look up their types here
    spec.loader.exec_module(found)
    return found


@pytest.fixture(scope="module")
def pages():
    before = dict(sys.modules)
    sys.path.insert(0, str(ROOT / "docs"))
    yield importlib.import_module("campaign.page")
    sys.path.remove(str(ROOT / "docs"))
    for name in set(sys.modules) - set(before):
        if name.startswith("campaign"):
            del sys.modules[name]


@pytest.fixture(scope="module")
def keep():
    return module(EXPERIMENTS / "keep.py")


@pytest.fixture(scope="module")
def kept(keep, tmp_path_factory):
    """A small form of two arms, one of which breaks its bounds, kept from a run of tables of probabilities."""
    folder = tmp_path_factory.mktemp("kept")
    made_run(folder / "gpu_recursion_smoke", {"hardware": {"device": "cpu", "cores": 2}, "smoke": True})
    keep.keep(folder / "gpu_recursion_smoke", folder / "results")
    return folder / "results"


def made_run(path, manifest):
    arms = {"kept": (Training(beta=5.0), P_REF), "broken": (Training(beta=2.0), P_REF)}
    run = write_run(path, arms, steps=6, optimization={"inner_tolerance": 1e-3}, validation={"median": 1e-6})
    table = pl.read_parquet(run / "broken" / "success.parquet")  # what the loop left: 0.05 too high
    wrong = (table["p"] * 0.9 + 0.05).to_numpy()
    odds = {"p": wrong, "low": wrong, "high": wrong, "log_odds": np.log(wrong / (1 - wrong))}
    table.with_columns(
        *(
            pl.when(pl.col("iteration") > 0).then(pl.Series(name, x)).otherwise(pl.col(name)).alias(name)
            for name, x in odds.items()
        )
    ).write_parquet(run / "broken" / "success.parquet")
    whole = json.loads((run / "manifest.json").read_bytes())
    whole |= {"name": path.name, "seconds": 90.0, "commit": "0123456789", **manifest}
    whole["config"] = {name: {"training": {"update": "exact"}} for name in arms}
    (run / "manifest.json").write_text(json.dumps(whole))
    validate(read_run(run), run / "validation")
    return run


def test_every_experiment_has_its_row(pages):
    """Each file gpu_* that can be run, and no row without its file but for what is not written yet."""
    files = {path.stem for path in EXPERIMENTS.glob("gpu_*") if path.suffix in (".toml", ".py")}
    rows = {experiment.name: experiment for experiment in pages.CAMPAIGN}
    assert files <= set(rows)
    readme = (EXPERIMENTS / "README.md").read_text(encoding="utf-8")
    for name in files:
        assert (EXPERIMENTS / f"{name}.py").is_file() == rows[name].script
        assert f"`{rows[name].command(smoke=False)}`" in readme


def test_the_table_of_the_readme_is_that_of_the_manifests(pages):
    """If this fails, run: python docs/generate.py"""
    text = (EXPERIMENTS / "README.md").read_text(encoding="utf-8")
    assert text == pages.readme(text)
    for experiment in (*pages.CAMPAIGN, *pages.OTHERS):
        for result in pages.results_of(experiment):
            row = next(
                line
                for line in text.splitlines()
                if line.startswith(f"| `{experiment.name}`") and f"`{experiment.command(result.smoke)}`" in line
            )
            cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]]
            device = result.manifest["hardware"].get("device", "cpu")
            assert cells[3].startswith("a CPU") == device.startswith("cpu")
            assert abs(float(cells[4]) - result.manifest["seconds"] / 60) <= max(0.1, 0.51 * (float(cells[4]) >= 10))


def test_without_results_the_page_says_so_and_has_every_command(pages, tmp_path):
    text = pages.page(tmp_path)
    assert "Nothing on this page was measured on a GPU" in text
    for experiment in pages.CAMPAIGN:
        assert f"$ until {experiment.command(smoke=False)}; do [ $? -eq 3 ] || break; done\n" in text
        assert f"$ python experiments/keep.py runs/{experiment.name}\n" in text
        assert f"({experiment.name})=" in text
    assert text.count("**Not run on a GPU**: it has not been run at all") == len(pages.CAMPAIGN)
    assert "reached" not in text


def test_results_of_a_cpu_are_never_those_of_a_gpu(pages, kept):
    text = pages.page(kept)
    assert "Nothing on this page was measured on a GPU" in text
    assert "### Recursion on a CPU of 2 cores, small form (`--smoke`)" in text
    assert "it has been run on a CPU in the small form only" in text
    verdicts = [line.split("|")[-3] for line in text.splitlines() if "[gpu_recursion](#gpu_recursion) |" in line]
    assert verdicts
    assert all("open" in verdict for verdict in verdicts)
    assert "1.5 minutes on a CPU of 2 cores" in text


def test_results_of_a_gpu_come_first_with_its_name(pages, kept, tmp_path):
    """The same result, as if a GPU had made it."""
    shutil.copytree(kept / "gpu_recursion_smoke", tmp_path / "gpu_recursion_smoke")
    shutil.copytree(kept / "gpu_recursion_smoke", tmp_path / "gpu_recursion")
    place = tmp_path / "gpu_recursion" / "manifest.json"
    made = {"hardware": {"device": GPU}, "smoke": False}
    place.write_text(json.dumps(json.loads(place.read_bytes()) | made))
    text = pages.page(tmp_path)
    first, second = f"### Recursion on {GPU}\n", "### Recursion on a CPU of 2 cores, small form"
    assert 0 < text.index(first) < text.index(second)
    assert "Nothing on this page was measured on a GPU" not in text
    assert f"On a GPU ({GPU}) were run: `gpu_recursion`" in text
    goal = next(line for line in text.splitlines() if "exact expectations | at most 0.02" in line)
    assert GPU in goal
    assert "**missed**" in goal  # the broken arm is 0.05 off, and the worst arm counts
    assert "open" not in goal


def test_the_page_has_the_numbers_the_failures_and_their_cause(pages, kept):
    summary = json.loads((kept / "gpu_recursion_smoke" / "summary.json").read_bytes())
    text = pages.page(kept)
    for arm in summary["arms"]:
        row = next(line for line in text.splitlines() if line.startswith(f"| `{arm['arm']}` | recursion"))
        assert f"| {short(arm['residual']['median'])} | {short(arm['residual']['percentile_95'])} |" in row
        assert ("**fail**" in row) == (not arm["passed"])
    assert [arm["passed"] for arm in summary["arms"]] == [True, False]
    assert "- `broken` misses: median" in text
    assert "- `kept` misses" not in text
    assert "neither chance nor the inner loop" in text
    assert "the network is not the policy of the theory" in text
    for command in ("run --config experiments/gpu_recursion.toml --smoke", "validate runs/gpu_recursion_smoke"):
        assert f"$ grpo-dynamics {command}" in text


def test_the_pictures_on_the_page_are_there(pages, kept):
    for results in (kept, RESULTS):
        shown = re.findall(r"```\{image\} \.\./\.\./experiments/results/(\S+)", pages.page(results))
        assert all((results / path).is_file() for path in shown)
        assert shown or results == RESULTS


@pytest.mark.parametrize("table", ["pretraining", "throughput"])
def test_a_script_is_told_by_its_table(pages, tmp_path, table):
    name = f"gpu_{table}_smoke"
    rows = {
        "pretraining": {
            "size": ["1M"],
            "task": ["sums"],
            "parameters": [10**6],
            "seconds": [30.0],
            "share_inside": [0.8],
        },
        "throughput": {
            "part": ["update", "profile"],
            "size": ["1M", "1M"],
            "what": ["ours", "matmul"],
            "parameters": [10**6] * 2,
            "fraction_of_matmul": [0.2, None],
            "share": [None, 0.7],
            "peak_memory_bytes": [None, None],
        },
    }[table]
    folder = tmp_path / name
    folder.mkdir()
    pl.DataFrame(rows).write_parquet(folder / f"{name}.parquet")
    manifest = {"name": name, "seconds": 30.0, "commit": "0123456789", "hardware": {"device": "cpu", "cores": 2}}
    (folder / f"{name}.json").write_text(json.dumps(manifest))
    text = pages.page(tmp_path)
    said = {"pretraining": "for 80 to 80 % of the questions", "throughput": "update at up to 20 % of the measured"}[
        table
    ]
    assert said in text
    assert "peak memory" not in text  # empty on a CPU
    assert f"gpu_{table}.py --smoke" in text
    if table == "throughput":
        assert "| 0.200 | a CPU of 2 cores, small form | **missed** there; open on a GPU |" in text


def test_what_is_kept_is_small_and_says_the_same(keep, kept):
    folder = kept / "gpu_recursion_smoke"
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= keep.SMALL
    assert (folder / "figures" / "overview.png").is_file()
    assert list((folder / "figures").glob("*_single_questions.png"))
    summary = json.loads((folder / "summary.json").read_bytes())
    for arm, told in zip(read_run(folder).arms, summary["arms"], strict=True):
        assert "p" not in pl.read_parquet(folder / arm.name / "success.parquet").columns  # it follows from the log-odds
        again = compare(arm)
        assert np.nanmedian(np.abs(again.residual)) == pytest.approx(told["residual"]["median"], abs=1e-12)


def test_counts_are_kept_as_they_are(keep, tmp_path):
    run = write_run(tmp_path / "counted", {"arm": (Training(beta=5.0), P_REF)}, steps=3, samples=20)
    whole = json.loads((run / "manifest.json").read_bytes())
    (run / "manifest.json").write_text(json.dumps(whole | {"smoke": True}))
    (run / "validation").mkdir()
    (run / "validation" / "summary.json").write_text(json.dumps({"arms": []}))
    found = pl.read_parquet(keep.keep(run, tmp_path / "results") / "arm" / "success.parquet")
    before = pl.read_parquet(run / "arm" / "success.parquet")
    for name in ("p", "low", "high", "successes", "samples"):
        assert found[name].to_list() == before[name].to_list()


@pytest.mark.parametrize(
    ("change", "said"), [({"status": "stopped"}, "stopped"), ({"arms": ["a"]}, "without a/manifest")]
)
def test_an_unfinished_run_is_not_kept(keep, tmp_path, change, said):
    (tmp_path / "run" / "validation").mkdir(parents=True)
    for name in ("config.toml", "validation/summary.json"):
        (tmp_path / "run" / name).write_text("")
    (tmp_path / "run" / "manifest.json").write_text(json.dumps({"status": "finished", "arms": []} | change))
    with pytest.raises(SystemExit, match=said):
        keep.keep(tmp_path / "run", tmp_path / "results")
    assert not (tmp_path / "results").exists()


def test_a_run_named_by_the_folder_one_is_in_replaces_its_own_result_only(keep, tmp_path, monkeypatch):
    run, results = tmp_path / "run", tmp_path / "results"
    (run / "validation").mkdir(parents=True)
    results.mkdir()
    (results / "another.json").write_text("{}")
    (run / "config.toml").write_text("")
    (run / "validation/summary.json").write_text(json.dumps({"arms": []}))
    (run / "manifest.json").write_text(json.dumps({"status": "finished", "arms": []}))
    monkeypatch.chdir(run)
    assert keep.keep(Path("."), results) == results / "run"
    assert (results / "another.json").exists()


@pytest.mark.parametrize("found", ["{", "[]", "{}", '{"status": "finished"}'])
def test_a_manifest_of_something_else_is_refused_in_one_line(keep, tmp_path, found):
    (tmp_path / "manifest.json").write_text(found)
    with pytest.raises(SystemExit, match="error: run must be the folder of a finished run"):
        keep.keep(tmp_path, tmp_path / "results")


def test_a_picture_in_few_colours_is_the_same_to_the_eye(keep, tmp_path):
    from PIL import Image

    figure = new_figure(3, 2)
    axes = figure.subplots()
    for k in range(7):
        axes.plot(np.arange(50), np.sin(np.arange(50) / (k + 1)))
    whole = render(figure, ".png")
    (tmp_path / "picture.png").write_bytes(whole)
    few = keep._few_colours(tmp_path / "picture.png")
    (tmp_path / "few.png").write_bytes(few)
    assert len(few) < 0.7 * len(whole)
    first, second = (
        np.asarray(Image.open(tmp_path / f"{n}.png").convert("RGB"), dtype=int) for n in ("picture", "few")
    )
    assert np.abs(first - second).max() <= 40  # of 255
    assert np.abs(first - second).mean() < 2


def test_all_committed_results_are_small(keep):
    sizes = {path: path.stat().st_size for path in RESULTS.rglob("*") if path.is_file()}
    assert sum(sizes.values()) <= 20e6
    for folder in RESULTS.glob("*_smoke"):
        assert sum(size for path, size in sizes.items() if folder in path.parents) <= keep.SMALL, folder.name

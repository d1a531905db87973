"""What is kept of the scripts that measure: the table, its manifest and the picture, as the committed results are."""

import importlib.util
import json

import polars as pl
import pytest

from grpo_dynamics.config import EXPERIMENTS
from grpo_dynamics.plotting import new_figure, render


@pytest.fixture(scope="module")
def keep():
    spec = importlib.util.spec_from_file_location("keep", EXPERIMENTS / "keep.py")
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


@pytest.fixture(params=["gpu_pretraining", "gpu_throughput_smoke"])
def run(tmp_path, request):
    """The folder of a script that has finished, with a model of a megabyte."""
    folder = tmp_path / "runs" / request.param
    (folder / "models" / "1M_sums").mkdir(parents=True)
    (folder / "models" / "1M_sums" / "model.safetensors").write_bytes(bytes(10**6))
    small = request.param.endswith("_smoke")
    (folder / f"{request.param}.json").write_text(json.dumps({"config": {"smoke": small}, "seconds": 1.0}))
    pl.DataFrame({"size": ["1M"], "seconds": [1.0]}).write_parquet(folder / f"{request.param}.parquet")
    figure = new_figure(3, 2)
    figure.subplots().plot([0, 1, 0])
    for ending in ("png", "pdf"):
        (folder / f"{request.param}.{ending}").write_bytes(render(figure, f".{ending}"))
    return folder


def test_of_a_script_table_manifest_and_picture_are_kept(keep, run, tmp_path):
    """The same files as are committed; the first two byte by byte, the picture in few colours."""
    folder = keep.keep(run, tmp_path / "results")
    assert folder == tmp_path / "results" / run.name
    names = [f"{run.name}.{ending}" for ending in ("json", "parquet", "png")]
    assert sorted(path.name for path in folder.iterdir()) == names
    for name in names[:2]:
        assert (folder / name).read_bytes() == (run / name).read_bytes()
    assert (folder / names[2]).stat().st_size < (run / names[2]).stat().st_size


def test_committed_results_of_scripts_have_these_files():
    for name in ("gpu_pretraining_smoke", "gpu_throughput_smoke"):
        found = sorted(path.name for path in (EXPERIMENTS / "results" / name).iterdir())
        assert found == [f"{name}.{ending}" for ending in ("json", "parquet", "png")]


@pytest.mark.parametrize("ending", ["parquet", "png"])
def test_a_script_that_has_not_finished_is_not_kept(keep, run, tmp_path, ending):
    (run / f"{run.name}.{ending}").unlink()
    said = f"error: run must be the folder of a script that has finished, got .* without {run.name}.{ending}"
    with pytest.raises(SystemExit, match=said):
        keep.keep(run, tmp_path / "results")
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("found", ["{", "[]", "{}"])
def test_a_manifest_of_something_else_is_refused_in_one_line(keep, run, tmp_path, found):
    (run / f"{run.name}.json").write_text(found)
    with pytest.raises(SystemExit, match=r"error: run must be the folder of a script .*, got .* whose"):
        keep.keep(run, tmp_path / "results")


def test_a_table_that_is_too_large_is_refused(keep, run, tmp_path):
    (run / f"{run.name}.parquet").write_bytes(bytes(4 * 10**6))
    with pytest.raises(SystemExit, match="error: run must be small enough to keep"):
        keep.keep(run, tmp_path / "results")

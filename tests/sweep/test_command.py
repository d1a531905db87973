"""`grpo-dynamics sweep`, as a user meets it: what it prints and writes, and one line for every bad input."""

from __future__ import annotations

import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time

import polars as pl
import pytest

from grpo_dynamics.cli import main
from grpo_dynamics.sweep import engines

pytest.importorskip("joblib", reason="joblib is not installed: no engine to sweep with")

DIAGRAM = """
kind = "phase_diagram"
[axes]
beta = [1.0, 2.0, 5.0]
p_ref = [0.1, 0.2]
"""


def sweep(*arguments) -> list[str]:
    return ["sweep", *map(str, arguments), "--workers", "2"]


def refused(capsys, *arguments) -> str:
    """Return the one line of a command that refuses."""
    assert main(sweep(*arguments)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    return err


def test_a_sweep_prints_and_writes_what_it_found(config, tmp_path, printed, answer, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = config(text=DIAGRAM)
    text = printed(*sweep("--config", path, "--out", "out"))
    assert "Sweep small: phase diagram beta p_ref p_middle rows" in text
    assert "1 0.2 0.6813 1" in text  # the paper's p* at β = 1 from 0.2
    assert "6 of 6 tasks done, 0 of them before" in text
    place = tmp_path / "out" / "small"
    assert {p.name for p in place.iterdir()} == {"tasks", "sweep.json", "sweep.parquet", "sweep.png", "sweep.pdf"}
    before = (place / "sweep.parquet").read_bytes()
    found = answer(*sweep("--config", path, "--out", tmp_path / "out", "--resume"))
    assert (found["tasks"], len(found["done"]), found["skipped"], found["failed"]) == (6, 6, 6, {})
    assert found["summary"][0]["p_middle"] == pytest.approx(pl.read_parquet(place / "sweep.parquet")["p_middle"][0])
    assert (place / "sweep.parquet").read_bytes() == before


def test_failed_tasks_are_listed_and_the_exit_code_says_so(config, tmp_path, capsys):
    text = """
kind = "simulate"
[base]
steps = 3
questions.p_ref = 0.2
training.update = "gradient"
training.kl = "k3"
[axes]
training.learning_rate = [0.1, 1e100]
"""
    assert main(sweep("--config", config(text=text), "--out", tmp_path, "--retries", "0")) == 1
    out, err = capsys.readouterr()
    assert "1 of 2 tasks done" in out
    assert err.startswith("failed: ")
    assert "(training.learning_rate = 1e+100): FloatingPointError: " in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("engine", ["local", "dask"])
def test_a_sweep_that_is_stopped_says_how_to_go_on(engine, config, tmp_path):
    """SIGINT while the engine starts: Dask's cluster closes only once it is whole."""
    pytest.importorskip("distributed" if engine == "dask" else "joblib", reason=f"{engine} is not installed")
    arguments = sweep("--config", config(steps=10**7), "--out", tmp_path / "out", "--engine", engine)
    started = [sys.executable, "-m", "grpo_dynamics.cli", *arguments]
    with subprocess.Popen(started, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        until = time.monotonic() + 60
        while not (tmp_path / "out" / "small" / "tasks").exists() and time.monotonic() < until:
            time.sleep(0.05)
        time.sleep(0.5)
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=60)
    assert (running.returncode, out) == (130, "")
    place = tmp_path / "out" / "small"
    assert f"stopped: what is done is in {place}; the same command with --resume goes on\n" in err
    assert engine == "local" or "Traceback" not in err  # joblib's own thread may leave one


def test_another_sweep_in_the_folder(config, tmp_path, capsys):
    assert main(sweep("--config", config(text=DIAGRAM), "--out", tmp_path)) == 0
    capsys.readouterr()
    path = config(text=DIAGRAM)
    assert "which is finished: add --resume, or remove it" in refused(capsys, "--config", path, "--out", tmp_path)
    path.write_text(DIAGRAM.replace("5.0", "6.0"))
    text = refused(capsys, "--config", path, "--out", tmp_path, "--resume")
    assert "out must be a folder without another sweep" in text
    assert "the lists of tasks differ" in text
    (tmp_path / "small" / "sweep.json").write_text("{")
    assert "whose sweep.json is JSON" in refused(capsys, "--config", path, "--out", tmp_path)


@pytest.mark.parametrize("engine", ["ray", "dask"])
def test_nobody_at_the_address(engine, config, tmp_path, capsys):
    """Port 1 is closed: refused at once, before anything is written."""
    pytest.importorskip("ray" if engine == "ray" else "distributed", reason=f"{engine} is not installed")
    address = "127.0.0.1:1" if engine == "ray" else "tcp://127.0.0.1:1"
    arguments = ("--config", config(), "--out", tmp_path / "out", "--engine", engine, "--address")
    text = refused(capsys, *arguments, address)
    assert f"address must be that of a {engine.title()} scheduler that answers, got {address!r}" in text
    assert "such as" in refused(capsys, *arguments, "no-port")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("engine", ["ray", "dask"])
def test_something_else_at_the_address(engine, config, tmp_path, capsys, monkeypatch):
    """A web server listens there; the clients alone would try for a minute and more."""
    pytest.importorskip("ray" if engine == "ray" else "distributed", reason=f"{engine} is not installed")
    monkeypatch.setattr(engines, "PATIENCE_OF_A_CLIENT", 4.0)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler) as server:
        server.RequestHandlerClass.log_message = lambda *_: None
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"{'tcp://' if engine == 'dask' else ''}127.0.0.1:{server.server_port}"
        arguments = ("--config", config(), "--out", tmp_path / "out", "--engine", engine, "--address", address)
        assert f"{engine.title()} scheduler that answers, got {address!r}" in refused(capsys, *arguments)
        server.shutdown()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("engine", "extra"), [("local", "sweep"), ("ray", "ray"), ("dask", "dask")])
def test_an_engine_that_is_not_installed(engine, extra, config, tmp_path, capsys, monkeypatch):
    missing = engines.PACKAGES[engine][0]
    real = engines.importlib.import_module

    def without(name):
        if name == missing:
            raise ModuleNotFoundError(name=name)
        return real(name)

    monkeypatch.setattr(engines.importlib, "import_module", without)
    text = refused(capsys, "--config", config(), "--out", tmp_path / "out", "--engine", engine)
    assert f"pip install 'grpo-dynamics[{extra}]' (there is no {missing})" in text


def test_other_bad_input(config, tmp_path, capsys):
    path = config()
    assert "config must be a TOML file, got nothing" in refused(capsys, "--out", tmp_path)
    assert "the nearest is 'small.toml'" in refused(capsys, "--config", tmp_path / "smal.toml")
    assert "engine must be one of local, ray, dask, got 'spark'" in refused(
        capsys, "--config", path, "--engine", "spark"
    )
    assert "address must be left out with the engine local" in refused(capsys, "--config", path, "--address", "h:1")
    assert "retries must be an integer >= 0, got -1" in refused(capsys, "--config", path, "--retries", "-1")
    assert main(["sweep", "--config", str(path), "--workers", "0"]) == 2
    assert "workers must be an integer >= 1, got 0" in capsys.readouterr().err
    text = path.read_text().replace("training.beta", "training.bta")
    path.write_text(text)
    assert "'bta'; the nearest is 'beta'" in refused(capsys, "--config", path)


def test_a_folder_that_cannot_be_written(config, tmp_path, capsys):
    file = tmp_path / "file"
    file.write_text("")
    assert "out must be a place that can be written" in refused(capsys, "--config", config(), "--out", file / "inside")


def test_a_real_run_is_a_task_as_well(config, tmp_path, answer):
    """Two β of a small language model: measured p starts at p_ref for both, and the smaller β amplifies more."""
    pytest.importorskip("accelerate", reason="real runs need accelerate and transformers")
    text = """
kind = "run"
[base]
iterations = 1
questions = 6
task.kind = "one_token_sums"
training.update = "exact"
optimization.learning_rate = 3e-3
optimization.max_grad_norm = 1.0
optimization.inner_tolerance = 5e-3
model.make.hidden_size = 64
model.make.layers = 1
[axes]
training.beta = [1.0, 5.0]
"""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    answer(*sweep("--config", config(text=text), "--out", tmp_path))
    table = pl.read_parquet(tmp_path / "small" / "sweep.parquet")
    mean = table.group_by("training.beta", "iteration").agg(pl.col("p").mean()).sort("training.beta", "iteration")
    start, strong, other, weak = mean["p"].to_list()
    assert start == other
    assert start < weak < strong
    manifests = [json.loads(p.read_bytes()) for p in (tmp_path / "small" / "runs").glob("*/manifest.json")]
    assert sorted(m["status"] for m in manifests if "arm" in m) == ["finished", "finished"]

"""A run from its config to its folder: arms one after the other, kept at checkpoints, resumed after a kill.

What a run leaves does not depend on how often it was stopped: the state of a checkpoint is that of the weights, the
optimiser and the critic to the last bit, every sample has a seed of its own, and what was done after the last
checkpoint is done again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator  # pyright: ignore[reportMissingTypeStubs]

from grpo_dynamics.config import as_table
from grpo_dynamics.plotting import write_whole
from grpo_dynamics.provenance import BASE, commit, digest, hardware, json_bytes, parquet, versions
from grpo_dynamics.training import checkpoints, records
from grpo_dynamics.training.arm import Arm, accelerate, choose_task, prepare
from grpo_dynamics.training.config import RunConfig, read_run_config
from grpo_dynamics.training.policies import Policy
from grpo_dynamics.training.state import set_state, state_of
from grpo_dynamics.training.tasks import Task
from grpo_dynamics.training.trainer import Told, iterate

PACKAGES = (*BASE, "torch", "transformers", "accelerate", "peft", "vllm")
"""Whose versions a manifest names."""


def run(
    config: str | Path,
    out: str | Path,
    resume: bool = False,
    tell: Told | None = None,
    unsafe_no_sandbox: bool = False,
) -> Path:
    """Train every arm of a config file; return the folder of the run.

    Args:
        config: a TOML file.
        out: where the folder goes, under the name of the run.
        resume: go on where a killed run stopped; start if there is none.
        tell: told before each iteration.
        unsafe_no_sandbox: run the programs of a task without a sandbox where there is none, as if [task] said so.

    Raises:
        ValueError: for a config that is wrong, or a folder that holds another run, or this one without ``resume``.
        OSError: where the folder cannot be written.
    """
    arms = read_run_config(config)
    if unsafe_no_sandbox:
        arms = tuple(dataclasses.replace(arm, task={**arm.task, "unsafe_no_sandbox": True}) for arm in arms)
    folder, accelerator = Path(out) / arms[0].name, accelerate(arms[0])
    started = time.perf_counter()
    manifest = {
        "name": arms[0].name,
        "arms": [arm.arm for arm in arms],
        "config": {arm.arm: as_table(arm) for arm in arms},
        "seed": arms[0].seed,
        **_circumstances(accelerator),
    }
    for arm in arms:
        require_place(folder / arm.arm, arm, resume)
    if accelerator.is_main_process:
        write_whole(folder / "config.toml", Path(config).read_bytes())
        write_whole(folder / "manifest.json", json_bytes(manifest | {"status": "running"}))
    for i, arm in enumerate(arms):
        told = _among(tell, i, [other.iterations for other in arms])
        train(arm, folder / arm.arm, resume=resume, tell=told, accelerator=accelerator)
    if accelerator.is_main_process:
        seconds = round(time.perf_counter() - started, 3)
        write_whole(folder / "manifest.json", json_bytes(manifest | {"status": "finished", "seconds": seconds}))
    return folder


def train(
    config: RunConfig,
    folder: str | Path,
    *,
    task: Task | None = None,
    policy: Policy | None = None,
    resume: bool = False,
    tell: Told | None = None,
    accelerator: Accelerator | None = None,
) -> dict[str, Any]:
    """Train one arm; write its folder and return its manifest.

    Args:
        config: of the arm.
        folder: of the arm. A model that the config asks to be made goes beside it, into ``models``.
        task: instead of that of the config; any verifier.
        policy: instead of the model of the config; its weights are changed.
        resume: go on where a killed run stopped; start if there is none. A finished one is left as it is.
        tell: told before each iteration.
        accelerator: that of the run.

    Raises:
        ValueError: for a config that cannot be trained, a folder with another run, or no checkpoint that is whole.
        OSError: where the folder cannot be written: what was written before is whole, and ``resume`` goes on.
    """
    with _threads(config.model.threads):
        return _train(config, Path(folder), task, policy, resume, tell, accelerator or accelerate(config))


@contextlib.contextmanager
def _threads(number: int | None) -> Generator[None]:
    """Let PyTorch use so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _train(
    config: RunConfig,
    folder: Path,
    task: Task | None,
    policy: Policy | None,
    resume: bool,
    tell: Told | None,
    accelerator: Accelerator,
) -> dict[str, Any]:
    before = require_place(folder, config, resume)
    accelerator.wait_for_everyone()  # all have looked, before the first writes
    if before is not None and before["status"] == "finished":
        if accelerator.is_main_process:
            _tidy(folder)  # should it have been killed just before that
        return before
    started, task = time.perf_counter(), task or choose_task(config)
    path = "" if policy else model_path(config, task, folder.parent, accelerator)
    arm = prepare(config, path, task=task, policy=policy, accelerator=accelerator)
    manifest: dict[str, Any] = {
        "name": config.name,
        "arm": config.arm,
        "status": "running",
        "iterations_done": -1,
        "config": as_table(config),
        "seed": config.seed,
        "model": _model_of(path),
        "task": {
            "name": task.name,
            "questions": len(task.questions),
            "max_completion_tokens": task.max_completion_tokens,
        },
        "measurement": arm.measure.method,
        "engine": arm.engine.name,
        "processes": accelerator.num_processes,
        "sharded": arm.ascent.is_sharded,
        **_circumstances(accelerator),
        "resumed": before["resumed"] + 1 if before else 0,
        "notes": list(before["notes"]) if before else [],
        "seconds": before["seconds"] if before else 0.0,
    }
    with arm.engine:
        done, parts = _restore(arm, folder, manifest["notes"]) if before else (-1, {})
        if arm.is_main:
            _write_questions(folder, task)
        keeper = _Keeper(arm, folder, manifest, parts, done, started)
        keeper.write_manifest()
        iterate(arm, done, keeper.keep, tell or (lambda done, total, what: None))
        keeper.finish()
    return manifest


class _Keeper:
    """Takes the rows of each iteration, and writes them with a checkpoint every few iterations."""

    def __init__(
        self, arm: Arm, folder: Path, manifest: dict[str, Any], parts: dict[str, Any], done: int, started: float
    ) -> None:
        self.arm, self.folder, self.manifest, self.parts = arm, folder, manifest, parts
        self.done, self.waiting, self.started, self.before = done, records.no_rows(), started, manifest["seconds"]
        self.order = {question.id: i for i, question in enumerate(arm.task.questions)}

    def keep(self, iteration: int, rows: records.Rows) -> None:
        for name in ("success", "completions"):
            found = self.arm.gathered(rows[name])
            self.waiting[name] += records.ordered(found, self.order)
        for name in ("steps", "timings"):  # the same in all processes, but for the seconds
            self.waiting[name] += rows[name]
        last = iteration == self.arm.config.iterations
        if iteration > 0 and iteration % self.arm.config.checkpoint_every and not last:
            return
        state = state_of(self.arm)
        if self.arm.is_main:
            self.parts[checkpoints.name_of(iteration)] = records.save_part(self.folder, iteration, self.waiting)
            about = {"iteration": iteration, "parts": self.parts}
            checkpoints.save(self.folder / "checkpoints", iteration, {**state, "state.json": json_bytes(about)})
            checkpoints.keep_last(self.folder / "checkpoints")
        self.waiting, self.done = records.no_rows(), iteration
        self.write_manifest()

    def write_manifest(self) -> None:
        self.manifest["iterations_done"] = self.done
        self.manifest["seconds"] = round(self.before + time.perf_counter() - self.started, 3)
        if self.arm.is_main:
            write_whole(self.folder / "manifest.json", json_bytes(self.manifest))

    def finish(self) -> None:
        """Join the parts into tables; they go only when the tables and the manifest that names them are there."""
        if self.arm.is_main:
            self.manifest["tables"] = records.write_tables(self.folder)
            steps, success = records.joined(self.folder, "steps"), records.joined(self.folder, "success")
            records.write_tensorboard(self.folder, steps, success)
            self.manifest["status"] = "finished"
            self.write_manifest()
            _tidy(self.folder)
        self.arm.accelerator.wait_for_everyone()


def _tidy(folder: Path) -> None:
    """Remove what a finished arm no longer needs: its parts, and all checkpoints but the last."""
    checkpoints.keep_last(folder / "checkpoints", 1)
    checkpoints.remove_all(folder / "parts")


def require_place(folder: Path, config: RunConfig, resume: bool) -> dict[str, Any] | None:
    """Return the manifest of what an arm's folder holds, None where there is nothing.

    Raises:
        ValueError: where that is another run, or the same one and it is not to be resumed.
    """
    place = folder / "manifest.json"
    try:
        before: dict[str, Any] = json.loads(place.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ValueError(f"out must be a folder whose manifest.json is JSON, got {str(place)!r} ({error})") from None
    own, theirs = _flat(json.loads(json_bytes(as_table(config)))), _flat(before.get("config", {}))
    for key in sorted(own.keys() | theirs.keys()):
        if own.get(key) != theirs.get(key):
            raise ValueError(
                f"out must be a folder without another run, got {str(folder)!r}, where {key} is {theirs.get(key)!r} "
                f"and not {own.get(key)!r}"
            )
    if not resume:
        raise ValueError(
            f"out must be a folder without this run, got {str(folder)!r}, which is {before['status']}: add --resume, "
            "or remove it"
        )
    return before


def model_path(config: RunConfig, task: Task, folder: Path, accelerator: Accelerator) -> str:
    """Return the model's path or hub id, having made it if the config says so: once for all arms that share it."""
    if config.model.path is not None:
        return config.model.path
    options = dict(config.model.make)
    name = digest(json_bytes([options, dict(config.task), config.questions, config.seed]))[:8]
    with accelerator.main_process_first():
        from grpo_dynamics.training.pretraining import make_model

        return str(make_model(task, folder / "models" / name, **options))


def _restore(arm: Arm, folder: Path, notes: list[str]) -> tuple[int, dict[str, Any]]:
    """Bring an arm to its last checkpoint that is whole; return its iteration and the digests of its parts."""
    root = folder / "checkpoints"
    there = checkpoints.iterations(root)
    found = checkpoints.newest(root, notes)
    if found is None:
        if there or checkpoints.iterations(folder / "parts")[1:]:
            raise ValueError(f"checkpoints must be whole, but all of {str(root)!r} are damaged: remove the folder")
        done, parts = -1, {}
    else:
        done, files = found
        set_state(arm, files)
        parts = json.loads(files["state.json"])["parts"]
    arm.accelerator.wait_for_everyone()
    if arm.is_main:
        checkpoints.remove_after(root, done)
        checkpoints.remove_after(folder / "parts", done)
        _require_parts(folder, parts)
    arm.accelerator.wait_for_everyone()
    return done, parts


def _require_parts(folder: Path, parts: Mapping[str, Mapping[str, str]]) -> None:
    """Refuse to go on where rows that were written are no longer what they were."""
    for name, digests in parts.items():
        found = checkpoints.load(folder / "parts" / name)
        if {key: digest(data) for key, data in found.items()} != dict(digests):
            raise ValueError(f"{folder / 'parts' / name} must be what was written, but it has changed: start anew")


def _write_questions(folder: Path, task: Task) -> None:
    import polars as pl

    rows = [(question.id, question.prompt, question.answer) for question in task.questions]
    schema: dict[str, Any] = dict.fromkeys(("question_id", "prompt", "answer"), pl.String)
    write_whole(folder / "questions.parquet", parquet(pl.DataFrame(rows, schema=schema, orient="row")))


def _circumstances(accelerator: Accelerator) -> dict[str, Any]:
    """What a run was made with and on; with a name for the device that computed."""
    device = accelerator.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
    return {"versions": versions(PACKAGES), "commit": commit(), "hardware": hardware() | {"device": name}}


def _model_of(path: str) -> dict[str, Any]:
    weights = sorted(Path(path).glob("*.safetensors")) if path and Path(path).is_dir() else []
    return {"path": path, "sha256": digest(b"".join(file.read_bytes() for file in weights)) if weights else None}


def _among(tell: Told | None, arm: int, iterations: list[int]) -> Told | None:
    """Count the iterations of all arms."""
    if tell is None:
        return None
    before, total = sum(iterations[:arm]), sum(iterations)
    return lambda done, _, what: tell(before + done, total, what)


def _flat(value: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, item in value.items():
        flat |= _flat(item, f"{before}{key}.") if isinstance(item, Mapping) else {f"{before}{key}": item}
    return flat

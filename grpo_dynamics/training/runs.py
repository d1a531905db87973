"""A run from its config to its folder: arms one after the other, kept at checkpoints, resumed after a kill.

What a run leaves does not depend on how often it was stopped: the state of a checkpoint is that of the weights, the
optimiser and the critic to the last bit, every sample has a seed of its own, and what was done after the last
checkpoint is done again. On a CPU it is the same to the last byte; a GPU adds up in an order that changes from run to
run, stopped or not.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator  # pyright: ignore[reportMissingTypeStubs]

from grpo_dynamics.config import as_table
from grpo_dynamics.plotting import write_whole
from grpo_dynamics.provenance import BASE, commit, digest, hardware, json_bytes, versions
from grpo_dynamics.training import checkpoints
from grpo_dynamics.training.arm import Arm, accelerate, agreed, choose_task, prepare
from grpo_dynamics.training.config import RunConfig, read_run_config
from grpo_dynamics.training.deadline import NEVER, Deadline, TimeLimit
from grpo_dynamics.training.policies import Policy
from grpo_dynamics.training.run_folder import (
    Keeper,
    manifest_of,
    require_parts,
    require_place,
    steps_done,
    tidy,
    where_it_stopped,
    write_questions,
)
from grpo_dynamics.training.state import set_state
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
    *,
    time_limit: float | None = None,
    smoke: bool = False,
) -> Path:
    """Train every arm of a config file; return the folder of the run.

    Args:
        config: a TOML file.
        out: where the folder goes, under the name of the run.
        resume: go on where a killed run stopped; start if there is none.
        tell: told before each iteration.
        unsafe_no_sandbox: run the programs of a task without a sandbox where there is none, as if [task] said so.
        time_limit: seconds after which the run stops, to be gone on with by ``resume``; None: when it is finished.
        smoke: train the small form of the config, see :mod:`~grpo_dynamics.training.smoke`.

    Raises:
        ValueError: for a config that is wrong, or a folder that holds another run, or this one without ``resume``.
        OSError: where the folder cannot be written.
        TimeLimit: where the time limit ended it. What is on disk is whole, and ``resume`` goes on from there.
    """
    started = time.perf_counter()
    arms = read_run_config(config, smoke)
    if unsafe_no_sandbox:
        arms = tuple(dataclasses.replace(arm, task={**arm.task, "unsafe_no_sandbox": True}) for arm in arms)
    folder, accelerator = Path(out) / arms[0].name, accelerate(arms[0])
    deadline = Deadline(time_limit, functools.partial(agreed, accelerator))
    manifest = {
        "name": arms[0].name,
        "smoke": smoke,
        "arms": [arm.arm for arm in arms],
        "config": {arm.arm: as_table(arm) for arm in arms},
        "seed": arms[0].seed,
        **_circumstances(accelerator),
    }
    befores = [require_place(folder / arm.arm, arm, resume) for arm in arms]
    earlier = (manifest_of(folder) or {}).get("seconds", 0.0) if any(befores) else 0.0

    def note(status: str) -> None:
        seconds = round(earlier + time.perf_counter() - started, 3)
        if accelerator.is_main_process:
            write_whole(folder / "manifest.json", json_bytes(manifest | {"status": status, "seconds": seconds}))

    accelerator.wait_for_everyone()  # all have looked, before the first writes
    if accelerator.is_main_process:
        write_whole(folder / "config.toml", Path(config).read_bytes())
    note("running")
    for i, arm in enumerate(arms):
        told = _among(tell, i, [other.iterations for other in arms])
        try:
            train(arm, folder / arm.arm, resume=resume, tell=told, accelerator=accelerator, deadline=deadline)
        except TimeLimit as stopped:
            note("stopped")
            said = where_it_stopped(stopped, arm, arms, folder, before=steps_done(befores))
            raise TimeLimit(said, stopped.spent) from None
    note("finished")
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
    deadline: Deadline = NEVER,
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
        deadline: when the command's time is over.

    Raises:
        ValueError: for a config that cannot be trained, a folder with another run, or no checkpoint that is whole.
        TimeLimit: where no time is left: what was written is whole, and ``resume`` goes on.
        OSError: where the folder cannot be written: what was written before is whole, and ``resume`` goes on.
    """
    with _threads(config.model.threads):
        return _train(config, Path(folder), task, policy, resume, tell, accelerator or accelerate(config), deadline)


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
    deadline: Deadline,
) -> dict[str, Any]:
    before = require_place(folder, config, resume)
    accelerator.wait_for_everyone()  # all have looked, before the first writes
    if before is not None and before["status"] == "finished":
        if accelerator.is_main_process:
            tidy(folder)  # should it have been killed just before that
        return before
    deadline.require("before its start")
    started, task = time.perf_counter(), task or choose_task(config)
    path = "" if policy else model_path(config, task, folder.parent, accelerator, deadline)
    arm = prepare(config, path, task=task, policy=policy, accelerator=accelerator)
    if before is not None and before["engine"] != arm.engine.name:
        raise ValueError(
            f"engine must be {before['engine']!r}, with which {str(folder)!r} began, got {arm.engine.name!r}: "
            "what is installed has changed"
        )
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
        "notes": _notes(before, accelerator),
        "seconds": before["seconds"] if before else 0.0,
    }
    with arm.engine:
        done, parts = _restore(arm, folder, manifest["notes"]) if before else (-1, {})
        if arm.is_main:
            write_questions(folder, task)
        keeper = Keeper(arm, folder, manifest, parts, done, started)
        keeper.write_manifest()
        try:
            iterate(arm, done, keeper.keep, tell or (lambda done, total, what: None), deadline)
        except TimeLimit as stopped:
            keeper.stop(within=stopped.spent is not None)
            raise
        keeper.finish()
    return manifest


def _notes(before: dict[str, Any] | None, accelerator: Accelerator) -> list[str]:
    """The notes of an arm so far, and one if it goes on where numbers are rounded in another way."""
    if before is None:
        return []
    was, now = before["hardware"]["device"], _device_name(accelerator)
    moved = [f"iterations up to {before['iterations_done']} were computed on {was}, later ones on {now}"]
    return [*before["notes"], *(moved if was != now else [])]


def model_path(
    config: RunConfig, task: Task, folder: Path, accelerator: Accelerator, deadline: Deadline = NEVER
) -> str:
    """Return the model's path or hub id, having made it if the config says so: once for all arms that share it."""
    if config.model.path is not None:
        return config.model.path
    options = dict(config.model.make)
    name = digest(json_bytes([options, dict(config.task), config.questions, config.seed]))[:8]
    from grpo_dynamics.training.pretraining import make_model

    place, device, own = folder / "models" / name, str(accelerator.device), deadline.alone()

    def made() -> str:
        return str(make_model(task, place, device=device, deadline=own, **options))

    path, stopped = "", None
    if accelerator.is_main_process:  # the others wait below
        try:
            path = made()
        except TimeLimit as error:
            stopped = error
    if agreed(accelerator, stopped is not None):
        raise stopped or TimeLimit("in its pre-training")
    return path or made()


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
        require_parts(folder, parts)
    arm.accelerator.wait_for_everyone()
    return done, parts


def _circumstances(accelerator: Accelerator) -> dict[str, Any]:
    """What a run was made with and on; with a name for the device that computed."""
    device = {"device": _device_name(accelerator)}
    return {"versions": versions(PACKAGES), "commit": commit(), "hardware": hardware() | device}


def _device_name(accelerator: Accelerator) -> str:
    device = accelerator.device
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


def _model_of(path: str) -> dict[str, Any]:
    weights = sorted(Path(path).glob("*.safetensors")) if path and Path(path).is_dir() else []
    return {"path": path, "sha256": digest(b"".join(file.read_bytes() for file in weights)) if weights else None}


def _among(tell: Told | None, arm: int, iterations: list[int]) -> Told | None:
    """Count the iterations of all arms."""
    if tell is None:
        return None
    before, total = sum(iterations[:arm]), sum(iterations)
    return lambda done, _, what: tell(before + done, total, what)

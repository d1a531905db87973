"""vLLM, the real one: exact draws, pushed weights that are seen to arrive, and a process left as it was."""

from __future__ import annotations

import contextlib
import copy
import gc
import importlib
import importlib.metadata
import importlib.util
import os
import random
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from scipy import stats

from grpo_dynamics.training.engines import vllm_in_process as vllm_engine
from grpo_dynamics.training.engines.generate import GenerateEngine
from grpo_dynamics.training.engines.vllm_in_process import VLLMEngine
from grpo_dynamics.training.engines.weights import merged_weights, teacher_forced
from grpo_dynamics.training.rollouts import RolloutOptions, engine, mismatch
from grpo_dynamics.training.sources.tokenizers import character_tokenizer
from tests.training.tiny_models import (
    EOS,
    chi_square,
    completion_log_probs,
    counts,
    largest_difference,
    llama,
    outcomes,
    policy,
    probabilities,
)

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("vllm") is None,
        reason="vLLM is not installed; requirements/vllm-cpu.txt says how to install it for a CPU",
    ),
    pytest.mark.skipif(torch.cuda.is_available(), reason="these tests run vLLM on a CPU, and this build is for a GPU"),
]

PROMPTS = [[2, 3, 2], [3], [2, 2, 3, 3, 2], [3, 2]]


# These start engines of their own, and a process can have one at a time: they come before the shared one.


def test_the_silent_failure_of_packed_weights_is_caught_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    # vLLM as it comes: on a CPU the linear layers compute from packed copies, which vLLM's own reload does not renew.
    # It reports no error. Since the engine starts with random weights, the first check sees it.
    def reload(self: Any, model: Any) -> None:
        self.llm.collective_rpc("reload_weights", kwargs={"weights_iterator": merged_weights(model)})

    operations: Any = importlib.import_module("vllm._custom_ops")
    if not hasattr(torch.ops._C, "create_onednn_mm_handler"):
        pytest.skip("this build of vLLM has no oneDNN, so it cannot fail in this way")
    monkeypatch.setattr(operations, "_supports_onednn", True)
    monkeypatch.setattr(vllm_engine, "leave_unpacked", lambda: None)
    monkeypatch.setattr(VLLMEngine, "_load", reload)
    with pytest.raises(RuntimeError, match="the weights did not reach the vllm engine"):
        VLLMEngine(policy(llama()))


def test_untied_embeddings_half_precision_and_what_is_left_behind() -> None:
    # vLLM seeds the global generators, changes the number of threads and sets variables for its children
    untied = llama(6, tied=False)
    before = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    threads, set_threads = torch.get_num_threads(), torch.set_num_threads
    variables = {name: value for name, value in os.environ.items() if not name.startswith("VLLM_")}
    vllm = VLLMEngine(policy(untied), RolloutOptions(engine="vllm", dtype="bfloat16", max_model_len=32))
    assert 1e-6 < vllm.push(untied).max_difference < 0.5  # rounded to 8 bits of mantissa, and within the tolerance
    samples = vllm.sample([[2, 3]], 4, 6, seeds=[0])
    assert largest_difference(untied, samples) < 0.5
    loaded = vllm.llm.apply_model(weakref.ref)[0]
    assert loaded() is not None
    vllm.close()
    vllm.close()  # twice is no error
    gc.collect()
    assert loaded() is None  # the weights are freed
    assert random.getstate() == before[0]
    assert (np.random.get_state()[1] == before[1]).all()  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before[2])
    assert torch.get_num_threads() == threads
    assert torch.set_num_threads is set_threads
    assert {name: value for name, value in os.environ.items() if not name.startswith("VLLM_")} == variables


def test_the_trainers_process_group_outlives_the_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As in `accelerate launch`: each process of the trainer starts its own engine, and vLLM, which ends the process
    # group of torch when it shuts down, must leave the trainer's alone. One process is enough to see that.
    for name, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}.items():
        monkeypatch.setenv(name, value)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MASTER_PORT", str(free.getsockname()[1]))
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        model = llama()
        with VLLMEngine(policy(model), RolloutOptions(engine="vllm", max_model_len=32)) as vllm:
            assert largest_difference(model, vllm.sample([[2, 3]], 4, 6, seeds=[0])) < 1e-5
        total = torch.ones(1)
        torch.distributed.all_reduce(total)
        assert total == 1
    finally:
        torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def started() -> Iterator[tuple[Any, Any]]:
    """A model and vLLM with its weights; each test pushes the weights it needs."""
    model = llama(positions=256)
    with engine(policy(model), RolloutOptions(engine="vllm")) as vllm:
        yield model, vllm


@pytest.fixture
def pair(started: tuple[Any, Any]) -> tuple[Any, Any]:
    model, vllm = started
    vllm.push(model)
    return model, vllm


@contextlib.contextmanager
def changed(model: Any, by: float, seed: int = 0) -> Iterator[Any]:
    """A copy of the model with every weight changed at random."""
    other = copy.deepcopy(model)
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=by)
    yield other


def test_samples_come_from_the_policy_exactly(pair: Any) -> None:
    model, vllm = pair
    completions = outcomes(4, 3)
    samples = vllm.sample(PROMPTS[:2], 1500, 3, seeds=[1, 2])
    for q in range(2):
        assert chi_square(counts(samples, q, completions), probabilities(model, PROMPTS[q], completions)) > 1e-3


def test_both_engines_draw_alike(pair: Any) -> None:
    # A two-sample test that knows nothing of the model: the two tables of counts are one distribution's.
    model, vllm = pair
    completions = outcomes(4, 3)
    theirs = counts(vllm.sample(PROMPTS[2:3], 1500, 3, seeds=[3]), 0, completions)
    ours = counts(GenerateEngine(policy(model)).sample(PROMPTS[2:3], 1500, 3, seeds=[4]), 0, completions)
    often = theirs + ours >= 10
    table = np.stack([np.append(x[often], x[~often].sum()) for x in (theirs, ours)])
    assert stats.chi2_contingency(table).pvalue > 1e-3


def test_log_probabilities_are_those_of_torch(pair: Any) -> None:
    model, vllm = pair
    samples = vllm.sample(PROMPTS, 8, 12, seeds=range(4))
    assert largest_difference(model, samples) < 1e-5
    for q in range(4):
        for g in range(8):
            ids = samples.ids(q, g)
            assert (ids[-1] == EOS) == (samples.finish_reason[q][g] == "eos")
            assert EOS not in ids[:-1]


def test_seeds_decide_and_neighbours_share_nothing(pair: Any) -> None:
    _, vllm = pair
    samples = vllm.sample([[2, 3]] * 3, 16, 8, seeds=[5, 6, 5])
    assert torch.equal(samples.completions[0], samples.completions[2])
    again = vllm.sample([[3], [2, 3]], 16, 8, seeds=[1, 5])
    assert [again.ids(1, g) for g in range(16)] == [samples.ids(0, g) for g in range(16)]
    # vLLM draws sample g by seed + g: were seeds passed on as they are, sample 1 by seed 5 would be sample 0 by seed 6
    first, second = ([samples.ids(q, g) for g in range(16)] for q in (0, 1))
    assert first[1:] != second[:-1]


def test_every_push_arrives_and_is_measured(pair: Any) -> None:
    model, vllm = pair
    for by in (0.001, 0.1):
        with changed(model, by) as other:
            report = vllm.push(other)
            assert report.max_difference < 1e-5
            assert report.checked >= 4 * 15
            samples = vllm.sample(PROMPTS, 4, 6, seeds=range(4))
            assert largest_difference(other, samples) < 1e-5
            assert largest_difference(model, samples) > by / 100
            theirs = torch.zeros_like(samples.log_probs)
            for q, prompt in enumerate(PROMPTS):
                for g in range(4):
                    ids = samples.ids(q, g)
                    theirs[q, g, : len(ids)] = completion_log_probs(other, prompt, ids)
            assert mismatch(samples, theirs).max_difference < 1e-5


def test_the_prefix_cache_is_dropped_with_the_weights_it_belongs_to(pair: Any) -> None:
    # a prompt of 200 tokens fills a block of the cache; were it kept, the second answer would see old keys and values
    model, vllm = pair
    prompt = [2, 3] * 100
    vllm.sample([prompt], 4, 4, seeds=[0])
    with changed(model, 0.1) as other:
        vllm.push(other)
        assert largest_difference(other, vllm.sample([prompt], 4, 4, seeds=[0])) < 1e-5


def test_a_push_that_does_nothing_stops_the_run(pair: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, vllm = pair
    monkeypatch.setattr(vllm_engine, "load", lambda model, weights: None)
    with changed(model, 0.003) as other, pytest.raises(RuntimeError, match="the weights did not reach the vllm engine"):
        vllm.push(other)


@pytest.mark.parametrize("name", ["model.layers.1.mlp.down_proj.weight", "model.embed_tokens.weight"])
def test_one_tensor_that_does_not_arrive_stops_the_run(pair: Any, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    model, vllm = pair
    load = vllm_engine.load

    def all_but_one(target: Any, weights: Any) -> None:
        load(target, ((n, tensor) for n, tensor in weights if n != name))

    monkeypatch.setattr(vllm_engine, "load", all_but_one)
    with changed(model, 0.01) as other, pytest.raises(RuntimeError, match="its samples would not be those"):
        vllm.push(other)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # of peft 0.21
def test_adapters_arrive_merged(pair: Any) -> None:
    model, vllm = pair
    torch.manual_seed(1)
    adapted = get_peft_model(
        copy.deepcopy(model), LoraConfig(r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    ).eval()
    assert vllm.push(adapted).max_difference < 1e-5
    samples = vllm.sample(PROMPTS, 4, 6, seeds=range(4))
    assert largest_difference(adapted, samples) < 1e-5
    with adapted.disable_adapter():
        assert largest_difference(adapted, samples) > 1e-3


def test_a_second_engine_in_a_process_is_refused(pair: Any) -> None:
    with pytest.raises(RuntimeError, match="one vLLM engine at a time"):
        VLLMEngine(policy(pair[0]))
    assert largest_difference(pair[0], pair[1].sample([[2, 3]], 4, 4, seeds=[0])) < 1e-5  # the first one lives on


def test_prompts_without_room_for_an_answer_are_refused(pair: Any) -> None:
    with pytest.raises(ValueError, match="in the 256 tokens of the model, got 100 after a prompt of 157 tokens"):
        pair[1].sample([[2] * 157], 2, 100, seeds=[0])


def test_grpo_with_vllm_on_a_cpu(pair: Any) -> None:
    # One question, reward for beginning with token 3: push, sample, compare, step. p rises, and at every step vLLM's
    # log-probabilities are those that the trainer computes before it updates (the ratios start at 1).
    original, vllm = pair
    model = copy.deepcopy(original)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    prompt, p = [2, 3, 2], []
    for step in range(8):
        vllm.push(model)
        p.append(float(model(torch.tensor([prompt])).logits[0, -1].softmax(-1)[3].detach()))
        samples = vllm.sample([prompt], 64, 1, seeds=[step])
        reward = (samples.completions[..., 0] == 3).float()
        advantage = (reward - reward.mean()) / (reward.std() + 1e-4)
        log_p = model(torch.tensor([prompt])).logits[0, -1].log_softmax(-1)[samples.completions[..., 0]]
        assert mismatch(samples, log_p.detach()[..., None]).max_difference < 1e-5
        optimizer.zero_grad()
        (-(log_p * advantage).mean()).backward()
        optimizer.step()
    assert p[-1] > p[0] + 0.2


# ---- a server ----


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, str, Path]]:
    """A model, the URL of a vLLM process that serves it, and a folder that both see."""
    folder = tmp_path_factory.mktemp("served")
    tokenizer = character_tokenizer(["01"])
    model = llama(len(tokenizer))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    try:
        importlib.metadata.version("vllm")
        command = [sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", str(folder)]
    except importlib.metadata.PackageNotFoundError:  # the CPU build has another name, which `vllm serve` does not know
        command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--load-format", "dummy", "--dtype", "float32"]
    command += ["--enforce-eager", "--max-model-len", "64", "--kv-cache-memory-bytes", str(1 << 26)]
    command += ["--generation-config", "vllm"]
    command += ["--worker-extension-cls", "grpo_dynamics.training.engines.vllm_worker.WeightReader"]
    environment = os.environ | {
        "VLLM_SERVER_DEV_MODE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_LOGGING_LEVEL": "ERROR",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "1",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    url = f"http://127.0.0.1:{port}"
    log = folder / "log.txt"
    with log.open("w") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output, cwd=folder)
    try:
        until = time.monotonic() + 240
        while True:
            try:
                with urllib.request.urlopen(f"{url}/health", timeout=5):
                    break
            except OSError:
                if process.poll() is not None or time.monotonic() > until:
                    raise AssertionError(f"the server did not start:\n{log.read_text()[-2000:]}") from None
                time.sleep(0.3)
        yield model, url, folder
    finally:
        process.terminate()
        process.wait(60)


def test_a_server_samples_exactly_and_takes_weights_in_place(server: Any) -> None:
    model, url, folder = server
    options = RolloutOptions(engine="vllm_server", url=url, weights_dir=str(folder / "weights"))
    with engine(policy(model), options) as vllm:
        completions = outcomes(5, 2)
        samples = vllm.sample([[3, 4], [4]], 800, 2, seeds=[1, 2])
        for q, prompt in enumerate(samples.prompts):
            assert chi_square(counts(samples, q, completions), probabilities(model, prompt, completions)) > 1e-3
        assert vllm.sample([[4]], 800, 2, seeds=[2]).completions.tolist() == samples.completions[1:].tolist()
        with changed(model, 0.1) as other:
            assert vllm.push(other).max_difference < 1e-5
            samples = vllm.sample([[3, 4], [4]], 8, 6, seeds=[1, 2])
            assert largest_difference(other, samples) < 1e-5
            assert largest_difference(model, samples) > 1e-3
        with pytest.raises(ValueError, match="in the 64 tokens of the model"):
            vllm.sample([[3] * 60], 2, 8, seeds=[0])
    assert not list((folder / "weights").rglob("*.safetensors"))  # cleaned up


def test_a_server_that_reads_other_weights_stops_the_run(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, url, folder = server
    options = RolloutOptions(engine="vllm_server", url=url, weights_dir=str(folder / "weights"))
    with engine(policy(model), options) as vllm, changed(model, 0.1) as other:
        monkeypatch.setattr(
            "grpo_dynamics.training.engines.vllm_server.merged_weights", lambda _model: merged_weights(model)
        )
        with pytest.raises(RuntimeError, match="the weights did not reach the vllm_server engine"):
            vllm.push(other)
        torch.testing.assert_close(vllm._score([[3, 4, 3]]), teacher_forced(model, [[3, 4, 3]]), atol=1e-5, rtol=0)

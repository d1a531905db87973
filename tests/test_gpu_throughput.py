"""The measuring experiments in their small form: every number is there, adds up, and a stopped command goes on."""

import json

import polars as pl
import pytest

from grpo_dynamics.cli import measuring
from grpo_dynamics.config import EXPERIMENTS, read_toml

torch = pytest.importorskip("torch")


def load(name):
    import importlib.util
    import sys

    spec = importlib.util.spec_from_file_location(name, EXPERIMENTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


SIZE = "[smoke.sizes.tiny]\nhidden_size = 32\nlayers = 1\nhead_size = 32\n"
FULL = "[sizes.full]\nhidden_size = 64\nlayers = 2\nhead_size = 32\n"


@pytest.fixture
def small(tmp_path):
    """A config of the throughput smaller still: one size, no TRL."""
    path = tmp_path / "small.toml"
    smoke = """[smoke]
precision = "float32"
compile = false
trl = false
engines = ["generate"]
prompts = 3
group_size = 4
prompt_tokens = 6
completion_tokens = [3, 9]
micro_batch_size = 5
letters = 13
repeats = 1
"""
    path.write_text(f"{FULL}{smoke}{SIZE}")
    return path


def test_every_number_of_the_throughput_is_there(small, tmp_path):
    module = load("gpu_throughput")
    out = tmp_path / "runs"
    assert module.main(["--smoke", "--config", str(small), "--out", str(out)]) == 0
    folder = out / "gpu_throughput_smoke"
    names = [f"gpu_throughput_smoke.{ending}" for ending in ("json", "parquet", "pdf", "png")]
    assert sorted(path.name for path in folder.iterdir()) == names
    table = pl.read_parquet(folder / names[1])
    assert dict(zip(table.columns, table.dtypes, strict=True)) == module.SCHEMA
    rows = {(row["part"], row["what"]): row for row in table.iter_rows(named=True)}
    measured = {("matmul", "float32"), ("rollout", "generate"), ("update", "ours"), ("update", "transformers")}
    assert measured | {("step", "ours"), ("step", "transformers")} <= set(rows)
    shares = table.filter(part="profile")["share"]
    assert shares.sum() == pytest.approx(1.0, abs=0.05)  # all time is of some kind, or idle
    for part in ("rollout", "update"):
        row = rows[part, "generate" if part == "rollout" else "ours"]
        assert row["samples_per_second"] == pytest.approx(12 / row["seconds"])  # 3 prompts, 4 completions of each
        assert row["tokens_per_second"] == pytest.approx(row["completion_tokens"] * row["samples_per_second"])
        assert 0 < row["fraction_of_matmul"] < 1
        assert row["precision"] == "float32"
        assert row["peak_memory_bytes"] is None
    assert 3 <= rows["update", "ours"]["completion_tokens"] <= 9
    assert rows["update", "ours"]["completion_tokens"] == rows["update", "transformers"]["completion_tokens"]
    manifest = json.loads((folder / names[0]).read_text())
    assert manifest["hardware"]["device"] == "cpu"
    assert manifest["config"]["smoke"] is True


def test_a_stopped_command_keeps_the_parts_that_are_done(small, tmp_path, monkeypatch, capsys):
    """Stopped after two parts; the next command computes the others only."""
    module = load("gpu_throughput")
    begun = []
    compute = module.table_of
    monkeypatch.setattr(module, "table_of", lambda measured: (begun.append(measured), compute(measured))[1])
    from grpo_dynamics.training.deadline import Deadline

    left = iter([True, True, False])
    monkeypatch.setattr(Deadline, "passed", lambda self, needed=0.0: self.seconds is not None and not next(left))
    arguments = ["--smoke", "--config", str(small), "--out", str(tmp_path / "runs")]
    assert module.main([*arguments, "--time-limit", "1"]) == 3
    err = capsys.readouterr().err
    assert "stopped by the time limit: 2 of 6 parts are done, the next is tiny: update; the same command with" in err
    assert len(begun) == 2
    assert module.main([*arguments, "--resume"]) == 0
    assert len(begun) == 6


def tiny_settings(module, hidden_sizes=(32,), **changes):
    """Settings like those of the committed config, for models of one layer on a CPU: tiny, tiny64, ..."""
    table = read_toml(EXPERIMENTS / "gpu_throughput.toml")
    small = {"device": "cpu", "precision": "float32", "compile": False, "engines": ["generate"], "trl": False}
    small |= {"prompts": 3, "group_size": 4, "prompt_tokens": 6, "completion_tokens": [3, 9], "letters": 13}
    names = {hidden: "tiny" if hidden == 32 else f"tiny{hidden}" for hidden in hidden_sizes}
    sizes = {name: {"hidden_size": hidden, "layers": 1, "head_size": 32} for hidden, name in names.items()}
    small |= {"micro_batch_size": 5, "sizes": sizes}
    whole = {key: value for key, value in (table | small | changes).items() if key != "smoke"}
    return measuring.build(module.Settings, whole)


def test_both_loops_take_the_same_step():
    """Ours cuts by length, computes prompts once, and knows equal answers; the plain loop does none of that.

    The same loss has the same gradient, so that AdamW's first step, which is the sign of it, is the same.
    """
    module = load("gpu_throughput")
    settings = tiny_settings(module)
    from grpo_dynamics.training.advantages import group_advantages
    from grpo_dynamics.training.rollouts import unique
    from grpo_dynamics.training.speed import measurements
    from grpo_dynamics.training.speed.plain_loop import PlainLoop
    from grpo_dynamics.training.steps.batches import sampled_batch
    from grpo_dynamics.training.steps.gradient_step import gradient_step

    found = []
    for plain in (False, True):
        arm = measurements.arm_of(settings, "tiny")
        _, samples = measurements.given_batch(settings, arm)
        advantages = group_advantages((samples.completions[..., 0] % 2).double(), arm.training)
        if plain:
            loop = PlainLoop(arm)
            loop.update(samples.completions.flatten(0, 1), samples.mask.flatten(0, 1), advantages.float().flatten())
        else:
            batch = sampled_batch(arm.prompts, unique(samples), advantages, arm.training, by_length=True)
            assert (batch.mask.sum(-1).diff() >= 0).all()
            gradient_step(arm, batch, measurements.LEARNING_RATE)
        found.append([weight.grad.clone() for weight in arm.model.parameters()])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-6)


def test_another_library_that_fails_is_a_row_that_says_so():
    """The measurements after it are not lost."""

    def measured():
        raise RuntimeError("no kernel image\nmore")

    [row] = load("gpu_throughput").or_why_not(measured, "rollout", "1M", "vllm")
    assert row == {"part": "rollout", "size": "1M", "what": "vllm failed: RuntimeError: no kernel image"}


def compile_by(monkeypatch, backend):
    """Let models be compiled by a backend of the tests; no code is generated, which takes minutes on a CPU."""
    from grpo_dynamics.training.device import compiled

    whole = torch.compile
    monkeypatch.setattr(
        compiled.torch, "compile", lambda forward, dynamic: whole(forward, dynamic=dynamic, backend=backend)
    )


def test_every_size_is_compiled_and_not_the_first_two_only(monkeypatch):
    """Models share the code of their forward pass, of which torch.compile keeps eight variants: four for each size."""
    module, graphs = load("gpu_throughput"), []

    def backend(graph, inputs):
        graphs.append(inputs)
        return graph.forward

    compile_by(monkeypatch, backend)
    settings = tiny_settings(module, (32, 64, 96), repeats=1)
    from grpo_dynamics.training.speed import measurements

    counts = []
    for size in settings.sizes:
        [row] = measurements.update(settings, size, compiled=True)
        assert row["what"] == "ours, compiled"
        counts.append(len(graphs))
        graphs.clear()
    assert counts == [4, 4, 4]  # prompts and completions, with gradients and without
    assert torch._dynamo.config.recompile_limit < 12


def test_a_compiler_that_gives_up_is_told_and_does_not_pass_for_compiled(monkeypatch):
    """With room for two of the four variants the others would be run as they are."""
    module = load("gpu_throughput")
    compile_by(monkeypatch, "eager")
    settings = tiny_settings(module, repeats=1, compile=True)
    parts = {part.name: part for part in module.parts(settings, None, None)}
    with torch._dynamo.config.patch(recompile_limit=2):
        table, _ = parts["tiny: update, compiled"].compute(None)
    [what] = table["what"]
    assert what.startswith("torch.compile failed: ")
    assert "recompile" in what.lower()  # the limit of that name
    assert table["seconds"].null_count() == 1


def test_without_a_compiler_the_rest_is_measured(monkeypatch, small, tmp_path):
    """The rows say why, and the step is measured as it is."""
    module = load("gpu_throughput")

    def backend(graph, inputs):
        raise OSError("no C++ compiler here")

    compile_by(monkeypatch, backend)
    small.write_text(small.read_text().replace("compile = false", "compile = true"))
    assert module.main(["--smoke", "--config", str(small), "--out", str(tmp_path / "runs")]) == 0
    table = pl.read_parquet(tmp_path / "runs" / "gpu_throughput_smoke" / "gpu_throughput_smoke.parquet")
    for part in ("update", "step"):
        rows = table.filter(part=part)
        [why] = rows.filter(pl.col("what").str.starts_with("torch.compile failed: ")).rows(named=True)
        assert "no C++ compiler here" in why["what"]
        assert why["seconds"] is None
        assert rows.filter(what="ours")["seconds"].null_count() == 0
        assert rows.filter(what="ours").height == 1
    assert rows.filter(what="ours, compiled").height == 0


def test_a_row_says_in_what_it_was_computed_and_has_no_fraction_of_another_rate():
    """On a GPU the rate is bfloat16's; rollouts of this package are in the type of the weights."""
    module = load("gpu_throughput")
    from grpo_dynamics.training.speed import measurements

    settings = tiny_settings(module, precision="bf16", repeats=1)
    with pytest.MonkeyPatch.context() as patch:
        seen = []
        engine = measurements.arm_of(settings, "tiny").engine
        patch.setattr(type(engine), "sample", watched(type(engine).sample, seen))
        [rollout] = measurements.rollout(settings, "tiny", "generate")
        [step] = measurements.step(settings, "tiny", compiled=False)
    assert set(seen) == {torch.float32}
    assert rollout["precision"] == "float32"
    assert step["precision"] == "float32 rollouts, bf16 update"
    [theirs] = measurements.plain_step(settings, "tiny")
    assert theirs["precision"] == "bf16"
    update = measurements.update(settings, "tiny", compiled=False)[0]
    assert update["precision"] == "bf16"
    assert rollout["fraction_of_matmul"] > 0  # on a CPU the rate is float32's
    assert "fraction_of_matmul" not in update


def watched(sample, seen):
    """A way to sample that keeps the type of what a linear layer gives meanwhile."""

    def run(self, *arguments):
        layer = next(m for m in self.policy.model.modules() if isinstance(m, torch.nn.Linear))
        hook = layer.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
        try:
            return sample(self, *arguments)
        finally:
            hook.remove()

    return run


@pytest.mark.parametrize("name", ["step", "plain_step", "trl_step"])
def test_steps_are_told_by_the_repeats_that_were_timed(monkeypatch, name):
    """Completions differ in length from step to step: the mean of all counted ones, beside the median time."""
    module = load("gpu_throughput")
    if name == "trl_step":
        pytest.importorskip("trl")
    from grpo_dynamics.training.speed import measurements, trl_loop

    settings = tiny_settings(module, repeats=3)
    where = trl_loop if name == "trl_step" else measurements
    lengths, row_of = [], measurements.row_of

    def watched_row(*arguments):
        lengths.extend(arguments[6])
        return row_of(*arguments)

    monkeypatch.setattr(where, "row_of", watched_row)
    more = {"compiled": False} if name == "step" else {}
    [row] = getattr(where, name)(settings, "tiny", **more)
    assert [each.size for each in lengths] == [12, 12, 12]
    assert len({int(each.sum()) for each in lengths}) > 1
    tokens = sum(int(each.sum()) for each in lengths) / 3
    assert row["completion_tokens"] == pytest.approx(tokens / 12)
    assert row["tokens_per_second"] == pytest.approx(tokens / row["seconds"])
    assert row["samples_per_second"] == pytest.approx(12 / row["seconds"])


def test_attention_without_masks_is_refused_where_an_engine_has_its_own(small):
    module = load("gpu_throughput")
    settings = measuring.read_settings(module.Settings, small, smoke=True)
    from grpo_dynamics.training.arm import prepare
    from grpo_dynamics.training.speed import measurements

    arm = measurements.arm_of(settings, "tiny")
    import dataclasses

    config = dataclasses.replace(arm.config, rollouts=dataclasses.replace(arm.config.rollouts, engine="continuous"))
    with pytest.raises(ValueError, match='attention must be "sdpa" with the engine "continuous"'):
        prepare(config, "x", task=arm.task, policy=arm.policy)


@pytest.mark.parametrize("name", ["gpu_throughput", "gpu_pretraining"])
def test_without_a_gpu_one_line_says_so(name, tmp_path, capsys):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert load(name).main(["--out", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: device must be one that is there, got 'cuda' and no GPU: --smoke runs a small form")
    assert err.count("\n") == 1
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("repeat = 3\n", "key must be one of"),
        ("group_size = 1\n", "group_size must be an integer >= 2, got 1"),
        ('engines = ["vlm"]\n', "engines must be some of generate, continuous, vllm, got vlm"),
        ("completion_tokens = [9, 3]\n", "completion_tokens must be two ascending integers >= 2"),
    ],
)
def test_bad_configs_are_one_line(line, message, tmp_path, capsys):
    path = tmp_path / "bad.toml"
    path.write_text(line + FULL)
    assert load("gpu_throughput").main(["--config", str(path), "--out", str(tmp_path / "o"), "--smoke"]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"error: {message}")
    assert err.count("\n") == 1


def test_models_for_the_campaign_are_made_and_described(tmp_path):
    """Two questions' worth: one size, one task; the model in the folder is the one that the row describes."""
    path = tmp_path / "one.toml"
    task = '[{}tasks.sums]\nkind = "one_token_sums"\nlargest = 3\n'
    path.write_text(
        f'{FULL}{task.format("")}[smoke]\nsteps = 2000\nprecision = "float32"\n{SIZE}{task.format("smoke.")}'
    )
    assert load("gpu_pretraining").main(["--smoke", "--config", str(path), "--out", str(tmp_path / "runs")]) == 0
    folder = tmp_path / "runs" / "gpu_pretraining_smoke"
    row = pl.read_parquet(folder / "gpu_pretraining_smoke.parquet").row(0, named=True)
    known = json.loads((folder / "models" / row["model"] / "manifest.json").read_text())
    assert row["steps"] == known["steps"]
    assert row["questions"] == 16
    assert row["share_inside"] == known["p_ref"]["inside"]
    assert row["p_ref_0"] < 0.01 < 0.9 < row["p_ref_100"]
    assert row["divergence"] <= 0.01
    assert row["tokens_per_second"] == pytest.approx(16 * 5 * (row["steps"] + 1) / row["seconds"], rel=1e-3)

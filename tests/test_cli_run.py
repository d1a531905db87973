"""`grpo-dynamics run`: what it writes, what it prints, and one line for everything that is wrong."""

import errno
import json
import os

import pytest

torch = pytest.importorskip("torch", reason="real training needs the extra train: torch is not installed")
pytest.importorskip("transformers", reason="real training needs the extra train: transformers is not installed")
pytest.importorskip("accelerate", reason="real training needs the extra train: accelerate is not installed")

from grpo_dynamics.cli import main  # noqa: E402
from tests.training.tiny import tiny_model  # noqa: E402

CONFIG = """
iterations = 2
questions = 4
task = {{ kind = "one_token_sums" }}
model = {{ path = "{model}", device = "cpu" }}
optimization = {{ learning_rate = 0.02 }}
[training]
update = "sampled"
kl = "k3"
normalization = {{ kind = "finite_group", group_size = 4 }}
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.set_num_threads(1)
    return tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def folder(tmp_path, monkeypatch, model):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").write_text(CONFIG.format(model=model))
    return tmp_path


def line(capsys, *arguments):
    """Run a command that is refused, and return its one line."""
    assert main(["run", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    return err


def test_a_run_leaves_its_folder_under_the_name_of_the_config(folder, answer, printed):
    found = answer("run", "--config", "mine.toml", "--out", "new/runs")
    assert found["command"] == "run"
    (arm,) = found["arms"]
    assert (arm["arm"], arm["status"], arm["engine"], arm["resumed"]) == ("main", "finished", "generate", 0)
    assert arm["measurement"] == "enumerated"
    assert arm["tables"]["completions.parquet"]["rows"] == 2 * 4 * 4
    written = sorted(path.name for path in (folder / "new/runs/mine/main").iterdir())
    assert written == [
        "checkpoints", "completions.parquet", "manifest.json", "questions.parquet", "steps.parquet", "success.parquet",
        "tensorboard", "timings.parquet",
    ]  # fmt: skip
    assert (folder / "new/runs/mine/config.toml").read_text() == (folder / "mine.toml").read_text()
    manifest = json.loads((folder / "new/runs/mine/manifest.json").read_text())
    assert manifest["status"] == "finished"
    assert manifest["versions"]["torch"] == torch.__version__
    said = printed("run", "--config", "mine.toml", "--out", "new/runs", "--resume")
    assert "now: grpo-dynamics validate new/runs/mine" in said


def test_whatever_is_wrong_is_one_line(folder, capsys, model):
    assert "config must be a TOML file, got nothing: add --config" in line(capsys)
    (folder / "near.toml").write_text("")
    assert "the nearest is 'mine.toml'" in line(capsys, "--config", "min.toml")
    for old, new, said in (
        ("group_size = 4", "group_size = 1", "group_size must be"),
        ('kl = "k3"', 'kl = "k3"\nbeta = 0.0', 'without a KL term say kl="none"'),
        ("one_token_sums", "one_token_sum", "the nearest is 'one_token_sums'"),
        ("iterations", "iteration", "the nearest is 'iterations'"),
        (str(model), "no/such/model", "model must be"),
        ("learning_rate = 0.02", "", "learning_rate is missing"),
        ('device = "cpu"', 'device = "cuda"', "no GPU"),
    ):
        if "cuda" in new and torch.cuda.is_available():
            continue
        (folder / "bad.toml").write_text((folder / "mine.toml").read_text().replace(old, new))
        assert said in line(capsys, "--config", "bad.toml"), new
    assert not (folder / "runs" / "bad" / "main" / "success.parquet").exists()


def test_a_finished_run_is_not_done_again_by_mistake(folder, capsys):
    assert main(["run", "--config", "mine.toml"]) == 0
    capsys.readouterr()
    assert "which is finished: add --resume, or remove it" in line(capsys, "--config", "mine.toml")
    text = (folder / "mine.toml").read_text().replace("learning_rate = 0.02", "learning_rate = 0.03")
    (folder / "mine.toml").write_text(text)
    assert "learning_rate is 0.02 and not 0.03" in line(capsys, "--config", "mine.toml", "--resume")


def test_a_full_disk_is_one_line_and_resume_goes_on(folder, capsys, monkeypatch):
    real, left = os.fsync, [12]

    def full(handle):
        left[0] -= 1
        if left[0] <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(handle)

    monkeypatch.setattr(os, "fsync", full)
    assert "out must be a place that can be written (No space left on device); --resume then goes on" in line(
        capsys, "--config", "mine.toml"
    )
    monkeypatch.setattr(os, "fsync", real)
    assert main(["run", "--config", "mine.toml", "--resume"]) == 0


def test_a_time_limit_is_one_line_exit_code_3_and_resume_goes_on(folder, capsys, answer):
    assert main(["run", "--config", "mine.toml", "--time-limit", "1e-9"]) == 3
    out, err = capsys.readouterr()
    assert (out, err) == (
        "",
        "the time limit was reached in arm main, before its start; 0 of 2 iterations of the run are done: the same "
        "command with --resume goes on\n",
    )
    assert json.loads((folder / "runs/mine/manifest.json").read_text())["status"] == "stopped"
    found = answer("run", "--config", "mine.toml", "--time-limit", "60", "--resume")
    assert found["arms"][0]["status"] == "finished"
    for wrong in ("0", "-3", "nan", "soon"):
        said = line(capsys, "--config", "mine.toml", f"--time-limit={wrong}")
        assert "time_limit must be a positive number of minutes, got" in said


SMOKE = """
[smoke]
iterations = 1
questions = 2
"""


def test_a_smoke_run_is_another_run_in_another_folder(folder, capsys, answer):
    text = (folder / "mine.toml").read_text()
    assert "config must have a table [smoke] for --smoke" in line(capsys, "--config", "mine.toml", "--smoke")
    (folder / "mine.toml").write_text(text.replace('device = "cpu"', 'device = "cuda"') + SMOKE)
    if not torch.cuda.is_available():
        said = line(capsys, "--config", "mine.toml")
        assert "no GPU" in said
        assert "--smoke, which runs a small form on a CPU" in said
    found = answer("run", "--config", "mine.toml", "--smoke")
    assert found["out"] == "runs/mine_smoke"
    assert found["arms"][0]["iterations_done"] == 1
    manifest = json.loads((folder / "runs/mine_smoke/manifest.json").read_text())
    assert (manifest["name"], manifest["smoke"], manifest["hardware"]["device"]) == ("mine_smoke", True, "cpu")
    assert (folder / "runs/mine_smoke/config.toml").read_text() == (folder / "mine.toml").read_text()
    # a full run that is called like a smoke run is not taken for it
    (folder / "mine_smoke.toml").write_text(text)
    assert "where iterations is 1 and not 2" in line(capsys, "--config", "mine_smoke.toml", "--resume")
    (folder / "mine.toml").write_text(text + SMOKE.replace("questions", "question"))
    assert "the nearest is 'questions' (in the smoke form of the arm 'main')" in line(capsys, "--config", "mine.toml")


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nSee documentation"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:116] . DefaultCPUAllocator: not enough memory: you tried"),
        MemoryError(),
    ],
)
def test_too_little_memory_is_one_line_and_resume_goes_on_with_less(folder, capsys, monkeypatch, error):
    from grpo_dynamics.training import trainer

    real, left = trainer.gradient_step, [1]

    def full(*arguments):
        left[0] -= 1
        if left[0] < 0:
            raise error
        return real(*arguments)

    monkeypatch.setattr(trainer, "gradient_step", full)
    said = line(capsys, "--config", "mine.toml")
    assert "memory must be enough for this run" in said
    for lower in ("optimization.micro_batch_size", "questions", "rollouts", "model", "--resume goes on"):
        assert lower in said
    monkeypatch.undo()
    monkeypatch.chdir(folder)
    less = (folder / "mine.toml").read_text().replace("0.02 }", "0.02, micro_batch_size = 2 }")
    (folder / "mine.toml").write_text(less)
    assert main(["run", "--config", "mine.toml", "--resume"]) == 0


def test_what_is_no_lack_of_memory_is_not_called_so(folder, monkeypatch):
    from grpo_dynamics.training import trainer

    def wrong(*_):
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(trainer, "gradient_step", wrong)
    with pytest.raises(RuntimeError, match="shapes differ"):
        main(["run", "--config", "mine.toml"])


def test_programs_run_without_a_sandbox_only_where_one_says_so(folder, capsys, monkeypatch):
    monkeypatch.setattr("grpo_dynamics.training.rewards.python_tests.sandbox_problem", lambda: "there is none")
    text = (folder / "mine.toml").read_text().replace("one_token_sums", "python_functions")
    (folder / "programs.toml").write_text(text)
    assert "unsafe_no_sandbox must be True" in line(capsys, "--config", "programs.toml")
    # with the flag it gets further, to a tokenizer that has no letters
    assert "text must be one that the tokenizer can read" in line(
        capsys, "--config", "programs.toml", "--unsafe-no-sandbox"
    )


def test_help_says_what_is_left(capsys):
    assert main(["run", "--help"]) == 0
    assert "accelerate launch" in capsys.readouterr().out

"""Models made on the spot: their p_ref spreads as the corpus says, and the same seed gives the same model."""

import dataclasses
import json

import numpy as np
import polars as pl
import pytest
import torch
from safetensors import SafetensorError
from scipy import stats

from grpo_dynamics.training import new_model, pretraining
from grpo_dynamics.training.deadline import Deadline, TimeLimit
from grpo_dynamics.training.new_model import new_policy
from grpo_dynamics.training.policies import load_policy, next_log_probs, right_completions, shared_log_probs
from grpo_dynamics.training.pretraining import BINS, make_model, pretrain, usual_learning_rate
from grpo_dynamics.training.sources import lines as lines_module
from grpo_dynamics.training.sources.corpus import noisy_corpus
from grpo_dynamics.training.sources.lines import Lines
from grpo_dynamics.training.tasks import make_task
from grpo_dynamics.training.verifiers import verdict

SMALL = {"hidden_size": 64, "layers": 2}


@pytest.fixture(scope="module")
def task():
    return make_task("one_token_sums", largest=5)


@pytest.fixture(scope="module")
def made(task, tmp_path_factory):
    return make_model(task, tmp_path_factory.mktemp("models") / "new" / "small", **SMALL)


def test_p_ref_spreads_over_the_questions(task, made):
    """By enumeration of the saved model's answers, and near the frequencies of the corpus that it read."""
    policy = load_policy(made, device="cpu")
    policy.check(task.texts())
    with torch.no_grad():
        answers = next_log_probs(policy.model, policy.encode([q.prompt for q in task.questions]))
    right = [right_completions(policy, question, 1)[0][0] for question in task.questions]
    p_ref = answers[range(len(right)), right].exp().numpy()
    for low, high in BINS:
        assert np.sum((p_ref > low) & (p_ref < high)) >= 2
    corpus = pl.read_parquet(made / "corpus.parquet")
    frequency = corpus.group_by("question_id", maintain_order=True).agg(
        pl.col("count").filter("right").sum() / pl.col("count").sum()
    )
    assert frequency["question_id"].to_list() == [q.id for q in task.questions]
    assert np.median(np.abs(p_ref - frequency["count"].to_numpy())) < 0.02
    manifest = json.loads((made / "manifest.json").read_text())
    assert manifest["p_ref"]["quantiles"]["0.5"] == pytest.approx(np.median(p_ref), rel=1e-3)
    assert sum(manifest["p_ref"]["questions"].values()) <= 36
    assert manifest["divergence"] <= 0.01


def test_wrong_answers_are_many_and_unequal(made):
    """Else nothing tests that the recursion leaves their proportions alone."""
    wrong = pl.read_parquet(made / "corpus.parquet").filter(~pl.col("right"))
    kinds = wrong.group_by("question_id").agg(pl.len(), (pl.col("count").max() / pl.col("count").sum()).alias("share"))
    assert kinds["len"].min() >= 3
    assert kinds["share"].median() > 1.5 / 6


def test_the_same_seed_gives_the_same_model(task, tmp_path):
    first, second, other = (
        make_model(task.select(12), tmp_path / name, hidden_size=32, layers=1, steps=2000, seed=seed)
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    for file in ("model.safetensors", "tokenizer.json", "corpus.parquet"):
        assert (first / file).read_bytes() == (second / file).read_bytes()
    assert (first / "model.safetensors").read_bytes() != (other / "model.safetensors").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "c"]  # nothing is left beside them


def test_a_model_is_made_once(task, made, tmp_path):
    before = {path.name: path.stat().st_mtime_ns for path in made.iterdir()}
    assert make_model(task, made, **SMALL) == made
    assert {path.name: path.stat().st_mtime_ns for path in made.iterdir()} == before
    with pytest.raises(
        ValueError, match=r"out must be a new or empty folder, got '.*small', a model with another seed"
    ):
        make_model(task, made, **SMALL, seed=1)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="out must be a new or empty folder, got"):
        make_model(task, tmp_path)
    with pytest.raises(ValueError, match="out must be a folder, got the file"):
        make_model(task, tmp_path / "notes.txt")


@pytest.mark.parametrize("kind", ["sums", "countdown"])
def test_the_loss_is_the_cross_entropy_of_the_corpus(kind, monkeypatch):
    """Equal lines computed once with their count, in parts: the same gradient as line by line."""
    task = make_task(kind).select(5)
    corpus = noisy_corpus(task, lines=50)
    policy = new_policy(task, corpus, 32, 1, 0)
    monkeypatch.setattr(lines_module, "LINES_AT_ONCE", 7)
    lines = Lines.of(policy, task, corpus)
    log_p = lines.log_probs_with_gradient(policy.model)
    found = [weight.grad.clone() for weight in policy.model.parameters()]
    policy.model.zero_grad()

    loss = torch.zeros(())
    for i, text, count in zip(corpus.question, corpus.completion, corpus.count, strict=True):
        ids = policy.tokenizer(text, add_special_tokens=False)["input_ids"] + [policy.eos_id]
        one = torch.tensor([ids[: task.max_completion_tokens]])
        prompt = policy.encode([task.questions[i].prompt])
        loss = loss - count * shared_log_probs(policy.model, prompt, one, torch.ones_like(one).bool(), [0]).sum()
    loss = loss / sum(corpus.count)
    loss.backward()
    assert float(-(lines.share * log_p).sum()) == pytest.approx(loss.item(), rel=1e-5)
    for weight, gradient in zip(policy.model.parameters(), found, strict=True):
        torch.testing.assert_close(weight.grad, gradient, rtol=1e-3, atol=1e-5)
    assert lines.entropy < loss.item()
    assert lines.divergence(log_p) == pytest.approx(loss.item() - lines.entropy, rel=1e-4)
    torch.testing.assert_close(lines.log_probs(policy.model), log_p)


def test_the_corpus_is_what_it_says():
    task = make_task("countdown")
    corpus = noisy_corpus(task, lines=1000, seed=1)
    table = corpus.table(task)
    assert table.group_by("question_id").agg(pl.col("count").sum())["count"].unique().to_list() == [1000]
    by_id = {question.id: question for question in task.questions}
    for question_id, completion, count, right in table.iter_rows():
        question = by_id[question_id]
        assert right == (completion in (question.correct or ())) == task.verifier([question], [completion])[0].success
        assert count >= 0
        assert len(completion) <= task.max_completion_tokens
    hits = table.filter("right").group_by("question_id", maintain_order=True).agg(pl.col("count").sum())["count"]
    assert hits.min() >= 1
    drawn = stats.binom(1000, corpus.reliability)  # 64 draws: a tail below 1e-5 would be a mistake
    assert np.all(drawn.cdf(hits.to_numpy()) > 1e-5)
    assert np.all(drawn.sf(hits.to_numpy() - 1) > 1e-5)


def test_wrong_answers_of_open_questions_are_judged_by_the_verifier():
    """Where the right answers are not all known, what counts is what the verifier says: here, that 1 is right too."""

    def lenient(questions, completions):
        return [verdict(text in (q.answer, "1")) for q, text in zip(questions, completions, strict=True)]

    task = make_task("one_token_sums", largest=3)
    open_questions = tuple(dataclasses.replace(question, correct=None) for question in task.questions)
    table = noisy_corpus(dataclasses.replace(task, questions=open_questions, verifier=lenient)).table(task)
    assert "1" not in table.filter(~pl.col("right"))["completion"].to_list()
    assert "1" in table.filter("right")["completion"].to_list()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden_size": 48}, "hidden_size must be a multiple of 32, got 48"),
        ({"hidden_size": 32, "head_size": 64}, "hidden_size must be a multiple of 64, got 32"),
        ({"head_size": 40}, "head_size must be a multiple of 32, got 40"),
        ({"precision": "fp8"}, "precision must be one of 'float32', 'bf16', got 'fp8'"),
        ({"learning_rate": 0.0}, "learning_rate must be a number > 0 and < 1, got 0.0"),
        ({"device": "tpu"}, "device must be one that is here"),
        ({"layers": 0}, "layers must be a whole number ≥ 1, got 0"),
        ({"seed": -1}, "seed must be a whole number ≥ 0, got -1"),
        ({"lowest": 0.0}, "lowest must be strictly between 0 and 1, got 0.0"),
        ({"highest": 0.0001}, "highest must be strictly between lowest = 0.0007 and 1, got 0.0001"),
        ({"steps": 3}, r"steps must be enough to learn the corpus to 0.01 nats per question, got 3, which leave"),
    ],
)
def test_bad_options_are_named(task, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        make_model(task.select(8), tmp_path / "out", **{"hidden_size": 32, "layers": 1, **options})
    assert not any(tmp_path.iterdir())


def test_bad_tasks_are_named(task, tmp_path):
    short = dataclasses.replace(make_task("sums"), max_completion_tokens=1)
    with pytest.raises(ValueError, match="max_completion_tokens must be at least 2, the length of an answer to"):
        make_model(short, tmp_path / "out")
    with pytest.raises(ValueError, match="task must have a wrong answer to every question, got none to"):
        make_model(task.select(1), tmp_path / "out")


@pytest.mark.parametrize(
    ("write", "error"),
    [
        ("grpo_dynamics.provenance.parquet", OSError(28, "No space left on device")),
        ("transformers.LlamaForCausalLM.save_pretrained", SafetensorError("I/O error: No space left on device")),
    ],
)
def test_a_full_disk_leaves_nothing(task, tmp_path, monkeypatch, write, error):
    def full(*_):
        raise error

    monkeypatch.setattr(write, full)
    with pytest.raises(OSError, match="No space left"):
        make_model(task.select(4), tmp_path / "out", hidden_size=32, layers=1, steps=2000)
    assert not any(tmp_path.iterdir())


class Clock(Deadline):
    """A limit in steps, not in seconds: the test is the same on every machine."""

    def __init__(self, steps):
        super().__init__(None)
        self.steps = steps

    def left(self):
        self.steps -= 1
        return np.inf if self.steps >= 0 else -1.0


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_stopped_and_gone_on_with_the_model_is_the_same_to_the_last_bit(task, tmp_path, precision):
    """The state before a step is weights, optimiser and step number: nothing else enters a step."""
    options = {"hidden_size": 32, "layers": 1, "steps": 2000, "precision": precision}
    few, stops = task.select(12), []
    whole = make_model(few, tmp_path / "whole", **options)
    for limit in (7, 40, 10**6):
        try:
            parts = make_model(few, tmp_path / "parts", **options, deadline=Clock(limit))
        except TimeLimit as stopped:
            stops.append(str(stopped))
    assert [text.split(",")[0] for text in stops] == [f"pre-training: step {n} of at most 2000" for n in (7, 47)]
    assert (parts / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    found = [json.loads((folder / "manifest.json").read_text()) for folder in (whole, parts)]
    assert found[0]["divergence"] == found[1]["divergence"] <= 0.01
    assert sorted(path.name for path in tmp_path.iterdir()) == ["parts", "whole"]


def test_a_kill_between_two_checkpoints_costs_only_what_came_after(task, tmp_path, monkeypatch):
    """Killed is here an error that no code of ours catches; a checkpoint is written after every step."""
    monkeypatch.setattr(pretraining, "SECONDS_BETWEEN", -1.0)
    options = {"hidden_size": 32, "layers": 1, "steps": 2000}
    whole = make_model(task.select(12), tmp_path / "whole", **options)
    seen = []

    def killed(step, total, what):
        seen.append(step)
        if step == 20 and seen.count(20) == 1:
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        make_model(task.select(12), tmp_path / "parts", **options, tell=killed)
    parts = make_model(task.select(12), tmp_path / "parts", **options, tell=killed)
    assert seen[20:22] == [20, 20]
    assert (parts / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


def test_the_state_of_another_model_is_not_gone_on_from(task, tmp_path):
    """Another seed at the same place: step 0 again."""
    options = {"hidden_size": 32, "layers": 1, "steps": 2000}
    with pytest.raises(TimeLimit):
        make_model(task.select(12), tmp_path / "m", **options, deadline=Clock(5))
    with pytest.raises(TimeLimit, match="step 3 of"):
        make_model(task.select(12), tmp_path / "m", **options, seed=1, deadline=Clock(3))


def test_in_bfloat16_the_corpus_is_learned_as_well(task, made, tmp_path):
    """Judged in float32: rounding of the layers is noise of 2⁻⁹ in a logit's parts, far below what p_ref spreads."""
    folder = make_model(task, tmp_path / "bf16", **SMALL, precision="bf16")
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["config"]["precision"] == "bf16"
    policy = load_policy(folder, device="cpu")
    assert policy.model.dtype == torch.float32
    corpus = noisy_corpus(task)
    lines = Lines.of(policy, task, corpus)
    log_p = lines.log_probs(policy.model)
    assert lines.divergence(log_p) == pytest.approx(manifest["divergence"], abs=1e-6)
    assert manifest["divergence"] <= 0.01
    assert np.median(np.abs(lines.success(log_p) - corpus.reliability)) < 0.02
    assert manifest["tokens_of_a_step"] == 36 * 5  # a start token and "a+b=", once for all answers of one token


def test_a_model_of_before_there_were_more_options_is_found(task, made):
    """What is as usual is not written down: the settings of an old folder are those of a new one."""
    config = json.loads((made / "manifest.json").read_text())["config"]
    old = ["task", "questions", "task_digest", "hidden_size", "layers", "seed", "steps"]
    assert list(config) == [*old, "lines", "wrong", "lowest", "highest"]


def test_heads_are_as_wide_as_asked(task):
    policy = new_policy(task, noisy_corpus(task, lines=50), 128, 1, 0, head_size=64)
    assert policy.model.config.num_attention_heads == 2
    assert policy.model.model.layers[0].self_attn.head_dim == 64


def test_a_wider_model_learns_steadily_at_its_usual_rate(task):
    """After the twenty steps of warm-up no step lies far above the best before it: a rate too high makes the loss jump.

    The usual rate of AdamW falls as one over the width, above 256.
    """
    assert [usual_learning_rate(width) for width in (64, 256, 512, 1024)] == pytest.approx([3e-3, 3e-3, 1.5e-3, 7.5e-4])
    few, told = task.select(8), []
    corpus = noisy_corpus(few)
    policy = new_policy(few, corpus, 512, 2, 0, head_size=64)
    with pytest.raises(ValueError, match="steps must be enough to learn the corpus to 1e-09 nats"):
        pretrain(
            policy,
            few,
            corpus,
            40,
            lambda done, total, what: told.append(float(what.split()[1])),
            learning_rate=usual_learning_rate(512),
            tolerance=1e-9,
        )
    assert told[-1] < 0.1 * told[0]
    assert max(now - min(told[20 : i + 1]) for i, now in enumerate(told) if i >= 20) < 0.1


def test_passes_are_cut_by_what_a_layer_keeps():
    """45 numbers of 4 bytes for each of 1024 features, 10 layers, 20 positions: 35 MiB a line, 12 GiB in all."""
    task = make_task("sums")
    config = new_policy(task, noisy_corpus(task, lines=50), 32, 1, 0).model.config
    config.hidden_size, config.num_hidden_layers = 1024, 10
    assert lines_module._lines_at_once(config, 20) == 12 * 2**30 // (45 * 4 * 1024 * 10 * 20)
    assert new_model.HEAD == 32

"""Models made on the spot: their p_ref spreads as the corpus says, and the same seed gives the same model."""

import dataclasses
import json

import numpy as np
import polars as pl
import pytest
import torch
from safetensors import SafetensorError
from scipy import stats

from grpo_dynamics.training import pretraining
from grpo_dynamics.training.policies import load_policy, next_log_probs, right_completions, shared_log_probs
from grpo_dynamics.training.pretraining import BINS, make_model, new_policy
from grpo_dynamics.training.sources.corpus import noisy_corpus
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
    lines = pretraining._Lines.of(policy, task, corpus)
    monkeypatch.setattr(pretraining, "LINES_AT_ONCE", 7)
    log_p = lines.log_probs_with_gradient(policy)
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
    assert lines.entropy() < loss.item()


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

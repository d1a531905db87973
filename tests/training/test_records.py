"""What a run leaves: tables with the promised columns, and TensorBoard scalars that are there once."""

import polars as pl
import torch

from grpo_dynamics.provenance import digest
from grpo_dynamics.training import records
from grpo_dynamics.training.runs import train
from grpo_dynamics.training.tasks import make_task
from tests.training.tiny import SAMPLED, tiny_config, tiny_model


def test_every_completion_and_every_p_is_in_the_tables(tmp_path):
    torch.set_num_threads(1)
    model = tiny_model(tmp_path / "model")
    config = tiny_config(model, **SAMPLED, measurement={"every": 2}, checkpoint_every=2)
    manifest = train(config, tmp_path / "arm")
    tables = {name: pl.read_parquet(tmp_path / "arm" / f"{name}.parquet") for name in records.SCHEMAS}
    for name, table in tables.items():
        assert dict(table.schema) == {key: kind() for key, kind in records.SCHEMAS[name].items()}
        about = manifest["tables"][f"{name}.parquet"]
        assert about["rows"] == table.height
        assert about["sha256"] == digest((tmp_path / "arm" / f"{name}.parquet").read_bytes())
    completions = tables["completions"]
    keys = ["iteration", "step", "question_id", "group_id", "sample_index"]
    assert completions.height == completions.select(keys).n_unique() == 3 * 8 * 2 * 4
    task = {question.id: question for question in make_task("one_token_sums").questions}
    for row in completions.iter_rows(named=True):
        right = row["completion"] == task[row["question_id"]].answer
        assert (row["success"], row["reward"], row["outcome"]) == (right, float(right), "right" if right else "wrong")
        assert row["completion_length"] == 1
        assert row["logp_old"] < 0
        assert row["logp_ref"] < 0
    first = completions.filter(pl.col("iteration") == 1)
    assert (first["logp_old"] - first["logp_ref"]).abs().max() < 1e-5  # π_old is π_ref in the first iteration
    assert tables["success"]["iteration"].unique().sort().to_list() == [0, 2, 3]  # every other, and the last
    assert tables["steps"]["step"].to_list() == [1, 1, 1]
    assert tables["steps"]["engine_mismatch"].max() < 1e-5
    questions = pl.read_parquet(tmp_path / "arm" / "questions.parquet")
    assert (
        questions["question_id"].to_list()
        == tables["success"].filter(pl.col("iteration") == 0)["question_id"].to_list()
    )
    assert not (tmp_path / "arm" / "parts").exists()


def test_completions_of_some_iterations_only_change_nothing_else(tmp_path):
    torch.set_num_threads(1)
    model = tiny_model(tmp_path / "model")
    tables = {}
    for every in (1, 2, 0):
        train(tiny_config(model, **SAMPLED, measurement={"completions_every": every}), tmp_path / str(every))
        tables[every] = pl.read_parquet(tmp_path / str(every) / "completions.parquet")
    assert tables[1].filter(pl.col("iteration") == 2).equals(tables[2])
    assert (tables[2].height, tables[0].height) == (8 * 2 * 4, 0)
    success = [(tmp_path / str(every) / "success.parquet").read_bytes() for every in (1, 2, 0)]
    assert success[0] == success[1] == success[2]


def test_tensorboard_reads_each_scalar_once(tmp_path):
    from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

    steps = records.frame(
        "steps", [{"iteration": 1, "step": 1, "loss": 0.5}, {"iteration": 2, "step": 1, "loss": 0.25}]
    )
    rows = [{"iteration": n, "question_id": q, "p": p} for n in (0, 5) for q, p in (("a", 0.25), ("b", 0.75))]
    success = records.frame("success", rows)
    path = records.write_tensorboard(tmp_path, steps, success)
    seen = [
        (event.step, value.tag, value.simple_value)
        for event in LegacyEventFileLoader(str(path)).Load()
        for value in event.summary.value
    ]
    mean = [(n, "success/mean_p", 0.5) for n in (0, 5)]
    each = [(n, f"p/{q}", p) for n in (0, 5) for q, p in (("a", 0.25), ("b", 0.75))]
    assert sorted(seen) == sorted([(0, "steps/loss", 0.5), (1, "steps/loss", 0.25), *mean, *each])
    before = path.read_bytes()
    assert records.write_tensorboard(tmp_path, steps, success).read_bytes() == before

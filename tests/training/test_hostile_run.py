"""A run whose policy writes programs that fork, fill memory, write outside, open sockets, print, or never end."""

import collections
import dataclasses

import polars as pl
import pytest

from grpo_dynamics.training.policies import Policy, load_policy
from grpo_dynamics.training.rewards.python_tests import ProgramTests, sandbox_problem
from grpo_dynamics.training.rewards.sandbox import Limits
from grpo_dynamics.training.runs import train
from grpo_dynamics.training.tasks import make_task
from tests.training.tiny import SAMPLED, tiny_config, tiny_model

pytestmark = pytest.mark.skipif(sandbox_problem() is not None, reason=f"programs are not run: {sandbox_problem()}")

HOSTILE = {
    "fork": "import os\nwhile True:\n    os.fork()",
    "memory": "x = bytearray(10 << 30)",
    "write": "open({outside!r}, 'w').write('x')",
    "socket": "import socket\nsocket.create_connection(('127.0.0.1', 80))",
    "print": "while True:\n    print('x' * 10**6)",
    "endless": "while True:\n    pass",
    "exit": "import os\nos._exit(0)",
}


@dataclasses.dataclass(frozen=True, eq=False)
class Hostile(Policy):
    """A policy whose completions, whatever their tokens, read as one hostile program after another, and some right."""

    programs: tuple[str, ...] = ()

    def decode(self, completions):
        texts = super().decode(completions)
        if not self.programs or len(texts) < len(self.programs):
            return texts  # a text that is only looked at, not a group of completions
        return [self.programs[i % len(self.programs)] for i in range(len(texts))]


def test_hostile_programs_earn_nothing_and_the_run_goes_on(tmp_path):
    task = make_task("python_functions", questions=2, max_completion_tokens=4)
    verifier = ProgramTests(limits=Limits(seconds=1.0))
    task = dataclasses.replace(task, questions=task.questions[:1], verifier=verifier)
    outside = tmp_path / "outside"
    right = task.questions[0].answer
    programs = (*(text.format(outside=str(outside)) for text in HOSTILE.values()), right)
    path = tiny_model(tmp_path / "model", task)
    loaded = load_policy(path, device="cpu")
    config = tiny_config(
        path,
        questions=1,
        iterations=2,
        training=SAMPLED["training"] | {"groups": 1, "normalization": {"kind": "finite_group", "group_size": 24}},
        optimization=SAMPLED["optimization"],
        measurement={"method": "sampled", "samples": 8, "every": 0},
    )
    manifest = train(
        config, tmp_path / "arm", task=task, policy=Hostile(loaded.model, loaded.tokenizer, False, programs)
    )
    assert (manifest["status"], manifest["iterations_done"]) == ("finished", 2)
    assert not outside.exists()
    rows = pl.read_parquet(tmp_path / "arm" / "completions.parquet")
    assert rows.height == 2 * 24
    hostile = rows.filter(pl.col("completion") != right)
    assert set(hostile["completion"]) == set(programs) - {right}  # each was tried
    assert hostile["reward"].to_list() == [0.0] * hostile.height
    assert not hostile["success"].any()
    honest = rows.filter(pl.col("completion") == right)
    assert honest.height > 0
    assert honest["success"].all()  # what earned nothing did so for what it is
    counts = collections.Counter(hostile["outcome"])
    assert counts["timeout"] > 0
    assert counts["output"] > 0
    assert counts["memory"] > 0
    assert counts["error"] > 0

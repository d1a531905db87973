"""`grpo-dynamics advise`, as a user meets it: what it prints and writes, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import grpo_dynamics as gd
from grpo_dynamics.advice import advise
from grpo_dynamics.cli import main
from grpo_dynamics.cli.advise import preferred
from grpo_dynamics.forecast import Goal
from grpo_dynamics.question_files import Questions, read_questions, table_bytes


def questions(*pairs):
    k, n = np.array(pairs).T
    return Questions(pl.Series("question_id", [f"q{i}" for i in range(len(pairs))]), k / n, k, n)


def trl(beta, group_size, p):
    return gd.trainer("trl", "1.16", beta=beta, num_generations=group_size).at(p)


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "questions.csv"
    path.write_text("question_id,successes,samples\na,0,8\nb,1,8\nc,6,8\nd,8,8\n")
    return str(path)


def test_the_command_answers_in_json_and_writes_tables_and_pictures(table, tmp_path, answer):
    out = tmp_path / "advice"
    found = answer("advise", "--from", table, "--trainer", "trl", "--out", str(out), "--k", "1,4,16")
    keys = "command version trainer from aim verdict beta group_size questions amplified_safely whole_steps_oscillate"
    more = "advised computed_at best_of_each_group_size cannot_move pass_at_k notes not_modelled files"
    assert list(found) == [*keys.split(), *more.split()]
    assert [row["group_size"] for row in found["best_of_each_group_size"]] == [4, 8, 16]
    assert found["cannot_move"]["without_success"] == 1
    assert found["cannot_move"]["samples_to_exclude"] == {"0.1": 29, "0.01": 299, "0.001": 2995}
    assert [row["before_unbiased"] for row in found["pass_at_k"]][2] is None  # 16 of 8 samples
    names = {"advice.png", "advice.pdf", "candidates.parquet", "candidates.csv", "questions.parquet", "questions.csv"}
    assert {path.name for path in out.iterdir()} == names
    assert pl.read_csv(out / "questions.csv")["question_id"].to_list() == list("abcd")
    best = pl.read_parquet(out / "candidates.parquet").filter(beta=found["beta"], group_size=found["group_size"])
    assert best["amplified_safely"][0] * 4 == pytest.approx(found["amplified_safely"]["expected"])
    direct = advise(questions((0, 8), (1, 8), (6, 8), (8, 8)), trl, preferred(0.001, 10).tolist(), [4, 8, 16])
    assert (direct.beta, direct.group_size) == (found["beta"], found["group_size"])


def test_where_nothing_helps_nothing_is_advised(tmp_path, answer, printed):
    from grpo_dynamics.advice_plot import draw

    (tmp_path / "hard.csv").write_text("id,k,n\na,0,1000\n")
    arguments = ["advise", "--from", str(tmp_path / "hard.csv"), "--trainer", "trl", "--budget", "16"]
    found = answer(*arguments, "--out", str(tmp_path / "out"))
    assert found["verdict"].startswith("No candidate amplifies any question")
    assert found["beta"] is found["group_size"] is found["advised"] is None
    assert found["computed_at"]["group_size"] == 4
    text = printed(*arguments, "--out", str(tmp_path / "out"))
    assert f"What follows is for β = {found['computed_at']['beta']} with groups of 4." in text
    assert "advised" not in text
    for pair, marked in (((0, 1000), False), ((4, 8), True)):
        left, middle, _ = draw(advise(questions(pair), trl, [0.1, 10.0], [8], aim=Goal(budget=16)), "").axes
        assert ("advised" in [text.get_text() for text in left.get_legend().get_texts()]) == marked
        assert ("advised" in middle.get_title(loc="left")) == marked


def test_the_table_itself_is_never_overwritten(table, tmp_path, capsys):
    before = Path(table).read_bytes()
    assert main(["advise", "--from", table, "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err == (
        f"error: out must be a folder where questions.csv is not the table of questions itself, got {str(tmp_path)!r}\n"
    )
    assert Path(table).read_bytes() == before
    assert list(tmp_path.iterdir()) == [Path(table)]


def test_a_critic_has_no_groups(table, tmp_path, answer):
    """PPO, advantage r − V(q): whatever G, no group is silent, and every question moves."""
    found = answer("advise", "--from", table, "--trainer", "open-reasoner-zero", "--out", str(tmp_path / "a"))
    assert [row["group_size"] for row in found["best_of_each_group_size"]] == [None]
    assert found["cannot_move"]["expected_not_to_move"] == 0
    assert found["notes"] == [
        "group_sizes has no effect with these options: a critic, taken as exact, is in place of groups"
    ]
    rows = pl.read_parquet(tmp_path / "a" / "questions.parquet")
    assert rows["p_after"].to_list() == rows["p_star"].to_list()
    with_groups = ["--trainer", "open-reasoner-zero", "--set", "use_grpo=true"]
    found = answer("advise", "--from", table, "--out", str(tmp_path / "a"), *with_groups)
    assert [row["group_size"] for row in found["best_of_each_group_size"]] == [4, 8, 16]


def test_a_rate_that_is_not_that_of_the_counts_is_noted(tmp_path, answer):
    rows = [{"id": "a", "k": 2, "n": 4, "p": 0.5}, {"id": "b", "k": 1, "n": 4, "p": 0.9}]
    for ending, cell in (("csv", "'0.9'"), ("jsonl", "0.9"), ("parquet", "0.9")):
        file = tmp_path / f"t.{ending}"
        file.write_bytes(table_bytes(pl.DataFrame(rows), file))
        found = answer("advise", "--from", str(file), "--out", str(tmp_path / "out"), "--group-sizes", "4")
        assert found["notes"] == [f"p is {cell} beside 1 of 4 in row 2: in that row the counts are taken, not the rate"]
    own = read_questions(tmp_path / "out" / "questions.csv").notes  # its p_ref are posterior means, (k + ½)/(n + 1)
    assert own[0].startswith("p_ref is '0.300")
    (tmp_path / "t.csv").write_text("id,k,n,p\na,2,4,0.5\nb,1,4,0.25\n")
    assert read_questions(tmp_path / "t.csv").notes == ()
    (tmp_path / "t.csv").write_text("id,k,n,rate\na,2,4,fast\nb,1,4,\n")
    assert read_questions(tmp_path / "t.csv").notes == ()


def test_the_command_prints_sentences(table, tmp_path, printed):
    text = printed(
        "advise", "--from", table, "--out", str(tmp_path / "a"), "--group-sizes", "4", "--beta-range", "0.5:2"
    )
    for words in ("of 4 questions lose at least 50% of their failures", "no success seen", "pass@k", "advised"):
        assert words in text


def test_the_page_shows_what_is_printed(tmp_path, printed):
    docs = Path(__file__).parent.parent / "docs"
    shown = (docs / "advise.md").read_text(encoding="utf-8").split("```text")[1].split("```")[0]
    text = printed("advise", "--from", str(docs / "questions.csv"), "--trainer", "trl", "--out", str(tmp_path))
    assert text.startswith(" ".join(shown.split()))


def test_exact_statistics(table, tmp_path, answer):
    """Every question goes to nearly 1, where means over a posterior must not round to above 1."""
    found = answer("advise", "--from", table, "--out", str(tmp_path / "a"), "--group-sizes", "inf")
    assert found["group_size"] is None
    assert found["cannot_move"]["expected_not_to_move"] == 0.0  # no group is silent
    rows = pl.read_parquet(tmp_path / "a" / "questions.parquet")
    probabilities = rows.select("p_star", "p_star_low", "p_star_high", "p_after", "amplified_safely").to_numpy()
    assert 0 <= probabilities.min() <= probabilities.max() <= 1


def test_where_nothing_pulls_beta_has_no_effect(table, tmp_path, answer):
    """k1 in verl's loss is no pull on average: p goes to 1 for every β, and a note says so."""
    options = ["--trainer", "verl", "--set", "kl_loss_type=kl"]
    found = answer("advise", "--from", table, "--out", str(tmp_path / "a"), *options)
    assert "β has no effect" in found["notes"][0]
    assert pl.read_parquet(tmp_path / "a" / "candidates.parquet")["p_star"].unique().to_list() == pytest.approx([1.0])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "from must be a table of questions"),
        (["--from", "TABLE", "--group-sizes", "8,1"], "group_sizes must be integers from 2 to 16384, or inf"),
        (["--from", "TABLE", "--group-sizes", "8,8"], "each once, got '8,8'"),
        (["--from", "TABLE", "--group-sizes", "inf", "--trainer", "trl"], "whose groups are finite, got 'inf'"),
        (["--from", "TABLE", "--k", "0"], "k must be integers from 1 to 1000000 between commas, got '0'"),
        (["--from", "TABLE", "--gain", "1"], "gain must be a probability strictly between 0 and 1, got 1.0"),
        (["--from", "TABLE", "--budget", "0"], "budget must be an integer >= 1, got 0"),
        (["--from", "TABLE", "--beta-range", "2:1"], "beta_range must be LOW:HIGH with LOW < HIGH"),
        (["--from", "TABLE", "--beta-range", "1e-9:1e9"], "beta_range must be LOW:HIGH with HIGH at most 1e+12 times"),
        (["--from", "TABLE", "--set", "a=1"], "set must be left out without --trainer"),
        (["--from", "TABLE", "--trainer", "trl", "--eps", "0.1"], "eps must be left out with --trainer, got 0.1"),
        (["--from", "TABLE", "--trainer", "trlx"], "trainer must be one of trl"),
        (
            ["--from", "TABLE", "--trainer", "prime-rl"],
            "trainer must be one with a KL term to a reference for advice on β, got 'prime-rl'",
        ),
        (["--from", "RATES"], "questions must have numbers of successes and of samples"),
        (["--from", "nowhere.csv"], "file must be one that exists, got 'nowhere.csv'"),
    ],
)
def test_bad_input_is_one_line(arguments, said, table, tmp_path, capsys):
    rates = tmp_path / "rates.csv"
    rates.write_text("id,p_ref\na,0.5\n")
    places = {"TABLE": table, "RATES": str(rates)}
    out = tmp_path / "out"
    assert main(["advise", *(places.get(word, word) for word in arguments), "--out", str(out)]) == 2
    text, error = capsys.readouterr()
    assert text == ""
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert said in error
    assert not out.exists()


def test_help_fits_and_its_examples_are_commands(capsys, monkeypatch):
    from grpo_dynamics.cli import advise as module

    ran = []
    monkeypatch.setattr(module, "advise_on", lambda *given: ran.append(given))
    assert main(["advise", "--help"]) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    joined = text.replace("\n        --group", " --group")
    examples = [line.split()[1:] for line in joined.splitlines() if line.split()[:1] == ["grpo-dynamics"]]
    for words in examples:
        assert main(words) == 0, words
    assert len(ran) == len(examples) == 3


def test_preferred_numbers():
    assert preferred(0.1, 1.0).tolist() == [0.1, 0.125, 0.16, 0.2, 0.25, 0.315, 0.4, 0.5, 0.63, 0.8, 1.0]
    assert len(preferred(0.41, 0.49)) == 11
    assert json.dumps(preferred(1e-3, 10).tolist()).count(",") == 40

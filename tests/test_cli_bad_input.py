"""Whatever is wrong: one line that names it, exit code 2, no traceback, nothing left behind."""

from __future__ import annotations

import re
from pathlib import Path

import polars as pl
import pytest

from grpo_dynamics.cli import main

ONE = "predict --beta 1 --p-ref .2"

# arguments, what the line says of the allowed values, the value it names
ARGUMENTS = {
    "predict --beta 0 --p-ref .2": ("beta must be a finite number > 0", "0.0"),
    "predict --beta -1 --p-ref .2": ("beta must be a finite number > 0", "-1.0"),
    "predict --beta nan --p-ref .2": ("beta must be a finite number > 0", "nan"),
    "predict --beta inf --p-ref .2": ("beta must be a finite number > 0", "inf"),
    "predict --beta one --p-ref .2": ("beta must be a finite number > 0", "'one'"),
    "predict --beta= --p-ref .2": ("beta must be a finite number > 0", "''"),
    "predict --p-ref .2": ("beta must be a finite number > 0", "nothing: add --beta"),
    "predict --beta 1": ("p_ref must be a probability", "nothing: add --p-ref"),
    "predict --beta 1 --p-ref 0": ("p_ref must be a probability strictly between 0 and 1", "0.0"),
    "predict --beta 1 --p-ref 1": ("p_ref must be a probability strictly between 0 and 1", "1.0"),
    "predict --beta 1 --p-ref nan": ("p_ref must be a probability strictly between 0 and 1", "nan"),
    f"{ONE} --p0 1.5": ("p0 must be a probability strictly between 0 and 1", "1.5"),
    f"{ONE} --eps -1": ("eps must be a finite number >= 0", "-1.0"),
    f"{ONE} --eps x": ("eps must be a finite number >= 0", "'x'"),
    f"{ONE} --eps-placement root": ("eps_placement must be one of variance, std", "'root'"),
    f"{ONE} --variant ppo": ("variant must be one of grpo, dr_grpo", "'ppo'"),
    f"{ONE} --alpha 1.5": ("alpha must be between 0 and 1", "1.5"),
    f"{ONE} --alpha nan": ("alpha must be between 0 and 1", "nan"),
    f"{ONE} --variant mirror_grpo --alpha .5": ("alpha must be 0 or left out with variant mirror_grpo", "0.5"),
    f"{ONE} --variant two_kl": ("alpha must be a number between 0 and 1", "nothing: add --alpha"),
    f"{ONE} --variant two_kl --alpha 2": ("alpha must be between 0 and 1", "2.0"),
    f"{ONE} --group-size 1": ("group_size must be an integer from 2 to 16384", "1"),
    f"{ONE} --group-size 2.5": ("group_size must be an integer from 2 to 16384", "'2.5'"),
    f"{ONE} --group-size 20000": ("group_size must be an integer from 2 to 16384", "20000"),
    f"{ONE} --group-size 8 --ddof 2": ("ddof must be one of 0, 1", "'2'"),
    f"{ONE} --ddof 1": ("ddof must be left out without --group-size", "1"),
    f"{ONE} --silent-groups drop": ("silent_groups must be left out without --group-size", "'drop'"),
    f"{ONE} --variant dr_grpo --eps -1": ("eps must be a finite number >= 0", "-1.0"),
    f"{ONE} --variant dr_grpo --ddof 1": ("ddof must be left out without --group-size", "1"),
    f"{ONE} --variant dr_grpo --group-size 8 --silent-groups drop": ("silent_groups must be keep or left", "'drop'"),
    f"{ONE} --steps -1": ("steps must be an integer from 0 to 100000", "-1"),
    f"{ONE} --steps 1.5": ("steps must be an integer from 0 to 100000", "'1.5'"),
    f"{ONE} --plot x.gif": ("plot must be a file name that ends in .png, .pdf, .svg", "'x.gif'"),
    f"{ONE} --plot folder.png": ("plot must be a file name, not a folder", "'folder.png'"),
    f"{ONE} --plot file.csv/x.png": ("plot must be a place that can be written", "'file.csv/x.png'"),
    f"{ONE} --plot {'x' * 300}.png": ("plot must be a place that can be written", f"'{'x' * 300}.png'"),
    f"{ONE} --out x.csv": ("out must be left out without --from", "'x.csv'"),
    f"{ONE} --id-column q": ("id_column must be left out without --from", "'q'"),
    "predict --beta 1 --from file.csv --p-ref .2": ("p_ref must be left out with --from", "0.2"),
    "predict --beta 1 --from file.csv --plot x.png": ("plot must be left out with --from", "'x.png'"),
    "predict --from file.csv": ("beta must be a finite number > 0", "nothing: add --beta"),
    "predict --beta 1 --from file.csv --out x.xls": ("out must be a file name that ends in", "'x.xls'"),
    "predict --beta 1 --from file.csv --out file.csv": ("out must be another file", "'file.csv'"),
    "predict --beta 1 --from file.csv --out ./file.csv": ("out must be another file", "'file.csv'"),
    "predict --beta 1 --from file.csv --out file.csv/x.csv": ("out must be a place", "'file.csv/x.csv'"),
    "predict --beta 1 --from file.csv --confidence 1": ("confidence must be a probability", "1.0"),
    "predict --beta 1 --from file.csv --id-column q": ("id_column must be one of the columns id, p", "'q'"),
    "predict --beta 1 --from=": ("file must be a file name that ends in .csv, .jsonl, .parquet", "''"),
    "predict --beta 1 --from .": ("file must be a file name that ends in .csv, .jsonl, .parquet", "'.'"),
    "predict --beta 1 --from /": ("file must be a file name that ends in .csv, .jsonl, .parquet", "'/'"),
    "predict --beta 1 --from file.csv --out=": ("out must be a file name that ends in", "''"),
    f"{ONE} --plot=": ("plot must be a file name that ends in .png, .pdf, .svg", "''"),
    "figures figure4 --out=": ("out must be a folder", "''"),
    "predict --beta 1 --from no.csv": ("file must be one that exists", "'no.csv'"),
    "predict --beta 1 --from folder.png": ("file must be a file name that ends in .csv, .jsonl", "'folder.png'"),
    "predict --beta": ("--beta must be followed by a value", "nothing"),
    "predict --bta 1": ("option must be as `grpo-dynamics predict --help` says (such as --beta)", "'--bta'"),
    f"{ONE} --json=1": ("arguments must be as", "does not take a value"),
    f"{ONE} more": ("arguments must be as `grpo-dynamics predict --help` says", "(more)"),
    "forecast": ("command must be one of predict, which-kl, design", "'forecast'"),
    "--bta": ("option must be as `grpo-dynamics --help` says", "'--bta'"),
    "design --p-ref .2": ("target must be a probability strictly between 0 and 1", "nothing: add --target"),
    "design --target .5": ("p_ref must be a probability strictly between 0 and 1", "nothing: add --p-ref"),
    "design --target 1 --p-ref .2": ("target must be a probability strictly between 0 and 1", "1.0"),
    "design --target .5 --p-ref .2 --p0 0": ("p0 must be a probability strictly between 0 and 1", "0.0"),
    "design --target .5 --p-ref .2 --beta 1": ("option must be as", "'--beta'"),
    "figures figure9": ("figure must be one of figure1, figure2", "'figure9'"),
    "figures figure4 --out file.csv": ("out must be a folder", "'file.csv'"),
    "figures figure4 --out file.csv/x": ("out must be a place that can be written", "'file.csv/x'"),
    "reproduce --out file.csv": ("out must be a folder", "'file.csv'"),
}

RATE = "p must be a success rate between 0 and 1"

# name, content, what the line says of the allowed values, the value it names
FILES = {
    "unknown type.txt": (b"id,p\na,.1\n", "file must be a file name that ends in .csv, .jsonl, .parquet", "type.txt'"),
    "nothing.csv": (b"", "file must be a table with at least one question", "the empty file 'nothing.csv'"),
    "header.csv": (b"id,p\n", "file must be a table with at least one question", "no rows in 'header.csv'"),
    "blank.jsonl": (b"\n\n", "columns must include an id (question_id, prompt_id, id,", "none"),
    "no id.csv": (b"name,p\na,.1\n", "columns must include an id (question_id,", "name, p"),
    "no numbers.csv": (b"id,x\na,.1\n", "columns must include a success rate (p_ref,", "id, x"),
    "no samples.csv": (b"id,k\na,1\n", "columns must include a success rate (p_ref,", "id, k"),
    "twice.csv": (b"id,p\na,.1\nb,.1\na,.2\n", "id must be different in every row", "'a' in rows 1 and 3"),
    "no name.csv": (b"id,p\na,.1\n,.1\n", "id must be a string or an integer in every row", "nothing in row 2"),
    "text.csv": (b"id,p\na,.1\nb,x\n", RATE, "'x' in row 2"),
    "null.csv": (b"id,p\na,\n", RATE, "nothing in row 1"),
    "nan.csv": (b"id,p\na,nan\n", RATE, "'nan' in row 1"),
    "above.csv": (b"id,p\na,1.01\n", RATE, "'1.01' in row 1"),
    "below.csv": (b"id,p\na,-.01\n", RATE, "'-.01' in row 1"),
    "more.csv": (b"id,k,n\na,5,4\n", "k must be at most n (4)", "5 in row 1"),
    "negative.csv": (b"id,k,n\na,-1,4\n", "k must be an integer >= 0", "'-1' in row 1"),
    "fraction.csv": (b"id,k,n\na,1.5,4\n", "k must be an integer >= 0", "'1.5' in row 1"),
    "no n.csv": (b"id,k,n\na,1,0\n", "n must be an integer >= 1", "'0' in row 1"),
    "ragged.csv": (b"id,p\na,.1,3\n", "file must be a whole csv table", "'ragged.csv'"),
    "latin.csv": (b"id,p\n\xff,.1\n", "file must be a whole csv table", "'latin.csv'"),
    "cut.jsonl": (b'{"id": 1, "p": 0.1}\n{"id": 2,', "file must be one JSON object a line", "in line 2"),
    "list.jsonl": (b"[1]\n", "file must be one JSON object a line", "'[1]' in line 1"),
    "latin.jsonl": (b'{"id": "\xff", "p": 0.1}', "file must be a whole jsonl table", "'latin.jsonl'"),
    "text.jsonl": (b'{"id": 1, "p": "0.1"}', RATE, "'0.1' in row 1"),
    "true.jsonl": (b'{"id": 1, "p": true}', RATE, "True in row 1"),
    "null.jsonl": (b'{"id": 1, "p": 0.1}\n{"id": 2}', RATE, "nothing in row 2"),
    "huge.jsonl": (b'{"id": 1, "p": 1' + b"0" * 400 + b"}", RATE, "1000000000"),
    "huger.jsonl": (b'{"id": 1, "p": 1' + b"0" * 5000 + b"}", "file must be one JSON object a line", "in line 1"),
    "infinite k.jsonl": (b'{"id": 1, "k": 1e400, "n": 8}', "k must be an integer >= 0", "inf in row 1"),
    "huge k.jsonl": (b'{"id": 1, "k": 1' + b"0" * 400 + b', "n": 8}', "k must be an integer >= 0", "1000000000"),
    "infinite n.csv": (b"id,k,n\na,1,1e400\n", "n must be an integer >= 1", "'1e400' in row 1"),
    "nested.jsonl": (b"[" * 100_000, "file must be one JSON object a line", "in line 1 (maximum recursion"),
    "half.jsonl": (b'{"id": "\\ud800", "p": 0.1}', "id must be a string or an integer in every row", "in row 1"),
    "half name.jsonl": (b'{"\\ud800": 1, "id": 1, "p": 0.1}', "file must be one JSON object a line", "in line 1"),
    "float id.jsonl": (b'{"id": 1.5, "p": 0.1}', "id must be a string or an integer in every row", "1.5 in row 1"),
    "twice.jsonl": (b'{"id": 1, "p": 0.1}\n{"id": "1", "p": 0.1}', "id must be different", "'1' in rows 1 and 2"),
    "garbage.parquet": (b"PAR1 nothing", "file must be a whole parquet table", "'garbage.parquet'"),
}


def refusal(arguments: list[str], folder: Path, capsys) -> str:
    """Run a command that has to refuse; return its line."""
    before = sorted(folder.rglob("*"))
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"error: [^\n]* must [^\n]*, got[: ][^\n]*\n", err), err
    assert sorted(folder.rglob("*")) == before
    return err.rstrip("\n")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file.csv").write_text("id,p\na,0.1\n")
    (tmp_path / "folder.png").mkdir()
    return tmp_path


@pytest.mark.parametrize("arguments", ARGUMENTS)
def test_bad_arguments(arguments, folder, capsys):
    allowed, value = ARGUMENTS[arguments]
    line = refusal(arguments.split(), folder, capsys)
    assert line.startswith(f"error: {allowed}")
    assert line.endswith(f"{value}") or value in line.split(", got", 1)[1]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", FILES)
def test_bad_files(name, folder, capsys):
    content, allowed, value = FILES[name]
    (folder / name).write_bytes(content)
    line = refusal(["predict", "--beta", "1", "--from", name], folder, capsys)
    assert line.startswith(f"error: {allowed}")
    assert value in line.split(", got", 1)[1]


@pytest.mark.parametrize("name", ["outcome", "p_limit", "period"])
def test_ids_are_not_overwritten_by_a_column_of_the_predictions(name, folder, capsys):
    (folder / "table.csv").write_text(f"{name},p\na,.1\n")
    line = refusal(["predict", "--beta", "1", "--from", "table.csv", "--id-column", name], folder, capsys)
    assert line.startswith("error: id_column must be one that is not named as a column of the predictions (successes,")
    assert line.endswith(f"got '{name}'")


def test_a_folder_is_no_table(folder, capsys):
    (folder / "folder.csv").mkdir()
    line = refusal(["predict", "--beta", "1", "--from", "folder.csv"], folder, capsys)
    assert line == "error: file must be a table of questions, got the folder 'folder.csv'"


PARQUETS = {
    "k": (pl.Series([[1]]), "k must be an integer >= 0", "type List"),
    "n": (pl.Series([True]), "n must be an integer >= 1", "type Boolean"),
    "id": (pl.Series([0.5]), "id must be a string or an integer", "Float64"),
}


@pytest.mark.parametrize("column", PARQUETS)
def test_parquet_of_wrong_types(column, folder, capsys):
    values, allowed, value = PARQUETS[column]
    pl.DataFrame({"id": [1], "k": [1], "n": [2], column: values}).write_parquet(folder / "table.parquet")
    line = refusal(["predict", "--beta", "1", "--from", "table.parquet"], folder, capsys)
    assert line.startswith(f"error: {allowed}")
    assert value in line


def test_truncated_parquet(folder, capsys):
    pl.DataFrame({"id": range(1000), "p": [0.5] * 1000}).write_parquet(folder / "whole.parquet")
    whole = (folder / "whole.parquet").read_bytes()
    for length in (3, len(whole) // 2, len(whole) - 1):
        (folder / "cut.parquet").write_bytes(whole[:length])
        line = refusal(["predict", "--beta", "1", "--from", "cut.parquet"], folder, capsys)
        assert line.startswith("error: file must be a whole parquet table")


def test_a_disk_that_fills_up_leaves_nothing(folder, capsys, monkeypatch):
    write = Path.write_bytes

    def fail(self, data):
        write(self, data[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fail)
    for arguments in (["--from", "file.csv"], ["--p-ref", "0.2", "--plot", "orbit.png"]):
        line = refusal(["predict", "--beta", "1", *arguments], folder, capsys)
        assert "(No space left on device)" in line


def test_an_older_answer_survives_a_failure(folder, capsys):
    (folder / "old.csv").write_text("kept")
    (folder / "bad.csv").write_text("id,p\na,7\n")
    refusal(["predict", "--beta", "1", "--from", "bad.csv", "--out", "old.csv"], folder, capsys)
    assert (folder / "old.csv").read_text() == "kept"


def test_control_c_is_quiet(monkeypatch, capsys):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("grpo_dynamics.cli.predict.predict", interrupt)
    assert main(["predict", "--beta", "1", "--p-ref", ".2"]) == 130
    assert capsys.readouterr() == ("", "")


def test_a_fault_of_our_own_is_not_blamed_on_the_user(monkeypatch):
    def broken(*arguments):
        raise ValueError("a fault")

    monkeypatch.setattr("grpo_dynamics.cli.predict.as_dict", broken)
    with pytest.raises(ValueError, match="a fault"):
        main(["predict", "--beta", "1", "--p-ref", ".2", "--json"])

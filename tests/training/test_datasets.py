"""Data sets: rows come back as questions; what a file lacks is named, with the file and the row."""

import importlib
import json

import polars as pl
import pytest

from grpo_dynamics.training.sources.datasets import after_hashes, in_box, questions_from
from grpo_dynamics.training.tasks import make_task

ROWS = [
    {"prompt": "6*7=", "answer": "42", "level": 1},
    {"prompt": "6*8=", "answer": "48", "level": 2},
]
GSM8K = [
    {"question": "How many?", "answer": "40 * 30 = <<40*30=1200>>1,200\n#### 1,200"},
    {"question": "And now?", "answer": "No #### 5, but\n#### -6.50"},
]
MATH = [{"problem": "Half of 1?", "solution": r"So $x=\boxed{\frac{1}{2}}$.", "level": "Level 1"}]


def lines(path, rows) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.fixture(params=["jsonl", "parquet", "data set on disk", "data sets on disk", "folder of files"])
def source(request, tmp_path):
    datasets = importlib.import_module("datasets")
    if request.param == "jsonl":
        return lines(tmp_path / "rows.jsonl", ROWS)
    if request.param == "parquet":
        pl.DataFrame(ROWS).write_parquet(tmp_path / "rows.parquet")
        return tmp_path / "rows.parquet"
    if request.param == "folder of files":
        (tmp_path / "files").mkdir()
        lines(tmp_path / "files" / "train.jsonl", ROWS)
        return str(tmp_path / "files")
    data = datasets.Dataset.from_list(ROWS)
    data = datasets.DatasetDict({"train": data, "test": data.select([1])}) if "sets" in request.param else data
    data.save_to_disk(str(tmp_path / "saved"))
    return tmp_path / "saved"


def test_every_source_gives_the_same_questions(source, tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    first, second = questions_from(source)
    assert (first.id, first.prompt, first.answer, first.correct) == ("0", "6*7=", "42", None)
    assert (second.id, second.prompt, second.answer, dict(second.extra)) == ("1", "6*8=", "48", {"level": 2})


def test_a_split_is_chosen(tmp_path):
    datasets = importlib.import_module("datasets")
    data = datasets.Dataset.from_list(ROWS)
    datasets.DatasetDict({"train": data, "test": data.select([1])}).save_to_disk(str(tmp_path / "d"))
    assert [q.prompt for q in questions_from(tmp_path / "d", split="test")] == ["6*8="]
    with pytest.raises(ValueError, match=r"source must be a file, folder or data set that can be read, got .*nothing"):
        questions_from(tmp_path / "d", split="nothing")


def test_columns_ids_and_templates(tmp_path):
    path = lines(tmp_path / "d.jsonl", [{"id": "x7", "ask": "6*7", "say": 42, "hint": None}])
    (question,) = questions_from(path, "ask", "say", template="Q: {prompt} {x}\nA:")
    assert (question.id, question.prompt, question.answer) == ("x7", "Q: 6*7 {x}\nA:", "42")
    assert question.extra == {"hint": None}


def test_schemas_by_name(tmp_path):
    """GSM8K's and MATH's own columns; their answers are judged as mathematics."""
    task = make_task("dataset", source=lines(tmp_path / "train.jsonl", GSM8K), schema="gsm8k")
    assert (task.name, [q.answer for q in task.questions]) == ("gsm8k", ["1200", "-6.50"])
    verdicts = task.verifier([task.questions[0]] * 3, ["It is $1200$.", "#### 1,200", "1201"])
    assert [v.success for v in verdicts] == [True, True, False]
    task = make_task("dataset", source=lines(tmp_path / "math.jsonl", MATH), schema="math")
    assert task.questions[0].answer == r"\frac{1}{2}"
    assert task.questions[0].extra == {"level": "Level 1"}
    assert [v.success for v in task.verifier(task.questions, [r"so \boxed{0.5}"])] == [True]


def test_exact_answers_without_a_schema(tmp_path):
    path = lines(tmp_path / "mine.jsonl", ROWS)
    task = make_task("dataset", source=path, max_completion_tokens=3, questions=1)
    assert (task.name, len(task.questions), task.max_completion_tokens) == ("mine", 1, 3)
    right = task.questions[0].answer
    assert [v.success for v in task.verifier(task.questions * 2, [f" {right}\n", f"{right}0"])] == [True, False]
    with pytest.raises(ValueError, match=r"verifier.kind must be one of .*, got 'maths'; the nearest is 'math'"):
        make_task("dataset", source=path, verifier="maths")


@pytest.mark.parametrize(
    ("verifier", "right", "wrong"),
    [
        ({"kind": "pattern", "pattern": "^[0-9]{2}$"}, "12", "123"),
        ({"kind": "exact"}, "42", "42 "),  # a table has the options of the class: here blanks count
        ({"kind": "exact", "strip": True}, "42 ", "4 2"),
        (["json", {"kind": "count", "of": "characters", "at_most": 2}], "12", "123"),
        ({"kind": "weighted", "verifiers": ["exact", "json"], "weights": [1.0, 1.0], "threshold": 1.0}, "7", "x"),
    ],
)
def test_a_verifier_of_ones_own_in_the_settings(tmp_path, verifier, right, wrong):
    path = lines(tmp_path / "mine.jsonl", [{"prompt": "6*7=", "answer": "42"}])
    task = make_task("dataset", source=path, verifier=verifier)
    assert [v.success for v in task.verifier(task.questions * 2, [right, wrong])] == [True, False]


@pytest.mark.parametrize(
    ("verifier", "message"),
    [
        ({"kind": "pattern", "pattern": "[0-9"}, "pattern must be a regular expression"),
        ({"kind": "count", "off": "words"}, r"key of \[verifier\] must be one of .*, got 'off'; the nearest is 'of'"),
        (3, "verifier must be a kind, a table or a list of those, got 3"),
    ],
)
def test_bad_verifiers_are_named(tmp_path, verifier, message):
    path = lines(tmp_path / "mine.jsonl", ROWS)
    with pytest.raises(ValueError, match=message):
        make_task("dataset", source=path, verifier=verifier)


@pytest.mark.parametrize(
    ("solution", "answer"),
    [
        (r"\boxed{1} then \boxed{2}", "2"),
        (r"\boxed{\frac{a}{b}}", r"\frac{a}{b}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{\left\{x\right.}", r"\left\{x\right."),
        (r"\fbox{3}", "3"),
        (r"\boxed 7", "7"),
        (r"\boxed{\frac{1}{2}", None),
        (r"\boxed{}", None),
        ("7", None),
    ],
)
def test_boxes_are_balanced(solution, answer):
    assert in_box(solution) == answer


@pytest.mark.parametrize(
    ("solution", "answer"), [("#### 1,234,567", "1234567"), ("#### (1,2)", "(1,2)"), ("####", None), ("7", None)]
)
def test_answers_after_hashes(solution, answer):
    assert after_hashes(solution) == answer


GOOD = '{"prompt": "a", "answer": "b"}'


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (
            '{"promt": "a", "answer": "b"}',
            {},
            "column 'prompt' must be in row 1 of d.jsonl, got promt, answer; the nearest is 'promt'",
        ),
        (GOOD + '\n\n{"prompt": "a"}', {}, "column 'answer' must be in row 3 of d.jsonl, got prompt"),
        (GOOD, {"answer": "answers"}, "column 'answers' must be in row 1 .*; the nearest is 'answer'"),
        (GOOD + '\n{"prompt": ', {}, "row 2 of d.jsonl must be a JSON object, got '{\"prompt\":'"),
        ("[1, 2]", {}, r"row 1 of d.jsonl must be a JSON object, got '\[1, 2\]'"),
        ('{"prompt": null, "answer": "b"}', {}, "prompt must be a text in row 1 of d.jsonl, got None"),
        ('{"prompt": "a", "answer": ""}', {}, "answer must be a text in row 1 of d.jsonl, got ''"),
        (
            '{"question": "a", "answer": "b"}',
            {"schema": "gsm8k"},
            r'answer must be a text that ends in "#### " and the answer in row 1',
        ),
        (
            '{"problem": "a", "solution": "b"}',
            {"schema": "math"},
            r"solution must be a text with the answer in \\boxed\{\} in row 1",
        ),
        ("", {}, "source must hold at least one question, got '.*d.jsonl', which is empty"),
        ("", {"schema": "gsmk8"}, "schema must be one of gsm8k, math, got 'gsmk8'; the nearest is 'gsm8k'"),
        ("", {"template": "Q"}, r"template must hold \{prompt\}, got 'Q'"),
    ],
)
def test_bad_rows_are_named(tmp_path, text, options, message):
    (tmp_path / "d.jsonl").write_text(text)
    with pytest.raises(ValueError, match=message):
        questions_from(tmp_path / "d.jsonl", **options)


def test_bad_sources_are_named(tmp_path, monkeypatch):
    lines(tmp_path / "rows.jsonl", ROWS)
    with pytest.raises(
        ValueError, match=r"source must be a file that exists, got '.*row.jsonl'; the nearest is 'rows.j"
    ):
        questions_from(tmp_path / "row.jsonl")
    (tmp_path / "a.csv").write_text("prompt,answer\n")
    with pytest.raises(ValueError, match=r"source must be a .jsonl or .parquet file, a folder or a name, got .*a.csv"):
        questions_from(tmp_path / "a.csv")
    (tmp_path / "a.parquet").write_bytes(b"no parquet")
    with pytest.raises(ValueError, match=r"source must be a parquet file, got '.*a.parquet': ."):
        questions_from(tmp_path / "a.parquet")
    (tmp_path / "a.jsonl").write_bytes(b'{"prompt": "\xff"}')
    with pytest.raises(ValueError, match=r"source must be text in UTF-8, got '.*a.jsonl'"):
        questions_from(tmp_path / "a.jsonl")
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        ValueError, match=r"source must be a file, folder or data set that can be read, got '.*empty': ."
    ):
        questions_from(tmp_path / "empty")
    with pytest.raises(ValueError, match=r"source must be a file, a folder or a name, got ''"):
        questions_from("")

    datasets = importlib.import_module("datasets")

    def unreachable(*_, **__):
        raise datasets.exceptions.DatasetNotFoundError("Dataset 'no/such' doesn't exist\non the Hub")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(ValueError, match=r"got 'no/such': Dataset 'no/such' doesn't exist$"):
        questions_from("no/such")


def test_numbers_of_rows_are_those_of_the_file(tmp_path):
    pl.DataFrame({"prompt": ["a", "b"], "answer": ["1", None]}).write_parquet(tmp_path / "t.parquet")
    with pytest.raises(ValueError, match=r"answer must be a text in row 2 of t.parquet, got None"):
        questions_from(tmp_path / "t.parquet")

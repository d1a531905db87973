import polars as pl
import pytest

from paper_figures import goldens


@pytest.fixture(scope="module")
def judged() -> pl.DataFrame:
    return goldens.table()


def test_nothing_differs(judged: pl.DataFrame) -> None:
    assert judged.filter(verdict=goldens.DIFFERS).is_empty(), judged.filter(verdict=goldens.DIFFERS)
    assert judged["id"].n_unique() == judged.height


def test_all_24_titles_of_figure_5_to_the_printed_digits(judged: pl.DataFrame) -> None:
    titles = judged.filter(pl.col("id").str.contains(r"^fig5-[\d.]+-[\d.]+$"))
    assert titles.height == 24
    for row in titles.iter_rows(named=True):
        assert f"{row['ours']:.4f}" == f"{row['paper']:.4f}", row["id"]


def test_pictures_that_contradict_their_captions_are_rows(judged: pl.DataFrame) -> None:
    wrong = judged.filter(verdict=goldens.INCONSISTENT)["where"].unique().to_list()
    assert {"v4, Figure 2", "v4, Figure 4", "v4, Figure 5", "v4, Theorem 2"} <= set(wrong)


@pytest.mark.parametrize("name", goldens.paper_values().filter(pl.col("formula").is_not_null())["id"].to_list())
def test_a_tampered_number_differs(name: str) -> None:
    values = goldens.paper_values()
    own = values.filter(pl.col("id") == name).row(0, named=True)
    keep = [name, own["same_as"]] if own["same_as"] else [name]
    # three tolerances off (away from ours); a contradiction that no longer quotes its partner's number is not excused
    off = (-3 if own["kind"] == "contradiction" else 3) * pl.col("tolerance")
    changed = values.filter(pl.col("id").is_in(keep)).with_columns(
        paper=pl.when(pl.col("id") == name).then(pl.col("paper") + off).otherwise("paper")
    )
    verdicts = dict(goldens.table(changed).select("id", "verdict").iter_rows())
    assert verdicts[name] == goldens.DIFFERS


def test_a_contradiction_is_excused_only_while_its_partner_agrees() -> None:
    pair = goldens.paper_values().filter(pl.col("id").is_in(["fig4-drawn-1", "fig4-title-1"]))
    both = pair.with_columns(paper=pl.lit(4.75))  # a picture that neither ε explains
    assert goldens.table(both)["verdict"].to_list() == [goldens.DIFFERS] * 2


def test_text_shows_every_row_and_the_counts(judged: pl.DataFrame) -> None:
    text = goldens.as_text(judged)
    assert text.count("\n") == judged.height + 3
    assert text.splitlines()[-1].endswith("0 DIFFERS")
    one = judged.head(1).with_columns(verdict=pl.lit(goldens.DIFFERS))
    assert "1 DIFFERS" in goldens.as_text(one)

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


def test_settings_of_the_experiment_are_rows_and_not_called_computed(judged: pl.DataFrame) -> None:
    settings = judged.filter(verdict=goldens.SETTING)
    printed = {
        "5e-6",
        "0.2",
        "0.1",
        "10",
        "16",
        "1319",
        "50",
        "17",
        "150",
        "2550",
    }  # β and the temperature are both 0.1
    assert settings["paper"].to_list().count(0.1) == 2
    assert set(settings["paper"].to_list()) == {float(value) for value in printed}
    assert settings["ours"].null_count() == settings.height == 11


def test_every_point_of_figure_3_is_the_one_read_off() -> None:
    from paper_figures import figure3

    ones = [1.0] * 17
    series = {
        830: [0, 0, 0.04, 0.66, 0.04, 0.10, 0, 0.18, 0, 0.16, 0.24, 0, 0, 0.50, 0.38, 0, 0.68],
        241: [0.20, 0.04, 0.30, 0.88, 0.90, 0.52, 0.70, 0.78, 0.64, 0.90, 1, 1, 0.82, 0.96, 0.98, 1, 1],
        320: [0, 0.02, 0.10, 0.08, 0, 0, 0.06, 0.12, 0.44, 0.18, 0.14, 0.02, 0, 0.04, 0, 0.64, 0.46],
        1291: [0.78, 0.36, 0.92, 0.92, 1, 1, 1, 0.94, *ones[8:]],
        1150: [0.10, 0.16, 0.02, 0.80, 0.96, *ones[5:]],
        186: [0.02 if iteration in (600, 1500) else 0 for iteration in range(150, 2551, 150)],
        177: [0] * 17,
    }
    table = figure3.data()
    assert {q: table.filter(question=q)["success_rate"].to_list() for q in series} == series
    assert table.height == sum(map(len, series.values()))
    rows = goldens.paper_values().filter(kind="read_off")
    assert rows["note"].str.contains("7 × 17 are data in figure3.csv").all()


def test_the_ends_of_figure_4_at_both_eps_are_rows_of_the_theory(judged: pl.DataFrame) -> None:
    """B(0.01) = p(1−p)|2p−1| / (2(p(1−p)+ε)^{3/2}) in plain arithmetic."""
    ours = judged.filter(pl.col("id").str.starts_with("fig4-theory"))
    assert ours["paper"].to_list() == [4.851, 4.917]
    assert ours["verdict"].to_list() == [goldens.AGREES] * 2
    for eps, value in zip((1e-4, 1e-5), ours["ours"], strict=True):
        assert value == pytest.approx(0.0099 * 0.98 / (2 * (0.0099 + eps) ** 1.5), rel=1e-12)


def test_text_shows_every_row_and_the_counts(judged: pl.DataFrame) -> None:
    text = goldens.as_text(judged)
    assert text.count("\n") == judged.height + 3
    assert text.splitlines()[-1].endswith("0 DIFFERS")
    one = judged.head(1).with_columns(verdict=pl.lit(goldens.DIFFERS))
    assert "1 DIFFERS" in goldens.as_text(one)

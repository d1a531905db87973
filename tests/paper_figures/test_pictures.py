import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from grpo_dynamics import grpo, mirror_grpo
from grpo_dynamics.plotting import PALETTE, prediction, probability_ticks, render, save, write_whole
from paper_figures import FIGURES, make
from paper_figures.files import contents
from paper_figures.page import reproduce


@pytest.mark.parametrize("name", FIGURES)
def test_two_runs_give_the_same_bytes(name: str) -> None:
    first, second = contents(FIGURES[name]), contents(FIGURES[name])
    assert first.keys() == second.keys()
    for suffix in first:
        assert first[suffix] == second[suffix], f"{name}{suffix} is not deterministic"
    if ".png" in first:
        assert first[".png"].startswith(b"\x89PNG")
        assert not re.search(rb"/(CreationDate|Producer|Creator)", first[".pdf"])


def test_make_writes_what_is_asked_for_and_nothing_on_a_wrong_name(tmp_path: Path) -> None:
    told: list[tuple[int, int, str]] = []
    paths = make(["figure1", "table1"], tmp_path, lambda *step: told.append(step))
    names = {"figure1.png", "figure1.pdf", "figure1.parquet", "figure1.csv"}
    names |= {"table1.md", "table1.tex", "table1.parquet", "table1.csv"}
    assert {path.name for path in paths} == names == {path.name for path in tmp_path.iterdir()}
    assert told == [(0, 2, "figure1"), (1, 2, "table1"), (2, 2, "done")]
    with pytest.raises(ValueError, match=r"figure must be one of figure1, .* got 'figure9'"):
        make(["figure1", "figure9"], tmp_path / "other")
    assert not (tmp_path / "other").exists()


class Links(HTMLParser):
    """Collects every address that a browser would load by itself, and the tags that stay open."""

    void = frozenset({"meta", "img", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.followed: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        assert tag not in {"script", "link", "iframe", "object"}
        self.loaded += [values[k] or "" for k in ("src", "srcset", "poster") if k in values]
        self.followed += [values["href"] or ""] if "href" in values else []
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_stands_alone(tmp_path: Path) -> None:
    result = reproduce(tmp_path)
    text = result.page.read_text(encoding="utf-8")
    page = Links()
    page.feed(text)
    assert page.open == []
    assert len(page.loaded) == len(FIGURES) - 1
    assert all(address.startswith("data:image/png;base64,") for address in page.loaded)
    for address in page.followed:
        assert (tmp_path / address).exists() if not address.startswith("#") else f'id="{address[1:]}"' in text
    assert not re.search(r"url\(|@import|<!--[A-Z]+-->", text)
    assert "prefers-color-scheme: dark" in text
    assert "width=device-width" in text
    assert result.agrees
    assert {path.relative_to(tmp_path) for path in result.paths} == {
        path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()
    }


def test_a_picture_of_any_question(tmp_path: Path) -> None:
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    for recursion in (grpo(1.0, 0.2), grpo(5.0, 1e-4), grpo(0.01, 0.9), grpo(1.0, 0.999), mirror_grpo(1.0, 0.2)):
        figure = prediction(recursion, recursion.iterate(50))
        assert render(figure, "png") == render(prediction(recursion, recursion.iterate(50)), "png")
    png, pdf = save(figure, tmp_path / "deep" / "name.with.dots")
    assert (png.name, pdf.name) == ("name.with.dots.png", "name.with.dots.pdf")
    assert dict(mpl.rcParams) == before
    with pytest.raises(ValueError, match=r"one question, got a batch of shape \(2,\)"):
        prediction(grpo([1.0, 2.0], 0.2), grpo([1.0, 2.0], 0.2).iterate(3))
    with pytest.raises(ValueError, match=r"must end in \.png or \.pdf, got '\.svg'"):
        render(figure, ".svg")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = write_whole(tmp_path / "a.txt", b"old")
    with pytest.raises(TypeError):
        write_whole(path, "not bytes")  # pyright: ignore[reportArgumentType]
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_ticks_read_as_round_probabilities() -> None:
    at, labels = probability_ticks(-7.0, 7.0)
    assert labels == ["$10^{-3}$", "0.01", "0.1", "0.5", "0.9", "0.99", "$1-10^{-3}$"]
    assert at == sorted(at)
    assert len(set(PALETTE)) == len(PALETTE)

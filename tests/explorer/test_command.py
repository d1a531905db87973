"""`grpo-dynamics explore`: the file, the address, and one line for bad input."""

from __future__ import annotations

import webbrowser

import pytest

from grpo_dynamics import explorer
from grpo_dynamics.cli import main

OPENS = {
    (): {"beta": 1, "p_ref": 0.2, "variant": "grpo", "eps": 1e-5, "group_size": None, "update": "exact"},
    ("--beta", "5", "--p-ref", ".001", "--p0", ".3"): {"beta": 5, "p_ref": 0.001, "p0": 0.3},
    ("--variant", "two_kl", "--alpha", ".5"): {"variant": "two_kl", "alpha": 0.5},
    ("--variant", "mirror_dr_grpo"): {"variant": "mirror_dr_grpo"},
    ("--group-size", "8"): {"group_size": 8, "eps": 0, "eps_placement": "std", "ddof": 0, "silent_groups": "keep"},
    ("--kl", "k3", "--group-size", "8"): {"update": "gradient", "kl": "k3", "group_size": 8},
    ("--trainer", "trl", "--beta", ".04"): {"kl": "k3_times_ratio", "eps": 1e-4, "ddof": 1, "trainer": "trl-1.16.0"},
    ("--trainer", "trl", "--trainer-version", "1.9", "--beta", ".04"): {"kl": "k3", "trainer": "trl-1.9.2"},
    ("--trainer", "trl", "--beta", ".04", "--set", "scale_rewards=none"): {"variant": "dr_grpo", "group_size": 8},
    ("--trainer", "open-instruct"): {"beta": 0.005, "silent_groups": "drop_with_kl"},  # rewards of 10: β acts as β/10
    ("--trainer", "prime-rl", "--group-size", "8"): {"kl": "none", "trainer": "prime-rl-0.8.0"},
}


@pytest.mark.parametrize("options", OPENS, ids=" ".join)
def test_the_page_opens_with_the_options(options, tmp_path, answer, visit):
    out = tmp_path / "page.html"
    found = answer("explore", *options, "--out", str(out), "--no-browser")
    assert found["opened"] is False
    assert OPENS[options].items() <= found["state"].items()
    assert out.read_text(encoding="utf-8") == explorer.page(found["state"])
    page = visit()
    for address in (out.as_uri(), found["address"]):
        page.goto(address)
        page.wait_for_function("window.explorer && explorer.found()")
        shown = page.evaluate("explorer.state()")
        for key, value in found["state"].items():
            assert shown[key] == (float("inf") if key == "group_size" and value is None else value)
        assert page.locator("#messages").inner_text() == ""


def test_it_is_opened(tmp_path, monkeypatch, capsys):
    opened = []
    monkeypatch.setattr(webbrowser, "open", lambda address: opened.append(address) or True)
    monkeypatch.chdir(tmp_path)
    assert main(["explore", "--beta", "2"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.splitlines() == ["The explorer: grpo-explorer.html", opened[0]]
    assert opened == [(tmp_path / "grpo-explorer.html").as_uri() + "#beta=2&p_ref=0.2"]


BAD = {
    ("--beta", "-1"): "beta must be a finite number > 0, got -1.0",
    ("--p-ref", "2"): "p_ref must be a probability strictly between 0 and 1, got 2.0",
    ("--p0", "0"): "p0 must be a probability strictly between 0 and 1, got 0.0",
    ("--kl", "k4"): "kl must be one of exact, k1, k2, k3, k1_in_reward, k1_times_ratio, k3_times_ratio, none, got 'k4'",
    ("--kl", "k3", "--variant", "mirror_grpo"): "variant must be one of grpo, dr_grpo with --kl, whose only KL is to "
    "the reference, got 'mirror_grpo'",
    ("--group-size", "2000"): "group_size must be an integer from 2 to 1024 in the explorer, got 2000",
    ("--trainer", "trl", "--kl", "k3"): "kl must be left out with --trainer, got 'k3'",
    ("--trainer", "tlr"): "trainer must be one of trl, ",
    ("--out", "page.pdf"): "out must be a file name that ends in .html, .htm, got 'page.pdf'",
    ("--out", ""): "out must be a file name that ends in .html, got ''",
}


@pytest.mark.parametrize("options", BAD, ids=" ".join)
def test_bad_input_is_one_line(options, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["explore", *options, "--no-browser"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"error: {BAD[options]}")
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_help(capsys):
    assert main(["explore", "--help"]) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    assert "grpo-dynamics explore --trainer trl" in text

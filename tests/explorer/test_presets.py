"""The trainers on the page are those of the package, read off it when the page is made."""

from __future__ import annotations

import numpy as np
import pytest

import grpo_dynamics as gd
from grpo_dynamics import explorer
from grpo_dynamics.explorer.state import DEFAULTS, KEYS, state_of
from grpo_dynamics.explorer.trainers import with_kl
from grpo_dynamics.theory.trainers import PRESETS, MixedGroups

from .states import dynamics, states


def test_every_trainer_and_every_version_is_there():
    """Each version of each trainer reads as the entry of its span; entries that differ are not joined."""
    entries = explorer.presets()
    assert len({entry["id"] for entry in entries}) == len(entries)
    assert {entry["id"].rpartition("-")[0] for entry in entries} == set(PRESETS)
    trl = [entry["title"] for entry in entries if entry["id"].startswith("trl-")]
    assert trl == ["TRL GRPOTrainer, 0.14.0 to 1.9.2", "TRL GRPOTrainer, 1.10.0 to 1.16.0"]  # k3; k3 times the ratio


def changed(entry, beta: float, p_ref: float, group_size: int) -> dict[str, object]:
    """What the page makes of a trainer's β and G: β counts by the entry's factor."""
    finite = entry["settings"]["group_size"] is not None
    settings = {"beta": beta * entry["beta_factor"], "p_ref": p_ref}
    return settings | ({"group_size": group_size} if finite else {})


@pytest.mark.parametrize("entry", explorer.presets(), ids=lambda entry: entry["id"])
def test_a_trainer_on_the_page_is_the_packages(entry, ask):
    """For random β and G: the flow that the package reads from the trainer's options, and the page's fixed points."""
    name, _, version = entry["id"].rpartition("-")
    rng = np.random.default_rng(1)
    known = {**entry, "settings": {**entry["settings"]}}
    if known["settings"]["group_size"] is None:
        known["settings"]["group_size"] = float("inf")
    for _ in range(8):
        beta, p_ref, size = 10 ** rng.uniform(-2, 1), rng.uniform(0.01, 0.9), int(rng.integers(3, 40))
        exact = with_kl(PRESETS[name], version, beta, size).at(p_ref)
        state = ask("preset", known, changed(entry, beta, p_ref, size))
        read = dynamics(state)
        assert (read.normalization, read.kl) == (exact.normalization, exact.kl)
        if exact.kl != "none":
            assert read.beta == pytest.approx(exact.beta, rel=1e-14)
        found = gd.fixed_points(exact)
        ours = [point["L"] for point in ask("fixed", [state])[0]["points"]]
        assert ours == pytest.approx(found.log_odds[: int(found.count)], rel=1e-9, abs=1e-9)


def test_the_list_on_the_page(visit):
    page = visit()
    entries = explorer.presets()
    assert page.locator("#trainer option").count() == 1 + len(entries)
    for entry in entries:
        page.select_option("#trainer", entry["id"])
        state = page.evaluate("explorer.state()")
        assert state["trainer"] == entry["id"]
        for key, value in entry["settings"].items():
            assert state[key] == (float("inf") if value is None else value)
        if entry["default_beta"]:
            assert state["beta"] == entry["default_beta"]
        said = page.locator("#trainer-reading").inner_text()
        assert entry["pull"] in said
        assert ("By default it has no KL term" in said) == (entry["default_beta"] == 0)
        assert page.locator("#trainer-missing li").count() == len(entry["not_modelled"])
    page.select_option("#trainer", "trl-1.16.0")
    page.locator("#group_size").fill("16")
    page.locator("#group_size").press("Enter")
    assert "over the group of 16" in page.locator("#trainer-reading").inner_text()
    page.select_option("#kl", "k2")  # no longer what the trainer does
    assert page.evaluate("explorer.state().trainer") is None
    assert not page.locator("#trainer-notes").is_visible()


def test_the_readings_hold_in_their_own_words():
    """β by its factor is linear, and the words hold for every G, as the page writes them for the G of its slider."""
    for entry in explorer.presets():
        name, _, version = entry["id"].rpartition("-")
        for size in (4, 16):
            found = with_kl(PRESETS[name], version, 2.0, size)
            assert entry["advantage"].replace("{G}", str(size)) == f"{found.advantage}."
            assert entry["pull"] == f"{found.pull}."


def test_the_defaults_are_the_pages(ask):
    """What Python leaves out of an address is what the page takes."""
    page = ask("defaults") | {"group_size": None}
    assert {key: page[key] for key in DEFAULTS} == DEFAULTS
    assert set(page) == set(KEYS)


def test_dynamics_to_state_and_back():
    """``state_of`` loses nothing, for every recursion and flow that the page has."""
    for one in states(200, seed=2) + states(100, seed=3, update="gradient"):
        exact = dynamics(one)
        full = {**one, **state_of(exact)}
        full["group_size"] = float("inf") if full["group_size"] is None else full["group_size"]
        assert dynamics(full) == exact


def test_what_the_page_does_not_have():
    class Other(gd.MeanOnly().__class__.__mro__[1]):
        gap = gap_and_rate = turns = lambda self, *given: 0.0

    with pytest.raises(ValueError, match="normalization must be one that the explorer has, got"):
        state_of(gd.Recursion(1.0, 0.2, Other()))
    with pytest.raises(ValueError, match="dynamics must be a Recursion"):
        state_of("grpo")
    with pytest.raises(ValueError, match=r"state must have keys among beta, .*, got 'colour'"):
        explorer.fragment({"colour": "blue"})
    mixed = gd.Flow(1.0, 0.2, MixedGroups(gd.MeanOnly(8), 8), "k3")
    assert state_of(mixed)["silent_groups"] == "drop_with_kl"

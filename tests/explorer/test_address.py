"""The address that holds the state: written, read, followed, refused and copied."""

from __future__ import annotations

import math

import pytest

from .hands import headline, slide, state
from .states import dynamics, states


def test_addresses_there_and_back(ask):
    """Reading what was written gives the state again: all that matters of it."""
    made = states(300, seed=22) + states(300, seed=23, update="gradient")
    for one in made:
        written = ask("write", one)
        read = ask("read", written, [])
        assert read["problems"] == []
        assert ask("write", read["state"]) == written
        assert dynamics(read["state"]) == dynamics(one)
        assert read["state"]["p0"] == one["p0"]


def test_the_address_keeps_up(visit):
    page = visit()
    slide(page, "beta", math.log10(5))
    slide(page, "p_ref", -6.9)
    page.wait_for_function("location.hash === explorer.address(explorer.state())")
    assert "beta=5" in page.evaluate("location.hash")
    copy = visit(page.evaluate("location.hash"))
    assert state(copy) == state(page)
    assert headline(copy) == headline(page)


def test_an_address_changed_before_the_page_wrote_its_own_is_followed(visit):
    """A link clicked while a slider rests: the event that tells of it may come after the page's own turn to write."""
    page = visit()
    page.add_init_script("addEventListener('hashchange', (event) => event.stopImmediatePropagation())")  # never comes
    page.reload()
    page.evaluate("""() => {
      const slider = document.querySelector('#beta-slider');
      slider.value = Math.log10(2);
      slider.dispatchEvent(new Event('input', { bubbles: true }));
      location.hash = '#beta=3';
    }""")
    page.wait_for_function("explorer.state().beta === 3 && location.hash === explorer.address(explorer.state())")


BAD = {
    "beta=-1": 'beta must be a finite number > 0, got "-1": 1 is taken.',
    "beta=nan": 'beta must be a finite number > 0, got "nan": 1 is taken.',
    "beta=": 'beta must be a finite number > 0, got "": 1 is taken.',
    "p_ref=1": 'p_ref must be a probability strictly between 0 and 1, got "1": 0.2 is taken.',
    "p0=7": 'p0 must be a probability strictly between 0 and 1, or left out to start at p_ref, got "7": left out.',
    "variant=gpro": "variant must be one of grpo, dr_grpo, mirror_grpo, mirror_dr_grpo, two_kl, two_kl_dr_grpo, "
    'got "gpro": grpo is taken.',
    "group_size=2.5": 'group_size must be inf, or an integer from 2 to 1024, got "2.5": inf is taken.',
    "eps=1e999": 'eps must be a finite number >= 0, got "1e999": 0.00001 is taken.',
    "kl=k4": "kl must be one of exact, k2, k1_in_reward, k1_times_ratio, k3_times_ratio, k3, k1, none, "
    'got "k4": exact is taken.',
    "ddof=2": 'ddof must be 0 or 1, got "2": 0 is taken.',
    "silent_groups=drop_with_kl": "silent_groups must be keep or drop unless update is gradient, kl is k3 and "
    'group_size is 3 to 1024, got "drop_with_kl": keep is taken.',
    "update=gradient&variant=two_kl": "variant must be grpo or dr_grpo with update gradient, "
    'got "two_kl": grpo is taken.',
    "colour=blue": 'colour" is no setting',
    "__proto__=1": '__proto__" is no setting',
    "toString=1": 'toString" is no setting',
    "trainer=trl": "trainer must be one of trl-",
    "%E0%A4%A": "is no setting",
    "beta=%3Cimg%20src=x%3E": '"<img src=x>"',
}


@pytest.mark.parametrize("hash", BAD)
def test_bad_addresses(visit, hash):
    """One line that names the key, the value and what is allowed; the default is taken, and the page works."""
    page = visit(f"#p0=0.3&{hash}" if not hash.startswith("p0") else f"#{hash}")
    assert BAD[hash] in page.locator("#messages").inner_text()
    assert page.locator("#messages p").count() == 1
    assert page.locator("#messages img").count() == 0  # text, never markup
    assert headline(page) != ""


def test_two_settings_that_contradict_a_third(visit):
    """Each that gives way has its line, and what is left is allowed."""
    page = visit("#update=gradient&variant=mirror_dr_grpo&silent_groups=drop_with_kl&group_size=8")
    assert page.locator("#messages p").count() == 2
    assert [state(page)[key] for key in ("update", "variant", "silent_groups")] == ["gradient", "grpo", "keep"]


def test_copy(visit):
    page = visit("#beta=5&p_ref=0.001", permissions=["clipboard-read", "clipboard-write"])
    page.locator("#copy-link").click()
    page.wait_for_function("document.querySelector('#status').textContent !== ''")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied.startswith("file://")
    assert copied.endswith("#beta=5&p_ref=0.001")
    page.locator("#copy-python").click()
    page.wait_for_function("document.querySelector('#status').textContent.startsWith('Python')")
    assert page.evaluate("navigator.clipboard.readText()") == page.locator("#python").inner_text()

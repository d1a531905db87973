"""The page as people use it: every control, the address, the keyboard, what it says, in a real browser."""

from __future__ import annotations

import math
import re
from urllib.parse import parse_qsl

import pytest

import grpo_dynamics as gd
from grpo_dynamics import explorer

from .conftest import plain
from .states import dynamics, states


def state(page):
    return page.evaluate("explorer.state()")


def settle(page):
    page.wait_for_function("explorer.settled()")


def headline(page) -> str:
    return page.locator("#verdict").inner_text()


def slide(page, key: str, place: float) -> None:
    """Move a slider as a pointer does: the value, then the event."""
    page.locator(f"#{key}-slider").evaluate(
        "(slider, place) => { slider.value = place; slider.dispatchEvent(new Event('input', { bubbles: true })); }",
        place,
    )


def write(page, key: str, text: str) -> None:
    page.locator(f"#{key}").fill(text)
    page.locator(f"#{key}").press("Enter")


# ---- the file --------------------------------------------------------------------------------------------------------


def test_one_file_that_needs_nothing_else():
    text = explorer.page()
    assert len(text.encode()) < 400_000
    assert not re.findall(r'(?:src|href)="(?!#)', text)  # links within the page only
    assert not re.findall(r"https?://(?!www\.w3\.org/2000/svg)", text)
    assert "@import" not in text
    assert "/* CSS */" not in text
    assert "/* JAVASCRIPT */" not in text


def test_one_scope_holds_each_name_once(monkeypatch):
    parts = {"js/a.js": 'import { b } from "./b.js";\nconst x = 1;\n', "js/b.js": "export const b = 1;\n"}
    monkeypatch.setattr(explorer, "_read", parts.__getitem__)
    assert explorer.script("a") == "// ---- b.js\nconst b = 1;\n\n// ---- a.js\nconst x = 1;\n"
    parts["js/b.js"] += "const x = 2;\n"
    with pytest.raises(ValueError, match=r"x must be declared in one module, got b\.js and a\.js"):
        explorer.script("a")


def test_it_opens_with_the_state_it_was_made_for(visit, tmp_path):
    page = visit()
    path = tmp_path / "own.html"
    path.write_text(explorer.page({"beta": 5.0, "p_ref": 1e-3, "variant": "two_kl", "alpha": 0.5}), encoding="utf-8")
    page.goto(path.as_uri())
    assert [state(page)[key] for key in ("beta", "p_ref", "variant", "alpha")] == [5, 1e-3, "two_kl", 0.5]
    page.goto(path.as_uri() + "#beta=2")
    assert (state(page)["beta"], state(page)["variant"]) == (2, "grpo")  # an address says all


# ---- what it says ----------------------------------------------------------------------------------------------------

SENTENCES = {
    "": ("Amplified from 0.20 to 0.68.", "Between p_ref = 0.00097 and 0.010 the low state oscillates."),
    "#group_size=inf": (
        "Amplified from 0.20 to 0.68.",
        "A second stable state at 1, for starts above 0.93 or below 0.065.",
    ),
    "#p0=0.05": ("Amplified from 0.050 to 1.", "A second stable state at 0.68, for starts between 0.065 and 0.93."),
    "#update=gradient": ("Amplified from 0.20 to 0.68.", "A second stable state at 1, for starts above 0.93."),
    "#beta=5&p_ref=0.01": (
        "Amplified from 0.010 to 0.031.",
        "Between p_ref = 7.0 × 10⁻⁵ and 0.0013 the low state oscillates.",
    ),
    "#beta=5&p_ref=0.001": ("Never settles: oscillates between 0.0023 and 0.059, with period 2.", "stable state at 1"),
    "#beta=10&p_ref=0.00001": ("with period 3.", "repels by overshooting"),
    "#beta=5&p_ref=0.0001&p0=0.1": ("Never settles: wanders without period", "A second stable state at 1"),
    "#beta=0.2&p_ref=0.8": ("Amplified from 0.80 to 1.", "Almost every other start ends there, too."),
    "#variant=mirror_grpo": ("Amplified from 0.20 to 1: nothing pulls back to the reference.", ""),
    "#update=gradient&kl=k1": ("Amplified from 0.20 to 1: this KL term does not pull.", ""),
    "#eps=0&beta=0.1": ("Amplified from 0.20 to 1: β is too small to hold it.", ""),
    "#beta=5&p_ref=0.2&p0=0.6": ("Falls from 0.60 to 0.28, still above the 0.20 of the reference.", ""),
    "#beta=1&p_ref=0.00001": (
        "Amplified from 1.0 × 10⁻⁵ to 1.",
        "repels by overshooting; it is stable above p_ref = 0.010.",
    ),
    "#beta=1&p_ref=0.95": (
        "Amplified from 0.95 to 1.",
        "Between p_ref = 0.010 and 0.26 there is a lower stable state.",
    ),
    "#variant=two_kl&alpha=0.5&beta=2": ("Amplified", "and 4.7 × 10⁻⁵ the low state is not stable."),
    "#eps=0&p0=0.95": (
        "Amplified from 0.95 to 1: the start is above the border at 0.93.",
        "A second stable state at 0.68",
    ),
    "#eps=0&p0=0.05": (
        "Amplified from 0.050 to 1: a step leads past the border at 0.93.",
        "A second stable state at 0.68",
    ),
    "#beta=100&eps=0&p0=0.9999999999": (
        "Amplified from 1 − 1.00 × 10⁻¹⁰ to 1: the start is above the border at 1 − 3.83 × 10⁻⁷.",
        "A second stable state at 0.20",
    ),
    "#p_ref=0.0001&p0=0.9996": ("Amplified from 1 − 4.00 × 10⁻⁴ to 1 − 10⁻¹³³.", "Almost every other start"),
    "#beta=100000&p0=0.5": ("Falls from 0.50 to 0.20.", ""),
    "#beta=100&update=gradient&p0=0.9999999999": ("Falls from 1 − 1.00 × 10⁻¹⁰ to 0.20.", ""),
    "#beta=100&p_ref=0.2&variant=dr_grpo": ("Practically unchanged, at 0.20.", ""),  # logit 0.2 + 1/100
}


@pytest.mark.parametrize("hash", SENTENCES)
def test_the_verdict(visit, hash):
    """The numbers are those of Figure 5 and of the theory: β=5, p_ref=.001 is the 2-cycle {0.0023380, 0.0587158}."""
    page = visit(hash)
    settle(page)
    first, more = SENTENCES[hash]
    assert first in plain(headline(page))
    assert more in plain(page.locator("#more").inner_text())


def test_starts_far_below_go_past_the_border(visit):
    """Ω of whitened rewards is even in the log-odds: what the start 0.9347 reaches, 1 − 0.9347 = 0.0653 reaches too."""
    groups = gd.FiniteGroup(64, eps=1e-5, eps_placement="variance", ddof=0)
    for hash, rule in (("", gd.grpo(1.0, 0.2)), ("#group_size=64", gd.Recursion(1.0, 0.2, groups))):
        page = visit(hash)
        settle(page)
        upper, lower = re.search(r"above (0\.\d+) or below (0\.\d+)\.", page.locator("#more").inner_text()).groups()
        middle, top = gd.fixed_points(rule).log_odds[[0, 2]]
        starts = (float(lower) - 0.002, float(lower) + 0.002, float(upper) - 0.01)
        ends = [float(gd.limit(rule, p0=p).log_odds) for p in starts]
        assert ends == pytest.approx([top, middle, middle])


def test_the_table_and_its_numbers(visit):
    page = visit()
    rows = [plain(row) for row in page.locator("#points tr").all_inner_texts()]
    assert [row.split("\t")[0] for row in rows] == ["▸ 0.6813", "0.9347", "1 − 10⁻¹³⁷"]
    assert [row.split("\t")[3] for row in rows] == ["stable", "unstable", "stable"]
    found = gd.fixed_points(gd.grpo(1.0, 0.2))
    for row, L, multiplier in zip(rows, found.log_odds, found.multiplier, strict=True):
        assert float(row.split("\t")[1].replace("−", "-")) == pytest.approx(L, abs=5e-5)
        if multiplier > 1e-3:
            assert float(row.split("\t")[2]) == pytest.approx(multiplier, rel=1e-3)
    page.evaluate("location.hash = '#eps=0&beta=0.1'")
    page.wait_for_function("document.querySelector('#points-table').hidden")
    assert "No fixed point below 1" in page.locator("#points-status").inner_text()


def test_numbers_near_0_and_1_are_told_apart(ask):
    words = [[plain(word) for word in pair] for pair in ask("words", [0.0, -9.0, 9.0, -40.0, 400.0])]
    assert words == [
        ["0.50", "0.5000"],
        ["0.00012", "1.23 × 10⁻⁴"],
        ["1", "1 − 1.23 × 10⁻⁴"],
        ["4.2 × 10⁻¹⁸", "4.25 × 10⁻¹⁸"],
        ["1", "1 − 10⁻¹⁷⁴"],
    ]
    assert [plain(word) for word in ask("factors", [-1.7361, 1 - 2e-7, 1.0, 1e-6 - 1, 0.0])] == [
        *("−1.736", "(1 − 2.0 × 10⁻⁷)", "1", "−(1 − 1.0 × 10⁻⁶)", "0"),
    ]


def test_python_that_reproduces_a_state(ask):
    """The code on the page, run here, has the dynamics that the page shows."""
    made = states(120, seed=20) + states(60, seed=21, update="gradient")
    for one in made:
        ran: dict[str, object] = {"print": lambda *values: None}
        exec(ask("snippet", one), ran)
        assert ran["dynamics"] == dynamics(one)


# ---- controls --------------------------------------------------------------------------------------------------------


def test_every_slider(visit):
    page = visit("#variant=two_kl&alpha=0.5")
    moves = {
        "beta": (math.log10(2.0), 2),
        "p_ref": (0.0, 0.5),
        "p0": (-2.0, 0.119),
        "eps": (-3.0, 1e-3),
        "alpha": (0.25, 0.25),
        "group_size": (4, 6),
    }
    for key, (place, expected) in moves.items():
        before = headline(page), page.locator("#trajectory").inner_html()
        slide(page, key, place)
        assert state(page)[key] == pytest.approx(expected, rel=1e-2)
        shown = page.locator(f"#{key}").input_value()
        assert shown == page.locator(f"#{key}-slider").get_attribute("aria-valuetext")
        assert (headline(page), page.locator("#trajectory").inner_html()) != before
    slide(page, "eps", -10)
    assert state(page)["eps"] == 0
    slide(page, "group_size", 99)
    assert state(page)["group_size"] == math.inf
    assert page.locator("#group_size").input_value() == "∞"


def test_the_picture_is_that_of_the_state(visit):
    """Read back from the cobweb: where the fixed points are drawn, on the axis whose ticks say where p = 0.5 is."""
    page = visit()
    places = page.evaluate("""() => {
      const all = (what) => [...document.querySelectorAll(`#cobweb ${what}`)];
      const labels = all('.axes text').filter((text) => text.getAttribute('text-anchor') === 'middle');
      const ticks = Object.fromEntries(labels.map((text) => [text.textContent, Number(text.getAttribute('x'))]));
      return { ticks, dots: all('circle:not(.start)').map((dot) => Number(dot.getAttribute('cx'))) };
    }""")
    ticks, dots = places["ticks"], sorted(places["dots"])
    scale = (ticks["0.9"] - ticks["0.5"]) / gd.logit(0.9)
    exact = gd.fixed_points(gd.grpo(1.0, 0.2)).log_odds[:2]
    assert [(dot - ticks["0.5"]) / scale for dot in dots] == pytest.approx(exact, abs=0.02)


def test_every_field_takes_numbers_and_refuses_others(visit):
    page = visit("#variant=two_kl&alpha=0.5")
    good = {"beta": "3.5", "p_ref": "0.37", "p0": ".25", "eps": "2e-4", "alpha": "0.125", "group_size": "12"}
    for key, text in good.items():
        write(page, key, text)
        assert state(page)[key] == float(text)
    bad = {"beta": "-1", "p_ref": "1.5", "p0": "x", "eps": "-1e-3", "alpha": "2", "group_size": "1"}
    for key, text in bad.items():
        write(page, key, text)
        said = page.locator("#messages").inner_text()
        assert re.match(rf'{key} must be .*, got "{re.escape(text)}": nothing has changed\.', said)
        assert page.locator(f"#{key}").get_attribute("aria-invalid") == "true"
        assert state(page)[key] == float(good[key])
    write(page, "beta", "1e-7")  # beyond the slider's end, not beyond the theory
    assert state(page)["beta"] == 1e-7
    assert page.locator("#messages").inner_text() == ""
    write(page, "group_size", "inf")
    assert state(page)["group_size"] == math.inf
    write(page, "p0", "")
    assert state(page)["p0"] is None


def test_every_list(visit):
    page = visit()
    for variant in ("dr_grpo", "mirror_grpo", "mirror_dr_grpo", "two_kl", "two_kl_dr_grpo", "grpo"):
        page.select_option("#variant", variant)
        assert state(page)["variant"] == variant
        assert page.locator("#alpha-field").is_visible() == variant.startswith("two_kl")
        assert page.locator("#eps-field").is_visible() == ("dr_" not in variant)
    assert not page.locator("#kl-field").is_visible()
    page.select_option("#variant", "mirror_dr_grpo")
    page.select_option("#update", "gradient")  # small steps have no anchor on the last policy
    assert (state(page)["update"], state(page)["variant"]) == ("gradient", "dr_grpo")
    page.select_option("#variant", "grpo")
    for kl in ("exact", "k1", "k2", "k3", "k1_in_reward", "k1_times_ratio", "k3_times_ratio", "none"):
        page.select_option("#kl", kl)
        assert state(page)["kl"] == kl
        assert page.locator("#beta").is_disabled() == (kl in ("k1", "none"))
    page.select_option("#kl", "k3")
    write(page, "group_size", "8")
    page.locator("#details summary").click()
    for key, value in {"eps_placement": "std", "ddof": "1", "silent_groups": "drop_with_kl"}.items():
        page.select_option(f"#{key}", value)
        assert str(state(page)[key]) == value
    page.select_option("#kl", "k2")  # only with k3 is the answer known where silent groups take their KL with them
    assert state(page)["silent_groups"] == "keep"


def test_the_start(visit):
    page = visit()
    page.locator("#cobweb").scroll_into_view_if_needed()
    box = page.locator("#cobweb").bounding_box()
    page.mouse.click(box["x"] + 0.8 * box["width"], box["y"] + 100)
    assert 0.5 < state(page)["p0"] < 0.97
    page.locator("#same-start").click()
    assert state(page)["p0"] is None
    assert not page.locator("#same-start").is_visible()


def test_the_map_takes_a_click(visit):
    page = visit()
    settle(page)
    page.locator("#phase").scroll_into_view_if_needed()
    box = page.locator("#phase").bounding_box()
    page.mouse.click(box["x"] + 120, box["y"] + 100)
    assert state(page)["p_ref"] < 0.2
    assert state(page)["beta"] > 1
    mark = page.locator("#phase .here circle")
    assert float(mark.get_attribute("cx")) == pytest.approx(120, abs=2)  # p_ref and β are rounded to three digits
    assert float(mark.get_attribute("cy")) == pytest.approx(100, abs=2)


def test_the_map_follows_the_settings(visit):
    """In the paper's setting part of the map oscillates; with groups of 4 only p_ref below 1e-16 does, off the map."""
    assert gd.flip_curve(gd.FiniteGroup(4, 1e-5, "variance")).log_odds_ref.max() < -38
    page = visit()
    settle(page)
    colours = """() => {
      const shown = document.querySelector('#phase-canvas');
      const canvas = new OffscreenCanvas(shown.width, shown.height);
      canvas.getContext('2d').drawImage(shown, 0, 0);
      const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
      const found = new Set();
      for (let i = 0; i < data.length; i += 4) found.add(data.slice(i, i + 3).join());
      return [...found].filter((rgb) => ['247,213,139', '221,119,89'].includes(rgb));
    }"""
    assert len(page.evaluate(colours)) == 2
    page.evaluate("""() => {
      const shown = document.querySelector('#phase-canvas');
      window.widths = [];
      new MutationObserver(() => widths.push(shown.width)).observe(shown, { attributeFilter: ['width'] });
    }""")
    slide(page, "group_size", 2)
    settle(page)
    widths = page.evaluate("widths")
    assert widths[0] == 60 < widths[-1]  # a coarse one at once, then the fine one
    assert page.evaluate(colours) == []
    assert state(page)["group_size"] == 4


def test_examples(visit):
    page = visit()
    for link in page.locator("nav a").all():
        link.click()
        wanted = dict(parse_qsl(link.get_attribute("href")[1:]))
        page.wait_for_function(
            "wanted => Object.entries(wanted).every(([key, text]) => explorer.state()[key] === (Number(text) || text))",
            arg=wanted,
        )
        assert page.locator("#messages").inner_text() == ""
        assert headline(page) != ""


def test_light_and_dark(visit):
    page = visit(color_scheme="dark")
    paper = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(paper)
    assert page.locator("#theme").inner_text() == "Light"
    page.locator("#theme").click()
    light = page.evaluate(paper)
    assert (dark, light) == ("rgb(22, 24, 27)", "rgb(250, 249, 246)")
    assert page.locator("#theme").inner_text() == "Dark"
    page.reload()
    assert page.evaluate(paper) == light  # what was chosen stays


# ---- the address -----------------------------------------------------------------------------------------------------


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
    page.wait_for_function("location.hash.includes('beta=5')")
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


# ---- keyboard and small screens --------------------------------------------------------------------------------------


def test_the_keyboard_reaches_and_moves_everything(visit):
    page = visit()
    wanted = {"copy-link", "theme", "beta", "beta-slider", "p_ref", "p_ref-slider", "p0", "p0-slider", "group_size"}
    wanted |= {"group_size-slider", "eps", "eps-slider", "variant", "update", "trainer", "copy-python"}
    reached = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id"))
        ring = "getComputedStyle(document.activeElement).outlineStyle"
        assert page.evaluate("document.activeElement === document.body") or page.evaluate(ring) != "none"
    assert wanted <= reached
    page.locator("#beta-slider").focus()
    page.keyboard.press("ArrowRight")
    assert state(page)["beta"] == pytest.approx(10**0.01, rel=1e-2)
    page.keyboard.press("Home")
    assert state(page)["beta"] == 1e-3
    page.locator("#variant").focus()
    page.keyboard.press("ArrowDown")
    assert state(page)["variant"] == "dr_grpo"


@pytest.mark.parametrize("width", [320, 375, 768, 1280])
def test_nothing_is_wider_than_the_screen(visit, width):
    page = visit("#trainer=open-instruct-2026.8.20&p_ref=0.2", width=width, height=740)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for id in ("cobweb", "trajectory", "phase"):
        box = page.locator(f"#{id}").bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width


def test_it_works_in_a_frame(visit, file):
    """As the documentation shows it: in a page of its own folder."""
    page = visit()
    outer = file.with_name("outer.html")
    outer.write_text(f'<!doctype html><title>x</title><iframe src="{file.name}" width="900" height="700"></iframe>')
    page.goto(outer.as_uri())
    frame = page.frames[1]
    frame.wait_for_function("window.explorer && explorer.settled()")
    assert frame.locator("#verdict").inner_text() == "Amplified from 0.20 to 0.68."


# ---- anything goes ---------------------------------------------------------------------------------------------------


def test_no_state_breaks_the_page(visit):
    """Random and extreme states one after another: sentences and pictures of numbers, never NaN or undefined."""
    page = visit()
    made = states(60, seed=30, largest=1024) + states(40, seed=31, update="gradient", largest=1024)
    edges = [
        *(
            "beta=1e-300",
            "beta=1e300",
            "beta=5e-324",
            "p_ref=1e-300",
            "p_ref=0.9999999999999999",
            "eps=1e300&beta=1e-9",
        ),
        *("eps=1e-300&beta=1e-9", "eps=0&beta=1e-9", "eps=0&beta=1e9&p_ref=1e-9", "group_size=2&silent_groups=drop"),
        *(
            "group_size=1024&silent_groups=drop&eps=0&beta=2&p_ref=1e-4",
            "variant=two_kl&alpha=0",
            "variant=two_kl&alpha=1",
        ),
        *(
            "variant=two_kl&alpha=1e-12",
            "update=gradient&kl=k3&p_ref=1e-12&beta=1e-6",
            "p0=1e-300&beta=3",
            "p0=0.999999",
        ),
        *("update=gradient&kl=k3&beta=1e9", "update=gradient&kl=k3&p0=1e-12", "update=gradient&beta=1e-9&eps=0"),
    ]
    addresses = [page.evaluate("explorer.address", one) for one in made] + [f"#{edge}" for edge in edges]
    for address in addresses:
        page.evaluate("hash => { location.hash = hash; }", address)
        page.wait_for_timeout(15)
        text = page.locator("main").inner_text()
        assert not re.search("NaN|undefined|null|Infinity|∞ and", text), (address, text)
        drawn = page.evaluate(
            "['cobweb', 'trajectory', 'phase'].map((id) => document.getElementById(id).innerHTML).join()"
        )
        assert not re.search("NaN|undefined|Infinity", drawn), address
        assert re.match("Amplified|Falls|Practically|Never|Not settled", headline(page)), address

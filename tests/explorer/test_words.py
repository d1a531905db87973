"""What the page says: the sentence, the table, the numbers, and the Python that it offers."""

from __future__ import annotations

import re

import pytest

import grpo_dynamics as gd

from .conftest import plain
from .hands import headline, settle
from .states import dynamics, states

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

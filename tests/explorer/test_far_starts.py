"""Starts far off: they are in the pictures, which reach as far as most of the way, and take no time."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import grpo_dynamics as gd

FAR = "#beta=100&eps=0&p0=0.9999999999"


@pytest.mark.parametrize("hash", [FAR, f"{FAR}&update=gradient", "#p0=1e-30", "#p0=0.9999999999999999"])
def test_a_start_far_off_is_in_the_pictures(visit, hash):
    page = visit(hash, width=360)
    inside = page.evaluate("""() => {
      const edges = document.querySelector('#trajectory clipPath rect').getBBox();
      const first = document.querySelector('#trajectory .orbit').getAttribute('d').match(/[\\d.]+/g).map(Number);
      const dot = document.querySelector('#cobweb .start');
      return [first[1] > edges.y && first[1] < edges.y + edges.height, dot !== null];
    }""")
    assert inside == [True, True]
    labels = page.locator("#cobweb .axes text[text-anchor=middle]").evaluate_all(
        "all => all.map((one) => one.getBoundingClientRect()).map(({ left, right }) => [left, right])"
    )
    assert len(labels) > 2
    assert all(right < left for (_, right), (left, _) in itertools.pairwise(sorted(labels)))
    field = page.locator("#p0")
    assert field.evaluate("one => one.scrollWidth <= one.clientWidth")  # every digit is in view
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_the_time_shown_is_that_of_the_way(visit):
    """From 0.95 up: until p is past 0.999, at the time that the package's integration says; and all the way down."""
    page = visit("#update=gradient&p0=0.95")
    time, end = page.evaluate("explorer.found().path.at(-1)")
    assert 7 < end < 9
    assert end == pytest.approx(float(gd.Flow(1.0, 0.2, gd.Whitened(1e-5)).integrate([time], p0=0.95).log_odds[-1]))
    page = visit("#beta=100&update=gradient&p0=0.9999999999")
    assert page.evaluate("explorer.found().path.at(-1)")[1] == pytest.approx(gd.logit(0.204), abs=1e-3)
    assert page.evaluate("explorer.milliseconds") < 1000  # it took 4,000 to stay there step by step


def test_a_click_far_out_is_a_probability(ask):
    places = [-13.8, -1.0, 0.5, 6.9, 20.0, 30.0, 36.0, 39.0, 60.0]
    rounded = ask("rounded", places)
    assert all(0 < p < 1 for p in rounded)
    assert gd.logit(np.array(rounded[:7])) == pytest.approx(places[:7], abs=0.25)
    assert rounded[3] == 0.99899

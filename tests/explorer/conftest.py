"""A real headless Chromium, Debian's or any other on the path, through Playwright; without one, tests are skipped."""

from __future__ import annotations

import os
import shutil

import pytest

from grpo_dynamics import explorer

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

# what the arithmetic is asked for, of a list of states
LIBRARY = """
globalThis.ask = {
  fixed: (states) => states.map((state) => fixedPoints(dynamicsOf(state).dynamics)),
  steps: (states, places) => states.map((state, i) => dynamicsOf(state).dynamics.step(places[i])),
  multipliers: (states, places) => states.map((state, i) => dynamicsOf(state).dynamics.multiplier(places[i])),
  rates: (states, places) => states.map((state, i) => dynamicsOf(state).dynamics.rate(places[i])),
  paths: (states, starts, times) => states.map((state, i) => integrate(dynamicsOf(state).dynamics, starts[i], times)),
  orbits: (states, starts, n) => states.map((state, i) => iterate(dynamicsOf(state).dynamics, starts[i], n)),
  limits: (states) => states.map(dynamicsOf).map(({ dynamics, start }) => limit(dynamics, start)),
  attractors: (states) => states.map((state) => finish(attractorsInParts(dynamicsOf(state).dynamics))),
  thresholds: (states) => states.map((state) => thresholds(dynamicsOf(state).dynamics)),
  folds: (states, strengths) => states.map((state, i) => normalizationOf(state).folds(strengths[i])),
  plane: (state, width, height) => {
    const { dynamics } = dynamicsOf(state);
    const plane = regions({ ...dynamics, normalization: tabulated(dynamics.normalization) }, width, height);
    while (plane.waiting.length) decide(plane, plane.waiting.pop());
    return { anchors: plane.anchors, betas: plane.betas, label: [...plane.label], share: [...plane.share] };
  },
  read: (hash, presets) => readHash(hash, presets),
  write: (state) => writeHash(state),
  preset: (preset, change) => ({ ...withPreset(defaults(), preset), ...change }),
  defaults,
  words: (logOdds) => logOdds.map((L) => [short(L), exact(L)]),
  factors: (values) => values.map(factor),
  along: (states) => states.map((state) => boundaries(evaluate(state))),
  rounded: (logOdds) => logOdds.map(roundedProbability),
  snippet,
};
"""


def plain(text: str) -> str:
    """Return a text with ordinary blanks: in a number they keep it on one line."""
    return text.replace("\u00a0", " ")


@pytest.fixture(scope="module")
def chromium():
    """A browser. One for each module: as long as it is open, so is an event loop, and other tests start their own."""
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: no browser to drive")
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip("no Chromium on the path (Debian: apt install chromium)")
    root = hasattr(os, "geteuid") and os.geteuid() == 0  # Chromium's sandbox refuses root
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=path, args=["--no-sandbox"] if root else [])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def ask(chromium):
    """Call the explorer's arithmetic in the browser: the same script as in the page, without its pictures."""
    page = chromium.new_page()
    page.goto("about:blank")
    page.add_script_tag(content=explorer.script("evaluate", "table", "plane", "words", "controls") + LIBRARY)

    def call(name, *arguments):
        return page.evaluate("([name, given]) => ask[name](...given)", [name, list(arguments)])

    yield call
    page.close()


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """The page on disk."""
    path = tmp_path_factory.mktemp("explorer") / "explorer.html"
    path.write_text(explorer.page(), encoding="utf-8")
    return path


@pytest.fixture
def visit(chromium, file):
    """Open the page at an address; whatever it writes to the console fails the test."""
    contexts, complaints = [], []

    def open_page(hash="", width=1280, height=900, **options):
        context = chromium.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "request", lambda request: complaints.append(request.url) if not request.url.startswith("file:") else None
        )
        page.goto(file.as_uri() + hash)
        page.wait_for_function("window.explorer && explorer.found()")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []

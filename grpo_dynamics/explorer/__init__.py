"""The explorer: one HTML page that computes and draws the dynamics in the browser, without a network.

The page is put together here from its parts: ``page.html``, ``page.css``, the modules under ``js`` in the order in
which they import one another, the presets of the trainers, and the state that it opens with.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from grpo_dynamics.explorer.state import fragment, state_of
from grpo_dynamics.explorer.trainers import presets

__all__ = ["fragment", "page", "presets", "state_of"]

IMPORT = re.compile(r'^import \{[^}]*\} from "\./(\w+)\.js";\n', re.MULTILINE)
DECLARED = re.compile(r"^(?:async )?(?:function\*?|const|let) (\w+)", re.MULTILINE)


def page(state: Mapping[str, Any] | None = None) -> str:
    """Return the page as one HTML document.

    Args:
        state: the settings that it opens with, as :func:`fragment` takes them, unless its address says others; the
            page's own defaults where left out.

    >>> page({"beta": 1.0, "p_ref": 0.2}).count("<script")
    4
    """
    from grpo_dynamics import __version__

    parts = {
        "/* CSS */": _read("page.css"),
        "<!-- VERSION -->": __version__,
        "<!-- STATE -->": fragment(state or {}),
        "/* PRESETS */": json.dumps(presets(), ensure_ascii=False, allow_nan=False).replace("</", "<\\/"),
        "/* JAVASCRIPT */": script("app"),
    }
    text = _read("page.html")
    for place, part in parts.items():
        text = text.replace(place, part)
    return text


def script(*names: str) -> str:
    """Return the named modules, and all that they import, as one script: without imports and exports, in one scope.

    Raises:
        ValueError: where two modules declare the same name, as one scope cannot hold both.
    """
    ordered: dict[str, str] = {}
    for name in names:
        _collect(name, ordered)
    owner: dict[str, str] = {}
    for module, text in ordered.items():
        for declared in DECLARED.findall(text):
            if owner.setdefault(declared, module) != module:
                raise ValueError(f"{declared} must be declared in one module, got {owner[declared]}.js and {module}.js")
    return "\n".join(f"// ---- {module}.js\n{text}" for module, text in ordered.items())


def _collect(name: str, ordered: dict[str, str]) -> None:
    """Add a module after those that it imports."""
    if name in ordered:
        return
    text = _read(f"js/{name}.js")
    for imported in IMPORT.findall(text):
        _collect(imported, ordered)
    ordered[name] = re.sub(r"^export ", "", IMPORT.sub("", text), flags=re.MULTILINE)


def _read(name: str) -> str:
    return files(__package__ or __name__).joinpath(name).read_text(encoding="utf-8")

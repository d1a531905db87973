"""Every notebook and every page with code runs top to bottom; a failure shows which cell and which assertion."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent / "docs"
PAGES = sorted(
    path
    for path in [*DOCS.glob("*.md"), *DOCS.glob("notebooks/*.md")]
    if "{code-cell}" in path.read_text(encoding="utf-8")
)

# Runs the code cells of a MyST notebook in one namespace, as Jupyter would; its magics only set up pictures.
RUNNER = """
import linecache, sys, traceback
import jupytext
import matplotlib

matplotlib.use("Agg")
page = sys.argv[1]
namespace = {"__name__": "__main__", "display": print}
cells = [cell for cell in jupytext.read(page, fmt="md:myst").cells if cell.cell_type == "code"]
assert cells, "no code cells"
for number, cell in enumerate(cells, 1):
    code = "\\n".join("" if line.startswith("%") else line for line in cell.source.splitlines())
    name = f"<{page}, code cell {number} of {len(cells)}>"
    linecache.cache[name] = (len(code), None, code.splitlines(keepends=True), name)
    try:
        exec(compile(code, name, "exec"), namespace)
    except BaseException:
        traceback.print_exc()
        print(f"\\ncode cell {number} of {len(cells)} of {page} failed:\\n\\n{cell.source}", file=sys.stderr)
        sys.exit(1)
print(len(cells), "cells")
"""


def run(page: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", RUNNER, str(page)]
    environment = {**os.environ, "PYTHONUTF8": "1"}
    return subprocess.run(
        command, cwd=page.parent, env=environment, capture_output=True, text=True, encoding="utf-8", check=False
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_runs_top_to_bottom(page: Path) -> None:
    done = run(page)
    assert done.returncode == 0, f"\n{done.stderr}"


def test_there_are_notebooks() -> None:
    assert {page.stem for page in PAGES} >= {"choose_beta", "read_a_run"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_opens_as_an_ordinary_notebook(page: Path) -> None:
    """Jupytext writes .ipynb from it and finds the same cells in that again."""
    import jupytext
    import nbformat

    notebook = jupytext.read(page, fmt="md:myst")
    nbformat.validate(notebook)
    assert notebook.metadata["kernelspec"]["name"] == "python3"
    again = jupytext.reads(jupytext.writes(notebook, fmt="ipynb"), fmt="ipynb")
    assert [cell.source for cell in again.cells] == [cell.source for cell in notebook.cells]


def test_a_failure_names_the_cell_and_the_assertion(tmp_path: Path) -> None:
    page = tmp_path / "wrong.md"
    kernel = "kernelspec:\n  display_name: Python 3\n  name: python3\n"
    head = f"---\njupytext:\n  text_representation:\n    format_name: myst\n{kernel}---\n\n"
    cell = "```{{code-cell}} ipython3\n{}\n```\n\n"
    page.write_text(head + cell.format("x = 1") + "words\n\n" + cell.format("y = 2\nassert x == y, 'one is not two'"))
    done = run(page)
    assert done.returncode == 1
    assert "code cell 2 of 2" in done.stderr
    assert "assert x == y, 'one is not two'" in done.stderr
    assert "AssertionError: one is not two" in done.stderr
    assert "line 2" in done.stderr

"""Sphinx: the pages of docs/, the notebooks executed, the API from the docstrings. No network: MathJax is local."""

from __future__ import annotations

import logging
import os
import re
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import generate
import grpo_dynamics
from grpo_dynamics import __version__
from docutils import nodes

project = "grpo_dynamics"
author = "The grpo_dynamics authors"
copyright = "the grpo_dynamics authors, Apache-2.0"
release = version = __version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinx-mathjax-offline",
    "sphinxcontrib.bibtex",
    "sphinx_copybutton",
]
exclude_patterns = ["_build", "_generated", "gallery/*.table.md", "**/.ipynb_checkpoints"]
nitpicky = True

# Pages
myst_enable_extensions = ["amsmath", "attrs_block", "attrs_inline", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
suppress_warnings = ["mystnb.unknown_mime_type"]
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
bibtex_bibfiles = ["references.bib"]
bibtex_default_style = "unsrt"

# Notebooks: run anew in every build, because a cache would not see that the package has changed.
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 240
nb_execution_show_tb = True
nb_merge_streams = True
# Kernels of their own configuration: not the reader's, and silent about running on this machine only.
profile = HERE / "_generated" / "ipython" / "profile_default"
profile.mkdir(parents=True, exist_ok=True)
(profile / "ipython_kernel_config.py").write_text("c.IPKernelApp.log_level = 40\n")
os.environ["IPYTHONDIR"] = str(profile.parent)
logging.getLogger("traitlets").setLevel(logging.WARNING)

# API
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True}
autodoc_mock_imports: list[str] = []
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_custom_sections = [("Attributes", "params_style")]  # a list in which one line may name several
python_maximum_signature_line_length = 88
# Types of other packages, whose pages are not reachable without a network; every other reference must lead somewhere.
nitpick_ignore_regex = [(r"py:class", r".*"), (r"py:data", r"FIGURES"), (r"py:obj", r"typing\.Literal.*")]

# Look
html_theme = "furo"
html_title = "grpo_dynamics"
html_static_path = ["_static"]
html_extra_path = ["_generated/pages"]  # the explorer, which generate.py puts together
html_css_files = ["grpo_dynamics.css"]
html_show_sphinx = False
html_copy_source = False
html_theme_options: dict[str, Any] = {"navigation_with_keys": True, "top_of_page_buttons": []}


def escape_mathematics(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Docstrings write |x| and shape (n, *batch), which reStructuredText would read as markup."""
    lines[:] = [
        line if line.lstrip().startswith((">>>", "...")) else re.sub(r"\||(?<!\*)\*(?=[\w.]+[,)])", r"\\\g<0>", line)
        for line in lines
    ]


def hide_colons(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Napoleon takes what stands before a colon in the docstring of a constant for its type; here it is a sentence."""
    if what in ("data", "attribute") and lines:
        lines[0] = lines[0].replace(":", "\0")


def show_colons(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Undo :func:`hide_colons`, after Napoleon."""
    lines[:] = [line.replace("\0", ":") for line in lines]


def link_public_names(app: Any, env: Any, node: Any, contnode: Any) -> Any:
    """Docstrings name what is public, as in grpo_dynamics.Flow; its entry stands under the module that defines it."""
    package, _, name = node.get("reftarget", "").partition(".")
    found = getattr(grpo_dynamics, name, None) if package == "grpo_dynamics" and name in grpo_dynamics.__all__ else None
    if not callable(found):
        return None
    target = f"{found.__module__}.{found.__qualname__}"
    domain = env.get_domain("py")
    return domain.resolve_xref(env, node["refdoc"], app.builder, node["reftype"], target, node, contnode)


def trim_examples(app: Any, tree: nodes.document) -> None:
    """Doctest wants an empty line after the last output in a Markdown block; readers do not."""
    for block in tree.findall(nodes.literal_block):
        if block.rawsource == block.astext():  # else it holds markup
            block.rawsource = block.astext().rstrip("\n")
            block[:] = [nodes.Text(block.rawsource)]


def setup(app: Any) -> None:
    """Make the pages that are computed, before Sphinx looks for pages."""
    generate.everything(HERE)
    app.connect("autodoc-process-docstring", hide_colons, priority=400)  # Napoleon's is 500
    app.connect("autodoc-process-docstring", escape_mathematics)
    app.connect("autodoc-process-docstring", show_colons, priority=600)
    app.connect("doctree-read", trim_examples)
    app.connect("missing-reference", link_public_names)

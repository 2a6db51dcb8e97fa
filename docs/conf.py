"""How the documents are built: ``scripts/docs.sh``."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

_HERE = Path(__file__).parent
sys.path.insert(0, str(_HERE))
# What the help of the command says, on every machine alike.
os.environ.update(TVM_SPHINX_HOME="~/.cache/tvm-sphinx", COLUMNS="100", NO_COLOR="1")

from command_help import write_command_help

import tvm_sphinx

project = "tvm-sphinx"
author = "The tvm-sphinx contributors"
release = version = tvm_sphinx.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "myst_parser",
    "sphinx_gallery.gen_gallery",
]
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3
# Names in single backticks, as docstrings have them, are links where there is something to link to.
default_role = "obj"
autosummary_generate = True
autodoc_typehints = "none"
numpydoc_show_class_members = False
exclude_patterns = ["_build"]
smartquotes = False  # or options lose a dash
html_theme = "furo"
html_title = f"tvm-sphinx {release}"
html_show_copyright = False  # CITATION.cff and LICENSE have it
html_static_path = ["static"]
html_css_files = ["wide.css"]

write_command_help(_HERE / "_build" / "help.md")

# The tutorials run in a folder where they may write, and only where that is asked for.
_SOURCE = _HERE / "_build" / "tutorials"
shutil.rmtree(_SOURCE, ignore_errors=True)
shutil.copytree(_HERE.parent / "tutorials", _SOURCE)
sphinx_gallery_conf: dict[str, Any] = {
    "examples_dirs": str(_SOURCE),
    "gallery_dirs": "tutorials",
    "filename_pattern": r"/\d\d_",
    "plot_gallery": os.environ.get("RUN_TUTORIALS", "0") == "1",
    "image_scrapers": ("gallery",),
    "within_subsection_order": "gallery.by_file_name",
    "reset_modules": (),
    "download_all_examples": False,
    "show_memory": False,
    "capture_repr": (),
}

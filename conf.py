"""Sphinx configuration of the book. Run through ``make html``; the source folder is ``book/``."""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / "src"))
# Processes that scripts start find the helpers too.
os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])])

# On a machine without a C++ compiler, `make` put one into the environment; any other on the PATH comes first.
os.environ["PATH"] = os.pathsep.join([os.environ.get("PATH", os.defpath), str(Path(sys.executable).parent)])

project = "TVM Deep Dive"
author = "The TVM Deep Dive authors"
project_copyright = "the TVM Deep Dive authors, Apache License 2.0"
language = "en"

extensions = [
    "myst_parser",
    "sphinx_design",
    "sphinx_copybutton",
    "sphinx_exercise",
    "sphinx_gallery.gen_gallery",
    "tvm_deepdive_helpers.sphinxext",
]
exclude_patterns = ["_data/**", "gallery/**/*.md5", "gallery/**/images/**"]
locale_dirs = ["locale"]
gettext_uuid = False
gettext_compact = False
numfig = True
nitpicky = True
# sphinx-gallery warns of spaces in the whole path of a script; the book may stand in such a folder, and `make lint`
# checks the names of the scripts.
suppress_warnings = ["config.cache", "sphinx_gallery.space_in_filename"]

# MyST: only what the vocabulary needs.
myst_enable_extensions = ["colon_fence", "dollarmath", "deflist"]
myst_heading_anchors = 3

# sphinx-gallery renders the pages of the scripts; tvm_deepdive_helpers.sphinxext.gallery_run runs them.
sphinx_gallery_conf = {
    "examples_dirs": "../gallery",
    "gallery_dirs": "gallery",
    "filename_pattern": r"\.py$",
    "ignore_pattern": r"(__init__|conftest)\.py$",
    "within_subsection_order": "FileNameSortKey",
    "nested_sections": True,
    "image_scrapers": ("tvm_deepdive_helpers.sphinxext.scraper.scraper",),
    "capture_repr": (),
    "remove_config_comments": True,
    "write_computation_times": False,
    "min_reported_time": 1e9,
    "download_all_examples": False,
    "show_memory": False,
    "show_signature": False,
    "reset_modules": (),
}

# The text of a figure or cell that is copied has no prompt; outputs have no copy button.
copybutton_selector = "div.cell-code pre, div.highlight-console pre, div.highlight-python pre"

html_theme = "sphinx_book_theme"
html_title = project
html_static_path = ["book/_static"]
html_css_files = ["book.css"]
html_copy_source = False
html_show_sourcelink = False
html_context = {"default_mode": "auto"}
html_theme_options = {
    "show_navbar_depth": 1,
    "show_toc_level": 2,
    "use_download_button": False,
    "navbar_start": [],
    "navbar_center": [],
    "navbar_end": [],
    "navbar_persistent": [],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}

latex_engine = "xelatex"
latex_elements = {"sphinxsetup": "verbatimforcewraps=true"}

"""Sphinx configuration of the book. Run through ``make html``; the source folder is ``book/``."""

import os
import re
import sys
import tomllib
from pathlib import Path
from urllib.parse import urlsplit

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
# The editions, and their names in their own language; `make html` builds all, side by side.
tvm_editions = {"en": "English", "zh_CN": "简体中文"}

extensions = [
    "myst_parser",
    "sphinx_design",
    "sphinx_copybutton",
    "sphinx_exercise",
    "sphinx_gallery.gen_gallery",
    "sphinxcontrib.bibtex",
    "tvm_deepdive_helpers.sphinxext",
    "notfound.extension",
    "sphinx_reredirects",
]
exclude_patterns = ["_data/**", "gallery/**/*.md5", "gallery/**/images/**"]
locale_dirs = ["locale"]
gettext_uuid = False
gettext_compact = False
gettext_additional_targets = ["index"]
# Quotation marks are typographic in all editions: a Chinese one has pages in English.
smartquotes_excludes = {"languages": [], "builders": ["man", "text"]}
numfig = True
nitpicky = True
# sphinx-gallery warns of spaces in the whole path of a script; the book may stand in such a folder, and `make lint`
# checks the names of the scripts.
suppress_warnings = ["config.cache", "sphinx_gallery.space_in_filename"]
# The printed book has no pages of scripts: they repeat what the chapters show (`make pdf` sets the tag).
if tags.has("print"):  # noqa: F821 - Sphinx defines it
    exclude_patterns += ["gallery/**"]
    version = "0.1"  # an EPUB must say one

# MyST: only what the vocabulary needs.
myst_enable_extensions = ["colon_fence", "dollarmath", "deflist"]
myst_heading_anchors = 3

# The bibliography; tvm_deepdive_helpers.sphinxext.bibliography has the style.
bibtex_bibfiles = ["gallery/data/references.bib"]
bibtex_default_style = "book"
bibtex_tooltips = False

# `make links` asks every address; a scheduled job does it, the build never. Publishers that turn
# programs away are not asked.
linkcheck_timeout = 30
linkcheck_retries = 2
linkcheck_workers = 5
linkcheck_anchors = False
linkcheck_ignore = [
    r"https://github\.com/apache/tvm(-ffi)?/blob/",  # thousands of citations, each looked up by the build
    r"https://doi\.org/10\.(1145|1109|34133)/",
    r"https://(dl\.acm|ieeexplore\.ieee)\.org/",
    r"https://openai\.com/",
]

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
templates_path = ["book/_templates"]
html_favicon = "book/_static/favicon.svg"
html_math_renderer = "mathml"
html_scaled_image_link = False
html_static_path = ["book/_static"]
html_css_files = ["book.css", "languages.css"]
html_copy_source = False
html_show_sourcelink = False
html_sidebars = {"**": ["navbar-logo.html", "icon-links.html", "search-button-field.html", "navbar-nav.html"]}
html_context = {"default_mode": "auto"}
html_theme_options = {
    "show_navbar_depth": 1,
    "show_toc_level": 2,
    "use_download_button": False,
    "use_fullscreen_button": False,
    "footer_content_items": ["copyright", "last-updated", "page-forms"],
    "article_header_end": ["language-switch.html", "article-header-buttons.html"],
    "navbar_start": [],
    "navbar_center": [],
    "navbar_end": [],
    "navbar_persistent": [],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}

# Where the book is published, if it is: BOOK_URL=https://example.org/tvm-deep-dive/en/ make html. Only then are there a
# site map, canonical addresses and pictures for links in other sites (drawn here, with a font that comes along). The
# other editions lie beside it. What 404.html says stands in tvm_deepdive_helpers.sphinxext.editions.
html_baseurl = os.environ.get("BOOK_URL", "")
notfound_urls_prefix = (urlsplit(html_baseurl).path if html_baseurl else "/") or "/"
if html_baseurl:
    html_context["published"] = True
    extensions += ["sphinx_sitemap", "sphinxext.opengraph"]
    sitemap_url_scheme = "{link}"
    sitemap_excludes = ["404.html", "search.html", "genindex.html"]
    ogp_site_url = html_baseurl
    ogp_social_cards = {"site_url": urlsplit(html_baseurl).netloc, "line_color": "#19437e"}
_moved = tomllib.loads((ROOT / "book/_data/redirects.toml").read_text(encoding="utf-8"))["moved"]
redirects = {old: os.path.relpath(new, Path(old).parent) + ".html" for old, new in _moved.items()}

# EPUB: `make epub` (tvm_deepdive_helpers.maintain.epub) runs this builder, and epubcheck.
epub_basename = "tvm-deep-dive"
# The table of contents repeats epub_uid where the package gives epub_identifier; a checker wants them alike.
epub_identifier = epub_uid = "tvm-deep-dive"
epub_scheme = "name"
epub_description = "How Apache TVM works, read from its source, every listing executed."
epub_css_files = ["epub.css"]
epub_show_urls = "no"
epub_tocdepth = 2
epub_tocdup = False
epub_use_index = False
_sphinx_gallery = [
    "sg_gallery.css",
    "sg_gallery-binder.css",
    "sg_gallery-dataframe.css",
    "sg_gallery-rendered-html.css",
]
_unused = [
    "book.css",
    "explorer.css",
    "favicon.svg",
    "screenshot.png",
    "copybutton.css",
    "copy-button.svg",
    "check-solid.svg",
]
_unused += ["sphinx-design.min.css", "exercise.css", "binder_badge_logo.svg", "jupyterlite_badge_logo.svg", "basic.css"]
_unused += ["broken_example.png", "no_image.png", "file.png", "minus.png", "plus.png"]
epub_exclude_files = [".buildinfo.bak", *(f"_static/{name}" for name in _sphinx_gallery + _unused)]

# PDF: `make pdf` (tvm_deepdive_helpers.maintain.pdf) runs this builder and latexmk, and reads the log.
latex_engine = "xelatex"
latex_use_xindy = False
latex_documents = [("index", "tvm-deep-dive.tex", project, author, "manual")]
latex_toplevel_sectioning = "part"
latex_show_pagerefs = True
latex_show_urls = "no"
latex_domain_indices = False
latex_elements = {
    "papersize": "a4paper",
    "pointsize": "10pt",
    "figure_align": "H",
    "extraclassoptions": "openany,oneside",
    "fncychap": "",
    "fontpkg": r"""
\setmainfont{Linux Libertine O}
\setsansfont{Linux Biolinum O}
\setmonofont{DejaVu Sans Mono}[Scale=0.78]
% Chinese words, as in the glossary; quotation marks and dashes stay those of the Latin font.
\usepackage{xeCJK}
\setCJKmainfont{FandolSong-Regular.otf}[BoldFont=FandolSong-Bold.otf]
\setCJKsansfont{FandolHei-Regular.otf}[BoldFont=FandolHei-Bold.otf]
\setCJKmonofont{FandolFang-Regular.otf}
\xeCJKDeclareCharClass{Default}{"2014, "2018, "2019, "201C, "201D, "2026}
""",
    "sphinxsetup": ", ".join(
        [
            "verbatimforcewraps=true",
            "verbatimmaxunderfull=2",
            "hmargin={25mm,25mm}",
            "vmargin={22mm,25mm}",
            "TitleColor={RGB}{25,45,75}",
            "InnerLinkColor={RGB}{25,70,130}",
            "OuterLinkColor={RGB}{25,70,130}",
            "VerbatimColor={RGB}{244,246,248}",
            "VerbatimBorderColor={RGB}{205,212,220}",
            "div.note_border-radius=2pt",
        ]
    ),
    # The environments style the containers that sphinxext.cells makes: a cell, and within it the output.
    "preamble": r"""
\usepackage{enumitem}
\setlistdepth{9}
\newenvironment{sphinxclasscell-output-box}%
  {\sphinxsetup{VerbatimColor={RGB}{255,255,255}, pre_border-left-width=2pt}}{}
\newenvironment{sphinxclasscell-table-box}{\footnotesize}{}
\newcommand{\longtablesize}{\footnotesize\smallcode}
\newenvironment{sphinxclasstvm-citations-box}{\renewcommand{\longtablesize}{\tiny}}{}
\AddToHook{env/tabulary/before}{\footnotesize}
% Long tables hold names of functions that have no place to break.
\newcommand{\smallcode}{\protected\def\sphinxcode##1{{\scriptsize\texttt{##1}}}}
\AddToHook{env/longtable/begin}{\setlength{\tabcolsep}{3pt}\longtablesize}
% Titles of parts carry their number already, and the text that opens a part stands below its title.
\makeatletter
\renewcommand{\part}{\clearpage\thispagestyle{plain}\gdef\partname{}\gdef\thepart{}\null\vspace{25mm}\secdef\@part\@spart}
\renewcommand{\@endpart}{\vspace{15mm}}
% At the head of a page: the chapter, and the book.
\fancypagestyle{normal}{%
  \fancyhf{}
  \fancyhead[LO]{{\py@HeaderFamily\nouppercase{\leftmark}}}
  \fancyhead[RO]{{\py@HeaderFamily\@title}}
  \fancyfoot[LO]{{\py@HeaderFamily\nouppercase{\rightmark}}}
  \fancyfoot[RO]{{\py@HeaderFamily\thepage}}
  \renewcommand{\headrulewidth}{0.4pt}
  \renewcommand{\footrulewidth}{0.4pt}}
\makeatother
\newenvironment{sphinxclasscell-fails}{\sphinxsetup{VerbatimBorderColor={RGB}{190,60,40}}}{}
% A caption stays with what it names.
\usepackage{needspace}
\newenvironment{sphinxclasscell-caption}{\needspace{6\baselineskip}\small\bfseries}{\par\nopagebreak}
\newenvironment{sphinxclasscell-origin}{\hfill\footnotesize}{\par}
\hypersetup{pdflang={en}, pdfdisplaydoctitle=true, bookmarksnumbered=true,
  pdfsubject={Apache TVM, read from its source},
  pdfkeywords={TVM, compilers, tensors, Relax, TIR, code generation, auto-scheduling}}
% A long name of code moves to the next line as a whole, though that leaves a loose line; tables do not squeeze it.
\tolerance=3000
\emergencystretch=8em
\AtBeginDocument{\setlength{\tymin}{82pt}}
% Room for the number of a chapter beyond 99 in the contents.
\makeatletter
\patchcmd{\l@chapter}{1.5em}{2em}{}{}
\makeatother
% Names in tables may break after an underscore, as they may after a dot.
\let\plainunderscore\_
\renewcommand{\_}{\plainunderscore\allowbreak}
""",
}


def _without_scripts(app, docname, source):
    """Take the list of scripts out of the first page, in print."""
    if docname == "index" and app.tags.has("print"):
        source[0] = re.sub(r"```{toctree}\n(?:[^`]*\n)?gallery/index\n```\n", "", source[0])


def setup(app):
    app.connect("source-read", _without_scripts)

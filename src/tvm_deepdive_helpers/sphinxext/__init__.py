"""The Sphinx side of the book: one extension, made of small ones.

``extensions = ["tvm_deepdive_helpers.sphinxext"]`` in ``conf.py`` is all that is needed; list it *after*
``sphinx_gallery.gen_gallery``, whose configuration the gallery runner reads.

======================  =========================================================================
module                  what it adds
======================  =========================================================================
:mod:`.recovery`        a build that was killed or failed is repaired by the next one
:mod:`.gallery_run`     every gallery script runs in a process of its own, once, with a time limit
:mod:`.cells`           directives ``gallery-cell`` and ``solution-cell``
:mod:`.glue`            role ``glue``
:mod:`.citations`       roles ``tvm-py`` and ``tvm-cpp``, directive ``quote``
:mod:`.reading`         reading times, directive ``reading-list``
:mod:`.pages`           ``question``, ``summary``, ``design-note``, the facts line, ``gallery-status``
:mod:`.messages`        what of a page is translated
:mod:`.bibliography`    how entries of the bibliography look, and where they stand in print
:mod:`.explorer`        directive and role ``explorer``: builds and schedules, step by step
:mod:`.web`             lighter pages, names for controls, mathematics without a script
:mod:`.markdown`        each page as Markdown, and ``llms.txt``
:mod:`.notebooks`       notebooks for download, directive ``notebook-files``
:mod:`.editions`        the languages: a switch, how far a translation is, ``translation-status``
:mod:`.searching`       search: Chinese, names of code, an order that helps
:mod:`.speed`           what every build did again is remembered
======================  =========================================================================
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from . import messages, speed

PARTS = (
    "recovery",
    "gallery_run",
    "cells",
    "glue",
    "citations",
    "reading",
    "pages",
    "messages",
    "bibliography",
    "explorer",
    "web",
    "markdown",
    "notebooks",
    "searching",
    "editions",
)


def setup(app: Any) -> dict[str, Any]:
    """Set up every part; called by Sphinx."""
    locale = Path(__file__).parent / "locale"
    for po in locale.glob("*/LC_MESSAGES/tvm_deepdive.po"):
        messages.compile_catalog(po)
    app.add_message_catalog("tvm_deepdive", str(locale))
    for part in PARTS:
        app.setup_extension(f"{__name__}.{part}")
    # No name in Sphinx's list of extensions: nothing that it does has to do with how a page is read.
    speed.setup(app)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}

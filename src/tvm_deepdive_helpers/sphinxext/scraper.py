"""The name by which ``conf.py`` gives sphinx-gallery the book's figure scraper.

sphinx-gallery imports the module of a scraper at every start; this one keeps matplotlib out of builds that draw
nothing.
"""

from __future__ import annotations

from typing import Any


def scraper(block: Any, block_vars: Any, gallery_conf: Any) -> str:
    """Save the open figures; see :func:`tvm_deepdive_helpers.figures.scraper`."""
    from .. import figures

    return figures.scraper(block, block_vars, gallery_conf)

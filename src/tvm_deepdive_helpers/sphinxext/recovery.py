"""A build that was killed, or failed, is repaired by the next one without cleaning.

Sphinx compares a page only with its own source file before it writes it. A build that is killed after the environment
was saved, and before all pages were written, therefore leaves old pages that the next build takes for new. And a page
that was written with a warning is not read again, so a failed build turns green when it is repeated. Both end here: a
marker beside the saved environment says that the last build did not end well, and the next one reads and writes every
page.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sphinx.util import logging

logger = logging.getLogger(__name__)


def _marker(app: Any) -> Path:
    return Path(app.doctreedir) / f".unfinished-{app.builder.name}"


def _begin(app: Any) -> None:
    marker = _marker(app)
    app.tvm_deepdive_repair = marker.is_file()
    marker.parent.mkdir(parents=True, exist_ok=True)
    marker.touch()


def _outdated(app: Any, env: Any, added: set[str], changed: set[str], removed: set[str]) -> list[str]:
    """Handler of ``env-get-outdated``: every page, when the last build did not end well."""
    if not getattr(app, "tvm_deepdive_repair", False):
        return []
    logger.info("the last build did not end well: every page is read and written again")
    return sorted(env.found_docs)


def _end(app: Any, exception: Exception | None) -> None:
    if exception is None and not app._warncount:
        _marker(app).unlink(missing_ok=True)


def setup(app: Any) -> dict[str, Any]:
    app.connect("builder-inited", _begin, priority=1)
    app.connect("env-get-outdated", _outdated)
    app.connect("build-finished", _end, priority=999)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}

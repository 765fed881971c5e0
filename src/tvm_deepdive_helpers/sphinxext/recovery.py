"""A build that was killed, or failed, is repaired by the next one without cleaning.

Sphinx compares a page only with its own source file before it writes it. A build that is killed after the environment
was saved, and before all pages were written, therefore leaves old pages that the next build takes for new. And a page
that was written with a warning is not read again, so a failed build turns green when it is repeated. Both end here: a
marker beside the saved environment says that the last build did not end well, and the next one reads and writes every
page.

Four more things leave an old page behind in stock Sphinx. It reads a page again when its file is *newer* than the
last reading, so a change goes unseen when the clock was put back, or when the file came with an old date from an
archive or another branch; here a page is read again when the date or the size of one of its files is *another*. A
page whose source was removed stays in the output. Pages whose own text did not change keep an old sidebar and old
links to their neighbours when a page was added, removed, moved or given another title. And a page that is not UTF-8
ends the build with a traceback that does not name it.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from sphinx.errors import ExtensionError
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
    for docname in removed:
        _remove_page(app, docname)
    before = getattr(env, "tvm_deepdive_files", {})
    # Taken before the pages are read: a file that changes meanwhile is another one at the next build.
    env.tvm_deepdive_files = {docname: _files(env, docname) for docname in env.found_docs}
    if not getattr(app, "tvm_deepdive_repair", False):
        return [name for name, files in env.tvm_deepdive_files.items() if _changed(before.get(name, {}), files)]
    logger.info("the last build did not end well: every page is read and written again")
    return sorted(env.found_docs)


State = tuple[int, int] | None


def _changed(before: dict[str, State] | list[State], now: dict[str, State]) -> bool:
    """Whether a file has another size or date. A file that was not known before says nothing: what a page is made
    from is known only when it was read, so that after a first build every page would be read once more.
    """
    return isinstance(before, dict) and any(before.get(name, state) != state for name, state in now.items())


def _complete(app: Any, env: Any) -> list[str]:
    """Handler of ``env-updated``: the files that reading the pages made known."""
    for docname in env.found_docs:
        known = env.tvm_deepdive_files.setdefault(docname, {})
        for name, state in _files(env, docname).items():
            known.setdefault(name, state)
    return []


def _files(env: Any, docname: str) -> dict[str, State]:
    """Size and date of a page's source and of all files that it was made from."""
    states: dict[str, State] = {}
    for name in [env.doc2path(docname), *sorted(env.dependencies.get(docname, ()))]:
        try:
            status = Path(env.srcdir, name).stat()
        except OSError:
            states[str(name)] = None
        else:
            states[str(name)] = (status.st_size, status.st_mtime_ns)
    return states


def _remove_page(app: Any, docname: str) -> None:
    if app.builder.format == "html":
        Path(app.builder.get_output_path(docname)).unlink(missing_ok=True)


def _check_encoding(app: Any, env: Any, docnames: list[str]) -> None:
    """Handler of ``env-before-read-docs``: every page is UTF-8, or is named with its line and taken out."""
    problems = []
    for docname in docnames:
        path = Path(env.doc2path(docname))
        content = path.read_bytes()
        try:
            content.decode("utf-8")
        except UnicodeDecodeError as error:
            line = content[: error.start].count(b"\n") + 1
            place = path.relative_to(Path(app.srcdir).parent).as_posix()
            problems.append(f"{place}:{line}: not valid UTF-8 (save the file as UTF-8)")
            _remove_page(app, docname)
    if problems:
        raise ExtensionError("\n".join(problems))


def _navigation(env: Any) -> str:
    """What sidebars and the links to the neighbours are made of: the tables of contents, and all titles."""
    titles = {docname: title.astext() for docname, title in env.titles.items()}
    parts = (env.toctree_includes, titles, env.toc_secnumbers)
    return hashlib.sha256(repr([sorted(part.items()) for part in parts]).encode()).hexdigest()


def _navigation_changed(app: Any, env: Any) -> list[str]:
    """Handler of ``env-updated``: every page is written again (not read) when the navigation is another."""
    before = getattr(env, "tvm_deepdive_navigation", None)
    env.tvm_deepdive_navigation = _navigation(env)
    return sorted(env.found_docs) if before not in (None, env.tvm_deepdive_navigation) else []


def _end(app: Any, exception: Exception | None) -> None:
    if exception is None and not app._warncount:
        _marker(app).unlink(missing_ok=True)


def setup(app: Any) -> dict[str, Any]:
    app.connect("builder-inited", _begin, priority=1)
    app.connect("env-get-outdated", _outdated)
    app.connect("env-updated", _navigation_changed)
    app.connect("env-updated", _complete)
    app.connect("env-before-read-docs", _check_encoding)
    app.connect("build-finished", _end, priority=999)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}

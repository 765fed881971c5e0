"""Reading times of the pages, and directive ``reading-list``: a way through the book with the time that it takes."""

from __future__ import annotations

import math
import re
from typing import Any

from docutils import nodes
from sphinx.locale import get_translation
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

_ = get_translation("tvm_deepdive")
logger = logging.getLogger(__name__)

#: Words a minute of somebody who reads technical prose and looks at the code beside it.
WORDS_PER_MINUTE = 150
#: Classes of long lists in which readers look something up.
NOT_READ = {"explorer-list", "explorer-places"}
#: Characters of Chinese in the same time: a word of English is about two of them.
HAN_PER_MINUTE = 300
HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff]")


def reading_minutes(doctree: nodes.document) -> int:
    """Minutes to read a page: its words, or characters of Chinese, without code, output, and the explorer's lists."""
    words = han = 0
    for node in doctree.findall(nodes.Text):
        ancestor: Any = node.parent
        while ancestor is not None and not _skipped(ancestor):
            ancestor = ancestor.parent
        if ancestor is None:
            text, characters = HAN.subn(" ", node.astext())
            words += len(re.findall(r"[^\W_][^\s，。；：、？！（）]*" if characters else r"\S+", text))
            han += characters
    return max(1, math.ceil(words / WORDS_PER_MINUTE + han / HAN_PER_MINUTE))


def _skipped(node: nodes.Element) -> bool:
    return isinstance(node, nodes.literal_block) or not NOT_READ.isdisjoint(node.get("classes", ()))


def note_minutes(env: Any, docname: str, doctree: nodes.document) -> int:
    """Reading time of a page, kept for the lists that name it."""
    found = _minutes(env).of[docname] = reading_minutes(doctree)
    return found


class reading_list(nodes.General, nodes.Element):
    """Stands for a list of pages until their reading times are known."""


class ReadingList(SphinxDirective):
    """An ordered list of pages with their reading times, and the sum.

    Each line of the content is a page such as ``/2-tir/overview``, or a pattern such as ``/2-tir/*``, which means the
    pages of that part in the order of its table of contents.
    """

    has_content = True

    def run(self) -> list[nodes.Node]:
        self.assert_has_content()
        lines = [line.strip().lstrip("/") for line in self.content if line.strip()]
        node = reading_list(lines=lines)
        self.set_source_info(node)
        _minutes(self.env).lists.add(self.env.docname)
        return [node]


class _Minutes:
    """Reading times of all pages, and the pages that list them."""

    def __init__(self) -> None:
        self.of: dict[str, int] = {}
        self.lists: set[str] = set()
        self.listed: dict[str, int] = {}


def _minutes(env: Any) -> _Minutes:
    if not hasattr(env, "tvm_minutes"):
        env.tvm_minutes = _Minutes()
    return env.tvm_minutes


def _forget(app: Any, env: Any, docname: str) -> None:
    """Handler of ``env-purge-doc``."""
    _minutes(env).of.pop(docname, None)
    _minutes(env).lists.discard(docname)


def _merge(app: Any, env: Any, docnames: list[str], other: Any) -> None:
    """Handler of ``env-merge-info``."""
    there = _minutes(other)
    _minutes(env).of.update({docname: there.of[docname] for docname in docnames if docname in there.of})
    _minutes(env).lists.update(there.lists & set(docnames))


def _renew_lists(app: Any, env: Any) -> list[str]:
    """Handler of ``env-updated``: pages with lists are written again when a reading time changed."""
    minutes = _minutes(env)
    if minutes.of == minutes.listed:
        return []
    minutes.listed = dict(minutes.of)
    return sorted(minutes.lists)


def pages_of(env: Any, line: str) -> list[str]:
    """Pages that a line of a reading list means.

    Raises
    ------
    LookupError
        There is no such page.
    """
    if line.endswith("/*"):
        found = env.toctree_includes.get(f"{line[:-2]}/index", [])
        pages = [page for page in found if page in _minutes(env).of]
    else:
        pages = [line] if line in _minutes(env).of else []
    if not pages:
        raise LookupError(f"reading-list: there is no page {line!r}")
    return pages


def _fill_lists(app: Any, doctree: nodes.document, docname: str) -> None:
    """Handler of ``doctree-resolved``: the lists, with links and times."""
    minutes = _minutes(app.env).of
    for node in list(doctree.findall(reading_list)):
        made = nodes.enumerated_list(classes=["reading-list"])
        total = 0
        for line in node["lines"]:
            try:
                pages = pages_of(app.env, line)
            except LookupError as err:
                logger.warning(str(err), location=node)
                continue
            for page in pages:
                total += minutes[page]
                reference = nodes.reference("", app.env.titles[page].astext(), internal=True)
                reference["refuri"] = app.builder.get_relative_uri(docname, page)
                time = nodes.Text(" " + _("(%d min)") % minutes[page])
                made += nodes.list_item("", nodes.paragraph("", "", reference, time))
        whole = nodes.paragraph("", _("Together about %.1f hours of reading.") % (total / 60))
        node.replace_self([made, whole])


def setup(app: Any) -> dict[str, Any]:
    app.add_directive("reading-list", ReadingList)
    app.add_node(reading_list)
    app.connect("env-purge-doc", _forget)
    app.connect("env-merge-info", _merge)
    app.connect("env-updated", _renew_lists)
    app.connect("doctree-resolved", _fill_lists)
    # The number makes Sphinx read everything again when the environment of an older version is found.
    return {"version": "1", "env_version": 1, "parallel_read_safe": True, "parallel_write_safe": True}

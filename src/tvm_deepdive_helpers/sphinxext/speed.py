"""What every build did again although it was done before is remembered.

*Numbers of figures.* With ``numfig``, Sphinx reads every document from disk at each build, to count figures, tables
and exercises. What it looks at is a small part of a document; that part is kept in ``outlines.pickle`` beside the
documents, under the size and time of the document's file, and Sphinx's own code counts in it. An outline that is
missing or not current is made from the document.

*Scripts.* sphinx-gallery parses every script twice at each build before it finds that nothing has to run. The result is
kept in ``book/gallery/.parsed.pickle``, under the size and time of the script.

*Translated pages.* Each node of a translated message led to a document of its own, and from there to all that Sphinx
knows; now a page is saved without that. And Python's search for unused objects runs less often.

*The list of pages at the side.* The theme draws it twice for each page, the first time to see whether it is empty.
Under the name ``navbar-nav.html`` (``book/_templates``) it does not ask.

None of it changes what is built; ``tests/test_speed.py`` compares with Sphinx's and sphinx-gallery's own answers.
"""

from __future__ import annotations

import contextlib
import copy
import gc
import importlib.metadata
import os
import pickle
import platform
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.domains.std import StandardDomain
from sphinx.environment.collectors.toctree import TocTreeCollector
from sphinx_gallery import py_source_parser

from . import gallery_run

OUTLINES = "outlines.pickle"
PARSED = ".parsed.pickle"
_FORMAT = ("1", platform.python_version(), importlib.metadata.version("sphinx"), importlib.metadata.version("docutils"))


class Memory:
    """Answers about files, kept in a pickle: each holds while its file has the same size and time of last change."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.changed = False
        self.kept: dict[str, tuple[tuple[int, int], Any]] = {}
        self.used: set[str] = set()
        # A file that another version wrote, or that a killed build left, is no loss.
        with contextlib.suppress(Exception):
            written, kept = pickle.loads(path.read_bytes())
            if written == _FORMAT:
                self.kept = kept

    def get(self, name: str, file: Path, make: Callable[[], Any]) -> Any:
        """The kept answer of that name about a file, or a new one."""
        status = file.stat()
        state = (status.st_size, status.st_mtime_ns)
        self.used.add(name)
        if name not in self.kept or self.kept[name][0] != state:
            self.kept[name] = (state, make())
            self.changed = True
        return self.kept[name][1]

    def save(self) -> None:
        """Write what is new, without what was not asked for."""
        if not self.changed and self.kept.keys() == self.used:
            return
        content = pickle.dumps((_FORMAT, {name: self.kept[name] for name in self.used}))
        temporary = self.path.with_name(f"{self.path.name}.{os.getpid()}.new")
        with contextlib.suppress(OSError):  # a disk that is full, a folder that may not be written: no build fails
            try:
                temporary.write_bytes(content)
                temporary.replace(self.path)
            finally:
                temporary.unlink(missing_ok=True)
        self.changed = False


# ---------------------------------------------------------------------------------------------------------------------
# Numbers of figures


def outline(doctree: nodes.Element, env: Any) -> nodes.Element:
    """The part of a document that decides the numbers of figures: sections, toctrees, and what may have a number."""
    made = nodes.container()
    made += _kept(doctree, env)
    for node in made.findall():
        node.document = None  # a copy of a node leads to the whole document
    return made


def _kept(parent: nodes.Element, env: Any) -> list[nodes.Element]:
    found: list[nodes.Element] = []
    for node in parent.children:
        if not isinstance(node, nodes.Element):
            continue
        if isinstance(node, addnodes.toctree):
            found.append(addnodes.toctree("", entries=list(node["entries"])))
            continue
        below = _kept(node, env)
        if isinstance(node, nodes.section):
            if below:
                section = nodes.section("", ids=list(node["ids"]))
                section += below
                found.append(section)
        elif any(domain.get_enumerable_node_type(node) for domain in env.domains.sorted()):
            found.append(_numbered(node, below, env))
        else:
            found += below
    return found


def _numbered(node: nodes.Element, below: list[nodes.Element], env: Any) -> nodes.Element:
    """A node that may have a number, with what decides whether it has: its title, and the block of code it may hold."""
    standard: StandardDomain = env.domains.standard_domain
    _, title_getter = standard.enumerable_nodes.get(node.__class__, (None, None))
    if title_getter is not None:
        return node.deepcopy()  # an extension looks for the title itself, anywhere
    made = node.copy()
    for child in node.children:
        if isinstance(child, (nodes.caption, nodes.title)):
            made += child.deepcopy()
        elif isinstance(child, nodes.literal_block):
            made += nodes.literal_block()
    made += [one for one in below if not isinstance(one, (nodes.caption, nodes.title))]
    return made


_assign_figure_numbers = TocTreeCollector.assign_figure_numbers


def assign_figure_numbers(collector: TocTreeCollector, env: Any) -> list[str]:
    """Sphinx's own count of figures, on outlines instead of whole documents."""
    if not env.config.numfig:
        return _assign_figure_numbers(collector, env)
    whole = env.get_doctree
    memory = Memory(Path(env.doctreedir, OUTLINES))

    def get_doctree(docname: str) -> nodes.Element:
        file = Path(env.doctreedir, f"{docname}.doctree")
        return memory.get(docname, file, lambda: outline(whole(docname), env))

    env.get_doctree = get_doctree
    try:
        return _assign_figure_numbers(collector, env)
    finally:
        del env.get_doctree
        memory.save()


# ---------------------------------------------------------------------------------------------------------------------
# Scripts


@contextlib.contextmanager
def remembered_scripts(path: Path) -> Iterator[None]:
    """Let sphinx-gallery take parsed scripts from a file while the context lasts.

    The syntax tree is left out of the answer: sphinx-gallery needs it only for a script that it runs itself.
    """
    parse = py_source_parser.split_code_and_text_blocks
    memory = Memory(path)

    def split(source_file: Any, return_node: bool = False) -> Any:
        file = Path(source_file)
        conf, blocks = memory.get(str(file), file, lambda: parse(source_file, return_node=True)[:2])
        answer = (copy.deepcopy(conf), list(blocks))
        return (*answer, None) if return_node else answer

    py_source_parser.split_code_and_text_blocks = split
    try:
        yield
    finally:
        py_source_parser.split_code_and_text_blocks = parse
        memory.save()


# ---------------------------------------------------------------------------------------------------------------------
# Garbage, and documents inside documents


def one_document(app: Any, doctree: nodes.document) -> None:
    """Handler of ``doctree-read``: all nodes belong to this document, before it is written to disk.

    Sphinx parses each translated message as a document of its own, and moves its nodes here. They still lead to that
    document, whose settings lead to the environment: each translated page would carry a copy of all of it.
    """
    for node in doctree.findall():
        node.document = doctree


def setup(app: Any) -> dict[str, Any]:
    # A build makes millions of nodes that stay, and Python looks through all of them again after each 700 new objects.
    gc.set_threshold(100_000, 20, 50)
    TocTreeCollector.assign_figure_numbers = assign_figure_numbers
    state = contextlib.ExitStack()

    def begin(app: Any) -> None:
        conf = app.config.sphinx_gallery_conf
        if conf["plot_gallery"]:
            folder = Path(app.srcdir, gallery_run._only(conf["gallery_dirs"]))
            state.enter_context(remembered_scripts(folder / PARSED))

    # Between the runner (50), whose children want the real parser, and the builder's first page; sphinx-gallery: 500.
    app.connect("builder-inited", begin, priority=60)
    app.connect("doctree-read", one_document, priority=999)
    app.connect("builder-inited", lambda app: state.close(), priority=510)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}

"""Checked citations of TVM's source: roles ``tvm-py`` and ``tvm-cpp``, directives ``quote`` and ``cpp-citations``.

The work is done in :mod:`tvm_deepdive_helpers.sources`, without Sphinx and without importing TVM; here are the nodes
and the bookkeeping. The environment keeps, for each page, what its citations depend on: the hashes of the wheel's files
that were read, and the fingerprints of the entries of the index. A page is read again when one of them changed, or when
one of its citations failed; nothing is parsed, and no file is hashed, when nothing changed.

Configuration
-------------
``tvm_source_ref``
    Tag that links into the wheel's Python and C++ point to. Empty (the default) means the tag of the installed release:
    TVM takes its version from the tag (``setuptools_scm``), so the wheel 0.27.0.post1 was built on ``v0.27.0.post1``.
    The abbreviated commit stands in the wheel too (``tvm/_version.py``), and may be set here instead.
``tvm_ffi_source_ref``
    The same for tvm-ffi, whose tags write a post-release as ``v0.1.14-post1``.
``tvm_cpp_ref``
    Tag of the compiler's C++, which is not in the wheel. The index must have been made at this tag.
``tvm_cpp_index``
    The index, relative to the source folder; written by ``make symbols``.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.errors import ExtensionError, NoUri
from sphinx.locale import get_translation
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective, SphinxRole
from sphinx.util.nodes import make_refnode

from ..sources.common import SourceError, digest, split_target, split_title
from ..sources.places import Place, Places, is_cpp
from ..sources.wheel import Wheels
from .tables import marks

_ = get_translation("tvm_deepdive")
logger = logging.getLogger(__name__)

LONGEST_QUOTE = 25
# Raise this when the nodes change: every page is then read again.
FORMAT = 1


@dataclass(frozen=True)
class Citation:
    """What the environment keeps of one citation.

    Attributes
    ----------
    role
        ``tvm-py``, ``tvm-cpp`` or ``quote``.
    target
        What the author wrote.
    place
        Where it is; None if that was not found.
    key, fingerprint
        Key and fingerprint of the entry of the index, if the place stands there (or was not found there).
    """

    role: str
    target: str
    place: Place | None
    key: str = ""
    fingerprint: str | None = None


# A file's size, time of change and hash.
FileState = tuple[int, int, str]


@lru_cache(maxsize=1)
def _places(index: Path, source_ref: str, ffi_ref: str) -> Places:
    """One resolver for a build; dropped when the next build begins."""
    return Places(Wheels.installed(), index, source_ref, ffi_ref)


def places(env: Any) -> Places:
    """The resolver of this build."""
    config = env.config
    return _places(Path(env.srcdir, config.tvm_cpp_index), config.tvm_source_ref, config.tvm_ffi_source_ref)


# -- what the environment keeps --------------------------------------------------------------------


def _citations(env: Any) -> dict[str, list[Citation]]:
    if not hasattr(env, "tvm_citations"):
        env.tvm_citations = {}
    return env.tvm_citations


def _files(env: Any) -> dict[str, FileState]:
    if not hasattr(env, "tvm_cited_files"):
        env.tvm_cited_files = {}
    return env.tvm_cited_files


def _tables(env: Any) -> set[str]:
    if not hasattr(env, "tvm_citation_tables"):
        env.tvm_citation_tables = set()
    return env.tvm_citation_tables


def _wheel_path(wheels: Wheels, file: str) -> Path:
    name, _slash, relative = file.partition("/")
    return wheels.packages[name].root / relative


def _state(path: Path, known: FileState | None = None) -> FileState | None:
    """State of a file; hashed only if its size or time differ from what is known."""
    try:
        stat = path.stat()
    except OSError:
        return None
    if known is not None and known[:2] == (stat.st_size, stat.st_mtime_ns):
        return known
    return stat.st_size, stat.st_mtime_ns, digest(path.read_bytes())


def cite(env: Any, role: str, target: str, with_text: bool = False) -> Place:
    """Resolve a citation of the page that is being read, and note what it depends on.

    Raises
    ------
    SourceError
        If it cannot be resolved; the page is then read again by the next build.
    """
    resolver = places(env)
    use_cpp = role == "tvm-cpp" or (role == "quote" and is_cpp(target))
    known = _citations(env).setdefault(env.docname, [])
    try:
        place = resolver.cpp(target, with_text) if use_cpp else resolver.python(target, with_text)
    except SourceError:
        known.append(Citation(role, target, None))
        raise
    key = ""
    if place.entry is not None:
        key = place.entry.key
    fingerprint = resolver.entry_fingerprint(key) if key else None
    known.append(Citation(role, target, replace(place, text=None), key, fingerprint))
    files = _files(env)
    for file in place.files:
        if file not in files:
            state = _state(_wheel_path(resolver.wheels, file))
            if state is not None:
                files[file] = state
    return place


def _purge(app: Any, env: Any, docname: str) -> None:
    _citations(env).pop(docname, None)
    _tables(env).discard(docname)


def _merge(app: Any, env: Any, docnames: set[str], other: Any) -> None:
    theirs = _citations(other)
    _citations(env).update({docname: theirs[docname] for docname in docnames if docname in theirs})
    _files(env).update(_files(other))
    _tables(env).update(docname for docname in _tables(other) if docname in docnames)


def _outdated(app: Any, env: Any, added: set[str], changed: set[str], removed: set[str]) -> list[str]:
    """Pages whose citations failed, or whose sources are not what they were."""
    resolver = places(env)
    files = _files(env)
    moved: set[str] = set()
    for file, known in list(files.items()):
        state = _state(_wheel_path(resolver.wheels, file), known)
        if state is None or state[2] != known[2]:
            moved.add(file)
            del files[file]
        else:
            files[file] = state
    found = []
    for docname, citations in _citations(env).items():
        for one in citations:
            stale = one.place is None or not moved.isdisjoint(one.place.files)
            if stale or (one.key and resolver.entry_fingerprint(one.key) != one.fingerprint):
                found.append(docname)
                break
    return [docname for docname in found if docname in env.found_docs]


# -- text ------------------------------------------------------------------------------------------


def _ref_name(index_refs: dict[str, dict[str, str]], name: str) -> str:
    """A tag by its name; a branch also by its date, because it moves."""
    if re.match(r"v?\d", name) or name not in index_refs:
        return name
    return _("%(branch)s of %(date)s") % {"branch": name, "date": index_refs[name]["date"]}


def history(env: Any, place: Place) -> list[str]:
    """In which other releases the text of an indexed place is the same, changed or absent."""
    if place.entry is None or not place.entry.same_in:
        return []
    refs = places(env).index.refs
    groups: dict[Any, list[str]] = {True: [], False: [], "absent": []}
    for name, same in place.entry.same_in.items():
        groups[same].append(_ref_name(refs, name))
    lines = []
    comma = marks(env.config.language)[0]
    if groups[True]:
        lines.append(_("same text in %s") % comma.join(groups[True]))
    if groups[False]:
        lines.append(_("other text in %s") % comma.join(groups[False]))
    if groups["absent"]:
        lines.append(_("not in %s") % comma.join(groups["absent"]))
    return lines


def description(env: Any, place: Place, first: int = 0, last: int = 0) -> str:
    """Path, lines and release, for the title of a link."""
    first, last = first or place.first, last or place.last
    values = {"path": place.path, "first": first, "last": last, "project": place.project, "ref": place.ref}
    if not first:
        text = _("%(path)s, %(project)s %(ref)s") % values
    elif first == last:
        text = _("%(path)s, line %(first)d, %(project)s %(ref)s") % values
    else:
        text = _("%(path)s, lines %(first)d-%(last)d, %(project)s %(ref)s") % values
    return marks(env.config.language)[1].join([text, *history(env, place)])


def location(place: Place) -> str:
    """Short location: ``fuse_ops.cc:731``; nothing where the name is the file already."""
    if place.first:
        return f"{place.file_name}:{place.first}"
    return "" if "/" in place.name or place.name.endswith(place.file_name) else place.file_name


# -- role ------------------------------------------------------------------------------------------


class CitationRole(SphinxRole):
    """``tvm-py`` and ``tvm-cpp``; see ``CONTRIBUTING.md`` for what may be written."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """Return the link, or the text and an error."""
        title, target = split_title(self.text)
        try:
            place = cite(self.env, self.name, target)
        except SourceError as error:
            message = self.inliner.reporter.error(f"{self.name}: {error}", line=self.lineno)
            return [self.inliner.problematic(self.rawtext, self.rawtext, message)], [message]
        return [link(self.env, place, self.rawtext, title, self.name)], []


def link(env: Any, place: Place, rawtext: str, title: str | None, role: str) -> nodes.reference:
    """The link of a citation: the name as code (or a title), and its location."""
    reference = nodes.reference(
        rawtext, "", refuri=place.url(), reftitle=description(env, place), classes=["tvm-citation", role]
    )
    if title is None:
        reference += nodes.literal(place.name, place.name)
    else:
        reference += nodes.inline(title, title)
    where = location(place)
    if where:
        reference += nodes.Text(" ")
        reference += nodes.inline(where, where, classes=["tvm-location"])
    return reference


# -- quote -----------------------------------------------------------------------------------------


def _line_range(argument: str) -> tuple[int, int]:
    """Option value ``3-9`` or ``3``, counted from 1."""
    match = re.fullmatch(r"\s*(\d+)(?:\s*-\s*(\d+))?\s*", argument or "")
    if not match or int(match[1]) < 1 or int(match[2] or match[1]) < int(match[1]):
        raise ValueError(f"{argument!r} is not a range of lines such as 3-9")
    return int(match[1]), int(match[2] or match[1])


class Quote(SphinxDirective):
    """Show the text of a symbol, cut from the installed wheel."""

    required_arguments = 1
    final_argument_whitespace = True
    has_content = False
    option_spec: ClassVar[dict[str, Any]] = {
        "lines": _line_range,
        "caption": directives.unchanged_required,
    }

    def run(self) -> list[nodes.Node]:
        """Return caption, text and origin."""
        target = " ".join(self.arguments[0].split())
        try:
            place = cite(self.env, self.name, target, with_text=True)
            first, last, text = self._cut(place)
        except SourceError as error:
            citations = _citations(self.env)[self.env.docname]
            if citations[-1].place is not None:
                citations[-1] = Citation(self.name, target, None)
            raise self.error(f"{self.name}: {error}") from None
        box = nodes.container(classes=["tvm-quote"])
        self.set_source_info(box)
        if "caption" in self.options:
            inlines, messages = self.parse_inline(self.options["caption"])
            caption = nodes.paragraph(self.options["caption"], "", *inlines, *messages, classes=["tvm-quote-caption"])
            self.set_source_info(caption)
            box += caption
        block = nodes.literal_block(text, text, language=_language(place.path), classes=["tvm-quote-text"])
        block["linenos"] = True
        block["highlight_args"] = {"linenostart": first}
        block["force"] = True  # a part of a file need not be readable by itself
        block["translatable"] = False
        self.set_source_info(block)
        box += block
        box += self._origin(place, first, last)
        return [box]

    def _cut(self, place: Place) -> tuple[int, int, str]:
        """First and last line in the file, and the text without common indentation.

        Raises
        ------
        SourceError
            If the place cannot be quoted, or not so much of it.
        """
        if place.text is None:
            raise SourceError(f"`{place.target}` is not in the wheel, so it can be cited with tvm-cpp, but not quoted")
        lines = place.text.split("\n")
        first, last = self.options.get("lines", (1, len(lines)))
        if last > len(lines):
            raise SourceError(f"`{place.target}` has {len(lines)} lines, so `:lines: {first}-{last}` is out of range")
        if last - first + 1 > LONGEST_QUOTE:
            raise SourceError(
                f"{last - first + 1} lines of `{place.target}` are too many: keep quotes short, "
                f"at most {LONGEST_QUOTE} lines; choose them with `:lines:`"
            )
        start = place.first or 1
        text = textwrap.dedent("\n".join(lines[first - 1 : last]))
        return start + first - 1, start + last - 1, text

    def _origin(self, place: Place, first: int, last: int) -> nodes.paragraph:
        """The line below the text: what it is, and a link to it."""
        values = {"path": place.path, "first": first, "last": last, "project": place.project, "ref": place.ref}
        if first == last:
            label = _("%(path)s, line %(first)d, %(project)s %(ref)s") % values
        else:
            label = _("%(path)s, lines %(first)d-%(last)d, %(project)s %(ref)s") % values
        reference = nodes.reference(
            "", "", nodes.inline(label, label), refuri=place.url(first, last), classes=["tvm-citation"]
        )
        paragraph = nodes.paragraph("", "", reference, classes=["tvm-quote-origin"], translatable=False)
        self.set_source_info(paragraph)
        return paragraph


def _language(path: str) -> str:
    suffix = Path(path).suffix
    if suffix in (".py", ".pyi"):
        return "python"
    return "cython" if suffix in (".pyx", ".pxi") else "cpp"


# -- table of C++ citations ------------------------------------------------------------------------


class cpp_citations(nodes.General, nodes.Element):
    """Stands for the table until all pages are read."""


class CppCitations(SphinxDirective):
    """A table of every C++ place that the book cites, with the pages that cite it."""

    has_content = False

    def run(self) -> list[nodes.Node]:
        """Return a node that is filled when all pages are read."""
        _tables(self.env).add(self.env.docname)
        node = cpp_citations()
        self.set_source_info(node)
        return [node]


def _cited(env: Any) -> dict[tuple[str, str, str], tuple[Place, list[str]]]:
    """Each C++ place of the book, and the pages that cite it, in the order of the table."""
    found: dict[tuple[str, str, str], tuple[Place, set[str]]] = {}
    for docname, citations in _citations(env).items():
        for one in citations:
            if one.place is not None and is_cpp_place(one):
                key = (one.place.repository, one.place.path, split_target(one.target)[1])
                found.setdefault(key, (one.place, set()))[1].add(docname)
    return {key: (found[key][0], sorted(found[key][1])) for key in sorted(found)}


def is_cpp_place(citation: Citation) -> bool:
    """Whether a citation is one of C++."""
    return citation.role == "tvm-cpp" or (citation.role == "quote" and is_cpp(citation.target))


def _refresh_tables(app: Any, env: Any) -> list[str]:
    """Have the pages with a table written again if a row changed."""
    tables = _tables(env)
    if not tables:
        return []
    rows = [(place, [(page, _page_title(env, page)) for page in pages]) for place, pages in _cited(env).values()]
    state = digest(repr((rows, env.config.language)))
    if getattr(env, "tvm_citation_table_state", None) == state:
        return []
    env.tvm_citation_table_state = state
    return sorted(tables)


def _page_title(env: Any, docname: str) -> str:
    return env.titles[docname].astext() if docname in env.titles else docname


def _fill_tables(app: Any, doctree: nodes.document, docname: str) -> None:
    for node in list(doctree.findall(cpp_citations)):
        node.replace_self(_table(app, docname))


def _table(app: Any, docname: str) -> nodes.Node:
    env = app.env
    cited = _cited(env)
    if not cited:
        return _cell(nodes.paragraph("", _("No page cites C++.")))
    heads = [_("Symbol"), _("File and lines"), _("Read at"), _("Elsewhere"), _("Cited on")]
    widths = [34, 26, 9, 12, 19]
    group = nodes.tgroup("", *(nodes.colspec(colwidth=width) for width in widths), cols=len(widths))
    head = nodes.row("", *(nodes.entry("", _cell(nodes.paragraph("", text))) for text in heads))
    group += nodes.thead("", head)
    body = nodes.tbody()
    for place, pages in cited.values():
        body += nodes.row("", *(nodes.entry("", cell) for cell in _cells(app, docname, place, pages)))
    group += body
    table = nodes.table("", group, classes=["tvm-citations", "colwidths-given"])
    return nodes.container("", table, classes=["tvm-citations-box"])


def _cell(paragraph: nodes.paragraph) -> nodes.paragraph:
    paragraph["translatable"] = False
    return paragraph


def _cells(app: Any, docname: str, place: Place, pages: list[str]) -> Iterator[nodes.Node]:
    yield _cell(nodes.paragraph("", "", nodes.literal(place.name, place.name)))
    lines = f"{place.path}:{place.first}-{place.last}" if place.first else place.path
    code = nodes.literal(lines, lines)
    yield _cell(nodes.paragraph("", "", nodes.reference("", "", code, refuri=place.url(), classes=["tvm-citation"])))
    yield _cell(nodes.paragraph("", f"{place.project} {place.ref}"))
    yield _cell(nodes.paragraph("", marks(app.config.language)[1].join(history(app.env, place)) or _("not compared")))
    paragraph = nodes.paragraph()
    for page in pages:
        if paragraph.children:
            paragraph += nodes.Text(marks(app.config.language)[0])
        title = _page_title(app.env, page)
        label = nodes.inline(title, title)
        try:
            paragraph += make_refnode(app.builder, docname, page, None, label)
        except NoUri:  # a page that stands in no toctree is not part of a PDF
            paragraph += label
    yield _cell(paragraph)


# -- Sphinx ----------------------------------------------------------------------------------------


def _stamp(app: Any, config: Any) -> None:
    """Another release, or another form of the nodes: every page is read again."""
    _places.cache_clear()
    try:
        wheels = Wheels.installed()
    except SourceError as error:
        raise ExtensionError(str(error)) from None
    config.tvm_citations_stamp = [
        FORMAT,
        *(f"{one.name} {one.version} {one.commit}" for one in wheels.packages.values()),
    ]


def _check_index(app: Any) -> None:
    try:
        index = places(app.env).index
    except SourceError as error:
        raise ExtensionError(str(error)) from None
    if index.entries and index.tag != app.config.tvm_cpp_ref:
        logger.warning(
            "%s was made at %s, but tvm_cpp_ref is %s; "
            "run `python -m tvm_deepdive_helpers.maintain.symbols update --checkout path/to/tvm --tag %s`",
            app.config.tvm_cpp_index,
            index.tag,
            app.config.tvm_cpp_ref,
            app.config.tvm_cpp_ref,
            type="tvm",
            subtype="citation",
        )


def setup(app: Any) -> dict[str, Any]:
    """Set up the extension; called by Sphinx."""
    app.add_config_value("tvm_source_ref", "", "env", (str,))
    app.add_config_value("tvm_ffi_source_ref", "", "env", (str,))
    app.add_config_value("tvm_cpp_ref", "v0.26.0", "env", (str,))
    app.add_config_value("tvm_cpp_index", "_data/cpp_symbols.json", "env", (str,))
    app.add_config_value("tvm_citations_stamp", [], "env", (list,))
    app.add_role("tvm-py", CitationRole())
    app.add_role("tvm-cpp", CitationRole())
    app.add_directive("quote", Quote)
    app.add_directive("cpp-citations", CppCitations)
    app.add_node(cpp_citations)
    app.connect("config-inited", _stamp)
    app.connect("builder-inited", _check_index)
    app.connect("env-purge-doc", _purge)
    app.connect("env-merge-info", _merge)
    app.connect("env-get-outdated", _outdated)
    app.connect("env-updated", _refresh_tables)
    app.connect("doctree-resolved", _fill_tables)
    return {"version": "1", "env_version": FORMAT, "parallel_read_safe": True, "parallel_write_safe": True}

"""What every page of the book has: its question, its summary, its facts; and the generated status page.

Directives ``question``, ``summary`` and ``design-note`` are admonitions with a fixed place in a page, so that a test
can ask for them. The facts line below the title is computed: reading time from the words, what to read first from the
front matter, and the TVM version and date from the records of the scripts that the page shows.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx import addnodes
from sphinx.locale import get_translation
from sphinx.util.docutils import SphinxDirective

from . import cells, reading, records
from .tables import marks, table

_ = get_translation("tvm_deepdive")


class _Box(SphinxDirective):
    """An admonition with a class of its own, and a title in the reader's language."""

    has_content = True
    kind: ClassVar[str]

    def title(self) -> str:
        raise NotImplementedError

    def run(self) -> list[nodes.Node]:
        self.assert_has_content()
        box = nodes.admonition(classes=[self.kind])
        self.set_source_info(box)
        text = self.title()
        inlines, messages = self.parse_inline(text)
        title = nodes.title(text, "", *inlines, translatable=bool(self.arguments))
        self.set_source_info(title)
        box += [title, *messages]
        box += self.parse_content_to_nodes()
        return [box]


class Question(_Box):
    """The question that the page answers; the first thing on it."""

    kind = "question"

    def title(self) -> str:
        return _("The question")


class Summary(_Box):
    """What the reader can do now; the last thing on the page."""

    kind = "summary"

    def title(self) -> str:
        return _("What you can do now")


class DesignNote(_Box):
    """Why TVM chose this, and what it gave up."""

    kind = "design-note"
    required_arguments = 1
    final_argument_whitespace = True

    def title(self) -> str:
        # The words "Design note" come to it in .messages, when it was translated.
        return self.arguments[0]


class GalleryStatus(SphinxDirective):
    """A table of all scripts: cells, run time, TVM version and date of the last run."""

    option_spec: ClassVar[dict[str, Any]] = {"part": directives.unchanged}

    def run(self) -> list[nodes.Node]:
        path = cells.gallery_out(self.env) / "status.json"
        self.env.note_dependency(str(path))
        try:
            rows = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise self.error("gallery-status: no script has run yet") from None
        head = [_("Script"), _("Cells"), _("Seconds"), "TVM", "tvm-ffi", _("Last run")]
        body = [
            [
                self._link(row["script"], row["title"]),
                str(row["cells"]),
                f"{row['seconds']:.1f}",
                row["versions"]["apache-tvm"],
                row["versions"]["apache-tvm-ffi"],
                row["date"],
            ]
            for row in rows
        ]
        total = sum(row["seconds"] for row in rows)
        body.append([_("all scripts"), str(sum(row["cells"] for row in rows)), f"{total:.1f}", "", "", ""])
        made = table(head, body, widths=[40, 8, 10, 14, 14, 14])
        made["classes"].append("gallery-status")
        return [made]

    def _link(self, script: str, title: str) -> nodes.Node:
        page = f"{cells.gallery_out(self.env).name}/{script}"
        # In print there are no pages of scripts.
        return _doc_link(self.env, f"/{page}") if page in self.env.found_docs else nodes.Text(title)


def _doc_link(env: Any, target: str, title: str = "") -> nodes.Node:
    return addnodes.pending_xref(
        "",
        nodes.inline(title, title),
        refdomain="std",
        reftype="doc",
        reftarget=target,
        refexplicit=bool(title),
        refwarn=True,
        refdoc=env.docname,
    )


def _add_facts(app: Any, doctree: nodes.document) -> None:
    """Handler of ``doctree-read``: the line of facts below the title of a chapter."""
    docname = app.env.docname
    meta = app.env.metadata.get(docname, {})
    title = next(doctree.findall(nodes.title), None)
    if title is None:
        return
    if "covers" not in meta:
        _add_run(app, docname, title)
        return
    minutes = reading.note_minutes(app.env, docname, doctree)
    facts: list[nodes.Node] = [nodes.Text(_("Reading time: about %d min.") % minutes)]
    comma, _semicolon = marks(app.config.language)
    gap, stop = ("", "。") if comma == "、" else (" ", ".")
    needs = meta.get("needs", [])
    needs = json.loads(needs) if isinstance(needs, str) else needs
    if needs:
        facts.append(nodes.Text(gap + _("Read first:") + gap))
        for index, target in enumerate(needs):
            facts += [nodes.Text(comma)] if index else []
            facts.append(_doc_link(app.env, target))
        facts.append(nodes.Text(stop))
    runs = _runs(app, docname)
    if runs:
        facts.append(nodes.Text(gap + _run_on(max(runs, key=lambda run: run.date))))
    _insert_facts(title, facts)


def _runs(app: Any, docname: str) -> list[records.Record]:
    """The records on which a page depends."""
    return [
        records.load(path)
        for file in sorted(app.env.dependencies.get(docname, ()))
        if str(file).endswith(records.SUFFIX) and (path := Path(app.srcdir, file)).is_file()
    ]


def _run_on(run: records.Record) -> str:
    return _("Run on TVM %(tvm)s, %(date)s.") % {"tvm": run.versions["apache-tvm"], "date": run.date}


def _insert_facts(title: nodes.title, facts: list[nodes.Node]) -> None:
    paragraph = nodes.paragraph("", "", *facts, classes=["page-facts"], translatable=False)
    title.parent.insert(title.parent.index(title) + 1, paragraph)


def _add_run(app: Any, docname: str, title: nodes.title) -> None:
    """On the page of a script, and on a page that is no chapter but shows cells: when they were run, and on what."""
    out = cells.gallery_out(app.env)
    folder, _slash, script = docname.partition("/")
    own = records.record_path(out, script) if folder == out.name else None
    if own is not None and own.is_file():
        app.env.note_dependency(str(own), docname=docname)
    runs = _runs(app, docname)
    if runs:
        _insert_facts(title, [nodes.Text(_run_on(max(runs, key=lambda run: run.date)))])


def setup(app: Any) -> dict[str, Any]:
    app.add_directive("question", Question)
    app.add_directive("summary", Summary)
    app.add_directive("design-note", DesignNote)
    app.add_directive("gallery-status", GalleryStatus)
    app.connect("doctree-read", _add_facts, priority=900)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}

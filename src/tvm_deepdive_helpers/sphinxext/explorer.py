"""Directive ``explorer``: step through the passes of a build, or through the instructions of a schedule.

::

    ```{explorer} part/script
    mlp: The running example
    conv: A convolution
    ```

Each line of the content names a value that the script glued, the text of `tvm_deepdive_helpers.explorer.dumps`, and
the title under which readers see it. What the directive writes is a list of the steps, with times and numbers of
changed lines: this is all that print and browsers without JavaScript show. On top of the list, ``static/explorer.js``
builds the explorer from the same values, which stand in the page.

Role ``explorer``: a link to one step, such as `` {explorer}`mlp:FuseOps` `` or
`` {explorer}`see the fusion <mlp:FuseOps>` ``. The build fails if there is no such step.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.locale import get_translation
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective, SphinxRole

from ..explorer import changed_lines, loads
from ..sources.common import split_title
from . import cells, records
from .tables import table

_ = get_translation("tvm_deepdive")
logger = logging.getLogger(__name__)

STATIC = Path(__file__).parent / "static"


def _texts() -> dict[str, str]:
    """What the explorer says, in the reader's language."""
    return {
        "module": _("Module"),
        "function": _("Function"),
        "all": _("all functions"),
        "head": _("above the functions"),
        "only": _("only steps with changes"),
        "previous": _("Previous step"),
        "next": _("Next step"),
        "wide": _("Whole window"),
        "plain": _("Plain list"),
        "help": _("Keys"),
        "steps": _("Steps"),
        "difference": _("Module before and after the step"),
        "before": _("before"),
        "after": _("after"),
        "step": _("Step %(at)s of %(of)s"),
        "gap": _("(between two passes)"),
        "gap_note": _("No pass did this. The build itself took these functions out of the module."),
        "unchanged": _("This step changes nothing in what is shown."),
        "hidden": _("The module is another one afterwards, but it prints as before."),
        "names": _("Only names of variables change: both modules are structurally equal."),
        "from": _("It starts from the result of step %s, not from that of the step before."),
        "equal": _("%s equal lines"),
        "page": _("Explained in"),
        "source": _("Source"),
        "decision": _("Decision"),
        "relax": _("Relax pipeline"),
        "tir": _("TIR pipeline"),
        "finish": _("Host and device"),
        "failed": _("The data of this module cannot be read; the plain list below has its steps."),
        "keys": _(
            "Keys, while the focus is in the explorer. j, ↓ or →: next step. k, ↑ or ←: previous step. "
            "Home, End: first, last. c: only steps with changes. f: whole window. p: plain list. ?: this help. "
            "Esc: leave the help or the whole window."
        ),
    }


class explorer(nodes.General, nodes.Element):
    """The explorer of a page; its children are the plain lists."""


class explorer_module(nodes.General, nodes.Element):
    """The plain list of one module, with its packed data."""


class explorer_link(nodes.Inline, nodes.TextElement):
    """A link to a step, until all pages are read."""


def _known(env: Any) -> dict[str, tuple[str, list[str]]]:
    """For each key the page that shows it, and the names of its steps."""
    if not hasattr(env, "tvm_explored"):
        env.tvm_explored = {}
    return env.tvm_explored


class Explorer(SphinxDirective):
    """See the module."""

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        self.assert_has_content()
        script = self.arguments[0].strip()
        box = explorer(texts=_texts())
        self.set_source_info(box)
        for at, line in enumerate(self.content):
            key, colon, title = line.partition(":")
            if not colon:
                raise self.error(f"explorer: {line!r} is not 'name: title'")
            try:
                record, name = cells.load_record(self.env, f"{script}:{key.strip()}")
                packed = record.value(name)
                data = loads(packed)
            except records.RecordError as err:
                raise self.error(f"explorer: {err}") from None
            except ValueError as err:
                raise self.error(f"explorer: {key!r} of {script} is no packed explorer data ({err})") from None
            _known(self.env)[name] = (self.env.docname, [step["n"] for step in data["steps"]])
            heading = nodes.paragraph(title.strip(), "", nodes.strong("", title.strip()), classes=["explorer-title"])
            heading.source, heading.line = self.content.info(at)
            module = explorer_module(key=name, packed=packed)
            module += [heading, nodes.container("", plain_list(data), classes=["cell-table-box"])]
            box += module
        return [box]


def plain_list(data: dict[str, Any]) -> nodes.table:
    """The steps as a table; neighbours that change nothing share a row."""
    trace = data["kind"] == "trace"
    rows: list[list[Any]] = []
    idle: list[tuple[int, dict[str, Any]]] = []

    def flush() -> None:
        if idle:
            first, last = idle[0][0], idle[-1][0]
            names: list[nodes.Node] = []
            for _at, step in idle:
                names += [nodes.Text(", ")] if names else []
                names += _label(step)
                names += [nodes.Text(f" {step['t']:.2f}")] if len(idle) > 1 and "t" in step else []
            total = "" if trace else f"{sum(step.get('t', 0) for _at, step in idle):.2f}"
            rows.append([f"{first}" if first == last else f"{first}–{last}", names, total, _("unchanged")])
            idle.clear()

    for at, step in enumerate(data["steps"], start=1):
        quiet = "d" not in step and "c" not in step
        if quiet and not trace:
            idle.append((at, step))
            continue
        flush()
        third = step.get("v", "") if trace else f"{step['t']:.2f}" if "t" in step else ""
        rows.append([str(at), _label(step), third, _("unchanged") if quiet else _change(step)])
    flush()
    head = ["#", _("Instruction"), _("Decision"), _("Lines")] if trace else ["#", _("Pass"), "ms", _("Lines")]
    made = table(head, rows, widths=[7, 62, 14, 17])
    made["classes"] += ["explorer-list", "cell-table", "colwidths-given"]
    for paragraph in made.findall(nodes.paragraph):
        paragraph["translatable"] = False
    return made


def _label(step: dict[str, Any]) -> list[nodes.Node]:
    if not step["n"]:
        return [nodes.Text(_("(between two passes)"))]
    text = step.get("s", step["n"])
    return [nodes.literal(text, text)]


def _change(step: dict[str, Any]) -> str:
    put, out = changed_lines(step)
    if not put and not out:
        return _("same text")
    return f"+{put} −{out}"


class ExplorerLink(SphinxRole):
    """Role ``explorer``."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        title, target = split_title(self.text)
        key, _colon, name = target.partition(":")
        link = explorer_link(key=key.strip(), step=name.strip(), doc=self.env.docname)
        link += nodes.inline("", title) if title else nodes.literal("", name.strip())
        self.set_source_info(link)
        return [link], []


def _resolve(app: Any, doctree: nodes.document, docname: str) -> None:
    """Handler of ``doctree-resolved``: links to steps."""
    for link in list(doctree.findall(explorer_link)):
        page, names = _known(app.env).get(link["key"], ("", []))
        step = link["step"]
        if not page or (step not in names and not (step.isdigit() and 0 < int(step) <= len(names))):
            what = f"no step {step!r} in {link['key']!r}" if page else f"no explorer shows {link['key']!r}"
            logger.warning("explorer: %s", what, location=link, type="tvm", subtype="explorer")
            page = ""
        if page and app.builder.format == "html" and app.builder.name != "epub":
            uri = app.builder.get_relative_uri(docname, page)
            reference = nodes.reference("", "", internal=True, refuri=f"{uri}#module={link['key']}&pass={step}")
            reference += link.children
            link.replace_self(reference)
        else:
            link.replace_self(link.children)


def _purge(app: Any, env: Any, docname: str) -> None:
    for key in [key for key, (page, _names) in _known(env).items() if page == docname]:
        del _known(env)[key]


def _merge(app: Any, env: Any, docnames: list[str], other: Any) -> None:
    _known(env).update({key: value for key, value in _known(other).items() if value[0] in docnames})


def _visit(self: Any, node: explorer) -> None:
    if self.builder.name == "epub":
        self.body.append("<div>")
        return
    texts = self.attval(json.dumps(node["texts"], ensure_ascii=False))
    self.body.append(f'<div class="explorer" data-texts="{texts}"><div class="explorer-plain">')


def _depart(self: Any, node: explorer) -> None:
    self.body.append("</div>" if self.builder.name == "epub" else "</div></div>")


def _visit_module(self: Any, node: explorer_module) -> None:
    key = re.sub(r"[^\w-]", "", node["key"])
    self.body.append(f'<div class="explorer-module" data-key="{key}">')
    if self.builder.name != "epub":
        # Base 64: nothing in it that HTML would read.
        self.body.append(f'<script type="application/octet-stream">{node["packed"]}</script>')


def _depart_module(self: Any, node: explorer_module) -> None:
    self.body.append("</div>")


def _nothing(self: Any, node: nodes.Node) -> None:
    """Print shows the children."""


def _add_files(app: Any, pagename: str, templatename: str, context: Any, doctree: nodes.document | None) -> None:
    """Handler of ``html-page-context``: only pages with an explorer load its files."""
    if doctree is not None and app.builder.name != "epub" and next(doctree.findall(explorer), None) is not None:
        app.add_js_file("explorer.js", loading_method="defer")
        app.add_css_file("explorer.css")


def _add_folder(app: Any, config: Any) -> None:
    """Handler of ``config-inited``; search has its scripts in the same folder.

    The path is relative, because ``.buildinfo`` holds a hash of it, which must not tell where the book was built.
    """
    config.html_static_path.append(os.path.relpath(STATIC, app.confdir))


def setup(app: Any) -> dict[str, Any]:
    """Set up the extension; called by Sphinx."""
    plain = (_nothing, _nothing)
    app.add_node(explorer, html=(_visit, _depart), latex=plain, text=plain, man=plain, texinfo=plain)
    app.add_node(
        explorer_module, html=(_visit_module, _depart_module), latex=plain, text=plain, man=plain, texinfo=plain
    )
    app.add_node(explorer_link)
    app.add_directive("explorer", Explorer)
    app.add_role("explorer", ExplorerLink())
    app.connect("config-inited", _add_folder)
    app.connect("doctree-resolved", _resolve)
    app.connect("env-purge-doc", _purge)
    app.connect("env-merge-info", _merge)
    app.connect("html-page-context", _add_files)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}

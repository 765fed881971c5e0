"""Each page as Markdown beside its HTML, and ``llms.txt``, the list of them for programs that read.

The source of a page names cells and values; here they are filled in: code, output, numbers, places in TVM's source.
The Markdown is made from the same resolved tree as the HTML, so both say the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.locale import get_translation

from . import records

_ = get_translation("tvm_deepdive")

#: Classes of nodes that a reader of Markdown does not need.
DROPPED = ("comment", "target", "toctree", "index", "pending", "substitution_definition", "raw", "colspec")
#: Containers that add nothing of their own.
DROPPED_CLASSES = ("sphx-glr-footer", "sphx-glr-download", "sphx-glr-thumbnails")


def to_markdown(doctree: nodes.document) -> str:
    """A resolved page as Markdown, with one line a paragraph."""
    text = "\n\n".join(_Writer().blocks(doctree))
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def fence(text: str, language: str = "") -> str:
    """A block of code; its fence is longer than any row of backticks in it."""
    longest = max((len(match) for match in re.findall(r"`{3,}", text)), default=2)
    ticks = "`" * (longest + 1)
    return f"{ticks}{language}\n{text.rstrip()}\n{ticks}"


class _Writer:
    """Walks the tree. A block becomes one string; `level` is the depth of the section."""

    def __init__(self) -> None:
        self.level = 0

    # Blocks

    def blocks(self, node: nodes.Element) -> list[str]:
        return [text for child in node.children for text in self.block(child) if text.strip()]

    def block(self, node: nodes.Node) -> Iterator[str]:
        name = type(node).__name__
        if isinstance(node, nodes.Text):
            yield node.astext()
            return
        if name in DROPPED or set(node.get("classes", ())) & {*DROPPED_CLASSES, "only-dark"}:
            return
        made = getattr(self, f"block_{name}", None)
        if made is not None:
            yield from made(node)
        elif isinstance(node, nodes.admonition | nodes.Admonition) and not isinstance(node, nodes.document):
            yield from self.block_admonition(node)
        elif isinstance(node, nodes.TextElement):
            yield self.inline(node)
        else:
            yield from self.blocks(node)

    def block_section(self, node: nodes.Element) -> Iterator[str]:
        self.level += 1
        yield from self.blocks(node)
        self.level -= 1

    def block_title(self, node: nodes.Element) -> Iterator[str]:
        yield f"{'#' * max(self.level, 1)} {self.inline(node)}"

    def block_rubric(self, node: nodes.Element) -> Iterator[str]:
        yield f"**{self.inline(node)}**"

    def block_paragraph(self, node: nodes.Element) -> Iterator[str]:
        text = self.inline(node)
        yield f"*{text}*" if "page-facts" in node["classes"] and "](" not in text else text

    def block_literal_block(self, node: nodes.Element) -> Iterator[str]:
        language = node.get("language", "")
        yield fence(node.astext(), "" if language in ("text", "default", "none") else language)

    def block_container(self, node: nodes.Element) -> Iterator[str]:
        classes = node["classes"]
        if "cell-caption" in classes:
            yield f"**{' '.join(self.inline(child) for child in node.children)}**"
        elif "cell-origin" in classes:
            yield f"({self.inline(node.children[0])})"
        else:
            if "cell-output-box" in classes:
                yield _("Output:")
            yield from self.blocks(node)

    def block_admonition(self, node: nodes.Element) -> Iterator[str]:
        title = next((child for child in node.children if isinstance(child, nodes.title)), None)
        head = self.inline(title) if title is not None else type(node).__name__.capitalize()
        body = [text for child in node.children if child is not title for text in self.block(child)]
        yield f"> **{head}**"
        yield _quoted("\n\n".join(body))

    def block_exercise_enumerable_node(self, node: nodes.Element) -> Iterator[str]:
        title = next((child for child in node.children if isinstance(child, nodes.title)), None)
        yield f"> **{' '.join(self.inline(title).split()) if title is not None else _('Exercise')}**"
        body = [text for child in node.children if child is not title for text in self.block(child)]
        yield _quoted("\n\n".join(body))

    def block_block_quote(self, node: nodes.Element) -> Iterator[str]:
        yield _quoted("\n\n".join(self.blocks(node)))

    def block_bullet_list(self, node: nodes.Element) -> Iterator[str]:
        yield "\n".join(_indented("- ", "\n\n".join(self.blocks(item))) for item in node.children)

    def block_enumerated_list(self, node: nodes.Element) -> Iterator[str]:
        first = node.get("start", 1)
        yield "\n".join(
            _indented(f"{number}. ", "\n\n".join(self.blocks(item))) for number, item in enumerate(node.children, first)
        )

    def block_definition_list(self, node: nodes.Element) -> Iterator[str]:
        for item in node.children:
            terms = [child for child in item.children if isinstance(child, nodes.term)]
            rest = [text for child in item.children if child not in terms for text in self.block(child)]
            head = ", ".join(self.inline(term) for term in terms)
            yield _indented("- ", "\n\n".join([f"**{head}**", *rest]))

    def block_image(self, node: nodes.Element) -> Iterator[str]:
        yield f"![{_one_line(node.get('alt', ''))}]({node['uri']})"

    block_imgsgnode = block_image

    def block_math_block(self, node: nodes.Element) -> Iterator[str]:
        yield f"$$\n{node.astext().strip()}\n$$"

    def block_transition(self, node: nodes.Element) -> Iterator[str]:
        yield "---"

    def block_table(self, node: nodes.Element) -> Iterator[str]:
        title = next((child for child in node.children if isinstance(child, nodes.title)), None)
        if title is not None:
            yield f"**{self.inline(title)}**"
        rows = [[_cell(" ".join(self.blocks(entry))) for entry in row.children] for row in node.findall(nodes.row)]
        if not rows:
            return
        width = max(len(row) for row in rows)
        rows = [row + [""] * (width - len(row)) for row in rows]
        if not any(True for _found in node.findall(nodes.thead)):
            rows.insert(0, [""] * width)
        lines = [f"| {' | '.join(row)} |" for row in rows]
        yield "\n".join([lines[0], "|" + " --- |" * width, *lines[1:]])

    # Text

    def inline(self, node: nodes.Node) -> str:
        return _one_line("".join(self.piece(child) for child in node.children))

    def piece(self, node: nodes.Node) -> str:
        if isinstance(node, nodes.Text):
            return node.astext()
        name = type(node).__name__
        if name in DROPPED:
            return ""
        if isinstance(node, nodes.literal):
            return _code(node.astext())
        if isinstance(node, nodes.math):
            return f"${node.astext()}$"
        if isinstance(node, nodes.image):
            return f"![{_one_line(node.get('alt', ''))}]({node['uri']})"
        inside = "".join(self.piece(child) for child in node.children)
        if isinstance(node, nodes.strong):
            return f"**{inside}**"
        if isinstance(node, nodes.emphasis):
            return f"*{inside}*"
        if isinstance(node, nodes.reference):
            uri = node.get("refuri") or (f"#{node['refid']}" if "refid" in node else "")
            return f"[{inside}]({markdown_link(uri)})" if uri else inside
        if isinstance(node, addnodes.download_reference) and "filename" in node:
            return inside
        return inside


def markdown_link(uri: str) -> str:
    """The same page as Markdown, for a link inside the book."""
    if re.match(r"[a-z]+:", uri):
        return uri
    return re.sub(r"\.html(?=#|$)", ".md", uri)


def _one_line(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip(" ") if "\n" in text else text


def _code(text: str) -> str:
    ticks = "``" if "`" in text else "`"
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{ticks}{pad}{text}{pad}{ticks}"


def _cell(text: str) -> str:
    return _one_line(text.replace("|", "\\|").replace("\n", " "))


def _quoted(text: str) -> str:
    return "\n".join(f"> {line}".rstrip() for line in text.split("\n"))


def _indented(mark: str, text: str) -> str:
    first, *rest = text.split("\n")
    return "\n".join([mark + first, *(" " * len(mark) + line if line else "" for line in rest)])


# Files


def _write_page(app: Any, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    """Handler of ``html-page-context``."""
    if doctree is None or app.builder.name != "html":
        return
    records.write_atomically(Path(app.outdir, f"{pagename}.md"), to_markdown(doctree))
    context["markdown_url"] = f"{pagename.rsplit('/', 1)[-1]}.md"


def description(markdown: str) -> str:
    """The question of a page, or its first paragraph."""
    lines = markdown.split("\n")
    for line in lines[1:]:
        text = line.removeprefix(">").strip()
        if text and not text.startswith(("*", "#", "`", "!", "|", "-", _("Reading time: about %d min.")[:12])):
            return text
    return ""


def _write_list(app: Any, exception: Exception | None) -> None:
    """Handler of ``build-finished``: ``llms.txt``, in the order of the table of contents."""
    if exception or app.builder.name != "html":
        return
    env = app.env
    lines = [f"# {app.config.project}", "", f"> {description(_read(app, env.config.root_doc))}", ""]
    lines += [_("Each page is there as HTML and, with the ending .md, as Markdown with all code, outputs and numbers.")]
    for part in env.toctree_includes.get(env.config.root_doc, []):
        lines += ["", f"## {env.titles[part].astext()}", ""]
        lines += list(_entries(app, part, set()))
    base = app.config.html_baseurl
    text = "\n".join(lines) + "\n"
    if base:
        text = re.sub(r"\]\((?=[^)]*\.md\))", f"]({base.rstrip('/')}/", text)
    records.write_atomically(Path(app.outdir, "llms.txt"), text)


def _read(app: Any, docname: str) -> str:
    path = Path(app.outdir, f"{docname}.md")
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def _entries(app: Any, docname: str, seen: set[str]) -> Iterator[str]:
    if docname in seen or docname not in app.env.titles:
        return
    seen.add(docname)
    told = description(_read(app, docname))
    yield f"- [{app.env.titles[docname].astext()}]({docname}.md)" + (f": {told}" if told else "")
    for child in app.env.toctree_includes.get(docname, []):
        yield from _entries(app, child, seen)


def setup(app: Any) -> dict[str, Any]:
    app.connect("html-page-context", _write_page, priority=900)
    app.connect("build-finished", _write_list)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}

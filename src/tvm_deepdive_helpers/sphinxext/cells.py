"""Directives ``gallery-cell`` and ``solution-cell``: show a cell of a script, and what it really printed and drew.

The page depends on the record of the script (:mod:`.records`), so it is read again when the script ran again, and
only then.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx import addnodes
from sphinx.locale import get_translation
from sphinx.util.docutils import SphinxDirective

from . import records
from .tables import table

_ = get_translation("tvm_deepdive")


def gallery_out(env: Any) -> Path:
    """The folder where sphinx-gallery and the runner leave their results."""
    dirs = env.config.sphinx_gallery_conf["gallery_dirs"]
    return Path(env.srcdir, dirs if isinstance(dirs, str) else dirs[0])


def load_record(env: Any, target: str) -> tuple[records.Record, str]:
    """Find the record that ``script:name``, or ``name`` with the page's own script, means; note the dependency.

    Returns
    -------
    (Record, str)
        The record, and the name of the cell or value.

    Raises
    ------
    records.RecordError
        No such script, or no script is named anywhere, or the script has no results.
    """
    script, colon, name = target.rpartition(":")
    if not colon:
        script = env.metadata[env.docname].get("gallery") or front_matter(env).get("gallery", "")
        if not script:
            raise records.RecordError(
                f"{target!r} names no script; write 'part/script:{target}', "
                "or 'gallery: part/script' in the front matter"
            )
    path = records.record_path(gallery_out(env), script)
    env.note_dependency(str(path))
    if not path.is_file() and _source(env, script).is_file():
        raise records.RecordError(
            f"gallery/{script}.py has no results: it was saved during the build, or did not run; build again"
        )
    return records.load(path), name


def _source(env: Any, script: str) -> Path:
    """Where the script lies that has this name in `gallery-cell` and `glue`."""
    part, _, stem = script.rpartition("/")
    folders = env.config.sphinx_gallery_conf["examples_dirs"]
    return Path(env.srcdir, folders if isinstance(folders, str) else folders[0], part, f"{stem}.py")


def front_matter(env: Any) -> dict[str, Any]:
    """The page's own front matter, read from its source: Sphinx stores it only after the page was parsed."""
    import yaml

    cache: dict[str, Any] = env.temp_data
    key = "tvm_deepdive_front_matter"
    if key not in cache:
        text = Path(env.doc2path(env.docname)).read_text(encoding="utf-8")
        match = re.match(r"---\n(.*?)\n---\n", text, re.S)
        cache[key] = (yaml.safe_load(match[1]) or {}) if match else {}
    return cache[key]


def line_range(argument: str) -> tuple[int, int]:
    """Option value ``3-9`` or ``3``, counted from 1."""
    match = re.fullmatch(r"\s*(\d+)(?:\s*-\s*(\d+))?\s*", argument or "")
    if not match or int(match[1]) < 1 or int(match[2] or match[1]) < int(match[1]):
        raise ValueError(f"{argument!r} is not a range of lines such as 3-9")
    return int(match[1]), int(match[2] or match[1])


class GalleryCell(SphinxDirective):
    """Show one cell; see ``CONTRIBUTING.md``."""

    required_arguments = 1
    has_content = False
    option_spec: ClassVar[dict[str, Any]] = {
        "show": lambda value: directives.choice(value, ("both", "code", "output")),
        "caption": directives.unchanged_required,
        "alt": directives.unchanged_required,
        "language": directives.unchanged_required,
        "lines": line_range,
        "table": directives.flag,
    }

    def run(self) -> list[nodes.Node]:
        try:
            return [self.cell_node(self.arguments[0].strip())]
        except records.RecordError as err:
            raise self.error(f"{self.name}: {err}") from None

    def cell_node(self, target: str) -> nodes.Node:
        record, name = load_record(self.env, target)
        cell = record.cell(name)
        # Without ':show:' a cell shows its code and whatever it printed; the snapshot guards what that is. With
        # ':show: both' or ':show: output' a silent cell is an error here already.
        show = self.options.get("show")
        box = nodes.container(classes=["gallery-cell"])
        self.set_source_info(box)
        if cell.fails:
            box["classes"].append("cell-fails")
        if "caption" in self.options:
            inlines, messages = self.parse_inline(self.options["caption"])
            caption = nodes.paragraph(self.options["caption"], "", *inlines, *messages)
            self.set_source_info(caption)
            box += nodes.container("", caption, classes=["cell-caption"])
        if show != "output":
            box += self._literal(cell.code, "python", "cell-code")
        if show != "code":
            self._add_output(box, record, cell)
        box += self._origin(record, cell)
        return box

    def _literal(self, text: str, language: str, kind: str) -> nodes.literal_block:
        block = nodes.literal_block(text, text, language=language, classes=[kind])
        # A line that the highlighter cannot read is no reason for a warning: the text came from a run.
        block["force"] = True
        self.set_source_info(block)
        return block

    def _add_output(self, box: nodes.Element, record: records.Record, cell: records.Cell) -> None:
        if not cell.output.strip() and not cell.images:
            if "show" not in self.options:
                return
            raise records.RecordError(
                f"cell {cell.name!r} of gallery/{record.script}.py printed and drew nothing; "
                "use ':show: code', or let it print"
            )
        if cell.output.strip():
            if "table" in self.options:
                framed = nodes.container(classes=["cell-table-box"])
                framed += self._table(cell)
                box += framed
            else:
                # A box of its own, so that the PDF can tell output from code as well.
                output = nodes.container(classes=["cell-output-box"])
                before, kept, after = self._cut(cell)
                output += self._said(_("… %d lines before") % before) if before else []
                output += self._literal(kept, self.options.get("language", "text"), "cell-output")
                output += self._said(_("… %d lines more") % after) if after else []
                box += output
        if cell.images and "alt" not in self.options:
            raise records.RecordError(
                f"cell {cell.name!r} of gallery/{record.script}.py draws a figure; say in ':alt:' what it shows"
            )
        for image in cell.images:
            box += self._image(record, image)

    def _table(self, cell: records.Cell) -> nodes.Node:
        """The output as a table: a line is a row, ``" | "`` separates columns, the first line holds their heads.

        Text between backticks becomes code.
        """
        rows = [f" {line} ".split(" | ") for line in cell.output.strip("\n").split("\n")]
        rows = [[text.strip() for text in row] for row in rows]
        odd = next((number for number, row in enumerate(rows, start=1) if len(row) != len(rows[0])), None)
        if odd or len(rows[0]) < 2:
            raise records.RecordError(
                f"cell {cell.name!r} printed no table: ':table:' wants columns separated by ' | ', as many in each "
                f"line; line {odd or 1} is {' | '.join(rows[(odd or 1) - 1])!r}"
            )
        # A narrow column still holds its head in print.
        widths = [min(40, max(8, *(len(row[at]) for row in rows))) for at in range(len(rows[0]))]
        head, *body = ([_inline(text) for text in row] for row in rows)
        made = table(head, body, widths)
        made["classes"] += ["cell-output", "cell-table", "colwidths-given"]
        self.set_source_info(made)
        return made

    def _cut(self, cell: records.Cell) -> tuple[int, str, int]:
        """The lines that are shown, and how many there are before and after them."""
        if "lines" not in self.options:
            return 0, cell.output, 0
        lines = cell.output.split("\n")
        first, last = self.options["lines"]
        if last > len(lines):
            raise records.RecordError(f"cell {cell.name!r} printed {len(lines)} lines, not {last}")
        return first - 1, "\n".join(lines[first - 1 : last]), len(lines) - last

    def _said(self, text: str) -> nodes.Node:
        """A remark beside an output. It is no part of it: outputs are the same bytes in all languages."""
        remark = nodes.paragraph("", "", nodes.emphasis(text, text), classes=["cell-cut"], translatable=False)
        self.set_source_info(remark)
        return remark

    def _image(self, record: records.Record, name: str) -> nodes.Node:
        """The figure; with a variant for the dark mode when the scraper left one."""
        pair = nodes.container(classes=["cell-figure"])
        base = record.image_dir / name
        dark = base.with_name(f"{base.stem}_dark{base.suffix}")
        variants = [(base, ["only-light"]), (dark, ["only-dark"])] if dark.is_file() else [(base, [])]
        for path, classes in variants:
            uri = "/" + path.relative_to(Path(self.env.srcdir).resolve()).as_posix()
            image = nodes.image(uri=uri, alt=self.options["alt"], classes=classes)
            self.set_source_info(image)
            pair += image if "only-dark" not in classes else _html_only(image)
        return pair

    def _origin(self, record: records.Record, cell: records.Cell) -> nodes.Node:
        """The small link to the page of the whole script."""
        label = _("%(script)s, cell %(cell)s") % {"script": f"gallery/{record.script}.py", "cell": cell.name}
        page = f"{gallery_out(self.env).name}/{record.script}"
        reference: nodes.Node = nodes.inline(label, label)
        if page in self.env.found_docs:  # in print there are no pages of scripts
            reference = addnodes.pending_xref(
                "",
                reference,
                refdomain="std",
                reftype="doc",
                reftarget=f"/{page}",
                refexplicit=True,
                refwarn=True,
                refdoc=self.env.docname,
            )
        paragraph = nodes.paragraph("", "", reference, translatable=False)
        self.set_source_info(paragraph)
        return nodes.container("", paragraph, classes=["cell-origin"])


def _inline(text: str) -> list[nodes.Node]:
    """Text of a table's cell; what stands between backticks as code."""
    pieces = text.split("`")
    if len(pieces) % 2 == 0:
        return [nodes.Text(text)]
    return [nodes.literal(piece, piece) if at % 2 else nodes.Text(piece) for at, piece in enumerate(pieces) if piece]


def _html_only(node: nodes.Node) -> nodes.Node:
    """Keep a node out of print: the PDF has no dark mode."""
    return addnodes.only("", node, expr="html")


class SolutionCell(GalleryCell):
    """The solution of an exercise: text, then an executed cell, folded away."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        from sphinx_design.dropdown import DropdownDirective

        drop = DropdownDirective(
            name="dropdown",
            arguments=[_("Solution")],
            options={"class-container": ["solution"]},
            content=self.content,
            lineno=self.lineno,
            content_offset=self.content_offset,
            block_text=self.block_text,
            state=self.state,
            state_machine=self.state_machine,
        )
        # A solution may be a cell alone; sphinx-design wants a body.
        drop.has_content = True
        [details] = drop.run()
        details[0]["translatable"] = False  # it is in the reader's language already
        try:
            details += self.cell_node(self.arguments[0].strip())
        except records.RecordError as err:
            raise self.error(f"{self.name}: {err}") from None
        return [details]


def setup(app: Any) -> dict[str, Any]:
    app.add_directive("gallery-cell", GalleryCell)
    app.add_directive("solution-cell", SolutionCell)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}

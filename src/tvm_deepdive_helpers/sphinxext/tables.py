"""Tables of docutils, from rows."""

from __future__ import annotations

from collections.abc import Sequence

from docutils import nodes

__all__ = ["Entry", "marks", "table"]

#: What stands in one field of a table: text, or inline nodes.
Entry = str | nodes.Node | Sequence[nodes.Node]


def marks(language: str | None) -> tuple[str, str]:
    """What stands between the words of a list, and between longer pieces."""
    return ("、", "；") if (language or "").startswith("zh") else (", ", "; ")


def table(head: Sequence[Entry], body: Sequence[Sequence[Entry]], widths: Sequence[int]) -> nodes.table:
    """A table with one row of heads.

    Parameters
    ----------
    head, body
        Entries of the heads, and of each row.
    widths
        Relative widths of the columns.
    """
    group = nodes.tgroup("", *[nodes.colspec(colwidth=width) for width in widths], cols=len(head))

    def row(entries: Sequence[Entry]) -> nodes.row:
        made = nodes.row()
        for entry in entries:
            inline = nodes.Text(entry) if isinstance(entry, str) else entry
            children = [inline] if isinstance(inline, nodes.Node) else list(inline)
            made += nodes.entry("", nodes.paragraph("", "", *children))
        return made

    group += [nodes.thead("", row(head)), nodes.tbody("", *[row(entries) for entries in body])]
    return nodes.table("", group)

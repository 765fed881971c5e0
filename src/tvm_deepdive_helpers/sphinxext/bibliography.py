"""The look of the bibliography, and its place in print; ``sphinxcontrib.bibtex`` does the rest.

An entry shows its title, its first authors, where and when it came out, its address in full (print has no links), its
level and its annotation. Its mark is a name and the year; the text cites it by the same mark, so that it is found on
paper too. The name is that of the system where the title begins with one ("Halide: A Language ..."), or else that of
the first author; the field ``label`` overrides both.

Sphinx gathers all citations at the end of a LaTeX document. The entries of this book stand where their topic is
treated, so they become plain paragraphs there before that happens, with addresses that may break at the end of a line.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from docutils import nodes
from pybtex.plugin import register_plugin
from pybtex.style.formatting import toplevel
from pybtex.style.formatting.unsrt import Style
from pybtex.style.labels import BaseLabelStyle
from pybtex.style.sorting import BaseSortingStyle
from pybtex.style.template import field, first_of, href, join, names, optional, sentence, tag
from sphinx.transforms.post_transforms import SphinxPostTransform

__all__ = ["address", "mark"]


def mark(entry: Any) -> str:
    """The mark of an entry: its field ``label``, or the name of system or first author, and the year."""
    if "label" in entry.fields:
        return str(entry.fields["label"])
    system, colon, _ = entry.fields["title"].translate({ord(brace): "" for brace in "{}"}).partition(":")
    if colon and " " not in system:
        return f"{system} {entry.fields['year']}"
    person = entry.persons["author"][0]
    name = " ".join([*person.prelast_names, *person.last_names])
    return f"{name.strip('{}')} {entry.fields['year']}"


def address(entry: Any) -> str:
    """The web address of an entry: that of its DOI, or its field ``url``."""
    if "doi" in entry.fields:
        return f"https://doi.org/{entry.fields['doi']}"
    return str(entry.fields["url"])


class MarkStyle(BaseLabelStyle):
    """Marks as in `mark`."""

    def format_labels(self, sorted_entries: Iterable[Any]) -> Iterator[str]:
        """One mark an entry."""
        for entry in sorted_entries:
            yield mark(entry)


class YearStyle(BaseSortingStyle):
    """By year, then by mark."""

    def sorting_key(self, entry: Any) -> tuple[str, str]:
        """What entries are ordered by."""
        return entry.fields["year"], mark(entry).lower()


class BookStyle(Style):
    """One form for every type of entry."""

    default_label_style = "book"
    default_sorting_style = "book"

    def format_entry(self, label: str, entry: Any, bib_data: Any = None) -> Any:
        """Format an entry, whatever its type is."""
        from pybtex.style import FormattedEntry

        where = first_of[
            optional[field("booktitle")], optional[field("journal")], optional[field("howpublished")], "online"
        ]
        link = address(entry)
        template = toplevel[
            sentence[tag("strong")[href[link, field("title")]]],
            sentence[names("author", sep=", ", sep2=" and ", last_sep=" and ")],
            sentence(sep=", ")[where, field("year")],
            join["<", href[link, link.removeprefix("https://")], ">"],
            sentence[tag("em")[field("level", apply_func=lambda text: text.capitalize())]],
            field("annotation"),
        ]
        data = {"entry": entry, "style": self, "bib_data": bib_data}
        return FormattedEntry(entry.key, template.format_data(data), label)


class EntriesStayInPrint(SphinxPostTransform):
    """In LaTeX, an entry is a paragraph at its place; runs before Sphinx gathers citations (priority 750)."""

    default_priority = 740
    formats = ("latex",)

    def run(self, **kwargs: Any) -> None:
        """Replace the citations of the document."""
        for citation in list(self.document.findall(nodes.citation)):
            label, *body = citation.children
            # What `\\bibitem` would have made, and what the links of `sphinxcontrib.bibtex` lead to.
            place = rf"\hypertarget{{cite.{citation['docname']}:{citation['ids'][0]}}}{{}}"
            target = nodes.raw("", place, format="latex")
            paragraph = nodes.paragraph("", "", target, nodes.strong("", f"[{label.astext()}]"), nodes.Text(" "))
            for child in body:
                paragraph += child.children if isinstance(child, nodes.paragraph) else [child]
            for link in paragraph.findall(nodes.reference):
                if link.get("refuri") == f"https://{link.astext()}":
                    link.children = [nodes.raw("", rf"\nolinkurl{{{link.astext()}}}", format="latex")]
            citation.replace_self(paragraph)


def setup(app: Any) -> dict[str, Any]:
    """Register the style ``book``; called by Sphinx."""
    for group, style in (("formatting", BookStyle), ("labels", MarkStyle), ("sorting", YearStyle)):
        register_plugin(f"pybtex.style.{group}", "book", style)
    app.add_post_transform(EntriesStayInPrint)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}

"""The search index after builds of a few pages: nothing is lost, and the order of reading does not show."""

from __future__ import annotations

from typing import Any

from books import Book
from sphinx.search import js_index


def _index(book: Book) -> dict[str, Any]:
    return js_index.loads((book.out / "searchindex.js").read_text(encoding="utf-8"))


def _entries(book: Book) -> dict[str, set[str]]:
    """Pages by index entry."""
    index = _index(book)
    return {
        entry: {index["docnames"][number] for number, _, _ in places} for entry, places in index["indexentries"].items()
    }


def test_index_entries_survive_builds_of_other_pages(book: Book) -> None:
    """Sphinx by itself drops the entries of each page that a build does not write."""
    book.page("one", "```{index} loop; unrolled\n```\nA text with {index}`tensors <tensor>`.")
    book.page("two", "A text with {index}`tensors <tensor>`.")
    book.good_build()
    first = _index(book)["indexentries"]
    assert _entries(book)["tensor"] == {"one", "two"} and _entries(book)["loop"] == {"one"}
    book.good_build()
    assert _index(book)["indexentries"] == first, "after a build with nothing to do"
    book.page("two", "Another text with {index}`buffers <buffer>`.")
    book.good_build()
    assert _entries(book)["tensor"] == {"one"} and _entries(book)["buffer"] == {"two"}
    (book.root / "book/one.md").unlink()
    book.good_build()
    assert set(_entries(book)) == {"buffer"}


def test_a_damaged_search_index_is_made_anew(book: Book) -> None:
    book.page("one", "A text with {index}`tensors <tensor>`.")
    book.good_build()
    (book.out / "searchindex.js").write_text("Search.setIndex(", encoding="utf-8")
    assert "search index couldn't be loaded" in book.bad_build()
    book.good_build()
    assert _entries(book)["tensor"] == {"one"}


def test_readers_side_by_side_give_the_same_index(book: Book) -> None:
    for name in "abcdefghijkl":
        book.page(name, f"A text with {{index}}`tensors <tensor>` and {{index}}`{name} <{name}>`.")
    book.good_build("-E", "-a", "-j", "1")
    one = (book.out / "searchindex.js").read_bytes()
    book.good_build("-E", "-a", "-j", "4")
    assert (book.out / "searchindex.js").read_bytes() == one

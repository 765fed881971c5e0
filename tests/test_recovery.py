"""A build that was killed at any moment is repaired by the next one, without cleaning."""

from __future__ import annotations

import random
import re
import time

import pytest

DIE = """
def setup(app):
    import os
    app.connect("env-check-consistency", lambda *args: os.environ.get("DIE") and os._exit(9))
"""


def _fill(book, word: str) -> None:
    for name in ("aa", "bb", "cc"):
        book.script(name, f"# %% cell: x\nimport time\nprint('{name} says {word}')\ntime.sleep(0.15)\n")
        book.page(f"p_{name}", f"{word} ```{{gallery-cell}} 1-part/{name}:x\n```".replace(f"{word} ", f"{word}\n\n"))


def _is_right(book, word: str) -> None:
    for name in ("aa", "bb", "cc"):
        for page in (f"p_{name}", f"gallery/1-part/{name}"):
            text = book.text(page)
            assert f"{name} says {word}" in text, (page, word)
        assert len(re.findall(r" says \w+", book.text(f"p_{name}"))) >= 1
        assert {found for found in re.findall(r" says (\w+)", book.text(f"p_{name}")) if found != word} == set()


def test_killed_twenty_times_then_right(book) -> None:
    """Twenty SIGKILLs at random moments of twenty builds, each of changed content; then one build that must be
    right.
    """
    _fill(book, "first")
    started = time.monotonic()
    book.good_build()
    whole = time.monotonic() - started
    chance = random.Random(20261121)
    for number in range(20):
        _fill(book, f"word{number}")
        book.kill_after(chance.uniform(0.05, whole))
    _fill(book, "last")
    book.good_build()
    _is_right(book, "last")


def test_killed_between_environment_and_pages(book, monkeypatch) -> None:
    """Stock Sphinx gets this wrong: the environment is saved, the pages are not, and nothing looks changed."""
    _fill(book, "old")
    book.good_build()
    _fill(book, "new")
    conf = (book.root / "conf.py").read_text()
    book.write("conf.py", conf + DIE)
    book.good_build()  # the changed configuration alone makes Sphinx read everything once
    _fill(book, "newer")
    monkeypatch.setenv("DIE", "1")
    assert book.build().returncode == 9
    monkeypatch.delenv("DIE")
    assert "aa says new\n" in book.text("p_aa") + "\n"
    book.good_build()
    _is_right(book, "newer")


@pytest.mark.parametrize("what", ["stamp", "record", "page", "figure"])
def test_a_damaged_file_of_the_gallery_is_made_again(book, what) -> None:
    book.script("hello", "# %% cell: x\nprint('hello')\nimport matplotlib.pyplot as plt\nplt.plot([1, 2])\n")
    book.page("one", "```{gallery-cell} 1-part/hello:x\n:alt: A line\n```")
    book.good_build()
    folder = book.root / "book/gallery/1-part"
    path = {
        "stamp": folder / "hello.stamp.json",
        "record": folder / "hello.cells.json",
        "page": folder / "hello.rst",
        "figure": folder / "images/sphx_glr_hello_001.png",
    }[what]
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:20])
    assert book.executed(book.good_build()) == {"hello"}
    assert "hello" in book.text("one")
    assert path.stat().st_size > 20


def test_a_removed_page_is_gone(book) -> None:
    book.page("stays", "Text.")
    path = book.page("goes", "Text.")
    book.good_build()
    path.unlink()
    book.good_build()
    assert not (book.out / "goes.html").exists() and (book.out / "stays.html").exists()


def test_the_navigation_of_unchanged_pages_follows(book) -> None:
    """A page is added, gets another title, and goes: the neighbour's links follow, though its own text is the same."""
    book.page("a", "Text.")
    book.good_build()
    assert "Page ab" not in book.html("a")
    path = book.page("ab", "Text.")
    assert "a" not in book.read_pages(book.good_build("-v")), "written again, not read again"
    assert 'title="Page ab"' in book.html("a")
    path.write_text("# Another title\n")
    book.good_build()
    assert 'title="Another title"' in book.html("a")
    path.write_text("# Another title\n\nMore.\n")
    log = book.good_build("-v")
    assert "] ab\n" in log and "] a\n" not in log, "an edit of the text does not write the neighbours"
    path.unlink()
    book.good_build()
    assert "ab.html" not in book.html("a")


def test_a_page_that_is_not_utf8_is_named(book) -> None:
    path = book.page("bad", "Text.")
    book.page("good", "Text.")
    book.good_build()
    path.write_bytes(b"# Bad\n\nText \xff.\n")
    log = book.bad_build()
    assert "book/bad.md:3: not valid UTF-8" in log
    assert not (book.out / "bad.html").exists()
    path.write_bytes(b"# Bad\n\nText.\n")
    book.good_build()
    assert (book.out / "bad.html").exists()

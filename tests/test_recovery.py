"""A build that was killed at any moment is repaired by the next one, without cleaning."""

from __future__ import annotations

import os
import random
import re
import resource
import subprocess
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


@pytest.mark.parametrize("when", [0, 4_000_000_000], ids=["1970", "2096"])
def test_a_wrong_clock(book, when) -> None:
    """The dates of files lie far behind or ahead of the last build, as after a changed clock: edits count."""
    book.script("hello", "# %% cell: x\nprint('old')\n")
    page = book.page("one", "First text.\n\n```{gallery-cell} 1-part/hello:x\n```")
    book.page("two", "```{gallery-cell} 1-part/hello:x\n```")
    book.good_build()
    for path in [*(book.root / "book").rglob("*"), *(book.root / "gallery").rglob("*")]:
        os.utime(path, (when, when))
    book.good_build()
    page.write_text(page.read_text().replace("First", "Other"))
    os.utime(page, (when + 1, when + 1))
    script = book.script("hello", "# %% cell: x\nprint('new')\n")
    os.utime(script, (when + 1, when + 1))
    book.good_build()
    assert "Other text" in book.text("one") and "new" in book.text("one") and "old" not in book.text("two")
    if when == 0:  # pages from the future are read again each time, until their time has come
        assert book.read_pages(book.good_build("-v")) == set()


def test_two_builds_at_once(book) -> None:
    """Whatever the two do to each other, the next build is right."""
    _fill(book, "old")
    book.good_build()
    _fill(book, "new")
    both = [
        subprocess.Popen(
            book.command(), cwd=book.root, env=book.env(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        for _ in range(2)
    ]
    for process in both:
        process.wait(timeout=120)
    book.good_build()
    _is_right(book, "new")


def _without_rights() -> list[str]:
    """What makes the superuser obey the permissions of files, too."""
    rights = "-dac_override,-dac_read_search"
    return ["setpriv", f"--bounding-set={rights}", f"--inh-caps={rights}"] if os.geteuid() == 0 else []


def _sources(book) -> dict[str, bytes]:
    """The author's own files."""
    found = [book.root / "conf.py", *(book.root / "gallery").rglob("*"), *(book.root / "book").glob("*.md")]
    return {path.name: path.read_bytes() for path in found if path.is_file()}


@pytest.mark.parametrize("folder", ["book/gallery/1-part", "_build/html", "_build/doctrees/html"])
def test_a_folder_that_cannot_be_written(book, folder) -> None:
    """The build fails, names the folder, and loses nothing; when the folder can be written again, all is well."""
    _fill(book, "old")
    book.good_build()
    _fill(book, "new")
    before = _sources(book)
    locked = [path for path in (book.root / folder, *(book.root / folder).rglob("*")) if path.is_dir()]
    for path in locked:
        path.chmod(0o555)
    try:
        done = subprocess.run(
            [*_without_rights(), *book.command()], cwd=book.root, env=book.env(), text=True, timeout=120, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
    finally:
        for path in locked:
            path.chmod(0o755)
    assert done.returncode != 0, done.stdout
    assert re.search(rf"Permission denied.*{folder}", done.stdout), done.stdout
    assert _sources(book) == before
    book.good_build()
    _is_right(book, "new")


def test_no_room_for_a_file(book) -> None:
    """A full disk, imitated by a limit on the size of files: the build fails, and the next one is right."""
    _fill(book, "old")
    book.good_build()
    _fill(book, "new")
    before = _sources(book)
    done = subprocess.run(
        book.command(), cwd=book.root, env=book.env(), text=True, timeout=120, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY)),
    )  # fmt: skip
    assert done.returncode != 0, done.stdout
    assert "File too large" in done.stdout, done.stdout
    assert _sources(book) == before
    book.good_build()
    _is_right(book, "new")

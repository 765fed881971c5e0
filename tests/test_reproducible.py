"""Two clean builds in different folders give the same bytes."""

from __future__ import annotations

import os
import subprocess
import zipfile
from pathlib import Path

import pytest
from books import Book

from tvm_deepdive_helpers.maintain import reproducible

SCRIPT = """
# %% cell: numbers
from tvm_deepdive_helpers import expect_error, glue
print(sorted({"b", "a"}))
glue("three", 3)

# %% cell: figure
import matplotlib.pyplot as plt
from tvm_deepdive_helpers.figures import bar_chart
bar_chart({"one": 1, "two": 2}, unit="things")

# %% cell: refused
with expect_error(ZeroDivisionError):
    1 / 0
"""
PAGE = """
Three is {glue}`three`. A {tvm-py}`relax.BlockBuilder.emit`, a term, and a footnote [^1].

[^1]: Here.

```{question}
Why?
```

```{gallery-cell} numbers
:show: both
```

```{gallery-cell} figure
:alt: Two bars.
```

```{gallery-cell} refused
:show: output
```

```{index} one, two
```
"""


def small_book(folder: Path) -> Book:
    book = Book(folder)
    book.script("one", SCRIPT)
    book.script("two", "# %% cell: x\nprint(2)\n")
    book.page("page", PAGE, "gallery: 1-part/one")
    book.page("other", "```{gallery-cell} 1-part/two:x\n```")
    return book


def test_two_clean_builds_of_a_small_book_give_the_same_bytes(tmp_path: Path) -> None:
    """The scripts run in both, too: archives, notebooks and pictures are the same."""
    # Equally deep: the way to the extension, part of the configuration, is the same from each copy of the real book.
    books = [small_book(tmp_path / name) for name in ("a", "other")]
    for jobs, (book, settings) in enumerate(zip(books, reproducible.SETTINGS, strict=True), 1):
        done = subprocess.run(
            book.command("-j", str(jobs)), cwd=book.root, env={**book.env(), **settings}, text=True, timeout=120,
            check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout
    assert reproducible.differences(books[0].out, books[1].out) == []
    assert list(books[0].out.rglob("*.zip")) and list(books[0].out.rglob("*.ipynb")), "the archives were compared"


def test_differences_are_named(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for folder, word in ((one, "same"), (two, "other")):
        (folder / "sub").mkdir(parents=True)
        (folder / "sub/page.html").write_text(f"head\n<p>{word}</p>\n")
        (folder / "equal.css").write_text("a{}\n")
    (two / "more.js").write_text("1")
    with zipfile.ZipFile(one / "a.zip", "w") as archive:
        archive.writestr(zipfile.ZipInfo("x", (2000, 1, 1, 0, 0, 0)), "x")
    with zipfile.ZipFile(two / "a.zip", "w") as archive:
        archive.writestr(zipfile.ZipInfo("x", (2001, 1, 1, 0, 0, 0)), "x")
    found = reproducible.differences(one, two)
    assert [line.split(":")[0] for line in found] == ["a.zip", "more.js", "sub/page.html"]
    assert found[1] == "more.js: only in the second build"
    assert "line 2" in found[2] and "'<p>same</p>'" in found[2] and "'<p>other</p>'" in found[2]


def test_an_archive_loses_its_times(tmp_path: Path) -> None:
    from tvm_deepdive_helpers.sphinxext import gallery_run

    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("part/x.py", "print(1)\n")
    before = zipfile.ZipFile(path).read("part/x.py")
    gallery_run.settle_archive(path)
    first = path.read_bytes()
    assert zipfile.ZipFile(path).read("part/x.py") == before
    os.utime(path, (1, 1))
    gallery_run.settle_archive(path)
    assert path.read_bytes() == first
    assert {info.date_time for info in zipfile.ZipFile(path).infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        reproducible.differences(tmp_path / "no", tmp_path)

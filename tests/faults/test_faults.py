"""Every fault of the registry is put into a small book, caught with file and line, and leaves no stale page behind.

The table of the faults, with the words that were really said, is `gallery/data/faults.csv`; a page of the book shows
it. The last test compares it with what was said in this run.
"""

from __future__ import annotations

import csv
import difflib
import io
import re
from pathlib import Path

import pytest
from books import CONF, ROOT, Book

from tvm_deepdive_helpers.maintain import lint, snapshots

from .registry import BUILD, FAULTS, FILES, HOME, HOST, LINT, PAGE, SNAPSHOTS, UNDONE, Fault

TABLE = ROOT / "gallery/data/faults.csv"
HEAD = "# written by tests/faults: what an author did, which command caught it, where, and its words"
#: Fault: its row of the table, as the tests of this run fill it.
SAID: dict[str, dict[str, str]] = {}


class SmallBook(Book):
    """The small book of the registry, built once."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        for path in (root / "gallery", root / "book"):
            for file in sorted(path.rglob("*"), reverse=True):
                file.unlink() if file.is_file() else file.rmdir()
        self.write(
            "conf.py",
            CONF.format(src=str(ROOT / "src")) + "exclude_patterns = ['_data/**']\nmyst_heading_anchors = 3\n",
        )
        for name, text in {**FILES, "book/1-part/page.md": PAGE}.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        self.good_build()
        snapshots.accept(self.root / "book/gallery", self.root / "tests/snapshots")
        self.pages = self.all_pages()

    def all_pages(self) -> dict[str, str]:
        """Every built page; without dates and checksums, which are no text."""
        return {
            path.relative_to(self.out).as_posix(): re.sub(r"\?v=\w+", "", path.read_text(encoding="utf-8"))
            for path in sorted(self.out.rglob("*.html"))
            if path.name not in ("genindex.html", "search.html")
        }


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> SmallBook:
    return SmallBook(tmp_path_factory.mktemp("faults"))


def apply(fault: Fault, path: Path) -> int | None:
    """Change the file; returns the line that the message must name, None for a message without one."""
    if fault.change:
        path.parent.mkdir(parents=True, exist_ok=True)
        fault.change(path)
        return None
    text = path.read_text(encoding="utf-8")
    assert text.count(fault.old) == 1, f"{fault.what}: {fault.old!r} stands {text.count(fault.old)} times"
    changed = text.replace(fault.old, fault.new)
    path.write_text(changed, encoding="utf-8")
    if fault.line == 0:
        return None
    pairs = zip(text.split("\n"), changed.split("\n"), strict=False)
    first = next(number for number, (old, new) in enumerate(pairs, 1) if old != new)
    return first + (fault.line or 0)


def caught(fault: Fault, small: SmallBook) -> list[str]:
    """What the command says; an empty list if it finds nothing."""
    if fault.by == LINT:
        return [str(problem) for problem in lint.lint(lint.read_book(small.root))]
    done = small.build()
    if fault.by == BUILD:
        return re.split(r"\n(?=\S)", done.stdout) if done.returncode else []
    assert done.returncode == 0, done.stdout
    return snapshots.compare(small.root / "book/gallery", small.root / "tests/snapshots")


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.what.replace(" ", "-"))
def test_fault(small: SmallBook, fault: Fault) -> None:
    path = small.root / fault.file
    kept = path.read_bytes() if path.exists() else None
    try:
        line = apply(fault, path)
        messages = caught(fault, small)
        said = [text for text in messages if re.search(fault.says, text, re.S)]
        loud = [text for text in messages if re.search("WARNING|ERROR|CRITICAL|failed|rror", text)]
        assert said, "\n".join(loud or messages) or "nothing was said"
        place = fault.reported.removeprefix("book/") + (f":{line}" if line else "")
        named = [text for text in said if place in text]
        assert named, f"no message names {place}:\n" + "\n".join(said)
        if fault.gone:
            page = small.out / f"{fault.gone}.html"
            old = small.pages[f"{fault.gone}.html"]
            assert not page.exists() or re.sub(r"\?v=\w+", "", page.read_text(encoding="utf-8")) != old, "a stale page"
    finally:
        if kept is None:
            path.unlink(missing_ok=True)
        else:
            path.write_bytes(kept)
        (small.root / "gallery/1-part/litter.txt").unlink(missing_ok=True)
        header = "gallery/1-part/GALLERY_HEADER.rst"
        (small.root / header).write_text(FILES[header], encoding="utf-8")
    SAID[fault.what] = {
        "fault": fault.what,
        "command": fault.by,
        "place": place,
        "message": words(fault, named[0], small.root),
    }


def words(fault: Fault, message: str, root: Path) -> str:
    """The line of a message that says it, without this machine's folders and Sphinx's own additions."""
    lines = re.sub(r"\x1b\[[0-9;]*m", "", message).replace(f"{root}/", "").strip().split("\n")
    if fault.by == SNAPSHOTS:
        changed = [f"`{line}`" for line in lines if re.match(r"[-+](?![-+])", line)]
        lines = [" ".join(changed)] if changed else lines
    text = next((line for line in lines if re.search(fault.says, line)), lines[0])
    text = re.sub(r"^.*?(?:WARNING|ERROR|CRITICAL|sphinx\.errors\.\w+): ", "", text)
    text = re.sub(r"^(?:[\w-]+/)+[\w-]+\.(?:md|py):(?:\d+:)? ", "", text)
    for token in (UNDONE, HOME, HOST):  # what `make lint` would find in the table itself
        text = text.replace(token, f"{token[0]}…{token[-1]}")
    text = re.sub(r" \[[a-z_]+(?:\.[a-z_]+)?\]$", "", text)
    return text if len(text) <= 150 else text[:150].rsplit(" ", 1)[0] + " …"


def test_afterwards_the_book_is_as_before(small: SmallBook) -> None:
    """After all faults, one build that is right: no page and no result of a script kept anything of them."""
    small.good_build()
    pages = small.all_pages()
    assert sorted(pages) == sorted(small.pages)
    for name, old in small.pages.items():
        difference = "\n".join(difflib.unified_diff(old.splitlines(), pages[name].splitlines(), lineterm="", n=0))
        assert not difference, f"{name}:\n{difference}"
    assert not snapshots.compare(small.root / "book/gallery", small.root / "tests/snapshots")
    # The configuration of the small book names this checkout.
    assert not [problem for problem in lint.lint(lint.read_book(small.root)) if problem.path != "conf.py"]


def test_there_are_sixty_and_each_is_another() -> None:
    assert len(FAULTS) >= 60
    for key in (lambda f: f.what, lambda f: (f.by, f.file, f.old, f.new, f.says)):
        assert len({key(fault) for fault in FAULTS}) == len(FAULTS)
    assert {fault.by for fault in FAULTS} == {BUILD, LINT, SNAPSHOTS}


def test_the_table_is_of_this_run() -> None:
    if len(SAID) < len(FAULTS):
        pytest.skip("only a part of the faults was tried")
    text = io.StringIO()
    writer = csv.DictWriter(text, ["fault", "command", "place", "message"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(SAID[fault.what] for fault in FAULTS)
    made = f"{HEAD}\n{text.getvalue()}"
    if not TABLE.exists() or TABLE.read_text(encoding="utf-8") != made:
        new = ROOT / "_build/faults.csv"
        new.parent.mkdir(exist_ok=True)
        new.write_text(made, encoding="utf-8")
        pytest.fail(
            f"{TABLE.relative_to(ROOT)} is not what was said now: look at the difference, then\n"
            f"    cp _build/faults.csv {TABLE.relative_to(ROOT)}"
        )

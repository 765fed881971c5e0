"""`make html` builds what is not current, and only that; a record of an older or failed build never hides a change."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from books import Book

from tvm_deepdive_helpers.maintain import html

QUIET = ("-q",)


@pytest.fixture
def built(tmp_path: Path) -> Book:
    """A small book that was built once."""
    book = Book(tmp_path)
    book.out = tmp_path / "_build/html/en"
    book.page("one", "The first text.")
    assert html.build(book.root, "en", QUIET) == 0
    assert "The first text." in book.text("one")
    return book


@pytest.fixture
def current(built: Book, capfd: pytest.CaptureFixture[str]) -> Callable[[], bool]:
    """Build once more, and say whether Sphinx was left out."""

    def build_again() -> bool:
        capfd.readouterr()
        assert html.build(built.root, "en", QUIET) == 0
        return "en: nothing has changed" in capfd.readouterr().out

    return build_again


def test_nothing_to_do_starts_no_sphinx(built: Book, current: Callable[[], bool]) -> None:
    assert current()
    assert current()


def _edit(book: Book) -> None:
    book.page("one", "Another text.")


def _same_size_and_older(book: Book) -> None:
    path = book.root / "book/one.md"
    path.write_text(path.read_text(encoding="utf-8").replace("first", "third"), encoding="utf-8")
    os.utime(path, (1_000_000_000, 1_000_000_000))


def _add(book: Book) -> None:
    book.page("two", "A second page.")


def _rename(book: Book) -> None:
    (book.root / "book/one.md").rename(book.root / "book/three.md")


def _setting(book: Book) -> None:
    path = book.root / "conf.py"
    path.write_text(path.read_text(encoding="utf-8") + "html_title = 'Other'\n", encoding="utf-8")


def _page_lost(book: Book) -> None:
    (book.out / "one.html").unlink()


def _page_damaged(book: Book) -> None:
    (book.out / "one.html").write_text("", encoding="utf-8")


def _record_damaged(book: Book) -> None:
    (book.root / "_build/current-en.json").write_text('{"sources', encoding="utf-8")


@pytest.mark.parametrize(
    "change", [_edit, _same_size_and_older, _add, _rename, _setting, _page_lost, _page_damaged, _record_damaged]
)
def test_every_change_starts_sphinx(change: Callable[[Book], None], built: Book, current: Callable[[], bool]) -> None:
    change(built)
    assert not current()
    assert current()


def test_a_page_that_somebody_changed_is_written_again(built: Book, current: Callable[[], bool]) -> None:
    _page_damaged(built)
    assert not current()
    assert "The first text." in built.text("one")
    assert current()


def test_another_option_or_address_starts_sphinx(
    built: Book, current: Callable[[], bool], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BOOK_URL", "https://example.org/en/")
    assert not current()
    assert current()
    monkeypatch.delenv("BOOK_URL")
    assert not current()
    capfd.readouterr()
    assert html.build(built.root, "en", [*QUIET, "-D", "html_title=Other"]) == 0
    assert "nothing has changed" not in capfd.readouterr().out


def test_a_failed_build_is_not_taken_for_a_good_one(built: Book, capfd: pytest.CaptureFixture[str]) -> None:
    built.page("one", "See {doc}`nowhere`.")
    for _ in range(2):
        assert html.build(built.root, "en", QUIET) != 0
        assert "nowhere" in capfd.readouterr().err
    built.page("one", "Good again.")
    assert html.build(built.root, "en", QUIET) == 0
    assert "Good again." in built.text("one")


def test_what_changes_during_a_build_is_built_by_the_next(
    built: Book, current: Callable[[], bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = html.subprocess.run

    def edit_meanwhile(command: list[str], **options: object) -> object:
        done = run(command, **options)
        built.page("one", "Written while Sphinx was at work.")
        return done

    built.page("one", "Before.")
    monkeypatch.setattr(html.subprocess, "run", edit_meanwhile)
    assert not current()
    monkeypatch.undo()
    assert not current()
    assert "while Sphinx was at work" in built.text("one")


def test_files_that_say_nothing_do_not_count(built: Book, current: Callable[[], bool]) -> None:
    for name in ("gallery/1-part/__pycache__/x.pyc", "book/locale/zh_CN/LC_MESSAGES/one.mo", "book/gallery/.lock"):
        built.write(name, "x")
    assert current()


def test_the_command_stops_at_the_first_edition_that_fails(
    built: Book, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(html, "ROOT", built.root)
    monkeypatch.setenv("SPHINXOPTS", "-q")
    assert html.main(["en"]) == 0
    assert "nothing has changed" in capfd.readouterr().out
    monkeypatch.setenv("SPHINXOPTS", "-D 'no such option'")
    assert html.main(["en", "zh_CN"]) != 0
    assert not (built.root / "_build/html/zh_CN").exists()

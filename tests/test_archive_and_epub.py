"""`make archive` and `make epub`: the same files give the same bytes, and epubcheck is heard."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest

from tvm_deepdive_helpers.maintain import archive, epub


def write(folder: Path, names: dict[str, str], mtime: int) -> Path:
    for name, text in names.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        os.utime(path, (mtime, mtime))
    return folder


def test_the_same_files_give_the_same_archive(tmp_path: Path) -> None:
    files = {"index.html": "a" * 1000, "b/c.png": "x", ".buildinfo": "y", "b/z.js.map": "m"}
    made = []
    for at, mtime in enumerate((1_000_000_000, 1_700_000_000)):
        folder = write(tmp_path / f"{at}/book", dict(sorted(files.items(), reverse=bool(at))), mtime)
        target = tmp_path / f"{at}.zip"
        archive.pack(archive.book_members(folder, "tvm"), target, 1_600_000_000)
        made.append(target.read_bytes())
    assert made[0] == made[1]
    with zipfile.ZipFile(tmp_path / "0.zip") as read:
        assert read.namelist() == ["tvm/b/c.png", "tvm/index.html"]


def test_an_epub_begins_with_its_kind(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "old.epub", "w", zipfile.ZIP_DEFLATED) as old:
        old.writestr("b.xhtml", "b")
        old.writestr("mimetype", "application/epub+zip")
        old.writestr("a.xhtml", "a")
    epub.repack(tmp_path / "old.epub", tmp_path / "new.epub", 1_600_000_000)
    with zipfile.ZipFile(tmp_path / "new.epub") as read:
        assert read.namelist() == ["mimetype", "a.xhtml", "b.xhtml"]
        assert read.getinfo("mimetype").compress_type == zipfile.ZIP_STORED
    assert (tmp_path / "new.epub").read_bytes()[30:38] == b"mimetype"


def test_complaints_of_epubcheck_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "epubcheck"
    tool.write_text("#!/bin/sh\necho 'ERROR(RSC-005): x.epub/a.xhtml(1,2): bad'\necho 'Check finished'\nexit 1\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert epub.check(tmp_path / "x.epub") == ["ERROR(RSC-005): x.epub/a.xhtml(1,2): bad"]
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    assert epub.check(tmp_path / "x.epub") == []

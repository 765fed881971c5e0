"""`make archive` and `make epub`: the same files give the same bytes, and epubcheck is heard."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from tvm_deepdive_helpers.maintain import archive, epub, messages
from tvm_deepdive_helpers.sphinxext import editions


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


SITE = {
    "index.html": '<a href="en/index.html">English</a><a href="zh_CN/index.html">中文</a>',
    **{
        f"{code}/{name}": f'<head><link rel="alternate" hreflang="{other}" href="../{other}/{name}"/></head>'
        f'<ul class="language-switch">\n<li><a href="../{other}/{name}">x</a></li>\n</ul><p>text</p>'
        for code, other in (("en", "zh_CN"), ("zh_CN", "en"))
        for name in ("index.html", "part/page.html")
    },
    "en/.buildinfo": "y",
    "rubbish/a.html": "left over",
}


def test_without_an_edition_the_whole_site_is_packed(tmp_path: Path) -> None:
    made = []
    for at in range(2):
        site = write(tmp_path / f"{at}/html", dict(sorted(SITE.items(), reverse=bool(at))), 1_000_000_000 + at)
        made.append(archive.build("", site, tmp_path / f"{at}/out", 1_600_000_000))
    assert made[0].name == "tvm-deep-dive-en-zh_CN.zip", "the name says what is in it"
    assert made[0].read_bytes() == made[1].read_bytes()
    with zipfile.ZipFile(made[0]) as read:
        top = "tvm-deep-dive-en-zh_CN"
        assert read.namelist() == [f"{top}/index.html"] + [
            f"{top}/{code}/{name}" for code in ("en", "zh_CN") for name in ("index.html", "part/page.html")
        ]
        assert read.read(f"{top}/en/index.html").decode() == SITE["en/index.html"], "the editions lead to each other"


def test_an_edition_that_is_packed_alone_leads_to_no_other(tmp_path: Path) -> None:
    site = write(tmp_path / "html", SITE, 1_000_000_000)
    made = archive.build("zh_CN", site, tmp_path, 1_600_000_000)
    assert made.name == "tvm-deep-dive-zh_CN.zip"
    with zipfile.ZipFile(made) as read:
        assert read.namelist() == ["tvm-deep-dive-zh_CN/index.html", "tvm-deep-dive-zh_CN/part/page.html"]
        assert read.read("tvm-deep-dive-zh_CN/part/page.html") == b"<head></head><p>text</p>"


@pytest.mark.parametrize(
    ("edition", "lacks", "message"),
    [
        ("", "index.html", "there is no _build/html/index.html; run make html first"),
        ("", "zh_CN/index.html", "there is no _build/html/zh_CN/index.html; run make html first"),
        ("en", "en/index.html", "there is no _build/html/en/index.html; run make html EDITION=en first"),
    ],
)
def test_what_is_not_built_is_named(tmp_path: Path, edition: str, lacks: str, message: str) -> None:
    site = write(tmp_path / "html", SITE, 1_000_000_000)
    (site / lacks).unlink()
    with pytest.raises(SystemExit, match=message):
        archive.build(edition, site, tmp_path, 1_600_000_000)


def test_the_first_page_names_all_editions() -> None:
    start = Path(__file__).parent.parent / "book/_data/start.html"
    assert archive.editions_of(start) == ["en", *messages.LANGUAGES]


@pytest.mark.parametrize(("language", "named", "title"), [("en", "en", "x"), ("zh_CN", "zh-CN", "深入 TVM")])
def test_an_epub_names_its_language(language: str, named: str, title: str) -> None:
    config = SimpleNamespace(
        language=language, templates_path=[], latex_elements={}, latex_documents=[], html_baseurl="", epub_title="x"
    )
    editions._settings(SimpleNamespace(confdir="book"), config)
    assert (config.epub_language, config.epub_title) == (named, title)


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

"""Two languages of one book: what is translated, what stays the same bytes, and how one leads to the other."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import polib
import pytest
from books import Book, build_edition

from tvm_deepdive_helpers.maintain import messages
from tvm_deepdive_helpers.sphinxext import searching

ROOT = Path(__file__).resolve().parent.parent
SETTINGS = """
locale_dirs = ["locale"]
gettext_compact = False
gettext_additional_targets = ["index"]
tvm_editions = {"en": "English", "zh_CN": "简体中文"}
numfig = True
myst_enable_extensions = ["colon_fence", "dollarmath"]
"""
SCRIPT = """
    # %% cell: lines
    from tvm_deepdive_helpers import glue
    for n in range(5):
        print("line", n)
    glue("five", 5)
    """
PAGE = """
    ```{question}
    What is a loop?
    ```

    A paragraph with {glue}`five` values and `code`. {index}`Loops <loop>` too.

    ```{gallery-cell} lines
    :lines: 2-3
    :caption: A caption with {glue}`five` and `code`
    ```

    | Head | Other |
    |---|---|
    | entry | `x` |

    ```{exercise} The title of an exercise
    :label: ex-one
    Do it.
    ```

    See {ref}`ex-one`.

    ```{solution-cell} lines
    The words of the solution.
    ```

    :::{dropdown} The title of a dropdown
    Inside.
    :::

    ```{design-note} Why *this*
    A note.
    ```

    $$ a = b $$

    ```{summary}
    You can now loop.
    ```
    """


class _Blocks(HTMLParser):
    """What stands in preformatted blocks."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.depth = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "pre":
            self.depth += 1
            self.found.append("")

    def handle_endtag(self, tag: str) -> None:
        self.depth -= tag == "pre"

    def handle_data(self, data: str) -> None:
        if self.depth:
            self.found[-1] += data


def translate(book: Book, page: str, change: dict[str, str] | None = None) -> list[str]:
    """Translate every message of a page into Chinese characters and itself; return the messages."""
    book.good_build("-d", str(book.root / "_build/pots"), builder="gettext")
    pot = polib.pofile(str(book.root / f"_build/gettext/{page}.pot"), wrapwidth=0)
    for entry in pot:
        entry.msgstr = (change or {}).get(entry.msgid, f"译 {entry.msgid}")
    path = book.root / f"book/locale/zh_CN/LC_MESSAGES/{page}.po"
    path.parent.mkdir(parents=True, exist_ok=True)
    pot.save(str(path))
    return [entry.msgid for entry in pot]


def chinese(book: Book) -> str:
    return book.good_build("-D", "language=zh_CN", "-d", str(book.root / "_build/doctrees/zh"))


@pytest.fixture
def two(book: Book) -> Book:
    """A small book with one page that uses everything, in English."""
    path = book.root / "conf.py"
    path.write_text(path.read_text() + SETTINGS)
    (book.root / "gallery/1-part/GALLERY_HEADER.rst").write_text("Part\n====\n\nWords of the part.\n")
    book.script("plot", SCRIPT)
    book.page("one", PAGE, front='covers: []\ngallery: 1-part/plot\nneeds: ["always"]')
    book.good_build()
    return book


def test_every_text_of_a_page_is_translated_and_no_code(two: Book) -> None:
    english = two.html("one")
    wanted = translate(two, "one")
    for text in (
        "What is a loop?", "A caption with {glue}`five` and `code`", "entry", "The title of an exercise",
        "The words of the solution.", "The title of a dropdown", "Why *this*", "You can now loop.",
    ):  # fmt: skip
        assert text in wanted
    assert not [text for text in wanted if text in ("Solution", "The question") or "a = b" in text or "line 1" in text]
    log = chinese(two)
    assert two.executed(log) == set(), "the second language runs nothing"
    page = two.text("one")
    body = page[page.index("译 Page one") :]
    for text in ("What is a loop?", "A caption with 5 and code", "entry", "Do it.", "Inside.", "A note."):
        assert f"译 {text}" in body
    assert "设计说明：译 Why this" in body
    assert re.search(r"分钟。请先读：[^.]+。[\d-]+ 在 TVM", body), "no half-width punctuation between Chinese sentences"
    assert re.search(r"译 The title of an exercise", body)
    assert "答案" in body and "Solution" not in body
    assert "… 前面还有 1 行" in body
    assert "翻译" not in body, "a page that is translated has no remark"
    assert _Blocks(two.html("one")).found == _Blocks(english).found
    assert 'lang="zh-CN"' in two.html("one")


def test_a_page_says_how_far_its_translation_is(two: Book) -> None:
    translate(two, "one")
    chinese(two)
    assert "本页尚未翻译" in two.text("always") and '<div lang="en">' in two.html("always")
    page = two.root / "book/one.md"
    page.write_text(page.read_text().replace("Do it.", "Do it twice."))
    chinese(two)
    text = two.text("one")
    assert "有 1 条文字已经变更" in text
    assert "Do it twice." in text and "译 Do it" not in text
    assert '<div lang="en">' not in two.html("one")


def test_pages_of_scripts_speak_the_language(two: Book) -> None:
    wanted = translate(two, "gallery/1-part/plot")
    assert wanted == ["plot", "A script."], "what sphinx-gallery writes on every page is no message"
    chinese(two)
    text = two.text("gallery/1-part/plot")
    assert "下载 Python 源码：plot.py" in text and "下载完整的示例代码" in text
    index = two.html("gallery/index")
    assert 'tooltip="译 A script."' in index
    assert re.search(r'thumbnail-title">(<[^>]+>)*译 plot', index)


def test_each_page_leads_to_itself_in_the_other_language(two: Book) -> None:
    page = two.html("gallery/1-part/plot")
    assert 'hreflang="zh-CN" href="../../../zh_CN/gallery/1-part/plot.html"' in page
    assert 'hreflang="x-default" href="../../../en/gallery/1-part/plot.html"' in page
    assert 'hreflang="zh-CN" href="../zh_CN/index.html"' in two.html("index")


def test_a_new_translation_shows_without_a_change_of_the_page(two: Book) -> None:
    chinese(two)
    assert "本页尚未翻译" in two.text("one")
    translate(two, "one")
    chinese(two)
    assert "本页尚未翻译" not in two.text("one")


def test_the_table_of_translations(two: Book) -> None:
    two.page("table", "```{translation-status}\n```\n")
    translate(two, "one")
    two.good_build()
    cells = re.sub(r"\s+", " ", two.text("table"))
    total = len({entry.msgid for entry in polib.pofile(str(two.root / "_build/gettext/one.pot"))})
    assert f"Page one {total} {total}" in cells
    assert re.search(r"Page always 2 (?!2)", cells)


# Search, as far as it needs no browser


def test_chinese_is_cut_into_pairs_and_names_stay_whole() -> None:
    assert searching.pieces("张量中间表示") == ["张量", "量中", "中间", "间表", "表示"]
    assert searching.pieces("块") == ["块"]
    assert searching.pieces("Relax结构") == ["Relax", "结构"]
    assert searching.pieces("s_tir.meta_schedule, 3.14") == ["s_tir", "meta_schedule", "s_tir.meta_schedule", "3", "14"]


def test_words_of_the_glossary_stand_for_each_other() -> None:
    lists = searching.equivalents(ROOT / "gallery/data/glossary.toml")
    assert ["operator fusion", "算子融合"] in lists
    assert all(len(words) == len(set(words)) > 1 for words in lists)


# The real book


def test_code_and_outputs_are_the_same_bytes_in_both_editions() -> None:
    """Both are built as `make html` builds them; nothing runs twice, and what is preformatted does not differ."""
    english, other = (build_edition(edition) for edition in ("en", "zh_CN"))
    pages = [path.relative_to(english) for path in english.rglob("*.html")]
    pages = [page for page in pages if not page.parts[0].startswith("_")]
    assert len(pages) > 100
    problems = []
    for page in pages:
        if not (other / page).is_file():
            problems.append(f"{page}: not in Chinese")
        elif _Blocks((english / page).read_text("utf-8")).found != _Blocks((other / page).read_text("utf-8")).found:
            problems.append(f"{page}: other code or outputs")
    assert not problems, "\n".join(problems)


def test_the_first_page_leads_to_both_editions() -> None:
    text = (ROOT / "book/_data/start.html").read_text(encoding="utf-8")
    for edition in ("en", "zh_CN"):
        assert f'<a href="{edition}/index.html"' in text
    assert messages.LANGUAGES == ("zh_CN",)

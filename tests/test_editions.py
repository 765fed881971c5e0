"""Two languages of one book: what is translated, what stays the same bytes, and how one leads to the other."""

from __future__ import annotations

import html
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
smartquotes_excludes = {"languages": [], "builders": ["man", "text"]}
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
    page.write_text(page.read_text().replace("Do it.", 'Do it "twice".'))
    chinese(two)
    text = two.text("one")
    assert "有 1 条文字已经变更" in text
    assert "Do it “twice”." in text and "译 Do it" not in text
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


def test_the_printed_book_is_chinese_and_quotes_english_in_its_own_marks(two: Book) -> None:
    translate(two, "one")
    two.good_build("-D", "language=zh_CN", "-d", str(two.root / "_build/doctrees/zh-latex"), builder="latex")
    [path] = (two.root / "_build/latex").glob("*.tex")
    text = path.read_text(encoding="utf-8")
    assert r"\title{深入 TVM}" in text and "pdflang={zh-CN}" in text and "第 \\thechapter{} 章" in text
    assert "（译 The title of an exercise）" in text
    assert r"）" in text and r"(\autopageref" not in text
    english = text[text.index("本页尚未翻译") :]
    assert english.index(r"\englishmarks") < english.index(r"\chinesemarks"), "the page that is not translated"
    assert text.count(r"\englishmarks") == text.count(r"\chinesemarks") - 1, "which ends them again"


def test_an_edition_is_published_beside_the_english_one(two: Book) -> None:
    conf = two.root / "conf.py"
    conf.write_text(conf.read_text() + 'html_baseurl = "https://example.org/deep/en/"\n')
    two.good_build()
    both = (
        'hreflang="en" href="https://example.org/deep/en/one.html"',
        'hreflang="zh-CN" href="https://example.org/deep/zh_CN/one.html"',
    )
    page = two.html("one")
    assert '<link rel="canonical" href="https://example.org/deep/en/one.html"' in page
    assert all(link in page for link in both)
    chinese(two)
    page = two.html("one")
    assert '<link rel="canonical" href="https://example.org/deep/zh_CN/one.html"' in page
    assert all(link in page for link in both)


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


HAN = re.compile("[\u4e00-\u9fff]")
#: What is said in English in every edition: names, and keys of the keyboard.
NAMES = {"TVM Deep Dive", "English", "Ctrl", "PDF", "EPUB"}
#: Attributes that are shown or read aloud.
SAID = {"aria-label", "title", "alt", "placeholder", "data-bs-title", "aria-description", "aria-roledescription"}
#: Parts of a page that hold titles of pages and sections, which are translated with their page.
TITLES = {"bd-toc-item", "prev-next-title", "toc-entry", "onlyprint", "sphx-glr-thumbcontainer", "toctree-wrapper"}
#: Texts within the article that the book's machinery writes; titles of boxes are an author's, in part.
GENERATED = {"cell-origin", "caption-number", "page-facts", "headerlink", "translation-note"}
BOXES = {"admonition-title", "sd-summary-text"}
VOID = {"meta", "link", "input", "img", "br", "hr", "source", "path", "wbr", "line", "circle", "rect", "polyline"}


class _Interface(HTMLParser):
    """Words that a reader of another edition would see or hear in English."""

    def __init__(self, text: str, titles: set[str], translated: bool) -> None:
        super().__init__()
        self.english: list[str] = []
        self.open: list[tuple[str, frozenset[str]]] = []
        self.titles, self.translated = titles, translated
        self.feed(text)

    def _within(self, *names: str) -> bool:
        return any(tag in names or classes & set(names) for tag, classes in self.open)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        classes = frozenset((dict(attrs).get("class") or "").split())
        if not (tag == "link" and dict(attrs).get("rel") in ("next", "prev", "index")):
            for name, value in attrs:
                if name in SAID and not (classes & {"sphx-glr-single-img", "sphx-glr-thumbnail"} or tag == "summary"):
                    self._look(value or "", f"{tag} {name}")
        if tag not in VOID:
            self.open.append((tag, classes))

    def handle_endtag(self, tag: str) -> None:
        while any(name == tag for name, _classes in self.open) and self.open.pop()[0] != tag:
            pass

    def handle_data(self, data: str) -> None:
        if not self._within("script", "style", "noscript", "pre", "code", "math", *TITLES):
            self._look(data, self.open[-1][0] if self.open else "")

    def _look(self, text: str, place: str) -> None:
        text = " ".join(text.split())
        if HAN.search(text) or not re.search("[A-Za-z]{3}", text) or text in NAMES or text in self.titles:
            return
        generated = GENERATED | BOXES if self.translated else GENERATED
        written = self._within("article") and not self._within(*generated)
        # Names of things are English in a Chinese sentence; two small words in a row are no name.
        if written and not (self.translated and re.search(r"(?<![\w./-])[a-z]{2,} [a-z]{2,}(?![\w./-])", text)):
            return
        if self._within("cell-origin", "translation-note") and not re.search("[a-z] [a-z]", text):
            return
        self.english.append(f"{place}: {text}")


@pytest.mark.parametrize(
    ("page", "translated"),
    [
        ("index", False),
        ("0-start/setup", True),
        ("1-architecture/pipeline", True),
        ("1-architecture/source-map", True),
        ("2-tir/index", True),
        ("2-tir/overview", False),
        ("7-practice/custom-operator", False),
        ("8-appendix/glossary", False),
        ("8-appendix/status", False),
        ("8-appendix/pass-explorer", False),
        ("gallery/index", True),
        ("gallery/1-architecture/pipeline", True),
        ("gallery/2-tir/tir_overview", False),
        ("search", True),
        ("genindex", False),
        ("404", True),
    ],
)
def test_the_words_around_a_chinese_page_are_chinese(page: str, translated: bool) -> None:
    """Buttons, labels, titles of boxes: what the theme, Sphinx, its extensions and the book's own ones write."""
    other, english = ROOT / "_build/html/zh_CN", ROOT / "_build/html/en"
    if not (other / f"{page}.html").is_file():
        build_edition("zh_CN")
    text = (other / f"{page}.html").read_text(encoding="utf-8")
    titles = set()
    for path in (ROOT / "book").rglob("*.md"):
        if found := re.search(r"^# (.+)$", path.read_text(encoding="utf-8"), re.M):
            titles |= {found[1], f"{found[1]} — TVM Deep Dive"}
    if not translated:
        titles.add(html.unescape(re.search(r"<title>([^<]*)</title>", text)[1]))
    assert not _Interface(text, titles, translated).english
    if (english / f"{page}.html").is_file():
        source = (english / f"{page}.html").read_text(encoding="utf-8")
        assert _Interface(source, titles, translated).english, "the same look at an English page finds English"


def test_the_first_page_leads_to_both_editions() -> None:
    text = (ROOT / "book/_data/start.html").read_text(encoding="utf-8")
    for edition in ("en", "zh_CN"):
        assert f'<a href="{edition}/index.html"' in text
    assert messages.LANGUAGES == ("zh_CN",)

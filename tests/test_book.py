"""The promises of the book, checked on the real one: it is built once for this module, with warnings as errors."""

from __future__ import annotations

import re
import sys
import tomllib
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

from tvm_deepdive_helpers.maintain import snapshots
from tvm_deepdive_helpers.sphinxext import records

ROOT = Path(__file__).resolve().parent.parent
HTML = ROOT / "_build/html/en"
PAGES = sorted(path for path in (ROOT / "book").glob("*/*.md") if not path.parent.name.startswith("_"))


@pytest.fixture(scope="module", autouse=True)
def built(english_book: Path) -> None:
    """The book is built before its promises are checked."""


def front_matter(page: Path) -> dict:
    match = re.match(r"---\n(.*?)\n---\n", page.read_text(encoding="utf-8"), re.S)
    return (yaml.safe_load(match[1]) or {}) if match else {}


def page_id(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


CHAPTERS = [page for page in PAGES if front_matter(page).get("covers") is not None]


@pytest.mark.skipif(
    sys.version_info[:2] != snapshots.REFERENCE_PYTHON, reason="snapshots are those of the reference Python"
)
def test_outputs_are_the_accepted_ones() -> None:
    problems = snapshots.compare()
    assert not problems, "\n\n".join(problems)


def test_every_row_of_the_outline_is_carried_by_one_page() -> None:
    """Rows that no page carries yet stand in the list `open`, which only shrinks."""
    outline = tomllib.loads((ROOT / "book/_data/outline.toml").read_text(encoding="utf-8"))
    carried: dict[str, list[str]] = {}
    for page in CHAPTERS:
        for row in front_matter(page)["covers"]:
            carried.setdefault(row, []).append(page_id(page))
    twice = {row: pages for row, pages in carried.items() if len(pages) > 1}
    assert not twice, f"rows carried by more than one page: {twice}"
    unknown = carried.keys() - outline["rows"].keys()
    assert not unknown, f"no such row in book/_data/outline.toml: {unknown}"
    still_open = set(outline["open"])
    missing = outline["rows"].keys() - carried.keys() - still_open
    assert not missing, f"no page carries {sorted(missing)}"
    done = carried.keys() & still_open
    assert not done, f"now carried: take {sorted(done)} out of the list 'open' in book/_data/outline.toml"


@pytest.mark.parametrize("page", CHAPTERS, ids=page_id)
def test_a_chapter_is_whole(page: Path) -> None:
    """Question, executed cell, citation, exercise with checked solution, summary."""
    text = page.read_text(encoding="utf-8")
    if page.name == "index.md":
        return
    wanted = {
        "a question": r"^`{3,}\{question\}",
        "an executed cell": r"^`{3,}\{gallery-cell\}",
        "an exercise": r"^`{3,}\{exercise\}",
        "a solution": r"^`{3,}\{solution-cell\}",
        "a summary": r"^`{3,}\{summary\}",
    }
    if front_matter(page)["covers"]:
        wanted["a citation"] = r"\{tvm-(py|cpp)\}`"
    missing = [what for what, pattern in wanted.items() if not re.search(pattern, text, re.M)]
    assert not missing, f"{page_id(page)} lacks {', '.join(missing)}"


def test_every_named_cell_is_shown() -> None:
    """A cell that no page shows is a check, and needs no name; only `setup`, the imports, may stay out of the text."""
    shown: set[tuple[str, str]] = set()
    for page in PAGES:
        default = front_matter(page).get("gallery", "")
        for target in re.findall(
            r"^\s*[`:]{3,}\{(?:gallery|solution)-cell\} +(\S+)", page.read_text(encoding="utf-8"), re.M
        ):
            script, colon, name = target.rpartition(":")
            shown.add((script if colon else default, name))
    unused = []
    for path in sorted((ROOT / "book/gallery").glob(f"*/*{records.SUFFIX}")):
        record = records.load(path)
        unused += [
            f"gallery/{record.script}.py:{cell.line}: {cell.name}"
            for cell in record.cells
            if cell.name not in (None, "setup") and (record.script, cell.name) not in shown
        ]
    assert not unused, "no page shows these cells; show them, or begin them with '# %% check':\n" + "\n".join(unused)


class _Page(HTMLParser):
    """Images without alternative text, and things loaded from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.no_alt: list[str] = []
        self.foreign: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        got = dict(attrs)
        # A thumbnail of the gallery's index is decoration: the title of the script stands beside it.
        if tag == "img" and not (got.get("alt") or "").strip() and "_thumb." not in str(got.get("src")):
            self.no_alt.append(str(got.get("src")))
        link = got.get("src") if tag != "link" else (got.get("href") if got.get("rel") == "stylesheet" else None)
        if link and re.match(r"(https?:)?//", link):
            self.foreign.append(link)


def test_pages_load_nothing_from_elsewhere_and_describe_their_pictures() -> None:
    problems = []
    for path in sorted(HTML.rglob("*.html")):
        parser = _Page()
        parser.feed(path.read_text(encoding="utf-8"))
        problems += [f"{path.relative_to(HTML)}: no alt text for {name}" for name in parser.no_alt]
        problems += [f"{path.relative_to(HTML)}: loads {link}" for link in parser.foreign]
    assert not problems, "\n".join(problems)


def test_every_page_with_code_says_on_which_tvm_it_ran_and_when() -> None:
    pattern = re.compile(r'class="page-facts">[^\n]*Run on TVM \d+\.\d+[\w.]*, \d{4}-\d\d-\d\d\.')
    lacking = []
    for path in sorted(HTML.rglob("*.html")):
        text = path.read_text(encoding="utf-8")
        if 'class="gallery-cell' in text or 'class="sphx-glr-example-title"' in text:
            lacking += [] if pattern.search(text) else [path.relative_to(HTML).as_posix()]
    assert not lacking, f"these pages do not say when their cells ran: {lacking}"


def test_the_status_page_lists_every_script() -> None:
    text = (HTML / "8-appendix/status.html").read_text(encoding="utf-8")
    scripts = [path.relative_to(ROOT / "gallery").with_suffix("") for path in (ROOT / "gallery").glob("*/*.py")]
    missing = [str(name) for name in scripts if f'href="../gallery/{name.as_posix()}.html"' not in text]
    assert scripts and not missing, f"not on the status page: {missing}"


def test_every_page_has_the_list_of_pages_at_its_side() -> None:
    """The first page, the search and the index, too: the theme has exceptions for pages that stand in no part."""
    pages = [path for path in HTML.rglob("*.html") if "_static" not in path.relative_to(HTML).parts]
    whole = [path for path in pages if 'http-equiv="refresh"' not in path.read_text(encoding="utf-8")]
    assert {"index.html", "search.html", "genindex.html", "404.html"} <= {path.name for path in whole}
    for path in whole:
        aside = path.read_text(encoding="utf-8").partition("bd-docs-nav")[2].partition("</nav>")[0]
        assert aside.count("toctree-l2") > 100, f"{path.relative_to(HTML)}: no list of pages at the side"


def test_no_path_of_this_machine_in_the_book() -> None:
    forbidden = [str(ROOT), str(Path.home()) + "/", sys.prefix, "/tmp/"]
    found = []
    for path in [*HTML.rglob("*.html"), *HTML.rglob("*.ipynb"), *HTML.rglob("searchindex.js")]:
        text = path.read_text(encoding="utf-8")
        found += [f"{path.relative_to(HTML)}: {word}" for word in forbidden if word in text]
    assert not found, "\n".join(found)

"""`gallery-cell`, `solution-cell`, `glue`, the boxes of a page: what they show, and how wrong input is answered."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest

from tvm_deepdive_helpers.sphinxext import cells, records

SCRIPT = """
from tvm_deepdive_helpers import expect_error, glue

# %% cell: shown
for number in range(5):
    print("line", number)
glue("count", 5)
glue("ratio", 1.23456)

# %% cell: silent
x = 1

# %% cell: refused
with expect_error(ValueError, match="invalid literal"):
    int("no number")

# %% cell: figure
import matplotlib.pyplot as plt
fig, ax = plt.subplots()
ax.plot([1, 2, 3])
"""


@pytest.fixture
def story(book):
    book.script("story", SCRIPT)
    return book


def test_cells_show_code_output_figures_and_origin(story) -> None:
    story.page(
        "one",
        """
        There are {glue}`count` lines, ratio {glue}`ratio|.2f`, and {glue}`1-part/story:count|03d`.

        ```{gallery-cell} shown
        :lines: 2-3
        :caption: The *second* and third line
        ```

        ```{gallery-cell} silent
        ```

        ```{gallery-cell} refused
        ```

        ```{gallery-cell} figure
        :show: output
        :alt: A line that rises
        ```
        """,
        front="gallery: 1-part/story",
    )
    story.good_build()
    text, html = story.text("one"), story.html("one")
    assert "There are 5 lines, ratio 1.23, and 005." in text
    assert re.search(r"… 1 lines? before\s+line 1\s+line 2\s+… 2 lines more", text)
    assert "The <em>second</em> and third line" in html
    assert "ValueError: invalid literal for int()" in text
    assert "cell-fails" in html
    assert 'alt="A line that rises"' in html
    assert "only-dark" in html
    assert 'href="gallery/1-part/story.html"' in html
    story.good_build(builder="latex")
    tex = next((story.root / "_build/latex").glob("*.tex")).read_text()
    assert "line 1" in tex
    assert tex.count("includegraphics") >= 1
    assert "_dark" not in tex


def test_only_pages_that_show_a_script_are_read_again(story) -> None:
    story.script("other", "# %% cell: o\nprint('o')\n")
    story.page("one", "```{gallery-cell} 1-part/story:shown\n```")
    story.page("two", "```{gallery-cell} 1-part/other:o\n```")
    story.page("three", "Text.")
    story.good_build()
    story.script("other", "# %% cell: o\nprint('p')\n")
    log = story.good_build("-v")
    assert story.executed(log) == {"other"}
    assert story.read_pages(log) & {"one", "two", "three"} == {"two"}
    assert "p" in story.text("two")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (
            "```{gallery-cell} 1-part/story:shwon\n```",
            r"one\.md:3.*no cell 'shwon'; it has \[shown, figure, refused, silent\]",
        ),
        (
            "```{gallery-cell} 1-part/stroy:shown\n```",
            r"one\.md:3.*no gallery script '1-part/stroy'; there is \[1-part/story\]",
        ),
        ("```{gallery-cell} shown\n```", r"one\.md:3.*'shown' names no script"),
        ("```{gallery-cell} 1-part/story:silent\n:show: both\n```", r"one\.md:3.*printed and drew nothing"),
        ("```{gallery-cell} 1-part/story:figure\n```", r"one\.md:3.*say in ':alt:'"),
        ("```{gallery-cell} 1-part/story:shown\n:lines: 4-9\n```", r"one\.md:3.*printed 5 lines, not 9"),
        ("```{gallery-cell} 1-part/story:shown\n:lines: x\n```", r"one\.md:4.*is not a range of lines"),
        ("```{gallery-cell} 1-part/story:shown\n:show: all\n```", r"one\.md:4"),
        ("Text {glue}`1-part/story:cuont`.", r"one\.md:3.*glues no 'cuont'; it glues \[count, ratio\]"),
        ("Text {glue}`1-part/story:count|.2q`.", r"one\.md:3.*cannot format 5 with '.2q'"),
        ("Text {glue}`count`.", r"one\.md:3.*'count' names no script"),
        ("```{question}\n```", r"one\.md:3"),
    ],
)
def test_wrong_input_names_file_line_and_what_exists(story, body, words) -> None:
    story.page("one", f"\n{body}\n")
    log = story.bad_build()
    assert re.search(words, log), log


def test_a_failed_build_does_not_turn_green_when_repeated(story) -> None:
    story.page("one", "{glue}`1-part/story:cuont`")
    story.bad_build()
    story.bad_build()
    story.page("one", "{glue}`1-part/story:count`")
    story.good_build()


def test_boxes_facts_and_solution(story) -> None:
    story.page("first", "Text.")
    story.page(
        "one",
        """
        ```{question}
        Why?
        ```

        ```{exercise} Count them
        :label: ex-count
        How many lines?
        ```

        ````{solution-cell} shown
        Count the *lines*.
        ````

        ```{design-note} Why *this*
        Because.
        ```

        ```{summary}
        You can count.
        ```
        """,
        front='covers: ["1.1"]\ngallery: 1-part/story\nneeds: [first]',
    )
    story.good_build()
    html, text = story.html("one"), story.text("one")
    for kind in ("question", "summary", "design-note"):
        assert re.search(rf'class="[^"]*admonition[^"]*\b{kind}\b|class="[^"]*\b{kind}\b[^"]*admonition', html), kind
    assert "<details" in html
    assert html.index("Count the <em>lines</em>") < html.index("line 4")
    assert re.search(
        r"Reading time: about 1 min\. Read first: Page first\. Run on TVM [\d.]+\w*, \d{4}-\d\d-\d\d\.", text
    ), text
    for builder in ("latex", "gettext"):
        story.good_build(builder=builder)


def test_status_page_lists_every_script(story) -> None:
    story.script("other", "# %% cell: o\nprint('o')\n")
    story.page("status", "```{gallery-status}\n```")
    story.good_build()
    text = story.text("status")
    assert "story" in text
    assert "other" in text
    assert "0.27" in text
    story.script("third", "# %% cell: o\nprint('o')\n")
    story.good_build()
    assert "third" in story.text("status")


def test_parallel_reading_gives_the_same_pages(story) -> None:
    for number in range(9):
        story.page(f"page{number}", "{glue}`1-part/story:count`\n\n```{gallery-cell} 1-part/story:shown\n```")

    def pages() -> dict[int, str]:
        # sphinx-exercise copies its style sheet at the end of the first build, so only later ones know its checksum.
        return {number: re.sub(r"\?v=\w+", "", story.html(f"page{number}")) for number in range(9)}

    story.good_build("-j", "2")
    first = pages()
    story.good_build("-E")
    assert first == pages()
    assert story.read_pages(story.good_build("-v", "-j", "2")) == set()


def test_output_as_a_table(book) -> None:
    book.script(
        "rows",
        """
        # %% cell: table
        print("Old | Today")
        print("`a.b` | text and `c(d)`")
        print("x | ")

        # %% cell: no-table
        print("Old | Today")
        print("only one")
        """,
    )
    book.page(
        "one",
        """
        ```{gallery-cell} table
        :show: output
        :table:
        ```
        """,
        front="gallery: 1-part/rows",
    )
    book.good_build()
    html = book.html("one")
    assert html.count("<tr") == 3 and "cell-table" in html
    assert re.search(r"<code[^>]*><span class=\"pre\">c\(d\)</span></code>", html)
    book.page("one", "```{gallery-cell} no-table\n:table:\n```\n", front="gallery: 1-part/rows")
    log = book.bad_build()
    assert "cell 'no-table' printed no table" in log and "line 2 is 'only one'" in log


def test_a_script_that_was_saved_during_the_build_is_not_called_missing(tmp_path) -> None:
    (tmp_path / "book").mkdir()
    (tmp_path / "gallery/1-part").mkdir(parents=True)
    (tmp_path / "gallery/1-part/late.py").write_text("", encoding="utf-8")
    config = SimpleNamespace(sphinx_gallery_conf={"examples_dirs": "../gallery", "gallery_dirs": "gallery"})
    env = SimpleNamespace(srcdir=tmp_path / "book", config=config, note_dependency=lambda path: None)
    with pytest.raises(records.RecordError, match=r"gallery/1-part/late\.py has no results: it was saved during"):
        cells.load_record(env, "1-part/late:shown")
    with pytest.raises(records.RecordError, match="no gallery script '1-part/none'"):
        cells.load_record(env, "1-part/none:shown")

"""What a browser or a program gets beside the text: names, smaller pictures, formulas, Markdown."""

from __future__ import annotations

import io
import random
import re
import tomllib
from pathlib import Path

import pytest
from docutils import nodes

from tvm_deepdive_helpers.sphinxext import markdown, web

ROOT = Path(__file__).resolve().parent.parent


def test_the_arrow_of_a_part_has_its_name() -> None:
    html = (
        '<a class="reference internal" href="x.html">Part <em>2</em></a><details><summary><span></span></summary>'
        '<ul><li><a class="reference internal" href="y.html">Page</a></li></ul></details>'
    )
    assert '<summary aria-label="Part 2">' in web.name_folds(html)
    assert web.name_folds(html).count("aria-label") == 1
    before = '<li><a class="reference internal" href="x.html">Page of part 1</a></li></ul></details></li>'
    assert '<summary aria-label="Part 2">' in web.name_folds(before + html), "not the pages above"


def test_a_thumbnail_has_one_link_that_is_seen() -> None:
    html = (
        '<p><a class="reference internal" href="x.html"><span class="doc">Title</span></a></p>\n'
        '  <div class="sphx-glr-thumbnail-title">Title</div>'
    )
    assert web.name_thumbnails(html) == (
        '<div class="sphx-glr-thumbnail-title"><a class="reference internal" href="x.html">'
        '<span class="doc">Title</span></a></div>'
    )


def test_a_picture_gets_fewer_colors_and_keeps_its_size() -> None:
    from PIL import Image

    colors = random.Random(1)
    picture = Image.frombytes("RGBA", (300, 200), b"".join(colors.randbytes(3) + b"\xff" for _ in range(60000)))
    out = io.BytesIO()
    picture.save(out, "PNG")
    small = web.fewer_colors(out.getvalue())
    assert len(small) < len(out.getvalue())
    with Image.open(io.BytesIO(small)) as made:
        assert (made.mode, made.size) == ("P", (300, 200))
    assert web.fewer_colors(small) == small


def test_a_formula_is_mathml() -> None:
    assert web.mathml(r"x_i^2", block=False).startswith("<math")
    assert 'display="block"' in web.mathml(r"\frac{1}{2}", block=True)


def test_a_block_of_code_may_hold_fences() -> None:
    assert markdown.fence("a\n```\nb", "text") == "````text\na\n```\nb\n````"
    assert markdown.markdown_link("../a/b.html#c") == "../a/b.md#c"
    assert markdown.markdown_link("https://example.org/x.html") == "https://example.org/x.html"


def test_markdown_of_a_tree() -> None:
    from docutils.core import publish_doctree

    tree = publish_doctree(
        """
Title
=====

A *word* and ``code`` and a link_.

.. _link: page.html

- one
- two

  more

.. note:: Careful.

=====  =====
head   b|c
=====  =====
1      2
=====  =====

::

    x = 1
"""
    )
    text = markdown.to_markdown(tree)
    assert "A *word* and `code` and a [link](page.md)." in text
    assert "- one\n- two\n\n  more" in text
    assert "> **Note**\n\n> Careful." in text
    assert "| head | b\\|c |\n| --- | --- |\n| 1 | 2 |" in text
    assert "```\nx = 1\n```" in text
    assert isinstance(tree, nodes.document)


def test_a_small_book_has_its_markdown(book) -> None:
    book.script("one", '# %% cell: hello\nprint("4" + "2")\n')
    book.page(
        "shown",
        """
        ```{question}
        What is printed?
        ```

        ```{gallery-cell} hello
        ```
        """,
        front="gallery: 1-part/one",
    )
    book.good_build()
    text = (book.out / "shown.md").read_text(encoding="utf-8")
    assert text.startswith("# Page shown\n")
    assert '```python\nprint("4" + "2")\n```' in text and "```\n42\n```" in text
    assert "[Page shown](shown.md): What is printed?" in (book.out / "llms.txt").read_text(encoding="utf-8")
    # The page of the script says when it ran, and so does a page that shows its cells.
    assert "Run on TVM" in book.text("gallery/1-part/one") and "Run on TVM" in book.text("shown")


def test_a_published_book_has_what_needs_an_address(book) -> None:
    settings = (ROOT / "conf.py").read_text(encoding="utf-8")
    # The part of the book's own configuration that is about publishing, in a small book.
    part = settings[settings.index("# Where the book is published") : settings.index("# EPUB:")]
    conf = book.root / "conf.py"
    conf.write_text(
        conf.read_text(encoding="utf-8").replace('html_theme = "basic"', 'html_theme = "sphinx_book_theme"')
        + "import tomllib\nfrom pathlib import Path\nfrom urllib.parse import urlsplit\nimport re\n"
        + f"ROOT = Path({str(ROOT)!r})\n"
        + 'extensions += ["notfound.extension", "sphinx_reredirects"]\n'
        + f"templates_path = [{str(ROOT / 'book/_templates')!r}]\n"
        + 'html_context = {"default_mode": "auto"}\n'
        + 'html_theme_options = {"footer_content_items": ["page-forms"]}\n'
        + 'os.environ["BOOK_URL"] = "https://example.org/deep/en/"\n'
        + part
        + 'redirects = {"old/place": "../always.html"}\n',
        encoding="utf-8",
    )
    book.good_build()
    assert "<loc>https://example.org/deep/en/always.html</loc>" in (book.out / "sitemap.xml").read_text(
        encoding="utf-8"
    )
    page = book.html("always")
    assert '<link rel="canonical" href="https://example.org/deep/en/always.html"' in page
    card = re.search(r'property="og:image" content="https://example.org/deep/en/(_images/social_previews/[^"]+)"', page)
    assert card and (book.out / card[1]).is_file()
    assert 'href="./../tvm-deep-dive-en.pdf"' in page and 'href="./../tvm-deep-dive-en.zip"' in page
    assert 'href="always.md"' in page
    assert "/deep/en/_static/" in book.html("404") and "No such page" in book.text("404")
    assert "../always.html" in book.html("old/place")


def test_redirects_lead_to_pages() -> None:
    moved = tomllib.loads((ROOT / "book/_data/redirects.toml").read_text(encoding="utf-8"))["moved"]
    pages = {path.relative_to(ROOT / "book").with_suffix("").as_posix() for path in (ROOT / "book").rglob("*.md")}
    problems = [f"{old}: its target {new} does not exist" for old, new in moved.items() if new not in pages]
    problems += [f"{old} is a page itself" for old in moved if old in pages]
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize("name", ["a.html", "../b.html"])
def test_links_inside_lead_to_markdown(name: str) -> None:
    assert markdown.markdown_link(name).endswith(".md")

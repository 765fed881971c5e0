"""`reading-list`: pages in order, with times that follow the pages."""

from __future__ import annotations

import re

import pytest
from docutils import nodes
from docutils.utils import new_document

from tvm_deepdive_helpers.sphinxext import reading

WORDS = "word " * 450  # three minutes


def test_times_are_summed_and_follow_the_pages(book) -> None:
    front = "covers: []"
    book.page("first", WORDS, front)
    book.page("second", WORDS, front)
    book.page("list", "```{reading-list}\n/first\n/second\n```\n", front)
    book.good_build()
    text = book.text("list")
    minutes = [int(number) for number in re.findall(r"\((\d+) min\)", text)]
    assert len(minutes) == 2 and text.index("Page first") < text.index("Page second")
    assert f"about {sum(minutes) / 60:.1f} hours" in text

    book.page("second", WORDS * 4, front)
    book.good_build()
    later = [int(number) for number in re.findall(r"\((\d+) min\)", book.text("list"))]
    assert later[0] == minutes[0] and later[1] > minutes[1]


def test_a_page_that_does_not_exist(book) -> None:
    book.page("list", "```{reading-list}\n/nowhere\n```\n", "covers: []")
    assert "reading-list: there is no page 'nowhere'" in book.bad_build()


@pytest.mark.parametrize(
    ("texts", "minutes"),
    [
        (["word " * 300], 2),
        (["字" * 600], 2),
        # Full-width punctuation is no word, and Latin names between Chinese count as words.
        (["字，“。" * 300], 1),
        (["编译遍 LegalizeOps、TVM 和 FuseOps。" * 31], 2),
        # A page that is half in English is read at both speeds.
        (["字" * 300, "word " * 150], 2),
        (["字"], 1),
    ],
)
def test_chinese_is_counted_by_characters_and_english_by_words(texts: list[str], minutes: int) -> None:
    page = new_document("page")
    for text in texts:
        page += nodes.paragraph("", text)
    page += nodes.literal_block("", "code " * 1000)
    assert reading.reading_minutes(page) == minutes

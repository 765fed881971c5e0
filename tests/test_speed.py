"""What is remembered between builds gives the same answers as doing it again."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from books import Book
from sphinx_gallery import py_source_parser

from tvm_deepdive_helpers.sphinxext import speed

PAGE = """
```{{figure}} /picture.svg
:name: fig-{name}
A caption of {name}
```

## A section

```{{figure}} /picture.svg
No number without a caption is the next one's.
```

```{{figure}} /picture.svg
```

```{{table}} A table of {name}
| a | b |
|---|---|
| 1 | 2 |
```

```{{code-block}} text
:caption: A listing of {name}
x
```

:::{{note}}
```{{exercise}} An exercise of {name}
:label: ex-{name}
Do it.
```

```{{figure}} /picture.svg
In a note
```
:::
"""
#: Says the numbers of the saved environment, and those that Sphinx's own function finds in whole documents.
COMPARE = """
import json, sys
from sphinx.application import Sphinx
from tvm_deepdive_helpers.sphinxext import speed
root = sys.argv[1]
app = Sphinx(f"{root}/book", root, f"{root}/_build/dummy", f"{root}/_build/doctrees/html", "dummy", status=None)
env = app.env
ours = json.loads(json.dumps(env.toc_fignumbers))
collector = speed.TocTreeCollector()
speed._assign_figure_numbers(collector, env)
print(json.dumps([ours, json.loads(json.dumps(env.toc_fignumbers))]))
"""
PO = """
msgid ""
msgstr ""
"Content-Type: text/plain; charset=UTF-8\\n"

msgid "A paragraph with *words*."
msgstr "这里有 *文字* 。"
"""


@pytest.fixture
def numbered(book: Book) -> Book:
    book.write("conf.py", (book.root / "conf.py").read_text() + "\nnumfig = True\n")
    book.page("always", "A page.")
    book.write("book/picture.svg", '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>')
    for name in ("one", "two"):
        book.page(name, PAGE.format(name=name))
    book.script("hello", "# %% cell: x\nprint(1)\n")
    return book


def numbers(book: Book) -> dict:
    done = subprocess.run(
        [sys.executable, "-c", COMPARE, str(book.root)], env=book.env(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    ours, theirs = json.loads(done.stdout.splitlines()[-1])
    assert ours == theirs
    return ours


def test_figures_have_the_numbers_that_sphinx_gives(numbered: Book) -> None:
    numbered.good_build()
    found = numbers(numbered)
    assert {kind for kinds in found.values() for kind in kinds} >= {"figure", "table", "code-block", "exercise"}
    assert len(found["one"]["figure"]) == 3
    outlines = numbered.root / "_build/doctrees/html" / speed.OUTLINES
    assert set(pickle.loads(outlines.read_bytes())[1]) >= {"one", "two", "index"}
    # A page in the front gets one figure more: the pages behind it are numbered anew, and written.
    path = numbered.root / "book/one.md"
    path.write_text(path.read_text() + "\n```{figure} /picture.svg\nOne more\n```\n")
    log = numbered.good_build("-v")
    assert "one" in numbered.read_pages(log)
    after = numbers(numbered)
    assert len(after["one"]["figure"]) == 4
    first = min(number for (number,) in after["two"]["figure"].values())
    assert first == min(number for (number,) in found["two"]["figure"].values()) + 1
    assert f"Fig. {first}" in numbered.text("two")


@pytest.mark.parametrize("content", [b"no pickle", pickle.dumps(("another version", {}))])
def test_a_broken_memory_is_no_loss(numbered: Book, content: bytes) -> None:
    numbered.good_build()
    before = numbers(numbered)
    for path in (
        numbered.root / "_build/doctrees/html" / speed.OUTLINES,
        numbered.root / "book/gallery" / speed.PARSED,
    ):
        assert path.is_file()
        path.write_bytes(content)
    assert numbered.executed(numbered.good_build()) == set()
    assert numbers(numbered) == before


def test_an_answer_holds_while_the_file_is_the_same(tmp_path: Path) -> None:
    file, kept = tmp_path / "file", tmp_path / "kept"
    file.write_text("one")
    calls: list[str] = []

    def ask() -> str:
        memory = speed.Memory(kept)
        answer = memory.get("name", file, lambda: calls.append(file.read_text()) or file.read_text())
        memory.save()
        return answer

    assert [ask(), ask()] == ["one", "one"] and calls == ["one"]
    file.write_text("two")
    os.utime(file, ns=(1, 1))
    assert ask() == "two" and len(calls) == 2
    memory = speed.Memory(kept)
    memory.save()
    assert speed.Memory(kept).kept == {}, "what nobody asks for is dropped"


def test_scripts_are_parsed_as_before(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text('"""\nTitle\n=====\n"""\n# sphinx_gallery_line_numbers = True\n\n# %% cell: x\nprint(1)\n')
    plain = py_source_parser.split_code_and_text_blocks(script, return_node=True)
    original = py_source_parser.split_code_and_text_blocks
    for _ in range(2):
        with speed.remembered_scripts(tmp_path / "kept"):
            assert py_source_parser.split_code_and_text_blocks(script) == plain[:2]
            assert py_source_parser.split_code_and_text_blocks(script, return_node=True) == (*plain[:2], None)
        assert py_source_parser.split_code_and_text_blocks is original
    script.write_text(script.read_text().replace("print(1)", "print(2)"))
    with speed.remembered_scripts(tmp_path / "kept"):
        _, blocks = py_source_parser.split_code_and_text_blocks(script)
    assert blocks[-1].content == "print(2)\n"


def test_a_translated_page_carries_no_environment(book: Book) -> None:
    """Sphinx leaves the documents of the messages in the page, and with them all it knows of all pages."""
    book.page("one", "A paragraph with *words*.\n")
    book.write("book/locale/zh_CN/LC_MESSAGES/one.po", PO)
    book.good_build("-D", "language=zh_CN", "-D", "locale_dirs=locale")
    assert "这里有 文字 。" in book.text("one")
    saved = (book.root / "_build/doctrees/html/one.doctree").read_bytes()
    assert b"BuildEnvironment" not in saved
    tree = pickle.loads(saved)
    assert {id(node.document) for node in tree.findall()} == {id(tree)}

"""The extension: roles and quotes in three builders, errors with file and line, incremental and parallel builds."""

from __future__ import annotations

import json
import os
import re
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sphinx.errors import ExtensionError
from sphinx.testing.util import SphinxTestApp

from tvm_deepdive_helpers.sources.cpp_source import CppFile
from tvm_deepdive_helpers.sources.python_source import PythonSources
from tvm_deepdive_helpers.sources.wheel import Package, Wheels, find_package
from tvm_deepdive_helpers.sphinxext import citations

WHEEL = {
    "__init__.py": "from . import relax\n",
    "relax/__init__.py": "from .builder import BlockBuilder\n",
    "relax/builder.py": """
        class Base:
            def copy(self):
                return self


        class BlockBuilder(Base):
            '''A builder.'''

            def emit(self, expr):
                '''Emit.

                Really.
                '''
                return expr
        """,
    "src/runtime/vm/vm.cc": "namespace tvm {\nclass VM {\n  void Run() { Step(); }\n};\n}  // namespace tvm\n",
    "long.py": "def long():\n" + "    pass\n" * 40,
}
INDEX = {
    "about": "",
    "tag": "v0.26.0",
    "refs": {
        "v0.26.0": {"commit": "c" * 40, "date": "2026-08-05"},
        "v0.25.0": {"commit": "b" * 40, "date": "2026-06-01"},
        "main": {"commit": "d" * 40, "date": "2026-08-22"},
    },
    "symbols": [
        {"path": "src/fuse.cc", "symbol": "Fuser", "first": 10, "last": 20, "sha256": "0", "tag": "v0.26.0",
         "same_in": {"v0.25.0": True, "main": False}},
        {"path": "src/fuse.cc", "symbol": "Fuser::Run#2", "first": 15, "last": 15, "sha256": "0", "tag": "v0.26.0",
         "same_in": {"v0.25.0": "absent", "main": True}},
        {"path": "src/relax", "symbol": "", "first": 0, "last": 0, "sha256": "0", "tag": "v0.26.0", "same_in": {}},
    ],
}  # fmt: skip
CONF = """
extensions = ["myst_parser", "tvm_deepdive_helpers.sphinxext.citations"]
html_theme = "basic"
"""
GOOD = """
# Citations

A method {tvm-py}`relax.BlockBuilder.emit`, an inherited one {tvm-py}`relax.BlockBuilder.copy`, a file
{tvm-py}`relax/builder.py`, a title {tvm-py}`the builder <relax.BlockBuilder>`.

Compiler: {tvm-cpp}`src/fuse.cc:Fuser`, {tvm-cpp}`src/fuse.cc:Fuser::Run#2`, {tvm-cpp}`src/relax`.
Runtime: {tvm-cpp}`src/runtime/vm/vm.cc:VM`.

```{quote} relax.BlockBuilder.emit
:caption: How an *expression* is kept
```

```{quote} src/runtime/vm/vm.cc:VM
:lines: 2
```
"""
TVM = "https://github.com/apache/tvm"


class Small:
    """A book of a few pages in a temporary folder, with a small wheel beside it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.wheel = root / "site" / "tvm"
        for name, text in WHEEL.items():
            self.write_wheel(name, text)
        (root / "site" / "tvm_ffi").mkdir()
        self.wheels = Wheels(
            {
                "tvm": Package("tvm", self.wheel, "0.27.0.post1", "abc123456"),
                "tvm_ffi": Package("tvm_ffi", root / "site" / "tvm_ffi", "0.1.14.post1", "def123456"),
            }
        )
        self.write("conf.py", CONF)
        self.index(INDEX)
        self.write("index.md", "# Book\n\n```{toctree}\n:glob:\n*\n```\n")

    def write(self, name: str, text: str) -> Path:
        path = self.root / "book" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text).lstrip("\n"), encoding="utf-8")
        return path

    def write_wheel(self, name: str, text: str) -> None:
        path = self.wheel / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text).lstrip("\n"), encoding="utf-8")

    def index(self, data: dict[str, Any]) -> None:
        self.write("_data/cpp_symbols.json", json.dumps(data))

    def build(self, builder: str = "html", **options: Any) -> tuple[list[str], str]:
        """Build; return the pages that were read, and the warnings."""
        app = SphinxTestApp(builder, self.root / "book", builddir=self.root / "_build", warningiserror=False, **options)
        read: list[str] = []
        app.connect("env-before-read-docs", lambda _app, _env, names: read.extend(names))
        app.build()
        app.cleanup()  # so that the next application finds nodes and roles unregistered
        self.env, self.out = app.env, app.outdir
        warnings = re.sub(r"\x1b\[[\d;]*m", "", app.warning.getvalue())
        return sorted(read), warnings.replace(str(self.root / "book") + os.sep, "")

    def html(self, page: str) -> str:
        return (self.out / f"{page}.html").read_text("utf-8")


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Small:
    book = Small(tmp_path)
    monkeypatch.setattr(Wheels, "installed", classmethod(lambda cls: book.wheels))
    return book


def links(html: str) -> dict[str, tuple[str, str]]:
    """Text of each citation -> address and title."""
    pattern = r'<a class="tvm-citation[^"]*" href="([^"]*)"(?: title="([^"]*)")?>(.*?)</a>'
    return {re.sub("<[^>]*>", "", text): (href, title) for href, title, text in re.findall(pattern, html)}


def test_roles_link_to_lines(small: Small) -> None:
    small.write("page.md", GOOD)
    _read, warnings = small.build()
    assert not warnings
    found = links(small.html("page"))
    python, cpp = f"{TVM}/blob/v0.27.0.post1/python/tvm/", f"{TVM}/blob/v0.26.0/"
    builder = "python/tvm/relax/builder.py"
    release = "TVM v0.27.0.post1"
    assert found["relax.BlockBuilder.emit builder.py:9"] == (
        f"{python}relax/builder.py#L9-L14",
        f"{builder}, lines 9-14, {release}",
    )
    assert found["relax.BlockBuilder.copy builder.py:2"][0].endswith("#L2-L3")
    assert found["relax/builder.py"] == (f"{python}relax/builder.py", f"{builder}, {release}")
    assert found["the builder builder.py:6"][0].endswith("#L6-L14")
    assert found["Fuser fuse.cc:10"] == (
        f"{cpp}src/fuse.cc#L10-L20",
        "src/fuse.cc, lines 10-20, TVM v0.26.0; same text in v0.25.0; other text in main of 2026-08-22",
    )
    assert found["Fuser::Run fuse.cc:15"] == (
        f"{cpp}src/fuse.cc#L15",
        "src/fuse.cc, line 15, TVM v0.26.0; same text in main of 2026-08-22; not in v0.25.0",
    )
    assert found["src/relax"][0] == f"{TVM}/tree/v0.26.0/src/relax"
    assert found["VM vm.cc:2"][0] == f"{TVM}/blob/v0.27.0.post1/src/runtime/vm/vm.cc#L2-L4"


def test_quote_has_the_true_line_numbers(small: Small) -> None:
    small.write("page.md", GOOD)
    small.build()
    html = small.html("page")
    blocks = re.findall(r"<pre>(.*?)</pre>", html, re.S)
    texts = [re.sub("<[^>]*>", "", block) for block in blocks]
    lines = texts[0].splitlines()
    assert lines[0].strip() == "9def emit(self, expr):"  # the class's indentation is gone
    assert lines[1].strip().startswith("10    ") and len(lines) == 6
    assert texts[1].splitlines() == ["3void Run() { Step(); }"]
    assert "How an <em>expression</em> is kept" in html
    found = links(html)
    assert found["python/tvm/relax/builder.py, lines 9-14, TVM v0.27.0.post1"][0].endswith("builder.py#L9-L14")
    assert found["src/runtime/vm/vm.cc, line 3, TVM v0.27.0.post1"][0].endswith("vm.cc#L3")


def test_latex(small: Small) -> None:
    small.write("page.md", GOOD)
    _read, warnings = small.build("latex")
    assert not warnings
    tex = next(small.out.glob("*.tex")).read_text("utf-8")
    assert rf"\sphinxhref{{{TVM}/blob/v0.26.0/src/fuse.cc\#L10-L20}}" in tex
    assert "numbers=left,firstnumber=9," in tex


def test_gettext_has_the_roles_but_no_source(small: Small) -> None:
    small.write("page.md", GOOD)
    _read, warnings = small.build("gettext")
    assert not warnings
    messages = (small.out / "page.pot").read_text("utf-8")
    assert "{tvm-py}`relax.BlockBuilder.emit`" in messages and "How an *expression* is kept" in messages
    assert "Really." not in messages and "lines 9-14" not in messages


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{tvm-py}`relax.BlockBuilder.emitt`", "tvm-py: tvm 0.27.0.post1 has no `relax.BlockBuilder.emitt`"),
        ("{tvm-py}`relax.BlockBuilder.emitt`", "did you mean: `relax.BlockBuilder.emit`"),
        ("{tvm-cpp}`src/fuse.cc:Fusser`", "run `make symbols TVM=path/to/checkout` if it is new"),
        ("{tvm-cpp}`src/fuse.cc:Fusser`", "did you mean: `src/fuse.cc:Fuser`"),
        ("{tvm-cpp}`src/runtime/vm/vm.cc:VMM`", "src/runtime/vm/vm.cc has no `VMM`; did you mean: `VM`"),
        ("```{quote} relax.gone\n```", "quote: tvm 0.27.0.post1 has no `relax.gone`"),
        ("```{quote} relax.BlockBuilder.emit\n:lines: 5-9\n```", "has 6 lines, so `:lines: 5-9` is out of range"),
        ("```{quote} relax.BlockBuilder.emit\n:lines: x\n```", "'x' is not a range of lines such as 3-9"),
        ("```{quote} long.py:long\n```", "41 lines of `long.py:long` are too many: keep quotes short"),
        ("```{quote} src/fuse.cc:Fuser\n```", "is not in the wheel, so it can be cited with tvm-cpp, but not quoted"),
    ],
)
def test_error_names_file_line_and_what_exists(small: Small, text: str, message: str) -> None:
    small.write("page.md", f"# Page\n\nFirst.\n\n{text}\n")
    _read, warnings = small.build()
    [line] = [one for one in warnings.splitlines() if message in one]
    assert re.match(r"page\.md:[56]: (ERROR|WARNING): ", line)
    assert warnings.count("ERROR") + warnings.count("WARNING") == 1


def test_a_page_that_failed_is_read_again(small: Small) -> None:
    """Sphinx would forget the error: the second build of an unchanged page reads nothing."""
    small.write("page.md", "# Page\n\n{tvm-cpp}`src/fuse.cc:New`\n\n```{quote} long.py:long\n```\n")
    assert small.build()[1].count("ERROR") == 2
    read, warnings = small.build()
    assert read == ["page"] and warnings.count("ERROR") == 2


def forbid(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make it an error to read a file of the wheel."""

    def fail(*_args: object) -> None:
        raise AssertionError("a file of the wheel was read")

    def digest(text: str | bytes) -> str:
        assert isinstance(text, str), "a file was hashed"
        return original(text)

    original = citations.digest
    monkeypatch.setattr(citations, "digest", digest)
    monkeypatch.setattr(PythonSources, "_read", fail)
    monkeypatch.setattr(CppFile, "find", fail)


def test_second_build_reads_and_parses_nothing(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    small.write("page.md", GOOD + "\n```{cpp-citations}\n```\n")
    assert small.build()[0] == ["index", "page"]
    forbid(monkeypatch)
    assert small.build() == ([], "")


def changed_entry(small: Small) -> None:
    rows = [row | ({"first": 12} if row["symbol"] == "Fuser" else {}) for row in INDEX["symbols"]]
    small.index(INDEX | {"symbols": rows})


def new_entry(small: Small) -> None:
    row = INDEX["symbols"][0] | {"symbol": "Another"}
    small.index(INDEX | {"symbols": [*INDEX["symbols"], row]})


def removed_entry(small: Small) -> None:
    small.index(INDEX | {"symbols": INDEX["symbols"][1:]})


def touched(small: Small) -> None:
    os.utime(small.wheel / "relax/builder.py")


def moved_method(small: Small) -> None:
    small.write_wheel("relax/builder.py", "# one line more\n" + textwrap.dedent(WHEEL["relax/builder.py"]).lstrip())


def other_export(small: Small) -> None:
    small.write_wheel("relax/__init__.py", "from .builder import BlockBuilder\nfrom .builder import Base\n")


def removed_cpp(small: Small) -> None:
    (small.wheel / "src/runtime/vm/vm.cc").unlink()


def new_release(small: Small) -> None:
    packages = small.wheels.packages
    packages["tvm"] = Package("tvm", small.wheel, "0.28.0", "fff123456")


@pytest.mark.parametrize(
    ("change", "expected", "errors"),
    [
        (changed_entry, ["cpp"], 0),
        (new_entry, [], 0),
        (removed_entry, ["cpp"], 1),
        (touched, [], 0),
        (moved_method, ["python"], 0),
        (other_export, ["python"], 0),
        (removed_cpp, ["runtime"], 1),
        (new_release, ["cpp", "index", "none", "python", "runtime"], 0),
    ],
)
def test_only_what_depends_on_a_change_is_read(
    small: Small, change: Callable[[Small], None], expected: list[str], errors: int
) -> None:
    small.write("python.md", "# Python\n\n{tvm-py}`relax.BlockBuilder.emit`\n")
    small.write("cpp.md", "# C++\n\n{tvm-cpp}`src/fuse.cc:Fuser`\n")
    small.write("runtime.md", "# Runtime\n\n{tvm-cpp}`src/runtime/vm/vm.cc:VM`\n")
    small.write("none.md", "# None\n")
    small.build()
    change(small)
    read, warnings = small.build()
    assert read == expected
    assert warnings.count("ERROR") == errors
    if change is moved_method:
        assert "builder.py:10" in small.html("python")
    if change is changed_entry:
        assert "fuse.cc:12" in small.html("cpp")
    if not errors:
        assert small.build()[0] == []


def test_table_lists_places_and_pages(small: Small) -> None:
    small.write("a.md", GOOD)
    small.write("b.md", "# Second\n\n{tvm-cpp}`src/fuse.cc:Fuser`\n")
    small.write("table.md", "# Table\n\n```{cpp-citations}\n```\n")
    assert not small.build()[1]
    rows = re.findall(r"<tr class=.*?</tr>", small.html("table"), re.S)
    plain = [re.sub(r"\s+", " ", re.sub("<[^>]*>", " ", row)).strip() for row in rows]
    assert plain == [
        "Symbol File and lines Read at Elsewhere Cited on",
        "Fuser src/fuse.cc:10-20 TVM v0.26.0 same text in v0.25.0; other text in main of 2026-08-22 Citations , Second",
        "Fuser::Run src/fuse.cc:15-15 TVM v0.26.0 same text in main of 2026-08-22; not in v0.25.0 Citations",
        "src/relax src/relax/ TVM v0.26.0 not compared Citations",
        "VM src/runtime/vm/vm.cc:2-4 TVM v0.27.0.post1 not compared Citations",
    ]
    assert 'href="b.html"' in rows[1]
    small.write("b.md", "# Second\n\nNothing.\n")
    assert small.build()[0] == ["b"]  # the page with the table is written again, not read
    assert "Second" not in small.html("table").partition("<table")[2].partition("</table>")[0]


def test_parallel_build_is_the_same(small: Small) -> None:
    names = [f"page{number}" for number in range(8)]
    for name in names:
        small.write(f"{name}.md", GOOD.replace("# Citations", f"# {name}"))
    small.write("table.md", "# Table\n\n```{cpp-citations}\n```\n")
    assert not small.build()[1]
    serial = {name: small.html(name) for name in [*names, "table"]}
    assert small.build(freshenv=True, parallel=2)[1] == ""
    assert {name: small.html(name) for name in [*names, "table"]} == serial
    assert set(names) <= set(small.env.tvm_citations)
    assert small.build()[0] == []


def test_index_of_another_tag_is_a_warning(small: Small) -> None:
    _read, warnings = small.build(confoverrides={"tvm_cpp_ref": "v0.27.0"})
    assert "cpp_symbols.json was made at v0.26.0, but tvm_cpp_ref is v0.27.0" in warnings


def test_damaged_index_stops_the_build_with_one_line(small: Small) -> None:
    small.write("_data/cpp_symbols.json", "{")
    with pytest.raises(ExtensionError, match=r"^_data/cpp_symbols.json:1 is not an index .*make symbols"):
        small.build()


def test_missing_package_stops_the_build_with_one_line(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Wheels, "installed", classmethod(lambda cls: Wheels({"tvm": find_package("no_such_tvm")})))
    with pytest.raises(ExtensionError, match="the package no_such_tvm is not installed, so its source cannot be cited"):
        small.build()


def test_refs_may_be_set(small: Small) -> None:
    small.write("page.md", GOOD)
    small.build(confoverrides={"tvm_source_ref": "abc123456"})
    assert f"{TVM}/blob/abc123456/python/tvm/relax/builder.py#L9-L14" in small.html("page")


def test_translation_resolves_the_same_citation(small: Small) -> None:
    small.write("page.md", "# Page\n\nThe builder {tvm-py}`relax.BlockBuilder.emit` works.\n")
    catalogue = """
        msgid ""
        msgstr "Content-Type: text/plain; charset=UTF-8\\n"

        msgid "The builder {tvm-py}`relax.BlockBuilder.emit` works."
        msgstr "构建器 {tvm-py}`relax.BlockBuilder.emit` 可用。"
        """
    small.write("locale/zh_CN/LC_MESSAGES/page.po", catalogue)
    _read, warnings = small.build(confoverrides={"language": "zh_CN", "locale_dirs": ["locale"]})
    assert "page.md" not in warnings
    html = small.html("page")
    assert "构建器" in html and "relax.BlockBuilder.emit builder.py:9" in links(html)

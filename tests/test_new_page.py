"""`make page`: a page that builds at once, that lint does not let through unwritten, and that overwrites nothing."""

from __future__ import annotations

import re
import shutil
import tomllib
from pathlib import Path

import pytest

from tvm_deepdive_helpers.maintain import lint, new_page

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The project's own folders, as far as the command looks at them."""
    for path in ["book/2-tir/index.md", "book/0-start/index.md", "book/0-start/setup.md", new_page.OUTLINE]:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, tmp_path / path)
    outline = tmp_path / new_page.OUTLINE
    text = re.sub(r"open = \[.*?\]", 'open = [\n  "2.5", "2.6",\n]', outline.read_text(encoding="utf-8"), flags=re.S)
    outline.write_text(text, encoding="utf-8")
    for name in ("tir_one", "tir_two", "other"):
        (tmp_path / "gallery/2-tir").mkdir(parents=True, exist_ok=True)
        (tmp_path / f"gallery/2-tir/{name}.py").write_text("", encoding="utf-8")
    return tmp_path


def state(root: Path) -> dict[Path, str]:
    return {path: path.read_text(encoding="utf-8") for path in root.rglob("*") if path.is_file()}


def test_files_and_places(root: Path) -> None:
    written = new_page.create(root, "2-tir/loops-again", rows=["2.6"])
    names = [path.relative_to(root).as_posix() for path in written]
    assert names[:3] == ["gallery/2-tir/tir_loops_again.py", "book/2-tir/loops-again.md", "book/2-tir/index.md"]
    page = (root / names[1]).read_text(encoding="utf-8")
    assert 'covers: ["2.6"]' in page and "gallery: 2-tir/tir_loops_again" in page and "# Loops again" in page
    index = (root / names[2]).read_text(encoding="utf-8")
    assert re.search(r"\nloops-again\n```", index)
    outline = tomllib.loads((root / new_page.OUTLINE).read_text(encoding="utf-8"))
    assert outline["open"] == ["2.5"] and "2.6" in outline["rows"]


def test_the_only_problem_is_that_it_is_not_written(root: Path) -> None:
    new_page.create(root, "2-tir/loops", title="Loops", rows=["2.5"])
    problems = [p for p in lint.lint(lint.read_book(root)) if "loops" in p.path]
    assert {problem.rule for problem in problems} == {"unfinished"}
    assert {problem.path for problem in problems} == {"gallery/2-tir/tir_loops.py", "book/2-tir/loops.md"}


def test_the_last_open_row(root: Path) -> None:
    new_page.create(root, "2-tir/loops", rows=["2.5", "2.6"])
    assert tomllib.loads((root / new_page.OUTLINE).read_text(encoding="utf-8"))["open"] == []


def test_a_part_without_scripts_gets_its_header(root: Path) -> None:
    written = new_page.create(root, "0-start/first")
    assert root / "gallery/0-start/GALLERY_HEADER.rst" in written and root / "gallery/0-start/first.py" in written


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("loops", {}, "no name of a page"),
        ("2-tir/Loops", {}, "no name of a page"),
        ("2-tir/../x", {}, "no name of a page"),
        ("9-none/loops", {}, r"no part '9-none' \(there is 0-start, 2-tir\)"),
        ("2-tir/index", {}, "index.md exists already"),
        ("2-tir/loops", {"script": "other"}, "gallery/2-tir/other.py exists already"),
        ("2-tir/loops", {"script": "a.py"}, "no name of a script"),
        ("2-tir/loops", {"rows": ["2.99"]}, "no row '2.99'"),
        ("2-tir/loops", {"rows": ["2.1"]}, "carried by a page already"),
    ],
)
def test_errors_write_nothing(root: Path, name: str, options: dict, message: str) -> None:
    before = state(root)
    with pytest.raises(new_page.NewPageError, match=message):
        new_page.create(root, name, **options)
    assert state(root) == before


def test_the_new_page_builds(book) -> None:
    """Its cells run, its citation resolves, its exercise has its solution."""
    book.write("book/2-tir/index.md", "# Part\n\n```{toctree}\nalone\n```\n")
    book.page("2-tir/alone", "A page.")
    book.page("0-start/setup", "Set up.")
    book.write(new_page.OUTLINE, "open = []\n[rows]\n")
    index = (book.root / "book/index.md").read_text(encoding="utf-8")
    book.write("book/index.md", index.replace("*\n", "*\n0-start/setup\n2-tir/index\n"))
    new_page.create(book.root, "2-tir/loops")
    book.good_build()
    text = " ".join(book.text("2-tir/loops").split())
    assert "the module has 1 function" in text and "Solution" in text

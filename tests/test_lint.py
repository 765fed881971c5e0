"""Every rule of `make lint`, with an input that it accepts and inputs that it must name."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tvm_deepdive_helpers.maintain import lint

ROOT = Path(__file__).resolve().parents[1]

FRONT = "---\ncovers: []\n---\n# Title\n\n"
DOC = '"""\nTitle\n=====\n\nShows a thing.\n"""\n'
PAGE = """---
covers: ["1.4"]
gallery: 1-part/script
needs: [/1-part/first]
---
# Title

```{question}
What happens?
```

{tvm-py}`relax.build` does it in {glue}`ms` ms.

```{gallery-cell} a
```

```{exercise} One
:label: ex-one
Why?
```

```{solution-cell} a
Because.
```

```{summary}
You can now.
```
"""
SCRIPT = DOC + "# %% cell: a\nprint(1)\n\n# %% check\nassert True\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A tree that breaks no rule."""
    for name, content in {
        "book/_data/outline.toml": '[rows]\n"1.4" = "x"\n"1.5" = "y"\n"2.1" = "z"\n"2.10" = "t"\n',
        "book/index.md": "# Book\n",
        "book/1-part/first.md": FRONT + "Text.\n",
        "book/1-part/page.md": PAGE,
        "gallery/1-part/script.py": SCRIPT,
        "README.md": "# Read me\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content, encoding="utf-8")
    return tmp_path


def problems(root: Path) -> list[lint.Problem]:
    return lint.lint(lint.read_book(root))


def test_a_good_tree_has_no_problem(root: Path) -> None:
    assert problems(root) == []


# Parts of words keep this file from being found by the rules that it tests.
UNDONE, HOME, HOST = "TO" + "DO", "/ho" + "me/ann/", "py" + "pi.org"
FENCE = "```"
QUESTION = f"{FENCE}{{question}}\nWhy?\n{FENCE}\n"

FIRST, SECOND, PY = "book/1-part/first.md", "book/1-part/page.md", "gallery/1-part/script.py"
TWO_ROWS = PAGE.replace('["1.4"]', '["1.4", "1.5"]').replace("ms.", "{tvm-py}`a`.")

BAD = [
    ("utf8", FIRST, FRONT.encode() + b"caf\xe9\n", 6, "not UTF-8"),
    ("conflict-marker", "README.md", "# Read me\n" + "<" * 7 + " HEAD\n", 2, "unfinished merge"),
    ("machine-path", "README.md", f"See {HOME}book.\n", 1, HOME),
    ("machine-path", PY, SCRIPT + f'A = "{HOME}x"\n', 12, "relative"),
    ("registry-host", "README.md", f"From https://{HOST}/simple\n", 1, HOST),
    ("unfinished", PY, SCRIPT + f"# {UNDONE}: more\n", 12, UNDONE),
    ("unfinished", FIRST, FRONT + f"<!-- {UNDONE} -->\n", 6, UNDONE),
    ("plain-words", FIRST, FRONT + "One.\n\nA powerful\npass, e.g. this.\n", 8, "'powerful'"),
    ("plain-words", FIRST, FRONT + "One.\n\nA fine\npass, e.g. this.\n", 9, "for example"),
    ("plain-words", FIRST, FRONT + "> - A placeholder stands here.\n", 6, "what it stands for"),
    ("plain-words", FIRST, FRONT + "It does not.\n\nIt doesn't.\n", 8, "both words"),
    ("british-spelling", FIRST, FRONT + "The behavior of `color`.\n", 6, "'behavior'"),
    ("british-spelling", FIRST, FRONT + "A colour.\n\nIt is optimized\nagain.\n", 8, "'optimized'"),
    ("doubled-word", FIRST, FRONT + "It moves the\nthe loop.\n", 6, "take one out"),
    ("typed-number", FIRST, FRONT + "It is 12x faster.\n", 6, "'12x faster'"),
    ("typed-number", FIRST, FRONT + "It is\n1.5 times as fast.\n", 7, "glue it"),
    ("typed-number", FIRST, FRONT + "It takes 3.5 ms.\n", 6, "'3.5 ms'"),
    ("typed-number", FIRST, FRONT + "| a | b |\n|---|---|\n| c | 4 GB/s |\n", 8, "'4 GB/s'"),
    ("typed-number", SECOND, PAGE.replace("{gallery-cell} a", "{gallery-cell} a\n:caption: In 3 ms"), 15, "3 ms"),
    ("front-matter", FIRST, f"# Title\n\n{QUESTION}", 1, "no front matter"),
    ("front-matter", FIRST, f"---\ngallery: 1-part/script\n---\n# T\n\n{QUESTION}", 1, "no 'covers:'"),
    ("front-matter", FIRST, "---\ncovers: [1.10]\n---\n# T\n", 2, "not quoted"),
    ("front-matter", FIRST, '---\ncovers: "1.5"\n---\n# T\n', 2, "not a list"),
    ("front-matter", FIRST, '---\ncovers: ["1.9"]\n---\n# T\n', 2, "no row '1.9'"),
    ("front-matter", FIRST, "---\ncover: []\ncovers: []\n---\n# T\n", 2, "unknown key 'cover'"),
    ("front-matter", FIRST, "---\ncovers: []\ngallery: 1-part/no\n---\n# T\n", 3, "no gallery/1-part/no.py"),
    ("front-matter", FIRST, "---\ncovers: []\nneeds: [/1-part/no]\n---\n# T\n", 3, "no page '/1-part/no'"),
    ("front-matter", FIRST, "---\ncovers: [\n---\n# T\n", 2, "not YAML"),
    ("page-parts", SECOND, PAGE.replace("{question}", "{note}"), 1, "no {question}"),
    ("page-parts", SECOND, PAGE.replace("{summary}", "{note}"), 1, "no {summary}"),
    ("page-parts", SECOND, PAGE.replace("{solution-cell} a", "{note}"), 1, "no {solution-cell}"),
    ("page-parts", SECOND, PAGE + f"\n{FENCE}{{gallery-cell}} a\n{FENCE}\n", 26, "not the last"),
    ("page-parts", SECOND, PAGE.replace("# Title\n", "# Title\n```{note}\nN.\n```\n"), 11, "not the first"),
    ("page-parts", SECOND, PAGE.replace("{tvm-py}", ""), 1, "0 citations for 1 rows"),
    ("page-length", FIRST, FRONT + "word " * 2501, 1, "2502 words"),
    ("script-cells", PY, SCRIPT + "# %% cell: a\n", 12, "'a' stands already"),
    ("script-cells", PY, SCRIPT + "# %% cell: Two Words\n", 12, "bad cell name"),
    ("script-cells", PY, SCRIPT + "# %% cell: b, vary\n", 12, "unknown flag"),
    ("script-cells", PY, SCRIPT + "a = = 1\n", 12, "SyntaxError"),
    ("script-docstring", PY, SCRIPT.replace(DOC, ""), 1, "no docstring"),
    ("script-docstring", PY, SCRIPT.replace("=====", "==="), 2, "no title"),
    ("script-docstring", PY, SCRIPT.replace("Shows a thing.\n", ""), 2, "a title only"),
    ("script-width", PY, SCRIPT + f"# {'x' * 80}\n", 12, "82 columns"),
    ("script-code", PY, SCRIPT + "from tvm import *\n", 12, "star import of tvm"),
    ("script-code", PY, SCRIPT + 'exec("a = 1")\n', 12, "exec("),
    ("script-code", PY, SCRIPT.replace("assert True\n", ""), 1, "checks nothing"),
    ("script-names", "gallery/1-part/two words.py", SCRIPT, 1, "joined by '_'"),
    ("script-names", "gallery/2-part/script.py", SCRIPT, 1, "gallery/1-part/script.py has this base name"),
    ("rows-once", "book/2-part/other.md", PAGE, 2, "row '1.4' is carried by book/1-part/page.md too"),
    ("part-closed", SECOND, TWO_ROWS, 1, "design-note"),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "path", "content", "line", "words"), BAD)
def test_bad_input_is_named(root: Path, rule: str, path: str, content: str | bytes, line: int, words: str) -> None:
    target = root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content.encode() if isinstance(content, str) else content)
    found = problems(root)
    hits = [problem for problem in found if problem.rule == rule]
    assert hits, found
    where = "book/1-part/first.md" if rule == "part-closed" else path
    assert (where, line) in {(problem.path, problem.line) for problem in hits}, hits
    assert any(words in problem.text for problem in hits), hits


def test_every_rule_has_a_bad_input() -> None:
    tested = {row[0] for row in BAD} | {"python-fence"}
    assert {rule.name for rule in lint.RULES} | set(lint.BOOK_RULES) == tested


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (f"{FENCE}python\na = 1\n{FENCE}", 6),
        (f"{FENCE}Python\na = 1\n{FENCE}", 6),
        (f"{FENCE} py\na = 1\n{FENCE}", 6),
        ("~~~py\na = 1\n~~~", 6),
        (f"{FENCE}python3 title=x\na = 1\n{FENCE}", 6),
        (f"{FENCE}pycon\n>>> a\n{FENCE}", 6),
        (f"{FENCE}\na = 1\n{FENCE}", 6),
        (f"{FENCE}{{code-block}} python\n:linenos:\na = 1\n{FENCE}", 6),
        (f"{FENCE}{{code-block}}   python3\na = 1\n{FENCE}", 6),
        (f"{FENCE}{{code}} ipython3\na = 1\n{FENCE}", 6),
        (f"{FENCE}{{code-cell}}\na = 1\n{FENCE}", 6),
        (":::{code-block} python\na = 1\n:::", 6),
        (f"- item\n\n  {FENCE}python\n  a = 1\n  {FENCE}", 8),
        (f"1. item\n   - inner\n\n     {FENCE}python\n     a = 1\n     {FENCE}", 9),
        (f"> {FENCE}python\n> a = 1\n> {FENCE}", 6),
        (f"   {FENCE}python\n   a = 1\n   {FENCE}", 6),
        (f"{FENCE}`{{note}}\nText.\n\n{FENCE}python\na = 1\n{FENCE}\n{FENCE}`", 9),
        (f"::::{{note}}\n:class: x\n\n- a\n\n  :::{{tip}}\n  {FENCE}py\n  a\n  {FENCE}\n  :::\n::::", 12),
        (f"{FENCE}{{eval-rst}}\n.. code-block:: python\n\n   a = 1\n{FENCE}", 7),
        (f"{FENCE}{{literalinclude}} /x.py\n{FENCE}", 6),
        ("Text\n\n    a = 1\n", 8),
    ],
)
def test_python_fences_are_found(root: Path, text: str, line: int) -> None:
    (root / "book/1-part/first.md").write_text(FRONT + text + "\n", encoding="utf-8")
    assert [(p.rule, p.line) for p in problems(root)] == [("python-fence", line)]


@pytest.mark.parametrize(
    "text",
    [
        f"{FENCE}console\n$ python x.py\n{FENCE}",
        f"{FENCE}cpp\nint a;\n{FENCE}",
        # An example of a page, inside of a longer fence, is text.
        f"{FENCE}`text\n{FENCE}python\na = 1\n{FENCE}\n{FENCE}`",
        f"{FENCE}{{gallery-cell}} 1-part/script:a\n:show: output\n:language: python\n{FENCE}",
        f"{FENCE}{{quote}} relax.build\n:lines: 1-2\n{FENCE}",
        f"A span `{FENCE}python` in a sentence.",
        "Names in backquotes: `te.placeholder`, `12x faster`, `e.g.` and [a link](https://a.org/powerful).",
        "Shapes such as 8x64 and 3 × 3, a limit of 15 s, and 2 passes.",
        "Examples of paths: /home/me/book, /usr/lib/x.",
        f"{FENCE}{{math}}\na = 1\n{FENCE}",
    ],
)
def test_what_is_allowed_is_not_found(root: Path, text: str) -> None:
    (root / "book/1-part/first.md").write_text(FRONT + text + "\n", encoding="utf-8")
    assert problems(root) == []


def test_a_printed_program_may_run_in_a_namespace_of_its_own(root: Path) -> None:
    (root / "gallery/1-part/script.py").write_text(SCRIPT + 'exec("a = 1", {})\n', encoding="utf-8")
    assert problems(root) == []


def test_a_page_that_is_no_chapter_needs_no_front_matter(root: Path) -> None:
    (root / "book/1-part/first.md").write_text("# Colophon\n", encoding="utf-8")
    assert problems(root) == []


def test_generated_and_foreign_folders_are_not_checked(root: Path) -> None:
    for name in (".venv/x.md", "_build/x.md", "book/gallery/x.md", "src/a.egg-info/x.txt", "src/__pycache__/x.py"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{UNDONE}\n", encoding="utf-8")
    assert problems(root) == []


def test_windows_line_ends_do_not_matter(root: Path) -> None:
    page = root / "book/1-part/page.md"
    page.write_bytes(PAGE.replace("\n", "\r\n").encode())
    assert problems(root) == []


def test_the_command(root: Path) -> None:
    """As `make lint` runs it: form of the lines, last line, exit status."""
    file = ROOT / "src/tvm_deepdive_helpers/maintain/lint.py"
    command = [sys.executable, "-m", "tvm_deepdive_helpers.maintain.lint", "--root", str(root)]
    done = subprocess.run(command, cwd=ROOT / "src", capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert re.fullmatch(r"lint: \d+ files, \d+ rules, no problem\n", done.stdout)
    shutil.copy(file, root / "gallery/1-part/other.py")
    done = subprocess.run(command, cwd=ROOT / "src", capture_output=True, text=True, check=False)
    assert done.returncode == 1
    *lines, last = done.stdout.splitlines()
    assert last == f"lint: {len(lines)} problems in 1 file"
    assert all(re.match(r"gallery/1-part/other\.py:\d+: [a-z-]+: .+ \(.+\)$", line) for line in lines), lines


def test_outline_of_the_book() -> None:
    rows = lint.read_outline(ROOT)
    assert all(re.fullmatch(r"[1-8]\.\d+", row) for row in rows)
    assert "2.10" in rows

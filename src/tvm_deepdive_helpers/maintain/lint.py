"""The rules of the book that a machine can check: ``make lint``.

::

    python -m tvm_deepdive_helpers.maintain.lint [--root FOLDER] [--rules]

Prints one line a problem, ``book/1-architecture/map.md:12: python-fence: what is wrong (what to do)``, and exits with
1 if there is any. A rule is a function from a file to problems (`RULES`), or from all files to problems (`BOOK_RULES`,
for what only shows between files). `--rules` lists them. Style of Python is ruff's business, spelling codespell's.

The files are found by walking the tree, not by asking git, so that an unpacked archive is checked alike.
"""

from __future__ import annotations

import argparse
import ast
import fnmatch
import functools
import os
import re
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from markdown_it import MarkdownIt
from mdit_py_plugins.colon_fence import colon_fence_plugin
from mdit_py_plugins.front_matter import front_matter_plugin
from pygments.lexers import get_lexer_by_name
from pygments.util import ClassNotFound

from tvm_deepdive_helpers.sphinxext import scripts

ROOT = Path(__file__).resolve().parents[3]
OUTLINE = "book/_data/outline.toml"

#: Folders that are never checked: generated, or not ours.
SKIPPED = {".git", ".venv", "_build", "__pycache__", ".pytest_cache", ".ruff_cache", "node_modules"}
SKIPPED_PATHS = {"book/gallery"}
TEXT = {".md", ".py", ".rst", ".toml", ".txt", ".cff", ".css", ".csv", ".js", ".json", ".html", ".yml", ".yaml", ".po"}
TEXT |= {"", ".svg", ".cfg", ".sh"}

CODE_WIDTH = 78
MOST_WORDS = 2500


@dataclass(frozen=True, order=True)
class Problem:
    """One place that breaks a rule."""

    path: str
    line: int
    rule: str
    text: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.rule}: {self.text}"


# -------------------------------------------------------------------------------------------- reading Markdown


@dataclass(frozen=True)
class Code:
    """A fence or an indented block whose text is shown as it stands."""

    line: int
    language: str  # "" when none is named
    text: str


@dataclass(frozen=True)
class Directive:
    """A MyST directive."""

    line: int
    name: str
    argument: str


@dataclass(frozen=True)
class Prose:
    """Text that is read as sentences; code spans and link targets are blanked, lines are kept."""

    line: int
    text: str


@dataclass(frozen=True)
class Markdown:
    """What a page is made of, in the order of the page."""

    front: str | None
    blocks: tuple[Code | Directive | Prose, ...]

    def of(self, kind: type) -> Iterator[Any]:
        """The blocks of one kind."""
        return (block for block in self.blocks if isinstance(block, kind))


#: Directives whose body is code in a named language.
_CODE_DIRECTIVES = {"code-block", "code", "sourcecode", "code-cell", "highlight"}
#: Directives whose body is not Markdown.
_OPAQUE = {
    "math",
    "quote",
    "gallery-cell",
    "toctree",
    "graphviz",
    "mermaid",
    "raw",
    "image",
    "eval-rst",
    "bibliography",
}
_DIRECTIVE = re.compile(r"\{(?P<name>[\w:.-]+)\}\s*(?P<argument>.*)")
_OPTION = re.compile(r":(?P<key>[\w-]+):(?P<value>.*)")
_SPAN = re.compile(r"(`+)(?!`)(.+?)(?<!`)\1(?!`)", re.S)
_LINK = re.compile(r"\]\([^)\s]*\)|<https?://[^>]*>|https?://\S+")


def _blank(match: re.Match[str]) -> str:
    return re.sub(r"[^\n]", " ", match[0])


def _prose(line: int, text: str) -> Prose:
    return Prose(line, _LINK.sub(_blank, _SPAN.sub(_blank, text)))


@functools.cache
def _parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark").enable("table").use(front_matter_plugin)
    return parser.use(colon_fence_plugin)


def read_markdown(text: str) -> Markdown:
    """Take a page apart, also what stands inside of directives."""
    front: list[str] = []
    return Markdown(blocks=tuple(_blocks(text, 0, front)), front=front[0] if front else None)


def _blocks(text: str, before: int, front: list[str]) -> Iterator[Code | Directive | Prose]:
    """Blocks of a text that begins after so many lines of the page."""
    for token in _parser().parse(text):
        line = before + (token.map[0] if token.map else 0) + 1
        if token.type == "front_matter" and before == 0:
            front.append(token.content)
        elif token.type in ("inline", "html_block"):
            yield _prose(line, token.content)
        elif token.type == "code_block":
            yield Code(line, "", token.content)
        elif token.type in ("fence", "colon_fence"):
            match = _DIRECTIVE.match(token.info.strip())
            if not match:
                language = re.match(r"\{?\.?[\w+#-]*", token.info.strip())
                yield Code(line, language[0].strip("{.").lower() if language else "", token.content)
                continue
            yield from _directive(line, match["name"], match["argument"].strip(), token.content, front)


def _directive(
    line: int, name: str, argument: str, content: str, front: list[str]
) -> Iterator[Code | Directive | Prose]:
    yield Directive(line, name, argument)
    if name in _CODE_DIRECTIVES:
        yield Code(line, argument.split(" ")[0].lower(), content)
        return
    lines = content.split("\n")
    for index, option in enumerate(lines):
        match = _OPTION.fullmatch(option.strip())
        if not match:
            break
        lines[index] = ""
        if match["key"] in ("caption", "alt"):
            yield _prose(line + index + 1, match["value"])
    if name == "eval-rst":
        for index, text in enumerate(lines):
            if found := re.match(r"\s*\.\. (?:code-block|code|sourcecode|highlight)::\s*(\S*)", text):
                yield Code(line + index + 1, found[1].lower(), "")
    if name in _OPAQUE:
        return
    if argument:
        yield _prose(line, argument)
    yield from _blocks("\n".join(lines), line, front)


# ------------------------------------------------------------------------------------------------------- files


class Source:
    """One file of the tree, read once.

    Attributes
    ----------
    path : str
        Below the root, with ``/``.
    file : Path
        Where it is.
    text : str
        Its content; bytes that are not UTF-8 are replaced, and `bad_byte` is the position of the first.
    """

    def __init__(self, root: Path, path: str) -> None:
        self.path = path
        self.file = root / path
        content = self.file.read_bytes()
        self.bad_byte: int | None = None
        try:
            self.text = content.decode("utf-8")
        except UnicodeDecodeError as error:
            self.bad_byte = error.start
            self.text = content.decode("utf-8", "replace")
        self.text = self.text.replace("\r\n", "\n")
        self.lines = self.text.split("\n")

    @functools.cached_property
    def markdown(self) -> Markdown:
        """The parts of a page."""
        return read_markdown(self.text)

    @functools.cached_property
    def front(self) -> dict[str, Any]:
        """The front matter, or {} if there is none or it cannot be read (another rule says so)."""
        try:
            data = yaml.safe_load(self.markdown.front or "")
        except yaml.YAMLError:
            return {}
        return data if isinstance(data, dict) else {}

    @functools.cached_property
    def rows(self) -> list[str]:
        """Rows of the outline that the page says it carries."""
        covers = self.front.get("covers")
        return [row for row in covers if isinstance(row, str)] if isinstance(covers, list) else []

    @functools.cached_property
    def tree(self) -> ast.Module | None:
        """The syntax tree of a script; None if it has none (another rule says so)."""
        try:
            return ast.parse(self.text)
        except (SyntaxError, ValueError):
            return None

    def front_line(self, key: str) -> int:
        """The line of a key of the front matter."""
        for number, line in enumerate(self.lines, 1):
            if line.startswith(f"{key}:"):
                return number
        return 1


@dataclass(frozen=True)
class Book:
    """All files, and what they are compared with."""

    sources: tuple[Source, ...]
    outline: frozenset[str]

    def get(self, path: str) -> Source | None:
        """The file of this path."""
        return next((source for source in self.sources if source.path == path), None)


def read_outline(root: Path) -> dict[str, str]:
    """Rows of the outline: id to title."""
    with (root / OUTLINE).open("rb") as stream:
        return tomllib.load(stream)["rows"]


def read_book(root: Path) -> Book:
    """Read every text file of the project."""
    sources = []
    for folder, names, files in os.walk(root):
        here = Path(folder).relative_to(root)
        names[:] = sorted(
            name
            for name in names
            if name not in SKIPPED and not name.endswith(".egg-info") and (here / name).as_posix() not in SKIPPED_PATHS
        )
        for name in sorted(files):
            path = Path(folder, name)
            if path.suffix.lower() in TEXT and path.is_file():
                sources.append(Source(root, (here / name).as_posix()))
    return Book(tuple(sources), frozenset(read_outline(root)))


# ------------------------------------------------------------------------------- rules that look at one file

Found = Iterator[tuple[int, str]]


def utf8(source: Source, book: Book) -> Found:
    """Every file is UTF-8."""
    if source.bad_byte is not None:
        line = source.text.encode("utf-8", "replace")[: source.bad_byte].count(b"\n") + 1
        yield line, "bytes that are not UTF-8 (save the file as UTF-8)"


def conflict_marker(source: Source, book: Book) -> Found:
    """No marks that a merge left behind."""
    for number, line in enumerate(source.lines, 1):
        if re.match(r"(<{7}|>{7}|\|{7}) ", line):
            yield number, "a mark of an unfinished merge (decide which side stays, and remove the marks)"


#: Folders that only exist on one machine; names that stand for "any user" are fine in examples.
_MACHINE = re.compile(  # brackets: not found in this file
    r"(?<![\w.])(?:/(?:hom[e]|User[s])/(?!me\b|you\b|user\b)[\w.-]+/|/roo[t]/[\w.])"
)


def machine_path(source: Source, book: Book) -> Found:
    """No absolute path of somebody's machine."""
    here = str(ROOT) if len(ROOT.parts) > 2 else None
    for number, line in enumerate(source.lines, 1):
        match = _MACHINE.search(line)
        if match or (here and here in line):
            yield number, f"the absolute path {match[0] if match else here!r} (write it relative to the project)"


_REGISTRY = re.compile(
    r"\b(?:pypi\.org|pythonhosted\.org|npmjs\.(?:com|org)|anaconda\.org|ghcr\.io|docker\.io|quay\.io|crates\.io)\b",
    re.I,
)


def registry_host(source: Source, book: Book) -> Found:
    """No host name of a package registry: which index is used is the reader's choice."""
    for number, line in enumerate(source.lines, 1):
        if match := _REGISTRY.search(line):
            yield number, f"the registry host {match[0]!r} (name the package and its version only)"


_UNFINISHED = re.compile(r"\b(?:TO[D]O|FIX[M]E|TB[D]|X[X]X)\b")  # brackets: not found in this file


def unfinished(source: Source, book: Book) -> Found:
    """Nothing is left for later."""
    for number, line in enumerate(source.lines, 1):
        if match := _UNFINISHED.search(line):
            yield number, f"{match[0]!r} (finish it, or take it out)"


def _in_prose(source: Source, pattern: re.Pattern[str]) -> Iterator[tuple[int, str]]:
    for prose in source.markdown.of(Prose):
        for match in pattern.finditer(prose.text):
            yield prose.line + prose.text[: match.start()].count("\n"), " ".join(match[0].split())


_WORDS = {
    r"placeholders?": "say what it stands for; names of TVM stand in backquotes",
    r"lorem ipsum": "write the text",
    r"powerful|seamless(?:ly)?|cutting-edge|state-of-the-art|blazing(?:ly)?": "say what it does, or measure it",
    r"(?:it is )?worth noting|needless to say": "leave the words out",
    r"e\.g\.|i\.e\.|etc\.|vs\.?|cf\.": "write 'for example', 'that is', 'and so on', 'against', 'see'",
    r"\w+n['’]t|(?:it|that|there|what|who|let|here)['’]s|(?:I|you|we|they)['’](?:re|ve|ll|d)": "write both words out",
}


def plain_words(source: Source, book: Book) -> Found:
    """No marketing words, no filler, no Latin abbreviations, nothing that stands for text to come."""
    for words, cure in _WORDS.items():
        for line, found in _in_prose(source, re.compile(rf"(?<!\w)(?:{words})(?!\w)", re.I)):
            yield line, f"{found!r} ({cure})"


#: American spellings that slip in most. Names of TVM stand between backquotes, and are not looked at.
_AMERICAN = re.compile(
    r"(?<!\w)(?:behavior|color|neighbor|favor|honor)\w*|(?<!\w)center(?:s|ed)?(?!\w)"
    r"|(?<!\w)(?:optimiz|organiz|recogniz|summariz|initializ|serializ|parallelliz|minimiz|maximiz|generaliz|emphasiz)\w+"
    r"|(?<!\w)analyz(?:e|es|ed|ing)(?!\w)|(?<!\w)(?:cancel|model|label|travel)(?:ed|ing)(?!\w)"
)


def british_spelling(source: Source, book: Book) -> Found:
    """The text is spelt one way: behaviour, colour, optimise, labelled."""
    for line, found in _in_prose(source, _AMERICAN):
        yield line, f"{found!r} (British spelling: -our, -re, -ise, -lled; a name of TVM stands in backquotes)"


_DOUBLED = re.compile(r"(?<![\w-])([A-Za-z]+)[ \n]\1(?![\w-])")


def doubled_word(source: Source, book: Book) -> Found:
    """No word stands twice in a row."""
    for line, found in _in_prose(source, _DOUBLED):
        yield line, f"{found!r} (take one out)"


_TYPED = re.compile(
    r"\b\d+(?:[.,]\d+)?\s*(?:(?:x|×|times|-?fold)\s+(?:as\s+|more\s+|less\s+)?(?:faster|slower|quicker|smaller|larger|fast|slow)\b"
    r"|(?:ms|µs|μs|us|ns|milliseconds|microseconds|nanoseconds|[GTM]FLOP/?s|GFLOPS|TFLOPS|[GM]i?B/s)(?!\w))",
    re.I,
)


def typed_number(source: Source, book: Book) -> Found:
    """Times and ratios in the prose come from a run."""
    for line, found in _in_prose(source, _TYPED):
        yield line, f"the measured number {found!r} is typed (glue it in a cell, and write {{glue}}`name`)"


@functools.cache
def _is_python(language: str) -> bool:
    """Whether a highlighter would show it as Python or as output of Python."""
    if language in ("default", "ipython", "ipython2", "ipython3"):
        return True
    try:
        return bool(re.search(r"Python|NumPy|IPython", type(get_lexer_by_name(language)).__name__))
    except ClassNotFound:
        return False


def python_fence(source: Source, book: Book) -> Found:
    """Python on a page is always a cell, so that it runs."""
    for code in source.markdown.of(Code):
        if not code.language:
            yield (
                code.line,
                (
                    "a code block without a language, which is shown as Python (make it a gallery-cell, or a fence"
                    " with a language: console, text, cpp, c)"
                ),
            )
        elif _is_python(code.language):
            yield code.line, f"'{code.language}' that is not executed (make it a cell of a gallery script)"
    for directive in source.markdown.of(Directive):
        if directive.name in ("literalinclude", "doctest", "testcode", "jupyter-execute", "plot"):
            yield (
                directive.line,
                f"the directive {directive.name} shows code that is no cell (use gallery-cell or quote)",
            )


#: Keys of front matter: ours, and those of Sphinx and MyST that a page may need.
_KEYS = {"covers", "gallery", "needs"} | {"orphan", "nosearch", "tocdepth", "myst", "html_meta"}


def front_matter(source: Source, book: Book) -> Found:
    """A chapter says which rows of the outline it carries, and names scripts and pages that exist."""
    # A chapter opens with a question; the other pages (indexes, colophon) carry no rows.
    chapter = any(directive.name == "question" for directive in source.markdown.of(Directive))
    if source.markdown.front is None:
        if chapter:
            yield 1, 'the chapter has no front matter (begin it with ---, covers: ["1.4"] or covers: [], ---)'
        return
    try:
        data = yaml.safe_load(source.markdown.front)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        yield (mark.line + 2 if mark else 1), f"the front matter is not YAML: {getattr(error, 'problem', error)}"
        return
    if not isinstance(data, dict):
        yield 1, "the front matter is not a list of 'key: value' lines"
        return
    for key in data:
        if key not in _KEYS:
            yield source.front_line(str(key)), f"unknown key {key!r} (there is {', '.join(sorted(_KEYS))})"
    if "covers" not in data and chapter:
        yield 1, "no 'covers:' (name the rows of the outline, or write covers: [])"
    yield from _covers(source, book, data.get("covers", []))
    if isinstance(gallery := data.get("gallery"), str):
        if not book.get(f"gallery/{gallery}.py"):
            yield source.front_line("gallery"), f"there is no gallery/{gallery}.py (write part/script, without .py)"
    elif gallery is not None:
        yield source.front_line("gallery"), "'gallery:' takes one name, part/script"
    needs = data.get("needs", [])
    for page in needs if isinstance(needs, list) else [needs]:
        target = str(page)
        path = f"book{target}.md" if target.startswith("/") else f"{Path(source.path).parent.as_posix()}/{target}.md"
        if not book.get(os.path.normpath(path)):
            yield source.front_line("needs"), f"needs: there is no page {target!r} (write /part/page, without .md)"


def _covers(source: Source, book: Book, covers: Any) -> Found:
    line = source.front_line("covers")
    if not isinstance(covers, list):
        yield line, f'covers: {covers!r} is not a list (write covers: ["1.4"])'
        return
    for row in covers:
        if not isinstance(row, str):
            yield (
                line,
                f'covers: {row!r} is not quoted, and YAML reads 2.10 as the number 2.1 (write "{row}" in quotes)',
            )
        elif row not in book.outline:
            yield line, f"covers: no row {row!r} in {OUTLINE}"
    if len(set(map(str, covers))) < len(covers):
        yield line, "covers: a row stands twice (take one out)"


_CITATION = re.compile(r"\{tvm-(?:py|cpp)\}`")


def page_parts(source: Source, book: Book) -> Found:
    """A page that carries rows has its question, exercises with solutions, citations and a summary."""
    if not source.rows:
        return
    names = [(directive.name, directive.line) for directive in source.markdown.of(Directive)]
    lines = dict(reversed(names))  # the first of each
    for name, cure in (
        ("question", "open the page with the question that it answers"),
        ("gallery-cell", "show a cell of a script"),
        ("exercise", "end with an exercise"),
        ("solution-cell", "give the exercise an executed solution"),
        ("summary", "close with what the reader can do now"),
    ):
        if name not in lines:
            yield 1, f"the page has no {{{name}}} ({cure})"
    if "question" in lines and names[0][0] != "question":
        yield lines["question"], "{question} is not the first on the page (move it below the title)"
    if "summary" in lines and names[-1][0] != "summary":
        yield (
            lines["summary"],
            f"{{summary}} is not the last on the page: {names[-1][0]} at line {names[-1][1]} follows",
        )
    exercises, solutions = (sum(name == n for name, _ in names) for n in ("exercise", "solution-cell"))
    if exercises > solutions > 0:
        yield lines["exercise"], f"{exercises} exercises, {solutions} solution-cells (each exercise has one)"
    citations = len(_CITATION.findall(source.text)) + sum(name == "quote" for name, _ in names)
    if citations < len(source.rows):
        yield 1, f"{citations} citations for {len(source.rows)} rows (cite TVM's source with tvm-py, tvm-cpp or quote)"


def page_length(source: Source, book: Book) -> Found:
    """A page can be read in one go."""
    words = sum(len(prose.text.split()) for prose in source.markdown.of(Prose))
    if words > MOST_WORDS:
        yield 1, f"{words} words, more than {MOST_WORDS} (make two pages of it)"


def script_cells(source: Source, book: Book) -> Found:
    """Heads of cells and settings can be read, and cell names are unique."""
    try:
        scripts.parse(source.file, source.path.removeprefix("gallery/").removesuffix(".py"))
    except scripts.ScriptError as error:
        match = re.match(r"[^:]*:(\d+): (.*)", str(error), re.S)
        yield (int(match[1]), match[2]) if match else (1, str(error))


def script_docstring(source: Source, book: Book) -> Found:
    """A script begins with a title and a sentence."""
    if source.tree is None:
        return
    text = ast.get_docstring(source.tree, clean=True)
    if not text:
        yield 1, "no docstring (begin with a title, its underline, an empty line, and a sentence on what it shows)"
        return
    lines = [*text.split("\n"), "", "", ""]
    if not re.fullmatch(r"([=\-~])\1*", lines[1]) or len(lines[1]) < len(lines[0]):
        yield 2, "the docstring's first line is no title (underline it with as many '=' as it has letters)"
    elif not any(line.strip() for line in lines[2:]):
        yield 2, "the docstring is a title only (say in one sentence what the script shows)"


def script_width(source: Source, book: Book) -> Found:
    """Lines of a script fit on a page."""
    for number, line in enumerate(source.lines, 1):
        if len(line) > CODE_WIDTH:
            yield number, f"{len(line)} columns (break the line at {CODE_WIDTH}: it is shown in HTML and in print)"


def script_code(source: Source, book: Book) -> Found:
    """No star imports, no exec in the script's own namespace, and the script checks what it shows."""
    if source.tree is None:
        return
    checks = False
    for node in ast.walk(source.tree):
        if isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names):
            yield (
                node.lineno,
                f"star import of {node.module} (name what is used: a reader must see where it comes from)",
            )
        elif isinstance(node, ast.Call):
            name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            if isinstance(node.func, ast.Name) and name == "exec" and len(node.args) + len(node.keywords) == 1:
                yield (
                    node.lineno,
                    "exec(text) (write the code out: TVMScript cannot even be parsed from it; a program that TVM"
                    " printed may run in a namespace of its own, exec(text, names))",
                )
            checks = checks or name.startswith("assert_") or name == "expect_error"
        checks = checks or isinstance(node, ast.Assert)
    if not checks:
        yield 1, "the script checks nothing (end it with asserts against an independent reference)"


# ------------------------------------------------------------------------------ rules that look at all files


def script_names(book: Book) -> Iterator[Problem]:
    """Each script's base name is a Python name in lower case, and stands once in the gallery."""
    first: dict[str, str] = {}
    for source in book.sources:
        if matches(source.path, SCRIPTS):
            name = source.path.rsplit("/", 1)[1]
            if not re.fullmatch(r"[a-z][a-z0-9_]*\.py", name):
                text = f"the name {name!r} (use lower-case words joined by '_')"
                yield Problem(source.path, 1, "script-names", text)
            if name in first:
                yield Problem(source.path, 1, "script-names", f"{first[name]} has this base name too (rename one)")
            first.setdefault(name, source.path)


def rows_once(book: Book) -> Iterator[Problem]:
    """No row of the outline is carried by two pages."""
    first: dict[str, str] = {}
    for source in book.sources:
        if matches(source.path, PAGES):
            for row in dict.fromkeys(source.rows):
                if row in first:
                    yield Problem(
                        source.path,
                        source.front_line("covers"),
                        "rows-once",
                        f"row {row!r} is carried by {first[row]} too (one page carries it, others link there)",
                    )
                first.setdefault(row, source.path)


def part_closed(book: Book) -> Iterator[Problem]:
    """A part that is complete closes with a design note."""
    pages: dict[str, list[Source]] = {}
    for source in book.sources:
        if matches(source.path, PAGES) and source.path.count("/") == 2:
            pages.setdefault(source.path.split("/")[1], []).append(source)
    for part, sources in pages.items():
        rows = {row for row in book.outline if row.split(".")[0] == part.split("-")[0]}
        carried = {row for source in sources for row in source.rows}
        noted = any(
            directive.name == "design-note" for source in sources for directive in source.markdown.of(Directive)
        )
        if rows and rows <= carried and not noted:
            text = f"no page of {part} has a {{design-note}} (say why TVM chose this, and what it gave up)"
            yield Problem(sources[0].path, 1, "part-closed", text)


# ----------------------------------------------------------------------------------------------- putting it up

ALL = ("*",)
PAGES = ("book/*.md",)
PROSE = ("book/*.md", "README.md", "CONTRIBUTING.md", "MAINTAINING.md")
SCRIPTS = ("gallery/*.py",)


def matches(path: str, patterns: Iterable[str]) -> bool:
    """Whether a path fits one of the patterns; ``*`` stands for anything, slashes included."""
    return any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns)


@dataclass(frozen=True)
class Rule:
    """A rule for single files."""

    name: str
    files: tuple[str, ...]
    find: Callable[[Source, Book], Found]


RULES = (
    Rule("utf8", ALL, utf8),
    Rule("conflict-marker", ALL, conflict_marker),
    Rule("machine-path", ALL, machine_path),
    Rule("registry-host", ALL, registry_host),
    Rule("unfinished", ALL, unfinished),
    Rule("plain-words", PROSE, plain_words),
    Rule("british-spelling", PROSE, british_spelling),
    Rule("doubled-word", PROSE, doubled_word),
    Rule("typed-number", PAGES, typed_number),
    Rule("python-fence", PAGES, python_fence),
    Rule("front-matter", PAGES, front_matter),
    Rule("page-parts", PAGES, page_parts),
    Rule("page-length", PAGES, page_length),
    Rule("script-cells", SCRIPTS, script_cells),
    Rule("script-docstring", SCRIPTS, script_docstring),
    Rule("script-width", SCRIPTS, script_width),
    Rule("script-code", SCRIPTS, script_code),
)
BOOK_RULES: dict[str, Callable[[Book], Iterator[Problem]]] = {
    "script-names": script_names,
    "rows-once": rows_once,
    "part-closed": part_closed,
}


def lint(book: Book) -> list[Problem]:
    """Every problem of the book, in the order of the files."""
    problems = [
        Problem(source.path, line, rule.name, text)
        for source in book.sources
        for rule in RULES
        if matches(source.path, rule.files)
        for line, text in rule.find(source, book)
    ]
    for find in BOOK_RULES.values():
        problems.extend(find(book))
    return sorted(problems)


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(prog="lint", description="Check the rules of the book.")
    parser.add_argument("--root", type=Path, default=ROOT, help="(default: the project that this file is part of)")
    parser.add_argument("--rules", action="store_true", help="list the rules and stop")
    arguments = parser.parse_args(argv)
    if arguments.rules:
        for name, function in [*((rule.name, rule.find) for rule in RULES), *BOOK_RULES.items()]:
            print(f"{name:20} {(function.__doc__ or '').splitlines()[0]}")
        return 0
    book = read_book(arguments.root)
    problems = lint(book)
    for problem in problems:
        print(problem)
    rules = len(RULES) + len(BOOK_RULES)
    if problems:
        files = len({problem.path for problem in problems})
        print(f"lint: {len(problems)} problem{'s'[: len(problems) > 1]} in {files} file{'s'[: files > 1]}")
        return 1
    print(f"lint: {len(book.sources)} files, {rules} rules, no problem")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The catalogs of translations: renew them from the pages, and check what translators wrote.

``make messages`` runs ``update``: it reads the book, and brings each catalog below ``book/locale`` up to date with its
page. A message whose English changed a little keeps its old translation with the mark ``fuzzy`` and the old English
beside it; Sphinx shows the English until a translator takes the mark away. Messages that are gone are removed.
Pages are named as in links: ``2-tir/overview``, ``gallery/2-tir/tir_overview``. The name ``interface`` stands for the
words of the book's own extensions, ``sphinx`` for those of its templates and its theme.

``check`` reads catalogs and reports, one line a message, what is missing and what does not fit its English.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import importlib.util
import re
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import polib

ROOT = Path(__file__).resolve().parents[3]
EXTENSIONS = ROOT / "src/tvm_deepdive_helpers/sphinxext"
INTERFACE = "interface"
#: The catalog of templates: the book's own ones, and words of the theme that its makers did not translate well.
TEMPLATES = "sphinx"
THEME = ("Color mode", "System Settings", "© Copyright %(copyright)s.")
LANGUAGES = ("zh_CN",)
#: At least so alike are the old and the new English of a message that was changed, and not replaced by another.
ALIKE = 0.6


def catalog_path(page: str, language: str = "zh_CN") -> Path:
    """The catalog of a page, or of the interface."""
    if page == INTERFACE:
        return EXTENSIONS / "locale" / language / "LC_MESSAGES/tvm_deepdive.po"
    return ROOT / "book/locale" / language / "LC_MESSAGES" / f"{page}.po"


def catalogs(language: str = "zh_CN") -> list[str]:
    """Pages that have a catalog, and the interface."""
    folder = ROOT / "book/locale" / language / "LC_MESSAGES"
    return [INTERFACE, *sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.po"))]


# ---------------------------------------------------------------------------------------------------------------------
# Renew catalogs


def merge(old: polib.POFile | None, messages: Iterable[str], language: str = "zh_CN") -> polib.POFile:
    """The catalog of a page after its English changed.

    Parameters
    ----------
    old
        The catalog as it is, or None for a page that has none yet.
    messages
        What there is to translate now, in the order of the page.
    language
        Of the translation.

    Returns
    -------
    polib.POFile
        One entry a message. It has the old translation; or that of a message that changed, with the mark ``fuzzy``
        and the old English; or none.
    """
    new = polib.POFile(wrapwidth=0)
    new.metadata = {
        "Project-Id-Version": "TVM Deep Dive",
        "Language": language,
        "MIME-Version": "1.0",
        "Content-Type": "text/plain; charset=UTF-8",
        "Content-Transfer-Encoding": "8bit",
        "Plural-Forms": "nplurals=1; plural=0;",
    }
    wanted = list(dict.fromkeys(messages))
    have = {entry.msgid: entry for entry in (old or []) if not entry.obsolete}
    lost = {text: entry for text, entry in have.items() if text not in set(wanted) and entry.msgstr}
    for text in wanted:
        if text in have:
            new.append(have[text])
            continue
        entry = polib.POEntry(msgid=text, msgstr="")
        if near := difflib.get_close_matches(text, lost, n=1, cutoff=ALIKE):
            before = lost.pop(near[0])
            # An entry that was marked already keeps the English that its translation belongs to.
            entry.msgstr, entry.tcomment = before.msgstr, before.tcomment
            entry.previous_msgid = before.previous_msgid or before.msgid
            entry.flags = ["fuzzy"]
        new.append(entry)
    return new


def read(path: Path) -> polib.POFile:
    """Read a catalog; texts stay on one line each."""
    return polib.pofile(str(path), wrapwidth=0, encoding="utf-8")


def page_messages(pot: Path) -> list[str]:
    """What there is to translate on a page, from Sphinx's template."""
    return [entry.msgid for entry in read(pot)]


def interface_messages() -> list[str]:
    """The words of the book's own extensions: the arguments of ``_(…)``."""
    from babel.messages.extract import extract_from_file

    found: list[str] = []
    for path in sorted(EXTENSIONS.glob("*.py")):
        with path.open("rb"):
            found += [message for _line, message, _comments, _context in extract_from_file("python", str(path))]
    return found


def template_messages() -> list[str]:
    """The words of the book's templates, and those of its theme, that nobody else translates."""
    folders = (ROOT / "book/_templates", EXTENSIONS / "templates")
    texts = [path.read_text(encoding="utf-8") for folder in folders for path in sorted(folder.glob("*.html"))]
    words = [match[1] for text in texts for match in re.findall(r"""\b_\((['"])(.+?)\1\)""", text)]
    known = _elsewhere()
    return [*dict.fromkeys([*(word for word in words if word not in known), *THEME])]


def _elsewhere() -> set[str]:
    """Messages of Sphinx and of the theme that have a Chinese translation there."""
    found: set[str] = set()
    for package, catalog in (
        ("sphinx", "locale/zh_CN/LC_MESSAGES/sphinx.po"),
        ("pydata_sphinx_theme", "locale/zh/LC_MESSAGES/sphinx.po"),
    ):
        place = importlib.util.find_spec(package)
        path = Path(str(place.origin)).parent / catalog if place else Path(catalog)
        if path.is_file():
            found |= {entry.msgid for entry in polib.pofile(str(path)) if entry.msgstr and not entry.fuzzy}
    return found


def collect() -> Path:
    """Have Sphinx write the templates of all pages, and return their folder."""
    out = ROOT / "_build/gettext"
    command = [sys.executable, "-m", "sphinx", "-q", "-c", ".", "-b", "gettext", "-d", "_build/doctrees/gettext"]
    done = subprocess.run([*command, "book", str(out)], cwd=ROOT, check=False)
    if done.returncode:
        raise SystemExit("messages: Sphinx could not read the book; see the messages above")
    return out


def update(pages: Sequence[str], language: str = "zh_CN") -> list[str]:
    """Renew the catalogs of the named pages (new ones are made), or of all that exist.

    Returns
    -------
    list of str
        A line for each catalog that changed.
    """
    names = list(pages) or catalogs(language)
    templates = collect() if set(names) - {INTERFACE, TEMPLATES} else ROOT / "_build/gettext"
    lines = []
    for name in names:
        path = catalog_path(name, language)
        pot = templates / f"{name}.pot"
        if name == INTERFACE:
            wanted = interface_messages()
        elif name == TEMPLATES:
            wanted = template_messages()
        elif pot.is_file() and _source_exists(name):
            wanted = page_messages(pot)
        else:
            if pages:
                raise SystemExit(f"messages: there is no page {name!r}")
            path.unlink()
            lines.append(f"{name}: the page is gone, and its catalog with it")
            continue
        before = path.read_text(encoding="utf-8") if path.is_file() else ""
        merged = merge(read(path) if before else None, wanted, language)
        text = str(merged).rstrip("\n") + "\n"
        if text != before:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            state = count(merged)
            lines.append(
                f"{name}: {state.total} messages, {state.translated} translated, {state.changed} changed since"
            )
    return lines


def _source_exists(page: str) -> bool:
    """A template of a page that is gone may still lie about."""
    return any((ROOT / "book" / f"{page}{suffix}").is_file() for suffix in (".md", ".rst"))


@dataclass(frozen=True)
class Count:
    """How far a catalog is."""

    total: int
    translated: int
    changed: int


def count(catalog: Iterable[polib.POEntry]) -> Count:
    """Count the messages of a catalog."""
    entries = [entry for entry in catalog if not entry.obsolete]
    return Count(
        total=len(entries),
        translated=sum(bool(entry.msgstr) and not entry.fuzzy for entry in entries),
        changed=sum(bool(entry.fuzzy) for entry in entries),
    )


# ---------------------------------------------------------------------------------------------------------------------
# Check translations

HAN = "\u3400-\u4dbf\u4e00-\u9fff"
#: Punctuation of Chinese; each has its own white space.
WIDE = "，。；：？！、（）《》「」『』“”‘’…—"

#: A role with its text, or text between backticks, in Markdown or reStructuredText.
SPAN = re.compile(r"(?P<role>\{[\w:-]+\}|:[\w:-]+:(?=`))?(?P<tick>`+)(?P<text>.+?)(?<!`)(?P=tick)(?!`)", re.S)
LINK = re.compile(r"\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]*)\)")
ADDRESS = re.compile(r"https?://[^\s<>)]+")
PLACEHOLDER = re.compile(r"%(?:\(\w+\))?(?:\.\d+)?[sdf]")
#: Roles whose text a translator writes in the own language; what stands in angle brackets stays.
TITLED = re.compile(r"(?P<title>.*?)\s*<(?P<target>[^<>]+)>", re.S)
#: Roles whose content is shown as the title of a page or the name of a thing, in the language of the reader.
READABLE = {"doc", "ref", "numref", "prf:ref", "term"}


@dataclass(frozen=True)
class Problem:
    """One finding: where, which rule, and what to do."""

    path: Path
    line: int
    rule: str
    text: str

    def __str__(self) -> str:
        path = self.path.relative_to(ROOT) if self.path.is_relative_to(ROOT) else self.path
        return f"{path}:{self.line}: {self.rule}: {self.text}"


#: What `check` looks at. The first two say how far a translation is, the others whether it is right.
RULES = {
    "untranslated": "the message has no translation",
    "changed": "the English changed since (fuzzy); translate anew and remove the mark and the old English",
    "spans": "roles, glued values, code, links and placeholders are those of the English",
    "markup": "the translation is one paragraph, and its marks (`, *, [) are closed and understood",
    "english": "the translation is Chinese",
    "punctuation": "full-width punctuation beside Chinese, half-width within code and English",
    "spacing": "a space between Chinese and Latin letters, digits or code; none beside full-width punctuation",
    "terms": "terms of the glossary have its words (a comment '# terms: pass' excepts a word that is no term here)",
    "address": "the reader is 你, not 您",
}
PROGRESS = ("untranslated", "changed")


def _spans(text: str) -> tuple[Counter[str], set[str]]:
    """What must stand in both languages: things that count, and code, which may be repeated."""
    counted: Counter[str] = Counter()
    code: set[str] = set()

    def take(match: re.Match[str]) -> str:
        role = (match["role"] or "").strip("{}:")
        content = match["text"]
        if not role:
            code.add(content.strip())
        elif role == "index":
            counted["{index}"] += 1
        elif titled := TITLED.fullmatch(content):
            counted[f"{{{role}}}{titled['target'].strip()}"] += 1
        else:
            counted[f"{{{role}}}{content.strip()}"] += 1
        return " "

    rest = SPAN.sub(take, text)
    for link in LINK.finditer(rest):
        counted[f"]({link['target']})"] += 1
    rest = LINK.sub(lambda match: match["text"], rest)
    counted.update(ADDRESS.findall(rest))
    counted.update(PLACEHOLDER.findall(rest))
    return counted, code


def check_spans(english: str, chinese: str) -> Iterator[str]:
    """Roles, values, code, links and placeholders."""
    (counted, code), (counted2, code2) = _spans(english), _spans(chinese)
    for name in sorted((counted - counted2).elements()):
        yield f"{name} is missing"
    for name in sorted((counted2 - counted).elements()):
        yield f"{name} does not stand in the English so often"
    for name in sorted(code - code2):
        yield f"code `{name}` is missing"
    for name in sorted(code2 - code):
        yield f"code `{name}` does not stand in the English"


def flat(text: str) -> str:
    """The text as a reader sees it, with code and values as Latin letters, for rules about characters.

    A link to a page without words of its own becomes nothing: what it shows is not known here.
    """

    def shown(match: re.Match[str]) -> str:
        role = (match["role"] or "").strip("{}:")
        if not role:
            return "x"
        titled = TITLED.fullmatch(match["text"])
        if titled and role != "glue":
            return titled["title"]
        if role == "index":
            return match["text"]
        return "\0" if role in READABLE else "x"

    text = SPAN.sub(shown, text)
    text = LINK.sub(lambda match: match["text"], text)
    text = ADDRESS.sub("x", text)
    text = PLACEHOLDER.sub("x", text)
    return re.sub(r"(?<!\\)[*_]{1,3}(?=\S)|(?<=\S)(?<!\\)\*{1,3}", "", text)


def check_punctuation(text: str) -> Iterator[str]:
    """Half-width punctuation beside Chinese, and other habits of keyboards."""
    for match in re.finditer(rf"[{HAN}]\s?[,;:?!]|[,;:?!](?=[{HAN}])", text):
        yield f"half-width punctuation in {_near(text, match)}"
    for match in re.finditer(rf"[{HAN}]\.(?=\s|$)", text):
        yield f"half-width full stop in {_near(text, match)}"
    for match in re.finditer(rf"\((?=[^()]*[{HAN}])[^()]*\)|[{HAN}]\s?\([^()]*\)", text):
        yield f"half-width brackets in {_near(text, match)}"
    for match in re.finditer(rf"[{HAN}]\s?[\"']|[\"']\s?[{HAN}]", text):
        yield f"straight quotation marks in {_near(text, match)}; use “ ”"
    for match in re.finditer(rf"[{HAN}]\s?(?:\.\.\.|-{{1,3}}|—)(?![—\w])", text):
        yield f"{match[0][1:].strip()!r} in {_near(text, match)}; use …… or ——"


def check_spacing(text: str) -> Iterator[str]:
    """Spaces between the scripts."""
    for match in re.finditer(rf"[{HAN}][A-Za-z0-9]|[A-Za-z0-9%][{HAN}]", text):
        yield f"no space in {_near(text, match)}"
    for match in re.finditer(r"[，。；：？！、）》」』] | [，。；：？！、（）《》「」『』]|[（《「『] ", text):
        yield f"a space beside full-width punctuation in {_near(text, match)}"
    for match in re.finditer(rf"[{HAN}] +(?=[{HAN}])", text):
        yield f"a space within Chinese in {_near(text, match)}"
    if "  " in text.strip():
        yield "two spaces in a row"


def _near(text: str, match: re.Match[str]) -> str:
    """A piece of text around a match, for a message."""
    piece = text[max(0, match.start() - 6) : match.end() + 6]
    return repr(piece.replace("\0", "…"))


@dataclass(frozen=True)
class Term:
    """A term of the glossary: how it is found in English, and the words for it."""

    english: re.Pattern[str]
    name: str
    words: tuple[str, ...]


@lru_cache(maxsize=1)
def terms() -> tuple[Term, ...]:
    """The terms of the glossary, the longest first."""
    content = tomllib.loads((ROOT / "gallery/data/glossary.toml").read_text(encoding="utf-8"))
    found = []
    for entry in content["term"]:
        whole = re.sub(r"\s*\(.*\)", "", entry["en"])
        names = [name.strip() for name in whole.split(",")]
        for name in names:
            words = (entry["zh"], *entry.get("also", ())) if len(names) == 1 else tuple(entry["zh"].split("、"))
            plural = re.escape(name[:-1]) + "(?:y|ies)" if name.endswith("y") else re.escape(name) + "(?:e?s)?"
            pattern = re.compile(rf"(?<![\w-]){plural.replace(chr(92) + ' ', chr(92) + 's+')}(?![\w-])", re.I)
            found.append(Term(pattern, name, words))
    return tuple(sorted(found, key=lambda term: -len(term.name)))


def check_terms(english: str, chinese: str, excepted: Iterable[str] = ()) -> Iterator[str]:
    """Terms that stand in the English, and whose word does not stand in the Chinese."""
    excepted = set(excepted)
    text = LINK.sub(lambda match: match["text"], SPAN.sub(" ", english))
    shown = SPAN.sub(lambda match: match[0] if match["role"] else match["text"], chinese)
    for term in terms():
        text, number = term.english.subn(" ", text)
        if number and term.name not in excepted and not any(word.lower() in shown.lower() for word in term.words):
            yield f"{term.name!r} is {' or '.join(term.words)} in the glossary"


@lru_cache(maxsize=1)
def _markdown() -> object:
    from markdown_it import MarkdownIt
    from mdit_py_plugins.dollarmath import dollarmath_plugin
    from mdit_py_plugins.myst_role import myst_role_plugin

    return MarkdownIt("commonmark").use(myst_role_plugin).use(dollarmath_plugin)


def check_markup(english: str, chinese: str) -> Iterator[str]:
    """The translation of a MyST message must be one paragraph, and no mark may be left over in its text."""

    def left(text: str) -> tuple[list[str], str]:
        tokens = _markdown().parse(text)  # type: ignore[attr-defined]
        words = "".join(
            child.content
            for token in tokens
            for child in (token.children or [])
            if child.type in ("text", "myst_role_error")
        )
        return [token.type for token in tokens], words

    kinds, words = left(chinese)
    before, words_before = left(english)
    if before[:1] == ["paragraph_open"] and len(before) == 3 and (kinds[:1] != ["paragraph_open"] or len(kinds) != 3):
        yield "Markdown reads it as something else than one paragraph; write a backslash before its first character"
    for mark in "*`":
        if words.count(mark) > words_before.count(mark):
            yield f"a {mark} that Markdown does not understand is left in the text (beside punctuation, move the mark)"
    if "{" in words and re.search(r"\{[\w:-]+\}", words) and not re.search(r"\{[\w:-]+\}", words_before):
        yield "a role is not understood"


def check_entry(entry: polib.POEntry, markdown: bool = True) -> Iterator[tuple[str, str]]:
    """Rule and text of each problem of one message."""
    english, chinese = entry.msgid, entry.msgstr
    if entry.fuzzy:
        yield "changed", f"English now: {english[:70]!r}"
        return
    if not chinese.strip():
        yield "untranslated", repr(english[:70])
        return
    yield from (("spans", text) for text in check_spans(english, chinese))
    if markdown:
        yield from (("markup", text) for text in check_markup(english, chinese))
    seen = flat(chinese)
    words = re.findall(r"[A-Za-z]{2,}", re.sub(r"[\w-]*[A-Z_.][\w.-]*[A-Z_.][\w.-]*", " ", flat(english)))
    if not re.search(f"[{HAN}]", seen) and len([word for word in words if word.islower() and word != "x"]) > 1:
        yield "english", repr(chinese[:60])
    yield from (("punctuation", text) for text in check_punctuation(seen))
    yield from (("spacing", text) for text in check_spacing(seen))
    excepted = re.findall(r"terms:(.*)", entry.tcomment or "")
    names = [name.strip() for line in excepted for name in line.split(",")]
    yield from (("terms", text) for text in check_terms(english, chinese, names))
    if "您" in chinese:
        yield "address", "write 你"


def check(pages: Sequence[str] = (), language: str = "zh_CN", progress: bool = True) -> list[Problem]:
    """Problems of the catalogs of the named pages, or of all.

    Parameters
    ----------
    pages
        Names as for :func:`update`.
    language
        Of the catalogs.
    progress
        Whether messages that are not translated, or changed since, count as problems.
    """
    found = []
    for page in pages or catalogs(language):
        path = catalog_path(page, language)
        if not path.is_file():
            found.append(Problem(path, 1, "untranslated", f"there is no catalog; make messages PAGES={page}"))
            continue
        try:
            catalog = read(path)
        except (OSError, UnicodeDecodeError) as error:
            found.append(Problem(path, 1, "markup", f"cannot be read as a catalog: {error}"))
            continue
        markdown = page not in (INTERFACE, TEMPLATES) and not page.startswith("gallery/")
        for entry in catalog:
            for rule, text in check_entry(entry, markdown):
                if progress or rule not in PROGRESS:
                    found.append(Problem(path, entry.linenum, rule, text))
    return found


def finished_pages(language: str = "zh_CN") -> list[str]:
    """Pages whose translation must be complete at a release: the lines of ``book/locale/<language>/complete.txt``."""
    text = (ROOT / "book/locale" / language / "complete.txt").read_text(encoding="utf-8")
    return [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see the module."""
    parser = argparse.ArgumentParser(prog="messages", description=__doc__.split("\n")[0])
    parser.add_argument("--language", default="zh_CN", choices=LANGUAGES)
    commands = parser.add_subparsers(dest="command", required=True)
    renew = commands.add_parser(
        "update", help="renew the catalogs from the pages; name a page to begin its translation"
    )
    renew.add_argument("pages", nargs="*")
    look = commands.add_parser("check", help="report what is missing or wrong in catalogs")
    look.add_argument("pages", nargs="*")
    look.add_argument("--wellformed", action="store_true", help="leave out what is only not translated yet")
    look.add_argument("--release", action="store_true", help="the pages that complete.txt lists, and the interface")
    look.add_argument("--rules", action="store_true", help="list the rules")
    commands.add_parser("status", help="list how far each catalog is")
    asked = parser.parse_args(argv)
    if asked.command == "update":
        lines = update(asked.pages, asked.language)
        print("\n".join(lines) if lines else "messages: all catalogs are up to date")
        return 0
    if asked.command == "status":
        for page in catalogs(asked.language):
            state = count(read(catalog_path(page, asked.language)))
            print(f"{state.translated:4} of {state.total:4}  {state.changed or '':4} {page}")
        return 0
    if asked.rules:
        print("\n".join(f"{rule:13} {text}" for rule, text in RULES.items()))
        return 0
    pages = [INTERFACE, TEMPLATES, *finished_pages(asked.language)] if asked.release else asked.pages
    problems = check(pages, asked.language, progress=not asked.wellformed)
    if asked.release:
        path = catalog_path(INTERFACE, asked.language)
        have = {entry.msgid for entry in read(path)}
        new = [word for word in interface_messages() if word not in have]
        problems += [Problem(path, 1, "untranslated", f"{word!r}; make messages PAGES=interface") for word in new]
    with contextlib.suppress(BrokenPipeError):
        print("\n".join(map(str, problems)) if problems else "messages: no problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())

"""Search of the pages: Chinese text, names of code, and results in an order that helps.

Sphinx cuts text into words, and ranks a page by whether a word stands in it. Three things are added:

* Chinese has no spaces. A run of it is cut into overlapping pairs of characters, when a page is read and again when
  somebody searches, so no dictionary is needed. A dotted name, ``relax.BlockBuilder.emit``, is one word too.
* ``searchweights.js``, written beside Sphinx's index, says how often a page uses the words that it uses most. With it
  the script ``book-search.js`` of the search page puts pages that are *about* a word first, and pages of scripts last.
* The glossary's words, English and Chinese, stand for each other, so either language finds a page that is written in
  the other one.
"""

from __future__ import annotations

import json
import math
import re
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.search import js_index
from sphinx.search.en import SearchEnglish

HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
#: A run of Chinese, or a word, or a dotted name; the first is cut into pairs.
PIECE = re.compile(rf"(?P<han>[{HAN}]+)|(?P<word>[^\W{HAN}]+(?:\.[^\W\d{HAN}][^\W{HAN}]*)*)")
#: Longer dotted names, as numbers with points or file names may be, are no words.
LONGEST = 60
#: So many words of a page have a weight; a word that stands there less often than this has none.
WEIGHED, OFTEN = 120, 3
#: Weights of words in titles of sections, and in the title of the page.
SECTION, TITLE = 3, 9
WEIGHTS = "searchweights.js"
SCRIPT = "book-search.js"

SPLITTER = rf"""
/* Pairs of Chinese characters, words, and dotted names, as sphinxext/searching.py cuts the pages. */
var splitQuery = (query) => {{
  const found = [];
  const pieces = /([{HAN}]+)|([\p{{Letter}}\p{{Number}}_]+(?:\.[\p{{Letter}}_][\p{{Letter}}\p{{Number}}_]*)*)/gu;
  for (const [run] of query.matchAll(pieces)) {{
    if (/^[{HAN}]/u.test(run)) {{
      const characters = [...run];
      if (characters.length === 1) found.push(run);
      for (let at = 0; at + 1 < characters.length; at++) found.push(characters[at] + characters[at + 1]);
    }} else {{
      for (const word of run.match(/[{HAN}]+|[^{HAN}]+/gu)) {{
        if (/^[{HAN}]/u.test(word)) found.push(...splitQuery(word));
        else found.push(...word.split("."));
      }}
    }}
  }}
  return found.filter((word) => word);
}};
"""


def pieces(text: str) -> list[str]:
    """Words of a text, as the index knows them but for stemming.

    >>> pieces("算子融合由 relax.FuseOps 完成")
    ['算子', '子融', '融合', '合由', 'relax', 'FuseOps', 'relax.FuseOps', '完成']
    """
    found: list[str] = []
    for match in PIECE.finditer(text):
        if run := match["han"]:
            found += [run[at : at + 2] for at in range(len(run) - 1)] or [run]
            continue
        word = match["word"]
        parts = word.split(".")
        found += parts
        if len(parts) > 1 and len(word) <= LONGEST:
            found.append(word)
    return found


class BookSearch(SearchEnglish):
    """Both languages: a Chinese page has English words, and an English one may have Chinese ones."""

    js_splitter_code = SPLITTER

    def __init__(self, options: dict[str, str]) -> None:
        super().__init__(options)
        self._written: dict[str, bool] = {}

    def split(self, input: str) -> list[str]:
        words = pieces(input)
        return words + [f"{word}." for word in words if self._keeps(word)]

    def _keeps(self, word: str) -> bool:
        """Whether a word is also found as it is written, with a dot behind it.

        The stem of ``tensorize`` is that of ``tensor``; who searches for the primitive does not want every tensor.
        """
        if word not in self._written:
            self._written[word] = word.isascii() and "." not in word and len(self.stem(word)) <= len(word) - 3
        return self._written[word]

    def stem(self, word: str) -> str:
        """Words with a dot stay as they are."""
        return word.lower() if "." in word else super().stem(word)


class BookSearchChinese(BookSearch):
    """The same under the name by which Sphinx looks for Chinese."""

    lang = "zh"


def _weights(env: Any) -> dict[str, dict[str, int]]:
    if not hasattr(env, "tvm_search_weights"):
        env.tvm_search_weights = {}
    return env.tvm_search_weights


def _weigh(app: Any, doctree: nodes.document) -> None:
    """Handler of ``doctree-read``: how often the page uses its words."""
    env = app.env
    language = _language(app)
    counts: Counter[str] = Counter()
    first = True
    for title in doctree.findall(nodes.title):
        words = language.split(title.astext())
        counts.update(dict.fromkeys(words, TITLE if first else SECTION))
        first = False
    for text in doctree.findall(nodes.Text):
        counts.update(language.split(text.astext()))
    stemmed: Counter[str] = Counter()
    for word, number in counts.items():
        stem = language.stem(word)
        if len(stem) > 1 and language.word_filter(stem):
            stemmed[stem] += number
    most = [(word, number) for word, number in stemmed.most_common(WEIGHED) if number >= OFTEN]
    _weights(env)[env.docname] = {word: min(9, round(2 * math.log2(number) - 2)) for word, number in most}


def _language(app: Any) -> BookSearch:
    return BookSearch(dict(app.config.html_search_options))


def _forget(app: Any, env: Any, docname: str) -> None:
    """Handler of ``env-purge-doc``."""
    _weights(env).pop(docname, None)


def _merge(app: Any, env: Any, docnames: list[str], other: Any) -> None:
    """Handler of ``env-merge-info``."""
    there = _weights(other)
    _weights(env).update({docname: there[docname] for docname in docnames if docname in there})


def equivalents(glossary: Path) -> list[list[str]]:
    """Words of the glossary that stand for each other; the first of each list is English."""
    if not glossary.is_file():
        return []
    terms = tomllib.loads(glossary.read_text(encoding="utf-8"))["term"]
    found = []
    for term in terms:
        english = re.sub(r"\s*\(.*\)", "", term["en"])
        short = re.findall(r"\(([^)]*)\)", term["en"])
        american = re.sub("is(e|ed|ing|ation)\\b", r"iz\1", english)
        words = [english, american, *short, *re.split("[、，]", term["zh"]), *term.get("search", ())]
        words = list(dict.fromkeys(word.lower() for word in words if word))
        if len(words) > 1:
            found.append(words)
    return found


def _write(app: Any, exception: Exception | None) -> None:
    """Handler of ``build-finished``: the weights, and the glossary's words."""
    if exception or app.builder.name != "html":
        return
    weights = {docname: words for docname, words in _weights(app.env).items() if docname in app.env.all_docs}
    names = sorted(weights)
    by_word: dict[str, list[int]] = {}
    for number, docname in enumerate(names):
        for word, weight in weights[docname].items():
            by_word.setdefault(word, []).append(10 * number + weight)
    glossary = Path(app.srcdir, app.config.tvm_search_glossary)
    content = {"docnames": names, "weights": by_word, "equivalents": equivalents(glossary)}
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    path = Path(app.outdir, WEIGHTS)
    text = f"window.bookSearch={text};\n"
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def _restore_entries(app: Any, env: Any) -> list[str]:
    """Handler of ``env-updated``: the search index keeps the index entries of pages that are not written again.

    Sphinx reads back the titles and words of the last search index, but not its index entries, so a build that writes
    one page would leave only the entries of that page.
    """
    if app.builder.name != "html":
        return []
    entries: dict[str, list[tuple[str, str, str]]] = {docname: [] for docname in sorted(env.found_docs)}
    try:
        frozen = js_index.loads(Path(app.outdir, app.builder.searchindex_filename).read_text(encoding="utf-8"))
        for entry, places in frozen["indexentries"].items():
            for number, target, main in places:
                if (docname := frozen["docnames"][number]) in entries:
                    entries[docname].append((entry, target, "main" if main else ""))
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        pass  # there is none yet, or it is damaged: Sphinx says so
    env._search_index_index_entries = entries
    return []


def _add_script(app: Any, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    """Handler of ``html-page-context``: the search page has two scripts more."""
    if pagename == "search":
        app.add_js_file(f"../{WEIGHTS}")
        app.add_js_file(SCRIPT)


def setup(app: Any) -> dict[str, Any]:
    app.add_config_value("tvm_search_glossary", "../gallery/data/glossary.toml", "")
    app.add_search_language(type("BookSearchEnglish", (BookSearch,), {"lang": "en"}))
    app.add_search_language(BookSearchChinese)
    app.connect("doctree-read", _weigh, priority=950)
    app.connect("env-purge-doc", _forget)
    app.connect("env-merge-info", _merge)
    app.connect("env-updated", _restore_entries)
    app.connect("html-page-context", _add_script)
    app.connect("build-finished", _write)
    return {"version": "1", "env_version": 1, "parallel_read_safe": True, "parallel_write_safe": True}

"""The editions of the book in several languages: how one leads to the other, and how far a translation is.

* Every page has a switch to the same page in the other languages, plain links that need no script, and says in its head
  where they are. The editions stand side by side, ``_build/html/en`` and ``_build/html/zh_CN``.
* A page that is not translated says so below its title, and one whose translation is behind says how many messages it
  shows in English. The catalogs are compared with the text that is really built, so this holds even if nobody renewed
  the catalogs.
* Directive ``translation-status`` makes a table of all pages, in every edition.
"""

from __future__ import annotations

import html
import os
import re
from pathlib import Path
from typing import Any, ClassVar

from docutils import nodes
from sphinx.locale import get_translation
from sphinx.transforms import SphinxTransform
from sphinx.util.docutils import SphinxDirective
from sphinx.util.index_entries import split_index_msg
from sphinx.util.nodes import extract_messages, traverse_translatable_index

from .messages import compile_catalog, gallery_folder
from .tables import table

_ = get_translation("tvm_deepdive")

#: The language in which the pages are written.
SOURCE = "en"
THUMBNAIL = re.compile(
    r'(<div class="sphx-glr-thumbcontainer" tooltip=")([^"]*)(">.*?<span class="(?:doc|std std-ref)">)(.*?)(</span>.*?'
    r'<div class="sphx-glr-thumbnail-title">)(.*?)(</div>)',
    re.S,
)

#: The number of an exercise before its title in brackets.
NUMBER_AND_BRACKET = re.compile(r'(<span class="caption-number">[^<]*?) </span>（')


def tag(language: str) -> str:
    """The name of a language in HTML."""
    return language.replace("_", "-")


# ---------------------------------------------------------------------------------------------------------------------
# How far a translation is


class _Messages:
    """What there is to translate on each page, and what of it the catalogs have."""

    def __init__(self) -> None:
        self.of: dict[str, frozenset[str]] = {}
        self.introductions: dict[str, str] = {}
        self.tables: set[str] = set()
        self.shown: Any = None
        #: By language and page: the time of the catalog, and the messages that it translates.
        self.catalogs: dict[tuple[str, str], tuple[int, frozenset[str]]] = {}


def _messages(env: Any) -> _Messages:
    if not hasattr(env, "tvm_messages"):
        env.tvm_messages = _Messages()
    return env.tvm_messages


class CountMessages(SphinxTransform):
    """Note what there is to translate on a page, before it is translated."""

    default_priority = 19

    def apply(self, **kwargs: Any) -> None:
        found = {message for node, message in extract_messages(self.document) if not _in_front_matter(node)}
        for _node, entries in traverse_translatable_index(self.document):
            for kind, value, *_rest in entries:
                found.update(split_index_msg(kind, value))
        _messages(self.env).of[self.env.docname] = frozenset(found)


def _in_front_matter(node: nodes.Node) -> bool:
    """The front matter of a page is a list of fields at its head, which is gone when the page is shown."""
    while node.parent is not None:
        if isinstance(node, (nodes.docinfo, nodes.field_list)) and isinstance(node.parent, nodes.document):
            return True
        node = node.parent
    return False


def catalog_file(app: Any, language: str, docname: str) -> Path:
    """The catalog of a page."""
    return Path(app.srcdir, app.config.locale_dirs[0], language, "LC_MESSAGES", f"{docname}.po")


def translated(app: Any, language: str, docname: str) -> frozenset[str]:
    """Messages that the catalog of a page translates; read again only when the file changed."""
    path = catalog_file(app, language, docname)
    try:
        changed = path.stat().st_mtime_ns
    except FileNotFoundError:
        return frozenset()
    known = _messages(app.env).catalogs
    if (old := known.get((language, docname))) and old[0] == changed:
        return old[1]
    from babel.messages.pofile import read_po

    with path.open("rb") as file:
        catalog = read_po(file)
    found = frozenset(str(entry.id) for entry in catalog if entry.id and entry.string and not entry.fuzzy)
    known[language, docname] = (changed, found)
    return found


def progress(app: Any, language: str, docname: str) -> tuple[int, int]:
    """How many messages of a page are translated, and how many there are."""
    wanted = _messages(app.env).of.get(docname, frozenset())
    return len(wanted & translated(app, language, docname)), len(wanted)


def _add_note(app: Any, doctree: nodes.document) -> None:
    """Handler of ``doctree-read``: say below the title what of the page is not translated."""
    env = app.env
    first = next(doctree.findall(nodes.paragraph), None)
    if env.docname.startswith(f"{gallery_folder(app.config)}/"):
        paragraphs = (p for p in doctree.findall(nodes.paragraph) if p.get("translatable", True))
        first = next(paragraphs, None)
        _messages(env).introductions[env.docname] = first.astext().replace("\n", " ") if first is not None else ""
    if app.config.language == SOURCE:
        return
    done, total = progress(app, app.config.language, env.docname)
    title = next(doctree.findall(nodes.title), None)
    if done == total or title is None:
        return
    if done == 0:
        text = _("This page is not translated yet. Here is the English text.")
    else:
        text = _("The translation of this page is behind: %d messages changed, and stand here in English.") % (
            total - done
        )
    note = nodes.paragraph("", "", nodes.Text(text), classes=["translation-note"], translatable=False)
    title.parent.insert(title.parent.index(title) + 1, note)
    if done == 0 and app.builder.name == "latex":
        # Quotation marks and dashes of English text come from the Latin font.
        title.parent.insert(title.parent.index(note) + 1, nodes.raw("", r"\englishmarks", format="latex"))
        title.parent.append(nodes.raw("", r"\chinesemarks", format="latex"))


# ---------------------------------------------------------------------------------------------------------------------
# The table


class translation_status(nodes.General, nodes.Element):
    """Stands for the table until all pages are read."""


class TranslationStatus(SphinxDirective):
    """A table of all pages with the number of messages that are translated, by language."""

    option_spec: ClassVar[dict[str, Any]] = {}

    def run(self) -> list[nodes.Node]:
        node = translation_status()
        self.set_source_info(node)
        _messages(self.env).tables.add(self.env.docname)
        return [node]


def _languages(app: Any) -> dict[str, str]:
    """The editions but the English one."""
    return {code: name for code, name in app.config.tvm_editions.items() if code != SOURCE}


def _rows(app: Any) -> list[tuple[str, str, list[tuple[int, int]]]]:
    """Kind, page or part, and progress in each language; the scripts of a part are one row."""
    folder = gallery_folder(app.config)
    pages: list[tuple[str, str, list[tuple[int, int]]]] = []
    scripts: dict[str, list[tuple[int, int]]] = {}
    for docname in sorted(_messages(app.env).of):
        if docname not in app.env.all_docs:
            continue
        counts = [progress(app, language, docname) for language in _languages(app)]
        if docname.startswith(f"{folder}/"):
            part = docname.split("/")[1]
            key = f"{folder}/{part}/index" if part != "index" else docname
            sums = scripts.setdefault(key, [(0, 0)] * len(counts))
            scripts[key] = [(a + c, b + d) for (a, b), (c, d) in zip(sums, counts, strict=True)]
        else:
            pages.append(("page", docname, counts))
    return [*pages, *(("scripts", docname, counts) for docname, counts in scripts.items())]


def _renew_tables(app: Any, env: Any) -> list[str]:
    """Handler of ``env-updated``: the pages with a table are written again when a number changed."""
    messages = _messages(env)
    rows = [(row, str(env.titles.get(row[1], ""))) for row in _rows(app)] if messages.tables else []
    if rows == messages.shown:
        return []
    messages.shown = rows
    return sorted(messages.tables)


def _fill_tables(app: Any, doctree: nodes.document, docname: str) -> None:
    """Handler of ``doctree-resolved``."""
    for node in list(doctree.findall(translation_status)):
        rows = _rows(app)
        head = [_("Page"), _("Messages"), *_languages(app).values()]
        body: list[list[Any]] = []
        sums = [0] * len(_languages(app))
        for kind, page, counts in rows:
            title = app.env.titles[page].astext() if page in app.env.titles else page
            text = _("Scripts: %s") % title if kind == "scripts" else title
            sums = [old + done for old, (done, _total) in zip(sums, counts, strict=True)]
            shown = [f"{done}" if done else "" for done, _total in counts]
            link: nodes.Node = nodes.Text(text)
            if page in app.env.found_docs and app.builder.format == "html":
                link = nodes.reference("", text, internal=True, refuri=app.builder.get_relative_uri(docname, page))
            body.append([link, str(counts[0][1]), *shown])
        total = sum(counts[0][1] for _kind, _page, counts in rows)
        body.append([_("all pages"), str(total), *map(str, sums)])
        made = table(head, body, widths=[50, 10, *[12] * len(sums)])
        made["classes"].append("translation-status")
        node.replace_self([made])


def _forget(app: Any, env: Any, docname: str) -> None:
    """Handler of ``env-purge-doc``."""
    messages = _messages(env)
    messages.of.pop(docname, None)
    messages.introductions.pop(docname, None)
    messages.tables.discard(docname)


def _merge(app: Any, env: Any, docnames: list[str], other: Any) -> None:
    """Handler of ``env-merge-info``."""
    here, there = _messages(env), _messages(other)
    here.of.update({docname: there.of[docname] for docname in docnames if docname in there.of})
    here.introductions.update({name: there.introductions[name] for name in docnames if name in there.introductions})
    here.tables.update(there.tables & set(docnames))


# ---------------------------------------------------------------------------------------------------------------------
# From one edition to the other


def links(app: Any, pagename: str) -> list[dict[str, Any]]:
    """The editions, each with the way to this page in it."""
    uri = app.builder.get_target_uri(pagename)
    up = "../" * (uri.count("/") + 1)
    return [
        {
            "code": code,
            "tag": tag(code),
            "name": name,
            "current": code == app.config.language,
            "href": f"{up}{code}/{uri}",
        }
        for code, name in app.config.tvm_editions.items()
    ]


def _page(app: Any, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    """Handler of ``html-page-context``."""
    if app.builder.name != "html" or len(app.config.tvm_editions) < 2 or pagename == "404":
        return  # nobody knows from where the page for wrong addresses is seen
    editions = links(app, pagename)
    context["editions"], context["language_label"] = editions, _("Language")
    base = (app.config.html_baseurl or "").rstrip("/")
    heads = []
    for edition in editions:
        href = edition["href"]
        if base:  # the base is the address of this edition, or of all
            href = re.sub(rf"/{re.escape(app.config.language)}$", "", base) + "/" + href.lstrip("./")
        heads.append(f'<link rel="alternate" hreflang="{edition["tag"]}" href="{html.escape(href)}"/>')
        if edition["code"] == SOURCE:
            heads.append(f'<link rel="alternate" hreflang="x-default" href="{html.escape(href)}"/>')
    context["metatags"] = context.get("metatags", "") + "\n" + "\n".join(heads)
    if app.config.language == SOURCE or "body" not in context:
        return
    context["body"] = _in_other_language(app, pagename, context["body"])


def _in_other_language(app: Any, pagename: str, body: str) -> str:
    """Texts that sphinx-gallery writes as HTML; and say to browsers that an untranslated page is English."""

    def thumbnail(match: re.Match[str]) -> str:
        href = re.search(r'href="([^"#]*)\.html', match[3])
        name = _resolve(pagename, href[1]) if href else ""
        text = _messages(app.env).introductions.get(name)
        tooltip = html.escape(text) if text else match[2]
        return f"{match[1]}{tooltip}{match[3]}{match[4]}{match[5]}{match[4]}{match[7]}"

    body = NUMBER_AND_BRACKET.sub(r"\1</span>（", body)
    if "sphx-glr-thumbcontainer" in body:
        body = THUMBNAIL.sub(thumbnail, body)
    note = '<p class="translation-note">'
    if note in body:
        here = tag(app.config.language)
        body = body.replace(note, f'<p class="translation-note" lang="{here}">', 1)
        if progress(app, app.config.language, pagename)[0] == 0:
            body = f'<div lang="{SOURCE}">{body}</div>'
    return body


def _resolve(pagename: str, href: str) -> str:
    """The page that a relative link means."""
    parts = pagename.split("/")[:-1]
    for piece in href.split("/"):
        if piece == "..":
            parts = parts[:-1]
        elif piece != ".":
            parts.append(piece)
    return "/".join(parts)


#: What the printed book needs in Chinese, after everything else of the preamble: headings, quotation marks of the
#: Chinese font (in English text an apostrophe stays one), and the script that Chinese has in the place of italics.
CHINESE_PREAMBLE = r"""
\titleformat{\chapter}[display]{\normalfont\huge\bfseries}{第 \thechapter{} 章}{20pt}{\Huge}
\renewcommand{\chaptermark}[1]{\markboth{第 \thechapter{} 章\quad #1}{}}
\newcommand{\englishmarks}{\xeCJKDeclareCharClass{Default}{"2014, "2018, "2019, "201C, "201D, "2026}}
\newcommand{\chinesemarks}{\xeCJKResetCharClass\xeCJKDeclareCharClass{Default}{"2018, "2019}}
\chinesemarks
\setCJKmainfont{FandolSong-Regular.otf}%
  [BoldFont=FandolSong-Bold.otf, ItalicFont=FandolKai-Regular.otf, BoldItalicFont=FandolHei-Bold.otf]
\setCJKsansfont{FandolHei-Regular.otf}[BoldFont=FandolHei-Bold.otf, ItalicFont=FandolKai-Regular.otf]
\addto\captionsenglish{%
  \renewcommand{\contentsname}{目录}\renewcommand{\indexname}{索引}\renewcommand{\bibname}{参考文献}}
\AtBeginDocument{\protected\def\autopageref*#1{第 \pageref*{#1} 页}}
\hypersetup{pdflang={zh-CN}, pdfsubject={Apache TVM 源码剖析},
  pdfkeywords={TVM, 编译器, 张量, Relax, TIR, 代码生成, 自动调度}}
"""
#: Title, author and description of the printed book and the EPUB.
CHINESE_TITLE = ("深入 TVM", "TVM Deep Dive 的作者们", "Apache TVM 怎样工作：从源码讲起，每段代码都执行过。")

#: How Sphinx writes the page behind a link, in print.
PAGE_OF_LINK = re.compile(r" \((\\autopageref\*\{\\detokenize\{[^}]*\}\})\)")


def _brackets_in_print(app: Any, exception: Exception | None) -> None:
    """Handler of ``build-finished``: the brackets around the page of a link are full-width, as all others."""
    if exception or app.builder.name != "latex" or app.config.language != "zh_CN":
        return
    for _root, file, *_more in app.config.latex_documents:
        path = Path(app.outdir, file)
        if path.is_file():
            path.write_text(PAGE_OF_LINK.sub(r"（\1）", path.read_text(encoding="utf-8")), encoding="utf-8")


def _settings(app: Any, config: Any) -> None:
    """Handler of ``config-inited``: the book's templates, and what print needs in another language."""
    # Relative, because `.buildinfo` holds a hash of it, which must not tell where the book was built.
    templates = os.path.relpath(Path(__file__).with_name("templates"), app.confdir)
    config.templates_path = [*config.templates_path, templates]
    if config.language == "zh_CN":
        elements, documents = dict(config.latex_elements), config.latex_documents
        elements["preamble"] = elements.get("preamble", "") + CHINESE_PREAMBLE
        config.latex_elements = elements
        title, author, description = CHINESE_TITLE
        config.latex_documents = [(root, file, title, author, *more) for root, file, _t, _a, *more in documents]
        config.epub_title, config.epub_author, config.epub_description = title, author, description
        config.epub_publisher = author
    config.epub_language = tag(config.language)
    # The book is published with the address of the English edition; the others lie beside it.
    for name in ("html_baseurl", "ogp_site_url", "notfound_urls_prefix"):
        address = getattr(config, name, None) or ""
        if address.endswith(f"/{SOURCE}/"):
            setattr(config, name, f"{address.removesuffix(f'{SOURCE}/')}{config.language}/")


def _words(app: Any) -> None:
    """Handler of ``builder-inited``, when the language is known."""
    if app.config.language != SOURCE:
        # Sphinx compiles only the catalogs of the pages that it was asked to write, and reads all.
        for po in Path(app.srcdir, app.config.locale_dirs[0], app.config.language).rglob("*.po"):
            compile_catalog(po)
    if app.config.html_theme == "sphinx_book_theme" and app.config.language != SOURCE:
        app.config.html_theme_options.setdefault("search_bar_text", _("Search…"))
    if app.config.language != SOURCE and app.config.copyright == "the TVM Deep Dive authors, Apache License 2.0":
        app.config.copyright = _("the TVM Deep Dive authors, Apache License 2.0")
    if "notfound_context" in app.config:
        title = _("No such page")
        body = _(
            "This address leads nowhere. The pages of the book are listed at the side; the search finds words in them."
        )
        app.config.notfound_context = {"title": title, "body": f"<h1>{title}</h1><p>{body}</p>"}


def setup(app: Any) -> dict[str, Any]:
    app.add_config_value("tvm_editions", {}, "html")
    app.add_transform(CountMessages)
    app.add_directive("translation-status", TranslationStatus)
    app.add_node(translation_status)
    app.connect("config-inited", _settings)
    app.connect("builder-inited", _words)
    app.connect("doctree-read", _add_note, priority=950)
    app.connect("env-purge-doc", _forget)
    app.connect("env-merge-info", _merge)
    app.connect("env-updated", _renew_tables)
    app.connect("doctree-resolved", _fill_tables)
    app.connect("build-finished", _brackets_in_print)
    # Before the theme, which leaves out parts of a page that would be empty.
    app.connect("html-page-context", _page, priority=300)
    return {"version": "1", "env_version": 1, "parallel_read_safe": True, "parallel_write_safe": True}

"""What of a page is translated, and what is not: the messages of gettext.

Sphinx takes most texts of a page as messages by itself. Here is the rest: the titles of exercises become messages;
formulas, and the sentences that sphinx-gallery puts onto the page of every script, do not, and the latter are put into
the reader's language from the catalog of this package. Code and outputs are never messages.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.locale import get_translation
from sphinx.transforms import SphinxTransform
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx_exercise.directive import ExerciseDirective
from sphinx_exercise.nodes import exercise_subtitle, exercise_title, is_exercise_node

_ = get_translation("tvm_deepdive")

#: Paragraphs of sphinx-gallery that are alike on every page of a script: links, and the sentence around one of them.
GENERATED = re.compile(r":(ref|doc|download):`[^`]*`( to download the full example code\.)?")
#: The texts of its links to files.
DOWNLOAD = re.compile(r"Download (Jupyter notebook|Python source code|zipped): (.*)")


def gallery_folder(config: Any) -> str:
    """Name of the folder, below the source folder, in which sphinx-gallery leaves its pages."""
    dirs = config.sphinx_gallery_conf["gallery_dirs"]
    return dirs if isinstance(dirs, str) else dirs[0]


class Exercise(ExerciseDirective):
    """An exercise whose title is a message."""

    def run(self) -> list[nodes.Node]:
        made = super().run()
        for node in made:
            for title in node.findall(exercise_title):
                title["translatable"] = False
                for subtitle in title.findall(exercise_subtitle):
                    subtitle.rawsource = self.arguments[0]
                    self.set_source_info(subtitle)
        return made


class ChooseMessages(SphinxTransform):
    """Mark what is no message, before anything is translated."""

    default_priority = 9

    def apply(self, **kwargs: Any) -> None:
        for formula in self.document.findall(nodes.math_block):
            formula["translatable"] = False
        if self.env.docname.startswith(f"{gallery_folder(self.config)}/"):
            for paragraph in self.document.findall(nodes.paragraph):
                if GENERATED.fullmatch(paragraph.rawsource.replace("\n", " ").strip()):
                    paragraph["translatable"] = False


class AfterTranslation(SphinxTransform):
    """What depends on the translated text: prefixes of titles, generated sentences, what others remember of a title."""

    default_priority = 30

    def apply(self, **kwargs: Any) -> None:
        for box in self.document.findall(nodes.admonition):
            if "design-note" in box["classes"]:
                self._prefix(box[0], _("Design note: %s"))
        self._remember_exercises()
        if self.env.docname.startswith(f"{gallery_folder(self.config)}/") and self.config.language != "en":
            self._generated_sentences()

    def _prefix(self, title: nodes.Element, pattern: str) -> None:
        before, _s, after = pattern.partition("%s")
        title.insert(0, nodes.Text(before))
        if after:
            title += nodes.Text(after)

    def _remember_exercises(self) -> None:
        """References to an exercise show its title from here; it was put here before it was translated."""
        registry = getattr(self.env, "sphinx_exercise_registry", {})
        for title in self.document.findall(exercise_title):
            entry = registry.get(title.parent.get("label"))
            if entry and entry["docname"] == self.env.docname:
                entry["node"] = title.parent.deepcopy()

    def _generated_sentences(self) -> None:
        for paragraph in self.document.findall(nodes.paragraph):
            text = " ".join(paragraph.rawsource.split())
            if not GENERATED.fullmatch(text):
                continue
            reference = paragraph.next_node(addnodes.download_reference) or paragraph.next_node(addnodes.pending_xref)
            if reference is None:
                continue
            if match := DOWNLOAD.fullmatch(reference.astext()):
                texts = {
                    "Jupyter notebook": _("Download Jupyter notebook: %s"),
                    "Python source code": _("Download Python source code: %s"),
                    "zipped": _("Download zipped: %s"),
                }
                _set_text(reference, texts[match[1]] % match[2])
            elif "to download the full example code" in text:
                _set_text(reference, _("Go to the end"))
                before, _s, after = _("%s to download the full example code.").partition("%s")
                paragraph.children = []
                paragraph += [nodes.Text(before), reference, nodes.Text(after)]


class ExerciseBrackets(SphinxPostTransform):
    """The brackets that sphinx-exercise puts around a title, in Chinese full-width like all others."""

    default_priority = 25

    def run(self, **kwargs: Any) -> None:
        if not (self.config.language or "").startswith("zh"):
            return
        for node in self.document.findall(is_exercise_node):
            title = node.children[0]
            for text in [child for child in title.children if isinstance(child, nodes.Text)]:
                if wide := {" (": "（", ")": "）"}.get(str(text)):
                    title.replace(text, nodes.Text(wide))


class ExercisesForGettext(SphinxPostTransform):
    """Keep the titles of exercises for the templates of translators: sphinx-exercise takes them apart."""

    builders = ("gettext",)
    default_priority = 15

    def run(self, **kwargs: Any) -> None:
        for subtitle in list(self.document.findall(exercise_subtitle)):
            paragraph = nodes.paragraph(subtitle.rawsource, "", *[child.deepcopy() for child in subtitle.children])
            paragraph.source, paragraph.line = subtitle.source, subtitle.line
            paragraph.uid = subtitle.uid  # type: ignore[attr-defined]  # the builder passes over nodes without one
            subtitle.parent.parent.insert(1, paragraph)


def _set_text(node: nodes.Element, text: str) -> None:
    """Replace the only text below a node."""
    [old] = node.findall(nodes.Text)
    old.parent.replace(old, nodes.Text(text))


def compile_catalog(po: Path) -> None:
    """Write the ``.mo`` beside a catalog if it is older; gettext reads only those."""
    from babel.messages.mofile import write_mo
    from babel.messages.pofile import read_po

    mo = po.with_suffix(".mo")
    if mo.is_file() and mo.stat().st_mtime >= po.stat().st_mtime:
        return
    with po.open("rb") as file:
        catalog = read_po(file)
    new = mo.with_suffix(".mo.new")
    with new.open("wb") as file:
        write_mo(file, catalog)
    new.replace(mo)


def setup(app: Any) -> dict[str, Any]:
    app.setup_extension("sphinx_exercise")
    app.add_directive("exercise", Exercise, override=True)
    app.add_transform(ChooseMessages)
    app.add_transform(AfterTranslation)
    app.add_post_transform(ExerciseBrackets)
    app.add_post_transform(ExercisesForGettext)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}

"""Notebooks for download: each gets its first cell, and an archive and a wheel are put beside them.

sphinx-gallery's own notebooks, below ``book/gallery``, stay as they are: they are results of a script's run. What is
changed are the copies that Sphinx makes for download, at the end of each build.

Directive ``notebook-files`` gives the links to the archive and the wheel, and shows the first cell of a notebook::

    ```{notebook-files} part/script
    ```
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.locale import get_translation
from sphinx.util.docutils import SphinxDirective

from .. import notebooks
from . import cells, gallery_run

_ = get_translation("tvm_deepdive")

FOLDER = "_downloads/notebooks"


class notebook_links(nodes.General, nodes.Element):
    """The list of links, until it is known where the page stands."""


class NotebookFiles(SphinxDirective):
    """See the module."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        source = Path(self.env.srcdir, gallery_run._only(self.config.sphinx_gallery_conf["examples_dirs"]))
        script = source.resolve() / f"{self.arguments[0].strip()}.py"
        if not script.is_file():
            raise self.error(f"notebook-files: there is no gallery/{self.arguments[0].strip()}.py")
        self.env.note_dependency(str(script))
        self.env.note_dependency(str(notebooks.ROOT / "constraints.txt"))
        self.env.note_dependency(notebooks.__file__)
        text = notebooks.first_cell(script).rstrip("\n")
        block = nodes.literal_block(text, text, language="python")
        self.set_source_info(block)
        return [notebook_links(), block]


def _links(app: Any, doctree: nodes.document, docname: str) -> None:
    """Handler of ``doctree-resolved``."""
    for node in list(doctree.findall(notebook_links)):
        made = nodes.bullet_list()
        texts = {
            notebooks.ARCHIVE: _("all notebooks, with the data and the helpers"),
            notebooks.WHEEL: _("the helpers alone, for a single notebook"),
        }
        for name, text in texts.items():
            label: nodes.Node = nodes.literal("", name)
            if app.builder.format == "html" and app.builder.name != "epub":
                target = app.builder.get_relative_uri(docname, "index").rpartition("index")[0]
                label = nodes.reference("", "", label, internal=True, refuri=f"{target}{FOLDER}/{name}")
            made += nodes.list_item("", nodes.paragraph("", "", label, nodes.Text(f": {text}")))
        node.replace_self(made)


def prepared(source: Path, out: Path, kept: Path | None = None) -> dict[str, dict[str, Any]]:
    """All notebooks of the gallery with their first cell, by names such as ``2-tir/tir_overview``.

    Parameters
    ----------
    source, out : Path
        Folders of the scripts, and of what sphinx-gallery made of them.
    kept : Path, optional
        A file that keeps the first cells: what they need is found by reading a script and all helpers.
    """
    helpers = hashlib.sha256()
    for path in [notebooks.ROOT / "constraints.txt", *notebooks.package_files()]:
        helpers.update(path.read_bytes())
    known: dict[str, str] = {}
    if kept is not None:
        with contextlib.suppress(OSError, ValueError):
            known = json.loads(kept.read_text(encoding="utf-8"))
    found, texts = {}, {}
    for script in sorted(source.glob("*/*.py")):
        name = f"{script.parent.name}/{script.stem}"
        made = out / f"{name}.ipynb"
        if made.is_file():
            key = f"{name} {hashlib.sha256(helpers.digest() + script.read_bytes()).hexdigest()}"
            texts[key] = known.get(key) or notebooks.first_cell(script)
            found[name] = notebooks.prepare(json.loads(made.read_text(encoding="utf-8")), script, texts[key])
    if kept is not None and texts != known:
        kept.write_text(json.dumps(texts), encoding="utf-8")
    return found


def finish(outdir: Path, found: dict[str, dict[str, Any]], data: Path) -> None:
    """Change the copies for download, and write the archive and the wheel."""
    by_file = {name.rpartition("/")[2]: notebook for name, notebook in found.items()}
    for path in outdir.glob("_downloads/*/*.ipynb"):
        if path.stem in by_file:
            _write(path, notebooks.dumps(by_file[path.stem]).encode())
    for path in outdir.glob("_downloads/*/*.zip"):
        if path.stem in by_file:
            _write(path, _renewed(path, notebooks.dumps(by_file[path.stem]).encode()))
    folder = outdir / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / notebooks.WHEEL, notebooks.wheel())
    _write(folder / notebooks.ARCHIVE, notebooks.archive(found, data))


def _renewed(path: Path, notebook: bytes) -> bytes:
    """sphinx-gallery's archive of one script, with the new notebook."""
    with zipfile.ZipFile(path) as old:
        files = [(name, notebook if name.endswith(".ipynb") else old.read(name)) for name in sorted(old.namelist())]
    return notebooks._zip(files)


def _write(path: Path, content: bytes) -> None:
    if not path.is_file() or path.read_bytes() != content:
        temporary = path.with_name(f".{path.name}.new")
        temporary.write_bytes(content)
        temporary.replace(path)


def _finish(app: Any, exception: Exception | None) -> None:
    """Handler of ``build-finished``."""
    conf = app.config.sphinx_gallery_conf
    source = Path(app.srcdir, gallery_run._only(conf["examples_dirs"])).resolve()
    if exception is not None or app.builder.format != "html" or app.builder.name == "epub" or not conf["plot_gallery"]:
        return
    found = prepared(source, cells.gallery_out(app.env), Path(app.doctreedir) / "first_cells.json")
    if found:
        finish(Path(app.outdir), found, source / "data")


def setup(app: Any) -> dict[str, Any]:
    """Set up the extension; called by Sphinx."""
    app.add_node(notebook_links)
    app.add_directive("notebook-files", NotebookFiles)
    app.connect("doctree-resolved", _links)
    app.connect("build-finished", _finish, priority=900)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}

"""What a browser gets beside the text: lighter pages, names for controls, mathematics without a script.

The theme loads far more than a page of text needs; ``book/_templates/layout.html`` leaves the largest pieces out, and
this module the smaller ones. Pictures are loaded when they come into view, know their size, and have as few colours as
they need. Formulas become MathML, which every browser draws.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.util import logging
from sphinx.util.console import bold

logger = logging.getLogger(__name__)

#: Files of extensions that only pages of scripts use.
GALLERY_ONLY = re.compile(r"_static/(sg_gallery|sg-tags)")
#: A chapter whose pages can be unfolded, in the list of all pages.
FOLDED = re.compile(r'(<a class="[^"]*" href="[^"]*">)((?:(?!</a>).)*)(</a>\s*<details[^>]*>\s*<summary)(>)', re.S)
THUMBNAIL = re.compile(
    r'<p>(<a class="reference internal" href="[^"]*">)(<span class="(?:doc|std std-ref)">)(.*?)</span></a></p>'
    r'\s*<div class="sphx-glr-thumbnail-title">(.*?)</div>',
    re.S,
)
#: As many colours as a PNG with one byte a dot may have.
COLORS = 256


# Mathematics


def _visit_math(self: Any, node: nodes.math) -> None:
    self.body.append(mathml(node.astext(), block=False))
    raise nodes.SkipNode


def _visit_math_block(self: Any, node: nodes.math_block) -> None:
    self.body.append(self.starttag(node, "div", CLASS="math"))
    if node.get("number"):
        self.body.append(f'<span class="eqno">({node["number"]})</span>')
    self.body.append(mathml(node.astext(), block=True))
    self.body.append("</div>")
    raise nodes.SkipNode


def mathml(text: str, block: bool) -> str:
    """The formula as MathML; a wide one can be scrolled by itself."""
    return tex2mathml(text, as_block=block)


def _depart(self: Any, node: nodes.Node) -> None:
    """Never called: the visitors skip the node."""


# Pages


def _lighten(app: Any, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    """Handler of ``html-page-context``: leave out what the page does not use, and name what has no name."""
    if app.builder.name == "epub":
        _for_epub(context)
        return
    gallery = pagename.split("/")[0] == "gallery"
    if not gallery:
        for key in ("css_files", "script_files"):
            kept = [
                file for file in context.get(key, []) if not GALLERY_ONLY.search(str(getattr(file, "filename", "")))
            ]
            context[key] = kept
    # A list of roles wants entries with that role; those of a bibliography have another one.
    body = context.get("body", "")
    if '<div role="list" class="citation-list">' in body:
        context["body"] = body.replace('<div role="list" class="citation-list">', '<div class="citation-list">')
    if gallery and "sphx-glr-thumbcontainer" in context.get("body", ""):
        context["body"] = name_thumbnails(context["body"])
    made = context.get("generate_toctree_html")
    if made is not None:
        context["generate_toctree_html"] = _named(made)


def _for_epub(context: dict[str, Any]) -> None:
    """An EPUB has a style of its own, no scripts, no drawn arrows, and no name twice on a page."""
    styles = {str(getattr(file, "filename", "")): file for file in context.get("css_files", [])}
    context["css_files"] = [file for name, file in styles.items() if name == "_static/epub.css"]
    context["script_files"] = []
    body = re.sub(
        r'<span class="sd-summary-state-marker[^>]*>\s*<svg.*?</svg>\s*</span>', "", context.get("body", ""), flags=re.S
    )
    context["body"] = body.replace(' id="exercise-content"', "")


def _named(made: Callable[..., Any]) -> Callable[..., Any]:
    def generate(kind: str, *args: Any, **options: Any) -> Any:
        got = made(kind, *args, **options)
        return name_folds(str(got)) if kind == "sidebar" else got

    return generate


def name_folds(html: str) -> str:
    """Give each arrow that unfolds a part the name of the part."""
    return FOLDED.sub(lambda m: f'{m[1]}{m[2]}{m[3]} aria-label="{re.sub("<[^>]+>", "", m[2])}"{m[4]}', html)


def name_thumbnails(html: str) -> str:
    """Let the title below a thumbnail be its link, in the place of a link that nobody sees."""
    return THUMBNAIL.sub(r'<div class="sphx-glr-thumbnail-title">\1\2\4</span></a></div>', html)


# Pictures


def _lazy(app: Any, doctree: nodes.document, docname: str) -> None:
    """Handler of ``doctree-resolved``: pictures know their size, and load when they come into view."""
    if app.builder.format != "html":
        return
    if app.builder.name == "epub":
        # Readers of EPUB have no mode of their own for pictures.
        for node in list(doctree.findall(nodes.image)):
            if "only-dark" in node["classes"]:
                node.parent.remove(node)
        return
    from sphinx.util.images import get_image_size

    for node in doctree.findall(lambda n: n.__class__.__name__ in ("image", "imgsgnode")):
        node["loading"] = "lazy"
        if isinstance(node, nodes.image) and not {"width", "height", "scale"} & set(node.attributes):
            size = get_image_size(Path(app.srcdir, node["uri"]))
            if size:
                node["width"], node["height"] = str(size[0]), str(size[1])


def fewer_colors(data: bytes) -> bytes:
    """A PNG with a palette, when that is smaller; a diagram has few colours, and shades of them at its edges."""
    from PIL import Image

    with Image.open(io.BytesIO(data)) as picture:
        if picture.mode == "P":
            return data
        clear = "A" in picture.getbands() and picture.getchannel("A").getextrema()[0] < 255
        if clear:
            small = picture.quantize(COLORS, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
        else:
            small = picture.convert("RGB").quantize(COLORS, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
        out = io.BytesIO()
        small.save(out, "PNG", optimize=True)
    return min(data, out.getvalue(), key=len)


def _shrink(app: Any, exception: Exception | None) -> None:
    """Handler of ``build-finished``: give the pictures of the book fewer colours, each once.

    What was made is kept in ``_build/pictures``, by the hash of the picture, for the next build and the other editions.
    """
    if exception or app.builder.name not in ("html", "epub"):
        return
    kept = Path(app.outdir).parents[1] / "pictures"
    kept.mkdir(parents=True, exist_ok=True)
    todo = []
    for path in sorted(Path(app.outdir, "_images").glob("*.png")):
        data = path.read_bytes()
        # Byte 25 of a PNG is its kind; 3 is a palette.
        if data[25] != 3:
            todo.append((path, data, kept / f"{hashlib.sha256(data).hexdigest()[:32]}.png"))
    new = [item for item in todo if not item[2].is_file()]
    if new:
        logger.info(bold(f"making {len(new)} pictures smaller"))
    for _path, data, small in new:
        temporary = small.with_suffix(".new")
        temporary.write_bytes(fewer_colors(data))
        temporary.replace(small)
    for path, _data, small in todo:
        path.write_bytes(small.read_bytes())


def setup(app: Any) -> dict[str, Any]:
    app.add_html_math_renderer("mathml", (_visit_math, _depart), (_visit_math_block, _depart))
    app.connect("html-page-context", _lighten, priority=1000)
    app.connect("doctree-resolved", _lazy)
    app.connect("build-finished", _shrink)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}

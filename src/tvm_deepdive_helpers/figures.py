"""Figures of the book: palette, sizes, charts, diagrams, and the sphinx-gallery scraper.

Every figure is drawn once, in the light colours below. `scraper`, which sphinx-gallery calls after each cell, saves it
twice: as it is, and recoloured for a dark page. So scripts should take colours from `COLORS` (and from `INK`, `MUTED`,
`GRID`, `PAPER`, `tint`), whose dark counterparts are known; other colours keep their hue and get the opposite
lightness.

Sizes: a figure as wide as the text is 7 inches, which a page shows at about 700 pixels, so that a font of 10 points is
as tall as the text around it, on the screen and in print.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import combinations, pairwise
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgba
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path as Outline
from matplotlib.textpath import text_to_path

__all__ = [
    "COLORS",
    "DARK",
    "GRID",
    "HATCHES",
    "INK",
    "MUTED",
    "PAPER",
    "Layout",
    "alt",
    "alt_text",
    "bar_chart",
    "boxes_and_arrows",
    "dark_colors",
    "layered_graph",
    "layered_layout",
    "new",
    "scraper",
    "timeline",
    "tint",
]

PAPER = "#ffffff"
INK = "#222832"
MUTED = "#48566b"
GRID = "#d1d5da"

COLORS: dict[str, str] = {
    "navy": "#046a93",
    "vermilion": "#bc5201",
    "green": "#01936b",
    "purple": "#9a166d",
    "blue": "#1297e8",
    "brown": "#5b3c00",
}
"""Hues of Okabe and Ito's palette, with lightness chosen so that every colour has a contrast of at least 3 on white,
and so that any two differ in grey print and for every kind of colour blindness."""

DARK: dict[str, str] = {
    PAPER: "#121212",
    INK: "#ced6dd",
    MUTED: "#9ca4af",
    GRID: "#3b4654",
    COLORS["navy"]: "#16b4f5",
    COLORS["vermilion"]: "#ffa672",
    COLORS["green"]: "#0a966d",
    COLORS["purple"]: "#e868b3",
    COLORS["blue"]: "#add2ff",
    COLORS["brown"]: "#996900",
}
"""The dark counterpart of every colour of the book."""

HATCHES: tuple[str, ...] = ("", "///", "...", "xxx", "\\\\\\", "ooo")
"""For bars that must be told apart without any colour."""

WIDTHS = {"text": 7.0, "half": 3.4}
_TINT = 0.14

STYLE: dict[str, Any] = {
    "figure.dpi": 100,
    "figure.facecolor": PAPER,
    "figure.edgecolor": PAPER,
    "savefig.facecolor": "auto",
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.labelsize": 10,
    "xtick.labelsize": 9.5,
    "ytick.labelsize": 9.5,
    "legend.fontsize": 9.5,
    "axes.facecolor": PAPER,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": False,
    "axes.prop_cycle": mpl.cycler(color=list(COLORS.values())),
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
    "patch.edgecolor": INK,
    "hatch.color": PAPER,
    "legend.frameon": False,
    "svg.hashsalt": "tvm-deepdive",
}


def tint(color: str, amount: float = _TINT) -> str:
    """A pale form of a colour for areas that carry text: the colour mixed into the paper.

    Parameters
    ----------
    color : str
        A colour of the palette, by name or value.
    amount : float
        Share of the colour, 0 to 1.

    Returns
    -------
    str
        Hexadecimal colour. Its dark counterpart is the dark colour mixed into the dark paper.
    """
    color = COLORS.get(color, color)
    pale = _mix(color, PAPER, amount)
    if color in DARK:
        # A pale area on a dark page needs a little more colour to be seen.
        DARK.setdefault(pale, _mix(DARK[color], DARK[PAPER], min(1.0, amount * 1.3)))
    return pale


def _mix(color: str, ground: str, amount: float) -> str:
    parts = zip(to_rgba(color)[:3], to_rgba(ground)[:3], strict=True)
    return to_hex([amount * c + (1 - amount) * g for c, g in parts])


def new(width: Literal["text", "half"] | float = "text", height: float = 3.0) -> tuple[Figure, Axes]:
    """A figure with one pair of axes in the book's style.

    Parameters
    ----------
    width : "text", "half" or float
        As wide as the text (7 in), half of it, or inches.
    height : float
        Inches.

    Notes
    -----
    The style is set in ``matplotlib.rcParams`` and stays, so that what the script adds later looks alike.
    """
    mpl.rcParams.update(STYLE)
    return plt.subplots(figsize=(WIDTHS.get(width, width), height), layout="constrained")


def alt(fig: Figure, text: str) -> Figure:
    """Give a figure the text that stands for it where it cannot be seen.

    Returns
    -------
    matplotlib.figure.Figure
        The same figure.
    """
    fig._book_alt = " ".join(text.split())  # type: ignore[attr-defined]
    return fig


def alt_text(fig: Figure) -> str:
    """The text given with `alt`, or else the figure's titles, or else its label."""
    given = getattr(fig, "_book_alt", "")
    titles = [
        fig.get_suptitle(),
        *(ax.get_title(loc) for ax in fig.axes for loc in ("left", "center", "right")),
    ]
    return given or ", ".join(" ".join(title.split()) for title in titles if title) or str(fig.get_label() or "")


# Dark


def _dark(color: Any) -> tuple[float, float, float, float]:
    """Dark counterpart of any colour; transparency stays."""
    *rgb, opacity = to_rgba(color)
    known = DARK.get(to_hex(rgb))
    if known:
        return (*to_rgba(known)[:3], opacity)
    hue, lightness, saturation = colorsys.rgb_to_hls(*rgb)
    low = colorsys.rgb_to_hls(*to_rgba(DARK[PAPER])[:3])[1]
    return (*colorsys.hls_to_rgb(hue, 1 - lightness * (1 - low), saturation), opacity)


_COLOR_PROPERTIES = (
    "facecolor",
    "edgecolor",
    "hatchcolor",
    "color",
    "markerfacecolor",
    "markeredgecolor",
    "markerfacecoloralt",
)


def _colored(fig: Figure) -> Iterator[tuple[Callable[[Any], None], Any]]:
    """The setter and the present value of every colour of a figure."""
    artists = fig.findobj(include_self=True)
    # The box around a text and the arrow of an annotation are no children of it.
    artists += [box for item in artists if (box := getattr(item, "get_bbox_patch", lambda: None)())]
    artists += [arrow for item in artists if (arrow := getattr(item, "arrow_patch", None))]
    for artist in artists:
        if getattr(artist, "get_array", lambda: None)() is not None:
            continue  # The colours are data: an image, a scatter plot with a colour map.
        for name in _COLOR_PROPERTIES:
            getter = getattr(artist, f"get_{name}", None)
            setter = getattr(artist, f"set_{name}", None)
            # Patches and collections set both of their colours by `set_color`, and have no getter for it.
            if getter is None or setter is None:
                continue
            value = getter()
            if value is not None and not (isinstance(value, str) and value in ("auto", "none", "edge", "face")):
                yield setter, value


def _dark_value(value: Any) -> Any:
    """Dark counterpart of one colour, or of an array with one colour a row."""
    if getattr(value, "ndim", 1) == 2:
        return [_dark(row) for row in value]
    return _dark(value)


@contextmanager
def dark_colors(fig: Figure) -> Iterator[None]:
    """Show a figure in dark colours inside of the ``with`` block, and as before after it."""
    fig.canvas.draw()  # Ticks are made when they are drawn.
    # All values are read before the first is set: a marker follows its line, a figure shares the colour of its patch.
    before = list(_colored(fig))
    try:
        for setter, value in before:
            setter(_dark_value(value))
        yield
    finally:
        for setter, value in before:
            setter(value)


def scraper(block: Any, block_vars: dict[str, Any], gallery_conf: dict[str, Any]) -> str:
    """Image scraper for sphinx-gallery: every open figure, light and dark.

    ``sphx_glr_x_001.png`` is the light one, ``sphx_glr_x_001_dark.png`` beside it the dark one, of the same size.

    Parameters
    ----------
    block : tuple
        The cell; not used.
    block_vars : dict
        Its entry ``image_path_iterator`` gives the paths.
    gallery_conf : dict
        Its entry ``src_dir`` is the folder to which the paths in the result are relative.

    Returns
    -------
    str
        reStructuredText that shows the light images.

    Notes
    -----
    The files hold no version and no date, so that equal figures have equal bytes. All figures are closed.
    """
    from sphinx_gallery.scrapers import figure_rst

    parts: list[str] = []
    try:
        for number in plt.get_fignums():
            fig = plt.figure(number)
            path = Path(next(block_vars["image_path_iterator"]))
            save(fig, path)
            parts.append(figure_rst([PurePosixPath(path)], gallery_conf["src_dir"], alt_text(fig)))
    finally:
        plt.close("all")
    return "\n".join(parts)


def save(fig: Figure, path: Path, dpi: int = 200) -> tuple[Path, Path]:
    """Save a figure as PNG, light and dark.

    Returns
    -------
    (Path, Path)
        `path`, and the path of the dark image with ``_dark`` before the suffix.
    """
    dark = path.with_name(f"{path.stem}_dark{path.suffix}")
    options: dict[str, Any] = {"dpi": dpi, "metadata": {"Software": None}, "facecolor": "auto"}
    fig.savefig(path, **options)
    with dark_colors(fig):
        fig.savefig(dark, **options)
    return path, dark


# Charts


def bar_chart(
    values: Mapping[str, float],
    *,
    unit: str = "",
    form: str | None = None,
    color: str | Mapping[str, str] = "navy",
    log: bool = False,
    width: Literal["text", "half"] | float = "text",
    title: str = "",
) -> tuple[Figure, Axes]:
    """Horizontal bars, the first on top, each with its value written at its end.

    Parameters
    ----------
    values : mapping of str to float
        Length of each bar by its label.
    unit : str
        Written below the axis.
    form : str, optional
        Format of the values; by default three digits, or all digits before the point, never an exponent.
    color : str or mapping of str to str
        One colour of the palette for all, or by label (``navy`` for those not named).
    log : bool
        Logarithmic axis.
    width, title
        See `new`; the title also serves as alternative text.
    """
    if not values:
        raise ValueError("no bars to draw")
    fig, ax = new(width, 0.75 + 0.34 * len(values) + (0.25 if title else 0))
    names = [color if isinstance(color, str) else color.get(label, "navy") for label in values]
    bars = ax.barh(list(values), list(values.values()), color=[COLORS.get(n, n) for n in names], height=0.62)
    ax.bar_label(bars, [_number(value, form) for value in values.values()], padding=4, fontsize=9.5)
    ax.invert_yaxis()
    ax.margins(x=0.14)
    ax.tick_params(axis="y", length=0)
    if log:
        ax.set_xscale("log")
    ax.set_xlabel(unit)
    if title:
        ax.set_title(title, loc="left")
    return fig, ax


def _number(value: float, form: str | None) -> str:
    """A value as a reader wants it at the end of a bar."""
    if form is not None:
        return format(value, form)
    if abs(value) >= 100 or value == int(value):
        return f"{value:,.0f}"
    # Three significant digits: as many decimals as that takes.
    decimals = 2 - math.floor(math.log10(abs(value)))
    return f"{value:.{decimals}f}".rstrip("0").rstrip(".")


def timeline(
    spans: Sequence[Any],
    *,
    label_from: float = 0.06,
    width: Literal["text", "half"] | float = "text",
    title: str = "",
) -> tuple[Figure, Axes]:
    """Bars over time, one row a depth, as a flame graph turned upside down.

    Parameters
    ----------
    spans : sequence of `passes.Span`
        Anything with ``name``, ``start_ms``, ``ms`` and ``depth``.
    label_from : float
        Share of the whole time from which a bar gets its name, if the name fits.
    """
    spans = list(spans)
    if not spans:
        raise ValueError("no spans to draw")
    depths = 1 + max(span.depth for span in spans)
    begin = min(span.start_ms for span in spans)
    total = max(span.start_ms + span.ms for span in spans) - begin
    fig, ax = new(width, 0.9 + 0.36 * depths + (0.25 if title else 0))
    inches = fig.get_figwidth() - 0.6
    palette = list(COLORS)
    for number, span in enumerate(spans):
        name = palette[number % len(palette)]
        at = span.start_ms - begin
        ax.broken_barh(
            [(at, span.ms)],
            (span.depth - 0.42, 0.84),
            facecolors=tint(name, 0.3),
            edgecolors=COLORS[name],
            linewidth=0.6,
        )
        room = span.ms / total * inches * 72
        if span.ms >= label_from * total and _text_width(span.name, 8.5) < room - 4:
            ax.text(at + span.ms / 2, span.depth, span.name, ha="center", va="center", fontsize=8.5)
    ax.set_ylim(depths - 0.5, -0.5)
    ax.set_yticks(range(depths))
    ax.set_ylabel("depth")
    ax.set_xlabel("ms")
    ax.set_xlim(0, total)
    if title:
        ax.set_title(title, loc="left")
    return fig, ax


# Diagrams


def _text_width(text: str, size: float, family: str = "DejaVu Sans") -> float:
    """Width of the widest line in points, without a canvas."""
    font = FontProperties(family=family, size=size)
    widths = (text_to_path.get_text_width_height_descent(line, font, False)[0] for line in text.split("\n"))
    return max(widths, default=0.0)


Node = Hashable
Edge = tuple[Node, Node]


@dataclass
class Layout:
    """Places of the nodes of a layered drawing.

    Attributes
    ----------
    rank : dict of node to int
        Layer of each node, 0 first. An edge leads to a higher rank, unless it is in `reversed`.
    layers : list of list
        The nodes of each rank in drawing order. A long edge passes through points ``(edge, rank)``.
    position : dict of node (or point) to float
        Place across the layers, in the unit of the sizes given.
    chains : dict of edge to list
        Nodes and points through which each edge passes, from its source to its target.
    reversed : set of edge
        Edges that close a cycle. They are laid out backwards, and drawn as they are.
    """

    rank: dict[Node, int]
    layers: list[list[Any]]
    position: dict[Any, float]
    chains: dict[Edge, list[Any]]
    reversed: set[Edge] = field(default_factory=set)

    def crossings(self) -> int:
        """Number of crossings between neighbouring layers."""
        return _crossings(self.layers, _segments(self.chains, self.reversed))


def _back_edges(nodes: Sequence[Node], edges: Sequence[Edge]) -> set[Edge]:
    """Edges that lead back to a node which a depth-first search, begun in the given order, is still visiting."""
    after: dict[Node, list[Node]] = {node: [] for node in nodes}
    entering = dict.fromkeys(nodes, 0)
    for source, target in edges:
        after[source].append(target)
        entering[target] += source != target
    state: dict[Node, int] = {}
    back: set[Edge] = set()
    # Start from nodes without predecessors, so that a cycle is cut where a reader would begin to read it.
    for root in sorted(nodes, key=lambda node: entering[node] > 0):
        if root in state:
            continue
        state[root] = 1
        stack = [(root, iter(after[root]))]
        while stack:
            node, targets = stack[-1]
            for target in targets:
                if state.get(target) == 1:
                    back.add((node, target))
                elif target not in state:
                    state[target] = 1
                    stack.append((target, iter(after[target])))
                    break
            else:
                state[node] = 2
                stack.pop()
    return back


def _ranks(nodes: Sequence[Node], forward: Sequence[Edge]) -> dict[Node, int]:
    """Longest path from a source; then sources move down to just above their first successor."""
    before: dict[Node, list[Node]] = {node: [] for node in nodes}
    after: dict[Node, list[Node]] = {node: [] for node in nodes}
    for source, target in forward:
        before[target].append(source)
        after[source].append(target)
    rank: dict[Node, int] = {}
    waiting = list(nodes)
    while waiting:
        ready = [node for node in waiting if all(other in rank for other in before[node])]
        for node in ready:
            rank[node] = 1 + max((rank[other] for other in before[node]), default=-1)
        waiting = [node for node in waiting if node not in rank]
    for node in nodes:
        if not before[node] and after[node]:
            rank[node] = min(rank[other] for other in after[node]) - 1
    lowest = min(rank.values(), default=0)
    return {node: value - lowest for node, value in rank.items()}


def _segments(chains: Mapping[Edge, list[Any]], backwards: set[Edge]) -> list[tuple[Any, Any]]:
    """Pieces of all edges between neighbouring layers, from the lower rank to the higher."""
    out = []
    for edge, chain in chains.items():
        way = chain[::-1] if edge in backwards else chain
        out.extend(pairwise(way))
    return out


def _crossings(layers: Sequence[Sequence[Any]], segments: Iterable[tuple[Any, Any]]) -> int:
    place = {node: (r, i) for r, layer in enumerate(layers) for i, node in enumerate(layer)}
    by_rank: dict[int, list[tuple[int, int]]] = {}
    for a, b in segments:
        by_rank.setdefault(place[a][0], []).append((place[a][1], place[b][1]))
    return sum(
        (a[0] - b[0]) * (a[1] - b[1]) < 0 for pairs in by_rank.values() for i, a in enumerate(pairs) for b in pairs[:i]
    )


def layered_layout(
    nodes: Sequence[Node],
    edges: Sequence[Edge],
    *,
    size: Mapping[Node, float] | None = None,
    groups: Mapping[str, Sequence[Node]] | None = None,
    gap: float = 0.3,
    sweeps: int = 12,
) -> Layout:
    """Places for a layered drawing of a directed graph (Sugiyama's method), the same at every run.

    Ranks by the longest path, order within a rank by barycentres with the given order of the nodes as tie-break, places
    across by moving nodes towards their neighbours without changing the order.

    Parameters
    ----------
    nodes : sequence
        Distinct nodes; their order breaks ties.
    edges : sequence of (source, target)
        Distinct pairs of nodes. Edges from a node to itself are refused.
    size : mapping of node to float, optional
        Extent of each node across the layers; 1 if not given.
    groups : mapping of str to sequence of node, optional
        Nodes that stay together: nothing else comes between them, in any layer that the group spans.
    gap : float
        Free space between neighbours of a layer.
    sweeps : int
        Passes down and up for the order.

    Returns
    -------
    Layout

    Raises
    ------
    ValueError
        If an edge names an unknown node, leads to its own node, or stands twice; if a node is in two groups.
    """
    nodes, edges = list(nodes), list(edges)
    if len(set(nodes)) != len(nodes) or len(set(edges)) != len(edges):
        raise ValueError("nodes and edges must be distinct")
    for source, target in edges:
        if source not in nodes or target not in nodes:
            raise ValueError(f"edge {source!r} -> {target!r} names a node that is not in nodes")
        if source == target:
            raise ValueError(f"edge {source!r} -> itself cannot be laid out; say it in the node's label")
    backwards = _back_edges(nodes, edges)
    forward = [(t, s) if (s, t) in backwards else (s, t) for s, t in edges]
    rank = _ranks(nodes, forward)
    layers: list[list[Any]] = [[] for _ in range(1 + max(rank.values(), default=-1))]
    for node in nodes:
        layers[rank[node]].append(node)
    chains: dict[Edge, list[Any]] = {}
    for edge, (low, high) in zip(edges, forward, strict=True):
        points = [(edge, r) for r in range(rank[low] + 1, rank[high])]
        for point in points:
            layers[point[1]].append(point)
        way = [low, *points, high]
        chains[edge] = way[::-1] if edge in backwards else way
    segments = _segments(chains, backwards)
    home = _homes(groups or {}, chains)
    layers = _order(layers, segments, home, sweeps)
    extents = {item: (size or {}).get(item, 1.0) if item in rank else gap * 0.5 for layer in layers for item in layer}
    position = _place(layers, segments, extents, gap)
    _clear_groups(layers, home, position, extents, gap)
    low = min((position[n] - extents[n] / 2 for n in position), default=0.0)
    position = {node: value - low for node, value in position.items()}
    return Layout(rank, layers, position, chains, backwards)


def _homes(groups: Mapping[str, Sequence[Node]], chains: Mapping[Edge, list[Any]]) -> dict[Any, str]:
    """The group of every node that has one, and of the points of edges inside of a group."""
    home: dict[Any, str] = {}
    for name, members in groups.items():
        for node in members:
            if node in home:
                raise ValueError(f"node {node!r} is in two groups: {home[node]!r} and {name!r}")
            home[node] = name
    for (source, target), chain in chains.items():
        if source in home and home[source] == home.get(target):
            home.update(dict.fromkeys(chain[1:-1], home[source]))
    return home


def _neighbours(
    segments: Sequence[tuple[Any, Any]],
) -> tuple[dict[Any, list[Any]], dict[Any, list[Any]]]:
    up: dict[Any, list[Any]] = {}
    down: dict[Any, list[Any]] = {}
    for a, b in segments:
        down.setdefault(a, []).append(b)
        up.setdefault(b, []).append(a)
    return up, down


def _sorted_layer(layer: Sequence[Any], centre: Mapping[Any, float], home: Mapping[Any, str]) -> list[Any]:
    """A layer in the order of the centres, with the members of a group side by side."""
    means: dict[str, float] = {}
    for name in dict.fromkeys(home[item] for item in layer if item in home):
        inside = [centre[item] for item in layer if home.get(item) == name]
        means[name] = sum(inside) / len(inside)

    def key(item: Any) -> tuple[float, str, float]:
        name = home.get(item, "")
        return means.get(name, centre[item]), name, centre[item]

    return sorted(layer, key=key)


def _order(
    layers: list[list[Any]],
    segments: Sequence[tuple[Any, Any]],
    home: Mapping[Any, str],
    sweeps: int,
) -> list[list[Any]]:
    """Barycentre ordering; the best order seen wins."""
    up, down = _neighbours(segments)
    current = [_sorted_layer(layer, {item: float(i) for i, item in enumerate(layer)}, home) for layer in layers]
    best, fewest = list(current), _crossings(current, segments)
    for sweep in range(sweeps):
        if not fewest:
            break
        downwards = sweep % 2 == 0
        order = range(1, len(current)) if downwards else range(len(current) - 2, -1, -1)
        for r in order:
            fixed = {node: i for i, node in enumerate(current[r - 1 if downwards else r + 1])}
            near = up if downwards else down
            centre = {}
            for i, node in enumerate(current[r]):
                places = [fixed[other] for other in near.get(node, []) if other in fixed]
                centre[node] = sum(places) / len(places) if places else float(i)
            current[r] = _sorted_layer(current[r], centre, home)
        number = _crossings(current, segments)
        if number < fewest:
            best, fewest = list(current), number
    return best


def _place(
    layers: Sequence[Sequence[Any]],
    segments: Sequence[tuple[Any, Any]],
    extents: Mapping[Any, float],
    gap: float,
) -> dict[Any, float]:
    """Coordinates across: each node near the mean of its neighbours, in order, not overlapping."""
    up, down = _neighbours(segments)
    # A parameter: it enters one node only, and not as the only one. It follows that node, and must not bend the chain
    # of operators that passes there.
    follows = {
        item for item, targets in down.items() if item not in up and len(targets) == 1 and len(up[targets[0]]) > 1
    }
    position: dict[Any, float] = {}
    for layer in layers:
        total = sum(extents[node] for node in layer) + gap * max(len(layer) - 1, 0)
        at = -total / 2
        for node in layer:
            position[node] = at + extents[node] / 2
            at += extents[node] + gap
    for step in range(24):
        downwards = step % 2 == 0
        for layer in layers if downwards else reversed(layers):
            wish = {}
            for node in layer:
                near = (up if downwards else down).get(node, [])
                if step >= 16:  # In the last rounds both sides count, so that long edges become straight.
                    near = [*up.get(node, []), *down.get(node, [])]
                near = [other for other in near if other not in follows] or near
                wish[node] = sum(position[other] for other in near) / len(near) if near else position[node]
            weight = {node: 0.002 if node in follows else 1.0 for node in layer}
            position.update(_separate(layer, wish, weight, extents, gap))
    return position


def _separate(
    layer: Sequence[Any],
    wish: Mapping[Any, float],
    weight: Mapping[Any, float],
    extents: Mapping[Any, float],
    gap: float,
) -> dict[Any, float]:
    """Places closest to the wishes (weighted least squares) that keep order and distance.

    The method is pooling of adjacent violators: neighbours that would overlap move as one block.
    """
    offset, at = [], 0.0
    for before, node in zip([None, *layer], layer, strict=False):
        at += 0.0 if before is None else (extents[before] + extents[node]) / 2 + gap
        offset.append(at)
    blocks: list[tuple[float, float, int]] = []  # mean of wish - offset, weight, number of nodes
    for node, shift in zip(layer, offset, strict=True):
        mean, heavy, number = wish[node] - shift, weight[node], 1
        while blocks and blocks[-1][0] > mean:
            other, load, count = blocks.pop()
            mean = (mean * heavy + other * load) / (heavy + load)
            heavy, number = heavy + load, number + count
        blocks.append((mean, heavy, number))
    means = [mean for mean, _, number in blocks for _ in range(number)]
    return {node: mean + shift for node, mean, shift in zip(layer, means, offset, strict=True)}


def _clear_groups(
    layers: Sequence[Sequence[Any]],
    home: Mapping[Any, str],
    position: dict[Any, float],
    extents: Mapping[Any, float],
    gap: float,
) -> None:
    """Move what does not belong to a group out of the columns that the group takes."""
    members: dict[str, list[Any]] = {}
    for item, name in home.items():
        members.setdefault(name, []).append(item)
    ranks = {name: [r for r, layer in enumerate(layers) if any(home.get(i) == name for i in layer)] for name in members}

    def extent(name: str) -> tuple[float, float]:
        inside = members[name]
        left = min(position[item] - extents[item] / 2 for item in inside)
        return left - gap, max(position[item] + extents[item] / 2 for item in inside) + gap

    def push(items: Iterable[Any], limit: float, sign: int) -> None:
        """Move items, the next to the limit first, to its side ``sign``."""
        for item in items:
            edge = limit + sign * extents[item] / 2
            position[item] = sign * max(sign * position[item], sign * edge)
            limit = position[item] + sign * (extents[item] / 2 + gap)

    def push_right(item: Any, by: float) -> None:
        """Move one item, or its whole group."""
        for other in members[home[item]] if item in home else [item]:
            position[other] += by

    for _ in range(8):
        before = dict(position)
        for a, b in combinations(members, 2):
            shared = sorted(set(ranks[a]) & set(ranks[b]))
            if not shared:
                continue
            places = {home.get(item): i for i, item in enumerate(layers[shared[0]])}
            left, right = (a, b) if places[a] < places[b] else (b, a)
            overlap = extent(left)[1] + gap - extent(right)[0]
            if overlap > 0:
                for item in members[right]:
                    position[item] += overlap
        for name in members:
            left_limit, right_limit = extent(name)
            for layer in layers[ranks[name][0] : ranks[name][-1] + 1]:
                inside = [i for i, item in enumerate(layer) if home.get(item) == name]
                split = sum(position[item] < (left_limit + right_limit) / 2 for item in layer)
                first, last = (inside[0], inside[-1] + 1) if inside else (split, split)
                push([i for i in reversed(layer[:first]) if i not in home], left_limit, -1)
                push([i for i in layer[last:] if i not in home], right_limit, 1)
        if position == before:
            break
    # What is wedged between two groups needs room: from here on, things move to the right only, and groups as a whole.
    for _ in range(len(position)):
        before = dict(position)
        for layer in layers:
            for a, b in pairwise(layer):
                least = position[a] + (extents[a] + extents[b]) / 2 + gap
                if position[b] < least:
                    push_right(b, least - position[b])
        for name in members:
            for layer in layers[ranks[name][0] : ranks[name][-1] + 1]:
                inside = [i for i, item in enumerate(layer) if home.get(item) == name]
                middle = sum(extent(name)) / 2
                split = sum(position[item] < middle for item in layer)
                first, last = (inside[0], inside[-1] + 1) if inside else (split, split)
                for item in layer[:first]:
                    excess = position[item] + extents[item] / 2 - extent(name)[0]
                    if excess > 0:
                        push_right(members[name][0], excess)
                for item in layer[last:]:
                    excess = extent(name)[1] - (position[item] - extents[item] / 2)
                    if excess > 0:
                        push_right(item, excess)
        if position == before:
            return


@dataclass
class _Box:
    """A box of a diagram: centre and half extents in inches."""

    x: float
    y: float
    w: float
    h: float


_FONT, _SMALL = 9.5, 8.5
_LINE = 1.25 * _FONT / 72
_PAD = 0.11


def _box_size(label: str, size: float = _FONT) -> tuple[float, float]:
    """Width and height in inches of a box around a label."""
    lines = label.count("\n") + 1
    return _text_width(label, size) / 72 + 2 * _PAD, lines * _LINE * size / _FONT + 1.6 * _PAD


def _canvas(width: float, height: float, page: float, title: str) -> tuple[Figure, Axes, float]:
    """Axes in inches, at most `page` wide; returns also the scale by which everything shrinks."""
    scale = min(1.0, page / width)
    if scale * _FONT < 7.0:
        raise ValueError(
            f"the diagram is {width:.1f} in wide and the page {page:.1f} in, so that its text would be unreadable: "
            "break labels into lines, use another direction, or show fewer nodes"
        )
    top = 0.3 if title else 0.0
    mpl.rcParams.update(STYLE)
    fig = plt.figure(
        figsize=(page, height * scale + top),
    )
    ax = fig.add_axes((0, 0, 1, 1))
    ax.set_axis_off()
    left = (page / scale - width) / 2
    ax.set_xlim(-left, page / scale - left)
    ax.set_ylim(height + 0.0, -top / scale)
    if title:
        ax.text(-left + 0.05, -top / scale / 2, title, fontsize=11 * scale, va="center", ha="left")
    return fig, ax, scale


def _draw_box(ax: Axes, box: _Box, label: str, color: str, scale: float, dashed: bool = False) -> None:
    base = COLORS.get(color, color)
    ax.add_patch(
        FancyBboxPatch(
            (box.x - box.w / 2, box.y - box.h / 2),
            box.w,
            box.h,
            boxstyle="round,pad=0,rounding_size=0.06",
            facecolor=tint(base),
            edgecolor=base,
            linewidth=1.2 * scale,
            linestyle=(0, (4, 2)) if dashed else "solid",
            zorder=3,
        )
    )
    ax.text(
        box.x,
        box.y,
        label,
        ha="center",
        va="center",
        fontsize=_FONT * scale,
        linespacing=1.15,
        zorder=4,
    )


def _border(box: _Box, towards: tuple[float, float]) -> tuple[float, float]:
    """Where the line from the box's centre to a point leaves the box."""
    dx, dy = towards[0] - box.x, towards[1] - box.y
    if not dx and not dy:
        return box.x, box.y
    share = min(box.w / 2 / abs(dx) if dx else math.inf, box.h / 2 / abs(dy) if dy else math.inf)
    return box.x + dx * share, box.y + dy * share


def _bezier(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Control points of cubic pieces through the points (Catmull-Rom tangents), the first point first."""
    padded = [points[0], *points, points[-1]]
    out = [points[0]]
    for before, a, b, after in zip(padded, padded[1:], padded[2:], padded[3:], strict=False):
        out.append((a[0] + (b[0] - before[0]) / 6, a[1] + (b[1] - before[1]) / 6))
        out.append((b[0] - (after[0] - a[0]) / 6, b[1] - (after[1] - a[1]) / 6))
        out.append(b)
    return out


def _along(points: Sequence[tuple[float, float]], steps: int = 12) -> list[tuple[float, float]]:
    """Points on the curve of `_bezier`, evenly by parameter."""
    control = _bezier(points)
    out = [control[0]]
    for k in range(0, len(control) - 1, 3):
        piece = control[k : k + 4]
        for i in range(1, steps + 1):
            t = i / steps
            weights = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t**3)
            out.append(
                (
                    sum(w * p[0] for w, p in zip(weights, piece, strict=True)),
                    sum(w * p[1] for w, p in zip(weights, piece, strict=True)),
                )
            )
    return out


def _draw_arrow(
    ax: Axes,
    points: Sequence[tuple[float, float]],
    scale: float,
    *,
    color: str = MUTED,
    dashed: bool = False,
) -> None:
    """A smooth line through points with a head at its end."""
    verts = _bezier(points) if len(points) > 2 else list(points)
    curve = Outline.CURVE4 if len(points) > 2 else Outline.LINETO
    ax.add_patch(
        FancyArrowPatch(
            path=Outline(verts, [Outline.MOVETO] + [curve] * (len(verts) - 1)),
            arrowstyle="-|>",
            mutation_scale=9 * scale,
            facecolor=color,
            edgecolor=color,
            linewidth=1.1 * scale,
            linestyle=(0, (4, 2)) if dashed else "solid",
            zorder=2,
        )
    )


_Rectangle = tuple[float, float, float, float]


def _overlap(a: _Rectangle, b: _Rectangle) -> float:
    """Common area of two rectangles (x0, y0, x1, y1)."""
    wide = min(a[2], b[2]) - max(a[0], b[0])
    high = min(a[3], b[3]) - max(a[1], b[1])
    return max(wide, 0.0) * max(high, 0.0)


def _label_box(label: str, x: float, y: float) -> _Rectangle:
    """Rectangle of a small label around a centre."""
    w, h = (
        _text_width(label, _SMALL) / 72 + 0.06,
        (label.count("\n") + 1) * 1.2 * _SMALL / 72 + 0.04,
    )
    return x - w / 2, y - h / 2, x + w / 2, y + h / 2


def _label_place(label: str, points: Sequence[tuple[float, float]], taken: Sequence[_Rectangle]) -> tuple[float, float]:
    """Point of a curve where a label covers least; the middle, if all are equal."""
    curve = _along(points)
    shares = (0.5, 0.42, 0.58, 0.34, 0.66, 0.26, 0.74)
    spots = [curve[round(share * (len(curve) - 1))] for share in shares]
    return min(spots, key=lambda spot: round(sum(_overlap(_label_box(label, *spot), t) for t in taken), 6))


def _draw_label(ax: Axes, label: str, x: float, y: float, scale: float) -> None:
    """A small label on a piece of paper that covers the lines below it."""
    ax.text(
        x,
        y,
        label,
        ha="center",
        va="center",
        fontsize=_SMALL * scale,
        color=MUTED,
        zorder=5,
        bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 1.2},
    )


def layered_graph(
    nodes: Mapping[str, str] | Sequence[str],
    edges: Sequence[tuple[str, str]] | Mapping[tuple[str, str], str],
    *,
    colors: Mapping[str, str] | None = None,
    groups: Mapping[str, Sequence[str]] | None = None,
    dashed: Iterable[tuple[str, str]] = (),
    direction: Literal["down", "right"] = "down",
    width: Literal["text", "half"] | float = "text",
    title: str = "",
) -> tuple[Figure, Axes]:
    """Draw a directed graph in layers: data flow, call order, dependency.

    Parameters
    ----------
    nodes : sequence of str, or mapping of str to str
        Names, or names with their labels (which may have line breaks). Their order breaks ties of the layout.
    edges : sequence of (source, target), or mapping of those to str
        Arrows, or arrows with their labels.
    colors : mapping of str to str, optional
        Colour of the palette by node; ``navy`` for the others.
    groups : mapping of str to sequence of str, optional
        Nodes to frame together, by the title of the frame. Nodes of a group should be neighbours.
    dashed : iterable of (source, target)
        Edges to draw with a dashed line.
    direction : "down" or "right"
        Where arrows lead.
    width
        See `new`. The diagram shrinks to fit; if its text would be smaller than 7 points, it is refused.
    title : str
        Stands above the diagram and serves as alternative text.

    Returns
    -------
    (Figure, Axes)
        One unit of the axes is one inch, y grows downwards.

    Notes
    -----
    An edge that closes a cycle leads against the direction of the others; nothing is left out.
    """
    labels = dict(nodes) if isinstance(nodes, Mapping) else {node: node for node in nodes}
    texts = dict(edges) if isinstance(edges, Mapping) else dict.fromkeys(edges, "")
    sizes = {node: _box_size(label) for node, label in labels.items()}
    down = direction == "down"
    across, along = (0, 1) if down else (1, 0)
    layout = layered_layout(
        list(labels),
        list(texts),
        size={node: wh[across] for node, wh in sizes.items()},
        groups=groups,
        gap=0.28 if down else 0.22,
    )
    # Along the layers: each as deep as its deepest node, and more space where labelled edges pass.
    depth = [max((sizes[n][along] for n in layer if n in sizes), default=0.1) for layer in layout.layers]
    between = [0.34 if down else 0.42] * len(depth)
    for edge, text in texts.items():
        if text:
            low = min(layout.rank[edge[0]], layout.rank[edge[1]])
            high = max(layout.rank[edge[0]], layout.rank[edge[1]])
            need = 0.5 if down else _text_width(text, 8.5) / 72 + 0.4
            if high - low == 1:
                between[low] = max(between[low], need)
    for members in (groups or {}).values():
        spanned = sorted(layout.rank[node] for node in members)
        between[spanned[-1]] += 0.1
        if spanned[0]:
            between[spanned[0] - 1] += 0.16
    start, at = [], 0.0
    for d, space in zip(depth, between, strict=True):
        start.append(at + d / 2)
        at += d + space
    point: dict[Any, tuple[float, float]] = {}
    for r, layer in enumerate(layout.layers):
        for item in layer:
            point[item] = (layout.position[item], start[r]) if down else (start[r], layout.position[item])
    boxes = {node: _Box(*point[node], *sizes[node]) for node in labels}
    return _diagram(
        boxes,
        labels,
        {edge: [point[item] for item in chain] for edge, chain in layout.chains.items()},
        texts,
        colors=colors,
        groups=groups or {},
        dashed=set(dashed),
        width=width,
        title=title,
    )


def boxes_and_arrows(
    boxes: Mapping[str, tuple[float, float]],
    arrows: Sequence[tuple[str, str]] | Mapping[tuple[str, str], str] = (),
    *,
    labels: Mapping[str, str] | None = None,
    colors: Mapping[str, str] | None = None,
    groups: Mapping[str, Sequence[str]] | None = None,
    dashed: Iterable[tuple[str, str]] = (),
    column: float | None = None,
    row: float | None = None,
    width: Literal["text", "half"] | float = "text",
    title: str = "",
) -> tuple[Figure, Axes]:
    """Draw boxes at places that the author chooses on a grid, with arrows between them.

    Parameters
    ----------
    boxes : mapping of str to (column, row)
        Centre of each box, in columns from the left and rows from the top; fractions are allowed.
    arrows : sequence of (source, target), or mapping of those to str
        Straight arrows, or arrows with their labels. A pair in both directions is drawn as two parallel arrows.
    labels : mapping of str to str, optional
        Text of a box, where it is not its name.
    column, row : float, optional
        Distance of columns and rows in inches; by default just enough that boxes do not touch.
    colors, groups, dashed, width, title
        See `layered_graph`.
    """
    text = {name: (labels or {}).get(name, name) for name in boxes}
    named = dict(arrows) if isinstance(arrows, Mapping) else dict.fromkeys(arrows, "")
    for source, target in named:
        if source not in boxes or target not in boxes:
            raise ValueError(f"arrow {source!r} -> {target!r} names a box that is not there")
    sizes = {name: _box_size(label) for name, label in text.items()}
    longest = max((_text_width(label, 8.5) / 72 for label in named.values() if label), default=0.0)
    column = column or max(w for w, _ in sizes.values()) + max(0.35, longest + 0.3)
    row = row or max(h for _, h in sizes.values()) + (0.5 if longest else 0.35)
    placed = {name: _Box(x * column, y * row, *sizes[name]) for name, (x, y) in boxes.items()}
    paths = {(s, t): [(placed[s].x, placed[s].y), (placed[t].x, placed[t].y)] for s, t in named}
    return _diagram(
        placed,
        text,
        paths,
        named,
        colors=colors,
        groups=groups or {},
        dashed=set(dashed),
        width=width,
        title=title,
    )


def _diagram(
    boxes: Mapping[str, _Box],
    labels: Mapping[str, str],
    paths: Mapping[tuple[str, str], list[tuple[float, float]]],
    texts: Mapping[tuple[str, str], str],
    *,
    colors: Mapping[str, str] | None,
    groups: Mapping[str, Sequence[str]],
    dashed: set[tuple[str, str]],
    width: Literal["text", "half"] | float,
    title: str,
) -> tuple[Figure, Axes]:
    """Draw boxes, arrows and frames whose places are known (inches, y downwards)."""
    if not boxes:
        raise ValueError("no boxes to draw")
    frames: dict[str, _Rectangle] = {}
    for name, members in groups.items():
        inner = [boxes[m] for m in members]
        x0, x1 = min(b.x - b.w / 2 for b in inner) - 0.13, max(b.x + b.w / 2 for b in inner) + 0.13
        y0, y1 = min(b.y - b.h / 2 for b in inner) - 0.18, max(b.y + b.h / 2 for b in inner) + 0.18
        # The title stands on the frame, which must be a little wider.
        missing = max(_text_width(name, _SMALL) / 72 + 0.3 - (x1 - x0), 0.0)
        frames[name] = (x0 - missing / 2, y0, x1 + missing / 2, y1)
        for other, b in boxes.items():
            area = (b.x - b.w / 2, b.y - b.h / 2, b.x + b.w / 2, b.y + b.h / 2)
            if other not in members and _overlap(area, frames[name]):
                raise ValueError(f"the frame of group {name!r} would also enclose {other!r}, which is not in it")
    for one, other in combinations(frames, 2):
        nested = set(groups[one]) <= set(groups[other]) or set(groups[other]) <= set(groups[one])
        if _overlap(frames[one], frames[other]) and not nested:
            raise ValueError(f"the frames of groups {one!r} and {other!r} would overlap")
    xs = [v for b in boxes.values() for v in (b.x - b.w / 2, b.x + b.w / 2)]
    ys = [v for b in boxes.values() for v in (b.y - b.h / 2, b.y + b.h / 2)]
    xs += [v for f in frames.values() for v in (f[0], f[2])]
    ys += [v for f in frames.values() for v in (f[1] - 0.08, f[3] + 0.08)]
    for edge, path in paths.items():
        # A curve swings out beyond its points, and a label stands on it.
        wide, high = (0.0, 0.0)
        if text := texts.get(edge, ""):
            x0, y0, x1, y1 = _label_box(text, 0.0, 0.0)
            wide, high = (x1 - x0) / 2, (y1 - y0) / 2
        middle = _along(path)
        xs += [v for p in middle[3:-3] for v in (p[0] - wide, p[0] + wide)]
        ys += [v for p in middle[3:-3] for v in (p[1] - high, p[1] + high)]
    dx, dy, margin = min(xs), min(ys), 0.08
    boxes = {n: _Box(b.x - dx + margin, b.y - dy + margin, b.w, b.h) for n, b in boxes.items()}

    def shift(p: Sequence[float]) -> tuple[float, float]:
        return p[0] - dx + margin, p[1] - dy + margin

    page = WIDTHS.get(width, width)
    fig, ax, scale = _canvas(max(xs) - dx + 2 * margin, max(ys) - dy + 2 * margin, float(page), title)
    curves: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for edge, path in paths.items():
        way = [shift(p) for p in path]
        first, last = boxes[edge[0]], boxes[edge[1]]
        if len(way) == 2:
            curves[edge] = _straight(first, last, beside=edge[::-1] in paths)
        else:
            curves[edge] = [_border(first, way[1]), *way[1:-1], _border(last, way[-2])]
        _draw_arrow(ax, curves[edge], scale, dashed=edge in dashed)
    taken = [(b.x - b.w / 2, b.y - b.h / 2, b.x + b.w / 2, b.y + b.h / 2) for b in boxes.values()]
    for name, frame in frames.items():
        (x0, y0), (x1, y1) = shift(frame[:2]), shift(frame[2:])
        ax.add_patch(
            FancyBboxPatch(
                (x0, y0),
                x1 - x0,
                y1 - y0,
                boxstyle="round,pad=0,rounding_size=0.08",
                facecolor="none",
                edgecolor=MUTED,
                linewidth=0.9 * scale,
                linestyle=(0, (1, 2)),
                zorder=1,
            )
        )
        # On one of the corners: where it covers the fewest points of arrows.
        half = _text_width(name, _SMALL) / 144 + 0.1
        corners = [(x0 + half, y0), (x1 - half, y0), (x0 + half, y1), (x1 - half, y1)]
        dots = [dot for curve in curves.values() for dot in _along(curve, 24)]
        spot = min(
            corners,
            key=lambda c: sum(_inside(dot, _label_box(name, *c)) for dot in dots),
        )
        taken.append(_label_box(name, *spot))
        _draw_label(ax, name, *spot, scale)
    for edge, curve in curves.items():
        if text := texts.get(edge, ""):
            spot = _label_place(text, curve, taken)
            taken.append(_label_box(text, *spot))
            _draw_label(ax, text, *spot, scale)
    for name, box in boxes.items():
        _draw_box(ax, box, labels[name], (colors or {}).get(name, "navy"), scale)
    if title:
        alt(fig, title)
    return fig, ax


def _inside(dot: tuple[float, float], area: _Rectangle) -> bool:
    return area[0] <= dot[0] <= area[2] and area[1] <= dot[1] <= area[3]


def _straight(first: _Box, last: _Box, *, beside: bool) -> list[tuple[float, float]]:
    """Ends of a straight arrow between two boxes, or of one that leaves room for its opposite."""
    dx, dy = last.x - first.x, last.y - first.y
    length = math.hypot(dx, dy)
    if not beside or not length:
        return [_border(first, (last.x, last.y)), _border(last, (first.x, first.y))]
    aside = (-dy / length * 0.07, dx / length * 0.07)
    # The shifted line leaves a box where it would leave a box that is centred on it and smaller by the shift.
    moved = [
        _Box(b.x + aside[0], b.y + aside[1], b.w - 2 * abs(aside[0]), b.h - 2 * abs(aside[1])) for b in (first, last)
    ]
    a, b = moved
    start, end = _border(a, (b.x, b.y)), _border(b, (a.x, a.y))
    return [start, end]

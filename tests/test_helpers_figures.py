"""Palette, layout, diagrams and the scraper."""

import itertools
import random
import warnings
from pathlib import Path

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_hex, to_rgb
from matplotlib.patches import FancyBboxPatch
from PIL import Image

from tvm_deepdive_helpers import figures
from tvm_deepdive_helpers.figures import COLORS, DARK, GRID, INK, MUTED, PAPER, layered_layout, tint
from tvm_deepdive_helpers.passes import Span


@pytest.fixture(autouse=True)
def clean():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield
    plt.close("all")
    matplotlib.rcdefaults()


# The palette. Formulas: WCAG 2 (luminance, contrast), CIE 1976 (Lab), Machado et al. 2009 (colour blindness).


def _linear(color) -> np.ndarray:
    c = np.array(to_rgb(color))
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def _contrast(a, b) -> float:
    low, high = sorted(float(_linear(c) @ [0.2126, 0.7152, 0.0722]) for c in (a, b))
    return (high + 0.05) / (low + 0.05)


_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
_SIGHT = {
    "all": np.eye(3),
    "no red": np.array([[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]]),
    "no green": np.array([[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]]),
    "no blue": np.array([[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]]),
}


def _lab(linear: np.ndarray) -> np.ndarray:
    t = _XYZ @ np.clip(linear, 0, 1) / (_XYZ @ np.ones(3))
    f = np.where(t > 0.008856, np.cbrt(t), 7.787 * t + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


GROUNDS = [(list(COLORS.values()), PAPER), ([DARK[c] for c in COLORS.values()], DARK[PAPER])]


@pytest.mark.parametrize(("colors", "ground"), GROUNDS, ids=["light", "dark"])
def test_palette_can_be_seen_and_told_apart(colors, ground):
    assert all(_contrast(color, ground) >= 3 for color in colors)  # WCAG 1.4.11, graphics
    for a, b in itertools.combinations(colors, 2):
        for name, matrix in _SIGHT.items():
            distance = np.linalg.norm(_lab(matrix @ _linear(a)) - _lab(matrix @ _linear(b)))
            assert distance >= 12, (a, b, name, distance)
        # In grey print only lightness is left.
        assert abs(_lab(_linear(a))[0] - _lab(_linear(b))[0]) >= 5, (a, b)


def test_text_can_be_read_on_everything_that_carries_text():
    for name in COLORS:
        for amount in (0.14, 0.3):
            pale = tint(name, amount)
            assert _contrast(INK, pale) >= 4.5
            assert _contrast(DARK[INK], DARK[pale]) >= 4.5, (name, amount)
    for text in (INK, MUTED):
        assert _contrast(text, PAPER) >= 4.5 and _contrast(DARK[text], DARK[PAPER]) >= 4.5


# The layout


def _random_graph(seed: int, nodes: int, edges: int, *, cyclic: bool = False):
    rng = random.Random(seed)
    names = [f"n{i}" for i in range(nodes)]
    pairs = [(a, b) for a in names for b in names if a != b and (cyclic or names.index(a) < names.index(b))]
    return names, rng.sample(pairs, edges)


@pytest.mark.parametrize("seed", range(6))
def test_ranks_are_longest_paths(seed):
    nodes, edges = _random_graph(seed, 12, 18)
    layout = layered_layout(nodes, edges)
    assert not layout.reversed
    entered = {b for _, b in edges}

    def longest(node):
        return max((1 + longest(a) for a, b in edges if b == node), default=0)

    for node in nodes:
        if node in entered:
            assert layout.rank[node] == longest(node)
    for a, b in edges:
        assert layout.rank[a] < layout.rank[b]
    # A source stands just above the first node that it enters.
    for node in set(nodes) - entered:
        after = [layout.rank[b] for a, b in edges if a == node]
        assert not after or layout.rank[node] == min(after) - 1


@pytest.mark.parametrize("seed", range(6))
def test_cycles_are_cut_and_nothing_is_lost(seed):
    nodes, edges = _random_graph(seed, 10, 22, cyclic=True)
    layout = layered_layout(nodes, edges)
    assert set(layout.chains) == set(edges) and layout.reversed <= set(edges)
    for edge, chain in layout.chains.items():
        assert (chain[0], chain[-1]) == edge
        step = -1 if edge in layout.reversed else 1
        ranks = [next(r for r, layer in enumerate(layout.layers) if item in layer) for item in chain]
        assert [b - a for a, b in itertools.pairwise(ranks)] == [step] * (len(ranks) - 1)


def test_a_simple_cycle_is_read_from_its_first_node():
    layout = layered_layout(list("abc"), [("a", "b"), ("b", "c"), ("c", "a")])
    assert layout.reversed == {("c", "a")} and layout.rank == {"a": 0, "b": 1, "c": 2}


@pytest.mark.parametrize("seed", range(6))
def test_nodes_do_not_overlap_and_order_holds(seed):
    nodes, edges = _random_graph(seed, 16, 24)
    size = {node: 0.5 + 0.3 * (i % 4) for i, node in enumerate(nodes)}
    layout = layered_layout(nodes, edges, size=size, gap=0.25)
    for layer in layout.layers:
        for a, b in itertools.pairwise(layer):
            need = (size.get(a, 0) + size.get(b, 0)) / 2 + 0.25
            assert layout.position[b] - layout.position[a] >= need - 1e-9
    # The same every time.
    assert layered_layout(nodes, edges, size=size, gap=0.25) == layout


def test_crossings_are_counted_and_avoided():
    # K(2,2) crosses once whatever one does; a ladder drawn in the wrong order need not cross.
    square = layered_layout(list("abcd"), [("a", "c"), ("a", "d"), ("b", "c"), ("b", "d")])
    assert square.crossings() == 1
    ladder = layered_layout(list("abcxyz"), [("a", "z"), ("b", "y"), ("c", "x")])
    assert ladder.crossings() == 0


def test_a_chain_with_parameters_is_straight():
    nodes = ["x", "w", "mm", "b", "add", "relu"]
    edges = [("x", "mm"), ("w", "mm"), ("mm", "add"), ("b", "add"), ("add", "relu")]
    place = layered_layout(nodes, edges).position
    assert abs(place["mm"] - place["add"]) < 0.02 and abs(place["add"] - place["relu"]) < 0.02


def test_groups_stay_together():
    nodes = ["s", "a1", "a2", "q", "b1", "b2", "t"]
    edges = [("s", "a1"), ("a1", "a2"), ("s", "q"), ("q", "b2"), ("s", "b1"), ("b1", "b2"), ("a2", "t"), ("b2", "t")]
    groups = {"A": ["a1", "a2"], "B": ["b1", "b2"]}
    layout = layered_layout(nodes, edges, groups=groups)

    def extent(names):
        return min(layout.position[n] for n in names) - 0.5, max(layout.position[n] for n in names) + 0.5

    (a0, a1), (b0, b1) = extent(groups["A"]), extent(groups["B"])
    q0, q1 = extent(["q"])
    assert a1 < b0 or b1 < a0
    assert all(q1 < low or high < q0 for low, high in ((a0, a1), (b0, b1)))
    with pytest.raises(ValueError, match="two groups"):
        layered_layout(nodes, edges, groups={"A": ["a1"], "B": ["a1"]})


@pytest.mark.parametrize(
    ("edges", "message"),
    [([("a", "z")], "not in nodes"), ([("a", "a")], "itself"), ([("a", "b"), ("a", "b")], "distinct")],
)
def test_layout_refuses(edges, message):
    with pytest.raises(ValueError, match=message):
        layered_layout(["a", "b"], edges)


def test_empty_and_unconnected():
    assert layered_layout([], []).layers == []
    assert layered_layout(["a", "b"], []).rank == {"a": 0, "b": 0}


# Diagrams


def _boxes(fig):
    return [p for p in fig.axes[0].patches if isinstance(p, FancyBboxPatch) and p.get_facecolor()[3] > 0]


def test_labels_fit_in_their_boxes_and_boxes_in_the_figure():
    nodes = {"a": "a long label\nof two lines", "b": "tvm.relax.transform", "c": "x"}
    fig, ax = figures.layered_graph(nodes, {("a", "b"): "calls", ("b", "c"): "", ("a", "c"): ""}, title="Title")
    fig.canvas.draw()
    frames = {name: box.get_window_extent() for name, box in zip(nodes, _boxes(fig), strict=True)}
    texts = {t.get_text(): t.get_window_extent() for t in ax.texts}
    for name, label in nodes.items():
        outer, inner = frames[name], texts[label]
        assert outer.x0 < inner.x0 and inner.x1 < outer.x1 and outer.y0 < inner.y0 and inner.y1 < outer.y1
        assert fig.bbox.x0 <= outer.x0 and outer.x1 <= fig.bbox.x1
        assert fig.bbox.y0 <= outer.y0 and outer.y1 <= fig.bbox.y1
    for a, b in itertools.combinations(frames.values(), 2):
        assert not a.overlaps(b)
    assert figures.alt_text(fig) == "Title"


def test_every_edge_is_drawn_in_its_direction():
    edges = [("a", "b"), ("b", "c"), ("c", "a"), ("b", "a")]
    fig, _ = figures.layered_graph(["a", "b", "c"], edges)
    centre = {}
    for name, box in zip("abc", _boxes(fig), strict=True):
        e = box.get_path().get_extents()
        centre[name] = np.array([box.get_x() + box.get_width() / 2, box.get_y() + box.get_height() / 2])
        assert e.width > 0
    arrows = [p for p in fig.axes[0].patches if isinstance(p, matplotlib.patches.FancyArrowPatch)]
    drawn = set()
    for arrow in arrows:
        ends = arrow._path_original.vertices[[0, -1]]
        drawn.add(tuple(min(centre, key=lambda n: np.linalg.norm(centre[n] - end)) for end in ends))
    assert drawn == set(edges) and len(arrows) == len(edges)


def test_labels_of_arrows_are_inside_of_the_figure():
    edges = {("a", "b"): "", ("b", "c"): "", ("c", "d"): "", ("d", "a"): "back", ("a", "d"): "a label on the outside"}
    for direction in ("down", "right"):
        fig, ax = figures.layered_graph(list("abcd"), edges, direction=direction)
        fig.canvas.draw()
        for text in ax.texts:
            area = text.get_window_extent()
            assert fig.bbox.x0 <= area.x0 and area.x1 <= fig.bbox.x1
            assert fig.bbox.y0 <= area.y0 and area.y1 <= fig.bbox.y1


def test_a_diagram_that_cannot_be_read_is_refused():
    nodes = {str(i): "a rather long label" for i in range(12)}
    with pytest.raises(ValueError, match="unreadable"):
        figures.layered_graph(nodes, [("0", str(i)) for i in range(1, 12)])


def test_a_frame_that_would_lie_is_refused():
    with pytest.raises(ValueError, match="would also enclose 'b'"):
        figures.boxes_and_arrows({"a": (0, 0), "b": (1, 0), "c": (2, 0)}, groups={"G": ["a", "c"]})
    with pytest.raises(ValueError, match="not there"):
        figures.boxes_and_arrows({"a": (0, 0)}, [("a", "b")])


# Charts


def test_bar_chart():
    fig, ax = figures.bar_chart({"first": 2.0, "second": 4.0}, unit="ms", color={"second": "vermilion"}, title="Times")
    widths = [patch.get_width() for patch in ax.patches]
    assert widths == [2.0, 4.0] and [t.get_text() for t in ax.texts] == ["2", "4"]
    assert to_hex(ax.patches[1].get_facecolor()) == COLORS["vermilion"]
    fig.canvas.draw()
    first, second = (patch.get_window_extent().y0 for patch in ax.patches)
    assert first > second  # the first on top
    with pytest.raises(ValueError):
        figures.bar_chart({})


@pytest.mark.parametrize(
    ("value", "text"),
    [(15999.6, "16,000"), (134.7, "135"), (28.09, "28.1"), (0.0912, "0.0912"), (12.0, "12"), (0, "0"), (0.1, "0.1")],
)
def test_values_at_bars_have_no_exponent(value, text):
    _, ax = figures.bar_chart({"a": value})
    assert ax.texts[0].get_text() == text


def test_timeline():
    spans = [Span("outer", 10, 8, 0), Span("inner", 12, 2, 1)]
    _, ax = figures.timeline(spans)
    areas = [c.get_paths()[0].get_extents() for c in ax.collections]
    assert [(a.x0, a.width) for a in areas] == [(0, 8), (2, 2)]
    assert ax.get_xlim() == (0, 8) and ax.yaxis_inverted()
    assert [t.get_text() for t in ax.texts] == ["outer", "inner"]


# Light, dark, scraper


def _many_artists():
    fig, ax = figures.new("half", 2.0)
    ax.plot([0, 1], [0, 1], marker="o", color=COLORS["navy"], label="line")
    ax.bar([0, 1], [1, 0.5], color=COLORS["green"], hatch="//")
    ax.scatter([0], [1], color=COLORS["purple"])
    ax.imshow(np.eye(2), extent=(0, 0.2, 0, 0.2), cmap="gray", aspect="auto")
    ax.text(0.5, 0.5, "text", bbox={"facecolor": PAPER, "edgecolor": GRID})
    ax.annotate("there", (0, 1), (0.5, 1.2), arrowprops={"arrowstyle": "->", "color": GRID})
    ax.set(xlim=(-0.6, 1.6), ylim=(0, 1.5))
    ax.legend()
    ax.grid(True)
    ax.set_title("Many\nthings")
    return fig


def _colors(fig):
    return [(setter.__self__, setter.__name__, to_hex(np.atleast_2d(_rgba(value))[0])) for setter, value in _all(fig)]


def _all(fig):
    return list(figures._colored(fig))


def _rgba(value):
    return value if getattr(value, "ndim", 0) == 2 else matplotlib.colors.to_rgba(value)


def test_dark_colors_are_the_counterparts_and_go_back():
    fig = _many_artists()
    fig.canvas.draw()
    before = _colors(fig)
    with figures.dark_colors(fig):
        inside = _colors(fig)
    assert _colors(fig) == before
    assert [(a, n) for a, n, _ in before] == [(a, n) for a, n, _ in inside]
    assert any(isinstance(a, matplotlib.patches.FancyArrowPatch) for a, _, _ in before)
    seen = set()
    for (_, _, light), (_, _, dark) in zip(before, inside, strict=True):
        if light in DARK:
            assert dark == DARK[light]
            seen.add(light)
    assert {PAPER, INK, MUTED, GRID, *(COLORS[n] for n in ("navy", "green", "purple"))} <= seen


def test_saved_twice_in_equal_size_and_without_light_leftovers(tmp_path):
    fig = _many_artists()
    fig.axes[0].images[0].remove()
    light, dark = (Image.open(p).convert("RGB") for p in figures.save(fig, tmp_path / "a.png"))
    assert light.size == dark.size == (680, 400)
    assert to_hex(np.array(light.getpixel((0, 0))) / 255) == PAPER
    assert to_hex(np.array(dark.getpixel((0, 0))) / 255) == DARK[PAPER]
    assert np.array(dark).mean() < 100 < np.array(light).mean()
    # White is nowhere on the dark one: not behind the text, not in the hatch.
    assert (np.array(dark).min(axis=2) > 250).mean() < 0.001


class _Paths:
    """What sphinx-gallery hands to a scraper."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.paths = folder, []

    def __iter__(self):
        return self

    def __next__(self):
        self.paths.append(str(self.folder / f"sphx_glr_x_{len(self.paths) + 1:03}.png"))
        return self.paths[-1]


def test_scraper(tmp_path):
    images = tmp_path / "gallery" / "images"
    images.mkdir(parents=True)

    def run():
        figures.alt(_many_artists(), "What it\n  shows")
        _many_artists()
        paths = _Paths(images)
        rst = figures.scraper(None, {"image_path_iterator": paths}, {"src_dir": str(tmp_path)})
        assert not plt.get_fignums()
        return rst, {p.name: p.read_bytes() for p in sorted(images.iterdir())}

    rst, files = run()
    assert list(files) == [f"sphx_glr_x_{n}{dark}.png" for n in ("001", "002") for dark in ("", "_dark")]
    assert run() == (rst, files)  # equal bytes
    assert ".. image-sg:: /gallery/images/sphx_glr_x_001.png\n   :alt: What it shows\n" in rst
    assert ":alt: Many things\n" in rst
    assert "_dark" not in rst and str(tmp_path) not in rst
    for data in files.values():
        assert b"Software" not in data and b"Date" not in data
    with Image.open(images / "sphx_glr_x_001.png") as image:
        assert image.info["dpi"][0] == pytest.approx(200, abs=1)


def test_scraper_closes_figures_when_saving_fails(tmp_path):
    _many_artists()
    with pytest.raises(FileNotFoundError):
        paths = _Paths(tmp_path / "none")
        figures.scraper(None, {"image_path_iterator": paths}, {"src_dir": str(tmp_path)})
    assert not plt.get_fignums()


def test_fonts_are_large_enough():
    fig, ax = figures.new()
    assert fig.get_figwidth() == 7.0
    # At 700 px for 7 in, a point is 100/72 px.
    assert min(t.get_fontsize() for t in [*ax.get_xticklabels(), ax.xaxis.label, ax.title]) * 100 / 72 >= 12

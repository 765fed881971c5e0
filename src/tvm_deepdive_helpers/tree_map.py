"""Draw a tree map: rectangles inside rectangles, with areas proportional to sizes."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from .figures import COLORS, MUTED, WIDTHS, _text_width, new, tint

__all__ = ["squarify", "tree_map"]


def tree_map(sizes: Mapping[str, Mapping[str, float]], *, height: float = 4.6) -> tuple[Figure, Axes]:
    """Draw sizes of two levels: a coloured rectangle a group, and its members inside.

    Parameters
    ----------
    sizes : mapping of str to mapping of str to float
        Group -> member -> positive size. A member named ``""`` stands for what belongs to the group itself.
    height : float
        Inches. The width is that of the text.

    Returns
    -------
    (Figure, Axes)
        One unit of the axes is one inch of a figure without margins, y grows downwards. A name is written where it
        fits, so small rectangles stay without one.
    """
    width = WIDTHS["text"]
    fig, ax = new("text", height)
    totals = {group: sum(members.values()) for group, members in sizes.items()}
    for number, (group, (x, y, w, h)) in enumerate(squarify(totals, width, height).items()):
        name = list(COLORS)[number % len(COLORS)]
        ax.add_patch(Rectangle((x, y), w, h, fc=tint(name), ec=COLORS[name], lw=1.8))
        title = f"{group}\n{totals[group]:,.0f}"
        size = 9.5 if _text_width(title, 10.5) / 72 < w - 0.1 and h > 0.45 else 7
        ax.text(x + 0.05, y + 0.06, title, va="top", fontsize=size, weight="bold")
        for member, (dx, dy, mw, mh) in squarify(sizes[group], w, h).items():
            ax.add_patch(Rectangle((x + dx, y + dy), mw, mh, fc="none", ec=COLORS[name], lw=0.4))
            # Below the title of the group, which may reach into this rectangle from its upper corner.
            below = 0.42 if dy < 0.3 and dx < _text_width(title, 10.5) / 72 else 0.0
            if _text_width(member, 7.5) / 72 < mw - 0.06 and mh - below > 0.18:
                ax.text(x + dx + 0.04, y + dy + mh - 0.05, member, fontsize=7.5, color=MUTED)
    ax.set(xlim=(0, width), ylim=(height, 0))
    ax.axis("off")
    return fig, ax


def squarify(
    sizes: Mapping[str, float], width: float = 1.0, height: float = 1.0
) -> dict[str, tuple[float, float, float, float]]:
    """Lay out a tree map: rectangles whose areas are proportional to sizes.

    The squarified layout of Bruls, Huizing and van Wijk (2000): rows are filled along the shorter
    side as long as that makes their rectangles less oblong.

    Parameters
    ----------
    sizes
        Name -> positive size.
    width, height
        Extent of the whole, in any unit.

    Returns
    -------
    dict
        Name -> ``(x, y, width, height)``, in the unit of the arguments.
    """
    todo = [(size, name) for name, size in sizes.items() if size > 0]
    todo.sort(key=lambda item: (-item[0], item[1]))
    scale = width * height / sum(size for size, _ in todo) if todo else 0.0
    areas = [(size * scale, name) for size, name in todo]
    boxes: dict[str, tuple[float, float, float, float]] = {}
    x = y = 0.0
    while areas:
        side = min(width, height)
        row = [areas.pop(0)]
        while areas and _worst([*row, areas[0]], side) <= _worst(row, side):
            row.append(areas.pop(0))
        thickness = sum(area for area, _ in row) / side
        along = 0.0
        for area, name in row:
            length = area / thickness
            boxes[name] = (x + along, y, length, thickness) if width < height else (x, y + along, thickness, length)
            along += length
        if width < height:
            y, height = y + thickness, height - thickness
        else:
            x, width = x + thickness, width - thickness
    return boxes


def _worst(row: list[tuple[float, str]], side: float) -> float:
    """Largest ratio of long to short side, if a row is laid along ``side``."""
    total = sum(area for area, _ in row)
    largest, smallest = row[0][0], row[-1][0]
    return max(side**2 * largest / total**2, total**2 / (side**2 * smallest))

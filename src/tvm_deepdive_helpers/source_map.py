"""Measure the source tree of an installed package: sizes, and which part imports which.

Nothing is imported: files are read and parsed. All functions take the folder of a package, such
as ``Path(tvm.__file__).parent``, so they work on any release.
"""

from __future__ import annotations

import ast
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

Node = TypeVar("Node", bound=Hashable)


@dataclass
class Room:
    """Sizes of one part of a tree."""

    files: int = 0
    lines: int = 0


@dataclass
class ImportGraph:
    """Imports between the parts of a package.

    Attributes
    ----------
    parts
        Names of all parts: sub-packages, and modules that stand beside them.
    eager
        ``(importer, imported)`` -> number of import statements that run when the module is loaded.
    lazy
        The same for statements inside functions: they run when the function is called.
    """

    parts: tuple[str, ...]
    eager: Counter[tuple[str, str]] = field(default_factory=Counter)
    lazy: Counter[tuple[str, str]] = field(default_factory=Counter)


def parts_of(root: Path) -> tuple[str, ...]:
    """Sub-packages and modules directly below a package, in alphabetical order."""
    packages = {path.parent.name for path in root.glob("*/__init__.py")}
    modules = {path.stem for path in root.glob("*.py")}
    return tuple(sorted(packages | modules))


def python_sizes(root: Path) -> dict[str, Room]:
    """Files and lines of Python, by part.

    Parameters
    ----------
    root
        Folder of a package. Folders of it that are no Python packages are left out.

    Returns
    -------
    dict
        Part -> sizes. Lines are newline characters, as ``wc -l`` counts them.
    """
    sizes = {part: Room() for part in parts_of(root)}
    for path in _sources(root):
        room = sizes[_part(path, root)]
        room.files += 1
        room.lines += path.read_bytes().count(b"\n")
    return sizes


def tree_sizes(root: Path, suffixes: Iterable[str]) -> Room:
    """Files and lines below a folder, counting only names with one of the suffixes."""
    wanted = frozenset(suffixes)
    room = Room()
    for path in root.rglob("*"):
        if path.suffix in wanted and path.is_file():
            room.files += 1
            room.lines += path.read_bytes().count(b"\n")
    return room


def import_graph(root: Path, others: Iterable[str] = ()) -> ImportGraph:
    """Count the import statements between the parts of a package.

    Parameters
    ----------
    root
        Folder of a package; its name is taken as the name of the package.
    others
        Names of further top-level packages to follow, such as ``"tvm_ffi"``.

    Notes
    -----
    Imports below ``if TYPE_CHECKING:`` never run and are not counted. Attribute access
    (``import tvm`` and later ``tvm.relax``) is no import statement and is not seen.
    """
    graph = ImportGraph(parts_of(root))
    known = set(graph.parts)
    outside = set(others)
    for path in _sources(root):
        importer = _part(path, root)
        package = (root.name, *path.relative_to(root).parent.parts)
        for node, lazy in _imports(ast.parse(path.read_text(encoding="utf-8"))):
            for target in _targets(node, package):
                head, *rest = target
                if head == root.name and rest and rest[0] in known:
                    imported = rest[0]
                elif head in outside:
                    imported = head
                else:
                    continue
                if imported != importer:
                    (graph.lazy if lazy else graph.eager)[importer, imported] += 1
    return graph


def cycles(edges: Iterable[tuple[Node, Node]]) -> list[set[Node]]:
    """Strongly connected components of more than one node, largest first.

    Two nodes are in one component if each can be reached from the other. Tarjan's algorithm,
    written with a stack of its own so that deep graphs do not meet Python's recursion limit.
    """
    successors: dict[Node, list[Node]] = defaultdict(list)
    for begin, end in edges:
        successors[begin].append(end)
    order: dict[Node, int] = {}
    low: dict[Node, int] = {}
    path: list[Node] = []
    on_path: set[Node] = set()
    found: list[set[Node]] = []
    for start in list(successors):
        if start in order:
            continue
        work: list[tuple[Node, Iterator[Node]]] = []
        _open(start, order, low, path, on_path, work, successors)
        while work:
            node, pending = work[-1]
            for successor in pending:
                if successor not in order:
                    _open(successor, order, low, path, on_path, work, successors)
                    break
                if successor in on_path:
                    low[node] = min(low[node], order[successor])
            else:
                work.pop()
                if work:
                    parent = work[-1][0]
                    low[parent] = min(low[parent], low[node])
                if low[node] == order[node]:
                    at = path.index(node)
                    component = set(path[at:])
                    del path[at:]
                    on_path -= component
                    if len(component) > 1:
                        found.append(component)
    return sorted(found, key=len, reverse=True)


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
            boxes[name] = (
                (x + along, y, length, thickness)
                if width < height
                else (x, y + along, thickness, length)
            )
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


def _open(node, order, low, path, on_path, work, successors) -> None:
    order[node] = low[node] = len(order)
    path.append(node)
    on_path.add(node)
    work.append((node, iter(successors.get(node, ()))))


def _sources(root: Path) -> Iterator[Path]:
    """Python files of a package, in a stable order."""
    yield from sorted(root.glob("*.py"))
    for package in sorted(path.parent for path in root.glob("*/__init__.py")):
        yield from sorted(package.rglob("*.py"))


def _part(path: Path, root: Path) -> str:
    first = path.relative_to(root).parts[0]
    return Path(first).stem if first.endswith(".py") else first


def _imports(tree: ast.AST, lazy: bool = False) -> Iterator[tuple[ast.stmt, bool]]:
    """Import statements below a node, each with whether it is inside a function."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node, lazy
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for other in node.orelse:
                yield from _imports(ast.Module([other], []), lazy)
        else:
            inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from _imports(node, lazy or inside)


def _targets(node: ast.stmt, package: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Dotted names that an import statement asks for, made absolute.

    ``from a import b`` may ask for the module ``a.b`` or for a name in ``a``; both spellings
    name the same part as long as ``a`` is not the package itself, so ``b`` is appended.
    """
    if isinstance(node, ast.Import):
        return [tuple(alias.name.split(".")) for alias in node.names]
    assert isinstance(node, ast.ImportFrom)
    base = package[: len(package) - node.level + 1] if node.level else ()
    base += tuple(node.module.split(".")) if node.module else ()
    # One statement counts once for a part, unless it names several parts of the package itself.
    if len(base) > 1 or base[:1] != package[:1]:
        return [base]
    return [(*base, alias.name) for alias in node.names]

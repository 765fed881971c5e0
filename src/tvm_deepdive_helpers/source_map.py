"""Measure the source tree of an installed package: sizes, and which part imports which.

Nothing is imported: files are read and parsed. All functions take the folder of a package, such as
``Path(tvm.__file__).parent``, so they work on any release. What is not installed, the compiler's C++ and older
releases, is measured by ``maintain.tree_sizes`` and ``maintain.tree_history`` instead, and read with ``recorded``.
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
    """Sizes of one part of a tree. Lines are newline characters, as ``wc -l`` counts them."""

    files: int = 0
    lines: int = 0

    def add(self, path: Path) -> None:
        """Count one file."""
        self.files += 1
        self.lines += path.read_bytes().count(b"\n")


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
        Part -> sizes.
    """
    sizes = {part: Room() for part in parts_of(root)}
    for path in _sources(root):
        sizes[_part(path, root)].add(path)
    return sizes


def tree_sizes(root: Path, suffixes: Iterable[str]) -> Room:
    """Files and lines below a folder, counting only names with one of the suffixes."""
    wanted = frozenset(suffixes)
    room = Room()
    for path in root.rglob("*"):
        if path.suffix in wanted and path.is_file():
            room.add(path)
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
        for node, lazy in _imports(ast.parse(path.read_bytes()).body):
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

    Two nodes are in one component if each can be reached from the other. That is asked of all pairs, which is
    fast enough for the few dozen parts of a package.
    """
    successors: dict[Node, set[Node]] = defaultdict(set)
    for begin, end in edges:
        successors[begin].add(end)
    reach = {node: _reachable(node, successors) for node in successors}
    components = {frozenset(other for other in reach[node] if node in reach.get(other, ())) for node in reach}
    return sorted((set(found) for found in components if len(found) > 1), key=len, reverse=True)


def _reachable(start: Node, successors: Mapping[Node, set[Node]]) -> set[Node]:
    """Nodes that an edge, or several in a row, lead to."""
    found: set[Node] = set()
    todo = [start]
    while todo:
        new = successors.get(todo.pop(), set()) - found
        found |= new
        todo += new
    return found


def _sources(root: Path) -> Iterator[Path]:
    """Python files of a package, in a stable order."""
    yield from sorted(root.glob("*.py"))
    for package in sorted(path.parent for path in root.glob("*/__init__.py")):
        yield from sorted(package.rglob("*.py"))


def _part(path: Path, root: Path) -> str:
    first = path.relative_to(root).parts[0]
    return Path(first).stem if first.endswith(".py") else first


def _imports(body: Iterable[ast.AST], lazy: bool = False) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    """Import statements among statements and below them, each with whether it is inside a function."""
    for node in body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node, lazy
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from _imports(node.orelse, lazy)
        else:
            inside = lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            # Expressions hold no statements, so that most of the tree need not be looked at.
            for block in ("body", "handlers", "cases", "orelse", "finalbody"):
                yield from _imports(getattr(node, block, ()), inside)


def _targets(node: ast.Import | ast.ImportFrom, package: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Dotted names that an import statement asks for, made absolute.

    ``from a import b`` may ask for the module ``a.b`` or for a name in ``a``; both spellings
    name the same part as long as ``a`` is not the package itself, so ``b`` is appended.
    """
    if isinstance(node, ast.Import):
        return [tuple(alias.name.split(".")) for alias in node.names]
    base = package[: len(package) - node.level + 1] if node.level else ()
    base += tuple(node.module.split(".")) if node.module else ()
    # One statement counts once for a part, unless it names several parts of the package itself.
    if len(base) > 1 or base[:1] != package[:1]:
        return [base]
    return [(*base, alias.name) for alias in node.names]

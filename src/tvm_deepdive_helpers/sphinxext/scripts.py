"""Read a gallery script without running it: its cells, its settings, what it depends on.

Pure functions, no Sphinx. The vocabulary is described in ``CONTRIBUTING.md``.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, field
from pathlib import Path

#: A line that starts a block, as sphinx-gallery sees it.
BLOCK = re.compile(r"^# ?%%(?P<rest>.*)$")
CELL = re.compile(r"^[ \t]*cell:[ \t]*(?P<name>[^,]*?)[ \t]*(?:,(?P<flags>.*))?$")
NAME = re.compile(r"^[a-z0-9]+(?:-[a-z0-9]+)*$")
SETTINGS = re.compile(r"^# gallery:(?P<items>.*)$")
FLAGS = frozenset({"varies"})
DEFAULT_TIMEOUT = 120.0

PACKAGE = "tvm_deepdive_helpers"


class ScriptError(ValueError):
    """A gallery script breaks a rule; the message starts with ``file:line:``."""


@dataclass(frozen=True)
class CellHead:
    """The line ``# %% cell: name`` of a script.

    Attributes
    ----------
    name
        Name of the cell.
    line
        Line of the header, from 1.
    end
        Line of the next block's header, or one past the last line.
    varies
        The output differs from run to run, and is left out of the snapshot.
    """

    name: str
    line: int
    end: int
    varies: bool = False


@dataclass(frozen=True)
class Script:
    """What can be known of a script before it runs."""

    path: Path
    name: str
    cells: tuple[CellHead, ...]
    timeout: float = DEFAULT_TIMEOUT
    data: tuple[str, ...] = field(default=())

    def cell_at(self, line: int) -> CellHead | None:
        """The named cell whose block holds ``line``, if any."""
        for cell in self.cells:
            if cell.line < line < cell.end:
                return cell
        return None


def parse(path: Path, name: str) -> Script:
    """Parse the heads of a script.

    Parameters
    ----------
    path
        The script.
    name
        Its name below the gallery folder, without suffix, such as ``1-architecture/pipeline``.

    Raises
    ------
    ScriptError
        Bad cell name, unknown flag or setting, a cell name used twice, a syntax error, or bytes that are not UTF-8.
    """
    where = f"gallery/{name}.py"
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as err:
        line = path.read_bytes()[: err.start].count(b"\n") + 1
        raise ScriptError(f"{where}:{line}: not valid UTF-8 ({err.reason}); save the file as UTF-8") from None
    lines = text.splitlines()
    heads = [(number, match["rest"]) for number, line in enumerate(lines, 1) if (match := BLOCK.match(line))]
    cells: dict[str, CellHead] = {}
    for index, (number, rest) in enumerate(heads):
        match = CELL.match(rest)
        if match is None:
            if "cell" in rest.split(":")[0] and ":" in rest:
                raise ScriptError(
                    f"{where}:{number}: cannot read {rest.strip()!r}; "
                    "write '# %% cell: name' or '# %% cell: name, varies'"
                )
            continue
        cell_name = match["name"]
        if not NAME.match(cell_name):
            raise ScriptError(f"{where}:{number}: bad cell name {cell_name!r}; use lower-case words joined by '-'")
        flags = {flag.strip() for flag in (match["flags"] or "").split(",")} - {""}
        if unknown := flags - FLAGS:
            raise ScriptError(f"{where}:{number}: unknown flag {sorted(unknown)[0]!r}; there is {sorted(FLAGS)}")
        if cell_name in cells:
            raise ScriptError(f"{where}:{number}: cell {cell_name!r} stands already at line {cells[cell_name].line}")
        end = heads[index + 1][0] if index + 1 < len(heads) else len(lines) + 1
        cells[cell_name] = CellHead(cell_name, number, end, "varies" in flags)
    try:
        tree = ast.parse(text)
    except SyntaxError as err:
        raise ScriptError(f"{where}:{err.lineno}: SyntaxError: {err.msg}") from None
    return Script(path, name, tuple(cells.values()), _timeout(lines, where), _data_files(tree, where))


def _timeout(lines: list[str], where: str) -> float:
    for number, line in enumerate(lines, 1):
        if match := SETTINGS.match(line):
            for item in match["items"].split():
                key, _, value = item.partition("=")
                if key != "timeout":
                    raise ScriptError(f"{where}:{number}: unknown setting {key!r}; there is 'timeout=SECONDS'")
                try:
                    seconds = float(value)
                except ValueError:
                    seconds = 0
                if not 0 < seconds <= 3600:
                    raise ScriptError(f"{where}:{number}: timeout={value!r} is not a number of seconds up to 3600")
                return seconds
    return DEFAULT_TIMEOUT


def _data_files(tree: ast.Module, where: str) -> tuple[str, ...]:
    """Names given to ``data("…")``: recorded data that the script reads, and so depends on."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", None) == "data":
            if not (
                len(node.args) == 1 and isinstance(node.args[0], ast.Constant) and isinstance(node.args[0].value, str)
            ):
                raise ScriptError(
                    f"{where}:{node.lineno}: data() takes one literal file name, "
                    "so that the build knows what the script depends on"
                )
            names.add(node.args[0].value)
    return tuple(sorted(names))


def imported_helpers(path: Path, package_dir: Path) -> list[Path]:
    """Modules of the helper package that a file imports, directly or not.

    Imports inside functions count too. ``import tvm_deepdive_helpers.x`` also runs the ``__init__`` of the package,
    so that file is always in the list.

    Parameters
    ----------
    path
        A Python file.
    package_dir
        The folder of :mod:`tvm_deepdive_helpers`.

    Returns
    -------
    list of Path
        Sorted, without ``path`` itself.
    """
    seen: set[Path] = set()
    todo = [path]
    while todo:
        current = todo.pop()
        for module in _imports(current, package_dir):
            parts = module.split(".")
            for depth in range(1, len(parts) + 1):
                base = package_dir.joinpath(*parts[1:depth])
                for candidate in (base / "__init__.py", base.with_suffix(".py")):
                    if candidate.is_file() and candidate not in seen and candidate != path:
                        seen.add(candidate)
                        todo.append(candidate)
    return sorted(seen)


def _imports(path: Path, package_dir: Path) -> list[str]:
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError):
        return []
    try:
        own = (PACKAGE, *path.relative_to(package_dir).with_suffix("").parts)
    except ValueError:
        own = ()
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level and own:
                anchor = own[: -node.level] if own[-1] != "__init__" or node.level > 1 else own[:-1]
                base = ".".join([*anchor, *([node.module] if node.module else [])])
            found.append(base)
            found += [f"{base}.{alias.name}" for alias in node.names]
    return [name for name in found if name.split(".")[0] == PACKAGE]

"""Names of older texts about TVM, what they are called today, and a trial of both.

The table is ``gallery/data/renames.toml``. Each row has a call that must run on the installed release, and an old
name that must be gone, or must end in the way that the row says.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import importlib.util
import os
import runpy
import tempfile
import tomllib
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Rename", "find", "old_outcome", "read_renames", "resolve", "run", "try_row"]

#: What may happen to an old name besides a class of exception.
OUTCOMES = frozenset({"gone", "works", "warns"})


@dataclass(frozen=True)
class Rename:
    """One row of the table.

    Attributes
    ----------
    area
        Group of the row, such as ``"TE schedules"``.
    old
        The name, or the form of a call, that older texts use.
    new
        What to write instead; ``"none"`` if there is nothing.
    call
        Python that runs today; its last expression has the value that is shown.
    releases
        First and last release tag with the old name, as ``"v0.4 to v0.19.0"``; ``"never"`` if no tag has it; empty
        if that is no question of names.
    probe
        Python that uses the old name; empty means that ``old`` is a dotted name to look up.
    outcome
        How the probe ends: ``"gone"`` (the dotted name does not resolve), ``"works"``, ``"warns"``, or the names of
        exceptions, joined by ``|``.
    needs
        Package that the call needs beyond those of the book, or empty.
    note
        A remark.
    """

    area: str
    old: str
    new: str
    call: str
    releases: str = ""
    probe: str = ""
    outcome: str = "gone"
    needs: str = ""
    note: str = ""

    @property
    def missing(self) -> bool:
        """Whether the call cannot run here, because a package is not installed."""
        return bool(self.needs) and importlib.util.find_spec(self.needs) is None


def read_renames(path: Path) -> list[Rename]:
    """Rows of the table, in its order.

    Raises
    ------
    ValueError
        A row has an unknown field, lacks one, or repeats a name; the message names the file and the row.
    """
    rows: list[Rename] = []
    seen: set[str] = set()
    for number, entry in enumerate(tomllib.loads(path.read_text(encoding="utf-8"))["name"], start=1):
        try:
            row = Rename(**{key: value.strip() for key, value in entry.items()})
        except (TypeError, AttributeError) as err:
            raise ValueError(f"{path.name}: row {number} ({entry.get('old', 'without a name')}): {err}") from None
        if row.old in seen:
            raise ValueError(f"{path.name}: row {number}: {row.old!r} stands there twice")
        if row.outcome == "gone" and row.probe:
            raise ValueError(f"{path.name}: row {number} ({row.old}): a probe needs an outcome")
        seen.add(row.old)
        rows.append(row)
    return rows


def find(rows: list[Rename], text: str) -> list[Rename]:
    """Rows whose old name contains a text, in any case of letters; the shortest name first."""
    return sorted((row for row in rows if text.lower() in row.old.lower()), key=lambda row: len(row.old))


def resolve(name: str) -> Any:
    """The object that a dotted name means, importing modules on the way.

    Raises
    ------
    AttributeError, ImportError
        If it does not exist.
    """
    parts = name.split(".")
    found = importlib.import_module(parts[0])
    for at, part in enumerate(parts[1:], start=2):
        try:
            found = getattr(found, part)
        except AttributeError:
            try:
                found = importlib.import_module(".".join(parts[:at]))
            except ModuleNotFoundError:
                raise AttributeError(f"no {name}: {'.'.join(parts[:at])} does not exist") from None
    return found


@contextlib.contextmanager
def _inside(folder: str) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def run(source: str, names: Mapping[str, Any]) -> Any:
    """Run Python text as a file of its own, in an empty folder.

    A file, because TVMScript's decorators read the source of what they decorate.

    Parameters
    ----------
    source : str
        Statements; the value of the last one is returned if it is an expression.
    names : mapping
        Globals that it may use.

    Returns
    -------
    object
        Value of the last expression, or None.
    """
    last = ast.parse(source).body[-1]
    if isinstance(last, ast.Expr):
        lines = source.splitlines(keepends=True)
        # ast counts columns in bytes of UTF-8.
        start = len(lines[last.lineno - 1].encode()[: last.col_offset].decode())
        begin = "".join(lines[: last.lineno - 1]) + lines[last.lineno - 1][:start]
        source = f"{begin}result_of_row = ({source[len(begin) :].rstrip()}\n)\n"
    with tempfile.TemporaryDirectory() as folder, _inside(folder):
        path = Path(folder, "row.py")
        path.write_text(source, encoding="utf-8")
        after = runpy.run_path(str(path), init_globals=dict(names), run_name="row")
    return after.get("result_of_row")


def old_outcome(row: Rename, names: Mapping[str, Any]) -> str:
    """How the old name ends today: ``"gone"``, ``"works"``, ``"warns"``, or the name of an exception."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            if row.probe:
                run(row.probe, names)
            else:
                resolve(row.old)
        except Exception as err:
            return type(err).__name__ if row.probe else "gone"
    return "warns" if any(issubclass(w.category, DeprecationWarning) for w in caught) else "works"


def try_row(row: Rename, names: Mapping[str, Any]) -> list[str]:
    """What is wrong with a row on the installed release; an empty list if it is right."""
    problems = []
    outcome = old_outcome(row, names)
    if outcome not in row.outcome.split("|"):
        problems.append(f"{row.old}: the old name ends as {outcome!r}, the table says {row.outcome!r}")
    if not row.missing:
        try:
            run(row.call, names)
        except Exception as err:
            problems.append(f"{row.old}: the new call fails: {type(err).__name__}: {str(err).splitlines()[:1]}")
    return problems

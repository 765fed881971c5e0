"""What a script printed, drew and glued: the record that one run leaves for every builder and language.

A record is a JSON file beside the page that sphinx-gallery generates, ``book/gallery/<part>/<script>.cells.json``. It
is written whole, and only when the script really ran to its end.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

SUFFIX = ".cells.json"


class RecordError(LookupError):
    """A page names a script, cell or value that does not exist; the message lists what does."""


@dataclass(frozen=True)
class Cell:
    """One executed block.

    Attributes
    ----------
    name
        Name of the cell, or None for a block that no chapter can show.
    line
        Line of its first line of code in the script.
    code, output
        Source text, and what it wrote to stdout and stderr, Python and C++ alike, in order.
    images
        File names below the ``images`` folder beside the record.
    varies
        The output differs from run to run.
    fails
        The cell shows an error that is meant to happen.
    """

    name: str | None
    line: int
    code: str
    output: str = ""
    images: tuple[str, ...] = ()
    varies: bool = False
    fails: bool = False


@dataclass(frozen=True)
class Record:
    """What a run of one script left behind."""

    script: str
    title: str
    cells: tuple[Cell, ...]
    glued: dict[str, dict[str, Any]]
    seconds: float
    cpu_seconds: float
    date: str
    versions: dict[str, str]
    path: Path = field(default=Path(), compare=False)

    @property
    def image_dir(self) -> Path:
        return self.path.parent / "images"

    def cell(self, name: str) -> Cell:
        """The cell of that name; :class:`RecordError` lists the names that exist."""
        for cell in self.cells:
            if cell.name == name:
                return cell
        names = _names((cell.name for cell in self.cells if cell.name), name)
        raise RecordError(f"gallery/{self.script}.py has no cell {name!r}; it has {names}")

    def value(self, key: str) -> Any:
        """The glued value of that name; :class:`RecordError` lists the names that exist."""
        try:
            return self.glued[key]["value"]
        except KeyError:
            raise RecordError(
                f"gallery/{self.script}.py glues no {key!r}; it glues {_names(self.glued, key)}"
            ) from None


def _names(names: Iterable[str], wanted: str) -> str:
    """The existing names for an error message, nearest first."""
    all_names = sorted(names)
    near = difflib.get_close_matches(wanted, all_names, n=3)
    rest = [name for name in all_names if name not in near]
    return "[" + ", ".join([*near, *rest]) + "]"


def record_path(gallery_out: Path, script: str) -> Path:
    """Where the record of a script lies."""
    return gallery_out / f"{script}{SUFFIX}"


def write(record: Record, path: Path) -> None:
    """Write a record atomically: a reader sees the old one, or the new one, never half of it."""
    fields = {key: value for key, value in asdict(record).items() if key != "path"}
    write_atomically(path, json.dumps(fields, indent=1, ensure_ascii=False, sort_keys=True) + "\n")


def write_atomically(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` by way of a temporary file in the same folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def load(path: Path) -> Record:
    """Read a record.

    Raises
    ------
    RecordError
        There is none, or it cannot be read.
    """
    try:
        return _load(path, path.stat().st_mtime_ns)
    except FileNotFoundError:
        gallery_out = path.parent.parent
        script = path.relative_to(gallery_out).as_posix().removesuffix(SUFFIX)
        known = (p.relative_to(gallery_out).as_posix().removesuffix(SUFFIX) for p in gallery_out.glob(f"*/*{SUFFIX}"))
        raise RecordError(f"no gallery script {script!r}; there is {_names(known, script)}") from None


@lru_cache(maxsize=512)
def _load(path: Path, _mtime: int) -> Record:
    fields = json.loads(path.read_text(encoding="utf-8"))
    fields["cells"] = tuple(Cell(**{**cell, "images": tuple(cell["images"])}) for cell in fields["cells"])
    return Record(**fields, path=path)

"""Data that a page shows but cannot measure while the book is built.

The compiler's C++ is not in the wheel, and old releases are not installed. What is known of them was measured once,
by the commands under ``maintain``, and stands in ``gallery/data``; the first line of each file says which command
wrote it, and how. MAINTAINING.md, "A new release of TVM", says when to run them again.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

__all__ = ["data", "read_csv", "write_csv"]


def data(name: str) -> Path:
    """Path of a file in ``gallery/data``.

    Parameters
    ----------
    name : str
        File name. Give it as a literal: the build reads it from the script's text, so that the
        script runs again when the data changed.

    Returns
    -------
    Path
        The file in the folder ``data`` nearest to the calling script, looking upwards.

    Raises
    ------
    FileNotFoundError
        If no folder above the script holds it.
    """
    script = sys._getframe(1).f_globals.get("__file__")
    start = Path(script).resolve().parent if script else Path.cwd()
    for folder in (start, *start.parents):
        path = folder / "data" / name
        if path.is_file():
            return path
    raise FileNotFoundError(f"no data/{name} in {start.name} or above")


def read_csv(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV file; lines that begin with ``#`` are comments."""
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(line for line in stream if not line.startswith("#")))


def write_csv(path: Path, command: str, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table that `read_csv` reads.

    Parameters
    ----------
    path : Path
        The file, in a folder that exists.
    command : str
        Module under ``maintain`` with its arguments. The first line of the file holds it.
    header : sequence of str
        Names of the columns.
    rows : iterable of sequence
        Values, in the order of the columns.
    """
    with path.open("w", newline="", encoding="utf-8") as stream:
        stream.write(f"# generated: python -m tvm_deepdive_helpers.maintain.{command}\n")
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)

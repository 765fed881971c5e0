"""Data that a page shows but cannot measure while the book is built.

The compiler's C++ is not in the wheel, and old releases are not installed. What is known of them
was measured once, by the scripts under ``maintain``, and stands in ``gallery/data``; the first line
of each file says which script wrote it, and how.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

__all__ = ["data", "read_csv"]


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

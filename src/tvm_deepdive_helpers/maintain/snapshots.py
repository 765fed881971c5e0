"""Snapshots: the normalised output of every cell, kept under ``tests/snapshots`` so that a change of output is a
readable diff.

``python -m tvm_deepdive_helpers.maintain.snapshots accept`` takes the outputs of the last build (``make accept``);
``… compare`` prints the difference and ends with status 1 when there is one. Outputs and values that are marked
``varies`` are not part of a snapshot; that the cell printed anything at all still is.
"""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Sequence
from pathlib import Path

from tvm_deepdive_helpers.sphinxext import records

ROOT = Path(__file__).resolve().parents[3]
RECORDS = ROOT / "book" / "gallery"
SNAPSHOTS = ROOT / "tests" / "snapshots"
#: TVM prints symbolic sizes in the newer syntax of Python 3.12 and later, so snapshots hold for one minor version.
REFERENCE_PYTHON = (3, 11)


def snapshot(record: records.Record) -> str:
    """The text that stands for a record: glued values, then every block that printed or drew something."""
    parts = [f"gallery/{record.script}.py"]
    values = [f"{key} = {item['value']!r}" for key, item in sorted(record.glued.items()) if not item["varies"]]
    varying = [f"{key} (varies)" for key, item in sorted(record.glued.items()) if item["varies"]]
    if values or varying:
        parts.append("\n".join(["== glued", *values, *varying]))
    for number, cell in enumerate(record.cells, 1):
        if not cell.output.strip() and not cell.images:
            continue
        head = f"== cell {cell.name}" if cell.name else f"== block {number}"
        body = "(varies)" if cell.varies else "\n".join(line.rstrip() for line in cell.output.strip("\n").split("\n"))
        parts.append("\n".join(filter(None, [head, body, *(["(figure)"] * len(cell.images))])))
    return "\n\n".join(parts) + "\n"


def current(folder: Path) -> dict[str, str]:
    """Snapshots of all records below ``folder``, by script name."""
    loaded = [records.load(path) for path in sorted(folder.glob(f"*/*{records.SUFFIX}"))]
    return {record.script: snapshot(record) for record in loaded}


def accepted(folder: Path) -> dict[str, str]:
    """Snapshots on disk, by script name."""
    paths = sorted(folder.glob("*/*.txt"))
    return {path.relative_to(folder).with_suffix("").as_posix(): path.read_text(encoding="utf-8") for path in paths}


def difference(old: str, new: str, name: str) -> str:
    """A unified diff of two snapshots; empty when they are the same."""
    lines = difflib.unified_diff(
        old.splitlines(), new.splitlines(), f"accepted {name}", f"now {name}", lineterm="", n=2
    )
    return "\n".join(lines)


def compare(built: Path = RECORDS, kept: Path = SNAPSHOTS) -> list[str]:
    """What differs between the accepted snapshots and the last build, one text a script."""
    old, new = accepted(kept), current(built)
    problems = []
    for name in sorted(old.keys() | new.keys()):
        if name not in new:
            problems.append(
                f"tests/snapshots/{name}.txt: there is no record of gallery/{name}.py; "
                "build the book, or run `make accept`"
            )
        elif name not in old:
            problems.append(f"gallery/{name}.py has no snapshot; look at its page, then run `make accept`")
        elif old[name] != new[name]:
            problems.append(
                difference(old[name], new[name], name) + "\nIf this is right, run `make accept` and commit the change."
            )
    return problems


def accept(built: Path = RECORDS, kept: Path = SNAPSHOTS) -> tuple[int, int]:
    """Write the snapshots of the last build; returns how many changed and how many were removed."""
    old, new = accepted(kept), current(built)
    if not new:
        raise SystemExit("nothing to accept: build the book first (make html)")
    changed = [name for name in new if old.get(name) != new[name]]
    for name in changed:
        records.write_atomically(kept / f"{name}.txt", new[name])
    removed = [name for name in old if name not in new]
    for name in removed:
        (kept / f"{name}.txt").unlink()
    return len(changed), len(removed)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see the module."""
    parser = argparse.ArgumentParser(prog="snapshots", description=__doc__.split("\n")[0])
    parser.add_argument("action", choices=["accept", "compare"])
    action = parser.parse_args(argv).action
    if action == "accept":
        changed, removed = accept()
        print(f"snapshots: {changed} changed, {removed} removed; look at `git diff tests/snapshots` before you commit")
        return 0
    problems = compare()
    print("\n\n".join(problems) or "snapshots: no difference")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())

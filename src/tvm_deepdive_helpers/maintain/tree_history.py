"""Write which directories of TVM stood in which releases, and where their files went.

Two tables go to ``gallery/data``, derived from the trees of all final releases of a clone::

    python -m tvm_deepdive_helpers.maintain.tree_history --checkout path/to/tvm

``tvm_rooms.csv``
    One row a directory: first release, last release (the newest one if it still stands), and how
    many files it held in the last one. A directory that went away and came back has two rows.
``tvm_moves.csv``
    For each directory that disappeared, what git's rename detection says about the files of its
    last release: how many went to which directory, and how many were deleted (an empty ``to``).
"""

from __future__ import annotations

import argparse
import csv
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from .git_tree import files, git, releases, tag_ref

# How deep a directory is followed; everything else is followed to depth 1.
DEPTH = {
    "src": 2,
    "src/runtime": 3,
    "src/te": 3,
    "src/target": 3,
    "include": 3,
    "python": 3,
    "python/tvm/te": 4,
    "python/tvm/contrib": 4,
    "python/tvm/runtime": 4,
}


class Stay(NamedTuple):
    """A directory, and the unbroken run of releases in which it stood."""

    room: str
    first: str
    last: str
    files: int


def room_of(path: str) -> str:
    """Directory under which a file is followed.

    >>> room_of("src/relay/transforms/fuse_ops.cc")
    'src/relay'
    >>> room_of("src/runtime/graph_executor/graph_executor.cc")
    'src/runtime/graph_executor'
    >>> room_of("python/tvm/nd.py")
    'python/tvm'
    """
    folder = PurePosixPath(path).parent
    depth = 1
    for known in (folder, *folder.parents):
        if str(known) in DEPTH:
            depth = DEPTH[str(known)]
            break
    return "/".join(folder.parts[:depth]) or "."


def stays(trees: Mapping[str, Iterable[str]]) -> list[Stay]:
    """Unbroken stays of all directories.

    Parameters
    ----------
    trees
        Release -> its file paths, oldest release first.
    """
    counts = {tag: Counter(map(room_of, paths)) for tag, paths in trees.items()}
    found = []
    for room in sorted(set().union(*counts.values())):
        first = last = None
        for tag, rooms in counts.items():
            if rooms[room]:
                first, last = first or tag, tag
            elif first:
                found.append(Stay(room, first, last, counts[last][room]))
                first = last = None
        if first:
            found.append(Stay(room, first, last, counts[last][room]))
    return found


def moves(name_status: str, rooms: Iterable[str]) -> Counter[tuple[str, str]]:
    """Where the files of some directories went.

    Parameters
    ----------
    name_status
        Output of ``git diff --find-renames --name-status``.
    rooms
        The directories that are asked for.

    Returns
    -------
    Counter
        ``(directory, directory it went to)`` -> number of files; ``""`` stands for deleted.
    """
    asked = set(rooms)
    found: Counter[tuple[str, str]] = Counter()
    for line in name_status.splitlines():
        status, *paths = line.split("\t")
        if status[0] in "RD" and (room := room_of(paths[0])) in asked:
            found[room, room_of(paths[1]) if status[0] == "R" else ""] += 1
    return found


def write(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV file; the first line says where it comes from."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        stream.write(
            "# generated: python -m tvm_deepdive_helpers.maintain.tree_history --checkout TVM\n"
        )
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkout", type=Path, required=True, help="a clone of TVM, with tags")
    parser.add_argument("--until", help="last release to look at (default: the newest)")
    parser.add_argument("--into", type=Path, default=Path("gallery/data"), help="output folder")
    args = parser.parse_args(argv)

    tags = releases(args.checkout)
    if args.until:
        tags = tags[: tags.index(args.until) + 1]
    found = stays({tag: files(args.checkout, tag) for tag in tags})
    write(args.into / "tvm_rooms.csv", Stay._fields, found)

    rows = []
    for before, after in pairwise(tags):
        ended = [stay.room for stay in found if stay.last == before]
        if ended:
            diff = git(
                args.checkout,
                *("diff", "--find-renames", "-l20000", "--name-status"),
                *(tag_ref(before), tag_ref(after)),
            )
            gone = moves(diff.decode(), ended)
            rows += [(room, after, to, n) for (room, to), n in sorted(gone.items())]
    write(args.into / "tvm_moves.csv", ("room", "release", "to", "files"), rows)
    print(f"{len(tags)} releases, {len(found)} stays, {len(rows)} moves in {args.into}")


if __name__ == "__main__":
    main()

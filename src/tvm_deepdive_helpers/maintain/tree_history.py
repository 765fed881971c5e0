"""Write when TVM's releases were made, which directories stood in them, and where their files went.

Three tables go to ``gallery/data``, derived from all final releases of a clone::

    python -m tvm_deepdive_helpers.maintain.tree_history --checkout path/to/tvm

``tvm_releases.csv``
    One row a release, oldest version first: its tag and the day on which the tagged commit was made.
``tvm_rooms.csv``
    One row a directory: first release, last release (the newest one if it still stands), and how
    many files it held in the last one. A directory that went away and came back has two rows.
``tvm_moves.csv``
    For each directory that disappeared, what git's rename detection says about the files of its
    last release: how many went to which directory, and how many were deleted (an empty ``to``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from ..recorded import write_csv
from .git_tree import arguments, files, git, releases, tag_ref

COMMAND = "tree_history --checkout TVM"

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


def release_date(checkout: Path, tag: str) -> str:
    """Day (year-month-day) on which the tagged commit was made."""
    return git(checkout, "log", "-1", "--format=%cs", tag_ref(tag)).decode().strip()


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    args = arguments(__doc__, tag=False).parse_args(argv)
    tags = releases(args.checkout)
    dates = [(tag, release_date(args.checkout, tag)) for tag in tags]
    write_csv(args.into / "tvm_releases.csv", COMMAND, ("release", "date"), dates)

    found = stays({tag: files(args.checkout, tag) for tag in tags})
    write_csv(args.into / "tvm_rooms.csv", COMMAND, Stay._fields, found)

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
    write_csv(args.into / "tvm_moves.csv", COMMAND, ("room", "release", "to", "files"), rows)
    print(f"{len(tags)} releases, {len(found)} stays, {len(rows)} moves in {args.into}")


if __name__ == "__main__":
    main()

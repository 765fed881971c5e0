"""Write the date of every final release of TVM to ``gallery/data/tvm_releases.csv``.

The date is that of the tagged commit::

    python -m tvm_deepdive_helpers.maintain.release_dates --checkout path/to/tvm
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

from .git_tree import git, releases, tag_ref


def release_date(checkout: Path, tag: str) -> str:
    """Day (year-month-day) on which the tagged commit was made.

    Parameters
    ----------
    checkout
        A clone of TVM, bare or not.
    tag
        A release, such as ``v0.26.0``.

    Raises
    ------
    RuntimeError
        If the clone has no such tag.
    """
    return git(checkout, "log", "-1", "--format=%cs", tag_ref(tag)).decode().strip()


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkout", type=Path, required=True, help="a clone of TVM, with tags")
    parser.add_argument("--into", type=Path, default=Path("gallery/data/tvm_releases.csv"))
    args = parser.parse_args(argv)
    found = [(tag, release_date(args.checkout, tag)) for tag in releases(args.checkout)]
    with args.into.open("w", newline="", encoding="utf-8") as stream:
        stream.write("# generated: python -m tvm_deepdive_helpers.maintain.release_dates --checkout TVM\n")
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(("release", "date"))
        writer.writerows(found)


if __name__ == "__main__":
    main()

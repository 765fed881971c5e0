"""Read trees and blobs of a TVM checkout through git, without a work tree.

The maintenance scripts of this package measure releases that are not installed. They only need
``git``, and a clone of TVM with its tags; a bare clone will do.
"""

from __future__ import annotations

import argparse
import re
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

_RELEASE = re.compile(r"v(\d+)\.(\d+)(?:\.(\d+))?")


def git(checkout: Path, *args: str, stdin: str | None = None) -> bytes:
    """Run one git command and return what it writes.

    Parameters
    ----------
    checkout
        A clone of TVM, bare or not.
    args
        The command and its arguments.
    stdin
        Text for the standard input.

    Raises
    ------
    RuntimeError
        If git fails; the message holds git's own.
    """
    done = subprocess.run(
        ["git", "-C", str(checkout), *args],
        input=None if stdin is None else stdin.encode(),
        capture_output=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"git {' '.join(args[:3])} failed: {done.stderr.decode().strip()}")
    return done.stdout


def tag_ref(tag: str) -> str:
    """Full name of a tag: TVM has branches of the same name, so the short form is ambiguous."""
    return tag if tag.startswith("refs/") else f"refs/tags/{tag}"


def releases(checkout: Path) -> list[str]:
    """Tags of final releases (no ``rc``, ``dev``, ``post``), oldest first."""
    names = git(checkout, "tag", "--list", "v*").decode().split()
    found = [(match, name) for name in names if (match := _RELEASE.fullmatch(name))]
    found.sort(key=lambda item: tuple(int(part or 0) for part in item[0].groups()))
    return [name for _, name in found]


def files(checkout: Path, tag: str) -> dict[str, str]:
    """Every file of a release.

    Returns
    -------
    dict
        Path from the root of the tree -> object id. Submodules are not files and are left out.
    """
    listing = git(checkout, "ls-tree", "-r", "-z", tag_ref(tag)).decode()
    found = {}
    for entry in filter(None, listing.split("\0")):
        kind_and_id, path = entry.split("\t", 1)
        _, kind, oid = kind_and_id.split()
        if kind == "blob":
            found[path] = oid
    return found


def blobs(checkout: Path, object_ids: Iterable[str]) -> Iterator[bytes]:
    """Contents of blobs, in the order that was asked for.

    Raises
    ------
    RuntimeError
        If the clone does not hold one of them (a partial clone).
    """
    wanted = list(object_ids)
    raw = git(checkout, "cat-file", "--batch", stdin="".join(f"{oid}\n" for oid in wanted))
    at = 0
    for oid in wanted:
        end_of_header = raw.index(b"\n", at)
        header = raw[at:end_of_header].split()
        if len(header) != 3:
            raise RuntimeError(f"{oid} is not in this clone ({header[-1].decode()})")
        begin = end_of_header + 1
        at = begin + int(header[2])
        yield raw[begin:at]
        at += 1  # the newline that git adds after each blob


def arguments(description: str, *, tag: bool) -> argparse.ArgumentParser:
    """Options that all commands which read a clone of TVM have in common.

    Parameters
    ----------
    description
        The docstring of the command; its first line is shown.
    tag
        Whether the command reads one release, which then must be named.
    """
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--checkout", type=Path, required=True, help="a clone of TVM, with tags; bare or not")
    if tag:
        parser.add_argument("--tag", required=True, help="a release, such as v0.26.0")
    parser.add_argument("--into", type=Path, default=Path("gallery/data"), help="output folder")
    return parser

"""Pack the built book into a zip, to be read without a network: ``make archive``.

The same files give the same bytes: members are sorted, and all have the date of the last commit.
"""

from __future__ import annotations

import argparse
import sys
import time
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from . import pdf

ROOT = Path(__file__).resolve().parents[3]
#: What a reader does not open: notes of Sphinx to itself.
LEFT_OUT = {".buildinfo", "objects.inv", ".doctrees"}
#: Files that are compressed already.
PACKED = {".png", ".jpg", ".woff2", ".zip", ".gz"}


def pack(members: Iterable[tuple[str, bytes, bool]], target: Path, epoch: int) -> None:
    """Write a zip.

    Parameters
    ----------
    members
        Name, bytes and whether to compress, in the order in which they are to stand.
    target
        The zip.
    epoch
        Seconds since 1970: the date of every member.
    """
    date = time.gmtime(max(epoch, 315532800))[:6]
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_suffix(".new")
    with zipfile.ZipFile(temporary, "w") as made:
        for name, data, compress in members:
            info = zipfile.ZipInfo(name, date)
            info.external_attr = 0o644 << 16
            info.create_system = 3
            info.compress_type = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
            made.writestr(info, data)
    temporary.replace(target)


def book_members(folder: Path, name: str) -> Iterable[tuple[str, bytes, bool]]:
    """The files of a built edition, below a folder `name`."""
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        if path.is_file() and not LEFT_OUT & set(inside.parts) and path.suffix != ".map":
            yield f"{name}/{inside.as_posix()}", path.read_bytes(), path.suffix not in PACKED


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see the module."""
    parser = argparse.ArgumentParser(prog="archive", description=__doc__.split("\n")[0])
    parser.add_argument("--edition", default="en", help="language of the book (default: en)")
    edition = parser.parse_args(argv).edition
    folder = ROOT / "_build/html" / edition
    if not (folder / "index.html").is_file():
        print(f"archive: there is no {folder.relative_to(ROOT)}/index.html; run make html first", file=sys.stderr)
        return 1
    name = f"{pdf.NAME}-{edition}"
    target = ROOT / "_build/archive" / f"{name}.zip"
    pack(book_members(folder, name), target, int(pdf.source_date()))
    print(
        f"The archive is {target.relative_to(ROOT)} ({target.stat().st_size / 1e6:.1f} MB); unpack it, open index.html"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

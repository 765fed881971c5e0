"""Pack the built book into a zip, to be read without a network: ``make archive``.

Without an edition, the whole site is packed: the page that picks the language, and all editions, each of which leads
to the others. With one, only that edition is packed, and its pages lead to no other. The name of the zip names the
editions in it. The same files give the same bytes: members are sorted, and all have the date of the last commit.
"""

from __future__ import annotations

import argparse
import re
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
#: The first page, of an edition and of the whole site.
START = "index.html"


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


#: The list of the editions on a page, and what its head says of them.
SWITCH = re.compile(rb'<ul class="language-switch".*?</ul>\s*|<link rel="alternate" hreflang="[^>]*>\s*', re.S)


def book_members(folder: Path, name: str, alone: bool = False) -> Iterable[tuple[str, bytes, bool]]:
    """The files of a built edition, or of the whole site, below a folder `name`.

    With `alone`, pages lose their links to other editions, which do not lie beside them.
    """
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        if path.is_file() and not LEFT_OUT & set(inside.parts) and path.suffix != ".map":
            data = path.read_bytes()
            if alone and path.suffix == ".html":
                data = SWITCH.sub(b"", data)
            yield f"{name}/{inside.as_posix()}", data, path.suffix not in PACKED


def site_members(site: Path, editions: Iterable[str], name: str) -> Iterable[tuple[str, bytes, bool]]:
    """The page that picks the language, and all editions."""
    yield f"{name}/{START}", (site / START).read_bytes(), True
    for edition in sorted(editions):
        yield from book_members(site / edition, f"{name}/{edition}")


def editions_of(start: Path) -> list[str]:
    """The editions to which the page that picks the language leads, in its order."""
    found = re.findall(r'href="(\w+)/index\.html"', start.read_text(encoding="utf-8"))
    return list(dict.fromkeys(found))


def build(edition: str, site: Path, folder: Path, epoch: int) -> Path:
    """Pack an edition, or with an empty `edition` the whole `site`, into a zip in `folder`.

    Raises
    ------
    SystemExit
        Something is not built.
    """
    wanted = [f"{edition}/{START}"] if edition else [START]
    if not edition and (site / START).is_file():
        wanted += [f"{code}/{START}" for code in editions_of(site / START)]
    if lacking := [path for path in wanted if not (site / path).is_file()]:
        command = f"make html EDITION={edition}" if edition else "make html"
        raise SystemExit(f"archive: there is no _build/html/{lacking[0]}; run {command} first")
    editions = [edition] if edition else editions_of(site / START)
    name = "-".join([pdf.NAME, *editions])
    members = book_members(site / edition, name, alone=True) if edition else site_members(site, editions, name)
    target = folder / f"{name}.zip"
    pack(members, target, epoch)
    return target


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see the module."""
    parser = argparse.ArgumentParser(prog="archive", description=__doc__.split("\n")[0])
    parser.add_argument("--edition", default="", help="one language of the book (default: the whole site)")
    edition = parser.parse_args(argv).edition
    made = build(edition, ROOT / "_build/html", ROOT / "_build/archive", int(pdf.source_date()))
    print(f"The archive is {made.relative_to(ROOT)} ({made.stat().st_size / 1e6:.1f} MB); unpack it, open {START}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

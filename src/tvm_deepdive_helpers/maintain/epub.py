"""Make the EPUB of the book: ``make epub``.

Sphinx writes it, without the pages of scripts, like the PDF. It is packed anew so that the same text gives the same
bytes, and epubcheck reads it: an error or a warning stops the command.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

from . import archive, pdf

ROOT = Path(__file__).resolve().parents[3]


def repack(made: Path, target: Path, epoch: int) -> None:
    """Write an EPUB with sorted members of one date; ``mimetype`` stands first, uncompressed, as the format wants."""
    with zipfile.ZipFile(made) as old:
        names = sorted(old.namelist(), key=lambda name: (name != "mimetype", name))
        members = [(name, old.read(name), name != "mimetype") for name in names if not name.endswith("/")]
    archive.pack(members, target, epoch)


def check(path: Path) -> list[str]:
    """What epubcheck complains about; empty without epubcheck, after a word on how to get it."""
    tool = shutil.which("epubcheck")
    if tool is None:
        print("epub: not checked; for that, install the package 'epubcheck' (Debian, Ubuntu; it needs Java)")
        return []
    # Debian's is a Java archive, which not every system starts by itself.
    command = ["java", "-jar", tool] if zipfile.is_zipfile(tool) else [tool]
    done = subprocess.run([*command, str(path)], capture_output=True, text=True, check=False)
    lines = [
        line for line in (done.stdout + done.stderr).splitlines() if line.startswith(("ERROR", "WARNING", "FATAL"))
    ]
    return lines or ([] if done.returncode == 0 else [(done.stdout + done.stderr)[-2000:]])


def build(edition: str) -> Path:
    """Make the EPUB of an edition, and check it.

    Raises
    ------
    SystemExit
        Sphinx or epubcheck complains; the message says about what.
    """
    environment = {**os.environ, "SOURCE_DATE_EPOCH": pdf.source_date()}
    folder = ROOT / "_build/epub-files" / edition
    language = [] if edition == "en" else ["-D", f"language={edition}"]
    sphinx = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-c", ".", "-b", "epub", "-t", "print"]
    doctrees = ROOT / "_build/doctrees" / f"epub-{edition}"
    done = subprocess.run(
        [*sphinx, "-d", str(doctrees), *language, "book", str(folder)], cwd=ROOT, env=environment, check=False
    )
    if done.returncode:
        raise SystemExit("epub: Sphinx could not write the EPUB; see the messages above")
    target = ROOT / "_build/epub" / f"{pdf.NAME}-{edition}.epub"
    repack(folder / f"{pdf.NAME}.epub", target, int(environment["SOURCE_DATE_EPOCH"]))
    if problems := check(target):
        more = [f"… {len(problems) - 30} more"] if len(problems) > 30 else []
        raise SystemExit("\n".join(["epub: epubcheck complains:", *problems[:30], *more]))
    return target


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see the module."""
    parser = argparse.ArgumentParser(prog="epub", description=__doc__.split("\n")[0])
    parser.add_argument("--edition", default="en", help="language of the book (default: en)")
    made = build(parser.parse_args(argv).edition)
    print(f"The EPUB is {made.relative_to(ROOT)} ({made.stat().st_size / 1e6:.1f} MB)")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Build the book twice, each time clean and in a folder of its own, and compare every byte.

::

    python -m tvm_deepdive_helpers.maintain.reproducible
    python -m tvm_deepdive_helpers.maintain.reproducible --pdf

The second compares the PDF, too, and needs LaTeX. Both builds take the results of the scripts from ``book/gallery``, so
build the book first: times and other measured values differ from run to run, and are data of the run, not of the
build. What a script leaves besides them (archives, notebooks, pictures) is compared by ``tests/test_reproducible.py``,
where the scripts run twice.

The builds differ in everything that must not matter: folder, time zone (never the same day), language, order of
hashes, the order in which files were written, and the number of processes that read and write pages.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tvm_deepdive_helpers.maintain import pdf

ROOT = Path(__file__).resolve().parents[3]
#: What two builds do not share. The two time zones are 26 hours apart.
SETTINGS = (
    {"TZ": "Etc/GMT+12", "PYTHONHASHSEED": "1", "LC_ALL": "C.UTF-8"},
    {"TZ": "Etc/GMT-14", "PYTHONHASHSEED": "2", "LC_ALL": "C"},
)
FOLDERS = ("first", "the second of two")


def differences(one: Path, two: Path) -> list[str]:
    """Files that differ between two folders, one line each; empty when all bytes are the same.

    Raises
    ------
    FileNotFoundError
        One of the folders does not exist.
    """
    names = [{p.relative_to(folder).as_posix() for p in _files(folder)} for folder in (one, two)]
    lines = []
    for name in sorted(names[0] | names[1]):
        if name not in names[0] or name not in names[1]:
            lines.append(f"{name}: only in the {'first' if name in names[0] else 'second'} build")
            continue
        old, new = (one / name).read_bytes(), (two / name).read_bytes()
        if old != new:
            lines.append(f"{name}: {_first_difference(old, new)}")
    return lines


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    return [path for path in folder.rglob("*") if path.is_file()]


def _first_difference(old: bytes, new: bytes) -> str:
    try:
        pairs = zip(old.decode().split("\n"), new.decode().split("\n"), strict=False)
    except UnicodeDecodeError:
        at = next((i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))
        return f"{len(old)} and {len(new)} bytes, different from byte {at}"
    for number, (first, second) in enumerate(pairs, 1):
        if first != second:
            at = next((i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), 0)
            start = max(0, at - 60)
            return f"line {number}: {first[start : at + 60]!r} and {second[start : at + 60]!r}"
    return "one is longer"


def copy_book(root: Path, into: Path, reverse: bool) -> None:
    """Copy the files of the book that git knows or would take, and the results of the scripts."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=root, capture_output=True, check=True).stdout.decode()
    results = [path.relative_to(root).as_posix() for path in (root / "book/gallery").rglob("*") if path.is_file()]
    names = sorted({*filter(None, listed.split("\0")), *results}, reverse=reverse)
    for name in names:
        source, target = root / name, into / name
        if source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)


def build_pdf(folder: Path, edition: str, settings: dict[str, str]) -> None:
    """Make the PDF of the copy in a folder, beside its pages.

    Raises
    ------
    SystemExit
        The build failed.
    """
    command = [sys.executable, "-m", "tvm_deepdive_helpers.maintain.pdf", "--edition", edition]
    # The copies are no checkouts, so they cannot tell the date of their commit.
    given = {**os.environ, **settings, "PYTHONPATH": str(folder / "src"), "SOURCE_DATE_EPOCH": pdf.source_date()}
    if subprocess.run(command, cwd=folder, env=given, stdout=subprocess.DEVNULL, check=False).returncode:
        raise SystemExit(f"reproducible: the PDF in {folder} failed")
    name = f"{pdf.NAME}-{edition}.pdf"
    shutil.copyfile(folder / "_build/pdf" / name, folder / "_build/html" / edition / name)


def build(folder: Path, edition: str, settings: dict[str, str], jobs: int = 1) -> Path:
    """Build the copy in a folder; returns the folder of the pages.

    Raises
    ------
    SystemExit
        The build failed.
    """
    out = folder / "_build/html" / edition
    language = [] if edition == "en" else ["-D", f"language={edition}"]
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-q",
        "-W",
        "--keep-going",
        "-n",
        "-c",
        ".",
        "-b",
        "html",
        "-j",
        str(jobs),
    ]
    command += ["-d", f"_build/doctrees/{edition}", *language, "book", str(out)]
    done = subprocess.run(command, cwd=folder, env={**os.environ, **settings}, check=False)
    if done.returncode:
        raise SystemExit(f"reproducible: the build in {folder} failed")
    return out


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see the module."""
    parser = argparse.ArgumentParser(prog="reproducible", description=__doc__.split("\n")[0])
    parser.add_argument("--edition", default="en", help="language of the book (default: %(default)s)")
    parser.add_argument("--pdf", action="store_true", help="compare the PDF, too")
    arguments = parser.parse_args(argv)
    edition = arguments.edition
    with tempfile.TemporaryDirectory(prefix="reproducible-") as folder:
        outputs = []
        for number, (name, settings) in enumerate(zip(FOLDERS, SETTINGS, strict=True)):
            copy = Path(folder, name)
            copy_book(ROOT, copy, reverse=bool(number))
            print(f"reproducible: build {number + 1} of 2", flush=True)
            outputs.append(build(copy, edition, settings, jobs=number + 1))
            if arguments.pdf:
                build_pdf(copy, edition, settings)
        found = differences(*outputs)
        count = len(_files(outputs[0]))
    print("\n".join(found) or f"reproducible: {count} files, all bytes the same")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

"""Build the editions of the book that are not current: ``make html``.

::

    python -m tvm_deepdive_helpers.maintain.html en zh_CN

Sphinx needs seconds to find that nothing has changed, because it first loads itself and the whole book. Here the sizes
and dates of all files, of what the book is made from and of what was made, are compared with those after the last
build that ended well. If all are the same, and the settings too, there is nothing to do, and Sphinx is not even loaded.
Otherwise Sphinx decides what has to be built.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
#: What the book is made from. Compiled catalogs (``.mo``) are made by the build from the others.
SOURCES = (
    *("conf.py", "pyproject.toml", "constraints.txt", ".venv/stamp.json"),
    *("book", "gallery", "src", "tests/practice"),
)
#: What the scripts leave; a build may renew it.
RESULTS = "book/gallery"
#: Settings from the environment that change what is built.
SETTINGS = ("BOOK_URL", "SOURCE_DATE_EPOCH")
#: Files and folders that say nothing about the book; a build that changes nothing renews the lock.
PASSING = ("__pycache__", ".lock")
FORMAT = 1


def state(root: Path, names: Iterable[str], without: Sequence[str] = ()) -> str:
    """A hash over path, size and date of all files below some files and folders."""
    left_out = {root / name for name in without}
    found = []
    todo = [root / name for name in names]
    while todo:
        path = todo.pop()
        try:
            entries = list(os.scandir(path))
        except NotADirectoryError:
            status = path.stat()
            found.append((path.relative_to(root).as_posix(), status.st_size, status.st_mtime_ns))
            continue
        except FileNotFoundError:
            continue
        for entry in entries:
            if entry.name in PASSING or entry.name.endswith(".mo") or Path(entry.path) in left_out:
                continue
            if entry.is_dir(follow_symlinks=False):
                todo.append(Path(entry.path))
            else:
                status = entry.stat(follow_symlinks=False)
                found.append((Path(entry.path).relative_to(root).as_posix(), status.st_size, status.st_mtime_ns))
    return hashlib.sha256(repr(sorted(found)).encode()).hexdigest()


def _sources(root: Path, options: Sequence[str]) -> str:
    settings = [FORMAT, sys.version, list(options), [os.environ.get(name) for name in SETTINGS]]
    return hashlib.sha256((state(root, SOURCES, [RESULTS]) + repr(settings)).encode()).hexdigest()


def _now(root: Path, edition: str, sources: str) -> dict[str, str]:
    made = state(root, [RESULTS, f"_build/doctrees/{edition}"])
    return {"sources": sources, "made": made, "pages": state(root, [f"_build/html/{edition}"])}


def build(root: Path, edition: str, options: Sequence[str] = ()) -> int:
    """Build one edition, unless nothing changed since its last good build.

    Parameters
    ----------
    root
        Folder of the book.
    edition
        Its language, as in ``conf.py``.
    options
        More options for Sphinx.

    Returns
    -------
    int
        Sphinx's exit status.
    """
    record = root / "_build" / f"current-{edition}.json"
    # Taken before the build: a file that is changed meanwhile is another one at the next.
    sources = _sources(root, options)
    if record.is_file():
        try:
            known = json.loads(record.read_text(encoding="utf-8"))
        except ValueError:
            known = {}
        now = _now(root, edition, sources)
        if known == now:
            print(f"{edition}: nothing has changed since the last build")
            return 0
        if known == {**now, "pages": known.get("pages")}:
            # Somebody changed what was built. Sphinx would not see it: a page newer than its source is current for it.
            options = [*options, "-a"]
        record.unlink()
    language = [] if edition == "en" else ["-D", f"language={edition}"]
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-j", "auto", "-n", "-c", ".", "-b", "html"]
    command += ["-d", f"_build/doctrees/{edition}", *language, *options, "book", f"_build/html/{edition}"]
    status = subprocess.run(command, cwd=root, check=False).returncode
    if status == 0:
        content = json.dumps(_now(root, edition, sources))
        temporary = record.with_suffix(f".{os.getpid()}.new")
        try:
            temporary.write_text(content, encoding="utf-8")
            temporary.replace(record)
        except OSError:  # a full disk: the next build looks again
            temporary.unlink(missing_ok=True)
    return status


def main(argv: Sequence[str] | None = None) -> int:
    """Command line: editions; more options for Sphinx stand in the variable ``SPHINXOPTS``."""
    options = shlex.split(os.environ.get("SPHINXOPTS", ""))
    for edition in sys.argv[1:] if argv is None else argv:
        status = build(ROOT, edition, options)
        if status:
            return status
    return 0


if __name__ == "__main__":
    sys.exit(main())
